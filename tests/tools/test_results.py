"""`edge-runner results`: lines are read fast and exactly, from whatever files; they are chosen, shown, counted and followed."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runner.errors import EdgeRunnerError
from edge_runner.output.rotated import packed_path, rotated_path
from edge_runner.result import Answers, Classification, Detection, Keypoint, Mask, RawTensor, Result, Segment
from edge_runner.tools import logs, tables
from edge_runner.tools.lines import FORM, Line, canonical, read_as_json, read_line
from edge_runner.tools.logs import Log, gather, numbered
from edge_runner.tools.results import Choice, Order, Reading, chosen, moment

Run = Callable[..., subprocess.CompletedProcess[str]]
SECOND_NS = 10**9
START_NS = 1795354080 * SECOND_NS  # 2026-11-22T13:28:00Z
DEADLINE_S = 60
BOX = (0.1, 0.2, 0.3, 0.4)


def example(seq: int = 1, *answers: Any, at: float | None = None, **fields: Any) -> Result:
    """A result, `at` so many seconds after START_NS; by default one a second, of a classifier."""
    given_answers = Answers(classifications=(Classification("cat", 3, 0.75), Classification("dog", 4, 0.15)))
    for kind in ("classifications", "detections", "segments", "keypoints", "tensors"):
        if answers and type(answers[0]).__name__.lower() in kind.replace("tensors", "rawtensors"):
            given_answers = Answers(**{kind: answers})
    fields = {
        "device": "pi-7", "camera": "front-door", "run": "01J00000000000000000000000", "seq": seq, "frame": 3 * seq,
        "time_ns": START_NS + round((seq if at is None else at) * SECOND_NS), "clock": "synced", "model": "digits",
        "version": "3f2a9c1d", "width": 1280, "height": 720, "answers": given_answers, "age_ms": 41.2, "dropped": 2,
        "timing_ms": {"capture": 2.1, "preprocess": 0.4, "inference": 30.2, "postprocess": 0.1}, **fields,
    }  # fmt: skip
    return Result(**fields)


def found(label: str, score: float = 0.9, index: int = 0) -> Detection:
    return Detection(label, index, score, BOX)


def write(path: Path, *results: Result) -> Path:
    """A log, gzipped where its name says so."""
    content = "".join(result.line() + "\n" for result in results).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def stop() -> None:
    raise AssertionError("nothing is followed here")


def printed(*files: object, width: int = 120, **order: Any) -> list[str]:
    """The lines that a reading of these files gives."""
    return list(Reading([str(file) for file in files], Order(**order)).lines(width, stop))


def seqs(*files: object, **order: Any) -> list[int]:
    return [json.loads(line)["seq"] for line in printed(*files, format="json", **order)]


@pytest.fixture
def live(tmp_path: Path) -> Path:
    return tmp_path / "front-door.jsonl"


# --- lines -----------------------------------------------------------------------------------------------------------

BODY = tuple(Keypoint(f"point {n}", 0.1, 0.2, 0.9, person=0) for n in range(17))
KINDS = {
    "a classifier's": example(),
    "a file's": example(age_ms=None, dropped=None, source="a [1].jpg"),
    "a detector's": example(1, found("person"), found("car", 1e-05)),
    "nothing found": replace(example(), answers=Answers(detections=())),
    "nothing classified": replace(example(), answers=Answers(classifications=())),
    "a segmenter's": example(1, Segment("sky", 1, 0.5), Segment("sea", 2, 1.0)),
    "with a mask": replace(
        example(),
        answers=Answers(segments=(Segment("sky", 1, 0.5),), mask=Mask(np.zeros((2, 3), np.uint8), b"png")),
    ),
    "several people's": replace(example(), answers=Answers(detections=(found("person"),), keypoints=BODY)),
    "with a snapshot": replace(example(1, found("person")), saved={"snapshot": "20261122-1.jpg", "npz": "1.npz"}),
    "in other alphabets": example(1, found("Käse 日本 🧀"), camera="Tür"),
}


@pytest.mark.parametrize("result", KINDS.values(), ids=KINDS)
def test_form_of_a_result(result: Result) -> None:
    """The lines that results make are read by the one expression, and not by the slower JSON reader."""
    assert FORM.fullmatch(result.line().encode())


@pytest.mark.parametrize("damage", [b"\0", b"\xff", b"\xe4t"])
def test_what_is_no_text(damage: bytes) -> None:
    """A line with zeros, or bytes that are no UTF-8, within its text is no result, alone or among others."""
    line = example(1, found("cat")).line().encode()
    bad = line.replace(b"cat", b"c" + damage)
    assert read_line(bad) is read_as_json(bad) is None
    source = Log(Path("any"))
    assert [each.raw for each in chosen([b"\n".join([line, bad, line])], source, Choice())] == [line, line]
    assert source.unreadable == 1


def test_escaped_label() -> None:
    """A label is found however its characters are written, among lines that are passed over as well."""
    lines = [example(1, found("cat")).line(), example(2, found("dog")).line(), example(3, found("cat")).line()]
    lines[2] = lines[2].replace("cat", "c\\u0061t")
    block = "\n".join(lines).encode()
    choice = Choice(labels=["cat"])
    assert [line.plain["seq"] for line in chosen([block], Log(Path("any")), choice)] == [1, 3]


def test_bounds_of_time() -> None:
    """`since` is included, `until` is not."""
    block = "\n".join(example(n).line() for n in range(5)).encode()
    choice = Choice(since=canonical("2026-11-22T13:28:01Z"), until=canonical("2026-11-22T13:28:03Z"))
    assert [line.plain["seq"] for line in chosen([block], Log(Path("any")), choice)] == [1, 2]
    assert list(chosen([b""], Log(Path("any")), choice)) == []


TEXT = st.one_of(
    st.sampled_from(["cat", "dog", 'a "b", {c}', "\\", "[", "a\nb", "Käse", "日本🧀", '", "label": "dog', "", "}]}"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
NUMBER = st.floats(0, 1, allow_subnormal=False)
ANSWERS = st.one_of(
    st.lists(st.builds(Classification, TEXT, st.integers(0, 999), NUMBER), max_size=5).map(
        lambda some: Answers(classifications=tuple(some))
    ),
    st.lists(st.builds(Detection, TEXT, st.integers(0, 999), NUMBER, st.tuples(*[NUMBER] * 4)), max_size=4).map(
        lambda some: Answers(detections=tuple(some))
    ),
    st.lists(st.builds(Segment, TEXT, st.integers(0, 999), NUMBER), max_size=3).map(
        lambda some: Answers(segments=tuple(some))
    ),
    st.lists(st.builds(Keypoint, TEXT, NUMBER, NUMBER, NUMBER), max_size=3).map(
        lambda some: Answers(keypoints=tuple(some))
    ),
    st.builds(
        lambda label, name: Answers(detections=(found(label),), keypoints=(Keypoint(name, 0.5, 0.5, 0.5, person=0),)),
        TEXT,
        TEXT,
    ),
    st.builds(lambda name: Answers(tensors=(RawTensor(name, (2,), "float32", (0.5, None)),)), TEXT),
)
RESULTS = st.builds(
    lambda answers, camera, source, at, saved: replace(
        example(at=at), answers=answers, camera=camera, source=source, saved=saved
    ),
    ANSWERS,
    TEXT,
    st.none() | TEXT,
    st.integers(0, 9),
    st.sampled_from([{}, {"snapshot": "a.jpg"}, {"other": "b"}]),
)


@st.composite
def raw_lines(draw: st.DrawFn) -> bytes:
    """Lines of ours, written anew by other programs, or damaged."""
    line = draw(RESULTS).line().encode()
    match draw(st.integers(0, 9)):
        case 0:
            plain = json.loads(line)
            spaces = draw(st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]))
            options: dict[str, Any] = {"sort_keys": draw(st.booleans()), "ensure_ascii": draw(st.booleans())}
            return json.dumps(plain, separators=spaces, **options).encode()
        case 1:
            return line[: draw(st.integers(0, len(line)))]
        case 2:
            start, end = sorted(draw(st.tuples(*[st.integers(0, len(line))] * 2)))
            return line[:start] + b"\0" * (end - start) + line[end:]
        case 3:
            cut = draw(st.integers(0, len(line)))
            return line[:cut] + draw(RESULTS).line().encode()
        case 4:
            at = draw(st.integers(0, len(line) - 1))
            return (
                line[:at]
                + draw(st.sampled_from([b'"', b"{", b"}", b"[", b"]", b",", b"x", b"\\", b"\xff", b""]))
                + line[at + 1 :]
            )
        case 5:
            return draw(
                st.sampled_from(
                    [b"", b"  ", b"null", b"[1]", b"{}", b'{"time": 3}', b'{"time": "2026-11-22"}', b"[" * 99999]
                )
            )
    return line


def told(line: Line | None) -> object:
    return line and (line.time, line.camera, sorted(line.labels()), sorted(line.scored()), line.plain)


@settings(max_examples=600, deadline=None)
@given(raw_lines())
def test_fast_is_exact(raw: bytes) -> None:
    """However a line is written, and whatever it holds, it is read as the JSON reader alone would read it."""
    fast = read_line(raw)
    if fast is not None and read_as_json(raw) is None:
        assert not fast.is_json()  # a number that is none; such a line is left out where it would be shown
    else:
        assert told(fast) == told(read_as_json(raw))


def wanted(plain: dict[str, Any], choice: Choice) -> bool:
    """What the documents promise, said once more."""
    time_text = plain["time"].removesuffix("Z").encode()
    if time_text < choice.since or (choice.until and time_text >= choice.until):
        return False
    if choice.cameras and plain.get("camera", "") not in choice.cameras:
        return False
    counting = [*plain.get("classifications", [])[:1], *plain.get("detections", []), *plain.get("segments", [])]
    counting += plain.get("keypoints", []) if "detections" not in plain else []
    matching = [
        one
        for one in counting
        if (not choice.labels or one.get("label", one.get("name", "")) in choice.labels)
        and one.get("score", one.get("area", 0)) >= choice.min_score
    ]
    return bool(matching) or not (choice.labels or choice.min_score)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(raw_lines(), max_size=6),
    st.builds(
        Choice,
        since=st.sampled_from([b"", b"2026-11-22T13:28:05.000000"]),
        until=st.sampled_from([b"", b"2026-11-22T13:28:08.000000"]),
        labels=st.lists(TEXT, max_size=2),
        min_score=st.sampled_from([0.0, 0.5]),
        cameras=st.lists(TEXT, max_size=1),
    ),
)
def test_chosen_are_those_that_fit(raws: list[bytes], choice: Choice) -> None:
    """By time, camera, label and score, the same results are chosen as by reading every line as JSON."""
    plains = [(raw, read_as_json(raw)) for raw in b"\n".join(raws).split(b"\n")]
    expected = [raw for raw, line in plains if line and wanted({**line.plain, "time": line.time.decode()}, choice)]
    source = Log(Path("any"))
    assert [line.raw for line in chosen([b"\n".join(raws)], source, choice) if line.is_json()] == expected
    assert source.unreadable <= sum(line is None and bool(raw.strip()) for raw, line in plains)


@pytest.mark.parametrize(
    ("text", "time_text"),
    [
        ("2026-11-22", "2026-11-22T00:00:00.000000"),
        ("2026-11-22T13:28", "2026-11-22T13:28:00.000000"),
        ("2026-11-22 13:28:05", "2026-11-22T13:28:05.000000"),
        ("2026-11-22T13:28:05.5Z", "2026-11-22T13:28:05.500000"),
        ("2026-11-22T13:28:05.123456789z", "2026-11-22T13:28:05.123456"),
        ("2026-11-22T00:30:00+01:00", "2026-11-21T23:30:00.000000"),
        ("2h", "2026-11-22T11:28:00.000000"),
        ("1h 30m", "2026-11-22T11:58:00.000000"),
        ("7d", "2026-11-15T13:28:00.000000"),
        ("0", "2026-11-22T13:28:00.000000"),
    ],
)
def test_moments(text: str, time_text: str) -> None:
    """A time is a date, a date and a time, in UTC or with an offset, or an age."""
    assert moment(text, datetime(2026, 11, 22, 13, 28, tzinfo=timezone.utc)) == time_text.encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "13:28",
        "2026-13-01",
        "2026-11-22T25:00",
        "22.11.2026",
        "2 weeks",
        "9" * 400 + "d",
        "0001-01-01T00:00+23:59",
    ],
)
def test_no_moment(text: str) -> None:
    """What is no time is refused in words that say what one looks like."""
    with pytest.raises(ValueError, match="is no time: a date "):
        moment(text)


# --- files -----------------------------------------------------------------------------------------------------------


class TestFiles:
    def test_family(self, live: Path) -> None:
        """A live log brings its rotated files, oldest first, however they are stored."""
        write(live, example(9))
        write(rotated_path(live, 2), example(3), example(4))
        write(packed_path(rotated_path(live, 1)), example(1), example(2))
        write(rotated_path(live, 1000000), example(5))
        write(live.with_name("front-door.1.jsonl"), example(77))
        assert seqs(live) == [1, 2, 3, 4, 5, 9]

    def test_each_once(self, live: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a glob names twice is read once, and of one number stored twice the compressed file."""
        write(live, example(3))
        write(rotated_path(live, 1), example(77))
        write(packed_path(rotated_path(live, 1)), example(1))
        write(rotated_path(live, 2), example(2))
        everything = sorted(live.parent.iterdir())
        monkeypatch.chdir(live.parent)
        assert seqs(*everything) == seqs(live, *everything, live.name, f"./{live.name}") == [1, 2, 3]
        assert seqs(*reversed(everything[:3])) == seqs(*everything[:3]) == [1, 2]
        live.with_name("link").symlink_to(live)
        assert seqs("link", live) == [1, 2, 3]

    def test_only_those_that_were_named(self, live: Path) -> None:
        """Rotated files that are named without the live one come alone, in their order."""
        write(live, example(9))
        paths = [write(rotated_path(live, number), example(number)) for number in range(1, 5)]
        assert seqs(paths[2], paths[1]) == [2, 3]

    def test_a_link(self, live: Path, tmp_path: Path) -> None:
        """A link to a log brings along the rotated files beside that, whether the log itself is there just now or not."""
        (tmp_path / "linked").symlink_to(live)
        write(rotated_path(live, 1), example(1))
        assert seqs(tmp_path / "linked") == [1]
        write(live, example(2))
        assert seqs(tmp_path / "linked") == [1, 2]

    def test_named_by_its_day(self, live: Path) -> None:
        """A log whose own name ends in many digits is not taken for a rotated one where others lie beside it."""
        day = write(live.with_name("front-door.20261122.jsonl"), example(2))
        write(packed_path(rotated_path(day, 1)), example(1))
        assert seqs(day) == [1, 2]
        assert Follower(day, [lambda: append(day, 3)]).seqs == [1, 2, 3]

    def test_live_file_is_away(self, live: Path) -> None:
        """Just after a rotation, or once the daemon has ended, there may be rotated files alone."""
        write(rotated_path(live, 1), example(1))
        assert seqs(live) == [1]

    def test_order_of_logs(self, tmp_path: Path) -> None:
        """Results of several logs come in the order of their times, whatever the order of the files."""
        paths = [
            write(tmp_path / f"{name}.jsonl", *(example(n, camera=name, at=n) for n in numbers))
            for name, numbers in {"a": [5, 6, 9], "b": [1, 4, 7], "c": [2, 3, 8], "d": [], "e": [20, 10]}.items()
        ]
        assert seqs(*paths) == seqs(*reversed(paths)) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 10]

    def test_many_logs(self, tmp_path: Path, run_cli: Run) -> None:
        """Logs that follow one another are not open all at once."""
        if not shutil.which("prlimit"):
            pytest.skip("there is no prlimit")
        paths = [write(tmp_path / f"{n:03}.jsonl", example(n)) for n in range(200)]
        done = run_cli("results", *reversed(paths), "--format", "json", prefix=("prlimit", "--nofile=30"))
        assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == list(range(200)), done.stderr

    def test_gzip_is_told_by_content(self, tmp_path: Path) -> None:
        """Whether a file is gzipped is seen in its first bytes; its name does not matter, nor how many parts it has."""
        content = example(1).line().encode() + b"\n"
        odd = tmp_path / "log.jsonl"
        odd.write_bytes(gzip.compress(content) + bytes(1000) + gzip.compress(content * 2) + bytes(9))
        plain = tmp_path / "plain.gz"
        plain.write_bytes(content)
        assert seqs(odd) == [1, 1, 1]
        assert seqs(plain) == [1]

    @pytest.mark.parametrize(("share", "least"), [(0.0005, 0), (0.3, 700), (0.9, 2500), (0.9999, 2990)])
    def test_gzip_cut_off(self, live: Path, caplog: pytest.LogCaptureFixture, share: float, least: int) -> None:
        """Of a compressed file that is cut off, what is there is shown, with a warning, and the next file too."""
        path = packed_path(rotated_path(live, 1))
        write(path, *(example(n, found(str(random.Random(n).random()))) for n in range(3000)))
        path.write_bytes(path.read_bytes()[: max(3, round(path.stat().st_size * share))])
        write(live, example(5000))
        got = seqs(live)
        assert got == [*range(len(got) - 1), 5000]
        assert len(got) > least
        assert f"{path}: the gzipped content is cut off" in caplog.text

    def test_gzip_damaged(self, live: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Of one that is damaged in its middle, what comes before is shown to the last line, with a warning."""
        path = packed_path(rotated_path(live, 1))
        write(path, *(example(n, found(str(random.Random(n).random()))) for n in range(3000)))
        content = path.read_bytes()
        at = round(len(content) * 0.7)
        path.write_bytes(content[:at] + bytes(500) + content[at + 500 :])
        write(live, example(5000))
        got = seqs(live)
        assert got[:2050] == list(range(2050))
        assert got[-1] == 5000
        assert len(got) < 3000
        assert f"{path}: the gzipped content is damaged" in caplog.text

    def test_damaged_lines(self, live: Path, run_cli: Run) -> None:
        """Lines that are no results are left out and told, in one line; the exit code is 0."""
        line = example(1).line().encode()
        live.write_bytes(
            b"\n".join(
                [line, b"a diary", line[:100] + bytes(4096) + line[200:], b"", line[:50] + line, line, line[:99]]
            )
        )
        done = run_cli("results", live.name, "--format", "json")
        assert (done.returncode, done.stdout) == (0, f"{line.decode()}\n" * 2)
        assert done.stderr == "edge-runner: warning: 4 lines are no results, and were left out: front-door.jsonl 4\n"

    @pytest.mark.parametrize("order", [{}, {"format": "csv"}])
    def test_number_that_is_none(self, live: Path, caplog: pytest.LogCaptureFixture, order: dict[str, Any]) -> None:
        """A line in which a number is damaged is left out of what it would be read for."""
        live.write_text(f"{example(1).line()}\n{example(2).line().replace('41.2', '4.1.2')}\n")
        reading = Reading([str(live)], Order(**order))
        assert len(list(reading.lines(80, stop))) == (2 if not order else 3)
        reading.report()
        assert "1 line is no result, and was left out" in caplog.text

    def test_last_line_without_end(self, live: Path) -> None:
        """A last line that is whole but for its end counts."""
        live.write_text(f"{example(1).line()}\n{example(2).line()}")
        assert seqs(live) == [1, 2]

    @pytest.mark.parametrize("size", [1, 999, logs.BLOCK_BYTES])
    def test_lines_across_blocks(self, live: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
        """Lines are whole wherever a block ends, in plain and in packed files."""
        write(live, *map(example, range(10, 20)))
        write(packed_path(rotated_path(live, 1)), *map(example, range(10)))
        monkeypatch.setattr(logs, "BLOCK_BYTES", size)
        monkeypatch.setattr(logs, "PACKED_BYTES", size)
        assert seqs(live) == list(range(20))

    def test_endless_line(self, live: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A line without an end, of a file of something else, counts as one that cannot be read, and is not kept."""
        monkeypatch.setattr(logs, "MOST_LINE_BYTES", 10_000)
        monkeypatch.setattr(logs, "BLOCK_BYTES", 1000)
        line, endless = example(1).line(), example(1, found("x" * 50_000)).line()
        live.write_text(f"{line}\n{endless}\n{line}\n")
        reading = Reading([str(live)], Order(format="json"))
        assert list(reading.lines(80, stop)) == [line, line]
        assert reading.logs[0].unreadable == 1

    def test_flat_memory(self, live: Path) -> None:
        """However long a log is, little of it is in memory."""
        lines = "".join(example(n, found("cat")).line() + "\n" for n in range(2000))
        with open(live, "w") as file:
            for _ in range(20):
                file.write(lines)
        packed_path(rotated_path(live, 1)).write_bytes(gzip.compress(lines.encode() * 20))
        tracemalloc.start()
        try:
            for order in (Order(), Order(format="csv", last=100), Order(per="hour")):
                assert sum(1 for _ in Reading([str(live)], order).lines(80, stop)) > 1
            assert live.stat().st_size > 15e6
            assert tracemalloc.get_traced_memory()[1] < 4e6
        finally:
            tracemalloc.stop()


class TestWhereThereIsNothing:
    def refused(self, done: subprocess.CompletedProcess[str], message: str, code: int = 1) -> None:
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.splitlines()[-1] == f"edge-runner: error: {message}"

    def test_no_file(self, live: Path, run_cli: Run) -> None:
        """A file that is not there ends it before anything is printed, even where others are there."""
        write(live, example(1))
        self.refused(run_cli("results", live.name, "other.jsonl"), "other.jsonl: no such file or directory")
        missing = rotated_path(Path(live.name), 7)
        self.refused(run_cli("results", missing), f"{missing}: no such file or directory")

    def test_folder(self, tmp_path: Path, run_cli: Run) -> None:
        """A folder is no file."""
        (tmp_path / "logs").mkdir()
        self.refused(run_cli("results", "logs"), "logs is a folder; name its files")

    def test_locked(self, live: Path, run_cli: Run, lock: Any) -> None:
        """A file of somebody else's is refused in words."""
        prefix = lock(write(live, example(1)))
        if os.getuid() == 0:
            os.chown(live, 65534, 65534)
        self.refused(run_cli("results", live.name, prefix=prefix), "front-door.jsonl: permission denied")

    def test_links_in_a_circle(self, tmp_path: Path, run_cli: Run) -> None:
        """A link that leads to itself, as a file or as a folder, is refused in words."""
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        self.refused(run_cli("results", "a"), f"{tmp_path}/a: too many levels of symbolic links")
        self.refused(run_cli("results", "b/log.jsonl"), "b: too many levels of symbolic links")

    @pytest.mark.parametrize("count", [1, 5000])
    @pytest.mark.parametrize("options", [[], ["-f"]])
    def test_nowhere_to_print(self, live: Path, run_cli: Run, count: int, options: list[str]) -> None:
        """Where standard output takes nothing, that ends it, with one line that says so."""
        write(live, *map(example, range(count)))
        with open("/dev/full", "w") as full:
            done = run_cli("results", live, *options, stdout=full)
        assert done.returncode == 1
        assert done.stderr == "edge-runner: error: standard output: no space left on device\n"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--since", "soon"], "argument --since: 'soon' is no time: a date (2026-11-22), a date and time "),
            (["--min-score", "80"], "argument --min-score: '80' is no number from 0 to 1"),
            (["--min-score", "-0.1"], "argument --min-score: '-0.1' is no number from 0 to 1"),
            (["--min-score", "nan"], "argument --min-score: 'nan' is no number from 0 to 1"),
            (["-n", "-1"], "argument -n/--last: '-1' is no whole number"),
            (["-n", "few"], "argument -n/--last: 'few' is no whole number"),
            (["-f", "--count"], "a count is of all there is; leave out --follow and --last"),
            (["-n", "3", "--per", "day"], "a count is of all there is; leave out --follow and --last"),
            (["-", "-f"], "standard input is read as it comes, to its end; leave out --follow"),
        ],
    )
    def test_usage(self, live: Path, run_cli: Run, arguments: list[str], message: str) -> None:
        """What is asked for wrongly is an error of usage that says what is allowed."""
        done = run_cli("results", *arguments, *([] if "-" in arguments else [write(live, example(1))]))
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines()[-1].startswith(f"edge-runner: error: {message}")

    def test_nothing_fits(self, live: Path) -> None:
        """Where no result fits, a table has its head alone."""
        write(live, example(1))
        assert len(printed(live, choice=Choice(labels=["cow"]))) == 1
        assert len(printed(live, choice=Choice(labels=["cow"]), per="hour")) == 2

    def test_vanished_meanwhile(self, live: Path) -> None:
        """A rotated file that is compressed while others are read is read all the same; one that was deleted is not missed."""
        write(live, example(4))
        paths = [write(rotated_path(live, number), example(number)) for number in (1, 2, 3)]
        lines = gather([str(live)])[0].lines()
        first = next(lines)
        write(packed_path(paths[1]), example(2))
        paths[1].unlink()
        paths[2].unlink()
        got = b"".join([first, *lines]).splitlines()
        assert [json.loads(line)["seq"] for line in got] == [1, 2, 4]

    def test_rotated_meanwhile(self, live: Path) -> None:
        """A live file that is rotated just before its turn is read as a rotated one, and the new one after it."""
        write(live, example(2))
        write(rotated_path(live, 1), example(1))
        lines = gather([str(live)])[0].lines()
        first = next(lines)
        live.rename(rotated_path(live, 2))
        write(live, example(3))
        got = b"".join([first, *lines]).splitlines()
        assert [json.loads(line)["seq"] for line in got] == [1, 2, 3]


