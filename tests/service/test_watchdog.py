"""What systemd, the log and health.json are told of a daemon that runs, that hangs, and that is killed as it starts."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lab.notified import wait_until
from lab.watched import Watched

from edge_runner.errors import ConfigError
from edge_runner.pipeline import Counts
from edge_runner.pipeline import assemble as assemble_whole
from edge_runner.service import daemon
from edge_runner.service import watchdog as subject
from edge_runner.service.attempts import STARTS_FILE
from edge_runner.service.device import Vitals
from edge_runner.service.health import Sample
from edge_runner.service.reload import Source
from edge_runner.service.systemd import STAGE_S, Systemd
from edge_runner.service.watchdog import Pace, Sampled, Watchdog, runtime_folder
from edge_runner.settings import load_settings

FRAMES = Path(__file__).parents[1] / "lab" / "frames.py"
JSONL = [{"type": "jsonl", "path": "out.jsonl"}]
WATCHDOG_S = 1.6
WAITING = "starting: waiting for the first frame of each camera"
HUNG = "no proof of progress any more: the model has not answered for "
Start = Callable[..., Watched]


def hang(folder: Path) -> dict[str, str]:
    """The environment in which the model hangs while `folder`/hang is there."""
    return {"EDGE_RUNNER_HANG": str(folder / "hang")}


def test_what_a_killed_daemon_said(tmp_path: Path) -> None:
    """The next one takes its health.json away before anything that takes time."""
    (tmp_path / "health.json").write_text("{}")

    def read() -> Any:
        assert not (tmp_path / "health.json").exists()
        raise ConfigError(["wrong"])

    with pytest.raises(ConfigError):
        daemon.brought_up(Source(read, tmp_path / "camera.yaml"), Watchdog(Systemd({}), tmp_path))


def test_no_password_is_told(watched: Start, configure: Any, tmp_path: Path) -> None:
    """What a camera's program says goes into health, but for what a variable holds: that is nobody's business."""
    says = 'echo "login $0 was refused" >&2; exit 1'
    camera = {"type": "command", "command": ["sh", "-c", says, "${PW}"], "format": "gray8", "width": 64, "height": 48}
    config = configure(camera=camera, outputs=JSONL)
    (tmp_path / "camera.env").write_text("PW=s3cretpw\n")
    daemon = watched(config).ready()
    daemon.becomes("degraded", "camera_lost")
    assert "login ${PW} was refused" in daemon.health()["reasons"][0]
    wait_until(lambda: "camera_lost" in str(daemon.systemd.all("STATUS")))
    assert daemon.stop() == 0
    assert "s3cretpw" not in "".join(daemon.words) + str(daemon.systemd.said) + json.dumps(daemon.health())


def test_the_board_is_looked_at_again() -> None:
    """A look that fails, as on a dying disk, is not the last one."""
    looks = []

    def read() -> Sample:
        looks.append(1)
        if len(looks) == 1:
            raise PermissionError("no")
        return Sample(synced=False)

    sampled = Sampled(read)
    sampled.start()
    try:
        wait_until(lambda: not sampled.value.synced)
    finally:
        sampled.stop()


def test_lost_standard_output(watched: Start, configure: Any) -> None:
    """Under systemd, an only output that nobody reads any more ends it with 1, after which it is started again."""
    reader, writer = os.pipe()
    daemon = watched(configure(camera={"type": "pattern", "width": 64, "height": 48}), stdout=writer)
    os.close(writer)
    assert os.read(reader, 1) == b"{"
    os.close(reader)
    assert daemon.process.wait(30) == 1
    wait_until(lambda: daemon.said("error: whoever read the results has gone"))


class TestStart:
    def test_from_the_first_word_to_the_last(self, watched: Start, configure: Any, tmp_path: Path) -> None:
        """Stages with time for each, READY, a status, proof of life; health.json, for all to read; and the end."""
        config = configure(camera={"type": "pattern", "fps": 50}, outputs=JSONL)
        daemon = watched(config, 60.0, preexec_fn=lambda: os.umask(0o027))
        daemon.ready()
        health = daemon.becomes("running")
        daemon.systemd.wait_for("WATCHDOG", 1)
        daemon.systemd.wait_for("STATUS", says="running: ")
        assert stat.S_IMODE((daemon.runtime / "health.json").stat().st_mode) == 0o644
        assert (health["pid"], health["config"], health["reasons"]) == (daemon.process.pid, str(config), [])
        assert health["model"]["name"] == "colour"
        assert health["results"] >= 1
        assert health["age_ms"] > 0
        assert 0 < health["monotonic"] <= time.monotonic()
        assert {"time", "status", "fps", "dropped", "clock", "lost"} <= set(health)
        assert health["status"] in daemon.systemd.all("STATUS")
        assert daemon.stop() == 0
        daemon.systemd.wait_for("STOPPING")
        words = [list(fields) for _, fields in daemon.systemd.said]
        stages = [fields["STATUS"] for _, fields in daemon.systemd.said if "EXTEND_TIMEOUT_USEC" in fields]
        version = health["model"]["version"]
        assert stages[:2] == ["starting: reading the model", f"starting: loading colour {version}"]
        assert set(stages[2:]) <= {WAITING}
        assert set(daemon.systemd.all("EXTEND_TIMEOUT_USEC")) == {f"{STAGE_S * 1e6:.0f}"}
        assert daemon.systemd.all("READY") == ["1"]
        assert words.index(["READY"]) > words.index(["STATUS", "EXTEND_TIMEOUT_USEC"])
        assert words.index(["WATCHDOG"]) < words.index(["STOPPING"])
        assert ["READY"] not in words[words.index(["STOPPING"]) :]
        assert not (daemon.runtime / "health.json").exists()

    def test_only_once_each_camera_gave_a_frame(self, watched: Start, configure: Any, tmp_path: Path) -> None:
        """READY waits for every camera's first result; meanwhile there is proof of life."""
        go = tmp_path / "go"
        wait = f"while [ ! -e {go} ]; do sleep 0.1; done; exec {sys.executable} {FRAMES} runs"
        late = {"type": "command", "command": ["sh", "-c", wait], "format": "gray8", "width": 64, "height": 48}
        late["start_timeout"] = "60s"
        cameras = {"first": {"type": "pattern", "fps": 50}, "late": late}
        daemon = watched(configure(camera=None, cameras=cameras, outputs=JSONL), 60.0)
        daemon.goes_on(more=20)
        daemon.systemd.wait_for("WATCHDOG", 2)
        assert daemon.systemd.all("READY") == []
        assert daemon.health()["health"] == "starting"
        assert daemon.systemd.wait_for("EXTEND_TIMEOUT_USEC") == f"{STAGE_S * 1e6:.0f}"
        daemon.systemd.wait_for("STATUS", 1, says=WAITING)
        go.touch()
        daemon.ready().becomes("running")
        wait_until(lambda: {result["camera"] for result in daemon.results()} == {"first", "late"})

    def test_a_camera_that_is_down(self, watched: Start, configure: Any) -> None:
        """A camera in its retry is no reason not to be up: it is READY, degraded, with why, and alive."""
        camera = {"type": "command", "command": ["false"], "format": "gray8", "width": 64, "height": 48}
        daemon = watched(configure(camera=camera, outputs=JSONL), 60.0).ready()
        health = daemon.becomes("degraded", "camera_lost")
        assert health["reasons"] == ["camera_lost: camera: false ended with exit status 1 after 0 frames"]
        daemon.systemd.wait_for("STATUS", says="degraded: 0.0 results/s; camera_lost: camera: false ended")
        daemon.systemd.wait_for("WATCHDOG", len(daemon.systemd.all("WATCHDOG")) + 2)
        assert daemon.stop() == 0
        assert len(daemon.said("health: ")) == 1

    def test_a_file_that_ends_at_once(self, watched: Start, configure: Any, colours: Path) -> None:
        """To systemd a service that ends before it was READY has failed; one that did its work is READY first."""
        daemon = watched(configure(camera={"type": "images", "path": "colours"}, outputs=JSONL))
        assert daemon.process.wait(60) == 0
        daemon.systemd.wait_for("STOPPING")
        words = [next(iter(fields)) for _, fields in daemon.systemd.said]
        assert [word for word in words if word in ("READY", "STOPPING")] == ["READY", "STOPPING"]


