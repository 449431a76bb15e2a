"""A Debian with a real systemd in a container (systemd-nspawn), booted in a second. It needs root, and Debian on this side.

with Container(tree()) as board:                      # or the fixture `container`, or `board`, which has edge-runner installed
    board.write("/etc/edge-runner/door.yaml", "...")  # or board.copy_in(folder, "/root/folder")
    board.run("systemctl", "start", "edge-runner@door")
    board.wait("edge-runner@door.service", "active"), board.journal("edge-runner@door"), board.show("edge-runner@door", "MainPID")
    board.in_network("ssh", "root@127.0.0.1")         # a program of this side, in the container's network, which is loopback alone
    board.cut_power(), board.boot()                   # its disk, which is memory, lives on

Container, processes, mounts and disk end with whoever started it, however that ends.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
from lab.broker import wait_until

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-runner" / "container"
PACKAGES = (
    "systemd-sysv", "dbus", "libpam-systemd", "udev", "python3", "python3-venv", "openssh-server", "sudo", "procps", "iproute2",
)  # fmt: skip
CGROUPS = tuple(Path("/sys/fs/cgroup") / each for each in ("unified", "systemd", ""))  # where systemd may keep them
BOOT_S = 120.0
RUN_S = 300.0
END_S = 60.0
WITHIN_S = 60.0
TOOLS = ("systemd-nspawn", "mmdebstrap", "nsenter", "unshare", "setpriv")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb"}
# Of itself and what it starts, all in namespaces of its own. Each line that it reads is a boot.
HOLDER = """
set -e
for each in "${@:3}"; do echo 0 >"$each/cgroup.procs"; done
mount -t proc proc /proc
mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
echo ready
while read -r _; do
    systemd-nspawn --quiet --boot --directory "$1/root" --machine=board --register=no --keep-unit --private-network --console=pipe \
        --link-journal=no --resolv-conf=off --timezone=off --system-call-filter="adjtimex clock_adjtime" \
        systemd.show_status=1 </dev/null || true
    echo ended
