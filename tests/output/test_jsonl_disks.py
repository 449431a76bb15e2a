"""A log on disks that fill up, become read-only, and lose their writer: real ones, small."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from edge_runner.errors import OutputError
from edge_runner.output import jsonl
from edge_runner.output.base import Item, Origin
from edge_runner.output.jsonl import JsonLines, JsonLinesConfig
from edge_runner.output.rotated import family
from edge_runner.result import Result

Make = Callable[..., Result]
TIMEOUT_S = 60
DISK_BYTES = 8 << 20
KILLS = 10
KEEP = 100_000


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True, timeout=TIMEOUT_S)


@contextmanager
def mounted(folder: Path, *options: object) -> Iterator[Path]:
    """A file system at a folder; the test is skipped where that is not allowed."""
    folder.mkdir(exist_ok=True)
    try:
        run("mount", *options, folder)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, timeout=TIMEOUT_S)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs") as folder:
        yield folder


def fill(disk: Path) -> Path:
    """Take all room that is left, but for what a page that is begun still has."""
    path = disk / "filler"
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    with suppress(OSError):
        while True:
            os.write(file, bytes(1 << 16))
    os.close(file)
    return path


def opened(path: Path, **config: Any) -> JsonLines:
    subject = JsonLines(JsonLinesConfig(path=path, **config))
    subject.verify()
    subject.open(Origin())
    return subject


def seqs(*paths: Path) -> list[int]:
    """The numbers of all results in files; each line parses."""
    found = []
    for path in paths:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt") as file:
            found += [json.loads(line)["seq"] for line in file]
    return found


class Writer:
    """Writes results with rising numbers, and remembers which of them the output took."""

    def __init__(self, subject: JsonLines, make: Make) -> None:
        self.subject = subject
        self.make = make
        self.seq = self.lost = 0

    def writes(self) -> bool:
        """Write one; whether it was taken."""
        self.seq += 1
        try:
            self.subject.write(Item(self.make(seq=self.seq)))
            self.subject.tick()
        except OutputError as error:
            self.lost += error.lost
            return False
        return True

    def until(self, taken: bool) -> None:
        """Write until one is taken, or lost."""
        ends = time.monotonic() + TIMEOUT_S
        while self.writes() is not taken:
            assert time.monotonic() < ends
            time.sleep(0.001)


class TestFull:
    @pytest.mark.parametrize("flush", ["each", 0.2])
    def test_filled_and_freed(self, disk: Path, result: Make, flush: Any) -> None:
        """What was written stays whole, what is dropped is counted, and it works again by itself when there is room."""
        path = disk / "out.jsonl"
        writer = Writer(opened(path, flush=flush, rotate_size=50_000, keep=1000), result)
        for _ in range(3):
            for _ in range(300):
                assert writer.writes()
            wait_for(lambda: all(file.suffix == ".gz" for file in family(path)))  # which makes room as well
            filler = fill(disk)
            writer.until(taken=False)
            for _ in range(50):
                assert not writer.writes()
            assert not path.exists() or path.read_bytes()[-1:] in (b"\n", b"")
            filler.unlink()
            writer.until(taken=True)
        writer.subject.finish(time.monotonic() + 5)
        writer.subject.close()
        there = seqs(*family(path), path)
        assert there == sorted(set(there))
        assert len(there) + writer.lost == writer.seq
        assert writer.lost >= 3 * 50
        assert writer.subject.torn == 0

    def test_started_on_a_full_disk(self, disk: Path, result: Make, caplog: pytest.LogCaptureFixture) -> None:
        """A disk that is full at the start is no reason to end: it is said, and lines come when there is room."""
        path = disk / "new" / "out.jsonl"
        with mounted(disk / "none", "-t", "tmpfs", "-o", "nr_inodes=1", "tmpfs") as folder:  # not even for a name
            subject = opened(folder / "deep" / "out.jsonl")
            assert "no space left on device; it is tried again until it works" in caplog.text
            subject.close()
        filler = fill(disk)
        writer = Writer(opened(path), result)
        writer.until(taken=False)
        filler.unlink()
        writer.until(taken=True)
        writer.subject.close()
        assert seqs(path) == [writer.seq]

    def test_the_inference_goes_on(self, disk: Path, tmp_path: Path, start_cli: Any, configure: Any) -> None:
        """The daemon loses the results of that output alone, with one warning, counts them, and says when it works again."""
        full, healthy = disk / "full.jsonl", tmp_path / "healthy.jsonl"
        outputs = [{"type": "jsonl", "path": str(full), "fsync": "500ms"}, {"type": "jsonl", "path": str(healthy)}]
        child = start_cli("--config", configure(camera={"type": "pattern", "width": 64, "height": 48}, outputs=outputs))
        wait_for(lambda: full.exists() and full.stat().st_size > 5000)
        filler = fill(disk)
        size = full.stat().st_size
        wait_for(lambda: full.stat().st_size > size or lines_since(healthy, 0) > 40)
        before = lines_since(healthy, 0)
        wait_for(lambda: lines_since(healthy, before) > 60)
        assert full.stat().st_size - size < 4096 + 500  # the page that was begun
        filler.unlink()
        grown = full.stat().st_size
        wait_for(lambda: full.stat().st_size > grown + 2000)
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=TIMEOUT_S)
        assert child.returncode == 0
        told = [line for line in errors.splitlines() if "outputs.0" in line and "health: " not in line]
        assert [bool(re.search("no space left on device|works again|results lost", line)) for line in told] == [
            True
        ] * 3
        numbers = seqs(healthy)
        assert numbers == list(range(1, len(numbers) + 1))
        lost = set(numbers) - set(seqs(full))
        assert f"{len(lost)} results lost" in told[-1]
        assert len(lost) >= 60


class TestReadOnly:
    def test_from_the_start(self, disk: Path, result: Make, caplog: pytest.LogCaptureFixture) -> None:
        """A disk that is read-only at the start passes the check, is said, and is written when it can be."""
        path = disk / "logs" / "out.jsonl"
        run("mount", "-o", "remount,ro", disk)
        writer = Writer(opened(path, daily_budget=10**6), result)
        assert f"{path}: read-only file system; it is tried again until it works" in caplog.text
        writer.until(taken=False)
        run("mount", "-o", "remount,rw", disk)
        writer.until(taken=True)
        lost, last = writer.lost, writer.seq
        writer.subject.close()
        assert (seqs(path), lost) == ([last], last - 1)

    def test_a_file_that_is_there(self, disk: Path, result: Make) -> None:
        """The same where the file is there already; what is in it stays."""
        path = disk / "out.jsonl"
        writer = Writer(opened(path), result)
        assert writer.writes()
        writer.subject.close()
        run("mount", "-o", "remount,ro", disk)
        writer.subject = opened(path)
        writer.until(taken=False)
        run("mount", "-o", "remount,rw", disk)
        writer.until(taken=True)
        writer.subject.close()
        assert seqs(path) == [1, writer.seq]

    @pytest.mark.parametrize("flush", ["each", 0.05])
    def test_while_it_is_written(self, tmp_path: Path, result: Make, flush: Any) -> None:
        """A card that gives up makes its file system read-only: nothing is held open on it, so that it can be mended."""
        if not shutil.which("mkfs.ext4"):
            pytest.skip("there is no mkfs.ext4")
        image = tmp_path / "image"
        image.touch()
        os.truncate(image, DISK_BYTES)
        run("mkfs.ext4", "-q", "-F", image)
        with mounted(tmp_path / "card", "-o", "loop", image) as card:
            path = card / "out.jsonl"
            writer = Writer(opened(path, flush=flush, fsync=0.02), result)
            for _ in range(20):
                assert writer.writes()
                time.sleep(0.005)
            run("mount", "-o", "remount,abort", card)
            writer.until(taken=False)
            assert re.search("read-only|input/output error", str(writer.subject._why))
            run("umount", card)
            run("mount", "-o", "loop", image, card)
            writer.until(taken=True)
            writer.subject.finish(time.monotonic() + 5)
            writer.subject.close()
            there = seqs(path)
        assert there == sorted(set(there))
        assert there[-1] == writer.seq
        if flush == "each":
            assert len(there) >= 10

    def test_the_daemon(self, disk: Path, start_cli: Any, run_cli: Any, configure: Any) -> None:
        """`check` and the start pass, the daemon runs, and its results are there once the disk can be written."""
        path = disk / "out.jsonl"
        camera = {"type": "pattern", "width": 64, "height": 48}
        config = configure(camera=camera, outputs=[{"type": "jsonl", "path": str(path)}])
        run("mount", "-o", "remount,ro", disk)
        assert run_cli("check", "--config", config).returncode == 0
        child = start_cli("--config", config)
        line = child.stderr.readline()
        while "results are lost there" not in line:
            assert line, "it ended"
            line = child.stderr.readline()
        run("mount", "-o", "remount,rw", disk)
        wait_for(lambda: path.exists() and path.stat().st_size > 2000)
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=TIMEOUT_S)
        assert child.returncode == 0
        assert len(re.findall("works again", errors)) == 1
        there = seqs(path)
        assert there == list(range(there[0], there[-1] + 1))


class TestRotation:
    def test_where_nothing_can_be_renamed(
        self, tmp_path: Path, result: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A log in a folder that cannot be written goes on in its file, which is said once, and is rotated when it can be."""
        monkeypatch.setattr(jsonl, "ROTATE_RETRY_S", 0.0)
        folder = tmp_path / "logs"
        folder.mkdir()
        path = folder / "out.jsonl"
        writer = Writer(opened(path, rotate_size=1000, compress=False), result)
        assert writer.writes()
        with unwritable(folder):
            for _ in range(20):
                assert writer.writes()
            assert (family(path), seqs(path)) == ([], list(range(1, 22)))
        assert writer.writes()
        assert writer.writes()
        writer.subject.finish(time.monotonic() + 5)
        writer.subject.close()
        assert seqs(*family(path), path) == list(range(1, 24))
        assert len(family(path)) == 1
        first, last = [record.getMessage() for record in caplog.records]
        assert re.fullmatch(rf"{path}: cannot be rotated: .*(permitted|denied); it goes on as it is", first)
        assert last == f"{path}: is rotated again"


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """A folder in which nothing can be renamed or made; root is kept out too, where the file system can."""
    if os.getuid():
        lock, unlock = ("chmod", "555"), ("chmod", "755")
    else:
        lock, unlock = ("chattr", "+i"), ("chattr", "-i")
    try:
        run(*lock, folder)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("root is let in everywhere, and the file system has no flag that changes that")
    try:
        yield
    finally:
        run(*unlock, folder)


