"""The recipe: from a picture to the model's input tensor, in the way the model was trained. No I/O, no threads.

A recipe is data and goes into manifests and goldens; a preprocessor is a recipe bound to one input tensor.
Everything after the resize is a table of 256 entries a channel, worked out once in float64: normalisation, quantisation
and type in one look-up, the same to the last bit on every processor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from edge_runner.errors import SettingError
from edge_runner.fields import Length, OneOrMany, Range
from edge_runner.frame import Enough, Geometry, Picture, Region, Tensor, TensorSpec

Resize = Literal["stretch", "letterbox", "crop"]
Interpolation = Literal["linear", "area", "nearest", "cubic"]
Color = Literal["rgb", "bgr", "gray"]
Layout = Literal["auto", "nhwc", "nchw"]
Channels = Annotated[tuple[float, ...], OneOrMany(), Length(1)]

# OpenCV's. Its INTER_NEAREST_EXACT is not here: it changed with OpenCV 5, and takes the wrong one of two neighbours before that.
INTERPOLATIONS: dict[Interpolation, int] = {
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
}
AnyArray = TypeVar("AnyArray", bound=npt.NDArray[Any])
CHANNELS: dict[Color, int] = {"rgb": 3, "bgr": 3, "gray": 1}
ENOUGH = (
    2  # times the input's size each way: a picture of more than that may be shrunk on its way here, so much at most:
)
MOST_REDUCTION: dict[Interpolation, int] = {"area": 8, "linear": 2, "cubic": 2, "nearest": 1}
# Measured on photographs: what only `area` averages away, the others would have shown (docs/performance.md).
LEVELS_LEAST = 64  # of a picture's 256 that an input of whole numbers must tell apart
FILLED_LEAST = 0.6  # of a quantised input's range; less is doubtful
INPUT_DTYPES = ("float32", "float16", "uint8", "int8", "int16", "int32")


@dataclass(frozen=True)
class Recipe:
    """How a picture becomes a model's input: the model sees (x - `mean`) / `std` with x in 0..255.

    `mean` and `std` have one value, or one a channel in the model's channel order (`color`).
    `interpolation` "area" averages where the picture shrinks both ways, and is linear elsewhere.
    `pad` is the grey level (0..255) around a letterboxed picture, before normalisation.
    """

    color: Color
    mean: Channels
    std: Channels
    resize: Resize = "stretch"
    interpolation: Interpolation = "linear"
    layout: Layout = "auto"
    pad: Annotated[int, Range(0, 255)] = 114

    def __str__(self) -> str:
        inner = f"{self.resize} {self.interpolation} {self.color}, mean {list(self.mean)}, std {list(self.std)}"
        return f"{inner}, layout {self.layout}" + (f", pad {self.pad}" if self.resize == "letterbox" else "")


class Preprocessor:
    """A recipe bound to one input tensor. Call it with a picture; it writes the tensor and returns the geometry.

    Small and picklable; its scratch pictures are made at the first call and kept, so that later calls of the same picture
    size allocate nothing of a picture's size.
    """

    def __init__(self, recipe: Recipe, spec: TensorSpec) -> None:
        """Raise SettingError where the recipe cannot fill the tensor."""
        self.recipe = recipe
        self.spec = replace(spec, scale=0.0, zero_point=0) if _wants_raw_bytes(recipe, spec) else spec
        self.shape = spec.shape
        self.dtype: np.dtype[Any] = np.dtype(spec.dtype)
        self.channels = CHANNELS[recipe.color]
        self.planar = _is_planar(recipe, spec)
        self.height, self.width = spec.shape[2:] if self.planar else spec.shape[1:3]
        self.enough = Enough(ENOUGH * self.width, ENOUGH * self.height, MOST_REDUCTION[recipe.interpolation])
        self.doubt = _doubt(recipe, self.spec)
        """Why the recipe is probably not the model's; None where there is no reason to think so."""
        tables = _tables(recipe, self.spec)
        if not self.planar and all(np.array_equal(table, tables[0]) for table in tables):
            tables = tables[:1]
        self._tables = tables
        self._interleaved = np.stack(tables, axis=-1)[np.newaxis]
        self._scratch: dict[str, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_scratch": {}}

    def __call__(self, picture: Picture, out: Tensor, crop: Region | None = None) -> Geometry:
        """Prepare `picture`, uint8 [height, width, 3] BGR, or the part of it in `crop`, into `out`.

        `out` has the tensor's shape and dtype, and is C-contiguous.
        """
        if out.shape != self.shape or out.dtype != self.dtype or not out.flags.c_contiguous:
            raise ValueError(
                f"out is {out.dtype} {list(out.shape)}; the input is {self.dtype} {list(self.shape)}, contiguous"
            )
        height, width = picture.shape[:2]
        region, inset = self._plan(crop or Region(0, 0, width, height))
        self._fill(self._colored(self._resized(picture, region, inset)), out)
        return Geometry.between((width, height), region, (self.width, self.height), inset)

    def visible(self, prepared: Tensor) -> Picture:
        """What the model sees: a prepared tensor back as a picture, uint8 [height, width, 3] BGR."""
        real = self.spec.dequantize(prepared)[0].astype(np.float64)
        if self.planar:
            real = real.transpose(1, 2, 0)
        levels = real * np.array(self.recipe.std) + np.array(self.recipe.mean)
        seen: Picture = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
        if self.recipe.color == "gray":
            return np.repeat(seen, 3, axis=2)
        return np.ascontiguousarray(seen[..., ::-1]) if self.recipe.color == "rgb" else seen

    def grey_levels(self, difference: Tensor) -> Tensor:
        """Turn a difference of two prepared tensors (float64) into grey levels, 0..255, of the picture."""
        step = self.spec.scale if self.spec.quantized else 1.0
        std = np.broadcast_to(np.array(self.recipe.std), (self.channels,))
        shape = (1, self.channels, 1, 1) if self.planar else (1, 1, 1, self.channels)
        return np.asarray(difference * step * np.abs(std).reshape(shape))

    def _plan(self, crop: Region) -> tuple[Region, Region]:
        """The region of the picture that is shown, and the inset of the input that shows it."""
        whole = Region(0, 0, self.width, self.height)
        if self.recipe.resize == "letterbox":
            ratio = min(self.width / crop.width, self.height / crop.height)
            width = min(self.width, max(1, round(crop.width * ratio)))
            height = min(self.height, max(1, round(crop.height * ratio)))
            return crop, Region((self.width - width) // 2, (self.height - height) // 2, width, height)
        if self.recipe.resize == "crop":
            ratio = min(crop.width / self.width, crop.height / self.height)
            width = min(crop.width, max(1, round(self.width * ratio)))
            height = min(crop.height, max(1, round(self.height * ratio)))
            x, y = crop.x + (crop.width - width) // 2, crop.y + (crop.height - height) // 2
            return Region(x, y, width, height), whole
        return crop, whole

    def _resized(self, picture: Picture, region: Region, inset: Region) -> Picture:
        canvas = self._buffer("canvas", (self.height, self.width, 3))
        if (inset.width, inset.height) != (self.width, self.height):
            canvas[:] = self.recipe.pad
        part, target = _cut(picture, region), _cut(canvas, inset)
        if part.shape == target.shape:
            np.copyto(target, part)
            return canvas
        how = self.recipe.interpolation
        if how == "nearest":
            self._look_up(picture, region, target)
            return canvas
        if how == "area" and (part.shape[0] < inset.height or part.shape[1] < inset.width):
            how = "linear"
        _wrote(target, cv2.resize(part, (inset.width, inset.height), target, interpolation=INTERPOLATIONS[how]))
        return canvas

    def _look_up(self, picture: Picture, region: Region, target: Picture) -> None:
        """Nearest: centre to centre, as tf.image.resize and Pillow do; of two pixels as near, the right or the lower one."""
        rows, columns = _centres(region.height, target.shape[0]), _centres(region.width, target.shape[1])
        strip = self._buffer("strip", (len(rows), picture.shape[1], 3))
        # of the whole picture, since numpy would copy a part of it; in "clip" mode it writes straight into `out`
        np.take(picture, region.y + rows, axis=0, out=strip, mode="clip")
        np.take(strip, region.x + columns, axis=1, out=target, mode="clip")

    def _colored(self, canvas: Picture) -> Picture:
        if self.recipe.color == "bgr":
            return canvas
        if self.recipe.color == "gray":
            gray = self._buffer("gray", (self.height, self.width))
            return _wrote(gray, cv2.cvtColor(canvas, cv2.COLOR_BGR2GRAY, gray))
        rgb = self._buffer("rgb", canvas.shape)
        return _wrote(rgb, cv2.cvtColor(canvas, cv2.COLOR_BGR2RGB, rgb))

    def _fill(self, colored: Picture, out: Tensor) -> None:
        """Look every level up in the tables. OpenCV has none of float16: it moves the same 16 bits as int16."""
        flat = out.view(np.int16) if out.dtype == np.float16 else out
        if self.planar:
            for channel, table in enumerate(self._tables):
                target = flat[0, channel]
                _wrote(target, cv2.LUT(self._plane(colored, channel), table, target))
        elif len(self._tables) == 1:  # one table serves every channel: a picture of one channel, so many times as wide
            target = flat.reshape(self.height, -1)
            _wrote(target, cv2.LUT(colored.reshape(self.height, -1), self._tables[0], target))
        else:
            target = flat[0]
            _wrote(target, cv2.LUT(colored, self._interleaved, target))

    def _plane(self, colored: Picture, channel: int) -> Picture:
        if self.channels == 1:
            return colored
        plane = self._buffer("plane", (self.height, self.width))
        return _wrote(plane, cv2.extractChannel(colored, channel, plane))

    def _buffer(self, name: str, shape: tuple[int, ...]) -> Picture:
        if name not in self._scratch or self._scratch[name].shape != shape:
            self._scratch[name] = np.empty(shape, np.uint8)
        return self._scratch[name]


def _cut(picture: Picture, region: Region) -> Picture:
    return picture[region.y : region.y + region.height, region.x : region.x + region.width]


def _centres(old: int, new: int) -> npt.NDArray[np.intp]:
    """The old pixels in which the centres of the new ones lie, along one axis."""
    return np.asarray((2 * np.arange(new) + 1) * old // (2 * new))


def picture_size(spec: TensorSpec) -> tuple[int, int] | None:
    """The (width, height) of the picture that an input takes, by its shape alone; None where that does not tell."""
    layout = default_layout(spec.shape) if len(spec.shape) == 4 else None
    if layout is None:
        return None
    height, width = spec.shape[1:3] if layout == "nhwc" else spec.shape[2:]
    return width, height


def default_layout(shape: tuple[int, ...]) -> Layout | None:
    """The layout that an input `shape` of four numbers must have; None where both fit or neither does."""
    last, second = shape[3] in (1, 3), shape[1] in (1, 3)
    return None if last == second else ("nhwc" if last else "nchw")


def _is_planar(recipe: Recipe, spec: TensorSpec) -> bool:
    shape = list(spec.shape)
    if len(shape) != 4 or shape[0] != 1 or min(shape) < 1:
        raise SettingError(
            f"input '{spec.name}' has the shape {shape}; a picture needs [1, height, width, channels] or"
            " [1, channels, height, width], every number fixed",
            key="model.path",
        )
    if spec.dtype not in INPUT_DTYPES:
        raise SettingError(
            f"input '{spec.name}' is {spec.dtype}; a picture can be {', '.join(INPUT_DTYPES)}", key="model.path"
        )
    layout = recipe.layout if recipe.layout != "auto" else default_layout(spec.shape)
    if layout is None:
        raise SettingError(
            f"the layout of input '{spec.name}' {shape} cannot be told from its shape; set nhwc or nchw",
            key="preprocess.layout",
        )
    channels = shape[1] if layout == "nchw" else shape[3]
    if channels != CHANNELS[recipe.color]:
        raise SettingError(
            f"'{recipe.color}' has {CHANNELS[recipe.color]} channel(s), but input '{spec.name}' {shape} as {layout} has {channels};"
            " 1 wants gray, 3 wants rgb or bgr",
            key="preprocess.color",
        )
    return layout == "nchw"


def _tables(recipe: Recipe, spec: TensorSpec) -> list[npt.NDArray[Any]]:
    """One look-up table [256] a channel: a level of the picture to a value of the tensor."""
    mean, std = (_per_channel(recipe, key) for key in ("mean", "std"))
    if not np.all(std):
        raise SettingError(f"got {list(recipe.std)}; nothing can be divided by 0", key="preprocess.std")
    dtype = np.dtype(spec.dtype)
    levels = np.arange(256, dtype=np.float64)
    tables = []
    for channel in range(CHANNELS[recipe.color]):
        values = (levels - mean[channel]) / std[channel]
        if spec.quantized:
            values = values / spec.scale + spec.zero_point
        if np.issubdtype(dtype, np.integer):
            limits = np.iinfo(dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        table = values.astype(dtype)
        tables.append(table.view(np.int16) if dtype == np.float16 else table)
    return tables


def _wants_raw_bytes(recipe: Recipe, spec: TensorSpec) -> bool:
    """Mean 0 and std 1 for a uint8 input that cannot hold 0..255 in real values can only mean its bytes: the picture's own."""
    identity = set(recipe.mean) == {0.0} and set(recipe.std) == {1.0}
    return identity and spec.quantized and spec.dtype == "uint8" and _held(spec)[1] < 255 / 2


def _held(spec: TensorSpec) -> tuple[float, float]:
    """The lowest and the highest real value that a quantised tensor can hold."""
    limits, scale = np.iinfo(spec.dtype), spec.scale or 1.0
    return (limits.min - spec.zero_point) * scale, (limits.max - spec.zero_point) * scale


def _doubt(recipe: Recipe, spec: TensorSpec) -> str | None:
    """A quantised input was calibrated to the values that it gets: compare the recipe's with what it can hold.

    Raise SettingError where it can hold less than half of them, or where whole numbers are too coarse for them.
    """
    if spec.dtype in ("int16", "float16", "float32"):
        return None
    low, high = _held(spec)
    mean, std = (_per_channel(recipe, key) for key in ("mean", "std"))
    ends = np.sort(np.stack([-mean / std, (255 - mean) / std]), axis=0)
    least, most = float(ends[0].min()) + 0.0, float(ends[1].max())  # + 0.0: no "-0" in the message
    common = max(0.0, min(high, most) - max(low, least))
    holds = "was quantised for" if spec.quantized else f"is {spec.dtype} and takes whole numbers,"
    says = f"the recipe gives {least:.4g} to {most:.4g}, but input '{spec.name}' {holds} {low:.4g} to {high:.4g}"
    too_coarse = (most - least) / (spec.scale or 1.0) < LEVELS_LEAST
    if spec.dtype == "int32" and not too_coarse:
        return None  # whole numbers, as MoveNet's SavedModel takes them; nobody calibrated them to anything
    if common < (most - least) / 2 or too_coarse:
        mean_that_fits = -low * 255 / (high - low) + 0.0
        hint = f"mean {mean_that_fits:.4g} and std {255 / (high - low):.4g} would fill it"
        if spec.dtype == "int32":
            hint = "mean 0 and std 1 give it the picture's own"
        raise SettingError(f"{says}; {hint}", key="preprocess.mean")
    if common < (high - low) * FILLED_LEAST:
        return f"{says}: is this the normalisation that it was trained with?"
    return None


def _per_channel(recipe: Recipe, key: Literal["mean", "std"]) -> npt.NDArray[np.float64]:
    values: tuple[float, ...] = getattr(recipe, key)
    channels = CHANNELS[recipe.color]
    if len(values) not in (1, channels) or not all(map(math.isfinite, values)):
        wanted = "one finite number" if channels == 1 else f"one finite number, or {channels}"
        raise SettingError(f"got {list(values)}; '{recipe.color}' wants {wanted}", key=f"preprocess.{key}")
    return np.broadcast_to(np.array(values, np.float64), (channels,))


def _wrote(target: AnyArray, result: Any) -> AnyArray:
    """OpenCV leaves a target of the wrong type or shape alone, silently; it hands the target back where it did write to it."""
    if result is not target:
        raise ValueError(f"OpenCV did not write into its target {target.dtype} {list(target.shape)}")
    return target
