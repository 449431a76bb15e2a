"""Anchors: as many, and where, as the families' own tools make them."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest

from edge_runner.model.interpreter import find_runtime
from edge_runner.task.decoder.anchors import FAMILIES, families

MODELS = Path(os.environ.get("EDGE_RUNNER_MODELS") or "/nowhere")

COUNTS = [
    # family, input (width, height), anchors, numbers a box; the counts are those of published models
    ("ssd", (300, 300), 1917, 4),
    ("ssd", (320, 320), 2034, 4),
    ("ssd-fpn", (320, 320), 12804, 4),
    ("ssd-fpn", (640, 640), 51150, 4),
    ("efficientdet", (320, 320), 19206, 4),
    ("model-maker", (256, 256), 12276, 4),
    ("model-maker", (384, 384), 27621, 4),
    ("efficientdet", (384, 384), 27621, 4),
    ("efficientdet", (448, 448), 37629, 4),
    ("efficientdet", (512, 512), 49104, 4),
    ("blazeface", (128, 128), 896, 16),
    ("blazeface", (192, 192), 2016, 18),
    ("blazeface-back", (256, 256), 896, 16),
    ("blazeface-full-range", (192, 192), 2304, 16),
]


PYRAMID = {9 * sum(math.ceil(side / s) ** 2 for s in (8, 16, 32, 64, 128)) for _, (side, _), _, _ in COUNTS}


@pytest.mark.parametrize(("name", "size", "count", "numbers"), COUNTS)
def test_recognised(name: str, size: tuple[int, int], count: int, numbers: int) -> None:
    """A family is known by its number of anchors, and mostly the only one with so many."""
    found = families(size, count, numbers)
    assert found == (["efficientdet", "model-maker"] if count in PYRAMID else [name])  # other ratios, as many
    assert FAMILIES[name].anchors(size).shape == (count, 4)
    assert families(size, count + 1, numbers) == []


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [(320, 320), (320, 192), (300, 200)])
def test_where_they_stand(name: str, size: tuple[int, int]) -> None:
    """Centres lie within the picture, spread over it; sizes are above 0; the count is what was counted."""
    anchors = FAMILIES[name].anchors(size)
    assert len(anchors) == FAMILIES[name].count(size)
    assert anchors[:, :2].min() >= 0
    assert anchors[:, :2].max() < 1
    assert anchors[:, :2].mean(axis=0) == pytest.approx([0.5, 0.5], abs=0.02)
    assert anchors[:, 2:].min() > 0


@pytest.mark.parametrize(
    ("name", "size", "index", "expected"),
    [
        # x, y, width, height, by hand from the published formulas
        ("ssd", (300, 300), 0, (1 / 38, 1 / 38, 0.1, 0.1)),
        ("ssd", (300, 300), 1, (1 / 38, 1 / 38, 0.2 * math.sqrt(2), 0.2 / math.sqrt(2))),
        ("ssd", (300, 300), 1083, (0.05, 0.05, 0.35, 0.35)),
        ("ssd", (300, 300), 1088, (0.05, 0.05, math.sqrt(0.35 * 0.5), math.sqrt(0.35 * 0.5))),
        ("ssd", (300, 300), 1916, (0.5, 0.5, math.sqrt(0.95), math.sqrt(0.95))),
        ("ssd-fpn", (320, 320), 0, (4 / 320, 4 / 320, 0.1, 0.1)),
        ("ssd-fpn", (320, 320), 1, (4 / 320, 4 / 320, 0.1 * math.sqrt(2), 0.1 * math.sqrt(2))),
        ("ssd-fpn", (320, 320), 2, (4 / 320, 4 / 320, 0.1 * math.sqrt(2), 0.1 / math.sqrt(2))),
        ("efficientdet", (320, 320), 0, (4 / 320, 4 / 320, 24 / 320, 24 / 320)),
        ("efficientdet", (320, 320), 1, (4 / 320, 4 / 320, 24 / 320 * math.sqrt(2), 24 / 320 / math.sqrt(2))),
        ("efficientdet", (320, 320), 3, (4 / 320, 4 / 320, 24 / 320 * 2 ** (1 / 3), 24 / 320 * 2 ** (1 / 3))),
        # the last layer of 320 pixels has 3 cells for 2.5 strides of 128
        ("ssd-fpn", (320, 320), 12804 - 54, (0, 0, 1.6, 1.6)),
        ("ssd-fpn", (320, 320), 12804 - 6, (256 / 320, 256 / 320, 1.6, 1.6)),
        ("efficientdet", (320, 320), 19206 - 81, (1 / 6, 1 / 6, 1, 1)),
        ("model-maker", (256, 256), 0, (4 / 256, 4 / 256, 24 / 256 * math.sqrt(0.5), 24 / 256 / math.sqrt(0.5))),
        ("model-maker", (256, 256), 1, (4 / 256, 4 / 256, 24 / 256, 24 / 256)),
        ("efficientdet", (512, 512), 0, (4 / 512, 4 / 512, 32 / 512, 32 / 512)),
        ("blazeface", (128, 128), 2, (1.5 / 16, 0.5 / 16, 1, 1)),
        ("blazeface", (128, 128), 512, (0.5 / 8, 0.5 / 8, 1, 1)),
    ],
)
def test_by_hand(name: str, size: tuple[int, int], index: int, expected: tuple[float, ...]) -> None:
    """Single anchors, worked out from the formulas."""
    assert FAMILIES[name].anchors(size)[index] == pytest.approx(expected, abs=1e-6)


class TestBoxes:
    def test_no_offset_is_the_anchor(self) -> None:
        """Offsets of 0 give the anchors themselves."""
        family = FAMILIES["ssd"]
        anchors = family.anchors((300, 300))
        boxes = family.boxes(np.zeros((1917, 4), np.float32), anchors, (300, 300))
        assert boxes[:, 2:] - boxes[:, :2] == pytest.approx(anchors[:, 2:], abs=1e-6)
        assert (boxes[:, 2:] + boxes[:, :2]) / 2 == pytest.approx(anchors[:, :2], abs=1e-6)

    def test_coded(self) -> None:
        """y and x are in tenths of the anchor, height and width the logarithm, times five."""
        anchor = np.array([[0.5, 0.25, 0.2, 0.1]], np.float32)
        offsets = np.array([[10, -5, 5 * math.log(2), 0]], np.float32)
        [box] = FAMILIES["ssd"].boxes(offsets, anchor, (300, 300))
        assert box == pytest.approx([0.4 - 0.1, 0.35 - 0.1, 0.4 + 0.1, 0.35 + 0.1])

    def test_absolute(self) -> None:
        """BlazeFace has x and y in pixels from the anchor, and the size in pixels; keypoints after that are left alone."""
        anchor = np.array([[0.5, 0.25, 1, 1]], np.float32)
        [box] = FAMILIES["blazeface"].boxes(np.array([[12.8, 0, 64, 32, 9, 9]], np.float32), anchor, (128, 128))
        assert box == pytest.approx([0.6 - 0.25, 0.25 - 0.125, 0.6 + 0.25, 0.25 + 0.125])

    def test_wild_offsets(self) -> None:
        """No offset overflows."""
        [box] = FAMILIES["ssd"].boxes(np.full((1, 4), 1e6, np.float32), np.full((1, 4), 0.5, np.float32), (300, 300))
        assert np.isfinite(box).all()


@pytest.mark.skipif(not MODELS.is_dir(), reason="EDGE_RUNNER_MODELS names no folder of models")
def test_a_real_models_own() -> None:
    """The anchors that a published SSD carries for its own operator are those generated here, within its quantisation."""
    path = MODELS / "detect" / "coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite"
    interpreter = find_runtime().make(model_content=path.read_bytes())
    interpreter.allocate_tensors()
    [details] = [d for d in interpreter.get_tensor_details() if d["name"] == "anchors"]
    scale, zero = details["quantization"]
    own = (interpreter.get_tensor(details["index"]).astype(float) - zero) * scale  # y, x, height, width
    assert np.abs(own - FAMILIES["ssd"].anchors((300, 300))[:, [1, 0, 3, 2]]).max() <= 2 * scale
