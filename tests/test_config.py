"""The general reader, over settings of no use to anyone."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edge_runner import config
from edge_runner.errors import EXIT_CONFIG, ConfigError, EdgeRunnerError, SettingError
from edge_runner.fields import (
    Check,
    Duration,
    Fraction,
    InputPath,
    Length,
    OneOrMany,
    OutputPath,
    Partial,
    Range,
    Size,
    Variants,
    describe,
)
from edge_runner.model.bundle import Manifest
from edge_runner.tree import Followed

SECRET = "hunter2"


@dataclass(frozen=True)
class Circle:
    type: Literal["circle"] = "circle"
    radius: Annotated[float, Range(0, above=True)] = 1.0
    color: str | None = None


@dataclass(frozen=True)
class Square:
    side: Annotated[int, Range(1)] = field(kw_only=True)
    type: Literal["square"] = "square"
    color: str | None = None


class CirclePart:
    Config = Circle


class SquarePart:
    Config = Square


SHAPES = {"circle": f"{__name__}:CirclePart", "square": f"{__name__}:SquarePart"}


@dataclass(frozen=True)
class Frame:
    """A part of its own."""

    left: Fraction = 0.0
    right: Fraction = 1.0
    note: str = ""
    between: Annotated[tuple[float, float], Check(lambda pair: pair[0] < pair[1], "[low, high], low below high")] = (
        0.0,
        1.0,
    )


@dataclass(frozen=True)
class Toy:
    name: str
    count: Annotated[int, Range(1, 9)] = 1
    ratio: Annotated[float, Range(0, above=True)] = 1.0
    on: bool = False
    wait: Duration = 1.0
    room: Size = 0
    pair: tuple[Fraction, Fraction] = (0.0, 1.0)
    words: tuple[str, ...] = ()
    means: Annotated[tuple[float, ...], OneOrMany(), Length(1)] = (0.0,)
    threads: Literal["auto"] | Annotated[int, Range(1)] = "auto"
    turn: Literal[0, 90] = 0
    mood: Literal["happy", "sleepy"] = "happy"
    scores: dict[str, Fraction] = field(default_factory=dict)
    path: Annotated[Path, InputPath("file")] | None = None
    log: Annotated[Path, OutputPath()] | None = None
    frame: Frame = Frame()
    shape: Annotated[Any, Variants(SHAPES)] = Circle()
    shapes: Annotated[tuple[Annotated[Any, Variants(SHAPES)], ...], Length(1)] = (Circle(),)
    part: Annotated[dict[str, Any], Partial(Circle)] | None = None
    either: Annotated[dict[str, Any], Variants(SHAPES, partial=True)] | None = None
    mixed: tuple[int, ...] | tuple[str, ...] = ()
    anything: Any = None


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    for name in ("LOGS_DIRECTORY", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text, sets=(), **others):
    """The toy that `toy.yaml` of such a text makes."""
    Path("toy.yaml").write_text(text, "utf-8")
    return config.load(Path("toy.yaml"), Toy, sets=sets, **others).value


def mistakes(text, sets=(), cls=Toy):
    """The lines of what is wrong with such a `toy.yaml`, its name taken off."""
    Path("toy.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        config.load(Path("toy.yaml"), cls, sets=sets)
    assert caught.value.exit_code == EXIT_CONFIG
    assert all(len(line.splitlines()) == 1 for line in caught.value.problems)
    return [line.removeprefix("toy.yaml:") for line in caught.value.problems]


def complaint(text):
    """All that is said of such a `toy.yaml`; nothing where it is right."""
    try:
        read(text)
    except ConfigError as error:
        return str(error)
    return ""


# --- what is read ---------------------------------------------------------------------------------------------------


def test_defaults_stand_where_nothing_is_said(folder):
    """Only what has no default must be given."""
    assert read("name: a") == Toy("a")


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("count: 9", "count", 9),
        ("ratio: 2", "ratio", 2.0),
        ("ratio: 1e3", "ratio", 1000.0),
        ("ratio: 1E-2", "ratio", 0.01),
        ("on: true", "on", True),
        ("on: yes", "on", True),
        ("on: Off", "on", False),
        ("wait: 1m 30s", "wait", 90.0),
        ("wait: 0", "wait", 0.0),
        ("room: 64MB", "room", 64_000_000),
        ("room: 1.001KB", "room", 1001),
        ("pair: [0, 0.5]", "pair", (0.0, 0.5)),
        ('words: [a, "7"]', "words", ("a", "7")),
        ("words: []", "words", ()),
        ("means: 5", "means", (5.0,)),
        ("means: [1, 2, 3]", "means", (1.0, 2.0, 3.0)),
        ("threads: auto", "threads", "auto"),
        ("threads: 4", "threads", 4),
        ("turn: 90", "turn", 90),
        ("mood: sleepy", "mood", "sleepy"),
        ("scores: {cat: 0.5, 7: 1}", "scores", {"cat": 0.5, "7": 1.0}),
        ("mixed: [1, 2]", "mixed", (1, 2)),
        ('mixed: ["1", a]', "mixed", ("1", "a")),
        ("path:", "path", None),
        ("frame: {left: 0.5}", "frame", Frame(0.5)),
        ("shape: {type: square, side: 3}", "shape", Square(side=3)),
        ("shapes: [{type: square, side: 3}, {type: circle}]", "shapes", (Square(side=3), Circle())),
        ("part: {radius: 2}", "part", {"radius": 2.0}),
        ("part:", "part", None),
        ("either: {side: 2}", "either", {"side": 2}),
        ("either: {type: circle, radius: 2}", "either", {"type": "circle", "radius": 2.0}),
        ("anything: [1, 1.5, 1e-05, yes, ~, x, {a: b}]", "anything", [1, 1.5, 1e-5, True, None, "x", {"a": "b"}]),
    ],
)
def test_every_kind_of_value_is_read(folder, text, key, value):
    """A value of the right type comes through as just that."""
    got = getattr(read(f"name: a\n{text}\n"), key)
    assert got == value
    assert repr(got) == repr(value)


def test_json_is_read_too(folder):
    """A JSON file is a YAML file."""
    assert read('{"name": "a", "means": [1, 2.5], "on": true, "path": null}') == Toy("a", means=(1.0, 2.5), on=True)


def test_a_byte_order_mark_is_no_part_of_the_first_key(folder):
    """An editor's mark before the text does no harm."""
    assert read("\ufeffname: a\n") == Toy("a")


