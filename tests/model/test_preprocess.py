"""The recipe, held to a slow float64 reference in every combination, and what else is promised of it."""

from __future__ import annotations

import itertools
import pickle
import platform
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from edge_runner.errors import SettingError
from edge_runner.frame import Geometry, Region, TensorSpec
from edge_runner.model.preprocess import Preprocessor, Recipe, default_layout

pytestmark = pytest.mark.arm

RESIZES = ("stretch", "letterbox", "crop")
INTERPOLATIONS = ("linear", "area", "nearest", "cubic")
COLORS = ("rgb", "bgr", "gray")
LAYOUTS = ("nhwc", "nchw")

# OpenCV rounds to whole levels after the resize (half a level), whose weights have 8 or 11 bits (less than another half; one
# level where OpenCV 5 resizes by KleidiCV, on ARM), and once more after the grey. The tensor's own rounding comes on top: half a
# step of its numbers.
KLEIDICV = int(cv2.__version__.split(".")[0]) >= 5 and platform.machine() in ("aarch64", "arm64")
TOLERANCE_LEVELS = {color: 1.01 + 0.5 * (color == "gray") + 0.5 * KLEIDICV for color in ("rgb", "bgr", "gray")}

# name: dtype, scale, zero point, mean, std (one, or one a channel)
TENSORS = {
    "float32":           ("float32", 0, 0, (103.5, 116.25, 123.75), (57.5, 57.0, 58.5)),
    "float32 one mean":  ("float32", 0, 0, (127.5,), (127.5,)),
    "float16":           ("float16", 0, 0, (103.5, 116.25, 123.75), (57.5, 57.0, 58.5)),
    "uint8":             ("uint8", 0, 0, (0,), (1,)),
    "int8":              ("int8", 0, 0, (128,), (1,)),
    "int16":             ("int16", 0, 0, (100, 0, 50), (0.01, 0.02, -0.04)),
    "int32":             ("int32", 0, 0, (0,), (1,)),
    "uint8 quantised":   ("uint8", 1 / 255, 0, (0,), (255,)),
    "uint8 raw bytes":   ("uint8", 1 / 128, 128, (0,), (1,)),
    "int8 quantised":    ("int8", 0.02, -10, (103.5, 116.25, 123.75), (57.5, 57.0, 58.5)),
    "int16 quantised":   ("int16", 1 / 32768, 0, (127.5,), (127.5,)),
}  # fmt: skip

# name: the picture's (width, height), the input's. All odd, and so is what is left after a crop: nothing fits by chance.
SIZES = {
    "shrinking": ((27, 35), (13, 17)),
    "enlarging": ((17, 11), (25, 21)),
    "mixed": ((27, 13), (13, 23)),
    "same": ((21, 17), (21, 17)),
}
CROPS = (None, Region(3, 2, 13, 9))


