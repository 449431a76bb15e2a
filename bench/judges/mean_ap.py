"""Detectors: COCO's mean average precision, as pycocotools has it."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from edge_runner.frame import Tensor
from edge_runner.model.labels import UNUSED
from edge_runner.result import Result, rounded
from judges.base import DataError, Judge, Sample, Unusable, decimals, indices_of, some, table, without_threshold, worst

COCO_THRESHOLD = 0.001  # nearly everything counts, the worse the later: mAP is over all thresholds
COCO_MOST = 100  # detections a picture


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
            **without_threshold(given, COCO_THRESHOLD),
            "max_results": max(COCO_MOST, given.get("max_results", COCO_MOST)),
        }
        return {key: given[key] if key in here else value for key, value in wanted.items()}

    def fits(self, labels: Sequence[str]) -> None:
        places = dict.fromkeys(self._names.values(), self.annotations)
        found = indices_of(places, labels, f"{self.annotations}: the model has no label, or several, for the category")
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
        yield f"mAP         {decimals(numbers['map'])}  mean of IoU .50 to .95"
        yield f"mAP .50     {decimals(numbers['map_50'])}"
        yield f"mAP .75     {decimals(numbers['map_75'])}"
        yield f"mAP small   {decimals(numbers['map_small'])}  of less than 32x32 pixels"
        yield f"mAP medium  {decimals(numbers['map_medium'])}  up to 96x96"
        yield f"mAP large   {decimals(numbers['map_large'])}"
        yield f"recall      {decimals(numbers['recall'])}  mean of IoU .50 to .95, {COCO_MOST} detections a picture"
        if self._left_out:
            count = len(self._left_out)
            yield f"left out, for nothing is marked with it: {count} of the model's labels, {some(self._left_out)}"
        yield ""
        rows = [
            [row["label"], str(row["objects"]), decimals(row["ap"]), decimals(row["ap_50"])]
            for row in worst(numbers["labels"], "ap")
        ]
        yield from table(["label", "objects", "AP", "AP .50"], rows, len(numbers["labels"]))


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
            raise DataError(f"{path}: {len(twice)} ids of '{kind}' are there more than once: {some(twice)}")
        known = {row["id"] for row in content[kind]}
        key = {"images": "image_id", "categories": "category_id"}[kind]
        lost = [a[key] for a in content["annotations"] if a[key] not in known]
        if lost:
            raise DataError(f"{path}: {len(lost)} annotations have a {key} that is not among '{kind}': {some(lost)}")
    for annotation in content["annotations"]:
        box = annotation["bbox"]
        if not isinstance(box, list) or len(box) != 4 or not all(isinstance(n, (int, float)) for n in box):
            raise DataError(f"{path}: got the bbox {box}; wanted is [x, y, width, height] in pixels")
    return {kind: content[kind] for kind in kinds}


def _coco() -> tuple[Any, Any]:
    """pycocotools' COCO and COCOeval; raise DataError where they are missing."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise DataError(f"COCO's mAP needs pycocotools: pip install 'edge-runner[bench]' ({error})") from error
    return COCO, COCOeval


def _mean(precision: Tensor) -> float | None:
    """The mean of COCO's precisions; None where nothing is marked."""
    known = precision[precision > -1]
    return rounded(float(known.mean())) if known.size else None
