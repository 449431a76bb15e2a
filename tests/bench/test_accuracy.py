"""bench/evaluate.py: small sets of pictures whose numbers are known beforehand, through the real command."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import cv2
import numpy as np
import pytest
from bundles import make_bundle

from edge_runner.frame import Picture
from edge_runner.result import Result
from edge_runner.task import TASKS

SCRIPT = Path(__file__).parents[2] / "bench" / "evaluate.py"
sys.path.insert(0, str(SCRIPT.parent))

from judges import base, mean_iou, top_k  # noqa: E402

from edge_runner.camera.pixels import PNG_START  # noqa: E402

MODELS = Path(os.environ.get("EDGE_RUNNER_MODELS", ""))
TIMEOUT_S = 60
COLOURS = {"red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0)}
GREY = (60, 60, 60)
SIDE = 64  # of the detectors' and the segmenters' input

with_models = pytest.mark.skipif(
    not os.environ.get("EDGE_RUNNER_MODELS") or not (MODELS / "classify").is_dir(),
    reason="EDGE_RUNNER_MODELS names no folder of models",
)

Box = tuple[int, int, int, int]
"""x, y, width, height in pixels."""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., CompletedProcess[str]]:
    """Run the script in the test's folder, and never see a traceback."""

    def call(*arguments: object, **variables: str) -> CompletedProcess[str]:
        command = [sys.executable, SCRIPT, *map(str, arguments)]
        environment = {**os.environ, **variables}
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=tmp_path, env=environment)
        assert "Traceback" not in done.stderr
        return done

    return call


