"""Puts standard TFLite metadata into a model, so that MediaPipe Tasks and Android's tools read the same file as the board.

The metadata is a FlatBuffer of its own in one of the model's buffers; the labels are a zip appended to the file.
Source: tensorflow.org/lite/models/metadata. It runs where TensorFlow is loaded already.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_runner.errors import ModelError
from edge_runner.frame import Tensor, TensorSpec
from edge_runner.model.flatbuffer import read_graph
from edge_runner.model.labels import parse_labels
from edge_runner.model.preprocess import Color, Preprocessor, Recipe
from edge_runner.task.base import ModelFacts
from edge_runner.task.decoder.postprocess import TflitePostprocess

ENTRY = "TFLITE_METADATA"
IDENTIFIER = b"M001"
PARSER_VERSION = "1.0.0"  # the oldest that knows every field below
LABELS = "labels.txt"
ALIGNMENT_BYTES = 16  # of a buffer's data: force_align in TensorFlow Lite's schema.fbs

# The tables that are written, with the numbers of their fields. Source: metadata_schema.fbs 1.5.0, of
# github.com/google-ai-edge/mediapipe (mediapipe/tasks/metadata) and github.com/tensorflow/tflite-support alike.
FIELDS: dict[str, dict[str, int]] = {
    "ModelMetadata": {
        "name": 0, "description": 1, "version": 2, "subgraph_metadata": 3, "associated_files": 6, "min_parser_version": 7,
    },
    "SubGraphMetadata": {"input_tensor_metadata": 2, "output_tensor_metadata": 3, "output_tensor_groups": 8},
    "TensorGroup": {"name": 0, "tensor_names": 1},
    "TensorMetadata": {
        "name": 0, "description": 1, "content": 3, "process_units": 4, "stats": 5, "associated_files": 6,
    },
    "Content": {"content_properties_type": 0, "content_properties": 1, "range": 2},
    "ValueRange": {"min": 0, "max": 1},
    "FeatureProperties": {},
    "ImageProperties": {"color_space": 0},
    "BoundingBoxProperties": {"index": 0, "type": 1, "coordinate_type": 2},
    "ProcessUnit": {"options_type": 0, "options": 1},
    "NormalizationOptions": {"mean": 0, "std": 1},
    "Stats": {"max": 0, "min": 1},
    "AssociatedFile": {"name": 0, "description": 1, "type": 2},
}  # fmt: skip

# Enumerations and the types of unions, all of one byte. Source: as above.
FEATURE, IMAGE, BOUNDING_BOX = 1, 2, 3  # ContentProperties
NORMALIZATION = 1  # ProcessUnitOptions
UNKNOWN_FILE, TENSOR_AXIS_LABELS, TENSOR_VALUE_LABELS = 0, 2, 3  # AssociatedFileType
PROPERTIES = {FEATURE: "FeatureProperties", IMAGE: "ImageProperties", BOUNDING_BOX: "BoundingBoxProperties"}
BOUNDARIES, RATIO = 1, 0  # BoundingBoxType: left, top, right, bottom; CoordinateType
COLOR_SPACES: dict[Color, int] = {"bgr": 0, "rgb": 1, "gray": 2}  # ColorSpaceType: UNKNOWN, RGB, GRAYSCALE

# A detector's outputs, as decoder.postprocess has them in order. Source: the names and contents that tflite_support's
# metadata_writers/object_detector.py gives them, by which MediaPipe knows them again.
DETECTED = ("location", "category", "score", "number of detections")
LOCATION, CATEGORY = 0, 1
DETECTIONS, GROUPED = "detection_result", DETECTED[:3]
BOX_INDEX = (1, 0, 3, 2)  # where left, top, right and bottom stand: the model has top first
OF_EACH = 2  # both ends of their range: the axis along which detections follow each other, as that tool counts it

Floats = tuple[float, ...]


@dataclass(frozen=True)
class Card:
    """What the metadata says. `recipe` None: the model is not fed pictures."""

    name: str
    description: str
    version: str | None
    recipe: Recipe | None
    labels: tuple[str, ...] | None
    task: str


def embed(content: bytes, card: Card) -> bytes:
    """The .tflite file's bytes with the metadata in them, the same for equal input.

    Metadata and appended files that are there already are replaced; all else of the model stays.
    Raise SettingError where the recipe cannot fill an input, ModelError where the labels cannot stand one a line.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(content)
    lines = _lines(card.labels) if card.labels else None
    inputs, outputs = _tensors(model)
    _put(model, _dump(_metadata(card, inputs, outputs, _detector(card, content, outputs))))
    packed = _packed(model)
    return packed if lines is None else _with_file(packed, LABELS, lines)


class _Node:
    """A table to write: its name in FIELDS, and its fields; one that is None is left out."""

    def __init__(self, table: str, **fields: Field | None) -> None:
        self.fields = {FIELDS[table][name]: value for name, value in fields.items() if value is not None}
        self.slots = max(FIELDS[table].values(), default=-1) + 1


