"""The contract of every output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from edge_runner.frame import Shot
from edge_runner.result import Result


class Output(ABC):
    """Takes results. Must be overridden: `write`. May be: `verify`, `open`, `close`, `Config`. `close` can be called twice."""

    Config: ClassVar[type[Any]]
    saves: ClassVar[bool] = False
    """Whether it saves files beside the result, which then names them: such an output is served before the others."""
    takes_arrays: ClassVar[bool] = False
    """Whether it keeps tensors that are too large for a line."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def verify(self) -> None:
        """Raise SettingError for what is wrong and can be known without writing; its key is relative to this output."""
        return None

    def open(self) -> None:
        """Start. Raise SettingError where that cannot be."""
        return None

    @abstractmethod
    def write(self, result: Result, shot: Shot) -> Mapping[str, str] | None:
        """Take one result; the shot that it is of holds only during the call. Raise OutputError where it cannot be kept.

        Return what was saved beside it: a file's name by its kind, which becomes a key of the result.
        """

    def close(self) -> None:
        """Finish what was begun."""
        return None
