"""Frames from a video file, any that OpenCV's FFmpeg reads."""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import cv2

from edge_runner.camera.base import Camera, CameraConfig, Grab, now
from edge_runner.errors import SettingError
from edge_runner.fields import InputPath
from edge_runner.frame import Enough, Picture, Stamp

MP4_BOXES = (
    b"ftyp",
    b"styp",
    b"moov",
    b"mdat",
    b"moof",
    b"mfra",
    b"sidx",
    b"free",
    b"skip",
    b"wide",
    b"udta",
    b"uuid",
    b"meta",
)
FRAMES_UNSURE = 2  # a container's frame count is often an estimate

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class VideoConfig(CameraConfig):
    """The configuration's `camera` of type video."""

    type: Literal["video"] = "video"
    path: Annotated[Path, InputPath("file")]
    loop: bool = False


class Video(Camera):
    """Every frame of the file, as fast as they are wanted; upright as the file's own rotation says."""

    Config = VideoConfig

    def __init__(self, config: VideoConfig) -> None:
        super().__init__(config)
        self._capture: cv2.VideoCapture | None = None
        self._number = 0
        self._torn: int | None = None
        self._warned = False

    def verify(self) -> None:
        self.open()
        self.close()

    def open(self) -> None:
        if self._capture is not None:
            return
        capture = cv2.VideoCapture(str(self.config.path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise SettingError(f"{self.config.path} is no video that OpenCV can read", key="path")
        self._capture, self._number = capture, 0
        self._torn = _last_frame(self.config.path) if cut_short(self.config.path) else None

    def grab(self) -> Grab | None:
        assert self._capture is not None
        if not self._more():
            if not self._at_end():
                return None
            if not self._more():
                return None
        self._number += 1
        return _VideoFrame(now(self._number, self.config.path.name), self)

    def retrieve(self, into: Picture | None) -> Picture | None:
        """The frame that was grabbed last."""
        assert self._capture is not None
        ok, picture = self._capture.retrieve(into) if into is not None else self._capture.retrieve()
        if ok:
            return picture  # type: ignore[return-value]
        self.skipped += 1
        log.warning("%s: frame %d skipped: it cannot be decoded", self.config.path, self._number)
        return None

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _more(self) -> bool:
        assert self._capture is not None
        return self._number + 1 != self._torn and self._capture.grab()

    def _at_end(self) -> bool:
        """Say what is missing of a file that was cut short; begin again where that is wanted. True: there may be more."""
        assert self._capture is not None
        promised = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if self._torn or promised > self._number + max(FRAMES_UNSURE, promised // 100):
            level = logging.DEBUG if self._warned else logging.WARNING
            said = "%s: ended after %d of %d frames; it is damaged, or cut short"
            log.log(level, said, self.config.path, self._number, promised)
            self._warned = True
        if not self.config.loop or self._number == 0:
            return False
        self.close()
        self.open()
        return True


class _VideoFrame(Grab):
    def __init__(self, stamp: Stamp, video: Video) -> None:
        super().__init__(stamp)
        self._video = video

    def decode(self, into: Picture | None, enough: Enough | None = None) -> Picture | None:
        return self._video.retrieve(into)


def cut_short(path: Path) -> bool:
    """Whether an AVI or MP4 file is shorter than its headers say. Its last frame is torn, and FFmpeg passes it for good.

    Both are a row of blocks with their lengths: RIFF's chunks, and the boxes of ISO/IEC 14496-12.
    """
    size, position, step = path.stat().st_size, 0, 1
    with path.open("rb") as file:
        head = file.read(8)
        length = _chunk_length if head.startswith(b"RIFF") else _box_length if head.endswith(b"ftyp") else None
        while length and step and position < size:
            file.seek(position)
            step = length(file.read(16).ljust(16, b"\0"))
            position += step
    return position > size


def _chunk_length(head: bytes) -> int:
    """A chunk's length in bytes, 0 where something else follows the RIFF chunks."""
    name, length = struct.unpack_from("<4sI", head)
    return 8 + int(length) if name == b"RIFF" else 0


def _box_length(head: bytes) -> int:
    """A box's length in bytes, 0 where it reaches to the end of the file, or is no box: something else may follow the last."""
    length, name, long_length = struct.unpack(">I4sQ", head)
    length = int(long_length if length == 1 else length)
    return length if length >= 8 and name in MP4_BOXES else 0


def _last_frame(path: Path) -> int:
    """The number of a file's last frame, counted without decoding."""
    capture, count = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), 0
    capture.set(cv2.CAP_PROP_FORMAT, -1)
    while capture.grab():
        count += 1
    capture.release()
    return count