Field = str | int | np.int32 | Floats | Tensor | _Node | list[_Node] | list[str]
"""Of an int, one byte is written; of the others what they are: a string, four bytes, a vector, a table, a vector of these."""


def _metadata(
    card: Card, inputs: list[TensorSpec], outputs: list[TensorSpec], detector: TflitePostprocess | None
) -> _Node:
    pictures = [spec for spec in inputs if len(spec.shape) == 4] or inputs
    files = [_file_of(card, spec) for spec in outputs]
    if detector and card.labels and not detector.background:
        files[detector.places[CATEGORY]] = TENSOR_VALUE_LABELS
    described = [_output(*both) for both in zip(outputs, files, strict=True)]
    if detector:
        for part, place in enumerate(detector.places):
            described[place] = _detected(part, outputs[place], files[place])
    graph = _Node(
        "SubGraphMetadata",
        input_tensor_metadata=[_input(spec, card.recipe if spec in pictures else None) for spec in inputs],
        output_tensor_metadata=described,
        output_tensor_groups=[_Node("TensorGroup", name=DETECTIONS, tensor_names=list(GROUPED))] if detector else None,
    )
    return _Node(
        "ModelMetadata",
        name=card.name,
        description=card.description,
        version=card.version,
        subgraph_metadata=[graph],
        associated_files=[_labels(UNKNOWN_FILE)] if card.labels and not any(files) else None,
        min_parser_version=PARSER_VERSION,
    )


def _detector(card: Card, content: bytes, outputs: list[TensorSpec]) -> TflitePostprocess | None:
    """How a detector's four outputs are read, where operators or names tell which is which. Other families have no metadata."""
    if card.task != "detect":
        return None
    facts = ModelFacts(tuple(outputs), read_graph(content).endings(), card.labels, "")
    told = [reading for reading in TflitePostprocess.all(facts) if reading.told()]
    return told[0] if len(told) == 1 else None


def _file_of(card: Card, spec: TensorSpec) -> int:
    """As what the labels belong to an output, if they do: a label for each value of the last axis.

    The two of a single sigmoid unit are none: another reader would take the first of them for the unit's name.
    """
    of_axis = card.task in ("classify", "segment") and card.labels and spec.shape[-1:] == (len(card.labels),)
    return TENSOR_AXIS_LABELS if of_axis else UNKNOWN_FILE


def _labels(kind: int) -> _Node:
    return _Node("AssociatedFile", name=LABELS, description="One label a line, in the order of the classes.", type=kind)


def _input(spec: TensorSpec, recipe: Recipe | None) -> _Node:
    if recipe is None:
        return _Node("TensorMetadata", name=spec.name, description=_described(spec), content=_content(FEATURE))
    preprocessor = Preprocessor(recipe, spec)
    low, high = _extremes(preprocessor)
    return _Node(
        "TensorMetadata",
        name=spec.name,
        description=f"A picture, {_described(spec)}: {recipe.resize} {recipe.interpolation} {recipe.color}.",
        content=_content(IMAGE, color_space=COLOR_SPACES[recipe.color]),
        process_units=[_Node("ProcessUnit", options_type=NORMALIZATION, options=_normalization(preprocessor, spec))],
        stats=_Node("Stats", max=high, min=low),
    )


def _output(spec: TensorSpec, file: int) -> _Node:
    meaning = f"One value a class, {_described(spec)}." if file else _described(spec)
    files = [_labels(file)] if file else None
    return _Node(
        "TensorMetadata", name=spec.name, description=meaning, content=_content(FEATURE), associated_files=files
    )


def _detected(part: int, spec: TensorSpec, file: int) -> _Node:
    """One of a detector's outputs, under the name that other readers look for."""
    name = DETECTED[part]
    axis = np.int32(OF_EACH)
    each = _Node("ValueRange", min=axis, max=axis) if name in GROUPED else None
    content = _content(FEATURE, each)
    if part == LOCATION:
        index = np.array(BOX_INDEX, np.uint32)
        content = _content(BOUNDING_BOX, each, index=index, type=BOUNDARIES, coordinate_type=RATIO)
    files = [_labels(file)] if file else None
    return _Node("TensorMetadata", name=name, description=_described(spec), content=content, associated_files=files)


def _described(spec: TensorSpec) -> str:
    return f"{spec.dtype} {list(spec.shape)}"


def _content(kind: int, each: _Node | None = None, **fields: Field) -> _Node:
    return _Node(
        "Content", content_properties_type=kind, content_properties=_Node(PROPERTIES[kind], **fields), range=each
    )


def _normalization(preprocessor: Preprocessor, spec: TensorSpec) -> _Node:
    """Mean and std, as many of the one as of the other: MediaPipe refuses what differs.

    Readers quantise what they have normalised. Where the recipe means the picture's bytes, whatever the scale, the figures
    are those that give the bytes back.
    """
    mean, std = preprocessor.recipe.mean, preprocessor.recipe.std
    if spec.quantized and not preprocessor.spec.quantized:
        mean, std = (float(spec.zero_point),), (1 / spec.scale,)
    count = max(len(mean), len(std))
    return _Node("NormalizationOptions", mean=_repeated(mean, count), std=_repeated(std, count))


