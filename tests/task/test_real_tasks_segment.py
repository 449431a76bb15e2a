"""A published segmenter on a picture with a published mask, through the real command.

EDGE_RUNNER_MODELS names a folder with `segment/` and `images/`: DeepLab V3 of tensorflow/tflite-support. Without it these tests are
skipped.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

FOLDER = Path(os.environ.get("EDGE_RUNNER_MODELS", ""))
PICTURE = FOLDER / "images/segmentation_input_rotation0.jpg"
GOLDEN = FOLDER / "images/segmentation_golden_rotation0.png"  # a pixel's value is ten times its class
CLASSES = 21  # the labels' file has prose below them

pytestmark = pytest.mark.skipif(
    not os.environ.get("EDGE_RUNNER_MODELS") or not (FOLDER / "segment").is_dir(),
    reason="EDGE_RUNNER_MODELS names no folder of models",
)


@pytest.mark.parametrize("mask", ["model", "frame"])
def test_deeplab(tmp_path: Path, configure: Any, run_cli: Any, mask: str) -> None:
    """At least 99.5 % of the mask's pixels are the published ones (every one under tflite-runtime), and the areas are theirs."""
    labels = (FOLDER / "segment/pascal_voc_segmentation_labels.txt").read_text().splitlines()[:CLASSES]
    (tmp_path / "voc.txt").write_text("\n".join(labels))
    path = configure(
        camera={"type": "images", "path": str(PICTURE)},
        model={"path": str(FOLDER / "segment/deeplabv3_257_float.tflite"), "labels": "voc.txt"},
        preprocess={"color": "rgb", "mean": 127.5, "std": 127.5},
        task={"type": "segment", "mask": mask},
    )
    done = run_cli("--config", path, "--once")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    found = cv2.imdecode(np.frombuffer(base64.b64decode(result["mask"]["png"]), np.uint8), cv2.IMREAD_UNCHANGED)
    golden = cv2.imread(str(GOLDEN), cv2.IMREAD_UNCHANGED)
    assert found.shape == golden.shape
    assert (found * 10 == golden).mean() >= 0.995
    expected = {labels[n]: float((golden == 10 * n).mean()) for n in np.unique(golden) // 10}
    assert {one["label"]: one["area"] for one in result["segments"]} == pytest.approx(expected, abs=0.005)
    assert [one["label"] for one in result["segments"]] == ["background", "person", "horse"]
