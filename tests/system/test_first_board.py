"""docs/first-board.md, the tutorial: its commands, as they stand there, against a board in a container."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from lab.container import Container, container_missing, tree
from lab.desk import BUNDLE, ROOT, Desk, copy_of_checkout, raise_version
from lab.releases import SECOND, second

from edge_runner import __version__

PAGE = ROOT / "docs/first-board.md"
BUILD = "scripts/build_model.sh"
"""Needs TensorFlow, which is not here; a second release of the demo's model takes the place of what it builds."""
DOCTOR = "edge-runner doctor"
"""Says rightly that there is no camera: its exit code is 1."""
UPGRADE = "With a newer clone"

missing = container_missing()
pytestmark = pytest.mark.skipif(bool(missing), reason=missing or "")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A workstation, and a board on which nothing is installed."""
    checkout = copy_of_checkout(tmp_path / "checkout")
    with Container(tree()) as board, Desk(board, checkout, tmp_path) as desk:
        yield desk


def blocks() -> list[tuple[str, str]]:
    """The page's commands in their order, each with the words before it."""
    words, found = "", []
    for part in re.split(r"^(```.*?^```)$", PAGE.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL):
        if part.startswith("```sh\n"):
            found.append((words, part[6:-3]))
        words = part
    return found


def test_the_tutorial(desk: Desk) -> None:
    """Every command of it does what the page says, from a bare board to none again."""
    said = {}
    for words, block in blocks():
        if block.startswith(BUILD):
            second(BUNDLE, desk.checkout / "models/digits")
            continue
        if UPGRADE in words:
            raise_version(desk.checkout, __version__, "77.7")
        done = desk.run("bash", "-ec", block)
        allowed = (0, 1) if DOCTOR in block else (0,)
        assert done.returncode in allowed, f"{block}exit code {done.returncode}\n{done.stdout}{done.stderr}"
        said[block] = done.stdout + done.stderr
    require(said)
    assert cv2.imread(str(desk.checkout / "aim.jpg")) is not None
    assert not desk.board.exists("/opt/edge-runner")
    assert desk.board.exists("/var/log/edge-runner/front-door/results.jsonl")


def require(said: dict[str, str]) -> None:
    """What the page promises of some of them, found by a word of the command and one of what it says."""
    for command, words in (
        ("--bundle examples", "digits e89ccc82: active now"),
        ("deploy.sh pi@raspberrypi.local --config", "a result: {"),
        ("systemctl status", 'Status: "running'),
        ("printf", "takes the configuration over"),
        ("--bundle models/digits", f"digits {SECOND}: active now"),
        ("rollback digits", "e89ccc82"),
        ("deploy.sh pi@raspberrypi.local\n", "restart edge-runner@front-door"),
        ("--rollback", f"edge-runner {__version__}-"),
        ("--uninstall", "kept: "),
    ):
        found = [answer for block, answer in said.items() if command in block]
        assert words in found[0], f"{command}: {found[0]}"
