"""The doctor's look at outputs: folders on real file systems, and brokers behind real sockets."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lab.broker import Certificates, certificates

from edge_runner.output.tls import Tls
from edge_runner.settings import load_settings
from edge_runner.tools import doctor_outputs
from edge_runner.tools.doctor import Board, Finding
from edge_runner.tools.doctor_outputs import outputs, reach


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return certificates(tmp_path_factory.mktemp("papers"))


@pytest.fixture
def listener() -> Iterator[Callable[..., int]]:
    """A port that takes connections, with TLS where a context is given; its number. What was said there is in `heard`."""
    servers = []

    def listen(context: ssl.SSLContext | None = None, answers: bool = True) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve() -> None:
            while server.fileno() >= 0:
                with suppress(OSError), server.accept()[0] as connection:
                    if not answers:
                        connection.recv(100)  # the handshake's beginning
                        ended.wait(60)
                    with context.wrap_socket(connection, server_side=True) if context else connection as spoken:
                        heard.append(spoken.recv(100))

        threading.Thread(target=serve, daemon=True).start()
        return int(server.getsockname()[1])

    heard: list[bytes] = []
    ended = threading.Event()
    listen.heard = heard  # type: ignore[attr-defined]
    yield listen
    ended.set()
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


@pytest.fixture
def server_context(papers: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(papers.server, papers.server_key)
    return context


@pytest.fixture
def look(board: Board, configure: Any) -> Callable[..., list[Finding]]:
    """The findings on these outputs."""

    def at(*configs: dict[str, Any]) -> list[Finding]:
        return list(outputs(replace(board, loaded=load_settings(configure(outputs=list(configs))))))

    return at


class TestReach:
    def test_answers(self, listener: Any) -> None:
        """A connection is made and let go; not a byte is said, so that no daemon's client is thrown out."""
        assert reach("127.0.0.1", listener()) == ""
        deadline = time.monotonic() + 30
        while not listener.heard and time.monotonic() < deadline:
            time.sleep(0.01)
        assert listener.heard == [b""]

    def test_refused(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            assert "connection refused" in reach("127.0.0.1", free.getsockname()[1])

    def test_no_such_name(self) -> None:
        """A name that nobody knows; by RFC 2606 nobody ever will."""
        assert "cannot be reached (" in reach("broker.invalid", 1883)

    def test_tls(self, listener: Any, server_context: ssl.SSLContext, papers: Certificates) -> None:
        """With the right authority the handshake is made; without it, it is said that the certificate is not trusted."""
        port = listener(server_context)
        assert reach("localhost", port, Tls(ca=papers.ca)) == ""
        assert "its certificate is not to be trusted" in reach("localhost", port, Tls())

    def test_no_tls_there(self, listener: Any, papers: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
        """A port that knows nothing of TLS is not waited for."""
        monkeypatch.setattr(doctor_outputs, "CONNECT_S", 0.5)
        assert "timed out" in reach("127.0.0.1", listener(answers=False), Tls(ca=papers.ca))

    def test_a_name_that_takes_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Looking a name up knows no limit of its own."""
        forever = threading.Event()

        def look_up(*_: Any, **__: Any) -> None:
            forever.wait(60)
            raise OSError

        monkeypatch.setattr(socket, "create_connection", look_up)
        monkeypatch.setattr(doctor_outputs, "CONNECT_S", 0.1)
        assert reach("broker", 1883).startswith("no answer within ")
        forever.set()


class TestMqtt:
    def test_answers(self, look: Any, listener: Any) -> None:
        """The broker, and the disk of the spool."""
        broker, spool = look({"type": "mqtt", "host": "127.0.0.1", "port": listener()})
        assert broker.level == spool.level == "ok"
        assert broker.text.startswith("output mqtt: 127.0.0.1:")
        assert broker.text.endswith("without TLS; nobody logged in")
        assert "spool (" in spool.text

    @pytest.mark.parametrize(
        ("config", "remedy"),
        [
            ({"host": "127.0.0.1", "port": 1}, "is the broker running"),
            ({"host": "broker.invalid"}, "getent hosts broker.invalid"),
        ],
    )
    def test_does_not_answer(self, look: Any, config: dict[str, Any], remedy: str) -> None:
        """A problem, with where to look."""
        broker, _ = look({"type": "mqtt", **config})
        assert broker.level == "problem"
        assert remedy in broker.remedies[0]

    def test_tls_port(self, look: Any, papers: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a port, TLS has its own."""
        asked = []
        monkeypatch.setattr(doctor_outputs, "reach", lambda *given: asked.append(given[:2]) or "")
        look({"type": "mqtt", "host": "b", "tls": {"ca": str(papers.ca)}}, {"type": "mqtt", "host": "b", "spool": "x"})
        assert asked == [("b", 8883), ("b", 1883)]


class TestFiles:
    def test_console(self, look: Any) -> None:
        """There is nothing to say of it."""
        assert look({"type": "console"}) == []

    def test_room(self, look: Any, tmp_path: Path) -> None:
        """Where each writes, and the room there."""
        log, pictures = look(
            {"type": "jsonl", "path": str(tmp_path / "x.jsonl")},
            {"type": "snapshots", "path": str(tmp_path / "pictures"), "max_total": "1MB"},
        )
        assert (log.level, pictures.level) == ("ok", "ok")
        assert log.text.startswith(f"output jsonl: {tmp_path}/x.jsonl (")
        assert pictures.text.endswith(" free)")

    def test_little_room(self, look: Any, mount_tmpfs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """What may be kept has to have room; what is there already counts."""
        monkeypatch.setenv("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        disk = mount_tmpfs("300m")
        (disk / "p").mkdir()
        snapshots = {"type": "snapshots", "path": str(disk / "p"), "max_total": "400MB"}
        [finding] = look(snapshots)
        assert (finding.level, finding.remedies[0][:28]) == ("warning", "it may keep 400 MB, has 0 MB")
        with (disk / "p" / "x.jpg").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 150 * 10**6)
        assert [finding.level for finding in look(snapshots)] == ["warning"]
        assert [finding.level for finding in look({**snapshots, "max_total": "200MB"})] == ["ok"]

    def test_forbidden(self, look: Any, tmp_path: Path) -> None:
        """What can never be written is a problem, at its place in the configuration."""
        (tmp_path / "file").touch()
        [finding] = look({"type": "snapshots", "path": str(tmp_path / "file" / "x")})
        assert finding.level == "problem"
        assert "outputs.0.path: " in finding.text

    def test_what_is_not_to_be_seen(self, lock: Any, run_cli: Any, configure: Any, tmp_path: Path) -> None:
        """A folder that is closed to this user is a finding, and not the end of the part."""
        (tmp_path / "closed").mkdir()
        outputs = [
            {"type": "jsonl", "path": str(tmp_path / "closed/x.jsonl")},
            {"type": "snapshots", "path": "pictures"},
        ]
        prefix = lock(tmp_path / "closed")
        done = run_cli("doctor", "--json", "--config", configure(outputs=outputs), prefix=prefix)
        first, second = (f for f in json.loads(done.stdout)["findings"] if f["part"] == "outputs")
        assert first["level"] == "problem"
        assert "outputs.0.path: " in first["text"]
        assert "permission denied" in first["text"]
        assert second["level"] == "ok"


class TestOfAService:
    @pytest.fixture
    def look(self, board: Board, configure: Any, tmp_path: Path) -> Callable[..., list[Finding]]:
        """The findings on these outputs, in a service's configuration."""
        (tmp_path / "etc/edge-runner").mkdir()

        def at(*configs: dict[str, Any]) -> list[Finding]:
            path = configure(outputs=list(configs)).rename(tmp_path / "etc/edge-runner/door.yaml")
            return list(outputs(replace(board, loaded=load_settings(path))))

        return at

    def test_where_it_may_write(self, look: Any, tmp_path: Path) -> None:
        """Its unit lets it write into its own folders only."""
        [finding] = look({"type": "jsonl", "path": "/var/log/edge-runner/door/x.jsonl"})
        assert finding.level == "ok"
        [finding] = look({"type": "jsonl", "path": str(tmp_path / "x.jsonl")})
        assert finding.level == "warning"
        assert "may write to /var/log/edge-runner/door only" in finding.remedies[0]

    def test_another_user(self, look: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What this user may not write the service's may: that is a doubt, and not a problem."""
        (tmp_path / "file").touch()
        config = {"type": "snapshots", "path": str(tmp_path / "file" / "x")}
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert [finding.level for finding in look(config)] == ["problem"]
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        [finding] = look(config)
        assert (finding.level, finding.text) == (
            "warning",
            f"output snapshots: this user may not look into {tmp_path}/file/x",
        )
        assert finding.remedies[0].startswith("sudo edge-runner doctor --config ")
        broker, spool = look({"type": "mqtt", "host": "127.0.0.1", "port": 1, "spool": str(tmp_path / "file" / "x")})
        assert (broker.level, spool.level) == ("problem", "warning")
        [finding] = look({"type": "mqtt", "host": "127.0.0.1", "topic": "a/#"})
        assert (finding.level, "outputs.0.topic" in finding.text) == ("problem", True)
