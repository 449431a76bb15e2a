"""How far a model's prepared input and its outputs differ between processors and runtimes. bench/processors.sh runs all of it.

    python bench/processors.py make FOLDER [--models MODELS]     # here: goldens, as the builder makes them
    python bench/processors.py measure FOLDER [--runtime NAME]   # on each machine: its differences from them, as JSON
    python bench/processors.py table NAME=FILE…                  # what was measured, as Markdown

MODELS holds models and pictures of others, which are not part of this project; without it, only the digits are compared.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np

from edge_runner.builder.proof import make_goldens
from edge_runner.builder.samples import Pictures, find_pictures
from edge_runner.frame import TensorSpec
from edge_runner.model.bundle import GOLDENS, MODEL
from edge_runner.model.flatbuffer import read_graph
from edge_runner.model.goldens import Golden, Goldens, prepared_levels, read_goldens, recipe_dict, replay
from edge_runner.model.interpreter import RUNTIMES, Interpreter, RuntimeName, find_runtime
from edge_runner.model.preprocess import Interpolation, Preprocessor, Recipe
from edge_runner.task.base import ModelFacts
from edge_runner.task.classify import Classify, ClassifyConfig

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits" / "models"
BASE: RuntimeName = "tflite-runtime"  # what the others are compared with
SAMPLES = 16  # of each model
CIFAR, PHOTOS = "eval/cifar10_test", "eval/imagenet_sample/images"
INPUT = TensorSpec("picture", (1, 224, 224, 3), "float32")  # what pictures are prepared for to compare resampling alone


@dataclass(frozen=True)
class Subject:
    """A model of the folder, pictures that it knows, the recipe's mean and std, and whether it computes in whole numbers."""

    name: str
    model: str
    pictures: str
    mean: float
    std: float
    rounds: bool


SUBJECTS = (
    Subject("ResNet8 float32", "classify/mlperf_resnet8_cifar10_float.tflite", CIFAR, 0.0, 1.0, False),
    Subject("ResNet8 int8", "classify/mlperf_resnet8_cifar10_int8.tflite", CIFAR, 0.0, 1.0, True),
    Subject("MobileNet float32", "classify/mobilenet_v1_0.25_224_float.tflite", PHOTOS, 127.5, 127.5, False),
    Subject("MobileNet uint8", "classify/mobilenet_v1_0.25_224_quant.tflite", PHOTOS, 0.0, 1.0, True),
)


def main() -> None:
    """Do one of the three."""
    options = _options()
    if options.verb == "make":
        make(options.folder, options.models)
    elif options.verb == "measure":
        print(json.dumps(measure(options.folder, options.runtime)))
    else:
        named = dict(name_and_file.split("=", 1) for name_and_file in options.measured)
        print("\n".join(table({name: json.loads(Path(path).read_text("utf-8")) for name, path in named.items()})))


def make(folder: Path, models: Path | None) -> None:
    """Write NAME/model.tflite and NAME/golden.npz for each model, and KIND.npz: pictures resized in each way."""
    for bundle in (DIGITS / "digits", DIGITS / "digits-int8"):
        _write(folder / bundle.name, (bundle / MODEL).read_bytes(), read_goldens(bundle / GOLDENS))
    for subject in SUBJECTS if models else ():
        content = (models / subject.model).read_bytes()
        samples = _pictures(models / subject.pictures, Recipe("rgb", (subject.mean,), (subject.std,)))
        fast = Interpreter(content, find_runtime(BASE))
        slow = Interpreter(content, find_runtime(BASE), kernels="reference")
        own = [fast.run(*samples.feeder(fast.inputs)(number)) for number in range(len(samples))]
        _write(
            folder / subject.name,
            content,
            make_goldens(samples, own.__getitem__, fast, slow, rounds=subject.rounds),
        )
    for interpolation in get_args(Interpolation) if models else ():
        recipe = Recipe("rgb", (127.5,), (127.5,), interpolation=interpolation)
        feed = (samples := _pictures(models / PHOTOS, recipe)).feeder([INPUT])
        items = [Golden(samples.picture(number), feed(number), [], []) for number in range(len(samples))]
        (folder / f"{interpolation}.npz").write_bytes(Goldens(recipe_dict(recipe), [], items).dump())


