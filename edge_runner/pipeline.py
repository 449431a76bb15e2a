"""The one path: frame -> input -> tensors -> result -> every output. Put together here, and walked one step at a time."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from edge_runner import config
from edge_runner.camera import CAMERAS
from edge_runner.camera.feed import Feed, make_feed
from edge_runner.config import Loaded
from edge_runner.errors import ConfigError, EdgeRunnerError, ModelError, SettingError, Several, blamed
from edge_runner.fields import Variants, load
from edge_runner.frame import Picture, Shot
from edge_runner.model import goldens
from edge_runner.model.bundle import GOLDENS, Model, open_model
from edge_runner.model.interpreter import Interpreter, find_runtime, thread_count
from edge_runner.model.preprocess import Preprocessor, Recipe
from edge_runner.output import OUTPUTS
from edge_runner.output.base import Origin, Output
from edge_runner.output.publisher import Publisher
from edge_runner.output.when import When
from edge_runner.result import Answers, Result
from edge_runner.settings import Settings
from edge_runner.task import TASKS
from edge_runner.task.base import ModelFacts, Task

log = logging.getLogger(__name__)

DEFAULT_TASK, RAW = "classify", "raw"
WHICH_TASK = ("task.type", "task.decoder")  # what is to blame where a model is of another task


@dataclass(frozen=True)
class Engine:
    """A loaded model with the recipe that prepares its input and the task that reads its outputs.

    `goldens` says in a few words how far this machine is from the host; None where they were not replayed.
    """

    model: Model
    interpreter: Interpreter
    preprocessor: Preprocessor
    task: Task
    goldens: str | None


@dataclass
class Counts:
    """What a run did."""

    results: dict[str, int] = field(default_factory=dict)
    """By the camera's name."""
    dropped: int = 0
    started: float = field(default_factory=time.monotonic)
    timing_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Board:
    """What the board says of itself: whether its clock is `synced`, and its `temperature` in degrees Celsius, where it tells."""

    synced: Callable[[], bool] = lambda: False
    temperature: Callable[[], float | None] = lambda: None

    def state(self) -> dict[str, Any]:
        return {"clock": "synced" if self.synced() else "unsynced", "temperature": self.temperature()}


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
        synced: Callable[[], bool],
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.feeds = dict(feeds)
        self.publisher = publisher
        self.counts = Counts()
        self._synced = synced
        self._doubted = False

    def __enter__(self) -> Pipeline:
        with ExitStack() as stack:
            stack.enter_context(self.publisher)
            for feed in self.feeds.values():
                stack.enter_context(feed)
            self._opened = stack.pop_all()
        self.counts = Counts()
        return self

    def __exit__(self, *_: object) -> None:
        for feed in self.feeds.values():
            feed.leave()
        self._opened.close()

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
        reasons = [f"{key}: {feed.trouble}" for key, feed in self.feeds.items() if feed.trouble]
        reasons += self.publisher.troubles
        silent = any(feed.name not in self.counts.results for feed in self.feeds.values())
        return {
            "health": "degraded" if reasons else "starting" if silent else "running",
            "reasons": reasons,
            "results": self.publisher.seq,
            "dropped": self.counts.dropped,
            "lost": sum(self.publisher.lost.values()),
            **self.publisher.figures(),
        }

    def _result(self, shot: Shot, answers: Answers, timing_ms: dict[str, float]) -> Result:
        return Result(
            device=str(self.settings.device),
            camera=shot.camera,
            run=self.publisher.run,
            seq=self.publisher.next_seq(),
            frame=shot.stamp.number,
            time_ns=shot.stamp.time_ns,
            clock="synced" if self._synced() else "unsynced",
            model=self.engine.model.name,
            version=self.engine.model.version,
            width=shot.geometry.width,
            height=shot.geometry.height,
            answers=answers,
            timing_ms=timing_ms,
            age_ms=(time.monotonic_ns() - shot.stamp.monotonic_ns) / 1e6 if shot.dropped is not None else None,
            dropped=shot.dropped,
            source=shot.stamp.source,
        )

    def _count(self, shot: Shot, timing_ms: Mapping[str, float]) -> None:
        self.counts.results[shot.camera] = self.counts.results.get(shot.camera, 0) + 1
        self.counts.dropped += shot.dropped or 0
        for stage, ms in timing_ms.items():
            self.counts.timing_ms[stage] = self.counts.timing_ms.get(stage, 0.0) + ms


