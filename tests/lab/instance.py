"""An instance of the service on a board with systemd, seen from outside: its results, its health, its processes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any

from lab.container import Container

DIGITS = "/etc/edge-runner/digits"
TEST_PICTURE = {"type": "pattern", "width": 64, "height": 48, "fps": 50}


class Instance:
    """`edge-runner@NAME` with a log of its results. `times` is where it notes how long each thing took, with its limit."""

    def __init__(self, board: Container, name: str, times: dict[str, tuple[float, float]]) -> None:
        self.board, self.name, self.times = board, name, times
        self.unit = f"edge-runner@{name}.service"
        self.config = f"/etc/edge-runner/{name}.yaml"
        self.log = f"/var/log/edge-runner/{name}/{name}.jsonl"

    def configure(self, camera: Mapping[str, Any] = TEST_PICTURE, *outputs: Mapping[str, Any], **parts: Any) -> None:
        """Write its configuration: the digits on the test picture, unless told otherwise, into the log and these outputs."""
        log = {"type": "jsonl", "path": f"{self.name}.jsonl"}
        whole = {"camera": camera, "model": {"path": DIGITS}, "outputs": [log, *outputs], **parts}
        self.board.write(self.config, json.dumps(whole, indent=1))

    def drop_in(self, *lines: str) -> None:
        """More lines of the unit's [Service], for this instance alone."""
        self.board.write(f"/etc/systemd/system/{self.unit}.d/test.conf", "\n".join(["[Service]", *lines, ""]))
        self.board.run("systemctl", "daemon-reload")

    def start(self) -> None:
        """Systemd waits for READY."""
        self.board.run("systemctl", "start", self.unit)

    def stop(self) -> None:
        self.board.run("systemctl", "stop", self.unit)

    # --- what can be seen of it

    def show(self, what: str) -> str:
        return self.board.show(self.unit, what)

    def journal(self) -> str:
        return self.board.journal(self.unit)

    def results(self, last: int | None = None) -> list[dict[str, Any]]:
        """What is in its log; the last line may be half written."""
        lines = self.board.run(
            *(["cat"] if last is None else ["tail", f"--lines={last + 1}"]), self.log, check=False
        ).stdout
        whole = lines[: lines.rfind("\n") + 1].splitlines()
        return [json.loads(line) for line in (whole if last is None else whole[-last:]) if line.startswith("{")]

    def health(self) -> dict[str, Any]:
        """As a user who has nothing to do with it reads it; empty while there is none, or only a dead daemon's."""
        said = self.board.run("cat", f"/run/edge-runner/{self.name}/health.json", user="nobody", check=False).stdout
        health = dict(json.loads(said)) if said else {}
        return health if health.get("pid") == self.main else {}

    def reasons(self) -> str:
        return "\n".join(self.health().get("reasons", ()))

    def is_over(self, reason: str) -> bool:
        """Whether its health says something, and not that."""
        health = self.health()
        return bool(health) and not any(each.startswith(reason) for each in health["reasons"])

    def processes(self) -> dict[int, str]:
        """All that are in its control group, with their command lines: `main` first."""
        listed = self.board.run(
            "systemctl", "status", "--no-pager", "--lines=0", "--full", self.unit, check=False
        ).stdout
        found = (line.strip(" ├─└│").partition(" ") for line in listed.partition("CGroup:")[2].splitlines()[1:])
        return {int(pid): command for pid, _, command in found if pid.isdigit()}

    @property
    def main(self) -> int:
        return int(self.show("MainPID"))

    @property
    def worker(self) -> int:
        """The camera's process; 0 while there is none."""
        return next((pid for pid, command in self.processes().items() if "camera import worker" in command), 0)

    # --- waiting

    def wait(self, what: Callable[[], Any], within_s: float) -> Any:
        return self.board.wait_for(what, self.unit, within_s)

    def hears(self, words: str, within_s: float = 60.0) -> str:
        """Wait until its journal has those words; return the last such line."""
        return self.board.hears(self.unit, words, within_s)

    def await_results(self, after: float = 0.0, within_s: float = 60.0, run: str | None = None, **equal: Any) -> float:
        """Wait for a result that was captured after that time (time.time's), of another run than this one; return when it was."""

        def there() -> float:
            for result in self.results():
                at = captured(result)
                if at > after and result["run"] != run and all(result[key] == value for key, value in equal.items()):
                    return at
            return 0.0

        return float(self.wait(there, within_s))

    def took(self, what: str, seconds: float, limit_s: float) -> None:
        """Note how long it took: the limit is what was waited for at most."""
        self.times[what] = (seconds, limit_s)


def remove(board: Container, names: Collection[str]) -> None:
    """Stop instances, and remove all that is there of them."""
    board.run("systemctl", "stop", *(f"edge-runner@{name}" for name in names))
    board.run("systemctl", "reset-failed", "edge-runner@*", check=False)
    places = "/etc/systemd/system/edge-runner@$each.service.d /etc/edge-runner/$each.* /var/l*/edge-runner/$each"
    board.run("sh", "-c", f'for each in "$@"; do rm -rf {places}; done; systemctl daemon-reload', "sh", *names)


def captured(result: Mapping[str, Any]) -> float:
    """When, by time.time's count."""
    return datetime.fromisoformat(result["time"].replace("Z", "+00:00")).timestamp()


def now() -> float:
    """The clock of this side, which is the board's, too."""
    return time.time()
