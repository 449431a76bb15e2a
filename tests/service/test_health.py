"""The state machine of the daemon's health: every state and reason, what is said of a change, and what settles."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from edge_runner.errors import Reason
from edge_runner.service import health as subject
from edge_runner.service.device import Vitals
from edge_runner.service.health import BoardReasons, Health, Sample, State

LOST = Reason("camera_lost", "camera: the cable was pulled")
FROZEN = Reason("camera_frozen", "camera: the picture has not changed")
HANGS = Reason("no_progress", "the model has not answered for 31 s")
MB = 10**6


class Clock:
    """Stands for time.monotonic."""

    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now

    def goes_on(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(subject.time, "monotonic", made)
    return made


@pytest.mark.parametrize(
    ("reasons", "hangs", "silent", "name"),
    [
        ([], None, True, "starting"),
        ([], None, False, "running"),
        ([LOST], None, False, "degraded"),
        ([LOST], None, True, "degraded"),
        ([], HANGS, False, "failed"),
        ([], HANGS, True, "failed"),
        ([LOST], HANGS, False, "failed"),
    ],
)
def test_states(reasons: list[Reason], hangs: Reason | None, silent: bool, name: str) -> None:
    """What is wrong makes it degraded, what hangs failed, and without either it starts until every camera gave a result."""
    state = Health().judge(reasons, hangs, silent)
    assert state.name == name
    assert state.reasons == ((hangs, *reasons) if hangs else tuple(reasons))


@pytest.mark.parametrize("after", ["running", "degraded", "failed"])
@pytest.mark.parametrize("before", ["starting", "running", "degraded", "failed"])
def test_every_transition(clock: Clock, caplog: pytest.LogCaptureFixture, before: str, after: str) -> None:
    """Each change is said in one line at its level; what is worse at once, what is better once it has lasted."""
    caplog.set_level("INFO")
    told = {
        "starting": ([], None, True),
        "running": ([], None, False),
        "degraded": ([LOST], None, False),
        "failed": ([LOST], HANGS, False),
    }
    health = Health()
    health.judge(*told[before])
    caplog.clear()
    health.judge(*told[after])
    if before == after:
        assert caplog.messages == []
        return
    if (before, after) in {("degraded", "running"), ("failed", "running"), ("failed", "degraded")}:
        assert (health.state.name, caplog.messages) == (before, [])
        clock.goes_on(subject.SETTLE_S)
        health.judge(*told[after])
    assert health.state.name == after
    level = {"running": logging.INFO, "degraded": logging.WARNING, "failed": logging.ERROR}[after]
    words = {
        "running": "running",
        "degraded": "degraded; camera_lost: camera: the cable was pulled",
        "failed": "failed; no_progress: the model has not answered for 31 s; camera_lost: camera: the cable was pulled",
    }[after]
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (level, f"health: {before} -> {words}")
    ]


class TestSettling:
    def test_what_comes_and_goes_stays(self, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        """A camera that gives a frame now and then is lost all the time, and that is said once."""
        health = Health()
        for _ in range(20):
            health.judge([LOST], None, False)
            clock.goes_on(subject.SETTLE_S - 0.1)
            assert health.judge([], None, False).name == "degraded"
        assert len(caplog.messages) == 1
        clock.goes_on(subject.SETTLE_S)
        assert health.judge([], None, False).name == "running"

    def test_each_reason_by_itself(self, clock: Clock) -> None:
        """Of two reasons each has to have stayed away for as long."""
        health = Health()
        health.judge([LOST, FROZEN], None, False)
        health.judge([LOST], None, False)
        clock.goes_on(subject.SETTLE_S)
        assert health.judge([LOST], None, False).reasons == (LOST,)
        assert health.judge([], None, False).reasons == (LOST,)
        clock.goes_on(subject.SETTLE_S)
        assert health.judge([], None, False).reasons == ()

    def test_another_reason_comes_at_once(self, clock: Clock) -> None:
        """Something else that is wrong is not better, though the first is gone."""
        health = Health()
        health.judge([LOST], None, False)
        assert health.judge([FROZEN], None, False).reasons == (FROZEN,)

    def test_words_are_new_each_time(self, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        """The reason says how it is now; that a figure is another one is nothing to log."""
        health = Health()
        for seconds in (31, 32, 333):
            words = f"the model has not answered for {seconds} s"
            assert health.judge([], Reason("no_progress", words), False).reasons[0].words == words
        assert len(caplog.messages) == 1


def test_the_same_change_is_said_once_an_hour(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A camera that is lost every few minutes fills no log; after an hour it is said again, and another reason at once."""
    caplog.set_level("INFO")
    health = Health()
    health.judge([], None, False)
    caplog.clear()

    def a_round(*reasons: Reason) -> None:
        health.judge(reasons, None, False)
        health.judge([], None, False)
        clock.goes_on(60)
        health.judge([], None, False)

    for _ in range(30):
        a_round(LOST)
    assert len(caplog.messages) == 2, caplog.messages
    a_round(FROZEN)
    assert len(caplog.messages) == 4
    clock.goes_on(subject.QUIET_S)
    a_round(LOST)
    assert len(caplog.messages) == 6