@pytest.fixture
def numbers(run: Any, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """What the script writes with --json."""

    def call(*arguments: object) -> dict[str, Any]:
        done = run(*arguments, "--json", tmp_path / "numbers.json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads((tmp_path / "numbers.json").read_text("utf-8"))
        return found

    return call


def complaint(done: CompletedProcess[str], code: int) -> str:
    """The last line of a failure, which ends with `code` and says nothing else of it on standard output."""
    assert done.returncode == code, done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("edge-runner: error: ")
    return line.removeprefix("edge-runner: error: ")


def rows(found: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Of each label the values of these keys."""
    return {row["label"]: tuple(row[key] for key in keys) for row in found["labels"]}


def write(path: Path, picture: Picture) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)
    return path


class TestClassify:
    @pytest.fixture
    def data_of(self, tmp_path: Path, paint: Any) -> Callable[..., Path]:
        """A folder with a sub-folder a label; each has pictures 0.png, 1.png, … of the colours that are given."""

        def fill(**labels: Sequence[str]) -> Path:
            for label, colours in labels.items():
                (tmp_path / "data" / label).mkdir(parents=True)
                for number, colour in enumerate(colours):
                    paint(tmp_path / "data" / label / f"{number}.png", colour)
            return tmp_path / "data"

        return fill

    def test_all_right(self, configure: Any, data_of: Any, numbers: Any) -> None:
        """Where every answer is right, everything is 1, though files of different labels have one name."""
        folder = data_of(red=["red"] * 3, green=["green"] * 2, blue=["blue"])
        found = numbers("--config", configure(), "--data", folder)
        assert (found["top1"], found["top5"], found["pictures"], found["left_out"]) == (1, 1, 6, {})
        assert rows(found, "index", "pictures", "top1", "top5", "taken_for") == {
            "red": (0, 3, 1, 1, None),
            "green": (1, 2, 1, 1, None),
            "blue": (2, 1, 1, 1, None),
        }
        assert found["task"] == "classify"
        assert found["model"]["name"] == "colour"

    def test_some_wrong(self, configure: Any, data_of: Any, run: Any, numbers: Any) -> None:
        """So many wrong answers are so much less, in all and of their label, and what they are taken for is said."""
        folder = data_of(red=["red", "green", "green", "blue"], green=["green"] * 4, blue=["blue"] * 2)
        found = numbers("--config", configure(), "--data", folder)
        assert found["top1"] == 0.7
        assert found["top1_95"] == [pytest.approx(0.3968, abs=1e-4), pytest.approx(0.8922, abs=1e-4)]
        assert rows(found, "top1", "taken_for")["red"] == (0.25, "green")
        lines = run("--config", configure(), "--data", folder).stdout.splitlines()
        assert lines[0].startswith("colour ")
        assert lines[0].endswith("classify, 10 of 10 pictures")
        assert lines[3:5] == ["top-1 70.0% (95 % confidence: 39.7% to 89.2%)", "top-5 100.0%"]
        assert [line.split() for line in lines[6:]] == [
            ["label", "pictures", "top-1", "top-5", "mostly", "taken", "for"],
            ["red", "4", "25.0%", "100.0%", "green"],
            ["green", "4", "100.0%", "100.0%", "-"],
            ["blue", "2", "100.0%", "100.0%", "-"],
        ]

    def test_the_users_thresholds_do_not_count(self, configure: Any, data_of: Any, numbers: Any) -> None:
        """What keeps the daemon silent hides no answer here; not even where the command line says so."""
        folder = data_of(red=["red", "blue"], green=["green"], blue=["blue"])
        task = {"type": "classify", "score_threshold": 1.0, "max_results": 1, "label_thresholds": {"red": 1.0}}
        found = numbers("--config", configure(task=task), "--data", folder, "--set", "task.max_results=2")
        assert (found["top1"], found["top5"]) == (0.75, 1)
        assert found["set"] == {"task.score_threshold": 0, "task.label_thresholds": {}, "task.max_results": 5}

    def test_what_is_not_allowed_is_not_answered(self, configure: Any, data_of: Any, numbers: Any) -> None:
        """`allow` and `deny` are the task, and stay."""
        folder = data_of(red=["red"], green=["green"])
        found = numbers("--config", configure(task={"type": "classify", "deny": ["red"]}), "--data", folder)
        assert rows(found, "top1", "top5") == {"red": (0, 0), "green": (1, 1)}

    @pytest.mark.parametrize("several", [False, True])
    def test_the_users_camera_is_not_used(
        self, configure: Any, run: Any, numbers: Any, tmp_path: Path, several: bool
    ) -> None:
        """No camera is opened, and where it hangs and what it is aimed at does not change labelled pictures; that is said."""
        picture = np.full((40, 40, 3), COLOURS["red"], np.uint8)
        picture[:, :18] = COLOURS["blue"]
        folder = write(tmp_path / "data/red/a.png", picture).parents[1]
        camera = {"type": "v4l2", "device": "/dev/nowhere", "rotate": 90, "crop": [0, 0, 0.4, 1]}
        config = configure(camera=None, cameras={"one": camera}) if several else configure(camera=camera)
        assert numbers("--config", config, "--data", folder)["top1"] == 1
        said = run("--config", config, "--data", folder).stderr
        assert "rotate, flip and crop are left out" in said
        assert "left out" not in run("--config", configure(), "--data", folder).stderr

    def test_a_camera_of_another_machine(self, configure: Any, data_of: Any, run: Any, numbers: Any) -> None:
        """What the file names for its camera is checked, as always; another camera in its place takes it out."""
        config = configure(camera={"type": "stream", "url": "rtsp://u:${NOT_SET_ANYWHERE}@host/stream"})
        folder = data_of(red=["red"])
        assert "mistake in the configuration" in complaint(run("--config", config, "--data", folder), 78)
        assert numbers("--config", config, "--data", folder, "--set", "camera.type=pattern")["top1"] == 1

    def test_labels(self, configure: Any, data_of: Any, numbers: Any) -> None:
        """A folder is its label, written a little otherwise too, or its index; two of one label go together."""
        folder = data_of(Red=["red"], red=["blue"], **{"2": ["blue"]})
        found = numbers("--config", configure(), "--data", folder)
        assert rows(found, "pictures", "top1") == {"red": (2, 0.5), "blue": (1, 1)}

    def test_pictures_lie_deeper(self, configure: Any, data_of: Any, numbers: Any, paint: Any) -> None:
        """Pictures in folders below a label's are that label's."""
        folder = data_of(red=["red"])
        paint(folder / "red/monday/0.png", "green")
        assert numbers("--config", configure(), "--data", folder)["top1"] == 0.5

    def test_limit(self, configure: Any, data_of: Any, numbers: Any) -> None:
        """So many pictures at most, of all labels."""
        folder = data_of(red=["red"] * 10, green=["green"] * 10, blue=["red"] * 10)
        found = numbers("--config", configure(), "--data", folder, "--limit", "6")
        assert rows(found, "pictures", "top1") == {"red": (2, 1), "green": (2, 1), "blue": (2, 0)}

    def test_a_bundle(self, configure: Any, data_of: Any, numbers: Any, tmp_path: Path, data: Path) -> None:
        """A bundle needs no more than its folder, and is proven first, as the daemon does it."""
        bundle = make_bundle(tmp_path / "bundle", data / "colour.tflite", task={"type": "classify", "max_results": 1})
        config = configure(model={"path": str(bundle)}, preprocess=None)
        folder = data_of(red=["red", "blue"], blue=["blue"])
        found = numbers("--config", config, "--data", folder)
        assert (found["top1"], found["top5"]) == (pytest.approx(2 / 3, abs=1e-5), 1)
        assert found["model"] == {"name": "colour", "version": found["model"]["version"]}

    def test_set(self, configure: Any, data_of: Any, numbers: Any) -> None:
        """--set goes over the configuration: fed blue first, the model takes red for blue."""
        folder = data_of(red=["red"], green=["green"])
        found = numbers("--config", configure(), "--data", folder, "--set", "preprocess.color=bgr")
        assert rows(found, "top1", "taken_for") == {"red": (0, "blue"), "green": (1, None)}

    def test_pictures_that_cannot_be_read(self, configure: Any, data_of: Any, run: Any, tmp_path: Path) -> None:
        """They are named, and in none of the numbers; the numbers of the others come all the same, and the code is 1."""
        folder = data_of(red=["red", "red", "blue"], green=["green"])
        broken = folder / "red/1.png"
        broken.write_bytes(b"no picture")
        done = run("--config", configure(), "--data", folder, "--json", tmp_path / "o.json")
        assert complaint(done, 1) == f"1 of 4 pictures are not in these numbers: {broken} cannot be read as a picture"
        assert f"{broken}: skipped: it is damaged" in done.stderr
        assert "3 of 4 pictures" in done.stdout
        found = json.loads((tmp_path / "o.json").read_text())
        assert rows(found, "pictures", "top1") == {"red": (2, 0.5), "green": (1, 1)}
        assert found["left_out"] == {str(broken): "cannot be read as a picture"}

    def test_no_picture_can_be_read(self, configure: Any, data_of: Any, run: Any) -> None:
        """Without any result there are no numbers."""
        folder = data_of(red=["red"])
        (folder / "red/0.png").write_bytes(b"")
        done = run("--config", configure(), "--data", folder)
        assert "none of the 1 pictures can be judged" in complaint(done, 1)
        assert done.stdout == ""

    def test_a_link_that_leads_nowhere(self, configure: Any, data_of: Any, run: Any) -> None:
        """A picture that is not there shifts no answer to another one's truth: it is an error."""
        folder = data_of(red=["red"], green=["green"])
        (folder / "green/lost.png").symlink_to("nowhere.png")
        assert "1 of 3 pictures are missing" in complaint(run("--config", configure(), "--data", folder), 1)

    @pytest.mark.parametrize(
        ("labels", "says"),
        [
            ({}, "has no sub-folders; wanted is one a label"),
            ({"red": ["red"], "purple": ["blue"]}, r"no label, or several, for the folder 'purple'; it has red, green, blue"),
            ({"red": ["red"], "3": ["blue"]}, "for the folder '3'"),
            ({"red": ["red"], "green": []}, "green holds no pictures"),
        ],
    )  # fmt: skip
    def test_folders_that_do_not_fit(self, configure: Any, data_of: Any, run: Any, labels: Any, says: str) -> None:
        """A folder that is no label of the model, an empty one, or none at all: one line that names it."""
        folder = data_of(**labels)
        folder.mkdir(exist_ok=True)
        done = run("--config", configure(), "--data", folder)
        assert says in complaint(done, 1)
        assert done.stdout == ""

    def test_top5(self, result: Callable[..., Result]) -> None:
        """The true label among the best five counts for top-5, and only the best one for top-1."""
        judge = top_k.TopK(Path())
        judge._names, labels = ("a",), tuple("abcdefgh")
        judge.fits(labels)
        for place in range(7):
            order = [label for label in labels if label != "a"]
            order.insert(place, "a")
            answers = [(label, 0.5) for label in order]
            made = result(*answers)
            classes = tuple(
                type(one)(one.label, labels.index(one.label), one.score) for one in made.answers.classifications or ()
            )
            judge.judge(base.Sample(Path(), "a"), result(answers=type(made.answers)(classifications=classes)))
        found = judge.numbers()
        assert (found["top1"], found["top5"]) == (pytest.approx(1 / 7, abs=1e-5), pytest.approx(5 / 7, abs=1e-5))

    def test_many_labels(self) -> None:
        """Of very many labels, people see the worst, and where the rest is."""
        many = [{"label": str(number), "top1": number / 100} for number in range(100)]
        shown = base.worst(many, "top1")
        assert [row["label"] for row in shown] == [str(number) for number in range(base.ROWS)]
        lines = list(base.table(["label"], [[row["label"]] for row in shown], len(many)))
        assert lines[-1] == f"… the {base.ROWS} worst of 100 labels; --json FILE has all"

    @pytest.mark.parametrize(
        ("share", "count", "low", "high"), [(0.5, 10, 0.2366, 0.7634), (1.0, 10, 0.7225, 1.0), (0.0, 10, 0.0, 0.2775)]
    )
    def test_confidence(self, share: float, count: int, low: float, high: float) -> None:
        """Wilson's interval, against published values; it stays within 0..1."""
        assert top_k.wilson(share, count) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


class TestDetect:
    @pytest.fixture
    def scene(self, tmp_path: Path) -> Callable[..., Path]:
        """Write pictures of rectangles, {name: {colour: box}}, into images/, and what is said to be in them into marks.json."""

        def make(
            drawn: Mapping[str, Mapping[str, Box]], marked: Mapping[str, Mapping[str, Box]] | None = None, **more: Any
        ) -> Path:
            for name, boxes in drawn.items():
                picture = np.full((SIDE, SIDE, 3), GREY, np.uint8)
                for colour, (x, y, width, height) in boxes.items():
                    picture[y : y + height, x : x + width] = COLOURS[colour]
                write(tmp_path / "images" / name, picture)
            names = list(marked or drawn)
            marks = [
                {"image_id": names.index(name), "category_id": 7 + list(COLOURS).index(colour), "bbox": list(box)}
                for name, boxes in (marked or drawn).items()
                for colour, box in boxes.items()
            ]
            content = {
                "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
                "annotations": [{**mark, "id": number} for number, mark in enumerate(marks)],
                "categories": [{"id": 7 + number, "name": colour} for number, colour in enumerate(COLOURS)],
                **more,
            }
            (tmp_path / "marks.json").write_text(json.dumps(content))
            return tmp_path / "marks.json"

        return make

    @pytest.fixture
    def evaluated(self, configure: Any, data: Path, tmp_path: Path) -> Callable[..., list[object]]:
        """The script's arguments for a model of boxes."""

        def arguments(marks: Path, model: str = "rect_yolov8", **task: Any) -> list[object]:
            config = configure(
                model={"path": str(data / f"{model}.tflite"), "labels": str(data / "colours.txt")},
                task={"type": "detect", **task},
            )
            return ["--config", config, "--images", tmp_path / "images", "--annotations", marks]

        return arguments

    @pytest.mark.parametrize("model", ["rect_yolov8", "rect_yolov5", "rect_nms", "rect_four"])
    def test_exact_boxes(self, scene: Any, evaluated: Any, numbers: Any, model: str) -> None:
        """Where every box is right, everything is 1; a size that no box has is unknown, not 0."""
        marks = scene(
            {
                "a.png": {"red": (4, 6, 10, 20), "green": (30, 2, 12, 12)},
                "b.png": {"red": (20, 20, 34, 40), "blue": (2, 2, 8, 8)},
            }
        )
        found = numbers(*evaluated(marks, model))
        assert [found[key] for key in ("map", "map_50", "map_75", "recall")] == [1, 1, 1, 1]
        assert [found[f"map_{size}"] for size in ("small", "medium", "large")] == [1, 1, None]
        assert rows(found, "objects", "ap", "ap_50") == {"red": (2, 1, 1), "green": (1, 1, 1), "blue": (1, 1, 1)}
        assert found["objects"] == 4
        assert found["labels_left_out"] == []

    def test_shifted_boxes(self, scene: Any, evaluated: Any, numbers: Any) -> None:
        """A box counts at those of the ten IoUs that it reaches: 14/18 = .78 at six of them, 12/20 = .6 at three."""
        marks = scene(
            {"a.png": {"red": (10, 6, 16, 20), "green": (40, 6, 16, 20)}},
            {"a.png": {"red": (12, 6, 16, 20), "green": (44, 6, 16, 20)}},
        )
        found = numbers(*evaluated(marks))
        assert rows(found, "ap", "ap_50") == {"red": (0.6, 1), "green": (0.3, 1)}
        assert (found["map"], found["map_50"], found["map_75"]) == (0.45, 1, 0.5)

    def test_missed(self, scene: Any, evaluated: Any, numbers: Any) -> None:
        """Half of what is marked is found: COCO's mean over 101 recalls is 51/101."""
        marks = scene(
            {"a.png": {"red": (10, 6, 16, 20)}, "b.png": {}},
            {"a.png": {"red": (10, 6, 16, 20)}, "b.png": {"red": (10, 6, 16, 20)}},
        )
        found = numbers(*evaluated(marks))
        assert (found["map"], found["recall"]) == (pytest.approx(51 / 101, abs=1e-5), 0.5)

    def test_found_where_nothing_is(self, scene: Any, evaluated: Any, numbers: Any) -> None:
        """A false box before the right one halves the precision; a picture without marks is one to be wrong in. A crowd's counts
        neither way."""
        drawn = {"a.png": {"red": (10, 6, 16, 20)}, "b.png": {"red": (10, 6, 16, 20)}}
        marked = {"a.png": {}, "b.png": {"red": (10, 6, 16, 20)}}
        assert numbers(*evaluated(scene(drawn, marked)))["map"] == 0.5
        crowd = [
            {"id": 1, "image_id": 0, "category_id": 7, "bbox": [0, 0, 60, 60], "area": 3600, "iscrowd": 1},
            {"id": 2, "image_id": 1, "category_id": 7, "bbox": [10, 6, 16, 20], "area": 320, "iscrowd": 0},
        ]
        found = numbers(*evaluated(scene(drawn, marked, annotations=crowd)))
        assert (found["map"], rows(found, "objects")) == (1, {"red": (1,)})

    def test_nothing_found(self, scene: Any, evaluated: Any, numbers: Any) -> None:
        """A model that finds nothing is worth 0."""
        found = numbers(*evaluated(scene({"a.png": {}}, {"a.png": {"red": (10, 6, 16, 20)}})))
        assert (found["map"], found["recall"]) == (0, 0)

    def test_thresholds(self, scene: Any, evaluated: Any, numbers: Any) -> None:
        """The daemon's thresholds hide no box, unless this command line sets them."""
        marks = scene({"a.png": {"red": (10, 6, 16, 20), "green": (40, 6, 16, 20)}})  # scores .9 and .8
        arguments = evaluated(marks, score_threshold=0.95, max_results=1, label_thresholds={"green": 1.0})
        found = numbers(*arguments)
        assert found["map"] == 1
        assert found["set"] == {"task.score_threshold": 0.001, "task.label_thresholds": {}, "task.max_results": 100}
        assert numbers(*arguments, "--set", "task.score_threshold=0.85")["map"] == 0.5
        assert numbers(*arguments, "--set", "task.max_results=1")["map"] == 0.5

    def test_letterbox(self, scene: Any, evaluated: Any, numbers: Any, tmp_path: Path) -> None:
        """Boxes are in pixels of the whole picture, whatever the model is shown of it."""
        picture = np.full((64, 128, 3), GREY, np.uint8)
        picture[8:40, 16:80] = COLOURS["blue"]
        marks = scene({"a.png": {}}, {"a.png": {"blue": (16, 8, 64, 32)}})
        write(tmp_path / "images/a.png", picture)
        assert numbers(*evaluated(marks), "--set", "preprocess.resize=letterbox")["map"] == 1

    def test_labels(self, scene: Any, evaluated: Any, run: Any, numbers: Any) -> None:
        """Categories are the model's labels by name, written a little otherwise too, whatever their numbers; labels that are marked
        nowhere are left out, and said; a category that marks nothing may be called as it likes."""
        drawn = {"a.png": {"red": (10, 6, 16, 20), "blue": (40, 6, 16, 20)}}
        names = [{"id": 7, "name": "RED"}, {"id": 8, "name": "things"}]
        arguments = evaluated(scene(drawn, {"a.png": {"red": (10, 6, 16, 20)}}, categories=names))
        found = numbers(*arguments)
        assert rows(found, "ap") == {"RED": (1,)}
        assert found["labels_left_out"] == ["green", "blue"]
        assert "left out, for nothing is marked with it: 2 of the model's labels, green, blue" in run(*arguments).stdout

    def test_categories_that_do_not_fit(self, scene: Any, evaluated: Any, run: Any) -> None:
        """A category that is none of the model's labels is named, with what there is; so are two of one label."""
        drawn = {"a.png": {"red": (10, 6, 16, 20), "green": (40, 6, 16, 20)}}
        for names, says in (
            (("cat", "dog"), "for the category 'cat', 'dog'; it has red, green, blue"),
            (("red", "Red"), "categories 7 and 8 are both the label 'red'"),
        ):
            categories = [{"id": 7 + number, "name": name} for number, name in enumerate(names)]
            assert says in complaint(run(*evaluated(scene(drawn, categories=categories))), 1)

    def test_folders_below(self, scene: Any, evaluated: Any, numbers: Any) -> None:
        """Files of one name in different folders are different pictures."""
        marks = scene({"one/a.png": {"red": (10, 6, 16, 20)}, "two/a.png": {"red": (30, 30, 16, 20)}})
        found = numbers(*evaluated(marks))
        assert (found["map"], found["pictures"]) == (1, 2)

    def test_limit(self, scene: Any, evaluated: Any, numbers: Any) -> None:
        """With fewer pictures, what is marked in the others is not missed."""
        marks = scene({f"{name}.png": {"red": (10, 6, 16, 20)} for name in "abcde"})
        found = numbers(*evaluated(marks), "--limit", "2")
        assert (found["map"], found["pictures"], found["objects"]) == (1, 2, 2)

    def test_another_size(self, scene: Any, evaluated: Any, run: Any, tmp_path: Path) -> None:
        """A picture of another size than its annotation says was changed afterwards: its boxes are elsewhere."""
        images = [{"id": n, "file_name": "ab"[n] + ".png", "width": (64, 99)[n], "height": 64} for n in (0, 1)]
        boxes = {"red": (10, 6, 16, 20)}
        marks = scene({"a.png": boxes, "b.png": boxes}, images=images)
        done = run(*evaluated(marks), "--json", tmp_path / "o.json")
        assert "b.png is 64x64 when upright, and 99x64 in the annotations" in complaint(done, 1)
        found = json.loads((tmp_path / "o.json").read_text())
        assert (found["map"], found["pictures"], found["objects"]) == (1, 1, 1)

    def test_missing_pictures(self, scene: Any, evaluated: Any, run: Any, tmp_path: Path) -> None:
        """Pictures that are annotated and not there are named."""
        marks = scene({f"{name}.png": {"red": (10, 6, 16, 20)} for name in "abc"})
        (tmp_path / "images/b.png").unlink()
        assert complaint(run(*evaluated(marks)), 1) == f"1 of 3 pictures are missing: {tmp_path}/images/b.png"

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"annotations": []}, "marks nothing"),
            ({"images": 3}, "no file of COCO's instances: wanted are 'images', a list, each with id, file_name"),
            ({"images": [{"id": 0}]}, "no file of COCO's instances"),
            ({"images": [{"id": 5, "file_name": "a.png"}]}, "1 annotations have a image_id that is not among 'images': 0"),
            ({"categories": [{"id": 1, "name": "red"}]}, "a category_id that is not among 'categories': 7"),
            ({"images": [{"id": 0, "file_name": "a.png"}] * 2}, "1 ids of 'images' are there more than once: 0"),
            ({"annotations": [{"image_id": 0, "category_id": 7, "bbox": [1, 2, 3]}]}, "got the bbox [1, 2, 3]"),
        ],
    )  # fmt: skip
    def test_broken_annotations(self, scene: Any, evaluated: Any, run: Any, change: Any, says: str) -> None:
        """What is no file of annotations, or leads nowhere, is refused with what is wrong."""
        done = run(*evaluated(scene({"a.png": {"red": (10, 6, 16, 20)}}, **change)))
        assert says in complaint(done, 1)

    def test_no_json(self, evaluated: Any, run: Any, tmp_path: Path) -> None:
        """A file that is missing, or no JSON, is named."""
        assert "no such file" in complaint(run(*evaluated(tmp_path / "nowhere.json")), 1)
        (tmp_path / "text.json").write_text("{")
        assert "no JSON" in complaint(run(*evaluated(tmp_path / "text.json")), 1)

    def test_standard_output_is_ours(self, scene: Any, evaluated: Any, run: Any) -> None:
        """What pycocotools says on the way is not among the numbers."""
        done = run(*evaluated(scene({"a.png": {"red": (10, 6, 16, 20)}})))
        lines = done.stdout.splitlines()
        assert lines[0].startswith("rect_yolov8 ")
        assert lines[3] == "mAP         1.000  mean of IoU .50 to .95"
        assert lines[-2].split() == ["label", "objects", "AP", "AP", ".50"]
        assert lines[-1].split() == ["red", "1", "1.000", "1.000"]
        assert "index" not in done.stdout + done.stderr
        assert "DONE" not in done.stdout + done.stderr

    def test_without_pycocotools(self, scene: Any, evaluated: Any, run: Any, tmp_path: Path) -> None:
        """Without pycocotools, one line says how to have them."""
        fake = tmp_path / "fake/pycocotools"
        fake.mkdir(parents=True)
        (fake / "__init__.py").write_text("raise ImportError('not here')")
        path = os.pathsep.join([str(fake.parent), os.environ.get("PYTHONPATH", "")])
        done = run(*evaluated(scene({"a.png": {"red": (10, 6, 16, 20)}})), PYTHONPATH=path)
        assert "pip install 'edge-runner[bench]'" in complaint(done, 1)


