"""Segmentation: the class of every part of the frame, from whatever form the model gives it in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from edge_runner.errors import ModelError, SettingError
from edge_runner.frame import Ending, Geometry, Region, Tensor, TensorSpec
from edge_runner.model.preprocess import Preprocessor, Recipe
from edge_runner.result import Answers, Mask
from edge_runner.task import TASKS
from edge_runner.task.base import ModelFacts
from edge_runner.task.masks import MANY_CLASSES
from edge_runner.task.segment import CHANGED_MOST, SegmentConfig, Segmenter

pytestmark = pytest.mark.arm

LABELS = ("background", "cat", "dog")
SQUARE = Geometry(640, 640)
VOID = 255


def task(
    *shape: int,
    dtype: str = "float32",
    labels: Sequence[str] | None = LABELS,
    ending: str = "CONV_2D",
    scale: float = 0.0,
    size: tuple[int, int] | None = None,
    **keys: Any,
) -> Segmenter:
    spec = TensorSpec("map", shape or (1, 8, 8, 3), dtype, scale)
    facts = ModelFacts((spec,), (Ending(ending),), tuple(labels) if labels else None, "labels.txt", size)
    return Segmenter(SegmentConfig(**keys), facts)


def logits(classes: Tensor, count: int = 3, lead: float = 4.0) -> Tensor:
    """Scores [1, height, width, count] whose best class is the one in `classes`."""
    return (np.eye(count, dtype=np.float32)[classes] * np.float32(lead))[np.newaxis]


def squares(*classes: int, side: int = 4) -> Tensor:
    """A map of squares beside each other."""
    return np.repeat(np.array([classes]), side, axis=1).repeat(side, axis=0)


def seen_as(resize: str, frame: tuple[int, int], size: tuple[int, int], crop: Region | None = None) -> Geometry:
    """The geometry of a frame (width, height), or a region of it, as the recipe's preprocessor puts it into an input of `size`."""
    recipe = Recipe("rgb", (0.0,), (1.0,), resize=resize, layout="nhwc")  # type: ignore[arg-type]
    preprocessor = Preprocessor(recipe, TensorSpec("input", (1, size[1], size[0], 3), "float32"))
    picture = np.zeros((frame[1], frame[0], 3), np.uint8)
    return preprocessor(picture, np.empty(preprocessor.shape, preprocessor.dtype), crop)


def random_map(rows: int, columns: int, seed: int) -> Tensor:
    """A map of four classes."""
    return np.random.default_rng(seed).integers(0, 4, (rows, columns)).astype(np.uint8)


def test_it_is_a_task() -> None:
    """`task: {type: segment}` leads here."""
    assert TASKS["segment"] == "edge_runner.task.segment:Segmenter"


