"""Handwritten digits on paper, as a camera would see them: scikit-learn's 8x8 digits laid on 640x480 frames.

A frame is four layers (paper, ruling, ink, desk), each of one colour, under one light and through one lens.
The same seed gives the same frames, as long as OpenCV and numpy stay the same.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[Any]  # uint8; OpenCV's own hints do not tell the types of numbers apart
Plane = npt.NDArray[Any]  # float32
Matrix = npt.NDArray[np.float64]
Color = tuple[int, int, int]  # blue, green, red, each 0..255, in white light
Points = Matrix | Sequence[tuple[float, float]]
Size = tuple[int, int]  # width, height in pixels

HELDOUT = Path(__file__).with_name("heldout.npz")
FRAME_SIZE_PX: Size = (640, 480)
FRAME_COUNT = 200
JPEG_QUALITY = 92

CELLS = 8  # a digit is 8x8 cells
FULL_CELL = 16  # the value of a cell full of ink
PAD_CELLS = 2  # added before the digit is enlarged: without it, strokes are cut off at its border
PX_PER_CELL = 24  # of the enlarged digit, before it is laid on the paper

# A stroke is where a cell's ink, less EVENING of the mean around it, is above the contour.
EVENING, NEIGHBOURHOOD_CELLS = 0.7, 1.2
CONTOUR = (0.13, 0.25)  # a lower one is a broader nib
EDGE_CONTRAST = 12.0  # how hard a stroke's edge is

HEIGHT_SHARE = (0.46, 0.76)  # a digit's height, of the frame's
WIDTH_RATIO = (0.88, 1.12)
MARGIN_SHARE = 0.03  # kept free around a digit, of the frame's height
DRIFT_SHARE = 0.10  # how far a digit is from the centre, of the frame's height
TILT_DEG = 11.0
PERSPECTIVE = 0.22  # how much larger one edge of the frame is seen than the opposite edge

RULED_SHARE, SQUARED_SHARE = 0.3, 0.2  # of all frames; the rest is blank paper
RULED_CELLS, SQUARED_CELLS = (2.2, 4.5), (1.3, 2.2)  # between two lines
SHEET_CELLS = ((6.0, 16.0), (5.5, 14.0))  # from the digit to an edge of the sheet, across and down

DEFOCUS_PX = (0.5, 2.2)  # standard deviation
NOISE_LEVELS = (1.0, 5.0)  # standard deviation, of 255
SHAKEN_SHARE = 0.35
SHAKE_PX = 9  # the longest shake, odd
WARMTH = 0.05  # of the light: more red and less blue, or the other way round

TEXTURE_SEED = 1998
TEXTURE_SLACK_PX = 160  # how far the part of a texture that a frame shows can move
# A texture is a sum of noises; of each: its share, and its grain across and down in pixels.
TEXTURES = {
    "grain": ((1.0, 0.55, 0.55),),
    "paper": ((1.0, 0.8, 0.8), (0.6, 2.5, 1.5), (0.5, 12.0, 12.0)),
    "desk": ((1.0, 60.0, 1.4), (0.8, 90.0, 5.0), (0.2, 8.0, 0.7)),
}
FIXED_POINT_BITS = 4

PAPERS: tuple[Color, ...] = ((240, 243, 244), (226, 238, 243), (212, 230, 240), (244, 240, 234), (216, 220, 222))
RULINGS: tuple[Color, ...] = ((214, 186, 158), (198, 196, 192), (196, 204, 168), (190, 180, 214))
DESKS: tuple[Color, ...] = ((64, 98, 140), (46, 64, 92), (112, 152, 186), (86, 90, 90), (58, 54, 50), (132, 124, 112))


class Pen(NamedTuple):
    """What draws: its `color`, how much of the paper it covers (`opacity`, 0..1), how `rough` its edge and its face are."""

    color: Color
    opacity: tuple[float, float]
    rough: float


PENS = (
    Pen((34, 30, 30), (0.90, 1.00), 0.04),  # black marker
    Pen((116, 46, 26), (0.85, 0.98), 0.05),  # blue-black ink
    Pen((170, 74, 30), (0.80, 0.95), 0.06),  # blue felt pen
    Pen((72, 62, 58), (0.70, 0.90), 0.16),  # soft pencil
    Pen((96, 92, 92), (0.70, 0.90), 0.20),  # hard pencil
    Pen((50, 44, 78), (0.80, 0.95), 0.08),  # brown-black crayon
)


def render(digit: Picture, rng: np.random.Generator, size: Size = FRAME_SIZE_PX) -> Picture:
    """Draw one frame of `digit`, uint8 [8, 8] with 0 (paper) .. 16 (ink): uint8 [height, width, 3], BGR.

    `size` is (width, height), at least as wide as high; the digit stays within the central square.
    """
    pose = _pose(rng, size)
    pen = PENS[rng.integers(len(PENS))]
    sheet = _sheet(rng, pose, size)
    ink = _ink(digit, pen, rng, pose, size)
    bare = _times(sheet, 255 - ink)
    ruling = _times(bare, _ruling(rng, pose, size))
    paper = _times(bare - ruling, _faded(_window("paper", rng, size), 3.0, 247.0))
    layers = (paper, ruling, ink, _desk(sheet, rng, size))
    light = _light(rng, size)
    lit = [_times(layer, light) for layer in layers]
    return _through_lens([_blended(lit, shares) for shares in _colors(pen, rng)], rng, size)


def save_frames(folder: Path, count: int = FRAME_COUNT, seed: int = 0, heldout: Path = HELDOUT) -> list[Path]:
    """Render `count` held-out digits into a new `folder`, as NNNN_L.jpg (L: the true label), and return the files in order.

    The folder appears when it is whole. Raise FileExistsError where it is there already and not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is there already; remove it, or name another folder")
    with np.load(heldout) as digits:
        images, labels = digits["images"], digits["labels"]
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    names = []
    try:
        for number, index in enumerate(balanced(labels, count, np.random.default_rng(seed))):
            frame = render(images[index], np.random.default_rng((seed, number)))
            names.append(f"{number:04d}_{labels[index]}.jpg")
            (partial / names[-1]).write_bytes(jpeg(frame))
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return [folder / name for name in names]