def assemble(loaded: Loaded[Settings], board: Board | None = None, *, exact: bool = False) -> Pipeline:
    """Put everything together, and open nothing. `exact` is for the feeds.

    Raise what is wrong, or ConfigError with a line for each where it is more than one thing.
    """
    settings, board = loaded.value, board or Board()
    errors: list[EdgeRunnerError] = []
    for key, camera in settings.sources.items():
        with _noted(errors), blamed(key):
            load(CAMERAS[camera.type])(camera).verify()
    with _noted(errors):
        engine = build_engine(settings)
    outputs: dict[str, Output] = {}
    for index, output in enumerate(settings.outputs):
        key = f"outputs.{index}"
        outputs[key] = load(OUTPUTS[output.type])(output)
        with _noted(errors), blamed(key):
            outputs[key].verify()
    with _noted(errors):
        _keep_apart(outputs)
    if not errors:
        with _noted(errors):
            _fit_outputs(outputs, engine.task)
    if len(errors) > 1:
        raise ConfigError([loaded.locate(error) for error in errors])
    if errors:
        raise errors[0]
    exact = exact or any(output.takes_pictures for output in outputs.values())
    feeds = {key: make_feed(camera, engine.preprocessor, exact=exact) for key, camera in settings.sources.items()}
    return put_together(settings, engine, feeds, outputs, board)


def put_together(
    settings: Settings, engine: Engine, feeds: Mapping[str, Feed], outputs: Mapping[str, Output], board: Board
) -> Pipeline:
    """A pipeline of its parts. Results wait for outputs where all cameras are files, which can wait."""
    origin = Origin(
        device=str(settings.device),
        cameras=tuple(str(camera.name) for camera in settings.sources.values()),
        task=engine.task.Config.type,
        labels=engine.task.kept_labels,
        draw=_draw,
        state=lambda: {**pipeline.state(), **board.state()},
    )
    publisher = Publisher(outputs, origin, patient=not any(feed.live for feed in feeds.values()))
    pipeline = Pipeline(settings, engine, feeds, publisher, board.synced)
    return pipeline


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


def build_engine(settings: Settings) -> Engine:
    """Load the model and fit recipe, task and labels to it; raise what is wrong with them, all at once."""
    model = open_model(settings.model)
    errors: list[EdgeRunnerError] = []
    threads = 1  # good enough to find the other mistakes with
    with _noted(errors):
        threads = thread_count(settings.model.threads)
    interpreter = model.load(find_runtime(settings.model.runtime), threads)
    if len(interpreter.inputs) != 1:
        listed = ", ".join(map(str, interpreter.inputs))
        raise ModelError(
            f"{model.path} has {len(interpreter.inputs)} inputs ({listed}); a camera's picture feeds just one",
            key="model.path",
        )
    preprocessor = None
    with _noted(errors):
        preprocessor = Preprocessor(_recipe(settings, model), interpreter.inputs[0])
    with _noted(errors):
        task = build_task(model, interpreter, preprocessor, settings.task or {})
    replayed = None
    if not errors and settings.model.check_goldens and model.manifest:
        with _noted(errors):
            replayed = replay_goldens(model, interpreter)
    if errors:
        raise errors[0] if len(errors) == 1 else Several(errors)
    assert preprocessor is not None
    if model.manifest and model.manifest.proof.get("verdict") != "passed":
        why = "; ".join(model.manifest.proof.get("objections", ())) or "its answers are not the SavedModel's"
        log.warning("%s: the proof of this bundle failed when it was built: %s", model.path, why)
    if preprocessor.doubt:
        log.warning("%s: %s", model.path, preprocessor.doubt)
    if task.decided:
        log.info("%s: the outputs are read as %s", model.path, task.reading)
    return Engine(model, interpreter, preprocessor, task, replayed)


