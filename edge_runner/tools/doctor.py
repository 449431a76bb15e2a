"""`edge-runner doctor`: what this board has, what is wrong with it, and what helps.

A part of the examination is one function and one row in PARTS. This module needs nothing but Python, and each part is loaded
when its turn comes: where a package is missing or broken, that is a finding, and the other parts go on.
"""

from __future__ import annotations

import logging
import os
import subprocess
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from edge_runner.errors import ConfigError, EdgeRunnerError
from edge_runner.fields import listed, load
from edge_runner.service.device import PROC, SYS

if TYPE_CHECKING:
    from edge_runner.camera.base import CameraConfig
    from edge_runner.config import Loaded
    from edge_runner.settings import Settings

DEV, RUN, ETC = Path("/dev"), Path("/run"), Path("/etc")
LIMIT_S = 10.0  # for a camera's first frame; on a small board its process alone takes half of that to start
PROGRAM_LIMIT_S = 5.0  # for what only asks the system
NARROWEST = 30
INDENT = 9
SCHEMA = 1
OWNER = "edge-runner"  # the service's user and group; its configurations, logs and models live in folders of this name

log = logging.getLogger(__name__)
Level = Literal["ok", "warning", "problem"]


class Part(NamedTuple):
    """A part of the examination: 'module:function', from a Board to Findings, and what that takes beyond Python.

    "packages" are NumPy, OpenCV and all that stands on them; "configuration" is those and a configuration.
    """

    place: str
    needs: Literal["", "packages", "configuration"] = ""


PARTS: Mapping[str, Part] = {
    "python":        Part("edge_runner.tools.doctor_python:python"),
    "packages":      Part("edge_runner.tools.doctor_python:packages"),
    "board":         Part("edge_runner.tools.doctor_board:processor"),
    "accelerators":  Part("edge_runner.tools.doctor_board:accelerators"),
    "memory":        Part("edge_runner.tools.doctor_board:memory"),
    "disk":          Part("edge_runner.tools.doctor_disk:disks"),
    "clock":         Part("edge_runner.tools.doctor_board:clock"),
    "heat":          Part("edge_runner.tools.doctor_board:heat"),
    "power":         Part("edge_runner.tools.doctor_board:power"),
    "user":          Part("edge_runner.tools.doctor_service:user"),
    "service":       Part("edge_runner.tools.doctor_service:services"),
    "models":        Part("edge_runner.tools.doctor_models:store", "packages"),
    "cameras":       Part("edge_runner.tools.doctor_cameras:cameras", "packages"),
    "configuration": Part("edge_runner.tools.doctor_cameras:configured", "configuration"),
    "model":         Part("edge_runner.tools.doctor_models:model", "configuration"),
    "outputs":       Part("edge_runner.tools.doctor_outputs:outputs", "configuration"),
}  # fmt: skip
"""What is examined, the most basic first."""


@dataclass(frozen=True)
class Finding:
    """What was looked at and found, more about it, and what helps. `part` is its row of PARTS."""

    level: Level
    text: str
    details: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()
    part: str = ""

    def changed(self, change: Callable[[str], str]) -> Finding:
        """The same with other words."""
        return replace(
            self,
            text=change(self.text),
            details=tuple(map(change, self.details)),
            remedies=tuple(map(change, self.remedies)),
        )

    def lines(self, width: int = 80) -> list[str]:
        """For a terminal of so many columns; names that can be copied are never broken."""
        margin = " " * INDENT
        parts = [(f"{self.level:<{INDENT}}", self.text)]
        parts += [(margin, detail) for detail in self.details]
        parts += [(f"{margin}-> ", remedy) for remedy in self.remedies]
        return [line for start, text in parts for line in _wrapped(start, text, width)]

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "part": self.part,
            "level": self.level,
            "text": self.text,
            "details": list(self.details),
            "remedies": list(self.remedies),
        }


@dataclass(frozen=True)
class Board:
    """What is examined. `loaded` is the configuration, where one was named and could be read; `limit_s` is for a first frame."""

    loaded: Loaded[Settings] | None = None
    dev: Path = DEV
    sys: Path = SYS
    proc: Path = PROC
    limit_s: float = LIMIT_S
    run: Path = RUN
    etc: Path = ETC
    named: bool = False
    """Whether there is a configuration, be it right or wrong."""

    @property
    def is_configured(self) -> bool:
        return self.named or self.loaded is not None

    @property
    def wanted(self) -> Mapping[str, CameraConfig]:
        """The configuration's cameras, by their keys."""
        return self.loaded.value.sources if self.loaded else {}

    @property
    def severity(self) -> Level:
        """How bad it is that a camera of this board does not work: the configuration, where there is one, may not need it."""
        return "warning" if self.loaded else "problem"

    def model(self) -> str:
        """What the board calls itself: by the device tree, or by a PC's firmware; empty where it does not say."""
        return text_of(self.proc / "device-tree/model") or text_of(self.sys / "class/dmi/id/product_name")

    def is_pi(self) -> bool:
        return "Raspberry Pi" in self.model()


