"""Two machines' results of the same frames."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "same_answers.py"


def result(source: str, **scores: float) -> dict[str, Any]:
    return {"source": source, "classifications": [{"label": label, "score": score} for label, score in scores.items()]}


HERE = [result("1.jpg", cat=0.9, dog=0.1), result("2.jpg", dog=0.6, cat=0.4)]


def compare(folder: Path, there: list[dict[str, Any]], here: list[dict[str, Any]] = HERE) -> tuple[int, str]:
    files = [folder / "here.jsonl", folder / "there.jsonl"]
    for file, results in zip(files, (here, there), strict=True):
        file.write_text("".join(f"{json.dumps(one)}\n" for one in results))
    done = subprocess.run([sys.executable, SCRIPT, *files], capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode, done.stdout.rstrip("\n")


def test_same(tmp_path: Path) -> None:
    """The same answers, and scores that are nearly the same; labels that only one side wrote down are not compared."""
    there = [result("1.jpg", cat=0.895, bird=0.105), result("2.jpg", dog=0.61, cat=0.39)]
    assert compare(tmp_path, there) == (0, "2 frames, the same answers, scores within 0.01")


@pytest.mark.parametrize(
    ("there", "says"),
    [
        ([HERE[0], result("2.jpg", cat=0.51, dog=0.49)], "2.jpg: the answer is 'cat', not 'dog'"),
        ([HERE[0], result("2.jpg", dog=0.57, cat=0.43)], "2.jpg: a score is 0.03 off; allowed 0.02"),
        (HERE[:1], "not the same frames: 1.jpg, 2.jpg; and 1.jpg"),
        ([], "not the same frames: 1.jpg, 2.jpg; and none"),
        ([HERE[0], result("3.jpg", dog=0.6)], "not the same frames: 1.jpg, 2.jpg; and 1.jpg, 3.jpg"),
        ([HERE[0], result("2.jpg")], "2.jpg: no answer there"),
    ],
)
def test_other(tmp_path: Path, there: list[dict[str, Any]], says: str) -> None:
    """Another answer, another score, other frames: one line, and 1."""
    assert compare(tmp_path, there) == (1, says)


def test_nothing_to_compare(tmp_path: Path) -> None:
    """No frames at all are no proof."""
    assert compare(tmp_path, [], []) == (1, "not the same frames: none; and none")
