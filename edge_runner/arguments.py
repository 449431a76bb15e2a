"""What can be typed: the commands, their options and their help."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from edge_runner import __version__
from edge_runner.errors import EXIT_USAGE

Verb = Callable[[argparse.Namespace], int]
PROGRAM = "edge-runner"
EXAMPLES = """\
examples:
  edge-runner --config camera.yaml                       run until a signal comes, or the file ends
  edge-runner --config camera.yaml --once                one frame, one result
  edge-runner check --config camera.yaml                 everything that is wrong, at once
  edge-runner snapshot --config camera.yaml -o aim.jpg   what the camera sees, and what the model sees
  edge-runner doctor                                     this board and its cameras, each tried; what is wrong, what helps
  edge-runner init --model model.tflite -o camera.yaml   a first configuration from the cameras that are there
  edge-runner inspect model.tflite                       tensors, quantisation, operators, labels
  edge-runner model install models/digits                a bundle as the active version, once it is proven; model list shows it
  edge-runner results front-door.jsonl --since 2h        what was seen in the last two hours; --count: how often
  edge-runner run --config camera.yaml --set camera.type=images --set camera.path=cat.jpg --once

exit codes: 0 done, 1 failed while running, 2 usage, 69 no frame came, 78 the configuration or the model is wrong
"""

DOCTOR_CODES = """\
Without --config, it is a problem where a camera that is plugged in gives no frame, or where there is none at all. With it, its
cameras have to give frames, and those that it does not name are of less account. A camera that edge-runner reads at the moment
is left in peace, and no broker is logged in to. It runs where packages are missing or broken, too.
Exit codes: 0 no problem, though there may be warnings; 1 a problem; 78 the configuration is wrong.
"""
FIRST = "a first configuration from the cameras that are there"
INIT_NOTE = """\
USB and CSI cameras are found; where there is none, the test picture takes their place. A file that is there is not overwritten.
What only you can know is left out and said: without --model the model, with a bare .tflite how its pictures are prepared.
"""

MODEL = """\
Installed models. A version is proven before it becomes the active one, which a
configuration with `model: {name: NAME}` runs; a daemon takes it up by itself.
"""
MODEL_NOTE = """\
examples:
  edge-runner model install models/digits
  ssh pi edge-runner model install - < models/digits-3f2a9c1d.tar.gz
  edge-runner model rollback digits

They are in /var/lib/edge-runner/models; EDGE_RUNNER_STATE names another place.
Exit codes: 0 done; 1 the disk, the network or a permission; 78 the model.
"""
READ = """\
Read results from logs: those of a time, a camera or a label, as a table, CSV
or JSON lines; count them; follow them.
"""
READ_NOTE = """\
FILE      A log that is being written brings the rotated ones beside it along,
          the oldest first. Several logs are shown in the order of their times.
          What is gzipped is found out.
T         2026-11-22 (its beginning), 2026-11-22T13:28 or
          2026-11-22T13:28:00+01:00; UTC, unless it says otherwise. Or an age:
          90s, 30m, 2h, 7d. Results are from --since until just before --until.
answers   Of a classification the best one counts, as in an output's `when`;
          each detection; each segment, its area being its score; key points,
          by their names, where there are no detections. With --label and
          --min-score, one and the same answer has to match both. Table and CSV
          then show those that match, otherwise all. JSON is the whole line
          always, as it stands in the log.
--count   RESULTS is how many results there are in the hour, a label's column
          in how many of them it stands, once each however often it does. CSV
          has a row an hour, JSON an object.
CSV       Text that begins with = + - or @ has a ' before it: a spreadsheet
          would take a label or a file's name for a formula.

A time with a ? comes from a clock that no time service had set. What cannot be
read, a line or the end of a damaged file, is left out and told on standard
error, and the exit code is 0 all the same. It is 1 where a file is not there.

examples:
  edge-runner results front-door.jsonl --label person --since 2h
  edge-runner results front-door.jsonl --count --per day
  edge-runner results -f front-door.jsonl back-door.jsonl
  edge-runner results *.jsonl --since 2026-11-01 --until 2026-12-01 --format csv
  ssh pi cat front-door.jsonl | edge-runner results - --min-score 0.8 --last 20
"""


class Parser(argparse.ArgumentParser):
    """Options in full only; usage errors end as all others do: one line, `edge-runner: error: …`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{PROGRAM}: error: {message}; see {self.prog} --help\n")


def parser(functions: Mapping[str, Verb]) -> Parser:
    """The command line; `functions` carry out the verbs: `run`, `model install`."""
    raw = argparse.RawDescriptionHelpFormatter
    made = Parser(
        prog=PROGRAM, description="Run a TensorFlow Lite model on a camera's frames.", epilog=EXAMPLES, formatter_class=raw
    )  # fmt: skip
    made.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    verbs = made.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = _verb(verbs, "run", functions["run"], "run the daemon; the same as no command at all")
    run.add_argument("--once", action="store_true", help="one frame, one result, exit")
    _verb(verbs, "check", functions["check"], "everything that is wrong, at once; nothing is captured or written")
    snapshot = _verb(
        verbs,
        "snapshot",
        functions["snapshot"],
        "one frame: what the camera sees and what the model sees, as a picture",
    )
    snapshot.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="a .jpg or .png file, or - for standard output"
    )
    snapshot.add_argument("--camera", metavar="NAME", help="which one, where there are several")
    doctor = _verb(
        verbs,
        "doctor",
        functions["doctor"],
        "this board, from Python to its cameras, each tried: what is wrong, and what helps",
        needed=False,
    )
    doctor.epilog = DOCTOR_CODES
    doctor.add_argument("--json", action="store_true", help="one JSON object for programs, instead of lines for people")
    init = verbs.add_parser("init", help=FIRST, description=FIRST[0].upper() + FIRST[1:] + ".", epilog=INIT_NOTE)
    init.add_argument(
        "--model", type=Path, metavar="M", help="a bundle's folder, a .tflite file, or the name of an installed model"
    )
    init.add_argument("-o", "--output", required=True, metavar="FILE", help="a new file, or - for standard output")
    init.add_argument("--debug", action="store_true", help="log more, and show tracebacks")
    init.set_defaults(verb=functions["init"])
    inspect = verbs.add_parser("inspect", help="a .tflite file or a bundle: tensors, quantisation, operators, labels")
    inspect.add_argument("model", type=Path, metavar="MODEL", help="a .tflite file or a bundle's folder")
    inspect.add_argument("--debug", action="store_true", help="log more, and show tracebacks")
    inspect.set_defaults(verb=functions["inspect"])
    _add_model(verbs, functions)
    _add_results(verbs, functions["results"])
    return made


