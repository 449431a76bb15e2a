"""`edge-runner init`: a first configuration, from the cameras that are there and a model.

Nothing is guessed that could silently be wrong: what only the user can know is left out, and said.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runner.camera import devices
from edge_runner.camera.base import LiveConfig
from edge_runner.camera.devices import DEV, SYS, CsiCamera, Device
from edge_runner.camera.rpicam import RpicamConfig
from edge_runner.camera.v4l2 import V4l2Config, choose
from edge_runner.errors import CameraError, EdgeRunnerError, OutputError

if TYPE_CHECKING:
    from edge_runner.model.bundle import Model, ModelConfig

STANDARD_OUTPUT = "-"
PLACEHOLDER = "CHANGE-ME"
WIDTH, HEIGHT, FPS = 1280, 720, 30.0  # more than a model's input mostly is, and little enough for a small board
SLUGGISH_FPS = 10.0  # a size that comes no faster is taken only where there is no other
LEAST_PX, MOST_WIDTH, MOST_HEIGHT = 16, 7680, 4320
COLUMN = 30  # where the comments stand

PATTERN = """\
camera:
  type: pattern                 # a moving test picture: no camera was found here
# When there is a camera, one of these instead (docs/cameras.md):
#  type: v4l2                   # a USB camera
#  device: /dev/v4l/by-id/…     # its link there: `edge-runner doctor` says it
#
#  type: rpicam                 # the Raspberry Pi's own camera
#  device: 0                    # its index: rpicam-hello --list-cameras
#
#  type: stream                 # a network camera: rtsp, or MJPEG over http
#  url: rtsp://user:${CAM_PASSWORD}@host/stream    # the password stands in FILE.env beside FILE.yaml
#
#  type: command                # any program that writes frames to its standard output
#  command: [ffmpeg, …]
"""
RECIPE = """
# How a picture becomes the model's input. The .tflite does not say it, and with wrong values it answers nonsense without any
# error: fill in what it was trained with, and take the # away. configs/reference.yaml lists what is usual.
#preprocess:
#  color: rgb                   # rgb | bgr | gray
#  mean: …                      # the model sees (x - mean) / std, with x in 0..255
#  std: …
"""
OUTPUTS = """
outputs:
  - type: console               # a line a result on the terminal
#  - {type: jsonl, path: results.jsonl}    # a line of JSON a result in a file beside this one
"""


OUTPUTS_OF_SERVICE = """
outputs:
  - type: console               # the journal: what changes
  - {type: jsonl, path: results.jsonl}    # a line of JSON a result; for a service, in /var/log/edge-runner/NAME
"""


@dataclass(frozen=True)
class Found:
    """A camera of this board: a name for it, the settings that suit it, or why there are none, and what it can do, in words."""

    name: str
    told: str
    config: LiveConfig | None
    trouble: str = ""


@dataclass(frozen=True)
class Draft:
    """A configuration's text, what is still to be filled in, and how many cameras it has."""

    text: str
    missing: tuple[str, ...]
    cameras: tuple[str, ...]


def init(target: str, model: Path | None, dev: Path = DEV, sys: Path = SYS) -> Draft:
    """Write a configuration to the file `target`, which must not be there yet, or to nowhere where that is `-`.

    Raise OutputError where it cannot be written, ModelError where the model is none.
    """
    path = None if target == STANDARD_OUTPUT else Path(target)
    if path is not None:
        check_target(path)
    draft = compose(model, found_cameras(dev, sys), path.parent if path else None)
    if path is not None:
        _write(path, draft.text)
    return draft


def next_steps(draft: Draft, target: str) -> Iterator[str]:
    """Lines on what to do with it."""
    name = "camera.yaml" if target == STANDARD_OUTPUT else shlex.quote(target)
    if target != STANDARD_OUTPUT:
        yield f"{name} is written"
    for missing in draft.missing:
        yield f"to be filled in: {missing}"
    which = f" --camera {shlex.quote(draft.cameras[0])}" if len(draft.cameras) > 1 else ""
    yield "then:" if draft.missing else "next:"
    yield f"  edge-runner check --config {name}"
    yield f"  edge-runner snapshot --config {name}{which} -o aim.jpg"


def check_target(path: Path) -> None:
    """Raise OutputError where no new file can be written."""
    if os.path.lexists(path):
        raise OutputError(f"{path} is there already, and is not overwritten: name another file, or remove it")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: {path.parent} is no folder")


def found_cameras(dev: Path = DEV, sys: Path = SYS) -> list[Found]:
    """Every camera of this board, each under a name of its own."""
    csi: list[CsiCamera] = []
    with suppress(CameraError):  # no program for them: no Raspberry Pi, or none set up for a camera
        csi = devices.csi_cameras()
    found = [_usb(device, dev, sys) for device in devices.cameras(dev, sys)]
    found += [Found(slug(camera.name), described(camera), rpicam_config(camera)) for camera in csi]
    return list(_named_apart(found))


