"""What a build feeds a model: pictures, prepared by the board's own recipe, or arrays for models that are not fed pictures."""

from __future__ import annotations

import os
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_runner.errors import SettingError
from edge_runner.frame import Picture, Tensor, TensorSpec
from edge_runner.model.preprocess import CHANNELS, Preprocessor, Recipe

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
MADE_UP = 16
SEED = 20_260_000
SIDE_PX = 256
GOLDENS = 4
GOLDEN_SIDE_TIMES = 2  # a golden picture's shorter side, times the model's input
GREY_TRIED = 16

Feeder = Callable[[int], list[Tensor]]
"""A sample's number -> a tensor for each input."""


class Samples(ABC):
    """A number of samples, each of which gives all inputs of a model. Small and picklable: they go to other processes."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def feeder(self, inputs: Sequence[TensorSpec]) -> Feeder:
        """What makes the tensors for these inputs, quantised where they are; raise SettingError where they do not fit."""

    @abstractmethod
    def some(self, most: int) -> Samples:
        """So many of them at most, spread over all."""


@dataclass(frozen=True)
class Pictures(Samples):
    """Pictures, as files or uint8 [height, width, 3] BGR, through one recipe into the one input."""

    pictures: Sequence[Path | Picture]
    recipe: Recipe

    def __len__(self) -> int:
        return len(self.pictures)

    def feeder(self, inputs: Sequence[TensorSpec]) -> Feeder:
        preprocessor = Preprocessor(self.recipe, one_input(inputs))

        def feed(index: int) -> list[Tensor]:
            out = np.empty(preprocessor.shape, preprocessor.dtype)
            preprocessor(self.picture(index), out)
            return [out]

        return feed

    def some(self, most: int) -> Pictures:
        return Pictures([self.pictures[i] for i in spread(len(self), most)], self.recipe)

    def picture(self, index: int) -> Picture:
        """One picture, uint8 [height, width, 3] BGR."""
        picture = self.pictures[index]
        return read_picture(picture) if isinstance(picture, Path) else np.asarray(picture, np.uint8)


@dataclass(frozen=True)
class Arrays(Samples):
    """Real values by input name, [samples, …]; one array alone feeds the one input, whatever its name."""

    arrays: Mapping[str, Tensor]
    source: str

    def __len__(self) -> int:
        return min(map(len, self.arrays.values()))

    def feeder(self, inputs: Sequence[TensorSpec]) -> Feeder:
        found = [self._of(spec, len(inputs)) for spec in inputs]

        def feed(index: int) -> list[Tensor]:
            return [quantized(a[index].reshape(s.shape), s) for a, s in zip(found, inputs, strict=True)]

        return feed

    def some(self, most: int) -> Arrays:
        chosen = spread(len(self), most)
        return Arrays({name: array[chosen] for name, array in self.arrays.items()}, self.source)

    def _of(self, spec: TensorSpec, inputs: int) -> Tensor:
        array = next(iter(self.arrays.values())) if inputs == len(self.arrays) == 1 else self.arrays.get(spec.name)
        if array is None:
            raise SettingError(f"{self.source} has no array '{spec.name}'; it has {', '.join(self.arrays)}")
        if array.shape[1:] not in (spec.shape, spec.shape[1:] if spec.shape[:1] == (1,) else spec.shape):
            shape = ", ".join(map(str, spec.shape[spec.shape[:1] == (1,) :]))
            raise SettingError(
                f"{self.source}: the array for input '{spec.name}' has the shape {list(array.shape)}; wanted is [samples, {shape}]"
            )
        return array


def one_input(inputs: Sequence[TensorSpec]) -> TensorSpec:
    """The input that a picture feeds; raise SettingError where there is more than one."""
    if len(inputs) != 1:
        listed = ", ".join(f"'{spec.name}' {spec.dtype} {list(spec.shape)}" for spec in inputs)
        raise SettingError(f"the model has {len(inputs)} inputs ({listed}); a camera's picture feeds just one")
    return inputs[0]


def quantized(values: Tensor, spec: TensorSpec) -> Tensor:
    """Real values as a tensor of `spec`."""
    if not spec.quantized:
        return np.ascontiguousarray(values, dtype=spec.dtype)
    limits = np.iinfo(spec.dtype)
    scaled = np.rint(values.astype(np.float64) / spec.scale) + spec.zero_point
    return np.asarray(np.clip(scaled, limits.min, limits.max), dtype=spec.dtype)


def spread(count: int, most: int) -> list[int]:
    """So many indices at most, spread over 0..count-1, the ends included."""
    return [int(i) for i in np.unique(np.linspace(0, count - 1, min(count, most)).round())]


def spread_over(wanted: Sequence[bool], most: int) -> list[int]:
    """So many indices at most, spread over those that are wanted; where these are too few, over the others as well."""
    first, others = ([i for i, want in enumerate(wanted) if want == kind] for kind in (True, False))
    chosen = [first[i] for i in spread(len(first), most)]
    return sorted(chosen + [others[i] for i in spread(len(others), most - len(chosen))])


def find_pictures(folder: Path) -> list[Path]:
    """Every picture below a folder, by path; raise SettingError where there is none."""
    if not folder.is_dir():
        raise SettingError(f"{folder} is no folder of pictures")
    found = (Path(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names)
    paths = sorted(path for path in found if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise SettingError(f"{folder} holds no pictures ({' '.join(SUFFIXES)})")
    return paths


def read_picture(path: Path) -> Picture:
    """Read a picture; raise SettingError where it is none."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise SettingError(f"{path} cannot be read as a picture")
    return np.asarray(picture, np.uint8)


