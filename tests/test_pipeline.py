"""The one path from a frame to every output, walked by hand: no threads but the feed's own."""

from __future__ import annotations

import fcntl
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from bundles import make_bundle

from edge_runner.errors import ConfigError, ModelError, OutputError, SettingError
from edge_runner.frame import Geometry, Picture, Shot, Stamp
from edge_runner.output.base import Item, Origin, Output, OutputConfig
from edge_runner.output.publisher import Publisher
from edge_runner.pipeline import Board, Pipeline
from edge_runner.pipeline import assemble as assemble_whole
from edge_runner.result import Answers, Detection, Result
from edge_runner.settings import load_settings

pytestmark = pytest.mark.arm

Assemble = Callable[..., Pipeline]
DATA = Path(__file__).parent / "data"
LOGITS = {"path": str(DATA / "logits.tflite"), "labels": str(DATA / "colours.txt")}


class Kept(Output):
    """Keeps results, and fails while `broken`."""

    def __init__(self) -> None:
        super().__init__(OutputConfig())
        self.broken = False
        self.results: list[Result] = []
        self.pictures: list[Picture] = []
        self.opened = self.closed = 0

    def open(self, origin: Origin) -> None:
        self.opened += 1

    def take(self, result: Result, shot: Shot) -> Item:
        return Item(result, picture=shot.picture.copy())

    def write(self, item: Item) -> None:
        if self.broken:
            raise OutputError("the cable was cut")
        self.results.append(item.result)
        assert item.picture is not None
        self.pictures.append(item.picture)

    def close(self) -> None:
        self.closed += 1


def shot(colour: tuple[float, float, float], **fields: Any) -> Shot:
    """A prepared shot of one colour, red first, 0..1."""
    prepared = np.full((1, 8, 8, 3), colour, np.float32)
    picture = np.full((20, 30, 3), [round(255 * c) for c in reversed(colour)], np.uint8)
    stamp = Stamp(7, time.monotonic_ns(), time.time_ns(), "a.png")
    example = {
        "camera": "camera", "input": prepared, "picture": picture, "geometry": Geometry(30, 20), "stamp": stamp,
    }  # fmt: skip
    return Shot(**{**example, **fields})


def settle(publisher: Publisher) -> None:
    """Wait until every output has what it was handed."""
    deadline = time.monotonic() + 30
    while publisher.waiting:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def fitted(pipeline: Pipeline, *outputs: Kept) -> Pipeline:
    return Pipeline(
        pipeline.settings,
        pipeline.engine,
        pipeline.feeds,
        Publisher({f"outputs.{n}": o for n, o in enumerate(outputs)}),
        Board(lambda: True),
    )


