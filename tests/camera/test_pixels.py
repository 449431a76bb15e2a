"""Whole pictures and torn ones, told apart without asking the decoder, which fills what is missing with grey on some versions;
and raw frames: each format holds the colours that were put into it, wherever its rows are padded."""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_runner.camera.pattern import BARS
from edge_runner.camera.pixels import FORMATS, Layout, RawFrame, black, complained, decode, torn
from edge_runner.frame import Enough, Picture, Stamp, TensorSpec
from edge_runner.model.preprocess import Preprocessor, Recipe

PICTURE = cv2.GaussianBlur(np.random.default_rng(3).integers(0, 256, (60, 80, 3), np.uint8), (0, 0), 2)
MUTED = (np.array(BARS) * 160 // 255 + 40).astype(np.uint8)
STAMP = Stamp(1, 0, 0)
JPEG_LAYOUT = Layout("mjpeg", 0, 0)
REAL = Path(os.environ.get("EDGE_RUNNER_MODELS", "")) / "eval/imagenet_sample"


def encoded(suffix: str, *parameters: int, picture: np.ndarray = PICTURE) -> bytes:
    return cv2.imencode(suffix, picture, parameters)[1].tobytes()


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


JPEG = encoded(".jpg")
THUMBNAIL = encoded(".jpg", picture=PICTURE[:12, :16])
ORIENTED = JPEG[:2] + segment(0xE1, b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, 6, 0, 0)) + JPEG[2:]

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


@pytest.mark.arm
@pytest.mark.parametrize("name", WHOLE)
def test_whole(name: str) -> None:
    """A whole file passes, and decodes to its picture."""
    assert not torn(WHOLE[name])
    picture = decode(WHOLE[name])
    assert picture is not None
    assert np.abs(picture.astype(int) - PICTURE).mean() < 5


@pytest.mark.arm
@pytest.mark.parametrize("name", [name for name in WHOLE if "second" not in name])
def test_torn_anywhere(name: str) -> None:
    """However short a file is cut, down to its magic number, and whatever a file system fills it up with, it is torn."""
    content = WHOLE[name]
    for size in [8, 20, *range(100, len(content) - 12, 97), len(content) - 12, len(content) - 2]:
        if not name.startswith("bmp"):  # of which a filled one cannot be told from a dark picture
            assert torn(content[:size] + bytes(3000)), size
        assert torn(content[:size]), size
        assert decode(content[:size]) is None


