"""What cannot become a bundle ends in one line that says what is wrong and what to do, and leaves nothing behind.

What is seen before TensorFlow is started is in test_main.py; what is seen when a model is opened, in test_savedmodel.py.
"""

from __future__ import annotations

import commands
import cv2
import numpy as np
import pytest

from edge_runner.builder.samples import find_pictures
from edge_runner.model.bundle import read_manifest

pytestmark = pytest.mark.builder

RECIPE = ("--normalize", "0..1")


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("select", RECIPE, ["operators that TensorFlow Lite does not have", "MatrixDeterminant"]),
        ("custom", RECIPE, ["custom operators", "PyFunc"]),
        ("no_signature", RECIPE, ["no signature", "model.export("]),
        ("weights.weights.h5", RECIPE, ["holds weights only", "model.save("]),
        ("two_pictures", RECIPE, ["2 inputs", "a camera's picture feeds just one"]),
        ("two", ("--task", "classify", *RECIPE), ["2 inputs"]),
        ("lstm", RECIPE, ["[1, 20, 8]", "[1, height, width, channels]"]),
        ("colour", (*RECIPE, "--color", "gray"), ["'gray' has 1 channel", "[1, 16, 16, 3]", "rgb or bgr"]),
        ("of_bytes", RECIPE, ["uint8", "0 to 1"]),
    ],
)
def test_a_model_that_does_not_fit(refuse, saved_models, model, options, words):
    """A model that the board could not run, or that is not fed as was said."""
    line = refuse(saved_models / model, *options)
    assert all(word in line for word in words), line


def test_labels_that_do_not_fit(refuse, saved_models, tmp_path):
    """Labels for another number of classes are refused with both numbers."""
    labels = tmp_path / "labels.txt"
    labels.write_text("red\ngreen\nblue\n")
    line = refuse(saved_models / "colour", *RECIPE, "--labels", labels)
    assert "3 labels" in line
    assert "4 classes" in line


def test_a_layer_that_scales_already(refuse, saved_models):
    """A recipe that scales, before a model that does so too, is refused: the layer is named, and what to say instead."""
    line = refuse(saved_models / "rescaling", *RECIPE)
    assert "rescaling" in line.partition("its own layer ")[2].split()[0]
    assert "--normalize raw" in line


def test_a_layer_that_scales_already_with_force(made, tmp_path):
    """--force takes it as it is, and the manifest says what speaks against it."""
    bundle = made("rescaling", *RECIPE, "--force")
    proof = read_manifest(bundle).proof
    assert proof["verdict"] == "failed"
    assert "its own layer" in proof["objections"][0]
    assert "its own layer" in commands.check(bundle, tmp_path).stderr


def test_a_keras_model_that_was_not_exported(saved_models, pictures, labels, tmp_path):
    """tf.saved_model.save of a Keras 3 model leaves variables outside of the graph in some releases: right, or refused."""
    done = commands.build(saved_models / "not_exported", *RECIPE, "--labels", labels, output=tmp_path / "bundle")
    if done.returncode == 0:
        assert read_manifest(tmp_path / "bundle").proof["verdict"] == "passed"
        assert commands.accuracy(tmp_path / "bundle", pictures) == 1.0
    else:
        assert "model.export(" in commands.refusal(done)


@pytest.fixture
def folder(tmp_path):
    """A folder of as many pictures as are asked for, changed."""

    def fill(count: int, change=lambda picture: picture):
        chance = np.random.default_rng(4)
        for number in range(count):
            picture = change(chance.integers(0, 256, (12, 16, 3)).astype(np.uint8))
            (tmp_path / "samples").mkdir(exist_ok=True)
            assert cv2.imwrite(str(tmp_path / "samples" / f"{number:02}.png"), picture)
        return tmp_path / "samples"

    return fill


def test_too_few_pictures(refuse, saved_models, folder):
    """A handful of pictures calibrates nothing: both numbers are said."""
    line = refuse(saved_models / "fixed", *RECIPE, "--quantize", "int8", "--calibration", folder(5))
    assert "5 pictures" in line
    assert "20" in line
    assert "--force" in line


def test_no_pictures(refuse, saved_models, tmp_path):
    """An empty folder is named, with the endings that pictures have."""
    (tmp_path / "empty").mkdir()
    line = refuse(saved_models / "fixed", *RECIPE, "--calibration", tmp_path / "empty")
    assert f"{tmp_path / 'empty'} holds no pictures" in line
    assert ".jpg" in line


