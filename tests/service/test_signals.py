"""Signals at awkward moments, to real processes."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from lab.board import read
from lab.notified import wait_until

from edge_runner.service.signals import Signals

DELAYS_S = (0.0, 0.1, 0.2, 0.3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay_s", DELAYS_S)
def test_during_the_start(start_cli: Any, configure: Any, number: signal.Signals, delay_s: float) -> None:
    """A signal before the first frame ends the daemon with 0, once it hears them."""
    child = start_cli("--config", configure())
    wait_until(lambda: signal.SIGTERM in caught(child.pid) or child.poll() is not None)
    time.sleep(delay_s)
    child.send_signal(number)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 0, errors[-2000:]
    assert "Traceback" not in errors


def caught(pid: int) -> set[int]:
    """The signals for which a process has a handler; SIGTERM's is set after SIGINT's."""
    [mask] = re.findall(r"^SigCgt:\s*(\w+)$", read(f"/proc/{pid}/status"), re.M) or ["0"]
    return {number for number in range(1, 65) if int(mask, 16) >> (number - 1) & 1}


def test_reader_that_is_stuck(start_cli: Any, configure: Any, tmp_path: Path) -> None:
    """Whoever holds standard output open without reading keeps neither the daemon alive, nor the other output from its lines."""
    outputs = [{"type": "console"}, {"type": "jsonl", "path": "out.jsonl"}]
    child = start_cli("--config", configure(camera={"type": "pattern", "fps": 200}, outputs=outputs))
    fcntl.fcntl(child.stdout, fcntl.F_SETPIPE_SZ, 4096)
    said = ""
    while "outputs.0 (console): 500 results wait for it; more are lost until it keeps up" not in said:
        said = child.stderr.readline()
        assert said, "it ended"
    before = lines(tmp_path)
    while len(lines(tmp_path)) < len(before) + 100:
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    assert child.wait(40) == 0
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
    assert child.wait(40) == 0
    assert time.monotonic() - sent < 40  # the frame comes after 50 s


@pytest.mark.usefixtures("nothing_left")
class TestHangUp:
    def test_asks_for_a_reload(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """SIGHUP is readable, and asks for the configuration to be read again; it ends nothing."""
        monkeypatch.setattr("sys.stdin", None)
        before = signal.getsignal(signal.SIGHUP)
        with Signals() as signals:
            assert not select.select([signals], [], [], 0)[0]
            os.kill(os.getpid(), signal.SIGHUP)
            assert select.select([signals], [], [], 10)[0]
            assert not signals.pending()
            assert (signals.reload, signals.stopped) == (True, "")
            signals.reload = False
            signals.read()
            assert not signals.reload
        assert signal.getsignal(signal.SIGHUP) == before

    def test_beside_a_signal_to_stop(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Both are heard, in any order; the first that stops names the end."""
        monkeypatch.setattr("sys.stdin", None)
        with Signals() as signals:
            for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                os.kill(os.getpid(), number)
            assert signals.pending()
            assert (signals.reload, signals.stopped) == (True, "SIGTERM")

    def test_of_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In a terminal it says that the terminal has gone."""

        class Terminal:
            def isatty(self) -> bool:
                return True

        monkeypatch.setattr("sys.stdin", Terminal())
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.pending()
            assert (signals.reload, signals.stopped) == (False, "SIGHUP")

    def test_where_it_was_ignored(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As nohup has it: it still is, during and after."""
        monkeypatch.setattr("sys.stdin", None)
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with Signals() as signals:
                os.kill(os.getpid(), signal.SIGHUP)
                signals.read()
                assert (signals.reload, signals.stopped) == (False, "")
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        finally:
            signal.signal(signal.SIGHUP, before)

    def test_thousands(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """However often it comes before anybody looks, nothing is held up, and a signal to stop is heard after it."""
        monkeypatch.setattr("sys.stdin", None)
        with Signals() as signals:
            for _ in range(5000):
                os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.pending()
            assert signals.reload
