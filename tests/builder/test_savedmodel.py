"""Models of every kind and age that there are: what is found in them is shown, and what comes out answers right."""

from __future__ import annotations

import os
import re
from pathlib import Path

import commands
import numpy as np
import pytest

from edge_runner.builder.savedmodel import SavedModel
from edge_runner.builder.worker import Worker
from edge_runner.errors import ModelError, SettingError
from edge_runner.frame import TensorSpec
from edge_runner.model.bundle import read_manifest
from edge_runner.model.goldens import read_goldens
from edge_runner.model.interpreter import Interpreter, find_runtime

pytestmark = pytest.mark.builder

PINNED = (1, 16, 16, 3)
KINDS = {
    # model,            options,                                                    input's name, what is said of it
    "tensorflow_1":   (("--normalize", "0..1"),                                    "image",      "SavedModel of TensorFlow"),
    "two_graphs":     (("--normalize", "0..1"),                                    "image",      "SavedModel of TensorFlow"),
    "fixed":          (("--normalize", "0..1"),                                    "picture",    "SavedModel of TensorFlow"),
    "trained":        (("--normalize", "0..1"),                                    "picture",    "SavedModel of TensorFlow"),
    "of_bytes":       (("--normalize", "raw"),                                     "picture",    "SavedModel of TensorFlow"),
    "colour.keras":   (("--normalize", "0..1"),                                    None,         "Keras file colour.keras"),
    "colour.h5":      (("--normalize", "0..1"),                                    None,         "Keras file colour.h5"),
    "several":        (("--normalize", "0..1", "--signature", "second"),           "picture",    "SavedModel of TensorFlow"),
    "any_size":       (("--normalize", "0..1", "--input-shape", "1,16,16,3"),      None,         "SavedModel of TensorFlow"),
    "rescaling":      (("--normalize", "raw"),                                     None,         "begins with its own scaling"),
}  # fmt: skip


@pytest.fixture
def of_kind(made):
    return lambda model: made(model, *KINDS[model][0])


