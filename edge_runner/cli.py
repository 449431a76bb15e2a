"""The command line: verbs and exit codes. The only place that prints or exits."""

from __future__ import annotations

import argparse
import io
import logging
import os
import select
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from edge_runner import __version__
from edge_runner.errors import EXIT_DONE, EXIT_FAILED, EXIT_USAGE, ConfigError, EdgeRunnerError

if TYPE_CHECKING:
    from edge_runner.config import Loaded
    from edge_runner.pipeline import Pipeline
    from edge_runner.settings import Settings

PROGRAM = "edge-runner"
EXAMPLES = """\
examples:
  edge-runner --config camera.yaml                       run until a signal comes, or the file ends
  edge-runner --config camera.yaml --once                one frame, one result
  edge-runner check --config camera.yaml                 everything that is wrong, at once
  edge-runner snapshot --config camera.yaml -o aim.jpg   what the camera sees, and what the model sees
  edge-runner doctor                                     the cameras of this board, each tried; what is wrong, what helps
  edge-runner init --model model.tflite -o camera.yaml   a first configuration from the cameras that are there
  edge-runner inspect model.tflite                       tensors, quantisation, operators, labels
  edge-runner results front-door.jsonl --since 2h        what was seen in the last two hours; --count: how often
  edge-runner run --config camera.yaml --set camera.type=images --set camera.path=cat.jpg --once

exit codes: 0 done, 1 failed while running, 2 usage, 69 no frame came, 78 the configuration or the model is wrong
"""

DOCTOR_CODES = """\
Without --config, it is a problem where a camera that is plugged in gives no frame, or where there is none at all. With it, its
cameras have to give frames, and those that it does not name are of less account. A camera that edge-runner reads at the moment
is left in peace. Exit codes: 0 no problem, though there may be warnings; 1 a problem; 78 the configuration is wrong.
"""
FIRST = "a first configuration from the cameras that are there"
INIT_NOTE = """\
USB and CSI cameras are found; where there is none, the test picture takes their place. A file that is there is not overwritten.
What only you can know is left out and said: without --model the model, with a bare .tflite how its pictures are prepared.
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
PIPED_COLUMNS = 120
FOLLOW_MS = 250


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    if not given:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    if given[0].startswith("-") and given[0] not in ("-h", "--help", "--version"):
        given.insert(0, "run")
    options = parser.parse_args(given)
    return carry_out(options.verb, options)


def carry_out(verb: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> int:
    """Do what a command is to do; return its exit code. Every failure ends with one line, `edge-runner: error: …`.

    `options` has `debug`, and, once a configuration was read by `load`, `loaded`.
    """
    _set_up(options.debug)
    try:
        code = verb(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read our output has what they wanted
        _settle_stdout()
        return EXIT_DONE
    except KeyboardInterrupt:
        return _failed(options.debug, "interrupted", EXIT_FAILED)
    except ConfigError as error:
        for line in error.problems:
            print(line, file=sys.stderr)
        count = len(error.problems)
        return _failed(
            options.debug, f"{count} mistake{'s' if count > 1 else ''} in the configuration", error.exit_code
        )
    except EdgeRunnerError as error:
        loaded = getattr(options, "loaded", None)
        message = str(error) if not loaded else loaded.locate(error) if error.key else loaded.masked(str(error))
        return _failed(options.debug, message, error.exit_code)
    except Exception as error:
        loaded = getattr(options, "loaded", None)
        message = f"unexpected {type(error).__name__}: {error}; run it with --debug for the traceback"
        return _failed(options.debug, loaded.masked(message) if loaded else message, EXIT_FAILED)


class Parser(argparse.ArgumentParser):
    """Options in full only; usage errors end as all others do: one line, `edge-runner: error: …`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EXIT_USAGE, f"{PROGRAM}: error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog=PROGRAM, description="Run a TensorFlow Lite model on a camera's frames.", epilog=EXAMPLES, formatter_class=raw
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = _verb(verbs, "run", _run, "run the daemon; the same as no command at all")
    run.add_argument("--once", action="store_true", help="one frame, one result, exit")
    _verb(verbs, "check", _check, "everything that is wrong, at once; nothing is captured or written")
    snapshot = _verb(
        verbs, "snapshot", _snapshot, "one frame: what the camera sees and what the model sees, as a picture"
    )
    snapshot.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="a .jpg or .png file, or - for standard output"
    )
    snapshot.add_argument("--camera", metavar="NAME", help="which one, where there are several")
    doctor = _verb(
        verbs,
        "doctor",
        _doctor,
        "this board's cameras, each tried; what is wrong with them, and what helps",
        needed=False,
    )
    doctor.epilog = DOCTOR_CODES
    init = verbs.add_parser("init", help=FIRST, description=FIRST[0].upper() + FIRST[1:] + ".", epilog=INIT_NOTE)
    init.add_argument("--model", type=Path, metavar="M", help="a bundle's folder or a .tflite file")
    init.add_argument("-o", "--output", required=True, metavar="FILE", help="a new file, or - for standard output")
    init.add_argument("--debug", action="store_true", help="log more, and show tracebacks")
    init.set_defaults(verb=_init)
    inspect = verbs.add_parser("inspect", help="a .tflite file or a bundle: tensors, quantisation, operators, labels")
    inspect.add_argument("model", type=Path, metavar="MODEL", help="a .tflite file or a bundle's folder")
    inspect.add_argument("--debug", action="store_true", help="log more, and show tracebacks")
    inspect.set_defaults(verb=_inspect)
    _add_results(verbs)
    return parser


