"""`python -m edge_runner.builder`: what scripts/build_model.sh runs."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, get_args

from edge_runner.builder.build import Order, build
from edge_runner.errors import EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EdgeRunnerError
from edge_runner.model.bundle import Manifest
from edge_runner.model.preprocess import Color, Interpolation, Recipe, Resize
from edge_runner.task import TASKS

PROGRAM = "edge-runner"
TAKE_DASHES = ("--normalize", "--mean", "--std")

# The name, mean and std, and the one colour that it goes with. Source of the last two: keras.applications.imagenet_utils,
# modes "caffe" and "torch"; the latter's figures are of 0..1, here times 255.
NORMALIZATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...], Color | None]] = {
    "raw": ((0.0,), (1.0,), None),
    "0..1": ((0.0,), (255.0,), None),
    "-1..1": ((127.5,), (127.5,), None),
    "keras-caffe": ((103.939, 116.779, 123.68), (1.0, 1.0, 1.0), "bgr"),
    "keras-torch": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "rgb"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Build one bundle; return the exit code, as the board's commands do."""
    parser = _parser()
    options = parser.parse_args(_joined(sys.argv[1:] if arguments is None else arguments))
    try:
        recipe = _recipe(options)
    except ValueError as error:
        parser.error(str(error))
    order = Order(
        model=options.model,
        output=options.output,
        name=options.name or options.output.resolve().name,
        task=options.task,
        recipe=recipe,
        quantize=options.quantize,
        io_type=options.io_type,
        version=options.model_version,
        labels=options.labels,
        calibration=options.calibration,
        signature=options.signature,
        force=options.force,
        verbose=options.verbose,
    )
    try:
        manifest = build(order)
    except KeyboardInterrupt:
        return _failed("interrupted; nothing was changed", EXIT_FAILED)
    except (EdgeRunnerError, OSError) as error:
        if options.verbose:
            traceback.print_exc()
        return _failed(str(error), getattr(error, "exit_code", EXIT_FAILED))
    print(_report(options.output, manifest))
    return EXIT_DONE


class _Parser(argparse.ArgumentParser):
    """Usage errors end as all others do: one line, `edge-runner: error: …`."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{PROGRAM}: error: {message}; see {self.prog} --help\n")


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--normalize -1..1` as `--normalize=-1..1`: argparse takes what begins with a dash for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in TAKE_DASHES and not argument.startswith("--"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="build_model.sh",
        description="Turn a SavedModel into a bundle that is proven to run on the board.",
        allow_abbrev=False,
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a SavedModel's folder")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="the bundle's folder; an older bundle is replaced"
    )
    parser.add_argument("--name", help="the model's name in results (default: the folder's)")
    parser.add_argument("--model-version", metavar="V", help="default: the first 8 hex digits of the model's SHA-256")
    parser.add_argument("--task", choices=sorted(TASKS), default="classify")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="one label a line")
    parser.add_argument("--normalize", choices=list(NORMALIZATIONS), help="what the model was trained to see")
    parser.add_argument("--mean", type=_numbers, metavar="M[,M,M]", help="with --std, instead of --normalize")
    parser.add_argument(
        "--std", type=_numbers, metavar="S[,S,S]", help="the model sees (x - mean) / std, with x in 0..255"
    )
    parser.add_argument("--resize", choices=get_args(Resize), default="stretch")
    parser.add_argument("--interpolation", choices=get_args(Interpolation), default="linear")
    parser.add_argument("--color", choices=get_args(Color), help="default: rgb, or what --normalize goes with")
    parser.add_argument("--quantize", choices=("none", "int8"), default="none")
    parser.add_argument(
        "--io-type", choices=("float32", "int8", "uint8"), default="int8", help="of an int8 model's input and output"
    )
    parser.add_argument("--calibration", type=Path, metavar="DIR", help="pictures like the camera's, also the proof's")
    parser.add_argument("--signature", metavar="NAME", help="default: serving_default")
    parser.add_argument("--force", action="store_true", help="keep a result that fails its proof, marked as failed")
    parser.add_argument("--verbose", action="store_true", help="show TensorFlow's own words")
    return parser


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"got '{text}'; one number, or one a channel with commas between") from None


def _recipe(options: argparse.Namespace) -> Recipe:
    """Raise ValueError where the normalisation is not said, or said twice."""
    said = options.mean is not None or options.std is not None
    if said == (options.normalize is not None) or (options.mean is None) != (options.std is None):
        allowed = f"--normalize {' | '.join(NORMALIZATIONS)}, or --mean and --std"
        raise ValueError(f"say once how the model's pictures were normalised in training; allowed: {allowed}")
    mean, std, color = (options.mean, options.std, None) if said else NORMALIZATIONS[options.normalize]
    if color and options.color not in (None, color):
        raise ValueError(f"--normalize {options.normalize} goes with --color {color}, not with {options.color}")
    return Recipe(options.color or color or "rgb", mean, std, options.resize, options.interpolation)


def _report(output: Path, manifest: Manifest) -> str:
    proof = manifest.proof
    return (
        f"{output}: {manifest.name} {manifest.version}, {manifest.quantization}, loads under {', '.join(manifest.runtimes)}\n"
        f"proof {proof['verdict']}: {proof['answers_changed']:.1%} of the answers to"
        f" {proof['pictures']} pictures changed, max abs error {proof['max_abs_error']:g}, cosine {proof['cosine']:g};"
        f" recipe {proof['recipe']}"
    )


def _failed(message: str, code: int) -> int:
    print(f"{PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
