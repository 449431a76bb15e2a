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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_runner.camera.base import Grab
from edge_runner.camera.images import Images
from edge_runner.errors import CameraError, OutputError, SettingError
from edge_runner.model.store import Store
from edge_runner.pipeline import Pipeline
from edge_runner.service import daemon
from edge_runner.service.attempts import MOST, STARTS_FILE, Attempts
from edge_runner.service.reload import Source
from edge_runner.service.signals import STOPPING, Signals
from edge_runner.service.systemd import Systemd
from edge_runner.service.watchdog import Watchdog
from edge_runner.settings import load_settings

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


class TestBroughtUp:
    """A start with an installed model."""

    def start(self, config: Path, folder: Path | None = None) -> Pipeline:
        source = Source(lambda: load_settings(config), config)
        return daemon.brought_up(source, Watchdog(Systemd({}), folder))

    def killed(self, folder: Path) -> None:
        """The daemon was, in each of its first starts."""
        for _ in range(MOST):
            assert Attempts(folder).begin(Store().active("colour")) is None

    def test_outputs_that_do_not_fit(self, configure: Any, store: Callable[..., Store]) -> None:
        """A version whose labels are not those that an output waits for gives way; where none fits, it is said."""
        store("1")
        store("2", labels="rot\ngrün\nblau\n")

        def config(label: str) -> Path:
            outputs = [{"type": "console", "when": {"labels": [label]}}]
            path: Path = configure(model={"name": "colour"}, preprocess=None, outputs=outputs)
            return path

        engine = self.start(config("red")).engine
        assert engine.model.version == "1"
        assert engine.instead == "outputs.0.when.labels: no answer has the label 'red'; it has rot, grün, blau"
        with pytest.raises(SettingError, match="'rouge'; it has rot") as caught:
            self.start(config("rouge"))
        assert caught.value.key == "outputs.0.when.labels"

    @pytest.mark.parametrize("versions", [("1",), ("0", "1")], ids=["only one", "the one before is broken"])
    def test_killed_without_a_way_back(
        self, configure: Any, store: Callable[..., Store], tmp_path: Path, caplog: Any, versions: tuple[str, ...]
    ) -> None:
        """Who killed it may have been another: a model without another version to go to is loaded all the same."""
        for path in (store(*versions).folder / "colour").glob("0/model.tflite"):
            path.write_bytes(b"")
        self.killed(tmp_path)
        engine = self.start(configure(model={"name": "colour"}, preprocess=None), tmp_path).engine
        assert (engine.model.version, engine.instead) == ("1", None)
        [words] = [words for words in caplog.messages if "all the same" in words]
        assert "was killed, or hung, 2 times in a row as it brought it up; but no other version" in words
        assert not (tmp_path / STARTS_FILE).exists()


class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("live", [True, False], ids=["live", "file"])
    def test_ends_with_everything_on_disk(
        self, start_cli: Any, configure: Any, colours: Path, tmp_path: Path, number: signal.Signals, live: bool
    ) -> None:
        """A signal in the middle of a run ends it with 0; what was printed is in the file, each seq once, none missing."""
        camera = {"type": "pattern", "fps": 50} if live else {"type": "images", "path": "colours", "loop": True}
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
        assert time.monotonic() - sent < 25  # the frame comes after 50 s
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
        new = []

        def enough() -> bool:
            if (pipeline.counts.age_ms or 1e9) < 50:
                new.append(True)
            return count(pipeline) >= 8 and bool(new)

        elapsed_s = run_until(pipeline, enough)
        results = lines(tmp_path / "out.jsonl")
        assert 8 <= len(results) <= elapsed_s * 20 + 2
        assert results[-1]["frame"] == len(results) + sum(r["dropped"] for r in results)
        assert sum(r["dropped"] for r in results[1:]) >= 4 * (len(results) - 1)

    def test_without_it_as_fast_as_frames_come(self, assemble: Assemble, configure: Any, tmp_path: Path) -> None:
        """Without a bound every frame of a slow camera is taken."""
        camera = {"type": "pattern", "fps": 25}
        pipeline = assemble(configure(camera=camera, outputs=[{"type": "jsonl", "path": "out.jsonl"}]))
        run_until(pipeline, lambda: count(pipeline) >= 8)
        results = lines(tmp_path / "out.jsonl")
        assert len(results) >= 8
        assert [r["dropped"] for r in results].count(0) > len(results) / 2


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
    with Signals() as signals:
        watcher.start()
        try:
            daemon.run(pipeline, signals)
        finally:
            watcher.join()  # its signal has come, while somebody hears it
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


# Where the wall clock may be asked: for the time that a result, a file or an answer carries, and whether to trust that; of files
# for their age.
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
    "pipeline.py": "whether the clock was set since a frame's stamp",
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
    """It is read only for the time that a result, a file or an answer carries, or where a file from before the start is judged."""
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
