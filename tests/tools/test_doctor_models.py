"""The doctor's look at models: the store's and the configuration's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_runner.settings import load_settings
from edge_runner.tools import doctor_models, models
from edge_runner.tools.doctor import Board, Finding
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


@pytest.fixture
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial takes place in this process, which is quicker, and must not be the first to go."""
    monkeypatch.setattr(doctor_models, "first_to_go", lambda: None)
    monkeypatch.setattr(doctor_models, "ask", lambda _, __, given, ___: json.loads(doctor_models.trial(given.decode())))


DEATHS = [
    ("kill -SEGV $$", "problem", "it is damaged: the interpreter dies of it (SIGSEGV)"),
    ("sleep 60", "problem", "it did not load and run once within 0.2 s"),
    ("echo odd >&2", "warning", "it could not be tried out: odd"),
]
"""What may become of a child, what level that has, and what is said of it."""


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the children be scripts of the shell, which anybody may start."""
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setattr(sys, "executable", shutil.which("sh"))

    def become(script: str) -> None:
        for module in (models, doctor_models):
            monkeypatch.setattr(module, "CHILD", script)
            monkeypatch.setattr(module, "PROOF_TIMEOUT_S", 0.2 if "sleep" in script else 60)

    return become


def saying(**answer: Any) -> str:
    """The script of a child that lives, and says this."""
    return f"cat <<END\n{json.dumps({'error': None, **answer})}\nEND"


def give_store(home: Path) -> None:
    """Let the store, which has this model, be somebody else's."""
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(home.parent, 12345, 23456)


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

    def test_unreadable(self, install: Any, lock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A version that may not be read is a problem as a damaged one is, and nothing that ends the look."""
        place = install("v2", "v1") / "v2"
        monkeypatch.setenv("PATH", os.defpath)
        command = [*lock(place), sys.executable, "-c", LOOK]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == [
            f"problem: model digits: v2 is active, but {place}/manifest.json: permission denied",
            "edge-runner model rollback digits: v1 ran before",
        ]

    @pytest.mark.parametrize(("script", "level", "says"), DEATHS)
    def test_a_model_that_kills(
        self, board: Board, install: Any, child: Any, script: str, level: str, says: str
    ) -> None:
        """Nothing that a file does to the process which loads it ends the look."""
        install("v2", "v1")
        child(script)
        [finding] = store(board)
        assert finding.level == level
        assert finding.text.startswith(f"model digits: v2 is active, but {says}")
        assert finding.remedies == (("edge-runner model rollback digits: v1 ran before",) if level == "problem" else ())

    def test_root_runs_nothing_of_others(self, board: Board, install: Any, child: Any) -> None:
        """What the owner of the store could have changed is loaded with the owner's rights."""
        give_store(install("v2", "v1"))
        child(saying(goldens="$(id -u) $(id -G)"))
        [finding] = store(board)
        assert finding.text == "model digits: v2 is active; goldens hold: 12345 23456"
        assert os.geteuid() == 0

    def test_none_is_active(self, board: Board, install: Any) -> None:
        """A model that no configuration can name, for want of a link."""
        (install("v1", "v0") / "current").unlink()
        [finding] = store(board)
        assert finding.level == "warning"
        assert finding.remedies[0].startswith("edge-runner model activate digits@v")


LOOK = """
from edge_runner.tools.doctor import Board
from edge_runner.tools.doctor_models import store
for finding in store(Board()):
    print(f"{finding.level}: {finding.text}", *finding.remedies, sep="\\n")
"""


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

    @pytest.mark.usefixtures("_here")
    def test_wrong(self, board: Board, configure: Any, tmp_path: Path) -> None:
        """What is wrong is said as `check` says it, with its place, all of it."""
        (tmp_path / "m.tflite").write_bytes(b"no model")
        path = configure(model={"path": str(tmp_path / "m.tflite")})
        [finding] = model(replace(board, loaded=load_settings(path)))
        assert finding.level == "problem"
        assert finding.text.startswith(f"{path}:")
        assert "model.path" in finding.text

    @pytest.mark.usefixtures("_here")
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

    @pytest.mark.usefixtures("_here")
    def test_several_mistakes(self, board: Board, configure: Any) -> None:
        """Each is a finding."""
        path = configure(preprocess={"color": "gray", "mean": 0, "std": 255}, task={"type": "segment"})
        found = list(model(replace(board, loaded=load_settings(path))))
        assert len(found) == 2
        assert {finding.level for finding in found} == {"problem"}

    @pytest.mark.parametrize(("script", "level", "says"), DEATHS)
    def test_a_model_that_kills(
        self, board: Board, configure: Any, child: Any, script: str, level: str, says: str
    ) -> None:
        """It ends the child, and the look goes on."""
        loaded = load_settings(configure())
        child(script)
        [finding] = model(replace(board, loaded=loaded))
        assert finding.level == level
        assert finding.text.startswith(f"model {loaded.value.model.path}: {says}")

    def test_root_runs_nothing_of_others(self, board: Board, install: Any, configure: Any, child: Any) -> None:
        """An installed model is loaded with the rights of the store's owner, who need not read the configuration."""
        give_store(install("v1"))
        loaded = load_settings(configure(model={"name": "digits"}, preprocess=None))
        child(saying(mistakes=[], instead=None, doubts=[], text="$(id -u)"))
        assert list(model(replace(board, loaded=loaded))) == [Finding("ok", "12345")]

    @pytest.mark.usefixtures("_here")
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
