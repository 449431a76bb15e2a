"""The file that lines are appended to, and what a power cut leaves of it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from edge_runner.errors import SettingError
from edge_runner.output import logfile
from edge_runner.output.logfile import LINE_START, TAIL_BYTES, Damaged, LogFile

pytestmark = pytest.mark.arm

WHOLE = b'{"schema": 1, "seq": 1}\n'


def repaired(path: Path) -> LogFile:
    file = LogFile(path)
    file.open()
    file.close()
    return file


@pytest.mark.parametrize("before", [b"", WHOLE, WHOLE * 100_000])
@pytest.mark.parametrize(
    ("tail", "torn"),
    [
        (b'{"schema": 1, "ti', 1),
        (b"{", 1),
        (b'{"schema": 1}', 1),
        (b'{"schema": 1, "label": "K\xc3', 1),
        (b"\0" * 5000, 1),
        (b"\0" * (2 * TAIL_BYTES + 5), 1),
        (b'{"schema": 1, "ti\0\0\0\0', 1),
        (b'{"schema": 1, "ti\0\0\0\0abel": "cat"}\n', 1),
        (b'{"sch\0\0\0\0abel": "cat"}\n', 1),
        (b"\0" * 512 + b'bel": "cat"}\n', 1),
        (b"\n", 0),
        (b" \n\r\n\n", 0),
        (b"\n\0\0\0", 0),
        (b'{"schema": 1, "ti}\n', 1),
        (b'{"schema": \xff}\n', 1),
    ],
)
def test_torn(tmp_path: Path, before: bytes, tail: bytes, torn: int) -> None:
    """From the first line on that is not whole, everything goes: all before it stays, however large the file is."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(before + tail)
    file = repaired(path)
    assert path.read_bytes() == before
    assert (file.torn, file.torn_bytes) == (torn, len(tail))


def test_hole(tmp_path: Path) -> None:
    """A page that a power cut left out, from a line's start on, is cut off with what is behind it."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(WHOLE + b"\0" * 4096 + b'bel": "cat"}\n' + WHOLE)
    assert repaired(path).torn == 2
    assert path.read_bytes() == WHOLE


@pytest.mark.parametrize(
    ("tail", "torn"),
    [
        (b"GIF89a what a deleted file held\nand more of it\n", 2),
        (b"GIF89a what a\0deleted file held\nand more of it", 2),
        (b"\xff\xfe" * 256, 1),
        (b"started anew by hand\n", 1),
        (b"[1]\n12\n", 2),
        (b"\xff\n" * (TAIL_BYTES // 4), TAIL_BYTES // 4),
    ],
)
def test_what_was_never_ours(tmp_path: Path, tail: bytes, torn: int) -> None:
    """What stands behind the lines of a file of results, of a deleted file or of somebody's hand, is cut off like a torn line."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(WHOLE * 3 + tail)
    assert repaired(path).torn == torn
    assert path.read_bytes() == WHOLE * 3


@pytest.mark.parametrize("at", range(len(WHOLE) * 3, len(WHOLE) * 4))
def test_hole_anywhere(tmp_path: Path, at: int) -> None:
    """Wherever in a line a hole begins that a power cut left, the lines before it stay."""
    path = tmp_path / "out.jsonl"
    content = WHOLE * 100
    path.write_bytes(content[:at] + bytes(512) + content[at + 512 :])
    repaired(path)
    assert path.read_bytes() == WHOLE * 3


