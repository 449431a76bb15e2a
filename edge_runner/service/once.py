"""One frame of each camera, and no more: `--once`, and what `snapshot` shows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from edge_runner.errors import CameraError, NoFrameError, blamed
from edge_runner.frame import Shot
from edge_runner.pipeline import Pipeline
from edge_runner.service.account import require_results
from edge_runner.service.turns import Lane, Turns


def once(pipeline: Pipeline) -> None:
    """One frame and one result of each camera. Raise NoFrameError where none comes, and OutputError where a result was lost."""
    with pipeline:
        for lane, shot in _first_shots(pipeline):
            pipeline.step(shot)
            lane.feed.release(shot)
    require_results(pipeline)


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
