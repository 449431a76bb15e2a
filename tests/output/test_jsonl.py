"""Results as JSON lines in a file: what is written when, and what that can cost."""

from __future__ import annotations

import errno
import gzip
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_runner.config import load
from edge_runner.errors import ConfigError, OutputError, SettingError
from edge_runner.output import budget, jsonl, logfile
from edge_runner.output.base import Item, Origin
from edge_runner.output.jsonl import GATHERED_BYTES, JsonLines, JsonLinesConfig
from edge_runner.output.rotated import family
from edge_runner.result import Result

pytestmark = pytest.mark.arm

Make = Callable[..., Result]
NOON_NS = 1795348800 * 10**9  # 2026-11-22 12:00 UTC


class Clock:
    """Time as the tests want it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.wall = NOON_NS / 1e9

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.wall

    def sleep(self, seconds: float) -> None:
        self.passes(seconds)

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (jsonl, logfile):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(budget, "utc_day", lambda: time.strftime("%Y-%m-%d", time.gmtime(clock.wall)))
    return clock


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What each file held whenever it was synchronised."""
    seen: list[bytes] = []
    monkeypatch.setattr(logfile, "_sync", lambda file: seen.append(os.pread(file, 1 << 20, 0)))
    return seen


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """The names of the files and folders that were synchronised, in order, each with what lay beside it then, or in it."""
    seen: list[tuple[str, list[str]]] = []

    def sync(file: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
        seen.append((path.name, sorted(os.listdir(path if path.is_dir() else path.parent))))

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(logfile, "_sync", sync)
    return seen


def opened(path: Path, **config: Any) -> JsonLines:
    subject = JsonLines(JsonLinesConfig(path=path, **config))
    subject.open(Origin())
    return subject


def ended(subject: JsonLines) -> None:
    subject.finish(time.monotonic() + 5)
    subject.close()


def written(path: Path, *results: Result, **config: Any) -> JsonLines:
    subject = opened(path, **config)
    for result in results:
        subject.write(Item(result))
    ended(subject)
    return subject


def lines(*results: Result) -> bytes:
    return "".join(result.line() + "\n" for result in results).encode()


def seqs(*paths: Path) -> list[int]:
    """The numbers of the results in files, plain or compressed, one behind the other."""
    opens = [(gzip.open if path.name.endswith(".gz") else open)(path, "rt") for path in paths]
    found = []
    for file in opens:
        with file:
            found += [json.loads(line)["seq"] for line in file]
    return found


def test_a_line_each(tmp_path: Path, result: Make) -> None:
    """Each result is its JSON line, in UTF-8, and there as soon as it is written."""
    path = tmp_path / "out.jsonl"
    subject = opened(path)
    results = [result(("Käse", 0.5), seq=n) for n in range(1, 4)]
    for number, made in enumerate(results, 1):
        subject.write(Item(made))
        assert path.read_bytes() == lines(*results[:number])
    ended(subject)


def test_appended(tmp_path: Path, result: Make) -> None:
    """What a file holds stays; a new run goes on at its end. Folders are made as needed."""
    path = tmp_path / "a/b/out.jsonl"
    written(path, result(seq=1))
    written(path, result(seq=2))
    assert seqs(path) == [1, 2]


def test_open_and_close_twice(tmp_path: Path, result: Make, nothing_left: None) -> None:
    """Opening and closing can be repeated, and leave neither a descriptor nor a thread."""
    path = tmp_path / "out.jsonl"
    subject = JsonLines(JsonLinesConfig(path=path, rotate_size=1))
    for _ in range(2):
        subject.open(Origin())
        subject.open(Origin())
        subject.write(Item(result()))
        subject.write(Item(result()))
        subject.close()
        subject.close()
    assert len(family(path)) == 3


class TestFlush:
    def test_gathered(self, tmp_path: Path, result: Make, clock: Clock) -> None:
        """Lines wait in memory no longer than `flush` from the first of them on, and are written in one go."""
        path = tmp_path / "out.jsonl"
        subject = opened(path, flush=2.0, fsync="never")
        assert subject.due is None
        subject.write(Item(result(seq=1)))
        clock.passes(1.5)
        subject.write(Item(result(seq=2)))
        subject.tick()
        assert path.read_bytes() == b""
        assert subject.due == 1002.0
        clock.passes(0.5)
        subject.tick()
        assert seqs(path) == [1, 2]
        assert subject.due is None
        subject.close()

    def test_one_write(self, tmp_path: Path, result: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was gathered costs one call of the kernel, so one page is written once."""
        calls: list[int] = []
        write = os.write
        monkeypatch.setattr(os, "write", lambda file, data: calls.append(len(data)) or write(file, data))
        written(tmp_path / "out.jsonl", *[result(seq=n) for n in range(1, 51)], flush=10.0)
        assert calls == [len(lines(*[result(seq=n) for n in range(1, 51)]))]

    def test_many(self, tmp_path: Path, result: Make, clock: Clock) -> None:
        """However long `flush` is, no more than 64 KB wait."""
        path = tmp_path / "out.jsonl"
        subject = opened(path, flush=3600.0, fsync="never")
        count = GATHERED_BYTES // len(lines(result())) + 1
        for n in range(count - 1):
            subject.write(Item(result(seq=100 + n)))
        assert path.stat().st_size == 0
        subject.write(Item(result(seq=100 + count)))
        assert path.stat().st_size >= GATHERED_BYTES
        subject.close()

    def test_finish(self, tmp_path: Path, result: Make, clock: Clock, syncs: list[bytes]) -> None:
        """A stop that is announced loses nothing of what was gathered, nor does a power cut after it."""
        written(tmp_path / "out.jsonl", result(seq=1), result(seq=2), flush=3600.0, fsync="never")
        assert syncs == [lines(result(seq=1), result(seq=2))]

    def test_unannounced_close(self, tmp_path: Path, result: Make) -> None:
        """What a close without `finish` throws away is counted."""
        subject = opened(tmp_path / "out.jsonl", flush=3600.0)
        subject.write(Item(result()))
        subject.close()
        assert subject.lost == 1


class TestFsync:
    def test_each(self, tmp_path: Path, result: Make, syncs: list[bytes]) -> None:
        """With `each`, a line is on the disk before the next one comes, whatever `flush` says."""
        subject = opened(tmp_path / "out.jsonl", fsync="each", flush=3600.0)
        for n in (1, 2):
            subject.write(Item(result(seq=n)))
        assert syncs == [lines(result(seq=1)), lines(result(seq=1), result(seq=2))]
        subject.close()

    def test_after_a_while(self, tmp_path: Path, result: Make, clock: Clock, syncs: list[bytes]) -> None:
        """The disk has a line at most `fsync` after it came, and nothing is synchronised while nothing comes."""
        subject = opened(tmp_path / "out.jsonl", fsync=5.0)
        for second in range(12):
            subject.write(Item(result(seq=second)))
            if subject.due is not None and clock.now >= subject.due:
                subject.tick()
            clock.passes(1)
        assert [seen.count(b"\n") for seen in syncs] == [6, 12]
        assert subject.due is None
        subject.close()

    def test_before_flush(self, tmp_path: Path, result: Make, clock: Clock, syncs: list[bytes]) -> None:
        """A line that is still gathered when `fsync` is due is written first: the bound holds from when it came."""
        subject = opened(tmp_path / "out.jsonl", fsync=5.0, flush=60.0)
        subject.write(Item(result(seq=1)))
        assert subject.due == 1005.0
        clock.passes(5)
        subject.tick()
        assert syncs == [lines(result(seq=1))]
        subject.close()

    def test_together(self, tmp_path: Path, result: Make, clock: Clock, syncs: list[bytes]) -> None:
        """With both at the same length, each write is synchronised at once: neither costs more than that time."""
        subject = opened(tmp_path / "out.jsonl", fsync=10.0, flush=10.0)
        for _ in range(2):
            subject.write(Item(result()))
            clock.passes(10)
            subject.tick()
        assert [seen.count(b"\n") for seen in syncs] == [1, 2]
        subject.close()

    def test_never(self, tmp_path: Path, result: Make, clock: Clock, syncs: list[bytes]) -> None:
        """With `never`, it is left to the kernel until the end."""
        path = tmp_path / "out.jsonl"
        subject = opened(path, fsync="never", rotate_size=len(lines(result())), compress=False)
        for _ in range(3):
            subject.write(Item(result()))
            clock.passes(1000)
            subject.tick()
        assert syncs == []
        subject.close()

    def test_disk_error(self, tmp_path: Path, result: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        """A disk that cannot keep what it was given costs all lines since it last did; the next line may say that it is over."""
        path = tmp_path / "out.jsonl"
        subject = opened(path, fsync=5.0)
        for seq in (1, 2, 3):
            if seq == 2:
                subject.tick()
            subject.write(Item(result(seq=seq)))
            clock.passes(5)
        with monkeypatch.context() as broken:
            broken.setattr(logfile, "_sync", lambda file: fail(errno.EIO))
            with pytest.raises(OutputError) as caught:
                subject.tick()
            assert (caught.value.lost, subject.due) == (2, None)
            assert str(caught.value) == (
                f"{path}: input/output error; the last 2 lines may not be on the disk, and count as lost"
            )
            clock.passes(1)
            subject.write(Item(result(seq=4)))
            clock.passes(5)
            with pytest.raises(OutputError) as caught:
                subject.tick()
            assert caught.value.lost == 1
        clock.passes(1)
        subject.write(Item(result(seq=5)))
        assert seqs(path) == [1, 2, 3, 4, 5]
        ended(subject)


def fail(number: int) -> None:
    raise OSError(number, os.strerror(number))


class TestFullDisk:
    def test_no_room_at_all(self, result: Make) -> None:
        """A device without room refuses the line, in words."""
        subject = opened(Path("/dev/full"))
        with pytest.raises(OutputError, match="/dev/full: no space left on device"):
            subject.write(Item(result()))
        subject.close()

    def test_seldom_tried(self, result: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        """A disk that is full is tried once a second; the lines in between are lost without touching it."""
        tries = []
        write = os.write
        monkeypatch.setattr(os, "write", lambda file, data: tries.append(clock.now) or write(file, data))
        subject = opened(Path("/dev/full"))
        for _ in range(25):
            with pytest.raises(OutputError, match="no space left on device") as caught:
                subject.write(Item(result()))
            assert caught.value.lost == 1
            clock.passes(0.125)
        assert tries == [1000.0, 1001.0, 1002.0, 1003.0]
        assert subject.due is None
        subject.close()

    def test_room_for_some(self, tmp_path: Path, result: Make) -> None:
        """Of gathered lines those that fit whole stay, and the others are counted; later lines are whole."""
        path = tmp_path / "out.jsonl"
        size = len(lines(result()))
        script = textwrap.dedent(
            f"""
            import pickle, resource, signal, sys
            from pathlib import Path
            from edge_runner.errors import OutputError
            from edge_runner.output import jsonl
            from edge_runner.output.base import Item, Origin
            result = pickle.load(sys.stdin.buffer)
            jsonl.RETRY_S = 0
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            output = jsonl.JsonLines(jsonl.JsonLinesConfig(path=Path({str(path)!r}), flush=600.0))
            output.open(Origin())
            def write(count, limit):
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
                try:
                    for _ in range(count):
                        output.write(Item(result))
                    output.finish(0)
                except OutputError as error:
                    print(Path({str(path)!r}).stat().st_size, error.lost, error)
            write(5, {size * 2 + size // 2})
            write(1, {size * 2 + size // 2})
            write(1, resource.RLIM_INFINITY)
            """
        )
        done = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(result()), capture_output=True)
        assert done.returncode == 0, done.stderr
        why = f"{path}: file too large"
        assert done.stdout.decode().splitlines() == [f"{size * 2} 3 {why}", f"{size * 2} 1 {why}"]
        assert path.read_bytes() == lines(result()) * 3


class TestOtherHands:
    @pytest.mark.parametrize("deed", ["moved", "deleted", "replaced", "folder"])
    def test_taken_away(
        self, tmp_path: Path, result: Make, clock: Clock, caplog: pytest.LogCaptureFixture, deed: str
    ) -> None:
        """A file that somebody moves or deletes is noticed within a second, said once, and made anew."""
        folder = tmp_path / "logs"
        path = folder / "out.jsonl"
        subject = opened(path)
        subject.write(Item(result(seq=1)))
        if deed == "folder":
            folder.rename(tmp_path / "elsewhere")
        elif deed == "replaced":
            os.replace(path, folder / "old.jsonl")
            path.write_bytes(lines(result(seq=7)))
        else:
            path.rename(folder / "old.jsonl") if deed == "moved" else path.unlink()
        clock.passes(1)
        for seq in (2, 3):
            subject.write(Item(result(seq=seq)))
        assert seqs(path) == ([7, 2, 3] if deed == "replaced" else [2, 3])
        assert [record.getMessage() for record in caplog.records] == [
            f"{path}: it was moved or deleted; a new one is begun"
        ]
        if deed == "moved":
            assert seqs(folder / "old.jsonl") == [1]
        ended(subject)

    def test_gathered_lines_go_into_the_new_one(self, tmp_path: Path, result: Make, clock: Clock) -> None:
        """What was gathered when the file was deleted is not lost with it."""
        path = tmp_path / "out.jsonl"
        subject = opened(path, flush=60.0, fsync="never")
        subject.write(Item(result(seq=1)))
        path.unlink()
        clock.passes(1)
        subject.write(Item(result(seq=2)))
        assert seqs(path) == [1, 2]
        ended(subject)

    @pytest.mark.parametrize("end", ["tick", "finish"])
    def test_gathered_lines_wait_for_nothing_else(
        self, tmp_path: Path, result: Make, clock: Clock, syncs: list[bytes], end: str
    ) -> None:
        """The same where no further line comes: they are written, and synchronised, when they were due, and at a stop."""
        path = tmp_path / "out.jsonl"
        subject = opened(path, flush=3.0, fsync=5.0)
        subject.write(Item(result(seq=1)))
        path.unlink()
        if end == "tick":
            clock.passes(3)
            subject.tick()
            assert subject.due == 1005.0
            clock.passes(2)
            subject.tick()
        else:
            subject.finish(clock.now + 5)
        assert path.read_bytes() == syncs[-1] == lines(result(seq=1))
        subject.close()

    def test_synchronised_where_it_went(self, tmp_path: Path, result: Make, clock: Clock, syncs: list[bytes]) -> None:
        """A file that was moved is on the disk before a new one is begun: nobody would look after it later."""
        path = tmp_path / "out.jsonl"
        subject = opened(path, fsync=60.0)
        subject.write(Item(result(seq=1)))
        path.rename(tmp_path / "old.jsonl")
        clock.passes(1)
        subject.write(Item(result(seq=2)))
        assert syncs == [lines(result(seq=1))]
        subject.close()

    def test_gathered_lines_are_counted_where_there_is_no_new_one(
        self, tmp_path: Path, result: Make, clock: Clock
    ) -> None:
        """Where the file is gone and cannot be made anew, what was gathered for it is lost, and counted."""
        folder = tmp_path / "logs"
        path = folder / "out.jsonl"
        subject = opened(path, flush=60.0, fsync="never")
        subject.write(Item(result(seq=1)))
        folder.rename(tmp_path / "elsewhere")
        folder.write_text("a file")
        clock.passes(1)
        with pytest.raises(OutputError) as caught:
            subject.write(Item(result(seq=2)))
        assert (caught.value.lost, subject.due) == (2, None)
        folder.unlink()
        clock.passes(1)
        subject.write(Item(result(seq=3)))
        assert seqs(path) == [3]
        ended(subject)

    def test_replaced_just_before_it_is_rotated(self, tmp_path: Path, result: Make, clock: Clock) -> None:
        """What somebody put in its place is not put away, and goes on."""
        path = tmp_path / "out.jsonl"
        subject = opened(path, rotate_size=2 * len(lines(result())), compress=False)
        for seq in (101, 102):
            subject.write(Item(result(seq=seq)))
        path.unlink()
        path.write_bytes(lines(result(seq=107)))
        subject.write(Item(result(seq=103)))
        assert (family(path), seqs(path)) == ([], [107, 103])
        ended(subject)

    def test_one_writer(self, tmp_path: Path, result: Make, clock: Clock) -> None:
        """A file that another output writes is refused: each would rotate it under the other's hands."""
        path = tmp_path / "out.jsonl"
        subject = opened(path)
        with pytest.raises(SettingError, match=r"out\.jsonl: another process or output writes it") as caught:
            opened(path)
        assert caught.value.key == "path"
        subject.close()
        ended(opened(path))

    def test_truncated(self, tmp_path: Path, result: Make, clock: Clock) -> None:
        """A file that somebody empties goes on at its new start."""
        path = tmp_path / "out.jsonl"
        subject = opened(path, rotate_age=60.0)
        subject.write(Item(result(seq=1)))
        os.truncate(path, 0)
        clock.passes(100)
        subject.tick()
        assert subject.due is None or subject.due > clock.now
        subject.write(Item(result(seq=2)))
        assert seqs(path) == [2]
        ended(subject)


class TestTorn:
    def test_counted(self, tmp_path: Path, result: Make, caplog: pytest.LogCaptureFixture) -> None:
        """What a power cut left of a last line is taken away, with one warning, and counted for the end of the run."""
        path = tmp_path / "out.jsonl"
        path.write_bytes(lines(result(seq=1)) + lines(result(seq=2))[:100])
        subject = written(path, result(seq=3))
        assert seqs(path) == [1, 3]
        assert [record.getMessage() for record in caplog.records] == [
            f"{path}: its last line was torn; 100 bytes were cut off"
        ]
        assert (subject.torn, subject.report()) == (1, "1 torn at the start and cut off")

    def test_file_of_something_else(self, tmp_path: Path) -> None:
        """A file of something else is refused, naming the key, and stays as it is."""
        path = tmp_path / "notes.txt"
        path.write_text("a diary\n")
        with pytest.raises(SettingError, match="is no file of results") as caught:
            opened(path)
        assert (caught.value.key, path.read_text()) == ("path", "a diary\n")

    @pytest.mark.parametrize("where", ["its head", "its end"])
    def test_damaged(self, tmp_path: Path, result: Make, caplog: pytest.LogCaptureFixture, where: str) -> None:
        """A file of results in which nothing whole can be found at the end is put aside as it is; a new one is begun at once."""
        path = tmp_path / "out.jsonl"
        good = lines(*[result(seq=n) for n in range(1, 30)])
        content = bytes(512) + good[512:] if where == "its head" else good + os.urandom(1 << 21).replace(b"\0", b"\1")
        path.write_bytes(content)
        subject = opened(path, compress=False)
        subject.write(Item(result(seq=99)))
        ended(subject)
        aside = tmp_path / "out.000001.jsonl"
        assert (aside.read_bytes(), seqs(path), family(path)) == (content, [99], [aside])
        assert [record.getMessage() for record in caplog.records] == [
            f"{path} is damaged; it is kept as {aside}, and a new one is begun"
        ]
        assert subject.torn == 1
        ended(opened(path, compress=False))
        assert aside.read_bytes() == content


class TestRotation:
    def test_by_size(self, tmp_path: Path, result: Make) -> None:
        """No file is larger than `rotate_size`; lines are never split, and their order is that of the numbers."""
        path = tmp_path / "out.jsonl"
        size = len(lines(result()))
        written(path, *[result(seq=n) for n in range(100, 110)], rotate_size=3 * size, keep=9, compress=False)
        assert [file.name for file in family(path)] == ["out.000001.jsonl", "out.000002.jsonl", "out.000003.jsonl"]
        assert [seqs(file) for file in [*family(path), path]] == [
            [100, 101, 102], [103, 104, 105], [106, 107, 108], [109],
        ]  # fmt: skip

    def test_gathered(self, tmp_path: Path, result: Make, clock: Clock) -> None:
        """Gathered lines do not exceed it either."""
        path = tmp_path / "out.jsonl"
        size = len(lines(result()))
        made = [result(seq=n) for n in range(100, 110)]
        written(path, *made, rotate_size=3 * size, keep=9, compress=False, flush=3600.0)
        assert [len(seqs(file)) for file in [*family(path), path]] == [3, 3, 3, 1]

    def test_a_line_that_is_larger(self, tmp_path: Path, result: Make) -> None:
        """A line that is larger by itself is written all the same, alone."""
        path = tmp_path / "out.jsonl"
        written(path, result(seq=1), result(seq=2), rotate_size=10, compress=False)
        assert [seqs(file) for file in [*family(path), path]] == [[1], [2]]

    def test_keep(self, tmp_path: Path, result: Make) -> None:
        """The lowest numbers go first, and numbers go on where an earlier start left off."""
        path = tmp_path / "out.jsonl"
        size = len(lines(result()))
        for start in (100, 105):
            made = [result(seq=n) for n in range(start, start + 5)]
            written(path, *made, rotate_size=size, keep=3, compress=False)
        assert [file.name for file in family(path)] == ["out.000007.jsonl", "out.000008.jsonl", "out.000009.jsonl"]
        assert seqs(*family(path), path) == [106, 107, 108, 109]

    def test_by_age(self, tmp_path: Path, result: Make, clock: Clock) -> None:
        """A file is rotated when its first line is so old, even when no further line comes; an empty one is not."""
        path = tmp_path / "out.jsonl"
        subject = opened(path, rotate_age=3600.0, compress=False)
        clock.passes(7200)
        subject.tick()
        assert (family(path), subject.due) == ([], None)
        subject.write(Item(result(seq=1)))
        clock.passes(3599)
        subject.write(Item(result(seq=2)))
        assert family(path) == []
        clock.passes(1)
        assert subject.due is not None
        assert subject.due <= clock.now
        subject.tick()
        assert seqs(*family(path)) == [1, 2]
        assert path.read_bytes() == b""
        ended(subject)

    @pytest.mark.parametrize(("hours", "rotated"), [(23, False), (25, True), (-9000, False)])
    def test_age_over_a_restart(self, tmp_path: Path, result: Make, clock: Clock, hours: int, rotated: bool) -> None:
        """At a start, the first line's own time tells the file's age; one of the future is taken for new."""
        path = tmp_path / "out.jsonl"
        written(path, result(seq=1, time_ns=NOON_NS))
        clock.wall = NOON_NS / 1e9 + hours * 3600
        subject = opened(path, rotate_age=86400.0, compress=False)
        subject.tick()
        assert bool(family(path)) is rotated
        ended(subject)

    def test_age_by_the_steady_clock(self, tmp_path: Path, result: Make, clock: Clock) -> None:
        """A clock that jumps while the daemon runs rotates nothing."""
        path = tmp_path / "out.jsonl"
        subject = opened(path, rotate_age=3600.0)
        subject.write(Item(result(time_ns=0)))
        clock.wall += 30 * 365 * 86400
        subject.write(Item(result()))
        subject.tick()
        assert family(path) == []
        ended(subject)

    def test_synchronised_first(self, tmp_path: Path, result: Make, clock: Clock, syncs: list[bytes]) -> None:
        """A file is on the disk before it is put away: nobody would look after it later."""
        path = tmp_path / "out.jsonl"
        subject = opened(path, rotate_size=len(lines(result())), compress=False)
        subject.write(Item(result(seq=111)))
        subject.write(Item(result(seq=112)))
        assert syncs == [lines(result(seq=111))]
        ended(subject)

    @pytest.mark.parametrize("there", [True, False])
    def test_link(self, tmp_path: Path, result: Make, there: bool) -> None:
        """Where the path is a link it stays one: its target is rotated, and the rotated files lie beside that."""
        card, usb = tmp_path / "card", tmp_path / "usb"
        card.mkdir()
        path, target = card / "log.jsonl", usb / "door.jsonl"
        path.symlink_to(target)
        if there:
            usb.mkdir()
            target.touch()
        made = [result(seq=n, time_ns=NOON_NS) for n in range(101, 107)]
        options = {"rotate_size": 2 * len(lines(made[0])), "compress": False, "daily_budget": 10**6}
        JsonLines(JsonLinesConfig(path=path, **options)).verify()
        for half in (made[:3], made[3:]):
            written(path, *half, **options)
        assert (os.readlink(path), os.listdir(card)) == (str(target), ["log.jsonl"])
        assert [file.name for file in family(target)] == ["door.000001.jsonl", "door.000002.jsonl"]
        assert seqs(*family(target), target) == list(range(101, 107))
        assert (usb / ".door.jsonl.budget").exists()

    def test_becomes_a_link(self, tmp_path: Path, result: Make, clock: Clock) -> None:
        """A log that somebody moves and links to meanwhile goes on where it is."""
        path, target = tmp_path / "log.jsonl", tmp_path / "elsewhere" / "log.jsonl"
        subject = opened(path, rotate_size=len(lines(result())), compress=False)
        subject.write(Item(result(seq=101)))
        target.parent.mkdir()
        path.rename(target)
        path.symlink_to(target)
        clock.passes(1)
        subject.write(Item(result(seq=102)))
        ended(subject)
        assert path.is_symlink()
        assert seqs(*family(target), target) == [101, 102]
        assert len(family(target)) == 1

    def test_room_first(self, tmp_path: Path, result: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is one too many is deleted before a new file is begun: there may be no other room for it."""
        path = tmp_path / "out.jsonl"
        subject = opened(path, rotate_size=len(lines(result())), compress=False, keep=1)
        there = []
        settle = subject._shelf.settle
        monkeypatch.setattr(subject._shelf, "settle", lambda: there.append(path.exists()) or settle())
        for n in (101, 102, 103):
            subject.write(Item(result(seq=n)))
        assert there == [False, False]
        ended(subject)

    def test_never_synchronised_but_at_the_end(
        self, tmp_path: Path, result: Make, monkeypatch: pytest.MonkeyPatch, synced: list[tuple[str, list[str]]]
    ) -> None:
        """With `never`, a stop synchronises what was rotated and is not compressed, and the names in the folder, in time."""
        path = tmp_path / "out.jsonl"
        options = {"rotate_size": len(lines(result())), "compress": False, "fsync": "never"}
        subject = opened(path, **options)
        for n in (101, 102, 103):
            subject.write(Item(result(seq=n)))
        subject.finish(time.monotonic() - 1)
        assert [name for name, _ in synced] == ["out.jsonl"]
        subject.finish(time.monotonic() + 60)
        assert [name for name, _ in synced[1:]] == ["out.000002.jsonl", "out.000001.jsonl", tmp_path.name]
        subject.close()

    def test_compressed(self, tmp_path: Path, result: Make) -> None:
        """Rotated files are compressed while lines are written, and hold what they held."""
        path = tmp_path / "out.jsonl"
        size = len(lines(result()))
        subject = opened(path, rotate_size=20 * size)
        for n in range(100, 150):
            subject.write(Item(result(seq=n)))
        wait_for(lambda: sorted(p.name for p in tmp_path.iterdir()) == [
            "out.000001.jsonl.gz", "out.000002.jsonl.gz", "out.jsonl",
        ])  # fmt: skip
        ended(subject)
        assert seqs(*family(path), path) == list(range(100, 150))

    def test_permissions(self, tmp_path: Path, result: Make) -> None:
        """A log that was made private stays so, in all of its files."""
        path = tmp_path / "out.jsonl"
        subject = opened(path, rotate_size=len(lines(result())))
        path.chmod(0o600)
        for n in (101, 102):
            subject.write(Item(result(seq=n)))
        wait_for((tmp_path / "out.000001.jsonl.gz").exists)
        ended(subject)
        assert [file.stat().st_mode & 0o777 for file in tmp_path.iterdir()] == [0o600] * 2

    def test_never(self, tmp_path: Path, result: Make, clock: Clock) -> None:
        """Without a size and an age, there is one file."""
        path = tmp_path / "out.jsonl"
        subject = opened(path, rotate_size=None)
        for _ in range(3):
            subject.write(Item(result()))
            clock.passes(10**9)
            subject.tick()
        ended(subject)
        assert family(path) == []

    def test_device(self, result: Make) -> None:
        """A device is written to as it is: it is neither locked, nor repaired, nor rotated."""
        subjects = [opened(Path("/dev/null"), rotate_size=1, rotate_age=0.001) for _ in range(2)]
        for subject in subjects:
            subject.write(Item(result()))
            subject.write(Item(result()))
            subject.tick()
            assert subject.due is None or subject.due > time.monotonic() + 1
            ended(subject)
        assert not Path("/dev/null").is_file()


class TestBudget:
    def test_used_up(self, tmp_path: Path, result: Make, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        """Beyond the day's bytes results are dropped and counted, with one warning, until the next day in UTC."""
        path = tmp_path / "out.jsonl"
        size = len(lines(result()))
        subject = opened(path, daily_budget=2 * size + size // 2)
        for n in range(101, 106):
            subject.write(Item(result(seq=n)))
        assert subject.lost == 3
        clock.passes(12 * 3600)
        for n in range(106, 108):
            subject.write(Item(result(seq=n)))
        ended(subject)
        assert seqs(path) == [101, 102, 106, 107]
        assert [record.getMessage() for record in caplog.records] == [
            f"{path}: the daily budget of {budget.size_text(2 * size + size // 2)} is used up;"
            " results are dropped until the next day (UTC) begins"
        ]
        assert subject.report() == (
            f"{budget.size_text(2 * size)} of {budget.size_text(2 * size + size // 2)} today (3 results beyond that)"
        )

    @pytest.mark.parametrize("end", [ended, JsonLines.close], ids=["stopped", "killed"])
    def test_over_a_restart(self, tmp_path: Path, result: Make, clock: Clock, end: Callable[[JsonLines], None]) -> None:
        """A restart does not begin the day anew, even when rotated lines are long gone, and after a kill."""
        path = tmp_path / "out.jsonl"
        size = len(lines(result()))
        options = {"rotate_size": 3 * size, "keep": 1, "compress": False, "daily_budget": 10 * size}
        for _ in range(2):
            subject = opened(path, **options)
            for n in range(111, 118):
                subject.write(Item(result(seq=n, time_ns=NOON_NS)))
            end(subject)
        assert subject.lost == 4
        subject = opened(path, **options)
        subject.write(Item(result()))
        assert subject.lost == 1
        assert subject.report().startswith(f"{budget.size_text(10 * size)} of {budget.size_text(10 * size)} today")
        ended(subject)

    @pytest.mark.parametrize("end", [ended, JsonLines.close], ids=["stopped", "killed"])
    def test_large(self, tmp_path: Path, result: Make, clock: Clock, end: Callable[[JsonLines], None]) -> None:
        """To the byte: what was rotated and deleted was noted, and the live file tells the rest."""
        path = tmp_path / "out.jsonl"
        size = len(lines(result()))
        options = {"rotate_size": 3 * size, "keep": 1, "compress": False, "daily_budget": 1000 * size}
        for count in (14, 28):
            subject = opened(path, **options)
            for n in range(111, 125):
                subject.write(Item(result(seq=n, time_ns=NOON_NS)))
            assert subject.report().startswith(f"{budget.size_text(count * size)} of")
            end(subject)
        if end is ended:
            path.unlink()
            assert opened(path, **options).report().startswith(f"{budget.size_text(28 * size)} of")

    def test_figures(self, tmp_path: Path, result: Make, clock: Clock) -> None:
        """The state of the daemon tells how much of it is used."""
        subject = written(tmp_path / "out.jsonl", result(), daily_budget=10**6)
        assert subject.figures() == {"bytes_today": len(lines(result())), "bytes_allowed": 10**6}

    def test_gathered_lines_count(self, tmp_path: Path, result: Make, clock: Clock) -> None:
        """What waits to be written is part of it."""
        path = tmp_path / "out.jsonl"
        written(path, *[result(seq=n) for n in range(101, 106)], flush=60.0, daily_budget=3 * len(lines(result())))
        assert seqs(path) == [101, 102, 103]

    def test_not_asked_for(self, tmp_path: Path, result: Make) -> None:
        """Without a budget nothing is noted, and nothing reported."""
        assert written(tmp_path / "out.jsonl", result()).report() == ""
        assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


class TestConfiguration:
    def read(self, tmp_path: Path, **keys: Any) -> JsonLinesConfig:
        path = tmp_path / "output.yaml"
        path.write_text(json.dumps({"path": "out.jsonl", **keys}))
        return load(path, JsonLinesConfig).value

    def test_sizes_and_durations(self, tmp_path: Path) -> None:
        """Each key takes its unit, or one of its words."""
        config = self.read(
            tmp_path, rotate_size="16MB", rotate_age="24h", keep=7, compress=False, flush="1s", fsync="never", daily_budget="500MB"
        )  # fmt: skip
        assert (config.rotate_size, config.rotate_age, config.keep) == (16_000_000, 86400.0, 7)
        assert (config.compress, config.flush, config.fsync, config.daily_budget) == (False, 1.0, "never", 500_000_000)
        assert self.read(tmp_path, rotate_size=None, flush="each", fsync="each").rotate_size is None

    def test_a_card_is_never_filled_by_default(self) -> None:
        """What nobody asked for stays below 100 MB."""
        config = JsonLinesConfig(path=Path("out.jsonl"))
        assert config.rotate_size is not None
        assert config.rotate_size * (config.keep + 1) < 100_000_000

    @pytest.mark.parametrize(
        ("key", "value"),
        [("keep", 0), ("rotate_size", "0"), ("flush", "never"), ("flush", "0s"), ("fsync", "always"), ("daily_budget", "0")],
    )  # fmt: skip
    def test_refused(self, tmp_path: Path, key: str, value: Any) -> None:
        """What makes no sense is refused by its key."""
        with pytest.raises(ConfigError, match=key):
            self.read(tmp_path, **{key: value})


def wait_for(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_killed_while_writing(tmp_path: Path, start_cli: Any, configure: Any, colours: Path) -> None:
    """A process that is killed at any moment leaves whole lines only."""
    path = tmp_path / "out.jsonl"
    camera = {"type": "images", "path": "colours", "loop": True}
    child = start_cli("--config", configure(camera=camera, outputs=[{"type": "jsonl", "path": "out.jsonl"}]))
    deadline = time.monotonic() + 60
    while (not path.exists() or path.stat().st_size < 200_000) and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    content = path.read_text()
    assert content.endswith("}\n")
    seqs = [json.loads(line)["seq"] for line in content.splitlines()]
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) > 300


class TestWhereItCannotBe:
    def refused(self, folder: Path, path: Path) -> str:
        """Both the check and the start refuse it, naming the key, and write nothing."""
        before = sorted(folder.rglob("*"))
        messages = []
        subject = JsonLines(JsonLinesConfig(path=path))
        for attempt in (subject.verify, lambda: subject.open(Origin())):
            with pytest.raises(SettingError) as caught:
                attempt()
            assert (caught.value.key, caught.value.exit_code) == ("path", 78)
            assert str(path) in str(caught.value)
            messages.append(str(caught.value))
        assert sorted(folder.rglob("*")) == before
        return messages[0]

    def test_folder(self, tmp_path: Path) -> None:
        """A folder is no file."""
        assert "is a folder; name a file" in self.refused(tmp_path, tmp_path)

    def test_below_a_file(self, tmp_path: Path) -> None:
        """A path below a file can never be."""
        (tmp_path / "file").write_text("")
        assert f"{tmp_path / 'file'} is no folder" in self.refused(tmp_path, tmp_path / "file/out.jsonl")

    def test_compressed(self, tmp_path: Path) -> None:
        """The live file is never compressed, and its name does not say so."""
        with pytest.raises(SettingError, match=r"name it without \.gz"):
            JsonLines(JsonLinesConfig(path=tmp_path / "out.jsonl.gz")).verify()

    @pytest.mark.parametrize(
        ("name", "other"), [("cam.20261122.jsonl", "cam-20261122.jsonl"), ("cam.000001", "cam-000001")]
    )
    def test_named_like_a_rotated_file(self, tmp_path: Path, name: str, other: str) -> None:
        """A name that reads as a rotated file is refused, and another proposed, for a link's target too; fewer digits are fine."""
        link = tmp_path / "cam.jsonl"
        link.symlink_to(tmp_path / name)
        for path in (tmp_path / name, link):
            with pytest.raises(SettingError) as caught:
                JsonLines(JsonLinesConfig(path=path)).verify()
            assert (caught.value.key, caught.value.exit_code) == ("path", 78)
            assert str(caught.value) == f"{path}: {name} is a rotated file's name; name it {other}, say"
        JsonLines(JsonLinesConfig(path=tmp_path / "cam.2026.jsonl")).verify()

    @pytest.mark.parametrize(
        ("path", "mode", "why"),
        [
            ("out.jsonl", 0o555, "cannot be written by this user"),
            ("new/out.jsonl", 0o555, "cannot be written by this user"),
            ("out.jsonl", 0, "permission denied"),
            ("new/out.jsonl", 0, "permission denied"),
        ],
    )
    def test_locked_folder(
        self, run_cli: Any, configure: Any, lock: Any, tmp_path: Path, path: str, mode: int, why: str
    ) -> None:
        """A folder that this user must not write to, or not even look into, is refused in one clear line."""
        folder = tmp_path / "locked"
        folder.mkdir()
        prefix = lock_for_another(lock, folder, mode)
        config = configure(outputs=[{"type": "jsonl", "path": f"locked/{path}"}])
        done = run_cli("--config", config, prefix=prefix)
        assert (done.returncode, done.stdout) == (78, "")
        [line] = done.stderr.splitlines()
        assert line.startswith(f"edge-runner: error: {config}:")
        assert "outputs.0.path: " in line
        assert why in line

    def test_locked_file(self, run_cli: Any, configure: Any, lock: Any, tmp_path: Path) -> None:
        """A file of somebody else's is refused as well, and stays as it is."""
        path = tmp_path / "out.jsonl"
        path.write_text("theirs\n")
        prefix = lock_for_another(lock, path, 0o444)
        done = run_cli("run", "--config", configure(outputs=[{"type": "jsonl", "path": "out.jsonl"}]), prefix=prefix)
        assert done.returncode == 78
        assert "out.jsonl cannot be written by this user; chown or chmod it" in done.stderr
        assert path.read_text() == "theirs\n"


def lock_for_another(lock: Any, path: Path, mode: int) -> tuple[str, ...]:
    """`lock`, for a path that root, too, is not the owner of."""
    prefix: tuple[str, ...] = lock(path, mode)
    if os.getuid() == 0:
        os.chown(path, 65534, 65534)
    return prefix
