"""How things stand, in a few words: of a camera's newest result and of the board, and when that is worth telling anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from edge_runner.output.when import scored
from edge_runner.result import Result, rfc3339, rounded

APART_S = 1.0  # between two states of one kind, at least
ANEW_S = 60.0  # after so long it is told again, unchanged or not
SCORE_STEP = 0.05  # a smaller change of a score is none

State = Mapping[str, Any]


def camera_state(result: Result) -> State:
    """The best answer's `label` and `score` (null where there is none), and how many there are of each label."""
    answers = result.answers
    found = list(scored(answers))
    if answers.keypoints and answers.detections is None:  # the points of one person
        found = [("person", fmean(point.score for point in answers.keypoints))]
    label, score = max(found, key=lambda one: one[1], default=(None, None))
    return {
        "time": rfc3339(result.time_ns),
        "label": label,
        "score": score if score is None else rounded(score),
        "counts": dict(Counter(name for name, _ in found)),
    }


def camera_news(old: State, new: State) -> bool:
    """Whether an answer changed: scores always do, a little."""
    if (old["label"], old["counts"]) != (new["label"], new["counts"]):
        return True
    return new["score"] is not None and abs(new["score"] - old["score"]) >= SCORE_STEP


def board_news(old: State, new: State) -> bool:
    """Whether something changed that is no number: those always do."""
    return any(old.get(key) != new.get(key) for key in {*old, *new} - {"time"} if not _number(new.get(key)))


class Telling:
    """One kind of state: tells whether it is to be told again. `news` compares the one that was told last with the new one."""

    def __init__(self, news: Callable[[State, State], bool]) -> None:
        self._news = news
        self._told: State | None = None
        self._told_at = 0.0

    def forget(self) -> None:
        """Nobody knows it any more."""
        self._told = None

    def ready(self, now: float) -> bool:
        """Whether the last one is old enough (time.monotonic's seconds) for any other."""
        return self._told is None or now - self._told_at >= APART_S

    def wants(self, state: State, now: float) -> bool:
        """Whether this one is to be told; if so, it counts as told."""
        if not self.ready(now) or (self._told and now - self._told_at < ANEW_S and not self._news(self._told, state)):
            return False
        self._told, self._told_at = state, now
        return True


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
