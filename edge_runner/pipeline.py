"""The one path: frame -> input -> tensors -> result -> every output. Put together here, and walked one step at a time."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from edge_runner.camera import CAMERAS
from edge_runner.camera.base import CameraConfig
from edge_runner.camera.feed import Feed, make_feed
from edge_runner.config import Loaded
from edge_runner.engine import Engine, build_engine
from edge_runner.errors import ConfigError, EdgeRunnerError, Reason, SettingError, blamed, noted
from edge_runner.fields import load
from edge_runner.frame import Picture, Shot, Stamp
from edge_runner.output import OUTPUTS
from edge_runner.output.base import Origin, Output
from edge_runner.output.publisher import Publisher
from edge_runner.output.when import When
from edge_runner.result import Answers, Result
from edge_runner.settings import Settings
from edge_runner.task.base import Task

CLOCK_STEP_NS = 10**9  # what a time service slews, between a frame and its result, is far less

log = logging.getLogger(__name__)


@dataclass
class Counts:
    """What a run did."""

    results: dict[str, int] = field(default_factory=dict)
    """By the camera's name."""
    dropped: int = 0
    started: float = field(default_factory=time.monotonic)
    timing_ms: dict[str, float] = field(default_factory=dict)
    age_ms: float | None = None
    """Of the last result of a live camera."""


@dataclass
class Board:
    """Where a pipeline runs: whether its clock is `synced`, and who is told of it.

    `tell` is given the pipeline's state and returns it with what the service and the board have to say; outputs get that. `stage`
    is told what takes time, before the pipeline is there.
    """

    synced: Callable[[], bool] = lambda: False
    tell: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    stage: Callable[[str], None] = lambda words: None
    pipeline: Pipeline | None = None
    """The one that runs, or is about to."""

    def state(self) -> Mapping[str, Any]:
        return self.tell(self.pipeline.state() if self.pipeline else {})


