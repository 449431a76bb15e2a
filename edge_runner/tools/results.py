"""`edge-runner results`: what a log holds: its results chosen by time, label, score and camera, shown, counted, or followed."""

from __future__ import annotations

import heapq
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from itertools import chain
from typing import Literal

from edge_runner.fields import DURATION_UNITS_S, Units
from edge_runner.tools import tables
from edge_runner.tools.lines import Answer, Line, canonical, encoded, is_clean, read_as_json, read_line, utc
from edge_runner.tools.logs import Block, Log, gather

FOLLOWED_FIRST = 10
AGE = Units(DURATION_UNITS_S, "an age such as 2h, 30m or 7d")
TIME_AT, ZONE_AT = slice(23, 49), slice(49, 51)
START = b'{"schema": 1, "time": "'

log = logging.getLogger(__name__)

Format = Literal["table", "csv", "json"]


@dataclass(frozen=True)
class Choice:
    """Which results: from `since` until just before `until` (times as `moment` gives them), of one of the cameras, with an
    answer that counts, is one of the labels, and has at least that score. Nothing given: all."""

    since: bytes = b""
    until: bytes = b""
    labels: Sequence[str] = ()
    min_score: float = 0.0
    cameras: Sequence[str] = ()

    @cached_property
    def by_answer(self) -> bool:
        """Whether anything is asked of the answers."""
        return bool(self.labels or self.min_score)

    @cached_property
    def wanted(self) -> frozenset[bytes]:
        """The labels, as a line has them."""
        return frozenset(map(encoded, self.labels))

    def names(self, line: Line) -> list[bytes]:
        """The labels of the answers that match."""
        if not self.by_answer:
            return line.labels()
        wanted, least = self.wanted, self.min_score
        if not least:
            return [label for label in line.labels() if label in wanted]
        return [label for label, score in line.scored() if score >= least and (not wanted or label in wanted)]

    def shown(self, line: Line) -> list[Answer]:
        """The answers to be shown of a result that was chosen: those that match; where nothing was asked of them, all."""
        if not self.by_answer:
            return line.answers()
        return [
            answer
            for answer in line.counting()
            if answer.score >= self.min_score and (not self.wanted or encoded(answer.name) in self.wanted)
        ]


@dataclass(frozen=True)
class Order:
    """What was asked for. `per` None: the results themselves, else a count of them; `last`: no more than so many, the newest."""

    choice: Choice = Choice()
    format: Format = "table"
    per: tables.Period | None = None
    last: int | None = None
    follow: bool = False


class Reading:
    """Some files being read."""

    def __init__(self, files: Iterable[str], order: Order) -> None:
        self.order = order
        self.logs = gather(files)

    def lines(self, width: int, wait: Callable[[], None]) -> Iterator[str]:
        """What is to be printed; a table for so many columns. With `follow`, `wait` is called between two looks, and may raise."""
        order = self.order
        for each in self.logs:
            each.verify(may_come=order.follow)
        if order.per:
            count = self._count(order.per)
            return count.table(width) if order.format == "table" else getattr(count, order.format)()
        found = self._found()
        if order.follow:
            found = chain(found, self._followed(wait))
        if order.format == "json":
            return (line.raw.decode("utf-8", "replace") for line in found)
        shown = order.choice.shown
        return tables.csv(found, shown) if order.format == "csv" else tables.table(found, shown, width)

    def report(self) -> None:
        """Tell of what could not be read, once all that can has been shown."""
        spoilt = {str(each): each.unreadable for each in self.logs if each.unreadable}
        if spoilt:
            count = sum(spoilt.values())
            what = "1 line is no result, and was" if count == 1 else f"{count} lines are no results, and were"
            log.warning("%s left out: %s", what, ", ".join(f"{name} {n}" for name, n in spoilt.items()))

    def _count(self, period: tables.Period) -> tables.Count:
        count, choice = tables.Count(period), self.order.choice
        for each in self.logs:
            count.add(chosen(each.lines(), each, choice), choice.names if choice.by_answer else Line.labels)
        return count

    def _found(self) -> Iterator[Line]:
        order = self.order
        found = merged({each: self._chosen(each, each.lines(follow=order.follow)) for each in self.logs})
        last = order.last
        if order.follow and last is None and not order.choice.since:
            last = FOLLOWED_FIRST
        return found if last is None else iter(deque(found, last))

    def _followed(self, wait: Callable[[], None]) -> Iterator[Line]:
        while any(each.grows for each in self.logs):
            wait()
            for each in self.logs:
                yield from self._chosen(each, each.more())

    def _chosen(self, source: Log, blocks: Iterable[Block]) -> Iterator[Line]:
        for line in chosen(blocks, source, self.order.choice):
            if self.order.format == "json" or line.is_json():
                yield line
            else:
                source.unreadable += 1


