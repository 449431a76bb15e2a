"""Maps and masks: each cell's class, its share of the frame, and its place there."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_segment import SQUARE, VOID, logits, random_map, seen_as, squares, task

from edge_runner.frame import Geometry, Region, TensorSpec
from edge_runner.result import Result
from edge_runner.task.masks import (
    MANY_CLASSES,
    Layout,
    areas,
    best_classes,
    class_numbers,
    own_size,
    png,
    spread_over_frame,
)

pytestmark = pytest.mark.arm


class TestBestClasses:
    @given(st.data())
    @settings(max_examples=60, deadline=None)
    def test_as_argmax(self, data: st.DataObject) -> None:
        """In both layouts it is the argmax, the first of equal ones, and its score, however many cells and classes there are."""
        height, width = data.draw(st.integers(1, 200)), data.draw(st.integers(1, 200))
        count = data.draw(st.sampled_from([2, 3, 21, MANY_CLASSES - 1, MANY_CLASSES]))
        levels = data.draw(st.sampled_from([2, 1000]))
        dtype = data.draw(st.sampled_from([np.float32, np.float16, np.float64]))
        scores = (
            np.random.default_rng(height * width).integers(-levels, levels, (1, height, width, count)).astype(dtype)
        )
        planes = np.ascontiguousarray(scores.transpose(0, 3, 1, 2))
        for output, layout in ((scores, "nhwc"), (planes, "nchw")):
            classes, best = best_classes(output, layout)
            assert classes.dtype == np.uint8
            assert np.array_equal(classes, scores[0].argmax(axis=-1))
            assert np.array_equal(best, scores[0].max(axis=-1))

    @pytest.mark.parametrize(("count", "dtype"), [(255, np.uint8), (256, np.uint16), (300, np.uint16)])
    @pytest.mark.parametrize("layout", ["nhwc", "nchw"])
    def test_many_classes(self, layout: Layout, count: int, dtype: type) -> None:
        """So many classes that the largest number of a byte would be one are held in two bytes."""
        scores = logits(np.array([[0, count - 1], [count - 2, 1]]), count)
        if layout == "nchw":
            scores = np.ascontiguousarray(scores.transpose(0, 3, 1, 2))
        classes, _ = best_classes(scores, layout)
        assert classes.dtype == dtype
        assert classes.tolist() == [[0, count - 1], [count - 2, 1]]

    def test_the_output_stays_as_it_is(self) -> None:
        """Decoding writes nothing into the tensors that it is given."""
        for output, layout in (
            (logits(squares(2, 1)), "nhwc"),
            (logits(squares(2, 1)).transpose(0, 3, 1, 2).copy(), "nchw"),
        ):
            before = output.copy()
            best_classes(output, layout)
            assert np.array_equal(output, before)

    @given(st.integers(0, 2**32 - 1))
    @settings(max_examples=30, deadline=None)
    def test_quantized(self, seed: int) -> None:
        """Quantised scores give the classes of the float ones, wherever those lead by more than a step."""
        chance = np.random.default_rng(seed)
        scores = chance.normal(0, 2, (1, 12, 9, 5)).astype(np.float32)
        spec = TensorSpec("map", scores.shape, "int8", 0.1, 3)
        stored = np.clip(np.rint(scores / 0.1) + 3, -128, 127).astype(np.int8)
        exact, _ = best_classes(scores, "nhwc")
        found, _ = best_classes(spec.dequantize(stored), "nhwc")
        ordered = np.sort(scores[0], axis=-1)
        clear = ordered[..., -1] - ordered[..., -2] > 0.1
        assert clear.any()
        assert np.array_equal(found[clear], exact[clear])


class TestClassNumbers:
    @pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "float32", "float64"])
    def test_any_type(self, dtype: str) -> None:
        """Class numbers of any type are the same bytes."""
        classes, doubt = class_numbers(squares(0, 20, 254).astype(dtype), 21)
        assert classes.dtype == np.uint8
        assert np.array_equal(classes, squares(0, 20, 254))
        assert doubt is None

    def test_bits(self) -> None:
        """What the graph compared is class 0 or class 1."""
        classes, _ = class_numbers(squares(0, 1).astype(bool), 2)
        assert (classes.dtype, classes.tolist()) == (np.uint8, squares(0, 1).tolist())

    @pytest.mark.parametrize("scale", [1.0, 20 / 255, 0.0784, 1 / 3])
    def test_real_values_are_rounded(self, scale: float) -> None:
        """The real values of a quantised map are the nearest whole numbers."""
        stored = np.rint(squares(0, 7, 20) / scale).clip(0, 255).astype(np.uint8)
        real = TensorSpec("map", (4, 12), "uint8", scale).dequantize(stored)
        assert np.array_equal(class_numbers(real, 21)[0], squares(0, 7, 20))

    @pytest.mark.parametrize(
        ("highest", "known", "dtype"),
        [(20, 21, np.uint8), (20, 255, np.uint8), (20, 256, np.uint16), (254, 21, np.uint8), (255, 21, np.uint16)],
    )
    def test_the_void_is_no_class(self, highest: int, known: int, dtype: type) -> None:
        """Two bytes hold what does not leave the largest number of one byte free."""
        classes, doubt = class_numbers(squares(0, highest), known)
        assert (classes.dtype, doubt) == (dtype, None)
        assert classes.max() == highest

    @pytest.mark.parametrize("value", [-1, 65_535, 70_000, 2**40])
    def test_what_is_no_class(self, value: int) -> None:
        """Numbers that cannot be classes belong to none, and raise a doubt."""
        classes, doubt = class_numbers(squares(3, value).astype(np.int64), 21)
        assert (classes[:, :4] == 3).all()
        assert (classes[:, 4:] == np.iinfo(classes.dtype).max).all()
        assert doubt == f"class numbers from {min(3, value)} to {max(3, value)} are not all classes"


@st.composite
def views(draw: st.DrawFn) -> tuple[Geometry, tuple[int, int, int, int], str]:
    """A frame that a model sees in some way, the region (x0, y0, x1, y1) of it that is in the input, in pixels, and the way."""
    way = draw(st.sampled_from(["stretch", "letterbox", "crop"]))
    width, height = draw(st.integers(4, 90)), draw(st.integers(4, 90))
    x0, y0 = draw(st.integers(0, width - 2)), draw(st.integers(0, height - 2))
    x1, y1 = draw(st.integers(x0 + 2, width)), draw(st.integers(y0 + 2, height))
    if draw(st.booleans()):
        x0, y0, x1, y1 = 0, 0, width, height
    size = draw(st.integers(4, 48)), draw(st.integers(4, 48))
    geometry = seen_as(way, (width, height), size, Region(x0, y0, x1 - x0, y1 - y0))
    seen = np.rint(np.array(geometry.seen) * [width, height, width, height]).astype(int)
    if way != "crop":
        assert tuple(seen) == (x0, y0, x1, y1)
    return geometry, tuple(seen.tolist()), way


def lengths(geometry: Geometry, axis: int, cells: int) -> list[float]:
    """How much of the frame each cell shows along one axis: the oracle, in whole fractions."""
    scale, offset = Fraction(geometry.scale[axis]), Fraction(geometry.offset[axis])
    first, last = Fraction(geometry.seen[axis]), Fraction(geometry.seen[axis + 2])
    edges = [min(max(Fraction(n, cells) * scale + offset, first), last) for n in range(cells + 1)]
    return [float(b - a) for a, b in pairwise(edges)]


class TestAreas:
    @given(views(), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
    @settings(max_examples=150, deadline=None)
    def test_exact(self, view: tuple[Geometry, Any, str], rows: int, columns: int, seed: int) -> None:
        """A class covers the sum of what its cells show of the frame; all of them together, what the model saw of it."""
        geometry, (x0, y0, x1, y1), way = view
        classes = random_map(rows, columns, seed)
        found = areas(classes, geometry)
        weights = np.outer(lengths(geometry, 1, rows), lengths(geometry, 0, columns))
        for number, area in enumerate(found):
            assert area == pytest.approx(weights[classes == number].sum(), abs=2e-9)
        seen = (x1 - x0) * (y1 - y0) / (geometry.width * geometry.height)
        assert found.sum() == pytest.approx(seen, abs=1e-8)
        assert found.sum() <= 1 + 1e-8
        if way == "stretch" and seen == 1:
            assert found.sum() == pytest.approx(1, abs=1e-8)

    def test_letterbox_bars(self) -> None:
        """What lies in a letterbox's bars is no part of the frame, and no class of it."""
        geometry = Geometry.between((200, 100), Region(0, 0, 200, 100), (8, 8), Region(0, 2, 8, 4))
        classes = np.full((8, 8), 1, np.uint8)
        classes[2:6] = 2
        classes[2:6, :2] = 0
        assert areas(classes, geometry).tolist() == [0.25, 0, 0.75]

    @given(st.integers(1, 300), st.integers(1, 300), st.integers(2, 200))
    @settings(max_examples=100, deadline=None)
    def test_no_sliver_of_a_bar(self, width: int, height: int, side: int) -> None:
        """However the sums are rounded, a bar that ends where a cell ends gives the frame nothing of its class."""
        geometry = seen_as("letterbox", (width, height), (side, side))
        inset = geometry.to_input(np.array([[0.0, 0.0], [1.0, 1.0]])) * side
        (left, top), (right, bottom) = np.rint(inset).astype(int)
        classes = np.full((side, side), 3, np.uint8)
        classes[top:bottom, left:right] = 1
        assert np.flatnonzero(areas(classes, geometry)).tolist() == [1]

    def test_border_of_a_crop(self) -> None:
        """A letterbox around a part of the frame lies over other parts of it, which the model did not see."""
        geometry = Geometry.between((100, 100), Region(0, 25, 100, 50), (8, 8), Region(0, 2, 8, 4))
        classes = np.full((8, 8), 1, np.uint8)
        classes[2:6] = 2
        assert areas(classes, geometry).tolist() == [0, 0, 0.5]
        mask = spread_over_frame(classes, geometry, "frame")
        assert (mask[25:75] == 2).all()
        assert (mask[:25] == VOID).all()
        assert (mask[75:] == VOID).all()

    def test_nothing_but_void(self) -> None:
        """What is no class covers nothing."""
        assert areas(np.full((3, 3), VOID, np.uint8), SQUARE).tolist() == [0] * VOID


