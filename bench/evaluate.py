"""How right a model is on pictures whose answers are known, through the daemon's own path and by the user's own configuration.

    python bench/evaluate.py --config camera.yaml --data FOLDER                              # classify: a sub-folder a label
    python bench/evaluate.py --config camera.yaml --images DIR --annotations instances.json  # detect: COCO's mAP
    python bench/evaluate.py --config camera.yaml --images DIR --masks DIR                   # segment: mIoU

docs/accuracy.md says what the numbers mean, and what they do not prove.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from judges.base import DataError, Judge, Sample, Unusable, some
from judges.mean_ap import MeanAP
from judges.mean_iou import MeanIoU
from judges.top_k import TopK

from edge_runner import cli
from edge_runner.arguments import Parser
from edge_runner.builder.samples import spread
from edge_runner.camera.base import CameraConfig, View
from edge_runner.camera.images import SUFFIXES, ImagesConfig
from edge_runner.config import Loaded
from edge_runner.engine import DEFAULT_TASK
from edge_runner.errors import EXIT_DONE, EXIT_USAGE, CameraError, EdgeRunnerError, OutputError
from edge_runner.model.bundle import open_model
from edge_runner.output.base import Item, Origin, Output, OutputConfig
from edge_runner.output.publisher import Publisher
from edge_runner.pipeline import Pipeline, assemble
from edge_runner.service import daemon
from edge_runner.service.signals import Signals
from edge_runner.settings import Settings

log = logging.getLogger("edge_runner.bench.evaluate")

CAMERA = "evaluation"
PROGRESS_S = {True: 0.2, False: 10.0}  # between two lines of progress, on a terminal and elsewhere


class UsageError(EdgeRunnerError, ValueError):
    """The options do not go with the configuration's task."""

    exit_code = EXIT_USAGE


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate once; return the exit code, as the daemon's commands do."""
    return cli.carry_out(evaluate, _options(arguments))


