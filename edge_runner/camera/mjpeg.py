"""Cuts a stream of bytes into JPEG pictures.

A picture ends where its own structure says so: headers are stepped over by their lengths, up to the scan, where a marker is a
marker. Looking for the end marker alone would take a thumbnail's end for the picture's.
"""

from __future__ import annotations

import re

from edge_runner.camera.jpeg import BARE, EOI, SOI, SOS
from edge_runner.errors import CameraError

MAX_JPEG_BYTES = 32_000_000
MAX_PREAMBLE_BYTES = 256_000  # before the first picture: headers, no more
STRAY_BYTES = (
    3  # where the next header begins at the latest: webcams leave a byte or two between headers, and libjpeg allows it
)
HEAD_BYTES = 24  # of what is no JPEG stream, in the error

START = b"\xff\xd8\xff"  # every picture's first marker is followed by another
# In a scan 0xFF is followed by 0 (a value), a restart marker, or another 0xFF (padding); all else ends the scan.
SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


class Splitter:
    """Takes a stream in chunks, as they come; gives its whole pictures. What stands between pictures is skipped.

    `torn` counts the pictures whose end never came; `head` is how the stream began.
    """

    def __init__(self) -> None:
        self.torn = 0
        self.head = b""
        self._bytes = bytearray()  # from the picture's start, where one has begun
        self._begun = False
        self._in_scan = False
        self._position = 0  # what is before it has been looked at
        self._skipped = 0  # bytes since the last whole picture that belong to none
        self._seen = False

    def feed(self, chunk: bytes | bytearray | memoryview) -> list[bytes]:
        """The pictures that `chunk` completed. Raise CameraError where this is no stream of JPEGs."""
        if len(self.head) < HEAD_BYTES:
            self.head += bytes(chunk[: HEAD_BYTES - len(self.head)])
        self._bytes += chunk
        pictures: list[bytes] = []
        while self._find_start():
            end = self._find_end()
            if end is None:
                break
            if end:
                pictures.append(bytes(memoryview(self._bytes)[:end]))
                self._skipped = 0
                self._restart(end)
        if len(self._bytes) > MAX_JPEG_BYTES:
            raise CameraError(f"a JPEG picture of the stream has no end within {MAX_JPEG_BYTES // 10**6} MB")
        return pictures

    def _find_start(self) -> bool:
        """Drop what stands before the next picture; False where none has begun."""
        if self._begun:
            return True
        start = self._bytes.find(START)
        junk = start if start >= 0 else max(0, len(self._bytes) - len(START) + 1)
        del self._bytes[:junk]
        self._skipped += junk
        if self._skipped > (MAX_JPEG_BYTES if self._seen else MAX_PREAMBLE_BYTES):
            raise CameraError(f"no JPEG picture in {self._skipped} bytes of the stream, which began with {self.head!r}")
        self._begun = start >= 0
        self._seen = self._seen or self._begun
        self._position = 2
        return self._begun

    def _find_end(self) -> int | None:
        """Where the picture ends; None where that has not come yet, and 0 where it is torn (then another one is looked for)."""
        while True:
            if self._in_scan and not self._skip_scan():
                return None
            place = self._position
            if place + 2 > len(self._bytes):
                return None
            mark, marker = self._bytes[place], self._bytes[place + 1]
            if mark != 0xFF and (found := self._bytes.find(b"\xff", place, place + STRAY_BYTES)) >= 0:
                self._position = found
                continue
            if mark != 0xFF and len(self._bytes) < place + STRAY_BYTES:
                return None
            if mark != 0xFF or marker in (0x00, SOI):
                self.torn += 1
                self._restart(place if (mark, marker) == (0xFF, SOI) else len(START))
                return 0
            if marker == EOI:
                return place + 2
            if marker == 0xFF:
                self._position += 1
            elif marker in BARE:
                self._position += 2
            elif place + 4 > len(self._bytes):
                return None
            else:
                self._position += 2 + int.from_bytes(self._bytes[place + 2 : place + 4], "big")
                self._in_scan = marker == SOS

    def _skip_scan(self) -> bool:
        """Go on to the marker that ends the scan; False where it has not come yet."""
        end = SCAN_END.search(self._bytes, self._position)
        # The last byte may be the first half of a marker; and a scan's header may reach beyond what has come.
        self._position = end.start() if end else max(self._position, len(self._bytes) - 1)
        self._in_scan = end is None
        return end is not None

    def _restart(self, place: int) -> None:
        """Look for a picture from `place` on."""
        del self._bytes[:place]
        self._begun = self._in_scan = False
