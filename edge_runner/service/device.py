"""What this board says of itself."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from collections.abc import Callable
from pathlib import Path

SYS = Path("/sys")
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
TIMEX_BYTES = 512  # more than struct timex has anywhere


def clock_synced() -> bool:
    """Whether the kernel says that the clock is set by a time service (adjtimex(2)); False where it does not say."""
    adjtimex = _adjtimex()
    if adjtimex is None:
        return False
    state = adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    return 0 <= state < TIME_ERROR


def temperature_c(sys: Path = SYS) -> float | None:
    """Of the processor, in degrees Celsius; None where the board does not say. A Raspberry Pi has just this one zone."""
    try:
        return int((sys / "class/thermal/thermal_zone0/temp").read_text()) / 1000
    except (OSError, ValueError):
        return None


@functools.cache
def _adjtimex() -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), "adjtimex", None)