def test_an_alias_stands_for_its_anchor(folder):
    """YAML's own way of saying a thing twice works."""
    toy = read("name: a\nshapes:\n- &one {type: square, side: 3}\n- *one\n")
    assert toy.shapes == (Square(side=3), Square(side=3))


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("count: true", "2: count: got true (bool); allowed: a whole number from 1 to 9"),
        ("count: 1.0", "2: count: got 1.0; allowed: a whole number from 1 to 9"),
        ('count: "3"', "2: count: got '3'; allowed: a whole number from 1 to 9"),
        ('ratio: "1e3"', "2: ratio: got '1e3'; allowed: a number above 0"),
        ("count: 1e0", "2: count: got 1e0; allowed: a whole number from 1 to 9"),
        ("count: [3]", "2: count: got [3]; allowed: a whole number from 1 to 9"),
        ("count: {a: 3}", "2: count: got a mapping; allowed: a whole number from 1 to 9"),
        ("count:", "2: count: got nothing; allowed: a whole number from 1 to 9"),
        ("count: 0", "2: count: got 0; allowed: a whole number from 1 to 9"),
        ("count: 10", "2: count: got 10; allowed: a whole number from 1 to 9"),
        ("count: 0x5", "2: count: got 0x5; allowed: a whole number from 1 to 9"),
        ("count: 1:30", "2: count: got 1:30; allowed: a whole number from 1 to 9"),
        ("ratio: 0", "2: ratio: got 0; allowed: a number above 0"),
        ("ratio: .inf", "2: ratio: got .inf; allowed: a number above 0"),
        ("ratio: .nan", "2: ratio: got .nan; allowed: a number above 0"),
        ("ratio: 1e999", "2: ratio: got 1e999; allowed: a number above 0"),
        ("ratio: fast", "2: ratio: got 'fast'; allowed: a number above 0"),
        ("on: 1", "2: on: got 1; allowed: true | false"),
        ('on: "true"', "2: on: got 'true'; allowed: true | false"),
        ("words: [~]", "2: words.0: got nothing; allowed: text"),
        ("mixed: [1, a]", "2: mixed.0: got 1 (quote it to make it text); allowed: text"),
        ("words: [7]", "2: words.0: got 7 (quote it to make it text); allowed: text"),
        ("words: [a, no]", "2: words.1: got no (bool) (quote it to make it text); allowed: text"),
        ("words: a", "2: words: got 'a'; allowed: a list, each item text"),
        ("wait: 30", "2: wait: got 30 without a unit; allowed: a duration such as 500ms, 30s, 5m or 1h"),
        ("wait: 5 weeks", "2: wait: got '5 weeks'; allowed: a duration such as 500ms, 30s, 5m or 1h"),
        ("wait: 99999d", "2: wait: got '99999d'; allowed: a duration such as 500ms, 30s, 5m or 1h"),
        ("room: 5", "2: room: got 5 without a unit; allowed: a size such as 64MB or 512KB"),
        ("pair: [0, 2]", "2: pair.1: got 2; allowed: a number from 0 to 1"),
        ("pair: [0]", "2: pair: got [0]; allowed: [a number from 0 to 1, a number from 0 to 1]"),
        ("means: []", "2: means: got []; allowed: a number, or a list of such"),
        ("means: x", "2: means.0: got 'x'; allowed: a number"),
        ("threads: 0", "2: threads: got 0; allowed: auto, or a whole number from 1"),
        ("threads: all", "2: threads: got 'all'; allowed: auto, or a whole number from 1"),
        ("turn: 45", "2: turn: got 45; allowed: 0 | 90"),
        ('turn: "90"', "2: turn: got '90' (without quotes); allowed: 0 | 90"),
        ("mood: slepy", "2: mood: got 'slepy' (did you mean 'sleepy'?); allowed: happy | sleepy"),
        ("scores: {cat: 2}", "2: scores.cat: got 2; allowed: a number from 0 to 1"),
        ("scores: 5", "2: scores: got 5; allowed: a mapping of names to a number from 0 to 1"),
        ("path: gone.txt", "2: path: got 'gone.txt' (no such file or directory); allowed: a file that is there"),
        ("path: .", "2: path: got '.' (it is a folder); allowed: a file that is there"),
        ('path: ""', "2: path: got ''; allowed: a file that is there"),
        ('path: "a\\0b"', "2: path: got 'a\\x00b'; allowed: a file that is there"),
        (
            "path: ~no-such-user/x",
            "2: path: got '~no-such-user/x' (there is no such user); allowed: a file that is there",
        ),
        ("path: 5", "2: path: got 5 (quote it to make it text); allowed: a file that is there"),
        ('log: ""', "2: log: got ''; allowed: a path"),
        ("frame: 5", "2: frame: got 5; allowed: a mapping with left, right, note and between"),
        ("frame: {between: [2, 1]}", "2: frame.between: got [2, 1]; allowed: [low, high], low below high"),
        ("shape: {}", "2: shape.type: missing; allowed: circle | square"),
        ("shape: circle", "2: shape: got 'circle'; allowed: a mapping with a type: circle, square"),
        ("shape: {type: }", "2: shape.type: got nothing; allowed: circle | square"),
        ("shape: {type: circel}", "2: shape.type: got 'circel' (did you mean 'circle'?); allowed: circle | square"),
        ("shape: {type: square}", "2: shape.side: missing; allowed: a whole number from 1"),
        ("shape: {type: circle, side: 1}", "2: shape.side: a key of type square, not of 'circle'"),
        ("shapes: []", "2: shapes: got []; allowed: a list, each item a mapping with a type: circle, square"),
        ("shapes: [{type: circle}, {type: x}]", "2: shapes.1.type: got 'x'; allowed: circle | square"),
        ("part: 5", "2: part: got 5; allowed: a mapping with type, radius and color"),
        ("part: {radius: 0}", "2: part.radius: got 0; allowed: a number above 0"),
        ("part: {radios: 1}", "2: part.radios: unknown key; did you mean 'radius'?"),
        ("either: {side: 0}", "2: either.side: got 0; allowed: a whole number from 1"),
        ("either: {zzz: 0}", "2: either.zzz: unknown key; allowed: color, radius, side, type"),
        ("either: {type: circle, side: 1}", "2: either.side: a key of type square, not of 'circle'"),
        ("either: {type: x}", "2: either.type: got 'x'; allowed: circle | square"),
        ("anything: 0x10", "2: anything: got 0x10; allowed: anything"),
        ("coutn: 1", "2: coutn: unknown key; did you mean 'count'?"),
        ("name: b", "2: name: given twice; the first stands in line 1"),
        ("? [x]\n: 1", "2: a key: a list or a mapping stands where a key's name belongs"),
        ("words: !secret x", "2: words: the tag !secret means nothing here; leave it out, or quote the text"),
    ],
)
def test_a_mistake_is_one_line_that_tells_all(folder, text, line):
    """Line, key, what it got, what is allowed: just so, and nothing else."""
    assert mistakes(f"name: a\n{text}\n")[0] == line


