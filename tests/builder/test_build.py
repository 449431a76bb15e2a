"""Builds as a whole: what a bundle holds, that it is the same each time, that nobody can change it, and how builds end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import time
import uuid
from contextlib import suppress
from pathlib import Path

import commands
import cv2
import numpy as np
import pytest

from edge_runner.builder.stage import packed_bundle
from edge_runner.errors import EXIT_CONFIG, EXIT_FAILED
from edge_runner.model.bundle import MANIFEST, ModelConfig, damages, open_model, read_manifest
from edge_runner.model.labels import embedded_labels

pytestmark = pytest.mark.builder

FILES = ["golden.npz", "labels.txt", "manifest.json", "model.tflite", "report.html", "report.md"]
RECIPE = ("--normalize", "0..1")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_a_bundle_holds(colour):
    """Model, labels, manifest, goldens and report; the manifest vouches for what the board reads, and names the rest."""
    assert sorted(path.name for path in colour.iterdir()) == FILES
    manifest = read_manifest(colour)
    assert damages(colour, manifest) == []
    assert set(manifest.files) == {"golden.npz", "labels.txt", "model.tflite"}
    assert manifest.name == "bundle", "the folder's, where nothing else was said"
    assert manifest.version == manifest.files["model.tflite"][:8]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", manifest.created)
    assert manifest.task == {"type": "classify"}
    assert (manifest.preprocess.color, manifest.preprocess.mean, manifest.preprocess.std) == ("rgb", (0.0,), (255.0,))
    assert [(i.shape, i.dtype) for i in manifest.inputs] == [((1, 16, 16, 3), "int8")]
    assert manifest.proof["verdict"] == "passed"
    assert manifest.proof["objections"] == []
    [output] = manifest.proof["outputs"]
    assert output["cosine"] > 0.999
    assert output["max_abs_error"] < 0.05


def test_labels_travel_in_the_model_too(colour):
    """Other readers of .tflite files find the labels in the model itself."""
    assert embedded_labels((colour / "model.tflite").read_bytes()) == commands.LABELS
    assert (colour / "labels.txt").read_text() == "red\ngreen\nblue\ndark\n"


def test_what_is_said_at_the_end(colour):
    """The last lines sum up: name, version and mode, the proof with its figures, top-1, the recipe's verdict."""
    manifest = read_manifest(colour)
    said = (colour.parent / "said.txt").read_text()
    assert f"{manifest.name} {manifest.version}, int8" in said
    assert "proof passed: 0.0% of the answers to 32 samples changed" in said
    assert "top-1: SavedModel 100.0%, .tflite 100.0%" in said
    assert said.rstrip().endswith("recipe verified")
    assert str(colour) in said
    assert f"{manifest.name}-{manifest.version}.tar.gz" in said