class TestStandardInput:
    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    def test_read(self, live: Path, run_cli: Run, pack: Callable[[bytes], bytes]) -> None:
        """`-` is standard input, gzipped or not."""
        live.write_bytes(pack(b"".join(example(n).line().encode() + b"\n" for n in (1, 2))))
        with open(live) as file:
            done = run_cli("results", "-", "--format", "json", stdin=file)
        assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [1, 2]

    def test_as_it_comes(self, start_cli: Any) -> None:
        """What comes through a pipe is shown without waiting for its end, where that goes to a terminal."""
        terminal, theirs = os.openpty()
        child = start_cli("results", "-", stdin=subprocess.PIPE, stdout=theirs)
        os.close(theirs)
        child.stdin.write(example(42).line() + "\n")
        child.stdin.flush()
        shown = b""
        while b" 42  cat 0.750" not in shown:
            shown += os.read(terminal, 1000)
        child.communicate(timeout=DEADLINE_S)
        assert child.returncode == 0
        os.close(terminal)

    def test_a_pipe_with_a_name(self, tmp_path: Path, live: Path) -> None:
        """A pipe, such as a shell's <(…), is read like a file, and among others too."""
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        write(live, example(1), example(3))
        writer = threading.Thread(target=write, args=(pipe, example(2), example(4)))
        writer.start()
        assert seqs(live, pipe) == [1, 2, 3, 4]
        writer.join()

    def test_a_pipe_by_its_number(self, live: Path) -> None:
        """What a shell makes of <(…) is a link to a pipe, and is read like one."""
        reader, writer = os.pipe()
        os.write(writer, write(live, example(1), example(2)).read_bytes())
        os.close(writer)
        assert seqs(f"/dev/fd/{reader}") == [1, 2]
        os.close(reader)


