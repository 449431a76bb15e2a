"""The noun on the way out: one result, and its JSON line."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal

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
class RawTensor:
    """An output as it is: `values` flat, in the order of C, numbers of `dtype`; real values where it was quantised."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    values: tuple[float | int | bool | None, ...]

    def plain(self) -> dict[str, Any]:
        values = [rounded(value) if isinstance(value, float) else value for value in self.values]
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype, "values": values}


@dataclass(frozen=True)
class Answers:
    """What a task makes of one frame; just its own kind is set. `doubt` says why it is probably not to be trusted."""

    classifications: tuple[Classification, ...] | None = None
    tensors: tuple[RawTensor, ...] | None = None
    doubt: str | None = None

    def words(self) -> list[str]:
        """Each answer in a word or two, for people."""
        named = [f"{c.label} {c.score:.3f}" for c in self.classifications or ()]
        return named + [f"{t.name} {list(t.shape)}" for t in self.tensors or ()]


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
        if self.answers.classifications is not None:
            fields["classifications"] = [c.plain() for c in self.answers.classifications]
        if self.answers.tensors is not None:
            fields["tensors"] = [tensor.plain() for tensor in self.answers.tensors]
        return fields

    def line(self) -> str:
        """The result as one line of JSON, without its end. What is no text in a file's name becomes question marks."""
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
