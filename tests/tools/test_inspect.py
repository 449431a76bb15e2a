"""`edge-runner inspect`."""

from __future__ import annotations

import json
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from edge_runner.errors import ModelError
from edge_runner.frame import TensorSpec
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
    assert text.endswith("goldens: hold on this machine")
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
