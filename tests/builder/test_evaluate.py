"""Is the recipe right? Labelled pictures tell, where goldens cannot: both sides of these go through the same recipe."""

from __future__ import annotations

from pathlib import Path

import commands
import cv2
import numpy as np
import pytest

from edge_runner.builder.evaluate import (
    SEARCHED_MOST,
    Labelled,
    accuracy,
    check_labels,
    check_recipes,
    folder_labels,
    read_labelled,
    search,
    verdict,
)
from edge_runner.builder.recipes import variants
from edge_runner.builder.samples import Pictures
from edge_runner.builder.trial import RecipeTrial
from edge_runner.errors import ModelError, SettingError
from edge_runner.model.bundle import read_manifest
from edge_runner.model.flatbuffer import read_graph
from edge_runner.model.interpreter import Interpreter, find_runtime
from edge_runner.model.preprocess import Recipe
from edge_runner.task.base import ModelFacts
from edge_runner.task.classify import Classify, ClassifyConfig

RGB = Recipe("rgb", (0.0,), (255.0,))
BGR = Recipe("bgr", (0.0,), (255.0,))


def classifier(path: Path, *labels: str) -> tuple[Interpreter, Classify]:
    content = path.read_bytes()
    interpreter = Interpreter(content, find_runtime())
    facts = ModelFacts(interpreter.outputs, read_graph(content).endings(), labels, "the test")
    return interpreter, Classify(ClassifyConfig(), facts)


