"""How long this machine itself stood still, as virtual ones do: a thread on each processor that only notes when it is late."""

from __future__ import annotations

import os
import threading
import time

BEAT_S = 0.02


class Pulse:
    """Enter it; `longest_s` is the longest time by which any of the beats was late since then."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._leaving = threading.Event()
        self._threads = [
            threading.Thread(target=self._beat, args=(cpu,), daemon=True) for cpu in os.sched_getaffinity(0)
        ]

    def __enter__(self) -> Pulse:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        for thread in self._threads:
            thread.join()

    def _beat(self, cpu: int) -> None:
        os.sched_setaffinity(threading.get_native_id(), {cpu})
        due = time.monotonic() + BEAT_S
        while not self._leaving.wait(max(0.0, due - time.monotonic())):
            now = time.monotonic()
            self.longest_s = max(self.longest_s, now - due)
            due = now + BEAT_S
