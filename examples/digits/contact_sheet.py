"""A contact sheet: every frame small, its answer below it, the misses framed in red, the totals on top."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[Any]  # uint8, BGR
Color = tuple[int, int, int]

THUMB_PX = (160, 120)
CAPTION_PX = 26
GAP_PX = 4
HEADER_PX = 72
HEADER_WIDTH_PX = 960  # the totals need it, however few the frames
SHAPE = 2.2  # of a sheet: its width to its height, about

FONT = cv2.FONT_HERSHEY_SIMPLEX
ANSWER_SCALE, SCORE_SCALE, HEADER_SCALE = 0.7, 0.52, 1.4
BACKGROUND: Color = (250, 250, 250)
TEXT: Color = (50, 50, 50)
FAINT: Color = (130, 130, 130)
WHITE: Color = (255, 255, 255)
MISS: Color = (40, 30, 210)


def contact_sheet(
    frames: Sequence[Path], answers: Sequence[str], truths: Sequence[str], scores: Sequence[float], output: Path
) -> None:
    """Draw `frames` with their `answers` and `scores` (0..1) into one picture, `output`; its suffix names the format.

    Raise ValueError where the lists differ in length, are empty, or a frame cannot be read.
    """
    if not len(frames) == len(answers) == len(truths) == len(scores) > 0:
        counts = f"{len(frames)} frames, {len(answers)} answers, {len(truths)} truths and {len(scores)} scores"
        raise ValueError(f"got {counts}; a contact sheet needs as many of each, and one at least")
    columns, rows = _grid(len(frames))
    width = max(HEADER_WIDTH_PX, columns * _step(THUMB_PX[0]) + GAP_PX)
    sheet = _blank(width, HEADER_PX + rows * _step(THUMB_PX[1] + CAPTION_PX) + GAP_PX)
    _header(sheet, sum(map(str.__eq__, answers, truths)), len(frames))
    for place, tile in enumerate(map(_tile, frames, answers, truths, scores)):
        x = GAP_PX + place % columns * _step(THUMB_PX[0])
        y = HEADER_PX + place // columns * _step(THUMB_PX[1] + CAPTION_PX)
        sheet[y : y + len(tile), x : x + THUMB_PX[0]] = tile
    _save(sheet, output)


def _grid(count: int) -> tuple[int, int]:
    """Columns and rows for `count` tiles."""
    columns = round(math.sqrt(count * SHAPE * (THUMB_PX[1] + CAPTION_PX) / THUMB_PX[0])) or 1
    return columns, math.ceil(count / columns)


def _tile(frame: Path, answer: str, truth: str, score: float) -> Picture:
    picture = cv2.imread(str(frame))
    if picture is None:
        raise ValueError(f"{frame}: cannot be read as a picture")
    tile = _blank(THUMB_PX[0], THUMB_PX[1] + CAPTION_PX)
    tile[: THUMB_PX[1]] = cv2.resize(picture, THUMB_PX, interpolation=cv2.INTER_AREA)
    percent = f"{score:.0%}"
    right = THUMB_PX[0] - 6 - cv2.getTextSize(percent, FONT, SCORE_SCALE, 1)[0][0]
    if answer == truth:
        _write(tile, answer, 6, ANSWER_SCALE, TEXT)
        _write(tile, percent, right, SCORE_SCALE, FAINT)
        return tile
    tile[THUMB_PX[1] :] = MISS
    cv2.rectangle(tile, (0, 0), (THUMB_PX[0] - 1, len(tile) - 1), MISS, 6)
    _write(tile, f"got {answer}, is {truth}", 6, SCORE_SCALE, WHITE)
    _write(tile, percent, right, SCORE_SCALE, WHITE)
    return tile


def _header(sheet: Picture, right: int, count: int) -> None:
    misses = count - right
    text = f"{right} of {count} right ({right / count:.1%})"
    place = (GAP_PX + 6, HEADER_PX // 2 + 16)
    cv2.putText(sheet, text, place, FONT, HEADER_SCALE, TEXT, 2, cv2.LINE_AA)
    if misses:
        width = cv2.getTextSize(text, FONT, HEADER_SCALE, 2)[0][0]
        missed = f"{misses} missed"
        cv2.putText(sheet, missed, (place[0] + width + 40, place[1]), FONT, HEADER_SCALE, MISS, 2, cv2.LINE_AA)


def _write(tile: Picture, text: str, x: int, scale: float, color: Color) -> None:
    thickness = 2 if scale == ANSWER_SCALE else 1
    cv2.putText(tile, text, (x, len(tile) - 7), FONT, scale, color, thickness, cv2.LINE_AA)


def _step(length_px: int) -> int:
    return length_px + GAP_PX


def _blank(width: int, height: int) -> Picture:
    return np.full((height, width, 3), BACKGROUND, np.uint8)


def _save(sheet: Picture, output: Path) -> None:
    """Write beside the target, then rename: nobody sees half a picture."""
    encoded, data = cv2.imencode(output.suffix, sheet)
    if not encoded:
        raise ValueError(f"{output}: OpenCV cannot write {output.suffix}; take .jpg or .png")
    partial = output.with_name(f".{output.name}.partial-{os.getpid()}")
    try:
        partial.write_bytes(data.tobytes())
        os.replace(partial, output)
    finally:
        partial.unlink(missing_ok=True)
