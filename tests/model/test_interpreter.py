"""The runtime's corner: which one is taken, what it says when it refuses, and what `run` promises."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runner.errors import EXIT_CONFIG, ModelError, RuntimeMissingError, SettingError
from edge_runner.frame import TensorSpec
from edge_runner.model import interpreter as module
from edge_runner.model.bundle import ModelConfig, open_model
from edge_runner.model.interpreter import Interpreter, Runtime, find_runtime, thread_count

pytestmark = pytest.mark.arm


@pytest.fixture
def load(data: Path) -> Callable[[str], Interpreter]:
    """Load one of the tiny models."""
    return lambda name: Interpreter((data / f"{name}.tflite").read_bytes(), find_runtime())


def colour(*levels: float) -> np.ndarray:
    """An input of one colour, red first."""
    return np.broadcast_to(np.array(levels, np.float32), (1, 8, 8, 3)).copy()


# --- which runtime ----------------------------------------------------------------------------------------------------


def test_find_runtime() -> None:
    """The runtime that is installed is found, by its name too, and says its version."""
    found = find_runtime()
    assert str(found) == f"{found.name} {found.version}"
    assert found.version[0].isdecimal()
    assert find_runtime(found.name) == found


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("auto", "no TensorFlow Lite runtime is installed; pip install "),
        ("tflite-runtime", "tflite-runtime is not installed; pip install "),
        ("ai-edge-litert", "ai-edge-litert is not installed; pip install 'edge-runner[litert]'"),
    ],
)
def test_no_runtime(monkeypatch: pytest.MonkeyPatch, wanted: Any, says: str) -> None:
    """Without a runtime, the command that installs one is said."""
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeMissingError) as caught:
        find_runtime(wanted)
    assert str(caught.value).startswith(says)
    assert (caught.value.key, caught.value.exit_code) == ("model.runtime", EXIT_CONFIG)


def test_numpy_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """tflite-runtime with NumPy 2 would die in its own code: it is refused before it is imported."""
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: name == "tflite_runtime" or None)
    monkeypatch.setattr(np, "__version__", "2.1.0")
    monkeypatch.setattr(module.importlib, "import_module", lambda name: pytest.fail("imported"))
    for wanted in ("auto", "tflite-runtime"):
        with pytest.raises(RuntimeMissingError) as caught:
            find_runtime(wanted)
        assert str(caught.value) == "tflite-runtime cannot work with NumPy 2.1.0; pip install 'numpy<2'"


def test_second_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first of two runtimes cannot be used, the second is; asked for by name, the first is refused."""
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: True)
    second = Runtime("ai-edge-litert", "2.0", lambda: None)

    def imported(name: str, _: str) -> Runtime:
        if name == "tflite-runtime":
            raise RuntimeMissingError("broken")
        return second

    monkeypatch.setattr(module, "_imported", imported)
    assert find_runtime() is second
    with pytest.raises(RuntimeMissingError, match="broken"):
        find_runtime("tflite-runtime")