def noise(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Nothing is as far from smooth as this, so that a wrong weight shows."""
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def make(
    tensor: str, color: str = "rgb", layout: str = "nhwc", size: tuple[int, int] = (21, 17), **recipe: object
) -> Preprocessor:
    dtype, scale, zero_point, mean, std = TENSORS[tensor]
    channels = 1 if color == "gray" else 3
    shape = (1, channels, size[1], size[0]) if layout == "nchw" else (1, size[1], size[0], channels)
    means, stds = ((tuple(v[:channels]) if len(v) > 1 else v) for v in (mean, std))
    return Preprocessor(
        Recipe(color=color, mean=means, std=stds, layout=layout, **recipe),
        TensorSpec("picture", shape, dtype, scale, zero_point),
    )


def prepare(preprocessor: Preprocessor, picture: np.ndarray, crop: Region | None = None) -> np.ndarray:
    """The tensor, in an array that held something else before."""
    out = np.full(preprocessor.shape, 77, preprocessor.dtype)
    preprocessor(picture, out, crop)
    return out


def off_levels(
    preprocessor: Preprocessor, picture: np.ndarray, crop: Region | None, recipe: Recipe
) -> tuple[float, float]:
    """How far the tensor is off the reference for `recipe`, in grey levels, and how much of that the tensor's numbers may cause."""
    spec = preprocessor.spec
    box = (crop.x, crop.y, crop.width, crop.height) if crop else None
    expected = reference.held(reference.tensor(picture, recipe, spec, box), spec)
    real = spec.dequantize(prepare(preprocessor, picture, crop)).astype(np.float64)
    channels = preprocessor.channels
    std = np.abs(np.broadcast_to(np.array(recipe.std), (channels,)))
    step = std.max() * (spec.scale or (1.0 if np.issubdtype(np.dtype(spec.dtype), np.integer) else 0.0)) / 2
    if spec.dtype == "float16":
        step = float(np.abs(expected).max()) * 2**-11 * std.max()
    axis = 1 if recipe.layout == "nchw" else 3
    shape = [channels if i == axis else 1 for i in range(4)]
    return float(np.max(np.abs(real - expected) * std.reshape(shape))), step


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("resize", RESIZES)
def test_reference(resize: str, interpolation: str, color: str, layout: str) -> None:
    """Every recipe gives the reference's values, whatever the tensor's type, the sizes and the region."""
    for tensor, sizes, crop in itertools.product(TENSORS, SIZES.values(), CROPS):
        preprocessor = make(tensor, color, layout, sizes[1], resize=resize, interpolation=interpolation)
        off, step = off_levels(preprocessor, noise(sizes[0]), crop, preprocessor.recipe)
        assert off <= TOLERANCE_LEVELS[color] + step, (tensor, sizes, crop)


@pytest.mark.parametrize("sizes", [((40, 30), (3, 3)), ((640, 480), (48, 48)), ((6, 4), (3, 2)), ((5, 3), (10, 6))])
def test_nearest_between_two(sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    """Where a centre lies between two pixels, nearest takes the right or the lower one, whichever OpenCV is installed."""
    picture, (width, height) = noise(sizes[0]), sizes[1]
    found = prepare(make("uint8", "bgr", size=sizes[1], interpolation="nearest"), picture)
    rows, columns = (
        [(2 * i + 1) * old // (2 * new) for i in range(new)]
        for old, new in ((picture.shape[0], height), (picture.shape[1], width))
    )
    assert np.array_equal(found[0], picture[rows][:, columns])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"color": "bgr"}, "channels swapped"),
        ({"mean": (123.75, 116.25, 103.5)}, "means in the other order"),
        ({"std": (58.5, 57.0, 57.5)}, "stds in the other order"),
        ({"interpolation": "nearest"}, "another interpolation"),
        ({"interpolation": "area"}, "another interpolation"),
        ({"interpolation": "cubic"}, "another interpolation"),
        ({"resize": "crop"}, "another resize"),
        ({"pad": 117}, "another pad"),
    ],
)
def test_reference_can_fail(change: dict[str, object], why: str) -> None:
    """The comparison is no formality: any other recipe is beyond the tolerance."""
    preprocessor = make("float32", resize="letterbox")
    off, step = off_levels(preprocessor, noise((53, 37)), None, replace(preprocessor.recipe, **change))
    assert off > TOLERANCE_LEVELS["rgb"] + step, why


@pytest.mark.parametrize(("color", "expected"), [("rgb", (1, 0, 0)), ("bgr", (0, 0, 1)), ("gray", (0.298,))])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_red(color: str, expected: tuple[float, ...], layout: str) -> None:
    """A red picture is red where the model's channel order has red."""
    preprocessor = make("uint8 quantised", color, layout)
    red = np.full((9, 9, 3), (0, 0, 255), np.uint8)
    out = preprocessor.spec.dequantize(prepare(preprocessor, red))
    axes = (0, 2, 3) if layout == "nchw" else (0, 1, 2)
    assert out.mean(axis=axes) == pytest.approx(expected, abs=0.003)
    assert np.ptp(out, axis=axes) == pytest.approx(0, abs=1e-6)


