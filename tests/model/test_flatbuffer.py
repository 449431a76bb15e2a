"""What a .tflite file says of itself; and that no damage gets beyond ModelError."""

from __future__ import annotations

import functools
import re
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runner.errors import ModelError
from edge_runner.model import structure
from edge_runner.model.flatbuffer import Graph, Operator, Table, read_graph
from edge_runner.model.labels import embedded_labels
from edge_runner.model.structure import check_structure

pytestmark = pytest.mark.arm

DATA = Path(__file__).parents[1] / "data"
DIGITS = (
    DATA.parents[1] / "examples/digits/models/digits-int8/model.tflite"
)  # it has signatures, the tiny ones have not
FIXTURES = sorted(path.stem for path in DATA.glob("*.tflite"))


@functools.cache
def model(name: str) -> bytes:
    path = DIGITS if name == "digits" else DATA / f"{name}.tflite"
    return path.read_bytes()


# name: (operator, version, how many)…, how many inputs and outputs, what each output ends in
GRAPHS = {
    "colour":         ("AVERAGE_POOL_2D 1 1, MUL 1 1, RESHAPE 1 1, SOFTMAX 1 1", 1, ["SOFTMAX"]),
    "custom_op":      ("AVERAGE_POOL_2D 1 1, MUL 1 1, RESHAPE 1 1, Sorcery 1 1", 1, ["Sorcery"]),
    "newer_op":       ("AVERAGE_POOL_2D 1 1, MUL 1 1, RESHAPE 1 1, SOFTMAX 99 1", 1, ["SOFTMAX"]),
    "flex":           ("AVERAGE_POOL_2D 1 1, FlexErf 1 1, RESHAPE 1 1, SOFTMAX 1 1", 1, ["SOFTMAX"]),
    "binary":         ("AVERAGE_POOL_2D 1 1, FULLY_CONNECTED 1 1, LOGISTIC 1 1", 1, ["LOGISTIC"]),
    "logits":         ("AVERAGE_POOL_2D 1 1, FULLY_CONNECTED 1 1", 1, ["FULLY_CONNECTED"]),
    "unknown_ending": ("AVERAGE_POOL_2D 1 1, MUL 1 1, RESHAPE 1 1", 1, ["MUL"]),
    "two_outputs":    ("AVERAGE_POOL_2D 1 1, FULLY_CONNECTED 1 1, LOGISTIC 1 1, MUL 1 1, RESHAPE 1 1, SOFTMAX 1 1", 1,
                       ["SOFTMAX", "LOGISTIC"]),
    "three_inputs":   ("ADD 1 1, AVERAGE_POOL_2D 1 1, MUL 1 2, RESHAPE 1 1, SOFTMAX 1 1", 3, ["MUL"]),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_graph(name: str) -> None:
    """Operators are counted by name and version, custom ones by their own name."""
    counted, inputs, endings = GRAPHS[name]
    graph = read_graph(model(name))
    assert ", ".join(f"{operator} {version} {count}" for operator, version, count in graph.counted()) == counted
    assert len(graph.inputs) == inputs
    assert [graph.ending(i).operator for i in range(len(graph.outputs))] == endings
    assert {o.name for o in graph.operators if o.custom} == {n for n in ("Sorcery", "FlexErf") if n in counted}


# name: of each output the operator that makes it, which of its outputs it is, and what a concatenation joins
ENDINGS = {
    "rect_ssd_shuffled":    [("TFLite_Detection_PostProcess", slot, "") for slot in (2, 3, 0, 1)],
    "rect_yolov8_int8":     [("CONCATENATION", 0, "TRANSPOSE ADD")],  # before it was quantised
    "rect_ssd_raw_scores":  [("LOGISTIC", 0, ""), ("CONCATENATION", 0, "PAD MUL MUL PAD MUL MUL PAD MUL MUL")],
    "seg_argmax_uint8":     [("ARG_MAX", 0, "")],
    "seg_logits_nhwc":      [("CONV_2D", 0, "")],
    "seg_portrait_softmax": [("SOFTMAX", 0, "")],
}  # fmt: skip


@pytest.mark.parametrize("name", ENDINGS)
def test_endings(name: str) -> None:
    """Of real detectors' and segmenters' ends, each output is traced to its own place in the operator that makes it."""
    found = read_graph(model(name)).endings()
    assert [(ending.operator, ending.slot, " ".join(ending.joins)) for ending in found] == ENDINGS[name]


def test_what_an_ending_reads() -> None:
    """The shapes that the last operator reads are known: boxes, scores with a background, anchors."""
    for ending in read_graph(model("rect_ssd")).endings():
        assert ending.reads == ((1, 84, 4), (1, 84, 4), (84, 4))


def test_facts() -> None:
    """Description, the runtime that the converter asks for, and the size."""
    graph = read_graph(model("colour"))
    assert graph.description == "MLIR Converted."
    assert re.fullmatch(r"\d+\.\d+\.\d+", graph.min_runtime)
    assert graph.size_bytes == len(model("colour"))


def test_ending() -> None:
    """An ending is the operator that makes the values: changes of form are looked through, back to an input if need be."""

    def graph(*names: str, outputs: tuple[int, ...]) -> Graph:
        chain = tuple(Operator(name, 1, False, (i, 90), (i + 1,)) for i, name in enumerate(names))
        return Graph("", chain, (0,), outputs, ((1,),) * 9, "", 0)

    assert graph("CONV_2D", "SOFTMAX", outputs=(2,)).ending(0).operator == "SOFTMAX"
    assert graph("CONV_2D", "SOFTMAX", "RESHAPE", "DEQUANTIZE", outputs=(4,)).ending(0).operator == "SOFTMAX"
    assert (
        graph("LOGISTIC", "QUANTIZE", "SQUEEZE", "EXPAND_DIMS", "CAST", outputs=(5,)).ending(0).operator == "LOGISTIC"
    )
    assert graph("CONV_2D", "SOFTMAX", outputs=(1, 2)).ending(0).operator == "CONV_2D"
    assert graph("RESHAPE", outputs=(1,)).ending(0).operator == ""
    assert graph("SOFTMAX", outputs=(0,)).ending(0).operator == ""
    assert (
        Graph("", (Operator("RESHAPE", 1, False, (), (1,)),), (0,), (1,), ((),) * 2, "", 0).ending(0).operator
        == "RESHAPE"
    )


@pytest.mark.parametrize("name", FIXTURES)
def test_whole(name: str) -> None:
    """A file that is whole passes the check of its structure."""
    check_structure(model(name))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not a .tflite file: bytes 4 to 8 are b'', not b'TFL3'"),
        (b"TFL3", "is not a .tflite file"),
        (b"cat\ndog\n" * 100, "is not a .tflite file: bytes 4 to 8 are b'dog\\n'"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is not a .tflite file"),
        (b"\x1c\0\0\0TFL3", "is damaged: its tables lead outside of its 8 bytes"),
        (b"\xff\xff\xff\xffTFL3" + bytes(100), "is damaged: its tables lead outside of its 108 bytes"),
        (bytes(4) + b"TFL3" + bytes(100), "is damaged"),
    ],
)
def test_no_model(content: bytes, says: str) -> None:
    """Anything else than a model is refused in a few words, by both readers."""
    with pytest.raises(ModelError) as caught:
        check_structure(content)
    assert says in str(caught.value)
    assert refuses(read_graph, content)