class TestHang:
    def test_of_the_model(self, watched: Start, configure: Any, tmp_path: Path) -> None:
        """From the first frame on: not READY. Later: no proof of life any more, failed, one line. Once it answers, all comes back.

        And a model that was seen to be slow is given more time, for as long as it is.
        """
        (tmp_path / "hang").touch()
        daemon = watched(configure(outputs=JSONL), WATCHDOG_S, environ=hang(tmp_path))
        daemon.hears("no proof of progress any more: the model has not answered")
        daemon.becomes("failed", "no_progress")
        assert daemon.systemd.all("READY") == []
        (tmp_path / "hang").unlink()
        daemon.ready()
        daemon.systemd.wait_for("WATCHDOG_USEC")
        [more, *_] = daemon.systemd.all("WATCHDOG_USEC")
        assert float(more) / 1e6 > 8 * WATCHDOG_S / 2
        wait_until(lambda: float(daemon.systemd.all("WATCHDOG_USEC")[-1]) <= float(more) / 2)
        daemon.stop()

    def test_while_it_runs(self, watched: Start, configure: Any, tmp_path: Path) -> None:
        """Pings end within the limit and one line says why; they come back with the model."""
        daemon = watched(configure(outputs=JSONL), WATCHDOG_S, environ=hang(tmp_path)).ready()
        daemon.becomes("running")
        before = len(daemon.said(HUNG))  # of a machine that was held up
        (tmp_path / "hang").touch()
        line = daemon.hears(HUNG, before + 1)
        daemon.becomes("failed", "no_progress")
        pings = daemon.systemd.all("WATCHDOG")
        time.sleep(WATCHDOG_S)
        assert daemon.systemd.all("WATCHDOG") == pings
        assert line.startswith("edge-runner: error: ")
        assert line.endswith("; systemd will start it anew")
        assert len(daemon.said(HUNG)) == before + 1
        (tmp_path / "hang").unlink()
        daemon.systemd.wait_for("WATCHDOG", len(pings))
        daemon.hears("there is progress again")
        daemon.goes_on()
        assert daemon.stop() == 0

    @pytest.mark.parametrize("worked", [True, False], ids=["later", "from the start"])
    def test_of_an_output(self, watched: Start, configure: Any, worked: bool) -> None:
        """A console that nobody reads: where it worked, a new start may help, and pings end; where it never did, they go on."""
        reader, writer = os.pipe()
        try:
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
            if not worked:
                os.write(writer, b"x" * 4096)
            outputs = [{"type": "console"}, *JSONL]
            config = configure(camera={"type": "pattern", "fps": 300}, outputs=outputs)
            daemon = watched(config, WATCHDOG_S, stdout=writer).ready()
            ready_at = time.monotonic()
            if worked:
                daemon.becomes("failed", "no_progress", "output_backlog")
                pings = daemon.systemd.all("WATCHDOG")
                time.sleep(WATCHDOG_S)
                assert daemon.systemd.all("WATCHDOG") == pings
                assert daemon.said("no proof of progress any more: ")
                hangs = "no_progress: outputs.0 (console): hangs in the middle of its work"
                wait_until(lambda: daemon.health()["reasons"][0].startswith(hangs))
            else:
                daemon.becomes("degraded", "output_backlog")
                wait_until(lambda: daemon.systemd.times("WATCHDOG")[-1] > ready_at + 2 * WATCHDOG_S)
                assert daemon.said("no proof of progress any more: outputs") == []
            daemon.goes_on()
        finally:
            os.close(reader)
            os.close(writer)