def fill(folder: Path, **counts: int) -> Path:
    """A sub-folder a label, with so many pictures in each."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            assert cv2.imwrite(str(folder / name / f"{number}.png"), np.zeros((2, 2, 3), np.uint8))
    return folder


def test_labels_of_folders(tmp_path):
    """Sub-folders are labels in the order of their names, of their values where they are numbers; hidden ones are none."""
    fill(tmp_path / "names", b=0, a=0, C=0)
    (tmp_path / "names/.cache").mkdir()
    (tmp_path / "names/readme.txt").touch()
    assert folder_labels(tmp_path / "names") == ("C", "a", "b")
    fill(tmp_path / "numbers", **{"10": 0, "9": 0, "0": 0})
    assert folder_labels(tmp_path / "numbers") == ("0", "9", "10")


def test_truths(tmp_path):
    """A folder's pictures have its label's index: by name, by a name that is spelled a little otherwise, or by the index."""
    labels = ("red", "Egyptian cat", "blue", "7", "green")
    folder = fill(tmp_path / "eval", red=5, egyptian_Cat=5, **{"2": 5, "7": 5})
    read = read_labelled(folder, labels, RGB)
    assert read.truths == [2] * 5 + [3] * 5 + [1] * 5 + [0] * 5
    names = [path.parent.name for path in read.pictures.pictures]
    assert names == ["2"] * 5 + ["7"] * 5 + ["egyptian_Cat"] * 5 + ["red"] * 5


@pytest.mark.parametrize(
    ("folders", "labels", "says"),
    [
        ({"red": 30, "purple": 1}, ("red", "green"), r"purple: no label is called 'purple'.*there are red, green"),
        ({"0": 30, "2": 1}, ("red", "green"), "no label is called '2'"),
        ({"crane": 30}, ("crane", "bird", "crane"), "2 labels are called so; name the folder by the index"),
        ({"red": 10, "green": 9}, ("red", "green"), "holds 19 pictures; 20 are the least"),
        ({"red": 30, "green": 0}, ("red", "green"), "green holds no pictures"),
        ({}, ("red", "green"), "has no sub-folders"),
    ],
)
def test_folders_that_do_not_fit(tmp_path, folders, labels, says):
    """A sub-folder that is no label of the model, an empty one, none at all, or too few pictures: refused by name."""
    (tmp_path / "eval").mkdir()
    with pytest.raises(SettingError, match=says):
        read_labelled(fill(tmp_path / "eval", **folders), labels, RGB)


def test_no_folder(tmp_path):
    """A folder that is not there is refused by name."""
    with pytest.raises(SettingError, match=r"--evaluate .*nowhere"):
        read_labelled(tmp_path / "nowhere", ("a",), RGB)


def test_some_of_the_pictures_keep_their_truths():
    """Fewer pictures are spread over all labels, each with its own truth."""
    pictures = [np.full((1, 1, 3), n, np.uint8) for n in range(9)]
    some = Labelled(Pictures(pictures, RGB), [n // 3 for n in range(9)]).some(3)
    assert some.truths == [0, 1, 2]
    assert [int(p[0, 0, 0]) for p in some.pictures.pictures] == [0, 4, 8]


def colourful(count: int = 30) -> Labelled:
    chance = np.random.default_rng(3)
    levels = [(30, 30, 200), (30, 200, 30), (200, 30, 30)]
    pictures = [np.clip(np.array(levels[n % 3]) + chance.integers(-20, 20, (9, 12, 3)), 0, 255) for n in range(count)]
    return Labelled(Pictures([p.astype(np.uint8) for p in pictures], RGB), [n % 3 for n in range(count)])


def found(trials: tuple[RecipeTrial, ...]) -> dict[str, float]:
    return {trial.name: trial.accuracy for trial in trials}


def test_the_channel_order_is_found(data):
    """A model that was trained on rgb and is fed bgr takes red for blue: rgb is found, and named as one types it."""
    labelled, (interpreter, task) = colourful(), classifier(data / "colour.tflite", "red", "green", "blue")
    told: list[int] = []
    trials = search(labelled, BGR, interpreter, task, told.append)
    assert told == list(range(1, 31))
    assert (trials[0].recipe, trials[0].accuracy) == (BGR, pytest.approx(1 / 3))
    assert found(trials)["--normalize 0..1 --color rgb --resize stretch"] == 1
    with pytest.raises(ModelError) as caught:
        check_recipes(trials, 3)
    message = str(caught.value)
    assert "--normalize 0..1 --color bgr --resize stretch the model is right on 33.3%" in message
    assert "--color rgb" in message
    assert "100.0%" in message
    check_recipes(search(labelled, RGB, interpreter, task, told.append), 3)


def test_an_input_of_whole_numbers(data):
    """Recipes that an input of bytes cannot hold are not tried: the search goes on with the others."""
    content = (data / "uint8.tflite").read_bytes()
    interpreter = Interpreter(content, find_runtime())
    facts = ModelFacts(interpreter.outputs, read_graph(content).endings(), ("red", "green", "blue"), "the test")
    task = Classify(ClassifyConfig(), facts)
    low = [spec.scale * (0 - spec.zero_point) for spec in interpreter.inputs]
    high = [spec.scale * (255 - spec.zero_point) for spec in interpreter.inputs]
    ordered = Recipe("rgb", (-low[0] * 255 / (high[0] - low[0]) + 0.0,), (255 / (high[0] - low[0]),))
    trials = search(colourful(), ordered, interpreter, task, lambda done: None)
    assert trials[0].accuracy == 1
    assert 1 < len(trials) < len(list(variants(ordered)))


def test_the_resize_is_found(data):
    """A model that was trained on stretched pictures, and is shown their middle, does not see what lies at the sides."""
    pictures, truths = [], []
    for number in range(24):
        picture = np.zeros((16, 64, 3), np.uint8)
        x, y = number % 2 * 56, number // 2 % 2 * 8
        picture[y : y + 8, x : x + 8] = 255
        pictures.append(picture)
        truths.append(number // 2 % 2 * 2 + number % 2)
    cropped = Recipe("gray", (0.0,), (255.0,), "crop")
    labelled = Labelled(Pictures(pictures, cropped), truths)
    interpreter, task = classifier(data / "quadrant.tflite", "upper left", "upper right", "lower left", "lower right")
    trials = search(labelled, cropped, interpreter, task, lambda done: None)
    assert trials[0].accuracy == 0.25
    with pytest.raises(ModelError, match=r"--resize stretch on 100\.0%"):
        check_recipes(trials, 4)


@pytest.mark.parametrize(
    ("ordered", "best", "classes", "stops"),
    [(0.9, 0.94, 10, False), (0.9, 0.96, 10, True), (0.5, 0.5, 10, False), (0.1, 0.2, 10, False), (0.1, 0.3, 10, True)],
)
def test_a_little_better_is_chance(ordered, best, classes, stops):
    """Only what is clearly better, by more than 5 points, and better than guessing, stops a build and is advised."""
    trials = [RecipeTrial("ordered", RGB, ordered), RecipeTrial("another", BGR, best)]
    if not stops:
        return check_recipes(trials, classes)
    with pytest.raises(ModelError, match=f"with another on {best:.1%}"):
        check_recipes(trials, classes)


LETTERS = tuple("abcdef")


def answered(*recipes: list[int], truths: list[int]) -> list[RecipeTrial]:
    """Trials of which each recipe gave these answers."""
    return [RecipeTrial(f"recipe {n}", RGB, accuracy(w, truths), tuple(w)) for n, w in enumerate(recipes)]


@pytest.mark.parametrize(("shift", "says"), [(1, "lack a first line"), (-1, "have a first line too many")])
def test_labels_off_by_one(shift, says):
    """Answers that fit the labels moved by a line are not a bad model's: the labels are, and in which way is said."""
    truths = [1, 2, 3, 4] * 5
    trials = answered([truth + shift for truth in truths], [0] * 20, truths=truths)
    with pytest.raises(ModelError, match=rf"off by one: 0\.0% .* 100\.0% .*{says}"):
        check_labels(trials, truths, LETTERS)


