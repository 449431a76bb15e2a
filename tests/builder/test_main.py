"""The builder's command line, as far as it needs no TensorFlow."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runner.builder.__main__ import NORMALIZATIONS
from edge_runner.builder.pictures import golden_pictures, made_up_pictures, noisy, read_pictures, shrunk
from edge_runner.errors import SettingError


def build(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_runner.builder", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "say once how the model's pictures were normalised"),
        (("--normalize", "raw", "--mean", "1", "--std", "1"), "say once"),
        (("--mean", "1"), "say once"),
        (("--normalize", "0..2"), "invalid choice"),
        (("--normalize", "keras-caffe", "--color", "rgb"), "goes with --color bgr"),
        (("--normalize", "raw", "--quantise", "int8"), "unrecognized arguments"),
    ],
)
def test_a_recipe_that_is_not_said_is_a_usage_error(options, says, tmp_path):
    """There is no default normalisation; what contradicts itself is refused with 2."""
    done = build(tmp_path, "--output", tmp_path / "out", *options)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.splitlines()[-1].startswith("edge-runner: error: ")


@pytest.mark.parametrize(
    "option", [("--normalize", "-1..1"), ("--mean", "-1,-2,-3", "--std", "1"), ("--normalize=-1..1",)]
)
def test_values_may_begin_with_a_dash(option, tmp_path):
    """`--normalize -1..1` is understood as it is written."""
    done = build(tmp_path, "--output", tmp_path / "out", *option)
    assert done.returncode == 78, "it came as far as looking for the model"


def test_no_saved_model_says_what_is_missing(tmp_path):
    """A folder that is no SavedModel is refused with the names of the files that it lacks."""
    done = build(tmp_path, "--output", tmp_path / "out", "--normalize", "raw")
    assert done.returncode == 78
    assert "saved_model.pb and variables missing" in done.stderr


def saved_model(folder: Path) -> Path:
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").touch()
    return folder


def test_int8_wants_enough_pictures(tmp_path):
    """Without pictures, with none in the folder, with too few, or with one that is none, int8 is refused and says so."""
    model = saved_model(tmp_path / "model")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    options = ("--output", tmp_path / "out", "--normalize", "raw", "--quantize", "int8")
    assert "--calibration" in build(model, *options).stderr
    assert "holds no pictures" in build(model, *options, "--calibration", pictures).stderr
    cv2.imwrite(str(pictures / "one.png"), np.zeros((8, 8, 3), np.uint8))
    done = build(model, *options, "--calibration", pictures)
    assert done.returncode == 78
    assert "holds 1 pictures; calibration wants 20" in done.stderr
    (pictures / "two.png").write_text("no picture")
    assert "two.png cannot be read" in build(model, *options, "--calibration", pictures).stderr


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path):
    """An --output that holds something else is left alone."""
    precious = tmp_path / "out" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("precious")
    done = build(saved_model(tmp_path / "model"), "--output", precious.parent, "--normalize", "raw")
    assert done.returncode == 78
    assert "is no bundle" in done.stderr
    assert precious.read_text() == "precious"


def test_presets_are_what_keras_does():
    """Each preset maps the ends of 0..255 to what its framework trains with."""
    mapped = {
        name: [((0 - m) / s, (255 - m) / s) for m, s in zip(mean, std, strict=True)]
        for name, (mean, std, _) in NORMALIZATIONS.items()
    }
    assert mapped["raw"] == [(0, 255)]
    assert mapped["0..1"] == [(0, 1)]
    assert mapped["-1..1"] == [(-1, 1)]
    assert mapped["keras-caffe"][0] == pytest.approx((-103.939, 151.061))
    assert mapped["keras-torch"][0] == pytest.approx((-0.485 / 0.229, (1 - 0.485) / 0.229))


def test_pictures_are_found_below_folders_and_made_up_alike(tmp_path):
    """Sub-folders count, in the order of their paths; made-up pictures are the same each time."""
    for name in ("b/1.png", "a/2.jpg"):
        (tmp_path / name).parent.mkdir()
        cv2.imwrite(str(tmp_path / name), np.full((4, 4, 3), len(name) + ord(name[0]), np.uint8))
    assert [int(p[0, 0, 0]) for p in read_pictures(tmp_path)] == [len("a/2.jpg") + ord("a"), len("b/1.png") + ord("b")]
    with pytest.raises(SettingError):
        read_pictures(tmp_path / "nothing")
    assert all(np.array_equal(a, b) for a, b in zip(made_up_pictures(), made_up_pictures(), strict=True))


def test_goldens_are_few_small_and_of_the_same_form():
    """Four pictures, the shorter side at most twice the model's input, their form kept; smaller ones as they are."""
    goldens = golden_pictures([np.zeros((480, 640, 3), np.uint8)] * 10, 48, 48)
    assert [g.shape for g in goldens] == [(96, 128, 3)] * 4
    small = np.zeros((10, 20, 3), np.uint8)
    assert shrunk(small, 96) is small


def test_noise_is_one_level_at_most():
    """Noise moves a level by one at the most, and stays within 0..255."""
    picture = np.array([[[0, 128, 255]] * 50], np.uint8)
    difference = noisy(picture, 1).astype(int) - picture
    assert set(np.unique(difference)) == {-1, 0, 1}
