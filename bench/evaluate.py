"""How right a model is on pictures whose answers are known, through the daemon's own path and by the user's own configuration.

    python bench/evaluate.py --config camera.yaml --data FOLDER                              # classify: a sub-folder a label
    python bench/evaluate.py --config camera.yaml --images DIR --annotations instances.json  # detect: COCO's mAP
    python bench/evaluate.py --config camera.yaml --images DIR --masks DIR                   # segment: mIoU

docs/accuracy.md says what the numbers mean, and what they do not prove.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import math
import os
import struct
import sys
import tempfile
import time
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from edge_runner import cli
from edge_runner.builder.evaluate import _index as label_index  # how a folder's name is found among the labels
from edge_runner.builder.evaluate import folder_labels
from edge_runner.builder.samples import find_pictures, spread
from edge_runner.camera.base import CameraConfig, View
from edge_runner.camera.images import SUFFIXES, ImagesConfig
from edge_runner.camera.images import find_pictures as pictures_in
from edge_runner.camera.pixels import PNG_START, torn
from edge_runner.config import Loaded
from edge_runner.errors import (
    EXIT_DONE,
    EXIT_USAGE,
    CameraError,
    EdgeRunnerError,
    OutputError,
    SettingError,
)
from edge_runner.frame import Shot, Tensor
from edge_runner.model.bundle import open_model
from edge_runner.model.labels import UNUSED
from edge_runner.output.base import Output
from edge_runner.pipeline import DEFAULT_TASK, Pipeline, assemble
from edge_runner.result import Result, rounded
from edge_runner.service import daemon
from edge_runner.service.signals import Signals
from edge_runner.settings import Settings

log = logging.getLogger("edge_runner.bench.evaluate")

CAMERA = "evaluation"
BEST = 5  # of the answers: top-5
COCO_THRESHOLD = 0.001  # nearly everything counts, the worse the later: mAP is over all thresholds
COCO_MOST = 100  # detections a picture
IGNORED = 255  # in a mask: what nobody marked
LISTED = 5  # names in an error
ROWS = 40  # labels in a table for people; --json has all
Z95 = 1.959964  # standard deviations on each side that hold 95 % of a normal distribution
PROGRESS_S = {True: 0.2, False: 10.0}  # between two lines of progress, on a terminal and elsewhere

GREY, PALETTE = 0, 3  # two of the colour types of PNG (w3.org/TR/png, 11.2.1)
PNG_KEPT = (b"IHDR", b"IDAT", b"IEND")


class DataError(EdgeRunnerError, ValueError):
    """The pictures, or what is said to be true of them, cannot be used."""


class UsageError(EdgeRunnerError, ValueError):
    """The options do not go with the configuration's task."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True)
class Sample:
    """A picture, and what is true of it: a label's name, an image's id, or a mask's file."""

    picture: Path
    truth: Any


class Unusable(Exception):
    """A sample that cannot be judged; the message says why."""


class Judge(ABC):
    """What is done for one task: it finds the samples, sets the task, and makes numbers of the results."""

    task: ClassVar[str]

    @abstractmethod
    def samples(self) -> list[Sample]:
        """Every picture with its truth. Raise DataError where they do not go together."""

    @abstractmethod
    def settings(self, given: Mapping[str, Any], here: Collection[str]) -> dict[str, Any]:
        """The keys of the task that are set for the evaluation; `given` is the task so far, `here` what this command line set."""

    @abstractmethod
    def fits(self, labels: Sequence[str]) -> None:
        """The model's labels, before the first result. Raise DataError where they and the truth do not go together."""

    @abstractmethod
    def judge(self, sample: Sample, result: Result) -> None:
        """Take one result. Raise Unusable where the sample is at fault."""

    @abstractmethod
    def numbers(self) -> dict[str, Any]:
        """What came out, as JSON has it: fractions of 1, None where there was nothing to measure, `labels` with a row each."""

    @abstractmethod
    def report(self, numbers: Mapping[str, Any]) -> Iterator[str]:
        """The same for people."""


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
        raise DataError(f"{len(missing)} of {len(samples)} pictures are missing: {_some(missing)}")
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
        raise DataError(f"{len(faults)} of {len(samples)} pictures are not in these numbers: {_some(faults, '; ')}")
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
        pipeline.publisher.outputs[CAMERA] = gathered
        with _true_names(links), gathered.complaint():
            daemon.run(pipeline, signals)
    gathered.end(pipeline.feeds["camera"].skipped)
    return pipeline


