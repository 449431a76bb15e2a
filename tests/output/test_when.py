"""Which results an output gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from edge_runner.errors import SettingError
from edge_runner.output.when import Chooser, When
from edge_runner.pipeline import assemble
from edge_runner.result import Answers, Classification, Detection, Keypoint, RawTensor, Result, Segment
from edge_runner.settings import load_settings

Make = Callable[..., Result]
BOX = (0.1, 0.1, 0.2, 0.2)


def found(*things: tuple[str, float]) -> Answers:
    return Answers(detections=tuple(Detection(label, 0, score, BOX) for label, score in things))


def passed(when: When, results: Iterable[tuple[float, Result]]) -> list[int]:
    """The seq of those that are wanted, each of which is got."""
    chooser, seqs = Chooser(when), []
    for now, each in results:
        if chooser.wants(each, now):
            chooser.took(each)
            seqs.append(each.seq)
    return seqs


@pytest.fixture
def row(result: Make) -> Callable[..., list[tuple[float, Result]]]:
    """Results of one camera, half a second apart: each of the labels that a letter stands for, '' is nothing."""

    def make(*letters: str, step_s: float = 0.5, **fields: Any) -> list[tuple[float, Result]]:
        return [
            (100 + seq * step_s, result(seq=seq, answers=found(*((letter, 0.9) for letter in each)), **fields))
            for seq, each in enumerate(letters, 1)
        ]

    return make


class TestLabelsAndScores:
    def test_nothing_said_is_everything(self, row: Any) -> None:
        """Without a condition every result passes, empty ones too."""
        assert passed(When(), row("a", "", "b")) == [1, 2, 3]

    def test_labels(self, row: Any) -> None:
        """With labels, a result passes where any of its answers has one."""
        assert passed(When(labels=("a", "b")), row("a", "c", "cb", "")) == [1, 3]

    def test_min_score(self, result: Make) -> None:
        """A score that is the least passes; an empty result does not."""
        scores = [
            (0.0, result(seq=n, answers=found(*each))) for n, each in enumerate(([("a", 0.5)], [("a", 0.49)], []))
        ]
        assert passed(When(min_score=0.5), scores) == [0]

    def test_both_of_one_answer(self, result: Make) -> None:
        """It is one and the same answer that has the label and the score."""
        made = result(answers=found(("cat", 0.3), ("dog", 0.9)))
        assert passed(When(labels=("cat",), min_score=0.5), [(0, made)]) == []
        assert passed(When(labels=("dog",), min_score=0.5), [(0, made)]) == [made.seq]

    @pytest.mark.parametrize(
        ("answers", "label", "wanted"),
        [
            (Answers(classifications=(Classification("a", 0, 0.9), Classification("b", 1, 0.1))), "a", True),
            (Answers(classifications=(Classification("a", 0, 0.9), Classification("b", 1, 0.1))), "b", False),
            (Answers(classifications=()), "a", False),
            (Answers(segments=(Segment("a", 0, 0.7), Segment("b", 1, 0.3))), "b", True),
            (Answers(keypoints=(Keypoint("nose", 0, 0, 0.9),)), "nose", True),
            (Answers(detections=(Detection("person", 0, 0.9, BOX),), keypoints=(Keypoint("nose", 0, 0, 0.9, 0),)), "nose", False),
            (Answers(tensors=(RawTensor("a", (1,), "int8", (1,)),)), "a", False),
        ],
    )  # fmt: skip
    def test_what_has_labels(self, result: Make, answers: Answers, label: str, wanted: bool) -> None:
        """Of a classification the best counts; segments, boxes and the points of one person do; tensors have no label."""
        assert bool(passed(When(labels=(label,)), [(0, result(seq=1, answers=answers))])) is wanted

    def test_a_segments_area_is_its_score(self, result: Make) -> None:
        """A segment has no score: the part of the frame that it covers is held against the least."""
        made = result(seq=1, answers=Answers(segments=(Segment("road", 0, 0.3),)))
        assert passed(When(min_score=0.3), [(0, made)]) == [1]
        assert passed(When(min_score=0.31), [(0, made)]) == []


class TestInterval:
    def test_at_most_so_often(self, row: Any) -> None:
        """One result in the interval; the clock starts with one that passed."""
        assert passed(When(min_interval=1.0), row(*"aaaaaa")) == [1, 3, 5]
        assert passed(When(min_interval=1.0, labels=("a",)), row("b", "a", "a", "b", "a", "a")) == [2, 5]

    def test_cameras_apart(self, result: Make) -> None:
        """Each camera has an interval, and an answer, of its own."""
        both = [(n / 10, result(seq=n, camera=camera)) for n, camera in enumerate(("door", "gate", "door", "gate"))]
        assert passed(When(min_interval=60.0), both) == [0, 1]
        assert passed(When(changed=True), both) == [0, 1]


class TestChanged:
    def test_only_changes(self, row: Any) -> None:
        """The first result passes, and then each whose answer is another one; an empty answer is one too."""
        assert passed(When(changed=True, hold=0.0), row("", "", "a", "a", "b", "b", "")) == [1, 3, 5, 7]

    def test_numbers_count(self, row: Any) -> None:
        """One more of a label is a change, as is one less."""
        assert passed(When(changed=True, hold=0.0), row("a", "aa", "aa", "a")) == [1, 2, 4]

    def test_what_flickers_is_told_once(self, row: Any) -> None:
        """A label that comes and goes within the hold is there all the time: told when it comes, and when it has gone for good."""
        flicker = row("", "a", "", "a", "", "", "a", "", "", "", "", "", "")
        assert passed(When(changed=True, hold=2.0), flicker) == [1, 2, 12]

    def test_what_appears_is_told_at_once(self, row: Any) -> None:
        """The hold delays what goes, never what comes, not even where frames are rare."""
        assert passed(When(changed=True, hold=2.0), row("", "a", "", "", step_s=60.0)) == [1, 2, 4]

    def test_a_wavering_best_class(self, result: Make) -> None:
        """A classifier between two classes tells each of them once."""
        wavering = [
            (n * 0.1, result((best, 0.5), (other, 0.4), seq=n))
            for n, (best, other) in enumerate([("cat", "dog"), ("dog", "cat")] * 20)
        ]
        assert passed(When(changed=True), wavering) == [0, 1]

    def test_the_order_of_the_rest_does_not_matter(self, result: Make) -> None:
        """Of a classification the best label alone is the answer."""
        results = [(n * 10.0, result(("cat", 0.5 + n / 10), (other, 0.1), seq=n)) for n, other in enumerate("abc")]
        assert passed(When(changed=True), results) == [0]

    def test_of_some_labels(self, row: Any) -> None:
        """With labels, it is their coming and going that counts."""
        assert passed(When(changed=True, hold=0.0, labels=("a",)), row("b", "bc", "a", "ab", "b", "")) == [1, 3, 5]

    def test_of_good_scores(self, result: Make) -> None:
        """What is below the least score is not there."""
        results = [(n, result(seq=n, answers=found(("a", s)))) for n, s in enumerate((0.4, 0.3, 0.6, 0.7, 0.2))]
        assert passed(When(changed=True, hold=0.0, min_score=0.5), results) == [0, 2, 4]

    def test_within_the_interval_it_waits(self, row: Any) -> None:
        """A change too soon after a result is told when the interval is over, if it still is one."""
        assert passed(When(changed=True, hold=0.0, min_interval=2.0), row(*"abbbbbb")) == [1, 5]
        assert passed(When(changed=True, hold=0.0, min_interval=2.0), row(*"abaaaaa")) == [1]

    def test_heartbeat(self, row: Any) -> None:
        """Where nothing changes, a result passes now and then all the same: silence means trouble."""
        assert passed(When(changed=True, heartbeat=10.0), row(*"aaaaaaa", step_s=4.0)) == [1, 4, 7]
        assert passed(When(changed=True, heartbeat=0.0), row(*"aaaaaaa", step_s=4000.0)) == [1]


class TestInAConfiguration:
    def refused(self, path: Any) -> SettingError:
        with pytest.raises(SettingError) as caught:
            assemble(load_settings(path))
        return caught.value

    def test_a_label_that_cannot_be(self, configure: Any) -> None:
        """A label that no answer can have is refused, with the one that was probably meant."""
        error = self.refused(configure(outputs=[{"type": "console", "when": {"labels": ["red", "geen"]}}]))
        assert error.key == "outputs.0.when.labels"
        assert "no answer has the label 'geen'; did you mean 'green'?" in str(error)

    def test_a_label_that_the_task_leaves_out(self, configure: Any) -> None:
        """So is one that the task denies."""
        outputs = [{"type": "console"}, {"type": "console", "when": {"labels": ["red"]}}]
        error = self.refused(configure(task={"deny": ["red"]}, outputs=outputs))
        assert error.key == "outputs.1.when.labels"

    @pytest.mark.parametrize("when", [{"changed": True}, {"min_score": 0.5}])
    def test_a_task_without_labels(self, configure: Any, when: dict[str, Any]) -> None:
        """Tensors have neither labels nor scores: nothing would ever pass."""
        error = self.refused(configure(task={"type": "raw"}, outputs=[{"type": "console", "when": when}]))
        assert error.key == "outputs.0.when"
        assert "raw" in str(error)

    def test_an_interval_needs_no_labels(self, configure: Any) -> None:
        """Any task's results can come less often."""
        assemble(
            load_settings(
                configure(task={"type": "raw"}, outputs=[{"type": "console", "when": {"min_interval": "1s"}}])
            )
        )
