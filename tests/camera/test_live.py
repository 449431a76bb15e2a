"""A live camera and its worker process: the newest frame, right figures, one fixed memory, and nothing left behind."""

from __future__ import annotations

import logging
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lab import servers
from lab.board import children, descendants, read, runs

from edge_runner.camera import child
from edge_runner.camera.base import LiveConfig, Retry
from edge_runner.camera.command import CommandConfig
from edge_runner.camera.feed import Feed, make_feed
from edge_runner.camera.live import Backoff, LiveFeed, Numbers
from edge_runner.camera.pattern import PatternConfig
from edge_runner.camera.stream import StreamConfig
from edge_runner.frame import Enough, Geometry, Picture, Region, Shot, TensorSpec
from edge_runner.model.preprocess import Preprocessor, Recipe
from edge_runner.service.turns import Turns

FRAMES = Path(__file__).parents[1] / "lab" / "frames.py"
WITHIN_S = 20.0


def pattern(**fields: Any) -> PatternConfig:
    return PatternConfig(**{"name": "test", "width": 64, "height": 48, **fields})


def program(mode: str, *arguments: object, **fields: Any) -> CommandConfig:
    argv = (sys.executable, str(FRAMES), mode, *map(str, arguments))
    return CommandConfig(name="test", command=argv, format="gray8", width=64, height=48, **fields)


@pytest.fixture
def feeds(shrink: Any, nothing_left: None) -> Iterator[Callable[..., LiveFeed]]:
    """Open the feed of a camera. Afterwards it is closed, and nothing of it is left."""
    opened: list[Feed] = []
    others = descendants(os.getpid())  # multiprocessing leaves a process of its own, where other tests use it

    def make(config: LiveConfig, prepare: Any = shrink, **options: Any) -> LiveFeed:
        feed = make_feed(config, prepare, **options)
        assert isinstance(feed, LiveFeed)
        opened.append(feed.__enter__())
        return feed

    yield make
    started = set(descendants(os.getpid())) - set(others)
    for feed in opened:
        feed.__exit__(None, None, None)
    assert not [read(f"/proc/{pid}/cmdline").replace("\0", " ") for pid in started if runs(pid)]
    assert "edge-runner" not in Path("/proc/self/maps").read_text()


def next_shot(feed: Feed, within_s: float = WITHIN_S) -> Shot:
    """The next shot, released already; the feed's arrays hold until another is wanted."""
    lane = Turns({"camera": feed}).next(until=time.monotonic() + within_s)
    assert lane, f"no shot within {within_s:g} s: {feed.trouble}"
    shot = feed.take()
    assert shot
    feed.release(shot)
    return shot


def go_round(feed: Feed, seconds: float) -> None:
    """Let the feed act, without wanting a frame."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        feed.poll()
        time.sleep(0.01)


def wait_for_trouble(feed: Feed) -> str:
    """Take what there is until there is trouble; return of which kind."""
    turns, until = Turns({"camera": feed}), time.monotonic() + WITHIN_S
    while not feed.trouble:
        assert time.monotonic() < until
        if turns.next(until=time.monotonic() + 0.1) and (shot := feed.take()):
            feed.release(shot)
    return feed.kind


def worker_of() -> int:
    [pid] = [child for child in children(os.getpid()) if "edge_runner" in read(f"/proc/{child}/cmdline")]
    return pid


class Exact:
    """Stands for a preprocessor that could do with any small picture; the input is the picture's mean colour."""

    shape = (1, 3)
    dtype = np.dtype(np.float32)
    enough = Enough(8, 8)

    def __call__(self, picture: Picture, out: Any, crop: Any = None) -> Any:
        out[0] = picture.reshape(-1, 3).mean(axis=0)
        return Geometry(picture.shape[1], picture.shape[0])


