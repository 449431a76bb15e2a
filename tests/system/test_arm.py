"""scripts/test_arm.sh fails where it should: a build that is wrong on purpose, a wheel that is missing, a machine that cannot."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from checkout import ROOT, copy_to

from edge_runner.model.bundle import GOLDENS, MANIFEST, read_manifest, sha256_of
from edge_runner.model.goldens import read_goldens

TIMEOUT_S = 1800
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
    """A copy of the project, whose environment for tests is this one."""
    copy = copy_to(tmp_path / "edge-runner")
    python = copy / ".venv-test/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (copy / ".venv-test/.python").write_text(os.environ.get("EDGE_RUNNER_PYTHON", ""))
    wanted = subprocess.check_output(
        "cat setup.cfg pyproject.toml edge_runner/__init__.py | cksum", shell=True, cwd=copy
    )
    (copy / ".venv-test/.installed[test]").write_bytes(wanted.strip())
    return copy


def run(checkout: Path, *options: str, **environment: str) -> tuple[int, list[str]]:
    """Run the copy's script, in its short form: its exit code, and what it says but for the steps that went well."""
    command = [checkout / "scripts/test_arm.sh", "--short", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env={**os.environ, **environment})
    assert done.stdout == ""
    return done.returncode, [line for line in done.stderr.splitlines() if not line.startswith("arm64: ")]


@pytest.fixture(scope="module", autouse=True)
def _able() -> None:
    """Where a board cannot be emulated, there is nothing to be seen."""
    if not all(map(shutil.which, ("qemu-aarch64-static", "qemu-arm-static", "mmdebstrap"))):
        pytest.skip("no QEMU here; scripts/test_arm.sh installs it")
    if "\nID=debian\n" not in Path("/etc/os-release").read_text("utf-8"):
        pytest.skip("this is not Debian")


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


BREAKS = {
    "dies": ("exit 1", "exit code 1; its last line is: "),
    "is killed": ("kill -9 $$", "exit code 137; its last line is: "),
    "says so and dies": ("echo 'ERROR: no room' >&2; echo done; exit 3", "no room"),
    "answers nothing": ("exit 0", "it went well, but does not say "),
}


@pytest.mark.parametrize(("command", "says"), BREAKS.values(), ids=BREAKS)
def test_step_that_fails(checkout: Path, command: str, says: str) -> None:
    """A step that ends badly, or that ends well and proves nothing, ends all of it, with what it was and how it ended."""
    script = f"""set -euo pipefail
        . scripts/lib.sh; . scripts/arm.sh; board=arm64
        {function("step")}
        WORK={checkout}
        step "the demo" "^8 frames" bash -c "$1"
        say went on"""
    done = subprocess.run(["bash", "-c", script, "-", command], cwd=checkout, capture_output=True, text=True)
    *_, line = done.stderr.splitlines()  # bash has a word of its own for what is killed
    assert (done.returncode, done.stdout) == (1, "")
    assert line.startswith(f"edge-runner: error: arm64: the demo: {says}")


def test_demo_that_dies(checkout: Path) -> None:
    """A board on which the demo writes results and dies then has not passed, whatever it wrote."""
    script = f"""set -euo pipefail
        . scripts/lib.sh; . scripts/arm.sh; board=arm64 WORK={checkout}/work host=$1 EXAMPLE=$PWD/examples/digits FRAMES=2
        mkdir -p $WORK/board/bin
        printf '#!/bin/sh\\n%s "$@"; exit $?%s' "$1" "$2" >$WORK/board/bin/python; chmod +x $WORK/board/bin/python
        {function("step")}
        {function("demo")}
        {function("demos")}
        step "demo digits-int8" "^2 frames, the same" demos digits-int8"""
    for dies, code in (("", 0), ("9", 1)):
        done = subprocess.run(
            ["bash", "-c", script, "-", sys.executable, dies], cwd=checkout, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        [line] = done.stderr.splitlines()
        assert ("the same answers" in line) == (code == 0)


def function(name: str) -> str:
    """One function of the script."""
    text = (ROOT / "scripts/test_arm.sh").read_text("utf-8")
    found = re.search(rf"^{name}\(\) \{{\n.*?^\}}$", text, re.DOTALL | re.MULTILINE)
    assert found
    return found[0]


@pytest.mark.parametrize(("ci", "code", "word"), [("", 0, "skipped"), ("true", 1, "edge-runner: error")])
def test_without_qemu(checkout: Path, tmp_path: Path, ci: str, code: int, word: str) -> None:
    """Who is not root, and has no QEMU, is told what to do; in CI that is a failure."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in {path.name: path for folder in ("/usr/bin", "/bin") for path in Path(folder).iterdir()}.values():
        if not tool.name.startswith(("qemu-", "mmdebstrap")):
            (tools / tool.name).symlink_to(tool)
    (tools / "id").unlink()
    (tools / "id").write_text("#!/bin/sh\necho 1000\n")
    (tools / "id").chmod(0o755)
    cache = tmp_path / "cache"
    found, [line] = run(checkout, PATH=str(tools), XDG_CACHE_HOME=str(cache), CI=ci)
    assert found == code
    assert line == (f"{word}: emulating an ARM board needs QEMU: sudo apt-get install qemu-user-static mmdebstrap")
    assert list((cache / "edge-runner/arm").iterdir()) == []


@pytest.mark.parametrize("options", [["--arm"], ["--armhf", "--trixie"]])
def test_unknown_option(checkout: Path, options: list[str]) -> None:
    """Another option is a usage error, and so are two boards."""
    assert run(checkout, *options) == (2, ["usage: scripts/test_arm.sh [--armhf | --trixie] [--short]"])
