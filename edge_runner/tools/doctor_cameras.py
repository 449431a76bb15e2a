"""The doctor's look at cameras: those of this board, and those of the configuration, each tried as the daemon would."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_runner.camera import CAMERAS, access, devices
from edge_runner.camera.base import CameraConfig, LiveConfig, Retry
from edge_runner.camera.child import WORKER
from edge_runner.camera.devices import CsiCamera, Device, Offer, Size
from edge_runner.camera.feed import Feed, make_feed
from edge_runner.camera.live import LiveFeed
from edge_runner.errors import CameraError, EdgeRunnerError, SettingError, blamed
from edge_runner.fields import listed, load
from edge_runner.frame import Enough, Geometry, Picture, Region, Tensor
from edge_runner.service.turns import Lane, Turns
from edge_runner.tools.doctor import LIMIT_S, Board, Finding, Level, hushed
from edge_runner.tools.init import described, rpicam_config, v4l2_config

TICK_S = 0.1
TRIES = 2  # a camera that somebody has just let go may refuse once
RETRY = Retry(first=0.5, max=0.5)
OLD_MS = 1000.0

# What to look at where a camera says nothing, by its type.
SILENT = {
    "v4l2": "look at its cable and its power; `sudo dmesg | tail` may say more",
    "rpicam": "look at the ribbon cable, at both ends and with the power off; then: rpicam-hello --list-cameras",
    "stream": "look at it from another machine, with VLC or ffplay",
    "command": "run the command by hand with `| wc -c` behind it: it has to write frames to its standard output",
}

UNSEEN = "may not see"  # in the words of camera/access.py
CSI_TAKEN = ("in use", "acquire", "busy")  # in libcamera's and rpicam-vid's

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What came of a camera that was tried. Without a `size` there was no frame, and `trouble` says why."""

    took_s: float
    size: tuple[int, int] | None = None
    age_ms: float | None = None
    trouble: str | None = None
    silent: bool = False


class Thumbnail:
    """What stands for a model where there is none: a frame becomes uint8 [1, 8, 8, 3]."""

    shape: tuple[int, ...] = (1, 8, 8, 3)
    dtype: np.dtype[Any] = np.dtype(np.uint8)
    enough = Enough(8, 8)

    def __call__(self, picture: Picture, out: Tensor, crop: Region | None = None) -> Geometry:
        out[0] = cv2.resize(picture, (8, 8), interpolation=cv2.INTER_NEAREST)
        return Geometry(picture.shape[1], picture.shape[0])


def cameras(board: Board) -> Iterator[Finding]:
    """The cameras that are plugged into this board. Those that the configuration names are tried with its settings, later."""
    usb = devices.cameras(board.dev, board.sys)
    csi, unlisted = _csi(board, bool(usb))
    found = [_Found.of_device(each, board) for each in usb] + [_Found.of_csi(each, board) for each in csi]
    outcomes = tried({each.place: each.config for each in found if each.config}, board.limit_s)
    for each in found:
        yield each.finding or judged(
            each.subject, outcomes[each.place], each.config, board, board.severity, each.details
        )
    if unlisted:
        yield unlisted
    if not found:
        yield _no_camera(board)


def configured(board: Board) -> Iterator[Finding]:
    """The cameras of the configuration: all at once, and open together, as the daemon has them."""
    wanted = board.wanted
    said = {key: _not_to_be_tried(key, config, board) for key, config in wanted.items()}
    outcomes = tried({key: config for key, config in wanted.items() if said[key] is None}, board.limit_s, together=True)
    for key, config in wanted.items():
        yield said[key] or judged(f"{config.name} ({config.type})", outcomes[key], config, board, "problem")


def tried(
    configs: Mapping[str, CameraConfig], limit_s: float = LIMIT_S, *, together: bool = False
) -> dict[str, Outcome]:
    """One frame of each camera, all at the same time; with `together`, none is closed before the last is done."""
    outcomes: dict[str, Outcome] = {}
    if configs:
        log.info("trying %d camera%s, for %g s at most", len(configs), "s" if len(configs) > 1 else "", limit_s)
    with ExitStack() as stack, hushed(LiveFeed.__module__):
        started = time.monotonic()
        opened = {key: stack.enter_context(ExitStack()) for key in configs}
        feeds: dict[str, Feed] = {}
        for key, config in configs.items():
            feed = make_feed(_tireless(config), Thumbnail(), exact=True)
            feeds[key] = opened[key].enter_context(feed)
        turns = Turns(feeds)
        troubles: dict[str, str | None] = dict.fromkeys(feeds)
        while turns.lanes:
            lane = turns.next(until=time.monotonic() + TICK_S)
            troubles |= {key: feed.trouble for key, feed in feeds.items() if feed.trouble}
            for done in [lane] if lane else [late for late in turns.lanes if _given_up(late, started, limit_s)]:
                outcomes[done.key] = _outcome(
                    done.feed, time.monotonic() - started, troubles[done.key], lane is not None
                )
                turns.end(done)
                if not together:
                    opened[done.key].close()
    return outcomes


