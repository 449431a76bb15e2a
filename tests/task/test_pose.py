"""Pose: named points of one person or of several, from MoveNet's outputs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runner.errors import ModelError
from edge_runner.frame import Ending, Geometry, Region, Tensor, TensorSpec
from edge_runner.result import Answers, Result
from edge_runner.task import TASKS
from edge_runner.task.base import ModelFacts
from edge_runner.task.pose import KEYPOINTS, SAME, SKELETON, VISIBLE_SCORE, Pose, PoseConfig

pytestmark = pytest.mark.arm

WHOLE = Geometry(640, 480)
HALF = Geometry.between((200, 100), Region(0, 0, 200, 100), (8, 8), Region(0, 2, 8, 4))
"""A letterbox: the frame is the middle half of the input's height."""
SINGLE, MULTI = (1, 1, 17, 3), (1, 6, 56)


def pose(
    *shape: int, labels: Sequence[str] | None = None, dtype: str = "float32", scale: float = 0.0, **keys: Any
) -> Pose:
    spec = TensorSpec("points", shape or SINGLE, dtype, scale)
    facts = ModelFacts((spec,), (Ending("CONCATENATION"),), tuple(labels) if labels else None, "labels.txt", (192, 192))
    return Pose(PoseConfig(**keys), facts)


def body(score: float = 0.8, x: float = 0.1, y: float = 0.2) -> Tensor:
    """Points [17, 3] (y, x, score), beginning at (`x`, `y`), each a little further down and to the right than the one before."""
    steps = np.arange(17) * 0.03
    return np.column_stack([y + steps, x + steps / 2, np.full(17, score)]).astype(np.float32)


def single(points: Tensor) -> Tensor:
    return points.reshape(SINGLE)


def person(score: float, points: Tensor, box: tuple[float, float, float, float]) -> Tensor:
    """A row [56]; the `box` is ymin, xmin, ymax, xmax."""
    return np.concatenate([points.ravel(), [*box, score]]).astype(np.float32)


def several(*rows: Tensor) -> Tensor:
    found = np.zeros(MULTI, np.float32)
    for number, row in enumerate(rows):
        found[0, number] = row
    return found


BOX = (0.2, 0.1, 0.7, 0.4)


def places(answers: Answers) -> list[tuple[str, float, float]]:
    return [(k.name, round(k.x, 5), round(k.y, 5)) for k in answers.keypoints or ()]


def test_it_is_a_task() -> None:
    """`task: {type: pose}` leads here."""
    assert TASKS["pose"] == "edge_runner.task.pose:Pose"


def test_the_skeleton_joins_what_has_names() -> None:
    """Every line is between two of the seventeen points, each of which has one; left and right are alike."""
    assert len(KEYPOINTS) == len(set(KEYPOINTS)) == 17
    assert {name for pair in SKELETON for name in pair} == set(KEYPOINTS)
    sides = {"left": "right", "right": "left"}
    mirrored = {tuple(f"{sides.get(n.split('_')[0], n)}{n[len(n.split('_')[0]) :]}" for n in pair) for pair in SKELETON}
    assert {frozenset(pair) for pair in SKELETON} == {frozenset(pair) for pair in mirrored}
    assert len(SKELETON) == 19


class TestOnePerson:
    def test_points_by_name(self) -> None:
        """All points come in the model's order with their names, and y and x in their places."""
        found = pose().decode([single(body())], WHOLE)
        assert [k.name for k in found.keypoints or ()] == list(KEYPOINTS)
        assert places(found)[0] == ("nose", 0.1, 0.2)
        assert places(found)[16] == ("right_ankle", 0.34, 0.68)
        assert {k.person for k in found.keypoints or ()} == {None}
        assert {round(k.score, 6) for k in found.keypoints or ()} == {0.8}
        assert found.detections is found.classifications is found.doubt is None

    def test_points_without_a_score(self) -> None:
        """Of a person, points that the model is not sure of are there too, with their scores."""
        points = body(0.9)
        points[3, 2] = 0.01
        found = pose().decode([single(points)], WHOLE).keypoints or ()
        assert (len(found), found[3].score) == (17, pytest.approx(0.01))

    @pytest.mark.parametrize(("score", "count"), [(0.26, 17), (0.25, 17), (0.24, 0)])
    def test_threshold(self, score: float, count: int) -> None:
        """A person whose points have the threshold in the mean is there with all of them, one below with none."""
        points = body(score)
        points[:8, 2] += 0.125
        points[8:16, 2] -= 0.125
        found = pose().decode([single(points)], WHOLE)
        assert found.keypoints is not None
        assert len(found.keypoints) == count
        assert pose(score_threshold=0.1).decode([single(points)], WHOLE).keypoints

    def test_in_the_result(self, result: Callable[..., Result]) -> None:
        """In a result's line, points have name, place and score, and no person."""
        line = json.loads(result(answers=pose().decode([single(body())], WHOLE)).line())
        assert line["keypoints"][0] == {"name": "nose", "x": 0.1, "y": 0.2, "score": 0.8}
        assert "detections" not in line

    def test_labels_are_the_names(self) -> None:
        """Where there are labels, they are the points' names, as many as there are points."""
        subject = pose(1, 1, 4, 3, labels=("a", "b", "c", "d"))
        found = subject.decode([body()[:4].reshape(1, 1, 4, 3)], WHOLE)
        assert [k.name for k in found.keypoints or ()] == ["a", "b", "c", "d"]


