"""The report of a build: what it says, in which words, and that nobody can break out of it."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_runner.builder.found import OPEN, Found, Scaling, Signature
from edge_runner.builder.order import Order
from edge_runner.builder.recipes import variants
from edge_runner.builder.report import plots
from edge_runner.builder.report.compose import Account, GoldenView, drawn, html, markdown
from edge_runner.builder.report.words import percent, size
from edge_runner.builder.trial import Evaluation, Parity, RecipeTrial, Scatter, Trial
from edge_runner.frame import Picture, TensorSpec
from edge_runner.model.bundle import Manifest, Used
from edge_runner.model.preprocess import Recipe
from edge_runner.result import Answers, Classification, Detection, Keypoint, Mask, Segment

pytestmark = pytest.mark.builder

RECIPE = Recipe("rgb", (127.5,), (127.5,), "letterbox", "area")
SCORES, EMBEDDING = "StatefulPartitionedCall:0", "StatefulPartitionedCall:1"
SOURCE_SUM, MODEL_SUM = "15ddac30" * 8, "fc267140" * 8
COMMAND = "scripts/build_model.sh my_model --output models/birds --quantize auto --evaluate 'more pictures'"
PROOF = {"verdict": "passed", "samples": 500, "changed": 0.004, "loss": 0.003, "max_loss": 0.01, "recipe": "verified"}
UNVERIFIED = {**PROOF, "loss": 0.004, "recipe": "not verified", "target": "tflite-runtime==2.14.0"}

ORDER = Order(
    model=Path("runs/7/my_model"),
    output=Path("models/birds"),
    name="birds",
    task="classify",
    recipe=RECIPE,
    quantize="auto",
    labels=Path("birds.txt"),
    calibration=Path("garden"),
    evaluate=Path("more pictures"),
    command=COMMAND,
)
FOUND = Found(
    kind="SavedModel of TensorFlow 2.16.2",
    signatures=(
        Signature("serving_default", (TensorSpec("image", (OPEN, 224, 224, 3), "float32"),), ()),
        Signature("embed", (TensorSpec("image", (OPEN, 224, 224, 3), "float32"),), ()),
    ),
    pinned=Signature(
        "serving_default",
        (TensorSpec("image", (1, 224, 224, 3), "float32"),),
        (TensorSpec("scores", (1, 10), "float32"),),
    ),
    sizes={"graph": 3_270_000, "variables": 30_000_000, "assets": 1_200},
    tools={"tensorflow": "2.16.2", "keras": "3.15.1"},
    scaling=Scaling("rescaling_7", (0.0078125,), (-1.0,)),
)
MANIFEST = Manifest(
    format=1,
    name="birds",
    version="0a1b2c3d",
    created="2026-11-22T19:35:23Z",
    task={"type": "classify"},
    preprocess=RECIPE,
    inputs=(TensorSpec("serving_default_image:0", (1, 224, 224, 3), "int8", 0.0078431, -1),),
    outputs=(TensorSpec(SCORES, (1, 10), "float32"),),
    quantization="int8",
    operators=(Used("CONV_2D", 3, 35), Used("SOFTMAX", 2, 1)),
    runtimes=("tflite-runtime 2.14.0", "ai-edge-litert 2.0.3"),
    files={"model.tflite": MODEL_SUM, "golden.npz": "b8cd1733" * 8},
    source={"model": "my_model", "sha256": SOURCE_SUM},
    tools={"edge-runner": "0.1.0", "numpy": "1.26.4"},
    proof=PROOF,
)
TRIALS = (
    Trial("int8", 16_120_000, 500, 0.004, 0.969, 0.003, (Parity(SCORES, 0.999412, 0.0391, 0.0, 0.998),)),
    Trial("dynamic", refused="tflite-runtime 2.14.0 does not know GELU | version 2"),
    Trial("float16", 17_020_000, 500, 0.0, 0.972, 0.0, (Parity(SCORES, 0.999999, 0.000612, 0.0, 0.998),)),
)
SEARCH = tuple(
    RecipeTrial(name, recipe, accuracy)
    for (name, recipe), accuracy in zip(variants(RECIPE), (0.9675, 0.9125, 0.945, 0.1), strict=False)
)
EVALUATION = Evaluation(2000, 400, 0.972, 0.969, SEARCH, "verified")


def scatter(output: str = SCORES, off: float = 0.01) -> Scatter:
    rng = np.random.default_rng(3)
    values = rng.random(400)
    return Scatter(output, values, values + rng.normal(0, off, 400))


def picture(width: int, height: int) -> Picture:
    coarse = np.random.default_rng(width).integers(0, 256, (4, 5, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height)), np.uint8)


def classified(**scores: float) -> Answers:
    return Answers(classifications=tuple(Classification(label, 0, score) for label, score in scores.items()))


ROBIN, NEARLY = classified(robin=0.912, wren=0.051), classified(robin=0.887)


def golden(first: Answers = ROBIN, second: Answers = NEARLY, same: bool = True) -> GoldenView:
    return GoldenView(picture(128, 96), picture(48, 48), first, second, same)


ACCOUNT = Account(ORDER, FOUND, MANIFEST, "int8", TRIALS, (scatter(),), (golden(), golden()), EVALUATION)


def proven(proof: dict[str, Any], evaluation: Evaluation | None = None, **order: Any) -> Account:
    """The account of another proof."""
    changed = replace(ORDER, **{"evaluate": Path("more pictures") if evaluation else None, **order})
    return replace(ACCOUNT, order=changed, manifest=replace(MANIFEST, proof=proof), evaluation=evaluation)


def raw() -> Account:
    """Of a model that is not fed pictures and has two outputs; nothing was labelled."""
    outputs = (MANIFEST.outputs[0], TensorSpec(EMBEDDING, (1, 64), "int8", 0.1733, -57))
    parities = (Parity(SCORES, 0.999412, 0.0391, 0.0, 0.998), Parity(EMBEDDING, 0.987654, 1.75, -12.5, 31.25))
    return replace(
        ACCOUNT,
        order=replace(ORDER, task="raw", recipe=None, evaluate=None, calibration=Path("samples.npz")),
        manifest=replace(MANIFEST, task={"type": "raw"}, preprocess=None, outputs=outputs, proof=UNVERIFIED),
        trials=(Trial("int8", 16_120_000, 500, 0.004, None, 0.004, parities),),
        scatters=(scatter(), scatter(EMBEDDING, 2.0)),
        goldens=(),
        evaluation=None,
    )


class Read(HTMLParser):
    """A page's words, elements and attributes; what is opened must be closed, in order."""

    VOID = ("meta", "img")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attributes}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def classes(self) -> list[str]:
        return [attributes.get("class", "").strip() for _, attributes in self.elements]

    @property
    def text(self) -> str:
        return "".join(self.words)

    def pictures(self) -> list[Picture]:
        """Every picture in it, decoded."""
        contents = [base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in self.all("img")]
        return [decoded(content) for content in contents]


