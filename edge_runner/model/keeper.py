"""The one who changes the store of models: stages, puts in place, switches, removes; each step is on disk before the next.

Killed at any moment, it leaves the active version as it was or the new one, whole. What it leaves lying the next one clears up.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_runner.errors import EdgeRunnerError, StoreError
from edge_runner.model.rights import as_owner
from edge_runner.model.store import CURRENT, PENDING_CURRENT, PENDING_PREVIOUS, PREVIOUS, Store

LOCK = ".lock"
STAGED, OLD = ".new-", ".old-"  # folders that come to be, and that go
FOLDER_MODE = 0o2775  # new files get the folder's group, whose members need no root
STAGE_MODE = 0o2770  # nobody else reads what is not proven yet; the group's members clear up after each other
UMASK = 0o002
KEPT_FREE_BYTES = 16 * 10**6  # for the logs and everything else that runs on the board
LOCK_TIMEOUT_S = 600.0
LOCK_POLL_S = 0.2

log = logging.getLogger(__name__)


@contextmanager
def keeping(store: Store, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[Keeper]:
    """The store for oneself alone, made where there is none, and cleared up. Raise StoreError where it cannot be written.

    Until the end, root is the store's owner (`rights.as_caller` for what only root may read).
    """
    umask = os.umask(UMASK)
    try:
        _make(store.folder)
        with as_owner(store.folder), _locked(store.folder, timeout_s) as lock:
            keeper = Keeper(store, lock)
            keeper.settle()
            yield keeper
    except EdgeRunnerError:
        raise
    except OSError as error:
        raise StoreError(f"{_place(error, store.folder)}: {_why(error, store.folder)}") from error
    finally:
        os.umask(umask)


class Keeper:
    """Changes a store that nobody else changes meanwhile: what `keeping` gives. `lock` is that of the store, taken."""

    def __init__(self, store: Store, lock: int) -> None:
        self.store = store
        self._lock = lock

    def room(self, size_bytes: int) -> None:
        """Raise StoreError where the disk has no room for so much more."""
        free = shutil.disk_usage(self.store.folder).free - KEPT_FREE_BYTES
        if free < size_bytes:
            raise StoreError(
                f"{self.store.folder} has room for {max(free, 0) / 1e6:.1f} MB more, and {size_bytes / 1e6:.1f} MB are needed;"
                " `edge-runner model list` shows what could go, `edge-runner model remove NAME@VERSION` removes it"
            )

    @contextmanager
    def stage(self) -> Iterator[Path]:
        """A hidden folder to fill and to `put` in place; otherwise it goes again. Nobody else clears it away until then."""
        folder = self._hidden(STAGED)
        _new_folder(folder, STAGE_MODE)
        try:
            with _opened(folder) as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def meanwhile(self) -> Iterator[None]:
        """Let others change the store while a stage is filled, which may take as long as it likes."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        yield
        _take(self._lock, self.store.folder, LOCK_TIMEOUT_S)
        self.settle()

    def put(self, staged: Path, name: str, version: str) -> Path:
        """Make a staged folder the version of a model, in the place of a damaged one; return where it is."""
        home, old = self._home(name), self._hidden(OLD)
        place = home / version
        _settle_files(staged)
        if not home.is_dir():
            born = self._hidden(STAGED)  # it has its mode from the first moment on
            _new_folder(born)
            os.rename(born, home)
        if os.path.lexists(place):
            os.rename(place, old)
        os.rename(staged, place)
        _sync(home)
        _sync(self.store.folder)
        shutil.rmtree(old, ignore_errors=True)
        return place

    def switch(self, name: str, version: str) -> None:
        """Make an installed version the active one, and the active one the previous one, in one atomic step.

        The rename of `current` is that step. Whether it was done is told by the links that wait for their renames: both, or the
        first alone, and it was not; the second alone, and it was (`_finish`, `Store.previous`).
        """
        home, active = self._home(name), self.store.active(name)
        if active == home / version:
            return
        _link(home / PENDING_CURRENT, version)
        if active:
            _link(home / PENDING_PREVIOUS, active.name)
        os.replace(home / PENDING_CURRENT, home / CURRENT)
        _sync(home)
        _finish(home)

    def remove(self, name: str, version: str) -> None:
        """Delete a version. Whether it may go is the caller's to know."""
        home, old = self._home(name), self._hidden(OLD)
        os.rename(home / version, old)
        _sync(home)
        _sync(self.store.folder)
        shutil.rmtree(old)
        self._tidy(home)

    def settle(self) -> None:
        """Finish or take back what a killed one was about, and clear away what it left."""
        for path in self.store.folder.iterdir():
            if path.name.startswith((STAGED, OLD)):
                if not _held(path):
                    shutil.rmtree(path, ignore_errors=True)
            elif not path.name.startswith(".") and path.is_dir() and not path.is_symlink():
                _finish(path)
                self._tidy(path)

    def _home(self, name: str) -> Path:
        """Where a model's versions are; raise StoreError where that lies outside of the store."""
        home = self.store.folder / name
        if home.is_symlink():
            raise StoreError(f"{home} is a link to {os.readlink(home)}, and has to be a folder; remove it")
        return home

    def _hidden(self, prefix: str) -> Path:
        return self.store.folder / f"{prefix}{secrets.token_hex(4)}"

    @staticmethod
    def _tidy(home: Path) -> None:
        """No link to go back to what is not there, and no name that has no version any more."""
        if not (home / PREVIOUS).is_dir():
            (home / PREVIOUS).unlink(missing_ok=True)
        with suppress(OSError):
            home.rmdir()


