"""The noun on the way out: one result, and its JSON line."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # numpy, which takes time to import
    from edge_runner.frame import Tensor

SCHEMA = 1
SIGNIFICANT_DIGITS = 6
MILLISECOND_DIGITS = 3
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True)
class Classification:
    """One answer of a classifier: the class's `label` and `index`, and its `score`, 0..1."""

    label: str
    index: int
    score: float

    def plain(self) -> dict[str, Any]:
        return {"label": self.label, "index": self.index, "score": rounded(self.score)}


@dataclass(frozen=True)
class Detection:
    """One thing that was found. `box` is (x0, y0, x1, y1) in fractions of the upright frame, within 0..1; `score` 0..1."""

    label: str
    index: int
    score: float
    box: tuple[float, float, float, float]

    def plain(self) -> dict[str, Any]:
        box = list(map(rounded, self.box))
        return {"label": self.label, "index": self.index, "score": rounded(self.score), "box": box}


@dataclass(frozen=True)
class Segment:
    """One class of a segmented frame; `area` is the fraction of the upright frame that it covers."""

    label: str
    index: int
    area: float

    def plain(self) -> dict[str, Any]:
        return {"label": self.label, "index": self.index, "area": rounded(self.area)}


@dataclass(frozen=True)
class Mask:
    """The class of every part of the upright frame.

    `classes` is uint8 or uint16 [height, width] and spans the whole frame, in the model's resolution or in the frame's own; where
    the model saw nothing (a crop), it has the largest number of its type. `png` is the same as a file, where it was asked for.
    """

    classes: Tensor
    png: bytes | None = None

    def plain(self) -> dict[str, Any]:
        height, width = self.classes.shape
        return {"width": width, "height": height, "png": base64.b64encode(self.png or b"").decode()}


@dataclass(frozen=True)
class Keypoint:
    """One point of a body: (`x`, `y`) in fractions of the upright frame, within 0..1, and its `score`, 0..1.

    `person` is the place of its detection among the result's, from 0, where a model tells several people apart.
    """

    name: str
    x: float
    y: float
    score: float
    person: int | None = None

    def plain(self) -> dict[str, Any]:
        fields = {"name": self.name, "x": rounded(self.x), "y": rounded(self.y), "score": rounded(self.score)}
        return fields if self.person is None else {**fields, "person": self.person}


@dataclass(frozen=True)
class RawTensor:
    """An output as it is, real values where it was quantised, numbers of `dtype`.

    `values` are flat, in the order of C; None where they are too many for a line, and `array` [shape] has them instead.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    values: tuple[float | int | bool | None, ...] | None
    array: Tensor | None = field(default=None, compare=False)

    def plain(self) -> dict[str, Any]:
        values = self.values and [rounded(value) if isinstance(value, float) else value for value in self.values]
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype, "values": values}


@dataclass(frozen=True)
class Answers:
    """What a task makes of one frame: only what is its own is set. `doubt` says why it is probably not to be trusted."""

    classifications: tuple[Classification, ...] | None = None
    detections: tuple[Detection, ...] | None = None
    segments: tuple[Segment, ...] | None = None
    mask: Mask | None = field(default=None, compare=False)
    keypoints: tuple[Keypoint, ...] | None = None
    tensors: tuple[RawTensor, ...] | None = None
    doubt: str | None = None

    def plain(self) -> dict[str, Any]:
        """What is set, as JSON has it; a mask only where it was asked for as a file."""
        kinds = ("classifications", "detections", "segments", "keypoints", "tensors")
        fields: dict[str, Any] = {
            kind: [one.plain() for one in getattr(self, kind)] for kind in kinds if getattr(self, kind) is not None
        }
        if self.mask and self.mask.png is not None:
            fields["mask"] = self.mask.plain()
        return fields

    def words(self) -> list[str]:
        """Each answer in a word or two, for people."""
        named = [f"{one.label} {one.score:.3f}" for one in self.classifications or ()]
        named += [f"{one.label} {one.score:.3f}" for one in self.detections or ()]
        named += [f"{segment.label} {segment.area:.1%}" for segment in self.segments or ()]
        if not self.detections:
            named += [f"{point.name} {point.score:.2f}" for point in self.keypoints or ()]
        return named + [f"{tensor.name} {list(tensor.shape)}" for tensor in self.tensors or ()]


@dataclass(frozen=True)
class Result:
    """One frame's result. `run` and `seq` (from 1) name it uniquely for one device; times as in frame.Stamp.

    `age_ms` (capture to result) and `dropped` are a live camera's, `source` is a file's name.
    """

    device: str
    camera: str
    run: str
    seq: int
    frame: int
    time_ns: int
    clock: Literal["synced", "unsynced"]
    model: str
    version: str
    width: int
    height: int
    answers: Answers
    timing_ms: dict[str, float]
    age_ms: float | None = None
    dropped: int | None = None
    source: str | None = None
    saved: Mapping[str, str] = field(default_factory=dict)
    """What was saved beside the result: the kind of file, and its name."""

    def plain(self) -> dict[str, Any]:
        """The result as JSON has it, keys in their promised order."""
        fields: dict[str, Any] = {
            "schema": SCHEMA,
            "time": rfc3339(self.time_ns),
            "clock": self.clock,
            "device": self.device,
            "camera": self.camera,
            "run": self.run,
            "seq": self.seq,
            "frame": self.frame,
            "model": {"name": self.model, "version": self.version},
            "image": {"width": self.width, "height": self.height},
        }
        if self.source is not None:
            fields["source"] = self.source
        if self.age_ms is not None:
            fields["age_ms"] = round(self.age_ms, MILLISECOND_DIGITS)
        if self.dropped is not None:
            fields["dropped"] = self.dropped
        fields["timing_ms"] = {stage: round(ms, MILLISECOND_DIGITS) for stage, ms in self.timing_ms.items()}
        fields.update(self.answers.plain())
        fields.update(self.saved)
        return fields

    def line(self) -> str:
        """The result as one line of JSON, without its end. What is no text in a file's name becomes question marks."""
        return self._line

    @cached_property
    def _line(self) -> str:
        """Made once, for several outputs write it."""
        line = json.dumps(self.plain(), ensure_ascii=False, separators=(", ", ": "), allow_nan=False)
        return line.encode("utf-8", "replace").decode()


def rounded(number: float) -> float:
    """A number with six significant digits."""
    return float(f"{number:.{SIGNIFICANT_DIGITS}g}")


def rfc3339(time_ns: int) -> str:
    """Nanoseconds since 1970 as a UTC time with microseconds, `2026-11-22T13:28:00.123456Z`."""
    seconds, nanoseconds = divmod(time_ns, 10**9)
    moment = datetime.fromtimestamp(seconds, timezone.utc).replace(microsecond=nanoseconds // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def new_run() -> str:
    """A name for this start of the daemon: a ULID (github.com/ulid/spec), 48 bits of time and 80 of chance."""
    number = int(time.time() * 1000) << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join(CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))
