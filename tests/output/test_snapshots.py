"""Frames as files beside the results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_runner.frame import Geometry, Picture, Shot, Stamp
from edge_runner.output.base import Origin
from edge_runner.output.publisher import Publisher
from edge_runner.output.snapshots import Snapshots, SnapshotsConfig
from edge_runner.output.when import When
from edge_runner.result import Answers, Result

Make = Callable[..., Result]
WHITE = (255, 255, 255)


def shot(level: int = 90, size: tuple[int, int] = (48, 64)) -> Shot:
    """A grey frame; the colours differ by channel, so that an exchange would show."""
    picture = np.full((*size, 3), (level, level + 30, level + 60), np.uint8)
    stamp = Stamp(1, time.monotonic_ns(), time.time_ns())
    return Shot("door", np.zeros((1, 8, 8, 3), np.float32), picture, Geometry(size[1], size[0]), stamp)


def mark(picture: Picture, answers: Answers) -> None:
    """Stands for drawing: a white corner."""
    picture[:16, :16] = WHITE


def published(folder: Path, results: list[Result], frame: Shot | None = None, **fields: Any) -> list[Result]:
    output = Snapshots(SnapshotsConfig(path=folder, **{"min_interval": 0.0, **fields}))
    output.verify()
    with Publisher({"outputs.0": output}, Origin(draw=mark), patient=True) as publisher:
        return [publisher.publish(result, frame or shot()) for result in results]


def test_the_frame_as_it_was(tmp_path: Path, result: Make) -> None:
    """The file is the whole frame as a JPEG, and the result names it."""
    [made] = published(tmp_path / "new" / "folder", [result()])
    [path] = (tmp_path / "new" / "folder").iterdir()
    assert json.loads(made.line())["snapshot"] == path.name
    picture = cv2.imread(str(path))
    assert picture is not None
    assert picture.shape == (48, 64, 3)
    assert np.abs(picture.astype(int) - (90, 120, 150)).max() <= 3


def test_of_the_moment_it_was_taken(tmp_path: Path, result: Make) -> None:
    """The frame's memory is used again while the file is still to be written: it is the first frame that is saved."""
    frame = shot()
    output = Snapshots(SnapshotsConfig(path=tmp_path))
    item = output.take(result(), frame)
    frame.picture[:] = 0
    output.open(Origin())
    assert item is not None
    output.write(item)
    assert cv2.imread(str(next(tmp_path.iterdir()))).mean() > 80


@pytest.mark.parametrize(("picture", "drawn"), [("plain", [False]), ("drawn", [True]), ("both", [False, True])])
def test_plain_or_drawn(tmp_path: Path, result: Make, picture: str, drawn: list[bool]) -> None:
    """Plain, drawn or both; the drawn one says so in its name, and the result names the plain one where there is one."""
    [made] = published(tmp_path, [result()], picture=picture)
    paths = sorted(tmp_path.iterdir(), key=lambda path: "drawn" in path.name)
    assert [path.name.endswith("-drawn.jpg") for path in paths] == drawn
    assert [bool(cv2.imread(str(path))[:8, :8].mean() > 250) for path in paths] == drawn
    assert made.saved == {"snapshot": paths[0].name}


def test_at_most_so_often(tmp_path: Path, result: Make) -> None:
    """One in `min_interval`, or in that of `when` where it is longer; the results between have none."""
    for folder, fields in (("a", {"min_interval": 60.0}), ("b", {"when": When(min_interval=60.0)})):
        made = published(tmp_path / folder, [result(seq=seq) for seq in (1, 2, 3)], **fields)
        assert [bool(each.saved) for each in made] == [True, False, False]
        assert len(list((tmp_path / folder).iterdir())) == 1


def test_when(tmp_path: Path, result: Make) -> None:
    """Only what is wanted is saved."""
    results = [result((label, 0.9), seq=seq) for seq, label in enumerate(("cat", "dog", "cat"), 1)]
    made = published(tmp_path, results, when=When(labels=("dog",)))
    assert [bool(each.saved) for each in made] == [False, True, False]


