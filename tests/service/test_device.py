"""What the board says of itself, from trees of files as kernels and firmwares lay them out."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runner.service.device import (
    Vitals,
    clock_synced,
    disk_free,
    memory_available,
    temperature_c,
    vitals,
)

MB = 1 << 20
GROUP = "/system.slice/edge-runner.slice/edge-runner@door.service"


def plant(root: Path, files: dict[str, str | int]) -> Path:
    """A tree of small files, each with its line end, as the kernel has them."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


@pytest.mark.parametrize(
    ("content", "degrees"), [("51540\n", 51.54), ("-5000\n", -5.0), ("", None), ("hot\n", None), (None, None)]
)
def test_temperature(tmp_path: Path, content: str | None, degrees: float | None) -> None:
    """Linux says it in thousandths of a degree; where it says nothing, or nonsense, nothing is known."""
    zone = tmp_path / "class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    if content is not None:
        (zone / "temp").write_text(content)
    assert temperature_c(tmp_path) == degrees


@pytest.mark.parametrize(
    "kind",
    [
        "cpu-thermal", "cpu_thermal", "CPU-therm", "cpu0-thermal", "bcm2835_thermal", "soc-thermal", "soc_thermal",
        "package-thermal", "bigcore0-thermal", "imx_thermal_zone", "x86_pkg_temp", "acpitz", "k10temp",
    ],
)  # fmt: skip
def test_the_processor_s_zone(tmp_path: Path, kind: str) -> None:
    """Of several zones it is the processor's, wherever it stands and whatever it is called."""
    others = {"class/thermal/thermal_zone0/type": "gpu-thermal", "class/thermal/thermal_zone0/temp": 30000}
    plant(tmp_path, {**others, "class/thermal/thermal_zone10/type": kind, "class/thermal/thermal_zone10/temp": 61000})
    assert temperature_c(tmp_path) == 61.0


def test_the_best_zone(tmp_path: Path) -> None:
    """The cores' own zone comes before that of the mainboard, and the first core's before the tenth's."""
    zones = {0: ("acpitz", 27800), 2: ("cpu0-thermal", 50000), 10: ("cpu1-thermal", 99000)}
    for number, (kind, degrees) in zones.items():
        zone = f"class/thermal/thermal_zone{number}"
        plant(tmp_path, {f"{zone}/type": kind, f"{zone}/temp": degrees})
    assert temperature_c(tmp_path) == 50.0


def test_frequency(tmp_path: Path) -> None:
    """Of a board with two kinds of cores it is the fast ones'; the kernel says it in kHz."""
    cpufreq = "devices/system/cpu/cpufreq"
    plant(
        tmp_path,
        {
            f"{cpufreq}/policy0/cpuinfo_max_freq": 1800000,
            f"{cpufreq}/policy0/scaling_cur_freq": 1800000,
            f"{cpufreq}/policy4/cpuinfo_max_freq": 2400000,
            f"{cpufreq}/policy4/scaling_cur_freq": 600000,
        },
    )
    assert vitals(tmp_path) == Vitals(frequency_mhz=600.0, frequency_max_mhz=2400.0)


@pytest.mark.parametrize(
    ("word", "now", "since_boot"),
    [
        ("0", set(), set()),
        ("1", {"under_voltage"}, {"under_voltage"}),
        ("2", {"frequency_capped"}, {"frequency_capped"}),
        ("4", {"throttled"}, {"throttled"}),
        ("8", {"soft_temperature_limit"}, {"soft_temperature_limit"}),
        ("10000", set(), {"under_voltage"}),
        ("20000", set(), {"frequency_capped"}),
        ("40000", set(), {"throttled"}),
        ("80000", set(), {"soft_temperature_limit"}),
        ("0x50005", {"under_voltage", "throttled"}, {"under_voltage", "throttled"}),
        ("e0008", {"soft_temperature_limit"}, {"soft_temperature_limit", "throttled", "frequency_capped"}),
        ("nonsense", set(), set()),
    ],
)
@pytest.mark.parametrize("soc", ["soc", "soc@107c000000"])
def test_throttling(tmp_path: Path, soc: str, word: str, now: set[str], since_boot: set[str]) -> None:
    """Each bit of the firmware's word has its name; what is now has been since boot, too. A Pi 5 keeps it elsewhere."""
    plant(tmp_path, {f"devices/platform/{soc}/{soc}:firmware/get_throttled": word})
    board = vitals(tmp_path)
    assert (board.throttling, board.throttled_since_boot) == (now, since_boot)


