"""The file that lines are appended to: each is there whole or not at all, after a full disk, a kill and a power cut too."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from edge_runner.errors import OutputError, SettingError
from edge_runner.output.disk import words
from edge_runner.output.rotated import real_path

LINE_START = b'{"schema": '
LINE_TIME = re.compile(rb'"time": "(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?)Z"')
HEAD_BYTES = 200  # in which a line's time stands
TAIL_BYTES = 1 << 20  # a power cut damages nothing older; hardly a line is longer
LONGEST_BYTES = 64 << 20  # where no line is longer, that is no file of results
LOCK_WAIT_S = 1.0  # for a process that was killed and is still being taken apart
LOCK_PAUSE_S = 0.05

_sync = getattr(os, "fdatasync", os.fsync)  # macOS has only the latter


class Damaged(Exception):
    """More of a file of results is damaged than can be cut off without loss: it is to be put aside as it is."""


class LogFile:
    """One process writes a file at a time: it is locked. A device or a pipe is written to as it is, without any of this."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.born: float | None = None
        """When its first line was written, in time.monotonic's seconds; None while it is empty."""
        self.appended = 0
        """Bytes of whole lines, in all."""
        self.torn = 0
        """Lines that `open` found torn, in all, one for a damaged file; `torn_bytes` were cut off by the last time."""
        self.torn_bytes = 0
        self.mode = 0o644
        """The permissions of a new one: those that the last one had."""
        self._file: int | None = None
        self._regular = True

    @property
    def is_open(self) -> bool:
        return self._file is not None

    @property
    def size(self) -> int:
        """Bytes; 0 of a device or a pipe."""
        return os.fstat(self._fd).st_size if self._regular else 0

    @property
    def inode(self) -> int:
        return os.fstat(self._fd).st_ino

    @property
    def _fd(self) -> int:
        assert self._file is not None
        return self._file

    def open(self, *, durable: bool = True, wait_s: float = 0.0) -> None:
        """Open it, made where it is missing; cut off what a power cut left of a last line, which the next would be joined to.

        Raise OSError where that cannot be: EAGAIN where another writes it, and still does `wait_s` later. Raise SettingError
        where it is a file of something else, Damaged where a power cut left too little of it; either stays as it is. `durable`: a
        new file's name survives a power cut. Where `path` is a link, its target is the file.
        """
        folder = real_path(self.path).parent
        folder.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, self.mode)
        try:
            self._regular = stat.S_ISREG(os.fstat(file).st_mode)
            self.born = None
            if self._regular:
                _lock(file, wait_s)
                self._repair(file)
                self.born = _born(file)
        except BaseException:
            os.close(file)
            raise
        self._file = file
        if new and durable:
            sync_folder(folder)

    def append(self, lines: Sequence[bytes]) -> None:
        """Hand lines, with their ends, to the kernel in one go. What fits only in part is taken back to its last whole line.

        Raise OutputError with the number of those that are not there then.
        """
        data = b"".join(lines)
        done, why = 0, ""
        try:
            while done < len(data):
                done += os.write(self._fd, memoryview(data)[done:])
        except OSError as error:
            why = words(error)
        whole = data.rfind(b"\n", 0, done) + 1
        if whole < done and self._regular:
            with suppress(OSError):  # then it is cut off when the file is opened next
                os.ftruncate(self._fd, self.size - (done - whole))
        if whole and self._regular and self.born is None:
            self.born = time.monotonic()
        self.appended += whole
        if why:
            raise OutputError(f"{self.path}: {why}", lost=len(lines) - data.count(b"\n", 0, whole))

    def sync(self) -> None:
        """Have the disk keep what was appended, power cut or not. Raise OSError where it cannot."""
        try:
            _sync(self._fd)
        except OSError as error:
            if error.errno != errno.EINVAL or self._regular:  # a pipe has no disk
                raise

    def moved(self) -> bool:
        """Whether its name leads to another file by now, or nowhere."""
        if not self._regular:
            return False
        mine = os.fstat(self._fd)
        try:
            named = os.stat(self.path)
        except OSError:
            return True
        return (mine.st_dev, mine.st_ino) != (named.st_dev, named.st_ino)

    def days(self, offset: int) -> dict[str, int]:
        """The bytes of the lines from `offset` on by their day, as `bytes_by_day`."""
        if not self._regular:
            return {}
        with open(self._fd, "rb", closefd=False) as lines:
            lines.seek(offset)
            return bytes_by_day(lines)

    def close(self) -> None:
        if self._file is not None:
            if self._regular:
                self.mode = stat.S_IMODE(os.fstat(self._file).st_mode)
            os.close(self._file)
            self._file = None

    def _repair(self, file: int) -> None:
        size = os.fstat(file).st_size
        self.torn_bytes = 0
        try:
            whole, torn = torn_tail(file, self.path)
        except Damaged:
            self.torn += 1
            raise
        self.torn_bytes = size - whole
        if self.torn_bytes:
            os.ftruncate(file, whole)
            self.torn += sum(bool(line.strip()) for line in torn.splitlines()) if torn else 1


