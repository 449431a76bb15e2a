"""The doctor's look at processor, accelerators, memory, clock, heat and power."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from edge_runner.tools import doctor_board
from edge_runner.tools.doctor import Board, Finding
from edge_runner.tools.doctor_board import (
    ACCELERATORS,
    CORES,
    FEATURES,
    accelerators,
    clock,
    heat,
    memory,
    power,
    processor,
)

PI_4 = """\
processor	: 0
Features	: fp asimd evtstrm crc32 cpuid
CPU implementer	: 0x41
CPU architecture: 8
CPU part	: 0xd08

processor	: 1
Features	: fp asimd evtstrm crc32 cpuid
CPU implementer	: 0x41
CPU architecture: 8
CPU part	: 0xd08

Model		: Raspberry Pi 4 Model B Rev 1.4
"""
PI_ZERO = """\
processor	: 0
model name	: ARMv6-compatible processor rev 7 (v6l)
Features	: half thumb fastmult vfp edsp java tls
CPU implementer	: 0x41
CPU architecture: 7
CPU part	: 0xb76
"""
PI_2 = """\
processor	: 0
model name	: ARMv7 Processor rev 5 (v7l)
Features	: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt
CPU implementer	: 0x41
CPU architecture: 7
CPU part	: 0xc07
"""
ROCK = """\
processor	: 0
Features	: fp asimd asimdhp asimddp
CPU implementer	: 0x41
CPU architecture: 8
CPU part	: 0xd05

processor	: 1
Features	: fp asimd asimdhp asimddp
CPU implementer	: 0x41
CPU architecture: 8
CPU part	: 0xd0b
"""
PC = "processor	: 0\nmodel name	: Intel(R) N100\nflags		: fpu sse4_2 avx avx2 fma avx_vnni\n"

THROTTLED = "devices/platform/soc/soc:firmware/get_throttled"
PI = "Raspberry Pi 4 Model B Rev 1.4\0"


def one(findings: Any) -> Finding:
    [finding] = findings
    assert isinstance(finding, Finding)
    return finding


@pytest.fixture
def pi(board: Board, plant: Any) -> Board:
    plant(board.proc, {"device-tree/model": PI})
    return board


class TestProcessor:
    @pytest.mark.parametrize(
        ("info", "text"),
        [
            (PI_4, "2 x Cortex-A72, NEON"),
            (PI_2, "1 x Cortex-A7, NEON"),
            (ROCK, "2 x Cortex-A55 and Cortex-A76, NEON, half floats, dot products"),
            (PC, "1 x Intel(R) N100, AVX, AVX2, FMA, VNNI"),
        ],
    )
    def test_known(self, board: Board, plant: Any, info: str, text: str) -> None:
        """Cores by their names, and the features that models gain from."""
        plant(board.proc, {"cpuinfo": info})
        finding = one(processor(board))
        assert (finding.level, finding.text) == ("ok", f"a board that does not say its name: {text}")

    def test_its_name(self, pi: Board, plant: Any) -> None:
        """The board's own name, of a PC too."""
        plant(pi.proc, {"cpuinfo": PI_4})
        assert one(processor(pi)).text.startswith("Raspberry Pi 4 Model B Rev 1.4: 2 x ")
        (pi.proc / "device-tree/model").unlink()
        plant(pi.sys, {"class/dmi/id/product_name": "NUC8"})
        assert one(processor(pi)).text.startswith("NUC8: 2 x ")

    def test_without_neon(self, board: Board, plant: Any) -> None:
        """No runtime works on the first Raspberry Pi and the first Zero."""
        plant(board.proc, {"cpuinfo": PI_ZERO})
        finding = one(processor(board))
        assert finding.level == "problem"
        assert "1 x ARM1176: without NEON no runtime works" in finding.text

    @pytest.mark.parametrize(("number", "name"), CORES.items())
    def test_every_core(self, board: Board, plant: Any, number: int, name: str) -> None:
        """Each number of the table is ARM's for this core; another maker's number means something else."""
        plant(board.proc, {"cpuinfo": PI_4.replace("0xd08", f"{number:#x}")})
        assert f"2 x {name}, " in one(processor(board)).text
        plant(board.proc, {"cpuinfo": PI_4.replace("0xd08", f"{number:#x}").replace("0x41", "0x42")})
        assert name not in one(processor(board)).text

    @pytest.mark.parametrize(("flag", "name"), FEATURES.items())
    def test_every_feature(self, board: Board, plant: Any, flag: str, name: str) -> None:
        """Each flag of the table is said by its name."""
        plant(board.proc, {"cpuinfo": f"processor : 0\nflags : fpu {flag} sse2\n"})
        assert one(processor(board)).text.endswith(f", {name}")

    def test_nothing_known(self, board: Board) -> None:
        assert one(processor(board)).text == "a board that does not say its name"


