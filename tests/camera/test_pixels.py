"""Whole pictures and torn ones, told apart without asking the decoder, which fills what is missing with grey on some versions."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from edge_runner.camera.pixels import decode, torn

pytestmark = pytest.mark.arm

PICTURE = cv2.GaussianBlur(np.random.default_rng(3).integers(0, 256, (60, 80, 3), np.uint8), (0, 0), 2)


def encoded(suffix: str, *parameters: int, picture: np.ndarray = PICTURE) -> bytes:
    return cv2.imencode(suffix, picture, parameters)[1].tobytes()


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


JPEG = encoded(".jpg")
THUMBNAIL = encoded(".jpg", picture=PICTURE[:12, :16])

WHOLE = {
    "baseline": JPEG,
    "progressive": encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "with restarts": encoded(".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
    "with a thumbnail": JPEG[:2] + segment(0xE1, b"Exif\0\0" + THUMBNAIL) + JPEG[2:],
    "fill bytes before a marker": JPEG[:2] + b"\xff\xff" + JPEG[2:],
    "a marker without a length": JPEG[:2] + b"\xff\x01" + JPEG[2:],
    "a second picture after it": JPEG + THUMBNAIL,
    "png": encoded(".png"),
    "bmp": encoded(".bmp"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole(name: str) -> None:
    """A whole file passes, and decodes to its picture."""
    assert not torn(WHOLE[name])
    picture = decode(WHOLE[name])
    assert picture is not None
    assert np.abs(picture.astype(int) - PICTURE).mean() < 5


@pytest.mark.parametrize("name", [name for name in WHOLE if "second" not in name])
def test_torn_anywhere(name: str) -> None:
    """However short a file is cut, down to its magic number, and whatever a file system fills it up with, it is torn."""
    content = WHOLE[name]
    for size in [8, 20, *range(100, len(content) - 12, 97), len(content) - 12, len(content) - 2]:
        if not name.startswith("bmp"):  # of which a filled one cannot be told from a dark picture
            assert torn(content[:size] + bytes(3000)), size
        assert torn(content[:size]), size
        assert decode(content[:size]) is None


def test_other_bytes() -> None:
    """What is no picture decodes to nothing, and raises nothing."""
    chance = np.random.default_rng(5)
    for magic in (b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF\0\0\0\0WEBP", b"II*\0", b"P6\n"):
        for size in (0, 1, 5, 300):
            assert decode(magic + chance.bytes(size)) is None
    assert decode(b"") is None