def png(values: Any, bits: int, kind: int, extra: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """A PNG of `values` [height, width], or [height, width, channels], with so many bits, without OpenCV."""
    values = np.asarray(values)
    height, width = values.shape[:2]
    lines = []
    for line in values.reshape(height, -1):
        spread = (line[:, None].astype(np.uint16) >> np.arange(bits - 1, -1, -1)) & 1
        lines.append(b"\0" + np.packbits(spread.astype(np.uint8).ravel()).tobytes())
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(b"".join(lines))), (b"IEND", b"")]
    return PNG_START + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


class TestSegment:
    @pytest.fixture
    def evaluated(self, configure: Any, data: Path, tmp_path: Path) -> Callable[..., list[object]]:
        """The script's arguments for a model of masks: background, red, green, blue."""

        def arguments(model: str = "seg_logits_nhwc", **task: Any) -> list[object]:
            config = configure(
                model={"path": str(data / f"{model}.tflite"), "labels": str(data / "segments.txt")},
                task={"type": "segment", **task},
            )
            return ["--config", config, "--images", tmp_path / "images", "--masks", tmp_path / "masks"]

        return arguments

    @pytest.fixture
    def scene(self, tmp_path: Path) -> Callable[..., None]:
        """Write one picture of rectangles {colour: box}, and the mask of other ones."""

        def make(
            name: str, drawn: Mapping[str, Box], marked: Mapping[str, Box], size: tuple[int, int] = (SIDE, SIDE)
        ) -> None:
            picture, mask = np.full((*size, 3), GREY, np.uint8), np.zeros(size, np.uint8)
            for colour, (x, y, width, height) in drawn.items():
                picture[y : y + height, x : x + width] = COLOURS[colour]
            for colour, (x, y, width, height) in marked.items():
                mask[y : y + height, x : x + width] = ["background", *COLOURS].index(colour)
            write(tmp_path / "images" / f"{name}.bmp", picture)
            write(tmp_path / "masks" / f"{name}.png", mask)

        return make

    @pytest.mark.parametrize("model", ["seg_logits_nhwc", "seg_argmax_int64", "seg_argmax_uint8"])
    def test_all_right(self, scene: Any, evaluated: Any, numbers: Any, model: str) -> None:
        """Where every pixel is right, everything is 1; a label that is nowhere is in no mean."""
        scene("a", {"red": (0, 0, 32, 64)}, {"red": (0, 0, 32, 64)})
        scene("b", {"blue": (0, 0, 64, 16)}, {"blue": (0, 0, 64, 16)})
        found = numbers(*evaluated(model))
        assert (found["miou"], found["pixel_accuracy"], found["unanswered"]) == (1, 1, 0)
        assert rows(found, "index", "marked", "iou") == {
            "background": (0, 0.625, 1),
            "red": (1, 0.25, 1),
            "blue": (3, 0.125, 1),
        }

    def test_by_hand(self, scene: Any, evaluated: Any, run: Any, numbers: Any) -> None:
        """Red is found 16 columns beside the 32 that are marked: of 48 columns 16 are both, and 16 of 48 are neither. Green, found
        and not marked, is 0, and takes half of the background."""
        scene("a", {"red": (16, 0, 32, 64)}, {"red": (0, 0, 32, 64)})
        found = numbers(*evaluated())
        third = pytest.approx(1 / 3, abs=1e-5)
        assert rows(found, "iou") == {"background": (third,), "red": (third,)}
        assert (found["miou"], found["pixel_accuracy"]) == (third, 0.5)
        scene("a", {"green": (0, 0, 32, 64)}, {})
        found = numbers(*evaluated())
        assert rows(found, "marked", "iou") == {"background": (1, 0.5), "green": (0, 0)}
        assert found["miou"] == 0.25
        lines = run(*evaluated()).stdout.splitlines()
        assert lines[3:5] == ["mIoU            0.250  mean of 2 labels", "pixel accuracy  50.0%"]
        assert [line.split() for line in lines[6:]] == [
            ["label", "marked", "IoU"], ["background", "100.0%", "0.500"], ["green", "0.0%", "0.000"],
        ]  # fmt: skip

    def test_ignored(self, scene: Any, evaluated: Any, numbers: Any, run: Any, tmp_path: Path) -> None:
        """Where a mask is 255, no answer is right or wrong; where it is nothing else, there is nothing to measure."""
        scene("a", {"red": (0, 0, 32, 64)}, {"red": (0, 0, 32, 64)})
        mask = cv2.imread(str(tmp_path / "masks/a.png"), cv2.IMREAD_UNCHANGED)
        mask[:, 16:48] = [[1] * 16 + [255] * 16]
        mask[:, 0:8] = 255
        write(tmp_path / "masks/a.png", mask)
        found = numbers(*evaluated())
        assert (found["miou"], found["pixel_accuracy"], rows(found, "marked")["red"]) == (1, 1, (0.6,))
        write(tmp_path / "masks/a.png", np.full_like(mask, 255))
        assert "mark nothing: every pixel is 255" in complaint(run(*evaluated()), 1)

    def test_not_seen(self, scene: Any, evaluated: Any, run: Any, numbers: Any) -> None:
        """What the model does not see of a picture is wrong, not ignored: of twice as wide a one, half is cut off."""
        scene("a", {"red": (0, 0, 128, 32)}, {"red": (0, 0, 128, 32)}, size=(64, 128))
        arguments = [*evaluated(), "--set", "preprocess.resize=crop"]
        found = numbers(*arguments)
        assert (found["miou"], found["pixel_accuracy"], found["unanswered"]) == (0.5, 0.5, 0.5)
        assert "unanswered      50.0%  outside of what the model saw; counted as wrong" in run(*arguments).stdout

    def test_the_frames_own_size(self, scene: Any, evaluated: Any, numbers: Any) -> None:
        """Masks are compared at the picture's size, whatever the configuration asks for."""
        scene("a", {"red": (0, 0, 128, 96)}, {"red": (0, 0, 128, 96)}, size=(192, 256))
        found = numbers(*evaluated(mask="none"))
        assert (found["miou"], found["set"]) == (1, {"task.mask": "frame"})

    def test_divisor(self, scene: Any, evaluated: Any, numbers: Any, run: Any, tmp_path: Path) -> None:
        """Masks of ten times the class are read with a divisor, which 255 is not divided by; without, or with another, refused."""
        scene("a", {"red": (0, 0, 32, 64)}, {})
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[:, :32] = 10
        mask[:, 60:] = 255
        write(tmp_path / "masks/a.png", mask)
        assert numbers(*evaluated(), "--mask-divisor", "10")["miou"] == 1
        said = complaint(run(*evaluated()), 1)
        assert "masks/a.png has the value 10; the model's classes are 0 to 3; where values are 10 times" in said
        assert "has the value 10, no multiple of 7" in complaint(run(*evaluated(), "--mask-divisor", "7"), 1)

    def test_which_pictures(self, scene: Any, evaluated: Any, numbers: Any, tmp_path: Path) -> None:
        """The masks decide: pictures without one are left out; masks may lie beside the pictures."""
        scene("a", {"red": (0, 0, 32, 64)}, {"red": (0, 0, 32, 64)})
        write(tmp_path / "images/without.jpg", np.zeros((SIDE, SIDE, 3), np.uint8))
        assert numbers(*evaluated())["pictures"] == 1
        shutil.copy(tmp_path / "masks/a.png", tmp_path / "images/a.png")
        found = numbers(*evaluated()[:4], "--masks", tmp_path / "images")
        assert (found["pictures"], found["miou"]) == (1, 1)

    def test_masks_that_do_not_fit(self, scene: Any, evaluated: Any, run: Any, tmp_path: Path) -> None:
        """No masks, a mask without a picture, or with two, or of another size: one line that names them."""
        scene("a", {}, {})
        scene("b", {}, {})
        write(tmp_path / "masks/b.png", np.zeros((32, 32), np.uint8))
        said = complaint(run(*evaluated()), 1)
        assert said == f"1 of 2 pictures are not in these numbers: {tmp_path}/images/b.bmp is 64x64, and its mask 32x32"
        write(tmp_path / "images/a.png", np.zeros((SIDE, SIDE, 3), np.uint8))
        assert "more than one picture for a mask" in complaint(run(*evaluated()), 1)
        for path in (tmp_path / "images").glob("a.*"):
            path.unlink()
        said = complaint(run(*evaluated()), 1)
        assert said == f"1 of 2 masks have no picture in {tmp_path}/images: {tmp_path}/masks/a.png"
        shutil.rmtree(tmp_path / "masks")
        assert "masks is no folder" in complaint(run(*evaluated()), 1)
        (tmp_path / "masks").mkdir()
        assert "holds no masks" in complaint(run(*evaluated()), 1)


