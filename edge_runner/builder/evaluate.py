"""Is the recipe right? Top-1 on labelled pictures, through the recipe that was ordered and through every other one.

Goldens go through one recipe on both sides, so they cannot see a wrong mean or swapped channels; labelled pictures can.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_runner.builder.proof import winner
from edge_runner.builder.recipes import variants
from edge_runner.builder.samples import Pictures, find_pictures, spread
from edge_runner.builder.trial import RecipeTrial
from edge_runner.errors import ModelError, SettingError
from edge_runner.frame import Tensor, TensorSpec
from edge_runner.model.interpreter import Interpreter
from edge_runner.model.preprocess import Preprocessor, Recipe
from edge_runner.task.classify import Classify

PICTURES_LEAST = 20
SEARCHED_MOST = 400  # pictures that go through every recipe
PICTURES_A_LABEL_LEAST = 5  # to say what its pictures are mostly answered with
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


def label_index(name: str, labels: Sequence[str], folder: Path) -> int:
    """The index of the label that a sub-folder's name stands for: the label, loosely the label, or its index.

    Raise SettingError where there is none, or more than one.
    """
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
        " (--labels names them)"
    )


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
        truths += [label_index(name, labels, folder)] * len(found)
    if len(truths) < PICTURES_LEAST:
        raise SettingError(
            f"--evaluate {folder} holds {len(truths)} pictures; {PICTURES_LEAST} are the least that tell anything"
        )
    return Labelled(Pictures(pictures, recipe), truths)


def search(
    labelled: Labelled, ordered: Recipe, interpreter: Interpreter, task: Classify, report: Callable[[int], None]
) -> tuple[RecipeTrial, ...]:
    """Top-1 through the ordered recipe, which comes first, and every other. Each picture is read once.

    A recipe that the input cannot hold, of whole numbers for one, is none that the model was trained with.
    """
    named = list(_bound(ordered, interpreter.inputs[0]))
    winners = np.zeros((len(named), len(labelled.truths)), int)
    for number in range(len(labelled.truths)):
        picture = labelled.pictures.picture(number)
        answers: dict[bytes, int] = {}  # square pictures look the same however they are resized
        for index, (_, _, preprocessor) in enumerate(named):
            prepared = np.empty(preprocessor.shape, preprocessor.dtype)
            preprocessor(picture, prepared)
            key = prepared.tobytes()
            if key not in answers:
                answers[key] = winner(task, interpreter.run(prepared))
            winners[index, number] = answers[key]
        report(number + 1)
    return tuple(
        RecipeTrial(name, recipe, accuracy(found, labelled.truths), tuple(map(int, found)))
        for (name, recipe, _), found in zip(named, winners, strict=True)
    )


def check_labels(trials: Sequence[RecipeTrial], truths: Truths, labels: Sequence[str]) -> None:
    """Raise ModelError where other labels explain the answers better than any other recipe does."""
    ordered, best = trials[0], max(trial.accuracy for trial in trials)
    shifts = {shift: float(np.mean(np.array(ordered.winners) == np.array(truths) + shift)) for shift in (-1, 1)}
    shift = max(shifts, key=lambda shift: shifts[shift])
    renamed, meant = _renamed(ordered.winners, truths)
    explained = max(shifts[shift], renamed)
    if explained <= max(best, ordered.accuracy + BETTER_BY) or not _beyond_chance(explained, len(labels)):
        return
    if shifts[shift] == explained:
        what = "lack a first line" if shift == 1 else "have a first line too many"
        raise ModelError(
            f"the labels are off by one: {ordered.accuracy:.1%} of the answers are right, {explained:.1%} would be with the"
            f" labels moved by a line; they {what}, such as 'background'"
        )
    truth, answer = next((truth, answer) for truth, answer in meant.items() if truth != answer)
    raise ModelError(
        f"the labels are in another order than the model's classes: pictures of '{labels[truth]}' are mostly answered"
        f" '{labels[answer]}'; {ordered.accuracy:.1%} of the answers are right, {explained:.1%} would be with each label in its"
        " place; name the model's own with --labels"
    )


def check_recipes(trials: Sequence[RecipeTrial], classes: int) -> None:
    """Raise ModelError where another recipe than the first is clearly better, and better than guessing."""
    ordered, best = trials[0], max(trials, key=lambda trial: trial.accuracy)
    if best.accuracy > ordered.accuracy + BETTER_BY and _beyond_chance(best.accuracy, classes):
        raise ModelError(
            f"the recipe is wrong: with {ordered.name} the model is right on {ordered.accuracy:.1%} of the labelled pictures,"
            f" with {best.name} on {best.accuracy:.1%}; build it with that"
        )


def verdict(top1: float, classes: int) -> str:
    """`verified`, or why an accuracy, 0..1, says too little to vouch for a recipe."""
    if _beyond_chance(top1, classes):
        return VERIFIED
    return f"{NOT_VERIFIED}: top-1 is {top1:.1%}, with {classes} classes hardly better than guessing"


def accuracy(winners: Sequence[int], truths: Truths) -> float:
    """The share, 0..1, of samples whose best class is the true one."""
    return float(np.mean(np.array(winners) == np.array(truths)))


def _bound(ordered: Recipe, spec: TensorSpec) -> Iterator[tuple[str, Recipe, Preprocessor]]:
    for name, recipe in variants(ordered):
        with suppress(SettingError):
            yield name, recipe, Preprocessor(recipe, spec)


def _beyond_chance(top1: float, classes: int) -> bool:
    chance = 1 / classes
    return classes > 1 and (top1 - chance) / (1 - chance) >= BEYOND_CHANCE_LEAST


def _renamed(winners: Sequence[int], truths: Truths) -> tuple[float, dict[int, int]]:
    """The accuracy if each label stood for the class that its pictures are mostly answered with, and these classes.

    0 where there are too few pictures of a label to tell, or two labels had the same class.
    """
    answers: dict[int, Counter[int]] = {}
    for truth, answer in zip(truths, winners, strict=True):
        answers.setdefault(truth, Counter())[answer] += 1
    meant = {truth: counted.most_common(1)[0][0] for truth, counted in answers.items()}
    if min(counted.total() for counted in answers.values()) < PICTURES_A_LABEL_LEAST or len(set(meant.values())) < len(
        meant
    ):
        return 0.0, meant
    return sum(counted.most_common(1)[0][1] for counted in answers.values()) / len(truths), meant


def _loose(text: str) -> str:
    return text.replace("_", " ").strip().casefold()
