"""The proof: how a .tflite compares with the SavedModel, and the goldens and tolerances by which the board repeats it."""

from __future__ import annotations

from typing import Any

import commands
import numpy as np
import pytest

from edge_runner.builder.proof import SCATTERED_MOST, Comparison, compared, make_goldens
from edge_runner.builder.samples import Arrays, Pictures, Samples, made_up_pictures
from edge_runner.builder.workbench import Built
from edge_runner.errors import ModelError
from edge_runner.frame import Ending, TensorSpec
from edge_runner.model.bundle import read_manifest
from edge_runner.model.flatbuffer import Graph, Operator
from edge_runner.model.goldens import Goldens, read_goldens, recipe_dict
from edge_runner.model.interpreter import Interpreter, find_runtime
from edge_runner.model.preprocess import Recipe
from edge_runner.task.base import ModelFacts, Task
from edge_runner.task.classify import Classify, ClassifyConfig
from edge_runner.task.detect import Detect, DetectConfig
from edge_runner.task.pose import Pose, PoseConfig
from edge_runner.task.raw import Raw, RawConfig
from edge_runner.task.segment import SegmentConfig, Segmenter

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


def goldens_of(
    samples: Samples, model: Model, slow: Model, task: Task | None = None, *, rounds: bool = False
) -> Goldens:
    """Goldens that hold here; what the SavedModel answers does not matter to their tolerances."""
    goldens, why = make_goldens(samples, lambda n: values(0, 0, 0, 0), model, slow, task or raw(), rounds=rounds)
    assert why is None
    return goldens


def test_tolerance_of_a_range():
    """Where nothing drifts, an output may be off by 0.001 of the range of its values."""
    samples = made_up_pictures(RGB).some(3)
    goldens = goldens_of(samples, steady(1, 2, 3, 11), steady(1, 2, 3, 11))
    assert goldens.tolerances == [pytest.approx(0.01)]


def test_tolerance_of_a_drift():
    """Four times what the reference kernels answer otherwise, where that is more."""
    samples = made_up_pictures(RGB).some(3)
    goldens = goldens_of(samples, steady(1, 2, 3, 11), steady(1, 2, 3, 11, drift=-0.5))
    assert goldens.tolerances == [pytest.approx(2.0)]


def test_tolerance_of_steps():
    """Three quantisation steps, where that is more."""
    spec = TensorSpec("values", (1, 4), "int8", 0.25, 0)
    model = steady(1, 2, 3, 11)
    model.outputs = (spec,)
    goldens = goldens_of(made_up_pictures(RGB).some(3), model, model, rounds=True)
    assert goldens.tolerances == [0.75]


def test_tolerance_of_noise():
    """Four times what one grey level of noise on the golden pictures changes, where the model computes in whole numbers."""
    picture = TensorSpec("x", (1, 8, 8, 3), "float32")
    model = Model(lambda x: values(0, 0, 0, float(x[0, 0, 0, 0]) * 255), (picture,), (VALUES,))
    pictures = Pictures([np.full((8, 8, 3), level, np.uint8) for level in range(100, 110)], RGB)
    goldens = goldens_of(pictures, model, model, rounds=True)
    assert goldens.tolerances == [pytest.approx(4.0, rel=1e-4)]
    goldens = goldens_of(pictures, model, model)
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
    goldens = goldens_of(samples, model, model, rounds=True)
    assert goldens.tolerances == [pytest.approx(8.0, rel=1e-4)]
    assert np.array_equal(np.unique(seen), [7])


def test_goldens_hold_both_answers():
    """A golden has the picture, the prepared input, the .tflite's answer and the SavedModel's, and the recipe beside them."""
    pictures = made_up_pictures(RGB).some(2)
    model = steady(1, 2, 3, 4)
    goldens, why = make_goldens(pictures, lambda n: values(n, n, n, n), model, model, raw(), rounds=False)
    assert why is None
    assert goldens.recipe == recipe_dict(RGB)
    for number, item in enumerate(goldens.items):
        assert np.array_equal(item.picture, pictures.picture(number))
        assert np.array_equal(item.inputs[0], pictures.feeder(model.inputs)(number)[0])
        assert (item.outputs[0].tolist(), item.reference[0].tolist()) == ([[1, 2, 3, 4]], [[number] * 4])