def check_colours(pictures: Pictures) -> None:
    """Raise SettingError where a model of three channels is given pictures without any colour."""
    if CHANNELS[pictures.recipe.color] == 1:
        return
    tried = pictures.some(GREY_TRIED)
    if all(_is_grey(tried.picture(index)) for index in range(len(tried))):
        raise SettingError(
            f"the pictures of {_folder(pictures)} are grey, but the model is fed {pictures.recipe.color};"
            " calibrate and verify with what the camera will see"
        )


def read_arrays(path: Path) -> Arrays:
    """The arrays of an .npz; raise SettingError where it is none, or has nothing to feed a model with."""
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise SettingError(f"{path} cannot be read as an .npz of arrays: {error}") from error
    if not arrays or any(not np.ndim(array) or not len(array) for array in arrays.values()):
        raise SettingError(f"{path} holds no samples; wanted is an array [samples, …] for each input, by its name")
    if len({len(array) for array in arrays.values()}) > 1:
        counts = ", ".join(f"'{name}' {len(array)}" for name, array in arrays.items())
        raise SettingError(f"{path}: its arrays have not equally many samples ({counts})")
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise SettingError(f"{path}: the array '{name}' is {array.dtype}; wanted are numbers")
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            broken = len(array) - int(np.isfinite(array).reshape(len(array), -1).all(axis=1).sum())
            raise SettingError(
                f"{path}: {broken} of the {len(array)} samples of '{name}' hold values that are no finite numbers"
            )
    return Arrays(arrays, str(path))


def made_up_pictures(recipe: Recipe) -> Pictures:
    """Smooth random pictures: they exercise a model, though they look like nothing that it knows."""
    coarse = np.random.default_rng(SEED).integers(0, 256, (MADE_UP, 8, 8, 3), np.uint8)
    size = (SIDE_PX, SIDE_PX)
    return Pictures([np.asarray(cv2.resize(c, size, interpolation=cv2.INTER_CUBIC), np.uint8) for c in coarse], recipe)


def made_up_arrays(inputs: Sequence[TensorSpec]) -> Arrays:
    """Noise of deviation 1 for inputs of real numbers, zeros for others, which may be indices."""
    rng = np.random.default_rng(SEED)
    arrays: dict[str, Any] = {}
    for spec in inputs:
        shape = (MADE_UP, *spec.shape)
        real = np.issubdtype(np.dtype(spec.dtype), np.floating)
        arrays[spec.name] = rng.standard_normal(shape).astype(spec.dtype) if real else np.zeros(shape, spec.dtype)
    return Arrays(arrays, "made-up noise")


def golden_pictures(pictures: Pictures, width: int, height: int, answered: Sequence[bool]) -> Pictures:
    """A few of the pictures, spread over all of them, small enough to travel with a bundle whose input is `width` x `height`.

    Those that are `answered` come before others.
    """
    side_px = GOLDEN_SIDE_TIMES * min(width, height)
    chosen = spread_over(answered, GOLDENS)
    return Pictures([shrunk(pictures.picture(index), side_px) for index in chosen], pictures.recipe)


def shrunk(picture: Picture, side_px: int) -> Picture:
    """A picture of the same form whose shorter side is `side_px` at most."""
    height, width = picture.shape[:2]
    ratio = side_px / min(height, width)
    if ratio >= 1:
        return picture
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def noisy(picture: Picture, seed: int) -> Picture:
    """The picture with each level moved by -1, 0 or 1: what another decoder or resampler may make of it."""
    noise = np.random.default_rng(seed).integers(-1, 2, picture.shape)
    return np.clip(picture.astype(np.int16) + noise, 0, 255).astype(np.uint8)


def _is_grey(picture: Picture) -> bool:
    return bool((picture[..., :1] == picture).all())


def _folder(pictures: Pictures) -> str:
    first = pictures.pictures[0]
    return str(first.parent) if isinstance(first, Path) else "the calibration"
