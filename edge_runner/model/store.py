"""The store of installed models, NAME/{VERSION,current,previous}: whole versions side by side, and two links to choose by.

`current` is the active version, `previous` the one that ran before it. Whoever runs models only reads here.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

STATE_VARIABLE, STATE = "EDGE_RUNNER_STATE", "/var/lib/edge-runner"
CURRENT, PREVIOUS = "current", "previous"
PENDING_CURRENT, PENDING_PREVIOUS = ".current", ".previous"  # links of a switch under way: keeper.py
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
"""Of a model or a version: one part of a path, and no hidden one."""

NAME_ALLOWED = "letters, digits and . _ + -, at most 100, the first a letter or a digit"


def models_folder() -> Path:
    """Where installed models live: `models` in the folder that EDGE_RUNNER_STATE names, or in /var/lib/edge-runner."""
    return Path(os.environ.get(STATE_VARIABLE) or STATE).absolute() / "models"


class Store:
    """Installed models by their names. `folder` is `models_folder()` unless given; it need not be there."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or models_folder()

    def active(self, name: str) -> Path | None:
        """The folder of the active version, with the link resolved; None where there is none."""
        return self._version(name, CURRENT)

    def previous(self, name: str) -> Path | None:
        """The folder of the version that was active before, with the link resolved; None where there is no other one."""
        home = self.folder / name
        cut_short = os.path.lexists(home / PENDING_PREVIOUS) and not os.path.lexists(home / PENDING_CURRENT)
        found = self._version(name, PENDING_PREVIOUS if cut_short else PREVIOUS)
        return None if found == self.active(name) else found

    def names(self) -> list[str]:
        """The models of which a version is active."""
        return [name for name in self._folders(self.folder) if self.active(name)]

    def versions(self) -> list[Path]:
        """The folder of every version of every model, by their names."""
        return [
            self.folder / name / version
            for name in self._folders(self.folder)
            for version in self._folders(self.folder / name)
        ]

    def _version(self, name: str, link: str) -> Path | None:
        """The version that a link leads to. One that leads anywhere else counts as none."""
        with suppress(OSError):
            home = self.folder / name
            version = os.readlink(home / link)
            return home / version if NAME.fullmatch(version) and (home / version).is_dir() else None
        return None

    @staticmethod
    def _folders(folder: Path) -> list[str]:
        with suppress(OSError), os.scandir(folder) as entries:
            return sorted(e.name for e in entries if NAME.fullmatch(e.name) and e.is_dir(follow_symlinks=False))
        return []
