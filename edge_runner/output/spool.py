"""Results on disk until the broker has them: a bounded queue in one SQLite file, made for memory cards and for power cuts."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from edge_runner.errors import OutputError, SettingError
from edge_runner.output.disk import words
from edge_runner.output.topics import WILDCARDS

FILE = "spool.sqlite"
DAMAGED = "spool.damaged.sqlite"
ENDINGS = ("", "-wal")

VERSION = 1  # of the table, kept in the file's user_version
TABLE = "messages (row INTEGER PRIMARY KEY, topic TEXT, payload BLOB)"
PAGE_BYTES = 512  # every commit writes whole pages: with 4096 a result costs the card three times as much
LOG_BYTES = 1 << 20  # of the write-ahead log, before its pages go into the file
PART_BYTES = 1 << 18  # of one transaction
LARGEST_PART = 16  # a message may be as large as this part of the spool
DROP_ROWS = 16  # so many of the oldest go at once
SHRINK_BYTES = 1 << 20  # an empty spool whose file is larger gives the space back
BUSY_S = 5.0  # an old process that is just about to end keeps the file so long
TOPIC_BYTES = 65_535  # MQTT has two bytes for its length

FAILURES = (sqlite3.Error, UnicodeDecodeError)  # the latter where SQLite quotes a damaged name in its words
ACCIDENTS = (
    sqlite3.OperationalError,
    sqlite3.ProgrammingError,
)  # a full disk, say; whatever else fails tells of damage,
STRANGE = "unsupported file format"  # and so does this

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Message:
    """One result on its way, `since` when (time.monotonic's seconds). `row` is its place in the spool, 0 while it has none."""

    topic: str
    payload: bytes
    row: int = 0
    since: float = field(default_factory=time.monotonic)

    @property
    def bytes(self) -> int:
        return len(self.topic.encode()) + len(self.payload)


class Spool:
    """Messages in the order in which they came, in `folder`, which is never larger than `most_bytes`.

    What was appended survives a kill at once, and a power cut once it is synced; of what came later the beginning is kept, never
    the end without the beginning. It may be used by one thread at a time. Each method raises OutputError where the disk does not
    let it, and DamagedError where a damaged file was put aside and a new one begun: then it may be called again. What is lost by
    that is in `lost`, never in the error.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder = folder
        self.path = folder / FILE
        self.most_bytes = most_bytes
        self.lost = 0
        """Messages that had to go: the oldest where there was no room, and what a card has spoilt or somebody removed."""
        self.count = 0
        """Messages in it; after a start a few more, where some in the middle are gone."""
        self.last = 0
        """The highest row that was ever given."""
        self.unsynced = False
        self._log_bytes = min(LOG_BYTES, most_bytes // 8)
        self.largest = most_bytes // LARGEST_PART
        """The bytes that one message may have, and those that are exempt from going because they are being sent."""
        self._part = min(PART_BYTES, self.largest)
        self._most_pages = (most_bytes - self._log_bytes - 2 * self.largest) // PAGE_BYTES
        self._database: sqlite3.Connection | None = None
        self._spoilt = False  # it was said since it was opened

    @property
    def is_open(self) -> bool:
        return self._database is not None

    def verify(self) -> None:
        """Raise SettingError where the folder cannot be written, or made; write nothing."""
        place = next(path for path in (self.folder, *self.folder.parents) if os.path.lexists(path))
        if not os.path.isdir(place):
            raise SettingError(f"{self.folder}: {place} is no folder; name another", key="spool")
        if not os.access(place, os.W_OK | os.X_OK) and not _read_only(place):
            raise SettingError(
                f"{self.folder}: {place} cannot be written by this user; name another, or chown it", key="spool"
            )

    def open(self) -> None:
        """Raise SettingError where another process has it.

        Where it is larger than is allowed by now, the oldest go, and their space is given back if the disk has room to do so.
        """
        if self._database is not None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.folder}: {words(error)}", lost=0) from error
        try:
            self._connect()
        except DamagedError:
            self._begin_anew()

    def append(self, messages: Sequence[Message], after: int) -> None:
        """Write them behind all others, and give each its row. Where there is no room, the oldest behind row `after` go.

        Where it raises, those at the beginning that have a row are written.
        """
        for part in _parts(messages, self._part):
            with self._mending():
                self._append(part, after)

    def read(self, after: int, most: int, most_bytes: int) -> list[Message]:
        """The next messages behind row `after`, in order; at least one where there is one.

        SQLite has no checksums: what cannot be a message, because a worn card has turned bits in it, goes.
        """
        found: list[Message] = []
        spoilt: list[int] = []
        with (
            self._mending(),
            self._query("SELECT row, topic, payload FROM messages WHERE row > ? ORDER BY row", after) as rows,
        ):
            for row in rows:
                message = _message(*row)
                if message is None:
                    spoilt.append(row[0])
                    continue
                found.append(message)
                most_bytes -= message.bytes
                if len(found) >= most or most_bytes <= 0:
                    break
        if spoilt:
            self._drop(spoilt)
        return found

    def delete(self, rows: Collection[int]) -> int:
        """Return how many of them there were."""
        with self._mending():
            with self._transaction() as database:
                gone = database.executemany(
                    "DELETE FROM messages WHERE row = ?", [(row,) for row in sorted(rows)]
                ).rowcount
            self.count -= gone
            if not self._lowest():
                self.count = 0
                if self._file_pages * PAGE_BYTES > SHRINK_BYTES:
                    self._shrink()
        return gone

    def sync(self) -> None:
        """From here on, what was appended survives a power cut. It may take the card a second or more.

        Where somebody has removed the file, what was in it is lost, and `open` begins a new one.
        """
        if not self.unsynced:
            return
        try:
            file = os.open(f"{self.path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(file)
            finally:
                os.close(file)
            os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._removed() from error
        except OSError as error:
            raise OutputError(f"{self.path}: {words(error)}", lost=0) from error
        self.unsynced = False

    def close(self) -> None:
        """Let go of the file. What is not synced yet goes to the disk with it."""
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _connect(self) -> None:
        """Raise OutputError, SettingError or DamagedError."""
        try:
            self._database = sqlite3.connect(
                self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=16
            )
            self._database.text_factory = bytes
            self._spoilt = False
            self._prepare(self._database)
            self._fit()
        except FAILURES as error:
            self.close()
            if "locked" in str(error):
                raise SettingError(
                    f"{self.path}: another edge-runner uses it; give each its own folder", key="spool"
                ) from error
            raise self._explained(error) from error

    def _prepare(self, database: sqlite3.Connection) -> None:
        for setting in (
            f"page_size = {PAGE_BYTES}",
            "locking_mode = EXCLUSIVE",
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "secure_delete = OFF",  # Debian wipes what is deleted, which is written as well
            f"wal_autocheckpoint = {self._log_bytes // PAGE_BYTES}",
            f"journal_size_limit = {self._log_bytes}",
        ):
            database.execute(f"PRAGMA {setting}").fetchall()
        database.execute("BEGIN IMMEDIATE")
        version = self._number("PRAGMA user_version")
        if version == 0:
            database.execute(f"CREATE TABLE IF NOT EXISTS {TABLE}")
            database.execute(f"PRAGMA user_version = {VERSION}")
        elif version != VERSION:
            raise sqlite3.DatabaseError(f"its version is {version}, not {VERSION}")
        if not self._number(f"SELECT count(*) FROM sqlite_master WHERE sql = 'CREATE TABLE {TABLE}'"):
            raise sqlite3.DatabaseError("its table is another one")
        highest = self._number("SELECT max(row) FROM messages")
        self.count = highest - self._lowest() + 1 if highest else 0
        self.last = max(self.last, highest)
        database.execute("COMMIT")

    def _append(self, messages: Sequence[Message], after: int) -> None:
        with self._transaction() as database:
            dropped = self._make_room(sum(map(_pages, messages)), after)
            rows = range(self.last + 1, self.last + 1 + len(messages))
            database.executemany(
                "INSERT INTO messages VALUES (?, ?, ?)",
                [(row, m.topic, m.payload) for row, m in zip(rows, messages, strict=True)],
            )
        for row, message in zip(rows, messages, strict=True):
            message.row = row
        self.last += len(messages)
        self.count += len(messages) - dropped
        self.lost += dropped
        self.unsynced = True

    def _make_room(self, pages: int, after: int) -> int:
        """Delete the oldest behind row `after` until there is room for so many pages; return how many went."""
        assert self._database
        dropped = 0
        while self._file_pages - self._number("PRAGMA freelist_count") + pages > self._most_pages:
            gone = self._database.execute(
                "DELETE FROM messages WHERE row IN (SELECT row FROM messages WHERE row > ? ORDER BY row LIMIT ?)",
                (after, DROP_ROWS),
            ).rowcount
            if not gone:
                break
            dropped += gone
        return dropped

    def _drop(self, spoilt: Sequence[int]) -> None:
        """Say it once. Where the disk does not let them go, they stay, and are in nobody's way."""
        try:
            gone = self.delete(spoilt)
        except DamagedError:
            raise
        except OutputError:
            return
        self.lost += gone
        if gone and not self._spoilt:
            self._spoilt = True
            log.warning("%s: the disk has spoilt results in it, which are lost", self.path)

    def _fit(self) -> None:
        """Bring a file from a time when more was allowed down to size; where the disk has no room to do so, the next time."""
        if self._file_pages <= (self.most_bytes - self._log_bytes) // PAGE_BYTES:
            return
        with suppress(sqlite3.OperationalError):
            with self._transaction():
                dropped = self._make_room(0, after=0)
            self.count -= dropped
            self.lost += dropped
            if dropped:
                log.warning(
                    "%s: only %s bytes are allowed now; the %d oldest results are lost",
                    self.path, f"{self.most_bytes:,}", dropped,
                )  # fmt: skip
            self._shrink()

    def _shrink(self) -> None:
        """Give back the space of what is gone, if the disk has room to do so."""
        assert self._database
        with suppress(sqlite3.OperationalError):
            self._database.execute("VACUUM")
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @property
    def _file_pages(self) -> int:
        return self._number("PRAGMA page_count")

    def _lowest(self) -> int:
        return self._number("SELECT min(row) FROM messages")

    def _number(self, query: str) -> int:
        with self._query(query) as rows:
            return next(rows)[0] or 0

    @contextmanager
    def _query(self, query: str, *values: int) -> Iterator[sqlite3.Cursor]:
        """Rows of a query that is over when the block is: one that is open keeps the log from being emptied."""
        if self._database is None:
            raise OutputError(f"{self.path}: it is not open", lost=0)
        cursor = self._database.execute(query, values)
        try:
            yield cursor
        finally:
            cursor.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self._database is None:
            raise OutputError(f"{self.path}: it is not open", lost=0)
        database = self._database
        database.execute("BEGIN IMMEDIATE")
        try:
            yield database
            database.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                if database.in_transaction:
                    database.execute("ROLLBACK")
            raise

    @contextmanager
    def _mending(self) -> Iterator[None]:
        """Put a damaged file aside, and begin a new one."""
        try:
            yield
        except FAILURES as error:
            explained = self._explained(error)
            if isinstance(explained, DamagedError):
                self.close()
                try:
                    self._begin_anew()
                except SettingError as taken:  # by another process, in this moment
                    raise OutputError(str(taken), lost=0) from taken
            raise explained from error

    def _begin_anew(self) -> None:
        self._put_aside()
        self._connect()

    def _explained(self, error: Exception) -> OutputError:
        text = str(error)
        damaged = not isinstance(error, ACCIDENTS) or STRANGE in text
        return (DamagedError if damaged else OutputError)(f"{self.path}: {text}", lost=0)

    def _put_aside(self) -> None:
        """What is in it is lost, but for whoever wants to look. An earlier damaged file goes."""
        try:
            for ending in ENDINGS:
                with suppress(FileNotFoundError):
                    os.unlink(f"{self.folder / DAMAGED}{ending}")
                with suppress(FileNotFoundError):
                    os.replace(f"{self.path}{ending}", f"{self.folder / DAMAGED}{ending}")
        except OSError as error:
            raise OutputError(f"{self.path} is damaged, and cannot be put aside: {words(error)}", lost=0) from error
        log.warning(
            "%s is damaged and was put aside as %s; %s results in it are lost", self.path, DAMAGED, self.count or "the"
        )
        self._lose_all()

    def _removed(self) -> OutputError:
        """Let go of a file that is not there any more."""
        self.close()
        if os.path.lexists(self.path):  # and whole: closing it has put the log into it
            return OutputError(f"{self.path}-wal: somebody has removed it", lost=0)
        return OutputError(f"{self.path}: somebody has removed it; {self._lose_all()} results in it are lost", lost=0)

    def _lose_all(self) -> int:
        lost, self.count = self.count, 0
        self.lost += lost
        return lost


class DamagedError(OutputError):
    """The file is no spool, or not whole."""


def _message(row: int, topic: object, payload: object) -> Message | None:
    """None where nobody wrote it like this: no broker would take it, and some hang up."""
    if not isinstance(topic, bytes) or not isinstance(payload, bytes) or not 0 < len(topic) <= TOPIC_BYTES:
        return None
    try:
        text = topic.decode()
    except UnicodeDecodeError:
        return None
    return None if WILDCARDS.search(text) else Message(text, payload, row)


def _parts(messages: Sequence[Message], most_bytes: int) -> Iterator[list[Message]]:
    """In order, each small enough for one transaction."""
    part: list[Message] = []
    size = 0
    for message in messages:
        if part and size + message.bytes > most_bytes:
            yield part
            part, size = [], 0
        part.append(message)
        size += message.bytes
    if part:
        yield part


def _read_only(place: Path) -> bool:
    """Whether its whole file system is, which may pass."""
    return bool(os.statvfs(place).f_flag & os.ST_RDONLY)


def _pages(message: Message) -> int:
    """So many pages a message takes at most."""
    return message.bytes // (PAGE_BYTES - 8) + 3
