"""Large tensors as files beside the results."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runner.errors import OutputError, SettingError
from edge_runner.output.base import Item, Origin
from edge_runner.output.npz import Npz, NpzConfig
from edge_runner.output.publisher import Publisher
from edge_runner.output.quota import Quota, file_stem
from edge_runner.pipeline import assemble
from edge_runner.result import Answers, RawTensor, Result
from edge_runner.settings import load_settings

Make = Callable[..., Result]
SHOT: Any = None
NAMES = ["boxes", "StatefulPartitionedCall:0", "a/b/c", "file", "../up", "π"]


def large(*names: str, size: int = 4) -> Answers:
    arrays = [np.arange(size, dtype=np.float32) + i for i, _ in enumerate(names)]
    tensors = [RawTensor(name, (size,), "float32", None, array) for name, array in zip(names, arrays, strict=True)]
    return Answers(tensors=(RawTensor("small", (1,), "float32", (1.0,)), *tensors))


def opened(folder: Path, most: int = 10**6) -> Npz:
    output = Npz(NpzConfig(path=folder, max_total=most))
    output.verify()
    output.open(Origin())
    return output


def saved(output: Npz, made: Result) -> str:
    item = output.take(made, SHOT)
    assert item is not None
    output.write(item)
    return item.saved["npz"]


def test_what_is_in_it(tmp_path: Path, result: Make) -> None:
    """NumPy reads every array back under its output's name, whatever that is; what the result holds itself is not there."""
    name = saved(opened(tmp_path / "deep" / "tensors"), result(answers=large(*NAMES)))
    with np.load(tmp_path / "deep" / "tensors" / name, allow_pickle=False) as file:
        assert sorted(file.files) == sorted(NAMES)
        assert all(np.array_equal(file[name], np.arange(4) + i) for i, name in enumerate(NAMES))


def test_two_of_one_name(tmp_path: Path, result: Make) -> None:
    """Two outputs of one name are both kept."""
    name = saved(opened(tmp_path), result(answers=large("x", "x")))
    with np.load(tmp_path / name) as file:
        assert {name: file[name][0] for name in file.files} == {"x": 0, "x_2": 1}


def test_a_raw_model_that_nobody_takes(configure: Any, data: Path) -> None:
    """Outputs that are too large for a line are refused at the start where no output keeps arrays."""
    model = {"path": str(data / "big_raw.tflite")}
    raw = {"model": model, "task": {"type": "raw"}}
    kept = [{"type": "console"}, {"type": "npz", "path": "tensors"}]
    assemble(load_settings(configure(**raw, outputs=kept)))
    with pytest.raises(SettingError, match="add an output that keeps them") as caught:
        assemble(load_settings(configure(**raw, outputs=kept[:1])))
    assert caught.value.key == "task.max_values"
    with pytest.raises(SettingError, match=r"\[1, 100, 100, 3\]"):
        assemble(load_settings(configure(**raw)))


def test_nothing_large_no_file(tmp_path: Path, result: Make) -> None:
    """A result that holds all of its numbers has no file."""
    assert opened(tmp_path).take(result(answers=large()), SHOT) is None
    assert list(tmp_path.iterdir()) == []


def test_the_result_names_it(tmp_path: Path, result: Make) -> None:
    """Every other output gets the result with the file's name, wherever it stands in the configuration."""
    seen = []

    class Sees(Npz):
        saves = False

        def take(self, result: Result, shot: Any) -> Item:
            return Item(result)

        def write(self, item: Item) -> None:
            seen.append(json.loads(item.result.line()))

    outputs = {"outputs.0": Sees(NpzConfig(path=tmp_path)), "outputs.1": Npz(NpzConfig(path=tmp_path))}
    with Publisher(outputs) as publisher:
        returned = publisher.publish(result(seq=7, answers=large("boxes")), SHOT)
    [name] = os.listdir(tmp_path)
    assert seen[0]["npz"] == returned.saved["npz"] == name
    assert seen[0]["tensors"][1] == {"name": "boxes", "shape": [4], "dtype": "float32", "values": None}


