"""Video4Linux2 cameras, against a driver of our own; scripts/test_v4l2.sh has the kernel's."""

from __future__ import annotations

import errno
import logging
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_runner.camera import access, devices
from edge_runner.camera import v4l2 as subject
from edge_runner.camera import videodev as v4l
from edge_runner.camera.devices import Offer
from edge_runner.camera.v4l2 import FORMATS, Counter, V4l2, V4l2Config, choose, device_path
from edge_runner.errors import CameraError, SettingError
from edge_runner.frame import Enough

PAGE = mmap.PAGESIZE
BYTES = {"YUYV": 2, "BGR3": 3, "RGB3": 3, "MJPG": 0, "JPEG": 0}  # a pixel, in the first plane
MONOTONIC, DAMAGED = v4l.CLOCK_MONOTONIC, v4l.DAMAGED


def jpeg(width: int = 64, height: int = 48, level: int = 128) -> bytes:
    good, coded = cv2.imencode(".jpg", np.full((height, width, 3), level, np.uint8))
    assert good
    return coded.tobytes()


class Driver:
    """What the kernel does at each call, as little of it as a camera needs. The device is a file in memory."""

    def __init__(self) -> None:
        self.formats = ["YUYV", "MJPG"]
        self.size = (64, 48)
        self.stride: int | None = None
        self.rate: tuple[int, int] | None = (1, 30)
        self.capabilities = v4l.CAN_CAPTURE | v4l.CAN_STREAM
        self.buffers = 99
        self.fails: dict[int, int] = {}
        """An errno by the number of the call that has it."""
        self.frames: list[tuple[int, int, bytes]] = []
        """Sequence number, flags and bytes of the frames to come; behind them there is nothing, or `end`."""
        self.end = errno.EAGAIN
        self.queued: list[int] = []
        self.asked: dict[int, Any] = {}
        self.age_ns = 5_000_000
        self.streams = False

    def open(self, path: str) -> int:
        self.memory = os.memfd_create("video")
        os.ftruncate(self.memory, 8 * 16 * PAGE)
        return self.memory

    def call(self, device: int, number: int, argument: Any) -> None:
        assert device == self.memory
        self.asked[number] = argument
        if number in self.fails:
            raise OSError(self.fails[number], os.strerror(self.fails[number]))
        self.CALLS[number](self, argument)

    def _capability(self, answer: v4l.Capability) -> None:
        answer.driver, answer.card = b"fake", b"Fake Webcam"
        answer.capabilities = self.capabilities

    def _format(self, entry: v4l.FormatDescription) -> None:
        if entry.index >= len(self.formats):
            raise OSError(errno.EINVAL, "no more")
        code = self.formats[entry.index]
        entry.fourcc, entry.description = v4l.fourcc(code), f"in {code}".encode()

    def _set_format(self, asked: v4l.Format) -> None:
        pix = asked.fmt.pix
        pix.width, pix.height = self.size
        code = v4l.letters(pix.fourcc)
        pix.bytesperline = self.stride if self.stride is not None else 64 * BYTES.get(code, 1)

    def _set_rate(self, asked: v4l.StreamParameters) -> None:
        if self.rate is None:
            raise OSError(errno.ENOTTY, "no rates")
        asked.capability = v4l.CAN_SET_RATE
        asked.interval = v4l.Fraction(*self.rate)

    def _request(self, asked: v4l.BuffersRequest) -> None:
        asked.count = min(asked.count, self.buffers)

    def _query(self, buffer: v4l.Buffer) -> None:
        buffer.length, buffer.m.offset = 16 * PAGE, buffer.index * 16 * PAGE

    def _queue(self, buffer: v4l.Buffer) -> None:
        assert buffer.index not in self.queued
        self.queued.append(buffer.index)

    def _dequeue(self, buffer: v4l.Buffer) -> None:
        if not self.frames or not self.queued:
            raise OSError(self.end, os.strerror(self.end))
        sequence, flags, data = self.frames.pop(0)
        buffer.index, buffer.sequence, buffer.flags = self.queued.pop(0), sequence, flags
        buffer.bytesused = len(data)
        os.pwrite(self.memory, data, buffer.index * 16 * PAGE)
        seconds, rest_ns = divmod(time.monotonic_ns() - self.age_ns, 10**9)
        buffer.timestamp = v4l.Time(seconds, rest_ns // 1000)

    def _start(self, _: Any) -> None:
        self.streams = True

    def _stop(self, _: Any) -> None:
        self.streams = False

    CALLS: dict[int, Callable[[Driver, Any], None]] = {  # noqa: RUF012
        v4l.QUERYCAP: _capability,
        v4l.ENUM_FMT: _format,
        v4l.S_FMT: _set_format,
        v4l.S_PARM: _set_rate,
        v4l.REQBUFS: _request,
        v4l.QUERYBUF: _query,
        v4l.QBUF: _queue,
        v4l.DQBUF: _dequeue,
        v4l.STREAMON: _start,
        v4l.STREAMOFF: _stop,
    }


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, nothing_left: None) -> Driver:
    """A camera's driver, at every path."""
    if not sys.platform.startswith("linux"):
        pytest.skip("Linux only")
    made = Driver()
    monkeypatch.setattr(access, "open_device", made.open)
    monkeypatch.setattr(v4l, "call", made.call)
    monkeypatch.setattr(devices, "identity", lambda path: None)
    return made


