"""SavedModels to build from, made once: small enough to convert in a second."""

import subprocess
import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest

BUILD = [sys.executable, "-m", "edge_runner.builder"]

MAKE = """
import sys
from pathlib import Path
import keras, numpy as np, tensorflow as tf
keras.utils.set_random_seed(1)
root = Path(sys.argv[1])
inputs = keras.Input((16, 16, 3))
conv = keras.layers.Conv2D(3, 1, activation="relu")
x = conv(inputs)
conv.set_weights([np.eye(3).reshape(1, 1, 3, 3), np.zeros(3)])
x = keras.layers.GlobalAveragePooling2D()(x)
decides = keras.layers.Dense(3, activation="softmax", kernel_initializer=keras.initializers.Identity(30.0))
model = keras.Model(inputs, decides(x))
model.export(root / "good")
wavers = keras.layers.Dense(3, activation="softmax", kernel_initializer=keras.initializers.RandomNormal(stddev=0.0001))
keras.Model(inputs, wavers(x)).export(root / "wavering")
other = keras.Input((16, 16, 3))
keras.Model([inputs, other], keras.layers.Add()([model(inputs), model(other)])).export(root / "two_inputs")
keras.Model(inputs, [model(inputs), x]).export(root / "two_outputs")
pools = [keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
keras.Sequential(pools).export(root / "any_size")
class Bare(tf.Module):
    @tf.function
    def __call__(self, x):
        return x
tf.saved_model.save(Bare(), str(root / "no_signature"))
class Flex(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3])])
    def __call__(self, x):
        return tf.stack([tf.reduce_sum(tf.linalg.det(x[..., :16, 0])), 1.0])[None]
flex = Flex()
tf.saved_model.save(flex, str(root / "flex"), signatures=flex.__call__)
"""


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("saved_models")
    subprocess.run([sys.executable, "-c", textwrap.dedent(MAKE), str(root)], check=True, capture_output=True)
    return root


@pytest.fixture(scope="session")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibration")
    rng = np.random.default_rng(2)
    for number in range(24):
        coarse = rng.integers(0, 128, (6, 8, 3), np.uint8)
        coarse[..., number % 3] += 100
        picture = cv2.resize(coarse, (80, 60), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number:02}.png"), picture)
    return folder


@pytest.fixture
def build(tmp_path: Path):
    """Run the builder as scripts/build_model.sh does; return the finished process."""

    def run(model: Path, *options: object, output: str = "bundle") -> subprocess.CompletedProcess[str]:
        command = [*BUILD, str(model), "--output", str(tmp_path / output), *map(str, options)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    return run
