"""A daemon whose configuration, model and outputs are changed while it runs: what is new comes, what is wrong changes nothing."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lab.board import descendants, runs
from lab.notified import wait_until
from lab.watched import Watched

from edge_runner.model.keeper import keeping
from edge_runner.model.store import Store
from edge_runner.pipeline import Board, Pipeline
from edge_runner.pipeline import assemble as assemble_whole
from edge_runner.service import daemon as daemons
from edge_runner.service import reload as subject
from edge_runner.service.reload import Source
from edge_runner.service.signals import Signals
from edge_runner.service.systemd import Systemd
from edge_runner.service.watchdog import Watchdog
from edge_runner.settings import load_settings

CAMERA = {"type": "pattern", "width": 64, "height": 48, "fps": 60}
JSONL = {"type": "jsonl", "path": "out.jsonl"}
Start = Callable[..., Watched]


def whole(results: list[dict[str, Any]], first: int = 1) -> bool:
    """Whether each result of one run is there once, from the first on, and none of a camera's frames is lost count of."""
    assert [result["seq"] for result in results] == list(range(first, first + len(results)))
    assert len({result["run"] for result in results}) == 1
    return True


class TestUnderLoad:
    def test_what_did_not_change_goes_on(self, watched: Start, configure: Any, tmp_path: Path) -> None:
        """No result is lost or repeated over any reload; cameras and outputs stay as they are, but those that were changed."""
        configure(camera=CAMERA, outputs=[JSONL])
        config = tmp_path / "camera.yaml"
        daemon = watched(config).ready()
        [worker], inode = daemon.workers(), (tmp_path / "out.jsonl").stat().st_ino
        daemon.goes_on()

        assert daemon.reload().endswith("reload: done; nothing had to be opened anew")
        assert daemon.workers() == [worker]
        daemon.goes_on()

        configure(camera=CAMERA, outputs=[JSONL, {"type": "jsonl", "path": "two.jsonl"}])
        assert daemon.reload().endswith("reload: done; outputs.1 opened anew")
        daemon.goes_on("two.jsonl")
        assert daemon.results("two.jsonl")[0]["seq"] > 1
        assert daemon.workers() == [worker]

        configure(camera=CAMERA, outputs=[{"type": "jsonl", "path": "two.jsonl"}, {**JSONL, "keep": 3}])
        assert daemon.reload().endswith("reload: done; outputs.1 opened anew, 1 output closed")
        daemon.goes_on("two.jsonl")
        assert daemon.workers() == [worker]

        model = {"path": str(Path(__file__).parents[1] / "data" / "logits.tflite"), "labels": str(tmp_path / "l.txt")}
        (tmp_path / "l.txt").write_text("red\ngreen\nblue\n")
        configure(camera=CAMERA, model=model, outputs=[{"type": "jsonl", "path": "two.jsonl"}, {**JSONL, "keep": 3}])
        assert "reload: done; model logits " in daemon.reload()
        wait_until(lambda: daemon.results()[-1]["model"]["name"] == "logits")

        configure(camera={**CAMERA, "fps": 61}, model=model, outputs=[JSONL])
        line = daemon.reload()
        assert "camera camera opened anew" in line
        assert "camera camera closed" not in line
        daemon.goes_on()
        [other] = daemon.workers()
        assert other != worker
        assert not runs(worker)

        assert daemon.stop() == 0
        assert whole(daemon.results())
        two = daemon.results("two.jsonl")
        assert whole(two, two[0]["seq"])
        assert (tmp_path / "out.jsonl").stat().st_ino == inode
        daemon.systemd.wait_for("STOPPING")
        reloads = daemon.systemd.all("RELOADING")
        assert len(reloads) == 5
        words = [next(iter(fields)) for _, fields in daemon.systemd.said]
        order = [word for word in words if word in ("READY", "RELOADING", "STOPPING")]
        assert order == ["READY", *["RELOADING", "READY"] * 5, "STOPPING"]
        assert "error" not in "".join(daemon.words)

    def test_two_in_quick_succession(self, watched: Start, configure: Any, tmp_path: Path) -> None:
        """A signal that comes while a reload is under way is not lost: what was written last is what runs."""
        config = configure(camera=CAMERA, outputs=[JSONL])
        daemon = watched(config).ready()
        daemon.process.send_signal(signal.SIGHUP)
        daemon.hears("reload: SIGHUP")
        time.sleep(0.3)  # it has been read by now
        configure("new.yaml", camera=CAMERA, outputs=[JSONL, {"type": "jsonl", "path": "two.jsonl"}]).replace(config)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.goes_on("two.jsonl")
        daemon.hears("reload: done", 2)
        assert daemon.stop() == 0
        assert whole(daemon.results())


