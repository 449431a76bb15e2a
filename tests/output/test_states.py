"""How things stand, in a few words, and when that is told anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from edge_runner.output.states import Telling, board_news, camera_news, camera_state
from edge_runner.result import Answers, Detection, Keypoint, RawTensor, Result, Segment

pytestmark = pytest.mark.arm

Make = Callable[..., Result]
BOX = (0.0, 0.0, 1.0, 1.0)
PERSON, CAR = Detection("person", 0, 0.91234567, BOX), Detection("car", 2, 0.8, BOX)
NOSE, KNEE = Keypoint("nose", 0, 0, 0.8), Keypoint("knee", 0, 0, 0.6)


@pytest.mark.parametrize(
    ("answers", "label", "score", "counts"),
    [
        (Answers(detections=(PERSON, CAR, PERSON)), "person", 0.912346, {"person": 2, "car": 1}),
        (Answers(detections=()), None, None, {}),
        (Answers(segments=(Segment("road", 0, 0.7), Segment("sky", 1, 0.2))), "road", 0.7, {"road": 1, "sky": 1}),
        (Answers(keypoints=(NOSE, KNEE)), "person", 0.7, {"person": 1}),
        (Answers(keypoints=()), None, None, {}),
        (Answers(keypoints=(NOSE,), detections=(PERSON,)), "person", 0.912346, {"person": 1}),
        (Answers(tensors=(RawTensor("x", (1,), "float32", (1.0,)),)), None, None, {}),
    ],
)  # fmt: skip
def test_camera(result: Make, answers: Answers, label: str | None, score: float | None, counts: dict[str, int]) -> None:
    """The best answer, and how many there are of each label; null where there is none."""
    state = camera_state(result(answers=answers))
    assert state == {"time": "2026-11-22T13:28:00.123456Z", "label": label, "score": score, "counts": counts}


def test_classification(result: Make) -> None:
    """Of a classification, the best class alone."""
    state = camera_state(result(("cat", 0.7), ("dog", 0.2)))
    assert (state["label"], state["score"], state["counts"]) == ("cat", 0.7, {"cat": 1})


@pytest.mark.parametrize(
    ("change", "news"),
    [
        ({}, False),
        ({"time": "later"}, False),
        ({"score": 0.52}, False),
        ({"score": 0.56}, True),
        ({"score": None, "label": None}, True),
        ({"label": "dog"}, True),
        ({"counts": {"cat": 2}}, True),
    ],
)
def test_news_of_a_camera(change: dict[str, Any], news: bool) -> None:
    """Another answer is news, a score that hardly changes is none."""
    old = {"time": "now", "label": "cat", "score": 0.5, "counts": {"cat": 1}}
    assert camera_news(old, {**old, **change}) is news
    assert camera_news({**old, **change}, old) is news


@pytest.mark.parametrize(
    ("change", "news"),
    [
        ({}, False),
        ({"time": "later", "temperature": 60.1, "lost": 7}, False),
        ({"health": "degraded"}, True),
        ({"reasons": ["camera: no frame"]}, True),
        ({"temperature": None}, True),
        ({"throttled": True}, True),
    ],
)
def test_news_of_the_board(change: dict[str, Any], news: bool) -> None:
    """Words that change are news, numbers always change."""
    old = {"time": "now", "health": "running", "reasons": [], "temperature": 45.2, "lost": 0, "throttled": False}
    assert board_news(old, {**old, **change}) is news


def test_telling() -> None:
    """A change is told at once, but a second after the last at the earliest; each minute it is told anyway."""
    telling = Telling(board_news)
    good, bad = {"health": "running"}, {"health": "degraded"}
    assert telling.wants(good, 100.0)
    assert not telling.wants(bad, 100.9)
    assert telling.wants(bad, 101.0)
    assert not telling.wants(bad, 160.9)
    assert telling.wants(bad, 161.0)
    assert not telling.wants(bad, 161.5)
    telling.forget()
    assert telling.wants(bad, 161.6)
