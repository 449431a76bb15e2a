"""`edge-runner inspect`: what a .tflite file or a bundle holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge_runner.engine import replay_goldens
from edge_runner.frame import TensorSpec
from edge_runner.model.bundle import Model, ModelConfig, open_model
from edge_runner.model.interpreter import find_runtime

LABELS_SHOWN = 8


def report(path: Path) -> Iterator[str]:
    """Lines on a model; raise ModelError, after what can be said of it, where it does not load or its goldens do not hold."""
    settings = ModelConfig(path=path)
    model = open_model(settings)
    yield f"{path}: {model.name} {model.version}, {model.graph.size_bytes / 1e6:.2f} MB"
    yield from _origin(model)
    yield "operators (version, how often):"
    for name, version, count in model.graph.counted():
        yield f"  {name:<28} v{version:<3} x{count}"
    if model.labels:
        shown = ", ".join(f"'{label}'" for label in model.labels[:LABELS_SHOWN])
        more = ", …" if len(model.labels) > LABELS_SHOWN else ""
        yield f"labels: {len(model.labels)} from {model.labels_source}: {shown}{more}"
    else:
        yield "labels: none"
    interpreter = model.load(find_runtime())
    yield f"loads under {interpreter.runtime}:"
    for kind, specs in (("input", interpreter.inputs), ("output", interpreter.outputs)):
        for spec in specs:
            yield f"  {kind:<7} {describe_tensor(spec)}"
    yield f"  ends in {', '.join(ending.operator or 'nothing' for ending in model.graph.endings())}"
    if model.manifest:
        yield f"goldens: hold on this machine: {replay_goldens(model, interpreter)}"


def describe_tensor(spec: TensorSpec) -> str:
    """A tensor in one line: 'serving_default:0' int8 [1, 48, 48, 1], real = (q - -128) * 0.00392157."""
    quantization = f", real = (q - {spec.zero_point}) * {spec.scale:.6g}" if spec.quantized else ""
    return f"'{spec.name}' {spec.dtype} {list(spec.shape)}{quantization}"


def _origin(model: Model) -> Iterator[str]:
    manifest = model.manifest
    if manifest is None:
        oldest = (
            f"; its converter asks for TensorFlow {model.graph.min_runtime} or newer" if model.graph.min_runtime else ""
        )
        yield f"a bare file: {model.graph.description or 'no description'}{oldest}"
        return
    yield f"a bundle, built {manifest.created} with {', '.join(f'{k} {v}' for k, v in manifest.tools.items())}"
    yield f"task: {', '.join(f'{k} {v}' for k, v in manifest.task.items())}; quantization: {manifest.quantization}"
    verdict = manifest.proof.get("recipe", "not verified")
    yield f"recipe: {manifest.preprocess}; {verdict}" if manifest.preprocess else "recipe: none, it is not fed pictures"
    loss = f", {manifest.proof['changed']:.1%} of the answers changed" if "changed" in manifest.proof else ""
    yield f"proof: {manifest.proof.get('verdict')}{loss}; loaded under {', '.join(manifest.runtimes)}"