class Pipeline:
    """Everything that the cameras need, put together and checked. Entering it opens the outputs and the cameras.

    `feeds` has a feed for each camera, under its key in the configuration.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        feeds: Mapping[str, Feed],
        publisher: Publisher,
        board: Board,
        *,
        exact: bool = False,
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.feeds = dict(feeds)
        self.publisher = publisher
        self.board = board
        self.counts = Counts()
        self.silent = self._names()
        """The names of cameras that have given no result yet."""
        self._exact = exact
        self._doubted = False

    def __enter__(self) -> Pipeline:
        with ExitStack() as stack:
            stack.enter_context(self.publisher)
            for feed in self.feeds.values():
                stack.enter_context(feed)
            stack.pop_all()
        self.counts = Counts()
        self.silent = self._names()
        self.board.pipeline = self
        return self

    def __exit__(self, *_: object) -> None:
        try:
            _close(self.feeds.values())
        finally:
            self.publisher.__exit__()

    def take_over(self, before: Pipeline) -> None:
        """Take the place of the one that it was assembled with, which runs, between two frames: what both have is not touched.

        Raise what a new output raises that cannot be opened; then the one before runs on as it did.
        """
        self.publisher.take_over(before.publisher)
        kept = [feed for feed in self.feeds.values() if feed in before.feeds.values()]
        _close([feed for feed in before.feeds.values() if feed not in kept])
        alike = self.engine.prepares_like(before.engine)
        for key, feed in self.feeds.items():
            feed.config, feed.exact = self.settings.sources[key], self._exact
            if feed not in kept:
                feed.__enter__()
            elif not alike:
                feed.refit(self.engine.preprocessor)
        self.counts = before.counts
        self.silent = {feed.name for feed in self.feeds.values() if feed not in kept or feed.name in before.silent}
        self.board.pipeline = self

    def step(self, shot: Shot) -> Result:
        """Turn one prepared frame into one result and hand it to every output."""
        started = time.perf_counter()
        tensors = self.engine.interpreter.run(shot.input)
        inferred = time.perf_counter()
        answers = self.engine.task.decode(tensors, shot.geometry)
        ended = time.perf_counter()
        timing_ms = {**shot.timing_ms, "inference": (inferred - started) * 1e3, "postprocess": (ended - inferred) * 1e3}
        if answers.doubt and not self._doubted:
            self._doubted = True
            log.warning("%s: %s (said once)", self.engine.model.path, answers.doubt)
        self._count(shot, timing_ms)
        return self.publisher.publish(self._result(shot, answers, timing_ms), shot)

    def state(self) -> dict[str, Any]:
        """How it goes just now, as JSON has it: `health` is starting | running | degraded, and `reasons` says why."""
        reasons = self.reasons()
        return {
            "health": "degraded" if reasons else "starting" if self.silent else "running",
            "reasons": list(map(str, reasons)),
            "results": self.publisher.seq,
            "dropped": self.counts.dropped,
            "lost": sum(self.publisher.lost.values()) + self.publisher.lost_before,
            **self.publisher.figures(),
        }

    def reasons(self) -> list[Reason]:
        """What is wrong with cameras, model and outputs just now."""
        cameras = [
            Reason(f"camera_{feed.kind}", f"{key}: {trouble}")
            for key, feed in self.feeds.items()
            if (trouble := feed.trouble)
        ]
        instead, runs = self.engine.instead, f"{self.engine.model.name} {self.engine.model.version}"
        model = [Reason("model_fallback", f"{instead}; {runs} runs instead")] if instead else []
        return [*cameras, *model, *self.publisher.troubles]

    def _names(self) -> set[str]:
        return {feed.name for feed in self.feeds.values()}

    def _result(self, shot: Shot, answers: Answers, timing_ms: dict[str, float]) -> Result:
        return Result(
            device=str(self.settings.device),
            camera=shot.camera,
            run=self.publisher.run,
            seq=self.publisher.next_seq(),
            frame=shot.stamp.number,
            time_ns=shot.stamp.time_ns,
            clock="synced" if self.board.synced() and not _clock_was_set(shot.stamp) else "unsynced",
            model=self.engine.model.name,
            version=self.engine.model.version,
            width=shot.geometry.width,
            height=shot.geometry.height,
            answers=answers,
            timing_ms=timing_ms,
            age_ms=self.counts.age_ms,
            dropped=shot.dropped,
            source=shot.stamp.source,
        )

    def _count(self, shot: Shot, timing_ms: Mapping[str, float]) -> None:
        """The result itself comes last: who sees it, from another thread, sees the rest as well."""
        live = shot.dropped is not None
        self.counts.age_ms = (time.monotonic_ns() - shot.stamp.monotonic_ns) / 1e6 if live else None
        self.counts.dropped += shot.dropped or 0
        for stage, ms in timing_ms.items():
            self.counts.timing_ms[stage] = self.counts.timing_ms.get(stage, 0.0) + ms
        self.counts.results[shot.camera] = self.counts.results.get(shot.camera, 0) + 1
        self.silent.discard(shot.camera)


def assemble(
    loaded: Loaded[Settings],
    board: Board | None = None,
    *,
    exact: bool = False,
    before: Pipeline | None = None,
    refused: str | None = None,
    way_back: bool = True,
) -> Pipeline:
    """Put everything together, and open nothing. `exact` is for the feeds.

    With `before`, a pipeline that runs, whose place this one is to take: what is the same is not made anew. It was tried out
    already. `refused` and `way_back` are for an installed model, as build_engine has them.

    Raise what is wrong, or ConfigError with a line for each where it is more than one thing.
    """
    settings, board = loaded.value, board or Board()
    errors: list[EdgeRunnerError] = []
    unusable: list[EdgeRunnerError] = []
    _verify_cameras(settings, errors)
    outputs = _verified_outputs(settings, unusable)
    with noted(errors):
        stage, running = (board.stage, None) if before is None else (_untold, before.engine)
        engine = build_engine(settings, stage, running, refused, partial(_fit_outputs, outputs), way_back)
    _raise_all(loaded, [*errors, *unusable])
    exact = exact or any(output.takes_pictures for output in outputs.values())
    alike = before is not None and before.engine.prepares_like(engine)
    there = [feed for feed in before.feeds.values() if alike or feed.live] if before else []
    feeds = {
        key: _taken_out(there, camera) or make_feed(camera, engine.preprocessor, exact=exact)
        for key, camera in settings.sources.items()
    }
    return put_together(settings, engine, feeds, outputs, board, exact=exact, before=before)


def verify(loaded: Loaded[Settings]) -> None:
    """Raise what is wrong with cameras and outputs, as `assemble` does; the model is not looked at."""
    errors: list[EdgeRunnerError] = []
    _verify_cameras(loaded.value, errors)
    _verified_outputs(loaded.value, errors)
    _raise_all(loaded, errors)


def _verify_cameras(settings: Settings, errors: list[EdgeRunnerError]) -> None:
    for key, camera in settings.sources.items():
        with noted(errors), blamed(key):
            load(CAMERAS[camera.type])(camera).verify()


def _verified_outputs(settings: Settings, errors: list[EdgeRunnerError]) -> dict[str, Output]:
    outputs: dict[str, Output] = {}
    for index, output in enumerate(settings.outputs):
        key = f"outputs.{index}"
        outputs[key] = load(OUTPUTS[output.type])(output)
        with noted(errors), blamed(key):
            outputs[key].verify()
    with noted(errors):
        _keep_apart(outputs)
    return outputs


def _raise_all(loaded: Loaded[Settings], errors: Sequence[EdgeRunnerError]) -> None:
    if len(errors) > 1:
        raise ConfigError([loaded.locate(error) for error in errors])
    if errors:
        raise errors[0]


def put_together(
    settings: Settings,
    engine: Engine,
    feeds: Mapping[str, Feed],
    outputs: Mapping[str, Output],
    board: Board,
    *,
    exact: bool = False,
    before: Pipeline | None = None,
) -> Pipeline:
    """A pipeline of its parts. Results wait for outputs where all cameras are files, which can wait."""
    origin = Origin(
        device=str(settings.device),
        cameras=tuple(str(camera.name) for camera in settings.sources.values()),
        task=engine.task.Config.type,
        labels=engine.task.kept_labels,
        draw=_draw,
        state=board.state,
    )
    patient = not any(feed.live for feed in feeds.values())
    publisher = Publisher(outputs, origin, patient=patient, before=before.publisher if before else None)
    pipeline = Pipeline(settings, engine, feeds, publisher, board, exact=exact)
    board.pipeline = board.pipeline or pipeline
    return pipeline


def _taken_out(feeds: list[Feed], camera: CameraConfig) -> Feed | None:
    """The feed of a camera with the same settings; how often it is asked for a frame is not the camera's affair."""
    for feed in feeds:
        if replace(feed.config, max_fps=camera.max_fps) == camera:
            feeds.remove(feed)
            return feed
    return None


