"""Raw: every output as it is, for whoever decodes it elsewhere."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from edge_runner.frame import Ending, Geometry, TensorSpec
from edge_runner.result import Answers, Result
from edge_runner.task import TASKS, draw
from edge_runner.task.base import ModelFacts
from edge_runner.task.raw import Raw, RawConfig

pytestmark = pytest.mark.arm

WHERE = Geometry(640, 480)


def raw(*specs: TensorSpec, **settings: int) -> Raw:
    return Raw(RawConfig(**settings), ModelFacts(specs, (Ending("ADD"),) * len(specs), None, "nothing"))


def floats(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, shape, "float32")


def test_it_is_a_task() -> None:
    """`task: {type: raw}` leads here."""
    assert TASKS["raw"] == "edge_runner.task.raw:Raw"


def test_every_output_comes_as_it_is() -> None:
    """Names are the model's, in its order; shapes, types and values are the tensors', flat in the order of C."""
    task = raw(floats("boxes", 1, 2, 2), TensorSpec("count", (1,), "int32"), TensorSpec("found", (1, 2), "bool"))
    boxes = np.array([[[0.5, 1.5], [-2.0, 3.25]]], np.float32)
    found = task.decode([boxes, np.array([7], np.int32), np.array([[True, False]])], WHERE)
    assert found.classifications is None
    assert found.doubt is None
    assert [tensor.plain() for tensor in found.tensors or ()] == [
        {"name": "boxes", "shape": [1, 2, 2], "dtype": "float32", "values": [0.5, 1.5, -2.0, 3.25]},
        {"name": "count", "shape": [1], "dtype": "int32", "values": [7]},
        {"name": "found", "shape": [1, 2], "dtype": "bool", "values": [True, False]},
    ]


def test_tensors_that_are_not_contiguous() -> None:
    """Values come in the order of C, however the tensor lies in memory."""
    [tensor] = raw(floats("x", 2, 2)).decode([np.array([[1, 2], [3, 4]], np.float32).T], WHERE).tensors or ()
    assert tensor.values == (1, 3, 2, 4)


def test_what_json_lacks(result: Callable[..., Result]) -> None:
    """Not-a-number and the infinities are null in a result; zeros and the largest numbers stay what they are."""
    values = np.array([[math.nan, math.inf, -math.inf, 0, 3.4e38]], np.float32)
    answers = raw(floats("x", 1, 5)).decode([values], WHERE)
    [tensor] = json.loads(result(answers=answers).line())["tensors"]
    assert tensor["values"] == [None, None, None, 0, 3.4e38]


def test_results_do_not_change_with_the_next_frame() -> None:
    """An answer holds values, not the interpreter's memory."""
    tensor = np.array([[1, 2]], np.float32)
    answers = raw(floats("x", 1, 2)).decode([tensor], WHERE)
    tensor[:] = 9
    assert (answers.tensors or ())[0].values == (1, 2)


def kept(task: Raw, *sizes: int) -> list[str]:
    """What becomes of outputs of so many values."""
    found = task.decode([np.zeros((1, size), np.float32) for size in sizes], WHERE).tensors or ()
    assert all((tensor.values is None) == (tensor.array is not None) for tensor in found)
    assert [tensor.shape for tensor in found] == [(1, size) for size in sizes]
    return ["array" if tensor.values is None else "values" for tensor in found]


@pytest.mark.parametrize(
    ("most", "sizes", "expected"),
    [
        (10, (10,), ["values"]),
        (10, (11,), ["array"]),
        (10, (5, 5), ["values", "values"]),
        (10, (5, 6), ["values", "array"]),  # the largest goes first
        (10, (6, 5), ["array", "values"]),
        (10, (3, 100, 7, 90), ["values", "array", "values", "array"]),
        (0, (1,), ["array"]),
        (0, (0,), ["values"]),
    ],
)
def test_what_is_too_large_for_a_line(most: int, sizes: tuple[int, ...], expected: list[str]) -> None:
    """A result holds max_values numbers of all outputs together; the largest outputs become arrays until the rest fits."""
    task = raw(*(floats(f"x{i}", 1, size) for i, size in enumerate(sizes)), max_values=most)
    assert kept(task, *sizes) == expected
    assert (task.arrays is not None) == ("array" in expected)


def test_says_which_are_too_large() -> None:
    """What needs an output of its own is named, with its shape and the limit."""
    task = raw(floats("small", 1, 3), floats("large", 1, 70, 70))
    assert task.arrays == "'large' float32 [1, 70, 70]: more numbers than a result may hold (task.max_values 4,096)"
    assert raw(floats("small", 1, 4096)).arrays is None


def test_an_array_in_json_is_null() -> None:
    """A tensor whose values went elsewhere keeps its name, shape and dtype."""
    [tensor] = raw(floats("large", 1, 9), max_values=8).decode([np.zeros((1, 9), np.float32)], WHERE).tensors or ()
    assert tensor.plain() == {"name": "large", "shape": [1, 9], "dtype": "float32", "values": None}


def test_outputs_that_grow() -> None:
    """Outputs that were small when the model was loaded, and are not any more, are told of."""
    task = raw(floats("grows", 1, 1))
    assert task.decode([np.zeros((1, 1), np.float32)], WHERE).doubt is None
    assert "5,000" in str(task.decode([np.zeros((1, 5000), np.float32)], WHERE).doubt)


@pytest.mark.parametrize(
    ("off", "tolerance", "same"),
    [
        ([0, 0, 0, 0], 0, True),
        ([0.2, -0.2, 0.2, -0.2], 0.21, True),
        ([0.2, -0.2, 0.2, -0.2], 0.19, False),
        ([0.4, 0, 0, 0], 0.21, True),  # 0.2 in the root mean square
        ([0.4, 0, 0, 0], 0.19, False),
        ([math.nan, 0, 0, 0], 1e9, False),
    ],
)
def test_same_answer(off: list[float], tolerance: float, same: bool) -> None:
    """An answer is the same where each output is within its tolerance in the root mean square; NaN never is."""
    expected = np.array([[1, 2, 3, 4]], np.float32)
    got = expected + np.array([off], np.float32)
    why = raw(floats("x", 1, 4)).same_answer([expected], [got], [tolerance])
    assert (why is None) == same
    assert same or "'x'" in str(why)


def test_each_output_has_its_own_tolerance() -> None:
    """What is much for one output is little for another; the one that is off is named."""
    task = raw(floats("small", 1, 1), floats("large", 1, 1))
    zero, one = [np.zeros((1, 1), np.float32)] * 2, [np.ones((1, 1), np.float32)] * 2
    assert task.same_answer(zero, one, [2, 2]) is None
    assert "'small'" in str(task.same_answer(zero, one, [0.5, 2]))
    assert "'large'" in str(task.same_answer(zero, one, [2, 0.5]))


def test_small_integers_do_not_wrap() -> None:
    """Bytes are compared as numbers: 255 is far from 0."""
    task = raw(TensorSpec("x", (1, 1), "uint8"))
    low, high = np.array([[0]], np.uint8), np.array([[255]], np.uint8)
    assert "255" in str(task.same_answer([low], [high], [1]))


def test_draw() -> None:
    """The outputs are written into the picture; of a long one, its first values."""
    task = raw(floats("scores", 1, 3), floats("embedding", 1, 500))
    answers = task.decode([np.array([[0.5, math.nan, 1]], np.float32), np.zeros((1, 500), np.float32)], WHERE)
    for shown in (answers, Answers(tensors=())):
        picture = np.full((240, 320, 3), 128, np.uint8)
        draw.draw(picture, shown)
        assert (picture != 128).any()
