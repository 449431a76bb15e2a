"""The bytes of a day."""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

import pytest

from edge_runner.output import budget
from edge_runner.output.budget import KEPT_DAYS, NOTES, Budget, size_text

SUNDAY, MONDAY, TUESDAY = "2026-11-22", "2026-11-23", "2026-11-24"


@pytest.fixture
def live(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture(autouse=True)
def day(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The last one in it is today."""
    days = [MONDAY]
    monkeypatch.setattr(budget, "utc_day", lambda: days[-1])
    return days


def test_a_day(live: Path, day: list[str]) -> None:
    """What was spent counts until the next day; one line that has no room closes the day, for smaller ones too."""
    subject = Budget(live, 100)
    assert subject.allows(60)
    subject.spend(60)
    assert subject.allows(40)
    assert not subject.allows(40, waiting=1)
    assert not subject.allows(1)
    assert (subject.today, subject.dropped) == (60, 2)
    day.append(TUESDAY)
    assert subject.allows(100)
    assert subject.today == 0


def nothing(offset: int) -> Mapping[str, int]:
    """What an empty live file tells."""
    return {}


def test_noted(live: Path, day: list[str]) -> None:
    """A note tells the bytes and up to which place of which file; the file itself tells the rest."""
    first = Budget(live, 100)
    first.spend(30)
    first.note(7, 30)
    second = Budget(live, 100)
    second.open(7, lambda offset: {MONDAY: 12} if offset == 30 else {})
    assert second.today == 42
    other_file = Budget(live, 100)
    other_file.open(8, lambda offset: {MONDAY: 12, TUESDAY: 5} if offset == 0 else {})
    assert other_file.today == 30
    day.append(TUESDAY)
    assert other_file.today == 5


def test_seldom_noted(live: Path) -> None:
    """It is time for a note each sixty-fourth of the budget."""
    subject = Budget(live, 64_000)
    times = 0
    for _ in range(64_000 // 100):
        if subject.spend(100):
            times += 1
            subject.note(1, 1)
    assert times == NOTES


def test_a_clock_that_jumps(live: Path, day: list[str]) -> None:
    """A board that believes for a while that it is another day does not get today's budget twice."""
    subject = Budget(live, 100)
    subject.spend(90)
    subject.note(1, 90)
    for start, wrong in enumerate(["2026-10-01", MONDAY, "2099-01-01", MONDAY], 1):
        day.append(wrong)
        subject = Budget(live, 100)
        subject.open(1, nothing)
        if wrong != MONDAY:
            subject.spend(start)
        subject.note(1, 90)
    assert subject.today == 90
    assert not subject.allows(11)


def test_few_days_are_kept(live: Path, day: list[str]) -> None:
    """The note does not grow."""
    subject = Budget(live, 100)
    for number in range(1, 29):
        day.append(f"2026-02-{number:02d}")
        subject.spend(1)
        subject.note(1, 1)
    assert live.with_name(".out.jsonl.budget").read_text().count("2026-02-") == KEPT_DAYS


@pytest.mark.parametrize(
    "note",
    [
        "",
        "{",
        "[]",
        '{"inode": 1}',
        '{"inode": 1, "offset": 1, "days": []}',
        '{"inode": 1, "offset": 1, "days": {"2026-11-23": "x"}}',
        '{"inode": 1, "offset": Infinity, "days": {"2026-11-23": 7}}',
        "\0" * 50,
        None,
    ],
)
def test_damaged_note(live: Path, note: str | None) -> None:
    """Without a note that can be read, all files of the log tell what was written today, so the day does not begin anew."""
    if note is not None:
        live.with_name(".out.jsonl.budget").write_text(note)
    line = {day: f'{{"schema": 1, "time": "{day}T12:00:00.000000Z"}}\n'.encode() for day in (SUNDAY, MONDAY)}
    size = len(line[MONDAY])
    rotated(live, 1, SUNDAY, line[SUNDAY] * 1000)
    rotated(live, 2, MONDAY, line[SUNDAY] * 50 + line[MONDAY] * 3)
    rotated(live, 3, MONDAY, line[MONDAY] * 5, packed=False)
    rotated(live, 4, MONDAY, line[MONDAY] * 7)
    rotated(live, 5, MONDAY, line[MONDAY] * 9).write_bytes(b"damaged")
    live.with_name("out.000006.jsonl").mkdir()
    subject = Budget(live, 10**6)
    subject.open(1, lambda offset: {MONDAY: 11} if offset == 0 else {})
    assert subject.today == (3 + 5 + 7) * size + 11


def rotated(live: Path, number: int, day: str, content: bytes, *, packed: bool = True) -> Path:
    """A rotated file of a log whose last line is of that day."""
    path = live.with_name(f"out.{number:06}.jsonl{'.gz' if packed else ''}")
    path.write_bytes(gzip.compress(content) if packed else content)
    moment = datetime.fromisoformat(day).replace(hour=12, tzinfo=timezone.utc).timestamp()
    os.utime(path, (moment, moment))
    return path


def test_most_is_not_read(live: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that begins and ends today tells its bytes by its size: to unpack all of a large log would hold up the start."""
    line = f'{{"schema": 1, "time": "{MONDAY}T12:00:00.000000Z"}}\n'.encode()
    seen = []
    monkeypatch.setattr(budget, "bytes_by_day", lambda lines: seen.extend(lines) or {MONDAY: 1})
    for packed in (True, False):
        rotated(live, 1 + packed, MONDAY, line * 100_000, packed=packed)
    subject = Budget(live, 100)
    subject.open(1, nothing)
    assert (subject.today, seen) == (2 * len(line) * 100_000, [line, line])


def test_whole_on_the_disk(live: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A note is on the disk before it takes the place of the one before, so a power cut leaves one of them."""
    subject = Budget(live, 100)
    subject.note(1, 1)
    place = live.with_name(".out.jsonl.budget")
    before = place.read_bytes()
    synced = []
    monkeypatch.setattr(
        os, "fsync", lambda file: synced.append((Path(f"/proc/self/fd/{file}").read_bytes(), place.read_bytes()))
    )
    subject.spend(30)
    subject.note(2, 30)
    assert synced == [(place.read_bytes(), before)]
    assert place.read_bytes() != before


def test_beside_the_target(live: Path) -> None:
    """The note of a log that is named by a link lies beside the log, where every link to it finds it."""
    live.parent.joinpath("usb").mkdir()
    live.symlink_to("usb/door.jsonl")
    subject = Budget(live, 100)
    subject.spend(30)
    subject.note(1, 30)
    direct = Budget(live.parent / "usb" / "door.jsonl", 100)
    direct.open(1, nothing)
    assert direct.today == 30


def test_no_room_for_the_note(tmp_path: Path) -> None:
    """A note that cannot be written harms nothing."""
    subject = Budget(tmp_path / "missing" / "out.jsonl", 100)
    subject.spend(1)
    subject.note(1, 1)
    assert subject.today == 1


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 KB"), (16_000_000, "16 MB"), (1_250_000_000, "1.25 GB")]
)
def test_sizes_for_people(size: int, text: str) -> None:
    """Sizes are told with three digits at most."""
    assert size_text(size) == text
