"""The child process: what it returns and raises comes back, and when it dies, that is an error and not the end."""

from __future__ import annotations

import errno
import multiprocessing.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing import resource_tracker
from pathlib import Path

import numpy as np
import pytest

from edge_runner.builder.worker import Worker, WorkerDiedError
from edge_runner.errors import ModelError, SettingError


class Machine:
    """What lives in the child: some of its methods break down as native code does."""

    def __init__(self, start: int = 0) -> None:
        if start < 0:
            raise SettingError(f"cannot start at {start}")
        self.count = start

    def pid(self, report):
        return os.getpid()

    def add(self, number, report):
        self.count += number
        return self.count

    def echo(self, value, report):
        return value

    def steps(self, count, report):
        for number in range(count):
            report(number + 1)
        return "done"

    def refuse(self, report):
        raise ModelError("the model is upside down", key="model.path")

    def stumble(self, report):
        return {}["nothing"]

    def abort(self, words, report):
        os.write(2, words.encode())
        os.abort()

    def fill_the_disk(self, report):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    def scribble(self, report):
        with tempfile.NamedTemporaryFile(delete=False) as file:
            return file.name

    def leave(self, report):
        os._exit(3)

    def talk(self, report):
        sys.stdout.write("in Python's words\n")
        os.write(1, b"in native words\n")
        os.write(2, b"in native complaints\n")

    def interrupt(self, report):
        os.kill(os.getpid(), signal.SIGINT)
        return "still here"

    def environment(self, report):
        return {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "TF_CPP_MIN_LOG_LEVEL")}


@pytest.fixture
def worker(tmp_path):
    with Worker(Machine, folder=tmp_path) as started:
        yield started


def test_calls_come_back(worker):
    """Arguments and results travel as they are; the object lives on between calls, in another process."""
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    found = worker.call("echo", {"x": array})["x"]
    assert (found.dtype, found.tolist()) == (array.dtype, array.tolist())
    assert [worker.call("add", 2), worker.call("add", 3)] == [2, 5]
    assert worker.call("pid") == worker.call("pid") != os.getpid()


def test_progress_comes_back(worker):
    """Each step that the child tells of reaches the caller, in order and before the result."""
    heard: list[int] = []
    assert worker.call("steps", 5, report=heard.append) == "done"
    assert heard == [1, 2, 3, 4, 5]
    assert worker.call("steps", 2) == "done", "nobody has to listen"


def test_refusals_come_back(worker):
    """Our own errors arrive as what they are, with their key; the child goes on living."""
    pid = worker.call("pid")
    with pytest.raises(ModelError, match=r"^the model is upside down$") as caught:
        worker.call("refuse")
    assert caught.value.key == "model.path"
    assert worker.call("pid") == pid


def test_a_refusal_to_begin(tmp_path):
    """An object that cannot be made says why at each call."""
    with Worker(Machine, -1, folder=tmp_path) as worker:
        for _ in range(2):
            with pytest.raises(SettingError, match="cannot start at -1"):
                worker.call("pid")


def test_what_was_not_foreseen(worker):
    """Any other exception is named with its type, on one line, and the child goes on living."""
    pid = worker.call("pid")
    with pytest.raises(WorkerDiedError, match=r"^KeyError: 'nothing'$"):
        worker.call("stumble")
    assert worker.call("pid") == pid


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "SIGABRT"),
        ("a word\nF0000 00:00:1 tensor.cc:12] Check failed: 1 == 2 \nmore\n", "SIGABRT: F0000 .* Check failed: 1 == 2"),
        ("LLVM ERROR: out of everything\n", "SIGABRT: LLVM ERROR: out of everything"),
        ("I am only chatting\n" * 3, "SIGABRT"),
    ],
)
def test_a_child_that_aborts(worker, words, says):
    """A process that dies of its library is an error of one line: the signal, and the library's last words if they tell."""
    worker.call("add", 5)
    pid = worker.call("pid")
    with pytest.raises(WorkerDiedError, match=f"^{says}$") as caught:
        worker.call("abort", words)
    assert "\n" not in str(caught.value)
    assert worker.call("pid") != pid
    assert worker.call("add", 1) == 1, "a new child begins anew"


