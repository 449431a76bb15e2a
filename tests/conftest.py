"""What the tests share: tiny models, pictures of one colour, configurations, and the command line as a real process."""

from __future__ import annotations

import functools
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from shrink import Shrink

from edge_runner import engine as engines
from edge_runner import pipeline as path_of_frames
from edge_runner.camera.base import Camera
from edge_runner.camera.feed import Feed, ThreadFeed, make_feed
from edge_runner.fields import load
from edge_runner.frame import Picture
from edge_runner.output import OUTPUTS
from edge_runner.result import Answers, Classification, Result
from edge_runner.service.turns import Turns
from edge_runner.settings import load_settings

COMMAND = [sys.executable, "-m", "edge_runner"]
COLOURS = {"red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0)}
"""Blue, green, red."""
MODELS = Path(__file__).parent / "data"
TIMEOUT_S = 240
LEAVE_S = 10  # for what has just been told to go


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """Signals are what they are in a terminal, though a shell in the background, or nohup, has the tests ignore some."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither systemd's folders nor the debugging of whoever runs the tests change what they see."""
    for name in (
        "LOGS_DIRECTORY",
        "STATE_DIRECTORY",
        "OPENCV_FFMPEG_CAPTURE_OPTIONS",
        "PYTHONWARNINGS",
        "PYTHONUNBUFFERED",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def data() -> Path:
    """The folder of the tiny models (make_models.py says what each does)."""
    return MODELS


@pytest.fixture(scope="session")
def digits() -> Path:
    """The bundle of the digits example."""
    folder = Path(__file__).parents[1] / "examples/digits/models/digits"
    if not (folder / "manifest.json").is_file():
        pytest.skip("the digits bundle is not there")
    return folder


@pytest.fixture
def paint() -> Callable[..., Path]:
    """Write a picture of one colour; its name's ending says in which format."""

    def write(path: Path, colour: str = "red", size: tuple[int, int] = (30, 20)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = size
        assert cv2.imwrite(str(path), np.full((height, width, 3), COLOURS[colour], np.uint8))
        return path

    return write


@pytest.fixture
def colours(tmp_path: Path, paint: Callable[..., Path]) -> Path:
    """A folder of three pictures: 1.png red, 2.png green, 3.png blue."""
    for number, colour in enumerate(COLOURS, 1):
        paint(tmp_path / "colours" / f"{number}.png", colour)
    return tmp_path / "colours"


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., Path]:
    """Write a configuration for the colour model. Parts given are put over the defaults; None takes a part away."""

    def write(name: str = "camera.yaml", **parts: Any) -> Path:
        whole = {
            "camera": {"type": "pattern", "width": 64, "height": 48},
            "model": {"path": str(MODELS / "colour.tflite"), "labels": str(MODELS / "colours.txt")},
            "preprocess": {"color": "rgb", "mean": 0, "std": 255},
            **parts,
        }
        path = tmp_path / name
        path.write_text(json.dumps({key: part for key, part in whole.items() if part is not None}, indent=1))
        return path

    return write


@functools.cache
def _engine(settings: Any) -> engines.Engine:
    return engines.build_engine(settings.value)


class _SameModel:
    """Settings that are equal where their model, recipe and task are: an engine serves all of them."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.key = repr((value.model, value.preprocess, value.task))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SameModel) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@pytest.fixture
def assemble() -> Callable[..., path_of_frames.Pipeline]:
    """A pipeline of a configuration, as the product assembles it, but with one engine for all tests of a model."""

    def make(path: Path, synced: Callable[[], bool] = lambda: False) -> path_of_frames.Pipeline:
        settings = load_settings(path).value
        engine = _engine(_SameModel(settings))
        outputs = {f"outputs.{i}": load(OUTPUTS[c.type])(c) for i, c in enumerate(settings.outputs)}
        feeds = {key: make_feed(camera, engine.preprocessor) for key, camera in settings.sources.items()}
        board = path_of_frames.Board(synced)
        return path_of_frames.put_together(settings, engine, feeds, outputs, board)

    return make


@pytest.fixture
def run_cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command to its end, in the test's folder."""

    def run(*arguments: object, prefix: tuple[str, ...] = (), **options: Any) -> subprocess.CompletedProcess[str]:
        options = {"capture_output": True, "text": True, "timeout": TIMEOUT_S, "cwd": tmp_path, **options}
        if "stdout" in options:
            options |= {"capture_output": False, "stderr": subprocess.PIPE}
        return subprocess.run([*prefix, *COMMAND, *map(str, arguments)], **options)

    return run


@pytest.fixture
def start_cli(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command; whatever still runs at the test's end is killed."""
    children = []

    def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path, **options}
        child = subprocess.Popen([*COMMAND, *map(str, arguments)], **options)
        children.append(child)
        return child

    yield start
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
        child.communicate()


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[Callable[[Path], tuple[str, ...]]]:
    """Take a path's permissions away, and return what has to stand before a command so that it feels that, even for root."""
    locked = []

    def take(path: Path, mode: int = 0) -> tuple[str, ...]:
        locked.append(path)
        path.chmod(mode)
        if os.getuid() != 0:
            return ()
        if not shutil.which("setpriv"):
            pytest.skip("root is let in everywhere, and there is no setpriv to change that")
        return ("setpriv", "--bounding-set=-dac_override,-dac_read_search")

    yield take
    for path in locked:
        path.chmod(0o700)


@pytest.fixture
def mount_tmpfs(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A disk of its own, in memory, of so many bytes ("8m"); only root has one, elsewhere the test is skipped."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        disk = tmp_path / f"disk{len(mounted)}"
        disk.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)], capture_output=True)
        if done.returncode:
            pytest.skip(f"no disk of its own: {done.stderr.decode().strip()}")
        mounted.append(disk)
        return disk

    yield mount
    for disk in mounted:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
