"""How many bytes a log may take a day: counted by the UTC day, and kept over restarts in a small hidden file beside the log."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

log = logging.getLogger(__name__)

KEPT_DAYS = 4  # the clock of a board may be wrong for a while after its start, and come back
NOTES = 64  # a day at most, beyond those at rotation and at the end: the card is written to rarely


class Budget:
    """Of one log: `live` is its file, `most_bytes` what it may take a day.

    The hidden file tells the bytes of each day up to a place in the live file; what is behind that, the live file tells itself.
    """

    def __init__(self, live: Path, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.dropped = 0
        """Lines that it had no room for, in all."""
        self._live = live
        self._path = live.with_name(f".{live.name}.budget")
        self._days: dict[str, int] = {}
        self._noted = 0
        self._spent_on: str | None = None
        """The day whose budget is used up."""

    @property
    def today(self) -> int:
        """Bytes of lines that were written today."""
        return self._days.get(utc_day(), 0)

    def open(self) -> tuple[int, int]:
        """Read what was noted; return to which inode it goes, and up to which place in it; (0, 0) where nothing was noted."""
        self._days, self._spent_on = {}, None
        with suppress(OSError, ValueError, TypeError, KeyError):
            note = json.loads(self._path.read_bytes())
            place = int(note["inode"]), int(note["offset"])
            self._days = {str(day): int(size) for day, size in note["days"].items()}
            return place
        return 0, 0

    def count(self, days: Mapping[str, int], *, beyond: bool) -> None:
        """What the live file itself tells: `beyond` what was noted, or, where the note was of another file, in all."""
        for day, size in days.items():
            noted = self._days.get(day, 0)
            self._days[day] = noted + size if beyond else max(noted, size)
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
            beside.write_text(json.dumps({"inode": inode, "offset": offset, "days": self._days}) + "\n", "utf-8")
            os.replace(beside, self._path)
        except OSError:
            with suppress(OSError):
                beside.unlink()

    def report(self) -> str:
        """For the end of a run."""
        dropped = f" ({self.dropped} results beyond that)" if self.dropped else ""
        return f"{size_text(self.today)} of {size_text(self.most_bytes)} today{dropped}"


def utc_day() -> str:
    """Today, `2026-11-23`, as far as this machine's clock knows."""
    return f"{datetime.now(timezone.utc):%Y-%m-%d}"


def size_text(size: int) -> str:
    """Bytes for people: `12.3 MB`."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} B"