def test_a_key_without_a_likely_meaning_lists_what_there_is(folder):
    """Where no key is close, all of them are named."""
    (line,) = mistakes("name: a\nzzzzz: 1\n")
    assert line.startswith("2: zzzzz: unknown key; allowed: anything, count, ")


def test_a_missing_key_is_told_where_its_section_stands(folder):
    """What must be given and is not, is asked for in the line where its mapping begins."""
    assert mistakes("# a comment\ncount: 1\n") == ["2: name: missing; allowed: text"]
    assert mistakes("name: a\nshape:\n  type: square\n") == ["2: shape.side: missing; allowed: a whole number from 1"]


def test_ten_mistakes_are_ten_lines_in_their_order(folder):
    """Everything that is wrong comes at once, in the order of the file."""
    text = (
        "count: 0\n"  # and name is missing
        "ratio: quick\n"
        "on: 1\n"
        "wait: 30\n"
        "colour: red\n"
        "shape:\n"
        "  type: circle\n"
        "  side: 3\n"
        "words:\n"
        "  - a\n"
        "  - 5\n"
        "frame:\n"
        "  left: ${NOT_SET_ANYWHERE}\n"
        "turn: 45\n"
        "turn: 90\n"
    )
    found = mistakes(text)
    assert [line.split(": ")[:2] for line in found] == [
        ["1", "count"],
        ["1", "name"],
        ["2", "ratio"],
        ["3", "on"],
        ["4", "wait"],
        ["5", "colour"],
        ["8", "shape.side"],
        ["11", "words.1"],
        ["13", "frame.left"],
        ["14", "turn"],
        ["15", "turn"],
    ]