# --- what is shown ---------------------------------------------------------------------------------------------------


class TestTable:
    def test_rows(self, live: Path) -> None:
        """One line a result: time, camera or file, number, answers; what no time service vouches for is marked."""
        keypoints = (Keypoint("nose", 0.1, 0.2, 0.987),)
        write(
            live,
            example(1),
            example(2, found("person"), found("car", 0.5), clock="unsynced"),
            example(3, Segment("sky", 1, 0.512), source="a.jpg", age_ms=None, dropped=None),
            example(4, *keypoints),
            replace(example(5), answers=Answers(detections=(found("person"),), keypoints=keypoints)),
            example(6, RawTensor("scores", (1, 2), "float32", (0.5, 0.5))),
            replace(example(7), answers=Answers(detections=())),
        )
        assert printed(live) == [
            "TIME (UTC)                CAMERA            SEQ  ANSWERS",
            "2026-11-22 13:28:01.000   front-door          1  cat 0.750  dog 0.150",
            "2026-11-22 13:28:02.000?  front-door          2  person 0.900  car 0.500",
            "2026-11-22 13:28:03.000   a.jpg               3  sky 51.2%",
            "2026-11-22 13:28:04.000   front-door          4  nose 0.99",
            "2026-11-22 13:28:05.000   front-door          5  person 0.900",
            "2026-11-22 13:28:06.000   front-door          6  scores [1, 2]",
            "2026-11-22 13:28:07.000   front-door          7  -",
        ]

    def test_width(self, live: Path) -> None:
        """Lines are no wider than the terminal, and say how many answers they leave out."""
        many = [found(f"label {n}") for n in range(30)]
        write(live, example(1, *many), example(2, found("x" * 200)), example(3, *many[:3], camera="c" * 50))
        rows = printed(live, width=90)
        assert rows[1].endswith("label 0 0.900  label 1 0.900  +28")
        assert rows[2].endswith("xxx…")
        assert f"{'c' * 29}…  " in rows[3]
        assert all(tables.columns(row) <= 90 for row in rows)

    def test_wide_characters(self, live: Path) -> None:
        """Characters that fill two columns keep the columns straight."""
        write(live, example(1, camera="玄関のカメラ"), example(2, camera="cafe\N{COMBINING ACUTE ACCENT}"), example(3))
        assert [row[26 : row.index("cat")] for row in printed(live)[1:]] == [
            "玄関のカメラ        1  ",
            "cafe\N{COMBINING ACUTE ACCENT}                2  ",
            "front-door          3  ",
        ]

    def test_terminal_is_left_alone(self, live: Path) -> None:
        """Nothing that stands in a log, neither a label nor a camera's name, gives orders to a terminal."""
        write(live, example(1, found("\x1b[31mred\a\n"), camera="\x1b]0;title\a"))
        for order in ({}, {"per": "hour"}):
            assert all(row.isprintable() for row in printed(live, **order))

    def test_only_answers_that_match(self, live: Path) -> None:
        """Where answers were asked for, those that match are shown, and the best of a classification alone counts."""
        write(live, example(1, found("car"), found("cat", 0.4), found("cat", 0.8)), example(2))
        rows = printed(live, choice=Choice(labels=["cat"], min_score=0.5))
        assert [row.split("  ", 3)[-1].strip() for row in rows[1:]] == ["1  cat 0.800", "2  cat 0.750"]
        assert len(printed(live, choice=Choice(labels=["dog"]))) == 1

    def test_where_it_goes(self, live: Path, run_cli: Run) -> None:
        """The columns are those that the environment names, else 120 where it is piped."""
        write(live, example(1, *(found(f"label {n}") for n in range(30))))
        for columns in (80, 120):
            env = (
                {**os.environ, "COLUMNS": "80"}
                if columns == 80
                else {k: v for k, v in os.environ.items() if k != "COLUMNS"}
            )
            row = run_cli("results", live.name, env=env).stdout.splitlines()[1]
            assert columns - 20 < len(row) <= columns


