"""Models that others trained: their SavedModels become what their authors' own files are, or as right as those."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import commands
import cv2
import numpy as np
import pytest

from edge_runner.model.interpreter import Interpreter, find_runtime

pytestmark = [
    pytest.mark.builder,
    pytest.mark.skipif("EDGE_RUNNER_MODELS" not in os.environ, reason="EDGE_RUNNER_MODELS names no folder of models"),
]
# TensorFlow folds batch normalisation by the processor's own approximation of a square root: weights made on another
# processor differ in their last bit, and so do the outputs.
LAST_BITS = 4e-6
LONGEST_S = 1500


@pytest.fixture
def models() -> Path:
    return Path(os.environ["EDGE_RUNNER_MODELS"])


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Any]:
    """Build as the command does; the finished process."""
    return lambda model, *options: commands.build(model, *options, output=tmp_path / "bundle", timeout=LONGEST_S)


def loaded(path: Path) -> Interpreter:
    return Interpreter(path.read_bytes(), find_runtime())


def proof(bundle: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())["proof"]
    return said


def test_resnet8(models, build, tmp_path):
    """MLPerf Tiny's ResNet8 answers as its authors' .tflite; the labelled pictures say that the recipe is right."""
    pictures = models / "eval/cifar10_test"
    done = build(models / "saved_models/mlperf_tiny_resnet8", "--normalize", "raw", "--evaluate", pictures)
    assert done.returncode == 0, done.stderr
    assert proof(tmp_path / "bundle")["recipe"] == "verified"
    assert proof(tmp_path / "bundle")["evaluation"]["tflite_top1"] == pytest.approx(0.752)
    ours = loaded(tmp_path / "bundle/model.tflite")
    theirs = loaded(models / "classify/mlperf_resnet8_cifar10_float.tflite")
    for path in sorted(pictures.rglob("*.*"))[::50]:
        picture = np.ascontiguousarray(cv2.imread(str(path))[None, ..., ::-1], np.float32)
        np.testing.assert_allclose(ours.run(picture)[0], theirs.run(picture)[0], atol=LAST_BITS)


def test_resnet8_as_int8(models, build, tmp_path):
    """Quantised, it is as right as before, to a point."""
    pictures = models / "eval/cifar10_test"
    options = ("--normalize", "raw", "--evaluate", pictures, "--quantize", "int8", "--calibration", pictures)
    assert build(models / "saved_models/mlperf_tiny_resnet8", *options).returncode == 0
    found = proof(tmp_path / "bundle")["evaluation"]
    assert found["tflite_top1"] == pytest.approx(found["saved_model_top1"], abs=0.01)


@pytest.mark.parametrize("wrong", [("--normalize", "raw", "--color", "bgr"), ("--normalize", "-1..1")])
def test_resnet8_told_wrongly(models, build, tmp_path, wrong):
    """Fed bgr, or -1..1, by mistake, it is stopped, and the right recipe named."""
    done = build(models / "saved_models/mlperf_tiny_resnet8", *wrong, "--evaluate", models / "eval/cifar10_test")
    assert done.returncode == 78
    assert "with --normalize raw --color rgb" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_basic_pitch(models, build, tmp_path):
    """A model of sound with three outputs becomes its authors' file again, but for the last bits of its weights."""
    done = build(models / "saved_models/basic_pitch", "--task", "raw")
    assert done.returncode == 0, done.stderr
    ours, theirs = loaded(tmp_path / "bundle/model.tflite"), loaded(models / "saved_models/basic_pitch_official.tflite")
    assert (
        [spec.name for spec in ours.outputs] == [spec.name for spec in theirs.outputs] == ["onset", "note", "contour"]
    )
    sound = np.random.default_rng(5).normal(0, 0.3, (1, 43844, 1)).astype(np.float32)
    for one, other in zip(ours.run(sound), theirs.run(sound), strict=True):
        np.testing.assert_allclose(one, other, atol=LAST_BITS)


def test_efficientnet_lite0(models, build, tmp_path):
    """Of an ImageNet classifier, int8 agrees with float32 on 97 of 100 photos, and both are right on 80."""
    sample = models / "eval/imagenet_sample"
    for row in csv.DictReader((sample / "labels.csv").read_text("utf-8").splitlines()):
        folder = tmp_path / "labelled" / row["index_1000"]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(sample / "images" / row["file"], folder)
    photos = ("--evaluate", tmp_path / "labelled", "--calibration", tmp_path / "labelled")
    figures = ("--mean", "127", "--std", "128", "--quantize", "int8")
    done = build(models / "saved_models/efficientnet_lite0", *figures, *photos)
    assert done.returncode == 0, done.stderr
    found = proof(tmp_path / "bundle")
    assert found["changed"] <= 0.03
    assert found["recipe"] == "verified"
    assert min(found["evaluation"]["saved_model_top1"], found["evaluation"]["tflite_top1"]) >= 0.8
