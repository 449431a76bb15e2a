"""What runs within the virtual board of scripts/test_board.sh: Debian with systemd, a card, a camera of the kernel's, no network.

tests/lab/shelf.py boots it, reads the lines of JSON that this says, and cuts its power. The first start installs edge-runner as
anybody would, and tries what it is to withstand; every other looks at what the last cut has left, and works until the next one.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

NAME = "shelf"
UNIT = f"edge-runner@{NAME}.service"
PLACE = Path("/checks")
STORE, LOGS = Path("/var/lib/edge-runner/models/digits"), Path("/var/log/edge-runner", NAME)
LOG = LOGS / "results.jsonl"
COMMAND = "/usr/local/bin/edge-runner"
AS_USER = ("runuser", "-u", "edge-runner", "--", "env", "-C", "/")
WAIT_S = 300.0  # for what happens at once on a computer that is neither emulated nor busy
NEXT_S = 60.0  # for the next results
YEARS_S = 3 * 365 * 86_400
CONFIGURATION = """\
camera: {type: v4l2, device: 0, width: 640, height: 480, max_fps: 5}
model: {name: digits}
outputs:
  - {type: console}
  - {type: jsonl, path: results.jsonl, rotate_size: 64KB, keep: 50, compress: true, fsync: 5s}
"""
TRIAL = "edge-runner@trial.service"
TRIAL_UNIT = """\
[Service]
Type=oneshot
WatchdogSec=0
TimeoutStartSec=900
ExecStart=
ExecStart=/usr/bin/python3 /checks/board_trial.py
"""
OWN = [f"/{place}/edge-runner/trial" for place in ("var/lib", "var/log", "run")]
PRIVATE = ["/tmp", "/var/tmp"]
"""Its own, which nobody else sees, by PrivateTmp."""

CHECKS: list[Callable[[], Any]] = []


def check(function: Callable[[], Any]) -> Callable[[], Any]:
    """Its docstring is the promise; what it returns, a figure."""
    CHECKS.append(function)
    return function


def main(phase: str) -> None:
    """`install` comes first; `last` ends by itself; any other works until the power is cut."""
    try:
        if phase == "install":
            for each in CHECKS:
                started = time.monotonic()
                figure = each()
                say(ok=each.__doc__, figure=figure or "", took_s=round(time.monotonic() - started, 1))
        else:
            look_after_cut()
            if phase != "last":
                switch_models()
        say(done=phase)
        subprocess.run(["systemctl", "poweroff"], check=True)
    except Exception as error:
        traceback.print_exc()
        sys.stderr.write(journal())
        say(wrong=f"{type(error).__name__}: {error}")


# The first start


@check
def no_network() -> None:
    """It has no network but its own loopback."""
    assert os.listdir("/sys/class/net") == ["lo"]


@check
def installed() -> str:
    """install_device.sh installs from the wheelhouse alone, for the system's own Python."""
    run("bash", str(PLACE / "wheelhouse/install_device.sh"), "--wheelhouse", str(PLACE / "wheelhouse"))
    return run(COMMAND, "--version").strip()


@check
def models() -> str:
    """Two releases of a model are installed by the service's user; the second is active."""
    for archive in sorted(PLACE.glob("digits-*.tar.gz")):
        with archive.open("rb") as file:
            run(*AS_USER, COMMAND, "model", "install", "-", stdin=file)
    return f"active: {active()}"


@check
def started() -> str:
    """The unit is enabled and started, and is ready."""
    Path("/etc/edge-runner", f"{NAME}.yaml").write_text(CONFIGURATION)
    run("systemctl", "enable", UNIT)
    begun = time.monotonic()
    run("systemctl", "start", UNIT)
    assert show("ActiveState") == "active", journal()
    return f"ready after {time.monotonic() - begun:.0f} s"


