"""Scenes of rectangles in pure colours, what a camera delivers of them, and what a task finds: all edges in whole pixels.

The models of tests/data/make_task_models.py find the rectangles. Sizes and edges are chosen so that every edge falls between two
pixels of a model's input too, whichever way the frame gets there: then nothing that is found may be off at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge_runner.camera.develop import Developer, Slot
from edge_runner.camera.images import Images, ImagesConfig
from edge_runner.engine import Engine, build_engine
from edge_runner.frame import Geometry, Picture
from edge_runner.model.preprocess import Preprocessor
from edge_runner.result import Answers
from edge_runner.settings import load_settings

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the upright frame; x1 and y1 are the first ones outside."""
Fractions = tuple[float, float, float, float]
"""The same, or x, y, width, height of a crop, in fractions of it."""

DATA = Path(__file__).parents[1] / "data"
RECIPE = {"color": "rgb", "mean": 0, "std": 255, "interpolation": "nearest"}
COLOURS = {"red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0)}
"""In the order of the models' classes, as OpenCV has them: blue, green, red."""
GROUND = (60, 40, 20)
SCORES = {"red": 0.9, "green": 0.8, "blue": 0.7}  # what the models give
ROTATIONS = (0, 90, 180, 270)
FLIPS = ("none", "horizontal", "vertical")
RESIZES = ("stretch", "letterbox", "crop")
WHOLE, PART = (0.0, 0.0, 1.0, 1.0), (0.25, 0.5, 0.5, 0.5)
CROPS: tuple[Fractions, ...] = (WHOLE, PART)  # of the camera


@dataclass(frozen=True)
class Scene:
    """An upright frame of (`width`, `height`) pixels with at most one rectangle of each colour; later ones hide earlier ones."""

    width: int
    height: int
    boxes: Mapping[str, Box]

    def picture(self) -> Picture:
        picture = np.full((self.height, self.width, 3), GROUND, np.uint8)
        for colour, (x0, y0, x1, y1) in self.boxes.items():
            picture[y0:y1, x0:x1] = COLOURS[colour]
        return picture

    def classes(self) -> npt.NDArray[np.uint8]:
        """The class of each pixel, [height, width]: 0 the ground, 1 red, 2 green, 3 blue."""
        classes = np.zeros((self.height, self.width), np.uint8)
        for colour, (x0, y0, x1, y1) in self.boxes.items():
            classes[y0:y1, x0:x1] = 1 + list(COLOURS).index(colour)
        return classes

    def taken(self, rotate: int, flip: str) -> Picture:
        """The picture that shows this scene once it is rotated clockwise and then flipped."""
        picture = self.picture()
        if flip == "horizontal":
            picture = picture[:, ::-1]
        elif flip == "vertical":
            picture = picture[::-1]
        return np.ascontiguousarray(np.rot90(picture, rotate // 90))  # numpy turns the other way

    def shown(self, resize: str, size: tuple[int, int], crop: Fractions = WHOLE) -> Box:
        """The part of the frame that an input of `size` (width, height) shows, of a camera's `crop`."""
        sides = (self.width, self.height, self.width, self.height)
        x, y, width, height = (round(part * side) for part, side in zip(crop, sides, strict=True))
        if resize == "crop":
            across, down = min(width, height * size[0] // size[1]), min(height, width * size[1] // size[0])
            x, y, width, height = x + (width - across) // 2, y + (height - down) // 2, across, down
        return x, y, x + width, y + height

    def seen(self, part: Box) -> dict[str, Fractions]:
        """What of each rectangle lies in a part of the frame, in fractions of the frame."""
        found = {}
        for colour, box in self.boxes.items():
            x0, y0, x1, y1 = max(box[0], part[0]), max(box[1], part[1]), min(box[2], part[2]), min(box[3], part[3])
            if x0 < x1 and y0 < y1:
                found[colour] = (x0 / self.width, y0 / self.height, x1 / self.width, y1 / self.height)
        return found

    def without(self, *colours: str) -> Scene:
        return replace(self, boxes={colour: box for colour, box in self.boxes.items() if colour not in colours})


LANDSCAPE = Scene(320, 160, {"red": (20, 20, 140, 100), "green": (180, 70, 300, 150), "blue": (100, 110, 160, 140)})
PORTRAIT = Scene(160, 320, {"red": (10, 20, 100, 140), "green": (70, 180, 150, 300), "blue": (20, 160, 50, 220)})
TALL = Scene(240, 320, {"red": (30, 15, 155, 120), "green": (100, 190, 235, 305), "blue": (10, 140, 80, 215)})
LARGE = Scene(600, 300, {"red": (20, 20, 260, 180), "green": (340, 130, 590, 290), "blue": (200, 200, 320, 270)})
LONG = Scene(300, 600, {"red": (20, 30, 170, 260), "green": (130, 320, 290, 590), "blue": (30, 300, 100, 420)})
SCENES = {
    (64, 64): (LANDSCAPE, PORTRAIT),
    (96, 64): (LANDSCAPE, TALL),
    (128, 128): (LANDSCAPE, PORTRAIT),
    (300, 300): (LARGE, LONG),
    (320, 320): (LANDSCAPE, PORTRAIT),
}
"""By the input's (width, height)."""

POINTS = 17


def body_points(box: Fractions) -> npt.NDArray[np.float64]:
    """Where the models find the points of the body in a rectangle, [17, 2] (x, y): on a spiral of two turns into its middle."""
    turn, radius = np.linspace(0, 4 * np.pi, POINTS), np.linspace(0.5, 0, POINTS)
    spiral = 0.5 + radius[:, np.newaxis] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    corner = np.array(box[:2])
    return corner + spiral * (np.array(box[2:]) - corner)


@dataclass
class Studio:
    """Builds each engine once, writes each picture once, and takes scenes through the path."""

    folder: Path
    _engines: dict[str, Engine] = field(default_factory=dict)
    _pictures: dict[str, Path] = field(default_factory=dict)

    def engine(self, model: str, labels: str | None = "colours.txt", recipe: Any = None, **task: Any) -> Engine:
        """A tiny model as the product loads it; `labels` is the name of a file beside it."""
        parts = {
            "camera": {"type": "pattern"},
            "model": {"path": str(DATA / f"{model}.tflite")} | ({"labels": str(DATA / labels)} if labels else {}),
            "preprocess": {**RECIPE, **(recipe or {})},
            "task": task,
        }
        text = json.dumps(parts, indent=1)
        if text not in self._engines:
            path = self.folder / "camera.yaml"
            path.write_text(text)
            self._engines[text] = build_engine(load_settings(path).value)
        return self._engines[text]

    def picture(self, scene: Scene, rotate: int = 0, flip: str = "none") -> Path:
        """The file of what a camera that is mounted so delivers of a scene."""
        key = f"{scene}{rotate}{flip}"
        if key not in self._pictures:
            self._pictures[key] = self.folder / f"{len(self._pictures)}.png"
            assert cv2.imwrite(str(self._pictures[key]), scene.taken(rotate, flip))
        return self._pictures[key]

    def look(
        self, engine: Engine, scene: Scene, resize: str = "stretch", crop: Fractions = WHOLE, **mounted: Any
    ) -> tuple[Answers, Geometry]:
        """What the task says of a scene, the whole way but for the feed's thread: file, upright, crop, recipe, model, decoder."""
        prepare = Preprocessor(replace(engine.preprocessor.recipe, resize=resize), engine.interpreter.inputs[0])
        slot = Slot(0, np.empty(prepare.shape, prepare.dtype))
        with Images(ImagesConfig(path=self.picture(scene, **mounted), crop=crop, **mounted)) as camera:
            grab = camera.grab()
            assert grab is not None
            developed = Developer(camera.config, prepare)(grab, slot)
        assert developed is not None
        return engine.task.decode(engine.interpreter.run(slot.input), developed.geometry), developed.geometry
