"""scripts/install_device.sh on a Debian with systemd and without a network: every way in, on, back and out, and what fails then."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from checkout import copy_to
from lab.container import Container
from lab.wheelhouses import altered, name_of, seal

DOOR = "edge-runner@door.service"
CONFIG = """
camera:
  type: pattern
  width: 64
  height: 48
model: {path: digits}
outputs: [{type: jsonl, path: door.jsonl}]
"""
HERE = "/root/wheelhouse"
VERSIONS = "/opt/edge-runner/versions"
BROKEN = {"edge_runner/cli.py": "\nraise RuntimeError('a broken wheel')\n"}
# main() as it is, but that `check` says no where /refuse is, and `run` ends at once.
FAILS = {
    "edge_runner/cli.py": """
_main = main
def main():
    import os, sys
    if sys.argv[1] == "check" and os.path.exists("/refuse"):
        print("no longer so")
        return 78
    return 1 if sys.argv[1] == "run" else _main()
"""
}
# Where every installer runs: whoever wrote this would be root, if one of its Pythons looked here.
TRAP = "/srv/trap"
BAIT = ("edge_runner/__init__.py", "zipfile.py", "venv.py", "hashlib.py", "cv2.py", "compileall.py", "pip.py")
# What an installation may change; not what any command changes.
BESIDE = "-path var/log/journal -o -path var/lib/systemd -o -path var/cache -o -name '*.pyc'"
TREE = f"cd / && find etc opt usr var -xdev \\( {BESIDE} \\) -prune -o -printf '%p %u:%g %m %l %s %T@\\n' | sort"


@pytest.fixture(scope="module")
def machine(debian: Path, wheelhouse: Path, digits: Path) -> Iterator[Container]:
    with Container(debian) as booted:
        booted.copy_in(wheelhouse, HERE)
        booted.copy_in(digits, "/root/digits")
        booted.run("systemctl", "stop", "*.timer")  # nobody else changes what an installation may
        for name in BAIT:
            booted.write(f"{TRAP}/{name}", "raise RuntimeError('what lies here was run')\n")
        booted.run("mv", "/usr/lib/python3.11/ensurepip", "/srv/ensurepip")  # as where python3-venv is missing
        yield booted
        assert not booted.run("find", TRAP, "-name", "__pycache__").stdout


@pytest.fixture
def install(machine: Container) -> Callable[..., tuple[int, str]]:
    """Run an installer on the board; its exit code, and what it said."""

    def run(*options: object, house: str = HERE) -> tuple[int, str]:
        done = machine.run("env", "-C", TRAP, f"{house}/install_device.sh", *options, check=False)
        assert done.stdout == ""
        return done.returncode, done.stderr

    return run


@pytest.fixture
def bring(machine: Container, wheelhouse: Path, tmp_path: Path) -> Iterator[Callable[..., tuple[str, str]]]:
    """Bring another wheelhouse to the board; its folder there, and what its version is called."""

    def make(*arguments: object) -> tuple[str, str]:
        house = altered(wheelhouse, tmp_path / "house", *arguments)
        machine.copy_in(house, "/root/other")
        return "/root/other", name_of(house)

    yield make
    machine.run("rm", "-rf", "/root/other")


@pytest.fixture
def running(machine: Container, install: Callable[..., tuple[int, str]], wheelhouse: Path) -> str:
    """The board with this checkout installed, and an instance that runs; the name of its version."""
    if current(machine) != name_of(wheelhouse):
        assert install("--upgrade")[0] == 0
    machine.run("cp", "-rT", "/root/digits", "/etc/edge-runner/digits")
    machine.write("/etc/edge-runner/door.yaml", CONFIG)
    machine.run("systemctl", "enable", "--now", "--quiet", DOOR)
    assert version_of_process(machine) == name_of(wheelhouse)
    return name_of(wheelhouse)


def current(machine: Container, link: str = "current") -> str:
    return machine.run("readlink", f"/opt/edge-runner/{link}", check=False).stdout.strip().removeprefix("versions/")


def versions(machine: Container) -> set[str]:
    return set(machine.run("ls", "-A", VERSIONS, check=False).stdout.split())


def version_of_process(machine: Container) -> str:
    """Of the version whose program the instance is."""
    pid = machine.show(DOOR, "MainPID")
    return machine.run("cat", f"/proc/{pid}/cmdline").stdout.split("/bin/", 1)[0].removeprefix(f"{VERSIONS}/")


def goes_on(machine: Container) -> None:
    """Results are still being written."""

    def lines() -> int:
        return len(machine.read("/var/log/edge-runner/door/door.jsonl").splitlines())

    before = lines()
    machine.wait_for(lambda: lines() > before + 5, DOOR)


# --- in


def test_a_dry_run_says_all_and_changes_nothing(machine: Container, install: Callable[..., tuple[int, str]]) -> None:
    """On a bare system, and where there is something to upgrade or to remove: the whole file system stays as it is."""
    install("--uninstall", "--purge")
    before = machine.run("sh", "-c", TREE).stdout
    code, said = install("--dry-run")
    assert code == 0
    assert "would add the system user edge-runner\n" in said
    assert said.endswith("changes would be made; nothing was done\n")
    assert machine.run("sh", "-c", TREE).stdout == before
    assert machine.run("getent", "passwd", "edge-runner", check=False).returncode == 2


def test_install_twice(machine: Container, install: Callable[..., tuple[int, str]], wheelhouse: Path) -> None:
    """What is promised is there; the second run says that there was nothing to do, and did nothing."""
    install("--uninstall", "--purge")
    code, said = install()
    assert code == 0, said
    assert current(machine) == name_of(wheelhouse)
    assert machine.run("edge-runner", "--version").stdout.startswith("edge-runner ")
    assert machine.run("id", "-nG", "edge-runner").stdout.split() == ["edge-runner", "video", "render"]
    assert (
        machine.run("stat", "-c", "%U:%G %a", "/var/lib/edge-runner/models").stdout == "edge-runner:edge-runner 2775\n"
    )
    assert versions(machine) == {name_of(wheelhouse)}
    before = machine.run("sh", "-c", TREE).stdout
    code, said = install()
    assert (code, said) == (0, f"edge-runner {name_of(wheelhouse)} is installed; nothing was to be done\n")
    assert machine.run("sh", "-c", TREE).stdout == before


def test_nothing_of_the_place_where_it_was_made_is_left(machine: Container, running: str) -> None:
    """Programs, traces and compiled files name the folder that is there; nothing is compiled at a start."""
    hidden = machine.run("grep", "-rl", f"{VERSIONS}/.new", f"{VERSIONS}/{running}", check=False).stdout
    assert hidden == ""
    script = """import cv2, edge_runner.cli, os, sys
