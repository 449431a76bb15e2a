"""Words on pictures."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runner.task import draw

pytestmark = pytest.mark.arm


@pytest.mark.parametrize("level", [0, 128, 255])
def test_legible_on_any_background(level: int) -> None:
    """Words have both white and black in them, so that they stand out from any background."""
    picture = np.full((240, 320, 3), level, np.uint8)
    draw.lines(picture, ["cat  0.98", "dog  0.02"])
    assert picture.min() < 30
    assert picture.max() > 200
    assert picture.shape == (240, 320, 3)


def test_one_line_below_the_other() -> None:
    """Lines go downwards from the upper left corner and do not cover each other."""
    first, both = (np.full((240, 320, 3), 128, np.uint8) for _ in range(2))
    draw.lines(first, ["a"])
    draw.lines(both, ["a", "b"])
    used = np.flatnonzero((first != 128).any(axis=(1, 2)))
    added = np.flatnonzero((both != first).any(axis=(1, 2)))
    assert used.max() < 40
    assert added.min() > used.min() + 8
    assert np.array_equal(both[: added.min()], first[: added.min()])


def test_where_it_is_told() -> None:
    """A position puts the words there."""
    picture = np.zeros((240, 320, 3), np.uint8)
    draw.lines(picture, ["a"], x=200, y=100)
    rows, columns = np.nonzero(picture.any(axis=2))
    assert columns.min() >= 190
    assert rows.min() >= 95


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (16, 400), (4000, 20)])
def test_any_size(shape: tuple[int, int]) -> None:
    """No picture is too small to be drawn on."""
    draw.lines(np.zeros((*shape, 3), np.uint8), ["a label", ""] * 10)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("cat", "cat"),
        ("Gänseblümchen", "Ganseblumchen"),
        ("crème brûlée", "creme brulee"),
        ("猫 1", "? 1"),
        ("½", "1?2"),
    ],
)
def test_plain(text: str, plain: str) -> None:
    """Letters that OpenCV cannot write become their nearest ASCII, or question marks."""
    assert draw.plain(text) == plain
