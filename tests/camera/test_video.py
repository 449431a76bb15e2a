"""Frames from real video files."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_runner.camera.video import Video, VideoConfig, cut_short
from edge_runner.errors import SettingError
from edge_runner.frame import Picture

pytestmark = pytest.mark.arm

Shots = Callable[..., list[tuple[Any, Picture]]]
FRAMES = 12
WIDTH, HEIGHT = 160, 120
STEP = 8  # pixels by which the bright part grows from frame to frame


def film(path: Path, codec: str, frames: int = FRAMES) -> Path:
    """A video whose frame n is bright in its left 8 n pixels."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), 10, (WIDTH, HEIGHT))
    assert writer.isOpened()
    chance = np.random.default_rng(1)
    for number in range(1, frames + 1):
        picture = chance.integers(20, 60, (HEIGHT, WIDTH, 3), np.uint8)
        picture[:, : STEP * number] += 160
        writer.write(picture)
    writer.release()
    return path


def seen(picture: Picture) -> tuple[int, int]:
    """The frame's number as its upper and its lower edge show it: not the same of a torn frame."""
    upper, lower = ((picture[rows] > 120).mean(axis=(0, 2)) > 0.5 for rows in (slice(0, 8), slice(-8, None)))
    return round(upper.sum() / STEP), round(lower.sum() / STEP)


def camera(path: Path, **settings: Any) -> Video:
    return Video(VideoConfig(path=path, **settings))


@pytest.fixture(params=[("film.avi", "MJPG"), ("film.mp4", "mp4v"), ("film.mkv", "MJPG")], ids=lambda p: p[0])
def clip(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return film(tmp_path / request.param[0], request.param[1])


def test_every_frame_in_order(clip: Path, shots: Shots, caplog: pytest.LogCaptureFixture) -> None:
    """All frames come, none twice, numbered from 1, under the file's name, and without a word."""
    taken = shots(camera(clip))
    numbers = list(range(1, FRAMES + 1))
    assert [seen(picture) for _, picture in taken] == [(n, n) for n in numbers]
    assert [shot.stamp.number for shot, _ in taken] == numbers
    assert {(shot.stamp.source, shot.dropped) for shot, _ in taken} == {(clip.name, None)}
    assert not caplog.records


def test_loop(clip: Path, shots: Shots) -> None:
    """A loop begins again with frame 1."""
    taken = shots(camera(clip, loop=True), most=FRAMES * 2 + 3)
    expected = [*range(1, FRAMES + 1), *range(1, FRAMES + 1), 1, 2, 3]
    assert [shot.stamp.number for shot, _ in taken] == expected
    assert [seen(picture)[0] for _, picture in taken] == expected


def test_frames_reuse_their_buffer(clip: Path) -> None:
    """A frame is decoded into the picture that is given."""
    reader = camera(clip)
    with reader:
        grab = reader.grab()
        assert grab is not None
        first = grab.decode(None)
        assert first is not None
        grab = reader.grab()
        assert grab is not None
        second = grab.decode(first)
        assert second is not None
        assert np.shares_memory(first, second)
        assert seen(second) == (2, 2)


def test_frame_that_is_not_wanted_is_not_decoded(clip: Path) -> None:
    """Frames can be passed over; the numbers go on."""
    reader = camera(clip)
    with reader:
        for _ in range(5):
            grab = reader.grab()
        assert grab is not None
        picture = grab.decode(None)
        assert picture is not None
        assert (grab.stamp.number, seen(picture)) == (5, (5, 5))


def index_first(path: Path) -> None:
    """Move an MP4's index before its frames, as downloads have it (ISO/IEC 14496-12: moov, and the offsets in stco)."""
    content = path.read_bytes()
    boxes, position = [], 0
    while position < len(content):
        length = struct.unpack_from(">I", content, position)[0]
        boxes.append(content[position : position + length])
        position += length
    index = next(box for box in boxes if box[4:8] == b"moov")
    at = index.index(b"stco") + 8
    count = struct.unpack_from(">I", index, at)[0]
    offsets = struct.unpack_from(f">{count}I", index, at + 4)
    moved = struct.pack(f">{count}I", *(offset + len(index) for offset in offsets))
    index = index[: at + 4] + moved + index[at + 4 + len(moved) :]
    rest = [box for box in boxes[1:] if box[4:8] != b"moov"]
    path.write_bytes(boxes[0] + index + b"".join(rest))


CUTTABLE = [("film.avi", "MJPG"), ("film.avi", "XVID"), ("film.mkv", "MJPG"), ("film.mp4", "mp4v")]


@pytest.mark.parametrize(("name", "codec"), CUTTABLE)
@pytest.mark.parametrize("fraction", [0.35, 0.5, 0.65])
def test_cut_in_the_middle_of_a_frame(
    tmp_path: Path, shots: Shots, caplog: pytest.LogCaptureFixture, name: str, codec: str, fraction: float
) -> None:
    """Of a video that was cut short, each whole frame comes and the torn one does not; one warning says so."""
    path = film(tmp_path / name, codec)
    if path.suffix == ".mp4":
        index_first(path)
        assert [seen(picture)[1] for _, picture in shots(camera(path))] == list(range(1, FRAMES + 1))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    pictures = [picture for _, picture in shots(camera(path))]
    assert len(pictures) >= 3
    assert [seen(picture) for picture in pictures] == [(n, n) for n in range(1, len(pictures) + 1)]
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert f"ended after {len(pictures)} of {FRAMES} frames" in record.getMessage()


def test_cut_in_the_last_frame(tmp_path: Path, shots: Shots, caplog: pytest.LogCaptureFixture) -> None:
    """Even where only the last frame is torn, it is left out and said."""
    path = film(tmp_path / "film.avi", "MJPG")
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"\xff\xd8\xff") + 1000])
    assert len(shots(camera(path))) == FRAMES - 1
    assert f"ended after {FRAMES - 1} of {FRAMES} frames" in caplog.text


