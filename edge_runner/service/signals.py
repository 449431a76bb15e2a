"""SIGINT and SIGTERM as a descriptor: the handlers only make it readable, and the loop acts."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from types import FrameType

from edge_runner.errors import OutputError

STOPPING = (signal.SIGINT, signal.SIGTERM)
GRACE_S = 5.0  # for an output that blocks, once a signal has come


class Signals:
    """Enter it in the main thread; it is readable once a signal to stop has come.

    An output that blocks while the daemon is to stop is given up: `blocks` tells whether one is being written to.
    """

    def __init__(self) -> None:
        self.blocks: Callable[[], bool] = lambda: False

    def __enter__(self) -> Signals:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._handlers = [(number, signal.signal(number, _set_alarm)) for number in STOPPING]
        self._handlers.append((signal.SIGALRM, signal.signal(signal.SIGALRM, self._give_up)))
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._handlers:
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._before)
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        return self._read

    def pending(self) -> bool:
        """Whether a signal to stop has come."""
        return bool(select.select([self], [], [], 0)[0])

    def take(self) -> str:
        """The name of the signal that came."""
        return signal.Signals(os.read(self._read, 1)[0]).name

    def _give_up(self, number: int, frame: FrameType | None) -> None:
        if self.blocks():
            raise OutputError(f"takes no result for {GRACE_S:g} s, and the daemon has to stop")


def _set_alarm(number: int, frame: FrameType | None) -> None:
    """The byte that Python writes to the wake-up descriptor is what counts; the alarm is for a loop that cannot see it."""
    signal.setitimer(signal.ITIMER_REAL, GRACE_S, GRACE_S)