class Gather(Output):
    """The daemon's output of an evaluation: each result goes to the judge, beside the sample that it is of."""

    def __init__(self, judge: Judge, samples: Sequence[Sample]) -> None:
        super().__init__(None)
        self.judge = judge
        self.samples = samples
        self.judged = 0
        self.left_out: dict[Path, str] = {}
        self._seen: set[int] = set()

    def open(self) -> None:
        self._progress = Progress(len(self.samples))

    def write(self, result: Result, shot: Shot) -> None:
        number = int(Path(str(result.source)).stem)
        sample = self.samples[number]
        self._seen.add(number)
        try:
            self.judge.judge(sample, result)
            self.judged += 1
        except Unusable as why:
            self.left_out[sample.picture] = str(why)
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


class TopK(Judge):
    """Classifiers: is the true label the best answer (top-1), is it among the best five (top-5)?"""

    task = "classify"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: tuple[str, ...] = ()
        self._index: dict[str, int] = {}
        self._found: dict[int, list[list[int]]] = {}
        """The best answers to each picture, by its true class."""

    def samples(self) -> list[Sample]:
        self._names = folder_labels(self.folder) if self.folder.is_dir() else ()
        if not self._names:
            raise DataError(f"--data {self.folder} has no sub-folders; wanted is one a label, with its pictures in it")
        try:
            return [Sample(path, name) for name in self._names for path in find_pictures(self.folder / name)]
        except SettingError as error:
            raise DataError(f"--data {error}") from error

    def settings(self, given: Mapping[str, Any], here: Collection[str]) -> dict[str, Any]:
        return {**_thresholds(given, 0.0), "max_results": max(BEST, given.get("max_results", BEST))}

    def fits(self, labels: Sequence[str]) -> None:
        self._labels = labels
        places = {name: self.folder / name for name in self._names}
        self._index = _indices(
            places, labels, f"--data {self.folder}: the model has no label, or several, for the folder"
        )

    def judge(self, sample: Sample, result: Result) -> None:
        found = [answer.index for answer in result.answers.classifications or ()]
        self._found.setdefault(self._index[sample.truth], []).append(found[:BEST])

    def numbers(self) -> dict[str, Any]:
        rows = [self._row(truth, found) for truth, found in sorted(self._found.items())]
        every = [(truth, best) for truth, found in self._found.items() for best in found]
        top1 = _share(best[:1] == [truth] for truth, best in every)
        low, high = wilson(top1, len(every))
        return {
            "top1": rounded(top1),
            "top1_95": [rounded(low), rounded(high)],
            "top5": rounded(_share(truth in best for truth, best in every)),
            "labels": rows,
        }

    def report(self, numbers: Mapping[str, Any]) -> Iterator[str]:
        low, high = numbers["top1_95"]
        yield f"top-1 {numbers['top1']:.1%} (95 % confidence: {low:.1%} to {high:.1%})"
        yield f"top-5 {numbers['top5']:.1%}"
        yield ""
        rows = [
            [row["label"], str(row["pictures"]), f"{row['top1']:.1%}", f"{row['top5']:.1%}", row["taken_for"] or "-"]
            for row in worst(numbers["labels"], "top1")
        ]
        head = ["label", "pictures", "top-1", "top-5", "mostly taken for"]
        yield from table(head, rows, len(numbers["labels"]), words=(0, 4))

    def _row(self, truth: int, found: Sequence[Sequence[int]]) -> dict[str, Any]:
        wrong = Counter(best[0] for best in found if best and best[0] != truth)
        return {
            "label": self._labels[truth],
            "index": truth,
            "pictures": len(found),
            "top1": rounded(_share(best[:1] == [truth] for best in found)),
            "top5": rounded(_share(truth in best for best in found)),
            "taken_for": self._labels[wrong.most_common(1)[0][0]] if wrong else None,
        }


