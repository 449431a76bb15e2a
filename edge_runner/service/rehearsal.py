"""Tries out a configuration in a child process, whole, while the daemon runs on: a model that crashes or hangs there harms nobody.

The child assembles a pipeline, opens nothing, and writes a JSON object: {"problems": […], "instead": …}, empty and null where all
is well.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_runner.errors import ConfigError, EdgeRunnerError, ModelError, noted
from edge_runner.model.probe import first_to_go
from edge_runner.pipeline import assemble
from edge_runner.process import child_code, child_command, die_with_parent, signal_name
from edge_runner.service.systemd import STAGE_S
from edge_runner.settings import load_settings

TIMEOUT_S = STAGE_S  # what comes up in that time does at a start as well
CHILD = child_code(__name__, "rehearsal.main()")


def rehearse(config: Path, sets: Sequence[str], timeout_s: float = TIMEOUT_S) -> str | None:
    """Raise ConfigError with a line for each mistake, or ModelError where the child dies of it.

    Return why the active version of an installed model does not come up, where all else is well; None where it does.
    """
    command = child_command(CHILD, str(config), *sets)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            preexec_fn=die_with_parent(os.getpid()),
        )
    except subprocess.TimeoutExpired:
        raise ModelError(f"it was not tried out within {timeout_s:g} s") from None
    if done.returncode == -signal.SIGKILL:
        raise ModelError("the process that tried it out was killed: there is probably too little memory for it")
    if done.returncode < 0:
        raise ModelError(f"the process that tried it out died of {signal_name(-done.returncode)}")
    try:
        said = json.loads(done.stdout.splitlines()[-1])
        problems, instead = list(map(str, said["problems"])), said["instead"]
    except (IndexError, ValueError, KeyError, TypeError):
        words = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no word"]
        raise ModelError(f"it could not be tried out: {words[-1]}") from None
    if problems:
        raise ConfigError(problems)
    return None if instead is None else str(instead)


def main() -> None:
    """The child: `CONFIG SET…` are its arguments."""
    os.nice(5)  # the one that runs comes first
    first_to_go()
    json.dump(_outcome(Path(sys.argv[1]), sys.argv[2:]), sys.stdout)


def _outcome(config: Path, sets: Sequence[str]) -> dict[str, Any]:
    instead = None
    problems: Sequence[str] = ()
    try:
        loaded = load_settings(config, sets)
        try:
            instead = assemble(loaded).engine.instead
        except ConfigError:
            raise
        except EdgeRunnerError as error:
            errors: list[EdgeRunnerError] = []
            with noted(errors):
                raise error
            raise ConfigError([loaded.locate(each) for each in errors]) from error
    except ConfigError as error:
        problems = error.problems
    return {"problems": problems, "instead": instead}
