"""Turning and cropping, against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge_runner.camera.base import CameraConfig, View
from edge_runner.frame import Region

FRAME = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
FLIPS = {"none": lambda p: p, "horizontal": np.fliplr, "vertical": np.flipud}


def view(**settings: Any) -> View:
    return View(CameraConfig(type="test", **settings))


def expected(frame: np.ndarray, rotate: int, flip: str) -> np.ndarray:
    return FLIPS[flip](np.rot90(frame, -rotate // 90))


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_rotated_clockwise_then_flipped(rotate: int, flip: str) -> None:
    """`rotate` turns clockwise, `flip` mirrors what results."""
    turned = view(rotate=rotate, flip=flip).upright(FRAME.copy(), None)
    assert np.array_equal(turned, expected(FRAME, rotate, flip))


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_buffer_is_used_again(rotate: int, flip: str) -> None:
    """A buffer of the right size is written into; one of another size is replaced; the frame itself stays as it is."""
    subject, frame = view(rotate=rotate, flip=flip), FRAME.copy()
    first = subject.upright(frame, None)
    other = FRAME[::-1].copy()
    second = subject.upright(other, first)
    assert np.array_equal(second, expected(FRAME[::-1], rotate, flip))
    assert np.array_equal(frame, FRAME)
    if subject.turns:
        assert second is first
        smaller = subject.upright(np.ascontiguousarray(FRAME[:3]), first)
        assert np.array_equal(smaller, expected(FRAME[:3], rotate, flip))
    else:
        assert second is other


def test_turns_only_where_asked() -> None:
    """Nothing is copied where there is nothing to turn."""
    assert not view().turns
    assert view(rotate=180).turns
    assert view(flip="vertical").turns


@pytest.mark.parametrize(
    ("crop", "size", "region"),
    [
        ((0, 0, 1, 1), (640, 480), Region(0, 0, 640, 480)),
        ((0.25, 0.5, 0.5, 0.25), (640, 480), Region(160, 240, 320, 120)),
        ((0.7, 0, 0.3, 1), (10, 4), Region(7, 0, 3, 4)),
        ((0.7, 0.1, 0.3, 0.9), (3, 3), Region(2, 0, 1, 3)),
        ((0.5, 0.5, 0.001, 0.001), (4, 4), Region(2, 2, 1, 1)),
        ((0.999, 0.999, 0.001, 0.001), (4, 4), Region(3, 3, 1, 1)),
        ((0, 0, 1, 0.5), (1, 1), Region(0, 0, 1, 1)),
    ],
)
def test_crop_in_pixels(crop: tuple[float, float, float, float], size: tuple[int, int], region: Region) -> None:
    """A crop is whole pixels of the upright frame, within it, and one at least."""
    width, height = size
    assert view(crop=crop).region(np.empty((height, width, 3), np.uint8)) == region


def test_crops_that_touch_do_not_overlap() -> None:
    """Crops side by side share no pixel and leave none out, whatever the width."""
    for width in range(8, 200, 7):
        upright = np.empty((2, width, 3), np.uint8)
        parts = [view(crop=(k / 8, 0, 1 / 8, 1)).region(upright) for k in range(8)]
        assert [p.x for p in parts] == [0, *(p.x + p.width for p in parts[:-1])]
        assert parts[-1].x + parts[-1].width == width
