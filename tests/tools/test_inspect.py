"""`edge-runner inspect`."""

from __future__ import annotations

import json
import re
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import make_bundle

from edge_runner.errors import ModelError
from edge_runner.frame import Tensor, TensorSpec
from edge_runner.model.bundle import FORMAT, GOLDENS, MANIFEST, MODEL, Manifest, sha256_of
from edge_runner.model.goldens import Golden, Goldens
from edge_runner.model.interpreter import Interpreter, find_runtime
from edge_runner.tools import inspect


def test_bare_file(run_cli: Any, data: Path) -> None:
    """Of a bare file: its name and version, operators, labels, runtime, tensors and how it ends."""
    done = run_cli("inspect", data / "labelled.tflite")
    assert (done.returncode, done.stderr) == (0, "")
    text = done.stdout
    assert text.startswith(f"{data / 'labelled.tflite'}: labelled ")
    assert "  AVERAGE_POOL_2D              v1   x1\n" in text
    assert f"labels: 3 from the metadata of {data / 'labelled.tflite'}: 'red', 'green', 'blue'\n" in text
    assert "  input   'picture' float32 [1, 8, 8, 3]\n" in text
    assert "float32 [1, 3]\n" in text
    assert text.endswith("  ends in SOFTMAX\n")


def test_bundle(digits: Path) -> None:
    """Of a bundle also: task, recipe, proof, and with what it was built."""
    says = json.loads((digits / "manifest.json").read_text())
    text = "\n".join(inspect.report(digits))
    assert f"a bundle, built {says['created']} with " in text
    assert "task: type classify" in text
    assert "recipe: crop area gray, mean [0.0], std [255.0]" in text
    assert f"proof: {says['proof']['verdict']}, 0.0% of the answers changed; loaded under " in text
    assert "layout auto; verified" in text
    assert re.search(r"\ngoldens: hold on this machine: prepared within [^\n]+, outputs (equal|within .*)$", text)
    assert "labels: 10 from " in text
    assert ": '0', '1', '2', '3', '4', '5', '6', '7', …" in text


@pytest.mark.parametrize(
    ("model", "said", "why"),
    [
        ("newer_op", "SOFTMAX                      v99  x1", "needs operator SOFTMAX version 99"),
        ("custom_op", "Sorcery ", "needs the custom operator Sorcery"),
        ("flex", "FlexErf ", r"TensorFlow's own operators \(Select TF\): Erf"),
    ],
)
def test_model_that_does_not_load(data: Path, model: str, said: str, why: str) -> None:
    """What can be said of a model is said before its refusal."""
    lines: list[str] = []
    with pytest.raises(ModelError, match=why) as caught:
        deque(map(lines.append, inspect.report(data / f"{model}.tflite")), maxlen=0)
    assert any(said in line for line in lines)
    assert caught.value.exit_code == 78


@pytest.mark.parametrize("name", ["nowhere.tflite", "."])
def test_no_model(run_cli: Any, tmp_path: Path, name: str) -> None:
    """What is no model is refused in one line."""
    done = run_cli("inspect", tmp_path / name)
    assert (done.returncode, done.stdout) == (78, "")
    [line] = done.stderr.splitlines()
    assert line.startswith(f"edge-runner: error: {tmp_path / name}")


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        (TensorSpec("in", (1, 8, 8, 3), "float32"), "'in' float32 [1, 8, 8, 3]"),
        (TensorSpec("in", (1, 3), "int8", 1 / 255, -128), "'in' int8 [1, 3], real = (q - -128) * 0.00392157"),
    ],
)
def test_describe_tensor(spec: TensorSpec, line: str) -> None:
    """A tensor is its name, type, shape, and the formula of its real values."""
    assert inspect.describe_tensor(spec) == line


@pytest.mark.parametrize("model", ["two_outputs", "three_inputs"])
def test_every_tensor(data: Path, model: str) -> None:
    """Models of any number of inputs and outputs can be looked at."""
    lines = list(inspect.report(data / f"{model}.tflite"))
    inputs, outputs = (sum(line.startswith(f"  {kind} ") for line in lines) for kind in ("input", "output"))
    assert (inputs, outputs) == {"two_outputs": (1, 2), "three_inputs": (3, 1)}[model]
    assert lines[-1] == {"two_outputs": "  ends in SOFTMAX, LOGISTIC", "three_inputs": "  ends in MUL"}[model]


def raw_bundle(folder: Path, content: bytes, off: float = 0.0) -> Path:
    """A bundle of a model that no camera feeds; the goldens' outputs are off by so much."""
    interpreter = Interpreter(content, find_runtime())
    inputs: list[Tensor] = [np.full(spec.shape, 0.5, spec.dtype) for spec in interpreter.inputs]
    outputs = interpreter.run(*inputs)
    item = Golden(None, inputs, [output + np.float32(off) for output in outputs], outputs)
    files = {MODEL: content, GOLDENS: Goldens(None, [0.001] * len(outputs), [item]).dump()}
    manifest = Manifest(
        format=FORMAT,
        name="three",
        version="1",
        created="2026-11-22T13:28:00Z",
        task={"type": "raw"},
        preprocess=None,
        inputs=interpreter.inputs,
        outputs=interpreter.outputs,
        quantization="none",
        operators=(),
        runtimes=(str(find_runtime()),),
        files={name: sha256_of(part) for name, part in files.items()},
        source={},
        tools={"edge-runner": "0.1.0"},
        proof={"verdict": "passed", "changed": 0.0},
    )
    folder.mkdir()
    for name, part in {**files, MANIFEST: manifest.dump()}.items():
        (folder / name).write_bytes(part)
    return folder


def test_goldens_are_replayed(run_cli: Any, data: Path, tmp_path: Path) -> None:
    """A bundle's goldens are replayed here too: of a model that no camera feeds, this is the only place."""
    bundle = raw_bundle(tmp_path / "bundle", (data / "three_inputs.tflite").read_bytes())
    done = run_cli("inspect", bundle)
    assert (done.returncode, done.stderr) == (0, "")
    assert "task: type raw; quantization: none\n" in done.stdout
    assert "it is not fed pictures" in done.stdout
    assert "proof: passed, 0.0% of the answers changed" in done.stdout
    assert done.stdout.endswith("goldens: hold on this machine: outputs equal\n")


def test_goldens_that_do_not_hold(run_cli: Any, data: Path, tmp_path: Path) -> None:
    """Where they do not hold, all that can be said is said, and then it ends with 78 and the difference."""
    bundle = raw_bundle(tmp_path / "bundle", (data / "three_inputs.tflite").read_bytes(), off=0.5)
    done = run_cli("inspect", bundle)
    assert done.returncode == 78
    assert "  ends in MUL" in done.stdout
    assert "goldens: hold" not in done.stdout
    [line] = done.stderr.splitlines()
    assert line.startswith(f"edge-runner: error: {bundle}: ")
    assert "is 0.5 off the host's; allowed 0.001" in line


def test_a_pictures_goldens_are_replayed(data: Path, tmp_path: Path) -> None:
    """So are those of a model that is fed pictures; a bundle that was changed is not even parsed."""
    bundle = make_bundle(tmp_path / "bundle", data / "colour.tflite")
    last = "goldens: hold on this machine: prepared within 0 grey levels in the mean and 0 at most, outputs equal"
    assert list(inspect.report(bundle))[-1] == last
    content = bytearray((bundle / MODEL).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / MODEL).write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.tflite was changed or damaged"):
        list(inspect.report(bundle))
