"""The Raspberry Pi's own camera, through rpicam-vid: OpenCV from PyPI cannot see it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from edge_runner.camera.base import Height, LiveConfig, Rate, Width
from edge_runner.camera.pixels import Layout
from edge_runner.camera.program import ProgramCamera
from edge_runner.errors import SettingError
from edge_runner.fields import Range

PROGRAMS = ("rpicam-vid", "libcamera-vid")  # its name since Raspberry Pi OS Bookworm, and before
CODECS = {"i420": "yuv420", "mjpeg": "mjpeg"}
# Luma rows are padded to so many bytes. bcm2835-isp of the boards up to the Pi 4 wants 32 in a chroma row, libcamera for the PiSP
# of the Pi 5 takes 64. (The kernel's bcm2835-v4l2-isp.c; libcamera's pisp.cpp, computeOptimalStride.)
ROW_ALIGNMENT, PISP_ROW_ALIGNMENT = 64, 128
PISP_CHIP = b"brcm,bcm2712"

# Options that are this camera's to set, or that would take its output away, and what to set instead.
OURS: dict[str, str] = {
    "width": "width", "height": "height", "framerate": "fps", "camera": "device", "codec": "format",
    "hflip": "flip", "vflip": "flip", "rotation": "rotate",
}  # fmt: skip
NOBODYS = (
    "output", "timeout", "frames", "flush", "inline", "config", "nopreview", "preview", "fullscreen", "qt-preview",
    "segment", "split", "circular", "wrap", "pause", "initial", "signal", "keypress", "listen", "save-pts", "metadata",
    "list-cameras", "help", "version",
)  # fmt: skip
OPTION = re.compile(r"[a-z][a-z0-9]+(-[a-z0-9]+)*")
GIVEN_SIZE = re.compile(r"configuring streams: \(0\) (\d+)x(\d+)-")


@dataclass(frozen=True, kw_only=True)
class RpicamConfig(LiveConfig):
    """The configuration's `camera` of type rpicam. `device` is the camera's index (`rpicam-hello --list-cameras` shows them).

    `options` are rpicam-vid's own, by their long names: {mode: "1640:1232", shutter: 20ms, awb: daylight, no-raw: true}.
    """

    type: Literal["rpicam"] = "rpicam"
    device: Annotated[int, Range(0)] = 0
    format: Literal["i420", "mjpeg"] = "i420"
    width: Width = 1280
    height: Height = 720
    fps: Rate = 30.0
    options: Mapping[str, bool | int | float | str] = field(default_factory=dict)


class Rpicam(ProgramCamera):
    """A live camera of libcamera."""

    Config = RpicamConfig
    device_tree: ClassVar[Path] = Path("/proc/device-tree")

    def argv(self) -> Sequence[str]:
        config = self.config
        program = next(filter(shutil.which, PROGRAMS), PROGRAMS[0])
        fixed = {
            "timeout": 0, "nopreview": True, "flush": True, "camera": config.device, "codec": CODECS[config.format],
            "width": config.width, "height": config.height, "framerate": f"{config.fps:g}",
        }  # fmt: skip
        return [program, *_arguments(fixed), *_arguments(config.options), "--output=-"]

    def layout(self) -> Layout:
        """Its YUV has a JPEG's levels, 0..255, and rows that are padded."""
        if self.config.format == "mjpeg":
            return Layout("mjpeg", 0, 0)
        alignment = PISP_ROW_ALIGNMENT if self._has_pisp() else ROW_ALIGNMENT
        stride = -(-self.config.width // alignment) * alignment
        return Layout("i420", self.config.width, self.config.height, stride, full_range=True)

    def heard(self, line: str) -> None:
        """Refuse a size that libcamera gives instead of one that the sensor has not: raw frames would roll."""
        given = GIVEN_SIZE.search(line)
        if given and (int(given[1]), int(given[2])) != (self.config.width, self.config.height):
            self.refused = (
                f"camera {self.config.device} gives {given[1]}x{given[2]} where {self.config.width}x{self.config.height}"
                " was asked for: set width and height to a size that it has"
            )

    def rolls(self, warning: str) -> None:
        self.refused = f"{warning}; a width that is a multiple of {PISP_ROW_ALIGNMENT} has no padding that could differ"

    def verify(self) -> None:
        if not any(map(shutil.which, PROGRAMS)):
            raise SettingError(
                "neither rpicam-vid nor libcamera-vid is installed: sudo apt install rpicam-apps-lite"
                " (before Raspberry Pi OS Bookworm: libcamera-apps-lite)",
                key="type",
            )
        for name in self.config.options:
            _check_option(name)
        try:
            self.layout()
        except ValueError as error:
            raise SettingError(str(error), key="height" if "odd height" in str(error) else "width") from None

    def _has_pisp(self) -> bool:
        try:
            return PISP_CHIP in (self.device_tree / "compatible").read_bytes().split(b"\0")
        except OSError:
            return False

    def describe(self) -> str:
        return f"{super().describe()} at {self.config.fps:g} a second, camera {self.config.device}"


def _arguments(options: Mapping[str, bool | int | float | str]) -> list[str]:
    """With `=`, since a value of its own may begin with a dash. What is false is left out."""
    switches = {name: f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()}
    return [switches[name] for name, value in options.items() if value is not False]


def _check_option(name: str) -> None:
    """The program takes abbreviations too: `wid` is its width."""
    key = f"options.{name}"
    if not OPTION.fullmatch(name):
        raise SettingError(
            f"'{name}' is no option of rpicam-vid: they are written tuning-file, without dashes before", key=key
        )
    for option, instead in OURS.items():
        if option.startswith(name):
            raise SettingError(f"the camera sets --{option} itself: use the camera's {instead}", key=key)
    for option in NOBODYS:
        if option.startswith(name):
            raise SettingError(f"--{option} cannot be set: the camera needs the program's frames as they come", key=key)
