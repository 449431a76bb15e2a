"""Pictures from files: one, a folder's, or a glob's, in natural order."""

from __future__ import annotations

import glob
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from edge_runner.camera.base import Camera, CameraConfig, Grab, now
from edge_runner.camera.pixels import decode
from edge_runner.errors import SettingError
from edge_runner.fields import InputPath
from edge_runner.frame import Enough, Picture, Stamp

log = logging.getLogger(__name__)

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, kw_only=True)
class ImagesConfig(CameraConfig):
    """The configuration's `camera` of type images."""

    type: Literal["images"] = "images"
    path: Annotated[Path, InputPath("pictures")]
    loop: bool = False


class Images(Camera):
    """One frame a file. A file that cannot be read is named, skipped and counted; its number stays its own."""

    Config = ImagesConfig

    def __init__(self, config: ImagesConfig) -> None:
        super().__init__(config)
        self._files: list[Path] = []
        self._next = 0
        self._readable = False
        self._warned: set[Path] = set()

    def verify(self) -> None:
        if not self._found():
            raise SettingError(
                f"{self.config.path} holds no pictures; a picture's name ends with one of {' '.join(SUFFIXES)}",
                key="path",
            )

    def open(self) -> None:
        self.verify()
        self._files = self._found()
        self._next = 0

    def grab(self) -> Grab | None:
        if self._next == len(self._files):
            if not self.config.loop or not self._readable:
                return None
            self._next, self._readable = 0, False
        self._next += 1
        path = self._files[self._next - 1]
        return _File(now(self._next, path.name), path, self)

    def note(self, path: Path, why: str | None) -> None:
        """A file was read, or `why` not."""
        if why is None:
            self._readable = True
            return
        self.skipped += 1
        level = logging.DEBUG if path in self._warned else logging.WARNING
        log.log(level, "%s: skipped: %s", path, why)
        self._warned.add(path)

    def _found(self) -> list[Path]:
        try:
            return find_pictures(self.config.path)
        except OSError as error:
            raise SettingError(f"{self.config.path}: {(error.strerror or str(error)).lower()}", key="path") from error


class _File(Grab):
    def __init__(self, stamp: Stamp, path: Path, images: Images) -> None:
        super().__init__(stamp)
        self._path, self._images = path, images

    def decode(self, into: Picture | None, enough: Enough | None = None) -> Picture | None:
        try:
            picture = decode(self._path.read_bytes())
            why = "it is damaged, cut short, or no picture"
        except OSError as error:
            picture, why = None, (error.strerror or str(error)).lower()
        self._images.note(self._path, why if picture is None else None)
        return picture


def find_pictures(path: Path) -> list[Path]:
    """The pictures that a path means, in natural order: a file itself, a folder's by their endings, all that a glob matches."""
    if path.is_dir():
        found = [
            f for f in path.iterdir() if f.suffix.lower() in SUFFIXES and f.is_file() and not f.name.startswith(".")
        ]
    elif path.exists():
        return [path]
    else:
        found = [Path(f) for f in glob.glob(str(path), recursive=True) if Path(f).is_file()]
    return sorted(found, key=_natural)


def _natural(path: Path) -> tuple[list[tuple[int, int | str]], str]:
    """A key that puts frame2 before frame10, and A before a."""
    parts = re.split(r"(\d+)", str(path).lower())
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part], str(path)
