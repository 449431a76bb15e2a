"""The recipe again, slow and obvious, in float64: what the fast one is held to. It shares no code with it, and rounds nothing."""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

Levels = npt.NDArray[np.float64]
Box = tuple[int, int, int, int]
"""x, y of the upper left corner, width, height."""

CUBIC_A = -0.75  # Keys' parameter, as OpenCV has it


def tensor(picture: npt.NDArray[np.uint8], recipe, spec, crop: Box | None = None) -> Levels:
    """The real values float64 of the whole input tensor, for a picture [height, width, 3], blue first."""
    planar = recipe.layout == "nchw"
    height, width = spec.shape[2:] if planar else spec.shape[1:3]
    levels = colored(shown(picture, recipe, (width, height), crop), recipe.color)
    values = np.empty_like(levels)
    for channel in range(levels.shape[2]):
        mean = recipe.mean[channel] if len(recipe.mean) > 1 else recipe.mean[0]
        std = recipe.std[channel] if len(recipe.std) > 1 else recipe.std[0]
        values[:, :, channel] = (levels[:, :, channel] - mean) / std
    return (values.transpose(2, 0, 1) if planar else values)[np.newaxis]


def held(values: Levels, spec) -> Levels:
    """Real values clipped to what the tensor can hold."""
    if not np.issubdtype(np.dtype(spec.dtype), np.integer):
        return values
    limits = np.iinfo(spec.dtype)
    scale, zero_point = (spec.scale, spec.zero_point) if spec.scale else (1.0, 0)
    return np.clip(values, (limits.min - zero_point) * scale, (limits.max - zero_point) * scale)


def shown(picture: npt.NDArray[np.uint8], recipe, size: tuple[int, int], crop: Box | None) -> Levels:
    """The picture in the input's size (width, height), levels [height, width, 3], blue first."""
    (x, y, width, height), (left, top, wide, high) = placed(
        crop or (0, 0, picture.shape[1], picture.shape[0]), recipe.resize, size
    )
    canvas = np.full((size[1], size[0], 3), float(recipe.pad))
    canvas[top : top + high, left : left + wide] = resized(
        picture[y : y + height, x : x + width].astype(np.float64), (wide, high), recipe.interpolation
    )
    return canvas


def placed(crop: Box, resize: str, size: tuple[int, int]) -> tuple[Box, Box]:
    """The part of the picture that is shown, and the part of the input that shows it."""
    x, y, width, height = crop
    across, down = size
    if resize == "letterbox":  # as large as it fits, in the middle
        zoom = min(across / width, down / height)
        wide, high = max(1, round(width * zoom)), max(1, round(height * zoom))
        return crop, ((across - wide) // 2, (down - high) // 2, wide, high)
    if resize == "crop":  # as much as fills the input, from the middle
        zoom = max(across / width, down / height)
        wide, high = max(1, round(across / zoom)), max(1, round(down / zoom))
        return (x + (width - wide) // 2, y + (height - high) // 2, wide, high), (0, 0, across, down)
    return crop, (0, 0, across, down)


def resized(picture: Levels, size: tuple[int, int], how: str) -> Levels:
    """Both ways apart: each row of a weight matrix says what a new pixel takes from the old ones."""
    (height, width), (wide, high) = picture.shape[:2], size
    if how == "area" and (height < high or width < wide):
        how = "linear"
    across, down = weights(width, wide, how), weights(height, high, how)
    return np.clip(np.einsum("yh,hwc,xw->yxc", down, picture, across), 0, 255)


@functools.cache
def weights(old: int, new: int, how: str) -> Levels:
    """Weights float64 [new, old], each row's sum 1."""
    matrix = np.zeros((new, old))
    for pixel in range(new):
        for source, weight in taps(pixel, old, new, how):
            matrix[pixel, min(max(source, 0), old - 1)] += weight  # beyond the edge, the edge
    return matrix


def taps(pixel: int, old: int, new: int, how: str) -> list[tuple[int, float]]:
    """The old pixels that a new one is made of, with their weights."""
    if how == "area":  # the box that the new pixel covers, edge pixels by their share
        start, end = pixel * old / new, (pixel + 1) * old / new
        covered = range(math.floor(start), math.ceil(end - 1e-9))
        return [(i, (min(i + 1, end) - max(i, start)) / (end - start)) for i in covered]
    if how == "nearest":  # the old pixel in which the new one's centre lies
        return [((2 * pixel + 1) * old // (2 * new), 1.0)]
    centre = (pixel + 0.5) * old / new - 0.5  # pixel centres lie at halves
    first, part = math.floor(centre), centre - math.floor(centre)
    if how == "linear":
        return [(first, 1 - part), (first + 1, part)]
    return [(first + i, keys(part - i)) for i in (-1, 0, 1, 2)]


def keys(x: float) -> float:
    """Keys' cubic kernel (IEEE ASSP 29, 1981, equation 4, with the parameter a)."""
    x, a = abs(x), CUBIC_A
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def colored(levels: Levels, color: str) -> Levels:
    """Levels [height, width, channels] in the model's order; grey as ITU-R BT.601 weighs it."""
    blue, green, red = (levels[:, :, channel] for channel in range(3))
    if color == "gray":
        return (0.299 * red + 0.587 * green + 0.114 * blue)[:, :, np.newaxis]
    return np.stack([red, green, blue] if color == "rgb" else [blue, green, red], axis=2)
