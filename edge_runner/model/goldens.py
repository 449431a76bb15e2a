"""Golden pictures: a bundle's proof, replayed on the board, that it prepares and answers as the workstation did.

(a) the goldens' recipe is the manifest's; (b) the board prepares the stored pictures as the host did; (c) the stored inputs give
the host's outputs, within the tolerances stored with them. A model that is not fed pictures has (c) alone.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_runner.errors import ModelError
from edge_runner.frame import Picture, Tensor, TensorSpec, differences
from edge_runner.model.interpreter import Interpreter
from edge_runner.model.labels import UNZIPPING
from edge_runner.model.preprocess import Preprocessor, Recipe

MEAN_LEVELS, MAX_LEVELS = 1.0, 4.0  # grey levels: resampling differs a little between processors

SameAnswer = Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[float]], "str | None"]
"""(host's outputs, board's outputs, a tolerance each) -> why the answers differ beyond it, or None."""


@dataclass(frozen=True)
class Golden:
    """One picture, uint8 [height, width, 3] BGR; the prepared inputs; the .tflite's and TensorFlow's outputs on the host."""

    picture: Picture | None
    inputs: list[Tensor]
    outputs: list[Tensor]
    reference: list[Tensor]


@dataclass(frozen=True)
class Goldens:
    """All of golden.npz. `tolerances` has one a model output, in its real values."""

    recipe: dict[str, Any] | None
    tolerances: list[float]
    items: list[Golden]

    def dump(self) -> bytes:
        """The file's bytes, the same for equal content."""
        arrays: dict[str, Any] = {"recipe": np.array(json.dumps(self.recipe)), "tolerances": np.array(self.tolerances)}
        for number, item in enumerate(self.items):
            if item.picture is not None:
                arrays[f"picture_{number}"] = item.picture
            for index, tensor in enumerate(item.inputs):
                arrays[f"input_{number}_{index}"] = tensor
            for index, (output, reference) in enumerate(zip(item.outputs, item.reference, strict=True)):
                arrays[f"tflite_{number}_{index}"] = output
                arrays[f"tensorflow_{number}_{index}"] = reference
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)
        return file.getvalue()


@dataclass(frozen=True)
class Deviation:
    """How far this machine is from the host on one golden.

    `levels` is of the prepared picture, in grey levels, the mean and the largest; None where there is no picture. `outputs`
    has each output's largest difference, in its real values; None of one that is not compared by its values. `faults` are those
    that are not allowed, in words.
    """

    levels: tuple[float, float] | None = None
    outputs: tuple[float | None, ...] = ()
    faults: tuple[str, ...] = ()


def recipe_dict(recipe: Recipe | None) -> dict[str, Any] | None:
    """A recipe as JSON has it."""
    if recipe is None:
        return None
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return plain


def read_goldens(path: Path) -> Goldens:
    """Read golden.npz; raise ModelError where it is damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            tolerances = [float(t) for t in file["tolerances"]]
            count = len([name for name in file.files if re.fullmatch(r"input_\d+_0", name)])
            items = [_item(file, number) for number in range(count)]
            if not items or any(len(item.outputs) != len(tolerances) for item in items):
                raise ValueError(f"{count} goldens with {len(tolerances)} tolerances")
            return Goldens(json.loads(str(file["recipe"])), tolerances, items)
    except (*UNZIPPING, KeyError) as error:
        raise ModelError(f"{path} is damaged: {error}", key="model.path") from error


def recipe_differences(goldens: Goldens, recipe: Recipe | None) -> list[str]:
    """(a) What the manifest's recipe says otherwise than the recipe that the goldens were made with."""
    mine, theirs = recipe_dict(recipe) or {}, goldens.recipe or {}
    return [
        f"the manifest's preprocess.{key} is {mine.get(key)}, the goldens were made with {theirs.get(key)}"
        for key in sorted(mine.keys() | theirs.keys())
        if mine.get(key) != theirs.get(key)
    ]


def replay(
    goldens: Goldens,
    preprocessor: Preprocessor | None,
    interpreter: Interpreter,
    same_answer: SameAnswer,
    chosen: Sequence[bool] = (),
) -> list[Deviation]:
    """(b) and (c): how far this machine is from the host, golden by golden. `chosen` as a task has it."""
    found = []
    for number, item in enumerate(goldens.items, 1):
        deviation = _deviation(goldens, item, preprocessor, interpreter, same_answer, chosen)
        where = f"golden {'picture ' if item.picture is not None else ''}{number} of {len(goldens.items)}"
        found.append(dataclasses.replace(deviation, faults=tuple(f"{where}: {fault}" for fault in deviation.faults)))
    return found


