"""Tensors that are too large for a line of JSON, as NumPy's .npz files beside the results, which name them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from edge_runner.fields import OutputPath, Range, Size
from edge_runner.frame import Shot, Tensor
from edge_runner.output.base import Item, Origin, Output, OutputConfig
from edge_runner.output.quota import Quota, file_stem
from edge_runner.result import Answers, Result

KIND, SUFFIX = "npz", ".npz"


@dataclass(frozen=True)
class NpzConfig(OutputConfig):
    """The configuration's output of type npz. `path` is a folder; where its files exceed `max_total` bytes, the oldest go."""

    type: Literal["npz"] = "npz"
    path: Annotated[Path, OutputPath()] = field(kw_only=True)
    max_total: Annotated[Size, Range(0, above=True)] = 256 * 10**6


class Npz(Output):
    """One file a result, with an array for each output that the result itself has no values of."""

    Config = NpzConfig
    QUEUE = 8  # arrays are large
    saves = True
    takes_arrays = True

    def __init__(self, config: NpzConfig) -> None:
        super().__init__(config)
        self._files = Quota(config.path, SUFFIX, config.max_total)

    def verify(self) -> None:
        self._files.verify()

    def open(self, origin: Origin) -> None:
        self._files.open()

    def take(self, result: Result, shot: Shot) -> Item | None:
        if not _arrays(result.answers):
            return None
        return Item(result, saved={KIND: file_stem(result) + SUFFIX})

    def write(self, item: Item) -> None:
        self._files.save(item.saved[KIND], _packed(_arrays(item.result.answers)))


def _arrays(answers: Answers) -> dict[str, Tensor]:
    arrays: dict[str, Tensor] = {}
    for number, tensor in enumerate(answers.tensors or ()):
        if tensor.array is not None:
            arrays[f"{tensor.name}_{number}" if tensor.name in arrays else tensor.name] = tensor.array
    return arrays


def _packed(arrays: Mapping[str, Tensor]) -> bytes:
    """As numpy.savez writes it, which is a zip of .npy files, but for any name: its own takes them as keywords."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.save(member, array, allow_pickle=False)
    return file.getvalue()
