"""The doctor's look at the user and the service."""

from __future__ import annotations

import grp
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from edge_runner.tools import doctor_service
from edge_runner.tools.doctor import Board, Finding
from edge_runner.tools.doctor_service import REMEDIES, instances, services, user

HEALTH = {
    "time": "2026-11-22T13:28:00Z",
    "pid": 712,
    "config": "/etc/edge-runner/door.yaml",
    "health": "running",
    "reasons": [],
    "status": "running: 9.8 results/s",
    "model": {"name": "digits", "version": "3f2a9c1d"},
}
CODES = (
    "camera_lost", "camera_stalled", "camera_frozen", "output_backlog", "output_failing", "disk", "heat", "under_voltage",
    "clock", "reload_failed", "memory", "model_fallback", "no_progress",
)  # fmt: skip


@pytest.fixture
def say(board: Board) -> Any:
    """What a daemon says of its health."""

    def write(name: str = "door", age_s: float = 0, **changed: Any) -> None:
        path = board.run / "edge-runner" / name / "health.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**HEALTH, "monotonic": time.monotonic() - age_s, **changed}))

    return write


@pytest.fixture
def systemd(board: Board, programs: Any, tmp_path: Path) -> Any:
    """What systemctl says of the unit of `door`, and of those that are asked for and are not there."""

    def unit(**changed: str) -> None:
        shown = {
            "Id": "edge-runner@door.service", "LoadState": "loaded", "ActiveState": "active", "SubState": "running",
            "UnitFileState": "enabled", "Result": "success", "ExecMainStatus": "0", "NRestarts": "0", **changed,
        }  # fmt: skip
        lines = "\n".join(f"{key}={value}" for key, value in shown.items())
        (tmp_path / "shown").write_text(f"Id=edge-runner@other.service\nLoadState=not-found\n\n{lines}\n")
        (board.run / "systemd/system").mkdir(parents=True, exist_ok=True)
        programs(systemctl=f'[ "$1" = show ] && while IFS= read -r line; do echo "$line"; done < {tmp_path}/shown')

    return unit


@pytest.fixture
def configured(board: Board, plant: Any) -> Path:
    plant(board.etc, {"edge-runner/door.yaml": ""})
    return board.etc / "edge-runner/door.yaml"


def give(path: Path, group: int) -> None:
    """Let it belong to a group."""
    if os.getuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(path, -1, group)


def one(board: Board) -> Finding:
    [finding] = services(board)
    return finding


class TestStopped:
    def test_nothing(self, board: Board) -> None:
        """Where no service is installed nothing is said of it."""
        assert list(services(board)) == []

    @pytest.mark.usefixtures("configured")
    def test_without_systemd(self, board: Board) -> None:
        """A configuration without a unit is a doubt."""
        assert (one(board).level, "knows no unit for it" in one(board).text) == ("warning", True)

    def test_not_started(self, board: Board, configured: Path, systemd: Any) -> None:
        """It takes one command."""
        systemd(ActiveState="inactive", SubState="dead", UnitFileState="disabled")
        finding = one(board)
        assert (finding.level, finding.text) == ("warning", "service door: not started")
        assert finding.remedies == ("sudo systemctl enable --now edge-runner@door.service",)

    def test_wrong_configuration(self, board: Board, configured: Path, systemd: Any) -> None:
        """Exit status 78 stays down; the command that says why is named."""
        systemd(ActiveState="failed", SubState="failed", Result="exit-code", ExecMainStatus="78")
        finding = one(board)
        assert finding.level == "problem"
        assert finding.remedies == (
            f"sudo edge-runner check --config {configured} says what",
            "then: sudo systemctl restart edge-runner@door.service",
        )

    def test_failed(self, board: Board, systemd: Any) -> None:
        """Anything else is in the log; a unit without a configuration is found too."""
        systemd(ActiveState="failed", Result="timeout", ExecMainStatus="0")
        finding = one(board)
        assert (finding.level, finding.text) == ("problem", "service door: failed (timeout, exit status 0)")
        assert finding.remedies[0].startswith("journalctl -u edge-runner@door.service ")

    @pytest.mark.parametrize(
        ("restarts", "level"), [("0", "warning"), ("2", "warning"), ("7", "problem"), ("", "warning")]
    )
    def test_starting(self, board: Board, systemd: Any, restarts: str, level: str) -> None:
        """One that is started again and again is a problem."""
        systemd(ActiveState="activating", SubState="auto-restart", NRestarts=restarts)
        assert (one(board).level, "auto-restart" in one(board).text) == (level, True)