def test_keys_are_checked_beside_a_type_that_is_none(folder):
    """A misspelt type does not hide the other mistakes of its section."""
    assert mistakes("name: a\nshape:\n  type: squar\n  sid: 1\n  radius: 0\n") == [
        "3: shape.type: got 'squar' (did you mean 'square'?); allowed: circle | square",
        "4: shape.sid: unknown key; did you mean 'side'?",
        "5: shape.radius: got 0; allowed: a number above 0",
    ]


def test_long_and_odd_values_are_shown_short_and_on_one_line(folder):
    """No value breaks the line or fills the screen, and control characters cannot reach the terminal."""
    (line,) = mistakes("name: a\ncount: |\n  one\n  two\n")
    assert line == "2: count: got 'one\\ntwo\\n'; allowed: a whole number from 1 to 9"
    (line,) = mistakes(f"name: a\ncount: {'x' * 500}\n")
    assert line == f"2: count: got '{'x' * 59}…'; allowed: a whole number from 1 to 9"
    (line,) = mistakes('name: a\n"\\e[31m": 1\n')
    assert line.startswith("2: \\x1b[31m: unknown key")


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("", "1: got nothing; allowed: a mapping with name, count, "),
        ("# nothing but words\n", "1: got nothing; allowed: a mapping with name, "),
        ("- a\n- b\n", "1: got ['a', 'b']; allowed: a mapping with name, "),
        ("hello\n", "1: got 'hello'; allowed: a mapping with name, "),
        ("name: a\n\tcount: 1\n", "2: not YAML: "),
        ("name: [a\ncount: 1\n", "2: not YAML: "),
        ("name: a\nwords: *.jpg\n", "2: not YAML: "),
        ("name: a\n---\nname: b\n", "2: not YAML: "),
        ("name: a\nb: \0\n", "2: not YAML: a control character, U+0000; "),
        (b"name: a\nmood: \xe9\n", "2: not UTF-8 text; "),
        ("name: a".encode("utf-16"), "1: not UTF-8 text; "),
        ("name: a\nanything: " + "[" * 60 + "]" * 60, "2: not YAML: nested deeper than 50 levels"),
        ("name: a\nanything: " + "[" * 200_000, "2: not YAML: nested deeper than 50 levels"),
        ("name: a\nanything: &a [*a]\n", "2: anything.0.0.0"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_mistake(folder, text, start):
    """What is no mapping, no YAML or no text at all is told in one line, with the line where it goes wrong."""
    (line,) = mistakes(text)
    assert line.startswith(start)


def test_aliases_cannot_blow_up(folder):
    """A few lines of aliases of aliases end in a mistake, not in all of the memory."""
    rows = ["name: a", "anything:", "- &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"- &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (line,) = mistakes("\n".join(rows))
    assert "too deep or too long" in line


@pytest.mark.parametrize("without_c", [False, True])
@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("name: a\n\tcount: 1\n", "tab"),
        ("shape:\n\ttype: circle\n", "indent with spaces, not tabs"),
        ("name: a\nwords: *.jpg\n", "quote text that begins with *"),
        ("name: @home\n", "quote text that begins with @"),
        ("name: a: b\n", "is a space missing after a colon"),
        ("shape:\n  type:circle\n  color: red\n", "is a space missing after a colon"),
        ("scores: {a: ${X}}\n", "quote text with ${…} in it"),
        ("words: [${X}, b]\n", "quote text with ${…} in it"),
        ("name: b\nshape: {type: circle\n", "from line 2: "),
        ('name: "a\n', "is every quote and bracket closed"),
        ("shape: {type: circle\n", "is every quote and bracket closed"),
        ("shape:\n   type: circle\n  color: red\n", "are the keys indented alike"),
    ],
)
def test_yaml_mistakes_come_with_their_likely_cause(folder, monkeypatch, without_c, text, hint):
    """YAML's own words are for its authors: the usual slip behind them is said too, by either of its parsers."""
    if without_c:
        monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    (line,) = mistakes(text)
    assert hint in line