compiled = (os.path.exists(sys.modules[name].__cached__) for name in ("cv2", "numpy", "edge_runner.cli"))
print(all(compiled), edge_runner.cli.main.__code__.co_filename)"""
    said = machine.run(f"{VERSIONS}/{running}/bin/python", "-B", "-c", script).stdout
    assert said == f"True {VERSIONS}/{running}/lib/python3.11/site-packages/edge_runner/cli.py\n"


def test_what_is_missing_is_said_at_once(
    machine: Container, install: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """No root and no wheelhouse: two lines, and one that says what became of it."""
    machine.run("cp", f"{HERE}/install_device.sh", "/tmp/alone.sh")
    done = machine.run("/tmp/alone.sh", check=False, user="nobody", timeout=30)
    assert done.returncode == 1
    first, second, last = done.stderr.splitlines()
    assert first == "root is needed: run it with sudo"
    assert "no wheelhouse" in second
    assert last.startswith("edge-runner: error: nothing was changed; 2 of")


def test_another_command_of_that_name(machine: Container, install: Callable[..., tuple[int, str]]) -> None:
    """What pip put there, say, is not replaced."""
    install("--uninstall")
    machine.write("/usr/local/bin/edge-runner", "another\n")
    code, said = install()
    assert (code, said.startswith("/usr/local/bin/edge-runner is there already, and not from here")) == (1, True), said
    assert machine.read("/usr/local/bin/edge-runner") == "another\n"
    machine.run("rm", "/usr/local/bin/edge-runner")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--sideways",), "--sideways is no option"),
        (("--upgrade", "--rollback"), "--rollback and --upgrade exclude each other"),
        (("--purge",), "--purge goes with --uninstall"),
        (("--wheelhouse",), "--wheelhouse wants a folder"),
        (("--rollback", "--wheelhouse", HERE), "--wheelhouse does not go with --rollback"),
    ],
)
def test_usage(install: Callable[..., tuple[int, str]], options: tuple[str, ...], said: str) -> None:
    """A wrong option is 2, and says which."""
    code, lines = install(*options)
    assert (code, lines.splitlines()[-1]) == (2, f"edge-runner: error: {said}")


def test_a_wheelhouse_that_does_not_fit(
    machine: Container, install: Callable[..., tuple[int, str]], wheelhouse: Path, tmp_path: Path
) -> None:
    """Another processor's, another Python's and a damaged one are refused, and nothing is touched."""
    house = tmp_path / "house"
    (house / "wheels").mkdir(parents=True)
    for name in ("install_device.sh", "WHEELHOUSE"):
        shutil.copy(wheelhouse / name, house)
    facts, here = (house / "WHEELHOUSE").read_text(), platform.machine()
    before = versions(machine)
    for was, becomes, why in (
        (f"platform={here}", "platform=armv7l", f"is for armv7l with Python 3.11; this board is {here} with"),
        ("python=3.11", "python=3.13", f"is for {here} with Python 3.13; this board is {here} with Python 3.11"),
    ):
        (house / "WHEELHOUSE").write_text(facts.replace(was, becomes))
        machine.copy_in(seal(house), "/root/unfit")
        code, said = install("--upgrade", house="/root/unfit")
        assert (code, why in said) == (1, True), said
    machine.run("sh", "-c", "echo >>/root/unfit/WHEELHOUSE")
    code, said = install("--upgrade", house="/root/unfit")
    assert (code, "/root/unfit is damaged, copy it again: WHEELHOUSE\n" in said) == (1, True), said
    assert versions(machine) == before


def test_a_wheel_that_is_not_the_one_that_was_listed(
    machine: Container, install: Callable[..., tuple[int, str]], bring: Callable[..., tuple[str, str]], running: str
) -> None:
    """Whoever exchanges a wheel and writes SHA256SUMS anew is found out by requirements.txt; the old version runs on."""
    house, _ = bring("0.9.1")
    machine.run(
        "sh",
        "-c",
        f"cd {house} && printf x | tee -a wheels/paho*.whl >&2 && sha256sum $(cut -c 67- SHA256SUMS) >S && mv S SHA256SUMS",
    )
    code, said = install("--upgrade", house=house)
    assert code == 1
    assert "edge-runner: error: pip could not install 0.9.1" in said
    assert "HASHES" in said
    assert (current(machine), version_of_process(machine)) == (running, running)
    assert ".new" not in versions(machine)


def test_two_at_once(machine: Container, install: Callable[..., tuple[int, str]]) -> None:
    """The second one goes away."""
    with machine.start(
        "flock", "/run/edge-runner-install.lock", "sh", "-c", "echo locked; read -r _", stdin=-1
    ) as first:
        assert first.stdin
        assert first.stdout
        assert first.stdout.readline() == "locked\n"
        assert install() == (1, "edge-runner: error: another installation is going on\n")
        first.stdin.write("\n")


def test_an_instance_cannot_be_called_models(machine: Container, running: str) -> None:
    """Its state would lie where the store of models does, and the store would be closed to its group."""
    machine.write("/etc/edge-runner/models.yaml", CONFIG)
    done = machine.run("systemctl", "start", "edge-runner@models", check=False)
    assert "is masked" in done.stderr
    assert machine.run("stat", "-c", "%a", "/var/lib/edge-runner/models").stdout == "2775\n"


def test_drop_ins(machine: Container, install: Callable[..., tuple[int, str]], running: str) -> None:
    """Placed when asked for, kept when not; each opens what it says, to every instance, and to those that run."""
    there = f"{VERSIONS}/{running}/share/edge-runner"  # the installer that every version brings
    for option, device, house in (("--csi", "char-dma_heap", HERE), ("--accelerator", "char-apex", there)):
        assert device not in machine.show(DOOR, "DeviceAllow")
        pid = machine.show(DOOR, "MainPID")
        assert install(option, house=house)[0] == 0
        assert machine.show(DOOR, "MainPID") != pid
        assert install() == (0, f"edge-runner {running} is installed; nothing was to be done\n")
        assert device in machine.show(DOOR, "DeviceAllow")
    machine.run("rm", "-r", "/usr/local/lib/systemd/system/edge-runner@.service.d")
    machine.run("systemctl", "daemon-reload")


def test_from_a_clone(
    machine: Container, install: Callable[..., tuple[int, str]], wheelhouse: Path, tmp_path: Path
) -> None:
    """By sudo: the wheelhouse is made as its owner, who may install models from then on. pip's own settings say from where."""
    install("--uninstall", "--purge")
    links = tmp_path / "links"
    shutil.copytree(wheelhouse / "wheels", links)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        links,
        "packaging>=23",
        "setuptools>=77",
    ]
    subprocess.run(command, check=True, timeout=900)
    machine.copy_in(links, "/srv/links")
    machine.run("cp", "-a", "/srv/ensurepip", "/usr/lib/python3.11/ensurepip")  # python3-venv: pip comes with it
    machine.write("/etc/pip.conf", "[global]\nno-index = true\nfind-links = /srv/links\n")
    machine.copy_in(copy_to(tmp_path / "clone"), "/home/pi/clone")
    machine.run("sh", "-c", "useradd --home-dir /home/pi --shell /bin/sh pi; chown -R pi: /home/pi")
    done = machine.run("/home/pi/clone/scripts/install_device.sh", "--dry-run", SUDO_USER="pi")
    assert "would make a wheelhouse" in done.stderr
    machine.run("env", "-C", TRAP, "/home/pi/clone/scripts/install_device.sh", SUDO_USER="pi", timeout=900)
    assert machine.run("edge-runner", "--version").returncode == 0
    assert machine.run("stat", "-c", "%U", "/home/pi/clone/wheelhouse").stdout == "pi\n"
    assert "edge-runner" in machine.run("id", "-nG", "pi").stdout.split()
    machine.run("test", "-w", "/var/lib/edge-runner/models", user="pi")


