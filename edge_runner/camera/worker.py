"""The child process that reads one live camera, and may hang or crash in native code without harm to anyone.

It begins with an order on its socket, and ends when the socket does. One thread grabs frames as fast as they come; the main
thread keeps the newest, and decodes and prepares it into the shared memory when the daemon wants it.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import select
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import astuple, dataclass
from types import FrameType
from typing import Any

import cv2

from edge_runner.camera import CAMERAS
from edge_runner.camera.base import Camera, CameraConfig, Grab
from edge_runner.camera.develop import Developed, Developer, Slot
from edge_runner.camera.pixels import black
from edge_runner.camera.shared import Block
from edge_runner.errors import EdgeRunnerError
from edge_runner.fields import load
from edge_runner.frame import Prepare
from edge_runner.process import die_with_parent, keep_memory

MESSAGE_BYTES = 1 << 18
WANT, WANT_EXACT = b"want", b"exact"
REFIT = b"refit "  # and a pickled Prepare: frames are for another model from now on
SAMPLE_NS = 10**9  # between two looks whether the picture still changes
TICK_S = 1.0
STDERR_BYTES = 1 << 16  # of what libraries write there, before it is thrown away
STOP_S = 1.5
TEXT_CHARACTERS = 2000

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """What a worker is started with. `parent` is the daemon's process id, `fit` numbers what its frames are prepared for."""

    config: CameraConfig
    prepare: Prepare
    fit: int
    parent: int
    level: int