class TestCsv:
    def test_rows(self, live: Path) -> None:
        """One row an answer, read back by any reader of CSV as it was."""
        write(
            live,
            example(1, Classification('a "b", c\nd', 1, 0.5), Classification("Käse", 2, 0.25)),
            example(2, found("person")),
            example(3, Segment("sky", 1, 0.5), source="a.jpg"),
            example(4, Keypoint("nose", 0.1, 0.2, 0.9, person=1)),
            example(5, RawTensor("scores", (1, 2), "float32", (0.5, 0.5))),
            replace(example(6), answers=Answers(detections=())),
        )
        rows = list(csv.DictReader(io.StringIO("\n".join(printed(live, format="csv")), newline="")))
        assert [(row["seq"], row["kind"], row["rank"], row["label"]) for row in rows] == [
            ("1", "classification", "1", 'a "b", c\nd'),
            ("1", "classification", "2", "Käse"),
            ("2", "detection", "1", "person"),
            ("3", "segment", "1", "sky"),
            ("4", "keypoint", "1", "nose"),
            ("5", "tensor", "1", "scores"),
        ]
        assert rows[2] == {
            "time": "2026-11-22T13:28:02.000000Z", "clock": "synced", "device": "pi-7", "camera": "front-door", "source": "",
            "run": "01J00000000000000000000000", "seq": "2", "frame": "6", "kind": "detection", "rank": "1", "label": "person",
            "index": "0", "score": "0.9", "area": "", "x0": "0.1", "y0": "0.2", "x1": "0.3", "y1": "0.4",
            "x": "", "y": "", "person": "",
        }  # fmt: skip
        assert (rows[3]["area"], rows[3]["source"]) == ("0.5", "a.jpg")
        assert [rows[4][key] for key in ("x", "y", "score", "person")] == ["0.1", "0.2", "0.9", "1"]

    @pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1"])
    def test_no_formulas(self, live: Path, text: str) -> None:
        """Text from outside that a spreadsheet would compute is marked as text; numbers stay numbers, and other text as it is."""
        box = Detection(text, 0, 0.5, (-0.25, 0.0, 0.5, 1.0))
        write(live, replace(example(1, box, found("a=b")), source=text, camera=text, device=text))
        first, second = csv.DictReader(io.StringIO("\n".join(printed(live, format="csv")), newline=""))
        assert [first[key] for key in ("label", "source", "camera", "device")] == [f"'{text}"] * 4
        assert (first["x0"], second["label"]) == ("-0.25", "a=b")
        assert next(csv.reader([printed(live, format="csv", per="hour")[0]])) == ["hour", "results", f"'{text}", "a=b"]

    def test_only_answers_that_match(self, live: Path) -> None:
        """Where answers were asked for, there are rows for those that match alone."""
        write(live, example(1), example(2, found("cat"), found("dog")), example(3, found("dog")))
        rows = list(csv.DictReader(printed(live, format="csv", choice=Choice(labels=["cat"]))))
        assert [(row["seq"], row["label"]) for row in rows] == [("1", "cat"), ("2", "cat")]