def test_labels_in_another_order():
    """Answers that fit the labels in another order are not a wrong recipe's: one label is named with the class that it got."""
    truths = [0, 1, 2, 3] * 5
    trials = answered([{0: 0, 1: 3, 2: 1, 3: 2}[truth] for truth in truths], [0, 1, 0, 0] * 5, truths=truths)
    with pytest.raises(ModelError, match=r"pictures of 'b' are mostly answered 'd'.* 25\.0% .* 100\.0% .*--labels"):
        check_labels(trials, truths, LETTERS)


def test_swapped_channels_are_no_matter_of_the_labels():
    """Red for blue looks like two labels exchanged: where another recipe explains as much, the recipe is what is wrong."""
    truths = [0, 1, 2] * 7
    trials = answered([2 - truth for truth in truths], truths, truths=truths)
    check_labels(trials, truths, LETTERS[:3])
    with pytest.raises(ModelError, match="recipe 1 on 100"):
        check_recipes(trials, 3)


@pytest.mark.parametrize(
    "answers",
    [
        [0, 1, 2, 3] * 5,
        [3, 3, 3, 3] * 5,
        [0, 1, 2, 2] * 5,
        [1, 0, 3, 2, 0, 1, 2, 3, 2, 3, 0, 1, 3, 2, 1, 0, 0, 0, 0, 0],
    ],
    ids=["right", "always the same", "two classes for one", "at random"],
)
def test_labels_that_fit(answers):
    """Right answers, and wrong ones that no other labels explain, are no matter of the labels."""
    truths = [0, 1, 2, 3] * 5
    check_labels(answered(answers, truths=truths), truths, LETTERS[:4])


@pytest.mark.parametrize(
    ("top1", "classes", "verified"),
    [(1.0, 4, True), (0.4, 4, True), (0.39, 4, False), (0.25, 4, False), (0.5, 2, False), (0.61, 2, True), (0.21, 1000, True),
     (0.19, 1000, False)],
)  # fmt: skip
def test_verdict(top1, classes, verified):
    """An accuracy vouches for a recipe where it is a fifth of the way from guessing to knowing all."""
    assert (verdict(top1, classes) == "verified") == verified
    if not verified:
        assert verdict(top1, classes).startswith(f"not verified: top-1 is {top1:.1%}")


def test_accuracy():
    """The share of right answers."""
    assert accuracy([1, 2, 3, 4], [1, 2, 0, 0]) == 0.5


