"""Pictures from files."""

from __future__ import annotations

import logging
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_runner.camera.images import SUFFIXES, Images, ImagesConfig, find_pictures
from edge_runner.errors import SettingError
from edge_runner.frame import Picture

pytestmark = pytest.mark.arm

Shots = Callable[..., list[tuple[Any, Picture]]]
Paint = Callable[..., Path]


def camera(path: Path, **settings: Any) -> Images:
    return Images(ImagesConfig(path=path, **settings))


def names(path: Path) -> list[str]:
    return [found.name for found in find_pictures(path)]


class TestFinding:
    def test_natural_order(self, tmp_path: Path, paint: Paint) -> None:
        """Numbers in names count as numbers, letters of either case alike."""
        wanted = ["a1.png", "A2.png", "a9b1.png", "a9b10.png", "a10.png", "b.png"]
        for name in reversed(wanted):
            paint(tmp_path / "p" / name)
        assert names(tmp_path / "p") == wanted

    def test_order_never_depends_on_the_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Names that differ in case only have an order too."""
        for name in ("a.png", "A.png", "01.png", "1.png"):
            (tmp_path / name).write_bytes(b"")
        listed = list(tmp_path.iterdir())
        orders = []
        for order in (listed, listed[::-1]):
            monkeypatch.setattr(Path, "iterdir", lambda self, order=order: iter(order))
            orders.append(names(tmp_path))
        assert orders[0] == orders[1] == ["01.png", "1.png", "A.png", "a.png"]

    def test_folder_holds_what_its_endings_say(self, tmp_path: Path) -> None:
        """A folder's pictures are the visible files whose ending, of either case, is a picture's."""
        for name in ("a.JPG", "b.jpeg", "notes.txt", ".hidden.png", "._c.jpg", "noending", "jpg"):
            (tmp_path / name).write_bytes(b"")
        (tmp_path / "folder.png").mkdir()
        assert names(tmp_path) == ["a.JPG", "b.jpeg"]

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_every_ending_can_be_read(self, tmp_path: Path, paint: Paint, shots: Shots, suffix: str) -> None:
        """Each ending that counts as a picture's is one that OpenCV reads."""
        path = tmp_path / f"p{suffix}"
        if suffix == ".pgm":
            cv2.imwrite(str(path), np.full((20, 30), 76, np.uint8))
        else:
            paint(path)
        [(shot, picture)] = shots(camera(tmp_path))
        assert shot.stamp.source == path.name
        assert picture.shape == (20, 30, 3)

    def test_file_needs_no_ending(self, tmp_path: Path, paint: Paint, shots: Shots) -> None:
        """A file named outright is taken, whatever it is called."""
        path = paint(tmp_path / "p.png").rename(tmp_path / ".picture")
        assert [shot.stamp.source for shot, _ in shots(camera(path))] == [".picture"]

    def test_glob(self, tmp_path: Path, paint: Paint) -> None:
        """A glob takes the files that match, in sub-folders too with **."""
        for name in ("a10.png", "a9.png", "b1.png", "below/a11.png", "a.d/x.png"):
            paint(tmp_path / name)
        assert names(tmp_path / "a*.png") == ["a9.png", "a10.png"]
        assert names(tmp_path / "a*") == ["a9.png", "a10.png"]
        assert names(tmp_path / "**" / "a*.png") == ["a9.png", "a10.png", "a11.png"]

    def test_empty_folder(self, tmp_path: Path) -> None:
        """A folder without pictures is a wrong setting, and the endings are told."""
        (tmp_path / "notes.txt").write_text("none")
        with pytest.raises(SettingError, match=r"holds no pictures.*\.jpg") as caught:
            camera(tmp_path).verify()
        assert caught.value.key == "path"
        assert caught.value.exit_code == 78

    def test_locked_folder(self, run_cli: Any, configure: Any, lock: Any, tmp_path: Path) -> None:
        """A folder that this user cannot read is a wrong setting, not a crash."""
        folder = tmp_path / "locked"
        folder.mkdir()
        if folder.stat().st_uid == 0:
            folder.chmod(0o700)
            subprocess.run(["chown", "65534", folder], check=True)
        done = run_cli("check", "--config", configure(camera={"type": "images", "path": "locked"}), prefix=lock(folder))
        assert done.returncode == 78
        assert "camera.path: locked: permission denied" in done.stderr.replace(f"{tmp_path}/", "")


