"""What only a kernel can show of Video4Linux2 cameras. scripts/test_v4l2.sh runs this within its virtual machine.

The cameras are vivid's, which make test pictures and trouble, and USB webcams that a program plays, with uvcvideo and udev.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
from webcam import Webcam

from edge_runner.camera import devices
from edge_runner.camera import videodev as v4l
from edge_runner.camera.base import Grab
from edge_runner.camera.pattern import BARS, still
from edge_runner.camera.v4l2 import FORMATS, V4l2, V4l2Config
from edge_runner.errors import CameraError

VIVID = "vivid n_devs=3 num_inputs=1,1,1 input_types=0,0,0 node_types=0x1,0x20001,0x1 multiplanar=1,1,2"
VIVID_DRIVER = Path("/sys/bus/platform/drivers/vivid")
CAMERA, METADATA, PLANES = "/dev/video0", "/dev/video2", "/dev/video3"  # of vivid's nodes
SMALL: dict[str, Any] = {"width": 320, "height": 180, "fps": 10}
WEBCAM: dict[str, Any] = {"width": 320, "height": 240, "fps": 15}
BY_ID = "/dev/v4l/by-id/usb-edge-runner_Test_Webcam_{}-video-index0"
WAIT_S = 180.0  # for what happens at once on a computer that is neither emulated nor busy
COLOR_LEVELS = 6  # how far a colour may be off
NEXT_CONTROL = 0xC0000000
HOLD = """
import time
from edge_runner.camera.v4l2 import V4l2, V4l2Config
camera = V4l2(V4l2Config(device=0))
camera.open()
print(flush=True)
time.sleep(600)
"""
ASK = "from edge_runner.camera import access; access.open_device('/dev/video0')"
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
SERVICE = ("setpriv", "--reuid=1000", "--regid=1000", "--groups=44")  # a user of its own, with the group video

CHECKS: list[Callable[[], None]] = []


def check(function: Callable[[], None]) -> Callable[[], None]:
    """Its docstring is the promise, and what is printed."""
    CHECKS.append(function)
    return function


def say(words: str) -> None:
    write(f"v4l2: {words}")


def write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(only: str) -> int:
    """Run the checks whose names have the word `only`; return an exit code."""
    subprocess.run(["modprobe", *VIVID.split()], check=True)
    for module in ("vhci-hcd", "uvcvideo"):
        subprocess.run(["modprobe", module], check=True)
    settle()
    chosen, failed = [each for each in CHECKS if only in each.__name__], 0
    for each in chosen:
        started = time.monotonic()
        try:
            each()
        except Exception as error:
            failed += 1
            traceback.print_exc()
            say(f"FAILED: {each.__name__}: {each.__doc__} {type(error).__name__}: {error}")
        else:
            say(f"ok: {each.__doc__} ({time.monotonic() - started:.1f} s)")
    say(f"{len(chosen) - failed} of {len(chosen)} checks hold on Linux {os.uname().release}")
    return 1 if failed or not chosen else 0


def settle() -> None:
    subprocess.run(["udevadm", "settle"], check=True)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = WAIT_S) -> Any:
    """What the condition gives, as soon as it is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)
    return found


@contextmanager
def opened(device: int | str = CAMERA, **settings: Any) -> Iterator[V4l2]:
    with V4l2(V4l2Config(device=device, **{**SMALL, **settings})) as camera:  # type: ignore[attr-defined]
        yield camera  # type: ignore[misc]


def next_frame(camera: V4l2) -> Grab:
    frame = camera.grab()
    assert frame is not None
    return frame


def stamps(camera: V4l2, count: int) -> list[Any]:
    taken = []
    for _ in range(count):
        frame = next_frame(camera)
        taken.append(frame.stamp)
        frame.release()
    return taken


def refusal(function: Callable[[], Any]) -> str:
    """What a CameraError says, in one line."""
    words = ""
    try:
        function()
    except CameraError as error:
        words = str(error)
    assert words, "nothing was refused"
    assert "\n" not in words
    write(f"    {words}")
    return words


