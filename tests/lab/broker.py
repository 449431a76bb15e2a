"""Real MQTT brokers (mosquitto) for tests, with what goes wrong with them, and two witnesses of what reached them.

with broker(tmp_path) as mosquitto, recorder(mosquitto) as heard:
    output(host=mosquitto.host, port=mosquitto.port)
    mosquitto.freeze(), mosquitto.thaw(), mosquitto.kill(), mosquitto.start()
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

READY_S = 60.0
POLL_S = 0.01
PORTS = range(10_000, 32_768)  # below those that Linux gives to whoever wants any
CONNECT, CONNACK, PUBLISH, PUBACK = 1, 2, 3, 4  # packet types (MQTT 5.0, table 2-1)
FAILURE = 0x80
OLD_REFUSAL = bytes([CONNACK << 4, 2, 0, 1])  # how a broker of MQTT 3.1.1 answers to a newer client


@cache
def broker_missing() -> str | None:
    """What is missing for a broker; in CI, nothing may be."""
    if os.environ.get("CI") or (_mosquitto() and shutil.which("mosquitto_passwd")):
        return None
    return "a broker: apt-get install mosquitto mosquitto-clients"


def _mosquitto() -> str | None:
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def wait_until(within_s: float, what: Callable[[], Any]) -> Any:
    """Wait until something holds, and return it."""
    deadline = time.monotonic() + within_s
    while not (found := what()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)
    return found


class Broker:
    """A running mosquitto that keeps nothing on disk. Its port stays the same over a restart.

    With `users` (name: password), only those are let in, and `acl` says who may do what. `tls` are more lines of its
    configuration, `prefix` stands before its command.
    """

    def __init__(
        self,
        folder: Path,
        *,
        users: Mapping[str, str] | None = None,
        acl: str | None = None,
        lines: Sequence[str] = (),
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.host, self.port = host, free_port()
        self.log = folder / "mosquitto.log"
        self._prefix = prefix
        self._passwords = folder / "passwords"
        self._config = folder / "mosquitto.conf"
        whole = [
            f"listener {self.port} {host}",
            "persistence false",
            "log_type all",
            f"log_dest file {self.log}",
            *(["user root"] if os.getuid() == 0 else []),
            *lines,
        ]
        if users is None:
            whole.append("allow_anonymous true")
        else:
            self.set_users(users, reload=False)
            whole += ["allow_anonymous false", f"password_file {self._passwords}"]
        if acl is not None:
            (folder / "acl").write_text(acl)
            whole.append(f"acl_file {folder / 'acl'}")
        self._acl = folder / "acl"
        self._config.write_text("\n".join(whole) + "\n")
        self.start()

    def start(self) -> None:
        """Return when it can be connected to."""
        command = [*self._prefix, str(_mosquitto()), "-c", str(self._config)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + READY_S
        while not self._listens():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"mosquitto did not get ready: {self.said()}")
            time.sleep(POLL_S)

    def stop(self) -> None:
        """End it as systemd does."""
        self.process.terminate()
        self.process.wait(READY_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Let it stand still, with its connections open."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def set_users(self, users: Mapping[str, str], *, reload: bool = True) -> None:
        self._passwords.write_text("".join(f"{name}:{password}\n" for name, password in users.items()))
        self._passwords.chmod(0o600)
        subprocess.run(["mosquitto_passwd", "-U", str(self._passwords)], check=True, capture_output=True)
        if reload:
            self.process.send_signal(signal.SIGHUP)

    def set_acl(self, acl: str) -> None:
        self._acl.write_text(acl)
        self.process.send_signal(signal.SIGHUP)

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def _listens(self) -> bool:
        if self._prefix:  # in a network of its own
            return " running" in self.said()
        try:
            socket.create_connection((self.host, self.port), 1).close()
        except OSError:
            return False
        return True


@contextmanager
def broker(folder: Path, **options: object) -> Iterator[Broker]:
    running = Broker(folder, **options)  # type: ignore[arg-type]
    try:
        yield running
    finally:
        with suppress(OSError):
            running.thaw()
        running.kill()


@dataclass(frozen=True)
class Delivery:
    """A message that a subscriber got."""

    topic: str
    payload: bytes
    retained: bool


class Recorder:
    """A subscriber to everything. It has to be attached again after the broker was restarted."""

    def __init__(self, mosquitto: Broker, username: str | None = None, password: str | None = None) -> None:
        self.deliveries: list[Delivery] = []
        self._broker = mosquitto
        self._login = (username, password)
        self._client: Any = None
        self.attach()

    def attach(self) -> None:
        import paho.mqtt.client as paho

        self.close()
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5, reconnect_on_failure=False)
        if self._login[0]:
            client.username_pw_set(*self._login)
        subscribed = threading.Event()
        client.on_connect = lambda *_: client.subscribe("#", qos=1)
        client.on_subscribe = lambda *_: subscribed.set()
        client.on_message = lambda _, __, m: self.deliveries.append(Delivery(m.topic, bytes(m.payload), bool(m.retain)))
        client.connect(self._broker.host, self._broker.port)
        client.loop_start()
        assert subscribed.wait(READY_S), "nothing could be subscribed to"
        self._client = client

    def on(self, topic: str) -> list[bytes]:
        """The payloads of one topic, in order."""
        return [delivery.payload for delivery in list(self.deliveries) if delivery.topic == topic]

    def publish(self, topic: str, payload: bytes) -> None:
        """Retained; an empty payload takes away what is."""
        assert self._client
        self._client.publish(topic, payload, 1, retain=True).wait_for_publish(READY_S)

    def close(self) -> None:
        if self._client:
            self._client.disconnect()
            self._client.loop_stop()
            self._client.on_connect = self._client.on_subscribe = self._client.on_message = None  # they hold it
            self._client = None


@contextmanager
def recorder(mosquitto: Broker, **login: str) -> Iterator[Recorder]:
    running = Recorder(mosquitto, **login)
    try:
        yield running
    finally:
        running.close()


class Tap:
    """A relay before a broker, which sees what that acknowledges: also what a subscriber never saw, because the broker was killed.

    `acknowledged` has topic and payload, in order. While it is `mute`, nothing comes back from the broker, while it is `greedy`, no
    acknowledgement, and acknowledgements are `pause_s` apart. Clients of MQTT 5 are refused as by an `old` broker, or by one that
    just `hangs_up`; a message of more than `most_bytes` ends the connection.
    """

    def __init__(
        self, host: str, port: int, *, old: bool = False, hangs_up: bool = False, most_bytes: int = sys.maxsize
    ) -> None:
        self._target = (host, port)
        self._old = old or hangs_up
        self._refusal = b"" if hangs_up else OLD_REFUSAL
        self._most_bytes = most_bytes
        self.greedy = False
        self.pause_s = 0.0
        self.acknowledged: list[tuple[str, bytes]] = []
        self.versions: list[int] = []
        self._speaks = threading.Event()
        self._speaks.set()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._server.getsockname()
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def mute(self) -> bool:
        return not self._speaks.is_set()

    @mute.setter
    def mute(self, mute: bool) -> None:
        (self._speaks.clear if mute else self._speaks.set)()

    def cut(self) -> None:
        """Close all connections."""
        for one in list(self._open):
            _shut(one)

    def close(self) -> None:
        _shut(self._server)
        self._server.close()
        self._speaks.set()
        self.cut()
        for thread in self._threads:
            thread.join(READY_S)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target, READY_S)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            flow = _Flow(self, near, far)
            self._open |= {near, far}
            for work in (flow.up, flow.down):
                self._threads.append(threading.Thread(target=self._pump, args=(work, near, far), daemon=True))
                self._threads[-1].start()

    def _pump(self, work: Callable[[], None], near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            work()
        for one in (near, far):
            _shut(one)
            one.close()
            self._open.discard(one)


class _Flow:
    """One connection through a tap: `up` to the broker, `down` to the client."""

    def __init__(self, tap: Tap, near: socket.socket, far: socket.socket) -> None:
        self._tap, self._near, self._far = tap, near, far
        self._version = 5
        self._published: dict[int, tuple[str, bytes]] = {}

    def up(self) -> None:
        for kind, head, body in _packets(self._near):
            if kind == CONNECT:
                self._version = body[6]
                self._tap.versions.append(self._version)
                if self._tap._old and self._version == 5:
                    self._near.sendall(self._tap._refusal)
                    return
            if len(body) > self._tap._most_bytes:
                return
            if kind == PUBLISH and head[0] & 0b0110:
                number, message = self._message(body)
                self._published[number] = message
            self._far.sendall(head + body)

    def down(self) -> None:
        for kind, head, body in _packets(self._far):
            self._tap._speaks.wait()
            if kind == PUBACK:
                if self._tap.greedy:
                    continue
                time.sleep(self._tap.pause_s)
            if kind == PUBACK and (len(body) < 3 or body[2] < FAILURE):
                self._tap.acknowledged.append(self._published.pop(int.from_bytes(body[:2], "big")))
            self._near.sendall(head + body)

    def _message(self, body: bytes) -> tuple[int, tuple[str, bytes]]:
        end = 2 + int.from_bytes(body[:2], "big")
        topic, number, rest = body[2:end].decode(), int.from_bytes(body[end : end + 2], "big"), body[end + 2 :]
        if self._version == 5:
            rest = rest[1 + rest[0] :]  # properties, never 128 bytes here
        return number, (topic, rest)


def _packets(source: socket.socket) -> Iterator[tuple[int, bytes, bytes]]:
    """Kind, fixed header and rest of each packet, until the connection ends."""
    with source.makefile("rb") as stream:
        while head := stream.read(1):
            size, shift = 0, 0
            while True:
                head += (byte := stream.read(1))
                if not byte:
                    return
                size |= (byte[0] & 0x7F) << shift
                shift += 7
                if byte[0] < 0x80:
                    break
            body = stream.read(size)
            if len(body) < size:
                return
            yield head[0] >> 4, head, body


def _shut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


@contextmanager
def tap(mosquitto: Broker, **faults: Any) -> Iterator[Tap]:
    running = Tap(mosquitto.host, mosquitto.port, **faults)
    try:
        yield running
    finally:
        running.close()


def free_port() -> int:
    """One that nobody gets by chance while its server is away."""
    while True:
        port = secrets.choice(PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@dataclass(frozen=True)
class Certificates:
    """PEM files of a private authority: its own certificate, a server's for localhost and 127.0.0.1, a client's, both with keys."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


def certificates(folder: Path) -> Certificates:
    """Made by openssl, as docs/fleet.md does it."""
    folder.mkdir(parents=True, exist_ok=True)

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *curve, "-days", "2", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.pem")
    for name, subject in (("server", "/CN=localhost"), ("client", "/CN=pi-7")):
        openssl("req", *curve, "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
        openssl("x509", "-req", "-in", f"{name}.csr", *signed, "-out", f"{name}.pem")
    return Certificates(*(folder / name for name in ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")))
