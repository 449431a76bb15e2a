"""Raw: the output tensors as they are, for embeddings, regressions, and whoever decodes them elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_runner.errors import ModelError
from edge_runner.frame import Geometry, Tensor, differences
from edge_runner.result import Answers, RawTensor
from edge_runner.task.base import ModelFacts, Task

VALUES_MOST = 65_536  # of all outputs: more is no line of JSON that anybody reads


@dataclass(frozen=True)
class RawConfig:
    """The configuration's `task` for outputs that are written as they are."""

    type: Literal["raw"] = "raw"


class Raw(Task):
    """Every output tensor with its name, shape, dtype and real values."""

    Config = RawConfig
    SLACK = 0.05

    def __init__(self, config: RawConfig, facts: ModelFacts) -> None:
        """Raise nothing: any model fits."""
        self._outputs = facts.outputs

    def decode(self, tensors: Sequence[Tensor], geometry: Geometry) -> Answers:
        """All values of all outputs; raise ModelError where they are too many for a line."""
        count = sum(tensor.size for tensor in tensors)
        if count > VALUES_MOST:
            listed = ", ".join(f"'{spec.name}' {list(spec.shape)}" for spec in self._outputs)
            raise ModelError(
                f"{count:,} values ({listed}) are too many for one result; at most {VALUES_MOST:,}", key="task.type"
            )
        return Answers(tensors=tuple(map(_raw, (spec.name for spec in self._outputs), tensors)))

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


def _raw(name: str, tensor: Tensor) -> RawTensor:
    """JSON has no NaN and no infinity: they become null."""
    values = [
        None if isinstance(value, float) and not math.isfinite(value) else value for value in tensor.ravel().tolist()
    ]
    return RawTensor(name, tensor.shape, tensor.dtype.name, tuple(values))
