"""What every task is, and what it may know of the model: its output tensors, how they end, and the labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from edge_runner.errors import ModelError
from edge_runner.frame import Ending, Geometry, Tensor, TensorSpec
from edge_runner.result import Answers


@dataclass(frozen=True)
class ModelFacts:
    """The model as a task sees it: its outputs, what makes each, and its labels, which may be None.

    `size` is the input picture's (width, height); None of a model that is not fed pictures.
    """

    outputs: tuple[TensorSpec, ...]
    endings: tuple[Ending, ...]
    labels: tuple[str, ...] | None
    labels_source: str
    size: tuple[int, int] | None = None

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the outputs."""
        return tuple(spec.shape for spec in self.outputs)


class Task(ABC):
    """Turns output tensors into answers. A task must override `decode` and `same_answer`, and holds no state of a frame."""

    Config: ClassVar[type[Any]]
    SLACK: ClassVar[float] = 0.0
    """How far a converted model's values may be off and still be the same answer: a fraction of their range."""

    labels: tuple[str, ...] = ()
    """Of the classes, by their index; empty where answers have none."""

    kept_labels: tuple[str, ...] = ()
    """Those that can stand in an answer: `allow` and `deny` are for the others."""

    @abstractmethod
    def __init__(self, config: Any, facts: ModelFacts) -> None:
        """Raise SettingError or ModelError where the model does not fit the task."""

    @property
    def decided(self) -> Mapping[str, str]:
        """The keys of its Config that were `auto`, with what the model's outputs made of them."""
        return {}

    @property
    def reading(self) -> str:
        """How the outputs are read, for people; empty where there is but one way."""
        return ""

    @property
    def arrays(self) -> str | None:
        """Which outputs are too large for a result, and why: they need an output that takes arrays. None where all are fine."""
        return None

    @property
    def chosen(self) -> tuple[bool, ...]:
        """Of each output, whether its values were chosen within the model, by a sort or an argmax: a hair's breadth before may
        change them altogether, so that they are compared by `same_answer` alone. Empty: none was."""
        return ()

    @abstractmethod
    def decode(self, tensors: Sequence[Tensor], geometry: Geometry) -> Answers:
        """Answers from the outputs' real values, positions in fractions of the upright frame."""

    @abstractmethod
    def same_answer(self, expected: Sequence[Tensor], got: Sequence[Tensor], tolerances: Sequence[float]) -> str | None:
        """Why the answer of `got` is another one than that of `expected`, beyond doubt; None where it is the same."""


def check_labels(facts: ModelFacts, classes: int, output: str, *, background_row: bool = True) -> tuple[str, ...]:
    """A label for each class, its index where the model has none; raise ModelError, with both numbers, where they do not fit.

    `background_row`: one of the classes may stand for nothing.
    """
    labels = facts.labels
    if labels is None:
        return tuple(map(str, range(classes)))
    if len(labels) == classes:
        return labels
    message = f"{facts.labels_source} has {len(labels)} labels; output '{output}' has {classes} classes"
    first, last = labels[0].lower(), labels[-1].lower()
    if len(labels) == classes + 1 and "background" in (first, last):
        row = "first" if first == "background" else "last"
        hint = (
            f"the model has probably no class for the {row} line, 'background': if it was trained without, remove that line;"
            " if with it, another line is too many"
        )
    elif background_row and len(labels) == classes - 1 and "background" not in (first, last):
        hint = "the model probably has a background row: try 'background' as a first line of its own"
    elif abs(len(labels) - classes) == 1:
        hint = "a line is missing, or one too many: is it this model's file?"
    else:
        hint = "it is another model's file"
    raise ModelError(f"{message}; {hint}", key="model.labels")
