"""Results on disk: in order, bounded, whole after every kill and after every power cut."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from edge_runner.errors import OutputError, SettingError
from edge_runner.output import spool as module
from edge_runner.output.spool import DAMAGED, FILE, TOPIC_BYTES, DamagedError, Message, Spool

pytestmark = pytest.mark.arm

MOST = 10**6
MANY = 10**6  # more than any test reads


def message(number: int, size: int = 10) -> Message:
    return Message("edge-runner/pi-7/front-door", f"{number} ".encode().ljust(size, b"x"))


def numbers(messages: Iterable[Message]) -> list[int]:
    return [int(one.payload.split()[0]) for one in messages]


def opened(folder: Path, most: int = MOST) -> Spool:
    spool = Spool(folder, most)
    spool.open()
    return spool


def changed(folder: Path, statement: str) -> None:
    """The spool's file is changed from outside."""
    with sqlite3.connect(folder / FILE) as database:
        database.execute(statement)
    database.close()


def filled(disk: Path, room: int) -> Path:
    """A file that leaves so many bytes on the disk."""
    free = os.statvfs(disk)
    (disk / "other").write_bytes(bytes(free.f_bavail * free.f_frsize - room))
    return disk / "other"


def size_on_disk(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(folder))


def test_in_order(tmp_path: Path) -> None:
    """What is appended is read in order, with its topic and payload, as often as it is asked for, until it is deleted."""
    spool = opened(tmp_path)
    messages = [message(n) for n in range(10)]
    spool.append(messages[:4], after=0)
    spool.append(messages[4:], after=0)
    assert [one.row for one in messages] == list(range(1, 11))
    for _ in range(2):
        read = spool.read(0, MANY, MANY)
        assert [(m.row, m.topic, m.payload) for m in read] == [(m.row, m.topic, m.payload) for m in messages]
    spool.delete([1, 2, 5])
    assert numbers(spool.read(0, MANY, MANY)) == [2, 3, 5, 6, 7, 8, 9]
    assert numbers(spool.read(6, MANY, MANY)) == [6, 7, 8, 9]
    assert spool.count == 7
    spool.close()


def test_read_a_little_at_a_time(tmp_path: Path) -> None:
    """No more is read than was asked for, by number and by size, but one at least."""
    spool = opened(tmp_path)
    spool.append([message(n, 1000) for n in range(10)], after=0)
    assert numbers(spool.read(0, 3, MANY)) == [0, 1, 2]
    assert numbers(spool.read(3, MANY, 2500)) == [3, 4, 5]
    assert numbers(spool.read(3, MANY, 1)) == [3]
    spool.close()


def test_after_a_restart(tmp_path: Path, nothing_left: None) -> None:
    """A spool that is opened again goes on behind what it held; opening and closing can be repeated."""
    for start in range(3):
        spool = opened(tmp_path / "a/b")
        spool.open()
        assert spool.count == start * 2
        spool.append([message(2 * start), message(2 * start + 1)], after=0)
        spool.close()
        spool.close()
    spool = opened(tmp_path / "a/b")
    assert numbers(spool.read(0, MANY, MANY)) == [0, 1, 2, 3, 4, 5]
    spool.close()


def test_rows_are_not_given_twice(tmp_path: Path) -> None:
    """A row that was deleted is never given to another message: its acknowledgement may still be on its way."""
    spool = opened(tmp_path)
    first, second = message(1), message(2)
    spool.append([first], after=0)
    spool.delete([first.row])
    spool.append([second], after=0)
    assert second.row > first.row
    spool.close()


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from edge_runner.output.spool import Message, Spool
    spool = Spool(Path(sys.argv[1]), 10**6)
    spool.open()
    for number in range(50):
        spool.append([Message("t", str(number).encode() + b" " * number)], after=0)
    spool.delete([1, 2])
    os.kill(os.getpid(), signal.SIGKILL)
    """
)


def killed(folder: Path) -> None:
    """A process appends 0 to 49, deletes the first two, and is killed."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False)
    assert done.returncode == -signal.SIGKILL


