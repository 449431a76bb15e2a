"""How it goes, as one state machine: starting, running, degraded or failed, and why; what the board adds to the reasons."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_runner.errors import Reason
from edge_runner.service.device import Vitals

# A Raspberry Pi slows down from 80 degrees on, and others within a few degrees of it (raspberrypi.com, "Frequency management").
HOT_C, COOL_C = 80.0, 77.0  # the second is where it counts as over
LOW_BYTES = 64 * 10**6  # of a disk that is all but full
CLOCK_S = 300.0  # that a time service may need after a boot
QUIET_S = 3600.0  # in which the same change is said once
SETTLE_S = 5.0  # for which it has to be better before that is believed
SLOW = {"throttled", "frequency_capped", "soft_temperature_limit"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """`name` is starting | running | degraded | failed."""

    name: str = "starting"
    reasons: tuple[Reason, ...] = ()

    def __str__(self) -> str:
        return "; ".join([self.name, *map(str, self.reasons)])


@dataclass(frozen=True)
class Sample:
    """What was read off the board: `free` are bytes by folder that outputs write to."""

    vitals: Vitals = field(default_factory=Vitals)
    synced: bool = True
    free: tuple[tuple[Path, int], ...] = ()


class Health:
    """Told how things are, it holds the state, and says in the log when that changes."""

    def __init__(self) -> None:
        self.state = State()
        self._better_since: float | None = None
        self._said: dict[str, float] = {}

    def judge(self, reasons: Sequence[Reason], hangs: Reason | None, silent: bool) -> State:
        """The state from now on. `hangs` is what only a new start can mend; `silent`: a camera has given no result yet."""
        found = tuple(reasons) if hangs is None else (hangs, *reasons)
        name = "failed" if hangs else "degraded" if found else "starting" if silent else "running"
        new = State(name, found)
        if self._believed(new):
            if _gist(new) != _gist(self.state):
                self._say(new)
            self.state = new
        return self.state

    def _believed(self, new: State) -> bool:
        """What comes and goes is there until it has stayed away for a while."""
        now = time.monotonic()
        fewer = {reason.code for reason in new.reasons} < {reason.code for reason in self.state.reasons}
        self._better_since = (self._better_since or now) if fewer else None
        if self._better_since is not None and now - self._better_since < SETTLE_S:
            return False
        self._better_since = None
        return True

    def _say(self, new: State) -> None:
        """Once an hour, where it is always the same."""
        now, gist = time.monotonic(), f"{_gist(self.state)} -> {_gist(new)}"
        fresh = now - self._said.get(gist, -QUIET_S) >= QUIET_S
        level = {"degraded": logging.WARNING, "failed": logging.ERROR}.get(new.name, logging.INFO)
        log.log(level if fresh else logging.DEBUG, "health: %s -> %s", self.state.name, new)
        if fresh:
            self._said[gist] = now


class BoardReasons:
    """What the board's own state explains: heat, power, disk and clock. Kept apart for what it remembers."""

    def __init__(self) -> None:
        self._hot = False
        self._started = time.monotonic()

    def of(self, sample: Sample, slowness: str = "") -> list[Reason]:
        """`slowness` says how much slower the inference has become."""
        return [
            *self._heat(sample.vitals, slowness),
            *_power(sample.vitals),
            *_disks(sample.free),
            *self._clock(sample),
        ]

    def _heat(self, vitals: Vitals, slowness: str) -> Iterable[Reason]:
        degrees = vitals.temperature_c
        self._hot = degrees is not None and degrees >= (COOL_C if self._hot else HOT_C)
        slow = vitals.throttling & SLOW if "under_voltage" not in vitals.throttling else frozenset()
        if self._hot or slow:
            yield Reason("heat", f"{_heat_words(vitals)}{slowness}; better cooling or a lower max_fps helps")

    def _clock(self, sample: Sample) -> Iterable[Reason]:
        if not sample.synced and time.monotonic() - self._started > CLOCK_S:
            yield Reason("clock", "no time service has set the clock; `timedatectl` says more")


def _heat_words(vitals: Vitals) -> str:
    words = (
        "the processor is hot" if vitals.temperature_c is None else f"the processor has {vitals.temperature_c:.0f} °C"
    )
    now, most = vitals.frequency_mhz, vitals.frequency_max_mhz
    if vitals.throttling & SLOW and now and most:
        return f"{words} and runs at {now:.0f} of {most:.0f} MHz"
    return f"{words} and is throttled" if vitals.throttling & SLOW else words


def _power(vitals: Vitals) -> Iterable[Reason]:
    if "under_voltage" in vitals.throttling:
        yield Reason("under_voltage", "the power supply gives too little: use the board's own, with a short cable")


def _disks(free: Iterable[tuple[Path, int]]) -> Iterable[Reason]:
    for folder, left in free:
        if left < LOW_BYTES:
            yield Reason("disk", f"{left / 1e6:.0f} MB are left at {folder}")


def _gist(state: State) -> str:
    """What makes a change worth saying: not other words for the same."""
    return f"{state.name}: {sorted(reason.code for reason in state.reasons)}"