def test_a_file_that_cannot_be_read_is_named(folder):
    """No file, or a folder in its place, is a mistake like any other."""
    for name, why in (("gone.yaml", "no such file or directory"), (".", "is a directory")):
        with pytest.raises(ConfigError) as caught:
            config.load(Path(name), Toy)
        assert caught.value.problems == (f"{name}: {why}",)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(st.text(max_size=80))
@example("a: !!binary x")
@example("- ? x")
@example("{a: 1, ? [] : 2}")
@example("name: !!bool x")
@example("anything: !!float x")
@example("anything: !!int x")
def test_any_text_is_read_or_refused_in_lines(folder, text):
    """Whatever a file holds, nothing but a ConfigError comes of it."""
    Path("any.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        config.load(Path("any.yaml"), Toy)
        problems = ()
    except ConfigError as error:
        problems = error.problems
    assert all(line.startswith("any.yaml:") and len(line.splitlines()) == 1 for line in problems)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["auto", "circle", "5s", "${HOME}", "${X-}", "$$", "~nobody-here/x", "*?[", "1e5", "0x1f", "\0"]),
    st.integers(10**400, 10**401),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*Toy.__dataclass_fields__, "tpye"]),
        VALUES | st.fixed_dictionaries({"type": VALUES}, optional={"side": VALUES, "radius": VALUES}),
        min_size=1,
    )
)
def test_any_value_is_read_or_refused_in_lines(folder, values):
    """Whatever stands under a key, it is read, or refused with the key's name."""
    Path("any.yaml").write_text(yaml.safe_dump(values, allow_unicode=True), "utf-8", errors="surrogatepass")
    try:
        assert isinstance(config.load(Path("any.yaml"), Toy).value, Toy)
        problems = ()
    except ConfigError as error:
        problems = error.problems
    assert all(re.match(r"any\.yaml:\d+: ", line) for line in problems)


# --- --set ----------------------------------------------------------------------------------------------------------


def test_set_goes_over_the_file(folder):
    """The last --set wins, over the file and over those before."""
    toy = read("name: a\ncount: 2\n", ["count=3", "count=4", "frame.left=0.5", "means=[1, 2]"])
    assert (toy.name, toy.count, toy.frame.left, toy.means) == ("a", 4, 0.5, (1.0, 2.0))


def test_set_mends_what_is_wrong_in_the_file(folder):
    """What is replaced is not complained of."""
    assert read("name: 5\ncount: zero\nframe: 7\n", ["name=b", "count=1", "frame.left=0.1"]).name == "b"


def test_set_reaches_into_lists(folder):
    """A number counts a list's items, from 0."""
    toy = read("name: a\npair: [0, 1]\nshapes: [{type: square, side: 1}]\n", ["pair.1=0.5", "shapes.0.side=7"])
    assert toy.pair == (0.0, 0.5)
    assert toy.shapes == (Square(side=7),)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("b", "b"),
        ('"5"', "5"),
        ("x=y", "x=y"),
        ("*.jpg", "*.jpg"),
        ("@home", "@home"),
        ("a: b: c", "a: b: c"),
        ("${WHO}", "me"),
    ],
)
def test_set_takes_text_as_it_is(folder, monkeypatch, value, name):
    """What is no YAML is text: a shell has taken the quotes away already."""
    monkeypatch.setenv("WHO", "me")
    assert read("name: a", [f"name={value}"]).name == name


def test_another_type_from_the_command_line_voids_the_old_ones_keys(folder):
    """With another type by --set, the file's keys of the type before are left alone, their values and variables too."""
    text = "name: a\nshape: {type: square, side: wrong, color: red}\n"
    assert read(text, ["shape.type=circle"]).shape == Circle(color="red")
    assert read(text.replace("wrong", '"${NOT_SET_ANYWHERE}"'), ["shape.type=circle"]).shape == Circle(color="red")
    assert read("name: a\neither: {type: square, side: 0}\n", ["either.type=circle"]).either == {"type": "circle"}


