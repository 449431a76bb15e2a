"""The daemon's loop, in real processes where signals are concerned."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edge_runner.camera.base import Grab
from edge_runner.camera.images import Images
from edge_runner.errors import CameraError, NoFrameError, OutputError
from edge_runner.pipeline import Counts, Pipeline
from edge_runner.service import daemon
from edge_runner.service.signals import STOPPING, Signals

Assemble = Callable[..., Pipeline]


def lines(path: Path) -> list[dict[str, Any]]:
    content = path.read_text() if path.exists() else ""
    assert content == "" or content.endswith("\n")
    return [json.loads(line) for line in content.splitlines()]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def run(pipeline: Pipeline) -> None:
    with Signals() as signals:
        daemon.run(pipeline, signals)


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("live", [True, False], ids=["live", "file"])
    def test_ends_with_everything_on_disk(
        self, start_cli: Any, configure: Any, colours: Path, tmp_path: Path, number: signal.Signals, live: bool
    ) -> None:
        """A signal in the middle of a run ends it with 0; what was printed is in the file, each seq once, none missing."""
        camera = {"type": "pattern", "fps": 200} if live else {"type": "images", "path": "colours", "loop": True}
        outputs = [{"type": "jsonl", "path": "out.jsonl"}, {"type": "console"}]
        with (tmp_path / "stdout").open("w") as stdout:
            child = start_cli("--config", configure(camera=camera, outputs=outputs), stdout=stdout)
            wait_for(lambda: len(lines_now(tmp_path / "out.jsonl")) > 20)
            child.send_signal(number)
            _, errors = child.communicate(timeout=30)
        assert child.returncode == 0
        results = lines(tmp_path / "out.jsonl")
        assert [r["seq"] for r in results] == list(range(1, len(results) + 1))
        assert len({r["run"] for r in results}) == 1
        assert (tmp_path / "stdout").read_text() == (tmp_path / "out.jsonl").read_text()
        assert f"edge-runner: info: stopped: {number.name}" in errors
        assert f"{len(results)} results in " in errors
        assert "error" not in errors
        assert "Traceback" not in errors
        if live:
            assert all(r["dropped"] >= 0 and r["age_ms"] > 0 for r in results)
            assert [r["frame"] for r in results][-1] == len(results) + sum(r["dropped"] for r in results)

    def test_while_waiting_for_max_fps(self, start_cli: Any, configure: Any, tmp_path: Path) -> None:
        """A daemon that waits for its next frame hears a signal at once."""
        camera = {"type": "pattern", "max_fps": 0.02}
        child = start_cli("--config", configure(camera=camera, outputs=[{"type": "jsonl", "path": "out.jsonl"}]))
        wait_for(lambda: len(lines_now(tmp_path / "out.jsonl")) == 1)
        time.sleep(0.2)
        sent = time.monotonic()
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=30)
        assert child.returncode == 0
        assert time.monotonic() - sent < 4
        assert len(lines(tmp_path / "out.jsonl")) == 1

    @pytest.mark.usefixtures("nothing_left")
    def test_handlers_are_put_back(self) -> None:
        """Afterwards the process handles signals as before."""
        before = [signal.getsignal(number) for number in STOPPING]
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            signals.read()
            assert signals.stopped == "SIGTERM"
        assert [signal.getsignal(number) for number in STOPPING] == before
        assert signal.set_wakeup_fd(-1) == -1


def lines_now(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


class TestReaderThatGoes:
    def test_head(self, configure: Any, colours: Path, tmp_path: Path) -> None:
        """`edge-runner … | head -1` ends quietly as soon as head has its line."""
        path = configure(camera={"type": "images", "path": "colours", "loop": True})
        command = f"set -o pipefail; {sys.executable} -m edge_runner --config {path} | head -1"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["seq"] == 1
        assert "Traceback" not in done.stderr
        assert "rror" not in done.stderr
        assert "stopped: whoever read the results has gone" in done.stderr

    @pytest.mark.parametrize("arguments", [["--once"], ["check"]])
    def test_gone_before_anything_was_written(
        self, start_cli: Any, configure: Any, colours: Path, arguments: list[str]
    ) -> None:
        """Other commands end quietly too."""
        reader, writer = os.pipe()
        os.close(reader)
        path = configure(camera={"type": "images", "path": "colours"})
        child = start_cli(*arguments, "--config", path, stdout=writer)
        os.close(writer)
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 0
        assert errors == ""


class TestMaxFps:
    def test_files_are_slowed_and_complete(
        self, assemble: Assemble, configure: Any, tmp_path: Path, paint: Any
    ) -> None:
        """`max_fps` bounds the rate; of a file nothing is dropped for it."""
        for number in range(9):
            paint(tmp_path / "p" / f"{number}.png")
        camera = {"type": "images", "path": "p", "max_fps": 20}
        pipeline = assemble(configure(camera=camera, outputs=[{"type": "jsonl", "path": "out.jsonl"}]))
        started = time.monotonic()
        run(pipeline)
        assert time.monotonic() - started >= 8 / 20
        assert [r["frame"] for r in lines(tmp_path / "out.jsonl")] == list(range(1, 10))

    def test_live_frames_are_dropped(self, assemble: Assemble, configure: Any, tmp_path: Path) -> None:
        """A live camera's frames in between are dropped and counted, and the one that is taken is new."""
        camera = {"type": "pattern", "fps": 200, "max_fps": 20}
        pipeline = assemble(configure(camera=camera, outputs=[{"type": "jsonl", "path": "out.jsonl"}]))
        elapsed_s = run_until(pipeline, lambda: count(pipeline) >= 8)
        results = lines(tmp_path / "out.jsonl")
        assert 8 <= len(results) <= elapsed_s * 20 + 2
        assert results[-1]["frame"] == len(results) + sum(r["dropped"] for r in results)
        assert sum(r["dropped"] for r in results[1:]) >= 4 * (len(results) - 1)
        assert min(r["age_ms"] for r in results) < 50

    def test_without_it_as_fast_as_frames_come(self, assemble: Assemble, configure: Any, tmp_path: Path) -> None:
        """Without a bound every frame of a slow camera is taken."""
        camera = {"type": "pattern", "fps": 25}
        pipeline = assemble(configure(camera=camera, outputs=[{"type": "jsonl", "path": "out.jsonl"}]))
        run_until(pipeline, lambda: count(pipeline) >= 8)
        results = lines(tmp_path / "out.jsonl")
        assert len(results) >= 8
        assert sum(r["dropped"] for r in results) <= 4


