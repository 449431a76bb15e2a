"""Writes the SavedModels of the builder's tests into a folder: python make_saved_models.py FOLDER. Needs TensorFlow.

Most of them tell whether a picture is mostly red, green, blue or dark. `colour` does so only if it sees 0..1, red first:
wider values leave nothing dark, -1..1 makes all but the brightest dark, and blue first takes red for blue.
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
    of_tensorflow_1(root)
    with_a_training_graph(root)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
