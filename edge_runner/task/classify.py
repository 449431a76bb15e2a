"""Classification: one score a class, the best first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np

from edge_runner.errors import ModelError
from edge_runner.fields import Fraction, Range
from edge_runner.frame import Geometry, Tensor, TensorSpec
from edge_runner.result import Answers, Classification
from edge_runner.task.base import ModelFacts, Task, check_labels
from edge_runner.task.scores import Activation, activate, activation_after, kept, thresholds

SCORE_ROUNDING = 0.01  # a softmax may end a little above 1


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
        self.activation = activation_after(config.activation, facts.endings[0], spec.name, alone=spec.shape[-1] == 1)
        self.binary = _is_binary(spec, self.activation, facts.labels)
        classes = 2 if self.binary else spec.shape[-1]
        self.labels = check_labels(facts, classes, spec.name)
        self.max_results = config.max_results
        self._thresholds = thresholds(config, self.labels)
        self.kept_labels = kept(self.labels, self._thresholds)

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


def _only_output(outputs: tuple[TensorSpec, ...]) -> TensorSpec:
    listed = ", ".join(map(str, outputs))
    if len(outputs) != 1 or not outputs[0].shape or math.prod(outputs[0].shape) != outputs[0].shape[-1]:
        raise ModelError(f"a classifier has one output of [1, classes]; this model has {listed}", key="task.type")
    return outputs[0]


def _is_binary(spec: TensorSpec, activation: Activation, labels: tuple[str, ...] | None) -> bool:
    """One sigmoid unit and two labels: the unit is the second label's score, as Keras trains it."""
    return spec.shape[-1] == 1 and activation != "softmax" and labels is not None and len(labels) == 2
