"""camera.yaml as a whole: the parts' own Configs, put together."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from edge_runner import config
from edge_runner.camera import CAMERAS
from edge_runner.camera.base import CameraConfig
from edge_runner.fields import Length, Partial, Variants
from edge_runner.model.bundle import ModelConfig
from edge_runner.model.preprocess import Recipe
from edge_runner.output import OUTPUTS
from edge_runner.output.console import ConsoleConfig
from edge_runner.task import TASKS


@dataclass(frozen=True)
class Settings:
    """`preprocess` and `task` hold only what is given: the rest comes from the bundle's manifest, or from the defaults."""

    camera: Annotated[CameraConfig, Variants(CAMERAS)]
    model: ModelConfig
    device: str | None = None
    preprocess: Annotated[Mapping[str, Any], Partial(Recipe)] | None = None
    task: Annotated[Mapping[str, Any], Variants(TASKS, partial=True)] | None = None
    outputs: Annotated[tuple[Annotated[Any, Variants(OUTPUTS)], ...], Length(1)] = (ConsoleConfig(),)


def load_settings(path: Path, sets: Sequence[str] = ()) -> config.Loaded[Settings]:
    """Read a configuration; raise ConfigError with a line for each mistake."""
    loaded = config.load(path, Settings, sets=sets)
    camera = loaded.value.camera
    named = replace(
        loaded.value,
        device=loaded.value.device or socket.gethostname(),
        camera=replace(camera, name=camera.name or path.stem),
    )
    return replace(loaded, value=named)