class TestWrong:
    def test_the_old_one_runs_on(self, watched: Start, configure: Any, tmp_path: Path) -> None:
        """Whatever is wrong: nothing changes, one line says where and why, and health does, until there is a good one."""
        config = configure(camera=CAMERA, outputs=[JSONL])
        daemon = watched(config).ready()
        daemon.becomes("running")
        [worker] = daemon.workers()
        (tmp_path / "no.tflite").write_bytes(b"TFL3 this is no model")
        locked = os.open(tmp_path / "locked.jsonl", os.O_CREAT | os.O_WRONLY)
        fcntl.flock(locked, fcntl.LOCK_EX)
        good = json.loads(config.read_text())
        wrong: list[tuple[Any, str]] = [
            ("camera: [", r"camera\.yaml:\d+: "),
            ({**good, "camera": {**CAMERA, "widht": 64}}, r"camera\.yaml:\d+: camera\.widht: unknown key.* 'width'"),
            ({**good, "model": {"path": "no.tflite"}}, r"camera\.yaml:\d+: model\.path: .*no\.tflite"),
            ({**good, "outputs": [{**JSONL, "path": "/proc/none/out.jsonl"}]}, r"outputs\.0\.path: .*/proc/none"),
            ({**good, "outputs": [JSONL, {**JSONL, "path": "locked.jsonl"}]}, r"outputs\.1\.path: .*locked\.jsonl"),
            ({**good, "outputs": [{**JSONL, "path": "locked.jsonl"}]}, r"outputs\.0\.path: .*locked\.jsonl"),
        ]
        for content, says in wrong:
            config.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
            line = daemon.reload()
            assert re.search(rf"error: reload: .*{says}.*; all goes on as before$", line), line
            reason = f"reload_failed: {line.split('error: reload: ')[1].removesuffix('; all goes on as before')}"
            wait_until(lambda words=reason: daemon.health()["reasons"] == [words])
            assert daemon.health()["health"] == "degraded"
            daemon.goes_on(more=3)
            assert daemon.workers() == [worker]
        assert len(daemon.said("edge-runner: error:")) == len(wrong)
        config.write_text(json.dumps(good))
        assert daemon.reload().endswith("done; nothing had to be opened anew")
        wait_until(lambda: daemon.health()["reasons"] == [])
        os.close(locked)
        assert daemon.stop() == 0
        assert whole(daemon.results())


class TestTheEnd:
    @pytest.mark.parametrize("after_s", [0.02, 0.5])
    def test_in_the_middle_of_a_reload(self, watched: Start, configure: Any, after_s: float) -> None:
        """SIGTERM comes first: it ends with 0, nothing is lost, and no process is left."""
        daemon = watched(configure(camera=CAMERA, outputs=[JSONL])).ready()
        started = set(descendants(daemon.process.pid))
        daemon.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + after_s
        while time.monotonic() < until:
            started |= set(descendants(daemon.process.pid))
            time.sleep(0.01)
        assert daemon.stop() == 0
        assert "Traceback" not in "".join(daemon.words)
        wait_until(lambda: not [pid for pid in started if runs(pid)])
        assert whole(daemon.results())

    def test_of_a_terminal(self, configure: Any, tmp_path: Path) -> None:
        """In a terminal SIGHUP says that the terminal has gone: the daemon ends."""
        master, slave = pty.openpty()
        command = [sys.executable, "-m", "edge_runner", "--config", str(configure(camera=CAMERA, outputs=[JSONL]))]
        child = subprocess.Popen(command, stdin=slave, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        os.close(slave)
        try:
            wait_until(lambda: (tmp_path / "out.jsonl").exists() and (tmp_path / "out.jsonl").stat().st_size)
            child.send_signal(signal.SIGHUP)
            _, errors = child.communicate(timeout=30)
        finally:
            child.kill()
            os.close(master)
        assert child.returncode == 0
        assert "stopped: SIGHUP" in errors

    def test_ignored_as_by_nohup(self, watched: Start, configure: Any) -> None:
        """Where SIGHUP was ignored, as nohup has it, it still is."""
        config = configure(camera=CAMERA, outputs=[JSONL])
        daemon = watched(config, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)).ready()
        daemon.process.send_signal(signal.SIGHUP)
        daemon.goes_on(more=40)
        assert daemon.said("reload") == []
        assert daemon.stop() == 0


