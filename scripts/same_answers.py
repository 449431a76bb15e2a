"""Whether two machines gave the same answers to the same frames: two files of results, JSON lines.

    python scripts/same_answers.py here/results.jsonl there/results.jsonl

The best label of each frame is the same; every score that both wrote down differs by SCORE_OFF at most, because another
processor may prepare a frame a grey level or two otherwise.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SCORE_OFF = 0.02


def main() -> int:
    """Say how far they are apart, and return 0; or say where they differ, and return 1."""
    try:
        print(compared(*(_results(Path(name)) for name in sys.argv[1:3])))
    except (OSError, ValueError) as error:
        print(error)
        return 1
    return 0


def compared(here: list[dict[str, Any]], there: list[dict[str, Any]]) -> str:
    """How far apart the scores are, in words; raise ValueError where the answers are not the same."""
    frames = [result["source"] for result in here]
    others = [result["source"] for result in there]
    if not frames or frames != others:
        raise ValueError(f"not the same frames: {', '.join(frames) or 'none'}; and {', '.join(others) or 'none'}")
    most = 0.0
    for frame, one, other in zip(frames, here, there, strict=True):
        before, after = ({answer["label"]: answer["score"] for answer in r["classifications"]} for r in (one, other))
        if not before or not after:
            raise ValueError(f"{frame}: no answer {'there' if before else 'here'}")
        expected, got = (next(iter(answers)) for answers in (before, after))
        if expected != got:
            raise ValueError(f"{frame}: the answer is '{got}', not '{expected}'")
        off = max(abs(before[label] - after[label]) for label in before.keys() & after.keys())
        if not off <= SCORE_OFF:  # nor where it is not a number
            raise ValueError(f"{frame}: a score is {off:.3g} off; allowed {SCORE_OFF:g}")
        most = max(most, off)
    return f"{len(frames)} frames, the same answers, scores within {most:.2g}"


def _results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


if __name__ == "__main__":
    sys.exit(main())
