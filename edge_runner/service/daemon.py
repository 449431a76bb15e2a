"""The daemon's loop: one frame after the other, until the file ends or a signal comes."""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager

from edge_runner.camera.feed import Feed
from edge_runner.errors import CameraError, NoFrameError, OutputError, blamed
from edge_runner.frame import Shot
from edge_runner.pipeline import Counts, Pipeline
from edge_runner.service.signals import Signals

log = logging.getLogger(__name__)


def run(pipeline: Pipeline, signals: Signals) -> None:
    """Run until the camera's file ends or a signal comes.

    Raise CameraError where no frame at all could be read, and OutputError where a file's results could not all be kept.
    """
    signals.blocks = lambda: pipeline.publisher.writing
    with pipeline:
        try:
            stopped = _loop(pipeline, signals)
        except BrokenPipeError:
            stopped = "whoever read the results has gone"
    if stopped:
        log.info("stopped: %s", stopped)
    log.info("%s", summary(pipeline.counts, pipeline.feed.skipped))
    if not stopped:
        _require_results(pipeline)


def once(pipeline: Pipeline) -> None:
    """One frame, one result. Raise NoFrameError where no frame comes, and OutputError where the result could not be kept."""
    with first_shot(pipeline) as shot:
        pipeline.step(shot)
    _require_results(pipeline)


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


def _require_results(pipeline: Pipeline) -> None:
    """A run that ended by itself has to have done its work."""
    if not pipeline.counts.results:
        raise CameraError("no frame could be read", key="camera.path")
    if pipeline.publisher.lost:
        lost = ", ".join(f"{count} at {key}" for key, count in pipeline.publisher.lost.items())
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
