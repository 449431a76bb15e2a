"""Any program that writes raw frames or JPEGs to its standard output: ffmpeg, GStreamer, a vendor's tool, a script."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from edge_runner.camera.base import Height, LiveConfig, Width
from edge_runner.camera.pixels import Format, Layout
from edge_runner.camera.program import ProgramCamera
from edge_runner.errors import SettingError
from edge_runner.fields import Length


@dataclass(frozen=True, kw_only=True)
class CommandConfig(LiveConfig):
    """The configuration's `camera` of type command. `command` is the program and its arguments; no shell reads them.

    `width` and `height` are of the frames; a JPEG says its size itself.
    """

    type: Literal["command"] = "command"
    command: Annotated[tuple[str, ...], Length(1)]
    format: Format
    width: Width | None = None
    height: Height | None = None


class Command(ProgramCamera):
    """A live camera that is a program of the user's."""

    Config = CommandConfig

    def argv(self) -> Sequence[str]:
        command: tuple[str, ...] = self.config.command
        return command

    def layout(self) -> Layout:
        return Layout(self.config.format, self.config.width or 0, self.config.height or 0)

    def verify(self) -> None:
        program = self.config.command[0]
        if shutil.which(program) is None:
            where = "can be run" if os.sep in program else f"is in PATH ({os.environ.get('PATH', os.defpath)})"
            raise SettingError(f"no program '{program}' {where}", key="command")
        for key in ("width", "height"):
            if self.config.format != "mjpeg" and getattr(self.config, key) is None:
                raise SettingError(f"frames of {self.config.format} do not say their {key}: it must be set", key=key)
        try:
            self.layout()
        except ValueError as error:
            raise SettingError(str(error), key="height" if "odd height" in str(error) else "width") from None
