"""Boxes: overlap, suppression, the way back to the frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge_runner.frame import Geometry, Tensor
from edge_runner.task.boxes import CANDIDATES_MOST, areas, from_centres, in_frame, iou, suppressed

pytestmark = pytest.mark.arm

SIDES = st.floats(0.0078125, 1, width=32, allow_subnormal=False)
PLACES = st.floats(-0.5, 1.5, width=32, allow_subnormal=False)


@st.composite
def some_boxes(draw: st.DrawFn) -> Tensor:
    """Boxes float32 [0..20, 4], some beyond the frame."""
    count = draw(st.integers(0, 20))
    low = draw(arrays.arrays(np.float32, (count, 2), elements=PLACES))
    side = draw(arrays.arrays(np.float32, (count, 2), elements=SIDES))
    return np.concatenate([low, low + side], axis=1)


@st.composite
def found(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes with scores above 0, of which some are equal, and classes."""
    boxes = draw(some_boxes())
    scores = draw(arrays.arrays(np.float32, len(boxes), elements=st.sampled_from([0.125, 0.25, 0.5, 0.75, 0.875])))
    classes = draw(arrays.arrays(np.int64, len(boxes), elements=st.integers(0, 2)))
    return boxes, scores, classes


def test_from_centres() -> None:
    """x, y, width and height become the four edges."""
    boxes = from_centres(np.array([[0.5, 0.25, 0.5, 0.25], [3, 4, 2, 0]], np.float32))
    assert boxes.tolist() == [[0.25, 0.125, 0.75, 0.375], [2, 4, 4, 4]]
    assert boxes.dtype == np.float32


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([0, 0, 2, 2], 1),
        ([0, 0, 1, 2], 0.5),
        ([1, 1, 3, 3], 1 / 7),
        ([2, 0, 4, 2], 0),  # side by side
        ([5, 5, 6, 6], 0),
        ([1, 1, 1, 1], 0),  # nothing
        ([2, 2, 0, 0], 0),  # inside out
    ],
)
def test_iou(other: list[float], expected: float) -> None:
    """The shared area over the whole; what has no area overlaps nothing."""
    assert iou(np.array([0.0, 0, 2, 2]), np.array([other], float)) == pytest.approx([expected])


class TestSuppression:
    def test_by_hand(self) -> None:
        """Of boxes on one thing the best stays; a box beside it and one of another class stay too; the best comes first."""
        boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 0.9], [0, 0, 1, 1], [2, 2, 3, 3]], np.float32)
        kept = suppressed(boxes, np.array([0.6, 0.7, 0.5, 0.9], np.float32), np.array([0, 0, 1, 0]), 0.5, 10)
        assert kept.tolist() == [3, 1, 2]

    def test_up_to_the_threshold(self) -> None:
        """What overlaps just as much as is allowed stays."""
        boxes, scores, classes = np.array([[0, 0, 2, 2], [0, 0, 1, 2]], float), np.array([0.9, 0.8]), np.array([0, 0])
        assert suppressed(boxes, scores, classes, 0.51, 10).tolist() == [0, 1]
        assert suppressed(boxes, scores, classes, 0.49, 10).tolist() == [0]

    @given(found(), st.floats(0.05, 0.95, allow_subnormal=False), st.integers(1, 25))
    @settings(deadline=None)
    def test_keeps_the_best(self, given_: tuple[Tensor, Tensor, Tensor], most_iou: float, most: int) -> None:
        """Those that are kept come best first and do not overlap within a class; whatever is left out lost to a better one,
        or came after the last that was asked for."""
        boxes, scores, classes = given_
        kept = suppressed(boxes, scores, classes, most_iou, most).tolist()
        assert len(set(kept)) == len(kept) <= most
        ranks = [(-scores[i], i) for i in kept]
        assert ranks == sorted(ranks)
        wide = boxes.astype(float)
        for n, i in enumerate(kept):
            for j in kept[n + 1 :]:
                assert classes[i] != classes[j] or iou(wide[i], wide[j : j + 1])[0] <= most_iou + 1e-6
        for j in set(range(len(boxes))) - set(kept):
            better = [i for i in kept if classes[i] == classes[j] and (-scores[i], i) < (-scores[j], j)]
            lost = any(iou(wide[i], wide[j : j + 1])[0] > most_iou - 1e-6 for i in better)
            assert lost or (len(kept) == most and (-scores[j], j) > ranks[-1])

    @given(found())
    @settings(deadline=None)
    def test_classes_are_apart(self, given_: tuple[Tensor, Tensor, Tensor]) -> None:
        """All classes at once give what each of them gives alone."""
        boxes, scores, classes = given_
        together = set(suppressed(boxes, scores, classes, 0.3, 100).tolist())
        alone = set()
        for one in range(3):
            which = np.flatnonzero(classes == one)
            alone |= set(which[suppressed(boxes[which], scores[which], classes[which], 0.3, 100)].tolist())
        assert together == alone

    @pytest.mark.filterwarnings("error")
    def test_one_far_away(self) -> None:
        """One box of any size takes no digits from the others."""
        boxes = np.array(
            [[-1e30, -1e30, 1e30, 1e30], [0, 0, 0.1, 0.1], [0.5, 0.5, 0.6, 0.6], [0, 0, 0.1, 0.1]], np.float32
        )
        scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
        assert suppressed(boxes, scores, np.array([0, 1, 1, 1]), 0.5, 10).tolist() == [0, 1, 2]

    def test_many(self) -> None:
        """Of more boxes than are looked at, the best are."""
        count = CANDIDATES_MOST + 500
        low = np.arange(count, dtype=np.float32)
        boxes = np.stack([low, low, low + 0.5, low + 0.5], axis=1)
        scores = np.linspace(0.1, 0.9, count, dtype=np.float32)
        kept = suppressed(boxes, scores, np.zeros(count, int), 0.5, count)
        assert kept.tolist() == list(range(count - 1, count - 1 - CANDIDATES_MOST, -1))


@given(some_boxes(), st.tuples(SIDES, SIDES), st.tuples(PLACES, PLACES))
@settings(deadline=None)
def test_into_the_frame_and_back(boxes: Tensor, scale: tuple[float, float], offset: tuple[float, float]) -> None:
    """The way into the frame is undone by the way into the input, corner by corner."""
    geometry = Geometry(640, 480, scale, offset)
    there = in_frame(boxes, geometry)
    assert there.dtype == np.float64
    back = geometry.to_input(there.reshape(-1, 2, 2)).reshape(-1, 4)
    assert back == pytest.approx(boxes, abs=1e-6)
    assert areas(there) == pytest.approx(areas(boxes) * scale[0] * scale[1], rel=1e-3, abs=1e-6)
