"""`model install` and `model activate`, killed at random moments by a seed: there is a working active model after each kill."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from bundles import make_bundle

from edge_runner.engine import replay_goldens
from edge_runner.model.bundle import ModelConfig, open_model
from edge_runner.model.interpreter import find_runtime
from edge_runner.model.store import Store

KILLS = 50
SEED = 8
TIMEOUT_S = 240
AT_THE_LINKS = 0.5  # of the kills wait for the switch to begin; the others may come at any time
SWITCH_S = 0.004  # about as long as a switch takes
COMMAND = [sys.executable, "-m", "edge_runner", "model"]


@pytest.fixture
def bundles(tmp_path: Path, data: Path) -> dict[str, Path]:
    """Three versions of one model, which differ in their labels."""
    return {
        version: make_bundle(
            tmp_path / version,
            data / "colour.tflite",
            name="colour",
            version=version,
            labels=f"red\ngreen\n{version}\n",
        )
        for version in ("v1", "v2", "v3")
    }


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("EDGE_RUNNER_STATE", str(tmp_path / "state"))
    return Store()


def run(*arguments: object) -> float:
    """A command that nobody kills; how long it takes."""
    started = time.monotonic()
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - started


class Killer:
    """Kills commands, and whatever they started."""

    def __init__(self, store: Store, chance: random.Random) -> None:
        self._link, self._chance = store.folder / "colour/.current", chance
        self.cut_short = 0

    def __call__(self, needed_s: float, *arguments: object) -> str:
        """Start a command that needs so long, and kill it some time; say when that was."""
        child = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if self._chance.random() < AT_THE_LINKS:
            while child.poll() is None and not os.path.lexists(self._link):
                pass
            delay = self._chance.uniform(0, SWITCH_S)
            told = f"{delay * 1e3:.1f} ms into the switch"
        else:
            delay = self._chance.uniform(0, needed_s * 1.05)
            told = f"{delay:.3f} s after the start"
        time.sleep(delay)
        with suppress(ProcessLookupError):  # it may be at its end
            os.killpg(child.pid, signal.SIGKILL)
        self.cut_short += child.wait() == -signal.SIGKILL
        return f"killed {told}"


def works(store: Store) -> str:
    """The active version's name; it is whole, loads, and its goldens hold."""
    assert store.active("colour"), sorted(map(str, store.folder.glob("colour/*")))
    model = open_model(ModelConfig(name="colour"))
    assert model.path == store.active("colour")
    assert model.labels == ("red", "green", model.version)
    replay_goldens(model, model.load(find_runtime()))
    return model.version


def left_lying(store: Store) -> list[str]:
    hidden = [*store.folder.glob(".*"), *store.folder.glob("*/.*")]
    return [path.name for path in hidden if path.name != ".lock"]


def test_fifty_kills(store: Store, bundles: dict[str, Path]) -> None:
    """After each kill the active model works and is the old or the new one; what was left lying, the next command clears up."""
    chance = random.Random(SEED)
    needed = {  # the shorter time, for anything may hold up a command
        "install": min(run("install", bundles[version]) for version in ("v1", "v2")),
        "activate": min(run("activate", f"colour@{version}") for version in ("v1", "v2", "v1")),
    }
    kill = Killer(store, chance)
    active, switched, untidy = "v1", 0, 0
    for number in range(KILLS):
        verb = ("install", "activate")[number % 2]
        others = [each for each in bundles if each != active]
        there = [each for each in others if (store.folder / "colour" / each).is_dir()]
        version = chance.choice(there if verb == "activate" and there else others)
        if verb == "install":
            shutil.rmtree(store.folder / "colour" / version, ignore_errors=True)  # so that there is something to write
        elif not there:
            run("install", "--no-activate", bundles[version])
        told = kill(needed[verb], verb, bundles[version] if verb == "install" else f"colour@{version}")
        untidy += bool(left_lying(store))
        now = works(store)
        assert now in (active, version), f"{verb} {version}, number {number}, {told}"
        switched += now == version
        active = now
    run("install", bundles["v3"])
    run("activate", "colour@v3")
    assert works(store) == "v3"
    assert left_lying(store) == []
    assert kill.cut_short > KILLS // 4, "most commands came to their end before they were killed"
    assert switched, "no kill came after the switch"
    assert untidy, "no kill came while something was under way"