def test_an_old_processor(machine: Container, install: Callable[..., tuple[int, str]]) -> None:
    """Debian calls it armhf, and yet there is nothing that runs on it."""
    for program, says in (("uname", "armv6l"), ("dpkg", "armhf")):
        machine.run(
            "sh",
            "-c",
            f"printf '#!/bin/sh\necho {says}\n' >/usr/local/sbin/{program}; chmod 755 /usr/local/sbin/{program}",
        )
    code, said = install("--upgrade")
    machine.run("rm", "/usr/local/sbin/uname", "/usr/local/sbin/dpkg")
    assert (code, said.startswith("this processor is an ARMv6, of a Raspberry Pi 1, Zero or Zero W")) == (1, True), said


def test_a_damaged_version(machine: Container, install: Callable[..., tuple[int, str]], running: str) -> None:
    """What no longer starts, or is not what was installed, is said by its own installer, and mended by the wheelhouse's."""
    version = f"{VERSIONS}/{running}"
    own = f"{version}/share/edge-runner"
    machine.run(
        "sh",
        "-c",
        f"rm {version}/bin/python; printf '#!/bin/sh\nkill -ILL $$\n' >{version}/bin/python; chmod 755 {version}/bin/python",
    )
    code, said = install(house=own)
    assert (code, f"{running} is damaged: {running} does not start: it is ended by SIGILL" in said) == (3, True), said
    machine.run("sh", "-c", f"truncate -s 1000000 {version}/lib/python3.11/site-packages/cv2/cv2.abi3.so")
    code, said = install("--dry-run", house=own)
    assert (code, "cv2/cv2.abi3.so has changed; run the install_device.sh of its wheelhouse again" in said) == (
        3,
        True,
    ), said
    code, said = install()
    assert code == 0, said
    assert said.startswith(f"install {running} anew, since it is damaged: cv2/cv2.abi3.so has changed\n")
    machine.run("mv", version, f"{VERSIONS}/.old")  # as where the power is cut in the middle of that
    assert install() == (0, f"edge-runner {running} is installed; nothing was to be done\n")
    assert versions(machine) == {running}
    machine.run("systemctl", "restart", DOOR)
    goes_on(machine)