def build_task(
    model: Model, interpreter: Interpreter, preprocessor: Preprocessor | None, given: Mapping[str, Any]
) -> Task:
    """The task of a model: what its manifest says of it, with what is given put over that. `preprocessor` None: no pictures."""
    says = dict(model.manifest.task) if model.manifest else {}
    name = given.get("type") or says.get("type") or DEFAULT_TASK
    if name not in TASKS:
        raise ModelError(
            f"{model.path} is for the task '{name}'; this edge-runner knows {', '.join(TASKS)}: upgrade it",
            key="model.path",
        )
    if name == says.get("type"):
        _log_overrides("task", given, says)
    else:
        says = {}
    cls = load(TASKS[name])
    try:
        task_config = config.check({**says, **given}, cls.Config, f"the task of {model.path}")
    except ConfigError as error:
        raise ModelError("; ".join(error.problems), key="task") from error
    size = (preprocessor.width, preprocessor.height) if preprocessor else None
    facts = model_facts(model, interpreter, size)
    try:
        task: Task = cls(task_config, facts)
    except ModelError as error:
        others = [other for other in fitting_tasks(facts) if other != name]
        if error.key not in WHICH_TASK or not others:
            raise
        raise ModelError(f"{error}; set task.type: {' or '.join(others)}, which fits", key="task.type") from error
    return task


def model_facts(model: Model, interpreter: Interpreter, size: tuple[int, int] | None) -> ModelFacts:
    """What tasks are told of a model whose input picture is of `size`, (width, height)."""
    return ModelFacts(interpreter.outputs, model.graph.endings(), model.labels, model.labels_source, size)


def fitting_tasks(facts: ModelFacts) -> list[str]:
    """The tasks that could read such outputs, by their own account; `raw`, which reads any, is none of them."""
    found = []
    for name in TASKS:
        with suppress(EdgeRunnerError):
            if name != RAW:
                load(TASKS[name])(Variants(TASKS).config(name)(), facts)
                found.append(name)
    return found


def replay_goldens(model: Model, interpreter: Interpreter) -> str:
    """Prove on this machine that a bundle answers as it did on the host, and say how far off it is at most.

    Raise ModelError where it is too far off, or answers otherwise.
    """
    assert model.manifest is not None
    stored = goldens.read_goldens(model.path / GOLDENS)
    recipe = model.manifest.preprocess
    _refuse(model, goldens.recipe_differences(stored, recipe))
    preprocessor = Preprocessor(recipe, interpreter.inputs[0]) if recipe else None
    task = build_task(model, interpreter, preprocessor, {})
    deviations = goldens.replay(stored, preprocessor, interpreter, task.same_answer, task.chosen)
    _refuse(model, [fault for deviation in deviations for fault in deviation.faults])
    return goldens.summary(stored, deviations)


def _refuse(model: Model, faults: Sequence[str]) -> None:
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise ModelError(f"{model.path}: {faults[0]}{more}", key="model.path")


@contextmanager
def _noted(errors: list[EdgeRunnerError]) -> Iterator[None]:
    try:
        yield
    except EdgeRunnerError as error:
        errors += _each(error)


def _each(error: EdgeRunnerError) -> list[EdgeRunnerError]:
    return error.errors if isinstance(error, Several) else [error]


def _recipe(settings: Settings, model: Model) -> Recipe:
    given = dict(settings.preprocess or {})
    bundled = model.manifest and model.manifest.preprocess
    if bundled:
        _log_overrides("preprocess", given, goldens.recipe_dict(bundled) or {})
        return Recipe(**{**bundled.__dict__, **given})
    missing = [key for key in ("color", "mean", "std") if key not in given]
    if missing and model.manifest:
        raise ModelError(
            f"{model.path} was built without a recipe: it is not fed pictures, or preprocess must set {', '.join(missing)};"
            " `edge-runner inspect` replays its goldens",
            key="model.path",
        )
    if missing:
        raise SettingError(
            f"{model.path} does not say how its pictures are prepared; set {', '.join(missing)}"
            " (as it was trained: the model sees (x - mean) / std, with x in 0..255)",
            key="preprocess",
        )
    return Recipe(**given)


def _log_overrides(part: str, given: Mapping[str, Any], says: Mapping[str, Any]) -> None:
    for key, value in given.items():
        shown = list(value) if isinstance(value, tuple) else value
        if key in says and shown != says[key]:
            log.warning("%s.%s: %s overrides the bundle's %s", part, key, shown, says[key])
