"""The YOLO families: one output with an axis of boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edge_runner.frame import Tensor, TensorSpec
from edge_runner.task.base import ModelFacts
from edge_runner.task.boxes import from_centres
from edge_runner.task.decoder.base import BoxUnits, Candidates, Reading, best_scores, checked, unit_of, units_doubt
from edge_runner.task.scores import Activation, activate

STRIDES = ((8, 16, 32), (8, 16, 32, 64), (16, 32), (4, 8, 16, 32))  # of the heads: usual, P6, tiny, P2
NONE = np.empty(0)
SCORE_STEPS = 3  # of a quantised output, as goldens allow them
KEPT_MOST = 1000  # rows of an output after suppression; more are a grid's


@dataclass(frozen=True)
class Yolo(Reading):
    """What the YOLO families share: one output, an axis of boxes and one of numbers, of which the first four are the box."""

    numbers: ClassVar[int]
    """Before the classes' scores."""
    anchors_a_cell: ClassVar[int]
    usually_transposed: ClassVar[bool] = False

    transposed: bool = False
    """Whether the boxes stand along the last axis."""

    def __str__(self) -> str:
        return f"{self.facts.outputs[0]} as {self.boxes} boxes of {self.classes} classes"

    @property
    def boxes(self) -> int:
        return self.facts.outputs[0].shape[2 if self.transposed else 1]

    @classmethod
    def all(cls, facts: ModelFacts) -> Iterator[Yolo]:
        shape = facts.shapes[0]
        if len(facts.outputs) == 1 and len(shape) == 3 and shape[0] == 1:
            for transposed in (False, True):
                classes = shape[1 if transposed else 2] - cls.numbers
                if classes >= 1:
                    yield cls(facts, classes, transposed=transposed)

    def on_grid(self) -> bool:
        return self.boxes in {self.anchors_a_cell * cells for cells in _grids(self.size)}

    def usual(self) -> bool:
        return self.plausible() and self.transposed == self.usually_transposed

    def certain(self) -> bool:
        """A grid, or the labels; or at least so many boxes that they can be nothing else than a grid's."""
        labels = self.facts.labels
        return self.on_grid() or self.boxes > KEPT_MOST or (labels is not None and len(labels) == self.classes)

    def plausible(self) -> bool:
        return self.boxes >= (self.classes or 0) + self.numbers

    def _columns(self, tensors: Sequence[Tensor]) -> Tensor:
        """[4 + …, boxes], whichever way they come."""
        values = tensors[0][0]
        return np.asarray(values if self.transposed else values.T)

    def tolerances(
        self, tensors: Sequence[Tensor], tolerances: Sequence[float], units: BoxUnits
    ) -> tuple[float, float]:
        unit = max(unit_of(self._columns(tensors)[:2], NONE, units, self.size))
        return _parted(tolerances[0], unit, self.facts.outputs[0])

    def _found(self, columns: Tensor, which: Tensor, scores: Tensor, classes: Tensor, units: BoxUnits) -> Candidates:
        unit = np.array(unit_of(columns[:2], columns[:2, which], units, self.size) * 2, columns.dtype)
        boxes = from_centres(columns[:4, which].T / unit)
        return checked(boxes, scores, classes, units_doubt(columns[:2, which], units))


class Yolov8(Yolo):
    """YOLOv8, 11 and kin: [1, 4 + classes, boxes], or its transpose: x, y, width, height, and a score a class."""

    name = "yolov8"
    form = "[1, 4 + classes, n]"
    numbers = 4
    anchors_a_cell = 1
    usually_transposed = True

    def candidates(
        self, tensors: Sequence[Tensor], least: float, units: BoxUnits, activation: Activation
    ) -> Candidates:
        columns = self._columns(tensors)
        best = best_scores(columns[4:], activation, axis=0)
        which = np.flatnonzero(~(best < least))  # NaN stays, to be told of
        return self._found(columns, which, best[which], columns[4:, which].argmax(axis=0), units)


class Yolov5(Yolo):
    """YOLOv5 and 7: [1, boxes, 5 + classes]: x, y, width, height, objectness, and a score a class, times the objectness."""

    name = "yolov5"
    form = "[1, n, 5 + classes]"
    numbers = 5
    anchors_a_cell = 3

    def candidates(
        self, tensors: Sequence[Tensor], least: float, units: BoxUnits, activation: Activation
    ) -> Candidates:
        columns = self._columns(tensors)
        objectness = columns[4] if activation == "none" else activate(columns[4], "sigmoid")
        which = np.flatnonzero(~(objectness < least))  # a class's score is 1 at most
        best = best_scores(columns[5:, which], activation, axis=0) * objectness[which]
        kept = ~(best < least)
        return self._found(columns, which[kept], best[kept], columns[5:, which[kept]].argmax(axis=0), units)


@dataclass(frozen=True)
class YoloNms(Reading):
    """Suppressed within the model, or trained to need none: [1, boxes, 6]: x0, y0, x1, y1, score, class."""

    name = "yolo_nms"
    form = "[1, n, 6]"
    suppressed = True

    def __str__(self) -> str:
        return f"{self.facts.outputs[0]} as {self.boxes} boxes, each with its score and class"

    @property
    def boxes(self) -> int:
        return self.facts.outputs[0].shape[1]

    @classmethod
    def all(cls, facts: ModelFacts) -> Iterator[YoloNms]:
        shape = facts.shapes[0]
        if len(facts.outputs) == 1 and len(shape) == 3 and shape[0] == 1 and shape[2] == 6:
            yield cls(facts, None)

    def on_grid(self) -> bool:
        grids = _grids(self.size)
        return self.boxes <= KEPT_MOST and not {self.boxes, self.boxes / Yolov5.anchors_a_cell} & grids

    def candidates(
        self, tensors: Sequence[Tensor], least: float, units: BoxUnits, activation: Activation
    ) -> Candidates:
        rows = tensors[0][0]
        scores = rows[:, 4] if activation == "none" else activate(rows[:, 4], "sigmoid")
        which = np.flatnonzero(~(scores < least))
        unit = np.array(unit_of(rows[:, :4], rows[which, :4], units, self.size) * 2, rows.dtype)
        return checked(rows[which, :4] / unit, scores[which], rows[which, 5], units_doubt(rows[which, :4], units))

    def tolerances(
        self, tensors: Sequence[Tensor], tolerances: Sequence[float], units: BoxUnits
    ) -> tuple[float, float]:
        unit = max(unit_of(tensors[0][..., :4], NONE, units, self.size))
        return _parted(tolerances[0], unit, self.facts.outputs[0])


def _grids(size: tuple[int, int]) -> set[int]:
    """How many cells the heads' grids may have in all, for an input of (width, height)."""
    width, height = size
    return {sum(-(-width // s) * -(-height // s) for s in strides) for strides in STRIDES}


def _parted(tolerance: float, unit: float, output: TensorSpec) -> tuple[float, float]:
    """The tolerance of an output that has scores and boxes, the latter in units of their own, for each of them.

    Where one scale serves both, a score is off by its steps, however small it is beside a box.
    """
    return max(tolerance / unit, SCORE_STEPS * output.scale), tolerance / unit