class MeanAP(Judge):
    """Detectors: COCO's average precision, as pycocotools has it (cocodataset.org/#detection-eval)."""

    task = "detect"
    STATS = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "recall_1", "recall_10", "recall")
    """The first of COCOeval's numbers, in its order."""

    def __init__(self, images: Path, annotations: Path) -> None:
        _coco()
        self.images = images
        self.annotations = annotations
        self._truth: dict[str, list[dict[str, Any]]] = {}
        self._names: dict[int, str] = {}
        self._category: dict[str, int] = {}
        """A category's id by the label that means it."""
        self._left_out: list[str] = []
        self._judged: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []

    def samples(self) -> list[Sample]:
        self._truth = read_annotations(self.annotations)
        used = {annotation["category_id"] for annotation in self._truth["annotations"]}
        self._names = {
            category["id"]: category["name"] for category in self._truth["categories"] if category["id"] in used
        }
        if not self._names:
            raise DataError(f"--annotations {self.annotations} marks nothing: there is no annotation in it")
        return [Sample(self.images / image["file_name"], image) for image in self._truth["images"]]

    def settings(self, given: Mapping[str, Any], here: Collection[str]) -> dict[str, Any]:
        wanted = {
            **_thresholds(given, COCO_THRESHOLD),
            "max_results": max(COCO_MOST, given.get("max_results", COCO_MOST)),
        }
        return {key: given[key] if key in here else value for key, value in wanted.items()}

    def fits(self, labels: Sequence[str]) -> None:
        places = dict.fromkeys(self._names.values(), self.annotations)
        found = _indices(places, labels, f"{self.annotations}: the model has no label, or several, for the category")
        for number, name in self._names.items():
            before = self._category.setdefault(labels[found[name]], number)
            if before != number:
                raise DataError(
                    f"{self.annotations}: categories {before} and {number} are both the label '{labels[found[name]]}'"
                )
        self._left_out = [label for label in dict.fromkeys(labels) if label not in (*self._category, UNUSED)]

    def judge(self, sample: Sample, result: Result) -> None:
        image, size = sample.truth, (result.width, result.height)
        said = (image.get("width", size[0]), image.get("height", size[1]))
        if said != size:
            raise Unusable(f"is {size[0]}x{size[1]} when upright, and {said[0]}x{said[1]} in the annotations")
        self._judged.append(image["id"])
        for found in result.answers.detections or ():
            if found.label in self._category:
                x0, y0, x1, y1 = np.multiply(found.box, size * 2).tolist()
                box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "score": found.score}
                self._found.append({"image_id": image["id"], "category_id": self._category[found.label], **box})

    def numbers(self) -> dict[str, Any]:
        judged = set(self._judged)
        truth = [annotation for annotation in self._truth["annotations"] if annotation["image_id"] in judged]
        precisions, stats = average_precision(self._judged, list(self._names), truth, self._found)
        objects = Counter(annotation["category_id"] for annotation in truth if not annotation.get("iscrowd"))
        rows = [
            {"label": name, "objects": objects[number], "ap": _mean(precision), "ap_50": _mean(precision[:1])}
            for (number, name), precision in zip(self._names.items(), precisions, strict=True)
        ]
        known = [rounded(value) if value >= 0 else None for value in stats[: len(self.STATS)]]
        named = dict(zip(self.STATS, known, strict=True))
        return {**named, "objects": objects.total(), "labels": rows, "labels_left_out": self._left_out}

    def report(self, numbers: Mapping[str, Any]) -> Iterator[str]:
        yield f"mAP         {_decimals(numbers['map'])}  mean of IoU .50 to .95"
        yield f"mAP .50     {_decimals(numbers['map_50'])}"
        yield f"mAP .75     {_decimals(numbers['map_75'])}"
        yield f"mAP small   {_decimals(numbers['map_small'])}  of less than 32x32 pixels"
        yield f"mAP medium  {_decimals(numbers['map_medium'])}  up to 96x96"
        yield f"mAP large   {_decimals(numbers['map_large'])}"
        yield f"recall      {_decimals(numbers['recall'])}  mean of IoU .50 to .95, {COCO_MOST} detections a picture"
        if self._left_out:
            count = len(self._left_out)
            yield f"left out, for nothing is marked with it: {count} of the model's labels, {_some(self._left_out)}"
        yield ""
        rows = [
            [row["label"], str(row["objects"]), _decimals(row["ap"]), _decimals(row["ap_50"])]
            for row in worst(numbers["labels"], "ap")
        ]
        yield from table(["label", "objects", "AP", "AP .50"], rows, len(numbers["labels"]))


