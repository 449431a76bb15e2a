"""The only module that knows TensorFlow Lite: finds the runtime that is installed, loads a model, runs it.

A model's bytes are parsed here by native code, which a damaged file kills: give it only bytes whose hash is known, or that a
child process survived (probe.py).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Literal

import numpy as np

from edge_runner.errors import ModelError, RuntimeMissingError, SettingError
from edge_runner.frame import Tensor, TensorSpec

log = logging.getLogger(__name__)

RuntimeName = Literal["tflite-runtime", "ai-edge-litert"]
RUNTIMES: dict[RuntimeName, str] = {
    "tflite-runtime": "tflite_runtime.interpreter",
    "ai-edge-litert": "ai_edge_litert.interpreter",
}
AUTO_THREADS_MOST = 4  # more hurt on every board measured
NATIVE_ERRORS = (ValueError, RuntimeError, TypeError, MemoryError, SystemError)  # UnicodeDecodeError is a ValueError

# What the runtime says of a model that it cannot run, and what to do about it.
REFUSALS = (
    (
        r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'",
        "needs operator {0} version {1}, which {runtime} does not have: the converter was newer than the runtime;"
        " rebuild the model with scripts/build_model.sh, or install a newer runtime",
    ),
    (
        r"Select TensorFlow op",
        "needs TensorFlow's own operators (Select TF){flex}, which {runtime} does not have; rebuild the model from"
        " TFLite's built-in operators only (scripts/build_model.sh)",
    ),
    (
        r"[Uu]nresolved custom op: (\w+)",
        "needs the custom operator {0}, which {runtime} does not have; export the model without it",
    ),
)


@dataclass(frozen=True)
class Runtime:
    """An installed TensorFlow Lite runtime: its distribution's `name` and `version`."""

    name: str
    version: str
    make: Callable[..., Any]
    reference_kernels: Any = None

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def find_runtime(wanted: RuntimeName | Literal["auto"] = "auto") -> Runtime:
    """The runtime of that name, or the first that is installed; raise RuntimeMissingError with the command that mends it."""
    refused = None
    for name, module in RUNTIMES.items():
        if wanted in ("auto", name) and importlib.util.find_spec(module.partition(".")[0]):
            try:
                return _imported(name, module)
            except RuntimeMissingError as error:
                refused = refused or error
    if refused:
        raise refused
    remedy = "edge-runner[litert]" if wanted == "ai-edge-litert" or sys.version_info >= (3, 12) else "tflite-runtime"
    what = "no TensorFlow Lite runtime is" if wanted == "auto" else f"{wanted} is not"
    raise RuntimeMissingError(f"{what} installed; pip install '{remedy}'", key="model.runtime")


def _imported(name: str, module: str) -> Runtime:
    _refuse_numpy_2(name)
    try:
        found = importlib.import_module(module)
        return Runtime(name, _version(name), found.Interpreter, found.OpResolverType.BUILTIN_REF)
    except (ImportError, OSError) as error:
        raise RuntimeMissingError(
            f"{name} is installed, but cannot be imported: {error}", key="model.runtime"
        ) from error


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"  # copied into place, not installed


def _refuse_numpy_2(name: str) -> None:
    if name == "tflite-runtime" and int(np.__version__.split(".")[0]) >= 2:
        raise RuntimeMissingError(
            f"tflite-runtime cannot work with NumPy {np.__version__}; pip install 'numpy<2'", key="model.runtime"
        )


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_count(wanted: int | Literal["auto"]) -> int:
    """Threads for the interpreter: as wanted, or all cores but the one that the camera needs, at most four."""
    available = cores()
    if wanted == "auto":
        return max(1, min(AUTO_THREADS_MOST, available - 1))
    if wanted > available:
        raise SettingError(
            f"got {wanted}; this machine has {available} cores; allowed: auto, or 1 to {available}", key="model.threads"
        )
    return wanted


