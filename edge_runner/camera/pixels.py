"""Pictures as bytes, encoded or raw: decodes them, and tells a whole one from a torn one, which decoders pass for good."""

from __future__ import annotations

import os
import re
import stat
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import cv2
import numpy as np
import numpy.typing as npt

from edge_runner.camera import jpeg
from edge_runner.camera.base import Grab
from edge_runner.frame import Enough, Picture, Stamp

AnyArray = TypeVar("AnyArray", bound=npt.NDArray[Any])

PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
JPEG_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}

Format = Literal["i420", "nv12", "yuyv", "bgr24", "rgb24", "gray8", "mjpeg"]
FORMATS: tuple[Format, ...] = get_args(Format)
PIXEL_BYTES = {"i420": 1, "nv12": 1, "yuyv": 2, "bgr24": 3, "rgb24": 3, "gray8": 1}  # in a row of the first plane
PLANAR = ("i420", "nv12")
PAIRED = (*PLANAR, "yuyv")  # two pixels of a row share their colour
FASTER_REDUCED = PLANAR  # of the others, shrinking costs more than converting: at 1280x720, yuyv .43 ms, bgr24 .06 ms


def _to_bgr(luma_levels: int, chroma_levels: int, black: int) -> npt.NDArray[np.float64]:
    """BT.601 as a matrix [3, 4]: Y, U, V and 1 to blue, green, red. The levels are those from black to white, and of U and V."""
    y, c = 255 / luma_levels, 255 / chroma_levels
    matrix = np.array([[y, 1.772 * c, 0], [y, -0.344136 * c, -0.714136 * c], [y, 0, 1.402 * c]])
    return np.column_stack([matrix, -matrix @ [black, 128, 128]])


TO_BGR = {False: _to_bgr(219, 224, 16), True: _to_bgr(255, 255, 0)}  # of video, and of the full range

