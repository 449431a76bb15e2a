"""A configuration's text as a tree of nodes, each with its place. The only module that knows YAML.

What `--set` puts over the file, and the variables in it, are settled here: what comes out is only to be checked.
"""

from __future__ import annotations

import json
import os
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from edge_runner.errors import ConfigError

SET = "--set"  # the place of what was set on the command line
MAX_SHOWN_CHARS = 60
MAX_DEPTH = 50  # of mappings and lists in each other: beyond, recursion would end the process
MAX_NODES = 100_000  # aliases of aliases make billions of a few lines
YAML_TAG = "tag:yaml.org,2002:"
VARIABLE = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)(?::-((?:(?!\$\{)[^}])*))?\}|\{[^}]*\}?)")
EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")  # a number to everyone but YAML 1.1, which wants 1.0e+3


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
    `wrong` says what is wrong with its variables; it is told when the value is read, since nobody may want it.
    """

    place: Place
    value: dict[str, Node] | list[Node] | str
    tag: str = ""
    shown: str = ""
    plain: bool = False
    wrong: tuple[str, ...] = ()

    def __str__(self) -> str:
        if isinstance(self.value, dict):
            return "a mapping"
        if isinstance(self.value, list):
            return _shortened(f"[{', '.join(map(str, self.value))}]")
        if self.tag == "null":
            return f"nothing ({self.shown})" if self.secret else "nothing"
        shown = _shortened(self.shown)
        return f"'{shown}'" if self.tag == "str" else f"{shown} ({self.tag})" if self.tag == "bool" else shown

    @property
    def secret(self) -> bool:
        """Whether it came from a variable, so that no message may say anything of it."""
        return isinstance(self.value, str) and self.shown != self.value


@dataclass
class Problems:
    """What was found wrong so far, each with its place."""

    problems: list[tuple[Place, str]] = field(default_factory=list)
    nodes: int = 0
    secrets: dict[str, str] = field(default_factory=dict)
    """What each variable held -> how it is written, `${NAME}`."""

    def problem(self, place: Place, message: str) -> None:
        message = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)  # a mistake is one line
        if (place, message) not in self.problems:
            self.problems.append((place, message))

    def lines(self) -> list[str]:
        ordered = sorted(self.problems, key=lambda item: (item[0].file, item[0].line))
        return [f"{place}: {message}" for place, message in ordered]


class Mismatch(Exception):
    """A value is not what its type wants; the message says why, or is empty where the type says it all."""


def read_tree(problems: Problems, path: Path, sets: Sequence[str], *, variables: bool) -> Node:
    """The tree of a YAML or JSON file, with `sets` (KEY=VALUE) put over it, and its `${NAME}` filled in.

    Raise ConfigError where it cannot be read at all; put lesser mistakes into `problems`.
    """
    root = _tree(problems, path)
    for assignment in sets:
        root = _with_set(problems, root, assignment)
    if variables:
        env_file = variables_beside(path)
        found = {**_variables(problems, env_file), **os.environ}
        root = _expanded(root, found, env_file)
        problems.secrets = {found[name]: f"${{{name}}}" for name in _names(root) if found.get(name)}
    return root


def variables_beside(config: Path) -> Path:
    """The file of variables for a configuration."""
    return config.with_suffix(".env")


class Followed:
    """Variables of FILE.env that stand in the environment as well, where systemd put them: when the file changes, they follow."""

    def __init__(self, path: Path) -> None:
        self._file = variables_beside(path)
        self._seen = {name: value for name, value in self._now().items() if os.environ.get(name) == value}

    def follow(self) -> None:
        now = self._now()
        for name in self._seen:
            if name in now:
                os.environ[name] = now[name]
            else:
                os.environ.pop(name, None)

    def _now(self) -> dict[str, str]:
        try:
            return _variables(Problems(), self._file)
        except ConfigError:  # whoever reads the configuration is told
            return {}


def plain_tree(problems: Problems, values: Mapping[str, Any], file: str) -> Node:
    """The tree of values that were read before, said to stand in `file`."""
    composed = _composed(json.dumps(values))
    assert composed is not None
    return _node(problems, composed, Place(file, 0, Path()), "")


def _tree(problems: Problems, path: Path) -> Node:
    top = Place(str(path), 1, path.parent)
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
        composed = _composed(text)
    except OSError as error:
        raise ConfigError([f"{path}: {(error.strerror or str(error)).lower()}"]) from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}:{line}: not UTF-8 text; is it a configuration at all?"]) from error
    except yaml.YAMLError as error:
        line, message = _syntax_error(text, error)
        raise ConfigError([f"{path}:{line}: {message}"]) from error
    if composed is None:
        return Node(top, "", "null")
    return _node(problems, composed, top, "")


def _composed(text: str) -> yaml.Node | None:
    """YAML's nodes, None of an empty text. Raise YAMLError, also where the nesting would end the process."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for event in yaml.parse(text, Loader=loader):  # the parser, unlike the composer, does not recurse
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            mark = typing.cast("yaml.Mark", event.start_mark)
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {MAX_DEPTH} levels", problem_mark=mark)
    composed: yaml.Node | None = yaml.compose(text, Loader=loader)
    return composed


