"""Sends what waits in an outbox, over one link after the other, and sees to it that one bad message does not hold up the rest."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque

from edge_runner.output.link import WINDOW, Link
from edge_runner.output.outbox import Outbox
from edge_runner.output.retry import Retry
from edge_runner.output.spool import Message

WINDOW_BYTES = 1 << 20
HOLD_S = 30.0  # until what the broker did not let us publish is tried again
STRIKES = 3  # losses of the connection at one result: then it waits until the broker has taken another one
TRIALS = 2  # losses at it even so, when it was on its way alone: then it is that result's fault
HEADER_BYTES = 16  # of a packet beside topic and payload

# Reason codes (MQTT 5.0, 2.4).
FAILURE = 0x80  # and all above
NEVER = (0x90, 0x95, 0x99)  # the topic, the size, the payload: this broker will not take it later either

log = logging.getLogger(__name__)


class Sender:
    """`who` publishes, for warnings. Notices go before results, are retained, and are forgotten with the link."""

    def __init__(self, box: Outbox, retry: Retry, *, qos: int, who: str) -> None:
        self.refused = 0
        """Results that the broker will never take; they are lost."""
        self._box = box
        self._retry = retry
        self._qos = qos
        self._who = who
        self._notices: deque[Message] = deque()
        self._denied: set[str] = set()  # topics that the broker did not let us publish on when it was last tried
        self._held: set[str] = set()  # those of them that are not tried just now
        self._hold_until: float | None = None
        self._strikes: Counter[bytes] = Counter()  # losses of the connection, by the result that was on its way first
        self._trials: Counter[bytes] = Counter()
        self._forget()

    def _forget(self) -> None:
        """Whatever belongs to one link."""
        self._link: Link | None = None
        self._window = WINDOW
        self._largest: int | None = None
        self._flights: dict[int, _Flight] = {}
        self._heard_at = 0.0
        self._trusted = False  # the broker has taken a result
        self._apart: deque[Message] = deque()  # results that wait until then
        self._alone = False  # one of those is on its way, and nothing else

    @property
    def busy(self) -> bool:
        """Whether anything is still to be acknowledged."""
        return bool(self._flights)

    @property
    def silent_s(self) -> float:
        """For how long the broker has acknowledged nothing, though something waits for it."""
        if not self._flights:
            return 0.0
        return time.monotonic() - max(self._heard_at, next(iter(self._flights.values())).since)

    def begin(self, link: Link, window: int, largest: int | None) -> None:
        """There is a link, whose broker takes so many messages at a time, of so many bytes."""
        self._link, self._window, self._largest = link, min(WINDOW, window), largest

    def end(self, *, lost: bool) -> str:
        """The link has gone, `lost` by no doing of ours; whatever was on its way is sent again over the next one.

        Return what may have been the reason, for people, or nothing.
        """
        first = next((flight.result for flight in self._flights.values() if flight.result), None)
        hint = ""
        if lost and first:
            self._strikes[first.payload] += 1
            self._trials[first.payload] += self._alone
            if self._trials[first.payload] >= TRIALS:
                self._never(
                    first, f"it ends the connection whenever it gets one of the results ({first.bytes:,} bytes)"
                )
                hint = "; that result is given up"
            elif self._strikes[first.payload] > 1:
                hint = f"; may a result of {first.bytes:,} bytes be too large for it?"
        self._forget()
        self._notices.clear()
        self._box.again()
        return hint

    def give_up(self) -> None:
        """Nobody waits any more for what is on its way; it is for the next start."""
        self._flights.clear()
        self._box.again()

    def notify(self, notice: Message) -> None:
        """Send something that is retained, and of no importance to the next link; with `send_notices`."""
        self._notices.append(notice)

    def send_notices(self) -> None:
        """Those that can be sent now."""
        while self._link and self._notices and len(self._flights) < self._window:
            notice = self._notices.popleft()
            if self._too_large(notice):
                self._retry.say(f"{notice.topic}: {notice.bytes:,} bytes are more than it takes")
            else:
                self._publish(self._link, notice, None)

    def send_results(self) -> None:
        """Those that can be sent now, of those that wait."""
        if self._hold_until is not None and time.monotonic() >= self._hold_until:
            if self._flights:
                return  # they would be sent twice
            self._try_again()
        while self._link and (room := self._room) > 0:
            if self._apart and self._trusted:
                message = self._apart.popleft()
                self._publish(self._link, message, message)
                self._alone = True
                return
            size = self._window_bytes - sum(flight.bytes for flight in self._flights.values())
            taken = self._box.take(room, size) if size > 0 and self._box.unsent else []
            for message in taken:
                self._send_result(self._link, message)
            if not taken:
                return

    def _try_again(self) -> None:
        """Whatever is held back."""
        self._hold_until = None
        self._held = set()
        self._apart.clear()
        for payload in self._strikes:
            self._strikes[payload] = min(self._strikes[payload], STRIKES - 1)
        self._box.again()

    @property
    def _room(self) -> int:
        """How many more results may be on their way. After a loss there is one alone until the broker has taken it."""
        careful = self._alone or (self._apart if self._trusted else self._strikes)
        return int(not self._flights) if careful else self._window - len(self._flights)

    def acknowledged(self, number: int, code: int, reason: str) -> None:
        """The broker has a message, or says why it does not take it; with QoS 0, it was sent."""
        flight = self._flights.pop(number, None)
        if flight is None:
            return
        self._heard_at = time.monotonic()
        reason = reason.lower()
        if code < FAILURE:
            if flight.result:
                self._taken(flight.result)
        elif code not in NEVER:
            self._deny(flight, reason)
        elif flight.result:
            self._never(flight.result, f"it does not take a result: {reason}")
        else:
            self._retry.say(f"it does not take {flight.topic}: {reason}")

    @property
    def _window_bytes(self) -> int:
        return min(WINDOW_BYTES, self._box.spool.largest) if self._box.spool else WINDOW_BYTES

    def _send_result(self, link: Link, message: Message) -> None:
        if self._too_large(message):
            self._never(message, f"it takes no results that are so large ({message.bytes:,} bytes)")
        elif message.topic in self._held:
            self._hold_back(message)
        elif self._strikes[message.payload] >= STRIKES and not self._trusted:
            self._apart.append(message)
            self._hold_back(message)
        else:
            self._publish(link, message, message)

    def _too_large(self, message: Message) -> bool:
        return self._largest is not None and message.bytes > self._largest - HEADER_BYTES

    def _publish(self, link: Link, message: Message, result: Message | None) -> None:
        number = link.publish(message.topic, message.payload, self._qos if result else 1, retain=not result)
        self._flights[number] = _Flight(result, message.topic, message.bytes)

    def _taken(self, result: Message) -> None:
        self._box.done(result)
        self._trusted, self._alone = True, False
        self._acquit(result)
        if result.topic in self._denied:
            self._denied.discard(result.topic)
            log.warning("%s: takes results on %s again", self._retry.where, result.topic)

    def _deny(self, flight: _Flight, reason: str) -> None:
        """Results are not lost, and their order stays: all of that topic are sent again after a while. The others go on."""
        why = f"it does not let us publish on {flight.topic} ({reason}); check the access rights{self._who}"
        if flight.result:
            self._retry.say(why, "; such results wait, and it is tried again")
            self._hold_back(flight.result)
            self._denied.add(flight.topic)
            self._held.add(flight.topic)
            self._alone = False
        else:
            self._retry.say(why)

    def _hold_back(self, result: Message) -> None:
        self._box.pass_over(result)
        if self._hold_until is None:
            self._hold_until = time.monotonic() + HOLD_S

    def _acquit(self, result: Message) -> None:
        self._strikes.pop(result.payload, None)
        self._trials.pop(result.payload, None)

    def _never(self, result: Message, why: str) -> None:
        self._box.done(result)
        self._acquit(result)
        self._alone = False
        self.refused += 1
        self._retry.say(why, "; such results are lost")


class _Flight:
    """A message that is not acknowledged, since time.monotonic's `since`. `result` None: it is a notice."""

    def __init__(self, result: Message | None, topic: str, size: int) -> None:
        self.result = result
        self.topic = topic
        self.bytes = size
        self.since = time.monotonic()