class TestAccelerators:
    @pytest.mark.parametrize(
        ("each", "ident"), [(each, ident) for each in ACCELERATORS for ident in each.usb + each.pci]
    )
    def test_every_one(self, board: Board, plant: Any, each: Any, ident: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that is plugged in is said, with what it lacks; and that models do not run on it."""
        monkeypatch.setattr(doctor_board, "LIBRARIES", (board.sys / "lib",))
        vendor, product = ident.split(":")
        if ident in each.usb:
            plant(board.sys, {"bus/usb/devices/1-1/idVendor": vendor, "bus/usb/devices/1-1/idProduct": product})
        else:
            device = "bus/pci/devices/0000:01:00.0"
            plant(board.sys, {f"{device}/vendor": f"0x{vendor}", f"{device}/device": f"0x{product}"})
        bare = one(accelerators(board))
        assert bare.level == "ok"
        assert bare.text.startswith(f"{each.name}: plugged in (no {each.library}")
        assert bare.text.endswith("models run on the processor")
        assert (f"no /dev/{each.device}" in bare.text) == bool(each.device)
        plant(board.sys, {f"lib/aarch64-linux-gnu/{each.library}": ""})
        if each.device:
            (board.dev / each.device).touch()
        assert f"({each.library} is there)" in one(accelerators(board)).text

    def test_none(self, board: Board, plant: Any) -> None:
        """Nothing is said of what is not there, nor of other devices."""
        plant(board.sys, {"bus/usb/devices/1-1/idVendor": "046d", "bus/usb/devices/1-1/idProduct": "082d"})
        assert list(accelerators(board)) == []


class TestMemory:
    @pytest.mark.parametrize(
        ("total_mb", "left_mb", "swap_mb", "level", "remedies"),
        [
            (4000, 3000, 0, "ok", 0),
            (1000, 600, 500, "ok", 0),
            (1000, 600, 0, "warning", 1),
            (4000, 100, 0, "warning", 1),
            (512, 100, 0, "warning", 2),
            (512, 40, 500, "problem", 1),
        ],
    )
    def test_levels(
        self, board: Board, plant: Any, total_mb: int, left_mb: int, swap_mb: int, level: str, remedies: int
    ) -> None:
        """Little of it left is a doubt, too little a problem; a small board without swap is a doubt."""
        kb = {"MemTotal": total_mb, "MemAvailable": left_mb, "SwapTotal": swap_mb}
        plant(board.proc, {"meminfo": "\n".join(f"{name}:  {mb * 1000} kB" for name, mb in kb.items())})
        finding = one(memory(board))
        assert (finding.level, len(finding.remedies)) == (level, remedies)

    def test_killed(self, board: Board, plant: Any) -> None:
        """Programs that the kernel ended are told."""
        plant(
            board.proc, {"meminfo": "MemTotal: 4000000 kB\nMemAvailable: 3000000 kB", "vmstat": "pgfault 7\noom_kill 2"}
        )
        first, second = memory(board)
        assert first.text == "memory: 3.1 GB of 4.1 GB left, no swap"
        assert (second.level, "2 times" in second.text) == ("warning", True)

    def test_nothing_known(self, board: Board) -> None:
        assert list(memory(board)) == []


class TestHeat:
    @pytest.mark.parametrize(
        ("degrees", "word", "level", "text"),
        [
            (51000, "0", "ok", "the processor: 51 degrees"),
            (76000, "0", "warning", "the processor: 76 degrees: warm"),
            (82000, "0", "warning", "the processor: 82 degrees: too hot"),
            (82000, "8", "warning", "slowed down now (soft temperature limit)"),
            (61000, "4", "warning", "slowed down now (throttled)"),
            (51000, "60000", "warning", "has been slowed down since it started (frequency capped, throttled)"),
            (51000, "50001", "warning", "has been slowed down since it started (throttled)"),
            (None, "6", "warning", "the processor: it is slowed down now (frequency capped, throttled)"),
        ],
    )
    def test_levels(self, board: Board, plant: Any, degrees: int | None, word: str, level: str, text: str) -> None:
        """How hot it is, and whether it slows itself down, or has done so."""
        plant(board.sys, {THROTTLED: word})
        if degrees is not None:
            plant(board.sys, {"class/thermal/thermal_zone0/temp": degrees})
        finding = one(heat(board))
        assert (finding.level, len(finding.remedies)) == (level, level != "ok")
        assert text in finding.text

    def test_frequency(self, board: Board, plant: Any) -> None:
        """With the clock, where the kernel tells it."""
        policy = "devices/system/cpu/cpufreq/policy0"
        plant(board.sys, {"class/thermal/thermal_zone0/temp": 40000, f"{policy}/scaling_cur_freq": 600000})
        plant(board.sys, {f"{policy}/cpuinfo_max_freq": 1800000})
        assert one(heat(board)).text == "the processor: 40 degrees, 600 of 1800 MHz"

    def test_nothing_known(self, board: Board) -> None:
        assert list(heat(board)) == []


class TestPower:
    @pytest.mark.parametrize(
        ("word", "level"), [("0", "ok"), ("1", "problem"), ("50005", "problem"), ("50000", "warning")]
    )
    def test_levels(self, pi: Board, plant: Any, word: str, level: str) -> None:
        """Too low a voltage is a problem now, and a doubt if it was so before; a stronger supply helps."""
        plant(pi.sys, {THROTTLED: word})
        finding = one(power(pi))
        assert (finding.level, len(finding.remedies)) == (level, level != "ok")

    def test_by_the_kernels_log(self, pi: Board, programs: Any) -> None:
        """The kernel's log remembers what its sensor forgets."""
        programs(journalctl='echo "hwmon hwmon1: Undervoltage detected!"; echo "hwmon hwmon1: Undervoltage detected!"')
        finding = one(power(pi))
        assert finding.level == "warning"
        assert finding.text.endswith("since the board started, 2 times by the kernel's log")

    @pytest.mark.parametrize("script", ["exit 1", "echo 'No entries' >&2; echo x; exit 1", "sleep 60"])
    def test_a_log_that_is_closed(self, pi: Board, programs: Any, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """What this user may not read, or takes too long, says nothing."""
        real: Callable[..., Any] = doctor_board.ask
        monkeypatch.setattr(doctor_board, "ask", lambda *command: real(*command, limit_s=0.5))
        programs(journalctl=script.replace("sleep", "/bin/sleep"))
        assert one(power(pi)).level == "ok"

    def test_other_boards(self, board: Board) -> None:
        """They do not tell."""
        assert list(power(board)) == []


class TestClock:
    @pytest.fixture
    def set_clock(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        return lambda synced: monkeypatch.setattr(doctor_board, "clock_synced", lambda: synced)

    def test_set(self, board: Board, plant: Any, set_clock: Any, programs: Any) -> None:
        """By which service; with a battery there is nothing else to say."""
        set_clock(True)
        (board.sys / "class/rtc/rtc0").mkdir(parents=True)
        programs(systemctl='[ "$1" = is-active ] && printf "inactive\\nactive\\ninactive\\n"; exit 3')
        finding = one(clock(board))
        assert finding == Finding("ok", "the clock is set by a time service (chrony)")

    def test_not_set(self, board: Board, set_clock: Any) -> None:
        """A doubt, with the command that sets it; without a battery that is said."""
        set_clock(False)
        finding = one(clock(board))
        assert (finding.level, len(finding.details)) == ("warning", 1)
        assert "timedatectl set-ntp true" in finding.remedies[0]

    def test_years_back(self, board: Board, set_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A clock that began in 1970 is a problem."""
        set_clock(False)
        monkeypatch.setattr(time, "gmtime", lambda: time.struct_time((1970, 1, 1, 0, 0, 0, 3, 1, 0)))
        finding = one(clock(board))
        assert (finding.level, "1970" in finding.text) == ("problem", True)


def test_a_frozen_board_is_whole(board: Board) -> None:
    """Nothing of this machine is seen through a frozen tree."""
    for part in (accelerators, memory, heat, power):
        assert list(part(replace(board))) == []
