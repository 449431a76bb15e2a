"""USB cameras and whatever else Linux shows as /dev/videoN, through the kernel's own interface (Video4Linux2).

A frame stays in the driver's memory until it is released: what is not used is neither copied nor decoded.
"""

from __future__ import annotations

import errno
import fractions
import logging
import mmap
import os
import re
import select
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from ctypes import c_int
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

from edge_runner.camera import access, devices, jpeg
from edge_runner.camera import videodev as v4l
from edge_runner.camera.base import Camera, Height, LiveConfig, Rate, Width
from edge_runner.camera.pixels import Layout, RawFrame
from edge_runner.errors import CameraError, SettingError
from edge_runner.fields import Range
from edge_runner.frame import Stamp

BUFFERS = 5  # three may be out, and a driver that has less than two drops frames
FEWEST_BUFFERS = 4
MOST_AGE_NS = 10 * 10**9  # a driver's time stamp that is older is wrong
RATE_TOLERANCE = 0.02

# The drivers' formats that we can decode, the best first: JPEG is the least for a USB bus to carry, grey has no colours.
FORMATS = {
    "MJPG": "mjpeg",
    "JPEG": "mjpeg",
    "YUYV": "yuyv",
    "NV12": "nv12",
    "YU12": "i420",
    "BGR3": "bgr24",
    "RGB3": "rgb24",
    "GREY": "gray8",
}


log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class V4l2Config(LiveConfig):
    """The configuration's `camera` of type v4l2. `device` is a path, such as one of /dev/v4l's links, or a /dev/videoN's number."""

    type: Literal["v4l2"] = "v4l2"
    device: Annotated[int, Range(0, 255)] | str = 0
    pixel_format: Literal["auto", "mjpeg", "yuyv"] = "auto"
    width: Width = 1280
    height: Height = 720
    fps: Rate = 30.0


@dataclass(frozen=True)
class Given:
    """What the driver gave: the format's four letters, how a frame lies in memory, the frames a second where it says that."""

    fourcc: str
    layout: Layout
    width: int
    height: int
    fps: float | None

    def __str__(self) -> str:
        rate = "" if self.fps is None else f" at {self.fps:g} frames/s"
        return f"{self.fourcc} {self.width}x{self.height}{rate}"


