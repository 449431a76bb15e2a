"""What counts as progress, and what does not: with a clock that the test turns, and cameras and outputs that are made up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from edge_runner.camera.images import ImagesConfig
from edge_runner.camera.pattern import PatternConfig
from edge_runner.service import progress as subject
from edge_runner.service.progress import OUTPUT_S, PATIENCE_S, SLOWER, STEPS, Progress, patience_s
from edge_runner.service.turns import Lane


class Clock:
    """Stands for time.monotonic."""

    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(subject.time, "monotonic", made)
    return made


@dataclass
class Stuck:
    """As much of a courier as is looked at."""

    stuck_s: float
    has_worked: bool
    name: str = "outputs.0 (console)"


@dataclass
class Outputs:
    """As much of a publisher as is looked at."""

    couriers: list[Stuck] = field(default_factory=list)
    waited_at: float = 0.0

    def stuck(self, limit_s: float) -> list[Stuck]:
        return [courier for courier in self.couriers if courier.stuck_s > limit_s]


@dataclass
class Camera:
    """As much of a feed as is looked at."""

    config: Any
    trouble: str | None = None
    ready: bool = False
    offers: bool = False


def live(**fields: Any) -> Lane:
    config = PatternConfig(name="test", start_timeout=10.0, stall_timeout=5.0, fps=10.0)
    return Lane("camera", Camera(config, **fields))  # type: ignore[arg-type]


def words(progress: Progress, outputs: Outputs | None = None) -> str | None:
    """What is missing."""
    reason = progress.missing(outputs or Outputs())  # type: ignore[arg-type]
    assert reason is None or reason.code == "no_progress"
    return reason and reason.words


class TestLoop:
    def test_a_loop_that_stands_still(self, clock: Clock) -> None:
        """A loop that does not come round any more is known after PATIENCE_S, and forgiven once it does."""
        progress = Progress()
        clock.now += PATIENCE_S
        assert words(progress) is None
        clock.now += 1
        assert words(progress) == "the daemon's loop has stood still for 31 s"
        progress.round(())
        assert words(progress) is None

    def test_half_of_what_systemd_allows(self, clock: Clock) -> None:
        """Under a watchdog it is known in time to say so before systemd ends it."""
        progress = Progress(10.0)
        clock.now += 5.1
        assert words(progress)

    def test_a_model_that_hangs(self, clock: Clock) -> None:
        """A step that does not come back is the model's fault, and said so."""
        progress = Progress(10.0)
        with progress.step():
            clock.now += 4.9
            assert words(progress) is None
            clock.now += 1.1
            assert words(progress) == "the model has not answered for 6 s"
        assert words(progress) is None

    def test_a_slow_model_is_given_more(self, clock: Clock) -> None:
        """A model that takes seconds has shown that this is how it is."""
        progress = Progress(10.0)
        with progress.step():
            clock.now += 3
        assert progress.slowest_s == 3
        assert progress.limit_s == SLOWER * 3
        with progress.step():
            clock.now += 11
            assert words(progress) is None

    def test_one_slow_step_does_not_count_for_ever(self, clock: Clock) -> None:
        """A step that was held up once gives way to those after it."""
        progress = Progress(10.0)
        with progress.step():
            clock.now += 100
        for _ in range(STEPS):
            with progress.step():
                clock.now += 0.01
        assert progress.limit_s == 5

    def test_at_the_end_nothing_is_expected(self, clock: Clock) -> None:
        """Outputs may take their time to finish: systemd has a limit of its own for that."""
        progress = Progress(10.0)
        progress.leaving = True
        clock.now += 1000
        assert words(progress) is None