def test_cut_video_ends_well(tmp_path: Path, run_cli: Any, configure: Any) -> None:
    """The daemon is done with a cut video as with a whole one: exit 0, after a warning."""
    path = film(tmp_path / "film.avi", "MJPG")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    done = run_cli("--config", configure(camera={"type": "video", "path": "film.avi"}))
    assert done.returncode == 0
    assert "warning" in done.stderr.splitlines()[0]
    assert "cut short" in done.stderr.splitlines()[0]
    lines = done.stdout.splitlines()
    assert len(lines) >= 3
    assert all(f'"seq": {n}, "frame": {n},' in line for n, line in enumerate(lines, 1))


def test_loop_over_a_cut_video(tmp_path: Path, shots: Shots, caplog: pytest.LogCaptureFixture) -> None:
    """A loop over a cut video warns once, not in every round."""
    path = film(tmp_path / "film.avi", "MJPG")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    whole = len(shots(camera(path)))
    caplog.clear()
    taken = shots(camera(path, loop=True), most=3 * whole)
    assert [shot.stamp.number for shot, _ in taken] == [*range(1, whole + 1)] * 3
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("content", "short"),
    [
        (b"", False),
        (b"RIFF", True),
        (b"RIFF" + struct.pack("<I", 4) + b"AVI ", False),
        (b"RIFF" + struct.pack("<I", 5) + b"AVI ", True),
        (b"RIFF" + struct.pack("<I", 4) + b"AVI RIFF" + struct.pack("<I", 100) + b"AVIX", True),
        (b"RIFF" + struct.pack("<I", 4) + b"AVI " + bytes(5000), False),
        (struct.pack(">I", 16) + b"ftypisom\0\0\0\0" + struct.pack(">I", 20) + b"mdat" + bytes(12), False),
        (struct.pack(">I", 16) + b"ftypisom\0\0\0\0" + struct.pack(">I", 20) + b"mdat" + bytes(11), True),
        (struct.pack(">I", 16) + b"ftypisom\0\0\0\0" + struct.pack(">I4sQ", 1, b"mdat", 20) + bytes(4), False),
        (struct.pack(">I", 16) + b"ftypisom\0\0\0\0" + struct.pack(">I4sQ", 1, b"mdat", 1 << 40) + bytes(4), True),
        (struct.pack(">I", 16) + b"ftypisom\0\0\0\0" + struct.pack(">I", 0) + b"mdat" + bytes(9), False),
        (struct.pack(">I", 16) + b"ftypisom\0\0\0\0" + b"\0\0\0\3junk", False),
        (b"\x1aE\xdf\xa3" + bytes(100), False),
    ],
)  # fmt: skip
def test_lengths_of_containers(tmp_path: Path, content: bytes, short: bool) -> None:
    """AVI and MP4 files say how long they are; other files say nothing."""
    path = tmp_path / "film"
    path.write_bytes(content)
    assert cut_short(path) is short


@pytest.mark.parametrize("content", [b"", b"this is no video\n" * 100, bytes(10_000)])
def test_no_video(tmp_path: Path, content: bytes) -> None:
    """A file that is no video is a wrong setting."""
    path = tmp_path / "film.mp4"
    path.write_bytes(content)
    with pytest.raises(SettingError, match="is no video that OpenCV can read") as caught:
        camera(path).verify()
    assert (caught.value.key, caught.value.exit_code) == ("path", 78)


def test_no_video_exits_with_78(tmp_path: Path, run_cli: Any, configure: Any) -> None:
    """The daemon refuses it with the key's place, in one line."""
    (tmp_path / "film.mp4").write_bytes(b"this is no video\n" * 100)
    path = configure(camera={"type": "video", "path": "film.mp4"})
    done = run_cli("--config", path)
    assert done.returncode == 78
    assert done.stderr == (
        f"edge-runner: error: {path}:4: camera.path: {tmp_path / 'film.mp4'} is no video that OpenCV can read\n"
    )


def test_what_follows_the_last_box_is_no_damage(tmp_path: Path, shots: Shots) -> None:
    """Bytes after a whole MP4 cost no frame."""
    path = film(tmp_path / "film.mp4", "mp4v")
    path.write_bytes(path.read_bytes() + b"\xff\xff\xff\xffjunkjunk")
    assert len(shots(camera(path))) == FRAMES
