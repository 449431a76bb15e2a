"""A program's standard output as a camera: frames cut exactly, its words heard, its end named, and nothing of it left."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_runner.camera.command import Command, CommandConfig
from edge_runner.camera.pixels import RawFrame
from edge_runner.camera.program import BUFFERS, BURSTS_ALIKE, Bursts
from edge_runner.errors import CameraError

pytestmark = pytest.mark.usefixtures("nothing_left")

SIZE = 16 * 16  # of a frame of gray8
WRITER = """
import os, signal, sys, time
def write(*levels, size=256):
    for level in levels:
        os.write(1, bytes([level]) * size)
def say(text):
    os.write(2, text.encode())
"""


@pytest.fixture
def program() -> Iterator[Callable[..., Command]]:
    """An open camera of 16x16 grey pixels whose program is the Python text given; closed at the end."""
    cameras = []

    def start(text: str, **settings: Any) -> Command:
        argv = (sys.executable, "-c", WRITER + textwrap.dedent(text))
        given = {"format": "gray8", "width": 16, "height": 16, **settings}
        camera = Command(CommandConfig(command=argv, **given))
        cameras.append(camera)
        camera.open()
        return camera

    yield start
    for camera in cameras:
        camera.close()


def level(frame: RawFrame | None) -> int:
    """The grey of a frame of one colour."""
    assert frame is not None
    picture = frame.decode(None)
    assert picture is not None
    assert (picture == picture[0, 0, 0]).all()
    return int(picture[0, 0, 0])


def taken(camera: Command, most: int = 100) -> list[int]:
    """The greys of the frames up to the program's end, each given back at once."""
    greys = []
    for _ in range(most):
        try:
            frame = camera.grab()
        except CameraError:
            break
        greys.append(level(frame))
        assert frame is not None
        frame.release()
    return greys


def its_end(camera: Command) -> str:
    """What the camera says when the program has ended."""
    with pytest.raises(CameraError) as caught:
        grab_on(camera)
    return str(caught.value)


def grab_on(camera: Command, most: int = 1000) -> None:
    for _ in range(most):
        frame = camera.grab()
        assert frame is not None
        frame.release()


def gone(process: int) -> bool:
    """Whether a process has ended, and is no zombie."""
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{process}") and time.monotonic() < deadline:
        time.sleep(0.01)
    return not os.path.exists(f"/proc/{process}")


def test_frames(program: Callable[..., Command], tmp_path: Path) -> None:
    """However the bytes come, frames are cut where they end, numbered, and stamped when they were whole."""
    camera = program(
        f"""
        write(1, 2)
        os.write(1, bytes([3]) * 100)
        while not os.path.exists({str(tmp_path / "go")!r}):
            time.sleep(0.01)
        os.write(1, bytes([3]) * 156 + bytes([4]) * 200)
        os.write(1, bytes([4]) * 56)
        """
    )
    frames, half_ns = [], []

    def go() -> None:
        half_ns.append(time.monotonic_ns())
        (tmp_path / "go").touch()

    late = threading.Timer(0.3, go)
    for number in range(1, 5):
        if number == 3:
            late.start()
        started = time.monotonic_ns()
        frame = camera.grab()
        assert frame is not None
        assert started <= frame.stamp.monotonic_ns <= time.monotonic_ns()
        assert abs((time.time_ns() - frame.stamp.time_ns) - (time.monotonic_ns() - frame.stamp.monotonic_ns)) < 10e9
        frames.append((frame.stamp.number, level(frame), frame.stamp.monotonic_ns))
        frame.release()
    assert [(number, grey) for number, grey, _ in frames] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    late.join()
    assert frames[2][2] > half_ns[0]
    assert camera.torn == 0


def test_three_frames_are_held(program: Callable[..., Command]) -> None:
    """Three frames keep what they hold while a fourth is read; given back, their buffers are used again."""
    camera = program("write(*range(1, 41))")
    held = [camera.grab() for _ in range(3)]
    for number in range(4, 41):
        frame = camera.grab()
        assert level(frame) == number
        assert [level(other) for other in held] == list(range(number - 3, number))
        held[0].release()
        held = [*held[1:], frame]
    assert BUFFERS == 4


def test_half_frame_at_the_end(program: Callable[..., Command]) -> None:
    """A frame that never became whole is counted, and not delivered."""
    camera = program("write(1, 2); os.write(1, bytes(100))")
    assert taken(camera) == [1, 2]
    assert camera.torn == 1


