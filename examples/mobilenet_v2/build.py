"""Keras' MobileNetV2 as a bundle, in one command: export, then the builder with the training's recipe. build.sh calls it."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from export import RANDOM, SAVED_MODEL, ExportError, export, failed, model_options

WORK = Path(__file__).resolve().parents[2] / "build" / "mobilenet_v2"

# What the builder is told unless the command line says otherwise; README.md says why.
RECIPE = ("--normalize=-1..1", "--resize", "crop", "--interpolation", "area")
MODE = ("--quantize", "float16")


def main(arguments: Sequence[str] | None = None) -> int:
    """Export and build; return the exit code."""
    options, rest = _parser().parse_known_args(arguments)
    random = options.weights == RANDOM
    name = f"mobilenet_v2_{options.alpha}_{options.size}" + ("_random" if random else "")
    print(f"exporting {name} …", file=sys.stderr)
    environment = dict(os.environ)  # the builder's; export changes ours
    try:
        labels = export(options.work, options.weights, options.alpha, options.size, named=options.labels is None)
    except ExportError as error:
        return failed(error)
    labels = options.labels or labels
    command = [sys.executable, "-m", "edge_runner.builder", str(options.work / SAVED_MODEL)]
    own_figures = any(option.startswith(("--mean", "--std")) for option in rest)
    command += ["--output", str(options.work / name), *RECIPE[own_figures:], *MODE]
    command += ["--labels", str(labels)] if labels else []
    command += rest  # the last of two equal options counts
    code = subprocess.run(command, env=environment, check=False).returncode
    if random and code == 0:
        print("the weights are random: this bundle is for trying the road, its answers mean nothing", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="build.sh",
        description="Export Keras' MobileNetV2 and build it into a bundle.",
        epilog="All other options go to the builder (scripts/build_model.sh --help), over these: "
        f"--output {_from_here(WORK)}/NAME {' '.join((*RECIPE, *MODE))}",
        parents=[model_options()],
        allow_abbrev=False,
    )
    parser.add_argument("--labels", type=Path, metavar="FILE", help="one label a line (default: ImageNet's, if online)")
    parser.add_argument(
        "--work", type=Path, default=WORK, metavar="DIR", help=f"for the SavedModel (default: {_from_here(WORK)})"
    )
    return parser


def _from_here(path: Path) -> str:
    return str(path.relative_to(WORK.parents[1]))


if __name__ == "__main__":
    sys.exit(main())