class TestSeveral:
    def test_best_first(self) -> None:
        """People come with a box each, the best first, and their points say whose they are."""
        rows = [person(s, body(x=x), BOX) for s, x in ((0.5, 0.3), (0.9, 0.1), (0.7, 0.2))]
        found = pose(*MULTI).decode([several(*rows)], WHOLE)
        assert [(d.label, d.index, round(d.score, 3)) for d in found.detections or ()] == [
            ("person", 0, 0.9), ("person", 0, 0.7), ("person", 0, 0.5),
        ]  # fmt: skip
        assert (found.detections or ())[0].box == pytest.approx((0.1, 0.2, 0.4, 0.7))
        points = found.keypoints or ()
        assert [k.person for k in points] == [0] * 17 + [1] * 17 + [2] * 17
        assert [k.name for k in points] == list(KEYPOINTS) * 3
        assert [round(points[n].x, 3) for n in (0, 17, 34)] == [0.1, 0.2, 0.3]

    def test_threshold_is_of_the_person(self) -> None:
        """A person's own score counts, not that of the points."""
        rows = [person(0.25, body(0.01), BOX), person(0.24, body(0.99), BOX)]
        found = pose(*MULTI).decode([several(*rows)], WHOLE)
        assert [round(d.score, 3) for d in found.detections or ()] == [0.25]
        assert found.keypoints is not None
        assert found.keypoints[0].score == pytest.approx(0.01)

    @pytest.mark.parametrize("most", [1, 2, 6, 9])
    def test_max_results(self, most: int) -> None:
        """No more people than asked for, and none of the others' points."""
        rows = [person(0.9 - 0.1 * n, body(), BOX) for n in range(6)]
        found = pose(*MULTI, max_results=most).decode([several(*rows)], WHOLE)
        assert len(found.detections or ()) == min(most, 6)
        assert len(found.keypoints or ()) == 17 * min(most, 6)

    def test_equal_ones_in_order(self) -> None:
        """Of equal scores the model's first comes first."""
        rows = [person(0.5, body(x=0.1 * n), BOX) for n in range(4)]
        found = pose(*MULTI).decode([several(*rows)], WHOLE)
        assert [round((found.keypoints or ())[17 * n].x, 3) for n in range(4)] == [0.0, 0.1, 0.2, 0.3]

    def test_nobody(self) -> None:
        """Where nobody is, both lists are there, and empty."""
        found = pose(*MULTI).decode([several()], WHOLE)
        assert (found.detections, found.keypoints, found.doubt) == ((), (), None)

    def test_labels_are_the_names(self) -> None:
        """Labels name the points of several people too."""
        subject = pose(1, 2, 14, labels=("a", "b", "c"))
        row = np.concatenate([body()[:3].ravel(), [*BOX, 0.9]])
        found = subject.decode([np.stack([row, row])[np.newaxis].astype(np.float32)], WHOLE)
        assert [k.name for k in found.keypoints or ()] == ["a", "b", "c"] * 2


