"""What every step of a build works with: the SavedModel in its child process, the target runtime, labels and samples."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_runner import __version__, config
from edge_runner.builder.evaluate import Labelled, folder_labels, read_labelled
from edge_runner.builder.found import Found
from edge_runner.builder.gate import CannotExistError, Gate, open_gate
from edge_runner.builder.metadata import Card
from edge_runner.builder.order import CALIBRATED, ROUNDED, Mode, Objections, Order
from edge_runner.builder.progress import Progress
from edge_runner.builder.proof import Expected
from edge_runner.builder.recipes import check_scaling
from edge_runner.builder.samples import (
    Pictures,
    Samples,
    check_colours,
    find_pictures,
    made_up_arrays,
    made_up_pictures,
    read_arrays,
)
from edge_runner.builder.worker import Report, Worker, WorkerDiedError
from edge_runner.errors import ModelError, OutputError, SettingError
from edge_runner.fields import load
from edge_runner.frame import TensorSpec
from edge_runner.model.bundle import sha256_of
from edge_runner.model.flatbuffer import Graph, read_graph
from edge_runner.model.interpreter import Interpreter, Runtime, find_runtime, thread_count
from edge_runner.model.labels import read_labels
from edge_runner.model.preprocess import Preprocessor
from edge_runner.model.probe import probe
from edge_runner.task import TASKS
from edge_runner.task.base import ModelFacts, Task

CALIBRATION_LEAST, CALIBRATION_MOST = 20, 500
ACTIVATION = "activation"
ACTIVATION_KEY = f"task.{ACTIVATION}"
ALL_SCORES = ("classify", "segment")  # tasks whose one output holds scores, and nothing else
FREE_LEAST_BYTES = 1_000_000
ROUNDING = ("QUANTIZE", "FAKE_QUANT", "ROUND")  # operators by which a float32 model does so too


@dataclass(frozen=True)
class Built:
    """The model in one mode: its .tflite, loaded, and the task that reads its outputs."""

    mode: Mode
    content: bytes
    graph: Graph
    interpreter: Interpreter
    task: Task

    @property
    def rounds(self) -> bool:
        """Whether the model computes in whole numbers, at least in part: then kernels differ by steps, not by millionths."""
        return self.mode in ROUNDED or any(operator.name in ROUNDING for operator in self.graph.operators)


class Reference:
    """The SavedModel's answers to some samples, on disk, an .npy an output."""

    def __init__(self, folder: Path, outputs: Sequence[TensorSpec]) -> None:
        self._values = {
            spec.name: np.load(folder / f"{index}.npy", mmap_mode="r") for index, spec in enumerate(outputs)
        }

    def ordered(self, specs: Sequence[TensorSpec]) -> Expected:
        """The answers with the outputs in this order; raise ModelError where one is not the SavedModel's."""
        missing = [spec.name for spec in specs if spec.name not in self._values]
        if missing:
            raise ModelError(f"the converted model has the outputs {missing}, the SavedModel {list(self._values)}")
        return lambda number: [np.array(self._values[spec.name][number]) for spec in specs]


