"""A JPEG's own structure (ITU-T T.81, annex B): where its headers are, how large its picture is, and where it ends."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator

START, END = b"\xff\xd8", b"\xff\xd9"
SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
BARE = {0x01, *range(0xD0, 0xD8)}  # markers without a length
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # the headers that hold the size

Bytes = bytes | bytearray | mmap.mmap


def size(content: Bytes) -> tuple[int, int] | None:
    """Width and height as the header says; None where there is none."""
    if content[:2] != START:
        return None
    for marker, position in _segments(content, len(content)):
        if marker in FRAMES and position + 9 <= len(content):
            height, width = struct.unpack_from(">HH", content, position + 5)
            return (width, height) if width and height else None
    return None


def scan(content: Bytes, used: int | None = None) -> int:
    """Where the picture's data begins: an end marker before it is a thumbnail's. The end of the bytes where there is none.

    `used` is how many of the bytes count.
    """
    most = len(content) if used is None else used
    return next((position for marker, position in _segments(content, most) if marker == SOS), most)


def length(content: Bytes, used: int) -> int:
    """How long the picture at the start of a buffer is, without what a camera may put behind it; 0 where it is incomplete."""
    if content[:2] != START:
        return 0
    begins = scan(content, used)
    end = content.find(END, begins, used)
    if end < 0 or content.find(START, begins, end) >= 0:  # another picture begins before this one's end
        return 0
    return end + len(END)


def _segments(content: Bytes, used: int) -> Iterator[tuple[int, int]]:
    """Marker and position of each header, up to the scan's. Stray bytes between them are stepped over, as libjpeg does."""
    position = content.find(b"\xff", 2, used)
    while 0 < position <= used - 4:
        marker = content[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker == 0 or marker in BARE:
            position += 2
        else:
            yield marker, position
            if marker == SOS:
                return
            position += 2 + int(struct.unpack_from(">H", content, position + 2)[0])
        position = content.find(b"\xff", position, used)
