"""scripts/soak.sh, for two minutes: a mixture of faults, and everything recovers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOAK = Path(__file__).parents[1] / "lab" / "soak.py"


def test_two_minutes() -> None:
    """Cameras that fail in turns, in every way: all of them come back, the others go on, memory and descriptors stay the same."""
    command = [sys.executable, str(SOAK), "--minutes", "2", "--seed", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("all well: ")