class TestStep:
    def test_a_shot_becomes_a_result(self, assemble: Assemble, configure: Any) -> None:
        """A step gives the model's answer for the prepared input, and hands it with the whole frame to every output."""
        one, two = Kept(), Kept()
        pipeline = fitted(assemble(configure(device="pi-7", camera={"type": "pattern", "name": "door"})), one, two)
        red = shot((0.9, 0.1, 0.1), camera="door", timing_ms={"capture": 1.5, "preprocess": 0.5})
        with pipeline.publisher:
            result = pipeline.step(red)
        assert one.results == two.results == [result]
        assert np.array_equal(one.pictures[0], red.picture)
        assert result.answers.classifications is not None
        assert [c.label for c in result.answers.classifications] == ["red", "green", "blue"]
        plain = result.plain()
        assert (plain["device"], plain["camera"], plain["seq"], plain["frame"]) == ("pi-7", "door", 1, 7)
        assert plain["image"] == {"width": 30, "height": 20}
        assert plain["model"]["name"] == "colour"
        assert len(plain["model"]["version"]) == 8
        assert list(plain["timing_ms"]) == ["capture", "preprocess", "inference", "postprocess"]
        assert plain["timing_ms"]["capture"] == 1.5

    def test_each_shot_its_own_answer(self, assemble: Assemble, configure: Any) -> None:
        """Answers belong to their shots, seq counts from 1, and one run has one name."""
        pipeline = fitted(assemble(configure()))
        results = [pipeline.step(shot(c)) for c in ((0.1, 0.9, 0.1), (0.1, 0.1, 0.9), (0.9, 0.1, 0.1))]
        assert [r.answers.classifications[0].label for r in results if r.answers.classifications] == [
            "green",
            "blue",
            "red",
        ]
        assert [r.seq for r in results] == [1, 2, 3]
        assert len({r.run for r in results}) == 1

    def test_each_result_its_own_camera(self, assemble: Assemble, configure: Any) -> None:
        """Several cameras share one model and one row of seq; each result has its camera's name, and each is counted."""
        two = {"door": {"type": "pattern"}, "gate": {"type": "pattern"}}
        pipeline = fitted(assemble(configure(camera=None, cameras=two)))
        assert list(pipeline.feeds) == ["cameras.door", "cameras.gate"]
        results = [pipeline.step(shot((1, 0, 0), camera=name)) for name in ("gate", "door", "gate")]
        assert [(r.camera, r.seq) for r in results] == [("gate", 1), ("door", 2), ("gate", 3)]
        assert pipeline.counts.results == {"gate": 2, "door": 1}

    def test_live_and_file(self, assemble: Assemble, configure: Any, colours: Path) -> None:
        """A live camera's result has an age and the dropped frames; a file's has neither."""
        past = Stamp(7, time.monotonic_ns() - 50_000_000, time.time_ns() - 50_000_000)
        live = fitted(assemble(configure())).step(shot((1, 0, 0), stamp=past, dropped=2))
        assert live.age_ms is not None
        assert 50 <= live.age_ms < 60_000
        assert (live.dropped, live.source) == (2, None)
        still = fitted(assemble(configure(camera={"type": "images", "path": "colours"}))).step(shot((1, 0, 0)))
        assert (still.age_ms, still.dropped, still.source) == (None, None, "a.png")

    @pytest.mark.parametrize(("synced", "said"), [(True, "synced"), (False, "unsynced")])
    def test_clock(self, assemble: Assemble, configure: Any, synced: bool, said: str) -> None:
        """A result says whether its time can be trusted."""
        pipeline = assemble(configure(), synced=lambda: synced)
        assert pipeline.step(shot((1, 0, 0))).clock == said

    @pytest.mark.parametrize("step_s", [-7200, 7200])
    def test_a_clock_that_is_set(self, assemble: Assemble, configure: Any, step_s: int) -> None:
        """A frame from before carries a time by the clock as it was, which could not be trusted."""
        before = Stamp(7, time.monotonic_ns(), time.time_ns() + step_s * 10**9)
        pipeline = assemble(configure(), synced=lambda: True)
        assert pipeline.step(shot((1, 0, 0), stamp=before)).clock == "unsynced"


class TestState:
    def test_health(self, assemble: Assemble, configure: Any) -> None:
        """It starts, runs, and is degraded while a camera or an output has trouble, which is named; numbers go with it."""
        broken = Kept()
        two = {"door": {"type": "pattern"}, "gate": {"type": "pattern"}}
        pipeline = fitted(assemble(configure(camera=None, cameras=two)), broken)
        with pipeline.publisher:
            assert pipeline.state()["health"] == "starting"
            pipeline.step(shot((1, 0, 0), camera="door", dropped=4))
            assert pipeline.state()["health"] == "starting"
            pipeline.step(shot((1, 0, 0), camera="gate"))
            running = pipeline.state()
            assert (running["health"], running["reasons"], running["results"]) == ("running", [], 2)
            assert (running["dropped"], running["lost"]) == (4, 0)
            pipeline.feeds["cameras.gate"].trouble = "no new frame for 10 s"
            settle(pipeline.publisher)
            broken.broken = True
            pipeline.step(shot((1, 0, 0), camera="door"))
            settle(pipeline.publisher)
            degraded = pipeline.state()
        assert degraded["health"] == "degraded"
        assert degraded["reasons"] == [
            "camera_lost: cameras.gate: no new frame for 10 s",
            "output_failing: outputs.0: the cable was cut",
        ]
        assert degraded["lost"] == 1

    def test_what_outputs_are_told(self, configure: Any) -> None:
        """Before the first result an output knows the device, the cameras, the task and its labels, and can ask for the state."""
        config = configure(device="pi-7", camera={"type": "pattern", "name": "door"}, task={"deny": ["red"]})
        board = Board(lambda: True, lambda state: {**state, "clock": "synced", "temperature": 51.5})
        origin = assemble_whole(load_settings(config), board).publisher.origin
        assert (origin.device, origin.cameras, origin.task) == ("pi-7", ("door",), "classify")
        assert origin.labels == ("green", "blue")
        state = origin.state()
        assert (state["health"], state["temperature"], state["clock"]) == ("starting", 51.5, "synced")

    def test_answers_can_be_drawn(self, configure: Any) -> None:
        """An output that saves pictures can have the answers drawn on them."""
        origin = assemble_whole(load_settings(configure())).publisher.origin
        picture = np.full((240, 320, 3), 90, np.uint8)
        origin.draw(picture, Answers(detections=(Detection("cat", 0, 0.9, (0.2, 0.2, 0.8, 0.8)),)))
        assert np.unique(picture).size > 1


