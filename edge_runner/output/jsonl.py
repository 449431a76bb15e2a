"""Results as JSON lines in a file: written, synchronised and rotated with an SD card in mind.

What the disk does to lines is in logfile.py, the rotated files in shelf.py, the bytes of a day in budget.py.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from edge_runner.errors import OutputError, SettingError
from edge_runner.fields import Duration, OutputPath, Range, Size
from edge_runner.output.base import Item, Origin, Output, OutputConfig
from edge_runner.output.budget import Budget
from edge_runner.output.disk import passes, words, writable
from edge_runner.output.logfile import LOCK_WAIT_S, Damaged, LogFile
from edge_runner.output.rotated import PACKED, other_name, real_path
from edge_runner.output.shelf import Shelf

GATHERED_BYTES = 64 * 1024  # of lines at most, whatever `flush` says
RETRY_S = 1.0  # until a file that failed is opened again
LOOK_S = 1.0  # between two looks whether the file was moved or deleted
ROTATE_RETRY_S = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JsonLinesConfig(OutputConfig):
    """The configuration's output of type jsonl. The file is appended to; the bytes are those of lines, the durations seconds.

    It is rotated before it is larger than `rotate_size`, and when its first line is `rotate_age` old; None is never. `keep` rotated
    files stay. `flush` hands lines to the kernel, `fsync` to the disk: with each line, or at most so long after it came.
    """

    type: Literal["jsonl"] = "jsonl"
    path: Annotated[Path, OutputPath()] = field(kw_only=True)
    rotate_size: Annotated[Size, Range(0, above=True)] | None = 16 * 10**6
    rotate_age: Annotated[Duration, Range(0, above=True)] | None = None
    keep: Annotated[int, Range(1)] = 5
    compress: bool = True
    flush: Literal["each"] | Annotated[Duration, Range(0, above=True)] = "each"
    fsync: Literal["each", "never"] | Annotated[Duration, Range(0, above=True)] = 5.0
    daily_budget: Annotated[Size, Range(0, above=True)] | None = None


class JsonLines(Output):
    """Lines are gathered for `flush`, then written in one go. A file that fails is closed, and opened again after a while."""

    Config = JsonLinesConfig

    def __init__(self, config: JsonLinesConfig) -> None:
        super().__init__(config)
        self.config: JsonLinesConfig = config
        self._file = LogFile(config.path)
        self._shelf = Shelf(config.path, config.keep, compress=config.compress)
        self._budget = Budget(config.path, config.daily_budget) if config.daily_budget else None
        self._lines: list[bytes] = []
        self._bytes = 0
        """Of the lines that are gathered."""
        self._waiting_since: float | None = None
        """When the oldest of them came."""
        self._unsynced_since: float | None = None
        """When the oldest line came that the disk may not have yet."""
        self._unsynced = 0
        """Lines that the kernel has, and the disk may not have yet."""
        self._opened = False
        self._why = ""
        """What is wrong while the file is not open."""
        self._retry_at = self._look_at = self._rotate_at = 0.0
        self._stuck = self._counted = False
        """Whether the last rotation failed; whether what earlier starts wrote today is counted."""

    @property
    def torn(self) -> int:
        """Lines that were found torn at the start, and cut off."""
        return self._file.torn

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
        if path.name.endswith(PACKED):
            raise SettingError(f"{path}: only rotated files are compressed; name it without {PACKED}", key="path")
        for name in (path, real_path(path)):
            if other := other_name(name):
                raise SettingError(f"{path}: {name.name} is a rotated file's name; name it {other}, say", key="path")
        folder = _first_existing(real_path(path).parent)
        if path.exists() and not writable(path, os.W_OK):
            raise SettingError(f"{path} cannot be written by this user; chown or chmod it", key="path")
        if not path.exists() and not (folder.is_dir() and writable(folder, os.W_OK | os.X_OK)):
            why = "cannot be written by this user" if folder.is_dir() else "is no folder"
            raise SettingError(f"{path}: {folder} {why}; name another, or chown it", key="path")

    def open(self, origin: Origin) -> None:
        if self._opened:
            return
        try:
            self._open_file(wait_s=LOCK_WAIT_S)
        except SettingError as error:
            error.key = "path"
            raise
        except OSError as error:
            if not passes(error):
                raise SettingError(f"{self.config.path}: {words(error)}", key="path") from error
            self._why = words(error)
            log.warning("%s: %s; it is tried again until it works", self.config.path, self._why)
        self._opened = True
        self._shelf.open()
        self._set_due()

    def write(self, item: Item) -> None:
        line = (item.result.line() + "\n").encode()
        if self._budget and not self._budget.allows(len(line), self._bytes):
            self.lost += 1
            return
        try:
            self._write(line, time.monotonic())
        finally:
            self._set_due()

    def tick(self) -> None:
        now = time.monotonic()
        try:
            if _is_past(self._flush_due, now) or _is_past(self._sync_due, now):
                self._ready(now)
                self._flush()
            if _is_past(self._sync_due, now):
                self._sync()
            if self._file.is_open and self._is_rotation_due(now):
                self._rotate(now)
        finally:
            self._set_due()

    def finish(self, until: float) -> None:
        if self._lines:
            self._look_at = 0.0
            self._ready(time.monotonic())
        self._flush()
        if self._unsynced_since is not None:
            self._sync()
        self._note()
        if self.config.fsync == "never":
            self._shelf.sync(until)

    def close(self) -> None:
        self._opened = self._counted = False
        self._shelf.close()
        self._file.close()
        self.lost += len(self._lines)  # of a close that nobody announced by `finish`
        self._forget()
        self._synced()
        self.due = None

    def figures(self) -> Mapping[str, float]:
        return {"bytes_today": self._budget.today, "bytes_allowed": self._budget.most_bytes} if self._budget else {}

    def report(self) -> str:
        torn = f"{self.torn} torn at the start and cut off" if self.torn else ""
        return ", ".join(filter(None, [torn, self._budget.report() if self._budget else ""]))

    # --- the file -----------------------------------------------------------------------------------------------------

    def _open_file(self, wait_s: float = 0.0) -> None:
        durable = self.config.fsync != "never"
        try:
            self._file.open(durable=durable, wait_s=wait_s)
        except Damaged:
            place = self._shelf.put_away()
            log.warning("%s is damaged; it is kept as %s, and a new one is begun", self.config.path, place)
            self._file.open(durable=durable)
        self._look_at = time.monotonic() + LOOK_S
        if self._file.torn_bytes:
            log.warning("%s: its last line was torn; %d bytes were cut off", self.config.path, self._file.torn_bytes)
        if self._budget and not self._counted:
            self._counted = True
            self._budget.open(self._file.inode, self._file.days)

    def _ready(self, now: float) -> bool:
        """See that the file is open, and the one that the path names. Return whether it has yet to show that it can be written.

        Raise OutputError where it cannot be opened.
        """
        if self._file.is_open and now >= self._look_at:
            self._look_at = now + LOOK_S
            if self._file.moved():
                log.warning("%s: it was moved or deleted; a new one is begun", self.config.path)
                with suppress(OSError):
                    self._file.sync()
                self._unsynced = 0
                self._file.close()
                self._retry_at = now
        if self._file.is_open:
            return False
        if now < self._retry_at:
            raise OutputError(f"{self.config.path}: {self._why}", lost=0)
        try:
            self._open_file()
        except (OSError, SettingError) as error:
            self._fail(words(error) if isinstance(error, OSError) else str(error))
            raise OutputError(f"{self.config.path}: {self._why}", lost=len(self._forget())) from error
        return True

    def _fail(self, why: str) -> None:
        """Nothing is gathered or synchronised while there is no file."""
        self._why = why
        self._retry_at = time.monotonic() + RETRY_S
        self._synced()
        self._file.close()

    # --- lines ----------------------------------------------------------------------------------------------------------

    def _write(self, line: bytes, now: float) -> None:
        with _also_lost(1):
            at_once = self._ready(now)
            if self._is_rotation_due(now, len(line)):
                self._rotate(now)
        self._gather(line, now)
        if at_once or "each" in (self.config.flush, self.config.fsync) or self._bytes >= GATHERED_BYTES:
            self._flush()
        if self.config.fsync == "each":
            self._sync()

    def _gather(self, line: bytes, now: float) -> None:
        self._lines.append(line)
        self._bytes += len(line)
        if self._waiting_since is None:
            self._waiting_since = now
        if self._unsynced_since is None:
            self._unsynced_since = now

    def _forget(self) -> list[bytes]:
        lines, self._lines, self._bytes, self._waiting_since = self._lines, [], 0, None
        return lines

    def _flush(self) -> None:
        """Hand what is gathered to the kernel."""
        if not self._lines:
            return
        before = self._file.appended
        self._unsynced += len(self._lines)
        try:
            self._file.append(self._forget())
        except OutputError as error:
            self._fail(str(error).removeprefix(f"{self.config.path}: "))
            raise
        finally:
            if self._budget and self._budget.spend(self._file.appended - before):
                self._note()

    def _sync(self) -> None:
        """Have the disk keep what the kernel has."""
        if not self._file.is_open:
            return
        try:
            self._file.sync()
        except OSError as error:
            lost = self._unsynced
            self._fail(words(error))
            why = f"{self._why}; the last {lost} lines may not be on the disk, and count as lost"
            raise OutputError(f"{self.config.path}: {why}", lost=lost) from error
        self._synced()

    def _synced(self) -> None:
        """There is nothing more that the disk could be asked to keep."""
        self._unsynced, self._unsynced_since = 0, None

    def _note(self) -> None:
        if self._budget and self._file.is_open:
            self._budget.note(self._file.inode, self._file.size)

    # --- rotation -------------------------------------------------------------------------------------------------------

    def _is_rotation_due(self, now: float, more: int = 0) -> bool:
        """Whether the file has to be rotated before `more` bytes are written."""
        size = self._file.size + self._bytes
        if not size or now < self._rotate_at:
            return False
        if self.config.rotate_size is not None and size + more > self.config.rotate_size:
            return True
        return _is_past(self._age_due, now)

    def _rotate(self, now: float) -> None:
        """Begin a new file. Where the old one cannot be put away, it goes on; raise OutputError where the new one cannot be."""
        if self._file.moved():
            self._look_at = now
            self._ready(now)
            return
        self._flush()
        if self._unsynced_since is not None and self.config.fsync != "never":
            self._sync()
        try:
            self._shelf.put_away()
        except OSError as error:
            self._rotate_at = now + ROTATE_RETRY_S
            if not self._stuck:
                log.warning("%s: cannot be rotated: %s; it goes on as it is", self.config.path, words(error))
            self._stuck = True
            return
        if self._stuck:
            log.warning("%s: is rotated again", self.config.path)
        self._stuck = False
        self._file.close()
        self._shelf.settle()  # before the new file: there may be no other room for it
        self._ready(self._retry_at)
        self._note()

    # --- the clocks -----------------------------------------------------------------------------------------------------

    @property
    def _flush_due(self) -> float | None:
        return _after(self._waiting_since, self.config.flush)

    @property
    def _sync_due(self) -> float | None:
        return _after(self._unsynced_since, self.config.fsync)

    @property
    def _age_due(self) -> float | None:
        due = _after(self._file.born, self.config.rotate_age)
        return None if due is None or not self._file.size else max(due, self._rotate_at)

    def _set_due(self) -> None:
        ages = [self._age_due] if self._file.is_open else []
        self.due = min((due for due in [self._flush_due, self._sync_due, *ages] if due is not None), default=None)


def _after(since: float | None, seconds: float | str | None) -> float | None:
    return None if since is None or seconds is None or isinstance(seconds, str) else since + seconds


def _is_past(due: float | None, now: float) -> bool:
    return due is not None and now >= due


@contextmanager
def _also_lost(results: int) -> Iterator[None]:
    try:
        yield
    except OutputError as error:
        error.lost += results
        raise


def _first_existing(folder: Path) -> Path:
    return next(f for f in (folder, *folder.parents) if f.exists())
