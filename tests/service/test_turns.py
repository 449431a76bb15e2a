"""Whose turn it is, with cameras that are made up, and with real ones."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runner.camera.base import CameraConfig
from edge_runner.camera.feed import Feed, make_feed
from edge_runner.camera.images import ImagesConfig
from edge_runner.camera.pattern import PatternConfig
from edge_runner.frame import Geometry, Shot, Stamp, TensorSpec
from edge_runner.model.preprocess import Preprocessor, Recipe
from edge_runner.service import turns as subject
from edge_runner.service.turns import PATIENCE_S, Turns

PATIENCE = 30.0  # seconds, before a test gives up
RED = np.zeros((1, 1, 3), np.uint8)


class Made(Feed):
    """A camera whose frames come when the test says so. Asked for one, it answers at once, or never while it is `silent`."""

    live = True

    def __init__(self, name: str, *, frames: int = 0, silent: bool = False, **settings: Any) -> None:
        super().__init__(CameraConfig(type="made", name=name, **settings))
        self.frames, self.silent = frames, silent
        self.wanted = self.polled = self.number = 0
        self.date: float | None = None
        self._asked = self._answered = False
        self._read, self._write = os.pipe()

    def __enter__(self) -> Made:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._read)
        os.close(self._write)

    def sources(self) -> list[int]:
        return [self._read]

    def poll(self) -> float | None:
        self.polled += 1
        return self.date

    @property
    def offers(self) -> bool:
        return self.frames > 0 and not self._asked

    @property
    def ready(self) -> bool:
        return self._answered

    def want(self) -> None:
        assert self.offers, "it was asked for a frame that it does not have"
        self.wanted += 1
        self._asked = True
        if not self.silent:
            self.answer()

    def answer(self) -> None:
        """The frame that it was asked for has been prepared."""
        self._answered = True
        os.write(self._write, b"\0")

    def take(self) -> Shot | None:
        assert self._answered, "it is not ready"
        os.read(self._read, 1)
        self.number, self.frames = self.number + 1, self.frames - 1
        self._asked = self._answered = False
        return Shot(self.name, RED, RED, Geometry(1, 1), Stamp(self.number, 0, 0))

    def release(self, shot: Shot) -> None:
        pass


class MadeFile(Made):
    """A file of so many frames, which are read ahead; after them it ends."""

    live = False

    @property
    def offers(self) -> bool:
        return not self._asked

    def want(self) -> None:
        if self.offers:
            super().want()

    def take(self) -> Shot | None:
        return super().take() if self.frames else None


@pytest.fixture
def made() -> Iterator[Callable[..., dict[str, Feed]]]:
    """Keep made up cameras under their names; they are closed at the end."""
    kept: list[Made] = []

    def keep(*feeds: Made) -> dict[str, Feed]:
        kept.extend(feeds)
        return {feed.name: feed for feed in feeds}

    yield keep
    for feed in kept:
        feed.__exit__()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """The time that Turns see goes on only while they wait, and by just as much as they were ready to."""
    now = [1000.0]
    real = subject.select.select

    def select(reading: list[int], writing: list[int], failing: list[int], timeout_s: float | None = None) -> Any:
        found = real(reading, writing, failing, 0)
        if not found[0]:
            assert timeout_s is not None, "it would wait for ever"
            now[0] += timeout_s
        return found

    monkeypatch.setattr(subject.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(subject.select, "select", select)
    return lambda: now[0]


def serve(turns: Turns, most: int, now: Callable[[], float] = time.monotonic, until_s: float = PATIENCE) -> list[str]:
    """Serve so many shots as the daemon does; return whose they were."""
    order: list[str] = []
    until = now() + until_s
    while len(order) < most and (lane := turns.next(until=until)):
        shot = lane.feed.take()
        if shot is None:
            turns.end(lane)
            continue
        lane.turn(now())
        order.append(shot.camera)
        lane.feed.release(shot)
    return order


class TestFairness:
    def test_in_turn(self, made: Any) -> None:
        """Cameras that always have a frame are served one after the other, whatever their number."""
        for count in (1, 2, 3, 7):
            feeds = made(*(Made(str(n), frames=99) for n in range(count)))
            order = serve(Turns(feeds), 5 * count)
            assert order == [str(n) for n in range(count)] * 5

    def test_fast_one_takes_what_the_slow_ones_leave(self, made: Any) -> None:
        """A slow camera is served at every frame that it has, at the next turn but one; a fast one has all the rest."""
        slow = [Made(f"slow {n}") for n in range(3)]
        turns = Turns(made(Made("fast", frames=1000), *slow))
        order = []
        for round_ in range(20):
            for feed in slow:
                feed.frames = 1
            order += serve(turns, 8)
            assert all(feed.frames == 0 for feed in slow), f"starved in round {round_}"
        assert Counter(order) == {"fast": 100, "slow 0": 20, "slow 1": 20, "slow 2": 20}
        waits = [order[start : start + 8].index(feed.name) for start in range(0, 160, 8) for feed in slow]
        assert max(waits) <= 3

    def test_longest_unserved_first(self, made: Any) -> None:
        """Of several that have a frame, the one comes first that was served longest ago."""
        a, b, c = Made("a", frames=1), Made("b", frames=1), Made("c", frames=1)
        turns = Turns(made(a, b, c))
        assert serve(turns, 3) == ["a", "b", "c"]
        b.frames = 1
        assert serve(turns, 1) == ["b"]
        a.frames = b.frames = c.frames = 1
        assert serve(turns, 3) == ["a", "c", "b"]

    def test_asked_one_at_a_time(self, made: Any) -> None:
        """A live camera is asked for a frame when it is its turn, so that none grows old while another's is worked on."""
        a, b = Made("a", frames=9), Made("b", frames=9)
        turns = Turns(made(a, b))
        lane = turns.next()
        assert lane is not None
        assert (lane.feed, a.wanted, b.wanted) == (a, 1, 0)
        a.take()
        lane.turn(time.monotonic())
        lane = turns.next()
        assert lane is not None
        assert (lane.feed, a.wanted, b.wanted) == (b, 1, 1)