@pytest.mark.parametrize("name", ["colour", "quantized", "two_outputs"])
def test_truncated(name: str) -> None:
    """A file cut anywhere is refused: what is missing is referred to from what is left."""
    content = model(name)
    for length in range(len(content) - 3):  # up to three bytes at the end fill up the last word
        with pytest.raises(ModelError):
            check_structure(content[:length])


def part(content: bytes, *path: tuple[int, int] | int) -> Table:
    """A table of a model: (field, index) of a vector's table, or the field of a single one."""
    table = Table.root(content)
    for step in path:
        found = table.table(step) if isinstance(step, int) else list(table.tables(step[0]))[step[1]]
        assert found is not None
        table = found
    return table


# What leads on, in an int8 model: the way to its table, its field, and the bytes of an item (0 of a table).
LEADS = {
    "the operator codes":         ((), 1, 4),
    "the subgraphs":              ((), 2, 4),
    "the description":            ((), 3, 1),
    "the buffers":                ((), 4, 4),
    "the metadata":               ((), 6, 4),
    "a metadata's name":          (((6, 0),), 0, 1),
    "the signatures":             ((), 7, 4),
    "a signature's inputs":       (((7, 0),), 0, 4),
    "a signature's input's name": (((7, 0), (0, 0)), 0, 1),
    "the tensors":                (((2, 0),), 0, 4),
    "the inputs":                 (((2, 0),), 1, 4),
    "the outputs":                (((2, 0),), 2, 4),
    "the operators":              (((2, 0),), 3, 4),
    "a tensor's shape":           (((2, 0), (0, 0)), 0, 4),
    "a tensor's name":            (((2, 0), (0, 0)), 3, 1),
    "a tensor's quantisation":    (((2, 0), (0, 0)), 4, 0),
    "its scales":                 (((2, 0), (0, 0), 4), 2, 4),
    "its zero points":            (((2, 0), (0, 0), 4), 3, 8),
    "an operator's inputs":       (((2, 0), (3, 0)), 1, 4),
    "an operator's outputs":      (((2, 0), (3, 0)), 2, 4),
    "an operator's options":      (((2, 0), (3, 0)), 4, 0),
    "a buffer's bytes":           (((4, -1),), 0, 1),
}  # fmt: skip