def test_the_archive_is_a_bundle(colour, tmp_path):
    """NAME-VERSION.tar.gz beside the folder unpacks to one folder of that name, which the board accepts."""
    manifest = read_manifest(colour)
    name = f"{manifest.name}-{manifest.version}"
    assert sorted(path.name for path in colour.parent.iterdir()) == ["bundle", f"{name}.tar.gz", "said.txt"]
    with tarfile.open(colour.parent / f"{name}.tar.gz") as archive:
        assert {member.split("/")[0] for member in archive.getnames()} == {name}
    subprocess.run(["tar", "xzf", archive.name, "-C", tmp_path], check=True)
    assert contents(tmp_path / name) == contents(colour)
    checked = commands.check(tmp_path / name, tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_name_and_version_may_be_said(made):
    """--name and --model-version stand in the manifest and in the archive's name."""
    bundle = made("fixed", *RECIPE, "--name", "birds", "--model-version", "2.1")
    manifest = read_manifest(bundle)
    assert (manifest.name, manifest.version) == ("birds", "2.1")
    assert (bundle.parent / "birds-2.1.tar.gz").is_file()


def test_equal_builds_differ_in_their_date_alone(made, saved_models, pictures, tmp_path):
    """The same model, pictures and versions give the same files, and the same manifest but for its date."""
    options = (*RECIPE, "--quantize", "int8", "--calibration", pictures, "--name", "same")
    one, two = made("colour", *options), tmp_path / "two"
    assert commands.build(saved_models / "colour", *options, output=two).returncode == 0
    for name in ("model.tflite", "golden.npz"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    first, second = (json.loads((bundle / MANIFEST).read_text()) for bundle in (one, two))
    assert {key for key in first if first[key] != second[key]} <= {"created", "digest"}
    say(two, "created", value=first["created"])
    say(two, "digest", value=first["digest"])
    for name in FILES[-2:]:  # a report tells the folder's name, and the date
        (two / name).write_bytes((one / name).read_bytes())
    assert packed_bundle(one, "same") == packed_bundle(two, "same")


def test_a_rebuild_replaces_the_bundle(saved_models, pictures, labels, tmp_path):
    """Building into an older bundle's folder swaps it whole: nothing of the older one stays in it."""
    bundle = tmp_path / "place/bundle"
    assert commands.build(saved_models / "colour", *RECIPE, "--labels", labels, output=bundle).returncode == 0
    before = read_manifest(bundle)
    assert "labels.txt" in os.listdir(bundle)
    options = (*RECIPE, "--quantize", "int8", "--calibration", pictures)
    assert commands.build(saved_models / "colour", *options, output=bundle).returncode == 0
    after = read_manifest(bundle)
    assert before.version != after.version
    assert sorted(os.listdir(bundle)) == sorted(set(FILES) - {"labels.txt"})
    archives = {f"bundle-{manifest.version}.tar.gz" for manifest in (before, after)}
    assert set(os.listdir(bundle.parent)) == {"bundle", *archives}


@pytest.fixture
def copy(colour, tmp_path):
    """A copy of the bundle, to be tampered with."""
    return Path(shutil.copytree(colour, tmp_path / "copy"))


def say(bundle: Path, *keys: str | int, value: object) -> None:
    """Change one thing in the manifest, and leave its digest as it was."""
    path = bundle / MANIFEST
    whole = part = json.loads(path.read_text())
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_labels(bundle: Path) -> None:
    (bundle / "labels.txt").write_text("green\nred\nblue\ndark\n")


TAMPERING = [
    (lambda bundle: say(bundle, "preprocess", "mean", 0, value=0.5), ["manifest.json was changed", "preprocess.mean"]),
    (lambda bundle: say(bundle, "preprocess", "color", value="bgr"), ["manifest.json was changed", "color is bgr"]),
    (lambda bundle: say(bundle, "proof", "recipe", value="not verified"), ["manifest.json was changed"]),
    (lambda bundle: say(bundle, "name", value="eagles"), ["manifest.json was changed"]),
    (replace_labels, ["labels.txt was changed"]),
    (lambda bundle: flip(bundle / "model.tflite"), ["model.tflite was changed or damaged"]),
    (lambda bundle: flip(bundle / "golden.npz"), ["golden.npz was changed or damaged"]),
    (lambda bundle: (bundle / "labels.txt").unlink(), ["labels.txt is missing"]),
    (lambda bundle: (bundle / "model.tflite").unlink(), ["model.tflite is missing"]),
]


@pytest.mark.parametrize(
    ("tamper", "words"),
    TAMPERING,
    ids=["mean", "color", "verdict", "name", "labels", "model", "goldens", "no labels", "no model"],
)
def test_tampering(copy, tmp_path, tamper, words):
    """Whatever is changed in a bundle, one number, one byte: the board refuses it, and says which file, and which key."""
    tamper(copy)
    line = commands.refusal(commands.check(copy, tmp_path))
    assert all(word in line for word in words), line


def test_reports_are_not_vouched_for(copy, tmp_path):
    """A report may be edited, or not sent at all: the board does not read it."""
    (copy / "report.html").unlink()
    assert commands.check(copy, tmp_path).returncode == 0


def test_a_bundle_opens_as_the_model_that_it_was(colour):
    """The board reads name, version and labels from it."""
    model = open_model(ModelConfig(path=colour))
    assert (model.name, model.labels) == ("bundle", commands.LABELS)


def marked(mark: str) -> list[str]:
    """The processes that were started with this mark in their environment, and still run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile, or is another user's
            if mark.encode() in (folder / "environ").read_bytes() and (folder / "cmdline").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
    return found


@pytest.fixture
def older(colour, tmp_path):
    """An older bundle in the place of the new one."""
    return Path(shutil.copytree(colour, tmp_path / "place/bundle"))


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes cannot be looked at here")
@pytest.mark.parametrize("ending", ["Ctrl-C", "Ctrl-C at once", "SIGTERM"])
def test_an_interrupted_build(saved_models, pictures, older, tmp_path, ending):
    """Ctrl-C or SIGTERM in the middle: one line, the older bundle whole, nothing beside it, no process and no file left."""
    before, mark = contents(older), uuid.uuid4().hex
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    options = (*RECIPE, "--quantize", "int8", "--calibration", pictures)
    command = [*commands.BUILD, saved_models / "colour", "--output", older, *options]
    environment = {**os.environ, "TMPDIR": str(temporary), "EDGE_RUNNER_MARK": mark, "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(list(map(str, command)), env=environment, start_new_session=True, **pipes) as building:
        if ending == "Ctrl-C at once":
            while not any(
                "multiprocessing" in command for command in marked(mark)
            ):  # TensorFlow's process is being started
                time.sleep(0.001)
        else:
            assert building.stdout.readline().startswith("SavedModel of TensorFlow")
        if ending == "SIGTERM":
            building.terminate()
        else:
            os.killpg(building.pid, signal.SIGINT)  # as a terminal does: every process of the group
        stderr = building.communicate(timeout=commands.TIMEOUT_S)[1]
    assert (building.returncode, stderr) == (EXIT_FAILED, "edge-runner: error: interrupted; nothing was changed\n")
    assert contents(older) == before
    assert os.listdir(older.parent) == ["bundle"]
    assert os.listdir(temporary) == []
    while marked(mark):  # a helper of Python's ends when it sees that the others have ended
        time.sleep(0.02)


MOUNTED = ["unshare", "--mount", "--map-root-user", "sh", "-c"]


def can_mount() -> bool:
    try:
        return commands.run(*MOUNTED, "mount -t tmpfs tmpfs /mnt").returncode == 0
    except OSError:
        return False


@pytest.fixture
def in_place(tmp_path):
    """Build where `mount` has put a file system of its own; return the process, which prints what is there at the end."""
    place = tmp_path / "place"
    place.mkdir()
    if not can_mount():
        pytest.skip("nothing can be mounted here")

    def run(mount: str, *arguments: object, **environment: str) -> commands.Done:
        script = f'cd {place}; {mount} && cd {place} && "$@"; code=$?; echo LEFT; ls -A; exit $code'
        command = [*MOUNTED, script, "sh", *commands.BUILD, *arguments]
        return commands.run(*command, env={**os.environ, **environment})

    return run


def left(done: commands.Done) -> list[str]:
    """What lay in the place at the end."""
    return done.stdout.partition("LEFT\n")[2].splitlines()


def test_a_full_disk(in_place, saved_models, tmp_path):
    """No space for the bundle: one line with the place, code 1, since nothing is wrong with the model; nothing is left."""
    place = tmp_path / "place"
    mount = f"mount -t tmpfs -o size=64k tmpfs {place}"
    done = in_place(mount, saved_models / "colour", "--output", place / "bundle", *RECIPE)
    assert "no space left on device" in commands.refusal(done, EXIT_FAILED)
    assert left(done) == []


def test_a_full_disk_keeps_the_older_bundle(in_place, saved_models, colour, tmp_path):
    """An older bundle on a disk that is too full for a new one stays as it was."""
    place = tmp_path / "place"
    mount = f"mount -t tmpfs -o size=200k tmpfs {place} && cp -r {colour} {place}/bundle"
    done = in_place(f"{mount}", saved_models / "colour", "--output", place / "bundle", *RECIPE)
    assert "no space left on device" in commands.refusal(done, EXIT_FAILED)
    assert left(done) == ["bundle"]


def test_a_full_temporary_folder(in_place, saved_models, tmp_path):
    """No space for temporary files is told as such: it is no fault of the model's."""
    place = tmp_path / "place"
    mount = f"mount -t tmpfs -o size=8k tmpfs {place}"
    done = in_place(mount, saved_models / "colour", "--output", tmp_path / "bundle", *RECIPE, TMPDIR=str(place))
    assert "no space left on device" in commands.refusal(done, EXIT_FAILED)
    assert not (tmp_path / "bundle").exists()


def test_a_folder_that_cannot_be_written(in_place, saved_models, tmp_path):
    """A read-only place is found out before TensorFlow is started: one line with the place, code 1."""
    place = tmp_path / "place"
    mount = f"mount --bind {place} {place} && mount -o remount,bind,ro {place}"
    done = in_place(mount, saved_models / "colour", "--output", place / "bundle", *RECIPE)
    line = commands.refusal(done, EXIT_FAILED)
    assert str(place / "bundle") in line
    assert "read-only file system" in line
    assert done.stdout == "LEFT\n"


def test_verbose_shows_tensorflows_own_words(saved_models, tmp_path):
    """--verbose shows what is kept quiet otherwise, and still ends in the one line."""
    done = commands.build(saved_models / "select", *RECIPE, "--verbose", output=tmp_path / "bundle")
    *words, line = done.stderr.splitlines()
    assert done.returncode == EXIT_CONFIG
    assert line.startswith("edge-runner: error: ")
    assert any("Traceback" in word for word in words)
    assert any("MatrixDeterminant" in word for word in words)


def test_goldens_are_pictures_of_the_calibration(made, pictures):
    """The goldens are four of the pictures that were given, spread over their folders."""
    bundle = made("colour", *RECIPE, "--calibration", pictures)
    given = {path.read_bytes() for path in pictures.rglob("*.png")}
    known = {cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).tobytes() for content in given}
    with np.load(bundle / "golden.npz") as file:
        stored = [file[f"picture_{number}"] for number in range(4)]
        assert "picture_4" not in file.files
    assert all(picture.tobytes() in known for picture in stored)
    brightest = [int(picture.mean((0, 1)).argmax()) if picture.mean() > 50 else 3 for picture in stored]
    assert sorted(brightest) == [0, 1, 2, 3]
