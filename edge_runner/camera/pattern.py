"""A moving test picture: colour bars, a grey ramp, a turning hand and a counter. For boards without a camera, and for tests."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from edge_runner.camera.base import Camera, Grab, Height, LiveConfig, Rate, Width
from edge_runner.frame import Enough, Picture, Stamp

# BGR of a television test card's bars, from left to right: white, yellow, cyan, green, magenta, red, blue, black.
BARS = ((255, 255, 255), (0, 255, 255), (255, 255, 0), (0, 255, 0), (255, 0, 255), (0, 0, 255), (255, 0, 0), (0, 0, 0))
SECONDS_A_TURN = 4.0


@dataclass(frozen=True, kw_only=True)
class PatternConfig(LiveConfig):
    """The configuration's `camera` of type pattern."""

    type: Literal["pattern"] = "pattern"
    width: Width = 640
    height: Height = 480
    fps: Rate = 30.0


class Pattern(Camera):
    """A live camera: its frames come by the clock, whether they are taken or not."""

    Config = PatternConfig
    live = True

    def __init__(self, config: PatternConfig) -> None:
        super().__init__(config)
        self._still = still(config.width, config.height)
        self._started_ns = 0
        self._number = 0

    def open(self) -> None:
        self._started_ns, self._number = time.monotonic_ns(), 0

    def grab(self) -> Grab | None:
        """The newest frame; waits for the next one where that was taken already."""
        interval_ns = 1e9 / self.config.fps
        elapsed_ns = time.monotonic_ns() - self._started_ns
        self._number = max(self._number + 1, math.floor(elapsed_ns / interval_ns) + 1)
        due_ns = self._started_ns + round((self._number - 1) * interval_ns)
        if self.stopping.wait(max(0.0, (due_ns - time.monotonic_ns()) / 1e9)):
            return None
        time_ns = time.time_ns() - (time.monotonic_ns() - due_ns)
        return _Drawing(Stamp(self._number, due_ns, time_ns), self._still, self.config.fps)

    def describe(self) -> str:
        return f"test picture {self.config.width}x{self.config.height} at {self.config.fps:g} a second"


class _Drawing(Grab):
    """A frame that is drawn only where it is wanted."""

    def __init__(self, stamp: Stamp, still: Picture, fps: float) -> None:
        super().__init__(stamp)
        self._still, self._fps = still, fps

    def decode(self, into: Picture | None, enough: Enough | None = None) -> Picture | None:
        if into is None or into.shape != self._still.shape:
            into = np.empty_like(self._still)
        np.copyto(into, self._still)
        _animate(into, self.stamp.number, self._fps)
        return into

    def fingerprint(self) -> int | None:
        return self.stamp.number


def _animate(picture: Picture, number: int, fps: float) -> None:
    """Draw the turning hand and the counter of frame `number`."""
    height, width = picture.shape[:2]
    angle = 2 * math.pi * number / fps / SECONDS_A_TURN
    center, length = (width // 2, height // 3), min(width, height) // 4
    tip = (center[0] + round(length * math.sin(angle)), center[1] - round(length * math.cos(angle)))
    scale, font = height / 240, cv2.FONT_HERSHEY_SIMPLEX
    for color, thickness in (((0, 0, 0), max(3, round(6 * scale))), ((255, 255, 255), max(1, round(2 * scale)))):
        cv2.line(picture, center, tip, color, thickness, cv2.LINE_AA)
        where = (round(8 * scale), height - round(8 * scale))
        cv2.putText(picture, f"{number:06d}", where, font, scale * 0.6, color, thickness, cv2.LINE_AA)


def still(width: int, height: int) -> Picture:
    """The part that does not move: bars over two thirds of the height, below them a ramp from black to white."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = np.array(BARS, np.uint8)[np.arange(width) * len(BARS) // width]
    picture[height * 2 // 3 :] = (np.arange(width) * 256 // width).astype(np.uint8)[np.newaxis, :, np.newaxis]
    return picture