def test_json_is_the_line(live: Path, run_cli: Run) -> None:
    """JSON is each line as it stands in the log, to the byte, in whatever way it was written."""
    lines = [example(1, found("Käse 🧀")).line(), json.dumps(example(2).plain(), separators=(",", ":"))]
    live.write_text("".join(f"{line}\n" for line in lines))
    assert run_cli("results", live.name, "--format", "json").stdout == live.read_text()


class TestLast:
    def test_last(self, live: Path) -> None:
        """The last so many of those that fit, or as many as there are."""
        write(live, *(example(n, found("cat" if n % 2 else "dog")) for n in range(1, 10)))
        assert seqs(live, last=2, choice=Choice(labels=["dog"])) == [6, 8]
        assert seqs(live, last=99) == list(range(1, 10))
        assert seqs(live, last=0) == []


class TestCount:
    def counts(self, live: Path, **order: Any) -> list[str]:
        return printed(live, **{"per": "hour", **order})

    def test_table(self, live: Path) -> None:
        """A row an hour: how many results, and in how many each label stands, once a result; the commonest first."""
        write(
            live,
            example(1, found("person"), found("person"), found("car")),
            example(2, found("car")),
            replace(example(3), answers=Answers(detections=())),
            example(4, at=3600),
        )
        assert self.counts(live) == [
            "HOUR (UTC)        RESULTS  car  cat  person",
            "2026-11-22 13:00        3    2    -       1",
            "2026-11-22 14:00        1    -    1       -",
            "all                     4    2    1       1",
        ]

    @pytest.mark.parametrize(
        ("per", "starts"),
        [
            ("minute", ["2026-11-22T13:28:00Z", "2026-11-22T14:28:00Z"]),
            ("hour", ["2026-11-22T13:00:00Z", "2026-11-22T14:00:00Z"]),
            ("day", ["2026-11-22T00:00:00Z"]),
        ],
    )
    def test_periods(self, live: Path, per: tables.Period, starts: list[str]) -> None:
        """Minutes, hours and days begin at full ones, in the order of time, whatever the order of the results."""
        write(live, example(2, at=3600), example(1, at=0))
        rows = list(csv.DictReader(self.counts(live, per=per, format="csv")))
        assert [row[per] for row in rows] == starts
        assert [json.loads(row)[per] for row in self.counts(live, per=per, format="json")] == starts
        assert len(self.counts(live, per=per)) == len(starts) + 2

    def test_csv_and_json(self, live: Path) -> None:
        """CSV has a column a label, with zeros; JSON an object an hour, with the labels that were there."""
        write(live, example(1, found('a "b"'), found("Käse")), example(2, found("Käse")), example(3, at=3600))
        assert list(csv.reader(self.counts(live, format="csv"))) == [
            ["hour", "results", "Käse", 'a "b"', "cat"],
            ["2026-11-22T13:00:00Z", "2", "2", "1", "0"],
            ["2026-11-22T14:00:00Z", "1", "0", "0", "1"],
        ]
        assert list(map(json.loads, self.counts(live, format="json"))) == [
            {"hour": "2026-11-22T13:00:00Z", "results": 2, "labels": {"Käse": 2, 'a "b"': 1}},
            {"hour": "2026-11-22T14:00:00Z", "results": 1, "labels": {"cat": 1}},
        ]

    def test_what_was_chosen(self, live: Path) -> None:
        """Only results that were chosen count, and of their answers those that match."""
        write(live, example(1, found("person"), found("car")), example(2, found("car", 0.95)), example(3, found("dog")))
        [row] = csv.DictReader(self.counts(live, format="csv", choice=Choice(labels=["person", "car"])))
        assert row == {"hour": "2026-11-22T13:00:00Z", "results": "2", "car": "2", "person": "1"}
        [row] = csv.DictReader(self.counts(live, format="csv", choice=Choice(min_score=0.95)))
        assert row == {"hour": "2026-11-22T13:00:00Z", "results": "1", "car": "1"}

    def test_more_labels_than_room(self, live: Path) -> None:
        """As many labels as there is room for, the commonest, and how many are left out."""
        write(live, *(example(n, *(found(f"label {i}") for i in range(n))) for n in range(1, 30)))
        rows = self.counts(live, width=80)
        assert rows[0] == "HOUR (UTC)        RESULTS  label 0  label 1  label 2  label 3  label 4  label 5"
        assert rows[-1] == "and 23 labels more, which are rarer; --format csv has them all"
        assert all(len(row) <= 80 for row in rows)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(raw_lines(), max_size=12))
    def test_as_counted_by_hand(self, raws: list[bytes]) -> None:
        """Whatever the lines are, it is the count that reading each as JSON gives."""
        count, expected, labels = tables.Count("minute"), Counter[bytes](), Counter[tuple[bytes, bytes]]()
        lines = [line for line in chosen([b"\n".join(raws)], Log(Path("any")), Choice()) if line.is_json()]
        count.add(lines, Line.labels)
        for line in filter(None, map(read_as_json, b"\n".join(raws).split(b"\n"))):
            expected[line.time[:16]] += 1
            labels.update((line.time[:16], label) for label in set(line.labels()))
        got = list(map(json.loads, count.json()))
        assert {row["minute"].encode()[:16]: row["results"] for row in got} == expected
        assert sum(sum(row["labels"].values()) for row in got) == labels.total()