class TestDoubt:
    def test_is_said_once(self, assemble: Assemble, configure: Any, caplog: pytest.LogCaptureFixture) -> None:
        """An answer that is probably wrong is warned of once, not with each frame."""
        pipeline = fitted(assemble(configure(task={"activation": "none"}, model=LOGITS)))
        for _ in range(3):
            pipeline.step(shot((1, 0, 0)))
        assert [r.getMessage() for r in caplog.records if "set task.activation" in r.getMessage()] == [
            caplog.messages[-1]
        ]


class TestBrokenOutput:
    def test_does_not_hold_the_others(
        self, assemble: Assemble, configure: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A broken output costs its own results only: one warning at the first, one when it works again, with their number."""
        broken, good = Kept(), Kept()
        pipeline = fitted(assemble(configure()), broken, good)
        with pipeline.publisher:
            for state in (False, True, True, True, False, False):
                broken.broken = state
                pipeline.step(shot((1, 0, 0)))
                settle(pipeline.publisher)
        assert [r.seq for r in good.results] == [1, 2, 3, 4, 5, 6]
        assert [r.seq for r in broken.results] == [1, 5, 6]
        assert pipeline.publisher.lost == {"outputs.0": 3}
        messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(messages) == 2
        assert "outputs.0: the cable was cut" in messages[0]
        assert "outputs.0: works again; 3 results were lost" in messages[1]

    def test_in_a_real_run(self, run_cli: Any, configure: Any, colours: Path, tmp_path: Path) -> None:
        """With one output on a full disk, the other has every result; the command fails, since a file's results were lost."""
        outputs = [{"type": "jsonl", "path": "/dev/full"}, {"type": "jsonl", "path": "out.jsonl"}, {"type": "console"}]
        path = configure(camera={"type": "images", "path": "colours"}, outputs=outputs)
        done = run_cli("--config", path)
        assert done.returncode == 1
        assert len(done.stdout.splitlines()) == 3
        assert (tmp_path / "out.jsonl").read_text() == done.stdout
        assert done.stderr.splitlines()[-1] == "edge-runner: error: results were lost: 3 at outputs.0"
        told = [line for line in done.stderr.splitlines() if "/dev/full" in line and "health: " not in line]
        assert len(told) == 1

    def test_full_standard_output(self, run_cli: Any, configure: Any, colours: Path, tmp_path: Path) -> None:
        """Standard output on a full disk does not hold a file up either."""
        outputs = [{"type": "console"}, {"type": "jsonl", "path": "out.jsonl"}]
        path = configure(camera={"type": "images", "path": "colours"}, outputs=outputs)
        with open("/dev/full", "w") as full:
            done = run_cli("--config", path, stdout=full)
        assert done.returncode == 1
        assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3
        assert done.stderr.splitlines()[-1] == "edge-runner: error: results were lost: 3 at outputs.0"


class TestOpening:
    @pytest.mark.usefixtures("nothing_left")
    def test_every_camera_is_opened_and_closed(self, assemble: Assemble, configure: Any, colours: Path) -> None:
        """Entering a pipeline opens each of its cameras, leaving it closes each; it can be entered again, and counts anew."""
        folder = {"type": "images", "path": "colours"}
        pipeline = fitted(assemble(configure(camera=None, cameras={"a": folder, "b": folder})))
        for _ in range(2):
            with pipeline:
                running = {thread.name for thread in threading.enumerate()}
                assert {"camera-a", "camera-b"} <= running
                pipeline.step(shot((1, 0, 0), camera="b"))
                assert pipeline.counts.results == {"b": 1}

    def test_outputs_are_closed_again(self, assemble: Assemble, configure: Any) -> None:
        """Leaving a pipeline closes what was opened."""
        one = Kept()
        with fitted(assemble(configure()), one):
            assert (one.opened, one.closed) == (1, 0)
        assert (one.opened, one.closed) == (1, 1)

    @pytest.mark.usefixtures("nothing_left")
    def test_output_that_does_not_open(self, assemble: Assemble, configure: Any) -> None:
        """An output that does not open is named by its key, and those before it are closed again."""
        one, two = Kept(), Kept()

        def fail(origin: Origin) -> None:
            raise SettingError("no broker", key="host")

        two.open = fail  # type: ignore[method-assign]
        with pytest.raises(SettingError, match="no broker") as caught, fitted(assemble(configure()), one, two):
            pass
        assert caught.value.key == "outputs.1.host"
        assert (one.opened, one.closed) == (1, 1)


class TestTakingOver:
    """A pipeline that takes the place of another one that runs, between two frames."""

    CAMERA: ClassVar = {"type": "pattern", "width": 64, "height": 48, "fps": 100}
    JSONL: ClassVar = {"type": "jsonl", "path": "out.jsonl"}

    def after(self, before: Pipeline, path: Path, **options: Any) -> Pipeline:
        return assemble_whole(load_settings(path), before.board, before=before, **options)

    @pytest.mark.usefixtures("nothing_left")
    def test_all_the_same(self, configure: Any) -> None:
        """Nothing is made anew, nor opened: model, cameras and outputs are the very same."""
        path = configure(camera=self.CAMERA, outputs=[self.JSONL])
        with assemble_whole(load_settings(path)) as before:
            before.counts.results["camera"] = 7
            after = self.after(before, path)
            assert before.board.pipeline is before
            after.take_over(before)
            assert after.board.pipeline is after
            assert after.engine.interpreter is before.engine.interpreter
            assert list(after.feeds.values()) == list(before.feeds.values())
            assert after.publisher.outputs == before.publisher.outputs
            assert (after.counts, after.publisher.run) == (before.counts, before.publisher.run)
        assert before.feeds["camera"] is after.feeds["camera"]

    @pytest.mark.usefixtures("nothing_left")
    def test_cameras_come_and_go(self, configure: Any, colours: Path) -> None:
        """A camera of the same settings stays open, also under another key; the others are closed, and new ones opened."""
        path = configure(camera=None, cameras={"stays": self.CAMERA, "goes": self.CAMERA}, outputs=[self.JSONL])
        first = assemble_whole(load_settings(path)).__enter__()
        second = self.after(first, configure(camera={**self.CAMERA, "name": "stays"}, outputs=[self.JSONL]))
        second.take_over(first)
        assert second.feeds == {"camera": first.feeds["cameras.stays"]}
        assert not hasattr(first.feeds["cameras.goes"], "_block")  # what it is like where it is closed
        new = {"type": "images", "path": "colours"}
        path = configure(camera=None, cameras={"new": new, "stays": self.CAMERA}, outputs=[self.JSONL])
        third = self.after(second, path)
        third.take_over(second)
        assert third.feeds["cameras.stays"] is second.feeds["camera"]
        assert "camera-new" in {thread.name for thread in threading.enumerate()}
        third.__exit__()

    @pytest.mark.usefixtures("nothing_left")
    def test_a_camera_that_is_opened_anew(self, configure: Any) -> None:
        """It has given no result yet, though one of its name did; one that stays has."""
        path = configure(camera=None, cameras={"stays": self.CAMERA, "anew": self.CAMERA})
        before = assemble_whole(load_settings(path)).__enter__()
        for name in ("stays", "anew"):
            before.step(shot((1, 0, 0), camera=name))
        assert before.state()["health"] == "running"
        after = self.after(
            before, configure(camera=None, cameras={"stays": self.CAMERA, "anew": {**self.CAMERA, "fps": 50}})
        )
        after.take_over(before)
        assert (after.silent, after.state()["health"]) == ({"anew"}, "starting")
        after.step(shot((1, 0, 0), camera="anew"))
        assert after.state()["health"] == "running"
        assert after.counts.results == {"stays": 1, "anew": 2}
        after.__exit__()

    @pytest.mark.parametrize("refused", [None, "it killed its process"])
    def test_an_output_that_does_not_fit(self, configure: Any, refused: str | None) -> None:
        """What is asked of the model that runs is held against it again."""
        before = assemble_whole(load_settings(configure(camera=self.CAMERA, outputs=[self.JSONL])))
        path = configure(camera=self.CAMERA, outputs=[{**self.JSONL, "when": {"labels": ["rde"]}}])
        with pytest.raises(SettingError, match="did you mean 'red'") as caught:
            self.after(before, path, refused=refused)
        assert caught.value.key == "outputs.0.when.labels"

    @pytest.mark.usefixtures("nothing_left")
    def test_another_model(self, configure: Any) -> None:
        """A model is loaded beside the one that runs, which is not touched; the camera stays open."""
        path = configure(camera=self.CAMERA, outputs=[self.JSONL])
        before = assemble_whole(load_settings(path)).__enter__()
        after = self.after(before, configure(camera=self.CAMERA, model=LOGITS, outputs=[self.JSONL]))
        assert before.engine.interpreter.loaded
        assert (before.engine.model.name, after.engine.model.name) == ("colour", "logits")
        assert after.engine.interpreter is not before.engine.interpreter
        after.take_over(before)
        assert after.feeds["camera"] is before.feeds["camera"]
        after.step(shot((1, 0, 0)))
        after.__exit__()

    @pytest.mark.usefixtures("nothing_left")
    def test_output_that_does_not_open(self, configure: Any, tmp_path: Path) -> None:
        """Then everything is as it was: cameras and outputs of the one that runs go on."""
        path = configure(camera=self.CAMERA, outputs=[self.JSONL])
        with assemble_whole(load_settings(path)) as before, (tmp_path / "locked.jsonl").open("w") as locked:
            fcntl.flock(locked, fcntl.LOCK_EX)
            path = configure(camera={**self.CAMERA, "fps": 50}, outputs=[{**self.JSONL, "path": "locked.jsonl"}])
            after = self.after(before, path)
            with pytest.raises(SettingError) as caught:
                after.take_over(before)
            assert caught.value.key == "outputs.0.path"
            assert before.board.pipeline is before
            before.step(shot((1, 0, 0)))
            settle(before.publisher)
            assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1
            assert before.feeds["camera"].sources()

    @pytest.mark.usefixtures("nothing_left")
    def test_a_version_that_is_refused(self, configure: Any) -> None:
        """The model that runs takes the place of one that does not come up, and the state says so; later it may be well again."""
        path = configure(camera=self.CAMERA, outputs=[self.JSONL])
        before = assemble_whole(load_settings(path)).__enter__()
        after = self.after(before, path, refused="it killed its process")
        after.take_over(before)
        assert after.engine.interpreter is before.engine.interpreter
        assert after.state()["reasons"] == ["model_fallback: it killed its process; colour 4a18c375 runs instead"]
        again = self.after(after, path)
        again.take_over(after)
        assert again.state()["reasons"] == []
        again.__exit__()

    def test_a_model_that_is_refused(self, configure: Any) -> None:
        """Another one than the one that runs, which was tried out in vain, is not loaded."""
        before = assemble_whole(load_settings(configure(camera=self.CAMERA, outputs=[self.JSONL])))
        path = configure(camera=self.CAMERA, model=LOGITS, outputs=[self.JSONL])
        with pytest.raises(ModelError, match="it killed its process"):
            self.after(before, path, refused="it killed its process")


@pytest.mark.parametrize("kind", ["lost", "stalled", "frozen"])
def test_reasons_of_cameras(assemble: Assemble, configure: Any, kind: Any) -> None:
    """Programs are told apart why there is no frame."""
    pipeline = assemble(configure())
    feed = pipeline.feeds["camera"]
    feed.trouble, feed.kind = "no frame", kind
    assert pipeline.reasons() == [(f"camera_{kind}", "camera: no frame")]


class TestAssembling:
    def test_opens_nothing(self, configure: Any, colours: Path, tmp_path: Path) -> None:
        """Putting a pipeline together writes nothing and takes no frame."""
        outputs = [{"type": "jsonl", "path": "new/out.jsonl"}]
        path = configure(camera={"type": "images", "path": "colours"}, outputs=outputs)
        before = sorted(tmp_path.rglob("*"))
        assemble_whole(load_settings(path))
        assert sorted(tmp_path.rglob("*")) == before

    def test_everything_wrong_at_once(self, configure: Any, tmp_path: Path, data: Path) -> None:
        """The mistakes of camera, model and outputs come in one go, each with its line and key."""
        (tmp_path / "no.mp4").write_text("no video")
        (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne\n")
        path = configure(
            camera={"type": "video", "path": "no.mp4"},
            model={"path": str(data / "colour.tflite"), "labels": "labels.txt"},
            preprocess={"color": "gray", "mean": 0, "std": 1},
            outputs=[{"type": "console"}, {"type": "jsonl", "path": "."}],
        )
        with pytest.raises(ConfigError) as caught:
            assemble_whole(load_settings(path))
        keys = [line.split(": ")[1] for line in caught.value.problems]
        assert keys == ["camera.path", "preprocess.color", "model.labels", "outputs.1.path"]
        assert all(line.startswith(f"{path}:") for line in caught.value.problems)

    def test_mistakes_of_several_cameras(self, configure: Any, colours: Path, tmp_path: Path) -> None:
        """Each camera's mistake stands at its own line, under its own name."""
        (tmp_path / "no.mp4").write_text("no video")
        (tmp_path / "empty").mkdir()
        cameras = {
            "door": {"type": "video", "path": "no.mp4"},
            "yard": {"type": "images", "path": "colours"},
            "gate": {"type": "images", "path": "empty"},
        }
        path = configure(camera=None, cameras=cameras)
        with pytest.raises(ConfigError) as caught:
            assemble_whole(load_settings(path))
        lines = path.read_text().splitlines()
        expected = [("no.mp4", "cameras.door.path"), ("empty", "cameras.gate.path")]
        assert [problem.split(": ")[:2] for problem in caught.value.problems] == [
            [f"{path}:{next(n for n, line in enumerate(lines, 1) if text in line)}", key] for text, key in expected
        ]

    def test_bare_file_needs_a_recipe(self, configure: Any) -> None:
        """A bare .tflite says nothing of its preparation: what is missing is asked for by name, and never guessed."""
        with pytest.raises(SettingError, match="set mean, std") as caught:
            assemble_whole(load_settings(configure(preprocess={"color": "rgb"})))
        assert caught.value.key == "preprocess"

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            ("three_inputs", r"has 3 inputs .*a camera's picture feeds just one"),
            ("two_outputs", "a classifier has one output"),
        ],
    )
    def test_models_that_do_not_fit(self, configure: Any, data: Path, model: str, message: str) -> None:
        """A model that is no classifier of pictures is refused with its tensors."""
        path = configure(model={"path": str(data / f"{model}.tflite")})
        with pytest.raises(ModelError, match=message):
            assemble_whole(load_settings(path))

    @pytest.mark.parametrize(
        ("one", "name"),
        [
            ({"type": "jsonl", "path": "log.jsonl"}, "path"),
            ({"type": "snapshots", "path": "pictures"}, "path"),
            ({"type": "mqtt", "host": "broker"}, "spool"),
        ],
    )
    def test_outputs_in_one_place(self, configure: Any, one: dict[str, Any], name: str) -> None:
        """Two outputs of a kind that would write over each other are refused; of two kinds, each knows its own files."""
        outputs = [{"type": "npz", "path": "pictures"}, one, {**one, "when": {"min_score": 0.5}}]
        with pytest.raises(SettingError, match=r"outputs\.1 writes to .* already; name another place") as caught:
            assemble_whole(load_settings(configure(outputs=outputs)))
        assert caught.value.key == f"outputs.2.{name}"
        assemble_whole(load_settings(configure(outputs=outputs[:2])))

    def test_unknown_ending(self, configure: Any, data: Path, assemble: Assemble) -> None:
        """A model whose end says nothing of its values asks for the activation, and runs with it."""
        model = {"path": str(data / "unknown_ending.tflite")}
        with pytest.raises(SettingError, match="comes from the operator MUL") as caught:
            assemble_whole(load_settings(configure(model=model)))
        assert caught.value.key == "task.activation"
        pipeline = fitted(assemble(configure(model=model, task={"type": "classify", "activation": "none"})))
        found = pipeline.step(shot((0.25, 1, 0.5))).answers.classifications
        assert [(c.index, pytest.approx(c.score)) for c in found or ()] == [(1, 0.5), (0, 0.25), (2, 0.125)]

    @pytest.mark.parametrize(
        "model", ["colour", "labelled", "logits", "quantized", "uint8", "int16", "float16", "nchw"]
    )
    def test_every_kind_of_model_sees_colours(
        self, assemble: Assemble, configure: Any, data: Path, colours: Path, model: str
    ) -> None:
        """Float or quantised, of either layout, ending in scores or logits: from a picture's file to the right answer."""
        model_settings = {"path": str(data / f"{model}.tflite")}
        if model != "labelled":
            model_settings["labels"] = str(data / "colours.txt")
        pipeline = fitted(assemble(configure(camera={"type": "images", "path": "colours"}, model=model_settings)))
        found = []
        [feed] = pipeline.feeds.values()
        with pipeline:
            for _ in range(3):
                feed.want()
                taken = feed.take()
                assert taken is not None
                [best, *_] = pipeline.step(taken).answers.classifications or ()
                found.append((best.label, best.score > 0.95))
                feed.release(taken)
        assert found == [("red", True), ("green", True), ("blue", True)]

    def test_binary_model(self, assemble: Assemble, configure: Any, data: Path, tmp_path: Path) -> None:
        """A model of one unit gives both labels, the second being the unit's."""
        (tmp_path / "labels.txt").write_text("other\nred\n")
        pipeline = fitted(assemble(configure(model={"path": str(data / "binary.tflite"), "labels": "labels.txt"})))
        for colour, label in (((1, 0, 0), "red"), ((0, 1, 0), "other")):
            found = pipeline.step(shot(colour)).answers.classifications or ()
            assert found[0].label == label
            assert sum(c.score for c in found) == pytest.approx(1)


