"""`python -m edge_runner.builder`: what scripts/build_model.sh runs."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn, get_args

from edge_runner.builder.build import build
from edge_runner.builder.order import (
    AUTO_MODES,
    DEFAULT_MAX_LOSS,
    DEFAULT_TARGET,
    MODES,
    SET,
    SET_PREFIX,
    IoType,
    Order,
)
from edge_runner.builder.progress import Progress
from edge_runner.builder.recipes import NORMALIZATIONS
from edge_runner.builder.report.verdict import NOT_TRIED
from edge_runner.errors import EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EdgeRunnerError
from edge_runner.model.bundle import Manifest
from edge_runner.model.preprocess import Color, Interpolation, Recipe, Resize
from edge_runner.task import TASKS

PROGRAM = "edge-runner"
COMMAND = "scripts/build_model.sh"
TAKE_DASHES = ("--normalize", "--mean", "--std")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build one bundle; return the exit code, as the board's commands do."""
    parser = _parser()
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(_joined(given))
    try:
        recipe = _recipe(options)
    except ValueError as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what was begun is taken away
    order = Order(
        model=options.model,
        output=options.output,
        name=options.name,
        task=options.task,
        recipe=recipe,
        quantize=options.quantize,
        io_type=options.io_type,
        version=options.model_version,
        labels=options.labels,
        calibration=options.calibration,
        evaluate=options.evaluate,
        max_loss=options.max_loss,
        signature=options.signature,
        input_shape=options.input_shape,
        target=options.target,
        force=options.force,
        verbose=options.verbose,
        sets=options.set,
        command=shlex.join([COMMAND, *given]),
    )
    try:
        manifest = build(order, Progress(_say))
    except KeyboardInterrupt:
        return _failed("interrupted; nothing was changed", EXIT_FAILED)
    except (EdgeRunnerError, OSError) as error:
        if options.verbose:
            traceback.print_exc()
        option = f"{_option(error.key)}: " if isinstance(error, EdgeRunnerError) and error.key else ""
        return _failed(f"{option}{error}", getattr(error, "exit_code", EXIT_FAILED))
    except Exception as error:  # our own mistake: one line all the same
        if options.verbose:
            traceback.print_exc()
        words = f"{type(error).__name__}: {error}"
        return _failed(f"a mistake in edge-runner itself: {words} (--verbose shows where)", EXIT_FAILED)
    print("\n".join(_summary(manifest)))
    return EXIT_DONE


