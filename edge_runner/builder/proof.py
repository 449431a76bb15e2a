"""The proof: a .tflite's outputs against the SavedModel's, and the goldens by which the board repeats it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_runner.builder.samples import Pictures, Samples, noisy, quantized
from edge_runner.builder.trial import Parity, Scatter
from edge_runner.errors import ModelError
from edge_runner.frame import Geometry, Tensor, TensorSpec, differences
from edge_runner.model.goldens import Golden, Goldens, recipe_dict
from edge_runner.model.interpreter import Interpreter
from edge_runner.model.preprocess import Preprocessor
from edge_runner.result import Answers
from edge_runner.task.base import Task
from edge_runner.task.classify import Classify
from edge_runner.task.detect import Detect
from edge_runner.task.pose import Pose
from edge_runner.task.segment import Segmenter

TOLERANCE_STEPS, TOLERANCE_OF_RANGE, TOLERANCE_DRIFTS = 3, 0.001, 4
SCATTERED_MOST = 4000  # values of an output in the report's plots, about
LARGEST_SHOWN = 5  # of each sample's values
NOISE_OF_RANGE = 1 / 255  # of inputs that are no pictures: as one grey level of a picture
WIDENED_MOST = 16  # times a chosen output's tolerance; what differs by more is another answer
DIGITS = 6
WHOLE = Geometry(1, 1)
FINDERS = (Detect, Pose, Segmenter)
"""Tasks whose answer may be that there is nothing; a segmenter's, that there is nothing but its first class."""

Expected = Callable[[int], list[Tensor]]
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
        self.answered: list[bool] = []
        """Of each sample, whether the .tflite finds anything in it."""
        self._chosen = self.task.chosen or (False,) * count
        self._products = np.zeros((count, 3))  # reference * got, reference squared, got squared
        self._errors = np.zeros(count)
        self._extremes = [(np.inf, -np.inf)] * count
        self._scatters: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(count)]

    def add(self, reference: Sequence[Tensor], got: Sequence[Tensor], every: int) -> None:
        """Take one sample; every so many-th value goes into the plots, and the largest, which are rare and matter most."""
        self.samples += 1
        self.changed += not same(self.task, reference, got, self.slack)
        self.answered.append(not isinstance(self.task, FINDERS) or anything(self.task.decode(got, WHOLE)))
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
            if not self._chosen[index]:
                shown = _shown(a, every)
                self._scatters[index].append((a[shown], b[shown]))

    def parities(self) -> tuple[Parity, ...]:
        return tuple(
            Parity(
                spec.name,
                None if self._chosen[i] else _cosine(*self._products[i]),
                None if self._chosen[i] else _short(self._errors[i]),
                *map(_short, self._extremes[i]),
            )
            for i, spec in enumerate(self.outputs)
        )

    def scatters(self) -> tuple[Scatter, ...]:
        """The values of each output that was not chosen within the model."""
        return tuple(
            Scatter(spec.name, np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs]))
            for spec, pairs in zip(self.outputs, self._scatters, strict=True)
            if pairs
        )