def decoded(png: bytes) -> Picture:
    return np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def both(account: Account) -> tuple[str, str]:
    """The words of report.md, without its escapes, and those of report.html."""
    return re.sub(r"\\(\W)", r"\1", markdown(account)).replace("`", ""), Read(html(account)).text


NOT_SURE = replace(EVALUATION, verdict="not verified: top-1 is 12.0%, with 10 classes hardly better than guessing")
SILENT = replace(EVALUATION, verdict="not verified")
OBJECTIONS = ["the recipe is wrong: with X it is right on 1.0%; build it with that", "the labels are off by one"]
STATES = {
    "verified": (ACCOUNT, "good", "May ship", ["The recipe is verified", "right in 97.20% and the .tflite in 96.90%"]),
    "no labels": (proven(UNVERIFIED), "caveat", "May ship, with a caveat", ["NOT VERIFIED", "--evaluate DIR"]),
    "no better than guessing": (
        proven(UNVERIFIED, NOT_SURE),
        "caveat",
        "May ship, with a caveat",
        ["NOT VERIFIED", "Top-1 is 12.0%, with 10 classes hardly better than guessing. Build again"],
    ),
    "made up": (proven(PROOF, calibration=None), "caveat", "May ship, with a caveat", ["made up", "--calibration"]),
    "few samples": (
        proven({**PROOF, "samples": 3}, EVALUATION),
        "caveat",
        "May ship, with a caveat",
        ["Only 3 samples were compared."],
    ),
    "target not tried": (
        proven({**PROOF, "target": "not tried: no wheel"}, EVALUATION),
        "caveat",
        "May ship, with a caveat",
        ["It was not tried under tflite-runtime==2.14.0: no wheel. Run edge-runner check on the board"],
    ),
    "failed": (
        proven({**UNVERIFIED, "verdict": "failed", "changed": 0.124, "loss": 0.124}),
        "bad",
        "Must not ship",
        ["The proof FAILED. 12.40% of the answers to 500 samples changed; allowed is 1%", "--evaluate DIR", "--force"],
    ),
    "objections": (
        proven({**UNVERIFIED, "verdict": "failed", "objections": OBJECTIONS}, SILENT),
        "bad",
        "Must not ship",
        ["FAILED. The recipe is wrong: with X it is right on 1.0%; build it with that.", "The labels are off by one."],
    ),
    "not fed pictures": (raw(), "good", "May ship", ["no recipe that could be wrong"]),
}


