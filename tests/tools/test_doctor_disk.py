"""The doctor's look at the disks, on real file systems."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_runner.settings import load_settings
from edge_runner.tools import doctor_disk
from edge_runner.tools.doctor import Board
from edge_runner.tools.doctor_disk import disks

MB = 1 << 20


def mounted(board: Board, *lines: str) -> Board:
    """The kernel's table of mounts."""
    (board.proc / "self").mkdir(exist_ok=True)
    (board.proc / "self/mountinfo").write_text("".join(f"{line}\n" for line in lines))
    return board


def mount(point: object, kind: str = "ext4", source: str = "/dev/mmcblk0p2", options: str = "rw,noatime") -> str:
    escaped = str(point).replace(" ", "\\040")
    return f"36 35 179:2 / {escaped} {options} shared:1 - {kind} {source} rw"


class TestDisks:
    @pytest.fixture(autouse=True)
    def _enough(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The disk of this machine has room, whatever it is like."""
        monkeypatch.setattr(doctor_disk, "LITTLE_BYTES", 0)

    def test_well(self, board: Board) -> None:
        """A line for each file system, with what is free; the models and the logs are on it."""
        [finding] = disks(mounted(board, mount("/")))
        assert finding.level == "ok"
        assert finding.text.startswith("disk / (ext4): ")
        assert finding.text.endswith(" free")

    def test_in_memory(self, board: Board) -> None:
        """What is in memory only is gone with the power: that is said."""
        _, logs = disks(mounted(board, mount("/"), mount("/var/log", "tmpfs", "log2ram")))
        assert logs.text.startswith("disk /var/log (tmpfs, in memory: gone with the power): ")

    @pytest.mark.parametrize(("kind", "options", "level"), [
        ("ext4", "ro,noatime", "problem"),
        ("vfat", "ro", "problem"),
        ("squashfs", "ro", "ok"),
        ("ext4", "rw,relatime", "ok"),
        ("ext4", "rw", "warning"),
        ("ext4", "rw,lazytime", "warning"),
    ])  # fmt: skip
    def test_options(self, board: Board, kind: str, options: str, level: str) -> None:
        """A disk that has turned read-only is a problem; a card that is written at each read is a doubt."""
        [finding] = disks(mounted(board, mount("/", kind, options=options)))
        assert (finding.level, len(finding.remedies)) == (level, level != "ok")

    def test_not_a_card(self, board: Board) -> None:
        """Only cards and sticks wear out so fast."""
        [finding] = disks(mounted(board, mount("/", source="/dev/nvme0n1p1", options="rw")))
        assert finding.level == "ok"

    def test_errors(self, board: Board, plant: Any) -> None:
        """Errors that the kernel counted on a file system are told, until it is checked."""
        mounted(board, mount("/"))
        plant(board.sys, {"fs/ext4/mmcblk0p2/errors_count": 0})
        assert [finding.level for finding in disks(board)] == ["ok"]
        plant(board.sys, {"fs/ext4/mmcblk0p2/errors_count": 3})
        [finding] = disks(board)
        assert finding.level == "warning"
        assert "the kernel has counted 3" in finding.text
        assert "/dev/mmcblk0p2" in finding.remedies[0]

    def test_what_the_configuration_writes(self, board: Board, configure: Any, tmp_path: Path) -> None:
        """Its outputs may be on a disk of their own."""
        out = tmp_path / "a stick"
        out.mkdir()
        outputs = [{"type": "snapshots", "path": str(out / "deep" / "snapshots")}, {"type": "console"}]
        with_config = replace(board, loaded=load_settings(configure(outputs=outputs)))
        _, stick = disks(mounted(with_config, mount("/"), mount(out, "vfat", "/dev/sda1", "rw,relatime")))
        assert stick.text.startswith(f"disk {out} (vfat): ")

    def test_the_nearest_and_the_last(self, board: Board) -> None:
        """Of two mounts at one place the later one counts, as for the kernel."""
        _, logs = disks(mounted(board, mount("/"), mount("/var"), mount("/var", "tmpfs", "none")))
        assert logs.text.startswith("disk /var (tmpfs, ")

    @pytest.mark.parametrize("line", ["", "36 35", "nonsense - ", "36 35 0:1 / /x rw -"])
    def test_nonsense(self, board: Board, line: str) -> None:
        """What is no line of that table is passed over."""
        assert [finding.level for finding in disks(mounted(board, line, mount("/")))] == ["ok"]


class TestRoom:
    @pytest.fixture(autouse=True)
    def _programs(self, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those that mount a disk."""
        monkeypatch.setenv("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")

    @pytest.mark.parametrize(("used_mb", "level"), [(0, "ok"), (200, "warning"), (390, "problem")])
    def test_levels(
        self,
        board: Board,
        mount_tmpfs: Callable[[str], Path],
        used_mb: int,
        level: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Little room is a doubt, hardly any a problem; what takes it can be found."""
        disk = mount_tmpfs("400m")
        subprocess.run(["fallocate", "-l", f"{used_mb or 1}M", disk / "x"], check=True)
        monkeypatch.setenv("EDGE_RUNNER_STATE", str(disk / "not-yet"))
        finding = next(disks(mounted(board, mount(disk, "tmpfs", "none"))))
        assert finding.level == level
        assert ("that is little" in finding.text) == (level != "ok")

    def test_too_many_files(
        self, board: Board, mount_tmpfs: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Room for bytes, and none for files."""
        disk = mount_tmpfs("400m")
        subprocess.run(["mount", "-o", "remount,nr_inodes=3", disk], check=True)
        for name in "ab":
            (disk / name).touch()
        monkeypatch.setenv("EDGE_RUNNER_STATE", str(disk))
        finding = next(disks(mounted(board, mount(disk, "tmpfs", "none"))))
        assert finding.level == "problem"
        assert "there are too many" in finding.text