def test_names_sort_by_time(result: Make) -> None:
    """The time comes first, so that names sort as the results came; nothing in a camera's name leads out of the folder."""
    times = [0, 999_999_999, 10**18, 1_800_000_000_123_456_789]
    stems = [file_stem(result(time_ns=time, camera="../gate 1")) for time in times]
    assert stems == sorted(stems)
    assert stems[0].startswith("19700101T000000.000000Z-")
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", stem) for stem in stems)


def named(number: int) -> str:
    """A name as results have them, later ones after earlier ones."""
    return f"20261122T1328{number:02}.123456Z-gate-{number}.npz"


class TestQuota:
    def opened(self, folder: Path, most: int = 1000) -> Quota:
        quota = Quota(folder, ".npz", most)
        quota.open()
        return quota

    def test_the_oldest_go(self, tmp_path: Path) -> None:
        """The files never exceed the bytes that they may have together; the oldest are deleted, those of an earlier start too."""
        for start in range(2):
            quota = self.opened(tmp_path)
            for number in range(start * 10, start * 10 + 10):
                quota.save(named(number), b"x" * 300)
                os.utime(tmp_path / named(number), (number, number))
                assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1000
        assert sorted(path.name for path in tmp_path.iterdir()) == [named(n) for n in (17, 18, 19)]

    def test_by_the_files_own_time(self, tmp_path: Path) -> None:
        """What a clock that was ahead called the newest is deleted as what it is, the oldest."""
        future = "20991122T132800.123456Z-gate-1.npz"
        self.opened(tmp_path).save(future, b"x" * 300)
        os.utime(tmp_path / future, (1, 1))
        quota = self.opened(tmp_path)
        for number in range(3):
            quota.save(named(number), b"x" * 300)
        assert not (tmp_path / future).exists()

    def test_other_files_stay(self, tmp_path: Path) -> None:
        """What is not named as results' files are is not counted, and never deleted: a bundle's goldens, a folder, a link."""
        others = ["golden.npz", "0001.npz", "notes.txt", ".config", ".half.npz", "20261122T132800.123456Z-gate-1.jpg"]
        for name in others:
            (tmp_path / name).write_bytes(b"x" * 5000)
        (tmp_path / named(1)).mkdir()
        (tmp_path / named(2)).symlink_to(tmp_path / "golden.npz")
        (tmp_path / named(3)).symlink_to(tmp_path / "gone")
        quota = self.opened(tmp_path)
        for number in range(10, 15):
            quota.save(named(number), b"x" * 600)
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {*others, *(f"{named(number)}" for number in (1, 2, 3, 14))}
        assert all((tmp_path / name).stat().st_size == 5000 for name in others)

    def test_larger_than_all(self, tmp_path: Path) -> None:
        """A file that exceeds the whole quota is refused, and costs none of the others."""
        quota = self.opened(tmp_path)
        quota.save(named(1), b"x" * 900)
        with pytest.raises(OutputError, match="max_total"):
            quota.save(named(2), b"x" * 1001)
        assert os.listdir(tmp_path) == [named(1)]

    def test_the_same_name(self, tmp_path: Path) -> None:
        """A file that takes another one's place counts once."""
        quota = self.opened(tmp_path)
        quota.save(named(0), b"x" * 300)
        for _ in range(5):
            quota.save(named(1), b"x" * 600)
        assert sorted(os.listdir(tmp_path)) == [named(n) for n in (0, 1)]

    def test_remains_of_a_power_cut(self, tmp_path: Path) -> None:
        """A file that was not whole is deleted at a later start, but not one that another process may be writing just now."""
        old, new = (tmp_path / f".{named(number)}" for number in (1, 2))
        for path in (old, new):
            path.write_bytes(b"half")
        os.utime(old, (1, 1))
        self.opened(tmp_path)
        assert os.listdir(tmp_path) == [new.name]

    def test_a_folder_that_goes(self, tmp_path: Path) -> None:
        """A folder that somebody removes is made again."""
        quota = self.opened(tmp_path / "tensors")
        quota.save(named(1), b"x")
        shutil.rmtree(tmp_path / "tensors")
        quota.save(named(2), b"x")
        assert os.listdir(tmp_path / "tensors") == [named(2)]

    def test_what_cannot_be_deleted(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A file that cannot be deleted is told of, and keeps no new one out."""
        quota = self.opened(tmp_path)
        stuck = tmp_path / named(1)
        quota.save(stuck.name, b"x" * 900)
        stuck.unlink()
        stuck.mkdir()
        quota.save(named(2), b"x" * 900)
        assert (tmp_path / named(2)).stat().st_size == 900
        assert [record.getMessage() for record in caplog.records] == [f"{stuck} cannot be deleted: is a directory"]

    def test_a_full_disk(self, mount_tmpfs: Any) -> None:
        """On a full disk nothing of the file is left, and it works again when there is room."""
        disk = mount_tmpfs("64k")
        quota = self.opened(disk, 10**6)
        quota.save(named(1), b"x" * 20_000)
        with pytest.raises(OutputError, match="no space left on device"):
            quota.save(named(2), b"x" * 100_000)
        assert os.listdir(disk) == [named(1)]
        quota.save(named(3), b"x" * 20_000)
        assert sorted(os.listdir(disk)) == [named(1), named(3)]

    @pytest.mark.parametrize("folder", ["tensors", "."])
    def test_a_read_only_disk(self, mount_tmpfs: Any, folder: str, caplog: pytest.LogCaptureFixture) -> None:
        """A disk that is read-only at the start passes; files are saved once it can be written, those before them count."""
        disk = mount_tmpfs("1m")
        if folder == ".":
            for number in (1, 2):
                (disk / named(number)).write_bytes(b"x" * 400)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        quota = Quota(disk / folder, ".npz", 1000)
        quota.verify()
        quota.open()
        for number in (3, 4):
            with pytest.raises(OutputError, match="read-only file system"):
                quota.save(named(number), b"x" * 400)
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        quota.save(named(5), b"x" * 400)
        assert sorted(os.listdir(disk / folder)) == ([named(2)] if folder == "." else []) + [named(5)]
        assert [record.getMessage() for record in caplog.records] == [
            f"{disk / folder}: read-only file system; it is tried again with each file"
        ] * (folder != ".")

    def test_seen_once_it_can_be(self, mount_tmpfs: Any) -> None:
        """What could not be looked at when it was opened counts from the first file on that can be saved."""
        disk = mount_tmpfs("1m")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        quota = self.opened(disk / "tensors")
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        (disk / "tensors").mkdir()
        (disk / "tensors" / named(1)).write_bytes(b"x" * 700)
        quota.save(named(2), b"x" * 400)
        assert os.listdir(disk / "tensors") == [named(2)]

    @pytest.mark.parametrize("durable", [True, False])
    def test_order_of_synchronising(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool) -> None:
        """Where it is `durable`, a file is on the disk, whole, before it gets its name."""
        synced = []
        monkeypatch.setattr(
            os, "fsync", lambda file: synced.append((Path(f"/proc/self/fd/{file}").read_bytes(), os.listdir(tmp_path)))
        )
        quota = Quota(tmp_path, ".npz", 1000, durable=durable)
        quota.open()
        quota.save(named(1), b"content")
        assert synced == [(b"content", [f".{named(1)}"])] * durable
        assert (tmp_path / named(1)).read_bytes() == b"content"

    def test_emptied_by_a_power_cut(self, tmp_path: Path) -> None:
        """A file whose content never reached the disk is deleted at the next start: it would be no picture and no array."""
        (tmp_path / named(1)).write_bytes(b"")
        (tmp_path / "notes.npz").write_bytes(b"")
        self.opened(tmp_path)
        assert os.listdir(tmp_path) == ["notes.npz"]

    @pytest.mark.parametrize("way", [Quota.verify, Quota.open])
    def test_a_file_in_its_place(self, tmp_path: Path, way: Callable[[Quota], None]) -> None:
        """A path that leads through a file is refused at the start, by its name."""
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(SettingError) as caught:
            way(Quota(tmp_path / "file" / "tensors", ".npz", 1000))
        assert caught.value.key == "path"
        assert str(tmp_path / "file") in str(caught.value)
