"""Boxes: pure, vectorised functions over arrays [n, 4] of (x0, y0, x1, y1)."""

from __future__ import annotations

import cv2
import numpy as np

from edge_runner.frame import Geometry, Tensor

CANDIDATES_MOST = 10_000
FURTHEST = 1e6  # from the frame, in its sides; one box beyond would leave no digits for the others
CLASSES_APART = 2.0  # times the boxes' extent, so that those of two classes never overlap


def from_centres(boxes: Tensor) -> Tensor:
    """Boxes [n, 4] from their centres and sizes [n, 4] (x, y, width, height), of the same type."""
    half = boxes[:, 2:4] / 2
    return np.concatenate([boxes[:, 0:2] - half, boxes[:, 0:2] + half], axis=1)


def iou(box: Tensor, boxes: Tensor) -> Tensor:
    """Intersection over union, 0..1, of one box [4] with each of boxes [n, 4]: [n]. Of what has no area it is 0."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    common = np.clip(high - low, 0, None).prod(axis=1)
    union = areas(boxes) + areas(box[np.newaxis]) - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(common), where=union > 0))


def areas(boxes: Tensor) -> Tensor:
    """The area of each of boxes [n, 4]: [n]; 0 where an edge is on the wrong side of the other."""
    return np.asarray(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1))


def suppressed(boxes: Tensor, scores: Tensor, classes: Tensor, most_iou: float, most: int) -> Tensor:
    """Non-maximum suppression, class by class: which of boxes [n, 4] are kept, as indices, the best score first.

    A box goes where it overlaps a better one of its class by more than `most_iou` (0..1); of equal scores the first is better.
    The `most` best are kept, of CANDIDATES_MOST that are looked at; a score of 0 is none.
    """
    boxes = np.clip(boxes, -FURTHEST, FURTHEST)
    extent = float(np.ptp(boxes)) if boxes.size else 0.0
    corners = boxes[:, :2].astype(np.float64) + (classes * (CLASSES_APART * extent))[:, np.newaxis]
    rectangles = np.concatenate([corners, boxes[:, 2:] - boxes[:, :2]], axis=1)
    # OpenCV 4.6, which 32-bit Debian has, knows no classes: hence one call, with the classes moved apart
    kept = cv2.dnn.NMSBoxes(rectangles.tolist(), scores.tolist(), 0.0, most_iou, 1.0, CANDIDATES_MOST)
    return np.asarray(kept, np.intp).reshape(-1)[:most]


def in_frame(boxes: Tensor, geometry: Geometry) -> Tensor:
    """Boxes [n, 4] in fractions of the input as float64 fractions of the upright frame, not clipped."""
    return geometry.to_frame(boxes.reshape(-1, 2, 2).astype(np.float64)).reshape(-1, 4)


def visible(boxes: Tensor, geometry: Geometry) -> Tensor:
    """Boxes [n, 4] in fractions of the upright frame, cut to the part of it that the model saw."""
    low, high = geometry.seen[:2], geometry.seen[2:]
    return np.asarray(np.clip(boxes, low * 2, high * 2))
