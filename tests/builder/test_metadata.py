"""Standard metadata in a .tflite file, read back field by field, by numbers that are written here once more."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runner.builder.metadata import Card
from edge_runner.errors import ModelError, SettingError
from edge_runner.model.flatbuffer import Table, read_graph
from edge_runner.model.interpreter import Interpreter, find_runtime
from edge_runner.model.labels import embedded_labels
from edge_runner.model.preprocess import Recipe
from edge_runner.model.structure import check_structure

pytestmark = pytest.mark.builder

DATA = Path(__file__).parent.parent / "data"
RAW = Recipe("rgb", (0.0,), (1.0,))
UNIT = Recipe("rgb", (0.0,), (255.0,))
GRAY = Recipe("gray", (0.0,), (255.0,))
CAFFE = Recipe("bgr", (103.939, 116.779, 123.68), (1.0,))
COLOURS = ("rot", "grün", "blau")
CARD = Card("colours", "Which colour a picture mostly has.", "3", UNIT, COLOURS, "classify")
FEATURE, IMAGE, BOUNDING_BOX = 1, 2, 3
UNKNOWN, RGB, GRAYSCALE = 0, 1, 2

# TensorFlow is not imported into the tests' process: it warns, and warnings are errors here.
EMBED = """
import pickle, sys
from pathlib import Path
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils
from edge_runner.builder.metadata import embed

def signed(content):
    model = flatbuffer_utils.convert_bytearray_to_object(content)
    entries = [schema.TensorMapT(), schema.TensorMapT()]
    entries[0].name, entries[0].tensorIndex = "image", int(model.subgraphs[0].inputs[0])
    entries[1].name, entries[1].tensorIndex = "scores", int(model.subgraphs[0].outputs[0])
    signature = schema.SignatureDefT()
    signature.inputs, signature.outputs, signature.signatureKey = entries[:1], entries[1:], "serving_default"
    model.signatureDefs = [signature]
    return flatbuffer_utils.convert_object_to_bytearray(model)

def result(content, *cards):
    try:
        for card in cards:
            content = embed(content, card)
        return content
    except Exception as error:
        return error

jobs = pickle.loads(Path(sys.argv[1]).read_bytes())
done = {name: result(content, *cards) for name, (content, cards) in jobs.items()}
done["signed before"] = signed(jobs["plain"][0])
done["signed"] = result(done["signed before"], *jobs["plain"][1])
Path(sys.argv[2]).write_bytes(pickle.dumps(done))
"""

# A job's name, the model, and the cards that are put in, one after the other.
JOBS: dict[str, tuple[str, tuple[Card, ...]]] = {
    "plain": ("colour", (CARD,)),
    "twice": ("colour", (replace(CARD, name="older", labels=("a", "b", "c"), version=None), CARD)),
    "had labels": ("labelled", (CARD,)),
    "bgr": ("colour", (replace(CARD, recipe=CAFFE),)),
    "gray": ("quadrant", (replace(CARD, recipe=GRAY, labels=("a", "b", "c", "d")),)),
    "planar": ("nchw", (replace(CARD, recipe=replace(CAFFE, std=(1.0, 2.0, -4.0))),)),
    "uint8": ("uint8", (CARD,)),
    "bytes": ("uint8", (replace(CARD, recipe=RAW),)),
    "int8": ("quantized", (CARD,)),
    "int16": ("int16", (CARD,)),
    "binary": ("binary", (replace(CARD, labels=("no", "yes")),)),
    "raw": ("two_outputs", (replace(CARD, task="raw"),)),
    "three inputs": ("three_inputs", (replace(CARD, labels=None),)),
    "no labels": ("labelled", (replace(CARD, labels=None),)),
    "no recipe": ("colour", (replace(CARD, recipe=None, version=None),)),
    "wrong colour": ("colour", (replace(CARD, recipe=GRAY),)),
    "line break": ("colour", (replace(CARD, labels=("a\nb", "c")),)),
    "rising numbers": ("colour", (replace(CARD, labels=("1 euro", "2 euro", "5 euro")),)),
    "blank": ("colour", (replace(CARD, labels=("a", " ", "c")),)),
    "detector": ("rect_four", (replace(CARD, task="detect"),)),
    "ssd": ("rect_ssd", (replace(CARD, task="detect", labels=None),)),
    "detector unnamed": ("rect_four_unnamed", (replace(CARD, task="detect"),)),
    "yolo": ("rect_yolov8", (replace(CARD, task="detect"),)),
    "segmenter": ("seg_logits_nhwc", (replace(CARD, task="segment", labels=("none", *COLOURS)),)),
    "planar segmenter": ("seg_logits_nchw", (replace(CARD, task="segment", labels=("none", *COLOURS)),)),
}


def model_of(job: str) -> bytes:
    return (DATA / f"{JOBS[job][0]}.tflite").read_bytes()


def run(folder: Path) -> dict[str, Any]:
    """The outcome of every job, bytes or an error, from one process that has TensorFlow."""
    jobs, done = folder / "jobs", folder / "done"
    jobs.write_bytes(pickle.dumps({name: (model_of(name), cards) for name, (_, cards) in JOBS.items()}))
    subprocess.run([sys.executable, "-c", EMBED, str(jobs), str(done)], check=True, capture_output=True)
    outcomes: dict[str, Any] = pickle.loads(done.read_bytes())
    return outcomes


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("metadata"))


@pytest.fixture
def done(outcomes: dict[str, Any]) -> Callable[[str], bytes]:
    def get(job: str) -> bytes:
        content = outcomes[job]
        assert isinstance(content, bytes), content
        return content

    return get


def entries(content: bytes) -> list[tuple[str, bytes]]:
    """The model's metadata entries: name and content of the buffer."""
    root = Table.root(content)
    buffers = list(root.tables(4))
    return [(entry.text(0), buffers[entry.number(1, "<I")].data(0)) for entry in root.tables(6)]