class TestForms:
    @pytest.mark.parametrize(
        ("shape", "dtype", "scale", "ending", "reading"),
        [
            ((1, 8, 6),    "int64",   0,       "ARG_MAX",           "class numbers"),
            ((1, 8, 6, 1), "int32",   0,       "ARG_MAX",           "class numbers"),
            ((1, 1, 8, 6), "uint8",   0,       "ARG_MAX",           "class numbers"),
            ((1, 8, 6),    "uint8",   1.0,     "ARG_MAX",           "class numbers"),
            ((1, 8, 6),    "uint8",   1.0,     "RESIZE_BILINEAR",   "class numbers"),
            ((1, 8, 6),    "float32", 0,       "ARG_MAX",           "class numbers"),
            ((1, 8, 6),    "bool",    0,       "GREATER",           "class numbers"),
            ((1, 8, 6),    "uint8",   0,       "LOGISTIC",          "class numbers"),
            ((1, 8, 6, 3), "float32", 0,       "RESIZE_BILINEAR",   "scores of 3 classes, nhwc"),
            ((1, 8, 6, 3), "int8",    0.1,     "CONV_2D",           "scores of 3 classes, nhwc"),
            ((1, 3, 8, 6), "uint8",   1 / 256, "SOFTMAX",           "scores of 3 classes, nchw"),
            ((1, 3, 8, 6), "float16", 0,       "CONV_2D",           "scores of 3 classes, nchw"),
        ],
    )  # fmt: skip
    def test_by_shape_type_and_operator(
        self, shape: tuple[int, ...], dtype: str, scale: float, ending: str, reading: str
    ) -> None:
        """What the cells hold is told from the output itself."""
        subject = task(*shape, dtype=dtype, scale=scale, ending=ending, size=(6, 8))
        assert subject.reading == reading
        assert subject.chosen == ((True,) if reading == "class numbers" else ())

    @pytest.mark.parametrize(
        ("dtype", "scale", "ending", "activation"),
        [
            ("float32", 0, "LOGISTIC", "none"),
            ("float32", 0, "CONV_2D", "sigmoid"),
            ("uint8", 1 / 256, "LOGISTIC", "none"),
            ("int8", 0.1, "CONV_2D", "sigmoid"),
        ],
    )
    @pytest.mark.parametrize("shape", [(1, 8, 6, 1), (1, 1, 8, 6), (1, 8, 6)])
    def test_one_channel(self, shape: tuple[int, ...], dtype: str, scale: float, ending: str, activation: str) -> None:
        """One channel of scores tells two classes apart; what is to be done to it, its last operator tells."""
        subject = task(*shape, dtype=dtype, scale=scale, ending=ending, labels=("background", "person"), size=(6, 8))
        assert subject.reading == f"one channel of two classes, activation {activation}"
        assert subject.decided == {"activation": activation}
        assert subject.chosen == ()
        middle = 0.5 if activation == "none" else 0.0
        values = np.full((1, 8, 6, 1), middle - 0.01, np.float32)
        values[0, :4] = middle
        found = subject.decode([values.reshape(shape)], Geometry(6, 8)).segments
        assert [(s.label, s.area) for s in found or ()] == [("background", 0.5), ("person", 0.5)]

    def test_one_channel_that_tells_nothing(self) -> None:
        """Where the operator does not say what the values are, the key is asked for, and then believed."""
        with pytest.raises(SettingError, match=r"RESIZE_BILINEAR, which does not say") as caught:
            task(1, 8, 8, 1, ending="RESIZE_BILINEAR", labels=None)
        assert caught.value.key == "task.activation"
        subject = task(1, 8, 8, 1, ending="RESIZE_BILINEAR", labels=None, activation="sigmoid")
        assert subject.reading.endswith("activation sigmoid")
        assert subject.decided == {}
        assert (
            task(1, 8, 8, 1, dtype="uint8", scale=0.1, ending="RESIZE_BILINEAR", labels=None, activation="none").form
            == "score"
        )

    def test_softmax_of_one_channel(self) -> None:
        """A softmax over a single channel would be 1 everywhere, and is refused."""
        with pytest.raises(SettingError, match="softmax is 1 everywhere") as caught:
            task(1, 8, 8, 1, labels=None, activation="softmax")
        assert caught.value.key == "task.activation"

    @pytest.mark.parametrize("activation", ["auto", "none", "softmax", "sigmoid"])
    def test_the_best_class_is_the_best_before_and_after(self, activation: str) -> None:
        """Of a channel a class, the largest is the class, whatever activation would follow."""
        classes = squares(2, 0, 1)
        subject = task(1, 4, 12, 3, activation=activation, ending="RESIZE_BILINEAR")
        assert np.array_equal(subject.classes(logits(classes))[0], classes)

    @pytest.mark.parametrize(
        ("shape", "dtype", "scale"),
        [
            ((1, 21), "float32", 0),
            ((8, 8, 3), "float32", 0),
            ((2, 8, 8, 3), "float32", 0),
            ((1, 8, 8, 3), "int32", 0),
            ((1, 8, 8, 3), "uint8", 0),
            ((1, 8, 8), "int8", 0),
            ((1, 10, 4), "float32", 0),
            ((1, 2, 17, 3), "float32", 0),
            ((1, 40, 8), "int64", 0),
            ((1, 1, 8, 8, 3), "float32", 0),
            ((), "float32", 0),
        ],
    )
    def test_what_is_no_map(self, shape: tuple[int, ...], dtype: str, scale: float) -> None:
        """An output of another shape, type or proportion is refused, with what it is and what there could be."""
        spec = TensorSpec("found", shape, dtype, scale)
        with pytest.raises(ModelError, match=rf"This model has 'found' {dtype} \[") as caught:
            Segmenter(SegmentConfig(), ModelFacts((spec,), (Ending("CONV_2D"),), None, "", (64, 64)))
        assert str(list(shape)) in str(caught.value)
        assert "[1, height, width, classes]" in str(caught.value)
        assert caught.value.key == "task.type"

    @pytest.mark.parametrize("count", [0, 2])
    def test_number_of_outputs(self, count: int) -> None:
        """A model with more outputs than one is no segmenter; all are listed."""
        outputs = tuple(TensorSpec(f"out{n}", (1, 8, 8, 3), "float32") for n in range(count))
        with pytest.raises(ModelError, match="a segmenter has one output") as caught:
            Segmenter(SegmentConfig(), ModelFacts(outputs, (Ending("CONV_2D"),) * count, None, ""))
        assert all(f"'out{n}' float32 [1, 8, 8, 3]" in str(caught.value) for n in range(count))


