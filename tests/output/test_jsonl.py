"""Results as JSON lines in a file."""

from __future__ import annotations

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

from edge_runner.errors import OutputError, SettingError
from edge_runner.output.jsonl import TAIL_BYTES, JsonLines, JsonLinesConfig
from edge_runner.result import Result

pytestmark = pytest.mark.arm

Make = Callable[..., Result]
SHOT: Any = None  # a file of lines needs no picture


def output(path: Path) -> JsonLines:
    return JsonLines(JsonLinesConfig(path=path))


def written(path: Path, *results: Result) -> None:
    subject = output(path)
    subject.open()
    for result in results:
        subject.write(result, SHOT)
    subject.close()


def test_a_line_each(tmp_path: Path, result: Make) -> None:
    """Each result is its JSON line, in UTF-8, and there as soon as it is written."""
    path = tmp_path / "out.jsonl"
    subject = output(path)
    subject.open()
    results = [result(("Käse", 0.5), seq=n) for n in range(1, 4)]
    for number, made in enumerate(results, 1):
        subject.write(made, SHOT)
        assert path.read_bytes() == "".join(r.line() + "\n" for r in results[:number]).encode("utf-8")
    subject.close()


def test_appended(tmp_path: Path, result: Make) -> None:
    """What a file holds stays; a new run goes on at its end. Folders are made as needed."""
    path = tmp_path / "a/b/out.jsonl"
    written(path, result(seq=1))
    written(path, result(seq=2))
    assert [json.loads(line)["seq"] for line in path.read_text().splitlines()] == [1, 2]


def test_open_and_close_twice(tmp_path: Path, result: Make, nothing_left: None) -> None:
    """Opening and closing can be repeated, and leave no descriptor."""
    subject = output(tmp_path / "out.jsonl")
    for _ in range(2):
        subject.open()
        subject.open()
        subject.write(result(), SHOT)
        subject.close()
        subject.close()
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("tail", [b'{"schema": 1, "ti', b"{", b'{"schema": 1}', b"\0" * 5000])
@pytest.mark.parametrize("before", [b"", b'{"seq": 1}\n'])
def test_torn_tail(tmp_path: Path, result: Make, caplog: pytest.LogCaptureFixture, before: bytes, tail: bytes) -> None:
    """What a power cut left of a last line is taken away, with one warning, so that the next line is whole."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(before + tail)
    written(path, result(seq=2))
    assert path.read_bytes() == before + (result(seq=2).line() + "\n").encode()
    [record] = caplog.records
    assert f"{len(tail)} bytes were cut off" in record.getMessage()
    assert str(path) in record.getMessage()


def test_torn_tail_of_a_large_file(tmp_path: Path, result: Make) -> None:
    """Only the file's end is looked at, and nothing whole is lost."""
    path = tmp_path / "out.jsonl"
    whole = b'{"seq": 1}\n' * (2 * TAIL_BYTES // 11)
    path.write_bytes(whole + b'{"schema": 1, "seq": 2')
    written(path)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "content", [b"a diary\nwithout an end", b"\xff\xd8 picture", b"x" * (TAIL_BYTES + 5), b'{"other": 1}']
)
def test_file_of_something_else_is_left_alone(tmp_path: Path, content: bytes) -> None:
    """A file that does not end as a file of results does is refused, and stays as it is."""
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(SettingError, match="is no file of results"):
        output(path).open()
    assert path.read_bytes() == content


def test_whole_file_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file whose last line is whole, or an empty one, is not touched."""
    for content in (b"", b'{"seq": 1}\n'):
        path = tmp_path / "out.jsonl"
        path.write_bytes(content)
        written(path)
        assert path.read_bytes() == content
    assert not caplog.records


class TestFullDisk:
    def test_no_room_at_all(self, result: Make) -> None:
        """A device without room refuses the line, in words."""
        subject = output(Path("/dev/full"))
        subject.open()
        with pytest.raises(OutputError, match="/dev/full: no space left on device"):
            subject.write(result(), SHOT)
        subject.close()

    def test_room_for_half_a_line(self, tmp_path: Path, result: Make) -> None:
        """A line that fits in part is taken back to its start; when there is room again, lines are whole."""
        path = tmp_path / "out.jsonl"
        line = len(result().line()) + 1
        script = textwrap.dedent(
            f"""
            import pickle, resource, signal, sys
            import numpy as np
            from pathlib import Path
            from edge_runner.errors import OutputError
            from edge_runner.output.jsonl import JsonLines, JsonLinesConfig
            result, picture = pickle.load(sys.stdin.buffer), np.zeros((4, 4, 3), np.uint8)
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            output = JsonLines(JsonLinesConfig(path=Path({str(path)!r})))
            output.open()
            output.write(result, picture)
            resource.setrlimit(resource.RLIMIT_FSIZE, ({line * 2 + line // 2}, resource.RLIM_INFINITY))
            output.write(result, picture)
            for attempt in range(3):
                try:
                    output.write(result, picture)
                except OutputError as error:
                    print(Path({str(path)!r}).stat().st_size, error)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            output.write(result, picture)
            """
        )
        done = subprocess.run(
            [sys.executable, "-c", script], input=pickle.dumps(result()), capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode().splitlines() == [f"{line * 2} {path}: no room for the whole line"] * 3
        assert path.read_text() == (result().line() + "\n") * 3


def test_killed_while_writing(tmp_path: Path, start_cli: Any, configure: Any, colours: Path) -> None:
    """A process that is killed at any moment leaves whole lines only."""
    path = tmp_path / "out.jsonl"
    camera = {"type": "images", "path": "colours", "loop": True}
    child = start_cli("--config", configure(camera=camera, outputs=[{"type": "jsonl", "path": "out.jsonl"}]))
    deadline = time.monotonic() + 30
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
        for attempt in (output(path).verify, output(path).open):
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