class V4l2(Camera):
    """A Video4Linux2 device."""

    Config = V4l2Config
    live = True

    def __init__(self, config: V4l2Config) -> None:
        super().__init__(config)
        self.path = device_path(config.device)
        self._name = ""
        self._lock = (
            threading.Lock()
        )  # over the descriptors: frames are given back, and the end is told, from other threads
        self._device = self._told = self._tell = -1
        self._memory: list[mmap.mmap] = []
        self._given = Given("", Layout("mjpeg", 0, 0), 0, 0, None)
        self._counter = Counter()

    def verify(self) -> None:
        if not sys.platform.startswith("linux"):
            raise SettingError("v4l2 cameras need Linux", key="type")
        if not self.path.startswith("/"):
            shown = "an address" if "://" in self.path else f"'{self.config.device}'"
            raise SettingError(
                f"got {shown}; allowed: a path such as /dev/video0 or /dev/v4l/by-id/…, or its number", key="device"
            )

    def open(self) -> None:
        self.close()
        self._device = access.open_device(self.path)
        try:
            self._start()
        except CameraError:
            self.close()
            raise
        except OSError as error:
            refused = self._refused(error)
            self.close()
            raise refused from None
        self._told, self._tell = os.pipe()
        self._counter = Counter()
        found = None if os.path.islink(self.path) else devices.identity(self.path)  # a link was meant to be that link
        self.again = {"device": found} if found else {}
        self._warn()

    def _start(self) -> None:
        answer = devices.capability(self._device, self.path)
        self._name = devices.text(answer.card)
        other = devices.no_camera(answer)
        if other is not None:
            raise CameraError(f"{self.path} ({self._name}) {other}; {access.cameras_there()}")
        wanted = choose(devices.offers(self._device), self.config.pixel_format, self.path)
        self._given = self._set_format(wanted)
        self._map()
        for index in range(len(self._memory)):
            v4l.call(self._device, v4l.QBUF, _buffer(index))
        v4l.call(self._device, v4l.STREAMON, c_int(v4l.CAPTURE))

    def _set_format(self, wanted: str) -> Given:
        """Ask for format, size and rate; the driver gives what comes next to them."""
        asked = v4l.Format(type=v4l.CAPTURE)
        asked.fmt.pix = v4l.PixelFormat(self.config.width, self.config.height, v4l.fourcc(wanted), v4l.FIELD_NONE)
        v4l.call(self._device, v4l.S_FMT, asked)
        pix, fps = asked.fmt.pix, _set_rate(self._device, self.config.fps)
        code = v4l.letters(pix.fourcc)
        if code not in FORMATS:
            raise CameraError(f"{self.path} gives {code} instead of {wanted}, and that cannot be decoded here")
        try:
            return Given(code, _layout(FORMATS[code], pix), pix.width, pix.height, fps)
        except ValueError as error:
            raise CameraError(f"{self.path} gives frames that cannot be decoded here: {error}") from None

    def _map(self) -> None:
        """Have the driver make its buffers, and map them."""
        asked = v4l.BuffersRequest(count=BUFFERS, type=v4l.CAPTURE, memory=v4l.MMAP)
        v4l.call(self._device, v4l.REQBUFS, asked)
        if asked.count < FEWEST_BUFFERS:
            raise CameraError(f"{self.path} has {asked.count} buffers only; {FEWEST_BUFFERS} are needed")
        for index in range(asked.count):
            buffer = _buffer(index)
            v4l.call(self._device, v4l.QUERYBUF, buffer)
            self._memory.append(mmap.mmap(self._device, buffer.length, offset=buffer.m.offset))

    def _refused(self, error: OSError) -> CameraError:
        """Why an open device does not give frames."""
        if error.errno == errno.EBUSY:
            return CameraError(access.busy(self.path))
        if error.errno == errno.ENOSPC:
            return CameraError(
                f"{self.path}: the USB bus has no room left for {self._given}: other cameras on it take it;"
                " set pixel_format mjpeg, a smaller size or fewer fps, or use another USB controller's port"
            )
        if error.errno in (errno.ENODEV, errno.ENXIO):
            return CameraError(f"{self.path} ({self._name}) was unplugged")
        if error.errno in (errno.EIO, errno.EPROTO, errno.ETIMEDOUT, errno.EPIPE):
            return CameraError(
                f"{self.path} ({self._name}) does not answer ({access.words(error)}): its cable, its power, or the camera itself;"
                " dmesg may say more"
            )
        return CameraError(f"{self.path} ({self._name}) cannot be started: {access.words(error)}")

    def _warn(self) -> None:
        """Say where the driver gave something else than was asked for."""
        config, given = self.config, self._given
        if (given.width, given.height) != (config.width, config.height):
            log.warning(
                "%s gives %dx%d, not %dx%d as asked", self.path, given.width, given.height, config.width, config.height
            )
        if given.fps is not None and abs(given.fps - config.fps) > RATE_TOLERANCE * config.fps:
            log.warning("%s gives %g frames/s, not %g as asked", self.path, given.fps, config.fps)

    def describe(self) -> str:
        known = ", ".join([self._name, *self.again.values()])
        layout = self._given.layout
        padded = layout.stride and layout.stride != replace(layout, stride=0).row_bytes
        return f"{self.path} ({known}): {self._given}" + (f", {layout.stride} bytes a row" if padded else "")

    def grab(self) -> RawFrame | None:
        while True:
            events = self._wait()
            if events is None:
                return None
            buffer = self._dequeue(events)
            if buffer is None:
                continue
            arrival_ns = time.monotonic_ns()
            number = self._counter.number(buffer.sequence)
            size = self._whole(buffer)
            if size:
                stamp = _stamp(buffer, number, arrival_ns)
                data = memoryview(self._memory[buffer.index])[:size]
                return RawFrame(stamp, data, self._given.layout, partial(self._give_back, self._device, buffer.index))
            self.torn += 1
            self._give_back(self._device, buffer.index)

    def _wait(self) -> int | None:
        """Wait for the device; return what poll(2) says of it, None where no more frames are wanted."""
        if self.stopping.is_set() or self._device < 0:
            return None
        poll = select.poll()
        poll.register(self._device, select.POLLIN)
        poll.register(self._told, select.POLLIN)
        events = dict(poll.poll())
        return None if self._told in events else events.get(self._device, 0)

    def _dequeue(self, events: int) -> v4l.Buffer | None:
        """The next filled buffer; None where there is none after all."""
        buffer = _buffer(0)
        try:
            v4l.call(self._device, v4l.DQBUF, buffer)
        except BlockingIOError:
            if events & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
                raise self._lost(OSError(errno.EIO, os.strerror(errno.EIO))) from None
            return None
        except OSError as error:
            raise self._lost(error) from None
        return buffer

    def _lost(self, error: OSError) -> CameraError:
        """Why an open camera ceased to give frames. A driver says that it is gone in more ways than one."""
        gone = error.errno in (errno.ENODEV, errno.ENXIO)
        with suppress(OSError):
            gone = gone or os.fstat(self._device).st_rdev != os.stat(self.path).st_rdev
        if gone or not os.path.exists(self.path):
            return CameraError(f"{self.path} ({self._name}) was unplugged")
        return CameraError(f"{self.path} ({self._name}) stopped: {access.words(error)}; dmesg may say more")

    def _whole(self, buffer: v4l.Buffer) -> int:
        """How many bytes of a buffer are the frame's; 0 where it is incomplete."""
        if buffer.flags & v4l.DAMAGED:
            return 0
        if self._given.layout.format == "mjpeg":
            return jpeg.length(self._memory[buffer.index], buffer.bytesused)
        size = self._given.layout.size_bytes
        return size if buffer.bytesused >= size else 0

    def _give_back(self, device: int, index: int) -> None:
        """Let the driver fill a buffer again. One of a device that has been closed since is no more."""
        with self._lock:
            if device == self._device and device >= 0:
                with suppress(OSError):  # unplugged: grab says so
                    v4l.call(device, v4l.QBUF, _buffer(index))

    def interrupt(self) -> None:
        super().interrupt()
        with self._lock:
            if self._tell >= 0:
                os.write(self._tell, b"\0")

    def close(self) -> None:
        with self._lock:
            open_ones = [fd for fd in (self._device, self._told, self._tell) if fd >= 0]
            if self._device >= 0:
                with suppress(OSError):
                    v4l.call(self._device, v4l.STREAMOFF, c_int(v4l.CAPTURE))
            self._device = self._told = self._tell = -1
            for descriptor in open_ones:
                os.close(descriptor)
            for memory in self._memory:
                with suppress(BufferError):  # a frame that is still held: its memory goes with it
                    memory.close()
            self._memory = []