class TestMaxFps:
    def test_each_its_own(self, made: Any, clock: Any) -> None:
        """`max_fps` bounds each camera by itself."""
        feeds = made(Made("five", frames=999, max_fps=5), Made("two", frames=999, max_fps=2))
        order = serve(Turns(feeds), 999, clock, until_s=9.9)
        assert Counter(order) == {"five": 50, "two": 20}

    def test_leaves_the_rest_to_the_others(self, made: Any) -> None:
        """A camera that may not yet be served holds no other up."""
        feeds = made(Made("seldom", frames=999, max_fps=0.001), Made("often", frames=999))
        order = serve(Turns(feeds), 100)
        assert Counter(order) == {"seldom": 1, "often": 99}

    def test_no_frame_is_asked_for_too_early(self, made: Any, clock: Any) -> None:
        """A live frame is asked for when it may be used, not before: it would be old by then."""
        camera = Made("camera", frames=9, max_fps=2)
        turns = Turns(made(camera))
        assert serve(turns, 1, clock) == ["camera"]
        assert turns.next(until=clock() + 0.4) is None
        assert camera.wanted == 1
        assert turns.next(until=clock() + 0.2) is not None
        assert camera.wanted == 2

    def test_of_a_file(self, made: Any, clock: Any) -> None:
        """A file is slowed too, and loses nothing."""
        turns = Turns(made(MadeFile("file", frames=10, max_fps=5)))
        started = clock()
        assert serve(turns, 99, clock) == ["file"] * 10
        assert clock() - started >= 9 / 5
        assert turns.lanes == []


