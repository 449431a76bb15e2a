"""The doctor's look at the board itself: processor, accelerators, memory, heat and power."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from edge_runner.service.device import Vitals, clock_synced, vitals
from edge_runner.service.health import HOT_C
from edge_runner.tools.doctor import Board, Finding, ask, megabytes, text_of

# What the parts of an ARM processor are called. Source: arch/arm64/include/asm/cputype.h of Linux, and ARM's manuals for the older.
ARM = 0x41
CORES = {
    0xB76: "ARM1176",
    0xC07: "Cortex-A7",
    0xC08: "Cortex-A8",
    0xC09: "Cortex-A9",
    0xC0F: "Cortex-A15",
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0D: "Cortex-A77",
    0xD41: "Cortex-A78",
}

# The features that models gain from, as /proc/cpuinfo has them. Source: Linux, Documentation/arch/arm64/elf_hwcaps.rst,
# arch/arm/kernel/setup.c and arch/x86/include/asm/cpufeatures.h.
FEATURES = {
    "neon": "NEON",
    "asimd": "NEON",
    "asimdhp": "half floats",
    "asimddp": "dot products",
    "i8mm": "int8 matrices",
    "avx": "AVX",
    "avx2": "AVX2",
    "fma": "FMA",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx_vnni": "VNNI",
}
NEEDED = {"armv6l": "NEON", "armv7l": "NEON"}  # what every runtime for these machines is built with


class Accelerator(NamedTuple):
    """A device that runs models: its identity on USB or PCI (vendor:product), its kernel device, and the library that it takes."""

    name: str
    usb: tuple[str, ...] = ()
    pci: tuple[str, ...] = ()
    device: str = ""
    library: str = ""


# Source: the udev rules of libedgetpu (edgetpu-accelerator.rules), the gasket driver, and HailoRT's PCIe driver.
ACCELERATORS = (
    Accelerator("Coral USB accelerator", usb=("1a6e:089a", "18d1:9302"), library="libedgetpu.so.1"),
    Accelerator("Coral PCIe accelerator", pci=("1ac1:089a",), device="apex_0", library="libedgetpu.so.1"),
    Accelerator("Hailo accelerator", pci=("1e60:2864",), device="hailo0", library="libhailort.so"),
)
LIBRARIES = (Path("/usr/lib"), Path("/usr/local/lib"), Path("/lib"))

LEAST_BYTES, LITTLE_BYTES = 60_000_000, 150_000_000  # of memory: a daemon with a small model has about 110 MB
SMALL_BOARD_BYTES = 1_200_000_000

WARM_C = 75.0  # not yet service.health's HOT_C
COOL = "a heat sink, a fan, or a cooler place; `max_fps` in the configuration spares the processor"
SUPPLY = (
    "a power supply and a cable that hold 5.1 V: the board's own (3 A for a Pi 4, 5 A for a Pi 5), and a hub with its own"
    " power for what hangs on USB"
)
OLDEST_YEAR = 2025  # this program is not older
TIME_SERVICES = ("systemd-timesyncd", "chrony", "chronyd", "ntpsec", "ntp", "ntpd", "openntpd")
SET_CLOCK = (
    "sudo timedatectl set-ntp true; where that is refused, before it: sudo apt install systemd-timesyncd",
    "without a way out of this network: NTP=SERVER, one of its own, in /etc/systemd/timesyncd.conf",
)


def processor(board: Board) -> Iterator[Finding]:
    """What it is, how many cores, and the features that matter."""
    info = text_of(board.proc / "cpuinfo")
    machine = _machine(info)
    has = _features(info)
    cores = len(re.findall(r"^processor\s*:", info, re.MULTILINE))
    name = board.model() or "a board that does not say its name"
    text = ", ".join(filter(None, [f"{name}: {cores} x {_core(info)}" if cores else name, *has]))
    missing = NEEDED.get(machine)
    if missing and missing not in has:
        remedy = "a Raspberry Pi Zero 2, 2, 3 or newer: runtimes are built for processors with it"
        yield Finding("problem", f"{text}: without {missing} no runtime works", (), (remedy,))
    else:
        yield Finding("ok", text)


def accelerators(board: Board) -> Iterator[Finding]:
    """Those that are plugged in; nothing is said where there is none."""
    usb = {f"{text_of(d / 'idVendor')}:{text_of(d / 'idProduct')}" for d in (board.sys / "bus/usb/devices").glob("*")}
    pci = {_pci(d) for d in (board.sys / "bus/pci/devices").glob("*")}
    for each in ACCELERATORS:
        if usb.intersection(each.usb) or pci.intersection(each.pci):
            yield _accelerator(each, board)


def memory(board: Board) -> Iterator[Finding]:
    """What is there and what is left, of swap too; and whether programs were ended for lack of it."""
    info = {name: int(number) * 1024 for name, number in _table(text_of(board.proc / "meminfo"), ":").items()}
    if "MemAvailable" not in info:
        return
    total, left, swap = info.get("MemTotal", 0), info["MemAvailable"], info.get("SwapTotal", 0)
    text = f"memory: {megabytes(left)} of {megabytes(total)} left, {megabytes(swap) if swap else 'no'} swap"
    remedies = []
    if left < LITTLE_BYTES:
        remedies.append("ps -eo rss,args --sort=-rss | head shows what takes it; a smaller model takes less")
    if total < SMALL_BOARD_BYTES and not swap:
        remedies.append(
            "sudo apt install systemd-zram-generator: swap in compressed memory, which does not wear the card"
        )
    yield Finding("problem" if left < LEAST_BYTES else "warning" if remedies else "ok", text, (), tuple(remedies))
    killed = int(_table(text_of(board.proc / "vmstat"), " ").get("oom_kill", 0))
    if killed:
        what = "once" if killed == 1 else f"{killed} times"
        remedy = "journalctl -k -g 'out of memory' says which"
        yield Finding(
            "warning", f"the kernel has ended a program for lack of memory, {what} since it started", (), (remedy,)
        )


def heat(board: Board) -> Iterator[Finding]:
    """The processor's temperature, and whether it slows itself down."""
    found = vitals(board.sys)
    slowed = found.throttling - {"under_voltage"}
    before = found.throttled_since_boot - {"under_voltage"}
    if found.temperature_c is None and not before:
        return
    text = f"{_heat(found)}{_clocked(found)}"
    if slowed:
        yield Finding("warning", f"{text}: it is slowed down now ({_words(slowed)})", (), (COOL,))
    elif found.temperature_c is not None and found.temperature_c >= HOT_C:
        yield Finding("warning", f"{text}: too hot, and soon it slows itself down", (), (COOL,))
    elif before or (found.temperature_c is not None and found.temperature_c >= WARM_C):
        has_been = f": it has been slowed down since it started ({_words(before)})" if before else ": warm"
        yield Finding("warning", f"{text}{has_been}", (), (COOL,))
    else:
        yield Finding("ok", text)


