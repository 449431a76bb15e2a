"""Store and forward: in order, without a hole, whatever happens when."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from edge_runner.errors import OutputError, SettingError
from edge_runner.output import outbox as module
from edge_runner.output.outbox import MEMORY_BYTES, Outbox
from edge_runner.output.spool import FILE, Message, Spool

pytestmark = pytest.mark.arm

MANY = 10**6


def message(number: int, size: int = 10) -> Message:
    return Message("results", f"{number} ".encode().ljust(size, b"x"))


def numbers(messages: list[Message]) -> list[int]:
    return [int(one.payload.split()[0]) for one in messages]


class Disk(Spool):
    """A spool whose disk can be full: `fails` says why."""

    fails: str | None = None

    def _transaction(self):  # type: ignore[no-untyped-def]
        if self.fails:
            raise OutputError(f"{self.path}: {self.fails}", lost=0)
        return super()._transaction()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Outbox]]:
    made = []

    def opened(*, spool: bool = True, most: int = 10**7) -> Outbox:
        made.append(Outbox(Disk(tmp_path / "spool", most) if spool else None, "broker:1883"))
        made[-1].open()
        return made[-1]

    yield opened
    for outbox in made:
        outbox.close()


def crash(outbox: Outbox) -> None:
    """As a kill does it: what is in memory is gone."""
    assert outbox.spool
    outbox.spool.close()


class TestInMemory:
    def test_straight_through(self, make: Callable[..., Outbox], tmp_path: Path) -> None:
        """While the broker keeps up, results go out in order, and the disk is not written."""
        outbox = make()
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "spool").iterdir()}
        for n in range(100):
            outbox.put(message(n))
            [one] = outbox.take(10, MANY)
            assert numbers([one]) == [n]
            assert not outbox.unsent
            outbox.done(one)
            outbox.tidy()
        assert outbox.waiting == 0
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "spool").iterdir()} == before

    def test_again(self, make: Callable[..., Outbox]) -> None:
        """What was not acknowledged when the connection went is given again, before what came later."""
        outbox = make(spool=False)
        for n in range(6):
            outbox.put(message(n))
        sent = outbox.take(4, MANY)
        outbox.done(sent[1])
        outbox.again()
        assert numbers(outbox.take(9, MANY)) == [0, 2, 3, 4, 5]
        assert outbox.waiting == 5

    def test_a_few_at_a_time(self, make: Callable[..., Outbox]) -> None:
        """No more is given than is asked for, by number and by size, but one at least."""
        outbox = make(spool=False)
        for n in range(9):
            outbox.put(message(n, 1000))
        assert outbox.take(0, MANY) == []
        assert numbers(outbox.take(2, MANY)) == [0, 1]
        assert numbers(outbox.take(9, 2500)) == [2, 3, 4]
        assert numbers(outbox.take(9, 0)) == [5]

    def test_bounded(self, make: Callable[..., Outbox], caplog: pytest.LogCaptureFixture) -> None:
        """Without a spool, memory is bounded: the oldest go, counted, with one warning, and a number when it is over."""
        outbox = make(spool=False)
        for n in range(50):
            outbox.put(message(n, MEMORY_BYTES // 20))
        assert 30 <= outbox.lost <= 31
        left = outbox.take(MANY, MEMORY_BYTES * 2)
        assert numbers(left) == list(range(outbox.lost, 50))
        for one in left:
            outbox.done(one)
        outbox.tidy()
        outbox.tidy()
        assert [record.getMessage() for record in caplog.records] == [
            "broker:1883: there is no more room in memory for what waits; the oldest results are lost",
            f"broker:1883: nothing waits any more; {outbox.lost} results were lost",
        ]

    def test_closed(self, make: Callable[..., Outbox]) -> None:
        """What is in memory alone at the end is lost, and counted."""
        outbox = make(spool=False)
        for n in range(3):
            outbox.put(message(n))
        outbox.take(1, MANY)
        outbox.close()
        assert outbox.lost == 3


class TestOnDisk:
    def test_kept(self, make: Callable[..., Outbox]) -> None:
        """What is kept, sent or not, is there after a crash, in order."""
        outbox = make()
        for n in range(4):
            outbox.put(message(n))
        [first, _] = outbox.take(2, MANY)
        outbox.keep()
        assert outbox.exposed_since is None
        outbox.put(message(4))
        outbox.keep()
        outbox.done(first)
        outbox.tidy(at_once=True)
        crash(outbox)
        assert numbers(make().take(MANY, MANY)) == [1, 2, 3, 4]

    def test_what_is_sent_is_not_sent_twice(self, make: Callable[..., Outbox]) -> None:
        """What is being sent when it is kept is not given again on the same connection."""
        outbox = make()
        for n in range(4):
            outbox.put(message(n))
        outbox.take(2, MANY)
        outbox.keep()
        assert numbers(outbox.take(MANY, MANY)) == [2, 3]
        assert not outbox.unsent

    def test_back_to_memory(self, make: Callable[..., Outbox]) -> None:
        """As soon as all that is on disk was sent, results go straight through again, behind them."""
        outbox = make()
        outbox.put(message(0))
        outbox.keep()
        [stored] = outbox.take(9, MANY)
        outbox.put(message(1))
        [fresh] = outbox.take(9, MANY)
        assert (stored.row, fresh.row) == (1, 0)
        outbox.again()
        outbox.keep()
        assert numbers(outbox.take(9, MANY)) == [0, 1]

    def test_what_comes_waits_behind_the_backlog(self, make: Callable[..., Outbox]) -> None:
        """A new result does not overtake those on disk."""
        outbox = make()
        for n in range(4):
            outbox.put(message(n))
        outbox.keep()
        outbox.put(message(4))
        assert numbers(outbox.take(2, MANY)) == [0, 1]
        outbox.put(message(5))
        assert numbers(outbox.take(2, MANY)) == [2, 3]
        assert numbers(outbox.take(9, MANY)) == [4, 5]

    def test_deleted_in_batches(self, make: Callable[..., Outbox], monkeypatch: pytest.MonkeyPatch) -> None:
        """What was acknowledged is deleted many at a time, or after a while, and never sent again meanwhile."""
        monkeypatch.setattr(module, "DELETE_S", 3600)
        outbox = make()
        for n in range(120):
            outbox.put(message(n))
        outbox.keep()
        assert outbox.spool
        stored = []
        for one in outbox.take(MANY, MANY):
            outbox.done(one)
            outbox.tidy()
            stored.append(outbox.spool.count)
        assert sorted(set(stored)) == [20, 70, 120]
        outbox.again()
        assert outbox.take(MANY, MANY) == []
        monkeypatch.setattr(module, "DELETE_S", 0)
        outbox.put(message(120))
        outbox.keep()
        [last] = outbox.take(MANY, MANY)
        outbox._delete_at = None
        outbox.done(last)
        outbox.tidy()
        assert outbox.spool.count == 0

    def test_synced(self, make: Callable[..., Outbox], monkeypatch: pytest.MonkeyPatch) -> None:
        """A power cut takes what is younger than SYNC_S at most: then it is due, and done."""
        monkeypatch.setattr(module, "SYNC_S", 0.05)
        outbox = make()
        outbox.put(message(0))
        outbox.keep()
        assert outbox.spool
        assert outbox.spool.unsynced
        assert outbox.due is not None
        assert outbox.due <= time.monotonic() + 0.05
        time.sleep(0.06)
        outbox.tidy()
        assert not outbox.spool.unsynced
        assert outbox.due is None

    def test_full(self, make: Callable[..., Outbox], caplog: pytest.LogCaptureFixture) -> None:
        """A full spool loses the oldest, counted, with one warning, and a number when all the rest has gone out."""
        outbox = make(most=10**6)
        for n in range(1500):
            outbox.put(message(n, 1000))
            outbox.keep()
        lost = outbox.lost
        assert lost > 500
        first = outbox.take(10, MANY)
        assert numbers(first) == list(range(lost, lost + 10))
        for n in range(1500, 1600):
            outbox.put(message(n, 1000))
            outbox.keep()
        outbox.again()
        left = outbox.take(MANY, 10 * MANY)
        assert numbers(left)[:10] == numbers(first), "what is being sent does not go"
        assert numbers(left)[-1] == 1599
        for one in left:
            outbox.done(one)
        outbox.tidy(at_once=True)
        assert [record.getMessage() for record in caplog.records] == [
            "broker:1883: the spool has its 1,000,000 bytes; the oldest results are lost",
            f"broker:1883: nothing waits any more; {outbox.lost} results were lost",
        ]
        assert outbox.lost == 1600 - len(left)

    def test_too_large(self, make: Callable[..., Outbox], caplog: pytest.LogCaptureFixture) -> None:
        """A result that is far too large for the spool does not drive all others out."""
        outbox = make(most=10**6)
        outbox.put(message(0))
        outbox.put(message(1, 70_000))
        assert numbers(outbox.take(9, MANY)) == [0]
        assert outbox.lost == 1
        assert "a result has 70,007 bytes, 62,500 are allowed" in caplog.text


class TestDiskThatFails:
    def test_full_disk(
        self, make: Callable[..., Outbox], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """While the disk is full, results wait in memory and go out from there; then it is used again. One warning each way."""
        monkeypatch.setattr(module, "RETRY_S", 0.0)
        outbox = make()
        disk = outbox.spool
        assert isinstance(disk, Disk)
        outbox.put(message(0))
        outbox.keep()
        disk.fails = "database or disk is full"
        for n in range(1, 5):
            outbox.put(message(n))
            outbox.keep()
            outbox.tidy()
        sent = outbox.take(2, MANY) + outbox.take(2, MANY)
        assert numbers(sent) == [0, 1, 2, 3], "what is on disk can be read, and goes first"
        outbox.done(sent[0])
        outbox.done(sent[1])
        outbox.tidy(at_once=True)
        disk.fails = None
        outbox.tidy()
        assert disk.count == 3
        assert outbox.exposed_since is None
        crash(outbox)
        assert numbers(make().take(MANY, MANY)) == [2, 3, 4]
        assert [record.getMessage() for record in caplog.records] == [
            f"{disk.path}: database or disk is full; results wait in memory meanwhile, and it is tried again",
            f"{disk.path}: works again",
        ]

    def test_disk_that_comes_late(
        self, make: Callable[..., Outbox], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A spool that cannot be opened at the start is opened later: what an earlier start left there goes out then."""
        monkeypatch.setattr(module, "RETRY_S", 0.0)
        before = make()
        for n in range(3):
            before.put(message(n))
        before.keep()
        crash(before)
        (tmp_path / "spool" / FILE).rename(tmp_path / "away")
        (tmp_path / "spool" / FILE).mkdir()
        outbox = make()
        outbox.put(message(3))
        outbox.put(message(4))
        assert numbers(outbox.take(1, MANY)) == [3]
        outbox.keep()
        (tmp_path / "spool" / FILE).rmdir()
        (tmp_path / "away").rename(tmp_path / "spool" / FILE)
        outbox.tidy()
        assert outbox.exposed_since is None
        assert numbers(outbox.take(MANY, MANY)) == [0, 1, 2, 3, 4]

    def test_spool_of_another_process(self, make: Callable[..., Outbox], monkeypatch: pytest.MonkeyPatch) -> None:
        """Two daemons with one spool cannot be: the second is refused at its start."""
        monkeypatch.setattr("edge_runner.output.spool.BUSY_S", 0.1)
        make().put(message(0))
        with pytest.raises(SettingError, match="another edge-runner uses it"):
            make()

    def test_damaged(self, make: Callable[..., Outbox], monkeypatch: pytest.MonkeyPatch) -> None:
        """A spool that turns out to be damaged costs what was in it, and not what comes."""
        outbox = make()
        for n in range(5):
            outbox.put(message(n))
        outbox.keep()
        assert outbox.spool
        with monkeypatch.context() as patch:
            real = outbox.spool._query

            def torn(query: str, *values: int):  # type: ignore[no-untyped-def]
                patch.undo()
                raise sqlite3.DatabaseError("database disk image is malformed")

            patch.setattr(outbox.spool, "_query", torn)
            assert outbox.take(MANY, MANY) == []
            assert real
        assert outbox.lost == 5
        outbox.put(message(5))
        assert numbers(outbox.take(MANY, MANY)) == [5]
        outbox.keep()
        crash(outbox)
        assert numbers(make().take(MANY, MANY)) == [5]


