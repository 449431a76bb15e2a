"""What this board says of itself: heat, power, memory, disk, clock. Cheap enough for every few seconds, and nothing here raises."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SYS, PROC = Path("/sys"), Path("/proc")
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
TIMEX_BYTES = 512  # more than struct timex has anywhere

# What boards call the processor's thermal zone, best first. From the device trees and drivers of Linux 6.
CPU_ZONES = tuple(
    re.compile(words, re.IGNORECASE)
    for words in (
        r"cpu[-_]?\d*[-_](thermal|therm)",  # Raspberry Pi, Allwinner, Rockchip, NXP, Qualcomm, Jetson
        r"bcm2835_thermal",                 # Raspberry Pi, before Linux 4.19
        r"(soc|package|bigcore\d*)[-_]thermal",  # Rockchip RK3588, Amlogic
        r"imx_thermal_zone",                # NXP i.MX 6
        r"x86_pkg_temp",                    # Intel
        r"(acpitz|k10temp)",                # other PCs
    )
)  # fmt: skip

# The bits of the firmware's GET_THROTTLED: `now`, and the same 16 bits higher for what has been.
# Source: Raspberry Pi documentation, os.html#get_throttled.
THROTTLED = {
    0: "under_voltage",
    1: "frequency_capped",
    2: "throttled",
    3: "soft_temperature_limit",
}
HAS_BEEN = 16

# The firmware's word, where the kernel passes it on: `soc:firmware`, `soc@107c000000:firmware` on a Pi 5.
FIRMWARE = "devices/platform/soc*/soc*:firmware/get_throttled"
# The kernel's own driver for it: drivers/hwmon/raspberrypi-hwmon.c names its device so, and asks the firmware every two seconds.
HWMON = ("rpi_volt", "raspberrypi")


@dataclass(frozen=True)
class Vitals:
    """The processor's heat and clock, and what the firmware of a Raspberry Pi does about heat and power.

    `frequency_mhz` is now, and `frequency_max_mhz` the most, of the fastest cores. None where the board does not say.
    `throttling` is now, a subset of under_voltage, frequency_capped, throttled and soft_temperature_limit;
    `throttled_since_boot` the same for as long back as the kernel remembers: newer ones forget within seconds.
    """

    temperature_c: float | None = None
    frequency_mhz: float | None = None
    frequency_max_mhz: float | None = None
    throttling: frozenset[str] = frozenset()
    throttled_since_boot: frozenset[str] = frozenset()


def vitals(sys: Path = SYS) -> Vitals:
    """All of it, from a few small files."""
    now, maximum = _frequencies(sys)
    word = _throttled(sys)
    return Vitals(temperature_c(sys), now, maximum, _named(word), _named(word | word >> HAS_BEEN))


def clock_synced() -> bool:
    """Whether the kernel says that the clock is set by a time service (adjtimex(2)); False where it does not say."""
    adjtimex = _adjtimex()
    if adjtimex is None:
        return False
    state = adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    return 0 <= state < TIME_ERROR


def temperature_c(sys: Path = SYS) -> float | None:
    """Of the processor, in degrees Celsius; None where the board does not say."""
    degrees = _number(_zone(sys) / "temp")
    return None if degrees is None else degrees / 1000


def memory_available(proc: Path = PROC, sys: Path = SYS) -> int | None:
    """Bytes that this process can still have: of the board, or of the smallest control group around it that has a limit."""
    rooms = [_mem_available(proc), *_group_rooms(proc, sys)]
    return min((room for room in rooms if room is not None), default=None)


def disk_free(path: Path) -> int | None:
    """Bytes that can be written on the file system of `path`, or of its nearest parent that is there; None: no telling.

    What is kept back for root does not count, also for root: the daemon is another user.
    """
    for place in (path.absolute(), *path.absolute().parents):
        try:
            disk = os.statvfs(place)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return None
        return 0 if disk.f_flag & os.ST_RDONLY else disk.f_frsize * disk.f_bavail
    return None


@functools.cache
def _adjtimex() -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), "adjtimex", None)


def _zone(sys: Path) -> Path:
    """The processor's thermal zone: a board with one zone need not name it."""
    root = sys / "class/thermal"
    kinds = {zone: _text(zone / "type") for zone in sorted(root.glob("thermal_zone*"), key=_by_number)}
    named = (zone for words in CPU_ZONES for zone, kind in kinds.items() if words.fullmatch(kind))
    return next(named, root / "thermal_zone0")


def _frequencies(sys: Path) -> tuple[float | None, float | None]:
    """Now and at most, in MHz, of the policy (a group of equal cores) that can be the fastest."""
    policies = [
        (_number(policy / "cpuinfo_max_freq") or 0, _number(policy / "scaling_cur_freq"))
        for policy in (sys / "devices/system/cpu/cpufreq").glob("policy*")
    ]
    most, now = max(policies, key=lambda policy: policy[0], default=(0, None))
    return now and now / 1000, most / 1000 or None


def _throttled(sys: Path) -> int:
    """The firmware's bits; 0 where there is no such firmware."""
    word = 0
    for path in sys.glob(FIRMWARE):
        word |= _number(path, 16) or 0
    for device in (sys / "class/hwmon").glob("hwmon*"):
        if _text(device / "name") in HWMON and _number(device / "in0_lcrit_alarm"):
            word |= 1
    return word


def _named(word: int) -> frozenset[str]:
    return frozenset(name for bit, name in THROTTLED.items() if word >> bit & 1)


def _mem_available(proc: Path) -> int | None:
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", _text(proc / "meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _group_rooms(proc: Path, sys: Path) -> Iterator[int]:
    """What each control group around this process leaves it. Its page cache counts as room: the kernel takes that back first."""
    root = sys / "fs/cgroup"
    for line in _text(proc / "self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if "memory" in controllers.split(","):
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _rooms(root / "memory", group, *files)
        elif number == "0":
            for mount in (root, root / "unified"):
                yield from _rooms(mount, group, "memory.max", "memory.current", "inactive_file")


def _rooms(mount: Path, group: str, limit: str, used: str, cache: str) -> Iterator[int]:
    """One figure for each group on the way up that has a limit; in a container the way up may begin above the mount."""
    way = mount / group.strip("/")
    for place in (way, *way.parents):
        most, now = _number(place / limit), _number(place / used)
        if most is not None and now is not None:
            found = re.search(rf"^{cache} (\d+)$", _text(place / "memory.stat"), re.MULTILINE)
            yield max(0, most - now + (int(found[1]) if found else 0))
        if place == mount:
            return


def _by_number(path: Path) -> int:
    digits = path.name.removeprefix("thermal_zone")
    return int(digits) if digits.isdigit() else 0


def _number(path: Path, base: int = 10) -> int | None:
    try:
        return int(_text(path), base)
    except ValueError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
