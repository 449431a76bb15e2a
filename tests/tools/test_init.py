"""`edge-runner init`."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle

from edge_runner import cli
from edge_runner.camera import devices
from edge_runner.camera.devices import CsiCamera, Device, Offer, Size
from edge_runner.camera.rpicam import RpicamConfig
from edge_runner.camera.v4l2 import V4l2Config
from edge_runner.errors import CameraError, ModelError, OutputError
from edge_runner.settings import Settings, load_settings
from edge_runner.tools import init
from edge_runner.tools.init import PLACEHOLDER, rpicam_config, slug, v4l2_config

SENSOR = CsiCamera(0, "imx708", 4608, 2592)


def sizes(*found: tuple[int, int, float]) -> tuple[Size, ...]:
    return tuple(Size(width, height, width, height, fps) for width, height, fps in found)


def webcam(path: str = "/dev/video0", name: str = "HD Pro Webcam C920", **formats: tuple[Size, ...]) -> Device:
    formats = formats or {"MJPG": sizes((640, 480, 30), (1280, 720, 30), (1920, 1080, 30)), "YUYV": ()}
    return Device(path, name, offers=tuple(Offer(code, code, found) for code, found in formats.items()))


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the board have these cameras."""

    def put(*found: Device | CsiCamera) -> None:
        monkeypatch.setattr(devices, "cameras", lambda dev, sys: [d for d in found if isinstance(d, Device)])
        monkeypatch.setattr(devices, "csi_cameras", lambda: [c for c in found if isinstance(c, CsiCamera)])

    return put


@pytest.fixture
def bundle(tmp_path: Path, data: Path) -> Path:
    return make_bundle(tmp_path / "bundle", data / "colour.tflite")


def written(tmp_path: Path, model: Path | None) -> tuple[Settings, str, init.Draft]:
    """What was written, as it is read, and as it stands there."""
    path = tmp_path / "new.yaml"
    draft = init.init(str(path), model, tmp_path / "dev", tmp_path / "sys")
    return load_settings(path).value, path.read_text("utf-8"), draft


def test_init_check_run(run_cli: Any, plug: Any, digits: Path, tmp_path: Path) -> None:
    """With a bundle and no camera, what is written is right, and runs: check, then one result of the test picture."""
    plug()
    path = tmp_path / "first.yaml"
    init.init(str(path), digits)
    done = run_cli("check", "--config", path)
    assert (done.returncode, done.stderr) == (0, "")
    done = run_cli("run", "--once", "--config", path)
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    result = json.loads(line)
    assert (result["model"]["name"], result["camera"], len(result["classifications"])) == ("digits", "first", 5)
    assert all(f"type: {kind} " in path.read_text() for kind in ("v4l2", "rpicam", "stream", "command"))


