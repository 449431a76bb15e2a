"""The names of a log and of its rotated files: `a.jsonl`, beside it `a.000001.jsonl`, compressed `a.000001.jsonl.gz`.

The number only rises: a clock without a battery may jump, a number does not.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

DIGITS = 6  # and more beyond a million
PACKED = ".gz"
NUMBER = rf"(?P<number>[0-9]{{{DIGITS}}}|[1-9][0-9]{{{DIGITS},}})"
NUMBERED = re.compile(rf"(?P<stem>.+)\.{NUMBER}(?P<suffix>(\.[^.]+)?)")


def real_path(live: Path) -> Path:
    """Where a log lies that may be named by a link: there its rotated files lie too."""
    return Path(os.path.realpath(live))


def rotated_path(live: Path, number: int) -> Path:
    """Where the log that is written to `live` goes under its number: `log` to `log.000001`, `a.jsonl` to `a.000001.jsonl`."""
    return live.with_name(f"{live.stem}.{number:0{DIGITS}}{live.suffix}")


def packed_path(rotated: Path) -> Path:
    """Where a rotated file goes when it is compressed."""
    return rotated.with_name(rotated.name + PACKED)


def is_packed(path: Path) -> bool:
    """Whether a rotated file's name says that it is compressed."""
    return path.name.endswith(PACKED)


def number_of(live: Path, path: Path) -> int | None:
    """The number of a rotated file of `live`, compressed or not; None of any other path."""
    name = rf"{re.escape(live.stem)}\.{NUMBER}{re.escape(live.suffix)}({re.escape(PACKED)})?"
    found = re.fullmatch(name, path.name)
    return int(found["number"]) if found else None


def other_name(live: Path) -> str | None:
    """A name for a log whose own reads as that of a rotated file, `cam.20261122.jsonl`; None where it does not."""
    found = NUMBERED.fullmatch(live.name)
    return f"{found['stem']}-{found['number']}{found['suffix']}" if found else None


def members(live: Path) -> dict[Path, int]:
    """All rotated files of a log, with their numbers: the oldest first, of one number the compressed one last.

    Empty where the folder is not there. Raise OSError where it cannot be read.
    """
    try:
        numbers = {path: number_of(live, path) for path in live.parent.iterdir()}
    except FileNotFoundError:
        return {}
    found = {path: number for path, number in numbers.items() if number is not None}
    return dict(sorted(found.items(), key=lambda item: (item[1], is_packed(item[0]))))


def family(live: Path) -> list[Path]:
    """The rotated files of a log to read, the oldest first, without `live` itself. Raise OSError as `members` does.

    Where a number is there twice (killed between compressing and deleting), the compressed one counts: it is whole.
    """
    chosen = {number: path for path, number in members(live).items() if path.is_file()}
    return list(chosen.values())
