"""What cameras a board has, and who holds them: Video4Linux2 devices by the kernel's own word, CSI cameras by libcamera's.

Nothing but a video device is ever opened: to open some other devices is to start them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_runner.camera import videodev as v4l
from edge_runner.errors import CameraError

DEV, SYS, PROC = Path("/dev"), Path("/sys"), Path("/proc")
LINKS = ("by-id", "by-path")  # udev's, in the order of their worth: which camera it is, where it is plugged in
MOST = 256  # formats, or sizes of one; a driver that always has one more must not hold us
LIST_TIMEOUT_S = 15.0
LISTERS = ("rpicam-hello", "libcamera-hello")

# Drivers whose nodes can capture, and yet are no cameras.
CSI_RECEIVERS = ("unicam", "bcm2835-unicam", "rp1-cfe")
HELPERS = ("bcm2835-codec", "bcm2835-isp", "pispbe", "rpivid", "rpi-hevc-dec", "hantro-vpu")

CSI_CAMERA = re.compile(r"^\s*(\d+) : (.+?) \[(\d+)x(\d+)[^\]]*\]")
CSI_MODE = re.compile(r"(\d+)x(\d+) \[([\d.]+) fps")


@dataclass(frozen=True)
class Size:
    """A frame's size in pixels; up to `max_width` and `max_height` in a range. `fps` is the most, None where that is not said."""

    width: int
    height: int
    max_width: int
    max_height: int
    fps: float | None = None

    def __str__(self) -> str:
        whole = f"{self.width}x{self.height}"
        if (self.width, self.height) != (self.max_width, self.max_height):
            whole += f" to {self.max_width}x{self.max_height}"
        return whole if self.fps is None else f"{whole} at {self.fps:g} fps"


@dataclass(frozen=True)
class Offer:
    """A format that a device has: its four letters, the driver's words for it, its sizes."""

    fourcc: str
    description: str
    sizes: tuple[Size, ...] = ()


@dataclass(frozen=True)
class Node:
    """A video device as the kernel lists it. `by_id` and `by_path` are udev's links to it."""

    path: str
    name: str = ""
    by_id: str | None = None
    by_path: str | None = None

    @property
    def link(self) -> str | None:
        return self.by_id or self.by_path

    def __str__(self) -> str:
        return (
            f"{self.path} ({', '.join(filter(None, [self.name, self.link]))})" if self.name or self.link else self.path
        )


@dataclass(frozen=True)
class Device(Node):
    """A camera. Where it could not be looked at, `problem` says why."""

    driver: str = ""
    bus: str = ""
    offers: tuple[Offer, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Holder:
    """A process that has a device open."""

    pid: int
    program: str

    def __str__(self) -> str:
        return f"{self.program} (pid {self.pid})"


@dataclass(frozen=True)
class CsiCamera:
    """A camera that libcamera knows: what `index` calls it, its sensor, and its modes."""

    index: int
    name: str
    width: int
    height: int
    sizes: tuple[Size, ...] = ()


def nodes(dev: Path = DEV, sys: Path = SYS) -> list[Node]:
    """Every video device that there is, cameras or not, by number."""
    found = [path for path in dev.glob("video*") if path.name.removeprefix("video").isdigit()]
    return [node(path, dev, sys) for path in sorted(found, key=lambda path: int(path.name.removeprefix("video")))]


def node(path: Path, dev: Path = DEV, sys: Path = SYS) -> Node:
    """What is known of a video device without opening it."""
    name = _read(sys / "class/video4linux" / path.name / "name")
    return Node(str(path), name, *(_link(path, dev / "v4l" / links) for links in LINKS))


def cameras(dev: Path = DEV, sys: Path = SYS) -> list[Device]:
    """The cameras that there are, with their formats; those as well that could not be looked at."""
    found = (_looked_at(each) for each in nodes(dev, sys))
    return [device for device in found if device is not None]


def identity(device: str | Path, dev: Path = DEV, sys: Path = SYS) -> str | None:
    """The link that leads to this camera when it is plugged in again: the one by its id, else by its place; None without either.

    udev gives a link that two could claim to the last that comes: by id, where two cameras have the same maker, product and serial
    number; by place, where one driver shows several cameras as one device. Such a link is no identity.
    """
    real = Path(os.path.realpath(device))
    known, listed = node(dev / real.name, dev, sys), sys / "class/video4linux"
    if known.by_id is not None and not _is_shared(real.name, listed, _usb):
        return known.by_id
    return None if _is_shared(real.name, listed, _place) else known.by_path


def holders(path: str | Path, proc: Path = PROC) -> list[Holder]:
    """Other processes that have this file open, as far as this user may see them."""
    real = os.path.realpath(path)
    found = []
    for process in proc.glob("[0-9]*"):
        with suppress(OSError):
            if int(process.name) != os.getpid() and any(os.readlink(fd) == real for fd in (process / "fd").iterdir()):
                found.append(Holder(int(process.name), (process / "comm").read_text("utf-8", "replace").strip()))
    return sorted(found, key=lambda holder: holder.pid)


def capability(device: int, path: str) -> v4l.Capability:
    """What an open device says of itself. Raise CameraError where it is no video device."""
    answer = v4l.Capability()
    try:
        v4l.call(device, v4l.QUERYCAP, answer)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL):
            raise CameraError(f"{path} is no video device") from None
        raise
    return answer