class TestCameras:
    def test_usb(self, plug: Any, tmp_path: Path, bundle: Path) -> None:
        """A USB camera is named by its id, and given a size that it has."""
        (tmp_path / "dev/v4l/by-id").mkdir(parents=True)
        (tmp_path / "dev/video0").touch()
        link = tmp_path / "dev/v4l/by-id/usb-046d_HD_Pro_Webcam_C920-video-index0"
        link.symlink_to("../../video0")
        plug(webcam(str(tmp_path / "dev/video0")))
        settings, text, draft = written(tmp_path, bundle)
        assert settings.camera == V4l2Config(name="new", device=str(link), width=1280, height=720, fps=30.0)
        assert "HD Pro Webcam C920" in text
        assert draft.cameras == ("hd-pro-webcam-c920",)
        assert draft.missing == ()

    def test_csi(self, plug: Any, tmp_path: Path, bundle: Path) -> None:
        """A CSI camera is read through rpicam-vid, by its index."""
        plug(replace(SENSOR, index=1))
        settings, _, _ = written(tmp_path, bundle)
        assert settings.camera == RpicamConfig(name="new", device=1, width=1280, height=720)

    def test_listed_by_rpicam_hello(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """CSI cameras are those that rpicam-hello lists."""
        (tmp_path / "bin").mkdir()
        program = tmp_path / "bin/rpicam-hello"
        listing = "0 : imx219 [3280x2464 10-bit RGGB] (/base/soc/i2c0mux/i2c@1/imx219@10)"
        program.write_text(f"#!{shutil.which('sh')}\necho '{listing}'\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        [found] = init.found_cameras(tmp_path / "dev", tmp_path / "sys")
        assert (found.name, found.config) == ("imx219", RpicamConfig(device=0, width=1280, height=720))

    def test_several(self, plug: Any, tmp_path: Path, bundle: Path) -> None:
        """All of them, each under a name of its own."""
        plug(webcam(), webcam("/dev/video2"), SENSOR, replace(SENSOR, index=1))
        settings, _, draft = written(tmp_path, bundle)
        assert settings.camera is None
        assert settings.cameras is not None
        names = ["hd-pro-webcam-c920", "hd-pro-webcam-c920-2", "imx708", "imx708-2"]
        assert (list(settings.cameras), list(draft.cameras)) == (names, names)
        assert [camera.device for camera in settings.cameras.values()] == ["/dev/video0", "/dev/video2", 0, 1]  # type: ignore[attr-defined]
        assert "snapshot --config new.yaml --camera hd-pro-webcam-c920 -o" in "\n".join(
            init.next_steps(draft, "new.yaml")
        )

    @pytest.mark.parametrize(
        "broken", [Device("/dev/video4", "Odd: one\n# two", problem="permission denied"), webcam("/dev/video4", Z16=())]
    )
    @pytest.mark.parametrize("others", [(), (SENSOR,)])
    def test_unusable(self, plug: Any, tmp_path: Path, bundle: Path, broken: Device, others: tuple[Any, ...]) -> None:
        """A camera that cannot be used is mentioned with the reason, and not written down as one."""
        plug(broken, *others)
        settings, text, _ = written(tmp_path, bundle)
        assert settings.camera is not None
        assert settings.camera.type == ("rpicam" if others else "pattern")
        [line] = [line for line in text.splitlines() if "Not usable yet" in line]
        assert "/dev/video4" in line
        assert line.endswith(broken.problem or "known are MJPG, JPEG, YUYV, NV12, YU12, BGR3, RGB3, GREY")

    @pytest.mark.parametrize(
        ("formats", "chosen"),
        [
            ({"MJPG": sizes((1920, 1080, 30), (1280, 720, 30), (640, 480, 30))}, (1280, 720, 30)),
            ({"MJPG": sizes((1280, 960, 30), (640, 480, 30), (800, 600, 30))}, (800, 600, 30)),
            ({"MJPG": sizes((1920, 1080, 30), (2592, 1944, 15))}, (1920, 1080, 30)),
            ({"YUYV": sizes((1280, 720, 5), (640, 480, 30))}, (640, 480, 30)),
            ({"YUYV": sizes((1280, 720, 10), (640, 480, 30))}, (1280, 720, 10)),
            ({"YUYV": sizes((1280, 720, 5))}, (1280, 720, 5)),
            ({"YUYV": sizes((1280, 720, 30)), "MJPG": sizes((640, 360, 30))}, (640, 360, 30)),
            ({"MJPG": sizes((1280, 720, 60))}, (1280, 720, 30)),
            ({"YUYV": (Size(2, 2, 4056, 3040),)}, (1280, 720, 30)),
            ({"YUYV": (Size(16, 16, 640, 480, 25.0),)}, (640, 480, 25)),
            ({"YUYV": (Size(1600, 1200, 4056, 3040),)}, (1600, 1200, 30)),
            ({"MJPG": ()}, (1280, 720, 30)),
            ({"MJPG": sizes((8, 8, 30), (10000, 10000, 30))}, (1280, 720, 30)),
        ],
    )
    def test_size(self, formats: dict[str, Any], chosen: tuple[int, int, float], tmp_path: Path) -> None:
        """Up to 1280x720, as large as comes fast enough, in the format that the camera will be read in."""
        config = v4l2_config(webcam(**formats), tmp_path, tmp_path)
        assert (config.width, config.height, config.fps) == chosen

    def test_no_format(self, tmp_path: Path) -> None:
        """Without a format that can be decoded there are no settings."""
        with pytest.raises(CameraError, match="no format that can be decoded"):
            v4l2_config(webcam(Z16=()), tmp_path, tmp_path)

    def test_small_sensor(self) -> None:
        """No larger than the sensor, and even."""
        config = rpicam_config(CsiCamera(0, "ov7251", 641, 481))
        assert (config.width, config.height) == (640, 480)

    @pytest.mark.parametrize(
        ("name", "made"),
        [
            ("HD Pro Webcam C920", "hd-pro-webcam-c920"),
            ("USB2.0 PC CAMERA: USB2.0 PC CAM", "usb2-0-pc-camera-usb2-0"),
            ("", "camera"),
            ("360", "camera-360"),
            ("on", "camera-on"),
            ("摄像头", "camera"),
        ],
    )
    def test_slug(self, name: str, made: str) -> None:
        """A name that YAML, MQTT and file names can take."""
        assert slug(name) == made


class TestModel:
    def test_bundle(self, plug: Any, tmp_path: Path, bundle: Path) -> None:
        """A bundle knows all of it: nothing is to be filled in."""
        plug()
        settings, text, draft = written(tmp_path, bundle)
        assert settings.preprocess is None
        assert "preprocess:" not in text
        assert draft.missing == ()

    def test_installed(self, plug: Any, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An installed model goes by its name, and results into a log; a file of that name, which is there, comes first."""
        monkeypatch.setenv("EDGE_RUNNER_STATE", str(tmp_path))
        (tmp_path / "models/colour").mkdir(parents=True)
        shutil.copytree(bundle, tmp_path / "models/colour/v1")
        (tmp_path / "models/colour/current").symlink_to("v1")
        settings, _, draft = written(tmp_path, Path("colour"))
        assert (settings.model.name, settings.model.path) == ("colour", None)
        assert [output.type for output in settings.outputs] == ["console", "jsonl"]
        assert not draft.missing
        monkeypatch.chdir(tmp_path)
        shutil.copytree(bundle, "colour")
        assert "  path: colour" in init.compose(Path("colour"), [], None).text
        with pytest.raises(ModelError, match="birds"):
            init.compose(Path("birds"), [], None)

    def test_bare(self, run_cli: Any, plug: Any, tmp_path: Path, data: Path) -> None:
        """How a bare model's pictures are prepared is not guessed: it is left out and said, and `check` asks for it."""
        plug()
        _, text, draft = written(tmp_path, data / "colour.tflite")
        [missing] = draft.missing
        assert "color, mean and std" in missing
        assert re.search(r"^#preprocess:\n#  color: .*\n#  mean: .*\n#  std: ", text, re.MULTILINE)
        done = run_cli("check", "--config", "new.yaml")
        assert done.returncode == 78
        assert "set color, mean, std" in done.stderr

    def test_bare_filled_in(self, run_cli: Any, plug: Any, tmp_path: Path, data: Path) -> None:
        """Filled in, and with the # taken away, it is right."""
        plug()
        _, text, _ = written(tmp_path, data / "colour.tflite")
        text = re.sub(r"^#(preprocess:|  color: )", r"\1", text, flags=re.MULTILINE)
        text = text.replace("#  mean: …", "  mean: 0").replace("#  std: …", "  std: 255")
        (tmp_path / "new.yaml").write_text(text, "utf-8")
        done = run_cli("check", "--config", "new.yaml")
        assert (done.returncode, done.stderr) == (0, "")
        assert "rgb, mean [0.0], std [255.0]" in done.stdout

    @pytest.mark.parametrize(
        ("model", "said"), [("labelled.tflite", "are inside the model"), ("colour.tflite", "class's number")]
    )
    def test_labels(self, plug: Any, tmp_path: Path, data: Path, model: str, said: str) -> None:
        """Whether a bare model has labels is said beside the key."""
        plug()
        _, text, _ = written(tmp_path, data / model)
        [line] = [line for line in text.splitlines() if line.startswith("  #labels:")]
        assert said in line

    @pytest.mark.parametrize(
        ("model", "expected"),
        [
            ("colour.tflite", ""),
            ("rect_yolov8.tflite", "task:\n  type: detect "),
            ("seg_logits_nhwc.tflite", "task:\n  type: segment "),
            ("pose_single.tflite", "task:\n  type: pose "),
            ("nothing_fits.tflite", "#task:\n#  type: … "),
        ],
    )
    def test_task(self, plug: Any, tmp_path: Path, data: Path, model: str, expected: str) -> None:
        """The task that a bare model's outputs are for is told from them, where they are for just one."""
        plug()
        _, text, _ = written(tmp_path, data / model)
        assert (expected in text) if expected else ("task:" not in text)

    def test_a_bundle_without_a_recipe(self, plug: Any, tmp_path: Path, data: Path) -> None:
        """A bundle that does not say how its pictures are prepared is as a bare model in that."""
        plug()
        made = make_bundle(tmp_path / "made", data / "colour.tflite", preprocess=None, task={"type": "raw"})
        _, text, draft = written(tmp_path, made)
        assert "#preprocess:" in text
        assert len(draft.missing) == 1

    def test_none(self, run_cli: Any, plug: Any, tmp_path: Path) -> None:
        """Without a model there is a placeholder, which `check` refuses with its place."""
        plug()
        path = tmp_path / "new.yaml"
        draft = init.init(str(path), None)
        [missing] = draft.missing
        assert PLACEHOLDER in missing
        done = run_cli("check", "--config", path)
        assert done.returncode == 78
        number = (
            path.read_text().splitlines().index(next(x for x in path.read_text().splitlines() if PLACEHOLDER in x)) + 1
        )
        assert done.stderr.startswith(f"{path}:{number}: model.path: ")
        assert PLACEHOLDER in done.stderr

    @pytest.mark.parametrize(
        "name", ["m.tflite", "a b.tflite", "a #b: c.tflite", "$HOME.tflite", "${X}.tflite", "é\"'.tflite", "- x", "7"]
    )
    def test_odd_names(self, plug: Any, tmp_path: Path, data: Path, name: str) -> None:
        """Whatever the model's file is called, the configuration leads to it."""
        plug()
        model = tmp_path / "models" / name
        model.parent.mkdir()
        shutil.copy(data / "colour.tflite", model)
        settings, _, _ = written(tmp_path, model)
        assert settings.model.path == model

    def test_relative(self, plug: Any, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A relative path is made relative to the file, through links as well, so that both can be moved together."""
        plug()
        monkeypatch.chdir(tmp_path)
        (tmp_path / "deep/etc").mkdir(parents=True)
        (tmp_path / "etc").symlink_to("deep/etc")
        for target in ("new.yaml", "deep/new.yaml", "etc/new.yaml"):
            init.init(target, Path("bundle"))
            assert os.path.samefile(load_settings(Path(target)).value.model.path, bundle)
            assert str(tmp_path) not in Path(target).read_text()

    def test_a_tilde(self, plug: Any, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name that begins with ~ is no home folder."""
        plug()
        monkeypatch.chdir(tmp_path)
        bundle.rename(tmp_path / "~bundle")
        init.init("new.yaml", Path("~bundle"))
        assert load_settings(Path("new.yaml")).value.model.path == tmp_path / "~bundle"

    def test_absolute(self, plug: Any, tmp_path: Path, bundle: Path) -> None:
        """An absolute path stays one."""
        plug()
        _, text, _ = written(tmp_path, bundle)
        assert f"  path: {bundle}" in text

    def test_no_model_at_all(self, plug: Any, tmp_path: Path) -> None:
        """What is no model is refused, and nothing is written."""
        plug()
        (tmp_path / "m.tflite").write_text("this is no model")
        for name in ("m.tflite", "missing.tflite"):
            with pytest.raises(ModelError):
                init.init(str(tmp_path / "new.yaml"), tmp_path / name)
        assert [path.name for path in tmp_path.iterdir()] == ["m.tflite"]


class TestFile:
    @pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
    def test_is_never_overwritten(self, plug: Any, tmp_path: Path, kind: str) -> None:
        """What is there stays as it is."""
        plug()
        path = tmp_path / "new.yaml"
        if kind == "file":
            path.write_text("mine")
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("nowhere")
        with pytest.raises(OutputError, match="is there already, and is not overwritten"):
            init.init(str(path), None)
        assert [p.name for p in tmp_path.iterdir()] == ["new.yaml"]
        assert kind != "file" or path.read_text() == "mine"

    def test_no_folder(self, plug: Any, tmp_path: Path) -> None:
        """A folder that is missing is said."""
        plug()
        with pytest.raises(OutputError, match="is no folder"):
            init.init(str(tmp_path / "missing/new.yaml"), None)

    def test_fails_while_writing(self, plug: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing half is left where it cannot be finished."""
        plug()

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(OutputError, match=r"new\.yaml: no space left on device"):
            init.init(str(tmp_path / "new.yaml"), None)
        assert list(tmp_path.iterdir()) == []


class TestCommand:
    def test_next_steps(
        self,
        plug: Any,
        tmp_path: Path,
        bundle: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """The file is written, and the next two commands are said, ready to be copied."""
        plug()
        monkeypatch.chdir(tmp_path)
        assert cli.main(["init", "--model", "bundle", "-o", "front door.yaml"]) == 0
        out, err = capsys.readouterr()
        assert out == ""
        assert err.splitlines() == [
            "'front door.yaml' is written",
            "next:",
            "  edge-runner check --config 'front door.yaml'",
            "  edge-runner snapshot --config 'front door.yaml' -o aim.jpg",
        ]
        assert load_settings(tmp_path / "front door.yaml").value.camera

    def test_what_is_missing(
        self, plug: Any, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """What is left to the user is said before."""
        plug()
        monkeypatch.chdir(tmp_path)
        assert cli.main(["init", "--model", str(data / "colour.tflite"), "-o", "new.yaml"]) == 0
        assert capsys.readouterr().err.splitlines()[1].startswith("to be filled in: preprocess: color, mean and std")

    def test_standard_output(
        self,
        plug: Any,
        tmp_path: Path,
        bundle: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """`-o -` writes the configuration, and nothing else, to standard output."""
        plug(SENSOR)
        monkeypatch.chdir(tmp_path)
        assert cli.main(["init", "--model", "bundle", "-o", "-"]) == 0
        out, err = capsys.readouterr()
        (tmp_path / "piped.yaml").write_text(out)
        assert load_settings(tmp_path / "piped.yaml").value.camera == RpicamConfig(name="piped", width=1280, height=720)
        assert "edge-runner check --config camera.yaml" in err
        assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "piped.yaml"]

    def test_there_already(self, run_cli: Any, tmp_path: Path) -> None:
        """A file that is there: exit code 1, one line."""
        (tmp_path / "new.yaml").write_text("mine")
        done = run_cli("init", "-o", "new.yaml")
        assert (done.returncode, done.stdout) == (1, "")
        [line] = done.stderr.splitlines()
        assert line.startswith("edge-runner: error: new.yaml is there already")

    def test_no_model(self, run_cli: Any, tmp_path: Path) -> None:
        """A model that is none: 78, one line."""
        done = run_cli("init", "--model", "missing.tflite", "-o", "new.yaml")
        assert (done.returncode, done.stdout) == (78, "")
        [line] = done.stderr.splitlines()
        assert line == "edge-runner: error: missing.tflite: no such file or directory"

    def test_usage(self, run_cli: Any) -> None:
        """A file has to be named."""
        assert run_cli("init").returncode == 2


CAMERAS_PAGE = Path(__file__).parents[2] / "docs/cameras.md"


@pytest.mark.parametrize("number", range(9))
def test_the_pages_examples(number: int, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every configuration that the page on cameras shows is one."""
    monkeypatch.setenv("CAM_PASSWORD", "swordfish")
    examples = re.findall(r"^```yaml\n(.*?)^```", CAMERAS_PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(examples) == 9
    path = tmp_path / "example.yaml"
    path.write_text(f"{examples[number]}model:\n  path: {bundle}\n", "utf-8")
    assert load_settings(path).value.sources