def v4l2_config(device: Device, dev: Path = DEV, sys: Path = SYS) -> V4l2Config:
    """Settings for a camera, with a size that it has. Raise CameraError where it has no format that can be decoded."""
    width, height, fps = _fitting(device)
    lasting = devices.identity(device.path, dev, sys) or device.path
    return V4l2Config(device=lasting, width=width, height=height, fps=fps)


def rpicam_config(camera: CsiCamera) -> RpicamConfig:
    """Settings for a CSI camera. libcamera scales to any even size up to the sensor's."""
    width, height = min(WIDTH, camera.width), min(HEIGHT, camera.height)
    return RpicamConfig(device=camera.index, width=width - width % 2, height=height - height % 2)


def described(camera: Device | CsiCamera) -> str:
    """What a camera is, in one line."""
    what = camera.name if isinstance(camera, Device) else f"CSI camera {camera.name}, {camera.width}x{camera.height}"
    return _one_line(what) or "a camera without a name"


def slug(name: str) -> str:
    """A name for the results, out of a device's own: `USB2.0 Camera: HD` is usb2-0-camera-hd."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower())[:24].strip("-")
    return plain if re.match(r"[a-z].{2}", plain) else f"camera-{plain}".rstrip("-")


def compose(model: Path | None, found: Iterable[Found], folder: Path | None) -> Draft:
    """The configuration's text. Paths in it are relative to `folder`, where there is one."""
    from edge_runner.model.bundle import open_model

    found = list(found)
    opened = open_model(_chosen(model)) if model is not None else None
    model_text, missing = _model(model, opened, folder)
    text = "".join(
        ["# A first configuration. Every key there is: configs/reference.yaml\n", _cameras(found), model_text]
    )
    names = tuple(each.name for each in found if each.config)
    return Draft(text + (OUTPUTS_OF_SERVICE if model and _installed(model) else OUTPUTS), tuple(missing), names)


def _chosen(model: Path) -> ModelConfig:
    """A file or a folder that is there, or an installed model's name."""
    from edge_runner.model.bundle import ModelConfig

    return ModelConfig(name=str(model)) if _installed(model) else ModelConfig(model)


def _installed(model: Path) -> bool:
    from edge_runner.model.store import Store

    return not model.exists() and str(model) in Store().names()


def _usb(device: Device, dev: Path, sys: Path) -> Found:
    try:
        if device.problem:
            raise CameraError(device.problem)
        return Found(slug(device.name), described(device), v4l2_config(device, dev, sys))
    except CameraError as error:
        return Found(slug(device.name), f"{described(device)}, {device.path}", None, str(error))


def _named_apart(found: Iterable[Found]) -> Iterator[Found]:
    seen: dict[str, int] = {}
    for each in found:
        seen[each.name] = count = seen.get(each.name, 0) + 1
        yield each if count == 1 else Found(f"{each.name}-{count}", each.told, each.config, each.trouble)


def _fitting(device: Device) -> tuple[int, int, float]:
    """Width, height and frames a second: the largest up to 1280x720 that comes fast enough, or what is next to that."""
    fourcc = choose(device.offers, "auto", device.path)
    best: tuple[tuple[bool, bool, int], tuple[int, int, float]] | None = None
    for size in next(offer.sizes for offer in device.offers if offer.fourcc == fourcc):
        width = min(max(WIDTH, size.width), size.max_width)
        height = min(max(HEIGHT, size.height), size.max_height)
        if LEAST_PX <= width <= MOST_WIDTH and LEAST_PX <= height <= MOST_HEIGHT:
            fits, fps = width <= WIDTH and height <= HEIGHT, size.fps or FPS
            worth = (fps >= SLUGGISH_FPS, fits, width * height if fits else -width * height)
            if best is None or worth > best[0]:
                best = worth, (width, height, min(FPS, fps))
    return best[1] if best else (WIDTH, HEIGHT, FPS)


def _cameras(found: list[Found]) -> str:
    good = [each for each in found if each.config]
    unusable = "".join(
        f"# Not usable yet: {each.told}: {_one_line(each.trouble)}\n" for each in found if not each.config
    )
    if not good:
        return unusable + PATTERN
    if len(good) == 1:
        return unusable + _line("camera:", good[0].told) + _keys(good[0], "  ")
    blocks = (_line(f"  {_yaml(each.name)}:", each.told) + _keys(each, "    ") for each in good)
    return (
        f"{unusable}cameras:                      # take out what you do not want; the names go into the results\n"
        + "".join(blocks)
    )