class TestReading:
    def test_numbers_and_sources(self, colours: Path, shots: Shots) -> None:
        """Frames are numbered by their place in the order, and name their file; none is dropped."""
        taken = shots(camera(colours))
        assert [(s.stamp.number, s.stamp.source, s.dropped) for s, _ in taken] == [
            (1, "1.png", None), (2, "2.png", None), (3, "3.png", None),
        ]  # fmt: skip
        assert [p[0, 0].tolist() for _, p in taken] == [[0, 0, 255], [0, 255, 0], [255, 0, 0]]

    def test_loop(self, colours: Path, shots: Shots) -> None:
        """A loop begins again, with the same numbers, for as long as frames are wanted."""
        taken = shots(camera(colours, loop=True), most=8)
        assert [shot.stamp.number for shot, _ in taken] == [1, 2, 3, 1, 2, 3, 1, 2]

    def test_loop_ends_where_nothing_can_be_read(self, tmp_path: Path, shots: Shots) -> None:
        """A loop over nothing but damaged files ends instead of turning for ever."""
        (tmp_path / "a.jpg").write_bytes(b"no picture")
        reader = camera(tmp_path, loop=True)
        assert shots(reader) == []
        assert reader.skipped == 1

    def test_open_twice(self, colours: Path) -> None:
        """Opening again begins at the first picture."""
        reader = camera(colours)
        for _ in range(2):
            reader.open()
            grab = reader.grab()
            assert grab is not None
            assert grab.stamp.number == 1

    def test_frame_that_is_not_wanted_is_not_read(self, colours: Path) -> None:
        """A picture is read when it is decoded, and its name is known before."""
        reader = camera(colours)
        reader.open()
        (colours / "1.png").unlink()
        grabs = [reader.grab() for _ in range(2)]
        assert [grab.stamp.source for grab in grabs if grab] == ["1.png", "2.png"]
        assert reader.skipped == 0
        assert grabs[1] is not None
        picture = grabs[1].decode(None)
        assert picture is not None
        assert picture[0, 0].tolist() == [0, 255, 0]

    @pytest.mark.parametrize(
        ("name", "pixels", "expected"),
        [
            ("16 bits", np.full((4, 6, 3), (0x1234, 0x8001, 0xFFFF), np.uint16), (0x12, 0x80, 0xFF)),
            ("grey", np.full((4, 6), 77, np.uint8), (77, 77, 77)),
            ("grey of 16 bits", np.full((4, 6), 0x4DFF, np.uint16), (77, 77, 77)),
            ("with transparency", np.full((4, 6, 4), (10, 20, 30, 0), np.uint8), (10, 20, 30)),
        ],
    )
    def test_other_kinds_of_pixels(
        self, tmp_path: Path, shots: Shots, name: str, pixels: np.ndarray, expected: tuple[int, ...]
    ) -> None:
        """Whatever a file holds, a frame is uint8 [height, width, 3], blue first."""
        cv2.imwrite(str(tmp_path / "p.png"), pixels)
        [(_, picture)] = shots(camera(tmp_path))
        assert picture.dtype == np.uint8
        assert picture.shape == (4, 6, 3)
        assert picture[0, 0].tolist() == list(expected)


def with_exif(jpeg: bytes, orientation: int, thumbnail: bytes = b"") -> bytes:
    """A JPEG with an EXIF segment (CIPA DC-008, 4.5): big-endian TIFF, the orientation, a thumbnail in a second directory."""
    first = struct.pack(">H HHIHH I", 1, 0x0112, 3, 1, orientation, 0, 26 if thumbnail else 0)
    entries = [(0x0103, 3, 1, 6 << 16), (0x0201, 4, 1, 26 + 2 + 36 + 4), (0x0202, 4, 1, len(thumbnail))]
    second = struct.pack(">H", 3) + b"".join(struct.pack(">HHII", *e) for e in entries) + bytes(4)
    tiff = b"MM\0*" + struct.pack(">I", 8) + first + (second + thumbnail if thumbnail else b"")
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def jpeg_of(picture: np.ndarray, *parameters: int) -> bytes:
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 100, *parameters])[1].tobytes()