class TestGeometry:
    def test_letterbox(self) -> None:
        """Points and boxes are in fractions of the upright frame, and end at its edge."""
        points = body()
        points[0, :2], points[1, :2], points[2, :2] = (0.5, 0.25), (0.25, 1.0), (0.1, 0.9)
        row = person(0.9, points, (0.2, 0.1, 0.5, 1.2))
        for found in (pose(*MULTI).decode([several(row)], HALF), pose().decode([single(points)], HALF)):
            assert places(found)[:3] == [("nose", 0.25, 0.5), ("left_eye", 1.0, 0.0), ("right_eye", 0.9, 0.0)]
        box = (pose(*MULTI).decode([several(row)], HALF).detections or ())[0].box
        assert box == pytest.approx((0.1, 0.0, 1.0, 0.5))

    def test_box_ends_where_the_model_saw_nothing(self) -> None:
        """Of a frame that is cropped, a box reaches no further than what was seen of it."""
        geometry = Geometry.between((200, 100), Region(50, 25, 100, 50), (8, 8), Region(0, 2, 8, 4))
        found = pose(*MULTI).decode([several(person(0.9, body(), (0.1, 0.2, 0.5, 1.2)))], geometry)
        assert (found.detections or ())[0].box == pytest.approx((0.35, 0.25, 0.75, 0.5))

    @given(
        st.tuples(*[st.floats(0.1, 3, allow_subnormal=False)] * 2),
        st.tuples(*[st.floats(-1, 1, allow_subnormal=False)] * 2),
        st.lists(st.tuples(*[st.floats(-0.5, 1.5, width=32, allow_subnormal=False)] * 2), min_size=17, max_size=17),
    )
    @settings(max_examples=60, deadline=None)
    def test_undone(self, scale: Any, offset: Any, points: list[tuple[float, float]]) -> None:
        """Whatever the geometry, a point is where the input's place lies in the frame, within 0..1."""
        geometry = Geometry(640, 480, scale, offset)
        values = np.column_stack([np.array(points), np.full(17, 0.9)]).astype(np.float32)
        found = pose().decode([single(values)], geometry).keypoints or ()
        for point, (y, x) in zip(found, values[:, :2].astype(float), strict=True):
            assert point.x == pytest.approx(min(max(x * scale[0] + offset[0], 0), 1))
            assert point.y == pytest.approx(min(max(y * scale[1] + offset[1], 0), 1))


class TestDoubt:
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    @pytest.mark.parametrize("place", [0, 1, 2, 51, 55])
    def test_not_a_number(self, value: float, place: int, result: Callable[..., Result]) -> None:
        """A person with a value that is no number is left out, and told; the others stay."""
        rows = [person(0.9, body(), BOX), person(0.8, body(), BOX)]
        rows[0][place] = value
        found = pose(*MULTI).decode([several(*rows)], WHOLE)
        assert [round(d.score, 3) for d in found.detections or ()] == [0.8]
        assert "NaN" in str(found.doubt)
        result(answers=found).line()
        if place < 51:
            one = pose().decode([single(rows[0][:51])], WHOLE)
            assert one.keypoints == ()
            assert "NaN" in str(one.doubt)

    def test_pixels(self) -> None:
        """Positions far outside the input are told: they are no fractions."""
        points = body()
        points[:, :2] *= 192
        assert "are they pixels?" in str(pose().decode([single(points)], WHOLE).doubt)
        points = body(x=1.4)
        assert pose().decode([single(points)], WHOLE).doubt is None

    def test_scores_within_0_and_1(self) -> None:
        """Scores that are rounded a little beyond 0..1 are cut to it."""
        row = person(1.001, body(1.002), BOX)
        found = pose(*MULTI).decode([several(row)], WHOLE)
        assert (found.detections or ())[0].score == 1
        assert (found.keypoints or ())[0].score == 1


class TestOutputs:
    @pytest.mark.parametrize(
        ("shape", "reading"),
        [
            ((1, 1, 17, 3), "one person, 17 points each"),
            ((1, 6, 56), "several people, 17 points each"),
            ((1, 1, 56), "several people, 17 points each"),
        ],
    )
    @pytest.mark.parametrize(("dtype", "scale"), [("float32", 0.0), ("int8", 0.01)])
    def test_told_by_shape(self, shape: tuple[int, ...], reading: str, dtype: str, scale: float) -> None:
        """Which of MoveNet's outputs it is, its shape tells; its values were chosen by an argmax or a sort."""
        subject = pose(*shape, dtype=dtype, scale=scale)
        assert subject.reading == reading
        assert subject.chosen == (True,)
        assert subject.decided == {}

    @pytest.mark.parametrize(
        "shape",
        [(1, 17, 3), (1, 1, 21, 3), (1, 6, 57), (1, 6, 59), (2, 1, 17, 3), (1, 2, 17, 3), (1, 5), (17,), (1, 0, 56)],
    )
    def test_other_shapes(self, shape: tuple[int, ...]) -> None:
        """Any other output is refused, with what it is and what there could be."""
        with pytest.raises(ModelError, match=r"as MoveNet has it: .* this model has 'points' float32") as caught:
            pose(*shape)
        assert str(list(shape)) in str(caught.value)
        assert caught.value.key == "task.type"

    def test_other_types(self) -> None:
        """Whole numbers that stand for nothing else are no points."""
        with pytest.raises(ModelError, match="this model has 'points' int32"):
            pose(dtype="int32")

    @pytest.mark.parametrize("count", [0, 2])
    def test_number(self, count: int) -> None:
        """A model with more outputs than one is no pose model; all are listed."""
        outputs = tuple(TensorSpec(f"out{n}", SINGLE, "float32") for n in range(count))
        with pytest.raises(ModelError, match="a pose model has one output") as caught:
            Pose(PoseConfig(), ModelFacts(outputs, (Ending("MUL"),) * count, None, ""))
        assert all(f"'out{n}' float32 [1, 1, 17, 3]" in str(caught.value) for n in range(count))

    @pytest.mark.parametrize("shape", [SINGLE, MULTI])
    def test_labels_that_do_not_fit(self, shape: tuple[int, ...]) -> None:
        """Labels of another number than the points are refused with both numbers."""
        with pytest.raises(ModelError, match=r"labels\.txt has 1 labels; output 'points' has 17 points") as caught:
            pose(*shape, labels=["person"])
        assert caught.value.key == "model.labels"