def _repeated(values: Floats, count: int) -> Floats:
    return values * count if len(values) == 1 else values


def _extremes(preprocessor: Preprocessor) -> tuple[Floats, Floats]:
    """The least and the greatest value of each channel, as the tensor stores it: what black and white become."""
    out = np.empty((2, *preprocessor.shape), preprocessor.dtype)
    for level, tensor in zip((0, 255), out, strict=True):
        preprocessor(np.full((1, 1, 3), level, np.uint8), tensor)
    axes = (0, 1, 3, 4) if preprocessor.planar else (0, 1, 2, 3)
    values = out.astype(np.float64)
    return tuple(values.min(axes).tolist()), tuple(values.max(axes).tolist())


def _tensors(model: Any) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """The inputs and outputs of the main graph, in its order, by the names of the signature where there is one."""
    graph = model.subgraphs[0]
    signature = next((found for found in model.signatureDefs or () if found.subgraphIndex == 0), None)
    listed = [*(signature.inputs or ()), *(signature.outputs or ())] if signature else []
    names = {entry.tensorIndex: entry.name for entry in listed}

    def specs(indices: Sequence[int]) -> list[TensorSpec]:
        return [_spec(graph.tensors[i], names.get(i, graph.tensors[i].name)) for i in indices]

    return specs(graph.inputs), specs(graph.outputs)


def _spec(tensor: Any, name: bytes | None) -> TensorSpec:
    from tensorflow.lite.python.schema_py_generated import TensorType

    dtypes = {number: kind.lower() for kind, number in vars(TensorType).items() if isinstance(number, int)}
    shape = () if tensor.shape is None else tuple(map(int, tensor.shape))
    spec = TensorSpec((name or b"").decode(), shape, dtypes[tensor.type])
    scales = tensor.quantization.scale if tensor.quantization else None
    if scales is None or len(scales) != 1:
        return spec
    return TensorSpec(spec.name, shape, spec.dtype, float(scales[0]), int(tensor.quantization.zeroPoint[0]))


def _lines(labels: tuple[str, ...]) -> bytes:
    lines = "".join(f"{label}\n" for label in labels).encode()
    try:
        read = parse_labels(lines)
    except ValueError as error:
        raise ModelError(f"the labels cannot stand one a line: {error}") from error
    if read != labels:
        raise ModelError(
            f"the labels cannot stand one a line: {len(labels)} of them would be read as {list(read)[:5]}…"
        )
    return lines


def _put(model: Any, metadata: bytes) -> None:
    """Give the model a metadata entry; where it has one, give that another buffer."""
    from tensorflow.lite.python.schema_py_generated import BufferT, MetadataT

    buffer = BufferT()
    buffer.data = np.frombuffer(metadata, np.uint8)
    model.metadata = model.metadata or []
    for entry in model.metadata:
        if entry.name == ENTRY.encode():
            model.buffers[entry.buffer] = buffer
            return
    entry = MetadataT()
    entry.name, entry.buffer = ENTRY, len(model.buffers)
    model.metadata.append(entry)
    model.buffers.append(buffer)


def _packed(model: Any) -> bytes:
    """The model as a file. TensorFlow's own packer would leave the buffers' data at multiples of 4 bytes."""
    import flatbuffers

    class Aligned(flatbuffers.Builder):  # type: ignore[misc]
        def StartVector(self, size: int, count: int, alignment: int) -> Any:  # noqa: N802
            return super().StartVector(size, count, ALIGNMENT_BYTES if size == 1 else alignment)

    builder = Aligned(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _with_file(content: bytes, name: str, data: bytes) -> bytes:
    """The file with a zip after it. A bare ZipInfo is uncompressed, so that a reader can map it, and always of 1980."""
    file = io.BytesIO(content)
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()


def _dump(root: _Node) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(_written(builder, root), IDENTIFIER)
    return bytes(builder.Output())


def _written(builder: Any, value: Field) -> int:
    """Write what a field refers to; return where it is."""
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, _Node):
        return _table(builder, value)
    if isinstance(value, tuple):
        return int(builder.CreateNumpyVector(np.array(value, np.float32)))
    if isinstance(value, np.ndarray):
        return int(builder.CreateNumpyVector(value))
    assert isinstance(value, list)
    tables = [_written(builder, one) for one in value]
    builder.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        builder.PrependUOffsetTRelative(table)
    return int(builder.EndVector())


def _table(builder: Any, node: _Node) -> int:
    """Write a table after what it refers to, as a FlatBuffer has it."""
    places = {number: _written(builder, v) for number, v in node.fields.items() if not isinstance(v, int | np.int32)}
    builder.StartObject(node.slots)
    for number, value in node.fields.items():
        if isinstance(value, np.int32):
            builder.PrependInt32Slot(number, int(value), 0)
        elif isinstance(value, int):
            builder.PrependUint8Slot(number, value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(number, places[number], 0)
    return int(builder.EndObject())