@pytest.mark.parametrize("flush", ["each", 0.1])
def test_killed(tmp_path: Path, result: Make, flush: Any) -> None:
    """Killed at any moment, of writing, rotating and compressing: no result is there twice or torn, and of those that were
    written none is missing but what came within `flush` before the end."""
    path = tmp_path / "out.jsonl"
    line_bytes = len(result().line())
    script = textwrap.dedent(
        f"""
        import os, sys, time
        from dataclasses import replace
        from pathlib import Path
        from edge_runner.output.base import Item, Origin
        from edge_runner.output.jsonl import JsonLines, JsonLinesConfig
        from edge_runner.result import Answers, Result
        result = Result("pi", "door", "run", 0, 1, 0, "synced", "m", "1", 64, 48, Answers(), {{"inference": 1.5}},
                        source="x" * {line_bytes})
        output = JsonLines(JsonLinesConfig(path=Path({str(path)!r}), flush={flush!r}, rotate_size=20_000, keep={KEEP}))
        output.open(Origin())
        for seq in range(int(sys.argv[1]), 10**9):
            came = time.monotonic()
            output.write(Item(replace(result, seq=seq)))
            output.tick()
            os.write(1, b"%d %f\\n" % (seq, came))
        """
    )
    chance, seq = random.Random(20261123), 1
    for _ in range(KILLS):
        child = subprocess.Popen([sys.executable, "-c", script, str(seq)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        told = b""
        wanted = chance.randrange(2_000, 40_000)
        while len(told) < wanted:  # and then some, as the pipe holds them
            told += os.read(child.stdout.fileno(), 1 << 16)
        child.kill()
        while more := os.read(child.stdout.fileno(), 1 << 16):
            told += more
        child.wait()
        child.stdout.close()
        acknowledged = [line.split() for line in told.splitlines(keepends=True) if line.endswith(b"\n")]
        last = float(acknowledged[-1][1])
        bound = 0.0 if flush == "each" else flush
        safe = [int(number) for number, came in acknowledged if float(came) + bound <= last]
        opened(path, rotate_size=None, compress=False, keep=KEEP).close()
        there = seqs(*family(path), path)
        assert there == list(range(1, len(there) + 1))
        assert not safe or there[-1] >= safe[-1]
        seq = there[-1] + 1
    assert len(family(path)) > KILLS


def lines_since(path: Path, count: int) -> int:
    return path.read_bytes().count(b"\n") - count if path.exists() else 0


def wait_for(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)