@pytest.mark.parametrize("state", STATES)
def test_verdict(state: str) -> None:
    """The report opens with whether the model may ship, in colour and in words, with the reasons and what to do."""
    account, tone, title, reasons = STATES[state]
    page = html(account)
    assert f"verdict {tone}" in Read(page).classes()
    assert f"<strong>{title}</strong>" in page
    assert re.search(rf"^## \S+ {title}$", markdown(account), re.MULTILINE)
    for text in both(account):
        for reason in reasons:
            assert reason in text.split("What it is")[0]


def test_advice_fits_the_task() -> None:
    """--evaluate knows classifiers only: nobody else is sent there, but to what measures them."""
    account = proven(UNVERIFIED)
    for task, remedy in (("raw", "by hand"), ("pose", "by hand"), ("detect", "bench"), ("segment", "bench")):
        for text in both(replace(account, manifest=replace(account.manifest, task={"type": task}))):
            assert "NOT VERIFIED" in text
            assert "--evaluate DIR" not in text
            assert ("bench/evaluate.py" in text) == (remedy == "bench")
            assert ("those of the training's own code" in text) == (remedy == "by hand")


FACTS = [
    # what it is, and its sizes
    "birds", "0a1b2c3d", "classify", "SavedModel of TensorFlow 2.16.2", "serving_default (chosen), embed",
    "image float32 [1, 224, 224, 3]", "33.27 MB → 16.12 MB", "graph 3.27 MB, variables 30.00 MB, assets 1.2 kB", "48.45%",
    # modes
    "int8", "chosen", "float16", "17.02 MB", "0.40% of 500", "0% of 500", "96.90%", "0.30%", "0.999412", "0.0391", "0.999999",
    "0.000612", "allowed is 1%", "dynamic was refused", "does not know GELU | version 2",
    # parity
    "values go from 0 to 0.998", "3.92% of that range",
    # goldens
    "answers agree", "robin", "0.912", "0.887", "wren",
    # recipe
    "verified", "letterbox, area", "grey level 114", "127.5", "layer 'rescaling_7'", "0.0078125", "97.20% of 2,000 labelled",
    "tried on 400 of these", "--normalize -1..1 --color rgb --resize letterbox", "96.75%", "94.50%", "91.25%", "10.00%",
    # tensors, operators
    "serving_default_image:0", "[1, 224, 224, 3]", "0.0078431", "-1", SCORES, "CONV_2D", "35", "SOFTMAX",
    # where it comes from
    "runs/7/my_model", SOURCE_SUM, MODEL_SUM, "birds.txt", "garden", "more pictures", "tflite-runtime 2.14.0, ai-edge-litert 2.0.3",
    "tflite-runtime==2.14.0", "2026-11-22T19:35:23Z", "edge-runner 0.1.0, numpy 1.26.4, tensorflow 2.16.2, keras 3.15.1", COMMAND,
]  # fmt: skip