class TestLayout:
    @pytest.mark.parametrize(
        ("shape", "labels", "size", "layout"),
        [
            ((1, 257, 257, 21), 0,  None,       "nhwc"),  # fewer channels than rows
            ((1, 21, 257, 257), 0,  None,       "nchw"),
            ((1, 32, 32, 150),  0,  (512, 512), "nhwc"),  # the input's proportions, though there are more channels than rows
            ((1, 150, 32, 32),  0,  (512, 512), "nchw"),
            ((1, 6, 8, 6),      6,  (640, 480), "nhwc"),  # [8, 6] would stand upright
            ((1, 20, 20, 19),   20, None,       "nchw"),  # a channel a label
            ((1, 20, 20, 19),   19, None,       "nhwc"),
            ((1, 20, 20, 19),   19, (300, 300), "nhwc"),
        ],
    )  # fmt: skip
    def test_auto(self, shape: tuple[int, ...], labels: int, size: tuple[int, int] | None, layout: str) -> None:
        """`auto` finds the channels by the input's proportions, the labels and the smaller number, in this order."""
        subject = task(*shape, labels=[f"label{n}" for n in range(labels)], size=size)
        assert subject.layout == layout
        assert subject.decided == {"layout": layout}

    @pytest.mark.parametrize(("labels", "size"), [(None, None), (["a"] * 3, (64, 64)), (["a"] * 8, (64, 64))])
    def test_both_fit(self, labels: list[str] | None, size: tuple[int, int] | None) -> None:
        """Where both layouts fit as well, neither is guessed, and the key settles it."""
        with pytest.raises(SettingError, match=r"'map' \[1, 8, 8, 8\] cannot be told .* set nhwc or nchw") as caught:
            task(1, 8, 8, 8, labels=labels, size=size)
        assert caught.value.key == "task.layout"
        values = np.zeros((1, 8, 8, 8), np.float32)
        values[0, 5, :, :] = values[0, :, :, 2] = 1.0
        values[0, :, :, 2] = 2.0
        by_layout = {layout: task(1, 8, 8, 8, labels=None, layout=layout) for layout in ("nhwc", "nchw")}
        assert (by_layout["nhwc"].classes(values)[0] == 2).all()
        assert (by_layout["nchw"].classes(values)[0][:, 3] == 5).all()
        assert all(subject.decided == {} for subject in by_layout.values())

    @pytest.mark.parametrize("number", [2, 4])
    def test_labels_that_do_not_fit(self, number: int) -> None:
        """Labels of another number than the channels are refused with both numbers."""
        for shape in ((1, 20, 20, 3), (1, 3, 20, 20)):
            with pytest.raises(ModelError, match=f"has {number} labels; output 'map' has 3 classes") as caught:
                task(*shape, labels=["a"] * number)
            assert caught.value.key == "model.labels"

    def test_one_label_for_one_channel(self) -> None:
        """One channel tells two classes apart; the hint says which label is missing."""
        with pytest.raises(
            ModelError, match=r"has 1 labels; output 'map' has 2 classes; .* 'background' as a first line"
        ):
            task(1, 8, 8, 1, labels=["person"])


