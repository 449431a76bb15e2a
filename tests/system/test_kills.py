"""The daemon, killed a hundred times, with a broker that fails meanwhile: tests/lab/kills.py (its long form: scripts/soak.sh)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from lab.broker import broker_missing

KILLS = Path(__file__).parents[1] / "lab" / "kills.py"


@pytest.mark.skipif(bool(broker_missing()), reason=str(broker_missing()))
def test_a_hundred_times() -> None:
    """Every line is whole, no run has a hole, log and broker have the same of it but for what was in flight; it all happened."""
    command = [sys.executable, str(KILLS), "--kills", "100", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    *figures, last = done.stdout.splitlines()
    assert last.startswith("all well: 100 kills")
    counts = {line[:24].strip(): int(line[24:].split()[0].strip(",:;")) for line in figures if "gap" not in line}
    assert counts["runs with results"] > 50
    assert counts["acknowledged"] > 1000
    assert {"broker frozen", "broker killed", "broker stopped", "link cut"} <= set(counts)
