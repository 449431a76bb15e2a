"""The contract of every camera, and the settings that all of them share.

A camera is made from its Config alone, where it will be read. `grab` takes the next frame, cheaply, and only a frame that will be
used is decoded. A file is grabbed when a frame is wanted; a live camera as fast as its frames come, wanted or not.
"""

from __future__ import annotations

import re
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Annotated, Any, ClassVar, Literal

import cv2
import numpy as np

from edge_runner.fields import Check, Duration, Fraction, Range
from edge_runner.frame import Enough, Picture, Region, Stamp

ROUNDING = 1e-9  # 0.7 + 0.3 may exceed 1


def _within_frame(crop: tuple[Any, ...]) -> bool:
    x, y, width, height = crop
    return bool(min(width, height) > 0 and max(x + width, y + height) <= 1 + ROUNDING)


Crop = Annotated[
    tuple[Fraction, Fraction, Fraction, Fraction],
    Check(_within_frame, "x, y, width, height as fractions (0 to 1) of the upright frame, within it and not empty"),
]
Rate = Annotated[float, Range(0.0001, 10_000)]  # a second; the slowest is one in three hours
Width = Annotated[int, Range(16, 7680)]  # pixels
Height = Annotated[int, Range(16, 4320)]


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


@dataclass(frozen=True)
class Retry:
    """Seconds to wait before a lost camera is opened again: `first`, then twice as long each time, up to `max`."""

    first: Annotated[Duration, Range(0, above=True)] = 1.0
    max: Annotated[Duration, Range(0, above=True)] = 60.0


@dataclass(frozen=True, kw_only=True)
class LiveConfig(CameraConfig):
    """What every live camera can be told besides: after how long without a new frame, or with the same one, it is opened again."""

    stall_timeout: Annotated[Duration, Range(0, above=True)] = 10.0
    freeze_timeout: Duration = 60.0
    retry: Retry = Retry()


class Grab(ABC):
    """A frame that was taken and not decoded yet. Of a live camera it is decoded in another thread than it was grabbed in."""

    decodable = True
    """False of a frame that can only be passed over: whether it could be decoded was decided when it was grabbed."""

    def __init__(self, stamp: Stamp) -> None:
        self.stamp = stamp
        self.size: tuple[int, int] | None = None
        """Width and height of the whole frame, where `decode` gave a smaller picture of it."""

    @abstractmethod
    def decode(self, into: Picture | None, enough: Enough | None = None) -> Picture | None:
        """The frame, uint8 [height, width, 3] BGR, in `into` where that has its size; None where it cannot be decoded.

        Where `enough` is given, a smaller picture will do, if that is faster.
        """

    def fingerprint(self) -> int | None:
        """A number that differs where the frame's content differs; None where that is not known without decoding it."""
        return None

    def release(self) -> None:
        """Give its buffer back; it is neither decoded nor released again."""
        return None


class Camera(ABC):
    """One source of frames.

    Must be overridden: `open`, `grab`. May be: `close`, `interrupt`, `verify`, `describe`, `live`, `Config`.
    `open` and `close` can be called twice; `close` is called whatever happened.

    A live camera is read in a process of its own: `grab` in one thread, all the rest in another. It holds a fixed number of
    buffers, enough for three frames: the one that is being grabbed, the newest, and the one that is being decoded.
    """

    Config: ClassVar[type[Any]] = CameraConfig
    live: ClassVar[bool] = False
    """A live camera goes on by itself: frames that come too fast are dropped. A file waits, ends, and drops nothing."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.skipped = 0
        """Frames of a file that could not be read."""
        self.stopping = threading.Event()
        """Set by `interrupt`: `grab` waits on it instead of sleeping."""
        self.torn = 0
        """Frames of a live camera that came incomplete; `grab` leaves them out."""
        self.due_ns = 0
        """When the next frame will probably be wanted (monotonic), for a live camera that has to prepare itself for that."""
        self.again: dict[str, Any] = {}
        """Once it is open: settings by which the same device is found again, where it may come back in another place."""

    def verify(self) -> None:
        """Raise SettingError for what is wrong and can be known without taking a frame; its key is relative to the camera's."""
        return None

    @abstractmethod
    def open(self) -> None:
        """Start it. Raise CameraError or SettingError where that cannot be."""

    @abstractmethod
    def grab(self) -> Grab | None:
        """Wait for the next frame and take it, undecoded; None where there will be no more. Raise CameraError on trouble."""

    def interrupt(self) -> None:
        """Called from another thread: no more frames are wanted, let `grab` come to its end."""
        self.stopping.set()

    def describe(self) -> str:
        """What was really opened, for the log: device, format, size and rate as they were given, not as they were asked for."""
        return ""

    def close(self) -> None:
        """Stop it and free what it holds."""
        return None

    def __enter__(self) -> Camera:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


CREDENTIALS = re.compile(r"(?<=://)\S*@")
PASSWORDS = re.compile(r"((?:passw(?:or)?d|pass|pwd)=)[^&/_\s]+", re.IGNORECASE)
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

    @property
    def sideways(self) -> bool:
        """Whether the upright frame is as wide as the camera's is high."""
        return self.rotate in (90, 270)

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


def without_credentials(text: str) -> str:
    """A text that others wrote, without what stands before the host of an address, or behind `password=` in it."""
    return PASSWORDS.sub(r"\1***", CREDENTIALS.sub("***@", text))


def now(number: int, source: str | None = None) -> Stamp:
    """The stamp of a frame that was taken just now."""
    return Stamp(number, time.monotonic_ns(), time.time_ns(), source)


def _fitting(into: Picture | None, shape: tuple[int, ...]) -> Picture:
    return into if into is not None and into.shape == shape else np.empty(shape, np.uint8)
