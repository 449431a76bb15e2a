"""RTSP, through OpenCV's FFmpeg: it decodes every frame, as H.264 must be; only those that will be used are converted to pixels.

OpenCV tells of a failure only that there was one. FFmpeg writes the reason to standard error: where that is a file, it is read.
"""

from __future__ import annotations

import os
import re
import stat
import time
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np

from edge_runner.camera.base import Camera, Grab
from edge_runner.camera.stream import shown
from edge_runner.errors import CameraError
from edge_runner.frame import Enough, Picture, Stamp

OPEN_S = 10.0
DRAIN_S = 3.0
BUFFERS = 4
RATES = (0.1, 240.0)  # frames a second that are believed
USUAL_RATE = 25.0
AHEAD = 1.5  # intervals before a frame is wanted, from which on frames are converted
SAMPLE_NS = 10**9  # one frame a second is converted anyhow: somebody has to see whether the picture moves
ROWS = 8  # every how many are looked at for that
WRITTEN_BYTES = 1 << 14

# With either of these set, FFmpeg's words go to standard output instead.
REROUTING = ("OPENCV_FFMPEG_DEBUG", "OPENCV_FFMPEG_LOGLEVEL")
FFMPEG_LINE = re.compile(r"^\[[\w:]+ @ 0x[0-9a-f]+\]\s*(.+?)\s*$", re.MULTILINE)
FIXED_SIZE = int(cv2.__version__.partition(".")[0]) < 5
"""OpenCV 4 goes on with the first picture's size for ever: larger pictures are lost, smaller ones garbled. OpenCV 5 scales them."""
SIZE_CHANGED = "Slice parameters"
REFUSALS = {
    "403": "the camera does not let this user see it",
    "404": "there is no stream of this name; look the address up in the camera's manual",
    "453": "the camera has no bandwidth or connection left",
    "461": "the camera cannot send this way; try the other camera.transport",
}
FAILURES = {
    "Connection refused": "connection refused: nothing answers at this port; is the camera on, and the port right?",
    "Failed to resolve": "the name {host} is not known; check the address and the network",
    "timed out": "no answer; is the camera on, and in this network?",
    "No route to host": "no way to this host; is the camera on, and in this network?",
    "Invalid data found": "the answer is no RTSP; is the port right?",
}


