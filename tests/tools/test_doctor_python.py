"""The doctor's look at Python and its packages."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_runner.tools import doctor_python
from edge_runner.tools.doctor import Board
from edge_runner.tools.doctor_python import (
    CONFLICTS,
    FAULTS,
    Loaded,
    judge_python,
    loaded,
    packages,
    unloadable,
    versions,
)

GOOD = {"numpy": (1, 26, 4), "opencv-python-headless": (4, 11, 0, 86), "tflite-runtime": (2, 14), "paho-mqtt": (2, 1)}

# A fault's words as they were seen, the row that knows them, and what has to be in the remedy.
SEEN = [
    ("AttributeError: _ARRAY_API not found", "install 'numpy<2'"),
    ("A module that was compiled using NumPy 1.x cannot be run in NumPy 2.1.3", "install 'numpy<2'"),
    ("ImportError: numpy.core.multiarray failed to import", "install 'numpy<2'"),
    ("ImportError: libGL.so.1: cannot open shared object file", "uninstall -y opencv-python"),
    ("ImportError: libgthread-2.0.so.0: cannot open shared object file", "--force-reinstall 'WANTED'"),
    ("ImportError: libopenblas.so.0: cannot open shared object file", "apt install libopenblas0"),
    ("ImportError: libf77blas.so.3: cannot open shared object file", "apt install libatlas3-base"),
    ("ImportError: /lib/libm.so.6: version `GLIBC_2.34' not found", "Debian 12 or newer"),
    ("ImportError: x.so: version `GLIBCXX_3.4.30' not found", "Debian 12 or newer"),
    ("ImportError: x.so: wrong ELF class: ELFCLASS64", "32 instead of 64 bit"),
    ("loading it ends the process with SIGILL", "another processor"),
    ("ImportError: cannot import name 'x' from partially initialized module 'numpy'", "PYTHONPATH"),
    ("ImportError: you should not try to import numpy from its source directory", "PYTHONPATH"),
    ("/opt/edge-runner/bin/python cannot be started", "install edge-runner again"),
    ("ModuleNotFoundError: No module named 'cv2'", "pip install 'WANTED'"),
    ("OSError: nobody has ever seen this", "--force-reinstall 'WANTED'"),
]

# Versions that do not go together, what is said of them, whether it is a problem, and what has to be in the remedy.
TOGETHER = [
    ({"numpy": (2, 1)}, "tflite-runtime cannot work with NumPy 2", True, "'numpy<2'"),
    ({"numpy": (2, 1), "ai-edge-litert": (2, 0)}, "ai-edge-litert takes its place", False, "'numpy<2'"),
    (
        {"numpy": (2, 1), "tflite-runtime": None, "opencv-python-headless": (4, 9, 0, 80)},
        "OpenCV before 4.10", True, "'opencv-python-headless>=4.10'",
    ),
    ({"opencv-python-headless": (4, 12, 0, 88)}, "from 4.12 on asks for NumPy 2", False, "'opencv-python-headless<4.12'"),
    ({"opencv-python": (4, 11, 0, 86)}, "more than one OpenCV", False, "uninstall -y opencv-python "),
    ({"ai-edge-litert": (2, 0), "numpy": (1, 23, 1)}, "wants NumPy 1.23.2", True, "numpy>=1.23.2"),
    ({"paho-mqtt": (1, 6, 1)}, "paho-mqtt 1", False, "'paho-mqtt>=2'"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    """What was loaded for another test says nothing of this one."""
    loaded.cache_clear()
    yield
    loaded.cache_clear()


def module(folder: Path, name: str, text: str) -> None:
    """A module that is found before all others."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text)


class TestPython:
    @pytest.mark.parametrize(
        ("version", "level"),
        [((3, 9, 2), "problem"), ((3, 10, 0), "ok"), ((3, 11, 2), "ok"), ((3, 13, 5), "ok"), ((3, 14, 0), "warning")],
    )
    def test_version(self, version: tuple[int, ...], level: str) -> None:
        """What it was tested with is right; older ones are too old, newer ones are a doubt."""
        [finding] = judge_python(version, 64, "aarch64")
        assert finding.level == level
        assert f"Python {'.'.join(map(str, version))}, 64 bit" in finding.text

    @pytest.mark.parametrize(
        ("bits", "kernel", "doubt"),
        [(64, "aarch64", False), (32, "aarch64", True), (32, "x86_64", True), (32, "armv7l", False)],
    )
    def test_width(self, bits: int, kernel: str, doubt: bool) -> None:
        """A 32-bit system where the kernel is one of 64 bit gives processing power away."""
        first, *others = judge_python((3, 11, 2), bits, kernel)
        assert f"{bits} bit" in first.text
        assert [finding.level for finding in others] == (["warning"] if doubt else [])


