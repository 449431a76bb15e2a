"""Writes the tiny models of the tests into this folder. Run by hand, with TensorFlow 2.16.2: python make_models.py.

Each of them but the odd ones tells whether a picture is mostly red, green or blue: the mean colour, times a number, and a softmax.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

HERE = Path(__file__).parent
LABELS = "red\ngreen\nblue\n"
SHARPNESS = 12.0
RGB = tf.TensorSpec([1, 8, 8, 3], tf.float32, name="picture")


def mean_colour(picture: tf.Tensor) -> tf.Tensor:
    """The mean of each channel, [1, 3]: a pooling over the whole picture, which every quantisation knows."""
    return tf.reshape(tf.nn.avg_pool2d(picture, [8, 8], [8, 8], "VALID"), [1, 3])


def softmax(picture: tf.Tensor) -> tf.Tensor:
    return tf.nn.softmax(mean_colour(picture) * SHARPNESS)


def dense(picture: tf.Tensor) -> tf.Tensor:
    return tf.matmul(mean_colour(picture), tf.constant(np.eye(3, dtype=np.float32) * SHARPNESS)) + tf.constant(
        [0.5, 0.0, -0.5]
    )


def redness(picture: tf.Tensor) -> tf.Tensor:
    """One unit, 0..1: how red a picture is."""
    weights = tf.constant([[SHARPNESS], [-SHARPNESS], [-SHARPNESS]])
    return tf.sigmoid(tf.matmul(mean_colour(picture), weights))


def quadrant(picture: tf.Tensor) -> tf.Tensor:
    """Which quarter of a grey picture is the brightest: upper left, upper right, lower left, lower right."""
    return tf.nn.softmax(tf.reshape(tf.nn.avg_pool2d(picture, [4, 4], [4, 4], "VALID"), [1, 4]) * SHARPNESS)


def planar(picture: tf.Tensor) -> tf.Tensor:
    return softmax(tf.transpose(picture, [0, 2, 3, 1]))


def any_size(picture: tf.Tensor) -> tf.Tensor:
    return tf.nn.softmax(tf.reduce_mean(picture, [1, 2]) * SHARPNESS)


def convert(function: Callable[..., Any], *specs: tf.TensorSpec, **settings: Any) -> bytes:
    concrete = tf.function(function).get_concrete_function(*specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    for key, value in settings.items():
        setattr(converter, key, value)
    return bytes(converter.convert())


def calibration() -> Iterator[list[np.ndarray]]:
    chance = np.random.default_rng(1)
    for level in np.linspace(0, 1, 8):
        yield [chance.uniform(0, 1, (1, 8, 8, 3)).astype(np.float32)]
        yield [np.full((1, 8, 8, 3), level, np.float32)]
    for channel in range(3):
        picture = np.zeros((1, 8, 8, 3), np.float32)
        picture[..., channel] = 1
        yield [picture]


def quantized(kind: tf.DType, operators: str = "TFLITE_BUILTINS_INT8") -> bytes:
    return convert(
        softmax,
        RGB,
        optimizations=[tf.lite.Optimize.DEFAULT],
        representative_dataset=calibration,
        target_spec=tf.lite.TargetSpec(supported_ops=[getattr(tf.lite.OpsSet, operators)]),
        inference_input_type=kind,
        inference_output_type=kind,
    )


def patched(content: bytes, name: int, change: Callable[[Any], None]) -> bytes:
    """The model with one of its operator codes changed."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for code in model.operatorCodes:
        if code.builtinCode == name:
            change(code)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def custom(code: Any) -> None:
    code.deprecatedBuiltinCode = code.builtinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = "Sorcery"


def newer(code: Any) -> None:
    code.version = 99


def with_labels(content: bytes) -> bytes:
    """The labels as TFLite metadata has them: an uncompressed zip after the model."""
    archive = io.BytesIO(content)
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as file:
        file.writestr(zipfile.ZipInfo("labels.txt", (2026, 1, 1, 0, 0, 0)), LABELS)
    return archive.getvalue()


def models() -> Iterator[tuple[str, bytes]]:
    plain = convert(softmax, RGB)
    yield "colour", plain
    yield "labelled", with_labels(plain)
    yield "quadrant", convert(quadrant, tf.TensorSpec([1, 8, 8, 1], tf.float32, name="picture"))
    yield "logits", convert(dense, RGB)
    yield "binary", convert(redness, RGB)
    yield "unknown_ending", convert(lambda picture: mean_colour(picture) * tf.constant([1.0, 0.5, 0.25]), RGB)
    yield "nchw", convert(planar, tf.TensorSpec([1, 3, 8, 8], tf.float32, name="picture"))
    yield "any_size", convert(any_size, tf.TensorSpec([1, None, None, 3], tf.float32, name="picture"))
    yield (
        "float16",
        convert(
            lambda picture: softmax(tf.cast(picture, tf.float32)),
            tf.TensorSpec([1, 8, 8, 3], tf.float16, name="picture"),
        ),
    )
    yield (
        "three_inputs",
        convert(
            lambda a, b, c: softmax(a + b) * c,
            tf.TensorSpec([1, 8, 8, 3], tf.float32, name="a"),
            tf.TensorSpec([1, 8, 8, 3], tf.float32, name="b"),
            tf.TensorSpec([1, 3], tf.float32, name="c"),
        ),
    )
    yield "two_outputs", convert(lambda picture: (softmax(picture), redness(picture)), RGB)
    yield (
        "flex",
        convert(
            lambda picture: tf.nn.softmax(tf.math.erf(mean_colour(picture))),
            RGB,
            target_spec=tf.lite.TargetSpec(
                supported_ops=[tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
            ),
        ),
    )
    yield "custom_op", patched(plain, schema.BuiltinOperator.SOFTMAX, custom)
    yield "newer_op", patched(plain, schema.BuiltinOperator.SOFTMAX, newer)
    yield "quantized", quantized(tf.int8)
    yield "uint8", quantized(tf.uint8)
    yield "int16", quantized(tf.int16, "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8")


if __name__ == "__main__":
    for name, content in models():
        (HERE / f"{name}.tflite").write_bytes(content)
    (HERE / "colours.txt").write_text(LABELS)