done
"""


def container_missing() -> str | None:
    """What is missing for a container; in CI, nothing may be."""
    if os.environ.get("CI"):
        return None
    if os.getuid() != 0:
        return "a container needs root"
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    return (
        f"a container: {', '.join(missing)} missing; apt-get install systemd-container mmdebstrap" if missing else None
    )


@functools.cache
def tree(suite: str = "bookworm", packages: tuple[str, ...] = PACKAGES) -> Path:
    """The folder of an installed Debian, which nobody writes to; made once, and kept."""
    CACHE.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(repr((suite, sorted(packages), "1")).encode()).hexdigest()[:8]
    folder = CACHE / f"{suite}-{key}"
    with locked(CACHE):
        if not folder.is_dir():
            _unpack(suite, packages, folder)
    return folder


class Container:
    """A booted Debian. Its disk is memory over the tree, its network is its own, and loopback alone."""

    def __init__(self, tree: Path, *, boot: bool = True) -> None:
        _sweep()
        self._disk = CACHE / f"tmp.{os.getpid()}.{time.monotonic_ns()}"
        self._disk.mkdir(parents=True)
        self._log = (self._disk.with_name(f"{self._disk.name}.log")).open("w+")
        self._cgroups = _make_cgroups(_group_name(self._disk.name))
        # setpriv: it dies with us. unshare: all that is in its namespaces dies with it.
        command = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"]
        self._holder = subprocess.Popen(
            [*command, "bash", "-c", HOLDER, "bash", str(self._disk), str(tree), *map(str, self._cgroups)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, start_new_session=True,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_NSPAWN_LOCK": "0"},
        )  # fmt: skip
        try:
            self._expect("ready")
            if boot:
                self.boot()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- power

    def boot(self) -> None:
        """Start systemd, and wait until it has started what it starts."""
        _tell(self._holder, "boot")
        deadline = time.monotonic() + BOOT_S
        while not self._is_up():
            if self._holder.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the container did not boot within {BOOT_S:.0f} s:\n{self.console()}")
            time.sleep(0.05)

    def shut_down(self) -> None:
        """End it as an administrator does: every unit is stopped."""
        self.run("systemctl", "poweroff", "--no-block")
        self._expect("ended")

    def cut_power(self) -> None:
        """End every process at once. The disk keeps all that was written: memory forgets nothing that was not synced."""
        os.kill(self.init, signal.SIGKILL)
        self._expect("ended")

    def stop(self) -> None:
        """End it, and leave nothing of it behind; may be called again."""
        self._holder.kill()
        self._holder.wait()
        for stream in (self._holder.stdin, self._holder.stdout):
            with suppress(OSError):
                stream and stream.close()
        _kill(self._cgroups)
        _remove_cgroups(self._cgroups)
        shutil.rmtree(self._disk, ignore_errors=True)
        self._log.close()
        Path(self._log.name).unlink(missing_ok=True)

    def console(self) -> str:
        """What systemd-nspawn said, and what it starts with."""
        return Path(self._log.name).read_text(errors="replace")

    # --- what is in it

    def run(
        self,
        *argv: object,
        check: bool = True,
        timeout: float = RUN_S,
        stdin: str | None = None,
        user: str = "root",
        **env: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in it to its end. With `check` a failure is an AssertionError that says what it wrote."""
        done = subprocess.run(
            self._command(argv, user), input=stdin if stdin is not None else "", capture_output=True, text=True, timeout=timeout,
            env=ENVIRONMENT | env,
        )  # fmt: skip
        assert not check or done.returncode == 0, (
            f"{_words(argv)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def start(self, *argv: object, user: str = "root", **options: Any) -> subprocess.Popen[str]:
        """Start a program in it; options are Popen's."""
        options = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            **options,
        }
        return subprocess.Popen(self._command(argv, user), env=ENVIRONMENT, **options)

    def in_network(self, *argv: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program of this side, with this side's files, in the container's network; options are subprocess.run's."""
        options = {"capture_output": True, "text": True, "timeout": RUN_S, **options}
        return subprocess.run(["nsenter", "--net", "--target", str(self.init), *map(str, argv)], **options)

    def copy_in(self, source: Path, target: str) -> None:
        """Copy a file or a folder to this path; what is there already stays, but for files of the same name. Owned by root."""
        parent, _, name = target.rstrip("/").rpartition("/")
        command = self._command(["tar", "-x", "-C", parent or "/", "--no-same-owner", "--preserve-permissions"])
        self.run("mkdir", "-p", parent or "/")
        child = subprocess.Popen(command, stdin=subprocess.PIPE, env=ENVIRONMENT)
        assert child.stdin
        with child.stdin, tarfile.open(fileobj=child.stdin, mode="w|") as archive:
            archive.add(source, name)
        assert child.wait(RUN_S) == 0, f"{source} cannot be copied to {target}"

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of root's, and the folders it is in."""
        script = 'umask 022; mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"'
        self.run("sh", "-c", script, "sh", path, f"{mode:o}", stdin=text)

    def read(self, path: str) -> str:
        return self.run("cat", path).stdout

    def exists(self, path: str) -> bool:
        """Whether the path leads to something; a dangling link does not."""
        return self.run("test", "-e", path, check=False).returncode == 0

    # --- systemd

    def show(self, unit: str, what: str) -> str:
        """A property of a unit, such as ActiveState, MainPID, NRestarts, StatusText, Result."""
        return self.run("systemctl", "show", "--value", "--property", what, unit).stdout.strip()

    def wait(self, unit: str, state: str = "active", within_s: float = WITHIN_S) -> None:
        """Wait until the unit's ActiveState (or its SubState) is this one."""

        def states() -> list[str]:
            return [self.show(unit, "ActiveState"), self.show(unit, "SubState")]

        self._until(within_s, lambda: state in states(), lambda: f"{unit} is {'/'.join(states())}, not {state}", unit)

    def wait_for(self, what: Callable[[], Any], unit: str, within_s: float = WITHIN_S) -> Any:
        """Wait until something holds, and return it; if it does not, the journal of `unit` says why."""
        return self._until(within_s, what, lambda: "it does not hold", unit)

    def journal(self, unit: str, *options: str) -> str:
        """What the unit wrote, a line each, without times; options are journalctl's."""
        return self.run("journalctl", "--no-pager", "--quiet", "--output=cat", "--unit", unit, *options).stdout

    def hears(self, unit: str, words: str, within_s: float = WITHIN_S) -> str:
        """Wait until the unit's journal, which comes a moment late, has a line with those words; return the last one."""
        return str(self.wait_for(lambda: self._last_with(unit, words), unit, within_s))

    @property
    def init(self) -> int:
        """The process id of its systemd, here."""
        return _only_child(_only_child(self._bash()))

    # --- helpers

    def _command(self, argv: Sequence[object], user: str = "root") -> list[str]:
        enter = [
            "nsenter",
            "--target",
            str(self.init),
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--cgroup",
            "--root",
            "--wd",
        ]
        change = (
            ["setpriv", f"--reuid={user}", f"--regid={self._group_of(user)}", "--init-groups", "--reset-env"]
            if user != "root"
            else []
        )
        return [*enter, *change, *map(str, argv)]

    def _group_of(self, user: str) -> str:
        return self.run("id", "-g", user).stdout.strip()

    def _is_up(self) -> bool:
        with suppress(LookupError, subprocess.TimeoutExpired):
            state = self.run("systemctl", "is-system-running", check=False, timeout=5).stdout.strip()
            return state in ("running", "degraded")
        return False

    def _last_with(self, unit: str, words: str) -> str:
        return next((line for line in reversed(self.journal(unit).splitlines()) if words in line), "")

    def _until(self, within_s: float, what: Callable[[], Any], why: Callable[[], str], unit: str) -> Any:
        deadline = time.monotonic() + within_s
        while not (found := what()):
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{why()} after {within_s:.0f} s; its journal:\n{self.journal(unit, '--lines=40')}"
                )
            time.sleep(0.1)
        return found

    def _bash(self) -> int:
        return _only_child(self._holder.pid)

    def _expect(self, word: str) -> None:
        assert self._holder.stdout
        # What nspawn and systemd write comes by the same way.
        for line in self._holder.stdout:
            if line.strip() == word:
                return
            self._log.write(line)
            self._log.flush()
        raise AssertionError(f"the container ended: {self.console()}")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else has this folder's lock meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def cannot(why: str) -> NoReturn:
    """There is no container here. In CI that is an error."""
    if os.environ.get("CI"):
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


