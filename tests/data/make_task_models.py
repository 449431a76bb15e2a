"""Writes the tiny models that find things into this folder. Run by hand, with TensorFlow 2.16.2: python make_task_models.py.

Each looks for pixels of pure red, green and blue, and says where the rectangle around those of each colour is, exact to the
pixel, in the form of one kind of real models; tests/task/rectangles.py draws the pictures. Inputs are x / 255 in RGB, but where it
is said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import tensorflow as tf
from make_models import convert
from tensorflow.lite.python import schema_py_generated as schema

HERE = Path(__file__).parent
BRIGHT, DARK = 0.6, 0.4  # a pixel is of a colour where its channel is above the one and the others are below the other
SCORES = (0.9, 0.8, 0.7)  # of red, green and blue, where they are there
# Each thing is found so often: moved by so much of its size, with so much of its score.
ECHOES = ((0.0, 1.0), (0.1, 0.9), (-0.05, 0.8))
NOISE = 0.03  # the highest score where nothing is
STRIDES = (8, 16, 32)  # pixels between the cells of a YOLO
OBJECTNESS = 0.96
SSD_SCALES = (10.0, 10.0, 5.0, 5.0)  # of y, x, height, width
QUANTIZATION = (0.0043, -121)  # scale and zero point; -0.03 to 1.066 in int8
POINTS = 17
PEOPLE = 6  # rows of a MoveNet for several people
SHARPNESS = 12.0
NOTHING = -9.0  # the logit where nothing is

Function = Callable[..., Any]


def rgb(height: int = 64, width: int = 64, kind: tf.DType = tf.float32) -> tf.TensorSpec:
    return tf.TensorSpec([1, height, width, 3], kind, name="picture")


def pure(picture: tf.Tensor) -> tf.Tensor:
    """1 where a pixel is of a channel's colour, 0 elsewhere, [1, height, width, 3]."""
    red, green, blue = tf.split(tf.cast(picture < DARK, tf.float32), 3, axis=3)
    return tf.cast(picture > BRIGHT, tf.float32) * tf.concat([green * blue, red * blue, red * green], 3)


