"""`edge-runner check`."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle

from edge_runner import cli
from edge_runner.errors import SettingError
from edge_runner.pipeline import assemble as assemble_whole
from edge_runner.service import instances
from edge_runner.settings import load_settings
from edge_runner.tools import check


def test_says_what_it_found(run_cli: Any, configure: Any, colours: Path) -> None:
    """A right configuration is summed up: model, runtime, input, recipe, task, camera and outputs."""
    outputs = [{"type": "console"}, {"type": "jsonl", "path": "out.jsonl"}]
    path = configure(camera={"type": "images", "path": "colours", "name": "door"}, outputs=outputs)
    done = run_cli("check", "--config", path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[:-1])
    assert list(lines) == ["model", "runtime", "input", "recipe", "task", "camera", "outputs"]
    assert re.fullmatch(r"colour [0-9a-f]{8} \(bare file: loaded and run in a child process\)", lines["model"])
    assert re.fullmatch(r"(tflite-runtime|ai-edge-litert) [\d.]+, \d+ thread\(s\)", lines["runtime"])
    assert lines["input"].endswith("float32 [1, 8, 8, 3]")
    assert lines["recipe"] == "stretch linear rgb, mean [0.0], std [255.0], layout auto"
    assert lines["task"] == "classify"
    assert lines["camera"] == "door (images)"
    assert lines["outputs"] == "console, jsonl"
    assert done.stdout.splitlines()[-1] == f"{path}: nothing is wrong"


@pytest.mark.parametrize(("goldens", "said"), [(True, "goldens hold on this machine"), (False, "goldens not checked")])
def test_bundle(configure: Any, digits: Path, goldens: bool, said: str) -> None:
    """A bundle's proof is mentioned, and whether it was replayed."""
    path = configure(model={"path": str(digits), "check_goldens": goldens}, preprocess=None)
    [model, second, *_] = check.report(assemble_whole(load_settings(path)))
    assert model.endswith(f"(bundle: hashes right, {said})")
    assert second.startswith("goldens  prepared within ") == goldens


def test_everything_wrong_at_once(run_cli: Any, configure: Any, tmp_path: Path, data: Path) -> None:
    """Mistakes of the camera, the model and the outputs are all listed, each with its place."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "m.tflite").write_text("this is no model")
    path = configure(
        camera={"type": "images", "path": "empty"},
        model={"path": "m.tflite"},
        outputs=[
            {"type": "jsonl", "path": "empty"},
            {"type": "console"},
            {"type": "jsonl", "path": "m.tflite/out.jsonl"},
        ],
    )
    done = run_cli("check", "--config", path)
    assert (done.returncode, done.stdout) == (78, "")
    *mistakes, error = done.stderr.splitlines()
    assert error == "edge-runner: error: 4 mistakes in the configuration"
    assert all(re.match(rf"{path}:\d+: ", line) for line in mistakes)
    assert [line.split(": ")[1] for line in mistakes] == [
        "camera.path",
        "model.path",
        "outputs.0.path",
        "outputs.2.path",
    ]


def test_a_version_that_does_not_come_up(
    run_cli: Any, configure: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon would run the version before it; here that is a mistake as any other, and stands beside the others."""
    monkeypatch.setenv("EDGE_RUNNER_STATE", str(tmp_path))
    home = tmp_path / "models/colour"
    for version, link in (("1", "previous"), ("2", "current")):
        make_bundle(home / version, data / "colour.tflite", name="colour", version=version)
        (home / link).symlink_to(version)
    outputs = [{"type": "jsonl", "path": "."}]
    path = configure(model={"name": "colour"}, preprocess=None, outputs=outputs)
    (home / "2/model.tflite").write_bytes(b"")
    done = run_cli("check", "--config", path)
    assert (done.returncode, done.stdout) == (78, "")
    *mistakes, error = done.stderr.splitlines()
    assert error == "edge-runner: error: 2 mistakes in the configuration"
    assert [line.split(": ")[1] for line in mistakes] == ["model.name", "outputs.0.path"]
    assert "colour/2/model.tflite" in mistakes[0]