def _verb(
    verbs: argparse._SubParsersAction[Parser], name: str, function: object, text: str, *, needed: bool = True
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


def _add_results(verbs: argparse._SubParsersAction[Parser]) -> None:
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
    results.set_defaults(verb=_results)


def _run(options: argparse.Namespace) -> int:
    if options.once:
        from edge_runner.service import daemon

        daemon.once(_assemble(options, exact=True))
        return EXIT_DONE
    from edge_runner.service.signals import Signals

    with Signals() as signals:  # before anything that takes time: a signal during the start ends it with 0 too
        from edge_runner.service import daemon

        try:
            pipeline = _assemble(options)
        except EdgeRunnerError:
            if not signals.pending():
                raise
            return EXIT_DONE  # Ctrl-C reached a child as well
        daemon.run(pipeline, signals)
    return EXIT_DONE


def _assemble(options: argparse.Namespace, *, exact: bool = False) -> Pipeline:
    from edge_runner.pipeline import Board, assemble
    from edge_runner.service.device import clock_synced, temperature_c

    return assemble(load(options), Board(clock_synced, temperature_c), exact=exact)


def _check(options: argparse.Namespace) -> int:
    from edge_runner.pipeline import assemble
    from edge_runner.tools import check

    loaded = load(options)
    for line in check.report(assemble(loaded)):
        print(line)
    print(f"{options.config}: nothing is wrong")
    return EXIT_DONE


def _snapshot(options: argparse.Namespace) -> int:
    from edge_runner.pipeline import assemble
    from edge_runner.tools.snapshot import STANDARD_OUTPUT, snapshot

    if options.output == STANDARD_OUTPUT and sys.stdout.isatty():
        return _failed(False, "a picture is not for a terminal; send it to a file: … -o - > aim.jpg", EXIT_USAGE)
    loaded = load(options)
    settings = replace(loaded.value, outputs=())
    if options.camera:
        settings = settings.only(options.camera)
    elif len(settings.sources) > 1:
        names = ", ".join(str(camera.name) for camera in settings.sources.values())
        return _failed(False, f"which camera? --camera NAME, one of {names}", EXIT_USAGE)
    result = snapshot(assemble(replace(loaded, value=settings), exact=True), options.output)
    print(result.line(), file=sys.stderr)
    return EXIT_DONE


def _doctor(options: argparse.Namespace) -> int:
    from edge_runner.tools import doctor

    loaded, wrong = None, None
    if options.config:
        try:
            loaded = load(options)
        except ConfigError as error:  # what can be said of the board is said all the same
            wrong = error
    elif options.set:
        return _failed(False, "--set goes over a configuration; name it with --config", EXIT_USAGE)
    width, findings = shutil.get_terminal_size().columns, []
    for finding in doctor.examine(doctor.Board(loaded)):
        findings.append(finding)
        for line in finding.lines(width):
            print(line, flush=True)
    if wrong:
        raise wrong
    problems = doctor.problems(findings)
    if problems:
        return _failed(False, problems, EXIT_FAILED)
    print("nothing is wrong")
    return EXIT_DONE


def _init(options: argparse.Namespace) -> int:
    from edge_runner.tools import init

    draft = init.init(options.output, options.model)
    if options.output == init.STANDARD_OUTPUT:
        print(draft.text, end="")
    for line in init.next_steps(draft, options.output):
        print(line, file=sys.stderr)
    return EXIT_DONE


def _inspect(options: argparse.Namespace) -> int:
    from edge_runner.tools import inspect

    for line in inspect.report(options.model):
        print(line)
    return EXIT_DONE


def _results(options: argparse.Namespace) -> int:
    from edge_runner.tools.logs import STANDARD_INPUT
    from edge_runner.tools.results import Choice, Order, Reading

    per: Any = options.per or ("hour" if options.count else None)
    if per and (options.follow or options.last is not None):
        return _failed(False, "a count is of all there is; leave out --follow and --last", EXIT_USAGE)
    if options.follow and STANDARD_INPUT in options.files:
        return _failed(False, "standard input is read as it comes, to its end; leave out --follow", EXIT_USAGE)
    choice = Choice(options.since, options.until, options.label, options.min_score, options.camera)
    reading = Reading(options.files, Order(choice, options.format, per, options.last, options.follow))
    try:
        for line in reading.lines(shutil.get_terminal_size((PIPED_COLUMNS, 0)).columns, _wait):
            _put(print, line)
    except KeyboardInterrupt:
        if not options.follow:
            raise
    _put(sys.stdout.flush)
    reading.report()
    return EXIT_DONE


def _put(deed: Callable[..., None], *given: str) -> None:
    """Do something to standard output. Raise EdgeRunnerError where that takes nothing, BrokenPipeError where nobody reads it."""
    try:
        deed(*given)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise EdgeRunnerError(f"standard output: {(error.strerror or str(error)).lower()}") from error


def _wait() -> None:
    """A moment, between two looks at what is followed. Raise BrokenPipeError as soon as nobody reads what is printed."""
    _put(sys.stdout.flush)
    reader = select.poll()
    reader.register(sys.stdout.fileno(), 0)
    if reader.poll(FOLLOW_MS):
        raise BrokenPipeError


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


def load(options: argparse.Namespace) -> Loaded[Settings]:
    """Read the configuration that the options name; from then on, what is logged hides its passwords."""
    from edge_runner.settings import load_settings

    options.loaded = loaded = load_settings(options.config, options.set)

    def mask(record: logging.LogRecord) -> bool:
        record.msg, record.args = loaded.masked(record.getMessage()), None
        return True

    for handler in logging.getLogger().handlers:
        handler.addFilter(mask)
    return loaded


def _set_up(debug: bool) -> None:
    """Results as UTF-8 wherever they go; logging to standard error, where libraries write nothing without --debug."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # started with a closed descriptor, which the next file would get
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding=None if sys.stdout.isatty() else "utf-8", errors="backslashreplace")
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if debug else logging.INFO,
        format=f"{PROGRAM}: %(levelname)s: %(message)s",
    )
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.addLevelName(number, logging.getLevelName(number).lower())
    if not debug:
        os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET


def _failed(debug: bool, message: str, code: int) -> int:
    if debug and sys.exc_info()[0] is not None:
        traceback.print_exc()
    print(f"{PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)
    _settle_stdout()
    return code


def _settle_stdout() -> None:
    """Give up what standard output does not take: Python would complain of it, with an exit code of its own, at the end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
