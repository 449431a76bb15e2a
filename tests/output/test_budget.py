"""The bytes of a day."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runner.output import budget
from edge_runner.output.budget import KEPT_DAYS, NOTES, Budget, size_text

MONDAY, TUESDAY = "2026-11-23", "2026-11-24"


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


def test_noted(live: Path, day: list[str]) -> None:
    """A note tells the bytes and up to which place of which file; the file itself tells the rest."""
    first = Budget(live, 100)
    first.spend(30)
    first.note(7, 30)
    second = Budget(live, 100)
    assert second.open() == (7, 30)
    second.count({MONDAY: 12}, beyond=True)
    assert second.today == 42
    other_file = Budget(live, 100)
    other_file.open()
    other_file.count({MONDAY: 12, TUESDAY: 5}, beyond=False)
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
        subject.open()
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
    "note", ["", "{", "[]", '{"inode": 1}', '{"inode": 1, "offset": 1, "days": {"a": "x"}}', "\0" * 50]
)
def test_damaged_note(live: Path, note: str) -> None:
    """A note that a power cut damaged is none."""
    live.with_name(".out.jsonl.budget").write_text(note)
    subject = Budget(live, 100)
    assert subject.open() == (0, 0)
    assert subject.today == 0


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