@pytest.mark.parametrize(
    ("name", "alarm", "low"),
    [("rpi_volt", 1, True), ("raspberrypi", 1, True), ("rpi_volt", 0, False), ("adc", 1, False)],
)
def test_under_voltage_by_hwmon(tmp_path: Path, name: str, alarm: int, low: bool) -> None:
    """Where the kernel has no file of the firmware's word, its voltage sensor says it; other sensors mean other things."""
    plant(tmp_path, {"class/hwmon/hwmon1/name": name, "class/hwmon/hwmon1/in0_lcrit_alarm": alarm})
    assert vitals(tmp_path).throttling == ({"under_voltage"} if low else set())


def test_a_board_that_says_nothing(tmp_path: Path) -> None:
    """Nothing is known then, and nothing is wrong."""
    assert vitals(tmp_path / "none") == Vitals()


def meminfo(root: Path, available_mb: int, group: str = "0::/") -> Path:
    return plant(
        root / "proc",
        {"meminfo": f"MemTotal: 1 kB\nMemAvailable:   {available_mb * 1024} kB\nCached: 9 kB", "self/cgroup": group},
    )


def test_memory(tmp_path: Path) -> None:
    """What the kernel calls available; None where there is no telling."""
    assert memory_available(meminfo(tmp_path, 300), tmp_path / "sys") == 300 * MB
    assert memory_available(tmp_path / "none", tmp_path / "sys") is None


@pytest.mark.parametrize("limited", [GROUP, "/system.slice/edge-runner.slice", "/system.slice", ""])
@pytest.mark.parametrize("mount", ["fs/cgroup", "fs/cgroup/unified"])
def test_memory_of_a_group(tmp_path: Path, mount: str, limited: str) -> None:
    """A service has what its limit leaves, or that of any group around it; what is only cached counts as room."""
    proc = meminfo(tmp_path, 300, f"4:cpu:{GROUP}\n0::{GROUP}")
    sys = plant(
        tmp_path / "sys",
        {
            f"{mount}{GROUP}/memory.max": "max",
            f"{mount}{GROUP}/memory.current": 90 * MB,
            f"{mount}{limited}/memory.max": 128 * MB,
            f"{mount}{limited}/memory.current": 100 * MB,
            f"{mount}{limited}/memory.stat": f"anon 5\ninactive_file {12 * MB}\nactive_file 7",
        },
    )
    assert memory_available(proc, sys) == 40 * MB


def test_memory_of_an_old_group(tmp_path: Path) -> None:
    """Control groups of version 1 have other names for it, and a huge number where there is no limit."""
    proc = meminfo(tmp_path, 300, f"9:name=systemd:/x\n4:memory:{GROUP}\n0::/")
    group = f"fs/cgroup/memory{GROUP}"
    sys = plant(
        tmp_path / "sys",
        {
            "fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
            "fs/cgroup/memory/memory.usage_in_bytes": 400 * MB,
            f"{group}/memory.limit_in_bytes": 64 * MB,
            f"{group}/memory.usage_in_bytes": 50 * MB,
            f"{group}/memory.stat": f"inactive_file 1\ntotal_inactive_file {6 * MB}",
        },
    )
    assert memory_available(proc, sys) == 20 * MB


def test_memory_of_a_group_with_room(tmp_path: Path) -> None:
    """A limit above what the board has left is none; a group over its limit has nothing left, and not less."""
    files = {"fs/cgroup/memory.max": 4000 * MB, "fs/cgroup/memory.current": 10 * MB}
    assert memory_available(meminfo(tmp_path, 300), plant(tmp_path / "sys", files)) == 300 * MB
    files["fs/cgroup/memory.current"] = 4001 * MB
    assert memory_available(meminfo(tmp_path, 300), plant(tmp_path / "sys", files)) == 0


def test_disk(mount_tmpfs: Callable[[str], Path]) -> None:
    """The room on the file system that a path is on, also where the path is only to be made; none on a read-only one."""
    disk = mount_tmpfs("8m")
    assert disk_free(disk) == 8 * MB
    (disk / "log").write_bytes(b"x" * MB)
    assert disk_free(disk / "not" / "yet" / "there") == 7 * MB
    assert disk_free(disk / "log" / "below-a-file") == 7 * MB
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert disk_free(disk) == 0


def test_a_disk_that_cannot_be_asked(tmp_path: Path) -> None:
    """Where the way to it goes round in circles, nothing is known."""
    (tmp_path / "loop").symlink_to("loop")
    assert disk_free(tmp_path / "loop" / "x") is None
    assert disk_free(tmp_path) == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.5)


def test_of_this_machine() -> None:
    """Everything can be asked anywhere."""
    assert isinstance(clock_synced(), bool)
    assert temperature_c() is None or -50 < temperature_c() < 150
    board = vitals()
    assert board.frequency_mhz is None or 10 < board.frequency_mhz < 20000
    room = memory_available()
    assert room is not None
    assert room > MB