def test_both_say_it() -> None:
    """Every fact of the account is in report.md and in report.html."""
    for text in both(ACCOUNT):
        assert [fact for fact in FACTS if fact not in text] == []


def test_every_output_of_every_mode() -> None:
    """Two outputs have a row each, with cosine and error; the mode's own figures stand in the first only."""
    table = re.search(r"\| Mode .*?\n\n", markdown(raw()), re.DOTALL)
    assert table
    first, second = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table[0].splitlines()[3:5])
    assert first == ["int8 **(chosen)**", "16.12 MB", "0.40% of 500", "0.40%", f"`{SCORES}`", "0.999412", "0.0391"]
    assert second == ["", "", "", "", f"`{EMBEDDING}`", "0.987654", "1.75"]
    for text in both(raw()):
        assert "values go from -12.5 to 31.25. The .tflite's are up to 1.75 off, 4.00% of that range" in text
        assert "least of all outputs" in text


def test_operators_and_tensors_have_their_figures() -> None:
    """Beside each operator stand its version and count, beside each tensor its quantisation where it has one."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown(ACCOUNT).splitlines()]
    assert ["`CONV_2D`", "3", "35"] in rows
    assert ["input", "`serving_default_image:0`", "int8", "`[1, 224, 224, 3]`", "0.0078431", "-1"] in rows
    assert ["output", f"`{SCORES}`", "float32", "`[1, 10]`", "–", "–"] in rows


def test_modes_that_did_not_do() -> None:
    """A mode that loses too much is marked, and a refused one is named with no figures."""
    lossy = replace(TRIALS[2], loss=0.02)
    text = markdown(replace(ACCOUNT, trials=(*TRIALS[:2], lossy)))
    assert "float16 **(loses too much)**" in text
    assert re.search(r"\| dynamic \*\*\(refused\)\*\* +(\| +– +){3}", text)


def test_evaluated_in_vain() -> None:
    """A recipe that labelled pictures do not bear out is not sent to be evaluated, and being chosen is no praise."""
    account = STATES["objections"][0]
    for text in both(account):
        assert "labelled pictures do not bear it out" in text
        assert "nothing vouches for it yet" not in text
    assert "good" not in Read(html(account)).classes()


def test_recipes_come_best_first() -> None:
    """The recipes that were tried are sorted by accuracy, and the ordered one is marked."""
    found = re.findall(r"^\| `(--.*?)`( \*\*\(ordered\)\*\*)? +\| +([\d.]+)% \|$", markdown(ACCOUNT), re.MULTILINE)
    assert [float(accuracy) for *_, accuracy in found] == [96.75, 94.5, 91.25, 10.0]
    assert [bool(mark) for _, mark, _ in found] == [True, False, False, False]


def test_nothing_is_said_of_what_was_not_measured() -> None:
    """Without labels there is no accuracy and no table of recipes; without pictures neither recipe nor goldens."""
    for text in both(proven(UNVERIFIED, None)):
        assert "Recipe" in text
        assert "labelled pictures," not in text
        assert "ordered" not in text
    for text in both(raw()):
        assert "Top-1" not in text
        assert "Golden pictures" not in text
        assert "not fed pictures" in text
        assert "None" not in text.replace("None: the model is not fed pictures", "")


NASTY = '<script>alert("1")</script> & *co* | `x` _y_ [z](a.b) \\'


def nasty() -> Account:
    """Everything that somebody else has named is named nastily."""
    views = (golden(classified(**{NASTY: 0.912}), classified(**{NASTY: 0.887})),)
    trials = (
        replace(TRIALS[0], parities=(replace(TRIALS[0].parities[0], output=NASTY),)),
        Trial("none", refused=NASTY),
    )
    manifest = replace(MANIFEST, name=NASTY, outputs=(TensorSpec(NASTY, (1, 10), "float32"),), tools={NASTY: NASTY})
    found = replace(FOUND, kind=NASTY, scaling=Scaling(NASTY, (1.0,), (0.0,)))
    order = replace(ORDER, model=Path(NASTY), command=NASTY)
    return Account(order, found, manifest, "int8", trials, (scatter(NASTY),), views, replace(EVALUATION, verdict=NASTY))


def test_nobody_breaks_out_of_html() -> None:
    """Names and labels are text, whatever they hold: no element comes of them, and they are read as they were."""
    page = Read(html(nasty()))
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in Read(html(ACCOUNT)).elements}
    assert page.all("script") == page.all("a") == []
    assert page.text.count(NASTY) >= 9
    assert not {name for _, attributes in page.elements for name in attributes if name.startswith("on")}


def test_nobody_breaks_out_of_markdown() -> None:
    """Markup in names is escaped, and no table has a cell too many."""
    text = markdown(nasty())
    assert r"\<script>" in text
    outside = re.sub(r"(?s)```.*?```|(`+)[^`].*?\1", "", text)
    assert not re.search(r"(?<!\\)<(script|/script)|(?<!\\)\]\(|(?<!\\)\*co|(?<!\\)_y_", outside)


@pytest.mark.parametrize(
    "account", [ACCOUNT, raw(), nasty(), STATES["failed"][0]], ids=["all", "raw", "nasty", "failed"]
)
def test_tables_are_whole(account: Account) -> None:
    """Every row of a table in report.md has as many cells as its head, aligned with it."""
    tables = re.findall(r"(?:^\|.*\|\n)+", markdown(account), re.MULTILINE)
    assert len(tables) >= 6
    for table in tables:
        rows = [re.split(r"(?<!\\)\|", line) for line in table.splitlines()]
        assert {len(row) for row in rows} == {len(rows[0])}
        assert re.fullmatch(r"\|( -+:? \|)+", table.splitlines()[1])
        assert len({len(line) for line in table.splitlines()}) == 1


@pytest.mark.parametrize("account", [ACCOUNT, nasty()], ids=["plain", "nasty"])
def test_html_loads_nothing(account: Account) -> None:
    """The page is one file: no script, and no address but data of its own."""
    page = html(account)
    read = Read(page)
    for _, attributes in read.elements:
        assert attributes.get("src", "data:image/png").startswith("data:image/png")
        assert not {"href", "srcset", "data", "action"} & attributes.keys()
    styles = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in styles
    assert "@import" not in styles
    assert "http" not in page.replace("http-equiv", "")
    policy = next(m["content"] for m in read.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_pictures_are_the_goldens() -> None:
    """Both plots come first, twice as dense as they are shown; then each golden, as the camera and as the model sees it."""
    page = Read(html(ACCOUNT))
    found, view = page.pictures(), ACCOUNT.goldens[0]
    assert len(found) == 2 + 4
    for plot, image in zip(found[:2], page.all("img"), strict=False):
        assert plot.shape[:2] == (2 * int(image["height"]), 2 * int(image["width"]))
        assert len(np.unique(plot)) > 20, "something is drawn"
    np.testing.assert_array_equal(found[2], view.camera)
    np.testing.assert_array_equal(found[3], view.model)
    assert all(image["alt"] for image in page.all("img"))


def test_small_inputs_are_shown_as_squares() -> None:
    """A small model input is enlarged pixel by pixel; a large one, and the camera's picture, are not."""
    large = replace(golden(), model=picture(224, 224))
    coarse = [
        "pixelated" in image.get("class", "")
        for image in Read(html(replace(ACCOUNT, goldens=(golden(), large)))).all("img")
    ]
    assert coarse == [False, False, False, True, False, False]


