"""The way from a camera to the pipeline."""

from __future__ import annotations

import select
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runner.camera.base import Camera, CameraConfig, Grab, now
from edge_runner.camera.feed import SLOTS_AHEAD, ThreadFeed, make_feed
from edge_runner.camera.images import ImagesConfig
from edge_runner.camera.pattern import PatternConfig
from edge_runner.errors import CameraError
from edge_runner.frame import Enough, Picture, Stamp, TensorSpec
from edge_runner.model.preprocess import Preprocessor, Recipe


class Numbered(Camera):
    """A file of `frames` frames; every pixel of frame n is n. Those in `damaged` cannot be decoded."""

    def __init__(
        self,
        frames: int = 10,
        *,
        damaged: tuple[int, ...] = (),
        fails_at: int = 0,
        size: tuple[int, int] = (12, 16),
        **view: Any,
    ) -> None:
        super().__init__(CameraConfig(type="test", name="test", **view))
        self.frames, self.damaged, self.fails_at, self.size = frames, damaged, fails_at, size
        self.number = self.opened = self.closed = 0

    def open(self) -> None:
        self.opened += 1

    def close(self) -> None:
        self.closed += 1

    def grab(self) -> Grab | None:
        self.number += 1
        if self.number == self.fails_at:
            raise CameraError("the cable was pulled")
        return Number(now(self.number, "test"), self) if self.number <= self.frames else None

    def picture(self, number: int, into: Picture | None) -> Picture | None:
        if number in self.damaged:
            self.skipped += 1
            return None
        if into is None or into.shape[:2] != self.size:
            into = np.empty((*self.size, 3), np.uint8)
        into[:] = number
        return into


class Number(Grab):
    """A frame of `Numbered`."""

    def __init__(self, stamp: Stamp, camera: Numbered) -> None:
        super().__init__(stamp)
        self.camera = camera

    def decode(self, into: Picture | None, enough: Enough | None = None) -> Picture | None:
        assert enough is None, "a file's pictures are whole"
        return self.camera.picture(self.stamp.number, into)


def test_order_and_completeness(shots: Any) -> None:
    """A file's frames come in order, each once, none dropped, each with its own input."""
    taken = shots(Numbered(frames=50))
    assert [shot.stamp.number for shot, _ in taken] == list(range(1, 51))
    assert [int(picture[0, 0, 0]) for _, picture in taken] == list(range(1, 51))
    assert all(shot.dropped is None for shot, _ in taken)
    assert all(set(shot.timing_ms) == {"capture", "preprocess"} for shot, _ in taken)


def test_input_belongs_to_its_frame(shrink: Any) -> None:
    """The prepared input is that of the same frame as the picture."""
    with ThreadFeed(Numbered(frames=20), shrink) as feed:
        while True:
            feed.want()
            shot = feed.take()
            if shot is None:
                break
            assert set(shot.input.flat) == {shot.stamp.number} == set(shot.picture.flat)
            feed.release(shot)


def test_damaged_frames_are_passed_over(shots: Any) -> None:
    """A frame that cannot be decoded costs its own number only."""
    camera = Numbered(frames=6, damaged=(1, 3, 6))
    assert [shot.stamp.number for shot, _ in shots(camera)] == [2, 4, 5]
    assert camera.skipped == 3


def test_nothing_is_overwritten_before_release(shrink: Any) -> None:
    """As many frames as there are slots are read ahead; each holds until it is given back."""
    camera = Numbered(frames=40)
    with ThreadFeed(camera, shrink) as feed:
        feed.want()
        held = [feed.take() for _ in range(SLOTS_AHEAD)]
        feed.want()
        time.sleep(0.05)
        assert camera.number == SLOTS_AHEAD
        assert not select.select(feed.sources(), [], [], 0)[0]
        assert [set(shot.picture.flat) for shot in held if shot] == [{n} for n in range(1, SLOTS_AHEAD + 1)]
        released = held[1]
        assert released is not None
        feed.release(released)
        feed.want()
        newest = feed.take()
        assert newest is not None
        assert np.shares_memory(newest.picture, released.picture)
        assert set(newest.picture.flat) == {SLOTS_AHEAD + 1}
        assert [int(shot.picture[0, 0, 0]) for shot in held if shot] == [1, SLOTS_AHEAD + 1, 3, 4]


