"""Damaged files: refused in words, by whatever part notices first; never a signal, never a hang."""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from lab.board import children, read, runs
from lab.notified import wait_until

from edge_runner.errors import EXIT_CONFIG, EXIT_DONE, ModelError
from edge_runner.frame import TensorSpec
from edge_runner.model import bundle
from edge_runner.model import probe as module
from edge_runner.model.bundle import ModelConfig, open_model
from edge_runner.model.flatbuffer import Table
from edge_runner.model.interpreter import Runtime, find_runtime
from edge_runner.model.probe import probe

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples/digits/models/digits/model.tflite"
COLOUR = ROOT / "tests/data/colour.tflite"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\2\0\0\0"
PROBE_TIMEOUT_S = 20.0
COMMAND_TIMEOUT_S = module.TIMEOUT_S + 60  # a hang costs it the probe's own limit
ERROR = "edge-runner: error: "


def refusal(content: bytes, **options: object) -> str:
    """The one line with which a probe refuses."""
    with pytest.raises(ModelError) as caught:
        probe(content, find_runtime(), **options)
    (line,) = str(caught.value).splitlines()
    return line


# --- the probe itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["colour", "quantized", "int16", "float16", "three_inputs", "two_outputs", "labelled"])
def test_sound(data: Path, name: str) -> None:
    """A sound model passes, whatever its tensors."""
    probe((data / f"{name}.tflite").read_bytes(), find_runtime())


def test_says_what_the_child_says(data: Path) -> None:
    """What the child finds out is said as if it had been found here."""
    assert "operator SOFTMAX version 99" in refusal((data / "newer_op.tflite").read_bytes())
    assert "(Select TF): Erf" in refusal((data / "flex.tflite").read_bytes(), flex=("FlexErf",))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_crash(share: float) -> None:
    """A file of which native code dies, or reads garbage for ever, is refused: the child suffers alone."""
    content = COLOUR.read_bytes()
    refusal(content[: int(share * len(content))], timeout_s=5.0)


def test_death(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal is named, and what to do about it."""
    monkeypatch.setattr(module, "CHILD", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert refusal(b"") == "is damaged: the interpreter dies of it (SIGSEGV); copy it again, and compare its SHA-256"


def test_hang(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A child that hangs, deaf to friendly signals, is ended by the time limit, and nothing of it is left."""
    note = tmp_path / "pid"
    code = (
        f"import os, signal, time; signal.signal(15, signal.SIG_IGN); open({str(note)!r}, 'w').write(str(os.getpid()))"
    )
    monkeypatch.setattr(module, "CHILD", code + "; time.sleep(60)")
    started, limit_s = time.monotonic(), 0
    while not note.exists():  # a slow machine's child has not begun by then
        limit_s += 1
        assert refusal(b"", timeout_s=limit_s) == (
            f"did not load and run once within {limit_s} s; it is damaged, or far too large for this board"
        )
    assert time.monotonic() - started < 60
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise ValueError('odd')", "could not be tried out: ValueError: odd"),
        ("pass", "could not be tried out: no word"),
        ("print('[1]')", "could not be tried out: no word"),
        ("print('{}')", "could not be tried out: no word"),
    ],
)
def test_senseless_child(monkeypatch: pytest.MonkeyPatch, code: str, says: str) -> None:
    """Whatever else goes wrong in the child is said with its last words."""
    monkeypatch.setattr(module, "CHILD", code)
    assert refusal(b"") == says


def test_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room for another process, that is said."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert refusal(b"") == "could not be tried out: /nowhere/python: no such file or directory"


def test_it_dies_with_its_parent() -> None:
    """A command that is killed meanwhile leaves no process behind that goes on trying."""
    code = "from edge_runner.model.probe import ask; ask('import time; time.sleep(600)', [])"
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        wait_until(lambda: any("sleep(600)" in read(f"/proc/{pid}/cmdline") for pid in children(parent.pid)))
        [child] = children(parent.pid)
        parent.kill()
    wait_until(lambda: not runs(child))