def power(board: Board) -> Iterator[Finding]:
    """Whether the voltage is too low, or was. Only a Raspberry Pi tells."""
    found = vitals(board.sys)
    if "under_voltage" in found.throttling:
        text = "the voltage is too low just now: that damages what is on the card, and cameras drop out"
        yield Finding("problem", text, (), (SUPPLY,))
        return
    times = _low_times(board)
    if times or "under_voltage" in found.throttled_since_boot:
        often = f", {times} times by the kernel's log" if times else ""
        yield Finding("warning", f"the voltage has been too low since the board started{often}", (), (SUPPLY,))
    elif board.is_pi():
        yield Finding("ok", "power: the voltage is right, and was since the board started")


def clock(board: Board) -> Iterator[Finding]:
    """Whether a time service has set it, which one, and whether it runs on without power."""
    battery = any((board.sys / "class/rtc").glob("rtc*"))
    year = time.gmtime().tm_year
    service = _time_service()
    text = (
        f"the clock is {'set' if clock_synced() else 'not set'} by a time service{f' ({service})' if service else ''}"
    )
    details = (
        () if battery else ("no clock with a battery: after a power cut it is wrong until the network has told it",)
    )
    if year < OLDEST_YEAR:
        yield Finding(
            "problem", f"the clock says {year}: certificates fail, and results have wrong times", details, SET_CLOCK
        )
    elif clock_synced():
        yield Finding("ok", text, details)
    else:
        yield Finding("warning", f"{text}: results say `unsynced`", details, SET_CLOCK)


