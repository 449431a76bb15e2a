"""Writes known boxes as each family of detectors writes them: the decoders the other way round, one line of thought each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_runner.frame import Ending, Tensor, TensorSpec
from edge_runner.task.base import ModelFacts
from edge_runner.task.decoder.anchors import FAMILIES
from edge_runner.task.detect import Detect, DetectConfig

LABELS = ("ant", "bee", "cat")
SIZE = (96, 64)
"""The input's width and height."""
GRID = 12 * 8 + 6 * 4 + 3 * 2  # cells at strides 8, 16, 32
POSTPROCESS = "TFLite_Detection_PostProcess"


@dataclass(frozen=True)
class Thing:
    """A box (x0, y0, x1, y1) in fractions of the input, with its class and score."""

    box: tuple[float, float, float, float]
    index: int
    score: float


Written = tuple[list[TensorSpec], list[Ending], list[Tensor]]


def floats(**tensors: Tensor) -> Written:
    specs = [TensorSpec(name, tensor.shape, "float32") for name, tensor in tensors.items()]
    return specs, [Ending("CONCATENATION")] * len(specs), [np.asarray(t, np.float32) for t in tensors.values()]


def centres(box: Sequence[float]) -> list[float]:
    x0, y0, x1, y1 = box
    return [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]


def cells(count: int, numbers: int, unit: Sequence[float]) -> Tensor:
    """[count, numbers]: small boxes all over the picture, as a grid's cells have, with scores of 0."""
    rows = np.zeros((count, numbers), np.float32)
    rows[:, 0] = np.linspace(0, 1, count)
    rows[:, 1] = np.linspace(1, 0, count)
    rows[:, 2:4] = 0.05
    rows[:, :4] *= unit
    return rows


def yolov8(things: Sequence[Thing], pixels: bool = False) -> Written:
    unit = (*SIZE, *SIZE) if pixels else (1, 1, 1, 1)
    rows = cells(GRID, 4 + len(LABELS), unit)
    for number, thing in enumerate(things):
        rows[7 + 5 * number, :4] = np.multiply(centres(thing.box), unit)
        rows[7 + 5 * number, 4 + thing.index] = thing.score
    return floats(out=rows.T[np.newaxis])


def yolov5(things: Sequence[Thing], pixels: bool = False) -> Written:
    unit = (*SIZE, *SIZE) if pixels else (1, 1, 1, 1)
    rows = cells(3 * GRID, 5 + len(LABELS), unit)
    for number, thing in enumerate(things):
        rows[7 + 5 * number, :4] = np.multiply(centres(thing.box), unit)
        objectness = np.sqrt(thing.score)
        rows[7 + 5 * number, 4] = objectness
        rows[7 + 5 * number, 5 + thing.index] = thing.score / objectness if thing.score else 0
    return floats(out=rows[np.newaxis])


def yolo_nms(things: Sequence[Thing], pixels: bool = False) -> Written:
    unit = (*SIZE, *SIZE) if pixels else (1, 1, 1, 1)
    rows = np.zeros((1, 40, 6), np.float32)
    for number, thing in enumerate(sorted(things, key=lambda thing: -thing.score)):
        rows[0, number] = (*np.multiply(thing.box, unit), thing.score, thing.index)
    return floats(out=rows)


def tflite_postprocess(things: Sequence[Thing]) -> Written:
    boxes, classes, scores = (np.zeros(shape, np.float32) for shape in ((1, 40, 4), (1, 40), (1, 40)))
    for number, thing in enumerate(sorted(things, key=lambda thing: -thing.score)):
        x0, y0, x1, y1 = thing.box
        boxes[0, number], classes[0, number], scores[0, number] = (y0, x0, y1, x1), thing.index, thing.score
    boxes[0, len(things) :], scores[0, len(things) :] = (0.1, 0.1, 0.9, 0.9), 0.99  # beyond the count: leftovers
    count = np.array([len(things)], np.float32)
    specs, _, tensors = floats(boxes=boxes, classes=classes, scores=scores, count=count)
    reads = ((1, 500, 4), (1, 500, 1 + len(LABELS)), (500, 4))
    return specs, [Ending(POSTPROCESS, slot, reads) for slot in range(4)], tensors


