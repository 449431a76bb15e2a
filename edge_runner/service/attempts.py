"""Remembers over a crash which installed model was being brought up: one that kills the daemon gives way to another."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

STARTS_FILE = "starts.json"
MOST = 2  # starts that were cut short, before the previous version gets its turn


class Attempts:
    """`folder` is systemd's $RUNTIME_DIRECTORY, which is kept over restarts; None: nothing is remembered."""

    def __init__(self, folder: Path | None) -> None:
        self._file = folder / STARTS_FILE if folder else None

    def begin(self, model: Path | None) -> str | None:
        """A start with this model begins. Return why another version is to have its turn; None where it is not."""
        if self._file is None or model is None:
            return None
        count = self._count(model)
        if count >= MOST:
            return f"{model} is not loaded: the daemon was killed, or hung, {count} times in a row as it brought it up"
        with suppress(OSError):
            self._file.write_text(json.dumps({"model": str(model), "starts": count + 1}))
        return None

    def over(self) -> None:
        """It came up, or was refused in an orderly way."""
        if self._file:
            with suppress(OSError):
                self._file.unlink(missing_ok=True)

    def _count(self, model: Path) -> int:
        assert self._file
        with suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(self._file.read_text())
            return int(known["starts"]) if known["model"] == str(model) else 0
        return 0
