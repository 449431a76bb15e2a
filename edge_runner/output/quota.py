"""A folder of files that may not grow beyond so many bytes: the oldest are deleted first."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from pathlib import Path

from edge_runner.errors import OutputError, SettingError


class Quota:
    """Files with one ending in `folder`, whose names sort by time; those that are there already count too.

    A file is there whole or not at all: it is written beside its place, under a name that begins with a dot, and renamed.
    """

    def __init__(self, folder: Path, suffix: str, most_bytes: int) -> None:
        self.folder = folder
        self.suffix = suffix
        self.most_bytes = most_bytes
        self._files: deque[tuple[str, int]] = deque()
        self._bytes = 0

    def verify(self) -> None:
        """Raise SettingError where the folder cannot be written, or made; write nothing."""
        place = next(path for path in (self.folder, *self.folder.parents) if os.path.lexists(path))
        if not place.is_dir():
            raise SettingError(f"{self.folder}: {place} is no folder; name another", key="path")
        if not os.access(place, os.W_OK | os.X_OK):
            raise SettingError(
                f"{self.folder}: {place} cannot be written by this user; name another, or chown it", key="path"
            )

    def open(self) -> None:
        """Make the folder, and see what is in it. Raise SettingError where that cannot be."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            found = sorted(entry.name for entry in os.scandir(self.folder) if entry.name.endswith(self.suffix))
            for name in found:
                if name.startswith("."):  # left by a power cut
                    (self.folder / name).unlink(missing_ok=True)
            kept = [name for name in found if not name.startswith(".")]
            self._files = deque((name, (self.folder / name).stat().st_size) for name in kept)
        except OSError as error:
            raise SettingError(f"{self.folder}: {(error.strerror or str(error)).lower()}", key="path") from error
        self._bytes = sum(size for _, size in self._files)

    def save(self, name: str, content: bytes) -> str:
        """Save a file under `name` with the ending; return its whole name. Raise OutputError where it cannot be kept."""
        if len(content) > self.most_bytes:
            raise OutputError(
                f"{self.folder}: a file of {len(content):,} bytes; max_total allows {self.most_bytes:,} in all"
            )
        whole = name + self.suffix
        beside = self.folder / f".{whole}"
        while self._files and self._bytes + len(content) > self.most_bytes:
            self._delete_oldest()
        try:
            beside.write_bytes(content)
            os.replace(beside, self.folder / whole)
        except OSError as error:
            with suppress(OSError):
                beside.unlink()
            raise OutputError(f"{self.folder}: {(error.strerror or str(error)).lower()}") from error
        self._files.append((whole, len(content)))
        self._bytes += len(content)
        return whole

    def _delete_oldest(self) -> None:
        name, size = self._files.popleft()
        try:
            (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            self._files.appendleft((name, size))
            raise OutputError(f"{self.folder / name}: {(error.strerror or str(error)).lower()}") from error
        self._bytes -= size
