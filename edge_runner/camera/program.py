"""A camera that is a program: it writes frames to its standard output, raw ones of a fixed size or JPEGs.

The program is in the process group of whoever opens the camera, and does not outlive that; what it starts itself may, for as long
as it neither writes frames nor is killed with the group.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import queue
import select
import signal
import subprocess
import threading
import time
import warnings
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from edge_runner.camera.base import Camera, without_credentials
from edge_runner.camera.mjpeg import Splitter
from edge_runner.camera.pixels import Layout, RawFrame
from edge_runner.errors import CameraError
from edge_runner.frame import Stamp
from edge_runner.process import die_with_parent, signal_name

log = logging.getLogger(__name__)

PIPE_BYTES = 1 << 20  # the most that everybody may ask for
CHUNK_BYTES = 1 << 18  # of JPEGs
BUFFERS = 4  # being read, newest, being decoded, and one to spare
TERMINATE_S = 1.0  # from SIGTERM to SIGKILL
LAST_WORDS_S = 0.5  # to read what the program wrote on its way out

SAID_BYTES = 1 << 16
LINES_A_READ = 64  # of what a program says; of a flood the rest is dropped
LINES_A_SECOND = 10  # in the log
LINE_CHARACTERS = 300

PAUSE_MS = 3  # nothing comes for so long: a burst has ended
BURSTS_ALIKE = 12  # in a row, until their length is believed
BURST_LEAST, BURST_MOST = 0.5, 8.0  # frames; anything else is a network's packets or a backlog


class ProgramCamera(Camera):
    """Runs what `argv` says, and reads frames as `layout` says. Both must be overridden; `heard` and `rolls` may be.

    The program is killed when the thread that called `open` ends: that has to be the one that calls `close`.
    """

    live = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.refused: str | None = None
        """Why the frames will not do; `grab` raises it."""
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: threading.Thread | None = None
        self._wake: tuple[int, int] | None = None
        self._source: _Source | None = None
        self._last_line = ""

    @abstractmethod
    def argv(self) -> Sequence[str]:
        """The program and its arguments."""

    @abstractmethod
    def layout(self) -> Layout:
        """What it writes."""

    def heard(self, line: str) -> None:
        """Called, in a thread, with a line that the program wrote to its standard error."""
        return None

    def rolls(self, warning: str) -> None:
        """Called, once, where frames seem to have another size than the layout says."""
        log.warning("%s", warning)

    def open(self) -> None:
        self.close()
        layout = self.layout()
        self._frames: _RawFrames | _Jpegs = _RawFrames(layout, self.rolls) if layout.size_bytes else _Jpegs()
        self.refused, self._last_line = None, ""
        self._process = process = _start(self.argv())
        self._wake = os.pipe()
        assert process.stdout is not None
        assert process.stderr is not None
        with contextlib.suppress(OSError, AttributeError):  # a convenience, and Linux's alone
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._source = _Source(process.stdout.fileno(), self._wake[0])
        said = _Source(process.stderr.fileno(), self._wake[0])
        self._stderr = threading.Thread(target=self._listen, args=(said,), name="program-stderr")
        self._stderr.start()

    def grab(self) -> RawFrame | None:
        if self._source is None:
            raise CameraError("the camera is not open")
        frame = self._frames.next(self._source)
        self.torn = self._frames.torn
        if self.stopping.is_set():
            return None
        if self.refused:
            raise CameraError(self.refused)
        if frame is None:
            raise CameraError(self._how_it_ended())
        return frame

    def interrupt(self) -> None:
        super().interrupt()
        self._end()

    def close(self) -> None:
        self._end()
        if self._stderr is not None:
            self._stderr.join()
        if self._process is not None:
            assert self._process.stdout is not None
            assert self._process.stderr is not None
            self._process.stdout.close()
            self._process.stderr.close()
        for descriptor in self._wake or ():
            os.close(descriptor)
        self._process = self._stderr = self._wake = self._source = None

    def describe(self) -> str:
        layout = self.layout()
        size = f", {layout.width}x{layout.height}" if layout.size_bytes else ""
        return f"{os.path.basename(self.argv()[0])}: {layout.format}{size}"

    def _end(self) -> None:
        """End the program, by force where it does not follow."""
        if self._wake is not None:
            os.write(self._wake[1], b"x")
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(TERMINATE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _how_it_ended(self) -> str:
        assert self._process is not None
        assert self._stderr is not None
        name = os.path.basename(self.argv()[0])
        try:
            status = self._process.wait(LAST_WORDS_S)
            how = f"was killed by {signal_name(-status)}" if status < 0 else f"ended with exit status {status}"
        except subprocess.TimeoutExpired:
            how = "closed its output"
        self._stderr.join(LAST_WORDS_S)
        number = self._frames.number
        words = f": {self._last_line}" if self._last_line else ""
        return f"{name} {how} after {number} frame{'s' * (number != 1)}{words}"

    def _listen(self, said: _Source) -> None:
        """Read what the program says, so that it never waits for that; keep the last of it."""
        name, rest, allowance, refilled = os.path.basename(self.argv()[0]), b"", float(LINES_A_SECOND), time.monotonic()
        while said.wait() and (chunk := os.read(said.descriptor, SAID_BYTES)):
            *lines, rest = (rest + chunk).replace(b"\r", b"\n").rsplit(b"\n", LINES_A_READ)
            rest = rest[-SAID_BYTES:]
            if lines and b"\n" in lines[0]:
                del lines[0]  # all the rest of a flood
            elapsed, refilled = time.monotonic() - refilled, time.monotonic()
            allowance = min(LINES_A_SECOND, allowance + elapsed * LINES_A_SECOND)
            for line in filter(None, map(_readable, lines)):
                self._hear(line)
                if allowance >= 1:
                    allowance -= 1
                    log.debug("%s: %s", name, line)
        if line := _readable(rest):
            self._hear(line)

    def _hear(self, line: str) -> None:
        self._last_line = line
        self.heard(line)


class _Source:
    """What frames are read from: a pipe, and another one that ends the waiting for it."""

    def __init__(self, descriptor: int, wake: int) -> None:
        self.descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._poll.register(wake, select.POLLIN)
        self._wake = wake

    def wait(self, paused: Callable[[], None] | None = None) -> bool:
        """Wait for bytes, or the end; False where no more are wanted. `paused` is called where they take long."""
        ready = self._poll.poll(PAUSE_MS if paused else None)
        if not ready and paused:
            paused()
            ready = self._poll.poll()
        return all(descriptor != self._wake for descriptor, _ in ready)


class _RawFrames:
    """Frames of a fixed size, in a fixed number of buffers."""

    def __init__(self, layout: Layout, rolls: Callable[[str], None]) -> None:
        self.number = self.torn = 0
        self._layout, self._rolls = layout, rolls
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        self._bursts = Bursts(layout.size_bytes)
        self._bytes = 0
        for _ in range(BUFFERS):
            self._free.put(bytearray(layout.size_bytes))

    def next(self, source: _Source) -> RawFrame | None:
        """The next frame; None where there are no more."""
        buffer = self._free.get()
        if not self._fill(buffer, source):
            self._free.put(buffer)
            return None
        self.number += 1
        return RawFrame(_arrived(self.number), buffer, self._layout, lambda: self._free.put(buffer))

    def _fill(self, buffer: bytearray, source: _Source) -> bool:
        filled = 0
        with memoryview(buffer) as view:
            while filled < len(view):
                if not source.wait(self._paused):
                    return False
                count = os.readv(source.descriptor, [view[filled:]])
                if count == 0:
                    self.torn += filled > 0
                    return False
                filled += count
                self._bytes += count
        return True

    def _paused(self) -> None:
        warning = self._bursts.ended(self._bytes)
        if warning:
            self._rolls(warning)


class _Jpegs:
    """JPEGs, one after another. The pictures that came together are handed out in their order."""

    def __init__(self) -> None:
        self.number = 0
        self._splitter = Splitter()
        self._ready: deque[RawFrame] = deque()

    @property
    def torn(self) -> int:
        return self._splitter.torn

    def next(self, source: _Source) -> RawFrame | None:
        """The next picture; None where there are no more."""
        while not self._ready:
            if not source.wait():
                return None
            chunk = os.read(source.descriptor, CHUNK_BYTES)
            if not chunk:
                return None
            for picture in self._splitter.feed(chunk):
                self.number += 1
                stamp = _arrived(self.number + self.torn)
                self._ready.append(RawFrame(stamp, picture, Layout("mjpeg", 0, 0)))
        return self._ready.popleft()


class Bursts:
    """Finds out that frames have another size than was declared: a picture then rolls, and nothing else tells.

    A program writes a frame and waits for the next one. Bursts that are alike to the byte, many in a row, are frames;
    no slow pipe nor a busy machine makes them so.
    """

    def __init__(self, declared: int) -> None:
        self._declared = declared
        self._total = self._length = self._alike = 0
        self._warned = False

    def ended(self, total: int) -> str | None:
        """Say that the writer pauses after `total` bytes in all; a warning, once, where frames have another size."""
        length, self._total = total - self._total, total
        if length == 0:
            return None
        self._alike = self._alike + 1 if length == self._length else 1
        self._length = length
        likely = BURST_LEAST <= length / self._declared <= BURST_MOST
        fits = length % self._declared == 0 or self._declared % length == 0
        if self._warned or fits or not likely or self._alike < BURSTS_ALIKE:
            return None
        self._warned = True
        return (
            f"a frame of this width, height and format has {self._declared} bytes, but the program writes {length} at a time:"
            " the picture rolls until they are set to what it writes"
        )


def _start(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of a fork beside threads
        try:
            return subprocess.Popen(
                argv,
                bufsize=0,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                preexec_fn=_before_it_runs(),  # noqa: PLW1509 - it takes no locks
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise CameraError(f"{argv[0]} cannot be run: {reason.lower()}") from error


def _before_it_runs() -> Callable[[], None]:
    """What the child does before it becomes the program. Everything is looked up here, since the child may not: locks are held."""
    handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    default, setmask, guard = signal.SIG_DFL, signal.SIG_SETMASK, die_with_parent(os.getpid())
    set_handler, set_mask = signal.signal, signal.pthread_sigmask

    def prepare() -> None:
        for number in handled:
            set_handler(number, default)  # what is ignored here would be ignored there
        set_mask(setmask, ())
        guard()

    return prepare


def _arrived(number: int) -> Stamp:
    return Stamp(number, time.monotonic_ns(), time.time_ns())


def _readable(line: bytes) -> str:
    """A line for the log: short, printable, without passwords."""
    text = without_credentials(line.decode(errors="replace"))[:LINE_CHARACTERS]
    return "".join(character if character.isprintable() else " " for character in text).strip()