@pytest.mark.parametrize("lead", LEADS)
def test_leads_outside(lead: str) -> None:
    """An offset that leads outside is found wherever it is, and so are a count and a text that end outside."""
    path, field, size = LEADS[lead]
    content = model("digits" if "signature" in lead else "quantized")
    table = part(content, *path)
    at = table._field(field)
    assert at is not None
    assert refuses(check_structure, patched(content, at, len(content) - at))
    assert refuses(check_structure, patched(content, at, 0x7FFFFFF0))
    if size:
        start, _ = table.items(field, size)
        room = (len(content) - start) // size
        assert refuses(check_structure, patched(content, start - 4, room + 1))
        assert refuses(check_structure, patched(content, start - 4, 0xFFFFFFFF))


def patched(content: bytes, position: int, word: int) -> bytes:
    return content[:position] + struct.pack("<I", word) + content[position + 4 :]


@pytest.mark.parametrize(("path", "field"), [((), 3), (((2, 0), (0, 0)), 3), (((6, 0),), 0)])
def test_endless_text(path: tuple[tuple[int, int], ...], field: int) -> None:
    """A text without its final zero byte, behind which native code reads on, is found."""
    content = bytearray(model("quantized"))
    start, count = part(bytes(content), *path).items(field, 1)
    content[start + count] = 65
    assert refuses(check_structure, bytes(content))


def test_field_outside_of_its_table() -> None:
    """A number that would lie behind its table is found."""
    content = model("quantized")
    tensor = part(content, (2, 0), (0, 0))
    slot = tensor._vtable + 4 + 2 * 2  # of field 2, the buffer's number
    (size,) = struct.unpack_from("<H", content, tensor._vtable + 2)
    for offset in (size, 0xFFF0):
        assert refuses(check_structure, content[:slot] + struct.pack("<H", offset) + content[slot + 2 :])


def test_table_that_ends_outside() -> None:
    """A table that ends behind the file is found, even one that holds nothing but numbers."""
    content = model("quantized")
    options = part(content, (2, 0), (3, 0), 4)
    at = options._vtable + 2
    assert refuses(check_structure, content[:at] + struct.pack("<H", 0xFFF0) + content[at + 2 :])


def refuses(reader, content: bytes) -> bool:
    """Whether it does, and in one line."""
    message = ""
    try:
        reader(content)
    except ModelError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1
    return bool(message)


@st.composite
def damaged_models(draw: st.DrawFn) -> bytes:
    """A tiny model with some of its bytes changed, moved or gone."""
    content = bytearray(model(draw(st.sampled_from(FIXTURES))))
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, len(content) - 1))
        kind = draw(st.sampled_from(["byte", "word", "zeros", "insert", "cut"]))
        if kind == "byte":
            content[at] = draw(st.integers(0, 255))
        elif kind == "word":
            content[at : at + 4] = draw(
                st.sampled_from([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\1\0", b"\x10\0\0\0"])
            )
        elif kind == "zeros":
            content[at : at + 40] = bytes(len(content[at : at + 40]))
        elif kind == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=9))
        elif len(content) > 100:
            del content[at : at + 9]
    return bytes(content)


