"""The daemon, killed again and again at random moments by a seed, while its broker and its disk fail too: nothing that was
acknowledged is lost, and what is in the log is whole.

    python kills.py [--kills 300] [--seed 1]

The outputs are a log that is rotated every few seconds, a real broker (mosquitto), and snapshots. Before the broker stands a relay
that notes what it acknowledged: of each run, log and broker have to have the same, but for what was in flight. The last line says
how it went, and the exit code is 0 only where all went well.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from lab import broker as brokers  # noqa: E402

from edge_runner.output.rotated import family  # noqa: E402

MODELS = Path(__file__).parents[1] / "data"
END_MOST_S = 60.0
WAIT_MOST_S = 120.0
START_S = (0.2, 0.8)  # from exec to a kill that falls into the start
RUN_S = (0.0, 0.8)  # from the first result to any other
EARLY = 0.25  # of the kills fall into the start
AWAY = 0.5  # of the runs see something happen to the broker
FPS = 200
IN_FLIGHT = FPS // 4
"""Results that one output may have and the other not when the kill comes: each has its own thread, and a broker its own time for an
answer. One or two are usual; a quarter of a second is what a busy machine may take."""
HELD_UP = 0.1  # of the runs may have more in flight: the machine stood still, or the broker did not get its turn
RESULTS = "edge-runner/pi-7/door"
FROZEN = "broker frozen"
SHOT_END = b"\xff\xd9"  # the last bytes of a JPEG


@dataclass
class Seen:
    """What came of it."""

    kills: int = 0
    runs: int = 0
    logged: int = 0
    acknowledged: int = 0
    repeated: int = 0
    torn: int = 0
    never_sent: int = 0
    never_logged: int = 0
    most_apart: int = 0
    longest_gap_s: float = 0.0
    faults: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    wrong: list[str] = field(default_factory=list)


class Kills:
    """`folder` is empty, and keeps what the daemon wrote."""

    def __init__(self, folder: Path, mosquitto: brokers.Broker, relay: brokers.Tap, seed: int) -> None:
        self.folder, self.mosquitto, self.relay = folder, mosquitto, relay
        self.log = folder / "results.jsonl"
        self.chance = random.Random(seed)
        self.seen = Seen()
        self.at_kill: dict[str, int] = {}
        """By run: the last result that stood in the log when the kill came."""
        self.away: Callable[[], None] | None = None
        self.config = folder / "kills.json"
        self.config.write_text(json.dumps(self.settings()))

    def settings(self) -> dict[str, Any]:
        return {
            "device": "pi-7",
            "camera": {"name": "door", "type": "pattern", "width": 64, "height": 48, "fps": FPS},
            "model": {"path": str(MODELS / "colour.tflite"), "labels": str(MODELS / "colours.txt"), "threads": 1},
            "preprocess": {"color": "rgb", "mean": 0, "std": 255},
            "outputs": [
                {"type": "jsonl", "path": self.log.name, "rotate_size": "100KB", "keep": 100_000},
                {"type": "mqtt", "host": self.relay.host, "port": self.relay.port, "spool": "spool", "keepalive": "2s"},
                {"type": "snapshots", "path": "snapshots", "min_interval": "100ms", "max_total": "500KB"},
            ],
        }

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "edge_runner", "--config", str(self.config)]
        with (self.folder / "said").open("a") as said:
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, text=True)

    def go(self, kills: int) -> None:
        for _ in range(kills):
            before = last_run(self.log)
            daemon = self.start()
            early = self.chance.random() < EARLY
            pauses_s = sorted(self.chance.uniform(*(START_S if early else RUN_S)) for _ in range(2))
            if not early:
                self.wait(lambda: last_run(self.log) not in (None, before), daemon)  # noqa: B023
            time.sleep(pauses_s[0])
            if self.chance.random() < AWAY:
                self.trouble()
            time.sleep(pauses_s[1] - pauses_s[0])
            assert daemon.poll() is None, f"the daemon ended by itself: {self.said()}"
            daemon.send_signal(signal.SIGKILL)
            daemon.wait()
            self.seen.kills += 1
            self.look()
        self.mend()
        self.end()

    def wait(self, what: Callable[[], bool], daemon: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + WAIT_MOST_S
        while not what():
            assert daemon.poll() is None, f"the daemon ended by itself: {self.said()}"
            assert time.monotonic() < deadline, f"not within {WAIT_MOST_S:g} s; the daemon said: {self.said()}"
            time.sleep(0.05)

    def trouble(self) -> None:
        """Mend the last fault of the broker, or make another one."""
        if self.away:
            self.mend()
            return
        name, deed, self.away = self.chance.choice(
            [
                ("broker stopped", self.mosquitto.stop, self.mosquitto.start),
                ("broker killed", self.mosquitto.kill, self.mosquitto.start),
                (FROZEN, self.mosquitto.freeze, self.mosquitto.thaw),
                ("link cut", self.relay.cut, lambda: None),
            ]
        )
        self.seen.faults[name] += 1
        deed()

    def mend(self) -> None:
        if self.away:
            self.away()
        self.away = None

    def look(self) -> None:
        """A kill may leave half of a last line, and the next start takes it away; what stands before it stays."""
        self.seen.torn += not log_end(self.log).endswith(b"\n")
        if last := last_result(self.log):
            self.at_kill[last["run"]] = last["seq"]

    def end(self) -> None:
        """One last start, until all that waits has been sent; then it is stopped as systemd does."""
        before = last_run(self.log)
        daemon = self.start()
        self.wait(lambda: self.drained(before), daemon)
        daemon.send_signal(signal.SIGTERM)
        if (code := daemon.wait(END_MOST_S)) != 0:
            self.seen.wrong.append(f"the last run ended with {code}")

    def drained(self, before: str | None) -> bool:
        """Whether a result of the newest run was acknowledged: it stood behind all that waited. `before` was another one."""
        newest = next((json.loads(p)["run"] for t, p in reversed(self.relay.acknowledged) if t == RESULTS), None)
        return newest is not None and newest == last_run(self.log) != before

    def said(self) -> str:
        return (self.folder / "said").read_text()[-3000:]

    def judge(self) -> Seen:
        """Hold what is on disk against what was acknowledged."""
        seen, logged, sent = self.seen, defaultdict(list), defaultdict(list)
        for result in self.results():
            logged[result["run"]].append(result)
        for topic, payload in self.relay.acknowledged:
            if topic == RESULTS:
                result = json.loads(payload)
                sent[result["run"]].append(result["seq"])
        for run, results in logged.items():
            seqs = [result["seq"] for result in results]
            if seqs != list(range(1, len(seqs) + 1)):
                seen.wrong.append(f"the log of run {run} has a hole, or an order of its own")
            times = [result["monotonic_s"] for result in results]
            seen.longest_gap_s = max([seen.longest_gap_s, *(later - earlier for earlier, later in pairwise(times))])
        for run, seqs in sent.items():
            once = list(dict.fromkeys(seqs))
            seen.repeated += len(seqs) - len(once)
            if once != list(range(1, len(once) + 1)):
                seen.wrong.append(f"what was sent of run {run} has a hole, or an order of its own")
        self.compare(
            {run: len(results) for run, results in logged.items()}, {run: len(set(seqs)) for run, seqs in sent.items()}
        )
        seen.runs, seen.logged = len(logged), sum(map(len, logged.values()))
        seen.acknowledged = sum(len(set(seqs)) for seqs in sent.values())
        snapshots = list((self.folder / "snapshots").glob("*.jpg"))
        seen.wrong += [f"{path.name} is no whole picture" for path in snapshots if not whole(path)]
        if not snapshots:
            seen.wrong.append("there are no snapshots")
        return seen

    def compare(self, logged: dict[str, int], sent: dict[str, int]) -> None:
        """Log and broker have the same of each run, but for what was in flight when it was killed.

        Results wait in memory for a broker that is connected and does not answer, for a second at most (docs/mqtt.md), which is
        longer than a run: each time that it was frozen, one run may keep more to itself. So may the few that were held up.
        """
        seen, early, late = self.seen, [], []
        for run in logged.keys() | sent.keys() | self.at_kill.keys():
            here, there, stood = logged.get(run, 0), sent.get(run, 0), self.at_kill.get(run, 0)
            found = f"run {run}: {here} are in the log, {there} were acknowledged"
            if here < stood:
                seen.wrong.append(f"{found}; the log had {stood} when the kill came")
            early.append((there - here, found))
            late.append((here - there, found))
            seen.never_sent += max(0, here - there)
            seen.never_logged += max(0, there - here)
        spared = round(HELD_UP * len(late))
        others = sorted(early, reverse=True)[spared:] + sorted(late, reverse=True)[spared + seen.faults[FROZEN] :]
        seen.wrong += [found for apart, found in others if apart > IN_FLIGHT]
        seen.most_apart = max([0, *(apart for apart, _ in others)])

    def results(self) -> Iterator[dict[str, Any]]:
        """Every line of the log, which all have to parse."""
        for path in filter(Path.exists, [*family(self.log), self.log]):
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            if content and not content.endswith(b"\n"):
                self.seen.wrong.append(f"the last line of {path.name} is torn")
                content = content[: content.rfind(b"\n") + 1]
            for line in content.splitlines():
                try:
                    result = json.loads(line)
                except ValueError:
                    self.seen.wrong.append(f"{path.name} has a line that is none: {line[:80]!r}")
                    continue
                hours, minutes, seconds = result["time"][11:-1].split(":")
                yield {**result, "monotonic_s": int(hours) * 3600 + int(minutes) * 60 + float(seconds)}


def log_end(path: Path) -> bytes:
    """The end of a log, at least of its last two lines; that of one that is empty, or just rotated, is whole."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, os.path.getsize(path) - 8192))
        return file.read() or b"\n"
    return b"\n"