class Interpreter:
    """A loaded model. `inputs` and `outputs` describe its tensors; `run` takes the input and gives the outputs' real values."""

    def __init__(
        self,
        content: bytes,
        runtime: Runtime,
        threads: int = 1,
        flex: tuple[str, ...] = (),
        kernels: Literal["default", "reference"] = "default",
        shape: tuple[int, ...] | None = None,
    ) -> None:
        """Load a .tflite file's bytes. Raise ModelError with what to do where the runtime refuses them.

        `flex` names the file's Select TF operators, for the message. The reference kernels are slow, plain and portable. `shape`
        is the first input's, where the model leaves it open.
        """
        self._options = {"experimental_op_resolver_type": runtime.reference_kernels} if kernels == "reference" else {}
        self._flex, self._shape = flex, shape
        self.runtime = runtime
        self.threads = threads
        self.load(content)

    def load(self, content: bytes) -> None:
        """Load the file again, after `unload`. Raise ModelError as at first."""
        runtime, shape = self.runtime, self._shape
        try:
            with _native_noise():
                self._interpreter = runtime.make(model_content=content, num_threads=self.threads, **self._options)
                misfit = _resized(self._interpreter, shape) if shape else None
                self._interpreter.allocate_tensors()
                inputs = self._interpreter.get_input_details()
                outputs = self._interpreter.get_output_details()
                names = _signature_names(self._interpreter)
        except NATIVE_ERRORS as error:
            raise ModelError(_refusal(str(error), runtime, self._flex)) from error
        if misfit:
            raise ModelError(misfit)
        _refuse_open_sizes(inputs[1:] if shape else inputs)
        self.inputs = tuple(_spec(details, names) for details in inputs)
        self.outputs = tuple(_spec(details, names) for details in outputs)
        self._input_views = [self._interpreter.tensor(i["index"]) for i in inputs]
        self._output_views = [self._interpreter.tensor(o["index"]) for o in outputs]

    @property
    def loaded(self) -> bool:
        return self._interpreter is not None

    def unload(self) -> None:
        """Give its memory back. It cannot `run` until it is loaded again."""
        self._input_views, self._output_views, self._interpreter = [], [], None

    def run(self, *tensors: Tensor) -> list[Tensor]:
        """Copy the input tensors in, invoke, and return each output's real values: copied, float32 where it was quantised.

        Raise ValueError on another shape or dtype than the inputs have, and ModelError where the model fails.
        """
        for tensor, spec in zip(tensors, self.inputs, strict=True):
            if tensor.shape != spec.shape or tensor.dtype != spec.dtype:
                raise ValueError(
                    f"got {tensor.dtype} {list(tensor.shape)}; input '{spec.name}' is {spec.dtype} {list(spec.shape)}"
                )
        try:
            for view, tensor in zip(self._input_views, tensors, strict=True):
                np.copyto(view(), tensor)
            self._interpreter.invoke()
            return [spec.dequantize(view()) for spec, view in zip(self.outputs, self._output_views, strict=True)]
        except NATIVE_ERRORS as error:
            raise ModelError(f"failed while running: {_one_line(str(error))}") from error


def _resized(interpreter: Any, shape: tuple[int, ...]) -> str | None:
    """Give the first input its size, or say why it cannot have it."""
    details = interpreter.get_input_details()[0]
    signature = [int(n) for n in details["shape_signature"]]
    if len(signature) != len(shape) or any(old not in (-1, new) for old, new in zip(signature, shape, strict=True)):
        return f"cannot have the model.input_shape {list(shape)}: input '{details['name']}' is {signature}"
    interpreter.resize_tensor_input(details["index"], list(shape), strict=True)
    return None


def _refuse_open_sizes(inputs: list[dict[str, Any]]) -> None:
    """The runtime makes every open size 1, without a word; only a batch is meant to be that."""
    for details in inputs:
        signature = [int(n) for n in details["shape_signature"]]
        if -1 in signature[1:]:
            raise ModelError(
                f"leaves the size of input '{details['name']}' open, {signature}; say it with model.input_shape,"
                " or build it again with scripts/build_model.sh --input-shape"
            )


def _signature_names(interpreter: Any) -> dict[int, str]:
    """The names by which the model's first signature calls its tensors, by their numbers; none of a file without signatures."""
    names: dict[int, str] = {}
    for key in list(interpreter.get_signature_list())[:1]:
        runner = interpreter.get_signature_runner(key)
        for tensors in (runner.get_input_details(), runner.get_output_details()):
            names.update({details["index"]: name for name, details in tensors.items()})
    return names


def _spec(details: dict[str, Any], names: Mapping[int, str]) -> TensorSpec:
    scale, zero_point = details["quantization"]
    shape = tuple(int(n) for n in details["shape"])
    name = names.get(details["index"], str(details["name"]))
    return TensorSpec(name, shape, np.dtype(details["dtype"]).name, float(scale), int(zero_point))


def _refusal(text: str, runtime: Runtime, flex: tuple[str, ...]) -> str:
    for pattern, message in REFUSALS:
        match = re.search(pattern, text)
        if match:
            named = f": {', '.join(name.removeprefix('Flex') for name in flex)}" if flex else ""
            return message.format(*match.groups(), runtime=runtime, flex=named)
    return f"is refused by {runtime}: {_one_line(text)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def _memory_file() -> IO[bytes]:
    """A file without a folder: there may be none that can be written."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("noise"), "w+b")
    return tempfile.TemporaryFile()


@contextmanager
def _native_noise() -> Iterator[None]:
    """Keep what native code writes to descriptor 2 while a model loads, and log it for debugging only."""
    sys.stderr.flush()
    kept = os.dup(2)
    with _memory_file() as noise:
        os.dup2(noise.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            noise.seek(0)
            for line in noise.read().decode("utf-8", "replace").splitlines():
                log.debug("runtime: %s", line)