def ends(line: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the ones of a line [1, n, 3] begin and where they end, each [1, 3, 1] in fractions of it; 0 where there are none."""
    n = line.shape[1]
    place = np.arange(n, dtype=np.float32).reshape(1, n, 1)
    first = tf.reduce_max(line, 1) - tf.reduce_max(line * ((n - place) / n), 1)
    return first[..., None], tf.reduce_max(line * ((place + 1) / n), 1)[..., None]


def found(picture: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The rectangles of the colours, [1, 3, 4] (x0, y0, x1, y1) in fractions; and [1, 3, 1], 0 where one is not there, else 1."""
    mask = pure(picture)
    columns, rows = tf.reduce_max(mask, 1), tf.reduce_max(mask, 2)
    (x0, x1), (y0, y1) = ends(columns), ends(rows)
    return tf.concat([x0, y0, x1, y1], 2), tf.reduce_max(columns, 1)[..., None]


def centred(boxes: tf.Tensor) -> tf.Tensor:
    """(x, y, width, height) of corners (x0, y0, x1, y1), x and y of the centre."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return tf.concat([(low + high) / 2, high - low], 2)


def pixels(boxes: tf.Tensor, picture: tf.Tensor) -> tf.Tensor:
    _, height, width, _ = picture.shape
    return boxes * np.array([width, height, width, height], np.float32)


# YOLO


def cells(height: int, width: int, each: int = 1) -> np.ndarray:
    """The cells of all strides, [cells * `each`, 4] (x, y, width, height), in fractions, as wide as they are apart, and twice, …"""
    rows = [
        ((x + 0.5) * stride / width, (y + 0.5) * stride / height, stride * times / width, stride * times / height)
        for stride in STRIDES
        for y in range(height // stride)
        for x in range(width // stride)
        for times in range(1, each + 1)
    ]
    return np.array(rows, np.float32)


def seats(count: int) -> list[tuple[int, int, float, float]]:
    """Which of `count` cells find what: (cell, colour, moved by, part of the score), in the order of the cells.

    Each colour is found among the finest, the middle and the coarsest cells; where best, differs.
    """
    starts = (count // 7, count * 4 // 5, count - 3)
    return sorted((starts[(i + c) % 3] + c, c, *echo) for i, echo in enumerate(ECHOES) for c in range(3))


def spread(boxes: tf.Tensor, present: tf.Tensor, rest: np.ndarray) -> tf.Tensor:
    """Boxes [1, n, 4] (x, y, width, height): those of the colours in their seats, the cells' own ones, `rest` [n, 4], elsewhere."""
    colours, moved = np.full(len(rest), 3, np.int32), np.zeros((1, len(rest), 1), np.float32)
    for cell, colour, move, _ in seats(len(rest)):
        colours[cell], moved[0, cell] = colour, move
    none = tf.zeros([1, 1, 4])
    placed = tf.gather(tf.concat([boxes, none], 1), colours, axis=1)
    there = tf.gather(tf.concat([present, none[..., :1]], 1), colours, axis=1)
    placed = tf.concat([placed[..., :2] + placed[..., 2:] * moved, placed[..., 2:]], 2)
    return placed * there + rest[None] * (1.0 - there)


def scored(present: tf.Tensor, count: int, noise: float = NOISE) -> tf.Tensor:
    """Scores [1, count, 3] of the colours: in their seats what they are worth, next to nothing elsewhere."""
    base = np.random.default_rng(1).uniform(0, noise, (1, count, 3)).astype(np.float32)
    worth = np.zeros((1, count, 3), np.float32)
    for cell, colour, _, part in seats(count):
        base[0, cell, :] = 0
        worth[0, cell, colour] = SCORES[colour] * part
    return base + worth * tf.reshape(present, [1, 1, 3])


def yolov8(picture: tf.Tensor, in_pixels: bool = False) -> tf.Tensor:
    """[1, 4 + 3, cells]: x, y, width, height, and a score a class."""
    boxes, present = found(picture)
    own = cells(*picture.shape[1:3])
    boxes = spread(centred(boxes), present, own)
    boxes = pixels(boxes, picture) if in_pixels else boxes
    return tf.concat([tf.transpose(boxes, [0, 2, 1]), tf.transpose(scored(present, len(own)), [0, 2, 1])], 1)


def yolov5(picture: tf.Tensor, in_pixels: bool = False) -> tf.Tensor:
    """[1, 3 * cells, 5 + 3]: x, y, width, height, objectness, and a class's score where there is an object.

    Every tenth cell is sure of an object and of no class, or of a class without an object.
    """
    boxes, present = found(picture)
    own = cells(*picture.shape[1:3], each=3)
    boxes = spread(centred(boxes), present, own)
    boxes = pixels(boxes, picture) if in_pixels else boxes
    seated = np.zeros((1, len(own), 1), np.float32)
    for cell, *_ in seats(len(own)):
        seated[0, cell] = 1
    tenth = (np.arange(len(own)) % 10)[None, :, None]
    objectness = np.where(tenth == 4, OBJECTNESS, 0.01) * (1 - seated) + OBJECTNESS * seated
    sure = np.where(tenth == 7, 0.99, 0.0) * (1 - seated)
    classes = scored(present, len(own)) / OBJECTNESS + sure.astype(np.float32)
    return tf.concat([boxes, tf.constant(objectness.astype(np.float32)), classes], 2)


def yolo_nms(picture: tf.Tensor, in_pixels: bool = False) -> tf.Tensor:
    """[1, 5, 6]: x0, y0, x1, y1, score, class; blue, red, green, and two rows of zeros."""
    boxes, present = found(picture)
    boxes = pixels(boxes, picture) if in_pixels else boxes
    classes = np.arange(3, dtype=np.float32).reshape(1, 3, 1)
    rows = tf.concat([boxes, np.array(SCORES, np.float32).reshape(1, 3, 1) * present, classes * present], 2)
    return tf.pad(tf.gather(rows, [2, 0, 1], axis=1), [[0, 0], [0, 2], [0, 0]])


def four(picture: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """What TFLite_Detection_PostProcess gives, without it: scores [1, 5], classes [1, 5], count [1], boxes [1, 5, 4]."""
    rows = yolo_nms(picture)[0]
    scores, order = tf.math.top_k(rows[:, 4], 5)
    rows = tf.gather(rows, order)[None]
    count = tf.reduce_sum(tf.cast(scores > 0.0, tf.float32), keepdims=True)
    return scores[None], rows[..., 5], count, tf.gather(rows, [1, 0, 3, 2], axis=2)


# SSD


def ssd_anchors(grids: Sequence[int]) -> np.ndarray:
    """Anchors [n, 4] (y, x, height, width) in fractions, of layers of `grids` cells each way.

    Source: create_ssd_anchors of TensorFlow's object detection API, with its defaults and reduce_boxes_in_lowest_layer.
    """
    sizes = [0.2 + (0.95 - 0.2) * layer / (len(grids) - 1) for layer in range(len(grids))] + [1.0]
    rows = []
    for layer, grid in enumerate(grids):
        size, following = sizes[layer : layer + 2]
        shapes = [(size, ratio) for ratio in (1.0, 2.0, 1 / 2, 3.0, 1 / 3)] + [(math.sqrt(size * following), 1.0)]
        if layer == 0:
            shapes = [(0.1, 1.0), (size, 2.0), (size, 1 / 2)]
        for y in range(grid):
            for x in range(grid):
                for scale, ratio in shapes:
                    rows.append(
                        ((y + 0.5) / grid, (x + 0.5) / grid, scale / math.sqrt(ratio), scale * math.sqrt(ratio))
                    )
    return np.array(rows, np.float32)


def face_anchors() -> np.ndarray:
    """The centres [896, 2] (x, y) of the anchors of MediaPipe's short-range face detector: two a cell of 8 pixels, six of 16."""
    return np.array(
        [
            ((x + 0.5) / n, (y + 0.5) / n)
            for n, each in ((16, 2), (8, 6))
            for y in range(n)
            for x in range(n)
            for _ in range(each)
        ],
        np.float32,
    )


def row(values: tf.Tensor, colour: int) -> tf.Tensor:
    return values[:, colour : colour + 1]


def moved(boxes: tf.Tensor, colour: int, move: float) -> tuple[tf.Tensor, tf.Tensor]:
    """The centre (x, y) and the size of one colour's box, each [1, 1, 2], moved by a part of its size."""
    box = row(centred(boxes), colour)
    return box[..., :2] + box[..., 2:] * move, box[..., 2:]


def encoded(centre: tf.Tensor, size: tf.Tensor, anchor: np.ndarray) -> tf.Tensor:
    """A box as an SSD tells it, [1, 1, 4] (ty, tx, th, tw), from its `anchor` [4] (y, x, height, width)."""
    y, x, height, width = map(float, anchor)
    offset = (centre - np.array([x, y], np.float32)) / np.array([width, height], np.float32)
    # what is not there has no size, and no logarithm
    ratio = tf.math.log(tf.maximum(size / np.array([width, height], np.float32), 1e-6))
    return tf.concat([offset[..., ::-1], ratio[..., ::-1]], 2) * np.array(SSD_SCALES, np.float32)


def strewn(rows: Sequence[tf.Tensor], count: int, rest: float = 0.0) -> tf.Tensor:
    """[1, count, n]: `rows` [1, 1, n] in their seats, and `rest` elsewhere, which takes no room in the file."""
    parts, last = [], -1
    for number, (values, (place, *_)) in enumerate(zip(rows, seats(count), strict=True), 1):
        after = count - place - 1 if number == len(rows) else 0
        parts.append(tf.pad(values, [[0, 0], [place - last - 1, after], [0, 0]], constant_values=rest))
        last = place
    return tf.concat(parts, 1)


def ssd_encodings(picture: tf.Tensor, anchors: np.ndarray) -> tf.Tensor:
    """[1, anchors, 4]"""
    boxes, present = found(picture)
    rows = [
        encoded(*moved(boxes, colour, move), anchors[place]) * row(present, colour)
        for place, colour, move, _ in seats(len(anchors))
    ]
    return strewn(rows, len(anchors))


def logits(present: tf.Tensor, count: int, columns: int, first: int) -> tf.Tensor:
    """[1, count, columns]: what a sigmoid turns into scores; the colours stand from column `first` on, or all in the only one."""
    rows = []
    for _, colour, _, part in seats(count):
        score = SCORES[colour] * part
        rise = np.zeros((1, 1, columns), np.float32)
        rise[..., first + colour if columns > 1 else 0] = math.log(score / (1 - score)) - NOTHING
        rows.append(rise * row(present, colour) + NOTHING)
    return strewn(rows, count, NOTHING)


def ssd_raw(picture: tf.Tensor, grids: Sequence[int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Encodings [1, anchors, 4] and logits [1, anchors, 5]: of the background, red, green, blue, and what is never there."""
    anchors = ssd_anchors(grids)
    return ssd_encodings(picture, anchors), logits(found(picture)[1], len(anchors), 5, 1)


def ssd_raw_scores(picture: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The same the other way round, and with the sigmoid."""
    boxes, classes = ssd_raw(picture, SSD_320)
    return tf.sigmoid(classes), boxes


def faces(picture: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """[1, 896, 16] in pixels from the anchors (x, y, width, height, six points that are left at 0) and logits [1, 896, 1].

    Its input is (x - 127.5) / 127.5. Each colour is a face.
    """
    anchors, side = face_anchors(), 128.0
    boxes, present = found((picture + 1.0) / 2.0)
    rows = []
    for place, colour, move, _ in seats(len(anchors)):
        centre, size = moved(boxes, colour, move)
        values = tf.concat([centre - anchors[place], size], 2) * row(present, colour) * side
        rows.append(tf.pad(values, [[0, 0], [0, 0], [0, 12]]))
    return strewn(rows, len(anchors)), logits(present, len(anchors), 1, 0)


def ssd_postprocessed(picture: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The four outputs of TFLite_Detection_PostProcess, as TensorFlow's object detection exporter asks the converter for them."""
    own = cells(*picture.shape[1:3])
    anchors = own[:, [1, 0, 3, 2]]
    _, present = found(picture)
    scores = tf.pad(scored(present, len(own)), [[0, 0], [0, 0], [1, 0]])
    return detection_postprocess(ssd_encodings(picture, anchors), scores, tf.constant(anchors))


def attribute(name: str, kind: str, value: Any) -> str:
    return f'attr {{ key: "{name}" value {{ {kind}: {value} }} }}'


POSTPROCESS = " ".join([
    'name: "TFLite_Detection_PostProcess"',
    attribute("max_detections", "i", 10), attribute("max_classes_per_detection", "i", 1), attribute("num_classes", "i", 3),
    attribute("nms_score_threshold", "f", 1e-8), attribute("nms_iou_threshold", "f", 0.6),
    attribute("y_scale", "f", SSD_SCALES[0]), attribute("x_scale", "f", SSD_SCALES[1]),
    attribute("h_scale", "f", SSD_SCALES[2]), attribute("w_scale", "f", SSD_SCALES[3]),
    attribute("use_regular_nms", "b", "false"),
])  # fmt: skip


@tf.function(experimental_implements=POSTPROCESS)
def detection_postprocess(boxes: tf.Tensor, scores: tf.Tensor, anchors: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Stands for the operator, with the shapes of its outputs; the converter replaces it."""
    return tf.zeros([1, 10, 4]), tf.zeros([1, 10]), tf.zeros([1, 10]), tf.zeros([1])


def ssd() -> bytes:
    """Converted with its module, without which the converter takes the operator's stand-in for what it is."""
    module = tf.Module()
    module.find = tf.function(ssd_postprocessed, input_signature=[rgb()])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.find.get_concrete_function()], module)
    converter.allow_custom_ops = True
    return bytes(converter.convert())


# Segmentation


def classed(picture: tf.Tensor) -> tf.Tensor:
    """Logits [1, height, width, 4]: of the background, red, green and blue. A convolution makes them."""
    weights = np.zeros((1, 1, 3, 4), np.float32)
    for colour in range(3):
        weights[0, 0, colour, colour + 1] = 2 * SHARPNESS
    return tf.nn.conv2d(pure(picture), weights, 1, "VALID") + np.array([0, *[-SHARPNESS] * 3], np.float32)


def argmax(kind: tf.DType) -> Function:
    """Class numbers of a type, [1, height, width]."""

    def segmented(picture: tf.Tensor) -> tf.Tensor:
        wanted = tf.int64 if kind == tf.int64 else tf.int32
        return tf.cast(tf.argmax(classed(picture), 3, wanted), kind)

    return segmented


def halved(picture: tf.Tensor) -> tf.Tensor:
    """[1, height / 2, width / 2, 4]"""
    return tf.nn.max_pool2d(classed(picture), 2, 2, "VALID")


def portrait(picture: tf.Tensor) -> tf.Tensor:
    """How sure it is that a pixel is red, [1, height, width, 1]."""
    return tf.sigmoid(2 * SHARPNESS * pure(picture)[..., :1] - SHARPNESS)


def portrait_softmax(picture: tf.Tensor) -> tf.Tensor:
    return tf.nn.softmax(classed(picture)[..., :2])


# Pose


def body_points() -> np.ndarray:
    """The places [17, 2] (x, y) of a body's points in its rectangle, in fractions of it: a spiral from corner to centre."""
    turn = np.linspace(0, 4 * np.pi, POINTS)
    radius = np.linspace(0.5, 0, POINTS)
    return (0.5 + radius[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)).astype(np.float32)


def body(boxes: tf.Tensor, present: tf.Tensor, colour: int) -> tf.Tensor:
    """The points of the body in one colour's rectangle, [1, 17, 3] (y, x, score); each scores a little less than the one before."""
    box, there = row(boxes, colour), row(present, colour)
    points = box[..., :2] + (box[..., 2:] - box[..., :2]) * body_points()
    scores = (SCORES[colour] - 0.01 * np.arange(POINTS, dtype=np.float32)).reshape(1, POINTS, 1)
    return tf.concat([points[..., ::-1], tf.constant(scores)], 2) * there


def pose_single(picture: tf.Tensor) -> tf.Tensor:
    """[1, 1, 17, 3] of a picture of bytes: the body in the red rectangle."""
    boxes, present = found(tf.cast(picture, tf.float32) / 255.0)
    return body(boxes, present, 0)[:, None]


def pose_multi(picture: tf.Tensor) -> tf.Tensor:
    """[1, 6, 56]: a body a colour, its points (y, x, score), and its box (y0, x0, y1, x1) with a score; three rows of zeros."""
    boxes, present = found(picture)
    people = []
    for colour in range(3):
        flat = tf.reshape(body(boxes, present, colour), [1, 1, 3 * POINTS])
        box = tf.gather(row(boxes, colour), [1, 0, 3, 2], axis=2)
        people.append(tf.concat([flat, box, SCORES[colour] * row(present, colour)], 2))
    return tf.pad(tf.concat(people, 1), [[0, 0], [0, PEOPLE - 3], [0, 0]])


# Other outputs


def embedding(picture: tf.Tensor) -> tf.Tensor:
    """[1, 128]: the mean colour seen from 128 sides, of length 1."""
    sides = np.random.default_rng(2).normal(size=(3, 128)).astype(np.float32)
    return tf.math.l2_normalize(tf.matmul(tf.reduce_mean(picture, [1, 2]), sides), axis=1)


def nothing_fits(picture: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    mean = tf.reduce_mean(picture, [1, 2])
    return tf.pad(mean, [[0, 0], [0, 4]]), tf.pad(tf.reshape(mean, [1, 3, 1]), [[0, 1], [0, 0], [0, 4]])


def two_fit(picture: tf.Tensor) -> tf.Tensor:
    """[1, 50, 50]: as good as any shape for a YOLO with objectness, and for one without; there is nothing in it."""
    return tf.pad(tf.reshape(tf.reduce_mean(picture, [1, 2]) * 0.0, [1, 3, 1]), [[0, 0], [0, 47], [0, 49]])


# Files


def changed(content: bytes, change: Function) -> bytes:
    """A model with its tables changed."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def shuffled(model: Any) -> None:
    """The outputs of the last operator in another order (scores, count, boxes, classes), called nothing that helps."""
    main = model.subgraphs[0]
    main.outputs = [main.operators[-1].outputs[slot] for slot in (2, 3, 0, 1)]
    model.signatureDefs = []
    renamed(*(f"out{number}" for number in range(4)))(model)


def renamed(*names: str) -> Function:
    """The outputs called so, in their order."""

    def change(model: Any) -> None:
        main = model.subgraphs[0]
        for tensor, name in zip(main.outputs, names, strict=True):
            main.tensors[tensor].name = name.encode()

    return change


def quantized(kind: int, scale: float, zero_point: int) -> Function:
    """The input in int8 (x / 255 is what it stands for), and the output quantised as it is said."""

    def change(model: Any) -> None:
        main = model.subgraphs[0]
        picture, output = main.inputs[0], main.outputs[0]
        main.inputs = [copied(main, picture, schema.TensorType.INT8, 1 / 255, -128)]
        main.outputs = [copied(main, output, kind, scale, zero_point)]
        dequantize = operator(model, schema.BuiltinOperator.DEQUANTIZE, 2, main.inputs[0], picture)
        quantize = operator(model, schema.BuiltinOperator.QUANTIZE, 1, output, main.outputs[0])
        main.operators = [dequantize, *main.operators, quantize]
        model.signatureDefs = []

    return change


def copied(main: Any, tensor: int, kind: int, scale: float, zero_point: int) -> int:
    """The number of a new tensor of another one's shape, quantised."""
    old, new = main.tensors[tensor], schema.TensorT()
    new.shape, new.shapeSignature, new.name, new.type, new.buffer = old.shape, old.shapeSignature, old.name, kind, 0
    old.name += b"_float"
    new.quantization = schema.QuantizationParametersT()
    new.quantization.scale, new.quantization.zeroPoint = [scale], [zero_point]
    main.tensors.append(new)
    return len(main.tensors) - 1


def operator(model: Any, name: int, version: int, reads: int, writes: int) -> Any:
    code = schema.OperatorCodeT()
    code.deprecatedBuiltinCode, code.builtinCode, code.version = name, name, version
    model.operatorCodes.append(code)
    made = schema.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = len(model.operatorCodes) - 1, [reads], [writes]
    return made


SSD_300, SSD_320 = (19, 10, 5, 3, 2, 1), (20, 10, 5, 3, 2, 1)
WIDE = rgb(64, 96)


def models() -> Iterator[tuple[str, bytes]]:
    yield "rect_nms", convert(yolo_nms, rgb())
    yield "rect_nms_pixels", convert(lambda picture: yolo_nms(picture, in_pixels=True), WIDE)
    plain = convert(yolov8, rgb())
    yield "rect_yolov8", plain
    yield "rect_yolov8_pixels", convert(lambda picture: yolov8(picture, in_pixels=True), WIDE)
    yield "rect_yolov8_int8", changed(plain, quantized(schema.TensorType.INT8, *QUANTIZATION))
    plain = convert(yolov5, rgb())
    yield "rect_yolov5", plain
    yield "rect_yolov5_pixels", convert(lambda picture: yolov5(picture, in_pixels=True), WIDE)
    yield "rect_yolov5_uint8", changed(plain, quantized(schema.TensorType.UINT8, QUANTIZATION[0], 7))
    plain = convert(four, rgb())
    names = ("detection_scores", "detection_classes", "num_detections", "detection_boxes")
    yield "rect_four", changed(plain, renamed(*names))
    yield "rect_four_unnamed", plain
    plain = ssd()
    yield "rect_ssd", plain
    yield "rect_ssd_shuffled", changed(plain, shuffled)
    yield "rect_ssd_raw", convert(lambda picture: ssd_raw(picture, SSD_320), rgb(320, 320))
    yield "rect_ssd_raw_300", convert(lambda picture: ssd_raw(picture, SSD_300), rgb(300, 300))
    yield "rect_ssd_raw_scores", convert(ssd_raw_scores, rgb(320, 320))
    yield "rect_faces", convert(faces, rgb(128, 128))
    for kind in (tf.int64, tf.int32, tf.uint8):
        yield f"seg_argmax_{kind.name}", convert(argmax(kind), rgb())
    yield "seg_logits_nhwc", convert(classed, rgb())
    yield "seg_logits_nchw", convert(lambda picture: tf.transpose(classed(picture), [0, 3, 1, 2]), WIDE)
    yield "seg_logits_half", convert(halved, rgb())
    yield "seg_portrait", convert(portrait, rgb())
    yield "seg_portrait_softmax", convert(portrait_softmax, WIDE)
    yield "pose_single", convert(pose_single, rgb(kind=tf.uint8))
    yield "pose_multi", convert(pose_multi, WIDE)
    yield "big_raw", convert(lambda picture: picture * 2.0, rgb(100, 100))
    yield "embedding", convert(embedding, rgb())
    yield "nothing_fits", convert(nothing_fits, rgb())
    yield "two_fit", convert(two_fit, rgb())


if __name__ == "__main__":
    for name, content in models():
        (HERE / f"{name}.tflite").write_bytes(content)
    (HERE / "four_colours.txt").write_text("red\ngreen\nblue\nwhite\n")
    (HERE / "segments.txt").write_text("background\nred\ngreen\nblue\n")
    (HERE / "portrait.txt").write_text("other\nred\n")
