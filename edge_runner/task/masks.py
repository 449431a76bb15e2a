"""Maps and masks: which class each cell of a segmenter's map has, and what that is of the frame. Pure functions over arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np

from edge_runner.frame import Geometry, Tensor

Layout = Literal["nhwc", "nchw"]

SLIVER = 1e-6  # of a cell: less is a rounding error
DECIMALS = 9  # of an area: what is less is one too
STRIP = 16_384  # cells whose classes are looked for at a time: what is worked on stays in the processor's cache
MANY_CLASSES = 32  # from here on, numpy's own argmax along the channels is no slower than plane by plane
PLANS = 64  # what is worked out once for a geometry: of so many it is kept


def best_classes(output: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """The best class of each cell of scores [1, height, width, classes] or [1, classes, height, width], and its score.

    Classes are uint8 [height, width], uint16 where there are more than 255; of equal ones it is the first. A cell's score is NaN
    where any of them is.
    """
    height, width = output.shape[1:3] if layout == "nhwc" else output.shape[2:]
    count = output.shape[-1] if layout == "nhwc" else output.shape[1]
    if layout == "nhwc" and count >= MANY_CLASSES:
        found = output[0].argmax(axis=-1)
        best = np.take_along_axis(output[0], found[..., np.newaxis], axis=-1)[..., 0]
        return found.astype(dtype_for(count)), best
    classes = np.zeros(height * width, dtype_for(count))
    best = np.empty(height * width, output.dtype)
    for start, planes in _strips(output, layout):
        _rise(planes, classes[start : start + STRIP], best[start : start + STRIP])
    return classes.reshape(height, width), best.reshape(height, width)


def class_numbers(values: Tensor, known: int) -> tuple[Tensor, str | None]:
    """Class numbers as uint8, or uint16 where they, or those of the `known` classes, go beyond 254; and why they are to be doubted.

    Real values of a quantised output are rounded. What cannot be a class has the largest number of the type.
    """
    if values.dtype == np.bool_:
        values = values.view(np.uint8)
    elif np.issubdtype(values.dtype, np.floating):
        values = np.rint(values)
    low, high = values.min(), values.max()
    dtype = dtype_for(max(known, min(int(high), np.iinfo(np.uint16).max) + 1))
    void = np.iinfo(dtype).max
    if low >= 0 and high < void:
        return values.astype(dtype, copy=False), None
    possible = (values >= 0) & (values < void)
    classes = np.where(possible, values, void).astype(dtype)
    return classes, f"class numbers from {low:.0f} to {high:.0f} are not all classes"


def areas(classes: Tensor, geometry: Geometry) -> Tensor:
    """The fraction of the upright frame that each class covers, float64 [classes], of a map [height, width] over the model's input.

    A cell counts for as much of the frame as it shows: nothing where it lies in a letterbox's bars. What no cell shows belongs to
    no class.
    """
    rows, columns = _visible(geometry, 1, classes.shape[0]), _visible(geometry, 0, classes.shape[1])
    weights = np.outer(rows.weights, columns.weights)
    covered = np.bincount(classes[rows.cells, columns.cells].ravel(), weights.ravel())
    return np.round(covered, DECIMALS)[: np.iinfo(classes.dtype).max]


def spread_over_frame(classes: Tensor, geometry: Geometry, size: Literal["model", "frame"]) -> Tensor:
    """A map [height, width] over the model's input, spread over the whole upright frame, in its own resolution or the frame's.

    Each pixel has the class of the cell in which its centre lies, or the type's largest number where the model saw nothing. A map
    that needs no change is handed back as it is.
    """
    height, width = classes.shape
    whole = (geometry.height, geometry.width) if size == "frame" else own_size(geometry, height, width)
    rows, columns = _looked_up(geometry, 1, height, whole[0]), _looked_up(geometry, 0, width, whole[1])
    if rows.plain and columns.plain:
        return classes[rows.cut, columns.cut]
    spread = np.full(whole, np.iinfo(classes.dtype).max, classes.dtype)
    wide = np.take(classes, columns.cells, axis=1)
    spread[rows.inside, columns.inside] = np.take(wide, rows.cells, axis=0)
    return spread


def own_size(geometry: Geometry, height: int, width: int) -> tuple[int, int]:
    """The (height, width) of a mask of the whole frame in the resolution of the model's map [height, width].

    Where the model saw a part of the frame only, it is no finer than the frame itself, unless the map is.
    """
    most = max(height, geometry.height), max(width, geometry.width)
    return (
        max(1, min(round(height / geometry.scale[1]), most[0])),
        max(1, min(round(width / geometry.scale[0]), most[1])),
    )


def png(mask: Tensor) -> bytes:
    """A mask uint8 or uint16 [height, width] as a grey PNG of 8 or 16 bits, whose values are the class numbers."""
    _, encoded = cv2.imencode(".png", mask)
    return encoded.tobytes()


@dataclass(frozen=True)
class _Visible:
    """Along one axis of a map: the `cells` that show something of the frame, and the fraction of it that each shows, float64."""

    cells: slice
    weights: Tensor


@dataclass(frozen=True)
class _LookUp:
    """Along one axis of a mask: the pixels `inside` what the model saw, and the map's cell of each of them.

    `plain`: all pixels are inside, and their cells follow on each other, so that the `cut` of the map is the mask.
    """

    inside: slice
    cells: Tensor
    plain: bool

    @property
    def cut(self) -> slice:
        return slice(int(self.cells[0]), int(self.cells[-1]) + 1)


@lru_cache(PLANS)
def _visible(geometry: Geometry, axis: int, cells: int) -> _Visible:
    """Along x (`axis` 0) or y (1)."""
    edges = np.arange(cells + 1) / cells
    first, last = geometry.seen[axis], geometry.seen[axis + 2]
    weights = np.diff(np.clip(geometry.to_frame(np.column_stack([edges, edges]))[:, axis], first, last))
    seen = _extent(weights > 0)
    return _Visible(seen, weights[seen])


@lru_cache(PLANS)
def _looked_up(geometry: Geometry, axis: int, cells: int, pixels: int) -> _LookUp:
    """Of two cells as near as each other, the right or the lower one is taken, whichever way the sums are rounded."""
    centres = (np.arange(pixels) + 0.5) / pixels
    places = geometry.to_input(np.column_stack([centres, centres]))[:, axis] * cells + SLIVER
    found = np.floor(places).astype(np.intp)
    first, last = geometry.seen[axis], geometry.seen[axis + 2]
    inside = _extent((found >= 0) & (found < cells) & (centres >= first) & (centres <= last))
    found = found[inside]
    consecutive = found.size == pixels and bool(np.all(np.diff(found) == 1))
    return _LookUp(inside, found, consecutive)


def _extent(wanted: Tensor) -> slice:
    """From the first to the last that is wanted."""
    places = np.flatnonzero(wanted)
    return slice(int(places[0]), int(places[-1]) + 1) if places.size else slice(0, 0)


def _strips(output: Tensor, layout: Layout) -> Iterator[tuple[int, Tensor]]:
    """Scores [classes, cells], strip by strip, with the number of each strip's first cell."""
    if layout == "nchw":
        planes = output.reshape(output.shape[1], -1)
        for start in range(0, planes.shape[1], STRIP):
            yield start, planes[:, start : start + STRIP]
        return
    # OpenCV 4.6, which 32-bit Debian has, moves no float16: the same 16 bits go as int16
    cells = output.reshape(-1, output.shape[-1]).view(np.int16 if output.dtype == np.float16 else output.dtype)
    # once for all strips: new memory costs as much as the work
    planes = np.empty((cells.shape[1], min(STRIP, len(cells))), cells.dtype)
    for start in range(0, len(cells), STRIP):
        strip = cells[start : start + STRIP]
        # ten times as fast as numpy's
        yield start, np.asarray(cv2.transpose(strip, planes[:, : len(strip)])).view(output.dtype)


def _rise(planes: Tensor, classes: Tensor, best: Tensor) -> None:
    """The running maximum of planes [classes, cells] into `best`, and whose it is into `classes`, which is zeros."""
    best[:] = planes[0]
    higher = np.empty(best.shape, np.bool_)
    for number in range(1, len(planes)):
        np.greater(planes[number], best, out=higher)
        np.maximum(planes[number], best, out=best)
        np.maximum(classes, np.multiply(higher, number, dtype=classes.dtype), out=classes)


def dtype_for(classes: int) -> type[np.uint8] | type[np.uint16]:
    """The largest number of the type is no class."""
    return np.uint8 if classes <= np.iinfo(np.uint8).max else np.uint16


def cells_of(output: Tensor, layout: Layout) -> Tensor:
    """Scores as [cells, classes]."""
    return output.reshape(-1, output.shape[-1]) if layout == "nhwc" else output.reshape(output.shape[1], -1).T
