"""What a run did, in one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from edge_runner.pipeline import Counts
from edge_runner.service import account
from edge_runner.service.account import summary


@dataclass
class Skipping:
    """As much of a feed as a summary looks at."""

    skipped: int
    name: str = "front"
    spoilt: Mapping[str, int] = field(default_factory=dict)


def test_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is summed up in one line; what did not happen is not mentioned."""
    timing_ms = {"capture": 20.0, "inference": 300.0}
    monkeypatch.setattr(account, "time", SimpleNamespace(monotonic=lambda: 102.0))
    started = 100.0
    one = Counts(results={"door": 10}, dropped=3, started=started, timing_ms=timing_ms)
    assert summary(one, [Skipping(1)]) == (
        "10 results in 2.0 s; 5.0 a second; capture 2.00 ms, inference 30.00 ms; 3 live frames dropped;"
        " 1 frames skipped as unreadable"
    )
    two = Counts(results={"door": 4, "gate": 6}, started=started, timing_ms=timing_ms)
    assert summary(two, [Skipping(0), Skipping(0)]) == (
        "10 results in 2.0 s; 5.0 a second; capture 2.00 ms, inference 30.00 ms; door 4, gate 6"
    )
    spoilt = summary(one, [Skipping(0, "door", {"torn": 3, "lost": 1})])
    assert spoilt.endswith("; 3 live frames dropped; door: 3 times torn, 1 times lost")
    assert summary(Counts(started=102.0), []) == "0 results in 0.0 s"
