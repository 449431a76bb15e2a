"""The general reader: a tree of nodes into frozen dataclasses, every mistake at once, each with file, line and key.

It knows types and fields (fields.py), and no camera, model or output.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, Union

from edge_runner.errors import ConfigError, EdgeRunnerError, SettingError
from edge_runner.fields import (
    Check,
    InputPath,
    Length,
    OneOrMany,
    OutputPath,
    Partial,
    Range,
    Units,
    Variants,
    describe,
    listed,
    unwrapped,
)
from edge_runner.tree import Mismatch, Node, Place, Problems, plain_tree, read_tree

T = TypeVar("T")

SECRET_CHARS = 4  # a shorter value is no secret, and stands everywhere


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """What was read, and the place of every key in it."""

    value: T
    file: str
    places: Mapping[str, Place]
    secrets: Mapping[str, str]

    def locate(self, error: EdgeRunnerError) -> str:
        """The error's line, with the place of the key that it blames put before it."""
        key = error.key or ""
        while key and key not in self.places:
            key = key.rpartition(".")[0]
        blamed = f"{error.key}: " if error.key else ""
        return self.masked(f"{self.places[key] if key else self.file}: {blamed}{error}")

    def masked(self, text: str) -> str:
        """The text with each variable's value taken out again."""
        for value, name in sorted(self.secrets.items(), key=lambda item: -len(item[0])):
            if len(value) >= SECRET_CHARS:
                text = text.replace(value, name)
        return text


@dataclass
class _Reader(Problems):
    """One reading: also the places of the keys that were passed."""

    places: dict[str, Place] = field(default_factory=dict)


def load(path: Path, cls: type[T], *, sets: Sequence[str] = (), variables: bool = True) -> Loaded[T]:
    """Read the YAML or JSON file `path` into the dataclass `cls`, `sets` (KEY=VALUE) put over it.

    Raise ConfigError with a line for each mistake.
    """
    reader = _Reader()
    root = read_tree(reader, path, sets, variables=variables)
    return Loaded(_read(reader, root, cls), str(path), reader.places, reader.secrets)


def check(values: Mapping[str, Any], cls: type[T], file: str) -> T:
    """Values that were read before, said to stand in `file`, as the dataclass `cls`; raise ConfigError as `load` does."""
    reader = _Reader()
    return _read(reader, plain_tree(reader, values, file), cls)


def _read(reader: _Reader, root: Node, cls: type[T]) -> T:
    value: T | None = None
    if isinstance(root.value, dict):
        value = _mapping(reader, cls, root, "")
    else:
        reader.problem(root.place, f"got {root}; allowed: {describe(cls)}")
    if reader.problems or value is None:
        raise ConfigError(reader.lines())
    return value


def _mapping(reader: _Reader, cls: type[Any], node: Node, key: str, *, variants: Variants | None = None) -> Any:
    """An instance of the dataclass `cls`, or None where there were problems."""
    assert isinstance(node.value, dict)
    before = len(reader.problems)
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    values: dict[str, Any] = {}
    for name, child in node.value.items():
        path = f"{key}.{name}" if key else name
        reader.places[path] = child.place
        if name in fields:
            values[name] = _value(reader, hints[name], child, path)
        else:
            _unknown(reader, node, name, path, list(fields), variants)
    for name, item in fields.items():
        if name not in node.value and isinstance(item.default, Path):  # relative to where a given one would be
            values[name] = _value(reader, hints[name], replace(node, value=str(item.default), tag="str"), name)
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if required and name not in node.value:
            path = f"{key}.{name}" if key else name
            reader.problem(node.place, f"{path}: missing; allowed: {describe(hints[name])}")
    if len(reader.problems) > before:
        return None
    try:
        return cls(**values)
    except SettingError as error:  # its keys do not go together
        path = f"{key}.{error.key}" if key else str(error.key)
        reader.problem(reader.places.get(path, node.place), f"{path}: {error}")
        return None


