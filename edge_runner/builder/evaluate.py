"""Is the recipe right? Top-1 on labelled pictures, through the recipe that was ordered and through every other one.

Goldens go through one recipe on both sides, so they cannot see a wrong mean or swapped channels; labelled pictures can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_runner.builder.proof import winner
from edge_runner.builder.recipes import variants
from edge_runner.builder.samples import Pictures, find_pictures, spread
from edge_runner.builder.trial import RecipeTrial
from edge_runner.errors import ModelError, SettingError
from edge_runner.frame import Tensor
from edge_runner.model.interpreter import Interpreter
from edge_runner.model.preprocess import Preprocessor, Recipe
from edge_runner.task.classify import Classify

PICTURES_LEAST = 20
SEARCHED_MOST = 400  # pictures that go through every recipe
BETTER_BY = 0.05  # another recipe's accuracy, to stop the build
BEYOND_CHANCE_LEAST = 0.2  # of the way from guessing to knowing all; less, and labels or pictures are not the model's

VERIFIED, NOT_VERIFIED = "verified", "not verified"

Truths = list[int]


@dataclass(frozen=True)
class Labelled:
    """Pictures with the index of their true class."""

    pictures: Pictures
    truths: Truths

    def some(self, most: int) -> Labelled:
        chosen = spread(len(self.truths), most)
        return Labelled(self.pictures.some(most), [self.truths[i] for i in chosen])


def folder_labels(folder: Path) -> tuple[str, ...]:
    """The sub-folders' names, numbers by their value."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return tuple(sorted(names, key=int) if all(name.isdecimal() for name in names) else names)


def read_labelled(folder: Path, labels: Sequence[str], recipe: Recipe) -> Labelled:
    """The pictures of a folder with one sub-folder a label; raise SettingError where one is no label of the model.

    A sub-folder's name is the label, or its index where no label is called so.
    """
    names = folder_labels(folder) if folder.is_dir() else ()
    if not names:
        raise SettingError(
            f"--evaluate {folder}: it has no sub-folders; wanted is one a label, with its pictures in it"
        )
    pictures: list[Path | Tensor] = []
    truths: Truths = []
    for name in names:
        found = find_pictures(folder / name)
        pictures += found
        truths += [_index(name, labels, folder)] * len(found)
    if len(truths) < PICTURES_LEAST:
        raise SettingError(
            f"--evaluate {folder} holds {len(truths)} pictures; {PICTURES_LEAST} are the least that tell anything"
        )
    return Labelled(Pictures(pictures, recipe), truths)


def search(
    labelled: Labelled, ordered: Recipe, interpreter: Interpreter, task: Classify, report: Callable[[int], None]
) -> tuple[RecipeTrial, ...]:
    """Top-1 through the ordered recipe, which comes first, and every other. Each picture is read once.

    `interpreter` has float32 inputs, which take the values of any recipe.
    """
    named = [(name, recipe, Preprocessor(recipe, interpreter.inputs[0])) for name, recipe in variants(ordered)]
    right = np.zeros(len(named), int)
    for number, truth in enumerate(labelled.truths):
        picture = labelled.pictures.picture(number)
        answers: dict[bytes, bool] = {}  # square pictures look the same however they are resized
        for index, (_, _, preprocessor) in enumerate(named):
            prepared = np.empty(preprocessor.shape, preprocessor.dtype)
            preprocessor(picture, prepared)
            key = prepared.tobytes()
            if key not in answers:
                answers[key] = winner(task, interpreter.run(prepared)) == truth
            right[index] += answers[key]
        report(number + 1)
    count = len(labelled.truths)
    return tuple(RecipeTrial(name, recipe, int(r) / count) for (name, recipe, _), r in zip(named, right, strict=True))


def check_recipes(trials: Sequence[RecipeTrial]) -> None:
    """Raise ModelError where another recipe than the first is clearly better."""
    ordered, best = trials[0], max(trials, key=lambda trial: trial.accuracy)
    if best.accuracy > ordered.accuracy + BETTER_BY:
        raise ModelError(
            f"the recipe is wrong: with {ordered.name} the model is right on {ordered.accuracy:.1%} of the labelled pictures,"
            f" with {best.name} on {best.accuracy:.1%}; build it with that"
        )


def check_labels(winners: Sequence[int], truths: Truths) -> None:
    """Raise ModelError where the answers fit the labels moved by a line."""
    right = {shift: float(np.mean(np.array(winners) == np.array(truths) + shift)) for shift in (-1, 0, 1)}
    best = max(right, key=lambda shift: right[shift])
    what = "lack a first line" if best == 1 else "have a first line too many"
    if right[best] > right[0] + BETTER_BY:
        raise ModelError(
            f"the labels are off by one: {right[0]:.1%} of the answers are right, {right[best]:.1%} would be with the labels"
            f" moved by a line; they {what}, such as 'background'"
        )


def verdict(top1: float, classes: int) -> str:
    """`verified`, or why an accuracy, 0..1, says too little to vouch for a recipe."""
    chance = 1 / classes
    if (top1 - chance) / (1 - chance) >= BEYOND_CHANCE_LEAST:
        return VERIFIED
    return f"{NOT_VERIFIED}: top-1 is {top1:.1%}, with {classes} classes hardly better than guessing"


def accuracy(winners: Sequence[int], truths: Truths) -> float:
    """The share, 0..1, of samples whose best class is the true one."""
    return float(np.mean(np.array(winners) == np.array(truths)))


def _index(name: str, labels: Sequence[str], folder: Path) -> int:
    for same in (str, _loose):
        found = [index for index, label in enumerate(labels) if same(label) == same(name)]
        if len(found) > 1:
            raise SettingError(
                f"--evaluate {folder / name}: {len(found)} labels are called so; name the folder by the index"
            )
        if found:
            return found[0]
    if name.isdecimal() and int(name) < len(labels):
        return int(name)
    raise SettingError(
        f"--evaluate {folder / name}: no label is called '{name}', and it is no index; there are {', '.join(labels[:5])}, …"
    )


def _loose(text: str) -> str:
    return text.replace("_", " ").strip().casefold()
