"""The whole daemon, in results a second, as a ratio to the bare interpreter and to other ways; all in turn in one run.

    python bench/pipeline.py --model mobilenet.tflite --color rgb --mean 127.5 --std 127.5 --video clip.mp4

The daemon decodes, prepares, infers and writes JSON lines to a file. The bare interpreter invokes on one input: alone, and beside
another process that decodes the same video as fast as it can. The tutorial loop reads, converts, resizes, normalises and invokes,
one after the other. With --mediapipe PYTHON, an environment that has MediaPipe, its ImageClassifier on the same file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

with suppress(ImportError):  # the environment of --mediapipe need not have it
    from edge_runner.model.bundle import ModelConfig, open_model
    from edge_runner.model.interpreter import find_runtime

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits" / "models" / "digits"


def main() -> None:
    """Print each ratio's median and its range."""
    options = _options()
    if options.role:
        print(ROLES[options.role](options))
        return
    with tempfile.TemporaryDirectory() as folder:
        config = _config(Path(folder), options)
        ratios: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            rates = {
                "the bare interpreter": bare_rate(options),
                "the bare interpreter beside a decoder": beside(options),
            }
            rates["the tutorial loop"] = float(_ask("loop", options))
            if options.mediapipe:
                rates["MediaPipe"] = float(_ask("mediapipe", options, options.mediapipe))
            daemon = daemon_rate(config)
            print(
                f"daemon {daemon:.1f}/s; " + "; ".join(f"{name} {rate:.1f}" for name, rate in rates.items()), flush=True
            )
            for name, rate in rates.items():
                ratios.setdefault(name, []).append(daemon / rate)
    for name, found in ratios.items():
        print(f"daemon / {name}: {statistics.median(found):.2f} (from {min(found):.2f} to {max(found):.2f})")


def bare_rate(options: argparse.Namespace) -> float:
    """Invocations a second, nothing else being done."""
    interpreter = open_model(ModelConfig(path=options.model, threads=1)).load(find_runtime())
    tensors = [np.zeros(spec.shape, spec.dtype) for spec in interpreter.inputs]
    interpreter.run(*tensors)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < options.seconds:
        interpreter.run(*tensors)
        count += 1
    return count / (time.perf_counter() - started)


def beside(options: argparse.Namespace) -> float:
    """The same while another process decodes."""
    decoder = _start("decode", options, sys.executable)
    try:
        assert decoder.stdout
        decoder.stdout.readline()
        return bare_rate(options)
    finally:
        decoder.kill()
        decoder.communicate()


def decode(options: argparse.Namespace) -> None:
    """Decode the video again and again."""
    while True:
        capture = cv2.VideoCapture(str(options.video))
        while capture.read()[0]:
            print("decoding", flush=True)


def loop(options: argparse.Namespace) -> float:
    """What tutorials show; frames a second."""
    interpreter = open_model(ModelConfig(path=options.model, threads=1)).load(find_runtime())
    spec = interpreter.inputs[0]
    height, width, channels = spec.shape[1:]
    capture, count, started = cv2.VideoCapture(str(options.video)), 0, time.perf_counter()
    while True:
        ok, frame = capture.read()
        if not ok:
            return count / (time.perf_counter() - started)
        color = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGR2GRAY)
        values = (cv2.resize(color, (width, height)).astype(np.float32) - options.mean) / options.std
        scores = interpreter.run(values.reshape(spec.shape).astype(spec.dtype))[0][0]
        np.argsort(scores)[-5:]
        count += 1


def mediapipe(options: argparse.Namespace) -> float:
    """MediaPipe Tasks' classifier, in its video mode; frames a second."""
    import mediapipe as mp  # in an environment of its own

    vision = mp.tasks.vision
    settings = vision.ImageClassifierOptions(
        base_options=mp.tasks.BaseOptions(model_asset_path=str(options.model)),
        running_mode=vision.RunningMode.VIDEO,
        max_results=5,
    )
    with vision.ImageClassifier.create_from_options(settings) as classifier:
        capture, count, started = cv2.VideoCapture(str(options.video)), 0, time.perf_counter()
        while True:
            ok, frame = capture.read()
            if not ok:
                return count / (time.perf_counter() - started)
            color = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            classifier.classify_for_video(mp.Image(image_format=mp.ImageFormat.SRGB, data=color), count * 33)
            count += 1


ROLES = {"decode": decode, "loop": loop, "mediapipe": mediapipe}


def _ask(role: str, options: argparse.Namespace, python: str = sys.executable) -> str:
    """What another process says, in its last line."""
    child = _start(role, options, python)
    said = child.communicate()[0].splitlines()
    if child.returncode:
        sys.exit(f"the process for '{role}' ended with {child.returncode}")
    return str(said[-1])


def _start(role: str, options: argparse.Namespace, python: str) -> subprocess.Popen[str]:
    command = [python, __file__, "--model", str(options.model), "--video", str(options.video), "--role", role]
    command += ["--mean", str(options.mean), "--std", str(options.std)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


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
    parser.add_argument("--mediapipe", metavar="PYTHON", help="of an environment that has MediaPipe and OpenCV")
    parser.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round's bare run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
