"""The doctor's look at cameras."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_runner.camera import access, devices
from edge_runner.camera.base import CameraConfig
from edge_runner.camera.child import WORKER
from edge_runner.camera.command import CommandConfig
from edge_runner.camera.devices import Device, Offer, Size
from edge_runner.camera.pattern import PatternConfig
from edge_runner.camera.rpicam import RpicamConfig
from edge_runner.camera.v4l2 import V4l2Config
from edge_runner.settings import load_settings
from edge_runner.tools import doctor_cameras
from edge_runner.tools.doctor import Board, Finding, examine, problems
from edge_runner.tools.doctor_cameras import UNSEEN, Outcome, cameras, configured, judged, tried

RPICAM = Path(__file__).parents[1] / "lab/rpicam_vid.py"
LISTING = """\
Available cameras
-----------------
0 : imx708 [4608x2592 10-bit RGGB] (/base/soc/i2c0mux/i2c@1/imx708@1a)
    Modes: 'SRGGB10_CSI2P' : 1536x864 [120.13 fps - (768, 432)/3072x1728 crop]
                             2304x1296 [56.03 fps - (0, 0)/4608x2592 crop]
"""
WEBCAM = Device(
    "/dev/video7",
    "HD Pro Webcam",
    offers=(Offer("MJPG", "Motion-JPEG", (Size(640, 480, 640, 480, 30.0), Size(1280, 720, 1280, 720, 30.0))),),
)


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the kernel list these cameras; each gives the test picture, of the size that its settings ask for."""

    def put(*found: Device) -> None:
        monkeypatch.setattr(devices, "cameras", lambda dev, sys: list(found))
        real = doctor_cameras.v4l2_config

        def pictures(*arguments: Any) -> PatternConfig:
            chosen = real(*arguments)
            return PatternConfig(width=chosen.width, height=chosen.height)

        monkeypatch.setattr(doctor_cameras, "v4l2_config", pictures)

    return put


