"""What is asked for: all that can be known to be wrong with it is said before TensorFlow is started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge_runner.builder.order import AUTO_MODES, MODES, Objections, Order, check_order
from edge_runner.errors import ModelError, SettingError
from edge_runner.model.preprocess import Recipe

RECIPE = Recipe("rgb", (0.0,), (255.0,))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that looks like a SavedModel."""
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"VarHandleOp")
    return folder


@pytest.fixture
def order(model: Path, tmp_path: Path) -> Callable[..., Order]:
    """An order that is right, with what is given put over it."""
    right = Order(model=model, output=tmp_path / "out", name="birds", task="classify", recipe=RECIPE)
    return lambda **changes: replace(right, **changes)


def test_a_right_order_passes(order, tmp_path):
    """Nothing is said of an order that can be carried out, and nothing is written."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    before = sorted(tmp_path.rglob("*"))
    check_order(order())
    check_order(
        order(quantize="int8", io_type="uint8", calibration=pictures, max_loss=1.0, name="a_B-3.c", version="1.2")
    )
    check_order(order(quantize="auto", io_type="float32", calibration=pictures, target="ai-edge-litert==2.0.3"))
    check_order(order(task="raw", recipe=None))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "../birds"}, ["--name", "'../birds'", "letters"]),
        ({"name": ""}, ["--name"]),
        ({"name": ".hidden"}, ["--name"]),
        ({"name": "two words"}, ["--name"]),
        ({"version": "1/2"}, ["--model-version", "'1/2'"]),
        ({"max_loss": -0.01}, ["--max-loss", "-0.01", "0 to 1"]),
        ({"max_loss": 5}, ["--max-loss", "5", "0 to 1"]),
        ({"max_loss": float("nan")}, ["--max-loss", "nan"]),
        ({"io_type": "int8"}, ["--io-type int8", "--quantize int8"]),
        ({"io_type": "uint8", "quantize": "dynamic"}, ["--io-type uint8", "--quantize int8", "dynamic"]),
        ({"quantize": "int8"}, ["int8", "--calibration"]),
        ({"quantize": "int16x8"}, ["int16x8", "--calibration"]),
        ({"quantize": "auto"}, ["auto", "--calibration"]),
        ({"calibration": Path("/nowhere")}, ["--calibration /nowhere"]),
        ({"evaluate": Path(), "task": "raw"}, ["--evaluate", "raw", "classify"]),
        ({"evaluate": Path(), "task": "detect"}, ["--evaluate", "detect", "mAP", "bench/evaluate.py"]),
        ({"evaluate": Path(), "task": "segment"}, ["--evaluate", "segment", "mIoU", "bench/evaluate.py"]),
        ({"sets": ["max_results=3"]}, ["--set", "'max_results=3'", "task.score_threshold=0.4"]),
        ({"sets": ["task.max_results"]}, ["--set", "'task.max_results'"]),
        ({"sets": ["task.max_results=many"]}, ["--set task.max_results: got 'many'"]),
        ({"sets": ["task.decoder=yolov8"]}, ["--set task.decoder: unknown key"]),
        ({"sets": ["task.decoder=yolov9"], "task": "detect"}, ["--set task.decoder: got 'yolov9'", "yolov8"]),
        ({"sets": ["task.type=raw"]}, ["--set task.type: got 'raw'; allowed: classify"]),
        ({"target": "tflite-runtime"}, ["--target", "'tflite-runtime'", "tflite-runtime==VERSION", "ai-edge-litert==VERSION"]),
        ({"target": "tflite-runtime>=2.14"}, ["--target"]),
        ({"target": "tensorflow==2.16.2"}, ["--target", "'tensorflow==2.16.2'"]),
        ({"target": "tflite-runtime==2.14.0 --pre"}, ["--target"]),
        ({"labels": Path("/nowhere.txt")}, ["/nowhere.txt"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(order, changes, words):
    """Each option out of its range, and each pair that does not go together, is refused with what it got and what to say."""
    with pytest.raises((SettingError, ModelError)) as caught:
        check_order(order(**changes))
    assert all(word in str(caught.value) for word in words), caught.value
    assert caught.value.exit_code == 78


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ((), ["saved_model.pb", "variables/"]),
        (("variables/",), ["saved_model.pb"]),
        (("saved_model.pb",), ["variables/"]),
    ],
)
def test_a_folder_that_is_no_saved_model(order, tmp_path, there, said):
    """What is missing of a SavedModel is named, and nothing that is there; so is what would make one."""
    folder = tmp_path / "no_model"
    folder.mkdir()
    for name in there:
        (folder / name).mkdir() if name.endswith("/") else (folder / name).write_bytes(b"VarHandleOp")
    with pytest.raises(ModelError) as caught:
        check_order(order(model=folder))
    message = str(caught.value)
    assert f"{folder} is no SavedModel" in message
    assert "model.export(" in message
    missing = message.partition("is no SavedModel: ")[2].partition(" missing")[0]
    assert missing == ", ".join(said)


def test_a_graph_without_variables_is_a_model(order, tmp_path):
    """A frozen graph has no variables, and so no folder of them."""
    folder = tmp_path / "frozen"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"Const MatMul")
    check_order(order(model=folder))


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_keras_file_must_be_there(order, tmp_path, name):
    """A file that is named and is not there is said so."""
    with pytest.raises(ModelError, match=rf"{name} is not there"):
        check_order(order(model=tmp_path / name))
    (tmp_path / name).touch()
    check_order(order(model=tmp_path / name))


def test_what_is_no_bundle_is_never_replaced(order, tmp_path):
    """--output may be new, empty or an older bundle; a file, or a folder that holds something else, is refused."""
    output = tmp_path / "out"
    output.mkdir()
    check_order(order())
    (output / "thesis.txt").write_text("precious")
    with pytest.raises(SettingError, match=r"holds thesis\.txt, which is no part of a bundle"):
        check_order(order())
    with pytest.raises(SettingError, match=r"thesis\.txt is a file"):
        check_order(order(output=output / "thesis.txt"))
    (output / "thesis.txt").unlink()
    (output / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(SettingError, match="is no bundle"):
        check_order(order())
    (output / "manifest.json").write_text('{"tools": {"edge-runner": "0.1.0"}}')
    check_order(order())


@pytest.mark.parametrize("option", ["model", "labels", "calibration", "evaluate"])
def test_what_is_built_from_is_never_replaced(order, tmp_path, option):
    """An --output that holds the model, or what it is built with, would take it away: it is refused."""
    given = {"model": tmp_path / "out" / "m.keras", "labels": tmp_path / "out" / "labels.txt"}.get(
        option, tmp_path / "out"
    )
    with pytest.raises((SettingError, ModelError)) as caught:
        check_order(order(**{option: touched(given)}))
    assert "out" in str(caught.value)
    assert "which is replaced" in str(caught.value)


def touched(path):
    path.parent.mkdir(exist_ok=True)
    path.touch() if path.suffix else path.mkdir()
    return path


def test_the_folder_one_is_in(order, monkeypatch, tmp_path):
    """--output . would pull the folder away from under the shell: it is refused at once."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError, match="the folder that you are in"):
        check_order(order(output=type(tmp_path)()))


