"""What to build, as the command line says it, and what can be known to be wrong with it before TensorFlow is started."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from edge_runner import config
from edge_runner.builder.gate import parse_target
from edge_runner.errors import ConfigError, ModelError, SettingError
from edge_runner.fields import load
from edge_runner.model.bundle import GOLDENS, LABELS, MANIFEST, MODEL, REPORT_HTML, REPORT_MD
from edge_runner.model.labels import read_labels
from edge_runner.model.preprocess import Recipe
from edge_runner.task import TASKS

Mode = Literal["none", "float16", "dynamic", "int8", "int16x8"]
IoType = Literal["float32", "int8", "uint8"]
MODES: tuple[Mode, ...] = get_args(Mode)
AUTO_MODES: tuple[Mode, ...] = ("int8", "dynamic", "float16", "none")  # in the order in which they are wanted
CALIBRATED: tuple[Mode, ...] = ("int8", "int16x8")
ROUNDED: tuple[Mode, ...] = ("dynamic", *CALIBRATED)  # computes in whole numbers, at least in part
KERAS_SUFFIXES = (".keras", ".h5")
BUNDLE = {MODEL, LABELS, MANIFEST, GOLDENS, REPORT_MD, REPORT_HTML}
VARIABLE_OPERATIONS = (b"VarHandleOp", b"VariableV2")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
DEFAULT_TARGET = "tflite-runtime==2.14.0"
DEFAULT_MAX_LOSS = 0.01
SET, SET_PREFIX = "--set", "task."
EVALUATED = {
    "detect": "; bench/evaluate.py finds the mAP of a bundle that is built",
    "segment": "; bench/evaluate.py finds the mIoU of a bundle that is built",
}


@dataclass(frozen=True)
class Order:
    """What to build. `name` None: the folder's; `recipe` None: a model that is not fed pictures; `io_type` None: the mode's own."""

    model: Path
    output: Path
    name: str | None
    task: str
    recipe: Recipe | None
    quantize: Mode | Literal["auto"] = "none"
    io_type: IoType | None = None
    version: str | None = None
    labels: Path | None = None
    calibration: Path | None = None
    evaluate: Path | None = None
    max_loss: float = DEFAULT_MAX_LOSS
    signature: str | None = None
    input_shape: tuple[int, ...] | None = None
    target: str = DEFAULT_TARGET
    force: bool = False
    verbose: bool = False
    sets: Sequence[str] = ()
    """Keys of the task, as `task.decoder=yolov8`."""
    command: str = ""
    """As it was typed, for the report."""

    @property
    def called(self) -> str:
        """The bundle's name."""
        return self.output.resolve().name if self.name is None else self.name

    @property
    def inner_name(self) -> str:
        """The name within model.tflite, the same wherever the bundle is put: as it was given, or the model's own."""
        return self.model.resolve().name if self.name is None else self.name

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration's `task`, as far as it was said. Values are JSON, or else text."""
        pairs = (text.removeprefix(SET_PREFIX).partition("=") for text in self.sets)
        return {"type": self.task, **{key: _value(text) for key, _, text in pairs}}

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes to convert in."""
        return AUTO_MODES if self.quantize == "auto" else (self.quantize,)


class Objections:
    """What speaks against a model, and does not keep it from being built with --force. `found` goes into the manifest."""

    def __init__(self, force: bool) -> None:
        self._force = force
        self.found: list[str] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Let an error pass, or with --force note it and go on."""
        try:
            yield
        except (ModelError, SettingError) as error:
            if not self._force:
                raise type(error)(f"{error} (--force builds it all the same, marked as failed)") from error
            self.found.append(str(error))


