"""The vocabulary of configurations: what a dataclass field may say of its value beyond its type.

`threads: Literal["auto"] | Annotated[int, Range(1)] = "auto"` is all that the reader (config.py) needs to check and explain.
"""

from __future__ import annotations

import dataclasses
import glob
import importlib
import math
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union

DURATION_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SIZE_UNITS_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
MAX_DURATION_S = 10 * 365 * 86400.0  # more than any wait; the system's own calls end at 292 years
GLOB_CHARACTERS = "*?["


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`; with `above`, `low` itself is not allowed."""

    low: float | None = None
    high: float | None = None
    above: bool = False

    def __contains__(self, number: float) -> bool:
        too_low = self.low is not None and (number < self.low or (self.above and number == self.low))
        return not too_low and (self.high is None or number <= self.high)

    def __str__(self) -> str:
        start = "" if self.low is None else f"above {self.low:g}" if self.above else f"from {self.low:g}"
        return " ".join(filter(None, [start, "" if self.high is None else f"to {self.high:g}"]))


@dataclass(frozen=True)
class Length:
    """A list with at least `low` items."""

    low: int


@dataclass(frozen=True)
class Units:
    """A quantity with its unit, `90s` or `1m 30s`, as a number of the base unit."""

    units: Mapping[str, float]
    what: str

    def parse(self, text: str) -> float:
        """Raise ValueError where `text` is no sum of numbers with units; 0 needs none."""
        if text == "0":
            return 0.0
        parts = re.findall(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)", text)
        if not parts or "".join(a + b for a, b in parts) != re.sub(r"\s", "", text):
            raise ValueError(text)
        total = sum(float(number) * self._unit(unit) for number, unit in parts)
        if not math.isfinite(total):
            raise ValueError(text)
        return total

    def _unit(self, name: str) -> float:
        if name not in self.units:
            raise ValueError(name)
        return self.units[name]

    def __hash__(self) -> int:
        return hash(self.what)


@dataclass(frozen=True)
class Check:
    """A list whose items must go together: `holds` tells, `what` says it in words."""

    holds: Callable[[tuple[Any, ...]], bool]
    what: str


@dataclass(frozen=True)
class OneOrMany:
    """A list that may be written as its only item."""


@dataclass(frozen=True)
class InputPath:
    """Something that must be there, relative to the file that names it. `kind` says what; "pictures" may be a glob."""

    kind: Literal["file", "folder", "file or folder", "pictures"]

    def missing(self, path: Path) -> str | None:
        """Say why `path` will not do, or None."""
        if self.kind == "pictures" and not os.path.exists(path) and any(c in str(path) for c in GLOB_CHARACTERS):
            return None if any(glob.iglob(str(path), recursive=True)) else _why_no_match(path)
        try:
            path.stat()
        except OSError as error:
            return f"{error.strerror or error}".lower()
        if self.kind == "file" and path.is_dir():
            return "it is a folder"
        if self.kind == "folder" and not path.is_dir():
            return "it is no folder"
        return None


def _why_no_match(pattern: Path) -> str:
    """A glob is silent about a folder that is missing, or that this user may not look into."""
    folder = next(p for p in pattern.parents if not any(c in str(p) for c in GLOB_CHARACTERS))
    try:
        os.listdir(folder)
    except OSError as error:
        return f"{folder}: {(error.strerror or str(error)).lower()}"
    return "nothing matches"


@dataclass(frozen=True)
class OutputPath:
    """Something that will be written; relative to systemd's log or state directory where there is one."""

    def base(self, named_in: Path) -> Path:
        for variable in ("LOGS_DIRECTORY", "STATE_DIRECTORY"):
            if os.environ.get(variable):
                return Path(os.environ[variable].split(":")[0])
        return named_in


@dataclass(frozen=True)
class Variants:
    """A mapping whose `type` chooses one of several dataclasses: `table` maps it to 'module:Class', of which `Config` is read.

    With `partial`, only what is given is read, as a dict, and `type` itself may be left out.
    """

    table: Mapping[str, str]
    partial: bool = False

    def config(self, name: str) -> type[Any]:
        cls: type[Any] = load(self.table[name]).Config
        return cls

    def __hash__(self) -> int:
        return hash(tuple(self.table))


@dataclass(frozen=True)
class Partial:
    """Only the keys that are given, as a dict, each checked against the dataclass `cls`."""

    cls: type[Any]


Duration = Annotated[
    float, Units(DURATION_UNITS_S, "a duration such as 500ms, 30s, 5m or 1h"), Range(0, MAX_DURATION_S)
]
"""Seconds."""

Size = Annotated[int, Units(SIZE_UNITS_BYTES, "a size such as 64MB or 512KB")]
"""Bytes."""

Fraction = Annotated[float, Range(0, 1)]


def load(place: str) -> Any:
    """What stands at 'module:Name'."""
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)


def describe(hint: Any) -> str:
    """What a type hint allows, in the words of a message: `auto, or a whole number from 1`."""
    base, extras = unwrapped(hint)
    for extra in extras:
        if isinstance(extra, (Units, Check)):
            return extra.what + "".join(f", {other}" for other in extras if isinstance(other, Range) and other.above)
        if isinstance(extra, InputPath):
            return f"a {extra.kind if extra.kind != 'pictures' else 'picture, a folder or a glob'} that is there"
        if isinstance(extra, Partial):
            return describe(extra.cls)
        if isinstance(extra, Variants):
            return f"a mapping with a type: {', '.join(extra.table)}"
    origin, members = typing.get_origin(base), typing.get_args(base)
    ranges = "".join(f" {extra}" for extra in extras if isinstance(extra, Range))
    if origin in (Union, types.UnionType):
        return ", or ".join(describe(m) for m in members if m is not types.NoneType)
    if origin is Literal:
        return " | ".join(str(m) for m in members)
    if origin is tuple:
        item = describe(members[0])
        if any(isinstance(e, OneOrMany) for e in extras):
            return f"{item}, or a list of such"
        return f"a list, each item {item}" if members[-1] is Ellipsis else f"[{', '.join(map(describe, members))}]"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a mapping of names to {describe(members[1])}"
    if dataclasses.is_dataclass(base):
        return f"a mapping with {listed(f.name for f in dataclasses.fields(base))}"
    words = {
        bool: "true | false",
        int: "a whole number",
        float: "a number",
        str: "text",
        Path: "a path",
        Any: "anything",
    }
    return words.get(base, str(base)) + ranges


def unwrapped(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type hint without Annotated, and what that says besides."""
    if typing.get_origin(hint) is Annotated:
        base, *extras = typing.get_args(hint)
        return base, tuple(extras)
    return hint, ()


def listed(names: Iterable[str], word: str = "and") -> str:
    """Names in a sentence: a, b and c."""
    *most, last = names
    return f"{', '.join(most)} {word} {last}" if most else last
