"""The report's sections on what was measured: how each mode compares with the SavedModel, and how each recipe fares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edge_runner.builder.found import Found, Scaling
from edge_runner.builder.order import Mode, Order
from edge_runner.builder.report.page import Block, Facts, Mono, Row, Section, Table, Text, Tile, Tiles, Tone
from edge_runner.builder.report.verdict import NO_RECIPE, NOT_VERIFIED, VERIFIED, recipe_state
from edge_runner.builder.report.words import MISSING, cosine, limit, listed, percent, real, size
from edge_runner.builder.trial import Evaluation, Parity, Trial
from edge_runner.model.bundle import Manifest
from edge_runner.model.preprocess import Recipe

RECIPES: dict[str, tuple[Tone, str]] = {
    VERIFIED: ("good", "by accuracy on labelled pictures"),
    NOT_VERIFIED: ("caveat", "nothing vouches for it yet"),
    NO_RECIPE: ("", "the model is not fed pictures"),
}
UNCONVINCING: tuple[Tone, str] = ("caveat", "labelled pictures do not bear it out")


def tiles(order: Order, found: Found, manifest: Manifest, trial: Trial, evaluation: Evaluation | None) -> Tiles:
    """The four figures that matter most."""
    sizes = f"{size(found.size_bytes)} → {size(trial.size_bytes)}"
    loss = f"of {trial.samples:,} samples; loss {percent(trial.loss)}, allowed {limit(order.max_loss)}"
    state = recipe_state(manifest)
    tone, note = RECIPES[state] if evaluation is None or state != NOT_VERIFIED else UNCONVINCING
    return Tiles(
        (
            Tile("SavedModel → .tflite", sizes, f"mode {trial.mode}"),
            Tile("Answers changed", percent(trial.changed), loss, "bad" if trial.loss > order.max_loss else ""),
            _agreement(trial, evaluation),
            Tile("Recipe", state, note, tone),
        )
    )


def modes(order: Order, found: Found, trials: Sequence[Trial], chosen: Mode, evaluation: Evaluation | None) -> Section:
    """A row for each output of each mode, those of the mode itself in its first; and why modes were refused."""
    labelled = evaluation is not None or any(trial.accuracy is not None for trial in trials)
    top = ("Top-1",) if labelled else ()
    head = ("Mode", "Size", "Answers changed", *top, "Loss", "Output", "Cosine", "Max abs error")
    whole = _cells(found.size_bytes, [percent(evaluation.saved_model) if evaluation else MISSING][: len(top)])
    rows = [Row(("SavedModel", *whole))]
    for trial in trials:
        rows += _rows(trial, labelled, _tag(trial, order, chosen), trial.mode == chosen)
    table = Table(head, f"lrr{'r' * len(top)}rlrr", tuple(rows))
    loss = "the top-1 that the .tflite loses" if labelled else "the answers that changed"
    note = Text(f"Modes are those of --quantize. Loss is {loss}; allowed is {limit(order.max_loss)}.", quiet=True)
    refused = tuple((f"{trial.mode} was refused", trial.refused) for trial in trials if trial.refused)
    return Section("Modes", (table, note, *([Facts(refused)] if refused else [])))


def recipe(manifest: Manifest, scaling: Scaling | None, evaluation: Evaluation | None) -> Section:
    """How pictures become the model's input, and what is known of whether that is right."""
    if manifest.preprocess is None:
        return Section("Recipe", (Text("None: the model is not fed pictures."),))
    facts = (("Verdict", recipe_state(manifest)), *_steps(manifest.preprocess), *_own_scaling(scaling))
    if evaluation is None:
        return Section("Recipe", (Facts(facts),))
    return Section("Recipe", (Facts((*facts, *_accuracies(evaluation))), *_recipes(evaluation)))


