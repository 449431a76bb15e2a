"""`edge-runner snapshot`."""

from __future__ import annotations

import json
import os
import pty
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_runner.camera.base import Camera
from edge_runner.errors import OutputError
from edge_runner.frame import Picture
from edge_runner.pipeline import Pipeline
from edge_runner.tools.snapshot import GAP_PX, check_target, snapshot, write_picture

Assemble = Callable[..., Pipeline]


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A picture of 160x120: red, its right half blue; its last line is green."""
    picture = np.zeros((120, 160, 3), np.uint8)
    picture[:, :80, 2] = 250
    picture[:, 80:, 0] = 250
    picture[-1] = (0, 250, 0)
    cv2.imwrite(str(tmp_path / "scene.png"), picture)
    return tmp_path / "scene.png"


@pytest.fixture
def looking(assemble: Assemble, configure: Any, scene: Path) -> Callable[..., Pipeline]:
    def make(**camera: Any) -> Pipeline:
        pipeline = assemble(configure(camera={"type": "images", "path": "scene.png", **camera}))
        pipeline.publisher.outputs = {}
        return pipeline

    return make


def halves(picture: Picture, width: int) -> tuple[Picture, Picture]:
    return picture[:, :width], picture[:, width + GAP_PX :]


class TestPicture:
    def test_what_both_see(self, looking: Any, tmp_path: Path) -> None:
        """Left the whole frame with the answer written on it, right the model's input, at the same height, with a gap."""
        snapshot(looking(), str(tmp_path / "aim.png"))
        picture = cv2.imread(str(tmp_path / "aim.png"))
        assert picture is not None
        assert picture.shape == (120, 160 + GAP_PX + 120, 3)
        assert (picture[:, 160 : 160 + GAP_PX] == 255).all()
        left, right = halves(picture, 160)
        assert left[-2, 0].tolist() == [0, 0, 250]
        assert left[-2, -1].tolist() == [250, 0, 0]
        assert (left[-1] == (0, 250, 0)).all()
        assert (left[:40, :80] > 200).all(axis=2).any()  # white letters
        assert right[0, 0].tolist() == [0, 0, 250]
        assert right[-1, -1].tolist() == [250, 0, 0]
        assert len(np.unique(right.reshape(-1, 3), axis=0)) <= 8

    def test_crop(self, looking: Any, tmp_path: Path) -> None:
        """The model's half shows the crop only, the camera's half the whole frame."""
        snapshot(looking(crop=[0.5, 0, 0.5, 1]), str(tmp_path / "aim.png"))
        picture = cv2.imread(str(tmp_path / "aim.png"))
        assert picture is not None
        left, right = halves(picture, 160)
        assert left[-2, 0].tolist() == [0, 0, 250]
        assert (right == (250, 0, 0)).all()

    def test_turned(self, looking: Any, tmp_path: Path) -> None:
        """Both halves are upright."""
        snapshot(looking(rotate=90), str(tmp_path / "aim.png"))
        picture = cv2.imread(str(tmp_path / "aim.png"))
        assert picture is not None
        assert picture.shape == (160, 120 + GAP_PX + 160, 3)
        _, right = halves(picture, 120)
        assert right[0, 0].tolist() == [0, 0, 250]
        assert right[-1, 0].tolist() == [250, 0, 0]

    def test_result_is_that_of_the_picture(self, looking: Any, tmp_path: Path) -> None:
        """The result that is returned is what is drawn."""
        result = snapshot(looking(crop=[0.5, 0, 0.5, 1]), str(tmp_path / "aim.jpg"))
        assert result.answers.classifications is not None
        assert result.answers.classifications[0].label == "blue"

    @pytest.mark.usefixtures("nothing_left")
    def test_leaves_nothing_open(self, looking: Any, tmp_path: Path) -> None:
        """Camera and descriptors are given back."""
        pipeline = looking()
        [feed] = pipeline.feeds.values()
        closed: list[Camera] = []
        close = feed.camera.close
        feed.camera.close = lambda: closed.append(feed.camera) or close()
        snapshot(pipeline, str(tmp_path / "aim.jpg"))
        assert closed


