"""Results on standard output."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edge_runner.errors import OutputError
from edge_runner.output.base import Item, Origin
from edge_runner.output.console import Console, ConsoleConfig, readable
from edge_runner.result import Answers, RawTensor, Result

Make = Callable[..., Result]


def test_readable_line(result: Make) -> None:
    """A person gets the time, the camera, the frame, the answers and what it took in one short line."""
    made = result(("7", 0.998), ("1", 0.0021))
    assert readable(made) == "13:28:00.123  front-door 1234  7 0.998  1 0.002  (32.8 ms)"


def test_readable_line_of_a_file(result: Make) -> None:
    """A file's result names the file; where nothing was found, a dash says so."""
    made = result(source="cat.jpg", frame=3, answers=Answers(classifications=()))
    assert readable(made) == "13:28:00.123  cat.jpg 3  -  (32.8 ms)"


def test_readable_line_of_tensors(result: Make) -> None:
    """Outputs that nobody decodes are named with their shapes: their values would fill the screen."""
    tensors = (RawTensor("boxes", (1, 2), "float32", (0.5, None)), RawTensor("count", (1,), "int32", (7,)))
    assert readable(result(answers=Answers(tensors=tensors))) == (
        "13:28:00.123  front-door 1234  boxes [1, 2]  count [1]  (32.8 ms)"
    )


def test_json_where_it_is_piped(result: Make, capfd: pytest.CaptureFixture[str]) -> None:
    """Whoever reads a pipe gets the result as JSON, a line each, at once."""
    console = Console(ConsoleConfig())
    console.open(Origin())
    for seq in (1, 2):
        made = result(seq=seq)
        console.write(Item(made))
        assert capfd.readouterr().out == made.line() + "\n"


def test_terminal_gets_words(start_cli: Any, configure: Any, colours: Any) -> None:
    """On a terminal the command prints readable lines, and JSON where it is piped."""
    path = configure(camera={"type": "images", "path": "colours"})
    controller, terminal = pty.openpty()
    child = start_cli("--config", path, stdout=terminal)
    os.close(terminal)
    shown = b""
    while True:
        try:
            part = os.read(controller, 4096)
        except OSError:  # the terminal's other end is closed
            break
        if not part:
            break
        shown += part
    os.close(controller)
    assert child.wait(30) == 0
    lines = shown.decode().splitlines()
    assert [line.split()[1:4] for line in lines] == [
        ["1.png", "1", "red"],
        ["2.png", "2", "green"],
        ["3.png", "3", "blue"],
    ]


def test_each_line_at_once(start_cli: Any, configure: Any) -> None:
    """Whoever reads a pipe has a result as soon as it is there, not when a buffer is full."""
    child = start_cli("--config", configure(camera={"type": "pattern", "max_fps": 0.02}))
    assert select.select([child.stdout], [], [], 30)[0]
    assert json.loads(child.stdout.readline())["seq"] == 1
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 0


def test_utf8_whatever_the_locale(run_cli: Any, configure: Any, colours: Path, tmp_path: Path, data: Path) -> None:
    """JSON is UTF-8, even where the environment asks for something smaller."""
    (tmp_path / "labels.txt").write_text("rot\ngrün\n青\n", "utf-8")
    model = {"path": str(data / "colour.tflite"), "labels": "labels.txt"}
    path = configure(camera={"type": "images", "path": "colours"}, model=model)
    done = run_cli("--config", path, env={**os.environ, "PYTHONIOENCODING": "latin-1"}, text=False)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line)["classifications"][0]["label"] for line in done.stdout.decode("utf-8").splitlines()]
    assert answers == ["rot", "grün", "青"]


def test_full_disk_costs_the_result(result: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output on a full disk is a broken output, as any other."""
    with suppress(OSError), open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        console = Console(ConsoleConfig())
        console.open(Origin())
        with pytest.raises(OutputError, match="standard output: no space left on device"):
            console.write(Item(result()))
        monkeypatch.undo()


def test_half_a_line(result: Make, monkeypatch: pytest.MonkeyPatch, mount_tmpfs: Any) -> None:
    """Half a line on a disk that is full is lost and counted, and costs no other: the next one begins on a line of its own."""
    disk = mount_tmpfs("8k")
    filler = disk / "filler"
    filler.write_bytes(b"x" * 4096)
    lost = 0
    with (disk / "out.jsonl").open("w") as file, suppress(OSError):
        monkeypatch.setattr(sys, "stdout", file)
        console = Console(ConsoleConfig())
        console.open(Origin())
        for seq in range(1, 26):
            if seq == 20:
                filler.unlink()
            try:
                console.write(Item(result(seq=seq)))
            except OutputError as error:
                lost += error.lost
        monkeypatch.undo()
    lines = (disk / "out.jsonl").read_text().splitlines()
    [half] = [line for line in lines if not line.endswith("}")]
    lines.remove(half)
    assert 0 < lost < 19
    assert [json.loads(line)["seq"] for line in lines] == [*range(1, 20 - lost), *range(20, 26)]


def test_closed_pipe_is_told_apart(result: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that has gone is no broken output: whoever runs the loop is told."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        console = Console(ConsoleConfig())
        console.open(Origin())
        with pytest.raises(BrokenPipeError):
            console.write(Item(result()))
        monkeypatch.undo()


class TestJournal:
    def run(self, run_cli: Any, path: Path, target: Path, inode: int | None = None) -> list[str]:
        """The labels that a run prints into a file that is said to be the journal."""
        with target.open("w") as stdout:
            status = os.fstat(stdout.fileno())
            stream = f"{status.st_dev}:{status.st_ino if inode is None else inode}"
            done = run_cli("--config", path, stdout=stdout, env={**os.environ, "JOURNAL_STREAM": stream})
        assert done.returncode == 0, done.stderr
        return [json.loads(line)["classifications"][0]["label"] for line in target.read_text().splitlines()]

    def test_gets_what_changes(self, run_cli: Any, configure: Any, tmp_path: Path, paint: Any) -> None:
        """The journal gets a line where the answer changes; whoever says `when` gets what that says, and a file everything."""
        for number, colour in enumerate(("red", "red", "blue", "blue", "blue")):
            paint(tmp_path / "pictures" / f"{number}.png", colour)
        camera = {"type": "images", "path": "pictures"}
        target = tmp_path / "stdout"
        assert self.run(run_cli, configure(camera=camera), target) == ["red", "blue"]
        assert len(self.run(run_cli, configure(camera=camera), target, inode=1)) == 5
        outputs = [{"type": "console", "when": {"changed": False}}]
        assert len(self.run(run_cli, configure(camera=camera, outputs=outputs), target)) == 5
