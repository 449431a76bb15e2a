"""One frame of each camera."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_runner.errors import NoFrameError, OutputError
from edge_runner.pipeline import Pipeline
from edge_runner.service import once as subject
from edge_runner.service import turns
from edge_runner.service.once import once

Assemble = Callable[..., Pipeline]


def test_one_frame(assemble: Assemble, configure: Any, colours: Path, capfd: Any) -> None:
    """One frame is taken, and one result written."""
    once(assemble(configure(camera={"type": "images", "path": "colours"})))
    [line] = capfd.readouterr().out.splitlines()
    assert (json.loads(line)["seq"], json.loads(line)["source"]) == (1, "1.png")


def test_first_that_can_be_read(assemble: Assemble, configure: Any, colours: Path, capfd: Any) -> None:
    """A damaged first picture does not count."""
    (colours / "0.png").write_bytes(b"")
    once(assemble(configure(camera={"type": "images", "path": "colours"})))
    assert json.loads(capfd.readouterr().out)["source"] == "1.png"


@pytest.mark.usefixtures("nothing_left")
def test_no_frame_in_time(assemble: Assemble, configure: Any) -> None:
    """Where no frame comes within `start_timeout`, that is said, with the time."""
    pipeline = assemble(configure(camera={"type": "pattern", "start_timeout": "1ms"}))
    started = time.monotonic()
    with pytest.raises(NoFrameError, match=r"no frame within 0\.001 s") as caught:
        once(pipeline)
    assert (caught.value.key, caught.value.exit_code) == ("camera.start_timeout", 69)
    assert time.monotonic() - started < 25


@pytest.mark.usefixtures("nothing_left")
def test_why_there_is_no_frame(assemble: Assemble, configure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the camera's trouble was is said with it."""
    camera = {
        "type": "command",
        "command": ["false"],
        "format": "gray8",
        "width": 64,
        "height": 48,
        "start_timeout": "60s",
    }
    pipeline = assemble(configure(camera=camera))
    [feed] = pipeline.feeds.values()
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + (60 if feed.trouble else 0))
    monkeypatch.setattr(subject, "time", clock)
    monkeypatch.setattr(turns, "time", clock)
    with pytest.raises(NoFrameError, match=r"no frame within 60 s: false ended with exit status 1 after 0 frames"):
        once(pipeline)


def test_lost_result(assemble: Assemble, configure: Any) -> None:
    """A result that could not be kept is a failure."""
    with pytest.raises(OutputError, match=r"results were lost: 1 at outputs\.0"):
        once(assemble(configure(outputs=[{"type": "jsonl", "path": "/dev/full"}])))


@pytest.mark.usefixtures("nothing_left")
def test_one_of_each(assemble: Assemble, configure: Any, colours: Path, capfd: Any) -> None:
    """Of several cameras, `--once` gives one result of each."""
    cameras = {
        "file": {"type": "images", "path": "colours"},
        "live": {"type": "pattern"},
        "other": {"type": "pattern", "fps": 5},
    }
    once(assemble(configure(camera=None, cameras=cameras)))
    results = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert sorted(r["camera"] for r in results) == ["file", "live", "other"]
    assert [r["seq"] for r in results] == [1, 2, 3]


@pytest.mark.usefixtures("nothing_left")
def test_which_gave_none(assemble: Assemble, configure: Any, colours: Path, tmp_path: Path, capfd: Any) -> None:
    """The cameras that gave no frame are told by their keys, and the others' results are there."""
    (tmp_path / "a.jpg").write_bytes(b"")
    cameras = {
        "bad": {"type": "images", "path": "a.jpg"},
        "late": {"type": "pattern", "start_timeout": "1ms"},
        "good": {"type": "images", "path": "colours"},
    }
    with pytest.raises(NoFrameError) as caught:
        once(assemble(configure(camera=None, cameras=cameras)))
    assert caught.value.exit_code == 69
    assert sorted(str(caught.value).split("; ")) == [
        "cameras.bad.path: no frame could be read",
        "cameras.late.start_timeout: no frame within 0.001 s: it does not answer",
    ]
    [line] = capfd.readouterr().out.splitlines()
    assert json.loads(line)["camera"] == "good"