def test_only_the_old_types_keys_are_void(folder):
    """A key that no type knows, or one from the command line too, is still a mistake."""
    assert mistakes("name: a\nshape: {type: square, sied: 1}\n", ["shape.type=circle"]) == [
        "2: shape.sied: unknown key; allowed: color, radius, type"
    ]
    assert mistakes("name: a\n", ["shape.type=circle", "shape.side=1"])[0].endswith(
        "--set: shape.side: a key of type square, not of 'circle'"
    )
    assert mistakes("name: a\nshape: {type: circle}\n", ["shape.side=1"])[0].endswith(
        "--set: shape.side: a key of type square, not of 'circle'"
    )


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("count", "--set: got 'count'; write KEY=VALUE with a dotted key, such as camera.max_fps=5"),
        ("=5", "--set: got ''; write KEY=VALUE with a dotted key, such as camera.max_fps=5"),
        ("frame..left=5", "--set: got 'frame..left'; write KEY=VALUE with a dotted key, such as camera.max_fps=5"),
        ("coutn=1", "--set: coutn: unknown key; did you mean 'count'?"),
        ("count=0", "--set: count: got 0; allowed: a whole number from 1 to 9"),
        ("count=", "--set: count: got nothing; allowed: a whole number from 1 to 9"),
        ("count.x=0", "--set: count: got a mapping; allowed: a whole number from 1 to 9"),
        ("words.2=x", "--set: words.2: got '2'; the list has items 0 to 1"),
        ("words.one=x", "--set: words.one: got 'one'; the list has items 0 to 1"),
        ("shapes.0=x", "--set: shapes.0: got '0'; the list has no items"),
        ("frame={left: 0, left: 1}", "--set: frame.left: given twice"),
        ("pair=[0, 1", "--set: pair: not YAML: "),
        ("anything=" + "[" * 60, "--set: anything: not YAML: nested deeper than 50 levels"),
    ],
)
def test_mistakes_on_the_command_line_are_told_as_such(folder, assignment, line):
    """--set stands where otherwise file and line stand."""
    found = [
        line for line in mistakes("name: a\nwords: [a, b]\nshapes: []\n", [assignment]) if line.startswith("--set")
    ]
    assert len(found) == 1
    assert found[0].startswith(line)


# --- variables ------------------------------------------------------------------------------------------------------


@pytest.fixture
def env_file(folder):
    """Write `toy.env`."""
    return lambda text: Path("toy.env").write_text(text, "utf-8")


def test_variables_come_from_the_environment_then_from_the_file_beside(folder, env_file, monkeypatch):
    """The process's own variable wins over FILE.env's, and the default is for neither."""
    monkeypatch.setenv("WHO", "environment")
    monkeypatch.setenv("EMPTY", "")
    env_file("WHO=file\nBESIDE=file\n")
    assert read("name: ${WHO}").name == "environment"
    assert read("name: ${BESIDE}").name == "file"
    assert read("name: ${BESIDE:-default}").name == "file"
    assert read("name: ${NOT_SET_ANYWHERE:-default}").name == "default"
    assert read("name: x${NOT_SET_ANYWHERE:-}y").name == "xy"
    assert read("name: ${EMPTY:-default}").name == "default"
    assert read('name: "${EMPTY}"').name == ""


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("WHO=me", "me"),
        ("  export WHO = me  ", "me"),
        ("WHO='a b '", "a b "),
        ('WHO="a=b"', "a=b"),
        ("WHO=\"it's", "\"it's"),
        ("WHO=a#b $c ${d}", "a#b $c ${d}"),
        ("# x\n\nWHO=me\r", "me"),
        ("WHO=a\u2028b", "a\u2028b"),
        ("\ufeffWHO=me", "me"),
    ],
)
def test_lines_of_the_env_file(folder, env_file, line, value):
    """NAME=VALUE as in a shell's file, quotes taken off, and nothing in a value expanded again."""
    env_file(line)
    assert read("name: ${WHO}").name == value


def test_mistakes_of_the_env_file_are_told_without_what_it_holds(folder, env_file):
    """A line that is none is named by its number: it may hold a password."""
    env_file(f"A=1\n{SECRET}\n")
    with pytest.raises(ConfigError) as caught:
        read("name: a")
    assert caught.value.problems == ("toy.env:2: not NAME=VALUE, a comment or an empty line",)
    Path("toy.env").write_bytes(b"A=\xff")
    with pytest.raises(ConfigError) as caught:
        read("name: a")
    assert caught.value.problems == ("toy.env: not UTF-8 text",)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_env_file_of_someone_else_is_a_mistake(folder, env_file):
    """An env file that this user may not read is told, not passed over."""
    env_file("A=1")
    Path("toy.env").chmod(0)
    assert mistakes("name: a") == ["toy.env: permission denied"]


