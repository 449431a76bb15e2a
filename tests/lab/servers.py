"""Starts and stops the lab's servers, as real processes.

with rtsp() as server:
    camera(url=f"{server.url}/h264")
    server.stop(), server.proceed(), server.restart()
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from lab.broker import free_port

HERE = Path(__file__).parent
SYSTEM_PYTHON = "/usr/bin/python3"
READY_S = 60.0
BITS = 20


class Server:
    """A running server: `url` is scheme, address and port. Its port stays the same over a restart."""

    def __init__(self, scheme: str, python: str, script: str, *arguments: object) -> None:
        self._command = [python, str(HERE / script)]
        self._arguments = [str(argument) for argument in arguments]
        self.scheme, self.port = scheme, free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Return when it is ready; raise RuntimeError where it ends instead."""
        command = [*self._command, str(self.port), *self._arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        late = threading.Timer(READY_S, self.process.kill)
        late.start()
        word, _, port = self.process.stdout.readline().partition(" ")
        late.cancel()
        late.join()
        if word != "ready":
            self.kill()
            raise RuntimeError(f"{' '.join(command)} did not get ready within {READY_S:g} s")
        self.port = int(port)

    def stop(self) -> None:
        """Let it stand still, with its connections open."""
        self.process.send_signal(signal.SIGSTOP)

    def proceed(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def restart(self) -> None:
        self.kill()
        self.start()


@contextmanager
def mjpeg(*arguments: object, scheme: str = "http") -> Iterator[Server]:
    """The camera of MJPEG over HTTP."""
    yield from _running(Server(scheme, sys.executable, "mjpeg_server.py", *arguments))


@contextmanager
def rtsp(*arguments: object) -> Iterator[Server]:
    """The RTSP camera. Where `rtsp_missing()` says why not, it cannot be had."""
    yield from _running(Server("rtsp", SYSTEM_PYTHON, "rtsp_server.py", *arguments))


def _running(server: Server) -> Iterator[Server]:
    try:
        yield server
    finally:
        server.kill()


@cache
def rtsp_missing() -> str | None:
    """What is missing for the RTSP camera; in CI, nothing may be."""
    needed = "import gi; gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0'); "
    needed += "from gi.repository import Gst, GstRtspServer; Gst.init(None); "
    needed += "assert all(map(Gst.ElementFactory.find, ('appsrc', 'x264enc', 'rtph264pay', 'jpegenc', 'rtpjpegpay')))"
    if os.environ.get("CI") or (
        os.path.exists(SYSTEM_PYTHON)
        and subprocess.run([SYSTEM_PYTHON, "-c", needed], capture_output=True).returncode == 0
    ):
        return None
    return (
        "an RTSP server: apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base "
        "gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly"
    )


def shown_ms(picture: Any) -> int:
    """The time that a picture of either server shows, modulo 2**20."""
    height, width = picture.shape[:2]
    row = picture[height - height // 16].mean(axis=-1)
    bits = row[((np.arange(BITS) + 0.5) * width / BITS).astype(int)] > 128
    return int("".join(map(str, bits.astype(int))), 2)


def age_ms(picture: Any, at_ns: int) -> int:
    """How long before `at_ns` (monotonic) the server made the picture."""
    since = (at_ns // 10**6 - shown_ms(picture)) % 2**BITS
    return since if since < 2 ** (BITS - 1) else since - 2**BITS