def text(field: bytes) -> str:
    """A driver's words; some end in the middle of a character."""
    return field.decode("utf-8", "replace").strip()


def can(answer: v4l.Capability) -> int:
    """The capabilities of this very node; those of the whole device, for drivers that do not tell them apart."""
    whole = int(answer.capabilities)
    return int(answer.device_capabilities) if whole & v4l.HAS_DEVICE_CAPABILITIES else whole


def no_camera(answer: v4l.Capability) -> str | None:
    """What a device is instead of a camera that can be read, in words; None where it is one."""
    able, driver = can(answer), text(answer.driver)
    if driver in CSI_RECEIVERS:
        return "is the raw receiver of a CSI camera: set camera.type to rpicam, which makes pictures of it"
    if driver in HELPERS or able & (v4l.CAN_CONVERT | v4l.CAN_CONVERT_MPLANE):
        return f"is a codec or an image processor of this board ({driver}), no camera"
    if able & v4l.CAN_CAPTURE:
        return None if able & v4l.CAN_STREAM else f"is a camera whose driver ({driver}) cannot stream"
    if able & v4l.CAN_METADATA:
        return "gives a camera's metadata, no pictures"
    if able & v4l.CAN_CAPTURE_MPLANE:
        return f"gives pictures in several planes ({driver}), which no USB camera does; for a CSI camera set camera.type to rpicam"
    if able & (v4l.CAN_OUTPUT | v4l.CAN_OUTPUT_MPLANE):
        return "shows pictures, and takes none"
    return f"is no camera ({driver})"


def offers(device: int, *, sizes: bool = False) -> list[Offer]:
    """The formats of an open device; with `sizes`, theirs too."""
    found = []
    for index in range(MOST):
        entry = v4l.FormatDescription(index=index, type=v4l.CAPTURE)
        if not _answers(device, v4l.ENUM_FMT, entry):
            break
        listed = tuple(_sizes(device, entry.fourcc)) if sizes else ()
        found.append(Offer(v4l.letters(entry.fourcc), text(entry.description), listed))
    return found


