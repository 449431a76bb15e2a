"""Anchors: the boxes that single-shot detectors predict offsets from, generated as the families' own tools do.

A family is recognised by how many anchors it has for an input of a size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_runner.frame import Tensor

FamilyName = Literal[
    "ssd", "ssd-fpn", "efficientdet", "model-maker", "blazeface", "blazeface-back", "blazeface-full-range"
]
OCTAVES = (8, 16, 32, 64, 128)  # strides of a feature pyramid's levels 3 to 7


@dataclass(frozen=True)
class Layer:
    """A grid of cells. `sizes` are (width, height) of a cell's anchors, `first` and `step` the centre of the first cell and the way
    to the next, (x, y), where they are not spread evenly; all in fractions of the input."""

    rows: int
    columns: int
    sizes: Sequence[tuple[float, float]]
    first: tuple[float, float] | None = None
    step: tuple[float, float] | None = None

    def anchors(self) -> Tensor:
        """[rows * columns * sizes, 4]: row by row, cell by cell; a cell's anchors share its centre."""
        step = np.array(self.step or (1 / self.columns, 1 / self.rows))
        first = step / 2 if self.first is None else np.array(self.first)
        y, x = np.mgrid[0 : self.rows, 0 : self.columns]
        tiled = np.empty((x.size, len(self.sizes), 4))
        tiled[..., 0:2] = (first + np.stack([x, y], axis=-1) * step).reshape(-1, 1, 2)
        tiled[..., 2:4] = np.array(self.sizes)
        return tiled.reshape(-1, 4)


@dataclass(frozen=True)
class Family:
    """A kind of detector.

    `layers` gives the anchors for an input of (width, height) pixels. `scales` divide the four offsets: of the centre's x and y,
    in anchor sizes, and of the logarithms of width and height. With `absolute`, offsets and sizes are no such thing but pixels.
    `background` says whether the first class is none. `numbers` is the least that a box has (more are keypoints). `sizes` are the
    widths that the family's models come in, where another family has as many anchors; empty: any.
    """

    layers: Callable[[int, int], Iterator[Layer]]
    scales: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    absolute: bool = False
    background: bool = False
    numbers: int = 4
    sizes: tuple[int, ...] = ()

    def count(self, size: tuple[int, int]) -> int:
        """How many anchors there are for an input of (width, height) pixels."""
        return sum(layer.rows * layer.columns * len(layer.sizes) for layer in self.layers(*size))

    def anchors(self, size: tuple[int, int]) -> Tensor:
        """Centre and size of each anchor, float32 [anchors, 4] (x, y, width, height), in fractions of the input."""
        return np.concatenate([layer.anchors() for layer in self.layers(*size)]).astype(np.float32)

    def boxes(self, offsets: Tensor, anchors: Tensor, size: tuple[int, int]) -> Tensor:
        """Boxes [n, 4] (x0, y0, x1, y1) in fractions of an input of `size`, from offsets [n, 4 or more] and their anchors [n, 4].

        Sources: object_detection/box_coders/faster_rcnn_box_coder.py (y, x, height, width); MediaPipe's
        tensors_to_detections_calculator with reverse_output_order (x, y, width, height).
        """
        if self.absolute:
            centre = offsets[:, 0:2] / size + anchors[:, 0:2]
            sides = offsets[:, 2:4] / size
        else:
            y, x, height, width = (offsets[:, i] / scale for i, scale in enumerate(self.scales))
            centre = np.stack([x, y], axis=1) * anchors[:, 2:4] + anchors[:, 0:2]
            # e to the 20th is half a thousand million inputs wide: no box, but a number
            sides = np.exp(np.minimum(np.stack([width, height], axis=1), 20.0)) * anchors[:, 2:4]
        return np.concatenate([centre - sides / 2, centre + sides / 2], axis=1)


def families(size: tuple[int, int], anchors: int, numbers: int) -> list[FamilyName]:
    """The families that have so many anchors for an input of (width, height) pixels, and so many numbers a box."""
    return [
        name
        for name, family in FAMILIES.items()
        if family.count(size) == anchors and (numbers == 4) == (family.numbers == 4) and numbers >= family.numbers
    ]


def _cells(width: int, height: int, stride: int) -> tuple[int, int]:
    """Rows and columns."""
    return math.ceil(height / stride), math.ceil(width / stride)


