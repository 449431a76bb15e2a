"""The doctor's look at models: the installed ones, and the configuration's. Their goldens are replayed, in child processes.

Root, too, has those of the store loaded with the rights of its owner.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from edge_runner import config
from edge_runner.engine import Engine, build_engine
from edge_runner.errors import EdgeRunnerError, ModelError, SettingError, noted
from edge_runner.model.probe import UntriedError, ask, first_to_go
from edge_runner.model.rights import as_owner
from edge_runner.model.store import Store
from edge_runner.process import child_code
from edge_runner.settings import Settings
from edge_runner.tools.doctor import Board, Finding, served
from edge_runner.tools.models import PROOF_TIMEOUT_S, ask_for_proof

HIDDEN = (Path("/home"), Path("/root"))  # from the service, by its unit's ProtectHome
CHILD = child_code(__name__, "print(doctor_models.trial(sys.stdin.read()))")


def store(board: Board) -> Iterator[Finding]:
    """The active version of each installed model but the configuration's; nothing is said where there is none."""
    installed = Store()
    for name in installed.names():
        folder = installed.active(name)
        if folder and not (board.loaded and board.loaded.value.model.name == name):
            with as_owner(installed.folder):
                finding = _proven(name, folder, _way_back(installed, name))
            yield finding
    idle = {place.parent.name: place.name for place in installed.versions() if not installed.active(place.parent.name)}
    for name, version in idle.items():
        remedy = f"edge-runner model activate {name}@{version}"
        yield Finding("warning", f"model {name}: installed, but no version is active", (), (remedy,))


def model(board: Board) -> Iterator[Finding]:
    """The configuration's, as the daemon will load it."""
    assert board.loaded is not None
    installed, chosen = Store(), board.loaded.value.model
    active = installed.active(chosen.name) if chosen.name else None
    stored = (_way_back(installed, active.parent.name),) if active else ()
    try:
        with as_owner(installed.folder) if active else nullcontext():
            said = ask(CHILD, [], _as_json(board.loaded.value), PROOF_TIMEOUT_S)
    except ModelError as error:
        yield _not_proven(f"model {chosen.name or chosen.path}:", error, stored)
        return
    for key, text in said["mistakes"]:
        wrong = board.loaded.locate(SettingError(text, key=key))
        yield Finding("problem", wrong, (), stored if key == "model.name" else ())
    if said["instead"]:
        yield Finding("problem", f"model {chosen.name}: {said['instead']}", (), stored)
    elif not said["mistakes"]:
        doubts = (*said["doubts"], *_hidden(chosen.path, board))
        yield Finding("warning" if doubts else "ok", said["text"], (), doubts)


def trial(settings: str) -> str:
    """The child: what comes of these settings, `_as_json`'s, as JSON. `mistakes` have the keys to blame."""
    first_to_go()
    errors: list[EdgeRunnerError] = []
    answer: dict[str, Any] = {"error": None, "instead": None}
    with noted(errors):
        engine = build_engine(config.check(json.loads(settings), Settings, "standard input"))
        answer |= {"instead": engine.instead, "text": _text(engine), "doubts": list(_doubts(engine))}
    return json.dumps({**answer, "mistakes": [(error.key, str(error)) for error in errors]})


def _as_json(settings: Settings) -> bytes:
    """What an engine is built of."""
    given = {"model": dataclasses.asdict(settings.model), "preprocess": settings.preprocess, "task": settings.task}
    return json.dumps(given, default=str).encode()


def _text(engine: Engine) -> str:
    proof = f"goldens hold: {engine.goldens}" if engine.goldens else "no goldens were replayed"
    return f"model {engine.model.name} {engine.model.version} on {engine.interpreter.runtime}; {proof}"


def _doubts(engine: Engine) -> Iterator[str]:
    """What speaks against a model that runs."""
    if engine.preprocessor.doubt:
        yield engine.preprocessor.doubt
    if engine.model.manifest and engine.model.manifest.proof.get("verdict") != "passed":
        yield "the proof of this bundle failed when it was built: its report.md says why"


def _hidden(path: Path | None, board: Board) -> Iterator[str]:
    """Whether the service cannot get at it."""
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
        said = ask_for_proof(folder)
    except ModelError as error:
        return _not_proven(f"{subject}, but", error, (remedy,))
    if said["error"]:
        return Finding("problem", f"{subject}, but {said['error']}", (), (remedy,))
    return Finding("ok", f"{subject}; goldens hold: {said['goldens']}")


def _not_proven(subject: str, error: ModelError, remedies: tuple[str, ...]) -> Finding:
    """The child died of it; or it could not be had, which is not the model's fault."""
    if isinstance(error, UntriedError):
        return Finding("warning", f"{subject} it {error}")
    return Finding("problem", f"{subject} it {error}", (), remedies)
