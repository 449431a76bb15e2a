"""One build: SavedModel -> .tflite -> proof -> bundle, written beside its place and renamed into it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edge_runner import __version__
from edge_runner.builder import convert
from edge_runner.builder.pictures import golden_pictures, made_up_pictures, noisy, read_pictures
from edge_runner.errors import ModelError, OutputError, SettingError
from edge_runner.fields import load
from edge_runner.frame import Picture, Tensor
from edge_runner.model.bundle import (
    FORMAT,
    GOLDENS,
    LABELS,
    MANIFEST,
    MODEL,
    VERSION_DIGITS,
    Manifest,
    Used,
    sha256_of,
)
from edge_runner.model.flatbuffer import Graph, read_graph
from edge_runner.model.goldens import Golden, Goldens, recipe_dict
from edge_runner.model.interpreter import Interpreter, find_runtime
from edge_runner.model.labels import read_labels
from edge_runner.model.preprocess import Preprocessor, Recipe
from edge_runner.task import TASKS
from edge_runner.task.base import ModelFacts, Task

PICTURES_LEAST = 20  # for calibration
LOSS_MOST = 0.01  # the fraction of answers that a conversion may change
TOLERANCE_STEPS, TOLERANCE_OF_RANGE, TOLERANCE_DRIFTS = 3, 0.001, 4


@dataclass(frozen=True)
class Order:
    """What to build."""

    model: Path
    output: Path
    name: str
    task: str
    recipe: Recipe
    quantize: Literal["none", "int8"] = "none"
    io_type: Literal["float32", "int8", "uint8"] = "int8"
    version: str | None = None
    labels: Path | None = None
    calibration: Path | None = None
    signature: str | None = None
    force: bool = False
    verbose: bool = False


def build(order: Order) -> Manifest:
    """Build a bundle in `order.output`; raise ModelError or SettingError, with nothing left behind, where it cannot be."""
    check_order(order)
    pictures = read_pictures(order.calibration) if order.calibration else made_up_pictures()
    if order.quantize != "none" and len(pictures) < PICTURES_LEAST and not order.force:
        raise SettingError(
            f"{order.calibration} holds {len(pictures)} pictures; calibration wants {PICTURES_LEAST} (or --force)"
        )
    order.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{order.output.name}.", dir=order.output.parent) as work:
        folder = Path(work)
        facts = _convert(order, pictures, folder)
        manifest = _assemble(order, pictures, folder, facts)
        if manifest.proof["verdict"] != "passed" and not order.force:
            raise ModelError(
                f"the converted model changes {manifest.proof['answers_changed']:.1%} of the answers to"
                f" {manifest.proof['pictures']} pictures; allowed {LOSS_MOST:.1%} (--force keeps it, marked as failed)"
            )
        for name in (convert.ANSWERS, convert.FACTS):
            (folder / name).unlink()
        _replace(folder, order.output)
    return manifest


def check_order(order: Order) -> None:
    """Raise for what is wrong and can be known without TensorFlow."""
    missing = [name for name in ("saved_model.pb", "variables") if not (order.model / name).exists()]
    if missing:
        raise ModelError(
            f"{order.model} is no SavedModel: {' and '.join(missing)} missing; export one with model.export(…)"
        )
    if order.quantize != "none" and not order.calibration:
        raise SettingError("int8 is calibrated with pictures; name a folder of them with --calibration")
    if order.output.exists() and not order.output.is_dir():
        raise SettingError(f"{order.output} is a file; --output names a folder")
    if order.labels:
        read_labels(order.labels)
    if order.output.exists() and any(order.output.iterdir()) and not (order.output / MANIFEST).is_file():
        raise SettingError(f"{order.output} is there, and is no bundle; name another --output")


def _convert(order: Order, pictures: Sequence[Picture], folder: Path) -> dict[str, Any]:
    """Let a child process convert; return what it found."""
    pictures_file = folder / "pictures.npz"
    np.savez(pictures_file, *pictures)
    job = convert.Job(
        model=str(order.model),
        folder=str(folder),
        recipe=recipe_dict(order.recipe),
        pictures=str(pictures_file),
        quantize=order.quantize,
        io_type=order.io_type,
        signature=order.signature,
    )
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-m", "edge_runner.builder.convert"]
    child = subprocess.run(
        command,
        input=json.dumps(asdict(job)),
        env=environment,
        text=True,
        capture_output=not order.verbose,
        check=False,
    )
    refused = folder / convert.REFUSED
    if refused.exists():
        raise ModelError(refused.read_text("utf-8"))
    if child.returncode:
        last = (child.stderr or "").strip().splitlines() or ["no word"]
        raise ModelError(f"the conversion ended with code {child.returncode}: {last[-1]} (--verbose shows all of it)")
    pictures_file.unlink()
    facts: dict[str, Any] = json.loads((folder / convert.FACTS).read_text("utf-8"))
    return facts


def _assemble(order: Order, pictures: Sequence[Picture], folder: Path, facts: dict[str, Any]) -> Manifest:
    """Load the result as the board does, prove it, and write the bundle's files."""
    content = (folder / MODEL).read_bytes()
    graph, runtime = read_graph(content), find_runtime()
    interpreter = Interpreter(content, runtime)
    preprocessor = Preprocessor(order.recipe, interpreter.inputs[0])
    labels = read_labels(order.labels) if order.labels else None
    task = _task(order, interpreter, graph, labels)
    if labels:
        (folder / LABELS).write_text("".join(f"{label}\n" for label in labels), "utf-8")
    with np.load(folder / convert.ANSWERS) as file:
        reference = [file[name] for name in file.files]
    proof = _proof(pictures, reference[: len(pictures)], preprocessor, interpreter, task)
    slow = Interpreter(content, runtime, kernels="reference")
    goldens = _goldens(pictures, reference[len(pictures) :], preprocessor, interpreter, slow)
    (folder / GOLDENS).write_bytes(goldens.dump())
    manifest = Manifest(
        format=FORMAT,
        name=order.name,
        version=order.version or sha256_of(content)[:VERSION_DIGITS],
        created=datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        task={"type": order.task},
        preprocess=order.recipe,
        inputs=interpreter.inputs,
        outputs=interpreter.outputs,
        quantization=order.quantize,
        operators=tuple(Used(*counted) for counted in graph.counted()),
        runtimes=(str(runtime),),
        files={
            name: sha256_of((folder / name).read_bytes())
            for name in (MODEL, LABELS, GOLDENS)
            if (folder / name).exists()
        },
        source={"model": order.model.name, "sha256": _hash_of_tree(order.model)},
        tools=_tools(facts),
        proof=proof,
    )
    (folder / MANIFEST).write_bytes(manifest.dump())
    return manifest