def test_broken_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that is there and cannot be imported says why."""
    (tmp_path / "lame_runtime.py").write_text("raise ImportError('libgomp.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(module, "RUNTIMES", {"ai-edge-litert": "lame_runtime"})
    with pytest.raises(RuntimeMissingError, match=r"is installed, but cannot be imported: libgomp\.so\.1: cannot open"):
        find_runtime()


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (3, 2), (4, 3), (8, 4), (64, 4)])
def test_auto_threads(monkeypatch: pytest.MonkeyPatch, cores: int, threads: int) -> None:
    """By itself it takes all cores but one, and never more than four."""
    monkeypatch.setattr(module, "cores", lambda: cores)
    assert thread_count("auto") == threads


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """More threads than cores would stall the machine: they are refused with the number allowed."""
    monkeypatch.setattr(module, "cores", lambda: 4)
    assert [thread_count(n) for n in (1, 2, 3, 4)] == [1, 2, 3, 4]
    with pytest.raises(SettingError, match="got 5; this machine has 4 cores; allowed: auto, or 1 to 4") as caught:
        thread_count(5)
    assert caught.value.key == "model.threads"


def test_cores() -> None:
    """A process that is bound to some cores counts only those."""
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from edge_runner.model.interpreter import cores; print(cores())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr


# --- loading and running ----------------------------------------------------------------------------------------------


def test_describes(load: Callable[[str], Interpreter]) -> None:
    """Inputs and outputs are described: name, shape, dtype, quantisation."""
    plain, quantized = load("colour"), load("uint8")
    assert plain.inputs == (TensorSpec(plain.inputs[0].name, (1, 8, 8, 3), "float32"),)
    assert [(o.shape, o.dtype, o.quantized) for o in plain.outputs] == [((1, 3), "float32", False)]
    (spec,) = quantized.inputs
    assert (spec.dtype, spec.zero_point) == ("uint8", 0)
    assert spec.scale == pytest.approx(1 / 255, rel=0.01)
    assert [len(load(name).inputs) for name in ("three_inputs", "two_outputs")] == [3, 1]
    assert len(load("two_outputs").outputs) == 2


def test_answers(load: Callable[[str], Interpreter]) -> None:
    """A red input is red."""
    (scores,) = load("colour").run(colour(1, 0, 0))
    assert scores.argmax() == 0
    assert scores.sum() == pytest.approx(1)


@pytest.mark.parametrize("name", ["colour", "quantized"])
def test_unloaded_and_loaded_again(data: Path, name: str) -> None:
    """What was unloaded cannot run and still describes itself; loaded again it answers as before."""
    content = (data / f"{name}.tflite").read_bytes()
    subject = Interpreter(content, find_runtime())
    picture = np.broadcast_to(np.array((1, 0, 0)), (1, 8, 8, 3)).astype(subject.inputs[0].dtype)
    before, described = subject.run(picture), (subject.inputs, subject.outputs)
    subject.unload()
    subject.unload()
    assert not subject.loaded
    assert (subject.inputs, subject.outputs) == described
    with pytest.raises(ValueError, match="zip"):
        subject.run(picture)
    subject.load(content)
    assert subject.loaded
    assert np.array_equal(subject.run(picture), before)
    subject.unload()
    with pytest.raises(ModelError):
        subject.load(b"no model")
    assert not subject.loaded


@pytest.mark.parametrize(("name", "near"), [("uint8", 0.03), ("quantized", 0.03), ("int16", 0.01)])
def test_real_values(load: Callable[[str], Interpreter], name: str, near: float) -> None:
    """A quantised model's outputs are real values, float32, near those of the model that it was made from."""
    picture = colour(0.6, 0.5, 0.4)
    (expected,) = load("colour").run(picture)
    quantized = load(name)
    (spec,) = quantized.inputs
    (got,) = quantized.run(np.rint(picture / spec.scale + spec.zero_point).astype(spec.dtype))
    assert (got.dtype, got.shape) == (np.float32, (1, 3))
    assert got == pytest.approx(expected, abs=near)
    (raw,) = quantized._output_views
    assert got == pytest.approx((raw().astype(float) - quantized.outputs[0].zero_point) * quantized.outputs[0].scale)


def test_outputs_are_copies(load: Callable[[str], Interpreter]) -> None:
    """Outputs may be kept and written to: the next run changes none, and is not hindered by them."""
    for name in ("colour", "quantized"):
        interpreter = load(name)
        (spec,) = interpreter.inputs
        first = interpreter.run(np.zeros(spec.shape, spec.dtype))
        before = first[0].copy()
        interpreter.run(np.full(spec.shape, 1, spec.dtype) * colour(1, 0, 0).astype(spec.dtype))
        assert np.array_equal(first[0], before)
        first[0][:] = 7
        assert np.array_equal(interpreter.run(np.zeros(spec.shape, spec.dtype))[0], before)


