"""Segmenters: mean intersection over union, against masks."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_runner.camera.images import find_pictures as pictures_in
from edge_runner.camera.pixels import PNG_START, torn
from edge_runner.frame import Tensor
from edge_runner.result import Result, rounded
from judges.base import DataError, Judge, Sample, Unusable, decimals, some, table, worst

IGNORED = 255  # in a mask: what nobody marked
GREY, PALETTE = 0, 3  # two of the colour types of PNG (w3.org/TR/png, 11.2.1)
PNG_KEPT = (b"IHDR", b"IDAT", b"IEND")


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
            raise DataError(f"{len(alone)} of {len(masks)} masks have no picture in {self.images}: {some(alone)}")
        double = [f"{a} and {b}" for a, b, *_ in (found for found in pictures.values() if len(found) > 1)]
        if double:
            raise DataError(f"more than one picture for a mask: {some(double)}")
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
        yield f"mIoU            {decimals(numbers['miou'])}  mean of {len(numbers['labels'])} labels"
        yield f"pixel accuracy  {numbers['pixel_accuracy']:.1%}"
        if numbers["unanswered"]:
            yield f"unanswered      {numbers['unanswered']:.1%}  outside of what the model saw; counted as wrong"
        yield ""
        rows = [[row["label"], f"{row['marked']:.1%}", decimals(row["iou"])] for row in worst(numbers["labels"], "iou")]
        yield from table(["label", "marked", "IoU"], rows, len(numbers["labels"]))


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
