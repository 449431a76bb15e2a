"""Classification: from one output to labels with scores."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from edge_runner.errors import ModelError, SettingError
from edge_runner.frame import Ending, Geometry, TensorSpec
from edge_runner.result import Answers, Classification
from edge_runner.task import draw
from edge_runner.task.base import ModelFacts
from edge_runner.task.classify import Classify, ClassifyConfig
from edge_runner.task.scores import ACTIVATION_AFTER, activate

pytestmark = pytest.mark.arm

LABELS = ("ant", "bee", "cat", "dog")
WHERE = Geometry(640, 480)


def task(
    classes: int = 4, ending: str = "SOFTMAX", labels: Sequence[str] | None = LABELS, shape: Any = None, **settings: Any
) -> Classify:
    spec = TensorSpec("scores", shape or (1, classes), "float32")
    facts = ModelFacts((spec,), (Ending(ending),), tuple(labels) if labels else None, "labels.txt")
    return Classify(ClassifyConfig(**settings), facts)


def answers(subject: Classify, *values: float) -> list[tuple[str, int, float]]:
    found = subject.decode([np.array([values], np.float32)], WHERE).classifications
    assert found is not None
    return [(c.label, c.index, round(c.score, 4)) for c in found]


class TestOrder:
    def test_best_first(self) -> None:
        """The best classes come first, five at most."""
        assert answers(task(), 0.1, 0.4, 0.2, 0.3) == [
            ("bee", 1, 0.4),
            ("dog", 3, 0.3),
            ("cat", 2, 0.2),
            ("ant", 0, 0.1),
        ]
        assert len(answers(task(classes=9, labels=None), *[0.1] * 9)) == 5

    def test_ties_by_index(self) -> None:
        """Of equal scores the lower index comes first, on every machine."""
        assert [index for _, index, _ in answers(task(), 0.25, 0.25, 0.25, 0.25)] == [0, 1, 2, 3]
        many = task(classes=1000, labels=None, max_results=1000)
        assert [index for _, index, _ in answers(many, *([0.5, 0.7] * 500))] == [*range(1, 1000, 2), *range(0, 1000, 2)]

    @pytest.mark.parametrize("most", [1, 2, 4, 100])
    def test_max_results(self, most: int) -> None:
        """No more answers than asked for."""
        assert len(answers(task(max_results=most), 0.1, 0.4, 0.2, 0.3)) == min(most, 4)

    def test_ones_between(self) -> None:
        """An output of [1, 1, 1, classes] is one of [1, classes]."""
        subject = task(shape=(1, 1, 1, 4))
        found = subject.decode([np.array([0.1, 0.4, 0.2, 0.3], np.float32).reshape(1, 1, 1, 4)], WHERE)
        assert found.classifications is not None
        assert found.classifications[0] == Classification("bee", 1, pytest.approx(0.4))

    def test_without_labels(self) -> None:
        """A class without a label is called by its index."""
        assert answers(task(classes=3, labels=None), 0, 0, 1)[0] == ("2", 2, 1.0)


class TestWhichAreKept:
    def test_threshold(self) -> None:
        """A score that reaches the threshold is kept, one below is not."""
        assert answers(task(score_threshold=0.25), 0.25, 0.5, 0.2, 0.05) == [("bee", 1, 0.5), ("ant", 0, 0.25)]
        assert answers(task(score_threshold=0.9), 0.25, 0.5, 0.2, 0.05) == []

    def test_everything_by_default(self) -> None:
        """Without a threshold, even a score of zero is an answer."""
        assert len(answers(task(), 1, 0, 0, 0)) == 4

    def test_allow(self) -> None:
        """Only the labels that are allowed are kept; the others do not use up places."""
        assert answers(task(allow=("ant", "cat"), max_results=2), 0.1, 0.5, 0.2, 0.2) == [
            ("cat", 2, 0.2),
            ("ant", 0, 0.1),
        ]

    def test_deny(self) -> None:
        """Labels that are denied are dropped, even where they are allowed too."""
        assert [label for label, *_ in answers(task(deny=("bee",)), 0.1, 0.5, 0.2, 0.2)] == ["cat", "dog", "ant"]
        assert [label for label, *_ in answers(task(allow=("bee", "cat"), deny=("bee",)), 0.1, 0.5, 0.2, 0.2)] == [
            "cat"
        ]

    def test_label_thresholds(self) -> None:
        """A label's own threshold stands in the place of the general one, above or below it."""
        subject = task(score_threshold=0.3, label_thresholds={"bee": 0.6, "ant": 0.05})
        assert [label for label, *_ in answers(subject, 0.1, 0.5, 0.1, 0.3)] == ["dog", "ant"]

    def test_left_out_stays_out(self) -> None:
        """A threshold of 0 does not bring back what is denied."""
        assert answers(task(deny=("ant",), label_thresholds={"ant": 0.0}), 1.0, 0, 0, 0)[0][0] == "bee"

    @pytest.mark.parametrize("key", ["allow", "deny", "label_thresholds"])
    def test_unknown_label(self, key: str) -> None:
        """A label that the model does not have is refused, with the one that was probably meant."""
        for name, hint in (("catt", r"did you mean 'cat'\?"), ("zebra", "it has ant, bee, cat, dog")):
            with pytest.raises(SettingError, match=f"no label '{name}'; {hint}") as caught:
                task(**{key: {name: 0.5} if key == "label_thresholds" else (name,)})
            assert caught.value.key == f"task.{key}"


