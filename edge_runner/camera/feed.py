"""The way from a camera to the pipeline: a thread reads and prepares frames into a few slots, while the model runs.

A file is read a few frames ahead. A live camera is asked for one frame when the pipeline is free, so that it is the newest.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np

from edge_runner.camera import CAMERAS
from edge_runner.camera.base import Camera, CameraConfig, View
from edge_runner.fields import load
from edge_runner.frame import Picture, Prepare, Shot, Tensor

log = logging.getLogger(__name__)

SLOTS_AHEAD = 4  # of a file
JOIN_TIMEOUT_S = 5.0


@dataclass
class _Slot:
    """The buffers of one shot, kept and used again."""

    number: int
    input: Tensor
    frame: Picture | None = None
    upright: Picture | None = None


class Feed(ABC):
    """Prepared shots of one camera, in order. Enter it, wait until its descriptor is readable, `take`, and `release` when done.

    `live` says whether frames are dropped to stay fresh, `skipped` counts a file's unreadable frames. It can be entered again.
    """

    live: bool

    @property
    @abstractmethod
    def skipped(self) -> int: ...

    @abstractmethod
    def __enter__(self) -> Feed: ...

    @abstractmethod
    def __exit__(self, *_: object) -> None: ...

    @abstractmethod
    def fileno(self) -> int:
        """Readable when there is something to take."""

    @abstractmethod
    def want(self) -> None:
        """Let the camera fill every slot that is free."""

    @abstractmethod
    def take(self) -> Shot | None:
        """The next shot, None after the last; waits for it. Raise what the camera raised."""

    @abstractmethod
    def release(self, shot: Shot) -> None:
        """Give a shot's slot back: its arrays will be written again."""


def make_feed(config: CameraConfig, prepare: Prepare) -> Feed:
    """The feed of a camera, by its type. `prepare` is copied: it works in one place at a time."""
    camera: Camera = load(CAMERAS[config.type])(config)
    return ThreadFeed(camera, copy.copy(prepare))


class ThreadFeed(Feed):
    """A camera that is read by a thread of this process: files, and what cannot hang."""

    def __init__(self, camera: Camera, prepare: Prepare) -> None:
        self.camera = camera
        self.live = camera.live
        self._prepare = prepare
        self._view = View(camera.config)
        count = 1 if camera.live else SLOTS_AHEAD
        self._slots = [_Slot(n, np.empty(prepare.shape, prepare.dtype)) for n in range(count)]
        self._thread: threading.Thread | None = None

    @property
    def skipped(self) -> int:
        return self.camera.skipped

    def __enter__(self) -> ThreadFeed:
        self._idle = list(self._slots)
        self._wanted: SimpleQueue[_Slot | None] = SimpleQueue()
        self._done: SimpleQueue[Shot | Exception | None] = SimpleQueue()
        self._last_number = 0
        self._ready, self._signal = os.pipe()
        self.camera.stopping.clear()
        self._thread = threading.Thread(target=self._work, name=f"camera-{self.camera.config.name}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is None:
            return
        self.camera.stopping.set()
        self._wanted.put(None)
        self._thread.join(JOIN_TIMEOUT_S)
        if self._thread.is_alive():
            log.warning("the camera does not stop; it is left behind")
        else:
            os.close(self._ready)
            os.close(self._signal)
        self._thread = None

    def fileno(self) -> int:
        return self._ready

    def want(self) -> None:
        while self._idle:
            self._wanted.put(self._idle.pop())

    def take(self) -> Shot | None:
        os.read(self._ready, 1)
        item = self._done.get()
        if isinstance(item, Exception):
            raise item
        return item

    def release(self, shot: Shot) -> None:
        self._idle.append(self._slots[shot.slot])

    def _work(self) -> None:
        try:
            with self.camera:
                while (slot := self._wanted.get()) is not None:
                    shot = self._shoot(slot)
                    self._hand(shot)
                    if shot is None:
                        return
        except Exception as error:  # raised again by take(), in the thread that can act on it
            self._hand(error)

    def _hand(self, item: Shot | Exception | None) -> None:
        self._done.put(item)
        os.write(self._signal, b"\0")

    def _shoot(self, slot: _Slot) -> Shot | None:
        """Fill a slot with the next frame that can be decoded; None where there are no more."""
        while True:
            started = time.perf_counter()
            stamp = None if self.camera.stopping.is_set() else self.camera.grab()
            if stamp is None:
                return None
            if self.live:
                started = time.perf_counter()  # waiting for a frame is no work
            slot.frame = self.camera.retrieve(slot.frame)
            if slot.frame is not None:
                break
        picture = slot.frame
        if self._view.turns:
            slot.upright = picture = self._view.upright(picture, slot.upright)
        captured = time.perf_counter()
        geometry = self._prepare(picture, slot.input, self._view.region(picture))
        timing_ms = {"capture": (captured - started) * 1e3, "preprocess": (time.perf_counter() - captured) * 1e3}
        dropped = stamp.number - self._last_number - 1 if self.live else None
        self._last_number = stamp.number
        return Shot(slot.input, picture, geometry, stamp, dropped, timing_ms, slot.number)
