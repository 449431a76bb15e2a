"""What leaves the house: the wheel and the sdist."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from checkout import ROOT, copy_to, files

import edge_runner

BOARD = {"numpy", "opencv-python-headless", "pyyaml", "tflite-runtime", "ai-edge-litert"}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, the wheel made from the sdist."""
    project = copy_to(tmp_path_factory.mktemp("project"))
    command = [sys.executable, "-m", "build", "--no-isolation", str(project)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return project / "dist"


@pytest.fixture
def metadata(dist: Path) -> Message:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(wheel.read(name))


def test_version(dist: Path, metadata: Message) -> None:
    """The version is written once, in edge_runner/__init__.py; both archives and the metadata have it from there."""
    version = edge_runner.__version__
    assert {path.name for path in dist.iterdir()} == {
        f"edge_runner-{version}-py3-none-any.whl",
        f"edge_runner-{version}.tar.gz",
    }
    assert metadata["Version"] == version
    written = re.compile(rf"""version(__)?["']?\s*[:=]\s*["']?{re.escape(version)}\b""")
    code = (ROOT / name for name in files() if name.endswith((".py", ".cfg", ".toml", ".sh", "Makefile")))
    assert [p.relative_to(ROOT) for p in code if written.search(p.read_text("utf-8"))] == [
        Path("edge_runner/__init__.py")
    ]


def test_board_needs(metadata: Message) -> None:
    """The wheel asks for the board's packages alone; what the workstation needs are extras."""
    needs = [need for need in metadata.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert {re.match(r"[\w-]+", need)[0].lower() for need in needs} == BOARD
    assert "build" in metadata.get_all("Provides-Extra", [])


def test_twine(dist: Path) -> None:
    """An index would take both as they are."""
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, sorted(dist.iterdir()))]
    done = subprocess.run(command, capture_output=True, text=True, env={"NO_COLOR": "1"})
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") == 2


def test_sdist_is_whole(dist: Path) -> None:
    """The sdist holds every file of the project: its tests, its demo, its scripts."""
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert set(files()) - names == set()


def test_wheel_is_slim(dist: Path) -> None:
    """The wheel holds the package and nothing else, the mark that it is typed included."""
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = wheel.namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"edge_runner"}
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "edge_runner").rglob("*.py")}
    assert {name for name in names if ".dist-info/" not in name} == code | {"edge_runner/py.typed"}
