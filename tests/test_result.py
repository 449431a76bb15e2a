"""The noun on the way out, and its JSON line."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable

import pytest

from edge_runner.result import CROCKFORD, Answers, RawTensor, Result, new_run, rfc3339, rounded

pytestmark = pytest.mark.arm

Make = Callable[..., Result]


def test_the_promised_line(result: Make) -> None:
    """A live camera's result is exactly this line: keys, order, digits, spaces."""
    made = result(("7", 0.9981239), age_ms=41.23456, dropped=3)
    assert made.line() == (
        '{"schema": 1, "time": "2026-11-22T13:28:00.123456Z", "clock": "synced", "device": "pi-7",'
        ' "camera": "front-door", "run": "01J00000000000000000000000", "seq": 877, "frame": 1234,'
        ' "model": {"name": "digits", "version": "3f2a9c1d"}, "image": {"width": 1280, "height": 720},'
        ' "age_ms": 41.235, "dropped": 3,'
        ' "timing_ms": {"capture": 2.1, "preprocess": 0.4, "inference": 30.2, "postprocess": 0.1},'
        ' "classifications": [{"label": "7", "index": 0, "score": 0.998124}]}'
    )


def test_a_files_line(result: Make) -> None:
    """A file's result has its source, and neither age nor dropped frames."""
    keys = list(json.loads(result(source="cat.jpg").line()))
    assert keys == [
        "schema", "time", "clock", "device", "camera", "run", "seq", "frame", "model", "image", "source", "timing_ms",
        "classifications",
    ]  # fmt: skip


def test_nothing_found_is_an_empty_list(result: Make) -> None:
    """No answer is an answer: the key stays."""
    assert json.loads(result(answers=Answers(classifications=())).line())["classifications"] == []


def test_tensors(result: Make) -> None:
    """Outputs as they are stand where classifications would: name, shape, type, values with six digits, null for none."""
    floats = RawTensor("boxes", (1, 3), "float32", (0.123456789, None, 2.0))
    whole = RawTensor("count", (), "int64", (2**53 + 1,))
    flags = RawTensor("found", (2,), "bool", (True, False))
    line = result(answers=Answers(tensors=(floats, whole, flags))).line()
    assert line.endswith(
        '"tensors": [{"name": "boxes", "shape": [1, 3], "dtype": "float32", "values": [0.123457, null, 2.0]},'
        ' {"name": "count", "shape": [], "dtype": "int64", "values": [9007199254740993]},'
        ' {"name": "found", "shape": [2], "dtype": "bool", "values": [true, false]}]}'
    )
    assert "classifications" not in json.loads(line)


def test_answers_in_words() -> None:
    """For people, a tensor is its name and shape, not its values."""
    answers = Answers(tensors=(RawTensor("boxes", (1, 3), "float32", (1.0, 2.0, 3.0)),))
    assert answers.words() == ["boxes [1, 3]"]


@pytest.mark.parametrize(
    "label", ["Gänseblümchen", "猫", 'a "quoted" \\ one', "two\nlines", "tab\t", "\u2028", "👍🏽", "\x00"]
)
def test_any_label_on_one_line(result: Make, label: str) -> None:
    """Whatever a label holds, the result is one line, and a JSON reader gets the label back."""
    line = result((label, 0.5)).line()
    assert "\n" not in line
    assert json.loads(line)["classifications"][0]["label"] == label


def test_letters_stay_letters(result: Make) -> None:
    """Letters beyond ASCII are written as they are, in UTF-8."""
    assert '"label": "Gänseblümchen 猫"' in result(("Gänseblümchen 猫", 0.5)).line()


def test_name_that_is_no_text(result: Make) -> None:
    """A file's name that is not UTF-8 does not break the line's encoding."""
    line = result(source=b"caf\xe9.jpg".decode("utf-8", "surrogateescape")).line()
    assert json.loads(line.encode())["source"] == "caf?.jpg"


@pytest.mark.parametrize(
    ("number", "digits"),
    [
        (0.123456789, 0.123457),
        (0.99999949, 0.999999),
        (0.9999996, 1.0),
        (1.23456789e-9, 1.23457e-9),
        (0.0, 0.0),
        (1.0, 1.0),
    ],
)
def test_six_significant_digits(result: Make, number: float, digits: float) -> None:
    """Scores have six significant digits, small ones too."""
    assert rounded(number) == digits
    assert json.loads(result(("a", number)).line())["classifications"][0]["score"] == digits


def test_no_number_that_json_lacks(result: Make) -> None:
    """NaN would make a line that no JSON reader takes: it is an error instead."""
    with pytest.raises(ValueError, match="JSON"):
        result(("a", float("nan"))).line()


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1795354080_123456789, "2026-11-22T13:28:00.123456Z"),
        (1795354080_000000999, "2026-11-22T13:28:00.000000Z"),
        (1709164799_999999999, "2024-02-28T23:59:59.999999Z"),
    ],
)
def test_time(time_ns: int, text: str) -> None:
    """Times are RFC 3339 in UTC with microseconds, never rounded into the future."""
    assert rfc3339(time_ns) == text


def test_run_is_a_ulid() -> None:
    """A run's name is 26 letters of Crockford's alphabet that begin with the time."""
    before = int(time.time() * 1000)
    name = new_run()
    after = int(time.time() * 1000)
    assert re.fullmatch(f"[0-7][{CROCKFORD}]{{25}}", name)
    milliseconds = 0
    for letter in name[:10]:
        milliseconds = milliseconds * 32 + CROCKFORD.index(letter)
    assert before <= milliseconds <= after


def test_runs_sort_by_time() -> None:
    """Later runs sort after earlier ones, and no two are equal."""
    names = []
    for _ in range(5):
        names.append(new_run())
        time.sleep(0.002)
    assert names == sorted(names)
    assert len({new_run() for _ in range(1000)}) == 1000


def test_run_against_the_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worked example of the ULID specification: 1469918176385 ms is 01ARYZ6S41."""
    monkeypatch.setattr("edge_runner.result.time.time", lambda: 1469918176.385)
    monkeypatch.setattr("edge_runner.result.os.urandom", lambda count: b"\xff" * count)
    assert new_run() == "01ARYZ6S41" + "Z" * 16