def main() -> None:
    """`SOCKET INPUT FRAME` are the descriptors that it was given, as arguments."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignored)
    link = socket.socket(fileno=int(sys.argv[1]))
    order: Order = pickle.loads(link.recv(MESSAGE_BYTES))
    die_with_parent(order.parent)()
    _say(link, begun=True)
    logging.basicConfig(handlers=[_Forward(link)], level=order.level)
    keep_memory()
    cv2.setNumThreads(1)  # the other cores are the model's
    try:
        block = Block(order.prepare.shape, order.prepare.dtype, [int(argument) for argument in sys.argv[2:4]])
        camera: Camera = load(CAMERAS[order.config.type])(order.config)
        Worker(link, camera, Developer(order.config, order.prepare), block, order.fit).run()
    except EdgeRunnerError as error:
        _say(link, failed=str(error)[:TEXT_CHARACTERS])
    except Exception as error:
        log.debug("%s", traceback.format_exc())
        _say(link, failed=f"unexpected {type(error).__name__}: {error}"[:TEXT_CHARACTERS])


class Worker:
    """One open camera."""

    def __init__(self, link: socket.socket, camera: Camera, develop: Developer, block: Block, fit: int) -> None:
        self._link, self._camera, self._develop, self._block, self._fit = link, camera, develop, block, fit
        self._slot = Slot(0, block.input)
        self._lock = threading.Lock()  # over the three below
        self._newest: Grab | None = None
        self._wanted: bytes | None = None
        self._offered = False
        self._ended: Exception | str | None = None
        self._wake_read, self._wake = os.pipe()
        self._asked_ns = 0
        self._interval_ns = 0.0

    def run(self) -> None:
        """Read the camera until the socket ends. Raise what the camera raises."""
        with self._camera:
            _say(self._link, opened=self._camera.describe(), again=self._camera.again)
            thread = threading.Thread(target=self._capture, name="capture", daemon=True)
            thread.start()
            try:
                self._serve()
            finally:
                self._camera.interrupt()
                thread.join(STOP_S)
                if thread.is_alive():
                    os._exit(1)  # it hangs in native code: closing the camera beneath it could crash, or hang as well

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._link.fileno(), self._wake_read], [], [], TICK_S)
            self._tick()
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
            if self._link.fileno() in ready:
                message = self._link.recv(MESSAGE_BYTES)
                if not message:
                    return
                if message.startswith(REFIT):
                    self._refit(pickle.loads(message.removeprefix(REFIT)))
                else:
                    self._want(message)
            if self._ended is not None:
                raise self._ended if isinstance(self._ended, Exception) else EdgeRunnerError(self._ended)
            self._answer()

    def _tick(self) -> None:
        self._block.figures.torn = self._camera.torn
        if os.fstat(2).st_size > STDERR_BYTES:
            with suppress(OSError):
                os.ftruncate(2, 0)

    def _want(self, message: bytes) -> None:
        """Learn how often a frame is wanted: a camera that must prepare itself for that is told when the next one will be."""
        now_ns = time.monotonic_ns()
        if self._asked_ns:
            interval_ns = now_ns - self._asked_ns
            self._interval_ns += (interval_ns - self._interval_ns) / 4 if self._interval_ns else interval_ns
        self._asked_ns = now_ns
        self._camera.due_ns = 0
        with self._lock:
            self._wanted = message

    def _refit(self, prepare: Prepare) -> None:
        """What was wanted before is not any more; the camera notices nothing."""
        self._block.refit(prepare.shape, prepare.dtype)
        self._slot.input = self._block.input
        self._develop = Developer(self._camera.config, prepare)
        self._fit += 1
        with self._lock:
            self._wanted, self._offered = None, False
        self._offer()

    def _answer(self) -> None:
        """Develop the newest frame, if one is wanted and there is one."""
        with self._lock:
            if self._wanted is None or self._newest is None:
                return
            exact, grab = self._wanted == WANT_EXACT, self._newest
            self._newest, self._offered = None, False
        developed = self._develop(grab, self._slot, exact=exact)
        figures = self._block.figures
        if developed is None:
            figures.damaged += grab.decodable
        else:
            self._show(developed)
            figures.black += black(developed.picture)
            self._camera.due_ns = self._asked_ns + int(self._interval_ns)
            self._hand(grab, developed)
            with self._lock:
                self._wanted = None  # only now, or the other thread's next offer could overtake this shot
        grab.release()
        self._offer()

    def _show(self, developed: Developed) -> None:
        """See to it that the picture lies in the shared memory: it is copied there once, and then written there at once."""
        name = "upright" if self._develop.view.turns else "frame"
        shared = self._block.picture(developed.picture.shape)  # type: ignore[arg-type]
        if developed.picture.ctypes.data != shared.ctypes.data:
            shared[:] = developed.picture
            setattr(self._slot, name, shared)

    def _hand(self, grab: Grab, developed: Developed) -> None:
        stamp = grab.stamp
        _say(
            self._link,
            shot={
                "fit": self._fit,
                "stamp": [stamp.number, stamp.monotonic_ns, stamp.time_ns],
                "shape": developed.picture.shape,
                "geometry": astuple(developed.geometry),
                "timing_ms": developed.timing_ms,
            },
        )

    def _capture(self) -> None:
        """The other thread: grab, count, keep the newest."""
        figures, fingerprint, sampled_ns = self._block.figures, None, 0
        try:
            while (grab := self._camera.grab()) is not None:
                now_ns = time.monotonic_ns()
                if now_ns - sampled_ns >= SAMPLE_NS and (seen := grab.fingerprint()) is not None:
                    if seen != fingerprint:
                        figures.changed_ns = now_ns
                    fingerprint, sampled_ns = seen, now_ns
                figures.newest_ns = now_ns
                figures.frames = grab.stamp.number
                self._keep(grab)
            self._end("the camera gives no more frames")
        except Exception as error:  # raised again in the main thread
            self._end(error)

    def _keep(self, grab: Grab) -> None:
        with self._lock:
            old, self._newest = self._newest, grab
            wanted = self._wanted is not None
        if old:
            old.release()
        if wanted:
            os.write(self._wake, b"\0")
        else:
            self._offer()

    def _offer(self) -> None:
        """Say that there is a frame: once, until it is taken."""
        with self._lock:
            if self._offered or self._newest is None or self._wanted is not None:
                return
            self._offered = True
        _say(self._link, offered=True)

    def _end(self, why: Exception | str) -> None:
        self._ended = why
        os.write(self._wake, b"\0")


class _Forward(logging.Handler):
    """Sends the worker's log to the daemon; what finds no room there is left out."""

    def __init__(self, link: socket.socket) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            text = json.dumps({"log": [record.levelno, record.getMessage()[:TEXT_CHARACTERS]]})
            self._link.send(text.encode(), socket.MSG_DONTWAIT)


def _say(link: socket.socket, **message: Any) -> None:
    with suppress(ConnectionError):  # the daemon has gone: the next reading ends this process
        link.send(json.dumps(message).encode())


def _ignored(number: int, frame: FrameType | None) -> None:
    """Whoever ends the daemon ends the worker. (Not SIG_IGN: a program that a camera runs would inherit that.)"""