def chosen(blocks: Iterable[Block], source: Log, choice: Choice) -> Iterator[Line]:
    """The results that were asked for. Lines that are none are counted as the source's `unreadable`.

    A line of our own form whose time or labels do not fit is passed over unread: whether it is damaged further on is not known.
    """
    since, until, cameras = choice.since, choice.until, set(map(encoded, choice.cameras))
    by_answer, needles = choice.by_answer, [b'"%b"' % label for label in choice.wanted]
    sieved = bool(since or until or needles)
    for block in blocks:
        clean = is_clean(block)
        for raw in block.split(b"\n"):
            if sieved and clean and raw.startswith(START) and raw.endswith(b"}") and raw[ZONE_AT] == b'Z"':
                time = raw[TIME_AT]
                if time < since or (until and time >= until):
                    continue
                if needles and not any(needle in raw for needle in needles):
                    continue
            line = read_line(raw, clean=clean)
            if line is None:
                source.unreadable += bool(raw.strip())
            elif line.time < since or (until and line.time >= until) or (cameras and line.camera not in cameras):
                continue
            elif not by_answer or choice.names(line):
                yield line


def merged(found: dict[Log, Iterator[Line]]) -> Iterator[Line]:
    """The results of several logs in the order of their times, as far as each log is in order itself.

    Each log is opened when its time comes, so that many that follow one another are not all open at once.
    """
    waiting = deque(found.items())
    if len(waiting) > 1:
        first = {each: _time(each) for each in found}
        waiting = deque(sorted(found.items(), key=lambda item: first[item[0]]))
    heads: list[tuple[bytes, int, Line, Iterator[Line]]] = []
    opened = 0
    while waiting or heads:
        while waiting and (not heads or first[waiting[0][0]] <= heads[0][0]):
            lines = waiting.popleft()[1]
            opened += 1
            head = next(lines, None)
            if head:
                heapq.heappush(heads, (head.time, opened, head, lines))
        if len(heads) == 1 and not waiting:
            yield heads[0][2]
            yield from heads[0][3]
            return
        if heads:
            _, number, line, lines = heads[0]
            yield line
            head = next(lines, None)
            if head:
                heapq.heapreplace(heads, (head.time, number, head, lines))
            else:
                heapq.heappop(heads)


def moment(text: str, now: datetime | None = None) -> bytes:
    """A time that a person gives, `2026-11-22`, `2026-11-22T13:28+01:00`, or an age, `2h`. Raise ValueError with words."""
    try:
        return canonical(text)
    except ValueError:
        pass
    try:
        age = timedelta(seconds=AGE.parse(text))
        return utc((now or datetime.now(timezone.utc)) - age)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"'{text}' is no time: a date (2026-11-22), a date and time (2026-11-22T13:28:00Z), or an age (90s, 30m, 2h, 7d)"
        ) from error


def _time(source: Log) -> bytes:
    line = read_as_json(source.begins())
    return line.time if line else b""
