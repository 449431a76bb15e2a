"""Makes small bundles around the tiny models, as the builder makes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge_runner.frame import Picture, Tensor
from edge_runner.model.bundle import FORMAT, GOLDENS, LABELS, MANIFEST, MODEL, Manifest, Used, sha256_of
from edge_runner.model.flatbuffer import read_graph
from edge_runner.model.goldens import Golden, Goldens, recipe_dict
from edge_runner.model.interpreter import Interpreter, find_runtime
from edge_runner.model.preprocess import Preprocessor, Recipe

RECIPE = Recipe(color="rgb", mean=(0.0,), std=(255.0,))
LEVELS = {"red": (20, 30, 220), "green": (30, 220, 20), "blue": (220, 20, 30)}
TOLERANCE = 0.001


def pictures() -> list[Picture]:
    """A mostly red, a mostly green and a mostly blue picture, none of them the input's size, with some noise on them."""
    chance = np.random.default_rng(0)
    shapes = ((30, 40), (17, 23), (8, 8))
    return [
        np.clip(np.array(levels) + chance.integers(-20, 20, (*shape, 3)), 0, 255).astype(np.uint8)
        for levels, shape in zip(LEVELS.values(), shapes, strict=True)
    ]


def make_goldens(content: bytes, recipe: Recipe = RECIPE, tolerance: float = TOLERANCE) -> Goldens:
    """What this machine makes of the pictures."""
    interpreter = Interpreter(content, find_runtime())
    preprocessor = Preprocessor(recipe, interpreter.inputs[0])
    items = []
    for picture in pictures():
        prepared: Tensor = np.empty(preprocessor.shape, preprocessor.dtype)
        preprocessor(picture, prepared)
        outputs = interpreter.run(prepared)
        items.append(Golden(picture, [prepared], outputs, [output.copy() for output in outputs]))
    return Goldens(recipe_dict(recipe), [tolerance] * len(interpreter.outputs), items)


def make_bundle(
    folder: Path,
    model: Path,
    *,
    labels: str | None = "red\ngreen\nblue\n",
    recipe: Recipe = RECIPE,
    goldens: Callable[[Goldens], Goldens] = lambda made: made,
    **says: Any,
) -> Path:
    """Write a bundle of `model` into `folder`. `goldens` may change them; `says` is put over the manifest's fields."""
    content = model.read_bytes()
    interpreter = Interpreter(content, find_runtime())
    files = {MODEL: content, GOLDENS: goldens(make_goldens(content, recipe)).dump()}
    if labels is not None:
        files[LABELS] = labels.encode()
    fields: dict[str, Any] = {
        "format": FORMAT,
        "name": model.stem,
        "version": sha256_of(content)[:8],
        "created": "2026-11-22T13:28:00Z",
        "task": {"type": "classify"},
        "preprocess": recipe,
        "inputs": interpreter.inputs,
        "outputs": interpreter.outputs,
        "quantization": "none",
        "operators": tuple(Used(*counted) for counted in read_graph(content).counted()),
        "runtimes": (str(find_runtime()),),
        "files": {name: sha256_of(part) for name, part in files.items()},
        "source": {"model": model.name},
        "tools": {"edge-runner": "0.1.0"},
        "proof": {"verdict": "passed"},
    }
    folder.mkdir(parents=True)
    for name, part in files.items():
        (folder / name).write_bytes(part)
    (folder / MANIFEST).write_bytes(Manifest(**{**fields, **says}).dump())
    return folder