def torn_tail(file: int, path: Path) -> tuple[int, bytes]:
    """Where the whole lines of a file of results end, and what is behind them but for NUL bytes at the very end.

    A power cut, or a kill within a line, leaves a last line that is cut short, NUL bytes in place of lines, or, as vfat does, what
    other files once held. Raise SettingError where a file that so ends begins as one of something else; Damaged where no whole line
    stands before the damage, as far back as a power cut can reach (TAIL_BYTES), but there are some elsewhere.
    """
    size = os.fstat(file).st_size
    start, tail = _last_lines(file, _end_of_content(file, size))
    whole = _whole_lines(tail)
    if start + whole == size:
        return size, b""
    if not _is_ours(file, tail):
        raise SettingError(f"{path} is no file of results: it does not begin as one; name another", key="path")
    torn = tail[whole:]
    if not whole and (start or b"\n" + LINE_START in torn):
        raise Damaged
    return start + whole, torn


def bytes_by_day(lines: Iterable[bytes]) -> dict[str, int]:
    """The bytes of lines by their day, `2026-11-23`; those without a time count nowhere."""
    found: dict[str, int] = {}
    for line in lines:
        if moment := LINE_TIME.search(line, 0, HEAD_BYTES):
            day = moment[1][:10].decode()
            found[day] = found.get(day, 0) + len(line)
    return found


def sync_folder(folder: Path) -> None:
    """Have the disk keep the names in a folder; where a file system cannot, it is as good as that one gets."""
    with suppress(OSError):
        file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def _end_of_content(file: int, size: int) -> int:
    """Where the NUL bytes begin that a file ends in."""
    while size:
        start = max(0, size - TAIL_BYTES)
        block = os.pread(file, size - start, start).rstrip(b"\0")
        if block:
            return start + len(block)
        size = start
    return 0


def _last_lines(file: int, end: int) -> tuple[int, bytes]:
    """Whole lines before `end`, where they begin, and what is behind them: as a rule the last TAIL_BYTES."""
    length = TAIL_BYTES
    while True:
        start = max(0, end - length)
        tail = os.pread(file, end - start, start)
        first = 0 if start == 0 else tail.find(b"\n", 0, len(tail) - 1) + 1
        if first or start == 0 or length >= LONGEST_BYTES:
            return start + first, tail[first:]
        length *= 2


def _whole_lines(tail: bytes) -> int:
    """Where the whole lines end: before the first NUL byte, and behind the last line that is one."""
    hole = tail.find(b"\0")
    end = len(tail) if hole < 0 else tail.rfind(b"\n", 0, hole) + 1
    while end:
        begins = tail.rfind(b"\n", 0, end - 1) + 1
        if _is_object(tail[begins:end]):
            break
        end = begins
    return end


def _is_ours(file: int, tail: bytes) -> bool:
    """Whether a damaged file begins as one of results, or as a power cut leaves that: with half a line, or with NUL bytes.

    Behind NUL bytes there has to be a line, or the end of one, or nothing at all. `tail`: its last lines.
    """
    head, hole, _ = os.pread(file, TAIL_BYTES, 0).partition(b"\0")
    begins = head.lstrip()
    if begins or not hole:
        return begins.startswith(LINE_START) or LINE_START.startswith(begins)
    return not tail.strip() or LINE_START in tail or tail.endswith(b"}\n")


def _is_object(line: bytes) -> bool:
    """Whether it is a whole line of JSON, and an object."""
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _born(file: int) -> float | None:
    """When its first line was written: by its own time, or, where it has none, when the file was last changed."""
    if not os.fstat(file).st_size:
        return None
    moment = LINE_TIME.search(os.pread(file, HEAD_BYTES, 0))
    written = os.fstat(file).st_mtime
    if moment:
        with suppress(ValueError):
            written = datetime.fromisoformat(moment[1].decode()).replace(tzinfo=timezone.utc).timestamp()
    return time.monotonic() - max(0.0, time.time() - written)


def _lock(file: int, wait_s: float) -> None:
    ends = time.monotonic() + wait_s
    while not _is_mine(file):
        if time.monotonic() >= ends:
            raise BlockingIOError(errno.EAGAIN, "another process or output writes it")
        time.sleep(LOCK_PAUSE_S)


def _is_mine(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