class TestSilence:
    def test_holds_the_others_for_a_moment_only(self, made: Any, clock: Any) -> None:
        """A camera that was asked and says nothing holds the others for PATIENCE_S, once, and no longer."""
        silent = Made("silent", frames=1, silent=True)
        turns = Turns(made(silent, Made("good", frames=999)))
        started = clock()
        assert serve(turns, 1, clock) == ["good"]
        assert clock() - started == pytest.approx(PATIENCE_S)
        assert serve(turns, 50, clock) == ["good"] * 50
        assert clock() - started == pytest.approx(PATIENCE_S)
        assert silent.wanted == 1

    def test_is_served_when_it_answers(self, made: Any) -> None:
        """When its frame comes at last, it is its turn: it was served longest ago."""
        silent = Made("silent", frames=1, silent=True)
        turns = Turns(made(silent, Made("good", frames=999)))
        assert serve(turns, 3) == ["good"] * 3
        silent.answer()
        assert serve(turns, 2) == ["silent", "good"]

    def test_several_silent_ones(self, made: Any, clock: Any) -> None:
        """Each of them costs its moment, and no more than once: the one that is well goes on at its full rate."""
        silent = [Made(f"silent {n}", frames=1, silent=True) for n in range(3)]
        turns = Turns(made(*silent, Made("good", frames=999)))
        started = clock()
        assert serve(turns, 200, clock) == ["good"] * 200
        assert clock() - started <= 3 * PATIENCE_S + 0.01


class TestWaiting:
    def test_until(self, made: Any) -> None:
        """Where no frame comes, it returns at the time that was given, and not before."""
        turns = Turns(made(Made("camera")))
        until = time.monotonic() + 0.05
        assert turns.next(until=until) is None
        assert time.monotonic() >= until

    def test_until_that_has_come(self, made: Any) -> None:
        """A shot that is ready is given, though the time has come."""
        turns = Turns(made(Made("camera", frames=1)))
        assert turns.next(until=time.monotonic() - 1) is not None

    def test_beside(self, made: Any) -> None:
        """What is waited for beside the cameras comes first, though they have frames."""
        turns = Turns(made(Made("camera", frames=9)))
        reader, writer = os.pipe()
        try:
            assert turns.next([reader]) is not None
            os.write(writer, b"\0")
            assert turns.next([reader]) is None
            os.read(reader, 1)
            assert turns.next([reader]) is not None
        finally:
            os.close(reader)
            os.close(writer)

    def test_beside_while_nothing_comes(self, made: Any) -> None:
        """A signal is heard while no camera has anything."""
        turns = Turns(made(Made("camera", max_fps=0.001), MadeFile("file", frames=1, silent=True)))
        reader, writer = os.pipe()
        try:
            os.write(writer, b"\0")
            assert turns.next([reader]) is None
        finally:
            os.close(reader)
            os.close(writer)

    def test_polls_when_it_is_due(self, made: Any, clock: Any) -> None:
        """A feed that has something to do at a time is called at that time."""
        camera = Made("camera")
        camera.date = clock() + 3
        turns = Turns(made(camera))
        seen = []
        camera.poll = lambda: seen.append(clock()) or (camera.date if clock() < camera.date else None)  # type: ignore[method-assign]
        turns.next(until=clock() + 10)
        assert camera.date in [pytest.approx(at) for at in seen]
        assert len(seen) <= 4

    def test_does_not_spin(self, made: Any, clock: Any) -> None:
        """A shot that is ready and not yet due is waited for asleep."""
        file = MadeFile("file", frames=9, max_fps=0.1)
        turns = Turns(made(file, Made("camera")))
        assert serve(turns, 3, clock) == ["file"] * 3
        assert file.polled < 20

    def test_without_cameras(self) -> None:
        """Where every file has ended, there is nothing to wait for."""
        assert Turns({}).next() is None