def _keys(found: Found, indent: str) -> str:
    config = found.config
    lines: list[tuple[str, object, str]] = []
    if isinstance(config, V4l2Config):
        lasting = "this very camera" if "/by-id/" in str(config.device) else "whatever is plugged in there"
        word = lasting if "/by-" in str(config.device) else "its number may change when it is plugged in again"
        lines = [("type", "v4l2", "a USB camera, or another of /dev/video*"), ("device", config.device, word)]
    elif isinstance(config, RpicamConfig):
        lines = [("type", "rpicam", "through rpicam-vid"), ("device", config.device, "rpicam-hello --list-cameras")]
    assert isinstance(config, (V4l2Config, RpicamConfig))
    lines += [
        ("width", config.width, "a size that it has"),
        ("height", config.height, ""),
        ("fps", f"{config.fps:g}", "frames a second"),
    ]
    text = "".join(_line(f"{indent}{key}: {_yaml(value)}", comment) for key, value, comment in lines)
    off = (
        ("rotate: 0", "90 | 180 | 270, where it hangs on its side or upside down"),
        ("max_fps: 5", "inferences a second at most"),
    )
    return text + "".join(_line(f"{indent}#{key}", comment) for key, comment in off)


def _model(given: Path | None, opened: Model | None, folder: Path | None) -> tuple[str, list[str]]:
    """The configuration's part on the model, and what is missing in it."""
    if given is None or opened is None:
        line = _line(
            f"  path: {PLACEHOLDER}", "a bundle's folder (then labels and preprocess are known), or a .tflite file"
        )
        return f"\nmodel:\n{line}", [f"model.path: a bundle's folder or a .tflite file, in place of {PLACEHOLDER}"]
    place = f"name: {_yaml(given)}" if _installed(given) else f"path: {_yaml(_relative(given, folder))}"
    recipe = opened.manifest and opened.manifest.preprocess
    missing = (
        [] if recipe else ["preprocess: color, mean and std, as the model was trained; the file does not say them"]
    )
    if opened.manifest:
        knows = (
            "it knows its labels and how pictures are prepared"
            if recipe
            else "it is no model of pictures, says its manifest"
        )
        line = _line(f"  {place}", f"the bundle {opened.name} {opened.version}: {knows}")
    else:
        inside = (
            f"{len(opened.labels)} are inside the model" if opened.labels else "without, a label is the class's number"
        )
        line = _line(f"  {place}", "a bare model") + _line("  #labels: labels.txt", f"one a line; {inside}")
    return f"\nmodel:\n{line}{'' if recipe else RECIPE}{'' if opened.manifest else _task(opened)}", missing


def _task(opened: Model) -> str:
    """What a bare model's outputs are for, where they are read in one way, and not in the one that needs no word."""
    from edge_runner.engine import DEFAULT_TASK, fitting_tasks, model_facts
    from edge_runner.model.interpreter import find_runtime
    from edge_runner.model.preprocess import picture_size

    try:
        interpreter = opened.load(find_runtime())
    except EdgeRunnerError:  # `check` says it, with what helps
        return ""
    size = picture_size(interpreter.inputs[0]) if len(interpreter.inputs) == 1 else None
    found = fitting_tasks(model_facts(opened, interpreter, size))
    if found == [DEFAULT_TASK]:
        return ""
    ways = " or ".join(found) if found else "raw, for what no other task reads: the outputs as they are"
    if len(found) != 1:
        return f"\n#task:\n{_line('#  type: …', ways)}"
    return f"\ntask:\n{_line(f'  type: {found[0]}', 'as its outputs are; docs/tasks.md')}"


def _relative(path: Path, folder: Path | None) -> str:
    """An absolute path stays what it is. `..` and links are taken as the configuration's reader takes them: by the letter."""
    relative = str(path) if path.is_absolute() or folder is None else os.path.relpath(path, folder)
    return os.path.abspath(path) if relative.startswith("~") else relative  # that would be a home folder


def _line(text: str, comment: str) -> str:
    return f"{text:<{COLUMN - 2}}  # {_one_line(comment)}\n" if comment else f"{text}\n"


def _yaml(value: object) -> str:
    """A value as the configuration reads it: in quotes where YAML would take it for something else, a dollar sign doubled."""
    text = str(value).replace("$", "$$")
    plain = isinstance(value, (int, float)) or re.fullmatch(r"[A-Za-z./][\w./+:@-]*[\w/]|\.|[0-9.]+", text, re.ASCII)
    reserved = text.lower() in ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
    return text if plain and not reserved else json.dumps(text, ensure_ascii=False)


def _one_line(text: str) -> str:
    """Devices and files may have any name."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _write(path: Path, text: str) -> None:
    """Beside it first: there is never half a configuration."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, "utf-8")
        os.replace(beside, path)
    except (OSError, UnicodeEncodeError) as error:
        with suppress(OSError):
            beside.unlink()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise OutputError(f"{path}: {reason.lower()}") from error
