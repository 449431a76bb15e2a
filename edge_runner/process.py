"""A process of one's own: how it is started, that it dies with whoever started it, keeps its memory, and how it ended."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

PR_SET_PDEATHSIG = 1  # linux/prctl.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT_BYTES = 1 << 28


def child_code(module: str, call: str) -> str:
    """What a Python of its own runs, for `child_command`: `call`, with the last word of `module` as its name for that."""
    package, _, name = module.rpartition(".")
    return f"import sys; sys.path[:] = sys.argv.pop(1).split({os.pathsep!r}); from {package} import {name}; {call}"


def child_command(code: str, *arguments: str) -> list[str]:
    """What starts it, with this process's own search path.

    Python by itself would put the working folder first, and any signal.py or numpy.py that lies there.
    """
    return [sys.executable, "-c", code, os.pathsep.join(sys.path), *arguments]


def die_with_parent(parent: int) -> Callable[[], None]:
    """A function that has the calling process killed when its parent's thread ends, or ends it where that is another one already.

    Everything is looked up beforehand: called between fork and exec, it may take no locks.
    """
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
    death, nothing = ctypes.c_ulong(signal.SIGKILL), ctypes.c_ulong(0)
    get_parent, leave = os.getppid, os._exit

    def guard() -> None:
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, death, nothing, nothing, nothing)
            if get_parent() != parent:  # it died before that
                leave(1)

    return guard


def keep_memory() -> None:
    """Let glibc keep what was freed of a frame's size for the next one: given back, each page of it costs a fault every time."""
    with suppress(AttributeError):  # not every C library has it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def signal_name(number: int) -> str:
    """SIGKILL for 9; those in real time have no names."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