def measure(folder: Path, runtime: str) -> dict[str, Any]:
    """This machine's differences from the goldens: grey levels of prepared pictures, outputs in real values."""
    found = find_runtime(runtime)
    return {
        "machine": f"{found}, OpenCV {cv2.__version__}, NumPy {np.__version__}",
        "resized": {path.stem: _resized(read_goldens(path)) for path in sorted(folder.glob("*.npz"))},
        "models": {path.name: _differences(path, found) for path in sorted(folder.iterdir()) if path.is_dir()},
    }


def _resized(goldens: Goldens) -> list[float]:
    preprocessor = Preprocessor(_recipe(goldens), INPUT)
    return _worst([prepared_levels(item, preprocessor) for item in goldens.items])


def _differences(folder: Path, runtime: Any) -> dict[str, Any]:
    content, goldens = (folder / MODEL).read_bytes(), read_goldens(folder / GOLDENS)
    interpreter = Interpreter(content, runtime)
    facts = ModelFacts(interpreter.outputs, read_graph(content).endings(), None, "")
    same_answer = Classify(ClassifyConfig(activation="none"), facts).same_answer
    deviations = replay(goldens, Preprocessor(_recipe(goldens), interpreter.inputs[0]), interpreter, same_answer)
    return {
        "levels": _worst([deviation.levels for deviation in deviations if deviation.levels]),
        "off": max(deviation.outputs[0] for deviation in deviations),
        "tolerance": goldens.tolerances[0],
        "step": interpreter.outputs[0].scale,
        "faults": [fault for deviation in deviations for fault in deviation.faults],
    }


def table(measured: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """Two tables, a row a machine: how it prepares pictures, and what its outputs are."""
    one = next(iter(measured.values()))
    yield from _rows(["Prepared otherwise: grey levels, mean / most", *one["resized"], *one["models"]])
    for name, found in measured.items():
        levels = [*found["resized"].values(), *(model["levels"] for model in found["models"].values())]
        yield _row([name, *(f"{mean:.2g} / {most:.2g}" if most else "0" for mean, most in levels)])
    yield ""
    yield from _rows(["Outputs off", *one["models"]])
    yield _row(["allowed", *(_amount(model["tolerance"], model["step"]) for model in one["models"].values())])
    for name, found in measured.items():
        yield _row(
            [name, *(_amount(m["off"], m["step"]) + " **fails**" * bool(m["faults"]) for m in found["models"].values())]
        )
    yield ""
    yield from (f"- {name}: {found['machine']}" for name, found in measured.items())
    for name, found in measured.items():
        yield from (f"- {name}, {model}: {fault}" for model, m in found["models"].items() for fault in m["faults"])


def _amount(value: float, step: float) -> str:
    if not value:
        return "0"
    return f"{value / step:.3g} steps" if step else f"{value:.2g}"


def _rows(head: Sequence[str]) -> list[str]:
    return [_row(head), _row(["---"] * len(head))]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _worst(pairs: Sequence[tuple[float, float]]) -> list[float]:
    return [max(column) for column in zip(*pairs, strict=True)]


def _recipe(goldens: Goldens) -> Recipe:
    return Recipe(**{key: tuple(v) if isinstance(v, list) else v for key, v in (goldens.recipe or {}).items()})


def _pictures(folder: Path, recipe: Recipe) -> Pictures:
    return Pictures(find_pictures(folder), recipe).some(SAMPLES)


def _write(folder: Path, content: bytes, goldens: Goldens) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL).write_bytes(content)
    (folder / GOLDENS).write_bytes(goldens.dump())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("make")
    making.add_argument("folder", type=Path)
    making.add_argument("--models", type=Path)
    measuring = verbs.add_parser("measure")
    measuring.add_argument("folder", type=Path)
    measuring.add_argument("--runtime", choices=["auto", *RUNTIMES], default="auto")
    verbs.add_parser("table").add_argument("measured", nargs="+", metavar="NAME=FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
