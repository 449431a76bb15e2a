"""What every judge of an evaluation is, and the words that they share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edge_runner.builder.evaluate import label_index
from edge_runner.errors import EdgeRunnerError, SettingError
from edge_runner.result import Result

LISTED = 5  # names in an error
ROWS = 40  # labels in a table for people; --json has all


class DataError(EdgeRunnerError, ValueError):
    """The pictures, or what is said to be true of them, cannot be used."""


@dataclass(frozen=True)
class Sample:
    """A picture, and what is true of it: a label's name, an image's id, or a mask's file."""

    picture: Path
    truth: Any


class Unusable(Exception):
    """A sample that cannot be judged; the message says why."""


class Judge(ABC):
    """What is done for one task: it finds the samples, sets the task, and makes numbers of the results."""

    task: ClassVar[str]

    @abstractmethod
    def samples(self) -> list[Sample]:
        """Every picture with its truth. Raise DataError where they do not go together."""

    @abstractmethod
    def settings(self, given: Mapping[str, Any], here: Collection[str]) -> dict[str, Any]:
        """The keys of the task that are set for the evaluation; `given` is the task so far, `here` what this command line set."""

    @abstractmethod
    def fits(self, labels: Sequence[str]) -> None:
        """The model's labels, before the first result. Raise DataError where they and the truth do not go together."""

    @abstractmethod
    def judge(self, sample: Sample, result: Result) -> None:
        """Take one result. Raise Unusable where the sample is at fault."""

    @abstractmethod
    def numbers(self) -> dict[str, Any]:
        """What came out, as JSON has it: fractions of 1, None where there was nothing to measure, `labels` with a row each."""

    @abstractmethod
    def report(self, numbers: Mapping[str, Any]) -> Iterator[str]:
        """The same for people."""


def worst(rows: Sequence[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """The rows for people: all of them where they are few, otherwise the worst, the worst first."""
    if len(rows) <= ROWS:
        return list(rows)
    return sorted(rows, key=lambda row: math.inf if row[key] is None else row[key])[:ROWS]


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], total: int, words: Collection[int] = (0,)
) -> Iterator[str]:
    """Lines of cells below each other, numbers to the right, the columns of `words` to the left; `total` labels were there."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for cells in (head, *rows):
        aligned = [
            f"{c:<{w}}" if i in words else f"{c:>{w}}" for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        ]
        yield "  ".join(aligned).rstrip()
    if total > len(rows):
        yield f"… the {len(rows)} worst of {total} labels; --json FILE has all"


def without_threshold(given: Mapping[str, Any], score: float) -> dict[str, Any]:
    """Thresholds are for the daemon's use: here they would hide answers that are to be counted."""
    return {"score_threshold": score, **({"label_thresholds": {}} if given.get("label_thresholds") else {})}


def indices_of(places: Mapping[str, Path], labels: Sequence[str], complaint: str) -> dict[str, int]:
    """Each name's class; raise DataError with those that are none."""
    found = {name: _index(name, labels, place) for name, place in places.items()}
    lost = [f"'{name}'" for name, index in found.items() if index is None]
    if lost:
        raise DataError(f"{complaint} {some(lost)}; it has {some(labels)}")
    return {name: index for name, index in found.items() if index is not None}


def _index(name: str, labels: Sequence[str], place: Path) -> int | None:
    try:
        return label_index(name, labels, place)
    except SettingError:
        return None


def share(truths: Iterable[bool]) -> float:
    """The part of them, 0..1, that is true."""
    return float(np.mean(list(truths)))


def decimals(value: float | None) -> str:
    """A number for a table; a dash where there is none."""
    return "-" if value is None else f"{value:.3f}"


def some(names: Iterable[Any], between: str = ", ") -> str:
    """The first of some names, and how many more there are."""
    listed = list(map(str, names))
    return between.join(listed[:LISTED]) + (f" (and {len(listed) - LISTED} more)" if len(listed) > LISTED else "")
