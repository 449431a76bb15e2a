"""Results on standard output: a readable line each on a terminal, JSON lines where it is piped."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edge_runner.errors import OutputError
from edge_runner.output.base import Item, Origin, Output, OutputConfig
from edge_runner.output.disk import words
from edge_runner.output.when import When
from edge_runner.result import Result


@dataclass(frozen=True)
class ConsoleConfig(OutputConfig):
    """The configuration's output of type console."""

    type: Literal["console"] = "console"


class Console(Output):
    """A closed pipe raises BrokenPipeError: whoever read the results has gone."""

    Config = ConsoleConfig
    _half = False
    """Whether the last line has no end: the disk was full."""

    @property
    def when(self) -> When | None:
        """The journal, unless told otherwise, gets what changes: it is kept on the board's card, and read by people."""
        if self.config.when is None and is_journal(sys.stdout.fileno(), os.environ):
            return When(changed=True)
        return super().when

    def open(self, origin: Origin) -> None:
        sys.stdout.flush()
        self._readable = sys.stdout.isatty()
        self._file = sys.stdout.fileno()

    def write(self, item: Item) -> None:
        line = readable(item.result) if self._readable else item.result.line()
        data = (("\n" if self._half else "") + line + "\n").encode("utf-8", "replace")
        done = 0
        try:
            while done < len(data):  # not through Python's buffer, which would block once more at the end
                done += os.write(self._file, memoryview(data)[done:])
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"standard output: {words(error)}") from error
        finally:
            if done:
                self._half = not data.endswith(b"\n", 0, done)


def is_journal(file: int, environment: Mapping[str, str]) -> bool:
    """Whether a descriptor leads to systemd's journal, which names it in JOURNAL_STREAM as device:inode (systemd.exec(5))."""
    status = os.fstat(file)
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def readable(result: Result) -> str:
    """One line for a person: `13:28:00.123  front-door 1234  7 0.998  1 0.002  (31.3 ms)`."""
    plain = result.plain()
    answers = "  ".join(result.answers.words()) or "-"
    place = result.source if result.source is not None else result.camera
    return f"{plain['time'][11:23]}  {place} {result.frame}  {answers}  ({sum(result.timing_ms.values()):.1f} ms)"
