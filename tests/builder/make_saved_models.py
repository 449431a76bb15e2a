"""Writes the SavedModels of the builder's tests into a folder: python make_saved_models.py FOLDER. Needs TensorFlow.

Most of them tell whether a picture is mostly red, green, blue or dark. `colour` does so only if it sees 0..1, red first:
wider values leave nothing dark, -1..1 makes all but the brightest dark, and blue first takes red for blue.

`detect…`, `segment…` and `pose` find rectangles of these colours. NAME_moved.tflite is what another model of the same form would
be that finds them elsewhere.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

SIDE_PX = 16
WIDTH = 510  # of the hidden layer: wide enough that a quantiser takes its weights
SHARPNESS = 30.0
DARK_BELOW = 0.35
FOUND_PX = 32  # the side of what `detect` and its like are fed
GRID = 21  # cells of 8, 16 and 32 pixels in it
KEPT = 10  # boxes of a model that suppresses by itself
POINTS = 17  # MoveNet's
MOVED = 0.125
LAYERS = keras.layers
EYE = np.eye(3, dtype=np.float32)


def picture(*sides: int | None) -> Any:
    return keras.Input((*(sides or (SIDE_PX, SIDE_PX)), 3))


def mean_colour(x: Any) -> Any:
    """The mean of each channel, by way of a convolution, which every mode quantises."""
    conv = LAYERS.Conv2D(3, 1, activation="relu")
    y = conv(x)
    conv.set_weights([EYE.reshape(1, 1, 3, 3), np.zeros(3)])
    return LAYERS.GlobalAveragePooling2D()(y)


def decided(mean: Any, kernel: np.ndarray, bias: np.ndarray, width: int = WIDTH) -> Any:
    """Softmax of mean @ kernel + bias, by way of a hidden layer of copies."""
    copies = width // 3
    hidden = LAYERS.Dense(width)
    last = LAYERS.Dense(len(bias), activation="softmax", name="scores")
    scores = last(hidden(mean))
    hidden.set_weights([np.tile(EYE, copies), np.zeros(width)])
    last.set_weights([np.tile(kernel, (copies, 1)) / copies, bias])
    return scores


def colours(x: Any) -> Any:
    kernel = np.zeros((3, 4), np.float32)
    kernel[:, :3] = EYE * SHARPNESS
    return decided(mean_colour(x), kernel, np.array([0, 0, 0, SHARPNESS * DARK_BELOW], np.float32))


def wavering(x: Any) -> Any:
    """So sure of nothing that eight bits cannot tell its answers apart."""
    return decided(mean_colour(x), EYE * 1e-4, np.zeros(3), width=3)


def hair_splitting(x: Any) -> Any:
    """Weights that differ by less than sixteen bits hold, so that every mode but none changes the answers."""
    return decided(mean_colour(x), np.float32(WIDTH // 3) * (1 + EYE * 1e-4), np.zeros(3))


def keras_models(root: Path) -> None:
    x = picture()
    keras.Model(x, colours(x)).export(root / "colour")
    x = picture()
    keras.Model(x, wavering(x)).export(root / "wavering")
    x = picture()
    keras.Model(x, hair_splitting(x)).export(root / "hair_splitting")
    x = picture(None, None)
    keras.Model(x, colours(x)).export(root / "any_size")
    x = picture()
    keras.Model(x, colours(LAYERS.Rescaling(1 / 255)(x))).export(root / "rescaling")
    x = picture()
    normal = LAYERS.Normalization(mean=[0.485, 0.456, 0.406], variance=[0.229**2, 0.224**2, 0.225**2])
    keras.Model(x, colours(normal(x))).export(root / "normalization")
    x = picture()
    keras.Model(x, colours(LAYERS.BatchNormalization()(x))).export(root / "batch_norm")
    x = keras.Input((20, 8))
    keras.Model(x, LAYERS.Dense(3)(LAYERS.LSTM(8)(x))).export(root / "lstm")
    a, b = keras.Input((8,), name="a"), keras.Input((8,), name="b")
    keras.Model([a, b], {"sum": LAYERS.Add()([a, b]), "product": LAYERS.Multiply()([a, b])}).export(root / "two")
    x, y = picture(), picture()
    keras.Model([x, y], colours(LAYERS.Add()([x, y]))).export(root / "two_pictures")


class Tint(LAYERS.Layer):
    """A layer of one's own."""

    def call(self, x: Any) -> Any:
        return x * 2


def keras_files(root: Path) -> None:
    x = picture()
    model = keras.Model(x, colours(x))
    model.save(root / "colour.keras")
    model.save(root / "colour.h5")
    model.save_weights(root / "weights.weights.h5")
    tf.saved_model.save(model, str(root / "not_exported"))
    x = picture()
    keras.Model(x, colours(LAYERS.Lambda(lambda y: y * 2)(x))).save(root / "lambda.keras")
    x = picture()
    keras.Model(x, colours(Tint()(x))).save(root / "own_layer.keras")


