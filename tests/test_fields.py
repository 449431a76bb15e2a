"""The vocabulary of configurations."""

import contextlib
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runner.fields import DURATION_UNITS_S, SIZE_UNITS_BYTES, InputPath, OutputPath, Range, Units, Variants, load

DURATION = Units(DURATION_UNITS_S, "a duration")
SIZE = Units(SIZE_UNITS_BYTES, "a size")


@pytest.mark.parametrize(
    ("limits", "number", "inside"),
    [
        (Range(1, 9), 1, True),
        (Range(1, 9), 9, True),
        (Range(1, 9), 0, False),
        (Range(1, 9), 10, False),
        (Range(0, above=True), 0, False),
        (Range(0, above=True), 1e-9, True),
        (Range(high=5), -1e9, True),
        (Range(high=5), 5.1, False),
        (Range(), 1e300, True),
    ],
)
def test_range_has_its_ends_but_not_what_it_is_above(limits, number, inside):
    """Both ends belong to a range; with `above`, the lower one does not."""
    assert (number in limits) is inside


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Range(1, 9), "from 1 to 9"),
        (Range(1), "from 1"),
        (Range(0, above=True), "above 0"),
        (Range(0, 1.5, above=True), "above 0 to 1.5"),
        (Range(high=5), "to 5"),
        (Range(), ""),
    ],
)
def test_range_says_itself_in_words(limits, words):
    """A range reads as a part of a sentence."""
    assert str(limits) == words


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("500ms", 0.5),
        ("30s", 30),
        ("1.5m", 90),
        ("5m", 300),
        ("1m 30s", 90),
        ("1m30s", 90),
        ("2 h", 7200),
        ("1d", 86400),
    ],
)
def test_durations_add_up(text, seconds):
    """Every unit of time, alone, spaced out and in sums, is so many seconds."""
    assert DURATION.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1B", 1),
        ("2KB", 2000),
        ("64MB", 64_000_000),
        ("1GB", 10**9),
        ("1KiB", 1024),
        ("3MiB", 3 << 20),
        ("1GiB", 1 << 30),
    ],
)
def test_sizes_are_decimal_or_binary(text, size):
    """MB are millions, MiB are powers of two."""
    assert SIZE.parse(text) == size


@pytest.mark.parametrize(
    "text", ["", "30", "s", "-5s", "5 parsecs", "5S", "s5", "5s!", "1e3s", "1m30", "1,5s", "9" * 400 + "s"]
)
def test_what_is_no_duration_is_refused(text):
    """No unit, a wrong one, a sign, a remnant or infinity is no duration."""
    with pytest.raises(ValueError):  # noqa: PT011
        DURATION.parse(text)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from(sorted(DURATION_UNITS_S))), min_size=1, max_size=4))
def test_a_written_duration_comes_back(parts):
    """Whatever is written with units is read as the same number of seconds."""
    text = " ".join(f"{number}{unit}" for number, unit in parts)
    assert math.isclose(DURATION.parse(text), sum(n * DURATION_UNITS_S[u] for n, u in parts), abs_tol=1e-9)


@given(st.text(max_size=20))
def test_units_read_or_refuse(text):
    """Any text is a finite number of seconds, not below 0, or a ValueError."""
    with contextlib.suppress(ValueError):
        assert 0 <= DURATION.parse(text) < math.inf


@pytest.mark.parametrize(
    ("kind", "name", "why"),
    [
        ("file", "file.txt", None),
        ("file", "folder", "it is a folder"),
        ("file", "nothing", "no such file or directory"),
        ("folder", "folder", None),
        ("folder", "file.txt", "it is no folder"),
        ("file or folder", "file.txt", None),
        ("file or folder", "folder", None),
        ("file or folder", "file.txt/x", "not a directory"),
        ("pictures", "file.txt", None),
        ("pictures", "folder", None),
        ("pictures", "*.txt", None),
        ("pictures", "*/*.png", "nothing matches"),
        ("pictures", "**/deep.jpg", None),
        ("pictures", "odd[1].jpg", None),
        ("pictures", "nothing", "no such file or directory"),
        ("file", "*.txt", "no such file or directory"),
    ],
)
def test_input_paths_say_why_they_will_not_do(tmp_path, kind, name, why):
    """A path is there and of its kind, or it is said what is the matter; only pictures can be a glob."""
    (tmp_path / "file.txt").touch()
    (tmp_path / "odd[1].jpg").touch()
    (tmp_path / "folder" / "below").mkdir(parents=True)
    (tmp_path / "folder" / "below" / "deep.jpg").touch()
    assert InputPath(kind).missing(tmp_path / name) == why


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "/etc/edge-runner"),
        ({"LOGS_DIRECTORY": "/var/log/a"}, "/var/log/a"),
        ({"STATE_DIRECTORY": "/var/lib/a"}, "/var/lib/a"),
        ({"LOGS_DIRECTORY": "/var/log/a:/var/log/b", "STATE_DIRECTORY": "/var/lib/a"}, "/var/log/a"),
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}, "/var/lib/a"),
        ({"LOGS_DIRECTORY": "", "STATE_DIRECTORY": "/var/lib/a"}, "/var/lib/a"),
    ],
)
def test_outputs_go_where_systemd_says(monkeypatch, environment, expected):
    """The first log directory, else the first state directory, else where the path was named."""
    for name in ("LOGS_DIRECTORY", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert OutputPath().base(Path("/etc/edge-runner")) == Path(expected)


def test_a_globs_folder_that_is_not_there_is_told(tmp_path):
    """That nothing matches is said only where there is a folder to look into."""
    assert InputPath("pictures").missing(tmp_path / "gone" / "*.jpg") == f"{tmp_path}/gone: no such file or directory"


@pytest.mark.parametrize("name", ["locked/pictures", "locked/*.jpg"])
def test_a_locked_folder_is_told(tmp_path, monkeypatch, name):
    """A folder that this user may not look into is a reason like any other."""
    monkeypatch.chdir(tmp_path)
    Path("locked").mkdir()
    tmp_path.chmod(0o755)
    before = os.geteuid()
    os.chmod("locked", 0)
    try:
        if before == 0:  # root looks into everything
            os.seteuid(65534)
        assert InputPath("pictures").missing(Path(name)).endswith("permission denied")
    finally:
        os.seteuid(before)
        os.chmod("locked", 0o700)


class Thing:
    """What a table of variants points to."""

    Config = Range


def test_variants_are_loaded_by_name():
    """A table's row is loaded only when its Config is asked for."""
    variants = Variants({"thing": f"{__name__}:Thing", "broken": "there.is.no:Such"})
    assert variants.config("thing") is Range
    assert load(f"{__name__}:Thing") is Thing
    with pytest.raises(ModuleNotFoundError):
        variants.config("broken")
