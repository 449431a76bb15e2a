"""Logs as they lie on a disk: which files make one, their lines, oldest first, and those that are written later.

Files may have been rotated, compressed, cut or damaged. They are read a block at a time, whatever their size.
"""

from __future__ import annotations

import logging
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from edge_runner.errors import EdgeRunnerError
from edge_runner.output.rotated import NUMBERED, PACKED, family, number_of, packed_path, real_path

STANDARD_INPUT = "-"
BLOCK_BYTES = 1 << 18
PACKED_BYTES = 1 << 16
MOST_LINE_BYTES = 1 << 24  # no line of ours is so long: it is a file of something else
GZIP, GZIP_WBITS = b"\x1f\x8b", 31

log = logging.getLogger(__name__)

Block = bytes
"""Some whole lines, the last one perhaps without its end."""


class Log:
    """One log: the rotated files beside `live`, and that itself; or, where only rotated files were named, only those."""

    def __init__(self, live: Path) -> None:
        self.live = live
        self.unreadable = 0
        """Lines that whoever reads them could make nothing of."""
        self._named: dict[int, Path] | None = {}
        self._last, self._begins = 0, b""
        """Of the rotated file that was read last: the number, and the first line."""
        self._file: BinaryIO | None = None
        self._offset = 0
        self._ended = False

    def __str__(self) -> str:
        return "standard input" if str(self.live) == STANDARD_INPUT else str(self.live)

    @property
    def grows(self) -> bool:
        """Whether `more` may give more, now that `lines` has given all."""
        return not self._ended

    def add(self, path: Path, number: int | None) -> None:
        """Have a file of it read too: a rotated one, or the live one (None), which brings all others. A .gz is whole."""
        if number is None:
            self._named = None
        elif self._named is not None and (number not in self._named or path.suffix == PACKED):
            self._named[number] = path

    def verify(self, *, may_come: bool = False) -> None:
        """Raise EdgeRunnerError where a file is not there, unless it `may_come`, or cannot be read."""
        if str(self.live) == STANDARD_INPUT:
            return
        if self._named is not None:
            for path in self._named.values():
                _verify(path)
        elif os.path.lexists(self.live) or not (may_come or self._rotated()):
            _verify(self.live)

    def begins(self) -> bytes:
        """The oldest line; of what can be read only once, an empty one."""
        for path in [*(path for _, path in self._rotated()), *([self.live] if self._named is None else [])]:
            with suppress(OSError):
                if stat.S_ISREG(path.stat().st_mode):
                    return _first_line(path)
        return b""

    def lines(self, *, follow: bool = False) -> Iterator[Block]:
        """All there are. With `follow`, a last one that is not whole is left for `more`, which goes on from there."""
        yield from self._older()
        if self._file is None:
            return
        if follow and _can_grow(self._file):
            yield from self._rest()
            return
        with self._file as file:
            self._file, self._ended = None, True
            yield from read(file, self)

    def more(self) -> Iterator[Block]:
        """What has been written since, through rotation, renaming and truncation; only whole lines."""
        known = None
        if self._ended:
            return
        if self._file and self._replaced(self._file):
            yield from self._rest(last=True)
            known = _first_of(self._file)
            self._file.close()
            self._file = None
        if self._file is None:
            self._notice_new_numbers()
            yield from self._older(known)
        if self._file:
            yield from self._rest()

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None

    def _rotated(self) -> list[tuple[int, Path]]:
        """Those that are not read yet, with their numbers."""
        if self._named is not None:
            return sorted((number, path) for number, path in self._named.items() if number > self._last)
        try:
            found = [(number_of(self.live, path) or 0, path) for path in family(self.live)]
        except OSError as error:
            raise _refused(self.live.parent, error) from error
        return [(number, path) for number, path in found if number > self._last]

    def _notice_new_numbers(self) -> None:
        """They begin anew where the log was deleted with all its files: then the last one is another now, or none is so high."""
        with suppress(OSError):  # which is told when they are read
            found = {number_of(self.live, path) or 0: path for path in family(self.live)}
            last = found.get(self._last)
            if max(found, default=self._last) < self._last or (last and _first_line(last) != self._begins):
                self._last = 0

    def _older(self, known: bytes | None = None) -> Iterator[Block]:
        """The rotated files, until the live one is open. What begins with the line `known` has been read while it was that."""
        while True:
            for number, path in self._rotated():
                self._last = number
                if self._named is None:
                    self._begins = _first_line(path)
                if not known or self._begins != known:
                    yield from _read_rotated(path)
            if self._named is not None:
                self._ended = True
                return
            self._file, self._offset = _opened(self.live), 0
            if not self._rotated():
                return
            self.close()  # it was rotated just now, before or after it was opened

    def _replaced(self, file: BinaryIO) -> bool:
        """Whether another file has taken its name, or it was rotated. As long as it is only gone, more may still come."""
        with suppress(OSError):
            return not os.path.samestat(os.stat(self.live), os.fstat(file.fileno()))
        return bool(self._rotated())

    def _rest(self, *, last: bool = False) -> Iterator[Block]:
        """Whole lines from where the last whole one ended, so that one that is written in parts is read again."""
        assert self._file
        if os.fstat(self._file.fileno()).st_size < self._offset:
            self._offset = 0
        rest = b""
        while block := os.pread(self._file.fileno(), BLOCK_BYTES, self._offset + len(rest)):
            whole, rest = _cut(rest + block)
            self._offset += len(whole)
            yield whole
            if len(rest) > MOST_LINE_BYTES:
                self._offset += len(rest)
                rest = b""
        if last and rest:
            yield rest


