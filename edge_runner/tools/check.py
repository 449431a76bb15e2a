"""`edge-runner check`: everything that is wrong with a configuration, at once; nothing is captured or written."""

from __future__ import annotations

from collections.abc import Iterator

from edge_runner.pipeline import Pipeline
from edge_runner.tools.inspect import describe_tensor


def report(pipeline: Pipeline) -> Iterator[str]:
    """Lines on what was checked and found right."""
    engine = pipeline.engine
    model, recipe = engine.model, engine.preprocessor.recipe
    proof = "bare file: loaded and run in a child process"
    if model.manifest:
        proof = "bundle: hashes right, goldens " + ("hold on this machine" if engine.goldens else "not checked")
    yield f"model    {model.name} {model.version} ({proof})"
    if engine.goldens:
        yield f"goldens  {engine.goldens}"
    yield f"runtime  {engine.interpreter.runtime}, {engine.interpreter.threads} thread(s)"
    yield f"input    {describe_tensor(engine.interpreter.inputs[0])}"
    verdict = model.manifest.proof.get("recipe") if model.manifest else None
    yield f"recipe   {recipe}" + (f" ({verdict})" if verdict else "")
    yield f"task     {engine.task.Config.type}{f': {engine.task.reading}' if engine.task.reading else ''}"
    for camera in pipeline.settings.sources.values():
        yield f"camera   {camera.name} ({camera.type})"
    yield f"outputs  {', '.join(config.type for config in pipeline.settings.outputs)}"