class TestBundle:
    def test_recipe_comes_from_the_bundle(self, assemble: Assemble, configure: Any, digits: Path) -> None:
        """Over a bundle nothing needs to be said of preparation, task or labels."""
        pipeline = assemble(configure(model={"path": str(digits)}, preprocess=None))
        says = json.loads((digits / "manifest.json").read_text())
        assert pipeline.engine.preprocessor.recipe.color == says["preprocess"]["color"]
        assert pipeline.engine.task.labels == tuple("0123456789")  # type: ignore[attr-defined]
        assert (pipeline.engine.model.name, pipeline.engine.model.version) == (says["name"], says["version"])

    def test_override_is_logged(self, configure: Any, digits: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A key put over the bundle's own is used, and logged with both values; an equal one is not worth a word."""
        recipe = {"color": "gray", "mean": 0, "resize": "letterbox"}
        path = configure(model={"path": str(digits)}, preprocess=recipe, task={"type": "classify", "max_results": 2})
        pipeline = assemble_whole(load_settings(path))
        assert pipeline.engine.preprocessor.recipe.resize == "letterbox"
        warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert warnings == ["preprocess.resize: letterbox overrides the bundle's crop"]


class TestManifestsTask:
    @pytest.mark.parametrize(
        ("task", "says"),
        [
            ({"type": "fly"}, r"is for the task 'fly'; this edge-runner knows classify"),
            ({"type": "classify", "decoder": "auto"}, "decoder: unknown key"),
            ({"type": "classify", "score_threshold": "high"}, "score_threshold: got 'high'"),
        ],
    )
    def test_is_checked(self, configure: Any, tmp_path: Path, data: Path, task: dict[str, Any], says: str) -> None:
        """A bundle for a task that this version does not know, or with a key that it does not, is refused at the start."""
        bundle = make_bundle(tmp_path / "bundle", data / "colour.tflite", task=task)
        path = configure(model={"path": str(bundle)}, preprocess=None)
        with pytest.raises(ModelError, match=says) as caught:
            assemble_whole(load_settings(path))
        assert caught.value.exit_code == 78

    def test_threads_hide_nothing(self, configure: Any, tmp_path: Path, data: Path) -> None:
        """Too many threads are told beside the other mistakes."""
        (tmp_path / "labels.txt").write_text("a\nb\n")
        model = {"path": str(data / "colour.tflite"), "labels": "labels.txt", "threads": 4096}
        with pytest.raises(ConfigError) as caught:
            assemble_whole(load_settings(configure(model=model)))
        assert [line.split(": ")[1] for line in caught.value.problems] == ["model.threads", "model.labels"]