def _agreement(trial: Trial, evaluation: Evaluation | None) -> Tile:
    """Accuracy where there are labels; else how near the outputs are."""
    if evaluation:
        note = f"SavedModel {percent(evaluation.saved_model)}; {evaluation.pictures:,} labelled pictures"
        return Tile("Top-1", percent(evaluation.tflite), note)
    errors = [p.max_abs_error for p in trial.parities if p.max_abs_error is not None]
    cosines = [p.cosine for p in trial.parities if p.cosine is not None]
    if not cosines:
        return Tile("Cosine, least of all outputs", MISSING, "the outputs are compared by their answers")
    return Tile("Cosine, least of all outputs", cosine(min(cosines)), f"max abs error {real(max(errors))}")


def _cells(size_bytes: int, top: Sequence[str]) -> list[str]:
    """A row's cells after the first, of what is neither a .tflite nor compared."""
    return [size(size_bytes) if size_bytes else MISSING, MISSING, *top, MISSING, MISSING, MISSING, MISSING]


def _rows(trial: Trial, labelled: bool, tag: tuple[str, Tone], chosen: bool) -> Iterator[Row]:
    top = [MISSING if trial.accuracy is None else percent(trial.accuracy)] if labelled else []
    if not trial.parities:
        yield Row((trial.mode, *_cells(trial.size_bytes, top)), *tag, chosen)
        return
    own = [
        trial.mode,
        size(trial.size_bytes),
        f"{percent(trial.changed)} of {trial.samples:,}",
        *top,
        percent(trial.loss),
    ]
    for number, parity in enumerate(trial.parities):
        compared = (Mono(parity.output), *_figures(parity))
        yield (
            Row((*own, *compared), *tag, chosen) if number == 0 else Row((*[""] * len(own), *compared), "", "", chosen)
        )


def _figures(parity: Parity) -> tuple[str, str]:
    if parity.cosine is None or parity.max_abs_error is None:
        return MISSING, MISSING
    return cosine(parity.cosine), real(parity.max_abs_error)


def _tag(trial: Trial, order: Order, chosen: Mode) -> tuple[str, Tone]:
    if trial.refused:
        return "refused", "caveat"
    lossy = trial.loss > order.max_loss
    words = ["chosen"] * (trial.mode == chosen) + ["loses too much"] * lossy
    return ", ".join(words), "bad" if lossy else ""


def _steps(recipe: Recipe) -> Iterator[tuple[str, str]]:
    yield "Colour", recipe.color
    yield "Resize", f"{recipe.resize}, {recipe.interpolation}"
    if recipe.resize == "letterbox":
        yield "Padding", f"grey level {recipe.pad}"
    yield "Normalisation", "the model sees (x − mean) / std, with x in 0..255"
    yield "Mean", listed(recipe.mean)
    yield "Std", listed(recipe.std)
    yield "Layout", recipe.layout


def _own_scaling(scaling: Scaling | None) -> Iterator[tuple[str, str]]:
    if scaling:
        figures = f"times {listed(scaling.factor)}, plus {listed(scaling.offset)}"
        yield "The model's own", f"layer '{scaling.layer}' scales what it is given: {figures}"


def _accuracies(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    yield "Top-1, SavedModel", f"{percent(evaluation.saved_model)} of {evaluation.pictures:,} labelled pictures"
    yield "Top-1, .tflite", f"{percent(evaluation.tflite)} of them"
    if evaluation.verdict != VERIFIED:
        yield "Evaluation", evaluation.verdict


def _recipes(evaluation: Evaluation) -> Iterator[Block]:
    """Top-1 through the ordered recipe and through every other, the best first."""
    ordered = evaluation.trials[0] if evaluation.trials else None
    best_first = sorted(evaluation.trials, key=lambda trial: -trial.accuracy)
    rows = (
        Row(
            (Mono(trial.name), percent(trial.accuracy)),
            tag="ordered" if trial is ordered else "",
            chosen=trial is ordered,
        )
        for trial in best_first
    )
    yield Text(f"Every recipe was tried on {evaluation.searched:,} of these pictures:")
    yield Table(("Recipe", "Top-1"), "wr", tuple(rows))
