"""Whether the daemon gets anywhere: noted by its loop, judged from another thread, since a loop that hangs says nothing."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from edge_runner.camera.base import LiveConfig
from edge_runner.errors import Reason
from edge_runner.output.publisher import Publisher
from edge_runner.service.turns import Lane

PATIENCE_S = 30.0  # for one round of the loop, where nobody else sets a limit
OUTPUT_S = 60.0  # for one call of an output: a worn card may need that long
BEGIN_S = 60.0  # for a camera's process, on top of its own limits
SLOWER = 4  # times the slowest of the last steps is no reason for concern
STEPS = 20  # so many: one that was held up once does not count for ever


class Progress:
    """Proof is a step that was completed, a frame that was left out on purpose, or a camera that is in its bounded retry."""

    def __init__(self, watchdog_s: float | None = None) -> None:
        self._limit_s = PATIENCE_S if watchdog_s is None else watchdog_s / 2
        self._output_s = OUTPUT_S if watchdog_s is None else watchdog_s
        self._steps_s: deque[float] = deque(maxlen=STEPS)
        self._round_at = self._stepped_at = time.monotonic()
        self._step_since: float | None = None
        self._proven: dict[str, float] = {}
        self._late: Lane | None = None
        self.leaving = False
        """At the end there is no progress, and a limit of systemd's own."""

    @property
    def slowest_s(self) -> float:
        """Of the last steps."""
        return max(self._steps_s.copy(), default=0.0)

    @property
    def limit_s(self) -> float:
        """For one round of the loop."""
        return max(self._limit_s, SLOWER * self.slowest_s)

    def round(self, lanes: Iterable[Lane]) -> None:
        """The loop looked at its cameras: each has to have given a frame, or to be excused."""
        now, late = time.monotonic(), None
        self._round_at = now
        known, self._proven = self._proven, {}
        for lane in lanes:
            proven = self._proven[lane.key] = (
                now if self._excused(lane, now) else max(known.get(lane.key, now), lane.served)
            )
            if now - proven > patience_s(lane) + self.limit_s:
                late = lane
        self._late = late

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around one step."""
        began = self._step_since = time.monotonic()
        yield
        now = time.monotonic()
        self._steps_s.append(now - began)
        self._round_at, self._stepped_at, self._step_since = now, now, None

    def missing(self, publisher: Publisher) -> Reason | None:
        """What hangs, so that only a new start of the process can help; None while there is proof of progress."""
        now, step_since = time.monotonic(), self._step_since
        if self.leaving:
            return None
        # a step of a file waits for outputs for as long as it takes, and those are looked at below
        if step_since is not None and now - max(step_since, publisher.waited_at) > self.limit_s:
            return Reason("no_progress", f"the model has not answered for {now - step_since:.0f} s")
        if now - max(self._round_at, publisher.waited_at) > self.limit_s:
            return Reason("no_progress", f"the daemon's loop has stood still for {now - self._round_at:.0f} s")
        if self._late:
            return Reason("no_progress", f"{self._late.key}: there is no frame, and the camera does not say why")
        for courier in publisher.stuck(self._output_s):
            if courier.has_worked:  # one that never did would hang again
                return Reason(
                    "no_progress", f"{courier.name}: hangs in the middle of its work for {courier.stuck_s:.0f} s"
                )
        return None

    def _excused(self, lane: Lane, now: float) -> bool:
        """Whether no frame is needed now: it is left out on purpose, the camera is being opened again, or others come first."""
        waits_its_turn = (lane.feed.ready or lane.feed.offers) and now - self._stepped_at < self.limit_s
        return lane.due > now or lane.feed.trouble is not None or waits_its_turn


def patience_s(lane: Lane) -> float:
    """After how long a camera's own clock has to have spoken: it watches the start, and the frames."""
    config = lane.feed.config
    if not isinstance(config, LiveConfig):
        return 0.0
    interval_s = 1 / getattr(config, "fps", 1.0)
    return BEGIN_S + config.start_timeout + 2 * max(config.stall_timeout, 2 * interval_s)
