"""What runs within the virtual machine whose power is cut: it looks at what the last cut has left, and writes until the next one.

tests/lab/power.py boots the machine for scripts/test_power.sh, reads the lines of JSON that this prints, and cuts the power. The
outputs are the real ones, each in its own thread, as in the daemon: three logs that differ in `fsync`, snapshots, and MQTT without
a broker, so that every result goes to its spool. Beside what they write, they say what the disk is to have by now.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from edge_runner.output.base import Item, Origin, Output
from edge_runner.output.jsonl import JsonLines, JsonLinesConfig
from edge_runner.output.mqtt import Mqtt, MqttConfig
from edge_runner.output.publisher import Publisher
from edge_runner.output.snapshots import Snapshots, SnapshotsConfig
from edge_runner.output.spool import Message, Spool
from edge_runner.result import Answers, Detection, Result, new_run
from edge_runner.tools.logs import gather

DATA = Path(sys.argv[1])
LOGS: dict[str, Any] = {"each": "each", "5s": 5.0, "never": "never"}
"""The choices of `fsync`, each a log of its own."""
ROTATE_BYTES, SELDOM_BYTES = 30_000, 400_000
WRITEBACK = {"dirty_writeback_centisecs": 50, "dirty_expire_centisecs": 100}
"""The kernel writes by itself after a second, as else after half a minute."""
SPOOL_BYTES = 10**6
SNAPSHOTS_BYTES = 300_000
SNAPSHOT_S = 0.3
PACE_S = 0.02
PACKING_S = 30.0
SPOOL, SNAPSHOTS = DATA / "spool", DATA / "snapshots"


def main() -> None:
    """Say what is left; then write for ever, unless this is the last start."""
    run = new_run()
    say(run=run, left=left())
    if "last" in sys.argv:
        return
    origin = Origin(device="board", run=run, cameras=("front-door",), task="detect", labels=("person", "car"))
    calm = "calm" in sys.argv  # without what has the card flushed all the time
    outputs: dict[str, Output] = {"mqtt": ToldMqtt(mqtt())}
    if "eager" in sys.argv:
        for name, hundredths in WRITEBACK.items():
            Path("/proc/sys/vm", name).write_text(str(hundredths))
    if not calm:
        outputs["snapshots"] = ToldSnapshots(snapshots())
    outputs |= {name: ToldLog(name, jsonl(name, calm=calm)) for name in LOGS if not (calm and name == "each")}
    chance = np.random.default_rng(time.time_ns())
    shot: Any = SimpleNamespace(picture=chance.integers(0, 255, (120, 160, 3), np.uint8))
    with Publisher(outputs, origin, patient=True) as publisher:
        while True:
            result = made(run, publisher.next_seq(), chance)
            publisher.publish(result, shot)
            say(wrote=result.seq, at=time.monotonic())
            lost = {
                name: count for name, count in publisher.lost.items() if name != "mqtt"
            }  # a full spool drops its oldest
            if lost or publisher.troubles:
                say(wrong=f"{lost} lost: {publisher.troubles}")
            time.sleep(PACE_S)


def left() -> dict[str, Any]:
    """What is on the card, before and after the outputs have opened it again; `wrong` is what may not be."""
    wrong = [*broken_archives(), *broken_snapshots()]
    found: dict[str, Any] = {"snapshots": sorted(path.name for path in SNAPSHOTS.glob("[!.]*")), "torn": 0}
    for name in LOGS:
        log = JsonLines(jsonl(name))
        log.open(Origin())
        found["torn"] += log.torn
        log.close()
        found[name] = joined(of_log(DATA / f"{name}.jsonl", wrong))
    found["spool"] = joined(of_spool())
    if list(SPOOL.glob("*damaged*")):
        wrong.append("the spool was damaged")
    ends = time.monotonic() + PACKING_S
    while list(DATA.glob(".*.gz.part")) and time.monotonic() < ends:  # one that was begun just now
        time.sleep(PACE_S)
    if list(DATA.glob(".*.gz.part")):
        wrong.append("half a compressed file was left over")
    return {**found, "wrong": wrong}


def broken_archives() -> Iterator[str]:
    for path in DATA.glob("*.gz"):
        if (why := failure(lambda path=path: gzip.decompress(path.read_bytes()))) is not None:  # type: ignore[misc]
            yield f"{path.name} is not whole: {why!r}"


def broken_snapshots() -> Iterator[str]:
    for path in SNAPSHOTS.glob("[!.]*"):
        content = path.read_bytes()
        whole = content.startswith(b"\xff\xd8") and content.endswith(b"\xff\xd9")
        if not whole or cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape != (120, 160, 3):
            yield f"{path.name} is no whole JPEG: {len(content)} bytes"


def of_log(live: Path, wrong: list[str]) -> Iterator[tuple[str, int]]:
    for source in gather([str(live)]):
        for block in source.lines():
            for line in block.splitlines():
                if failure(lambda line=line: json.loads(line)["seq"]) is None:  # type: ignore[misc]
                    plain = json.loads(line)
                    yield plain["run"], plain["seq"]
                else:
                    wrong.append(f"{live.name}: a line that does not parse: {line[:80]!r}")


def failure(deed: Callable[[], object]) -> Exception | None:
    try:
        deed()
    except Exception as error:
        return error
    return None


def of_spool() -> Iterator[tuple[str, int]]:
    spool = Spool(SPOOL, SPOOL_BYTES)
    spool.open()
    for message in spool.read(0, sys.maxsize, sys.maxsize):
        plain = json.loads(message.payload)
        yield plain["run"], plain["seq"]
    spool.close()


def joined(results: Iterator[tuple[str, int]]) -> list[list[Any]]:
    """Results in their order, as stretches without a hole: [run, first, last]."""
    stretches: list[list[Any]] = []
    for run, seq in results:
        if stretches and stretches[-1][0] == run and stretches[-1][2] == seq - 1:
            stretches[-1][2] = seq
        else:
            stretches.append([run, seq, seq])
    return stretches


class ToldLog(JsonLines):
    """Says what it has synchronised."""

    def __init__(self, name: str, config: JsonLinesConfig) -> None:
        super().__init__(config)
        self.name = name
        self.coming = self.gathered = 0

    def write(self, item: Item) -> None:
        self.coming = item.result.seq
        super().write(item)

    def _gather(self, line: bytes, now: float) -> None:
        super()._gather(line, now)
        self.gathered = self.coming

    def _sync(self) -> None:
        gathered = self.gathered
        super()._sync()
        if not self._lines and self._unsynced_since is None:
            say(kept=self.name, seq=gathered)


class ToldSnapshots(Snapshots):
    """Says which it has saved, and looks at the quota."""

    def write(self, item: Item) -> None:
        super().write(item)
        total = sum(path.stat().st_size for path in SNAPSHOTS.glob("[!.]*"))
        if total > SNAPSHOTS_BYTES:
            say(wrong=f"the snapshots have {total} bytes")
        say(kept="snapshots")


class ToldMqtt(Mqtt):
    """Says what its spool has synchronised."""

    def __init__(self, config: MqttConfig) -> None:
        super().__init__(config)
        assert self._spool
        append, sync, spool, newest = self._spool.append, self._spool.sync, self._spool, 0

        def told_append(messages: list[Message], after: int) -> None:
            nonlocal newest
            append(messages, after)
            newest = json.loads(messages[-1].payload)["seq"]

        def told_sync() -> None:
            sync()
            say(kept="spool", seq=newest)

        spool.append, spool.sync = told_append, told_sync  # type: ignore[method-assign, assignment]


def jsonl(name: str, *, calm: bool = False) -> JsonLinesConfig:
    size = SELDOM_BYTES if calm else ROTATE_BYTES
    return JsonLinesConfig(
        path=DATA / f"{name}.jsonl", rotate_size=size, keep=10_000, fsync=LOGS[name], daily_budget=10**9
    )


def snapshots() -> SnapshotsConfig:
    return SnapshotsConfig(path=SNAPSHOTS, max_total=SNAPSHOTS_BYTES, min_interval=SNAPSHOT_S)


def mqtt() -> MqttConfig:
    return MqttConfig(host="127.0.0.1", spool=SPOOL, spool_max=SPOOL_BYTES)


def made(run: str, seq: int, chance: np.random.Generator) -> Result:
    """A result as a detector has it."""
    found = tuple(Detection("person", 0, float(chance.random()), (0.1, 0.2, 0.3, 0.4)) for _ in range(seq % 4))
    return Result(
        device="board", camera="front-door", run=run, seq=seq, frame=seq, time_ns=time.time_ns(), clock="unsynced",
        model="efficientdet", version="3f2a9c1d", width=1280, height=720, answers=Answers(detections=found),
        timing_ms={"capture": 2.1, "preprocess": 0.4, "inference": 30.2, "postprocess": 0.1}, age_ms=41.2, dropped=0,
    )  # fmt: skip


def say(**words: Any) -> None:
    """A line for whoever holds the switch, in one piece."""
    os.write(1, f"power: {json.dumps(words)}\n".encode())


if __name__ == "__main__":
    main()
