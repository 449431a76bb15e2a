"""Drawing: a result on its picture, legible on any background."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import cv2

from edge_runner.frame import Picture
from edge_runner.result import Answers, RawTensor

FONT = cv2.FONT_HERSHEY_SIMPLEX
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
NOTHING = ["(nothing)"]
VALUES_DRAWN = 4  # of an output
LINES_A_PICTURE = 20  # so many lines of text would fill the picture's height


def draw(picture: Picture, answers: Answers) -> None:
    """Draw a task's answers on an upright picture, in place."""
    if answers.classifications is not None:
        lines(picture, [f"{c.label}  {c.score:.2f}" for c in answers.classifications] or NOTHING)
    if answers.tensors is not None:
        lines(picture, list(map(_numbers, answers.tensors)) or NOTHING)


def lines(picture: Picture, texts: Sequence[str], x: int | None = None, y: int = 0) -> None:
    """Write lines of text downwards from (`x`, `y`), in pixels, in white with a black edge, in place."""
    line_height = max(12, picture.shape[0] // LINES_A_PICTURE)
    scale = line_height / 32
    left = line_height // 3 if x is None else x
    for number, text in enumerate(texts, 1):
        for color, thickness in ((BLACK, max(3, round(scale * 5))), (WHITE, max(1, round(scale * 2)))):
            cv2.putText(
                picture, plain(text), (left, y + number * line_height), FONT, scale, color, thickness, cv2.LINE_AA
            )


def _numbers(tensor: RawTensor) -> str:
    """An output's name, shape and first values."""
    if tensor.values is None:
        return f"{tensor.name} {list(tensor.shape)}"
    shown = " ".join("-" if value is None else f"{value:.4g}" for value in tensor.values[:VALUES_DRAWN])
    return f"{tensor.name} {list(tensor.shape)}: {shown}{' ...' if len(tensor.values) > VALUES_DRAWN else ''}"


def plain(text: str) -> str:
    """Text in ASCII, all that OpenCV's fonts can write: accents are dropped, other letters become question marks."""
    letters = [c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)]
    return "".join(letters).encode("ascii", "replace").decode()
