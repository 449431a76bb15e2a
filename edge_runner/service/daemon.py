"""The daemon's loop: one frame after the other, of whichever camera's turn it is, until the files end or a signal comes."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from edge_runner.camera.feed import Feed
from edge_runner.errors import CameraError, NoFrameError, OutputError, blamed
from edge_runner.frame import Shot
from edge_runner.pipeline import Counts, Pipeline
from edge_runner.service.signals import Signals
from edge_runner.service.turns import Lane, Turns

log = logging.getLogger(__name__)


def run(pipeline: Pipeline, signals: Signals) -> None:
    """Run until every camera's file has ended, or a signal comes. A live camera never ends.

    Raise CameraError where no frame at all could be read, and OutputError where a file's results could not all be kept.
    """
    pipeline.publisher.stopping = signals.pending
    with pipeline:
        try:
            stopped = _loop(pipeline, signals)
        except BrokenPipeError:
            stopped = "whoever read the results has gone"
    if stopped:
        log.info("stopped: %s", stopped)
    log.info("%s", summary(pipeline.counts, pipeline.feeds.values(), pipeline.publisher.reports()))
    if not stopped:
        _require_results(pipeline)


def once(pipeline: Pipeline) -> None:
    """One frame and one result of each camera. Raise NoFrameError where none comes, and OutputError where a result was lost."""
    with pipeline:
        for lane, shot in _first_shots(pipeline):
            pipeline.step(shot)
            lane.feed.release(shot)
    _require_results(pipeline)


@contextmanager
def first_shot(pipeline: Pipeline) -> Iterator[Shot]:
    """Open a pipeline of one camera for one frame. Raise NoFrameError where none comes within its `start_timeout`."""
    with pipeline:
        for _, shot in _first_shots(pipeline):
            yield shot


def _first_shots(pipeline: Pipeline) -> Iterator[tuple[Lane, Shot]]:
    """The first shot of each camera, in the order in which they come; at the end, raise NoFrameError for those that gave none."""
    turns, started = Turns(pipeline.feeds), time.monotonic()
    errors: list[CameraError] = []
    while turns.lanes:
        ends = {lane.key: started + lane.feed.config.start_timeout for lane in turns.lanes}
        lane = turns.next(until=min(ends.values()))
        if lane is None:
            for late in [lane for lane in turns.lanes if ends[lane.key] <= time.monotonic()]:
                errors.append(_no_frame(late))
                turns.end(late)
            continue
        with blamed(lane.key):
            shot = lane.feed.take()
        turns.end(lane)
        if shot is None:
            errors.append(NoFrameError("no frame could be read", key=f"{lane.key}.path"))
        else:
            yield lane, shot
    if errors:
        raise errors[0] if len(errors) == 1 else NoFrameError("; ".join(f"{error.key}: {error}" for error in errors))


def _no_frame(lane: Lane) -> NoFrameError:
    why = lane.feed.trouble or "it does not answer"
    return NoFrameError(f"no frame within {lane.feed.config.start_timeout:g} s: {why}", key=f"{lane.key}.start_timeout")


def _loop(pipeline: Pipeline, signals: Signals) -> str:
    """Return why it ended: empty at the end of the last file."""
    turns = Turns(pipeline.feeds)
    while turns.lanes:
        lane = turns.next([signals.fileno()])
        if lane is None:
            return signals.take()
        with blamed(lane.key):
            shot = lane.feed.take()
        if shot is None:
            turns.end(lane)
            continue
        lane.turn(time.monotonic())
        pipeline.step(shot)
        lane.feed.release(shot)
    return ""


def _require_results(pipeline: Pipeline) -> None:
    """A run that ended by itself has to have done its work."""
    for key, feed in pipeline.feeds.items():
        if not pipeline.counts.results.get(feed.name):
            raise CameraError("no frame could be read", key=f"{key}.path")
    if pipeline.publisher.lost:
        lost = ", ".join(f"{count} at {key}" for key, count in pipeline.publisher.lost.items())
        raise OutputError(f"results were lost: {lost}")


def summary(counts: Counts, feeds: Collection[Feed], reports: Collection[str] = ()) -> str:
    """What a run did, in one line."""
    elapsed_s, results = time.monotonic() - counts.started, sum(counts.results.values())
    parts = [f"{results} results in {elapsed_s:.1f} s"]
    if results:
        parts.append(f"{results / elapsed_s:.1f} a second")
        parts.append(", ".join(f"{stage} {ms / results:.2f} ms" for stage, ms in counts.timing_ms.items()))
    if len(counts.results) > 1:
        parts.append(", ".join(f"{name} {count}" for name, count in counts.results.items()))
    if counts.dropped:
        parts.append(f"{counts.dropped} live frames dropped")
    if skipped := sum(feed.skipped for feed in feeds):
        parts.append(f"{skipped} frames skipped as unreadable")
    for feed in feeds:
        parts += [f"{feed.name}: {', '.join(f'{count} times {what}' for what, count in feed.spoilt.items())}"] * bool(
            feed.spoilt
        )
    return "; ".join([*parts, *reports])
