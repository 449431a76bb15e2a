"""The demo: renders frames of held-out digits, runs the daemon on them, and says how it did. scripts/demo.sh calls it."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from contact_sheet import contact_sheet
from render import FRAME_COUNT, HELDOUT, save_frames

HERE = Path(__file__).resolve().parent
WORK = HERE.parents[1] / ".demo"
FRAMES, RESULTS, SHEET = "frames", "results.jsonl", "contact_sheet.jpg"  # in the work folder
FRAMES_ARE = "frames-are"  # what the frames there were made of
BUNDLES = {"none": HERE / "models" / "digits", "int8": HERE / "models" / "digits-int8"}
STAGES = ("capture", "preprocess", "inference", "postprocess")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return the daemon's exit code."""
    options = _options(arguments)
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    results_file = work / RESULTS
    settings = [f"model.path={BUNDLES[options.quantize]}", f"outputs.1.path={results_file}"]
    if options.camera:
        settings += [f"camera.{setting}" for setting in options.camera]
    else:
        prepare_frames(work, options.count, options.seed)
        settings.append(f"camera.path={work / FRAMES}")
    results_file.unlink(missing_ok=True)
    code = run_daemon(settings, options.quiet)
    results = (
        [json.loads(line) for line in results_file.read_text("utf-8").splitlines()] if results_file.exists() else []
    )
    if results:
        print(summary(results, known=not options.camera))
        if not options.camera:
            draw_sheet(work, results)
            print(f"contact sheet: {work / SHEET}")
        print(f"JSON lines:    {results_file}")
    return code


def prepare_frames(work: Path, count: int, seed: int) -> None:
    """Render the frames, where they are not there already."""
    drawing = zlib.crc32((HERE / "render.py").read_bytes() + HELDOUT.read_bytes())
    wanted = f"{count} frames, seed {seed}, drawing {drawing:08x}"
    frames, frames_are = work / FRAMES, work / FRAMES_ARE
    if frames.is_dir() and frames_are.is_file() and frames_are.read_text("utf-8") == wanted:
        return
    print(f"rendering {count} frames of handwritten digits …", file=sys.stderr)
    frames_are.unlink(missing_ok=True)
    shutil.rmtree(frames, ignore_errors=True)
    save_frames(frames, count, seed)
    frames_are.write_text(wanted, "utf-8")


def run_daemon(settings: Sequence[str], quiet: bool) -> int:
    """Run `edge-runner` as a user would; a signal ends it, and the demo goes on to its summary."""
    command = [sys.executable, "-m", "edge_runner", "--config", str(HERE / "digits.yaml")]
    command += [part for setting in settings for part in ("--set", setting)]
    print("$ edge-runner", *command[3:], file=sys.stderr)
    daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL if quiet else None)
    before = [
        (number, signal.signal(number, lambda n, _: daemon.send_signal(n)))
        for number in (signal.SIGINT, signal.SIGTERM)
    ]
    try:
        return daemon.wait()
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def summary(results: Sequence[dict[str, Any]], *, known: bool) -> str:
    """How it did: frames, right ones where the truth is known, rate, and each stage's mean."""
    lines = [
        "",
        f"model:         {results[0]['model']['name']} {results[0]['model']['version']}",
        f"frames:        {len(results)}",
    ]
    if known:
        right = sum(answer(result)[0] == truth(result) for result in results)
        lines.append(f"right:         {right} ({right / len(results):.1%})")
    stages = {stage: sum(r["timing_ms"][stage] for r in results) / len(results) for stage in STAGES}
    elapsed_s = (_seconds(results[-1]) - _seconds(results[0])) or float("inf")
    lines.append(f"frames/s:      {(len(results) - 1) / elapsed_s:.0f}")
    lines.append(f"ms a frame:    {', '.join(f'{stage} {ms:.2f}' for stage, ms in stages.items())}")
    return "\n".join(lines)


def draw_sheet(work: Path, results: Sequence[dict[str, Any]]) -> None:
    """Every frame with its answer."""
    answers = [answer(result) for result in results]
    frames = [work / FRAMES / result["source"] for result in results]
    contact_sheet(frames, [a[0] for a in answers], list(map(truth, results)), [a[1] for a in answers], work / SHEET)


def answer(result: dict[str, Any]) -> tuple[str, float]:
    """The best label and its score."""
    best = result["classifications"][0]
    return best["label"], best["score"]


def truth(result: dict[str, Any]) -> str:
    """The digit that was written: the last part of the frame's name, NNNN_L.jpg."""
    return Path(result["source"]).stem.rpartition("_")[2]


def _seconds(result: dict[str, Any]) -> float:
    return datetime.fromisoformat(result["time"].replace("Z", "+00:00")).timestamp()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="demo.sh",
        description="Recognise handwritten digits on rendered camera frames, or on a camera of yours.",
        epilog="example: demo.sh --camera type=video --camera path=digits.mp4",
    )
    parser.add_argument(
        "--camera",
        action="append",
        metavar="KEY=VALUE",
        help="use this camera instead of the rendered frames: its type and keys, as in a configuration's `camera`, one at a time",
    )
    parser.add_argument(
        "--quantize", choices=list(BUNDLES), default="none", help="which bundle (default: none, float32)"
    )
    parser.add_argument("--count", type=int, default=FRAME_COUNT, help="frames to render (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other frames (default: %(default)s)")
    parser.add_argument(
        "--work", type=Path, default=WORK, metavar="DIR", help="for frames and results (default: .demo)"
    )
    parser.add_argument("--quiet", action="store_true", help="do not print each result")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
