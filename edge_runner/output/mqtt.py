"""Results to an MQTT broker, each at least once and in order; how things stand beside them."""

from __future__ import annotations

import json
import logging
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from edge_runner import __version__
from edge_runner.errors import EdgeRunnerError, SettingError
from edge_runner.fields import Duration, OutputPath, Range, Size
from edge_runner.output.base import Item, Origin, Output, OutputConfig
from edge_runner.output.discovery import counted, discovery, discovery_topic, slug
from edge_runner.output.link import ANSWER_S, HUNG_UP, JOIN_S, Link, Login, check_paho
from edge_runner.output.outbox import Outbox
from edge_runner.output.retry import Retry
from edge_runner.output.sender import Sender
from edge_runner.output.spool import Message, Spool
from edge_runner.output.states import APART_S, Telling, board_news, camera_news, camera_state
from edge_runner.output.tls import Tls, tls_context
from edge_runner.output.topics import CAMERA, DEVICE, check_placeholders, check_topic, filled, safe, topics
from edge_runner.result import Result, rfc3339

PORT, TLS_PORT = 1883, 8883
ONLINE, OFFLINE = b"online", b"offline"

FLAPPING = 3  # connections in a row that did not hold for long: there is a reason
OLD_EACH = 4  # so many times it hung up at MQTT 5: then 3.1.1 is tried, once
SLOW_S = 1.0  # what is not acknowledged within it goes to the disk: so much a kill can take
GOODBYE_S = 1.0  # of the time to the end, for `offline`
PAUSE_S = 1.0  # after something failed that nobody thought of

# Reason codes (MQTT 5.0, 2.4).
WRONG_VERSION, BAD_LOGIN, TAKEN_OVER = 0x84, (0x86, 0x87), 0x8E

MACHINE_ID = Path("/etc/machine-id")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MqttConfig(OutputConfig):
    """The configuration's output of type mqtt. `port` None is 1883, or 8883 with `tls`; `spool` None keeps nothing on disk.

    `keepalive` is in seconds. `{device}` may stand in `topic`, `username` and `client_id`, `{camera}` in `topic`.
    """

    type: Literal["mqtt"] = "mqtt"
    host: str = field(kw_only=True)
    port: Annotated[int, Range(1, 65535)] | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Tls | None = None
    client_id: str | None = None
    keepalive: Annotated[Duration, Range(1, 65535)] = 30.0
    qos: Literal[0, 1] = 1
    topic: str = "edge-runner/{device}/{camera}"
    discovery: Literal["homeassistant"] | None = None
    discovery_prefix: str = "homeassistant"
    spool: Annotated[Path, OutputPath()] | None = Path("spool")
    spool_max: Annotated[Size, Range(10**6)] = 64 * 10**6


