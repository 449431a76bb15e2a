"""Raw: the output tensors as they are, for embeddings, regressions, and whoever decodes them elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from edge_runner.fields import Range
from edge_runner.frame import Geometry, Tensor, differences
from edge_runner.result import Answers, RawTensor
from edge_runner.task.base import ModelFacts, Task


@dataclass(frozen=True)
class RawConfig:
    """The configuration's `task` for outputs that are written as they are.

    `max_values` is how many numbers a result may hold; the largest outputs go into a file of their own instead.
    """

    type: Literal["raw"] = "raw"
    max_values: Annotated[int, Range(0)] = 4096


class Raw(Task):
    """Every output tensor with its name, shape, dtype and real values."""

    Config = RawConfig
    SLACK = 0.05

    def __init__(self, config: RawConfig, facts: ModelFacts) -> None:
        """Raise nothing: any model fits."""
        self._outputs = facts.outputs
        self._most = config.max_values
        sizes = [math.prod(shape) for shape in facts.shapes]
        self._expected = _too_large(sizes, self._most)

    @property
    def arrays(self) -> str | None:
        if not any(self._expected):
            return None
        large = ", ".join(str(spec) for spec, too in zip(self._outputs, self._expected, strict=True) if too)
        return f"{large}: more numbers than a result may hold (task.max_values {self._most:,})"

    def decode(self, tensors: Sequence[Tensor], geometry: Geometry) -> Answers:
        """All values of all outputs, but those of the largest as arrays, where they are too many for a line."""
        large = _too_large([tensor.size for tensor in tensors], self._most)
        each = zip(self._outputs, tensors, large, strict=True)
        found = tuple(_raw(spec.name, tensor, too_large) for spec, tensor, too_large in each)
        doubt = None
        if any(large) and not any(self._expected):
            count = sum(tensor.size for tensor in tensors)
            doubt = (
                f"the outputs grew to {count:,} numbers; those over task.max_values go to an output of type npz alone"
            )
        return Answers(tensors=found, doubt=doubt)

    def same_answer(self, expected: Sequence[Tensor], got: Sequence[Tensor], tolerances: Sequence[float]) -> str | None:
        """Root mean square difference of each output within its tolerance."""
        for spec, before, after, tolerance in zip(self._outputs, expected, got, tolerances, strict=True):
            apart = differences(before, after)
            off = float(np.sqrt(np.mean(apart**2))) if apart.size else 0.0
            if not off <= tolerance:
                return (
                    f"output '{spec.name}' is {off:.4g} off the host's in the root mean square; allowed {tolerance:.4g}"
                )
        return None


def _too_large(sizes: Sequence[int], most: int) -> list[bool]:
    """Of each output, whether it goes into a file: the largest first, until the rest has no more than `most` numbers."""
    large, left = [False] * len(sizes), sum(sizes)
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        if left > most:
            large[index] = True
            left -= sizes[index]
    return large


def _raw(name: str, tensor: Tensor, large: bool) -> RawTensor:
    """JSON has no NaN and no infinity: they become null."""
    if large:
        return RawTensor(name, tensor.shape, tensor.dtype.name, None, tensor)
    values = [
        None if isinstance(value, float) and not math.isfinite(value) else value for value in tensor.ravel().tolist()
    ]
    return RawTensor(name, tensor.shape, tensor.dtype.name, tuple(values))
