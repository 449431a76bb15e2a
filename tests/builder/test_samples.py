"""What a build feeds a model: pictures and arrays, those that fit, and those that are refused."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_runner.builder.samples import (
    Arrays,
    Pictures,
    check_colours,
    find_pictures,
    golden_pictures,
    made_up_arrays,
    made_up_pictures,
    noisy,
    one_input,
    quantized,
    read_arrays,
    read_picture,
    shrunk,
    spread,
)
from edge_runner.errors import SettingError
from edge_runner.frame import TensorSpec
from edge_runner.model.preprocess import Preprocessor, Recipe

RECIPE = Recipe("rgb", (0.0,), (255.0,))
PICTURE = TensorSpec("picture", (1, 8, 8, 3), "float32")
A, B = TensorSpec("a", (1, 4), "float32"), TensorSpec("b", (1, 2, 2), "float32")


def paint(path: Path, *levels: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((6, 9, 3), levels, np.uint8))
    return path


def test_pictures_are_found_below_folders(tmp_path):
    """Every picture in any sub-folder counts, in the order of the paths, whatever the case of its ending; nothing else does."""
    for name in ("b/1.png", "a/2.JPG", "a/deep/er/3.bmp", "c.webp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a/notes.txt").touch()
    (tmp_path / "folder.png").mkdir()
    found = [str(path.relative_to(tmp_path)) for path in find_pictures(tmp_path)]
    assert found == ["a/2.JPG", "a/deep/er/3.bmp", "b/1.png", "c.webp"]


def test_no_pictures(tmp_path):
    """An empty folder, a missing one and a file are refused by name; endings that would count are listed."""
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingError, match=r"empty holds no pictures .*\.png"):
        find_pictures(tmp_path / "empty")
    for name in ("nowhere", "file"):
        with pytest.raises(SettingError, match=f"{name} is no folder of pictures"):
            find_pictures(tmp_path / name)


def test_a_file_that_is_no_picture(tmp_path):
    """What ends as a picture and is none is named."""
    (tmp_path / "cat.jpg").write_text("not a cat")
    with pytest.raises(SettingError, match=r"cat\.jpg cannot be read as a picture"):
        read_picture(tmp_path / "cat.jpg")


def test_pictures_go_through_the_boards_own_recipe(tmp_path):
    """What the SavedModel is fed is what the board's preprocessor makes, bit by bit, of files and of pictures in memory."""
    path = paint(tmp_path / "1.png", 10, 20, 30)
    recipe = Recipe("bgr", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), "letterbox", "area")
    expected = np.empty(PICTURE.shape, np.float32)
    Preprocessor(recipe, PICTURE)(read_picture(path), expected)
    for picture in (path, read_picture(path)):
        [tensor] = Pictures([picture], recipe).feeder([PICTURE])(0)
        assert tensor.dtype == np.float32
        assert np.array_equal(tensor, expected)


def test_each_sample_is_its_own(tmp_path):
    """A tensor that was handed out is not changed by the next one."""
    pictures = Pictures([np.full((8, 8, 3), level, np.uint8) for level in (0, 255)], RECIPE)
    feed = pictures.feeder([PICTURE])
    [first], [second] = feed(0), feed(1)
    assert (first.max(), second.min()) == (0, 1)


def test_samples_go_to_other_processes(tmp_path):
    """Samples survive a trip to the process that has TensorFlow."""
    pictures = Pictures([paint(tmp_path / "1.png", 1, 2, 3)], RECIPE)
    arrays = Arrays({"a": np.zeros((3, 4))}, "here")
    again = pickle.loads(pickle.dumps((pictures, arrays)))
    assert np.array_equal(again[0].feeder([PICTURE])(0)[0], pictures.feeder([PICTURE])(0)[0])
    assert len(again[1]) == 3


@pytest.mark.parametrize(
    ("count", "most", "chosen"),
    [(3, 5, [0, 1, 2]), (5, 5, [0, 1, 2, 3, 4]), (9, 3, [0, 4, 8]), (1, 1, [0]), (1000, 4, [0, 333, 666, 999])],
)
def test_some_are_spread_over_all(count, most, chosen):
    """Fewer than there are: evenly from the first to the last, so that no label is left out; never more than there are."""
    assert spread(count, most) == chosen
    arrays = Arrays({"a": np.arange(count)[:, None]}, "here").some(most)
    assert arrays.arrays["a"].ravel().tolist() == chosen
    pictures = Pictures([np.full((1, 1, 3), n % 256, np.uint8) for n in range(count)], RECIPE).some(most)
    assert [int(p[0, 0, 0]) for p in pictures.pictures] == [n % 256 for n in chosen]


