"""Published models on pictures with known answers, through the real command.

EDGE_RUNNER_MODELS names a folder with `classify/`, `edge_cases/`, `images/` and `eval/cifar10_test/`: the models of
google-coral/test_data, tensorflow/tflite-support and mlcommons/tiny. Without it these tests are skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from edge_runner.errors import EXIT_CONFIG
from edge_runner.model.interpreter import find_runtime

# The answers were measured under tflite-runtime; LiteRT's quantised kernels round otherwise.
NEAR = 0.03 if find_runtime().name == "tflite-runtime" else 0.05
FOLDER = Path(os.environ.get("EDGE_RUNNER_MODELS", ""))
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

pytestmark = pytest.mark.skipif(
    not os.environ.get("EDGE_RUNNER_MODELS") or not (FOLDER / "classify").is_dir(),
    reason="EDGE_RUNNER_MODELS names no folder of models",
)

# What the models want, from their cards: name of the file, mean, std (the model sees (x - mean) / std, RGB).
RECIPES = {
    "mobilenet_v2_1.0_224_quant":                 (0, 1),  # its bytes are the picture's
    "mobilenet_v1_0.25_224_float":                (127.5, 127.5),
    "mobilenet_v1_0.25_224_float_with_metadata":  (127.5, 127.5),
    "mobilenet_v1_0.25_224_quant":                (0, 1),
    "mlperf_resnet8_cifar10_float":               (0, 1),
    "mlperf_resnet8_cifar10_int8":                (0, 1),
}  # fmt: skip

# Measured with the runtime alone (stretched to 224x224, bilinear); burger .961 is the published score too.
ANSWERS = [
    # model                                       picture             class  label               score
    ("mobilenet_v2_1.0_224_quant",                "cat.bmp",            286, "Egyptian cat",      .816),
    ("mobilenet_v2_1.0_224_quant",                "grace_hopper.bmp",   653, "military uniform",  .922),
    ("mobilenet_v2_1.0_224_quant",                "burger.jpg",         934, "cheeseburger",      .953),
    ("mobilenet_v2_1.0_224_quant",                "coffee.png",         968, "espresso",          .996),
    ("mobilenet_v2_1.0_224_quant",                "chelsea.png",        286, "Egyptian cat",      .766),
    ("mobilenet_v1_0.25_224_float",               "cat.bmp",            286, "Egyptian cat",      .521),
    ("mobilenet_v1_0.25_224_float",               "burger.jpg",         934, "cheeseburger",      .989),
    ("mobilenet_v1_0.25_224_float_with_metadata", "cat.bmp",            286, "Egyptian cat",      .521),
    ("mobilenet_v1_0.25_224_float_with_metadata", "burger.jpg",         934, "cheeseburger",      .989),
    ("mobilenet_v1_0.25_224_quant",               "burger.jpg",         934, "cheeseburger",      .961),
    ("mobilenet_v1_0.25_224_quant",               "cat.bmp",            286, "Egyptian cat",      .445),
]  # fmt: skip

# Of 10 x 100 pictures of CIFAR-10's test set; fed BGR by mistake it is 61.2 %.
ACCURACIES = [
    # model                           accuracy
    ("mlperf_resnet8_cifar10_float",      .752),
    ("mlperf_resnet8_cifar10_int8",       .748),
]  # fmt: skip


def write_config(folder: Path, model: Path, camera: Path, recipe: tuple[float, float], labels: Path | None) -> Path:
    """A configuration as one types it."""
    lines = [
        f"camera: {{type: images, path: {camera}}}",
        "model:",
        f"  path: {model}",
        *([f"  labels: {labels}"] if labels else []),
        "preprocess:",
        "  color: rgb",
        f"  mean: {recipe[0]}",
        f"  std: {recipe[1]}",
    ]
    path = folder / "camera.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(("model", "picture", "index", "label", "score"), ANSWERS)
def test_answer(
    tmp_path: Path,
    run_cli: Callable[..., CompletedProcess[str]],
    model: str,
    picture: str,
    index: int,
    label: str,
    score: float,
) -> None:
    """The answer is the published model's, label and score; metadata stands in for a labels file."""
    labels = None if model.endswith("_with_metadata") else FOLDER / "classify/imagenet_labels.txt"
    config = write_config(
        tmp_path, FOLDER / f"classify/{model}.tflite", FOLDER / "images" / picture, RECIPES[model], labels
    )
    done = run_cli("--config", config, "--once")
    assert done.returncode == 0, done.stderr
    best = json.loads(done.stdout)["classifications"][0]
    assert (best["index"], best["label"].lower()) == (index, label.lower())
    assert best["score"] == pytest.approx(score, abs=NEAR)


@pytest.mark.parametrize(("model", "accuracy"), ACCURACIES)
def test_accuracy(tmp_path: Path, run_cli: Callable[..., CompletedProcess[str]], model: str, accuracy: float) -> None:
    """A whole test set gives the published accuracy, in float and in int8, with the same recipe."""
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(CIFAR10))
    pictures = FOLDER / "eval/cifar10_test/*/*.jpg"  # one folder a class, in the classes' order, 100 pictures each
    done = run_cli(
        "--config", write_config(tmp_path, FOLDER / f"classify/{model}.tflite", pictures, RECIPES[model], labels)
    )
    assert done.returncode == 0, done.stderr
    best = [json.loads(line)["classifications"][0]["index"] for line in done.stdout.splitlines()]
    assert len(best) == 1000
    assert sum(found == i // 100 for i, found in enumerate(best)) / 1000 == pytest.approx(accuracy, abs=0.01)


def test_custom_operator(tmp_path: Path, run_cli: Callable[..., CompletedProcess[str]]) -> None:
    """A published model with an operator of its own is refused in one line that names the operator."""
    model = FOLDER / "edge_cases/posenet_unresolved_custom_op.tflite"
    done = run_cli("--config", write_config(tmp_path, model, FOLDER / "images/cat.bmp", (0, 1), None), "--once")
    assert (done.returncode, done.stdout) == (EXIT_CONFIG, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("edge-runner: error: ")
    assert "needs the custom operator PosenetDecoderOp" in line
