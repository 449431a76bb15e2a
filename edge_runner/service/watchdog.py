"""Watches the daemon from a thread of its own, and tells how it goes: systemd, the log, a file for other programs, and outputs."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_runner.errors import Reason
from edge_runner.fields import OutputPath
from edge_runner.model.bundle import Model
from edge_runner.pipeline import Board, Pipeline
from edge_runner.result import rfc3339
from edge_runner.service.device import clock_synced, disk_free, vitals
from edge_runner.service.health import BoardReasons, Health, Sample, State
from edge_runner.service.instances import HEALTH_FILE
from edge_runner.service.progress import SLOWER, Progress
from edge_runner.service.systemd import Systemd

TICK_S = 1.0
ANEW_S = 10.0  # between two tellings of how fast it goes
SAMPLE_S = 5.0  # between two looks at the board
JOIN_S = 1.0
NOTICEABLE = 1.3  # times the fastest inference: slower than that is worth a word
DEVICES = Path("/dev")

log = logging.getLogger(__name__)


class Watchdog:
    """Enter it once there is a pipeline on the `board`. The loop reports to `progress`, and says what else is wrong by `note`.

    `folder` is where health.json goes, in memory, not on the card: systemd's $RUNTIME_DIRECTORY, or None. `masked` takes passwords
    out of what is told.
    """

    def __init__(
        self,
        systemd: Systemd,
        folder: Path | None = None,
        config: str = "",
        masked: Callable[[str], str] = str,
    ) -> None:
        self.systemd = systemd
        self._watchdog_s = systemd.watchdog_s
        self.progress = Progress(systemd.watchdog_s)
        self.board = Board(clock_synced, self.tell, systemd.stage)
        self._config = config
        self._masked = masked
        self.folder = folder
        self._health = Health()
        self._explained = BoardReasons()
        self._pace = Pace()
        self._notes: dict[str, str] = {}
        self._sampled = Sampled(self._sample)
        self._told: tuple[State, Pipeline | None, float] = State(), None, 0.0
        self._missing: Reason | None = None
        self._ready = False
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._work, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self.progress = Progress(self.systemd.watchdog_s)
        self._sampled.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._sampled.stop()
        self._thread.join()
        self.hush()
        self.systemd.close()

    def hush(self) -> None:
        """Say nothing in health.json: there may be one of a daemon that was killed."""
        if self.folder:
            with suppress(OSError):
                (self.folder / HEALTH_FILE).unlink()

    def note(self, code: str, words: str | None) -> None:
        """Something that is wrong until it is said, with None, that it is not."""
        self._notes = {**{c: w for c, w in self._notes.items() if c != code}, **({code: words} if words else {})}

    def reloading(self) -> None:
        if self._ready:
            self.systemd.reloading()

    def reloaded(self) -> None:
        """Whatever came of it."""
        if self._ready:
            self.systemd.ready()

    def stopping(self) -> None:
        """The end has begun."""
        self.progress.leaving = True
        if self.board.pipeline and _started(self.board.pipeline):
            self._greet()  # a file may have ended before the first look: to systemd, that was no start
        self.systemd.stopping()

    def tell(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
        """A pipeline's state with the daemon's health, and what the board says of itself. From any thread."""
        health, sample = self._health.state, self._sampled.value
        return {
            **state,
            "health": health.name,
            "reasons": list(map(str, health.reasons)),
            "clock": "synced" if sample.synced else "unsynced",
            "temperature": sample.vitals.temperature_c,
            "throttled": bool(sample.vitals.throttling),
        }

    def _work(self) -> None:
        while not self._leaving.wait(self._tick_s):
            try:
                self._look()
            except Exception as error:  # noqa: PERF203 - a fault of ours: systemd hears nothing until it is over
                log.error("the watchdog fails: unexpected %s: %s", type(error).__name__, error)

    @property
    def _tick_s(self) -> float:
        """Four times in the shortest interval that systemd allows, at least."""
        return TICK_S if self.systemd.watchdog_s is None else min(TICK_S, self.systemd.watchdog_s / 4)

    def _look(self) -> None:
        pipeline = self.board.pipeline
        assert pipeline
        hangs = self.progress.missing(pipeline.publisher)
        self._warn(hangs)
        found = [*pipeline.reasons(), *(Reason(*note) for note in self._notes.items())]
        found += self._explained.of(self._sampled.value, self._pace.slowness)
        reasons = [Reason(reason.code, self._masked(reason.words)) for reason in found]
        state = self._health.judge(reasons, hangs, bool(pipeline.silent))
        if _started(pipeline):
            self._greet()
        if hangs is None:
            if not self._ready:
                self.systemd.stage("waiting for the first frame of each camera")
            self._allow_for_slow_models()
            self.systemd.alive()
        self._publish(pipeline, state)

    def _greet(self) -> None:
        """Once: it is up."""
        if not self._ready:
            self._ready = True
            self.systemd.ready()

    def _warn(self, hangs: Reason | None) -> None:
        """Before systemd ends it, which says nothing of why."""
        if hangs and not self._missing:
            kill = "; systemd will start it anew" if self.systemd.watchdog_s else ""
            log.error("no proof of progress any more: %s%s", hangs.words, kill)
        if self._missing and not hangs:
            log.warning("there is progress again")
        self._missing = hangs

    def _allow_for_slow_models(self) -> None:
        """And take it back, where it was slow for once."""
        needed_s, watched_s = 2 * SLOWER * self.progress.slowest_s, self.systemd.watchdog_s
        if self._watchdog_s and watched_s:
            needed_s = max(self._watchdog_s, needed_s)
            if needed_s > watched_s or needed_s < watched_s / 2:
                self.systemd.watch_every(needed_s)

    def _publish(self, pipeline: Pipeline, state: State) -> None:
        told, of, told_at = self._told
        now = time.monotonic()
        if state == told and pipeline is of and now - told_at < ANEW_S:
            return
        self._told = state, pipeline, now
        self._pace.measure(pipeline)
        status = f"{state.name}: {self._pace}" + "".join(f"; {reason}" for reason in state.reasons)
        self.systemd.status(status)
        if self.folder:
            self._write(pipeline, status)

    def _write(self, pipeline: Pipeline, status: str) -> None:
        model = pipeline.engine.model
        content = {
            "time": rfc3339(time.time_ns()),
            "monotonic": time.monotonic(),
            "pid": os.getpid(),
            "config": self._config,
            "status": status,
            "model": {"name": model.name, "version": model.version},
            **self._pace.figures(),
            **self.board.state(),
        }
        assert self.folder
        new = self.folder / f".{HEALTH_FILE}"
        with suppress(OSError):
            new.write_text(json.dumps(content) + "\n")
            new.chmod(0o644)  # for everybody, whatever the service's umask
            new.replace(self.folder / HEALTH_FILE)

    def _sample(self) -> Sample:
        pipeline = self.board.pipeline
        folders = _written(pipeline) if pipeline else ()
        free = tuple((folder, left) for folder in folders if (left := disk_free(folder)) is not None)
        return Sample(vitals(), clock_synced(), free)


def runtime_folder() -> Path | None:
    """Systemd's, for what nobody needs after the daemon."""
    folder = os.environ.get("RUNTIME_DIRECTORY")
    return Path(folder.split(":")[0]) if folder else None


