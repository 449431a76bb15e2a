"""What an output that takes a second for each result costs the others and the inference; in one run, by turns.

    python bench/outputs.py [--rounds 6] [--seconds 10]

The daemon runs on the test picture, as fast as the model goes, into a log and into a pipe. Whoever reads the pipe takes all there
is, or one line a second; then it is measured from when the queue before the pipe is full. What counts is how many results the log
gets.

The two sides do not do the same work: a result that is dropped is neither made into a line nor written to the pipe, so that beside
the slow output there is less to do, and a ratio above 1 is no surprise where the processor is the limit.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "tests" / "data"
F_SETPIPE_SZ = 1031  # fcntl.h
SMALLEST_PIPE_BYTES = 4096
WARM_UP_S = 5.0
FULL = "more are lost until it keeps up"  # what the daemon says of a queue that is
FULL_MOST_S = 300.0
POLL_S = 0.05


def main() -> None:
    """Print each round's rates, and the median of their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument(
        "--fps", type=float, default=1000, help="of the test picture; 30 leaves the processor time to spare"
    )
    options = parser.parse_args()
    ratios = []
    for number in range(options.rounds):
        order = (True, False) if number % 2 else (False, True)
        rates = {slow: rate(slow, options.seconds, options.fps) for slow in order}
        ratios.append(rates[True] / rates[False])
        print(
            f"beside a slow output {rates[True]:7.1f} results/s, beside a quick one {rates[False]:7.1f}: {ratios[-1]:.3f}"
        )
    print(f"median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


def rate(slow: bool, seconds: float, fps: float) -> float:
    """Results a second in the log, while the pipe's reader is slow or not."""
    with tempfile.TemporaryDirectory() as folder:
        config, log, said = (Path(folder) / name for name in ("bench.json", "bench.jsonl", "said"))
        config.write_text(json.dumps({
            "camera": {"type": "pattern", "width": 320, "height": 240, "fps": fps},
            "model": {"path": str(MODELS / "colour.tflite"), "labels": str(MODELS / "colours.txt"), "threads": 1},
            "preprocess": {"color": "rgb", "mean": 0, "std": 255},
            "outputs": [{"type": "jsonl", "path": str(log), "rotate_size": None}, {"type": "console"}],
        }))  # fmt: skip
        command = [sys.executable, "-m", "edge_runner", "--config", str(config)]
        with said.open("w") as file:
            daemon = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file)
        assert daemon.stdout
        fcntl.fcntl(daemon.stdout, F_SETPIPE_SZ, SMALLEST_PIPE_BYTES)
        over = threading.Event()
        reader = threading.Thread(target=drain, args=(daemon.stdout.fileno(), slow, over), daemon=True)
        reader.start()
        wait(lambda: log.exists() and (not slow or FULL in said.read_text()))
        time.sleep(WARM_UP_S)
        before, began = count(log), time.monotonic()
        time.sleep(seconds)
        found = (count(log) - before) / (time.monotonic() - began)
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
        over.set()
        reader.join()
        daemon.stdout.close()
        return found


def wait(ready: Callable[[], bool]) -> None:
    """Until it is, or too late."""
    until = time.monotonic() + FULL_MOST_S
    while not ready():
        if time.monotonic() > until:
            sys.exit(f"outputs.py: the queue of the slow output was not full within {FULL_MOST_S:.0f} s")
        time.sleep(POLL_S)


def drain(pipe: int, slow: bool, over: threading.Event) -> None:
    """Read the pipe to its end; without haste, until it is over."""
    while os.read(pipe, 500 if slow else 1 << 16):
        over.wait(1.0 if slow else 0.01)


def count(log: Path) -> int:
    """Lines in the log."""
    return log.read_bytes().count(b"\n")


if __name__ == "__main__":
    main()