def test_a_file_that_is_no_picture(refuse, saved_models, folder):
    """One file among many that only looks like a picture is named."""
    samples = folder(24)
    (samples / "23.png").write_text("no picture")
    line = refuse(saved_models / "fixed", *RECIPE, "--quantize", "int8", "--calibration", samples)
    assert f"{samples / '23.png'} cannot be read as a picture" in line


def test_grey_pictures(refuse, saved_models, folder):
    """Pictures without colour do not calibrate a colour model."""
    samples = folder(24, lambda picture: np.repeat(picture[..., :1], 3, 2))
    line = refuse(saved_models / "fixed", *RECIPE, "--quantize", "int8", "--calibration", samples)
    assert f"{samples} are grey" in line
    assert "rgb" in line


def test_few_and_grey_pictures_with_force(made, folder):
    """--force takes them, and says so in the manifest."""
    samples = folder(3, lambda picture: np.repeat(picture[..., :1], 3, 2))
    options = (*RECIPE, "--quantize", "int8", "--calibration", samples, "--force", "--max-loss", "1")
    objections = " ".join(read_manifest(made("fixed", *options)).proof["objections"])
    assert "3 pictures" in objections
    assert "grey" in objections


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": (24, 8), "b": (24, 7)}, ["'b'", "[24, 7]", "[samples, 8]"]),
        ({"a": (24, 8), "c": (24, 8)}, ["no array 'b'", "a, c"]),
        ({"a": (24, 8), "b": (20, 8)}, ["'a' 24", "'b' 20"]),
        ({"a": (5, 8), "b": (5, 8)}, ["5 samples", "20"]),
    ],
)
def test_arrays_that_do_not_fit(refuse, saved_models, tmp_path, arrays, words):
    """Samples of another shape, under another name, not equally many, or too few."""
    np.savez(tmp_path / "x.npz", **{name: np.ones(shape, np.float32) for name, shape in arrays.items()})
    line = refuse(saved_models / "two", "--task", "raw", "--quantize", "int8", "--calibration", tmp_path / "x.npz")
    assert "x.npz" in line
    assert all(word in line for word in words), line


def test_arrays_of_pictures_with_other_channels(refuse, saved_models, tmp_path):
    """Prepared pictures must have the model's channels."""
    np.savez(tmp_path / "x.npz", np.ones((24, 16, 16, 4), np.float32))
    prepared = ("--quantize", "int8", "--calibration", tmp_path / "x.npz")
    line = refuse(saved_models / "fixed", "--task", "raw", *prepared)
    assert "[24, 16, 16, 4]" in line
    assert "[samples, 16, 16, 3]" in line


def test_arrays_for_a_model_with_a_recipe(refuse, saved_models, tmp_path):
    """Arrays would go past the recipe that the board prepares pictures with: pictures are wanted."""
    np.savez(tmp_path / "x.npz", np.ones((24, 16, 16, 3), np.float32))
    assert "a folder of pictures" in refuse(saved_models / "fixed", *RECIPE, "--calibration", tmp_path / "x.npz")


def test_pictures_for_a_model_without_a_recipe(refuse, saved_models, pictures):
    """A folder of pictures feeds no model of which it was not said how pictures are prepared."""
    line = refuse(saved_models / "two", "--task", "raw", "--calibration", pictures)
    assert "--normalize" in line
    assert ".npz" in line


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / "purple").mkdir(), "purple"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "no sub-folders"),
    ],
)
def test_labelled_pictures_that_do_not_fit(refuse, saved_models, pictures, labels, tmp_path, change, says):
    """--evaluate wants a sub-folder a label: one that is no label, or none at all, is refused."""
    folder = tmp_path / "labelled"
    folder.mkdir()
    for name in commands.LABELS:
        (folder / name).symlink_to(pictures / name)
    change(folder)
    if (folder / "purple").exists():
        (folder / "purple/1.png").write_bytes(find_pictures(pictures)[0].read_bytes())
    line = refuse(saved_models / "colour", *RECIPE, "--labels", labels, "--evaluate", folder)
    assert "--evaluate" in line
    assert says in line


def test_a_version_that_never_was(refuse, saved_models):
    """A target of a version that was never published is refused, with those that were."""
    line = refuse(saved_models / "fixed", *RECIPE, "--target", "ai-edge-litert==0.0.1", code=None)
    if "could not be installed" in line:
        pytest.skip(line)
    assert "no ai-edge-litert 0.0.1" in line
    assert "2.1.0" in line
