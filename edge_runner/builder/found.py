"""What a SavedModel turned out to hold: its signatures, its size by part, and the scaling that it begins with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edge_runner.frame import TensorSpec

OPEN = -1  # a size that a signature leaves open, as in TensorFlow Lite


@dataclass(frozen=True)
class Signature:
    """One way to call the model. Tensors have the signature's own names; a size left open is OPEN, an unknown rank is ()."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def lines(self) -> Iterator[str]:
        """The signature, a line a tensor."""
        yield f"signature '{self.name}'"
        for kind, specs in (("input", self.inputs), ("output", self.outputs)):
            for spec in specs:
                yield f"  {kind:<7} '{spec.name}' {spec.dtype} {list(spec.shape)}"


@dataclass(frozen=True)
class Scaling:
    """What the graph does to its input before anything else, the model's own normalisation: input * `factor` + `offset`.

    One number a channel. `layer` is its name in the graph.
    """

    layer: str
    factor: tuple[float, ...]
    offset: tuple[float, ...]


@dataclass(frozen=True)
class Found:
    """A model that could be opened. `pinned` is the chosen signature with every size fixed; sizes in bytes, by part."""

    kind: str
    signatures: tuple[Signature, ...]
    pinned: Signature
    sizes: Mapping[str, int]
    tools: Mapping[str, str]
    scaling: Scaling | None = None

    @property
    def size_bytes(self) -> int:
        return sum(self.sizes.values())

    def lines(self) -> Iterator[str]:
        """What was found, for a terminal."""
        parts = ", ".join(f"{part} {size / 1e6:.2f} MB" for part, size in self.sizes.items())
        yield f"{self.kind}, {self.size_bytes / 1e6:.2f} MB ({parts})"
        for signature in self.signatures:
            chosen = " (chosen)" if signature.name == self.pinned.name and len(self.signatures) > 1 else ""
            for number, line in enumerate(signature.lines()):
                yield line + (chosen if number == 0 else "")
        if self.scaling:
            yield f"begins with its own scaling: layer '{self.scaling.layer}'"
