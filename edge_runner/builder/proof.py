"""The proof: a .tflite's outputs against the SavedModel's, and the goldens by which the board repeats it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_runner.builder.samples import Pictures, Samples, noisy, quantized
from edge_runner.builder.trial import Parity, Scatter
from edge_runner.frame import Tensor, TensorSpec, differences
from edge_runner.model.goldens import Golden, Goldens, recipe_dict
from edge_runner.model.interpreter import Interpreter
from edge_runner.model.preprocess import Preprocessor
from edge_runner.task.base import Task
from edge_runner.task.classify import Classify

TOLERANCE_STEPS, TOLERANCE_OF_RANGE, TOLERANCE_DRIFTS = 3, 0.001, 4
SCATTERED_MOST = 4000  # values of an output in the report's plots, about
LARGEST_SHOWN = 5  # of each sample's values
NOISE_OF_RANGE = 1 / 255  # of inputs that are no pictures: as one grey level of a picture
DIGITS = 6

Answers = Callable[[int], list[Tensor]]
"""A sample's number -> each output's real values."""


@dataclass
class Comparison:
    """What one model's outputs are beside the SavedModel's, gathered sample by sample."""

    outputs: Sequence[TensorSpec]
    task: Task
    slack: Sequence[float]
    """How far each output may be off and still be the same answer, in its real values."""
    changed: int = 0
    samples: int = 0

    def __post_init__(self) -> None:
        count = len(self.outputs)
        self.expected: list[int] = []
        """The best class of each sample by the SavedModel; empty unless the model is a classifier."""
        self.winners: list[int] = []
        """The same by the .tflite."""
        self._products = np.zeros((count, 3))  # reference * got, reference squared, got squared
        self._errors = np.zeros(count)
        self._extremes = [(np.inf, -np.inf)] * count
        self._scatters: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(count)]

    def add(self, reference: Sequence[Tensor], got: Sequence[Tensor], every: int) -> None:
        """Take one sample; every so many-th value goes into the plots, and the largest, which are rare and matter most."""
        self.samples += 1
        broken = any(np.isnan(found).any() for found in got)
        self.changed += broken or self.task.same_answer(reference, got, self.slack) is not None
        if isinstance(self.task, Classify):
            self.expected.append(winner(self.task, reference))
            self.winners.append(winner(self.task, got))
        for index, (expected, found) in enumerate(zip(reference, got, strict=True)):
            a, b = expected.ravel().astype(np.float64), found.ravel().astype(np.float64)
            both = np.isfinite(a) & np.isfinite(b)
            self._products[index] += (a[both] @ b[both], a[both] @ a[both], b[both] @ b[both])
            self._errors[index] = np.fmax(self._errors[index], np.max(differences(a, b)[both], initial=0.0))
            low, high = self._extremes[index]
            finite = a[np.isfinite(a)]
            self._extremes[index] = min(low, finite.min(initial=np.inf)), max(high, finite.max(initial=-np.inf))
            shown = _shown(a, every)
            self._scatters[index].append((a[shown], b[shown]))

    def parities(self) -> tuple[Parity, ...]:
        return tuple(
            Parity(spec.name, _cosine(*self._products[i]), _short(self._errors[i]), *map(_short, self._extremes[i]))
            for i, spec in enumerate(self.outputs)
        )

    def scatters(self) -> tuple[Scatter, ...]:
        pairs = [(np.concatenate([a for a, _ in s]), np.concatenate([b for _, b in s])) for s in self._scatters]
        return tuple(Scatter(spec.name, *pair) for spec, pair in zip(self.outputs, pairs, strict=True))


def compared(
    reference: Answers, interpreter: Interpreter, samples: Samples, task: Task, report: Callable[[int], None]
) -> Comparison:
    """Run a model on all samples, and compare it with the SavedModel."""
    spans = _spans(reference(number) for number in range(len(samples)))
    comparison = Comparison(interpreter.outputs, task, [task.SLACK * span for span in spans])
    feed = samples.feeder(interpreter.inputs)
    for number in range(len(samples)):
        expected, got = reference(number), interpreter.run(*feed(number))
        largest = max((tensor.size for tensor in expected), default=1)
        comparison.add(expected, got, max(1, len(samples) * largest // SCATTERED_MOST))
        report(number + 1)
    return comparison


def make_goldens(
    samples: Samples, reference: Answers, interpreter: Interpreter, slow: Interpreter, *, rounds: bool
) -> Goldens:
    """All of `samples` with what the board needs to see that it answers alike. `slow` has the reference kernels.

    `rounds` says that the model computes in whole numbers: there a kernel that rounds otherwise is as a level of noise. In
    float32, processors and runtimes differ by millionths, and noise would only allow what no processor does.
    """
    feed = samples.feeder(interpreter.inputs)
    items = []
    for number in range(len(samples)):
        inputs = feed(number)
        picture = samples.picture(number) if isinstance(samples, Pictures) else None
        items.append(Golden(picture, inputs, interpreter.run(*inputs), reference(number)))
    drifts = np.zeros(len(interpreter.outputs))
    for number, item in enumerate(items):
        others = [slow.run(*item.inputs)]
        if rounds:
            others.append(interpreter.run(*_disturbed(item, samples, interpreter, number)))
        for other in others:
            found = [np.max(differences(a, b), initial=0.0) for a, b in zip(other, item.outputs, strict=True)]
            drifts = np.maximum(drifts, np.nan_to_num(found, posinf=0.0))
    spans = _spans(item.outputs for item in items)
    tolerances = [
        max(TOLERANCE_STEPS * spec.scale, TOLERANCE_OF_RANGE * span, TOLERANCE_DRIFTS * float(drift))
        for spec, drift, span in zip(interpreter.outputs, drifts, spans, strict=True)
    ]
    recipe = samples.recipe if isinstance(samples, Pictures) else None
    return Goldens(recipe_dict(recipe), tolerances, items)


def winner(task: Classify, outputs: Sequence[Tensor]) -> int:
    """The best class of one sample's outputs."""
    return int(np.argmax(task.scores(outputs[0])))


