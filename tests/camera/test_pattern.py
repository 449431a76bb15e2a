"""The test picture that moves."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from edge_runner.camera.feed import ThreadFeed
from edge_runner.camera.pattern import BARS, Pattern, PatternConfig, still
from edge_runner.frame import Picture

Shots = Callable[..., list[tuple[Any, Picture]]]


def camera(**settings: Any) -> Pattern:
    return Pattern(PatternConfig(**{"width": 64, "height": 48, **settings}))


@pytest.mark.parametrize("size", [(16, 16), (65, 47), (640, 480)])
def test_size(shots: Shots, size: tuple[int, int]) -> None:
    """Frames have the size that was asked for."""
    width, height = size
    [(_, picture)] = shots(camera(width=width, height=height, fps=1000), most=1)
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
        first = subject.grab()
        time.sleep(0.2)
        second = subject.grab()
        elapsed_s = (time.monotonic_ns() - subject._started_ns) / 1e9
    assert first is not None
    assert second is not None
    assert first.number == 1
    assert 20 <= second.number <= elapsed_s * 100 + 1
    assert 0 <= time.monotonic_ns() - second.monotonic_ns < 1e9
    assert abs((time.time_ns() - second.time_ns) - (time.monotonic_ns() - second.monotonic_ns)) < 50e6


def test_no_frame_twice() -> None:
    """Whoever asks too early waits for the next frame."""
    subject = camera(fps=100)
    started = time.monotonic()
    with subject:
        numbers = [stamp.number for stamp in (subject.grab() for _ in range(11)) if stamp]
    assert numbers == sorted(set(numbers))
    assert time.monotonic() - started >= 0.099


def test_open_begins_anew() -> None:
    """Opened again, it counts from 1 again."""
    subject = camera(fps=1000)
    for _ in range(2):
        with subject:
            time.sleep(0.01)
            subject.open()
            stamp = subject.grab()
            assert stamp is not None
            assert stamp.number == 1


def test_dropped_frames_are_counted(shrink: Any) -> None:
    """Every frame is either taken or counted as dropped."""
    taken = []
    with ThreadFeed(camera(fps=200), shrink) as feed:
        for pause_s in (0, 0.05, 0, 0.1):
            feed.want()
            shot = feed.take()
            assert shot is not None
            taken.append((shot.stamp.number, shot.dropped))
            feed.release(shot)
            time.sleep(pause_s)
    assert taken[-1][0] == len(taken) + sum(dropped for _, dropped in taken)
    assert taken[2][1] >= 8
    assert [number - dropped - 1 for number, dropped in taken] == [0, *(number for number, _ in taken[:-1])]


def test_picture_moves(shots: Shots) -> None:
    """No frame is like the one before, even where it is small."""
    pictures = [picture for _, picture in shots(camera(fps=30, width=160, height=120), most=4)]
    for before, after in itertools.pairwise(pictures):
        assert (cv2.absdiff(before, after) > 64).any()


def test_frames_reuse_their_buffer() -> None:
    """A frame is drawn into the picture that is given, where it has the size."""
    subject = camera(fps=1000)
    with subject:
        subject.grab()
        first = subject.retrieve(None)
        assert first is not None
        subject.grab()
        assert subject.retrieve(first) is first
        small = np.empty((4, 4, 3), np.uint8)
        other = subject.retrieve(small)
        assert other is not small
        assert other is not None
        assert other.shape == (48, 64, 3)
