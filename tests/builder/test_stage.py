"""Where a bundle comes to be: whole or not at all, and the same bytes for the same files."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from edge_runner.builder.stage import commit, packed_bundle, staged
from edge_runner.errors import EXIT_FAILED, OutputError

FILES = {"manifest.json": b"{}", "model.tflite": b"\x00\x01", "labels.txt": "grün\n".encode()}


def write(folder: Path, version: str = "") -> Path:
    for name, content in FILES.items():
        (folder / name).write_bytes(content + version.encode())
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_bundle_comes_with_its_archive(tmp_path):
    """The folder takes its place with everything in it, for anybody to read, and the archive lies beside it."""
    target = tmp_path / "models/birds"
    with staged(target) as folder:
        assert folder.parent == target.parent, "renaming works within one file system"
        archive = commit(write(folder), target, "birds-1")
    assert contents(target) == FILES
    assert target.stat().st_mode & 0o777 == 0o755
    assert archive == target.parent / "birds-1.tar.gz"
    assert sorted(os.listdir(target.parent)) == ["birds", "birds-1.tar.gz"]


def test_the_archive_unpacks_to_the_bundle(tmp_path):
    """NAME-VERSION.tar.gz holds one folder of that name, with the same files."""
    with staged(tmp_path / "birds") as folder:
        archive = commit(write(folder), tmp_path / "birds", "birds-1")
    with tarfile.open(archive) as packed:
        names = packed.getnames()
    (tmp_path / "board").mkdir()
    subprocess.run(["tar", "xzf", archive, "-C", tmp_path / "board"], check=True)
    assert names[0] == "birds-1"
    assert sorted(names[1:]) == [f"birds-1/{name}" for name in sorted(FILES)]
    assert contents(tmp_path / "board/birds-1") == FILES


def test_equal_files_are_equal_archives(tmp_path):
    """An archive says nothing of when, where and by whom it was packed."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        write(folder)
    for number, path in enumerate(sorted(other.iterdir(), reverse=True)):
        os.utime(path, (number, number))
        path.chmod(0o600)
    assert packed_bundle(one, "birds-1") == packed_bundle(other, "birds-1")
    assert packed_bundle(one, "birds-1") != packed_bundle(one, "birds-2")
    (other / "labels.txt").write_bytes(b"blau\n")
    assert packed_bundle(one, "birds-1") != packed_bundle(other, "birds-1")


def test_an_older_bundle_is_replaced_whole(tmp_path):
    """Nothing of the older bundle stays, and nothing else lies beside the new one."""
    target = tmp_path / "birds"
    with staged(target) as folder:
        write(folder)
        (folder / "report.md").write_text("old")
        commit(folder, target, "birds-1")
    with staged(target) as folder:
        commit(write(folder, "new"), target, "birds-1")
    assert contents(target) == {name: content + b"new" for name, content in FILES.items()}
    assert sorted(os.listdir(tmp_path)) == ["birds", "birds-1.tar.gz"]


def end(folder: Path, error: type[BaseException]) -> None:
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_is_not_committed_goes_again(tmp_path, error):
    """Whatever ends a build, the older bundle is as it was, and what was begun is gone."""
    target = tmp_path / "birds"
    with staged(target) as folder:
        commit(write(folder), target, "birds-1")
    before = contents(target)
    with pytest.raises(error), staged(target) as folder:
        end(write(folder, "half"), error)
    assert contents(target) == before
    assert sorted(os.listdir(tmp_path)) == ["birds", "birds-1.tar.gz"]


@pytest.mark.parametrize("broken", range(5))
def test_an_interruption_at_any_step_of_the_commit(tmp_path, monkeypatch, broken):
    """Ctrl-C between two steps of the exchange leaves one whole bundle, the old or the new, and nothing beside it."""
    target = tmp_path / "birds"
    with staged(target) as folder:
        commit(write(folder), target, "birds-1")
    steps = []

    def interrupted(name):
        function = getattr(Path, name)

        def step(self, *arguments):
            steps.append(name)
            if len(steps) == broken + 1:
                raise KeyboardInterrupt
            return function(self, *arguments)

        monkeypatch.setattr(Path, name, step)

    def exchange(folder):
        write(folder, "new")
        for name in ("write_bytes", "chmod", "rename", "replace"):
            interrupted(name)
        commit(folder, target, "birds-1")

    with pytest.raises(KeyboardInterrupt), staged(target) as folder:
        exchange(folder)
    monkeypatch.undo()
    assert len(steps) > broken
    assert contents(target) in (
        FILES,
        {name: content + b"new" for name, content in FILES.items()},
    )
    assert sorted(os.listdir(tmp_path)) == ["birds", "birds-1.tar.gz"]


def test_a_full_disk(tmp_path):
    """No space left is an error with the place, of something that failed and not of the configuration."""
    with pytest.raises(OutputError, match=r"birds: no space left on device$") as caught, staged(tmp_path / "birds"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.exit_code == EXIT_FAILED
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be(tmp_path):
    """A parent that is a file is said, with the place."""
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file: "), staged(tmp_path / "file/birds"):
        pytest.fail("there is no such place")


def test_missing_parents_are_made(tmp_path):
    """The folder's parents need not be there."""
    with staged(tmp_path / "a/b/birds") as folder:
        commit(write(folder), tmp_path / "a/b/birds", "birds-1")
    assert contents(tmp_path / "a/b/birds") == FILES
    shutil.rmtree(tmp_path / "a")
