"""The memory that a worker shares with the daemon."""

from __future__ import annotations

import os

import numpy as np
import pytest

from edge_runner.camera.shared import Block
from edge_runner.errors import CameraError

FLOAT = np.dtype(np.float32)


@pytest.fixture
def sides(nothing_left: None):
    """Both sides of one block, as two processes would have them."""
    ours = Block((1, 4, 5, 3), FLOAT)
    theirs = Block((1, 4, 5, 3), FLOAT, [os.dup(descriptor) for descriptor in ours.descriptors])
    yield ours, theirs
    ours.close()
    theirs.close()


def test_input(sides) -> None:
    """What one side writes, the other reads."""
    ours, theirs = sides
    theirs.input[:] = np.arange(60).reshape(1, 4, 5, 3)
    assert ours.input.dtype == FLOAT
    assert ours.input.ravel().tolist() == list(range(60))


def test_figures(sides) -> None:
    """Each figure by its name, and none that does not exist."""
    ours, theirs = sides
    theirs.figures.frames, theirs.figures.newest_ns = 7, 2**40
    theirs.figures.torn += 2
    assert (ours.figures.frames, ours.figures.newest_ns, ours.figures.torn) == (7, 2**40, 2)
    ours.figures.clear()
    assert theirs.figures.frames == 0
    with pytest.raises(AttributeError):
        ours.figures.frmes  # noqa: B018


def test_frame_grows_and_never_shrinks(sides) -> None:
    """A larger frame finds room, a smaller one uses a part; no side can take the memory from under the other."""
    ours, theirs = sides
    for shape in ((4, 6, 3), (40, 60, 3), (2, 3, 3)):
        theirs.picture(shape)[:] = sum(shape) % 256
        assert set(ours.picture(shape).flat) == {sum(shape) % 256}
    assert os.fstat(ours.descriptors[1]).st_size == 40 * 60 * 3
    with pytest.raises(PermissionError):
        os.ftruncate(theirs.descriptors[1], 0)


def test_frame_is_bounded(sides) -> None:
    """A frame beyond all cameras is refused before memory is asked for."""
    with pytest.raises(CameraError, match=r"20000x20000 pixels; 7680x4320 is the most"):
        sides[1].picture((20000, 20000, 3))


def test_all_dtypes_are_aligned(nothing_left: None) -> None:
    """The tensor begins where any type may begin."""
    for name in ("uint8", "int8", "int16", "float16", "float32"):
        block = Block((1, 3, 3, 1), np.dtype(name))
        assert block.input.flags.aligned
        block.close()
