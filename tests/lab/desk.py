"""A workstation that deploys to a board in a container, over a real sshd: keys, users, and a checkout of its own."""

from __future__ import annotations

import os
import platform
import pty
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from lab.container import Container
from lab.wheelhouses import PYTHON, make_wheelhouse, wheelhouse

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "examples/digits/models/digits"
PARTS = ("edge_runner", "scripts", "systemd", "examples/digits/models")
FILES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE")
HOUSE = f"cache/edge-runner/wheelhouse/{platform.machine()}-py{PYTHON}"
DEPLOY_S = 900.0
PASSWORD = "correct horse"
USERS = {"pi": "NOPASSWD: ALL", "ada": "ALL"}
"""What sudo lets them do: pi anything, and ada with her password."""


def copy_of_checkout(folder: Path) -> Path:
    """This checkout, with its wheelhouse for the container, made before the network is gone."""
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy(ROOT / file, folder)
    wheelhouse(folder / HOUSE)
    _remake(folder)
    return folder


def _remake(checkout: Path) -> None:
    """The wheelhouse where the checkout's deploy.sh has it."""
    make_wheelhouse("--platform", platform.machine(), "--python", PYTHON, "--output", checkout / HOUSE, root=checkout)


def raise_version(checkout: Path, old: str, new: str) -> None:
    """As a newer clone has it."""
    file = checkout / "edge_runner/__init__.py"
    file.write_text(file.read_text().replace(f'"{old}"', f'"{new}"'))
    _remake(checkout)


class Desk:
    """The workstation of a board: `folder` has a key that the board's users let in, and programs that use it."""

    said = ""

    def __init__(self, board: Container, checkout: Path, folder: Path) -> None:
        self.board, self.checkout, self.folder = board, checkout, folder
        key = folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        self._wrap_ssh(key)
        self._scratch = tempfile.TemporaryDirectory(prefix="desk")
        self.environment = {
            **os.environ,
            "TMPDIR": self._scratch.name,
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(checkout / "cache"),
        }
        board.write("/etc/hosts", "127.0.0.1 localhost\n127.0.1.1 board\n")  # or sudo complains
        for user, sudo in USERS.items():
            self._add_user(user, sudo, key.with_suffix(".pub").read_text())
        board.wait("ssh.service")

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.cleanup()

    def _wrap_ssh(self, key: Path) -> None:
        """Every host is the container; nothing is read of, or written to, the files of who runs the tests."""
        config = self.folder / "ssh_config"
        config.write_text(
            f"Host *\nHostName 127.0.0.1\nIdentityFile {key}\nIdentitiesOnly yes\nStrictHostKeyChecking accept-new\n"
            f"UserKnownHostsFile {self.folder / 'known_hosts'}\nLogLevel ERROR\n"
        )
        (self.folder / "bin").mkdir()
        for program in ("ssh", "scp"):
            wrapper = self.folder / "bin" / program
            wrapper.write_text(f'#!/bin/sh\nexec {shutil.which(program)} -F {config} "$@"\n')
            wrapper.chmod(0o755)

    def _add_user(self, user: str, sudo: str, key: str) -> None:
        """With the groups that a board's first user has."""
        self.board.run("useradd", "--create-home", "--shell", "/bin/bash", "--groups", "adm,video", user)
        self.board.run("chpasswd", stdin=f"{user}:{PASSWORD}")
        self.board.write(f"/home/{user}/.ssh/authorized_keys", key)
        self.board.run("chown", "-R", f"{user}:{user}", f"/home/{user}/.ssh")
        self.board.write(f"/etc/sudoers.d/{user}", f"{user} ALL=(ALL) {sudo}\n", 0o440)

    def deploy(self, *options: object, user: str = "pi") -> subprocess.CompletedProcess[str]:
        """Run deploy.sh, without a terminal."""
        return self.run(*self._command(options, user))

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run something in the checkout, with the board in reach."""
        options = {"env": self.environment, "cwd": self.checkout, "timeout": DEPLOY_S, "stdin": subprocess.DEVNULL}
        return self.board.in_network(*command, **options)

    def start(self, *options: object, user: str = "pi") -> subprocess.Popen[str]:
        """Start deploy.sh, in a process group of its own, as a shell does."""
        return subprocess.Popen(
            [*self._enter(), *self._command(options, user)], env=self.environment, cwd=self.checkout, process_group=0,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def type(self, answers: Callable[[str], str | None], *options: object, user: str) -> tuple[int, str]:
        """Run deploy.sh in a terminal; `answers` what was said with what is typed. The exit code, and all that was to be read."""
        command = [*self._enter(), *self._command(options, user)]
        pid, terminal = pty.fork()
        if pid == 0:
            os.execvpe(command[0], command, self.environment)
        said = ""
        while True:
            try:
                said += os.read(terminal, 4096).decode(errors="replace")
            except OSError:  # the other end is closed
                break
            if answer := answers(said):
                os.write(terminal, f"{answer}\n".encode())
        os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said

    def left_overs(self) -> list[str]:
        """What deploy.sh left behind: folders on the board, connections here."""
        staged = self.board.run("find", "/home", "/root", "-name", "deploy.*").stdout.split()
        return [*staged, *map(str, Path(self._scratch.name).iterdir())]

    def _enter(self) -> list[str]:
        return ["nsenter", "--net", "--target", str(self.board.init)]

    def _command(self, options: tuple[object, ...], user: str) -> list[str]:
        return [str(self.checkout / "scripts/deploy.sh"), f"{user}@board.local", *map(str, options)]