class Mqtt(Output):
    """Paho's thread only reports what happened, of one connection after the other; all else is done in the output's own."""

    Config = MqttConfig

    def __init__(self, config: MqttConfig) -> None:
        super().__init__(config)
        self.config: MqttConfig = config
        self.where = f"{config.host}:{_port(config)}"
        self._spool = Spool(_folder(config.spool), config.spool_max) if config.spool else None
        self._outbox: Outbox | None = None
        self._link: Link | None = None
        self._newest: dict[str, Result] = {}
        self._left = ""

    def verify(self) -> None:
        check_paho()
        _check_host(self.config.host)
        check_topic(self.config.topic, "topic", DEVICE, CAMERA)
        check_topic(self.config.discovery_prefix, "discovery_prefix")
        check_placeholders(self.config.username or "", "username", DEVICE)
        check_placeholders(self.config.client_id or "", "client_id", DEVICE)
        if self.config.password is not None and self.config.username is None:
            raise SettingError("given without a username; MQTT has no password alone", key="password")
        if self.config.tls:
            tls_context(self.config.tls)
        if self._spool:
            self._spool.verify()

    def open(self, origin: Origin) -> None:
        if self._outbox is not None:
            return
        check_paho()
        self._origin = origin
        self._topics = topics(self.config.topic, origin.device, origin.cameras)
        self._ident = slug(self._topics.status.removesuffix("/status").replace("/", "_"))
        self._client_id = _client_id(self.config, origin)
        outbox = Outbox(self._spool, self.where)
        outbox.open()
        self._begin(outbox)
        if self.config.discovery and len(counted(origin.labels)) < len(origin.labels):
            log.warning(
                "%s: Home Assistant gets counters for %d of %d labels; task.allow says which matter",
                self.where, len(counted(origin.labels)), len(origin.labels),
            )  # fmt: skip
        self.due = time.monotonic()

    def _begin(self, outbox: Outbox) -> None:
        who = f" of user '{self._username}'" if self.config.username is not None else ""
        self._outbox = outbox
        self._retry = Retry(self.where)
        self._sender = Sender(outbox, self._retry, qos=self.config.qos, who=who)
        self._events: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._stirred = threading.Event()
        self._version5, self._hang_ups = True, 0
        self._leaving = False
        self._left = ""
        self._board, self._board_at = Telling(board_news), 0.0
        self._cameras: dict[str, Telling] = {}

    def see(self, result: Result) -> None:
        self._newest[result.camera] = result

    def write(self, item: Item) -> None:
        camera = item.result.camera
        topic = self._topics.results.get(camera) or filled(self.config.topic, self._origin.device, camera)
        self._box.put(Message(topic, item.result.line().encode()))
        self.due = time.monotonic()
        if self._in_danger(self.due):
            self._box.keep()

    def tick(self) -> None:
        self.due = time.monotonic() + PAUSE_S
        self._listen()
        self._connect()
        self._work()
        self.due = min(self._dues())

    def finish(self, until: float) -> None:
        """What is on its way may arrive, and what waits go out, while there is time; the rest is kept for the next start."""
        try:
            self._await(until - GOODBYE_S, lambda: self._sender.busy or self._box.unsent)
        finally:
            self._leaving = True
            self._sender.give_up()
            self._box.keep()
            self._box.tidy(at_once=True)
            if self._spool and self._box.waiting:
                self._left = f"{self._box.waiting} results wait in {self._spool.folder}"
            self._say_goodbye(until)

    def _say_goodbye(self, until: float) -> None:
        if self._link and self._retry.since is not None:
            self._sender.notify(Message(self._topics.status, OFFLINE))
            self._sender.send_notices()
            self._await(until - GOODBYE_S / 2, lambda: self._sender.busy)
        if self._link:
            self._link.leave()
            self._await(min(until, time.monotonic() + JOIN_S), lambda: True)

    def close(self) -> None:
        if self._link:
            self._link.close()
            self._link = None
        if self._outbox:
            self._outbox.close()
            self._count()
        self._outbox, self.due = None, None

    def report(self) -> str:
        return self._left

    @property
    def _box(self) -> Outbox:
        assert self._outbox, "it is not open"
        return self._outbox

    def _post(self, deed: Callable[..., None], *arguments: Any) -> None:
        """Have something done in the output's own thread. Called by paho's."""
        self._events.append((deed, arguments))
        if not self._stirred.is_set():
            self._stirred.set()
            self.wake()

    def _listen(self) -> None:
        """Do what was posted."""
        self._stirred.clear()
        while self._events:
            deed, arguments = self._events.popleft()
            deed(*arguments)

    def _await(self, until: float, pending: Callable[[], bool]) -> None:
        """Go on working while there is a connection, or one is being made, something is pending, and there is time."""
        self._listen()
        while self._link and pending() and (left := until - time.monotonic()) > 0:
            if not self._leaving:
                self._work()
            self._stirred.wait(min(left, APART_S))
            self._listen()

    def _work(self) -> None:
        """Whatever can be done at once."""
        now = time.monotonic()
        if self._retry.since is not None:
            self._sender.send_notices()
            self._tell(now)
            self._sender.send_results()
            self._watch()
        if self._in_danger(now):
            self._box.keep()
        self._box.tidy()
        self._count()

    def _dues(self) -> Iterator[float]:
        if self._box.due is not None:
            yield self._box.due
        if self._link is None:
            yield self._retry.at
        elif self._retry.since is None:
            yield self._link.deadline
        else:
            yield self._board_at + APART_S
            if self._box.exposed_since is not None:
                yield self._box.exposed_since + SLOW_S

    def _count(self) -> None:
        self.lost = self._box.lost + self._sender.refused

    def _in_danger(self, now: float) -> bool:
        """Whether what is in memory alone is better on disk: the broker is away, or takes its time."""
        since = self._box.exposed_since
        return since is not None and (self._retry.since is None or self._box.crowded or now - since >= SLOW_S)

    # The connection.

    def _connect(self) -> None:
        """Begin one where there is none, and it is time; give up one that does not get anywhere."""
        now = time.monotonic()
        if self._link is None and now >= self._retry.at:
            try:
                self._link = Link(self._login, self, self._post)
            except EdgeRunnerError as error:
                self._put_off(str(error))
                return
            self._link.start(self.config.host, _port(self.config), round(self.config.keepalive))
        elif self._link and self._retry.since is None and now >= self._link.deadline:
            self._drop(f"no answer within {ANSWER_S:g} s")

    @property
    def _login(self) -> Login:
        who = self._username if self.config.username is not None else None
        version5 = self._version5 and self._hang_ups % OLD_EACH != OLD_EACH - 1
        will = (self._topics.status, OFFLINE)
        return Login(self._client_id, version5, who, self.config.password, self.config.tls, will)

    @property
    def _username(self) -> str:
        return (self.config.username or "").replace(DEVICE, self._origin.device)

    def connected(self, link: Link, window: int, largest: int | None) -> None:
        """The broker let us in."""
        if link is not self._link:
            return
        self._retry.connected(f"; {self._box.waiting} results wait to be sent" if self._box.waiting else "")
        self._hang_ups = 0
        self._sender.begin(link, window, largest)
        self._sender.notify(Message(self._topics.status, ONLINE))
        subscriptions = [self._topics.status]
        if self.config.discovery:
            self._discover()
            subscriptions.append(f"{self.config.discovery_prefix}/status")
        link.subscribe(subscriptions)
        self._board_at = 0.0
        for telling in (self._board, *self._cameras.values()):
            telling.forget()

    def ended(self, link: Link, why: str, code: int = 0) -> None:
        """The connection has gone, or none could be made."""
        if link is not self._link:
            return
        was_up = self._retry.since is not None
        hint = self._end_link(lost=True)
        if code == WRONG_VERSION and self._version5:
            self._version5 = False
            self._retry.at = time.monotonic()
            return
        self._hang_ups += code == HUNG_UP
        if code in BAD_LOGIN:
            who = f"user '{self._username}'" if self.config.username is not None else "clients without a user"
            why = f"it refuses {who} ({why.lower()}); check username and password"
        elif was_up and (code == TAKEN_OVER or (self._retry.flaps >= FLAPPING and not hint)):
            why += f" once more; does another client have this one's client_id, {self._client_id}?"
        if not self._leaving:
            self._put_off(why + hint)

    def _end_link(self, *, lost: bool) -> str:
        assert self._link
        self._link.close()
        self._link = None
        self._retry.ended()
        return self._sender.end(lost=lost)

    def _drop(self, why: str) -> None:
        self._end_link(lost=False)
        self._put_off(why)

    def _put_off(self, why: str) -> None:
        kept = f"in {self._spool.folder}" if self._spool else "in memory"
        self._retry.put_off(why, f"; results wait {kept}, and it is tried again and again")

    def _watch(self) -> None:
        """A broker that is connected and yet does nothing."""
        if self._sender.silent_s > 2 * self.config.keepalive:
            self._drop("it acknowledges nothing any more")
        else:
            self._retry.settle()

    def acknowledged(self, link: Link, number: int, code: int, reason: str) -> None:
        """The broker has a message, or says why it does not take it."""
        if link is self._link:
            self._sender.acknowledged(number, code, reason)

    def heard(self, link: Link, topic: str, payload: bytes) -> None:
        """Somebody published on a topic that we listen to."""
        if link is not self._link or self._leaving:
            return
        if topic == self._topics.status and payload == OFFLINE:  # the last will of an earlier connection came late
            self._sender.notify(Message(self._topics.status, ONLINE))
        elif topic != self._topics.status and payload == ONLINE:  # Home Assistant was started
            self._discover()

    # How things stand.

    def _discover(self) -> None:
        message = discovery(
            self._ident, self._origin.device, self._topics, self._origin.task, self._origin.labels, __version__
        )
        place = discovery_topic(self.config.discovery_prefix, self._ident)
        self._sender.notify(Message(place, json.dumps(message, ensure_ascii=False).encode("utf-8", "replace")))

    def _tell(self, now: float) -> None:
        """States go out at once, never behind results that wait, and are not kept: the next one is better."""
        if self._link is None:
            return
        if now >= self._board_at + APART_S:
            self._board_at = now
            state = {"time": rfc3339(time.time_ns()), **self._origin.state()}
            if self._board.wants(state, now):
                self._link.publish(self._topics.state, _packed(state), 0, retain=True)
        for camera, result in tuple(self._newest.items()):
            telling = self._cameras.setdefault(camera, Telling(camera_news))
            topic = self._topics.cameras.get(camera)
            if topic and telling.ready(now) and telling.wants(found := camera_state(result), now):
                self._link.publish(topic, _packed(found), 0, retain=True)