class TestStore:
    def test_versions(self, watched: Start, configure: Any, tmp_path: Path, store: Callable[..., Store]) -> None:
        """Another version that becomes active is taken up; one that is damaged is not, now or at the next start, which is said."""
        versions = store("1")
        config = configure(camera=CAMERA, model={"name": "colour"}, preprocess=None, outputs=[JSONL])
        daemon = watched(config).ready()
        [worker] = daemon.workers()
        assert daemon.goes_on()["model"]["version"] == "1"
        store("2", "3")
        assert daemon.hears("reload: done; model colour 3").startswith("edge-runner: info: reload: done")
        daemon.hears(" of model colour is active now; ")
        wait_until(lambda: daemon.results()[-1]["model"]["version"] == "3")
        wait_until(lambda: daemon.health()["model"] == {"name": "colour", "version": "3"})

        path = versions.folder / "colour" / "2" / "model.tflite"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        with keeping(versions) as keeper:
            keeper.switch("colour", "2")
        health = daemon.becomes("degraded", "model_fallback")
        assert re.search(r"colour/2/model\.tflite was changed .*; colour 3 runs instead", health["reasons"][0]), health
        assert health["model"]["version"] == "3"
        assert daemon.goes_on()["model"]["version"] == "3"
        assert daemon.reload()  # it stays so
        assert daemon.becomes("degraded", "model_fallback")["model"]["version"] == "3"
        assert len([line for line in daemon.said("error: reload: ") if line.endswith("; colour 3 runs on")]) == 1
        assert daemon.workers() == [worker]
        assert daemon.stop() == 0
        assert whole(daemon.results())

        daemon = watched(config).ready()
        assert daemon.becomes("degraded", "model_fallback")["model"]["version"] == "3"
        assert len(daemon.said("error: the active version of model colour does not come up: ")) == 1
        store("2")  # mended, in the same place
        daemon.hears("reload: done; model colour 2")
        wait_until(lambda: daemon.health()["reasons"] == [])
        with keeping(versions) as keeper:
            keeper.switch("colour", "1")
        daemon.hears("reload: done; model colour 1")
        wait_until(lambda: daemon.health()["reasons"] == [])
        wait_until(lambda: daemon.results()[-1]["model"]["version"] == "1")


class Driven:
    """The daemon's loop in this process, with what the board says in the test's hands."""

    def __init__(self, config: Path) -> None:
        self.watchdog = Watchdog(Systemd({}))
        self.source = Source(lambda: load_settings(config), config)
        self.pipeline = assemble_whole(load_settings(config), self.watchdog.board)

    def run(self, script: Callable[[], None]) -> None:
        """Run until the script, which another thread runs, has come to its end."""
        failed: list[BaseException] = []

        def watch() -> None:
            try:
                script()
            except BaseException as error:
                failed.append(error)
            os.kill(os.getpid(), signal.SIGTERM)

        watcher = threading.Thread(target=watch)
        with Signals() as signals:
            watcher.start()
            try:
                daemons.run(self.pipeline, signals, self.watchdog, self.source)
            finally:
                watcher.join()  # its signal has come, while somebody hears it
        if failed:
            raise failed[0]

    @property
    def now(self) -> Pipeline:
        """The pipeline that runs."""
        running = self.watchdog.board.pipeline
        assert running
        return running

    def results(self) -> int:
        return sum(self.now.counts.results.values())


