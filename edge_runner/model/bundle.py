"""A model on disk: a bundle (a folder with a manifest that vouches for each file) or a bare .tflite file.

Nothing is parsed before its SHA-256 is right; a bare file, which nothing vouches for, is first tried out in a child process.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from edge_runner import config
from edge_runner.errors import ConfigError, EdgeRunnerError, ModelError, SettingError, Several
from edge_runner.fields import InputPath, Length, Range
from edge_runner.frame import TensorSpec
from edge_runner.model.flatbuffer import Graph, read_graph
from edge_runner.model.goldens import read_goldens, recipe_differences
from edge_runner.model.interpreter import Interpreter, Runtime, RuntimeName
from edge_runner.model.labels import embedded_labels, read_labels
from edge_runner.model.preprocess import Recipe
from edge_runner.model.probe import probe
from edge_runner.model.store import NAME, NAME_ALLOWED, Store
from edge_runner.model.structure import check_structure

FORMAT = 1
MANIFEST, MODEL, LABELS, GOLDENS = "manifest.json", "model.tflite", "labels.txt", "golden.npz"
REPORT_MD, REPORT_HTML = "report.md", "report.html"  # for people: the board does not read them
VERSION_DIGITS = 8  # of the model's SHA-256
UNSUMMED = re.compile(
    rb'"(created|digest)": "[^"]*"'
)  # the date, so that equal builds have equal sums, and the sum itself
NO_DIGEST = "0" * 64


@dataclass(frozen=True)
class ModelConfig:
    """The configuration's `model`. `path` is a bundle's folder or a bare .tflite file, `input_shape` of one that leaves it open.

    Instead of `path`, `name` is an installed model's, of which the active version runs.
    """

    path: Annotated[Path, InputPath("file or folder")] | None = None
    name: str | None = None
    labels: Annotated[Path, InputPath("file")] | None = None
    sha256: str | None = None
    runtime: Literal["auto"] | RuntimeName = "auto"
    threads: Literal["auto"] | Annotated[int, Range(1)] = "auto"
    input_shape: Annotated[tuple[Annotated[int, Range(1)], ...], Length(1)] | None = None
    check_goldens: bool = True

    def __post_init__(self) -> None:
        if self.path and self.name is not None:
            raise SettingError("given beside `path`; leave one of them out", key="name")
        if not self.path and self.name is None:
            raise SettingError(
                "missing; allowed: a file or folder that is there, or `name`, an installed model's", key="path"
            )
        if self.name is not None and not NAME.fullmatch(self.name):
            raise SettingError(f"got '{self.name}'; allowed: {NAME_ALLOWED}", key="name")


@dataclass(frozen=True)
class Used:
    """An operator of the model: how often its `version` is used."""

    name: str
    version: int
    count: int


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says. `files` are SHA-256 sums by name; `digest` is the manifest's own, without its date and itself."""

    format: int
    name: str
    version: str
    created: str
    task: Mapping[str, Any]
    preprocess: Recipe | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    quantization: str
    operators: tuple[Used, ...]
    runtimes: tuple[str, ...]
    files: Mapping[str, str]
    source: Mapping[str, Any]
    tools: Mapping[str, str]
    proof: Mapping[str, Any]
    digest: str = NO_DIGEST

    def dump(self) -> bytes:
        """The file's bytes, the digest put in."""
        text = json.dumps({**dataclasses.asdict(self), "digest": NO_DIGEST}, indent=1, ensure_ascii=False) + "\n"
        return text.replace(NO_DIGEST, _digest(text.encode())).encode()


@dataclass(frozen=True)
class Model:
    """A model read into memory, its hash checked: not yet loaded by the interpreter."""

    name: str
    version: str
    path: Path
    content: bytes
    graph: Graph
    labels: tuple[str, ...] | None
    labels_source: str
    manifest: Manifest | None = None
    input_shape: tuple[int, ...] | None = None

    def load(self, runtime: Runtime, threads: int = 1) -> Interpreter:
        """Load it into a runtime; a bare file goes through a child process first."""
        flex = tuple(sorted({o.name for o in self.graph.operators if o.custom and o.name.startswith("Flex")}))
        try:
            if self.manifest is None:
                check_structure(self.content)
                probe(self.content, runtime, threads, flex, shape=self.input_shape)
            return Interpreter(self.content, runtime, threads, flex, shape=self.input_shape)
        except ModelError as error:
            raise ModelError(f"{self.path} {error}", key="model.path") from error


def open_model(settings: ModelConfig) -> Model:
    """Read a bundle, an installed one too, or a bare file; raise ModelError where a hash is wrong or it is no model at all."""
    with named(settings):
        path = settings.path or _active(str(settings.name))
        return _open_bundle(path, settings) if path.is_dir() else _open_file(path, settings)


@contextmanager
def named(settings: ModelConfig) -> Iterator[None]:
    """Blame `model.name` for what is wrong with a model, where it is that key that chose it."""
    try:
        yield
    except EdgeRunnerError as error:
        for each in error.errors if isinstance(error, Several) else [error]:
            if settings.name is not None and each.key == "model.path":
                each.key = "model.name"
        raise