class TestRunning:
    def test_well(self, board: Board, systemd: Any, say: Any) -> None:
        """In its own words."""
        systemd()
        say()
        assert one(board) == Finding("ok", "service door: running: 9.8 results/s (digits 3f2a9c1d)")

    def test_without_systemd(self, board: Board, say: Any) -> None:
        """A daemon with a runtime folder says its health, whoever started it."""
        say("gate")
        assert one(board).text.startswith("service gate: running: 9.8 results/s (")

    @pytest.mark.parametrize("code", CODES)
    def test_every_reason(self, board: Board, systemd: Any, say: Any, code: str) -> None:
        """Each reason is shown, with what helps."""
        systemd()
        reasons = [f"{code}: its words", f"{code}: others"]
        say(health="degraded", reasons=reasons, status=f"degraded: 3 results/s; {'; '.join(reasons)}")
        finding = one(board)
        assert (finding.level, finding.text) == ("warning", "service door: degraded: 3 results/s (digits 3f2a9c1d)")
        assert finding.details == (f"{code}: its words", f"{code}: others")
        assert len(finding.remedies) == 1
        assert "{" not in finding.remedies[0]

    def test_no_reason_too_many(self) -> None:
        """The table has the reasons that there are, and no other stands in the documentation."""
        text = (Path(__file__).parents[2] / "docs/service.md").read_text("utf-8")
        assert (
            set(REMEDIES)
            == set(CODES)
            == set(re.findall(r"^\| `([a-z]+_?[a-z]*)` \|[^|]*\|[^|]*\|$", text, re.MULTILINE))
        )

    def test_an_unknown_reason(self, board: Board, say: Any) -> None:
        """A newer daemon's reason is shown all the same."""
        say(health="degraded", reasons=["moonlight: too bright"])
        assert (one(board).level, one(board).details, one(board).remedies) == (
            "warning",
            ("moonlight: too bright",),
            (),
        )

    def test_failed(self, board: Board, systemd: Any, say: Any) -> None:
        """What only a new start can mend is a problem."""
        systemd()
        say(health="failed", reasons=["no_progress: no result for 70 s"])
        assert one(board).level == "problem"

    def test_silent(self, board: Board, systemd: Any, say: Any) -> None:
        """One that writes no more hangs; one that has never written says so."""
        systemd()
        say(age_s=300)
        assert (one(board).level, "has said nothing for 300 s" in one(board).text) == ("problem", True)
        (board.run / "edge-runner/door/health.json").unlink()
        assert (one(board).level, "nothing of its health" in one(board).text) == ("warning", True)

    def test_after_the_clock_jumped(self, board: Board, systemd: Any, say: Any) -> None:
        """By the wall clock, what was written a moment ago may be years old: that is no silence."""
        systemd()
        say()
        os.utime(board.run / "edge-runner/door/health.json", (0, 0))
        assert one(board).level == "ok"

    def test_without_its_age(self, board: Board, systemd: Any, say: Any) -> None:
        """Of one that does not say when it wrote, nothing is known of its silence."""
        systemd()
        say(monotonic=None)
        assert one(board).level == "ok"

    def test_disabled(self, board: Board, systemd: Any, say: Any) -> None:
        """It will not be there after the next power cut."""
        systemd(UnitFileState="disabled")
        say()
        finding = one(board)
        assert finding.level == "warning"
        assert finding.remedies[0].startswith("sudo systemctl enable edge-runner@door.service")

    def test_started_again(self, board: Board, systemd: Any, say: Any) -> None:
        """How often systemd had to start it again."""
        systemd(NRestarts="4")
        say()
        assert one(board).details[0].startswith("started again 4 times by systemd")

    @pytest.mark.parametrize("content", ["", "[]", "{", '"x"'])
    def test_damaged(self, board: Board, systemd: Any, content: str) -> None:
        """A file that is no health is as good as none."""
        systemd()
        path = board.run / "edge-runner/door/health.json"
        path.parent.mkdir(parents=True)
        path.write_text(content)
        assert one(board).level == "warning"

    def test_several(self, board: Board, systemd: Any, say: Any, plant: Any) -> None:
        """Each instance once, by name."""
        plant(board.etc, {"edge-runner/attic.yaml": "", "edge-runner/door.yaml": "", "edge-runner/door.env": ""})
        systemd()
        say("gate")
        say("door")
        assert [instance.name for instance in instances(board)] == ["attic", "door", "gate"]


class TestUser:
    @pytest.fixture(autouse=True)
    def _pi(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Somebody who is not root."""
        monkeypatch.setattr(doctor_service, "_user_name", lambda: "pi")
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setattr(os, "getegid", lambda: 1000)
        monkeypatch.setattr(os, "getgroups", lambda: [1000])
        names = {1000: "pi", 44: "video", 990: "edge-runner", 0: "root"}
        monkeypatch.setattr(doctor_service, "_group_name", lambda number: names[number])
        monkeypatch.setattr(grp, "getgrall", list)

    @pytest.fixture
    def camera(self, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
        """A camera that belongs to the group video, as far as this user can tell."""
        (board.dev / "video0").touch()
        give(board.dev / "video0", 44)

    def test_nothing_wanted(self, board: Board) -> None:
        [finding] = user(board)
        assert (finding.level, finding.text) == ("ok", "user pi, in the groups pi")

    @pytest.mark.usefixtures("camera")
    def test_a_group_is_missing(self, board: Board) -> None:
        """The command that joins it, and what for."""
        [finding] = user(board)
        assert finding.level == "warning"
        assert finding.remedies == ("sudo usermod -aG video pi, then log in again: cameras",)

    @pytest.mark.usefixtures("camera")
    def test_joined_since(self, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
        """Groups count from the next login on."""
        joined = grp.struct_group(("video", "x", 44, ["pi"]))
        monkeypatch.setattr(grp, "getgrall", lambda: [joined])
        [finding] = user(board)
        assert finding.remedies == ("log in again: video was joined since",)

    @pytest.mark.usefixtures("camera")
    def test_a_member(self, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "getgroups", lambda: [1000, 44])
        [finding] = user(board)
        assert (finding.level, finding.text) == ("ok", "user pi, in the groups pi and video")

    def test_models(self, board: Board, tmp_path: Path) -> None:
        """Who is in the store's group installs models without root."""
        (tmp_path / "state/models").mkdir(parents=True)
        give(tmp_path / "state/models", 990)
        [finding] = user(board)
        assert finding.remedies == (
            "sudo usermod -aG edge-runner pi, then log in again: models are installed without sudo",
        )

    def test_root(self, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        [finding] = user(board)
        assert finding.level == "ok"