def _ssd(width: int, height: int) -> Iterator[Layer]:
    """SSD MobileNet: six layers from stride 16 on, each half of the one before; scales .2 to .95.

    Source: object_detection/anchor_generators/multiple_grid_anchor_generator.py, create_ssd_anchors.
    """
    scales = [0.2 + 0.75 * i / 5 for i in range(6)] + [1.0]
    for index, scale in enumerate(scales[:6]):
        boxes = [(0.1, 1.0), (scale, 2.0), (scale, 0.5)]  # the first layer has fewer
        if index:
            between = math.sqrt(scale * scales[index + 1])
            boxes = [(scale, ratio) for ratio in (1.0, 2.0, 0.5, 3.0, 1 / 3)] + [(between, 1.0)]
        rows, columns = _cells(width, height, 16 << index)
        short = min(width, height)
        sizes = [(s * math.sqrt(r) * short / width, s / math.sqrt(r) * short / height) for s, r in boxes]
        yield Layer(rows, columns, sizes)


def _ssd_fpn(width: int, height: int) -> Iterator[Layer]:
    """SSD with a feature pyramid (FPN, FPNLite): two scales and three ratios a cell.

    Source: object_detection/anchor_generators/multiscale_grid_anchor_generator.py; anchor_scale 4 in its models.
    """
    for stride in OCTAVES:
        boxes = [(4.0 * stride * 2 ** (i / 2), ratio) for ratio in (1.0, 2.0, 0.5) for i in range(2)]
        sizes = [(s * math.sqrt(r) / width, s / math.sqrt(r) / height) for s, r in boxes]
        # where the cells do not fit in evenly, the first one's centre is the picture's corner
        first = (stride / 2 / width * (width % stride == 0), stride / 2 / height * (height % stride == 0))
        yield Layer(*_cells(width, height, stride), sizes, first, (stride / width, stride / height))


def _efficientdet(width: int, height: int) -> Iterator[Layer]:
    """EfficientDet: three scales and three ratios a cell; the smaller Lite models (0 to 2, up to 448 pixels) have smaller ones.

    Source: google/automl, efficientdet/tf2/anchors.py and hparams_config.py.
    """
    least = 3.0 if max(width, height) <= 448 else 4.0
    for stride in OCTAVES:
        rows, columns = _cells(width, height, stride)
        boxes = [(least * 2 ** (i / 3), ratio) for i in range(3) for ratio in (1.0, 2.0, 0.5)]
        yield Layer(rows, columns, [(s * math.sqrt(r) / columns, s / math.sqrt(r) / rows) for s, r in boxes])


def _model_maker(width: int, height: int) -> Iterator[Layer]:
    """MediaPipe Model Maker's detectors: as many as EfficientDet has, the ratios in another order.

    Source: tensorflow/models, official/vision/ops/anchor.py, with MediaPipe's anchor_size of 3.
    """
    for stride in OCTAVES:
        rows, columns = _cells(width, height, stride)
        boxes = [(3.0 * 2 ** (i / 3), ratio) for i in range(3) for ratio in (0.5, 1.0, 2.0)]
        yield Layer(rows, columns, [(s * math.sqrt(r) / columns, s / math.sqrt(r) / rows) for s, r in boxes])


def _blazeface(width: int, height: int) -> Iterator[Layer]:
    """BlazeFace, and MediaPipe's palms: strides 8, 16, 16, 16 with two anchors each, all of the input's size.

    Source: mediapipe/calculators/tflite/ssd_anchors_calculator.cc with fixed_anchor_size.
    """
    yield Layer(*_cells(width, height, 8), [(1.0, 1.0)] * 2)
    yield Layer(*_cells(width, height, 16), [(1.0, 1.0)] * 6)


def _blazeface_back(width: int, height: int) -> Iterator[Layer]:
    """BlazeFace for a telephone's back camera: the same with strides twice as wide."""
    yield Layer(*_cells(width, height, 16), [(1.0, 1.0)] * 2)
    yield Layer(*_cells(width, height, 32), [(1.0, 1.0)] * 6)


def _blazeface_full(width: int, height: int) -> Iterator[Layer]:
    """BlazeFace of the full range: one anchor every four pixels."""
    yield Layer(*_cells(width, height, 4), [(1.0, 1.0)])


CODED = (10.0, 10.0, 5.0, 5.0)
FAMILIES: dict[FamilyName, Family] = {
    "ssd": Family(_ssd, CODED, background=True),
    "ssd-fpn": Family(_ssd_fpn, CODED, background=True),
    "efficientdet": Family(_efficientdet),
    "model-maker": Family(_model_maker, sizes=(256, 384)),
    "blazeface": Family(_blazeface, absolute=True, numbers=5),
    "blazeface-back": Family(_blazeface_back, absolute=True, numbers=5),
    "blazeface-full-range": Family(_blazeface_full, absolute=True, numbers=5),
}
