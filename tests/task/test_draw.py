"""Results on pictures: where they belong, and legible on any background."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runner.frame import Picture, Tensor
from edge_runner.result import Answers, Classification, Detection, Keypoint, Mask, RawTensor, Segment
from edge_runner.task import draw
from edge_runner.task.pose import KEYPOINTS

pytestmark = pytest.mark.arm

LEGIBLE = 4.5  # contrast of text, WCAG 2.2 success criterion 1.4.3
VISIBLE = 3.0  # and of lines, 1.4.11
SIZES = [(1, 1), (2, 3), (8, 8), (16, 400), (20, 4000), (4000, 20), (720, 1280)]
MARGIN, UNTOUCHED = 9, 77

GREYS = {"black": 0, "dark": 60, "grey": 128, "light": 190, "white": 255}


def noise(height: int, width: int) -> Picture:
    return np.random.default_rng(7).integers(0, 256, (height, width, 3)).astype(np.uint8)


def plain(height: int = 240, width: int = 320, level: int = 128) -> Picture:
    return np.full((height, width, 3), level, np.uint8)


BACKGROUNDS: dict[str, Callable[[int, int], Picture]] = {
    "noise": noise,
    **{name: lambda height, width, level=level: plain(height, width, level) for name, level in GREYS.items()},  # type: ignore[misc]
}


def contrast(one: Sequence[int], other: Sequence[int]) -> float:
    """The contrast ratio of two colours (blue, green, red), as WCAG defines it from the luminance of sRGB."""

    def luminance(color: Sequence[int]) -> float:
        parts = np.array(color[::-1], float) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, bright = sorted((luminance(one), luminance(other)))
    return (bright + 0.05) / (dark + 0.05)


def thing(label: str = "cat", index: int = 3, score: float = 0.5, box: Any = (0.25, 0.25, 0.75, 0.75)) -> Detection:
    return Detection(label, index, score, box)


def area(mask: Tensor) -> tuple[int, int, int, int]:
    """The rows and columns (first, one after the last) that a mask touches."""
    rows, columns = np.nonzero(mask)
    return int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1


def of(picture: Picture, color: Sequence[int]) -> Tensor:
    """Which pixels have just this colour."""
    return np.asarray((picture == np.array(color, np.uint8)).all(axis=2))


def body(person: int | None = None, score: float = 0.9, x: float = 0.5) -> tuple[Keypoint, ...]:
    """A figure with its arms along its sides; its right side is on the left of the picture."""
    offsets = {"left": 0.05, "right": -0.05}
    return tuple(
        Keypoint(name, x + offsets.get(name.split("_")[0], 0.0), 0.1 + 0.05 * number, score, person)
        for number, name in enumerate(KEYPOINTS)
    )


EVERYTHING = Answers(
    classifications=(Classification("cat", 2, 0.98), Classification("dog", 5, 0.02)),
    detections=(
        thing(),
        thing("person", 0, 0.9, (0.0, 0.0, 1.0, 1.0)),
        thing("a very long label " * 9, 7, 0.3, (0.9, 0.9, 0.95, 0.99)),
    ),
    segments=(Segment("background", 0, 0.6), Segment("cat", 1, 0.3), Segment("Gänseblümchen", 2, 0.1)),
    mask=Mask(np.array([[0, 1, 255], [2, 1, 0]], np.uint8)),
    keypoints=body(0) + body(1, x=1.0),
    tensors=(RawTensor("embedding", (1, 9), "float32", (0.5, None, 1.0) * 3),),
)
NOTHING = Answers(classifications=(), detections=(), segments=(), mask=EVERYTHING.mask, keypoints=(), tensors=())
KINDS = ["classifications", "detections", "segments", "keypoints", "tensors"]


def one_kind(kind: str, answers: Answers) -> Answers:
    mask = {"mask": answers.mask} if kind == "segments" else {}
    return Answers(**{kind: getattr(answers, kind)}, **mask)


class TestAnyPicture:
    @pytest.mark.parametrize("answers", [EVERYTHING, NOTHING], ids=["everything", "nothing"])
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("size", SIZES)
    def test_any_size(self, size: tuple[int, int], kind: str, answers: Answers) -> None:
        """No picture is too small, too wide or too high to be drawn on, and nothing is drawn beyond its edges."""
        canvas = np.full((size[0] + 2 * MARGIN, size[1] + 2 * MARGIN, 3), UNTOUCHED, np.uint8)
        draw.draw(canvas[MARGIN:-MARGIN, MARGIN:-MARGIN], one_kind(kind, answers))
        inner = canvas[MARGIN:-MARGIN, MARGIN:-MARGIN].copy()
        canvas[MARGIN:-MARGIN, MARGIN:-MARGIN] = UNTOUCHED
        assert (canvas == UNTOUCHED).all()
        if min(size) > 8:
            assert (inner != UNTOUCHED).any()

    @pytest.mark.parametrize("kind", KINDS)
    def test_whatever_is_set(self, kind: str) -> None:
        """Each kind of answers is drawn where it is set, and where there are none, that is written."""
        for answers in (one_kind(kind, EVERYTHING), one_kind(kind, NOTHING)):
            picture = plain()
            draw.draw(picture, answers)
            assert (picture != 128).any()
        written = plain()
        draw.lines(written, ["(nothing)"])
        assert np.array_equal(picture, written)

    def test_nobody_is_written_once(self) -> None:
        """Of a model that gives boxes and points, nothing is written once."""
        once, both = plain(), plain()
        draw.draw(once, Answers(detections=()))
        draw.draw(both, Answers(detections=(), keypoints=()))
        assert np.array_equal(once, both)

    def test_nothing_set(self) -> None:
        """Where no answers are set, the picture stays as it is."""
        picture = plain()
        draw.draw(picture, Answers())
        assert (picture == 128).all()

    @given(
        st.tuples(st.integers(1, 200), st.integers(1, 200)),
        st.lists(st.tuples(*[st.floats(0, 1, allow_subnormal=False)] * 4), max_size=6),
        st.text(max_size=40),
        st.integers(0, 100_000),
    )
    @settings(max_examples=100, deadline=None)
    def test_any_boxes(self, size: tuple[int, int], boxes: list[Any], label: str, index: int) -> None:
        """Boxes of any place and size, with labels of any letters, are drawn, and the labels are in the picture."""
        ordered = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in boxes]
        picture = plain(*size)
        draw.draw(picture, Answers(detections=tuple(thing(label, index, 0.5, box) for box in ordered)))
        plate, taken = draw._plate(picture, label), []
        for box in ordered:
            taken.append(draw._free_place(picture, draw._corners(picture, box), plate, taken))
            assert 0 <= taken[-1].x <= size[1] - taken[-1].width
            assert 0 <= taken[-1].y <= size[0] - taken[-1].height
            assert (taken[-1].width, taken[-1].height) == (min(plate.width, size[1]), min(plate.height, size[0]))


class TestColors:
    def test_text_stands_out(self) -> None:
        """Text on the colour of any class has at least the contrast that text needs."""
        papers = [*map(draw.color, range(500)), draw.GREY, *((n, n, n) for n in range(256))]
        assert min(contrast(draw.ink_on(paper), paper) for paper in papers) >= LEGIBLE  # type: ignore[arg-type]

    def test_classes_are_told_apart(self) -> None:
        """The colours of the first twelve classes are far from each other, and no two of a hundred are the same."""
        colors = np.array([draw.color(index) for index in range(100)], int)
        apart = [np.abs(a - b).sum() for a, b in combinations(colors[:12], 2)]
        assert min(apart) > 60
        assert len(set(map(tuple, colors.tolist()))) == 100

    def test_they_stay(self) -> None:
        """A class has the same colour in every picture and every version."""
        assert [draw.color(index) for index in (0, 1, 15)] == [(51, 51, 255), (255, 156, 115), (51, 255, 128)]


class TestDetections:
    @pytest.mark.parametrize("background", BACKGROUNDS)
    @pytest.mark.parametrize("index", [0, 3, 10, 14])
    def test_label_is_legible(self, background: str, index: int) -> None:
        """A label is text in black or white on a plate of the class's colour, the same on any background."""
        picture = BACKGROUNDS[background](360, 480)
        before = picture.copy()
        draw.detections(picture, [thing(index=index)])
        reference = plain(360, 480, 0)
        draw.detections(reference, [thing(index=index)])
        top, bottom, left, right = area(of(reference, draw.color(index)) & (np.arange(360) < 85)[:, None])
        plate = picture[top:bottom, left:right]
        assert np.array_equal(plate, reference[top:bottom, left:right])
        assert not np.array_equal(plate, before[top:bottom, left:right])
        inner = plate[1:-1, 1:-1].reshape(-1, 3).tolist()
        ratios = np.array([contrast(pixel, draw.color(index)) for pixel in inner])
        assert ratios.max() >= LEGIBLE
        assert 0.1 < (ratios >= VISIBLE).mean() < 0.5
        assert (ratios < 1.1).mean() > 0.3

    @pytest.mark.parametrize("level", GREYS.values())
    @pytest.mark.parametrize("index", range(12))
    def test_box_shows_on_any_background(self, index: int, level: int) -> None:
        """Across each edge of a box there is a line with contrast to what is around it."""
        picture = plain(360, 480, level)
        draw.detections(picture, [thing(index=index, box=(0.25, 0.4, 0.75, 0.8))])
        middle_row, middle_column = picture[200], picture[:, 300]
        for edge in (middle_row[110:130], middle_row[350:370], middle_column[134:154], middle_column[278:298]):
            assert max(contrast(pixel, (level,) * 3) for pixel in edge.tolist()) >= VISIBLE

    @given(
        st.tuples(st.integers(40, 1200), st.integers(40, 1200)),
        st.tuples(st.floats(0, 0.6, allow_subnormal=False), st.floats(0, 0.6, allow_subnormal=False)),
        st.tuples(st.floats(0.3, 1, allow_subnormal=False), st.floats(0.3, 1, allow_subnormal=False)),
    )
    @settings(max_examples=60, deadline=None)
    def test_box_is_where_it_is_said_to_be(self, size: tuple[int, int], low: Any, extent: Any) -> None:
        """The coloured frame's outer edge is the box's, to the pixel."""
        box = (*low, min(low[0] + extent[0], 1.0), min(low[1] + extent[1], 1.0))
        picture = plain(*size, 0)
        draw._draw_box(picture, draw._corners(picture, box), draw.color(1))
        top, bottom, left, right = area(of(picture, draw.color(1)))
        for found, wanted, side in ((left, box[0], 1), (right, box[2], 1), (top, box[1], 0), (bottom, box[3], 0)):
            assert abs(found - wanted * size[side]) <= 0.5 + 1e-9

    @given(st.integers(0, 12), st.integers(0, 12))
    @settings(deadline=None)
    def test_small_boxes_stay_small(self, width: int, height: int) -> None:
        """Of a box that is smaller than its lines, only the lines that fit are drawn, and the dark one around it."""
        picture = plain(1440, 1920, 128)
        draw._draw_box(picture, (300, 400, 300 + width, 400 + height), draw.color(1))
        assert area((picture != 128).any(axis=2)) == (399, 400 + height + 2, 299, 300 + width + 2)

    @pytest.mark.parametrize(("top", "bottom", "wanted"), [(0.5, 0.9, 220), (0.01, 0.9, 5), (0.0, 0.02, 0)])
    def test_above_or_within(self, top: float, bottom: float, wanted: int) -> None:
        """A label stands on its box, or hangs in it where there is no room above."""
        picture = plain(480, 640)
        plate = draw._plate(picture, "thing")
        assert plate.height == 20
        assert draw._free_place(picture, draw._corners(picture, (0.2, top, 0.8, bottom)), plate, []).y == wanted

    @pytest.mark.parametrize(
        "box",
        [
            (0.4, 0.5, 0.6, 0.6), (0.0, 0.0, 1.0, 1.0), (0.3, 0.0, 0.6, 0.3), (0.95, 0.5, 1.0, 0.6), (0.99, 0.0, 1.0, 0.01),
            (0.0, 0.97, 0.1, 1.0), (0.99, 0.99, 1.0, 1.0), (0.5, 0.0, 0.5, 1.0), (0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0),
        ],
    )  # fmt: skip
    def test_whole_label_wherever_the_box_is(self, box: tuple[float, float, float, float]) -> None:
        """At the picture's edges and corners too, the label is there as a whole, beside its box."""
        ink = draw.ink_on(draw.color(4))
        assert ink == draw.BLACK
        widths = []
        for place in ((0.4, 0.5, 0.6, 0.6), box):
            picture = plain(480, 640, 128)
            plate = draw._plate(picture, "somebody 0.50")
            where = draw._free_place(picture, draw._corners(picture, place), plate, [])
            draw._draw_plate(picture, plate, where, draw.color(4))
            assert (where.width, where.height) == (plate.width, plate.height)
            assert 0 <= where.x <= 640 - where.width
            assert 0 <= where.y <= 480 - where.height
            assert abs(where.x - place[0] * 640) <= plate.width + 1
            assert min(abs(where.y - place[1] * 480), abs(where.y - place[3] * 480)) <= plate.height + 1
            widths.append(of(picture, ink).sum())
        assert widths[0] == widths[1]

    def test_labels_do_not_cover_each_other(self) -> None:
        """Several boxes in one place have their labels beside each other, as long as there is room."""
        picture = plain(480, 640)
        found = [thing(index=index, label="thing") for index in range(4)]
        draw.detections(picture, found)
        alone = plain(480, 640)
        draw.detections(alone, [thing(index=0, label="thing", box=(0.2, 0.2, 0.9, 0.9))])
        wanted = of(alone, draw.color(0))[: 480 // 5].sum()
        for index in range(4):
            assert of(picture, draw.color(index)).sum() >= wanted - 5

    def test_the_best_is_on_top(self) -> None:
        """Where boxes cover each other, the first of them is seen as a whole."""
        picture, alone = plain(480, 640, 0), plain(480, 640, 0)
        draw.detections(picture, [thing(index=0, label="a"), *(thing(index=n, label="b") for n in range(1, 9))])
        draw.detections(alone, [thing(index=0, label="a")])
        assert of(picture, draw.color(0)).sum() >= of(alone, draw.color(0)).sum() * 0.85
        top, bottom, left, right = area(of(alone, draw.color(0)) & (np.arange(480) < 119)[:, None])
        assert np.array_equal(picture[top:bottom, left:right], alone[top:bottom, left:right])

    @pytest.mark.parametrize("width", [100, 200, 400])
    def test_long_labels_are_written_smaller(self, width: int) -> None:
        """A label that is wider than the picture has smaller letters, until they would be illegible."""
        picture = plain(300, width)
        plate = draw._plate(picture, "a label of many words 0.50")
        assert plate.width <= width or plate.scale == draw.SCALE_LEAST
        assert draw._plate(plain(300, 3000), "a label of many words 0.50").scale >= plate.scale

    @pytest.mark.parametrize(
        ("size", "stroke", "plate"), [((240, 320), 1, 16), ((720, 1280), 3, 30), ((2160, 3840), 10, 64)]
    )
    def test_in_the_pictures_proportions(self, size: tuple[int, int], stroke: int, plate: int) -> None:
        """Lines and letters grow with the picture."""
        picture = plain(*size, 0)
        draw.detections(picture, [thing(index=1, box=(0.2, 0.5, 0.8, 0.9))])
        row = of(picture, draw.color(1))[round(size[0] * 0.7)]
        assert row[: size[1] // 2].sum() == stroke
        assert draw._plate(picture, "x").height == plate


class TestSegments:
    CLASSES = np.repeat(np.repeat(np.array([[0, 1], [2, 255]], np.uint8), 40, axis=0), 60, axis=1)
    FOUND = (Segment("background", 0, 0.25), Segment("cat", 1, 0.25), Segment("dog", 2, 0.25))

    def drawn(
        self, found: Sequence[Segment] = FOUND, classes: Tensor = CLASSES, size: tuple[int, int] = (480, 640)
    ) -> Picture:
        picture = noise(*size)
        draw.segments(picture, found, Mask(classes))
        return picture

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_half_of_the_colour(self, dtype: type) -> None:
        """Within a class's area, the picture shines through its colour; what is background, and what nobody saw, stays as it is."""
        classes = self.CLASSES.astype(dtype)
        classes[classes == 255] = np.iinfo(dtype).max
        picture, before = self.drawn(classes=classes), noise(480, 640).astype(int)
        for index, rows, columns in ((1, slice(40, 200), slice(360, 600)), (2, slice(280, 440), slice(40, 280))):
            blended = (before[rows, columns] + np.array(draw.color(index))) / 2
            assert np.abs(picture[rows, columns] - blended).max() <= 1
        assert np.array_equal(picture[120:239, :319], before[120:239, :319])
        assert np.array_equal(picture[240:, 320:], before[240:, 320:])

    def test_what_was_left_out(self) -> None:
        """A class that is not among the answers gets no colour."""
        picture = self.drawn(found=self.FOUND[1:2])
        assert np.array_equal(picture[240:, :], noise(480, 640)[240:, :])

    def test_class_0_of_another_name(self) -> None:
        """Class 0 has a colour like any other, unless it is called background; so has another one that is called so."""
        for index, rows, columns in ((0, slice(120, 230), slice(20, 300)), (1, slice(20, 200), slice(340, 600))):
            for label in ("road", "background"):
                picture = self.drawn(found=(Segment(label, index, 0.25),))
                tinted = not np.array_equal(picture[rows, columns], noise(480, 640)[rows, columns])
                assert tinted == (label == "road" or index == 1)

    def test_areas_end_in_a_line(self) -> None:
        """Around each area there is a line of its full colour."""
        picture = self.drawn()
        assert of(picture, draw.color(1))[100:200, 320:324].mean() > 0.4
        assert of(picture, draw.color(1))[100:200, 340:600].mean() < 0.01
        assert of(picture, draw.color(2))[240:244, 40:280].mean() > 0.4

    def test_legend(self) -> None:
        """The classes are listed in their colours, the first on top, the background in grey."""
        picture = self.drawn()
        height = draw._plate(picture, "x").height
        rows = [picture[n * height + 1 : (n + 1) * height - 1, 1:40] for n in range(4)]
        for row, color in zip(rows, (draw.GREY, draw.color(1), draw.color(2)), strict=False):
            assert of(row, color).mean() > 0.3
            assert max(contrast(pixel, color) for pixel in row.reshape(-1, 3).tolist()) >= LEGIBLE
        assert np.array_equal(rows[3], noise(480, 640)[3 * height + 1 : 4 * height - 1, 1:40])

    def test_long_legends_end(self) -> None:
        """The legend has the largest classes, no more than fit."""
        found = [Segment(f"class {n}", n + 1, 0.01) for n in range(30)]
        picture = self.drawn(found=found, classes=np.full((4, 4), 255, np.uint8))
        height = draw._plate(picture, "x").height
        assert np.array_equal(picture[height * draw.LEGEND_MOST :], noise(480, 640)[height * draw.LEGEND_MOST :])
        small = self.drawn(found=found, size=(34, 60))
        assert of(small[:15], draw.color(1)).any()
        assert of(small[17:31], draw.color(2)).any()
        assert not any(of(small, draw.color(index)).any() for index in range(3, 31))

    def test_without_a_mask(self) -> None:
        """Where there is no mask, the legend is all."""
        picture = plain()
        draw.segments(picture, self.FOUND, None)
        assert (picture[60:] == 128).all()


class TestKeypoints:
    def drawn(self, *points: Keypoint, level: int = 128, size: tuple[int, int] = (480, 640)) -> Picture:
        picture = plain(*size, level)
        draw.keypoints(picture, points)
        return picture

    def point(self, name: str, x: float, y: float, score: float = 0.9, person: int | None = None) -> Keypoint:
        return Keypoint(name, x, y, score, person)

    def test_left_and_right(self) -> None:
        """The body's sides have a colour each, and what is between them a third."""
        picture = self.drawn(*body())
        assert of(picture, draw.LEFT)[:, 320:].any()
        assert not of(picture, draw.LEFT)[:, :300].any()
        assert of(picture, draw.RIGHT)[:, :320].any()
        assert not of(picture, draw.RIGHT)[:, 340:].any()
        assert of(picture, draw.BETWEEN).any()
        assert abs(draw.LEFT[0] - draw.RIGHT[0]) > 150  # of blue and yellow, which everybody tells apart

    @pytest.mark.parametrize("level", GREYS.values())
    def test_shows_on_any_background(self, level: int) -> None:
        """Lines and points have an edge or a colour with contrast to what is around them."""
        for names in (("left_hip", "left_knee"), ("right_hip", "right_knee"), ("left_hip", "right_hip")):
            picture = self.drawn(self.point(names[0], 0.2, 0.5), self.point(names[1], 0.8, 0.5), level=level)
            for column in (128, 320):
                assert max(contrast(pixel, (level,) * 3) for pixel in picture[:, column].tolist()) >= VISIBLE

    def test_points_are_where_they_are(self) -> None:
        """A point is drawn around its place, also in the picture's corners."""
        for x, y in ((0.5, 0.5), (0.0, 0.0), (1.0, 1.0), (0.25, 0.75)):
            top, bottom, left, right = area((self.drawn(self.point("nose", x, y)) != 128).any(axis=2))
            assert top - 1 <= min(y * 480, 479) <= bottom
            assert left - 1 <= min(x * 640, 639) <= right
            assert max(bottom - top, right - left) < 20

    @pytest.mark.parametrize(("score", "there"), [(0.29, False), (0.3, True)])
    def test_points_that_nobody_is_sure_of(self, score: float, there: bool) -> None:
        """A point that is not sure is not drawn, and no line leads to it."""
        sure = self.point("left_hip", 0.2, 0.5)
        picture = self.drawn(sure, self.point("left_knee", 0.8, 0.5, score))
        assert (picture[:, 320:] != 128).any() == there

    def test_people_are_apart(self) -> None:
        """No line joins the points of two people."""
        points = self.point("left_hip", 0.1, 0.5, person=0), self.point("left_knee", 0.9, 0.5, person=1)
        assert (self.drawn(*points)[:, 100:540] == 128).all()
        both = self.drawn(*body(0, x=0.2), *body(1, x=0.8))
        assert (both[:, 280:360] == 128).all()
        assert (both[:, :280] != 128).any()
        assert (both[:, 360:] != 128).any()

    def test_names_of_ones_own(self) -> None:
        """Points that are not of the skeleton are drawn as points."""
        picture = self.drawn(self.point("thumb", 0.2, 0.5), self.point("wrist", 0.8, 0.5))
        assert of(picture, draw.BETWEEN).sum() > 10
        assert (picture[:, 160:480] == 128).all()

    def test_boxes_of_people(self) -> None:
        """Where people have boxes, both are drawn."""
        picture = plain(480, 640)
        draw.draw(picture, Answers(detections=(thing("person", 0, 0.9, (0.3, 0.05, 0.7, 0.95)),), keypoints=body(0)))
        assert of(picture, draw.color(0)).sum() > 1000
        assert of(picture, draw.LEFT).any()


class TestLines:
    @pytest.mark.parametrize("level", [0, 128, 255])
    def test_legible_on_any_background(self, level: int) -> None:
        """Words have both white and black in them, so that they stand out from any background."""
        picture = plain(level=level)
        draw.lines(picture, ["cat  0.98", "dog  0.02"])
        assert picture.min() < 30
        assert picture.max() > 200
        assert picture.shape == (240, 320, 3)

    def test_one_line_below_the_other(self) -> None:
        """Lines go downwards from the upper left corner and do not cover each other."""
        first, both = plain(), plain()
        draw.lines(first, ["a"])
        draw.lines(both, ["a", "b"])
        used = np.flatnonzero((first != 128).any(axis=(1, 2)))
        added = np.flatnonzero((both != first).any(axis=(1, 2)))
        assert used.max() < 40
        assert added.min() > used.min() + 8
        assert np.array_equal(both[: added.min()], first[: added.min()])

    def test_where_it_is_told(self) -> None:
        """A position puts the words there."""
        picture = plain(level=0)
        draw.lines(picture, ["a"], x=200, y=100)
        rows, columns = np.nonzero(picture.any(axis=2))
        assert columns.min() >= 190
        assert rows.min() >= 95

    @pytest.mark.parametrize("shape", [(1, 1), (8, 8), (16, 400), (4000, 20)])
    def test_any_size(self, shape: tuple[int, int]) -> None:
        """No picture is too small to be drawn on."""
        draw.lines(np.zeros((*shape, 3), np.uint8), ["a label", ""] * 10)

    def test_answers_in_words(self) -> None:
        """Classes are written with their scores, outputs with name, shape and first values."""
        for answers, texts in (
            (Answers(classifications=(Classification("cat", 2, 0.98),)), ["cat  0.98"]),
            (Answers(tensors=(RawTensor("x", (1, 2), "float32", (0.5, None)),)), ["x [1, 2]: 0.5 -"]),
            (Answers(tensors=(RawTensor("x", (1, 5), "int32", (1, 2, 3, 4, 5)),)), ["x [1, 5]: 1 2 3 4 ..."]),
            (Answers(tensors=(RawTensor("x", (1, 9999), "float32", None),)), ["x [1, 9999]"]),
        ):
            picture, written = plain(), plain()
            draw.draw(picture, answers)
            draw.lines(written, texts)
            assert np.array_equal(picture, written)

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
    def test_plain(self, text: str, plain: str) -> None:
        """Letters that OpenCV cannot write become their nearest ASCII, or question marks."""
        assert draw.plain(text) == plain