class TestMaskFiles:
    @pytest.mark.parametrize("kind", [0, 3], ids=["grey", "palette"])
    @pytest.mark.parametrize("bits", [1, 2, 4, 8])
    def test_values_are_as_written(self, tmp_path: Path, capfd: Any, bits: int, kind: int) -> None:
        """A pixel's value is what the file has, of any depth: a palette's number, not its colour; 1 of one bit, not 255. No library
        complains of it."""
        values = np.arange(30).reshape(5, 6) % 2**bits
        palette = bytes(np.random.default_rng(0).integers(0, 256, 3 * 2**bits, np.uint8))
        extra = [(b"gAMA", struct.pack(">I", 45455)), (b"PLTE", palette), (b"tRNS", b"\x00" * (2**bits))]
        path = tmp_path / "mask.png"
        path.write_bytes(png(values, bits, kind, extra if kind == 3 else ()))
        assert mean_iou.read_indices(path).tolist() == values.tolist()
        assert capfd.readouterr().err == ""

    def test_sixteen_bits(self, tmp_path: Path) -> None:
        """Masks of more than 255 classes have 16 bits."""
        values = np.array([[0, 254], [300, 65535]])
        (tmp_path / "mask.png").write_bytes(png(values, 16, 0))
        assert mean_iou.read_indices(tmp_path / "mask.png").tolist() == values.tolist()

    def test_grey_as_colours(self, tmp_path: Path) -> None:
        """Three equal channels are one, with alpha or without; others are colours, which stand for no class."""
        values = np.arange(6).reshape(2, 3)
        for channels, kind in ((3, 2), (4, 6)):
            stacked = np.stack([values] * 3 + [np.full_like(values, 255)] * (channels - 3), axis=-1)
            (tmp_path / "mask.png").write_bytes(png(stacked, 8, kind))
            assert mean_iou.read_indices(tmp_path / "mask.png").tolist() == values.tolist()
        stacked[0, 0, 1] += 1
        (tmp_path / "mask.png").write_bytes(png(stacked, 8, 6))
        with pytest.raises(base.DataError, match="has colours"):
            mean_iou.read_indices(tmp_path / "mask.png")

    @pytest.mark.parametrize("cut", [0, 4, 20, 30, 60])
    def test_damaged(self, tmp_path: Path, cut: int) -> None:
        """What is no PNG, or a part of one, is refused by name."""
        (tmp_path / "mask.png").write_bytes(png(np.zeros((9, 9)), 8, 0)[:cut])
        with pytest.raises(base.DataError, match=r"mask\.png is damaged"):
            mean_iou.read_indices(tmp_path / "mask.png")
        with pytest.raises(base.DataError, match="no such file"):
            mean_iou.read_indices(tmp_path / "nowhere.png")


