"""Store and forward: results that the broker does not have yet, in memory while it keeps up, on disk while it does not."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from edge_runner.errors import OutputError, SettingError
from edge_runner.output.spool import DamagedError, Message, Spool

MEMORY_BYTES = 4 << 20  # where there is no spool, or its disk is full
DELETE_COUNT = 50  # so many that were acknowledged are deleted at once,
DELETE_S = 2.0  # or those of so long
SYNC_S = 5.0  # what a power cut may take
RETRY_S = 5.0  # with a disk that failed

log = logging.getLogger(__name__)


class Outbox:
    """Messages in the order in which they came: the older in the spool, the newer in memory.

    Nothing is in the spool while something before it is in memory alone: whatever dies when, what is left on disk joins up with
    what was sent. Without a spool, all are in memory. `where` names it in warnings.
    """

    def __init__(self, spool: Spool | None, where: str) -> None:
        self.spool = spool
        self.where = where
        self._fresh: deque[Message] = deque()  # in memory alone, not sent since `again`
        self._sent: dict[Message, None] = {}  # in memory alone, sent or passed over, in order
        self._passed: dict[Message, None] = {}  # those of them that were passed over
        self._bytes = 0  # of both
        self._cursor = 0  # the last row that was sent since `again`
        self._done: set[int] = set()  # rows that are acknowledged, and still to be deleted
        self._delete_at: float | None = None
        self._sync_at: float | None = None
        self._retry_at: float | None = None  # while the disk fails
        self._lost = 0
        self._kept = 0  # `lost` when it was last said that nothing is lost any more
        self._losing = False
        self._said_large = False

    @property
    def lost(self) -> int:
        """Messages that had to go."""
        return self._lost + (self.spool.lost if self.spool else 0)

    @property
    def waiting(self) -> int:
        """Messages that are not acknowledged; just after a start perhaps a few less."""
        return max(0, self._stored - len(self._done)) + len(self._sent) + len(self._fresh)

    @property
    def unsent(self) -> bool:
        """Whether `take` may have something to give."""
        return self._backlog or bool(self._fresh)

    @property
    def exposed_since(self) -> float | None:
        """Since when the oldest message that is in memory alone, and could be kept, is there (time.monotonic's seconds)."""
        if self.spool is None or self._retry_at is not None:
            return None
        oldest = next(iter(self._sent), self._fresh[0] if self._fresh else None)
        return oldest.since if oldest else None

    @property
    def crowded(self) -> bool:
        """Whether there is much in memory."""
        return self._bytes > MEMORY_BYTES // 4

    @property
    def due(self) -> float | None:
        """When `tidy` has something to do, in time.monotonic's seconds."""
        times = [at for at in (self._delete_at, self._sync_at) if at is not None]
        return self._retry_at if self._retry_at is not None else min(times, default=None)

    def open(self) -> None:
        """Raise SettingError where the spool is another process's. A disk that fails is tried again."""
        if self.spool:
            try:
                self.spool.open()
            except OutputError as error:
                self._disk_fails(error)

    def put(self, message: Message) -> None:
        """Behind all others. Where there is no room, the oldest that is not being sent goes."""
        largest = self.spool.largest if self.spool else MEMORY_BYTES
        if message.bytes > largest:
            self._lost += 1
            if not self._said_large:
                self._said_large = True
                sizes = f"{message.bytes:,} bytes, {largest:,} are allowed"
                log.warning("%s: a result has %s; such results are lost", self.where, sizes)
            return
        self._fresh.append(message)
        self._bytes += message.bytes
        while self._bytes > MEMORY_BYTES and (oldest := self._idle()):
            self._bytes -= oldest.bytes
            self._lose(1, "there is no more room in memory for what waits; the oldest results are lost")

    def take(self, most: int, most_bytes: int) -> list[Message]:
        """The next messages to be sent, in order; at least one where there is one and `most` allows it."""
        taken: list[Message] = []
        while self._backlog and not taken and most > 0:
            taken = self._take_stored(most, most_bytes)
        while self._fresh and not self._backlog and len(taken) < most and (most_bytes > 0 or not taken):
            message = self._fresh.popleft()
            most_bytes -= message.bytes
            self._sent[message] = None
            taken.append(message)
        return taken

    def pass_over(self, message: Message) -> None:
        """It was taken, but is not to be sent until `again`."""
        if message in self._sent:
            self._passed[message] = None

    def done(self, message: Message) -> None:
        """It was acknowledged."""
        self._passed.pop(message, None)
        if message in self._sent:
            del self._sent[message]
            self._bytes -= message.bytes
        elif message.row:
            self._done.add(message.row)
            if self._delete_at is None:
                self._delete_at = time.monotonic() + DELETE_S

    def again(self) -> None:
        """Whatever is not acknowledged is to be sent again: the connection has gone, or nothing is on its way."""
        self._fresh = deque([*self._sent, *self._fresh])
        self._sent, self._passed = {}, {}
        self._cursor = 0

    def keep(self) -> None:
        """Put what is in memory alone into the spool, as far as the disk lets us."""
        if self.exposed_since is not None:
            self._with_disk(self._append)

    def tidy(self, *, at_once: bool = False) -> None:
        """Do what is due, or all of it `at_once`: delete what was acknowledged, sync, try a disk again that failed."""
        now = time.monotonic()
        if self._retry_at is not None and (at_once or now >= self._retry_at):
            self._with_disk(self._try_again)
        if self.spool and self._retry_at is None:
            if self._done and (at_once or len(self._done) >= DELETE_COUNT or now >= (self._delete_at or now)):
                self._with_disk(self._delete)
            if self._sync_at is not None and (at_once or now >= self._sync_at):
                self._with_disk(self._sync)
        if self._losing and not self.waiting:
            log.warning("%s: nothing waits any more; %d results were lost", self.where, self.lost - self._kept)
            self._losing, self._kept = False, self.lost

    def close(self) -> None:
        """What is in memory alone is lost."""
        self._lost += len(self._sent) + len(self._fresh)
        self._sent, self._passed, self._fresh, self._bytes = {}, {}, deque(), 0
        if self.spool:
            self.spool.close()
        self._cursor, self._done = 0, set()
        self._delete_at = self._sync_at = self._retry_at = None

    @property
    def _stored(self) -> int:
        return self.spool.count if self.spool and self.spool.is_open else 0

    @property
    def _backlog(self) -> bool:
        """Whether the spool has rows behind the cursor."""
        return bool(self._stored and self.spool and self.spool.last > self._cursor)

    def _take_stored(self, most: int, most_bytes: int) -> list[Message]:
        assert self.spool
        try:
            found = self.spool.read(self._cursor, most, most_bytes)
        except (OutputError, SettingError) as error:  # damaged, or not even to be read: what comes shall go on
            self._unreadable(error)
            return []
        self._cursor = found[-1].row if found else self.spool.last
        return [message for message in found if message.row not in self._done]

    def _unreadable(self, error: Exception) -> None:
        assert self.spool
        if not isinstance(error, DamagedError):
            self.spool.close()
            self._disk_fails(error)

    def _idle(self) -> Message | None:
        """Take out the oldest in memory that is not being sent, and not the newest."""
        if oldest := next(iter(self._passed), None):
            del self._passed[oldest], self._sent[oldest]
            return oldest
        return self._fresh.popleft() if len(self._fresh) > 1 else None

    def _append(self) -> None:
        assert self.spool
        lost, joins = self.spool.lost, not self._backlog
        try:
            self.spool.append([*self._sent, *self._fresh], after=self._cursor)
        finally:
            stored = [message for message in self._sent if message.row]
            if stored and joins:  # they are being sent already
                self._cursor = stored[-1].row
            self._sent = {message: None for message in self._sent if not message.row}
            self._passed = {message: None for message in self._passed if not message.row}
            self._fresh = deque(message for message in self._fresh if not message.row)
            self._bytes = sum(message.bytes for message in (*self._sent, *self._fresh))
            if self._sync_at is None:
                self._sync_at = time.monotonic() + SYNC_S
        if self.spool.lost > lost:
            self._lose(0, f"the spool has its {self.spool.most_bytes:,} bytes; the oldest results are lost")

    def _delete(self) -> None:
        assert self.spool
        self.spool.delete(self._done)
        self._done, self._delete_at = set(), None

    def _sync(self) -> None:
        assert self.spool
        self._sync_at = None
        self.spool.sync()

    def _try_again(self) -> None:
        assert self.spool
        if not self.spool.is_open:
            self.spool.open()
            self._cursor = 0
        if self._sent or self._fresh:
            self._append()
        if self._done:
            self._delete()
        self._retry_at = None
        log.warning("%s: works again", self.spool.path)

    def _with_disk(self, deed: Callable[[], None]) -> None:
        try:
            try:
                deed()
            except DamagedError:  # there is a new file now
                deed()
        except (OutputError, SettingError) as error:
            self._disk_fails(error)

    def _disk_fails(self, error: Exception) -> None:
        if self._retry_at is None:
            log.warning("%s; results wait in memory meanwhile, and it is tried again", error)
        self._retry_at = time.monotonic() + RETRY_S

    def _lose(self, count: int, why: str) -> None:
        """Say it once, until nothing waits any more."""
        self._lost += count
        if not self._losing:
            self._losing = True
            log.warning("%s: %s", self.where, why)
