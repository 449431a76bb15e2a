"""The Raspberry Pi's camera: rpicam-vid as it is really called, by a stand-in that is as strict (tests/lab/rpicam_vid.py)."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runner.camera.pattern import BARS
from edge_runner.camera.pixels import RawFrame
from edge_runner.camera.program import BURSTS_ALIKE
from edge_runner.camera.rpicam import PROGRAMS, Rpicam, RpicamConfig
from edge_runner.config import check
from edge_runner.errors import CameraError, ConfigError, SettingError
from edge_runner.frame import Enough

MUTED = np.array(BARS) * 160 // 255 + 40  # its bars
LAB = Path(__file__).parents[1] / "lab/rpicam_vid.py"

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture(params=PROGRAMS)
def installed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The stand-in is the only program in PATH, under one of its names; the name."""
    name: str = request.param
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {LAB} "$@"\n')
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return name


@pytest.fixture
def pi5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device tree of a Pi 5, and its rows."""
    (tmp_path / "compatible").write_bytes(b"raspberrypi,5-model-b\0brcm,bcm2712\0")
    monkeypatch.setattr(Rpicam, "device_tree", tmp_path)
    monkeypatch.setenv("LAB_ALIGNMENT", "128")


@pytest.fixture
def rpicam() -> Iterator[Callable[..., Rpicam]]:
    """An open camera; closed at the end."""
    cameras = []

    def start(**settings: Any) -> Rpicam:
        camera = Rpicam(RpicamConfig(**settings))
        cameras.append(camera)
        camera.verify()
        camera.open()
        return camera

    yield start
    for camera in cameras:
        camera.close()


def grab_on(camera: Rpicam, most: int = 100) -> None:
    for _ in range(most):
        frame = camera.grab()
        assert frame is not None
        frame.release()


def shows_bars(frame: RawFrame | None, width: int, height: int, tolerance: int = 4) -> bool:
    """Whether every row of the frame shows the eight bars, each where it has to be."""
    assert frame is not None
    picture = frame.decode(None)
    assert picture is not None
    assert picture.shape == (height, width, 3)
    middles = picture[:, [(2 * k + 1) * width // 16 for k in range(8)]].astype(int)
    return bool((np.abs(middles - MUTED) <= tolerance).all())


@pytest.mark.parametrize(("width", "height"), [(1640, 1232), (416, 312), (780, 360), (640, 480)])
def test_unskewed(installed: str, rpicam: Callable[..., Rpicam], width: int, height: int) -> None:
    """Frames of any width are upright bars of the right colours: rows are padded, levels are a JPEG's."""
    camera = rpicam(width=width, height=height, fps=50)
    for number in range(1, 4):
        frame = camera.grab()
        assert shows_bars(frame, width, height)
        assert frame is not None
        assert frame.stamp.number == number
        frame.release()


@pytest.mark.parametrize("installed", PROGRAMS[:1], indirect=True)
@pytest.mark.parametrize(("width", "height"), [(416, 312), (780, 360)])
@pytest.mark.usefixtures("installed", "pi5")
def test_unskewed_on_a_pi_5(rpicam: Callable[..., Rpicam], width: int, height: int) -> None:
    """A Pi 5 pads its rows to 128 bytes."""
    assert shows_bars(rpicam(width=width, height=height).grab(), width, height)


