"""The nouns on the way in: pictures and tensors, the geometry that leads back to the frame, the shot that the pipeline takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
"""Pixels, uint8 [height, width, 3], blue first, as OpenCV holds them."""

Tensor = npt.NDArray[Any]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a model: `shape`, numpy `dtype`, and quantisation, real = (q - `zero_point`) * `scale`; scale 0 is none."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float = 0.0
    zero_point: int = 0

    def __str__(self) -> str:
        return f"'{self.name}' {self.dtype} {list(self.shape)}"

    @property
    def quantized(self) -> bool:
        return self.scale != 0.0

    def dequantize(self, values: Tensor) -> Tensor:
        """Real values: float32 of a quantised tensor, a copy of any other."""
        if not self.quantized:
            return values.copy()
        if values.dtype.itemsize > 2:
            return ((values.astype(np.float64) - self.zero_point) * self.scale).astype(np.float32)
        real = values.astype(
            np.float32
        )  # exact, and so is the difference: the product alone is rounded, as it is above
        real -= np.float32(self.zero_point)
        real *= np.float32(self.scale)
        return real


@dataclass(frozen=True)
class Ending:
    """What makes the values of an output: an `operator` (empty: it is an input or a constant), whose output number `slot`,
    from 0, it is; `reads` has the shapes of what the operator reads, and `joins` the operators that made what a CONCATENATION
    joins."""

    operator: str
    slot: int = 0
    reads: tuple[tuple[int, ...], ...] = ()
    joins: tuple[str, ...] = ()


def differences(one: Tensor, other: Tensor) -> Tensor:
    """How far apart the values of two tensors are, float64: 0 where they are equal, infinities too; not a number beside one."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return np.where(one == other, 0.0, apart)


@dataclass(frozen=True)
class Stamp:
    """When and where a frame was taken.

    `number` counts the camera's frames from 1, dropped ones included; in a file it is the position there.
    `monotonic_ns` and `time_ns` (since 1970, UTC) are of the capture. `source` is the file's name, or None of a live camera.
    """

    number: int
    monotonic_ns: int
    time_ns: int
    source: str | None = None


@dataclass(frozen=True)
class Region:
    """A rectangle in pixels: `x`, `y` of its top left corner, `width`, `height`."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Geometry:
    """Leads from the model's input back to the upright frame.

    `width` and `height` are the upright frame's, in pixels. Positions are fractions: (0, 0) is the top left corner and
    (1, 1) the bottom right one, of the model's input or of the upright frame.
    frame = input * `scale` + `offset`, for x and y alike. `seen` is the part of the frame (x0, y0, x1, y1) that the input shows;
    the input's border around it lies over other parts of the frame where that is cropped.
    """

    width: int
    height: int
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    seen: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    @classmethod
    def between(cls, frame: tuple[int, int], region: Region, size: tuple[int, int], inset: Region) -> Geometry:
        """The geometry of a `region` of a `frame` (width, height) shown in the `inset` of an input of `size` (width, height)."""
        (width, height), (input_width, input_height) = frame, size
        scale_x = region.width / width * input_width / inset.width
        scale_y = region.height / height * input_height / inset.height
        offset_x = region.x / width - inset.x / input_width * scale_x
        offset_y = region.y / height - inset.y / input_height * scale_y
        right, bottom = region.x + region.width, region.y + region.height
        seen = region.x / width, region.y / height, right / width, bottom / height
        return cls(width, height, (scale_x, scale_y), (offset_x, offset_y), seen)

    def to_frame(self, points: Tensor) -> Tensor:
        """Turn points float [..., 2] (x, y), fractions of the input, into fractions of the upright frame, not clipped."""
        return np.asarray(np.asarray(points) * np.array(self.scale) + np.array(self.offset))

    def to_input(self, points: Tensor) -> Tensor:
        """The inverse of `to_frame`."""
        return np.asarray((np.asarray(points) - np.array(self.offset)) / np.array(self.scale))


@dataclass(frozen=True)
class Enough:
    """How small a picture may get: a copy of the frame, divided by at most `most` each way, will do while its `part` (width and
    height as fractions of the whole) is still `width` by `height` pixels or more."""

    width: int
    height: int
    most: int = 8
    part: tuple[float, float] = (1.0, 1.0)

    def reduction(self, width: int, height: int) -> int:
        """By how much a frame of `width` by `height` pixels may be divided each way: 8, 4, 2 or 1."""
        for divisor in (8, 4, 2):
            wide = width * self.part[0] >= divisor * self.width
            if divisor <= self.most and wide and height * self.part[1] >= divisor * self.height:
                return divisor
        return 1


class Prepare(Protocol):
    """What turns a picture into the model's input: a camera is handed one, and knows nothing else of the model.

    A picture that is `enough` gives all but the same input as the whole frame.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    enough: Enough

    def __call__(self, picture: Picture, out: Tensor, crop: Region | None = None) -> Geometry: ...


@dataclass
class Shot:
    """One prepared frame: what the pipeline takes from a feed, and gives back when it is done with it.

    `camera` is its camera's name. `input` is the model's input tensor, `picture` the whole upright frame, or a smaller copy of it
    where the feed is not `exact`; both belong to the feed's slot and hold only until the shot is released. `dropped` counts the
    live frames skipped since the camera's last shot; None of a file, which skips none.
    """

    camera: str
    input: Tensor
    picture: Picture
    geometry: Geometry
    stamp: Stamp
    dropped: int | None = None
    timing_ms: dict[str, float] = field(default_factory=dict)
    slot: int = 0