class TestFiles:
    def test_end_of_one_of_two(self, made: Any) -> None:
        """A file that ends goes, and the other has all of its frames, each in order."""
        turns = Turns(made(MadeFile("short", frames=2), MadeFile("long", frames=9)))
        order = serve(turns, 99)
        assert Counter(order) == {"short": 2, "long": 9}
        assert order[:4] == ["short", "long", "short", "long"]
        assert turns.lanes == []

    def test_beside_a_live_camera(self, made: Any) -> None:
        """File and camera take turns, and a file that has ended leaves the camera going."""
        turns = Turns(made(MadeFile("file", frames=5), Made("live", frames=99)))
        order = serve(turns, 40)
        assert Counter(order) == {"file": 5, "live": 35}
        assert Counter(order[:10]) == {"file": 5, "live": 5}

    def test_beside_a_silent_camera(self, made: Any, clock: Any) -> None:
        """A camera that answers nothing does not hold a file up at all."""
        turns = Turns(made(Made("silent", frames=1, silent=True), MadeFile("file", frames=9)))
        started = clock()
        assert serve(turns, 9, clock, until_s=PATIENCE_S / 2) == ["file"] * 9
        assert clock() == started


def opened(cameras: Mapping[str, Any]) -> dict[str, Feed]:
    """Real feeds, not entered yet."""
    prepare = Preprocessor(Recipe("rgb", (0.0,), (1.0,)), TensorSpec("x", (1, 8, 8, 3), "float32"))
    return {name: make_feed(config, prepare) for name, config in cameras.items()}


def pattern(name: str, fps: float, **settings: Any) -> PatternConfig:
    return PatternConfig(name=name, width=64, height=48, fps=fps, **settings)


class Watched(Turns):
    """Keeps each camera's shots, as numbers with the frames that were dropped before."""

    def __init__(self, feeds: Mapping[str, Feed]) -> None:
        super().__init__(feeds)
        self.taken: dict[str, list[tuple[int, int | None]]] = {name: [] for name in feeds}

    def serve(self, enough: Callable[[], bool]) -> None:
        while not enough() and self.lanes:
            lane = self.next(until=time.monotonic() + PATIENCE)
            assert lane is not None, f"nothing came for {PATIENCE:g} s: {self.taken}"
            shot = lane.feed.take()
            if shot is None:
                self.end(lane)
                continue
            lane.turn(time.monotonic())
            self.taken[shot.camera].append((shot.stamp.number, shot.dropped))
            lane.feed.release(shot)


@pytest.mark.usefixtures("nothing_left")
class TestRealCameras:
    def test_one_fast_three_slow(self) -> None:
        """Beside a camera that always has a frame, slow ones lose next to none of theirs; all are counted."""
        slow = {f"slow {n}": pattern(f"slow {n}", 10) for n in range(3)}
        feeds = opened({"fast": pattern("fast", 500), **slow})
        turns = Watched(feeds)
        with feeds["fast"], feeds["slow 0"], feeds["slow 1"], feeds["slow 2"]:
            turns.serve(lambda: all(len(turns.taken[name]) >= 10 for name in feeds))
        for name, taken in turns.taken.items():
            assert taken[-1][0] == len(taken) + sum(dropped or 0 for _, dropped in taken), name
        for name in slow:
            taken = turns.taken[name]
            assert sum(not dropped for _, dropped in taken) >= 0.7 * len(taken), f"{name}: {taken}"
        assert len(turns.taken["fast"]) > max(len(turns.taken[name]) for name in slow)

    def test_equals_share(self) -> None:
        """Cameras that all have more frames than can be served get about the same share."""
        feeds = opened({name: pattern(name, 1000) for name in ("a", "b")})
        turns = Watched(feeds)
        with feeds["a"], feeds["b"]:
            turns.serve(lambda: all(turns.taken.values()))
            before = {name: len(taken) for name, taken in turns.taken.items()}
            turns.serve(lambda: sum(map(len, turns.taken.values())) >= sum(before.values()) + 200)
        shares = [len(taken) - before[name] for name, taken in turns.taken.items()]
        assert min(shares) >= 60, shares

    def test_goes_on(self) -> None:
        """A fast camera goes on and on: no message between the processes is lost where they cross."""
        feeds = opened({"camera": pattern("camera", 1000)})
        turns = Watched(feeds)
        with feeds["camera"]:
            turns.serve(lambda: len(turns.taken["camera"]) >= 2000)
        numbers = [number for number, _ in turns.taken["camera"]]
        assert numbers == sorted(set(numbers))

    def test_a_file_beside_a_live_camera(self, colours: Path) -> None:
        """The file's frames come complete and in order, and the camera goes on after them."""
        feeds = opened({"file": ImagesConfig(name="file", path=colours), "live": pattern("live", 100)})
        turns = Watched(feeds)
        with feeds["file"], feeds["live"]:
            turns.serve(lambda: len(turns.lanes) == 1 and len(turns.taken["live"]) >= 5)
        assert turns.taken["file"] == [(1, None), (2, None), (3, None)]
        assert [lane.key for lane in turns.lanes] == ["live"]

    def test_a_camera_that_has_no_frame(self) -> None:
        """A camera whose next frame is far away holds no other up."""
        feeds = opened({"seldom": pattern("seldom", 0.01), "often": pattern("often", 100)})
        turns = Watched(feeds)
        with feeds["seldom"], feeds["often"]:
            turns.serve(lambda: bool(turns.taken["seldom"]) and len(turns.taken["often"]) >= 30)
        assert len(turns.taken["seldom"]) == 1