def gather(names: Iterable[str]) -> list[Log]:
    """The logs that these files belong to, each file once; `-` is standard input. A live log brings its rotated files with it."""
    logs: dict[Path, Log] = {}
    for name in names:
        live, number = numbered(Path(name))
        if number is not None and not os.path.lexists(live) and _is_live(Path(name)):
            live, number = Path(name), None
        live = _target(live)
        key = live if name == STANDARD_INPUT else real_path(live.parent) / live.name
        logs.setdefault(key, Log(live)).add(Path(name), number)
    return list(logs.values())


def numbered(path: Path) -> tuple[Path, int | None]:
    """Of a rotated file the live one's path and the number, `a.000001.jsonl.gz` -> (`a.jsonl`, 1); of another, itself and None."""
    match = NUMBERED.fullmatch(path.name.removesuffix(PACKED))
    return (path.with_name(match["stem"] + match["suffix"]), int(match["number"])) if match else (path, None)


def read(file: BinaryIO, name: object, level: int = logging.WARNING) -> Iterator[Block]:
    """The lines of a file, from where it stands, gzipped (its first bytes tell) or not. Log by `name` what cannot be read."""
    blocks: Iterator[bytes] = iter(partial(file.read, BLOCK_BYTES), b"")
    first = next(blocks, b"")
    while len(first) < len(GZIP) and (more := next(blocks, b"")):  # a pipe may give a byte at a time
        first += more
    blocks = chain([first], blocks)
    try:
        yield from _split(_unpacked(blocks, name, level) if first.startswith(GZIP) else blocks)
    except OSError as error:
        log.log(level, "%s: %s; what comes before that is there", name, (error.strerror or str(error)).lower())


def _read_rotated(path: Path) -> Iterator[Block]:
    if file := _opened_rotated(path):
        with file:
            yield from read(file, path)


def _split(blocks: Iterable[bytes]) -> Iterator[Block]:
    rest = b""
    for block in blocks:
        whole, rest = _cut(rest + block)
        yield whole
        if len(rest) > MOST_LINE_BYTES:
            rest = b"\0"  # is left of it, and counts as one that cannot be read
    if rest:
        yield rest


def _cut(block: bytes) -> tuple[bytes, bytes]:
    """Whole lines, and what follows them."""
    end = block.rfind(b"\n") + 1
    return block[:end], block[end:]


def _unpacked(blocks: Iterable[bytes], name: object, level: int) -> Iterator[bytes]:
    """What gzip has packed, in one part or several, up to where it is cut or damaged."""
    engine, inside = zlib.decompressobj(GZIP_WBITS), False
    for block in blocks:
        rest = block
        while rest := rest if inside else rest.lstrip(b"\0"):  # zeros may stand between two parts
            packed, rest = rest[:PACKED_BYTES], rest[PACKED_BYTES:]
            before, inside = engine.copy(), True
            try:
                content = engine.decompress(packed, BLOCK_BYTES)
            except zlib.error:
                yield from _bytewise(before, packed)
                log.log(level, "%s: the gzipped content is damaged; what comes before the damage is there", name)
                return
            yield content
            rest = (engine.unused_data or engine.unconsumed_tail) + rest
            if engine.eof:
                engine, inside = zlib.decompressobj(GZIP_WBITS), False
    if inside:
        log.log(level, "%s: the gzipped content is cut off; what was there of it has been read", name)


def _bytewise(engine: zlib._Decompress, packed: bytes) -> Iterator[bytes]:
    """What there is before the damage; at once, zlib would give nothing of it."""
    with suppress(zlib.error):
        for place in range(len(packed)):
            yield engine.decompress(packed[place : place + 1])


def _is_live(path: Path) -> bool:
    """Whether rotated files lie beside it: a log named by its day, `a.20261122.jsonl`, looks as if it were one itself."""
    with suppress(OSError):
        return bool(family(path))
    return False


def _target(path: Path) -> Path:
    """Where a link to a log leads, for its rotated files lie there. A link to what is no file, such as a pipe, stays as it is."""
    if not os.path.islink(path) or (os.path.exists(path) and not os.path.isfile(path)):
        return path
    return real_path(path)


def _verify(path: Path) -> None:
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise EdgeRunnerError(f"{path} is a folder; name its files")
    except OSError as error:
        raise _refused(path, error) from error
    if not os.access(path, os.R_OK):
        raise EdgeRunnerError(f"{path}: permission denied")


def _opened(path: Path) -> BinaryIO | None:
    """A file to be read, without a buffer, so that nothing waits for a whole block; None where there is none."""
    try:
        if str(path) == STANDARD_INPUT:
            return open(0, "rb", buffering=0, closefd=False)
        return open(path, "rb", buffering=0)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refused(path, error) from error


def _opened_rotated(path: Path) -> BinaryIO | None:
    """Meanwhile it may have been compressed, or deleted to make room: then it is no longer part of the log."""
    return _opened(path) or _opened(packed_path(path))


def _first_line(path: Path) -> bytes:
    file = _opened_rotated(path)
    if file is None:
        return b""
    with file:
        return _first_of(file)


def _first_of(file: BinaryIO) -> bytes:
    """What is wrong with the file is told when it is read."""
    file.seek(0)
    return next((block.split(b"\n", 1)[0] for block in read(file, file.name, logging.DEBUG) if block), b"")


def _can_grow(file: BinaryIO) -> bool:
    fd = file.fileno()
    return stat.S_ISREG(os.fstat(fd).st_mode) and os.pread(fd, len(GZIP), 0) != GZIP


def _refused(path: Path, error: OSError) -> EdgeRunnerError:
    return EdgeRunnerError(f"{path}: {(error.strerror or str(error)).lower()}")