def test_killed(tmp_path: Path) -> None:
    """A kill loses nothing that was appended."""
    killed(tmp_path)
    spool = opened(tmp_path)
    assert numbers(spool.read(0, MANY, MANY)) == list(range(2, 50))
    spool.close()


def test_power_cut(tmp_path: Path) -> None:
    """Wherever a power cut ends the log, what is left of the messages is their beginning: never a later one without an earlier."""
    killed(tmp_path / "before")
    log = tmp_path / "before" / f"{FILE}-wal"
    whole = log.read_bytes()
    assert len(whole) > 50 * module.PAGE_BYTES
    left = []
    for cut in range(0, len(whole) + 1, 997):
        folder = tmp_path / f"cut{cut}"
        shutil.copytree(tmp_path / "before", folder)
        (folder / log.name).write_bytes(whole[:cut] + bytes(min(300, len(whole) - cut)))  # zeros, as ext4 leaves them
        spool = opened(folder)
        found = numbers(spool.read(0, MANY, MANY))
        assert found in (list(range(len(found))), list(range(2, 50)))
        left.append(len(found))
        spool.close()
        assert not (folder / DAMAGED).exists()
    assert left[:-3] == sorted(left[:-3])
    assert left[0] == 0
    assert max(left) == 50


@pytest.mark.parametrize("seed", range(3))
def test_never_larger(tmp_path: Path, seed: int) -> None:
    """Whatever is appended, sent and deleted, its files never have more bytes than allowed, and the oldest go first."""
    chance = random.Random(seed)
    spool = opened(tmp_path)
    appended: list[int] = []
    acknowledged: set[int] = set()
    largest = 0
    for _ in range(300):
        sizes = [chance.choice([40, 500, 600, 5000, spool.largest - 100]) for _ in range(chance.randint(1, 20))]
        messages = [message(len(appended) + n, size) for n, size in enumerate(sizes)]
        spool.append(messages, after=0)
        appended += numbers(messages)
        if chance.random() < 0.2:
            sent = spool.read(0, chance.randint(1, 30), MANY)
            spool.delete([one.row for one in sent])
            acknowledged.update(numbers(sent))
        largest = max(largest, size_on_disk(tmp_path))
    left = numbers(spool.read(0, MANY, MANY))
    assert largest <= MOST
    assert largest > MOST / 2, "most of the space is used"
    assert left == appended[-len(left) :]
    assert spool.count == len(left)
    assert spool.lost == len(appended) - len(left) - len(acknowledged) > 0
    spool.close()


def test_what_is_being_sent_does_not_go(tmp_path: Path) -> None:
    """Where the oldest have to go, those up to a given row stay."""
    spool = opened(tmp_path)
    spool.append([message(n, 1000) for n in range(20)], after=0)
    for n in range(20, 2000):
        spool.append([message(n, 1000)], after=10)
    left = numbers(spool.read(0, MANY, MANY))
    assert left[:10] == list(range(10))
    assert left[10] > 1000
    assert left[10:] == list(range(left[10], 2000))
    spool.close()


def test_space_is_given_back(tmp_path: Path) -> None:
    """A spool that held much and is empty again takes no room on the disk."""
    spool = opened(tmp_path, 20 * MOST)
    messages = [message(n, 10_000) for n in range(1000)]
    spool.append(messages, after=0)
    assert size_on_disk(tmp_path) > 10 * MOST
    spool.delete([one.row for one in messages[:999]])
    assert size_on_disk(tmp_path) > 10 * MOST
    spool.delete([messages[-1].row])
    assert size_on_disk(tmp_path) < 100_000
    spool.append([message(1000)], after=0)
    assert numbers(spool.read(0, MANY, MANY)) == [1000]
    spool.close()


