"""May this model ship? What the proof and the evaluation come to, in words for whoever has to decide."""

from __future__ import annotations

from collections.abc import Iterator

from edge_runner.builder.order import Order
from edge_runner.builder.page import Tone, Verdict
from edge_runner.builder.trial import Evaluation
from edge_runner.builder.words import percent
from edge_runner.model.bundle import Manifest

TITLES: dict[Tone, str] = {
    "good": "May ship",
    "caveat": "May ship, with a caveat",
    "bad": "Must not ship",
}
VERIFIED, NOT_VERIFIED, NO_RECIPE = "verified", "NOT VERIFIED", "none"


def judge(order: Order, manifest: Manifest, evaluation: Evaluation | None) -> Verdict:
    """Good: the proof was passed and the recipe is verified. What is not known is a caveat; what is known to be wrong is bad."""
    objection = evaluation.objection if evaluation else ""
    caveats = list(_caveats(order, manifest, evaluation))
    tone: Tone = "bad" if objection or not passed(manifest) else "caveat" if caveats else "good"
    reasons = [_proof(order, manifest), _recipe(manifest, evaluation), *caveats]
    if tone == "bad":
        reasons.append("The bundle is kept only because --force asked for it.")
    return Verdict(tone, TITLES[tone], tuple(filter(None, (objection and _sentence(objection), *reasons))))


def passed(manifest: Manifest) -> bool:
    """Whether the .tflite gives the SavedModel's answers."""
    return bool(manifest.proof.get("verdict") == "passed")


def recipe_state(manifest: Manifest) -> str:
    """VERIFIED, NOT_VERIFIED, or NO_RECIPE of a model that is not fed pictures."""
    if manifest.preprocess is None:
        return NO_RECIPE
    return VERIFIED if manifest.proof.get("recipe") == VERIFIED else NOT_VERIFIED


def made_up(order: Order) -> bool:
    """Whether there was nothing real to compare the answers with."""
    return not order.calibration and not order.evaluate


def allowed(order: Order, manifest: Manifest) -> str:
    """The loss that a conversion may bring, `1%`."""
    return f"{100 * manifest.proof.get('max_loss', order.max_loss):g}%"


def _proof(order: Order, manifest: Manifest) -> str:
    proof = manifest.proof
    outcome = "passed" if passed(manifest) else "FAILED"
    changed = percent(proof.get("changed", 0.0))
    loss = percent(proof.get("loss", proof.get("changed", 0.0)))
    counted = "" if loss == changed else f", which counts as a loss of {loss}"
    return (
        f"The proof {outcome}: {changed} of the answers to {proof.get('samples', 0):,} samples changed{counted};"
        f" allowed is {allowed(order, manifest)}."
    )


def _recipe(manifest: Manifest, evaluation: Evaluation | None) -> str:
    state = recipe_state(manifest)
    if state == NO_RECIPE:
        return "The model is not fed pictures: there is no recipe that could be wrong."
    figures = ""
    if evaluation:
        figures = (
            f" On {evaluation.pictures:,} labelled pictures, the SavedModel is right in {percent(evaluation.saved_model)}"
            f" and the .tflite in {percent(evaluation.tflite)}."
        )
    return f"The recipe is {state}.{figures}"


def _caveats(order: Order, manifest: Manifest, evaluation: Evaluation | None) -> Iterator[str]:
    """What nobody has seen yet, and what to do about it."""
    if recipe_state(manifest) == NOT_VERIFIED:
        yield _unverified(manifest, evaluation)
    if made_up(order):
        yield (
            "The samples were made up, and look like nothing that the model knows. Build again with --calibration, and the"
            " proof is of what the camera will see."
        )


def _unverified(manifest: Manifest, evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return (
            "Nobody has seen yet that pictures are prepared as they were in training: SavedModel and .tflite were fed alike,"
            " so the proof cannot tell. Build again with --evaluate DIR, a folder of labelled pictures with one"
            " sub-folder a label: its accuracy will."
        )
    why = _sentence(evaluation.verdict.removeprefix("not verified").lstrip(" :;,"))
    return f"{why} Build again with another recipe, or with more pictures in --evaluate DIR."


def _sentence(text: str) -> str:
    """A reason, which is written small and without an end, as a sentence."""
    text = text.strip()
    return text and text[0].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
