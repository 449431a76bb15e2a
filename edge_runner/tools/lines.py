"""A result read back from its line.

Reading JSON is most of the time that a large log takes. A line of the very form that `Result.line` gives is therefore read by
one regular expression, which yields the same; any other, by the JSON reader.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

KINDS = {
    "classifications": "classification",
    "detections": "detection",
    "segments": "segment",
    "keypoints": "keypoint",
    "tensors": "tensor",
}
"""A key of a result, and what one of its answers is called."""

RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?\s*(Z|[+-]\d\d:\d\d)?", re.ASCII | re.IGNORECASE
)


@dataclass(frozen=True)
class Answer:
    """One answer: its kind, its place among those of its kind, from 1, and what the result says of it."""

    kind: str
    rank: int
    fields: dict[str, Any]

    @property
    def name(self) -> str:
        name = self.fields.get("label", self.fields.get("name"))
        return name if isinstance(name, str) else ""

    @property
    def score(self) -> float:
        """0..1; of a segment its area; 0 of what has neither."""
        return float(self.fields.get("score", self.fields.get("area", 0)))


class Line:
    """One result. `time` is UTC, `2026-11-22T13:28:00.123456`, and sorts; text is UTF-8."""

    __slots__ = ("_answers", "_plain", "camera", "raw", "time")

    def __init__(
        self, raw: bytes, time: bytes, camera: bytes, answers: bytes, plain: dict[str, Any] | None = None
    ) -> None:
        self.raw = raw
        self.time = time
        self.camera = camera
        self._answers = answers
        """Where `plain` is not known yet: those that count, as they stand in the line."""
        self._plain = plain

    @property
    def plain(self) -> dict[str, Any]:
        """The whole result."""
        if self._plain is None:
            self._plain = json.loads(self.raw)
        return self._plain

    def is_json(self) -> bool:
        """Whether it is to the last byte; `FORM` takes numbers for such that are none."""
        try:
            return bool(self.plain)
        except ValueError:
            return False

    def labels(self) -> list[bytes]:
        """Of the answers that count, each."""
        if self._plain is None:
            return LABELS.findall(self._answers)
        return [encoded(answer.name) for answer in self.counting()]

    def scored(self) -> list[tuple[bytes, float]]:
        """The label of each answer that counts, and its score."""
        if self._plain is None:
            return [(label, float(score)) for label, score in SCORED.findall(self._answers)]
        return [(encoded(answer.name), answer.score) for answer in self.counting()]

    def answers(self) -> list[Answer]:
        return list(_answers(self.plain))

    def counting(self) -> list[Answer]:
        """Of classifications the best; of keypoints none where there are detections: as an output's `when` sees it."""
        return [answer for answer in self.answers() if _counts(answer, self.plain)]


def is_clean(block: bytes) -> bool:
    """Whether there are neither escaped characters, nor zeros, nor what is no text: then `FORM` tells all."""
    return b"\\" not in block and b"\0" not in block and (block.isascii() or _is_text(block))


def read_line(raw: bytes, *, clean: bool = False) -> Line | None:
    """A line of a log; None where it is no result. `clean`: whether it is known to be so."""
    match = FORM.fullmatch(raw)
    if match and (clean or is_clean(raw)):
        return Line(raw, match["time"], match["camera"], match["best"] or match["several"] or b"")
    return read_as_json(raw)


def read_as_json(raw: bytes) -> Line | None:
    """The same by the JSON reader alone: keys in any order, any spaces between them."""
    try:
        plain = json.loads(raw.decode("utf-8"))
        for answer in _answers(plain):
            float(answer.score)  # where this is none, it is no answer
        return Line(raw, canonical(plain["time"]), encoded(plain.get("camera", "")), b"", plain)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def canonical(text: str) -> bytes:
    """A time of RFC 3339, a date, or a date and a time, as `Line.time` has it; UTC unless it says otherwise. Raise ValueError."""
    match = RFC3339.fullmatch(text.strip())
    if not match:
        raise ValueError(text)
    day, minutes, seconds, fraction, zone = match.groups()
    offset = "+00:00" if zone is None or zone in "Zz" else zone
    whole = f"{day}T{minutes or '00:00'}:{seconds or '00'}.{(fraction or '')[:6]:0<6}{offset}"
    try:
        return utc(datetime.fromisoformat(whole))
    except OverflowError as error:
        raise ValueError(text) from error


def utc(moment: datetime) -> bytes:
    """A moment as `Line.time` has it."""
    return moment.astimezone(timezone.utc).replace(tzinfo=None).isoformat(timespec="microseconds").encode()


def encoded(text: str) -> bytes:
    """Text as a key: JSON may hold halves of characters, too."""
    return text.encode("utf-8", "surrogatepass")


def _answers(plain: dict[str, Any]) -> Iterator[Answer]:
    for key, kind in KINDS.items():
        for rank, fields in enumerate(plain.get(key) or (), 1):
            yield Answer(kind, rank, fields)


def _counts(answer: Answer, plain: dict[str, Any]) -> bool:
    if answer.kind == "classification":
        return answer.rank == 1
    return answer.kind in ("detection", "segment") or (answer.kind == "keypoint" and "detections" not in plain)


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _form() -> str:
    """What `Result.line` writes. Strings hold no escapes, for such lines are read as JSON; numbers are numbers, more or less."""
    text, number, whole = '"[^"]*"', "-?[0-9][0-9.e+-]*", "[0-9]+"
    score = "[0-9]+(?:\\.[0-9]+)?(?:e-?[0-9]+)?"  # exactly, for it is read
    guess = f'{{"label": {text}, "index": {whole}, "score": {score}}}'
    found = f'{{"label": {text}, "index": {whole}, "(?:score|area)": {score}(?:, "box": \\[[0-9., e+-]+\\])?}}'
    point = f'{{"name": {text}, "x": {number}, "y": {number}, "score": {number}(?:, "person": {whole})?}}'
    return (
        r'{"schema": 1, "time": "(?P<time>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6})Z", '
        rf'"clock": "[a-z]+", "device": {text}, "camera": "(?P<camera>[^"]*)", "run": {text}, "seq": {whole}, "frame": {whole}, '
        rf'"model": {{"name": {text}, "version": {text}}}, "image": {{"width": {whole}, "height": {whole}}}, '
        r"[^{]*{[^}]*}, "  # down to the end of timing_ms
        rf'(?:"classifications": \[(?:(?P<best>{guess})(?:, {guess})*)?\]'
        rf'|"(?:detections|segments)": \[(?P<several>(?:{found}(?:, |(?=\])))*)\]'
        rf'(?:, "keypoints": \[(?:{point}(?:, |(?=\])))*\])?(?:, "mask": {{"width": {whole}, "height": {whole}, "png": {text}}})?)'
        rf'(?:, "(?:snapshot|npz)": {text})*}}'
    )


FORM = re.compile(_form().encode())
LABELS = re.compile(rb'"label": "([^"]*)"')
SCORED = re.compile(rb'"label": "([^"]*)", "index": [0-9]+, "(?:score|area)": ([0-9.e+-]+)')
