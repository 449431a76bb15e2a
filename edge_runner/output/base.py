"""The contract of every output, and what it may know of where its results come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from edge_runner.frame import Picture, Shot
from edge_runner.output.when import When
from edge_runner.result import Answers, Result, new_run


@dataclass(frozen=True)
class OutputConfig:
    """What the configuration may say of every output. `when` None: each result, unless the output knows better."""

    when: When | None = field(default=None, kw_only=True)


def _draw_nothing(picture: Picture, answers: Answers) -> None:
    return None


@dataclass(frozen=True)
class Origin:
    """Where results come from: what is known of it before the first one.

    `run` names this start of the daemon, `cameras` are their names, `task` its type, `labels` those that can stand in an answer.
    `draw` draws answers on a picture. `state` says how the daemon and the board are at the moment that it is called, as JSON has
    it; it may be called from any thread. Two origins are equal where outputs would not notice a difference.
    """

    device: str = ""
    run: str = field(default_factory=new_run, compare=False)
    cameras: tuple[str, ...] = ()
    task: str = ""
    labels: tuple[str, ...] = ()
    draw: Callable[[Picture, Answers], None] = field(default=_draw_nothing, compare=False)
    state: Callable[[], Mapping[str, Any]] = field(default=dict, compare=False)


@dataclass(frozen=True)
class Item:
    """What waits for an output: a result, and, where the output asked for it, a picture of its own.

    `saved` names the files that the output is about to save, by their kind, which becomes a key of the result.
    """

    result: Result
    picture: Picture | None = None
    saved: Mapping[str, str] = field(default_factory=dict)


class Output(ABC):
    """Takes results, each in a thread that serves this output alone: it may block, and holds up nothing but itself.

    `verify`, `open`, `see` and `take` are called by the thread of the inference; `write`, `tick`, `finish` and `close` by
    the output's own, one at a time (`close` by the first where `open` failed). Must be overridden: `write`. May be: all others.
    """

    Config: ClassVar[type[Any]]
    QUEUE: ClassVar[int] = 500
    """Results that may wait for it; where there are more, they are lost, but for those of files, which wait."""
    saves: ClassVar[bool] = False
    """Whether it saves files beside the result, which then names them: such an output is asked before the others."""
    takes_arrays: ClassVar[bool] = False
    """Whether it keeps tensors that are too large for a line."""
    takes_pictures: ClassVar[bool] = False
    """Whether it keeps pictures: frames are then decoded whole."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.lost = 0
        """Results that it took and did not keep, beyond those that it raised OutputError for."""
        self.due: float | None = None
        """When `tick` is to be called at the latest, in time.monotonic's seconds; None: there is no need."""
        self.wake: Callable[[], None] = lambda: None
        """Has `tick` called at once. For threads of an output's own; set before `open`."""

    @property
    def when(self) -> When | None:
        """Which results it wants; None: each."""
        when: When | None = self.config.when
        return when

    def verify(self) -> None:
        """Raise SettingError for what is wrong and can be known without writing; its key is relative to this output."""
        return None

    def open(self, origin: Origin) -> None:
        """Start. Raise SettingError where that can never be; what may mend itself (a full disk, no network) is no reason."""
        return None

    def see(self, result: Result) -> None:
        """Every result, also one that `when` leaves out; quickly, as of `take`. For outputs that tell how things stand."""
        return None

    def take(self, result: Result, shot: Shot) -> Item | None:
        """What `write` is to get of a result, or None; quickly, for the inference waits. The shot holds only during the call."""
        return Item(result)

    @abstractmethod
    def write(self, item: Item) -> None:
        """Take one. Raise OutputError where it cannot be kept, BrokenPipeError where nobody will ever read it."""

    def tick(self) -> None:
        """Do what is due. Raise OutputError, with what was `lost` by it, where that cannot be."""
        return None

    def finish(self, until: float) -> None:
        """There is nothing more to write: hand over what is still kept, until that time (time.monotonic's seconds) at most."""
        return None

    def close(self) -> None:
        """Let go of everything, at once. It can be called twice, and the output can be opened again."""
        return None

    def figures(self) -> Mapping[str, float]:
        """Numbers of its own that are worth watching, by their names; quickly, from any thread."""
        return {}

    def report(self) -> str:
        """What there is to tell at the end of a run beyond results and losses; empty where nothing is."""
        return ""
