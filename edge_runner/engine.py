"""The engine: a loaded model with its recipe and its task, fitted to each other, and proven by its goldens."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from edge_runner import config
from edge_runner.errors import ConfigError, EdgeRunnerError, ModelError, SettingError, Several, noted
from edge_runner.fields import Variants, load
from edge_runner.model import goldens
from edge_runner.model.bundle import GOLDENS, Model, named, open_model
from edge_runner.model.interpreter import Interpreter, find_runtime, thread_count
from edge_runner.model.preprocess import Preprocessor, Recipe
from edge_runner.model.store import Store
from edge_runner.settings import Settings
from edge_runner.task import TASKS
from edge_runner.task.base import ModelFacts, Task

log = logging.getLogger(__name__)

DEFAULT_TASK, RAW = "classify", "raw"
WHICH_TASK = ("task.type", "task.decoder")  # what is to blame where a model is of another task


@dataclass(frozen=True)
class Engine:
    """A loaded model with the recipe that prepares its input and the task that reads its outputs.

    `settings` is what it was built of. `goldens` says in a few words how far this machine is from the host; None where they were
    not replayed. `instead` says why the version that was asked for did not come up; None of that one.
    """

    settings: Settings

    model: Model
    interpreter: Interpreter
    preprocessor: Preprocessor
    task: Task
    goldens: str | None
    instead: str | None = None

    def prepares_like(self, other: Engine) -> bool:
        """Whether the input of both is prepared alike."""
        mine, theirs = self.preprocessor, other.preprocessor
        return (mine.recipe, mine.spec) == (theirs.recipe, theirs.spec)

    def is_for(self, settings: Settings, model: Model) -> bool:
        """Whether it is what would be built of these."""
        mine, theirs = self.settings, settings
        wanted = (mine.model, mine.preprocess, mine.task) == (theirs.model, theirs.preprocess, theirs.task)
        return wanted and replace(model, graph=self.model.graph) == self.model


def build_engine(
    settings: Settings,
    stage: Callable[[str], None] = lambda words: None,
    before: Engine | None = None,
    refused: str | None = None,
    fits: Callable[[Task], None] = lambda task: None,
    way_back: bool = True,
) -> Engine:
    """Load the model and fit recipe, task and labels to it; raise what is wrong with them, all at once.

    With a `way_back`, an installed model that does not come up is replaced by its previous version. But with `before`, the engine
    that runs, that one runs on; it is returned where it is the same, and what is new was tried out already. `refused` says why the
    active version is not to be loaded; at a start, it is all the same where no other one comes up. `stage` is told what takes
    time; `fits` raises what the task cannot be used for.
    """
    if before and refused and before.is_for(settings, before.model):
        fits(before.task)
        return replace(before, instead=refused)
    try:
        if refused:
            raise ModelError(refused, key="model.name")
        return _active(settings, stage, before, fits)
    except EdgeRunnerError as error:
        if before or not way_back:
            raise
        if engine := _previous(settings, stage, fits, error):
            return engine
        if not refused:
            raise
    log.warning("%s; but no other version comes up, so it is loaded all the same", refused)
    return _active(settings, stage, None, fits)


def _active(
    settings: Settings, stage: Callable[[str], None], before: Engine | None, fits: Callable[[Task], None]
) -> Engine:
    """What the settings name: of an installed model, the active version."""
    with named(settings.model):
        return _build(settings, stage, before, fits)


def _previous(
    settings: Settings, stage: Callable[[str], None], fits: Callable[[Task], None], error: EdgeRunnerError
) -> Engine | None:
    """Of an installed model, the version before the active one, which does not come up because of the error.

    None where there is none, or that one does not either.
    """
    name = settings.model.name
    previous = Store().previous(name) if name else None
    if previous is None:
        return None
    older = replace(settings, model=replace(settings.model, name=None, path=previous))
    with suppress(EdgeRunnerError):
        engine = _build(older, stage, None, fits)
        why, runs = _why(error), f"{engine.model.name} {engine.model.version}"
        log.error("the active version of model %s does not come up: %s; %s runs instead", name, why, runs)
        return replace(engine, settings=settings, instead=why)
    return None


def _why(error: EdgeRunnerError) -> str:
    """What is wrong with a version, with the setting that does not go together with it."""
    errors = error.errors if isinstance(error, Several) else [error]
    return "; ".join(f"{each.key}: {each}" if isinstance(each, SettingError) else str(each) for each in errors)


def _build(
    settings: Settings, stage: Callable[[str], None], before: Engine | None, fits: Callable[[Task], None]
) -> Engine:
    stage("reading the model")
    model = open_model(settings.model)
    if before and before.is_for(settings, model):
        fits(before.task)
        return replace(before, instead=None)
    stage(f"loading {model.name} {model.version}")
    errors: list[EdgeRunnerError] = []
    threads = 1  # good enough to find the other mistakes with
    with noted(errors):
        threads = thread_count(settings.model.threads)
    interpreter = model.load(find_runtime(settings.model.runtime), threads)
    if len(interpreter.inputs) != 1:
        listed = ", ".join(map(str, interpreter.inputs))
        raise ModelError(
            f"{model.path} has {len(interpreter.inputs)} inputs ({listed}); a camera's picture feeds just one",
            key="model.path",
        )
    preprocessor = None
    with noted(errors):
        preprocessor = Preprocessor(_recipe(settings, model), interpreter.inputs[0])
    with noted(errors):
        task = build_task(model, interpreter, preprocessor, settings.task or {})
        fits(task)
    replayed = None
    if not errors and settings.model.check_goldens and model.manifest and not before:
        stage(f"proving {model.name} {model.version}")
        with noted(errors):
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
    return Engine(settings, model, interpreter, preprocessor, task, replayed)


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