@pytest.mark.parametrize("differs", [True, False])
def test_answers_that_differ_are_marked(differs: bool) -> None:
    """A golden is marked where the task says that its answer is another, not where only a score is."""
    account = replace(ACCOUNT, goldens=(golden(), golden(second=classified(wren=0.412, robin=0.409), same=not differs)))
    assert ("card bad" in Read(html(account)).classes()) == differs
    for text in both(account):
        assert ("answers differ" in text) == differs
        assert ("differ on 1 of 2" in text) == differs


BOX = Detection("robin", 0, 0.912, (0.25, 0.25, 0.75, 0.75))
FOUND_ANSWERS = {
    "detect": (Answers(detections=(BOX,)), "robin 0.912"),
    "segment": (
        Answers(
            segments=(Segment("lawn", 1, 0.25),),
            mask=Mask(np.kron(np.array([[0, 1], [0, 0]], np.uint8), np.ones((8, 8), np.uint8))),
        ),
        "lawn 25.0%",
    ),
    "pose": (Answers(detections=(), keypoints=(Keypoint("nose", 0.5, 0.5, 0.91),)), "nose 0.91"),
}


@pytest.mark.parametrize("task", FOUND_ANSWERS)
def test_what_is_found_is_drawn(task: str) -> None:
    """Where an answer says where things are, it is drawn on the picture, the SavedModel's and the .tflite's, and told as well."""
    answers, words = FOUND_ANSWERS[task]
    kinds = ("detections", "segments", "keypoints")
    nothing = Answers(**{kind: () for kind in kinds if getattr(answers, kind) is not None})
    view = GoldenView(picture(480, 360), picture(48, 48), answers, nothing, False)
    account = replace(ACCOUNT, goldens=(view,), scatters=())
    page = Read(html(account))
    saved_model, tflite, model = page.pictures()
    assert saved_model.shape == tflite.shape == view.camera.shape
    changed = (saved_model != tflite).any(axis=2)
    assert 50 < changed.sum() < changed.size / 2
    np.testing.assert_array_equal(model, view.model)
    shown = [f"picture 1, {of}" for of in ("SavedModel", ".tflite", "model")]
    assert [image["alt"] for image in page.all("img")] == shown
    for text in both(account):
        assert [word for word in (*words.split(), "nothing", "differ on 1 of 1") if word not in text] == []