class TestActivation:
    @pytest.mark.parametrize(
        ("ending", "expected"),
        [
            ("SOFTMAX", "none"), ("LOGISTIC", "none"), ("LOG_SOFTMAX", "softmax"), ("FULLY_CONNECTED", "softmax"),
            ("CONV_2D", "softmax"), ("DEPTHWISE_CONV_2D", "softmax"), ("BATCH_MATMUL", "softmax"), ("ADD", "softmax"),
            ("MEAN", "softmax"), ("AVERAGE_POOL_2D", "softmax"),
        ],
    )  # fmt: skip
    def test_auto(self, ending: str, expected: str) -> None:
        """`auto` tells from the model's last operator what still has to be done."""
        assert task(ending=ending).activation == expected
        assert ending in ACTIVATION_AFTER

    def test_every_row_is_tested(self) -> None:
        """The table above has a row for each of the product's."""
        marks = self.test_auto.pytestmark  # type: ignore[attr-defined]
        assert {row[0] for row in marks[0].args[1]} == set(ACTIVATION_AFTER)

    @pytest.mark.parametrize("ending", ["FULLY_CONNECTED", "CONV_2D"])
    def test_auto_of_one_unit(self, ending: str) -> None:
        """One unit cannot be a softmax: its logit goes through a sigmoid."""
        assert task(classes=1, labels=("no", "yes"), ending=ending).activation == "sigmoid"

    @pytest.mark.parametrize("ending", ["MUL", "RELU", ""])
    def test_auto_where_it_cannot_tell(self, ending: str) -> None:
        """An operator that says nothing of its values is not guessed at: the key is asked for."""
        with pytest.raises(SettingError, match=r"set none .*softmax or sigmoid") as caught:
            task(ending=ending)
        assert caught.value.key == "task.activation"
        assert (ending or "(none)") in str(caught.value)
        assert task(ending=ending, activation="none").activation == "none"

    def test_values_never_decide(self) -> None:
        """Logits that look like scores are still logits."""
        found = answers(task(ending="FULLY_CONNECTED"), 0.1, 0.2, 0.3, 0.4)
        assert found[0] == ("dog", 3, round(float(np.exp(0.4) / np.exp([0.1, 0.2, 0.3, 0.4]).sum()), 4))

    def test_softmax(self) -> None:
        """Softmax against its definition, and where exp() would overflow."""
        values = np.array([1.0, 2.0, 3.0])
        assert np.allclose(activate(values, "softmax"), np.exp(values) / np.exp(values).sum())
        assert activate(np.array([1e4, 0.0]), "softmax").tolist() == [1.0, 0.0]
        assert np.allclose(activate(np.array([-1e4, -1e4]), "softmax"), [0.5, 0.5])

    def test_log_softmax_is_undone(self) -> None:
        """The scores of a model that ends in a log-softmax are its probabilities."""
        scores = np.array([0.7, 0.2, 0.05, 0.05])
        assert np.allclose(task(ending="LOG_SOFTMAX").scores(np.log(scores)), scores)

    def test_sigmoid(self) -> None:
        """Sigmoid against its definition, and where exp() would overflow; each class for itself."""
        values = np.array([-2.0, 0.0, 3.0])
        assert np.allclose(activate(values, "sigmoid"), 1 / (1 + np.exp(-values)))
        assert activate(np.array([-1e4, 1e4]), "sigmoid") == pytest.approx([0.0, 1.0])
        assert answers(task(activation="sigmoid"), 10, 10, 10, -10)[2] == ("cat", 2, 1.0)

    @pytest.mark.parametrize("activation", ["none", "softmax", "sigmoid"])
    def test_scores_within_0_and_1(self, activation: str) -> None:
        """Whatever the values, scores are within 0..1, rounding errors of a model included."""
        chance = np.random.default_rng(2)
        for spread in (1e-3, 1.0, 100.0, 1e30):
            scores = task(activation=activation).scores(chance.normal(0, spread, (1, 4)).astype(np.float32))
            assert scores.min() >= 0
            assert scores.max() <= 1
        assert answers(task(), 1.0000001, -1e-7, 0, 0)[0][2] == 1.0

    def test_broken_numbers_are_no_answer(self) -> None:
        """NaN out of a model is no class, and no crash."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert answers(task(), np.nan, np.nan, np.nan, np.nan) == []
            assert answers(task(activation="softmax"), np.nan, 1, 2, 3) == []


class TestBinary:
    @pytest.mark.parametrize(("ending", "value"), [("LOGISTIC", 0.8), ("FULLY_CONNECTED", float(np.log(4)))])
    def test_two_labels(self, ending: str, value: float) -> None:
        """One unit with two labels is the second label's score, and one minus that the first's."""
        subject = task(classes=1, labels=("cat", "dog"), ending=ending)
        assert subject.binary
        assert answers(subject, value) == [("dog", 1, 0.8), ("cat", 0, 0.2)]

    def test_one_label(self) -> None:
        """One unit with one label is that label's score."""
        assert answers(task(classes=1, labels=("smoke",), ending="LOGISTIC"), 0.3) == [("smoke", 0, 0.3)]

    @pytest.mark.parametrize(
        ("ending", "before", "after", "same"),
        [
            ("LOGISTIC", 0.9, 0.6, True),
            ("LOGISTIC", 0.9, 0.4, False),
            ("LOGISTIC", 0.505, 0.4, True),
            ("FULLY_CONNECTED", 2.0, 0.3, True),
            ("FULLY_CONNECTED", 2.0, -0.3, False),
            ("FULLY_CONNECTED", -0.005, 0.3, True),
        ],
    )
    @pytest.mark.parametrize("labels", [("cat", "dog"), ("smoke",), None])
    def test_same_answer(
        self, ending: str, before: float, after: float, same: bool, labels: tuple[str, ...] | None
    ) -> None:
        """One unit answers otherwise when it is on the other side of the middle, and was not in doubt."""
        subject = task(classes=1, labels=labels, ending=ending)
        expected, got = ([np.array([[value]], np.float32)] for value in (before, after))
        assert (subject.same_answer(expected, got, [0.01]) is None) == same

    def test_keys_know_both_labels(self) -> None:
        """Thresholds hold for each of the two."""
        subject = task(classes=1, labels=("cat", "dog"), ending="LOGISTIC", label_thresholds={"cat": 0.5})
        assert answers(subject, 0.8) == [("dog", 1, 0.8)]