@pytest.mark.builder
def test_a_right_recipe_is_verified(colour, pictures):
    """With labelled pictures and the training's recipe, manifest, report and the board's check say `verified`, with top-1."""
    manifest = read_manifest(colour)
    assert manifest.proof["recipe"] == "verified"
    evaluation = manifest.proof["evaluation"]
    assert (evaluation["pictures"], evaluation["saved_model_top1"]) == (32, 1.0)
    assert evaluation["tflite_top1"] == commands.accuracy(colour, pictures)
    assert {"recipe", "top1"} <= set(evaluation["next_best_recipe"])
    assert "recipe verified" in (colour.parent / "said.txt").read_text()


@pytest.mark.builder
@pytest.mark.parametrize(
    "wrong", [("--normalize", "0..1", "--color", "bgr"), ("--normalize", "-1..1"), ("--mean", "0", "--std", "1")]
)
def test_a_wrong_recipe_stops_the_build(refuse, saved_models, pictures, labels, wrong):
    """Swapped channels or another scale: stopped, with both accuracies, and the right recipe as one types it."""
    line = refuse(saved_models / "colour", *wrong, "--labels", labels, "--evaluate", pictures)
    assert "the recipe is wrong" in line
    assert "--normalize 0..1 --color rgb --resize " in line
    assert "100.0%" in line
    assert "--force" in line


@pytest.mark.builder
def test_a_wrong_recipe_is_built_with_force(made, pictures, labels, tmp_path):
    """--force builds it as it was said; the manifest, the report and the board say what is wrong with it."""
    wrong = ("--normalize", "0..1", "--color", "bgr", "--labels", labels, "--evaluate", pictures, "--force")
    bundle = made("colour", *wrong)
    manifest = read_manifest(bundle)
    assert manifest.preprocess.color == "bgr"
    assert (manifest.proof["verdict"], manifest.proof["recipe"]) == ("failed", "not verified")
    [objection] = manifest.proof["objections"]
    assert "--normalize 0..1 --color rgb" in objection
    assert manifest.proof["evaluation"]["saved_model_top1"] == 0.5
    assert "the recipe is wrong" in (bundle / "report.md").read_text().lower()
    checked = commands.check(bundle, tmp_path)
    assert checked.returncode == 0
    assert "the recipe is wrong" in checked.stderr


@pytest.mark.builder
def test_labels_a_line_off(refuse, saved_models, pictures, tmp_path):
    """Labels with a line too many at the top and one missing at the end are seen by the answers, and said."""
    labels = tmp_path / "labels.txt"
    labels.write_text("background\nred\ngreen\nblue\n")
    only = tmp_path / "pictures"
    only.mkdir()
    for name in ("red", "green", "blue"):
        (only / name).symlink_to(pictures / name)
    line = refuse(saved_models / "colour", "--normalize", "0..1", "--labels", labels, "--evaluate", only)
    assert "the labels are off by one" in line
    assert "first line too many" in line


@pytest.mark.builder
def test_labels_are_the_folders_names(made, pictures, tmp_path):
    """Without --labels, as many sub-folders as classes are the labels; their order is proven by the answers."""
    folders = tmp_path / "pictures"
    folders.mkdir()
    for name, label in (("a red", "red"), ("b green", "green"), ("c blue", "blue"), ("d dark", "dark")):
        (folders / name).symlink_to(pictures / label)
    bundle = made("colour", "--normalize", "0..1", "--evaluate", folders)
    assert (bundle / "labels.txt").read_text().split("\n")[:-1] == ["a red", "b green", "c blue", "d dark"]
    assert read_manifest(bundle).proof["recipe"] == "verified"


@pytest.mark.builder
def test_folders_in_another_order_than_the_classes(refuse, saved_models, pictures):
    """Names that sort otherwise than the model's classes would be wrong labels: the answers tell, and --labels is asked for."""
    line = refuse(saved_models / "colour", "--normalize", "0..1", "--evaluate", pictures)
    assert "another order than the model's classes" in line
    assert "pictures of 'blue' are mostly answered 'green'" in line, "blue is the third class, green the third name"
    assert "--labels" in line


def test_no_more_than_are_needed_go_through_every_recipe():
    """The search is bounded, however many pictures there are."""
    labelled = colourful(SEARCHED_MOST + 50).some(SEARCHED_MOST)
    assert len(labelled.truths) == len(labelled.pictures) == SEARCHED_MOST