def test_raw_bytes() -> None:
    """Mean 0 and std 1 for a uint8 input quantised for small numbers mean the picture's own bytes."""
    picture = noise((21, 17))
    out = prepare(make("uint8 raw bytes", "bgr"), picture)
    assert np.array_equal(out[0], picture)
    assert make("uint8 raw bytes").doubt is None


FLOATS = {"allow_subnormal": False}  # ARM wheels of tflite-runtime have them flushed to zero


@given(
    st.tuples(*[st.floats(0.01, 100)] * 2),
    st.tuples(*[st.floats(-10, 10, **FLOATS)] * 2),
    st.tuples(*[st.floats(-2, 3, **FLOATS)] * 2),
)
def test_geometry_inverse(scale: tuple[float, ...], offset: tuple[float, ...], point: tuple[float, ...]) -> None:
    """Going to the input and back to the frame changes no point."""
    geometry = Geometry(640, 480, scale, offset)
    assert geometry.to_frame(geometry.to_input(np.array(point))) == pytest.approx(point, abs=1e-9)
    assert geometry.to_input(geometry.to_frame(np.array(point))) == pytest.approx(point, abs=1e-6)


@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.sampled_from(RESIZES),
    st.data(),
)
def test_geometry_corners(frame: tuple[int, int], size: tuple[int, int], resize: str, data: st.DataObject) -> None:
    """Whatever the sizes: the part shown lies within the crop, and the input's middle shows the crop's middle."""
    x, y = data.draw(st.integers(0, frame[0] - 1)), data.draw(st.integers(0, frame[1] - 1))
    crop = Region(x, y, data.draw(st.integers(1, frame[0] - x)), data.draw(st.integers(1, frame[1] - y)))
    preprocessor = make("uint8", size=size, resize=resize)
    geometry = preprocessor(np.zeros((frame[1], frame[0], 3), np.uint8), np.empty(preprocessor.shape, np.uint8), crop)
    seen = geometry.to_frame(np.array([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5]])) * frame
    low, high = np.array([crop.x, crop.y]), np.array([crop.x + crop.width, crop.y + crop.height])
    pixel_of_input = np.array(geometry.scale) * frame / size  # how many pixels of the frame it covers
    if resize == "crop":
        assert (seen[0] >= low - 1e-6).all()
        assert (seen[1] <= high + 1e-6).all()
    elif resize == "letterbox":
        assert (seen[0] <= low + 1e-6).all()
        assert (seen[1] >= high - 1e-6).all()
    else:
        assert np.allclose(seen[:2], [low, high])
    assert np.allclose(seen[2], (low + high) / 2, atol=max(1.0, pixel_of_input.max()))


@pytest.mark.parametrize("crop", [None, Region(40, 30, 200, 130)])
@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_geometry_finds(layout: str, resize: str, crop: Region | None) -> None:
    """A bright rectangle of the frame is found in the input, and the geometry leads from there back to its place."""
    picture = np.zeros((201, 301, 3), np.uint8)
    left, top, right, bottom = 110, 75, 170, 115
    picture[top:bottom, left:right] = 255
    preprocessor = make("uint8", "gray", layout, (64, 48), resize=resize, pad=0)
    out = np.empty(preprocessor.shape, np.uint8)
    geometry = preprocessor(picture, out, crop)
    rows, columns = np.nonzero(out.reshape(48, 64) > 127)
    corners = np.array([[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]]) / (64, 48)
    pixel = np.array(geometry.scale) / (64, 48)
    expected = np.array([[left, top], [right, bottom]]) / (301, 201)
    assert (np.abs(geometry.to_frame(corners) - expected) <= pixel).all()
    assert (np.abs(geometry.to_input(expected) - corners) <= np.array([1 / 64, 1 / 48])).all()
    assert (geometry.width, geometry.height) == (301, 201)


