"""The tasks through the real commands: one frame, a folder, check, snapshot; and models, decoders and labels that do not fit."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import cv2
import numpy as np
import pytest
from rectangles import COLOURS, DATA, LANDSCAPE, RECIPE, SCORES, body_points

from edge_runner.engine import build_engine
from edge_runner.errors import EXIT_CONFIG, EdgeRunnerError
from edge_runner.settings import load_settings
from edge_runner.task.decoder import DECODERS

Run = Callable[..., CompletedProcess[str]]
Write = Callable[..., Path]
MOUNTED = {"rotate": 90, "flip": "horizontal"}
PRINTED = 1e-6  # six significant digits


@pytest.fixture
def settle(tmp_path: Path, configure: Any) -> Write:
    """A configuration for one of the tiny models, with a camera on its side that looks at the landscape of rectangles."""

    def write(model: str, labels: str | None = "colours.txt", recipe: Any = None, **task: Any) -> Path:
        (tmp_path / "pictures").mkdir(exist_ok=True)
        assert cv2.imwrite(str(tmp_path / "pictures/1.png"), LANDSCAPE.taken(90, "horizontal"))
        path: Path = configure(
            camera={"type": "images", "path": "pictures", **MOUNTED},
            model={"path": str(DATA / f"{model}.tflite")} | ({"labels": str(DATA / labels)} if labels else {}),
            preprocess={**RECIPE, "resize": "letterbox", **(recipe or {})},
            task=task,
        )
        return path

    return write


def only_result(done: CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    result: dict[str, Any] = json.loads(line)
    assert result["image"] == {"width": 320, "height": 160}
    return result


BOXES = LANDSCAPE.seen((0, 0, 320, 160))


class TestOneFrame:
    @pytest.mark.parametrize(
        "model", ["rect_ssd_shuffled", "rect_yolov5", "rect_yolov8_pixels", "rect_nms", "rect_ssd_raw_300"]
    )
    def test_detections(self, settle: Write, run_cli: Run, model: str) -> None:
        """Each family of detectors, from the command to the line: labels, scores, and boxes of the upright frame."""
        labels = "four_colours.txt" if "raw" in model else "colours.txt"
        found = only_result(run_cli("--config", settle(model, labels, type="detect"), "--once"))["detections"]
        assert [(one["label"], one["index"], one["score"]) for one in found] == [
            (colour, index, pytest.approx(SCORES[colour], abs=1e-5)) for index, colour in enumerate(COLOURS)
        ]
        # 300 pixels are no whole fraction of 320: there an edge is at most one of them off
        off = 1 / 300 if model.endswith("_300") else 1e-5
        for one in found:
            assert one["box"] == pytest.approx(list(BOXES[one["label"]]), abs=off)

    def test_segments_and_mask(self, settle: Write, run_cli: Run) -> None:
        """Areas by label, and the mask as a picture of the frame's size."""
        path = settle("seg_argmax_int64", "segments.txt", type="segment", mask="frame", min_area=0.05)
        result = only_result(run_cli("--config", path, "--once"))
        assert [(one["label"], one["area"]) for one in result["segments"]] == [
            ("background", 0.589844), ("red", 0.1875), ("green", 0.1875),
        ]  # fmt: skip
        mask = cv2.imdecode(np.frombuffer(base64.b64decode(result["mask"]["png"]), np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(mask, LANDSCAPE.classes())

    def test_keypoints(self, settle: Write, run_cli: Run) -> None:
        """Points with names, person by person, and a box for each."""
        result = only_result(run_cli("--config", settle("pose_multi", None, type="pose"), "--once"))
        assert [one["score"] for one in result["detections"]] == pytest.approx(list(SCORES.values()), abs=PRINTED)
        for number, colour in enumerate(COLOURS):
            points = [(one["x"], one["y"]) for one in result["keypoints"] if one["person"] == number]
            assert np.allclose(points, body_points(BOXES[colour]), rtol=0, atol=1e-5)
        assert [one["name"] for one in result["keypoints"][:2]] == ["nose", "left_eye"]

    def test_raw(self, settle: Write, run_cli: Run) -> None:
        """An embedding, of length 1, as numbers."""
        [tensor] = only_result(run_cli("--config", settle("embedding", None, type="raw"), "--once"))["tensors"]
        assert tensor["shape"] == [1, 128]
        assert np.linalg.norm(tensor["values"]) == pytest.approx(1, abs=1e-5)

    def test_large_tensor(self, settle: Write, run_cli: Run, tmp_path: Path) -> None:
        """An output that is too large for a line goes into an .npz, which the result names."""
        path = settle("big_raw", None, {"resize": "stretch"}, type="raw")
        outputs = [{"type": "npz", "path": "tensors"}, {"type": "jsonl", "path": "out.jsonl"}]
        path.write_text(json.dumps({**json.loads(path.read_text()), "outputs": outputs}, indent=1))
        done = run_cli("--config", path, "--once")
        assert done.returncode == 0, done.stderr
        result = json.loads((tmp_path / "out.jsonl").read_text())
        [tensor] = result["tensors"]
        assert (tensor["shape"], tensor["dtype"], tensor["values"]) == ([1, 100, 100, 3], "float32", None)
        [file] = (tmp_path / "tensors").iterdir()
        assert str(result["npz"]).endswith(file.name)
        with np.load(file) as arrays:
            values = arrays[tensor["name"]]
        picture = LANDSCAPE.picture()[..., ::-1]
        rows, columns = ((np.arange(100) * 2 + 1) * side // 200 for side in picture.shape[:2])
        assert np.allclose(values[0], picture[np.ix_(rows, columns)] / 255 * 2, atol=1e-6)


def test_folder(settle: Write, run_cli: Run, tmp_path: Path) -> None:
    """Over a folder, each picture has what is in it, and an empty one an empty list."""
    path = settle("rect_yolov8", type="detect")
    for number, gone in enumerate((["red"], ["green", "blue"], ["red", "green", "blue"]), 2):
        cv2.imwrite(str(tmp_path / f"pictures/{number}.png"), LANDSCAPE.without(*gone).taken(90, "horizontal"))
    done = run_cli("--config", path)
    assert done.returncode == 0, done.stderr
    results = list(map(json.loads, done.stdout.splitlines()))
    assert [(result["source"], [one["label"] for one in result["detections"]]) for result in results] == [
        ("1.png", ["red", "green", "blue"]), ("2.png", ["green", "blue"]), ("3.png", ["red"]), ("4.png", []),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "decided"),
    [
        (
            "rect_ssd_shuffled",
            "tflite_postprocess, 'out2' as boxes, 'out3' as classes, 'out0' as scores, 'out1' as count",
        ),
        ("rect_yolov5", "yolov5, 'Identity' float32 [1, 252, 8] as 252 boxes of 3 classes"),
        ("rect_yolov8_int8", "yolov8, 'Identity' int8 [1, 7, 84] as 84 boxes of 3 classes"),
        ("rect_nms", "yolo_nms, 'Identity' float32 [1, 5, 6] as 5 boxes"),
        (
            "rect_ssd_raw_scores",
            "ssd_raw, 'Identity_1' as offsets to 2034 anchors of the family ssd, 'Identity' as 4 classes",
        ),
    ],
)
def test_check_says_what_was_decided(settle: Write, run_cli: Run, model: str, decided: str) -> None:
    """`check` shows the decoder that `auto` came to, and what it takes each output for."""
    labels = "four_colours.txt" if "raw" in model else "colours.txt"
    done = run_cli("check", "--config", settle(model, labels, type="detect"))
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("task ")]
    assert decided in line


class TestSnapshot:
    def drawn(self, run_cli: Run, tmp_path: Path, path: Path) -> Any:
        """Which pixels of the left picture are not the frame's, bool [160, 320]."""
        done = run_cli("snapshot", "--config", path, "-o", "aim.png")
        assert done.returncode == 0, done.stderr
        picture = cv2.imread(str(tmp_path / "aim.png"))
        assert len(picture) == LANDSCAPE.height
        return (picture[:, : LANDSCAPE.width] != LANDSCAPE.picture()).any(axis=2)

    def test_boxes(self, settle: Write, run_cli: Run, tmp_path: Path) -> None:
        """A snapshot shows each box along all of its sides, around where the thing really is, and little else."""
        drawn = self.drawn(run_cli, tmp_path, settle("rect_nms", type="detect"))
        near = cv2.dilate(drawn.astype(np.uint8), np.ones((5, 5)))
        for x0, y0, x1, y1 in LANDSCAPE.boxes.values():
            for side in (near[y0, x0:x1], near[y1 - 1, x0:x1], near[y0:y1, x0], near[y0:y1, x1 - 1]):
                assert side.mean() > 0.95
            assert not drawn[y0 + 8 : y1 - 8, x0 + 8 : x1 - 8].all()
        assert drawn.mean() < 0.25

    def test_mask(self, settle: Write, run_cli: Run, tmp_path: Path) -> None:
        """A snapshot shows the classes in colours of their own, and leaves the background as it is."""
        drawn = self.drawn(run_cli, tmp_path, settle("seg_logits_nhwc", "segments.txt", type="segment"))
        found = LANDSCAPE.classes() > 0
        assert drawn[found].mean() > 0.9
        assert drawn[60:, :][~found[60:, :]].mean() < 0.25

    def test_points(self, settle: Write, run_cli: Run, tmp_path: Path) -> None:
        """A snapshot shows the points where they are."""
        drawn = self.drawn(run_cli, tmp_path, settle("pose_multi", None, type="pose"))
        for colour in COLOURS:
            for x, y in (body_points(BOXES[colour]) * (320, 160)).astype(int):
                assert drawn[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].any()


def refusal(path: Path) -> EdgeRunnerError:
    with pytest.raises(EdgeRunnerError) as caught:
        build_engine(load_settings(path).value)
    assert caught.value.exit_code == EXIT_CONFIG
    return caught.value


class TestWhatDoesNotFit:
    def test_nothing(self, settle: Write, run_cli: Run, tmp_path: Path) -> None:
        """A model whose outputs fit no decoder is refused at the start: its tensors and the decoders that exist are listed."""
        path = settle("nothing_fits", None, type="detect")
        done = run_cli("--config", path)
        assert done.returncode == EXIT_CONFIG
        assert done.stdout == ""
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f"edge-runner: error: {path}:")
        assert ": task.type: no decoder fits" in last
        for words in ("'Identity' float32 [1, 7]", "'Identity_1' float32 [2, 3, 5]", *DECODERS, "raw"):
            assert words in last

    def test_more_than_one(self, settle: Write) -> None:
        """Where two decoders fit, neither is taken: both are listed, and naming one settles it."""
        error = refusal(settle("two_fit", None, type="detect"))
        assert error.key == "task.decoder"
        assert all(words in str(error) for words in ("'Identity' float32 [1, 50, 50]", "yolov5", "yolov8"))
        for decoder in ("yolov5", "yolov8"):
            engine = build_engine(load_settings(settle("two_fit", None, type="detect", decoder=decoder)).value)
            assert engine.task.reading.startswith(decoder)

    def test_labels_decide(self, settle: Write, tmp_path: Path) -> None:
        """The number of labels tells between two decoders that fit otherwise."""
        for count, decoder in ((45, "yolov5"), (46, "yolov8")):
            (tmp_path / "labels.txt").write_text("".join(f"thing {number}\n" for number in range(count)))
            path = settle("two_fit", str(tmp_path / "labels.txt"), type="detect")
            assert build_engine(load_settings(path).value).task.reading.startswith(decoder)

    def test_outputs_that_cannot_be_told_apart(self, settle: Write) -> None:
        """Scores and classes of one shape, called nothing that helps, are not guessed at."""
        error = refusal(settle("rect_four_unnamed", type="detect"))
        assert error.key == "task.decoder"
        assert all(f"'{name}' float32" in str(error) for name in ("Identity", "Identity_1", "Identity_2", "Identity_3"))

    @pytest.mark.parametrize(
        ("model", "decoder"),
        [("rect_yolov8", "ssd_raw"), ("rect_yolov8", "tflite_postprocess"), ("rect_yolov8", "yolo_nms"),
         ("rect_nms", "tflite_postprocess"), ("rect_ssd", "yolov8"), ("rect_ssd_raw", "yolov5"), ("rect_yolov5", "yolov8")],
    )  # fmt: skip
    def test_wrong_decoder(self, settle: Write, model: str, decoder: str) -> None:
        """A decoder that does not fit the outputs is refused by its name, with the outputs."""
        error = refusal(settle(model, type="detect", decoder=decoder))
        assert decoder in str(error)
        assert "[1, " in str(error)

    @pytest.mark.parametrize(
        ("model", "labels", "count", "classes"),
        [
            ("rect_ssd",         "portrait.txt",     2, 3),
            ("rect_yolov5",      "four_colours.txt", 4, 3),
            ("rect_yolov5",      "portrait.txt",     2, 3),
            ("rect_yolov8",      "four_colours.txt", 4, 3),
            ("rect_yolov8",      "portrait.txt",     2, 3),
            ("rect_yolov8_int8", "segments.txt",     4, 3),
            ("rect_ssd_raw",     "portrait.txt",     2, 4),
        ],
    )  # fmt: skip
    def test_labels(self, settle: Write, model: str, labels: str, count: int, classes: int) -> None:
        """Labels that are not as many as the classes are refused with both numbers, though another decoder could use so many."""
        error = refusal(settle(model, labels, type="detect"))
        assert error.key == "model.labels"
        assert f"{labels} has {count} labels" in str(error)
        assert f"{classes} classes" in str(error)

    def test_background_line(self, settle: Write, tmp_path: Path) -> None:
        """An SSD's labels may begin with a line for the background, which the model counts and never finds."""
        path = settle("rect_ssd", "segments.txt", type="detect")
        assert build_engine(load_settings(path).value).task.labels == tuple(COLOURS)  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        ("model", "task", "says"),
        [
            ("rect_yolov8", "segment", "a segmenter has one output"),
            ("rect_ssd", "pose", "a pose model has one output"),
            ("pose_multi", "segment", "a segmenter has one output"),
            ("seg_logits_nhwc", "pose", "a pose model has one output"),
            ("seg_logits_nhwc", "detect", "no decoder fits"),
            ("rect_nms", "classify", "a classifier has one output"),
        ],
    )
    def test_another_task(self, settle: Write, model: str, task: str, says: str) -> None:
        """A model of another kind is refused with its outputs."""
        error = refusal(settle(model, None, type=task))
        assert says in str(error)
        assert "float32 [1, " in str(error)
