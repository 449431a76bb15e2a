"""What disks do to those who write to them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOMEM})


def passes(error: OSError) -> bool:
    """Whether it may mend itself, or be mended, while the daemon runs: a full or a read-only disk, an error of the card."""
    return error.errno in PASSING


def writable(path: Path, how: int) -> bool:
    """Whether this user may write it, by `how` of os.access; a file system that is read-only just now says nothing of that."""
    return os.access(path, how) or bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def words(error: OSError) -> str:
    """The error for a message: `no space left on device`."""
    return (error.strerror or str(error)).lower()
