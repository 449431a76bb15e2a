"""The report's sections on the model itself: what it is, what it is made of, where it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edge_runner.builder.found import OPEN, Found, Signature
from edge_runner.builder.order import Order
from edge_runner.builder.report.page import Code, Facts, Mono, Row, Section, Table, Text
from edge_runner.builder.report.verdict import made_up, target
from edge_runner.builder.report.words import MISSING, percent, size
from edge_runner.frame import TensorSpec
from edge_runner.model.bundle import Manifest

SOURCE = {"model": "Source", "sha256": "Source's SHA-256"}
TOLD = ("kind", "signature")  # of the source, in the section on what it is


def identity(order: Order, found: Found, manifest: Manifest, size_bytes: int) -> Section:
    """Name, task and signature, and the sizes before and after; `size_bytes` is the .tflite's."""
    parts = ", ".join(f"{part} {size(count)}" for part, count in found.sizes.items())
    facts = Facts(
        (
            ("Name", manifest.name),
            ("Version", Mono(manifest.version)),
            ("Task", _listed(manifest.task)),
            ("Quantisation", manifest.quantization),
            ("Converted from", found.kind),
            ("SavedModel", f"{size(found.size_bytes)}: {parts}"),
            (".tflite", f"{size(size_bytes)}, {percent(size_bytes / (found.size_bytes or 1))} of the SavedModel"),
            ("Signatures", ", ".join(_named(signature, found) for signature in found.signatures)),
            *(("Signature's input", described(spec)) for spec in found.pinned.inputs),
            *(("Signature's output", described(spec)) for spec in found.pinned.outputs),
        )
    )
    return Section("What it is", (facts,))


def tensors(manifest: Manifest) -> Section:
    """The .tflite's inputs and outputs, as the board meets them."""
    rows = [_tensor("input", spec) for spec in manifest.inputs] + [_tensor("output", spec) for spec in manifest.outputs]
    head = ("", "Name", "Type", "Shape", "Scale", "Zero point")
    blocks = [Table(head, "llllrr", tuple(rows))]
    explained = Text("A quantised value q stands for (q − zero point) × scale.", quiet=True)
    quantized = any(spec.quantized for spec in (*manifest.inputs, *manifest.outputs))
    return Section("Tensors", (*blocks, *([explained] if quantized else [])))


def operators(manifest: Manifest) -> Section:
    """What the runtime has to know."""
    rows = (Row((Mono(used.name), str(used.version), str(used.count))) for used in manifest.operators)
    return Section("Operators", (Table(("Operator", "Version", "Times"), "lrr", tuple(rows)),))


def origin(order: Order, found: Found, manifest: Manifest) -> Section:
    """What it was made from, by what, and where it has run."""
    facts = Facts(
        (
            ("Built from", _exact(order.model)),
            *_source(manifest, order.model.name),
            ("Labels", _exact(order.labels)),
            ("Calibration", "none: the samples were made up" if made_up(order) else _exact(order.calibration)),
            ("Evaluation", _exact(order.evaluate)),
            ("Loaded under", ", ".join(manifest.runtimes) or "no runtime"),
            ("Target", target(order, manifest)),
            ("Made", manifest.created),
            ("Made by", ", ".join(f"{tool} {version}" for tool, version in {**manifest.tools, **found.tools}.items())),
        )
    )
    files = Table(
        ("File", "SHA-256"), "lw", tuple(Row((Mono(name), Mono(sum_))) for name, sum_ in manifest.files.items())
    )
    command = (Text("The exact command:"), Code(order.command)) if order.command else ()
    return Section("Where it comes from", (facts, files, *command))


def described(spec: TensorSpec) -> str:
    """A signature's tensor: `image float32 [?, 48, 48, 1]`."""
    return f"{spec.name} {spec.dtype} {_shape(spec)}"


def _named(signature: Signature, found: Found) -> str:
    chosen = signature.name == found.pinned.name and len(found.signatures) > 1
    return signature.name + (" (chosen)" if chosen else "")


def _source(manifest: Manifest, name: str) -> Iterator[tuple[str, str]]:
    """What the manifest says of the source, but for what is said already."""
    for key, value in manifest.source.items():
        if key not in TOLD and value != name:
            yield SOURCE.get(key, key), _exact(value)


def _listed(task: Mapping[str, Any]) -> str:
    """The task's type, and its other settings."""
    return ", ".join(str(value) if key == "type" else f"{key} {value}" for key, value in task.items())


def _exact(value: object) -> str:
    return Mono(value) if value else ""


def _tensor(kind: str, spec: TensorSpec) -> Row:
    scale, zero = (f"{spec.scale:.6g}", str(spec.zero_point)) if spec.quantized else (MISSING, MISSING)
    return Row((kind, Mono(spec.name), spec.dtype, Mono(_shape(spec)), scale, zero))


def _shape(spec: TensorSpec) -> str:
    return f"[{', '.join('?' if side == OPEN else str(side) for side in spec.shape)}]"
