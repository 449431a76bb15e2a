"""Detection: whatever the family, the boxes that were written are the boxes that are found."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written import GRID, LABELS, SIZE, WRITERS, Thing, Written, detector, facts, floats, quantized, yolov8

from edge_runner.errors import EdgeRunnerError, ModelError, SettingError
from edge_runner.frame import Ending, Geometry, Region, Tensor
from edge_runner.result import Detection
from edge_runner.task.boxes import iou
from edge_runner.task.decoder.anchors import FAMILIES
from edge_runner.task.detect import Detect, DetectConfig

pytestmark = pytest.mark.arm

WHOLE = Geometry(*SIZE)
THINGS = (
    Thing((0.125, 0.25, 0.5, 0.75), 1, 0.9),
    Thing((0.0, 0.0, 0.25, 0.125), 0, 0.75),
    Thing((0.5, 0.5, 1.0, 1.0), 2, 0.625),
    Thing((0.6, 0.1, 0.8, 0.2), 0, 0.3),
)
QUANTISED = [
    (way, dtype)
    for way, (name, _) in WRITERS.items()
    for dtype in ("int8", "uint8", "int16")
    # 256 steps for pixels, or for logits from -20 up, tell no scores apart
    if dtype == "int16" or not ("pixels" in way or name == "ssd_raw")
]
every_way = pytest.mark.parametrize("way", WRITERS)

FRACTIONS = st.floats(0, 1, width=32, allow_subnormal=False)
GEOMETRIES = st.sampled_from(
    [
        WHOLE,
        Geometry.between((640, 480), Region(0, 0, 640, 480), SIZE, Region(5, 0, 85, 64)),  # letterbox
        Geometry.between((640, 480), Region(0, 26, 640, 427), SIZE, Region(0, 0, *SIZE)),  # crop
        Geometry.between((480, 640), Region(100, 50, 200, 300), SIZE, Region(20, 4, 40, 60)),
    ]
)


@st.composite
def things(draw: st.DrawFn) -> list[Thing]:
    found = []
    for _ in range(draw(st.integers(0, 8))):
        x, y = draw(st.floats(-0.2, 0.9, allow_subnormal=False)), draw(st.floats(-0.2, 0.9, allow_subnormal=False))
        box = (
            x,
            y,
            x + draw(st.floats(0.02, 0.6, allow_subnormal=False)),
            y + draw(st.floats(0.02, 0.6, allow_subnormal=False)),
        )
        found.append(Thing(box, draw(st.integers(0, 2)), draw(st.floats(0.05, 0.98, allow_subnormal=False))))
    return found


def decoded(task: Detect, written: Written, geometry: Geometry = WHOLE) -> tuple[Detection, ...]:
    found = task.decode(written[2], geometry).detections
    assert found is not None
    return found


class TestEveryFamily:
    @every_way
    def test_what_was_written_is_read(self, way: str) -> None:
        """The decoder is found by itself; boxes, labels and scores are those that were written, the best first."""
        name, write = WRITERS[way]
        task = detector(write(THINGS), score_threshold=0.2)
        assert task.decided == {"decoder": name, **({"anchors": way.split(", ")[1]} if name == "ssd_raw" else {})}
        found = decoded(task, write(THINGS))
        assert [(d.label, d.index) for d in found] == [(LABELS[t.index], t.index) for t in THINGS]
        assert [d.score for d in found] == pytest.approx([t.score for t in THINGS], abs=1e-5)
        assert [d.box for d in found] == [pytest.approx(t.box, abs=1e-5) for t in THINGS]

    @every_way
    def test_threshold(self, way: str) -> None:
        """By default, what scores less than a half is left out; of nothing, nothing is found, and nothing is doubtful."""
        write = WRITERS[way][1]
        assert [d.label for d in decoded(detector(write(THINGS)), write(THINGS))] == ["bee", "ant", "cat"]
        nothing = detector(write(THINGS)).decode(write(())[2], WHOLE)
        assert (nothing.detections, nothing.doubt) == ((), None)

    @pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7, 0.9])
    def test_just_the_threshold(self, threshold: float) -> None:
        """A score that is the threshold reaches it, though its float32 may be a little less."""
        written = yolov8((Thing((0.1, 0.1, 0.5, 0.5), 0, threshold),))
        assert len(decoded(detector(written, score_threshold=threshold), written)) == 1

    @every_way
    def test_which_labels(self, way: str) -> None:
        """`allow`, `deny`, a label's own threshold and `max_results` choose among what is found."""
        write = WRITERS[way][1]

        def labels(**given: Any) -> list[str]:
            return [d.label for d in decoded(detector(write(THINGS), **given), write(THINGS))]

        assert labels(allow=("ant", "cat")) == ["ant", "cat"]
        assert labels(deny=("ant",)) == ["bee", "cat"]
        assert labels(label_thresholds={"ant": 0.2, "bee": 0.95}) == ["ant", "cat", "ant"]
        assert labels(max_results=2) == ["bee", "ant"]

    @every_way
    def test_without_labels(self, way: str) -> None:
        """Without labels, a class is called by its index."""
        write = WRITERS[way][1]
        found = decoded(detector(write(THINGS), None), write(THINGS))
        assert [(d.label, d.index) for d in found] == [("1", 1), ("0", 0), ("2", 2)]

    @every_way
    @settings(max_examples=40, deadline=None)
    @given(data=st.data())
    def test_within_the_frame(self, way: str, data: st.DataObject) -> None:
        """Whatever is found, in whatever geometry, boxes lie within 0..1 and have an area, scores within 0..1, best first; each is
        the written box in the frame, cut to it."""
        write, these, geometry = WRITERS[way][1], data.draw(things()), data.draw(GEOMETRIES)
        written = write(these)
        units = "pixels" if way == "yolo_nms in pixels" else "auto"  # a lone box within two pixels might be fractions
        found = decoded(detector(write(THINGS), score_threshold=0.05, box_units=units), written, geometry)
        assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)
        low, high = geometry.seen[:2], geometry.seen[2:]
        expected = [np.clip(geometry.to_frame(np.reshape(t.box, (2, 2))), low, high).ravel() for t in these]
        for d in found:
            assert low[0] <= d.box[0] <= d.box[2] <= high[0]
            assert low[1] <= d.box[1] <= d.box[3] <= high[1]
            assert d.box[0] < d.box[2]
            assert d.box[1] < d.box[3]
            assert 0 <= d.score <= 1
            assert any(
                d.index == t.index
                and d.score == pytest.approx(t.score, abs=1e-4)
                and d.box == pytest.approx(box, abs=1e-4)
                for t, box in zip(these, expected, strict=True)
            )

    @pytest.mark.parametrize(("way", "dtype"), QUANTISED)
    def test_quantised(self, way: str, dtype: str) -> None:
        """Quantised outputs give the same boxes, as near as their steps allow, whatever the scale."""
        write = WRITERS[way][1]
        written, scales = quantized(write(THINGS[:3]), dtype)
        found = decoded(detector(written, score_threshold=0.2), written)
        step = max(scales) * (0.01 if "pixels" in way else 1)
        assert [d.label for d in found] == ["bee", "ant", "cat"]
        assert [d.box for d in found] == [pytest.approx(t.box, abs=3 * step + 0.002) for t in THINGS[:3]]
        assert [d.score for d in found] == pytest.approx([t.score for t in THINGS[:3]], abs=3 * max(scales) + 0.002)

    @every_way
    @settings(max_examples=40, deadline=None)
    @given(these=things())
    def test_quantised_answers(self, way: str, these: list[Thing]) -> None:
        """Whatever is there, quantised and real outputs give the same answer, beyond the doubt of a few steps."""
        written, scales = quantized(WRITERS[way][1](these), "int16")
        task = detector(written, iou_threshold=1.0)
        assert task.same_answer(WRITERS[way][1](these)[2], written[2], [3 * scale for scale in scales]) is None

    @every_way
    def test_not_a_number(self, way: str) -> None:
        """Boxes that are no numbers are left out, and told of."""
        write = WRITERS[way][1]
        specs, endings, tensors = write(THINGS)
        for tensor in tensors:
            if tensor.size > 1:
                tensor[..., : tensor.shape[-1] // 3 or 1] = np.nan
        answers = detector((specs, endings, tensors)).decode(tensors, WHOLE)
        assert "NaN" in str(answers.doubt)
        assert all(np.isfinite(d.box).all() for d in answers.detections or ())


class TestSuppression:
    ON_ONE = (
        Thing((0.2, 0.2, 0.6, 0.6), 1, 0.8),
        Thing((0.21, 0.2, 0.61, 0.6), 1, 0.9),
        Thing((0.2, 0.2, 0.6, 0.6), 2, 0.7),
    )

    @pytest.mark.parametrize(
        "way", [way for way, (name, _) in WRITERS.items() if name in ("yolov5", "yolov8", "ssd_raw")]
    )
    def test_class_by_class(self, way: str) -> None:
        """Of boxes on one thing the best is kept, class by class; `iou_threshold` says what one thing is."""
        written = WRITERS[way][1](self.ON_ONE)
        assert [(d.label, round(d.score, 3)) for d in decoded(detector(written), written)] == [
            ("bee", 0.9),
            ("cat", 0.7),
        ]
        assert len(decoded(detector(written, iou_threshold=1.0), written)) == 3

    @pytest.mark.parametrize("way", ["yolo_nms", "tflite_postprocess"])
    def test_not_twice(self, way: str) -> None:
        """What a model has suppressed by itself is left as it is."""
        written = WRITERS[way][1](self.ON_ONE)
        assert len(decoded(detector(written), written)) == 3

    @pytest.mark.parametrize(("frame", "top", "bottom"), [(50, 0.0, 0.5), (150, 1 / 3, 0.5)])
    def test_the_letterbox_is_nothing(self, frame: int, top: float, bottom: float) -> None:
        """A box in a letterbox's bars takes nobody's place and is not told, though there may be more of the frame where they are,
        which a crop hides; one that reaches into them is cut."""
        region = Region(0, (frame - 50) // 2, 100, 50)
        geometry = Geometry.between((100, frame), region, (100, 100), Region(0, 25, 100, 50))
        written = yolov8((Thing((0.1, 0.0, 0.4, 0.2), 0, 0.9), Thing((0.5, 0.125, 1.0, 0.5), 1, 0.8)))
        [only] = decoded(detector(written, max_results=1), written, geometry)
        assert (only.label, only.box) == ("bee", pytest.approx((0.5, top, 1.0, bottom)))


class TestWhichDecoder:
    def readings(self, *shapes: tuple[int, ...], size: tuple[int, int] = (640, 640), labels: int = 0) -> str:
        """The decoder that is taken for outputs of these shapes, or those among which it cannot be decided."""
        written = floats(**{f"out{i}": np.zeros(shape, np.float32) for i, shape in enumerate(shapes)})
        names = [f"label {i}" for i in range(labels)]
        try:
            return Detect(DetectConfig(), facts(written, names or None, size)).read.name
        except ModelError as error:
            text = str(error)
            if "more than one decoder fits" in text:
                ways = text.split(": ", 1)[1]
                return "?" + " ".join(
                    name for name in ("yolov5", "yolov8", "yolo_nms", "ssd_raw") if f"{name}, " in ways
                )
            if "no grid of the input's size" in text:
                return f"{text.split('say task.decoder: ')[1].split(',', maxsplit=1)[0]}, uncertain"
            return "none" if "no decoder fits" in text else text

    @pytest.mark.parametrize(
        ("shape", "labels", "expected"),
        [
            ((1, 84, 8400), 0, "yolov8"),
            ((1, 84, 8400), 80, "yolov8"),
            ((1, 8400, 84), 80, "yolov8"),  # the other way round, by its labels
            ((1, 5, 8400), 1, "yolov8"),
            ((1, 6, 8400), 2, "yolov8"),
            ((1, 5, 8400), 0, "yolov8"),
            ((1, 25200, 85), 0, "yolov5"),
            ((1, 25200, 85), 80, "yolov5"),
            ((1, 25200, 6), 1, "yolov5"),
            ((1, 25200, 6), 0, "yolov5"),  # so many rows are a grid's
            ((1, 8400, 85), 80, "?yolov5 yolov8"),  # a label too few, or YOLOv6: no anchors, but an objectness
            ((1, 8400, 84), 79, "?yolov5 yolov8"),
            ((1, 8400, 85), 0, "?yolov5 yolov8"),
            ((1, 5000, 6), 80, "yolo_nms"),
            (
                (1, 300, 84),
                0,
                "yolov5, uncertain",
            ),  # so few boxes may be anything: RT-DETR has 80 classes and no objectness
            ((1, 300, 84), 79, "yolov5"),
            ((1, 128, 512), 0, "yolov8, uncertain"),
            ((1, 6, 56), 0, "yolov8, uncertain"),  # MoveNet's people
            ((1, 84, 9999), 0, "yolov8"),
            ((1, 300, 6), 0, "yolo_nms"),
            ((1, 300, 6), 80, "yolo_nms"),
            ((1, 300, 6), 1, "yolo_nms"),
            ((1, 100, 6), 2, "yolo_nms"),
            ((1, 5000, 6), 0, "?yolov5 yolo_nms"),
            ((1, 85, 85), 0, "?yolov5 yolov8"),
            ((1, 1001), 0, "none"),
            ((2, 84, 8400), 0, "none"),
            ((1, 84, 80, 80), 0, "none"),
            ((1, 8400, 3), 0, "none"),
        ],
    )
    def test_one_output(self, shape: tuple[int, ...], labels: int, expected: str) -> None:
        """Shapes decide, with the input's size and the number of labels; where two fit, none is taken."""
        assert self.readings(shape, labels=labels) == expected

    @pytest.mark.parametrize(
        ("size", "shape", "expected"),
        [
            ((416, 416), (1, 84, 3549), "yolov8"),
            ((320, 320), (1, 6300, 85), "yolov5"),
            ((320, 192), (1, 3 * (40 * 24 + 20 * 12 + 10 * 6), 6), "yolov5"),
            ((1280, 1280), (1, 3 * (160**2 + 80**2 + 40**2 + 20**2), 6), "yolov5"),  # P6
            ((96, 96), (1, 567, 6), "yolov5"),
        ],
    )
    def test_the_inputs_size(self, size: tuple[int, int], shape: tuple[int, ...], expected: str) -> None:
        """The input's size tells how many cells the grids have."""
        assert self.readings(shape, size=size) == expected

    @pytest.mark.parametrize(
        ("shapes", "size", "expected"),
        [
            (((1, 1917, 4), (1, 1917, 91)), (300, 300), "ssd_raw"),
            (((1, 1917, 91), (1, 1917, 4)), (300, 300), "ssd_raw"),
            (((1, 19206, 90), (1, 19206, 4)), (320, 320), "ssd_raw"),
            (((1, 37629, 90), (1, 37629, 4)), (448, 448), "ssd_raw"),
            (((1, 896, 16), (1, 896, 1)), (128, 128), "ssd_raw"),
            (((1, 1918, 4), (1, 1918, 91)), (300, 300), "none"),  # no family has so many anchors
            (((1, 1917, 4), (1, 1917, 91)), (320, 320), "none"),
            (((1, 1917, 4), (1, 1916, 91)), (300, 300), "none"),
            (((1, 10, 4), (1, 10), (1, 10)), (300, 300), "none"),
        ],
    )
    def test_several_outputs(self, shapes: tuple[tuple[int, ...], ...], size: tuple[int, int], expected: str) -> None:
        """Raw single-shot detectors are known by as many anchors as a family has, in either order of the outputs."""
        assert self.readings(*shapes, size=size) == expected

    @pytest.mark.parametrize("size", [256, 384])
    def test_anchors_that_are_said(self, size: int) -> None:
        """Where two families have as many anchors, neither is taken unless it is said; elsewhere the only one that there is."""
        count = FAMILIES["efficientdet"].count((size, size))
        written = floats(boxes=np.zeros((1, count, 4)), scores=np.zeros((1, count, 3)))
        with pytest.raises(ModelError, match=r"family efficientdet.* or .*family model-maker.*; say which") as caught:
            Detect(DetectConfig(), facts(written, size=(size, size)))
        assert caught.value.key == "task.anchors"
        for family in ("efficientdet", "model-maker"):
            task = Detect(DetectConfig(anchors=family), facts(written, size=(size, size)))  # type: ignore[arg-type]
            assert (task.read.family, task.decided) == (family, {"decoder": "ssd_raw"})  # type: ignore[attr-defined]
        with pytest.raises(ModelError, match="no decoder fits"):
            Detect(DetectConfig(anchors="ssd"), facts(written, size=(size, size)))

    def test_which_is_said(self) -> None:
        """A decoder that is named is taken, where it fits; what it reads as what can be asked."""
        written = floats(out=np.zeros((1, 85, 85)))
        for name in ("yolov5", "yolov8"):
            task = Detect(DetectConfig(decoder=name), facts(written, None))
            assert (task.read.name, task.decided) == (name, {})
        assert detector(yolov8(())).reading == f"yolov8, 'out' float32 [1, 7, {GRID}] as {GRID} boxes of 3 classes"
        with pytest.raises(
            ModelError, match=r"ssd_raw does not fit this model of input 96x64 and outputs 'out'"
        ) as caught:
            Detect(DetectConfig(decoder="ssd_raw"), facts(written))
        assert caught.value.key == "task.decoder"

    def test_which_is_said_wrongly(self) -> None:
        """A decoder that reads the outputs as boxes of other classes than there are labels is refused with both numbers."""
        with pytest.raises(ModelError, match=r"3 labels; output 'out' has 2 classes"):
            detector(yolov8(()), decoder="yolov5")

    def test_nothing_fits(self) -> None:
        """A model that is no detector is refused with its outputs, and all that there is."""
        written = floats(embedding=np.zeros((1, 128)), more=np.zeros((2, 3, 5)))
        with pytest.raises(ModelError) as caught:
            Detect(DetectConfig(), facts(written))
        message = str(caught.value)
        assert caught.value.exit_code == 78
        for word in (
            "'embedding' float32 [1, 128]",
            "'more' float32 [2, 3, 5]",
            "raw",
            *(name for name, _ in WRITERS.values()),
        ):
            assert word in message

    def test_without_pictures(self) -> None:
        """A model without a recipe for pictures detects nothing."""
        with pytest.raises(ModelError, match="fed pictures"):
            Detect(DetectConfig(), facts(yolov8(()), size=None))


class TestPostprocess:
    """Four outputs in any order, under any names."""

    def shuffled(self, order: tuple[int, ...], names: list[str], endings: bool) -> Written:
        specs, ends, tensors = WRITERS["tflite_postprocess"][1](THINGS[:3])
        renamed = [replace(spec, name=name) for spec, name in zip(specs, names, strict=True)]
        found = ends if endings else [Ending("RESHAPE_OF_ITS_OWN")] * 4
        return [renamed[i] for i in order], [found[i] for i in order], [tensors[i] for i in order]

    @pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
    def test_by_the_operator(self, order: tuple[int, ...]) -> None:
        """The operator's own order tells them apart, whatever the model calls them and wherever they stand."""
        written = self.shuffled(order, ["a", "b", "c", "d"], endings=True)
        assert [(d.label, d.box) for d in decoded(detector(written), written)] == [
            (LABELS[t.index], pytest.approx(t.box, abs=1e-6)) for t in THINGS[:3]
        ]

    @pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
    @pytest.mark.parametrize(
        "names",
        [
            ["detection_boxes", "detection_classes", "detection_scores", "num_detections"],
            ["location", "category", "score", "number of detections"],
            ["TFLite_Detection_PostProcess", *(f"TFLite_Detection_PostProcess:{i}" for i in (1, 2, 3))],
            [f"StatefulPartitionedCall:{i}" for i in (3, 2, 1, 0)],
            [f"output_{i}" for i in (3, 2, 1, 0)],
        ],
    )
    def test_by_their_names(self, order: tuple[int, ...], names: list[str]) -> None:
        """Where the operator is not seen, names tell them apart: words, or the numbers that the exporters give."""
        written = self.shuffled(order, names, endings=False)
        assert [d.label for d in decoded(detector(written), written)] == ["bee", "ant", "cat"]

    def test_by_nothing(self) -> None:
        """Where nothing tells classes from scores, the model is refused, with both."""
        with pytest.raises(ModelError, match="neither shapes nor names") as caught:
            detector(self.shuffled((0, 1, 2, 3), ["a", "b", "c", "d"], endings=False))
        assert "'b' as classes, 'c' as scores" in str(caught.value)
        assert "'c' as classes, 'b' as scores" in str(caught.value)

    @pytest.mark.parametrize(
        ("labels", "expected"),
        [
            (("ant", "bee", "cat"), "bee"),
            (("???", "ant", "bee", "cat"), "bee"),  # the line of the background, which the operator leaves out
            (("background", "ant", "bee", "cat"), "bee"),
            (("ant", "bee", "cat", "dog"), "bee"),  # a model without a background
            (("???", "ant", "bee", "cat", "dog"), "bee"),  # the same, and a file that has its line
        ],
    )
    def test_the_backgrounds_line(self, labels: tuple[str, ...], expected: str) -> None:
        """Labels with a line for the background do not shift the others."""
        written = WRITERS["tflite_postprocess"][1](THINGS)
        assert decoded(detector(written, labels), written)[0].label == expected

    @pytest.mark.parametrize(
        ("labels", "said"),
        [
            ("a b c d e f g", "labels.txt has 7 labels; output 'classes' has 3 classes"),
            ("a b", "has 2 labels; output 'classes' has 3 classes"),
            (
                "background a b",
                "labels.txt, without its line 'background', has 2 labels; output 'classes' has 3 classes",
            ),
            ("??? a b c d e", "without its line '???', has 5 labels; output 'classes' has 3 classes"),
        ],
    )
    def test_labels_of_another_model(self, labels: str, said: str) -> None:
        """Labels that do not fit the operator's classes are refused, with both numbers: they would be off by one."""
        with pytest.raises(ModelError) as caught:
            detector(WRITERS["tflite_postprocess"][1](()), labels.split())
        assert said in str(caught.value)
        assert "try 'background'" not in str(caught.value)

    def test_a_class_without_a_label(self) -> None:
        """Where the classes cannot be counted, one beyond the labels is called by its index, and told of."""
        written = WRITERS["yolo_nms"][1]((Thing((0.1, 0.1, 0.5, 0.5), 5, 0.9),))
        answers = detector(written).decode(written[2], WHOLE)
        assert [d.label for d in answers.detections or ()] == ["5"]
        assert "beyond the 3 labels" in str(answers.doubt)
        assert detector(written, allow=("ant",)).decode(written[2], WHOLE).detections == ()


class TestScores:
    @pytest.mark.parametrize(
        ("ending", "wanted", "logits"),
        [
            (Ending("CONCATENATION", joins=("CONV_2D", "CONV_2D")), "auto", True),
            (Ending("LOGISTIC"), "auto", False),
            (Ending("CONCATENATION", joins=("LOGISTIC", "LOGISTIC")), "auto", False),
            (Ending("CONCATENATION", joins=("CONV_2D", "CONV_2D")), "none", False),
            (Ending("LOGISTIC"), "sigmoid", True),
        ],
    )
    def test_logits_or_scores(self, ending: Ending, wanted: str, logits: bool) -> None:
        """Raw detectors end in logits, unless the operators that made the output say otherwise, or the configuration does."""
        specs, _, tensors = WRITERS["ssd_raw, ssd"][1](THINGS)
        if not logits:
            tensors[1] = 1 / (1 + np.exp(-tensors[1]))
        written = specs, [Ending("CONV_2D"), ending], tensors
        found = decoded(detector(written, activation=wanted), written)
        assert [d.score for d in found] == pytest.approx([0.9, 0.75, 0.625], abs=1e-5)

    def test_softmax(self) -> None:
        """A softmax counts the background, and leaves it out."""
        specs, endings, tensors = WRITERS["ssd_raw, ssd"][1](())
        tensors[1][0, 5] = np.log([0.3, 0.1, 0.5, 0.1])
        [only] = decoded(
            detector((specs, endings, tensors), activation="softmax", score_threshold=0.4), (specs, endings, tensors)
        )
        assert (only.label, only.score) == ("bee", pytest.approx(0.5))

    def test_doubt(self) -> None:
        """Scores beyond 1 are cut, and told of."""
        written = yolov8((Thing((0.1, 0.1, 0.5, 0.5), 1, 3.5),))
        answers = detector(written).decode(written[2], WHOLE)
        assert [d.score for d in answers.detections or ()] == [1.0]
        assert "3.5" in str(answers.doubt)
        assert "task.activation" in str(answers.doubt)

    @pytest.mark.parametrize(
        ("way", "labels", "said"),
        [
            ("ssd", "ant bee cat", ""),
            ("ssd", "background ant bee cat", ""),
            ("ssd", "??? ant bee cat", ""),
            ("ssd", "ant bee", "has 2 labels; output 'raw_scores' has 3 classes"),
            (
                "ssd",
                "background ant bee",
                "without its line 'background', has 2 labels; output 'raw_scores' has 3 classes",
            ),
            ("ssd", "ant bee cat dog", "has 4 labels; output 'raw_scores' has 3 classes"),  # it has a background
            ("efficientdet", "ant bee cat", ""),
            ("efficientdet", "ant bee", "has 2 labels; output 'raw_scores' has 3 classes"),
            ("efficientdet", "ant bee cat dog", "has 4 labels; output 'raw_scores' has 3 classes"),
        ],
    )
    def test_the_backgrounds_column(self, way: str, labels: str, said: str) -> None:
        """Whether the first column is the background's, the family says; labels with a line too few or too many are refused."""
        written = WRITERS[f"ssd_raw, {way}"][1](THINGS)
        if not said:
            assert [d.label for d in decoded(detector(written, labels.split()), written)] == ["bee", "ant", "cat"]
            return
        with pytest.raises(ModelError) as caught:
            detector(written, labels.split())
        assert said in str(caught.value)

    @pytest.mark.parametrize("way", [way for way in WRITERS if way.startswith("yolo")])
    def test_units_that_are_wrong(self, way: str) -> None:
        """Units that the boxes cannot have been measured in are told of."""
        written = WRITERS[way][1](THINGS)
        right, wrong = ("pixels", "normalized") if "pixels" in way else ("normalized", "pixels")
        for units in (right, "auto"):
            assert detector(written, box_units=units).decode(written[2], WHOLE).doubt is None
        doubt = detector(written, box_units=wrong).decode(written[2], WHOLE).doubt
        assert f"are not {wrong}; set task.box_units to {right}" in str(doubt)

    def test_units_and_nonsense(self) -> None:
        """A few boxes that are anywhere, of no score, do not make pixels of fractions."""
        specs, endings, tensors = yolov8(THINGS)
        tensors[0][0, 0, 100] = 2.5
        tensors[0][0, 1, 101] = np.inf
        found = decoded(detector((specs, endings, tensors)), (specs, endings, tensors))
        assert found[0].box == pytest.approx(THINGS[0].box, abs=1e-5)

    def test_units_of_the_postprocess(self) -> None:
        """Boxes of TFLite_Detection_PostProcess are fractions by themselves; an export in pixels is read all the same."""
        specs, endings, tensors = WRITERS["tflite_postprocess"][1](THINGS)
        tensors[0] *= [SIZE[1], SIZE[0]] * 2
        written = specs, endings, tensors
        assert decoded(detector(written), written)[0].box == pytest.approx(THINGS[0].box, abs=1e-5)
        answers = detector(written, box_units="normalized").decode(tensors, WHOLE)
        assert "set task.box_units to pixels" in str(answers.doubt)

    def test_half_precision(self) -> None:
        """Outputs of float16 give what those of float32 give."""
        for write in (yolov8, WRITERS["ssd_raw, ssd"][1]):
            specs, endings, tensors = write(THINGS)
            half = [tensor.astype(np.float16) for tensor in tensors]
            half[0][..., -1] = 60000  # whose exponential is no half
            found = decoded(detector((specs, endings, tensors)), (specs, endings, half))
            assert {d.label for d in found} >= {"bee", "ant"}

    def test_classes_that_are_none(self) -> None:
        """Numbers that can be no class are left out, and told of."""
        for index in (-1, 1e30, np.nan):
            specs, endings, tensors = WRITERS["yolo_nms"][1](THINGS)
            tensors[0][0, 0, 5] = index
            answers = detector((specs, endings, tensors)).decode(tensors, WHOLE)
            assert [d.label for d in answers.detections or ()] == ["ant", "cat"]
            assert "classes are not numbers" in str(answers.doubt)

    def test_thresholds_of_classes_without_a_label(self) -> None:
        """A class beyond the labels needs the common threshold, whatever the others need."""
        written = WRITERS["yolo_nms"][1]((Thing((0.1, 0.1, 0.5, 0.5), 7, 0.6),))
        for given_ in ({"label_thresholds": {"ant": 0.9, "bee": 0.9, "cat": 0.9}}, {"deny": LABELS}):
            assert [d.label for d in decoded(detector(written, **given_), written)] == ["7"]
        assert decoded(detector(written, score_threshold=0.7), written) == ()

    def test_one_column(self) -> None:
        """A family with a background may have a model with one class and no background."""
        specs, endings, tensors = WRITERS["ssd_raw, ssd"][1](())
        tensors[1] = np.full((*tensors[1].shape[:2], 1), -9.0)
        tensors[1][0, 3] = 2.0
        specs[1] = replace(specs[1], shape=tensors[1].shape)
        [only] = decoded(detector((specs, endings, tensors), ("ant",)), (specs, endings, tensors))
        assert (only.label, only.index) == ("ant", 0)

    def test_units_are_said(self) -> None:
        """`box_units` is taken at its word, whatever the values look like."""
        written = WRITERS["yolo_nms in pixels"][1](THINGS[:1])
        [said] = decoded(detector(written, box_units="pixels"), written)
        assert said.box == pytest.approx(THINGS[0].box, abs=1e-6)
        assert decoded(detector(written, box_units="normalized"), written) == ()  # far outside


@pytest.mark.parametrize(
    ("given_", "key"),
    [
        ({"allow": ("fish",)}, "task.allow"),
        ({"deny": ("ants",)}, "task.deny"),
        ({"label_thresholds": {"fish": 0.5}}, "task.label_thresholds"),
    ],
)
def test_wrong_labels(given_: dict[str, Any], key: str) -> None:
    """A label that the model does not have is refused by its key."""
    with pytest.raises(SettingError) as caught:
        detector(yolov8(()), **given_)
    assert caught.value.key == key


@pytest.mark.parametrize("count", [1, 2, 5])
def test_wrong_number_of_labels(count: int) -> None:
    """Labels that are not as many as the classes are refused, with both numbers."""
    with pytest.raises(EdgeRunnerError, match=rf"{count} labels; output 'out' has 3 classes"):
        detector(yolov8(()), LABELS[:count] if count < 3 else tuple("abcde"))


class TestSameAnswer:
    @every_way
    def test_the_same(self, way: str) -> None:
        """Equal outputs answer alike; so do those whose boxes and scores moved by less than the tolerance."""
        name, write = WRITERS[way]
        task, before = detector(write(THINGS)), write(THINGS)[2]
        assert task.same_answer(before, before, [0.0] * len(before)) is None
        moved = [replace(t, box=tuple(np.add(t.box, 0.01)), score=t.score - 0.01) for t in THINGS]
        wide = [0.3 * (96 if "pixels" in way else 1)] * len(before)
        assert task.same_answer(before, write(moved)[2], wide) is None
        assert name in task.reading

    @every_way
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"index": 0}, "the host's 'bee' 0.9"),
            ({"score": 0.02}, "the host's 'bee' 0.9"),
            ({"box": (0.6, 0.6, 0.9, 0.9)}, "the host's 'bee' 0.9"),
        ],
    )
    def test_another(self, way: str, change: dict[str, Any], words: str) -> None:
        """Another label, a score that fell below the threshold, a box elsewhere: each is another answer, and said."""
        _, write = WRITERS[way]
        after = [replace(THINGS[0], **change), *THINGS[1:]]
        before, got = write(THINGS)[2], write(after)[2]
        task = detector(write(THINGS))
        why = task.same_answer(before, got, [0.01] * len(before))
        assert words in str(why)
        assert "had not" in str(task.same_answer(write(THINGS[1:])[2], before, [0.01] * len(before)))

    @every_way
    def test_in_doubt(self, way: str) -> None:
        """What is no further from its threshold than the tolerance proves nothing."""
        _, write = WRITERS[way]
        before = write((*THINGS, Thing((0.1, 0.8, 0.3, 0.95), 1, 0.51)))[2]
        unit = 96 if "pixels" in way else 1
        tolerances = [0.05 * unit] * len(before)
        assert detector(write(THINGS)).same_answer(before, write(THINGS)[2], tolerances) is None
        assert detector(write(THINGS)).same_answer(before, write(THINGS)[2], [0.001 * unit] * len(before)) is not None

    @pytest.mark.parametrize("way", ["yolo_nms", "tflite_postprocess"])
    def test_sorted_in_the_graph(self, way: str) -> None:
        """Rows that the model sorted may change their places, and are compared box by box, as near as the tolerance."""
        write = WRITERS[way][1]
        task = detector(write(THINGS))
        assert all(task.chosen)
        close = [Thing((0.1, 0.1, 0.3, 0.3), 0, 0.9), Thing((0.5, 0.5, 0.9, 0.9), 0, 0.8999)]
        swapped = [close[0], replace(close[1], score=0.9001)]
        before, after = write(close)[2], write(swapped)[2]
        assert task.same_answer(before, after, [0.001] * len(before)) is None
        shifted = write([replace(close[0], box=(0.12, 0.1, 0.32, 0.3)), close[1]])[2]
        assert task.same_answer(before, shifted, [0.001] * len(before)) is not None

    def test_dense_outputs_are_compared(self) -> None:
        """What the model did not sort is compared value by value elsewhere."""
        assert detector(yolov8(())).chosen == (False,)


def test_nothing_is_kept_of_a_frame() -> None:
    """A result does not change with the next frame's tensors."""
    written = yolov8(THINGS)
    task = detector(written)
    found = decoded(task, written)
    tensor: Tensor = written[2][0]
    before = [d.box for d in found]
    tensor[:] = 0
    assert [d.box for d in found] == before
    assert decoded(task, written) == ()


def test_iou_of_what_is_found() -> None:
    """No two boxes of a class that are found overlap by more than the threshold."""
    rng = np.random.default_rng(3)
    rows = np.concatenate([rng.random((1, 4, GRID)) * 0.4, rng.random((1, 3, GRID))], axis=1)
    written = floats(out=rows)
    found = decoded(detector(written, iou_threshold=0.3), written)
    assert len(found) > 5
    for one, other in itertools.combinations(found, 2):
        if one.index == other.index:
            assert iou(np.array(one.box), np.array([other.box]))[0] <= 0.45  # cut to the frame, it may be a little more
