"""The command line: verbs and exit codes. The only place that prints or exits."""

from __future__ import annotations

import argparse
import io
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
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
    from edge_runner.pipeline import assemble
    from edge_runner.service.device import clock_synced

    return assemble(load(options), clock_synced, exact=exact)


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