def shrink() -> Shrink:
    return Shrink()


@pytest.fixture
def shots() -> Callable[..., list[tuple[Any, Picture]]]:
    """Take up to `most` shots of a file's camera, or of a feed; return each with a copy of its picture."""

    def take(camera: Camera | Feed, most: int = 10_000) -> list[tuple[Any, Picture]]:
        taken: list[tuple[Any, Picture]] = []
        with camera if isinstance(camera, Feed) else ThreadFeed(camera, Shrink()) as feed:
            turns = Turns({"camera": feed})
            while len(taken) < most:
                lane = turns.next(until=time.monotonic() + TIMEOUT_S)
                assert lane, f"no frame within {TIMEOUT_S} s: {feed.trouble}"
                shot = feed.take()
                if shot is None:
                    break
                lane.turn(time.monotonic())
                taken.append((shot, shot.picture.copy()))
                feed.release(shot)
        return taken

    return take


@pytest.fixture
def result() -> Callable[..., Result]:
    """A result, with what is given put over an example."""

    def make(*scores: tuple[str, float], **fields: Any) -> Result:
        answers = tuple(Classification(label, i, score) for i, (label, score) in enumerate(scores or [("cat", 0.75)]))
        example = {
            "device": "pi-7", "camera": "front-door", "run": "01J00000000000000000000000", "seq": 877, "frame": 1234,
            "time_ns": 1795354080_123456789, "clock": "synced", "model": "digits", "version": "3f2a9c1d",
            "width": 1280, "height": 720, "answers": Answers(classifications=answers),
            "timing_ms": {"capture": 2.1, "preprocess": 0.4, "inference": 30.2, "postprocess": 0.1},
        }  # fmt: skip
        return Result(**{**example, **fields})

    return make


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Afterwards there are as many descriptors and threads as before."""

    def held() -> tuple[int, list[str]]:
        return len(os.listdir("/proc/self/fd")), sorted(thread.name for thread in threading.enumerate())

    gc.collect()  # what earlier tests left lying holds descriptors too
    before = held()
    yield
    until = time.monotonic() + LEAVE_S
    while held() != before and time.monotonic() < until:
        time.sleep(0.01)
    assert held() == before
