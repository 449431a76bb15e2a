"""The doctor's look at models: the installed ones, and the configuration's. Their goldens are replayed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge_runner.engine import Engine, build_engine, replay_goldens
from edge_runner.errors import EdgeRunnerError, Several
from edge_runner.model.bundle import ModelConfig, open_model
from edge_runner.model.interpreter import find_runtime
from edge_runner.model.store import Store
from edge_runner.tools.doctor import Board, Finding, hushed, served

HIDDEN = (Path("/home"), Path("/root"))  # from the service, by its unit's ProtectHome


def store(board: Board) -> Iterator[Finding]:
    """The active version of each installed model but the configuration's; nothing is said where there is none."""
    installed = Store()
    for name in installed.names():
        folder = installed.active(name)
        if folder and not (board.loaded and board.loaded.value.model.name == name):
            yield _proven(name, folder, _way_back(installed, name))
    idle = {place.parent.name: place.name for place in installed.versions() if not installed.active(place.parent.name)}
    for name, version in idle.items():
        remedy = f"edge-runner model activate {name}@{version}"
        yield Finding("warning", f"model {name}: installed, but no version is active", (), (remedy,))


def model(board: Board) -> Iterator[Finding]:
    """The configuration's, as the daemon will load it."""
    assert board.loaded is not None
    name = board.loaded.value.model.name
    stored = (_way_back(Store(), name),) if name and Store().active(name) else ()
    try:
        with hushed(build_engine.__module__):
            engine = build_engine(board.loaded.value)
    except EdgeRunnerError as error:
        for each in error.errors if isinstance(error, Several) else [error]:
            yield Finding("problem", board.loaded.locate(each), (), stored if each.key == "model.name" else ())
        return
    if engine.instead:
        yield Finding("problem", f"model {name}: {engine.instead}", (), stored)
        return
    proof = f"goldens hold: {engine.goldens}" if engine.goldens else "no goldens were replayed"
    text = f"model {engine.model.name} {engine.model.version} on {engine.interpreter.runtime}; {proof}"
    doubts = tuple(_doubts(engine, board))
    yield Finding("warning" if doubts else "ok", text, (), doubts)


def _doubts(engine: Engine, board: Board) -> Iterator[str]:
    """What speaks against a model that runs."""
    if engine.preprocessor.doubt:
        yield engine.preprocessor.doubt
    if engine.model.manifest and engine.model.manifest.proof.get("verdict") != "passed":
        yield "the proof of this bundle failed when it was built: its report.md says why"
    path = engine.settings.model.path
    if path and served(board) and any(parent in HIDDEN for parent in path.absolute().parents):
        yield f"the service does not see {path}: edge-runner model install it, and name it by `model.name`"


def _way_back(installed: Store, name: str) -> str:
    """What helps where the active version is not what it was."""
    before = installed.previous(name)
    if before:
        return f"edge-runner model rollback {name}: {before.name} ran before"
    return f"install it again: edge-runner model install {name}-….tar.gz"


def _proven(name: str, folder: Path, remedy: str) -> Finding:
    """One version: hashes, loading, goldens."""
    subject = f"model {name}: {folder.name} is active"
    try:
        found = open_model(ModelConfig(path=folder))
        held = replay_goldens(found, found.load(find_runtime())) if found.manifest else "a bare file, without goldens"
    except EdgeRunnerError as error:
        return Finding("problem", f"{subject}, but {error}", (), (remedy,))
    return Finding("ok", f"{subject}; {'goldens hold: ' if found.manifest else ''}{held}")