class Workbench:
    """Opens the model and the gate; converts, loads, and asks the SavedModel."""

    def __init__(self, order: Order, progress: Progress, objections: Objections, worker: Worker, scratch: Path) -> None:
        """Open everything, and say what was found; raise what can be known to be wrong before the first conversion."""
        self.order = order
        self.progress = progress
        self.objections = objections
        self.task: dict[str, Any] = order.settings
        """The configuration's `task`, for the manifest."""
        self._noted = False
        self._worker = worker
        self._scratch = scratch
        self.gate, self.without_gate = self._open_gate()
        self.runtime: Runtime = find_runtime(self.gate.runtime if self.gate and not self.gate.packages else "auto")
        with progress.step("opening the model"):
            self.found: Found = self._call("open")
        for line in self.found.lines():
            progress.say(line)
        with objections.noted():
            if order.recipe:
                check_scaling(order.recipe, self.found.scaling)
        self.labels = self._labels()
        self.calibration = self._calibration()
        self.labelled = self._labelled()

    @property
    def runtimes(self) -> tuple[str, ...]:
        """What models are loaded under, the target first."""
        return tuple(dict.fromkeys([*([str(self.gate)] if self.gate else []), str(self.runtime)]))

    def answers(self, samples: Samples, name: str) -> Reference:
        """Let the SavedModel answer to samples."""
        folder = self._scratch / name
        folder.mkdir()
        with self.progress.bar("the SavedModel's answers", len(samples)) as done:
            self._call("answer", samples, folder, report=done)
        return Reference(folder, self.found.pinned.outputs)

    def built(self, mode: Mode) -> Built:
        """Convert and load; raise ModelError where the converter, the target or the task refuses."""
        content = self._converted(mode)
        graph = read_graph(content)
        try:
            if self.gate:
                self.gate.run(content, [])
            else:
                probe(content, self.runtime)
            interpreter = Interpreter(content, self.runtime, thread_count("auto"))
        except ModelError as error:
            raise ModelError(f"{self.order.model} as {mode} {error}") from error
        return Built(mode, content, graph, interpreter, self._task(interpreter, graph))

    def _labels(self) -> tuple[str, ...] | None:
        """The labels, from --labels or else the sub-folders of --evaluate where there are as many as classes."""
        if self.order.labels:
            return read_labels(self.order.labels)
        names = folder_labels(self.order.evaluate) if self.order.evaluate and self.order.evaluate.is_dir() else ()
        return names if names and len(names) == self._classes() else None

    def _classes(self) -> int:
        """How many classes a classifier of this signature would have; 0 where it can be none. One unit tells two apart."""
        outputs = self.found.pinned.outputs
        last = outputs[0].shape[-1] if len(outputs) == 1 and outputs[0].shape else 0
        return 2 if last == 1 else max(0, last)

    def _calibration(self) -> Samples:
        """The samples of --calibration, or made-up ones; raise SettingError where they will not do."""
        path, recipe, inputs = self.order.calibration, self.order.recipe, self.found.pinned.inputs
        samples: Samples
        if path is None:
            samples = made_up_pictures(recipe) if recipe else made_up_arrays(inputs)
        elif path.is_file() == bool(recipe):
            said, wanted = ("is", "a folder of pictures") if recipe else ("is not", "an .npz of arrays")
            raise SettingError(
                f"--calibration {path}: by --normalize the model {said} fed pictures; wanted is {wanted}"
            )
        else:
            samples = Pictures(find_pictures(path), recipe) if recipe else read_arrays(path)
        samples.feeder(inputs)  # raises where they do not fit
        with self.objections.noted():
            self._check_enough(samples)
        with self.objections.noted():
            if path and isinstance(samples, Pictures):
                check_colours(samples)
        return samples.some(CALIBRATION_MOST)

    def _labelled(self) -> Labelled | None:
        """The pictures of --evaluate."""
        if not (self.order.evaluate and self.order.recipe):
            return None
        if not self._classes():
            outputs = ", ".join(f"'{spec.name}' {list(spec.shape)}" for spec in self.found.pinned.outputs)
            raise SettingError(
                f"--evaluate compares best classes; wanted is one output of [1, classes], there is {outputs}"
            )
        labels = self.labels or tuple(map(str, range(self._classes())))
        return read_labelled(self.order.evaluate, labels, self.order.recipe)

    def _converted(self, mode: Mode) -> bytes:
        target = self._scratch / f"{mode}.tflite"
        samples = self.calibration if mode in CALIBRATED else None
        io_type = (self.order.io_type or "int8") if mode == "int8" else "float32"
        with self.progress.bar(f"converting as {mode}", len(samples) if samples else 0) as done:
            self._call("convert", mode, io_type, samples, self._card(), target, report=done)
        return target.read_bytes()

    def _call(self, method: str, *arguments: Any, report: Report = lambda done: None) -> Any:
        try:
            return self._worker.call(method, *arguments, report=report)
        except WorkerDiedError as error:
            self._check_space(error)
            raise ModelError(
                f"TensorFlow broke down over {self.order.model} ({error}); if it is a Keras model that was saved with"
                " tf.saved_model.save(…), save it with model.export(…) instead (--verbose shows all of it)"
            ) from error
        except OSError as error:
            self._check_space(error)
            raise

    def _check_space(self, error: Exception) -> None:
        """The folder for temporary files is another than the bundle's: say so where it is the one that is full."""
        folder = self._scratch.parent
        if shutil.disk_usage(folder).free < FREE_LEAST_BYTES:
            raise OutputError(f"{folder}: no space left on device; TMPDIR may name another folder") from error

    def _card(self) -> Card:
        order, name = self.order, self.order.inner_name
        return Card(
            name, f"{name}, built by edge-runner {__version__}", order.version, order.recipe, self.labels, order.task
        )

    def _task(self, interpreter: Interpreter, graph: Graph) -> Task:
        """The task that reads the outputs."""
        cls = load(TASKS[self.order.task])
        source = str(self.order.labels or f"the sub-folders of {self.order.evaluate}")
        bound = Preprocessor(self.order.recipe, interpreter.inputs[0]) if self.order.recipe else None
        size = (bound.width, bound.height) if bound else None
        facts = ModelFacts(interpreter.outputs, graph.endings(), self.labels, source, size)
        try:
            task: Task = cls(self._config(cls), facts)
        except SettingError as error:
            if error.key != ACTIVATION_KEY or ACTIVATION in self.task or self.order.task not in ALL_SCORES:
                raise
            self.task[ACTIVATION] = self._activation(interpreter, graph)
            task = cls(self._config(cls), facts)
        self._note(task)
        return task

    def _note(self, task: Task) -> None:
        """What was decided for the first mode holds for the others."""
        if task.reading and not self._noted:
            decided = ", ".join(f"task.{key}: {value}" for key, value in task.decided.items())
            self.progress.say(f"the outputs are read as {task.reading}{f' ({decided})' if decided else ''}")
        self._noted = True
        self.task.update(task.decided)

    def _config(self, cls: type[Task]) -> Any:
        return config.check(self.task, cls.Config, "the task")

    def _activation(self, interpreter: Interpreter, graph: Graph) -> str:
        """What turns the outputs into scores, by what they are, where the last operator does not say it. It is said, and kept."""
        feed = self.calibration.feeder(interpreter.inputs)
        tried = range(min(len(self.calibration), CALIBRATION_LEAST))
        values = np.concatenate([output.ravel() for number in tried for output in interpreter.run(*feed(number))])
        low, high = float(values.min()), float(values.max())
        alone = self.order.task == "segment" or interpreter.outputs[0].shape[-1:] == (1,)
        logits = "sigmoid" if alone else "softmax"
        activation = "none" if low >= 0 and high <= 1 else logits
        self.progress.say(
            f"the last operator, {graph.ending(0).operator}, does not say whether the outputs are scores; they go from {low:.4g} to"
            f" {high:.4g}: taken as {'scores' if activation == 'none' else 'logits'} (task.activation: {activation})"
        )
        return activation

    def _check_enough(self, samples: Samples) -> None:
        if len(samples) < CALIBRATION_LEAST and set(self.order.modes) & set(CALIBRATED):
            what = "pictures" if isinstance(samples, Pictures) else "samples"
            raise SettingError(
                f"{self.order.calibration} holds {len(samples)} {what}; calibration wants {CALIBRATION_LEAST},"
                " better 100, like what the camera will see"
            )

    def _open_gate(self) -> tuple[Gate | None, str]:
        try:
            return open_gate(self.order.target, self.progress.say), ""
        except CannotExistError as error:
            return None, str(error)


def hash_of(model: Path) -> str:
    """One SHA-256 of a file, or of a folder's files and their names."""
    if model.is_file():
        return sha256_of(model.read_bytes())
    total = hashlib.sha256()
    for path in sorted(p for p in model.rglob("*") if p.is_file()):
        total.update(f"{path.relative_to(model)} {sha256_of(path.read_bytes())}\n".encode())
    return total.hexdigest()
