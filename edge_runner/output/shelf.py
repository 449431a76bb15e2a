"""The rotated files of a log: puts the live file among them, keeps so many, and compresses them in a thread of its own."""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from gzip import GzipFile
from pathlib import Path

from edge_runner.errors import SettingError
from edge_runner.output.disk import passes, words
from edge_runner.output.logfile import Damaged, sync_folder, torn_tail
from edge_runner.output.rotated import PACKED, is_packed, members, number_of, packed_path, real_path, rotated_path

PART = ".part"
CHUNK_BYTES = 1 << 16
LEVEL = 6
NICE = 19  # inference first
STOP_S = 1.0  # for one chunk on a slow card; a thread that is stuck in the kernel is left behind

log = logging.getLogger(__name__)


class Shelf:
    """Of the log `live`: `keep` rotated files stay, the highest numbers. Where `live` is a link, they lie beside its target."""

    def __init__(self, live: Path, keep: int, *, compress: bool) -> None:
        self.keep = keep
        self._named = live
        self._packer = Packer(live) if compress else None
        self._last = 0
        self._failed = False
        """Whether some file could not be deleted the last time."""

    @property
    def live(self) -> Path:
        return real_path(self._named)

    def open(self) -> None:
        """See to what an earlier start left: half a compressed file, one of which both are there, one that is not compressed."""
        found = _files(self.live)
        twice = [path for path in found if packed_path(path) in found]  # the compressed one is whole
        self._delete([*_parts(self.live), *twice])
        for path in found:
            if not is_packed(path) and path not in twice:
                _mend(path)
        self.settle()

    def put_away(self) -> Path:
        """Give the live file the next number; `settle` is to follow. Raise OSError where it cannot be renamed."""
        live = self.live
        self._last = max([self._last, *members(live).values()]) + 1
        place = rotated_path(live, self._last)
        os.rename(live, place)
        return place

    def settle(self) -> None:
        """Delete the lowest numbers beyond those that are kept; have the others compressed."""
        found = _files(self.live)
        kept = sorted(set(found.values()))[-self.keep :]
        surplus = [path for path, number in found.items() if number not in kept]
        self._delete([*surplus, *map(packed_path, surplus)])  # in this order: one may be compressed just now
        if self._packer and any(not is_packed(path) for path in found):
            self._packer.start()

    def sync(self, until: float) -> None:
        """Have the disk keep what was put away and is not compressed, the newest first, until that time (of time.monotonic)."""
        for path in reversed([path for path in _files(self.live) if not is_packed(path)]):
            if time.monotonic() >= until:
                return
            with suppress(OSError), path.open("rb") as file:  # it may be compressed, and deleted, just now
                os.fsync(file.fileno())
        sync_folder(self.live.parent)

    def close(self) -> None:
        if self._packer:
            self._packer.stop()

    def _delete(self, paths: Sequence[Path]) -> None:
        """One that cannot be deleted keeps no other from it, and is said once."""
        failed = [(path, why) for path in paths if (why := _deleted(path))]
        if failed and not self._failed:
            log.warning("%s cannot be deleted: %s", *failed[0])
        self._failed = bool(failed)


