"""One build: a SavedModel in, a bundle out that is proven to load on the target and to give the SavedModel's answers."""

from __future__ import annotations

import importlib.metadata
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edge_runner import __version__
from edge_runner.builder import evaluate
from edge_runner.builder.order import Mode, Objections, Order, check_order
from edge_runner.builder.progress import Progress
from edge_runner.builder.proof import FINDERS, Comparison, anything, compared, make_goldens, same
from edge_runner.builder.recipes import check_recipe
from edge_runner.builder.report.compose import Account, GoldenView, html, markdown
from edge_runner.builder.report.verdict import NOT_TRIED, NOTHING_FOUND
from edge_runner.builder.samples import GOLDENS as GOLDENS_WANTED
from edge_runner.builder.samples import Pictures, Samples, golden_pictures
from edge_runner.builder.savedmodel import SavedModel
from edge_runner.builder.stage import commit, staged
from edge_runner.builder.trial import Evaluation, RecipeTrial, Trial
from edge_runner.builder.workbench import Built, Reference, Workbench, hash_of
from edge_runner.builder.worker import Worker
from edge_runner.errors import EdgeRunnerError, ModelError
from edge_runner.frame import Geometry, Picture, Tensor
from edge_runner.model.bundle import (
    FORMAT,
    GOLDENS,
    LABELS,
    MANIFEST,
    MODEL,
    REPORT_HTML,
    REPORT_MD,
    VERSION_DIGITS,
    Manifest,
    Used,
    sha256_of,
)
from edge_runner.model.goldens import Golden, Goldens, compare
from edge_runner.model.interpreter import Interpreter
from edge_runner.model.preprocess import Preprocessor, Recipe
from edge_runner.result import Answers
from edge_runner.task.base import Task
from edge_runner.task.classify import Classify

NO_PICTURES = "none: it is not fed pictures"


@dataclass(frozen=True)
class Tried:
    """One mode's model with what was measured of it."""

    trial: Trial
    built: Built
    comparison: Comparison


def build(order: Order, progress: Progress) -> Manifest:
    """Build a bundle in `order.output`; raise EdgeRunnerError, with nothing left behind, where it cannot be."""
    check_order(order)
    objections, target = Objections(order.force), order.output.resolve()  # a link stays one
    with objections.noted():
        if order.recipe:
            check_recipe(order.recipe)
    with (
        staged(target) as stage,
        tempfile.TemporaryDirectory(prefix="edge-runner-") as scratch,
        _worker(order, Path(scratch)) as worker,
    ):
        bench = Workbench(order, progress, objections, worker, Path(scratch))
        manifest = _assemble(bench, stage)
        name = f"{manifest.name}-{manifest.version}"
        archive = commit(stage, target, name)
        progress.say(f"{order.output} and {order.output.parent / archive.name}")
    return manifest


def _worker(order: Order, folder: Path) -> Worker:
    """TensorFlow, in a process of its own."""
    opened = (order.model, folder, order.signature, order.input_shape)
    return Worker(SavedModel, *opened, folder=folder, verbose=order.verbose)


def _assemble(bench: Workbench, stage: Path) -> Manifest:
    """Everything between a model that could be opened and a bundle's files in `stage`."""
    order = bench.order
    plain = bench.built("none")
    recipes = _recipes(bench, plain)
    samples = bench.labelled.pictures if bench.labelled else bench.calibration
    reference = bench.answers(samples, "verification")
    outcomes = [_tried(bench, mode, plain, samples, reference) for mode in order.modes]
    chosen = _chosen(bench, outcomes)
    sizes = f"{bench.found.size_bytes / 1e6:.2f} MB -> {chosen.trial.size_bytes / 1e6:.2f} MB"
    bench.progress.say(f"SavedModel -> .tflite as {chosen.trial.mode}: {sizes}")
    found = _evaluation(bench, recipes, chosen)
    goldens = _goldens(bench, chosen, samples)
    views = _views(goldens, chosen, order)
    answered = _answered(bench, chosen.built.task, views)
    manifest = _written(bench, stage, chosen, goldens, _proof(bench, chosen.trial, found, answered))
    account = Account(
        order=order,
        found=bench.found,
        manifest=manifest,
        chosen=chosen.trial.mode,
        trials=tuple(o.trial if isinstance(o, Tried) else o for o in outcomes),
        scatters=chosen.comparison.scatters(),
        goldens=views,
        evaluation=found,
    )
    (stage / REPORT_MD).write_text(markdown(account), "utf-8")
    (stage / REPORT_HTML).write_text(html(account), "utf-8")
    return manifest