def csi_cameras() -> list[CsiCamera]:
    """The cameras that libcamera knows. Raise CameraError where its program is missing, or fails."""
    program = next(filter(None, map(shutil.which, LISTERS)), None)
    if program is None:
        raise CameraError(f"{LISTERS[0]} is not installed: sudo apt install rpicam-apps-lite")
    try:
        done = subprocess.run(
            [program, "--list-cameras"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIST_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CameraError(f"{program} --list-cameras does not answer within {LIST_TIMEOUT_S:g} s") from None
    except OSError as error:
        raise CameraError(f"{program}: {error.strerror}") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise CameraError(f"{program} --list-cameras: exit code {done.returncode}: {''.join(last)}")
    return parse_csi_list(done.stdout)


def parse_csi_list(listing: str) -> list[CsiCamera]:
    """The cameras in what `rpicam-hello --list-cameras` prints."""
    found: list[CsiCamera] = []
    modes: dict[int, list[Size]] = {}
    for line in listing.splitlines():
        camera = CSI_CAMERA.match(line)
        if camera:
            index, name, width, height = camera.groups()
            found.append(CsiCamera(int(index), name, int(width), int(height)))
        elif found:
            for width, height, fps in CSI_MODE.findall(line):
                size = Size(int(width), int(height), int(width), int(height), float(fps))
                modes.setdefault(found[-1].index, []).append(size)
    return [CsiCamera(c.index, c.name, c.width, c.height, tuple(modes.get(c.index, ()))) for c in found]


def is_video_device(path: str | Path) -> bool:
    """Whether the file is one of the kernel's video devices. Raise OSError where it is not there."""
    what = os.stat(path)
    return stat.S_ISCHR(what.st_mode) and os.major(what.st_rdev) == v4l.MAJOR


def _looked_at(known: Node) -> Device | None:
    """The camera at a node; None where it is none."""
    try:
        if not is_video_device(known.path):
            return None
        device = os.open(known.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return Device(**vars(known), problem=(error.strerror or str(error)).lower())
    try:
        answer = capability(device, known.path)
        if no_camera(answer) is not None:
            return None
        told = {"driver": text(answer.driver), "bus": text(answer.bus)}
        named = {**vars(known), "name": text(answer.card) or known.name}
        return Device(**named, **told, offers=tuple(offers(device, sizes=True)))
    except CameraError:
        return None
    except OSError as error:  # it has just been unplugged
        return Device(**vars(known), problem=(error.strerror or str(error)).lower())
    finally:
        os.close(device)


def _sizes(device: int, fourcc: int) -> Iterator[Size]:
    for index in range(MOST):
        entry = v4l.FrameSize(index=index, fourcc=fourcc)
        if not _answers(device, v4l.ENUM_FRAMESIZES, entry):
            return
        size = entry.size
        if entry.type == v4l.DISCRETE:
            width, height = size.min_width, size.max_width  # of this union's other member
            yield Size(width, height, width, height, _fps(device, fourcc, width, height))
        else:
            fps = _fps(device, fourcc, size.min_width, size.min_height)
            yield Size(size.min_width, size.min_height, size.max_width, size.max_height, fps)
            return


def _fps(device: int, fourcc: int, width: int, height: int) -> float | None:
    """The most frames a second of a format and size."""
    rates = []
    for index in range(MOST):
        entry = v4l.FrameInterval(index=index, fourcc=fourcc, width=width, height=height)
        if not _answers(device, v4l.ENUM_FRAMEINTERVALS, entry):
            break
        shortest = entry.interval[0]
        if shortest.numerator:
            rates.append(round(shortest.denominator / shortest.numerator, 3))
        if entry.type != v4l.DISCRETE:
            break
    return max(rates, default=None)


def _answers(device: int, number: int, entry: ctypes.Structure) -> bool:
    """Ask for one more entry of a list; False behind its end."""
    try:
        v4l.call(device, number, entry)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOTTY, errno.ENODATA):
            return False
        raise
    return True


def _link(path: Path, folder: Path) -> str | None:
    """The link in one of udev's folders that leads to a device."""
    with suppress(OSError):
        for link in sorted(folder.iterdir()):
            if os.path.realpath(link) == os.path.realpath(path):
                return str(link)
    return None


def _is_shared(name: str, listed: Path, claim: Callable[[Path], tuple[str, ...] | None]) -> bool:
    """Whether another node claims what this one claims."""
    own = claim(listed / name)
    return own is not None and any(claim(other) == own for other in listed.glob("video*") if other.name != name)


def _usb(entry: Path) -> tuple[str, ...] | None:
    """By what a camera on USB is known to udev: maker, product, serial number, and which of its nodes it is."""
    usb = Path(os.path.realpath(entry / "device")).parent
    if not (usb / "idVendor").is_file():
        return None
    words = [usb / name for name in ("idVendor", "idProduct", "serial")]
    return (*map(_read, words), _read(entry / "index"))


def _place(entry: Path) -> tuple[str, ...] | None:
    """Where it is plugged in, and which of the nodes there it is."""
    return os.path.realpath(entry / "device"), _read(entry / "index")


def _read(path: Path) -> str:
    """A file of /sys in one line; nothing where it is not there."""
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