def _close(feeds: Collection[Feed]) -> None:
    """All at once: each may need a while."""
    for feed in feeds:
        feed.leave()
    for feed in feeds:
        feed.__exit__()


def _untold(words: str) -> None:
    """A reload is no start."""


def _clock_was_set(stamp: Stamp) -> bool:
    """Whether that happened between a frame's capture and now: then its time is by the clock before."""
    since_boot_ns = time.time_ns() - time.monotonic_ns()
    return abs(since_boot_ns - (stamp.time_ns - stamp.monotonic_ns)) > CLOCK_STEP_NS


def _draw(picture: Picture, answers: Answers) -> None:
    """Loaded where it is needed: most boards draw nothing."""
    load("edge_runner.task.draw:draw")(picture, answers)


def _keep_apart(outputs: Mapping[str, Output]) -> None:
    """Raise SettingError where two outputs of a kind would write to one place: each believes that it is its own."""
    taken: dict[tuple[str, str], str] = {}
    for key, output in outputs.items():
        for name, path in vars(output.config).items():
            if isinstance(path, Path):
                first = taken.setdefault((output.config.type, os.path.realpath(path)), key)
                if first != key:
                    raise SettingError(f"{first} writes to {path} already; name another place", key=f"{key}.{name}")


def _fit_outputs(outputs: Mapping[str, Output], task: Task) -> None:
    """Raise SettingError where an output cannot do what is wanted of it with this task."""
    if outputs and task.arrays and not any(o.takes_arrays for o in outputs.values()):
        raise SettingError(
            f"{task.arrays}; add an output that keeps them, {{type: npz, path: tensors}}, or raise it",
            key="task.max_values",
        )
    for key, output in outputs.items():
        when = output.config.when or When()
        if not task.kept_labels and when != When(min_interval=when.min_interval):
            raise SettingError(f"the answers of task {task.Config.type} have no labels and scores", key=f"{key}.when")
        for label in when.labels or ():
            if label not in task.kept_labels:
                close = get_close_matches(label, task.kept_labels, 1)
                hint = f"did you mean '{close[0]}'?" if close else f"it has {', '.join(task.kept_labels[:5]) or 'none'}"
                raise SettingError(f"no answer has the label '{label}'; {hint}", key=f"{key}.when.labels")
