"""Pose: the points of a body, of one person or of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from edge_runner.errors import ModelError
from edge_runner.fields import Fraction, Range
from edge_runner.frame import Geometry, Tensor, TensorSpec
from edge_runner.result import Answers, Detection, Keypoint
from edge_runner.task.base import ModelFacts, Task
from edge_runner.task.boxes import in_frame, visible

# COCO's, in the order in which MoveNet gives them (its model card).
KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
    "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip

# The lines between them: `skeleton` of COCO's person_keypoints annotations.
SKELETON = (
    ("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "right_eye"), ("left_eye", "left_ear"), ("right_eye", "right_ear"),
    ("left_ear", "left_shoulder"), ("right_ear", "right_shoulder"), ("left_shoulder", "right_shoulder"),
    ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"), ("right_shoulder", "right_elbow"),
    ("right_elbow", "right_wrist"), ("left_shoulder", "left_hip"), ("right_shoulder", "right_hip"), ("left_hip", "right_hip"),
    ("left_hip", "left_knee"), ("left_knee", "left_ankle"), ("right_hip", "right_knee"), ("right_knee", "right_ankle"),
)  # fmt: skip

PERSON = "person"
VISIBLE_SCORE = 0.3  # from here on, a point is where it is said to be: the model card's recommendation
SAME = 0.05  # of the input's side, or of a score: so far apart, it is still the same answer
OF_A_POINT, OF_A_BOX = 3, 5  # values: y, x, score; ymin, xmin, ymax, xmax, score
PEOPLE_MOST = 64  # MoveNet finds six; thousands are another model's boxes
FAR = 2.0  # inputs from the corner: further away, positions are no fractions


@dataclass(frozen=True)
class PoseConfig:
    """The configuration's `task` for poses. `score_threshold` is a person's, 0..1; `max_results` counts people."""

    type: Literal["pose"] = "pose"
    score_threshold: Fraction = 0.25
    max_results: Annotated[int, Range(1)] = 6


@dataclass(frozen=True)
class People:
    """What a model found, of n people with k points each, in fractions of its input, float64.

    `points` [n, k, 2] (x, y), `scores` [n, k] and `boxes` [n, 4] (x0, y0, x1, y1); None of a model for one person. `worth` [n] is
    a person's score: its own, or the mean of its points'.
    """

    points: Tensor
    scores: Tensor
    worth: Tensor
    boxes: Tensor | None = None

    def best(self, threshold: float, most: int | None = None) -> People:
        """Those that reach the threshold, the best first, `most` at most. What is not a number is nobody."""
        count = len(self.worth)
        parts = [
            part.reshape(count, -1) for part in (self.points, self.scores, self.worth, self.boxes) if part is not None
        ]
        kept = np.flatnonzero(np.isfinite(np.concatenate(parts, axis=1)).all(axis=1) & (self.worth >= threshold))
        best = kept[np.argsort(-self.worth[kept], kind="stable")][:most]
        boxes = None if self.boxes is None else self.boxes[best]
        return People(self.points[best], self.scores[best], self.worth[best], boxes)


class Pose(Task):
    """Points with names from MoveNet's one output: of a single person, or of several with a box each."""

    Config = PoseConfig
    SLACK = 0.05

    def __init__(self, config: PoseConfig, facts: ModelFacts) -> None:
        """Raise ModelError where the model has no such output, or where its points are not as many as the labels."""
        spec = _only_output(facts)
        self.several = len(spec.shape) == 3
        self.names = facts.labels or KEYPOINTS
        self.kept_labels = (PERSON,) if self.several else tuple(self.names)
        self._config = config

    @property
    def reading(self) -> str:
        return f"{'several people' if self.several else 'one person'}, {len(self.names)} points each"

    @property
    def chosen(self) -> tuple[bool, ...]:
        """People are sorted within the model, and points are where the heat maps have their maximum."""
        return (True,)

    def decode(self, tensors: Sequence[Tensor], geometry: Geometry) -> Answers:
        """People that reach the threshold, the best first, with all of their points. `tensors` is one, of real values."""
        people = self.people(tensors[0]).best(self._config.score_threshold, self._config.max_results)
        places = np.clip(geometry.to_frame(people.points), geometry.seen[:2], geometry.seen[2:])
        scores = np.clip(people.scores, 0.0, 1.0)
        keypoints = tuple(
            Keypoint(name, float(x), float(y), float(score), number if self.several else None)
            for number, (person, each) in enumerate(zip(places, scores, strict=True))
            for name, (x, y), score in zip(self.names, person, each, strict=True)
        )
        return Answers(detections=_detections(people, geometry), keypoints=keypoints, doubt=_doubt(tensors[0], people))

    def people(self, output: Tensor) -> People:
        """All that the output [1, 1, k, 3] or [1, n, 3k + 5] holds, empty places of it too."""
        rows = output.reshape(-1, output.size if not self.several else output.shape[-1]).astype(np.float64)
        points = rows[:, : OF_A_POINT * len(self.names)].reshape(len(rows), -1, OF_A_POINT)
        places, scores = points[..., [1, 0]], points[..., 2]
        if not self.several:
            return People(places, scores, scores.mean(axis=1))
        ymin, xmin, ymax, xmax, worth = rows[:, -OF_A_BOX:].T
        return People(places, scores, worth, np.stack([xmin, ymin, xmax, ymax], axis=1))

    def same_answer(self, expected: Sequence[Tensor], got: Sequence[Tensor], tolerances: Sequence[float]) -> str | None:
        """Each person beyond doubt, on either side, has one on the other with the same score, box and visible points."""
        before, after = self.people(expected[0]), self.people(got[0])
        missing = self._unmatched(before, after, tolerances[0])
        if missing is not None:
            return f"the host's person of score {missing:.3f} is missing, or is seen otherwise"
        added = self._unmatched(after, before, tolerances[0])
        if added is not None:
            return f"there is a person of score {added:.3f}, whom the host did not see, or not so"
        return None

    def _unmatched(self, these: People, those: People, tolerance: float) -> float | None:
        """The score of one of `these`, beyond doubt, who is none of `those`."""
        sure, others = these.best(self._config.score_threshold), those.best(self._config.score_threshold - tolerance)
        near = max(tolerance, SAME)
        for number in np.flatnonzero(sure.worth > self._config.score_threshold + tolerance):
            clear = sure.scores[number] > VISIBLE_SCORE + tolerance
            apart = np.linalg.norm(others.points[:, clear] - sure.points[number, clear], axis=-1)
            same = (apart <= near).all(axis=1) & (np.abs(others.worth - sure.worth[number]) <= near)
            if sure.boxes is not None and others.boxes is not None:
                same &= (np.abs(others.boxes - sure.boxes[number]) <= near).all(axis=1)
            if not same.any():
                return float(sure.worth[number])
        return None


