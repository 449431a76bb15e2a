"""Golden pictures: a bundle's proof, replayed on the board, that it prepares and answers as the workstation did.

(a) the goldens' recipe is the manifest's; (b) the board prepares the stored pictures as the host did; (c) the stored inputs give
the host's outputs, within the tolerances stored with them.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_runner.errors import ModelError
from edge_runner.frame import Picture, Tensor
from edge_runner.model.interpreter import Interpreter
from edge_runner.model.preprocess import Preprocessor, Recipe

MEAN_LEVELS, MAX_LEVELS = 1.0, 4.0  # grey levels: resampling differs a little between processors

SameAnswer = Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[float]], "str | None"]
"""(host's outputs, board's outputs, a tolerance each) -> why the answers differ beyond it, or None."""


@dataclass(frozen=True)
class Golden:
    """One picture, uint8 [height, width, 3] BGR; its prepared input; the .tflite's and TensorFlow's outputs on the host."""

    picture: Picture
    prepared: Tensor
    outputs: list[Tensor]
    reference: list[Tensor]


@dataclass(frozen=True)
class Goldens:
    """All of golden.npz. `tolerances` has one a model output, in its real values."""

    recipe: dict[str, Any]
    tolerances: list[float]
    items: list[Golden]

    def dump(self) -> bytes:
        """The file's bytes, the same for equal content."""
        arrays: dict[str, Any] = {"recipe": np.array(json.dumps(self.recipe)), "tolerances": np.array(self.tolerances)}
        for number, item in enumerate(self.items):
            arrays[f"picture_{number}"] = item.picture
            arrays[f"input_{number}"] = item.prepared
            for index, (output, reference) in enumerate(zip(item.outputs, item.reference, strict=True)):
                arrays[f"tflite_{number}_{index}"] = output
                arrays[f"tensorflow_{number}_{index}"] = reference
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)
        return file.getvalue()


def recipe_dict(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON has it."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return plain


def read_goldens(path: Path) -> Goldens:
    """Read golden.npz; raise ModelError where it is damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            tolerances = [float(t) for t in file["tolerances"]]
            outputs = range(len(tolerances))
            count = sum(name.startswith("picture_") for name in file.files)
            items = [
                Golden(
                    file[f"picture_{n}"],
                    file[f"input_{n}"],
                    [file[f"tflite_{n}_{i}"] for i in outputs],
                    [file[f"tensorflow_{n}_{i}"] for i in outputs],
                )
                for n in range(count)
            ]
            return Goldens(json.loads(str(file["recipe"])), tolerances, items)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ModelError(f"{path} is damaged: {error}", key="model.path") from error


def recipe_differences(goldens: Goldens, recipe: Recipe) -> list[str]:
    """(a) What the manifest's recipe says otherwise than the recipe that the goldens were made with."""
    mine = recipe_dict(recipe)
    keys = sorted(mine.keys() | goldens.recipe.keys())
    return [
        f"the manifest's preprocess.{key} is {mine.get(key)}, the goldens were made with {goldens.recipe.get(key)}"
        for key in keys
        if mine.get(key) != goldens.recipe.get(key)
    ]


def replay(
    goldens: Goldens, preprocessor: Preprocessor, interpreter: Interpreter, same_answer: SameAnswer
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


def _prepares(item: Golden, preprocessor: Preprocessor) -> str | None:
    out = np.empty(preprocessor.shape, preprocessor.dtype)
    if item.prepared.shape != out.shape or item.prepared.dtype != out.dtype:
        return f"its stored input is {item.prepared.dtype} {list(item.prepared.shape)}, the model's {out.dtype} {list(out.shape)}"
    preprocessor(item.picture, out)
    levels = np.abs(preprocessor.grey_levels(out.astype(np.float64) - item.prepared.astype(np.float64)))
    mean, most = float(levels.mean()), float(levels.max())
    if mean <= MEAN_LEVELS and most <= MAX_LEVELS:
        return None
    return (
        f"this board prepares it otherwise than the host did: by {mean:.2f} grey levels in the mean and {most:.1f} at most"
        f" (allowed {MEAN_LEVELS:g} and {MAX_LEVELS:g})"
    )


def _answers(item: Golden, goldens: Goldens, interpreter: Interpreter, same_answer: SameAnswer) -> str | None:
    spec = interpreter.inputs[0]
    if item.prepared.shape != spec.shape or item.prepared.dtype != spec.dtype:
        return None  # another model's: _prepares says so
    outputs = interpreter.run(item.prepared)
    for spec, output, expected, tolerance in zip(
        interpreter.outputs, outputs, item.outputs, goldens.tolerances, strict=True
    ):
        if output.shape != expected.shape:
            return f"output '{spec.name}' has the shape {list(output.shape)}, the host's had {list(expected.shape)}"
        worst = float(np.max(np.abs(output.astype(np.float64) - expected.astype(np.float64)), initial=0.0))
        if not worst <= tolerance:
            return f"output '{spec.name}' is {worst:.6g} off the host's; allowed {tolerance:.6g}"
    return same_answer(item.outputs, outputs, goldens.tolerances)
