"""SIGINT and SIGTERM as a descriptor: the handlers only make it readable, and the loop acts."""

from __future__ import annotations

import os
import select
import signal
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Enter it in the main thread; it is readable once a signal to stop has come."""

    def __enter__(self) -> Signals:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._handlers = [(number, signal.signal(number, _heard)) for number in STOPPING]
        return self

    def __exit__(self, *_: object) -> None:
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


def _heard(number: int, frame: FrameType | None) -> None:
    """The byte that Python writes to the wake-up descriptor is what counts."""
