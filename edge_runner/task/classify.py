"""Classification: one score a class, the best first."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np

from edge_runner.errors import ModelError, SettingError
from edge_runner.fields import Fraction, Range
from edge_runner.frame import Geometry, Picture, Tensor, TensorSpec
from edge_runner.result import Answers, Classification
from edge_runner.task import draw
from edge_runner.task.base import ModelFacts, Task, check_labels

Activation = Literal["none", "softmax", "sigmoid"]

SCORE_ROUNDING = 0.01  # a softmax may end a little above 1

# What still has to be done to the values that an operator makes, to have scores.
ACTIVATION_AFTER: dict[str, Activation] = {
    "SOFTMAX": "none",
    "LOGISTIC": "none",
    "LOG_SOFTMAX": "softmax",  # the softmax of a log-softmax is the softmax itself
    "FULLY_CONNECTED": "softmax",
    "CONV_2D": "softmax",
    "DEPTHWISE_CONV_2D": "softmax",
    "BATCH_MATMUL": "softmax",
    "ADD": "softmax",
    "MEAN": "softmax",
    "AVERAGE_POOL_2D": "softmax",
}


@dataclass(frozen=True)
class ClassifyConfig:
    """The configuration's `task` for classifiers. Thresholds are scores, 0..1; `allow` None keeps every label."""

    type: Literal["classify"] = "classify"
    activation: Literal["auto"] | Activation = "auto"
    score_threshold: Fraction = 0.0
    max_results: Annotated[int, Range(1)] = 5
    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    label_thresholds: Mapping[str, Fraction] = field(default_factory=dict)


class Classify(Task):
    """Scores from one output of [1, classes], or with ones between."""

    Config = ClassifyConfig

    def __init__(self, config: ClassifyConfig, facts: ModelFacts) -> None:
        """Raise ModelError where the model has no such output, SettingError where a key does not fit the model."""
        spec = _only_output(facts.outputs)
        self.activation = _activation(config.activation, facts.endings[0], spec)
        self.binary = _is_binary(spec, self.activation, facts.labels)
        classes = 2 if self.binary else spec.shape[-1]
        self.labels = check_labels(facts, classes, spec.name)
        self.max_results = config.max_results
        self._thresholds = _thresholds(config, self.labels)

    def decode(self, tensors: Sequence[Tensor], geometry: Geometry) -> Answers:
        """The best classes over their thresholds, best first, equal ones by index. `tensors` is one, of real values."""
        doubt = self._doubt(tensors[0])
        scores = self.scores(tensors[0])
        kept = np.flatnonzero(scores >= self._thresholds)
        best = kept[np.argsort(-scores[kept], kind="stable")][: self.max_results]
        found = tuple(Classification(self.labels[i], int(i), float(scores[i])) for i in best)
        return Answers(classifications=found, doubt=doubt)

    def scores(self, output: Tensor) -> Tensor:
        """Scores float64 [classes], 0..1, of the output's real values."""
        scores = activate(output.reshape(-1).astype(np.float64), self.activation)
        return np.array([1.0 - scores[0], scores[0]]) if self.binary else scores

    def _doubt(self, output: Tensor) -> str | None:
        low, high = float(output.min()), float(output.max())
        if math.isnan(low):
            return "the model's output is not a number (NaN); is the recipe, or the model, broken?"
        if self.activation == "none" and (low < -SCORE_ROUNDING or high > 1 + SCORE_ROUNDING):
            return f"scores from {low:.4g} to {high:.4g} are cut to 0..1; set task.activation to softmax or sigmoid"
        return None

    def same_answer(self, expected: Sequence[Tensor], got: Sequence[Tensor], tolerances: Sequence[float]) -> str | None:
        """Another best class counts only where the expected one leads by more than the tolerance.

        A single unit has no other class: there it is the other side of the middle that counts.
        """
        before, after = expected[0].reshape(-1), got[0].reshape(-1)
        if before.size == 1:
            middle = 0.0 if self.activation == "sigmoid" else 0.5
            lead = abs(float(before[0]) - middle)
            if (before[0] > middle) == (after[0] > middle) or lead <= tolerances[0]:
                return None
            return f"the output is {after[0]:.4g}, the host's was {before[0]:.4g}, on the other side of {middle:g}"
        winner, other = int(np.argmax(before)), int(np.argmax(after))
        if winner == other or before[winner] - before[other] <= tolerances[0]:
            return None
        return f"the answer is '{self.labels[other]}', the host's was '{self.labels[winner]}'"

    def draw(self, picture: Picture, answers: Answers) -> None:
        """Write the labels and their scores into the upper left corner."""
        draw.lines(picture, [f"{c.label}  {c.score:.2f}" for c in answers.classifications or ()] or ["(nothing)"])


def activate(values: Tensor, activation: Activation) -> Tensor:
    """Scores float64 [classes], clipped to 0..1, from float64 [classes]."""
    if activation == "softmax":
        powers = np.exp(values - values.max())
        return np.asarray(powers / powers.sum())
    if activation == "sigmoid":
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -500, 500))))
    return np.clip(values, 0.0, 1.0)


def _only_output(outputs: tuple[TensorSpec, ...]) -> TensorSpec:
    listed = ", ".join(f"'{o.name}' {o.dtype} {list(o.shape)}" for o in outputs)
    if len(outputs) != 1 or not outputs[0].shape or math.prod(outputs[0].shape) != outputs[0].shape[-1]:
        raise ModelError(f"a classifier has one output of [1, classes]; this model has {listed}", key="task.type")
    return outputs[0]


def _activation(wanted: Literal["auto"] | Activation, ending: str, spec: TensorSpec) -> Activation:
    if wanted != "auto":
        return wanted
    if ending not in ACTIVATION_AFTER:
        raise SettingError(
            f"output '{spec.name}' comes from the operator {ending or '(none)'}, which does not say whether it gives"
            " scores or logits; set none (scores 0..1), softmax or sigmoid",
            key="task.activation",
        )
    activation = ACTIVATION_AFTER[ending]
    return "sigmoid" if activation == "softmax" and spec.shape[-1] == 1 else activation


def _is_binary(spec: TensorSpec, activation: Activation, labels: tuple[str, ...] | None) -> bool:
    """One sigmoid unit and two labels: the unit is the second label's score, as Keras trains it."""
    return spec.shape[-1] == 1 and activation != "softmax" and labels is not None and len(labels) == 2


def _thresholds(config: ClassifyConfig, labels: tuple[str, ...]) -> Tensor:
    """The score that each class needs, float64 [classes]; above 1 of those that are left out."""
    for key in ("allow", "deny", "label_thresholds"):
        for name in getattr(config, key) or ():
            if name not in labels:
                close = difflib.get_close_matches(name, labels, 1)
                hint = f"did you mean '{close[0]}'?" if close else f"it has {', '.join(labels[:5])}, …"
                raise SettingError(f"the model has no label '{name}'; {hint}", key=f"task.{key}")
    left_out = set(config.deny) | (set(labels) - set(config.allow) if config.allow is not None else set())
    return np.array(
        [math.inf if name in left_out else config.label_thresholds.get(name, config.score_threshold) for name in labels]
    )
