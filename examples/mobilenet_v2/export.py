"""Export Keras' MobileNetV2 as a SavedModel, with the names of its classes. Needs TensorFlow, so a workstation.

The weights are ImageNet's, which Keras downloads once, those of a file, or random ones that show the road without a network.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

IMAGENET, RANDOM = "imagenet", "none"  # weights that are no file
SAVED_MODEL, LABELS = "saved_model", "labels.txt"  # in the output's folder
CLASSES = 1000

# What keras.applications.MobileNetV2 has ImageNet weights for.
ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
SIZES_PX = (96, 128, 160, 192, 224)

SEED = 0  # of random weights
SETTLING_PICTURES, SETTLING_GRAIN = 16, 8
TIMEOUT_S = 30.0  # of a download that stands still

# TensorFlow's own warnings, its search for a GPU, and what newer ones say of oneDNN, whatever the level.
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "", "TF_ENABLE_ONEDNN_OPTS": "0"}


class ExportError(Exception):
    """The model cannot be had; the message is one line, and says what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(
        description=f"Export MobileNetV2: DIR/{SAVED_MODEL} and, where they can be had, DIR/{LABELS}.",
        parents=[model_options()],
        allow_abbrev=False,
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the results go")
    options = parser.parse_args(arguments)
    try:
        export(options.output, options.weights, options.alpha, options.size)
    except ExportError as error:
        return failed(error)
    print(options.output / SAVED_MODEL)
    return 0


def model_options() -> argparse.ArgumentParser:
    """The options that say which MobileNetV2, as a parent of other parsers."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--weights",
        default=IMAGENET,
        metavar="imagenet|none|FILE",
        help="ImageNet's (Keras downloads them once), random ones to try the road, or a .weights.h5 or .h5 file"
        " (default: %(default)s)",
    )
    parser.add_argument("--alpha", type=float, choices=ALPHAS, default=1.0, help="width (default: %(default)s)")
    parser.add_argument(
        "--size", type=int, choices=SIZES_PX, default=224, help="the input's width and height (default: %(default)s)"
    )
    return parser


def export(folder: Path, weights: str, alpha: float, size: int, *, named: bool = True) -> Path | None:
    """Write `folder`/saved_model and, if `named`, the classes' names beside it; return their file, None where there is none.

    Raise ExportError where the weights cannot be had.
    """
    if weights not in (IMAGENET, RANDOM) and not Path(weights).is_file():
        raise ExportError(f"--weights {weights}: there is no such file; allowed: {IMAGENET}, {RANDOM}, or a file")
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    socket.setdefaulttimeout(TIMEOUT_S)
    labels = folder / LABELS
    labels.unlink(missing_ok=True)
    with redirect_stdout(sys.stderr):  # Keras' progress
        mobilenet(weights, alpha, size).export(folder / SAVED_MODEL, verbose=False)
        names = imagenet_labels() if named and weights != RANDOM else None
    if names is None:
        return None
    labels.write_text("".join(f"{name}\n" for name in names), "utf-8")
    return labels


def mobilenet(weights: str, alpha: float, size: int) -> Any:
    """A keras.Model from float32 [n, size, size, 3] with -1..1 to probabilities, float32 [n, 1000]."""
    import keras

    keras.utils.set_random_seed(SEED)
    shape = (size, size, 3)
    if weights == IMAGENET:
        try:
            return keras.applications.MobileNetV2(shape, alpha, weights=IMAGENET)
        except Exception as error:  # nothing narrower: it is what Keras raises where a download fails
            raise ExportError(
                f"Keras cannot get the ImageNet weights, which it downloads once ({_in_one_line(error)});"
                " go online, or give --weights FILE (a .weights.h5 or .h5 file) or --weights none (random, to try the road)"
            ) from error
    model = keras.applications.MobileNetV2(shape, alpha, weights=None)
    if weights == RANDOM:
        settle(model, size)
    else:
        load(model, Path(weights), alpha)
    return model


def load(model: Any, weights: Path, alpha: float) -> None:
    """Load a file of weights; raise ExportError where it is none of this model."""
    try:
        model.load_weights(weights)
    except (ValueError, OSError, KeyError) as error:
        raise ExportError(
            f"--weights {weights}: not the weights of MobileNetV2 with --alpha {alpha} and {CLASSES} classes"
            f" ({_in_one_line(error)})"
        ) from error


def settle(model: Any, size: int) -> None:
    """Let random weights answer otherwise to one picture than to another: without, each layer makes its input fainter.

    Every normalisation takes the mean and the variance of a few random pictures, as it would have done in a training.
    """
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    grain = np.random.default_rng(SEED).uniform(-1, 1, (SETTLING_PICTURES, SETTLING_GRAIN, SETTLING_GRAIN, 3))
    model(keras.ops.image.resize(grain.astype(np.float32), (size, size)), training=True)


def imagenet_labels() -> list[str] | None:
    """The names of ImageNet's classes in the order of the model's outputs, None where Keras cannot download them."""
    from keras.applications.mobilenet_v2 import decode_predictions

    falling = np.arange(CLASSES, 0, -1, dtype=np.float32)  # so that "the best 1000" are all classes, in their order
    try:
        (classes,) = decode_predictions(falling[np.newaxis], top=CLASSES)
    except Exception as error:  # as above
        print(f"no names for the classes ({_in_one_line(error)}); --labels FILE names them", file=sys.stderr)
        return None
    return readable((wordnet_id, name) for wordnet_id, name, _ in classes)


def readable(classes: Iterable[tuple[str, str]]) -> list[str]:
    """Labels of (WordNet id, name) pairs: spaces for underscores, and the id after a name that comes twice (crane, maillot)."""
    pairs = [(wordnet_id, name.replace("_", " ")) for wordnet_id, name in classes]
    times = Counter(name for _, name in pairs)
    return [name if times[name] == 1 else f"{name} ({wordnet_id})" for wordnet_id, name in pairs]


def failed(error: ExportError) -> int:
    """Say it as all of edge-runner does; return the exit code."""
    print(f"edge-runner: error: {error}", file=sys.stderr)
    return 1


def _in_one_line(error: Exception, most: int = 200) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= most else f"{text[:most]}…"


if __name__ == "__main__":
    sys.exit(main())