def _recipes(bench: Workbench, plain: Built) -> tuple[RecipeTrial, ...]:
    """How every recipe fares on the labelled pictures; raise ModelError where another is right, or the labels are wrong."""
    if not (bench.labelled and bench.order.recipe):
        return ()
    assert isinstance(plain.task, Classify)
    searched = bench.labelled.some(evaluate.SEARCHED_MOST)
    with bench.progress.bar("every recipe", len(searched.truths)) as done:
        trials = evaluate.search(searched, bench.order.recipe, plain.interpreter, plain.task, done)
    with bench.objections.noted():
        evaluate.check_labels(trials, searched.truths, plain.task.labels)
        evaluate.check_recipes(trials, len(plain.task.labels))
    return trials


def _tried(bench: Workbench, mode: Mode, plain: Built, samples: Samples, reference: Reference) -> Tried | Trial:
    """Convert in one mode, and compare. With --quantize auto, a mode that cannot be is told, and not the end."""
    try:
        built = plain if mode == "none" else bench.built(mode)
    except ModelError as error:
        if bench.order.quantize != "auto":
            raise
        return Trial(mode, refused=str(error))
    with bench.progress.bar(f"comparing {mode}", len(samples)) as done:
        answers = reference.ordered(built.interpreter.outputs)
        comparison = compared(answers, built.interpreter, samples, built.task, done)
    loss = changed = comparison.changed / comparison.samples
    accuracy = None
    if bench.labelled:
        before, accuracy = (
            evaluate.accuracy(w, bench.labelled.truths) for w in (comparison.expected, comparison.winners)
        )
        loss = max(0.0, before - accuracy)
    trial = Trial(mode, len(built.content), comparison.samples, changed, accuracy, loss, comparison.parities())
    return Tried(trial, built, comparison)


def _chosen(bench: Workbench, outcomes: Sequence[Tried | Trial]) -> Tried:
    """The first whose loss is within --max-loss; raise ModelError where none is, but with --force the one that loses least."""
    allowed = bench.order.max_loss
    tried = [outcome for outcome in outcomes if isinstance(outcome, Tried)]
    within = [t for t in tried if t.trial.loss <= allowed]
    if within:
        return within[0]
    best = min(tried, key=lambda t: t.trial.loss)
    trial = best.trial
    lost = (
        f"changes {trial.changed:.1%} of the answers to {trial.samples} samples"
        if trial.accuracy is None
        else f"loses {trial.loss:.1%} of top-1 on {trial.samples} labelled pictures"
    )
    with bench.objections.noted():
        raise ModelError(
            f"the model converted as {trial.mode} {lost}; allowed is {allowed:.1%}, and --max-loss allows more"
        )
    return best


def _evaluation(bench: Workbench, recipes: tuple[RecipeTrial, ...], chosen: Tried) -> Evaluation | None:
    """What the labelled pictures say; raise ModelError where labels that nobody named do not fit."""
    if bench.labelled is None:
        return None
    assert isinstance(chosen.built.task, Classify)
    truths = bench.labelled.truths
    saved_model, tflite = (
        evaluate.accuracy(w, truths) for w in (chosen.comparison.expected, chosen.comparison.winners)
    )
    verdict = evaluate.verdict(saved_model, len(chosen.built.task.labels))
    with bench.objections.noted():
        if verdict != evaluate.VERIFIED and bench.labels and not bench.order.labels:
            raise ModelError(
                f"{verdict}; the labels are the sub-folders' names in their order: name the model's own with --labels"
            )
    return Evaluation(
        pictures=len(truths),
        searched=min(evaluate.SEARCHED_MOST, len(truths)),
        saved_model=saved_model,
        tflite=tflite,
        trials=recipes,
        verdict=evaluate.NOT_VERIFIED if bench.objections.found else verdict,
    )


def _goldens(bench: Workbench, tried: Tried, samples: Samples) -> Goldens:
    """A few samples as goldens; raise ModelError where other kernels, or the target, answer otherwise than this runtime."""
    built = tried.built
    if isinstance(samples, Pictures):
        bound = Preprocessor(samples.recipe, built.interpreter.inputs[0])
        chosen: Samples = golden_pictures(samples, bound.width, bound.height, tried.comparison.answered)
    else:
        chosen = samples.some(GOLDENS_WANTED)
    answers = bench.answers(chosen, "goldens").ordered(built.interpreter.outputs)
    with bench.progress.step("goldens"):
        interpreter = Interpreter(built.content, bench.runtime)
        slow = Interpreter(built.content, bench.runtime, kernels="reference")
        goldens, unsteady = make_goldens(chosen, answers, interpreter, slow, built.task, rounds=built.rounds)
    with bench.objections.noted():
        if unsteady:
            raise ModelError(
                f"the reference kernels answer every golden otherwise; no board can be held to them: {unsteady}"
            )
        _check_gate(bench, built, goldens)
    return goldens


