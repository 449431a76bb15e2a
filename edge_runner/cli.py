"""The command line: verbs and exit codes. The only place that prints or exits."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import select
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

from edge_runner.arguments import PROGRAM, Verb, parser, sha256_sum
from edge_runner.errors import EXIT_DONE, EXIT_FAILED, EXIT_USAGE, ConfigError, EdgeRunnerError

if TYPE_CHECKING:
    from edge_runner.config import Loaded
    from edge_runner.settings import Settings
    from edge_runner.tree import Followed

PIPED_COLUMNS = 120
FOLLOW_MS = 250


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    known = parser(VERBS)
    if not given:
        known.print_help(sys.stderr)
        return EXIT_USAGE
    if given[0].startswith("-") and given[0] not in ("-h", "--help", "--version"):
        given.insert(0, "run")
    options = known.parse_args(given)
    return carry_out(options.verb, options)


def carry_out(verb: Verb, options: argparse.Namespace) -> int:
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
        message = loaded.locate(error) if loaded and error.key else _masked(options, str(error))
        return _failed(options.debug, message, error.exit_code)
    except Exception as error:
        message = f"unexpected {type(error).__name__}: {error}; run it with --debug for the traceback"
        return _failed(options.debug, _masked(options, message), EXIT_FAILED)


def _run(options: argparse.Namespace) -> int:
    if options.once:
        from edge_runner.pipeline import Board, assemble
        from edge_runner.service.device import clock_synced
        from edge_runner.service.once import once

        once(assemble(load(options), Board(clock_synced), exact=True))
        return EXIT_DONE
    from edge_runner.service.signals import Signals

    with Signals() as signals:  # before anything that takes time: a signal during the start ends it with 0 too
        from edge_runner.service import daemon
        from edge_runner.service.reload import Source
        from edge_runner.service.systemd import Systemd
        from edge_runner.service.watchdog import Watchdog, runtime_folder
        from edge_runner.tree import Followed

        followed = Followed(options.config)
        source = Source(lambda: _load_anew(options, followed), options.config, tuple(options.set))
        watchdog = Watchdog(Systemd(), runtime_folder(), str(options.config), lambda text: _masked(options, text))
        try:
            pipeline = daemon.brought_up(source, watchdog)
        except EdgeRunnerError:
            if not signals.pending():
                raise
            return EXIT_DONE  # Ctrl-C reached a child as well
        daemon.run(pipeline, signals, watchdog, source)
    return EXIT_DONE


def _check(options: argparse.Namespace) -> int:
    from edge_runner.pipeline import assemble
    from edge_runner.service import instances
    from edge_runner.tools import check

    instances.stand_in(options.config)
    loaded = load(options)
    for line in check.report(assemble(loaded, way_back=False)):
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
    from edge_runner.service import instances
    from edge_runner.tools import doctor

    if options.set and not options.config:
        return _failed(False, "--set goes over a configuration; name it with --config", EXIT_USAGE)
    loaded: Loaded[Settings] | None = None
    wrong: ConfigError | None = None
    if options.config and not doctor.unloadable():
        instances.stand_in(options.config)
        try:
            loaded = load(options)
        except ConfigError as error:  # what can be said of the board is said all the same
            wrong = error
    width, findings = shutil.get_terminal_size().columns, []
    for finding in doctor.examine(doctor.Board(loaded, named=bool(options.config))):
        findings.append(finding)
        for line in finding.lines(width) if not options.json else ():
            print(line, flush=True)
    if options.json:
        findings += [doctor.not_read(wrong)] if wrong else []
        print(json.dumps(doctor.as_json(findings), ensure_ascii=False, indent=1))
    if wrong:
        raise wrong
    problems = doctor.problems(findings)
    if problems:
        return _failed(False, problems, EXIT_FAILED)
    if not options.json:
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


def _model_install(options: argparse.Namespace) -> int:
    from edge_runner.model.fetch import is_address
    from edge_runner.tools import models

    split = is_address(options.source)
    source, mark, fragment = options.source.partition("#sha256=") if split else (options.source, "", "")
    try:
        sha256 = sha256_sum(fragment) if mark else options.sha256
    except argparse.ArgumentTypeError as error:
        return _failed(False, str(error), EXIT_USAGE)
    if source == models.STANDARD_INPUT and sys.stdin.isatty():
        return _failed(
            False, "standard input is a terminal; send an archive to it: … - < NAME-VERSION.tar.gz", EXIT_USAGE
        )
    return _tell(models.install(source, sha256, activate=not options.no_activate))


def _model_list(options: argparse.Namespace) -> int:
    from edge_runner.tools import models

    found = models.survey()
    for line in [models.listing_json(found)] if options.json else models.listing(found):
        print(line)
    return EXIT_DONE


def _model_activate(options: argparse.Namespace) -> int:
    from edge_runner.tools import models

    return _tell(models.activate(*options.version))


def _model_rollback(options: argparse.Namespace) -> int:
    from edge_runner.tools import models

    return _tell(models.rollback(options.name))


def _model_remove(options: argparse.Namespace) -> int:
    from edge_runner.tools import models

    return _tell(models.remove(*options.version))


def _tell(lines: Iterable[str]) -> int:
    """Do what yields these lines, to its end, though nobody may read them any more."""
    for line in lines:
        with suppress(BrokenPipeError):
            print(line, flush=True)
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


def _load_anew(options: argparse.Namespace, followed: Followed) -> Loaded[Settings]:
    followed.follow()
    return load(options)


def _masked(options: argparse.Namespace, text: str) -> str:
    """Without the passwords of the configuration, once it was read."""
    loaded = getattr(options, "loaded", None)
    return loaded.masked(text) if loaded else text


def load(options: argparse.Namespace) -> Loaded[Settings]:
    """Read the configuration that the options name, perhaps once more; from then on, what is logged hides its passwords."""
    from edge_runner.settings import load_settings

    loaded = load_settings(options.config, options.set)
    if before := getattr(options, "loaded", None):  # what was a password until now is still none of the log's business
        options.loaded = replace(loaded, secrets={**before.secrets, **loaded.secrets})
        return loaded
    options.loaded = loaded

    def mask(record: logging.LogRecord) -> bool:
        record.msg, record.args = options.loaded.masked(record.getMessage()), None
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
        stream=_stream_of_log(),
        level=logging.DEBUG if debug else logging.INFO,
        format=f"{PROGRAM}: %(levelname)s: %(message)s",
    )
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.addLevelName(number, logging.getLevelName(number).lower())
    if not debug:
        os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET


def _stream_of_log() -> IO[str]:
    """Standard error by another descriptor: while a model is loaded, what native code writes to the usual one is kept apart."""
    try:
        return open(
            os.dup(sys.stderr.fileno()), "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace"
        )
    except (OSError, ValueError):
        return sys.stderr


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


VERBS: dict[str, Verb] = {
    "run": _run,
    "check": _check,
    "snapshot": _snapshot,
    "doctor": _doctor,
    "init": _init,
    "inspect": _inspect,
    "model install": _model_install,
    "model list": _model_list,
    "model activate": _model_activate,
    "model rollback": _model_rollback,
    "model remove": _model_remove,
    "results": _results,
}
