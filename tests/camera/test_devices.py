"""Finding cameras, and who holds them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runner.camera import devices
from edge_runner.camera import videodev as v4l
from edge_runner.camera.devices import CsiCamera, Node, Size
from edge_runner.errors import CameraError

BY_ID = "usb-046d_HD_Pro_Webcam_C920_ABC-video-index"
BY_PATH = "platform-xhci-usb-0:1:1.0-video-index"
PI = """\
Available cameras
-----------------
0 : imx708_wide [4608x2592 10-bit RGGB] (/base/axi/pcie@120000/rp1/i2c@88000/imx708@1a)
    Modes: 'SRGGB10_CSI2P' : 1536x864 [120.13 fps - (768, 432)/3072x1728 crop]
                             2304x1296 [56.03 fps - (0, 0)/4608x2592 crop]
                             4608x2592 [14.35 fps - (0, 0)/4608x2592 crop]

1 : ov5647 [2592x1944] (/base/axi/pcie@120000/rp1/i2c@80000/ov5647@36)
    Modes: 'SGBRG10_CSI2P' : 640x480 [58.92 fps - (16, 0)/2560x1920 crop]
           'SGBRG8' : 2592x1944 [15.63 fps - (0, 0)/2592x1944 crop]

"""


class Board:
    """A frozen /dev and /sys."""

    def __init__(self, root: Path) -> None:
        self.dev, self.sys = root / "dev", root / "sys"
        self.dev.mkdir()
        self.listed = self.sys / "class/video4linux"
        self.listed.mkdir(parents=True)

    def usb(self, place: str, **words: str) -> Path:
        """A USB device at a place, and its interface, which nodes belong to."""
        device = self.sys / "devices/usb1" / place
        interface = device / f"{place}:1.0"
        interface.mkdir(parents=True)
        for name, word in words.items():
            (device / name).write_text(f"{word}\n")
        return interface

    def node(self, number: int, name: str, device: Path, index: int = 0, **links: str) -> Path:
        """A node with its entry in /sys, and udev's links to it."""
        path = self.dev / f"video{number}"
        path.write_bytes(b"")
        entry = self.listed / path.name
        entry.mkdir()
        (entry / "name").write_text(f"{name}\n")
        (entry / "index").write_text(f"{index}\n")
        (entry / "device").symlink_to(device)
        for folder, link in links.items():
            place = self.dev / "v4l" / folder.replace("_", "-")
            place.mkdir(parents=True, exist_ok=True)
            (place / link).unlink(missing_ok=True)
            (place / link).symlink_to(f"../../{path.name}")
        return path

    def identity(self, path: Path) -> str | None:
        found = devices.identity(path, self.dev, self.sys)
        return found and str(Path(found).relative_to(self.dev))


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


C920 = {"idVendor": "046d", "idProduct": "082d", "serial": "ABC"}


class TestNodes:
    def test_links_and_names(self, board: Board) -> None:
        """Each device is listed by its number, with the name and the links that it has."""
        webcam = board.usb("1-1", **C920)
        board.node(10, "bcm2835-codec-decode", board.sys)
        board.node(0, "HD Pro Webcam C920", webcam, by_id=f"{BY_ID}0", by_path=f"{BY_PATH}0")
        board.node(1, "HD Pro Webcam C920", webcam, 1, by_id=f"{BY_ID}1", by_path=f"{BY_PATH}1")
        (board.dev / "video-codec").write_bytes(b"")
        first, second, codec = devices.nodes(board.dev, board.sys)
        assert first.path == str(board.dev / "video0")
        assert first.by_id == str(board.dev / "v4l/by-id" / f"{BY_ID}0")
        assert second.by_path == str(board.dev / "v4l/by-path" / f"{BY_PATH}1")
        assert codec == Node(str(board.dev / "video10"), "bcm2835-codec-decode")
        assert str(first) == f"{first.path} (HD Pro Webcam C920, {first.by_id})"
        assert str(codec) == f"{codec.path} (bcm2835-codec-decode)"
        assert str(Node("/dev/video3")) == "/dev/video3"

    def test_what_is_no_device_is_not_opened(self, board: Board) -> None:
        """Files that are named as video devices are none."""
        board.node(0, "no camera", board.sys)
        assert devices.cameras(board.dev, board.sys) == []

    def test_nothing_there(self, tmp_path: Path) -> None:
        """A machine without any is one without cameras."""
        assert devices.cameras(tmp_path / "dev", tmp_path / "sys") == []


