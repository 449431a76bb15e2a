"""Tries a .tflite file of unknown origin in a child process: a damaged one may crash or hang native code.

`python -m edge_runner.model.probe RUNTIME` reads the file from standard input, loads and runs it once on zeros, and prints a
JSON object, {"error": …} with null where all went well.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

from edge_runner.errors import EdgeRunnerError, ModelError
from edge_runner.model.interpreter import Interpreter, Runtime, find_runtime

TIMEOUT_S = 60.0


def probe(content: bytes, runtime: Runtime, flex: tuple[str, ...] = (), timeout_s: float = TIMEOUT_S) -> None:
    """Raise ModelError unless a child process loads and runs these bytes within `timeout_s`."""
    command = [sys.executable, "-m", "edge_runner.model.probe", runtime.name, *flex]
    try:
        child = subprocess.run(command, input=content, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"did not load and run once within {timeout_s:g} s; it is damaged, or far too large for this board"
        ) from None
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        raise ModelError(f"is damaged: the interpreter dies of it ({name}); copy it again, and compare its SHA-256")
    try:
        error = json.loads(child.stdout.splitlines()[-1])["error"]
    except (IndexError, ValueError, KeyError):
        lines = child.stderr.decode("utf-8", "replace").strip().splitlines() or ["no word"]
        raise ModelError(f"could not be tried out: {lines[-1]}") from None
    if error:
        raise ModelError(error)


def _try_out(arguments: list[str]) -> str | None:
    import numpy as np

    try:
        runtime = find_runtime(arguments[0])  # type: ignore[arg-type]
        interpreter = Interpreter(sys.stdin.buffer.read(), runtime, flex=tuple(arguments[1:]))
        interpreter.run(*(np.zeros(spec.shape, spec.dtype) for spec in interpreter.inputs))
    except EdgeRunnerError as error:
        return str(error)
    except MemoryError:
        return "wants more memory than this machine has"
    return None


def _bound_memory() -> None:
    """A damaged file may ask for any amount: refuse what this machine does not have."""
    try:
        import resource

        most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (ImportError, ValueError, OSError):
        pass  # not this system's way; the time limit still holds


if __name__ == "__main__":
    _bound_memory()
    print(json.dumps({"error": _try_out(sys.argv[1:])}))
