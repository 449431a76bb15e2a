"""One connection to a broker, from its beginning to its end. The only module that knows paho."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from edge_runner.errors import SettingError
from edge_runner.output.tls import Tls, tls_context, why_not

if TYPE_CHECKING:
    from paho.mqtt.client import Client

CONNECT_S = 10.0  # each for the connection and for TLS
ANSWER_S = 30.0  # for both, the host's name, and the broker's answer
JOIN_S = 1.0  # for a thread that has said its last word
WINDOW = 100  # messages that are not acknowledged; fewer where the broker says so
HUNG_UP = -1  # in place of the broker's reason: it ended the connection before its answer
PAHO_ERROR = 8  # paho.mqtt.enums.LogLevel

Post = Callable[..., None]


@dataclass(frozen=True)
class Login:
    """Who connects, and what the broker is to publish when the connection dies. Without `version5` MQTT 3.1.1 is spoken."""

    client_id: str
    version5: bool
    username: str | None
    password: str | None = field(repr=False)
    tls: Tls | None
    will: tuple[str, bytes]


class Listener(Protocol):
    """Whom a link tells what happened to it; each is called with the link."""

    def connected(self, link: Link, window: int, largest: int | None) -> None:
        """The broker let us in. It takes so many messages at a time, of so many bytes."""

    def ended(self, link: Link, why: str, code: int = 0) -> None:
        """The connection has gone, or none could be made; `code` is the broker's reason (MQTT 5.0, 2.4), HUNG_UP, or 0."""

    def acknowledged(self, link: Link, number: int, code: int, reason: str) -> None:
        """The broker has a message, or says why it does not take it; with QoS 0, it was sent."""

    def heard(self, link: Link, topic: str, payload: bytes) -> None:
        """Somebody published on a topic that we listen to."""


class Link:
    """One connection, from its beginning to its end. The next one is another link, whose client knows nothing of this one's
    messages: so paho cannot send them again by itself, before or between what we send.

    What happens is posted by paho's thread: `post` has the listener's method called in the output's own.
    """

    def __init__(self, login: Login, listener: Listener, post: Post) -> None:
        """Raise SettingError where its certificates are no longer there."""
        self.deadline = time.monotonic() + ANSWER_S
        self._listener = listener
        self._post = post
        self._thread: threading.Thread | None = None
        self._up = False
        self._over = False
        self._left = False
        self._why = ""
        self._code = 0
        client = _client(login)
        self._client: Client | None = client
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_log = self._on_log

    def start(self, host: str, port: int, keepalive_s: int) -> None:
        assert self._client
        self._client.connect_async(host, port, keepalive_s)
        self._client.loop_start()

    def publish(self, topic: str, payload: bytes, qos: int, *, retain: bool) -> int:
        """Return the number by which it will be acknowledged; of a connection that has gone, it never will."""
        assert self._client
        return self._client.publish(topic, payload, qos, retain).mid

    def subscribe(self, topics: Sequence[str]) -> None:
        assert self._client
        self._client.subscribe([(topic, 0) for topic in topics])

    def leave(self) -> None:
        """Say goodbye, so that the broker does not carry out the last will."""
        assert self._client
        self._left = True
        self._client.disconnect()

    def close(self) -> None:
        """Let go of it, at once, without a goodbye: the broker carries out the last will. A thread that still waits for the network
        ends once that lets it."""
        if self._client is None:
            return
        if self._over and self._thread and self._thread is not threading.current_thread():
            self._thread.join(JOIN_S)
        else:
            self._cut(self._client)
        self._client = None  # it holds this link, and would keep its descriptors until the garbage is collected

    def _cut(self, client: Client) -> None:
        self._left = True
        end = client.socket()
        if isinstance(end, socket.socket):
            with suppress(OSError):  # the base's own: that of TLS takes away from the thread what it reads with
                socket.socket.shutdown(end, socket.SHUT_RDWR)
        client.disconnect()

    # From here on: paho's thread.

    def _on_connect(self, client: Client, _: Any, __: Any, reason: Any, properties: Any) -> None:
        if self._left:
            client.disconnect()
        elif reason.is_failure:
            self._why, self._code = str(reason), reason.value
        else:
            self._up = True
            client.on_log = None
            window = getattr(properties, "ReceiveMaximum", None) or WINDOW
            self._post(self._listener.connected, self, window, getattr(properties, "MaximumPacketSize", None))

    def _on_connect_fail(self, client: Client, _: Any) -> None:
        client.disconnect()  # one attempt a link
        error = sys.exc_info()[1]  # paho calls it while it handles it
        self._end(why_not(error) if isinstance(error, OSError) else "it cannot be reached")

    def _on_disconnect(self, client: Client, _: Any, flags: Any, reason: Any, __: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self._end(f"it ended the connection: {str(reason).lower()}", reason.value)
        elif self._code:
            self._end(self._why, self._code)
        elif self._up:
            self._end("the connection was lost")
        else:
            self._end("it does not answer as a broker; does this port want tls, or none?" + self._why, HUNG_UP)

    def _on_publish(self, client: Client, _: Any, number: int, reason: Any, __: Any) -> None:
        self._post(self._listener.acknowledged, self, number, reason.value, str(reason))

    def _on_message(self, client: Client, _: Any, message: Any) -> None:
        self._post(self._listener.heard, self, message.topic, bytes(message.payload))

    def _on_log(self, client: Client, _: Any, level: int, text: str) -> None:
        """What went wrong between the connection and the broker's answer, such as a certificate of ours that it does not like."""
        if level == PAHO_ERROR and not self._why:
            self._why = f" ({text})"

    def _end(self, why: str, code: int = 0) -> None:
        if not self._over:
            self._over, self._thread = True, threading.current_thread()
            self._post(self._listener.ended, self, why, code)


def check_paho() -> None:
    """Raise SettingError where paho-mqtt is missing, or old."""
    _paho()


def _client(login: Login) -> Client:
    paho = _paho()
    client: Client = paho.Client(
        paho.CallbackAPIVersion.VERSION2,
        client_id=login.client_id,
        protocol=paho.MQTTv5 if login.version5 else paho.MQTTv311,
        reconnect_on_failure=False,
    )
    client.connect_timeout = CONNECT_S
    client.max_inflight_messages_set(0)  # the output sees to that
    client.will_set(*login.will, qos=1, retain=True)
    if login.username is not None:
        client.username_pw_set(login.username, login.password)
    if login.tls:
        client.tls_set_context(tls_context(login.tls))
    return client


def _paho() -> Any:
    """Paho's client module; loaded only where an output of type mqtt is used."""
    try:
        import paho.mqtt.client as paho
    except ImportError as error:
        raise SettingError("needs paho-mqtt: pip install 'edge-runner[mqtt]'", key="type") from error
    if not hasattr(paho, "CallbackAPIVersion"):
        raise SettingError("paho-mqtt is older than 2: pip install -U 'edge-runner[mqtt]'", key="type")
    return paho