class TestFrames:
    def test_each_is_newer_and_none_is_lost_count_of(self, feeds: Callable[..., LiveFeed]) -> None:
        """Numbers grow, and `dropped` is what lies between them."""
        feed = feeds(pattern(fps=200))
        last = 0
        for pause_s in (0.0, 0.0, 0.1, 0.0, 0.05):
            time.sleep(pause_s)
            shot = next_shot(feed)
            assert shot.dropped == shot.stamp.number - last - 1
            last = shot.stamp.number
        assert last > 0.15 * 200

    def test_newest_when_it_is_wanted(self, feeds: Callable[..., LiveFeed]) -> None:
        """A frame that was there before the model was busy is not what it gets afterwards."""
        feed = feeds(pattern(fps=50))
        next_shot(feed)
        for _ in range(5):
            go_round(feed, 0.2)
            wanted_ns = time.monotonic_ns()
            while feed._block.figures.newest_ns < wanted_ns:
                go_round(feed, 0.01)
            shot = next_shot(feed)
            assert shot.stamp.monotonic_ns >= wanted_ns
            assert shot.dropped

    def test_as_fast_as_it_is_asked(self, feeds: Callable[..., LiveFeed]) -> None:
        """A camera far faster than the model, asked again at once each time, is never left waiting for a word."""
        feed = feeds(pattern(fps=1000, stall_timeout=60.0))
        numbers = [next_shot(feed).stamp.number for _ in range(400)]
        assert numbers == sorted(set(numbers))
        assert feed.losses == 0

    def test_input_and_picture_are_the_frame(self, feeds: Callable[..., LiveFeed], shrink: Any) -> None:
        """What the worker prepared is what the recipe makes of that picture."""
        feed = feeds(pattern(rotate=90, flip="horizontal", crop=(0.25, 0.0, 0.5, 1.0)))
        shot = next_shot(feed)
        assert shot.picture.shape == (64, 48, 3)
        expected = np.empty_like(shot.input)
        shrink(shot.picture, expected, Region(12, 0, 24, 64))
        assert np.array_equal(shot.input, expected)
        assert (shot.geometry.width, shot.geometry.height) == (48, 64)

    def test_memory_is_used_again(self, feeds: Callable[..., LiveFeed]) -> None:
        """The daemon maps one input and one frame, whatever number of frames there are."""
        feed = feeds(pattern(fps=200))
        pictures = [next_shot(feed).picture for _ in range(10)]
        assert all(np.shares_memory(pictures[0], picture) for picture in pictures)
        maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:edge-runner" in line]
        assert len(maps) == 2

    def test_nothing_is_decoded_that_is_not_wanted(self, feeds: Callable[..., LiveFeed]) -> None:
        """A camera at 30 frames a second of which none is wanted costs next to nothing."""
        with servers.mjpeg() as http:
            config = StreamConfig(name="test", url=f"{http.url}/stream?size=1920x1080&fps=30")
            feed = feeds(config, exact=True)
            next_shot(feed)

            def cpu_s() -> float:
                fields = Path(f"/proc/{worker_of()}/stat").read_text().rpartition(") ")[2].split()
                return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

            before, frames = cpu_s(), feed._block.figures.frames
            go_round(feed, 3.0)
            idle_s = (cpu_s() - before) / (feed._block.figures.frames - frames)
            before, began, shots = cpu_s(), time.monotonic(), 0
            while time.monotonic() < began + 3.0:
                next_shot(feed)
                shots += 1
            assert idle_s < (cpu_s() - before) / shots / 3

    @pytest.mark.parametrize(("exact", "shape"), [(True, (720, 1280, 3)), (False, (90, 160, 3))])
    def test_pictures_are_shrunk_where_that_is_allowed(
        self, feeds: Callable[..., LiveFeed], exact: bool, shape: tuple[int, ...]
    ) -> None:
        """A JPEG is decoded smaller while that is enough for the model; the result's size is the frame's all the same."""
        with servers.mjpeg() as http:
            feed = feeds(StreamConfig(name="test", url=f"{http.url}/stream?size=1280x720"), Exact(), exact=exact)
            shot = next_shot(feed)
        assert shot.picture.shape == shape
        assert (shot.geometry.width, shot.geometry.height) == (1280, 720)

    def test_age_is_true(self, feeds: Callable[..., LiveFeed]) -> None:
        """A frame's stamp is within a few frames of when the server made it, also right after opening."""

        def ages_ms() -> list[int]:
            feed = feeds(StreamConfig(name="test", url=f"{http.url}/stream"))
            shots = (next_shot(feed) for _ in range(5))
            found = [servers.age_ms(shot.picture, shot.stamp.monotonic_ns) for shot in shots]
            feed.__exit__()
            feed.__enter__()  # the fixture closes it
            assert min(found) >= -5
            return found

        with servers.mjpeg() as http:
            assert any(max(ages_ms()) < 150 for _ in range(5)), "a machine is not held up every time"


