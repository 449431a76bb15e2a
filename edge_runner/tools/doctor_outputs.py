"""The doctor's look at the configuration's outputs: can they be written, is there room, does the broker answer."""

from __future__ import annotations

import os
import pwd
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_runner.errors import EdgeRunnerError, blamed
from edge_runner.fields import listed, load
from edge_runner.output import OUTPUTS
from edge_runner.output.mqtt import PORT, TLS_PORT, MqttConfig
from edge_runner.output.tls import tls_context, why_not
from edge_runner.service.device import disk_free
from edge_runner.tools.doctor import OWNER, Board, Finding, megabytes, served

CONNECT_S = 5.0  # for the broker's name, the connection and TLS, each
LITTLE_BYTES = 50_000_000
PLACES = ("path", "spool")  # the keys of what outputs write to the disk


def outputs(board: Board) -> Iterator[Finding]:
    """Each, in the configuration's order."""
    assert board.loaded is not None
    for index, config in enumerate(board.loaded.value.outputs):
        wrong = _wrong(f"outputs.{index}", config)
        closed = wrong is not None and _is_closed(wrong, board)
        if wrong and not closed:
            yield Finding("problem", board.loaded.locate(wrong))
            continue
        if isinstance(config, MqttConfig):
            yield _broker(config)
        places = list(_places(config))
        if closed:
            remedy = f"sudo edge-runner doctor --config {board.loaded.file} can"
            text = f"output {config.type}: this user may not look into {listed(map(str, places))}"
            yield Finding("warning", text, (), (remedy,))
        elif places:
            doubts = tuple(_doubts(config, board))
            text = f"output {config.type}: {', '.join(f'{place} ({_room(place)})' for place in places)}"
            yield Finding("warning" if doubts else "ok", text, (), doubts)


def _wrong(key: str, config: Any) -> EdgeRunnerError | None:
    """What `check` says of an output, if anything."""
    try:
        with blamed(key):
            load(OUTPUTS[config.type])(config).verify()
    except EdgeRunnerError as error:
        return error
    return None


def _is_closed(wrong: EdgeRunnerError, board: Board) -> bool:
    """Whether a service's folder is closed to whoever asks, and not to the service's own user."""
    of_a_place = (wrong.key or "").rpartition(".")[2] in PLACES
    return bool(served(board)) and of_a_place and os.geteuid() not in (0, _owner())


def reach(host: str, port: int, tls: Any = None) -> str:
    """Connect, shake hands where there is TLS, and hang up: no word of MQTT is said. Return why that cannot be, or nothing.

    It takes no longer than CONNECT_S for each step; looking a name up knows no limit of its own, so a thread does it.
    """
    outcome: list[str] = []

    def attempt() -> None:
        try:
            with socket.create_connection((host, port), timeout=CONNECT_S) as connection:
                if tls:
                    tls_context(tls).wrap_socket(connection, server_hostname=host).close()
            outcome.append("")
        except EdgeRunnerError as error:
            outcome.append(str(error))
        except (OSError, ValueError) as error:
            outcome.append(why_not(error) if isinstance(error, OSError) else str(error))

    thread = threading.Thread(target=attempt, name="doctor-reach", daemon=True)
    thread.start()
    thread.join(2 * CONNECT_S)
    return outcome[0] if outcome else f"no answer within {2 * CONNECT_S:.0f} s, not even on where it is"


def _broker(config: MqttConfig) -> Finding:
    where, started = f"{config.host}:{_port(config)}", time.monotonic()
    why = reach(config.host, _port(config), config.tls)
    if why:
        return Finding("problem", f"output mqtt: {where}: {why}", (), tuple(_broker_remedies(config, why)))
    how = "with TLS, its certificate holds" if config.tls else "without TLS"
    text = f"output mqtt: {where} answers after {time.monotonic() - started:.2f} s, {how}; nobody logged in"
    return Finding("ok", text)


def _port(config: MqttConfig) -> int:
    return config.port or (TLS_PORT if config.tls else PORT)


def _broker_remedies(config: MqttConfig, why: str) -> Iterator[str]:
    if "refused" in why:
        yield "is the broker running, and does it listen to the network? Mosquitto 2 needs a `listener` line for that"
    elif "name" in why or "where it is" in why:
        yield f"getent hosts {config.host}: does this board's network know the name? An address works without"
    elif "timed out" in why or "unreachable" in why or "no route" in why:
        yield f"ping {config.host}: a wrong address, a firewall, or another network"


def _places(config: Any) -> Iterator[Path]:
    """What an output writes to the disk."""
    for key in PLACES:
        place = getattr(config, key, None)
        if isinstance(place, Path):
            yield place


def _doubts(config: Any, board: Board) -> Iterator[str]:
    """What may go wrong later: no room for what an output may keep, or a place where the service may not write."""
    most = getattr(config, "max_total", None) or getattr(config, "spool_max", None) or 0
    name = served(board)
    allowed = [Path(f"/var/{kind}/edge-runner/{name}") for kind in ("log", "lib")]
    for place in _places(config):
        free = disk_free(place)
        used = _used(place)
        if free is not None and free < max(LITTLE_BYTES, most - used):
            yield f"it may keep {megabytes(max(most, LITTLE_BYTES))}, has {megabytes(used)}, and {megabytes(free)} are free"
        if name and not any(root in (place, *place.parents) for root in allowed):
            yield f"the service may write to {allowed[0]} only, where a relative path leads, and to a drop-in's ReadWritePaths"


def _room(place: Path) -> str:
    free = disk_free(place)
    return "no telling how much is free" if free is None else f"{megabytes(free)} free"


def _used(folder: Path) -> int:
    """The files in a folder; of a file, itself; of what this user may not look into, nothing."""
    total = 0
    with suppress(OSError):
        entries = list(folder.iterdir()) if folder.is_dir() else [folder]
        for entry in entries:
            with suppress(OSError):
                total += entry.stat().st_size
    return total


def _owner() -> int:
    with suppress(KeyError):
        return pwd.getpwnam(OWNER).pw_uid
    return -1
