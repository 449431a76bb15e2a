"""A camera.yaml as a whole."""

import socket
from pathlib import Path

import pytest

from edge_runner.camera import CAMERAS
from edge_runner.camera.images import ImagesConfig
from edge_runner.camera.pattern import PatternConfig
from edge_runner.camera.video import VideoConfig
from edge_runner.errors import EXIT_CONFIG, ConfigError, SettingError, blamed
from edge_runner.output.console import ConsoleConfig
from edge_runner.output.jsonl import JsonLinesConfig
from edge_runner.settings import load_settings

MODEL = "model: {path: m.tflite}\n"
LEAST = "camera: {type: pattern}\nmodel: {path: m.tflite}\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with a model, a video and pictures in it, to stand in."""
    monkeypatch.chdir(tmp_path)
    for name in ("LOGS_DIRECTORY", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "pictures").mkdir()
    for name in ("m.tflite", "clip.mp4", "labels.txt", "pictures/cat.jpg"):
        (tmp_path / name).touch()
    return tmp_path


def read(text, *sets):
    """The settings that `front.yaml` of such a text makes."""
    Path("front.yaml").write_text(text)
    return load_settings(Path("front.yaml"), sets).value


def mistakes(text, *sets):
    """The lines of what is wrong with such a `front.yaml`, its name taken off."""
    Path("front.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(Path("front.yaml"), sets)
    assert caught.value.exit_code == EXIT_CONFIG
    return [line.removeprefix("front.yaml:") for line in caught.value.problems]


def test_two_sections_are_enough():
    """A camera and a model are all that must be given: names come from the host and the file, results go to the console."""
    settings = read(LEAST)
    assert settings.camera == PatternConfig(name="front")
    assert settings.model.path == Path("m.tflite")
    assert settings.device == socket.gethostname()
    assert settings.outputs == (ConsoleConfig(),)
    assert (settings.preprocess, settings.task) == (None, None)


def test_names_that_are_given_stay():
    """Neither the host's nor the file's name goes over a name that is given."""
    settings = read("device: pi-7\ncamera: {type: pattern, name: door}\nmodel: {path: m.tflite}\n")
    assert (settings.device, settings.camera.name) == ("pi-7", "door")


def test_everything_that_is_given_comes_through():
    """Each part of a full configuration arrives in its own Config."""
    settings = read(
        """
camera: {type: video, path: clip.mp4, rotate: 270, flip: vertical, crop: [0.1, 0.2, 0.3, 0.4], max_fps: 0.5,
         start_timeout: 1m 30s, loop: true}
model: {path: m.tflite, labels: labels.txt, sha256: abc, runtime: ai-edge-litert, threads: 2, check_goldens: false}
preprocess: {color: bgr, mean: 1, std: [1, 2, 3]}
task: {type: classify, max_results: 3, deny: [cat], label_thresholds: {dog: 0.5}}
outputs: [{type: console}, {type: jsonl, path: out.jsonl}]
"""
    )
    assert settings.camera == VideoConfig(
        name="front",
        path=Path("clip.mp4"),
        rotate=270,
        flip="vertical",
        crop=(0.1, 0.2, 0.3, 0.4),
        max_fps=0.5,
        start_timeout=90.0,
        loop=True,
    )
    assert (settings.model.labels, settings.model.threads) == (Path("labels.txt"), 2)
    assert (settings.model.sha256, settings.model.runtime, settings.model.check_goldens) == (
        "abc",
        "ai-edge-litert",
        False,
    )
    assert settings.preprocess == {"color": "bgr", "mean": (1.0,), "std": (1.0, 2.0, 3.0)}
    assert settings.task == {
        "type": "classify",
        "max_results": 3,
        "deny": ("cat",),
        "label_thresholds": {"dog": 0.5},
    }
    assert settings.outputs == (ConsoleConfig(), JsonLinesConfig(path=Path("out.jsonl")))


def test_ten_mistakes_are_ten_lines():
    """All mistakes of a file come at once, each with its own line, in their order."""
    found = mistakes(
        """\
device: 7
camera:
  type: images
  path: gone
  widht: 640
  fps: 30
  rotate: 45
  crop: [0.5, 0, 0.6, 2]
modle: {}
preprocess:
  std: wide
outputs:
  - type: jsonl
"""
    )
    assert [line.split(": ", 2)[:2] for line in found] == [
        ["1", "device"],
        ["1", "model"],
        ["4", "camera.path"],
        ["5", "camera.widht"],
        ["6", "camera.fps"],
        ["7", "camera.rotate"],
        ["8", "camera.crop.3"],
        ["9", "modle"],
        ["11", "preprocess.std.0"],
        ["13", "outputs.0.path"],
    ]


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("{runtime: auto}", "1: model.path: missing; allowed: a file or folder that is there, or `name`"),
        ("{path: m.tflite, name: m}", "1: model.name: given beside `path`; leave one of them out"),
        ("{name: a/b}", "1: model.name: got 'a/b'; allowed: letters, digits"),
    ],
)
def test_keys_that_do_not_go_together(model: str, told: str) -> None:
    """That a model has a path and a name, or neither, is a mistake of its line among all others."""
    found = mistakes(f"model: {model}\ncamera: {{type: pattern, widht: 5}}\n")
    assert [found[0].startswith(told), found[1].startswith("2: camera.widht")] == [True, True], found


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "camera: {type: images, path: pictures, width: 5}\n",
            "1: camera.width: a key of type v4l2, rpicam, command or pattern, not of 'images'",
        ),
        (
            "camera: {type: pattern, path: clip.mp4}\n",
            "1: camera.path: a key of type images or video, not of 'pattern'",
        ),
        (
            "camera:\n  type: pattern\n  widht: 5\n",
            "3: camera.widht: unknown key; did you mean 'width'?",
        ),
        (
            "camera:\n  type: webcam\n",
            f"2: camera.type: got 'webcam'; allowed: {' | '.join(CAMERAS)}",
        ),
        (
            "camera:\n  width: 640\n",
            f"1: camera.type: missing; allowed: {' | '.join(CAMERAS)}",
        ),
        (
            "camera: {type: video, path: pictures}\n",
            "1: camera.path: got 'pictures' (it is a folder); allowed: a file that is there",
        ),
        (
            "camera: {type: pattern, max_fps: 0}\n",
            "1: camera.max_fps: got 0; allowed: a number from 0.0001 to 10000",
        ),
        (
            "camera: {type: pattern, flip: both}\n",
            "1: camera.flip: got 'both'; allowed: none | horizontal | vertical",
        ),
        (
            "camera: {type: pattern, start_timeout: 30}\n",
            "1: camera.start_timeout: got 30 without a unit; allowed: a duration such as 500ms, 30s, 5m or 1h, above 0",
        ),
    ],
)
def test_mistakes_of_cameras(text, line):
    """Camera keys are checked against the camera's type, and a key of another one is told by its owner."""
    assert mistakes(text + MODEL) == [line]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "preprocess: {colour: rgb}",
            "3: preprocess.colour: unknown key; did you mean 'color'?",
        ),
        (
            "preprocess: 5",
            "3: preprocess: got 5; allowed: a mapping with color, mean, std, resize, interpolation, layout and pad",
        ),
        (
            "preprocess: {pad: 256}",
            "3: preprocess.pad: got 256; allowed: a whole number from 0 to 255",
        ),
        ("preprocess: {mean: []}", "3: preprocess.mean: got []; allowed: a number, or a list of such"),
        ("task: {type: count}", "3: task.type: got 'count'; allowed: classify | detect | pose | raw | segment"),
        ("task: {max_results: 0}", "3: task.max_results: got 0; allowed: a whole number from 1"),
        ("task: {score_treshold: 0}", "3: task.score_treshold: unknown key; did you mean 'score_threshold'?"),
        ("task: {allow: [7]}", "3: task.allow.0: got 7 (quote it to make it text); allowed: text"),
        (
            "task: {label_thresholds: {cat: 5}}",
            "3: task.label_thresholds.cat: got 5; allowed: a number from 0 to 1",
        ),
        (
            "outputs: {type: console}",
            "3: outputs: got a mapping; allowed: a list, each item a mapping with a type: console, jsonl, mqtt, npz, snapshots",
        ),
        (
            "outputs: []",
            "3: outputs: got []; allowed: a list, each item a mapping with a type: console, jsonl, mqtt, npz, snapshots",
        ),
        (
            "outputs: [{type: console, path: x}]",
            "3: outputs.0.path: a key of type jsonl, npz or snapshots, not of 'console'",
        ),
        ("outputs: [{path: x}]", "3: outputs.0.type: missing; allowed: console | jsonl | mqtt | npz | snapshots"),
    ],
)
def test_mistakes_of_the_other_sections(text, line):
    """What is partly given is checked as strictly as what is given whole."""
    assert mistakes(f"{LEAST}{text}\n") == [line]