@check
def results() -> str:
    """Its results are of the camera and of the model that is active, and say that no clock was set."""
    line = more_results()[-1]
    assert line["model"] == {"name": "digits", "version": active()}, line
    assert line["clock"] == "unsynced", line
    assert line["image"] == {"width": 640, "height": 480}, line
    return show("StatusText")


@check
def listens() -> str:
    """No socket of the board listens on the network."""
    said = run("ss", "--no-header", "--listening", "--tcp", "--udp", "--raw", "--numeric", "--processes")
    assert not said.strip(), said
    descriptors = Path("/proc", show("MainPID"), "fd")
    kinds = [os.readlink(each) for each in descriptors.iterdir()]
    return (
        f"the daemon has {len(kinds)} descriptors, {sum(kind.startswith('socket') for kind in kinds)} of them sockets"
    )


@check
def writes() -> str:
    """A process of the unit, with all that is set for it, can write to its own folders and nowhere else; every file was tried."""
    run("systemctl", "daemon-reload")
    place = Path("/run/systemd/system", f"{TRIAL}.d", "trial.conf")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(TRIAL_UNIT)
    Path("/etc/edge-runner/trial.yaml").write_text(CONFIGURATION)
    for folder in ("/home/somebody", "/tmp/of-others", "/srv/open", "/var/lib/edge-runner/elsewhere"):
        Path(folder).mkdir(parents=True)
        os.chmod(folder, 0o777)  # the rights of files let it in; what is set for the unit does not
    run("systemctl", "daemon-reload")
    run("systemctl", "start", TRIAL)
    found = json.loads(run("journalctl", "-u", TRIAL, "-o", "cat", "--no-pager", "--grep", "^{").splitlines()[-1])
    assert set(OWN) <= set(found["folders"]), f"not even its own folders: {found}"
    strange = [path for path in found["folders"] if not path.startswith((*OWN, *PRIVATE))]
    assert not strange, f"folders: {strange}"
    assert not found["files"], f"files: {found['files']}"
    assert not [path for path in found["seen"] if "of-others" in path], "it sees /tmp of others"
    devices = ", ".join(found["devices"])
    return (
        f"{found['tried']} files and folders were tried, {len(found['folders'])} folders let it in; devices: {devices}"
    )


@check
def clock_forward() -> str:
    """The clock jumps three years ahead: results go on, of the same process, and no camera is opened again."""
    return jump(YEARS_S)


@check
def clock_back() -> str:
    """It jumps back, beyond where it was, to 1999: the same."""
    figure = jump(915_148_800 - time.time())
    settled = jump(1_760_000_000 - time.time())
    return f"{figure}; and to where it belongs: {settled}"


def jump(by_s: float) -> str:
    before, lines, count = (show("MainPID"), show("NRestarts")), len(journal().splitlines()), total()
    time.clock_settime(time.CLOCK_REALTIME, time.time() + by_s)
    year = time.gmtime().tm_year
    begun = time.monotonic()
    wait_for(
        lambda: [line for line in newest(20) if line["time"].startswith(str(year))][3:], f"results of {year}", NEXT_S
    )
    took_s = time.monotonic() - begun
    time.sleep(15)  # what judges by the clock would have done so
    assert (show("MainPID"), show("NRestarts")) == before, journal()
    said = [line for line in journal().splitlines()[lines:] if not line.startswith("{")]
    assert not [line for line in said if "again" in line or "camera" in line], said
    assert all(line["clock"] == "unsynced" for line in newest(20))
    assert total() > count + 10
    return f"results of {year} after {took_s:.1f} s"


# Every other start