# --- on and back


def test_upgrade_rollback_and_upgrade_again(
    machine: Container, install: Callable[..., tuple[int, str]], bring: Callable[..., tuple[str, str]], running: str
) -> None:
    """The instance runs the new version, then the old; both lie side by side.

    One that fails all the time does not decide on it, nor does one that the running version could not check either; and what
    runs another program is left alone.
    """
    house, new = bring("0.9.2")
    own = "Type=exec\nWatchdogSec=0\nExecStart=\nExecStart=/bin/sleep infinity"
    for name, drop_in in (
        ("bad", "RestartPreventExitStatus="),  # it has no configuration
        ("own", own),
        ("door", "Environment=WIDTH=64"),
    ):
        machine.write(f"/etc/systemd/system/edge-runner@{name}.service.d/test.conf", f"[Service]\n{drop_in}\n")
    machine.write("/etc/edge-runner/door.yaml", CONFIG.replace("64", "${WIDTH}"))
    machine.run(
        "sh",
        "-c",
        "systemctl daemon-reload; systemctl start edge-runner@own; systemctl start --no-block edge-runner@bad",
    )
    pid = machine.show("edge-runner@own", "MainPID")
    machine.wait_for(lambda: machine.show("edge-runner@bad", "SubState") == "auto-restart", "edge-runner@bad")
    code, said = install(house=house)
    assert (code, f"{running} is installed; to replace it by {new}, run this again with --upgrade" in said) == (1, True)
    code, said = install("--upgrade", house=house)
    assert code == 0, said
    assert "edge-runner@bad did not run before, so it does not decide" in said
    assert (current(machine), current(machine, "previous"), version_of_process(machine)) == (new, running, new)
    code, said = install(house=house)
    assert (code, said) == (0, f"edge-runner {new} is installed; nothing was to be done\n")
    assert machine.run("edge-runner", "--version").stdout == "edge-runner 0.9.2\n"
    goes_on(machine)
    code, said = install("--rollback")
    assert code == 0, said
    assert (current(machine), current(machine, "previous"), version_of_process(machine)) == (running, new, running)
    goes_on(machine)
    assert versions(machine) == {running, new}
    assert machine.show("edge-runner@own", "MainPID") == pid
    machine.write("/etc/edge-runner/door.yaml", CONFIG)
    machine.run("sh", "-c", "rm -r /etc/systemd/system/edge-runner@*.service.d; systemctl daemon-reload")
    machine.run("sh", "-c", "systemctl stop edge-runner@bad edge-runner@own; systemctl restart edge-runner@door")