class TestDecode:
    def decode(self, classes: Tensor, geometry: Geometry = SQUARE, **keys: Any) -> Answers:
        return task(1, *classes.shape, 3, **keys).decode([logits(classes)], geometry)

    def areas(self, answers: Answers) -> list[tuple[str, int, float]]:
        return [(s.label, s.index, s.area) for s in answers.segments or ()]

    def test_largest_first(self) -> None:
        """Classes come with label, number and area, the largest first, and those that are not there do not come."""
        found = self.decode(squares(0, 2, 2, 2))
        assert self.areas(found) == [("dog", 2, 0.75), ("background", 0, 0.25)]
        assert found.doubt is None
        assert found.detections is found.keypoints is found.classifications is None

    def test_equal_ones_by_number(self) -> None:
        """Of equal areas the lower number comes first, though their sums are rounded differently."""
        for side in (5, 7, 11, 13):
            assert [s.index for s in self.decode(squares(2, 0, 1, side=side)).segments or ()] == [0, 1, 2]

    def test_least_area(self) -> None:
        """A class that covers as much as asked for is kept, one that covers less is not."""
        found = self.decode(squares(0, 0, 1, 2), min_area=0.25)
        assert len(found.segments or ()) == 3
        assert self.areas(self.decode(squares(0, 0, 1, 2), min_area=0.26)) == [("background", 0, 0.5)]

    def test_allow_and_deny(self) -> None:
        """Only labels that are allowed and not denied are listed; the mask keeps all of them."""
        classes = squares(0, 0, 1, 2)
        assert self.areas(self.decode(classes, deny=("background",))) == [("cat", 1, 0.25), ("dog", 2, 0.25)]
        found = self.decode(classes, allow=("cat", "dog"), deny=("dog",))
        assert self.areas(found) == [("cat", 1, 0.25)]
        assert found.mask is not None
        assert np.array_equal(found.mask.classes, classes)
        assert self.areas(self.decode(classes, deny=LABELS)) == []

    @pytest.mark.parametrize("key", ["allow", "deny"])
    @pytest.mark.parametrize("shape", [(1, 4, 4, 3), (1, 4, 4)])
    def test_unknown_label(self, key: str, shape: tuple[int, ...]) -> None:
        """A label that the model does not have is refused, with the one that was probably meant."""
        with pytest.raises(SettingError, match="no label 'catt'; did you mean 'cat'") as caught:
            task(*shape, dtype="float32" if len(shape) == 4 else "int64", **{key: ("catt",)})
        assert caught.value.key == f"task.{key}"

    def test_without_labels(self) -> None:
        """A class without a label is called by its number, also of an argmax whose classes nobody counted."""
        assert self.areas(self.decode(squares(2), labels=None)) == [("2", 2, 1.0)]
        subject = task(1, 4, 8, dtype="int64", labels=None, ending="ARG_MAX", deny=("0",))
        found = subject.decode([squares(0, 300)[np.newaxis]], SQUARE)
        assert self.areas(found) == [("300", 300, 0.5)]
        assert found.doubt is None

    def test_beyond_the_labels(self) -> None:
        """A class beyond the labels is called by its number, and doubted; where labels are allowed, it is not."""
        for keys, expected in (({}, [("cat", 1, 0.5), ("7", 7, 0.5)]), ({"allow": ("cat",)}, [("cat", 1, 0.5)])):
            subject = task(1, 4, 8, dtype="int64", ending="ARG_MAX", **keys)
            found = subject.decode([squares(1, 7)[np.newaxis]], SQUARE)
            assert self.areas(found) == expected
            assert found.doubt == "the model finds class 7, but labels.txt has labels up to 2 only"

    def test_layouts_agree(self) -> None:
        """The same scores in either layout give the same answers."""
        output = np.random.default_rng(5).normal(size=(1, 16, 16, 3)).astype(np.float32)
        geometry = Geometry.between((200, 100), Region(20, 10, 100, 80), (16, 16), Region(0, 2, 16, 12))
        last = task(1, 16, 16, 3, mask="frame").decode([output], geometry)
        first = task(1, 3, 16, 16, mask="frame").decode([output.transpose(0, 3, 1, 2).copy()], geometry)
        assert first == last
        assert first.mask is not None
        assert last.mask is not None
        assert first.mask.png == last.mask.png

    @pytest.mark.parametrize("resize", ["stretch", "letterbox", "crop"])
    @pytest.mark.parametrize("crop", [None, Region(60, 20, 160, 80)])
    def test_what_the_model_saw_is_where_it_is(self, resize: str, crop: Region | None) -> None:
        """A thing's pixels in the frame are its pixels in the mask, within a cell, and as many as its area says."""
        picture = np.zeros((200, 320, 3), np.uint8)
        picture[50:90, 100:200] = 255
        recipe = Recipe("rgb", (0.0,), (255.0,), resize=resize, interpolation="nearest", pad=0)  # type: ignore[arg-type]
        preprocessor = Preprocessor(recipe, TensorSpec("input", (1, 96, 96, 3), "float32"))
        seen = np.empty(preprocessor.shape, preprocessor.dtype)
        geometry = preprocessor(picture, seen, crop)
        subject = task(1, 96, 96, 1, labels=("background", "white"), ending="LOGISTIC", mask="frame", size=(96, 96))
        answers = subject.decode([seen[..., :1].copy()], geometry)
        assert answers.mask is not None
        mask = answers.mask.classes
        cell = [np.ceil(s * side / 96) for s, side in zip(geometry.scale, (320, 200), strict=True)]
        rows, columns = np.nonzero(mask == 1)
        x0, y0, x1, y1 = np.array(geometry.seen) * [320, 200, 320, 200]
        assert abs(columns.min() - max(100, x0)) <= cell[0]
        assert abs(columns.max() + 1 - min(200, x1)) <= cell[0]
        assert abs(rows.min() - max(50, y0)) <= cell[1]
        assert abs(rows.max() + 1 - min(90, y1)) <= cell[1]
        in_sight = (min(200, x1) - max(100, x0)) * (min(90, y1) - max(50, y0)) / (320 * 200)
        white = {s.label: s.area for s in answers.segments or ()}["white"]
        assert white == pytest.approx((mask == 1).mean(), abs=0.01)
        assert white == pytest.approx(in_sight, abs=0.01)