@pytest.mark.parametrize("crop", ["[0.5, 0, 0.6, 1]", "[0, 0.1, 1, 1]", "[0, 0, 0, 1]", "[0, 0, 1, 0]"])
def test_a_crop_outside_the_frame_is_told(crop):
    """A crop that reaches over the frame's edge, or has nothing in it, names the key's line."""
    allowed = "x, y, width, height as fractions (0 to 1) of the upright frame, within it and not empty"
    assert mistakes(f"camera:\n  type: pattern\n  crop: {crop}\nmodel: {{path: m.tflite}}\n") == [
        f"3: camera.crop: got {crop}; allowed: {allowed}"
    ]


def test_a_crop_may_reach_the_edge():
    """Fractions that add up to the whole frame are within it, rounding or not."""
    camera = read("camera: {type: pattern, crop: [0.7, 0.9, 0.3, 0.1]}\nmodel: {path: m.tflite}\n").camera
    assert camera.crop == (0.7, 0.9, 0.3, 0.1)


def test_another_camera_from_the_command_line():
    """With another camera.type by --set, the keys of the file's camera that it does not know are void."""
    text = "camera: {type: pattern, width: 64, fps: 5, rotate: 90}\nmodel: {path: m.tflite}\n"
    camera = read(text, "camera.type=images", "camera.path=pictures/*.jpg").camera
    assert camera == ImagesConfig(name="front", path=Path("pictures/*.jpg"), rotate=90)


