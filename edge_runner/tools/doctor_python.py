"""The doctor's look at Python and its packages. Each package is loaded in a child process: a broken one may end whoever tries."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import re
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edge_runner import __version__
from edge_runner.process import signal_name
from edge_runner.tools.doctor import Board, Finding, ask

OLDEST, NEWEST = (3, 10), (3, 13)  # what edge-runner is tested with
LOAD_LIMIT_S = 60.0  # a first import from the card of a small board
LOAD = """\
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[2])
try:
    module = importlib.import_module(sys.argv[1])
    whole = sys.modules[sys.argv[1].partition(".")[0]]
    said = {"version": getattr(whole, "__version__", ""), "file": getattr(whole, "__file__", "") or ""}
except BaseException as error:
    said = {"fault": f"{type(error).__name__}: {error}"}
print("\\n" + json.dumps(said))
"""
OPENCVS = (
    "opencv-python-headless",
    "opencv-python",
    "opencv-contrib-python-headless",
    "opencv-contrib-python",
)  # all of them put their files into the one folder cv2
RUNTIMES = ("tflite-runtime", "ai-edge-litert")  # in the order in which `runtime: auto` takes them
EARLY = sys.version_info < (3, 12)  # where tflite-runtime is, which was built against NumPy 1

Versions = Mapping[str, tuple[int, ...]]


class Package(NamedTuple):
    """What edge-runner stands on: the distributions that bring `module`, and what to ask pip for."""

    name: str
    module: str
    dists: tuple[str, ...]
    least: tuple[int, ...]
    wanted: str


# Source: setup.cfg.
PACKAGES = (
    Package("NumPy",  "numpy", ("numpy",),  (1, 23), "numpy>=1.23,<2" if EARLY else "numpy>=1.26"),
    Package("OpenCV", "cv2",   OPENCVS,     (4, 8),  "opencv-python-headless>=4.8" + (",<4.12" if EARLY else "")),
    Package("PyYAML", "yaml",  ("pyyaml",), (6,),    "pyyaml>=6"),
)  # fmt: skip


class Fault(NamedTuple):
    """What a package says that does not load, and what helps; {pip} stands for the command, {wanted} for the package."""

    said: str
    remedy: str


VERSIONS = "/opt/edge-runner/versions/"  # of install_device.sh, which has no pip in them
MEND = "install edge-runner once more, which mends what is damaged: sudo ./install_device.sh, in its wheelhouse (docs/install.md)"
REINSTALL = "{pip} install --force-reinstall '{wanted}'"
INSTALL = "{pip} install '{wanted}'"
FAULTS = (
    # NumPy 2.0's migration guide, and what tflite-runtime 2.14.0 says with it
    Fault(r"_ARRAY_API not found|compiled using NumPy 1|multiarray failed to import", "{pip} install 'numpy<2'"),
    # opencv-python's README: packages with windows in them want a desktop's libraries
    Fault(r"libGL\.so|libgthread|libSM\.so|libXext",
          "{pip} uninstall -y opencv-python opencv-contrib-python; " + REINSTALL),
    # piwheels' FAQ: its wheels take their libraries from the system
    Fault(r"libopenblas\.so", "sudo apt install libopenblas0"),
    Fault(r"libatlas|libf77blas|libcblas", "sudo apt install libatlas3-base"),
    # ld.so's own words
    Fault(r"GLIBC(XX)?_[\d.]+' not found", "this system is too old for it: take Debian 12 or newer"),
    Fault(r"wrong ELF class|invalid ELF header", "it is for another processor, or for 32 instead of 64 bit: " + REINSTALL),
    # an instruction that this processor does not have: wheels for ARMv7 on an ARMv6, for AVX on an old PC
    Fault(r"SIGILL", "it was built for another processor; a 64-bit system, or Debian's own python3-numpy, may help"),
    # Python's own words, and NumPy's
    Fault(r"source directory|partially initialized|circular import",
          "another file takes its place: look for one of that name in this folder and in PYTHONPATH"),
    Fault(r"cannot be started", "look at who may run it: this user may not, or it is gone; install edge-runner again"),
    Fault(r"No module named", INSTALL),
    Fault(r"", REINSTALL),
)  # fmt: skip


class Conflict(NamedTuple):
    """Packages that do not go together: `holds` of the versions that are there, by distribution."""

    holds: Callable[[Versions], bool]
    text: str
    remedy: str
    severe: bool = True


CONFLICTS = (
    # Source: tflite-runtime 2.14.0's wheels were built against NumPy 1; with 2 an Interpreter cannot be made.
    Conflict(lambda has: has.keys() & set(RUNTIMES) == {"tflite-runtime"} and has.get("numpy", (0,)) >= (2,),
             "tflite-runtime cannot work with NumPy 2", "{pip} install 'numpy<2'"),
    Conflict(lambda has: has.keys() >= set(RUNTIMES) and has.get("numpy", (0,)) >= (2,),
             "tflite-runtime cannot work with NumPy 2; ai-edge-litert takes its place", "{pip} install 'numpy<2'", severe=False),
    # Source: opencv-python 4.10.0.84's release notes: the first that was built against NumPy 2.
    Conflict(lambda has: has.get("numpy", (0,)) >= (2,) and any((0,) < has.get(name, (0,)) < (4, 10) for name in OPENCVS),
             "OpenCV before 4.10 cannot work with NumPy 2", "{pip} install 'opencv-python-headless>=4.10'"),
    # Source: the metadata of opencv-python 4.12 wants numpy>=2; it works with 1, until pip is asked for anything.
    Conflict(lambda has: (0,) < has.get("numpy", (0,)) < (2,) and any(has.get(name, (0,)) >= (4, 12) for name in OPENCVS),
             "OpenCV from 4.12 on asks for NumPy 2: with the next package pip replaces NumPy",
             "{pip} install 'opencv-python-headless<4.12'", severe=False),
    # Source: opencv-python's README: only one of the four packages at a time.
    Conflict(lambda has: sum(name in has for name in OPENCVS) > 1,
             "more than one OpenCV is installed, all in one folder: to remove one breaks the other",
             "{pip} uninstall -y opencv-python opencv-contrib-python opencv-contrib-python-headless;"
             " {pip} install --force-reinstall --no-deps 'opencv-python-headless" + ("<4.12'" if EARLY else "'"), severe=False),
    # Source: LiteRT's metadata.
    Conflict(lambda has: "ai-edge-litert" in has and (0,) < has.get("numpy", (0,)) < (1, 23, 2),
             "ai-edge-litert wants NumPy 1.23.2 or newer", "{pip} install 'numpy>=1.23.2,<2'"),
    # Source: paho-mqtt 2.0's migration guide: the callbacks are other ones.
    Conflict(lambda has: (0,) < has.get("paho-mqtt", (0,)) < (2,),
             "the mqtt output cannot work with paho-mqtt 1", "{pip} install 'paho-mqtt>=2'", severe=False),
)  # fmt: skip


@dataclass(frozen=True)
class Loaded:
    """What came of loading a module in a child process: its version and its file, or the `fault`."""

    version: str = ""
    file: str = ""
    fault: str = ""
    noise: str = ""
    """What native libraries wrote to standard error."""


def python(board: Board) -> Iterator[Finding]:
    """The interpreter, and whether it and the kernel are of one width."""
    yield from judge_python(sys.version_info[:3], struct.calcsize("P") * 8, os.uname().machine)


def judge_python(version: tuple[int, ...], bits: int, kernel: str) -> Iterator[Finding]:
    """A Python `version` of so many `bits` on a `kernel`, as uname calls its machine."""
    shown = ".".join(map(str, version))
    where = f"in {sys.prefix}" if sys.prefix != sys.base_prefix else "without a virtual environment"
    text = f"edge-runner {__version__}, Python {shown}, {bits} bit, {where}"
    if version[:2] < OLDEST:
        yield Finding(
            "problem", f"{text}: too old", (), ("Python 3.10 or newer comes with Debian 12 and Ubuntu 22.04",)
        )
    elif version[:2] > NEWEST:
        tested = ".".join(map(str, NEWEST))
        yield Finding("warning", f"{text}: newer than what edge-runner was tested with, up to {tested}")
    else:
        yield Finding("ok", text)
    if bits == 32 and kernel in ("aarch64", "x86_64"):
        yield Finding(
            "warning",
            f"a 32-bit system on a {kernel} kernel: the processor could do more",
            (),
            ("install the 64-bit edition of the system: runtimes and packages for 32 bit are getting few",),
        )


def packages(board: Board) -> Iterator[Finding]:
    """What edge-runner stands on: is it there, does it load, does it go together."""
    has = versions()
    faults = [*_faults(), *_runtime_faults()]
    yield from faults
    yield from _conflicts(has)
    found = [f"{name} {'.'.join(map(str, version))}" for name, version in has.items()]
    if not any(finding.level == "problem" for finding in faults):
        yield Finding("ok", ", ".join(found), tuple(_strangers()))


def unloadable() -> list[str]:
    """The packages without which nothing but the doctor works, and that do not load."""
    return [package.name for package in PACKAGES if loaded(package.module).fault]


@functools.cache
def loaded(module: str) -> Loaded:
    """Load a module in a child process that looks for it where this one does."""
    path = json.dumps([place or os.getcwd() for place in sys.path])
    said = ask(sys.executable, "-c", LOAD, module, path, limit_s=LOAD_LIMIT_S)
    if said is None:
        return Loaded(fault=f"{sys.executable} cannot be started by this user")
    if said.code is None:
        return Loaded(fault=f"it does not load within {LOAD_LIMIT_S:.0f} s")
    if said.code < 0:
        return Loaded(fault=f"loading it ends the process with {signal_name(-said.code)}")
    try:
        return Loaded(**json.loads(said.out.splitlines()[-1]), noise=said.err)
    except (ValueError, IndexError, TypeError):
        return Loaded(fault=f"loading it ends with exit status {said.code}")


def versions() -> dict[str, tuple[int, ...]]:
    """The distributions that matter and are there. Where a module says its own version, that counts: files may lie about."""
    names = [dist for package in PACKAGES for dist in package.dists] + [*RUNTIMES, "paho-mqtt"]
    found = {name: numbers for name in names if (numbers := _numbers(_version(name)))}
    for package in PACKAGES:
        numbers = _numbers(loaded(package.module).version)
        if numbers and not any(dist in found for dist in package.dists):
            found[package.module] = numbers  # Debian's python3-opencv is no distribution
        elif numbers and len(package.dists) == 1:
            found[package.dists[0]] = numbers
    return found


def remedy(words: str, wanted: str = "") -> str:
    """What helps, of this Python: what was installed on a board is changed by the installer alone."""
    if "{pip}" in words and sys.prefix.startswith(VERSIONS):
        return MEND
    return words.format(pip=pip(), wanted=wanted)


def pip() -> str:
    """The command that changes the packages of this Python."""
    sudo = "" if os.access(sys.prefix, os.W_OK) else "sudo "
    return f"{sudo}{sys.executable} -m pip"


def _faults() -> Iterator[Finding]:
    for package in PACKAGES:
        was = loaded(package.module)
        if was.fault:
            yield _fault(package.name, was, package.wanted)
        elif (0,) < _numbers(was.version) < package.least:
            least = ".".join(map(str, package.least))
            text = f"{package.name} {was.version} is too old: {least} or newer"
            yield Finding("problem", text, (), (remedy(INSTALL, package.wanted),))


def _runtime_faults() -> Iterator[Finding]:
    """One runtime has to load; another that does not is of less account."""
    there = [name for name in RUNTIMES if _version(name)]
    tries = {name: loaded(f"{name.replace('-', '_')}.interpreter") for name in there}
    faults = {name: was for name, was in tries.items() if was.fault}
    wanted = RUNTIMES[0] if EARLY else RUNTIMES[1]
    if not there:
        yield Finding("problem", "no TensorFlow Lite runtime is installed", (), (remedy(INSTALL, wanted),))
    for name, was in faults.items():
        finding = _fault(name, was, name)
        others = len(faults) < len(there)
        yield Finding("warning" if others else "problem", finding.text, finding.details, finding.remedies)


def _fault(name: str, was: Loaded, wanted: str) -> Finding:
    helps = next(row.remedy for row in FAULTS if re.search(row.said, f"{was.fault}\n{was.noise}"))
    original = re.search(r"Original error was: (.+)", was.fault)
    said = original[1] if original else " ".join(was.fault.split())
    text = f"{name} does not load: {said[:200]}"
    return Finding("problem", text, (), (remedy(helps, wanted),))


def _conflicts(has: Versions) -> Iterator[Finding]:
    for row in CONFLICTS:
        if row.holds(has):
            yield Finding("problem" if row.severe else "warning", row.text, (), (remedy(row.remedy),))


def _strangers() -> Iterator[str]:
    """Modules that come from where packages are not installed: something of the same name may stand in the way."""
    for package in PACKAGES:
        file = loaded(package.module).file
        if file and not re.search(r"/(site|dist)-packages/", file):
            yield f"{package.module} comes from {Path(file).parent}"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name) or ""
    except importlib.metadata.PackageNotFoundError:
        return ""


def _numbers(version: str) -> tuple[int, ...]:
    """`4.11.0.86` as numbers; what follows them (`rc1`, `.dev0`) does not count."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
