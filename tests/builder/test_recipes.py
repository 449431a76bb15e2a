"""Recipes on the workstation: presets, nonsense that is seen without a picture, and every other recipe to try."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_runner.builder.found import Scaling
from edge_runner.builder.recipes import NORMALIZATIONS, check_recipe, check_scaling, described, variants
from edge_runner.errors import SettingError
from edge_runner.frame import TensorSpec
from edge_runner.model.preprocess import Preprocessor, Recipe

RGB = Recipe("rgb", (127.5,), (127.5,))
TORCH = Recipe("rgb", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def recipe(name: str, color: str = "rgb") -> Recipe:
    mean, std, own = NORMALIZATIONS[name]
    return Recipe(own or color, mean, std)


def test_presets_are_what_keras_does():
    """Each preset maps black and white to what its framework trains with, channel by channel."""
    mapped = {
        name: [((0 - m) / s, (255 - m) / s) for m, s in zip(mean, std, strict=True)]
        for name, (mean, std, _) in NORMALIZATIONS.items()
    }
    assert set(mapped) == {"raw", "0..1", "-1..1", "keras-caffe", "keras-torch"}
    assert (mapped["raw"], mapped["0..1"], mapped["-1..1"]) == ([(0, 255)], [(0, 1)], [(-1, 1)])
    assert [low for low, _ in mapped["keras-caffe"]] == [-103.939, -116.779, -123.68], "blue first"
    torch = [(-m / s, (1 - m) / s) for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)]
    assert np.allclose(mapped["keras-torch"], torch)
    assert {name: color for name, (_, _, color) in NORMALIZATIONS.items() if color} == {
        "keras-caffe": "bgr", "keras-torch": "rgb",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("mean", "std", "says"),
    [
        ((0.5,), (0.5,), "--mean 127.5 --std 127.5"),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "--mean 123.675,116.28,103.53 --std 58.395,57.12,57.375"),
    ],
)
def test_figures_of_0_to_1(mean, std, says):
    """A std below 1 can only be of pictures of 0..1: it is refused with the same figures of 0..255."""
    with pytest.raises(SettingError) as caught:
        check_recipe(Recipe("rgb", mean, std))
    assert says in str(caught.value)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_presets_are_no_nonsense(name):
    """No preset is refused."""
    check_recipe(recipe(name))


RESCALING = Scaling("rescaling", (1 / 255,), (0.0,))
TO_MINUS_1 = Scaling("rescaling_1", (1 / 127.5,), (-1.0,))
NORMALIZATION = Scaling(
    "normalization",
    tuple(1 / (255 * s) for s in (0.229, 0.224, 0.225)),
    tuple(-m / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)),
)
OF_0_TO_1 = Scaling("normalization_2", tuple(1 / s for s in (0.229, 0.224, 0.225)), (-2.0, -2.0, -2.0))


@pytest.mark.parametrize(
    ("name", "scaling", "better"),
    [
        ("0..1", RESCALING, "raw"),
        ("-1..1", RESCALING, "raw"),
        ("keras-torch", RESCALING, "raw"),
        ("-1..1", TO_MINUS_1, "raw"),
        ("keras-caffe", RESCALING, "raw"),
        ("0..1", NORMALIZATION, "raw"),
        ("raw", OF_0_TO_1, "0..1"),
    ],
)
def test_scaled_twice(name, scaling, better):
    """Where the model's first layer scales pictures itself, a recipe that does so too is refused: layer, and what to say."""
    with pytest.raises(SettingError) as caught:
        check_scaling(recipe(name), scaling)
    assert f"'{scaling.layer}'" in str(caught.value)
    assert f"--normalize {better}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "scaling"),
    [
        ("raw", None),
        ("-1..1", None),
        ("raw", RESCALING),
        ("raw", TO_MINUS_1),
        ("raw", NORMALIZATION),
        ("0..1", OF_0_TO_1),
        ("0..1", Scaling("normalization_3", (2.0,), (-1.0,))),
        ("keras-caffe", Scaling("shift", (1.0,), (3.0,))),
    ],
)
def test_scaled_once(name, scaling):
    """What comes to usual values for the layers that learn is let through."""
    check_scaling(recipe(name), scaling)


def shown(tried: Recipe) -> np.ndarray:
    """What a recipe makes of one picture whose channels, width and height tell everything apart."""
    picture = np.zeros((30, 50, 3), np.uint8)
    picture[...] = np.arange(50, dtype=np.uint8)[None, :, None] * np.array([1, 2, 5], np.uint8)
    channels = 1 if tried.color == "gray" else 3
    out = np.empty((1, 8, 8, channels), np.float32)
    Preprocessor(tried, TensorSpec("x", out.shape, "float32"))(picture, out)
    return out


@pytest.mark.parametrize("ordered", [RGB, TORCH, recipe("keras-caffe"), Recipe("bgr", (9.0,), (50.0,), "crop", "area")])
def test_every_other_recipe(ordered):
    """The ordered recipe comes first; then each preset in both channel orders and all ways to resize, no two alike."""
    tried = list(variants(ordered))
    names = [name for name, _ in tried]
    assert tried[0] == (described(ordered), ordered)
    assert len(set(names)) == len(names)
    for normalization in NORMALIZATIONS:
        own = NORMALIZATIONS[normalization][2]
        for color in (own,) if own else ("rgb", "bgr"):
            for resize in ("stretch", "letterbox", "crop"):
                assert f"--normalize {normalization} --color {color} --resize {resize}" in names
    of_torch = {(r.color, r.resize) for _, r in tried if sorted(r.std) == sorted(TORCH.std)}
    assert of_torch == {(c, r) for c in ("rgb", "bgr") for r in ("stretch", "letterbox", "crop")}, "both channel orders"
    assert len({shown(r).tobytes() for _, r in tried}) == len(tried)
    assert {r.interpolation for _, r in tried} == {ordered.interpolation}


def test_figures_stay_with_their_channels():
    """In the other channel order, red keeps its own mean and std."""
    swapped = dict(variants(TORCH))[
        "--mean 103.53,116.28,123.675 --std 57.375,57.12,58.395 --color bgr --resize stretch"
    ]
    assert (swapped.color, swapped.mean, swapped.std) == ("bgr", TORCH.mean[::-1], TORCH.std[::-1])
    assert np.array_equal(shown(swapped), shown(TORCH)[..., ::-1])


def test_grey_has_no_channel_order():
    """A grey model is tried grey, and with no preset that has a figure a channel."""
    tried = [r for _, r in variants(Recipe("gray", (0.0,), (255.0,)))]
    assert {r.color for r in tried} == {"gray"}
    assert {len(r.mean) for r in tried} == {1}
    assert len(tried) == 3 * 3


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (RGB, "--normalize -1..1 --color rgb --resize stretch"),
        (replace(RGB, mean=(127.5,) * 3, std=(127.5,) * 3), "--normalize -1..1 --color rgb --resize stretch"),
        (TORCH, "--normalize keras-torch --color rgb --resize stretch"),
        (Recipe("bgr", (1.0, 2.0, 3.0), (4.0,), "crop"), "--mean 1,2,3 --std 4 --color bgr --resize crop"),
    ],
)
def test_described_as_it_is_typed(told, name):
    """A recipe's name is what one types to have it."""
    assert described(told) == name
