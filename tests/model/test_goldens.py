"""Goldens: the proof travels with the bundle, and each way to break it is told apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from bundles import RECIPE, TOLERANCE, make_bundle, make_goldens

from edge_runner.errors import EXIT_CONFIG, ModelError
from edge_runner.frame import Tensor
from edge_runner.model.goldens import (
    Deviation,
    Golden,
    Goldens,
    compare,
    read_goldens,
    recipe_dict,
    recipe_differences,
    replay,
    summary,
)
from edge_runner.model.interpreter import Interpreter, find_runtime
from edge_runner.model.preprocess import Preprocessor, Recipe

pytestmark = pytest.mark.arm


@pytest.fixture
def content(data: Path) -> bytes:
    return (data / "colour.tflite").read_bytes()


@pytest.fixture
def replayed(content: bytes) -> Callable[[Goldens], list[str]]:
    """Replay goldens on this machine."""
    interpreter = Interpreter(content, find_runtime())
    preprocessor = Preprocessor(RECIPE, interpreter.inputs[0])
    return lambda goldens: faults(replay(goldens, preprocessor, interpreter, same_best))


def faults(deviations: Sequence[Deviation]) -> list[str]:
    return [fault for deviation in deviations for fault in deviation.faults]


def same_best(expected: Sequence[Tensor], got: Sequence[Tensor], tolerances: Sequence[float]) -> str | None:
    before, after = int(np.argmax(expected[0])), int(np.argmax(got[0]))
    return None if before == after else f"the answer is {after}, the host's was {before}"


def first_changed(goldens: Goldens, **changes: object) -> Goldens:
    return replace(goldens, items=[replace(goldens.items[0], **changes), *goldens.items[1:]])


def test_dump(tmp_path: Path, content: bytes) -> None:
    """Equal goldens are equal files, whenever they are written, and are read as they were."""
    made = make_goldens(content)
    path = tmp_path / "golden.npz"
    path.write_bytes(made.dump())
    assert make_goldens(content).dump() == made.dump() == read_goldens(path).dump()
    read = read_goldens(path)
    assert (read.recipe, read.tolerances) == (recipe_dict(RECIPE), [TOLERANCE])
    for before, after in zip(made.items, read.items, strict=True):
        assert np.array_equal(before.picture, after.picture)
        assert (before.inputs[0].dtype, before.inputs[0].tobytes()) == (
            after.inputs[0].dtype,
            after.inputs[0].tobytes(),
        )
        assert np.array_equal(before.outputs, after.outputs)
        assert np.array_equal(before.reference, after.reference)


def test_another_dump(content: bytes) -> None:
    """Any other content is another file."""
    made = make_goldens(content)
    others = [
        replace(made, tolerances=[0.002]),
        replace(made, recipe={**made.recipe, "color": "bgr"}),
        first_changed(made, picture=made.items[0].picture + 1),
        first_changed(made, reference=[made.items[0].reference[0] + 1e-6]),
    ]
    assert len({made.dump(), *(other.dump() for other in others)}) == 5


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "no recipe", "an output short", "pickled"])
def test_damaged(tmp_path: Path, content: bytes, damage: str) -> None:
    """A golden file that cannot be read is named; nothing in it is ever unpickled."""
    path = tmp_path / "golden.npz"
    good = make_goldens(content).dump()
    path.write_bytes({"empty": b"", "text": b"cat\ndog\n", "cut": good[: len(good) // 2]}.get(damage, good))
    if damage in ("no recipe", "an output short", "pickled"):
        with np.load(path) as file:
            arrays = dict(file)
        arrays.pop({"no recipe": "recipe", "an output short": "tflite_1_0", "pickled": "recipe"}[damage])
        if damage == "pickled":
            arrays["recipe"] = np.array([{"color": "rgb"}], dtype=object)
        np.savez(path, **arrays)
    with pytest.raises(ModelError) as caught:
        read_goldens(path)
    assert str(caught.value).startswith(f"{path} is damaged: ")


def test_replay_passes(content: bytes, replayed: Callable[[Goldens], list[str]]) -> None:
    """On the machine that made them, and with noise within the tolerances, the goldens hold."""
    made = make_goldens(content)
    assert recipe_differences(made, RECIPE) == []
    assert replayed(made) == []
    near = made.items[0].inputs[0] + np.float32(3.9 / 255) * (np.arange(192).reshape(1, 8, 8, 3) % 8 == 0)
    assert replayed(first_changed(made, inputs=[near.astype(np.float32)], outputs=answer(content, near))) == []
    assert replayed(first_changed(made, outputs=[made.items[0].outputs[0] + np.float32(TOLERANCE * 0.9)])) == []


def test_how_far(content: bytes) -> None:
    """How far a machine is from the host is measured too, where it is not too far: levels, and each output's own values."""
    made = make_goldens(content)
    first = made.items[0]
    moved = (first.inputs[0] + np.float32(3 / 255) * (np.arange(192).reshape(1, 8, 8, 3) % 6 == 0)).astype(np.float32)
    outputs = [answer(content, moved)[0] - np.float32(TOLERANCE / 4)]
    interpreter = Interpreter(content, find_runtime())
    preprocessor = Preprocessor(RECIPE, interpreter.inputs[0])
    changed = first_changed(made, inputs=[moved], outputs=outputs)
    found = replay(changed, preprocessor, interpreter, same_best)
    assert found[0].levels == pytest.approx((0.5, 3.0), abs=1e-4)
    assert found[0].outputs == pytest.approx((TOLERANCE / 4,), abs=1e-6)
    assert found[1:] == [Deviation((0.0, 0.0), (0.0,))] * 2
    assert (
        summary(changed, found)
        == "prepared within 0.5 grey levels in the mean and 3 at most, outputs within 25.0% of what is allowed"
    )