def weights(content: bytes) -> list[bytes]:
    """The content of every buffer that is not our metadata's."""
    root = Table.root(content)
    ours = [entry.number(1, "<I") for entry in root.tables(6) if entry.text(0) == "TFLITE_METADATA"]
    return [buffer.data(0) for i, buffer in enumerate(root.tables(4)) if i not in ours]


def read(content: bytes) -> dict[str, Any]:
    """The metadata, decoded. The numbers are those of metadata_schema.fbs 1.5.0."""
    (data,) = [data for name, data in entries(content) if name == "TFLITE_METADATA"]
    assert data[4:8] == b"M001"
    root = Table(data, struct.unpack_from("<I", data)[0])
    (graph,) = root.tables(3)
    return {
        "name": root.text(0),
        "description": root.text(1),
        "version": root.text(2),
        "inputs": [tensor(table) for table in graph.tables(2)],
        "outputs": [tensor(table) for table in graph.tables(3)],
        "groups": [(group.text(0), texts(group, 1)) for group in graph.tables(8)],
        "files": files(root, 6),
        "min_parser_version": root.text(7),
    }


def tensor(table: Table) -> dict[str, Any]:
    content, stats = table.table(3), table.table(5)
    assert content is not None
    found: dict[str, Any] = {"name": table.text(0), "content": content.number(0, "<B"), "files": files(table, 6)}
    if found["content"] == IMAGE:
        properties = content.table(1)
        assert properties is not None
        found["color"] = properties.number(0, "<b")
    if found["content"] == BOUNDING_BOX:
        properties = content.table(1)
        assert properties is not None
        found |= {"index": list(properties.numbers(0)), "type": properties.number(1, "<b")}
        found["coordinates"] = properties.number(2, "<b")
    extent = content.table(2)
    if extent is not None:
        found["range"] = (extent.number(0, "<i"), extent.number(1, "<i"))
    if stats is not None:
        found |= {"high": floats(stats, 0), "low": floats(stats, 1)}
    for unit in table.tables(4):
        assert unit.number(0, "<B") == 1, "NormalizationOptions"
        options = unit.table(1)
        assert options is not None
        found |= {"mean": floats(options, 0), "std": floats(options, 1)}
    return found


def files(table: Table, field: int) -> list[tuple[str, int]]:
    return [(file.text(0), file.number(2, "<b")) for file in table.tables(field)]