def test_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that the system ends for want of memory is not called damaged."""
    monkeypatch.setattr(module, "CHILD", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert refusal(b"").endswith("(SIGKILL): this board's memory is too small")


def test_memory() -> None:
    """A file that asks for more memory than there is is refused, and the machine does not feel it."""
    content = COLOUR.read_bytes()
    shape = struct.pack("<4i", 1, 8, 8, 3)
    assert shape in content
    refusal(content.replace(shape, struct.pack("<4i", 1, 200_000, 200_000, 3)))


def test_as_the_model_will_run(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    """The child runs with as many threads as the model will, and with the same input."""
    seen = []
    real = bundle.probe

    def spied(content: bytes, runtime: Runtime, threads: int, flex: tuple[str, ...], shape: tuple[int, ...]) -> None:
        seen.append((threads, shape))
        real(content, runtime, threads, flex, shape=shape)

    monkeypatch.setattr(bundle, "probe", spied)
    settings = ModelConfig(path=data / "any_size.tflite", input_shape=(1, 9, 6, 3))
    loaded = open_model(settings).load(find_runtime(), 3)
    assert (loaded.threads, loaded.inputs[0].shape) == (3, (1, 9, 6, 3))
    assert seen == [(3, (1, 9, 6, 3))]
    with pytest.raises(ModelError, match="leaves the size"):
        open_model(ModelConfig(path=data / "any_size.tflite")).load(find_runtime())


def test_only_bare_files(monkeypatch: pytest.MonkeyPatch, digits: Path) -> None:
    """A bundle, whose hashes vouch for it, starts without the child."""
    monkeypatch.setattr(bundle, "probe", lambda *_: pytest.fail("probed"))
    settings = ModelConfig(path=digits)
    open_model(settings).load(find_runtime())


@pytest.mark.parametrize(
    ("dtype", "shape", "like_a_picture"),
    [
        ("float32", (1, 8, 8, 3), True),
        ("uint8", (1, 8, 8, 3), True),
        ("int32", (1, 8, 8, 3), True),
        ("int32", (1, 10), False),
        ("int64", (1, 8, 8, 3), False),
        ("bool", (1, 4), False),
    ],
)
def test_what_is_tried(dtype: str, shape: tuple[int, ...], like_a_picture: bool) -> None:
    """A picture's input gets a picture's values; what may be an index, of a table with few rows, gets zeros."""
    values = module._noise(TensorSpec("x", shape, dtype))
    assert (values.shape, values.dtype) == (shape, dtype)
    assert bool(values.any()) == like_a_picture


def test_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that lie where the command happens to be started are no part of the program."""
    for name in ("signal", "json", "numpy", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not me')")
    monkeypatch.chdir(tmp_path)
    probe(COLOUR.read_bytes(), find_runtime())


# --- through the command ----------------------------------------------------------------------------------------------


@pytest.fixture
def once(tmp_path: Path, configure: Callable[..., Path], run_cli: Callable[..., CompletedProcess[str]]):
    """Run the real command once with these bytes as its model."""

    def run(content: bytes, name: str = "model.tflite") -> CompletedProcess[str]:
        (tmp_path / name).write_bytes(content)
        parts = {"model": {"path": str(tmp_path / name)}, "task": {"activation": "none"}}
        gray = (
            {"preprocess": {"color": "gray", "mean": 0, "std": 255}} if content[:40] == DIGITS.read_bytes()[:40] else {}
        )
        return run_cli("--config", configure(f"{name}.yaml", **parts, **gray), "--once", timeout=COMMAND_TIMEOUT_S)

    return run


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not a .tflite file: bytes 4 to 8 are b'', not b'TFL3'"),
        (b"cat\ndog\nbird\n", "is not a .tflite file"),
        (PNG, "is not a .tflite file"),
        (COLOUR.read_bytes()[:700], "is damaged: its tables lead outside of its 700 bytes"),
    ],
    ids=["empty", "text", "png", "truncated"],
)
def test_no_model(once: Callable[..., CompletedProcess[str]], content: bytes, says: str) -> None:
    """Something else than a model ends the command with 78 and one line that names the key and the file."""
    done = once(content)
    assert (done.returncode, done.stdout) == (EXIT_CONFIG, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(ERROR)
    assert "model.path: " in line
    assert says in line


@pytest.mark.parametrize("path", [COLOUR, DIGITS], ids=["colour", "digits"])
@pytest.mark.parametrize("percent", range(10, 100, 10))
def test_truncated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Path, percent: int) -> None:
    """A model that was not copied to its end is refused before any native code sees it."""
    monkeypatch.setattr(bundle, "probe", lambda *_: pytest.fail("probed"))
    content = path.read_bytes()
    cut = tmp_path / "model.tflite"
    cut.write_bytes(content[: len(content) * percent // 100])
    with pytest.raises(ModelError, match="is damaged: its tables lead outside"):
        open_model(ModelConfig(path=cut))


def test_leads_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of which a trial proves nothing, as it reads what happens to lie in memory, is refused without one."""
    monkeypatch.setattr(bundle, "probe", lambda *_: pytest.fail("probed"))
    content = bytearray(COLOUR.read_bytes())
    tensor = next(next(Table.root(bytes(content)).tables(2)).tables(0))
    start, _ = tensor.items(3, 1)
    content[start - 4 : start] = struct.pack("<I", len(content))  # the length of the tensor's name
    damaged = tmp_path / "model.tflite"
    damaged.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.tflite is damaged: its tables lead outside of its [\d,]+ bytes"):
        open_model(ModelConfig(path=damaged))


# --- two hundred damaged copies of a real model -----------------------------------------------------------------------

MUTATIONS = 200
SEED = 20261122
# Loads each file named on standard input and runs it on noise, ten times; prints a line each. A crash takes only it along.
RUN_THEM = """if True:
    import sys
    import numpy as np
    from edge_runner.errors import ModelError
    from edge_runner.model.interpreter import Interpreter, find_runtime
    chance = np.random.default_rng(0)
    for line in sys.stdin:
        name = line.strip()
        print(name, end=" ", flush=True)
        try:
            interpreter = Interpreter(open(name, "rb").read(), find_runtime())
            for _ in range(10):
                interpreter.run(*(chance.integers(0, 127, i.shape).astype(i.dtype) for i in interpreter.inputs))
            print("ran", flush=True)
        except ModelError as error:
            print(f"refused: {error}", flush=True)
"""


def mutated(content: bytes, number: int) -> bytes:
    """A damaged copy: bytes anywhere (mostly weights), words of the tables, ranges overwritten or zeroed, or words swapped."""
    chance = random.Random(f"{SEED}/{number}")
    damaged = bytearray(content)

    def word() -> int:
        """Where something stands that could be an offset, a count, a number or an index."""
        while True:
            at = chance.randrange(0, len(content) - 4, 4)
            if abs(int.from_bytes(content[at : at + 4], "little", signed=True)) < len(content):
                return at

    kind = ("bytes", "word", "word", "word", "range", "zeros", "swap", "cut")[number % 8]
    if kind == "bytes":
        for _ in range(chance.randrange(1, 40)):
            damaged[chance.randrange(len(content))] = chance.randrange(256)
    elif kind == "word":
        damaged[word() + chance.randrange(4)] = chance.choice([chance.randrange(256), 0, 1, 255])
    elif kind in ("range", "zeros"):
        at, length = word(), chance.randrange(1, 200)
        damaged[at : at + length] = (bytes(length) if kind == "zeros" else chance.randbytes(length))[
            : len(content) - at
        ]
    elif kind == "swap":
        one, two = word(), word()
        damaged[one : one + 4], damaged[two : two + 4] = content[two : two + 4], content[one : one + 4]
    else:
        del damaged[chance.randrange(len(content)) :]
    return bytes(damaged)


def refused(attempt: Callable[[], object]) -> bool:
    """Whether it is, and in one line."""
    message = ""
    try:
        attempt()
    except ModelError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1
    return bool(message)


def check_command(done: CompletedProcess[str], number: int) -> str:
    """Never a signal or a traceback: a result, or 78 and one line that says what is wrong."""
    assert done.returncode in (EXIT_DONE, EXIT_CONFIG), (number, done)
    if done.returncode == EXIT_CONFIG:
        (line,) = done.stderr.splitlines()
        assert line.startswith(ERROR), (number, line)
        assert done.stdout == ""
        return "refused"
    assert json.loads(done.stdout)["classifications"] is not None
    return "ran"


def probed(path: Path) -> bool:
    return not refused(lambda: probe(path.read_bytes(), find_runtime(), timeout_s=PROBE_TIMEOUT_S))


def run_them(paths: list[Path]) -> None:
    """Run in one process what a probe let pass; a hang or a crash names the file."""
    names = "".join(f"{path}\n" for path in paths)
    done = subprocess.run(
        [sys.executable, "-c", RUN_THEM], input=names, capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, (signal.Signals(-done.returncode), done.stdout.splitlines()[-1])
    assert len(done.stdout.splitlines()) == len(paths)


def test_mutations(tmp_path: Path, once: Callable[..., CompletedProcess[str]]) -> None:
    """Of two hundred damaged models none ends the program by a signal or makes it hang: half of them through the command."""
    content = (DIGITS if DIGITS.is_file() else COLOUR).read_bytes()
    paths = []
    for number in range(MUTATIONS):
        path = tmp_path / f"{number}.tflite"
        path.write_bytes(mutated(content, number))
        if not refused(lambda path=path: open_model(ModelConfig(path=path))):  # found by reading alone
            paths.append(path)
    assert MUTATIONS * 0.2 < len(paths) < MUTATIONS * 0.8  # else the mutations are too coarse or too fine
    through, beside = paths[::2], paths[1::2]
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(
            pool.map(lambda path: check_command(once(path.read_bytes(), path.name), int(path.stem)), through)
        )
        passed = [path for path, ok in zip(beside, pool.map(probed, beside), strict=True) if ok]
    run_them(passed)
    assert {"refused", "ran"} <= set(outcomes)
    assert 0 < len(passed) < len(beside)
