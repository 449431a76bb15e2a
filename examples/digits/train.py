"""Train the digits model on a workstation: render scikit-learn's digits, fit a small network, export a SavedModel.

The network sees every frame through the board's own recipe. The digits in heldout.npz never reach it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from render import HELDOUT, Picture, balanced, jpeg, render

from edge_runner.model.preprocess import Preprocessor, Recipe, TensorSpec

CLASSES = 10
INPUT = TensorSpec("digits", (1, 48, 48, 1), "float32")
RECIPE = Recipe(color="gray", mean=(0.0,), std=(255.0,), resize="crop", interpolation="area")

SPLIT_SEED = 0  # not --seed: the split stays, so that no training ever sees a held-out digit
HELDOUT_COUNT = 360
CALIBRATION_COUNT = 100
EVALUATION_PER_LABEL = 20
TEST_RENDERS = 3  # frames of each held-out digit

FRAMES = 20_000
EPOCHS = 14
FILTERS = (16, 32, 64, 64)
BATCH = 64
LEARNING_RATE = 2e-3

# Each use of the renderer draws from random numbers of its own.
TRAINING, TESTING, CALIBRATION, CHOOSING, EVALUATION = range(5)


class Digits(NamedTuple):
    """`images` uint8 [n, 8, 8] with 0..16, `labels` uint8 [n]."""

    images: Picture
    labels: Picture


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    options = _parser().parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    training, heldout = split()
    save_heldout(heldout, options.heldout)
    (options.output / "labels.txt").write_text("".join(f"{label}\n" for label in range(CLASSES)))
    save_calibration(training, options.output / "calibration", options.seed)
    save_evaluation(heldout, options.output / "evaluate", options.seed)

    print(f"rendering {options.frames} frames of {len(training.labels)} digits")
    inputs, labels = rendered(training, options.frames, TRAINING, options.seed)
    model = trained(inputs, labels, options.seed)
    model.export(options.output / "saved_model")

    inputs, labels = rendered(heldout, TEST_RENDERS * len(heldout.labels), TESTING, options.seed)
    answers = model.predict(inputs, verbose=0).argmax(axis=1)
    right = int((answers == labels).sum())
    print(
        f"held-out accuracy: {right / len(labels):.2%} ({right} of {len(labels)} frames of {len(heldout.labels)} digits)"
    )
    return 0


def split() -> tuple[Digits, Digits]:
    """Scikit-learn's 1797 digits in two: for training, and held out; both with the same share of each class."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    parts = train_test_split(images, labels, test_size=HELDOUT_COUNT, stratify=labels, random_state=SPLIT_SEED)
    return Digits(parts[0], parts[2]), Digits(parts[1], parts[3])


def save_heldout(heldout: Digits, target: Path) -> None:
    """Write the held-out digits for render.py."""
    partial = target.with_suffix(".partial.npz")
    np.savez_compressed(partial, images=heldout.images, labels=heldout.labels)
    os.replace(partial, target)


def save_calibration(training: Digits, folder: Path, seed: int) -> None:
    """Write frames of training digits, for the quantisation to see the range of every layer."""
    folder.mkdir(exist_ok=True)
    chosen = balanced(training.labels, CALIBRATION_COUNT, np.random.default_rng((seed, CALIBRATION, CHOOSING)))
    for number, index in enumerate(chosen):
        frame = render(training.images[index], np.random.default_rng((seed, CALIBRATION, number)))
        (folder / f"{number:04d}_{training.labels[index]}.jpg").write_bytes(jpeg(frame))


def save_evaluation(heldout: Digits, folder: Path, seed: int) -> None:
    """Write frames of held-out digits, LABEL/NNNN.jpg, for the builder to see whether its recipe is that of the training."""
    rng = np.random.default_rng((seed, EVALUATION, CHOOSING))
    for label in range(CLASSES):
        of_label = folder / str(label)
        of_label.mkdir(parents=True, exist_ok=True)
        chosen = rng.permutation(np.flatnonzero(heldout.labels == label))[:EVALUATION_PER_LABEL]
        for number, index in enumerate(chosen):
            frame = render(heldout.images[index], np.random.default_rng((seed, EVALUATION, label, number)))
            (of_label / f"{number:04d}.jpg").write_bytes(jpeg(frame))


def rendered(digits: Digits, count: int, use: int, seed: int) -> tuple[npt.NDArray[np.float32], Picture]:
    """Render `count` frames: the network's inputs, float32 [count, 48, 48, 1] with 0..1, and their labels, uint8 [count]."""
    chosen = balanced(digits.labels, count, np.random.default_rng((seed, CHOOSING, use)))
    inputs = np.empty((count, *INPUT.shape[1:]), np.float32)

    def fill(numbers: range) -> None:
        prepare = Preprocessor(RECIPE, INPUT)
        for number in numbers:
            # Not by way of JPEG: nothing of its loss is left once 480 pixels became 48.
            frame = render(digits.images[chosen[number]], np.random.default_rng((seed, use, number)))
            prepare(frame, inputs[number : number + 1])

    workers = os.cpu_count() or 1
    cv2.setNumThreads(1)  # one frame a thread is faster than many threads on one frame
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(fill, [range(first, count, workers) for first in range(workers)]))
    return inputs, digits.labels[chosen]


def trained(inputs: npt.NDArray[np.float32], labels: Picture, seed: int) -> Any:
    """Fit the network, a keras.Model from float32 [n, 48, 48, 1] to probabilities, float32 [n, 10]."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    model = network()
    steps = EPOCHS * -(-len(labels) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.summary()
    model.fit(inputs, labels, batch_size=BATCH, epochs=EPOCHS, verbose=2)
    return model


def network() -> Any:
    """A keras.Model with random weights, 61 thousand of them: four convolutions, the mean of each map, one dense layer."""
    import keras
    from keras import layers

    blocks = []
    for filters in FILTERS:
        blocks += [layers.MaxPooling2D()] if blocks else []
        convolution = layers.Conv2D(filters, 3, padding="same", use_bias=False)
        blocks += [convolution, layers.BatchNormalization(), layers.ReLU()]
    # Not Flatten: with an open batch, it becomes operations that work out a shape for every frame.
    head = [
        layers.GlobalAveragePooling2D(),
        layers.Dropout(0.2),
        layers.Dense(CLASSES, activation="softmax", name="scores"),
    ]
    return keras.Sequential([keras.Input(INPUT.shape[1:], name=INPUT.name), *blocks, *head], name="digits")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train the digits model: DIR/saved_model, DIR/labels.txt, DIR/calibration, DIR/evaluate."
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of rendering and training (default: %(default)s)"
    )
    parser.add_argument(
        "--frames", type=int, default=FRAMES, metavar="N", help="frames to train on (default: %(default)s)"
    )
    parser.add_argument("--heldout", type=Path, default=HELDOUT, metavar="FILE", help="held-out digits (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