def process(board: Board, pid: int, words: list[str], parent: int = 1, holds: str | None = None) -> None:
    """A process in a frozen /proc."""
    folder = board.proc / str(pid)
    (folder / "fd").mkdir(parents=True)
    (folder / "comm").write_text(os.path.basename(words[0])[:15] + "\n")
    (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
    (folder / "stat").write_text(f"{pid} (a) name)) S {parent} 1 1")
    if holds:
        (folder / "fd/3").symlink_to(holds)


def with_cameras(board: Board, configure: Any, **cameras: Any) -> Board:
    return replace(board, loaded=load_settings(configure(camera=None, cameras=cameras)))


def found(board: Board) -> list[Finding]:
    """What there is to say of the board's cameras, and then of the configuration's."""
    return [*cameras(board), *(configured(board) if board.loaded else ())]


class TestNoCamera:
    def test_without_a_configuration(self, board: Board) -> None:
        """A board without any camera is a problem, and what to look at is said for each kind of camera."""
        [finding] = found(board)
        assert finding.level == "problem"
        said = "\n".join(finding.remedies)
        assert all(
            word in said for word in ("lsusb", "/dev/video*", "ribbon", "rpicam-hello", "rpicam-apps", "--config")
        )

    def test_with_a_configuration(self, board: Board, configure: Any) -> None:
        """It is none where the configuration's cameras are elsewhere."""
        first, *others = found(with_cameras(board, configure, door={"type": "pattern"}))
        assert (first.level, [finding.level for finding in others]) == ("ok", ["ok"])
        assert "no camera is plugged in" in first.text

    @pytest.mark.parametrize(("model", "level"), [("Raspberry Pi 4 Model B Rev 1.4\0", "warning"), ("Rock 5B", None)])
    def test_no_program_for_csi(self, board: Board, model: str, level: str | None) -> None:
        """Without rpicam-hello, a Raspberry Pi's own cameras cannot be seen: that is said there, and nowhere else."""
        (board.proc / "device-tree").mkdir()
        (board.proc / "device-tree/model").write_text(model)
        said = [f for f in cameras(board) if "CSI cameras cannot be seen" in f.text]
        assert [f.level for f in said] == ([level] if level else [])
        assert all("apt install rpicam-apps" in f.text for f in said)

    def test_a_receiver_without_the_program(self, board: Board, plug: Any) -> None:
        """Where a CSI camera's receiver is there, it is said though another camera is."""
        plug(WEBCAM)
        (board.dev / "video0").touch()
        (board.sys / "class/video4linux/video0").mkdir(parents=True)
        (board.sys / "class/video4linux/video0/name").write_text("unicam-image\n")
        assert [f.level for f in cameras(board)] == ["ok", "warning"]


class TestUsb:
    def test_works(self, board: Board, plug: Any) -> None:
        """A camera is listed with its link, its formats and sizes, and a frame of it is taken."""
        plug(WEBCAM)
        (board.dev / "v4l/by-id").mkdir(parents=True)
        (board.dev / "video7").touch()
        (board.dev / "v4l/by-id/usb-cam").symlink_to("../../video7")
        camera = replace(WEBCAM, path=str(board.dev / "video7"))
        plug(camera)
        [finding] = found(board)
        assert finding.level == "ok"
        assert finding.text.startswith(f"{camera.path} (HD Pro Webcam): a frame of 1280x720 after ")
        assert finding.text.endswith(" ms old")
        assert finding.details == (f"device: {board.dev}/v4l/by-id/usb-cam", "MJPG: 640x480@30, 1280x720@30")

    def test_several(self, board: Board, plug: Any) -> None:
        """Each has its own finding, in the kernel's order, and one that fails takes nothing from the others."""
        strange = Device("/dev/video8", "Depth", offers=(Offer("Z16 ", "16-bit Depth"),))
        plug(WEBCAM, strange, replace(WEBCAM, path="/dev/video9"))
        first, second, third = found(board)
        assert [first.level, second.level, third.level] == ["ok", "problem", "ok"]
        assert "/dev/video8 has no format that can be decoded here" in second.text

    def test_forbidden(self, board: Board, plug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without permission, the group is named."""
        monkeypatch.setattr(access, "forbidden", lambda path: f"{path} belongs to the group 'video'")
        plug(Device("/dev/video7", problem=os.strerror(errno.EACCES).lower()))
        [finding] = found(board)
        assert finding.level == "problem"
        assert finding.text.endswith("/dev/video7 belongs to the group 'video'")

    def test_held_by_the_daemon(self, board: Board, plug: Any) -> None:
        """A camera that edge-runner reads is left in peace, and that is no problem."""
        plug(WEBCAM)
        process(board, 712, ["/usr/bin/python3", "-c", WORKER, "/a"], holds=WEBCAM.path)
        [finding] = found(board)
        assert (finding.level, finding.text) == (
            "ok",
            "/dev/video7 (HD Pro Webcam): edge-runner itself (pid 712) reads it now; not tried",
        )

    def test_opened_by_another(self, board: Board, plug: Any) -> None:
        """Another program's holding it open is not the same as using it: it is tried."""
        plug(WEBCAM)
        process(board, 712, ["/usr/bin/wireplumber"], holds=WEBCAM.path)
        [finding] = found(board)
        assert "a frame of" in finding.text

    def test_a_holder_that_cannot_be_seen(self, board: Board) -> None:
        """Who holds it may only be seen by root, and that is said."""
        outcome = Outcome(1.0, trouble=f"/dev/video0 is in use by a program that this user {UNSEEN}")
        assert "sudo" in judged("x", outcome, V4l2Config(), board, "problem").remedies[0]
        assert UNSEEN in access.busy("/dev/there-is-no-such-device")

    def test_not_needed(self, board: Board, plug: Any, configure: Any) -> None:
        """With a configuration, what it does not name is a warning at most."""
        plug(Device("/dev/video7", problem="input/output error"))
        findings = list(found(with_cameras(board, configure, door={"type": "pattern"})))
        assert [f.level for f in findings] == ["warning", "ok"]
        assert problems(findings) == ""

    def test_named_by_the_configuration(self, board: Board, plug: Any, configure: Any) -> None:
        """What the configuration names is tried once, with its settings."""
        plug(WEBCAM)
        first, second = found(with_cameras(board, configure, door={"type": "v4l2", "device": WEBCAM.path}))
        assert (first.level, second.level) == ("ok", "problem")
        assert first.text.endswith(": tried below, as door")
        assert second.text.startswith(f"door (v4l2): {WEBCAM.path} is not there; ")


class TestCsi:
    @pytest.fixture(autouse=True)
    def _program(self, programs: Any, tmp_path: Path) -> None:
        (tmp_path / "listing").write_text(LISTING)
        programs(
            rpicam_hello=f"exec {shutil.which('cat', path='/bin:/usr/bin')} {tmp_path / 'listing'}",
            rpicam_vid=f'exec {sys.executable} {RPICAM} "$@"',
        )

    def test_works(self, board: Board) -> None:
        """A CSI camera is listed with its modes, and gives a frame through rpicam-vid."""
        [finding] = found(board)
        assert finding.level == "ok"
        assert finding.text.startswith("CSI 0 (imx708, 4608x2592): a frame of 1280x720 after ")
        assert finding.details == ("modes: 1536x864@120.13, 2304x1296@56.03",)

    def test_fails(self, board: Board, programs: Any) -> None:
        """What rpicam-vid says is said."""
        programs(rpicam_vid="echo 'ERROR: *** no cameras available ***' >&2; exit 255")
        [finding] = found(board)
        assert finding.level == "problem"
        assert "rpicam-vid ended with exit status 255" in finding.text
        assert "no cameras available" in finding.text

    def test_taken(self, board: Board, programs: Any) -> None:
        """Where another program has it, that is named."""
        programs(rpicam_vid="echo 'ERROR: *** failed to acquire camera imx708 ***' >&2; exit 255")
        (board.dev / "media0").touch()
        process(board, 99, ["/usr/bin/motion"], holds=str(board.dev / "media0"))
        [finding] = found(board)
        assert finding.remedies == ("libcamera gives a camera to one program at a time; open now: motion (pid 99)",)

    @pytest.mark.parametrize(("index", "parents", "spared"), [(0, WORKER, True), (1, WORKER, False), (0, "x", False)])
    def test_held_by_the_daemon(self, board: Board, index: int, parents: str, spared: bool) -> None:
        """Only the camera that edge-runner's own rpicam-vid reads is left in peace."""
        process(board, 712, ["/usr/bin/python3", "-c", parents])
        process(board, 713, ["/usr/bin/rpicam-vid", "--timeout=0", f"--camera={index}"], parent=712)
        [finding] = found(board)
        assert finding.level == "ok"
        assert ("edge-runner itself (pid 713)" in finding.text) == spared

    def test_named_by_the_configuration(self, board: Board, configure: Any) -> None:
        """It is tried once, with the configuration's settings; a turned frame has the size that was asked for."""
        camera = {"type": "rpicam", "width": 640, "height": 480, "rotate": 90}
        first, second = found(with_cameras(board, configure, door=camera))
        assert first.text.endswith("tried below, as door")
        assert (second.level, second.remedies) == ("ok", ())
        assert second.text.startswith("door (rpicam): a frame of 480x640 after ")

    def test_no_rpicam_vid(self, board: Board, tmp_path: Path) -> None:
        """A camera that is listed and cannot be read says what is to be installed."""
        (tmp_path / "bin/rpicam-vid").unlink()
        [finding] = found(board)
        assert finding.level == "problem"
        assert "apt install rpicam-apps" in finding.text


class TestTried:
    @pytest.mark.usefixtures("nothing_left")
    @pytest.mark.parametrize("together", [False, True])
    def test_at_the_same_time(self, together: bool) -> None:
        """A camera without frames costs its own time only, and nothing is left of any."""
        silent = CommandConfig(name="b", command=("sleep", "30"), format="gray8", width=16, height=16)
        others = {"b": silent, "c": silent} if together else {"b": silent}
        found = tried({"a": PatternConfig(name="a"), **others}, 5.0, together=together)
        assert sorted(found) == ["a", *others]
        assert found["a"].size == (640, 480)
        assert found["a"].age_ms is not None
        assert 0 < found["a"].took_s < 5
        for key in others:
            assert found[key].silent
            assert 5 <= found[key].took_s < 25
            assert found[key].trouble == f"no frame within {found[key].took_s:.0f} s"

    def test_start_timeout(self) -> None:
        """No longer than the configuration itself would wait."""
        silent = CommandConfig(
            name="b", command=("sleep", "30"), format="gray8", width=16, height=16, start_timeout=0.5
        )
        assert tried({"b": silent})["b"].took_s < 9

    def test_a_second_try(self, tmp_path: Path) -> None:
        """A camera that fails once gets a second try, and that it failed is said."""
        script = tmp_path / "moody.sh"
        script.write_text(
            f"[ -e {tmp_path}/x ] || {{ : > {tmp_path}/x; echo moody >&2; exit 3; }}\nexec cat /dev/zero\n"
        )
        config = CommandConfig(name="a", command=("/bin/sh", str(script)), format="gray8", width=16, height=16)
        outcome = tried({"a": config})["a"]
        assert outcome.size == (16, 16)
        finding = judged("a", outcome, config, Board(), "problem")
        assert finding.level == "warning"
        assert finding.remedies[0].startswith("it failed at first: sh ended with exit status 3")

    def test_gives_up(self) -> None:
        """One that fails each time is not waited for."""
        config = CommandConfig(name="a", command=("false",), format="gray8", width=16, height=16)
        outcome = tried({"a": config}, 30)["a"]
        assert outcome.took_s < 25
        assert outcome.trouble == "false ended with exit status 1 after 0 frames"
        assert not outcome.silent

    def test_the_log_is_quiet(self, caplog: pytest.LogCaptureFixture) -> None:
        """The finding says it; the feed's promise to try for ever is not made here, and the level is as before."""
        logger = logging.getLogger("edge_runner.camera.live")
        before = logger.level
        tried({"a": CommandConfig(name="a", command=("false",), format="gray8", width=16, height=16)})
        assert [record.levelno for record in caplog.records if record.name == logger.name] == []
        assert logger.level == before


class TestJudged:
    @pytest.mark.parametrize(
        ("config", "size", "said"),
        [
            (V4l2Config(width=640, height=480), (640, 480), None),
            (V4l2Config(width=640, height=480), (320, 240), "not 640x480 as asked for"),
            (V4l2Config(width=640, height=480, rotate=270), (480, 640), None),
            (V4l2Config(width=640, height=480, rotate=90), (640, 480), "not 480x640 as asked for"),
            (CommandConfig(command=("x",), format="mjpeg"), (640, 480), None),
        ],
    )
    def test_size(self, config: CameraConfig, size: tuple[int, int], said: str | None) -> None:
        """Another size than was asked for is a warning."""
        finding = judged("a", Outcome(1.0, size, 10.0), config, Board(), "problem")
        assert (finding.level, len(finding.remedies)) == (("warning", 1) if said else ("ok", 0))
        assert finding.remedies[:1] == () or said in finding.remedies[0]  # type: ignore[operator]

    def test_old_frames(self) -> None:
        """Frames that come late are a warning."""
        assert judged("a", Outcome(1.0, (640, 480), 2500.0), PatternConfig(), Board(), "problem").level == "warning"

    @pytest.mark.parametrize("config", [V4l2Config(), RpicamConfig(), CommandConfig(command=("x",), format="mjpeg")])
    def test_silence_has_a_remedy(self, config: CameraConfig) -> None:
        """A camera that says nothing: where to look, by its type."""
        finding = judged("a", Outcome(9.0, trouble="no frame within 9 s", silent=True), config, Board(), "problem")
        assert len(finding.remedies) == 1


def test_secrets_stay_secret(board: Board, configure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No finding shows what a variable held, even where a program says it."""
    monkeypatch.setenv("CAM_PASSWORD", "sword fish")
    shell = shutil.which("sh", path="/bin:/usr/bin")
    camera = {"type": "command", "command": [shell, "-c", "echo it is ${CAM_PASSWORD} >&2; exit 1"], "format": "mjpeg"}
    [finding] = (f for f in examine(with_cameras(board, configure, door=camera)) if f.part == "configuration")
    assert finding.text.endswith("it is CAM_PASSWORD") or "${CAM_PASSWORD}" in finding.text
    assert "sword fish" not in " ".join(finding.lines(200))


def test_light_in_a_cameras_process() -> None:
    """The process of a camera that is tried loads this module, but neither the configuration's nor the model's."""
    code = "import sys, edge_runner.tools.doctor_cameras; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not {"yaml", "edge_runner.settings", "edge_runner.model.bundle", "edge_runner.pipeline"} & loaded