def judged(
    subject: str,
    outcome: Outcome,
    config: CameraConfig | None,
    board: Board,
    severity: Level,
    details: tuple[str, ...] = (),
) -> Finding:
    """The finding on a camera that was tried; `severity` is that of its silence."""
    assert config is not None
    if outcome.size is None:
        return Finding(severity, f"{subject}: {outcome.trouble}", details, tuple(_remedies(outcome, config, board)))
    width, height = outcome.size
    age = f", {outcome.age_ms:.0f} ms old" if outcome.age_ms is not None else ""
    text = f"{subject}: a frame of {width}x{height} after {outcome.took_s:.1f} s{age}"
    doubts = tuple(_doubts(outcome, config))
    return Finding("warning" if doubts else "ok", text, details, doubts)


def _remedies(outcome: Outcome, config: CameraConfig, board: Board) -> Iterator[str]:
    """What helps, where the camera's own words do not say it."""
    trouble = str(outcome.trouble)
    if outcome.silent and config.type in SILENT:
        yield SILENT[config.type]
    if UNSEEN in trouble:
        yield "sudo edge-runner doctor can see which"
    if config.type == "rpicam" and any(sign in trouble for sign in CSI_TAKEN):
        holders = {str(h) for node in board.dev.glob("media*") for h in devices.holders(node, board.proc)}
        who = f"; open now: {listed(sorted(holders))}" if holders else ""
        yield f"libcamera gives a camera to one program at a time{who}"


def _doubts(outcome: Outcome, config: CameraConfig) -> Iterator[str]:
    asked = (getattr(config, "width", None), getattr(config, "height", None))
    if config.rotate in (90, 270):
        asked = asked[::-1]
    if None not in asked and asked != outcome.size:
        yield f"not {asked[0]}x{asked[1]} as asked for: set width and height to a size that it has"
    if outcome.trouble:
        yield f"it failed at first: {outcome.trouble}"
    if outcome.age_ms is not None and outcome.age_ms > OLD_MS:
        yield "its frames come late: something on the way keeps them back"


@dataclass(frozen=True)
class _Found:
    """A camera of this board: where it is, and either the settings to try it with, or what there is to say instead."""

    place: str
    subject: str
    details: tuple[str, ...]
    config: LiveConfig | None = None
    finding: Finding | None = None

    @classmethod
    def of_device(cls, device: Device, board: Board) -> _Found:
        subject = f"{device.path} ({described(device)})"
        links = (f"device: {link}" for link in [devices.identity(device.path, board.dev, board.sys)] if link)
        details = (*links, *(_offer(offer) for offer in device.offers))
        made = cls(device.path, subject, details)
        if device.problem:
            return replace(made, finding=Finding(board.severity, f"{subject}: {_why_closed(device)}", details))
        key = next((k for k, c in board.wanted.items() if c.type == "v4l2" and _same(c, device)), None)
        if said := _spoken_for(subject, details, key, board, _readers(device.path, board)):
            return replace(made, finding=said)
        try:
            config = replace(v4l2_config(device, board.dev, board.sys), name=device.path)
        except CameraError as error:
            return replace(made, finding=Finding(board.severity, str(error), details))
        return replace(made, config=config)

    @classmethod
    def of_csi(cls, camera: CsiCamera, board: Board) -> _Found:
        subject = f"CSI {camera.index} ({camera.name}, {camera.width}x{camera.height})"
        details = (f"modes: {', '.join(map(_size, camera.sizes))}",) if camera.sizes else ()
        made = cls(f"csi {camera.index}", subject, details)
        wanted = board.wanted.items()
        key = next((k for k, c in wanted if c.type == "rpicam" and getattr(c, "device", None) == camera.index), None)
        if said := _spoken_for(subject, details, key, board, _csi_readers(camera.index, board)):
            return replace(made, finding=said)
        config = replace(rpicam_config(camera), name=made.place)
        try:
            load(CAMERAS["rpicam"])(config).verify()
        except SettingError as error:
            return replace(made, finding=Finding(board.severity, f"{subject}: {error}", details))
        return replace(made, config=config)


def _spoken_for(
    subject: str, details: tuple[str, ...], key: str | None, board: Board, readers: list[int]
) -> Finding | None:
    """What to say of a camera that is not tried here: it will be with the configuration, or the daemon has it."""
    if key is not None:
        return Finding("ok", f"{subject}: tried below, as {board.wanted[key].name}", details)
    return _at_work(subject, details, readers)


def _at_work(subject: str, details: tuple[str, ...], readers: list[int]) -> Finding | None:
    if not readers:
        return None
    return Finding("ok", f"{subject}: edge-runner itself (pid {readers[0]}) reads it now; not tried", details)