class Counter:
    """Turns a driver's sequence numbers, which may begin anywhere and anew, into numbers that count up from 1."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._number = 0

    def number(self, sequence: int) -> int:
        """The number of the frame with this sequence number; gaps are frames that were dropped."""
        gap = 1 if self._last is None or sequence <= self._last else sequence - self._last
        self._last = sequence
        self._number += gap
        return self._number


def device_path(device: int | str) -> str:
    """Where the device stands; a number may have come as text, out of the environment."""
    return f"/dev/video{device}" if isinstance(device, int) or re.fullmatch(r"\d{1,3}", device) else device


def choose(offered: Sequence[devices.Offer], wanted: str, path: str) -> str:
    """The format to ask for, by its four letters: the first of FORMATS that is wanted and offered. Raise CameraError without."""
    known = {offer.fourcc for offer in offered}
    for code, name in FORMATS.items():
        if code in known and wanted in ("auto", name):
            return code
    have = ", ".join(f"{o.fourcc} ({o.description})" for o in offered) or "none"
    if wanted == "auto":
        raise CameraError(
            f"{path} has no format that can be decoded here; it has {have}; known are {', '.join(FORMATS)}"
        )
    raise CameraError(f"{path} has no {wanted}; it has {have}; pixel_format auto takes the best of them that is known")


def _layout(name: str, pix: v4l.PixelFormat) -> Layout:
    if name == "mjpeg":
        return Layout("mjpeg", 0, 0)
    full = pix.quantization == v4l.FULL_RANGE or (not pix.quantization and pix.colorspace == v4l.COLORSPACE_JPEG)
    return Layout(name, pix.width, pix.height, pix.bytesperline, full_range=full)


def _set_rate(device: int, fps: float) -> float | None:
    """Ask for a rate; return the one that the driver says it has."""
    asked = v4l.StreamParameters(type=v4l.CAPTURE)
    rate = fractions.Fraction(fps).limit_denominator(1001)
    asked.interval = v4l.Fraction(rate.denominator, max(1, rate.numerator))
    try:
        v4l.call(device, v4l.S_PARM, asked)
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EINVAL):
            raise
        return None
    given = asked.interval
    if not asked.capability & v4l.CAN_SET_RATE or not given.numerator:
        return None
    return float(round(given.denominator / given.numerator, 3))


def _stamp(buffer: v4l.Buffer, number: int, arrival_ns: int) -> Stamp:
    """The driver's time, where it is of our clock and can be true; else the frame's arrival."""
    taken_ns = buffer.timestamp.seconds * 10**9 + buffer.timestamp.microseconds * 1000
    if buffer.flags & v4l.CLOCK != v4l.CLOCK_MONOTONIC or not 0 <= arrival_ns - taken_ns <= MOST_AGE_NS:
        taken_ns = arrival_ns
    return Stamp(number, taken_ns, time.time_ns() - (time.monotonic_ns() - taken_ns))


def _buffer(index: int) -> v4l.Buffer:
    return v4l.Buffer(index=index, type=v4l.CAPTURE, memory=v4l.MMAP)