class TestDoubt:
    @pytest.mark.parametrize("count", [2, 3, MANY_CLASSES])
    def test_not_a_number(self, count: int) -> None:
        """NaN is told, and is no class; what is a number stays one."""
        output = logits(squares(1, 0), count)
        output[0, 0, 0, 0] = np.nan
        for values, shape in ((output, output.shape), (output.transpose(0, 3, 1, 2).copy(), (1, count, 4, 8))):
            found = task(*shape, labels=None, layout="nhwc" if values is output else "nchw").decode([values], SQUARE)
            assert "NaN" in str(found.doubt)
            assert found.mask is not None
            assert found.mask.classes[0, 0] == VOID
            assert (found.mask.classes == VOID).sum() == 1
            assert sum(s.area for s in found.segments or ()) == pytest.approx(31 / 32)

    def test_not_a_number_in_one_channel(self) -> None:
        """The same of one channel; nothing but NaN is no class at all."""
        found = task(1, 4, 4, 1, labels=None).decode([np.full((1, 4, 4, 1), np.nan, np.float32)], SQUARE)
        assert found.segments == ()
        assert "NaN" in str(found.doubt)

    @pytest.mark.parametrize(("low", "high"), [(-3, 7), (-3, 1), (0, 7)])
    def test_logits_taken_for_scores(self, low: float, high: float) -> None:
        """Values far outside 0..1 that are taken for scores are told, with the key that mends it."""
        output = np.linspace(low, high, 16, dtype=np.float32).reshape(1, 4, 4, 1)
        found = task(1, 4, 4, 1, labels=None, activation="none").decode([output], SQUARE)
        assert found.doubt == f"scores from {low} to {high} are no scores of 0..1; set task.activation to sigmoid"
        assert task(1, 4, 4, 1, labels=None, activation="sigmoid").decode([output], SQUARE).doubt is None

    def test_scores_are_believed(self) -> None:
        """Scores of 0..1, rounding or not, raise no doubt."""
        output = np.array([[0.0, 1.004], [-0.003, 0.5]], np.float32).reshape(1, 2, 2, 1)
        assert task(1, 2, 2, 1, labels=None, ending="LOGISTIC").decode([output], SQUARE).doubt is None


