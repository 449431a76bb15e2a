"""Checks that every offset of a .tflite file stays inside the file, as the runtimes themselves do not.

An offset that leads outside reads whatever lies there in memory: harmless in one process, deadly in the next. So a trial in a
child process (probe.py) says nothing of such a file, and it is refused before.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from edge_runner.errors import ModelError
from edge_runner.model.flatbuffer import Table

INTS, LONGS, BYTES = 4, 8, 1  # a vector, by the bytes of one item
TEXT = "text"  # a string, with a zero byte after it
PLAIN: dict[int, Any] = {}  # a table without offsets

# The fields that hold an offset, by number: a vector of numbers, TEXT, a table's name, or [a vector's table's name].
# Source: tensorflow/compiler/mlir/lite/schema/schema.fbs, as LiteRT 2 has it.
TABLES: dict[str, dict[int, Any]] = {
    "Model": {
        1: ["OperatorCode"], 2: ["SubGraph"], 3: TEXT, 4: ["Buffer"], 5: INTS, 6: ["Metadata"], 7: ["SignatureDef"],
    },
    "OperatorCode": {1: TEXT},
    "SubGraph": {0: ["Tensor"], 1: INTS, 2: INTS, 3: ["Operator"], 4: TEXT},
    "Tensor": {0: INTS, 3: TEXT, 4: "QuantizationParameters", 6: "SparsityParameters", 7: INTS, 9: ["VariantSubType"]},
    "QuantizationParameters": {0: INTS, 1: INTS, 2: INTS, 3: LONGS},
    "SparsityParameters": {0: INTS, 1: INTS, 2: ["DimensionMetadata"]},
    "DimensionMetadata": {},
    "VariantSubType": {0: INTS},
    "Operator": {1: INTS, 2: INTS, 5: BYTES, 7: BYTES, 8: INTS},
    "Buffer": {0: BYTES},
    "Metadata": {0: TEXT},
    "SignatureDef": {0: ["TensorMap"], 1: ["TensorMap"], 2: TEXT},
    "TensorMap": {0: TEXT},
}  # fmt: skip

# Fields whose table depends on the number in the field before: (table, field) -> {that number: the table's own fields}.
UNIONS: dict[tuple[str, int], dict[int, dict[int, Any]]] = {
    ("QuantizationParameters", 5): {
        1: {0: BYTES},  # CustomQuantization
        2: {3: INTS},  # BlockwiseQuantization
        3: {3: INTS},  # MultiAxisQuantization
    },
    ("DimensionMetadata", 3): {1: {0: INTS}, 2: {0: 2}, 3: {0: BYTES}},  # Int32Vector, Uint16Vector, Uint8Vector
    ("DimensionMetadata", 5): {1: {0: INTS}, 2: {0: 2}, 3: {0: BYTES}},
    ("Operator", 4): {
        3: {1: INTS, 2: INTS},  # ConcatEmbeddingsOptions
        8: {5: "QuantizationParameters"},  # FullyConnectedOptions
        17: {0: INTS},  # ReshapeOptions
        30: {0: INTS},  # SqueezeOptions
        111: {0: TEXT, 1: TEXT},  # VarHandleOptions
        115: {0: INTS},  # BucketizeOptions
    },
    ("Operator", 12): {
        2: {0: LONGS},  # StablehloBroadcastInDimOptions
        3: {0: LONGS, 1: LONGS, 2: LONGS},  # StablehloSliceOptions
        4: {
            0: LONGS, 1: LONGS, 2: LONGS, 3: LONGS, 4: BYTES, 7: LONGS, 10: LONGS, 13: LONGS, 16: INTS,
        },  # StablehloConvolutionOptions
        5: {0: TEXT, 2: TEXT, 4: INTS, 5: BYTES},  # StablehloCustomCallOptions
        6: {0: LONGS},  # StablehloReduceOptions
        7: {1: LONGS, 2: LONGS, 3: LONGS},  # StablehloScatterOptions
        9: {0: LONGS},  # StablehloDynamicSliceOptions
        10: {0: LONGS, 1: LONGS, 2: LONGS},  # StablehloPadOptions
        12: {0: LONGS, 1: LONGS, 2: LONGS, 3: LONGS, 4: INTS},  # StablehloDotGeneralOptions
        13: {0: LONGS, 1: LONGS, 2: LONGS, 3: LONGS, 4: LONGS},  # StablehloReduceWindowOptions
        16: {0: LONGS, 1: LONGS, 2: LONGS, 4: LONGS},  # StablehloGatherOptions
        17: {0: LONGS},  # StablehloTransposeOptions
        21: {0: TEXT, 2: BYTES},  # StableHLOCompositeOptions
        23: {0: INTS},  # StablehloCaseOptions
    },
}  # fmt: skip


def check_structure(content: bytes) -> None:
    """Raise ModelError where a table, vector or string of a .tflite file leads outside of it."""
    try:
        _Checker(content).table(Table.root(content), "Model", TABLES["Model"])
    except (struct.error, IndexError) as error:
        raise ModelError(f"is damaged: its tables lead outside of its {len(content):,} bytes") from error


class _Checker:
    """One walk over a file. Each reference takes four bytes, so that there cannot be more of them than the file has room for."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._left = len(content) // 4

    def table(self, table: Table, name: str, fields: dict[int, Any]) -> None:
        self._spend(1)
        table.check()
        for field, kind in fields.items():
            self._field(table, field, kind)
        for (owner, field), choices in UNIONS.items():
            if owner == name and (inner := table.table(field)):
                self.table(inner, "", choices.get(table.number(field - 1, "<B"), PLAIN))
        if name == "Buffer":
            self._appended(table)

    def _field(self, table: Table, field: int, kind: Any) -> None:
        if kind == TEXT:
            start, count = table.items(field, BYTES)
            if start and self._content[start + count] != 0:
                raise IndexError(start)
        elif isinstance(kind, str):
            if inner := table.table(field):
                self.table(inner, kind, TABLES[kind])
        elif isinstance(kind, list):
            for inner in self._counted(table.tables(field)):
                self.table(inner, kind[0], TABLES[kind[0]])
        else:
            table.items(field, kind)

    def _counted(self, tables: Iterator[Table]) -> Iterator[Table]:
        for table in tables:
            self._spend(1)
            yield table

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise IndexError("more references than bytes")

    def _appended(self, buffer: Table) -> None:
        """Models over 2 GB keep a buffer's data behind the tables, at `offset` (field 1) with `size` (field 2)."""
        offset, size = buffer.number(1, "<Q"), buffer.number(2, "<Q")
        if offset > 1 and offset + size > len(self._content):
            raise IndexError(offset)
