"""The instances of the service, for other programs: where each has its files, and what one that runs says of itself."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONFIGS, LOGS = Path("/etc/edge-runner"), Path("/var/log/edge-runner")
RUN = Path("/run/edge-runner")  # has a folder for each instance: systemd's RuntimeDirectory, which goes as it stops
HEALTH_FILE = "health.json"


@dataclass(frozen=True)
class Account:
    """The object of a health file, empty where it cannot be read."""

    said: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> tuple[str, str] | None:
        """Name and version of the model that it runs, where it says so."""
        model = self.said.get("model")
        if isinstance(model, dict) and {"name", "version"} <= model.keys():
            return str(model["name"]), str(model["version"])
        return None


def accounts(run: Path) -> dict[str, Account]:
    """The accounts by the instances' names, in their order; `run` is RUN, or what stands for it."""
    return {path.parent.name: _read(path) for path in sorted(run.glob(f"*/{HEALTH_FILE}"))}


def stand_in(config: Path) -> None:
    """A service's configuration is read as its unit has it read: paths of outputs are relative to its folder of logs."""
    path = config.absolute()
    if path.parent == CONFIGS and not os.environ.keys() & {"LOGS_DIRECTORY", "STATE_DIRECTORY"}:
        os.environ["LOGS_DIRECTORY"] = str(LOGS / path.stem)


def _read(path: Path) -> Account:
    with suppress(OSError, ValueError):
        said = json.loads(path.read_bytes())
        if isinstance(said, dict):
            return Account(said)
    return Account()
