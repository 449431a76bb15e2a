"""The only module that knows TensorFlow: opens a SavedModel or a Keras file, answers with it, converts it.

Its methods are called in a child process (worker.py), because TensorFlow can abort the process that it runs in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from edge_runner.builder.found import OPEN, Found, Scaling, Signature
from edge_runner.builder.metadata import Card, embed
from edge_runner.builder.order import IoType, Mode, is_keras
from edge_runner.builder.samples import Samples
from edge_runner.builder.worker import Report
from edge_runner.errors import ModelError, SettingError
from edge_runner.frame import Tensor, TensorSpec
from edge_runner.model.flatbuffer import read_graph

DEFAULT_SIGNATURE = "serving_default"
SAVED_MODEL, VARIABLES, ASSETS = "saved_model.pb", "variables", "assets"
SERVE = "serve"
FORBIDDEN_DTYPES = ("string", "resource", "variant")
MESSAGE_MOST = 400

# Operations that leave values as they are, and those that scale or move them by constants.
PASSING = ("Identity", "Cast")
LEARNED = "batchnorm"  # in an operation's name: it scales too, but not as a recipe does
SCALING = ("Mul", "Add", "AddV2", "Sub", "RealDiv", "Div")

# What the converter says, and what to do about it.
REFUSALS = (
    (
        r"TF Select ops: ([\w, ]+)",
        "needs operators that TensorFlow Lite does not have: {0}; take them out of the exported graph"
        " (the board does such steps itself), or replace them in the model",
    ),
    (
        r"Custom ops: ([\w, ]+)",
        "needs custom operators, which the board does not have: {0}; export the model without them",
    ),
    (
        r"not (?:yet )?supported for op: '?(\w+)",
        "has the operator {0}, for which TensorFlow Lite has no {mode} form; take --quantize dynamic or float16",
    ),
)
KERAS_REFUSALS = (
    (r"No model config found", "holds weights only; save the whole model with model.save(…)"),
    (
        r"Lambda",
        "has a Lambda layer, which is not loaded from a file; export it where it was made, with model.export(…)",
    ),
    (
        r"Could not (?:locate|deserialize) class '(\w+)'|Unknown (?:layer|object): '?(\w+)",
        "has a layer of its own, {0}; export it where that is defined, with model.export(…)",
    ),
)


class SavedModel:
    """A model on disk, opened with one signature whose every size is fixed. `folder` takes what has to be written for that."""

    def __init__(self, model: Path, folder: Path, signature: str | None, input_shape: tuple[int, ...] | None) -> None:
        """Raise ModelError or SettingError where it cannot be opened, or the signature is not there."""
        import tensorflow as tf

        self._tf = tf
        self._model = model
        self._path = _exported(model, folder) if is_keras(model) else model
        self._proto = _proto(self._path)
        self._loaded = _loaded(tf, self._path, self._proto, folder)
        self._signatures = {name: f for name, f in self._loaded.signatures.items() if not name.startswith("__")}
        name = _chosen(list(self._signatures), signature, model)
        function = self._signatures[name]
        specs = _pinned(_inputs(function), input_shape, model)
        wanted = {spec.name: tf.TensorSpec(spec.shape, spec.dtype, name=spec.name) for spec in specs}
        called = function if _is_of_tf2(self._proto) else _frozen(tf, self._path, self._proto, name)
        self._function = tf.function(called).get_concrete_function(**wanted)
        self._pinned = Signature(name, specs, _outputs(self._function))

    def open(self, report: Report) -> Found:
        """What there is."""
        import keras

        return Found(
            kind=_kind(self._proto, self._model),
            signatures=tuple(Signature(n, _inputs(f), _outputs(f)) for n, f in sorted(self._signatures.items())),
            pinned=self._pinned,
            sizes=_sizes(self._path),
            tools={"tensorflow": self._tf.__version__, "keras": keras.__version__},
            scaling=self._scaling(),
        )

    def answer(self, samples: Samples, folder: Path, report: Report) -> None:
        """Run the model on every sample; write each output's values, [samples, …], to `folder`/NAME.npy by its number."""
        feed = samples.feeder(self._pinned.inputs)
        names = [spec.name for spec in self._pinned.inputs]
        files: list[Any] = []
        for number in range(len(samples)):
            tensors = map(self._tf.constant, feed(number))
            found = self._function(**dict(zip(names, tensors, strict=True)))
            values = [np.asarray(found[spec.name]) for spec in self._pinned.outputs]
            for index, value in enumerate(values):
                if len(files) == index:
                    files.append(_file(folder / f"{index}.npy", len(samples), value))
                files[index][number] = value
            report(number + 1)

    def convert(
        self, mode: Mode, io_type: IoType, samples: Samples | None, card: Card, target: Path, report: Report
    ) -> None:
        """Write the model as a .tflite file; raise ModelError where it cannot be had in this mode."""
        converter = self._converter(mode, io_type, samples, report)
        try:
            content = bytes(converter.convert())
        except Exception as error:  # the converter raises anything
            raise ModelError(self._refusal(str(error), mode)) from error
        left = {o.name for o in read_graph(content).operators} & {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"}
        if left:
            raise ModelError(
                f"{self._model} was converted with its variables outside of the graph ({', '.join(sorted(left))}), which the"
                " board cannot run; a Keras model is saved for conversion with model.export(…), not with tf.saved_model.save"
            )
        target.write_bytes(embed(content, card))

    def _converter(self, mode: Mode, io_type: IoType, samples: Samples | None, report: Report) -> Any:
        lite = self._tf.lite
        converter = lite.TFLiteConverter.from_concrete_functions([self._function], self._loaded)
        converter._experimental_default_to_single_batch_in_tensor_list_ops = True  # else no LSTM is converted
        if mode == "none":
            return converter
        converter.optimizations = [lite.Optimize.DEFAULT]
        if mode == "float16":
            converter.target_spec.supported_types = [self._tf.float16]
        elif mode == "dynamic":
            # From 2.17 on, a Dense layer per channel becomes FULLY_CONNECTED version 12, which tflite-runtime has not.
            converter._experimental_disable_per_channel_quantization_for_dense_layers = True
        else:
            assert samples is not None
            converter.representative_dataset = lambda: self._examples(samples, report)
            converter.target_spec.supported_ops = [
                lite.OpsSet.TFLITE_BUILTINS_INT8
                if mode == "int8"
                else lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
            ]
            if all(spec.dtype == "float32" for spec in self._pinned.inputs):
                converter.inference_input_type = getattr(self._tf, io_type)
            converter.inference_output_type = getattr(self._tf, io_type)
        return converter

    def _examples(self, samples: Samples, report: Report) -> Iterator[dict[str, Tensor]]:
        feed = samples.feeder(self._pinned.inputs)
        for number in range(len(samples)):
            yield {spec.name: tensor for spec, tensor in zip(self._pinned.inputs, feed(number), strict=True)}
            report(number + 1)

    def _refusal(self, text: str, mode: Mode) -> str:
        for pattern, message in REFUSALS:
            match = re.search(pattern, text)
            if match:
                return f"{self._model} {message.format(*(g.strip() for g in match.groups()), mode=mode)}"
        return f"TensorFlow {self._tf.__version__} does not convert {self._model} as {mode}: {_one_line(text)}"

    def _scaling(self) -> Scaling | None:
        """The operations between the one input and the first that is no scaling by constants, tried out on 0 and on 1."""
        if len(self._pinned.inputs) != 1 or self._pinned.inputs[0].dtype != "float32":
            return None
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        frozen = convert_variables_to_constants_v2(self._function)
        start = frozen.inputs[0].op.name
        nodes = {node.name: node for node in frozen.graph.as_graph_def().node}
        chain = _scalings(nodes, start)
        if not chain:
            return None
        tf, shape = self._tf.compat.v1, self._pinned.inputs[0].shape
        with tf.Session(graph=frozen.graph) as session:
            zero, one = (
                np.asarray(session.run(f"{chain[-1]}:0", {f"{start}:0": np.full(shape, level, np.float32)}))
                for level in (0, 1)
            )
        channels = shape[-1] if len(shape) == 4 and shape[-1] in (1, 3) else 1
        offset, factor = (value.reshape(-1)[:channels].astype(float) for value in (zero, one - zero))
        if np.allclose(factor, 1, atol=0.01) and np.allclose(offset, 0, atol=0.01):
            return None
        layers = dict.fromkeys(name.split("/")[-2 if "/" in name else -1] for name in chain)
        return Scaling(" + ".join(layers), tuple(map(float, factor)), tuple(map(float, offset)))


def _exported(model: Path, folder: Path) -> Path:
    """A Keras file as a SavedModel in `folder`."""
    target = folder / "exported"
    if not target.exists():
        import keras

        try:
            keras.models.load_model(model, compile=False).export(target)
        except Exception as error:  # Keras raises anything
            raise ModelError(f"{model} {_keras_refusal(str(error))}") from error
    return target


def _keras_refusal(text: str) -> str:
    for pattern, message in KERAS_REFUSALS:
        match = re.search(pattern, text)
        if match:
            return message.format(next(filter(None, match.groups()), ""))
    return f"cannot be opened by Keras: {_one_line(text)}"


def _proto(path: Path) -> Any:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    try:
        proto.ParseFromString((path / SAVED_MODEL).read_bytes())
    except DecodeError as error:
        raise ModelError(f"{path / SAVED_MODEL} is damaged: {_one_line(str(error))}") from error
    if not proto.meta_graphs:
        raise ModelError(f"{path / SAVED_MODEL} is damaged: there is no graph in it")
    return proto


def _loaded(tf: Any, path: Path, proto: Any, folder: Path) -> Any:
    """The model, without what only training needs: an optimizer's slots keep TensorFlow with Keras 3 from loading it."""
    trained = [node for meta in proto.meta_graphs for node in meta.object_graph_def.nodes if node.slot_variables]
    if trained:
        for node in trained:
            del node.slot_variables[:]
        path = _copy(path, proto, folder / "stripped")
    try:
        return tf.saved_model.load(str(path), tags=list(_served(proto).meta_info_def.tags))
    except Exception as error:  # TensorFlow raises anything
        raise ModelError(f"TensorFlow {tf.__version__} cannot load {path}: {_one_line(str(error))}") from error


def _is_of_tf2(proto: Any) -> bool:
    return bool(_served(proto).object_graph_def.nodes)


def _served(proto: Any) -> Any:
    """The graph that is for serving; of TensorFlow 1 there may be others, for training."""
    return next((meta for meta in proto.meta_graphs if set(meta.meta_info_def.tags) == {SERVE}), proto.meta_graphs[0])


def _frozen(tf: Any, path: Path, proto: Any, name: str) -> Any:
    """A TensorFlow 1 signature with its variables as constants: the converter does not take their kind of variable."""
    v1 = tf.compat.v1
    tags = list(_served(proto).meta_info_def.tags)
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        signature = v1.saved_model.load(session, tags, str(path)).signature_def[name]
        inputs, outputs = ({key: t.name for key, t in part.items()} for part in (signature.inputs, signature.outputs))
        ends = [tensor.split(":")[0] for tensor in outputs.values()]
        frozen = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ends)
    wrapped = v1.wrap_function(lambda: v1.import_graph_def(frozen, name=""), [])
    feeds = [wrapped.graph.get_tensor_by_name(tensor) for tensor in inputs.values()]
    fetches = {key: wrapped.graph.get_tensor_by_name(tensor) for key, tensor in outputs.items()}
    pruned = wrapped.prune(feeds, fetches)
    return lambda **tensors: pruned(*(tensors[key] for key in inputs))


