"""The digits example: the model reads digits that it never saw, through the daemon's own path."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
SEED = 2026  # neither the demo's nor one that the model was chosen by
FRAMES = 200
EVALUATED = 20  # frames a label

# train.py up to its training: no scikit-learn, so no training digits but blank ones; and no TensorFlow.
PREPARE = """
import sys, numpy as np, train
def stop(*_): sys.exit(0)
with np.load(train.HELDOUT) as file:
    heldout = train.Digits(file["images"], file["labels"])
blank = heldout._replace(images=np.zeros_like(heldout.images))
train.split, train.rendered = lambda: (blank, heldout), stop
train.main(["--output", sys.argv[1], "--heldout", sys.argv[1] + "/heldout.npz"])
"""


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "frames"
    command = [
        sys.executable,
        str(DIGITS / "render.py"),
        "--output",
        str(folder),
        "--count",
        str(FRAMES),
        "--seed",
        str(SEED),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    subprocess.run([sys.executable, "-c", PREPARE, str(folder)], check=True, capture_output=True, cwd=DIGITS)
    return folder / "evaluate"


@pytest.mark.parametrize("bundle", ["digits", "digits-int8"])
def test_held_out_digits_are_read(bundle, frames):
    """At least 97 % of held-out digits are read right, float32 and int8, each frame answered once and in order."""
    command = [sys.executable, "-m", "edge_runner", "--config", str(DIGITS / "digits.yaml")]
    results = frames.parent / f"{bundle}.jsonl"
    for setting in (f"model.path={DIGITS / 'models' / bundle}", f"camera.path={frames}", f"outputs.1.path={results}"):
        command += ["--set", setting]
    subprocess.run(command, check=True, capture_output=True)
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["source"] for line in lines] == sorted(path.name for path in frames.iterdir())
    right = sum(line["classifications"][0]["label"] == Path(line["source"]).stem[-1] for line in lines)
    assert right / len(lines) >= 0.97
    assert {line["model"]["name"] for line in lines} == {bundle}


def test_frames_are_a_cameras(frames):
    """Frames are 640x480 in colour, every digit comes equally often, and no two are alike."""
    paths = sorted(frames.iterdir())
    assert len(paths) == FRAMES
    labels = [path.stem[-1] for path in paths]
    assert {label: labels.count(label) for label in set(labels)} == {str(digit): FRAMES // 10 for digit in range(10)}
    pictures = [cv2.imread(str(path)) for path in paths[:10]]
    assert {picture.shape for picture in pictures} == {(480, 640, 3)}
    assert len({picture.tobytes() for picture in pictures}) == 10


def test_evaluation_frames_lie_in_a_folder_a_label(evaluation):
    """train.py leaves as many frames of each label as of any other, in folders that are called as the model's labels are."""
    labels = (DIGITS / "models" / "digits" / "labels.txt").read_text().split()
    assert sorted(path.name for path in evaluation.iterdir()) == labels
    frames = {label: sorted((evaluation / label).iterdir()) for label in labels}
    assert {label: len(paths) for label, paths in frames.items()} == dict.fromkeys(labels, EVALUATED)
    assert len({path.read_bytes() for paths in frames.values() for path in paths}) == EVALUATED * len(labels)
    assert cv2.imread(str(frames["0"][0])).shape == (480, 640, 3)


def test_evaluation_frames_show_held_out_digits(evaluation, tmp_path):
    """The model finds in each folder the digit that it is called after; of training digits, here blank, it could not."""
    results = tmp_path / "results.jsonl"
    command = [sys.executable, "-m", "edge_runner", "--config", str(DIGITS / "digits.yaml")]
    for setting in (f"camera.path={evaluation}/*/*.jpg", f"outputs.1.path={results}"):
        command += ["--set", setting]
    subprocess.run(command, check=True, capture_output=True)
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    frames = sorted(evaluation.glob("*/*.jpg"))
    assert [line["source"] for line in lines] == [path.name for path in frames]
    answers = [line["classifications"][0]["label"] for line in lines]
    assert sum(answer == path.parent.name for answer, path in zip(answers, frames, strict=True)) / len(lines) >= 0.97


def test_held_out_digits_are_scikit_learns():
    """The committed digits are 8x8 with levels 0..16, and hold every class."""
    with np.load(DIGITS / "heldout.npz") as file:
        images, labels = file["images"], file["labels"]
    assert images.shape == (360, 8, 8)
    assert images.max() == 16
    assert set(labels) == set(range(10))


def test_demo_reports_what_it_saw(tmp_path):
    """The demo prints results as they come, then how many were right, the rate and each stage, and draws a contact sheet."""
    run = [sys.executable, str(DIGITS / "demo.py"), "--work", str(tmp_path), "--count", "20"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sum(line.startswith("{") for line in done.stdout.splitlines()) == 20
    for words in ("frames:        20", "right:", "frames/s:", "inference"):
        assert words in done.stdout
    assert cv2.imread(str(tmp_path / "contact_sheet.jpg")) is not None