class TestCommand:
    @pytest.mark.parametrize(
        "options",
        [
            (),
            ("--data", "d", "--images", "i"),
            ("--data", "d", "--masks", "m"),
            ("--images", "i"),
            ("--annotations", "a.json"),
            ("--images", "i", "--annotations", "a.json", "--masks", "m"),
            ("--data", "d", "--mask-divisor", "10"),
            ("--data", "d", "--limit", "0"),
            ("--dat", "d"),
        ],
    )
    def test_usage(self, configure: Any, run: Any, options: Sequence[str]) -> None:
        """Options that do not go together are a usage error."""
        complaint(run("--config", configure(), *options), 2)

    @pytest.mark.parametrize("task", [task for task in TASKS if task not in ("detect", "segment")])
    def test_the_task_decides(self, configure: Any, run: Any, task: str) -> None:
        """Options of another task than the configuration's are told from the right ones; pose and raw have none."""
        done = run("--config", configure(task={"type": task}), "--images", "i", "--annotations", "a.json")
        says = "takes --data FOLDER" if task == "classify" else "is not evaluated; classify, detect, segment are"
        assert says in complaint(done, 2)

    def test_the_bundles_task_decides(self, configure: Any, run: Any, tmp_path: Path, data: Path) -> None:
        """Where the configuration does not say the task, the bundle does."""
        bundle = make_bundle(tmp_path / "bundle", data / "colour.tflite", task={"type": "raw"})
        done = run("--config", configure(model={"path": str(bundle)}, preprocess=None), "--data", "d")
        assert "is for the task 'raw'" in complaint(done, 2)

    def test_the_configuration_is_wrong(self, configure: Any, run: Any, paint: Any, tmp_path: Path) -> None:
        """Mistakes in the configuration or the model are those of every command: each with its line, and 78."""
        paint(tmp_path / "data/red/0.png")
        done = run("--config", configure(task={"type": "classify", "max": 3}), "--data", tmp_path / "data")
        assert complaint(done, 78) == "1 mistake in the configuration"
        assert "camera.yaml:18: task.max: unknown key" in done.stderr
        done = run("--config", configure(), "--data", tmp_path / "data", "--set", "model.labels=nowhere.txt")
        assert complaint(done, 78) == "1 mistake in the configuration"
        (tmp_path / "two.txt").write_text("a\nb\n")
        done = run("--config", configure(), "--data", tmp_path / "data", "--set", f"model.labels={tmp_path}/two.txt")
        assert "has 2 labels; output" in complaint(done, 78)

    def test_where_json_goes(self, configure: Any, run: Any, tmp_path: Path) -> None:
        """Numbers that could not be written are not waited for."""
        done = run("--config", configure(), "--data", "nowhere", "--json", tmp_path / "nowhere/o.json")
        assert "nowhere is no folder" in complaint(done, 1)
        assert "it is a folder" in complaint(run("--config", configure(), "--data", "d", "--json", tmp_path), 1)

    def test_on_a_terminal(self, configure: Any, paint: Any, tmp_path: Path) -> None:
        """A terminal shows how far it is, in one line that is written over; Ctrl-C ends it with one line, and no numbers."""
        picture = paint(tmp_path / "data/red/0.png", size=(1500, 1500))
        for number in range(1, 1000):
            (picture.parent / f"{number}.png").symlink_to(picture)
        ours, theirs = pty.openpty()
        command = [sys.executable, SCRIPT, "--config", configure(), "--data", tmp_path / "data"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, cwd=tmp_path)
        os.close(theirs)
        said, asked, until = b"", False, time.monotonic() + TIMEOUT_S
        while time.monotonic() < until:
            try:
                said += os.read(ours, 65536)
            except OSError:  # its end
                break
            if b"\x1b[K\r" in said and not asked:
                child.send_signal(signal.SIGINT)
                asked = True
        os.close(ours)
        out, _ = child.communicate(timeout=TIMEOUT_S)
        assert b"/1000 pictures, " in said
        last = said.decode().splitlines()[-1]
        assert last.startswith("edge-runner: error: interrupted after ")
        assert (child.returncode, out) == (1, b"")