# --- following -------------------------------------------------------------------------------------------------------


class Ended(Exception):
    """There is nothing more to do."""


class Follower:
    """A log being followed, and what happens to it: each step is done between two looks, the real thing, without waiting."""

    def __init__(self, live: Path, steps: Sequence[Callable[[], object]], *files: Path, **order: Any) -> None:
        self.steps = iter(steps)
        self.seqs: list[int] = []
        self.reading = Reading([str(file) for file in files or (live,)], Order(format="json", follow=True, **order))
        with suppress(Ended):
            self.seqs.extend(json.loads(line)["seq"] for line in self.reading.lines(80, self._step))
            pytest.fail("it gave up")
        for each in self.reading.logs:
            each.close()

    def _step(self) -> None:
        step = next(self.steps, None)
        if step is None:
            raise Ended
        step()


def append(path: Path, *numbers: int) -> None:
    with open(path, "a") as file:
        file.writelines(example(n).line() + "\n" for n in numbers)


def nothing() -> None:
    """A look at which there is nothing new."""


def rotate(path: Path, number: int, *, pack: bool = False) -> None:
    target = rotated_path(path, number)
    path.rename(target)
    if pack:
        packed_path(target).write_bytes(gzip.compress(target.read_bytes()))
        target.unlink()


class TestFollow:
    def test_appended(self, live: Path) -> None:
        """The last ten, and then what is written, each line once."""
        write(live, *map(example, range(1, 21)))
        steps = [lambda: append(live, 21), nothing, lambda: append(live, 22, 23), nothing]
        assert Follower(live, steps).seqs == list(range(11, 24))
        assert Follower(live, [], last=3).seqs == [21, 22, 23]
        assert Follower(live, [], choice=Choice(since=canonical("2026-11-22T13:28:05"))).seqs == list(range(5, 24))

    def test_only_what_fits(self, live: Path) -> None:
        """What does not fit is neither among the last ten nor shown later."""
        write(live, *(example(n, found("cat" if n % 2 else "dog")) for n in range(40)))
        steps = [lambda: write(live, *(example(n, found("cat" if n % 2 else "dog")) for n in range(44)))]
        assert Follower(live, steps, choice=Choice(labels=["dog"])).seqs == list(range(20, 44, 2))

    def test_whole_lines_only(self, live: Path) -> None:
        """A line that is written in parts is shown when it is whole; one that is taken back, never."""
        line = example(7).line()

        def put(text: str) -> None:
            with open(live, "a") as file:
                file.write(text)

        size = len(line) + 1
        steps = [
            lambda: put(line + "\n" + line[:100]), nothing, lambda: put(line[100:]), nothing, lambda: put("\n"),
            lambda: put(line[:50]), nothing, lambda: os.truncate(live, 2 * size), lambda: append(live, 8),
        ]  # fmt: skip
        follower = Follower(live, steps)
        assert follower.seqs == [7, 7, 8]
        assert follower.reading.logs[0].unreadable == 0

    def test_not_there_yet(self, live: Path) -> None:
        """A log that is not there yet, or has gone, is waited for."""
        steps = [
            nothing, lambda: append(live, 1), nothing, live.unlink, nothing, lambda: append(live, 2), nothing
        ]  # fmt: skip
        assert Follower(live, steps).seqs == [1, 2]

    @pytest.mark.parametrize("pack", [False, True])
    @pytest.mark.parametrize("late", [False, True])
    def test_rotated(self, live: Path, pack: bool, late: bool) -> None:
        """A log that is rotated goes on in the new file; what was written last into the old one is shown too."""
        write(live, example(1))

        def step() -> None:
            append(live, 2)
            rotate(live, 1, pack=pack)
            if not late:
                append(live, 3)

        assert Follower(live, [step, nothing, lambda: append(live, 4)]).seqs == ([1, 2, 4] if late else [1, 2, 3, 4])

    @pytest.mark.parametrize("pack", [False, True])
    def test_rotated_several_times(self, live: Path, pack: bool) -> None:
        """Files that came and went into rotation between two looks are shown whole."""
        write(live, example(1))

        def step() -> None:
            for number in (1, 2, 3):
                append(live, 10 * number)
                rotate(live, number, pack=pack)
            append(live, 99)

        assert Follower(live, [step]).seqs == [1, 10, 20, 30, 99]

    def test_oldest_are_deleted_meanwhile(self, live: Path) -> None:
        """What was being read is read to its end though its name has gone, and what was never read is not missed."""
        write(live, example(1))

        def step() -> None:
            append(live, 2)
            for number in (1, 2, 3):
                rotate(live, number)
                append(live, 10 * number)
            rotated_path(live, 1).unlink()
            rotated_path(live, 2).unlink()

        assert Follower(live, [step]).seqs == [1, 2, 20, 30]

    @pytest.mark.parametrize("pack", [False, True])
    @pytest.mark.parametrize("count", [1, 3, 5])
    def test_numbers_begin_anew(self, live: Path, count: int, pack: bool) -> None:
        """A log that was deleted with all its rotated files, and written and rotated anew, goes on with every line."""
        for number in (1, 2, 3):
            write(rotated_path(live, number), example(number))
        write(live, example(4))

        def step() -> None:
            for path in live.parent.iterdir():
                path.unlink()
            for number in range(1, count + 1):
                append(live, 10 * number)
                rotate(live, number, pack=pack)
            append(live, 98)

        steps = [step, nothing, lambda: rotate(live, count + 1, pack=pack), lambda: append(live, 99), nothing]
        assert Follower(live, steps).seqs == [1, 2, 3, 4, *range(10, 10 * count + 1, 10), 98, 99]

    def test_renamed_by_others(self, live: Path) -> None:
        """It may get any other name as well, or be emptied in its place."""
        write(live, example(1))

        def moved() -> None:
            live.rename(live.with_name("old"))
            append(live, 2)

        steps = [moved, lambda: os.truncate(live, 0), nothing, lambda: append(live, 3)]
        assert Follower(live, steps).seqs == [1, 2, 3]

    def test_several(self, tmp_path: Path) -> None:
        """Several logs are followed at once; a packed one is read, and has no more to come."""
        first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
        write(first, example(1))
        write(second, example(2))
        packed = write(tmp_path / "c.gz", example(3))
        steps = [lambda: append(second, 4), lambda: append(first, 5)]
        assert Follower(first, steps, first, second, packed).seqs == [1, 2, 3, 4, 5]

    def test_nothing_can_grow(self, live: Path) -> None:
        """Where only rotated and packed files were named, there is nothing to wait for."""
        paths = [write(rotated_path(live, 1), example(1)), write(live.with_name("x.gz"), example(2))]
        reading = Reading(map(str, paths), Order(format="json", follow=True))
        assert [json.loads(line)["seq"] for line in reading.lines(80, stop)] == [1, 2]

    @pytest.mark.parametrize("seed", range(20))
    def test_any_course_of_things(self, live: Path, seed: int) -> None:
        """Whatever is appended, rotated, packed, and once in a while deleted as a whole, each line comes once, in order."""
        chance, count, number = random.Random(seed), 0, 0

        def some() -> None:
            nonlocal count, number
            if chance.random() < 0.05:
                number = 0
                for path in live.parent.iterdir():
                    path.unlink()
            for _ in range(chance.randrange(6)):
                if chance.random() < 0.6 or not live.exists():
                    new = chance.randrange(1, 4)
                    append(live, *range(count, count + new))
                    count += new
                else:
                    number += 1
                    rotate(live, number, pack=chance.random() < 0.5)

        assert Follower(live, [some] * 40, last=0).seqs == list(range(count))
        assert count > 100