def count(pipeline: Pipeline) -> int:
    return sum(pipeline.counts.results.values())


def run_until(pipeline: Pipeline, enough: Callable[[], bool]) -> float:
    """Run the daemon's loop in this process and end it with a signal; return how many seconds it ran."""

    def watch() -> None:
        deadline = time.monotonic() + 30
        while not enough() and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    started, watcher = time.monotonic(), threading.Thread(target=watch)
    watcher.start()
    try:
        run(pipeline)
    finally:
        watcher.join()
    assert enough()
    return time.monotonic() - started


class TestEnds:
    @pytest.mark.usefixtures("nothing_left")
    def test_end_of_a_file(
        self, assemble: Assemble, configure: Any, colours: Path, caplog: pytest.LogCaptureFixture, capfd: Any
    ) -> None:
        """A file that ends, ends the run, with one line on what it did."""
        caplog.set_level("INFO")
        (colours / "2 damaged.jpg").write_bytes(b"")
        run(assemble(configure(camera={"type": "images", "path": "colours"})))
        assert [json.loads(line)["source"] for line in capfd.readouterr().out.splitlines()] == [
            "1.png",
            "2.png",
            "3.png",
        ]
        summary = caplog.messages[-1]
        assert summary.startswith("3 results in ")
        assert summary.endswith("1 frames skipped as unreadable")
        assert all(f"{stage} " in summary for stage in ("capture", "preprocess", "inference", "postprocess"))

    def test_no_frame_at_all(self, assemble: Assemble, configure: Any, tmp_path: Path) -> None:
        """A file without a single readable frame is a failure."""
        (tmp_path / "a.jpg").write_bytes(b"")
        with pytest.raises(CameraError, match="no frame could be read") as caught:
            run(assemble(configure(camera={"type": "images", "path": "a.jpg"})))
        assert (caught.value.key, caught.value.exit_code) == ("camera.path", 1)

    @pytest.mark.usefixtures("nothing_left")
    def test_camera_that_fails(
        self, assemble: Assemble, configure: Any, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A camera's error ends the run under the camera's key, after the results so far were written."""
        grab = Images.grab

        def fail(self: Images) -> Grab | None:
            if self._next == 2:
                raise CameraError("the cable was pulled", key="path")
            return grab(self)

        monkeypatch.setattr(Images, "grab", fail)
        outputs = [{"type": "jsonl", "path": "out.jsonl"}]
        pipeline = assemble(configure(camera={"type": "images", "path": "colours"}, outputs=outputs))
        with pytest.raises(CameraError, match="the cable was pulled") as caught:
            run(pipeline)
        assert caught.value.key == "camera.path"
        assert [r["seq"] for r in lines(tmp_path / "out.jsonl")] == [1, 2]

    def test_lost_results_of_a_file(self, assemble: Assemble, configure: Any, colours: Path) -> None:
        """Results of a file that could not be kept are a failure: they would not come again by themselves."""
        outputs = [{"type": "jsonl", "path": "/dev/full"}]
        with pytest.raises(OutputError, match=r"results were lost: 3 at outputs\.0"):
            run(assemble(configure(camera={"type": "images", "path": "colours"}, outputs=outputs)))

    def test_lost_results_of_a_camera(self, assemble: Assemble, configure: Any) -> None:
        """A live camera that is stopped ends well, though its output is broken."""
        pipeline = assemble(configure(outputs=[{"type": "jsonl", "path": "/dev/full"}]))
        run_until(pipeline, lambda: count(pipeline) >= 3)
        assert pipeline.publisher.lost["outputs.0"] >= 3


class TestSeveral:
    def test_files_end_one_by_one(
        self, assemble: Assemble, configure: Any, colours: Path, tmp_path: Path, paint: Any, caplog: Any
    ) -> None:
        """Every frame of every file comes under its camera's name, in its order; the run ends with the last of them."""
        caplog.set_level("INFO")
        for number in range(9):
            paint(tmp_path / "p" / f"{number}.png")
        cameras = {"few": {"type": "images", "path": "colours"}, "many": {"type": "images", "path": "p"}}
        run(assemble(configure(camera=None, cameras=cameras, outputs=[{"type": "jsonl", "path": "out.jsonl"}])))
        results = lines(tmp_path / "out.jsonl")
        assert [r["seq"] for r in results] == list(range(1, 13))
        assert [r["frame"] for r in results if r["camera"] == "few"] == [1, 2, 3]
        assert [r["frame"] for r in results if r["camera"] == "many"] == list(range(1, 10))
        assert "few 3, many 9" in caplog.messages[-1] or "many 9, few 3" in caplog.messages[-1]

    def test_a_file_beside_a_live_camera(
        self, assemble: Assemble, configure: Any, colours: Path, tmp_path: Path
    ) -> None:
        """A file that ends leaves the live camera running."""
        cameras = {"file": {"type": "images", "path": "colours"}, "live": {"type": "pattern", "fps": 100}}
        pipeline = assemble(configure(camera=None, cameras=cameras, outputs=[{"type": "jsonl", "path": "out.jsonl"}]))
        run_until(pipeline, lambda: pipeline.counts.results.get("live", 0) >= 5)
        results = lines(tmp_path / "out.jsonl")
        assert [r["frame"] for r in results if r["camera"] == "file"] == [1, 2, 3]
        live = [r for r in results if r["camera"] == "live"]
        assert live[-1]["frame"] == len(live) + sum(r["dropped"] for r in live)

    def test_one_file_without_a_frame(self, assemble: Assemble, configure: Any, colours: Path, tmp_path: Path) -> None:
        """A file without a readable frame fails the run under its own key, after the others' results."""
        (tmp_path / "a.jpg").write_bytes(b"")
        cameras = {"bad": {"type": "images", "path": "a.jpg"}, "good": {"type": "images", "path": "colours"}}
        outputs = [{"type": "jsonl", "path": "out.jsonl"}]
        with pytest.raises(CameraError, match="no frame could be read") as caught:
            run(assemble(configure(camera=None, cameras=cameras, outputs=outputs)))
        assert caught.value.key == "cameras.bad.path"
        assert len(lines(tmp_path / "out.jsonl")) == 3

    @pytest.mark.usefixtures("nothing_left")
    def test_once_takes_one_of_each(self, assemble: Assemble, configure: Any, colours: Path, capfd: Any) -> None:
        """Of several cameras, `--once` gives one result of each."""
        cameras = {
            "file": {"type": "images", "path": "colours"},
            "live": {"type": "pattern"},
            "other": {"type": "pattern", "fps": 5},
        }
        daemon.once(assemble(configure(camera=None, cameras=cameras)))
        results = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
        assert sorted(r["camera"] for r in results) == ["file", "live", "other"]
        assert [r["seq"] for r in results] == [1, 2, 3]

    @pytest.mark.usefixtures("nothing_left")
    def test_once_says_which_gave_none(
        self, assemble: Assemble, configure: Any, colours: Path, tmp_path: Path, capfd: Any
    ) -> None:
        """The cameras that gave no frame are told by their keys, and the others' results are there."""
        (tmp_path / "a.jpg").write_bytes(b"")
        cameras = {
            "bad": {"type": "images", "path": "a.jpg"},
            "late": {"type": "pattern", "start_timeout": "1ms"},
            "good": {"type": "images", "path": "colours"},
        }
        with pytest.raises(NoFrameError) as caught:
            daemon.once(assemble(configure(camera=None, cameras=cameras)))
        assert caught.value.exit_code == 69
        assert sorted(str(caught.value).split("; ")) == [
            "cameras.bad.path: no frame could be read",
            "cameras.late.start_timeout: no frame within 0.001 s: it does not answer",
        ]
        [line] = capfd.readouterr().out.splitlines()
        assert json.loads(line)["camera"] == "good"


class TestOnce:
    def test_one_frame(self, assemble: Assemble, configure: Any, colours: Path, capfd: Any) -> None:
        """One frame is taken, and one result written."""
        daemon.once(assemble(configure(camera={"type": "images", "path": "colours"})))
        [line] = capfd.readouterr().out.splitlines()
        assert (json.loads(line)["seq"], json.loads(line)["source"]) == (1, "1.png")

    def test_first_that_can_be_read(self, assemble: Assemble, configure: Any, colours: Path, capfd: Any) -> None:
        """A damaged first picture does not count."""
        (colours / "0.png").write_bytes(b"")
        daemon.once(assemble(configure(camera={"type": "images", "path": "colours"})))
        assert json.loads(capfd.readouterr().out)["source"] == "1.png"

    @pytest.mark.usefixtures("nothing_left")
    def test_no_frame_in_time(self, assemble: Assemble, configure: Any) -> None:
        """Where no frame comes within `start_timeout`, that is said, with the time."""
        pipeline = assemble(configure(camera={"type": "pattern", "start_timeout": "1ms"}))
        started = time.monotonic()
        with pytest.raises(NoFrameError, match=r"no frame within 0\.001 s") as caught:
            daemon.once(pipeline)
        assert (caught.value.key, caught.value.exit_code) == ("camera.start_timeout", 69)
        assert time.monotonic() - started < 5

    @pytest.mark.usefixtures("nothing_left")
    def test_why_there_is_no_frame(self, assemble: Assemble, configure: Any) -> None:
        """What the camera's trouble was is said with it."""
        camera = {
            "type": "command",
            "command": ["false"],
            "format": "gray8",
            "width": 64,
            "height": 48,
            "start_timeout": "4s",
        }
        with pytest.raises(NoFrameError, match=r"no frame within 4 s: false ended with exit status 1 after 0 frames"):
            daemon.once(assemble(configure(camera=camera)))

    def test_lost_result(self, assemble: Assemble, configure: Any) -> None:
        """A result that could not be kept is a failure."""
        with pytest.raises(OutputError, match=r"results were lost: 1 at outputs\.0"):
            daemon.once(assemble(configure(outputs=[{"type": "jsonl", "path": "/dev/full"}])))


@dataclass
class Skipping:
    """As much of a feed as a summary looks at."""

    skipped: int
    name: str = "front"
    spoilt: Mapping[str, int] = field(default_factory=dict)


def test_summary() -> None:
    """A run is summed up in one line; what did not happen is not mentioned."""
    timing_ms = {"capture": 20.0, "inference": 300.0}
    started = time.monotonic() - 2
    one = Counts(results={"door": 10}, dropped=3, started=started, timing_ms=timing_ms)
    assert daemon.summary(one, [Skipping(1)]) == (
        "10 results in 2.0 s; 5.0 a second; capture 2.00 ms, inference 30.00 ms; 3 live frames dropped;"
        " 1 frames skipped as unreadable"
    )
    two = Counts(results={"door": 4, "gate": 6}, started=started, timing_ms=timing_ms)
    assert daemon.summary(two, [Skipping(0), Skipping(0)]) == (
        "10 results in 2.0 s; 5.0 a second; capture 2.00 ms, inference 30.00 ms; door 4, gate 6"
    )
    spoilt = daemon.summary(one, [Skipping(0, "door", {"torn": 3, "lost": 1})])
    assert spoilt.endswith("; 3 live frames dropped; door: 3 times torn, 1 times lost")
    assert daemon.summary(Counts(started=time.monotonic()), []) == "0 results in 0.0 s"


# Where the wall clock may be asked: for the time that a result, a file or an answer carries, and of files for their age.
# Nothing else may depend on it, for on a board it jumps by years when a time service comes up.
WALL_CLOCK = {
    "camera/base.py": "a frame's stamp",
    "camera/http.py": "a frame's stamp",
    "camera/pattern.py": "a frame's stamp",
    "camera/program.py": "a frame's stamp",
    "camera/rtsp.py": "a frame's stamp",
    "camera/v4l2.py": "a frame's stamp",
    "output/budget.py": "which day it is",
    "output/logfile.py": "how old a file from before the start is",
    "output/mqtt.py": "the time of a state",
    "output/quota.py": "how old an unfinished file is",
    "result.py": "the name of a run",
    "service/watchdog.py": "the time in health.json",
}
WALL_CALLS = {
    "time.time",
    "time.time_ns",
    "time.localtime",
    "time.gmtime",
    "datetime.now",
    "datetime.utcnow",
    "date.today",
}
DAEMON = ("*.py", "camera/*.py", "model/*.py", "task/*.py", "output/*.py", "service/*.py")


def wall_calls(path: Path) -> set[str]:
    """Calls of functions that read the wall clock, and imports by which one could hide."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            found |= {call for call in WALL_CALLS if dotted == call or dotted.endswith(f".{call}")}
        elif isinstance(node, ast.ImportFrom) and node.module == "time":
            found |= {f"time.{alias.name}" for alias in node.names if f"time.{alias.name}" in WALL_CALLS}
    return found


def test_nothing_is_decided_by_the_wall_clock() -> None:
    """It is read only where a result, a file or an answer carries the time, or where a file from before the start is judged."""
    house = Path(daemon.__file__).parents[1]
    readers = {str(path.relative_to(house)) for pattern in DAEMON for path in house.glob(pattern) if wall_calls(path)}
    assert readers == set(WALL_CLOCK)


@pytest.mark.parametrize(
    "code", ["import time\ntime.time()", "from time import time_ns", "import datetime\ndatetime.datetime.now()"]
)
def test_readers_of_the_wall_clock_are_seen(tmp_path: Path, code: str) -> None:
    """However it is spelled."""
    (tmp_path / "a.py").write_text(code)
    assert wall_calls(tmp_path / "a.py")
