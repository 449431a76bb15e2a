"""Why a device cannot be used, in one line that helps."""

from __future__ import annotations

import grp
import os
import pwd
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_runner.camera import access, devices
from edge_runner.camera.devices import Device, Holder
from edge_runner.errors import CameraError


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cameras, one of which has a link."""
    found = [Device("/dev/video0", "C920", by_id="/dev/v4l/by-id/c920"), Device("/dev/video4", "Cheap")]
    monkeypatch.setattr(devices, "cameras", lambda: found)


@pytest.mark.parametrize("path", ["/dev/video99", "/dev/v4l/by-id/gone", "/dev/null/video0"])
@pytest.mark.usefixtures("here")
def test_not_there(path: str) -> None:
    """What is not there is said together with what is."""
    with pytest.raises(CameraError) as raised:
        access.open_device(path)
    there = "cameras here: /dev/video0 (C920, /dev/v4l/by-id/c920), /dev/video4 (Cheap)"
    assert str(raised.value) == f"{path} is not there; {there}"


def test_no_camera_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without cameras is said to be one."""
    monkeypatch.setattr(devices, "cameras", list)
    assert access.cameras_there() == "there is no camera here that Video4Linux knows"


@pytest.mark.usefixtures("here")
class TestNoCamera:
    def test_file_and_folder(self, tmp_path: Path) -> None:
        """A file or a folder is called so, and not opened."""
        (tmp_path / "clip.mp4").write_bytes(b"")
        for path, what in ((tmp_path, "a folder"), (tmp_path / "clip.mp4", "a file")):
            with pytest.raises(CameraError, match=f"^{path} is {what}, no camera; cameras here: "):
                access.open_device(str(path))

    def test_other_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another kind of device is not even opened: opening some of them does something."""
        monkeypatch.setattr(os, "open", lambda *_: pytest.fail("it was opened"))
        with pytest.raises(CameraError, match=r"^/dev/null is another kind of device, no camera; "):
            access.open_device("/dev/null")


class TestForbidden:
    @pytest.fixture
    def ask(self) -> Iterator[Callable[..., str]]:
        """What another user, a member of these groups, is told."""
        if os.getuid() != 0:
            pytest.skip("only root can become somebody else")
        groups = os.getgroups()

        def become_root() -> None:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)

        def become(path: Path, user: int, *groups: int) -> str:
            os.setgroups(groups)
            os.setegid(user)
            os.seteuid(user)
            try:
                return access.forbidden(str(path))
            finally:
                become_root()

        yield become
        become_root()

    @pytest.fixture
    def device(self, tmp_path: Path) -> Path:
        """A file as udev makes a video device: of the group video."""
        for folder in (tmp_path, *tmp_path.parents[:-2]):
            folder.chmod(0o755)
        path = tmp_path / "video0"
        path.write_bytes(b"")
        path.chmod(0o660)
        try:
            os.chown(path, 0, grp.getgrnam("video").gr_gid)
        except (KeyError, PermissionError):
            pytest.skip("there is no group 'video', or only root may give it files")
        return path

    def test_group(self, device: Path, ask: Callable[..., str]) -> None:
        """Whoever lacks the device's group is told how to join it."""
        user = pwd.getpwnam("nobody")
        assert ask(device, user.pw_uid) == (
            f"{device} belongs to the group 'video', and user 'nobody' is not in it:"
            " sudo usermod -aG video nobody, then log in again"
        )

    def test_user_without_a_name(self, device: Path, ask: Callable[..., str]) -> None:
        """A user that no file knows is a number."""
        assert "and user '54321' is not in it" in ask(device, 54321)

    def test_member(self, device: Path, ask: Callable[..., str]) -> None:
        """With the group it is not the permissions that forbid it."""
        assert "is forbidden, though not by its permissions" in ask(device, 54321, device.stat().st_gid)

    def test_mode(self, device: Path, ask: Callable[..., str]) -> None:
        """Where the group would not help, mode and group are said."""
        device.chmod(0o600)
        assert ask(device, 54321) == (
            f"user '54321' may not read and write {device}: its mode is 0600, its group 'video'"
        )

    def test_closed_folder(self, device: Path, ask: Callable[..., str]) -> None:
        """A folder that is closed is not mistaken for the device."""
        device.parent.chmod(0o700)
        assert ask(device, 54321) == (f"{device}: permission denied: a folder above it is closed to this user")

    def test_joined_since(self, device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever has joined the group since the login is told to log in again."""
        monkeypatch.setattr(access, "_user", lambda: "pi")
        monkeypatch.setattr(access, "_members", lambda _: ["pi"])
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
        monkeypatch.setattr(os, "getgroups", list)
        assert access.forbidden(str(device)) == (
            f"{device} belongs to the group 'video'; user 'pi' has joined it since logging in: log in again"
        )

    def test_opening_says_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A device that may not be opened is refused with these words."""
        monkeypatch.setattr(devices, "is_video_device", lambda _: True)
        monkeypatch.setattr(access, "forbidden", lambda path: f"{path} is forbidden")

        def refuse(*_: object) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(CameraError, match=r"^/dev/null is forbidden$"):
            access.open_device("/dev/null")


@pytest.mark.parametrize(
    ("holders", "says"),
    [
        ([Holder(12, "motion")], "motion (pid 12)"),
        ([Holder(12, "motion"), Holder(31, "ffmpeg")], "motion (pid 12) and ffmpeg (pid 31)"),
        ([], "a program that this user may not see"),
    ],
)
def test_busy(monkeypatch: pytest.MonkeyPatch, holders: list[Holder], says: str) -> None:
    """Who has the device is said, as far as that can be seen."""
    monkeypatch.setattr(devices, "holders", lambda _: holders)
    assert re.fullmatch(re.escape(f"/dev/video0 is in use by {says}"), access.busy("/dev/video0"))
