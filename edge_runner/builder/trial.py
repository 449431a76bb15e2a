"""What a build measures: how one mode's .tflite compares with the SavedModel, and how one recipe fares on labelled pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_runner.builder.order import Mode
from edge_runner.frame import Tensor
from edge_runner.model.preprocess import Recipe


@dataclass(frozen=True)
class Parity:
    """One output, .tflite against SavedModel, over all verification samples. `low` and `high` are the SavedModel's extremes.

    `cosine` and `max_abs_error` are None of an output that was chosen within the model (`Task.chosen`): where two boxes change
    their places in a list, they say nothing.
    """

    output: str
    cosine: float | None
    max_abs_error: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Scatter:
    """A sample of one output's values, float64 [n]: the SavedModel's and, in the same order, the .tflite's."""

    output: str
    reference: Tensor
    got: Tensor


@dataclass(frozen=True)
class Trial:
    """One mode. Fractions are 0..1: `changed` of the answers; `accuracy` of the .tflite (None without labels); `loss` is what
    counts against --max-loss. `refused` says why there is no model in this mode; then nothing else is set."""

    mode: Mode
    size_bytes: int = 0
    samples: int = 0
    changed: float = 0.0
    accuracy: float | None = None
    loss: float = 0.0
    parities: tuple[Parity, ...] = ()
    refused: str = ""


@dataclass(frozen=True)
class RecipeTrial:
    """One recipe's `accuracy`, 0..1, on labelled pictures; `name` is what the command line calls it.

    `winners` are the best classes, one a picture.
    """

    name: str
    recipe: Recipe
    accuracy: float
    winners: tuple[int, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """What --evaluate found. Accuracies are 0..1; `trials` begins with the recipe that was ordered and was made on `searched`
    of the `pictures`. `verdict` is `verified`, or why it is not."""

    pictures: int
    searched: int
    saved_model: float
    tflite: float
    trials: tuple[RecipeTrial, ...]
    verdict: str

    def plain(self) -> dict[str, Any]:
        """For the manifest."""
        best = max(self.trials[1:], key=lambda trial: trial.accuracy, default=None)
        return {
            "pictures": self.pictures,
            "saved_model_top1": round(self.saved_model, 6),
            "tflite_top1": round(self.tflite, 6),
            "next_best_recipe": best and {"recipe": best.name, "top1": round(best.accuracy, 6)},
        }
