"""Live cameras: what the daemon costs and how fresh its results are, against a loop that decodes every frame; all in one run.

    python bench/live.py [--model MODEL --color rgb --mean 127.5 --std 127.5] [--seconds 15] [--rounds 3]

The camera is an MJPEG server of 1280x720 at 30 frames/s, a process of its own that is not counted; with --rtsp an RTSP server too.
"CPU beyond the inference" is all processor time of the daemon and its workers, less what it says that its inferences took; of the
loop likewise.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from lab import servers  # noqa: E402
from lab.board import children, read  # noqa: E402

from edge_runner.model.bundle import ModelConfig, open_model  # noqa: E402
from edge_runner.model.interpreter import find_runtime  # noqa: E402

DIGITS = ROOT / "examples" / "digits" / "models" / "digits"
RATE = 5.0
SIZE, FPS = "1280x720", 30
TICKS_S = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print each ratio's median and its range."""
    options = _options()
    if options.loop:
        print(json.dumps(loop(options.loop, options)))
        return
    with servers.mjpeg() as http, tempfile.TemporaryDirectory() as folder:
        place, url = Path(folder), f"{http.url}/scene?size={SIZE}&fps={FPS}"
        cost("MJPEG over HTTP", url, place, options)
        if options.rtsp:
            with servers.rtsp("--size", SIZE, "--fps", FPS) as rtsp:
                cost("H.264 over RTSP", f"{rtsp.url}/h264", place, options)
        freshness(url, place, options)
        several(url, place, options)


def cost(name: str, url: str, place: Path, options: argparse.Namespace) -> None:
    """CPU beyond the inference at 5 results a second: daemon / a loop that decodes every frame."""
    ratios = []
    for _ in range(options.rounds):
        with daemon(place, {"cam": camera(url, max_fps=RATE)}, options) as running:
            time.sleep(2)
            before, cpu_s = len(running.results()), running.cpu_s()
            time.sleep(options.seconds)
            used_s, results = running.cpu_s() - cpu_s, running.results()[before:]
        count, inference_ms = len(results), sum(result["timing_ms"]["inference"] for result in results)
        ours_s = (used_s - inference_ms / 1e3) / options.seconds
        seen = subprocess.run([sys.executable, *sys.argv, "--loop", url], check=True, capture_output=True, text=True)
        theirs = json.loads(seen.stdout.splitlines()[-1])
        theirs_s = theirs["cpu_s"] / theirs["seconds"]
        ratios.append(ours_s / theirs_s)
        print(
            f"{name}: daemon {ours_s * 1e3:6.1f} ms of CPU a second ({count / options.seconds:.1f} results/s), "
            f"loop {theirs_s * 1e3:6.1f} ({theirs['results'] / theirs['seconds']:.1f}): {ratios[-1]:.2f}",
            flush=True,
        )
    print(f"CPU beyond the inference, {name}: {spread(ratios)} of the loop's")


def loop(url: str, options: argparse.Namespace) -> dict[str, float]:
    """What tutorials show: read every frame; five times a second resize, normalise and invoke."""
    interpreter = open_model(ModelConfig(path=options.model, threads=1)).load(find_runtime())
    spec = interpreter.inputs[0]
    height, width = spec.shape[1:3]
    capture, due, results, inference_s = cv2.VideoCapture(url), 0.0, 0, 0.0
    for _ in range(FPS):
        capture.read()
    began, cpu_s = time.monotonic(), time.process_time()
    while (now := time.monotonic()) - began < options.seconds:
        ok, frame = capture.read()
        if ok and now >= due:
            due = now + 1 / RATE
            colored = cv2.cvtColor(cv2.resize(frame, (width, height)), cv2.COLOR_BGR2RGB)
            values = (colored.astype(np.float32) - 127.5) / 127.5
            if spec.shape[3] == 1:
                values = values.mean(axis=2, keepdims=True)
            tensor, started = values[np.newaxis].astype(spec.dtype), time.perf_counter()
            interpreter.run(tensor)
            inference_s += time.perf_counter() - started
            results += 1
    return {"cpu_s": time.process_time() - cpu_s - inference_s, "results": results, "seconds": time.monotonic() - began}