def warm(degrees: float | None, *throttling: str, **fields: Any) -> Sample:
    return Sample(Vitals(temperature_c=degrees, throttling=frozenset(throttling), **fields))


def codes(board: BoardReasons, sample: Sample) -> list[str]:
    return [reason.code for reason in board.of(sample)]


@pytest.mark.parametrize(
    ("sample", "reasons"),
    [
        (Sample(), []),
        (warm(79.9), []),
        (warm(80.0), ["heat: the processor has 80 °C; better cooling or a lower max_fps helps"]),
        (
            warm(70.0, "throttled"),
            ["heat: the processor has 70 °C and is throttled; better cooling or a lower max_fps helps"],
        ),
        (
            warm(None, "soft_temperature_limit"),
            ["heat: the processor is hot and is throttled; better cooling or a lower max_fps helps"],
        ),
        (
            warm(83.6, "frequency_capped", frequency_mhz=600.0, frequency_max_mhz=1500.0),
            ["heat: the processor has 84 °C and runs at 600 of 1500 MHz; better cooling or a lower max_fps helps"],
        ),
        # too little power caps the frequency as well: that is not the heat
        (
            warm(50.0, "under_voltage", "frequency_capped", "throttled"),
            ["under_voltage: the power supply gives too little: use the board's own, with a short cable"],
        ),
        (Sample(free=((Path("/var/log"), 64 * MB),)), []),
        (
            Sample(free=((Path("/var/log"), 63 * MB), (Path("/srv"), 900 * MB), (Path("/mnt"), 0))),
            ["disk: 63 MB are left at /var/log", "disk: 0 MB are left at /mnt"],
        ),
    ],
)
def test_what_the_board_says(sample: Sample, reasons: list[str]) -> None:
    """Heat, power and disk, each in words that say what helps."""
    assert list(map(str, BoardReasons().of(sample))) == reasons


def test_heat_has_to_go_down_a_little() -> None:
    """A board at the limit does not change its mind with each tenth of a degree."""
    board = BoardReasons()
    hot = [bool(codes(board, warm(degrees))) for degrees in (79.0, 80.1, 79.0, 77.1, 76.9, 79.0)]
    assert hot == [False, True, True, True, False, False]


def test_heat_explains_slowness() -> None:
    """Where inferences became slow meanwhile, heat is what explains it."""
    [reason] = BoardReasons().of(warm(85.0), ", an inference takes 80.0 ms instead of 50.0")
    assert reason.words == (
        "the processor has 85 °C, an inference takes 80.0 ms instead of 50.0; better cooling or a lower max_fps helps"
    )


def test_the_clock_has_time(clock: Clock) -> None:
    """After a boot a time service needs a while; only then a clock that nobody set is worth a word."""
    board = BoardReasons()
    assert codes(board, Sample(synced=False)) == []
    clock.goes_on(subject.CLOCK_S + 1)
    assert codes(board, Sample(synced=False)) == ["clock"]
    assert codes(board, Sample(synced=True)) == []


def test_a_state_in_one_line() -> None:
    """As the log and MQTT have it."""
    assert str(State()) == "starting"
    assert str(State("degraded", (LOST, FROZEN))) == (
        "degraded; camera_lost: camera: the cable was pulled; camera_frozen: camera: the picture has not changed"
    )
