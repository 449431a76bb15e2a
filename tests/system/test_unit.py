"""systemd/edge-runner@.service: what systemd thinks of it, and what a program can do in it, tried from the inside."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lab.container import Container

UNITS = Path(__file__).parents[2] / "systemd"
UNIT = UNITS / "edge-runner@.service"
DROP_INS = ("csi-camera.conf", "accelerator.conf")
MOST_EXPOSED = 20  # tenths
CONFIG = """
camera: {type: pattern, width: 64, height: 48}
model: {path: /root/model}
outputs: [{type: jsonl, path: door.jsonl}]
"""

PROBE = """
import ctypes, json, mmap, os, resource, socket, subprocess
def tried(what, *arguments):
    try:
        what(*arguments)
        return "done"
    except Exception as error:
        return getattr(error, "strerror", None) or repr(error)
def write(path):
    with open(path, "w") as file: file.write("x")
def executable():
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
def unshare():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x10000000): raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def family(number, kind=socket.SOCK_STREAM):
    socket.socket(number, kind).close()
def own(variable):
    write(os.environ[variable] + "/probe")
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print("PROBE " + json.dumps({
    "own": {name: tried(own, name) for name in ("STATE_DIRECTORY", "LOGS_DIRECTORY", "RUNTIME_DIRECTORY")},
    "write": {path: tried(write, path + "/probe") for path in PLACES},
    "read": {path: tried(lambda: open(path).read()) for path in FILES},
    "list": {path: tried(lambda: os.listdir(path)) for path in ("/home/someone", "/root", "/proc/1/fd")},
    "families": {str(number): tried(family, number, kind) for number, kind in FAMILIES},
    "executable memory": tried(executable), "a namespace": tried(unshare),
    "another clock": tried(lambda: __import__("time").clock_settime(0, 0)),
    "others": [pid for pid in os.listdir("/proc") if pid.isdigit() and os.stat("/proc/" + pid).st_uid != os.getuid()],
    "status": {name: status[name].strip() for name in ("CapBnd", "CapEff", "CapPrm", "NoNewPrivs", "Seccomp")},
    "core": resource.getrlimit(resource.RLIMIT_CORE)[1], "user": os.getuid(), "working": os.getcwd(),
    "tmp": os.listdir("/tmp"), "environment": os.environ.get("SECRET"), "devices": sorted(os.listdir("/dev")),
}))
"""
PLACES = [
    "", "/etc", "/etc/edge-runner", "/opt/edge-runner/current", "/usr/local/bin", "/var/lib", "/var/lib/edge-runner",
    "/var/lib/edge-runner/models", "/var/lib/edge-runner/other", "/var/log", "/var/log/edge-runner/other", "/run",
    "/run/edge-runner", "/home/someone", "/dev", "/sys/kernel", "/proc/sys/kernel",
]  # fmt: skip
FILES = [
    "/etc/edge-runner/probe.yaml",
    "/var/lib/edge-runner/models/digits",
    "/srv/for-the-group-video",
    "/etc/shadow",
    "/proc/cpuinfo",
]
UNIX, INET, INET6, NETLINK, PACKET, BLUETOOTH, VSOCK = 1, 2, 10, 16, 17, 31, 40
STREAM, RAW, DATAGRAM = 1, 3, 2
FAMILIES = [
    (UNIX, STREAM),
    (INET, STREAM),
    (INET6, STREAM),
    (NETLINK, RAW),
    (PACKET, RAW),
    (BLUETOOTH, STREAM),
    (VSOCK, STREAM),
]


def analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not there")
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("drop_in", [None, *DROP_INS])
def test_exposure(tmp_path: Path, drop_in: str | None) -> None:
    """At 2.0 or better, by systemd's own measure, with each drop-in too; what is open is what docs/install.md names."""
    unit = UNIT.read_text() + (f"\n{(UNITS / drop_in).read_text()}" if drop_in else "")
    (tmp_path / UNIT.name).write_text(unit)
    done = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", tmp_path / UNIT.name)
    assert done.returncode == 0, done.stdout + done.stderr
    exposure = re.search(r"Overall exposure level.*: (\d\.\d)", done.stdout)
    assert exposure
    if drop_in is None:
        docs = (UNITS.parent / "docs" / "install.md").read_text()
        assert f"`systemd-analyze security` gives it {exposure[1]}" in docs


