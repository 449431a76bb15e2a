"""Golden pictures: a bundle's proof, replayed on the board, that it prepares and answers as the workstation did.

(a) the goldens' recipe is the manifest's; (b) the board prepares the stored pictures as the host did; (c) the stored inputs give
the host's outputs, within the tolerances stored with them. A model that is not fed pictures has (c) alone.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_runner.errors import ModelError
from edge_runner.frame import Picture, Tensor, TensorSpec, differences
from edge_runner.model.interpreter import Interpreter
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
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
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
    goldens: Goldens, preprocessor: Preprocessor | None, interpreter: Interpreter, same_answer: SameAnswer
) -> list[str]:
    """(b) and (c): a line for each way in which this machine differs from the host; empty when it does not."""
    found = []
    for number, item in enumerate(goldens.items, 1):
        where = f"golden picture {number} of {len(goldens.items)}"
        found += [
            f"{where}: {line}"
            for line in (_prepares(item, preprocessor), _answers(item, goldens, interpreter, same_answer))
            if line
        ]
    return found


def _prepares(item: Golden, preprocessor: Preprocessor | None) -> str | None:
    if preprocessor is None or item.picture is None or not _fit(item.inputs, [preprocessor.spec]):
        return None
    out = np.empty(preprocessor.shape, preprocessor.dtype)
    preprocessor(item.picture, out)
    levels = np.abs(preprocessor.grey_levels(out.astype(np.float64) - item.inputs[0].astype(np.float64)))
    mean, most = float(levels.mean()), float(levels.max())
    if mean <= MEAN_LEVELS and most <= MAX_LEVELS:
        return None
    return (
        f"this board prepares it otherwise than the host did: by {mean:.2f} grey levels in the mean and {most:.1f} at most"
        f" (allowed {MEAN_LEVELS:g} and {MAX_LEVELS:g})"
    )


def _answers(item: Golden, goldens: Goldens, interpreter: Interpreter, same_answer: SameAnswer) -> str | None:
    if not _fit(item.inputs, interpreter.inputs) or len(item.outputs) != len(interpreter.outputs):
        stored = ", ".join(f"{tensor.dtype} {list(tensor.shape)}" for tensor in item.inputs)
        own = ", ".join(f"{spec.dtype} {list(spec.shape)}" for spec in interpreter.inputs)
        return f"its stored input is {stored}, the model's {own}"
    return compare(goldens, item, interpreter.outputs, interpreter.run(*item.inputs), same_answer)


def compare(
    goldens: Goldens, item: Golden, specs: Sequence[TensorSpec], outputs: Sequence[Tensor], same_answer: SameAnswer
) -> str | None:
    """Why `outputs`, real values, are not the host's to this golden; None where they are, within the tolerances."""
    for spec, output, expected, tolerance in zip(specs, outputs, item.outputs, goldens.tolerances, strict=True):
        if output.shape != expected.shape:
            return f"output '{spec.name}' has the shape {list(output.shape)}, the host's had {list(expected.shape)}"
        worst = float(np.max(differences(output, expected), initial=0.0))
        if not worst <= tolerance:
            return f"output '{spec.name}' is {worst:.6g} off the host's; allowed {tolerance:.6g}"
    return same_answer(item.outputs, outputs, goldens.tolerances)


def _fit(tensors: Sequence[Tensor], specs: Sequence[TensorSpec]) -> bool:
    return [(t.shape, t.dtype) for t in tensors] == [(spec.shape, np.dtype(spec.dtype)) for spec in specs]


def _item(file: Any, number: int) -> Golden:
    """One golden out of the .npz."""

    def all_of(kind: str) -> list[Tensor]:
        count = len([name for name in file.files if re.fullmatch(rf"{kind}_{number}_\d+", name)])
        return [file[f"{kind}_{number}_{index}"] for index in range(count)]

    picture = file[f"picture_{number}"] if f"picture_{number}" in file.files else None
    return Golden(picture, all_of("input"), all_of("tflite"), all_of("tensorflow"))
