"""Results as JSON lines in a file: each line is there whole, or not at all."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from edge_runner.errors import OutputError, SettingError
from edge_runner.fields import OutputPath
from edge_runner.frame import Shot
from edge_runner.output.base import Output
from edge_runner.result import Result

log = logging.getLogger(__name__)

LINE_START = b'{"schema": '
TAIL_BYTES = 1 << 20  # a line is never longer


@dataclass(frozen=True)
class JsonLinesConfig:
    """The configuration's output of type jsonl. The file is appended to."""

    type: Literal["jsonl"] = "jsonl"
    path: Annotated[Path, OutputPath()] = field(kw_only=True)


class JsonLines(Output):
    """One write call a line; a line that did not fit (a full disk) is taken back to its start."""

    Config = JsonLinesConfig

    def __init__(self, config: JsonLinesConfig) -> None:
        super().__init__(config)
        self._file: int | None = None

    def verify(self) -> None:
        try:
            self._verify()
        except PermissionError as error:  # of a folder above it, which cannot even be looked into
            raise SettingError(
                f"{self.config.path}: permission denied; name another, or chown it", key="path"
            ) from error

    def _verify(self) -> None:
        path = self.config.path
        if path.is_dir():
            raise SettingError(f"{path} is a folder; name a file", key="path")
        folder = _first_existing(path.parent)
        if path.exists() and not os.access(path, os.W_OK):
            raise SettingError(f"{path} cannot be written by this user; chown or chmod it", key="path")
        if not path.exists() and not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            why = "cannot be written by this user" if folder.is_dir() else "is no folder"
            raise SettingError(f"{path}: {folder} {why}; name another, or chown it", key="path")

    def open(self) -> None:
        if self._file is not None:
            return
        try:
            self.config.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.config.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            _cut_torn_tail(self._file, self.config.path)
        except OSError as error:
            raise SettingError(f"{self.config.path}: {(error.strerror or str(error)).lower()}", key="path") from error

    def write(self, result: Result, shot: Shot) -> None:
        assert self._file is not None
        line = (result.line() + "\n").encode()
        size = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, line)
            if written == len(line):
                return
            why = "no room for the whole line"
        except OSError as error:
            why = (error.strerror or str(error)).lower()
        if os.fstat(self._file).st_size > size:
            os.ftruncate(self._file, size)
        raise OutputError(f"{self.config.path}: {why}")

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _first_existing(folder: Path) -> Path:
    return next(f for f in (folder, *folder.parents) if f.exists())


def _cut_torn_tail(file: int, path: Path) -> None:
    """Take away what a power cut left of a last line: the next line would be joined to it.

    Raise SettingError where that is no part of a result: it is a file of something else, and stays as it is.
    """
    size = os.fstat(file).st_size
    start = max(0, size - TAIL_BYTES)
    tail = os.pread(file, size - start, start)
    if not tail or tail.endswith(b"\n"):
        return
    torn = tail[tail.rfind(b"\n") + 1 :]
    if torn[: len(LINE_START)] != LINE_START[: len(torn)] and torn.strip(b"\0"):
        raise SettingError(f"{path} is no file of results: its last line is something else; name another", key="path")
    os.ftruncate(file, size - len(torn))
    log.warning("%s: its last line was torn; %d bytes were cut off", path, len(torn))