def _unpack(suite: str, packages: Sequence[str], folder: Path) -> None:
    new = folder.with_name(f"tmp.new.{os.getpid()}")
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", '--aptopt=APT::Install-Recommends "0"']
    command += [f"--include={','.join(packages)}", suite, str(new), _mirror()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        shutil.rmtree(new, ignore_errors=True)
        cannot(f"Debian {suite} cannot be unpacked for a container: {done.stderr.strip()[-1000:]}")
    (new / "etc" / "machine-id").write_text("")  # each boot over it is another machine
    (new / "etc" / "hostname").write_text("board\n")
    new.rename(folder)


def _mirror() -> str:
    script = f". {ROOT}/scripts/lib.sh && . {ROOT}/scripts/emulate.sh && debian_mirror"
    found = subprocess.run(["bash", "-c", script], capture_output=True, text=True).stdout.strip()
    return found or cannot("a container needs Debian's packages; apt's sources name no place that has them")


def _only_child(pid: int) -> int:
    """The first child; LookupError if it has none (yet)."""
    try:
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    except (OSError, IndexError):
        raise LookupError(f"process {pid} has no child") from None


def _sweep() -> None:
    """Remove what those have left who were killed: empty folders."""
    for path in CACHE.glob("tmp.*.*"):
        name = path.stem if path.suffix == ".log" else path.name
        if not Path("/proc", name.split(".")[1]).exists():
            groups = [top / _group_name(name) for top in CGROUPS if (top / _group_name(name)).exists()]
            with suppress(OSError):
                _remove_cgroups(groups)
                path.unlink() if path.suffix == ".log" else path.rmdir()


def _group_name(disk: str) -> str:
    return disk.replace("tmp.", "edge-runner-")


def _make_cgroups(name: str) -> list[Path]:
    """A control group of its own, in each place where they are kept: two containers would share one otherwise."""
    groups = [top / name for top in CGROUPS if (top / "cgroup.procs").exists()]
    for group in groups:
        group.mkdir()
    return groups


def _kill(groups: Sequence[Path]) -> None:
    for pid in _processes(groups):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(END_S, lambda: not list(_processes(groups)))


def _processes(groups: Sequence[Path]) -> Iterator[int]:
    for group in groups:
        for file in group.rglob("cgroup.procs"):
            with suppress(OSError):
                yield from map(int, file.read_text().split())


def _remove_cgroups(groups: Sequence[Path]) -> None:
    for group in groups:
        for folder in sorted((each for each in group.rglob("*") if each.is_dir()), reverse=True):
            folder.rmdir()
        group.rmdir()


def _tell(child: subprocess.Popen[str], line: str) -> None:
    assert child.stdin
    child.stdin.write(f"{line}\n")
    child.stdin.flush()


def _words(argv: Sequence[object]) -> str:
    return " ".join(map(str, argv))