def _syntax_error(text: str, error: yaml.YAMLError) -> tuple[int, str]:
    """The line and the message."""
    if isinstance(error, yaml.reader.ReaderError):
        number = error.character if isinstance(error.character, int) else ord(error.character)
        line = text.count("\n", 0, text.find(chr(number))) + 1
        return line, f"not YAML: a control character, U+{number:04X}; is it a configuration at all?"
    problem, mark = str(getattr(error, "problem", error)), getattr(error, "problem_mark", None)
    context, start = getattr(error, "context", None), getattr(error, "context_mark", None)
    since = f" from line {start.line + 1}" if start and mark and start.line != mark.line else ""
    said = f"{context}{since}: {problem}" if context else problem
    return mark.line + 1 if mark else 1, f"not YAML: {said}{_syntax_hint(text, problem, start or mark)}"


def _syntax_hint(text: str, problem: str, mark: yaml.Mark | None) -> str:
    """What a mistake of this kind mostly is."""
    line = (text.split("\n")[mark.line :] or [""])[0] if mark else ""
    character = line[mark.column : mark.column + 1] if mark else ""
    if problem.startswith(("did not find expected ',' or", "expected ',' or")) and "${" in line:
        return "; within { } and [ ], quote text with ${…} in it"
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "; indent with spaces, not tabs"
    if character in tuple("*&@%`!|>"):
        return f"; quote text that begins with {character}"
    if problem.startswith("mapping values"):
        return "; is a space missing after a colon, or has text with ': ' in it no quotes?"
    return "; are the keys indented alike, is every quote and bracket closed?" if "expected" in problem else ""


def _node(problems: Problems, composed: yaml.Node, above: Place, key: str, depth: int = 0) -> Node:
    place = replace(above, line=composed.start_mark.line + 1 if above.line else 0)
    problems.nodes += 1
    if depth > MAX_DEPTH or problems.nodes > MAX_NODES:
        raise ConfigError(
            [f"{place}: {_shortened(key)}: too deep or too long; does an alias (*name) stand within its own anchor?"]
        )
    if not composed.tag.startswith(YAML_TAG):
        problems.problem(place, f"{key}: the tag {composed.tag} means nothing here; leave it out, or quote the text")
    if isinstance(composed, yaml.ScalarNode):
        text = str(composed.value)
        return Node(place, text, _tag(composed), text, not composed.style)
    if isinstance(composed, yaml.SequenceNode):
        items = [_node(problems, item, place, f"{key}.{i}", depth + 1) for i, item in enumerate(composed.value)]
        return Node(place, items)
    return Node(place, _items(problems, composed, place, key, depth))


def _items(problems: Problems, composed: yaml.Node, place: Place, key: str, depth: int) -> dict[str, Node]:
    items: dict[str, Node] = {}
    for name_node, value_node in composed.value:
        here = replace(place, line=name_node.start_mark.line + 1 if place.line else 0)
        if not isinstance(name_node, yaml.ScalarNode):
            problems.problem(here, f"{key or 'a key'}: a list or a mapping stands where a key's name belongs")
            continue
        name = str(name_node.value)
        path = f"{key}.{name}" if key else name
        if name in items:
            first = f"; the first stands in line {items[name].place.line}" if place.line else ""
            problems.problem(here, f"{path}: given twice{first}")
            continue
        items[name] = replace(_node(problems, value_node, place, path, depth + 1), place=here)
    return items


def _with_set(problems: Problems, root: Node, assignment: str) -> Node:
    key, equals, text = assignment.partition("=")
    place = Place(SET, 0, Path())
    if not equals or not all(key.split(".")):
        problems.problem(place, f"got '{key}'; write KEY=VALUE with a dotted key, such as camera.max_fps=5")
        return root
    try:
        return _placed(root, key.split("."), _set_value(problems, place, key, text))
    except Mismatch as error:
        problems.problem(place, f"{key}: {error}")
        return root


