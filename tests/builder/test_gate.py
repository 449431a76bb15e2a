"""The gate: a model loads and runs under the runtime that the board has, or is refused; or nothing is claimed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import commands
import numpy as np
import pytest

from edge_runner.builder import gate
from edge_runner.builder.build import build
from edge_runner.builder.gate import CannotExistError, Gate, open_gate, parse_target
from edge_runner.builder.order import Order
from edge_runner.builder.progress import Progress
from edge_runner.errors import EdgeRunnerError, ModelError, SettingError
from edge_runner.model.bundle import read_manifest
from edge_runner.model.interpreter import Interpreter, find_runtime
from edge_runner.model.preprocess import Recipe

ANOTHER = "2.1.0"  # of ai-edge-litert: neither what the tests' environments have, nor the newest


def silent(line: str) -> None:
    pytest.fail(f"it said {line}")


@pytest.fixture
def own() -> Gate:
    """This environment's own runtime as the target."""
    runtime = find_runtime()
    return open_gate(f"{runtime.name}=={runtime.version}", silent)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("tflite-runtime==2.14.0", ("tflite-runtime", "2.14.0")), ("ai-edge-litert==2", ("ai-edge-litert", "2"))],
)
def test_a_target(text, parsed):
    """A target is a runtime and its exact version."""
    assert parse_target(text) == parsed


@pytest.mark.parametrize(
    "text", ["", "tflite-runtime", "tflite-runtime==", "tflite==2", "tflite-runtime==2.*", "a==1 b"]
)
def test_no_target(text):
    """Anything else is refused with the two that there are."""
    with pytest.raises(SettingError, match="tflite-runtime==VERSION, ai-edge-litert==VERSION"):
        parse_target(text)


def test_the_environments_own(own):
    """A runtime that is installed here in this version is used as it is."""
    assert (own.packages, own.python, str(own)) == (None, sys.executable, str(find_runtime()))


@pytest.mark.parametrize("model", ["colour", "quantized", "two_outputs", "three_inputs"])
def test_answers(own, data, model):
    """Each sample's outputs come back as real values, as they would here."""
    content = (data / f"{model}.tflite").read_bytes()
    interpreter = Interpreter(content, find_runtime())
    chance = np.random.default_rng(1)
    samples = [[chance.integers(0, 100, i.shape).astype(i.dtype) for i in interpreter.inputs] for _ in range(12)]
    answers = own.run(content, samples)
    assert len(answers) == 12
    for sample, outputs in zip(samples, answers, strict=True):
        expected = interpreter.run(*sample)
        assert [(o.dtype, o.shape) for o in outputs] == [(e.dtype, e.shape) for e in expected]
        assert all(np.allclose(o, e, atol=1e-6) for o, e in zip(outputs, expected, strict=True))


def test_without_samples_it_runs_all_the_same(own, data):
    """A model is run once, on zeros, even where nothing is asked of it."""
    assert own.run((data / "three_inputs.tflite").read_bytes(), []) == []


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("newer_op", "needs operator SOFTMAX version 99, which {} does not have"),
        ("custom_op", "needs the custom operator Sorcery, which {} does not have"),
        ("flex", "needs TensorFlow's own operators"),
    ],
)
def test_what_the_target_lacks(own, data, model, says):
    """A model that the target cannot load is refused, naming operator, version and runtime."""
    with pytest.raises(ModelError) as caught:
        own.run((data / f"{model}.tflite").read_bytes(), [])
    assert says.format(own) in str(caught.value)


def script(path: Path, *lines: str) -> str:
    path.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    path.chmod(0o755)
    return str(path)


def test_a_model_that_kills_the_target(tmp_path):
    """A runtime that dies of a model is an error with its last words, and not the builder's end."""
    dying = script(tmp_path / "python", "echo 'first words' >&2", "echo 'last words' >&2", "kill -SEGV $$")
    with pytest.raises(ModelError, match=r"kills tflite-runtime 1\.2\.3 .*: last words"):
        Gate("tflite-runtime", "1.2.3", dying).run(b"", [])


def test_a_model_that_never_ends(tmp_path, monkeypatch):
    """A model that does not come to an end is given up."""
    monkeypatch.setattr(gate, "TIMEOUT_S", 0.1)
    endless = script(tmp_path / "python", "exec sleep 1000")
    with pytest.raises(ModelError, match=r"did not load and run under tflite-runtime 1\.2\.3 within 0\.1 s"):
        Gate("tflite-runtime", "1.2.3", endless).run(b"", [])


NO_SUCH = """\
ERROR: Could not find a version that satisfies the requirement tflite-runtime==9.9 (from versions: 2.13.0, 2.14.0)
ERROR: No matching distribution found for tflite-runtime==9.9
"""
NONE = """\
ERROR: Could not find a version that satisfies the requirement tflite-runtime==9.9 (from versions: none)
ERROR: No matching distribution found for tflite-runtime==9.9
"""
OFFLINE = f"""\
WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection broken by \
'NewConnectionError': Failed to establish a new connection: [Errno -3] Temporary failure in name resolution
{NONE}"""
FULL = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"


