"""Signals at awkward moments, to real processes."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from pathlib import Path
from typing import Any

import pytest

DELAYS_S = (0.1, 0.2, 0.3, 0.4)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay_s", DELAYS_S)
def test_during_the_start(start_cli: Any, configure: Any, number: signal.Signals, delay_s: float) -> None:
    """A signal before the first frame ends the daemon with 0, once its own code runs."""
    child = start_cli("--config", configure(), env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"})
    seen = ""
    while "edge_runner.service.signals" not in seen:  # from here on they are heard
        seen += child.stderr.readline()
    time.sleep(delay_s - DELAYS_S[0] + 0.02)
    child.send_signal(number)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 0, errors[-2000:]
    assert "Traceback" not in errors


def test_reader_that_is_stuck(start_cli: Any, configure: Any, tmp_path: Path) -> None:
    """Whoever holds standard output open without reading cannot keep the daemon alive, nor the other output from its lines."""
    outputs = [{"type": "console"}, {"type": "jsonl", "path": "out.jsonl"}]
    child = start_cli("--config", configure(camera={"type": "pattern", "fps": 500}, outputs=outputs))
    sizes = [0, 0]
    while not sizes[-1] or sizes[-1] != sizes[-2]:  # until the pipe is full, and nothing moves any more
        time.sleep(0.5)
        sizes.append((tmp_path / "out.jsonl").stat().st_size if (tmp_path / "out.jsonl").exists() else 0)
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 0
    seqs = [json.loads(line)["seq"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert seqs == list(range(1, len(seqs) + 1))
    assert "outputs.0: standard output: takes no result" in child.stderr.read()


def test_slow_camera(start_cli: Any, configure: Any) -> None:
    """A camera whose next frame is far away does not hold up the end."""
    child = start_cli("--config", configure(camera={"type": "pattern", "fps": 0.02}))
    assert select.select([child.stdout], [], [], 30)[0]
    child.stdout.readline()
    sent = time.monotonic()
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 0
    assert time.monotonic() - sent < 3