@pytest.mark.usefixtures("nothing_left")
class TestLittleMemory:
    @pytest.mark.parametrize("good", [True, False], ids=["good", "wrong"])
    def test_stop_and_swap(
        self, configure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, good: bool
    ) -> None:
        """Where two models have no room, the one that runs is unloaded while the new one is tried out, and that is said.

        It is loaded again where the new one is wrong.
        """
        caplog.set_level("INFO")
        (tmp_path / "no.tflite").write_bytes(b"TFL3 this is no model")
        driven = Driven(configure(camera=CAMERA, outputs=[JSONL]))
        monkeypatch.setattr(subject, "memory", lambda: 1_000_000)
        unloaded = []
        real = driven.pipeline.engine.interpreter.unload
        monkeypatch.setattr(driven.pipeline.engine.interpreter, "unload", lambda: (unloaded.append(1), real()))

        def script() -> None:
            wait_until(lambda: driven.results() > 3)
            before = driven.pipeline.engine.interpreter
            model = {"path": str(Path(__file__).parents[1] / "data" / "logits.tflite"), "labels": "l.txt"}
            (tmp_path / "l.txt").write_text("red\ngreen\nblue\n")
            configure(camera=CAMERA, model=model if good else {"path": "no.tflite"}, outputs=[JSONL])
            os.kill(os.getpid(), signal.SIGHUP)
            wait_until(lambda: any(line.startswith("reload: done") or "as before" in line for line in caplog.messages))
            results = driven.results()
            wait_until(lambda: driven.results() > results + 5)
            assert driven.now.engine.interpreter.loaded
            assert (driven.now.engine.interpreter is before) is not good

        driven.run(script)
        assert unloaded == [1]
        [line] = [line for line in caplog.messages if "stops until" in line]
        assert re.fullmatch(
            r"reload: 1 MB are free, two models need \d+ MB; colour stops until the other one is ready", line
        )
        lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert whole(lines)
        assert lines[-1]["model"]["name"] == ("logits" if good else "colour")

    @pytest.mark.parametrize("good", [True, False], ids=["good", "wrong"])
    def test_what_was_seen_before(
        self, configure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, good: bool
    ) -> None:
        """A frame from before the pause gives no result after it, whichever model runs then: it shows what is long past."""
        caplog.set_level("INFO")
        (tmp_path / "no.tflite").write_bytes(b"TFL3 this is no model")
        driven = Driven(configure(camera=CAMERA, outputs=[JSONL]))
        monkeypatch.setattr(subject, "memory", lambda: 1_000_000)
        stale: list[int] = []
        real = daemons.Turns.idle

        def idle(turns: daemons.Turns, beside: Any, until: float) -> None:
            """The camera was asked for a frame just before the pause, and has answered."""
            [lane] = turns.lanes
            while not lane.feed.ready:
                lane.feed.poll()
                lane.feed.want()
                time.sleep(0.001)
            stale.append(lane.feed._shot.stamp.number)  # type: ignore[attr-defined]
            real(turns, beside, until)

        monkeypatch.setattr(daemons.Turns, "idle", idle)

        def script() -> None:
            wait_until(lambda: driven.results() > 3)
            model = {"path": str(Path(__file__).parents[1] / "data" / "colour.tflite"), "labels": "l.txt"}
            (tmp_path / "l.txt").write_text("r\ng\nb\n")
            configure(camera=CAMERA, model=model if good else {"path": "no.tflite"}, outputs=[JSONL])
            os.kill(os.getpid(), signal.SIGHUP)
            wait_until(
                lambda: any(line.startswith("reload: done; model") or "as before" in line for line in caplog.messages)
            )
            results = driven.results()
            wait_until(lambda: driven.results() > results + 5)

        driven.run(script)
        frames = [json.loads(line)["frame"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert len(set(stale)) == 1
        assert min(frames) < stale[0] < max(frames)
        assert stale[0] not in frames

    def test_there_is_no_way_back(self, configure: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A model that cannot even be loaded again is a failure that a new start may mend: not the exit code that stays down."""
        (tmp_path / "no.tflite").write_bytes(b"TFL3 this is no model")
        driven = Driven(configure(camera=CAMERA, outputs=[JSONL]))
        monkeypatch.setattr(subject, "memory", lambda: 1_000_000)
        interpreter = driven.pipeline.engine.interpreter

        def refuse(content: bytes) -> None:
            raise daemons.ModelError("no memory for it")

        monkeypatch.setattr(interpreter, "load", refuse)

        def script() -> None:
            wait_until(lambda: driven.results() > 3)
            configure(camera=CAMERA, model={"path": "no.tflite"}, outputs=[JSONL])
            os.kill(os.getpid(), signal.SIGHUP)
            wait_until(lambda: driven.watchdog.progress.leaving)

        with pytest.raises(daemons.EdgeRunnerError, match="no memory for it") as caught:
            driven.run(script)
        assert caught.value.exit_code == 1


class TestOneThatHangs:
    """A reload that does not come to an end, as on a dead network drive."""

    @pytest.fixture
    def hanging(self, configure: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Driven, threading.Event]]:
        driven, free = Driven(configure(camera=CAMERA, outputs=[JSONL])), threading.Event()
        read = driven.source.read
        driven.source = replace(driven.source, read=lambda: free.wait(60) and read())
        monkeypatch.setattr(subject, "TIMEOUT_S", 1.0)
        monkeypatch.setattr(subject, "SLACK_S", 0.0)
        yield driven, free
        driven.source.config.unlink()  # what still reads has nothing more to do
        free.set()
        wait_until(lambda: "reload" not in {thread.name for thread in threading.enumerate()})

    def test_it_is_given_up(self, hanging: tuple[Driven, threading.Event], caplog: pytest.LogCaptureFixture) -> None:
        """That is said; the daemon goes on, and the next one has its turn."""
        driven, free = hanging
        caplog.set_level("INFO")

        def script() -> None:
            wait_until(lambda: driven.results() > 3)
            os.kill(os.getpid(), signal.SIGHUP)
            wait_until(lambda: any("does not come to an end" in line for line in caplog.messages))
            results = driven.results()
            wait_until(lambda: driven.results() > results + 5)
            wait_until(lambda: "reload_failed" in str(driven.watchdog.tell({})["reasons"]))
            subject.TIMEOUT_S = 60.0
            free.set()
            os.kill(os.getpid(), signal.SIGHUP)
            wait_until(lambda: any(line.startswith("reload: done") for line in caplog.messages))

        driven.run(script)

    def test_what_was_asked_for_meanwhile(
        self, hanging: tuple[Driven, threading.Event], caplog: pytest.LogCaptureFixture
    ) -> None:
        """It begins then, for it may be another version that is active: nobody asks for that twice."""
        driven, _ = hanging
        caplog.set_level("INFO")
        with Signals() as signals:
            loop = daemons.Daemon(driven.pipeline, signals, driven.watchdog, driven.source)
            loop._begin_reload("SIGHUP")
            loop._begin_reload("version 2 of model colour is active now")
            first = loop._reload
            assert first
            loop._forsake(first)
            second = loop._reload
        assert caplog.messages[-1].startswith("reload: again; ")
        assert second
        assert second is not first
        second.forsake()

    def test_without_a_model(self, hanging: tuple[Driven, threading.Event]) -> None:
        """Where the one that ran was unloaded, only a new start helps: a failure, and no exit code that stays down."""
        driven, _ = hanging

        def script() -> None:
            wait_until(lambda: driven.results() > 3)
            os.kill(os.getpid(), signal.SIGHUP)
            driven.pipeline.engine.interpreter.unload()
            wait_until(lambda: driven.watchdog.progress.leaving)

        with pytest.raises(daemons.EdgeRunnerError, match="does not come to an end") as caught:
            driven.run(script)
        assert caught.value.exit_code == 1


@pytest.mark.parametrize("saves", [1, 99])
@pytest.mark.parametrize("name", ["camera.yaml", "camera.env"])
def test_saved_while_it_is_tried_out(
    configure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, saves: int
) -> None:
    """What is taken is what was tried out: it is read again, and given up where that goes on and on."""
    driven = Driven(configure(device="${DEVICE:-pi}", camera=CAMERA, outputs=[JSONL]))
    tried: list[Path] = []

    def rehearse(config: Path, sets: Any) -> None:
        tried.append(config)
        if len(tried) <= saves:
            with (tmp_path / name).open("a") as file:
                file.write("\n" if name.endswith("yaml") else "DEVICE=door\n")

    monkeypatch.setattr(subject, "rehearse", rehearse)
    attempt = subject.Reload(driven.source, driven.pipeline, driven.watchdog.board, lambda: None)
    wait_until(lambda: attempt.done)
    attempt.close()
    if saves == 1:
        assert len(tried) == 2
        assert attempt.pipeline
        assert attempt.pipeline.settings.device == ("pi" if name.endswith("yaml") else "door")
    else:
        assert attempt.error == f"{tmp_path / 'camera.yaml'} was changed again and again while it was tried out"


def test_nothing_to_read_again(configure: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A loop that was given no source says so, and goes on."""
    driven = Driven(configure(camera=CAMERA, outputs=[JSONL]))
    driven.source = None  # type: ignore[assignment]

    def script() -> None:
        wait_until(lambda: driven.results() > 3)
        os.kill(os.getpid(), signal.SIGHUP)
        wait_until(lambda: "SIGHUP: there is nothing to be read again" in caplog.messages)

    driven.run(script)
    assert isinstance(driven.watchdog.board, Board)
