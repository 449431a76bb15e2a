"""Results on standard output: a readable line each on a terminal, JSON lines where it is piped."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Literal

from edge_runner.errors import OutputError
from edge_runner.frame import Shot
from edge_runner.output.base import Output
from edge_runner.result import Result


@dataclass(frozen=True)
class ConsoleConfig:
    """The configuration's output of type console."""

    type: Literal["console"] = "console"


class Console(Output):
    """A closed pipe raises BrokenPipeError: whoever read the results has gone."""

    Config = ConsoleConfig

    def open(self) -> None:
        sys.stdout.flush()
        self._readable = sys.stdout.isatty()
        self._file = sys.stdout.fileno()

    def write(self, result: Result, shot: Shot) -> None:
        line = readable(result) if self._readable else result.line()
        rest = memoryview((line + "\n").encode("utf-8", "replace"))
        try:
            while rest:  # not through Python's buffer, which would block once more at the end
                rest = rest[os.write(self._file, rest) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"standard output: {(error.strerror or str(error)).lower()}") from error


def readable(result: Result) -> str:
    """One line for a person: `13:28:00.123  front-door 1234  7 0.998  1 0.002  (31.3 ms)`."""
    plain = result.plain()
    answers = "  ".join(result.answers.words()) or "-"
    place = result.source if result.source is not None else result.camera
    return f"{plain['time'][11:23]}  {place} {result.frame}  {answers}  ({sum(result.timing_ms.values()):.1f} ms)"
