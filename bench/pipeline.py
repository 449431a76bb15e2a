"""The whole daemon against the bare interpreter: results a second, as a ratio, the two in turn in one run.

    python bench/pipeline.py --model mobilenet.tflite --color rgb --mean 127.5 --std 127.5 --video clip.mp4

The daemon decodes, prepares, infers and writes JSON lines to a file; the bare interpreter invokes on one input, alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edge_runner.model.bundle import ModelConfig, open_model
from edge_runner.model.interpreter import find_runtime

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits" / "models" / "digits"


def main() -> None:
    """Print the ratio's median and its range."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        config = _config(Path(folder), options)
        ratios = []
        for _ in range(options.rounds):
            bare = bare_rate(options.model, options.seconds)
            whole = daemon_rate(config)
            ratios.append(whole / bare)
            print(f"bare {bare:7.1f}/s   daemon {whole:7.1f}/s   ratio {ratios[-1]:.2f}", flush=True)
    print(f"daemon / bare interpreter: {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")


def bare_rate(model: Path, seconds: float) -> float:
    """Invocations a second, nothing else being done."""
    settings = ModelConfig(path=model, threads=1)
    interpreter = open_model(settings).load(find_runtime())
    tensors = [np.zeros(spec.shape, spec.dtype) for spec in interpreter.inputs]
    interpreter.run(*tensors)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        interpreter.run(*tensors)
        count += 1
    return count / (time.perf_counter() - started)


def daemon_rate(config: Path) -> float:
    """Results a second of a run, between its first and its last line."""
    results = config.with_suffix(".jsonl")
    results.unlink(missing_ok=True)
    subprocess.run([sys.executable, "-m", "edge_runner", "--config", str(config)], check=True, capture_output=True)
    lines = results.read_text("utf-8").splitlines()
    first, last = (np.datetime64(json.loads(line)["time"].rstrip("Z")) for line in (lines[0], lines[-1]))
    return (len(lines) - 1) / ((last - first) / np.timedelta64(1, "s"))


def _config(folder: Path, options: argparse.Namespace) -> Path:
    settings = {
        "camera": {"type": "video", "path": str(options.video.resolve())},
        "model": {"path": str(options.model.resolve()), "threads": 1},
        "outputs": [{"type": "jsonl", "path": str(folder / "bench.jsonl")}],
    }
    if options.color:
        settings["preprocess"] = {"color": options.color, "mean": options.mean, "std": options.std}
    path = folder / "bench.yaml"
    path.write_text(json.dumps(settings), "utf-8")
    return path


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, default=DIGITS, help="a bundle's folder or a .tflite file (default: the digits)"
    )
    parser.add_argument("--video", type=Path, required=True, help="a video of some hundred frames")
    parser.add_argument("--color", choices=("rgb", "bgr", "gray"), help="of a bare .tflite, with --mean and --std")
    parser.add_argument("--mean", type=float, default=127.5)
    parser.add_argument("--std", type=float, default=127.5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round's bare run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
