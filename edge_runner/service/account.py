"""The account of a run: what it did, in one line, and whether it did its work."""

from __future__ import annotations

import time
from collections.abc import Collection

from edge_runner.camera.feed import Feed
from edge_runner.errors import CameraError, OutputError
from edge_runner.pipeline import Counts, Pipeline


def require_results(pipeline: Pipeline) -> None:
    """A run that ended by itself has to have done its work."""
    for key, feed in pipeline.feeds.items():
        if not pipeline.counts.results.get(feed.name):
            raise CameraError("no frame could be read", key=f"{key}.path")
    lost = [f"{count} at {key}" for key, count in pipeline.publisher.lost.items()]
    lost += [f"{pipeline.publisher.lost_before} at outputs that are closed"] * bool(pipeline.publisher.lost_before)
    if lost:
        raise OutputError(f"results were lost: {', '.join(lost)}")


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
