"""The proof: how a .tflite compares with the SavedModel, and the goldens and tolerances by which the board repeats it."""

from __future__ import annotations

import commands
import numpy as np
import pytest

from edge_runner.builder.proof import SCATTERED_MOST, Comparison, compared, make_goldens
from edge_runner.builder.samples import Arrays, Pictures, made_up_pictures
from edge_runner.builder.workbench import Built
from edge_runner.frame import Ending, TensorSpec
from edge_runner.model.bundle import read_manifest
from edge_runner.model.flatbuffer import Graph, Operator
from edge_runner.model.goldens import read_goldens, recipe_dict
from edge_runner.model.interpreter import Interpreter, find_runtime
from edge_runner.model.preprocess import Recipe
from edge_runner.task.base import ModelFacts, Task
from edge_runner.task.classify import Classify, ClassifyConfig
from edge_runner.task.raw import Raw, RawConfig

RGB = Recipe("rgb", (0.0,), (255.0,))
SCORES = TensorSpec("scores", (1, 3), "float32")
VALUES = TensorSpec("values", (1, 4), "float32")


def classify(*specs: TensorSpec) -> Task:
    return Classify(ClassifyConfig(), ModelFacts(specs or (SCORES,), (Ending("SOFTMAX"),), None, "nothing"))


def raw(*specs: TensorSpec) -> Task:
    return Raw(RawConfig(), ModelFacts(specs or (VALUES,), (Ending("ADD"),) * len(specs or (VALUES,)), None, "nothing"))


def values(*numbers: float) -> list[np.ndarray]:
    return [np.array([numbers], np.float32)]


def silent(done: int) -> None:
    pass


