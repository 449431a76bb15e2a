"""scripts/test_arm.sh fails where it should: a build that is wrong on purpose, a wheel that is missing, a machine that cannot."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from edge_runner.model.bundle import GOLDENS, MANIFEST, read_manifest, sha256_of
from edge_runner.model.goldens import read_goldens

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 600
BUNDLE = "examples/digits/models/digits-int8"
STEP = 1 / 256  # of its output
WHEELS = (
    "numpy-1.26.4-py3-none-any",
    "opencv_python_headless-4.11.0.86-py3-none-any",
    "pyyaml-6.0.3-py3-none-any",
    "tflite_runtime-2.14.0-cp311-cp311-manylinux_2_34_x86_64",  # of another processor
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project, with the environment of its tests."""
    if not shutil.which("qemu-aarch64-static"):
        pytest.skip("no QEMU here; scripts/test_arm.sh installs it")
    if not (ROOT / ".venv-test").is_dir():
        pytest.skip("no .venv-test here; scripts/test.sh makes it")
    copy = tmp_path / "edge-runner"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "build", "dist", "__pycache__", "*.egg-info"))
    (copy / ".venv-test").symlink_to(ROOT / ".venv-test")
    return copy


def run(checkout: Path, **environment: str) -> tuple[int, list[str]]:
    """Run the copy's script: its exit code, and what it says but for the steps that went well."""
    command = [checkout / "scripts/test_arm.sh", "--short"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env={**os.environ, **environment})
    assert done.stdout == ""
    return done.returncode, [line for line in done.stderr.splitlines() if not line.startswith("arm64: ")]


def test_golden_that_does_not_hold(checkout: Path) -> None:
    """An output that is 5 quantisation steps off ends it, in one line that says which and by how much."""
    bundle = checkout / BUNDLE
    goldens = read_goldens(bundle / GOLDENS)
    goldens.items[1].outputs[0][0, int(goldens.items[1].outputs[0].argmin())] += 5 * STEP
    (bundle / GOLDENS).write_bytes(goldens.dump())
    manifest = read_manifest(bundle)
    files = {**manifest.files, GOLDENS: sha256_of((bundle / GOLDENS).read_bytes())}
    (bundle / MANIFEST).write_bytes(dataclasses.replace(manifest, files=files).dump())
    code, [line] = run(checkout)
    assert code == 1
    assert line == (
        f"edge-runner: error: arm64: inspect digits-int8: {bundle}: golden picture 2 of 4:"
        " output 'output_0' is 0.0195312 off the host's; allowed 0.0117188"
    )


def test_missing_wheel(checkout: Path, tmp_path: Path) -> None:
    """A package that has no wheel for the board ends it, in one line that names it."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for wheel in WHEELS:
        name, version, *tags = wheel.split("-")
        with zipfile.ZipFile(wheels / f"{wheel}.whl", "w") as archive:
            folder = f"{name}-{version}.dist-info"
            archive.writestr(f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            archive.writestr(f"{folder}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {'-'.join(tags)}\n")
            archive.writestr(f"{folder}/RECORD", "")
    code, [line] = run(checkout, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheels))
    assert code == 1
    start = (
        "edge-runner: error: arm64: pip on Debian bookworm, arm64: No matching distribution found for tflite-runtime"
    )
    assert line.startswith(start)


@pytest.mark.parametrize(("ci", "code", "word"), [("", 0, "skipped"), ("true", 1, "edge-runner: error")])
def test_not_root(checkout: Path, tmp_path: Path, ci: str, code: int, word: str) -> None:
    """Whoever is not root, where root is needed once, is told so; in CI that is a failure."""
    who = tmp_path / "bin" / "id"
    who.parent.mkdir()
    who.write_text("#!/bin/sh\necho 1000\n")
    who.chmod(0o755)
    cache = tmp_path / "cache"
    path = f"{who.parent}:{os.environ['PATH']}"
    found, [line] = run(checkout, PATH=path, XDG_CACHE_HOME=str(cache), CI=ci)
    assert found == code
    assert line.startswith(f"{word}: emulating an ARM board needs root once, to make {cache}/edge-runner/arm/arm64-")
    assert list((cache / "edge-runner/arm").iterdir()) == []


def test_unknown_option(checkout: Path) -> None:
    """Another option is a usage error."""
    done = subprocess.run([checkout / "scripts/test_arm.sh", "--arm"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "usage: scripts/test_arm.sh [--armhf | --trixie] [--short]\n")
