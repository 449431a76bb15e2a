"""From a model's values to scores, and which scores are kept."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np

from edge_runner.errors import SettingError
from edge_runner.frame import Ending, Tensor

Activation = Literal["none", "softmax", "sigmoid"]

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


class Kept(Protocol):
    """The keys of a task's Config that say which scores are kept."""

    @property
    def score_threshold(self) -> float: ...
    @property
    def allow(self) -> tuple[str, ...] | None: ...
    @property
    def deny(self) -> tuple[str, ...]: ...
    @property
    def label_thresholds(self) -> Mapping[str, float]: ...


def activation_after(
    wanted: Literal["auto"] | Activation, ending: Ending, output: str, *, alone: bool = False
) -> Activation:
    """The activation that is wanted, or the one that the output's last operator leaves to be done.

    `alone`: there is one value, and no other class. Raise SettingError where the operator does not say it.
    """
    if wanted != "auto":
        return wanted
    if ending.operator not in ACTIVATION_AFTER:
        raise SettingError(
            f"output '{output}' comes from the operator {ending.operator or '(none)'}, which does not say whether it gives"
            " scores or logits; set none (scores 0..1), softmax or sigmoid",
            key="task.activation",
        )
    activation = ACTIVATION_AFTER[ending.operator]
    return "sigmoid" if activation == "softmax" and alone else activation


def activate(values: Tensor, activation: Activation, axis: int = -1) -> Tensor:
    """Scores, clipped to 0..1, of values [...] of any shape and their own type; a softmax is along `axis`."""
    if activation == "softmax":
        powers = np.exp(values - values.max(axis=axis, keepdims=True))
        return np.asarray(powers / powers.sum(axis=axis, keepdims=True))
    if activation == "sigmoid":
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -80, 80))))
    return np.clip(values, 0.0, 1.0)


def thresholds(config: Kept, labels: Sequence[str]) -> Tensor:
    """The score that each class needs, float64 [classes]; infinite of those that are left out.

    Raise SettingError where a key names a label that the model does not have.
    """
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


def kept(labels: Sequence[str], least: Tensor) -> tuple[str, ...]:
    """The labels that are not left out, by what `thresholds` made of them."""
    return tuple(label for label, score in zip(labels, least, strict=True) if math.isfinite(score))