@pytest.mark.parametrize(
    ("text", "value", "got"),
    [
        ("count: ${X}", "5", {"count": 5}),
        ("count: 0${X}", "5", {"count": 5}),
        ("ratio: ${X}", "1e3", {"ratio": 1000.0}),
        ("on: ${X}", "true", {"on": True}),
        ('name: "${X}"', "5", {"name": "5"}),
        ("name: ${X}", "a: b", {"name": "a: b"}),
        ("name: ${X}", "[a", {"name": "[a"}),
        ("name: ${X}", "*x # y", {"name": "*x # y"}),
        ("name: ${X}", "...", {"name": "..."}),
        ("name: ${X}", "~", {"name": "~"}),
        ("name: ${X}", "null", {"name": "null"}),
        ("name: ${X}", "$$ ${X}", {"name": "$$ ${X}"}),
        ("path: ${X}", "", {"path": None}),
        ("wait: ${X}s", "5", {"wait": 5.0}),
        ("words: ['${X}', b]", "5", {"words": ("5", "b")}),
        ("scores:\n  a: ${X}", "0.5", {"scores": {"a": 0.5}}),
    ],
)
def test_an_unquoted_variable_has_its_values_type(folder, monkeypatch, text, value, got):
    """Unquoted, a value is read as if it stood there, but never as more than one scalar; quoted, it is text."""
    monkeypatch.setenv("X", value)
    toy = read(text if text.startswith("name") else f"name: a\n{text}\n")
    assert {key: getattr(toy, key) for key in got} == got


@pytest.mark.parametrize(
    ("text", "name"),
    [("$$5", "$5"), ("$${X}", "${X}"), ("$5", "$5"), ("a$", "a$"), ("$$$$", "$$"), ("$X", "$X")],
)
def test_a_dollar_is_written_twice(folder, text, name):
    """$$ is a dollar; a lone one before anything but a brace is left alone."""
    assert read(f"name: {text}").name == name


@pytest.mark.parametrize("wrong", ["${X-y}", "${1X}", "${}", "${X:-${Y}}", "${X"])
def test_a_variable_that_is_none_is_a_mistake(folder, monkeypatch, wrong):
    """A reference that cannot be understood is not handed on as text."""
    monkeypatch.setenv("X", SECRET)
    (line,) = mistakes(f'name: "{wrong}"')
    assert line.startswith("1: name: got ${")
    assert "allowed: ${NAME}, ${NAME:-default}, or $$ for a dollar" in line


def test_an_unset_variable_is_a_mistake_with_its_remedy(folder):
    """Key, name, and the two ways to set it; each unset variable is told."""
    assert mistakes("name: a\nframe:\n  note: ${UNSET_A} ${UNSET_B}\n") == [
        "3: frame.note: ${UNSET_A} is not set; set it in the environment or in toy.env, or write ${UNSET_A:-default}",
        "3: frame.note: ${UNSET_B} is not set; set it in the environment or in toy.env, or write ${UNSET_B:-default}",
    ]
    assert len(mistakes('name: "${UNSET_A} ${UNSET_A}"')) == 1


@pytest.mark.parametrize("key", sorted(set(Toy.__dataclass_fields__) - {"name", "anything"}))
@pytest.mark.parametrize("value", [SECRET, "271828", "27.1828e9", "yes", "happi", "~hunter2/x", "/hunter2"])
def test_a_variables_value_is_never_printed(folder, monkeypatch, key, value):
    """Whatever is wrong with it, a message shows a variable by its name only, and says nothing of what it is like."""
    monkeypatch.setenv("PASSWORD", value)
    refused = 0
    for text in ("${PASSWORD}", "- ${PASSWORD}", "a: ${PASSWORD}", "type: ${PASSWORD}", "left: ${PASSWORD}"):
        problems = complaint(f"name: a\n{key}:\n  {text}\n")
        refused += bool(problems)
        assert value not in problems
        assert "did you mean" not in problems or "unknown key" in problems
    assert refused


def test_a_fields_own_check_shows_a_variable_by_its_name(folder, monkeypatch):
    """What is wrong with items together does not show it either."""
    monkeypatch.setenv("PASSWORD", "0.8125")
    assert mistakes("name: a\nframe:\n  between:\n    - ${PASSWORD}\n    - 0.5\n") == [
        "3: frame.between: got [${PASSWORD}, 0.5]; allowed: [low, high], low below high"
    ]


