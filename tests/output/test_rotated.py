"""The names of rotated logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runner.output.rotated import family, members, number_of, other_name, packed_path, rotated_path


@pytest.mark.parametrize(
    ("live", "number", "rotated"),
    [
        ("front-door.jsonl", 1, "front-door.000001.jsonl"),
        ("front-door.jsonl", 1234567, "front-door.1234567.jsonl"),
        ("log", 1, "log.000001"),
        ("a.b.jsonl", 12, "a.b.000012.jsonl"),
        (".hidden", 1, ".hidden.000001"),
        ("[x]+.jsonl", 1, "[x]+.000001.jsonl"),
    ],
)
def test_names(live: str, number: int, rotated: str) -> None:
    """A number goes before the ending, and is read back from the name, compressed or not."""
    path = rotated_path(Path("folder", live), number)
    assert path == Path("folder", rotated)
    assert number_of(Path(live), path) == number_of(Path(live), packed_path(path)) == number


@pytest.mark.parametrize(
    "name",
    [
        "a.jsonl", "a.jsonl.gz", "a.00001.jsonl", "a.0000001.jsonl", "a.000001.json", "b.000001.jsonl", "a.000001.jsonl.gz.part",
        ".a.000001.jsonl.gz", "a.000001x.jsonl", "a.000001.000001.jsonl", "a.٠٠٠٠٠١.jsonl", "aX000001.jsonl",
    ],
)  # fmt: skip
def test_what_is_no_rotated_file(name: str) -> None:
    """Whatever else lies beside a log is not taken for a part of it."""
    assert number_of(Path("a.jsonl"), Path(name)) is None


def test_family(tmp_path: Path) -> None:
    """Rotated files come by their number, each once, the compressed one where both are there; the live file does not."""
    live = tmp_path / "a.jsonl"
    names = ["a.1000000.jsonl", "a.999999.jsonl", "a.000002.jsonl", "a.000002.jsonl.gz", "a.000010.jsonl.gz"]
    for name in [*names, "a.jsonl", "a.json", "other.000001.jsonl", ".a.000003.jsonl.gz.part"]:
        (tmp_path / name).touch()
    (tmp_path / "a.000004.jsonl").mkdir()
    expected = ["a.000002.jsonl.gz", "a.000010.jsonl.gz", "a.999999.jsonl", "a.1000000.jsonl"]
    assert [path.name for path in family(live)] == expected
    assert list(members(live).values()) == [2, 2, 4, 10, 999999, 1000000]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("cam.20261122.jsonl", "cam-20261122.jsonl"),
        ("cam.000001", "cam-000001"),
        ("a.b.123456.jsonl", "a.b-123456.jsonl"),
        ("cam.jsonl", None),
        ("cam.2026.jsonl", None),
        ("cam.0123456.jsonl", None),
        ("cam.123456.b.jsonl", None),
        ("20261122.jsonl", None),
        ("cam-20261122.jsonl", None),
    ],
)
def test_other_name(name: str, other: str | None) -> None:
    """A log whose name is one that a rotated file of another log would have gets another; all others are fine as they are."""
    assert other_name(Path("folder", name)) == other


def test_no_folder(tmp_path: Path) -> None:
    """A log whose folder is not there has no rotated files."""
    assert family(tmp_path / "missing" / "a.jsonl") == []
