"""Stands where systemd listens: a datagram socket that keeps what a service says of itself, and when."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

WITHIN_S = 120.0  # on a machine that is slow, busy, and stands still at times
POLL_S = 0.02


class Notified:
    """`address` is for NOTIFY_SOCKET. `said` has (time.monotonic's seconds, the datagram's fields), in order."""

    def __init__(self, folder: Path | None = None, name: str = "notify") -> None:
        """In a folder it is a socket with a path, without one an abstract socket of that name."""
        self.address = str(folder / name) if folder else f"@edge-runner-test-{name}-{time.monotonic_ns()}"
        self.said: list[tuple[float, dict[str, str]]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address if folder else f"\0{self.address[1:]}")
        self._socket.settimeout(0.1)
        self._leaving = False
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Notified:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving = True
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while not self._leaving:
            try:
                datagram = self._socket.recv(1 << 16)
            except TimeoutError:
                continue
            fields = dict(line.split("=", 1) for line in datagram.decode().split("\n"))
            self.said.append((time.monotonic(), fields))

    def all(self, field: str) -> list[str]:
        """Every value of a field, in order."""
        return [fields[field] for _, fields in list(self.said) if field in fields]

    def times(self, field: str) -> list[float]:
        """When it was said."""
        return [at for at, fields in list(self.said) if field in fields]

    def wait_for(self, field: str, more_than: int = 0, says: str = "") -> str:
        """Wait until the field has come more often than that, with those words in it; return its last such value."""

        def found() -> list[str]:
            return [value for value in self.all(field) if says in value]

        wait_until(lambda: len(found()) > more_than, lambda: f"no {field} with '{says}' in {self.said[-20:]}")
        return found()[-1]


def wait_until(
    holds: Callable[[], object], words: Callable[[], object] = lambda: "", within_s: float = WITHIN_S
) -> None:
    """Wait for what has to come; `words` tell why it did not."""
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until, words()
        time.sleep(POLL_S)
