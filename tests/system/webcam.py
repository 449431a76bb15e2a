"""A USB webcam that is a program: it speaks USB/IP to the kernel, which then sees a USB device and gives it to its own drivers.

Descriptors and requests are those of the USB Video Class 1.0, with MJPEG and YUYV over a bulk endpoint.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

HOST = Path("/sys/devices/platform/vhci_hcd.0")
HIGH_SPEED = 3
VENDOR, PRODUCT = 0x1D6B, 0x0102
SIZES = ((320, 240), (640, 480))
RATES = (30, 15, 5)  # frames a second
ENDPOINT = 0x81
PAYLOAD_BYTES = 16384
PACKET_BYTES = 512
SUBMIT, UNLINK, SUBMITTED, UNLINKED = 1, 2, 3, 4
BROKEN_PIPE, RESET = -32, -104  # a request that is not known; one that was taken back
END_OF_FRAME, HEADER = 0x02, 0x80
SET_CUR, GET_CUR, GET_LEN, GET_INFO = 0x01, 0x81, 0x85, 0x86
YUY2 = b"YUY2\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"

Frames = Callable[[str, int, int, int], bytes]
"""The bytes of a frame, from format ("mjpeg" or "yuyv"), width, height and the frame's number."""


class Webcam:
    """One camera at one of the kernel's virtual ports. It streams when a driver asks it to, until it is unplugged."""

    def __init__(self, frames: Frames, *, port: int = 0, serial: str = "0001", name: str = "Test Webcam") -> None:
        self.stalled = False
        """Give no more frames, and stay there."""
        self._frames, self._port, self._names = frames, port, ("edge-runner", name, serial)
        self._probe = struct.pack("<HBBIHHHHHII", 0, 1, 1, 10_000_000 // RATES[0], 0, 0, 0, 0, 0, 0, PAYLOAD_BYTES)
        self._pending: deque[tuple[int, int]] = deque()
        self._change = threading.Condition()
        self._streaming = False
        self._plugged = False

    def plug(self) -> None:
        """Connect it, as a cable does."""
        self._link, kernel = socket.socketpair()
        self._plugged, self._streaming = True, False
        self._pending.clear()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._answer, self._stream)]
        for thread in self._threads:
            thread.start()
        (HOST / "attach").write_text(f"{self._port} {kernel.fileno()} {0x10002 + self._port} {HIGH_SPEED}")
        kernel.close()

    def unplug(self) -> None:
        """Pull the cable, and wait until the kernel has seen it."""
        self._plugged = False
        with suppress(OSError):
            (HOST / "detach").write_text(str(self._port))
        with self._change:
            self._change.notify_all()
        self._link.close()
        for thread in self._threads:
            thread.join()

    def _answer(self) -> None:
        """Take the kernel's requests."""
        with suppress(OSError, EOFError):
            while True:
                command, number, _, direction, endpoint = struct.unpack(">5I", self._read(20))
                flags, length, *_, setup = struct.unpack(">IiiIi8s", self._read(28))
                if command == UNLINK:
                    self._unlink(number, flags)
                elif endpoint:
                    self._queue(number, length)
                else:
                    sent = b"" if direction else self._read(length)
                    status, answer = self._control(setup, sent)
                    self._reply(number, status, answer[:length], len(sent))

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._link.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def _reply(self, number: int, status: int, data: bytes = b"", taken: int = 0) -> None:
        head = struct.pack(">5I", SUBMITTED, number, 0, 0, 0)
        self._link.sendall(head + struct.pack(">iiiii8x", status, len(data) or taken, 0, 0, 0) + data)

    def _queue(self, number: int, length: int) -> None:
        with self._change:
            self._pending.append((number, length))
            self._change.notify_all()

    def _unlink(self, number: int, which: int) -> None:
        with self._change:
            waits = [each for each in self._pending if each[0] == which]
            for each in waits:
                self._pending.remove(each)
            head = struct.pack(">5I", UNLINKED, number, 0, 0, 0)
            self._link.sendall(head + struct.pack(">i24x", RESET if waits else 0))

    def _control(self, setup: bytes, sent: bytes) -> tuple[int, bytes]:
        kind, what, value, index, _ = struct.unpack("<BBHHH", setup)
        if kind == 0x80 and what == 6:
            found = self._descriptor(value >> 8, value & 0xFF)
            return (0, found) if found else (BROKEN_PIPE, b"")
        if kind in (0x00, 0x01, 0x02):  # configuration, interface, end of a halt
            self._streaming = self._streaming and kind != 0x02
            return 0, b""
        if kind == 0x80:
            return 0, b"\x00\x00"
        if index & 0xFF != 1:
            return BROKEN_PIPE, b""
        return self._video_control(what, value >> 8, sent)

    def _video_control(self, what: int, control: int, sent: bytes) -> tuple[int, bytes]:
        """Agree on format, size and rate (control 1), and begin (2)."""
        if what == SET_CUR:
            hint, form, frame, interval = struct.unpack_from("<HBBI", sent)
            form, frame = min(max(form, 1), 2), min(max(frame, 1), len(SIZES))
            width, height = SIZES[frame - 1]
            agreed = (hint, form, frame, interval, 0, 0, 0, 0, 0, width * height * 2, PAYLOAD_BYTES)
            self._probe = struct.pack("<HBBIHHHHHII", *agreed)
            if control == 2:
                with self._change:
                    self._streaming = True
                    self._change.notify_all()
            return 0, b""
        if what == GET_LEN:
            return 0, struct.pack("<H", len(self._probe))
        return 0, b"\x03" if what == GET_INFO else self._probe

    def _stream(self) -> None:
        """Send frames at their rate, each in payloads whose header says where it ends."""
        number, due = 0, time.monotonic()
        with suppress(OSError):
            while self._plugged:
                _, form, frame, interval = struct.unpack_from("<HBBI", self._probe)
                due = max(due + interval / 1e7, time.monotonic())
                time.sleep(max(0.0, due - time.monotonic()))
                if self._streaming and not self.stalled and self._pending:
                    data = self._frames(("mjpeg", "yuyv")[form - 1], *SIZES[frame - 1], number)
                    self._send(data, number & 1)
                    number += 1

    def _send(self, data: bytes, parity: int) -> None:
        step = PAYLOAD_BYTES - 2
        for start in range(0, len(data), step):
            end = END_OF_FRAME if start + step >= len(data) else 0
            with self._change:
                while not self._pending:
                    if not (self._plugged and self._streaming):
                        return
                    self._change.wait(0.1)
                number, _ = self._pending.popleft()
                self._reply(number, 0, bytes((2, HEADER | end | parity)) + data[start : start + step])

    def _descriptor(self, kind: int, index: int) -> bytes:
        if kind == 1:
            return struct.pack("<BBHBBBBHHHBBBB", 18, 1, 0x200, 0xEF, 2, 1, 64, VENDOR, PRODUCT, 0x100, 1, 2, 3, 1)
        if kind == 2:
            return _configuration()
        if kind == 3 and index == 0:
            return b"\x04\x03\x09\x04"
        if kind == 3 and index <= len(self._names):
            text = self._names[index - 1].encode("utf-16-le")
            return bytes((2 + len(text), 3)) + text
        return b""