def test_waits_on_its_descriptor(shrink: Any) -> None:
    """Its descriptor is readable, and it is ready, exactly when there is something to take: a shot, or the end."""
    with ThreadFeed(Numbered(frames=1), shrink) as feed:
        assert not select.select(feed.sources(), [], [], 0.05)[0]
        assert not feed.ready
        feed.want()
        assert select.select(feed.sources(), [], [], 5)[0]
        assert feed.ready
        assert feed.take() is not None
        assert select.select(feed.sources(), [], [], 5)[0]
        assert feed.ready
        assert feed.take() is None
        assert not select.select(feed.sources(), [], [], 0)[0]
        assert not feed.ready


def test_offers_while_a_slot_is_free(shrink: Any) -> None:
    """A file can be asked for more until every slot is on its way or taken, and again once one was given back."""
    with ThreadFeed(Numbered(), shrink) as feed:
        assert feed.offers
        feed.want()
        assert not feed.offers
        shot = feed.take()
        assert shot is not None
        assert not feed.offers
        feed.release(shot)
        assert feed.offers
        assert feed.poll() is None


def test_error_is_raised_where_it_can_be_acted_on(shrink: Any) -> None:
    """What the camera raises, take() raises, after the frames before it; the camera is closed."""
    camera = Numbered(frames=10, fails_at=3)
    with ThreadFeed(camera, shrink) as feed:
        feed.want()
        assert [shot.stamp.number for shot in (feed.take(), feed.take()) if shot] == [1, 2]
        with pytest.raises(CameraError, match="the cable was pulled"):
            feed.take()
    assert camera.closed


def test_error_of_opening(shrink: Any) -> None:
    """A camera that does not open says so in take()."""
    camera = Numbered()
    camera.open = lambda: (_ for _ in ()).throw(CameraError("busy"))  # type: ignore[method-assign]
    with ThreadFeed(camera, shrink) as feed:
        feed.want()
        with pytest.raises(CameraError, match="busy"):
            feed.take()


