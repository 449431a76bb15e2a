"""The general reader: YAML (or JSON) into frozen dataclasses, every mistake at once, each with file, line and key.

It knows types and fields (fields.py), and no camera, model or output.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, Union

import yaml

from edge_runner.errors import ConfigError, EdgeRunnerError, SettingError
from edge_runner.fields import InputPath, Length, OneOrMany, OutputPath, Partial, Range, Units, Variants

T = TypeVar("T")

UNSET = "unset"  # the tag of a scalar whose variable is not there: reported once, and left alone
SET = "--set"  # the place of what was set on the command line
MAX_SHOWN_CHARS = 60
VARIABLE = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})")


@dataclass(frozen=True)
class Place:
    """Where something stands: `file` as the user named it, `line` from 1 (0: the command line), `folder` for relative paths."""

    file: str
    line: int
    folder: Path

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True)
class Node:
    """One value of the file: a mapping, a list, or a scalar's text with the type that YAML gives it.

    `shown` is the scalar as written: messages show it, so that what a variable held is never printed.
    """

    place: Place
    value: dict[str, Node] | list[Node] | str
    tag: str = ""
    shown: str = ""
    plain: bool = False

    def __str__(self) -> str:
        if isinstance(self.value, dict):
            return "a mapping"
        if isinstance(self.value, list):
            return f"a list of {len(self.value)}"
        if self.tag == "null":
            return "nothing"
        shown = self.shown if len(self.shown) <= MAX_SHOWN_CHARS else self.shown[: MAX_SHOWN_CHARS - 1] + "…"
        return f"'{shown}'" if self.tag == "str" else f"{shown} ({self.tag})" if self.tag == "bool" else shown


@dataclass(frozen=True)
class Loaded(Generic[T]):
    """What was read, and the place of every key in it."""

    value: T
    file: str
    places: Mapping[str, Place]

    def locate(self, error: EdgeRunnerError) -> str:
        """The error's line, with the place of the key that it blames put before it."""
        if error.key is None:
            return f"{self.file}: {error}"
        key = error.key
        while key and key not in self.places:
            key = key.rpartition(".")[0]
        return f"{self.places[key] if key else self.file}: {error.key}: {error}"


@dataclass
class _Reader:
    """One reading: the problems found so far, and the places passed."""

    problems: list[tuple[Place, str]] = field(default_factory=list)
    places: dict[str, Place] = field(default_factory=dict)

    def problem(self, place: Place, message: str) -> None:
        if (place, message) not in self.problems:
            self.problems.append((place, message))

    def lines(self) -> list[str]:
        ordered = sorted(self.problems, key=lambda item: (item[0].file, item[0].line))
        return [f"{place}: {message}" for place, message in ordered]


class _Mismatch(Exception):
    """A value is not what its type wants; the message says why, or is empty where the type says it all."""


def load(path: Path, cls: type[T], *, sets: Sequence[str] = (), variables: bool = True) -> Loaded[T]:
    """Read the YAML or JSON file `path` into the dataclass `cls`, `sets` (KEY=VALUE) put over it.

    Raise ConfigError with a line for each mistake.
    """
    reader = _Reader()
    root = _tree(reader, path)
    for assignment in sets:
        root = _with_set(reader, root, assignment)
    if variables:
        root = _expanded(reader, root, _environment(reader, path), path.with_suffix(".env"))
    reader.places[""] = root.place
    value = None
    if isinstance(root.value, dict):
        value = _mapping(reader, cls, root, "")
    else:
        reader.problem(root.place, f"got {root}; allowed: {describe(cls)}")
    if reader.problems or value is None:
        raise ConfigError(reader.lines())
    return Loaded(value, str(path), reader.places)


# --- from text to nodes ---------------------------------------------------------------------------------------------


def _tree(reader: _Reader, path: Path) -> Node:
    top = Place(str(path), 1, path.parent)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        composed = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise ConfigError([f"{path}: {(error.strerror or str(error)).lower()}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 text (byte {error.start}); is it a configuration at all?"]) from error
    except yaml.YAMLError as error:
        raise ConfigError([_syntax_error(str(path), error)]) from error
    if composed is None:
        return Node(top, "", "null")
    return _node(reader, composed, top, "")