def test_set_makes_sections_that_are_not_there():
    """A key of a section that the file does not have makes the section."""
    settings = read(LEAST, "task.score_threshold=0.5", "preprocess.color=gray", 'outputs=[{type: "console"}]')
    assert settings.task == {"score_threshold": 0.5}
    assert settings.preprocess == {"color": "gray"}


def test_an_empty_section_is_none():
    """A section of which every key is commented out is as if it were not there."""
    settings = read(f"{LEAST}preprocess:\n  # color: rgb\ntask:\n")
    assert (settings.preprocess, settings.task) == (None, None)


def test_mistakes_are_placed_by_dotted_keys():
    """Later errors find every key's line, or its section's."""
    Path("front.yaml").write_text(f"{LEAST}task:\n  deny: [x]\noutputs:\n  - type: console\n")
    places = load_settings(Path("front.yaml"), ["camera.fps=5"]).places
    lines = {key: str(places[key]) for key in ("camera.type", "task.deny", "outputs.0", "camera.fps")}
    assert lines == {
        "camera.type": "front.yaml:1",
        "task.deny": "front.yaml:4",
        "outputs.0": "front.yaml:6",
        "camera.fps": "--set",
    }


class TestLive:
    def test_when_it_is_lost(self):
        """Every live camera can be told when it counts as lost, and how long to wait before it is opened again."""
        camera = read(
            "camera: {type: pattern, stall_timeout: 5s, freeze_timeout: 0, retry: {first: 500ms, max: 5m}}\n" + MODEL
        ).camera
        assert (camera.stall_timeout, camera.freeze_timeout) == (5.0, 0.0)
        assert (camera.retry.first, camera.retry.max) == (0.5, 300.0)

    def test_not_of_files(self):
        """A file cannot stall: what belongs to live cameras is told as such."""
        [line] = mistakes("camera: {type: video, path: clip.mp4, stall_timeout: 5s}\n" + MODEL)
        live = "v4l2, rpicam, command, stream or pattern"
        assert line == f"1: camera.stall_timeout: a key of type {live}, not of 'video'"

    @pytest.mark.parametrize(
        ("given", "line"),
        [
            (
                "stall_timeout: 0",
                "camera.stall_timeout: got 0; allowed: a duration such as 500ms, 30s, 5m or 1h, above 0",
            ),
            ("retry: 5s", "camera.retry: got '5s'; allowed: a mapping with first and max"),
            ("retry: {fist: 5s}", "camera.retry.fist: unknown key; did you mean 'first'?"),
            ("retry: {max: 0}", "camera.retry.max: got 0; allowed: a duration such as 500ms, 30s, 5m or 1h, above 0"),
        ],
    )
    def test_mistakes(self, given, line):
        """Times that no camera could live with are told."""
        assert mistakes(f"camera: {{type: pattern, {given}}}\n{MODEL}") == [f"1: {line}"]


