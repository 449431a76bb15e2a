"""The doctor's look at the service: the user and its groups, the units of systemd, and what each running daemon says of itself."""

from __future__ import annotations

import getpass
import grp
import os
import pwd
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from edge_runner.fields import listed
from edge_runner.model.store import models_folder
from edge_runner.service.instances import RUN, Account, accounts
from edge_runner.tools.doctor import OWNER, Board, Finding, Level, ask

UNIT = "edge-runner@{}.service"
PROPERTIES = ("Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "ExecMainStatus", "NRestarts")
STALE_S = 60.0  # health is written every ten seconds
WRONG_CONFIG = "78"
MANY_RESTARTS = 3
CAMERAS = "cameras"

# What helps against what a daemon says of itself, by the reason's code.
REMEDIES = {
    "camera_lost": "is it plugged in, has it power, does the network reach it? The lines on cameras say more",
    "camera_stalled": "it is opened again by itself; where that goes on, look at its cable, its power, and the network",
    "camera_frozen": "it sends the same picture again and again: switch it off and on",
    "output_backlog": "results come faster than an output takes them: `when` or `max_fps` lets fewer through",
    "output_failing": "the lines on outputs say where it hangs; what is spooled is sent later",
    "disk": "the lines on disks say which; make room, or lower max_total, keep and spool_max",
    "heat": "a heat sink, a fan, or a cooler place; `max_fps` spares the processor",
    "under_voltage": "a stronger power supply, and a short cable",
    "clock": "the line on the clock says what is missing; results say `unsynced` until then",
    "reload_failed": "sudo edge-runner check --config {config} says why; the configuration from before runs on",
    "memory": "it ends by itself with the reload; a smaller model, or a board with more memory, has none of it",
    "model_fallback": "edge-runner model list shows the versions; the one from before runs",
    "no_progress": "journalctl -u {unit} -n 50 says what it did last; systemd starts it again",
}


@dataclass(frozen=True)
class Instance:
    """A service of this board: its unit's properties, and its health; empty where there is none."""

    name: str
    unit: Mapping[str, str] = field(default_factory=dict)
    account: Account = field(default_factory=Account)

    @property
    def health(self) -> Mapping[str, Any]:
        return self.account.said

    @property
    def age_s(self) -> float:
        """Of the health, by a clock that does not jump; 0 where it does not say."""
        said = self.health.get("monotonic")
        return time.monotonic() - said if isinstance(said, (int, float)) else 0.0

    def is_up(self) -> bool:
        return self.unit.get("ActiveState") in ("active", "reloading") if self.unit else bool(self.health)


def user(board: Board) -> Iterator[Finding]:
    """Who asks, and which groups are missing to do things without root."""
    name = _user_name()
    if os.geteuid() == 0:
        yield Finding("ok", f"user {name}: may do anything")
        return
    here = {_group_name(number) for number in {*os.getgroups(), os.getegid()}}
    joined = {group.gr_name for group in grp.getgrall() if name in group.gr_mem}
    wanted = list(_wanted_groups(board))
    text = f"user {name}, in the groups {listed(sorted(here))}"
    lacking = [group for group, _ in wanted if group not in here | joined]
    late = [group for group, _ in wanted if group in joined - here]
    remedies = [
        f"sudo usermod -aG {group} {name}, then log in again: {why}" for group, why in wanted if group in lacking
    ]
    remedies += [f"log in again: {group} was joined since" for group in late]
    needed = any(group in lacking + late and why == CAMERAS for group, why in wanted)
    yield Finding("warning" if needed else "ok", text, (), tuple(remedies))


def services(board: Board) -> Iterator[Finding]:
    """Every instance of the service: what systemd says of it, and what it says itself."""
    for instance in instances(board):
        yield _stopped(instance, board) if not instance.is_up() else _running(instance, board)


def instances(board: Board) -> list[Instance]:
    """Those with a configuration, a unit or a health file, by name."""
    said = accounts(board.run / RUN.name)
    configured = {path.stem for path in (board.etc / OWNER).glob("*.yaml")}
    units = _units(sorted(configured | set(said))) if (board.run / "systemd/system").is_dir() else {}
    return [
        Instance(name, units.get(name, {}), said.get(name, Account()))
        for name in sorted(configured | set(said) | set(units))
    ]


def _units(names: list[str]) -> dict[str, dict[str, str]]:
    """What systemd says of the instances of these names, and of those that it has loaded."""
    command = ["systemctl", "show", f"--property={','.join(PROPERTIES)}", UNIT.format("*"), *map(UNIT.format, names)]
    said = ask(*command)
    found = {}
    for block in said.out.split("\n\n") if said else ():
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        name = unit.get("Id", "").removeprefix("edge-runner@").removesuffix(".service")
        if name and unit.get("LoadState") == "loaded":
            found[name] = unit
    return found


def _stopped(instance: Instance, board: Board) -> Finding:
    """One that does not run: because nobody started it, or because it cannot."""
    unit, name = instance.unit, UNIT.format(instance.name)
    config = board.etc / OWNER / f"{instance.name}.yaml"
    state = unit.get("ActiveState", "")
    if not unit:
        text = f"service {instance.name}: {config} is there, but systemd knows no unit for it"
        return Finding("warning", text, (), (f"install the service, or by hand: edge-runner --config {config}",))
    if state == "failed" and unit.get("ExecMainStatus") == WRONG_CONFIG:
        text = f"service {instance.name}: stopped, for its configuration or its model is wrong (exit status 78)"
        remedies = (f"sudo edge-runner check --config {config} says what", f"then: sudo systemctl restart {name}")
        return Finding("problem", text, (), remedies)
    if state == "failed":
        why = f"{unit.get('Result', 'failed')}, exit status {unit.get('ExecMainStatus', '?')}"
        return Finding(
            "problem", f"service {instance.name}: failed ({why})", (), (_log(name), f"sudo systemctl restart {name}")
        )
    if state in ("activating", "deactivating"):
        many = int(unit.get("NRestarts") or 0)
        level: Level = "problem" if many >= MANY_RESTARTS else "warning"
        again = f", for the {many}. time" if many else ""
        return Finding(level, f"service {instance.name}: {unit.get('SubState', state)}{again}", (), (_log(name),))
    return Finding("warning", f"service {instance.name}: not started", (), (f"sudo systemctl enable --now {name}",))


def _running(instance: Instance, board: Board) -> Finding:
    """One that runs: how it is, by its own word, and whether it will be there after the next start of the board."""
    said, name = instance.health, UNIT.format(instance.name)
    config = str(said.get("config") or board.etc / OWNER / f"{instance.name}.yaml")
    reasons = [str(reason) for reason in said.get("reasons") or ()]
    codes = list(dict.fromkeys(reason.partition(":")[0] for reason in reasons))
    remedies = [REMEDIES[code].format(config=config, unit=name) for code in codes if code in REMEDIES]
    health = str(said.get("health", "running"))
    level: Level = "problem" if health == "failed" else "warning" if reasons or health == "degraded" else "ok"
    text = f"service {instance.name}: {_status(said, reasons)}"
    if not said:
        level, text = "warning", f"service {instance.name}: it runs, and has said nothing of its health"
        remedies.append(_log(name))
    elif instance.age_s > STALE_S:
        level, text = "problem", f"{text}, but has said nothing for {instance.age_s:.0f} s"
        remedies.append(_log(name))
    if instance.unit.get("UnitFileState") == "disabled":
        level = "warning" if level == "ok" else level
        remedies.append(f"sudo systemctl enable {name}: it does not start with the board")
    many = int(instance.unit.get("NRestarts") or 0)
    restarts = (f"started again {many} time{'s' if many > 1 else ''} by systemd; {_log(name)}",) if many else ()
    return Finding(level, text, (*reasons, *restarts), tuple(remedies))


def _status(said: Mapping[str, Any], reasons: list[str]) -> str:
    """Its one line, without the reasons, which stand below it; and the model that it runs."""
    status = str(said.get("status") or said.get("health") or "running")
    for reason in reasons:
        status = status.replace(f"; {reason}", "")
    model = said.get("model")
    return f"{status} ({model.get('name')} {model.get('version')})" if isinstance(model, dict) else status


def _log(unit: str) -> str:
    return f"journalctl -u {unit} -n 20 says more"


def _wanted_groups(board: Board) -> Iterator[tuple[str, str]]:
    """The groups that the devices and folders of this board belong to, and what for."""
    seen: set[str] = set()
    reasons = (
        (sorted(board.dev.glob("video*")), CAMERAS),
        ([models_folder()], "models are installed without sudo"),
    )
    for paths, why in reasons:
        for path in paths:
            with suppress(OSError):
                name = _group_name(path.stat().st_gid)
                if name not in ("root", *seen):
                    seen.add(name)
                    yield name, why


def _group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return getpass.getuser() if os.environ.get("USER") else str(os.geteuid())
