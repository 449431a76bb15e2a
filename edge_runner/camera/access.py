"""Opens a video device, or says why that cannot be and what helps: it is not there, not allowed, in use, or no camera."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat

from edge_runner.camera import devices
from edge_runner.errors import CameraError
from edge_runner.fields import listed

MAY_USE = 0o060  # what a group needs

KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISREG, "a file"),
    (stat.S_ISBLK, "a disk"),
    (stat.S_ISCHR, "another kind of device"),
)


def open_device(path: str) -> int:
    """The open video device, whose calls do not wait. Raise CameraError."""
    try:
        if not devices.is_video_device(path):
            raise CameraError(f"{path} is {_kind(path)}, no camera; {cameras_there()}")
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except CameraError:
        raise
    except OSError as error:
        raise CameraError(_refusal(path, error)) from None


def _refusal(path: str, error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO):
        return f"{path} is not there; {cameras_there()}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return forbidden(path)
    if error.errno == errno.EBUSY:
        return busy(path)
    return f"{path} cannot be opened: {words(error)}"


def forbidden(path: str) -> str:
    """Why this user may not use a device, and what would help."""
    try:
        what = os.stat(path)
    except OSError as error:
        return f"{path}: {words(error)}: a folder above it is closed to this user"
    if os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        return f"{path} is forbidden, though not by its permissions: by a container, or by a unit's DevicePolicy"
    user, group, mode = _user(), _group(what.st_gid), stat.S_IMODE(what.st_mode)
    if mode & MAY_USE != MAY_USE or what.st_gid in (*os.getgroups(), os.getegid()):
        return f"user '{user}' may not read and write {path}: its mode is {mode:04o}, its group '{group}'"
    if user in _members(what.st_gid):
        return f"{path} belongs to the group '{group}'; user '{user}' has joined it since logging in: log in again"
    join = f"sudo usermod -aG {group} {user}"
    return f"{path} belongs to the group '{group}', and user '{user}' is not in it: {join}, then log in again"


def busy(path: str) -> str:
    """Who has the device."""
    holders = devices.holders(path)
    return f"{path} is in use by {listed(map(str, holders)) if holders else 'a program that this user may not see'}"


def cameras_there() -> str:
    """What could be meant instead."""
    found = [str(camera) for camera in devices.cameras()]
    return f"cameras here: {', '.join(found)}" if found else "there is no camera here that Video4Linux knows"


def words(error: OSError) -> str:
    """What the system says."""
    return (error.strerror or str(error)).lower()


def _kind(path: str) -> str:
    mode = os.stat(path).st_mode
    return next((kind for is_one, kind in KINDS if is_one(mode)), "something else")


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _members(number: int) -> list[str]:
    try:
        return grp.getgrgid(number).gr_mem
    except KeyError:
        return []