def _verb(
    verbs: argparse._SubParsersAction[Parser], name: str, function: Verb, text: str, *, needed: bool = True
) -> Parser:
    """A command with `--config`."""
    parser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument(
        "--config", required=needed, type=Path, metavar="FILE", help="the configuration, such as camera.yaml"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="put over the configuration; a dotted key, any number of times",
    )
    parser.add_argument("--debug", action="store_true", help="log more, and show tracebacks")
    parser.set_defaults(verb=function)
    return parser


def _add_model(verbs: argparse._SubParsersAction[Parser], functions: Mapping[str, Verb]) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    text = "installed models: install, list, activate, rollback, remove"
    model = verbs.add_parser("model", help=text, description=MODEL, epilog=MODEL_NOTE, formatter_class=raw)
    actions = model.add_subparsers(title="commands", metavar="COMMAND", required=True)
    install = actions.add_parser(
        "install", help="prove a bundle, put it into the store, and make it the active version"
    )
    install.add_argument(
        "source", metavar="FOLDER|ARCHIVE|URL|-", help="a bundle's folder; or its .tar.gz: a file, an http(s) address"
        " (#sha256=HEX at its end is compared), or - for standard input",
    )  # fmt: skip
    install.add_argument("--sha256", type=sha256_sum, metavar="HEX", help="what the archive's has to be")
    install.add_argument("--no-activate", action="store_true", help="the active version stays the one that it is")
    listing = actions.add_parser("list", help="every installed version, which is active, and what is damaged")
    listing.add_argument("--json", action="store_true", help="as JSON")
    for name, help_text in (
        ("activate", "prove an installed version again, and make it the active one"),
        ("remove", "delete a version that is not active, and does not run"),
    ):
        action = actions.add_parser(name, help=help_text)
        action.add_argument(
            "version", type=_model_version, metavar="NAME@VERSION", help="as `edge-runner model list` has it"
        )
    rollback = actions.add_parser("rollback", help="go back to the version that was active before")
    rollback.add_argument("name", metavar="NAME", help="the model's")
    for name, action in actions.choices.items():
        action.description = None
        action.set_defaults(verb=functions[f"model {name}"])
        action.add_argument("--debug", action="store_true", help="log more, and show tracebacks")


def _add_results(verbs: argparse._SubParsersAction[Parser], function: Verb) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    text = "read, filter, count and follow the JSON lines, rotated and gzipped ones too"
    results = verbs.add_parser("results", help=text, description=READ, epilog=READ_NOTE, formatter_class=raw)
    results.add_argument(
        "files", nargs="+", metavar="FILE", help="a log, a rotated or gzipped one, or - for standard input"
    )
    results.add_argument(
        "--since", type=_moment, default=b"", metavar="T", help="from this time on, or no older than this age"
    )
    results.add_argument(
        "--until", type=_moment, default=b"", metavar="T", help="before this time, or older than this age"
    )
    results.add_argument(
        "--label", action="append", default=[], metavar="L", help="with this label; any number of times"
    )
    results.add_argument(
        "--min-score", type=_fraction, default=0.0, metavar="X", help="with an answer of this score or a better one"
    )
    results.add_argument(
        "--camera", action="append", default=[], metavar="NAME", help="of this camera; any number of times"
    )
    results.add_argument(
        "-n", "--last", type=_whole, metavar="N", help="the last N of them; with -f 10, unless there is --since"
    )
    results.add_argument("--format", choices=("table", "csv", "json"), default="table", help="default: table")
    results.add_argument(
        "--count", action="store_true", help="how many an hour, and in how many of them each label stands"
    )
    results.add_argument("--per", choices=("minute", "hour", "day"), help="count by these instead of hours")
    results.add_argument(
        "-f", "--follow", action="store_true", help="go on with what is written from now on, until Ctrl-C"
    )
    results.add_argument("--debug", action="store_true", help="log more, and show tracebacks")
    results.set_defaults(verb=function)


def _model_version(text: str) -> tuple[str, str]:
    name, _, version = text.rpartition("@")
    if not name or not version:
        raise argparse.ArgumentTypeError(f"'{text}' is no NAME@VERSION, such as digits@3f2a9c1d")
    return name, version


def sha256_sum(text: str) -> str:
    """The text, where it is one. Raise ArgumentTypeError otherwise."""
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError(f"'{text}' is no SHA-256: 64 hexadecimal digits")
    return text


def _moment(text: str) -> bytes:
    from edge_runner.tools.results import moment

    try:
        return moment(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _fraction(text: str) -> float:
    with suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"'{text}' is no number from 0 to 1")


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number")
    return int(text)
