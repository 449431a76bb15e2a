"""Whose rights a command uses that root called: the owner's of what it changes.

Others may write there, too, and a link of theirs must not lead root elsewhere.
"""

from __future__ import annotations

import codecs
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = 0
CODECS = ("utf-8-sig", "idna")  # Python loads each at its first use, from where the owner may not look
A_LINK = "a link, which root does not follow; install a copy without links (cp -rL)"


@contextmanager
def as_owner(folder: Path) -> Iterator[None]:
    """Be the folder's owner and group, where root called; else stay who one is."""
    owner = folder.stat()
    if os.geteuid() != ROOT or owner.st_uid == ROOT:
        yield
        return
    for codec in CODECS:
        codecs.lookup(codec)
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([owner.st_gid])
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(ROOT)
        os.setegid(group)
        os.setgroups(groups)


@contextmanager
def as_caller() -> Iterator[None]:
    """Within `as_owner`: be root again, who may read what the owner may not, such as somebody's home."""
    owner = os.geteuid()
    if os.getuid() != ROOT or owner == ROOT:
        yield
        return
    os.seteuid(ROOT)
    try:
        yield
    finally:
        os.seteuid(owner)


def open_no_link(path: str, flags: int) -> int:
    """An `opener` of `open` that has root follow no link to a file: whoever laid it may not read what it leads to."""
    try:
        return os.open(path, flags | (os.O_NOFOLLOW if os.getuid() == ROOT else 0))
    except OSError as error:
        if error.errno == errno.ELOOP:
            error.strerror = A_LINK
        raise
