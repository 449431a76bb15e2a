"""Brings results to one output, in a thread that serves nothing else: however long that output blocks, nobody waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue

from edge_runner.errors import OutputError, Reason
from edge_runner.frame import Shot
from edge_runner.output.base import Item, Output
from edge_runner.output.when import Chooser
from edge_runner.result import Result

QUIET_S = 60.0  # in which trouble that comes back is said once
FINISH_S = 2.0  # of the time to the end, for what an output itself still keeps
GRACE_S = 0.5  # after the end, for one that is just about to be done
REST_S = 0.004  # after the last one that waited: where hundreds come a second, each wake-up costs the inference as much as the work
PAUSE_S = 0.01  # of a file that waits for room: by then a few of those that wait have gone

log = logging.getLogger(__name__)


class Courier:
    """`key` names the output in the configuration. Results are offered by one thread only, the inference's.

    It can be started anew once it has ended.
    """

    def __init__(self, key: str, output: Output) -> None:
        self.key = key
        self.output = output
        self.gone = False
        """Whether whoever read this output has left for good."""
        self._queue: SimpleQueue[Item | None] = SimpleQueue()
        self._chooser = Chooser(output.when) if output.when else None
        self._behind = Trouble()
        self._failing = Trouble()
        self._thread: threading.Thread | None = None
        self._ended_by: float | None = None
        self._taken = self._done = 0  # the first is counted by the inference's thread, the other by the output's
        self._busy_since: float | None = None
        self._finishing = False
        self._turning = threading.Lock()
        """Between the output's thread, which begins to end, and whoever has it go on."""

    @property
    def name(self) -> str:
        """The output, for people: `outputs.1 (mqtt)`."""
        kind = getattr(self.output.config, "type", None)
        return f"{self.key} ({kind})" if kind else self.key

    @property
    def lost(self) -> int:
        """Results that did not get through, whoever's fault it was."""
        return self._behind.lost + self._failing.lost + self.output.lost

    @property
    def waiting(self) -> int:
        """Results that are in the queue, or in the output's hands just now."""
        return 0 if self.gone else self._taken - self._done

    @property
    def trouble(self) -> Reason | None:
        """What is wrong just now; None while all is well."""
        if self._failing.why:
            return Reason("output_failing", f"{self.name}: {self._failing.why}")
        return Reason("output_backlog", f"{self.name}: {self._behind.why}") if self._behind.why else None

    @property
    def stuck_s(self) -> float:
        """For how long one call of the output has not come back."""
        since = self._busy_since
        return 0.0 if since is None or self.gone else time.monotonic() - since

    @property
    def has_worked(self) -> bool:
        """Whether it ever brought a result to its output."""
        return self._done > 0

    def report(self) -> str:
        """What there is to tell at the end, empty where nothing is: `outputs.1 (jsonl): 3 results lost, …`."""
        parts = [f"{self.lost} results lost"] * bool(self.lost) + [self.output.report()] * bool(self.output.report())
        return f"{self.name}: {', '.join(parts)}" if parts else ""

    def start(self) -> None:
        """The output is open; from here on its own thread has it, with what it did not get done before an end."""
        self._ended_by, self._finishing = None, False
        self._thread = threading.Thread(target=self._work, name=f"output-{self.key}", daemon=True)
        self.output.wake = lambda: self._queue.put(None)
        self._thread.start()

    def offer(self, result: Result, shot: Shot, wait: Callable[[], bool]) -> Mapping[str, str]:
        """Put a result in the queue; return the names of the files that will be saved for it.

        Where the queue is full the result is lost, unless `wait` is true: then for as long as that holds, there is time.
        """
        if self.gone:
            return {}
        self.output.see(result)
        if self._chooser and not self._chooser.wants(result):
            return {}
        while self._full() and not self.gone and wait():
            time.sleep(PAUSE_S)
        if self._full():
            if self._behind.rises("is too slow"):
                log.warning("%s: %d results wait for it; more are lost until it keeps up", self.name, self.waiting)
            return {}
        if self._behind.why and self.waiting <= self.output.QUEUE // 2 and self._behind.ends():
            log.warning("%s: keeps up again; %d results were lost", self.name, self._behind.lost_meanwhile)
        item = self.output.take(result, shot)
        if item is None:
            return {}
        self._taken += 1
        if self._chooser:
            self._chooser.took(result)
        self._queue.put(item)
        return item.saved

    def end(self, until: float) -> None:
        """Nothing more will be offered: bring what waits, and close, until that time (time.monotonic's seconds) at most."""
        self._ended_by = until
        self._queue.put(None)

    def join(self) -> bool:
        """Wait for the end; whether it came. One that is stuck can `go_on`, or is to be told to `give_up`."""
        if self._thread is None:
            return True
        assert self._ended_by is not None
        self._thread.join(max(0.0, self._ended_by + GRACE_S - time.monotonic()))
        return not self._thread.is_alive()

    def go_on(self) -> bool:
        """Have one that is stuck go on, though it was told to end; false where it had begun to."""
        with self._turning:
            if not self._finishing:
                self._ended_by = None
            return not self._finishing

    def give_up(self) -> None:
        """What is stuck is left behind, and what it holds is lost."""
        if self.waiting:
            self._failing.lost += self.waiting
            log.warning("%s: does not take results in time; %d are given up", self.name, self.waiting)
        self._queue, self._taken = SimpleQueue(), self._done
        self._thread = None

    def _full(self) -> bool:
        return self.waiting >= self.output.QUEUE

    def _work(self) -> None:
        while not self._finishes():
            due = self.output.due
            try:
                item = self._queue.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
            except Empty:
                item = None
            if item is not None:
                self._write(item)
                if self._queue.empty():
                    time.sleep(REST_S)
            elif self._finishes(idle=True):
                break
            if item is None or (self.output.due is not None and time.monotonic() >= self.output.due):
                self._attempt(self.output.tick, told=0)
        until = self._ended_by or time.monotonic()
        self._attempt(lambda: self.output.finish(until), told=0)
        self._attempt(self.output.close, told=0)

    def _finishes(self, idle: bool = False) -> bool:
        """Whether the end begins, for its time is near, or nothing waits any more (`idle`); then there is no way back."""
        with self._turning:
            until = self._ended_by
            is_near = until is not None and time.monotonic() > until - FINISH_S
            is_done = idle and until is not None and self._queue.empty()
            self._finishing = self.gone or is_near or is_done
            return self._finishing

    def _write(self, item: Item) -> None:
        self._attempt(lambda: self.output.write(item))
        self._done += 1

    def _attempt(self, deed: Callable[[], None], told: int = 1) -> None:
        """Warn once of an output that fails, count, and say when it works again. `told`: results that it was handed."""
        self._busy_since = time.monotonic()
        try:
            deed()
        except BrokenPipeError:
            self.gone = True
        except OutputError as error:
            self._fail(str(error), error.lost)
        except Exception as error:  # a fault of the output's own: loud, but no reason for the others to stop
            log.debug("%s", self.name, exc_info=True)
            self._fail(f"unexpected {type(error).__name__}: {error}", told)
        else:
            if told and self._failing.why and self._failing.ends():
                log.warning("%s: works again; %d results were lost", self.name, self._failing.lost_meanwhile)
        finally:
            self._busy_since = None

    def _fail(self, why: str, lost: int) -> None:
        if self._failing.rises(why, lost):
            log.warning("%s: %s; results are lost there until it works again", self.name, why)


class Trouble:
    """One kind of trouble that comes and goes: `why` while it is there, `lost` in all, `lost_meanwhile` since it was said."""

    def __init__(self) -> None:
        self.why: str | None = None
        self.lost = 0
        self.lost_meanwhile = 0
        self._said_at: float | None = None
        self._spoken = False

    def rises(self, why: str, lost: int = 1) -> bool:
        """Count it; whether it is to be said."""
        begins, self.why = self.why is None, why
        self.lost += lost
        self.lost_meanwhile += lost
        now = time.monotonic()
        if not begins or (self._said_at is not None and now - self._said_at < QUIET_S):
            return False
        self._said_at, self._spoken, self.lost_meanwhile = now, True, lost
        return True

    def ends(self) -> bool:
        """It is over; whether that is to be said."""
        self.why = None
        spoken, self._spoken = self._spoken, False
        return spoken
