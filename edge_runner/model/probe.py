"""Tries a .tflite file of unknown origin in a child process: a damaged one may crash or hang native code.

The child reads the file from standard input, loads it, runs it on zeros and on noise, and prints a JSON object,
{"error": …} with null where all went well.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from edge_runner.errors import EdgeRunnerError, ModelError
from edge_runner.frame import Tensor, TensorSpec
from edge_runner.model.interpreter import Interpreter, Runtime, find_runtime
from edge_runner.model.preprocess import INPUT_DTYPES
from edge_runner.process import child_code, child_command, die_with_parent

TIMEOUT_S = 60.0
CHILD = child_code(__name__, "probe.main()")


class UntriedError(ModelError):
    """The child process could do nothing, which says nothing of the model."""


def probe(
    content: bytes,
    runtime: Runtime,
    threads: int = 1,
    flex: tuple[str, ...] = (),
    timeout_s: float = TIMEOUT_S,
    shape: tuple[int, ...] | None = None,
) -> None:
    """Raise ModelError unless a child process loads and runs these bytes within `timeout_s`. `shape` as Interpreter has it."""
    error = ask(CHILD, [runtime.name, str(threads), json.dumps(shape or ()), *flex], content, timeout_s)["error"]
    if error:
        raise ModelError(error)


def ask(code: str, given: Sequence[str], content: bytes = b"", timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """What a child process says with its last line, a JSON object with an `error` in it. `code` is child_code's.

    Raise ModelError where it crashes, hangs, or says nothing (UntriedError).
    """
    command = child_command(code, *given)
    try:
        child = subprocess.run(
            command,
            input=content,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            preexec_fn=die_with_parent(os.getpid()),
            **_for_good(),
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"did not load and run once within {timeout_s:g} s; it is damaged, or far too large for this board"
        ) from None
    except OSError as error:  # no memory for another process, or no right to start this Python, as its store's owner
        raise UntriedError(
            f"could not be tried out: {sys.executable}: {(error.strerror or str(error)).lower()}"
        ) from error
    if child.returncode == -signal.SIGKILL:
        raise ModelError("was ended by the system while it was tried out (SIGKILL): this board's memory is too small")
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        raise ModelError(f"is damaged: the interpreter dies of it ({name}); copy it again, and compare its SHA-256")
    with suppress(IndexError, ValueError):
        answer = json.loads(child.stdout.splitlines()[-1])
        if isinstance(answer, dict) and "error" in answer:
            return answer
    lines = child.stderr.decode("utf-8", "replace").strip().splitlines() or ["no word"]
    raise UntriedError(f"could not be tried out: {lines[-1]}")


def _for_good() -> dict[str, Any]:
    """Where root has become somebody for a while (rights.py), the child is so for good: a damaged file does not get at root."""
    return {"user": os.geteuid(), "group": os.getegid()} if os.getuid() != os.geteuid() else {}


def first_to_go() -> None:
    """Where memory runs out, the system ends this trial and not the daemon."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def main() -> None:
    """The child: `RUNTIME THREADS SHAPE FLEX…` are its arguments."""
    _bound_memory()
    first_to_go()
    name, threads, shape, *flex = sys.argv[1:]
    print(json.dumps({"error": _try_out(name, int(threads), tuple(json.loads(shape)), tuple(flex))}))


def _try_out(name: str, threads: int, shape: tuple[int, ...], flex: tuple[str, ...]) -> str | None:
    try:
        runtime = find_runtime(name)  # type: ignore[arg-type]
        interpreter = Interpreter(sys.stdin.buffer.read(), runtime, threads, flex, shape=shape or None)
        interpreter.run(*(np.zeros(spec.shape, spec.dtype) for spec in interpreter.inputs))
        interpreter.run(*map(_noise, interpreter.inputs))
    except EdgeRunnerError as error:
        return str(error)
    except MemoryError:
        return "wants more memory than this machine has"
    return None


def _noise(spec: TensorSpec) -> Tensor:
    """Like a picture's values; zeros where the input is no picture, but perhaps an index, which must be in range."""
    if spec.dtype not in INPUT_DTYPES or (spec.dtype == "int32" and len(spec.shape) != 4):
        return np.zeros(spec.shape, spec.dtype)
    values = np.random.default_rng(0).integers(0, 128, spec.shape)
    return values.astype(spec.dtype)


def _bound_memory() -> None:
    """A damaged file may ask for any amount: refuse what this machine does not have."""
    with suppress(ImportError, ValueError, OSError):  # not every system's way; the time limit holds all the same
        import resource

        most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
