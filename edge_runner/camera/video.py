"""Frames from a video file, any that OpenCV's FFmpeg reads."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import cv2

from edge_runner.camera.base import Camera, CameraConfig, now
from edge_runner.errors import SettingError
from edge_runner.fields import InputPath
from edge_runner.frame import Picture, Stamp

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

    def grab(self) -> Stamp | None:
        assert self._capture is not None
        if not self._capture.grab():
            if not self._at_end():
                return None
            if not self._capture.grab():
                return None
        self._number += 1
        return now(self._number, self.config.path.name)

    def retrieve(self, into: Picture | None) -> Picture | None:
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

    def _at_end(self) -> bool:
        """Say what is missing of a file that was cut short; begin again where that is wanted. True: there may be more."""
        assert self._capture is not None
        promised = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if promised > self._number + max(FRAMES_UNSURE, promised // 100):
            log.warning(
                "%s: ended after %d of %d frames; it is damaged, or cut short", self.config.path, self._number, promised
            )
        if not self.config.loop or self._number == 0:
            return False
        self.close()
        self.open()
        return True
