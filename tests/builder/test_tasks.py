"""Detectors, segmenters and pose models: built, proven by what they find, and run by the daemon with what was decided for them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import commands
import cv2
import numpy as np
import pytest

from edge_runner.frame import Picture
from edge_runner.model.bundle import MANIFEST, MODEL, read_manifest, sha256_of
from edge_runner.model.goldens import read_goldens

pytestmark = pytest.mark.builder

UNIT = ("--normalize", "0..1")
LABELS = ("red", "green", "blue")
LEVELS = {"red": (25, 25, 230), "green": (25, 230, 25), "blue": (230, 25, 25)}
SIZE = (80, 60)  # of every picture, in pixels: none is of the models' form
PICTURES = 24
EMPTY = (0, 8, 15, 23)  # the very pictures that would be goldens
WHERE = {"red": (10, 6, 36, 24), "blue": (46, 30, 74, 54)}
"""x0, y0, x1, y1 in pixels of what the daemon is shown."""
TASKS = {
    "detect": {"type": "detect", "decoder": "yolov8"},
    "detect_sorted": {"type": "detect", "decoder": "yolo_nms"},
    "segment": {"type": "segment", "layout": "nhwc"},
    "segment_numbers": {"type": "segment"},
    "pose": {"type": "pose"},
}
CELL = 1 / 32  # of the models' input: what they can tell apart
CHOSEN = ("detect_sorted", "segment_numbers", "pose")  # those whose outputs were chosen within the model

Built = Callable[..., Path]


def dark(chance: np.random.Generator) -> Picture:
    """A picture with nothing to find."""
    return chance.integers(20, 60, (SIZE[1], SIZE[0], 3)).astype(np.uint8)


@pytest.fixture(scope="session")
def rectangles(once: Callable[..., Path]) -> Path:
    """Pictures of rectangles, red, green and blue; EMPTY of them have none."""

    def fill(folder: Path) -> None:
        chance = np.random.default_rng(8)
        for number in range(PICTURES):
            picture = dark(chance)
            for place, label in enumerate(() if number in EMPTY else chance.permutation(LABELS)[: 1 + number % 3]):
                x, y = chance.integers(0, 12, 2) + np.array((place * 26, number % 2 * 24))
                width, height = chance.integers(12, 28), chance.integers(14, 28)
                picture[y : y + height, x : x + width] = LEVELS[label]
            assert cv2.imwrite(str(folder / f"{number:02}.png"), picture)

    return once("rectangles", fill)


@pytest.fixture(scope="session")
def built(made: Callable[..., Path], rectangles: Path, once: Callable[..., Path]) -> Built:
    """The bundle of a model in one mode, calibrated with rectangles and, where its outputs do not name classes, without labels."""

    def lines(folder: Path) -> None:
        (folder / "detect.txt").write_text("\n".join(LABELS))
        (folder / "segment.txt").write_text("\n".join(("nothing", *LABELS)))

    def get(name: str, quantize: str = "none") -> Path:
        task = TASKS[name]["type"]
        labels = () if task == "pose" else ("--labels", once("task_labels", lines) / f"{task}.txt")
        return made(name, "--task", task, *UNIT, *labels, "--quantize", quantize, "--calibration", rectangles)

    return get


@pytest.fixture
def daemon(tmp_path: Path) -> Callable[[Path], dict[str, Any]]:
    """The daemon's one result on a picture of a red and a blue rectangle."""
    picture = dark(np.random.default_rng(9))
    for label, (x0, y0, x1, y1) in WHERE.items():
        picture[y0:y1, x0:x1] = LEVELS[label]
    assert cv2.imwrite(str(tmp_path / "shown.png"), picture)

    def result(bundle: Path) -> dict[str, Any]:
        config = tmp_path / "camera.yaml"
        config.write_text(f"camera: {{type: images, path: shown.png}}\nmodel: {{path: {bundle}}}\n")
        done = commands.run(*commands.EDGE_RUNNER, "run", "--config", config, "--once")
        assert (done.returncode, done.stderr) == (0, "")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return result


def fractions(label: str) -> np.ndarray:
    """x0, y0, x1, y1 of a rectangle, as fractions of the picture."""
    return np.array(WHERE[label]) / np.array(SIZE * 2)


def check_detections(result: dict[str, Any]) -> None:
    found = {detection["label"]: detection for detection in result["detections"]}
    assert sorted(found) == sorted(WHERE)
    for label in WHERE:
        assert found[label]["box"] == pytest.approx(fractions(label), abs=1.5 * CELL)
        assert found[label]["score"] > 0.9


def check_segments(result: dict[str, Any]) -> None:
    areas = {segment["label"]: segment["area"] for segment in result["segments"]}
    assert sorted(areas) == ["blue", "nothing", "red"]
    for label in WHERE:
        x0, y0, x1, y1 = fractions(label)
        assert areas[label] == pytest.approx((x1 - x0) * (y1 - y0), abs=0.03)


def check_points(result: dict[str, Any]) -> None:
    points = result["keypoints"]
    assert len(points) == 17
    x0, y0, x1, y1 = fractions("red")
    for point, way in zip(points, np.linspace(0, 1, 17), strict=True):
        assert (point["x"], point["y"]) == pytest.approx((x0 + (x1 - x0) * way, y0 + (y1 - y0) * way), abs=1.5 * CELL)
        assert point["score"] > 0.9


CHECKS = {"detect": check_detections, "segment": check_segments, "pose": check_points}
EVERY = [*((name, "none") for name in TASKS), ("detect", "int8"), ("segment_numbers", "int8"), ("pose", "int8")]