@pytest.mark.parametrize(
    ("size", "inside"),
    [((40, 20), (slice(6, 18), slice(0, 24))), ((20, 40), (slice(0, 24), slice(6, 18))), ((9, 9), (slice(0, 24),) * 2)],
)
def test_letterbox(size: tuple[int, int], inside: tuple[slice, slice]) -> None:
    """A letterboxed picture stands in the middle, and around it is the pad's level, normalised like every other."""
    preprocessor = make("float32 one mean", size=(24, 24), resize="letterbox", pad=51)
    out = prepare(preprocessor, np.full((size[1], size[0], 3), 204, np.uint8))
    expected = np.full((24, 24, 3), (51 - 127.5) / 127.5)
    expected[inside] = (204 - 127.5) / 127.5
    assert out[0] == pytest.approx(expected, abs=1e-6)


def test_extreme_sizes() -> None:
    """One row, one column or one pixel can be shown, however unlike the input's shape."""
    for resize, size in itertools.product(RESIZES, [(1, 1), (300, 1), (1, 300)]):
        levels = set(prepare(make("uint8", resize=resize), np.full((size[1], size[0], 3), 9, np.uint8)).flat)
        assert levels == ({9, 114} if resize == "letterbox" else {9})


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_pickling(layout: str, color: str) -> None:
    """A preprocessor travels to another process: small even after use, and it prepares the same there."""
    preprocessor = make("float32", color, layout, (224, 224))
    picture = noise((640, 360))
    expected = prepare(preprocessor, picture)
    packed = pickle.dumps(preprocessor)
    assert len(packed) < 20_000
    assert np.array_equal(prepare(pickle.loads(packed), picture), expected)


@pytest.mark.parametrize("tensor", ["float32", "float32 one mean", "float16", "int8 quantised"])
@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("resize", "interpolation"), [("letterbox", "linear"), ("crop", "nearest")])
def test_steady_state(layout: str, color: str, tensor: str, resize: str, interpolation: str) -> None:
    """From the second picture on, nothing of a picture's size is allocated."""
    preprocessor = make(tensor, color, layout, (160, 120), resize=resize, interpolation=interpolation)
    picture, out = noise((320, 240)), np.empty(preprocessor.shape, preprocessor.dtype)
    preprocessor(picture, out)
    assert peak_bytes(lambda: np.empty((120, 160), np.uint8)) >= 120 * 160  # arrays are seen at all
    assert peak_bytes(lambda: [preprocessor(picture, out, Region(0, 0, 300, 200)) for _ in range(5)]) < 120 * 160 / 2


def peak_bytes(function: Callable[[], object]) -> int:
    """The most that a call had allocated at once; numpy tells tracemalloc of its arrays."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
@pytest.mark.parametrize("resize", RESIZES)
def test_changing_sizes(resize: str, interpolation: str) -> None:
    """Pictures of other sizes may come between: nothing of the one before is left over."""
    used = make("float32", resize=resize, interpolation=interpolation)
    for seed, size in enumerate([(53, 37), (37, 53), (21, 17), (5, 60), (53, 37), (42, 34)]):
        picture = noise(size, seed)
        assert np.array_equal(
            prepare(used, picture), prepare(make("float32", resize=resize, interpolation=interpolation), picture)
        ), size


def test_picture_is_kept() -> None:
    """The camera's picture, which others will see too, is not written to."""
    for tensor, color in itertools.product(TENSORS, COLORS):
        picture = noise((21, 17))
        picture.flags.writeable = False
        prepare(make(tensor, color), picture)
        assert np.array_equal(picture, noise((21, 17)))


@pytest.mark.parametrize(
    "out",
    [
        np.empty((1, 17, 21, 3), np.float64),
        np.empty((1, 17, 21, 3), np.uint8),
        np.empty((1, 21, 17, 3), np.float32),
        np.empty((17, 21, 3), np.float32),
        np.empty((1, 17, 21, 6), np.float32)[..., ::2],
    ],
    ids=["float64", "uint8", "turned", "no batch", "not contiguous"],
)
def test_wrong_out(out: np.ndarray) -> None:
    """An array that is not the input's is refused, with both descriptions; OpenCV would leave it alone, silently."""
    with pytest.raises(ValueError, match=r"the input is float32 \[1, 17, 21, 3\], contiguous"):
        make("float32")(noise((30, 30)), out)


