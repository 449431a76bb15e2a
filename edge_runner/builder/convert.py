"""The only module that imports TensorFlow: converts a SavedModel, and says what it answers itself.

It runs as a child process, `python -m edge_runner.builder.convert`, because TensorFlow can abort the whole process. The job comes
as JSON on standard input; model.tflite, answers.npz and facts.json are written into its folder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_runner.builder.pictures import golden_pictures
from edge_runner.errors import EdgeRunnerError, ModelError
from edge_runner.frame import Tensor, TensorSpec
from edge_runner.model.bundle import MODEL
from edge_runner.model.preprocess import Preprocessor, Recipe

ANSWERS, FACTS, REFUSED = "answers.npz", "facts.json", "refused.txt"


@dataclass(frozen=True)
class Job:
    """What to convert and how. `pictures` is an .npz of uint8 [height, width, 3] BGR; `folder` takes the results."""

    model: str
    folder: str
    recipe: dict[str, Any]
    pictures: str
    quantize: str
    io_type: str
    signature: str | None


def main() -> int:
    """Do the job; what is refused is written down for the parent, what breaks is left to the traceback."""
    job = Job(**json.load(sys.stdin))
    try:
        convert(job)
    except EdgeRunnerError as error:
        (Path(job.folder) / REFUSED).write_text(str(error), "utf-8")
        return error.exit_code
    return 0


def convert(job: Job) -> None:
    """Convert, and run the SavedModel on every picture and then on the golden ones, prepared by the board's own recipe."""
    import tensorflow as tf

    loaded = tf.saved_model.load(job.model)
    function = _signature(loaded, job)
    spec = _input(function)
    preprocessor = Preprocessor(Recipe(**job.recipe), spec)
    with np.load(job.pictures) as file:
        pictures = [file[name] for name in file.files]
    prepared = [_prepared(preprocessor, picture) for picture in pictures]
    goldens = golden_pictures(pictures, preprocessor.width, preprocessor.height)
    content = _converted(tf, loaded, function, spec, prepared, job)
    folder = Path(job.folder)
    (folder / MODEL).write_bytes(content)
    tensors = [*prepared, *(_prepared(preprocessor, picture) for picture in goldens)]
    answers = [_answer(function(**{spec.name: tf.constant(tensor)})) for tensor in tensors]
    np.savez(folder / ANSWERS, *answers)
    facts = {"input": asdict(spec), "tensorflow": tf.__version__, "keras": tf.keras.__version__}
    (folder / FACTS).write_text(json.dumps(facts), "utf-8")


def _signature(loaded: Any, job: Job) -> Any:
    names = sorted(loaded.signatures)
    if not names:
        raise ModelError(
            f"{job.model} has no signature; save it with model.export() or tf.saved_model.save(…, signatures=…)"
        )
    name = job.signature or ("serving_default" if "serving_default" in names else names[0])
    if name not in names:
        raise ModelError(f"{job.model} has no signature '{name}'; it has {', '.join(names)}")
    return loaded.signatures[name]


def _input(function: Any) -> TensorSpec:
    """The one input, its batch pinned to 1."""
    inputs = function.structured_input_signature[1]
    listed = ", ".join(f"'{name}' {spec.dtype.name} {spec.shape}" for name, spec in inputs.items())
    if len(inputs) != 1:
        raise ModelError(f"the signature has {len(inputs)} inputs ({listed}); a camera's picture feeds just one")
    name, spec = next(iter(inputs.items()))
    if spec.shape.rank is None or None in spec.shape.as_list()[1:]:
        raise ModelError(f"the input is {listed}: its size is not fixed; export the model with a fixed input size")
    if spec.dtype.name != "float32":
        raise ModelError(f"the input is {listed}; a float32 input is wanted")
    return TensorSpec(name, (1, *spec.shape.as_list()[1:]), "float32")


def _prepared(preprocessor: Preprocessor, picture: Any) -> Tensor:
    out = np.empty(preprocessor.shape, preprocessor.dtype)
    preprocessor(picture, out)
    return out


def _converted(tf: Any, loaded: Any, function: Any, spec: TensorSpec, prepared: Sequence[Tensor], job: Job) -> bytes:
    pinned = tf.function(
        lambda tensor: function(**{spec.name: tensor}),
        input_signature=[tf.TensorSpec(spec.shape, tf.float32, name=spec.name)],
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([pinned.get_concrete_function()], loaded)
    if job.quantize == "int8":

        def examples() -> Iterator[list[Tensor]]:
            for tensor in prepared:
                yield [tensor]

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = examples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = getattr(tf, job.io_type)
    try:
        return bytes(converter.convert())
    except Exception as error:
        raise ModelError(
            f"TensorFlow {tf.__version__} does not convert {job.model}: {' '.join(str(error).split())[:500]}"
        ) from error


def _answer(outputs: dict[str, Any]) -> Tensor:
    if len(outputs) != 1:
        raise ModelError(
            f"the signature has {len(outputs)} outputs ({', '.join(sorted(outputs))}); a classifier has one"
        )
    return np.asarray(next(iter(outputs.values())))


if __name__ == "__main__":
    raise SystemExit(main())