def test_input_is_kept(load: Callable[[str], Interpreter]) -> None:
    """The input is copied in: a read-only one will do, and it stays as it was."""
    picture = colour(0.2, 0.4, 0.6)
    picture.flags.writeable = False
    load("colour").run(picture)
    assert np.array_equal(picture, colour(0.2, 0.4, 0.6))


@pytest.mark.parametrize(
    ("tensor", "got"),
    [
        (np.zeros((1, 8, 8, 1), np.float32), "float32 [1, 8, 8, 1]"),
        (np.zeros((8, 8, 3), np.float32), "float32 [8, 8, 3]"),
        (np.zeros((1, 8, 8, 3), np.float64), "float64 [1, 8, 8, 3]"),
        (np.zeros((1, 8, 8, 3), np.uint8), "uint8 [1, 8, 8, 3]"),
    ],
)
def test_wrong_input(load: Callable[[str], Interpreter], tensor: np.ndarray, got: str) -> None:
    """Another shape or type is refused with both, never cast or broadcast in silence."""
    interpreter = load("colour")
    with pytest.raises(ValueError, match=r"is float32 \[1, 8, 8, 3\]") as caught:
        interpreter.run(tensor)
    assert str(caught.value).startswith(f"got {got}; input ")


def test_wrong_number_of_inputs(load: Callable[[str], Interpreter]) -> None:
    """Too few or too many tensors are refused."""
    for tensors in ((), (colour(0, 0, 0),) * 2):
        with pytest.raises(ValueError, match="zip"):
            load("colour").run(*tensors)


def test_names(digits: Path, load: Callable[[str], Interpreter]) -> None:
    """Tensors have the names that the model's signature gives them, and their own where there is no signature."""
    signed = Interpreter((digits / "model.tflite").read_bytes(), find_runtime())
    assert [spec.name for spec in (*signed.inputs, *signed.outputs)] == ["digits", "output_0"]
    assert load("quadrant").inputs[0].name == "picture"


def test_open_sizes(load: Callable[[str], Interpreter]) -> None:
    """The runtime would make an open size 1, and the model would see one pixel: it is refused with the remedy."""
    with pytest.raises(ModelError) as caught:
        load("any_size")
    assert str(caught.value) == (
        "leaves the size of input 'picture' open, [1, -1, -1, 3]; say it with model.input_shape, or build it again with"
        " scripts/build_model.sh --input-shape"
    )
    module._refuse_open_sizes([{"name": "picture", "shape_signature": np.array([-1, 8, 8, 3])}])  # an open batch is 1


def test_an_open_size_that_is_said(data: Path) -> None:
    """With its shape said, such a model loads and runs; a shape that is not its own is refused with both."""
    content = (data / "any_size.tflite").read_bytes()
    interpreter = Interpreter(content, find_runtime(), shape=(1, 5, 7, 3))
    assert interpreter.inputs[0].shape == (1, 5, 7, 3)
    green = np.zeros((1, 5, 7, 3), np.float32)
    green[..., 1] = 1
    assert interpreter.run(green)[0].argmax() == 1
    for shape in ((1, 5, 7, 1), (2, 5, 7, 3), (1, 5, 7)):
        with pytest.raises(ModelError) as caught:
            Interpreter(content, find_runtime(), shape=shape)
        assert (
            str(caught.value) == f"cannot have the model.input_shape {list(shape)}: input 'picture' is [1, -1, -1, 3]"
        )