def _copy(path: Path, proto: Any, target: Path) -> Path:
    """A SavedModel of another graph, its variables and assets where they are."""
    if not target.exists():
        target.mkdir()
        for part in path.iterdir():
            if part.name not in (SAVED_MODEL, "fingerprint.pb"):
                (target / part.name).symlink_to(part.resolve())
        (target / SAVED_MODEL).write_bytes(proto.SerializeToString())
    return target


def _chosen(names: Sequence[str], wanted: str | None, model: Path) -> str:
    if not names:
        raise ModelError(
            f"{model} has no signature; save it with model.export(…), or with tf.saved_model.save(…, signatures=…)"
        )
    if wanted is None and DEFAULT_SIGNATURE not in names and len(names) > 1:
        raise SettingError(f"{model} has no '{DEFAULT_SIGNATURE}'; choose with --signature: {', '.join(sorted(names))}")
    name = wanted or (DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in names else names[0])
    if name not in names:
        raise SettingError(f"{model} has no signature '{name}'; it has {', '.join(sorted(names))}")
    return name


def _inputs(function: Any) -> tuple[TensorSpec, ...]:
    return tuple(_spec(name, spec) for name, spec in sorted(function.structured_input_signature[1].items()))


def _outputs(function: Any) -> tuple[TensorSpec, ...]:
    return tuple(_spec(name, spec) for name, spec in sorted(function.structured_outputs.items()))