def test_jpegs(program: Callable[..., Command]) -> None:
    """JPEGs say their size themselves; several that came together are handed out one by one, torn ones left out."""
    pictures = [np.full((40 + k, 50, 3), 40 * k, np.uint8) for k in range(4)]
    content = [cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures]
    content[2] = content[2][:-100]
    text = f"for jpegs in {[content[0] + content[1], *content[2:]]!r}: os.write(1, jpegs); time.sleep(0.05)"
    camera = program(text, format="mjpeg", width=None, height=None)
    seen = []
    for _ in range(3):
        frame = camera.grab()
        assert frame is not None
        picture = frame.decode(None)
        assert picture is not None
        seen.append((frame.stamp.number, *picture.shape[:2]))
    assert seen == [(1, 40, 50), (2, 41, 50), (4, 43, 50)]
    with pytest.raises(CameraError, match="ended with exit status 0 after 3 frames"):
        camera.grab()
    assert camera.torn == 1


def test_no_jpegs(program: Callable[..., Command]) -> None:
    """What is no stream of JPEGs is said to be none."""
    camera = program("write(*range(256), size=2000)", format="mjpeg", width=None, height=None)
    with pytest.raises(CameraError, match="no JPEG"):
        camera.grab()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "write(1); say('one\\n\\nno such camera\\n'); sys.exit(3)",
            "ended with exit status 3 after 1 frame: no such camera$",
        ),
        ("say('half a line'); sys.exit(1)", "ended with exit status 1 after 0 frames: half a line$"),
        ("sys.exit(0)", "ended with exit status 0 after 0 frames$"),
        ("write(1, 2); os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL after 2 frames$"),
        ("os.kill(os.getpid(), 40)", "was killed by signal 40 after 0 frames$"),
        ("os.close(1); time.sleep(30)", "closed its output after 0 frames$"),
        (
            "say('rtsp://user:pa55@10.0.0.7/live: refused\\n')",
            r"ended with exit status 0 after 0 frames: rtsp://\*\*\*@10.0.0.7/live: refused$",
        ),
        ("say('50%\\r75%\\r' + 'x' * 1000)", f"ended with exit status 0 after 0 frames: {'x' * 300}$"),
    ],
)
def test_end(program: Callable[..., Command], text: str, says: str) -> None:
    """How a program ended is named, with its last word, short and without passwords."""
    assert re.search(f"^{Path(sys.executable).name} {says}", its_end(program(text)))


def test_cannot_be_run(tmp_path: Path) -> None:
    """A program that cannot be started is named, with the reason."""
    (tmp_path / "text").write_text("hello")
    for path, reason in ((tmp_path / "none", "no such file or directory"), (tmp_path / "text", "permission denied")):
        camera = Command(CommandConfig(command=(str(path),), format="gray8", width=16, height=16))
        with pytest.raises(CameraError, match=f"^{path} cannot be run: {reason}$"):
            camera.open()
        camera.close()


def test_words_are_logged(program: Callable[..., Command], caplog: pytest.LogCaptureFixture) -> None:
    """What a program says is in the log, for whoever debugs it."""
    caplog.set_level(logging.DEBUG, "edge_runner.camera.program")
    camera = program("say('lens cap is on\\n'); write(1)")
    assert taken(camera) == [1]
    camera.close()
    assert caplog.messages == [f"{Path(sys.executable).name}: lens cap is on"]


def test_flood_of_words(program: Callable[..., Command], caplog: pytest.LogCaptureFixture) -> None:
    """A program that never stops complaining goes on giving frames; of the flood little is logged, and the last of it is kept."""
    caplog.set_level(logging.DEBUG, "edge_runner.camera.program")
    camera = program(
        "for k in range(200):\n    say('no\\n' * 20_000 + f'line {k}\\n')\n    write(k)\nsay('the last\\n')"
    )
    assert taken(camera, 200) == list(range(200))
    with pytest.raises(CameraError, match=r"after 200 frames: the last$"):
        camera.grab()
    assert 0 < len(caplog.messages) < 200


def test_interrupt_ends_the_wait(program: Callable[..., Command]) -> None:
    """A grab that waits for a frame ends when no more are wanted, and the program with it."""
    camera = program("write(1); time.sleep(60)")
    assert level(camera.grab()) == 1
    process = camera._process.pid
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(camera.grab()))
    thread.start()
    time.sleep(0.1)
    camera.interrupt()
    thread.join(30)
    assert found == [None]
    assert camera._process.returncode == -signal.SIGTERM
    assert gone(process)


def test_program_that_ignores_sigterm(program: Callable[..., Command]) -> None:
    """A program that will not end is killed after a second."""
    camera = program("signal.signal(signal.SIGTERM, signal.SIG_IGN); write(1); time.sleep(60)")
    assert level(camera.grab()) == 1
    process, started = camera._process.pid, time.monotonic()
    camera.interrupt()
    assert 0.9 < time.monotonic() - started < 30
    assert camera._process.returncode == -signal.SIGKILL
    assert gone(process)
    assert camera.grab() is None


