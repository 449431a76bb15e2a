"""The daemon's loop: one frame after the other, of whichever camera's turn it is, until the files end or a signal comes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_runner.errors import EdgeRunnerError, ModelError, NoWayBackError, OutputError, blamed
from edge_runner.frame import Shot
from edge_runner.model.store import Store
from edge_runner.pipeline import Pipeline, assemble
from edge_runner.service import reload
from edge_runner.service.account import require_results, summary
from edge_runner.service.attempts import Attempts
from edge_runner.service.reload import Reload, Source
from edge_runner.service.signals import Signals
from edge_runner.service.systemd import Systemd
from edge_runner.service.turns import Lane, Turns
from edge_runner.service.watchdog import Watchdog

ROUND_S = 1.0  # between two looks at what is not a frame
HANG_VARIABLE = "EDGE_RUNNER_HANG"  # a path: while it is there, the model hangs
HANG_S = 0.05

log = logging.getLogger(__name__)


def brought_up(source: Source, watchdog: Watchdog) -> Pipeline:
    """Read the configuration and put everything together; raise what is wrong.

    An installed model that kills the daemon again and again is left out, where another version of it comes up.
    """
    watchdog.hush()
    loaded = source.read()
    name = loaded.value.model.name
    attempts = Attempts(watchdog.folder)
    refused = attempts.begin(Store().active(name) if name else None)
    try:
        return assemble(loaded, watchdog.board, refused=refused)
    finally:
        attempts.over()


def run(pipeline: Pipeline, signals: Signals, watchdog: Watchdog | None = None, source: Source | None = None) -> None:
    """Run until every camera's file has ended, or a signal comes. A live camera never ends.

    With a `source`, SIGHUP has the configuration read again, and another version of an installed model is taken up once it is
    active.
    Raise CameraError where no frame at all could be read, and OutputError where a file's results could not all be kept.
    """
    Daemon(pipeline, signals, watchdog or Watchdog(Systemd({})), source).run()


class Daemon:
    """The loop, and what is changed while it runs."""

    def __init__(self, pipeline: Pipeline, signals: Signals, watchdog: Watchdog, source: Source | None) -> None:
        self.pipeline = pipeline
        self._signals = signals
        self._watchdog = watchdog
        self._source = source
        self._reload: Reload | None = None
        self._again = False
        self._turns = Turns({})
        self._active = _running(pipeline)
        self._look_at = 0.0
        self._hang = os.environ.get(HANG_VARIABLE)

    def run(self) -> None:
        """All of it; at the end one line on what was done."""
        self._adopt(self.pipeline)
        self.pipeline.__enter__()
        with self._watchdog:
            try:
                stopped = self._loop()
            except BrokenPipeError:
                stopped = "whoever read the results has gone"
                if self._watchdog.systemd.listens:  # as 0, it would stay down for good
                    raise OutputError(stopped) from None
            finally:
                self._watchdog.stopping()
                self.pipeline.__exit__()
        if stopped:
            log.info("stopped: %s", stopped)
        pipeline = self.pipeline
        log.info("%s", summary(pipeline.counts, pipeline.feeds.values(), pipeline.publisher.reports()))
        if not stopped:
            require_results(pipeline)

    def _loop(self) -> str:
        """Return why it ended: empty at the end of the last file."""
        while self._turns.lanes:
            lane = self._next()
            if lane is not None:
                self._serve(lane)
            else:
                self._signals.read()
            if self._signals.stopped:
                return self._signals.stopped
            self._look_round()
        return ""

    def _next(self) -> Lane | None:
        """The lane that has a shot, once one has; None where there may be something else to do."""
        progress, until = self._watchdog.progress, time.monotonic() + ROUND_S
        beside = [self._signals.fileno(), *([self._reload.fileno()] if self._reload else [])]
        if not self.pipeline.engine.interpreter.loaded:
            progress.round(())
            self._turns.idle(beside, until)
            return None
        lane = self._turns.next(beside, until)
        progress.round(self._turns.lanes)
        return lane

    def _serve(self, lane: Lane) -> None:
        with blamed(lane.key):
            shot = lane.feed.take()
        if shot is None:
            self._turns.end(lane)
            return
        lane.turn(time.monotonic())
        with self._watchdog.progress.step():
            if self._hang:
                _hang_while_there(self._hang)
            self._step(shot)
        lane.feed.release(shot)

    def _step(self, shot: Shot) -> None:
        with _not_for_good():
            self.pipeline.step(shot)

    def _look_round(self) -> None:
        """Whatever else there may be to do: once a second, or when a signal or a reload says so."""
        now = time.monotonic()
        if self._reload and self._reload.heard():
            self._go_on_with(self._reload)
        if self._signals.reload:
            self._signals.reload = False
            self._begin_reload("SIGHUP")
        if now >= self._look_at:
            self._look_at = now + ROUND_S
            self._watch_store()
            if self._reload and self._reload.overdue:
                self._forsake(self._reload)

    # What changes while it runs.

    def _watch_store(self) -> None:
        """Take up another version of an installed model."""
        name = self.pipeline.settings.model.name
        active = _identity(Store().active(name)) if name and self._source else None
        if active and active != self._active:
            self._active = active
            self._begin_reload(f"version {active[0].name} of model {name} is active now")

    def _begin_reload(self, why: str) -> None:
        if self._source is None:
            log.warning("%s: there is nothing to be read again", why)
        elif self._reload:
            self._again = True
        else:
            log.info("reload: %s; %s is read and tried out", why, self._source.config)
            self._watchdog.reloading()
            self._reload = Reload(self._source, self.pipeline, self._watchdog.board, reload.memory)

    def _go_on_with(self, attempt: Reload) -> None:
        engine = self.pipeline.engine
        if attempt.wants_room:
            log.warning("reload: %s; %s stops until the other one is ready", attempt.wants_room, engine.model.name)
            self._watchdog.note("memory", f"{attempt.wants_room}: no results until another model is ready")
            engine.interpreter.unload()
            attempt.give_room()
        if attempt.done:
            self._reload = None
            attempt.close()
            self._conclude(attempt)
            self._begin_again()

    def _begin_again(self) -> None:
        """Where that was asked for during the last one."""
        if self._again:
            self._again = False
            self._begin_reload("again")

    def _forsake(self, attempt: Reload) -> None:
        """Without the model that runs, only a new start helps."""
        if not self.pipeline.engine.interpreter.loaded:
            raise EdgeRunnerError("the reload does not come to an end, and there is no memory for two models")
        words = "it does not come to an end; is there a disk or a network drive that hangs?"
        log.error("reload: %s all goes on as before", words)
        self._watchdog.note("reload_failed", words)
        self._reload = None
        attempt.forsake()
        self._watchdog.reloaded()
        self._begin_again()

    def _conclude(self, attempt: Reload) -> None:
        error, new = attempt.error, attempt.pipeline
        paused = not self.pipeline.engine.interpreter.loaded
        if new:
            try:
                new.take_over(self.pipeline)
            except NoWayBackError:
                raise
            except EdgeRunnerError as unopened:
                error = attempt.located(unopened)
            else:
                if new.engine.instead and new.engine.instead != self.pipeline.engine.instead:
                    runs = f"{new.engine.model.name} {new.engine.model.version}"
                    log.error("reload: %s; %s runs on", new.engine.instead, runs)
                changes = _changes(self.pipeline, new)
                self._adopt(new)
                log.info("reload: done; %s", changes)
        if error:
            log.error("reload: %s; all goes on as before", error)
        self._watchdog.note("reload_failed", error)
        engine = self.pipeline.engine
        if not engine.interpreter.loaded:
            with _not_for_good():
                engine.interpreter.load(engine.model.content)
        if paused:
            self._turns.refresh()
            self._watchdog.note("memory", None)
        self._watchdog.reloaded()

    def _adopt(self, pipeline: Pipeline) -> None:
        """This is the one that runs from now on."""
        if pipeline.settings.model.name != self.pipeline.settings.model.name:
            self._active = _running(pipeline)
        self.pipeline = pipeline
        pipeline.publisher.stopping = self._signals.pending
        self._turns = Turns(pipeline.feeds, self._turns.lanes)


Identity = tuple[Path, int, int]
"""Of an installed version: where it is, and which folder that is, for one that was mended is another one in the same place."""


def _running(pipeline: Pipeline) -> Identity | None:
    """The version of an installed model that was taken up, or tried: None of any other model."""
    engine, name = pipeline.engine, pipeline.settings.model.name
    if name is None:
        return None
    return _identity(Store().active(name) if engine.instead else engine.model.path)


def _identity(version: Path | None) -> Identity | None:
    with suppress(OSError):
        if version:
            found = version.stat()
            return version, found.st_ino, found.st_mtime_ns
    return None


def _changes(old: Pipeline, new: Pipeline) -> str:
    """What a reload changed, in one line."""
    parts = []
    if new.engine.interpreter is not old.engine.interpreter:
        parts.append(f"model {new.engine.model.name} {new.engine.model.version}")
    before, now = old.feeds.values(), new.feeds.values()
    opened = [feed.name for feed in now if feed not in before]
    parts += [f"camera {name} opened anew" for name in opened]
    parts += [f"camera {feed.name} closed" for feed in before if feed not in now and feed.name not in opened]
    outputs = old.publisher.outputs.values()
    parts += [f"{key} opened anew" for key, output in new.publisher.outputs.items() if output not in outputs]
    gone = sum(output not in new.publisher.outputs.values() for output in outputs)
    parts += [f"{gone} output{'s' if gone > 1 else ''} closed"] * bool(gone)
    return ", ".join(parts) or "nothing had to be opened anew"


@contextmanager
def _not_for_good() -> Iterator[None]:
    """A model that came up may do so again: what is wrong with it now is no reason to stay down."""
    try:
        yield
    except ModelError as error:
        raise EdgeRunnerError(str(error), key=error.key) from error


def _hang_while_there(path: str) -> None:
    """For tests of what watches the daemon: a model that does not answer."""
    while os.path.exists(path):
        time.sleep(HANG_S)
