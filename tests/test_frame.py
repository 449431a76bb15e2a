"""The nouns on the way in."""

from __future__ import annotations

import numpy as np
import pytest

from edge_runner.frame import Geometry, Region, TensorSpec, differences

pytestmark = pytest.mark.arm


def test_differences() -> None:
    """Equal infinities are no difference, other ones are infinite, and what is no number is no number."""
    one = np.array([1, np.inf, -np.inf, np.inf, np.nan, 250], np.float32)
    other = np.array([3, np.inf, -np.inf, 0, 1, 0], np.float32)
    found = differences(one, other)
    assert found.dtype == np.float64
    assert found[:4].tolist() == [2, 0, 0, np.inf]
    assert np.isnan(found[4])
    assert differences(np.array([0], np.uint8), np.array([250], np.uint8)).tolist() == [250]


class TestDequantize:
    def test_quantized(self) -> None:
        """Real values are (q - zero point) * scale, as float32."""
        spec = TensorSpec("out", (1, 4), "int8", 1 / 256, -128)
        real = spec.dequantize(np.array([[-128, -127, 0, 127]], np.int8))
        assert real.dtype == np.float32
        assert real.tolist() == [[0.0, 1 / 256, 0.5, 255 / 256]]

    def test_no_overflow(self) -> None:
        """The difference to the zero point does not wrap around in the tensor's own type."""
        assert TensorSpec("out", (1,), "uint8", 1.0, 200).dequantize(np.array([0], np.uint8)).tolist() == [-200.0]
        assert TensorSpec("out", (1,), "int8", 1.0, -128).dequantize(np.array([127], np.int8)).tolist() == [255.0]

    @pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
    def test_others_are_copied(self, dtype: str) -> None:
        """A tensor without quantisation keeps its values and type, in memory of its own."""
        values = np.array([1, 2, 3], dtype)
        copy = TensorSpec("out", (3,), dtype).dequantize(values)
        assert copy.dtype == values.dtype
        assert copy.tolist() == [1, 2, 3]
        assert not np.shares_memory(copy, values)


class TestGeometry:
    def test_whole_frame_is_the_identity(self) -> None:
        """Where the whole frame fills the input, positions are the same."""
        geometry = Geometry.between((640, 480), Region(0, 0, 640, 480), (224, 224), Region(0, 0, 224, 224))
        points = np.array([[0, 0], [1, 1], [0.25, 0.75]])
        assert np.allclose(geometry.to_frame(points), points)
        assert (geometry.width, geometry.height) == (640, 480)

    def test_crop(self) -> None:
        """The input's corners are the crop's corners."""
        geometry = Geometry.between((100, 200), Region(10, 50, 40, 100), (8, 8), Region(0, 0, 8, 8))
        assert np.allclose(geometry.to_frame([[0, 0], [1, 1]]), [[0.1, 0.25], [0.5, 0.75]])

    def test_letterbox(self) -> None:
        """The inset's corners are the frame's corners; the border lies outside of it."""
        geometry = Geometry.between((200, 100), Region(0, 0, 200, 100), (100, 100), Region(0, 25, 100, 50))
        assert np.allclose(geometry.to_frame([[0, 0.25], [1, 0.75]]), [[0, 0], [1, 1]])
        assert np.allclose(geometry.to_frame([0.5, 0]), [0.5, -0.5])

    def test_what_is_seen(self) -> None:
        """The part of the frame that the input shows: all of it, a crop, and, with a letterbox, no more than that crop."""
        assert Geometry.between((100, 50), Region(0, 0, 100, 50), (64, 64), Region(0, 16, 64, 32)).seen == (0, 0, 1, 1)
        assert Geometry.between((100, 50), Region(25, 0, 50, 50), (64, 64), Region(0, 0, 64, 64)).seen == (
            0.25,
            0,
            0.75,
            1,
        )
        crop = Geometry.between((100, 50), Region(10, 20, 50, 10), (100, 100), Region(0, 40, 100, 20))
        assert crop.seen == pytest.approx((0.1, 0.4, 0.6, 0.6))
        assert crop.to_frame(np.array([0.0, 0.0]))[1] < crop.seen[1]  # the upper bar lies over what the crop hides

    def test_there_and_back(self) -> None:
        """`to_input` is the inverse of `to_frame`, for any number of points."""
        geometry = Geometry.between((640, 360), Region(33, 20, 300, 111), (320, 192), Region(10, 0, 300, 111))
        points = np.random.default_rng(1).uniform(0, 1, (5, 7, 2))
        assert np.allclose(geometry.to_input(geometry.to_frame(points)), points)
        assert geometry.to_frame(points).shape == points.shape

    def test_pixel_by_pixel(self) -> None:
        """A pixel of the input lies where the crop and the inset put it in the frame."""
        region, inset = Region(20, 10, 60, 30), Region(2, 5, 12, 6)
        geometry = Geometry.between((100, 50), region, (16, 16), inset)
        for x, y in ((2, 5), (8, 8), (14, 11)):
            expected = ((20 + (x - 2) * 5) / 100, (10 + (y - 5) * 5) / 50)
            assert np.allclose(geometry.to_frame([x / 16, y / 16]), expected)
