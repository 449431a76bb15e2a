"""The gate: the target runtime, by name and version, that a model must load and run under.

It is this environment's own where that has it; else it is installed apart, once, for a Python that it has a wheel for.
The child process gets the model and its inputs as an .npz on standard input, and gives the outputs' real values back so.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import edge_runner
from edge_runner.errors import EdgeRunnerError, ModelError, RuntimeMissingError, SettingError
from edge_runner.frame import Tensor
from edge_runner.model.interpreter import RUNTIMES, Interpreter, RuntimeName, find_runtime

TARGET = re.compile(r"([a-z-]+)==(\d+(?:\.\d+)*)")
PYTHONS = (
    "python3.11",
    "python3.10",
    "python3.12",
    "python3.13",
)  # tried after this one; tflite-runtime ends with 3.11
NUMPY = {"tflite-runtime": "numpy<2", "ai-edge-litert": "numpy"}
TIMEOUT_S = 600.0
MODEL, ERROR = "model", "error"
# The target's own packages first, ours behind everything: of ours, only modules that need numpy alone are imported.
CHILD = (
    "import sys; first, last = sys.argv[1:3]; sys.path[:0] = [first] * bool(first); sys.path.append(last);"
    "from edge_runner.builder import gate; gate.main(sys.argv[3])"
)

Say = Callable[[str], None]


class CannotExistError(EdgeRunnerError):
    """The target runtime has no wheel for any Python on this machine."""


@dataclass(frozen=True)
class Gate:
    """A target runtime that is installed: `packages` is its folder, None where it is this environment's own."""

    runtime: RuntimeName
    version: str
    python: str = sys.executable
    packages: Path | None = None

    def __str__(self) -> str:
        return f"{self.runtime} {self.version}"

    def run(self, content: bytes, samples: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Load a model and run it on each sample's inputs: each output's real values. Raise ModelError where it cannot."""
        arrays = {f"{n}_{i}": tensor for n, tensors in enumerate(samples) for i, tensor in enumerate(tensors)}
        given = _packed({MODEL: np.frombuffer(content, np.uint8), **arrays})
        root = Path(edge_runner.__file__).parents[1]
        isolated = ["-I"] if self.packages else []
        command = [self.python, *isolated, "-c", CHILD, str(self.packages or ""), str(root), self.runtime]
        try:
            done = subprocess.run(command, input=given, capture_output=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise ModelError(f"did not load and run under {self} within {TIMEOUT_S:g} s") from None
        if done.returncode:
            words = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no word"]
            raise ModelError(f"kills {self} (exit code {done.returncode}): {words[-1]}")
        found = _unpacked(done.stdout)
        if ERROR in found:
            raise ModelError(str(found[ERROR]))
        counts = [sum(name.startswith(f"{n}_") for name in found) for n in range(len(samples))]
        return [[found[f"{n}_{i}"] for i in range(count)] for n, count in enumerate(counts)]


def main(runtime: RuntimeName) -> None:
    """The child."""
    given = _unpacked(sys.stdin.buffer.read())
    try:
        interpreter = Interpreter(given.pop(MODEL).tobytes(), find_runtime(runtime))
        if not given:
            given = {f"0_{i}": np.zeros(spec.shape, spec.dtype) for i, spec in enumerate(interpreter.inputs)}
        answers: dict[str, Tensor] = {}
        for n in range(len({name.split("_")[0] for name in given})):
            outputs = interpreter.run(*(given[f"{n}_{i}"] for i in range(len(interpreter.inputs))))
            answers.update({f"{n}_{i}": output for i, output in enumerate(outputs)})
    except EdgeRunnerError as error:
        answers = {ERROR: np.array(str(error))}
    sys.stdout.buffer.write(_packed(answers))


def parse_target(text: str) -> tuple[RuntimeName, str]:
    """`tflite-runtime==2.14.0` as name and version; raise SettingError for anything else."""
    match = TARGET.fullmatch(text)
    if not match or match[1] not in RUNTIMES:
        raise SettingError(f"--target got '{text}'; allowed: {', '.join(f'{name}==VERSION' for name in RUNTIMES)}")
    return match[1], match[2]


def open_gate(target: str, say: Say) -> Gate:
    """Find or install the target runtime.

    Raise CannotExistError where it has no wheel here, SettingError where there is no such version, and EdgeRunnerError
    where it cannot be installed for another reason.
    """
    name, version = parse_target(target)
    try:
        if find_runtime(name).version == version:
            return Gate(name, version)
    except RuntimeMissingError:
        pass
    folders = {python: _cache() / f"{name}-{version}-py{_version_of(python)}" for python in _pythons()}
    for python, folder in folders.items():
        if folder.is_dir():
            return Gate(name, version, python, folder)
    for python, folder in folders.items():
        with suppress(CannotExistError):
            say(f"installing {name} {version} for {python} into {folder}: once …")
            _install(name, version, python, folder)
            return Gate(name, version, python, folder)
    raise CannotExistError(f"{name} {version} has no wheel for a Python on this machine")


def _pythons() -> list[str]:
    found = [sys.executable, *filter(None, map(shutil.which, PYTHONS))]
    works = [python for python in found if _version_of(python)]
    return list({_version_of(python): python for python in reversed(works)}.values())[::-1]


def _version_of(python: str) -> str:
    command = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _install(name: RuntimeName, version: str, python: str, folder: Path) -> None:
    """Install the runtime and what it needs, beside the folder, which is then renamed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as work:
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check"]
        command = [*pip, "--only-binary=:all:", "--target", f"{work}/packages", f"{name}=={version}", NUMPY[name]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise _pip_error(done.stderr, name, version, _version_of(python))
        try:
            Path(work, "packages").replace(folder)
        except OSError:
            if not folder.is_dir():  # else another build was faster
                raise


def _pip_error(text: str, name: str, version: str, python: str) -> EdgeRunnerError:
    found = re.search(rf"{name}==[^)]*\(from versions: ([^)]*)\)", text)
    if found and found[1] != "none":
        return SettingError(f"there is no {name} {version} for Python {python}; there is {found[1]}")
    offline = re.search(r"connection|Retrying|resolve|timed out", text, re.IGNORECASE)
    if found and not offline:
        return CannotExistError(f"none for Python {python}")
    last = (text.strip().splitlines() or ["no word"])[-1]
    return EdgeRunnerError(f"{name} {version} could not be installed to try the model under it: {last}")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-runner" / "targets"


def _packed(arrays: dict[str, Tensor]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _unpacked(content: bytes) -> dict[str, Tensor]:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
