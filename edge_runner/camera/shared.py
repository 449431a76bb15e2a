"""The memory that a live camera's worker shares with the daemon: the input tensor, the frame, and a few figures.

It is anonymous (memfd_create(2)), so nothing of it is left behind, whoever is killed.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runner.errors import CameraError
from edge_runner.frame import Picture, Tensor

FIGURES = ("frames", "newest_ns", "changed_ns", "torn", "damaged", "black")
FIGURES_BYTES = 64  # and the tensor begins where a cache line does
MAX_FRAME_BYTES = 7680 * 4320 * 3
F_ADD_SEALS, F_SEAL_SHRINK = 1033, 2  # linux/fcntl.h; not in every Python's fcntl


class Figures:
    """What the worker says of its camera at any time, as attributes, all int.

    `frames` is the number of the newest frame, which came at `newest_ns`; the content was last seen to change at `changed_ns`
    (monotonic times; 0: not yet), which is written first. `torn` frames came incomplete, `damaged` ones could not be decoded,
    `black` ones showed nothing.
    """

    def __init__(self, memory: npt.NDArray[np.int64]) -> None:
        object.__setattr__(self, "_memory", memory)

    def __getattr__(self, name: str) -> int:
        """Read until two readings agree: on 32 bits, one is two steps, and the other side may write between them."""
        if name not in FIGURES:
            raise AttributeError(name)
        memory, index = self.__dict__["_memory"], FIGURES.index(name)
        value = int(memory[index])
        while (again := int(memory[index])) != value:
            value = again
        return value

    def __setattr__(self, name: str, value: int) -> None:
        self.__dict__["_memory"][FIGURES.index(name)] = value

    def clear(self) -> None:
        self.__dict__["_memory"][:] = 0


class Block:
    """`input` has the model's shape and dtype; its memory only grows, as the frame's does, which ends at `MAX_FRAME_BYTES`."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], descriptors: Sequence[int] = ()) -> None:
        """Make the memory; or, given `descriptors` of one that was made, use that."""
        self.descriptors = list(descriptors) or [_make("edge-runner-input", 0), _make("edge-runner-frame", 0)]
        self._frame: mmap.mmap | None = None
        self.input: Tensor
        memory = self.refit(shape, dtype)
        self.figures = Figures(np.frombuffer(memory, np.int64, len(FIGURES)))

    def refit(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> mmap.mmap:
        """Give `input` another shape and dtype. The figures stay where they are."""
        count = int(np.prod(shape))
        size = FIGURES_BYTES + count * dtype.itemsize
        if os.fstat(self.descriptors[0]).st_size < size:
            os.ftruncate(self.descriptors[0], size)
        memory = mmap.mmap(self.descriptors[0], size)
        self.input = np.frombuffer(memory, dtype, count, FIGURES_BYTES).reshape(shape)
        return memory

    def picture(self, shape: tuple[int, int, int]) -> Picture:
        """The frame's memory as a picture of this shape. Raise CameraError where it would be too large."""
        size = int(np.prod(shape))
        if size > MAX_FRAME_BYTES:
            raise CameraError(f"gives frames of {shape[1]}x{shape[0]} pixels; 7680x4320 is the most that can be used")
        if self._frame is None or len(self._frame) < size:
            if os.fstat(self.descriptors[1]).st_size < size:
                os.ftruncate(self.descriptors[1], size)
            self._frame = mmap.mmap(self.descriptors[1], size)
        return np.frombuffer(self._frame, np.uint8, size).reshape(shape)

    def close(self) -> None:
        """Give it back; what still looks at it keeps it until it lets go."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []
        del self.input, self.figures, self._frame


def _make(name: str, size: int) -> int:
    if not hasattr(os, "memfd_create"):
        raise CameraError("live cameras need Linux; files (video, images) work elsewhere too")
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK)  # or a worker gone mad could kill the daemon by shortening it
    return descriptor
