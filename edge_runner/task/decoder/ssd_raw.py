"""Single-shot detectors without their last operator: offsets and logits for anchors."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edge_runner.frame import Tensor
from edge_runner.task.base import ModelFacts
from edge_runner.task.decoder import anchors
from edge_runner.task.decoder.anchors import FamilyName
from edge_runner.task.decoder.base import (
    BoxUnits,
    Candidates,
    Reading,
    best_scores,
    checked,
    is_background,
    part_by_word,
)
from edge_runner.task.scores import Activation


@dataclass(frozen=True)
class SsdRaw(Reading):
    """Offsets [1, anchors, 4 or more] and class logits [1, anchors, classes], to anchors that are generated here."""

    name = "ssd_raw"
    form = "[1, n, 4] and [1, n, classes], n as many anchors as a known family has for the input's size"
    logits = True
    settled_by = "anchors"

    places: tuple[int, int] = (0, 1)
    """Of the offsets and the logits."""
    family: FamilyName = "ssd"

    @property
    def scored(self) -> int:
        return self.places[1]

    def __str__(self) -> str:
        offsets, logits = (self.facts.outputs[place] for place in self.places)
        return (
            f"'{offsets.name}' as offsets to {offsets.shape[1]} anchors of the family {self.family},"
            f" '{logits.name}' as {self.classes} classes{' and a background' if self.background else ''}"
        )

    @classmethod
    def all(cls, facts: ModelFacts) -> Iterator[SsdRaw]:
        if len(facts.outputs) != 2 or facts.size is None:
            return
        for offsets, logits in ((0, 1), (1, 0)):
            boxes, scores = facts.shapes[offsets], facts.shapes[logits]
            if len(boxes) == len(scores) == 3 and boxes[:2] == scores[:2] and boxes[0] == 1:
                for family in anchors.families(facts.size, boxes[1], boxes[2]):
                    yield cls(facts, scores[2], places=(offsets, logits), family=family)._with_classes()

    def _with_classes(self) -> SsdRaw:
        """With or without a background column: as the family has it, or because the first label says so."""
        columns, labels = self.classes or 0, self.facts.labels
        named = labels is not None and len(labels) == columns and is_background(labels[0])
        background = columns > 1 and (anchors.FAMILIES[self.family].background or named)
        return SsdRaw(self.facts, columns - background, background, self.places, self.family)

    def usual(self) -> bool:
        """Of two families with as many anchors, one comes in a few sizes only."""
        sizes = anchors.FAMILIES[self.family].sizes
        return not sizes or self.size[0] in sizes

    def told(self) -> bool | None:
        """Whether the names say which output is which; None where they say nothing."""
        names = [self.facts.outputs[place].name for place in self.places]
        found = list(map(part_by_word, names))
        return (
            None if found == [None, None] else found[0] in ("boxes", None) and found[1] in ("classes", "scores", None)
        )

    def candidates(
        self, tensors: Sequence[Tensor], least: float, units: BoxUnits, activation: Activation
    ) -> Candidates:
        family, (offsets, logits) = anchors.FAMILIES[self.family], (tensors[place][0] for place in self.places)
        best = best_scores(logits, activation, axis=1, first=int(self.background))
        which = np.flatnonzero(~(best < least))
        boxes = family.boxes(offsets[which], _anchors(self.family, self.size)[which], self.size)
        return checked(boxes, best[which], logits[which, int(self.background) :].argmax(axis=1))

    def tolerances(
        self, tensors: Sequence[Tensor], tolerances: Sequence[float], units: BoxUnits
    ) -> tuple[float, float]:
        family = anchors.FAMILIES[self.family]
        unit = max(self.size) if family.absolute else min(family.scales)
        return tolerances[self.places[1]], tolerances[self.places[0]] / unit


@functools.lru_cache(maxsize=8)
def _anchors(family: FamilyName, size: tuple[int, int]) -> Tensor:
    return anchors.FAMILIES[family].anchors(size)