def texts(table: Table, field: int) -> list[str]:
    """A vector of strings: each stands where its own offset leads, its length before it."""
    start, count = table.items(field, 4)
    content, found = table._content, []
    for position in range(start, start + 4 * count, 4):
        place = position + struct.unpack_from("<I", content, position)[0]
        length = struct.unpack_from("<I", content, place)[0]
        found.append(content[place + 4 : place + 4 + length].decode())
    return found


def floats(table: Table, field: int) -> list[float]:
    return list(np.array(table.numbers(field), np.int32).view(np.float32).astype(float))


def test_what_the_card_says_is_in_the_file(done):
    """Name, description and version are the card's, and any reader of schema 1.0.0 understands the rest."""
    found = read(done("plain"))
    assert (found["name"], found["description"], found["version"]) == (CARD.name, CARD.description, "3")
    assert found["min_parser_version"] == "1.0.0"
    assert read(done("no recipe"))["version"] == ""


def test_labels_come_back(done):
    """The board's own reader finds the labels, umlauts included."""
    assert embedded_labels(done("plain")) == COLOURS


def test_labels_are_a_file_that_can_be_mapped(done):
    """The labels lie uncompressed in a zip of one file, UTF-8, one a line, with a fixed date."""
    with zipfile.ZipFile(io.BytesIO(done("plain"))) as archive:
        (file,) = archive.infolist()
        assert (file.filename, file.compress_type) == ("labels.txt", zipfile.ZIP_STORED)
        assert file.date_time == (1980, 1, 1, 0, 0, 0)
        assert archive.read(file) == "rot\ngrün\nblau\n".encode()


NORMALIZED = [
    # job, colour space, mean, std, least and greatest of the tensor
    ("plain",  RGB,       [0],     [255],   0,      1),
    ("gray",   GRAYSCALE, [0],     [255],   0,      1),
    ("uint8",  RGB,       [0],     [255],   0,      255),
    ("int8",   RGB,       [0],     [255],   -128,   127),
    ("int16",  RGB,       [0],     [255],   0,      32767),
]  # fmt: skip


@pytest.mark.parametrize(("job", "color", "mean", "std", "low", "high"), NORMALIZED)
def test_a_picture_says_how_it_is_normalised(job, color, mean, std, low, high, done):
    """Mean and std are the recipe's, of real values; the extremes are those that the tensor stores, quantised or not."""
    (found,) = read(done(job))["inputs"]
    channels = 1 if color == GRAYSCALE else 3
    assert (found["content"], found["color"]) == (IMAGE, color)
    assert (found["mean"], found["std"]) == (mean, std)
    assert (found["low"], found["high"]) == ([low] * channels, [high] * channels)


def test_channels_are_the_models_own(done):
    """Figures a channel keep the model's order, as many of std as of mean; a blue-first model's colour space is no known one."""
    (found,) = read(done("bgr"))["inputs"]
    assert found["color"] == UNKNOWN
    assert found["mean"] == pytest.approx(CAFFE.mean)
    assert found["std"] == [1, 1, 1]
    assert found["low"] == pytest.approx([-103.939, -116.779, -123.68])
    assert found["high"] == pytest.approx([151.061, 138.221, 131.32])


def test_a_planar_tensors_extremes_are_a_channel_each(done):
    """Of [1, 3, height, width] too; a negative std swaps the least and the greatest."""
    (found,) = read(done("planar"))["inputs"]
    assert found["low"] == pytest.approx([-103.939, -58.3895, -32.83])
    assert found["high"] == pytest.approx([151.061, 69.1105, 30.92])


def test_raw_bytes_stay_bytes(done):
    """Where the recipe means the picture's bytes, normalising and then quantising with the tensor's scale gives them back."""
    (found,) = read(done("bytes"))["inputs"]
    spec = Interpreter(model_of("bytes"), find_runtime()).inputs[0]
    levels = np.arange(256)
    stored = (levels - found["mean"][0]) / found["std"][0] / spec.scale + spec.zero_point
    np.testing.assert_allclose(stored, levels, atol=1e-3)
    assert (found["low"], found["high"]) == ([0] * 3, [255] * 3)


