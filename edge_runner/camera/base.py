"""The contract of every camera, and the settings that all of them share.

A camera is made from its Config alone, where it will be read. `grab` takes the next frame, cheaply; `retrieve` decodes it, and is
called only for a frame that will be used. A device that queues frames has to be grabbed as fast as they come, wanted or not; one
that gives the newest frame at any time (pattern), or waits (files), is grabbed when a frame is wanted.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Annotated, Any, ClassVar, Literal

import cv2
import numpy as np

from edge_runner.fields import Check, Duration, Fraction, Range
from edge_runner.frame import Picture, Region, Stamp

ROUNDING = 1e-9  # 0.7 + 0.3 may exceed 1


def _within_frame(crop: tuple[Any, ...]) -> bool:
    x, y, width, height = crop
    return bool(min(width, height) > 0 and max(x + width, y + height) <= 1 + ROUNDING)


Crop = Annotated[
    tuple[Fraction, Fraction, Fraction, Fraction],
    Check(_within_frame, "x, y, width, height as fractions (0 to 1) of the upright frame, within it and not empty"),
]
Rate = Annotated[float, Range(0.0001, 10_000)]  # a second; the slowest is one in three hours


@dataclass(frozen=True, kw_only=True)
class CameraConfig:
    """What every type of camera can be told.

    `rotate` is clockwise, in degrees; `flip` comes after it. `crop` is x, y, width, height in fractions of the frame that results,
    the upright frame. `max_fps` bounds the inferences a second.
    """

    type: str
    name: str | None = None
    rotate: Literal[0, 90, 180, 270] = 0
    flip: Literal["none", "horizontal", "vertical"] = "none"
    crop: Crop = (0.0, 0.0, 1.0, 1.0)
    max_fps: Rate | None = None
    start_timeout: Annotated[Duration, Range(0, above=True)] = 30.0


class Camera(ABC):
    """One source of frames.

    Must be overridden: `open`, `grab`, `retrieve`. May be: `close`, `verify`, `live`, `Config`.
    `open` and `close` can be called twice; `close` is called whatever happened.
    """

    Config: ClassVar[type[Any]] = CameraConfig
    live: ClassVar[bool] = False
    """A live camera goes on by itself: frames that come too fast are dropped. A file waits, ends, and drops nothing."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.skipped = 0
        """Frames of a file that could not be read."""
        self.stopping = threading.Event()
        """Set from another thread when no more frames are wanted: `grab` waits on it instead of sleeping."""

    def verify(self) -> None:
        """Raise SettingError for what is wrong and can be known without taking a frame; its key is relative to the camera's."""
        return None

    @abstractmethod
    def open(self) -> None:
        """Start it. Raise CameraError or SettingError where that cannot be."""

    @abstractmethod
    def grab(self) -> Stamp | None:
        """Wait for the next frame and take it, undecoded; None where there will be no more. Raise CameraError on trouble."""

    @abstractmethod
    def retrieve(self, into: Picture | None) -> Picture | None:
        """The grabbed frame, uint8 [height, width, 3] BGR, in `into` where that has its size; None where it cannot be decoded."""

    def close(self) -> None:
        """Stop it and free what it holds."""
        return None

    def __enter__(self) -> Camera:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


ROTATIONS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
FLIPS = {"horizontal": 1, "vertical": 0}


class View:
    """Turns a camera's frames upright, and finds the crop in them."""

    def __init__(self, config: CameraConfig) -> None:
        self.rotate = config.rotate
        self.flip = config.flip
        self.crop = config.crop

    @property
    def turns(self) -> bool:
        return self.rotate != 0 or self.flip != "none"

    def upright(self, frame: Picture, into: Picture | None) -> Picture:
        """The frame rotated and flipped, in `into` where that has the right size; the frame itself where there is nothing to do."""
        if self.rotate:
            height, width = frame.shape[:2]
            shape = (height, width, 3) if self.rotate == 180 else (width, height, 3)
            into = _fitting(into, shape)
            cv2.rotate(frame, ROTATIONS[self.rotate], into)
            frame = into
        if self.flip != "none":
            into = _fitting(into, frame.shape)
            cv2.flip(frame, FLIPS[self.flip], into)
            frame = into
        return frame

    def region(self, upright: Picture) -> Region:
        """The crop in whole pixels of an upright frame, one pixel at least."""
        height, width = upright.shape[:2]
        x, y, crop_width, crop_height = self.crop
        left, top = min(round(x * width), width - 1), min(round(y * height), height - 1)
        right, bottom = min(round((x + crop_width) * width), width), min(round((y + crop_height) * height), height)
        return Region(left, top, max(1, right - left), max(1, bottom - top))


def now(number: int, source: str | None = None) -> Stamp:
    """The stamp of a frame that was taken just now."""
    return Stamp(number, time.monotonic_ns(), time.time_ns(), source)


def _fitting(into: Picture | None, shape: tuple[int, ...]) -> Picture:
    return into if into is not None and into.shape == shape else np.empty(shape, np.uint8)