def test_a_late_answer_makes_no_other_stale(made: Callable[..., dict[str, Feed]], clock: Callable[[], float]) -> None:
    """A camera that answers late is served; no other is asked meanwhile, whose frame would be old before its turn came."""
    slow, other = Made("slow", frames=5, silent=True), Made("other")
    turns = Turns(made(slow, other))
    assert turns.next(until=clock() + 2 * PATIENCE_S) is None
    slow.answer()
    other.frames = 5
    lane = turns.next()
    assert lane is not None
    assert lane.key == "slow"
    assert other.wanted == 0


class TestChanges:
    """What a reload changes, while cameras go on."""

    def test_dates_go_on(self, made: Any, clock: Any) -> None:
        """A camera that goes on is not served sooner for it, under another key neither; a new one begins at once."""
        stays, goes, comes = Made("stays", frames=9, max_fps=1), Made("goes", frames=9), Made("comes", frames=9)
        feeds = made(stays, goes, comes)
        before = Turns({"camera": stays, "other": goes})
        serve(before, 6, clock)
        after = Turns({"cameras.a": stays, "cameras.b": comes}, before.lanes)
        assert [(lane.key, lane.feed) for lane in after.lanes] == [("cameras.a", stays), ("cameras.b", comes)]
        old, new = before.lanes[0], after.lanes[0]
        assert (new.due, new.served, new.asked) == (old.due, old.served, old.asked)
        assert after.lanes[1].due == clock()
        assert set(feeds) == {"stays", "goes", "comes"}

    def test_a_file_that_has_ended(self, made: Any) -> None:
        """It does not begin again because something else was changed."""
        file = MadeFile("file", frames=1)
        made(file)
        file.ended = True
        assert Turns({"camera": file}).lanes == []

    def test_idle(self, made: Any, clock: Any) -> None:
        """Cameras are kept up and no frame is taken, until the time has come, or something beside them."""
        camera = Made("camera", frames=9)
        turns = Turns(made(camera))
        turns.idle([], clock() + 2)
        assert (camera.polled, camera.number) == (1, 0)
        camera.date = clock() + 0.5
        before = clock()
        turns.idle([], clock() + 2)
        assert clock() - before == pytest.approx(0.5)
        reader, writer = os.pipe()
        os.write(writer, b"x")
        before = clock()
        turns.idle([reader], clock() + 2)
        assert clock() == before
        os.close(reader)
        os.close(writer)

    def test_refresh(self, made: Any) -> None:
        """After a pause what a live camera showed before it is thrown away; a file loses nothing."""
        live, file = Made("live", frames=9), MadeFile("file", frames=9)
        turns = Turns(made(live, file))
        assert turns.next() is not None
        while not (live.ready and file.ready):
            live.want() if live.offers else None
        turns.refresh()
        assert (live.ready, live.number) == (False, 1)
        assert (file.ready, file.number) == (True, 0)
