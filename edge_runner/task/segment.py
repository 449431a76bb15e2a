"""Segmentation: the class of every part of the frame, how much of it each class covers, and the mask as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edge_runner.errors import ModelError, SettingError
from edge_runner.fields import Fraction
from edge_runner.frame import Geometry, Tensor, TensorSpec
from edge_runner.result import Answers, Mask, Segment
from edge_runner.task.base import ModelFacts, Task, check_labels
from edge_runner.task.masks import Layout, areas, best_classes, cells_of, class_numbers, png, spread_over_frame
from edge_runner.task.scores import ACTIVATION_AFTER, Activation, activation_after, kept, thresholds

Form = Literal["numbers", "score", "scores"]
"""What a map's cells hold: the class's number, the score of the second of two classes, or a score for each class."""

CHANNEL: dict[Layout, int] = {"nhwc": 3, "nchw": 1}  # the axis of the classes
NUMBERS = ("int64", "int32", "uint8", "bool")  # the dtypes of class numbers
UNLABELLED = 255  # classes that numbers without labels are named for; more are possible
SCORE_ROUNDING = 0.01  # scores may end a little beyond 0..1
CHANGED_MOST = 0.005  # of the map's cells that may have another class, and it is still the same answer
ASPECT = 1.25  # by so much the map's proportions may differ from the input's, besides a cell


@dataclass(frozen=True)
class SegmentConfig:
    """The configuration's `task` for segmenters.

    `segments` lists the classes that cover `min_area` or more, a fraction of the upright frame, and that are allowed; `allow` None
    keeps every label. `mask` puts the mask into the result, in the model's resolution or in the frame's.
    """

    type: Literal["segment"] = "segment"
    layout: Literal["auto"] | Layout = "auto"
    activation: Literal["auto"] | Activation = "auto"
    min_area: Fraction = 0.0
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    mask: Literal["none", "model", "frame"] = "none"


class Segmenter(Task):
    """Classes from one output: class numbers, a score a class, or one channel of two classes."""

    Config = SegmentConfig
    SLACK = 0.05

    def __init__(self, config: SegmentConfig, facts: ModelFacts) -> None:
        """Raise ModelError where the model has no such output, SettingError where a key does not fit the model."""
        spec = _only_output(facts)
        self.form = _form(config.activation, spec, facts)
        self.layout = _layout(config.layout, spec, facts) if self.form == "scores" else None
        self.activation = _activation(config.activation, spec, facts) if self.form == "score" else None
        self._config, self._facts = config, facts
        self.labels = self._fitting_labels(spec, facts)
        self._least = thresholds(_Least(config.min_area, config.allow, config.deny), self.labels)
        self.kept_labels = kept(self.labels, self._least)

    def _fitting_labels(self, spec: TensorSpec, facts: ModelFacts) -> tuple[str, ...]:
        if self.form == "numbers":
            return facts.labels or tuple(map(str, range(UNLABELLED)))
        return check_labels(facts, spec.shape[CHANNEL[self.layout]] if self.layout else 2, spec.name)

    @property
    def decided(self) -> Mapping[str, str]:
        found = {"layout": self.layout, "activation": self.activation}
        return {key: value for key, value in found.items() if value and getattr(self._config, key) == "auto"}

    @property
    def reading(self) -> str:
        if self.form == "numbers":
            return "class numbers"
        if self.form == "score":
            return f"one channel of two classes, activation {self.activation}"
        return f"scores of {len(self.labels)} classes, {self.layout}"

    @property
    def chosen(self) -> tuple[bool, ...]:
        return (True,) if self.form == "numbers" else ()

    def decode(self, tensors: Sequence[Tensor], geometry: Geometry) -> Answers:
        """The classes that are there, the largest first, equal ones by index, and the mask. `tensors` is one, of real values."""
        classes, doubt = self.classes(tensors[0])
        covered = areas(classes, geometry)
        order = np.argsort(-covered, kind="stable")
        found = [Segment(self._label(i), int(i), float(covered[i])) for i in order if covered[i] > 0]
        kept = tuple(segment for segment in found if segment.area >= self._least_area(segment.index))
        mask = spread_over_frame(classes, geometry, "frame" if self._config.mask == "frame" else "model")
        return Answers(segments=kept, mask=Mask(mask, self._png(mask)), doubt=doubt)

    def classes(self, output: Tensor) -> tuple[Tensor, str | None]:
        """The class of each cell of the model's map, uint8 or uint16 [height, width], and why it is to be doubted.

        What is no class at all has the largest number of the type.
        """
        if self.form == "numbers":
            classes, doubt = class_numbers(_flat(output), len(self.labels))
            return classes, doubt or self._beyond_labels(classes)
        classes, best = self._best(output)
        low = float(best.min())
        if np.isnan(low):
            classes[np.isnan(best)] = np.iinfo(classes.dtype).max
            return classes, "the model's output is not a number (NaN); is the recipe, or the model, broken?"
        high = float(best.max())
        if self.activation == "none" and (low < -SCORE_ROUNDING or high > 1 + SCORE_ROUNDING):
            return classes, f"scores from {low:.4g} to {high:.4g} are no scores of 0..1; set task.activation to sigmoid"
        return classes, None

    def same_answer(self, expected: Sequence[Tensor], got: Sequence[Tensor], tolerances: Sequence[float]) -> str | None:
        """So many cells may have another class, and any number of those where the expected one leads by less than the tolerance."""
        changed = float(np.mean(self._changed(expected[0], got[0], tolerances[0])))
        if changed <= CHANGED_MOST:
            return None
        return f"{changed:.1%} of the map's cells have another class than the host's; allowed {CHANGED_MOST:.1%}"

    def _changed(self, expected: Tensor, got: Tensor, tolerance: float) -> Tensor:
        """Which cells have another class, beyond doubt; bool, flat."""
        if self.form == "numbers":
            return np.asarray(np.rint(expected) != np.rint(got)).reshape(-1)
        (before, best), (after, second) = self._best(expected), self._best(got)
        before, best, after = before.reshape(-1), best.reshape(-1), after.reshape(-1)
        if self.layout:
            with np.errstate(invalid="ignore"):  # of two infinite ones, none leads
                lead = best - cells_of(expected, self.layout)[np.arange(after.size), after]
        else:
            lead = np.abs(best - self._middle)
        broken = np.isnan(second.reshape(-1)) & ~np.isnan(best)
        return np.asarray((before != after) & (lead > tolerance) | broken)

    def _best(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """The class of each cell, and the value that tells it."""
        if self.layout:
            return best_classes(output, self.layout)
        values = _flat(output)
        return (values >= self._middle).astype(np.uint8), values

    @property
    def _middle(self) -> float:
        """Where the second of two classes begins: of scores, or of logits."""
        return 0.5 if self.activation == "none" else 0.0

    def _label(self, index: int) -> str:
        return self.labels[index] if index < len(self.labels) else str(index)

    def _least_area(self, index: int) -> float:
        if index < len(self.labels):
            return float(self._least[index])
        return self._config.min_area if self._config.allow is None else np.inf

    def _beyond_labels(self, classes: Tensor) -> str | None:
        highest = int(classes.max())
        if self._facts.labels is None or highest < len(self.labels):
            return None
        source = self._facts.labels_source
        return f"the model finds class {highest}, but {source} has labels up to {len(self.labels) - 1} only"

    def _png(self, mask: Tensor) -> bytes | None:
        return png(mask) if self._config.mask != "none" else None


@dataclass(frozen=True)
class _Least:
    """What `thresholds` asks for, with the least area in the place of the least score."""

    score_threshold: float
    allow: tuple[str, ...] | None
    deny: tuple[str, ...]
    label_thresholds: Mapping[str, float] = field(default_factory=dict)


def _flat(output: Tensor) -> Tensor:
    """A map of one channel as [height, width]."""
    return output.reshape(_sides(output.shape))


def _sides(shape: tuple[int, ...], layout: Layout | None = None) -> tuple[int, ...]:
    """The (height, width) of an output. Without a layout it has one channel: an axis of 1 before or after them, or none."""
    if len(shape) == 3:
        return shape[1:]
    return shape[1:3] if layout == "nhwc" or (layout is None and shape[3] == 1) else shape[2:]


def _only_output(facts: ModelFacts) -> TensorSpec:
    if len(facts.outputs) == 1 and _is_map(facts.outputs[0], facts):
        return facts.outputs[0]
    listed = ", ".join(map(str, facts.outputs))
    raise ModelError(
        f"a segmenter has one output, in the proportions of its input: class numbers ({', '.join(NUMBERS)}) [1, height, width];"
        " scores [1, height, width, classes] or [1, classes, height, width]; or one channel for two classes. This model has"
        f" {listed}",
        key="task.type",
    )


def _is_map(spec: TensorSpec, facts: ModelFacts) -> bool:
    if len(spec.shape) not in (3, 4) or spec.shape[0] != 1 or min(spec.shape) < 1:
        return False
    if _of_one_channel(spec):
        return (_is_real(spec) or spec.dtype in NUMBERS) and _in_proportion(_sides(spec.shape), facts)
    return _is_real(spec) and any(_in_proportion(_sides(spec.shape, layout), facts) for layout in CHANNEL)


def _is_real(spec: TensorSpec) -> bool:
    return spec.quantized or spec.dtype in ("float32", "float16")


def _of_one_channel(spec: TensorSpec) -> bool:
    return len(spec.shape) == 3 or 1 in (spec.shape[1], spec.shape[3])


def _in_proportion(sides: tuple[int, ...], facts: ModelFacts) -> bool:
    if facts.size is None:
        return True
    (height, width), (across, down) = sides, facts.size
    return height * across <= ASPECT * (width + 1) * down and width * down <= ASPECT * (height + 1) * across


def _form(activation: Literal["auto"] | Activation, spec: TensorSpec, facts: ModelFacts) -> Form:
    """An argmax gives class numbers, whatever they are cast to. Other bytes are class numbers too, unless the model's last operator
    or the configuration says that they are quantised scores."""
    if not _of_one_channel(spec):
        return "scores"
    operator = facts.endings[0].operator
    says_scores = activation != "auto" or operator in ACTIVATION_AFTER
    if operator == "ARG_MAX" or (spec.dtype in NUMBERS and not (spec.quantized and says_scores)):
        return "numbers"
    return "score"


def _layout(wanted: Literal["auto"] | Layout, spec: TensorSpec, facts: ModelFacts) -> Layout:
    """What is wanted, or what the shape says: a map in the input's proportions, with a channel for each label, with fewer channels
    than the other layout would have. Raise SettingError where that leaves both."""
    if wanted != "auto":
        return wanted
    labels, fewest = len(facts.labels or ()), min(spec.shape[1], spec.shape[3])
    fits: list[Layout] = list(CHANNEL)
    fits = [layout for layout in fits if _in_proportion(_sides(spec.shape, layout), facts)]
    fits = [layout for layout in fits if spec.shape[CHANNEL[layout]] == labels] or fits
    fits = [layout for layout in fits if spec.shape[CHANNEL[layout]] == fewest] or fits
    if len(fits) == 1:
        return fits[0]
    raise SettingError(
        f"the layout of output '{spec.name}' {list(spec.shape)} cannot be told from its shape; set nhwc or nchw",
        key="task.layout",
    )


def _activation(wanted: Literal["auto"] | Activation, spec: TensorSpec, facts: ModelFacts) -> Activation:
    activation = activation_after(wanted, facts.endings[0], spec.name, alone=True)
    if activation == "softmax":
        raise SettingError(
            f"output '{spec.name}' has one channel, whose softmax is 1 everywhere; set none (scores 0..1) or sigmoid",
            key="task.activation",
        )
    return activation
