"""From a picture's file to positions in the upright frame, exactly, however the camera is mounted and the frame is fitted in."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import cv2
import numpy as np
import pytest
from rectangles import (
    CROPS,
    FLIPS,
    POINTS,
    RESIZES,
    ROTATIONS,
    SCENES,
    SCORES,
    Fractions,
    Scene,
    Studio,
    body_points,
)

from edge_runner.engine import Engine
from edge_runner.result import Answers
from edge_runner.task.pose import KEYPOINTS

EXACT = 1e-5  # of the frame's side
STEP = 0.0043  # of the quantised models' outputs


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("studio"))


# model: (what `auto` must decide, what it needs to be told, one step of its output)
DETECTORS: dict[str, tuple[str, dict[str, Any], float]] = {
    "rect_ssd":            ("tflite_postprocess", {}, 0),
    "rect_ssd_shuffled":   ("tflite_postprocess", {}, 0),
    "rect_four":           ("tflite_postprocess", {}, 0),
    "rect_yolov5":         ("yolov5", {}, 0),
    "rect_yolov5_pixels":  ("yolov5", {}, 0),
    "rect_yolov5_uint8":   ("yolov5", {}, STEP),
    "rect_yolov8":         ("yolov8", {}, 0),
    "rect_yolov8_pixels":  ("yolov8", {}, 0),
    "rect_yolov8_int8":    ("yolov8", {}, STEP),
    "rect_nms":            ("yolo_nms", {}, 0),
    "rect_nms_pixels":     ("yolo_nms", {}, 0),
    "rect_ssd_raw":        ("ssd_raw", {"labels": "four_colours.txt"}, 0),
    "rect_ssd_raw_300":    ("ssd_raw", {"labels": "four_colours.txt"}, 0),
    "rect_ssd_raw_scores": ("ssd_raw", {"labels": "four_colours.txt"}, 0),
    "rect_faces":          ("ssd_raw", {"labels": None, "recipe": {"mean": 127.5, "std": 127.5}}, 0),
}  # fmt: skip
CLASSES_APART = [name for name in DETECTORS if DETECTORS[name][0] in ("yolov5", "yolov8", "yolo_nms")]


def detector(studio: Studio, model: str, **task: Any) -> Engine:
    return studio.engine(model, **DETECTORS[model][1], type="detect", **task)


def size(engine: Engine) -> tuple[int, int]:
    return engine.preprocessor.width, engine.preprocessor.height


def differences(
    answers: Answers, expected: dict[str, Fractions], labels: Sequence[str], off: float, step: float
) -> str:
    """What is wrong with the detections; `labels` are the model's, one for all colours where it has but one class."""
    found = answers.detections or ()
    wanted = [(labels[min(index, len(labels) - 1)], SCORES[colour], expected[colour])
              for index, colour in enumerate(SCORES) if colour in expected]  # fmt: skip
    same = len(found) == len(wanted) and all(
        one.label == label and abs(one.score - score) <= EXACT + step and np.abs(np.subtract(one.box, box)).max() <= off
        for one, (label, score, box) in zip(found, wanted, strict=True)
    )
    return "" if same and not answers.doubt else f"{found} {answers.doubt or ''} instead of {wanted}"


