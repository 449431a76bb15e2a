"""Detection: boxes with labels and scores, the best first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import numpy as np

from edge_runner.errors import ModelError
from edge_runner.fields import Fraction, Range
from edge_runner.frame import Geometry, Tensor
from edge_runner.result import Answers, Detection
from edge_runner.task.base import ModelFacts, Task, check_labels
from edge_runner.task.boxes import areas, in_frame, iou, suppressed, visible
from edge_runner.task.decoder.base import BoxUnits, Candidates, Reading, is_background
from edge_runner.task.decoder.choice import read_as
from edge_runner.task.scores import Activation, kept, thresholds

CLASSES_MOST = 1000  # of a model that does not tell how many it has, and has no labels either
SAME_IOU = 0.5  # from here on, two boxes are of one thing
WHOLE = Geometry(1, 1)


@dataclass(frozen=True)
class DetectConfig:
    """The configuration's `task` for detectors. Thresholds are scores, 0..1; `allow` None keeps every label.

    `anchors` is a family of decoder/anchors.py, for `ssd_raw`.
    """

    type: Literal["detect"] = "detect"
    decoder: Literal["auto", "tflite_postprocess", "yolov5", "yolov8", "yolo_nms", "ssd_raw"] = "auto"
    anchors: Literal[
        "auto", "ssd", "ssd-fpn", "efficientdet", "model-maker", "blazeface", "blazeface-back", "blazeface-full-range"
    ] = "auto"
    box_units: BoxUnits = "auto"
    activation: Literal["auto"] | Activation = "auto"
    score_threshold: Fraction = 0.5
    max_results: Annotated[int, Range(1)] = 100
    iou_threshold: Fraction = 0.45
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    label_thresholds: Mapping[str, Fraction] = field(default_factory=dict)


class Detect(Task):
    """Boxes from a detector's outputs, whatever its family; see the package decoder."""

    Config = DetectConfig
    SLACK = 0.05

    def __init__(self, config: DetectConfig, facts: ModelFacts) -> None:
        """Raise ModelError where no decoder fits the outputs, or more than one does; SettingError where a key does not fit."""
        if facts.size is None:
            raise ModelError("a detector is fed pictures; this model has no recipe for them", key="task.type")
        self.read = read_as(facts, config.decoder, config.anchors)
        self.labels = _labels(self.read)
        self.activation = _activation(config.activation, self.read)
        self._config = config
        self._thresholds = thresholds(config, self.labels)
        self.kept_labels = kept(self.labels, self._thresholds)
        self._other = math.inf if config.allow is not None else config.score_threshold

    @property
    def decided(self) -> Mapping[str, str]:
        found = {"decoder": self.read.name, "anchors": getattr(self.read, "family", "auto")}
        return {key: value for key, value in found.items() if getattr(self._config, key) == "auto" != value}

    @property
    def reading(self) -> str:
        return f"{self.read.name}, {self.read}"

    @property
    def chosen(self) -> tuple[bool, ...]:
        return (self.read.suppressed,) * len(self.read.facts.outputs)

    def decode(self, tensors: Sequence[Tensor], geometry: Geometry) -> Answers:
        """What is over its threshold, without what overlaps something better of its class, the best first; of equal scores
        the first. What lies where the model saw nothing, in a letterbox's bars, is left out; the rest is cut to what it saw."""
        found = self._found(tensors, geometry)
        boxes = visible(found.boxes, geometry).tolist()
        detections = tuple(
            Detection(self._label(index), index, score, tuple(box))
            for index, score, box in zip(found.classes.tolist(), found.scores.tolist(), boxes, strict=True)
        )
        return Answers(detections=detections, doubt=found.doubt)

    def same_answer(self, expected: Sequence[Tensor], got: Sequence[Tensor], tolerances: Sequence[float]) -> str | None:
        """Each box that is beyond doubt is there on both sides, with its label; doubtful are scores that are no further above
        their threshold than the tolerance. Boxes that the model sorted itself must be as near as the tolerance too."""
        slack = self.read.tolerances(expected, tolerances, self._config.box_units)
        before, after = (self._found(tensors, WHOLE, slack[0]) for tensors in (expected, got))
        return (
            self._missing(before, after, slack, "the host's {} is missing")
            or self._missing(after, before, slack, "there is {}, which the host had not")
        )  # fmt: skip

    def _found(self, tensors: Sequence[Tensor], geometry: Geometry, slack: float = 0.0) -> Candidates:
        """What is over its threshold less the `slack`; boxes in fractions of the frame, not clipped."""
        least = min(float(self._thresholds.min(initial=1.0)), self._other if self.read.classes is None else 1.0)
        wide = [tensor.astype(np.float32) if tensor.dtype == np.float16 else tensor for tensor in tensors]
        found = self.read.candidates(wide, max(least - slack, 0.0), self._config.box_units, self.activation)
        boxes = in_frame(found.boxes, geometry)
        # in the scores' own type: .7 reaches .7
        over = found.scores >= (self._needed(found.classes) - slack).astype(found.scores.dtype)
        which = np.flatnonzero(over & (areas(visible(boxes, geometry)) > 0))
        if self.read.suppressed:
            which = which[np.argsort(-found.scores[which], kind="stable")][: self._config.max_results]
        else:
            parts = boxes[which], found.scores[which], found.classes[which]
            which = which[suppressed(*parts, self._config.iou_threshold, self._config.max_results)]
        doubt = found.doubt
        if not doubt and np.any(found.classes[which] >= len(self.labels)):
            doubt = f"there are classes beyond the {len(self.labels)} labels; is it this model's file?"
        return Candidates(boxes[which], found.scores[which], found.classes[which], doubt)

    def _needed(self, classes: Tensor) -> Tensor:
        """The score that each of classes [n] needs, float64 [n]; a class without a label has no threshold of its own."""
        known = classes < len(self.labels)
        return np.where(known, self._thresholds[np.where(known, classes, 0)], self._other)

    def _label(self, index: int) -> str:
        return self.labels[index] if index < len(self.labels) else str(index)

    def _missing(self, these: Candidates, those: Candidates, slack: tuple[float, float], words: str) -> str | None:
        sure = np.flatnonzero(these.scores >= self._needed(these.classes) + slack[0])
        for number in sure:
            box, score = these.boxes[number], these.scores[number]
            if self.read.suppressed:
                near = np.abs(those.boxes - box).max(axis=1, initial=0.0) <= slack[1]
                near &= np.abs(those.scores - score) <= slack[0]
            else:
                near = iou(box, those.boxes) >= SAME_IOU
            if not np.any(near & (those.classes == these.classes[number])):
                corners = ", ".join(f"{corner:.3f}" for corner in box)
                return words.format(f"'{self._label(int(these.classes[number]))}' {score:.3f} at [{corners}]")
        return None


def _labels(read: Reading) -> tuple[str, ...]:
    """A label for each class; where nothing says how many there are, for each that the labels name."""
    labels = read.facts.labels
    if read.classes is None:
        return labels or tuple(map(str, range(CLASSES_MOST)))
    facts = read.facts
    if labels and len(labels) > 1 and read.background and is_background(labels[0]):
        source = f"{facts.labels_source}, without its line '{labels[0]}',"
        facts = replace(facts, labels=labels[1:], labels_source=source)
    try:
        return check_labels(facts, read.classes, facts.outputs[read.scored].name, background_row=False)
    except ModelError as error:
        raise ModelError(f"{error} (the outputs are read as {read.name}, {read})", key=error.key) from error


def _activation(wanted: Literal["auto"] | Activation, read: Reading) -> Activation:
    """A family that ends in logits has a sigmoid still to come, unless the operators that made its output say otherwise."""
    if wanted != "auto":
        return wanted
    ending = read.facts.endings[read.scored]
    done = {*(ending.joins or (ending.operator,))} <= {"LOGISTIC", "SOFTMAX"}
    return "sigmoid" if read.logits and not done else "none"
