"""How long `edge-runner results` takes over a million lines, and how much memory; the log is made first, and taken away afterwards.

    python bench/results.py

The lines are those of a detector, about 500 bytes each, as the daemon writes them: half in rotated files, gzipped, the rest plain.
"""

from __future__ import annotations

import argparse
import gzip
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from edge_runner.result import Answers, Detection, Result

LABELS = ("person", "car", "bicycle", "dog", "cat", "truck", "bird", "chair", "bus", "backpack")
INTERVAL_NS = 10**8  # ten results a second
START_NS = 1_795_354_080 * 10**9
ROTATED = 5
MIB = 1 << 20

COMMANDS = {
    "table, --label cat": ["--label", "cat"],
    "table, --label cat --min-score 0.9": ["--label", "cat", "--min-score", "0.9"],
    "table, --min-score 0.99": ["--min-score", "0.99"],
    "table, --since an hour before the end": ["--since", "SINCE"],
    "--count": ["--count"],
    "--count --label person": ["--count", "--label", "person"],
    "csv, --label cat": ["--label", "cat", "--format", "csv"],
    "json, everything": ["--format", "json"],
}


def main() -> None:
    """Print, for each command, its time, its lines, and the most memory that it had."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        live = Path(folder) / "front-door.jsonl"
        size = write(live, options.lines)
        print(f"{options.lines:,} lines of {size / options.lines:.0f} bytes, {size / 1e6:.0f} MB")
        since = f"{(START_NS + (options.lines * INTERVAL_NS)) // 10**9 - 3600}"
        for name, words in COMMANDS.items():
            arguments = [instant(int(since)) if word == "SINCE" else word for word in words]
            took_s, lines, peak_bytes = measured([str(live), *arguments], Path(folder) / "printed")
            print(f"{name:<40}{took_s:6.2f} s  {peak_bytes / MIB:5.0f} MiB  {lines:9,} lines printed", flush=True)


def write(live: Path, count: int) -> int:
    """Write the log; return its bytes, unpacked."""
    lines, size, part = results(count), 0, count // 2 // ROTATED
    for number in range(1, ROTATED + 1):
        with gzip.open(live.with_name(f"{live.stem}.{number:06}{live.suffix}.gz"), "wb", 6) as packed:
            size += sum(packed.write(line) for _, line in zip(range(part), lines, strict=False))
    with open(live, "wb") as file:
        size += sum(map(file.write, lines))
    return size


def results(count: int) -> Iterator[bytes]:
    """Lines as the daemon writes them, made of a few answers and a head each, for to make them all would take minutes."""
    chance = random.Random(1)
    answers = [_example(chance).split('"frame": 1, ')[1] for _ in range(5000)]
    head = _example(chance).split('"seq"')[0]
    before, after = head.split(instant(0))
    for seq in range(1, count + 1):
        time_text = instant((START_NS + seq * INTERVAL_NS) // 10**9, seq * INTERVAL_NS // 1000 % 10**6)
        yield f'{before}{time_text}{after}"seq": {seq}, "frame": {seq * 3}, {chance.choice(answers)}\n'.encode()


def _example(chance: random.Random) -> str:
    def found() -> Detection:
        index = min(int(chance.expovariate(0.5)), len(LABELS) - 1)
        x, y, width, height = (chance.random() / 2 for _ in range(4))
        return Detection(LABELS[index], index, chance.uniform(0.5, 1), (x, y, x + width, y + height))

    result = Result(
        device="pi-7", camera="front-door", run="01J00000000000000000000000", seq=1, frame=1, time_ns=0, clock="synced",
        model="efficientdet", version="3f2a9c1d", width=1280, height=720,
        answers=Answers(detections=tuple(found() for _ in range(chance.choice((0, 0, 1, 1, 2, 3))))),
        timing_ms={"capture": 2.123, "preprocess": 0.412, "inference": chance.uniform(29, 35), "postprocess": 0.131},
        age_ms=chance.uniform(35, 60), dropped=2,
    )  # fmt: skip
    return result.line()


def instant(seconds: int, microseconds: int = 0) -> str:
    """Seconds since 1970 as a result has them."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{microseconds:06}Z"


def measured(arguments: list[str], printed: Path) -> tuple[float, int, int]:
    """Seconds, lines printed, and bytes of memory at most."""
    with open(printed, "wb") as file:
        started = time.perf_counter()
        child = subprocess.Popen([sys.executable, "-m", "edge_runner", "results", *arguments], stdout=file)
        _, status, usage = os.wait4(child.pid, 0)
        took_s = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"edge-runner results {' '.join(arguments)}: exit code {child.returncode}")
    with open(printed, "rb") as file:
        lines = sum(block.count(b"\n") for block in iter(lambda: file.read(MIB), b""))
    return took_s, lines, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