class TestFollowedByCommand:
    def next_line(self, child: subprocess.Popen[str], word: str) -> None:
        assert child.stdout
        for line in child.stdout:
            if word in line:
                return
        pytest.fail(f"it ended without '{word}': {child.communicate()[1]}")

    def test_until_ctrl_c(self, live: Path, start_cli: Any) -> None:
        """It follows a log until Ctrl-C, which ends it with 0, and says what it left out."""
        child = start_cli("results", "-f", live.name)
        self.next_line(child, "ANSWERS")
        append(live, 1)
        self.next_line(child, "  1  cat 0.750")
        live.write_text(live.read_text() + "no result\n" + example(2).line() + "\n")
        self.next_line(child, "  2  cat 0.750")
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=DEADLINE_S)
        assert (child.returncode, out) == (0, "")
        assert err == "edge-runner: warning: 1 line is no result, and was left out: front-door.jsonl 1\n"

    def test_reader_goes_away(self, live: Path, start_cli: Any) -> None:
        """Once nobody reads it any more (`| head`), it ends, quietly and by itself, even if nothing more is written."""
        write(live, example(1))
        child = start_cli("results", "-f", live.name)
        self.next_line(child, "  1  cat 0.750")
        child.stdout.close()
        assert child.wait(DEADLINE_S) == 0
        assert child.stderr.read() == ""

    def test_reader_of_a_long_log_goes_away(self, live: Path, start_cli: Any) -> None:
        """The same while it prints."""
        write(live, *map(example, range(5000)))
        child = start_cli("results", live.name)
        self.next_line(child, "  1  cat 0.750")
        child.stdout.close()
        assert child.wait(DEADLINE_S) == 0
        assert child.stderr.read() == ""

    def test_idles(self, live: Path, start_cli: Any) -> None:
        """It waits without using the processor."""
        write(live, example(1))
        child = start_cli("results", "-f", live.name)
        self.next_line(child, "  1  cat 0.750")
        before = processor_s(child.pid)
        time.sleep(1.5)
        assert processor_s(child.pid) - before < 0.5


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jsonl", ("a.jsonl", None)),
        ("a.000001.jsonl", ("a.jsonl", 1)),
        ("a.1234567.jsonl.gz", ("a.jsonl", 1234567)),
        ("log.000002", ("log", 2)),
        ("log.000002.gz", ("log", 2)),
        ("a.12345.jsonl", ("a.12345.jsonl", None)),
        ("a.jsonl.gz", ("a.jsonl.gz", None)),
        ("-", ("-", None)),
    ],
)
def test_which_log_a_file_belongs_to(name: str, expected: tuple[str, int | None]) -> None:
    """A rotated file's name leads to its log's."""
    assert numbered(Path(name)) == (Path(expected[0]), expected[1])


def test_a_daemon_is_followed(live: Path, start_cli: Any, configure: Any, colours: Path) -> None:
    """A daemon's own log is read while it writes it: every result, in order, from the first."""
    follower = start_cli("results", "-f", live.name, "-n", "1000000", "--format", "json")
    camera = {"type": "images", "path": "colours", "loop": True}
    start_cli("--config", configure(camera=camera, outputs=[{"type": "jsonl", "path": live.name}]))
    got = [json.loads(follower.stdout.readline())["seq"] for _ in range(500)]
    assert got == list(range(1, 501))


def test_error_is_one_of_ours(tmp_path: Path) -> None:
    """A folder below a file, and any other place that cannot be, is refused in words."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeRunnerError, match="not a directory"):
        printed(tmp_path / "file/log.jsonl")