class MeanIoU(Judge):
    """Segmenters: how much of what is marked and what was answered is the same, label by label (PASCAL VOC's measure)."""

    task = "segment"

    def __init__(self, images: Path, masks: Path, divisor: int) -> None:
        self.images = images
        self.masks = masks
        self.divisor = divisor

    def samples(self) -> list[Sample]:
        masks = [path for path in _folder(self.masks) if path.suffix.lower() == ".png"]
        if not masks:
            raise DataError(f"--masks {self.masks} holds no masks; wanted is a PNG for each picture, of the same name")
        marked, taken = {mask.stem for mask in masks}, set(masks)
        pictures: dict[str, list[Path]] = {}
        for path in _folder(self.images):
            if path.stem in marked and path not in taken:
                pictures.setdefault(path.stem, []).append(path)
        alone = [str(mask) for mask in masks if mask.stem not in pictures]
        if alone:
            raise DataError(f"{len(alone)} of {len(masks)} masks have no picture in {self.images}: {_some(alone)}")
        double = [f"{a} and {b}" for a, b, *_ in (found for found in pictures.values() if len(found) > 1)]
        if double:
            raise DataError(f"more than one picture for a mask: {_some(double)}")
        return [Sample(pictures[mask.stem][0], mask) for mask in masks]

    def settings(self, given: Mapping[str, Any], here: Collection[str]) -> dict[str, Any]:
        return {"mask": "frame"}

    def fits(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._confusion = np.zeros((len(labels), len(labels) + 1), np.int64)

    def judge(self, sample: Sample, result: Result) -> None:
        truth = read_mask(sample.truth, self.divisor, len(self._labels))
        if truth.shape != (result.height, result.width):
            raise Unusable(f"is {result.width}x{result.height}, and its mask {truth.shape[1]}x{truth.shape[0]}")
        assert result.answers.mask
        self._confusion += confusion(truth, result.answers.mask.classes, len(self._labels))

    def numbers(self) -> dict[str, Any]:
        total = int(self._confusion.sum())
        right = self._confusion.diagonal()
        marked = self._confusion.sum(axis=1)
        union = marked + self._confusion[:, :-1].sum(axis=0) - right
        there = np.flatnonzero(union)
        if not total:
            raise DataError(f"--masks {self.masks} mark nothing: every pixel is {IGNORED}")
        rows = [
            {
                "label": self._labels[index],
                "index": int(index),
                "marked": rounded(marked[index] / total),
                "iou": rounded(right[index] / union[index]),
            }
            for index in there
        ]
        return {
            "miou": rounded(float(np.mean(right[there] / union[there]))),
            "pixel_accuracy": rounded(right.sum() / total),
            "unanswered": rounded(self._confusion[:, -1].sum() / total),
            "labels": rows,
        }

    def report(self, numbers: Mapping[str, Any]) -> Iterator[str]:
        yield f"mIoU            {_decimals(numbers['miou'])}  mean of {len(numbers['labels'])} labels"
        yield f"pixel accuracy  {numbers['pixel_accuracy']:.1%}"
        if numbers["unanswered"]:
            yield f"unanswered      {numbers['unanswered']:.1%}  outside of what the model saw; counted as wrong"
        yield ""
        rows = [
            [row["label"], f"{row['marked']:.1%}", _decimals(row["iou"])] for row in worst(numbers["labels"], "iou")
        ]
        yield from table(["label", "marked", "IoU"], rows, len(numbers["labels"]))


def wilson(share: float, count: int) -> tuple[float, float]:
    """Between which shares, 0..1, the true one lies with 95 % confidence, `share` being that of `count` pictures.

    Wilson's score interval (E. B. Wilson, 1927), which holds for few pictures and for shares near 0 and 1 too.
    """
    middle = share + Z95**2 / (2 * count)
    half = Z95 * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    whole = 1 + Z95**2 / count
    return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)


