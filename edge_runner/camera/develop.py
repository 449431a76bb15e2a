"""From a grabbed frame to the model's input: decode, turn upright, crop and recipe, in buffers that are used again."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace

from edge_runner.camera.base import CameraConfig, Grab, View
from edge_runner.frame import Geometry, Picture, Prepare, Tensor


@dataclass
class Slot:
    """The buffers of one shot: `input` is the model's, `upright` is used where the camera's frames have to be turned."""

    number: int
    input: Tensor
    frame: Picture | None = None
    upright: Picture | None = None


@dataclass(frozen=True)
class Developed:
    """What became of a frame: its upright `picture`, the `geometry` that leads back to it, and what each stage took."""

    picture: Picture
    geometry: Geometry
    timing_ms: dict[str, float]


class Developer:
    """Develops the frames of one camera for one model. `prepare` is copied: it works in one place at a time."""

    def __init__(self, config: CameraConfig, prepare: Prepare) -> None:
        self._prepare = copy.copy(prepare)
        self.view = View(config)
        enough, (_, _, *part) = prepare.enough, config.crop
        if self.view.sideways:
            enough, part = replace(enough, width=enough.height, height=enough.width), part[::-1]
        self._enough = replace(enough, part=(part[0], part[1]))

    def __call__(self, grab: Grab, slot: Slot, *, exact: bool = True) -> Developed | None:
        """Fill the slot; None where the frame cannot be decoded. Unless `exact`, its picture may be smaller than the frame."""
        started = time.perf_counter()
        picture = grab.decode(slot.frame, None if exact else self._enough)
        if picture is None:
            return None
        slot.frame = picture
        if self.view.turns:
            slot.upright = picture = self.view.upright(picture, slot.upright)
        decoded = time.perf_counter()
        geometry = self._prepare(picture, slot.input, self.view.region(picture))
        if grab.size:
            width, height = reversed(grab.size) if self.view.sideways else grab.size
            geometry = replace(geometry, width=width, height=height)
        timing_ms = {"capture": (decoded - started) * 1e3, "preprocess": (time.perf_counter() - decoded) * 1e3}
        return Developed(picture, geometry, timing_ms)
