"""Pictures as bytes: decodes them, and tells a whole file from a torn one, which decoders pass for good."""

from __future__ import annotations

import struct

import cv2
import numpy as np

from edge_runner.frame import Picture

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
JPEG_SCAN = 0xDA
JPEG_BARE = {0x01, *range(0xD0, 0xD8)}  # markers without a length


def decode(content: bytes) -> Picture | None:
    """An encoded picture as uint8 [height, width, 3] BGR, turned as its EXIF says; None where it is damaged, torn, or none."""
    if not content or torn(content):
        return None
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)  # type: ignore[return-value]
    except cv2.error:
        return None  # a header that claims an impossible size


def torn(content: bytes) -> bool:
    """Whether a JPEG, PNG or BMP file's end is missing. A decoder fills the rest with grey, and says that all is well."""
    if content.startswith(JPEG_START):
        return content.rfind(JPEG_END) < _jpeg_scan(content)
    if content.startswith(PNG_START):
        return PNG_END not in content
    if content.startswith(b"BM") and len(content) >= 6:
        return len(content) < int(struct.unpack_from("<I", content, 2)[0])
    return False


def _jpeg_scan(content: bytes) -> int:
    """Where a JPEG's picture data begins: an end marker before it is a thumbnail's. Past the end where there is none."""
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == JPEG_SCAN:
            return position
        if marker == 0xFF:
            position += 1
        elif marker in JPEG_BARE:
            position += 2
        else:
            position += 2 + int(struct.unpack_from(">H", content, position + 2)[0])
    return len(content)