def test_what_each_drop_in_opens_is_said_in_it() -> None:
    """Each device class stands in its comment, in the words of /dev."""
    words = {
        "media": "/dev/media*",
        "dma_heap": "/dev/dma_heap",
        "usb_device": "USB",
        "apex": "/dev/apex",
        "drm": "/dev/dri",
    }
    for name in DROP_INS:
        text = (UNITS / name).read_text()
        comment = "".join(line for line in text.splitlines() if line.startswith("#"))
        opened = re.findall(r"^DeviceAllow=char-(\w+) rw$", text, re.M)
        assert opened
        assert all(words[each] in comment for each in opened)


def test_verified_where_it_is_installed(board: Container) -> None:
    """systemd finds nothing to say against it, nor against its drop-ins."""
    folder = "/etc/systemd/system/edge-runner@probed.service.d"
    for name in (None, *DROP_INS):
        if name:
            board.write(f"{folder}/{name}", (UNITS / name).read_text())
        done = board.run("systemd-analyze", "verify", "--man=no", "edge-runner@probed.service", check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    board.run("rm", "-r", folder)


@pytest.fixture(scope="module")
def probed(board: Container) -> Iterator[dict[str, Any]]:
    """What a program found in the unit's place, as instance `probe`."""
    script = f"PLACES, FILES, FAMILIES = {PLACES!r}, {FILES!r}, {FAMILIES!r}\n{PROBE}"
    board.write("/etc/edge-runner/probe.py", script)
    board.write("/etc/edge-runner/probe.yaml", "a: file\n")
    board.write("/etc/edge-runner/probe.env", "SECRET=known\n", 0o640)
    board.write("/srv/for-the-group-video", "x")
    board.run("sh", "-c", "chown root:video /srv/for-the-group-video && chmod 640 /srv/for-the-group-video")
    board.run(
        "sh",
        "-c",
        "mkdir -p -m 777 /home/someone /var/lib/edge-runner/other /var/log/edge-runner/other; touch /tmp/of-others",
    )
    board.write("/var/lib/edge-runner/models/digits", "x")
    folder = "/etc/systemd/system/edge-runner@probe.service.d"
    board.write(
        f"{folder}/probe.conf",
        "[Service]\nType=oneshot\nWatchdogSec=0\nExecStart=\nExecStart=/usr/bin/python3 /etc/edge-runner/probe.py\n",
    )
    board.run("systemctl", "daemon-reload")
    board.run("systemctl", "start", "edge-runner@probe", check=False)
    yield json.loads(board.hears("edge-runner@probe", "PROBE {").removeprefix("PROBE "))
    for path in ("/etc/edge-runner/probe.*", folder, "/srv/for-the-group-video", "/home/someone", "/tmp/of-others"):
        board.run("sh", "-c", f"rm -rf {path}")
    board.run(
        "sh", "-c", "rm -rf /var/l*/edge-runner/other /var/lib/edge-runner/models/digits && systemctl daemon-reload"
    )


def test_it_writes_into_its_own_folders_alone(probed: dict[str, Any]) -> None:
    """Not into another instance's, nor the store of models; its /tmp is its own."""
    assert set(probed["own"].values()) == {"done"}
    assert "done" not in probed["write"].values(), probed["write"]
    assert probed["tmp"] == []
    assert probed["working"] == "/var/lib/edge-runner/probe"


def test_it_reads_what_it_has_to(probed: dict[str, Any]) -> None:
    """Configurations, models, the processor's kind, devices of the group video; no home, no passwords of the system."""
    assert probed["read"] == {**dict.fromkeys(FILES, "done"), "/etc/shadow": "Permission denied"}
    assert "done" not in probed["list"].values(), probed["list"]
    assert probed["environment"] == "known"


def test_it_has_no_right_of_roots(probed: dict[str, Any]) -> None:
    """No capability, and no way to get one; filtered system calls; no dump of its memory."""
    nothing = "0" * 16
    assert probed["status"] == {
        "CapBnd": nothing,
        "CapEff": nothing,
        "CapPrm": nothing,
        "NoNewPrivs": "1",
        "Seccomp": "2",
    }
    assert probed["user"] != 0
    assert probed["core"] == 0
    assert probed["others"] == []
    for what in ("executable memory", "a namespace", "another clock"):
        assert probed[what] == "Operation not permitted"


def test_it_has_the_sockets_that_it_needs(probed: dict[str, Any]) -> None:
    """Local ones, the internet, and the kernel's news of devices."""
    refused = "Address family not supported by protocol"
    needed = (UNIX, INET, INET6, NETLINK)
    assert probed["families"] == {str(number): "done" if number in needed else refused for number, _ in FAMILIES}


@pytest.fixture
def service(board: Container) -> Iterator[Callable[..., str]]:
    """Configure an instance, with the digits bundle, and start it; the unit's name."""
    started = []

    def start(name: str, config: str = CONFIG) -> str:
        board.run("cp", "-rT", "/root/digits", "/etc/edge-runner/digits")
        board.write(f"/etc/edge-runner/{name}.yaml", config.replace("/root/model", "digits"))
        started.append(name)
        board.run("systemctl", "start", f"edge-runner@{name}", check=False)
        return f"edge-runner@{name}.service"

    yield start
    for name in started:
        board.run("systemctl", "stop", f"edge-runner@{name}")
        board.run("systemctl", "reset-failed", f"edge-runner@{name}", check=False)
        board.run("sh", "-c", f"rm -rf /etc/edge-runner/{name}.* /var/l*/edge-runner/{name}")


def test_two_instances_share_nothing(board: Container, service: Callable[..., str]) -> None:
    """The same configuration twice: each has its own log, and its health, which anybody may read."""
    names = ("left", "right")
    units = [service(name) for name in names]
    for unit, name in zip(units, names, strict=True):
        assert board.show(unit, "ActiveState") == "active", board.journal(unit)
        log, health = f"/var/log/edge-runner/{name}/door.jsonl", f"/run/edge-runner/{name}/health.json"
        board.wait_for(lambda log=log: board.exists(log) and board.read(log), unit)
        board.wait_for(lambda health=health: board.exists(health), unit)
        told = json.loads(board.run("cat", health, user="nobody").stdout)
        assert told["config"] == f"/etc/edge-runner/{name}.yaml"
        assert board.run("cat", log, user="nobody", check=False).returncode == 1
        first = json.loads(board.read(log).splitlines()[0])
        assert first["camera"] == name


def test_nothing_listens(board: Container, service: Callable[..., str]) -> None:
    """No port, of TCP or UDP, is the service's."""
    unit = service("quiet")
    assert board.show(unit, "ActiveState") == "active", board.journal(unit)
    assert "edge-runner" not in board.run("ss", "--listening", "--tcp", "--udp", "--processes", "--no-header").stdout


def test_what_another_start_does_not_mend_is_not_started_again(board: Container, service: Callable[..., str]) -> None:
    """A wrong configuration ends it with 78, and systemd leaves it at that."""
    unit = service("wrong", "camera: {type: none-such}\n")
    board.wait(unit, "failed")
    assert (board.show(unit, "ExecMainStatus"), board.show(unit, "NRestarts")) == ("78", "0")
    board.hears(unit, "none-such")


def test_killed_it_is_back(board: Container, service: Callable[..., str]) -> None:
    """By a signal that it cannot hear; as another process, and the same service."""
    unit = service("killed")
    before = board.show(unit, "MainPID")
    board.run("kill", "-KILL", before)
    board.wait_for(lambda: board.show(unit, "MainPID") not in ("0", before), unit)
    board.wait(unit, "active")
    assert board.show(unit, "NRestarts") == "1"


def test_stopped_it_is_stopped(board: Container, service: Callable[..., str]) -> None:
    """SIGTERM: exit code 0, the last result is whole, and no process is left."""
    unit = service("stopped")
    board.run("systemctl", "stop", unit)
    assert (board.show(unit, "Result"), board.show(unit, "ExecMainStatus"), board.show(unit, "ActiveState")) == (
        "success",
        "0",
        "inactive",
    )
    lines = board.read("/var/log/edge-runner/stopped/door.jsonl")
    assert lines.endswith("}\n")
    assert board.run("pgrep", "-u", "edge-runner", check=False).stdout == ""
