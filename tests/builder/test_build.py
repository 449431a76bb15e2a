"""SavedModels built for real, and their bundles run as the board does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_runner.model.bundle import ModelConfig, damages, open_model, read_manifest
from edge_runner.model.goldens import read_goldens

pytestmark = pytest.mark.builder

RAW = ("--normalize", "0..1")


def edge_runner(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_runner", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def check(bundle: Path, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    config = tmp_path / "check.yaml"
    config.write_text(f"camera: {{type: pattern}}\nmodel: {{path: {bundle}}}\n")
    return edge_runner("check", "--config", config)


@pytest.mark.parametrize(
    ("mode", "dtypes"),
    [
        (("none",), ("float32", "float32")),
        (("int8",), ("int8", "int8")),
        (("int8", "--io-type", "uint8"), ("uint8", "uint8")),
        (("int8", "--io-type", "float32"), ("float32", "float32")),
    ],
)
def test_each_mode_gives_a_bundle_that_the_board_accepts(mode, dtypes, build, saved_models, calibration, tmp_path):
    """A built bundle is whole, says what it is, and its goldens hold when they are replayed."""
    labels = tmp_path / "names.txt"
    labels.write_text("red\ngreen\nblue\n")
    done = build(saved_models / "good", *RAW, "--labels", labels, "--quantize", *mode, "--calibration", calibration)
    assert done.returncode == 0, done.stderr
    bundle = tmp_path / "bundle"
    manifest = read_manifest(bundle)
    assert damages(bundle, manifest) == []
    assert (manifest.inputs[0].dtype, manifest.outputs[0].dtype) == dtypes
    assert manifest.inputs[0].shape == (1, 16, 16, 3), "the batch is pinned to 1"
    assert manifest.proof["verdict"] == "passed"
    assert manifest.proof["answers_changed"] <= 0.01
    assert {used.name for used in manifest.operators} >= {"CONV_2D", "FULLY_CONNECTED", "SOFTMAX"}
    assert open_model(ModelConfig(path=bundle)).labels == ("red", "green", "blue")
    checked = check(bundle, tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert "goldens hold" in checked.stdout


def test_float_answers_are_the_saved_models_own(build, saved_models, calibration, tmp_path):
    """The stored .tflite outputs of a float32 build are TensorFlow's to six digits, and not all alike."""
    assert build(saved_models / "good", *RAW, "--calibration", calibration).returncode == 0
    goldens = read_goldens(tmp_path / "bundle" / "golden.npz")
    assert len(goldens.items) == 4
    for item in goldens.items:
        np.testing.assert_allclose(item.outputs[0], item.reference[0], atol=1e-6)
    assert np.ptp([item.outputs[0][0, 0] for item in goldens.items]) > 0.001


def test_equal_builds_differ_in_their_date_alone(build, saved_models, calibration, tmp_path):
    """The same model, pictures and versions give the same files, and the same manifest but for its date and digest."""
    options = (*RAW, "--quantize", "int8", "--calibration", calibration, "--name", "same")
    for output in ("one", "two"):
        assert build(saved_models / "good", *options, output=output).returncode == 0
    for name in ("model.tflite", "golden.npz"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    one, two = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("one", "two"))
    assert {key for key in one if one[key] != two[key]} <= {"created", "digest"}


def test_a_rebuild_replaces_the_bundle_and_leaves_nothing_else(build, saved_models, calibration, tmp_path):
    """Building into an older bundle's folder swaps it whole; nothing is left beside it."""
    assert build(saved_models / "good", *RAW).returncode == 0
    before = read_manifest(tmp_path / "bundle").version
    assert build(saved_models / "good", *RAW, "--quantize", "int8", "--calibration", calibration).returncode == 0
    assert read_manifest(tmp_path / "bundle").version != before
    assert sorted(p.name for p in (tmp_path / "bundle").iterdir()) == ["golden.npz", "manifest.json", "model.tflite"]
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_a_build_that_changes_the_answers_is_stopped(build, saved_models, calibration, tmp_path):
    """A quantised model that answers otherwise than the SavedModel is refused; --force keeps it, marked as failed."""
    options = (*RAW, "--quantize", "int8", "--calibration", calibration)
    done = build(saved_models / "wavering", *options)
    assert done.returncode == 78
    assert "of the answers to 24 pictures" in done.stderr
    assert not (tmp_path / "bundle").exists()
    assert build(saved_models / "wavering", *options, "--force").returncode == 0
    assert read_manifest(tmp_path / "bundle").proof["verdict"] == "failed"
    assert "proof of this bundle failed" in check(tmp_path / "bundle", tmp_path).stderr


REFUSALS = [
    ("two_inputs", (), "2 inputs"),
    ("two_outputs", (), "2 outputs"),
    ("any_size", (), "size is not fixed"),
    ("no_signature", (), "no signature"),
    ("flex", (), "MatrixDeterminant"),
    ("good", ("--signature", "other"), "no signature 'other'; it has"),
]


@pytest.mark.parametrize(("model", "options", "says"), REFUSALS)
def test_what_cannot_be_built_is_refused_in_one_line(model, options, says, build, saved_models, tmp_path):
    """A model that cannot become a classifier's bundle ends with 78, one line that says why, and nothing left behind."""
    done = build(saved_models / model, *RAW, *options)
    assert done.returncode == 78, done.stderr
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("edge-runner: error: ")
    assert list(tmp_path.iterdir()) == []


def test_labels_that_do_not_fit_are_refused_with_both_numbers(build, saved_models, tmp_path):
    """A label too many stops the build."""
    labels = tmp_path / "names.txt"
    labels.write_text("a\nb\nc\nd\n")
    done = build(saved_models / "good", *RAW, "--labels", labels)
    assert done.returncode == 78
    assert "4 labels" in done.stderr
    assert "3 classes" in done.stderr


def test_an_interrupted_build_leaves_the_old_bundle(build, saved_models, tmp_path):
    """A build that is killed in the middle leaves the older bundle as it was."""
    assert build(saved_models / "good", *RAW).returncode == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "bundle").iterdir()}
    command = [
        sys.executable,
        "-m",
        "edge_runner.builder",
        str(saved_models / "good"),
        "--output",
        str(tmp_path / "bundle"),
        *RAW,
    ]
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(command, capture_output=True, timeout=2.0, check=False)
    assert {p.name: p.read_bytes() for p in (tmp_path / "bundle").iterdir()} == before


@pytest.mark.skipif("EDGE_RUNNER_MODELS" not in os.environ, reason="EDGE_RUNNER_MODELS names no folder of models")
def test_a_real_saved_model_converts_to_its_official_answers(build, tmp_path):
    """MLPerf Tiny's ResNet8, float32, answers as the .tflite that its authors published."""
    from edge_runner.model.interpreter import Interpreter, find_runtime

    models = Path(os.environ["EDGE_RUNNER_MODELS"])
    done = build(models / "saved_models/mlperf_tiny_resnet8", "--normalize", "raw")
    assert done.returncode == 0, done.stderr
    ours = Interpreter((tmp_path / "bundle/model.tflite").read_bytes(), find_runtime())
    theirs = Interpreter((models / "classify/mlperf_resnet8_cifar10_float.tflite").read_bytes(), find_runtime())
    picture = np.random.default_rng(3).integers(0, 256, (1, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(ours.run(picture)[0], theirs.run(picture)[0], atol=1e-6)
