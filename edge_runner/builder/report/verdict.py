"""May this model ship? What the proof and the evaluation come to, in words for whoever has to decide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edge_runner.builder.order import Order
from edge_runner.builder.report.page import Tone, Verdict
from edge_runner.builder.report.words import limit, percent
from edge_runner.builder.trial import Evaluation
from edge_runner.model.bundle import Manifest

TITLES: dict[Tone, str] = {
    "good": "May ship",
    "caveat": "May ship, with a caveat",
    "bad": "Must not ship",
}
MADE_UP = (
    "The samples were made up, and look like nothing that the model knows. Build again with --calibration, and the proof"
    " is of what the board will see."
)
UNSEEN = (
    "Nobody has seen yet that pictures are prepared as they were in training: SavedModel and .tflite were fed alike, so the"
    " proof cannot tell."
)
EVALUATE = "Build again with --evaluate DIR, a folder of labelled pictures with one sub-folder a label."
BY_HAND = "Compare its outputs for some pictures with those of the training's own code."
NOTHING_FOUND = (
    "nothing is found in any golden picture, so that they prove little; build again with --calibration, a folder of pictures like"
    " the camera's with something to find in them"
)
MEASURE = "Measure it with bench/evaluate.py on pictures whose answers are known."
REMEDIES = {"classify": EVALUATE, "detect": MEASURE, "segment": MEASURE}
SAMPLES_LEAST = 20  # that a proof is worth something with
VERIFIED, NOT_VERIFIED, NO_RECIPE = "verified", "NOT VERIFIED", "none"
NOT_TRIED = "not tried"


def judge(order: Order, manifest: Manifest, evaluation: Evaluation | None) -> Verdict:
    """Good: the proof was passed and the recipe is verified. What is not known is a caveat; what is known to be wrong is bad."""
    caveats = list(_caveats(order, manifest))
    doubtful = caveats or recipe_state(manifest) == NOT_VERIFIED
    tone: Tone = "bad" if not passed(manifest) else "caveat" if doubtful else "good"
    reasons = [*_proof(order, manifest, evaluation), _recipe(manifest, evaluation), *caveats]
    if tone == "bad":
        reasons.append("The bundle is kept only because --force asked for it.")
    return Verdict(tone, TITLES[tone], tuple(reasons))


def passed(manifest: Manifest) -> bool:
    """Whether nothing that was measured speaks against it."""
    return bool(manifest.proof.get("verdict") == "passed")


def recipe_state(manifest: Manifest) -> str:
    """VERIFIED, NOT_VERIFIED, or NO_RECIPE of a model that is not fed pictures."""
    if manifest.preprocess is None:
        return NO_RECIPE
    return VERIFIED if manifest.proof.get("recipe") == VERIFIED else NOT_VERIFIED


def made_up(order: Order) -> bool:
    """Whether there was nothing real to compare the answers with."""
    return not order.calibration and not order.evaluate


def target(order: Order, manifest: Manifest) -> str:
    """The runtime that the board is to have, and why it was not tried where it was not."""
    said = str(manifest.proof.get("target", order.target))
    return f"{order.target}, {said}" if said.startswith(NOT_TRIED) else said


def _caveats(order: Order, manifest: Manifest) -> Iterator[str]:
    """What else nobody has seen yet, and what to do about it."""
    if made_up(order):
        yield MADE_UP
    elif (samples := manifest.proof.get("samples", 0)) < SAMPLES_LEAST:
        yield f"Only {samples} samples were compared. Give more of them, with --calibration or --evaluate."
    if manifest.proof.get("goldens_answered") == 0:
        yield _sentence(NOTHING_FOUND)
    said = str(manifest.proof.get("target"))
    if said.startswith(NOT_TRIED):
        yield f"It was {said.replace(NOT_TRIED, f'{NOT_TRIED} under {order.target}', 1)}. Run edge-runner check on the board first."


def _proof(order: Order, manifest: Manifest, evaluation: Evaluation | None) -> Iterator[str]:
    """What was found to be wrong; else what was measured."""
    objections = [_sentence(text) for text in manifest.proof.get("objections", ())]
    measured = _measured(order, manifest.proof, evaluation)
    if passed(manifest):
        yield f"The proof passed: {measured}"
    else:
        first, *others = objections or [measured]
        yield f"The proof FAILED. {first}"
        yield from others


def _measured(order: Order, proof: Mapping[str, Any], evaluation: Evaluation | None) -> str:
    """The loss first: with labelled pictures it is of top-1, else the answers that changed."""
    allowed = f"allowed is {limit(order.max_loss)}"
    changed = f"{percent(proof.get('changed', 0.0))} of the answers to {proof.get('samples', 0):,} samples changed"
    if evaluation is None:
        return f"{changed}; {allowed}."
    return f"the loss of top-1 is {percent(proof.get('loss', 0.0))}, {allowed}. {changed}."


def _recipe(manifest: Manifest, evaluation: Evaluation | None) -> str:
    state = recipe_state(manifest)
    if state == NO_RECIPE:
        return "The model is not fed pictures: there is no recipe that could be wrong."
    parts = [f"The recipe is {state}."]
    if evaluation:
        parts.append(
            f"On {evaluation.pictures:,} labelled pictures, the SavedModel is right in {percent(evaluation.saved_model)}"
            f" and the .tflite in {percent(evaluation.tflite)}."
        )
    if state == NOT_VERIFIED:
        parts.append(_what_to_do(manifest, evaluation))
    return " ".join(filter(None, parts))


def _what_to_do(manifest: Manifest, evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return f"{UNSEEN} {REMEDIES.get(str(manifest.task.get('type')), BY_HAND)}"
    if not passed(manifest):
        return ""  # the objections say it
    why = _sentence(evaluation.verdict.removeprefix(NOT_VERIFIED.lower()).lstrip(" :;,"))
    return f"{why} Build again with another recipe, or with more pictures in --evaluate DIR."


def _sentence(text: str) -> str:
    """A reason, which is written small and without an end, as a sentence."""
    text = text.strip()
    return text and text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
