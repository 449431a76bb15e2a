"""Hands each result to every output, numbers them, and keeps one broken output from harming the others."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace

from edge_runner.errors import OutputError, blamed
from edge_runner.frame import Shot
from edge_runner.output.base import Output
from edge_runner.result import Result, new_run

log = logging.getLogger(__name__)


class Publisher:
    """One start of the daemon: `run` names it, `seq` counts its results. `outputs` maps a configuration key to each output."""

    def __init__(self, outputs: Mapping[str, Output]) -> None:
        self.outputs = dict(sorted(outputs.items(), key=lambda item: not item[1].saves))
        self.run = new_run()
        self.seq = 0
        self.lost: dict[str, int] = {}
        """Results that an output did not take, by its key."""
        self.writing = False
        """Whether an output is being handed a result just now: it may block."""
        self._failing: set[str] = set()
        self._gone: set[str] = set()

    def __enter__(self) -> Publisher:
        with ExitStack() as stack:
            for key, output in self.outputs.items():
                stack.callback(output.close)
                with blamed(key):
                    output.open()
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def next_seq(self) -> int:
        self.seq += 1
        return self.seq

    def publish(self, result: Result, shot: Shot) -> Result:
        """Hand a result to every output, and return it with the names of the files that were saved beside it.

        Raise BrokenPipeError when the last reader of the only output has gone.
        """
        for key, output in self.outputs.items():
            if key not in self._gone:
                saved = self._hand(key, output, result, shot)
                result = replace(result, saved={**result.saved, **saved}) if saved else result
        if self._gone and len(self._gone) == len(self.outputs):
            raise BrokenPipeError
        return result

    def _hand(self, key: str, output: Output, result: Result, shot: Shot) -> Mapping[str, str] | None:
        """Warn once of an output that fails, count, and say when it works again."""
        self.writing = True
        try:
            saved = output.write(result, shot)
        except BrokenPipeError:
            self._gone.add(key)
            if len(self.outputs) > 1:
                log.warning("%s: whoever read it has gone; the other outputs go on", key)
            return None
        except OutputError as error:
            self.lost[key] = self.lost.get(key, 0) + 1
            if key not in self._failing:
                self._failing.add(key)
                log.warning("%s: %s; results are lost there until it works again", key, error)
            return None
        finally:
            self.writing = False
        if key in self._failing:
            self._failing.discard(key)
            log.warning("%s: works again; %d results were lost", key, self.lost[key])
        return saved