class TestBoxes:
    @pytest.mark.parametrize("flip", FLIPS)
    @pytest.mark.parametrize("rotate", ROTATIONS)
    @pytest.mark.parametrize("resize", RESIZES)
    @pytest.mark.parametrize("model", DETECTORS)
    def test_every_way(self, studio: Studio, model: str, resize: str, rotate: int, flip: str) -> None:
        """Of every kind of detector, each box is where the rectangle is in the upright frame, as far as the model could see it."""
        engine = detector(studio, model)
        step = DETECTORS[model][2]
        for scene, crop in product(SCENES[size(engine)], CROPS):
            expected = scene.seen(scene.shown(resize, size(engine), crop))
            answers, geometry = studio.look(engine, scene, resize, crop, rotate=rotate, flip=flip)
            assert (geometry.width, geometry.height) == (scene.width, scene.height)
            # an edge is the centre (half a step off at most) and half of the size (a quarter)
            off = EXACT + 0.75 * step * max(geometry.scale)
            wrong = differences(answers, expected, engine.task.labels, off, step)  # type: ignore[attr-defined]
            assert not wrong, f"{scene.width}x{scene.height}, crop {crop}"

    @pytest.mark.parametrize("model", DETECTORS)
    def test_what_is_not_there(self, studio: Studio, model: str) -> None:
        """A thing that is not in the picture is not found, whatever else is; in an empty picture, nothing."""
        engine = detector(studio, model)
        step = DETECTORS[model][2]
        for gone in (["red"], ["green"], ["blue"], ["red", "blue"], ["red", "green", "blue"]):
            scene = SCENES[size(engine)][0].without(*gone)
            answers, _ = studio.look(engine, scene)
            expected = scene.seen((0, 0, scene.width, scene.height))
            assert not differences(answers, expected, engine.task.labels, EXACT + step, step)  # type: ignore[attr-defined]

    @pytest.mark.parametrize("model", CLASSES_APART)
    def test_two_classes_in_one_place(self, studio: Studio, model: str) -> None:
        """A thing within another of nearly its size is found beside it, where it is of another class."""
        engine = detector(studio, model)
        step = DETECTORS[model][2]
        scene = Scene(320, 160, {"red": (40, 40, 260, 140), "green": (60, 50, 240, 130), "blue": (80, 60, 220, 120)})
        answers, _ = studio.look(engine, scene)
        expected = scene.seen((0, 0, 320, 160))
        assert not differences(answers, expected, engine.task.labels, EXACT + step, step)  # type: ignore[attr-defined]

    @pytest.mark.parametrize("model", DETECTORS)
    def test_decided(self, studio: Studio, model: str) -> None:
        """`auto` decides for the right decoder, and naming that one changes nothing."""
        engine, named = detector(studio, model), detector(studio, model, decoder=DETECTORS[model][0])
        assert engine.task.decided["decoder"] == DETECTORS[model][0]
        assert "decoder" not in named.task.decided
        scene = SCENES[size(engine)][0]
        assert studio.look(engine, scene)[0] == studio.look(named, scene)[0]

    @pytest.mark.parametrize("model", [name for name, (decoder, *_) in DETECTORS.items() if decoder.startswith("yolo")])
    def test_units(self, studio: Studio, model: str) -> None:
        """`auto` sees whether boxes are in pixels or in fractions; saying which changes nothing."""
        units = "pixels" if model.endswith("_pixels") else "normalized"
        engine, told = detector(studio, model), detector(studio, model, box_units=units)
        scene = SCENES[size(engine)][0]
        assert studio.look(engine, scene)[0] == studio.look(told, scene)[0]


# model: what it needs to be told
SEGMENTERS: dict[str, dict[str, Any]] = {
    "seg_argmax_int64": {},
    "seg_argmax_int32": {},
    "seg_argmax_uint8": {},
    "seg_logits_nhwc": {},
    "seg_logits_nchw": {},
    "seg_logits_half": {},
    "seg_portrait": {"labels": "portrait.txt"},
    "seg_portrait_softmax": {"labels": "portrait.txt"},
}
VOID = 255  # where the model saw nothing


def segmenter(studio: Studio, model: str, **task: Any) -> Engine:
    return studio.engine(model, **{"labels": "segments.txt", **SEGMENTERS[model]}, type="segment", **task)


def expected_classes(scene: Scene, part: tuple[int, int, int, int], model: str) -> Any:
    """The class of each pixel of the frame, as far as the model sees it; a portrait knows the red alone."""
    classes = scene.classes()
    if "portrait" in model:
        classes[classes > 1] = 0
    shown = np.full_like(classes, VOID)
    x0, y0, x1, y1 = part
    shown[y0:y1, x0:x1] = classes[y0:y1, x0:x1]
    return shown