def _spec(name: str, spec: Any) -> TensorSpec:
    shape = () if spec.shape.rank is None else tuple(OPEN if n is None else int(n) for n in spec.shape.as_list())
    return TensorSpec(name, shape, spec.dtype.name)


def _pinned(specs: tuple[TensorSpec, ...], given: tuple[int, ...] | None, model: Path) -> tuple[TensorSpec, ...]:
    """The inputs with every size fixed: the batch is 1, others come from `given`."""
    for spec in specs:
        if spec.dtype in FORBIDDEN_DTYPES:
            raise ModelError(
                f"input '{spec.name}' of {model} is {spec.dtype}, which a board cannot feed; choose or export another --signature"
            )
    open_ones = [spec for spec in specs if not spec.shape or OPEN in spec.shape[1:]]
    listed = ", ".join(f"'{spec.name}' {list(spec.shape) or 'of any shape'}" for spec in open_ones or specs)
    if given is None and open_ones:
        raise SettingError(f"the size of input {listed} is not fixed (-1); fix it with --input-shape, as 1,224,224,3")
    if given is not None and (len(open_ones) > 1 or (len(specs) > 1 and not open_ones)):
        raise SettingError(
            f"--input-shape cannot tell which input it is for: {listed}; export the model with fixed sizes"
        )
    shaped = {(open_ones or specs)[0].name: given} if given else {}
    return tuple(_fixed(spec, shaped.get(spec.name)) for spec in specs)