class Packer:
    """Compresses what is on the shelf, the oldest first. A compressed file is there whole or not at all."""

    def __init__(self, live: Path) -> None:
        self.live = live
        self._thread: threading.Thread | None = None
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._failed = False
        """Whether the disk was in trouble the last time."""
        self._given_up: set[Path] = set()
        """Files that are in trouble themselves."""

    def start(self) -> None:
        """There is something to compress."""
        self._wanted.set()
        if self._thread is None:
            self._stopping = threading.Event()  # a thread that was left behind keeps its own
            self._thread = threading.Thread(
                target=self._work, args=(self._stopping,), name=f"compress-{self.live.name}", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """At once: what is half done is begun anew at the next start."""
        if self._thread is None:
            return
        self._stopping.set()
        self._wanted.set()
        self._thread.join(STOP_S)
        self._thread = None
        self._wanted = threading.Event()

    def _work(self, stopping: threading.Event) -> None:
        wanted = self._wanted
        with suppress(OSError, AttributeError):  # of this thread alone, on Linux
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while not stopping.is_set():
            wanted.wait()
            wanted.clear()
            self._pack_all(stopping)

    def _pack_all(self, stopping: threading.Event) -> None:
        for path in _files(real_path(self.live)):
            if is_packed(path) or path in self._given_up or stopping.is_set():
                continue
            try:
                pack(path, stopping)
            except (OSError, zlib.error) as error:
                passing = isinstance(error, OSError) and passes(error)
                if not (passing and self._failed) and not stopping.is_set():
                    why = words(error) if isinstance(error, OSError) else str(error)
                    log.warning("%s stays uncompressed%s: %s", path, " for now" if passing else "", why)
                if passing:  # the next would fare no better
                    self._failed = True
                    return
                self._given_up.add(path)
        self._failed = False


def pack(path: Path, stopping: threading.Event) -> None:
    """Compress a rotated file, and delete it; leave nothing half done behind. Raise OSError where there is no room for it."""
    beside = path.with_name(f".{packed_path(path).name}{PART}")
    try:
        if packed_path(path).exists():  # it is the plain one alone that could not be deleted
            path.unlink(missing_ok=True)
        elif _packed(path, beside, stopping):
            os.replace(beside, packed_path(path))
            sync_folder(path.parent)
            _unlink_first(path)
    except FileNotFoundError:
        return
    finally:
        with suppress(OSError):
            beside.unlink()


def _unlink_first(path: Path) -> None:
    """Delete the plain file; where somebody has done so meanwhile, as one too many, the compressed one goes, too."""
    try:
        path.unlink()
    except FileNotFoundError:
        packed_path(path).unlink(missing_ok=True)


def _packed(path: Path, beside: Path, stopping: threading.Event) -> bool:
    """Write the compressed file to the disk; False where it was stopped."""
    with path.open("rb") as plain, beside.open("wb") as file:
        status = os.fstat(plain.fileno())
        os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
        with GzipFile("", "wb", LEVEL, file, mtime=status.st_mtime) as packed:
            while chunk := plain.read(CHUNK_BYTES):
                packed.write(chunk)
                if stopping.is_set():
                    return False
        file.flush()
        os.fsync(file.fileno())
        os.utime(file.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
    return not stopping.is_set()


def _deleted(path: Path) -> str:
    """Delete it; return why that cannot be, nothing where it is done. A folder of that name is none of ours."""
    try:
        with suppress(IsADirectoryError):
            path.unlink(missing_ok=True)
    except OSError as error:
        return words(error)
    return ""


def _files(live: Path) -> dict[Path, int]:
    """What `members` finds, without folders and the like; nothing where the folder cannot be read."""
    try:
        return {path: number for path, number in members(live).items() if path.is_file()}
    except OSError as error:
        log.warning("%s: its rotated files: %s", live, words(error))
        return {}


def _parts(live: Path) -> list[Path]:
    """Compressed files that are not whole; none where the folder cannot be read."""
    with suppress(OSError):
        found = live.parent.glob(f".*{PACKED}{PART}")
        return [path for path in found if number_of(live, _whole_path(path)) is not None and path.is_file()]
    return []


def _whole_path(part: Path) -> Path:
    return part.with_name(part.name.removeprefix(".").removesuffix(PART))


def _mend(path: Path) -> None:
    """A power cut may have torn a file that was rotated without being synchronised."""
    try:
        with suppress(SettingError, Damaged), path.open("rb") as file:
            whole, _ = torn_tail(file.fileno(), path)
            if whole < os.fstat(file.fileno()).st_size:
                os.truncate(path, whole)
                log.warning("%s: its last line was torn, and was cut off", path)
    except OSError as error:
        log.warning("%s: %s", path, words(error))
