"""Boots the machine of scripts/test_power.sh again and again, cuts its power while it writes, and holds what is left to its words.

What the machine says on its console is a line of JSON after `power: ` (tests/system/power_checks.py). It is killed with SIGKILL in
the middle of what it has its card do (card.py), which then forgets, sector by sector, what was not flushed.
"""

from __future__ import annotations

import math
import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from lab.card import Card
from lab.machine import END_S, Machine, boots, read_options

LOGS = ("each", "5s", "never")
SYNCED = (*LOGS, "spool")
CALM = ("5s", "never", "spool")
STARTS = {"": SYNCED, "calm": CALM, "calm eager": CALM}
"""How the machine starts, in turn, and what it writes then: `calm` without what has the card flushed all the time, `eager` with a
kernel that writes early by itself, so that the end of a file is there in part."""
WRITES_S = 3.0, 20.0  # from its first result to the cut
REQUESTS = 60  # of the card, within which it then comes
LATE_S = {"each": 0.0, "5s": 5.0, "never": math.inf, "spool": 5.0}  # what is written is synchronised within this time
SPOOL_FULL = 1000  # results; then the oldest go
SLACK_S = 3.0  # for that itself, in emulation
SAYS = "power: "


class Ledger:
    """What the machine said that it wrote, and that its card has; and what was found of it at the next start."""

    def __init__(self) -> None:
        self.writes: tuple[str, ...] = SYNCED
        """What this start writes."""
        self.runs: list[str] = []
        self.wrote: dict[str, dict[int, float]] = {}
        """By run and number: the machine's time, in seconds."""
        self.kept: dict[str, dict[str, int]] = {name: {} for name in SYNCED}
        """By log and run: the last result that was synchronised."""
        self.snapshots = 0
        """How many were saved."""
        self.found: dict[str, dict[str, int]] = {name: {} for name in SYNCED}
        """By log and run: the last that was there."""
        self.written = dict.fromkeys(SYNCED, 0)
        """By log: the results that went there."""
        self.lost_s: dict[str, list[float]] = {name: [] for name in SYNCED}
        self.torn = 0
        self.wrong: list[str] = []

    def note(self, said: dict[str, Any]) -> None:
        """What the machine says while it writes."""
        run = self.runs[-1]
        if "wrote" in said:
            self.wrote[run][said["wrote"]] = said["at"]
        elif said.get("kept") == "snapshots":
            self.snapshots += 1
        elif "kept" in said:
            name, seq, before = said["kept"], said["seq"], self.kept[said["kept"]].get(run, 0)
            self.kept[name][run] = seq
            if name == "each" and seq > before + 1:
                self.wrong.append(f"{name}: {seq - before} results of {run} were synchronised at once, up to {seq}")
        elif "wrong" in said:
            self.wrong.append(said["wrong"])

    def judge(self, said: dict[str, Any]) -> None:
        """What it finds when it starts. Another run begins."""
        left = said["left"]
        self.wrong += left["wrong"]
        self.torn += left["torn"]
        for name in SYNCED:
            self._judge(name, left[name])
        self.runs.append(said["run"])
        self.wrote[said["run"]] = {}

    def _judge(self, name: str, stretches: list[list[Any]]) -> None:
        """Nothing that was synchronised or found before may be missing, and there is no hole; of the spool, the oldest go."""
        found, oldest = {run: last for run, _, last in stretches}, self._oldest(name, stretches)
        for run in self.runs:
            before = max(self.found[name].get(run, 0), self.kept[name].get(run, 0))
            if run >= oldest and found.get(run, 0) < before:
                self.wrong.append(f"{name}: {run} ends with {found.get(run, 0)}, and {before} was safe")
        for place, (run, first, last) in enumerate(stretches):
            if first != 1 and not (oldest and place == 0):
                self.wrong.append(f"{name}: a hole before {first} of {run}")
            if run != self.runs[-1] and last > self.found[name].get(run, 0):
                self.wrong.append(f"{name}: {run} has grown to {last}")
        if [run for run, _, _ in stretches] != [run for run in self.runs if run in found]:
            self.wrong.append(f"{name}: the runs are out of order")
        self.found[name] = found
        if name in self.writes and self.runs and self.wrote[self.runs[-1]]:
            self._measure(name, self.runs[-1])

    def _measure(self, name: str, run: str) -> None:
        """How much of the time before the cut is missing, and how much was not said to be safe."""
        wrote = self.wrote[run]
        newest, begun = max(wrote.values()), min(wrote.values())

        def without_s(last: int) -> float:
            return newest - (wrote.get(last, newest) if last else begun)

        lost_s, unsafe_s = without_s(self.found[name].get(run, 0)), without_s(self.kept[name].get(run, 0))
        self.written[name] += len(wrote)
        self.lost_s[name].append(lost_s)
        most_s = LATE_S[name] + SLACK_S
        if lost_s > most_s:
            self.wrong.append(f"{name}: {lost_s:.1f} s are missing before the cut")
        if unsafe_s > most_s:
            self.wrong.append(f"{name}: nothing was synchronised for {unsafe_s:.1f} s before the cut")

    @staticmethod
    def _oldest(name: str, stretches: list[list[Any]]) -> str:
        """The first run that has to be there: of a spool that is full, the first that is there."""
        full = name == "spool" and sum(last - first for _, first, last in stretches) > SPOOL_FULL
        return str(stretches[0][0]) if full else ""