def _set_value(problems: Problems, place: Place, key: str, text: str) -> Node:
    """The value as YAML has it; what is no YAML is text where it does not look as if it were meant to be: `*.jpg`."""
    try:
        composed = _composed(text)
    except yaml.YAMLError as error:
        if text.lstrip()[:1] in tuple("[{\"'"):
            raise Mismatch(_syntax_error(text, error)[1]) from error
        return Node(place, text, "str", text)
    return Node(place, "", "null") if composed is None else _node(problems, composed, place, key)


def _placed(node: Node, path: list[str], value: Node) -> Node:
    """A copy of `node` with `value` at `path`, mappings made on the way."""
    if not path:
        return value
    name, rest = path[0], path[1:]
    if isinstance(node.value, list):
        if not name.isdecimal() or int(name) >= len(node.value):
            has = f"items 0 to {len(node.value) - 1}" if node.value else "no items"
            raise Mismatch(f"got '{name}'; the list has {has}")
        items = list(node.value)
        items[int(name)] = _placed(items[int(name)], rest, value)
        return replace(node, value=items)
    below = dict(node.value) if isinstance(node.value, dict) else {}
    below[name] = _placed(below.get(name, Node(value.place, {})), rest, value)
    place = node.place if isinstance(node.value, dict) else value.place
    return Node(place, below)


def _variables(problems: Problems, beside: Path) -> dict[str, str]:
    """Those of the file `beside`."""
    found: dict[str, str] = {}
    for number, line in enumerate(_env_lines(problems, beside), 1):
        match = re.fullmatch(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*", line)
        if match:
            value = match[2]
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
            found[match[1]] = value[1:-1] if quoted else value
        elif line.strip() and not line.lstrip().startswith("#"):
            problems.problem(Place(str(beside), number, beside.parent), "not NAME=VALUE, a comment or an empty line")
    return found


def _env_lines(problems: Problems, path: Path) -> list[str]:
    try:
        if not path.is_file():
            return []
        return path.read_bytes().decode("utf-8-sig").split("\n")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
    except UnicodeDecodeError:
        why = "not UTF-8 text"
    problems.problem(Place(str(path), 0, path.parent), why)
    return []


def _expanded(node: Node, variables: Mapping[str, str], env_file: Path) -> Node:
    if isinstance(node.value, dict):
        return replace(node, value={k: _expanded(v, variables, env_file) for k, v in node.value.items()})
    if isinstance(node.value, list):
        return replace(node, value=[_expanded(v, variables, env_file) for v in node.value])
    if "$" not in node.value:
        return node
    wrong: list[str] = []
    text = VARIABLE.sub(lambda match: _variable(match, variables, env_file, wrong), node.value)
    if wrong:
        return replace(node, wrong=tuple(wrong))
    if not node.plain:
        return replace(node, value=text)
    return replace(node, value=text, tag=_plain_tag(text))


def _variable(match: re.Match[str], variables: Mapping[str, str], env_file: Path, wrong: list[str]) -> str:
    """What stands for one `$$` or `${…}`; a complaint goes into `wrong`."""
    name, default = match[1], match[2]
    if match[0] == "$$":
        return "$"
    if name is None:
        wrong.append(f"got {match[0]}; allowed: ${{NAME}}, ${{NAME:-default}}, or $$ for a dollar")
        return ""
    value = variables.get(name) or default
    if value is None and name not in variables:
        where = f"set it in the environment or in {env_file}"
        wrong.append(f"${{{name}}} is not set; {where}, or write ${{{name}:-default}}")
    return value or ""


def _names(node: Node) -> Iterator[str]:
    """The variables that stand anywhere in a tree."""
    if isinstance(node.value, str):
        yield from (match[1] for match in VARIABLE.finditer(node.shown) if match[1])
    else:
        for child in node.value.values() if isinstance(node.value, dict) else node.value:
            yield from _names(child)


def _plain_tag(text: str) -> str:
    """The type that YAML gives to unquoted text; nothing at all is null, but a variable that holds ~ is text."""
    resolve: Any = yaml.SafeLoader("").resolve
    found = _tag(yaml.ScalarNode(resolve(yaml.ScalarNode, text, (True, False)), text))
    return "str" if found == "null" and text else found


def _tag(scalar: yaml.ScalarNode) -> str:
    tag = str(scalar.tag).rpartition(":")[2]
    if tag == "str" and not scalar.style and EXPONENT.fullmatch(str(scalar.value)):
        return "float"
    return tag if tag in ("null", "bool", "int", "float") else "str"


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"
