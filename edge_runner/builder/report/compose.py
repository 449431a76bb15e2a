"""The report that travels with a bundle: report.md, and report.html with plots and pictures in it.

Both are of one page, put together here: each fact is said in one place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from edge_runner.builder.found import Found
from edge_runner.builder.order import Mode, Order
from edge_runner.builder.report import anatomy, measured, page_html, page_markdown, plots
from edge_runner.builder.report.page import Block, Card, Cards, Image, Page, Plots, Section, Text
from edge_runner.builder.report.verdict import judge
from edge_runner.builder.report.words import cosine, percent, real
from edge_runner.builder.trial import Evaluation, Parity, Scatter, Trial
from edge_runner.frame import Picture
from edge_runner.model.bundle import REPORT_HTML, Manifest
from edge_runner.result import Answers
from edge_runner.task import draw

PLOTTED_MOST = 4  # outputs
ANSWERS_MOST = 3  # a golden picture
NOTHING = "nothing"
DRAWN_LEAST_PX, DRAWN_MOST_PX = 240, 480  # the shorter side of a picture that answers are drawn on
COARSE_BELOW_PX = 160  # a model's input that is narrower is enlarged on the page
SCORE = re.compile(r" (\d+\.\d+%?)$")  # at the end of an answer, as `result.Answers.words` has it: `7 0.998`


@dataclass(frozen=True)
class GoldenView:
    """One golden picture as the camera and as the model sees it, and both answers to it; `same` as the task has it."""

    camera: Picture
    model: Picture
    saved_model: Answers
    tflite: Answers
    same: bool = True


@dataclass(frozen=True)
class Account:
    """All that the report tells. `trials` has a row for each mode that was tried; `evaluation` is None without labels."""

    order: Order
    found: Found
    manifest: Manifest
    chosen: Mode
    trials: tuple[Trial, ...]
    scatters: tuple[Scatter, ...]
    goldens: tuple[GoldenView, ...]
    evaluation: Evaluation | None = None

    @property
    def trial(self) -> Trial:
        """The chosen mode's."""
        return next(trial for trial in self.trials if trial.mode == self.chosen)


def markdown(account: Account) -> str:
    """The report as report.md."""
    return page_markdown.render(_page(account), f"Plots and pictures are in {REPORT_HTML}, beside this file.")


def html(account: Account) -> str:
    """The report as report.html: one file, nothing loaded from elsewhere."""
    return page_html.render(_page(account))


def _page(account: Account) -> Page:
    order, found, manifest = account.order, account.found, account.manifest
    trial, evaluation = account.trial, account.evaluation
    sections = (
        anatomy.identity(order, found, manifest, trial.size_bytes),
        measured.modes(order, found, account.trials, account.chosen, evaluation),
        _parity(trial.parities, account.scatters),
        _goldens(account.goldens),
        measured.recipe(manifest, found.scaling, evaluation),
        anatomy.tensors(manifest),
        anatomy.operators(manifest),
        anatomy.origin(order, found, manifest),
    )
    return Page(
        over="Model report",
        title=manifest.name,
        under=f"Version {manifest.version}, {manifest.quantization}, built {manifest.created}",
        verdict=judge(order, manifest, evaluation),
        tiles=measured.tiles(order, found, manifest, trial, evaluation),
        sections=tuple(section for section in sections if section.blocks),
        end=f"Made by edge-runner {manifest.tools.get('edge-runner', '')}; it travels with the bundle.",
    )


def _parity(parities: Sequence[Parity], scatters: Sequence[Scatter]) -> Section:
    """Every output in words, the first few in plots as well."""
    plotted = {scatter.output: scatter for scatter in scatters[:PLOTTED_MOST]}
    blocks: list[Block] = []
    for parity in parities:
        blocks.append(Text(_compared(parity)))
        if parity.output in plotted:
            blocks.append(_plots(plotted[parity.output]))
    if len(scatters) > PLOTTED_MOST:
        blocks.append(Text(f"The first {PLOTTED_MOST} of {len(scatters)} outputs are plotted.", quiet=True))
    return Section("SavedModel against .tflite", tuple(blocks))