def ssd_raw(things: Sequence[Thing], family: str = "ssd") -> Written:
    kind = FAMILIES[family]
    anchors = kind.anchors(SIZE).astype(float)
    numbers = 4 if kind.numbers == 4 else 16
    offsets = np.zeros((1, len(anchors), numbers))
    columns = len(LABELS) + kind.background
    logits = np.full((1, len(anchors), columns), -20.0)
    for number, thing in enumerate(things):
        at = 3 + 5 * number
        x, y, width, height = centres(thing.box)
        ax, ay, aw, ah = anchors[at]
        if kind.absolute:
            offsets[0, at, :4] = np.multiply([x - ax, y - ay, width, height], (*SIZE, *SIZE))
        else:
            by = kind.scales
            far = [
                (y - ay) / ah * by[0],
                (x - ax) / aw * by[1],
                np.log(height / ah) * by[2],
                np.log(width / aw) * by[3],
            ]
            offsets[0, at, :4] = far
        logits[0, at, thing.index + kind.background] = np.log(max(thing.score, 1e-9) / max(1 - thing.score, 1e-9))
    return floats(raw_boxes=offsets, raw_scores=logits)


WRITERS: dict[str, tuple[str, Callable[[Sequence[Thing]], Written]]] = {
    # what is written -> the decoder that reads it
    "yolov8": ("yolov8", yolov8),
    "yolov8 in pixels": ("yolov8", lambda things: yolov8(things, pixels=True)),
    "yolov5": ("yolov5", yolov5),
    "yolov5 in pixels": ("yolov5", lambda things: yolov5(things, pixels=True)),
    "yolo_nms": ("yolo_nms", yolo_nms),
    "yolo_nms in pixels": ("yolo_nms", lambda things: yolo_nms(things, pixels=True)),
    "tflite_postprocess": ("tflite_postprocess", tflite_postprocess),
    "ssd_raw, ssd": ("ssd_raw", ssd_raw),
    "ssd_raw, ssd-fpn": ("ssd_raw", lambda things: ssd_raw(things, "ssd-fpn")),
    "ssd_raw, efficientdet": ("ssd_raw", lambda things: ssd_raw(things, "efficientdet")),
    "ssd_raw, blazeface": ("ssd_raw", lambda things: ssd_raw(things, "blazeface")),
}


def facts(written: Written, labels: Sequence[str] | None = LABELS, size: tuple[int, int] | None = SIZE) -> ModelFacts:
    specs, endings, _ = written
    return ModelFacts(tuple(specs), tuple(endings), tuple(labels) if labels else None, "labels.txt", size)


def detector(written: Written, labels: Sequence[str] | None = LABELS, **settings: object) -> Detect:
    return Detect(DetectConfig(**settings), facts(written, labels))  # type: ignore[arg-type]


def quantized(written: Written, dtype: str = "int8") -> tuple[Written, list[float]]:
    """The same outputs, each with one scale for all of its values, as whole numbers; and each scale."""
    specs, endings, tensors = written
    limits, made, scales = np.iinfo(dtype), [], []
    for spec, tensor in zip(specs, tensors, strict=True):
        low, high = min(float(tensor.min()), 0.0), max(float(tensor.max()), 1e-3)
        scale = (high - low) / (int(limits.max) - int(limits.min))
        zero = round(limits.min - low / scale)
        whole = np.clip(np.rint(tensor / scale) + zero, limits.min, limits.max).astype(dtype)
        made.append((TensorSpec(spec.name, spec.shape, dtype, scale, int(zero)), whole))
        scales.append(scale)
    return ([spec for spec, _ in made], endings, [spec.dequantize(whole) for spec, whole in made]), scales