def test_goldens_without_pictures():
    """A model that is not fed pictures has goldens of arrays: no picture, and no recipe."""
    spec = TensorSpec("x", (1, 3), "float32")
    model = Model(lambda x: values(*x[0], 0), (spec,), (VALUES,))
    goldens = goldens_of(Arrays({"x": np.eye(3)}, "here"), model, model, rounds=True)
    assert goldens.recipe is None
    assert [item.picture for item in goldens.items] == [None] * 3
    assert [item.inputs[0].tolist() for item in goldens.items] == [[row] for row in np.eye(3).tolist()]


class Sorted(Task):
    """A task of values that the model has sorted: the answer is how many of them reach a half, beyond the tolerance."""

    def __init__(self) -> None:
        pass

    @property
    def chosen(self):
        return (True,)

    def decode(self, tensors, geometry):
        raise NotImplementedError

    def same_answer(self, expected, got, tolerances):
        at_least, at_most = ((expected[0] >= 0.5 + sign * tolerances[0]).sum() for sign in (1, -1))
        count = (got[0] >= 0.5).sum()
        return None if at_least <= count <= at_most else f"{count} of them, {at_least} to {at_most} on the host"


def test_chosen_outputs_are_compared_by_their_answers():
    """Values that the model sorted may change places: only another answer is a change, and no figure of them is shown."""
    comparison = Comparison([VALUES], Sorted(), [0.01])
    comparison.add(values(0.9, 0.8, 0.1, 0.0), values(0.8, 0.9, 0.0, 0.1), 1)
    assert (comparison.changed, comparison.scatters()) == (0, ())
    comparison.add(values(0.9, 0.8, 0.1, 0.0), values(0.8, 0.9, 0.7, 0.1), 1)
    assert (comparison.changed, comparison.samples) == (1, 2)
    [parity] = comparison.parities()
    assert (parity.cosine, parity.max_abs_error) == (None, None)
    assert (parity.low, parity.high) == (0, pytest.approx(0.9))


@pytest.mark.parametrize(
    ("last", "elsewhere", "wider"),
    [
        (0.1, (0.9, 0.8, 0.1), 1),  # other places: nothing drifts
        (0.5004, (0.9, 0.8, 0.4995), 2),  # the answer needs half of 0.001 of the range, and four times that is allowed
        (0.503, (0.9, 0.8, 0.497), 16),
    ],
)
def test_tolerance_of_chosen_outputs(last, elsewhere, wider):
    """The drift of what the model sorted is what the same answer needs, to a power of two, wherever the values have gone."""
    model, slow = steady(0.8, 0.9, last, -0.1), steady(*elsewhere, -0.1)
    goldens = goldens_of(made_up_pictures(RGB).some(3), model, slow, Sorted())
    assert goldens.tolerances == [pytest.approx(0.001 * wider)]


def test_goldens_that_are_not_steady_are_left_out():
    """A sample that other kernels answer otherwise, whatever is allowed, proves nothing; others of them are kept."""
    picture = TensorSpec("x", (1, 8, 8, 3), "float32")
    pictures = Pictures([np.full((8, 8, 3), level, np.uint8) for level in (10, 200, 20)], RGB)
    model = Model(lambda x: values(0.9, float(x.mean()), 0, 0), (picture,), (VALUES,))
    slow = Model(lambda x: values(0.9, 0, 0, 0), (picture,), (VALUES,))
    goldens = goldens_of(pictures, model, slow, Sorted())
    assert [int(item.picture.mean()) for item in goldens.items] == [10, 20]


def test_a_model_that_other_kernels_answer_otherwise():
    """Where no sample is left, it is said why: no board could be held to these goldens."""
    samples = made_up_pictures(RGB).some(3)
    goldens, why = make_goldens(
        samples, lambda n: values(0, 0, 0, 0), steady(0.9, 0.9, 0, 0), steady(0.9, 0, 0, 0), Sorted(), rounds=False
    )
    assert len(goldens.items) == 3
    assert why == "1 of them, 2 to 2 on the host"


BOXES = TensorSpec("boxes", (1, 6, 21), "float32")
MAP = TensorSpec("map", (1, 10, 10), "int64")
POINTS = TensorSpec("points", (1, 1, 17, 3), "float32")


def of(cls: type[Task], spec: TensorSpec, ending: str, config: Any) -> Task:
    return cls(config, ModelFacts((spec,), (Ending(ending),), None, "nothing", (32, 32)))


