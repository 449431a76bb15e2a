"""The doctor's look at the disks: room, whether they can be written, and what the kernel says of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_runner.model.store import models_folder
from edge_runner.tools.doctor import Board, Finding, megabytes, text_of

LEAST_BYTES, LITTLE_BYTES = 50_000_000, 300_000_000
WRITABLE = ("ext4", "ext3", "ext2", "f2fs", "btrfs", "xfs", "vfat", "exfat")  # what is read-only by mistake
LOGS = Path("/var/log")
CARD = re.compile(r"/dev/(mmcblk|sd)")
FAILING = "sudo dmesg | grep -i -e ext4 -e mmc says why; a card that turns read-only is mostly worn out: copy it, and replace it"


@dataclass(frozen=True)
class Mount:
    """A line of /proc/self/mountinfo (proc(5))."""

    point: Path
    kind: str
    source: str
    options: frozenset[str]


def disks(board: Board) -> Iterator[Finding]:
    """The file systems of the system, the models, the logs, and what the configuration writes."""
    mounts = _mounts(text_of(board.proc / "self/mountinfo"))
    places = [Path("/"), models_folder(), LOGS, *_written(board)]
    seen = set()
    for place in places:
        mount = _mount_of(place, mounts)
        if mount and mount.point not in seen:
            seen.add(mount.point)
            yield from _disk(mount, board)


def _disk(mount: Mount, board: Board) -> Iterator[Finding]:
    """One line, and the worst that there is to say of it."""
    try:
        whole = os.statvfs(mount.point)
    except OSError as error:
        yield Finding("warning", f"{_name(mount)} cannot be asked: {error.strerror}")
        return
    total, free = whole.f_frsize * whole.f_blocks, whole.f_frsize * whole.f_bavail
    text = f"{_name(mount)}: {megabytes(free)} of {megabytes(total)} free"
    errors = text_of(board.sys / "fs/ext4" / os.path.basename(mount.source) / "errors_count")
    if "ro" in mount.options and mount.kind in WRITABLE:
        yield Finding("problem", f"{text}, but it is read-only", (), (FAILING,))
    elif free < LITTLE_BYTES:
        yield Finding("problem" if free < LEAST_BYTES else "warning", f"{text}: that is little", (), _room(mount))
    elif whole.f_files and not whole.f_favail:
        yield Finding("problem", f"{text}, but no new file has a place: there are too many", (), _room(mount))
    elif errors.isdigit() and int(errors):
        remedy = (
            f"sudo tune2fs -l {mount.source} | grep -i error; it is checked at the start after: sudo touch /forcefsck"
        )
        yield Finding("warning", f"{text}, but it has errors: the kernel has counted {errors}", (), (remedy,))
    elif CARD.match(mount.source) and not mount.options & {"noatime", "relatime", "ro"}:
        remedy = f"noatime among the options of {mount.point} in /etc/fstab"
        yield Finding("warning", f"{text}, but every read is written down, which wears the card", (), (remedy,))
    else:
        yield Finding("ok", text)


def _mounts(table: str) -> list[Mount]:
    found = []
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        words, kinds = before.split(), after.split()
        if len(words) >= 6 and len(kinds) >= 2:
            point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), words[4])
            options = {*words[5].split(","), *(kinds[2].split(",") if len(kinds) > 2 else ())}
            found.append(Mount(Path(point), kinds[0], kinds[1], frozenset(options)))
    return found


def _mount_of(place: Path, mounts: list[Mount]) -> Mount | None:
    """The last mounted of those that are nearest above a path."""
    real = Path(os.path.realpath(place))
    above = [mount for mount in mounts if mount.point in (real, *real.parents)]
    return max(reversed(above), key=lambda mount: len(mount.point.parts), default=None)


def _written(board: Board) -> Iterator[Path]:
    if board.loaded:
        for output in board.loaded.value.outputs:
            yield from (path for key in ("path", "spool") if isinstance(path := getattr(output, key, None), Path))


def _name(mount: Mount) -> str:
    memory = ", in memory: gone with the power" if mount.kind == "tmpfs" else ""
    return f"disk {mount.point} ({mount.kind}{memory})"


def _room(mount: Mount) -> tuple[str, ...]:
    return (
        f"sudo du -xh {mount.point} | sort -h | tail shows what takes it",
        "sudo apt clean; sudo journalctl --vacuum-size=50M",
    )