COMPLAINT_BYTES = 4096  # libjpeg writes one line a picture
STRAY = re.compile(rb"Corrupt JPEG data: (\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
STRAY_HARMLESS = 16  # bytes; webcams' good pictures have up to ten, and damaged ones mostly more
COMPLAINTS = (b"Corrupt JPEG data", b"Premature end of JPEG")
REMARKS = (b"Invalid SOS parameters", b"Warning: unknown JFIF")
BLACK = 16  # of video; darker still is no picture
BLACK_STEP = 16  # pixels between those that are looked at


@dataclass(frozen=True)
class Layout:
    """How a frame's pixels lie in its bytes.

    `stride` is the bytes from one luma or packed row to the next (0: rows without padding); i420's chroma rows have half of it.
    `full_range` is of the YUV formats: levels 0..255 as in a JPEG, instead of video's 16..235. Raise ValueError for what cannot be.
    """

    format: str
    width: int
    height: int
    stride: int = 0
    full_range: bool = False

    def __post_init__(self) -> None:
        size = f"{self.width}x{self.height}"
        if self.format not in FORMATS:
            raise ValueError(f"'{self.format}' is no format; there are {', '.join(FORMATS)}")
        if self.format == "mjpeg":
            return
        if self.format in PAIRED and self.width % 2:
            raise ValueError(f"{self.format} has pairs of pixels: {size} has an odd width")
        if self.format in PLANAR and self.height % 2:
            raise ValueError(f"{self.format} has pairs of rows: {size} has an odd height")
        if min(self.width, self.height) < 1 or self.row_bytes < self.width * PIXEL_BYTES[self.format]:
            raise ValueError(f"{size} pixels of {self.format} do not fit into rows of {self.row_bytes} bytes")
        if self.format in PLANAR and self.row_bytes % 2:
            raise ValueError(f"{self.format} has chroma rows of half the stride; {self.row_bytes} bytes are odd")

    @property
    def row_bytes(self) -> int:
        return self.stride or self.width * PIXEL_BYTES[self.format]

    @property
    def size_bytes(self) -> int:
        """Of a whole frame, its padding included; 0 for mjpeg, whose frames differ."""
        if self.format == "mjpeg":
            return 0
        rows = self.height * 3 // 2 if self.format in PLANAR else self.height
        return self.row_bytes * rows


class RawFrame(Grab):
    """A frame as its camera gave it. `data` is a buffer of its bytes, which must stay as they are until `release`.

    Raise ValueError where there are fewer than the layout says.
    """

    def __init__(self, stamp: Stamp, data: Any, layout: Layout, give_back: Callable[[], None] | None = None) -> None:
        super().__init__(stamp)
        view = np.frombuffer(data, np.uint8)
        if len(view) < layout.size_bytes:
            raise ValueError(f"a frame of {layout.size_bytes} bytes has only {len(view)}")
        self.layout = layout
        self._data = view[: layout.size_bytes] if layout.size_bytes else view
        self._give_back = give_back

    def decode(self, into: Picture | None, enough: Enough | None = None) -> Picture | None:
        layout = self.layout
        if layout.format == "mjpeg":
            return self._decoded_jpeg(into, enough)
        divisor = _divisor(layout, enough)
        if divisor > 1:
            self.size = (layout.width, layout.height)
            return _reduced(self._data, layout, divisor, into)
        return _converted(self._data, layout, into)

    def fingerprint(self) -> int | None:
        return zlib.crc32(self._data.data)

    def release(self) -> None:
        self._data = self._data[:0].copy()  # a mapped buffer cannot be unmapped while somebody looks into it
        if self._give_back is not None:
            self._give_back()

    def _decoded_jpeg(self, into: Picture | None, enough: Enough | None) -> Picture | None:
        content = self._data.tobytes()
        size = jpeg.size(content)
        if size is None or torn(content):
            return None
        divisor = enough.reduction(*size) if enough else 1
        flag = JPEG_REDUCED.get(divisor, cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
        before = _written()
        try:
            picture: Picture | None = cv2.imdecode(self._data, flag)  # type: ignore[assignment]
        except cv2.error:
            return None
        if complained(before, content) or picture is None:
            return None
        if divisor > 1:
            self.size = size
        if into is None or into.shape != picture.shape:
            return picture
        np.copyto(into, picture)
        return into


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
    if content.startswith(jpeg.START):
        return content.rfind(jpeg.END) < jpeg.scan(content)
    if content.startswith(PNG_START):
        return PNG_END not in content
    if content.startswith(b"BM") and len(content) >= 6:
        return len(content) < int(struct.unpack_from("<I", content, 2)[0])
    return False


def complained(before: int, content: bytes = b"") -> bool:
    """Whether libjpeg said, since descriptor 2 was `before` bytes long, that it filled in for damaged data of a picture.

    It does not tell its caller. Where descriptor 2 is a file without a name, as a worker's is, its lines are read and taken back;
    anywhere else nothing is known, and nothing is done. `content` is the picture's bytes.
    """
    length = _written() - before
    if length <= 0:
        return False
    try:
        said = os.pread(2, COMPLAINT_BYTES, before)
        lines = said.splitlines()
        if length == len(said) and all(line.startswith(COMPLAINTS + REMARKS) for line in lines):
            os.ftruncate(2, before)
            os.lseek(2, before, os.SEEK_SET)
    except OSError:
        return False  # it may be open for writing only
    return any(line.startswith(COMPLAINTS) and _is_damage(line, content) for line in lines)


def black(picture: Picture) -> bool:
    """Whether a picture holds nothing but black, as far as a few of its pixels tell."""
    return int(picture[BLACK_STEP // 2 :: BLACK_STEP, BLACK_STEP // 2 :: BLACK_STEP].max(initial=0)) <= BLACK


def _written() -> int:
    """How long the nameless file behind descriptor 2 is; 0 where it is something else."""
    try:
        status = os.fstat(2)
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) and status.st_nlink == 0 else 0


def _is_damage(line: bytes, content: bytes) -> bool:
    """Many a webcam fills its good pictures up: a few bytes too many are no damage, nor is padding before the end."""
    stray = STRAY.match(line)
    if stray is None:
        return True
    count, marker = int(stray[1]), int(stray[2], 16)
    if count <= STRAY_HARMLESS or (marker != jpeg.EOI and marker not in jpeg.BARE):
        return False
    end = content.rfind(jpeg.END)
    return marker in jpeg.BARE or len(set(content[end - count // 2 : end])) != 1


def _divisor(layout: Layout, enough: Enough | None) -> int:
    """By how much a frame is shrunk before it is converted: only where that is faster, and into whole pairs of pixels."""
    if enough is None or layout.format not in FASTER_REDUCED:
        return 1
    divisor = enough.reduction(layout.width, layout.height)
    while divisor > 1 and (layout.width % (2 * divisor) or layout.height % (2 * divisor)):
        divisor //= 2
    return divisor


def _converted(data: Picture, layout: Layout, into: Picture | None) -> Picture:
    """The whole frame."""
    width, height, name = layout.width, layout.height, layout.format
    if layout.full_range and name in PAIRED:
        return _from_planes(*_planes(data, layout), into)
    if name == "i420":
        return _from_i420(data, layout, into)
    rows = data.reshape(-1, layout.row_bytes)[:, : width * PIXEL_BYTES[name]]
    if name == "nv12":
        return _colors(rows, cv2.COLOR_YUV2BGR_NV12, (height, width), into)
    if name == "gray8":
        return _colors(rows, cv2.COLOR_GRAY2BGR, (height, width), into)
    if name == "yuyv":
        return _colors(_pixels(rows, 2), cv2.COLOR_YUV2BGR_YUY2, (height, width), into)
    if name == "rgb24":
        return _colors(_pixels(rows, 3), cv2.COLOR_RGB2BGR, (height, width), into)
    target = _target(into, (height, width))
    np.copyto(target, _pixels(rows, 3))
    return target


def _from_i420(data: Picture, layout: Layout, into: Picture | None) -> Picture:
    """OpenCV knows no i420 with padded rows: its U and V are interleaved first, as nv12 has them."""
    width, height, row_bytes = layout.width, layout.height, layout.row_bytes
    if row_bytes == width:
        return _colors(data.reshape(height * 3 // 2, width), cv2.COLOR_YUV2BGR_I420, (height, width), into)
    luma, chroma = data[: row_bytes * height], data[row_bytes * height :]
    rows = np.empty((height * 3 // 2, row_bytes), np.uint8)
    rows[:height] = luma.reshape(height, row_bytes)
    pairs = rows[height:].reshape(height // 2, row_bytes // 2, 2)
    _wrote(pairs, cv2.merge(list(chroma.reshape(2, height // 2, row_bytes // 2)), pairs))
    return _colors(rows[:, :width], cv2.COLOR_YUV2BGR_NV12, (height, width), into)


def _reduced(data: Picture, layout: Layout, divisor: int, into: Picture | None) -> Picture:
    """The frame at one `divisor`th of its size: its planes are shrunk first, since that leaves less to convert."""
    luma, first, second = _planes(data, layout)
    luma, first, second = _shrunk(luma, divisor), _shrunk(first, divisor // 2), _shrunk(second, divisor // 2)
    target = _target(into, luma.shape)
    return _wrote(target, cv2.transform(cv2.merge([luma, first, second]), TO_BGR[layout.full_range], target))


def _planes(data: Picture, layout: Layout) -> tuple[Picture, Picture, Picture]:
    """A YUV frame's three planes: U and V have half the width, and but for yuyv half the height."""
    width, height, row_bytes = layout.width, layout.height, layout.row_bytes
    luma, rest = data[: row_bytes * height].reshape(height, row_bytes)[:, :width], data[row_bytes * height :]
    if layout.format == "i420":
        first, second = rest.reshape(2, height // 2, row_bytes // 2)[:, :, : width // 2]
    elif layout.format == "nv12":
        first, second = _channels(rest.reshape(height // 2, row_bytes)[:, :width], 2)
    else:
        rows = data.reshape(height, row_bytes)[:, : width * 2]
        (luma, _), (_, first, _, second) = _channels(rows, 2), _channels(rows, 4)
    return luma, first, second


def _from_planes(luma: Picture, first: Picture, second: Picture, into: Picture | None) -> Picture:
    """The whole frame of planes of the full range. A value of U or V serves two pixels of a row, and one row or two."""
    height, width = luma.shape
    doubled = [cv2.merge([plane, plane]).reshape(-1, width) for plane in (first, second)]
    target = _target(into, (height, width))
    step = height // len(first)
    for row in range(step):
        rows = target[row::step]
        _wrote(rows, cv2.transform(cv2.merge([luma[row::step], *doubled]), TO_BGR[True], rows))
    return target


def _shrunk(plane: Picture, divisor: int) -> Picture:
    """One plane averaged, by half again and again: OpenCV is quick at that alone."""
    while divisor > 1:
        height, width = plane.shape
        plane = cv2.resize(plane, (width // 2, height // 2), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        divisor //= 2
    return plane


def _pixels(rows: Picture, channels: int) -> Picture:
    """Rows of bytes as rows of pixels, without copying them."""
    height, width = rows.shape
    return np.lib.stride_tricks.as_strided(
        rows, (height, width // channels, channels), (rows.strides[0], channels, 1), writeable=False
    )


def _channels(rows: Picture, count: int) -> tuple[Picture, ...]:
    return tuple(cv2.split(_pixels(rows, count)))  # type: ignore[arg-type]


def _colors(source: Any, code: int, size: tuple[int, ...], into: Picture | None) -> Picture:
    target = _target(into, size)
    return _wrote(target, cv2.cvtColor(source, code, target))


def _target(into: Picture | None, size: tuple[int, ...]) -> Picture:
    shape = (*size, 3)
    return into if into is not None and into.shape == shape else np.empty(shape, np.uint8)


def _wrote(target: AnyArray, result: Any) -> AnyArray:
    """OpenCV leaves a target of the wrong type or shape alone, silently; it hands the target back where it did write to it."""
    if result is not target:
        raise ValueError(f"OpenCV did not write into its target {target.dtype} {list(target.shape)}")
    return target