@pytest.mark.parametrize("seed", range(20))
def test_no_hole(make: Callable[..., Outbox], seed: int) -> None:
    """Whatever is written, sent, acknowledged, cut off and killed in whatever order: of each start, what reached the broker has no
    hole, each connection is in order, and only what was in memory alone when it was killed is lost, always the newest."""
    chance = Random(seed)
    outbox = make()
    assert outbox.spool
    start, written = 0, [0]
    arrived: list[list[tuple[int, int]]] = [[]]  # by connection: start and number
    flying: list[Message] = []

    def put() -> None:
        outbox.put(Message(f"{start}", str(written[start]).encode()))
        written[start] += 1

    def send() -> None:
        for one in outbox.take(chance.randint(0, 5), chance.choice([1, MANY])):
            flying.append(one)
            arrived[-1].append((int(one.topic), int(one.payload)))

    def acknowledge() -> None:
        for _ in range(min(len(flying), chance.randint(0, 4))):
            outbox.done(flying.pop(0))

    def lose_connection() -> None:
        lost = chance.randint(0, len(flying))  # these did not get there
        del arrived[-1][len(arrived[-1]) - lost :]
        arrived.append([])
        flying.clear()
        outbox.again()

    def kill() -> None:
        nonlocal outbox, start
        lose_connection()
        crash(outbox)
        outbox = make()
        start += 1
        written.append(0)

    deeds = [put] * 8 + [send] * 6 + [acknowledge] * 5 + [lambda: outbox.keep()] * 3  # noqa: PLW0108 (it is another one after a kill)
    deeds += [lambda: outbox.tidy(at_once=chance.random() < 0.5)] * 2 + [lose_connection] + [kill] * (seed % 2)
    for _ in range(600):
        chance.choice(deeds)()
    lose_connection()
    while outbox.unsent:
        send()
    for connection in arrived:
        assert connection == sorted(connection), "in order"
    for each in range(start + 1):
        got = {number for connection in arrived for begun, number in connection if begun == each}
        assert got == set(range(len(got))), "no hole"
    assert len(got) == written[start], "nothing is lost where nothing is killed"