def test_quality(tmp_path: Path, result: Make) -> None:
    """A lower quality makes smaller files."""
    noise = shot()
    noise.picture[:] = np.random.default_rng(1).integers(0, 256, noise.picture.shape, np.uint8)
    sizes = []
    for quality in (20, 95):
        published(tmp_path / str(quality), [result()], noise, quality=quality)
        sizes.append(next((tmp_path / str(quality)).iterdir()).stat().st_size)
    assert sizes[0] * 2 < sizes[1]


def test_quota(tmp_path: Path, result: Make) -> None:
    """All files together never exceed `max_total`; the oldest go."""
    size = len(cv2.imencode(".jpg", shot().picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1])
    results = [result(seq=seq, time_ns=10**18 + seq * 10**9) for seq in range(1, 8)]
    made = published(tmp_path, results, max_total=3 * size + 10)
    assert sorted(os.listdir(tmp_path)) == [each.saved["snapshot"] for each in made[-3:]]


def test_no_room(tmp_path: Path, result: Make, mount_tmpfs: Any, caplog: pytest.LogCaptureFixture) -> None:
    """On a full disk a snapshot is lost and counted, nothing half stays there, and it works again when there is room."""
    disk = mount_tmpfs("64k")
    (disk / "filler").write_bytes(b"x" * 60_000)
    noise = shot(size=(200, 200))
    noise.picture[:] = np.random.default_rng(1).integers(0, 256, noise.picture.shape, np.uint8)
    output = Snapshots(SnapshotsConfig(path=disk / "snapshots", min_interval=0.0))
    with Publisher({"outputs.0": output}) as publisher:
        publisher.publish(result(seq=1), noise)
        deadline = time.monotonic() + 30
        while publisher.waiting:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert list((disk / "snapshots").iterdir()) == []
        (disk / "filler").unlink()
        publisher.publish(result(seq=2), noise)
    assert publisher.lost == {"outputs.0": 1}
    assert [path.name[-6:] for path in (disk / "snapshots").iterdir()] == ["-2.jpg"]
    assert "no space left on device" in caplog.text
    assert "works again; 1 results were lost" in caplog.text


def test_read_only_at_the_start(tmp_path: Path, result: Make, mount_tmpfs: Any) -> None:
    """A disk that is read-only at the start is no mistake of the configuration; snapshots come when it can be written."""
    disk = mount_tmpfs("1m")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    output = Snapshots(SnapshotsConfig(path=disk / "snapshots", min_interval=0.0))
    output.verify()
    with Publisher({"outputs.0": output}) as publisher:
        publisher.publish(result(seq=1), shot())
        deadline = time.monotonic() + 30
        while publisher.waiting:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        publisher.publish(result(seq=2), shot())
    assert publisher.lost == {"outputs.0": 1}
    assert [path.name[-6:] for path in (disk / "snapshots").iterdir()] == ["-2.jpg"]


def test_synchronised(tmp_path: Path, result: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot is on the disk, whole, before it gets its name."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(Path(os.readlink(f"/proc/self/fd/{file}")).name))
    [made] = published(tmp_path, [result()])
    assert synced == [f".{made.saved['snapshot']}"]


def test_in_a_real_run(start_cli: Any, configure: Any, tmp_path: Path) -> None:
    """A live camera's frames are saved whole, by the name in the log's line, and every name in the log has its file."""
    outputs = [
        {"type": "jsonl", "path": "out.jsonl"},
        {"type": "snapshots", "path": "snapshots", "picture": "both", "min_interval": "200ms"},
    ]
    child = start_cli("--config", configure(camera={"type": "pattern", "width": 320, "height": 240}, outputs=outputs))
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "snapshots").glob("*-drawn.jpg"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 0, child.stderr.read()
    results = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    names = [result["snapshot"] for result in results if "snapshot" in result]
    assert names == sorted(names)
    assert 3 <= len(names) < len(results)
    drawn = [name.replace(".jpg", "-drawn.jpg") for name in names]
    assert sorted(os.listdir(tmp_path / "snapshots")) == sorted(names + drawn)
    plain, marked = (cv2.imread(str(tmp_path / "snapshots" / name)) for name in (names[0], drawn[0]))
    assert plain.shape == (240, 320, 3)
    assert np.abs(plain.astype(int) - marked).max() > 100