class TestKilledAsItStarts:
    def test_the_third_start_has_the_previous_version(
        self, watched: Start, configure: Any, tmp_path: Path, store: Callable[..., None]
    ) -> None:
        """An installed model with which the daemon died twice before it was up gives way to the version before it, and says so."""
        store("1", "2")
        config = configure(model={"name": "colour"}, preprocess=None, outputs=JSONL)
        note = tmp_path / "run" / STARTS_FILE
        (tmp_path / "hang").touch()
        while (before := count(note)) < 2:  # one that was up before it was killed does not count, nor those before it
            daemon = watched(config, environ=hang(tmp_path))
            wait_until(lambda d=daemon, n=before: count(note) > n or WAITING in d.systemd.all("STATUS"))
            daemon.process.kill()
            daemon.process.wait()
        (tmp_path / "hang").unlink()
        daemon = watched(config).ready()
        health = daemon.becomes("degraded", "model_fallback")
        assert health["model"]["version"] == "1"
        assert (
            "the daemon was killed, or hung, 2 times in a row as it brought it up; colour 1 runs instead"
            in (health["reasons"][0])
        )
        assert len(daemon.said("error: the active version of model colour does not come up")) == 1
        assert daemon.goes_on()["model"] == {"name": "colour", "version": "1"}
        assert not note.exists()
        assert daemon.stop() == 0
        daemon = watched(config).ready()
        assert daemon.becomes("running")["model"]["version"] == "2"


