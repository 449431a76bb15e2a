"""scripts/make_wheelhouse.sh, and wheelhouse.py, which judges what wheels ask for by the machine that they are for."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT, copy_to
from lab.wheelhouses import PYTHON, make_wheelhouse, wheelhouse

SCRIPT = ROOT / "scripts" / "wheelhouse.py"
PROJECT = (
    'numpy<2; python_version < "3.12" and sys_platform == "linux"',
    'numpy>=1.26; python_version >= "3.12" or sys_platform != "linux"',
    'tflite-runtime; python_version < "3.12" and sys_platform == "linux"',
    'ai-edge-litert; python_version >= "3.12" or sys_platform != "linux"',
    'opencv-python-headless; platform_machine != "armv6l"',
    'paho-mqtt>=2; extra == "mqtt"',
    'tensorflow; extra == "build"',
)


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("wheelhouse_script", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def wheel(folder: Path, name: str, version: str, *asked: str) -> Path:
    """A wheel that is nothing but its metadata."""
    path = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {each}" for each in asked),
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{path.name.split('-')[0]}-{version}.dist-info/METADATA", "\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("target", "wants"),
    [
        (("aarch64", "3.11"), ["numpy<2", "tflite-runtime", "opencv-python-headless", "paho-mqtt>=2"]),
        (("x86_64", "3.13"), ["numpy>=1.26", "ai-edge-litert", "opencv-python-headless", "paho-mqtt>=2"]),
        (("armv7l", "3.11"), ["tflite-runtime", "paho-mqtt>=2"]),
    ],
)
def test_conditions_are_those_of_the_board(
    script: Any, tmp_path: Path, target: tuple[str, str], wants: list[str]
) -> None:
    """Whatever machine this is; 32-bit boards have the rest from Debian."""
    path = wheel(tmp_path, "edge-runner", "1", *PROJECT)
    assert [script.bare(each) for each in script.Target(*target).wants(path, script.EXTRAS)] == wants


def complete(folder: Path) -> None:
    wheel(folder, "edge-runner", "1", *PROJECT)
    wheel(folder, "numpy", "1.26.4")
    wheel(folder, "tflite-runtime", "2.14.0", "numpy>=1.23")
    wheel(folder, "opencv-python-headless", "4.11", 'numpy>=1.21; python_version >= "3.10"')
    wheel(folder, "paho-mqtt", "2.1", 'PySocks; extra == "proxy"')
    wheel(folder, "pip", "26.0")


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--platform", "aarch64", "--python", "3.11", "--offline", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_requirements_are_what_is_needed_with_its_hash(tmp_path: Path) -> None:
    """One line for each, and no other wheel stays but the installer's."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    complete(wheels)
    wheel(wheels, "left-over", "3")
    assert run(tmp_path).returncode == 0
    lines = dict(line.split(" --hash=sha256:") for line in (tmp_path / "requirements.txt").read_text().splitlines())
    names = [
        "edge-runner[mqtt]==1",
        "numpy==1.26.4",
        "opencv-python-headless==4.11",
        "paho-mqtt==2.1",
        "tflite-runtime==2.14.0",
    ]
    assert list(lines) == names
    (numpy,) = wheels.glob("numpy*")
    assert lines["numpy==1.26.4"] == hashlib.sha256(numpy.read_bytes()).hexdigest()
    assert len(list(wheels.iterdir())) == len(names) + 1