class Colours(tf.Module):
    """The same without Keras, and with several ways to call it."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(EYE * SHARPNESS)

    def __call__(self, x: Any) -> Any:
        return tf.nn.softmax(tf.matmul(tf.reduce_mean(x, [1, 2]), self.kernel))

    @tf.function(input_signature=[tf.TensorSpec([None, SIDE_PX, SIDE_PX, 3], name="picture")])
    def fixed(self, picture: Any) -> Any:
        return {"scores": self(picture)}

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], name="picture")])
    def open(self, picture: Any) -> Any:
        return {"scores": self(picture)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="jpeg")])
    def encoded(self, jpeg: Any) -> Any:
        return {"length": tf.strings.length(jpeg)}

    @tf.function(input_signature=[tf.TensorSpec([1, SIDE_PX, SIDE_PX, 3], tf.uint8, name="picture")])
    def of_bytes(self, picture: Any) -> Any:
        return {"scores": self(tf.cast(picture, tf.float32) / 255)}

    @tf.function(input_signature=[tf.TensorSpec([1, SIDE_PX, SIDE_PX, 3], name="picture")])
    def select(self, picture: Any) -> Any:
        return {"scores": tf.nn.softmax(tf.linalg.det(picture[:, :, :, 0])[:, None] * tf.ones([1, 3]))}

    @tf.function(input_signature=[tf.TensorSpec([1, SIDE_PX, SIDE_PX, 3], name="picture")])
    def custom(self, picture: Any) -> Any:
        scores = tf.numpy_function(lambda y: y, [self(picture)], tf.float32)
        scores.set_shape([1, 3])
        return {"scores": scores}


class Trained(Colours):
    """With an optimizer and its slots, as somebody leaves it who saves in the middle of training."""

    def __init__(self) -> None:
        super().__init__()
        self.optimizer = tf.compat.v1.train.AdamOptimizer(1e-9)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(self(tf.ones([1, SIDE_PX, SIDE_PX, 3]))[:, 0])
        self.optimizer.apply_gradients([(tape.gradient(loss, self.kernel), self.kernel)])


def modules(root: Path) -> None:
    module = Colours()
    for name in ("fixed", "of_bytes", "select", "custom", "encoded"):
        tf.saved_model.save(module, str(root / name), signatures=getattr(module, name))
    several = {"first": module.open, "second": module.fixed, "encoded": module.encoded}
    tf.saved_model.save(module, str(root / "several"), signatures=several)
    tf.saved_model.save(tf.Module(), str(root / "no_signature"))
    trained = Trained()
    tf.saved_model.save(trained, str(root / "trained"), signatures=trained.fixed)


class Finder(tf.Module):
    """Finds what is red, green or blue in a picture of 0..1: a rectangle of each at most. Places are `moved` by so much of it."""

    def __init__(self, moved: float = 0.0) -> None:
        super().__init__()
        self.moved = moved
        self.kernel = tf.Variable((2 * EYE - 1).reshape(1, 1, 3, 3))
        right = np.arange(1, FOUND_PX + 1, dtype=np.float32) / FOUND_PX
        self.right, self.left = right.reshape(1, -1, 1), right[::-1].reshape(1, -1, 1)

    def redder(self, picture: Any) -> Any:
        """By how much each colour is more than the others together, [1, height, width, 3]."""
        return tf.nn.relu(tf.nn.conv2d(picture, self.kernel, 1, "SAME"))

    def extents(self, picture: Any) -> tuple[Any, ...]:
        """Of each colour x0, y0, x1, y1 and the score, [1, 3], all of 0..1."""
        colours = self.redder(picture)
        along = [tf.sigmoid((tf.reduce_max(colours, axis) - 0.3) * 40) for axis in (1, 2)]
        low = [1 - tf.reduce_max(there * self.left, 1) + self.moved for there in along]
        high = [tf.reduce_max(there * self.right, 1) + self.moved for there in along]
        return *low, *high, tf.reduce_max(along[0], 1)

    @tf.function(input_signature=[tf.TensorSpec([None, FOUND_PX, FOUND_PX, 3], tf.float32, "picture")])
    def detect(self, picture: Any) -> Any:
        """As YOLOv8 has it: [1, 4 + classes, boxes], as many boxes as its grids have."""
        x0, y0, x1, y1, score = self.extents(picture)
        box = tf.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], 1)
        found = tf.concat([box, score[:, :, None] * EYE], 1)
        return {"found": tf.pad(found, [[0, 0], [0, 0], [0, GRID - 3]])}

    @tf.function(input_signature=[tf.TensorSpec([1, FOUND_PX, FOUND_PX, 3], tf.float32, "picture")])
    def detect_sorted(self, picture: Any) -> Any:
        """Suppressed within the model: [1, boxes, 6], the best first."""
        *box, score = self.extents(picture)
        rows = tf.stack([*box, score, tf.constant([[0.0, 1.0, 2.0]])], 2)
        order = tf.math.top_k(score[0], 3).indices
        return {"found": tf.pad(tf.gather(rows, order, axis=1), [[0, 0], [0, KEPT - 3], [0, 0]])}

    def classes(self, picture: Any) -> Any:
        """Logits [1, height, width, 4], half as large each way; the first is what has no colour."""
        moved = round(self.moved * FOUND_PX)
        colours = tf.nn.avg_pool2d(self.redder(picture), 2, 2, "SAME")
        colours = tf.pad(colours, [[0, 0], [0, 0], [moved, 0], [0, 0]])[:, :, : FOUND_PX // 2]
        return tf.pad(colours * SHARPNESS, [[0, 0], [0, 0], [0, 0], [1, 0]], constant_values=SHARPNESS * 0.3)

    @tf.function(input_signature=[tf.TensorSpec([1, FOUND_PX, FOUND_PX, 3], tf.float32, "picture")])
    def segment(self, picture: Any) -> Any:
        return {"classes": self.classes(picture)}

    @tf.function(input_signature=[tf.TensorSpec([1, FOUND_PX, FOUND_PX, 3], tf.float32, "picture")])
    def segment_numbers(self, picture: Any) -> Any:
        return {"classes": tf.argmax(self.classes(picture), -1)}

    @tf.function(input_signature=[tf.TensorSpec([1, FOUND_PX, FOUND_PX, 3], tf.float32, "picture")])
    def pose(self, picture: Any) -> Any:
        """As MoveNet has it: [1, 1, 17, 3] of y, x, score: points down the diagonal of what is red."""
        x0, y0, x1, y1, score = (values[:, :1] for values in self.extents(picture))
        way = np.linspace(0, 1, POINTS, dtype=np.float32)[None]
        found = tf.stack([y0 + (y1 - y0) * way, x0 + (x1 - x0) * way, score + 0 * way], 2)
        return {"points": found[:, None]}


def finders(root: Path) -> None:
    """Each of them as a SavedModel, and moved as a .tflite."""
    for name in ("detect", "detect_sorted", "segment", "segment_numbers", "pose"):
        still, moved = Finder(), Finder(MOVED)
        tf.saved_model.save(still, str(root / name), signatures=getattr(still, name))
        spec = tf.TensorSpec([1, FOUND_PX, FOUND_PX, 3], tf.float32, "picture")
        concrete = getattr(moved, name).get_concrete_function(spec)
        content = tf.lite.TFLiteConverter.from_concrete_functions([concrete], moved).convert()
        (root / f"{name}_moved.tflite").write_bytes(content)


def of_tensorflow_1(root: Path) -> None:
    """As TensorFlow 1 wrote it: a session's graph, with variables of its old kind."""
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        x = v1.placeholder(tf.float32, [None, SIDE_PX, SIDE_PX, 3], "x")
        start = v1.constant_initializer(EYE * SHARPNESS)
        kernel = v1.get_variable("kernel", [3, 3], initializer=start, use_resource=False)
        scores = tf.nn.softmax(tf.matmul(tf.reduce_mean(x, [1, 2]), kernel))
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(root / "tensorflow_1"), {"image": x}, {"scores": scores})


def with_a_training_graph(root: Path) -> None:
    """Two graphs in one SavedModel, the one for training first: it answers otherwise."""
    v1 = tf.compat.v1
    builder = v1.saved_model.Builder(str(root / "two_graphs"))
    for number, (tag, sharpness) in enumerate((("train", -SHARPNESS), ("serve", SHARPNESS))):
        with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
            x = v1.placeholder(tf.float32, [None, SIDE_PX, SIDE_PX, 3], "x")
            kernel = v1.get_variable("kernel", initializer=tf.constant(EYE), use_resource=False)
            scores = tf.nn.softmax(tf.matmul(tf.reduce_mean(x, [1, 2]), kernel) * sharpness)
            session.run(v1.global_variables_initializer())
            signature = {"serving_default": v1.saved_model.predict_signature_def({"image": x}, {"scores": scores})}
            if number == 0:
                builder.add_meta_graph_and_variables(session, [tag], signature_def_map=signature)
            else:
                builder.add_meta_graph([tag], signature_def_map=signature)
    builder.save()


def main(root: Path) -> None:
    keras.utils.set_random_seed(1)
    keras_models(root)
    keras_files(root)
    modules(root)
    finders(root)
    of_tensorflow_1(root)
    with_a_training_graph(root)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