def test_a_service_s_configuration(configure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths are in the service's own folder, as the service has it, and not beside its configuration."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(instances, "CONFIGS", tmp_path)
    monkeypatch.setattr(instances, "LOGS", tmp_path / "log")
    monkeypatch.setattr(cli, "load", lambda options: load_settings(options.config))
    (tmp_path / "log/camera/out.jsonl").mkdir(parents=True)
    config = configure(outputs=[{"type": "jsonl", "path": "out.jsonl"}])
    with pytest.raises(SettingError, match=re.escape(f"{tmp_path}/log/camera/out.jsonl")):
        cli._check(Namespace(config=config))


def test_a_single_mistake(run_cli: Any, configure: Any, tmp_path: Path) -> None:
    """One mistake is the error's own line."""
    (tmp_path / "empty").mkdir()
    path = configure(camera={"type": "images", "path": "empty"})
    done = run_cli("check", "--config", path)
    assert done.returncode == 78
    assert re.fullmatch(rf"edge-runner: error: {path}:\d+: camera\.path: .*empty holds no pictures; .*\n", done.stderr)


def test_captures_nothing(configure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No frame is taken, and no camera opened."""
    monkeypatch.setattr("edge_runner.camera.pattern.Pattern.open", lambda self: pytest.fail("the camera was opened"))
    assert list(check.report(assemble_whole(load_settings(configure()))))


def report(configure: Any, bundle: Path, **parts: Any) -> dict[str, str]:
    path = configure(model={"path": str(bundle)}, preprocess=None, **parts)
    return dict(line.split(maxsplit=1) for line in check.report(assemble_whole(load_settings(path))))


@pytest.mark.parametrize("verdict", ["verified", "not verified"])
def test_the_recipes_verdict(configure: Any, data: Path, tmp_path: Path, verdict: str) -> None:
    """Whether anybody has seen that a bundle's recipe is the training's stands beside the recipe."""
    proof = {"verdict": "passed", "recipe": verdict}
    lines = report(configure, make_bundle(tmp_path / "bundle", data / "colour.tflite", proof=proof))
    assert lines["recipe"] == f"stretch linear rgb, mean [0.0], std [255.0], layout auto ({verdict})"


@pytest.mark.parametrize(
    ("objections", "why"),
    [
        (["the recipe is wrong", "upside down"], "the recipe is wrong; upside down"),
        ([], "its answers are not the SavedModel's"),
    ],
)
def test_a_bundle_whose_proof_failed(
    run_cli: Any, configure: Any, data: Path, tmp_path: Path, objections: list[str], why: str
) -> None:
    """A bundle that was built with --force is run, and what spoke against it is said each time."""
    proof = {"verdict": "failed", "objections": objections, "recipe": "not verified"}
    bundle = make_bundle(tmp_path / "bundle", data / "colour.tflite", proof=proof)
    done = run_cli("check", "--config", configure(model={"path": str(bundle)}, preprocess=None))
    assert done.returncode == 0
    assert done.stderr == f"edge-runner: warning: {bundle}: the proof of this bundle failed when it was built: {why}\n"


def test_a_raw_task(configure: Any, data: Path, tmp_path: Path) -> None:
    """A model whose outputs are taken as they are is checked as any other: its goldens hold, its outputs need not be one."""
    bundle = make_bundle(tmp_path / "bundle", data / "two_outputs.tflite", labels=None, task={"type": "raw"})
    assert "goldens hold on this machine" in report(configure, bundle)["model"]


def test_a_model_that_is_not_fed_pictures(run_cli: Any, configure: Any, data: Path, tmp_path: Path) -> None:
    """A bundle without a recipe is refused as such, with the command that can replay its goldens all the same."""
    bundle = make_bundle(tmp_path / "bundle", data / "colour.tflite", preprocess=None, task={"type": "raw"})
    done = run_cli("check", "--config", configure(model={"path": str(bundle)}, preprocess=None))
    assert (done.returncode, done.stdout) == (78, "")
    [line] = done.stderr.splitlines()
    assert f"{bundle} was built without a recipe" in line
    assert "edge-runner inspect" in line