class Pip:
    """Stands for the package installer: it answers with these words, a Python each, or installs where there are none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cache: Path, words: dict[str, str]) -> None:
        self.calls: list[str] = []
        self.words = words
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        monkeypatch.setattr(gate, "_pythons", lambda: list(words))
        monkeypatch.setattr(gate, "_version_of", lambda python: python)
        monkeypatch.setattr(gate.subprocess, "run", self.run)

    def run(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert "pip" in command
        python = command[command.index("--python") + 1]
        self.calls.append(python)
        if self.words[python] == "Ctrl-C":
            raise KeyboardInterrupt
        if not self.words[python]:
            packages = Path(command[command.index("--target") + 1])
            packages.mkdir()
            (packages / "tflite_runtime").mkdir()
        return subprocess.CompletedProcess(command, int(bool(self.words[python])), "", self.words[python])


def test_it_is_installed_once(monkeypatch, tmp_path):
    """A target that is not here is installed apart, which is said; from then on it is there."""
    pip = Pip(monkeypatch, tmp_path, {"3.11": ""})
    said: list[str] = []
    opened = open_gate("tflite-runtime==9.9", said.append)
    assert (opened.python, str(opened)) == ("3.11", "tflite-runtime 9.9")
    assert (opened.packages / "tflite_runtime").is_dir()
    assert opened.packages.is_relative_to(tmp_path / "edge-runner")
    assert len(said) == 1
    assert open_gate("tflite-runtime==9.9", silent) == opened
    assert pip.calls == ["3.11"]


def test_the_first_python_with_a_wheel(monkeypatch, tmp_path):
    """Pythons for which there is no wheel are passed over."""
    pip = Pip(monkeypatch, tmp_path, {"3.13": NONE, "3.11": "", "3.10": ""})
    assert open_gate("tflite-runtime==9.9", lambda line: None).python == "3.11"
    assert pip.calls == ["3.13", "3.11"]


@pytest.mark.parametrize("words", [{}, {"3.13": NONE, "3.12": NONE}])
def test_no_python_has_a_wheel(monkeypatch, tmp_path, words):
    """Where the target cannot be at all, that is told apart from every mistake."""
    Pip(monkeypatch, tmp_path, words)
    with pytest.raises(CannotExistError, match=r"tflite-runtime 9\.9 has no wheel"):
        open_gate("tflite-runtime==9.9", lambda line: None)


def test_no_such_version(monkeypatch, tmp_path):
    """A version that was never published is refused, with those that were."""
    Pip(monkeypatch, tmp_path, {"3.13": NONE, "3.11": NO_SUCH})
    with pytest.raises(SettingError, match=r"no tflite-runtime 9\.9 for Python 3\.11; there is 2\.13\.0, 2\.14\.0"):
        open_gate("tflite-runtime==9.9", lambda line: None)


@pytest.mark.parametrize("words", [OFFLINE, FULL])
def test_it_cannot_be_installed(monkeypatch, tmp_path, words):
    """Without a network, or on a full disk, nobody can say whether there is a wheel: that is an error of its own."""
    Pip(monkeypatch, tmp_path, {"3.11": words})
    with pytest.raises(EdgeRunnerError, match=r"tflite-runtime 9\.9 could not be installed") as caught:
        open_gate("tflite-runtime==9.9", lambda line: None)
    assert not isinstance(caught.value, CannotExistError | SettingError)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(("words", "error"), [("Ctrl-C", KeyboardInterrupt), (FULL, EdgeRunnerError)])
def test_a_failed_installation_leaves_nothing(monkeypatch, tmp_path, words, error):
    """What was not installed whole is not there at the next build."""
    Pip(monkeypatch, tmp_path, {"3.11": words})
    with pytest.raises(error):
        open_gate("tflite-runtime==9.9", lambda line: None)
    assert [path for path in tmp_path.rglob("*") if path.name.startswith((".tflite", "tflite"))] == []


@pytest.mark.builder
def test_another_runtime_than_the_environments_own(saved_models, pictures, monkeypatch, tmp_path):
    """A target of another version is installed apart, and models must load, run and answer alike under both.

    The manifest says with what it was proven, the target first; the board's own check still holds.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    target = f"ai-edge-litert=={ANOTHER}"
    options = ("--normalize", "0..1", "--quantize", "int8", "--calibration", pictures, "--target", target)
    done = commands.build(saved_models / "colour", *options, output=tmp_path / "bundle")
    if "could not be installed" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    assert "installing" in done.stdout
    manifest = read_manifest(tmp_path / "bundle")
    assert manifest.runtimes == (f"ai-edge-litert {ANOTHER}", str(find_runtime()))
    assert manifest.proof["target"] == target
    assert commands.check(tmp_path / "bundle", tmp_path).returncode == 0

    with pytest.raises(ModelError, match=rf"SOFTMAX version 99, which ai-edge-litert {ANOTHER} does not have"):
        open_gate(target, silent).run((Path(__file__).parents[1] / "data/newer_op.tflite").read_bytes(), [])


@pytest.mark.builder
def test_a_target_that_cannot_be_here(saved_models, monkeypatch, tmp_path):
    """Where no Python has a wheel of the target, the bundle is built, and says that the target was not tried."""
    monkeypatch.setattr(gate, "_pythons", list)
    order = Order(
        model=saved_models / "fixed",
        output=tmp_path / "bundle",
        name="fixed",
        task="classify",
        recipe=Recipe("rgb", (0.0,), (255.0,)),
        target="tflite-runtime==2.13.0",
    )
    said: list[str] = []
    build(order, Progress(said.append))
    manifest = read_manifest(tmp_path / "bundle")
    assert manifest.proof["target"].startswith("not tried: tflite-runtime 2.13.0 has no wheel")
    assert manifest.runtimes == (str(find_runtime()),)
    assert "not tried" in (tmp_path / "bundle/report.md").read_text()
    assert commands.check(tmp_path / "bundle", tmp_path).returncode == 0
