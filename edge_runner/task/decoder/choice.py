"""Which decoder reads a model: as it is said, or by shapes, names, labels, grids and operators; never by values."""

from __future__ import annotations

from collections.abc import Sequence

from edge_runner.errors import ModelError
from edge_runner.fields import load
from edge_runner.task.base import ModelFacts
from edge_runner.task.decoder import DECODERS
from edge_runner.task.decoder.base import Reading


def read_as(facts: ModelFacts, wanted: str, family: str = "auto") -> Reading:
    """How a model's outputs are read: as the decoder `wanted`, or, where that is auto, as the one that fits; by the anchors of
    `family`, where they are anchors.

    Raise ModelError, with the outputs and what there is, where none fits or more than one does.
    """
    outputs = ", ".join(map(str, facts.outputs)) or "(none)"
    decoders = {name: load(place) for name, place in DECODERS.items()}
    readings = [r for name, decoder in decoders.items() if wanted in ("auto", name) for r in decoder.all(facts)]
    readings = [reading for reading in readings if family in ("auto", getattr(reading, "family", family))]
    likely = (readings and _likely(readings)) or [r for r in readings if wanted != "auto" and r.plausible()]
    if not likely:
        fits = "no decoder fits" if wanted == "auto" else f"{wanted} does not fit"
        forms = "; ".join(f"{name}: {decoder.form}" for name, decoder in decoders.items())
        size = "x".join(map(str, facts.size or ("?",)))
        raise ModelError(
            f"{fits} this model of input {size} and outputs {outputs}; there are {forms}."
            " task.type raw writes the outputs as they are",
            key="task.type" if wanted == "auto" else "task.decoder",
        )
    if wanted == "auto" and len(likely) == 1 and not likely[0].certain():
        raise ModelError(
            f"the outputs {outputs} have the shape of {likely[0].name} ({likely[0]}), but no grid of the input's size has so many"
            f" boxes, and no labels say that there are so many classes; say task.decoder: {likely[0].name}, if it is one",
            key="task.decoder",
        )
    ways = "; or ".join(f"{reading.name}, {reading}" for reading in likely)
    if len({reading.name for reading in likely}) > 1:
        raise ModelError(f"more than one decoder fits the outputs {outputs}: {ways}; say which", key="task.decoder")
    if len(likely) > 1:
        key = likely[0].settled_by
        raise ModelError(
            f"neither shapes nor names tell the outputs {outputs} apart: {ways}" + ("; say which" if key else ""),
            key=f"task.{key or 'decoder'}",
        )
    return likely[0]


def _likely(readings: Sequence[Reading]) -> list[Reading]:
    """The readings that names, grids, axes and labels speak for: one where they agree, none where nothing speaks for any."""
    told = {so: [reading for reading in readings if reading.told() is so] for so in (True, None)}
    left = told[True] or told[None]
    grid, usual = [reading for reading in left if reading.on_grid()], [reading for reading in left if reading.usual()]
    left = [reading for reading in grid if reading in usual] or [*grid, *(r for r in usual if r not in grid)]
    labels = readings[0].facts.labels
    fitting = [reading for reading in left if labels and reading.classes in (None, len(labels))]
    # labels alone may be one too few or too many: they do not stand against a grid
    against_grid = any(r in grid for r in left) and not any(r in grid for r in fitting)
    return left if against_grid or not fitting else fitting