def prepared_levels(item: Golden, preprocessor: Preprocessor) -> tuple[float, float]:
    """How far this machine prepares a golden picture from the stored input, in grey levels: in the mean and at most."""
    assert item.picture is not None
    out = np.empty(preprocessor.shape, preprocessor.dtype)
    preprocessor(item.picture, out)
    levels = np.abs(preprocessor.grey_levels(out.astype(np.float64) - item.inputs[0].astype(np.float64)))
    return float(levels.mean()), float(levels.max())


def compare(
    goldens: Goldens,
    item: Golden,
    specs: Sequence[TensorSpec],
    outputs: Sequence[Tensor],
    same_answer: SameAnswer,
    chosen: Sequence[bool] = (),
) -> str | None:
    """Why `outputs`, real values, are not the host's to this golden; None where they are, within the tolerances."""
    for spec, output, expected in zip(specs, outputs, item.outputs, strict=True):
        if output.shape != expected.shape:
            return f"output '{spec.name}' has the shape {list(output.shape)}, the host's had {list(expected.shape)}"
    for spec, off, tolerance in zip(specs, _off(item, outputs, chosen), goldens.tolerances, strict=True):
        if off is not None and not off <= tolerance:
            return f"output '{spec.name}' is {off:.6g} off the host's; allowed {tolerance:.6g}"
    return same_answer(item.outputs, outputs, goldens.tolerances)


def summary(goldens: Goldens, deviations: Sequence[Deviation]) -> str:
    """In a few words, how far this machine is from the host at most."""
    words = []
    levels = [deviation.levels for deviation in deviations if deviation.levels]
    if levels:
        mean, most = (max(column) for column in zip(*levels, strict=True))
        words.append(f"prepared within {mean:.2g} grey levels in the mean and {most:.2g} at most")
    shares = [
        off / tolerance
        for deviation in deviations
        for off, tolerance in zip(deviation.outputs, goldens.tolerances, strict=True)
        if off
    ]
    compared = any(off is not None for deviation in deviations for off in deviation.outputs)
    equal = "outputs equal" if compared else "answers equal"
    words.append(f"outputs within {max(shares):.1%} of what is allowed" if shares else equal)
    return ", ".join(words)


def _deviation(
    goldens: Goldens,
    item: Golden,
    preprocessor: Preprocessor | None,
    interpreter: Interpreter,
    same_answer: SameAnswer,
    chosen: Sequence[bool],
) -> Deviation:
    if not _fit(item.inputs, interpreter.inputs) or len(item.outputs) != len(interpreter.outputs):
        stored = ", ".join(f"{tensor.dtype} {list(tensor.shape)}" for tensor in item.inputs)
        own = ", ".join(f"{spec.dtype} {list(spec.shape)}" for spec in interpreter.inputs)
        return Deviation(faults=(f"its stored input is {stored}, the model's {own}",))
    levels = prepared_levels(item, preprocessor) if preprocessor and item.picture is not None else None
    outputs = interpreter.run(*item.inputs)
    differs = compare(goldens, item, interpreter.outputs, outputs, same_answer, chosen)
    faults = (levels and _too_far(*levels), differs)
    return Deviation(levels, _off(item, outputs, chosen), tuple(filter(None, faults)))


def _too_far(mean: float, most: float) -> str | None:
    if mean <= MEAN_LEVELS and most <= MAX_LEVELS:
        return None
    return (
        f"this board prepares it otherwise than the host did: by {mean:.2f} grey levels in the mean and {most:.1f} at most"
        f" (allowed {MEAN_LEVELS:g} and {MAX_LEVELS:g})"
    )


def _off(item: Golden, outputs: Sequence[Tensor], chosen: Sequence[bool]) -> tuple[float | None, ...]:
    """Each output's largest difference from the host's; infinite where it has another shape, None where it was chosen."""
    return tuple(
        None
        if output.shape == expected.shape and apart
        else float(np.max(differences(output, expected), initial=0.0))
        if output.shape == expected.shape
        else np.inf
        for output, expected, apart in zip(outputs, item.outputs, chosen or [False] * len(outputs), strict=True)
    )


def _fit(tensors: Sequence[Tensor], specs: Sequence[TensorSpec]) -> bool:
    return [(t.shape, t.dtype) for t in tensors] == [(spec.shape, np.dtype(spec.dtype)) for spec in specs]


def _item(file: Any, number: int) -> Golden:
    """One golden out of the .npz."""

    def all_of(kind: str) -> list[Tensor]:
        count = len([name for name in file.files if re.fullmatch(rf"{kind}_{number}_\d+", name)])
        return [file[f"{kind}_{number}_{index}"] for index in range(count)]

    picture = file[f"picture_{number}"] if f"picture_{number}" in file.files else None
    return Golden(picture, all_of("input"), all_of("tflite"), all_of("tensorflow"))