class TestOutputs:
    def test_one_that_worked_and_hangs(self, clock: Clock) -> None:
        """It is named, with for how long."""
        progress = Progress()
        assert words(progress, Outputs([Stuck(OUTPUT_S - 1, True)])) is None
        assert words(progress, Outputs([Stuck(OUTPUT_S + 1, True)])) == (
            "outputs.0 (console): hangs in the middle of its work for 61 s"
        )

    def test_one_that_never_worked(self, clock: Clock) -> None:
        """A new start would not help; another one that hangs beside it is not hidden by it."""
        progress = Progress()
        assert words(progress, Outputs([Stuck(999, False)])) is None
        assert words(progress, Outputs([Stuck(999, False), Stuck(99, True, "outputs.1 (jsonl)")])) == (
            "outputs.1 (jsonl): hangs in the middle of its work for 99 s"
        )

    def test_limit_is_systemds(self, clock: Clock) -> None:
        """Under a watchdog, an output has as long as systemd gives."""
        progress = Progress(10.0)
        assert words(progress, Outputs([Stuck(9.9, True)])) is None
        assert words(progress, Outputs([Stuck(10.1, True)]))

    def test_a_file_waits_for_them(self, clock: Clock) -> None:
        """A step of a file that waits for an output without room is no hung model, for as long as that lasts."""
        progress, outputs = Progress(10.0), Outputs()
        with progress.step():
            for _ in range(100):
                clock.now += 1
                outputs.waited_at = clock.now
                assert words(progress, outputs) is None
            clock.now += 6
            assert words(progress, outputs)


class TestCameras:
    @pytest.mark.parametrize("excused", ["trouble", "due", "ready", "offers", "none"])
    def test_silence(self, clock: Clock, excused: str) -> None:
        """A camera in its retry, one that is left out on purpose, and one whose turn has not come are excused; others are not."""
        lane = live(
            **{"trouble": {"trouble": "lost"}, "ready": {"ready": True}, "offers": {"offers": True}}.get(excused, {})
        )
        progress = Progress(10.0)
        for _ in range(200):
            clock.now += 1
            lane.due = clock.now + 1 if excused == "due" else 0.0
            with progress.step():  # another camera is served all the time
                pass
            progress.round([lane])
        assert bool(words(progress)) == (excused == "none")
        if excused == "none":
            assert words(progress) == "camera: there is no frame, and the camera does not say why"
            lane.served = clock.now
            progress.round([lane])
            assert words(progress) is None

    def test_frames_that_nobody_takes(self, clock: Clock) -> None:
        """A frame that waits for its turn is no excuse where no step is made at all."""
        lane, progress = live(ready=True), Progress(10.0)
        for _ in range(200):
            clock.now += 1
            progress.round([lane])
        assert words(progress)

    def test_its_own_clock_speaks_first(self, clock: Clock) -> None:
        """The camera's own time limits have to have passed, and the loop's: then it is the camera that hangs, not before."""
        lane, progress = live(), Progress(10.0)
        progress.round([lane])
        until = clock.now + patience_s(lane) + progress.limit_s
        while clock.now < until:
            assert words(progress) is None
            clock.now += 1
            progress.round([lane])
        clock.now += 1
        progress.round([lane])
        assert words(progress)

    def test_proof_is_of_each_camera(self, clock: Clock) -> None:
        """One that gives frames does not hide another that hangs; a new camera begins anew."""
        good, bad, progress = live(), live(), Progress(10.0)
        good.key, bad.key = "cameras.good", "cameras.bad"
        for _ in range(200):
            clock.now += 1
            good.served = clock.now
            progress.round([good, bad])
        assert "cameras.bad" in (words(progress) or "")
        new = live()
        new.key = "cameras.new"
        progress.round([good, new])
        assert words(progress) is None

    @pytest.mark.parametrize(("fps", "seconds"), [(10.0, 60 + 10 + 2 * 5), (0.1, 60 + 10 + 2 * 20)])
    def test_patience(self, fps: float, seconds: float) -> None:
        """It is the time to open and to stall, and more for a camera with seldom frames."""
        config = PatternConfig(name="test", start_timeout=10.0, stall_timeout=5.0, fps=fps)
        assert patience_s(Lane("camera", Camera(config))) == seconds  # type: ignore[arg-type]

    def test_files_have_no_excuse(self, tmp_path: Any) -> None:
        """A file has nothing to wait for."""
        assert patience_s(Lane("camera", Camera(ImagesConfig(name="file", path=tmp_path)))) == 0  # type: ignore[arg-type]
