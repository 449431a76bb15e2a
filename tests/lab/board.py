"""The daemon as a process, watched from outside: its results as they come, and all that it holds, counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from lab.notified import wait_until

MODELS = Path(__file__).parents[1] / "data"
POLL_S = 0.02
END_S = 60.0  # of a daemon that was told to, and of what it started


@dataclass(frozen=True)
class Holding:
    """What the daemon and all processes that descend from it hold; `resident_kb` is the daemon's own."""

    descriptors: int
    threads: int
    processes: int
    memory_files: int
    resident_kb: int
    resident_kb_in_all: int

    @property
    def counted(self) -> tuple[int, ...]:
        """All but the memory, which is never quite the same."""
        return astuple(self)[:4]


class Board:
    """A running daemon. `arrivals` has, for each camera, when its results came here (monotonic seconds) and the results."""

    def __init__(self, folder: Path, cameras: dict[str, dict[str, Any]], **parts: Any) -> None:
        self.config = folder / "board.json"
        whole = {
            "cameras": cameras,
            "model": {"path": str(MODELS / "colour.tflite"), "labels": str(MODELS / "colours.txt"), "threads": 1},
            "preprocess": {"color": "rgb", "mean": 0, "std": 255},
            **parts,
        }
        self.config.write_text(json.dumps(whole), "utf-8")
        self.arrivals: dict[str, list[tuple[float, dict[str, Any]]]] = defaultdict(list)
        self.words: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edge_runner", "--config", str(self.config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [threading.Thread(target=reader, daemon=True) for reader in (self._results, self._log)]
        for reader in self._readers:
            reader.start()

    def _results(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            result = json.loads(line)
            self.arrivals[result["camera"]].append((time.monotonic(), result))

    def _log(self) -> None:
        assert self.process.stderr
        self.words.extend(line.rstrip() for line in self.process.stderr)

    @property
    def said(self) -> str:
        return "\n".join(self.words)

    def wait(self, what: Callable[[], Any], timeout_s: float) -> float:
        """Wait until something holds; return how long that took. It may not take longer than that."""
        started = time.monotonic()
        while not what():
            waited = time.monotonic() - started
            assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}: {self.said}"
            assert waited < timeout_s, f"not within {timeout_s:g} s; the daemon said: {self.said or 'nothing'}"
            time.sleep(POLL_S)
        return time.monotonic() - started

    def flows(self, camera: str, timeout_s: float, results: int = 3) -> float:
        """Wait for so many results of frames that are taken from now on; return the seconds until the first."""
        since = time.monotonic()

        def fresh() -> list[float]:
            return [at for at, result in list(self.arrivals[camera])[-100:] if at - result["age_ms"] / 1e3 > since]

        self.wait(lambda: len(fresh()) >= results, timeout_s)
        return fresh()[0] - since

    def workers(self) -> list[int]:
        """The process ids of the cameras' workers."""
        return children(self.process.pid)

    def holding(self) -> Holding:
        """What was so at two moments in a row: a file that is just being read counts for nothing."""
        now = self._holding()
        while True:
            time.sleep(POLL_S)
            before, now = now, self._holding()
            if before.counted == now.counted:
                return now

    def _holding(self) -> Holding:
        pids = [self.process.pid, *descendants(self.process.pid)]
        return Holding(
            descriptors=sum(len(listed(f"/proc/{pid}/fd")) for pid in pids),
            threads=sum(len(listed(f"/proc/{pid}/task")) for pid in pids),
            processes=len(pids),
            memory_files=sum("memfd:" in line for pid in pids for line in read(f"/proc/{pid}/maps").splitlines()),
            resident_kb=resident_kb(pids[0]),
            resident_kb_in_all=sum(map(resident_kb, pids)),
        )

    def stop(self) -> int:
        """End it as systemd does, and return its exit code. Nothing that it started is left."""
        pids = descendants(self.process.pid)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(END_S)
        finally:
            self.process.kill()
            self.process.wait()
            for reader in self._readers:
                reader.join(5)
            for stream in (self.process.stdout, self.process.stderr):
                assert stream
                stream.close()
        wait_until(
            lambda: not any(map(runs, pids)),
            lambda: f"left behind: {[read(f'/proc/{pid}/cmdline') for pid in pids if runs(pid)]}",
        )
        return code


@contextmanager
def board(folder: Path, cameras: dict[str, dict[str, Any]], **parts: Any) -> Iterator[Board]:
    running = Board(folder, cameras, **parts)
    try:
        yield running
    finally:
        running.stop()


def children(pid: int) -> list[int]:
    stats = ((int(entry), read(f"/proc/{entry}/stat")) for entry in listed("/proc") if entry.isdecimal())
    return [child for child, stat in stats if stat and int(stat.rpartition(") ")[2].split()[1]) == pid]


def descendants(pid: int) -> list[int]:
    found = children(pid)
    return found + [each for child in found for each in descendants(child)]


def runs(pid: int) -> bool:
    """Whether a process is there, and more than a zombie."""
    state = read(f"/proc/{pid}/stat").rpartition(") ")[2][:1]
    return state not in ("", "Z", "X")


def resident_kb(pid: int) -> int:
    lines = [line for line in read(f"/proc/{pid}/status").splitlines() if line.startswith("VmRSS")]
    return int(lines[0].split()[1]) if lines else 0


def read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""


def listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
