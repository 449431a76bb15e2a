"""The operators' names against the schema that the newest runtime ships."""

from __future__ import annotations

import pytest

from edge_runner.model.operators import BUILTIN_OPERATORS, CUSTOM


def test_names() -> None:
    """Every number has the name that the schema gives it."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    theirs = {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    assert theirs == BUILTIN_OPERATORS


def test_landmarks() -> None:
    """Some numbers, so that a row too many or too few shows without the schema as well."""
    known = {0: "ADD", 3: "CONV_2D", 25: "SOFTMAX", 32: "CUSTOM", 114: "QUANTIZE", 126: "BATCH_MATMUL", 150: "GELU"}
    assert {number: BUILTIN_OPERATORS[number] for number in known} == known
    assert BUILTIN_OPERATORS[CUSTOM] == "CUSTOM"