@pytest.mark.parametrize("model", KINDS)
def test_each_kind(model, of_kind, pictures, tmp_path):
    """Each becomes a bundle whose one input is a picture of a fixed size, that tells colours, and that the board accepts."""
    _, name, kind = KINDS[model]
    bundle = of_kind(model)
    manifest = read_manifest(bundle)
    [spec] = manifest.inputs
    assert spec.shape == PINNED
    assert spec.dtype == ("uint8" if model == "of_bytes" else "float32")
    assert name in (None, spec.name), "the signature's own"
    assert manifest.proof["verdict"] == "passed"
    assert commands.accuracy(bundle, pictures, commands.LABELS[:3]) == 1.0
    said = (bundle.parent / "said.txt").read_text()
    assert kind in said
    assert re.search(r"SavedModel -> \.tflite as none: \d\.\d\d MB -> \d\.\d\d MB\n", said)
    checked = commands.check(bundle, tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_what_was_found_is_shown(of_kind):
    """Every signature with its tensors, which one was chosen, and the size by part, before anything is converted."""
    said = (of_kind("several").parent / "said.txt").read_text().splitlines()
    assert said[0].startswith("SavedModel of TensorFlow ")
    assert all(f"{part} " in said[0] for part in ("graph", "variables", "assets"))
    assert said[1:10] == [
        "signature 'encoded'",
        "  input   'jpeg' string [-1]",
        "  output  'length' int32 [-1]",
        "signature 'first'",
        "  input   'picture' float32 [-1, -1, -1, 3]",
        "  output  'scores' float32 [-1, 3]",
        "signature 'second' (chosen)",
        "  input   'picture' float32 [-1, 16, 16, 3]",
        "  output  'scores' float32 [-1, 3]",
    ]


def test_where_it_came_from(of_kind):
    """The manifest says of which model, of which signature, and by which tools a bundle was made."""
    manifest = read_manifest(of_kind("several"))
    assert (manifest.source["model"], manifest.source["signature"]) == ("several", "second")
    assert len(manifest.source["sha256"]) == 64
    assert {"edge-runner", "tensorflow", "keras", "numpy", "opencv", "python"} <= set(manifest.tools)


@pytest.mark.parametrize("mode", ["none", "int8"])
def test_several_inputs_and_outputs(mode, made, arrays):
    """A model of two inputs and two outputs goes the whole way: fed by name from an .npz, answers by name, replayed."""
    options = ("--task", "raw", "--quantize", mode, "--calibration", arrays / "two.npz", "--max-loss", "0.1")
    bundle = made("two", *options)
    manifest = read_manifest(bundle)
    assert manifest.preprocess is None
    assert manifest.task == {"type": "raw"}
    assert {(i.name, i.shape) for i in manifest.inputs} == {("a", (1, 8)), ("b", (1, 8))}
    assert {o.name for o in manifest.outputs} == {"sum", "product"}
    assert {o["name"] for o in manifest.proof["outputs"]} == {"sum", "product"}
    assert not (bundle / "labels.txt").exists()
    inspected = commands.inspect(bundle)
    assert (inspected.returncode, inspected.stderr) == (0, "")
    assert "goldens: hold on this machine" in inspected.stdout
    with np.load(arrays / "two.npz") as file:
        given = dict(file)
    for item in read_goldens(bundle / "golden.npz").items:
        real = {s.name: s.dequantize(t) for s, t in zip(manifest.inputs, item.inputs, strict=True)}
        assert np.isclose(given["a"], real["a"], atol=0.03).all(1).any(), "its inputs are samples of the .npz"
        found = dict(zip((o.name for o in manifest.outputs), item.outputs, strict=True))
        np.testing.assert_allclose(found["sum"], real["a"] + real["b"], atol=0.1 if mode == "int8" else 1e-5)
        np.testing.assert_allclose(found["product"], real["a"] * real["b"], atol=0.1 if mode == "int8" else 1e-5)


def test_a_picture_to_a_raw_model(made, run_cli, pictures, tmp_path):
    """With --task raw and a recipe, a model is fed pictures, and the board writes its outputs as they are."""
    bundle = made("fixed", "--normalize", "0..1", "--task", "raw")
    assert read_manifest(bundle).preprocess is not None
    config = tmp_path / "raw.yaml"
    config.write_text(f"camera: {{type: images, path: {pictures / 'red'}}}\nmodel: {{path: {bundle}}}\n")
    done = run_cli("--config", config, "--once")
    assert done.returncode == 0, done.stderr
    assert '"tensors": [{"name": "scores", "shape": [1, 3], "dtype": "float32", "values": [' in done.stdout


class Opener:
    """Opens one model after the other in the same process: TensorFlow is imported once."""

    def open(self, model, folder, signature, input_shape, report):
        return SavedModel(model, folder, signature, input_shape).open(report)


@pytest.fixture(scope="module")
def opener(tmp_path_factory):
    with Worker(Opener, folder=tmp_path_factory.mktemp("noise")) as worker:
        yield worker


@pytest.fixture
def opened(opener, saved_models, tmp_path):
    """What is found in a model; its errors come through."""
    return lambda model, signature=None, shape=None: opener.call(
        "open", saved_models / model, tmp_path, signature, shape
    )


def test_sizes_left_open_are_pinned(opened):
    """An open batch is 1; other open sizes are what --input-shape says."""
    assert opened("colour").pinned.inputs[0].shape == PINNED
    assert opened("colour", shape=PINNED).pinned.inputs[0].shape == PINNED
    found = opened("any_size", shape=(1, 40, 24, 3))
    assert found.pinned.inputs[0].shape == (1, 40, 24, 3)
    assert found.pinned.outputs[0].shape == (1, 4)
    assert next(s for s in found.signatures if s.name == "serving_default").inputs[0].shape == (-1, -1, -1, 3)


def test_a_model_after_training(opened):
    """An optimizer's slots, which TensorFlow cannot load without the optimizer, are not the model's."""
    [spec] = opened("trained").pinned.inputs
    assert spec == TensorSpec("picture", PINNED, "float32")


def test_the_saved_model_is_left_alone(saved_models, opened):
    """Opening a model, stripping it of its training included, changes nothing in its folder."""

    def state() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in (saved_models / "trained").rglob("*") if p.is_file()}

    before = state()
    opened("trained")
    assert state() == before