def answer(content: bytes, prepared: Tensor) -> list[Tensor]:
    return Interpreter(content, find_runtime()).run(prepared.astype(np.float32))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"color": "bgr"}, "the manifest's preprocess.color is bgr, the goldens were made with rgb"),
        ({"std": (254.0,)}, "the manifest's preprocess.std is [254.0], the goldens were made with [255.0]"),
        ({"pad": 0}, "the manifest's preprocess.pad is 0, the goldens were made with 114"),
        (
            {"interpolation": "area"},
            "the manifest's preprocess.interpolation is area, the goldens were made with linear",
        ),
    ],
)
def test_a_recipe(content: bytes, change: dict[str, object], line: str) -> None:
    """(a) Another recipe in the manifest is found, key by key, however small the difference."""
    assert recipe_differences(make_goldens(content), replace(RECIPE, **change)) == [line]


def test_a_recipe_of_another_release(content: bytes) -> None:
    """(a) A key that only one side knows is a difference."""
    made = make_goldens(content)
    assert recipe_differences(replace(made, recipe={**made.recipe, "gamma": 2}), RECIPE) == [
        "the manifest's preprocess.gamma is None, the goldens were made with 2"
    ]


@pytest.mark.parametrize(
    ("levels", "share", "mean", "most"),
    [(4.2, 8, "0.53", "4.2"), (1.1, 1, "1.10", "1.1"), (-1.1, 1, "1.10", "1.1")],
    ids=["more than 4 levels somewhere", "more than 1 level everywhere", "less everywhere"],
)
def test_b_prepared(
    content: bytes, replayed: Callable[[Goldens], list[str]], levels: float, share: int, mean: str, most: str
) -> None:
    """(b) A machine that prepares a picture otherwise is found, by the worst level and by the mean."""
    made = make_goldens(content)
    moved = made.items[0].inputs[0] + np.float32(levels / 255) * (np.arange(192).reshape(1, 8, 8, 3) % share == 0)
    moved = moved.astype(np.float32)
    (line,) = replayed(first_changed(made, inputs=[moved], outputs=answer(content, moved)))
    assert line == (
        f"golden picture 1 of 3: this board prepares it otherwise than the host did: by {mean} grey levels in the mean"
        f" and {most} at most (allowed 1 and 4)"
    )


def test_an_input_of_another_model(content: bytes, replayed: Callable[[Goldens], list[str]]) -> None:
    """A stored input of another shape or type is said, not compared."""
    made = make_goldens(content)
    item = replace(made.items[0], inputs=[made.items[0].inputs[0].astype(np.float64)])
    line = "its stored input is float64 [1, 8, 8, 3], the model's float32 [1, 8, 8, 3]"
    assert replayed(replace(made, items=[item])) == [f"golden picture 1 of 1: {line}"]


def test_c_output(content: bytes, replayed: Callable[[Goldens], list[str]]) -> None:
    """(c) An output off by more than its tolerance is found, with both numbers."""
    made = make_goldens(content)
    off = made.items[1].outputs[0].copy()
    off[0, 0] += 0.0021
    items = [made.items[0], replace(made.items[1], outputs=[off]), made.items[2]]
    (line,) = replayed(replace(made, items=items))
    assert line.startswith("golden picture 2 of 3: output ")
    assert line.endswith(" is 0.0021 off the host's; allowed 0.001")


def test_c_output_that_is_no_number(content: bytes, replayed: Callable[[Goldens], list[str]]) -> None:
    """(c) Not-a-number is off by more than any tolerance."""
    made = make_goldens(content)
    (line,) = replayed(first_changed(made, outputs=[np.full((1, 3), np.nan, np.float32)]))
    assert "is nan off the host's" in line