class Sampled:
    """A value that is read again and again, by a thread of its own: a dead disk or bus that holds it up, holds up nobody else."""

    def __init__(self, read: Callable[[], Sample]) -> None:
        self.value = Sample()
        self._read = read
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._work, name="board", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """One that is held up is left behind."""
        self._leaving.set()
        self._thread.join(JOIN_S)

    def _work(self) -> None:
        while True:
            try:
                self.value = self._read()
            except Exception as error:
                log.debug("the board cannot be looked at: %s: %s", type(error).__name__, error)
            if self._leaving.wait(SAMPLE_S):
                return


class Pace:
    """How fast it goes, from one measurement to the next."""

    def __init__(self) -> None:
        self._before = (time.monotonic(), 0, 0, 0.0)
        self._model: Model | None = None
        self._rate = self._dropped = 0.0
        self._age_ms: float | None = None
        self._inference_ms: float | None = None
        self._fastest_ms: float | None = None

    def measure(self, pipeline: Pipeline) -> None:
        counts, now = pipeline.counts, time.monotonic()
        new = (now, sum(counts.results.values()), counts.dropped, counts.timing_ms.get("inference", 0.0))
        seconds, results, dropped, inference_ms = (b - a for a, b in zip(self._before, new, strict=True))
        self._before, self._age_ms = new, counts.age_ms
        self._rate, self._dropped = (results / seconds, dropped / seconds) if seconds else (0.0, 0.0)
        if pipeline.engine.model is not self._model:  # between two models, their figures are of neither
            self._model, self._inference_ms, self._fastest_ms = pipeline.engine.model, None, None
        elif results:
            self._inference_ms = inference_ms / results
            self._fastest_ms = min(self._fastest_ms or self._inference_ms, self._inference_ms)

    @property
    def slowness(self) -> str:
        """How much slower the inference has become; empty where it has not."""
        if not self._inference_ms or not self._fastest_ms or self._inference_ms < NOTICEABLE * self._fastest_ms:
            return ""
        return f", an inference takes {self._inference_ms:.1f} ms instead of {self._fastest_ms:.1f}"

    def figures(self) -> dict[str, float | None]:
        return {"fps": round(self._rate, 2), "age_ms": self._age_ms and round(self._age_ms, 1)}

    def __str__(self) -> str:
        age = "" if self._age_ms is None else f", {self._age_ms:.0f} ms old, {self._dropped:.1f} frames/s dropped"
        return f"{self._rate:.1f} results/s{age}"


def _started(pipeline: Pipeline) -> bool:
    """Each camera has given a frame, or is in its retry."""
    return all(feed.trouble or feed.name not in pipeline.silent for feed in pipeline.feeds.values())


def _written(pipeline: Pipeline) -> Collection[Path]:
    """The folders that outputs write to."""
    found = set()
    for config in pipeline.settings.outputs:
        for value in vars(config).values():
            if isinstance(value, Path) and DEVICES not in value.parents:
                place = OutputPath().base(Path()) / value
                found.add(place if os.path.isdir(place) else place.parent)
    return found
