"""Hands each result to every output, and numbers them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace

from edge_runner.errors import EdgeRunnerError, NoWayBackError, Reason, blamed
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

    With `before`, it is to take the place of that one: outputs of the same settings come along, with what waits for them.
    """

    def __init__(
        self,
        outputs: Mapping[str, Output],
        origin: Origin | None = None,
        *,
        patient: bool = False,
        before: Publisher | None = None,
    ) -> None:
        given = origin or Origin()
        self.origin: Origin = replace(given, run=before.origin.run) if before else given
        self.run = self.origin.run
        self.seq = 0
        self.stopping: Callable[[], bool] = lambda: False
        self.waited_at = 0.0
        """When a result last had to wait for an output without room, in time.monotonic's seconds."""
        self.lost_before = 0
        """Results that were lost at outputs that are no more."""
        self._patient = patient
        there = list(before._keyed.values()) if before and before.origin == self.origin else []
        ordered = sorted(outputs.items(), key=lambda item: not item[1].saves)
        self._keyed: dict[str, Courier] = {
            key: _taken_out(there, output) or Courier(key, output) for key, output in ordered
        }
        self._couriers = list(self._keyed.values())
        self.outputs = {key: courier.output for key, courier in self._keyed.items()}
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
    def troubles(self) -> list[Reason]:
        """What is wrong with outputs just now."""
        return [courier.trouble for courier in self._couriers if courier.trouble]

    def stuck(self, limit_s: float) -> list[Courier]:
        """Outputs of which one call has not come back for longer than that."""
        return [courier for courier in self._couriers if courier.stuck_s > limit_s]

    def figures(self) -> dict[str, float]:
        """Numbers worth watching: `outputs.1.bytes_today`."""
        return {
            f"{key}.{name}": value for key, output in self.outputs.items() for name, value in output.figures().items()
        }

    def reports(self) -> list[str]:
        """What there is to tell of each output at the end."""
        told = [report for courier in self._couriers if (report := courier.report())]
        gone = [f"{self.lost_before} results lost at outputs that a reload closed"] * bool(self.lost_before)
        return [*told, *gone]

    def __enter__(self) -> Publisher:
        self._start(self._keyed)
        return self

    def __exit__(self, *_: object) -> None:
        if self._patient:
            while self.waiting and not self.stopping():
                time.sleep(LOOK_S)
        self._end(self._couriers)
        for courier in self._couriers:
            courier.give_up()

    def take_over(self, before: Publisher) -> None:
        """Take the place of the one that it was made with, which runs: end what is no longer wanted, start what is new.

        Raise what an output raises that cannot be opened; then the one before runs on as it did, or, where one of its outputs
        cannot be opened again either, NoWayBackError.
        """
        leaving = {key: courier for key, courier in before._keyed.items() if courier not in self._couriers}
        ended = self._end(leaving.values())
        try:
            self._start({key: courier for key, courier in self._keyed.items() if courier not in before._couriers})
        except EdgeRunnerError:
            before._go_on(leaving, ended)
            raise
        for courier in leaving.values():
            courier.give_up()
        for key, courier in self._keyed.items():
            courier.key = key
        self.seq = before.seq
        self.lost_before = before.lost_before + sum(courier.lost for courier in leaving.values())

    def _go_on(self, couriers: Mapping[str, Courier], ended: Collection[Courier]) -> None:
        """Have them go on, though they were told to end. Raise NoWayBackError where one cannot be opened again."""
        for key, courier in couriers.items():
            if courier not in ended and not courier.go_on():
                raise NoWayBackError(f"{courier.name} hangs in the middle of its end")
            try:
                if courier in ended:
                    self._start({key: courier})
            except EdgeRunnerError as error:
                raise NoWayBackError(f"{courier.name} cannot be opened again: {error}") from error

    def _start(self, couriers: Mapping[str, Courier]) -> None:
        """Open and start them, all or none."""
        with ExitStack() as stack:
            for key, courier in couriers.items():
                stack.callback(courier.output.close)
                with blamed(key):
                    courier.output.open(self.origin)
            stack.pop_all()
        for courier in couriers.values():
            courier.start()

    def _end(self, couriers: Iterable[Courier]) -> list[Courier]:
        """All of them at once: each has until then. Return those that came to their end."""
        couriers, until = list(couriers), time.monotonic() + FLUSH_S
        for courier in couriers:
            courier.end(until)
        return [courier for courier in couriers if courier.join()]

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
        waits = self._patient and not self.stopping()
        if waits:
            self.waited_at = time.monotonic()
        return waits

    def _leave(self, courier: Courier) -> None:
        if courier.key not in self._left:
            self._left.add(courier.key)
            if len(self._couriers) > 1:
                log.warning("%s: whoever read it has gone; the other outputs go on", courier.name)


def _taken_out(couriers: list[Courier], output: Output) -> Courier | None:
    """The courier of an output with the same settings."""
    for courier in couriers:
        if courier.output.config == output.config and not courier.gone:
            couriers.remove(courier)
            return courier
    return None