def test_a_classifiers_labels_name_its_outputs_axis(done):
    """A file of the type TENSOR_AXIS_LABELS (2) belongs to the output, where there is a label for each of its values."""
    found = read(done("plain"))
    assert [(output["name"], output["files"]) for output in found["outputs"]] == [("Identity", [("labels.txt", 2)])]
    assert found["files"] == []


@pytest.mark.parametrize(("job", "boxes"), [("detector", "detection_boxes"), ("ssd", "output_0")])
def test_a_detectors_outputs_have_the_names_that_are_looked_for(job, boxes, done):
    """Whatever they are called in the graph, MediaPipe finds location, category, score and their number, and the first three
    grouped; boxes say that their top comes first."""
    found = read(done(job))
    named = {output["name"]: output for output in found["outputs"]}
    assert found["groups"] == [("detection_result", ["location", "category", "score"])]
    place = [spec.name for spec in Interpreter(model_of(job), find_runtime()).outputs].index(boxes)
    box = {"index": [1, 0, 3, 2], "type": 1, "coordinates": 0}
    assert found["outputs"][place] == {"name": "location", "content": BOUNDING_BOX, "files": [], "range": (2, 2), **box}
    files = [("labels.txt", 3)] if job == "detector" else []
    assert named["category"] == {"name": "category", "content": FEATURE, "files": files, "range": (2, 2)}
    assert named["score"] == {"name": "score", "content": FEATURE, "files": [], "range": (2, 2)}
    assert named["number of detections"] == {"name": "number of detections", "content": FEATURE, "files": []}


@pytest.mark.parametrize("job", ["detector unnamed", "yolo"])
def test_what_cannot_be_told_is_not_said(job, done):
    """Outputs of which neither names nor operators say which is which, and those of other families, keep their own names."""
    found = read(done(job))
    names = [spec.name for spec in Interpreter(model_of(job), find_runtime()).outputs]
    assert [output["name"] for output in found["outputs"]] == names
    assert (found["groups"], found["files"]) == ([], [("labels.txt", 0)])


@pytest.mark.parametrize(("job", "files"), [("segmenter", [("labels.txt", 2)]), ("planar segmenter", [])])
def test_a_segmenters_labels_name_its_last_axis(job, files, done):
    """Where the classes are the last axis, the labels belong to it, as other readers expect; else they are the model's own file."""
    found = read(done(job))
    assert [output["files"] for output in found["outputs"]] == [files]
    assert found["files"] == ([] if files else [("labels.txt", 0)])


@pytest.mark.parametrize("job", ["binary", "raw"])
def test_other_labels_name_no_axis(job, done):
    """Two labels of one sigmoid unit, or those of another task, would be misread by the axis; they are the model's own file."""
    found = read(done(job))
    assert all(output["files"] == [] for output in found["outputs"])
    assert found["files"] == [("labels.txt", 0)]
    assert embedded_labels(done(job)) == JOBS[job][1][0].labels


def test_every_tensor_has_its_row(done):
    """Inputs and outputs stand in the model's order; of several inputs, those of four dimensions are pictures."""
    inputs = read(done("three inputs"))["inputs"]
    assert [(found["name"], found["content"]) for found in inputs] == [("a", IMAGE), ("b", IMAGE), ("c", FEATURE)]
    assert [found["name"] for found in read(done("raw"))["outputs"]] == ["Identity", "Identity_1"]


def test_tensors_have_the_signatures_names(done):
    """Where the model has a signature, its names are taken, and the signature stays."""
    found = read(done("signed"))
    assert [tensor["name"] for tensor in found["inputs"] + found["outputs"]] == ["image", "scores"]
    (signature,) = Table.root(done("signed")).tables(7)
    assert [(table.text(0), table.number(1, "<I")) for field in (0, 1) for table in signature.tables(field)] == [
        ("image", read_graph(done("signed")).inputs[0]),
        ("scores", read_graph(done("signed")).outputs[0]),
    ]
    assert signature.text(2) == "serving_default"


