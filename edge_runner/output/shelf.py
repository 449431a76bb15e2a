"""The rotated files of a log: puts the live file among them, keeps so many, and compresses them in a thread of its own."""

from __future__ import annotations

import logging
import os
import stat
import threading
import zlib
from contextlib import suppress
from gzip import GzipFile
from pathlib import Path

from edge_runner.errors import SettingError
from edge_runner.output.disk import words
from edge_runner.output.logfile import sync_folder, torn_tail
from edge_runner.output.rotated import PACKED, is_packed, members, number_of, packed_path, rotated_path

PART = ".part"
CHUNK_BYTES = 1 << 16
LEVEL = 6
NICE = 19  # inference first
STOP_S = 1.0  # for one chunk on a slow card; a thread that is stuck in the kernel is left behind

log = logging.getLogger(__name__)


class Shelf:
    """Of the log `live`: `keep` rotated files stay, the highest numbers."""

    def __init__(self, live: Path, keep: int, *, compress: bool) -> None:
        self.live = live
        self.keep = keep
        self._packer = Packer(live) if compress else None
        self._last = 0

    def open(self) -> None:
        """See to what an earlier start left: half a compressed file, one of which both are there, one that is not compressed."""
        try:
            found = members(self.live)
            for path in self.live.parent.glob(f".*{PACKED}{PART}"):
                if _is_part(self.live, path):
                    path.unlink()
            for path in [path for path in found if not is_packed(path)]:
                if packed_path(path) in found:
                    path.unlink()  # the compressed one is whole
                else:
                    _mend(path)
        except OSError as error:
            log.warning("%s: its rotated files: %s", self.live, words(error))
        self.settle()

    def put_away(self) -> Path:
        """Give the live file the next number; `settle` is to follow. Raise OSError where it cannot be renamed."""
        self._last = max([self._last, *members(self.live).values()]) + 1
        place = rotated_path(self.live, self._last)
        os.rename(self.live, place)
        return place

    def settle(self) -> None:
        """Delete the lowest numbers beyond those that are kept; have the others compressed."""
        try:
            found = members(self.live)
            kept = sorted(set(found.values()))[-self.keep :]
            for path in [path for path, number in found.items() if number not in kept]:
                path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s: its oldest rotated files cannot be deleted: %s", self.live, words(error))
            return
        if self._packer and any(not is_packed(path) for path in found):
            self._packer.start()

    def close(self) -> None:
        if self._packer:
            self._packer.stop()


class Packer:
    """Compresses what is on the shelf, the oldest first. A compressed file is there whole or not at all."""

    def __init__(self, live: Path) -> None:
        self.live = live
        self._thread: threading.Thread | None = None
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._failed = False

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
        try:
            for path in [path for path in members(self.live) if not is_packed(path)]:
                if not stopping.is_set() and path.is_file():
                    pack(path, stopping)
            self._failed = False
        except (OSError, zlib.error) as error:
            if not self._failed and not stopping.is_set():
                why = words(error) if isinstance(error, OSError) else str(error)
                log.warning("%s: its rotated files stay uncompressed for now: %s", self.live, why)
            self._failed = True


def pack(path: Path, stopping: threading.Event) -> None:
    """Compress a rotated file, and delete it; leave nothing half done behind. Raise OSError where there is no room for it."""
    beside = path.with_name(f".{packed_path(path).name}{PART}")
    try:
        if _packed(path, beside, stopping) and path.exists():  # it may have been deleted meanwhile, as one too many
            os.replace(beside, packed_path(path))
            sync_folder(path.parent)
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return
    finally:
        with suppress(OSError):
            beside.unlink()


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


def _is_part(live: Path, path: Path) -> bool:
    return number_of(live, path.with_name(path.name.removeprefix(".").removesuffix(PART))) is not None


def _mend(path: Path) -> None:
    """A power cut may have torn a file that was rotated without being synchronised."""
    with suppress(SettingError), path.open("r+b") as file:
        whole, _ = torn_tail(file.fileno(), path)
        if whole < os.fstat(file.fileno()).st_size:
            file.truncate(whole)
            log.warning("%s: its last line was torn, and was cut off", path)
