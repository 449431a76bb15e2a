"""Gathers the wheels that the project's wheel needs on another machine, and writes their versions and hashes.

pip chooses wheels for another machine, but judges the conditions of dependencies by this one. So what the wheels ask for is read
here, and pip is asked again until nothing is missing.
"""

from __future__ import annotations

import argparse
import email
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name, parse_wheel_filename

PROJECT = canonicalize_name("edge-runner")
EXTRAS = ("mqtt",)
INSTALLER = "pip"
"""The board installs with the pip that is brought along: Debian's may be missing."""
GLIBC_MINORS = range(17, 36)
"""manylinux_2_17 to 2_35, which is Ubuntu 22.04's; the oldest of the boards."""
OF_DEBIAN = {"armv7l": {"numpy", "opencv-python-headless", "pyyaml"}}
"""What has no wheels for a platform, and comes from apt there."""
MOST_ROUNDS = 8


class Missing(Exception):
    """There are no wheels for this machine, or none that agree."""


def main() -> int:
    """Complete FOLDER/wheels, which has the project's wheel, and write FOLDER/requirements.txt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--platform", required=True)
    parser.add_argument("--python", required=True)
    parser.add_argument("--offline", action="store_true")
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    wheels = args.folder / "wheels"
    try:
        needed = gather(wheels, Target(args.platform, args.python), args.offline)
    except Missing as error:
        print(f"edge-runner: error: {error}", file=sys.stderr)
        return 1
    lines = [f"{pin(wheel)} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n" for wheel in needed]
    (args.folder / "requirements.txt").write_text("".join(sorted(lines)))
    return 0


class Target:
    """The machine that wheels are for: what pip calls it, and what the wheels' conditions ask about it."""

    def __init__(self, platform: str, python: str) -> None:
        self.platform, self.python = platform, python
        abi = f"cp{python.replace('.', '')}"
        tags = [f"manylinux_2_{minor}_{platform}" for minor in reversed(GLIBC_MINORS)] + [f"manylinux2014_{platform}"]
        self.options = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
        self.options += [f"--abi={each}" for each in (abi, "abi3", "none")] + [f"--platform={tag}" for tag in tags]
        self.environment = {
            "implementation_name": "cpython", "implementation_version": f"{python}.0", "os_name": "posix",
            "platform_machine": platform, "platform_python_implementation": "CPython", "platform_release": "",
            "platform_system": "Linux", "platform_version": "", "python_full_version": f"{python}.0",
            "python_version": python, "sys_platform": "linux",
        }  # fmt: skip

    def __str__(self) -> str:
        return f"{self.platform} and Python {self.python}"

    def wants(self, wheel: Path, extras: tuple[str, ...]) -> list[Requirement]:
        """What the wheel asks for there."""
        asked = map(Requirement, metadata(wheel).get_all("Requires-Dist") or [])
        return [
            each
            for each in asked
            if self._holds(each, extras) and each.name.lower() not in OF_DEBIAN.get(self.platform, ())
        ]

    def _holds(self, asked: Requirement, extras: tuple[str, ...]) -> bool:
        return asked.marker is None or any(
            asked.marker.evaluate({**self.environment, "extra": extra}) for extra in ("", *extras)
        )


def gather(folder: Path, target: Target, offline: bool) -> list[Path]:
    """Complete the folder's wheels, remove what nobody asks for, and return those to be installed."""
    asked: set[str] = set()
    for _ in range(MOST_ROUNDS):
        needed, missing = closure(folder, target)
        if not missing and list(folder.glob(f"{INSTALLER}-*.whl")):
            break
        if offline:
            raise Missing(f"{folder} lacks {', '.join(map(bare, missing)) or INSTALLER}; remove it, and try again")
        asked |= {INSTALLER, *map(bare, missing)}
        download(folder, target, asked)
    else:
        raise Missing(f"the wheels for {target} cannot agree on {', '.join(map(bare, missing))}")
    for wheel in set(folder.glob("*.whl")) - set(needed):
        if name_of(wheel) != INSTALLER:
            wheel.unlink()
    return needed


def closure(folder: Path, target: Target) -> tuple[list[Path], list[Requirement]]:
    """The wheels that the project needs, itself first, and what is asked for that no wheel there satisfies."""
    there = {name_of(wheel): wheel for wheel in folder.glob("*.whl")}
    needed, missing = [PROJECT], list[Requirement]()
    extras_of: dict[NormalizedName, tuple[str, ...]] = {PROJECT: EXTRAS}
    for name in needed:
        for asked in target.wants(there[name], extras_of[name]):
            found = canonicalize_name(asked.name)
            if found not in there or not asked.specifier.contains(
                parse_wheel_filename(there[found].name)[1], prereleases=True
            ):
                missing.append(asked)
            elif found not in needed:
                needed.append(found)
                extras_of[found] = tuple(asked.extras)
    return [there[name] for name in needed], missing


def download(folder: Path, target: Target, asked: set[str]) -> None:
    """All that is known to be asked for, at once and anew, so that pip finds versions that agree."""
    for wheel in folder.glob("*.whl"):
        if name_of(wheel) != PROJECT:
            wheel.unlink()
    command = [sys.executable, "-I", "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += [
        "--dest",
        str(folder),
        *target.options,
        *(["--no-deps"] if target.platform in OF_DEBIAN else []),
        *sorted(asked),
    ]
    done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        said = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        raise Missing(f"no wheels for {target}: {said[-1] if said else done.stderr.strip()}")


def bare(asked: Requirement) -> str:
    """Without its condition, which holds."""
    extras = f"[{','.join(sorted(asked.extras))}]" if asked.extras else ""
    return f"{asked.name}{extras}{asked.specifier}"


def pin(wheel: Path) -> str:
    """The line that asks for this version and no other."""
    name, version, *_ = parse_wheel_filename(wheel.name)
    return f"{name}{'[' + ','.join(EXTRAS) + ']' if name == PROJECT else ''}=={version}"


def name_of(wheel: Path) -> NormalizedName:
    """As pip compares names."""
    return parse_wheel_filename(wheel.name)[0]


def metadata(wheel: Path) -> email.message.Message:
    """What the wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA") and each.count("/") == 1)
        return email.message_from_bytes(archive.read(name))


if __name__ == "__main__":
    raise SystemExit(main())