def test_cut_off_after_the_switch(
    machine: Container, install: Callable[..., tuple[int, str]], bring: Callable[..., tuple[str, str]], running: str
) -> None:
    """What had not been restarted yet is restarted by the next run; and what does not come up then goes back, too."""
    house, new = bring("0.9.8")
    machine.run("cp", "-a", f"{VERSIONS}/{running}", f"{VERSIONS}/{new}")
    machine.run("sed", "-i", f"1s|.*|#!{VERSIONS}/{new}/bin/python|", f"{VERSIONS}/{new}/bin/edge-runner")
    for link, version in (("previous", running), ("current", new)):
        machine.run("ln", "-sfn", f"versions/{version}", f"/opt/edge-runner/{link}")
    assert install("--upgrade", house=house)[0] == 0
    assert (current(machine), version_of_process(machine)) == (new, new)
    machine.run("sh", "-c", f"printf '#!/bin/false\n' >{VERSIONS}/{new}/bin/edge-runner")
    machine.run("systemctl", "stop", DOOR)
    machine.run("ln", "-sfn", f"versions/{running}", "/opt/edge-runner/current")
    machine.run("systemctl", "start", DOOR)
    machine.run("ln", "-sfn", f"versions/{new}", "/opt/edge-runner/current")
    machine.write("/opt/edge-runner/.unproven", f"{new}\ndoor\n")
    code, said = install("--upgrade", house=house)
    assert (code, f"{new} does not come up on this board; {running} runs on" in said) == (1, True), said
    assert not machine.exists("/opt/edge-runner/.unproven")
    assert (current(machine), version_of_process(machine)) == (running, running)
    assert versions(machine) == {running}