def compared(
    reference: Expected, interpreter: Interpreter, samples: Samples, task: Task, report: Callable[[int], None]
) -> Comparison:
    """Run a model on all samples, and compare it with the SavedModel.

    Raise ModelError where an output has another shape than the SavedModel's.
    """
    spans = _spans(reference(number) for number in range(len(samples)))
    comparison = Comparison(interpreter.outputs, task, [task.SLACK * span for span in spans])
    feed = samples.feeder(interpreter.inputs)
    for number in range(len(samples)):
        expected, got = reference(number), interpreter.run(*feed(number))
        _check_shapes(interpreter.outputs, expected, got)
        largest = max((tensor.size for tensor in expected), default=1)
        comparison.add(expected, got, max(1, len(samples) * largest // SCATTERED_MOST))
        report(number + 1)
    return comparison


def make_goldens(
    samples: Samples, reference: Expected, interpreter: Interpreter, slow: Interpreter, task: Task, *, rounds: bool
) -> tuple[Goldens, str | None]:
    """`samples` with what the board needs to see that it answers alike; `slow` has the reference kernels. And why a board that is
    right may be refused by them all the same: other kernels answer otherwise on this machine already.

    `rounds` says that the model computes in whole numbers: there a kernel that rounds otherwise is as a level of noise. In
    float32, processors and runtimes differ by millionths, and noise would only allow what no processor does.
    The drift of an output that was chosen within the model is not how far its values are off, but how far they have to be allowed
    to be off for the same answer. Where these disagree on some samples only, they are left out.
    """
    feed = samples.feeder(interpreter.inputs)
    items = []
    for number in range(len(samples)):
        inputs = feed(number)
        picture = samples.picture(number) if isinstance(samples, Pictures) else None
        items.append(Golden(picture, inputs, interpreter.run(*inputs), reference(number)))
    elsewhere = []  # the outputs of each golden by other kernels, and from a picture with noise
    for number, item in enumerate(items):
        noise = [interpreter.run(*_disturbed(item, samples, interpreter, number))] if rounds else []
        elsewhere.append([slow.run(*item.inputs), *noise])
    drifted = [(item.outputs, other) for item, others in zip(items, elsewhere, strict=True) for other in others]
    tolerances = _tolerances(interpreter.outputs, drifted, task)
    why = [
        tuple(task.same_answer(item.outputs, other, tolerances) for other in others)
        for item, others in zip(items, elsewhere, strict=True)
    ]
    steady = [tuple(other is None for other in others) for others in why]
    kept = [number for number, agree in enumerate(steady) if agree == max(steady)]
    recipe = samples.recipe if isinstance(samples, Pictures) else None
    return Goldens(recipe_dict(recipe), tolerances, [items[number] for number in kept]), why[kept[0]][0]


def same(task: Task, reference: Sequence[Tensor], got: Sequence[Tensor], slack: Sequence[float]) -> bool:
    """Whether the .tflite answers as the SavedModel does; what is not a number is no answer."""
    return not any(np.isnan(found).any() for found in got) and task.same_answer(reference, got, slack) is None


def anything(answers: Answers) -> bool:
    """Whether something was found."""
    return bool(answers.detections or answers.keypoints or any(segment.index for segment in answers.segments or ()))


def winner(task: Classify, outputs: Sequence[Tensor]) -> int:
    """The best class of one sample's outputs."""
    return int(np.argmax(task.scores(outputs[0])))


def _check_shapes(outputs: Sequence[TensorSpec], reference: Sequence[Tensor], got: Sequence[Tensor]) -> None:
    for spec, expected, found in zip(outputs, reference, got, strict=True):
        if found.shape != expected.shape:
            raise ModelError(
                f"output '{spec.name}' is {list(found.shape)} of the .tflite, and {list(expected.shape)} of the SavedModel: was"
                " it exported for the converter alone, with a stand-in for an operator of TensorFlow Lite's? Then nothing"
                " can be compared; export it without that operator"
            )


def _tolerances(
    outputs: Sequence[TensorSpec], drifted: Sequence[tuple[Sequence[Tensor], Sequence[Tensor]]], task: Task
) -> list[float]:
    """How far each output may be off, in its real values. `drifted` has the same answers, as they came out here and elsewhere."""
    chosen = task.chosen or (False,) * len(outputs)
    drifts = np.zeros(len(outputs))
    for one, other in drifted:
        found = [np.max(differences(a, b), initial=0.0) for a, b in zip(one, other, strict=True)]
        drifts = np.maximum(drifts, np.nan_to_num(found, posinf=0.0))
    spans = _spans(one for one, _ in drifted)
    tolerances = [
        max(TOLERANCE_STEPS * spec.scale, TOLERANCE_OF_RANGE * span, 0.0 if apart else TOLERANCE_DRIFTS * float(drift))
        for spec, drift, span, apart in zip(outputs, drifts, spans, chosen, strict=True)
    ]
    wider = max((_widened(task, tolerances, chosen, *both) for both in drifted), default=1.0) if any(chosen) else 1.0
    return [tolerance * (wider if apart else 1) for tolerance, apart in zip(tolerances, chosen, strict=True)]


def _widened(
    task: Task, tolerances: Sequence[float], chosen: Sequence[bool], one: Sequence[Tensor], other: Sequence[Tensor]
) -> float:
    """What to multiply the tolerances of chosen outputs with: TOLERANCE_DRIFTS times what makes both the same answer, a power of
    two; 1 where that is less, and where nothing does."""
    factor = 1 / TOLERANCE_DRIFTS
    while factor <= WIDENED_MOST:
        allowed = [t * (factor if apart else 1) for t, apart in zip(tolerances, chosen, strict=True)]
        if task.same_answer(one, other, allowed) is None:
            return max(1.0, TOLERANCE_DRIFTS * factor)
        factor *= 2
    return 1.0


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
            finite = tensor[np.isfinite(tensor)].astype(np.float64)  # whole numbers have no infinity to begin with
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
