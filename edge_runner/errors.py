"""The error tree. Each error is also a builtin one, and knows the exit code that it ends a command with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h: no frame came
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h: a restart would not help


class Reason(NamedTuple):
    """Why it does not go as it should, though it goes on: a `code` for programs, such as camera_stalled, and `words` for people."""

    code: str
    words: str

    def __str__(self) -> str:
        return f"{self.code}: {self.words}"


class EdgeRunnerError(Exception):
    """Anything that edge-runner itself refuses or gives up on.

    `key` is the configuration key to blame (`model.path`), where there is one: whoever knows the file turns it
    into a place, `camera.yaml:7: model.path: …`.
    """

    exit_code = EXIT_FAILED

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


@contextmanager
def blamed(key: str) -> Iterator[None]:
    """Put a part's own key before the one that its error blames."""
    try:
        yield
    except EdgeRunnerError as error:
        error.key = f"{key}.{error.key}" if error.key else key
        raise


class ConfigError(EdgeRunnerError, ValueError):
    """The configuration is wrong. `problems` holds one line for each mistake."""

    exit_code = EXIT_CONFIG

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class SettingError(EdgeRunnerError, ValueError):
    """One setting cannot work with the others, the model or this machine."""

    exit_code = EXIT_CONFIG


class ModelError(EdgeRunnerError, ValueError):
    """The model, its labels or its bundle is damaged, unsuitable, or not what it says it is."""

    exit_code = EXIT_CONFIG


class Several(EdgeRunnerError):
    """More than one thing is wrong; `errors` holds each."""

    exit_code = EXIT_CONFIG

    def __init__(self, errors: Sequence[EdgeRunnerError]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = list(errors)


class RuntimeMissingError(EdgeRunnerError, ImportError):
    """No usable TensorFlow Lite interpreter is installed."""

    exit_code = EXIT_CONFIG


class CameraError(EdgeRunnerError, OSError):
    """A camera cannot be opened or read."""


class NoFrameError(CameraError, TimeoutError):
    """No frame came within the time allowed."""

    exit_code = EXIT_UNAVAILABLE


class OutputError(EdgeRunnerError, OSError):
    """Results could not be handed over; `lost` is how many."""

    def __init__(self, message: str, *, key: str | None = None, lost: int = 1) -> None:
        super().__init__(message, key=key)
        self.lost = lost


class StoreError(EdgeRunnerError, OSError):
    """The store of models cannot be changed, or what is to go into it cannot be had."""


class NoWayBackError(EdgeRunnerError, RuntimeError):
    """What was to be replaced cannot go on either: only a new start helps."""


@contextmanager
def noted(errors: list[EdgeRunnerError]) -> Iterator[None]:
    """Put what is raised into the list, each of several by itself, and go on."""
    try:
        yield
    except EdgeRunnerError as error:
        errors += error.errors if isinstance(error, Several) else [error]
