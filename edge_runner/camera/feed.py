"""The way from a camera to the pipeline: a file is read by a thread, a few frames ahead; a live camera by a process of its own."""

from __future__ import annotations

import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from queue import SimpleQueue
from typing import Literal, cast

import numpy as np

from edge_runner.camera import CAMERAS
from edge_runner.camera.base import Camera, CameraConfig
from edge_runner.camera.develop import Developer, Slot
from edge_runner.fields import load
from edge_runner.frame import Prepare, Shot

log = logging.getLogger(__name__)

SLOTS_AHEAD = 4  # of a file
JOIN_TIMEOUT_S = 5.0
Kind = Literal["lost", "stalled", "frozen"]


class Feed(ABC):
    """Prepared shots of one camera, in order; made to be waited for beside others, without a thread of its own in the way.

    Enter it, and go round: `poll`, `want` a frame where it `offers` one, wait until a descriptor of `sources` is readable or the
    time that `poll` gave has come; once it is `ready`, `take` the shot, and `release` it when done. It can be entered again.
    """

    def __init__(self, config: CameraConfig) -> None:
        self.config = config
        self.name = str(config.name)
        self.trouble: str | None = None
        """Why there is no frame; None while all is well."""
        self.kind: Kind = "lost"
        """Of the trouble."""
        self.exact = False
        """Whether a shot's picture is to be the whole frame always."""
        self.ended = False
        """Whether its last shot was taken."""

    live: bool
    """Whether frames are dropped to stay fresh."""

    @property
    def skipped(self) -> int:
        """A file's unreadable frames."""
        return 0

    @property
    def spoilt(self) -> dict[str, int]:
        """What went wrong with a live camera, counted: frames `torn`, `damaged` or `black`, and how often it was `lost`."""
        return {}

    def leave(self) -> None:
        """It is about to be closed: begin with what takes time, for others are closed as well."""
        return None

    @abstractmethod
    def __enter__(self) -> Feed: ...

    @abstractmethod
    def __exit__(self, *_: object) -> None: ...

    @abstractmethod
    def sources(self) -> list[int]:
        """Descriptors that are readable when `poll` has something to do."""

    def poll(self) -> float | None:
        """Do what is due, and never wait for it. Return when to be called again at the latest, in time.monotonic's seconds."""
        return None

    @property
    @abstractmethod
    def offers(self) -> bool:
        """Whether there is a frame that a call of `want` would prepare."""

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether `take` has something to give at once."""

    @abstractmethod
    def want(self) -> None:
        """Ask for the newest frame; of a file, for as many as there are free slots."""

    @abstractmethod
    def take(self) -> Shot | None:
        """The next shot, None after the last. Raise what the camera raised."""

    @abstractmethod
    def release(self, shot: Shot) -> None:
        """Give a shot's slot back: its arrays will be written again."""

    def refit(self, prepare: Prepare) -> None:
        """Prepare frames for another model from now on; the camera stays open. A live one can; a shot from before is void."""
        raise NotImplementedError(f"{self.name} is a file, which is read ahead")


def make_feed(config: CameraConfig, prepare: Prepare, *, exact: bool = False) -> Feed:
    """The feed of a camera, by its type. With `exact`, a shot's picture is always the whole frame."""
    cls = load(CAMERAS[config.type])
    if cls.live:
        return cast(Feed, load("edge_runner.camera.live:LiveFeed")(config, prepare, exact=exact))
    return ThreadFeed(cls(config), prepare)


class ThreadFeed(Feed):
    """A file, read by a thread of this process. Its pictures are always whole."""

    live = False

    def __init__(self, camera: Camera, prepare: Prepare) -> None:
        super().__init__(camera.config)
        self.camera = camera
        self._develop = Developer(camera.config, prepare)
        self._slots = [Slot(n, np.empty(prepare.shape, prepare.dtype)) for n in range(SLOTS_AHEAD)]
        self._thread: threading.Thread | None = None

    @property
    def skipped(self) -> int:
        return self.camera.skipped

    def __enter__(self) -> ThreadFeed:
        self.ended = False
        self._idle = list(self._slots)
        self._wanted: SimpleQueue[Slot | None] = SimpleQueue()
        self._done: SimpleQueue[Shot | Exception | None] = SimpleQueue()
        self._ready, self._signal = os.pipe()
        self.camera.stopping.clear()
        self._thread = threading.Thread(target=self._work, name=f"camera-{self.name}", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is None:
            return
        self.camera.interrupt()
        self._wanted.put(None)
        self._thread.join(JOIN_TIMEOUT_S)
        if self._thread.is_alive():
            log.warning("%s: the camera does not stop; it is left behind", self.name)
        else:
            os.close(self._ready)
            os.close(self._signal)
        self._thread = None

    def sources(self) -> list[int]:
        return [self._ready]

    @property
    def offers(self) -> bool:
        return bool(self._idle)

    @property
    def ready(self) -> bool:
        return not self._done.empty()

    def want(self) -> None:
        while self._idle:
            self._wanted.put(self._idle.pop())

    def take(self) -> Shot | None:
        os.read(self._ready, 1)
        item = self._done.get()
        if isinstance(item, Exception):
            raise item
        self.ended = item is None
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

    def _shoot(self, slot: Slot) -> Shot | None:
        """Fill a slot with the next frame that can be decoded; None where there are no more."""
        while True:
            started = time.perf_counter()
            grab = None if self.camera.stopping.is_set() else self.camera.grab()
            if grab is None:
                return None
            grab_ms = (time.perf_counter() - started) * 1e3
            developed = self._develop(grab, slot)
            if developed:
                break
        timing_ms = {**developed.timing_ms, "capture": developed.timing_ms["capture"] + grab_ms}
        return Shot(
            camera=self.name,
            input=slot.input,
            picture=developed.picture,
            geometry=developed.geometry,
            stamp=grab.stamp,
            timing_ms=timing_ms,
            slot=slot.number,
        )