def main() -> None:
    """Cut by cut, what was lost; then the figures of all of them. The exit code is 0 only where all is well."""
    options = read_options(__doc__, cuts=8)
    chance, ledger, place = random.Random(options.seed), Ledger(), options.work / "card"
    card = Card(options.work / "card.img", place, random.Random(options.seed))
    drive = f"file=nbd+unix:///?socket={place},cache=none"
    started = time.monotonic()
    for number in range(1, options.cuts + 2):
        word = "last" if number > options.cuts else list(STARTS)[number % len(STARTS) - 1]
        machine = Machine(boots(options, word, drive), options.console, SAYS)
        try:
            one_start(machine, card, ledger, chance, STARTS.get(word))
        finally:
            machine.kill()
        if ledger.wrong:
            sys.exit("\n".join(f"power: wrong: {what}" for what in dict.fromkeys(ledger.wrong)))
    report(ledger, card, options.cuts, time.monotonic() - started)


def one_start(
    machine: Machine, card: Card, ledger: Ledger, chance: random.Random, writes: tuple[str, ...] | None
) -> None:
    """Look at what the cut before it has left, and, but for the last time, write and cut the power."""
    ledger.judge(machine.wait_for("left"))
    if ledger.wrong:
        return
    if len(ledger.runs) > 1:
        lost = ", ".join(f"{name} {ledger.lost_s[name][-1]:.1f} s" for name in ledger.writes)
        say(f"power: after cut {len(ledger.runs) - 1}: nothing that was safe is missing; lost: {lost}")
    if writes:
        ledger.writes = writes
        ledger.note(machine.wait_for("wrote"))
        time.sleep(chance.uniform(*WRITES_S))
        if chance.random() < 0.5:  # else at any time: most of it, the card has nothing to do
            card.cut_soon(chance.randrange(REQUESTS))
            card.dead.wait(END_S)
        machine.kill()
    for said in machine.end():
        ledger.note(said)
    if writes:
        card.cut()
        card.power_on()


def report(ledger: Ledger, card: Card, cuts: int, took_s: float) -> None:
    """The figures."""
    say(
        f"power: ok: {cuts} cuts; the card forgot {card.forgotten} sectors of those it had not flushed, and kept {card.survived}"
    )
    for name in SYNCED:
        kept, found, wrote = sum(ledger.kept[name].values()), sum(ledger.found[name].values()), ledger.written[name]
        what = "the spool" if name == "spool" else f"the log with fsync {name}"
        here = "the newest" if name == "spool" else f"{found}"  # it is full, and the oldest go
        safe = f"of {kept} that were said to be synchronised, 0 are missing; " if name != "never" else ""
        say(
            f"power: ok: {what}: {here} of {wrote} results are there, without a hole; {safe}"
            f"lost are at most the last {max(ledger.lost_s[name]):.1f} s before a cut"
        )
    say(f"power: ok: every line parses; {ledger.torn} torn last lines were cut off; every compressed file is whole")
    say(f"power: ok: {ledger.snapshots} snapshots were saved, each whole or gone")
    say(f"power: all is well, after {took_s:.0f} s")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