@pytest.mark.parametrize(
    ("gone", "instead", "lacks"),
    [
        ("numpy", None, "numpy<2"),
        ("numpy", ("numpy", "2.1"), "numpy<2"),
        ("tflite_runtime", ("tflite-runtime", "2.14.0", "absl-py>=1"), "absl-py>=1"),
        ("pip", None, "pip"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, gone: str, instead: tuple[str, ...] | None, lacks: str) -> None:
    """One that is not there, one of a wrong version, and what only a dependency asks for."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    complete(wheels)
    (path,) = wheels.glob(f"{gone}-*")
    path.unlink()
    if instead:
        wheel(wheels, *instead)
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"edge-runner: error: {wheels} lacks {lacks}")
    assert not (tmp_path / "requirements.txt").exists()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--platform", "arm64"), 2, "--platform arm64 is Debian's word; write aarch64, armv7l or x86_64"),
        (("--platform", "riscv64"), 2, "--platform riscv64 is none of aarch64, armv7l, x86_64"),
        (("--python", "3"), 2, "--python 3 is no version such as 3.11"),
        (("--python",), 2, "--python wants a value"),
        (("--wheels",), 2, "--wheels is no option"),
        (("--python", "3.9"), 1, "Python 3.9 is too old; edge-runner needs 3.10 or newer"),
        (
            ("--platform", "armv7l", "--python", "3.13"),
            1,
            "there is no runtime for a 32-bit board with Python 3.13, only for 3.11",
        ),
    ],
)
def test_what_cannot_be_is_said_first(tmp_path: Path, options: tuple[str, ...], code: int, said: str) -> None:
    """Before anything is downloaded or written."""
    output = tmp_path / "house"
    done = make_wheelhouse("--output", output, *options, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1].startswith(f"edge-runner: error: {said}")) == (code, True), (
        done.stderr
    )
    assert not output.exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """A wheelhouse replaces nothing but a wheelhouse."""
    (tmp_path / "letter.txt").write_text("dear")
    done = make_wheelhouse("--output", tmp_path, check=False)
    assert (done.returncode, "is no wheelhouse, and not empty" in done.stderr) == (1, True)
    assert (tmp_path / "letter.txt").read_text() == "dear"


def test_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second run does nothing. A damaged one is made anew, the same to the last byte; and all of it is what SHA256SUMS says."""
    house = wheelhouse(tmp_path / "house")
    clone = copy_to(tmp_path / "clone")
    (clone / ".venv-wheels").symlink_to(ROOT / ".venv-wheels")
    options = ("--platform", platform.machine(), "--python", PYTHON, "--output", house)
    make_wheelhouse(*options, root=clone)
    sums = (house / "SHA256SUMS").read_text()
    assert {"install_device.sh", "requirements.txt", "WHEELHOUSE", "systemd/edge-runner@.service"} <= set(sums.split())
    assert len(sums.splitlines()) == sum(each.is_file() for each in house.rglob("*")) - 1
    inode = house.stat().st_ino
    assert "is up to date" in make_wheelhouse(*options, root=clone).stderr
    assert house.stat().st_ino == inode
    pins = ["==".join(path.name.split("-")[:2]) for path in (house / "wheels").glob("*.whl")]
    (tmp_path / "pins.txt").write_text("\n".join(pins))  # there may be newer ones by now
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "pins.txt"))
    (numpy,) = (house / "wheels").glob("numpy-*")
    numpy.write_bytes(b"damaged")
    assert "is up to date" not in make_wheelhouse(*options, root=clone).stderr
    assert (house / "SHA256SUMS").read_text() == sums


def test_what_changed_in_the_checkout_changes_its_wheel_alone(tmp_path: Path) -> None:
    """The dependencies stay what they were, whatever newer ones there are by now."""
    house = wheelhouse(tmp_path / "house")
    clone = copy_to(tmp_path / "clone")
    (clone / ".venv-wheels").symlink_to(ROOT / ".venv-wheels")
    options = ("--platform", platform.machine(), "--python", PYTHON, "--output", house)
    make_wheelhouse(*options, root=clone)
    before = set((house / "requirements.txt").read_text().splitlines())
    with (clone / "edge_runner" / "__init__.py").open("a") as file:
        file.write("# another line\n")
    assert "is up to date" not in make_wheelhouse(*options, root=clone).stderr
    (changed,) = set((house / "requirements.txt").read_text().splitlines()) - before
    assert changed.startswith("edge-runner[mqtt]==")