def _unknown(reader: _Reader, node: Node, name: str, path: str, known: list[str], variants: Variants | None) -> None:
    assert isinstance(node.value, dict)
    owners = []
    if variants:
        owners = [t for t in variants.table if name in {f.name for f in dataclasses.fields(variants.config(t))}]
    if owners and isinstance(node.value.get("type"), Node):
        chosen = node.value["type"]
        if chosen.place.line == 0 and node.value[name].place.line != 0:
            return  # the type was changed on the command line: what the file says of the old one is void
        reader.problem(node.value[name].place, f"{path}: a key of type {listed(owners, 'or')}, not of {chosen}")
        return
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean '{close[0]}'?" if close else f"allowed: {', '.join(sorted(known))}"
    reader.problem(node.value[name].place, f"{path}: unknown key; {hint}")


def _value(reader: _Reader, hint: Any, node: Node, key: str) -> Any:
    for what in node.wrong:
        reader.problem(node.place, f"{key}: {what}")
    if node.wrong:
        return None
    before = len(reader.problems)
    try:
        return _converted(reader, hint, node, key)
    except Mismatch as mismatch:
        if len(reader.problems) == before:
            why = f" {mismatch}" if str(mismatch) else ""
            reader.problem(node.place, f"{key}: got {node}{why}; allowed: {describe(hint)}")
        return None


def _converted(reader: _Reader, hint: Any, node: Node, key: str) -> Any:
    base, extras = unwrapped(hint)
    for extra in extras:
        if isinstance(extra, Partial):
            return _partial(reader, [extra.cls], node, key, None)
        if isinstance(extra, Variants):
            return _variant(reader, extra, node, key)
        if isinstance(extra, OneOrMany) and not isinstance(node.value, list):
            node = replace(node, value=[node])
    if base is Any:
        return _plain(node)
    origin = typing.get_origin(base)
    if origin in (Union, types.UnionType):
        return _union(reader, typing.get_args(base), node, key)
    if origin is Literal:
        return _literal(typing.get_args(base), node)
    if origin is tuple:
        return _checked(_tuple(reader, typing.get_args(base), extras, node, key), extras)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _dict(reader, typing.get_args(base)[1], node, key)
    if dataclasses.is_dataclass(base):
        if not isinstance(node.value, dict):
            raise Mismatch
        return _mapping(reader, typing.cast("type[Any]", base), node, key)
    return _scalar(base, extras, node)


def _union(reader: _Reader, members: Sequence[Any], node: Node, key: str) -> Any:
    """The first member that fits; where none does, the last one's complaint is the most telling."""
    if node.tag == "null" and types.NoneType in members:
        return None
    members = [m for m in members if m is not types.NoneType]
    for member in members[:-1]:
        attempt = _Reader()
        try:
            value = _converted(attempt, member, node, key)
        except Mismatch:
            continue
        if not attempt.problems:
            return value
    return _converted(reader, members[-1], node, key)


def _literal(choices: Sequence[Any], node: Node) -> Any:
    for choice in choices:
        if node.value == str(choice) and node.tag == type(choice).__name__:
            return choice
    if node.tag != "str" or node.secret:
        raise Mismatch
    if str(node.value) in map(str, choices):
        raise Mismatch("(without quotes)")
    close = difflib.get_close_matches(str(node.value), [str(c) for c in choices], 1)
    raise Mismatch(f"(did you mean '{close[0]}'?)" if close else "")


def _tuple(reader: _Reader, members: Sequence[Any], extras: Sequence[Any], node: Node, key: str) -> tuple[Any, ...]:
    if not isinstance(node.value, list):
        raise Mismatch
    shortest = max((e.low for e in extras if isinstance(e, Length)), default=0)
    open_ended = len(members) == 2 and members[1] is Ellipsis
    if (not open_ended and len(node.value) != len(members)) or len(node.value) < shortest:
        raise Mismatch
    hints = [members[0]] * len(node.value) if open_ended else members
    for index, child in enumerate(node.value):
        reader.places[f"{key}.{index}"] = child.place
    return tuple(_value(reader, h, n, f"{key}.{i}") for i, (h, n) in enumerate(zip(hints, node.value, strict=True)))


def _checked(value: tuple[Any, ...], extras: Sequence[Any]) -> tuple[Any, ...]:
    if None not in value and not all(  # None was wrong by itself, and that was said
        extra.holds(value) for extra in extras if isinstance(extra, Check)
    ):
        raise Mismatch
    return value