class RtspReader:
    """The reader of one `camera` with an address of rtsp."""

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._url = camera.config.url
        self._place = shown(self._url)
        self._capture: Any = None
        self._clock = StreamClock()
        self._edge = LowerEdge() if FIXED_SIZE else None
        self._pool: deque[Picture | None] = deque([None] * BUFFERS)
        self._number = 0
        self._interval_ns = 1e9 / USUAL_RATE
        self._arrived_ns = 0
        self._converted_ns = self._looked_ns = 0
        self._pending = False
        self._written = 0
        self._transport = ""

    def open(self) -> None:
        """Return when the old frames that come in a burst at first are behind."""
        self._written = written_bytes()
        started = time.monotonic()
        parameters = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(OPEN_S * 1000)]
        parameters += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, max(1, round(self._camera.config.stall_timeout * 1000))]
        with environment(self._camera.config.transport) as self._transport:
            self._capture = cv2.VideoCapture(self._url, cv2.CAP_FFMPEG, parameters)
        if not self._capture.isOpened():
            late = time.monotonic() - started >= OPEN_S
            raise CameraError(f"{self._place}: {reason(written_since(self._written), self._url, late)}")
        if RATES[0] <= (rate := self._rate()) <= RATES[1]:
            self._interval_ns = 1e9 / rate
        self._drain()

    def grab(self) -> Grab | None:
        while not self._camera.stopping.is_set():
            if not self._pending:
                self._next()
            self._pending = False
            arrived_ns = self._arrived_ns
            captured_ns = self._clock.captured_ns(arrived_ns, self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
            stamp = Stamp(self._number, captured_ns, time.time_ns() - (time.monotonic_ns() - captured_ns))
            if not self._due(arrived_ns):
                return Frame(stamp, None, self._pool)
            picture = self._convert()
            if picture is not None:
                return Frame(stamp, picture, self._pool)
            self._camera.torn += 1
        return None

    def interrupt(self) -> None:
        """Nothing ends a grab that waits in FFmpeg: whoever cannot wait ends the process."""

    def describe(self) -> str:
        size = "x".join(str(int(self._capture.get(p))) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        codec = int(self._capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("ascii", "replace")
        rate = f" at {1e9 / self._interval_ns:.4g} a second"
        way = "TLS" if urlsplit(self._url).scheme == "rtsps" else self._transport
        return f"{self._place}, {codec.lower()} {size}{rate} over {way}"

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
        self._capture = None

    def _rate(self) -> float:
        return float(self._capture.get(cv2.CAP_PROP_FPS))

    def _drain(self) -> None:
        """Leave out what has queued up, until a frame had to be waited for: that is the first one."""
        started = time.monotonic()
        while time.monotonic() - started < DRAIN_S and not self._camera.stopping.is_set():
            waited_ns = self._next()
            self._clock.captured_ns(self._arrived_ns, self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
            if waited_ns >= self._interval_ns / 2:
                break
        self._pending = self._number > 0

    def _next(self) -> int:
        """Take the next frame; return for how many nanoseconds it was waited for, the decoding not counted."""
        started_ns, worked_ns = time.monotonic_ns(), time.thread_time_ns()
        if not self._capture.grab():
            seconds = (time.monotonic_ns() - started_ns) / 1e9
            late = seconds >= self._camera.config.stall_timeout * 0.9
            why = f"no frame for {seconds:.1f} s" if late else "the camera ended the stream"
            raise CameraError(f"{self._place}: {why}")
        now_ns = time.monotonic_ns()
        waited_ns = now_ns - started_ns - (time.thread_time_ns() - worked_ns)
        if self._arrived_ns and waited_ns > self._interval_ns / 8:  # not of frames that had queued up
            between_ns = min(now_ns - self._arrived_ns, 1e9 / RATES[0])
            self._interval_ns += (between_ns - self._interval_ns) / 16
        self._arrived_ns = now_ns
        self._number += 1
        return waited_ns

    def _due(self, now_ns: int) -> bool:
        """Whether to convert this frame: for the model, or to see whether the picture moves, and has its size yet."""
        wanted = now_ns >= self._camera.due_ns - AHEAD * self._interval_ns
        sample = now_ns - self._converted_ns >= SAMPLE_NS
        looked = self._edge is None or now_ns - self._looked_ns < SAMPLE_NS or not self._key()
        return bool(self._pool) and (wanted or sample or not looked)

    def _convert(self) -> Picture | None:
        buffer = self._pool.popleft()
        ok, picture = self._capture.retrieve(buffer)
        self._converted_ns = time.monotonic_ns()
        if not ok or picture is None:
            self._pool.append(buffer)
            return None
        self._check_size(picture)
        return picture  # type: ignore[no-any-return]

    def _key(self) -> bool:
        """Whether this is a key frame, or its codec has no others."""
        return bool(self._capture.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME))

    def _check_size(self, picture: Picture) -> None:
        changed = False
        if self._edge is not None and self._key():
            changed, self._looked_ns = self._edge.left_behind(picture), self._converted_ns
        if written_bytes() != self._written:
            changed = changed or SIZE_CHANGED in written_since(self._written)
            self._written = written_bytes()
        if changed:
            raise CameraError(f"{self._place}: the size of its pictures has changed")


class Frame(Grab):
    """A frame that was converted, into a buffer of the `pool`; or, with None for its picture, one that was not."""

    def __init__(self, stamp: Stamp, picture: Picture | None, pool: deque[Picture | None]) -> None:
        super().__init__(stamp)
        self._picture, self._pool = picture, pool
        self.decodable = picture is not None

    def decode(self, into: Picture | None, enough: Enough | None = None) -> Picture | None:
        if self._picture is None:
            return None
        if into is None or into.shape != self._picture.shape:
            return self._picture.copy()
        np.copyto(into, self._picture)
        return into

    def fingerprint(self) -> int | None:
        return None if self._picture is None else zlib.crc32(self._picture[::ROWS].tobytes())

    def release(self) -> None:
        if self._picture is not None:
            self._pool.append(self._picture)
        self._picture = None


class StreamClock:
    """Tells from a stream's own clock when a frame was captured: by its arrival, one that queued up on the way would look young.

    The frame that took the shortest way within the last minute is the measure of all others: its way counts as no time at all.
    """

    BUCKET_NS = 30 * 10**9
    MAX_DRIFT = 0.01  # of a clock that is believed
    MAX_AGE_NS = 30 * 10**9  # older than that is no frame: the clock was set

    def __init__(self) -> None:
        self._began_ns = self._pts = 0
        self._current: int | None = None
        self._last: int | None = None
        self._believed = True

    def captured_ns(self, arrived_ns: int, pts_ns: float) -> int:
        """When the frame that arrived then was captured, not later than that."""
        pts = round(pts_ns) if 0 < pts_ns < 2**63 else 0  # 0: FFmpeg does not know
        if pts == 0:
            return arrived_ns
        if pts < self._pts:
            self._restart(arrived_ns)
        self._pts = pts
        delay = arrived_ns - pts
        if arrived_ns - self._began_ns >= self.BUCKET_NS:
            self._turn(arrived_ns)
        self._current = delay if self._current is None else min(delay, self._current)
        least = self._current if self._last is None else min(self._current, self._last)
        if delay - least > self.MAX_AGE_NS:
            self._restart(arrived_ns)
            return arrived_ns
        return arrived_ns - (delay - least) if self._believed else arrived_ns

    def _restart(self, arrived_ns: int) -> None:
        self._began_ns, self._pts = arrived_ns, 0
        self._current = self._last = None
        self._believed = True

    def _turn(self, arrived_ns: int) -> None:
        """The oldest half minute is forgotten. A clock that went wrong in the last one is not believed in the next."""
        if self._last is not None and self._current is not None:
            self._believed = abs(self._current - self._last) <= self.MAX_DRIFT * (arrived_ns - self._began_ns)
        self._last, self._current = self._current, None
        self._began_ns = arrived_ns


class LowerEdge:
    """Notices that pictures have become smaller where OpenCV does not: the rows below them stay as they were.

    A still scene stays as well, but a key frame codes everything anew, and changes it a little.
    """

    EDGE_ROWS = 4
    PROOFS = 3
    STILL_S = 4.0

    def __init__(self) -> None:
        self._edge = self._rest = 0
        self._changes = self._still = 0
        self._since = 0.0

    def left_behind(self, picture: Picture) -> bool:
        """Whether the lower edge of key frames, which used to change, stands still while the rest goes on."""
        edge = zlib.crc32(picture[-self.EDGE_ROWS :].tobytes())
        rest = zlib.crc32(picture[: -self.EDGE_ROWS : ROWS].tobytes())
        edge_moved, rest_moved = edge != self._edge, rest != self._rest
        self._edge, self._rest = edge, rest
        if edge_moved:
            self._changes, self._still, self._since = self._changes + 1, 0, time.monotonic()
        elif rest_moved:
            self._still += 1
        enough = self._changes > self.PROOFS and self._still >= self.PROOFS
        return enough and time.monotonic() - self._since >= self.STILL_S


def reason(written: str, url: str, late: bool) -> str:
    """Why it cannot be opened, from what FFmpeg wrote: one line without the address, which may hold a password."""
    lines = [_plain(line) for line in FFMPEG_LINE.findall(written) if not _secret(line, url)]
    for line in lines:
        if re.match(r"\d{3}\b", line):
            login = _login(url) if line.startswith("401") else "the camera refuses or fails"
            return f"{line}: {REFUSALS.get(line[:3], login)}"
        for sign, meaning in FAILURES.items():
            if sign in line:
                return meaning.format(host=urlsplit(url).hostname)
    if late:
        return f"no answer within {OPEN_S:g} s; is the camera on, and in this network?"
    return lines[-1] if lines else "it cannot be opened"


def _plain(line: str) -> str:
    """FFmpeg's words without an address, and a status as `404 Not Found`."""
    line = re.sub(r"\S+://\S*", "the camera", line)
    return re.sub(r"^method \w+ failed: (\d+) \(?([^)]*)\)?$", r"\1 \2", line)[:200]


def _secret(line: str, url: str) -> bool:
    user = urlsplit(url).netloc.rpartition("@")[0]
    bare = re.sub(r"\S+://\S*", "", line)
    parts = {part for raw in user.split(":", 1) for part in (raw, unquote(raw))}
    return any(part and part in bare for part in parts)


def _login(url: str) -> str:
    if urlsplit(url).username is None:
        return "it wants a user and a password: rtsp://USER:PASSWORD@HOST/…"
    return "user or password are wrong"


@contextmanager
def environment(transport: str) -> Iterator[str]:
    """What OpenCV's FFmpeg reads from the environment when it opens a stream. Yield the transport that it will use.

    What a user has set there comes last, and counts.
    """
    users = os.environ.get("OPENCV_FFMPEG_CAPTURE_OPTIONS")
    options = "|".join(filter(None, [f"rtsp_transport;{transport}", users]))
    ours = {
        "OPENCV_FFMPEG_CAPTURE_OPTIONS": options,
        "OPENCV_FFMPEG_THREADS": os.environ.get("OPENCV_FFMPEG_THREADS", "1"),  # more would hold back a frame each
        **dict.fromkeys(REROUTING),
    }
    before = {name: os.environ.get(name) for name in ours}
    _set(ours)
    try:
        yield re.findall(r"(?:^|\|)rtsp_transport;(\w+)", options)[-1]
    finally:
        _set(before)


def _set(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def written_bytes() -> int:
    """How much stands in standard error, where that is a file; else 0."""
    state = os.fstat(2)
    return state.st_size if stat.S_ISREG(state.st_mode) else 0


def written_since(position: int) -> str:
    """What was written to standard error since it had that length, where that can be read: the end of it."""
    end = written_bytes()
    start = max(position if position <= end else 0, end - WRITTEN_BYTES)
    try:
        with open("/proc/self/fd/2", "rb") as file:  # the descriptor itself may be open for writing only
            return os.pread(file.fileno(), end - start, start).decode(errors="replace")
    except OSError:
        return ""