def _disturbed(item: Golden, samples: Samples, interpreter: Interpreter, seed: int) -> list[Tensor]:
    """A golden's inputs with a little noise: a picture's before it is prepared, others by as much of their range."""
    if isinstance(samples, Pictures):
        assert item.picture is not None
        preprocessor = Preprocessor(samples.recipe, interpreter.inputs[0])
        out = np.empty(preprocessor.shape, preprocessor.dtype)
        preprocessor(noisy(item.picture, seed), out)
        return [out]
    return [_shaken(tensor, spec, seed) for tensor, spec in zip(item.inputs, interpreter.inputs, strict=True)]


def _shaken(tensor: Tensor, spec: TensorSpec, seed: int) -> Tensor:
    if not spec.quantized and not np.issubdtype(tensor.dtype, np.floating):
        return tensor  # perhaps an index
    real = spec.dequantize(tensor).astype(np.float64)
    noise = np.random.default_rng(seed).integers(-1, 2, tensor.shape)
    return quantized(real + noise * _spans([[real]])[0] * NOISE_OF_RANGE, spec)


def _shown(values: Tensor, every: int) -> Tensor:
    largest = np.argsort(values)[-LARGEST_SHOWN:]
    return np.union1d(np.arange(0, len(values), every), largest)


def _spans(samples: Iterable[Sequence[Tensor]]) -> list[float]:
    """How far apart the finite values of each output, or input, are; one sample is held at a time."""
    lows: dict[int, float] = {}
    highs: dict[int, float] = {}
    for tensors in samples:
        for index, tensor in enumerate(tensors):
            finite = tensor[np.isfinite(tensor)]
            lows[index] = min(lows.get(index, np.inf), float(finite.min(initial=np.inf)))
            highs[index] = max(highs.get(index, -np.inf), float(finite.max(initial=-np.inf)))
    return [max(0.0, highs[index] - lows[index]) for index in sorted(lows)]


def _cosine(product: float, one: float, other: float) -> float:
    """Of two vectors, from their products; 1 where both are nothing but zeros."""
    if not one and not other:
        return 1.0
    cosine = product / np.sqrt(one * other) if one and other else 0.0
    return _short(cosine) if np.isfinite(cosine) else 0.0


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