def control(name: str, value: int = 1, path: str = CAMERA) -> None:
    """Set one of vivid's controls, a button as well."""
    device = os.open(path, os.O_RDWR)
    number = NEXT_CONTROL
    try:
        while True:
            query = bytearray(struct.pack("II32s5i2I", number, 0, b"", 0, 0, 0, 0, 0, 0, 0))
            fcntl.ioctl(device, v4l.request(3, 36, len(query)), query)
            number, _, found = struct.unpack_from("II32s", query)
            if found.rstrip(b"\0").decode() == name:
                fcntl.ioctl(device, v4l.request(3, 28, 8), bytearray(struct.pack("Ii", number, value)))
                return
            number |= NEXT_CONTROL
    finally:
        os.close(device)


def bars(picture: np.ndarray) -> list[list[int]]:
    """The colours in the middles of eight bars."""
    height, width = picture.shape[:2]
    return [picture[height // 8, width * (2 * n + 1) // 16].tolist() for n in range(8)]


def require_bars(picture: np.ndarray) -> None:
    """Hold them to full colours: white, yellow, cyan, green, magenta, red, blue, black."""
    off = np.abs(np.array(bars(picture)) - np.array(BARS)).max()
    assert off <= COLOR_LEVELS, f"{off} levels off: {bars(picture)}"


# vivid


@check
def list_vivid() -> None:
    """Every camera is listed with its formats and sizes; nodes that are none are not."""
    found = [each for each in devices.cameras() if each.driver == "vivid"]
    assert [each.path for each in found] == [CAMERA, "/dev/video1"], found
    assert (found[0].name, found[0].bus) == ("vivid", "platform:vivid-000")
    formats = {offer.fourcc: offer for offer in found[0].offers}
    assert {"YUYV", "NV12", "YU12", "RGB3", "BGR3", "GREY"} <= set(formats)
    sizes = list(map(str, formats["YUYV"].sizes))
    assert sizes[0] == "320x180 at 60 fps", sizes
    assert any(size.startswith("1280x720 at ") for size in sizes), sizes


@check
def formats() -> None:
    """Each format that can be decoded shows the colour bars in their colours."""
    control("Test Pattern", 1)
    control("OSD Text Mode", 2)
    real = devices.offers
    for code in ("YUYV", "NV12", "YU12", "BGR3", "RGB3", "GREY"):
        with mock.patch.object(
            devices, "offers", lambda device, code=code: [o for o in real(device) if o.fourcc == code]
        ):
            for width, height in ((320, 180), (640, 360)):
                with opened(width=width, height=height) as camera:
                    assert f"{code} {width}x{height}" in camera.describe(), camera.describe()
                    frame = next_frame(camera)
                    picture = frame.decode(None)
                    frame.release()
                    assert picture is not None
                    assert picture.shape == (height, width, 3)
                    if FORMATS[code] == "gray8":
                        levels = [color[0] for color in bars(picture)]
                        assert levels == sorted(levels, reverse=True), levels
                    else:
                        require_bars(picture)


@check
def as_opencv() -> None:
    """OpenCV's own capture sees the same picture."""
    reader = cv2.VideoCapture(CAMERA, cv2.CAP_V4L2)
    reader.set(cv2.CAP_PROP_FOURCC, v4l.fourcc("YUYV"))
    reader.set(cv2.CAP_PROP_FRAME_WIDTH, 320)
    reader.set(cv2.CAP_PROP_FRAME_HEIGHT, 180)
    good, theirs = reader.read()
    reader.release()
    assert good
    with opened(pixel_format="yuyv") as camera:
        frame = next_frame(camera)
        ours = frame.decode(None)
        frame.release()
    assert ours is not None
    assert theirs.shape == ours.shape, (theirs.shape, ours.shape)
    assert np.abs(np.array(bars(theirs)) - np.array(bars(ours))).max() <= COLOR_LEVELS, (bars(theirs), bars(ours))


@check
def times() -> None:
    """Frames are numbered one by one, newer than the question, at the rate that was asked for."""
    asked_ns = time.monotonic_ns()
    with opened() as camera:
        assert camera.describe() == f"{CAMERA} (vivid): YUYV 320x180 at 10 frames/s", camera.describe()
        taken = stamps(camera, 20)
        age_ms = (time.monotonic_ns() - taken[-1].monotonic_ns) / 1e6
    assert [stamp.number for stamp in taken] == list(range(1, 21))
    assert taken[0].monotonic_ns > asked_ns
    assert age_ms < 100, age_ms
    assert abs(time.time() - taken[-1].time_ns / 1e9) < 10
    apart_ms = (taken[-1].monotonic_ns - taken[0].monotonic_ns) / 19 / 1e6
    assert abs(apart_ms - 100) < 20, apart_ms


@check
def held_frames() -> None:
    """Two frames may be held while others come; nothing changes in them, nothing stops."""
    with opened() as camera:
        held = [next_frame(camera), next_frame(camera)]
        before = [frame.fingerprint() for frame in held]
        numbers = [stamp.number for stamp in stamps(camera, 15)]
        assert [frame.fingerprint() for frame in held] == before
        assert numbers == list(range(3, 18)), numbers
        for frame in held:
            frame.release()


@check
def dropped() -> None:
    """Frames that the driver drops are counted by the numbers."""
    with opened() as camera:
        control("Percentage of Dropped Buffers", 50)
        try:
            numbers = [stamp.number for stamp in stamps(camera, 20)]
        finally:
            control("Percentage of Dropped Buffers", 0)
    assert numbers == sorted(set(numbers))
    assert numbers[-1] - numbers[0] > 24, numbers


@check
def torn() -> None:
    """Frames that the driver calls damaged are left out and counted."""
    with opened() as camera:
        stamps(camera, 2)
        control("Inject V4L2_BUF_FLAG_ERROR")
        numbers = [stamp.number for stamp in stamps(camera, 8)]
        assert camera.torn == 1
        assert numbers[-1] == 11, numbers


@check
def driver_fails() -> None:
    """A driver that cannot start, or stops, says so."""
    camera = V4l2(V4l2Config(device=CAMERA, **SMALL))
    for button in ("Inject VIDIOC_STREAMON Error", "Inject VIDIOC_REQBUFS Error", "Inject VIDIOC_QBUF Error"):
        control(button)
        assert refusal(camera.open).startswith(f"{CAMERA} (vivid) cannot be started: "), button
    camera.open()
    stamps(camera, 2)
    control("Inject Fatal Streaming Error")
    assert refusal(lambda: stamps(camera, 9)) == f"{CAMERA} (vivid) stopped: input/output error; dmesg may say more"
    camera.close()
    camera.open()
    stamps(camera, 2)
    camera.close()


@check
def other_sizes() -> None:
    """A size or rate that the camera has not is answered by the next one, of which the log warns."""
    with mock.patch("edge_runner.camera.v4l2.log") as log, opened(width=1000, height=700, fps=200) as camera:
        frame = next_frame(camera)
        picture = frame.decode(None)
        frame.release()
        assert picture is not None
        assert picture.shape[1::-1] != (1000, 700)
        size = f"{picture.shape[1]}x{picture.shape[0]}"
        assert size in camera.describe()
        warned = [call.args[0] % call.args[1:] for call in log.warning.call_args_list]
        assert warned[0] == f"{CAMERA} gives {size}, not 1000x700 as asked", warned
        assert "frames/s, not 200 as asked" in warned[1], warned
    with opened() as camera:
        assert "320x180" in camera.describe()
        stamps(camera, 2)


@check
def busy() -> None:
    """A camera that another program reads is refused, and the program named."""
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        try:
            camera = V4l2(V4l2Config(device=0, **SMALL))
            assert refusal(camera.open) == f"{CAMERA} is in use by python3.11 (pid {holder.pid})"
        finally:
            holder.kill()
    with opened() as again:
        stamps(again, 2)


@check
def permission() -> None:
    """A user without the group is told which one, and how to join it."""
    done = subprocess.run([*NOBODY, sys.executable, "-c", ASK], capture_output=True, text=True, check=False)
    last = done.stderr.strip().splitlines()[-1]
    write(f"    {last}")
    assert last.endswith(
        f"{CAMERA} belongs to the group 'video', and user 'nobody' is not in it: sudo usermod -aG video nobody, then log in again"
    )


@check
def no_cameras() -> None:
    """What is no camera is refused for what it is, and those that are one are named."""
    for path, says in (
        (METADATA, "(vivid) gives a camera's metadata, no pictures"),
        (PLANES, "(vivid) gives pictures in several planes"),
        ("/dev/null", "is another kind of device, no camera"),
        ("/dev/video77", "is not there"),
    ):
        words = refusal(V4l2(V4l2Config(device=path)).open)
        assert words.startswith(f"{path} {says}"), words
        assert "cameras here: /dev/video0 (vivid" in words, words
        assert ", /dev/video1 (vivid" in words, words


@check
def disconnected() -> None:
    """A camera that goes away while it is read was unplugged; opened again, it is there again."""
    camera = V4l2(V4l2Config(device=CAMERA, **SMALL))
    camera.open()
    stamps(camera, 2)
    hand = threading.Timer(0.5, control, ["Disconnect"])
    hand.start()
    assert refusal(lambda: stamps(camera, 1000)) == f"{CAMERA} (vivid) was unplugged"
    camera.close()
    hand.join()  # the driver keeps the device away until nobody has it open any more
    camera.open()
    stamps(camera, 2)
    camera.close()


@check
def driver_goes() -> None:
    """A driver that is taken away while a frame is held does no harm; when it comes back, so does the camera."""
    camera = V4l2(V4l2Config(device=CAMERA, **SMALL))
    camera.open()
    held = next_frame(camera)
    before = held.fingerprint()
    (VIVID_DRIVER / "unbind").write_text("vivid.0")
    assert refusal(lambda: stamps(camera, 10)) == f"{CAMERA} (vivid) was unplugged"
    assert held.fingerprint() == before
    held.release()
    camera.close()
    assert refusal(camera.open).startswith(f"{CAMERA} is not there; ")
    (VIVID_DRIVER / "bind").write_text("vivid.0")
    settle()
    camera.open()
    stamps(camera, 2)
    camera.close()


@check
def nothing_leaks() -> None:
    """Opened and closed 30 times, it leaves no descriptor, and the driver can be unloaded."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(30):
        with opened() as camera:
            stamps(camera, 1)
    assert len(os.listdir("/proc/self/fd")) == before
    subprocess.run(["rmmod", "vivid"], check=True)
    assert devices.cameras() == []
    subprocess.run(["modprobe", *VIVID.split()], check=True)
    settle()


# A USB webcam


def play(form: str, width: int, height: int, number: int) -> bytes:
    """The test picture; as a JPEG with zeros behind it, as some webcams have."""
    picture = still(width, height)
    picture[-20:, : 20 + number % 30] = 128  # it lives
    if form == "mjpeg":
        return cv2.imencode(".jpg", picture)[1].tobytes() + bytes(number % 3 * 100)
    return as_yuyv(picture)


def as_yuyv(picture: np.ndarray) -> bytes:
    whole = cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420).reshape(-1, picture.shape[1])
    height, width = picture.shape[:2]
    u, v = whole[height:].reshape(2, height // 2, width // 2).repeat(2, axis=1)
    packed = np.empty((height, width // 2, 4), np.uint8)
    packed[:, :, 0::2] = whole[:height].reshape(height, width // 2, 2)
    packed[:, :, 1], packed[:, :, 3] = u, v
    return packed.tobytes()


@contextmanager
def plugged(frames: Any = play, *, serial: str = "0001", port: int = 0) -> Iterator[Webcam]:
    webcam = Webcam(frames, serial=serial, port=port)
    before = len(devices.nodes())
    webcam.plug()
    try:
        wait_for(lambda: len(devices.nodes()) >= before + 2, "the webcam's nodes")
        settle()
        yield webcam
    finally:
        webcam.unplug()
        wait_for(lambda: len(devices.nodes()) <= before, "the end of the webcam's nodes")
        settle()


@check
def list_webcam() -> None:
    """A USB webcam is listed with its name, its links and its formats; its node for metadata is not."""
    with plugged():
        [found] = [each for each in devices.cameras() if each.driver == "uvcvideo"]
        assert found.name.startswith("Test Webcam"), found
        assert found.by_id == BY_ID.format("0001")
        assert found.by_path is not None
        assert [offer.fourcc for offer in found.offers] == ["MJPG", "YUYV"]
        assert list(map(str, found.offers[0].sizes)) == ["320x240 at 30 fps", "640x480 at 30 fps"]
        number = int(found.path.removeprefix("/dev/video"))
        words = refusal(V4l2(V4l2Config(device=number + 1)).open)
        assert "gives a camera's metadata, no pictures" in words


@check
def webcam_formats() -> None:
    """MJPEG comes first, decoded without the zeros behind it; YUYV comes where it is asked for. Both show their colours."""
    with plugged():
        for wanted, code in (("auto", "MJPG"), ("mjpeg", "MJPG"), ("yuyv", "YUYV")):
            with opened(BY_ID.format("0001"), pixel_format=wanted, **WEBCAM) as camera:
                assert f"{code} 320x240 at 15 frames/s" in camera.describe(), camera.describe()
                for _ in range(4):
                    frame = next_frame(camera)
                    picture = frame.decode(None)
                    frame.release()
                    assert picture is not None
                    require_bars(picture)
                assert camera.torn == 0, camera.torn


@check
def webcam_torn() -> None:
    """JPEGs that are cut, or run into each other, are left out and counted."""

    def broken(form: str, width: int, height: int, number: int) -> bytes:
        whole = play(form, width, height, number)
        return {1: whole[: len(whole) // 2], 2: whole[: len(whole) // 2] + whole, 3: bytes(500)}.get(number % 5, whole)

    with plugged(broken), opened(BY_ID.format("0001"), **WEBCAM) as camera:
        for _ in range(8):
            frame = next_frame(camera)
            picture = frame.decode(None)
            frame.release()
            assert picture is not None
            require_bars(picture)
        assert camera.torn >= 9, camera.torn


@check
def webcam_stalls() -> None:
    """A camera that gives nothing is waited for, until that is interrupted."""
    with plugged() as webcam, opened(BY_ID.format("0001"), **WEBCAM) as camera:
        stamps(camera, 2)
        webcam.stalled = True
        threading.Timer(2.0, camera.interrupt).start()
        started = time.monotonic()
        while (frame := camera.grab()) is not None:
            frame.release()
        assert time.monotonic() - started >= 1


@check
def webcam_unplugged() -> None:
    """A webcam that is unplugged while it is read is said to be; it is found by its id under another number."""
    with plugged() as webcam:
        path = os.path.realpath(BY_ID.format("0001"))
        camera = V4l2(V4l2Config(device=int(path.removeprefix("/dev/video")), **WEBCAM))
        camera.open()
        stamps(camera, 2)
        number_stays = os.open(path, os.O_RDWR)  # as long as somebody has it open
        threading.Timer(0.5, webcam.unplug).start()
        words = refusal(lambda: stamps(camera, 1000))
        assert words.startswith(f"{path} (Test Webcam"), words
        assert words.endswith("was unplugged"), words
        camera.close()
        wait_for(lambda: not os.path.exists(path), "the end of its node")
        assert refusal(camera.open).startswith(f"{path} is not there; cameras here: /dev/video0 (vivid")
        webcam.plug()
        wait_for(lambda: os.path.exists(BY_ID.format("0001")), "its link")
        settle()
        found_again = V4l2(replace(camera.config, **camera.again))
        found_again.open()
        assert found_again.path == BY_ID.format("0001")
        assert os.path.realpath(found_again.path) != path
        stamps(found_again, 2)
        found_again.close()
        os.close(number_stays)


@check
def webcam_twins() -> None:
    """Two webcams that do not differ are known by where they are plugged in; two with serial numbers by those."""
    with plugged(port=0), plugged(port=1):
        paths = [each.path for each in devices.cameras() if each.driver == "uvcvideo"]
        links = [devices.identity(path) for path in paths]
        assert len(set(links)) == 2, links
        assert all(link and link.startswith("/dev/v4l/by-path/") for link in links), links
        assert [os.path.realpath(str(link)) for link in links] == paths
    with plugged(port=0), plugged(port=1, serial="0002"):
        links = [devices.identity(each.path) for each in devices.cameras() if each.driver == "uvcvideo"]
        assert links == [BY_ID.format("0001"), BY_ID.format("0002")], links


# The daemon


@contextmanager
def daemon(device: int | str, **settings: Any) -> Iterator[tuple[subprocess.Popen[str], Path, Path]]:
    """Run it as a service is run, by a user of its own; give its process, its log and its results."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        path = configuration(folder, device, **settings)
        log, results = folder / "log", folder / "results.jsonl"
        with log.open("w") as written:
            command = [*SERVICE, sys.executable, "-m", "edge_runner", "--config", str(path)]
            process = subprocess.Popen(command, stderr=written, text=True, cwd=folder)
        try:
            yield process, log, results
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT_S) == 0, process.returncode
        finally:
            process.kill()
            process.wait()
            write("\n".join(f"    {line}" for line in log.read_text("utf-8").splitlines()[-30:]))


def configuration(folder: Path, device: int | str, **settings: Any) -> Path:
    camera = {"type": "v4l2", "device": device, "retry": {"first": "500ms", "max": "2s"}, **WEBCAM, **settings}
    outputs = [{"type": "jsonl", "path": "results.jsonl"}]
    path = folder / "camera.yaml"
    path.write_text(json.dumps({"camera": camera, "model": {"path": "/checks/models/digits"}, "outputs": outputs}))
    return path


def count(results: Path) -> int:
    return results.read_text("utf-8").count("\n") if results.exists() else 0


def require_more(results: Path, what: str) -> None:
    before = count(results)
    wait_for(lambda: count(results) >= before + 3, what)


def replug(device: int | str) -> None:
    """Unplug the webcam while the daemon reads it as `device`, and plug it in so that it gets another number."""
    with plugged() as webcam, daemon(device) as (_, log, results):
        path = os.path.realpath(BY_ID.format("0001"))
        require_more(results, "the first results")
        number_stays = os.open(path, os.O_RDWR)
        webcam.unplug()
        wait_for(lambda: "was unplugged" in log.read_text("utf-8"), "the log's word of it")
        wait_for(lambda: "is not there" in log.read_text("utf-8"), "the log's word that it is not there")
        webcam.plug()
        require_more(results, "results after it came back")
        assert os.path.realpath(BY_ID.format("0001")) != path
        os.close(number_stays)
        numbers = [json.loads(line)["frame"] for line in results.read_text("utf-8").splitlines()]
        assert numbers == sorted(set(numbers)), numbers


@check
def daemon_webcam_by_id() -> None:
    """The daemon's results go on after a webcam was unplugged and came back under another number."""
    replug(BY_ID.format("0001"))


@check
def daemon_webcam_by_number() -> None:
    """So do they where the configuration names it by its first number."""
    replug(4)


@check
def daemon_stalled() -> None:
    """A webcam that gives nothing more is opened again, and results go on."""
    with plugged() as webcam, daemon(BY_ID.format("0001"), stall_timeout="5s") as (_, log, results):
        require_more(results, "the first results")
        webcam.stalled = True
        wait_for(lambda: "no new frame for 5 s" in log.read_text("utf-8"), "the log's word of it")
        webcam.stalled = False
        require_more(results, "results after the stall")


@check
def daemon_driver() -> None:
    """The daemon's results go on after the driver was unloaded and loaded again."""
    with daemon(0, **SMALL) as (_, log, results):
        require_more(results, "the first results")
        (VIVID_DRIVER / "unbind").write_text("vivid.0")
        wait_for(lambda: "was unplugged" in log.read_text("utf-8"), "the log's word of it")
        wait_for(
            lambda: subprocess.run(["rmmod", "vivid"], check=False, stderr=subprocess.DEVNULL).returncode == 0,
            "the unloading",
        )
        subprocess.run(["modprobe", *VIVID.split()], check=True)
        settle()
        require_more(results, "results after it came back")


@check
def commands() -> None:
    """check, run --once and snapshot work with a webcam, and check refuses what cannot be."""
    with plugged(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = configuration(folder, BY_ID.format("0001"))
        command = [sys.executable, "-m", "edge_runner"]
        subprocess.run([*command, "check", "--config", path], check=True, cwd=folder)
        subprocess.run([*command, "run", "--once", "--config", path], check=True, cwd=folder)
        assert count(folder / "results.jsonl") == 1
        subprocess.run([*command, "snapshot", "--config", path, "-o", "aim.jpg"], check=True, cwd=folder)
        picture = cv2.imread(str(folder / "aim.jpg"))
        assert picture is not None
        wrong = [*command, "check", "--config", path, "--set", "camera.device=video0"]
        done = subprocess.run(wrong, check=False, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 78
        assert "camera.device: got 'video0'" in done.stderr, done.stderr


@check
def doctor() -> None:
    """doctor names the cameras."""
    command = [sys.executable, "-m", "edge_runner", "doctor"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "/dev/video0" in done.stdout, done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ""))
