"""Large tensors as files beside the results."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runner.errors import OutputError, SettingError
from edge_runner.output.npz import Npz, NpzConfig, file_stem
from edge_runner.output.publisher import Publisher
from edge_runner.output.quota import Quota
from edge_runner.result import Answers, RawTensor, Result

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
    output.open()
    return output


def test_what_is_in_it(tmp_path: Path, result: Make) -> None:
    """NumPy reads every array back under its output's name, whatever that is; what the result holds itself is not there."""
    saved = opened(tmp_path / "deep" / "tensors").write(result(answers=large(*NAMES)), SHOT)
    assert saved is not None
    with np.load(tmp_path / "deep" / "tensors" / saved["npz"], allow_pickle=False) as file:
        assert sorted(file.files) == sorted(NAMES)
        assert all(np.array_equal(file[name], np.arange(4) + i) for i, name in enumerate(NAMES))


def test_nothing_large_no_file(tmp_path: Path, result: Make) -> None:
    """A result that holds all of its numbers has no file."""
    assert opened(tmp_path).write(result(answers=large()), SHOT) is None
    assert list(tmp_path.iterdir()) == []


def test_the_result_names_it(tmp_path: Path, result: Make) -> None:
    """Every other output gets the result with the file's name, wherever it stands in the configuration."""
    seen = []

    class Sees(Npz):
        saves = False

        def write(self, result: Result, shot: Any) -> None:
            seen.append(json.loads(result.line()))

    publisher = Publisher({"outputs.0": Sees(NpzConfig(path=tmp_path)), "outputs.1": opened(tmp_path)})
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


class TestQuota:
    def test_the_oldest_go(self, tmp_path: Path) -> None:
        """The files never exceed the bytes that they may have together; the oldest are deleted, those of an earlier start too."""
        for start in range(2):
            quota = Quota(tmp_path, ".npz", 1000)
            quota.open()
            for number in range(10):
                quota.save(f"{start}-{number:02}", b"x" * 300)
                assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1000
        assert sorted(path.name for path in tmp_path.iterdir()) == ["1-07.npz", "1-08.npz", "1-09.npz"]

    def test_other_files_stay(self, tmp_path: Path) -> None:
        """What has another ending is not counted, and never deleted."""
        (tmp_path / "notes.txt").write_bytes(b"x" * 5000)
        quota = Quota(tmp_path, ".npz", 1000)
        quota.open()
        for number in range(5):
            quota.save(str(number), b"x" * 600)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["4.npz", "notes.txt"]

    def test_larger_than_all(self, tmp_path: Path) -> None:
        """A file that exceeds the whole quota is refused, and costs none of the others."""
        quota = Quota(tmp_path, ".npz", 1000)
        quota.open()
        quota.save("a", b"x" * 900)
        with pytest.raises(OutputError, match="max_total"):
            quota.save("b", b"x" * 1001)
        assert os.listdir(tmp_path) == ["a.npz"]

    def test_remains_of_a_power_cut(self, tmp_path: Path) -> None:
        """A file that was not whole yet is deleted at the next start."""
        (tmp_path / ".b.npz").write_bytes(b"half")
        (tmp_path / ".config").write_bytes(b"not ours")
        Quota(tmp_path, ".npz", 1000).open()
        assert os.listdir(tmp_path) == [".config"]

    def test_a_full_disk(self, tmp_path: Path) -> None:
        """On a full disk nothing of the file is left, and it works again when there is room."""
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], capture_output=True)
        if mount.returncode:
            pytest.skip(f"no disk of its own: {mount.stderr.decode().strip()}")
        try:
            quota = Quota(disk, ".npz", 10**6)
            quota.open()
            quota.save("a", b"x" * 20_000)
            with pytest.raises(OutputError, match="no space left on device"):
                quota.save("b", b"x" * 100_000)
            assert os.listdir(disk) == ["a.npz"]
            assert quota.save("c", b"x" * 20_000) == "c.npz"
        finally:
            subprocess.run(["umount", str(disk)], check=True)

    @pytest.mark.parametrize("way", [Quota.verify, Quota.open])
    def test_a_file_in_its_place(self, tmp_path: Path, way: Callable[[Quota], None]) -> None:
        """A path that leads through a file is refused at the start, by its name."""
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(SettingError) as caught:
            way(Quota(tmp_path / "file" / "tensors", ".npz", 1000))
        assert caught.value.key == "path"
        assert str(tmp_path / "file") in str(caught.value)
