"""Results to several outputs, some of which fail."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from edge_runner.errors import OutputError
from edge_runner.frame import Shot
from edge_runner.output.base import Output
from edge_runner.output.publisher import Publisher
from edge_runner.result import Result

Make = Callable[..., Result]
SHOT: Any = None


class Kept(Output):
    """Keeps results; raises `trouble` while there is any."""

    def __init__(self) -> None:
        super().__init__(None)
        self.trouble: Exception | None = None
        self.seqs: list[int] = []

    def write(self, result: Result, shot: Shot) -> None:
        if self.trouble:
            raise self.trouble
        self.seqs.append(result.seq)


def test_a_reader_that_goes_does_not_end_the_others(result: Make, caplog: pytest.LogCaptureFixture) -> None:
    """With another output there, a closed pipe is left alone from then on, with one warning; the result reaches the other."""
    piped, kept = Kept(), Kept()
    publisher = Publisher({"outputs.0": piped, "outputs.1": kept})
    publisher.publish(result(seq=1), SHOT)
    piped.trouble = BrokenPipeError()
    for seq in (2, 3):
        publisher.publish(result(seq=seq), SHOT)
    assert (piped.seqs, kept.seqs) == ([1], [1, 2, 3])
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert publisher.lost == {}


def test_the_last_reader_that_goes_is_told(result: Make) -> None:
    """Where nobody is left who takes results, whoever runs the loop is told."""
    piped = Kept()
    piped.trouble = BrokenPipeError()
    with pytest.raises(BrokenPipeError):
        Publisher({"outputs.0": piped}).publish(result(), SHOT)


def test_says_when_it_is_writing(result: Make) -> None:
    """While an output is written to, and only then, `writing` is true."""
    seen = []

    class Watches(Kept):
        def write(self, result: Result, shot: Shot) -> None:
            seen.append(publisher.writing)
            raise OutputError("full")

    publisher = Publisher({"outputs.0": Watches()})
    publisher.publish(result(), SHOT)
    assert seen == [True]
    assert not publisher.writing
    assert publisher.lost == {"outputs.0": 1}


def test_numbers_results() -> None:
    """seq counts from 1; each publisher has a run of its own."""
    one, two = Publisher({}), Publisher({})
    assert [one.next_seq(), one.next_seq(), two.next_seq()] == [1, 2, 1]
    assert one.run != two.run