def _compared(parity: Parity) -> str:
    if parity.cosine is None or parity.max_abs_error is None:
        return (
            f"Output {parity.output}: its values are chosen within the model, by a sort or an argmax, so that a hair's breadth may"
            " change many at once. It is compared by the answers that it gives."
        )
    span = parity.high - parity.low
    share = f", {percent(parity.max_abs_error / span)} of that range" if span > 0 else ""
    return (
        f"Output {parity.output}: the SavedModel's values go from {real(parity.low)} to {real(parity.high)}."
        f" The .tflite's are up to {real(parity.max_abs_error)} off{share}; their cosine is {cosine(parity.cosine)}."
    )


def _plots(scatter: Scatter) -> Plots:
    values = f"{len(scatter.got):,} values"
    kinds = (
        (plots.scatter, f"{values}, SavedModel against .tflite; equal ones lie on the line"),
        (plots.histogram, "How far off these are: .tflite minus SavedModel"),
    )
    size_px = (plots.WIDTH_PX, plots.HEIGHT_PX)
    return Plots(
        tuple(Image(partial(plot, scatter.reference, scatter.got), *size_px, words, words) for plot, words in kinds)
    )


def _goldens(views: Sequence[GoldenView]) -> Section:
    if not views:
        return Section("Golden pictures", ())
    said = Text(f"They travel with the bundle, and the board replays them. {_agreement(views)}".rstrip())
    return Section("Golden pictures", (said, Cards(tuple(map(_card, range(1, len(views) + 1), views)))))


def _agreement(views: Sequence[GoldenView]) -> str:
    """What all of them come to; nothing of tensors, whose words are their names."""
    differ = sum(not view.same for view in views)
    if differ:
        return f"The answers differ on {differ} of {len(views)}."
    return "The answers agree on all of them."


def _card(number: int, view: GoldenView) -> Card:
    answers = {"SavedModel": view.saved_model, ".tflite": view.tflite}
    lists = tuple((name, tuple(map(_answer, _words(found)))) for name, found in answers.items())
    seen = {"camera": view.camera}
    if _is_place(view.tflite):
        seen = {name: drawn(view.camera, found) for name, found in answers.items()}
    images = (
        *(_image(picture, f"picture {number}, {name}", _caption(name, view.camera)) for name, picture in seen.items()),
        _image(view.model, f"picture {number}, model", _caption("model", view.model), coarse=True),
    )
    return Card(f"Picture {number}", images, lists, *(("", "") if view.same else ("answers differ", "bad")))


def drawn(picture: Picture, answers: Answers) -> Picture:
    """A copy of a picture with an answer on it, of a size that serves a page."""
    height, width = picture.shape[:2]
    ratio = min(max(min(height, width), DRAWN_LEAST_PX), DRAWN_MOST_PX) / min(height, width)
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    how = cv2.INTER_AREA if ratio < 1 else cv2.INTER_NEAREST
    copy = np.array(cv2.resize(picture, size, interpolation=how), np.uint8)
    draw.draw(copy, answers)
    return copy


def _is_place(answers: Answers) -> bool:
    """Whether an answer says where something is, and is better drawn than told."""
    return answers.detections is not None or answers.segments is not None or answers.keypoints is not None


def _words(answers: Answers) -> list[str]:
    """The best answers; that there is nothing is one too."""
    return answers.words()[:ANSWERS_MOST] or [NOTHING] * _is_place(answers)


def _caption(name: str, picture: Picture) -> str:
    height, width = picture.shape[:2]
    return f"{name}, {width} × {height}"


def _image(picture: Picture, words: str, caption: str, coarse: bool = False) -> Image:
    height, width = picture.shape[:2]
    return Image(partial(_png, picture), width, height, words, caption, coarse and width < COARSE_BELOW_PX)


def _png(picture: Picture) -> bytes:
    return cv2.imencode(".png", picture)[1].tobytes()


def _answer(words: str) -> tuple[str, str]:
    """An answer and its score, which may be empty."""
    match = SCORE.search(words)
    return (words[: match.start()], match[1]) if match else (words, "")