class TestRefit:
    """Another model: the camera's process lives on, and only the input changes."""

    @pytest.mark.parametrize("moment", ["taken", "wanted", "ready"])
    def test_camera_stays_open(self, feeds: Callable[..., LiveFeed], shrink: Any, moment: str) -> None:
        """Whatever was under way, the next shot is prepared for the new model; frames are counted on, by the same worker."""
        feed = feeds(pattern(fps=100))
        before, worker = next_shot(feed).stamp.number, worker_of()
        turns = Turns({"camera": feed})
        if moment != "taken":
            while not feed.offers:
                feed.poll()
                time.sleep(0.001)
            feed.want()
        if moment == "ready":
            assert turns.next(until=time.monotonic() + WITHIN_S)
        feed.refit(Exact())
        for _ in range(3):
            shot = next_shot(feed)
            assert (shot.input.shape, shot.input.dtype) == ((1, 3), np.float32)
            assert np.allclose(shot.input[0], shot.picture.reshape(-1, 3).mean(axis=0), atol=1e-3)
        assert (worker_of(), feed.losses) == (worker, 0)
        assert shot.stamp.number > before
        feed.refit(shrink)
        assert next_shot(feed).input.shape == shrink.shape

    def test_after_a_loss(self, feeds: Callable[..., LiveFeed]) -> None:
        """A worker that is started later prepares for the new model as well."""
        feed = feeds(pattern(fps=100, retry=Retry(0.1, 0.1)))
        next_shot(feed)
        feed.refit(Exact())
        os.kill(worker_of(), signal.SIGKILL)
        while not feed.losses:
            feed.poll()
            time.sleep(0.01)
        assert next_shot(feed).input.shape == (1, 3)

    def test_larger_input(self, feeds: Callable[..., LiveFeed]) -> None:
        """The memory grows where the new input needs more."""
        feed = feeds(pattern(fps=100))
        next_shot(feed)
        recipe = Recipe("rgb", (0.0,), (255.0,))
        feed.refit(Preprocessor(recipe, TensorSpec("x", (1, 300, 400, 3), "float32", 0.0, 0)))
        shot = next_shot(feed)
        assert shot.input.shape == (1, 300, 400, 3)
        assert shot.input.max() == pytest.approx(1.0, abs=0.01)