def test_error_of_preparing(shots: Any, monkeypatch: pytest.MonkeyPatch, shrink: Any) -> None:
    """An error of any kind comes through, not only a camera's own."""

    def fail(*_: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(type(shrink), "__call__", fail)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        shots(Numbered())


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("taken", [0, 1, 3, 9])
def test_close_leaves_nothing(shrink: Any, taken: int) -> None:
    """Closing in the middle ends the thread, closes the camera and both descriptors, and can be done twice."""
    camera = Numbered(frames=20)
    for _ in range(5):
        camera.number = 0
        feed = ThreadFeed(camera, shrink)
        with feed:
            feed.want()
            for _ in range(taken):
                shot = feed.take()
                assert shot is not None
                feed.release(shot)
                feed.want()
            assert "camera-test" in {thread.name for thread in threading.enumerate()}
        feed.__exit__()
    assert (camera.opened, camera.closed) == (5, 5)


@pytest.mark.usefixtures("nothing_left")
def test_close_after_an_error(shrink: Any) -> None:
    """An error, and the end, leave nothing behind either."""
    with ThreadFeed(Numbered(frames=0), shrink) as feed:
        feed.want()
        assert feed.take() is None
    with ThreadFeed(Numbered(fails_at=1), shrink) as feed:
        feed.want()
        with pytest.raises(CameraError):
            feed.take()


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", ["none", "horizontal", "vertical"])
def test_pictures_are_upright(shots: Any, rotate: int, flip: str) -> None:
    """The feed hands out the upright frame, and prepares it, not the camera's own."""
    camera = Numbered(frames=3, rotate=rotate, flip=flip, crop=(0.5, 0, 0.5, 1))

    own = np.zeros((12, 16, 3), np.uint8)
    own[:3, :4] = 200
    camera.picture = lambda number, into: own  # type: ignore[method-assign]
    for shot, picture in shots(camera):
        turned = np.rot90(own, -rotate // 90)
        turned = {"none": turned, "horizontal": turned[:, ::-1], "vertical": turned[::-1]}[flip]
        assert np.array_equal(picture, turned)
        assert (shot.geometry.width, shot.geometry.height) == turned.shape[1::-1]
        assert shot.input.max() == turned[:, turned.shape[1] // 2 :].max()


@pytest.mark.parametrize("view", [{}, {"rotate": 90, "flip": "vertical"}])
def test_steady_state_allocates_no_pictures(shrink: Any, view: dict[str, Any]) -> None:
    """Once every slot has its buffers, nothing of a picture's size is allocated any more."""
    size = (480, 640)
    with ThreadFeed(Numbered(frames=60, size=size, **view), shrink) as feed:

        def turn(times: int) -> None:
            for _ in range(times):
                feed.want()
                shot = feed.take()
                assert shot is not None
                feed.release(shot)

        turn(2 * SLOTS_AHEAD)
        tracemalloc.start()
        try:
            turn(30)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < size[0] * size[1]


def test_frame_size_may_change(shots: Any) -> None:
    """Pictures of another size get buffers of their own."""
    camera = Numbered(frames=8, rotate=90)
    inner = camera.picture

    def picture(number: int, into: Picture | None) -> Picture | None:
        camera.size = (12, 16) if number % 2 else (20, 10)
        return inner(number, into)

    camera.picture = picture  # type: ignore[method-assign]
    assert [taken.shape for _, taken in shots(camera)] == [(16, 12, 3), (10, 20, 3)] * 4


def test_can_be_entered_again(colours: Path, shrink: Any) -> None:
    """A feed that was left, in the middle or at its end, begins anew."""
    feed = make_feed(ImagesConfig(path=colours), shrink)
    for most in (1, 10, 10):
        with feed:
            sources = []
            while len(sources) < most:
                feed.want()
                shot = feed.take()
                if shot is None:
                    break
                sources.append(shot.stamp.source)
                feed.release(shot)
        assert sources == ["1.png", "2.png", "3.png"][:most]


def test_type_chooses_the_feed(colours: Path) -> None:
    """A file is read here and drops nothing; a live camera is not, and drops frames to stay fresh. Neither is opened yet."""
    prepare = Preprocessor(Recipe("rgb", (0.0,), (1.0,)), TensorSpec("x", (1, 8, 8, 3), "float32"))
    file = make_feed(ImagesConfig(name="still", path=colours), prepare)
    live = make_feed(PatternConfig(name="moving"), prepare)
    assert (type(file).__name__, file.live, file.name) == ("ThreadFeed", False, "still")
    assert (type(live).__name__, live.live, live.name) == ("LiveFeed", True, "moving")
    assert "camera-still" not in {thread.name for thread in threading.enumerate()}


def test_shots_name_their_camera(shots: Any) -> None:
    """A shot says whose it is."""
    assert [shot.camera for shot, _ in shots(Numbered(frames=2))] == ["test", "test"]


def test_each_feed_prepares_for_itself(colours: Path) -> None:
    """What prepares the input is copied for each feed: its buffers serve one thread at a time."""
    prepare = Preprocessor(Recipe("rgb", (0.0,), (1.0,)), TensorSpec("x", (1, 8, 8, 3), "float32"))
    feeds = [make_feed(ImagesConfig(path=colours), prepare) for _ in range(2)]
    with feeds[0], feeds[1]:
        for feed in feeds:
            feed.want()
            assert feed.take() is not None
    assert prepare._scratch == {}, "the original was used"


def test_loop_ends_where_the_pictures_vanish(colours: Path, shrink: Any) -> None:
    """A loop over pictures that cannot be read any more ends, and does not spin."""
    feed = make_feed(ImagesConfig(path=colours, loop=True), shrink)
    with feed:
        feed.want()
        assert feed.take() is not None
        for path in colours.iterdir():
            path.unlink()
        for _ in range(20):
            shot = feed.take()
            if shot is None:
                return
            feed.release(shot)
            feed.want()
    pytest.fail("it goes on")