def test_a_picture_feeds_one_input():
    """A model of several inputs is not fed pictures; its inputs are listed."""
    with pytest.raises(SettingError, match=r"2 inputs \('a' float32 \[1, 4\], 'b' float32 \[1, 2, 2\]\)"):
        one_input([A, B])
    assert one_input([PICTURE]) is PICTURE


def test_arrays_feed_inputs_by_name():
    """Each input gets the array of its name, a batch of 1 before it; values become the input's type."""
    arrays = Arrays(
        {"b": np.arange(12).reshape(3, 2, 2), "a": np.arange(12.0).reshape(3, 4), "more": np.zeros(3)}, "here"
    )
    a, b = arrays.feeder([A, B])(1)
    assert (a.dtype, a.tolist()) == (np.float32, [[4, 5, 6, 7]])
    assert (b.dtype, b.tolist()) == (np.float32, [[[4, 5], [6, 7]]])


def test_one_array_feeds_the_one_input_whatever_its_name():
    """Converters rename inputs: one array alone needs no name. A sample may have its batch of 1 already."""
    for shape in ((3, 4), (3, 1, 4)):
        arrays = Arrays({"arr_0": np.arange(12.0).reshape(shape)}, "here")
        assert arrays.feeder([A])(2)[0].tolist() == [[8, 9, 10, 11]]


@pytest.mark.parametrize(
    ("arrays", "inputs", "says"),
    [
        ({"a": (3, 4), "c": (3, 2, 2)}, [A, B], r"here has no array 'b'; it has a, c"),
        ({"a": (3, 4)}, [A, B], r"here has no array 'b'"),
        ({"a": (3, 5)}, [A], r"'a' has the shape \[3, 5\]; wanted is \[samples, 4\]"),
        ({"a": (4,)}, [A], r"\[4\]; wanted is \[samples, 4\]"),
        (
            {"a": (3, 16, 16, 4)},
            [TensorSpec("x", (1, 16, 16, 3), "float32")],
            r"\[3, 16, 16, 4\].*\[samples, 16, 16, 3\]",
        ),
        ({"a": (3, 2, 4)}, [A], r"\[3, 2, 4\]; wanted is \[samples, 4\]"),
    ],
)
def test_arrays_that_do_not_fit(arrays, inputs, says):
    """A missing array, and one of another shape or other channels, is refused with both shapes before anything is run."""
    with pytest.raises(SettingError, match=says):
        Arrays({name: np.zeros(shape) for name, shape in arrays.items()}, "here").feeder(inputs)


def test_quantized_values():
    """real = (q - zero point) * scale, backwards, cut to the type's range; what is not quantised keeps its values."""
    spec = TensorSpec("x", (1, 5), "int8", 0.5, 10)
    assert quantized(np.array([[-100.0, 0, 0.2, 0.3, 100]]), spec).tolist() == [[-128, 10, 10, 11, 127]]
    assert quantized(np.array([[1.5]]), A).tolist() == [[1.5]]
    assert quantized(np.array([[1.5]]), A).dtype == np.float32
    assert quantized(np.array([3]), TensorSpec("i", (1,), "int32")).dtype == np.int32


def write(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def test_arrays_are_read(tmp_path):
    """All arrays of an .npz, by their names."""
    path = write(tmp_path / "x.npz", a=np.ones((2, 4)), b=np.zeros((2, 1)))
    read = read_arrays(path)
    assert (len(read), list(read.arrays), read.source) == (2, ["a", "b"], str(path))


def test_arrays_that_cannot_be_used(tmp_path):
    """An .npz with nothing in it, with no samples, or with more of one input than of another is refused, counts and all."""
    for number, arrays in enumerate(({}, {"a": np.zeros((0, 4))}, {"a": np.array(1.0)})):
        with pytest.raises(SettingError, match="holds no samples"):
            read_arrays(write(tmp_path / f"{number}.npz", **arrays))
    with pytest.raises(SettingError, match=r"'a' 3, 'b' 2"):
        read_arrays(write(tmp_path / "unequal.npz", a=np.zeros((3, 4)), b=np.zeros((2, 4))))


def test_pickles_are_never_opened(tmp_path):
    """An array of objects would run whatever its maker wanted: it is refused unopened."""

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "was_here",))

    path = write(tmp_path / "evil.npz", a=np.array([Evil()], dtype=object))
    with pytest.raises(SettingError, match=r"evil\.npz"):
        read_arrays(path)
    assert not (tmp_path / "was_here").exists()


