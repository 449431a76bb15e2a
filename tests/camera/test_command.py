"""A camera that is a program of the user's: what its settings must be, and one that is really there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from edge_runner.camera.command import Command, CommandConfig
from edge_runner.config import check
from edge_runner.errors import ConfigError, SettingError


def camera(**settings: Any) -> Command:
    given = {"command": (sys.executable,), "format": "i420", "width": 640, "height": 480, **settings}
    return Command(CommandConfig(**given))


def refusal(**settings: Any) -> tuple[str, str | None]:
    with pytest.raises(SettingError) as caught:
        camera(**settings).verify()
    return str(caught.value), caught.value.key


def test_good_settings() -> None:
    """A program in PATH or at a path, and a size that the format can have, are all that it needs; a JPEG needs no size."""
    camera().verify()
    camera(command=("sh", "-c", "exit")).verify()
    camera(format="mjpeg", width=None, height=None).verify()
    camera(format="mjpeg").verify()
    camera(format="bgr24", width=641, height=479).verify()
    camera(format="yuyv", height=479).verify()


def test_program_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is not installed is named, with where it was looked for."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal(command=("ffmpeg", "-i", "x")) == (f"no program 'ffmpeg' is in PATH ({tmp_path})", "command")
    (tmp_path / "grab").write_text("#!/bin/sh\n")
    assert refusal(command=(f"{tmp_path}/grab",)) == (f"no program '{tmp_path}/grab' can be run", "command")
    (tmp_path / "grab").chmod(0o755)
    camera(command=("grab",)).verify()


@pytest.mark.parametrize("key", ["width", "height"])
def test_size_is_missing(key: str) -> None:
    """Raw frames need a size."""
    assert refusal(**{key: None}) == (f"frames of i420 do not say their {key}: it must be set", key)


@pytest.mark.parametrize(
    ("name", "width", "height", "key"),
    [("i420", 641, 480, "width"), ("nv12", 640, 481, "height"), ("yuyv", 641, 481, "width")],
)
def test_odd_size(name: str, width: int, height: int, key: str) -> None:
    """A size that the format cannot have is refused."""
    message, blamed = refusal(format=name, width=width, height=height)
    assert f"{name} has pairs of" in message
    assert f"{width}x{height} has an odd {key}" in message
    assert blamed == key


def test_settings_as_they_are_read() -> None:
    """The command is a list with its program; a line for a shell is refused, and so is a format that is none."""
    good = {"type": "command", "command": ["cat", "/dev/zero"], "format": "gray8", "width": 64, "height": 48}
    assert check(good, CommandConfig, "camera.yaml").command == ("cat", "/dev/zero")
    for wrong in ({"command": []}, {"command": "cat /dev/zero"}, {"format": "h264"}, {"width": 8}):
        with pytest.raises(ConfigError):
            check({**good, **wrong}, CommandConfig, "camera.yaml")


def test_real_program() -> None:
    """Frames of a program of the system, and what was opened in words."""
    with camera(command=("cat", "/dev/zero"), format="gray8", width=64, height=48) as subject:
        assert subject.describe() == "cat: gray8, 64x48"
        for number in range(1, 10):
            frame = subject.grab()
            assert frame is not None
            assert frame.stamp.number == number
            picture = frame.decode(None)
            assert picture is not None
            assert picture.shape == (48, 64, 3)
            assert not picture.any()
            frame.release()
