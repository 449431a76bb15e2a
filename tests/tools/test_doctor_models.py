"""The doctor's look at models: the store's and the configuration's."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_runner.settings import load_settings
from edge_runner.tools import doctor_models
from edge_runner.tools.doctor import Board
from edge_runner.tools.doctor_models import model, store


@pytest.fixture
def install(board: Board, digits: Path, tmp_path: Path) -> Any:
    """Put the digits bundle into the store as these versions, of which the first is active, the second was before."""

    def put(*versions: str) -> Path:
        home = tmp_path / "state/models/digits"
        for version, link in zip(versions, ("current", "previous"), strict=False):
            shutil.copytree(digits, home / version)
            (home / link).symlink_to(version)
        return home

    return put


class TestStore:
    def test_empty(self, board: Board) -> None:
        """Nothing is said where nothing is installed."""
        assert list(store(board)) == []

    def test_whole(self, board: Board, install: Any) -> None:
        """The active version, proven on this board."""
        install("v2", "v1")
        [finding] = store(board)
        assert finding.level == "ok"
        assert finding.text.startswith("model digits: v2 is active; goldens hold: ")

    @pytest.mark.parametrize(
        ("versions", "remedy"),
        [
            (("v2", "v1"), "edge-runner model rollback digits: v1 ran before"),
            (("v2",), "install it again: edge-runner model install digits-"),
        ],
    )
    def test_damaged(self, board: Board, install: Any, versions: tuple[str, ...], remedy: str) -> None:
        """A version whose bytes have changed is a problem, and the way back is named where there is one."""
        file = install(*versions) / "v2" / "model.tflite"
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
        [finding] = store(board)
        assert finding.level == "problem"
        assert "v2 is active, but " in finding.text
        assert finding.remedies[0].startswith(remedy)

    def test_unreadable(self, board: Board, install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A version that may not be read is a problem as a damaged one is, and nothing that ends the look."""
        place, real = install("v2", "v1") / "v2", Path.is_file

        def refuse(path: Path) -> bool:
            if path.parent == place:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path)

        monkeypatch.setattr(Path, "is_file", refuse)
        [finding] = store(board)
        assert finding.level == "problem"
        assert finding.text == f"model digits: v2 is active, but {place}/manifest.json: permission denied"
        assert finding.remedies == ("edge-runner model rollback digits: v1 ran before",)

    def test_none_is_active(self, board: Board, install: Any) -> None:
        """A model that no configuration can name, for want of a link."""
        (install("v1", "v0") / "current").unlink()
        [finding] = store(board)
        assert finding.level == "warning"
        assert finding.remedies[0].startswith("edge-runner model activate digits@v")


class TestModel:
    def test_bare(self, board: Board, configure: Any) -> None:
        """A file without goldens is loaded, and that is all there is to say."""
        [finding] = model(replace(board, loaded=load_settings(configure())))
        assert finding.level == "ok"
        assert finding.text.endswith("; no goldens were replayed")

    def test_bundle(self, board: Board, configure: Any, digits: Path) -> None:
        """A bundle is proven."""
        settings = load_settings(configure(model={"path": str(digits)}, preprocess=None))
        [finding] = model(replace(board, loaded=settings))
        assert finding.level == "ok"
        assert finding.text.startswith("model digits ")
        assert "; goldens hold: " in finding.text

    def test_wrong(self, board: Board, configure: Any, tmp_path: Path) -> None:
        """What is wrong is said as `check` says it, with its place, all of it."""
        (tmp_path / "m.tflite").write_bytes(b"no model")
        path = configure(model={"path": str(tmp_path / "m.tflite")})
        [finding] = model(replace(board, loaded=load_settings(path)))
        assert finding.level == "problem"
        assert finding.text.startswith(f"{path}:")
        assert "model.path" in finding.text

    def test_of_the_store(self, board: Board, install: Any, configure: Any) -> None:
        """An installed model is examined once; where it is damaged, the way back is named."""
        home = install("v2", "v1")
        named = replace(board, loaded=load_settings(configure(model={"name": "digits"}, preprocess=None)))
        assert list(store(named)) == []
        [finding] = model(named)
        assert (finding.level, finding.remedies) == ("ok", ())
        (home / "v2/labels.txt").write_text("others\n")
        [finding] = model(named)
        assert finding.level == "problem"
        assert finding.remedies == ("edge-runner model rollback digits: v1 ran before",)
        (home / "previous").unlink()
        [finding] = model(named)
        assert finding.level == "problem"
        assert finding.remedies[0].startswith("install it again: ")

    def test_several_mistakes(self, board: Board, configure: Any) -> None:
        """Each is a finding."""
        path = configure(preprocess={"color": "gray", "mean": 0, "std": 255}, task={"type": "segment"})
        found = list(model(replace(board, loaded=load_settings(path))))
        assert len(found) == 2
        assert {finding.level for finding in found} == {"problem"}

    def test_hidden_from_the_service(
        self, board: Board, configure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A service's model below /home is one that it cannot see."""
        (tmp_path / "etc/edge-runner").mkdir()
        path = configure().rename(tmp_path / "etc/edge-runner/door.yaml")
        settings = load_settings(path)
        [finding] = model(replace(board, loaded=settings))
        assert finding.level == "ok"
        monkeypatch.setattr(doctor_models, "HIDDEN", (settings.value.model.path.parent,))
        [finding] = model(replace(board, loaded=settings))
        assert finding.level == "warning"
        assert "the service does not see " in finding.remedies[0]
        [finding] = model(replace(board, loaded=load_settings(configure())))
        assert finding.level == "ok"
