"""Classifiers: top-1 and top-5."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_runner.builder.evaluate import folder_labels
from edge_runner.builder.samples import find_pictures
from edge_runner.errors import SettingError
from edge_runner.result import Result, rounded
from judges.base import DataError, Judge, Sample, indices_of, share, table, without_threshold, worst

BEST = 5  # of the answers: top-5
Z95 = 1.959964  # standard deviations on each side that hold 95 % of a normal distribution


class TopK(Judge):
    """Classifiers: is the true label the best answer (top-1), is it among the best five (top-5)?"""

    task = "classify"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: tuple[str, ...] = ()
        self._index: dict[str, int] = {}
        self._found: dict[int, list[list[int]]] = {}
        """The best answers to each picture, by its true class."""

    def samples(self) -> list[Sample]:
        self._names = folder_labels(self.folder) if self.folder.is_dir() else ()
        if not self._names:
            raise DataError(f"--data {self.folder} has no sub-folders; wanted is one a label, with its pictures in it")
        try:
            return [Sample(path, name) for name in self._names for path in find_pictures(self.folder / name)]
        except SettingError as error:
            raise DataError(f"--data {error}") from error

    def settings(self, given: Mapping[str, Any], here: Collection[str]) -> dict[str, Any]:
        return {**without_threshold(given, 0.0), "max_results": max(BEST, given.get("max_results", BEST))}

    def fits(self, labels: Sequence[str]) -> None:
        self._labels = labels
        places = {name: self.folder / name for name in self._names}
        self._index = indices_of(
            places, labels, f"--data {self.folder}: the model has no label, or several, for the folder"
        )

    def judge(self, sample: Sample, result: Result) -> None:
        found = [answer.index for answer in result.answers.classifications or ()]
        self._found.setdefault(self._index[sample.truth], []).append(found[:BEST])

    def numbers(self) -> dict[str, Any]:
        rows = [self._row(truth, found) for truth, found in sorted(self._found.items())]
        every = [(truth, best) for truth, found in self._found.items() for best in found]
        top1 = share(best[:1] == [truth] for truth, best in every)
        low, high = wilson(top1, len(every))
        return {
            "top1": rounded(top1),
            "top1_95": [rounded(low), rounded(high)],
            "top5": rounded(share(truth in best for truth, best in every)),
            "labels": rows,
        }

    def report(self, numbers: Mapping[str, Any]) -> Iterator[str]:
        low, high = numbers["top1_95"]
        yield f"top-1 {numbers['top1']:.1%} (95 % confidence: {low:.1%} to {high:.1%})"
        yield f"top-5 {numbers['top5']:.1%}"
        yield ""
        rows = [
            [row["label"], str(row["pictures"]), f"{row['top1']:.1%}", f"{row['top5']:.1%}", row["taken_for"] or "-"]
            for row in worst(numbers["labels"], "top1")
        ]
        head = ["label", "pictures", "top-1", "top-5", "mostly taken for"]
        yield from table(head, rows, len(numbers["labels"]), words=(0, 4))

    def _row(self, truth: int, found: Sequence[Sequence[int]]) -> dict[str, Any]:
        wrong = Counter(best[0] for best in found if best and best[0] != truth)
        return {
            "label": self._labels[truth],
            "index": truth,
            "pictures": len(found),
            "top1": rounded(share(best[:1] == [truth] for best in found)),
            "top5": rounded(share(truth in best for best in found)),
            "taken_for": self._labels[wrong.most_common(1)[0][0]] if wrong else None,
        }


def wilson(share: float, count: int) -> tuple[float, float]:
    """Between which shares, 0..1, the true one lies with 95 % confidence, `share` being that of `count` pictures.

    Wilson's score interval (E. B. Wilson, 1927), which holds for few pictures and for shares near 0 and 1 too.
    """
    middle = share + Z95**2 / (2 * count)
    half = Z95 * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    whole = 1 + Z95**2 / count
    return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)