def last_result(path: Path) -> dict[str, Any] | None:
    """The newest in a log; None where that is not known just now, because it was rotated or torn."""
    with suppress(IndexError, ValueError):
        result: dict[str, Any] = json.loads(log_end(path).split(b"\n")[-2])
        return result
    return None


def last_run(path: Path) -> str | None:
    """The run of the newest result in a log, as far as that is known."""
    last = last_result(path)
    return last and str(last["run"])


def whole(path: Path) -> bool:
    return path.read_bytes().endswith(SHOT_END)


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if missing := brokers.broker_missing():
        tell(f"failed: there is no {missing}")
        return 1
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mosquitto = stack.enter_context(brokers.broker(folder / "broker"))
        relay = stack.enter_context(brokers.tap(mosquitto))
        (folder / "board").mkdir()
        kills = Kills(folder / "board", mosquitto, relay, options.seed)
        began = time.monotonic()
        try:
            kills.go(options.kills)
        except AssertionError as error:
            kills.seen.wrong.append(str(error))
        seen = kills.judge()
        minutes = (time.monotonic() - began) / 60
        for name, count in sorted(seen.faults.items()):
            tell(f"{name:24} {count:4} times")
        tell(f"{'runs with results':24} {seen.runs:4}")
        tell(f"{'results in the log':24} {seen.logged:4}, each line whole; {seen.torn} half lines were repaired")
        tell(f"{'acknowledged':24} {seen.acknowledged:4}, {seen.repeated} of them more than once")
        tell(f"{'in the log, never sent':24} {seen.never_sent:4}: they were not acknowledged when the kill came")
        tell(f"{'sent, not in the log':24} {seen.never_logged:4}: they were not written when the kill came")
        tell(f"{'apart in a run':24} {seen.most_apart:4} at most, but for those with a frozen broker, or held up")
        tell(f"{'longest gap in a run':24} {seen.longest_gap_s:.2f} s")
        if seen.wrong:
            tell(kills.said())
            tell(f"failed: {'; '.join(seen.wrong[:10])}")
            return 1
        tell(
            f"all well: {seen.kills} kills in {minutes:.1f} minutes (seed {options.seed}), nothing acknowledged was lost"
        )
        return 0


if __name__ == "__main__":
    sys.exit(main())
