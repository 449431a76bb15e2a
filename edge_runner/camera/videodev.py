"""The kernel's Video4Linux2 interface, as far as cameras need it: structures, numbers and calls of linux/videodev2.h.

The layouts follow the machine's own `long`, pointer and alignment. A time is two longs: the kernel takes that on every 32-bit ARM.
"""

from __future__ import annotations

import ctypes
import fcntl
from ctypes import Structure, Union, c_char, c_int, c_long, c_uint8, c_uint32, c_ulong, sizeof

MAJOR = 81  # of all video devices

CAPTURE, MMAP, FIELD_NONE = 1, 1, 1  # enum v4l2_buf_type, v4l2_memory, v4l2_field
FULL_RANGE, COLORSPACE_JPEG = 1, 7  # enum v4l2_quantization, v4l2_colorspace
DISCRETE = 1  # enum v4l2_frmsizetypes, v4l2_frmivaltypes

# Capabilities
CAN_CAPTURE = 0x00000001
CAN_OUTPUT = 0x00000002
CAN_CAPTURE_MPLANE = 0x00001000
CAN_OUTPUT_MPLANE = 0x00002000
CAN_CONVERT_MPLANE = 0x00004000
CAN_CONVERT = 0x00008000
CAN_METADATA = 0x00800000
CAN_STREAM = 0x04000000
HAS_DEVICE_CAPABILITIES = 0x80000000
CAN_SET_RATE = 0x1000  # of v4l2_captureparm

# Flags of a buffer
DAMAGED = 0x00000040
CLOCK, CLOCK_MONOTONIC = 0x0000E000, 0x00002000


class Capability(Structure):
    """What a device is and can."""

    _fields_ = (
        ("driver", c_char * 16),
        ("card", c_char * 32),
        ("bus", c_char * 32),
        ("version", c_uint32),
        ("capabilities", c_uint32),
        ("device_capabilities", c_uint32),
        ("reserved", c_uint32 * 3),
    )


class FormatDescription(Structure):
    """One format that a device has."""

    _fields_ = (
        ("index", c_uint32),
        ("type", c_uint32),
        ("flags", c_uint32),
        ("description", c_char * 32),
        ("fourcc", c_uint32),
        ("mbus_code", c_uint32),
        ("reserved", c_uint32 * 3),
    )


class Fraction(Structure):
    """Seconds, of a frame's interval."""

    _fields_ = (("numerator", c_uint32), ("denominator", c_uint32))


class Stepwise(Structure):
    """A range of sizes; `width` and `height` of a discrete size are the first two."""

    _fields_ = (
        ("min_width", c_uint32),
        ("max_width", c_uint32),
        ("step_width", c_uint32),
        ("min_height", c_uint32),
        ("max_height", c_uint32),
        ("step_height", c_uint32),
    )


class FrameSize(Structure):
    """One size, or range of sizes, of a format."""

    _fields_ = (
        ("index", c_uint32),
        ("fourcc", c_uint32),
        ("type", c_uint32),
        ("size", Stepwise),
        ("reserved", c_uint32 * 2),
    )


class FrameInterval(Structure):
    """One interval, or range of intervals, of a format and size; the shortest comes first in a range."""

    _fields_ = (
        ("index", c_uint32),
        ("fourcc", c_uint32),
        ("width", c_uint32),
        ("height", c_uint32),
        ("type", c_uint32),
        ("interval", Fraction * 3),
        ("reserved", c_uint32 * 2),
    )


class PixelFormat(Structure):
    """How a frame lies in memory."""

    _fields_ = (
        ("width", c_uint32),
        ("height", c_uint32),
        ("fourcc", c_uint32),
        ("field", c_uint32),
        ("bytesperline", c_uint32),
        ("sizeimage", c_uint32),
        ("colorspace", c_uint32),
        ("priv", c_uint32),
        ("flags", c_uint32),
        ("encoding", c_uint32),
        ("quantization", c_uint32),
        ("transfer", c_uint32),
    )


class _FormatUnion(Union):
    """`aligned` stands for a member with pointers, which decides where the union begins."""

    _fields_ = (("pix", PixelFormat), ("raw", c_uint8 * 200), ("aligned", c_ulong))


class Format(Structure):
    """The format that is set."""

    _fields_ = (("type", c_uint32), ("fmt", _FormatUnion))


class StreamParameters(Structure):
    """The rate that is set."""

    _fields_ = (
        ("type", c_uint32),
        ("capability", c_uint32),
        ("mode", c_uint32),
        ("interval", Fraction),
        ("extended_mode", c_uint32),
        ("read_buffers", c_uint32),
        ("reserved", c_uint8 * 176),
    )


class BuffersRequest(Structure):
    """How many buffers a device is to have."""

    _fields_ = (
        ("count", c_uint32),
        ("type", c_uint32),
        ("memory", c_uint32),
        ("capabilities", c_uint32),
        ("flags", c_uint8),
        ("reserved", c_uint8 * 3),
    )


class Time(Structure):
    """A struct timeval."""

    _fields_ = (("seconds", c_long), ("microseconds", c_long))


class _BufferUnion(Union):
    _fields_ = (("offset", c_uint32), ("pointer", c_ulong), ("fd", c_int))


class Buffer(Structure):
    """One frame's buffer."""

    _fields_ = (
        ("index", c_uint32),
        ("type", c_uint32),
        ("bytesused", c_uint32),
        ("flags", c_uint32),
        ("field", c_uint32),
        ("timestamp", Time),
        ("timecode", c_uint32 * 4),
        ("sequence", c_uint32),
        ("memory", c_uint32),
        ("m", _BufferUnion),
        ("length", c_uint32),
        ("reserved", c_uint32),
        ("request_fd", c_uint32),
    )


def request(direction: int, number: int, size: int) -> int:
    """The number of an ioctl of video devices (asm-generic/ioctl.h); `direction` is 1: write, 2: read, 3: both."""
    return direction << 30 | size << 16 | ord("V") << 8 | number


QUERYCAP = request(2, 0, sizeof(Capability))
ENUM_FMT = request(3, 2, sizeof(FormatDescription))
G_FMT = request(3, 4, sizeof(Format))
S_FMT = request(3, 5, sizeof(Format))
REQBUFS = request(3, 8, sizeof(BuffersRequest))
QUERYBUF = request(3, 9, sizeof(Buffer))
QBUF = request(3, 15, sizeof(Buffer))
DQBUF = request(3, 17, sizeof(Buffer))
STREAMON = request(1, 18, sizeof(c_int))
STREAMOFF = request(1, 19, sizeof(c_int))
G_PARM = request(3, 21, sizeof(StreamParameters))
S_PARM = request(3, 22, sizeof(StreamParameters))
ENUM_FRAMESIZES = request(3, 74, sizeof(FrameSize))
ENUM_FRAMEINTERVALS = request(3, 75, sizeof(FrameInterval))


def call(device: int, number: int, argument: Structure | ctypes.c_int) -> None:
    """An ioctl on an open device, made again when a signal came between. Raise OSError."""
    while True:
        try:
            fcntl.ioctl(device, number, argument)
        except InterruptedError:
            continue
        return


def fourcc(code: str) -> int:
    """The number of a format's four letters."""
    return int.from_bytes(code.encode("ascii"), "little")


def letters(number: int) -> str:
    """The four letters of a format's number."""
    return (number & 0x7FFFFFFF).to_bytes(4, "little").decode("ascii", "replace").rstrip()