def test_without_labels_no_file_is_appended(done):
    """No labels: no zip, not even the one that was there."""
    assert embedded_labels(model_of("no labels")) is not None
    assert embedded_labels(done("no labels")) is None
    assert not zipfile.is_zipfile(io.BytesIO(done("no labels")))
    assert read(done("no labels"))["outputs"][0]["files"] == []


def test_without_a_recipe_nothing_is_a_picture(done):
    """No recipe: the input is a feature, without normalisation."""
    assert read(done("no recipe"))["inputs"] == [{"name": "picture", "content": FEATURE, "files": []}]


@pytest.mark.parametrize(
    "job", ["plain", "had labels", "uint8", "int8", "int16", "raw", "three inputs", "planar", "detector", "segmenter"]
)
def test_the_model_stays(job, done):
    """Every buffer is the same to the last bit, the other metadata and the graph too; it loads, and answers as before."""
    before, after = model_of(job), done(job)
    check_structure(after)
    assert weights(after) == weights(before)
    assert [entry for entry in entries(after) if entry[0] != "TFLITE_METADATA"] == entries(before)
    assert replace(read_graph(after), size_bytes=0) == replace(read_graph(before), size_bytes=0)
    assert read_graph(after).min_runtime
    old, new = (Interpreter(content, find_runtime()) for content in (before, after))
    assert (new.inputs, new.outputs) == (old.inputs, old.outputs)
    chance = np.random.default_rng(4)
    tensors = [chance.uniform(0, 127 if spec.quantized else 1, spec.shape).astype(spec.dtype) for spec in old.inputs]
    for expected, got in zip(old.run(*tensors), new.run(*tensors), strict=True):
        assert np.ptp(expected) > 0 or expected.size == 1
        np.testing.assert_array_equal(got, expected)


def test_buffers_are_aligned(done):
    """Every buffer begins at a multiple of 16 bytes, as TensorFlow Lite's schema wants it."""
    starts = [buffer.items(0, 1)[0] for buffer in Table.root(done("raw")).tables(4)]
    assert len([start for start in starts if start]) > 3
    assert [start % 16 for start in starts] == [0] * len(starts)


def test_equal_calls_give_equal_bytes(outcomes, tmp_path):
    """Another process makes the same files of the same models and cards."""
    again = run(tmp_path)
    assert {job: content for job, content in again.items() if isinstance(content, bytes)} == {
        job: content for job, content in outcomes.items() if isinstance(content, bytes)
    }


@pytest.mark.parametrize("job", ["twice", "had labels"])
def test_older_metadata_is_replaced(job, done):
    """Metadata or labels that are there already leave no trace."""
    assert done(job) == done("plain")


def test_a_recipe_that_does_not_fit_is_refused(outcomes):
    """Metadata that no reader could follow is not written."""
    assert isinstance(outcomes["wrong colour"], SettingError)
    assert outcomes["wrong colour"].key == "preprocess.color"


@pytest.mark.parametrize("job", ["line break", "rising numbers", "blank"])
def test_labels_that_would_be_misread_are_refused(job, outcomes):
    """Labels that do not come back as they are written end in an error, not in other labels."""
    assert isinstance(outcomes[job], ModelError)
    assert "cannot stand one a line" in str(outcomes[job])


@pytest.mark.skipif("EDGE_RUNNER_MODELS" not in os.environ, reason="EDGE_RUNNER_MODELS names no folder of models")
def test_published_metadata_is_read_by_the_same_numbers():
    """A file whose metadata Google's own tool wrote says what ours would: the numbers here are the schema's."""
    path = Path(os.environ["EDGE_RUNNER_MODELS"]) / "classify/mobilenet_v1_0.25_224_float_with_metadata.tflite"
    found = read(path.read_bytes())
    assert (found["name"], found["version"]) == ("MobileNetV1 image classifier", "v1")
    (picture,), (scores,) = found["inputs"], found["outputs"]
    expected = {"name": "image", "content": IMAGE, "files": [], "color": RGB, "mean": [127.5], "std": [127.5]}
    assert picture == {**expected, "low": [-1], "high": [1]}
    assert (scores["name"], scores["content"], scores["files"]) == ("probability", FEATURE, [("labels.txt", 2)])
