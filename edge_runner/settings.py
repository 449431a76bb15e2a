"""camera.yaml as a whole: the parts' own Configs, put together."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from edge_runner import config
from edge_runner.camera import CAMERAS
from edge_runner.camera.base import CameraConfig
from edge_runner.errors import ConfigError, SettingError
from edge_runner.fields import Length, Partial, Variants, describe
from edge_runner.model.bundle import ModelConfig
from edge_runner.model.preprocess import Recipe
from edge_runner.output import OUTPUTS
from edge_runner.output.console import ConsoleConfig
from edge_runner.task import TASKS


@dataclass(frozen=True)
class Settings:
    """`preprocess` and `task` hold only what is given: the rest comes from the bundle's manifest, or from the defaults.

    Either `camera` or `cameras` is given; `sources` has all of them.
    """

    model: ModelConfig
    camera: Annotated[CameraConfig, Variants(CAMERAS)] | None = None
    cameras: Mapping[str, Annotated[CameraConfig, Variants(CAMERAS)]] | None = None
    device: str | None = None
    preprocess: Annotated[Mapping[str, Any], Partial(Recipe)] | None = None
    task: Annotated[Mapping[str, Any], Variants(TASKS, partial=True)] | None = None
    outputs: Annotated[tuple[Annotated[Any, Variants(OUTPUTS)], ...], Length(1)] = (ConsoleConfig(),)

    @property
    def sources(self) -> dict[str, CameraConfig]:
        """Every camera, under its key in the configuration."""
        if self.camera:
            return {"camera": self.camera}
        return {f"cameras.{name}": camera for name, camera in (self.cameras or {}).items()}

    def only(self, name: str) -> Settings:
        """The same with the one camera of this name. Raise SettingError where there is none."""
        found = {key: camera for key, camera in self.sources.items() if camera.name == name}
        if not found:
            names = ", ".join(str(camera.name) for camera in self.sources.values())
            raise SettingError(f"there is no camera '{name}'; there is {names}")
        return self if self.camera else replace(self, cameras={name: next(iter(found.values()))})


def load_settings(path: Path, sets: Sequence[str] = ()) -> config.Loaded[Settings]:
    """Read a configuration; raise ConfigError with a line for each mistake."""
    loaded = config.load(path, Settings, sets=sets)
    given = loaded.value
    mistakes = [loaded.locate(error) for error in _cameras_wrong(given)]
    if mistakes:
        raise ConfigError(mistakes)
    named = replace(
        given,
        device=given.device or socket.gethostname(),
        camera=given.camera and replace(given.camera, name=given.camera.name or path.stem),
        cameras=given.cameras and {name: replace(camera, name=name) for name, camera in given.cameras.items()},
    )
    return replace(loaded, value=named)


def _cameras_wrong(settings: Settings) -> Iterator[SettingError]:
    if settings.camera and settings.cameras is not None:
        yield SettingError("given beside `camera`; it takes its place, where there is more than one", key="cameras")
    elif not settings.camera and not settings.cameras:
        what = describe(Annotated[CameraConfig, Variants(CAMERAS)])
        yield SettingError(f"missing; allowed: {what}, or `cameras` with a name for each", key="camera")
    for name, camera in (settings.cameras or {}).items():
        if camera.name not in (None, name):
            yield SettingError(f"got '{camera.name}'; its name is '{name}', the key above", key=f"cameras.{name}.name")