def _syntax_error(file: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    context = getattr(error, "context", None)
    hint = "; indent with spaces, not tabs" if "\\t" in str(problem) else ""
    line = mark.line + 1 if mark else 1
    return f"{file}:{line}: not YAML: {problem}{f' ({context})' if context else ''}{hint}"


def _node(reader: _Reader, composed: yaml.Node, above: Place, key: str) -> Node:
    place = replace(above, line=composed.start_mark.line + 1 if above.line else 0)
    if isinstance(composed, yaml.ScalarNode):
        text = str(composed.value)
        return Node(place, text, _tag(composed), text, not composed.style)
    if isinstance(composed, yaml.SequenceNode):
        return Node(place, [_node(reader, item, place, f"{key}.{i}") for i, item in enumerate(composed.value)])
    items: dict[str, Node] = {}
    for name_node, value_node in composed.value:
        name = str(name_node.value)
        here = replace(place, line=name_node.start_mark.line + 1 if above.line else 0)
        path = f"{key}.{name}" if key else name
        if name in items:
            reader.problem(here, f"{path}: given twice; the first stands in line {items[name].place.line}")
            continue
        child = _node(reader, value_node, place, path)
        items[name] = replace(child, place=here)
    return Node(place, items)


def _with_set(reader: _Reader, root: Node, assignment: str) -> Node:
    key, equals, text = assignment.partition("=")
    place = Place(SET, 0, Path())
    if not equals or not all(key.split(".")):
        reader.problem(place, f"got '{key}'; write KEY=VALUE with a dotted key, such as camera.max_fps=5")
        return root
    try:
        composed = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        reader.problem(place, f"{key}: {_syntax_error('value', error)}")
        return root
    value = Node(place, "", "null") if composed is None else _node(reader, composed, place, key)
    try:
        return _placed(root, key.split("."), value)
    except _Mismatch as error:
        reader.problem(place, f"{key}: {error}")
        return root


def _placed(node: Node, path: list[str], value: Node) -> Node:
    """A copy of `node` with `value` at `path`, mappings made on the way."""
    if not path:
        return value
    name, rest = path[0], path[1:]
    if isinstance(node.value, list):
        if not name.isdecimal() or int(name) >= len(node.value):
            raise _Mismatch(f"got '{name}'; the list has items 0 to {len(node.value) - 1}")
        items = list(node.value)
        items[int(name)] = _placed(items[int(name)], rest, value)
        return replace(node, value=items)
    below = dict(node.value) if isinstance(node.value, dict) else {}
    below[name] = _placed(below.get(name, Node(value.place, {})), rest, value)
    place = node.place if isinstance(node.value, dict) else value.place
    return Node(place, below)


def _environment(reader: _Reader, path: Path) -> dict[str, str]:
    """The variables: FILE.env beside FILE.yaml, with the process's own before them."""
    beside = path.with_suffix(".env")
    found: dict[str, str] = {}
    if beside.is_file() and beside != path:
        for number, line in enumerate(beside.read_text("utf-8").splitlines(), 1):
            match = re.fullmatch(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*", line)
            if match:
                value = match[2]
                quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
                found[match[1]] = value[1:-1] if quoted else value
            elif line.strip() and not line.lstrip().startswith("#"):
                reader.problem(Place(str(beside), number, path.parent), "not NAME=VALUE, a comment or an empty line")
    return {**found, **os.environ}


def _expanded(reader: _Reader, node: Node, variables: Mapping[str, str], env_file: Path) -> Node:
    if isinstance(node.value, dict):
        return replace(node, value={k: _expanded(reader, v, variables, env_file) for k, v in node.value.items()})
    if isinstance(node.value, list):
        return replace(node, value=[_expanded(reader, v, variables, env_file) for v in node.value])
    if "$" not in node.value:
        return node

    def expand(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        if name is None:
            return "$"
        value = variables.get(name)
        if value is None or (not value and default is not None):
            value = default
        if value is None:
            unset.append(name)
        return value or ""

    unset: list[str] = []
    text = VARIABLE.sub(expand, node.value)
    for name in unset:
        reader.problem(
            node.place,
            f"${{{name}}} is not set; set it in the environment or in {env_file}, or write ${{{name}:-default}}",
        )
    if unset:
        return replace(node, tag=UNSET)
    if not node.plain:
        return replace(node, value=text)
    composed = yaml.compose(text, Loader=yaml.SafeLoader) if re.fullmatch(r"[\w.+-]*", text) else None
    return replace(node, value=text, tag=_tag(composed) if isinstance(composed, yaml.ScalarNode) else "str")


def _tag(scalar: yaml.ScalarNode) -> str:
    tag = str(scalar.tag).rpartition(":")[2]
    return tag if tag in ("null", "bool", "int", "float") else "str"


# --- from nodes to dataclasses --------------------------------------------------------------------------------------


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
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if required and name not in node.value:
            path = f"{key}.{name}" if key else name
            reader.problem(node.place, f"{path}: missing; allowed: {describe(hints[name])}")
    if len(reader.problems) > before:
        return None
    try:
        return cls(**values)
    except SettingError as error:  # what a dataclass says of its fields together; its key is relative
        path = ".".join(filter(None, [key, error.key]))
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
        reader.problem(node.value[name].place, f"{path}: a key of type {_listed(owners, 'or')}, not of {chosen}")
        return
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean '{close[0]}'?" if close else f"allowed: {', '.join(sorted(known))}"
    reader.problem(node.value[name].place, f"{path}: unknown key; {hint}")


def _value(reader: _Reader, hint: Any, node: Node, key: str) -> Any:
    if node.tag == UNSET:
        return None
    before = len(reader.problems)
    try:
        return _converted(reader, hint, node, key)
    except _Mismatch as mismatch:
        if len(reader.problems) == before:
            why = f" {mismatch}" if str(mismatch) else ""
            reader.problem(node.place, f"{key}: got {node}{why}; allowed: {describe(hint)}")
        return None


def _converted(reader: _Reader, hint: Any, node: Node, key: str) -> Any:
    base, extras = _unwrapped(hint)
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
        return _tuple(reader, typing.get_args(base), extras, node, key)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _dict(reader, typing.get_args(base)[1], node, key)
    if dataclasses.is_dataclass(base):
        if not isinstance(node.value, dict):
            raise _Mismatch
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
        except _Mismatch:
            continue
        if not attempt.problems:
            return value
    return _converted(reader, members[-1], node, key)


def _literal(choices: Sequence[Any], node: Node) -> Any:
    for choice in choices:
        if isinstance(choice, str):
            if node.value == choice and node.tag in ("str", "null"):
                return choice
        elif node.value == str(choice) and node.tag == type(choice).__name__:
            return choice
    close = difflib.get_close_matches(str(node.value), [str(c) for c in choices], 1) if node.tag == "str" else []
    raise _Mismatch(f"(did you mean '{close[0]}'?)" if close else "")


def _tuple(reader: _Reader, members: Sequence[Any], extras: Sequence[Any], node: Node, key: str) -> tuple[Any, ...]:
    if not isinstance(node.value, list):
        raise _Mismatch
    shortest = max((e.low for e in extras if isinstance(e, Length)), default=0)
    open_ended = len(members) == 2 and members[1] is Ellipsis
    if (not open_ended and len(node.value) != len(members)) or len(node.value) < shortest:
        raise _Mismatch
    hints = [members[0]] * len(node.value) if open_ended else members
    for index, child in enumerate(node.value):
        reader.places[f"{key}.{index}"] = child.place
    return tuple(_value(reader, h, n, f"{key}.{i}") for i, (h, n) in enumerate(zip(hints, node.value, strict=True)))


def _dict(reader: _Reader, hint: Any, node: Node, key: str) -> dict[str, Any]:
    if not isinstance(node.value, dict):
        raise _Mismatch
    return {name: _value(reader, hint, child, f"{key}.{name}") for name, child in node.value.items()}


def _variant(reader: _Reader, variants: Variants, node: Node, key: str) -> Any:
    if not isinstance(node.value, dict):
        raise _Mismatch
    chosen = node.value.get("type")
    names: Any = Literal[tuple(variants.table)]
    if chosen is None:
        if variants.partial:
            return _partial(reader, [variants.config(name) for name in variants.table], node, key, variants)
        reader.problem(node.place, f"{key}.type: missing; allowed: {describe(names)}")
        raise _Mismatch
    reader.places[f"{key}.type"] = chosen.place
    name = _value(reader, names, chosen, f"{key}.type")
    if name is None:
        raise _Mismatch
    config = variants.config(name)
    if variants.partial:
        return _partial(reader, [config], node, key, variants)
    return _mapping(reader, config, node, key, variants=variants)


def _partial(
    reader: _Reader, classes: Sequence[type[Any]], node: Node, key: str, variants: Variants | None
) -> dict[str, Any]:
    if not isinstance(node.value, dict):
        raise _Mismatch
    hints: dict[str, Any] = {}
    for cls in classes:
        hints = {**typing.get_type_hints(cls, include_extras=True), **hints}
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
        raise _Mismatch
    units = next((e for e in extras if isinstance(e, Units)), None)
    if units:
        value: Any = _quantity(base, units, node)
    elif base is bool and node.tag == "bool":
        value = node.value.lower() in ("true", "yes", "on")
    elif base in (int, float):
        value = _number(base, node)
    elif base in (str, Path) and node.tag == "str":
        value = node.value if base is str else _path(extras, node)
    elif base in (str, Path) and node.tag != "str":
        raise _Mismatch("; quote it to make it text")
    else:
        raise _Mismatch
    for extra in extras:
        if isinstance(extra, Range) and value not in extra:
            raise _Mismatch
    return value


def _plain(node: Node) -> Any:
    """A value of no particular type, as JSON would have it."""
    if isinstance(node.value, dict):
        return {name: _plain(child) for name, child in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(child) for child in node.value]
    if node.tag in ("null", "bool"):
        return None if node.tag == "null" else node.value == "true"
    return int(node.value) if node.tag == "int" else float(node.value) if node.tag == "float" else node.value


def _number(base: Any, node: Node) -> Any:
    text = str(node.value)
    if node.tag in ("int", "float") or (node.tag == "str" and re.fullmatch(r"[+-]?\d+(\.\d+)?[eE][+-]?\d+", text)):
        try:
            number = base(text)
        except ValueError:
            raise _Mismatch from None
        if math.isfinite(number):
            return number
    raise _Mismatch


def _quantity(base: Any, units: Units, node: Node) -> Any:
    try:
        return base(units.parse(str(node.value).strip()))
    except ValueError:
        raise _Mismatch("without a known unit") from None


def _path(extras: Sequence[Any], node: Node) -> Path:
    folder = node.place.folder
    for extra in extras:
        if isinstance(extra, OutputPath):
            folder = extra.base(folder)
    path = Path(os.path.normpath(folder / Path(str(node.value)).expanduser()))
    for extra in extras:
        if isinstance(extra, InputPath):
            why = extra.missing(path)
            if why:
                raise _Mismatch(f"({why})")
    return path


# --- what is allowed, in words --------------------------------------------------------------------------------------


def describe(hint: Any) -> str:
    """What a type hint allows, in the words of a message: `auto, or a whole number from 1`."""
    base, extras = _unwrapped(hint)
    for extra in extras:
        if isinstance(extra, Units):
            return extra.what
        if isinstance(extra, InputPath):
            return f"{extra.kind if extra.kind != 'pictures' else 'a picture, a folder or a glob'} that is there"
        if isinstance(extra, Variants):
            return f"a mapping with a type: {', '.join(extra.table)}"
    origin, members = typing.get_origin(base), typing.get_args(base)
    ranges = "".join(f" {extra}" for extra in extras if isinstance(extra, Range))
    if origin in (Union, types.UnionType):
        return ", or ".join(describe(m) for m in members if m is not types.NoneType)
    if origin is Literal:
        return " | ".join(str(m) for m in members)
    if origin is tuple:
        many = (
            f"a list of {describe(members[0])}" if members[-1] is Ellipsis else f"[{', '.join(map(describe, members))}]"
        )
        return f"{describe(members[0])}, or {many}" if any(isinstance(e, OneOrMany) for e in extras) else many
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a mapping of names to {describe(members[1])}"
    if dataclasses.is_dataclass(base):
        return f"a mapping with {_listed(f.name for f in dataclasses.fields(base))}"
    words = {bool: "true | false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    return words.get(base, str(base)) + ranges


def _unwrapped(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    if typing.get_origin(hint) is Annotated:
        base, *extras = typing.get_args(hint)
        return base, tuple(extras)
    return hint, ()


def _listed(names: typing.Iterable[str], word: str = "and") -> str:
    listed = list(names)
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} {word} {listed[-1]}"