class TestMasks:
    @pytest.mark.parametrize("flip", FLIPS)
    @pytest.mark.parametrize("rotate", ROTATIONS)
    @pytest.mark.parametrize("resize", RESIZES)
    @pytest.mark.parametrize("model", SEGMENTERS)
    def test_every_way(self, studio: Studio, model: str, resize: str, rotate: int, flip: str) -> None:
        """Of every kind of segmenter, each pixel of the upright frame has its class, and each class its area."""
        engine = segmenter(studio, model, mask="frame")
        for scene, crop in product(SCENES[size(engine)], CROPS):
            expected = expected_classes(scene, scene.shown(resize, size(engine), crop), model)
            answers, _ = studio.look(engine, scene, resize, crop, rotate=rotate, flip=flip)
            assert answers.mask is not None
            assert np.array_equal(answers.mask.classes, expected), f"{scene.width}x{scene.height}, crop {crop}"
            numbers, counts = np.unique(expected[expected != VOID], return_counts=True)
            areas = dict(zip(numbers.tolist(), (counts / expected.size).tolist(), strict=True))
            assert {s.index: pytest.approx(s.area, abs=EXACT) for s in answers.segments or ()} == areas
            assert all(s.label == engine.task.labels[s.index] for s in answers.segments or ())  # type: ignore[attr-defined]

    @pytest.mark.parametrize("resize", RESIZES)
    @pytest.mark.parametrize("model", SEGMENTERS)
    def test_mask_of_the_models_size(self, studio: Studio, model: str, resize: str) -> None:
        """A mask in the model's own resolution spans the whole frame too, and is no larger than it."""
        engine = segmenter(studio, model, mask="model")
        for scene, crop in product(SCENES[size(engine)], CROPS):
            expected = expected_classes(scene, scene.shown(resize, size(engine), crop), model)
            mask = studio.look(engine, scene, resize, crop, rotate=90, flip="vertical")[0].mask
            assert mask is not None
            assert np.less_equal(mask.classes.shape, expected.shape).all()
            assert np.array_equal(mask.classes, sampled(expected, mask.classes.shape)), (
                f"{scene.width}x{scene.height}, {crop}"
            )

    @pytest.mark.parametrize("model", SEGMENTERS)
    def test_mask_as_a_file(self, studio: Studio, model: str) -> None:
        """The mask's PNG has the class numbers as its grey levels; without being asked for, there is none."""
        [scene, _] = SCENES[size(segmenter(studio, model))]
        answers, _ = studio.look(segmenter(studio, model, mask="frame"), scene)
        assert answers.mask is not None
        decoded = cv2.imdecode(np.frombuffer(answers.mask.png or b"", np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(decoded, expected_classes(scene, (0, 0, scene.width, scene.height), model))
        assert "mask" not in studio.look(segmenter(studio, model), scene)[0].plain()


def sampled(classes: Any, shape: tuple[int, ...]) -> Any:
    """The classes at the centres of a coarser grid's cells."""
    rows, columns = ((np.arange(n) * 2 + 1) * side // (2 * n) for n, side in zip(shape, classes.shape, strict=True))
    return classes[np.ix_(rows, columns)]


class TestKeypoints:
    @pytest.mark.parametrize("flip", FLIPS)
    @pytest.mark.parametrize("rotate", ROTATIONS)
    @pytest.mark.parametrize("resize", RESIZES)
    @pytest.mark.parametrize("model", ["pose_single", "pose_multi"])
    def test_every_way(self, studio: Studio, model: str, resize: str, rotate: int, flip: str) -> None:
        """Of one person or of several, each point is where it is in the upright frame, and has its own name and person."""
        several = model == "pose_multi"
        engine = studio.engine(model, None, {} if several else {"std": 1}, type="pose")
        for scene, crop in product(SCENES[size(engine)], CROPS):
            boxes = scene.seen(scene.shown(resize, size(engine), crop))
            people = [colour for colour in SCORES if colour in boxes and (several or colour == "red")]
            answers, _ = studio.look(engine, scene, resize, crop, rotate=rotate, flip=flip)
            points = answers.keypoints or ()
            names = [point.name for point in points]
            assert names == list(KEYPOINTS) * len(people)
            assert [point.person for point in points] == [
                n if several else None for n in range(len(people)) for _ in KEYPOINTS
            ]
            for number, colour in enumerate(people):
                places = [(point.x, point.y) for point in points[number * POINTS : (number + 1) * POINTS]]
                assert np.allclose(places, body_points(boxes[colour]), rtol=0, atol=EXACT), (colour, crop)
                scores = [point.score for point in points[number * POINTS : (number + 1) * POINTS]]
                assert np.allclose(scores, SCORES[colour] - 0.01 * np.arange(POINTS), atol=EXACT)
            if several:
                found = {colour: boxes[colour] for colour in people}
                assert not differences(answers, found, ["person"], EXACT, 0)
            else:
                assert answers.detections is None