class TestSameAnswer:
    SIDE = 40

    def maps(self, changed: int) -> tuple[Tensor, Tensor]:
        """Two maps that differ in so many of 1600 cells."""
        before = np.zeros((self.SIDE, self.SIDE), int)
        after = before.copy()
        after.flat[:changed] = 1
        return before, after

    MOST = round(CHANGED_MOST * SIDE**2)

    @pytest.mark.parametrize(("changed", "same"), [(0, True), (MOST, True), (MOST + 1, False), (800, False)])
    def test_so_many_cells_may_differ(self, changed: int, same: bool) -> None:
        """Of scores and of class numbers, so many cells may have another class, and no more; the share is said."""
        before, after = self.maps(changed)
        forms: list[tuple[Segmenter, Tensor, Tensor]] = [
            (task(1, 40, 40, 3), logits(before), logits(after)),
            (task(1, 3, 40, 40), *(logits(m).transpose(0, 3, 1, 2).copy() for m in (before, after))),  # type: ignore[list-item]
            (task(1, 40, 40, dtype="int64"), before[np.newaxis], after[np.newaxis]),
            (task(1, 40, 40, 1, labels=None), before[np.newaxis] * 4.0 - 2, after[np.newaxis] * 4.0 - 2),
        ]
        for subject, expected, got in forms:
            why = subject.same_answer([expected], [got], [0.1])
            assert (why is None) == same, subject.reading
            if not same:
                assert (
                    why == f"{changed / 1600:.1%} of the map's cells have another class than the host's; allowed 0.5%"
                )

    @pytest.mark.parametrize(("lead", "same"), [(0.09, True), (0.11, False)])
    def test_too_close_to_call(self, lead: float, same: bool) -> None:
        """Cells in which the host's class leads by less than the tolerance prove nothing."""
        before, after = self.maps(1600)
        for layout, shape in (("nhwc", (1, 40, 40, 3)), ("nchw", (1, 3, 40, 40))):
            expected, got = logits(before, lead=lead), logits(after)
            if layout == "nchw":
                expected, got = (m.transpose(0, 3, 1, 2).copy() for m in (expected, got))
            assert (task(*shape).same_answer([expected], [got], [0.1]) is None) == same
        one = task(1, 40, 40, 1, labels=None)
        off = np.full((1, 40, 40, 1), 1.0, np.float32)
        assert (one.same_answer([off * lead], [-off], [0.1]) is None) == same

    def test_the_lead_is_over_the_class_that_came(self) -> None:
        """What counts is how far the host's class led the one that came instead, not the second best."""
        expected = np.tile(np.array([1.0, 0.95, 0.0], np.float32), (1, 40, 40, 1))
        second, third = (np.tile(np.array(row, np.float32), (1, 40, 40, 1)) for row in ([0, 1, 0], [0, 0, 1]))
        assert task(1, 40, 40, 3).same_answer([expected], [second], [0.1]) is None
        assert task(1, 40, 40, 3).same_answer([expected], [third], [0.1]) is not None

    def test_real_values_are_rounded(self) -> None:
        """Class numbers that were quantised are compared as whole numbers."""
        subject = task(1, 4, 8, dtype="uint8", scale=1.0, ending="ARG_MAX")
        assert subject.same_answer([squares(0, 1)[np.newaxis]], [squares(0, 1)[np.newaxis] + 0.2], [0]) is None

    def test_not_a_number(self) -> None:
        """Where the host had a class and there is NaN, it is another answer."""
        for subject, expected in (
            (task(1, 40, 40, 3), logits(np.zeros((40, 40), int))),
            (task(1, 40, 40, 1, labels=None), np.ones((1, 40, 40, 1))),
        ):
            assert subject.same_answer([expected], [expected * np.nan], [9.0]) is not None
            assert subject.same_answer([expected * np.nan], [expected * np.nan], [9.0]) is None


def test_results_do_not_depend_on_the_tensors_afterwards() -> None:
    """Areas and PNG are values of their own, whatever becomes of the tensors."""
    output = squares(0, 1)[np.newaxis].astype(np.uint8)
    found = task(1, 4, 8, dtype="uint8", ending="ARG_MAX", mask="model").decode([output], SQUARE)
    before = found.mask.png if isinstance(found.mask, Mask) else None
    output[:] = 2
    assert [s.index for s in found.segments or ()] == [0, 1]
    assert before == found.mask.png  # type: ignore[union-attr]