def test_a_broken_wheel(
    machine: Container, install: Callable[..., tuple[int, str]], bring: Callable[..., tuple[str, str]], running: str
) -> None:
    """It is installed, tried, and thrown away; the instance was not touched."""
    pid, there = machine.show(DOOR, "MainPID"), versions(machine)
    house, new = bring("0.9.3", BROKEN)
    code, said = install("--upgrade", house=house)
    assert (code, said.splitlines()[-1]) == (
        1,
        f"edge-runner: error: {new} does not start: RuntimeError: a broken wheel",
    )
    assert (current(machine), versions(machine), machine.show(DOOR, "MainPID")) == (running, there, pid)


def test_a_version_that_fails_on_this_board(
    machine: Container, install: Callable[..., tuple[int, str]], bring: Callable[..., tuple[str, str]], running: str
) -> None:
    """It refuses a configuration: said before the switch, and nothing was touched. It does not come up: switched back, said.

    A signal after the switch does not leave it half-way.
    """
    pid, there, before = machine.show(DOOR, "MainPID"), versions(machine), current(machine, "previous")
    house, new = bring("0.9.4", FAILS)
    machine.write("/refuse", "")
    code, said = install("--upgrade", house=house)
    machine.run("rm", "/refuse")
    assert (code, "no longer so\n" in said) == (1, True), said
    assert said.splitlines()[-1].startswith(f"edge-runner: error: {new} does not take /etc/edge-runner/door.yaml")
    assert (current(machine), machine.show(DOOR, "MainPID")) == (running, pid)
    child = machine.start("sh", "-c", f"echo $$; exec {house}/install_device.sh --upgrade 2>&1")
    assert child.stdout
    installer = child.stdout.readline().strip()
    machine.wait_for(lambda: current(machine) == new or child.poll() is not None, DOOR)
    machine.run("kill", "-TERM", installer)
    said = child.communicate(timeout=300)[0]
    last = f"edge-runner: error: {new} does not come up on this board; {running} runs on"
    assert (child.returncode, said.splitlines()[-1]) == (1, last)
    assert (current(machine), version_of_process(machine)) == (running, running)
    assert (versions(machine), current(machine, "previous")) == (there, before)
    goes_on(machine)


def test_a_full_disk(
    machine: Container, install: Callable[..., tuple[int, str]], bring: Callable[..., tuple[str, str]], running: str
) -> None:
    """Said beforehand; and where it fills only then, the old version runs on and nothing half is left."""
    house, _ = bring("0.9.6")
    size = int(machine.run("du", "-sm", f"{VERSIONS}/{running}").stdout.split()[0])
    on_small = f"cp -a {VERSIONS}/{running} /small/ && mount --bind /small {VERSIONS}"
    machine.run("sh", "-c", f"mkdir -p /small && mount -t tmpfs -o size={size + 60}m small /small && {on_small}")
    try:
        code, said = install("--upgrade", house=house)
        assert (code, f"{VERSIONS} has " in said and "MB are needed" in said) == (1, True), said
        machine.run("mount", "-o", f"remount,size={size + 600}m", "/small")
        # What is free now is gone a moment later, whatever has been written until then.
        used = "$(df --output=used -BM /small | tr -dc 0-9)"
        fill = f"until mount -o remount,size=$(({used} + 20))m /small; do :; done"
        with machine.start("sh", "-c", f"while [ ! -e {VERSIONS}/.new/bin ]; do sleep 0.02; done; {fill}"):
            code, said = install("--upgrade", house=house)
        assert (code, "No space left on device" in said) == (1, True), said
        assert (current(machine), versions(machine), version_of_process(machine)) == (running, {running}, running)
    finally:
        machine.run("umount", VERSIONS)
        machine.run("umount", "--lazy", "/small")