def _task(order: Order, interpreter: Interpreter, graph: Graph, labels: tuple[str, ...] | None) -> Task:
    cls = load(TASKS[order.task])
    task: Task = cls(cls.Config(), ModelFacts(interpreter.outputs, graph.endings(), labels, str(order.labels)))
    return task


def _proof(
    pictures: Sequence[Picture],
    reference: Sequence[Tensor],
    preprocessor: Preprocessor,
    interpreter: Interpreter,
    task: Task,
) -> dict[str, Any]:
    """The .tflite's answers, through the board's recipe, against the SavedModel's own."""
    outputs = [_run(preprocessor, interpreter, picture)[1] for picture in pictures]
    changed = sum(bool(task.same_answer([r], o, [0.0])) for r, o in zip(reference, outputs, strict=True)) / len(
        pictures
    )
    ours, theirs = np.stack([o[0].ravel() for o in outputs]), np.stack([r.ravel() for r in reference])
    cosine = float(np.sum(ours * theirs) / (np.linalg.norm(ours) * np.linalg.norm(theirs)))
    return {
        "verdict": "passed" if changed <= LOSS_MOST else "failed",
        "pictures": len(pictures),
        "answers_changed": changed,
        "max_abs_error": float(f"{np.max(np.abs(ours - theirs)):.6g}"),
        "cosine": float(f"{cosine:.6g}"),
        "recipe": "not verified",
    }


def _goldens(
    pictures: Sequence[Picture],
    reference: Sequence[Tensor],
    preprocessor: Preprocessor,
    interpreter: Interpreter,
    slow: Interpreter,
) -> Goldens:
    """A few pictures with all that the board needs to see that it answers alike."""
    chosen = golden_pictures(pictures, preprocessor.width, preprocessor.height)
    items = [
        Golden(picture, *_run(preprocessor, interpreter, picture), [answer])
        for picture, answer in zip(chosen, reference, strict=True)
    ]
    tolerances = []
    for index, spec in enumerate(interpreter.outputs):
        drift = 0.0
        for number, item in enumerate(items):
            others = (slow.run(item.prepared), _run(preprocessor, interpreter, noisy(item.picture, number))[1])
            drift = max(drift, *(float(np.max(np.abs(other[index] - item.outputs[index]))) for other in others))
        values = np.concatenate([item.outputs[index].ravel() for item in items])
        span = float(values.max() - values.min())
        tolerances.append(max(TOLERANCE_STEPS * spec.scale, TOLERANCE_OF_RANGE * span, TOLERANCE_DRIFTS * drift))
    return Goldens(recipe_dict(preprocessor.recipe), tolerances, items)


def _run(preprocessor: Preprocessor, interpreter: Interpreter, picture: Picture) -> tuple[Tensor, list[Tensor]]:
    prepared = np.empty(preprocessor.shape, preprocessor.dtype)
    preprocessor(picture, prepared)
    return prepared, interpreter.run(prepared)


def _tools(facts: dict[str, Any]) -> dict[str, str]:
    import cv2

    return {
        "edge-runner": __version__,
        "tensorflow": facts["tensorflow"],
        "keras": facts["keras"],
        "numpy": importlib.metadata.version("numpy"),
        "opencv": cv2.__version__,
        "python": platform.python_version(),
    }


def _hash_of_tree(folder: Path) -> str:
    """One SHA-256 of a folder's files and their names."""
    lines = [
        f"{path.relative_to(folder)} {sha256_of(path.read_bytes())}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return sha256_of("".join(lines).encode())


def _replace(folder: Path, target: Path) -> None:
    """Put a finished folder in its place in one step, so that an interrupted build leaves the old one whole."""
    ready = folder.with_name(f"{folder.name}.ready")
    old = folder.with_name(f"{folder.name}.old")
    try:
        folder.rename(ready)
        folder.mkdir()  # what the temporary directory's clean-up expects
        ready.chmod(0o755)
        if target.exists():
            target.rename(old)
        ready.rename(target)
    except OSError as error:
        raise OutputError(f"{target}: {(error.strerror or str(error)).lower()}") from error
    finally:
        for left in (ready, old):
            shutil.rmtree(left, ignore_errors=True)