class TestFile:
    PICTURE = np.full((8, 8, 3), 120, np.uint8)

    @pytest.mark.parametrize(
        ("name", "magic"),
        [
            ("a.jpg", b"\xff\xd8"),
            ("a.JPEG", b"\xff\xd8"),
            ("a.png", b"\x89PNG"),
            ("noending", b"\xff\xd8"),
            ("a.b.png", b"\x89PNG"),
        ],
    )
    def test_format(self, tmp_path: Path, name: str, magic: bytes) -> None:
        """The ending says which format; without one it is a JPEG."""
        write_picture(self.PICTURE, str(tmp_path / name))
        assert (tmp_path / name).read_bytes().startswith(magic)
        assert [path.name for path in tmp_path.iterdir()] == [name]

    def test_written_beside_and_renamed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that is there is replaced at once, never half written; a failure leaves it, and nothing else."""
        target = tmp_path / "a.jpg"
        target.write_text("the old one")

        def fail(*_: object) -> None:
            assert target.read_text() == "the old one"
            assert len(list(tmp_path.iterdir())) == 2
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", fail)
        with pytest.raises(OutputError, match="no space left on device"):
            write_picture(self.PICTURE, str(target))
        assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]
        monkeypatch.undo()
        write_picture(self.PICTURE, str(target))
        assert target.read_bytes().startswith(b"\xff\xd8")

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("a.xyz", r"OpenCV cannot write '\.xyz' pictures; use \.jpg or \.png"),
            ("nowhere/a.jpg", "is no folder"),
            ("file/a.jpg", "is no folder"),
            ("folder", "names no file"),
            ("", "names no file"),
        ],
    )
    def test_where_it_cannot_be(self, tmp_path: Path, name: str, why: str) -> None:
        """A target that cannot be written is said, and nothing is left beside it."""
        (tmp_path / "file").write_text("")
        (tmp_path / "folder").mkdir()
        with pytest.raises(OutputError, match=why) as caught:
            check_target(str(tmp_path / name) if name else "")
        assert caught.value.exit_code == 1
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


class TestCommand:
    def test_to_a_file(self, run_cli: Any, configure: Any, scene: Path, tmp_path: Path) -> None:
        """The picture goes to the file and the result to standard error; the configured outputs get nothing."""
        outputs = [{"type": "console"}, {"type": "jsonl", "path": "out.jsonl"}]
        path = configure(camera={"type": "images", "path": "scene.png"}, outputs=outputs)
        done = run_cli("snapshot", "--config", path, "-o", "aim.jpg")
        assert (done.returncode, done.stdout) == (0, "")
        assert json.loads(done.stderr)["source"] == "scene.png"
        assert cv2.imread(str(tmp_path / "aim.jpg")) is not None
        assert not (tmp_path / "out.jsonl").exists()

    def test_to_a_pipe(self, run_cli: Any, configure: Any, scene: Path) -> None:
        """`-o -` writes a JPEG, and nothing else, to standard output."""
        path = configure(camera={"type": "images", "path": "scene.png"})
        done = run_cli("snapshot", "--config", path, "-o", "-", text=False)
        assert done.returncode == 0
        assert done.stdout.startswith(b"\xff\xd8")
        assert done.stdout.endswith(b"\xff\xd9")
        decoded = cv2.imdecode(np.frombuffer(done.stdout, np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None
        assert decoded.shape == (120, 160 + GAP_PX + 120, 3)

    def test_of_a_live_camera(self, run_cli: Any, configure: Any, tmp_path: Path) -> None:
        """A live camera's picture is whole, however small the model's input is."""
        done = run_cli("snapshot", "--config", configure(camera={"type": "pattern"}), "-o", "aim.png")
        assert done.returncode == 0, done.stderr
        picture = cv2.imread(str(tmp_path / "aim.png"))
        assert picture is not None
        assert picture.shape == (480, 640 + GAP_PX + 480, 3)

    def test_of_one_camera_of_several(self, run_cli: Any, configure: Any, scene: Path, tmp_path: Path) -> None:
        """Of several cameras, the one that is named is taken; the others are not even opened."""
        cameras = {"door": {"type": "images", "path": "scene.png"}, "gate": {"type": "pattern", "width": 64}}
        path = configure(camera=None, cameras=cameras)
        done = run_cli("snapshot", "--config", path, "--camera", "door", "-o", "aim.png")
        assert done.returncode == 0, done.stderr
        assert (json.loads(done.stderr)["camera"], json.loads(done.stderr)["source"]) == ("door", "scene.png")
        assert cv2.imread(str(tmp_path / "aim.png")).shape == (120, 160 + GAP_PX + 120, 3)

    def test_which_of_several(self, run_cli: Any, configure: Any) -> None:
        """Where there are several, and none or one that is not there is named, the names are told."""
        path = configure(camera=None, cameras={"door": {"type": "pattern"}, "gate": {"type": "pattern"}})
        for given, code, words in (
            ([], 2, "which camera? --camera NAME, one of door, gate"),
            (["--camera", "shed"], 78, "there is no camera 'shed'; there is door, gate"),
        ):
            done = run_cli("snapshot", "--config", path, "-o", "aim.jpg", *given)
            assert (done.returncode, done.stderr) == (code, f"edge-runner: error: {words}\n")

    def test_not_to_a_terminal(self, start_cli: Any, configure: Any) -> None:
        """A picture is not poured onto a terminal: a usage error that shows how."""
        controller, terminal = pty.openpty()
        child = start_cli("snapshot", "--config", configure(), "-o", "-", stdout=terminal)
        os.close(terminal)
        _, errors = child.communicate(timeout=60)
        os.close(controller)
        assert child.returncode == 2
        assert errors.startswith("edge-runner: error: a picture is not for a terminal")
        assert "> aim.jpg" in errors

    def test_no_frame(self, run_cli: Any, configure: Any, tmp_path: Path) -> None:
        """Without a frame it is 69, and there is no file."""
        (tmp_path / "a.jpg").write_text("no picture")
        path = configure(camera={"type": "images", "path": "a.jpg"})
        done = run_cli("snapshot", "--config", path, "-o", "aim.jpg")
        assert done.returncode == 69
        assert "camera.path: no frame could be read" in done.stderr
        assert not (tmp_path / "aim.jpg").exists()

    def test_locked_folder(self, run_cli: Any, configure: Any, lock: Any, scene: Path, tmp_path: Path) -> None:
        """A folder that this user must not write to is a failure in one line."""
        folder = tmp_path / "locked"
        folder.mkdir()
        prefix = lock(folder, 0o555)
        if os.getuid() == 0:
            os.chown(folder, 65534, 65534)
        path = configure(camera={"type": "images", "path": "scene.png"})
        done = run_cli("snapshot", "--config", path, "-o", "locked/aim.jpg", prefix=prefix)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == "edge-runner: error: locked/aim.jpg: permission denied"
