"""Boots the virtual board of scripts/test_board.sh, has it installed, and cuts its power again and again, at random moments.

What the board says is a line of JSON after `board: ` (tests/system/board_checks.py). After each cut its card has forgotten, sector
by sector, what was not flushed (card.py); the file system is checked, and the next start has to bring the service up by itself.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from lab.card import Card
from lab.machine import START_S, Machine, boots, read_options

SAYS = "board: "
INSTALL_S = 2400.0  # pip, in emulation
WORKS_S = 5.0, 90.0  # from the first results to the cut
STARTS_S = 3.0, 40.0  # from power on to a cut within the start
REQUESTS = 200  # of the card, within which it then comes
SILENT_S = 15.0  # of its card: then the cut comes at once
MENDED = 1  # of e2fsck's codes; what is above says damage


def main() -> None:
    """The installation, then cut by cut. The exit code is 0 only where all is well."""
    options = read_options(__doc__, cuts=3)
    board = Board(options)
    install(board)
    chance = random.Random(options.seed)
    for number in range(1, options.cuts + 1):
        if number % 2 == 0:
            cut_start(board, chance, number)
        else:
            cut_work(board, chance, number)
    up(board, board.boot("last"), f"after cut {options.cuts}")
    board.off()
    say(f"all is well: {options.cuts} cuts; the card forgot {board.card.forgotten} sectors of those it had not flushed, and "
        f"kept {board.card.survived}; its file system is clean")  # fmt: skip


class Board:
    """The machine and its card."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.image: Path = options.work / "card.img"
        self.place: Path = options.work / "card"
        self.card = Card(self.image, self.place, random.Random(options.seed))
        self.machine: Machine

    def boot(self, phase: str) -> Machine:
        """Power on; for the installation with a card that is quick, and asked to forget nothing."""
        file = f"nbd+unix:///?socket={self.place}" if phase != "install" else str(self.image)
        cache = "none" if phase != "install" else "unsafe"
        console = self.options.console
        drive = f"file={file},cache={cache}"
        command = boots(self.options, f"board.phase={phase}", drive, f"file:{console}.{phase}")
        self.machine = Machine(command, console, SAYS)
        return self.machine

    def cut(self) -> list[dict[str, Any]]:
        """The power goes. What the card had not flushed is gone in part; what is left has to be a file system.

        Return what the board had said until then.
        """
        self.machine.kill()
        said = list(self.machine.end())
        self.card.cut()
        self.card.power_on()
        copy = self.image.with_name("copy.img")
        subprocess.run(["cp", "--sparse=always", self.image, copy], check=True)
        # As the next start does, its journal is replayed; then there is nothing more to mend.
        for how, allowed in (("-p", MENDED), ("-n", 0)):
            self._check(copy, how, allowed)
        copy.unlink()
        return said

    def off(self) -> None:
        """It has ended by itself; its card was flushed."""
        list(self.machine.end())
        self._check(self.image, "-n", 0)

    @staticmethod
    def _check(image: Path, how: str, allowed: int) -> None:
        done = subprocess.run(["e2fsck", "-f", how, str(image)], capture_output=True, text=True)
        if done.returncode > allowed:
            sys.exit(f"edge-runner: error: board: the file system is damaged: {done.stdout}{done.stderr}")


def install(board: Board) -> None:
    """The first start: what it says is a check each."""
    machine, begun = board.boot("install"), time.monotonic()
    while True:
        said = hear(board, machine, INSTALL_S)
        if "done" in said:
            break
        figure = f" {said['figure']}." if said["figure"] else ""
        say(f"ok: {said['ok']}{figure} ({said['took_s']:.0f} s)")
    board.off()
    say(f"installed and tried in {time.monotonic() - begun:.0f} s")


def cut_work(board: Board, chance: random.Random, number: int) -> None:
    """The cut comes while it writes results, and one model is activated after the other."""
    machine = board.boot("work")
    up(board, machine, f"after cut {number - 1}" if number > 1 else "after a clean end")
    begun = time.monotonic()
    time.sleep(chance.uniform(*WORKS_S))
    if chance.random() < 0.5:  # else at any time: most of it, the card has nothing to do
        board.card.cut_soon(chance.randrange(REQUESTS))
        board.card.dead.wait(SILENT_S)
    took_s = time.monotonic() - begun
    switches = sum("active" in said for said in board.cut())
    say(f"cut {number}: after {took_s:.0f} s of work, and {switches} switches of the model")


def cut_start(board: Board, chance: random.Random, number: int) -> None:
    """The cut comes within a start, after one that went well and ended well."""
    up(board, board.boot("last"), f"after cut {number - 1}")
    board.off()
    board.boot("start")
    begins = chance.uniform(*STARTS_S)
    time.sleep(begins)
    board.cut()
    say(f"cut {number}: {begins:.0f} s after power on")


def up(board: Board, machine: Machine, when: str) -> None:
    """The service came up by itself."""
    said = hear(board, machine, START_S)["up"]
    say(
        f"ok: {when}: ready {said['ready_s']:.0f} s after power on, a result at {said['result_s']:.0f} s, "
        f"{said['health']}; model {said['model']} is whole; {said['lines']} results of {said['runs']} runs, each line whole"
    )


def hear(board: Board, machine: Machine, within_s: float) -> dict[str, Any]:
    """The next thing that it says; what is wrong is the end."""
    said = machine.hear(within_s)
    if said is None or "wrong" in said:
        machine.kill()
        console = board.options.console
        shutil.copy(board.image, console.with_suffix(".img"))
        why = f"the board: {said['wrong']}" if said else f"the board says nothing within {within_s:.0f} s"
        sys.exit(f"edge-runner: error: {why}; its consoles are {console}.*")
    return said


def say(line: str) -> None:
    sys.stdout.write(f"{SAYS}{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