def test_no_message_after_reading_shows_a_variable(folder, monkeypatch):
    """What is found wrong later, with the value in hand, still shows the variable's name."""
    monkeypatch.setenv("PASSWORD", "hunter22")
    (folder / "toy.yaml").write_text("name: rtsp://me:${PASSWORD}@host\n")
    loaded = config.load(folder / "toy.yaml", Toy)
    assert loaded.value.name == "rtsp://me:hunter22@host"
    shown = loaded.locate(SettingError("rtsp://me:hunter22@host does not answer", key="name"))
    assert shown.endswith("toy.yaml:1: name: rtsp://me:${PASSWORD}@host does not answer")


def test_variables_can_be_left_alone(folder):
    """A manifest's dollars are its own."""
    assert read("name: ${NOT_SET_ANYWHERE}", variables=False).name == "${NOT_SET_ANYWHERE}"


# --- paths and places -----------------------------------------------------------------------------------------------


def test_paths_are_relative_to_who_names_them(folder, monkeypatch):
    """The file's are relative to its folder, the command line's to where one stands."""
    (folder / "etc").mkdir()
    for name in ("etc/a.txt", "a.txt"):
        (folder / name).touch()
    (folder / "etc" / "toy.yaml").write_text("name: a\npath: a.txt\nlog: logs/../a.log\n")
    load = config.load(Path("etc/toy.yaml"), Toy).value
    assert (load.path, load.log) == (Path("etc/a.txt"), Path("etc/a.log"))
    load = config.load(Path("etc/toy.yaml"), Toy, sets=["path=a.txt", f"log={folder}/x.log"]).value
    assert (load.path, load.log) == (Path("a.txt"), folder / "x.log")
    monkeypatch.setenv("HOME", str(folder))
    assert read("name: a\npath: ~/a.txt\n").path == folder / "a.txt"


def test_outputs_are_relative_to_systemds_directory(folder, monkeypatch):
    """Under systemd, what is written goes to its log directory, whoever names it; an absolute path stays."""
    monkeypatch.setenv("LOGS_DIRECTORY", "/var/log/a:/var/log/b")
    (folder / "a.txt").touch()
    toy = read("name: a\nlog: a.log\npath: a.txt\n")
    assert (toy.log, toy.path) == (Path("/var/log/a/a.log"), Path("a.txt"))
    assert read("name: a", ["log=b.log"]).log == Path("/var/log/a/b.log")
    assert read("name: a\nlog: /tmp/a.log\n").log == Path("/tmp/a.log")


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("shapes.1.side", "toy.yaml:5: shapes.1.side: too small"),
        ("shapes.1.angle", "toy.yaml:4: shapes.1.angle: too small"),
        ("count", "--set: count: too small"),
        ("gone.entirely", "toy.yaml: gone.entirely: too small"),
        (None, "toy.yaml: too small"),
    ],
)
def test_later_mistakes_are_put_in_their_place(folder, key, line):
    """An error that blames a key is told with the place of the key, or of the section that it would stand in."""
    Path("toy.yaml").write_text("name: a\nshapes:\n  - type: circle\n  - type: square\n    side: 3\n")
    loaded = config.load(Path("toy.yaml"), Toy, sets=["count=2"])
    assert loaded.locate(EdgeRunnerError("too small", key=key)) == line


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (bool, "true | false"),
        (int, "a whole number"),
        (str | None, "text"),
        (Annotated[Path, InputPath("pictures")], "a picture, a folder or a glob that is there"),
        (Annotated[dict[str, Any], Partial(Frame)] | None, "a mapping with left, right, note and between"),
        (Manifest, "a mapping with format, name, version, "),
    ],
)
def test_types_are_described_in_words(hint, words):
    """What a message says is allowed reads as a sentence's end."""
    assert describe(hint).startswith(words)


def test_variables_follow_the_file(folder, env_file, monkeypatch):
    """What systemd took from the file into the environment follows the file when it changes; what was set otherwise stays."""
    env_file("TOKEN=old\nGONE=here\nOWN=file\n")
    for name, value in (("TOKEN", "old"), ("GONE", "here"), ("OWN", "another")):
        monkeypatch.setenv(name, value)
    followed = Followed(Path("toy.yaml"))
    env_file("TOKEN=new\nOWN=changed\n")
    followed.follow()
    assert (os.environ["TOKEN"], os.environ.get("GONE"), os.environ["OWN"]) == ("new", None, "another")
    env_file("TOKEN=newer\nGONE=back\n")
    followed.follow()
    assert (os.environ["TOKEN"], os.environ.get("GONE")) == ("newer", "back")