def test_lost_beginning(tmp_path: Path) -> None:
    """A file that lost its first megabytes is still one of results, whose torn end is cut off."""
    path = tmp_path / "out.jsonl"
    content = bytes(2 * TAIL_BYTES) + b'q": 1}\n' + WHOLE
    path.write_bytes(content + WHOLE[:-5])
    assert repaired(path).torn == 1
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [
        bytes(512) + b'q": 1}\n' + WHOLE * 5,
        bytes(4096) + WHOLE * 5 + WHOLE[:7],
        b'{"schema": 1, "ti\0\0\0\0abel": "cat"}\n' + WHOLE,
        WHOLE + b"\xff" * (TAIL_BYTES + 1) + b"\n" + b"\xff",
        WHOLE + b"\xff\n" * TAIL_BYTES,
    ],
)
def test_damaged(tmp_path: Path, content: bytes) -> None:
    """Where no whole line is before the damage, as far back as a power cut reaches, but some elsewhere, nothing is cut off."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(content)
    file = LogFile(path)
    with pytest.raises(Damaged):
        file.open()
    assert (path.read_bytes(), file.torn, file.is_open) == (content, 1, False)


@pytest.mark.parametrize(
    "content",
    [
        b"a diary\nwithout an end",
        b"a diary\nwith an end\n",
        b"\xff\xd8 picture",
        b"\xff\xd8\0\0 picture",
        b"\0\0\0\x18ftypmp42 film",
        b"x" * (TAIL_BYTES + 5),
        b'{"other": 1}',
        b"[1, 2]\n",
        b'{"a": 1}\nnot JSON\n',
        b"\0" * 2 * TAIL_BYTES + b"a disk's image",
        b"a diary\n" + WHOLE[:-1],
        b"\n" * 20 + b"a diary\n",
        "\n in UTF-16".encode("utf-16-le"),
    ],
)
def test_file_of_something_else(tmp_path: Path, content: bytes) -> None:
    """A file that neither begins nor ends as a file of results does is refused, and stays as it is."""
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(SettingError, match="is no file of results"):
        repaired(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        WHOLE,
        b'{"seq": 1}\n',
        b'{"schema": 1, "mask": "' + b"x" * 3_000_000 + b'"}\n',
        bytes(2 * TAIL_BYTES) + b'q": 1}\n' + WHOLE,
    ],
)
def test_whole(tmp_path: Path, content: bytes) -> None:
    """A file whose last line is whole, or an empty one, is not touched, however long that line is."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(content)
    os.utime(path, (1, 1))
    assert repaired(path).torn == 0
    assert (path.read_bytes(), path.stat().st_mtime) == (content, 1)


@pytest.mark.parametrize("cut", range(1, len(WHOLE)))
def test_torn_anywhere(tmp_path: Path, cut: int) -> None:
    """Wherever a line is torn, it goes, and only it."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(WHOLE * 2 + WHOLE[:cut])
    repaired(path)
    assert path.read_bytes() == WHOLE * 2


def test_waits_for_the_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is locked by a process just about to end is had a moment later."""
    one, other = LogFile(tmp_path / "out.jsonl"), LogFile(tmp_path / "out.jsonl")
    one.open()
    with pytest.raises(BlockingIOError):
        other.open()
    assert not other.is_open
    sleep = time.sleep
    monkeypatch.setattr(logfile.time, "sleep", lambda seconds: one.close() or sleep(seconds))
    other.open(wait_s=60)
    assert other.is_open
    other.close()


@pytest.mark.parametrize("durable", [True, False])
def test_new_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool) -> None:
    """The name of a new file is on the disk before the first line comes, where that is asked for; an old one's is already."""
    synced: list[tuple[str, list[str]]] = []

    def fsync(file: int) -> None:
        folder = os.readlink(f"/proc/self/fd/{file}")
        synced.append((folder, os.listdir(folder)))

    monkeypatch.setattr(os, "fsync", fsync)
    for _ in range(2):
        file = LogFile(tmp_path / "deep" / "out.jsonl")
        file.open(durable=durable)
        file.close()
    assert synced == [(str(tmp_path / "deep"), ["out.jsonl"])] * durable


def test_days(tmp_path: Path) -> None:
    """A file tells how many bytes of each day are in it, from a place on."""
    first = b'{"schema": 1, "time": "2026-11-22T23:59:59.999999Z"}\n'
    second = b'{"schema": 1, "time": "2026-11-23T00:00:00.000000Z", "label": "cat"}\n'
    path = tmp_path / "out.jsonl"
    path.write_bytes(first + second + WHOLE + second)
    file = LogFile(path)
    file.open()
    assert file.days(0) == {"2026-11-22": len(first), "2026-11-23": 2 * len(second)}
    assert file.days(len(first + second)) == {"2026-11-23": len(second)}
    file.append([WHOLE])
    assert path.read_bytes().endswith(second + WHOLE)
    file.close()


def test_line_start(result: object) -> None:
    """Results begin as the repair expects them to, with their time near to that."""
    line = result().line().encode()  # type: ignore[operator]
    assert line.startswith(LINE_START)
    assert logfile.LINE_TIME.search(line, 0, logfile.HEAD_BYTES)