@settings(max_examples=400, deadline=60_000, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(damaged_models())
def test_damage(content: bytes) -> None:
    """Whatever the damage, the readers end soon, with an answer or with ModelError in one line."""
    refuses(check_structure, content)
    refuses(read_graph, content)
    embedded_labels(content)


@settings(max_examples=200, deadline=60_000, derandomize=True)
@given(st.binary(max_size=400))
def test_garbage(content: bytes) -> None:
    """The same of bytes that are nothing but a model's beginning."""
    refuses(check_structure, b"\x20\0\0\0TFL3" + content)
    refuses(read_graph, b"\x20\0\0\0TFL3" + content)


def test_knots() -> None:
    """References that lead to the same place again and again are not followed for ever: a small file cannot cost minutes."""
    count = 3000
    content = knotted(count)
    check_structure(knotted(1))
    tracemalloc.start()
    started = time.process_time()
    try:
        assert refuses(check_structure, content)
        assert tracemalloc.get_traced_memory()[1] < 10 * len(content)
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 20  # of count * count operators, it would be a minute


def knotted(count: int) -> bytes:
    """A model of so many graphs, which are all the same one, of so many operators, which are all the same one."""
    tables = struct.pack("<I4s 4H 4H 6H 2H", 40, b"TFL3", 12, 8, 0, 0, 4, 0, 0, 0, 12, 8, 0, 0, 0, 4, 4, 4)
    #                                model's at 8: field 2 at 4    subgraph's at 24: field 3     operator's at 36
    model = struct.pack("<iI", 40 - 8, 4) + struct.pack("<I", count)
    subgraph_at = 40 + len(model) + 4 * count
    model += b"".join(struct.pack("<I", subgraph_at - 52 - 4 * i) for i in range(count))
    subgraph = struct.pack("<iI", subgraph_at - 24, 4) + struct.pack("<I", count)
    operator_at = subgraph_at + len(subgraph) + 4 * count
    subgraph += b"".join(struct.pack("<I", operator_at - subgraph_at - 12 - 4 * i) for i in range(count))
    return tables + model + subgraph + struct.pack("<i", operator_at - 36)


OFFSETS = re.compile(r"def (\w+?)Add(\w+)\(builder, \w+\):\s*\n\s*builder\.PrependUOffsetTRelativeSlot\((\d+),")
UNCHECKED = {"ExternalBufferGroup", "ExternalBuffer"}  # for weights in files of their own, which we do not load
ELSEWHERE = {("Model", 8), ("Model", 9)}  # where those two stand


def test_offsets_of_the_schema() -> None:
    """Every field that the schema makes an offset is checked, but for those of weights in other files."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    wanted: dict[str, set[int]] = {}
    for owner, _, field in OFFSETS.findall(Path(schema.__file__).read_text()):
        wanted.setdefault(owner, set()).add(int(field))
    checked = {name: set(fields) for name, fields in structure.TABLES.items()}
    for (owner, field), choices in structure.UNIONS.items():
        checked[owner].add(field)
        for number, fields in choices.items():
            checked[union_member(schema, owner, field, number)] = set(fields)
    for owner, fields in wanted.items():
        missing = {f for f in fields - checked.get(owner, set()) if (owner, f) not in ELSEWHERE}
        assert not missing or owner in UNCHECKED, owner
    for owner, fields in checked.items():
        assert fields <= wanted.get(owner, set()), owner


def union_member(schema, owner: str, field: int, number: int) -> str:
    union = {
        ("Operator", 4): schema.BuiltinOptions,
        ("Operator", 12): schema.BuiltinOptions2,
        ("QuantizationParameters", 5): schema.QuantizationDetails,
        ("DimensionMetadata", 3): schema.SparseIndexVector,
        ("DimensionMetadata", 5): schema.SparseIndexVector,
    }[owner, field]
    return next(name for name, value in vars(union).items() if value == number and not name.startswith("_"))
