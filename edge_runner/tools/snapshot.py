"""`edge-runner snapshot`: one frame; left what the camera sees with the result drawn, right what the model sees."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from edge_runner.engine import Engine
from edge_runner.errors import OutputError
from edge_runner.frame import Picture, Shot
from edge_runner.pipeline import Pipeline
from edge_runner.result import Answers, Result
from edge_runner.service.once import first_shot
from edge_runner.task import draw

STANDARD_OUTPUT = "-"
GAP_PX = 8


def snapshot(pipeline: Pipeline, target: str) -> Result:
    """Take one frame and write the picture to the file `target`, or to standard output where that is `-`."""
    check_target(target)
    with first_shot(pipeline) as shot:
        result = pipeline.step(shot)
        write_picture(side_by_side(shot, pipeline.engine, result.answers), target)
    return result


def check_target(target: str) -> None:
    """Raise OutputError where no picture can be written there, before the camera is asked for one."""
    if target == STANDARD_OUTPUT:
        return
    path = Path(target)
    if not path.name or path.is_dir():
        raise OutputError(f"'{target}' names no file; write -o aim.jpg, or -o - for standard output")
    if not path.parent.is_dir():
        raise OutputError(f"{target}: {path.parent} is no folder")
    if path.suffix and not cv2.haveImageWriter(target):
        raise OutputError(f"{target}: OpenCV cannot write '{path.suffix}' pictures; use .jpg or .png")


def side_by_side(shot: Shot, engine: Engine, answers: Answers) -> Picture:
    """Both pictures at the frame's height, uint8 [height, any, 3] BGR."""
    left = shot.picture.copy()
    draw.draw(left, answers)
    seen = engine.preprocessor.visible(shot.input)
    height = left.shape[0]
    width = max(1, round(seen.shape[1] * height / seen.shape[0]))
    right = cv2.resize(seen, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.hstack([left, np.full((height, GAP_PX, 3), 255, np.uint8), right])


def write_picture(picture: Picture, target: str) -> None:
    """Encode a picture as the file's ending says, JPEG otherwise, and write it beside the target, then rename it."""
    path = Path(target)
    suffix = path.suffix if target != STANDARD_OUTPUT and path.suffix else ".jpg"
    ok, encoded = cv2.imencode(suffix, picture)
    if not ok:
        raise OutputError(f"{target}: OpenCV cannot write this picture as '{suffix}'")
    if target == STANDARD_OUTPUT:
        sys.stdout.buffer.write(encoded.tobytes())
        sys.stdout.flush()
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(encoded.tobytes())
        os.replace(beside, path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise OutputError(f"{target}: {(error.strerror or str(error)).lower()}") from error