@pytest.mark.parametrize(
    ("model", "factor", "offset"),
    [
        ("rescaling", (1 / 255,), (0,)),
        ("normalization", (1 / 0.229, 1 / 0.224, 1 / 0.225), (-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225)),
    ],
)
def test_scaling_that_a_model_begins_with(opened, model, factor, offset):
    """A layer that normalises is found with its name and what it does to each channel."""
    scaling = opened(model).scaling
    assert model in scaling.layer
    assert np.allclose(scaling.factor, factor, rtol=1e-4)
    assert np.allclose(scaling.offset, offset, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("model", ["colour", "batch_norm", "fixed", "lstm", "two", "of_bytes"])
def test_models_that_do_not_scale(opened, model):
    """A convolution, a learned batch normalisation and the like are no normalisation of pictures."""
    shape = PINNED if model == "any_size" else None
    assert opened(model, shape=shape).scaling is None


@pytest.mark.parametrize(
    ("model", "signature", "shape", "error", "words"),
    [
        ("several", None, None, SettingError, ["no 'serving_default'", "--signature", "encoded, first, second"]),
        ("several", "third", None, SettingError, ["no signature 'third'", "encoded, first, second"]),
        ("several", "encoded", None, ModelError, ["'jpeg'", "string", "--signature"]),
        ("encoded", None, None, ModelError, ["'jpeg'", "string"]),
        ("no_signature", None, None, ModelError, ["no signature", "model.export("]),
        ("any_size", None, None, SettingError, ["[-1, -1, -1, 3]", "--input-shape"]),
        ("any_size", None, (1, 16, 16, 4), SettingError, ["1,16,16,4", "[-1, -1, -1, 3]"]),
        ("any_size", None, (1, 16, 16), SettingError, ["1,16,16 does not fit", "[-1, -1, -1, 3]"]),
        ("colour", None, (1, 32, 32, 3), SettingError, ["1,32,32,3 does not fit", "[-1, 16, 16, 3]"]),
        ("two", None, (1, 8), SettingError, ["'a' [-1, 8], 'b' [-1, 8]"]),
        ("weights.weights.h5", None, None, ModelError, ["holds weights only", "model.save("]),
        ("lambda.keras", None, None, ModelError, ["Lambda layer", "model.export("]),
        ("own_layer.keras", None, None, ModelError, ["layer of its own, Tint", "model.export("]),
    ],
)
def test_what_cannot_be_opened(opened, saved_models, model, signature, shape, error, words):
    """Each is refused with what there is and what to do about it, in one line."""
    with pytest.raises(error) as caught:
        opened(model, signature, shape)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert len(message) < 600


def damage(folder: Path, kind: str) -> Path:
    (folder / "variables").mkdir(parents=True)
    content = {"text": b"VarHandleOp", "empty": b"", "noise": bytes(range(256)) + b"VarHandleOp"}[kind]
    (folder / "saved_model.pb").write_bytes(content)
    return folder


@pytest.mark.parametrize("kind", ["text", "noise"])
def test_a_damaged_graph(opener, tmp_path, kind):
    """A saved_model.pb that is none, or a damaged one, is named."""
    model = damage(tmp_path / "model", kind)
    with pytest.raises(ModelError, match=r"saved_model\.pb is damaged"):
        opener.call("open", model, tmp_path, None, None)


def test_variables_that_are_missing(opener, saved_models, tmp_path):
    """A SavedModel that was copied without the data of its variables is refused, with TensorFlow's reason."""
    model = tmp_path / "model"
    (model / "variables").mkdir(parents=True)
    os.link(saved_models / "colour/saved_model.pb", model / "saved_model.pb")
    with pytest.raises(ModelError, match=f"cannot load {model}"):
        opener.call("open", model, tmp_path, None, None)


def test_float32_is_the_models_own(of_kind):
    """A float32 .tflite of TensorFlow 1's model, whose variables were made constants, still has their values."""
    content = (of_kind("tensorflow_1") / "model.tflite").read_bytes()
    interpreter = Interpreter(content, find_runtime())
    picture = np.zeros(PINNED, np.float32)
    picture[..., 1] = 0.1
    expected = np.exp([0, 3, 0]) / np.exp([0, 3, 0]).sum()
    np.testing.assert_allclose(interpreter.run(picture)[0][0], expected, rtol=1e-5)
