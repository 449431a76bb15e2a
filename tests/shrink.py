"""What stands for a preprocessor, in a module of its own: a camera's process loads it too."""

from __future__ import annotations

import cv2
import numpy as np

from edge_runner.frame import Enough, Geometry, Picture, Region, Tensor


class Shrink:
    """What stands for a preprocessor: the picture's crop as uint8 [1, 8, 8, 3], blue first."""

    shape = (1, 8, 8, 3)
    dtype = np.dtype(np.uint8)
    enough = Enough(16, 16)

    def __call__(self, picture: Picture, out: Tensor, crop: Region | None = None) -> Geometry:
        assert crop is not None
        part = picture[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
        out[0] = cv2.resize(part, (8, 8), interpolation=cv2.INTER_NEAREST)
        return Geometry(picture.shape[1], picture.shape[0])
