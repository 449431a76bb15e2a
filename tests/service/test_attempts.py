"""What is remembered over a crash of a model that was being brought up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_runner.service.attempts import MOST, STARTS_FILE, Attempts

MODEL = Path("/var/lib/edge-runner/models/digits/1")
OTHER = Path("/var/lib/edge-runner/models/digits/2")


def crashed(folder: Path, model: Path, times: int) -> None:
    """The daemon began so often with that model, and was never heard of again."""
    for _ in range(times):
        assert Attempts(folder).begin(model) is None


def test_the_third_start_leaves_it_out(tmp_path: Path) -> None:
    """A model with which the daemon died twice in a row is refused from then on, in words that name it."""
    crashed(tmp_path, MODEL, MOST)
    for _ in range(2):
        refused = Attempts(tmp_path).begin(MODEL)
        assert refused == f"{MODEL} is not loaded: the daemon was killed, or hung, 2 times in a row as it brought it up"


def test_one_that_came_up_is_forgotten(tmp_path: Path) -> None:
    """What came up, or ended in an orderly way, begins at nothing, however often it did not before."""
    crashed(tmp_path, MODEL, MOST)
    Attempts(tmp_path).over()
    assert list(tmp_path.iterdir()) == []
    crashed(tmp_path, MODEL, MOST - 1)
    attempts = Attempts(tmp_path)
    assert attempts.begin(MODEL) is None
    attempts.over()
    attempts.over()
    crashed(tmp_path, MODEL, MOST)


def test_another_version_has_its_own_chance(tmp_path: Path) -> None:
    """The count is of one version: another one that is active meanwhile is tried."""
    crashed(tmp_path, MODEL, MOST)
    crashed(tmp_path, OTHER, MOST)
    assert str(OTHER) in (Attempts(tmp_path).begin(OTHER) or "")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"model": 1}', b'{"model": "%s", "starts": "x"}', b"\xff"]
)
def test_a_damaged_note(tmp_path: Path, content: bytes) -> None:
    """A note that cannot be read counts as none."""
    (tmp_path / STARTS_FILE).write_bytes(content.replace(b"%s", os.fsencode(MODEL)))
    crashed(tmp_path, MODEL, 1)


@pytest.mark.parametrize(("folder", "model"), [(None, MODEL), (Path("/nowhere"), MODEL)])
def test_nowhere_to_remember(folder: Path | None, model: Path) -> None:
    """Without systemd's folder, or where it cannot be written, every start is the first."""
    crashed(folder, model, 5)  # type: ignore[arg-type]
    Attempts(folder).over()


def test_other_models_are_not_counted(tmp_path: Path) -> None:
    """A model that is not of the store leaves no note: there is no version to go back to."""
    for _ in range(5):
        assert Attempts(tmp_path).begin(None) is None
    assert list(tmp_path.iterdir()) == []
