"""The builder and the board's commands as processes, and what they must leave behind."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_runner.builder.samples import find_pictures, read_picture
from edge_runner.errors import EXIT_CONFIG
from edge_runner.frame import Tensor
from edge_runner.model.bundle import MODEL, read_manifest
from edge_runner.model.interpreter import Interpreter, find_runtime
from edge_runner.model.preprocess import Preprocessor

BUILD = [sys.executable, "-m", "edge_runner.builder"]
EDGE_RUNNER = [sys.executable, "-m", "edge_runner"]
TIMEOUT_S = 1500
LABELS = ("red", "green", "blue", "dark")

Done = subprocess.CompletedProcess[str]


def run(*command: object, **how: object) -> Done:
    options = {"capture_output": True, "text": True, "timeout": TIMEOUT_S, "check": False, **how}
    return subprocess.run([str(part) for part in command], **options)


def build(model: Path, *options: object, output: Path, **how: object) -> Done:
    """Run the builder as scripts/build_model.sh does."""
    return run(*BUILD, model, "--output", output, *options, **how)


def check(bundle: Path, folder: Path) -> Done:
    """`edge-runner check` of a configuration with this bundle."""
    config = folder / "check.yaml"
    config.write_text(f"camera: {{type: pattern}}\nmodel: {{path: {bundle}}}\n")
    return run(*EDGE_RUNNER, "check", "--config", config)


def inspect(bundle: Path) -> Done:
    return run(*EDGE_RUNNER, "inspect", bundle)


def refusal(done: Done, code: int | None = EXIT_CONFIG) -> str:
    """What a failed command says: one line, and nothing else on standard error. `code` None: any but 0."""
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines)) == (code or done.returncode, 1), f"{done.returncode}: {done.stderr}"
    assert done.returncode != 0
    assert lines[0].startswith("edge-runner: error: ")
    return lines[0].removeprefix("edge-runner: error: ")


def outputs(bundle: Path, pictures: Sequence[Path]) -> list[list[Tensor]]:
    """What a bundle's model makes of pictures, prepared by the bundle's recipe: each output's real values."""
    interpreter = Interpreter((bundle / MODEL).read_bytes(), find_runtime())
    preprocessor = Preprocessor(read_manifest(bundle).preprocess, interpreter.inputs[0])
    found = []
    for path in pictures:
        prepared = np.empty(preprocessor.shape, preprocessor.dtype)
        preprocessor(read_picture(path), prepared)
        found.append(interpreter.run(prepared))
    return found


def accuracy(bundle: Path, folder: Path, labels: Sequence[str] = LABELS) -> float:
    """The share of labelled pictures that a bundle's model is right about."""
    truths = [(path, index) for index, label in enumerate(labels) for path in find_pictures(folder / label)]
    answers = outputs(bundle, [path for path, _ in truths])
    return float(np.mean([np.argmax(answer[0]) == truth for answer, (_, truth) in zip(answers, truths, strict=True)]))


def mode_rows(report: str) -> dict[str, list[str]]:
    """The report's table of modes: a mode -> its cells after the name, and what is said beside it, (chosen) and such."""
    section = report.partition("## Modes")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+)(?: \*\*\((.*?)\)\*\*)? +\|(.*)\|$", section, re.MULTILINE)
    return {mode: [tag, *map(str.strip, cells.split("|"))] for mode, tag, cells in rows if mode != "Mode"}
