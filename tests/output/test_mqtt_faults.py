"""What brokers, links, disks and kills do to results on their way: nothing is lost that need not be, and the order stays."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lab.broker import Broker, Tap, broker, broker_missing, tap, wait_until

from edge_runner.output import outbox, publisher, retry
from edge_runner.output.base import Origin
from edge_runner.output.mqtt import Mqtt, MqttConfig
from edge_runner.output.publisher import Publisher
from edge_runner.result import Result

pytestmark = pytest.mark.skipif(bool(broker_missing()), reason=str(broker_missing()))

Make = Callable[..., Result]
Run = Callable[..., "Source"]
SHOT: Any = None
DEADLINE_S = 60.0
until = partial(wait_until, DEADLINE_S)
RESULTS = "edge-runner/pi-7/front-door"
STATUS = "edge-runner/pi-7/status"

needs_root = pytest.mark.skipif(os.getuid() != 0 or not shutil.which("ip"), reason="needs root, and iproute2")


class Source:
    """Results at a steady rate, on their way to a broker."""

    def __init__(self, config: MqttConfig, make: Make, rate: float) -> None:
        self.output = Mqtt(config)
        self.seq = 0
        self._make = make
        self._publisher = Publisher({"outputs.0": self.output}, Origin(device="pi-7", cameras=("front-door",)))
        self._publisher.__enter__()
        self._pause_s = 1 / rate
        self._paused = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._flow)
        self._thread.start()

    def _flow(self) -> None:
        while not self._over.wait(self._pause_s):
            if not self._paused.is_set():
                self.seq += 1
                self._publisher.publish(self._make(run="R", seq=self.seq), SHOT)

    def flows(self, results: int) -> None:
        """Wait until there are so many more."""
        goal = self.seq + results
        until(lambda: self.seq >= goal)

    def pause(self) -> None:
        """No more results; return when the output has taken all that were made."""
        self._paused.set()
        time.sleep(2 * self._pause_s)
        until(lambda: not self._publisher.waiting)

    def stop(self) -> float:
        """How long it took."""
        self._over.set()
        self._thread.join()
        started = time.monotonic()
        self._publisher.__exit__()
        return time.monotonic() - started

    @property
    def lost(self) -> int:
        return sum(self._publisher.lost.values())


@pytest.fixture
def run(result: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_left: None) -> Iterator[Run]:
    """Start a source for a broker; it connects anew after a moment. All are stopped in the end."""
    monkeypatch.setattr(retry, "FIRST_S", 0.05)
    monkeypatch.setattr(retry, "LAST_S", 0.2)
    running: dict[Source, None] = {}

    def start(place: Broker | Tap, rate: float = 200, **config: Any) -> Source:
        given = {"host": place.host, "port": place.port, "spool": tmp_path / "spool", "keepalive": 1.0, **config}
        running[Source(MqttConfig(**given), result, rate)] = None
        return list(running)[-1]

    yield start
    for source in running:
        if not source._over.is_set():
            source.stop()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Broker]:
    with broker(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def relay(mosquitto: Broker) -> Iterator[Tap]:
    with tap(mosquitto) as running:
        yield running


def results_in(messages: list[tuple[str, bytes]]) -> list[int]:
    return [json.loads(payload)["seq"] for topic, payload in list(messages) if topic == RESULTS]


def whole(source: Source, relay: Tap) -> None:
    """Every result was acknowledged, none before an earlier one, but for those that came twice."""
    source.pause()
    until(lambda: set(results_in(relay.acknowledged)) >= set(range(1, source.seq + 1)))
    first = list(dict.fromkeys(results_in(relay.acknowledged)))
    assert first == list(range(1, source.seq + 1))
    assert source.lost == 0


class TestBroker:
    @pytest.mark.parametrize("how", ["stop", "kill"])
    def test_goes_and_comes_back(self, run: Run, mosquitto: Broker, relay: Tap, how: str) -> None:
        """A broker that is stopped, or killed, and started again gets every result, in order."""
        source = run(relay)
        for _ in range(3):
            source.flows(50)
            getattr(mosquitto, how)()
            source.flows(50)
            mosquitto.start()
        whole(source, relay)

    def test_freezes(self, run: Run, mosquitto: Broker, relay: Tap, tmp_path: Path) -> None:
        """A broker that stands still for longer than the keepalive is given up; what was on its way is on disk meanwhile."""
        source = run(relay)
        source.flows(50)
        mosquitto.freeze()
        source.flows(150)
        until(lambda: source.output._link is None or source.output._retry.since is None)
        source.pause()
        spool = source.output._spool
        assert spool
        until(lambda: spool.count == source.output._box.waiting)
        assert spool.count > 100
        mosquitto.thaw()
        whole(source, relay)

    def test_acknowledges_nothing(self, run: Run, relay: Tap, caplog: pytest.LogCaptureFixture) -> None:
        """A broker that is alive, and acknowledges nothing any more, is left, and tried again."""
        source = run(relay)
        source.flows(50)
        relay.greedy = True
        until(lambda: "it acknowledges nothing any more" in caplog.text)
        relay.greedy = False
        whole(source, relay)

    def test_is_not_there_at_first(self, run: Run, mosquitto: Broker, relay: Tap) -> None:
        """A broker that comes later than the daemon gets what was made before."""
        mosquitto.stop()
        source = run(relay)
        source.flows(200)
        mosquitto.start()
        whole(source, relay)

    def test_goes_while_it_is_caught_up_with(self, run: Run, mosquitto: Broker, relay: Tap) -> None:
        """A broker that goes again and again while it gets what had to wait."""
        mosquitto.kill()
        source = run(relay, rate=500)
        source.flows(1000)
        for _ in range(3):
            mosquitto.start()
            until(lambda: len(relay.acknowledged) % 200 > 50)
            mosquitto.kill()
            source.flows(20)
        mosquitto.start()
        whole(source, relay)

    @pytest.mark.parametrize("seed", range(2))
    def test_chaos(self, run: Run, mosquitto: Broker, relay: Tap, seed: int) -> None:
        """All of that in no order."""
        chance = random.Random(seed)
        source = run(relay, rate=300)
        for _ in range(10):
            source.flows(chance.randint(1, 150))
            how = chance.choice(["stop", "kill", "freeze", "cut"])
            getattr(relay if how == "cut" else mosquitto, how)()
            if how == "freeze":
                source.flows(chance.randint(1, 900))
                mosquitto.thaw()
            elif how != "cut":
                source.flows(chance.randint(1, 150))
                mosquitto.start()
        whole(source, relay)

    def test_stop_without_a_broker(
        self, run: Run, mosquitto: Broker, relay: Tap, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A stop while the broker is away, or stands still, takes no longer than it may, and the next start sends what was left."""
        source = run(relay)
        source.flows(100)
        mosquitto.freeze()
        source.flows(50)
        assert source.stop() < DEADLINE_S / 2
        last = source.seq
        mosquitto.kill()
        source = run(relay)
        source.pause()
        monkeypatch.setattr(publisher, "FLUSH_S", DEADLINE_S)
        assert source.stop() < DEADLINE_S / 2
        mosquitto.start()
        source = run(relay)
        source.pause()
        until(lambda: not source.output._box.waiting)
        assert set(results_in(relay.acknowledged)) == set(range(1, last + 1))
        assert source.lost == 0

    def test_without_a_spool(self, run: Run, mosquitto: Broker, relay: Tap) -> None:
        """Without a spool a short outage is bridged from memory; a stop loses what waits, and says how much."""
        source = run(relay, spool=None)
        source.flows(100)
        mosquitto.kill()
        source.flows(100)
        mosquitto.start()
        until(lambda: source.output._box.waiting < 20)
        mosquitto.kill()
        source.flows(100)
        source.stop()
        got = set(results_in(relay.acknowledged))
        assert got == set(range(1, len(got) + 1))
        missing = source.seq - len(got)
        assert 100 <= missing <= source.lost
        assert source.lost <= missing + 20  # the last acknowledgements may have died with the broker

    def test_nothing_piles_up(self, run: Run, mosquitto: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        """However often no connection can be made, no more threads and descriptors are held."""
        monkeypatch.setattr(retry, "LAST_S", 0.005)
        mosquitto.kill()
        source = run(mosquitto, rate=20)

        def held() -> tuple[int, int]:
            return len(os.listdir("/proc/self/fd")), threading.active_count()

        until(lambda: source.output._retry._failures > 5)
        before = held()
        until(lambda: source.output._retry._failures > 200)
        descriptors, threads = held()
        assert descriptors <= before[0] + 6
        assert threads <= before[1] + 2


@needs_root
class TestLink:
    @pytest.fixture
    def link(self) -> Iterator[tuple[str, str, str]]:
        """A network of its own with a link to it: its name, the link's, and the address there."""
        name, near, address = f"er{os.getpid()}", f"er{os.getpid()}a", f"10.{os.getpid() % 200 + 20}.99"

        def ip(*arguments: str) -> bool:
            return subprocess.run(["ip", *arguments], capture_output=True).returncode == 0

        if not ip("netns", "add", name):
            pytest.skip("no network namespaces here")
        try:
            assert ip("link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", name)
            assert ip("address", "add", f"{address}.1/24", "dev", near)
            assert ip("link", "set", near, "up")
            assert ip("-n", name, "address", "add", f"{address}.2/24", "dev", "eth0")
            assert ip("-n", name, "link", "set", "eth0", "up")
            assert ip("-n", name, "link", "set", "lo", "up")
            yield name, near, f"{address}.2"
        finally:
            ip("link", "delete", near)
            ip("netns", "delete", name)

    def test_cut(self, run: Run, tmp_path: Path, link: tuple[str, str, str]) -> None:
        """A link that is cut for longer than the keepalive, without a word to either side, and comes back: no result is missing."""
        space, interface, address = link
        namespace = ["ip", "netns", "exec", space]
        with broker(tmp_path / "b", host=address, prefix=namespace) as far, (tmp_path / "heard").open("wb") as heard:
            command = [
                *namespace,
                "stdbuf",
                "-oL",
                "mosquitto_sub",
                "-h",
                address,
                "-p",
                str(far.port),
                "-q",
                "1",
                "-t",
                RESULTS,
            ]
            with subprocess.Popen(command, stdout=heard) as listener:  # on the far side of the link
                until(lambda: "SUBACK" in far.said())
                source = run(far)
                for _ in range(2):
                    until(lambda: source.output._retry.since is not None)
                    source.flows(100)
                    subprocess.run(["ip", "link", "set", interface, "down"], check=True)
                    until(lambda: source.output._retry.since is None)
                    source.flows(100)
                    subprocess.run(["ip", "link", "set", interface, "up"], check=True)
                source.pause()
                until(lambda: not source.output._box.waiting)
                until(lambda: f'"seq": {source.seq},' in (tmp_path / "heard").read_text())
                listener.terminate()
        got = [json.loads(line)["seq"] for line in (tmp_path / "heard").read_text().splitlines()]
        assert list(dict.fromkeys(got)) == list(range(1, source.seq + 1))
        assert source.lost == 0


CHILD = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from edge_runner.output import mqtt, retry
    from edge_runner.output.base import Origin
    from edge_runner.output.publisher import Publisher
    from edge_runner.result import Answers, Classification, Result

    port, folder, rate = int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    retry.FIRST_S, retry.LAST_S = 0.02, 0.1
    output = mqtt.Mqtt(mqtt.MqttConfig(host="127.0.0.1", port=port, spool=folder))
    with Publisher({"outputs.0": output}, Origin(device="pi-7", cameras=("front-door",))) as publisher:
        while rate:
            seq = publisher.next_seq()
            answers = Answers(classifications=(Classification("cat", 0, 0.5),))
            publisher.publish(Result("pi-7", "front-door", publisher.run, seq, seq, 0, "synced", "m", "v", 1, 1, answers, {}), None)
            while publisher.waiting:
                time.sleep(0.0005)
            online = output._retry.since is not None
            sys.stdout.write(f"{publisher.run} {seq} {online:d}\\n")
            sys.stdout.flush()
            time.sleep(1 / rate)
        while output._link is None or output._retry.since is None or output._box.waiting:
            time.sleep(0.01)
    """
)


class TestKilled:
    @pytest.mark.parametrize("seed", range(2))
    def test_at_any_moment(self, mosquitto: Broker, relay: Tap, tmp_path: Path, seed: int) -> None:
        """The process is killed again and again, with and without a broker: of each start, what reached the broker has no hole, and
        what was written while it was away arrives."""
        chance = random.Random(seed)
        command = [sys.executable, "-c", CHILD, str(relay.port), str(tmp_path / "spool")]
        safe: dict[str, int] = {}
        away = False
        for _ in range(8):
            child = subprocess.Popen([*command, "300"], stdout=subprocess.PIPE, text=True)
            assert child.stdout
            for line in (child.stdout.readline() for _ in range(chance.randint(1, 200))):
                name, seq, online = line.split()
                if online == "0":
                    safe[name] = int(seq)
                if chance.random() < 0.02:
                    (mosquitto.start if away else mosquitto.kill)()
                    away = not away
            child.send_signal(signal.SIGKILL)
            child.stdout.close()
            child.wait()
        if away:
            mosquitto.start()
        subprocess.run([*command, "0"], check=True, timeout=DEADLINE_S)
        got = defaultdict(list)
        for topic, payload in relay.acknowledged:
            if topic == RESULTS:
                found = json.loads(payload)
                got[found["run"]].append(found["seq"])
        assert len(safe) > 2
        for name, seqs in got.items():
            assert list(dict.fromkeys(seqs)) == list(range(1, max(seqs) + 1)), "a hole"
            assert max(seqs) >= safe.get(name, 0)
        assert set(safe) <= set(got)

    def test_daemon(
        self, mosquitto: Broker, relay: Tap, configure: Any, start_cli: Any, colours: Path, tmp_path: Path
    ) -> None:
        """The real daemon, killed while the broker is away, sends at its next start what it had made."""
        camera = {"type": "images", "path": "colours", "loop": True, "max_fps": 50}
        output = {"type": "mqtt", "host": relay.host, "port": relay.port, "spool": "spool"}
        config = configure(device="pi-7", camera={"name": "front-door", **camera}, outputs=[output])
        mosquitto.kill()
        daemon = start_cli("--config", config)
        database = tmp_path / "spool/spool.sqlite-wal"
        until(lambda: database.exists() and database.stat().st_size > 100_000)
        daemon.send_signal(signal.SIGKILL)
        daemon.communicate()
        mosquitto.start()
        daemon = start_cli("--config", config)
        until(lambda: len({json.loads(p)["run"] for t, p in relay.acknowledged if t == RESULTS}) == 2)
        daemon.send_signal(signal.SIGTERM)
        _, said = daemon.communicate(timeout=DEADLINE_S)
        assert daemon.returncode == 0, said
        runs = defaultdict(list)
        for topic, payload in relay.acknowledged:
            if topic == RESULTS:
                found = json.loads(payload)
                runs[found["run"]].append(found["seq"])
        assert all(seqs == list(range(1, len(seqs) + 1)) for seqs in runs.values())
        assert len(next(iter(runs.values()))) > 30


def fill(folder: Path) -> None:
    """Not a byte is left."""
    with suppress(OSError), (folder / "filler").open("wb", 0) as filler:
        while True:
            filler.write(bytes(1000))


@needs_root
class TestDisk:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[Path]:
        """A disk of 8 MB."""
        folder = tmp_path / "small"
        folder.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True).returncode:
            pytest.skip("no file systems can be mounted here")
        yield folder
        subprocess.run(["umount", "-l", folder], check=True)

    def test_full(
        self, run: Run, mosquitto: Broker, relay: Tap, small: Path, monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:  # fmt: skip
        """A disk that is full while the broker is away: results wait in memory, and go to the disk when there is room again."""
        monkeypatch.setattr(outbox, "RETRY_S", 0.1)
        source = run(relay, spool=small / "spool")
        source.flows(50)
        mosquitto.kill()
        source.flows(50)
        fill(small)
        source.flows(100)
        until(lambda: "database or disk is full; results wait in memory meanwhile" in caplog.text)
        (small / "filler").unlink()
        until(lambda: "spool.sqlite: works again" in caplog.text)
        mosquitto.start()
        whole(source, relay)
        said = [r.getMessage() for r in caplog.records if "spool.sqlite" in r.getMessage()]
        assert len(said) == 2

    def test_full_with_a_broker(self, run: Run, relay: Tap, small: Path) -> None:
        """A full disk is no reason not to publish."""
        fill(small)
        source = run(relay, spool=small / "spool")
        source.flows(100)
        whole(source, relay)

    def test_read_only(
        self, run: Run, mosquitto: Broker, relay: Tap, small: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A disk that can only be read at the start stops nothing; as soon as it can be written, it is used."""
        monkeypatch.setattr(outbox, "RETRY_S", 0.1)
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        mosquitto.kill()
        source = run(relay, spool=small / "spool")
        source.flows(50)
        subprocess.run(["mount", "-o", "remount,rw", small], check=True)
        until((small / "spool/spool.sqlite").exists)
        mosquitto.start()
        whole(source, relay)