class Model:
    """Stands for an interpreter: float inputs in, `answer(inputs)` out."""

    def __init__(self, answer, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        self.run = answer
        self.inputs, self.outputs = inputs, outputs


def test_equal_outputs(data):
    """A model that is compared with itself changes nothing: cosine 1, error 0, and the extremes are its own."""
    interpreter = Interpreter((data / "colour.tflite").read_bytes(), find_runtime())
    samples = made_up_pictures(RGB)
    feed = samples.feeder(interpreter.inputs)
    answers = [interpreter.run(*feed(number)) for number in range(len(samples))]
    told: list[int] = []
    comparison = compared(answers.__getitem__, interpreter, samples, classify(), told.append)
    assert told == list(range(1, len(samples) + 1))
    assert (comparison.changed, comparison.samples) == (0, len(samples))
    assert comparison.expected == comparison.winners == [int(np.argmax(a[0])) for a in answers]
    [parity] = comparison.parities()
    assert (parity.output, parity.cosine, parity.max_abs_error) == (interpreter.outputs[0].name, 1.0, 0.0)
    assert (parity.low, parity.high) == pytest.approx((np.min(answers), np.max(answers)), rel=1e-5)


def test_a_classifiers_answer_is_its_best_class():
    """Another best class is a changed answer, other scores are not; both winners of each sample are kept."""
    comparison = Comparison([SCORES], classify(), [0.0])
    comparison.add(values(0.5, 0.3, 0.2), values(0.9, 0.05, 0.05), 1)
    comparison.add(values(0.5, 0.3, 0.2), values(0.3, 0.5, 0.2), 1)
    assert (comparison.changed, comparison.samples) == (1, 2)
    assert (comparison.expected, comparison.winners) == ([0, 0], [0, 1])
    [parity] = comparison.parities()
    assert parity.max_abs_error == pytest.approx(0.4)
    reference, got = np.array([0.5, 0.3, 0.2] * 2), np.array([0.9, 0.05, 0.05, 0.3, 0.5, 0.2])
    cosine = reference @ got / np.sqrt((reference @ reference) * (got @ got))
    assert parity.cosine == pytest.approx(cosine, abs=1e-6)


@pytest.mark.parametrize(("off", "changed"), [(0.49, 0), (0.51, 1)])
def test_a_raw_answer_is_all_of_its_values(off, changed):
    """Without classes, an answer is changed where its root mean square is off by more than 5 % of the output's range."""
    reference = values(0, 5, 10, 0)
    model = Model(lambda _: [reference[0] + off], (TensorSpec("x", (1, 1), "float32"),), (VALUES,))
    samples = Arrays({"x": np.zeros((1, 1), np.float32)}, "here")
    comparison = compared(lambda number: reference, model, samples, raw(), silent)
    assert (comparison.changed, comparison.samples) == (changed, 1)
    assert (comparison.expected, comparison.winners) == ([], [])


def test_not_a_number_is_a_changed_answer():
    """NaN is never the same answer, of a classifier neither; it hides no error of other values."""
    for task, spec in ((classify(), SCORES), (raw(SCORES), SCORES)):
        comparison = Comparison([spec], task, [1e9])
        comparison.add(values(0.2, 0.3, 0.5), values(0.2, np.nan, 0.75), 1)
        assert comparison.changed == 1
        assert comparison.parities()[0].max_abs_error == 0.25


@pytest.mark.parametrize(
    ("reference", "got", "cosine"),
    [((0, 0, 0), (0, 0, 0), 1), ((0, 0, 0), (0, 1, 0), 0), ((1, 0, 0), (0, 1, 0), 0), ((1, 2, 3), (-1, -2, -3), -1)],
)
def test_cosine(reference, got, cosine):
    """Of the whole output over all samples; of nothing but zeros it is 1 if both are so."""
    comparison = Comparison([SCORES], classify(), [0.0])
    comparison.add(values(*reference), values(*got), 1)
    assert comparison.parities()[0].cosine == cosine


def test_every_output_is_compared():
    """Each output has its own figures, by its own name, and one that is off changes the answer."""
    other = TensorSpec("other", (1, 1), "float32")
    comparison = Comparison([VALUES, other], raw(VALUES, other), [0.1, 0.1])
    comparison.add([*values(1, 2, 3, 4), *values(1)], [*values(1, 2, 3, 4), *values(2)], 1)
    first, second = comparison.parities()
    assert (first.output, first.max_abs_error, second.output, second.max_abs_error) == ("values", 0, "other", 1)
    assert comparison.changed == 1


def test_plots_have_a_bounded_number_of_values():
    """However large an output is and however many samples there are, about as many values as a plot can show are kept."""
    large = TensorSpec("large", (1, 50_000), "float32")
    model = Model(
        lambda x: [np.full(large.shape, x[0, 0], np.float32)], (TensorSpec("x", (1, 1), "float32"),), (large,)
    )
    samples = Arrays({"x": np.arange(20, dtype=np.float32)[:, None]}, "here")
    reference = [np.full(large.shape, float(n), np.float32) for n in range(20)]
    comparison = compared(lambda n: [reference[n]], model, samples, raw(large), silent)
    [scatter] = comparison.scatters()
    assert SCATTERED_MOST / 2 <= len(scatter.reference) == len(scatter.got) <= SCATTERED_MOST * 2
    assert set(scatter.got) == set(map(float, range(20))), "of every sample"


def steady(*outputs: float, drift: float = 0.0) -> Model:
    """Answers the same to every input; `drift` is put on the first value."""
    spec = TensorSpec("x", (1, 8, 8, 3), "float32")
    return Model(lambda _: values(outputs[0] + drift, *outputs[1:]), (spec,), (VALUES,))


def test_tolerance_of_a_range():
    """Where nothing drifts, an output may be off by 0.001 of the range of its values."""
    samples = made_up_pictures(RGB).some(3)
    goldens = make_goldens(
        samples, lambda n: values(0, 0, 0, 0), steady(1, 2, 3, 11), steady(1, 2, 3, 11), rounds=False
    )
    assert goldens.tolerances == [pytest.approx(0.01)]


def test_tolerance_of_a_drift():
    """Four times what the reference kernels answer otherwise, where that is more."""
    samples = made_up_pictures(RGB).some(3)
    goldens = make_goldens(
        samples, lambda n: values(0, 0, 0, 0), steady(1, 2, 3, 11), steady(1, 2, 3, 11, drift=-0.5), rounds=False
    )
    assert goldens.tolerances == [pytest.approx(2.0)]


def test_tolerance_of_steps():
    """Three quantisation steps, where that is more."""
    spec = TensorSpec("values", (1, 4), "int8", 0.25, 0)
    model = steady(1, 2, 3, 11)
    model.outputs = (spec,)
    goldens = make_goldens(made_up_pictures(RGB).some(3), lambda n: values(0, 0, 0, 0), model, model, rounds=True)
    assert goldens.tolerances == [0.75]


def test_tolerance_of_noise():
    """Four times what one grey level of noise on the golden pictures changes, where the model computes in whole numbers."""
    picture = TensorSpec("x", (1, 8, 8, 3), "float32")
    model = Model(lambda x: values(0, 0, 0, float(x[0, 0, 0, 0]) * 255), (picture,), (VALUES,))
    pictures = Pictures([np.full((8, 8, 3), level, np.uint8) for level in range(100, 110)], RGB)
    goldens = make_goldens(pictures, lambda n: values(0, 0, 0, 0), model, model, rounds=True)
    assert goldens.tolerances == [pytest.approx(4.0, rel=1e-4)]
    goldens = make_goldens(pictures, lambda n: values(0, 0, 0, 0), model, model, rounds=False)
    assert goldens.tolerances == [pytest.approx(0.109, rel=1e-4)]


@pytest.mark.parametrize(
    ("mode", "operators", "rounds"),
    [
        ("none", ["CONV_2D"], False),
        ("float16", ["DEQUANTIZE", "CONV_2D"], False),
        ("none", ["CONV_2D", "QUANTIZE", "DEQUANTIZE"], True),
        ("none", ["FAKE_QUANT"], True),
        ("dynamic", ["CONV_2D"], True),
        ("int8", ["CONV_2D"], True),
        ("int16x8", ["CONV_2D"], True),
    ],
)
def test_models_that_round(mode: str, operators: list[str], rounds: bool):
    """Noise counts of models that compute in whole numbers, those trained with fake quantisation among them."""
    used = tuple(Operator(name, 1, False, (), ()) for name in operators)
    assert Built(mode, b"", Graph("", used, (), (), (), "", 0), None, None).rounds == rounds


def test_tolerance_of_noise_without_pictures():
    """Of inputs that are no pictures, the noise is 1/255 of their range; indices, which are whole numbers, are left alone."""
    x, index = TensorSpec("x", (1, 6), "float32"), TensorSpec("index", (1, 2), "int32")
    seen: list[np.ndarray] = []

    def answer(real, whole):
        seen.append(whole)
        return values(0, 0, 0, float(real[0, 0]))

    model = Model(answer, (x, index), (VALUES,))
    samples = Arrays({"x": np.tile(np.linspace(0, 510, 6), (10, 1)), "index": np.full((10, 2), 7)}, "here")
    goldens = make_goldens(samples, lambda n: values(0, 0, 0, 0), model, model, rounds=True)
    assert goldens.tolerances == [pytest.approx(8.0, rel=1e-4)]
    assert np.array_equal(np.unique(seen), [7])


def test_goldens_hold_both_answers():
    """A golden has the picture, the prepared input, the .tflite's answer and the SavedModel's, and the recipe beside them."""
    pictures = made_up_pictures(RGB).some(2)
    model = steady(1, 2, 3, 4)
    goldens = make_goldens(pictures, lambda n: values(n, n, n, n), model, model, rounds=False)
    assert goldens.recipe == recipe_dict(RGB)
    for number, item in enumerate(goldens.items):
        assert np.array_equal(item.picture, pictures.picture(number))
        assert np.array_equal(item.inputs[0], pictures.feeder(model.inputs)(number)[0])
        assert (item.outputs[0].tolist(), item.reference[0].tolist()) == ([[1, 2, 3, 4]], [[number] * 4])


def test_goldens_without_pictures():
    """A model that is not fed pictures has goldens of arrays: no picture, and no recipe."""
    spec = TensorSpec("x", (1, 3), "float32")
    model = Model(lambda x: values(*x[0], 0), (spec,), (VALUES,))
    goldens = make_goldens(Arrays({"x": np.eye(3)}, "here"), lambda n: values(0, 0, 0, 0), model, model, rounds=True)
    assert goldens.recipe is None
    assert [item.picture for item in goldens.items] == [None] * 3
    assert [item.inputs[0].tolist() for item in goldens.items] == [[row] for row in np.eye(3).tolist()]


@pytest.mark.builder
def test_float32_answers_are_the_saved_models_own(made, pictures):
    """The .tflite outputs of a float32 build are TensorFlow's to five digits, and not all alike."""
    bundle = made("colour", "--normalize", "0..1", "--calibration", pictures)
    goldens = read_goldens(bundle / "golden.npz")
    assert len(goldens.items) == 4
    for item in goldens.items:
        np.testing.assert_allclose(item.outputs[0], item.reference[0], atol=1e-5)
    assert np.ptp([item.outputs[0][0, 0] for item in goldens.items]) > 0.5


@pytest.mark.builder
def test_a_model_whose_answers_change_is_stopped(refuse, saved_models, pictures):
    """A quantised model that answers otherwise than the SavedModel is refused, with how much, of what, and what is allowed."""
    options = ("--normalize", "0..1", "--quantize", "int8", "--calibration", pictures)
    line = refuse(saved_models / "wavering", *options)
    share = float(line.partition("changes ")[2].partition("%")[0]) / 100
    assert 0.01 < share <= 1
    assert "of the answers to 32 samples" in line
    assert "allowed is 1.0%" in line
    assert "--max-loss" in line
    assert "--force" in line


@pytest.mark.builder
def test_more_may_be_allowed(made, pictures):
    """--max-loss says how many answers may change: what is within it has passed."""
    options = ("--normalize", "0..1", "--quantize", "int8", "--calibration", pictures, "--max-loss", "1")
    proof = read_manifest(made("wavering", *options)).proof
    assert (proof["verdict"], proof["max_loss"], proof["objections"]) == ("passed", 1.0, [])
    assert 0.01 < proof["changed"] == proof["loss"]


@pytest.mark.builder
def test_a_failed_proof_with_force(made, pictures, tmp_path):
    """--force keeps it, marked as failed: in the manifest, in the report, on the terminal, and on the board at each start."""
    options = ("--normalize", "0..1", "--quantize", "int8", "--calibration", pictures, "--force")
    bundle = made("wavering", *options)
    proof = read_manifest(bundle).proof
    assert proof["verdict"] == "failed"
    assert "of the answers to 32 samples" in proof["objections"][0]
    assert "proof failed" in (bundle.parent / "said.txt").read_text()
    assert "Must not ship" in (bundle / "report.md").read_text()
    checked = commands.check(bundle, tmp_path)
    assert checked.returncode == 0
    [warning] = checked.stderr.splitlines()
    assert f"{bundle}: the proof of this bundle failed when it was built" in warning


@pytest.mark.builder
def test_with_labels_the_accuracy_counts(made, bright):
    """With --evaluate, the loss is the accuracy that goes, not the answers that change."""
    options = ("--normalize", "0..1", "--quantize", "int8", "--calibration", bright, "--evaluate", bright, "--force")
    proof = read_manifest(made("wavering", *options)).proof
    evaluation = proof["evaluation"]
    assert proof["loss"] == pytest.approx(max(0, evaluation["saved_model_top1"] - evaluation["tflite_top1"]), abs=1e-6)
    assert evaluation["saved_model_top1"] == 1.0