def look_after_cut() -> None:
    """The service comes up by itself, with a whole model, a readable log, and results."""
    wait_for(lambda: show("ActiveState") in ("active", "failed"), "the service's start")
    ready_s, state = uptime_s(), show("ActiveState")
    assert state == "active", journal()
    assert show("NRestarts") == "0", journal()
    version = active()
    manifest = json.loads((STORE / version / "manifest.json").read_text("utf-8"))
    model = (STORE / version / "model.tflite").read_bytes()
    assert manifest["version"] == version
    assert hashlib.sha256(model).hexdigest() in json.dumps(manifest), "the model is not the manifest's"
    fresh = more_results()
    assert fresh[-1]["model"]["version"] == active() or version != active()
    first_s, counts = uptime_s(), readable()
    health = json.loads(Path("/run/edge-runner", NAME, "health.json").read_text("utf-8"))
    assert health["health"] in ("running", "degraded"), health
    say(
        up={
            "ready_s": round(ready_s, 1),
            "result_s": round(first_s, 1),
            "model": version,
            **counts,
            "health": health["health"],
        }
    )


def readable() -> dict[str, int]:
    """Every line of every log is a result, and within a run no number is missing. How many there are, of how many runs."""
    runs: dict[str, int] = {}
    lines = 0
    for path in sorted(LOGS.iterdir(), key=lambda path: (path == LOG, path.name)):
        if not path.name.startswith("results"):
            continue
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        whole, _, rest = content.rpartition(b"\n")
        assert path == LOG or not rest, f"{path}: ends within a line"
        for line in whole.splitlines():
            result = json.loads(line)
            lines += 1
            last = runs.get(result["run"], 0)
            assert result["seq"] == last + 1, f"{path}: {result['seq']} of {result['run']} comes after {last}"
            runs[result["run"]] = result["seq"]
    assert lines, "there is no result in any log"
    return {"lines": lines, "runs": len(runs)}


def switch_models() -> None:
    """Work for the cut: one release is activated after the other."""
    versions = sorted(path.name for path in STORE.iterdir() if path.is_dir() and not path.is_symlink())
    versions = [version for version in versions if not version.startswith(".")]
    for _ in range(1000):
        for version in versions:
            run(*AS_USER, COMMAND, "model", "activate", f"digits@{version}")
            say(active=version, at_s=round(uptime_s(), 1))


# What they share


def run(*command: str, stdin: Any = subprocess.DEVNULL) -> str:
    """Its standard output; what it says is an error's words."""
    done = subprocess.run(command, check=False, stdin=stdin, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, f"{' '.join(command)}: exit code {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def show(what: str) -> str:
    return run("systemctl", "show", "--value", "-p", what, UNIT).strip()


def journal() -> str:
    done = subprocess.run(["journalctl", "-b", "-u", UNIT, "-o", "cat", "--no-pager"], capture_output=True, text=True)
    return done.stdout


def active() -> str:
    return (STORE / "current").readlink().name


def uptime_s() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


def total() -> int:
    return sum(1 for _ in lines_of(LOG)) + sum(1 for path in LOGS.glob("results*.gz") for _ in lines_of(path))


def lines_of(path: Path) -> Iterator[bytes]:
    with suppress(FileNotFoundError), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield from file


def newest(count: int) -> list[dict[str, Any]]:
    with suppress(FileNotFoundError):
        return [
            json.loads(line) for line in LOG.read_bytes().splitlines(keepends=True)[-count:] if line.endswith(b"\n")
        ]
    return []


def more_results() -> list[dict[str, Any]]:
    """Wait for three results of the process that runs now."""
    before = {(line["run"], line["seq"]) for line in newest(1000)}

    def fresh() -> list[dict[str, Any]]:
        return [line for line in newest(1000) if (line["run"], line["seq"]) not in before]

    wait_for(lambda: len(fresh()) >= 3, "results", NEXT_S)
    return fresh()


def wait_for(condition: Callable[[], Any], what: str, seconds: float = WAIT_S) -> Any:
    """What the condition gives, as soon as it is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s; {journal()}"
        time.sleep(0.2)
    return found


def say(**facts: Any) -> None:
    """In one piece, to whoever listens at the second serial line."""
    with open("/dev/ttyS1", "wb", buffering=0) as line:
        line.write(b"board: " + json.dumps(facts).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1])