def evaluate(options: argparse.Namespace) -> int:
    """Judge every picture, and tell what came out. Samples that could not be judged end it with 1, after the numbers."""
    if options.json:
        _require_place(options.json)
    loaded = cli.load(options)
    given = _task_of(loaded.value)
    judge = _judge(options, given["type"])
    samples = judge.samples()
    missing = [sample.picture for sample in samples if not sample.picture.is_file()]
    if missing:
        raise DataError(f"{len(missing)} of {len(samples)} pictures are missing: {some(missing)}")
    samples = [samples[index] for index in spread(len(samples), options.limit or len(samples))]
    settings = judge.settings(given, {key for key in given if _set_here(loaded, f"task.{key}")})
    gathered = Gather(judge, samples)
    pipeline = run(loaded, settings, gathered)
    model, runtime = pipeline.engine.model, pipeline.engine.interpreter.runtime
    numbers = {
        "task": judge.task,
        "model": {"name": model.name, "version": model.version},
        "config": str(options.config),
        "runtime": str(runtime),
        "set": {f"task.{key}": value for key, value in settings.items()},
        "pictures": gathered.judged,
        "left_out": {str(path): why for path, why in gathered.left_out.items()},
        **judge.numbers(),
    }
    if options.json:
        _write(options.json, json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
    print(f"{model.name} {model.version} ({runtime}), {judge.task}, {gathered.judged} of {len(samples)} pictures")
    print(f"for the evaluation, {', '.join(f'{key} is {value}' for key, value in numbers['set'].items())}\n")
    print(*judge.report(numbers), sep="\n", flush=True)
    if gathered.left_out:
        faults = [f"{path} {why}" for path, why in gathered.left_out.items()]
        raise DataError(f"{len(faults)} of {len(samples)} pictures are not in these numbers: {some(faults, '; ')}")
    return EXIT_DONE


def run(loaded: Loaded[Settings], task: Mapping[str, Any], gathered: Gather) -> Pipeline:
    """Let the daemon run over the samples as its camera, with `gathered` as its output; return its pipeline.

    `task` is put over the configuration's. The pictures are found in one folder, by links: so they come in order, under names of
    their own, wherever they lie.
    """
    given = loaded.value
    if any(View(camera).turns or View(camera).crop != CameraConfig.crop for camera in given.sources.values()):
        log.info("the camera's rotate, flip and crop are left out: pictures with known answers are upright and whole")
    with Signals() as signals, tempfile.TemporaryDirectory(prefix="edge-runner-") as folder:
        links = _links(Path(folder), gathered.samples)
        camera = ImagesConfig(name=CAMERA, path=Path(folder))
        settings = replace(given, camera=camera, cameras=None, outputs=(), task={**(given.task or {}), **task})
        try:
            pipeline = assemble(replace(loaded, value=settings))
        except EdgeRunnerError as error:
            if signals.pending():  # Ctrl-C reached a child as well
                raise DataError("interrupted") from error
            raise
        gathered.judge.fits(pipeline.engine.task.labels)
        pipeline.publisher = Publisher({CAMERA: gathered}, pipeline.publisher.origin, patient=True)
        with _true_names(links), gathered.complaint():
            daemon.run(pipeline, signals)
    gathered.end(pipeline.feeds["camera"].skipped)
    return pipeline


class Gather(Output):
    """The daemon's output of an evaluation: each result goes to the judge, beside the sample that it is of."""

    def __init__(self, judge: Judge, samples: Sequence[Sample]) -> None:
        super().__init__(OutputConfig())
        self.judge = judge
        self.samples = samples
        self.judged = 0
        self.left_out: dict[Path, str] = {}
        self._seen: set[int] = set()
        self._refused: DataError | None = None

    def open(self, origin: Origin) -> None:
        self._progress = Progress(len(self.samples))

    def write(self, item: Item) -> None:
        result = item.result
        number = int(Path(str(result.source)).stem)
        sample = self.samples[number]
        self._seen.add(number)
        try:
            self.judge.judge(sample, result)
            self.judged += 1
        except Unusable as why:
            self.left_out[sample.picture] = str(why)
        except DataError as error:
            self._refused = error
            raise BrokenPipeError from error  # there is no use in going on
        self._progress(number + 1)

    @contextmanager
    def complaint(self) -> Iterator[None]:
        """That nothing at all could be read is said as `end` says it."""
        try:
            yield
        except CameraError:
            if self._seen:
                raise

    def end(self, skipped: int) -> None:
        """The run is over; `skipped` files could not be read. Raise DataError where nothing was judged, or not all was seen."""
        if self._refused:
            raise self._refused
        self._progress.end(len(self._seen) + skipped)
        if len(self._seen) + skipped < len(self.samples):
            raise DataError(
                f"interrupted after {len(self._seen)} of {len(self.samples)} pictures; there are no numbers"
            )
        for number, sample in enumerate(self.samples):
            if number not in self._seen:
                self.left_out[sample.picture] = "cannot be read as a picture"
        if not self.judged:
            path, why = next(iter(self.left_out.items()))
            raise DataError(f"none of the {len(self.samples)} pictures can be judged: {path} {why}")


class Progress:
    """How far it is: a line that is written over on a terminal, and one now and then elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._started = self._said = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def __call__(self, done: int) -> None:
        if time.monotonic() - self._said >= PROGRESS_S[self._terminal]:
            left_s = (self._total - done) * (time.monotonic() - self._started) / done
            self._say(
                f"{done}/{self._total} pictures, {math.ceil(left_s)} s left", end="\r" if self._terminal else "\n"
            )

    def end(self, done: int) -> None:
        elapsed_s = time.monotonic() - self._started
        self._say(f"{done}/{self._total} pictures in {elapsed_s:.1f} s", end="\n")

    def _say(self, text: str, end: str) -> None:
        self._said = time.monotonic()
        print(f"{text}\x1b[K" if self._terminal else text, end=end, file=sys.stderr, flush=True)


def _judge(options: argparse.Namespace, task: str) -> Judge:
    """The judge that the options are for. Raise UsageError where it is not the one of the configuration's task."""
    ways = {
        TopK.task: "--data FOLDER",
        MeanAP.task: "--images DIR --annotations FILE",
        MeanIoU.task: "--images DIR --masks DIR",
    }
    if task not in ways:
        raise UsageError(f"{options.config} is for the task '{task}', which is not evaluated; {', '.join(ways)} are")
    given = TopK.task if options.data else MeanAP.task if options.annotations else MeanIoU.task
    if given != task:
        raise UsageError(
            f"{options.config} is for the task '{task}', which takes {ways[task]}; {ways[given]} is for '{given}'"
        )
    if options.data:
        return TopK(options.data)
    if options.annotations:
        return MeanAP(options.images, options.annotations)
    return MeanIoU(options.images, options.masks, options.mask_divisor)


def _task_of(settings: Settings) -> dict[str, Any]:
    """The task as the pipeline will have it: what the bundle says of it, with what is given put over that."""
    manifest, given = open_model(settings.model).manifest, dict(settings.task or {})
    says = dict(manifest.task) if manifest else {}
    name = given.get("type") or says.get("type") or DEFAULT_TASK
    return {**(says if name == says.get("type") else {}), **given, "type": name}


def _set_here(loaded: Loaded[Settings], key: str) -> bool:
    return key in loaded.places and loaded.places[key].line == 0


def _links(folder: Path, samples: Sequence[Sample]) -> dict[Path, Path]:
    """A link in `folder` to each picture, in their order -> the picture."""
    links = {}
    for number, sample in enumerate(samples):
        suffix = sample.picture.suffix.lower()
        link = folder / f"{number}{suffix if suffix in SUFFIXES else SUFFIXES[0]}"
        link.symlink_to(sample.picture.absolute())
        links[link] = sample.picture
    return links


@contextmanager
def _true_names(links: Mapping[Path, Path]) -> Iterator[None]:
    """What is logged of a link is said of the picture."""

    def rename(record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(links.get(arg, arg) if isinstance(arg, Path) else arg for arg in record.args)
        return True

    logger = logging.getLogger("edge_runner.camera.images")
    logger.addFilter(rename)
    try:
        yield
    finally:
        logger.removeFilter(rename)


def _require_place(path: Path) -> None:
    if path.is_dir() or not path.parent.is_dir():
        raise OutputError(f"--json {path}: {'it is a folder' if path.is_dir() else f'{path.parent} is no folder'}")


def _write(path: Path, text: str) -> None:
    """Write beside the target, then rename."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, "utf-8")
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise OutputError(f"--json {path}: {(error.strerror or str(error)).lower()}") from error


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"got '{text}'; a whole number above 0")
    return int(text)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="evaluate.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", required=True, type=Path, metavar="FILE", help="the configuration, such as camera.yaml"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="put over the configuration")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="a classifier's pictures: a sub-folder a label")
    parser.add_argument("--images", type=Path, metavar="DIR", help="a detector's or a segmenter's pictures")
    parser.add_argument("--annotations", type=Path, metavar="FILE", help="what is in them: COCO's instances, JSON")
    parser.add_argument(
        "--masks", type=Path, metavar="DIR", help="their masks: a PNG a picture, a pixel's value its class"
    )
    parser.add_argument(
        "--mask-divisor", type=_positive, metavar="N", help="where a pixel's value is N times its class"
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="so many pictures at most, spread over all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to this file too")
    parser.add_argument("--debug", action="store_true", help="log more, and show tracebacks")
    options = parser.parse_args(arguments)
    if [bool(options.data), bool(options.annotations), bool(options.masks)].count(True) != 1:
        parser.error("one of these: --data FOLDER, --images DIR --annotations FILE, --images DIR --masks DIR")
    if bool(options.images) == bool(options.data):
        parser.error("--images goes with --annotations or --masks, and these with it")
    if options.mask_divisor and not options.masks:
        parser.error("--mask-divisor is of --masks")
    options.mask_divisor = options.mask_divisor or 1
    return options


if __name__ == "__main__":
    raise SystemExit(main())