def _not_to_be_tried(key: str, config: CameraConfig, board: Board) -> Finding | None:
    """What is wrong with a camera's settings, or that it is being read just now; None where it can be tried."""
    camera = load(CAMERAS[config.type])(config)
    try:
        with blamed(key):
            camera.verify()
    except EdgeRunnerError as error:
        assert board.loaded is not None
        return Finding("problem", board.loaded.locate(error))
    readers: list[int] = []
    if config.type == "v4l2":
        readers = _readers(camera.path, board)
    elif config.type == "rpicam":
        readers = _csi_readers(getattr(config, "device", 0), board)
    return _at_work(f"{config.name} ({config.type})", (), readers)


def _tireless(config: CameraConfig) -> CameraConfig:
    """A second try soon."""
    return replace(config, retry=RETRY) if isinstance(config, LiveConfig) else config


def _given_up(lane: Lane, started: float, limit_s: float) -> bool:
    lost = isinstance(lane.feed, LiveFeed) and lane.feed.losses >= TRIES
    return lost or time.monotonic() - started > min(limit_s, lane.feed.config.start_timeout)


def _outcome(feed: Feed, took_s: float, trouble: str | None, shown: bool) -> Outcome:
    """What came of a camera that shows a frame, or was given up."""
    if not shown:
        return Outcome(took_s, trouble=trouble or f"no frame within {took_s:.0f} s", silent=trouble is None)
    try:
        shot = feed.take()
    except EdgeRunnerError as error:
        return Outcome(took_s, trouble=str(error))
    if shot is None:
        return Outcome(took_s, trouble="no frame could be read")
    age_ms = (time.monotonic_ns() - shot.stamp.monotonic_ns) / 1e6 if feed.live else None
    size = shot.geometry.width, shot.geometry.height
    feed.release(shot)
    return Outcome(took_s, size, age_ms, trouble)


def _csi(board: Board, others: bool) -> tuple[list[CsiCamera], Finding | None]:
    """The CSI cameras; or why they cannot be listed, where that matters."""
    try:
        return devices.csi_cameras(), None
    except CameraError as error:
        receiver = any(node.name.startswith(devices.CSI_RECEIVERS) for node in devices.nodes(board.dev, board.sys))
        matters = receiver or (board.is_pi() and not others)
        return [], Finding("warning", f"CSI cameras cannot be seen: {error}") if matters else None


def _no_camera(board: Board) -> Finding:
    if board.loaded:
        return Finding("ok", "no camera is plugged in here, USB or CSI; the configuration's are tried below")
    remedies = (
        "USB: look at its cable and its port; `lsusb` lists it, and `ls /dev/video*` its device",
        "CSI: look at the ribbon cable, at both ends and with the power off; `rpicam-hello --list-cameras` lists it"
        " (sudo apt install rpicam-apps-lite)",
        "network cameras are tried where a configuration names them: edge-runner doctor --config camera.yaml",
    )
    return Finding("problem", "no camera is plugged in here, USB or CSI", (), remedies)


def _why_closed(device: Device) -> str:
    if device.problem == os.strerror(errno.EACCES).lower():
        return access.forbidden(device.path)
    if device.problem == os.strerror(errno.EBUSY).lower():
        return access.busy(device.path)
    return str(device.problem)


def _same(config: CameraConfig, device: Device) -> bool:
    path: str = load(CAMERAS["v4l2"])(config).path
    return os.path.realpath(path) == os.path.realpath(device.path)


def _readers(path: str, board: Board) -> list[int]:
    """The processes of edge-runner that have a device open."""
    return [holder.pid for holder in devices.holders(path, board.proc) if _is_ours(holder.pid, board.proc)]


def _csi_readers(index: int, board: Board) -> list[int]:
    """The rpicam-vid that edge-runner runs for a CSI camera: libcamera opens devices that are not the camera's alone."""
    found = []
    for process in board.proc.glob("[0-9]*"):
        words = _words(process)
        reads = b"rpicam-vid" in words[0] or b"libcamera-vid" in words[0]
        if reads and b"--camera=%d" % index in words and _is_ours(int(process.name), board.proc):
            found.append(int(process.name))
    return found


def _is_ours(pid: int, proc: Path) -> bool:
    """Whether a process, or the one that started it, reads a camera for edge-runner."""
    parent = 0
    with suppress(OSError, ValueError, IndexError):
        parent = int((proc / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[1])
    return any(WORKER.encode() in _words(proc / str(process)) for process in (pid, parent))


def _words(process: Path) -> list[bytes]:
    with suppress(OSError):
        return (process / "cmdline").read_bytes().split(b"\0")
    return [b""]


def _offer(offer: Offer) -> str:
    """A format and its sizes, short enough for a phone."""
    return f"{offer.fourcc}: {', '.join(map(_size, offer.sizes)) or 'any size'}"


def _size(size: Size) -> str:
    return str(size).replace(" at ", "@").removesuffix(" fps")