@pytest.mark.parametrize("installed", PROGRAMS[:1], indirect=True)
@pytest.mark.usefixtures("installed")
class TestStandIn:
    """What the program says and does."""

    def test_jpegs(self, rpicam: Callable[..., Rpicam]) -> None:
        """As JPEGs, of the quality that was asked for."""
        camera = rpicam(format="mjpeg", width=416, height=312, options={"quality": 90})
        assert shows_bars(camera.grab(), 416, 312, tolerance=8)

    def test_smaller_frame(self, rpicam: Callable[..., Rpicam]) -> None:
        """A frame that is padded can be had smaller."""
        frame = rpicam(width=1640, height=1232).grab()
        assert frame is not None
        picture = frame.decode(None, Enough(410, 308))
        assert picture is not None
        assert picture.shape == (308, 410, 3)
        assert frame.size == (1640, 1232)
        middles = picture[:, [(2 * k + 1) * 410 // 16 for k in range(8)]].astype(int)
        assert np.abs(middles - MUTED).max() <= 4

    def test_rate(self, rpicam: Callable[..., Rpicam]) -> None:
        """Frames come at the rate that was asked for."""
        camera = rpicam(width=64, height=48, fps=20)

        def span_s() -> float:
            stamps = []
            for _ in range(9):
                frame = camera.grab()
                assert frame is not None
                stamps.append(frame.stamp.monotonic_ns)
                frame.release()
            return (stamps[-1] - stamps[0]) / 1e9

        assert any(0.3 < span_s() < 0.6 for _ in range(10)), "a machine is not held up every time"

    @pytest.mark.parametrize(
        ("cameras", "device", "says"),
        [("0", 0, "no cameras available"), ("1", 1, "selected camera is not available")],
    )
    def test_no_camera(
        self, rpicam: Callable[..., Rpicam], monkeypatch: pytest.MonkeyPatch, cameras: str, device: int, says: str
    ) -> None:
        """Where there is no camera, the program's own words say so."""
        monkeypatch.setenv("LAB_CAMERAS", cameras)
        camera = rpicam(device=device)
        with pytest.raises(CameraError, match=f"^rpicam-vid ended with exit status 255 after 0 frames: .*{says}"):
            camera.grab()

    def test_option_that_it_does_not_know(self, rpicam: Callable[..., Rpicam]) -> None:
        """An option that the installed version does not know is named."""
        camera = rpicam(options={"shuter": 1000})
        with pytest.raises(CameraError, match=r"after 0 frames: ERROR: \*\*\* unrecognised option '--shuter' \*\*\*"):
            camera.grab()

    def test_crash(self, rpicam: Callable[..., Rpicam], monkeypatch: pytest.MonkeyPatch) -> None:
        """A program that crashes is named with its signal and its last word."""
        monkeypatch.setenv("LAB_FRAMES", "2")
        camera = rpicam(width=64, height=48, fps=100)
        with pytest.raises(CameraError, match="was killed by SIGABRT after 2 frames: terminate called"):
            grab_on(camera)

    def test_another_size(self, rpicam: Callable[..., Rpicam], monkeypatch: pytest.MonkeyPatch) -> None:
        """A size that the camera does not have, and replaces, is refused, with the one that it gives."""
        monkeypatch.setenv("LAB_GIVES", "640x360")
        camera = rpicam(width=648, height=364, fps=100)
        with pytest.raises(
            CameraError, match="camera 0 gives 640x360 where 648x364 was asked for: set width and height"
        ):
            grab_on(camera, 1000)

    def test_other_padding(self, rpicam: Callable[..., Rpicam], monkeypatch: pytest.MonkeyPatch) -> None:
        """Rows that are padded in a way that nobody knows of are found out, and the picture does not roll for months."""
        monkeypatch.setenv("LAB_ALIGNMENT", "256")
        camera = rpicam(width=780, height=360, fps=50)
        with pytest.raises(
            CameraError, match=f"has {832 * 540} bytes, but the program writes {1024 * 540} at a time.*multiple"
        ):
            grab_on(camera, 30 * BURSTS_ALIKE)

    def test_ends(self, rpicam: Callable[..., Rpicam]) -> None:
        """It ends at once when no more frames are wanted."""
        camera = rpicam(width=64, height=48)
        assert camera.grab() is not None
        process = camera._process
        assert process is not None
        camera.interrupt()
        camera.close()
        assert process.returncode != -signal.SIGKILL, "it had to be forced"


def test_arguments(installed: str) -> None:
    """The program is called as it has to be: without end or window, unbuffered, to its standard output."""
    options = {"mode": "1640:1232", "ev": -0.5, "no-raw": True, "hdr": False, "shutter": "20ms", "buffer-count": 4}
    camera = Rpicam(RpicamConfig(device=1, width=1640, height=1232, fps=12.5, options=options))
    camera.verify()
    assert list(camera.argv()) == [
        installed, "--timeout=0", "--nopreview", "--flush", "--camera=1", "--codec=yuv420", "--width=1640", "--height=1232",
        "--framerate=12.5", "--mode=1640:1232", "--ev=-0.5", "--no-raw", "--shutter=20ms", "--buffer-count=4", "--output=-",
    ]  # fmt: skip
    assert "--codec=mjpeg" in Rpicam(RpicamConfig(format="mjpeg")).argv()
    assert camera.describe() == f"{installed}: i420, 1640x1232 at 12.5 a second, camera 1"


def test_newer_name_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both are there, the newer one is run."""
    for name in PROGRAMS:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Rpicam(RpicamConfig()).argv()[0] == "rpicam-vid"


def test_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither program is there, what to install is said."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        SettingError, match="neither rpicam-vid nor libcamera-vid is installed: sudo apt install rpicam-apps"
    ):
        Rpicam(RpicamConfig()).verify()


@pytest.mark.parametrize("installed", PROGRAMS[:1], indirect=True)
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("width", "the camera's width"),
        ("wid", "--width itself: use the camera's width"),
        ("framerate", "the camera's fps"),
        ("codec", "the camera's format"),
        ("camera", "the camera's device"),
        ("rotation", "the camera's rotate"),
        ("vflip", "the camera's flip"),
        ("output", "cannot be set"),
        ("timeout", "cannot be set"),
        ("inline", "cannot be set"),
        ("conf", "--config cannot be set"),
        ("t", "no option of rpicam-vid"),
        ("--shutter", "no option of rpicam-vid"),
        ("tuning_file", "no option of rpicam-vid"),
    ],
)
def test_options_that_are_refused(option: str, says: str) -> None:
    """An option that the camera itself sets is refused, abbreviated or not, with the key to use instead."""
    with pytest.raises(SettingError, match=says) as caught:
        Rpicam(RpicamConfig(options={option: 1})).verify()
    assert caught.value.key == f"options.{option}"


@pytest.mark.parametrize("installed", PROGRAMS[:1], indirect=True)
@pytest.mark.usefixtures("installed")
def test_options_that_are_passed_on() -> None:
    """Everything else is rpicam-vid's own affair."""
    names = ("mode", "exposure", "tuning-file", "shutter", "gain", "awb", "awbgains", "denoise", "hdr", "roi", "metering", "ev",
             "brightness", "contrast", "saturation", "sharpness", "quality", "buffer-count", "no-raw", "autofocus-mode",
             "lens-position", "flicker-period", "lores-width", "viewfinder-width", "verbose", "sync", "level")  # fmt: skip
    Rpicam(RpicamConfig(options=dict.fromkeys(names, 1))).verify()


@pytest.mark.parametrize("installed", PROGRAMS[:1], indirect=True)
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("width", "height", "key"), [(641, 480, "width"), (640, 481, "height")])
def test_odd_size(width: int, height: int, key: str) -> None:
    """A size that its pixels cannot have is refused; as JPEGs it is not ours to know."""
    with pytest.raises(SettingError, match=f"odd {key}") as caught:
        Rpicam(RpicamConfig(width=width, height=height)).verify()
    assert caught.value.key == key
    Rpicam(RpicamConfig(width=width, height=height, format="mjpeg")).verify()


def test_settings_as_they_are_read() -> None:
    """Options are texts, numbers or switches, as they are written; a list is none."""
    options = {"mode": "1640:1232", "gain": 2.5, "buffer-count": 4, "no-raw": True}
    read = check({"type": "rpicam", "options": options}, RpicamConfig, "camera.yaml").options
    assert read == options
    assert [type(value) for value in read.values()] == [str, float, int, bool]
    with pytest.raises(ConfigError):
        check({"type": "rpicam", "options": {"roi": [0, 0, 1, 1]}}, RpicamConfig, "camera.yaml")