@with_models
class TestRealModels:
    """The figures that were measured elsewhere, of models that others trained."""

    CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

    @pytest.mark.parametrize(("model", "top1"), [("float", 0.752), ("int8", 0.748)])
    def test_resnet8(self, numbers: Any, configure: Any, tmp_path: Path, model: str, top1: float) -> None:
        """ResNet8 of MLPerf Tiny, on 1,000 pictures of CIFAR-10."""
        (tmp_path / "labels.txt").write_text("\n".join(self.CIFAR10))
        path = MODELS / f"classify/mlperf_resnet8_cifar10_{model}.tflite"
        config = configure(
            model={"path": str(path), "labels": str(tmp_path / "labels.txt")},
            preprocess={"color": "rgb", "mean": 0, "std": 1},
        )
        found = numbers("--config", config, "--data", MODELS / "eval/cifar10_test")
        near = (
            0 if model == "float" or sys.version_info < (3, 12) else 0.01
        )  # LiteRT's quantised kernels round otherwise
        assert found["top1"] == pytest.approx(top1, abs=near)
        assert found["top5"] > 0.97
        assert found["pictures"] == 1000

    def test_ssd(self, numbers: Any, configure: Any, tmp_path: Path) -> None:
        """SSD MobileNet V1 finds three cats and a dog where it was seen to."""
        boxes = [(17, 55, 397, 393, 199), (17, 606, 154, 387, 447), (17, 260, 394, 181, 209), (18, 390, 198, 276, 409)]
        content = {
            "images": [{"id": 1, "file_name": "cats_and_dogs.jpg", "width": 1200, "height": 600}],
            "annotations": [{"image_id": 1, "category_id": number, "bbox": list(box)} for number, *box in boxes],
            "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
        }
        (tmp_path / "marks.json").write_text(json.dumps(content))
        path = MODELS / "detect/coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite"
        config = configure(
            model={"path": str(path), "labels": str(MODELS / "detect/coco_labels_90.txt")},
            preprocess={"color": "rgb", "mean": 0, "std": 1},
            task={"type": "detect"},
        )
        found = numbers("--config", config, "--images", MODELS / "images", "--annotations", tmp_path / "marks.json")
        assert found["map_50"] > 0.95
        assert len(found["labels_left_out"]) == 78

    def test_deeplab(self, numbers: Any, configure: Any, tmp_path: Path) -> None:
        """DeepLab V3 gives the published mask, whose values are ten times the class."""
        for folder, name in (
            ("images", "segmentation_input_rotation0.jpg"),
            ("masks", "segmentation_golden_rotation0.png"),
        ):
            (tmp_path / folder).mkdir()
            shutil.copy(MODELS / "images" / name, tmp_path / folder / f"horse{Path(name).suffix}")
        labels = (MODELS / "segment/pascal_voc_segmentation_labels.txt").read_text().splitlines()[:21]
        (tmp_path / "labels.txt").write_text("\n".join(labels))
        config = configure(
            model={"path": str(MODELS / "segment/deeplabv3_257_float.tflite"), "labels": str(tmp_path / "labels.txt")},
            preprocess={"color": "rgb", "mean": 127.5, "std": 127.5},
            task={"type": "segment"},
        )
        folders = ("--images", tmp_path / "images", "--masks", tmp_path / "masks")
        found = numbers("--config", config, *folders, "--mask-divisor", "10")
        assert found["miou"] > 0.999
        assert sorted(rows(found)) == ["background", "horse", "person"]
