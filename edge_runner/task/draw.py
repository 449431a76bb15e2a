"""Drawing: a result on its picture, in place, legible on any background."""

from __future__ import annotations

import colorsys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edge_runner.frame import Picture, Region, Tensor
from edge_runner.result import Answers, Classification, Detection, Keypoint, Mask, RawTensor, Segment
from edge_runner.task.pose import SKELETON, VISIBLE_SCORE

Color = tuple[int, int, int]
"""Blue, green, red, each 0..255."""

Box = tuple[int, int, int, int]
"""The first and the last pixel of a box, x0, y0, x1, y1."""

FONT, PLATE_FONT = cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX
FONT_PX = 22  # how high its capitals are at scale 1
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
GREY = (60, 60, 60)
LEFT, RIGHT = (40, 150, 255), (255, 180, 40)  # of a body: orange and blue, which the colour-blind tell apart too
BETWEEN = (240, 240, 240)
NOTHING = ["(nothing)"]
BACKGROUND = "background"  # where class 0 is called so, it gets no colour
VALUES_DRAWN = 4  # of an output
LEGEND_MOST = 8  # classes
LINES_A_PICTURE = 20  # so many lines of text would fill the picture's height
LETTERS_A_LINE = 10  # so many letters there is always room for
PLATES_A_PICTURE = 24  # so many plates would fill its shorter side
PLATE_LEAST_PX, PLATE_MOST_PX = 16, 64
STROKES_A_PICTURE = 200  # so many of a box's lines would fill its shorter side
CAPITALS = 0.55  # of a plate's height
FOOT = 0.42  # of the capitals' height, below the plate's middle: where letters stand, with room for their tails
WEIGHT = 1.6  # how thick letters are at the font's scale 1, in pixels
SCALE_LEAST = 0.3  # of the font: smaller is illegible
GOLDEN_RATIO = 0.618034  # hues so far apart on the circle come close to each other as late as possible
SHADES = ((0.80, 1.0), (0.55, 1.0), (0.95, 0.80))  # saturation and value of one class after the other
MIDDLE_LUMINANCE = 0.179  # of a colour that black and white stand out from alike: (1.05 * 0.05) ** 0.5 - 0.05
OPACITY = 0.5  # of a class's colour on the picture


def draw(picture: Picture, answers: Answers) -> None:
    """Draw a task's answers on an upright picture, in place."""
    if answers.segments is not None:
        segments(picture, answers.segments, answers.mask)
    if answers.keypoints or (answers.keypoints is not None and answers.detections is None):
        keypoints(picture, answers.keypoints)
    if answers.detections is not None:
        detections(picture, answers.detections)
    if answers.classifications is not None:
        classifications(picture, answers.classifications)
    if answers.tensors is not None:
        tensors(picture, answers.tensors)


def classifications(picture: Picture, found: Sequence[Classification]) -> None:
    """Write labels and scores into the upper left corner, the first on top."""
    lines(picture, [f"{one.label}  {one.score:.2f}" for one in found] or NOTHING)


def detections(picture: Picture, found: Sequence[Detection]) -> None:
    """Draw boxes in the colours of their classes, with label and score beside each; the first is drawn over the others."""
    if not found:
        lines(picture, NOTHING)
    boxes = [_corners(picture, one.box) for one in found]
    plates = [_plate(picture, f"{one.label} {one.score:.2f}") for one in found]
    places: list[Region] = []
    for box, plate in zip(boxes, plates, strict=True):
        places.append(_free_place(picture, box, plate, places))
    for box, one in reversed(list(zip(boxes, found, strict=True))):
        _draw_box(picture, box, color(one.index))
    for plate, place, one in reversed(list(zip(plates, places, found, strict=True))):
        _draw_plate(picture, plate, place, color(one.index))


