"""A live camera as the daemon sees it: a worker process that is watched by the clock, ended when it is of no use, and started anew.

All of it happens within `poll`, which waits for nothing but, for a moment, how a worker ended: no thread, and no camera that holds
up another.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import random
import re
import time
from collections import Counter
from dataclasses import replace
from typing import Any

from edge_runner.camera.base import LiveConfig, Retry, without_credentials
from edge_runner.camera.child import GRACE_S, Child
from edge_runner.camera.feed import Feed, Kind
from edge_runner.camera.shared import Block
from edge_runner.camera.worker import WANT, WANT_EXACT, Order
from edge_runner.frame import Geometry, Prepare, Shot, Stamp

LEAVE_S = 5.0  # for one that was killed: longer takes only a driver that hangs
LOOK_S = 0.5  # between two looks at the clock
QUIET_S = 3600.0  # in which the same trouble is said once
MOST_SAID = 50
MOST_HEARD = 1000  # messages at a time; a worker that floods us holds nobody up
MOST_LOGGED = 100  # lines of one worker
IMPORT_S = 60.0  # until a worker has begun: a small board that starts several has to read much from its card
SPOILT = {
    "torn": "some of its frames come incomplete, and are left out",
    "damaged": "some of its frames cannot be decoded, and are left out",
    "black": "its picture is black: is there light, and nothing before the lens?",
}
DIGITS = re.compile(r"\d+")

log = logging.getLogger(__name__)


class LiveFeed(Feed):
    """The newest frame whenever one is wanted, from a camera that is opened again for as long as it takes."""

    live = True

    def __init__(self, config: LiveConfig, prepare: Prepare, *, exact: bool = False) -> None:
        super().__init__(config)
        self.config: LiveConfig = config
        self.exact = exact
        self._prepare, self._fit = prepare, 0
        self._asked_at: float | None = None
        self._shot: Shot | None = None
        self._forget_frame()

    def __enter__(self) -> LiveFeed:
        self._block = Block(self._prepare.shape, self._prepare.dtype)
        self.trouble = None
        self.losses = 0
        self._spoilt: Counter[str] = Counter()
        self._child: Child | None = None
        self._backoff = Backoff(self.config.retry)
        self._start_at = time.monotonic()
        self._lost_at: float | None = None
        self._said: dict[str, tuple[float, int]] = {}
        self._quiet = self._spoken = False
        self._again = self.config
        self._noticed: set[str] = set()
        self._stuck = False
        self._numbers = Numbers()
        self._forget_frame()
        self.poll()
        return self

    def leave(self) -> None:
        if self._child:
            self._child.end(kill=not self._child.opened)

    def __exit__(self, *_: object) -> None:
        self.leave()
        if self._child:
            if not self._child.wait(GRACE_S + LEAVE_S):
                log.warning("%s: its process does not die; the driver hangs", self.name)
            self._child = None
        self._add_up()
        self._forget_frame()
        self._block.close()
        del self._block

    def sources(self) -> list[int]:
        return [self._child.fileno()] if self._child and self._child.talks else []

    def poll(self) -> float | None:
        if self._child is None:
            if time.monotonic() < self._start_at:
                return self._start_at
            self._start()
        if self._child and not self._child.leaving:
            self._listen(self._child)
        if self._child and self._child.leaving:
            if not self._child.gone():
                return self._await_end(self._child)
            self._child = None
        return self._start_at if self._child is None else time.monotonic() + min(LOOK_S, self.config.stall_timeout / 4)

    @property
    def offers(self) -> bool:
        return self._offered and self._asked_at is None and self._shot is None

    @property
    def ready(self) -> bool:
        return self._shot is not None

    def want(self) -> None:
        if self._child and self.offers:
            self._asked_at = time.monotonic()
            self._child.say(WANT_EXACT if self.exact else WANT)

    def take(self) -> Shot | None:
        shot, self._shot = self._shot, None
        assert shot is not None, "take() is for a feed that is ready"
        shot.dropped = self._numbers.skipped(shot.stamp.number)
        return shot

    def refit(self, prepare: Prepare) -> None:
        self._prepare, self._fit = prepare, self._fit + 1
        self._block.refit(prepare.shape, prepare.dtype)
        self._forget_frame()
        if self._child:
            self._child.refit(prepare)

    def release(self, shot: Shot) -> None:
        """There is one slot, and it is written when a frame is wanted."""

    def _forget_frame(self) -> None:
        self._offered, self._asked_at, self._shot, self._heard_at = False, None, None, time.monotonic()

    @property
    def spoilt(self) -> dict[str, int]:
        return {**self._spoilt, "lost": self.losses} if self.losses else dict(self._spoilt)

    def _add_up(self) -> None:
        """Keep the figures of a worker that has gone, and clear them for the next."""
        self._spoilt.update({name: count for name in SPOILT if (count := getattr(self._block.figures, name))})
        self._block.figures.clear()

    def _start(self) -> None:
        self._stuck = False
        self._add_up()
        try:
            self._child = Child(
                Order(self._again, self._prepare, self._fit, os.getpid(), logging.getLogger().level), self._block
            )
        except OSError as error:
            self.kind = "lost"
            self._lose(f"its process cannot be started: {(error.strerror or str(error)).lower()}", 0.0)

    def _listen(self, child: Child) -> None:
        try:
            for message in itertools.islice(child.messages(), MOST_HEARD):
                self._take_in(child, message)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            child.failed = f"its process says what cannot be used ({type(error).__name__})"
        kind, trouble = self._trouble(child)
        if trouble:
            self.kind = kind
            child.end(kill=not child.failed)
            self._lose(trouble, time.monotonic() - child.flowing_since if child.flowing_since else 0.0)

    def _trouble(self, child: Child) -> tuple[Kind, str | None]:
        if child.failed:
            return "lost", child.failed
        return self._overdue(child) if child.talks else ("lost", child.fate())

    def _await_end(self, child: Child) -> float:
        """When to look again whether a worker that was ended has gone: another one would meet the same driver in the same state."""
        now = time.monotonic()
        if now < child.kill_at + LEAVE_S:
            return now + LOOK_S / 10
        if not self._stuck:
            self._stuck = True
            log.warning("%s: its process cannot be killed, the driver hangs; waiting for it", self.name)
        return now + LOOK_S

    def _take_in(self, child: Child, message: dict[str, Any]) -> None:
        self._heard_at = time.monotonic()
        if "offered" in message:
            self._offered = True
        elif "begun" in message:
            child.begun_at = time.monotonic()
        elif "shot" in message and message["shot"]["fit"] == self._fit:
            self._shot, self._offered, self._asked_at = self._received(message["shot"]), False, None
            self._recover(child)
            self._notice_spoilt()
        elif "opened" in message:
            child.opened, self._again = True, replace(self.config, **message["again"])
            log.log(self._level(logging.INFO), "%s: %s", self.name, without_credentials(message["opened"]))
        elif "log" in message and child.logged < MOST_LOGGED:
            child.logged += 1
            level, text = message["log"]
            log.log(self._level(level), "%s: %s", self.name, without_credentials(text))

    def _level(self, level: int) -> int:
        """That of a line which belongs to an outage that was said before."""
        return logging.DEBUG if self._quiet else level

    def _received(self, shot: dict[str, Any]) -> Shot:
        width, height, *pairs = shot["geometry"]
        number, monotonic_ns, time_ns = shot["stamp"]
        return Shot(
            camera=self.name,
            input=self._block.input,
            picture=self._block.picture(tuple(shot["shape"])),
            geometry=Geometry(width, height, *map(tuple, pairs)),
            stamp=Stamp(self._numbers.of(number), monotonic_ns, time_ns),
            timing_ms=shot["timing_ms"],
        )

    def _overdue(self, child: Child) -> tuple[Kind, str | None]:
        """What the clock says against this worker. A camera that says nothing, or again and again the same, has been lost."""
        config, figures, now = self.config, self._block.figures, time.monotonic()
        if child.begun_at is None:
            late = now - child.started_at > IMPORT_S
            return "lost", f"its process has not begun within {IMPORT_S:g} s" if late else None
        stall_s = max(config.stall_timeout, 2 / getattr(config, "fps", math.inf))
        if not figures.frames:
            self._heard_at = now  # there was nothing to offer
            patience_s = max(config.start_timeout, stall_s)
            late = now - child.begun_at > patience_s
            return "stalled", f"no frame within {patience_s:g} s of opening it" if late else None
        newest, changed = figures.newest_ns / 1e9, figures.changed_ns / 1e9
        if now - newest > stall_s:
            return "stalled", f"no new frame for {stall_s:g} s (camera.stall_timeout)"
        if self._asked_at and now - self._asked_at > stall_s:
            return "stalled", f"frames come, but for {stall_s:g} s none could be decoded"
        if not (self._offered or self._asked_at or self._shot) and now - self._heard_at > stall_s:
            return "stalled", f"frames come, but for {stall_s:g} s its process has offered none"
        if config.freeze_timeout and changed and newest - changed > config.freeze_timeout:
            said = f"the picture has not changed for {config.freeze_timeout:g} s (camera.freeze_timeout; 0 allows it)"
            return "frozen", said
        return "lost", None

    def _notice_spoilt(self) -> None:
        """Say once of each kind of spoilt frames that there are some; how many stands in `spoilt`."""
        for name, words in SPOILT.items():
            if getattr(self._block.figures, name) and name not in self._noticed:
                self._noticed.add(name)
                log.warning("%s: %s (said once, then counted)", self.name, words)

    def _lose(self, why: str, flowed_s: float) -> None:
        """Plan the next try, and say why: once an hour, where it is always the same."""
        now, why = time.monotonic(), without_credentials(why)
        self.losses += 1
        self.trouble = why
        self._lost_at = self._lost_at or now
        self._numbers.begin_again(self._block.figures.frames)
        self._forget_frame()
        delay_s = self._backoff.next(flowed_s)
        self._start_at = now + delay_s
        self._warn(f"{why}; opening it again in {delay_s:.1f} s, and for as long as it takes", about=why)

    def _warn(self, words: str, about: str) -> None:
        """Say it once an hour, where it is always about the same, and count; what follows from it is kept as quiet."""
        now, gist = time.monotonic(), DIGITS.sub("#", about)
        said_at, times = self._said.get(gist, (-QUIET_S, 0))
        self._quiet = now - said_at < QUIET_S
        if self._quiet:
            self._said[gist] = said_at, times + 1
        else:
            self._spoken = True
            if len(self._said) >= MOST_SAID:
                self._said.clear()
            self._said[gist] = now, 0
            words += f" (the same {times} times more since it was last said)" if times else ""
        log.log(self._level(logging.WARNING), "%s: %s", self.name, words)

    def _recover(self, child: Child) -> None:
        child.flowing_since = child.flowing_since or time.monotonic()
        if self._lost_at is not None:
            level = logging.WARNING if self._spoken else logging.DEBUG
            log.log(level, "%s: frames again after %.1f s", self.name, time.monotonic() - self._lost_at)
        self._lost_at = self.trouble = None
        self._spoken = False


class Numbers:
    """Counts a camera's frames from 1 on, through all of its workers, each of which begins at 1."""

    def __init__(self) -> None:
        self._before = self._last = 0

    def of(self, number: int) -> int:
        return self._before + number

    def begin_again(self, newest: int) -> None:
        """The worker is gone; `newest` is the number of its newest frame."""
        self._before += newest

    def skipped(self, number: int) -> int:
        """How many frames were passed over between the last one and this."""
        before, self._last = self._last, number
        return max(0, number - before - 1)


class Backoff:
    """How long to wait before the next try: twice as long each time, within limits, and never quite the same.

    Half of the time is left to chance, so that many boards do not knock at one camera all at once.
    """

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._whole_s = 0.0

    def next(self, flowed_s: float) -> float:
        """Seconds to wait, after frames flowed for so long: for longer than the last wait, and it begins anew."""
        longer = self._whole_s * 2 if flowed_s <= self._whole_s else 0.0
        self._whole_s = min(max(longer, self._retry.first), max(self._retry.max, self._retry.first))
        return self._whole_s * random.uniform(0.5, 1.0)