def _dict(reader: _Reader, hint: Any, node: Node, key: str) -> dict[str, Any]:
    if not isinstance(node.value, dict):
        raise Mismatch
    reader.places |= {f"{key}.{name}": child.place for name, child in node.value.items()}
    return {name: _value(reader, hint, child, f"{key}.{name}") for name, child in node.value.items()}


def _variant(reader: _Reader, variants: Variants, node: Node, key: str) -> Any:
    if not isinstance(node.value, dict):
        raise Mismatch
    chosen = node.value.get("type")
    names: Any = Literal[tuple(variants.table)]
    name = None
    if chosen is not None:
        name = _value(reader, names, chosen, f"{key}.type")
    elif not variants.partial:
        reader.problem(node.place, f"{key}.type: missing; allowed: {describe(names)}")
    if name is None:  # the other keys are checked against every type
        others = replace(node, value={k: v for k, v in node.value.items() if k != "type"})
        given = _partial(reader, [variants.config(n) for n in variants.table], others, key, variants)
        if chosen is None and variants.partial:
            return given
        raise Mismatch
    if variants.partial:
        return _partial(reader, [variants.config(name)], node, key, variants)
    return _mapping(reader, variants.config(name), node, key, variants=variants)


def _partial(
    reader: _Reader, classes: Sequence[type[Any]], node: Node, key: str, variants: Variants | None
) -> dict[str, Any]:
    if not isinstance(node.value, dict):
        raise Mismatch
    hints: dict[str, Any] = {}
    for cls in classes:
        for name, hint in typing.get_type_hints(cls, include_extras=True).items():
            hints[name] = hints.get(name, hint) | hint
    values = {}
    for name, child in node.value.items():
        reader.places[f"{key}.{name}"] = child.place
        if name in hints:
            values[name] = _value(reader, hints[name], child, f"{key}.{name}")
        else:
            _unknown(reader, node, name, f"{key}.{name}", list(hints), variants)
    return values


def _scalar(base: Any, extras: Sequence[Any], node: Node) -> Any:
    if not isinstance(node.value, str) or node.tag == "null":
        raise Mismatch
    units = next((e for e in extras if isinstance(e, Units)), None)
    if units:
        value: Any = _quantity(base, units, node)
    elif base is bool and node.tag == "bool":
        value = _truth(node.value)
    elif base in (int, float):
        value = _number(base, node)
    elif base in (str, Path) and node.tag == "str":
        value = node.value if base is str else _path(extras, node)
    elif base in (str, Path) and node.tag != "str":
        raise Mismatch("(quote it to make it text)")
    else:
        raise Mismatch
    for extra in extras:
        if isinstance(extra, Range) and value not in extra:
            raise Mismatch
    return value


def _plain(node: Node) -> Any:
    """A value of no particular type, as JSON would have it."""
    if isinstance(node.value, dict):
        return {name: _plain(child) for name, child in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(child) for child in node.value]
    if node.tag in ("null", "bool"):
        return None if node.tag == "null" else _truth(node.value)
    return _number({"int": int, "float": float}[node.tag], node) if node.tag in ("int", "float") else node.value


def _truth(text: str) -> bool:
    return text.lower() in ("true", "yes", "on")


def _number(base: Any, node: Node) -> Any:
    if node.tag not in ("int", "float"):
        raise Mismatch
    try:
        number = base(node.value)
    except (ValueError, OverflowError):  # 0x10 and 1:30 are numbers to YAML
        raise Mismatch from None
    if isinstance(number, float) and not math.isfinite(number):
        raise Mismatch
    return number


def _quantity(base: Any, units: Units, node: Node) -> Any:
    try:
        number = units.parse(str(node.value).strip())
    except ValueError:
        raise Mismatch("without a unit" if node.tag in ("int", "float") else "") from None
    return round(number) if base is int else number


def _path(extras: Sequence[Any], node: Node) -> Path:
    folder, text = node.place.folder, str(node.value)
    if not text or "\0" in text:
        raise Mismatch
    for extra in extras:
        if isinstance(extra, OutputPath):
            folder = extra.base(folder)
    try:
        path = Path(os.path.normpath(folder / Path(text).expanduser()))
    except RuntimeError:
        raise Mismatch("(there is no such user)") from None
    for extra in extras:
        if isinstance(extra, InputPath):
            why = extra.missing(path)
            if why:
                raise Mismatch(f"({why})")
    return path
