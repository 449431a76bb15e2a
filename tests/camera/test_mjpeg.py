"""Pictures are cut out of a stream where they end, however it comes."""

from __future__ import annotations

import random
import time
import tracemalloc

import cv2
import numpy as np
import pytest

from edge_runner.camera.mjpeg import MAX_JPEG_BYTES, MAX_PREAMBLE_BYTES, Splitter
from edge_runner.errors import CameraError

CHUNK_BYTES = (1, 2, 3, 7, 64, 1000, 10**6)
HEADER = b"\r\n--frame\r\nContent-Type: image/jpeg\r\n\r\n"


def jpeg(seed: int = 0, size: tuple[int, int] = (48, 32), *options: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return bytes(cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 95, *options])[1])


def with_thumbnail(picture: bytes, thumbnail: bytes) -> bytes:
    """The picture with another whole one in its first header, as cameras write EXIF."""
    segment = b"Exif\0\0" + thumbnail
    return picture[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + picture[2:]


def split(stream: bytes, chunk_bytes: int = 64) -> tuple[list[bytes], int]:
    splitter = Splitter()
    pictures = []
    for place in range(0, len(stream), chunk_bytes):
        pictures += splitter.feed(stream[place : place + chunk_bytes])
    return pictures, splitter.torn


@pytest.mark.parametrize("chunk_bytes", CHUNK_BYTES)
def test_whole_pictures(chunk_bytes: int) -> None:
    """Every picture comes out byte for byte, without what stands between, in whatever chunks the stream comes."""
    pictures = [
        jpeg(1),
        jpeg(2, (40, 40), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        jpeg(3, (64, 64), cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
        with_thumbnail(jpeg(4), jpeg(5, (16, 16))),
    ]
    assert split(b"".join(HEADER + picture for picture in pictures), chunk_bytes) == (pictures, 0)
    assert split(b"".join(pictures), chunk_bytes) == (pictures, 0)


@pytest.mark.parametrize("chunk_bytes", CHUNK_BYTES)
def test_stray_bytes_between_headers(chunk_bytes: int) -> None:
    """Some webcams leave a byte or two before a header; no decoder minds."""
    whole = jpeg(1)
    tables = whole.index(b"\xff\xdb")
    pictures = [whole[:tables] + stray + whole[tables:] for stray in (b"\0", b"\x12\0")]
    assert split(b"".join(HEADER + picture for picture in pictures), chunk_bytes) == (pictures, 0)


@pytest.mark.parametrize("chunk_bytes", CHUNK_BYTES)
@pytest.mark.parametrize("left", [0.05, 0.5, 0.95])
def test_torn_pictures(chunk_bytes: int, left: float) -> None:
    """A picture whose end is missing is left out and counted, and costs none of its neighbours."""
    pictures = [jpeg(seed) for seed in range(3)]
    cut = jpeg(9)[: round(len(jpeg(9)) * left)]
    stream = b"".join(HEADER + part for part in (pictures[0], cut, pictures[1], cut, cut, pictures[2]))
    assert split(stream, chunk_bytes) == (pictures, 3)
    assert split(cut + cut + pictures[0], chunk_bytes) == (pictures[:1], 2)


def test_padding() -> None:
    """Markers may be padded with further 0xFF."""
    picture = jpeg(1)
    padded = picture[:2] + b"\xff\xff" + picture[2:-2] + b"\xff\xff" + picture[-2:]
    assert split(padded * 2, 5) == ([padded] * 2, 0)


def test_damage_does_not_stop_it() -> None:
    """Flipped bytes may cost their own picture and the next one, never more."""
    pictures = [jpeg(seed) for seed in range(200)]
    dice = random.Random(1)
    stream = bytearray()
    for picture in pictures:
        damaged = bytearray(picture)
        for _ in range(3):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        stream += HEADER + damaged + HEADER + picture
    whole, _ = split(bytes(stream), 1000)
    assert len(set(whole) & set(pictures)) >= len(pictures) * 0.9
    assert whole[-1] == pictures[-1]


@pytest.mark.parametrize("junk", [b"<html>no camera here</html>", b"\0\0\0\x01\x67\x42", b"\xff\xd8\0"])
def test_no_jpegs(junk: bytes) -> None:
    """A stream without pictures is refused soon, with the bytes that it began with."""
    with pytest.raises(CameraError, match="no JPEG picture") as caught:
        split(junk * (MAX_PREAMBLE_BYTES // len(junk) + 2), 4096)
    assert repr(junk[:6])[1:-1] in str(caught.value)


def test_endless_picture() -> None:
    """A picture that never ends is an error before it fills the memory."""
    splitter = Splitter()
    splitter.feed(jpeg(1)[:-2])
    chunk = bytes(10**6)
    tracemalloc.start()
    for _ in range(MAX_JPEG_BYTES // len(chunk) - 1):
        assert splitter.feed(chunk) == []
    with pytest.raises(CameraError, match="no end within 32 MB"):
        splitter.feed(2 * chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MAX_JPEG_BYTES


def test_memory_stays() -> None:
    """Thousands of pictures and the headers between them leave nothing behind."""
    splitter, part = Splitter(), HEADER * 20 + jpeg(1)
    for _ in range(3000):
        assert len(splitter.feed(part)) == 1
    assert len(splitter._bytes) < len(part)


def test_fast() -> None:
    """It costs a small part of what decoding does."""
    picture = jpeg(1, (1280, 720))
    splitter = Splitter()
    started = time.process_time()
    for _ in range(3):
        for place in range(0, len(picture), 65536):
            splitter.feed(picture[place : place + 65536])
    split_s = time.process_time() - started
    started = time.process_time()
    for _ in range(3):
        cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert split_s < (time.process_time() - started) / 2