def check_order(order: Order) -> None:
    """Raise for what is wrong and can be known without TensorFlow."""
    _check_model(order.model)
    _check_output(order)
    for option, text in (("--name (DIR's unless said)", order.called), ("--model-version", order.version or "0")):
        if not NAME.fullmatch(text):
            raise SettingError(
                f"{option} got '{text}'; allowed: letters, digits, '.', '_' and '-': it becomes a file's name"
            )
    if not 0 <= order.max_loss <= 1:
        raise SettingError(
            f"--max-loss got {order.max_loss:g}; allowed: 0 to 1, the fraction of answers that may change"
        )
    if order.io_type and "int8" not in order.modes:
        raise SettingError(
            f"--io-type {order.io_type} goes with --quantize int8; {order.quantize} has float32 inputs and outputs"
        )
    if set(order.modes) & set(CALIBRATED) and not order.calibration:
        raise SettingError(
            f"{order.quantize} is calibrated with samples; name a folder of pictures like the camera's with --calibration"
            " (an .npz for a model that is not fed pictures)"
        )
    if order.calibration and not order.calibration.exists():
        raise SettingError(f"--calibration {order.calibration} is not there")
    if order.evaluate and (order.task != "classify" or order.recipe is None):
        instead = EVALUATED.get(order.task, "")
        raise SettingError(f"--evaluate compares top-1; the task is {order.task}, not classify{instead}")
    _check_settings(order)
    if order.labels:
        read_labels(order.labels)
    parse_target(order.target)


def _check_settings(order: Order) -> None:
    for text in order.sets:
        if not text.startswith(SET_PREFIX) or "=" not in text:
            raise SettingError(f"{SET} got '{text}'; it takes keys of the task, as {SET_PREFIX}score_threshold=0.4")
    try:
        config.check(order.settings, load(TASKS[order.task]).Config, SET)
    except ConfigError as error:
        problems = (problem.replace(f"{SET}: ", f"{SET} {SET_PREFIX}", 1) for problem in error.problems)
        raise SettingError("; ".join(problems)) from error


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _check_model(model: Path) -> None:
    if is_keras(model):
        if not model.is_file():
            raise ModelError(f"{model} is not there")
        return
    graph = model / "saved_model.pb"
    missing = [name for name in ("saved_model.pb", "variables") if not (model / name).exists()]
    if missing == ["variables"] and not any(name in graph.read_bytes() for name in VARIABLE_OPERATIONS):
        return  # a frozen graph has none
    if missing:
        files = ", ".join(f"{name}/" if name == "variables" else name for name in missing)
        raise ModelError(
            f"{model} is no SavedModel: {files} missing; wanted is the folder that model.export(…) makes,"
            f" or a file that ends in {' or '.join(KERAS_SUFFIXES)}"
        )


def _check_output(order: Order) -> None:
    """What --output names is replaced: it must be a bundle, and hold nothing else."""
    output = order.output
    if output.resolve() == Path.cwd():
        raise SettingError(f"--output {output} is the folder that you are in; name one within or beside it")
    if output.exists() and not output.is_dir():
        raise SettingError(f"{output} is a file; --output names a folder")
    for option, path in (
        ("MODEL", order.model),
        ("--labels", order.labels),
        ("--calibration", order.calibration),
        ("--evaluate", order.evaluate),
    ):
        if path and path.resolve().is_relative_to(output.resolve()):
            raise SettingError(f"{option} {path} is in {output}, which is replaced; name another --output")
    present = {path.name for path in output.iterdir()} if output.is_dir() else set()
    foreign = sorted(present - BUNDLE)
    if foreign or (present and not _is_manifest(output / MANIFEST)):
        what = f"holds {foreign[0]}, which is no part of a bundle" if foreign else "is no bundle"
        raise SettingError(f"{output} is there, and {what}; it would be lost: name another --output")


def _is_manifest(path: Path) -> bool:
    """Whether it is one of ours, however old or damaged: other programs have a file of that name too."""
    return path.is_file() and b'"edge-runner"' in path.read_bytes()


def is_keras(model: Path) -> bool:
    """Whether a model is one of Keras's files; a folder may be called as it likes."""
    return model.suffix in KERAS_SUFFIXES and not model.is_dir()
