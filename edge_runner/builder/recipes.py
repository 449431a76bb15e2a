"""Recipes on the workstation: the presets, what is nonsense, and the other recipes that a model may have been trained with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from edge_runner.builder.found import Scaling
from edge_runner.errors import SettingError
from edge_runner.model.preprocess import Color, Recipe, Resize

Normalization = tuple[tuple[float, ...], tuple[float, ...], Color | None]
"""Mean, std, and the one colour that they go with."""

# Source of the last two: keras.applications.imagenet_utils, modes "caffe" and "torch"; the latter's figures are of 0..1, here
# times 255.
NORMALIZATIONS: dict[str, Normalization] = {
    "raw": ((0.0,), (1.0,), None),
    "0..1": ((0.0,), (255.0,), None),
    "-1..1": ((127.5,), (127.5,), None),
    "keras-caffe": ((103.939, 116.779, 123.68), (1.0, 1.0, 1.0), "bgr"),
    "keras-torch": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "rgb"),
}
RESIZES: tuple[Resize, ...] = ("stretch", "letterbox", "crop")
LEVELS = 255.0
# How far apart black and white are for the layers that learn: 1, 2 and 4.4 are usual; 255 where only a mean is taken off.
PLAUSIBLE_SPANS = ((0.5, 8.0), (200.0, 300.0))


def check_recipe(recipe: Recipe) -> None:
    """Raise SettingError for figures that can only be of pictures of 0..1."""
    if all(0 < abs(std) < 1 for std in recipe.std):
        mean, std = (",".join(f"{value * LEVELS:g}" for value in values) for values in (recipe.mean, recipe.std))
        raise SettingError(
            f"--std {','.join(map(str, recipe.std))} is of pictures of 0..1, but here x is in 0..255;"
            f" say --mean {mean} --std {std}"
        )


def check_scaling(recipe: Recipe, scaling: Scaling | None) -> None:
    """Raise SettingError where the recipe scales a picture that the model's own first layer scales again, or for the first time."""
    if scaling is None or (_plausible(recipe.std, scaling) and not _normalises_twice(recipe, scaling)):
        return
    mean, std = np.array(recipe.mean), np.array(recipe.std)
    low, high = float(np.min(-mean / std)) + 0.0, float(np.max((LEVELS - mean) / std))  # + 0.0: no "-0"
    better = next((name for name in ("raw", "0..1") if _plausible(NORMALIZATIONS[name][1], scaling)), None)
    raise SettingError(
        f"the model begins with its own layer '{scaling.layer}' (x * {_shown(scaling.factor)} + {_shown(scaling.offset)}), and the"
        f" recipe scales to {low:.4g}..{high:.4g} before it: black and white would be {_span(recipe.std, scaling):.2g} apart"
        + (f"; say --normalize {better}, which leaves it to the model" if better else "")
    )


def variants(ordered: Recipe) -> Iterator[tuple[str, Recipe]]:
    """The recipe that was ordered, and then every other one: presets, both channel orders, every way to resize.

    Each with its name on the command line. Equal ones come once.
    """
    yield described(ordered), ordered
    seen = {_key(ordered)}
    for normalization in (None, *NORMALIZATIONS):
        for color in ("gray",) if ordered.color == "gray" else ("rgb", "bgr"):
            for resize in RESIZES:
                recipe = _variant(ordered, normalization, color, resize)  # type: ignore[arg-type]
                if recipe and _key(recipe) not in seen:
                    seen.add(_key(recipe))
                    yield described(recipe), recipe


def described(recipe: Recipe) -> str:
    """A recipe as the options that say it."""
    own = [name for name, (_, _, color) in NORMALIZATIONS.items() if color in (None, recipe.color)]
    name = next((name for name in own if _key(_preset(recipe, name, recipe.color)) == _key(recipe)), None)
    mean, std = (",".join(f"{v:g}" for v in values) for values in (recipe.mean, recipe.std))
    normalization = f"--normalize {name}" if name else f"--mean {mean} --std {std}"
    return f"{normalization} --color {recipe.color} --resize {recipe.resize}"


def _variant(ordered: Recipe, normalization: str | None, color: Color, resize: Resize) -> Recipe | None:
    """The ordered recipe with another normalisation (None: its own), channel order and resize; None where there is no such."""
    if normalization is None:
        swapped = ordered.color != color
        mean, std = (values[::-1] if swapped else values for values in (ordered.mean, ordered.std))
        return replace(ordered, color=color, mean=mean, std=std, resize=resize)
    preset = _preset(ordered, normalization, color)
    return preset and replace(preset, resize=resize)


def _preset(like: Recipe, name: str, color: Color) -> Recipe | None:
    """A preset in a channel order; its figures stay with their channels."""
    mean, std, own = NORMALIZATIONS[name]
    if color == "gray" and len(mean) > 1:
        return None
    if own and own != color:
        mean, std = mean[::-1], std[::-1]
    return replace(like, color=color, mean=mean, std=std)


def _key(recipe: Recipe | None) -> tuple[object, ...] | None:
    if recipe is None:
        return None
    mean, std = (values * 3 if len(values) == 1 else values for values in (recipe.mean, recipe.std))
    return mean, std, recipe.color, recipe.resize


def _span(std: tuple[float, ...], scaling: Scaling) -> float:
    return float(np.max(np.abs(LEVELS / np.array(std) * np.array(scaling.factor))))


def _plausible(std: tuple[float, ...], scaling: Scaling) -> bool:
    if len(std) not in (1, len(scaling.factor)) and len(scaling.factor) != 1:
        return True  # channels that do not fit are told elsewhere
    return any(low <= _span(std, scaling) <= high for low, high in PLAUSIBLE_SPANS)


def _normalises_twice(recipe: Recipe, scaling: Scaling) -> bool:
    """Whether the layer is for pictures as they are, and the recipe does something to them."""
    (low, high), _ = PLAUSIBLE_SPANS
    return low <= _span((1.0,), scaling) <= high and (any(recipe.mean) or set(recipe.std) != {1.0})


def _shown(values: tuple[float, ...]) -> str:
    return f"{values[0]:.4g}" if len(set(values)) == 1 else f"[{', '.join(f'{v:.4g}' for v in values)}]"