def test_native_noise(data: Path) -> None:
    """What native code writes while loading never reaches standard error; for debugging it is in the log."""
    code = """if True:
        import logging, sys
        logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
        from edge_runner.model.interpreter import Interpreter, find_runtime
        Interpreter(open(sys.argv[1], "rb").read(), find_runtime())
        print("written by us", file=sys.stderr)
    """
    command = [sys.executable, "-c", code, str(data / "colour.tflite")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == "written by us\n"
    says = sys.maxsize > 2**32  # on 32-bit ARM, XNNPACK is not the default
    assert ("runtime: INFO: Created TensorFlow Lite XNNPACK delegate for CPU." in done.stdout) == says


def test_noise_of_a_failure(
    data: Path, capfd: pytest.CaptureFixture[str], load: Callable[[str], Interpreter], caplog: pytest.LogCaptureFixture
) -> None:
    """After a model that fails to load, standard error is itself again, and no descriptor is left open."""
    before = len(os.listdir("/proc/self/fd"))
    with caplog.at_level(logging.DEBUG):
        for name in ("newer_op", "custom_op", "flex"):
            with pytest.raises(ModelError):
                load(name)
    os.write(2, b"still here\n")
    assert capfd.readouterr().err == "still here\n"
    assert len(os.listdir("/proc/self/fd")) == before


# --- refusals ---------------------------------------------------------------------------------------------------------

REFUSED = {
    "newer_op": "needs operator SOFTMAX version 99, which {runtime} does not have: the converter was newer than the runtime;"
    " rebuild the model with scripts/build_model.sh, or install a newer runtime",
    "custom_op": "needs the custom operator Sorcery, which {runtime} does not have; export the model without it",
    "flex": "needs TensorFlow's own operators (Select TF): Erf, which {runtime} does not have; rebuild the model from TFLite's"
    " built-in operators only (scripts/build_model.sh)",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(data: Path, name: str) -> None:
    """A model that the runtime cannot run is refused in one line that names it, what it lacks, and what to do."""
    settings = ModelConfig(path=data / f"{name}.tflite")
    with pytest.raises(ModelError) as caught:
        open_model(settings).load(find_runtime())
    assert str(caught.value) == f"{settings.path} {REFUSED[name].format(runtime=find_runtime())}"
    assert caught.value.key == "model.path"


class Broken:
    """A runtime's interpreter that fails in one of its calls."""

    def __init__(self, failing: str, error: Exception, **_: object) -> None:
        self._failing, self._error = failing, error
        self._fail("load")

    def _fail(self, call: str) -> None:
        if call == self._failing:
            raise self._error

    def allocate_tensors(self) -> None:
        self._fail("allocate")

    def get_input_details(self) -> list[dict[str, Any]]:
        self._fail("details")
        shape = np.array([1, 2])
        return [
            {
                "name": "x",
                "index": 0,
                "shape": shape,
                "shape_signature": shape,
                "dtype": np.float32,
                "quantization": (0.0, 0),
            }
        ]

    get_output_details = get_input_details

    def get_signature_list(self) -> dict[str, Any]:
        return {}

    def tensor(self, index: int) -> Callable[[], np.ndarray]:
        def view() -> np.ndarray:
            self._fail("view")
            return np.zeros((1, 2), np.float32)

        return view

    def invoke(self) -> None:
        self._fail("invoke")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a\n  b"),
        RuntimeError("a\nb"),
        TypeError("a b"),
        SystemError("a b"),
        UnicodeDecodeError("utf-8", b"\xc8", 0, 1, "a b"),
        MemoryError("a b"),
    ],
)
@pytest.mark.parametrize("call", ["load", "allocate", "details", "view", "invoke"])
def test_native_errors(call: str, error: Exception) -> None:
    """Whatever the runtime raises, and wherever, is one line of ours: a damaged file raises odd things in odd places."""
    runtime = Runtime("tflite-runtime", "0", lambda **_: Broken(call, error))
    with pytest.raises(ModelError) as caught:
        Interpreter(b"", runtime).run(np.zeros((1, 2), np.float32))
    (line,) = str(caught.value).splitlines()
    assert "a b" in line
    assert line.startswith(
        "failed while running: " if call in ("view", "invoke") else "is refused by tflite-runtime 0: "
    )