class TestLessIsAllowed:
    """A spool is opened whose file is larger than it may be by now."""

    def test_the_newest_stay(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """The oldest go, counted and said once, and the disk has its space back."""
        spool = opened(tmp_path, 5 * MOST)
        spool.append([message(n, 1000) for n in range(3000)], after=0)
        spool.close()
        assert size_on_disk(tmp_path) > 3 * MOST
        spool = opened(tmp_path, MOST)
        assert size_on_disk(tmp_path) <= MOST
        left = numbers(spool.read(0, MANY, MANY))
        assert left == list(range(3000 - len(left), 3000))
        assert spool.count == len(left) > 500
        assert spool.lost == 3000 - len(left)
        [record] = caplog.records
        assert f"only 1,000,000 bytes are allowed now; the {spool.lost} oldest results are lost" in record.getMessage()
        spool.close()

    @pytest.mark.parametrize(("room", "deleted"), [(8192, False), (400_000, True)])
    def test_no_room(self, mount_tmpfs: Callable[[str], Path], room: int, deleted: bool) -> None:
        """Where the disk is too full even for that, the spool is used as it is; the space is given back at a later start."""
        disk = mount_tmpfs("5m")
        spool = opened(disk / "spool", 5 * MOST)
        spool.append([message(n, 1000) for n in range(3000)], after=0)
        spool.close()
        other = filled(disk, room)
        spool = opened(disk / "spool", MOST)
        assert size_on_disk(disk / "spool") > 3 * MOST
        assert len(spool.read(0, MANY, 5 * MOST)) == spool.count == 3000 - spool.lost
        assert bool(spool.lost) == deleted
        spool.close()
        other.unlink()
        spool = opened(disk / "spool", MOST)
        assert size_on_disk(disk / "spool") <= MOST
        assert numbers(spool.read(0, MANY, MANY))[-1] == 2999
        spool.close()

    def test_a_full_one_is_left_alone(self, tmp_path: Path) -> None:
        """A spool that is full, and that what was being sent has made a little larger, loses nothing when it is opened again."""
        spool = opened(tmp_path)
        spool.append([message(n, 1000) for n in range(60)], after=0)
        for n in range(60, 1000):
            spool.append([message(n, 1000)], after=60)
        spool.append([message(1000, spool.largest - 100)], after=MANY)
        left = numbers(spool.read(0, MANY, MANY))
        spool.close()
        spool = opened(tmp_path)
        assert numbers(spool.read(0, MANY, MANY)) == left
        assert spool.lost == 0
        spool.close()


def test_little_is_written(tmp_path: Path) -> None:
    """A result of 600 bytes costs the card less than 3 kB, and less than 1 kB when it goes: pages are small, and not wiped."""

    def written() -> int:
        fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        return int(fields["wchar"])

    spool = opened(tmp_path, 64 * MOST)
    before = written()
    for n in range(1000):
        spool.append([message(n, 600)], after=0)
    between = written()
    for n in range(0, 1000, 20):
        spool.delete(range(n, n + 20))
    assert (between - before) / 1000 < 3000
    assert (written() - between) / 1000 < 1000
    spool.close()


def test_another_process_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spool that another process uses is refused, in words; it is free as soon as that is killed."""
    monkeypatch.setattr(module, "BUSY_S", 0.1)
    script = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "print(flush=True); sys.stdin.read()")
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        other.stdout.readline()
        with pytest.raises(SettingError, match="another edge-runner uses it; give each its own folder") as caught:
            Spool(tmp_path, MOST).open()
        assert caught.value.key == "spool"
        other.kill()
    spool = opened(tmp_path)
    assert spool.count == 48
    spool.close()


def persistently(deed: Callable[[], Any]) -> Any:
    """As whoever uses a spool does: once more where a new file was begun."""
    try:
        return deed()
    except DamagedError:
        return deed()


class TestDamaged:
    @pytest.mark.parametrize("content", [b"not a database at all " * 100, b"SQLite format 3\0" + b"\xff" * 2000])
    def test_file_of_something_else(self, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes) -> None:
        """What is no spool is put aside, with one warning, and a new one begun."""
        (tmp_path / FILE).write_bytes(content)
        spool = opened(tmp_path)
        spool.append([message(1)], after=0)
        assert numbers(spool.read(0, MANY, MANY)) == [1]
        assert (tmp_path / DAMAGED).read_bytes() == content
        [record] = caplog.records
        assert f"{tmp_path / FILE} is damaged and was put aside as {DAMAGED}" in record.getMessage()
        spool.close()

    def test_spool_of_another_version(self, tmp_path: Path) -> None:
        """A spool of a later edge-runner is put aside as well."""
        opened(tmp_path).close()
        changed(tmp_path, "PRAGMA user_version = 2")
        spool = opened(tmp_path)
        spool.append([message(1)], after=0)
        assert (tmp_path / DAMAGED).exists()
        spool.close()

    def test_schema_format(self, tmp_path: Path) -> None:
        """A header that asks for an SQLite which does not exist is damage as well."""
        opened(tmp_path).close()
        with (tmp_path / FILE).open("r+b") as file:
            file.seek(44)
            file.write((68).to_bytes(4, "big"))  # 4, and a bit that has turned
        spool = opened(tmp_path)
        spool.append([message(1)], after=0)
        assert (tmp_path / DAMAGED).exists()
        spool.close()

    def test_while_it_is_used(self, tmp_path: Path) -> None:
        """A page that turns out to be damaged puts the file aside, counts what was in it, and the next call has a new one."""
        spool = opened(tmp_path)
        spool.append([message(n, 900) for n in range(300)], after=0)
        spool.close()
        content = bytearray((tmp_path / FILE).read_bytes())
        content[300 * 512 : 400 * 512] = b"\xff" * (100 * 512)
        (tmp_path / FILE).write_bytes(content)
        spool = opened(tmp_path)
        with pytest.raises(DamagedError):
            spool.read(0, MANY, MANY)
        assert spool.lost == 300
        assert spool.read(0, MANY, MANY) == []
        spool.append([message(300)], after=0)
        assert numbers(spool.read(0, MANY, MANY)) == [300]
        assert spool.last > 300, "rows are not given twice"
        spool.close()

    def test_under_its_hands(self, tmp_path: Path) -> None:
        """A page that gets damaged, and is not read before something behind it was deleted, is such a page as well."""
        spool = opened(tmp_path, 20 * MOST)
        messages = [message(n, 900) for n in range(6000)]
        spool.append(messages, after=0)
        spool.read(0, MANY, 100 * MOST)  # more than SQLite remembers
        with (tmp_path / FILE).open("r+b") as file:
            file.seek(2 * 512)
            file.write(b"\xff" * (98 * 512))
        with pytest.raises(DamagedError):
            spool.delete([messages[-1].row])
        assert spool.lost == 5999
        assert spool.delete([1]) == 0
        spool.close()

    @pytest.mark.parametrize("part", ["schema", "anywhere"])
    def test_whatever_turns(self, tmp_path: Path, part: str) -> None:
        """Whichever bits turn, only its own errors come out, and what is appended at the second try is kept."""
        spool = opened(tmp_path / "before")
        spool.append([message(n, 700) for n in range(60)], after=0)
        spool.close()
        whole = (tmp_path / "before" / FILE).read_bytes()
        span = range(100, 512) if part == "schema" else range(19, len(whole))
        for seed in range(150):
            chance = random.Random(seed)
            content = bytearray(whole)
            for place in chance.choices(span, k=5):
                content[place] ^= 1 << chance.randrange(8)
            (tmp_path / FILE).write_bytes(content)
            spool = Spool(tmp_path, MOST)
            spool.open()
            read = persistently(lambda spool=spool: spool.read(0, MANY, MANY))
            persistently(lambda spool=spool, read=read: spool.delete([one.row for one in read]))
            new = message(1000)
            persistently(lambda spool=spool, new=new: spool.append([new], after=0))
            assert 1000 in numbers(one for one in spool.read(new.row - 1, MANY, MANY) if one.payload == new.payload)
            spool.sync()
            spool.close()

    def test_no_room_aside(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A file that cannot be put aside is an error, and nothing is said or counted that has not happened; it is tried again."""
        (tmp_path / FILE).write_bytes(b"not a database at all " * 100)
        (tmp_path / DAMAGED).mkdir()
        spool = Spool(tmp_path, MOST)
        for _ in range(3):
            with pytest.raises(OutputError, match="is damaged, and cannot be put aside: is a directory") as caught:
                spool.open()
            assert (caught.value.lost, spool.lost, spool.is_open) == (0, 0, False)
        assert not caplog.records
        (tmp_path / DAMAGED).rmdir()
        spool.open()
        assert len(caplog.records) == 1
        spool.close()

    def test_only_the_last_one_is_kept(self, tmp_path: Path) -> None:
        """Damaged files do not pile up."""
        for content in (b"one" * 1000, b"two" * 1000):
            (tmp_path / FILE).write_bytes(content)
            opened(tmp_path).close()
        assert (tmp_path / DAMAGED).read_bytes() == b"two" * 1000
        assert sorted(path.name for path in tmp_path.iterdir()) == [DAMAGED, FILE]

    def test_empty_file(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A file without anything, as a power cut leaves it, is a new spool."""
        (tmp_path / FILE).touch()
        opened(tmp_path).close()
        assert not caplog.records


class TestSpoilt:
    """A row that nobody wrote like this."""

    @pytest.mark.parametrize(
        "change",
        [
            "topic = CAST(x'65ff65' AS TEXT)",
            "topic = CAST(x'6500' AS TEXT)",
            "topic = 'edge-runner/pi-7/' || char(15) || 'ront-door'",  # Mosquitto hangs up
            "topic = 'edge-runner/+/front-door'",
            "topic = 'edge-runner/#'",
            "topic = ''",
            f"topic = CAST(zeroblob({TOPIC_BYTES + 1}) AS TEXT)",
            f"topic = printf('%0{TOPIC_BYTES + 1}d', 1)",
            "topic = NULL",
            "payload = NULL",
            "payload = 17",
        ],
    )
    def test_goes(self, tmp_path: Path, caplog: pytest.LogCaptureFixture, change: str) -> None:
        """It goes, is counted, and holds up none of the others; it is said once."""
        spool = opened(tmp_path)
        spool.append([message(n) for n in range(10)], after=0)
        spool.close()
        changed(tmp_path, f"UPDATE messages SET {change} WHERE row IN (1, 4, 10)")
        spool = opened(tmp_path)
        assert numbers(spool.read(0, 3, MANY)) == [1, 2, 4]
        assert (spool.lost, spool.count) == (2, 8)
        for _ in range(2):
            assert numbers(spool.read(5, MANY, MANY)) == [5, 6, 7, 8]
            assert (spool.lost, spool.count) == (3, 7)
        [record] = caplog.records
        assert record.getMessage() == f"{tmp_path / FILE}: the disk has spoilt results in it, which are lost"
        spool.close()

    def test_all(self, tmp_path: Path) -> None:
        """Where nothing else is there, nothing is read, and nothing is left."""
        spool = opened(tmp_path)
        spool.append([message(n) for n in range(10)], after=0)
        spool.close()
        changed(tmp_path, "UPDATE messages SET topic = NULL")
        spool = opened(tmp_path)
        assert spool.read(0, 3, MANY) == []
        assert (spool.lost, spool.count) == (10, 0)
        spool.close()

    def test_the_bytes_count(self, tmp_path: Path) -> None:
        """A row in which only the types have turned is whole."""
        spool = opened(tmp_path)
        spool.append([message(1)], after=0)
        spool.close()
        changed(tmp_path, "UPDATE messages SET topic = CAST(topic AS BLOB), payload = CAST(payload AS TEXT)")
        spool = opened(tmp_path)
        [read] = spool.read(0, MANY, MANY)
        assert (read.topic, read.payload) == (message(1).topic, message(1).payload)
        spool.close()

    def test_disk_that_keeps_it(self, mount_tmpfs: Callable[[str], Path]) -> None:
        """Where nothing can be deleted just now, the others are read all the same; it is counted when it goes."""
        disk = mount_tmpfs("1m")
        spool = opened(disk)
        spool.append([message(n, 1000) for n in range(100)], after=0)
        spool.close()
        changed(disk, "UPDATE messages SET topic = NULL WHERE row % 2")
        spool = opened(disk)
        other = filled(disk, 0)
        for _ in range(2):
            assert numbers(spool.read(0, MANY, MANY)) == list(range(1, 100, 2))
            assert spool.lost == 0
        other.unlink()
        assert numbers(spool.read(0, MANY, MANY)) == list(range(1, 100, 2))
        assert spool.lost == 50
        spool.close()


class TestRemoved:
    """Somebody removes what is in use."""

    @pytest.mark.parametrize("what", ["spool", f"spool/{FILE}"])
    def test_with_what_was_in_it(self, tmp_path: Path, what: str) -> None:
        """It is noticed when it is synced, and what was in it is counted; opened again, it is made again."""
        spool = opened(tmp_path / "spool")
        spool.append([message(1), message(2)], after=0)
        if (tmp_path / what).is_dir():
            shutil.rmtree(tmp_path / what)
        else:
            (tmp_path / what).unlink()
        with pytest.raises(OutputError, match="somebody has removed it; 2 results in it are lost") as caught:
            spool.sync()
        assert caught.value.lost == 0
        assert (spool.lost, spool.count, spool.is_open) == (2, 0, False)
        spool.open()
        spool.append([message(3)], after=0)
        spool.sync()
        assert numbers(spool.read(0, MANY, MANY)) == [3]
        assert (spool.lost, spool.count) == (2, 1)
        spool.close()

    def test_its_log_alone(self, tmp_path: Path) -> None:
        """Where only the second of its files is removed, nothing is lost."""
        spool = opened(tmp_path)
        spool.append([message(1), message(2)], after=0)
        (tmp_path / f"{FILE}-wal").unlink()
        with pytest.raises(OutputError, match="-wal: somebody has removed it"):
            spool.sync()
        spool.open()
        assert numbers(spool.read(0, MANY, MANY)) == [1, 2]
        assert (spool.lost, spool.count) == (0, 2)
        spool.close()


def test_sync_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync without anything new since the last costs nothing."""
    spool = opened(tmp_path)
    spool.append([message(1)], after=0)
    synced = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.readlink(f"/proc/self/fd/{file}")))
    spool.sync()
    spool.sync()
    assert synced == [str(tmp_path / f"{FILE}-wal")]
    spool.close()


