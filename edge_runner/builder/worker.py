"""An object that lives in a child process, because the library that it calls may abort the process that it runs in.

Its methods are called by name; what they return or raise comes back. A child that died is started anew for the next call.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from edge_runner.errors import EdgeRunnerError

Report = Callable[[int], None]
"""Takes how many of a call's items are done."""
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "ABSL_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
NOISE = "noise.log"
LAST_WORDS_MOST = 500
TELLING = re.compile(
    r"^F\d{4} |\bF \w+/|Check failed|LLVM ERROR|terminate called|what\(\):|Assertion|Error: "
)  # of a dying library's lines


class WorkerDiedError(EdgeRunnerError):
    """The child ended in the middle of a call, or raised what was not foreseen; the message holds its last words."""


class Worker:
    """Calls methods of `make(*arguments)` in a child process. Each method takes, as its last argument, a Report.

    What the child and native code in it print goes to where `verbose` says: here, or nowhere but into an error's last words.
    `folder` takes that, and the child's temporary files.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any, folder: Path, verbose: bool = False) -> None:
        self._make = make
        self._arguments = arguments
        self._folder = folder
        self._noise = None if verbose else folder / NOISE
        self._noise_before = 0
        self._child: Any = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def call(self, method: str, *arguments: Any, report: Report = lambda done: None) -> Any:
        """Call a method; raise what it raised, or WorkerDiedError."""
        pipe = self._started()
        try:
            pipe.send((method, arguments))
            while True:
                kind, value = pipe.recv()
                if kind == "done":
                    report(value)
                elif kind == "returned":
                    return value
                elif kind == "refused":
                    raise value
                else:
                    raise WorkerDiedError(f"{value}")
        except (EOFError, ConnectionError):
            self._child.join()
            code = self._child.exitcode
            self._end()
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise WorkerDiedError(f"{how}{self._last_words()}") from None

    def _started(self) -> Connection:
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")
            pipe, theirs = context.Pipe()
            given = (theirs, self._folder, self._noise, self._make, self._arguments)
            child = context.Process(target=_serve, args=given, daemon=True)
            self._noise_before = self._noise.stat().st_size if self._noise and self._noise.is_file() else 0
            with _deaf():
                child.start()
                self._child, self._pipe = child, pipe
            theirs.close()
        return self._pipe

    def _end(self) -> None:
        if self._pipe is not None:
            self._child.kill()
            self._child.join()
            self._pipe.close()
            self._pipe = None

    def _last_words(self) -> str:
        if self._noise is None or not self._noise.is_file():
            return ""
        lines = self._noise.read_bytes()[self._noise_before :].decode("utf-8", "replace").splitlines()
        words = [line.strip() for line in lines if TELLING.search(line)]
        return f": {words[-1][:LAST_WORDS_MOST]}" if words else ""


@contextmanager
def _deaf() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until a child that is started here can be ended; it inherits the deafness to Ctrl-C.

    The mask is this thread's alone: another one's may take the signal, and Python would raise in the middle all the same.
    """
    resource_tracker.ensure_running()  # multiprocessing's own helper, whose start would end the deafness
    heard: list[int] = []
    before = {n: signal.signal(n, lambda number, _: heard.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for number, handler in before.items():
            signal.signal(number, handler)
        if heard:
            signal.raise_signal(heard[0])


def _serve(
    pipe: Connection, folder: Path, noise: Path | None, make: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    """The child: answers calls until the pipe is closed. It may be killed, so its temporary files are somebody else's to remove."""
    os.environ["TMPDIR"] = str(folder)
    if noise:
        _redirect(noise)
        os.environ.update(ENVIRONMENT)
    served = None
    while True:
        try:
            method, given = pipe.recv()
        except EOFError:
            return
        try:
            served = served or make(*arguments)
            answer = ("returned", getattr(served, method)(*given, lambda done: pipe.send(("done", done))))
        except (EdgeRunnerError, OSError) as error:
            answer = ("refused", error)
        except Exception as error:
            traceback.print_exc()
            answer = ("failed", f"{type(error).__name__}: {' '.join(str(error).split())[:LAST_WORDS_MOST]}")
        pipe.send(answer)


def _redirect(noise: Path) -> None:
    """Descriptors 1 and 2 into a file, so that native code's words go there too."""
    sys.stdout.flush()
    sys.stderr.flush()
    with noise.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
