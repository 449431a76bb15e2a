"""A configuration is tried out whole in another process, which may die of it, hang, or talk nonsense."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab.board import children, read, runs
from lab.notified import wait_until

from edge_runner.errors import ConfigError, ModelError
from edge_runner.model.store import Store
from edge_runner.service import rehearsal
from edge_runner.service.rehearsal import rehearse
from edge_runner.service.systemd import STAGE_S
from edge_runner.tools.models import PROOF_TIMEOUT_S


def test_good(configure: Any, tmp_path: Path) -> None:
    """What would run is let through, and nothing was opened or written for it."""
    config = configure(outputs=[{"type": "jsonl", "path": "new/out.jsonl"}])
    before = sorted(tmp_path.rglob("*"))
    assert rehearse(config, []) is None
    assert sorted(tmp_path.rglob("*")) == before


def test_everything_wrong_at_once(configure: Any, tmp_path: Path) -> None:
    """Mistakes come with file, line and key, all of them, and what --set gives counts."""
    (tmp_path / "no.tflite").write_bytes(b"no model")
    config = configure(model={"path": "no.tflite"})
    with pytest.raises(ConfigError) as caught:
        rehearse(config, ["camera.type=images", "camera.path=none"])
    assert len(caught.value.problems) >= 1
    assert any("none" in problem for problem in caught.value.problems)
    with pytest.raises(ConfigError) as caught:
        rehearse(config, [])
    [problem] = caught.value.problems
    assert problem.startswith(f"{config}:")
    assert "model.path: " in problem


def test_a_model_that_gives_way(configure: Any, store: Callable[..., Store]) -> None:
    """Of an installed model whose active version does not come up it is said why, and that another one does."""
    path = store("1", "2").folder / "colour/2/model.tflite"
    path.write_bytes(path.read_bytes()[:-1])
    config = configure(model={"name": "colour"}, preprocess=None)
    why = rehearse(config, [])
    assert why is not None
    assert str(path) in why
    assert "runs instead" not in why, "what runs is the daemon's to know"


def test_outputs_that_do_not_fit(configure: Any, store: Callable[..., Store]) -> None:
    """So it is of one whose labels are not those that an output waits for."""
    store("1")
    store("2", labels="rot\ngrün\nblau\n")
    outputs = [{"type": "console", "when": {"labels": ["red"]}}]
    why = rehearse(configure(model={"name": "colour"}, preprocess=None, outputs=outputs), [])
    assert why == "outputs.0.when.labels: no answer has the label 'red'; it has rot, grün, blau"


def test_its_time() -> None:
    """What was let through, or installed, must not be killed as it starts for taking its time."""
    assert max(rehearsal.TIMEOUT_S, PROOF_TIMEOUT_S) <= STAGE_S


def test_goldens_are_replayed(configure: Any, store: Callable[..., Store], data: Path) -> None:
    """A model that loads, and answers otherwise than on the host, does not get through."""
    versions = store("1")

    def spoil(goldens: Any) -> Any:
        for item in goldens.items:
            for output in item.outputs:
                output[...] = output[..., ::-1]
        return goldens

    store("2", goldens=spoil)
    why = rehearse(configure(model={"name": "colour"}, preprocess=None), [])
    assert why is not None
    assert str(versions.folder / "colour/2") in why


@pytest.mark.parametrize(
    ("child", "says"),
    [
        (
            "import os; os.kill(os.getpid(), 9)",
            "the process that tried it out was killed: there is probably too little memory for it",
        ),
        ("import os; os.kill(os.getpid(), 11)", "the process that tried it out died of SIGSEGV"),
        ("import os; os.abort()", "the process that tried it out died of SIGABRT"),
        ("import time; time.sleep(60)", "it was not tried out within 0.5 s"),
        ("print('hello')", "it could not be tried out: no word"),
        ("print('[]')", "it could not be tried out: no word"),
        ("print('{}')", "it could not be tried out: no word"),
        ("raise SystemExit('no memory')", "it could not be tried out: no memory"),
        ("raise MemoryError", "it could not be tried out: MemoryError"),
    ],
)
def test_what_a_child_may_do(configure: Any, monkeypatch: pytest.MonkeyPatch, child: str, says: str) -> None:
    """Whatever becomes of the child, this process gets an error that says it, in time."""
    monkeypatch.setattr(rehearsal, "CHILD", child)
    started = time.monotonic()
    with pytest.raises(ModelError) as caught:
        rehearse(configure(), [], timeout_s=0.5 if "sleep" in child else rehearsal.TIMEOUT_S)
    assert str(caught.value) == says
    assert time.monotonic() - started < 30


def test_files_in_the_working_folder(configure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal.py or numpy.py that lies where the daemon was started does no harm, and words on standard output neither."""
    monkeypatch.chdir(tmp_path)
    for name in ("signal.py", "numpy.py", "json.py"):
        (tmp_path / name).write_text("raise SystemExit('wrong one')")
    assert rehearse(configure(), []) is None


def test_it_dies_with_the_daemon(configure: Any) -> None:
    """A daemon that is killed meanwhile leaves no process behind that goes on trying."""
    code = (
        "import sys, pathlib; from edge_runner.service import rehearsal\n"
        "rehearsal.CHILD = 'import time; time.sleep(600)'\n"
        "rehearsal.rehearse(pathlib.Path(sys.argv[1]), [])"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(configure())]) as parent:
        wait_until(lambda: any("sleep(600)" in read(f"/proc/{pid}/cmdline") for pid in children(parent.pid)))
        [child] = children(parent.pid)
        parent.kill()
    wait_until(lambda: not runs(child))