class TestWhereItCannotBe:
    def test_no_folder(self, tmp_path: Path) -> None:
        """A file where the folder should be is refused before anything is written."""
        (tmp_path / "spool").touch()
        with pytest.raises(SettingError, match=r"is no folder; name another") as caught:
            Spool(tmp_path / "spool/deep", MOST).verify()
        assert caught.value.key == "spool"
        assert list(tmp_path.iterdir()) == [tmp_path / "spool"]

    def test_no_permission(self, tmp_path: Path, lock: object) -> None:
        """A folder of another user is refused, naming it."""
        prefix = lock(tmp_path, 0o500)  # type: ignore[operator]
        script = f"""
from pathlib import Path
from edge_runner.errors import SettingError
from edge_runner.output.spool import Spool
try:
    Spool(Path({str(tmp_path)!r}) / "spool", 10**6).verify()
except SettingError as error:
    print(error.key, error)
"""
        done = subprocess.run([*prefix, sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("spool ")
        assert f"{tmp_path} cannot be written by this user" in done.stdout

    def test_read_only_for_now(self, tmp_path: Path) -> None:
        """What the disk refuses loses nothing, and is an error that names the file."""
        (tmp_path / FILE).mkdir()
        with pytest.raises(OutputError, match="unable to open database file") as caught:
            Spool(tmp_path, MOST).open()
        assert caught.value.lost == 0