def _described(kind: int, *parts: bytes) -> bytes:
    """A descriptor with its length before it."""
    body = bytes((kind,)) + b"".join(parts)
    return bytes((1 + len(body),)) + body


def _configuration() -> bytes:
    camera = _described(0x24, b"\x02\x01\x01\x02\x00\x00", bytes(6), b"\x02\x00\x00")
    screen = _described(0x24, b"\x03\x02\x01\x01\x00\x01\x00")
    length = 13 + len(camera) + len(screen)
    control = _described(0x24, b"\x01\x00\x01", struct.pack("<HI", length, 48_000_000), b"\x01\x01") + camera + screen
    colors = _described(0x24, b"\x0d\x01\x01\x04")
    jpeg = _described(0x24, bytes((6, 1, len(SIZES), 0, 1, 0, 0, 0, 0))) + _frame_sizes(7) + colors
    yuyv = _described(0x24, bytes((4, 2, len(SIZES))), YUY2, bytes((16, 1, 0, 0, 0, 0))) + _frame_sizes(5) + colors
    length = 15 + len(jpeg) + len(yuyv)
    stream = _described(0x24, b"\x01\x02", struct.pack("<H", length), bytes((ENDPOINT, 0, 2, 0, 0, 0, 1, 0, 0)))
    whole = b"".join(
        (
            _described(0x0B, b"\x00\x02\x0e\x03\x00\x00"),
            _described(0x04, b"\x00\x00\x00\x0e\x01\x00\x00"),
            control,
            _described(0x04, b"\x01\x00\x01\x0e\x02\x00\x00"),
            stream + jpeg + yuyv,
            _described(0x05, bytes((ENDPOINT, 2)), struct.pack("<HB", PACKET_BYTES, 0)),
        )
    )
    return struct.pack("<BBHBBBBB", 9, 2, 9 + len(whole), 2, 1, 0, 0x80, 250) + whole


def _frame_sizes(kind: int) -> bytes:
    intervals = [10_000_000 // rate for rate in RATES]
    found = b""
    for number, (width, height) in enumerate(SIZES, 1):
        size = width * height * 2
        head = struct.pack("<BBBHHIIII", kind, number, 0, width, height, size * 8, size * 240, size, intervals[0])
        found += _described(0x24, head, bytes((len(intervals),)), struct.pack(f"<{len(intervals)}I", *intervals))
    return found