def average_precision(
    images: Sequence[Any],
    categories: Sequence[Any],
    truth: Iterable[Mapping[str, Any]],
    found: Iterable[Mapping[str, Any]],
) -> tuple[list[Tensor], list[float]]:
    """COCO's precision of each category, float [10 IoUs, 101 recalls], -1 where nothing is marked; and COCOeval's twelve numbers.

    `truth` and `found` have `image_id`, `category_id`, `bbox` [x, y, width, height], and `score`, or `area` and `iscrowd` where
    these are known.
    """
    coco, coco_eval = _coco()
    image, category = ({own: number for number, own in enumerate(ids, 1)} for ids in (images, categories))
    sides = [coco(), coco()]
    with redirect_stdout(io.StringIO()):  # it talks
        for side, boxes in zip(sides, (truth, found), strict=True):
            annotations = [
                {
                    "id": number,  # from 1: to COCOeval, 0 is none
                    "image_id": image[box["image_id"]],
                    "category_id": category[box["category_id"]],
                    "bbox": list(box["bbox"]),
                    "area": box.get("area", box["bbox"][2] * box["bbox"][3]),
                    "iscrowd": int(box.get("iscrowd", 0)),
                    "score": box.get("score", 1.0),
                }
                for number, box in enumerate(boxes, 1)
            ]
            ids = {"images": image, "categories": category}
            rows = {kind: [{"id": number} for number in numbers.values()] for kind, numbers in ids.items()}
            side.dataset = {**rows, "annotations": annotations}
            side.createIndex()
        evaluation = coco_eval(*sides, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # of any size, with the most detections
    return list(np.moveaxis(precision, 2, 0)), list(map(float, evaluation.stats))


def read_annotations(path: Path) -> dict[str, list[dict[str, Any]]]:
    """COCO's `images`, `annotations` and `categories` of a JSON file; raise DataError where they are not as they have to be."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        why = (error.strerror or str(error)).lower() if isinstance(error, OSError) else f"no JSON: {error}"
        raise DataError(f"--annotations {path}: {why}") from error
    kinds = {
        "images": ("id", "file_name"),
        "annotations": ("image_id", "category_id", "bbox"),
        "categories": ("id", "name"),
    }
    for kind, keys in kinds.items():
        rows = content.get(kind) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) and all(k in row for k in keys) for row in rows):
            raise DataError(
                f"--annotations {path} is no file of COCO's instances: wanted are '{kind}', a list, each with {', '.join(keys)}"
            )
    for kind in ("images", "categories"):
        twice = [number for number, count in Counter(row["id"] for row in content[kind]).items() if count > 1]
        if twice:
            raise DataError(f"{path}: {len(twice)} ids of '{kind}' are there more than once: {_some(twice)}")
        known = {row["id"] for row in content[kind]}
        key = {"images": "image_id", "categories": "category_id"}[kind]
        lost = [a[key] for a in content["annotations"] if a[key] not in known]
        if lost:
            raise DataError(f"{path}: {len(lost)} annotations have a {key} that is not among '{kind}': {_some(lost)}")
    for annotation in content["annotations"]:
        box = annotation["bbox"]
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(n, (int, float)) for n in box):
            raise DataError(f"{path}: got the bbox {box}; wanted is [x, y, width, height] in pixels")
    return {kind: content[kind] for kind in kinds}


def read_mask(path: Path, divisor: int, classes: int) -> Tensor:
    """A mask's class indices, uint8 or uint16 [height, width]; IGNORED stays what it is.

    Raise DataError where it is no PNG of indices, or has a value that is no class.
    """
    values = read_indices(path)
    marked = values != IGNORED
    if divisor > 1:
        uneven = values[marked & (values % divisor != 0)]
        if uneven.size:
            raise DataError(f"{path} has the value {uneven[0]}, no multiple of {divisor}; is --mask-divisor right?")
        values = np.where(marked, values // divisor, values)
    beyond = values[marked & (values >= classes)]
    if beyond.size:
        hint = "" if divisor > 1 else "; where values are 10 times the class, say --mask-divisor 10"
        raise DataError(f"{path} has the value {beyond[0]}; the model's classes are 0 to {classes - 1}{hint}")
    return values


def read_indices(path: Path) -> Tensor:
    """The values of a PNG's pixels as they are written, uint8 or uint16 [height, width]: grey levels, or a palette's indices.

    OpenCV makes colours of a palette, and 255 of the 1 of one bit. So it is shown a grey PNG of the same values.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    if not content.startswith(PNG_START) or torn(content) or content[12:16] != b"IHDR":
        raise DataError(f"{path} is damaged, cut short, or no PNG")
    bits, kind = content[24], content[25]
    header = content[16:25] + bytes([GREY if kind == PALETTE else kind]) + content[26:29]
    try:
        plain = PNG_START + b"".join(
            _chunk(n, header if n == b"IHDR" else d) for n, d in _chunks(content) if n in PNG_KEPT
        )
        values = cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_UNCHANGED)
    except (cv2.error, struct.error):
        values = None
    if values is None:
        raise DataError(f"{path} is damaged, cut short, or no PNG")
    if values.ndim == 3:
        if (values[..., :1] != values[..., :3]).any():
            raise DataError(
                f"{path} has colours; a mask's pixels are class indices: grey levels, or a palette's numbers"
            )
        values = values[..., 0]
    return np.asarray(values // (255 // (2**bits - 1)) if bits < 8 else values)


def confusion(truth: Tensor, found: Tensor, classes: int) -> Tensor:
    """How often each class, a row, was answered with each, a column, int [classes, classes + 1]; the last is what was not seen.

    `truth` and `found` are [height, width]; what is IGNORED in the truth does not count.
    """
    marked = truth != IGNORED
    pairs = truth[marked].astype(np.int64) * (classes + 1) + np.minimum(found[marked], classes)
    return np.bincount(pairs, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def worst(rows: Sequence[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """The rows for people: all of them where they are few, otherwise the worst, the worst first."""
    if len(rows) <= ROWS:
        return list(rows)
    return sorted(rows, key=lambda row: math.inf if row[key] is None else row[key])[:ROWS]


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], total: int, words: Collection[int] = (0,)
) -> Iterator[str]:
    """Lines of cells below each other, numbers to the right, the columns of `words` to the left; `total` labels were there."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for cells in (head, *rows):
        aligned = [
            f"{c:<{w}}" if i in words else f"{c:>{w}}" for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        ]
        yield "  ".join(aligned).rstrip()
    if total > len(rows):
        yield f"… the {len(rows)} worst of {total} labels; --json FILE has all"


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


def _thresholds(given: Mapping[str, Any], score: float) -> dict[str, Any]:
    """Thresholds are for the daemon's use: here they would hide answers that are to be counted."""
    return {"score_threshold": score, **({"label_thresholds": {}} if given.get("label_thresholds") else {})}


def _indices(places: Mapping[str, Path], labels: Sequence[str], complaint: str) -> dict[str, int]:
    """Each name's class; raise DataError with those that are none."""
    found = {name: _index(name, labels, place) for name, place in places.items()}
    lost = [f"'{name}'" for name, index in found.items() if index is None]
    if lost:
        raise DataError(f"{complaint} {_some(lost)}; it has {_some(labels)}")
    return {name: index for name, index in found.items() if index is not None}


def _index(name: str, labels: Sequence[str], place: Path) -> int | None:
    try:
        return label_index(name, labels, place)
    except SettingError:
        return None


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


def _coco() -> tuple[Any, Any]:
    """pycocotools' COCO and COCOeval; raise DataError where they are missing."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise DataError(f"COCO's mAP needs pycocotools: pip install 'edge-runner[bench]' ({error})") from error
    return COCO, COCOeval


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The name and the data of each of a PNG's chunks."""
    start = len(PNG_START)
    while start + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, start)
        yield name, content[start + 8 : start + 8 + length]
        start += 12 + length


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _folder(path: Path) -> list[Path]:
    if not path.is_dir():
        raise DataError(f"{path} is no folder")
    return pictures_in(path)


def _share(truths: Iterable[bool]) -> float:
    return float(np.mean(list(truths)))


def _mean(precision: Tensor) -> float | None:
    """The mean of COCO's precisions; None where nothing is marked."""
    known = precision[precision > -1]
    return rounded(float(known.mean())) if known.size else None


def _decimals(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _some(names: Iterable[Any], between: str = ", ") -> str:
    """The first of some names, and how many more there are."""
    listed = list(map(str, names))
    return between.join(listed[:LISTED]) + (f" (and {len(listed) - LISTED} more)" if len(listed) > LISTED else "")


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
    parser = cli.Parser(prog="evaluate.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
