"""The contract of every decoder, and what they share."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from edge_runner.frame import Tensor
from edge_runner.task.base import ModelFacts
from edge_runner.task.scores import Activation, activate

BoxUnits = Literal["auto", "pixels", "normalized"]

SCORE_ROUNDING = 0.01  # a score may end a little above 1
PIXELS_ABOVE = 2.0  # fractions end near 1, and no picture is so small in pixels
PIXELS_SHARE = 0.01  # of all boxes, found or not, that are so large: fewer may be some network's nonsense
CLASSES_MOST = 1_000_000  # beyond it a number is no class
BACKGROUND = ("background", "unlabeled", "???")  # what a first label that stands for nothing is called
# What a name must say for an output to be such a part.
PART_WORDS = {
    "scores": r"score|confidence|prob",
    "classes": r"class|categor|label",
    "boxes": r"box|location|regress|coord",
    "count": r"num|count",
}


@dataclass(frozen=True)
class Candidates:
    """What may have been found: `boxes` float [n, 4] (x0, y0, x1, y1) in fractions of the input, `scores` float [n], 0..1, and
    `classes` int [n]. `doubt` says why they are probably not to be trusted."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    doubt: str | None = None


@dataclass(frozen=True)
class Reading(ABC):
    """One way to read a model's outputs. A decoder must override `all`, `__str__` and `candidates`.

    `classes` is the number of its classes, None where the outputs do not tell. `background` says that a column, or a first label,
    stands for none of them.
    """

    name: ClassVar[str]
    form: ClassVar[str]
    """The shapes that it reads, for people."""
    suppressed: ClassVar[bool] = False
    """Whether the model has sorted and suppressed by itself."""
    logits: ClassVar[bool] = False
    """Whether the family's models usually end before their scores are made."""
    settled_by: ClassVar[str | None] = None
    """The key of the task that says which of several readings by this decoder it is."""

    facts: ModelFacts
    classes: int | None
    background: bool = False

    @classmethod
    @abstractmethod
    def all(cls, facts: ModelFacts) -> Iterator[Any]:
        """Every way in which this decoder could read the outputs, by their shapes."""

    @abstractmethod
    def __str__(self) -> str:
        """What is read as what."""

    @abstractmethod
    def candidates(
        self, tensors: Sequence[Tensor], least: float, units: BoxUnits, activation: Activation
    ) -> Candidates:
        """All boxes whose score is `least` or more, of the outputs' real values."""

    def told(self) -> bool | None:
        """Whether names, or the operator that made the outputs, say that it is so, or otherwise; None where they say nothing."""
        return None

    def on_grid(self) -> bool:
        """Whether there are as many boxes as the family's grids have for an input of this size."""
        return True

    def usual(self) -> bool:
        """Whether the axes stand as in the family's own exports."""
        return True

    def certain(self) -> bool:
        """Whether more than the shape speaks for it."""
        return True

    def plausible(self) -> bool:
        """Whether there could be such a model, where somebody says that it is one."""
        return True

    def tolerances(
        self, tensors: Sequence[Tensor], tolerances: Sequence[float], units: BoxUnits
    ) -> tuple[float, float]:
        """How far scores and boxes, in fractions, may be off where each output may be so far off in its real values."""
        return tolerances[0], tolerances[0]

    @property
    def scored(self) -> int:
        """Which output has the classes."""
        return 0

    @property
    def size(self) -> tuple[int, int]:
        """The input picture's width and height."""
        assert self.facts.size is not None
        return self.facts.size


def is_background(label: str) -> bool:
    """Whether a first label says that it stands for nothing."""
    return label.lower() in BACKGROUND


def best_scores(values: Tensor, activation: Activation, axis: int, first: int = 0) -> Tensor:
    """The best score along `axis`, of the columns from `first` on, though a softmax counts all. A sigmoid keeps the order."""
    part = slice(first, None)
    if activation == "softmax":
        scores = activate(values, activation, axis)
        return np.asarray((scores[part] if axis == 0 else scores[:, part]).max(axis=axis))
    best = (values[part] if axis == 0 else values[:, part]).max(axis=axis)
    return best if activation == "none" else activate(best, activation)


def unit_of(coordinates: Tensor, found: Tensor, units: BoxUnits, size: tuple[int, int]) -> tuple[int, int]:
    """What x and y are divided by: the input's size, where they are in pixels.

    `coordinates` are of all boxes, of which a few may be anything; `found` of those that count.
    """
    if units == "auto":
        large = coordinates[np.isfinite(coordinates)] > PIXELS_ABOVE
        many = large.size > 0 and float(large.mean()) >= PIXELS_SHARE
        units = "pixels" if many or np.any(found[np.isfinite(found)] > PIXELS_ABOVE) else "normalized"
    return size if units == "pixels" else (1, 1)


def units_doubt(coordinates: Tensor, units: BoxUnits) -> str | None:
    """Why the coordinates of what was found are not in the units that they are said to be in."""
    if units == "auto" or not coordinates.size:
        return None
    most = float(np.fmax.reduce(coordinates, axis=None))
    looks = "pixels" if most > PIXELS_ABOVE else "normalized"
    return (
        None if looks == units else f"boxes up to {most:.4g} are not {units}; set task.box_units to {looks}, or to auto"
    )


def checked(boxes: Tensor, scores: Tensor, classes: Tensor, doubt: str | None = None) -> Candidates:
    """Candidates without those that are no numbers; scores cut to 0..1, classes as whole numbers."""
    fine = np.isfinite(scores) & np.isfinite(boxes).all(axis=1) & (classes > -0.5) & (classes < CLASSES_MOST)
    if not fine.all():
        doubt = "boxes, scores or classes are not numbers (NaN); is the recipe, or the model, broken?"
    boxes, scores, classes = boxes[fine], scores[fine], classes[fine]
    if scores.size and scores.max() > 1 + SCORE_ROUNDING:
        doubt = f"scores up to {scores.max():.4g} are cut to 1; set task.activation to sigmoid, or name another task.decoder"
    return Candidates(boxes, np.clip(scores, 0.0, 1.0), np.rint(classes).astype(np.intp), doubt)


def part_by_word(name: str) -> str | None:
    """Which part a name says that an output is."""
    for part, words in PART_WORDS.items():
        if re.search(words, name, re.IGNORECASE):
            return part
    return None
