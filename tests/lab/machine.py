"""A virtual machine that is booted, heard, and killed. What it says is lines of JSON after a word of its own, on a serial line."""

from __future__ import annotations

import argparse
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

START_S = 600.0  # an emulated machine on a busy one
END_S = 60.0


def read_options(description: str | None, cuts: int) -> argparse.Namespace:
    """What scripts/test_power.sh and scripts/test_board.sh say: how often and when the power is cut, and of which machine.

    Its console is emptied.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cuts", type=int, default=cuts)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--machine", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--console", type=Path, required=True)
    parser.add_argument("--accelerator", required=True)
    parser.add_argument("--memory", type=int, required=True)
    options = parser.parse_args()
    options.console.write_bytes(b"")
    return options


def boots(options: argparse.Namespace, word: str, drive: str, *serial: str) -> list[str]:
    """The command that boots it, told `word`, from a card that is a `drive` of QEMU's.

    `serial` are lines of its own before the one that is heard.
    """
    lines = [argument for line in (*serial, "stdio") for argument in ("-serial", line)]
    return [
        "qemu-system-x86_64", "-machine", f"q35,accel={options.accelerator}", "-cpu", "max",
        "-smp", "2", "-m", str(options.memory), "-nodefaults", "-no-reboot", "-display", "none", *lines,
        "-kernel", str(options.machine / "kernel"), "-initrd", str(options.work / "initrd"),
        "-append", f"console=ttyS0 panic=-1 loglevel=4 {word}",
        "-drive", f"{drive},format=raw,if=virtio",
    ]  # fmt: skip


class Machine:
    """The machine that `command` boots, with what it says on standard output; all of it goes to the file `console` as well."""

    def __init__(self, command: Sequence[str], console: Path, says: str) -> None:
        self.console, self.says = console, says
        self._child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def hear(self, within_s: float) -> dict[str, Any] | None:
        """The next thing that it says; None when it has ended, or is silent for so long. Whatever else it prints is passed over."""
        while True:
            try:
                line = self._said.get(timeout=within_s)
            except queue.Empty:
                return None
            if line is None:
                return None
            with suppress(ValueError):  # the last line may be cut as well
                if line.startswith(self.says):
                    said: dict[str, Any] = json.loads(line.removeprefix(self.says))
                    return said

    def wait_for(self, word: str) -> dict[str, Any]:
        """The next thing that it says of this."""
        while (said := self.hear(START_S)) is not None:
            if word in said:
                return said
        sys.exit(f"edge-runner: error: the machine came to no '{word}'; its console is in {self.console}")

    def end(self) -> Iterator[dict[str, Any]]:
        """Wait until it is gone; what it had said until then."""
        self._child.wait(END_S)
        while (said := self.hear(END_S)) is not None:
            yield said

    def kill(self) -> None:
        """At once, as it stands."""
        self._child.kill()

    def _listen(self) -> None:
        assert self._child.stdout
        with open(self.console, "ab") as console:
            for line in self._child.stdout:
                console.write(line)
                self._said.put(line.decode(errors="replace").strip())
        self._said.put(None)
