"""Whose turn it is: every camera is served as often as it has frames, and none waits for another that has more, or has died."""

from __future__ import annotations

import select
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from edge_runner.camera.feed import Feed

PATIENCE_S = 0.5  # for a camera that was asked for a frame, before another one is asked as well


@dataclass
class Lane:
    """One camera's feed, under its configuration `key`, and when it was served last; times are time.monotonic's seconds."""

    key: str
    feed: Feed
    due: float = 0.0
    served: float = 0.0
    asked: float = 0.0

    def turn(self, now: float) -> None:
        """It is served: max_fps says when it may be again."""
        interval_s = 1 / self.feed.config.max_fps if self.feed.config.max_fps else 0.0
        self.due = self.due + interval_s if self.due + interval_s > now else now + interval_s
        self.served = now


class Turns:
    """The cameras that are served by one model, and whatever else is waited for beside them."""

    def __init__(self, feeds: Mapping[str, Feed], before: Iterable[Lane] = ()) -> None:
        """`before` are the lanes until now: of feeds that go on, their dates go on."""
        known = {id(lane.feed): lane for lane in before}
        self.lanes = [
            replace(known.get(id(feed)) or Lane(key, feed, due=time.monotonic()), key=key)
            for key, feed in feeds.items()
            if not feed.ended
        ]

    def end(self, lane: Lane) -> None:
        """Its file has come to an end."""
        self.lanes.remove(lane)

    def next(self, beside: Iterable[int] = (), until: float | None = None) -> Lane | None:
        """Wait for a shot: the lane that has one, and of several the one that was served longest ago.

        None once a descriptor `beside` them is readable, or the time `until` has come (time.monotonic's seconds).
        """
        beside = list(beside)
        while self.lanes:
            dates = [date for lane in self.lanes if (date := lane.feed.poll()) is not None]
            now = time.monotonic()
            self._want(now)
            if select.select(beside, [], [], 0)[0]:
                return None
            if shown := [lane for lane in self.lanes if lane.feed.ready and lane.due <= now]:
                return min(shown, key=lambda lane: lane.served)
            dates += [date for lane in self.lanes for date in (lane.due, lane.asked + PATIENCE_S) if date > now]
            dates += [until] if until is not None else []
            if until is not None and now >= until:
                return None
            sources = [source for lane in self.lanes if not lane.feed.ready for source in lane.feed.sources()]
            timeout_s = max(0.0, min(dates) - time.monotonic()) if dates else None
            select.select([*beside, *sources], [], [], timeout_s)
        return None

    def idle(self, beside: Iterable[int], until: float) -> None:
        """Take no shot, and keep the cameras open, until a descriptor `beside` them is readable or the time has come."""
        dates = [date for lane in self.lanes if (date := lane.feed.poll()) is not None]
        select.select(list(beside), [], [], max(0.0, min([until, *dates]) - time.monotonic()))

    def refresh(self) -> None:
        """Throw away what live cameras showed before a pause."""
        for lane in self.lanes:
            if lane.feed.live and lane.feed.ready and (shot := lane.feed.take()):
                lane.feed.release(shot)

    def _want(self, now: float) -> None:
        """Files read ahead. Of the live cameras, one at a time is asked for its frame, so that it is the newest once it is used."""
        live = []
        for lane in self.lanes:
            if lane.feed.live:
                live.append(lane)
            else:
                lane.feed.want()
        if any(lane.feed.ready or (lane.served < lane.asked and now < lane.asked + PATIENCE_S) for lane in live):
            return
        offering = [lane for lane in live if lane.feed.offers and lane.due <= now]
        if offering:
            lane = min(offering, key=lambda lane: lane.served)
            lane.asked = now
            lane.feed.want()
