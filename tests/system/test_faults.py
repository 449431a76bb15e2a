"""Cameras that fail in every way they do: after each fault results flow again, and nothing is left over."""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from lab import servers
from lab.board import Board, Holding, board, descendants, runs
from lab.notified import wait_until
from lab.pulse import Pulse

FRAMES = Path(__file__).parents[1] / "lab" / "frames.py"
STALL_S, FREEZE_S = 2.0, 3.0
RETRY = {"first": "200ms", "max": "1s"}
TIMES = {"stall_timeout": f"{STALL_S}s", "freeze_timeout": f"{FREEZE_S}s", "start_timeout": "5s", "retry": RETRY}
CALM = {"stall_timeout": "60s", "freeze_timeout": "60s"}
"""Where nothing is to be opened again, though the machine stands still for a while."""
START_S = 60.0  # for a new process, on a machine that is slow, and busy with other tests
WITHIN_S = STALL_S + 1.0 + START_S  # the stall and the longest backoff before
TRY = "; opening it again in "


def stream(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "stream", "url": url, **TIMES, **more}


def command(mode: str, *arguments: object, **more: Any) -> dict[str, Any]:
    argv = [sys.executable, str(FRAMES), mode, *map(str, arguments)]
    return {"type": "command", "command": argv, "format": "gray8", "width": 64, "height": 48, **TIMES, **more}


@pytest.fixture(params=["rtsp", "http"])
def server(request: pytest.FixtureRequest) -> Iterator[servers.Server]:
    """A network camera."""
    if request.param == "rtsp" and servers.rtsp_missing():
        pytest.skip(str(servers.rtsp_missing()))
    with servers.rtsp() if request.param == "rtsp" else servers.mjpeg() as running:
        yield running


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[..., Board]]:
    """Start a daemon with a camera `cam`, and wait until results flow. It must still run at the test's end, and end well."""
    boards = []

    def start(camera: dict[str, Any], *, flows: bool = True) -> Board:
        running = Board(tmp_path, {"cam": camera})
        boards.append(running)
        if flows:
            running.flows("cam", START_S)
        return running

    yield start
    for running in boards:
        assert running.process.poll() is None, running.said
        assert running.stop() == 0, running.said


def address(server: servers.Server) -> str:
    return f"{server.url}/{'h264' if server.scheme == 'rtsp' else 'stream'}"


def settles(running: Board, before: Holding) -> None:
    """What is held comes back to what was held before."""
    try:
        running.wait(lambda: running.holding().counted == before.counted, 30)
    except AssertionError:
        assert running.holding() == before


def troubles(running: Board) -> list[str]:
    """Why the camera was opened again, as often as the log says so; without numbers and times."""
    return [re.sub(r"\d+", "#", line.partition(TRY)[0]) for line in list(running.words) if TRY in line]


def said_once(running: Board) -> bool:
    """Whether each trouble was told, and told once."""
    told = troubles(running)
    return bool(told) and len(told) == len(set(told))


def replaced(running: Board, workers: list[int]) -> bool:
    """Whether none of these workers is there any more."""
    return not set(workers) & set(running.workers())