class TestMask:
    @given(views(), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
    @settings(max_examples=100, deadline=None)
    def test_each_pixel_has_its_cell(self, view: tuple[Geometry, Any, str], rows: int, columns: int, seed: int) -> None:
        """At the frame's size, a pixel has the class of the cell that its centre lies in; outside of what was seen, none."""
        geometry, (x0, y0, x1, y1), _ = view
        classes = random_map(rows, columns, seed)
        mask = spread_over_frame(classes, geometry, "frame")
        assert mask.shape == (geometry.height, geometry.width)
        inside = np.zeros(mask.shape, bool)
        inside[y0:y1, x0:x1] = True
        assert ((mask == VOID) == ~inside).all()
        for _ in range(20):
            x, y = np.random.default_rng(seed).integers((x0, y0), (x1, y1))
            u, v = geometry.to_input(np.array([(x + 0.5) / geometry.width, (y + 0.5) / geometry.height]))
            near = {
                int(classes[min(max(int(v * rows + dy), 0), rows - 1), min(max(int(u * columns + dx), 0), columns - 1)])
                for dx in (-1e-6, 1e-6)
                for dy in (-1e-6, 1e-6)
            }
            assert mask[y, x] in near

    @given(views(), st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
    @settings(max_examples=100, deadline=None)
    def test_agrees_with_the_areas(self, view: tuple[Geometry, Any, str], rows: int, columns: int, seed: int) -> None:
        """The share of a class's pixels in the mask is its area, within a pixel along the edges of its cells."""
        geometry, _, _ = view
        classes = random_map(rows, columns, seed)
        mask = spread_over_frame(classes, geometry, "frame")
        high = np.array(lengths(geometry, 1, rows)) * geometry.height
        wide = np.array(lengths(geometry, 0, columns)) * geometry.width
        off = (high[:, None] > 0) * (wide > 0) * (high[:, None] + wide + 1)
        for number, area in enumerate(areas(classes, geometry)):
            assert abs((mask == number).mean() - area) <= off[classes == number].sum() / mask.size + 1e-8

    @pytest.mark.parametrize("side", [1, 7, 49, 103, 640, 1080])
    def test_between_two_cells(self, side: int) -> None:
        """Where a pixel's centre is on the edge of two cells, it is the right or the lower one, however the sums are rounded."""
        mask = spread_over_frame(random_map(2 * side, 2 * side, side), Geometry(side, side), "frame")
        assert np.array_equal(mask, random_map(2 * side, 2 * side, side)[1::2, 1::2])

    def test_beyond_the_input(self) -> None:
        """What lies beyond the input's edges was not seen, whatever else is said of it."""
        geometry = Geometry(8, 4, (0.5, 1.0), (0.25, 0.0))
        mask = spread_over_frame(np.ones((4, 4), np.uint8), geometry, "frame")
        assert mask.tolist() == [[VOID, VOID, 1, 1, 1, 1, VOID, VOID]] * 4

    @pytest.mark.parametrize("mask", ["none", "model"])
    def test_stretched_it_is_the_map(self, mask: str) -> None:
        """Where the input shows the whole frame, the mask is the model's own map; of bytes, not even a copy."""
        classes = squares(0, 1, 2).astype(np.uint8)
        subject = task(1, 4, 12, dtype="uint8", ending="ARG_MAX", mask=mask)
        found = subject.decode([classes[np.newaxis]], Geometry(1280, 720)).mask
        assert found is not None
        assert np.array_equal(found.classes, classes)
        assert np.shares_memory(found.classes, classes)

    def test_letterbox_is_cut_away(self) -> None:
        """In the model's resolution, the bars are cut away, and the cells stay as they are."""
        geometry = Geometry.between((200, 100), Region(0, 0, 200, 100), (16, 16), Region(0, 4, 16, 8))
        classes = np.random.default_rng(1).integers(0, 5, (16, 16)).astype(np.uint8)
        assert np.array_equal(spread_over_frame(classes, geometry, "model"), classes[4:12])

    @given(st.integers(1, 300), st.integers(1, 300), st.integers(2, 200))
    @settings(max_examples=100, deadline=None)
    def test_letterbox_of_any_frame(self, width: int, height: int, side: int) -> None:
        """Of a map as fine as the input, the mask of a letterbox is just its inset."""
        geometry = seen_as("letterbox", (width, height), (side, side))
        (left, top), (right, bottom) = np.rint(geometry.to_input(np.array([[0.0, 0.0], [1.0, 1.0]])) * side).astype(int)
        classes = random_map(side, side, seed=2)
        assert np.array_equal(spread_over_frame(classes, geometry, "model"), classes[top:bottom, left:right])

    def test_crop_is_padded(self) -> None:
        """In the model's resolution, what a crop hid is around the map, as no class."""
        geometry = Geometry.between((100, 50), Region(25, 0, 50, 50), (4, 4), Region(0, 0, 4, 4))
        classes = np.arange(16, dtype=np.uint8).reshape(4, 4)
        mask = spread_over_frame(classes, geometry, "model")
        assert mask.shape == (4, 8)
        assert np.array_equal(mask[:, 2:6], classes)
        assert (mask[:, [0, 1, 6, 7]] == VOID).all()

    def test_two_bytes(self) -> None:
        """The void of two bytes is their largest number."""
        geometry = Geometry.between((100, 50), Region(25, 0, 50, 50), (4, 4), Region(0, 0, 4, 4))
        mask = spread_over_frame(np.full((4, 4), 300, np.uint16), geometry, "model")
        assert np.unique(mask).tolist() == [300, 65_535]

    @given(views(), st.integers(1, 600), st.integers(1, 600))
    @settings(max_examples=100, deadline=None)
    def test_size_is_bounded(self, view: tuple[Geometry, Any, str], rows: int, columns: int) -> None:
        """In the model's resolution there is at least one pixel, and never more than the frame and the map have."""
        height, width = own_size(view[0], rows, columns)
        assert 1 <= height <= max(rows, view[0].height)
        assert 1 <= width <= max(columns, view[0].width)


class TestPng:
    @pytest.mark.parametrize(("dtype", "highest"), [(np.uint8, 254), (np.uint16, 65_535)])
    def test_lossless(self, dtype: type, highest: int) -> None:
        """The file's grey levels are the class numbers, in as many bits; of a part of a larger map too."""
        classes = np.random.default_rng(3).integers(0, highest + 1, (40, 60)).astype(dtype)[3:33, 5:45]
        read = cv2.imdecode(np.frombuffer(png(classes), np.uint8), cv2.IMREAD_UNCHANGED)
        assert read.dtype == dtype
        assert np.array_equal(read, classes)

    @pytest.mark.parametrize(("mask", "shape"), [("none", None), ("model", (2, 4)), ("frame", (60, 120))])
    def test_in_the_result_where_asked_for(
        self, mask: str, shape: tuple[int, int] | None, result: Callable[..., Result]
    ) -> None:
        """The result has the mask as a PNG in the resolution asked for, and without being asked, none."""
        geometry = Geometry.between((120, 60), Region(0, 0, 120, 60), (8, 8), Region(0, 2, 8, 4))
        classes = np.array([[0, 0, 0, 0], [0, 1, 2, 2], [1, 1, 2, 2], [0, 0, 0, 0]])
        answers = task(1, 4, 4, 3, mask=mask).decode([logits(classes)], geometry)
        line = json.loads(result(answers=answers).line())
        assert ("mask" in line) == (shape is not None)
        assert answers.mask is not None
        if shape:
            assert (line["mask"]["height"], line["mask"]["width"]) == shape
            read = cv2.imdecode(np.frombuffer(base64.b64decode(line["mask"]["png"]), np.uint8), cv2.IMREAD_UNCHANGED)
            assert np.array_equal(read, answers.mask.classes)
            assert read.shape == shape