class TestSameAnswer:
    def compare(self, before: Sequence[Tensor], after: Sequence[Tensor], tolerance: float = 0.02) -> str | None:
        return pose(*MULTI).same_answer([several(*before)], [several(*after)], [tolerance])

    def moved(self, number: int, by: float, score: float = 0.8) -> Tensor:
        points = body()
        points[number, 1] += by
        points[number, 2] = score
        return points

    @pytest.mark.parametrize(("by", "same"), [(0, True), (SAME - 0.001, True), (SAME + 0.001, False), (0.5, False)])
    @pytest.mark.parametrize("number", [0, 16])
    def test_one_person(self, number: int, by: float, same: bool) -> None:
        """A sure point that is elsewhere makes another answer, of one person and of several."""
        expected, got = body(), self.moved(number, by)
        assert (pose().same_answer([single(expected)], [single(got)], [0.02]) is None) == same
        assert (self.compare([person(0.9, expected, BOX)], [person(0.9, got, BOX)]) is None) == same

    def test_a_wide_tolerance(self) -> None:
        """Where the output's tolerance is wider, points may be as far apart as it says."""
        expected, got = [person(0.9, body(), BOX)], [person(0.9, self.moved(0, 0.09), BOX)]
        assert self.compare(expected, got, 0.1) is None
        assert self.compare(expected, got, 0.08) is not None

    @pytest.mark.parametrize(("score", "same"), [(VISIBLE_SCORE + 0.019, True), (VISIBLE_SCORE + 0.021, False)])
    def test_points_that_nobody_is_sure_of(self, score: float, same: bool) -> None:
        """Where a point is that is not sure, is left open."""
        expected, got = self.moved(5, 0, score), self.moved(5, 0.4, score)
        assert (self.compare([person(0.9, expected, BOX)], [person(0.9, got, BOX)]) is None) == same

    @pytest.mark.parametrize(("score", "same"), [(0.269, True), (0.271, False)])
    def test_somebody_who_is_missing_or_new(self, score: float, same: bool) -> None:
        """Somebody above the threshold by more than the tolerance is there on both sides; somebody in doubt need not be."""
        one, other = person(0.9, body(), BOX), person(score, body(x=0.5), BOX)
        gone, new = self.compare([one, other], [one]), self.compare([one], [one, other])
        assert (gone is None) == (new is None) == same
        if not same:
            assert gone == "the host's person of score 0.271 is missing, or is seen otherwise"
            assert new == "there is a person of score 0.271, whom the host did not see, or not so"

    def test_somebody_just_below(self) -> None:
        """Who has fallen just below the threshold is still the same person."""
        assert self.compare([person(0.275, body(), BOX)], [person(0.24, body(), BOX)]) is None

    def test_in_another_order(self) -> None:
        """The order of people is no part of the answer."""
        one, other = person(0.51, body(), BOX), person(0.5, body(x=0.5), BOX)
        assert self.compare([one, other], [other, one]) is None

    @pytest.mark.parametrize("value", range(4))
    def test_boxes(self, value: int) -> None:
        """A box that is elsewhere makes another answer."""
        box = list(BOX)
        box[value] += 0.06
        assert self.compare([person(0.9, body(), BOX)], [person(0.9, body(), tuple(box))]) is not None  # type: ignore[arg-type]

    def test_scores(self) -> None:
        """So does a person of quite another score."""
        assert self.compare([person(0.9, body(), BOX)], [person(0.86, body(), BOX)]) is None
        assert self.compare([person(0.9, body(), BOX)], [person(0.5, body(), BOX)]) is not None

    def test_not_a_number(self) -> None:
        """Nor is somebody who is no number."""
        expected, got = single(body()), single(body() * np.nan)
        assert pose().same_answer([expected], [got], [9.0]) is None  # too wide a tolerance to see anybody
        assert pose().same_answer([expected], [got], [0.1]) is not None

    def test_nobody(self) -> None:
        """Nobody is the same as nobody."""
        assert self.compare([], []) is None
        assert pose().same_answer([single(body(0.1))], [single(body(0.1, x=0.9))], [0.02]) is None
