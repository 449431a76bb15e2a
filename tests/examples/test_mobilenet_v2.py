"""The MobileNetV2 example: one command from Keras' model to a bundle that answers as Keras does, without a network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_runner.model.bundle import damages, read_manifest

pytestmark = pytest.mark.builder

EXAMPLE = Path(__file__).parents[2] / "examples" / "mobilenet_v2"
SMALL = ("--alpha", "0.35", "--size", "96")
RANDOM_NAME = "mobilenet_v2_0.35_96_random"

# Random weights twice; as a file that Keras 3 writes, and as the one that Keras would have downloaded; a picture, and
# Keras' answer to it.
MAKE = """
import sys
from pathlib import Path
import cv2, export, h5py, keras, numpy as np
from keras.src.legacy.saving import legacy_h5_format
folder = Path(sys.argv[1])
export.SEED = 5
model, again = (export.mobilenet("none", 0.35, 96) for _ in range(2))
np.save(folder / "twice.npy", [np.concatenate([w.ravel() for w in m.get_weights()]) for m in (model, again)])
model.save_weights(folder / "five.weights.h5")
(folder / "models").mkdir()
with h5py.File(folder / "models/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_96.h5", "w") as file:
    legacy_h5_format.save_weights_to_hdf5_group(file, model)
grain = np.random.default_rng(6).integers(0, 256, (6, 6, 3), np.uint8)
rgb = cv2.resize(grain, (96, 96), interpolation=cv2.INTER_CUBIC)
cv2.imwrite(str(folder / "picture.png"), rgb[..., ::-1])
prepared = keras.applications.mobilenet_v2.preprocess_input(rgb.astype(np.float32))
np.save(folder / "scores.npy", model.predict(prepared[None], verbose=0)[0])
"""

# The file of names, which Keras downloads, is the one thing that is made up here.
NAMES = """
import json, export
from keras.src.applications import imagenet_utils
twice = {7: "crane", 500: "crane"}
imagenet_utils.CLASS_INDEX = {str(i): [f"n{i:08}", twice.get(i, f"thing_number_{i}")] for i in range(1000)}
print(json.dumps(export.imagenet_labels()))
"""


@pytest.fixture
def offline(tmp_path):
    """An environment in which Keras has downloaded nothing, and cannot."""
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return {**os.environ, **nowhere, "no_proxy": "", "NO_PROXY": "", "KERAS_HOME": str(tmp_path / "keras")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with what MAKE makes."""
    folder = tmp_path_factory.mktemp("made")
    subprocess.run([sys.executable, "-c", MAKE, str(folder)], check=True, capture_output=True, cwd=EXAMPLE)
    return folder


def run(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="module")
def random_build(tmp_path_factory):
    """What build.py says with random weights and no option of the builder, and the bundle that it makes."""
    work = tmp_path_factory.mktemp("work")
    return run(EXAMPLE / "build.py", "--weights", "none", *SMALL, "--work", work), work / RANDOM_NAME


def test_one_command_makes_a_bundle(random_build):
    """Without any option of the builder: float16, the recipe of the training, and the word that random answers mean nothing."""
    done, bundle = random_build
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].endswith("its answers mean nothing")
    manifest = read_manifest(bundle)
    assert damages(bundle, manifest) == []
    recipe = manifest.preprocess
    assert (set(recipe.mean), set(recipe.std), recipe.color, recipe.resize) == ({127.5}, {127.5}, "rgb", "crop")
    assert manifest.quantization == "float16"
    assert (manifest.name, manifest.inputs[0].shape, manifest.outputs[0].shape) == (
        RANDOM_NAME,
        (1, 96, 96, 3),
        (1, 1000),
    )
    assert not (bundle / "labels.txt").exists(), "the names of ImageNet's classes would lie"


def test_the_board_accepts_it(random_build):
    """`edge-runner inspect` loads the bundle and shows its recipe."""
    inspected = run("-m", "edge_runner", "inspect", random_build[1])
    assert inspected.returncode == 0, inspected.stderr
    assert "rgb, mean [127.5" in inspected.stdout
    assert "float32 [1, 96, 96, 3]" in inspected.stdout


def test_the_readmes_configuration_works(random_build, tmp_path):
    """The configuration that README.md shows is valid, and its bundle's goldens hold."""
    shown = (EXAMPLE / "README.md").read_text("utf-8").partition("```yaml\n")[2].partition("```")[0]
    config = tmp_path / "camera.yaml"
    config.write_text(shown)
    settings = ("--set", f"model.path={random_build[1]}", "--set", "camera.type=pattern")
    checked = run("-m", "edge_runner", "check", "--config", config, *settings)
    assert checked.returncode == 0, checked.stderr
    assert "goldens hold" in checked.stdout