@pytest.fixture
def camera(driver: Driver) -> Iterator[Callable[..., V4l2]]:
    """Make a camera; it is closed at the end."""
    made = []

    def make(**settings: Any) -> V4l2:
        made.append(V4l2(V4l2Config(**{"width": 64, "height": 48, **settings})))
        return made[-1]

    yield make
    for each in made:
        each.close()


Make = Callable[..., V4l2]
YUYV = bytes(64 * 48 * 2)


class TestChoice:
    @pytest.mark.parametrize(
        ("offered", "wanted", "chosen"),
        [
            ("YUYV MJPG", "auto", "MJPG"),
            ("YUYV JPEG", "auto", "JPEG"),
            ("YUYV MJPG", "yuyv", "YUYV"),
            ("YUYV MJPG", "mjpeg", "MJPG"),
            ("H264 YUYV NV12", "auto", "YUYV"),
            ("GREY RGB3", "auto", "RGB3"),
            ("Y16 GREY", "auto", "GREY"),
            ("YU12 NV12", "auto", "NV12"),
            ("BGR3 YU12", "auto", "YU12"),
        ],
    )
    def test_best(self, offered: str, wanted: str, chosen: str) -> None:
        """MJPEG comes first, then YUYV, then what else can be decoded, grey last."""
        assert choose([Offer(code, "") for code in offered.split()], wanted, "/dev/video0") == chosen

    def test_none(self) -> None:
        """A refusal says what the device has."""
        with pytest.raises(CameraError) as raised:
            choose([Offer("H264", "H.264"), Offer("UYVY", "UYVY 4:2:2")], "auto", "/dev/video0")
        assert str(raised.value) == (
            "/dev/video0 has no format that can be decoded here; it has H264 (H.264), UYVY (UYVY 4:2:2);"
            f" known are {', '.join(FORMATS)}"
        )

    def test_not_the_wanted_one(self) -> None:
        """So does one of what was asked for."""
        with pytest.raises(CameraError, match=r"^/dev/video0 has no mjpeg; it has YUYV \(4:2:2\); pixel_format auto"):
            choose([Offer("YUYV", "4:2:2")], "mjpeg", "/dev/video0")


class TestCounter:
    def test_gaps(self) -> None:
        """Frames are counted from 1, those that the driver dropped included."""
        counter = Counter()
        assert [counter.number(n) for n in (7, 8, 11, 12)] == [1, 2, 5, 6]

    def test_restart(self) -> None:
        """A driver that begins anew, or always says the same, makes no number come twice."""
        counter = Counter()
        assert [counter.number(n) for n in (5, 0, 1, 1, 2**32 - 1, 0)] == [1, 2, 3, 4, 2**32 + 2, 2**32 + 3]