def test_modes(order):
    """auto stands for four modes, the smallest first and float32 last; any other name for itself."""
    assert order(quantize="auto").modes == AUTO_MODES == ("int8", "dynamic", "float16", "none")
    assert [order(quantize=mode).modes for mode in MODES] == [(mode,) for mode in MODES]


def test_objections_stop():
    """What speaks against a model stops the build, and says how to go on all the same."""
    objections = Objections(force=False)
    with pytest.raises(ModelError, match=r"it is upside down .*--force"), objections.noted():
        raise ModelError("it is upside down")
    with pytest.raises(KeyError), objections.noted():
        raise KeyError


def test_objections_are_kept_with_force():
    """With --force they are noted, in their order, and nothing stops."""
    objections = Objections(force=True)
    for words in ("upside down", "inside out"):
        with objections.noted():
            raise ModelError(words)
    with objections.noted():
        pass
    assert objections.found == ["upside down", "inside out"]
    with pytest.raises(KeyError), objections.noted():
        raise KeyError


def test_keys_of_the_task(order):
    """What --set says of the task is what the configuration would say: numbers, lists and mappings as JSON has them, or text."""
    sets = ["task.max_results=3", 'task.allow=["wren"]', 'task.label_thresholds={"wren": 0.5}', "task.activation=none"]
    right = order(sets=sets)
    check_order(right)
    assert right.settings == {
        "type": "classify", "max_results": 3, "allow": ["wren"], "label_thresholds": {"wren": 0.5}, "activation": "none",
    }  # fmt: skip
