"""The daemon's loop: one frame after the other, until the file ends or a signal comes."""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from edge_runner.camera.feed import Feed
from edge_runner.errors import CameraError, NoFrameError, OutputError
from edge_runner.frame import Shot
from edge_runner.pipeline import Counts, Pipeline, blamed

log = logging.getLogger(__name__)

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """SIGINT and SIGTERM as a descriptor that becomes readable: the handlers do nothing, the loop acts."""

    def __enter__(self) -> Signals:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._handlers = [(number, signal.signal(number, _ignore)) for number in STOPPING]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers:
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._before)
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        return self._read

    def take(self) -> str:
        """The name of the signal that came."""
        return signal.Signals(os.read(self._read, 1)[0]).name


def run(pipeline: Pipeline) -> None:
    """Run until the camera's file ends or a signal comes.

    Raise CameraError where no frame at all could be read, and OutputError where a file's results could not all be kept.
    """
    with Signals() as signals, pipeline:
        try:
            stopped = _loop(pipeline, signals)
        except BrokenPipeError:
            stopped = "whoever read the results has gone"
    _summarize(pipeline, stopped)


def once(pipeline: Pipeline) -> None:
    """One frame, one result. Raise NoFrameError where no frame comes, and OutputError where the result could not be kept."""
    with first_shot(pipeline) as shot:
        pipeline.step(shot)
    _refuse_losses(pipeline.counts)


@contextmanager
def first_shot(pipeline: Pipeline) -> Iterator[Shot]:
    """Open the pipeline for one frame. Raise NoFrameError where none comes within `camera.start_timeout`."""
    timeout_s = pipeline.settings.camera.start_timeout
    with pipeline:
        with blamed("camera"):
            pipeline.feed.want()
            ready, _, _ = select.select([pipeline.feed], [], [], timeout_s)
            if not ready:
                raise NoFrameError(f"no frame within {timeout_s:g} s", key="start_timeout")
            shot = pipeline.feed.take()
            if shot is None:
                raise NoFrameError("no frame could be read", key="path")
        yield shot


def _loop(pipeline: Pipeline, signals: Signals) -> str:
    """Return why it ended: empty at the end of a file."""
    feed, max_fps = pipeline.feed, pipeline.settings.camera.max_fps
    interval_s = 1 / max_fps if max_fps else 0.0
    sources: list[Signals | Feed] = [signals, feed]
    due = time.monotonic()
    while True:
        wait_s = due - time.monotonic()
        if wait_s > 0:
            ready, _, _ = select.select(sources[:1], [], [], wait_s)
        else:
            feed.want()
            ready, _, _ = select.select(sources, [], [])
        if signals in ready:
            return signals.take()
        if feed not in ready:
            continue
        with blamed("camera"):
            shot = feed.take()
        if shot is None:
            return ""
        due = max(due + interval_s, time.monotonic())
        pipeline.step(shot)
        feed.release(shot)


def _summarize(pipeline: Pipeline, stopped: str) -> None:
    counts, camera = pipeline.counts, pipeline.camera
    if stopped:
        log.info("stopped: %s", stopped)
    log.info("%s", summary(counts, camera.skipped))
    if not stopped and not counts.results:
        raise CameraError("no frame could be read", key="camera.path")
    if not stopped:
        _refuse_losses(counts)


def _refuse_losses(counts: Counts) -> None:
    if counts.lost:
        lost = ", ".join(f"{count} at {key}" for key, count in counts.lost.items())
        raise OutputError(f"results were lost: {lost}")


def summary(counts: Counts, skipped: int) -> str:
    """What a run did, in one line."""
    elapsed_s = time.monotonic() - counts.started
    parts = [f"{counts.results} results in {elapsed_s:.1f} s"]
    if counts.results:
        parts.append(f"{counts.results / elapsed_s:.1f} a second")
        parts.append(", ".join(f"{stage} {ms / counts.results:.2f} ms" for stage, ms in counts.timing_ms.items()))
    if counts.dropped:
        parts.append(f"{counts.dropped} live frames dropped")
    if skipped:
        parts.append(f"{skipped} frames skipped as unreadable")
    return "; ".join(parts)


def _ignore(number: int, frame: FrameType | None) -> None:
    """The byte that Python writes to the wake-up descriptor is all that is needed."""
