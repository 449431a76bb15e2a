"""TFLite_Detection_PostProcess: the operator that ends SSD, EfficientDet-Lite and their kin."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from edge_runner.frame import Tensor
from edge_runner.task.base import ModelFacts
from edge_runner.task.decoder.base import (
    BoxUnits,
    Candidates,
    Reading,
    checked,
    is_background,
    part_by_word,
    unit_of,
    units_doubt,
)
from edge_runner.task.scores import Activation, activate

OPERATOR = "TFLite_Detection_PostProcess"
PARTS = ("boxes", "classes", "scores", "count")
"""Its outputs, in its own order."""


@dataclass(frozen=True)
class TflitePostprocess(Reading):
    """SSD, EfficientDet-Lite with TFLite_Detection_PostProcess: boxes [1, n, 4] (y0, x0, y1, x1), classes and scores [1, n], and
    their count [1]. `places` says which output is which, in this order."""

    name = "tflite_postprocess"
    form = "boxes [1, n, 4], classes [1, n], scores [1, n] and their count [1]"
    suppressed = True

    places: tuple[int, int, int, int] = (0, 1, 2, 3)

    @property
    def scored(self) -> int:
        return self.places[1]

    def __str__(self) -> str:
        names = (self.facts.outputs[place].name for place in self.places)
        return ", ".join(f"'{name}' as {part}" for name, part in zip(names, PARTS, strict=True))

    @classmethod
    def all(cls, facts: ModelFacts) -> Iterator[TflitePostprocess]:
        boxes = [i for i, shape in enumerate(facts.shapes) if len(shape) == 3 and shape[0] == 1 and shape[2] == 4]
        if len(facts.outputs) != 4 or len(boxes) != 1:
            return
        many = facts.outputs[boxes[0]].shape[1]
        lists = [i for i, shape in enumerate(facts.shapes) if i not in boxes and shape == (1, many)]
        counts = [i for i, shape in enumerate(facts.shapes) if i not in boxes and shape in ((1,), (), (1, 1))]
        for classes, scores, count in product(lists, lists, counts):
            if len({classes, scores, count}) == 3:
                yield cls(facts, None, places=(boxes[0], classes, scores, count))._with_classes()

    def _with_classes(self) -> TflitePostprocess:
        """With the number of classes: the operator that made the boxes reads as many columns, or one more, for a background.

        Which of the two, the labels say: by their number, or by a line of the background's own.
        """
        ending, labels = self.facts.endings[self.places[0]], self.facts.labels
        if ending.operator != OPERATOR or len(ending.reads) < 2 or not labels:
            return self
        columns, background = ending.reads[1][-1], is_background(labels[0])
        classes = columns if len(labels) == columns + background else columns - 1
        return TflitePostprocess(self.facts, classes, background, self.places)

    def told(self) -> bool | None:
        """Whether the operator, or else the names, say that these are the places; None where they say nothing."""
        endings = [self.facts.endings[place] for place in self.places]
        if all(ending.operator == OPERATOR for ending in endings):
            return [ending.slot for ending in endings] == [0, 1, 2, 3]
        names = [self.facts.outputs[place].name for place in self.places]
        for way in NAMINGS:
            found = [way(name) for name in names]
            if sorted(filter(None, found)) == sorted(PARTS):
                return found == list(PARTS)
        return None

    def candidates(
        self, tensors: Sequence[Tensor], least: float, units: BoxUnits, activation: Activation
    ) -> Candidates:
        boxes, classes, scores, count = (tensors[place] for place in self.places)
        counted = float(count.reshape(-1)[0])
        valid = min(max(round(counted), 0), boxes.shape[1]) if math.isfinite(counted) else 0
        given = scores[0, :valid] if activation == "none" else activate(scores[0, :valid], "sigmoid")
        which = np.flatnonzero(~(given < least))
        corners = boxes[0, which][:, [1, 0, 3, 2]]
        unit = np.array(unit_of(corners, corners, units, self.size) * 2, corners.dtype)
        return checked(corners / unit, given[which], classes[0, which], units_doubt(corners, units))

    def tolerances(
        self, tensors: Sequence[Tensor], tolerances: Sequence[float], units: BoxUnits
    ) -> tuple[float, float]:
        boxes = tensors[self.places[0]]
        unit = max(unit_of(boxes, boxes, units, self.size))
        return tolerances[self.places[2]], tolerances[self.places[0]] / unit


def _part_by_number(prefix: str, parts: Sequence[str]) -> Callable[[str], str | None]:
    def part(name: str) -> str | None:
        match = re.fullmatch(rf"(?:{prefix})(?:[:_]([0-3]))?", name)
        return parts[int(match[1] or 0)] if match else None

    return part


# What the exporters call the outputs: TensorFlow 1 numbers them as the operator does, TensorFlow 2 the other way round.
NAMINGS = (
    part_by_word,
    _part_by_number(OPERATOR, PARTS),
    _part_by_number("StatefulPartitionedCall|output", PARTS[::-1]),
)
