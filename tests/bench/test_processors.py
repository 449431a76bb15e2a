"""bench/processors.py: goldens made here, measured here, in a table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runner.model.bundle import GOLDENS
from edge_runner.model.goldens import read_goldens

SCRIPT = Path(__file__).parents[2] / "bench" / "processors.py"


def run(*arguments: object) -> str:
    done = subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def made(tmp_path: Path) -> Path:
    run("make", tmp_path / "made")
    return tmp_path / "made"


def measured(folder: Path) -> Path:
    path = folder.parent / "measured.json"
    path.write_text(run("measure", folder))
    return path


def test_this_machine(made: Path) -> None:
    """This machine prepares the digits as the host did; the table has a row for it, and what is allowed."""
    file = measured(made)
    found = json.loads(file.read_text())
    assert [model["levels"] for model in found["models"].values()] == [[0, 0], [0, 0]]
    assert [model["faults"] for model in found["models"].values()] == [[], []]
    table = run("table", f"here={file}")
    assert (
        "| Outputs off | digits | digits-int8 |\n| --- | --- | --- |\n| allowed | 0.001 | 3 steps |\n| here | " in table
    )
    assert "| Prepared otherwise: grey levels, mean / most | digits | digits-int8 |" in table
    assert "| here | 0 | 0 |" in table
    assert f"- here: {found['machine']}" in table


def test_another_machine(made: Path) -> None:
    """Differences are in the table, in steps where there are steps; those that goldens do not allow are marked and told."""
    for name, steps, levels in (("digits", 0, 0.5 / 255), ("digits-int8", 5, 0)):
        path = made / name / GOLDENS
        goldens = read_goldens(path)
        goldens.items[2].outputs[0][0, 0] += steps / 256
        goldens.items[0].inputs[0][...] += levels
        path.write_bytes(goldens.dump())
    table = run("table", f"pi={measured(made)}")
    assert "| pi | 0.5 / 0.5 | 0 |" in table
    assert "| 5 steps **fails** |\n" in table
    assert "- pi, digits-int8: golden picture 3 of 4: output 'output_0' is 0.0195312 off the host's" in table
