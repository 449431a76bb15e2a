"""The builder's command line: what is refused before TensorFlow is started, and how each command ends."""

from __future__ import annotations

import signal
import subprocess
import sys

import commands
import pytest

from edge_runner.builder import __main__ as command_line
from edge_runner.builder.order import DEFAULT_TARGET
from edge_runner.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_USAGE, ModelError
from edge_runner.model.preprocess import Recipe

RAW = ("--normalize", "raw")


@pytest.fixture
def model(tmp_path):
    """A folder that looks like a SavedModel; it would have to be opened to see that it is none."""
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"VarHandleOp")
    return folder


@pytest.fixture
def main(model, tmp_path, capsys):
    """Run the command to its end: the exit code, and the lines on standard error. SIGTERM's handler is put back."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*options: object) -> tuple[int, list[str]]:
        try:
            code = command_line.main([str(part) for part in (model, "--output", tmp_path / "out", *options)])
        except SystemExit as end:
            code = end.code
        return code, capsys.readouterr().err.splitlines()

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def ordered(main, monkeypatch):
    """What is ordered by some options."""
    orders = []

    def build(order, progress):
        orders.append(order)
        raise ModelError("that is enough")

    monkeypatch.setattr(command_line, "build", build)

    def get(*options: object):
        assert main(*options)[0] == EXIT_CONFIG
        return orders[-1]

    return get


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "say once how the model's pictures were normalised"),
        ((*RAW, "--mean", "1", "--std", "1"), "say once"),
        (("--mean", "1"), "say once"),
        (("--std", "1"), "say once"),
        (("--task", "raw", "--mean", "1"), "say once"),
        (("--task", "detect"), "say once"),
        (("--task", "segment"), "say once"),
        (("--task", "pose"), "say once"),
        (("--normalize", "0..2"), "invalid choice: '0..2'"),
        (("--normalize", "keras-caffe", "--color", "rgb"), "goes with --color bgr, not with rgb"),
        (("--normalize", "keras-torch", "--color", "bgr"), "goes with --color rgb, not with bgr"),
        (("--mean", "1,x", "--std", "1"), "got '1,x'; one number, or one a channel"),
        ((*RAW, "--quantise", "int8"), "unrecognized arguments"),
        ((*RAW, "--quant", "int8"), "unrecognized arguments"),
        ((*RAW, "--quantize", "int4"), "invalid choice: 'int4'"),
        ((*RAW, "--io-type", "int4"), "invalid choice: 'int4'"),
        ((*RAW, "--task", "dance"), "invalid choice: 'dance'"),
        ((*RAW, "--input-shape", "1,0,0,3"), "got '1,0,0,3'; whole numbers above 0"),
        ((*RAW, "--input-shape", "1,-1,-1,3"), "whole numbers above 0"),
        ((*RAW, "--input-shape", "224x224"), "whole numbers above 0"),
        ((*RAW, "--max-loss", "much"), "invalid float value: 'much'"),
    ],
)
def test_usage(main, tmp_path, options, says):
    """What is not said, said twice, or misspelt is a usage error: 2, how it is used, and one line that ends it."""
    code, lines = main(*options)
    assert code == EXIT_USAGE
    assert lines[-1].startswith("edge-runner: error: ")
    assert says in lines[-1]
    assert lines[-1].endswith("; see build_model.sh --help")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((*RAW, "--name", "../x"), ["--name", "'../x'"]),
        ((*RAW, "--max-loss", "1.5"), ["--max-loss", "1.5", "0 to 1"]),
        ((*RAW, "--io-type", "int8"), ["--io-type int8", "--quantize int8"]),
        ((*RAW, "--target", "tensorflow==2"), ["--target", "tflite-runtime==VERSION"]),
        ((*RAW, "--quantize", "int8"), ["int8", "--calibration"]),
        ((*RAW, "--labels", "nowhere.txt"), ["nowhere.txt"]),
        (("--task", "raw", "--evaluate", "."), ["--evaluate", "raw"]),
        ((*RAW, "--task", "detect", "--evaluate", "."), ["--evaluate", "bench/evaluate.py"]),
        ((*RAW, "--task", "detect", "--set", "task.decoder=yolo"), ["--set task.decoder: got 'yolo'", "yolov8"]),
        ((*RAW, "--set", "model.threads=2"), ["--set got 'model.threads=2'", "keys of the task"]),
        (("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"), ["--std 58.395,57.12,57.375", "--force"]),
    ],
)
def test_settings(main, tmp_path, options, words):
    """What cannot be carried out is one line and 78, before anything is begun."""
    code, [line] = main(*options)
    assert code == EXIT_CONFIG
    assert line.startswith("edge-runner: error: ")
    assert all(word in line for word in words), line
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else(main, tmp_path):
    """An --output that is no bundle is left alone."""
    precious = tmp_path / "out" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("precious")
    code, [line] = main(*RAW)
    assert (code, precious.read_text()) == (EXIT_CONFIG, "precious")
    assert "holds thesis.txt, which is no part of a bundle" in line


@pytest.mark.parametrize(
    ("options", "recipe"),
    [
        (("--normalize", "-1..1"), Recipe("rgb", (127.5,), (127.5,))),
        (("--normalize=-1..1", "--color", "bgr"), Recipe("bgr", (127.5,), (127.5,))),
        (("--normalize", "keras-caffe"), Recipe("bgr", (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))),
        (("--mean", "-1,-2,-3", "--std", "1"), Recipe("rgb", (-1.0, -2.0, -3.0), (1.0,))),
        (
            ("--normalize", "0..1", "--resize", "crop", "--interpolation", "area", "--color", "gray"),
            Recipe("gray", (0.0,), (255.0,), "crop", "area"),
        ),
        (("--task", "raw"), None),
        (("--task", "raw", "--normalize", "0..1"), Recipe("rgb", (0.0,), (255.0,))),
    ],
)
def test_recipes(ordered, options, recipe):
    """A recipe is what was said of it, also where a value begins with a dash; of a raw model it may be none."""
    assert ordered(*options).recipe == recipe


def test_options_go_into_the_order(ordered, tmp_path):
    """Each option arrives where it belongs; what is not said has the documented default."""
    order = ordered(*RAW)
    assert (order.called, order.task, order.quantize, order.target, order.max_loss) == (
        "out", "classify", "none", DEFAULT_TARGET, 0.01,
    )  # fmt: skip
    assert (order.version, order.labels, order.calibration, order.evaluate, order.signature) == (None,) * 5
    assert (order.io_type, order.input_shape, order.force, order.verbose) == (None, None, False, False)
    order = ordered(
        *RAW, "--name", "birds", "--model-version", "3", "--labels", "l", "--quantize", "int8", "--io-type", "uint8",
        "--calibration", "c", "--evaluate", "e", "--max-loss", ".5", "--signature", "s", "--input-shape", "1,2,3,3",
        "--target", "ai-edge-litert==2.0.3", "--force", "--set", "task.max_results=3", "--set", "task.activation=none",
    )  # fmt: skip
    assert (order.name, order.version, order.quantize, order.io_type) == ("birds", "3", "int8", "uint8")
    assert list(map(str, (order.labels, order.calibration, order.evaluate))) == ["l", "c", "e"]
    assert (order.max_loss, order.signature, order.input_shape) == (0.5, "s", (1, 2, 3, 3))
    assert (order.target, order.force) == ("ai-edge-litert==2.0.3", True)
    assert order.settings == {"type": "classify", "max_results": 3, "activation": "none"}


def test_the_command_is_kept(ordered, model, tmp_path):
    """The report can tell with which command a bundle was made, as it is typed."""
    command = ordered("--normalize", "-1..1", "--name", "two words").command
    assert command == f"scripts/build_model.sh {model} --output {tmp_path / 'out'} --normalize -1..1 --name 'two words'"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ModelError("two\nlines"), EXIT_CONFIG, "two lines"),
        (OSError(28, "No space left on device"), EXIT_FAILED, "[Errno 28] No space left on device"),
        (KeyboardInterrupt(), EXIT_FAILED, "interrupted; nothing was changed"),
    ],
)
def test_endings(main, monkeypatch, error, code, line):
    """Whatever ends a build, it ends in one line and with the exit code of its kind."""

    def build(order, progress):
        raise error

    monkeypatch.setattr(command_line, "build", build)
    assert main(*RAW) == (code, [f"edge-runner: error: {line}"])


@pytest.mark.parametrize(
    ("key", "option"),
    [
        ("model.path", "MODEL"),
        ("model.labels", "--labels"),
        ("preprocess.std", "--std"),
        ("task", "--task"),
        ("task.type", "--task"),
        ("task.decoder", "--set task.decoder"),
        ("task.activation", "--set task.activation"),
    ],
)
def test_keys_are_told_as_options(main, monkeypatch, key, option):
    """What blames a key of the configuration, as the board knows it, is told with the option that says it here."""

    def build(order, progress):
        raise ModelError("no", key=key)

    monkeypatch.setattr(command_line, "build", build)
    assert main(*RAW) == (EXIT_CONFIG, [f"edge-runner: error: {option}: no"])


def test_sigterm_is_ctrl_c(main, monkeypatch):
    """A builder that is asked to end takes away what it has begun, as for Ctrl-C."""
    monkeypatch.setattr(command_line, "build", lambda order, progress: signal.raise_signal(signal.SIGTERM))
    assert main(*RAW) == (EXIT_FAILED, ["edge-runner: error: interrupted; nothing was changed"])


def test_as_a_process(tmp_path):
    """`python -m edge_runner.builder` ends with the code and the line; a folder that is no SavedModel lacks two things."""
    line = commands.refusal(commands.build(tmp_path, *RAW, output=tmp_path / "out"))
    assert f"{tmp_path} is no SavedModel: saved_model.pb, variables/ missing" in line
    assert list(tmp_path.iterdir()) == []


def test_help_waits_for_nothing():
    """--help names every option, and loads neither TensorFlow nor what only a build needs."""
    code = (
        "import sys; from edge_runner.builder.__main__ import main\ntry: main(['--help'])\nfinally: print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *words, modules = done.stdout.splitlines()
    assert {"tensorflow", "keras", "matplotlib", "tqdm"}.isdisjoint(modules.split())
    for option in ("--output", "--normalize", "--quantize", "--calibration", "--evaluate", "--target", "--force"):
        assert any(option in line for line in words), option