class TestIdentity:
    def test_by_id(self, board: Board) -> None:
        """A camera is known by its id, from its node and from any link to it."""
        node = board.node(0, "C920", board.usb("1-1", **C920), by_id=f"{BY_ID}0", by_path=f"{BY_PATH}0")
        assert board.identity(node) == f"v4l/by-id/{BY_ID}0"
        assert board.identity(board.dev / f"v4l/by-path/{BY_PATH}0") == f"v4l/by-id/{BY_ID}0"

    def test_own_second_node_is_no_twin(self, board: Board) -> None:
        """A camera's node for metadata does not take its id away."""
        webcam = board.usb("1-1", **C920)
        node = board.node(0, "C920", webcam, by_id=f"{BY_ID}0")
        board.node(1, "C920", webcam, 1, by_id=f"{BY_ID}1")
        assert board.identity(node) == f"v4l/by-id/{BY_ID}0"

    @pytest.mark.parametrize("serial", [{"serial": "ABC"}, {}])
    def test_twins(self, board: Board, serial: dict[str, str]) -> None:
        """Of two cameras that do not differ, each is known by where it is plugged in: the link by id is the last one's."""
        same = {"idVendor": "046d", "idProduct": "082d", **serial}
        first = board.node(0, "C920", board.usb("1-1", **same), by_id=f"{BY_ID}0", by_path="one")
        second = board.node(2, "C920", board.usb("1-2", **same), by_id=f"{BY_ID}0", by_path="two")
        assert board.identity(first) == "v4l/by-path/one"
        assert board.identity(second) == "v4l/by-path/two"

    def test_different_serials(self, board: Board) -> None:
        """Two cameras of one make with serial numbers are told apart."""
        first = board.node(0, "C920", board.usb("1-1", **C920), by_id="ABC", by_path="one")
        second = board.node(2, "C920", board.usb("1-2", **{**C920, "serial": "XYZ"}), by_id="XYZ", by_path="two")
        assert [board.identity(node) for node in (first, second)] == ["v4l/by-id/ABC", "v4l/by-id/XYZ"]

    def test_several_cameras_of_one_device(self, board: Board) -> None:
        """Where a driver shows several cameras as one device, the link by place is the last one's, and no identity."""
        platform = board.sys / "devices/platform/vivid.0"
        platform.mkdir(parents=True)
        nodes = [board.node(n, "vivid", platform, by_path="platform-vivid.0-video-index0") for n in (0, 1)]
        assert [board.identity(node) for node in nodes] == [None, None]

    def test_no_links(self, board: Board) -> None:
        """Without udev nobody knows."""
        assert board.identity(board.node(0, "C920", board.usb("1-1", **C920))) is None