def _check_gate(bench: Workbench, built: Built, goldens: Goldens) -> None:
    """Raise ModelError where the target runtime, installed apart, answers otherwise than this environment's."""
    if not (bench.gate and bench.gate.packages):
        return
    answers = bench.gate.run(built.content, [item.inputs for item in goldens.items])
    for item, outputs in zip(goldens.items, answers, strict=True):
        wrong = compare(goldens, item, built.interpreter.outputs, outputs, built.task.same_answer, built.task.chosen)
        if wrong:
            raise ModelError(f"{bench.gate} does not answer as {bench.runtime} does: {wrong}")


def _written(bench: Workbench, stage: Path, chosen: Tried, goldens: Goldens, proof: dict[str, Any]) -> Manifest:
    """Write the bundle's files but for the reports."""
    order, built = bench.order, chosen.built
    parts = {MODEL: built.content, GOLDENS: goldens.dump()}
    if bench.labels:
        parts[LABELS] = "".join(f"{label}\n" for label in bench.labels).encode()
    for name, content in parts.items():
        (stage / name).write_bytes(content)
    manifest = Manifest(
        format=FORMAT,
        name=order.called,
        version=order.version or sha256_of(built.content)[:VERSION_DIGITS],
        created=datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        task=bench.task,
        preprocess=order.recipe,
        inputs=built.interpreter.inputs,
        outputs=built.interpreter.outputs,
        quantization=built.mode,
        operators=tuple(Used(*counted) for counted in built.graph.counted()),
        runtimes=bench.runtimes,
        files={name: sha256_of(content) for name, content in sorted(parts.items())},
        source={
            "model": order.model.resolve().name,
            "kind": bench.found.kind,
            "signature": bench.found.pinned.name,
            "sha256": hash_of(order.model),
        },
        tools={
            "edge-runner": __version__,
            **bench.found.tools,
            "numpy": importlib.metadata.version("numpy"),
            "opencv": importlib.metadata.version("opencv-python-headless"),
            "python": platform.python_version(),
        },
        proof=proof,
    )
    (stage / MANIFEST).write_bytes(manifest.dump())
    return manifest


def _proof(bench: Workbench, trial: Trial, found: Evaluation | None, answered: int | None) -> dict[str, Any]:
    """The manifest's proof: what was measured, and the verdict on it."""
    order = bench.order
    proof: dict[str, Any] = {
        "verdict": "failed" if bench.objections.found else "passed",
        "objections": bench.objections.found,
        "samples": trial.samples,
        "changed": round(trial.changed, 6),
        "loss": round(trial.loss, 6),
        "max_loss": order.max_loss,
        "outputs": [{"name": p.output, "cosine": p.cosine, "max_abs_error": p.max_abs_error} for p in trial.parities],
        "target": order.target if bench.gate else f"{NOT_TRIED}: {bench.without_gate}",
        "recipe": found.verdict if found else (evaluate.NOT_VERIFIED if order.recipe else NO_PICTURES),
    }
    if answered is not None:
        proof["goldens_answered"] = answered
    return {**proof, "evaluation": found.plain()} if found else proof


def _views(goldens: Goldens, tried: Tried, order: Order) -> tuple[GoldenView, ...]:
    """The goldens for the report's eyes; none of a model that is not fed pictures."""
    if order.recipe is None:
        return ()
    return tuple(_view(item, item.picture, tried, order.recipe) for item in goldens.items if item.picture is not None)


def _answered(bench: Workbench, task: Task, views: Sequence[GoldenView]) -> int | None:
    """In how many golden pictures something is found; None of a task that always has an answer."""
    if not isinstance(task, FINDERS):
        return None
    answered = sum(anything(view.tflite) for view in views)
    found = f"something is found in {answered} of {len(views)} golden pictures"
    bench.progress.say(found if answered else NOTHING_FOUND)
    return answered


def _view(item: Golden, picture: Picture, tried: Tried, recipe: Recipe) -> GoldenView:
    task, bound = tried.built.task, Preprocessor(recipe, tried.built.interpreter.inputs[0])
    geometry = bound(picture, np.empty(bound.shape, bound.dtype))
    answers = [_answer(task, tensors, geometry) for tensors in (item.reference, item.outputs)]
    return GoldenView(
        camera=picture,
        model=bound.visible(item.inputs[0]),
        saved_model=answers[0],
        tflite=answers[1],
        same=same(task, item.reference, item.outputs, tried.comparison.slack),
    )


def _answer(task: Task, tensors: Sequence[Tensor], geometry: Geometry) -> Answers:
    try:
        return task.decode(tensors, geometry)
    except EdgeRunnerError:  # a raw output may be too long for a result
        return Answers()
