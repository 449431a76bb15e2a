"""Frames as JPEG files, plain or with the answers drawn in, at most one in a while, in a folder that has a quota."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import cv2

from edge_runner.errors import OutputError
from edge_runner.fields import Duration, OutputPath, Range, Size
from edge_runner.frame import Picture, Shot
from edge_runner.output.base import Item, Origin, Output, OutputConfig
from edge_runner.output.quota import Quota, file_stem
from edge_runner.output.when import When
from edge_runner.result import Result

KIND, SUFFIX, DRAWN = "snapshot", ".jpg", "-drawn"


@dataclass(frozen=True)
class SnapshotsConfig(OutputConfig):
    """The configuration's output of type snapshots. `path` is a folder; where its files exceed `max_total` bytes, the oldest go.

    `quality` is JPEG's, `min_interval` seconds from one snapshot of a camera to its next.
    """

    type: Literal["snapshots"] = "snapshots"
    path: Annotated[Path, OutputPath()] = field(kw_only=True)
    picture: Literal["plain", "drawn", "both"] = "plain"
    quality: Annotated[int, Range(1, 100)] = 90
    min_interval: Duration = 5.0
    max_total: Annotated[Size, Range(0, above=True)] = 256 * 10**6


class Snapshots(Output):
    """One file a result, or two; the result names the plain one where there is one."""

    Config = SnapshotsConfig
    QUEUE = 4  # pictures are large
    saves = True
    takes_pictures = True

    def __init__(self, config: SnapshotsConfig) -> None:
        super().__init__(config)
        self.config: SnapshotsConfig = config
        self._files = Quota(config.path, SUFFIX, config.max_total, durable=True)

    @property
    def when(self) -> When | None:
        """The interval is the longer of the two: the output's own is there so that no card is filled by a slip."""
        given = self.config.when or When()
        return given.at_most_each(self.config.min_interval)

    def verify(self) -> None:
        self._files.verify()

    def open(self, origin: Origin) -> None:
        self._files.open()
        self._draw = origin.draw

    def take(self, result: Result, shot: Shot) -> Item | None:
        stem = file_stem(result)
        name = f"{stem}{DRAWN if self.config.picture == 'drawn' else ''}{SUFFIX}"
        return Item(result, picture=shot.picture.copy(), saved={KIND: name})

    def write(self, item: Item) -> None:
        assert item.picture is not None
        stem = file_stem(item.result)
        if self.config.picture != "drawn":
            self._files.save(stem + SUFFIX, self._encoded(item.picture))
        if self.config.picture != "plain":
            self._draw(item.picture, item.result.answers)
            self._files.save(stem + DRAWN + SUFFIX, self._encoded(item.picture))

    def _encoded(self, picture: Picture) -> bytes:
        done, encoded = cv2.imencode(SUFFIX, picture, [cv2.IMWRITE_JPEG_QUALITY, self.config.quality])
        if not done:
            raise OutputError(f"{self.config.path}: OpenCV cannot write this picture")
        return encoded.tobytes()
