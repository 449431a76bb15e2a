"""What worker and program have in common: they die with whoever started them, and how they ended is said in words."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1  # linux/prctl.h


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


def signal_name(number: int) -> str:
    """SIGKILL for 9; those in real time have no names."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
