"""A folder of files that may not grow beyond so many bytes: the oldest are deleted first."""

from __future__ import annotations

import logging
import os
import re
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from edge_runner.errors import OutputError, SettingError
from edge_runner.output.disk import passes, words, writable
from edge_runner.result import Result

log = logging.getLogger(__name__)

# What `file_stem` makes, and nothing else, is ours to count and to delete.
OURS = re.compile(r"\.?\d{8}T\d{6}\.\d{6}Z-.+")
UNFINISHED_S = 60.0  # a file that is not whole yet, and so old, is left over from a power cut


def file_stem(result: Result) -> str:
    """A name for a file that goes with a result: sorts by time, `20261122T132800.123456Z-front-door-877`."""
    moment = datetime.fromtimestamp(result.time_ns // 10**9, timezone.utc)
    time_text = f"{moment:%Y%m%dT%H%M%S}.{result.time_ns % 10**9 // 1000:06d}Z"
    return f"{time_text}-{re.sub(r'[^A-Za-z0-9._-]+', '_', result.camera)}-{result.seq}"


class Quota:
    """The files with one ending in `folder` that belong to results, earlier starts' too; all others are left alone.

    A file is there whole or not at all: it is written beside its place, under a name that begins with a dot, and renamed. That
    holds over a power cut too where it is `durable`, which costs the card some more writing; else the newest may be empty then.
    """

    def __init__(self, folder: Path, suffix: str, most_bytes: int, *, durable: bool = False) -> None:
        self.folder = folder
        self.suffix = suffix
        self.most_bytes = most_bytes
        self.durable = durable
        self._files: dict[str, int] = {}
        """Bytes by name, the oldest first."""
        self._bytes = 0
        self._seen = False
        """Whether it is known what is in the folder."""

    def verify(self) -> None:
        """Raise SettingError where the folder can never be written, or made; write nothing."""
        place = next(path for path in (self.folder, *self.folder.parents) if os.path.lexists(path))
        if not place.is_dir():
            raise SettingError(f"{self.folder}: {place} is no folder; name another", key="path")
        if not writable(place, os.W_OK | os.X_OK):
            raise SettingError(
                f"{self.folder}: {place} cannot be written by this user; name another, or chown it", key="path"
            )

    def open(self) -> None:
        """Make the folder, and see what is in it. Raise SettingError where that can never be."""
        try:
            self._look()
        except OSError as error:
            if not passes(error):
                raise SettingError(f"{self.folder}: {words(error)}", key="path") from error
            log.warning("%s: %s; it is tried again with each file", self.folder, words(error))

    def save(self, name: str, content: bytes) -> None:
        """Save a file under a name of `file_stem` with the ending; raise OutputError where it cannot be kept."""
        if len(content) > self.most_bytes:
            raise OutputError(
                f"{self.folder}: a file of {len(content):,} bytes; max_total allows {self.most_bytes:,} in all"
            )
        try:
            if not self._seen:
                self._look()
            self._bytes -= self._files.pop(name, 0)
            while self._bytes + len(content) > self.most_bytes:
                self._delete_oldest()
            try:
                self._write(name, content)
            except FileNotFoundError:  # somebody has removed the folder
                self.folder.mkdir(parents=True, exist_ok=True)
                self._write(name, content)
        except OSError as error:
            raise OutputError(f"{self.folder}: {words(error)}") from error
        self._files[name] = len(content)
        self._bytes += len(content)

    def _look(self) -> None:
        self._seen = False
        self.folder.mkdir(parents=True, exist_ok=True)
        found = [entry for entry in os.scandir(self.folder) if self._is_ours(entry)]
        kept = []
        for entry in found:
            with suppress(OSError):  # another process was faster
                status = entry.stat(follow_symlinks=False)
                if not status.st_size:  # of a power cut
                    os.unlink(entry.path)
                elif not entry.name.startswith("."):
                    kept.append((status.st_mtime, entry.name, status.st_size))
                elif time.time() - status.st_mtime > UNFINISHED_S:
                    os.unlink(entry.path)
        self._files = {name: size for _, name, size in sorted(kept)}
        self._bytes = sum(self._files.values())
        self._seen = True

    def _write(self, name: str, content: bytes) -> None:
        beside = self.folder / f".{name}"
        try:
            with beside.open("wb") as file:
                file.write(content)
                if self.durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(beside, self.folder / name)
        except OSError:
            with suppress(OSError):
                beside.unlink()
            raise

    def _delete_oldest(self) -> None:
        """What can never be deleted counts no longer: it would keep every new file out. Raise OSError of a disk in trouble."""
        name = next(iter(self._files))
        try:
            (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            if passes(error):
                raise
            log.warning("%s cannot be deleted: %s", self.folder / name, words(error))
        self._bytes -= self._files.pop(name)

    def _is_ours(self, entry: os.DirEntry[str]) -> bool:
        named = entry.name.endswith(self.suffix) and OURS.fullmatch(entry.name.removesuffix(self.suffix))
        return bool(named) and entry.is_file(follow_symlinks=False)