def test_last_words_are_ones_own(worker):
    """A child that dies without a word does not die with those of the one before."""
    for words, says in (("LLVM ERROR: one\n", "SIGABRT: LLVM ERROR: one"), ("", "SIGABRT")):
        with pytest.raises(WorkerDiedError, match=f"^{says}$"):
            worker.call("abort", words)


def test_a_full_disk_comes_back(worker):
    """An error of the system arrives as what it is: nothing is wrong with the model."""
    with pytest.raises(OSError, match="No space left") as caught:
        worker.call("fill_the_disk")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "somewhere")


def test_a_child_that_leaves(worker):
    """A process that ends by itself is an error with its exit code."""
    with pytest.raises(WorkerDiedError, match=r"^exit code 3$"):
        worker.call("leave")


def test_noise_is_kept(worker, capfd):
    """What the library prints, in Python or beneath it, disturbs nobody's terminal."""
    worker.call("talk")
    worker.call("pid")
    assert capfd.readouterr() == ("", "")


def test_noise_is_shown_where_asked_for(tmp_path, capfd):
    """With --verbose all of it is seen."""
    with Worker(Machine, folder=tmp_path, verbose=True) as worker:
        worker.call("talk")
    said = capfd.readouterr()
    assert "in native words" in said.out
    assert "in native complaints" in said.err


def test_ctrl_c_is_the_parents(worker):
    """Ctrl-C on a terminal reaches the child as well: it lets the parent decide."""
    assert worker.call("interrupt") == "still here"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "and the parent's own handler is as it was"


def test_ctrl_c_while_the_child_is_started(tmp_path, monkeypatch, capfd):
    """Ctrl-C is not lost while the child is being started, whichever thread takes it; the child ends without a word."""
    children = []

    def spawned(*arguments):
        children.append(spawn(*arguments))
        os.kill(os.getpid(), signal.SIGINT)
        return children[-1]

    resource_tracker.ensure_running()
    spawn = multiprocessing.util.spawnv_passfds
    monkeypatch.setattr("multiprocessing.util.spawnv_passfds", spawned)
    over = threading.Event()
    other = threading.Thread(target=over.wait)  # as a library's, which does not block the signal
    other.start()
    try:
        with pytest.raises(KeyboardInterrupt), Worker(Machine, folder=tmp_path) as worker:
            worker.call("pid")
    finally:
        over.set()
        other.join()
    while any(map(is_alive, children)):
        time.sleep(0.02)
    assert len(children) == 1
    assert capfd.readouterr().err == ""


def test_no_accelerator_is_looked_for(worker):
    """The child is told to use no GPU, and to be quiet."""
    assert worker.call("environment") == {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}


def is_alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    try:
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_child_goes_with_its_worker(tmp_path):
    """At the end no process is left."""
    with Worker(Machine, folder=tmp_path) as worker:
        pid = worker.call("pid")
        assert is_alive(pid)
    assert not is_alive(pid)


def test_the_childs_temporary_files(worker, tmp_path):
    """What the child, which may be killed, leaves behind lies in the worker's folder, and goes with that."""
    assert Path(worker.call("scribble")).parent == tmp_path


ORPHAN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_worker import Machine
from edge_runner.builder.worker import Worker
if __name__ == "__main__":
    worker = Worker(Machine, folder=Path(sys.argv[2]))
    print(worker.call("pid"), flush=True)
    sys.stdin.read()
"""


def test_the_child_goes_with_a_parent_that_was_killed(tmp_path):
    """A builder that is killed outright leaves no process with TensorFlow in it behind."""
    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN)
    command = [sys.executable, str(script), str(Path(__file__).parent), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    while is_alive(pid):  # as long as it takes: the test runner's own time limit ends it
        time.sleep(0.02)
