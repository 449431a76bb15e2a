"""A JPEG's structure: its size, its scan and its end, past thumbnails, stray bytes and what is no JPEG."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge_runner.camera.jpeg import END, length, scan, size


def jpeg(width: int = 80, height: int = 60, *options: int) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    return bytes(cv2.imencode(".jpg", noise, list(options))[1])


def thumbnailed() -> bytes:
    """A picture with another one in its first header."""
    whole, small = jpeg(), jpeg(16, 16)
    return whole[:2] + b"\xff\xe1" + (len(small) + 2).to_bytes(2, "big") + small + whole[2:]


def strayed() -> bytes:
    """A picture with bytes between its headers that belong to none, as some webcams make them."""
    whole = jpeg()
    tables = whole.index(b"\xff\xdb")
    return whole[:tables] + b"\0\x12\0" + whole[tables:]


@pytest.mark.arm
def test_size() -> None:
    """Width and height stand in the header; what is none has no size."""
    for content in (jpeg(), jpeg(80, 60, cv2.IMWRITE_JPEG_PROGRESSIVE, 1), thumbnailed(), strayed()):
        assert size(content) == (80, 60)
    for content in (b"", b"\xff\xd8", jpeg()[:100], b"\x89PNG\r\n\x1a\n" + bytes(50), bytes(200)):
        assert size(content) is None
    assert size(b"\xff\xd8\xff\xc0\0\x11\x08\0\0\0\0\x03" + bytes(20)) is None


@pytest.mark.arm
def test_scan() -> None:
    """The picture's data begins behind all headers."""
    for content in (jpeg(), thumbnailed(), strayed()):
        begins = scan(content)
        assert content[begins : begins + 2] == b"\xff\xda"
        assert END not in content[begins:-2]
    assert scan(jpeg()[:50]) == 50


@pytest.mark.arm
class TestLength:
    def test_exact(self) -> None:
        """A JPEG ends where it ends, whatever the camera puts behind it."""
        whole = jpeg()
        for behind in (b"", bytes(1000), b"\xff" * 7, b"\xff\xd9", b"junk\xff\xd9"):
            assert length(whole + behind, len(whole + behind)) == len(whole)

    def test_torn(self) -> None:
        """One that is cut anywhere is incomplete, and so is one into which the next runs."""
        whole = jpeg()
        assert [cut for cut in range(len(whole)) if length(whole[:cut], cut)] == []
        assert length(whole[:-2] + whole, 2 * len(whole) - 2) == 0

    def test_used(self) -> None:
        """What stands behind the bytes that are used is of an older frame."""
        whole = jpeg()
        assert length(whole, len(whole) - 1) == 0
        assert length(whole, 0) == 0

    def test_thumbnail(self) -> None:
        """The end of a thumbnail within the headers is not the picture's."""
        whole, small = jpeg(), jpeg(16, 16)
        with_thumbnail = whole[:2] + b"\xff\xe1" + (len(small) + 2).to_bytes(2, "big") + small + whole[2:]
        assert length(with_thumbnail, len(with_thumbnail)) == len(with_thumbnail)
        cut = 2 + 4 + len(small) + 30
        assert length(with_thumbnail[:cut], cut) == 0

    def test_no_jpeg(self) -> None:
        """Anything else is none."""
        assert length(bytes(100), 100) == 0
        assert length(b"\xff\xd9" * 50, 100) == 0
        assert length(b"", 0) == 0

    def test_stray_bytes(self) -> None:
        """A few bytes between headers, which no decoder minds, are no damage."""
        assert length(strayed(), len(strayed())) == len(strayed())
