"""A new configuration or model for a daemon that runs: tried out and made ready beside it, to take its place between two frames."""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_runner.config import Loaded
from edge_runner.errors import EdgeRunnerError
from edge_runner.model.bundle import MODEL, ModelConfig
from edge_runner.model.store import Store
from edge_runner.pipeline import Board, Pipeline, assemble, verify
from edge_runner.service.device import memory_available
from edge_runner.service.rehearsal import TIMEOUT_S, rehearse
from edge_runner.settings import Settings
from edge_runner.tree import variables_beside

COPIES = 3  # of a model's file: its bytes, the weights as the interpreter packs them, what it computes
SPARE_BYTES = 32 * 10**6
READINGS = 3  # where somebody saves a file again and again
SLACK_S = 60.0  # for all but the rehearsal, which has a limit of its own
STATM = Path("/proc/self/statm")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where settings come from: `read` reads them anew; `config` and `sets` are for a process that does the same."""

    read: Callable[[], Loaded[Settings]]
    config: Path
    sets: tuple[str, ...] = ()

    def files(self) -> list[bytes | None]:
        """What stands in the files that are read; None where there is none."""
        return [_content(path) for path in (self.config, variables_beside(self.config))]


class Reload:
    """One try, in a thread of its own; readable once there is something to do: `wants_room`, or it is `done`.

    Then `pipeline` is the new one, which is to take over, or `error` says why there is none.
    """

    def __init__(self, source: Source, before: Pipeline, board: Board, available: Callable[[], int | None]) -> None:
        self._source, self._before, self._board, self._available = source, before, board, available
        self.pipeline: Pipeline | None = None
        self.error: str | None = None
        self.done = False
        self.wants_room = ""
        """Why the memory does not allow two models: the one that runs is to be unloaded."""
        self._loaded: Loaded[Settings] | None = None
        self._room = threading.Event()
        self._lock = threading.Lock()
        self._forsaken = False
        self._began = time.monotonic()
        self._read, self._write = os.pipe()
        threading.Thread(target=self._work, name="reload", daemon=True).start()

    def fileno(self) -> int:
        return self._read

    def heard(self) -> bool:
        """Whether it has something to say; then it is not readable any more."""
        return bool(select.select([self], [], [], 0)[0] and os.read(self._read, 16))

    def located(self, error: EdgeRunnerError) -> str:
        """In one line, with its place in the new configuration."""
        words = self._loaded.locate(error) if self._loaded and error.key else str(error)
        return "; ".join(words.splitlines())

    def give_room(self) -> None:
        """The model that ran is unloaded."""
        self.wants_room = ""
        self._room.set()

    @property
    def overdue(self) -> bool:
        """Whether it hangs: there is a dead file system, say, under what it reads."""
        return not self.done and time.monotonic() - self._began > TIMEOUT_S + SLACK_S

    def forsake(self) -> None:
        """Nobody waits for it any more."""
        with self._lock:
            self._forsaken = True
            if self.done:
                self.close()

    def close(self) -> None:
        """It is done."""
        os.close(self._read)
        os.close(self._write)

    def _work(self) -> None:
        try:
            loaded, refused = self._tried_out()
            self.pipeline = assemble(loaded, self._board, before=self._before, refused=refused)
        except EdgeRunnerError as error:
            self.error = self.located(error)
        except Exception as error:
            self.error = f"unexpected {type(error).__name__}: {error}"
        with self._lock:
            self.done = True
            if self._forsaken:
                self.close()
            else:
                os.write(self._write, b"d")

    def _tried_out(self) -> tuple[Loaded[Settings], str | None]:
        """The settings, and why the active version does not come up.

        What another process tried out are these very settings: a file that is saved meanwhile is read once more.
        """
        for _ in range(READINGS):
            self._began = time.monotonic()
            files = self._source.files()
            self._loaded = loaded = self._source.read()
            verify(loaded)
            self._make_room(loaded.value)
            refused = rehearse(self._source.config, self._source.sets)
            if self._source.files() == files:
                return loaded, refused
        raise EdgeRunnerError(f"{self._source.config} was changed again and again while it was tried out")

    def _make_room(self, settings: Settings) -> None:
        """Memory is needed for a process that tries it out beside this one, and then for the model beside the one that runs."""
        available, needed = self._available(), _own_bytes() + COPIES * _size(settings.model) + SPARE_BYTES
        if available is not None and available < needed:
            self.wants_room = f"{available / 1e6:.0f} MB are free, two models need {needed / 1e6:.0f} MB"
            os.write(self._write, b"r")
            self._room.wait()


def _content(path: Path) -> bytes | None:
    with suppress(OSError):
        return path.read_bytes()
    return None


def memory() -> int | None:
    """Bytes that this process can still have."""
    return memory_available()


def _own_bytes() -> int:
    """What this process has in memory: another one that does the same needs as much."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _size(settings: ModelConfig) -> int:
    """Of the model's file, in bytes; 0 where it is not there, which others say."""
    path = settings.path or Store().active(str(settings.name))
    with suppress(OSError):
        return os.stat(path / MODEL if path.is_dir() else path).st_size if path else 0
    return 0