class TestLabels:
    @pytest.mark.parametrize(
        ("labels", "hint"),
        [
            (LABELS[:3], "probably has a background row: try 'background' as a first line"),
            (("background", *LABELS), "probably no class for the first line, 'background'"),
            ((*LABELS, "Background"), "probably no class for the last line, 'background'"),
            ((*LABELS, "emu"), "a line is missing, or one too many"),
            (("background", *LABELS[:2]), "a line is missing, or one too many"),
            (LABELS[:2], "another model's file"),
            (LABELS * 2, "another model's file"),
        ],
    )
    def test_number(self, labels: tuple[str, ...], hint: str) -> None:
        """Labels that do not fit are refused with both numbers, and with what probably happened."""
        with pytest.raises(ModelError) as caught:
            task(labels=labels)
        assert str(caught.value).startswith(f"labels.txt has {len(labels)} labels; output 'scores' has 4 classes; ")
        assert hint in str(caught.value)
        assert (caught.value.key, caught.value.exit_code) == ("model.labels", 78)

    def test_three_labels_for_one_unit(self) -> None:
        """One unit serves one label or two."""
        with pytest.raises(ModelError, match="has 3 labels; output 'scores' has 1 classes"):
            task(classes=1, labels=LABELS[:3], ending="LOGISTIC")