def damaged(path: Path, kind: str) -> Path:
    whole = write(path, a=np.arange(4000.0).reshape(20, 200)).read_bytes()
    if kind == "one array":
        with path.open("wb") as file:
            np.save(file, np.zeros((20, 4)))
    elif kind == "changed":
        path.write_bytes(whole[:3000] + bytes(100) + whole[3100:])
    elif kind == "another zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "text")
    else:
        path.write_bytes({"empty": b"", "text": b"1 2 3", "cut": whole[:3000]}[kind])
    return path


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "one array", "changed", "another zip"])
def test_what_is_no_npz(tmp_path, kind):
    """A file that is no .npz, or a damaged one, is refused by name."""
    with pytest.raises(SettingError, match=r"x\.npz"):
        read_arrays(damaged(tmp_path / "x.npz", kind))


def test_made_up_samples_are_the_same_each_time():
    """Two builds without --calibration see the same pictures, or the same noise, and no two samples are alike."""
    one, other = made_up_pictures(RECIPE), made_up_pictures(RECIPE)
    assert len(one) >= 4
    assert all(np.array_equal(one.picture(i), other.picture(i)) for i in range(len(one)))
    assert len({one.picture(i).tobytes() for i in range(len(one))}) == len(one)
    specs = [A, TensorSpec("indices", (1, 3), "int32")]
    noise, again = made_up_arrays(specs), made_up_arrays(specs)
    assert all(np.array_equal(noise.arrays[s.name], again.arrays[s.name]) for s in specs)
    assert 0.5 < noise.arrays["a"].std() < 1.5
    assert not noise.arrays["indices"].any(), "an index must be in range"
    assert [tensor.dtype for tensor in noise.feeder(specs)(0)] == [np.float32, np.int32]


def test_grey_pictures_for_a_colour_model(tmp_path):
    """Pictures that have no colour at all are not what a colour model will see; one coloured picture is enough to pass."""
    grey = [paint(tmp_path / f"grey/{n}.png", n, n, n) for n in range(30)]
    with pytest.raises(SettingError, match=r"grey are grey, but the model is fed bgr"):
        check_colours(Pictures(grey, Recipe("bgr", (0.0,), (255.0,))))
    check_colours(Pictures(grey, Recipe("gray", (0.0,), (255.0,))))
    check_colours(Pictures([*grey[:5], paint(tmp_path / "red.png", 0, 0, 9)], RECIPE))


def test_goldens_are_few_small_and_of_the_same_form():
    """Four pictures spread over all, the shorter side at most twice the model's input, their form kept."""
    pictures = Pictures([np.full((480, 640, 3), level, np.uint8) for level in range(10)], RECIPE)
    goldens = golden_pictures(pictures, 48, 48, [True] * 10)
    assert [goldens.picture(i).shape for i in range(len(goldens))] == [(96, 128, 3)] * 4
    assert [int(goldens.picture(i)[0, 0, 0]) for i in range(4)] == [0, 3, 6, 9]
    assert goldens.recipe is RECIPE
    small = np.zeros((10, 20, 3), np.uint8)
    assert shrunk(small, 96) is small


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (range(10), [0, 3, 6, 9]),
        ((), [0, 3, 6, 9]),
        ((1, 2, 3, 4, 5, 6, 7), [1, 3, 5, 7]),
        ((8,), [0, 4, 8, 9]),  # three more, spread over the other nine
        ((4, 5, 6), [0, 4, 5, 6]),
    ],
)
def test_goldens_are_those_with_something_to_find(wanted, chosen):
    """Pictures in which the model finds something come first, spread over all of those; others only where they are too few."""
    pictures = Pictures([np.full((48, 48, 3), level, np.uint8) for level in range(10)], RECIPE)
    goldens = golden_pictures(pictures, 48, 48, [number in wanted for number in range(10)])
    assert [int(goldens.picture(i)[0, 0, 0]) for i in range(len(goldens))] == chosen


def test_noise_is_one_level_at_most():
    """Noise moves a level by one at the most, stays within 0..255, and is the same for the same seed."""
    picture = np.array([[[0, 128, 255]] * 50], np.uint8)
    difference = noisy(picture, 1).astype(int) - picture
    assert set(np.unique(difference)) == {-1, 0, 1}
    assert np.array_equal(noisy(picture, 1), noisy(picture, 1))
    assert not np.array_equal(noisy(picture, 1), noisy(picture, 2))