def _low_times(board: Board) -> int:
    """By the kernel's log: newer kernels keep no other memory of it."""
    if not board.is_pi():
        return 0
    said = ask("journalctl", "-k", "-b", "-q", "--no-pager", "-o", "cat", "-g", "nder-?voltage detected")
    return len(said.out.splitlines()) if said and said.code == 0 else 0


def _time_service() -> str:
    """The one that runs, where systemd can tell."""
    said = ask("systemctl", "is-active", *TIME_SERVICES)
    states = said.out.split() if said else []
    return next((name for name, state in zip(TIME_SERVICES, states, strict=False) if state == "active"), "")


def _machine(info: str) -> str:
    """armv6l and armv7l by the kernel's number; empty elsewhere."""
    found = re.search(r"^CPU architecture\s*:\s*(\d+)", info, re.MULTILINE)
    if not found or int(found[1]) >= 8:
        return ""
    return "armv6l" if "ARMv6" in info else "armv7l"


def _features(info: str) -> list[str]:
    found = re.search(r"^(?:Features|flags)\s*:(.*)", info, re.MULTILINE)
    flags = found[1].split() if found else []
    return list(dict.fromkeys(name for flag, name in FEATURES.items() if flag in flags))


def _core(info: str) -> str:
    """An ARM core by its number, anything else by its own words."""
    makers = re.findall(r"^CPU implementer\s*:\s*(\w+)", info, re.MULTILINE)
    parts = re.findall(r"^CPU part\s*:\s*(\w+)", info, re.MULTILINE)
    named = [CORES.get(int(part, 16)) for maker, part in zip(makers, parts, strict=False) if int(maker, 16) == ARM]
    if any(named):
        return " and ".join(dict.fromkeys(name for name in named if name))
    found = re.search(r"^model name\s*:\s*(.+)", info, re.MULTILINE)
    return found[1].strip() if found else "a processor without a name"


def _pci(device: Path) -> str:
    ids = (text_of(device / name).removeprefix("0x") for name in ("vendor", "device"))
    return ":".join(ids)


def _accelerator(each: Accelerator, board: Board) -> Finding:
    there = any(
        next(root.glob(pattern), None) for root in LIBRARIES for pattern in (f"{each.library}*", f"*/{each.library}*")
    )
    lacks = [f"no {each.library}"] if not there else []
    if each.device and not (board.dev / each.device).exists():
        lacks.append(f"no /dev/{each.device}: its driver is not loaded")
    with_what = f" ({', '.join(lacks)})" if lacks else f" ({each.library} is there)"
    return Finding("ok", f"{each.name}: plugged in{with_what}; models run on the processor")


def _table(text: str, separator: str) -> Mapping[str, str]:
    """`name: 12 kB` or `name 12`, a line each."""
    rows = (line.partition(separator) for line in text.splitlines())
    return {
        name.strip(): number.split()[0] for name, _, number in rows if number.split() and number.split()[0].isdigit()
    }


def _heat(found: Vitals) -> str:
    return "the processor" if found.temperature_c is None else f"the processor: {found.temperature_c:.0f} degrees"


def _clocked(found: Vitals) -> str:
    if found.frequency_mhz is None or found.frequency_max_mhz is None:
        return ""
    return f", {found.frequency_mhz:.0f} of {found.frequency_max_mhz:.0f} MHz"


def _words(states: frozenset[str]) -> str:
    return ", ".join(sorted(states)).replace("_", " ")