class TestPath:
    @pytest.mark.parametrize(
        ("device", "path"),
        [
            (0, "/dev/video0"),
            (12, "/dev/video12"),
            ("2", "/dev/video2"),
            ("/dev/v4l/by-id/x", "/dev/v4l/by-id/x"),
        ],
    )
    def test_where(self, device: int | str, path: str) -> None:
        """A number, as text too, is that of a /dev/videoN; a path is itself."""
        assert device_path(device) == path
        V4l2(V4l2Config(device=device)).verify()

    @pytest.mark.parametrize("device", ["video0", "webcam", "", "-1"])
    def test_what_cannot_be(self, device: str) -> None:
        """What is neither is wrong for good."""
        with pytest.raises(SettingError, match=f"^got '{device}'; allowed: a path such as /dev/video0") as raised:
            V4l2(V4l2Config(device=device)).verify()
        assert raised.value.key == "device"

    def test_address(self) -> None:
        """A camera's address may hold a password, and is not repeated."""
        with pytest.raises(SettingError) as raised:
            V4l2(V4l2Config(device="rtsp://user:secret@host/")).verify()
        assert "secret" not in str(raised.value)

    def test_other_systems(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Elsewhere than on Linux there is no such camera."""
        monkeypatch.setattr(sys, "platform", "darwin")
        with pytest.raises(SettingError, match="need Linux"):
            V4l2(V4l2Config()).verify()


class TestOpen:
    def test_mjpeg_first(self, driver: Driver, camera: Make) -> None:
        """Format, size and rate are asked for, and what was given is said."""
        opened = camera(device="/dev/video3")
        opened.open()
        pix, interval = driver.asked[v4l.S_FMT].fmt.pix, driver.asked[v4l.S_PARM].interval
        assert (pix.width, pix.height, v4l.letters(pix.fourcc)) == (64, 48, "MJPG")
        assert (interval.numerator, interval.denominator) == (1, 30)
        assert opened.describe() == "/dev/video3 (Fake Webcam): MJPG 64x48 at 30 frames/s"
        assert driver.streams
        assert len(driver.queued) == subject.BUFFERS

    @pytest.mark.parametrize("code", FORMATS)
    def test_every_format(self, driver: Driver, camera: Make, code: str) -> None:
        """Each format that is known can be opened, and is described without its rows where these have no padding."""
        driver.formats = [code]
        opened = camera()
        opened.open()
        assert opened.describe() == f"/dev/video0 (Fake Webcam): {code} 64x48 at 30 frames/s"

    @pytest.mark.parametrize(("fps", "asked"), [(30.0, (1, 30)), (29.97, (100, 2997)), (0.5, (2, 1)), (7.5, (2, 15))])
    def test_rates(self, driver: Driver, camera: Make, fps: float, asked: tuple[int, int]) -> None:
        """A rate is asked for as the fraction of a second that it means."""
        seen = []
        driver.CALLS = {**driver.CALLS, v4l.S_PARM: lambda self, argument: seen.append(argument.interval)}
        camera(fps=fps).open()
        assert (seen[0].numerator, seen[0].denominator) == asked

    def test_warns(self, driver: Driver, camera: Make, caplog: pytest.LogCaptureFixture) -> None:
        """A size or rate other than asked for is a warning, and what is described is what there is."""
        driver.size, driver.rate, driver.stride, driver.formats = (32, 24), (1, 5), 80, ["YUYV"]
        opened = camera(fps=10)
        with caplog.at_level(logging.WARNING):
            opened.open()
        assert [record.getMessage() for record in caplog.records] == [
            "/dev/video0 gives 32x24, not 64x48 as asked",
            "/dev/video0 gives 5 frames/s, not 10 as asked",
        ]
        assert opened.describe() == "/dev/video0 (Fake Webcam): YUYV 32x24 at 5 frames/s, 80 bytes a row"

    def test_as_asked(self, driver: Driver, camera: Make, caplog: pytest.LogCaptureFixture) -> None:
        """Otherwise there is nothing to warn of, nor where a driver knows no rates."""
        driver.rate = None
        opened = camera(fps=12)
        with caplog.at_level(logging.WARNING):
            opened.open()
        assert caplog.records == []
        assert opened.describe() == "/dev/video0 (Fake Webcam): MJPG 64x48"

    def test_twice(self, driver: Driver, camera: Make) -> None:
        """Opened again it begins anew; closed twice it stays closed."""
        opened = camera()
        opened.open()
        driver.queued.clear()
        opened.open()
        driver.frames = [(50, 0, jpeg())]
        assert opened.grab().stamp.number == 1  # type: ignore[union-attr]
        opened.close()
        opened.close()
        assert not driver.streams
        assert opened.grab() is None

    @pytest.mark.parametrize(
        ("call", "code", "says"),
        [
            (v4l.S_FMT, errno.EBUSY, "/dev/video0 is in use by motion (pid 7)"),
            (v4l.STREAMON, errno.EBUSY, "/dev/video0 is in use by motion (pid 7)"),
            (v4l.STREAMON, errno.ENOSPC, "/dev/video0: the USB bus has no room left for MJPG 64x48 at 30 frames/s"),
            (v4l.STREAMON, errno.EIO, "/dev/video0 (Fake Webcam) does not answer (input/output error): its cable"),
            (v4l.REQBUFS, errno.ENODEV, "/dev/video0 (Fake Webcam) was unplugged"),
            (v4l.S_PARM, errno.EIO, "/dev/video0 (Fake Webcam) does not answer"),
            (v4l.REQBUFS, errno.ENOMEM, "/dev/video0 (Fake Webcam) cannot be started: cannot allocate memory"),
            (v4l.QUERYCAP, errno.ENOTTY, "/dev/video0 is no video device"),
        ],
    )
    def test_refusals(
        self, driver: Driver, camera: Make, monkeypatch: pytest.MonkeyPatch, call: int, code: int, says: str
    ) -> None:
        """Whatever the driver refuses is one line that names the device, says why, and leaves nothing open."""
        monkeypatch.setattr(devices, "holders", lambda path: [devices.Holder(7, "motion")])
        driver.fails[call] = code
        with pytest.raises(CameraError) as raised:
            camera().open()
        assert str(raised.value).startswith(says)
        assert raised.value.exit_code == 1

    def test_full_bus_is_no_full_disk(self, driver: Driver, camera: Make) -> None:
        """Where USB has no room left, the ways out are named."""
        driver.fails[v4l.STREAMON] = errno.ENOSPC
        with pytest.raises(CameraError, match="set pixel_format mjpeg, a smaller size or fewer fps"):
            camera().open()

    def test_other_nodes(self, driver: Driver, camera: Make) -> None:
        """What is no camera is named for what it is."""
        driver.capabilities = v4l.CAN_METADATA | v4l.CAN_STREAM
        with pytest.raises(CameraError, match=r"^/dev/video0 \(Fake Webcam\) gives a camera's metadata, no pictures; "):
            camera().open()

    def test_few_buffers(self, driver: Driver, camera: Make) -> None:
        """A driver with too few buffers would stand still; it is refused."""
        driver.buffers = 3
        with pytest.raises(CameraError, match="has 3 buffers only; 4 are needed"):
            camera().open()

    def test_impossible_layout(self, driver: Driver, camera: Make) -> None:
        """Rows that are too short for their pixels are refused."""
        driver.formats, driver.stride = ["YUYV"], 100
        with pytest.raises(CameraError, match=r"^/dev/video0 gives frames that cannot be decoded here: "):
            camera().open()

    def test_other_format_than_asked(self, driver: Driver, camera: Make) -> None:
        """A driver that answers with a format of its own choice is believed where we know that, and refused where not."""

        def change(code: str) -> Callable[[Driver, Any], None]:
            def set_format(self: Driver, asked: v4l.Format) -> None:
                asked.fmt.pix.fourcc = v4l.fourcc(code)
                self._set_format(asked)

            return set_format

        driver.CALLS = {**driver.CALLS, v4l.S_FMT: change("YUYV")}
        opened = camera()
        opened.open()
        assert "YUYV 64x48" in opened.describe()
        opened.close()
        driver.CALLS = {**driver.CALLS, v4l.S_FMT: change("H264")}
        with pytest.raises(CameraError, match="gives H264 instead of MJPG, and that cannot be decoded here"):
            opened.open()


class TestGrab:
    def test_mjpeg(self, driver: Driver, camera: Make) -> None:
        """A JPEG is decoded without what the camera put behind it, smaller where that is enough."""
        opened = camera()
        opened.open()
        driver.frames = [(0, MONOTONIC, jpeg(level=200) + bytes(500))]
        frame = opened.grab()
        assert frame is not None
        picture = frame.decode(None)
        assert picture is not None
        assert picture.shape == (48, 64, 3)
        assert abs(int(picture[24, 32, 0]) - 200) <= 2
        small = frame.decode(None, Enough(16, 12))
        assert small is not None
        assert small.shape == (12, 16, 3)
        assert frame.size == (64, 48)
        frame.release()

    def test_raw_with_padded_rows(self, driver: Driver, camera: Make) -> None:
        """The driver's own row length is followed."""
        driver.formats, driver.stride = ["BGR3"], 200
        opened = camera()
        opened.open()
        rows = np.zeros((48, 200), np.uint8)
        rows[:, :192] = np.tile(np.array([10, 20, 30], np.uint8), 64)
        driver.frames = [(0, MONOTONIC, rows.tobytes())]
        frame = opened.grab()
        assert frame is not None
        picture = frame.decode(None)
        assert picture is not None
        assert (picture == np.array([10, 20, 30])).all()
        frame.release()

    def test_nothing_is_copied(self, driver: Driver, camera: Make) -> None:
        """A frame is the driver's own memory, which the driver gets back when it is released, and not before."""
        driver.formats = ["YUYV"]
        opened = camera()
        opened.open()
        driver.frames = [(0, MONOTONIC, YUYV), (1, MONOTONIC, YUYV)]
        first, second = opened.grab(), opened.grab()
        assert first is not None
        assert second is not None
        assert len(driver.queued) == subject.BUFFERS - 2
        before = first.fingerprint()
        os.pwrite(driver.memory, b"changed", 0)
        assert first.fingerprint() != before
        second.release()
        first.release()
        assert driver.queued[-2:] == [1, 0]

    def test_numbers_and_times(self, driver: Driver, camera: Make) -> None:
        """Numbers follow the driver's; the time is the driver's where it is our clock's and can be true, else the arrival's."""
        opened = camera()
        opened.open()
        driver.frames = [(3, MONOTONIC, jpeg()), (6, 0, jpeg()), (7, MONOTONIC, jpeg())]
        ages_ms = []
        for number, age_ns in ((1, 5_000_000_000), (4, 5_000_000_000), (5, 60_000_000_000)):
            driver.age_ns = age_ns
            frame = opened.grab()
            assert frame is not None
            assert frame.stamp.number == number
            seen_ns = time.monotonic_ns() - frame.stamp.monotonic_ns
            assert abs((time.time_ns() - frame.stamp.time_ns) - seen_ns) < 3e9
            ages_ms.append(seen_ns / 1e6)
            frame.release()
        assert 5000 <= ages_ms[0] < 50_000
        assert max(ages_ms[1:]) < 5000

    def test_torn(self, driver: Driver, camera: Make) -> None:
        """Incomplete frames are left out and counted, and their buffers go back."""
        opened = camera()
        opened.open()
        whole = jpeg()
        driver.frames = [(n, MONOTONIC, data) for n, data in enumerate((whole[:-9], b"", bytes(99), whole))]
        driver.frames[3:3] = [(3, MONOTONIC | DAMAGED, whole)]
        frame = opened.grab()
        assert frame is not None
        assert opened.torn == 4
        assert len(driver.queued) == subject.BUFFERS - 1
        frame.release()

    def test_short_raw_frame(self, driver: Driver, camera: Make) -> None:
        """A raw frame with too few bytes is incomplete."""
        driver.formats = ["YUYV"]
        opened = camera()
        opened.open()
        driver.frames = [(0, MONOTONIC, YUYV[:-1]), (1, MONOTONIC, YUYV)]
        frame = opened.grab()
        assert frame is not None
        assert (frame.stamp.number, opened.torn) == (2, 1)
        frame.release()

    def test_release_after_close(self, driver: Driver, camera: Make) -> None:
        """A frame outlives its camera; released then, it is given to nobody."""
        opened = camera()
        opened.open()
        driver.frames = [(0, MONOTONIC, jpeg())]
        frame = opened.grab()
        assert frame is not None
        opened.close()
        assert frame.decode(None) is not None
        queued = list(driver.queued)
        frame.release()
        assert driver.queued == queued

    @pytest.mark.parametrize("code", [errno.ENODEV, errno.EIO])
    def test_unplugged(self, driver: Driver, camera: Make, tmp_path: Path, code: int) -> None:
        """A device that is gone was unplugged, whichever error its driver has for that."""
        node = tmp_path / "video0"
        if code == errno.ENODEV:
            node.write_bytes(b"")
        opened = camera(device=str(node))
        opened.open()
        driver.end = code
        with pytest.raises(CameraError, match=rf"^{node} \(Fake Webcam\) was unplugged$"):
            opened.grab()

    def test_driver_stops(self, driver: Driver, camera: Make, tmp_path: Path) -> None:
        """A device that is still there has stopped, and the system's log may know more."""
        (tmp_path / "video0").write_bytes(b"")
        opened = camera(device=str(tmp_path / "video0"))
        opened.open()
        driver.end = errno.EIO
        with pytest.raises(CameraError, match=r"stopped: input/output error; dmesg may say more$"):
            opened.grab()

    def test_interrupt(self, driver: Driver, camera: Make) -> None:
        """A grab that waits ends when it is told to, and so does every later one."""
        opened = camera()
        opened.open()
        threading.Timer(0.1, opened.interrupt).start()
        assert opened.grab() is None
        assert opened.grab() is None

    def test_interrupt_when_closed(self, driver: Driver, camera: Make) -> None:
        """It may be told before it is open, and after it is closed."""
        opened = camera()
        opened.interrupt()
        opened.open()
        assert opened.grab() is None
        opened.close()
        opened.interrupt()


class TestIdentity:
    def test_node(self, driver: Driver, camera: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """A camera that was named by its node is found again by its link, which is part of what is said of it."""
        monkeypatch.setattr(devices, "identity", lambda path: "/dev/v4l/by-id/fake")
        opened = camera(device=0)
        opened.open()
        assert opened.again == {"device": "/dev/v4l/by-id/fake"}
        assert "(Fake Webcam, /dev/v4l/by-id/fake)" in opened.describe()

    def test_link(self, driver: Driver, camera: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """One that was named by a link is meant to be found by that link."""
        monkeypatch.setattr(devices, "identity", lambda path: "/dev/v4l/by-id/fake")
        (tmp_path / "port1").symlink_to("/dev/null")
        opened = camera(device=str(tmp_path / "port1"))
        opened.open()
        assert opened.again == {}

    def test_nothing_known(self, driver: Driver, camera: Make) -> None:
        """Without a link it stays what it was."""
        opened = camera(device=4)
        opened.open()
        assert opened.again == {}


def test_range_of_colours() -> None:
    """Levels are a JPEG's where the driver says so, or its colour space means so; else video's."""
    for quantization, colorspace, full in ((0, 8, False), (1, 8, True), (2, 7, False), (0, 7, True)):
        pix = v4l.PixelFormat(width=64, height=48, quantization=quantization, colorspace=colorspace)
        assert subject._layout("yuyv", pix).full_range is full
