"""Brings a bundle's files into a folder: from another folder, or out of a .tar.gz that may come from anywhere.

Only the files of a bundle are written, under their own names, each no larger than it was announced to be.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Protocol

from edge_runner.errors import EdgeRunnerError, ModelError, StoreError
from edge_runner.model.bundle import GOLDENS, LABELS, MANIFEST, MODEL
from edge_runner.model.rights import as_caller, open_no_link

FILES = (MANIFEST, MODEL, LABELS, GOLDENS)  # what the board reads of a bundle: its reports are for people
MOST_BYTES = 2**31  # a .tflite cannot be larger
MOST_ENTRIES = 1000
MOST_HEADER_BYTES = 2**20  # of one entry; a bundle's have 512
CHUNK_BYTES = 2**16
GZIP, TFLITE = b"\x1f\x8b", b"TFL3"
ASK_AGAIN = "get it again, and compare its SHA-256"
WHAT_IS_ONE = "a NAME-VERSION.tar.gz that scripts/build_model.sh made is one"
BARE = (
    "is a bare .tflite file, for whose answers nothing vouches; install the bundle that scripts/build_model.sh makes,"
    " or name the file itself in the configuration, model: {path: …}"
)

Room = Callable[[int], None]
"""Raises StoreError where there is no room for so many bytes more."""


class Readable(Protocol):
    """A file, a pipe or a connection."""

    def read(self, size: int, /) -> bytes: ...


class Source(io.RawIOBase):
    """Reads an archive, and sums it up. Raises StoreError where that fails: in there, it would look like a damaged archive."""

    def __init__(self, file: Readable, told: str) -> None:
        self.told = told
        self._file, self._sum = file, hashlib.sha256()
        self._head = self._next(CHUNK_BYTES)

    def read(self, size: int = -1) -> bytes:
        if self._head:
            taken, self._head = (self._head[:size], self._head[size:]) if size >= 0 else (self._head, b"")
            return taken
        return self._next(size)

    def refuse_others(self) -> None:
        """Raise ModelError where what comes is plainly no archive."""
        if not self._head:
            raise ModelError(f"{self.told} is empty; {WHAT_IS_ONE}")
        if self._head[4:8] == TFLITE:
            raise ModelError(f"{self.told} {BARE}")
        if not self._head.startswith(GZIP):
            raise ModelError(f"{self.told} is no archive of a bundle; {WHAT_IS_ONE}")

    def check(self, sha256: str | None) -> None:
        """Raise ModelError unless all that was read has this SHA-256."""
        if sha256 and self._sum.hexdigest() != sha256.lower():
            raise ModelError(f"{self.told} has the SHA-256 {self._sum.hexdigest()}, not {sha256.lower()}; {ASK_AGAIN}")

    def _next(self, size: int) -> bytes:
        try:
            found = self._file.read(size)
        except EdgeRunnerError:
            raise
        except OSError as error:
            raise StoreError(f"{self.told}: {(error.strerror or str(error)).lower()}") from error
        self._sum.update(found)
        return found


def copy(folder: Path, into: Path, room: Room) -> None:
    """Copy a bundle's files; raise ModelError where there is no manifest, or what cannot be read."""
    with _readable(folder):
        if not (folder / MANIFEST).is_file():
            raise ModelError(f"{folder} is no bundle: {MANIFEST} is missing; {_what_then(folder)}")
        paths = [folder / name for name in FILES if (folder / name).is_file()]
        size = sum(path.stat().st_size for path in paths)
    room(size)
    for path in paths:
        with opened(path, open_no_link) as source:
            _write(source, into / path.name)


@contextmanager
def opened(path: Path, opener: Callable[[str, int], int] | None = None) -> Iterator[Source]:
    """A file to read, by its `opener` as `open` has it; raise ModelError where it cannot be."""
    with _readable(path):
        file = open(path, "rb", opener=opener)  # noqa: SIM115
    with file:
        yield Source(file, str(path))


