"""A board of frozen trees, with nothing on it, and programs that say what they are told to."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runner.tools.doctor import Board

Plant = Callable[[Path, dict[str, object]], None]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put scripts into the only folder where programs are found: none at first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(**scripts: str) -> None:
        for name, text in scripts.items():
            path = folder / name.replace("_", "-")
            path.write_text(f"#!{shutil.which('sh', path='/bin:/usr/bin')}\n{text}\n")
            path.chmod(0o755)

    return put


@pytest.fixture
def board(tmp_path: Path, programs: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Board:
    """A board with nothing plugged in, and nothing installed."""
    roots = {name: tmp_path / name for name in ("dev", "sys", "proc", "run", "etc")}
    for root in roots.values():
        root.mkdir()
    monkeypatch.setenv("EDGE_RUNNER_STATE", str(tmp_path / "state"))
    return Board(**roots)


@pytest.fixture
def plant() -> Plant:
    """Small files below a folder, each with its line end, as the kernel has them."""

    def put(root: Path, files: dict[str, object]) -> None:
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(f"{content}\n")

    return put
