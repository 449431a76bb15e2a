"""The test picture that moves."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from edge_runner.camera.base import Grab
from edge_runner.camera.live import LiveFeed
from edge_runner.camera.pattern import BARS, Pattern, PatternConfig, still
from edge_runner.frame import Picture, TensorSpec
from edge_runner.model.preprocess import Preprocessor, Recipe
from edge_runner.service.turns import Turns

Shots = Callable[..., list[tuple[Any, Picture]]]


def config(**settings: Any) -> PatternConfig:
    return PatternConfig(**{"name": "test", "width": 64, "height": 48, **settings})


def camera(**settings: Any) -> Pattern:
    return Pattern(config(**settings))


def live(**settings: Any) -> LiveFeed:
    """The camera in a worker process, as the daemon has it."""
    prepare = Preprocessor(Recipe("rgb", (0.0,), (1.0,)), TensorSpec("x", (1, 8, 8, 3), "float32"))
    return LiveFeed(config(**settings), prepare)


def grabbed(subject: Pattern) -> Grab:
    grab = subject.grab()
    assert grab is not None
    return grab


def decoded(grab: Grab) -> Picture:
    picture = grab.decode(None)
    assert picture is not None
    return picture


@pytest.mark.parametrize("size", [(16, 16), (65, 47), (640, 480)])
def test_size(size: tuple[int, int]) -> None:
    """Frames have the size that was asked for."""
    width, height = size
    with camera(width=width, height=height, fps=1000) as subject:
        picture = decoded(grabbed(subject))
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8


def test_bars_and_ramp() -> None:
    """Eight bars of full colour stand over a ramp from black to white."""
    picture = still(640, 480)
    assert [tuple(picture[0, 40 + 80 * k]) for k in range(8)] == list(BARS)
    ramp = picture[-1, :, 0].astype(int)
    assert (ramp[0], ramp[-1]) == (0, 255)
    assert (np.diff(ramp) >= 0).all()


def test_numbers_follow_the_clock() -> None:
    """A frame's number is that of the moment at which it is taken: those in between are gone."""
    subject = camera(fps=100)
    with subject:
        first, first_ns = grabbed(subject).stamp, time.monotonic_ns()
        time.sleep(0.2)
        second = grabbed(subject).stamp
        elapsed_s = (time.monotonic_ns() - subject._started_ns) / 1e9
    assert 1 <= first.number <= (first_ns - subject._started_ns) / 1e9 * 100 + 1
    assert 20 <= second.number <= elapsed_s * 100 + 1
    assert 0 <= time.monotonic_ns() - second.monotonic_ns < 30e9
    assert abs((time.time_ns() - second.time_ns) - (time.monotonic_ns() - second.monotonic_ns)) < 10e9


def test_no_frame_twice() -> None:
    """Whoever asks too early waits for the next frame."""
    subject = camera(fps=100)
    started = time.monotonic()
    with subject:
        numbers = [grabbed(subject).stamp.number for _ in range(11)]
    assert numbers == sorted(set(numbers))
    assert time.monotonic() - started >= 0.099


def test_open_begins_anew() -> None:
    """Opened again, it counts from 1 again."""
    subject = camera(fps=1000)
    for _ in range(2):
        with subject:
            time.sleep(0.05)
            opened = time.monotonic()
            subject.open()
            number = grabbed(subject).stamp.number
            assert number <= (time.monotonic() - opened) * 1000 + 1


def test_interrupted_while_it_waits() -> None:
    """A grab that waits for the next frame ends when it is told to, with none."""
    with camera(fps=0.001) as subject:
        grabbed(subject)
        timer = threading.Timer(0.05, subject.interrupt)
        timer.start()
        assert subject.grab() is None
        timer.join()


def test_picture_moves() -> None:
    """No frame is like the one before, even where it is small, nor has it the same fingerprint."""
    with camera(fps=30, width=160, height=120) as subject:
        grabs = [grabbed(subject) for _ in range(4)]
    for before, after in itertools.pairwise(grabs):
        assert (cv2.absdiff(decoded(before), decoded(after)) > 64).any()
    assert len({grab.fingerprint() for grab in grabs}) == 4


def test_a_grab_keeps_its_frame() -> None:
    """A frame that is decoded late is still the one that was grabbed."""
    with camera(fps=1000) as subject:
        first = grabbed(subject)
        early = decoded(first)
        grabbed(subject)
        assert np.array_equal(decoded(first), early)


def test_frames_reuse_their_buffer() -> None:
    """A frame is drawn into the picture that is given, where it has the size."""
    with camera(fps=1000) as subject:
        first = decoded(grabbed(subject))
        assert grabbed(subject).decode(first) is first
        small = np.empty((4, 4, 3), np.uint8)
        other = grabbed(subject).decode(small)
        assert other is not small
        assert other is not None
        assert other.shape == (48, 64, 3)


def test_says_what_was_opened() -> None:
    """The log is told size and rate."""
    assert camera(width=640, height=480, fps=12.5).describe() == "test picture 640x480 at 12.5 a second"


@pytest.mark.usefixtures("nothing_left")
def test_dropped_frames_are_counted() -> None:
    """Every frame of the live camera is either taken or counted as dropped."""
    taken = []
    with live(fps=200) as feed:
        turns = Turns({"camera": feed})
        for pause_s in (0, 0.2, 0, 0.1):
            lane = turns.next(until=time.monotonic() + 60)
            assert lane is not None
            shot = feed.take()
            assert shot is not None
            lane.turn(time.monotonic())
            assert shot.dropped is not None
            taken.append((shot.stamp.number, shot.dropped))
            time.sleep(pause_s)
    assert taken[-1][0] == len(taken) + sum(dropped for _, dropped in taken)
    assert taken[2][1] >= 1
    assert [number - dropped - 1 for number, dropped in taken] == [0, *(number for number, _ in taken[:-1])]


@pytest.mark.usefixtures("nothing_left")
def test_live_frame_is_new_when_it_is_wanted() -> None:
    """A live camera's frame is taken when it is wanted, not read ahead."""
    with live(fps=100) as feed:
        turns = Turns({"camera": feed})
        for _ in range(2):
            time.sleep(0.3)
            asked_ns = time.monotonic_ns()
            while feed._block.figures.newest_ns < asked_ns:
                feed.poll()
                time.sleep(0.001)
            lane = turns.next(until=time.monotonic() + 60)
            assert lane is not None
            shot = feed.take()
            assert shot is not None
            lane.turn(time.monotonic())
            assert shot.stamp.monotonic_ns >= asked_ns


@pytest.mark.usefixtures("nothing_left")
def test_live_picture_is_the_frames(shots: Shots) -> None:
    """What comes from the worker process is the frame of that number, and moves."""
    taken = shots(live(fps=100, width=160, height=120), most=3)
    for shot, picture in taken:
        moving = cv2.absdiff(picture, still(160, 120)).max(axis=2) > 0
        assert moving.any()
        assert moving.mean() < 0.2
        assert (shot.camera, shot.stamp.source) == ("test", None)
    assert (cv2.absdiff(taken[0][1], taken[2][1]) > 64).any()
