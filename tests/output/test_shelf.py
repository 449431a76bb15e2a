"""The rotated files of a log: kept, compressed, and found again after a kill."""

from __future__ import annotations

import gzip
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_runner.output import shelf
from edge_runner.output.rotated import family
from edge_runner.output.shelf import Shelf, pack

pytestmark = pytest.mark.arm

LINE = b'{"schema": 1, "seq": 1}\n'


@pytest.fixture
def live(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def wait_for(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


@pytest.mark.parametrize("when", ["before", "after"])
def test_too_many_while_it_is_compressed(live: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """A file that is one too many, and is deleted just as its compressed one takes its place, leaves neither."""
    (live.parent / "out.000001.jsonl").write_bytes(LINE)
    (live.parent / "out.000002.jsonl").write_bytes(LINE)
    listed, replaced = shelf._files(live), os.replace

    def replace(part: Path, place: Path) -> None:
        if when == "after":
            replaced(part, place)
        with monkeypatch.context() as patch:  # it was listed before
            patch.setattr(shelf, "_files", lambda _: listed)
            Shelf(live, 1, compress=False).settle()
        if when == "before":
            replaced(part, place)

    monkeypatch.setattr(os, "replace", replace)
    pack(live.parent / "out.000001.jsonl", threading.Event())
    assert names(live.parent) == ["out.000002.jsonl"]


def test_numbers_rise(live: Path) -> None:
    """The next number is above all that are there, and above those that were, while it is open."""
    subject = Shelf(live, 5, compress=False)
    for expected in ("out.000008.jsonl", "out.000009.jsonl"):
        (live.parent / "out.000007.jsonl.gz").touch()
        live.write_bytes(LINE)
        assert subject.put_away().name == expected
        for path in live.parent.iterdir():
            path.unlink()


def test_nothing_is_overwritten(live: Path) -> None:
    """Whatever has the name of a rotated file, a folder too, is left alone."""
    (live.parent / "out.000001.jsonl").mkdir()
    live.write_bytes(LINE)
    assert Shelf(live, 5, compress=False).put_away().name == "out.000002.jsonl"


def test_left_by_a_kill(live: Path) -> None:
    """Half a compressed file goes; of two of one number the compressed one stays; what is not compressed is, in the end."""
    folder = live.parent
    (folder / ".out.000004.jsonl.gz.part").write_bytes(b"half")
    (folder / ".other.000004.jsonl.gz.part").write_bytes(b"another log's")
    (folder / "out.000002.jsonl").write_bytes(LINE)
    (folder / "out.000002.jsonl.gz").write_bytes(gzip.compress(LINE * 2))
    (folder / "out.000003.jsonl").write_bytes(LINE * 3)
    subject = Shelf(live, 5, compress=True)
    subject.open()
    expected = [".other.000004.jsonl.gz.part", "out.000002.jsonl.gz", "out.000003.jsonl.gz"]
    wait_for(lambda: names(folder) == expected)
    subject.close()
    assert [gzip.decompress(path.read_bytes()) for path in family(live)] == [LINE * 2, LINE * 3]


def test_torn_before_it_was_put_away(live: Path) -> None:
    """What a power cut left of a rotated file is repaired like the live one, before it is compressed."""
    rotated = live.parent / "out.000001.jsonl"
    rotated.write_bytes(LINE + LINE[:9])
    subject = Shelf(live, 5, compress=True)
    subject.open()
    wait_for(lambda: names(live.parent) == ["out.000001.jsonl.gz"])
    subject.close()
    assert gzip.decompress((live.parent / "out.000001.jsonl.gz").read_bytes()) == LINE


def test_fewer_are_kept(live: Path) -> None:
    """A smaller `keep` holds from the start on; plain and compressed ones count alike."""
    for name in ("out.000001.jsonl.gz", "out.000002.jsonl", "out.000003.jsonl.gz", "out.000010.jsonl"):
        (live.parent / name).write_bytes(LINE)
    live.write_bytes(LINE)
    Shelf(live, 2, compress=False).open()
    assert names(live.parent) == ["out.000003.jsonl.gz", "out.000010.jsonl", "out.jsonl"]


def test_stopped(live: Path, monkeypatch: pytest.MonkeyPatch, nothing_left: None) -> None:
    """Closing does not wait for a large file: it stays as it was, and nothing half done is left."""
    rotated = live.parent / "out.000001.jsonl"
    rotated.write_bytes(os.urandom(1 << 20))
    asked = []

    class Stopping(threading.Event):
        def is_set(self) -> bool:
            asked.append(beside.stat().st_size)
            return len(asked) >= 3

    beside = live.parent / ".out.000001.jsonl.gz.part"
    pack(rotated, Stopping())
    assert len(asked) < 6
    assert max(asked) < 1 << 19
    assert names(live.parent) == ["out.000001.jsonl"]
    monkeypatch.setattr(shelf, "_mend", lambda path: None)
    subject = Shelf(live, 5, compress=True)
    subject.open()
    subject.close()
    subject.close()
    assert names(live.parent) in (["out.000001.jsonl"], ["out.000001.jsonl.gz"])


def test_thread(live: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressing has a thread of its own, with a name, which comes after everything else."""
    seen: list[tuple[str, int]] = []
    monkeypatch.setattr(shelf, "pack", lambda *_: seen.append((threading.current_thread().name, os.nice(0))))
    (live.parent / "out.000001.jsonl").write_bytes(LINE)
    subject = Shelf(live, 5, compress=True)
    subject.open()
    wait_for(lambda: bool(seen))
    subject.close()
    assert seen == [("compress-out.jsonl", 19)]
    assert os.nice(0) < 19


def test_deleted_meanwhile(live: Path) -> None:
    """A file that becomes one too many while it is compressed does not come back."""
    rotated = live.parent / "out.000001.jsonl"

    class Deleted(threading.Event):
        def is_set(self) -> bool:
            rotated.unlink(missing_ok=True)
            return False

    rotated.write_bytes(LINE)
    pack(rotated, Deleted())
    assert names(live.parent) == []


def test_no_room(live: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where there is no room for the compressed file, the plain one stays, with one warning, until there is."""
    full = threading.Event()
    full.set()
    whole = shelf._packed
    done = []

    def packed(*arguments: object) -> bool:
        done.append(fails := full.is_set())
        if fails:
            raise OSError(28, "No space left on device")
        return whole(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(shelf, "_packed", packed)
    (live.parent / "out.000001.jsonl").write_bytes(LINE)
    subject = Shelf(live, 5, compress=True)
    with caplog.at_level(logging.WARNING):
        for attempt in (1, 2):
            subject.settle()
            wait_for(lambda attempt=attempt: len(done) >= attempt)
        full.clear()
        assert names(live.parent) == ["out.000001.jsonl"]
        subject.settle()
        wait_for(lambda: names(live.parent) == ["out.000001.jsonl.gz"])
    subject.close()
    assert [record.getMessage() for record in caplog.records] == [
        f"{live.parent / 'out.000001.jsonl'} stays uncompressed for now: no space left on device"
    ]


def test_link(live: Path) -> None:
    """Where the log is a link, its target is put away, and compressed, beside itself; the link stays."""
    target = live.parent / "usb" / "door.jsonl"
    target.parent.mkdir()
    live.symlink_to(target)
    (target.parent / ".door.000007.jsonl.gz.part").write_bytes(b"half")
    subject = Shelf(live, 5, compress=True)
    subject.open()
    target.write_bytes(LINE)
    assert subject.put_away() == target.parent / "door.000001.jsonl"
    subject.settle()
    wait_for(lambda: names(target.parent) == ["door.000001.jsonl.gz"])
    subject.close()
    assert (names(live.parent), live.is_symlink()) == (["out.jsonl", "usb"], True)


def test_order_of_synchronising(live: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compressed file is on the disk before it gets its name, and its name is before the plain one goes."""
    rotated = live.parent / "out.000001.jsonl"
    rotated.write_bytes(LINE)
    synced = []

    def fsync(file: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
        whole = path.is_dir() or gzip.decompress(path.read_bytes()) == LINE
        synced.append((path, whole, names(live.parent)))

    monkeypatch.setattr(os, "fsync", fsync)
    pack(rotated, threading.Event())
    part = ".out.000001.jsonl.gz.part"
    assert synced == [
        (live.parent / part, True, [part, "out.000001.jsonl"]),
        (live.parent, True, ["out.000001.jsonl", "out.000001.jsonl.gz"]),
    ]
    assert names(live.parent) == ["out.000001.jsonl.gz"]


class TestStubborn:
    """One file that cannot be deleted holds up no other."""

    @pytest.fixture
    def stuck(self, live: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
        """Names of files that cannot be deleted, as with `chattr +i`."""
        names = {"out.000001.jsonl"}
        unlink = Path.unlink

        def refuse(path: Path, missing_ok: bool = False) -> None:
            if path.name in names:
                raise PermissionError(1, "Operation not permitted")
            unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(Path, "unlink", refuse)
        (live.parent / "out.000001.jsonl").write_bytes(LINE)
        return names

    def rotates(self, subject: Shelf, *numbers: int) -> None:
        for number in numbers:
            subject.live.write_bytes(LINE * number)
            subject.put_away()
            subject.settle()

    def test_deleting(self, live: Path, stuck: set[str], caplog: pytest.LogCaptureFixture) -> None:
        """The others are deleted as they should, with one warning, and another when it happens anew."""
        subject = Shelf(live, 2, compress=False)
        subject.open()
        for again in range(2):
            self.rotates(subject, 2, 3, 4, 5)
            last = 5 + 5 * again
            assert names(live.parent) == [f"out.{n:06}.jsonl" for n in (1, last - 1, last)]
            stuck.clear()
            self.rotates(subject, 6)
            stuck.add("out.000001.jsonl")
            (live.parent / "out.000001.jsonl").write_bytes(LINE)
        told = f"{live.parent / 'out.000001.jsonl'} cannot be deleted: operation not permitted"
        assert [record.getMessage() for record in caplog.records] == [told] * 2

    def test_compressing(self, live: Path, stuck: set[str], caplog: pytest.LogCaptureFixture) -> None:
        """The others are compressed, and that one is not compressed over and over again; one warning says so."""
        subject = Shelf(live, 5, compress=True)
        subject.open()
        for number in (2, 3, 4):
            self.rotates(subject, number)
            wait_for(lambda number=number: (live.parent / f"out.{number:06}.jsonl.gz").exists())
        inode = (live.parent / "out.000001.jsonl.gz").stat().st_ino
        subject.close()
        again = Shelf(live, 5, compress=True)
        self.rotates(again, 5)
        wait_for((live.parent / "out.000005.jsonl.gz").exists)
        again.close()
        assert (live.parent / "out.000001.jsonl.gz").stat().st_ino == inode
        told = f"{live.parent / 'out.000001.jsonl'} stays uncompressed: operation not permitted"
        assert [record.getMessage() for record in caplog.records] == [told] * 2

    def test_at_the_start(self, live: Path, stuck: set[str], caplog: pytest.LogCaptureFixture) -> None:
        """What an earlier start left is seen to all the same."""
        folder = live.parent
        (folder / "out.000001.jsonl.gz").write_bytes(gzip.compress(LINE))
        (folder / "out.000002.jsonl").write_bytes(LINE + LINE[:9])
        (folder / ".out.000003.jsonl.gz.part").mkdir()
        (folder / ".out.000004.jsonl.gz.part").write_bytes(b"half")
        Shelf(live, 1, compress=False).open()
        assert names(folder) == [".out.000003.jsonl.gz.part", "out.000001.jsonl", "out.000002.jsonl"]
        assert (folder / "out.000002.jsonl").read_bytes() == LINE
        assert "out.000001.jsonl cannot be deleted: operation not permitted" in caplog.text

    def test_folder(self, live: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A folder that has a rotated file's name is none of ours: it is neither deleted, nor counted, nor told of."""
        (live.parent / "out.000000.jsonl").mkdir()
        (live.parent / "out.900000.jsonl").mkdir()
        subject = Shelf(live, 2, compress=True)
        subject.open()
        self.rotates(subject, 1, 2, 3)
        expected = ["out.000000.jsonl", "out.900000.jsonl", "out.900002.jsonl.gz", "out.900003.jsonl.gz"]
        wait_for(lambda: names(live.parent) == expected)
        subject.close()
        assert not caplog.records