# CIPA DC-008, 4.6.4: where the picture's first row and first column are, and so what turns the stored pixels upright.
UPRIGHT = {
    1: lambda p: p,
    2: np.fliplr,
    3: lambda p: np.rot90(p, 2),
    4: np.flipud,
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
    8: lambda p: np.rot90(p, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(tmp_path: Path, shots: Shots, orientation: int) -> None:
    """A photo is turned as the camera that took it says, all eight ways."""
    stored = np.zeros((32, 48, 3), np.uint8)
    stored[:16, :16] = (0, 200, 255)
    stored[:, 32:] = (120, 0, 0)
    (tmp_path / "photo.jpg").write_bytes(with_exif(jpeg_of(stored), orientation))
    [(shot, picture)] = shots(camera(tmp_path))
    expected = UPRIGHT[orientation](stored)
    assert picture.shape == expected.shape
    assert (shot.geometry.width, shot.geometry.height) == (expected.shape[1], expected.shape[0])
    assert np.abs(picture.astype(int) - expected).mean() < 6


def noise(height: int = 60, width: int = 80) -> np.ndarray:
    coarse = np.random.default_rng(7).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(coarse, (0, 0), 2)


def encoded(suffix: str, *parameters: int) -> bytes:
    return cv2.imencode(suffix, noise(), parameters)[1].tobytes()


def cut(content: bytes, fraction: float = 0.6) -> bytes:
    return content[: int(len(content) * fraction)]


THUMBNAILED = with_exif(jpeg_of(noise()), 1, jpeg_of(noise(12, 16)))
DAMAGED = {
    "text.jpg": b"this is no picture at all\n",
    "empty.jpg": b"",
    "zeros.jpg": bytes(5000),
    "start only.jpg": b"\xff\xd8",
    "cut.jpg": cut(jpeg_of(noise())),
    "cut progressive.jpg": cut(jpeg_of(noise(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
    "cut after a thumbnail.jpg": cut(THUMBNAILED, 0.9),
    "last bytes lost.jpg": jpeg_of(noise())[:-4] + bytes(4),
    "cut.png": cut(encoded(".png")),
    "no end.png": encoded(".png")[:-12] + bytes(2000),
    "cut.bmp": cut(encoded(".bmp")),
    "cut.webp": cut(encoded(".webp")),
    "cut lossless.webp": cut(encoded(".webp", cv2.IMWRITE_WEBP_QUALITY, 101)),
    "cut.tiff": cut(encoded(".tiff")),
    "cut.ppm": cut(encoded(".ppm")),
    "header only.bmp": encoded(".bmp")[:54],
    "impossible.png": encoded(".png")[:16] + struct.pack(">II", 1 << 30, 1 << 30) + encoded(".png")[24:],
}


class TestDamaged:
    def test_whole_ones_are_whole(self, tmp_path: Path, shots: Shots) -> None:
        """What the damaged files below are made from can be read."""
        whole = {"a.jpg": THUMBNAILED, "b.jpg": jpeg_of(noise(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)}
        for suffix in (".png", ".bmp", ".webp", ".tiff", ".ppm"):
            whole[f"c{suffix}"] = encoded(suffix)
        for name, content in whole.items():
            (tmp_path / name).write_bytes(content)
        assert len(shots(camera(tmp_path))) == len(whole)

    @pytest.mark.parametrize("name", DAMAGED)
    def test_named_skipped_and_counted(
        self, colours: Path, shots: Shots, caplog: pytest.LogCaptureFixture, name: str
    ) -> None:
        """A damaged file among good ones costs one warning that names it, and nothing else."""
        (colours / f"2 {name}").write_bytes(DAMAGED[name])
        reader = camera(colours)
        assert [(s.stamp.number, s.stamp.source) for s, _ in shots(reader)] == [
            (1, "1.png"),
            (3, "2.png"),
            (4, "3.png"),
        ]
        assert reader.skipped == 1
        [record] = caplog.records
        assert record.levelno == logging.WARNING
        assert record.getMessage().startswith(f"{colours / f'2 {name}'}: skipped: ")

    def test_trailing_bytes_are_no_damage(self, tmp_path: Path, shots: Shots) -> None:
        """What other programs append to a picture does not make it a torn one."""
        for name, content in {"a.jpg": jpeg_of(noise()), "b.png": encoded(".png"), "c.bmp": encoded(".bmp")}.items():
            (tmp_path / name).write_bytes(content + bytes(5000))
        assert len(shots(camera(tmp_path))) == 3

    def test_file_that_vanishes(self, colours: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A file that is gone before its turn is skipped as a damaged one is."""
        reader = camera(colours)
        reader.open()
        (colours / "1.png").unlink()
        grab = reader.grab()
        assert grab is not None
        assert grab.decode(None) is None
        assert "1.png: skipped: no such file or directory" in caplog.text

    def test_a_loop_warns_once(self, colours: Path, shots: Shots, caplog: pytest.LogCaptureFixture) -> None:
        """A damaged file of a loop is warned of in the first round only, and counted in each."""
        (colours / "9.jpg").write_bytes(b"no picture")
        reader = camera(colours, loop=True)
        shots(reader, most=12)
        assert len(caplog.records) == 1
        assert reader.skipped >= 3

    def test_nothing_readable(self, run_cli: Any, configure: Any, tmp_path: Path) -> None:
        """A folder of damaged files only: the daemon failed, and `--once` had no frame."""
        (tmp_path / "p").mkdir()
        (tmp_path / "p/a.jpg").write_bytes(b"no picture")
        path = configure(camera={"type": "images", "path": "p"})
        for arguments, code in ((["run"], 1), (["run", "--once"], 69)):
            done = run_cli(*arguments, "--config", path)
            assert (done.returncode, done.stdout) == (code, "")
            warning, *_, error = done.stderr.splitlines()
            assert "a.jpg: skipped" in warning
            assert error == f"edge-runner: error: {path}:4: camera.path: no frame could be read"
