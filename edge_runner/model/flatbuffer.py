"""Reads what a .tflite file says of itself, without the interpreter: operators with versions, the graph's end, metadata.

A FlatBuffer table is found through its vtable; field numbers are those of TensorFlow Lite's schema (schema.fbs, version 3).
Every read is checked against the buffer's end, so a damaged file gives ModelError and nothing worse.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from edge_runner.errors import ModelError
from edge_runner.frame import Ending
from edge_runner.model.operators import BUILTIN_OPERATORS, CUSTOM

IDENTIFIER = b"TFL3"
CHANGES_OF_FORM = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "DEQUANTIZE", "QUANTIZE", "CAST")


@dataclass(frozen=True)
class Operator:
    """One operator of the graph: `name` (a custom one's own), `version`, and the tensors that it reads and writes."""

    name: str
    version: int
    custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """What the file says of its main graph: operators in order, input and output tensor numbers, every tensor's shape, and its
    metadata's names."""

    description: str
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    min_runtime: str
    size_bytes: int

    def counted(self) -> list[tuple[str, int, int]]:
        """(name, version, how many) of each operator, by name."""
        counts: dict[tuple[str, int], int] = {}
        for operator in self.operators:
            counts[operator.name, operator.version] = counts.get((operator.name, operator.version), 0) + 1
        return [(name, version, count) for (name, version), count in sorted(counts.items())]

    def endings(self) -> tuple[Ending, ...]:
        """The `ending` of every output."""
        return tuple(map(self.ending, range(len(self.outputs))))

    def ending(self, output: int) -> Ending:
        """What makes the values of the output in this position, looking through changes of form."""
        tensor, operator = self._maker(self.outputs[output])
        if operator is None:
            return Ending("")
        # -1 stands for an input that is left out
        reads = tuple(self.shapes[i] if 0 <= i < len(self.shapes) else () for i in operator.inputs)
        makers = [self._maker(i)[1] for i in operator.inputs] if operator.name == "CONCATENATION" else []
        joins = tuple(maker.name if maker else "" for maker in makers)
        return Ending(operator.name, operator.outputs.index(tensor), reads, joins)

    def _maker(self, tensor: int) -> tuple[int, Operator | None]:
        """The tensor that this one is another form of, and the operator that writes it; None of an input or a constant."""
        for operator in reversed(self.operators):
            if tensor in operator.outputs:
                if operator.name not in CHANGES_OF_FORM or not operator.inputs:
                    return tensor, operator
                tensor = operator.inputs[0]
        return tensor, None


def read_graph(content: bytes) -> Graph:
    """Read a .tflite file's bytes; raise ModelError where they are damaged or something else."""
    try:
        return _graph(content)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ModelError(f"is damaged: its tables lead outside of its {len(content):,} bytes") from error


def _graph(content: bytes) -> Graph:
    root = Table.root(content)
    codes = [_operator_code(table) for table in root.tables(1)]
    main = next(iter(root.tables(2)), None)
    if main is None:
        raise ModelError("has no graph")
    operators = []
    for table in main.tables(3):
        name, version, custom = codes[table.number(0, "<I")]
        operators.append(Operator(name, version, custom, table.numbers(1), table.numbers(2)))
    return Graph(
        root.text(3),
        tuple(operators),
        main.numbers(1),
        main.numbers(2),
        tuple(table.numbers(0) for table in main.tables(0)),
        _min_runtime(root),
        len(content),
    )


def _operator_code(table: Table) -> tuple[str, int, bool]:
    """An OperatorCode: the number stands in field 3, or, of files older than 2020, in the one byte of field 0."""
    number = max(table.number(0, "<b"), table.number(3, "<i"))
    custom = number == CUSTOM
    name = table.text(1) if custom else BUILTIN_OPERATORS.get(number, f"BUILTIN_{number}")
    return name, table.number(2, "<i", 1), custom


def _min_runtime(root: Table) -> str:
    """The oldest TensorFlow that the converter believes can run the file (metadata `min_runtime_version`)."""
    buffers = list(root.tables(4))
    for table in root.tables(6):
        if table.text(0) == "min_runtime_version":
            return buffers[table.number(1, "<I")].data(0).rstrip(b"\0").decode()
    return ""


class Table:
    """One FlatBuffer table at `position`. What leads outside of `content` raises struct.error or IndexError."""

    def __init__(self, content: bytes, position: int) -> None:
        self._content = content
        self._position = position
        self._vtable = position - self._read("<i", position)
        self._length = self._read("<H", self._vtable)

    @classmethod
    def root(cls, content: bytes) -> Table:
        """The Model that a .tflite file's bytes begin with; raise ModelError where they are something else."""
        if len(content) < 8 or content[4:8] != IDENTIFIER:
            raise ModelError(f"is not a .tflite file: bytes 4 to 8 are {content[4:8]!r}, not {IDENTIFIER!r}")
        return cls(content, struct.unpack_from("<I", content)[0])

    def check(self) -> None:
        """Raise where the table or one of its fields does not lie within the file."""
        size = self._read("<H", self._vtable + 2)
        inside = self._position >= 0 and self._position + size <= len(self._content)
        slots = struct.unpack_from(f"<{(self._length - 4) // 2}H", self._content, self._vtable + 4)
        if not inside or self._length < 4 or size < 4 or any(offset >= size for offset in slots):
            raise IndexError(self._position)

    def _read(self, kind: str, position: int) -> int:
        if not 0 <= position < len(self._content):  # on 32 bit, unpack_from takes no larger number at all
            raise IndexError(position)
        number: int = struct.unpack_from(kind, self._content, position)[0]
        return number

    def _field(self, number: int) -> int | None:
        slot = 4 + 2 * number
        offset = self._read("<H", self._vtable + slot) if slot < self._length else 0
        return self._position + offset if offset else None

    def number(self, field: int, kind: str, default: int = 0) -> int:
        position = self._field(field)
        return default if position is None else self._read(kind, position)

    def items(self, field: int, size: int) -> tuple[int, int]:
        """Where a vector's items of `size` bytes begin, and how many there are; (0, 0) where there is no vector."""
        position = self._field(field)
        if position is None:
            return 0, 0
        start = position + self._read("<I", position) + 4
        count = self._read("<I", start - 4)
        if start + count * size > len(self._content):
            raise IndexError(count)
        return start, count

    def table(self, field: int) -> Table | None:
        position = self._field(field)
        return None if position is None else Table(self._content, position + self._read("<I", position))

    def tables(self, field: int) -> Iterator[Table]:
        start, count = self.items(field, 4)
        for position in range(start, start + 4 * count, 4):
            yield Table(self._content, position + self._read("<I", position))

    def numbers(self, field: int) -> tuple[int, ...]:
        start, count = self.items(field, 4)
        return struct.unpack_from(f"<{count}i", self._content, start)

    def data(self, field: int) -> bytes:
        start, count = self.items(field, 1)
        return self._content[start : start + count]

    def text(self, field: int) -> str:
        return self.data(field).decode("utf-8", "replace")
