"""Hands each result to every output, and numbers them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace

from edge_runner.errors import blamed
from edge_runner.frame import Shot
from edge_runner.output.base import Origin, Output
from edge_runner.output.courier import Courier
from edge_runner.result import Result

FLUSH_S = 5.0  # for all outputs together, once the daemon is to stop
LOOK_S = 0.01  # at those that a file's end waits for

log = logging.getLogger(__name__)


class Publisher:
    """One start of the daemon: `run` names it, `seq` counts its results. `outputs` maps a configuration key to each output.

    A result of a live camera waits for nobody. With `patient`, which is for files, an output without room is waited for, and at the
    end all of them until they are done, unless the daemon is `stopping`.
    """

    def __init__(self, outputs: Mapping[str, Output], origin: Origin | None = None, *, patient: bool = False) -> None:
        self.outputs = dict(sorted(outputs.items(), key=lambda item: not item[1].saves))
        self.origin = origin or Origin()
        self.run = self.origin.run
        self.seq = 0
        self.stopping: Callable[[], bool] = lambda: False
        self._patient = patient
        self._couriers = [Courier(key, output) for key, output in self.outputs.items()]
        self._left: set[str] = set()

    @property
    def lost(self) -> dict[str, int]:
        """Results that an output did not take, by its key, where there are any."""
        return {courier.key: courier.lost for courier in self._couriers if courier.lost}

    @property
    def waiting(self) -> int:
        """Results that wait for an output, or that one is busy with."""
        return sum(courier.waiting for courier in self._couriers)

    @property
    def troubles(self) -> list[str]:
        """What is wrong with outputs just now."""
        return [courier.trouble for courier in self._couriers if courier.trouble]

    def figures(self) -> dict[str, float]:
        """Numbers worth watching: `outputs.1.bytes_today`."""
        return {
            f"{key}.{name}": value for key, output in self.outputs.items() for name, value in output.figures().items()
        }

    def reports(self) -> list[str]:
        """What there is to tell of each output at the end."""
        return [report for courier in self._couriers if (report := courier.report())]

    def __enter__(self) -> Publisher:
        with ExitStack() as stack:
            for key, output in self.outputs.items():
                stack.callback(output.close)
                with blamed(key):
                    output.open(self.origin)
            stack.pop_all()
        for courier in self._couriers:
            courier.start()
        return self

    def __exit__(self, *_: object) -> None:
        """All of them at once: each has until then."""
        if self._patient:
            while self.waiting and not self.stopping():
                time.sleep(LOOK_S)
        until = time.monotonic() + FLUSH_S
        for courier in self._couriers:
            courier.end(until)
        for courier in self._couriers:
            courier.join()

    def next_seq(self) -> int:
        self.seq += 1
        return self.seq

    def publish(self, result: Result, shot: Shot) -> Result:
        """Hand a result to every output, and return it with the names of the files that are saved beside it.

        Raise BrokenPipeError when the last reader of the only output has gone.
        """
        for courier in self._couriers:
            saved = courier.offer(result, shot, self._waits)
            result = replace(result, saved={**result.saved, **saved}) if saved else result
            if courier.gone:
                self._leave(courier)
        if self._left and len(self._left) == len(self._couriers):
            raise BrokenPipeError
        return result

    def _waits(self) -> bool:
        return self._patient and not self.stopping()

    def _leave(self, courier: Courier) -> None:
        if courier.key not in self._left:
            self._left.add(courier.key)
            if len(self._couriers) > 1:
                log.warning("%s: whoever read it has gone; the other outputs go on", courier.name)