def test_c_shape(content: bytes, replayed: Callable[[Goldens], list[str]]) -> None:
    """(c) Outputs of other shapes are not compared by chance."""
    made = make_goldens(content)
    (line,) = replayed(first_changed(made, outputs=[np.zeros((1, 1), np.float32)]))
    assert "has the shape [1, 3], the host's had [1, 1]" in line


def test_c_answer(content: bytes, replayed: Callable[[Goldens], list[str]]) -> None:
    """(c) Another answer is found although the tolerance is wide; the task says whether it is one."""
    made = replace(make_goldens(content), tolerances=[10.0])
    other = made.items[0].outputs[0][:, [1, 0, 2]]
    assert replayed(first_changed(made, outputs=[other])) == [
        "golden picture 1 of 3: the answer is 0, the host's was 1"
    ]


def swapped(made: Goldens) -> Goldens:
    """The outputs of the first picture are another picture's."""
    return first_changed(made, outputs=made.items[1].outputs)


def brighter(made: Goldens) -> Goldens:
    """The first picture is not the one that was prepared."""
    item: Golden = made.items[0]
    return first_changed(made, picture=np.clip(item.picture.astype(int) + 9, 0, 255).astype(np.uint8))


def another_recipe(made: Goldens) -> Goldens:
    return replace(made, recipe=recipe_dict(Recipe("bgr", (0.0,), (255.0,))))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (another_recipe, "the manifest's preprocess.color is rgb, the goldens were made with bgr"),
        (brighter, "golden picture 1 of 3: this board prepares it otherwise than the host did"),
        (swapped, "off the host's; allowed 0.001"),
    ],
)
def test_through_the_command(
    tmp_path: Path,
    data: Path,
    configure: Callable[..., Path],
    run_cli: Callable[..., CompletedProcess[str]],
    change: Callable[[Goldens], Goldens],
    says: str,
) -> None:
    """A bundle whose goldens do not hold here ends the start with 78, in one line that says which of the three it is."""
    bundle = make_bundle(tmp_path / "bundle", data / "colour.tflite", goldens=change)
    model = {"path": str(bundle)}
    done = run_cli("--config", configure(model=model, preprocess=None), "--once")
    assert (done.returncode, done.stdout) == (EXIT_CONFIG, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("edge-runner: error: ")
    assert f"model.path: {bundle}: " in line
    assert says in line
    done = run_cli("--config", configure(model={**model, "check_goldens": False}, preprocess=None), "--once")
    assert json.loads(done.stdout)["classifications"]


@pytest.mark.parametrize("name", ["digits", "digits-int8"])
def test_shipped(name: str) -> None:
    """The goldens of the models that we ship hold on this machine."""
    folder = Path(__file__).parents[2] / "examples/digits/models" / name
    if not (folder / "golden.npz").is_file():
        pytest.skip(f"{folder} is not there")
    made = read_goldens(folder / "golden.npz")
    assert made.items
    interpreter = Interpreter((folder / "model.tflite").read_bytes(), find_runtime())
    recipe = Recipe(**{k: tuple(v) if isinstance(v, list) else v for k, v in made.recipe.items()})
    assert recipe_differences(made, recipe) == []
    assert not faults(replay(made, Preprocessor(recipe, interpreter.inputs[0]), interpreter, same_best))


THREE = "three_inputs"  # two pictures and a vector: a model that no camera feeds


def make_arrays(content: bytes) -> Goldens:
    """Goldens of a model that is not fed pictures."""
    interpreter = Interpreter(content, find_runtime())
    chance = np.random.default_rng(3)
    items = []
    for _ in range(12):
        inputs: list[Tensor] = [chance.random(spec.shape).astype(spec.dtype) for spec in interpreter.inputs]
        outputs = interpreter.run(*inputs)
        items.append(Golden(None, inputs, outputs, [output.copy() for output in outputs]))
    return Goldens(None, [TOLERANCE] * len(interpreter.outputs), items)


def test_without_pictures(tmp_path: Path, data: Path) -> None:
    """Goldens of several inputs and no picture are read as they were written, each with its own inputs, more than ten too."""
    content = (data / f"{THREE}.tflite").read_bytes()
    made = make_arrays(content)
    path = tmp_path / "golden.npz"
    path.write_bytes(made.dump())
    read = read_goldens(path)
    assert read.dump() == made.dump()
    assert (read.recipe, len(read.items)) == (None, 12)
    for before, after in zip(made.items, read.items, strict=True):
        assert after.picture is None
        assert [(t.dtype, t.tobytes()) for t in before.inputs] == [(t.dtype, t.tobytes()) for t in after.inputs]
        assert np.array_equal(before.outputs[0], after.outputs[0])
    interpreter = Interpreter(content, find_runtime())
    assert recipe_differences(read, None) == []
    deviations = replay(read, None, interpreter, same_best)
    assert deviations == [Deviation(None, (0.0,))] * 12
    assert summary(read, deviations) == "outputs equal"


def test_a_recipe_where_there_was_none(content: bytes, data: Path) -> None:
    """(a) A recipe in the manifest of goldens without one is a difference, key by key, and the other way round."""
    made = make_arrays((data / f"{THREE}.tflite").read_bytes())
    assert "the manifest's preprocess.color is rgb, the goldens were made with None" in recipe_differences(made, RECIPE)
    line = "the manifest's preprocess.color is None, the goldens were made with rgb"
    assert line in recipe_differences(make_goldens(content), None)


def test_c_without_pictures(data: Path) -> None:
    """(c) Of a model without pictures, outputs that are off are found, and inputs of another model are not compared."""
    content = (data / f"{THREE}.tflite").read_bytes()
    interpreter = Interpreter(content, find_runtime())
    made = make_arrays(content)
    [line] = faults(replay(first_changed(made, outputs=[made.items[0].outputs[0] + 1]), None, interpreter, same_best))
    assert line.startswith("golden 1 of 12: output ")
    assert line.endswith("is 1 off the host's; allowed 0.001")
    [line] = faults(replay(first_changed(made, inputs=made.items[0].inputs[:2]), None, interpreter, same_best))
    assert "its stored input is float32 [1, 8, 8, 3], float32 [1, 8, 8, 3], the model's float32" in line


@pytest.mark.parametrize(("off", "holds"), [(0.0009, True), (0.0011, False)])
def test_compare(content: bytes, off: float, holds: bool) -> None:
    """Outputs of another runtime are held to the same tolerances, and to the same answer."""
    made = make_goldens(content)
    specs = Interpreter(content, find_runtime()).outputs
    item = made.items[0]
    why = compare(made, item, specs, [item.outputs[0] + np.float32(off)], same_best)
    assert (why is None) == holds
    wide = replace(made, tolerances=[10.0])
    assert compare(wide, item, specs, [item.outputs[0][:, [1, 0, 2]]], same_best) == "the answer is 1, the host's was 0"


def test_c_chosen(content: bytes) -> None:
    """(c) An output that was chosen within the model may have other values while the answer is the same, and no other answer."""
    made = make_goldens(content)
    item = made.items[0]
    specs = Interpreter(content, find_runtime()).outputs
    other = item.outputs[0] / 2
    assert compare(made, item, specs, [other], same_best) is not None
    assert compare(made, item, specs, [other], same_best, (True,)) is None
    wrong = item.outputs[0][:, [1, 0, 2]]
    assert compare(made, item, specs, [wrong], same_best, (True,)) == "the answer is 1, the host's was 0"
    short = item.outputs[0][:, :2]
    assert "has the shape [1, 2], the host's had [1, 3]" in str(compare(made, item, specs, [short], same_best, (True,)))


def test_how_far_chosen(content: bytes) -> None:
    """How far the values of a chosen output are from the host's is not told: it would frighten, and say nothing."""
    made = make_goldens(content)
    changed = first_changed(made, outputs=[made.items[0].outputs[0] / 2])
    interpreter = Interpreter(content, find_runtime())
    found = replay(changed, Preprocessor(RECIPE, interpreter.inputs[0]), interpreter, same_best, (True,))
    assert found == [Deviation((0.0, 0.0), (None,))] * 3
    assert summary(changed, found) == "prepared within 0 grey levels in the mean and 0 at most, answers equal"


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
def test_whole_numbers(tmp_path: Path, content: bytes, dtype: str) -> None:
    """Outputs that are whole numbers, class numbers for one, are stored as they are and compared without overflowing."""
    made = make_goldens(content)
    numbers = np.array([[1, 0, 1]], dtype)
    made = replace(made, items=[replace(made.items[0], outputs=[numbers], reference=[numbers])])
    (tmp_path / "golden.npz").write_bytes(made.dump())
    read = read_goldens(tmp_path / "golden.npz")
    assert read.items[0].outputs[0].dtype == dtype
    specs = Interpreter(content, find_runtime()).outputs
    assert compare(read, read.items[0], specs, [numbers.copy()], same_best) is None
    off = np.array([[0, 0, 1]], dtype)
    assert "is 1 off the host's; allowed 0.001" in str(compare(read, read.items[0], specs, [off], same_best))