def _detections(people: People, geometry: Geometry) -> tuple[Detection, ...] | None:
    """A box a person, cut to what the model saw; None of a model for one person."""
    if people.boxes is None:
        return None
    boxes, scores = visible(in_frame(people.boxes, geometry), geometry), np.clip(people.worth, 0.0, 1.0)
    return tuple(
        Detection(PERSON, 0, score, tuple(box)) for score, box in zip(scores.tolist(), boxes.tolist(), strict=True)
    )


def _doubt(output: Tensor, people: People) -> str | None:
    if not np.isfinite(output).all():
        return "the model's output is not a number (NaN); is the recipe, or the model, broken?"
    furthest = float(np.max(np.abs(people.points), initial=0.0))
    if furthest > FAR:
        return f"points are at up to {furthest:.4g} times the input's side; are they pixels? fractions are wanted"
    return None


def _only_output(facts: ModelFacts) -> TensorSpec:
    """Raise ModelError where it is no output of MoveNet's, or has other points than there are labels."""
    spec = facts.outputs[0] if len(facts.outputs) == 1 else None
    points = _points(spec) if spec else None
    if spec and points == len(facts.labels or KEYPOINTS):
        return spec
    if spec and points == len(KEYPOINTS) and facts.labels:
        raise ModelError(
            f"{facts.labels_source} has {len(facts.labels)} labels; output '{spec.name}' has {points} points, which have names"
            " without it",
            key="model.labels",
        )
    listed = ", ".join(map(str, facts.outputs))
    raise ModelError(
        "a pose model has one output, as MoveNet has it: of one person [1, 1, points, 3], or of several"
        f" [1, people, 3 * points + 5], with 17 points, or as many as there are labels; this model has {listed}",
        key="task.type",
    )


def _points(spec: TensorSpec) -> int | None:
    """How many points an output has; None where it is no output of a pose model."""
    shape = spec.shape
    if not (spec.quantized or spec.dtype in ("float32", "float16")) or shape[:1] != (1,):
        return None
    if len(shape) == 4 and shape[1] == 1 and shape[3] == OF_A_POINT:
        return shape[2]
    if (
        len(shape) == 3
        and 0 < shape[1] <= PEOPLE_MOST
        and shape[2] > OF_A_BOX
        and (shape[2] - OF_A_BOX) % OF_A_POINT == 0
    ):
        return (shape[2] - OF_A_BOX) // OF_A_POINT
    return None