class TestLosses:
    def test_frames_are_counted_on(self, feeds: Callable[..., LiveFeed], caplog: pytest.LogCaptureFixture) -> None:
        """A new worker's frames go on where the last one's ended; the loss is said once, and the return."""
        feed = feeds(pattern(fps=100, retry=Retry(0.05, 0.1)))
        numbers = []
        with caplog.at_level(logging.INFO):
            for _ in range(4):
                numbers.append(next_shot(feed).stamp.number)
                os.kill(worker_of(), signal.SIGKILL)
            numbers.append(next_shot(feed).stamp.number)
        assert numbers == sorted(set(numbers))
        assert feed.losses == 4
        assert feed.trouble is None
        said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(said) == 2
        assert "its process died of SIGKILL; opening it again" in said[0]
        assert "frames again after" in said[1]

    def test_trouble_is_known(self, feeds: Callable[..., LiveFeed]) -> None:
        """Why there is no frame is there to be asked."""
        feed = feeds(program("exits", "--after", 0))
        go_round(feed, 0.1)
        until = time.monotonic() + WITHIN_S
        while "ended" not in str(feed.trouble) and time.monotonic() < until:
            go_round(feed, 0.05)
        assert feed.trouble is not None
        assert "ended with exit status 3 after 0 frames: frames: the cable was pulled" in feed.trouble

    @pytest.mark.parametrize(
        ("mode", "after", "kind", "limit_s"),
        [("exits", 5, "lost", 60.0), ("silent", 5, "stalled", 0.5), ("silent", 0, "stalled", 0.5)],
    )
    def test_kinds(self, feeds: Callable[..., LiveFeed], mode: str, after: int, kind: str, limit_s: float) -> None:
        """A camera that has gone and one that gives nothing more are told apart."""
        limits = {"start_timeout": limit_s, "stall_timeout": limit_s}
        feed = feeds(program(mode, "--after", after, **limits, retry=Retry(30.0, 30.0)))
        assert wait_for_trouble(feed) == kind

    def test_frozen(self, feeds: Callable[..., LiveFeed]) -> None:
        """So is one that gives the same picture again and again."""
        feed = feeds(program("same", "--after", 5, freeze_timeout=0.5, retry=Retry(30.0, 30.0)))
        assert wait_for_trouble(feed) == "frozen"

    def test_a_program_that_ignores_everything(self, feeds: Callable[..., LiveFeed]) -> None:
        """Closing a camera whose program ignores SIGTERM takes a moment, and leaves nothing (the fixture looks)."""
        feed = feeds(program("stubborn"))
        next_shot(feed)
        began = time.monotonic()
        feed.__exit__(None, None, None)
        assert time.monotonic() - began < 30
        feed.__enter__()

    def test_entered_again(self, feeds: Callable[..., LiveFeed]) -> None:
        """A feed can be closed and opened again, and counts from 1."""
        feed = feeds(pattern(fps=100))
        next_shot(feed)
        feed.__exit__(None, None, None)
        feed.__enter__()
        shot = next_shot(feed)
        assert shot.dropped == shot.stamp.number - 1

    def test_no_process_can_be_started(
        self, feeds: Callable[..., LiveFeed], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A board that is out of processes is a trouble like any other: it passes."""
        executable = sys.executable
        monkeypatch.setattr(sys, "executable", "/nowhere/python3")
        feed = feeds(pattern(retry=Retry(0.1, 0.1)))
        go_round(feed, 0.3)
        assert "its process cannot be started: no such file or directory" in str(feed.trouble)
        monkeypatch.setattr(sys, "executable", executable)
        next_shot(feed)


def test_the_way_back_comes_whole(feeds: Callable[..., LiveFeed], shrink: Any) -> None:
    """What leads from the input back to the frame is what the recipe says, also of a crop that is letterboxed."""
    spec = TensorSpec("picture", (1, 16, 16, 3), "float32")
    prepare = Preprocessor(Recipe("rgb", (0.0,), (1.0,), resize="letterbox"), spec)
    shot = next_shot(feeds(pattern(crop=(0.25, 0.5, 0.5, 0.25)), prepare))
    out = np.empty(prepare.shape, prepare.dtype)
    expected = prepare(np.zeros((48, 64, 3), np.uint8), out, Region(16, 24, 32, 12))
    assert expected.seen == (0.25, 0.5, 0.75, 0.75)
    assert shot.geometry == expected


class TestWhatAWorkerMayDo:
    """Nothing that a worker says, and no way in which it ends, ends the daemon."""

    @pytest.mark.parametrize(
        "words",
        [
            b"\xff\xfe",
            b"no JSON",
            b"[1, 2]",
            b'{"shot": {}}',
            b'{"log": 3}',
            b'{"opened": 1, "again": 2}',
            b'{"shot": null}',
        ],
    )
    def test_says_what_cannot_be_used(
        self, feeds: Callable[..., LiveFeed], monkeypatch: pytest.MonkeyPatch, words: bytes
    ) -> None:
        """Garbage on its socket is a loss like any other, and the next worker is listened to."""
        garbled = "import socket, sys, time; s = socket.socket(fileno=int(sys.argv[2])); s.send(%r); time.sleep(60)"
        monkeypatch.setattr(child, "WORKER", garbled % words)
        feed = feeds(pattern(retry=Retry(0.1, 0.1)))
        until = time.monotonic() + WITHIN_S
        while not feed.losses and time.monotonic() < until:
            go_round(feed, 0.05)
        assert feed.trouble is not None
        assert "its process says what cannot be used" in feed.trouble
        monkeypatch.undo()
        next_shot(feed)

    @pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGTERM, signal.SIGUSR1, signal.SIGRTMIN + 1])
    def test_dies_of_any_signal(self, feeds: Callable[..., LiveFeed], number: int) -> None:
        """Also of one that has no name; only SIGTERM it outlives, which is for the daemon to act on."""
        feed = feeds(pattern(fps=50, retry=Retry(0.05, 0.1)))
        next_shot(feed)
        os.kill(worker_of(), number)
        go_round(feed, 0.5)
        next_shot(feed)
        assert feed.losses == (number != signal.SIGTERM)

    def test_children_are_reaped_by_the_kernel(self, feeds: Callable[..., LiveFeed]) -> None:
        """Whoever starts us may ignore SIGCHLD: how a worker ended is known all the same."""
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            feed = feeds(pattern(fps=50, retry=Retry(0.05, 0.1)))
            next_shot(feed)
            os.kill(worker_of(), signal.SIGKILL)
            next_shot(feed)
            assert feed.losses == 1
        finally:
            signal.signal(signal.SIGCHLD, before)

    def test_no_descriptor_is_left(self, feeds: Callable[..., LiveFeed]) -> None:
        """Where none is to be had it is tried again, and none of those that are there is lost on the way."""
        feed = feeds(pattern(fps=50, retry=Retry(0.01, 0.01)))
        next_shot(feed)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(os.listdir("/proc/self/fd"))
        try:
            for more in range(1, 6):
                os.kill(worker_of(), signal.SIGKILL) if feed._child else None
                go_round(feed, 0.1)
                resource.setrlimit(resource.RLIMIT_NOFILE, (used + more - 3, hard))
                go_round(feed, 0.2)
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                next_shot(feed)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert len(os.listdir("/proc/self/fd")) == used

    def test_spoilt_frames_are_counted(self, feeds: Callable[..., LiveFeed], caplog: pytest.LogCaptureFixture) -> None:
        """Torn and black frames are said once, and their number is known, also when the worker is gone."""
        with servers.mjpeg() as http:
            feed = feeds(StreamConfig(name="test", url=f"{http.url}/cut?fps=30", freeze_timeout=0))
            for _ in range(5):
                next_shot(feed)
            feed.__exit__(None, None, None)
            assert feed.spoilt["torn"] >= 3
        with servers.mjpeg() as http:
            config = StreamConfig(name="other", url=f"{http.url}/black", freeze_timeout=0, retry=Retry(60.0, 60.0))
            black = feeds(config)
            for _ in range(3):
                next_shot(black)
            os.kill(worker_of(), signal.SIGKILL)
            while not black.losses:
                go_round(black, 0.05)
            black.__exit__(None, None, None)
            assert black.spoilt == {"black": 3, "lost": 1}
        for each in (feed, black):  # the fixture closes them
            each.__enter__()
        said = [record.getMessage() for record in caplog.records if "said once" in record.getMessage()]
        assert [line.split(":")[0] for line in said] == ["test", "other"]


class TestBackoff:
    def test_doubles_up_to_the_most(self) -> None:
        """Each wait is at most twice the last, at least half of its own most, and never above the limit."""
        random.seed(1)
        backoff = Backoff(Retry(1.0, 60.0))
        waits = [backoff.next(0.0) for _ in range(12)]
        for wait_s, most_s in zip(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60], strict=True):
            assert most_s / 2 <= wait_s <= most_s
        assert len(set(waits)) == 12

    def test_begins_anew(self) -> None:
        """After frames flowed for longer than the last wait it is short again; a camera that dies at once has to wait."""
        backoff = Backoff(Retry(1.0, 60.0))
        for _ in range(5):
            backoff.next(0.1)
        assert backoff.next(100.0) <= 1.0
        assert backoff.next(0.1) > 1.0 * 0.99

    def test_first_beyond_max(self) -> None:
        """The first wait is kept, whatever max says."""
        assert 2.5 <= Backoff(Retry(5.0, 1.0)).next(0.0) <= 5.0


def test_numbers() -> None:
    """Frames that were dropped count, those of a lost worker too."""
    numbers = Numbers()
    assert [numbers.skipped(numbers.of(n)) for n in (1, 2, 5)] == [0, 0, 2]
    numbers.begin_again(9)
    assert numbers.of(1) == 10
    assert numbers.skipped(numbers.of(2)) == 5
