"""What disks do to those who write to them."""

from __future__ import annotations

import errno

PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOMEM})


def passes(error: OSError) -> bool:
    """Whether it may mend itself, or be mended, while the daemon runs: a full or a read-only disk, an error of the card."""
    return error.errno in PASSING


def words(error: OSError) -> str:
    """The error for a message: `no space left on device`."""
    return (error.strerror or str(error)).lower()