class TestHolders:
    def test_process_that_holds_it(self, tmp_path: Path) -> None:
        """Another process that has the file open is found, by way of a link as well; this one is not."""
        held, link = tmp_path / "video0", tmp_path / "link"
        held.write_bytes(b"")
        link.symlink_to(held)
        with held.open("rb"):
            assert devices.holders(held) == []
            command = [sys.executable, "-c", "import sys; f = open(sys.argv[1]); print(flush=True); sys.stdin.read()"]
            child = subprocess.Popen([*command, held], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            try:
                assert child.stdout is not None
                child.stdout.readline()
                [holder] = devices.holders(link)
                program = Path(f"/proc/{child.pid}/comm").read_text("utf-8").strip()
            finally:
                child.communicate()
        assert (holder.pid, holder.program) == (child.pid, program)
        assert str(holder) == f"{program} (pid {child.pid})"
        assert devices.holders(held) == []

    def test_frozen_processes(self, tmp_path: Path) -> None:
        """Those that this user may not look into are left out."""
        for pid, target in ((7, "/dev/video9"), (12, "/dev/video8"), (3, "/dev/video9")):
            (tmp_path / f"{pid}/fd").mkdir(parents=True)
            (tmp_path / f"{pid}/fd/4").symlink_to(target)
            (tmp_path / f"{pid}/comm").write_text(f"program-{pid}\n")
        (tmp_path / "99").mkdir()
        (tmp_path / "self").mkdir()
        assert list(map(str, devices.holders("/dev/video9", tmp_path))) == ["program-3 (pid 3)", "program-7 (pid 7)"]


def answer(driver: str, capabilities: int, whole: int = 0) -> v4l.Capability:
    told = v4l.Capability(driver=driver.encode(), capabilities=capabilities)
    if whole:
        told.capabilities, told.device_capabilities = whole | v4l.HAS_DEVICE_CAPABILITIES, capabilities
    return told


class TestNoCamera:
    WEBCAM = v4l.CAN_CAPTURE | v4l.CAN_STREAM

    def test_cameras(self) -> None:
        """What captures and streams is a camera, whether its driver tells its nodes apart or not."""
        assert devices.no_camera(answer("uvcvideo", self.WEBCAM)) is None
        assert devices.no_camera(answer("uvcvideo", self.WEBCAM, self.WEBCAM | v4l.CAN_METADATA)) is None
        assert devices.no_camera(answer("bm2835 mmal", self.WEBCAM)) is None

    @pytest.mark.parametrize(
        ("driver", "capabilities", "says"),
        [
            ("unicam", WEBCAM, "set camera.type to rpicam"),
            ("rp1-cfe", WEBCAM, "set camera.type to rpicam"),
            ("rp1-cfe", v4l.CAN_METADATA | v4l.CAN_STREAM, "set camera.type to rpicam"),
            ("bcm2835-isp", WEBCAM, "a codec or an image processor of this board (bcm2835-isp)"),
            ("pispbe", v4l.CAN_OUTPUT_MPLANE | v4l.CAN_STREAM, "a codec or an image processor"),
            ("bcm2835-codec", v4l.CAN_CONVERT_MPLANE | v4l.CAN_STREAM, "a codec or an image processor"),
            ("any", v4l.CAN_CONVERT | v4l.CAN_STREAM, "a codec or an image processor"),
            ("uvcvideo", v4l.CAN_METADATA | v4l.CAN_STREAM, "metadata"),
            ("vivid", v4l.CAN_CAPTURE_MPLANE | v4l.CAN_STREAM, "several planes"),
            ("vivid", v4l.CAN_OUTPUT | v4l.CAN_STREAM, "takes none"),
            ("old", v4l.CAN_CAPTURE, "cannot stream"),
            ("radio", 0x00050000, "is no camera (radio)"),
        ],
    )
    def test_others(self, driver: str, capabilities: int, says: str) -> None:
        """What else there may be behind a node is said, and what to do where that is known."""
        assert says in (devices.no_camera(answer(driver, capabilities, self.WEBCAM)) or "")


def test_sizes_in_words() -> None:
    """A size, a range of sizes, and the rate where it is known."""
    assert str(Size(640, 480, 640, 480, 30.0)) == "640x480 at 30 fps"
    assert str(Size(16, 16, 4096, 2160)) == "16x16 to 4096x2160"


class TestCsiCameras:
    def test_list(self) -> None:
        """Index, sensor and modes are read from the list, in either of its forms."""
        wide, old = devices.parse_csi_list(PI)
        assert (wide.index, wide.name, wide.width, wide.height) == (0, "imx708_wide", 4608, 2592)
        assert [str(size) for size in wide.sizes] == [
            "1536x864 at 120.13 fps",
            "2304x1296 at 56.03 fps",
            "4608x2592 at 14.35 fps",
        ]
        assert old == CsiCamera(
            1, "ov5647", 2592, 1944, (Size(640, 480, 640, 480, 58.92), Size(2592, 1944, 2592, 1944, 15.63))
        )

    @pytest.mark.parametrize("listing", ["No cameras available!\n", "", "Available cameras\n-----\n"])
    def test_none(self, listing: str) -> None:
        """No camera is an empty list."""
        assert devices.parse_csi_list(listing) == []

    @pytest.fixture
    def program(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
        """Put a program of this name, with this shell text, on an otherwise empty path."""
        folder = tmp_path / "bin"
        folder.mkdir()
        monkeypatch.setenv("PATH", str(folder))

        def write(name: str, text: str) -> None:
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)

        return write

    def test_missing(self, program: Callable[[str, str], None]) -> None:
        """Where libcamera's program is not installed, the package is named."""
        with pytest.raises(CameraError, match="rpicam-hello is not installed: sudo apt install"):
            devices.csi_cameras()

    @pytest.mark.parametrize("name", ["rpicam-hello", "libcamera-hello"])
    def test_program(self, program: Callable[[str, str], None], name: str) -> None:
        """Either name of the program is asked; what it logs does not matter."""
        program(name, f"[ $1 = --list-cameras ] || exit 1\necho '[0:00] INFO Camera' >&2\nprintf '%s' \"{PI}\"")
        assert [camera.name for camera in devices.csi_cameras()] == ["imx708_wide", "ov5647"]

    def test_failure(self, program: Callable[[str, str], None]) -> None:
        """Its exit code and last words are handed on."""
        program("rpicam-hello", "echo first >&2; echo '*** failed to open ***' >&2; exit 255")
        with pytest.raises(CameraError, match=r"--list-cameras: exit code 255: \*\*\* failed to open \*\*\*$"):
            devices.csi_cameras()

    def test_hang(self, program: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
        """It is not waited for without end."""
        monkeypatch.setattr(devices, "LIST_TIMEOUT_S", 0.2)
        program("rpicam-hello", "exec /bin/sleep 60")
        with pytest.raises(CameraError, match=r"does not answer within 0\.2 s"):
            devices.csi_cameras()