class TestCameras:
    TWO = "cameras:\n  door: {type: pattern, fps: 5}\n  yard: {type: images, path: pictures}\n"

    def test_several_by_name(self):
        """`cameras` is a mapping of names to cameras, each of its own type, and a name goes into its camera's results."""
        settings = read(self.TWO + MODEL)
        assert settings.camera is None
        assert settings.cameras == {
            "door": PatternConfig(name="door", fps=5.0),
            "yard": ImagesConfig(name="yard", path=Path("pictures")),
        }

    def test_sources(self):
        """One or several, all cameras are found under their keys, in the file's order."""
        assert list(read(self.TWO + MODEL).sources) == ["cameras.door", "cameras.yard"]
        assert {key: camera.name for key, camera in read(LEAST).sources.items()} == {"camera": "front"}

    def test_same_name_again(self):
        """The name may be said once more, if it is the same."""
        assert read(f"cameras: {{door: {{type: pattern, name: door}}}}\n{MODEL}").cameras["door"].name == "door"

    @pytest.mark.parametrize(
        ("text", "lines"),
        [
            (
                "camera: {type: pattern}\ncameras:\n  door: {type: pattern}\n",
                ["2: cameras: given beside `camera`; it takes its place, where there is more than one"],
            ),
            (
                "camera: {type: pattern}\ncameras: {}\n",
                ["2: cameras: given beside `camera`; it takes its place, where there is more than one"],
            ),
            (
                "cameras:\n  door:\n    type: pattern\n    name: gate\n",
                ["4: cameras.door.name: got 'gate'; its name is 'door', the key above"],
            ),
            (
                "cameras:\n  door:\n    type: pattern\n  yard:\n    type: pattern\n    fsp: 5\n",
                ["6: cameras.yard.fsp: unknown key; did you mean 'fps'?"],
            ),
            (
                "cameras:\n  door:\n    type: images\n    path: pictures\n    fps: 5\n",
                ["5: cameras.door.fps: a key of type v4l2, rpicam or pattern, not of 'images'"],
            ),
            (
                "cameras:\n  door:\n    fps: 5\n",
                [f"2: cameras.door.type: missing; allowed: {' | '.join(CAMERAS)}"],
            ),
            (
                "cameras:\n  a: {type: images, path: gone}\n  b: {type: pattern, fps: no}\n",
                [
                    "2: cameras.a.path: got 'gone' (no such file or directory); allowed: a picture, a folder or a glob"
                    " that is there",
                    "3: cameras.b.fps: got no (bool); allowed: a number from 0.0001 to 10000",
                ],
            ),
            (
                "cameras: [{type: pattern}]\n",
                [
                    "1: cameras: got [a mapping]; allowed: a mapping of names to a mapping with a type: "
                    + ", ".join(CAMERAS)
                ],
            ),
            (
                "cameras:\n  door: pattern\n",
                [f"2: cameras.door: got 'pattern'; allowed: a mapping with a type: {', '.join(CAMERAS)}"],
            ),
        ],
        ids=["both", "both, one empty", "name", "unknown", "other type", "no type", "two", "list", "no mapping"],
    )
    def test_mistakes(self, text, lines):
        """What is wrong with one of several cameras is told at its line, under its name."""
        assert mistakes(text + MODEL) == lines

    @pytest.mark.parametrize("text", ["", "cameras: {}\n", "cameras:\n", "camera:\n"])
    def test_none(self, text):
        """Without any camera, both ways to give one are told."""
        allowed = f"a mapping with a type: {', '.join(CAMERAS)}, or `cameras` with a name for each"
        [line] = mistakes(text + MODEL)
        assert line.endswith(f" camera: missing; allowed: {allowed}")

    def test_only(self):
        """One of several can be picked by its name; there it keeps its key, for what is wrong with it later."""
        settings = read(self.TWO + MODEL)
        assert list(settings.only("yard").sources) == ["cameras.yard"]
        assert settings.only("yard").cameras == {"yard": settings.cameras["yard"]}
        with pytest.raises(SettingError, match="there is no camera 'shed'; there is door, yard"):
            settings.only("shed")

    def test_only_of_one(self):
        """A single camera can be picked by its name too."""
        settings = read(LEAST)
        assert settings.only("front") == settings
        with pytest.raises(SettingError, match="there is no camera 'door'; there is front"):
            settings.only("door")

    def test_later_mistakes_find_their_line(self):
        """What turns out later to be wrong with a camera is placed at its key, or at the nearest that was given."""
        Path("front.yaml").write_text("cameras:\n  door:\n    type: pattern\n  yard:\n    type: pattern\n" + MODEL)
        loaded = load_settings(Path("front.yaml"))
        found = []
        for key in ("type", "start_timeout"):
            with pytest.raises(SettingError) as caught, blamed("cameras.yard"):
                raise SettingError("wrong", key=key)
            found.append(loaded.locate(caught.value))
        assert found == [
            "front.yaml:5: cameras.yard.type: wrong",
            "front.yaml:4: cameras.yard.start_timeout: wrong",
        ]

    def test_from_the_command_line(self):
        """--set reaches into one of several cameras, or adds one."""
        cameras = read(self.TWO + MODEL, "cameras.door.fps=9", "cameras.gate.type=pattern").cameras
        assert (cameras["door"].fps, list(cameras)) == (9.0, ["door", "yard", "gate"])


def test_a_default_path_is_relative_as_one_that_is_given(tmp_path, monkeypatch):
    """What is written by default lies where it would lie if it had been named: beside the file, or in systemd's folder."""
    path = tmp_path / "deep" / "camera.yaml"
    path.parent.mkdir()
    path.write_text("camera: {type: pattern}\nmodel: {path: ../m.tflite}\noutputs: [{type: mqtt, host: broker}]\n")
    (tmp_path / "m.tflite").write_text("")
    assert load_settings(path).value.outputs[0].spool == tmp_path / "deep" / "spool"
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    assert load_settings(path).value.outputs[0].spool == tmp_path / "state" / "spool"
    assert load_settings(path, ["outputs.0.spool=null"]).value.outputs[0].spool is None
