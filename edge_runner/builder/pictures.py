"""The pictures that a build works on: from a folder, or, where there is none, made up by a fixed seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edge_runner.errors import SettingError
from edge_runner.frame import Picture

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
MADE_UP = 16
SEED = 20_260_000
SIDE_PX = 256
GOLDENS = 4
GOLDEN_SIDE_TIMES = 2  # a golden picture's shorter side, times the model's input


def read_pictures(folder: Path) -> list[Picture]:
    """Every picture below a folder, by path; raise SettingError where there is none, or one that cannot be read."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise SettingError(f"{folder} holds no pictures ({' '.join(SUFFIXES)})")
    pictures = []
    for path in paths:
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if picture is None:
            raise SettingError(f"{path} cannot be read as a picture")
        pictures.append(np.asarray(picture, np.uint8))
    return pictures


def made_up_pictures() -> list[Picture]:
    """Smooth random pictures: they exercise a model, though they look like nothing that it knows."""
    rng = np.random.default_rng(SEED)
    coarse = rng.integers(0, 256, (MADE_UP, 8, 8, 3), np.uint8)
    return [np.asarray(cv2.resize(c, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC), np.uint8) for c in coarse]


def shrunk(picture: Picture, side_px: int) -> Picture:
    """A picture of the same form whose shorter side is `side_px` at most: small enough to travel with a bundle."""
    height, width = picture.shape[:2]
    ratio = side_px / min(height, width)
    if ratio >= 1:
        return picture
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def golden_pictures(pictures: Sequence[Picture], width: int, height: int) -> list[Picture]:
    """A few of the pictures, spread over all of them, small enough to travel with a bundle whose input is `width` x `height`."""
    chosen = np.unique(np.linspace(0, len(pictures) - 1, GOLDENS).astype(int))
    return [shrunk(pictures[index], GOLDEN_SIDE_TIMES * min(width, height)) for index in chosen]


def noisy(picture: Picture, seed: int) -> Picture:
    """The picture with each level moved by -1, 0 or 1: what another decoder or resampler may make of it."""
    noise = np.random.default_rng(seed).integers(-1, 2, picture.shape)
    return np.clip(picture.astype(np.int16) + noise, 0, 255).astype(np.uint8)