def _finish(home: Path) -> None:
    """The end of a switch, or the way back from one that was not made."""
    first, second = home / PENDING_CURRENT, home / PENDING_PREVIOUS
    if not os.path.lexists(first) and not os.path.lexists(second):
        return
    if os.path.lexists(first):
        second.unlink(missing_ok=True)  # in this order: alone, it would be taken for a switch that was made
        _sync(home)
        first.unlink()
    else:
        os.replace(second, home / PREVIOUS)
    _sync(home)


def _link(path: Path, target: str) -> None:
    os.symlink(target, path)
    _give(path)
    _sync(path.parent)


def _make(folder: Path) -> None:
    """The store's own folder; those above it are as any other."""
    if not folder.is_dir():
        folder.parent.mkdir(0o755, parents=True, exist_ok=True)
        _new_folder(folder)
        _sync(folder.parent)


def _new_folder(folder: Path, mode: int = FOLDER_MODE) -> None:
    os.mkdir(folder, mode)
    with _opened(folder) as descriptor:
        _give(folder)
        os.fchmod(descriptor, mode)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """A folder's descriptor; never that of what a link leads to."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _held(folder: Path) -> bool:
    """Whether somebody fills this stage just now."""
    try:
        with _opened(folder) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it has gone, or is no folder
        pass
    return False


def _settle_files(folder: Path) -> None:
    """Owner, group and mode as the store has them, and everything on disk."""
    for path in folder.iterdir():
        _give(path)
        _sync(path)
    with _opened(folder) as descriptor:
        os.fchmod(descriptor, FOLDER_MODE)
        os.fsync(descriptor)


def _give(path: Path) -> None:
    """What root makes belongs to whom the folder belongs, so that root is not needed the next time."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _sync(path: Path) -> None:
    """Have the disk what was written to a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(folder: Path, timeout_s: float) -> Iterator[int]:
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o664)
    try:
        _take(lock, folder, timeout_s)
        _give(folder / LOCK)
        yield lock
    finally:
        os.close(lock)


def _take(lock: int, folder: Path, timeout_s: float) -> None:
    """Wait for the lock, which the kernel takes back from whoever dies."""
    until, told = time.monotonic() + timeout_s, False
    while True:
        with suppress(BlockingIOError):
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.monotonic() >= until:
            raise StoreError(
                f"another `edge-runner model` has been changing {folder} for more than {timeout_s:g} s;"
                f" `fuser -v {folder / LOCK}` shows which"
            )
        if not told:
            log.info("another `edge-runner model` is changing %s; waiting for it", folder)
            told = True
        time.sleep(LOCK_POLL_S)


def _place(error: OSError, folder: Path) -> str:
    """What the error is about; of our own hidden folders nobody knows the names."""
    named = str(error.filename or folder)
    return str(folder) if named.startswith(f"{folder}/.") and error.errno != errno.ELOOP else named


def _why(error: OSError, folder: Path) -> str:
    why = (error.strerror or str(error)).lower()
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{why}; {_who_may(folder)}"
    if error.errno == errno.ELOOP:
        return "it is a link, which may lead out of the store; remove it"
    if error.errno == errno.EROFS:
        return f"{why}: mount it for writing first, or name another place with EDGE_RUNNER_STATE"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{why}; `edge-runner model remove NAME@VERSION` makes room, `edge-runner model list` shows what there is"
        )
    return why


def _who_may(folder: Path) -> str:
    """Who may write here, and how to become one of them."""
    with suppress(OSError, KeyError):
        found = folder.stat()
        if found.st_gid and found.st_mode & 0o020:
            group = grp.getgrgid(found.st_gid).gr_name
            return f"do it with sudo, or join the group {group} (sudo usermod -aG {group} $USER) and log in again"
    return "do it with sudo"