def test_grandchild_that_stays(program: Callable[..., Command]) -> None:
    """What a program left behind holds its pipes open: that keeps nobody waiting."""
    text = "import subprocess; child = subprocess.Popen(['sleep', '60']).pid; write(*child.to_bytes(3, 'little')); sys.exit()"
    camera = program(text)
    child = int.from_bytes([level(camera.grab()) for _ in range(3)], "little")
    try:
        started = time.monotonic()
        camera.interrupt()
        assert camera.grab() is None
        camera.close()
        assert time.monotonic() - started < 30
    finally:
        os.kill(child, signal.SIGKILL)


def test_signals_are_its_own(program: Callable[..., Command]) -> None:
    """What this process ignores or blocks, the program does not."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        camera = program("write(1 + (signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)); time.sleep(60)")
        assert level(camera.grab()) == 2
        process = camera._process
        camera.close()
        assert process.returncode == -signal.SIGTERM
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        for number, handler in before.items():
            signal.signal(number, handler)


def test_open_and_close_twice(program: Callable[..., Command]) -> None:
    """Opened again, it runs the program anew and counts from 1; closed again, nothing happens. Unopened, it gives nothing."""
    camera = program("write(7); time.sleep(60)")
    first = camera._process.pid
    assert level(camera.grab()) == 7
    camera.open()
    assert gone(first)
    frame = camera.grab()
    assert frame is not None
    assert frame.stamp.number == 1
    camera.close()
    camera.close()
    with pytest.raises(CameraError, match="not open"):
        camera.grab()


ORPHAN = """
import sys
from edge_runner.camera.command import Command, CommandConfig
camera = Command(CommandConfig(command=("sleep", "60"), format="gray8", width=16, height=16))
camera.open()
import os
print(camera._process.pid, os.getpgid(camera._process.pid) == os.getpgid(0), flush=True)
sys.stdin.read()
"""


def test_no_orphan() -> None:
    """Where its camera's process is killed, the program dies too; until then it is of the same process group."""
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        process, same_group = child.stdout.readline().split()
        assert os.path.exists(f"/proc/{process}")
        child.kill()
    assert same_group == "True"
    assert gone(int(process))


def test_large_pipe(program: Callable[..., Command]) -> None:
    """A whole large frame fits into the pipe: the program need not wait for its reader."""
    text = "os.write(1, bytes(900_000)); say('written\\n'); time.sleep(60)"
    camera = program(text, width=1000, height=900)
    deadline = time.monotonic() + 30
    while camera._last_line != "written" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert camera._last_line == "written"


def test_wrong_size_is_told(program: Callable[..., Command], caplog: pytest.LogCaptureFixture) -> None:
    """A program that writes frames of another size is found out, once: both sizes are named."""
    camera = program("for k in range(1500):\n    write(k % 256, size=300)\n    time.sleep(0.02)")

    def warnings() -> list[str]:
        return [record.message for record in caplog.records if record.levelno == logging.WARNING]

    while not warnings():
        grab_on(camera, 1)
    grab_on(camera, 30)
    [warning] = warnings()
    assert "has 256 bytes, but the program writes 300 at a time" in warning


def test_right_size_is_not_doubted(program: Callable[..., Command], caplog: pytest.LogCaptureFixture) -> None:
    """Frames of the right size are never doubted, though they are written piece by piece."""
    camera = program("for k in range(40):\n    write(k, size=128)\n    time.sleep(0.005)\n    write(k, size=128)")
    assert taken(camera) == list(range(40))
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize(
    ("lengths", "warns"),
    [
        ([300] * BURSTS_ALIKE, True),
        ([300] * (BURSTS_ALIKE - 1), False),
        ([*[300] * (BURSTS_ALIKE - 1), 299, *[300] * (BURSTS_ALIKE - 1)], False),
        ([256] * 50, False),
        ([512] * 50, False),
        ([128] * 50, False),  # half a frame at a time
        ([100] * 50, False),  # a network's packets
        ([256 * 20 + 1] * 50, False),  # a backlog
        ([0, 300] * BURSTS_ALIKE, True),
        ([342] * 50, True),
    ],
)
def test_bursts(lengths: list[int], warns: bool) -> None:
    """Only bursts of one length, many in a row, of about a frame's size and none of its multiples or parts, are believed."""
    bursts, total, warnings = Bursts(256), 0, []
    for length in lengths:
        total += length
        warnings.append(bursts.ended(total))
    assert len([warning for warning in warnings if warning]) == warns