@pytest.mark.parametrize(("name", "quantize"), EVERY)
def test_from_the_saved_model_to_a_result(name, quantize, built, daemon):
    """The manifest says how the outputs are read, no answer was changed, and the daemon finds with it what is in the picture."""
    bundle = built(name, quantize)
    manifest = read_manifest(bundle)
    assert manifest.task == TASKS[name]
    assert (manifest.proof["verdict"], manifest.proof["samples"], manifest.proof["changed"]) == ("passed", PICTURES, 0)
    assert (manifest.outputs[0].dtype == "int64") == (name == "segment_numbers")
    CHECKS[manifest.task["type"]](daemon(bundle))


@pytest.mark.parametrize(("name", "quantize"), EVERY)
def test_goldens_hold(name, quantize, built):
    """The goldens are pictures in which something is found, though others came first; and they hold as the board replays them."""
    bundle = built(name, quantize)
    assert read_manifest(bundle).proof["goldens_answered"] == 4
    items = read_goldens(bundle / "golden.npz").items
    assert [int(item.picture.max()) for item in items] == [230] * 4
    inspected = commands.inspect(bundle)
    assert (inspected.returncode, inspected.stderr) == (0, "")
    assert "goldens: hold on this machine" in inspected.stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("detect", "off the host's"),
        ("detect_sorted", "] is missing"),
        ("segment", "off the host's"),
        ("segment_numbers", "of the map's cells have another class"),
        ("pose", "the host's person of score"),
    ],
)
def test_a_model_that_finds_it_elsewhere(name, words, built, saved_models, tmp_path):
    """A model of the same form that finds the same things an eighth further on is not taken for the one that was proven."""
    bundle = Path(shutil.copytree(built(name), tmp_path / "bundle"))
    content = (saved_models / f"{name}_moved.tflite").read_bytes()
    (bundle / MODEL).write_bytes(content)
    manifest = read_manifest(bundle)
    vouched = replace(manifest, files={**manifest.files, MODEL: sha256_of(content)})
    (bundle / MANIFEST).write_bytes(vouched.dump())
    line = commands.refusal(commands.inspect(bundle))
    assert "golden picture" in line
    assert words in line


def test_what_is_said(built):
    """The build says how it reads the outputs, and in how many golden pictures something is found."""
    said = (built("detect").parent / "said.txt").read_text()
    assert (
        "the outputs are read as yolov8, 'found' float32 [1, 7, 21] as 21 boxes of 3 classes (task.decoder: yolov8)"
        in said
    )
    assert said.count("the outputs are read as") == 1
    assert "something is found in 4 of 4 golden pictures" in said


@pytest.mark.parametrize("name", TASKS)
def test_what_is_found_is_drawn_in_the_report(name, built):
    """The report shows each golden with both answers drawn on it; outputs that were chosen in the model have no figures."""
    bundle = built(name)
    page, text = (bundle / "report.html").read_text(), (bundle / "report.md").read_text()
    for number in range(1, 5):
        for seen in ("SavedModel", ".tflite", "model"):
            assert f'alt="picture {number}, {seen}"' in page
    assert "The answers agree on all of them." in text
    assert ("its values are chosen within the model" in text) == (name in CHOSEN)
    [output] = read_manifest(bundle).proof["outputs"]
    assert (output["cosine"] is None) == (output["max_abs_error"] is None) == (name in CHOSEN)


def test_goldens_in_which_nothing_is_found(made, tmp_path_factory):
    """Where no picture has anything to find, the build, the manifest and the report say that the goldens prove little."""
    folder = tmp_path_factory.mktemp("nothing")
    chance = np.random.default_rng(10)
    for number in range(PICTURES):
        assert cv2.imwrite(str(folder / f"{number:02}.png"), dark(chance))
    sets = ("--set", "task.score_threshold=0.4", "--set", "task.max_results=1")
    bundle = made("pose", "--task", "pose", *UNIT, *sets, "--calibration", folder)
    manifest = read_manifest(bundle)
    assert manifest.proof["goldens_answered"] == 0
    assert manifest.task == {"type": "pose", "score_threshold": 0.4, "max_results": 1}
    for said in (bundle.parent / "said.txt", bundle / "report.md"):
        assert "othing is found in any golden picture" in said.read_text()
    assert commands.inspect(bundle).returncode == 0


def test_a_model_that_fits_no_decoder(refuse, saved_models):
    """Outputs that no decoder knows are shown, with the decoders that there are, in one line."""
    line = refuse(saved_models / "colour", "--task", "detect", *UNIT)
    assert "[1, 4]" in line
    for decoder in ("tflite_postprocess", "yolov5", "yolov8", "yolo_nms", "ssd_raw"):
        assert decoder in line


def test_a_decoder_that_does_not_fit(refuse, saved_models):
    """A decoder that was asked for and does not fit is refused with the option that named it."""
    options = ("--task", "detect", *UNIT, "--set", "task.decoder=yolo_nms")
    line = refuse(saved_models / "detect", *options)
    assert line.startswith("--set task.decoder: ")
    assert "[1, 7, 21]" in line


def test_labels_of_another_number(refuse, saved_models, tmp_path):
    """A detector's labels are as many as its classes."""
    (tmp_path / "two.txt").write_text("red\ngreen\n")
    line = refuse(saved_models / "detect", "--task", "detect", *UNIT, "--labels", tmp_path / "two.txt")
    assert line.startswith("--labels: ")
    assert "has 2 labels; output 'found' has 3 classes" in line