class TestPackages:
    def test_here(self, board: Board) -> None:
        """Where all is well, that is one line with the versions."""
        import numpy as np

        [finding] = packages(board)
        assert finding.level == "ok"
        assert f"numpy {np.__version__}, opencv-python-headless 4." in finding.text
        assert unloadable() == []

    @pytest.mark.parametrize(("changed", "text", "severe", "remedy"), TOGETHER)
    def test_conflicts(self, changed: dict[str, Any], text: str, severe: bool, remedy: str) -> None:
        """Each row of the table finds just its own."""
        has = {name: version for name, version in {**GOOD, **changed}.items() if version}
        [finding] = doctor_python._conflicts(has)
        assert text in finding.text
        assert finding.level == ("problem" if severe else "warning")
        assert remedy in finding.remedies[0]

    def test_no_conflict(self) -> None:
        """What is meant to go together does, and every row has its test."""
        assert list(doctor_python._conflicts(GOOD)) == []
        litert = {"numpy": (2, 2), "opencv-python-headless": (4, 12, 0, 88), "ai-edge-litert": (2, 1)}
        assert list(doctor_python._conflicts(litert)) == []
        assert len(TOGETHER) == len(CONFLICTS)

    @pytest.mark.parametrize(("words", "remedy"), SEEN)
    def test_faults(self, words: str, remedy: str) -> None:
        """What a package says that does not load leads to what helps."""
        finding = doctor_python._fault("Name", Loaded(fault=words), "WANTED")
        assert finding.level == "problem"
        assert words[:40] in finding.text
        assert remedy in finding.remedies[0]

    def test_what_the_installer_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its versions have no pip: whatever one would ask of pip, the installer does. What is the system's stays the system's."""
        monkeypatch.setattr(sys, "prefix", "/opt/edge-runner/versions/0.1.0-12345678")
        for words, here in SEEN:
            [said] = doctor_python._fault("Name", Loaded(fault=words), "WANTED").remedies
            assert "pip" not in said
            assert "sudo ./install_device.sh" in said or here in said
        [conflict] = doctor_python._conflicts({**GOOD, "numpy": (2, 1)})
        assert "sudo ./install_device.sh" in conflict.remedies[0]

    def test_every_fault_is_tested(self) -> None:
        """No row without words that lead to it, and none that another takes them from."""
        import re

        first = {next(row.said for row in FAULTS if re.search(row.said, words)) for words, _ in SEEN}
        assert first == {row.said for row in FAULTS}

    def test_the_reason_behind_the_page(self) -> None:
        """Of NumPy's page of advice, the line that says what happened."""
        page = "ImportError: \n\nIMPORTANT: PLEASE READ THIS\n\nOriginal error was: libopenblas.so.0: cannot open\n"
        finding = doctor_python._fault("NumPy", Loaded(fault=page), "numpy")
        assert finding.text == "NumPy does not load: libopenblas.so.0: cannot open"

    def test_too_old(self, board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A version below setup.cfg's is a problem."""
        module(tmp_path / "site", "yaml", "__version__ = '5.4.1'")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        first, *_ = packages(board)
        assert (first.level, first.text) == ("problem", "PyYAML 5.4.1 is too old: 6 or newer")
        assert "pip install 'pyyaml>=6'" in first.remedies[0]

    def test_a_stranger(self, board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A module of the same name in the way is shown with its place."""
        module(tmp_path / "site", "yaml", "__version__ = '6.0'")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        [finding] = packages(board)
        assert finding.details == (f"yaml comes from {tmp_path / 'site'}",)

    def test_a_file_that_lies(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The version that a module says of itself counts, not what was left of an installation."""
        left = tmp_path / "site" / "numpy-9.9.dist-info"
        left.mkdir(parents=True)
        (left / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 9.9\n")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        assert versions()["numpy"] < (9,)

    def test_debian_s_opencv(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A module without a distribution is known by its own name."""
        real = doctor_python._version
        monkeypatch.setattr(doctor_python, "_version", lambda name: "" if name.startswith("opencv") else real(name))
        found = versions()
        assert found["cv2"] >= (4, 8)
        assert not any(name.startswith("opencv") for name in found)

    def test_no_runtime(self, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a runtime no model runs; one of two that does not load is a doubt only."""
        real = doctor_python._version
        monkeypatch.setattr(
            doctor_python, "_version", lambda name: "" if name in doctor_python.RUNTIMES else real(name)
        )
        [finding] = doctor_python._runtime_faults()
        assert (finding.level, finding.text) == ("problem", "no TensorFlow Lite runtime is installed")
        monkeypatch.setattr(doctor_python, "_version", lambda name: "1.0")
        monkeypatch.setattr(
            doctor_python, "loaded", lambda name: Loaded(fault="OSError: x" if name.startswith("tfl") else "")
        )
        assert [finding.level for finding in doctor_python._runtime_faults()] == ["warning"]
        monkeypatch.setattr(doctor_python, "loaded", lambda name: Loaded(fault="OSError: x"))
        assert [finding.level for finding in doctor_python._runtime_faults()] == ["problem", "problem"]


class TestLoaded:
    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("raise ImportError('libx.so: no such file')", "ImportError: libx.so: no such file"),
            ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "loading it ends the process with SIGILL"),
            ("import os; os._exit(3)", "loading it ends with exit status 3"),
            ("raise SystemExit('no')", "SystemExit: no"),
            ("print('noise'); __version__ = '1.2'", ""),
            ("import time; time.sleep(60)", "it does not load within 2 s"),
        ],
    )
    def test_what_modules_do(self, text: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever a module does when it is loaded, this process lives on and knows what happened."""
        module(tmp_path / "site", "strange", text)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        monkeypatch.setattr(doctor_python, "LOAD_LIMIT_S", 2.0 if "sleep" in text else 30.0)
        was = loaded("strange")
        assert was.fault == fault
        assert was.version == ("1.2" if not fault else "")
        assert "strange" not in sys.modules

    def test_a_python_that_is_gone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where not even a child process can be made, that is what is wrong."""
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        assert loaded("yaml").fault == f"{tmp_path / 'python'} cannot be started by this user"

    def test_where_this_process_looks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A module of the current folder is found if, and only if, this process would find it."""
        module(tmp_path / "here", "nearby", "__version__ = '1'")
        monkeypatch.chdir(tmp_path / "here")
        monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
        assert "No module named 'nearby'" in loaded("nearby").fault
        loaded.cache_clear()
        monkeypatch.setattr(sys, "path", ["", *sys.path])
        assert loaded("nearby").version == "1"


class TestBrokenPython:
    """The command as a whole, where packages are broken."""

    @pytest.fixture
    def run(self, run_cli: Any, tmp_path: Path) -> Any:
        path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
        return lambda *words: run_cli("doctor", *words, env={**os.environ, "PYTHONPATH": path})

    def test_numpy_2(self, run: Any, tmp_path: Path) -> None:
        """NumPy 2 beside tflite-runtime is found, with the command that mends it; the board is examined all the same."""
        module(tmp_path / "site", "numpy", "__version__ = '2.1.3'")
        done = run()
        whole = " ".join(done.stdout.split())
        assert (done.returncode, "Traceback" in done.stdout + done.stderr) == (1, False)
        assert "problem OpenCV does not load: " in whole
        if sys.version_info < (3, 12):
            assert "tflite-runtime cannot work with NumPy 2" in whole
            assert "-m pip install 'numpy<2'" in whole
        assert "ok memory: " in whole
        assert "warning not examined, without OpenCV: models and cameras" in whole

    @pytest.mark.parametrize("name", ["numpy", "cv2", "yaml"])
    def test_a_package_that_kills(self, run: Any, tmp_path: Path, configure: Any, name: str) -> None:
        """A library for another processor ends whoever loads it, and not the doctor, with a configuration or without."""
        module(tmp_path / "site", name, "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
        done = run("--json", "--config", configure())
        assert (done.returncode, "Traceback" in done.stdout + done.stderr) == (1, False)
        said = json.loads(done.stdout)
        fault = next(f for f in said["findings"] if "SIGILL" in f["text"])
        assert (fault["part"], fault["level"]) == ("packages", "problem")
        assert "another processor" in fault["remedies"][0]
        assert said["findings"][-1]["text"].endswith(": models, cameras, configuration, model and outputs")
        assert done.stderr.splitlines()[-1].startswith("edge-runner: error: ")
