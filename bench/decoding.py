"""From tensors to answers: how long each task takes for outputs of the usual sizes, beside copying the same outputs once.

    python bench/decoding.py

The outputs are made up: of a hundred boxes of a detector one scores above the threshold, in groups that overlap. The median
and the 95th percentile of many frames, in milliseconds, and the median as a ratio to a copy of the outputs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from edge_runner.frame import Ending, Geometry, Tensor, TensorSpec
from edge_runner.task.base import ModelFacts, Task
from edge_runner.task.classify import Classify, ClassifyConfig
from edge_runner.task.detect import Detect, DetectConfig
from edge_runner.task.pose import Pose, PoseConfig
from edge_runner.task.segment import SegmentConfig, Segmenter

FRAME = Geometry(1280, 720)
CASES: tuple[tuple[str, tuple[int, int], tuple[tuple[int, ...], ...], Callable[[ModelFacts], Task]], ...] = (
    # what, the input's size, the outputs' shapes, the task
    ("classify, 1001 classes", (224, 224), ((1, 1001),), lambda facts: Classify(ClassifyConfig(activation="none"), facts)),
    ("yolov8, 84 x 8400", (640, 640), ((1, 84, 8400),), lambda facts: Detect(DetectConfig(score_threshold=0.25), facts)),
    ("yolov5, 25200 x 85", (640, 640), ((1, 25200, 85),), lambda facts: Detect(DetectConfig(score_threshold=0.25), facts)),
    ("yolo_nms, 300 x 6", (640, 640), ((1, 300, 6),), lambda facts: Detect(DetectConfig(), facts)),
    ("ssd_raw, 19206 x 90", (320, 320), ((1, 19206, 4), (1, 19206, 90)), lambda facts: Detect(DetectConfig(), facts)),
    ("segment, 257 x 257 x 21", (257, 257), ((1, 257, 257, 21),), lambda facts: Segmenter(SegmentConfig(), facts)),
    ("  and its mask at 1280x720", (257, 257), ((1, 257, 257, 21),), lambda facts: Segmenter(SegmentConfig(mask="frame"), facts)),
    ("pose, one person", (192, 192), ((1, 1, 17, 3),), lambda facts: Pose(PoseConfig(), facts)),
)  # fmt: skip


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=200, help="of each case (default: %(default)s)")
    options = parser.parse_args()
    print(f"{'':<28} {'p50 ms':>8} {'p95 ms':>8} {'/ copy':>8}  answers")
    for what, size, shapes, task in CASES:
        specs = tuple(TensorSpec(f"output_{i}", shape, "float32") for i, shape in enumerate(shapes))
        subject = task(ModelFacts(specs, (Ending("CONCATENATION"),) * len(specs), None, "nothing", size))
        tensors = [made_up(shape) for shape in shapes]
        found = subject.decode(tensors, FRAME)
        decoding = timed(lambda s=subject, t=tensors: s.decode(t, FRAME), options.frames)
        copying = timed(lambda t=tensors: [tensor.copy() for tensor in t], options.frames)
        p50, p95 = np.percentile(decoding, (50, 95))
        print(f"{what:<28} {p50:8.2f} {p95:8.2f} {p50 / np.median(copying):8.1f}  {len(found.words())}")


def made_up(shape: tuple[int, ...]) -> Tensor:
    """Values of 0 to 0.2, and a few groups of eight neighbours, one in a hundred, that stand out: detectors find their boxes."""
    rng = np.random.default_rng(len(shape))
    tensor = rng.random(shape, np.float32) * 0.2
    if len(shape) != 3:
        return tensor
    if shape[1:] == (300, 6):
        tensor[0, :20] = (0.1, 0.1, 0.6, 0.7, 0.9, 3)
    elif shape[2] == 4:
        return tensor
    elif shape[1] < shape[2]:
        tensor[0, 4:, np.arange(shape[2]) % 800 < 8] = rng.random(shape[1] - 4, np.float32) * 0.9
    elif shape[2] == 90:
        tensor[0] = np.where((np.arange(shape[1]) % 800 < 8)[:, np.newaxis], 3 * rng.random(90, np.float32), -9)
    else:
        tensor[0, np.arange(shape[1]) % 800 < 8, 4:] = 0.95
    return tensor


def timed(function: Callable[[], Any], times: int) -> list[float]:
    """Milliseconds of each call, after a few that are not counted."""
    found = []
    for number in range(times + 5):
        started = time.perf_counter()
        function()
        if number >= 5:
            found.append((time.perf_counter() - started) * 1e3)
    return found


if __name__ == "__main__":
    main()
