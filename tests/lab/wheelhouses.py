"""Wheelhouses for a container's Debian: the checkout's own, and others of it with something in the project's wheel altered."""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from lab.container import ROOT, locked

HOUSES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-runner" / "wheelhouse"
PYTHON = "3.11"
"""Bookworm's."""
MAKE_S = 1800


def make_wheelhouse(*options: object, root: Path = ROOT, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a checkout's scripts/make_wheelhouse.sh."""
    command = [str(root / "scripts" / "make_wheelhouse.sh"), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=MAKE_S, check=check)


def wheelhouse(folder: Path) -> Path:
    """A copy of this checkout's, for this machine's processor and the container's Python; it is kept between runs."""
    house = HOUSES / f"{platform.machine()}-py{PYTHON}"
    done = make_wheelhouse("--platform", platform.machine(), "--python", PYTHON, "--output", house, check=False)
    if done.returncode:
        pytest.fail(f"no wheelhouse: {done.stderr}", pytrace=False)
    with locked(HOUSES):  # as the script does: another run may make it anew at any time
        shutil.copytree(house, folder)
    return folder


def altered(house: Path, folder: Path, version: str, appended: Mapping[str, str] = {}) -> Path:
    """A copy of a wheelhouse, in `folder`, whose project has another version, and these lines at the end of its files."""
    shutil.copytree(house, folder)
    (old,) = (folder / "wheels").glob("edge_runner-*.whl")
    before = old.name.split("-")[1]
    new = old.with_name(old.name.replace(before, version))
    with zipfile.ZipFile(old) as source, zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as target:
        record = ""
        for was in source.namelist():
            content, name = source.read(was).decode() + appended.get(was, ""), was.replace(before, version)
            if name.endswith(("/METADATA", "edge_runner/__init__.py")):
                content = content.replace(before, version)
            if name.endswith("/RECORD"):  # the last one
                content = f"{record}{name},,\n"
            target.writestr(name, content)
            record += f"{name},sha256={_recorded(content)},{len(content.encode())}\n"
    _requires(folder, old, new, before, version)
    old.unlink()
    return seal(folder)


def seal(folder: Path) -> Path:
    """Write SHA256SUMS anew, so that what was altered is not damaged."""
    files = sorted(each for each in folder.rglob("*") if each.is_file() and each.name != "SHA256SUMS")
    lines = [f"{_sha256(each)}  {each.relative_to(folder)}\n" for each in files]
    (folder / "SHA256SUMS").write_text("".join(lines))
    return folder


def name_of(house: Path) -> str:
    """What the version is called on a board: VERSION-HASH8."""
    facts = dict(line.split("=", 1) for line in (house / "WHEELHOUSE").read_text().splitlines())
    return f"{facts['version']}-{_sha256(house / 'SHA256SUMS')[:8]}"


def _requires(folder: Path, old: Path, new: Path, before: str, version: str) -> None:
    for file, pairs in {
        "requirements.txt": {f"=={before} ": f"=={version} ", _sha256(old): _sha256(new)},
        "WHEELHOUSE": {f"version={before}\n": f"version={version}\n"},
    }.items():
        text = (folder / file).read_text()
        for was, becomes in pairs.items():
            assert text.count(was) == 1, (file, was)
            text = text.replace(was, becomes)
        (folder / file).write_text(text)


def _recorded(content: str) -> str:
    """A hash as wheels write it."""
    return base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).decode().rstrip("=")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
