"""How many bytes a log may take a day: counted by the UTC day, and kept over restarts in a small hidden file beside the log."""

from __future__ import annotations

import gzip
import json
import logging
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from edge_runner.output.logfile import bytes_by_day
from edge_runner.output.rotated import family, is_packed, real_path

log = logging.getLogger(__name__)

KEPT_DAYS = 4  # the clock of a board may be wrong for a while after its start, and come back
NOTES = 64  # a day at most, beyond those at rotation and at the end: the card is written to rarely


class Budget:
    """Of one log: `live` is its file, `most_bytes` what it may take a day.

    The hidden file tells the bytes of each day up to a place in the live file; what is behind that, the live file tells itself.
    Where the hidden file cannot be read, the live and the rotated files tell everything. All lie beside the target of a link.
    """

    def __init__(self, live: Path, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.dropped = 0
        """Lines that it had no room for, in all."""
        self._live = live
        self._days: dict[str, int] = {}
        self._noted = 0
        self._spent_on: str | None = None
        """The day whose budget is used up."""

    @property
    def today(self) -> int:
        """Bytes of lines that were written today."""
        return self._days.get(utc_day(), 0)

    def open(self, inode: int, days: Callable[[int], Mapping[str, int]]) -> None:
        """See what earlier starts wrote. `days` tells the bytes of the live file's lines from a place on, by their day."""
        self._spent_on = None
        noted, noted_inode, offset = self._read()
        if noted is None:
            self._days = Counter(_rotated_days(real_path(self._live))) + Counter(days(0))
        elif noted_inode == inode:
            self._days = Counter(noted) + Counter(days(offset))
        else:
            self._days = Counter(noted) | Counter(days(0))  # the larger of each
        self._noted = self.today

    def allows(self, size: int, waiting: int = 0) -> bool:
        """Whether a line of `size` bytes has room, with those that wait already; where not, none has until the next day."""
        day = utc_day()
        if self._spent_on == day:
            self.dropped += 1
            return False
        if self.today + waiting + size > self.most_bytes:
            self._spent_on = day
            self.dropped += 1
            log.warning(
                "%s: the daily budget of %s is used up; results are dropped until the next day (UTC) begins",
                self._live,
                size_text(self.most_bytes),
            )
            return False
        self._spent_on = None
        return True

    def spend(self, size: int) -> bool:
        """Count what was written today; whether it is time to note it."""
        day = utc_day()
        self._days[day] = self._days.get(day, 0) + size
        return abs(self._days[day] - self._noted) >= self.most_bytes / NOTES

    def note(self, inode: int, offset: int) -> None:
        """Write it down, as it is up to `offset` in that file. Where the disk has no room for it, the next time does."""
        latest = sorted(self._days)[-KEPT_DAYS:]
        self._days = {day: self._days[day] for day in {*latest, utc_day()} if day in self._days}
        self._noted = self.today
        beside = self._path.with_name(f"{self._path.name}.part")
        try:
            with beside.open("w", encoding="utf-8") as file:
                file.write(json.dumps({"inode": inode, "offset": offset, "days": self._days}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, self._path)
        except OSError:
            with suppress(OSError):
                beside.unlink()

    def report(self) -> str:
        """For the end of a run."""
        dropped = f" ({self.dropped} results beyond that)" if self.dropped else ""
        return f"{size_text(self.today)} of {size_text(self.most_bytes)} today{dropped}"

    @property
    def _path(self) -> Path:
        live = real_path(self._live)
        return live.with_name(f".{live.name}.budget")

    def _read(self) -> tuple[dict[str, int] | None, int, int]:
        """What was noted: the bytes by their day, up to which inode, and which place in it; None where that cannot be read."""
        with suppress(Exception):  # it is missing, or a power cut left anything at all
            note = json.loads(self._path.read_bytes())
            days = {str(day): int(size) for day, size in note["days"].items()}
            return days, int(note["inode"]), max(0, int(note["offset"]))
        return None, 0, 0


def utc_day() -> str:
    """Today, `2026-11-23`, as far as this machine's clock knows."""
    return _day(time.time())


def size_text(size: int) -> str:
    """Bytes for people: `12.3 MB`."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} B"


def _day(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, timezone.utc):%Y-%m-%d}"


def _rotated_days(live: Path) -> Counter[str]:
    """The bytes of the lines in a log's rotated files by their day, from today on."""
    days: Counter[str] = Counter()
    with suppress(OSError):
        for path in family(live):
            with suppress(OSError, EOFError, zlib.error, ValueError, OverflowError):  # it is damaged, or gone
                days.update(_days_of(path))
    return days


def _days_of(path: Path) -> Mapping[str, int]:
    """Of a file that ends on the day on which it begins, its size will do: to read it all would take a small board seconds."""
    last = _day(path.stat().st_mtime)
    if last < utc_day():
        return {}
    with gzip.open(path) if is_packed(path) else path.open("rb") as lines:
        if last in bytes_by_day([lines.readline()]):
            return {last: _unpacked_size(path)}
        lines.seek(0)
        return bytes_by_day(lines)


def _unpacked_size(path: Path) -> int:
    """Bytes; a compressed file tells its own in its last four bytes (RFC 1952, ISIZE)."""
    if not is_packed(path):
        return path.stat().st_size
    with path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(4), "little")