def test_random_weights_answer_each_picture_otherwise(random_build):
    """Random weights are no dead ones: the golden pictures get answers of their own, so that the proof proves something."""
    from edge_runner.model.goldens import read_goldens

    outputs = np.stack([item.outputs[0].ravel() for item in read_goldens(random_build[1] / "golden.npz").items])
    assert np.ptp(outputs, axis=0).max() > 0.001
    assert outputs.max() > 2 / 1000


def test_random_weights_are_the_same_each_time(made):
    """Equal commands make equal models."""
    one, other = np.load(made / "twice.npy")
    assert np.ptp(one) > 1
    np.testing.assert_array_equal(one, other)


def test_weights_of_a_file_answer_as_keras_does(made, tmp_path):
    """The board's own path gives Keras' best class and its score; what the builder is told goes over the example's defaults."""
    labels, bundle = tmp_path / "names.txt", tmp_path / "mine"
    labels.write_text("".join(f"class {i}\n" for i in range(1000)))
    options = ("--labels", labels, "--output", bundle, "--quantize", "none", "--resize", "stretch")
    done = run(EXAMPLE / "build.py", "--weights", made / "five.weights.h5", *SMALL, "--work", tmp_path, *options)
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(bundle)
    assert (manifest.name, manifest.quantization, manifest.preprocess.resize) == ("mine", "none", "stretch")

    config = tmp_path / "camera.yaml"
    camera, model = {"type": "images", "path": str(made / "picture.png")}, {"path": str(bundle)}
    config.write_text(json.dumps({"camera": camera, "model": model}))
    answered = run("-m", "edge_runner", "--config", config, "--once")
    assert answered.returncode == 0, answered.stderr
    best = json.loads(answered.stdout)["classifications"][0]
    scores = np.load(made / "scores.npy")
    assert (best["index"], best["label"]) == (scores.argmax(), f"class {scores.argmax()}")
    assert best["score"] == pytest.approx(float(scores.max()), rel=0.001)


def test_imagenets_weights_that_keras_has_need_no_network(made, offline, tmp_path):
    """Weights that Keras has downloaded before are used; where it lacks the classes' names, there are none, and it says so."""
    done = run(EXAMPLE / "export.py", *SMALL, "--output", tmp_path / "out", env={**offline, "KERAS_HOME": str(made)})
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["saved_model"]
    assert "no names for the classes" in done.stderr.splitlines()[-1]
    assert "--labels FILE" in done.stderr


def test_without_a_network_it_says_what_else_there_is(offline, tmp_path):
    """Where ImageNet's weights cannot be downloaded, one line says so and names both ways out; nothing is built."""
    done = run(EXAMPLE / "build.py", *SMALL, "--work", tmp_path / "work", env=offline)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if "error:" in line.lower()]
    assert errors == done.stderr.splitlines()[-1:]
    for words in ("edge-runner: error: ", "ImageNet", "Connection refused", "--weights FILE", "--weights none"):
        assert words in errors[0]
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("file", "says"),
    [("absent.h5", "there is no such file"), ("text.weights.h5", "not the weights of MobileNetV2 with --alpha 0.35")],
)
def test_a_file_without_the_weights_is_refused(file, says, tmp_path):
    """A file that is not there, or holds something else, ends with one line that says which."""
    (tmp_path / "text.weights.h5").write_text("no weights")
    done = run(EXAMPLE / "build.py", "--weights", tmp_path / file, *SMALL, "--work", tmp_path / "work")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"edge-runner: error: --weights {tmp_path / file}: {says}")
    assert "Traceback" not in done.stderr


def test_other_models_weights_are_refused(made, tmp_path):
    """The weights of a narrower MobileNetV2 do not become those of a wider one."""
    weights = ("--weights", made / "five.weights.h5", "--alpha", "0.5", "--size", "96")
    done = run(EXAMPLE / "build.py", *weights, "--work", tmp_path / "work")
    assert done.returncode == 1
    assert "not the weights of MobileNetV2 with --alpha 0.5 and 1000 classes" in done.stderr.splitlines()[-1]


def test_names_are_keras_in_the_order_of_the_outputs():
    """Labels are the class index's names with spaces; a name that two classes share is told apart by the WordNet id."""
    done = run("-c", NAMES, cwd=EXAMPLE)
    assert done.returncode == 0, done.stderr
    labels = json.loads(done.stdout)
    assert len(set(labels)) == 1000
    assert (labels[0], labels[999]) == ("thing number 0", "thing number 999")
    assert (labels[7], labels[500]) == ("crane (n00000007)", "crane (n00000500)")