class TestTell:
    """What outputs and health.json are told, of a board that the test makes up."""

    def test_of_the_board(self, configure: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Heat, power, disk and clock come from the board's samples into the state, with their reasons."""
        throttling = frozenset({"under_voltage"})
        monkeypatch.setattr(subject, "vitals", lambda: Vitals(temperature_c=85.0, throttling=throttling))
        monkeypatch.setattr(subject, "clock_synced", lambda: False)
        monkeypatch.setattr(subject, "disk_free", lambda folder: 5_000_000)
        monkeypatch.setattr("edge_runner.service.health.CLOCK_S", -1.0)
        watchdog = Watchdog(Systemd({}), tmp_path, "front.yaml")
        outputs = [{"type": "jsonl", "path": "logs/out.jsonl"}]
        with assemble_whole(load_settings(configure(outputs=outputs)), watchdog.board), watchdog:
            wait_until((tmp_path / "health.json").exists)
            wait_until(lambda: len(json.loads((tmp_path / "health.json").read_text())["reasons"]) == 4)
            said = json.loads((tmp_path / "health.json").read_text())
            told = watchdog.board.state()
        assert [reason.split(":")[0] for reason in said["reasons"]] == ["heat", "under_voltage", "disk", "clock"]
        assert said["reasons"][2] == f"disk: 5 MB are left at {tmp_path / 'logs'}"
        assert (said["health"], said["clock"], said["temperature"], said["throttled"]) == (
            "degraded", "unsynced", 85.0, True,
        )  # fmt: skip
        assert told["reasons"] == said["reasons"]

    def test_notes(self) -> None:
        """What the loop notes is there until it takes it back, and only that."""
        watchdog = Watchdog(Systemd({}))
        watchdog.note("reload_failed", "camera.yaml:3: …")
        watchdog.note("other", "words")
        watchdog.note("reload_failed", "camera.yaml:4: …")
        assert watchdog._notes == {"other": "words", "reload_failed": "camera.yaml:4: …"}
        watchdog.note("reload_failed", None)
        watchdog.note("never", None)
        assert watchdog._notes == {"other": "words"}

    def test_a_folder_that_cannot_be_written(self, configure: Any) -> None:
        """That health.json cannot be written ends nothing."""
        watchdog = Watchdog(Systemd({}), Path("/proc/none"))
        with assemble_whole(load_settings(configure(outputs=JSONL)), watchdog.board), watchdog:
            assert watchdog.board.state()["health"] == "starting"

    def test_a_disk_that_does_not_answer(self) -> None:
        """Whoever reads the board may be held up: nobody waits for it, and the end does not."""
        free = threading.Event()

        def read() -> Sample:
            free.wait(60)
            return Sample()

        sampled = Sampled(read)
        sampled.start()
        started = time.monotonic()
        assert sampled.value == Sample()
        sampled.stop()
        assert time.monotonic() - started < 30
        free.set()

    @pytest.mark.parametrize(
        ("environ", "folder"), [({}, None), ({"RUNTIME_DIRECTORY": "/run/edge-runner/a:/run/b"}, "/run/edge-runner/a")]
    )
    def test_runtime_folder(self, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], folder: str | None) -> None:
        """Systemd's, the first of several; without systemd there is none."""
        monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        assert runtime_folder() == (folder and Path(folder))


@dataclass
class Running:
    """As much of a pipeline as is measured."""

    counts: Counts
    engine: SimpleNamespace


class TestPace:
    def test_figures(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Results and dropped frames a second since the last look, and the age; what came before does not count."""
        now = [100.0]
        monkeypatch.setattr(subject.time, "monotonic", lambda: now[0])
        pace, counts = Pace(), Counts()
        running: Any = Running(counts, SimpleNamespace(model="one"))
        assert (str(pace), pace.figures()) == ("0.0 results/s", {"fps": 0.0, "age_ms": None})
        for _ in range(2):
            now[0] += 10
            counts.results["a"] = counts.results.get("a", 0) + 100
            counts.results["b"] = counts.results.get("b", 0) + 25
            counts.dropped, counts.age_ms = counts.dropped + 5, 41.26
            pace.measure(running)
            assert str(pace) == "12.5 results/s, 41 ms old, 0.5 frames/s dropped"
            assert pace.figures() == {"fps": 12.5, "age_ms": 41.3}

    def test_slowness(self) -> None:
        """It is said how much slower inferences became than they were, and nothing of another model's."""
        pace, counts = Pace(), Counts()
        running: Any = Running(counts, SimpleNamespace(model="one"))

        def take(ms: float, results: int = 10) -> str:
            counts.results["a"] = counts.results.get("a", 0) + results
            counts.timing_ms["inference"] = counts.timing_ms.get("inference", 0.0) + ms * results
            pace.measure(running)
            return pace.slowness

        assert [take(50), take(50), take(60), take(80), take(0, results=0), take(52)] == [
            "", "", "", ", an inference takes 80.0 ms instead of 50.0", ", an inference takes 80.0 ms instead of 50.0", "",
        ]  # fmt: skip
        running.engine = SimpleNamespace(model="two")
        assert [take(120), take(200), take(200)] == ["", "", ""]
        assert take(300) == ", an inference takes 300.0 ms instead of 200.0"


def count(note: Path) -> int:
    """0 where there is no note, or one that is being written."""
    with suppress(OSError, ValueError):
        return int(json.loads(note.read_text())["starts"])
    return 0