@pytest.mark.arm
def test_other_bytes() -> None:
    """What is no picture decodes to nothing, and raises nothing."""
    chance = np.random.default_rng(5)
    for magic in (b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF\0\0\0\0WEBP", b"II*\0", b"P6\n"):
        for size in (0, 1, 5, 300):
            assert decode(magic + chance.bytes(size)) is None
    assert decode(b"") is None


def to_yuv(bgr: np.ndarray, full_range: bool = False) -> np.ndarray:
    """BT.601, its own arithmetic: float64 [..., 3] Y, U, V of video range or of a JPEG's."""
    blue, green, red = np.moveaxis(bgr.astype(np.float64) / 255, -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    first, second = (blue - luma) / 1.772, (red - luma) / 1.402
    if full_range:
        return np.stack([255 * luma, 128 + 255 * first, 128 + 255 * second], -1)
    return np.stack([16 + 219 * luma, 128 + 224 * first, 128 + 224 * second], -1)


def averaged(plane: np.ndarray, rows: int, columns: int) -> np.ndarray:
    height, width = plane.shape
    return plane.reshape(height // rows, rows, width // columns, columns).mean((1, 3))


def padded(plane: np.ndarray, row_bytes: int) -> bytes:
    """A plane's rows with noise behind each."""
    rows = np.rint(plane).clip(0, 255).astype(np.uint8).reshape(len(plane), -1)
    noise = np.random.default_rng(1).integers(0, 256, (len(rows), row_bytes - rows.shape[1]), np.uint8)
    return np.hstack([rows, noise]).tobytes()


def raw(picture: Picture, layout: Layout) -> bytes:
    """A picture's bytes in the layout, made without OpenCV."""
    row_bytes = layout.row_bytes
    if layout.format == "bgr24":
        return padded(picture, row_bytes)
    if layout.format == "rgb24":
        return padded(picture[..., ::-1], row_bytes)
    luma, first, second = np.moveaxis(to_yuv(picture, layout.full_range), -1, 0)
    if layout.format == "gray8":
        return padded(picture.mean(-1), row_bytes)
    if layout.format == "yuyv":
        pairs = np.stack([luma[:, ::2], averaged(first, 1, 2), luma[:, 1::2], averaged(second, 1, 2)], -1)
        return padded(pairs, row_bytes)
    first, second = averaged(first, 2, 2), averaged(second, 2, 2)
    if layout.format == "nv12":
        return padded(luma, row_bytes) + padded(np.stack([first, second], -1), row_bytes)
    return padded(luma, row_bytes) + padded(first, row_bytes // 2) + padded(second, row_bytes // 2)


def bars(width: int, height: int) -> Picture:
    """Eight bars, in the lower half in the opposite order; of muted colours, since a wrong range would clip full ones unseen."""
    columns = np.arange(width) * 8 // width
    picture = np.empty((height, width, 3), np.uint8)
    picture[: height // 2] = MUTED[columns]
    picture[height // 2 :] = MUTED[7 - columns]
    return picture


def off_edges(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns that are not beside another bar, whose colour a pair of pixels might share."""
    columns, rows = np.arange(width), np.arange(height)
    far = np.abs((columns * 8 / width) % 1 - 0.5) < 0.5 - 32 / width
    return rows[np.abs(rows - height // 2) > 2], columns[far]


def frame_of(picture: Picture, layout: Layout) -> RawFrame:
    return RawFrame(STAMP, raw(picture, layout), layout)


LAYOUTS = [
    *(Layout(name, 640, 48) for name in FORMATS if name != "mjpeg"),
    *(Layout("i420", width, 46, -(-width // 64) * 64) for width in (1640, 416, 780)),
    *(Layout(name, 416, 38, full_range=True) for name in ("i420", "nv12", "yuyv")),
    Layout("yuyv", 302, 37, 700, full_range=True),
    Layout("bgr24", 301, 37, full_range=True),
    Layout("gray8", 301, 37, full_range=True),
    Layout("i420", 780, 360, 832, full_range=True),
    Layout("nv12", 416, 38, 448),
    Layout("yuyv", 416, 38, 1024),
    Layout("bgr24", 301, 37, 1024),
    Layout("rgb24", 301, 37, 1024),
    Layout("gray8", 301, 37, 304),
    Layout("yuyv", 302, 37),
]


@pytest.mark.arm
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_colours(layout: Layout) -> None:
    """Every format holds the colours that were put into it, each where it was put, and reads none of the padding."""
    picture = bars(layout.width, layout.height)
    frame = frame_of(picture, layout)
    decoded = frame.decode(None)
    assert decoded is not None
    assert (decoded.dtype, decoded.shape) == (np.uint8, picture.shape)
    if layout.format == "gray8":
        picture = np.repeat(picture.mean(-1, keepdims=True), 3, -1)
    where = np.ix_(*off_edges(layout.width, layout.height))
    assert np.abs(decoded[where].astype(float) - picture[where]).max() <= 4
    assert frame.size is None


@pytest.mark.parametrize("name", FORMATS)
def test_into(name: str) -> None:
    """A frame is decoded into the picture that is given, where it has its size, and into no other."""
    layout = Layout(name, 64, 48) if name != "mjpeg" else JPEG_LAYOUT
    picture = bars(64, 48)
    frame = frame_of(picture, layout) if name != "mjpeg" else RawFrame(STAMP, encoded(".jpg", picture=picture), layout)
    first = frame.decode(None)
    assert first is not None
    into = np.zeros_like(first)
    assert frame.decode(into) is into
    assert (into == first).all()
    small = np.zeros((4, 4, 3), np.uint8)
    other = frame.decode(small)
    assert other is not small
    assert other is not None
    assert (other == first).all()
    assert not small.any()


@pytest.mark.arm
@pytest.mark.parametrize(("name", "full_range"), [("i420", False), ("i420", True), ("nv12", False)])
@pytest.mark.parametrize(("stride", "divisor"), [(0, 2), (704, 2), (0, 4), (704, 4), (0, 8)])
def test_shrunk_colours(name: str, full_range: bool, stride: int, divisor: int) -> None:
    """A smaller picture holds the same colours in the same places, and the frame says how large the whole one is."""
    layout = Layout(name, 640, 96, stride, full_range)
    picture = bars(640, 96)
    frame = frame_of(picture, layout)
    decoded = frame.decode(None, Enough(640 // divisor, 96 // divisor))
    assert decoded is not None
    assert decoded.shape == (96 // divisor, 640 // divisor, 3)
    assert frame.size == (640, 96)
    rows, columns = off_edges(640, 96)
    middle = np.ix_(
        [row for row in rows if row % divisor == 0 and abs(row - 48) > 16], [c for c in columns if c % divisor == 0]
    )
    shown = np.repeat(np.repeat(decoded, divisor, 0), divisor, 1)[middle]
    assert np.abs(shown.astype(int) - picture[middle]).max() <= 4
    into = np.empty_like(decoded)
    assert frame.decode(into, Enough(640 // divisor, 96 // divisor)) is into


@pytest.mark.parametrize(
    ("width", "height", "given"), [(780, 360, (390, 180)), (780, 362, (780, 362)), (640, 480, (160, 120))]
)
def test_shrunk_into_whole_pairs(width: int, height: int, given: tuple[int, int]) -> None:
    """Where a fourth or a half of the frame has no whole pairs of pixels, less is taken away, or nothing."""
    frame = frame_of(bars(width, height), Layout("i420", width, height))
    decoded = frame.decode(None, Enough(width // 4, height // 4))
    assert decoded is not None
    assert decoded.shape == (given[1], given[0], 3)
    assert frame.size == (None if given == (width, height) else (width, height))


@pytest.mark.parametrize("name", ["yuyv", "bgr24", "rgb24", "gray8"])
def test_not_shrunk(name: str) -> None:
    """What is converted as fast as it is shrunk stays whole."""
    frame = frame_of(bars(640, 48), Layout(name, 640, 48))
    decoded = frame.decode(None, Enough(10, 10))
    assert decoded is not None
    assert decoded.shape == (48, 640, 3)
    assert frame.size is None


@pytest.mark.arm
@pytest.mark.parametrize(("divisor", "height", "width"), [(1, 60, 80), (2, 30, 40), (4, 15, 20), (8, 8, 10)])
def test_shrunk_jpeg(divisor: int, height: int, width: int) -> None:
    """A JPEG is decoded at a fraction of its size, where that is enough."""
    frame = RawFrame(STAMP, JPEG, JPEG_LAYOUT)
    decoded = frame.decode(None, Enough(80 // divisor, 60 // divisor))
    assert decoded is not None
    assert decoded.shape == (height, width, 3)
    assert frame.size == (None if divisor == 1 else (80, 60))
    wanted = cv2.resize(PICTURE, (width, height), interpolation=cv2.INTER_AREA)
    assert np.abs(decoded.astype(int) - wanted).mean() < 5


def test_camera_jpeg_is_not_turned() -> None:
    """A camera's EXIF does not turn its frames: `rotate` does. A file's does."""
    assert decode(ORIENTED).shape == (80, 60, 3)
    assert RawFrame(STAMP, ORIENTED, JPEG_LAYOUT).decode(None).shape == (60, 80, 3)


def natural(seed: int = 7) -> Picture:
    """A picture of 1280x720 as a camera sees it: light that changes slowly, things with edges, and noise."""
    chance = np.random.default_rng(seed)
    light = chance.integers(40, 216, (5, 8, 3), np.uint8)
    picture = cv2.resize(light, (1280, 720), interpolation=cv2.INTER_CUBIC)
    for _ in range(40):
        center = tuple(int(value) for value in chance.integers(0, (1280, 720)))
        size = tuple(int(value) for value in chance.integers(10, 160, 2))
        colour = tuple(int(value) for value in chance.integers(0, 256, 3))
        cv2.ellipse(picture, center, size, int(chance.integers(180)), 0, 360, colour, -1, cv2.LINE_AA)
    seen = cv2.GaussianBlur(picture, (0, 0), 1)  # by the lens
    return np.clip(seen + chance.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)


def grabbed(picture: Picture, name: str) -> RawFrame:
    if name == "mjpeg":
        return RawFrame(STAMP, encoded(".jpg", cv2.IMWRITE_JPEG_QUALITY, 85, picture=picture), JPEG_LAYOUT)
    return frame_of(picture, Layout(name.removesuffix(" full"), 1280, 720, full_range=name.endswith("full")))


def distance(picture: Picture, name: str, interpolation: Any, divisor: int, size: int) -> float:
    """How far the prepared input of the smaller picture is from that of the whole one, in grey levels, on average."""
    spec = TensorSpec("input", (1, size, size, 3), "float32")
    prepare = Preprocessor(Recipe("rgb", (0.0,), (1.0,), interpolation=interpolation), spec)
    frame, tensors = grabbed(picture, name), np.empty((2, 1, size, size, 3), np.float32)
    for tensor, enough in zip(tensors, (None, Enough(1280 // divisor, 720 // divisor)), strict=True):
        decoded = frame.decode(None, enough)
        assert decoded is not None
        assert len(decoded) == (720 // divisor if enough else 720)
        prepare(decoded, tensor)
    return float(np.abs(tensors[0] - tensors[1]).mean())


FAITHFUL = [("linear", 2, 224), ("cubic", 2, 224), ("area", 2, 224), ("area", 4, 96), ("area", 8, 40)]
SHRUNK = ["i420", "i420 full", "nv12", "mjpeg"]


@pytest.mark.parametrize("name", SHRUNK)
@pytest.mark.parametrize(("interpolation", "divisor", "size"), FAITHFUL)
def test_shortcut_is_faithful(name: str, interpolation: str, divisor: int, size: int) -> None:
    """The model sees the same of a smaller picture: less than 1.5 grey levels of difference on average."""
    assert distance(natural(), name, interpolation, divisor, size) < 1.5


@pytest.mark.skipif(
    not os.environ.get("EDGE_RUNNER_MODELS") or not REAL.is_dir(), reason="EDGE_RUNNER_MODELS is not set"
)
@pytest.mark.parametrize("name", SHRUNK)
@pytest.mark.parametrize(("interpolation", "divisor", "size"), FAITHFUL)
def test_shortcut_is_faithful_to_photos(name: str, interpolation: str, divisor: int, size: int) -> None:
    """And so it does of photos."""
    paths = sorted(path for path in REAL.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[::10]
    assert len(paths) >= 5
    photos = [cv2.resize(cv2.imread(str(path)), (1280, 720), interpolation=cv2.INTER_CUBIC) for path in paths]
    assert np.mean([distance(photo, name, interpolation, divisor, size) for photo in photos]) < 1.5


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout.stride], ids=str)
def test_too_few_bytes(layout: Layout) -> None:
    """A frame that is a byte short is refused, and what stands behind a frame is none of it."""
    content = raw(bars(layout.width, layout.height), layout)
    assert len(content) == layout.size_bytes
    with pytest.raises(ValueError, match=f"a frame of {len(content)} bytes has only {len(content) - 1}"):
        RawFrame(STAMP, content[:-1], layout)
    frame = RawFrame(STAMP, content, layout)
    longer = RawFrame(STAMP, bytearray(content + b"more"), layout)
    assert (longer.decode(None) == frame.decode(None)).all()
    assert longer.fingerprint() == frame.fingerprint() == zlib.crc32(content)


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        (("h264", 64, 48), "'h264' is no format; there are i420, nv12"),
        (("i420", 65, 48), "i420 has pairs of pixels: 65x48 has an odd width"),
        (("nv12", 64, 47), "nv12 has pairs of rows: 64x47 has an odd height"),
        (("yuyv", 65, 47), "yuyv has pairs of pixels: 65x47 has an odd width"),
        (("bgr24", 64, 48, 191), "64x48 pixels of bgr24 do not fit into rows of 191 bytes"),
        (("i420", 64, 48, 65), "i420 has chroma rows of half the stride; 65 bytes are odd"),
        (("gray8", 0, 48), "0x48 pixels of gray8 do not fit"),
    ],
)
def test_layout_that_cannot_be(layout: tuple[Any, ...], says: str) -> None:
    """A layout that no frame can have is refused, with what is wrong with it."""
    with pytest.raises(ValueError, match=says):
        Layout(*layout)


def test_release_lets_go_of_the_buffer() -> None:
    """After its release a frame neither decodes nor holds the buffer: a mapped one can be unmapped."""
    given_back = []
    layout = Layout("gray8", 64, 64)
    memory = mmap.mmap(-1, layout.size_bytes)
    frame = RawFrame(STAMP, memory, layout, lambda: given_back.append(1))
    assert frame.decode(None) is not None
    frame.release()
    assert given_back == [1]
    memory.close()


@contextmanager
def nameless_stderr() -> Iterator[int]:
    """Descriptor 2 as a worker has it: a file that has no name. No fixture: pytest sets it anew for the test itself."""
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield file.fileno()
        finally:
            os.dup2(kept, 2)
            os.close(kept)


PACKET = 512  # bytes, of a slow USB camera


def cut(content: bytes) -> bytes:
    """A JPEG without a packet of its middle; both its ends are there."""
    middle = (content.index(b"\xff\xda") + len(content)) // 2
    return content[:middle] + content[middle + PACKET :]


def noisy(content: bytes) -> bytes:
    middle = (content.index(b"\xff\xda") + len(content)) // 2
    noise = np.random.default_rng(4).bytes(PACKET).replace(b"\xff", b"\0")
    return content[:middle] + noise + content[middle + PACKET :]


def without_a_restart(content: bytes) -> bytes:
    first = content.index(b"\xff\xd1")
    return content[:first] + content[content.index(b"\xff\xd3", first) :]


LARGE = cv2.resize(natural(), (640, 360), interpolation=cv2.INTER_AREA)
DAMAGED = {
    "cut": cut(encoded(".jpg", picture=LARGE)),
    "cut, progressive": cut(encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1, picture=LARGE)),
    "cut, with restarts": without_a_restart(encoded(".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 4, picture=LARGE)),
    "noise": noisy(encoded(".jpg", picture=LARGE)),
}
GOOD = {
    **{name: WHOLE[name] for name in ("baseline", "progressive", "with restarts", "with a thumbnail")},
    "zeros at the end": JPEG[:-2] + bytes(300) + JPEG[-2:],
    "padding at the end": JPEG[:-2] + b"\xaa" * 500 + JPEG[-2:],
    "a little junk at the end": JPEG[:-2] + b"\x12\x34" * 5 + JPEG[-2:],
    "junk among the headers": JPEG.replace(b"\xff\xdb", b"\x12\x34" * 40 + b"\xff\xdb", 1),
    "a byte too many before a restart": WHOLE["with restarts"].replace(b"\xff\xd2", b"\0\xff\xd2", 1),
    "zeros behind the end": JPEG + bytes(500),
}


@pytest.mark.arm
@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("divisor", [1, 2])
def test_damaged(name: str, divisor: int) -> None:
    """A JPEG whose decoder had to fill in for missing data is no picture, and nothing of its complaint stays."""
    with nameless_stderr() as descriptor:
        os.write(2, b"before\n")
        for _ in range(3):
            frame = RawFrame(STAMP, DAMAGED[name], JPEG_LAYOUT)
            assert frame.decode(None, Enough(640 // divisor, 360 // divisor)) is None
        os.write(2, b"after\n")
        assert os.pread(descriptor, 100, 0) == b"before\nafter\n"


@pytest.mark.arm
@pytest.mark.parametrize("name", GOOD)
def test_good_though_odd(name: str) -> None:
    """What many webcams put between or behind the data of a good picture does not make it a damaged one."""
    with nameless_stderr() as descriptor:
        picture = RawFrame(STAMP, GOOD[name], JPEG_LAYOUT).decode(None)
        assert os.fstat(descriptor).st_size == 0
    assert picture is not None
    assert np.abs(picture.astype(int) - PICTURE).mean() < 5


def test_torn_frame() -> None:
    """A JPEG without its end is no picture, whatever descriptor 2 is."""
    assert RawFrame(STAMP, JPEG[:-300], JPEG_LAYOUT).decode(None) is None
    assert RawFrame(STAMP, b"", JPEG_LAYOUT).decode(None) is None
    assert RawFrame(STAMP, b"\xff\xd8\xff\xd9", JPEG_LAYOUT).decode(None) is None


def test_other_words_are_kept() -> None:
    """What others write to descriptor 2 stays there, and damages no picture."""
    with nameless_stderr() as descriptor:
        os.write(2, b"[h264] error while decoding\n")
        assert not complained(0)
        os.write(2, b"Corrupt JPEG data: bad Huffman code\n")
        assert complained(0)
        assert os.fstat(descriptor).st_size > 60


def test_named_stderr_is_left_alone(tmp_path: Path) -> None:
    """A log file is neither read nor cut."""
    kept = os.dup(2)
    with (tmp_path / "log").open("w+b") as file:
        os.dup2(file.fileno(), 2)
        try:
            os.write(2, b"Corrupt JPEG data: bad Huffman code\n")
            assert not complained(0)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    assert (tmp_path / "log").stat().st_size == 36


@pytest.mark.arm
def test_black() -> None:
    """A picture of video's black is black; a small light in it is enough that it is not."""
    dark = np.full((720, 1280, 3), 16, np.uint8)
    assert black(dark)
    assert black(np.zeros((2, 2, 3), np.uint8))
    dark[300:317, 500:517, 2] = 17
    assert not black(dark)
    assert not black(natural())
    started = time.process_time()
    for _ in range(100):
        black(dark)
    assert time.process_time() - started < 0.5