class TestOutputs:
    @pytest.mark.parametrize("shape", [(2, 4), (1, 8, 8, 4), (1, 4, 2), ()])
    def test_shape(self, shape: tuple[int, ...]) -> None:
        """An output that is no row of classes is refused, and shown."""
        facts = ModelFacts((TensorSpec("boxes", shape, "float32"),), (Ending("SOFTMAX"),), None, "")
        with pytest.raises(ModelError, match=r"one output of \[1, classes\]; this model has 'boxes' float32") as caught:
            Classify(ClassifyConfig(), facts)
        assert caught.value.key == "task.type"
        assert str(list(shape)) in str(caught.value)

    @pytest.mark.parametrize("count", [0, 2])
    def test_number(self, count: int) -> None:
        """A model with more outputs than one is no classifier; all are listed."""
        outputs = tuple(TensorSpec(f"out{n}", (1, 4), "float32") for n in range(count))
        with pytest.raises(ModelError, match="a classifier has one output") as caught:
            Classify(ClassifyConfig(), ModelFacts(outputs, (Ending("SOFTMAX"),) * count, None, ""))
        assert all(f"'out{n}' float32 [1, 4]" in str(caught.value) for n in range(count))


class TestSameAnswer:
    def compare(self, expected: list[float], got: list[float], tolerance: float = 0.1) -> str | None:
        return task().same_answer([np.array([expected])], [np.array([got])], [tolerance])

    def test_same(self) -> None:
        """The same best class is the same answer, whatever its score."""
        assert self.compare([0.1, 0.6, 0.2, 0.1], [0.2, 0.4, 0.2, 0.2]) is None

    def test_another(self) -> None:
        """Another best class is another answer, where the lead was beyond the tolerance."""
        assert self.compare([0.1, 0.6, 0.2, 0.1], [0.1, 0.2, 0.6, 0.1]) == "the answer is 'cat', the host's was 'bee'"

    def test_too_close_to_call(self) -> None:
        """A lead within the tolerance proves nothing."""
        assert self.compare([0.1, 0.42, 0.38, 0.1], [0.1, 0.38, 0.42, 0.1]) is None


def test_draw() -> None:
    """The answers are written into the upper left corner; nothing found is written too."""
    for found in (Answers(classifications=(Classification("cat", 2, 0.98),)), Answers(classifications=())):
        picture = np.full((240, 320, 3), 90, np.uint8)
        draw.draw(picture, found)
        rows, columns = np.nonzero((picture != 90).any(axis=2))
        assert 0 < rows.max() < 60
        assert columns.min() < 20


class TestDoubt:
    @pytest.mark.parametrize("values", [(0.1, 0.9, 0.0, 0.0), (0.0, 1.004, 0.0, -0.003)])
    def test_scores_are_believed(self, values: tuple[float, ...]) -> None:
        """Scores of 0..1, rounding or not, raise no doubt."""
        assert task().decode([np.array([values], np.float32)], WHERE).doubt is None

    def test_not_a_number(self) -> None:
        """NaN is told, not passed over as an empty answer."""
        found = task().decode([np.array([[0.1, np.nan, 0.2, 0.3]], np.float32)], WHERE)
        assert found.doubt is not None
        assert "NaN" in found.doubt

    def test_logits_taken_for_scores(self) -> None:
        """Values far outside 0..1 that are taken for scores are told, with the key that mends it."""
        found = task(activation="none").decode([np.array([[7.0, -3.0, 0.2, 0.3]], np.float32)], WHERE)
        assert found.doubt == "scores from -3 to 7 are cut to 0..1; set task.activation to softmax or sigmoid"