def balanced(labels: Picture, count: int, rng: np.random.Generator) -> list[int]:
    """Choose `count` indices into `labels`, as many of each class as of any other (or one more), in random order.

    None comes twice before all of its class came once.
    """
    shuffled = [rng.permutation(np.flatnonzero(labels == label)) for label in rng.permutation(np.unique(labels))]
    chosen = [int(of_class[turn % len(of_class)]) for turn in range(count) for of_class in shuffled][:count]
    return [chosen[place] for place in rng.permutation(count)]


def jpeg(frame: Picture) -> bytes:
    """Encode a frame, uint8 [height, width, 3], BGR. Raise ValueError where OpenCV cannot."""
    encoded, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not encoded:
        raise ValueError(f"OpenCV could not encode a picture of {frame.dtype} {list(frame.shape)}")
    return data.tobytes()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Render held-out digits as camera frames, NNNN_L.jpg (L: the label).")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder for the frames")
    parser.add_argument(
        "--count", type=int, default=FRAME_COUNT, metavar="N", help="how many frames (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="another seed, other frames (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.count < 1 or options.seed < 0:
        parser.error("--count is at least 1, --seed at least 0")
    try:
        frames = save_frames(options.output, options.count, options.seed)
    except OSError as error:
        print(f"render.py: {error}", file=sys.stderr)
        return 1
    print(f"{len(frames)} frames in {options.output}")
    return 0


def _pose(rng: np.random.Generator, size: Size) -> Matrix:
    """The homography [3, 3] from the sheet, in cells around the digit's centre, to the frame in pixels."""
    width, height = size
    scale = height * rng.uniform(*HEIGHT_SHARE) / CELLS
    tilt = np.deg2rad(rng.uniform(-TILT_DEG, TILT_DEG))
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    lean = np.eye(3)
    lean[2, :2] = rng.uniform(-PERSPECTIVE, PERSPECTIVE, 2) / height / 2
    pose: Matrix = lean @ turn @ np.diag([scale * rng.uniform(*WIDTH_RATIO), scale, 1])
    half = CELLS / 2
    corners = _mapped(pose, [(-half, -half), (half, -half), (half, half), (-half, half)])
    limit = height * (0.5 - MARGIN_SHARE)
    room = np.maximum(0, np.minimum(limit + corners.min(axis=0), limit - corners.max(axis=0)))
    drift = np.minimum(room, height * DRIFT_SHARE) * rng.uniform(-1, 1, 2)
    shift = np.eye(3)
    shift[:2, 2] = drift + np.array([width / 2, height / 2])
    placed: Matrix = shift @ pose
    return placed


def _ink(digit: Picture, pen: Pen, rng: np.random.Generator, pose: Matrix, size: Size) -> Picture:
    """How much of each pixel is inked, uint8 [height, width]."""
    origin = CELLS / 2 + PAD_CELLS - 0.5 / PX_PER_CELL  # OpenCV counts from the middle of the first pixel
    to_cells = np.array([[1 / PX_PER_CELL, 0, -origin], [0, 1 / PX_PER_CELL, -origin], [0, 0, 1]])
    surface = cv2.warpPerspective(_strokes(digit), pose @ to_cells, size, flags=cv2.INTER_LINEAR, borderValue=(-1.0,))
    grain = _window("grain", rng, size)
    contrast = 255 * EDGE_CONTRAST
    contour = rng.uniform(*CONTOUR)
    solid = cv2.addWeighted(surface, contrast, grain, contrast * pen.rough / 4, -contrast * contour, dtype=cv2.CV_8U)
    return _times(solid, _faded(grain, 255 * pen.rough, 255 * rng.uniform(*pen.opacity)))


def _strokes(digit: Picture) -> Plane:
    """The digit as a smooth surface, float32 [288, 288]; its height lines at `CONTOUR` are the edges of the strokes."""
    cells = np.pad(digit.astype(np.float32) / FULL_CELL, PAD_CELLS)
    # Less the neighbourhood's mean: thin strokes stay whole, and narrow holes stay open.
    evened = cells - EVENING * cv2.GaussianBlur(cells, (0, 0), NEIGHBOURHOOD_CELLS)
    side = len(cells) * PX_PER_CELL
    surface: Plane = cv2.resize(evened, (side, side), interpolation=cv2.INTER_CUBIC)
    return surface


def _ruling(rng: np.random.Generator, pose: Matrix, size: Size) -> Picture:
    """How much of each pixel is a printed line, uint8 [height, width]."""
    plane: Picture = np.zeros(size[::-1], np.uint8)
    kind = rng.random()
    spans = SQUARED_CELLS if kind < SQUARED_SHARE else RULED_CELLS
    step, phase, strength = rng.uniform(*spans), rng.random(2), int(rng.integers(90, 255))
    reach = 1.2 * max(size) / abs(pose[0, 0])
    offsets = (np.arange(-reach // step, reach // step) + phase[0]) * step
    if kind < SQUARED_SHARE + RULED_SHARE:
        lines = [((-reach, y), (reach, y)) for y in offsets]
        if kind < SQUARED_SHARE:
            lines += [((x, -reach), (x, reach)) for x in offsets + phase[1] * step]
        for line in lines:
            start, end = _fixed_point(_mapped(pose, line))
            cv2.line(plane, start, end, (strength,), 2, cv2.LINE_AA, FIXED_POINT_BITS)
    return plane


def _sheet(rng: np.random.Generator, pose: Matrix, size: Size) -> Picture:
    """How much of each pixel is the sheet and not the desk, uint8 [height, width]."""
    left, right = rng.uniform(*SHEET_CELLS[0], 2)
    top, bottom = rng.uniform(*SHEET_CELLS[1], 2)
    corners = _mapped(pose, [(-left, -top), (right, -top), (right, bottom), (-left, bottom)])
    plane = np.zeros(size[::-1], np.uint8)
    cv2.fillConvexPoly(plane, np.array(_fixed_point(corners)), (255,), cv2.LINE_AA, FIXED_POINT_BITS)
    return plane


def _desk(sheet: Picture, rng: np.random.Generator, size: Size) -> Picture:
    """The desk around the sheet, uint8 [height, width], darker where the sheet throws its shadow."""
    veins = _window("desk", rng, size)
    small = cv2.resize(sheet, (size[0] // 8, size[1] // 8), interpolation=cv2.INTER_AREA)
    shadow = cv2.resize(cv2.GaussianBlur(small, (0, 0), 2.0), size, interpolation=cv2.INTER_LINEAR)
    shaded = cv2.addWeighted(veins, 16.0, shadow, -0.45, 235.0, dtype=cv2.CV_8U)
    return _times(shaded, 255 - sheet)


def _light(rng: np.random.Generator, size: Size) -> Picture:
    """The light on each pixel, uint8 [height, width]: a slope, a soft shadow from one side, and the lens' dark corners."""
    width, height = size[0] // 8, size[1] // 8
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = (x - width / 2) / height, (y - height / 2) / height
    slope, side = rng.uniform(0, 2 * np.pi, 2)
    light = 1 + rng.uniform(0, 0.3) * (x * np.cos(slope) + y * np.sin(slope))
    edge = x * np.cos(side) + y * np.sin(side) - rng.uniform(-0.3, 0.7)
    light *= 1 - rng.uniform(0, 0.3) / (1 + np.exp(-edge / rng.uniform(0.02, 0.15)))
    light *= 1 - rng.uniform(0.05, 0.25) * (x * x + y * y)
    level = 255 * rng.uniform(0.82, 1.05) / light.max()
    plane: Picture = cv2.resize(np.clip(light * level, 0, 255).astype(np.uint8), size, interpolation=cv2.INTER_LINEAR)
    return plane


def _colors(pen: Pen, rng: np.random.Generator) -> Matrix:
    """The share [3, 4] of each layer (paper, ruling, ink, desk) in blue, green and red, 0..1."""
    paper, ruling, desk = (choices[rng.integers(len(choices))] for choices in (PAPERS, RULINGS, DESKS))
    warmth = rng.uniform(-WARMTH, WARMTH)
    shares: Matrix = np.array([paper, ruling, pen.color, desk]).T / 255 * np.array([[1 - warmth], [1], [1 + warmth]])
    return shares


def _through_lens(planes: Sequence[Picture], rng: np.random.Generator, size: Size) -> Picture:
    """Blue, green and red planes as one picture: out of focus, perhaps shaken, with the sensor's noise."""
    defocus, noise = rng.uniform(*DEFOCUS_PX), rng.uniform(*NOISE_LEVELS)
    planes = [cv2.GaussianBlur(plane, (0, 0), defocus) for plane in planes]
    if rng.random() < SHAKEN_SHARE:
        shake = _shake(rng)
        planes = [cv2.filter2D(plane, -1, shake) for plane in planes]
    return cv2.merge([_grained(plane, _window("grain", rng, size), noise) for plane in planes])


def _shake(rng: np.random.Generator) -> Plane:
    """The kernel of a short straight movement, float32 [n, n], n odd."""
    middle = SHAKE_PX // 2
    angle, reach = rng.uniform(0, np.pi), rng.uniform(1, middle)
    step = reach * np.array([np.cos(angle), np.sin(angle)])
    kernel = np.zeros((SHAKE_PX, SHAKE_PX), np.uint8)
    start, end = _fixed_point(np.array([middle - step, middle + step]))
    cv2.line(kernel, start, end, (255,), 1, cv2.LINE_AA, FIXED_POINT_BITS)
    weights: Plane = (kernel / kernel.sum()).astype(np.float32)
    return weights


def _blended(layers: Sequence[Picture], shares: Matrix) -> Picture:
    """The sum of four layers, uint8 [height, width], each by its share."""
    first = cv2.addWeighted(layers[0], shares[0], layers[1], shares[1], 0)
    second = cv2.addWeighted(layers[2], shares[2], layers[3], shares[3], 0)
    return cv2.add(first, second)


def _times(one: Picture, other: Picture) -> Picture:
    return cv2.multiply(one, other, scale=1 / 255)


def _faded(texture: Plane, depth: float, level: float) -> Picture:
    """A texture as a plane of uint8 around `level`; `depth` is its standard deviation."""
    return cv2.addWeighted(texture, depth, texture, 0, level, dtype=cv2.CV_8U)


def _grained(plane: Picture, texture: Plane, depth: float) -> Picture:
    return cv2.addWeighted(plane, 1, texture, depth, 0, dtype=cv2.CV_8U)


def _window(kind: str, rng: np.random.Generator, size: Size) -> Plane:
    """A random part of a texture, float32 [height, width]."""
    x, y = rng.integers(0, TEXTURE_SLACK_PX, 2)
    return _texture(kind, size)[y : y + size[1], x : x + size[0]]


@lru_cache
def _texture(kind: str, size: Size) -> Plane:
    """Noise of mean 0 and deviation 1, larger than a frame; made once, because it takes longer than a frame."""
    rng = np.random.default_rng(TEXTURE_SEED)
    width, height = size[0] + TEXTURE_SLACK_PX, size[1] + TEXTURE_SLACK_PX
    texture: Plane = np.zeros((height, width), np.float32)
    for share, across_px, down_px in TEXTURES[kind]:
        octave = cv2.GaussianBlur(rng.standard_normal((height, width), np.float32), (0, 0), across_px, None, down_px)
        texture += share * octave / octave.std()
    texture /= texture.std()
    return texture


def _mapped(pose: Matrix, points: Points) -> Matrix:
    """Points [n, 2] on the sheet, in cells, as pixels [n, 2] of the frame."""
    flat = np.asarray(points, np.float64) @ pose[:, :2].T + pose[:, 2]
    mapped: Matrix = flat[:, :2] / flat[:, 2:]
    return mapped


def _fixed_point(points: Matrix) -> list[tuple[int, int]]:
    """Points as OpenCV draws them between pixels: whole numbers of 1/16 pixel."""
    scaled = np.rint(points * 2**FIXED_POINT_BITS).astype(int)
    return [(int(x), int(y)) for x, y in scaled]


if __name__ == "__main__":
    sys.exit(main())