def _fixed(spec: TensorSpec, given: tuple[int, ...] | None) -> TensorSpec:
    if given is None:
        batch = tuple(1 if size == OPEN else size for size in spec.shape[:1])
        return replace(spec, shape=batch + spec.shape[1:])
    fits = not spec.shape or (
        len(given) == len(spec.shape) and all(own in (OPEN, new) for own, new in zip(spec.shape, given, strict=True))
    )
    if not fits:
        raise SettingError(
            f"--input-shape {','.join(map(str, given))} does not fit input '{spec.name}' {list(spec.shape)}"
        )
    return replace(spec, shape=given)


def _scalings(nodes: Mapping[str, Any], start: str) -> list[str]:
    """The names of the scaling operations that the input goes through first, in their order."""
    consumers: dict[str, list[str]] = {}
    for name, node in nodes.items():
        for source in _sources(node):
            consumers.setdefault(source, []).append(name)
    chain, current = [], start
    while len(consumers.get(current, [])) == 1:
        node = nodes[consumers[current][0]]
        sources = _sources(node)
        others = [source for source in sources if source != current]
        constant = all(start not in _ancestors(nodes, other) for other in others)
        if LEARNED in node.name:
            break
        if (
            node.op in SCALING
            and len(others) == 1
            and constant
            and (node.op not in ("RealDiv", "Div") or sources[0] == current)
        ):
            chain.append(node.name)
        elif node.op not in PASSING:
            break
        current = node.name
    return chain


def _ancestors(nodes: Mapping[str, Any], name: str) -> set[str]:
    found, waiting = set(), [name]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting += _sources(nodes[current])
    return found


def _sources(node: Any) -> list[str]:
    """The nodes whose values a node takes; those that it merely waits for begin with ^."""
    return [source.split(":")[0] for source in node.input if not source.startswith("^")]


def _kind(proto: Any, model: Path) -> str:
    version = _served(proto).meta_info_def.tensorflow_version or "of unknown version"
    if is_keras(model):
        return f"Keras file {model.name}, exported"
    return f"SavedModel of TensorFlow {version}"


def _sizes(path: Path) -> dict[str, int]:
    """Bytes on disk, by part."""
    parts = {"graph": [path / SAVED_MODEL]}
    for part in (VARIABLES, ASSETS):
        parts[part] = [p for p in (path / part).rglob("*") if p.is_file()]
    return {part: sum(p.stat().st_size for p in paths) for part, paths in parts.items()}


def _file(path: Path, samples: int, value: Tensor) -> Any:
    """An .npy file of [samples, …] that is written as it is filled."""
    file: Any = open_memmap(path, "w+", value.dtype, (samples, *value.shape))  # type: ignore[no-untyped-call]
    return file


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MESSAGE_MOST]