SHOWN = [((32, 24), (320, 240)), ((400, 300), (400, 300)), ((1280, 960), (640, 480))]


@pytest.mark.parametrize(("size", "shown"), SHOWN)
def test_drawings_have_a_legible_size(size: tuple[int, int], shown: tuple[int, int]) -> None:
    """Small pictures are enlarged before anything is written on them, large ones made as small as a page shows them."""
    found = drawn(picture(*size), Answers(detections=(BOX,)))
    assert found.shape == (shown[1], shown[0], 3)


def test_chosen_outputs_have_no_figures() -> None:
    """Outputs that the model sorted are told to be compared by their answers: no cosine, no error, no plot that frightens."""
    parities = (Parity("boxes", None, None, 0.0, 1.0), Parity("scores", None, None, 0.0, 1.0))
    trials = (replace(TRIALS[0], parities=parities), *TRIALS[1:])
    account = replace(ACCOUNT, trials=trials, scatters=(), goldens=(), evaluation=None)
    assert Read(html(account)).all("img") == []
    for text in both(account):
        for output in ("boxes", "scores"):
            assert f"Output {output}: its values are chosen within the model" in text
        assert "the outputs are compared by their answers" in text
    assert re.search(r"\| `scores` +\| +– \| +– \|", markdown(account))