def segments(picture: Picture, found: Sequence[Segment], mask: Mask | None) -> None:
    """Tint the classes that were found, each in its colour, and write the largest of them into the upper left corner.

    What was left out, the background, and what the model did not see stay as they are.
    """
    if not found:
        lines(picture, NOTHING)
    tinted = [one for one in found if not _is_background(one)]
    if mask and tinted:
        _tint(picture, mask.classes, [one.index for one in tinted])
    rows = max(1, picture.shape[0] // _plate_height(picture))
    for row, one in enumerate(found[: min(rows, LEGEND_MOST)]):
        plate = _plate(picture, f"{one.label} {one.area:.1%}")
        place = _inside(picture, Region(0, row * plate.height, plate.width, plate.height))
        _draw_plate(picture, plate, place, GREY if _is_background(one) else color(one.index))


def keypoints(picture: Picture, found: Sequence[Keypoint]) -> None:
    """Draw the skeletons of those whose points are sure enough, the left side in orange, the right one in blue."""
    if not found:
        lines(picture, NOTHING)
    people = dict.fromkeys(point.person for point in found)
    for person in people:
        visible = {
            point.name: _pixel(picture, point.x, point.y)
            for point in found
            if point.person == person and point.score >= VISIBLE_SCORE
        }
        _draw_skeleton(picture, visible)


def tensors(picture: Picture, found: Sequence[RawTensor]) -> None:
    """Write each output's name, shape and first values into the upper left corner."""
    lines(picture, list(map(_numbers, found)) or NOTHING)


def lines(picture: Picture, texts: Sequence[str], x: int | None = None, y: int = 0) -> None:
    """Write lines of text downwards from (`x`, `y`), in pixels, in white with a black edge, in place."""
    line_height = max(12, min(picture.shape[0] // LINES_A_PICTURE, picture.shape[1] // LETTERS_A_LINE))
    scale = line_height / 32
    left = line_height // 3 if x is None else x
    for number, text in enumerate(texts, 1):
        for ink, thickness in ((BLACK, max(3, round(scale * 5))), (WHITE, max(1, round(scale * 2)))):
            cv2.putText(
                picture, plain(text), (left, y + number * line_height), FONT, scale, ink, thickness, cv2.LINE_AA
            )


def plain(text: str) -> str:
    """Text in ASCII, all that OpenCV's fonts can write: accents are dropped, other letters become question marks."""
    letters = [c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)]
    return "".join(letters).encode("ascii", "replace").decode()


def color(index: int) -> Color:
    """The colour of a class: always the same, and far from those of the classes around it."""
    saturation, value = SHADES[index % len(SHADES)]
    red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN_RATIO % 1.0, saturation, value)
    return round(blue * 255), round(green * 255), round(red * 255)


def ink_on(paper: Color) -> Color:
    """Black or white, whichever has the higher contrast to a colour: 4.5 to 1 at least."""
    return BLACK if luminance(paper) > MIDDLE_LUMINANCE else WHITE


def luminance(paper: Color) -> float:
    """The relative luminance of a colour, 0..1, as WCAG 2.2 has it; sRGB."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in paper)]
    return 0.0722 * linear[0] + 0.7152 * linear[1] + 0.2126 * linear[2]


def _stroke(picture: Picture) -> int:
    """How wide a line is, in pixels."""
    return max(1, min(picture.shape[:2]) // STROKES_A_PICTURE)


def _pixel(picture: Picture, x: float, y: float) -> tuple[int, int]:
    """The pixel at a place in fractions of the picture."""
    height, width = picture.shape[:2]
    return int(x * width), int(y * height)


def _corners(picture: Picture, box: tuple[float, float, float, float]) -> Box:
    height, width = picture.shape[:2]
    x0, y0 = min(round(box[0] * width), width - 1), min(round(box[1] * height), height - 1)
    return x0, y0, max(x0, round(box[2] * width) - 1), max(y0, round(box[3] * height) - 1)


def _draw_box(picture: Picture, box: Box, ink: Color) -> None:
    """A coloured frame with a dark line around it and a light one within: one of them shows on any background."""
    x0, y0, x1, y1 = box
    stroke = _stroke(picture)
    for inset, line in enumerate([BLACK, *[ink] * stroke, WHITE], -1):
        if inset <= 0 or 2 * inset <= min(x1 - x0, y1 - y0):
            cv2.rectangle(picture, (x0 + inset, y0 + inset), (x1 - inset, y1 - inset), line, 1)


@dataclass(frozen=True)
class _Plate:
    """A text and how it is written; sizes in pixels, `scale` of the font."""

    text: str
    scale: float
    thickness: int
    padding: int
    width: int
    height: int


def _plate(picture: Picture, text: str) -> _Plate:
    """A plate in the picture's proportions, with smaller letters where the text would be wider than the picture."""
    text, height = plain(text), _plate_height(picture)
    padding, scale = max(2, height // 4), height * CAPITALS / FONT_PX
    width, room = cv2.getTextSize(text, PLATE_FONT, scale, 1)[0][0], picture.shape[1] - 2 * padding
    if width > room:
        scale = max(SCALE_LEAST, scale * room / width)
    thickness = max(1, round(scale * WEIGHT))
    width = cv2.getTextSize(text, PLATE_FONT, scale, thickness)[0][0]
    return _Plate(text, scale, thickness, padding, width + 2 * padding, height)


def _plate_height(picture: Picture) -> int:
    return min(PLATE_MOST_PX, max(PLATE_LEAST_PX, min(picture.shape[:2]) // PLATES_A_PICTURE))


def _inside(picture: Picture, place: Region) -> Region:
    """The nearest place of the same size within the picture; what is larger than the picture is cut."""
    height, width = picture.shape[:2]
    wide, high = min(place.width, width), min(place.height, height)
    return Region(min(max(place.x, 0), width - wide), min(max(place.y, 0), height - high), wide, high)


def _free_place(picture: Picture, box: Box, plate: _Plate, taken: Sequence[Region]) -> Region:
    """Where a box's plate goes: above it, within it, or below it, the first that is in the picture and covers no other one."""
    x0, y0, _, y1 = box
    tops = (y0 - plate.height, y0, y1 + 1, y1 - plate.height)
    wanted = [Region(x0 - 1, y, plate.width, plate.height) for y in tops]
    places = [_inside(picture, place) for place in wanted]
    free = [place for place in places if not any(_overlap(place, other) for other in taken)]
    in_picture = [place for place, want in zip(places, wanted, strict=True) if place in free and place.y == want.y]
    return (in_picture or free or places)[0]


def _overlap(one: Region, other: Region) -> bool:
    across = one.x < other.x + other.width and other.x < one.x + one.width
    return across and one.y < other.y + other.height and other.y < one.y + one.height


def _draw_plate(picture: Picture, plate: _Plate, place: Region, paper: Color) -> None:
    """A filled rectangle with a dark edge and text on it, cut off where the rectangle ends."""
    part = picture[place.y : place.y + place.height, place.x : place.x + place.width]
    part[:] = paper
    cv2.rectangle(part, (0, 0), (place.width - 1, place.height - 1), BLACK, 1)
    where = plate.padding, round(plate.height / 2 + FOOT * FONT_PX * plate.scale)
    cv2.putText(part, plate.text, where, PLATE_FONT, plate.scale, ink_on(paper), plate.thickness, cv2.LINE_AA)


def _is_background(segment: Segment) -> bool:
    return segment.index == 0 and segment.label.lower() == BACKGROUND


def _tint(picture: Picture, classes: Tensor, wanted: Sequence[int]) -> None:
    """Blend the colours of the `wanted` classes over the picture, with a line of the full colour around each area."""
    numbers = np.iinfo(classes.dtype).max + 1
    colors, opaque = np.zeros((numbers, 3), np.uint8), np.zeros(numbers, np.uint8)
    colors[list(wanted)] = [color(index) for index in wanted]
    opaque[list(wanted)] = 255
    size = picture.shape[1::-1]
    # made in the mask's size, and then enlarged, which is much faster than the other way round
    sized, tint, shown = (
        cv2.resize(part, size, interpolation=cv2.INTER_NEAREST) for part in (classes, colors[classes], opaque[classes])
    )
    kernel = np.ones((3, 3), np.uint8)
    borders = cv2.morphologyEx(sized, cv2.MORPH_GRADIENT, kernel, iterations=_stroke(picture))
    drawn = cv2.copyTo(cv2.addWeighted(picture, 1 - OPACITY, tint, OPACITY, 0), shown, picture.copy())
    picture[:] = cv2.copyTo(tint, shown & np.where(borders > 0, np.uint8(255), np.uint8(0)), drawn)


def _draw_skeleton(picture: Picture, visible: dict[str, tuple[int, int]]) -> None:
    """Lines and points with a dark edge, which is drawn first, so that it covers none of them."""
    stroke = 2 * _stroke(picture)
    limbs = [(a, b) for a, b in SKELETON if a in visible and b in visible]
    for edge in (2, 0):
        for a, b in limbs:
            ink = BLACK if edge else _side(a, b)
            cv2.line(picture, visible[a], visible[b], ink, stroke + edge, cv2.LINE_AA)
        for name, place in visible.items():
            cv2.circle(picture, place, stroke + 1 + edge // 2, BLACK if edge else _side(name), cv2.FILLED, cv2.LINE_AA)


def _side(*names: str) -> Color:
    for side, ink in (("left_", LEFT), ("right_", RIGHT)):
        if all(name.startswith(side) for name in names):
            return ink
    return BETWEEN


def _numbers(tensor: RawTensor) -> str:
    """An output's name, shape and first values."""
    if tensor.values is None:
        return f"{tensor.name} {list(tensor.shape)}"
    shown = " ".join("-" if value is None else f"{value:.4g}" for value in tensor.values[:VALUES_DRAWN])
    return f"{tensor.name} {list(tensor.shape)}: {shown}{' ...' if len(tensor.values) > VALUES_DRAWN else ''}"
