"""Every mode of --quantize gives a bundle that the board accepts, and auto takes the first that loses little enough."""

from __future__ import annotations

import commands
import pytest

from edge_runner.builder.order import AUTO_MODES
from edge_runner.model.bundle import MODEL, ModelConfig, damages, open_model, read_manifest
from edge_runner.model.flatbuffer import read_graph

pytestmark = pytest.mark.builder

FLOAT, INT8, UINT8 = ("float32", "float32"), ("int8", "int8"), ("uint8", "uint8")
MODES = [
    # options,                                 input and output,  the size's share of float32's at most
    (("none",),                                FLOAT,             1.0),
    (("float16",),                             FLOAT,             0.75),
    (("dynamic",),                             FLOAT,             0.5),
    (("int8",),                                INT8,              0.8),
    (("int8", "--io-type", "int8"),            INT8,              0.8),
    (("int8", "--io-type", "uint8"),           UINT8,             0.8),
    (("int8", "--io-type", "float32"),         FLOAT,             0.8),
    (("int16x8",),                             FLOAT,             1.05),  # 64-bit biases, and a scale a unit since 2.17
]  # fmt: skip


@pytest.fixture
def in_mode(made, pictures, labels):
    def get(*mode: str):
        options = ("--normalize", "0..1", "--labels", labels, "--calibration", pictures, "--quantize", *mode)
        return made("colour", *options)

    return get


@pytest.mark.parametrize(("mode", "dtypes", "share"), MODES, ids=[" ".join(row[0]) for row in MODES])
def test_each_mode(mode, dtypes, share, in_mode, pictures, tmp_path):
    """A bundle of each mode is whole, answers right, is as small as promised, and the board accepts it, goldens and all."""
    bundle = in_mode(*mode)
    manifest = read_manifest(bundle)
    assert damages(bundle, manifest) == []
    assert (manifest.quantization, manifest.inputs[0].dtype, manifest.outputs[0].dtype) == (mode[0], *dtypes)
    assert manifest.inputs[0].shape == (1, 16, 16, 3), "the batch is pinned to 1"
    assert (manifest.proof["verdict"], manifest.proof["recipe"]) == ("passed", "not verified")
    assert manifest.proof["changed"] <= manifest.proof["max_loss"] == 0.01
    assert open_model(ModelConfig(path=bundle)).labels == commands.LABELS
    assert commands.accuracy(bundle, pictures) == 1.0
    whole = (in_mode("none") / MODEL).stat().st_size
    assert (bundle / MODEL).stat().st_size <= share * whole
    checked = commands.check(bundle, tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "goldens hold" in checked.stdout
    assert "(not verified)" in checked.stdout


def test_operators_are_in_the_manifest(in_mode):
    """The manifest says which operators of which versions the board needs, as the model itself does."""
    for mode in ("none", "int8"):
        bundle = in_mode(mode)
        listed = [(used.name, used.version, used.count) for used in read_manifest(bundle).operators]
        assert listed == read_graph((bundle / MODEL).read_bytes()).counted()
        assert {"CONV_2D", "FULLY_CONNECTED", "SOFTMAX"} <= {name for name, _, _ in listed}


def test_auto_takes_the_smallest_that_answers_alike(colour):
    """Where int8 loses nothing it is taken; the report has a row for every mode that was tried, with its figures."""
    assert read_manifest(colour).quantization == "int8"
    rows = commands.mode_rows((colour / "report.md").read_text())
    assert set(rows) == {"SavedModel", *AUTO_MODES}
    assert [mode for mode, (tag, *_) in rows.items() if "chosen" in tag] == ["int8"]
    for mode in AUTO_MODES:
        assert "0% of 32" in rows[mode], "the answers that changed"
        assert "100%" in rows[mode], "top-1"


def test_auto_passes_over_what_loses_too_much(made, pictures):
    """Where int8 changes the answers, the next mode that does not is taken, and the report says what int8 would have lost."""
    options = ("--normalize", "0..1", "--quantize", "auto", "--calibration", pictures)
    bundle = made("wavering", *options)
    assert read_manifest(bundle).quantization == "dynamic"
    rows = commands.mode_rows((bundle / "report.md").read_text())
    assert "loses too much" in rows["int8"][0]
    assert "chosen" in rows["dynamic"][0]
    assert set(rows) == {"SavedModel", *AUTO_MODES}


def test_auto_takes_none_where_nothing_smaller_will_do(made, bright):
    """A model that every rounding of its weights changes stays float32."""
    options = ("--normalize", "0..1", "--quantize", "auto", "--calibration", bright)
    bundle = made("hair_splitting", *options)
    manifest = read_manifest(bundle)
    assert (manifest.quantization, manifest.proof["verdict"]) == ("none", "passed")
    rows = commands.mode_rows((bundle / "report.md").read_text())
    assert ["loses too much" in rows[mode][0] for mode in AUTO_MODES] == [True, True, True, False]


def test_auto_survives_a_mode_that_cannot_be(made, arrays):
    """TensorFlow dies of an LSTM in int8: that mode is a refused row that says why, and the next one is taken."""
    options = ("--task", "raw", "--quantize", "auto", "--calibration", arrays / "lstm.npz")
    bundle = made("lstm", *options)
    report = (bundle / "report.md").read_text()
    rows = commands.mode_rows(report)
    assert set(rows) == {"SavedModel", *AUTO_MODES}
    assert rows["int8"][0] == "refused"
    assert "int8 was refused" in report
    assert read_manifest(bundle).quantization == "dynamic"
    inspected = commands.inspect(bundle)
    assert (inspected.returncode, inspected.stderr) == (0, "")


def test_a_mode_that_cannot_be_is_refused(refuse, saved_models, arrays):
    """Asked for by name it is one line: the model, that TensorFlow broke down, and how."""
    options = ("--task", "raw", "--quantize", "int8", "--calibration", arrays / "lstm.npz")
    line = refuse(saved_models / "lstm", *options)
    assert str(saved_models / "lstm") in line
    assert "SIGSEGV" in line or "int8" in line
