"""The kernel's structures and numbers, as its headers have them."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator

import pytest

from edge_runner.camera import videodev as v4l

pytestmark = pytest.mark.arm

WIDE = struct.calcsize("P") == 8

# As a C compiler prints them, linux/videodev2.h included: on 64-bit machines, on 32-bit ARM.
NUMBERS = {
    "QUERYCAP": (0x80685600, 0x80685600),
    "ENUM_FMT": (0xC0405602, 0xC0405602),
    "G_FMT": (0xC0D05604, 0xC0CC5604),
    "S_FMT": (0xC0D05605, 0xC0CC5605),
    "REQBUFS": (0xC0145608, 0xC0145608),
    "QUERYBUF": (0xC0585609, 0xC0445609),
    "QBUF": (0xC058560F, 0xC044560F),
    "DQBUF": (0xC0585611, 0xC0445611),
    "STREAMON": (0x40045612, 0x40045612),
    "STREAMOFF": (0x40045613, 0x40045613),
    "G_PARM": (0xC0CC5615, 0xC0CC5615),
    "S_PARM": (0xC0CC5616, 0xC0CC5616),
    "ENUM_FRAMESIZES": (0xC02C564A, 0xC02C564A),
    "ENUM_FRAMEINTERVALS": (0xC034564B, 0xC034564B),
}
PLACES: list[tuple[type[ctypes.Structure], str, tuple[int, int]]] = [
    (v4l.Format, "fmt", (8, 4)),
    (v4l.Buffer, "timestamp", (24, 20)),
    (v4l.Buffer, "sequence", (56, 44)),
    (v4l.Buffer, "m", (64, 52)),
    (v4l.Buffer, "length", (72, 56)),
    (v4l.Buffer, "request_fd", (80, 64)),
    (v4l.StreamParameters, "interval", (12, 12)),
    (v4l.FrameInterval, "interval", (20, 20)),
    (v4l.PixelFormat, "bytesperline", (16, 16)),
    (v4l.Capability, "capabilities", (84, 84)),
]


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name: str) -> None:
    """Each ioctl has the number that the kernel knows it by, its structure's size included."""
    assert getattr(v4l, name) == NUMBERS[name][0 if WIDE else 1]


@pytest.mark.parametrize(("structure", "field", "offsets"), PLACES, ids=lambda value: getattr(value, "__name__", None))
def test_places(structure: type[ctypes.Structure], field: str, offsets: tuple[int, int]) -> None:
    """Fields stand where the compiler puts them, on either width."""
    assert getattr(structure, field).offset == offsets[0 if WIDE else 1]


def test_letters() -> None:
    """A format's four letters and its number are each other's."""
    assert v4l.fourcc("YUYV") == 0x56595559
    assert v4l.letters(0x56595559) == "YUYV"
    assert v4l.letters(v4l.fourcc("Y16 ") | 1 << 31) == "Y16"


@pytest.fixture
def null() -> Iterator[int]:
    descriptor = os.open("/dev/null", os.O_RDWR)
    yield descriptor
    os.close(descriptor)


def test_what_is_no_video_device(null: int) -> None:
    """What does not know the call says so."""
    with pytest.raises(OSError, match="ioctl") as raised:
        v4l.call(null, v4l.QUERYCAP, v4l.Capability())
    assert raised.value.errno == errno.ENOTTY


def test_signal_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that a signal interrupts is made again."""
    tried = []

    def ioctl(*arguments: object) -> None:
        tried.append(arguments)
        if len(tried) < 3:
            raise InterruptedError

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    v4l.call(0, v4l.QUERYCAP, v4l.Capability())
    assert len(tried) == 3
