"""Signals at awkward moments, to real processes."""

from __future__ import annotations

import json
import os
import re
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
    """Whoever holds standard output open without reading keeps neither the daemon alive, nor the other output from its lines."""
    outputs = [{"type": "console"}, {"type": "jsonl", "path": "out.jsonl"}]
    child = start_cli("--config", configure(camera={"type": "pattern", "fps": 500}, outputs=outputs))
    said = ""
    while "outputs.0 (console): 500 results wait for it; more are lost until it keeps up" not in said:
        said = child.stderr.readline()
        assert said, "it ended"
    before = lines(tmp_path)
    while len(lines(tmp_path)) < len(before) + 100:
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 0
    seqs = [json.loads(line)["seq"] for line in lines(tmp_path)]
    assert seqs == list(range(1, len(seqs) + 1))
    said = child.stderr.read()
    assert re.search(r"outputs\.0 \(console\): does not take results in time; 50\d are given up", said)
    assert re.search(r"outputs\.0 \(console\): \d+ results lost", said)


def lines(folder: Path) -> list[str]:
    return (folder / "out.jsonl").read_text().splitlines() if (folder / "out.jsonl").exists() else []


def test_slow_camera(start_cli: Any, configure: Any) -> None:
    """A camera whose next frame is far away does not hold up the end."""
    child = start_cli("--config", configure(camera={"type": "pattern", "fps": 0.02}))
    assert select.select([child.stdout], [], [], 30)[0]
    child.stdout.readline()
    sent = time.monotonic()
    child.send_signal(signal.SIGTERM)
    assert child.wait(20) == 0
    assert time.monotonic() - sent < 3