class TestNetworkCamera:
    def test_killed_and_started_again(self, server: servers.Server, watch: Callable[..., Board]) -> None:
        """A camera that loses its power is there again as soon as it answers."""
        running = watch(stream(address(server)))
        before = running.holding()
        server.kill()
        time.sleep(2)
        server.start()
        running.flows("cam", WITHIN_S)
        settles(running, before)
        running.wait(lambda: "frames again after" in running.said, WITHIN_S)

    def test_away_for_half_a_minute(self, server: servers.Server, watch: Callable[..., Board]) -> None:
        """However long it is away, it is warned of once, and the waits stay short enough."""
        running = watch(stream(address(server)))
        before = running.holding()
        server.kill()
        time.sleep(30)
        server.start()
        running.flows("cam", WITHIN_S)
        settles(running, before)
        assert said_once(running), running.said

    def test_frozen_for_twenty_seconds(self, server: servers.Server, watch: Callable[..., Board]) -> None:
        """A camera that keeps its connection and sends nothing: reading it would block."""
        running = watch(stream(address(server)))
        before = running.holding()
        server.stop()
        time.sleep(20)
        running.wait(lambda: TRY in running.said, WITHIN_S)
        server.proceed()
        running.flows("cam", WITHIN_S)
        settles(running, before)

    @pytest.mark.parametrize("fault", ["killed", "frozen"])
    def test_others_go_on(self, server: servers.Server, tmp_path: Path, fault: str) -> None:
        """A dead camera never holds the others."""
        pattern = {"type": "pattern", "width": 64, "height": 48, "fps": 20}
        with board(tmp_path, {"cam": stream(address(server)), "other": pattern}) as running:
            running.flows("cam", START_S)
            running.flows("other", START_S)
            began = time.monotonic()
            with Pulse() as pulse:
                server.kill() if fault == "killed" else server.stop()
                time.sleep(6)
            times = [began, *(at for at, _ in list(running.arrivals["other"]) if at > began), time.monotonic()]
            gaps = [later - earlier for earlier, later in pairwise(times)]
            assert max(gaps) < 1.5 + 2 * pulse.longest_s
            if fault == "frozen":
                server.proceed()

    def test_size_that_changes(self, watch: Callable[..., Board]) -> None:
        """The picture grows while it runs: results go on, and say so."""
        with servers.mjpeg() as http:
            running = watch(stream(f"{http.url}/stream", **CALM))
            before, workers = running.holding(), running.workers()
            turn(http, "resize")
            running.wait(lambda: running.arrivals["cam"][-1][1]["image"] == {"width": 480, "height": 360}, WITHIN_S)
            turn(http, "stream")
            running.wait(lambda: running.arrivals["cam"][-1][1]["image"] == {"width": 320, "height": 240}, WITHIN_S)
            assert running.workers() == workers
            settles(running, before)

    @pytest.mark.skipif(bool(servers.rtsp_missing()), reason=str(servers.rtsp_missing()))
    def test_rtsp_size_that_changes(self, watch: Callable[..., Board]) -> None:
        """The same of a stream that is decoded."""
        with servers.rtsp("--then", "480x360", "--after", "6") as server:
            running = watch(stream(f"{server.url}/h264"))
            running.wait(lambda: running.arrivals["cam"][-1][1]["image"] == {"width": 480, "height": 360}, 6 + WITHIN_S)
            running.flows("cam", WITHIN_S)

    @pytest.mark.parametrize("mode", ["dies", "hangs", "junk", "frozen"])
    def test_mjpeg_that_fails_midway(self, watch: Callable[..., Board], mode: str) -> None:
        """It dies in the middle of a frame, sends nothing, no pictures, or always the same one; then it is well again."""
        with servers.mjpeg() as http:
            running = watch(stream(f"{http.url}/stream"))
            before, workers = running.holding(), running.workers()
            turn(http, mode)
            running.wait(lambda: replaced(running, workers), FREEZE_S + WITHIN_S)
            running.wait(lambda: TRY in running.said, WITHIN_S)
            turn(http, "stream")
            running.flows("cam", WITHIN_S)
            settles(running, before)

    @pytest.mark.parametrize("mode", ["corrupt", "cut"])
    def test_damaged_pictures_are_passed_over(self, watch: Callable[..., Board], mode: str) -> None:
        """Every second picture is damaged: none of them becomes a result, and nothing is opened again."""
        with servers.mjpeg() as http:
            running = watch(stream(f"{http.url}/stream", **CALM))
            before, workers = running.holding(), running.workers()
            turn(http, mode)
            time.sleep(2)
            count = len(running.arrivals["cam"])
            running.flows("cam", WITHIN_S)
            answers = {result["classifications"][0]["index"] for _, result in running.arrivals["cam"][count:]}
            assert len(answers) == 1
            assert running.workers() == workers
            settles(running, before)

    @pytest.mark.parametrize(
        ("page", "says"),
        [("missing", "404"), ("basic", "401"), ("garbage", ""), ("html", "text/html"), ("busy", "503")],
    )
    def test_refusals_are_named(self, watch: Callable[..., Board], page: str, says: str) -> None:
        """What the camera answers instead of pictures is said, once, and asking does not end."""
        with servers.mjpeg() as http:
            running = watch(stream(f"{http.url}/{page}"), flows=False)
            running.wait(lambda: TRY in running.said and says in running.said, START_S)
            time.sleep(2)
            assert said_once(running), running.said
            assert all("health: " in line or TRY in line for line in running.words), running.said

    @pytest.mark.skipif(bool(servers.rtsp_missing()), reason=str(servers.rtsp_missing()))
    @pytest.mark.parametrize(
        ("url", "says"), [("rtsp://user:pa%20ss@{}/nothing", "404"), ("rtsp://user:wrong@{}/h264", "401")]
    )
    def test_rtsp_refusals_are_named(self, watch: Callable[..., Board], url: str, says: str) -> None:
        """The same of RTSP."""
        with servers.rtsp("--login") as server:
            running = watch(stream(url.format(server.address)), flows=False)
            running.wait(lambda: TRY in running.said and says in running.said, START_S)

    def test_password_is_nowhere(self, watch: Callable[..., Board], server: servers.Server) -> None:
        """Neither we nor a library writes the password that stands in the address."""
        url = address(server).replace("://", "://user:s3cr%3Atpw@")
        running = watch(stream(url))
        server.kill()
        running.wait(lambda: TRY in running.said, WITHIN_S)
        time.sleep(2)
        assert "s3cr" not in running.said


