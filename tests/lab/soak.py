"""A daemon with four cameras, and one fault after another, chosen by a seed: everything recovers, and nothing adds up.

    python soak.py [--minutes 30] [--seed 1]

The cameras are a real RTSP server, a real MJPEG server, a program, and a test picture that nothing happens to: its results must
never pause. A fault is over when its cause is; from then on the time counts until that camera's next result. The last line says
how it went, and the exit code is 0 only where all went well.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from lab import servers
from lab.board import Board, Holding, children, listed, read, runs
from lab.pulse import Pulse

STALL_S, FREEZE_S, RETRY_S = 2.0, 4.0, 2.0
TIMES = {
    "stall_timeout": f"{STALL_S}s", "freeze_timeout": f"{FREEZE_S}s", "start_timeout": "5s",
    "retry": {"first": "200ms", "max": f"{RETRY_S}s"},
}  # fmt: skip
START_S = 60.0  # for a new worker and its camera, on a machine that is slow and busy
WITHIN_S = STALL_S + RETRY_S + START_S
PAUSE_MOST_S = 1.5  # of the camera that nothing happens to, on top of what the machine itself stood still
GROWTH_MOST = {"resident_kb": 6000, "resident_kb_in_all": 20_000}
SETTLE_S = 10.0


@dataclass
class Tally:
    """What was seen of one fault: how often, and the seconds until results flowed again."""

    seconds: list[float] = field(default_factory=list)


class Soak:
    """One run. `faults` are methods: each makes a fault of `duration_s`, ends it, and returns."""

    def __init__(self, running: Board, http: servers.Server, rtsp: servers.Server | None, seed: int) -> None:
        self.running, self.http, self.rtsp = running, http, rtsp
        self.chance = random.Random(seed)
        self.tallies: dict[str, Tally] = defaultdict(Tally)
        self.faults: list[tuple[str, str, Callable[[float], None]]] = [
            ("program killed", "program", lambda _: self.each_program(signal.SIGKILL)),
            ("program stopped", "program", self.program_stopped),
            ("MJPEG server killed", "http", lambda s: self.killed(self.http, s)),
            ("MJPEG server stopped", "http", lambda s: self.stopped(self.http, s)),
            *(
                (f"MJPEG {mode}", "http", lambda s, mode=mode: self.mode(mode, s))  # type: ignore[misc]
                for mode in ("dies", "hangs", "corrupt", "cut", "resize", "frozen", "black", "junk")
            ),
        ]
        for camera in ("program", "http", "rtsp"):
            self.faults += [
                (f"worker killed ({camera})", camera, lambda _, c=camera: self.worker(c, signal.SIGKILL)),  # type: ignore[misc]
                (f"worker stopped ({camera})", camera, lambda _, c=camera: self.worker(c, signal.SIGSTOP)),  # type: ignore[misc]
            ]
        if rtsp:
            self.faults += [
                ("RTSP server killed", "rtsp", lambda s: self.killed(rtsp, s)),
                ("RTSP server stopped", "rtsp", lambda s: self.stopped(rtsp, s)),
            ]
        else:
            self.faults = [fault for fault in self.faults if fault[1] != "rtsp"]

    def run(self, until: float) -> None:
        """Every fault once in a random order, again and again, as long as there is time."""
        queue: list[tuple[str, str, Callable[[float], None]]] = []
        while time.monotonic() < until:
            if not queue:
                queue = self.chance.sample(self.faults, len(self.faults))
            name, camera, fault = queue.pop()
            fault(self.chance.uniform(0.5, 8.0))
            took_s = self.running.flows(camera, WITHIN_S)
            self.tallies[name].seconds.append(took_s)
            time.sleep(self.chance.uniform(0.0, 1.0))

    def killed(self, server: servers.Server, duration_s: float) -> None:
        server.kill()
        time.sleep(duration_s)
        server.start()

    def stopped(self, server: servers.Server, duration_s: float) -> None:
        server.stop()
        time.sleep(duration_s)
        server.proceed()

    def mode(self, mode: str, duration_s: float) -> None:
        for each in (mode, "stream"):
            with urllib.request.urlopen(f"{self.http.url}/set?mode={each}", timeout=60):
                pass
            time.sleep(duration_s if each == mode else 0)

    def worker(self, camera: str, number: signal.Signals) -> None:
        self.strike(lambda: [self.worker_of(camera)], number)

    def each_program(self, number: signal.Signals) -> None:
        self.strike(lambda: children(self.worker_of("program")), number)

    def strike(self, victims: Callable[[], list[int]], number: signal.Signals) -> None:
        """One of them may just be going by itself: then its successor is hit."""

        def struck() -> bool:
            with suppress(ProcessLookupError, IndexError):
                os.kill(victims()[0], number)
                return True
            return False

        self.running.wait(struck, WITHIN_S)

    def program_stopped(self, duration_s: float) -> None:
        """For longer than the camera waits: it is killed, and another one is started."""
        self.each_program(signal.SIGSTOP)
        time.sleep(STALL_S)

    def worker_of(self, camera: str) -> int:
        """The worker that has this camera: each is told apart by what it holds or runs."""
        found: list[int] = []

        def there() -> list[int]:
            found[:] = [pid for pid in self.running.workers() if self.camera_of(pid) == camera]
            return found

        self.running.wait(there, WITHIN_S)
        return found[0]

    def camera_of(self, pid: int) -> str:
        if children(pid):
            return "program"
        ports = {f"{server.port:04X}": name for name, server in (("http", self.http), ("rtsp", self.rtsp)) if server}
        held = {link.removeprefix("socket:[").rstrip("]") for link in links(pid)}
        for line in read(f"/proc/{pid}/net/tcp").splitlines()[1:]:
            parts = line.split()
            port = parts[2].rpartition(":")[2]
            if parts[9] in held and port in ports:
                return ports[port]
        return "steady"


def links(pid: int) -> list[str]:
    found = []
    for entry in listed(f"/proc/{pid}/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{entry}"))
    return found


def settled(running: Board, names: Iterable[str]) -> Holding:
    """What it holds while all of its cameras are well."""
    time.sleep(SETTLE_S)
    for camera in names:
        running.flows(camera, WITHIN_S)
    return running.holding()


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def longest_pause_s(times: list[float]) -> float:
    return max((later - earlier for earlier, later in pairwise(times)), default=0.0)


def cameras(http: servers.Server, rtsp: servers.Server | None) -> dict[str, dict[str, Any]]:
    frames = [sys.executable, str(Path(__file__).parent / "frames.py"), "runs"]
    made: dict[str, dict[str, Any]] = {
        "steady": {"type": "pattern", "width": 64, "height": 48, "fps": 10},
        "http": {"type": "stream", "url": f"{http.url}/stream", **TIMES},
        "program": {"type": "command", "command": frames, "format": "gray8", "width": 64, "height": 48, **TIMES},
    }
    if rtsp:
        made["rtsp"] = {"type": "stream", "url": f"{rtsp.url}/h264", **TIMES}
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with ExitStack() as stack:
        http = stack.enter_context(servers.mjpeg())
        missing = servers.rtsp_missing()
        rtsp = None if missing else stack.enter_context(servers.rtsp())
        if missing:
            tell(f"without RTSP: there is no {missing}")
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        running = Board(Path(folder), cameras(http, rtsp))
        stack.callback(running.process.kill)
        names = list(cameras(http, rtsp))
        for camera in names:
            running.flows(camera, WITHIN_S)
        pulse = stack.enter_context(Pulse())
        soak, wrong = Soak(running, http, rtsp, options.seed), []
        began = time.monotonic()
        before = after = running.holding()
        try:
            soak.run(began + min(30.0, options.minutes * 60 / 4))  # until its memory has settled
            before = settled(running, names)
            soak.run(began + options.minutes * 60)
            after = settled(running, names)
        except AssertionError as error:
            wrong.append(f"not recovered: {error}")
        count = sum(len(tally.seconds) for tally in soak.tallies.values())
        worst_s = max((second for tally in soak.tallies.values() for second in tally.seconds), default=0.0)
        pause_s = longest_pause_s([at for at, _ in running.arrivals["steady"]])
        for name, tally in sorted(soak.tallies.items()):
            tell(f"{name:28} {len(tally.seconds):3} times, recovered in {max(tally.seconds):5.2f} s at most")
        for item in fields(before):
            was, is_now = getattr(before, item.name), getattr(after, item.name)
            tell(f"{item.name:28} {was} before, {is_now} after")
            if is_now - was > GROWTH_MOST.get(item.name, 0):
                wrong.append(f"{item.name} grew")
        results = sum(map(len, running.arrivals.values()))
        tell(f"longest pause of the camera that nothing happened to: {pause_s:.2f} s; {results} results in all")
        if pause_s > PAUSE_MOST_S + 2 * pulse.longest_s:
            stood_s = f"the machine stood still for {pulse.longest_s:.2f} s at most"
            wrong.append(f"the camera that nothing happened to paused for {pause_s:.2f} s; {stood_s}")
        workers = running.workers()
        if running.stop() != 0 or any(map(runs, workers)):
            wrong.append("the daemon did not end well")
        minutes = (time.monotonic() - began) / 60
        if wrong:
            tell(running.said[-4000:])
            tell(f"failed: {'; '.join(wrong)}")
            return 1
        tell(
            f"all well: {count} faults in {minutes:.1f} minutes (seed {options.seed}), each recovered, the worst in {worst_s:.2f} s"
        )
        return 0


if __name__ == "__main__":
    sys.exit(main())