def unpack(source: Source, into: Path, room: Room, sha256: str | None = None) -> None:
    """Unpack a bundle's archive; raise ModelError where it is damaged, holds what no bundle holds, or is another one."""
    source.refuse_others()
    try:
        with gzip.GzipFile("", "rb", fileobj=source) as unzipped:
            bounded = _Bounded(unzipped)
            with tarfile.TarFile(fileobj=bounded, mode="r") as archive:
                _extract(_bundle_of(archive), archive, into, room)
            while bounded.read(CHUNK_BYTES):  # to the end, where the checksums are
                pass
    except (gzip.BadGzipFile, EOFError, zlib.error, tarfile.TarError, RecursionError, ValueError) as error:
        if isinstance(error, ModelError):
            raise ModelError(f"{source.told} {error}") from error
        raise ModelError(f"{source.told} is cut off or damaged ({error}); {ASK_AGAIN}") from error
    source.check(sha256)


class _Bounded(io.RawIOBase):
    """What is unzipped, which only goes forward, and only so far: neither a bomb nor a header of gigabytes gets through."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        found = self._file.read(size)
        if self.tell() > MOST_BYTES:
            raise ModelError(f"unpacks to more than {MOST_BYTES / 1e9:.1f} GB, which no bundle does")
        return found

    def seek(self, position: int, whence: int = 0) -> int:
        if whence or position < self.tell():
            raise tarfile.ReadError("an entry that ends before it begins")
        while self.tell() < position:
            if not self.read(min(CHUNK_BYTES, position - self.tell())):
                raise EOFError("it ends too early")
        return position

    def tell(self) -> int:
        return self._file.tell()


def _bundle_of(archive: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The bundle's files among the archive's entries, by their names; raise ModelError for what no bundle's archive holds."""
    folders, names = set(), set()
    for number, entry in enumerate(archive, 1):
        path = PurePosixPath(entry.name)
        if number > MOST_ENTRIES:
            raise ModelError(f"holds more than {MOST_ENTRIES} entries, which no bundle does")
        if path.is_absolute() or ".." in path.parts:
            raise ModelError(f"leads out of its folder with {entry.name!r}; {WHAT_IS_ONE}")
        if not (entry.isreg() or entry.isdir()) or entry.issparse():
            raise ModelError(f"holds {entry.name!r}, which is neither a file nor a folder; {WHAT_IS_ONE}")
        if entry.size > MOST_BYTES:
            raise ModelError(f"announces {entry.size / 1e9:.1f} GB for {entry.name!r}, which no bundle has")
        if entry.isreg() and path.name in FILES:
            folders.add(path.parent)
            if path.name in names or len(folders) > 1:
                raise ModelError(f"holds more than one bundle ({entry.name!r}); pack one alone")
            names.add(path.name)
            yield path.name, entry
    if MANIFEST not in names:
        raise ModelError(f"holds no bundle: {MANIFEST} is missing; {WHAT_IS_ONE}")


def _extract(entries: Iterator[tuple[str, tarfile.TarInfo]], archive: tarfile.TarFile, into: Path, room: Room) -> None:
    for name, entry in entries:
        room(entry.size)
        content = archive.extractfile(entry)
        assert content is not None  # a regular file has one
        if _write(content, into / name) != entry.size:
            raise EOFError(f"{entry.name!r} ends too early")


def _write(content: Readable, path: Path) -> int:
    """Write a new file, and say how large it became."""
    size = 0
    with path.open("xb") as file:
        while chunk := content.read(CHUNK_BYTES):
            size += file.write(chunk)
    return size


def is_folder(path: Path) -> bool:
    """Whether a bundle is unpacked there; raise ModelError where one may not look."""
    with _readable(path):
        return path.is_dir()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        with as_caller():
            yield
    except EdgeRunnerError:
        raise
    except OSError as error:
        raise ModelError(f"{error.filename or path}: {(error.strerror or str(error)).lower()}") from error


def _what_then(folder: Path) -> str:
    if (folder / "saved_model.pb").is_file():
        return "it is a SavedModel: scripts/build_model.sh makes a bundle of it"
    return "name a bundle's folder, or its archive"