def _option(key: str) -> str:
    """The option that stands for a configuration's key: `--std` for `preprocess.std`, `--set task.decoder` for `task.decoder`."""
    known = {"model.path": "MODEL", "task": "--task", "task.type": "--task"}
    return known.get(key, f"{SET} {key}" if key.startswith(SET_PREFIX) else f"--{key.rpartition('.')[2]}")


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
    parser.add_argument("model", type=Path, metavar="MODEL", help="a SavedModel's folder, a .keras or an .h5 file")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="the bundle's folder; an older bundle is replaced"
    )
    parser.add_argument("--name", help="the model's name in results (default: the folder's)")
    parser.add_argument("--model-version", metavar="V", help="default: the first 8 hex digits of the model's SHA-256")
    parser.add_argument(
        "--task", choices=sorted(TASKS), default="classify", help="how the outputs are read (default: %(default)s)"
    )
    parser.add_argument(
        SET,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key of the configuration's task, for the bundle: task.decoder=yolov8, task.score_threshold=0.4",
    )
    parser.add_argument("--labels", type=Path, metavar="FILE", help="one label a line")
    parser.add_argument("--normalize", choices=list(NORMALIZATIONS), help="what the model was trained to see")
    parser.add_argument("--mean", type=_numbers, metavar="M[,M,M]", help="with --std, instead of --normalize")
    parser.add_argument(
        "--std", type=_numbers, metavar="S[,S,S]", help="the model sees (x - mean) / std, with x in 0..255"
    )
    parser.add_argument("--resize", choices=get_args(Resize), help="default: stretch")
    parser.add_argument("--interpolation", choices=get_args(Interpolation), help="default: linear")
    parser.add_argument("--color", choices=get_args(Color), help="default: rgb, or what --normalize goes with")
    parser.add_argument(
        "--quantize",
        choices=(*MODES, "auto"),
        default="none",
        help=f"auto: the first of {', '.join(AUTO_MODES)} that loses no more than --max-loss (default: %(default)s)",
    )
    parser.add_argument(
        "--io-type", choices=get_args(IoType), help="of an int8 model's input and output (default: int8)"
    )
    parser.add_argument(
        "--calibration", type=Path, metavar="IMAGES_DIR|FILE.npz", help="samples like the camera's, also the proof's"
    )
    parser.add_argument(
        "--evaluate", type=Path, metavar="DIR", help="labelled pictures, one sub-folder a label: is the recipe right?"
    )
    parser.add_argument(
        "--max-loss",
        type=float,
        default=DEFAULT_MAX_LOSS,
        metavar="X",
        help="the fraction of answers that may change, with --evaluate of accuracy that may go (default: %(default)s)",
    )
    parser.add_argument("--signature", metavar="NAME", help="default: serving_default")
    parser.add_argument(
        "--input-shape", type=_shape, metavar="N,H,W,C", help="where the model leaves its input's size open"
    )
    parser.add_argument(
        "--target",
        default=DEFAULT_TARGET,
        metavar="RUNTIME==VERSION",
        help="what the board has; the model must load and run under it (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="keep a result that fails its proof, marked as failed")
    parser.add_argument("--verbose", action="store_true", help="show TensorFlow's own words")
    return parser


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"got '{text}'; one number, or one a channel with commas between") from None


def _shape(text: str) -> tuple[int, ...]:
    sizes = tuple(int(part) if part.strip().isdecimal() else 0 for part in text.split(","))
    if not all(sizes):
        raise argparse.ArgumentTypeError(f"got '{text}'; whole numbers above 0 with commas between, as 1,224,224,3")
    return sizes


def _recipe(options: argparse.Namespace) -> Recipe | None:
    """None for a raw task of which nothing is said. Raise ValueError where the normalisation is not said, or said twice."""
    said = options.mean is not None or options.std is not None
    if options.task == "raw" and not said and options.normalize is None:
        if options.color or options.resize or options.interpolation:
            raise ValueError(
                "--color, --resize and --interpolation are of pictures; say --normalize, or --mean and --std, too"
            )
        return None
    if said == (options.normalize is not None) or (options.mean is None) != (options.std is None):
        allowed = f"--normalize {' | '.join(NORMALIZATIONS)}, or --mean and --std"
        raise ValueError(f"say once how the model's pictures were normalised in training; allowed: {allowed}")
    mean, std, color = (options.mean, options.std, None) if said else NORMALIZATIONS[options.normalize]
    if color and options.color not in (None, color):
        raise ValueError(f"--normalize {options.normalize} goes with --color {color}, not with {options.color}")
    return Recipe(
        options.color or color or "rgb", mean, std, options.resize or "stretch", options.interpolation or "linear"
    )


def _say(line: str) -> None:
    print(line, flush=True)


def _summary(manifest: Manifest) -> Iterator[str]:
    proof = manifest.proof
    yield f"{manifest.name} {manifest.version}, {manifest.quantization}, loaded under {', '.join(manifest.runtimes)}"
    errors = [output["max_abs_error"] for output in proof["outputs"] if output["max_abs_error"] is not None]
    worst = f", max abs error {max(errors):g}" if errors else ""
    yield f"proof {proof['verdict']}: {proof['changed']:.1%} of the answers to {proof['samples']} samples changed{worst}"
    if "evaluation" in proof:
        yield "top-1: SavedModel {saved_model_top1:.1%}, .tflite {tflite_top1:.1%}".format(**proof["evaluation"])
    yield f"recipe {proof['recipe']}"
    if proof["target"].startswith(NOT_TRIED):
        yield f"target {proof['target']}; the board's own `edge-runner check` completes the proof"


def _failed(message: str, code: int) -> int:
    print(f"{PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