class TestProgram:
    @pytest.mark.parametrize(
        ("mode", "says"),
        [
            ("exits", "exit status 3 after 20 frames: frames: the cable was pulled"),
            ("half", "exit status 0 after 20 frames"),
            ("silent", "no new frame"),
            ("stubborn", "no new frame"),
            ("leaves", "no new frame"),
            ("same", "the picture has not changed"),
        ],
    )
    def test_is_started_again(self, watch: Callable[..., Board], mode: str, says: str) -> None:
        """A program that ends, or gives nothing more, is started again; nothing of the first one is left."""
        running = watch(command(mode))
        before, first = running.holding(), descendants(running.process.pid)
        running.wait(lambda: says in running.said, FREEZE_S + WITHIN_S)
        running.wait(lambda: not any(map(runs, first)), WITHIN_S)
        running.flows("cam", WITHIN_S)
        settles(running, before)

    def test_flood_of_words(self, watch: Callable[..., Board]) -> None:
        """A program that never stops talking costs neither frames nor memory, and fills no log."""
        running = watch(command("floods", **CALM))
        before, workers = running.holding(), running.workers()
        time.sleep(5)
        running.flows("cam", WITHIN_S)
        assert running.workers() == workers
        assert running.holding().resident_kb < before.resident_kb + 10_000  # of many megabytes a second
        assert len(running.words) < 10

    def test_never_a_frame(self, watch: Callable[..., Board]) -> None:
        """A program that writes nothing at all is given its time, and is started again."""
        running = watch(command("silent", "--after", 0), flows=False)
        running.wait(lambda: "no frame within 5 s" in running.said, START_S)
        running.wait(lambda: len(running.workers()) == 1, WITHIN_S)


class TestWorker:
    def test_killed_fifty_times(self, tmp_path: Path) -> None:
        """Whatever kills it, and whenever: there is a new one, and nothing adds up."""
        chance = random.Random(5)
        retry = {"first": "20ms", "max": "100ms"}
        cameras = {"cam": {"type": "pattern", "width": 320, "height": 240, "fps": 30, "retry": retry}}
        with board(tmp_path, cameras) as running:
            running.flows("cam", START_S)
            before, frames = running.holding(), []
            for _ in range(50):
                for worker in running.workers():
                    with suppress(ProcessLookupError):  # the last one, which is being cleared away
                        os.kill(worker, signal.SIGKILL)
                if chance.random() < 0.7:
                    running.flows("cam", WITHIN_S, results=1)
                time.sleep(chance.uniform(0, 0.3))
                frames.append(running.arrivals["cam"][-1][1]["frame"])
            running.flows("cam", WITHIN_S)
            settles(running, before)
            after = running.holding()
            assert after.resident_kb < before.resident_kb + 8000
            assert frames == sorted(frames)
            results = [result for _, result in running.arrivals["cam"]]
            assert [result["seq"] for result in results] == list(range(1, len(results) + 1))

    def test_stopped(self, watch: Callable[..., Board]) -> None:
        """A worker that stands still is killed, and another takes its place."""
        running = watch({"type": "pattern", "width": 64, "height": 48, **TIMES})
        before, worker = running.holding(), running.workers()[0]
        os.kill(worker, signal.SIGSTOP)
        running.flows("cam", WITHIN_S)
        settles(running, before)
        assert not runs(worker)

    def test_dies_with_the_daemon(self, tmp_path: Path) -> None:
        """When the daemon is killed, so are its workers and what they run."""
        cameras = {"cam": command("stubborn", "--after", 10, **CALM), "other": {"type": "pattern", **TIMES, **CALM}}
        running = Board(tmp_path, cameras)
        for camera in cameras:
            running.flows(camera, START_S, results=1)
        started = descendants(running.process.pid)
        assert len(started) == 3
        running.process.kill()
        wait_until(lambda: not any(map(runs, started)))
        running.stop()


def turn(server: servers.Server, mode: str) -> None:
    """Change what the HTTP camera sends."""
    with urllib.request.urlopen(f"{server.url}/set?mode={mode}", timeout=60) as answer:
        assert answer.status == 200