def test_killed_in_the_middle(
    machine: Container, install: Callable[..., tuple[int, str]], bring: Callable[..., tuple[str, str]], running: str
) -> None:
    """While it unpacks, and just before the switch: the old version runs on; the next run does what is left."""
    house, new = bring("0.9.7")
    # It syncs a version that has its name, before the switch: there it waits for us.
    machine.write("/usr/local/sbin/sync", f"#!/bin/sh\n[ ! -e {VERSIONS}/{new} ] || sleep 1000\n", 0o755)
    for sign in (f"{VERSIONS}/.new/lib/python3.11/site-packages/numpy", f"{VERSIONS}/{new}"):
        # Within the container, a process group of its own can be killed whole.
        child = machine.start("setsid", "--wait", "sh", "-c", f"echo $$; exec {house}/install_device.sh --upgrade")
        assert child.stdout
        group = child.stdout.readline().strip()
        machine.wait_for(lambda sign=sign: machine.exists(sign), DOOR, 300)
        machine.run("kill", "-KILL", "--", f"-{group}")
        child.communicate(timeout=60)
        machine.run("flock", "/run/edge-runner-install.lock", "true")  # all of it is gone
        assert version_of_process(machine) == running
        goes_on(machine)
    machine.run("rm", "/usr/local/sbin/sync")
    code, said = install("--upgrade", house=house)
    assert code == 0, said
    assert (current(machine), version_of_process(machine)) == (new, new)
    assert ".new" not in versions(machine)


# --- out


def test_uninstall_and_purge(machine: Container, install: Callable[..., tuple[int, str]], running: str) -> None:
    """Without --purge, what the owner wrote, installed and measured stays; with it, nothing does."""
    door, gate = (f"/etc/systemd/system/edge-runner@{name}.service.d" for name in ("door", "gate"))
    machine.write(f"{door}/mine.conf", "[Service]\nNice=5\n")
    machine.run("mkdir", gate)
    for folder in (door, gate):  # as deploy.sh does
        machine.run("ln", "-s", "/opt/edge-runner/current/share/edge-runner/systemd/csi-camera.conf", folder)
    code, said = install("--uninstall", "--dry-run")
    assert (code, machine.show(DOOR, "ActiveState")) == (0, "active"), said
    code, said = install("--uninstall")
    assert code == 0, said
    assert "kept: /etc/edge-runner, /var/lib/edge-runner, /var/log/edge-runner and the user edge-runner" in said
    assert machine.exists("/etc/edge-runner/door.yaml")
    assert machine.exists("/var/log/edge-runner/door/door.jsonl")
    for gone in (
        "/opt/edge-runner",
        "/usr/local/bin/edge-runner",
        "/usr/local/lib/systemd/system/edge-runner@.service",
    ):
        assert not machine.exists(gone)
    assert machine.show(DOOR, "LoadState") == "not-found"
    assert machine.run("find", door, gate).stdout.split() == [door, f"{door}/mine.conf", gate]
    assert install("--uninstall", "--purge")[0] == 0
    assert machine.exists(f"{door}/mine.conf")
    assert not machine.exists(gate)
    for gone in ("/etc/edge-runner", "/var/lib/edge-runner", "/var/log/edge-runner", "/run/edge-runner"):
        assert not machine.exists(gone)
    assert machine.run("getent", "passwd", "edge-runner", check=False).returncode == 2
    code, said = install("--uninstall", "--purge")
    assert (code, said) == (0, "edge-runner is not installed; nothing was to be done\n")