@pytest.mark.parametrize("tensor", TENSORS)
@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_visible(layout: str, color: str, tensor: str) -> None:
    """What the model sees, turned back, is the picture."""
    preprocessor = make(tensor, color, layout)
    picture = noise((21, 17))
    if tensor == "int8 quantised":  # it cannot hold the outermost levels
        picture = picture // 4 + 60
    seen = preprocessor.visible(prepare(preprocessor, picture)).astype(int)
    most = 1 if preprocessor.spec.quantized else 0
    assert np.abs(seen - picture).max() <= most


@pytest.mark.parametrize("layout", LAYOUTS)
def test_visible_gray(layout: str) -> None:
    """A grey input is seen as a grey picture of three channels."""
    preprocessor = make("float32", "gray", layout)
    seen = preprocessor.visible(prepare(preprocessor, np.full((17, 21, 3), (0, 0, 255), np.uint8)))
    assert seen.shape == (17, 21, 3)
    assert np.unique(seen).tolist() == [76]  # 0.299 of 255


@pytest.mark.parametrize("tensor", TENSORS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_grey_levels(layout: str, tensor: str) -> None:
    """The difference of two tensors, in grey levels, is the difference of their pictures."""
    preprocessor = make(tensor, layout=layout)
    before, after = (prepare(preprocessor, np.full((9, 9, 3), level, np.uint8)) for level in (100, 120))
    levels = preprocessor.grey_levels(after.astype(np.float64) - before.astype(np.float64))
    std = np.broadcast_to(np.array(preprocessor.recipe.std), (3,)).reshape((1, 3, 1, 1) if layout == "nchw" else 3)
    expected = np.broadcast_to(20.0 * np.sign(std), levels.shape)  # a negative std turns light into dark
    assert levels == pytest.approx(expected, abs=0.05 + preprocessor.spec.scale * np.abs(std).max())


def refusal(
    shape: tuple[int, ...] = (1, 8, 8, 3), dtype: str = "float32", scale: float = 0.0, zero: int = 0, **recipe: object
):
    """The error of a recipe that does not fit."""
    with pytest.raises(SettingError) as caught:
        Preprocessor(
            Recipe(**{"color": "rgb", "mean": (0.0,), "std": (1.0,), **recipe}),
            TensorSpec("x", shape, dtype, scale, zero),
        )
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


@pytest.mark.parametrize(
    ("given", "key", "says"),
    [
        ({"std": (0.0,)}, "preprocess.std", "nothing can be divided by 0"),
        ({"std": (1.0, 0.0, 1.0)}, "preprocess.std", "got [1.0, 0.0, 1.0]"),
        ({"std": (float("nan"),)}, "preprocess.std", "one finite number, or 3"),
        ({"mean": (1.0, 2.0)}, "preprocess.mean", "got [1.0, 2.0]; 'rgb' wants one finite number, or 3"),
        ({"std": (1.0,) * 4}, "preprocess.std", "'rgb' wants one finite number, or 3"),
        ({"mean": (1.0,) * 3, "color": "gray", "shape": (1, 8, 8, 1)}, "preprocess.mean", "'gray' wants one finite number"),
        ({"mean": (float("inf"),)}, "preprocess.mean", "finite"),
        ({"color": "gray"}, "preprocess.color", "'gray' has 1 channel(s), but input 'x' [1, 8, 8, 3] as nhwc has 3"),
        ({"shape": (1, 8, 8, 1)}, "preprocess.color", "1 wants gray, 3 wants rgb or bgr"),
        ({"layout": "nchw"}, "preprocess.color", "[1, 8, 8, 3] as nchw has 8"),
        ({"shape": (1, 3, 8, 3)}, "preprocess.layout", "cannot be told from its shape; set nhwc or nchw"),
        ({"shape": (1, 8, 8, 4)}, "preprocess.layout", "cannot be told from its shape"),
        ({"shape": (1, -1, -1, 3)}, "model.path", "every number fixed"),
        ({"shape": (1, 0, 8, 3)}, "model.path", "every number fixed"),
        ({"shape": (2, 8, 8, 3)}, "model.path", "[2, 8, 8, 3]; a picture needs [1, height, width, channels]"),
        ({"shape": (1, 192)}, "model.path", "a picture needs"),
        ({"dtype": "int32", "std": (255.0,)}, "preprocess.mean", "mean 0 and std 1 give it the picture's own"),
        ({"dtype": "int64"}, "model.path", "is int64; a picture can be float32, float16, uint8, int8, int16, int32"),
    ],
)  # fmt: skip
def test_refused(given: dict[str, object], key: str, says: str) -> None:
    """A recipe that cannot fill the input is refused: the key to blame, what it got, and what is allowed."""
    error = refusal(**given)
    assert error.key == key
    assert says in str(error)


def test_said_layout() -> None:
    """Where both layouts fit, the one that is said is taken; else the shape tells."""
    spec = TensorSpec("x", (1, 3, 7, 3), "uint8")
    sizes = {layout: Preprocessor(Recipe("rgb", (0,), (1,), layout=layout), spec) for layout in LAYOUTS}
    assert (sizes["nhwc"].width, sizes["nhwc"].height) == (7, 3)
    assert (sizes["nchw"].width, sizes["nchw"].height) == (3, 7)
    assert (default_layout((1, 3, 8, 8)), default_layout((1, 8, 8, 1)), default_layout((1, 3, 3, 3))) == (
        "nchw",
        "nhwc",
        None,
    )


@pytest.mark.parametrize(
    ("dtype", "mean", "std", "says"),
    [
        (
            "uint8",
            0,
            255,
            "gives 0 to 1, but input 'x' is uint8 and takes whole numbers, 0 to 255; mean 0 and std 1 would fill it",
        ),
        ("uint8", 127.5, 127.5, "gives -1 to 1"),
        ("int8", 127.5, 127.5, "takes whole numbers, -128 to 127; mean 128 and std 1"),
        ("uint8", 128, 1, "gives -128 to 127, but"),
    ],
)
def test_whole_numbers(dtype, mean, std, says):
    """An input of whole numbers without a scale cannot hold a recipe of fractions: every picture would be black or white."""
    error = refusal(dtype=dtype, scale=0, zero=0, mean=(float(mean),), std=(float(std),))
    assert error.key == "preprocess.mean"
    assert says in str(error)


@pytest.mark.parametrize(
    ("dtype", "scale", "zero", "mean", "std", "hint"),
    [
        ("int8", 1 / 255, -128, 0, 1, "mean 0 and std 255 would fill it"),
        ("int8", 1 / 127.5, 0, 0, 1, "mean 128 and std 127.5 would fill it"),
        ("uint8", 1.0, 0, 127.5, 127.5, "mean 0 and std 1 would fill it"),
        ("uint8", 1 / 127.5, 127, 0, 255, None),
        ("uint8", 1 / 128, 128, 0, 128, "would fill it"),
    ],
)  # fmt: skip
def test_normalisation_that_does_not_fit(
    dtype: str, scale: float, zero: int, mean: float, std: float, hint: str | None
) -> None:
    """A quantised input says what it was calibrated for: what it cannot hold is refused, what leaves half of it idle is doubted."""
    recipe = {"mean": (float(mean),), "std": (float(std),)}
    if hint:
        error = refusal(dtype=dtype, scale=scale, zero=zero, **recipe)
        assert error.key == "preprocess.mean"
        assert hint in str(error)
        assert "the recipe gives" in str(error)
        return
    preprocessor = Preprocessor(Recipe("rgb", **recipe), TensorSpec("x", (1, 8, 8, 3), dtype, scale, zero))
    assert preprocessor.doubt
    assert "is this the normalisation that it was trained with?" in preprocessor.doubt


def test_normalisation_that_fits() -> None:
    """The right normalisation raises no doubt, nor does any of a float input."""
    for tensor in TENSORS:
        if tensor != "int8 quantised":
            assert make(tensor).doubt is None, tensor
    assert Preprocessor(Recipe("rgb", (0,), (1000,)), TensorSpec("x", (1, 8, 8, 3), "float32")).doubt is None
