"""Tries to write to every file and folder there is, and prints what let it. board_checks.py has the service's unit run it.

Nothing is changed: files are opened for writing and closed, what is made in a folder is removed again.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

OWN_PROCESSES = "/proc"
"""Files of one's own processes can be written; of the rest of it, /proc/sys counts."""
PROBE = ".edge-runner-trial"


def main() -> None:
    found: dict[str, Any] = {"folders": [], "files": [], "devices": [], "seen": [], "tried": 0}
    for path in everything():
        found["tried"] += 1
        with suppress(OSError):
            kind = try_path(path)
            found[kind].append(path)
    found["seen"] = sorted(os.listdir("/tmp"))
    sys.stdout.write(json.dumps(found) + "\n")


def everything() -> Iterator[str]:
    """Every path but those of processes, without following links."""
    for top in ("/", "/proc/sys"):
        for folder, folders, files in os.walk(top):
            if folder == "/":
                folders.remove(OWN_PROCESSES.strip("/"))
            yield folder
            yield from (os.path.join(folder, name) for name in files)


def try_path(path: str) -> str:
    """The kind of what let it; OSError where nothing does."""
    mode = os.lstat(path).st_mode
    if stat.S_ISDIR(mode):
        probe = os.path.join(path, PROBE)
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(probe)
        return "folders"
    if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
        raise OSError("a link, a socket, a pipe: none that keeps anything")
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY))
    return "files" if stat.S_ISREG(mode) else "devices"


if __name__ == "__main__":
    main()
