"""What each running instance of the service says of itself, for other programs: one file, in a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RUN = Path("/run/edge-runner")  # has a folder for each instance: systemd's RuntimeDirectory, which goes as it stops
HEALTH_FILE = "health.json"


@dataclass(frozen=True)
class Account:
    """The object of a health file, empty where it cannot be read, and when that was written (seconds since the epoch)."""

    said: Mapping[str, Any] = field(default_factory=dict)
    written: float = 0.0

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


def _read(path: Path) -> Account:
    with suppress(OSError, ValueError):
        said = json.loads(path.read_bytes())
        if isinstance(said, dict):
            return Account(said, path.stat().st_mtime)
    return Account()
