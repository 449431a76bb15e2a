"""SIGINT, SIGTERM and SIGHUP as a descriptor: the handlers only make it readable, and the loop acts."""

from __future__ import annotations

import os
import select
import signal
import sys
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM)
RELOADING = signal.SIGHUP


class Signals:
    """Enter it in the main thread; it is readable once a signal has come, and `read` takes it in.

    `stopped` is then the name of the one that ends the daemon, and `reload` true, until it is set back, where the other has come.

    SIGHUP asks for the configuration to be read again. To a daemon in a terminal it says that the terminal has gone, which ends it;
    where it was ignored, as by nohup, it still is.
    """

    def __enter__(self) -> Signals:
        self.stopped = ""
        self.reload = False
        self._terminal = sys.stdin is not None and sys.stdin.isatty()
        heard = [*STOPPING] if signal.getsignal(RELOADING) == signal.SIG_IGN else [*STOPPING, RELOADING]
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._handlers = [(number, signal.signal(number, _heard)) for number in heard]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers:
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._before)
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        return self._read

    def read(self) -> None:
        """Take in what has come."""
        while select.select([self], [], [], 0)[0]:
            for byte in os.read(self._read, 4096):
                if byte == RELOADING and not self._terminal:
                    self.reload = True
                elif byte in (*STOPPING, RELOADING):
                    self.stopped = self.stopped or signal.Signals(byte).name

    def pending(self) -> bool:
        """Whether a signal to stop has come."""
        self.read()
        return bool(self.stopped)


def _heard(number: int, frame: FrameType | None) -> None:
    """The byte that Python writes to the wake-up descriptor is what counts."""
