"""What systemd is told of the service, a datagram at a time (sd_notify(3)); where no systemd listens, nothing happens."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

STAGE_S = 600.0  # for one stage of the start: on a small board, the proof of a large model takes minutes
STATUS_CHARACTERS = 400


class Systemd:
    """`watchdog_s` is after how many seconds without `alive` the service is started anew; None where nobody watches."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None
        self.watchdog_s = _watchdog_s(environ)

    @property
    def listens(self) -> bool:
        """Whether there is one."""
        return self._socket is not None

    def stage(self, words: str) -> None:
        """The start has got so far, and goes on: it is given time for the next stage."""
        self._say(STATUS=f"starting: {words}", EXTEND_TIMEOUT_USEC=_microseconds(STAGE_S))

    def ready(self) -> None:
        """The start, or a reload, is over."""
        self._say(READY=1)

    def reloading(self) -> None:
        self._say(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)

    def stopping(self) -> None:
        self._say(STOPPING=1)

    def status(self, words: str) -> None:
        """For `systemctl status`."""
        self._say(STATUS=words)

    def alive(self) -> None:
        """There is proof of progress."""
        self._say(WATCHDOG=1)

    def watch_every(self, seconds: float) -> None:
        """From now on `alive` may be that far apart."""
        self.watchdog_s = seconds
        self._say(WATCHDOG_USEC=_microseconds(seconds))

    def close(self) -> None:
        """There is nothing more to say. It can be called twice."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def _say(self, **fields: object) -> None:
        if self._socket is None:
            return
        lines = (f"{name}={' '.join(str(value).split())[:STATUS_CHARACTERS]}" for name, value in fields.items())
        with suppress(OSError):  # a systemd that does not listen is no reason to stop
            self._socket.sendto("\n".join(lines).encode("utf-8", "replace"), socket.MSG_DONTWAIT, self._address)


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """sd_watchdog_enabled(3)."""
    interval, process = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", str(os.getpid()))
    if not interval.isdecimal() or process != str(os.getpid()):
        return None
    return int(interval) / 1e6 or None
