"""docs/fleet.md: its commands, files and program, as they stand there, with a real broker on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from lab.broker import broker_missing, free_port, wait_until

from edge_runner.config import check
from edge_runner.output.base import Origin
from edge_runner.output.mqtt import Mqtt, MqttConfig
from edge_runner.output.publisher import Publisher
from edge_runner.output.tls import Tls
from edge_runner.result import Answers, Detection, Result

pytestmark = [
    pytest.mark.skipif(bool(broker_missing()), reason=str(broker_missing())),
    pytest.mark.skipif(os.getuid() != 0, reason="needs root: the commands are for root"),
]

Make = Callable[..., Result]
FLEET = Path(__file__).parents[2] / "docs/fleet.md"
DEADLINE_S = 60.0
until = partial(wait_until, DEADLINE_S)
PASSWORDS = {"pi-7": "p7", "pi-8": "p8", "collector": "c", "homeassistant": "h"}
SHOT: Any = None
BOX = (0.0, 0.0, 1.0, 1.0)


def blocks(language: str) -> list[str]:
    """What stands in the document between ```language and ```, in order."""
    return re.findall(rf"```{language}\n(.*?)```", FLEET.read_text("utf-8"), re.S)


def block(language: str, word: str) -> str:
    [found] = [text for text in blocks(language) if word in text]
    return found


class Server:
    """The server of the document, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.etc = folder / "etc"
        (self.etc / "conf.d").mkdir(parents=True)
        self.shell(block("sh", "openssl req"))
        users = block("sh", "mosquitto_passwd")
        for user in re.findall(r"passwords (\S+)$", users, re.M):
            users = users.replace(f"passwords {user}", f"passwords {user} {PASSWORDS[user]}")
        users = users.replace("mosquitto_passwd", "mosquitto_passwd -b")  # which does not ask
        self.shell(users + "mosquitto_passwd -b /etc/mosquitto/passwords pi-8 p8\n")
        self.shell("mosquitto_passwd -b /etc/mosquitto/passwords homeassistant h\n")
        (self.etc / "acl").write_text(block("acl", "user collector") + block("acl", "user homeassistant"))
        (self.etc / "conf.d/fleet.conf").write_text(self.here(block("conf", "listener")))
        (self.etc / "mosquitto.conf").write_text(
            f"user root\nlog_type all\nlog_dest file {folder}/log\npersistence true\npersistence_location {folder}/\n"
            f"include_dir {self.etc}/conf.d\n"
        )
        self.process = subprocess.Popen(
            [shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin") or "", "-c", self.etc / "mosquitto.conf"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until(lambda: " running" in (folder / "log").read_text() if (folder / "log").exists() else False)

    def here(self, text: str) -> str:
        """A text of the document, for this machine."""
        return (
            text.replace("/etc/mosquitto", str(self.etc))
            .replace("broker.example", "localhost")
            .replace("8883", str(self.port))
        )

    def shell(self, text: str, **variables: str) -> str:
        """Run a block of commands; all of them have to work."""
        environment = {**os.environ, **variables}
        done = subprocess.run(
            ["bash", "-euc", self.here(text)],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in (0, 27), done.stderr  # mosquitto_sub -W ends with 27 when the time is over
        return done.stdout


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "server")
    yield running
    running.process.kill()
    running.process.wait()


@pytest.fixture
def collect(server: Server, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start the document's collector."""
    folder = tmp_path / "fleet"
    folder.mkdir()
    shutil.copy(server.etc / "ca.pem", folder)
    (folder / "collect.py").write_text(block("python", "sqlite3"))
    running: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        environment = {**os.environ, "MQTT_PASSWORD": "c", "MQTT_HOST": "localhost", "MQTT_PORT": str(server.port)}
        running.append(
            subprocess.Popen(
                [sys.executable, "collect.py"], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
            )
        )
        stdout = running[-1].stdout
        assert stdout
        assert stdout.readline() == "Success\n"
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def rows(tmp_path: Path, query: str) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(tmp_path / "fleet/results.sqlite")
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


class Board:
    """A board with the document's configuration."""

    def __init__(self, server: Server, name: str, make: Make, folder: Path) -> None:
        [given] = yaml.safe_load(block("yaml", "outputs:"))["outputs"]
        assert (given.pop("host"), given.pop("tls")) == ("broker.example", {"ca": "ca.pem"})
        assert given.pop("password") == "${MQTT_PASSWORD}"
        checked = check(
            {**given, "host": "localhost", "port": server.port, "password": PASSWORDS[name]}, MqttConfig, "x"
        )
        config = {**vars(checked), "tls": Tls(server.etc / "ca.pem"), "spool": folder / f"spool-{name}"}
        self.output = Mqtt(MqttConfig(**config))
        self.name, self.seq = name, 0
        self._make = make
        self._publisher = Publisher(
            {"outputs.0": self.output}, Origin(device=name, cameras=("door",), run=f"run-{name}")
        )

    def __enter__(self) -> Board:
        self._publisher.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._publisher.__exit__()

    def publish(self, count: int) -> None:
        answers = Answers(detections=(Detection("person", 0, 0.9, BOX), Detection("car", 1, 0.8, BOX)))
        for _ in range(count):
            self.seq += 1
            made = {
                "device": self.name,
                "camera": "door",
                "run": f"run-{self.name}",
                "seq": self.seq,
                "answers": answers,
            }
            self._publisher.publish(self._make(**made), SHOT)


def test_from_boards_to_a_table(server: Server, collect: Any, result: Make, tmp_path: Path) -> None:
    """Results of two boards end in the database, once each, also those that came while the collector was killed; the document's
    questions to it have answers. What is no result is passed over."""
    collector = collect()
    with Board(server, "pi-7", result, tmp_path) as first, Board(server, "pi-8", result, tmp_path) as second:
        first.publish(20)
        second.publish(10)
        until(lambda: rows(tmp_path, "SELECT count(*) FROM results") == [(30,)])
        collector.kill()
        collector.wait()
        for junk in ("hello", '{"run": 1}', "-"):
            server.shell(
                f"mosquitto_pub -h localhost -p {server.port} --cafile {server.etc}/ca.pem -q 1 "
                f"-u pi-7 -P {PASSWORDS['pi-7']} -t edge-runner/pi-7/door -m '{junk}'"
            )
        first.publish(50)
        until(lambda: not first.output._box.waiting)
        collect()
        until(lambda: rows(tmp_path, "SELECT count(*) FROM results") == [(80,)])
        assert rows(tmp_path, "SELECT device, status FROM boards ORDER BY 1") == [
            ("pi-7", "online"),
            ("pi-8", "online"),
        ]
        listed = server.shell(block("sh", "mosquitto_sub"), MQTT_PASSWORD="c")
        assert sorted(listed.splitlines()) == ["edge-runner/pi-7/status online", "edge-runner/pi-8/status online"]
    offline, seen, missing = (query for query in block("sql", "SELECT").split(";") if query.strip())
    until(lambda: sorted(device for device, _ in rows(tmp_path, offline)) == ["pi-7", "pi-8"])
    assert sorted(rows(tmp_path, seen)) == [
        ("2026-11-22T13", device, "door", label, count)
        for device, count in (("pi-7", 70), ("pi-8", 10))
        for label in ("car", "person")
    ]
    assert rows(tmp_path, missing) == []
    stored = rows(tmp_path, "SELECT seq, result FROM results WHERE device = 'pi-7' ORDER BY seq")
    assert [seq for seq, _ in stored] == list(range(1, 71))
    assert all(json.loads(text)["seq"] == seq for seq, text in stored)


def test_boards_keep_to_themselves(server: Server) -> None:
    """A board can write below its own name only; the collector cannot write at all; nobody gets in without a password."""
    publish = f"mosquitto_pub -h localhost -p {server.port} --cafile {server.etc}/ca.pem -V 5 -q 1 -m x -d"
    allowed = {
        ("pi-7", "edge-runner/pi-7/door"): True,
        ("pi-7", "edge-runner/pi-8/door"): False,
        ("pi-7", "edge-runner/door"): False,
        ("collector", "edge-runner/pi-7/door"): False,
        ("pi-7", "homeassistant/device/edge-runner_pi-7/config"): True,
        ("homeassistant", "homeassistant/status"): True,
        ("homeassistant", "edge-runner/pi-7/door"): False,
    }
    for (user, topic), holds in allowed.items():
        said = server.shell(f"{publish} -u {user} -P {PASSWORDS[user]} -t {topic} 2>&1 || true")
        assert ("RC:0" in said or "RC:16" in said) is holds, (user, topic, said)
    refused = server.shell(f"{publish} -u pi-7 -P wrong -t edge-runner/pi-7/door 2>&1 || true")
    assert "not authori" in refused.lower()


def test_unit() -> None:
    """systemd understands the collector's unit."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd")
    folder = Path("/run/edge-runner-test")
    folder.mkdir(exist_ok=True)
    try:
        unit = block("ini", "ExecStart")
        (folder / "collect.service").write_text(unit)
        command = ["systemd-analyze", "verify", "--man=no", folder / "collect.service"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = [line for line in done.stderr.splitlines() if "collect.service" in line]
        assert not said, done.stderr
    finally:
        shutil.rmtree(folder)