def box(x: float, score: float = 0.9) -> np.ndarray:
    """YOLOv8's output with one box of 0.2 by 0.2."""
    found = np.zeros(BOXES.shape, np.float32)
    found[0, :, 3] = (x, 0.5, 0.2, 0.2, score, 0)
    return found


def area(cells: int) -> np.ndarray:
    """So many of a hundred cells are of class 1."""
    found = np.zeros(MAP.shape, np.int64)
    found.flat[:cells] = 1
    return found


def points(x: float) -> np.ndarray:
    return np.stack([np.linspace(0, 1, 17), np.full(17, x), np.full(17, 0.9)], 1)[None, None].astype(np.float32)


ANSWERS = [
    (of(Detect, BOXES, "CONCATENATION", DetectConfig()), BOXES, box(0.5), box(0.5, 0.87), box(0.66)),
    (of(Detect, BOXES, "CONCATENATION", DetectConfig()), BOXES, box(0.5), box(0.52), box(0.5, 0.2)),
    (of(Detect, BOXES, "CONCATENATION", DetectConfig()), BOXES, box(0.5, 0.2), box(0.3, 0.3), box(0.5)),
    (of(Segmenter, MAP, "ARG_MAX", SegmentConfig()), MAP, area(40), area(40), area(42)),
    (of(Pose, POINTS, "CONCATENATION", PoseConfig()), POINTS, points(0.5), points(0.52), points(0.6)),
]


@pytest.mark.parametrize(("task", "spec", "expected", "alike", "otherwise"), ANSWERS)
def test_an_answer_is_what_is_found(task, spec, expected, alike, otherwise):
    """Of detectors, segmenters and poses, what was found elsewhere, or no more, is a changed answer; a little aside is none."""
    samples = Arrays({"x": np.zeros((1, 1), np.float32)}, "here")
    for found, changed in ((expected, 0), (alike, 0), (otherwise, 1)):
        model = Model(lambda _, found=found: [found], (TensorSpec("x", (1, 1), "float32"),), (spec,))
        assert compared(lambda number: [expected], model, samples, task, silent).changed == changed


def test_samples_with_something_to_find():
    """Of each sample it is kept whether the .tflite finds anything; its first class alone is nothing that a segmenter finds."""
    for task, spec, *outputs in (
        (*ANSWERS[0][:2], box(0.5), box(0.5, 0.2)),
        (*ANSWERS[3][:2], area(3), area(0)),
        (*ANSWERS[4][:2], points(0.5), points(0.5) * 0),
        (raw(), VALUES, *values(1, 2, 3, 4), None),
    ):
        comparison = Comparison([spec], task, [0.0])
        for output in outputs:
            if output is not None:
                comparison.add([output], [output], 1)
        assert comparison.answered == [True, False][: comparison.samples]


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
def test_whole_numbers(dtype):
    """Outputs that are no real numbers, class numbers of an argmax for one, are compared and become goldens as others do."""
    spec = TensorSpec("classes", (1, 4), dtype)
    task = Raw(RawConfig(), ModelFacts((spec,), (Ending("ARG_MAX"),), None, "nothing"))
    picture = TensorSpec("x", (1, 8, 8, 3), "float32")
    model = Model(lambda x: [np.array([[0, 1, 1, 0]], dtype)], (picture,), (spec,))
    samples = made_up_pictures(RGB).some(3)
    comparison = compared(lambda n: [np.array([[0, 1, 1, 1]], dtype)], model, samples, task, silent)
    assert (comparison.changed, comparison.samples) == (3, 3)
    [parity], [scatter] = comparison.parities(), comparison.scatters()
    assert (parity.max_abs_error, parity.low, parity.high) == (1, 0, 1)
    assert scatter.got.dtype == np.float64
    goldens = goldens_of(samples, model, model, task, rounds=True)
    assert goldens.tolerances == [pytest.approx(0.001)]
    assert goldens.items[0].outputs[0].dtype == dtype


def test_stand_ins_are_not_compared():
    """A SavedModel whose output has another shape than the .tflite's has only stood in for it: that is said, with both shapes."""
    model = steady(1, 2, 3, 4)
    with pytest.raises(ModelError, match=r"'values' is \[1, 4\] of the \.tflite, and \[\] of the SavedModel"):
        compared(lambda n: [np.float32(0)], model, made_up_pictures(RGB).some(2), raw(), silent)


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
