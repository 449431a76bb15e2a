"""What reaches an SD card for ten results a second, for each setting of `flush` and `fsync` of the output jsonl.

    sudo python bench/wear.py [--seconds 300] [--rate 10]

Each setting writes real results in real time to an ext4 image of its own, all of them side by side, and the kernel's count of
sectors that were written to that image is read. What a card does within itself comes on top: it erases in blocks of megabytes.
The tables of docs/outputs.md are this with --rate 10, and with --rate 1.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runner.output.base import Item, Origin
from edge_runner.output.jsonl import JsonLines, JsonLinesConfig
from edge_runner.result import Answers, Detection, Result, new_run

SETTINGS: dict[str, dict[str, Any]] = {
    "each, each": {"flush": "each", "fsync": "each"},
    "each, 1s": {"flush": "each", "fsync": 1.0},
    "each, 5s": {"flush": "each", "fsync": 5.0},
    "each, 60s": {"flush": "each", "fsync": 60.0},
    "each, never": {"flush": "each", "fsync": "never"},
    "1s, 5s": {"flush": 1.0, "fsync": 5.0},
    "10s, 10s": {"flush": 10.0, "fsync": 10.0},
    "60s, 60s": {"flush": 60.0, "fsync": 60.0},
}
IMAGE_BYTES = 256 << 20
SECTOR_BYTES = 512
DAY_S = 86400
HEAD = """\
| `flush`, `fsync` | to the card | writes | cache flushes | for each byte of lines | a day |
|---|--:|--:|--:|--:|--:|"""
LABELS = ("person", "car", "bicycle", "dog")


@dataclass(frozen=True)
class Written:
    """What a device was given: bytes, writes, and flushes of its cache."""

    size: int
    writes: int
    flushes: int

    def __sub__(self, other: Written) -> Written:
        return Written(self.size - other.size, self.writes - other.writes, self.flushes - other.flushes)


def main() -> None:
    """Print a table with a row for each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--rate", type=float, default=10.0, help="results a second")
    options = parser.parse_args()
    if os.getuid() != 0:
        sys.exit("wear.py: only root can mount the images that are measured; use sudo")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        disks = {name: Disk(folder / f"{number}") for number, name in enumerate(SETTINGS)}
        for disk in disks.values():
            stack.callback(disk.close)
            disk.open()
        rows = measured(disks, options.seconds, options.rate)
    size = statistics.mean(size for size, _ in rows.values())
    print(
        f"{options.rate:g} results a second for {options.seconds:g} s, {size / options.rate / options.seconds:.0f} bytes a line, "
        f"{a_day(size, options.seconds)} a day; Linux {os.uname().release}, ext4\n\n{HEAD}"
    )
    for name, (size, written) in rows.items():
        print(f"| {name} | {' | '.join(cells(size, written, options.seconds))} |")


def cells(size: int, written: Written, seconds: float) -> list[str]:
    """A row of the table: what so many bytes of lines, written in so many seconds, cost the card."""
    kb_s = written.size / seconds / 1000
    return [
        f"{kb_s:.{1 if kb_s < 10 else 0}f} KB/s",
        f"{written.writes / seconds:.1f}/s",
        f"{written.flushes / seconds:.1f}/s",
        f"{written.size / size:.1f}",
        a_day(written.size, seconds),
    ]


def a_day(size: float, seconds: float) -> str:
    """Bytes in so many seconds, for people."""
    mb = size * DAY_S / seconds / 1e6
    return f"{mb:.0f} MB" if mb < 1000 else f"{mb / 1000:.1f} GB"


class Disk:
    """An ext4 file system in a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.image = folder.with_suffix(".image")
        self._device = ""

    def open(self) -> None:
        self.folder.mkdir()
        self.image.touch()
        os.truncate(self.image, IMAGE_BYTES)
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.image)
        self._device = run("losetup", "--find", "--show", self.image)
        run("mount", self._device, self.folder)

    def written(self) -> Written:
        """Since it was opened. Source: Linux, Documentation/block/stat.rst."""
        fields = [int(field) for field in Path(f"/sys/block/{Path(self._device).name}/stat").read_text().split()]
        return Written(fields[6] * SECTOR_BYTES, fields[4], fields[15])

    def close(self) -> None:
        if self._device:
            subprocess.run(["umount", str(self.folder)], check=False, capture_output=True)
            run("losetup", "--detach", self._device)
            self._device = ""


def measured(disks: dict[str, Disk], seconds: float, rate: float) -> dict[str, tuple[int, Written]]:
    """For each setting, the bytes of its lines and what its disk was given."""
    rows: dict[str, tuple[int, Written]] = {}

    def measure(name: str, disk: Disk) -> None:
        before = disk.written()
        size = write(disk.folder / "log.jsonl", SETTINGS[name], seconds, rate)
        rows[name] = size, disk.written() - before

    threads = [threading.Thread(target=measure, args=item, name=item[0]) for item in disks.items()]
    time.sleep(2)  # for what mounting itself still writes
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {name: rows[name] for name in disks}


def write(path: Path, setting: dict[str, Any], seconds: float, rate: float) -> int:
    """Drive the output as its thread in the daemon does; return the bytes of the lines."""
    output = JsonLines(JsonLinesConfig(path=path, **setting))
    output.open(Origin())
    run_name, chance, started, size = new_run(), random.Random(1), time.monotonic(), 0
    for seq in range(1, round(seconds * rate) + 1):
        while (wait_s := started + seq / rate - time.monotonic()) > 0:
            due_s = wait_s if output.due is None else output.due - time.monotonic()
            time.sleep(max(0.0, min(wait_s, due_s)))
            if due_s <= 0:
                output.tick()
        result = a_result(run_name, seq, chance)
        size += len(result.line().encode()) + 1
        output.write(Item(result))
    output.finish(time.monotonic() + 5)
    output.close()
    assert path.stat().st_size == size
    return size


def a_result(run_name: str, seq: int, chance: random.Random) -> Result:
    """What a detector says of a street: up to four boxes."""
    found = []
    for _ in range(chance.randrange(5)):
        index = chance.randrange(len(LABELS))
        left, top = chance.random() * 0.7, chance.random() * 0.7
        found.append(Detection(LABELS[index], index, chance.uniform(0.5, 1), (left, top, left + 0.2, top + 0.3)))
    timing_ms = {name: chance.uniform(0.1, 30) for name in ("capture", "preprocess", "inference", "postprocess")}
    return Result(
        device="pi-7", camera="front-door", run=run_name, seq=seq, frame=3 * seq, time_ns=time.time_ns(), clock="synced",
        model="digits", version="3f2a9c1d", width=1280, height=720, answers=Answers(detections=tuple(found)),
        timing_ms=timing_ms, age_ms=chance.uniform(30, 60), dropped=2,
    )  # fmt: skip


def run(*command: object) -> str:
    """What a command says, to its end."""
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