def sha256_of(content: bytes) -> str:
    """The SHA-256 sum in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read a bundle's manifest; raise ModelError where it is missing, of another format, or not as it was written."""
    path = folder / MANIFEST
    content = _read(path)
    found = re.search(rb'"format": (\d+)', content)
    if found and int(found[1]) > FORMAT:
        raise ModelError(
            f"{path} has format {int(found[1])}; this edge-runner reads up to {FORMAT}: upgrade it", key="model.path"
        )
    try:
        manifest = config.load(path, Manifest, variables=False).value
    except ConfigError as error:
        raise ModelError(f"damaged bundle: {error.problems[0]}", key="model.path") from error
    return manifest


def damages(folder: Path, manifest: Manifest) -> list[str]:
    """A line for each file of the bundle that is missing or not as it was built; empty when it is whole."""
    content = _read(folder / MANIFEST)
    found = []
    if _digest(content) != manifest.digest:
        found.append(
            f"{folder / MANIFEST} was changed after it was built{_what_changed(folder, manifest)};"
            " put overrides into the configuration instead"
        )
    found += [f"{folder / MANIFEST} does not list {name}" for name in (MODEL, GOLDENS) if name not in manifest.files]
    for name, expected in manifest.files.items():
        found += _damage(folder / name, expected)
    return found


def _damage(path: Path, expected: str) -> Iterator[str]:
    """What is wrong with one file, that it cannot be read as well."""
    try:
        if not _is_file(path):
            yield f"{path} is missing"
        elif sha256_of(_read(path)) != expected:
            yield (
                f"{path} was changed or damaged after it was built: its SHA-256 is not the manifest's; copy the bundle again"
            )
    except ModelError as error:
        yield str(error)


def _digest(content: bytes) -> str:
    return sha256_of(UNSUMMED.sub(rb'"\1": ""', content))


def _what_changed(folder: Path, manifest: Manifest) -> str:
    """The changes of a manifest that can be named: those of its recipe, which the goldens have as well."""
    with suppress(ModelError):
        differences = recipe_differences(read_goldens(folder / GOLDENS), manifest.preprocess)
        return f": {'; '.join(differences)}" if differences else ""
    return ""


def _active(name: str) -> Path:
    """The folder of an installed model's active version."""
    store = Store()
    path = store.active(name)
    if path:
        return path
    there = ", ".join(store.names())
    raise ModelError(
        f"no model '{name}' is installed in {store.folder}; "
        + (f"there is {there}" if there else "there is none: install a bundle with `edge-runner model install FOLDER`"),
        key="model.path",
    )


def _open_file(path: Path, settings: ModelConfig) -> Model:
    content = _read(path)
    _check_sha256(settings, content)
    graph = _graph(path, content, vouched=False)
    embedded = None if settings.labels else embedded_labels(content)
    labels = read_labels(settings.labels) if settings.labels else embedded
    source = str(settings.labels or f"the metadata of {path}") if labels else "nothing"
    version = sha256_of(content)[:VERSION_DIGITS]
    return Model(path.stem, version, path, content, graph, labels, source, input_shape=settings.input_shape)


def _open_bundle(folder: Path, settings: ModelConfig) -> Model:
    if not _is_file(folder / MANIFEST):
        raise ModelError(
            f"{folder} is no bundle: {MANIFEST} is missing; name a bundle's folder or a .tflite file", key="model.path"
        )
    if settings.labels:
        raise SettingError(f"{folder} is a bundle and has labels of its own; leave the key out", key="model.labels")
    if settings.input_shape:
        raise SettingError(
            f"{folder} is a bundle, whose input has its size; leave the key out", key="model.input_shape"
        )
    manifest = read_manifest(folder)
    found = damages(folder, manifest)
    if found:
        raise ModelError("; ".join(found), key="model.path")
    content = _read(folder / MODEL)
    _check_sha256(settings, content)
    labels_file = folder / LABELS
    labels = read_labels(labels_file) if LABELS in manifest.files else None
    return Model(
        manifest.name, manifest.version, folder, content, _graph(folder / MODEL, content, vouched=True), labels,
        str(labels_file), manifest,
    )  # fmt: skip


def _is_file(path: Path) -> bool:
    with _readable(path):
        return path.is_file()


def _read(path: Path) -> bytes:
    with _readable(path):
        return path.read_bytes()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise ModelError where it is not: for want of permission, or on a broken card."""
    try:
        yield
    except OSError as error:
        raise ModelError(f"{path}: {(error.strerror or str(error)).lower()}", key="model.path") from error


def _graph(path: Path, content: bytes, vouched: bool) -> Graph:
    try:
        if not vouched:
            check_structure(content)
        return read_graph(content)
    except ModelError as error:
        raise ModelError(f"{path} {error}", key="model.path") from error


def _check_sha256(settings: ModelConfig, content: bytes) -> None:
    found = sha256_of(content)
    if settings.sha256 and settings.sha256.lower() != found:
        raise ModelError(
            f"wants {settings.sha256}; the model's is {found}: another or a damaged file", key="model.sha256"
        )
