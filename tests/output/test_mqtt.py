"""Results to a real broker: what is published where, who is let in, and how things stand."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lab.broker import (
    Broker,
    Certificates,
    Recorder,
    Tap,
    broker,
    broker_missing,
    certificates,
    recorder,
    tap,
    wait_until,
)

from edge_runner.config import check
from edge_runner.errors import ConfigError, SettingError
from edge_runner.output import mqtt, publisher, retry, sender
from edge_runner.output.base import Item, Origin
from edge_runner.output.mqtt import Mqtt, MqttConfig
from edge_runner.output.publisher import Publisher
from edge_runner.output.tls import Tls
from edge_runner.output.when import When
from edge_runner.result import Answers, Detection, Result

needs_broker = pytest.mark.skipif(bool(broker_missing()), reason=str(broker_missing()))

Make = Callable[..., Result]
Run = Callable[..., "Daemon"]
SHOT: Any = None
DEADLINE_S = 30.0
until = partial(wait_until, DEADLINE_S)
RESULTS, CAMERA, STATUS, STATE = (
    f"edge-runner/pi-7/{name}" for name in ("front-door", "front-door/state", "status", "state")
)
HEALTHY = {"health": "running", "reasons": [], "temperature": 45.1}


class Daemon:
    """An mqtt output with everything that serves it in the daemon, and results from a counter."""

    def __init__(self, config: MqttConfig, make: Make, **origin: Any) -> None:
        self.output = Mqtt(config)
        given = {
            "device": "pi-7",
            "run": "R1",
            "cameras": ("front-door",),
            "task": "classify",
            "labels": ("cat", "dog"),
        }
        self._publisher = Publisher({"outputs.0": self.output}, Origin(**{**given, "state": lambda: HEALTHY, **origin}))
        self._make = make
        self.seq = 0
        self.stopped = False
        self._publisher.__enter__()

    def publish(self, count: int = 1, **fields: Any) -> None:
        for _ in range(count):
            self.seq += 1
            given = {"run": self._publisher.run, "seq": self.seq}
            self._publisher.publish(self._make(**{**given, **fields}), SHOT)

    def written(self) -> None:
        """Wait until the output has taken all that was published."""
        until(lambda: not self._publisher.waiting)

    def stop(self) -> float:
        """How long it took."""
        started = time.monotonic()
        if not self.stopped:
            self.stopped = True
            self._publisher.__exit__()
        return time.monotonic() - started

    @property
    def lost(self) -> int:
        return sum(self._publisher.lost.values())

    @property
    def report(self) -> list[str]:
        return self._publisher.reports()


@pytest.fixture
def run(
    mosquitto: Broker, result: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_left: None
) -> Iterator[Run]:
    """Start a daemon's output for a broker; it connects anew after a moment. All are stopped in the end."""
    monkeypatch.setattr(retry, "FIRST_S", 0.05)
    monkeypatch.setattr(retry, "LAST_S", 0.2)
    running = []

    def start(place: Broker | Tap, *, origin: dict[str, Any] | None = None, **config: Any) -> Daemon:
        given = {"host": place.host, "port": place.port, "spool": tmp_path / "spool", **config}
        running.append(Daemon(MqttConfig(**given), result, **(origin or {})))
        return running[-1]

    yield start
    for daemon in running:
        daemon.stop()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Broker]:
    with broker(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def heard(mosquitto: Broker) -> Iterator[Recorder]:
    with recorder(mosquitto) as running:
        yield running


def seqs(payloads: list[bytes]) -> list[int]:
    return [json.loads(payload)["seq"] for payload in payloads]


@needs_broker
class TestResults:
    def test_published(self, run: Run, mosquitto: Broker, heard: Recorder, result: Make) -> None:
        """Each result goes to its camera's topic, in order, as the line that it is everywhere else, and is not retained."""
        daemon = run(mosquitto, origin={"cameras": ("front-door", "a/b")})
        daemon.publish(20)
        daemon.publish(camera="a/b")
        until(lambda: len(heard.on("edge-runner/pi-7/a_b")) == 1)
        assert seqs(heard.on(RESULTS)) == list(range(1, 21))
        assert heard.on(RESULTS)[0].decode() == result(run="R1", seq=1).line()
        daemon.stop()
        heard.attach()
        assert not [d for d in heard.deliveries if d.topic == RESULTS and d.retained]
        assert daemon.lost == 0
        assert daemon.report == []

    def test_disk_is_not_touched(
        self, run: Run, mosquitto: Broker, heard: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While the broker keeps up, nothing is written to the card."""
        monkeypatch.setattr(mqtt, "SLOW_S", DEADLINE_S)
        daemon = run(mosquitto)
        daemon.publish()
        until(lambda: heard.on(RESULTS))
        daemon.output._box.tidy(at_once=True)
        before = [(path, path.stat().st_mtime_ns) for path in (tmp_path / "spool").iterdir()]
        for n in range(2, 30):
            daemon.publish()
            until(lambda n=n: len(heard.on(RESULTS)) == n)
        assert [(path, path.stat().st_mtime_ns) for path in (tmp_path / "spool").iterdir()] == before

    @pytest.mark.parametrize("qos", [0, 1])
    def test_qos(self, run: Run, mosquitto: Broker, heard: Recorder, qos: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """With QoS 0 as with 1 all arrive on a connection that holds, and the stop waits for neither longer than it must."""
        monkeypatch.setattr(publisher, "FLUSH_S", 2 * DEADLINE_S)
        daemon = run(mosquitto, qos=qos)
        daemon.publish(300)
        daemon.written()
        assert daemon.stop() < DEADLINE_S
        until(lambda: len(heard.on(RESULTS)) == 300)
        assert seqs(heard.on(RESULTS)) == list(range(1, 301))
        assert daemon.lost == 0
        assert f"q{qos}, r0, " in mosquitto.said()

    def test_once(self, run: Run, mosquitto: Broker, heard: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
        """A single result, and the end at once: it arrives, for the connection is waited for."""
        monkeypatch.setattr(publisher, "FLUSH_S", DEADLINE_S)
        daemon = run(mosquitto, spool=None)
        daemon.publish()
        daemon.stop()
        assert seqs(until(lambda: heard.on(RESULTS))) == [1]
        until(lambda: heard.on(STATUS) == [b"online", b"offline"])
        assert daemon.lost == 0

    def test_topic(self, run: Run, mosquitto: Broker, heard: Recorder) -> None:
        """The topic can be chosen, and what the daemon tells of itself stands beside it."""
        run(mosquitto, topic="site/{device}/cameras/{camera}/results").publish()
        until(lambda: heard.on("site/pi-7/cameras/front-door/results"))
        assert heard.on("site/pi-7/cameras/status") == [b"online"]
        until(lambda: heard.on("site/pi-7/cameras/front-door/results/state"))

    def test_window(self, run: Run, mosquitto: Broker, heard: Recorder) -> None:
        """No more messages are on their way than the broker takes (mosquitto: 20), and none more than we want."""
        with tap(mosquitto) as relay:
            daemon = run(relay)
            until(lambda: heard.on(STATUS) and not daemon.output._sender._flights)
            relay.mute = True
            daemon.publish(400)
            daemon.written()
            until(lambda: len(daemon.output._sender._flights) == 20)
            relay.mute = False
            until(lambda: len(heard.on(RESULTS)) == 400)
        assert "receive maximum" not in mosquitto.said().lower()

    def test_slow_broker(self, run: Run, mosquitto: Broker, heard: Recorder, tmp_path: Path) -> None:
        """What is not acknowledged within a second is on disk, and sent just once all the same."""
        with tap(mosquitto) as relay:
            daemon = run(relay)
            daemon.publish()
            until(lambda: relay.acknowledged and heard.on(RESULTS) and not daemon.output._sender._flights)
            relay.mute = True
            daemon.publish(3)
            until(lambda: daemon.output._box.spool.count == 3)  # type: ignore[union-attr]
            relay.mute = False
            until(lambda: not daemon.output._box.waiting)
            daemon.publish()
            until(lambda: len(heard.on(RESULTS)) == 5)
            assert seqs(heard.on(RESULTS)) == [1, 2, 3, 4, 5]

    def test_no_time_at_the_end(self, mosquitto: Broker, result: Make, tmp_path: Path, nothing_left: None) -> None:
        """A stop that leaves no time to wait for the broker keeps on disk what is on its way, and says so."""
        with tap(mosquitto) as relay:
            output = Mqtt(MqttConfig(host=relay.host, port=relay.port, spool=tmp_path / "spool"))
            output.open(Origin(device="pi-7", cameras=("front-door",)))
            until(lambda: output.tick() or output._retry.since)  # type: ignore[func-returns-value]
            relay.mute = True
            for seq in (1, 2, 3):
                output.write(Item(result(seq=seq)))
            output.finish(time.monotonic())
            output.close()
            assert output.lost == 0
            assert output.report() == f"3 results wait in {tmp_path / 'spool'}"
            relay.mute = False
            output.open(Origin(device="pi-7", cameras=("front-door",)))
            until(lambda: output.tick() or len(relay.acknowledged) >= 3)  # type: ignore[func-returns-value]
            output.finish(time.monotonic() + 5)
            output.close()
            assert {1, 2, 3} <= set(seqs([payload for topic, payload in relay.acknowledged if topic == RESULTS]))

    def test_old_broker(self, run: Run, mosquitto: Broker, heard: Recorder, caplog: pytest.LogCaptureFixture) -> None:
        """A broker that knows only MQTT 3.1.1 is spoken to in that, without a word."""
        with tap(mosquitto, old=True) as relay:
            run(relay).publish()
            assert seqs(until(lambda: heard.on(RESULTS))) == [1]
            assert relay.versions == [5, 4]
            assert not [record for record in caplog.records if record.levelname == "WARNING"]

    def test_broker_that_hangs_up_on_mqtt_5(self, run: Run, mosquitto: Broker, heard: Recorder) -> None:
        """One that says nothing of the version, and just ends the connection, is found out."""
        with tap(mosquitto, hangs_up=True) as relay:
            run(relay).publish()
            assert seqs(until(lambda: heard.on(RESULTS))) == [1]
            assert relay.versions == [5, 5, 5, 4]

    def test_slow_link(self, run: Run, mosquitto: Broker) -> None:
        """A link that is slow and moves is left alone, however long the last message has to wait for its turn."""
        with tap(mosquitto) as relay:
            relay.pause_s = 0.2
            daemon = run(relay, keepalive=1.0)
            daemon.publish(20)
            until(lambda: len([topic for topic, _ in relay.acknowledged if topic == RESULTS]) == 20)
            assert len(relay.versions) == 1

    def test_too_large_for_an_old_broker(self, run: Run, mosquitto: Broker, caplog: pytest.LogCaptureFixture) -> None:
        """MQTT 3.1.1 has no word for it: the broker hangs up. The result at which it does so again and again, and alone, is lost;
        the others go on."""
        with tap(mosquitto, old=True, most_bytes=4000) as relay:
            daemon = run(relay)
            daemon.publish(3)
            daemon.publish(1, source="x" * 5000)

            def given_up() -> bool:
                daemon.publish()
                daemon.written()
                time.sleep(0.02)
                return daemon.lost == 1

            until(given_up)
            until(lambda: not daemon.output._box.waiting)
            assert daemon.lost == 1
            got = seqs([payload for topic, payload in relay.acknowledged if topic == RESULTS])
            assert sorted(set(got)) == [n for n in range(1, daemon.seq + 1) if n != 4]
            assert re.search(
                r"ends the connection whenever it gets one of the results \(5,\d+ bytes\); such results are lost",
                caplog.text,
            )
            assert re.search(r"may a result of 5,\d+ bytes be too large for it\?", caplog.text)

    def test_no_result_is_blamed_for_a_bad_link(
        self, run: Run, mosquitto: Broker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the link is lost again and again at one result, and at all others too, none is given up."""
        monkeypatch.setattr(sender, "HOLD_S", 0.5)
        with tap(mosquitto, old=True, most_bytes=200) as relay:
            daemon = run(relay)
            daemon.publish(5)
            until(lambda: len(relay.versions) > 15)
            relay._most_bytes = 10**6
            until(lambda: len([topic for topic, _ in relay.acknowledged if topic == RESULTS]) == 5)
            assert daemon.lost == 0

    def test_too_large_for_the_broker(
        self, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A result that the broker does not take is lost, with one warning, and what it is to tell Home Assistant is left out; all
        other results go out."""
        with broker(tmp_path / "b", lines=["max_packet_size 4000"]) as small, recorder(small) as heard:
            monkeypatch.setattr(retry, "QUIET_S", 1.0)
            labels = [f"label {n}" for n in range(40)]
            daemon = run(small, discovery="homeassistant", origin={"task": "detect", "labels": labels})
            until(lambda: daemon.output._retry.since and time.monotonic() - daemon.output._retry.since > 1.5)
            for _ in range(3):
                daemon.publish(1, source="x" * 5000)
                daemon.publish(1)
            until(lambda: len(heard.on(RESULTS)) == 3)
            assert seqs(heard.on(RESULTS)) == [2, 4, 6]
            assert daemon.lost == 3
            said = re.findall(
                r"it takes no results that are so large \(5,\d+ bytes\); such results are lost", caplog.text
            )
            assert len(said) == 1
            assert re.search(r"homeassistant/.*/config: \d\d,\d+ bytes are more than it takes", caplog.text)
            assert "client_id" not in caplog.text


@needs_broker
class TestStatus:
    def test_online_and_offline(self, run: Run, mosquitto: Broker, heard: Recorder) -> None:
        """Whoever asks later still learns whether the board is there: `online`, and after a stop `offline`."""
        daemon = run(mosquitto)
        until(lambda: heard.on(STATUS) == [b"online"])
        with recorder(mosquitto) as later:
            assert until(lambda: later.on(STATUS)) == [b"online"]
        daemon.stop()
        until(lambda: heard.on(STATUS) == [b"online", b"offline"])
        with recorder(mosquitto) as later:
            assert until(lambda: later.on(STATUS)) == [b"offline"]

    def test_last_will(self, run: Run, mosquitto: Broker, heard: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
        """When the connection dies, the broker says it; when there is a new one, the daemon does."""
        with tap(mosquitto) as relay:
            monkeypatch.setattr(retry, "FIRST_S", 1.0)
            monkeypatch.setattr(retry, "LAST_S", 1.0)
            run(relay)
            until(lambda: heard.on(STATUS) == [b"online"])
            relay.cut()
            until(lambda: b"offline" in heard.on(STATUS) and heard.on(STATUS)[-1] == b"online")

    def test_offline_while_we_have_given_it_up(
        self, run: Run, mosquitto: Broker, heard: Recorder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A connection that is given up is no connection: `offline`, also where there is no other one before the end."""
        with tap(mosquitto) as relay:
            monkeypatch.setattr(retry, "FIRST_S", 3600.0)
            monkeypatch.setattr(retry, "LAST_S", 3600.0)
            daemon = run(relay, keepalive=1.0)
            until(lambda: heard.on(STATUS) == [b"online"])
            relay.greedy = True
            daemon.publish()
            until(lambda: heard.on(STATUS)[-1] == b"offline")
            daemon.stop()
        with recorder(mosquitto) as later:
            assert until(lambda: later.on(STATUS)) == [b"offline"]

    def test_nobody_thought_of_it(self, run: Run, mosquitto: Broker, heard: Recorder, tmp_path: Path) -> None:
        """A fault of our own, in what is told beside the results, takes none of them; in the end all are there or on disk."""

        def state() -> dict[str, str]:
            raise ZeroDivisionError

        daemon = run(mosquitto, origin={"state": state})
        until(lambda: heard.on(STATUS))
        daemon.publish(3)
        daemon.written()
        daemon.stop()
        assert daemon.lost == 0
        assert heard.on(STATUS)[-1] == b"offline"
        run(mosquitto)
        until(lambda: set(seqs(heard.on(RESULTS))) == {1, 2, 3})

    def test_late_last_will(self, run: Run, mosquitto: Broker, heard: Recorder) -> None:
        """An `offline` of an earlier connection, or of another daemon with the same topic, does not stay."""
        run(mosquitto)
        until(lambda: heard.on(STATUS) == [b"online"])
        heard.publish(STATUS, b"offline")
        until(lambda: heard.on(STATUS) == [b"online", b"offline", b"online"])

    def test_client_id_stays(self, run: Run, mosquitto: Broker, heard: Recorder) -> None:
        """The broker knows a daemon again after a restart, and two daemons of one board apart."""
        names = []
        for config in ({}, {}, {"topic": "other/{device}/{camera}"}, {"client_id": "{device}-x"}):
            daemon = run(mosquitto, **config)
            until(lambda daemon=daemon: daemon.output._retry.since)
            names.append(daemon.output._client_id)
            daemon.stop()
        assert names[0] == names[1] != names[2]
        assert names[0].startswith("pi-7-")
        assert names[3] == "pi-7-x"
        assert f"as {names[0]} " in mosquitto.said()


@needs_broker
class TestStates:
    def test_camera(self, run: Run, mosquitto: Broker, heard: Recorder) -> None:
        """The newest result of each camera in a few words, retained; also of results that `when` leaves out."""
        daemon = run(mosquitto, when=When(labels=("dog",)), origin={"cameras": ("front-door", "gate")})
        daemon.publish()
        box = (0.0, 0.0, 1.0, 1.0)
        daemon.publish(camera="gate", answers=Answers(detections=(Detection("cat", 0, 0.5, box),) * 2))
        assert json.loads(until(lambda: heard.on(CAMERA))[0]) == {
            "time": "2026-11-22T13:28:00.123456Z", "label": "cat", "score": 0.75, "counts": {"cat": 1},
        }  # fmt: skip
        assert json.loads(until(lambda: heard.on("edge-runner/pi-7/gate/state"))[0])["counts"] == {"cat": 2}
        assert not heard.on(RESULTS)
        with recorder(mosquitto) as later:
            assert until(lambda: later.on(CAMERA)) == heard.on(CAMERA)

    def test_once_a_second(self, run: Run, mosquitto: Broker, heard: Recorder) -> None:
        """However often the answer changes, it is told once a second, and the last one in the end; the same is not told again."""
        daemon = run(mosquitto)
        until(lambda: heard.on(STATUS))
        started = time.monotonic()
        for n in range(200):
            daemon.publish(answers=Answers(detections=(Detection(f"label {n}", 0, 0.5, (0.0, 0.0, 1.0, 1.0)),)))
            time.sleep(0.005)
        until(lambda: json.loads(heard.on(CAMERA)[-1])["label"] == "label 199")
        assert 2 <= len(heard.on(CAMERA)) <= time.monotonic() - started + 1
        told = len(heard.on(CAMERA))
        daemon.publish(answers=Answers(detections=(Detection("label 199", 0, 0.51, (0.0, 0.0, 1.0, 1.0)),)))
        until(lambda: len(heard.on(RESULTS)) == 201)
        assert len(heard.on(CAMERA)) == told

    def test_board(self, run: Run, mosquitto: Broker, heard: Recorder) -> None:
        """How the daemon and the board are, retained, with the time; at once when that changes."""
        state: dict[str, Any] = dict(HEALTHY)
        run(mosquitto, origin={"state": lambda: state})
        first = json.loads(until(lambda: heard.on(STATE))[0])
        assert {**HEALTHY, "time": first["time"]} == first
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", first["time"])
        state = {**HEALTHY, "health": "degraded", "reasons": ["camera: no frame"]}
        until(lambda: json.loads(heard.on(STATE)[-1])["health"] == "degraded")
        assert len(heard.on(STATE)) == 2

    def test_ahead_of_what_waits(self, run: Run, mosquitto: Broker) -> None:
        """After an outage the states come first, and only then what had to wait."""
        with tap(mosquitto) as relay:
            daemon = run(relay)
            until(lambda: relay.acknowledged)
            relay.mute = True
            relay.cut()
            daemon.publish(500)
            daemon.written()
            with recorder(mosquitto) as heard:
                relay.mute = False
                until(lambda: len(heard.on(RESULTS)) == 500)
            order = [delivery.topic for delivery in heard.deliveries if not delivery.retained]
        assert set(order[: order.index(RESULTS)]) >= {STATUS, STATE, CAMERA}


@needs_broker
class TestHomeAssistant:
    TOPIC = re.compile(r"homeassistant/device/([\w-]+)/config")

    def messages(self, heard: Recorder) -> list[dict[str, Any]]:
        return [json.loads(d.payload) for d in list(heard.deliveries) if self.TOPIC.fullmatch(d.topic)]

    def test_told(self, run: Run, mosquitto: Broker, heard: Recorder) -> None:
        """Where it is wanted, one retained message says what there is; each topic in it exists."""
        run(mosquitto, discovery="homeassistant", origin={"task": "detect"}).publish()
        until(lambda: heard.on(RESULTS))
        with recorder(mosquitto) as later:
            [message] = until(lambda: self.messages(later))
            topics = {c[key] for c in message["cmps"].values() for key in ("stat_t", "json_attr_t") if key in c}
            assert topics == {STATE, CAMERA}
            until(lambda: all(later.on(topic) for topic in (*topics, message["avty_t"])))
        assert set(message["cmps"]) == {
            "health", "temperature", "front-door.label", "front-door.score", "front-door.count.cat", "front-door.count.dog",
        }  # fmt: skip

    def test_told_again(self, run: Run, mosquitto: Broker, heard: Recorder) -> None:
        """When Home Assistant comes back, it is told again."""
        run(mosquitto, discovery="homeassistant")
        until(lambda: len(self.messages(heard)) == 1)
        heard.publish("homeassistant/status", b"offline")
        heard.publish("homeassistant/status", b"online")
        until(lambda: len(self.messages(heard)) == 2)
        assert self.messages(heard)[0] == self.messages(heard)[1]

    def test_elsewhere(self, run: Run, mosquitto: Broker, heard: Recorder) -> None:
        """Its prefix can be another; where it is not wanted, it is not told."""
        daemon = run(mosquitto, discovery="homeassistant", discovery_prefix="ha/x")
        until(lambda: [d for d in heard.deliveries if d.topic.startswith("ha/x/device/")])
        daemon.stop()
        run(mosquitto).publish()
        until(lambda: heard.on(RESULTS))
        assert not self.messages(heard)

    def test_many_labels(self, run: Run, mosquitto: Broker, caplog: pytest.LogCaptureFixture) -> None:
        """Labels beyond the hundredth have no counter, which is said once."""
        labels = tuple(map(str, range(101)))
        run(mosquitto, discovery="homeassistant", origin={"labels": labels, "task": "detect"})
        [said] = [record.getMessage() for record in caplog.records if "Home Assistant" in record.getMessage()]
        assert "counters for 100 of 101 labels; task.allow says which matter" in said


@needs_broker
class TestLogin:
    def test_let_in(self, run: Run, tmp_path: Path) -> None:
        """A user with a password; the user may be named after the device."""
        with broker(tmp_path / "b", users={"pi-7": "s3cret"}) as mosquitto:
            login = {"username": "pi-7", "password": "s3cret"}
            with recorder(mosquitto, **login) as heard:
                run(mosquitto, username="{device}", password="s3cret").publish()
                assert seqs(until(lambda: heard.on(RESULTS))) == [1]

    def test_refused_and_then_let_in(self, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A wrong password is said once, with what to do, and never itself; as soon as it is right, all results go out."""
        users = {"watcher": "w", "pi-7": "other"}
        with (
            broker(tmp_path / "b", users=users) as mosquitto,
            recorder(mosquitto, username="watcher", password="w") as heard,
        ):
            daemon = run(mosquitto, username="pi-7", password="s3cret")
            daemon.publish(5)
            until(lambda: mosquitto.said().count("not authorised") >= 3)
            daemon.publish(5)
            mosquitto.set_users({**users, "pi-7": "s3cret"})
            until(lambda: len(heard.on(RESULTS)) == 10)
            said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert seqs(heard.on(RESULTS)) == list(range(1, 11))
        assert len(said) == 2
        assert re.search(
            r"it refuses user 'pi-7' \(not authorized\); check username and password; results wait in", said[0]
        )
        assert re.search(r"connected; \d+ results wait to be sent", said[1])
        assert "s3cret" not in caplog.text + repr(daemon.output.config)

    def test_without_a_user(self, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A broker that wants a user says so."""
        with broker(tmp_path / "b", users={"a": "b"}) as mosquitto:
            run(mosquitto)
            until(lambda: "it refuses clients without a user" in caplog.text)

    def test_not_allowed_to_publish(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Results that the access rights do not allow are not lost: they wait, it is said once, and they go out in order."""
        monkeypatch.setattr(sender, "HOLD_S", 0.2)
        rights = "user watcher\ntopic #\nuser pi-7\ntopic write edge-runner/pi-7/status\n"
        users = {"watcher": "w", "pi-7": "p"}
        with (
            broker(tmp_path / "b", users=users, acl=rights) as mosquitto,
            recorder(mosquitto, username="watcher", password="w") as heard,
        ):
            daemon = run(mosquitto, username="pi-7", password="p")
            daemon.publish(50)
            until(lambda: mosquitto.said().count("Denied PUBLISH") > 60)
            mosquitto.set_acl(rights + "topic write edge-runner/pi-7/#\n")
            until(lambda: len(heard.on(RESULTS)) == 50)
            until(lambda: "takes results on edge-runner/pi-7/front-door again" in caplog.text)
        assert seqs(heard.on(RESULTS)) == list(range(1, 51))
        assert daemon.lost == 0
        said = f"it does not let us publish on {RESULTS} (not authorized); check the access rights of user 'pi-7'; such"
        assert caplog.text.count(said) == 1

    def test_one_camera_is_not_allowed(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Results of a topic that is denied wait for themselves; the others go on."""
        monkeypatch.setattr(sender, "HOLD_S", 0.2)
        rights = "user watcher\ntopic #\nuser pi-7\ntopic write edge-runner/pi-7/front-door\n"
        with (
            broker(tmp_path / "b", users={"watcher": "w", "pi-7": "p"}, acl=rights) as mosquitto,
            recorder(mosquitto, username="watcher", password="w") as heard,
        ):
            daemon = run(mosquitto, username="pi-7", password="p", origin={"cameras": ("front-door", "gate")})
            for _ in range(200):
                daemon.publish(camera="gate")
                daemon.publish(camera="front-door")
            until(lambda: len(heard.on(RESULTS)) == 200)
            assert caplog.text.count("it does not let us publish on edge-runner/pi-7/gate") == 1
            assert "again" not in caplog.text.split("such results wait", 1)[1].split("\n", 1)[1]
            mosquitto.set_acl(rights + "topic write edge-runner/pi-7/gate\n")
            until(lambda: len(heard.on("edge-runner/pi-7/gate")) >= 200)
            assert seqs(heard.on("edge-runner/pi-7/gate")) == list(range(1, 400, 2))
        assert daemon.lost == 0

    def test_not_allowed_to_tell_home_assistant(
        self, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What is denied beside the results is said, and holds nothing up."""
        login = {"username": "pi-7", "password": "p"}
        rights = "user pi-7\ntopic readwrite edge-runner/#\n"
        with (
            broker(tmp_path / "b", users={"pi-7": "p"}, acl=rights) as mosquitto,
            recorder(mosquitto, **login) as heard,
        ):
            run(mosquitto, **login, discovery="homeassistant").publish()
            until(lambda: heard.on(RESULTS))
            topic = "homeassistant/device/edge-runner_pi-7/config"
            until(lambda: f"it does not let us publish on {topic} (not authorized)" in caplog.text)

    def test_same_client_id(
        self, run: Run, mosquitto: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Two clients of one name throw each other out again and again, and that is what is said."""
        run(mosquitto, client_id="x")
        run(mosquitto, client_id="x", spool=tmp_path / "other")
        until(lambda: "does another client have this one's client_id, x?" in caplog.text)


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("ca"))


@needs_broker
class TestTls:
    def lines(self, papers: Certificates, *more: str) -> list[str]:
        return [f"cafile {papers.ca}", f"certfile {papers.server}", f"keyfile {papers.server_key}", *more]

    def papers_of_client(self, papers: Certificates) -> Tls:
        return Tls(ca=papers.ca, cert=papers.client, key=papers.client_key)

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_private_authority(self, run: Run, tmp_path: Path, papers: Certificates, host: str) -> None:
        """A broker with a certificate of a private authority, by its name and its address."""
        with broker(tmp_path / "b", lines=self.lines(papers)) as mosquitto:
            daemon = run(mosquitto, host=host, tls=Tls(ca=papers.ca))
            daemon.publish(3)
            until(lambda: mosquitto.said().count(f"Received PUBLISH from {daemon.output._client_id}") >= 4)
            until(lambda: not daemon.output._box.waiting)

    def test_client_certificate(self, run: Run, tmp_path: Path, papers: Certificates) -> None:
        """A broker that wants a certificate of its clients gets one."""
        wants = self.lines(papers, "require_certificate true", "use_identity_as_username true")
        with broker(tmp_path / "b", lines=wants) as mosquitto:
            daemon = run(mosquitto, tls=self.papers_of_client(papers))
            daemon.publish()
            until(lambda: daemon.output._retry.since and not daemon.output._box.waiting)
            assert "u'pi-7'" in mosquitto.said()

    def test_without_a_client_certificate(
        self, run: Run, tmp_path: Path, papers: Certificates, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One that gets none says what it misses, and ends the connection: now and then its end is all that comes through."""

        def told() -> bool:
            caplog.clear()
            daemon = run(mosquitto, tls=Tls(ca=papers.ca), spool=None)
            until(lambda: caplog.text)
            daemon.stop()
            return bool(re.search("certificate.required", caplog.text, re.I))

        with broker(tmp_path / "b", lines=self.lines(papers, "require_certificate true")) as mosquitto:
            assert any(told() for _ in range(20))

    @pytest.mark.parametrize("what", ["other", "system"])
    def test_wrong_authority(
        self, run: Run, tmp_path: Path, papers: Certificates, caplog: pytest.LogCaptureFixture, what: str
    ) -> None:
        """A certificate of somebody else is not trusted, and that is what is said; nothing is sent."""
        tls = Tls(ca=certificates(tmp_path / "other").ca) if what == "other" else Tls()
        with broker(tmp_path / "b", lines=self.lines(papers)) as mosquitto:
            run(mosquitto, tls=tls, username="pi-7", password="s3cret").publish()
            until(lambda: "its certificate is not to be trusted (" in caplog.text)
            assert "check host and tls.ca" in caplog.text
            assert "pi-7" not in mosquitto.said()

    def test_wrong_name(self, run: Run, tmp_path: Path, papers: Certificates, caplog: pytest.LogCaptureFixture) -> None:
        """A certificate for another name is not trusted either."""
        with broker(tmp_path / "b", lines=self.lines(papers), host="127.0.0.2") as mosquitto:
            run(mosquitto, tls=Tls(ca=papers.ca))
            until(lambda: "certificate is not valid for '127.0.0.2'" in caplog.text)

    def test_only_one_side_speaks_tls(
        self, run: Run, tmp_path: Path, mosquitto: Broker, papers: Certificates, caplog: pytest.LogCaptureFixture
    ) -> None:
        """TLS on one side alone is said, whichever it is."""
        run(mosquitto, tls=Tls(ca=papers.ca))
        until(lambda: "is this its TLS port?" in caplog.text or "does this port want tls" in caplog.text)
        caplog.clear()
        with broker(tmp_path / "b", lines=self.lines(papers)) as secure:
            run(secure, spool=None)
            until(lambda: "does this port want tls" in caplog.text)

    def test_new_certificates_are_noticed(
        self, run: Run, tmp_path: Path, papers: Certificates, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Certificates are read for each connection: those that were renewed are used without a restart."""
        with broker(tmp_path / "b", lines=self.lines(papers)) as mosquitto:
            ca = tmp_path / "ca.pem"
            ca.write_bytes(certificates(tmp_path / "other").ca.read_bytes())
            daemon = run(mosquitto, tls=Tls(ca=ca))
            until(lambda: daemon.output._retry._failures)
            ca.unlink()
            until(lambda: "no such file" in caplog.text)
            ca.write_bytes(papers.ca.read_bytes())
            until(lambda: daemon.output._retry.since)


class TestConfiguration:
    def config(self, **fields: Any) -> MqttConfig:
        return MqttConfig(**{"host": "broker", "spool": None, **fields})

    def test_from_yaml(self, tmp_path: Path) -> None:
        """As the reader of configurations makes it; the port follows from tls."""
        config = check({"host": "broker", "tls": {}, "spool": None, "qos": 0, "keepalive": "1m"}, MqttConfig, "x.yaml")
        assert (config.tls, config.spool, config.qos, config.keepalive) == (Tls(), None, 0, 60.0)
        assert Mqtt(config).where == "broker:8883"
        assert Mqtt(check({"host": "broker"}, MqttConfig, "x.yaml")).where == "broker:1883"
        assert Mqtt(check({"host": "broker", "port": 99}, MqttConfig, "x.yaml")).where == "broker:99"

    @pytest.mark.parametrize(
        "wrong", [{}, {"port": 0}, {"qos": 2}, {"keepalive": "0s"}, {"spool_max": "1KB"}, {"discovery": "other"}]
    )
    def test_out_of_range(self, wrong: dict[str, Any]) -> None:
        """Values that cannot be are refused by the reader."""
        with pytest.raises(ConfigError):
            check({"host": "broker", **wrong} if wrong else {}, MqttConfig, "x.yaml")

    @pytest.mark.parametrize(
        ("fields", "key", "words"),
        [
            ({"host": "mqtt://broker"}, "host", "got 'mqtt://broker'; allowed: a name or an address"),
            ({"host": "broker:1883"}, "host", "a port is given apart"),
            ({"host": "bro ker"}, "host", "allowed: a name"),
            ({"host": ""}, "host", "allowed: a name"),
            ({"host": "x" * 70}, "host", "allowed: a name"),
            ({"topic": "a/#"}, "topic", "a topic without + and #"),
            ({"topic": "a/{name}"}, "topic", "allowed placeholders: {device} and {camera}"),
            ({"discovery_prefix": "{device}"}, "discovery_prefix", "allowed placeholders: none"),
            ({"username": "{camera}"}, "username", "allowed placeholders: {device}"),
            ({"client_id": "{camera}"}, "client_id", "allowed placeholders: {device}"),
            ({"password": "x"}, "password", "given without a username"),
            ({"tls": Tls(key=Path("k.pem"))}, "tls.key", "given without tls.cert"),
            ({"spool": Path("/dev/null/x")}, "spool", "is no folder"),
        ],
    )
    def test_wrong(self, fields: dict[str, Any], key: str, words: str) -> None:
        """What cannot work is refused before the start, with its key and what to do."""
        with pytest.raises(SettingError) as caught:
            Mqtt(self.config(**fields)).verify()
        assert caught.value.key == key
        assert words in str(caught.value)

    @pytest.mark.parametrize(
        "host", ["broker", "broker.lan", "192.168.1.2", "::1", "fe80::1%eth0", "bröker.de", "x.local."]
    )
    def test_hosts(self, host: str) -> None:
        """Names and addresses of all kinds."""
        Mqtt(self.config(host=host, username="a+b#c@d")).verify()

    def test_wrong_files(self, tmp_path: Path) -> None:
        """Files that are no certificates, or do not belong together, are named."""
        papers, other = certificates(tmp_path / "a"), certificates(tmp_path / "b")
        (tmp_path / "text.pem").write_text("hello")
        cases = [
            (Tls(ca=tmp_path / "text.pem"), "tls.ca", "text.pem: no certificates in PEM"),
            (Tls(cert=tmp_path / "text.pem"), "tls.cert", "allowed: a certificate and its key, in PEM"),
            (Tls(cert=papers.client, key=other.client_key), "tls.cert", "key values mismatch"),
            (Tls(cert=papers.client), "tls.cert", "allowed: a certificate and its key, in PEM"),
        ]
        for tls, key, words in cases:
            with pytest.raises(SettingError) as caught:
                Mqtt(self.config(tls=tls)).verify()
            assert caught.value.key == key
            assert words in str(caught.value)
        Mqtt(self.config(tls=Tls(papers.ca, papers.client, papers.client_key))).verify()

    def test_default_spool(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Results are stored where nothing is said, too: in the folder that systemd gives, else in the current one."""
        monkeypatch.chdir(tmp_path)
        spool = Mqtt(MqttConfig(host="broker"))._spool
        assert spool
        assert spool.folder.absolute() == tmp_path / "spool"
        monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
        spool = Mqtt(MqttConfig(host="broker"))._spool
        assert spool
        assert spool.folder == tmp_path / "state/spool"

    def test_without_paho(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where paho-mqtt is missing, the check and the start say what to install."""
        output = Mqtt(self.config())
        monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
        for attempt in (output.verify, lambda: output.open(Origin())):
            with pytest.raises(SettingError, match=re.escape("pip install 'edge-runner[mqtt]'")) as caught:
                attempt()
            assert caught.value.key == "type"

    def test_old_paho(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that is older than 2, as Debian 12 has it, will not do."""
        monkeypatch.delattr("paho.mqtt.client.CallbackAPIVersion")
        with pytest.raises(SettingError, match=re.escape("older than 2: pip install -U 'edge-runner[mqtt]'")):
            Mqtt(self.config()).verify()

    def test_open_and_close_twice(self, tmp_path: Path, nothing_left: None) -> None:
        """Opening and closing can be repeated, and leave neither threads nor descriptors."""
        output = Mqtt(self.config(host="127.0.0.1", port=9, spool=tmp_path / "spool"))
        output.close()
        for _ in range(2):
            output.open(Origin())
            output.open(Origin())
            output.close()
            output.close()