def examine(board: Board) -> Iterator[Finding]:
    """Every finding, in the order of PARTS, as it is made. None shows a variable's value."""
    left_out = []
    for name, part in PARTS.items():
        if part.needs == "configuration" and not board.is_configured:
            continue
        if part.needs and unloadable():
            left_out.append(name)
            continue
        for finding in _part(name, part, board):
            named = replace(finding, part=name)
            yield named.changed(board.loaded.masked) if board.loaded else named
    if left_out:
        yield Finding("warning", f"not examined, without {listed(unloadable())}: {listed(left_out)}", part="packages")


def problems(findings: Iterable[Finding]) -> str:
    """The error's line; empty where nothing is wrong."""
    count = _count(findings, "problem")
    return f"{count} problem{'s' if count > 1 else ''} found" if count else ""


def not_read(error: ConfigError) -> Finding:
    """The finding on a configuration with mistakes."""
    count = len(error.problems)
    text = f"{count} mistake{'s' if count > 1 else ''} in the configuration; nothing of it was examined"
    return Finding("problem", text, error.problems, part="configuration")


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """All of them, for programs."""
    return {
        "schema": SCHEMA,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "findings": [finding.plain() for finding in findings],
        "problems": _count(findings, "problem"),
        "warnings": _count(findings, "warning"),
    }


@dataclass(frozen=True)
class Said:
    """What a program that was run said. `code` is below 0 where a signal ended it (its number), None where its time was up."""

    code: int | None
    out: str
    err: str


def ask(*command: str, limit_s: float = PROGRAM_LIMIT_S, environment: Mapping[str, str] | None = None) -> Said | None:
    """Run a program that only tells something; None where it is not there."""
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        return Said(None, "", "")
    except OSError:
        return None
    return Said(done.returncode, done.stdout, done.stderr)


@contextmanager
def hushed(module: str) -> Iterator[None]:
    """The findings say what a module would log. With --debug both are wanted."""
    logger = logging.getLogger(module)
    before = logger.level
    if not logger.isEnabledFor(logging.DEBUG):
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def text_of(path: Path) -> str:
    """A small file's text, without what pads it; empty where it cannot be read."""
    with suppress(OSError):
        return path.read_text(errors="replace").strip("\0 \n\t")
    return ""


def one_line(error: BaseException) -> str:
    """The first line of what went wrong that says something; native libraries write pages."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def megabytes(size: float) -> str:
    """A size for people: `512 MB`, `1.9 GB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def served(board: Board) -> str:
    """The instance of the service that the configuration is of, where it stands in the service's folder; empty elsewhere."""
    path = Path(board.loaded.file).absolute() if board.loaded else Path()
    return path.stem if path.parent == board.etc / OWNER else ""


def unloadable() -> list[str]:
    """What every part with `needs` stands on, and does not load: even a try would end this process where it is built wrongly."""
    found: list[str] = load("edge_runner.tools.doctor_python:unloadable")()
    return found


def _part(name: str, part: Part, board: Board) -> Iterator[Finding]:
    """A part's findings. One that cannot be examined is a finding too."""
    if part.needs == "configuration" and not board.loaded:
        return  # its mistakes are told elsewhere
    try:
        yield from load(part.place)(board)
    except EdgeRunnerError as error:
        yield Finding("problem", f"{name}: {board.loaded.locate(error) if board.loaded and error.key else error}")
    except Exception as error:
        log.debug("%s", name, exc_info=True)
        text = f"{name}: could not be examined: {type(error).__name__}: {one_line(error)}"
        yield Finding("warning", text, (), ("edge-runner doctor --debug shows where",))


def _count(findings: Iterable[Finding], level: Level) -> int:
    return sum(finding.level == level for finding in findings)


def _wrapped(start: str, text: str, width: int) -> list[str]:
    indent = " " * len(start)
    return textwrap.wrap(
        text,
        max(width, NARROWEST),
        initial_indent=start,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