def test_goldens_without_anything_found() -> None:
    """Goldens in which a detector finds nothing are a caveat, with what to do about it; those with something are none."""
    manifest = replace(MANIFEST, task={"type": "detect", "decoder": "yolov8"})
    for answered in (0, 1):
        account = replace(ACCOUNT, manifest=replace(manifest, proof={**PROOF, "goldens_answered": answered}))
        for text in both(account):
            assert ("Nothing is found in any golden picture" in text) == (answered == 0)
            assert "detect, decoder yolov8" in text
        assert f"verdict {'good' if answered else 'caveat'}" in Read(html(account)).classes()


def test_a_few_outputs_are_plotted() -> None:
    """A model of many outputs has plots of the first four, and every output's figures in words."""
    names = [f"output_{number}" for number in range(6)]
    parities = tuple(Parity(name, 0.99, 0.5, 0.0, 1.0) for name in names)
    trials = (replace(TRIALS[0], parities=parities),)
    page = Read(html(replace(ACCOUNT, trials=trials, scatters=tuple(map(scatter, names)), goldens=())))
    assert len(page.all("img")) == 2 * 4
    assert "The first 4 of 6 outputs are plotted" in page.text
    assert all(f"Output {name}: the SavedModel's values" in page.text for name in names)


def test_text_needs_no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """report.md is made without drawing anything, and says where the plots are."""
    monkeypatch.setattr(plots, "_axes", None)
    assert "Plots and pictures are in report.html" in markdown(ACCOUNT)


def test_equal_accounts_give_equal_reports() -> None:
    """Nothing in a report is by chance or of the day: two of the same account are the same to the last byte."""
    assert html(ACCOUNT) == html(ACCOUNT)
    assert markdown(ACCOUNT) == markdown(ACCOUNT)


VALUES = np.linspace(-3, 5, 50)
NUMBERS_MISSING = np.where(VALUES > 0, VALUES, np.nan)


@pytest.mark.parametrize("draw", [plots.scatter, plots.histogram])
@pytest.mark.parametrize(
    ("reference", "got"),
    [
        (VALUES, VALUES + 0.1),
        (VALUES, VALUES),
        (VALUES * 1e-9, VALUES * 1e-9 + 1e-12),
        (VALUES, NUMBERS_MISSING),
        (VALUES, np.full(50, np.inf)),
        (np.ones(50), np.ones(50)),
        (np.zeros(0), np.zeros(0)),
    ],
    ids=["apart", "equal", "tiny", "NaN", "infinite", "constant", "none"],
)
def test_any_values_can_be_plotted(draw: Any, reference: Any, got: Any) -> None:
    """No values make a plot fail or warn, and it has the size that the page gives it."""
    assert decoded(draw(reference, got)).shape == (plots.DENSITY * plots.HEIGHT_PX, plots.DENSITY * plots.WIDTH_PX, 3)


def test_scatter_shows_the_values() -> None:
    """Values off the diagonal are seen off it, be the axes the same."""
    assert plots.scatter(VALUES, VALUES) != plots.scatter(VALUES, VALUES[::-1])


@pytest.mark.parametrize(
    ("fraction", "words"),
    [
        (0, "0%"), (1, "100%"), (0.004, "0.40%"), (0.12345, "12.35%"), (1e-6, "<0.01%"), (0.999999, ">99.99%"), (1.8643, "186.43%"),
    ],
)  # fmt: skip
def test_percent(fraction: float, words: str) -> None:
    """A fraction is never rounded to none or all."""
    assert percent(fraction) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 kB"), (999, "1.0 kB"), (70_216, "70.2 kB"), (16_120_000, "16.12 MB"), (1_000_000, "1.00 MB")],
)
def test_size(count: int, words: str) -> None:
    """Sizes are in decimal units."""
    assert size(count) == words
