"""When a connection that was lost is tried again, and what is said of it: the same only once, until all was well for a while."""

from __future__ import annotations

import logging
import random
import re
import time

FIRST_S, LAST_S = 1.0, 60.0
STEADY_S = 10.0  # a connection that held so long was a good one: after it, the first attempt comes soon
QUIET_S = 60.0  # without trouble: then the same trouble is said again

log = logging.getLogger(__name__)


class Retry:
    """Of the connections to `where`, one after the other. Times are time.monotonic's seconds."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.at = 0.0
        """When the next attempt is due."""
        self.since: float | None = None
        """Since when there is a connection; None: there is none."""
        self.flaps = 0
        """Connections in a row that did not hold for long."""
        self._failures = 0
        self._said: set[str] = set()
        self._said_at = 0.0
        self._complained = False

    def connected(self, with_what: str = "") -> None:
        self.since = time.monotonic()
        log.log(logging.WARNING if self._complained else logging.INFO, "%s: connected%s", self.where, with_what)
        self._complained = False

    def ended(self) -> None:
        """There is no connection any more, if there was one."""
        if self.since is not None:
            held = time.monotonic() - self.since >= STEADY_S
            self.flaps = 0 if held else self.flaps + 1
            self._failures = 0 if held else self._failures
            self.since = None

    def put_off(self, why: str, then: str) -> None:
        """Say why, and try again later; at different times where many boards lost one broker."""
        delay_s = min(LAST_S, FIRST_S * 2.0 ** min(self._failures, 16))
        self.at = time.monotonic() + delay_s * random.uniform(0.5, 1)
        self._failures += 1
        self._complained |= self.say(why, then)

    def say(self, what: str, then: str = "") -> bool:
        """A warning, where the same was not said lately; then it returns True."""
        core = re.sub(r" \(.*\)", "", what)  # one trouble has many details
        new = core not in self._said
        self._said.add(core)
        self._said_at = time.monotonic()
        log.log(logging.WARNING if new else logging.DEBUG, "%s: %s%s", self.where, what, then)
        return new

    def settle(self) -> None:
        """Forget what was said, where all has been well for a while."""
        if self.since is not None and time.monotonic() - max(self.since, self._said_at) > QUIET_S:
            self._said.clear()