def _port(config: MqttConfig) -> int:
    return config.port or (TLS_PORT if config.tls else PORT)


def _folder(path: Path) -> Path:
    """The default is relative; what a configuration gives never is."""
    return OutputPath().base(Path()) / path


def _check_host(host: str) -> None:
    """Raise SettingError for what is no name and no address: an URL, a port behind it."""
    name = host.count(":") != 1 and "/" not in host
    try:
        name = bool(name and host.encode("idna"))
    except UnicodeError:
        name = False
    if not name or any(character.isspace() for character in host):
        raise SettingError(
            f"got '{host}'; allowed: a name or an address, such as broker.lan; a port is given apart", key="host"
        )


def _client_id(config: MqttConfig, origin: Origin) -> str:
    """The same after each start, so that the broker knows that an earlier connection is over; another for each daemon and board."""
    if config.client_id is not None:
        return config.client_id.replace(DEVICE, origin.device)
    board = ""
    with suppress(OSError):
        board = MACHINE_ID.read_text().strip()
    parts = (board, str(config.spool), config.topic, *origin.cameras)
    return f"{slug(safe(origin.device))}-{zlib.crc32(repr(parts).encode()):08x}"


def _packed(state: Any) -> bytes:
    return json.dumps(state, ensure_ascii=False).encode("utf-8", "replace")