def freshness(url: str, place: Path, options: argparse.Namespace) -> None:
    """The age of results at full load."""
    with daemon(place, {"cam": camera(url)}, options) as running:
        time.sleep(2)
        before = len(running.results())
        time.sleep(options.seconds)
        results = running.results()[before:]
        memory_kb = running.pss_kb()
    ages = np.array([result["age_ms"] for result in results])
    inference = float(np.median([result["timing_ms"]["inference"] for result in results]))
    goal = 2 * inference + 1e3 / FPS
    p50, p99 = np.percentile(ages, (50, 99))
    print(
        f"age at full load: median {p50:.1f} ms, p99 {p99:.1f} ms; two inferences and a frame interval are {goal:.1f} ms"
    )
    print(f"memory (PSS) of the daemon and its worker: {memory_kb / 1024:.0f} MB")


def several(url: str, place: Path, options: argparse.Namespace) -> None:
    """Four cameras in one daemon against one, in results a second in all. For a model that takes longer than a frame."""
    ratios = []
    pattern = {"type": "pattern", "width": 1280, "height": 720, "fps": 120}
    for _ in range(options.rounds):
        rates = []
        for count in (1, 4):
            with daemon(place, {f"cam{n}": pattern for n in range(count)}, options) as running:
                time.sleep(2)
                before, began = len(running.results()), time.monotonic()
                time.sleep(options.seconds)
                rates.append((len(running.results()) - before) / (time.monotonic() - began))
        ratios.append(rates[1] / rates[0])
        print(f"one camera {rates[0]:.1f} results/s, four {rates[1]:.1f}: {ratios[-1]:.2f}", flush=True)
    print(f"four cameras / one: {spread(ratios)}")


class Running:
    """A daemon that writes its results to a file."""

    def __init__(self, process: subprocess.Popen[bytes], file: Path) -> None:
        self.process, self._file = process, file

    def results(self) -> list[dict[str, Any]]:
        lines = self._file.read_text("utf-8").splitlines() if self._file.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def pids(self) -> list[int]:
        return [self.process.pid, *children(self.process.pid)]

    def cpu_s(self) -> float:
        fields = [read(f"/proc/{pid}/stat").rpartition(") ")[2].split() for pid in self.pids()]
        return sum(int(each[11]) + int(each[12]) for each in fields) / TICKS_S

    def pss_kb(self) -> int:
        lines = [line for pid in self.pids() for line in read(f"/proc/{pid}/smaps_rollup").splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


@contextmanager
def daemon(place: Path, cameras: dict[str, Any], options: argparse.Namespace) -> Iterator[Running]:
    """The daemon with these cameras; it has given a result of each."""
    results, config = place / "results.jsonl", place / "bench.json"
    results.unlink(missing_ok=True)
    settings = {
        "cameras": cameras,
        "model": {"path": str(options.model.resolve()), "threads": 1},
        "outputs": [{"type": "jsonl", "path": str(results)}],
    }
    if options.color:
        settings["preprocess"] = {"color": options.color, "mean": options.mean, "std": options.std}
    config.write_text(json.dumps(settings), "utf-8")
    command = [sys.executable, "-m", "edge_runner", "--config", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    running = Running(process, results)
    try:
        while len({result["camera"] for result in running.results()}) < len(cameras):
            if process.poll() is not None:
                sys.exit(f"the daemon ended with {process.returncode}: {' '.join(command)}")
            time.sleep(0.05)
        yield running
    finally:
        process.terminate()
        process.wait()


def camera(url: str, **more: Any) -> dict[str, Any]:
    """A stream's settings."""
    return {"type": "stream", "url": url, **more}


def spread(ratios: list[float]) -> str:
    """The median, and how far it goes."""
    return f"{statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, default=DIGITS, help="a bundle's folder or a .tflite file (default: the digits)"
    )
    parser.add_argument("--color", choices=("rgb", "bgr", "gray"), help="of a bare .tflite, with --mean and --std")
    parser.add_argument("--mean", type=float, default=127.5)
    parser.add_argument("--std", type=float, default=127.5)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rtsp", action="store_true", help="measure an RTSP camera as well")
    parser.add_argument("--loop", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
