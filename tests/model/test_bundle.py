"""A bundle vouches for each of its bytes; a bare file is named by its own."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from bundles import RECIPE, make_bundle

from edge_runner.errors import EXIT_CONFIG, EdgeRunnerError, ModelError, SettingError
from edge_runner.model.bundle import GOLDENS, LABELS, MANIFEST, MODEL, ModelConfig, open_model, read_manifest, sha256_of
from edge_runner.model.interpreter import find_runtime

pytestmark = pytest.mark.arm

CHANGES_EACH = 25
NO_GOOD = "f" * 64


@pytest.fixture
def bundle(tmp_path: Path, data: Path) -> Path:
    return make_bundle(tmp_path / "colour", data / "colour.tflite")


def refusal(path: Path, **config: object) -> EdgeRunnerError:
    """The error of a model that does not open; it is one line and ends a command with 78."""
    with pytest.raises((ModelError, SettingError)) as caught:
        open_model(ModelConfig(path=path, **config))
    assert caught.value.exit_code == EXIT_CONFIG
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def rewrite(bundle: Path, change: Callable[[dict], object]) -> None:
    """Change the manifest as an editor would."""
    content = json.loads((bundle / MANIFEST).read_text())
    change(content)
    (bundle / MANIFEST).write_text(json.dumps(content, indent=1) + "\n")


def test_opens(bundle: Path, data: Path) -> None:
    """A whole bundle opens: name, version, labels and recipe are the manifest's."""
    model = open_model(ModelConfig(path=bundle))
    content = (data / "colour.tflite").read_bytes()
    assert (model.name, model.version, model.content) == ("colour", sha256_of(content)[:8], content)
    assert (model.labels, model.labels_source) == (("red", "green", "blue"), str(bundle / LABELS))
    assert model.manifest is not None
    assert model.manifest.preprocess == RECIPE
    assert model.manifest == read_manifest(bundle)
    assert model.graph.ending(0).operator == "SOFTMAX"
    interpreter = model.load(find_runtime())
    assert (interpreter.inputs, interpreter.outputs) == (model.manifest.inputs, model.manifest.outputs)


def test_runs(
    bundle: Path, colours: Path, configure: Callable[..., Path], run_cli: Callable[..., CompletedProcess[str]]
) -> None:
    """A bundle needs no other word of the configuration: recipe, labels and task are its own, and its goldens hold."""
    config = configure(camera={"type": "images", "path": str(colours)}, model={"path": str(bundle)}, preprocess=None)
    done = run_cli("--config", config)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["classifications"][0]["label"] for result in results] == ["red", "green", "blue"]
    assert "warning" not in done.stderr


@pytest.mark.parametrize("name", [MODEL, LABELS, GOLDENS, MANIFEST])
def test_changed_byte(bundle: Path, name: str) -> None:
    """One byte changed, anywhere in any file, is found, and the file is named."""
    path = bundle / name
    good = path.read_bytes()
    chance = random.Random(name)
    for position in chance.sample(range(len(good)), min(CHANGES_EACH, len(good))):
        value = chance.choice([v for v in range(256) if v != good[position]])
        path.write_bytes(good[:position] + bytes([value]) + good[position + 1 :])
        error = refusal(bundle)
        assert str(path) in str(error), (position, value)
        assert error.key == "model.path"
    path.write_bytes(good)
    open_model(ModelConfig(path=bundle))


@pytest.mark.parametrize("name", [MODEL, LABELS, GOLDENS, MANIFEST])
def test_every_kind_of_damage(bundle: Path, name: str) -> None:
    """A file that is cut, longer, empty, a folder or gone is named."""
    path = bundle / name
    good = path.read_bytes()
    for damaged in (good[:-1], good[: len(good) // 2], good + b"\n", b""):
        path.write_bytes(damaged)
        assert str(path) in str(refusal(bundle)) or name == MANIFEST
        assert name in str(refusal(bundle))
    path.unlink()
    assert "missing" in str(refusal(bundle))
    assert name in str(refusal(bundle))
    path.mkdir()
    assert name in str(refusal(bundle))


def test_changed_byte_through_the_command(
    bundle: Path, configure: Callable[..., Path], run_cli: Callable[..., CompletedProcess[str]]
) -> None:
    """The command ends with 78 and one line that names the key and the file."""
    (bundle / LABELS).write_text("green\nred\nblue\n")
    config = configure(model={"path": str(bundle)}, preprocess=None)
    done = run_cli("--config", config, "--once")
    assert (done.returncode, done.stdout) == (EXIT_CONFIG, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"edge-runner: error: {config}:")
    assert f"model.path: {bundle / LABELS} was changed or damaged" in line


def test_all_damage_at_once(bundle: Path) -> None:
    """Everything that is wrong with a bundle is said at once."""
    (bundle / LABELS).unlink()
    (bundle / GOLDENS).write_bytes(b"")
    error = str(refusal(bundle))
    assert f"{bundle / LABELS} is missing" in error
    assert f"{bundle / GOLDENS} was changed or damaged" in error
    assert "copy the bundle again" in error


def test_edited_manifest(bundle: Path) -> None:
    """A recipe edited in the manifest is not taken silently; where overrides belong is said."""
    rewrite(bundle, lambda manifest: manifest["preprocess"].update(color="bgr"))
    assert f"{bundle / MANIFEST} was changed after it was built" in str(refusal(bundle))
    assert "put overrides into the configuration instead" in str(refusal(bundle))


@pytest.mark.parametrize("left_out", [MODEL, GOLDENS])
def test_unlisted(tmp_path: Path, data: Path, left_out: str) -> None:
    """A manifest that does not vouch for the model or the goldens vouches for nothing."""
    whole = read_manifest(make_bundle(tmp_path / "whole", data / "colour.tflite"))
    files = {name: total for name, total in whole.files.items() if name != left_out}
    made = make_bundle(tmp_path / "made", data / "colour.tflite", files=files)
    assert f"{made / MANIFEST} does not list {left_out}" in str(refusal(made))


def test_no_labels(tmp_path: Path, data: Path) -> None:
    """A bundle without labels is fine; a labels.txt that the manifest does not know is not read."""
    made = make_bundle(tmp_path / "made", data / "colour.tflite", labels=None)
    (made / LABELS).write_text("a\nb\nc\n")
    assert open_model(ModelConfig(path=made)).labels is None


def test_newer_format(tmp_path: Path, data: Path) -> None:
    """A bundle of a later version says so, whatever else has changed in it."""
    made = make_bundle(tmp_path / "made", data / "colour.tflite", format=2)
    rewrite(made, lambda manifest: manifest.update(colours="many"))
    assert str(refusal(made)) == f"{made / MANIFEST} has format 2; this edge-runner reads up to 1: upgrade it"


@pytest.mark.parametrize("content", [b"", b"cat\ndog\n", b"{", b"[]", b"\x89PNG\r\n\x1a\n", b'{"format": 1}', b"null"])
def test_no_manifest(bundle: Path, content: bytes) -> None:
    """A manifest that is none is named as damage."""
    (bundle / MANIFEST).write_bytes(content)
    assert str(refusal(bundle)).startswith(f"damaged bundle: {bundle / MANIFEST}")


def test_no_bundle(tmp_path: Path) -> None:
    """Any other folder is no bundle; what would be one is said."""
    assert str(refusal(tmp_path)) == (
        f"{tmp_path} is no bundle: manifest.json is missing; name a bundle's folder or a .tflite file"
    )


def test_labels_over_a_bundle(bundle: Path, data: Path) -> None:
    """Labels beside a bundle's own would be a riddle: they are refused."""
    error = refusal(bundle, labels=data / "colours.txt")
    assert error.key == "model.labels"
    assert "is a bundle and has labels of its own" in str(error)


def test_a_shape_over_a_bundle(bundle: Path) -> None:
    """A bundle's input has its size: another one is refused."""
    error = refusal(bundle, input_shape=(1, 16, 16, 3))
    assert error.key == "model.input_shape"
    assert "whose input has its size" in str(error)


# --- by name ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bundle: Path) -> Path:
    """The colour model, installed by hand; its active version's folder."""
    monkeypatch.setenv("EDGE_RUNNER_STATE", str(tmp_path / "state"))
    home = tmp_path / "state/models/colour"
    home.mkdir(parents=True)
    bundle.rename(home / "v1")
    (home / "current").symlink_to("v1")
    return home / "v1"


def test_by_name(installed: Path) -> None:
    """A name stands for the active version's own folder, not for the link: a switch later does not change what was opened."""
    model = open_model(ModelConfig(name="colour"))
    assert (model.name, model.path) == ("colour", installed)


def test_name_of_nothing(installed: Path) -> None:
    """A name under which nothing is installed is blamed; what there is, or what helps, is said."""
    with pytest.raises(ModelError) as caught:
        open_model(ModelConfig(name="color"))
    store = installed.parents[1]
    assert str(caught.value) == f"no model 'color' is installed in {store}; there is colour"
    assert (caught.value.key, caught.value.exit_code) == ("model.name", EXIT_CONFIG)
    (installed.parent / "current").unlink()
    with pytest.raises(ModelError, match="there is none: install a bundle with `edge-runner model install FOLDER`"):
        open_model(ModelConfig(name="colour"))


def test_damage_by_name(installed: Path, configure: Callable[..., Path], run_cli: Callable[..., CompletedProcess[str]]):
    """What is wrong with an installed model blames the key that chose it, and ends the command with 78."""
    (installed / LABELS).write_text("green\nred\nblue\n")
    config = configure(model={"name": "colour"}, preprocess=None)
    done = run_cli("check", "--config", config)
    assert done.returncode == EXIT_CONFIG
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"edge-runner: error: {config}:")
    assert f"model.name: {installed / LABELS} was changed or damaged" in line


@pytest.mark.parametrize("key", ["labels", "input_shape"])
def test_over_an_installed_model(installed: Path, key: str) -> None:
    """An installed model is a bundle: what only bare files need is refused."""
    with pytest.raises(SettingError) as caught:
        open_model(ModelConfig(name="colour", **{key: (Path("labels.txt"))}))
    assert caught.value.key == f"model.{key}"


@pytest.mark.parametrize(
    ("settings", "key", "says"),
    [
        ({}, "path", "missing; allowed: a file or folder that is there, or `name`, an installed model's"),
        ({"path": Path("m"), "name": "m"}, "name", "given beside `path`; leave one of them out"),
        ({"name": "../m"}, "name", "got '../m'; allowed: letters, digits and . _ + -"),
        ({"name": ""}, "name", "got ''; allowed: letters"),
    ],
)
def test_path_or_name(settings: dict, key: str, says: str) -> None:
    """Exactly one of path and name chooses the model; a name is no path."""
    with pytest.raises(SettingError) as caught:
        ModelConfig(**settings)
    assert caught.value.key == key
    assert str(caught.value).startswith(says)


def test_sha256(bundle: Path, data: Path) -> None:
    """A SHA-256 in the configuration pins the model, of a bundle and of a bare file, in either case of letters."""
    right = sha256_of((data / "colour.tflite").read_bytes())
    for path in (bundle, data / "colour.tflite"):
        open_model(ModelConfig(path=path, sha256=right))
        open_model(ModelConfig(path=path, sha256=right.upper()))
        error = refusal(path, sha256=NO_GOOD)
        assert error.key == "model.sha256"
        assert NO_GOOD in str(error)
        assert right in str(error)


def test_bare_file(tmp_path: Path, data: Path) -> None:
    """A bare file is named by its stem, its version by its SHA-256, and where its labels come from is known."""
    path = tmp_path / "colour-v2.tflite"
    shutil.copy(data / "colour.tflite", path)
    model = open_model(ModelConfig(path=path))
    assert (model.name, model.version) == ("colour-v2", sha256_of(path.read_bytes())[:8])
    assert (model.labels, model.labels_source, model.manifest) == (None, "nothing", None)
    given = open_model(ModelConfig(path=path, labels=data / "colours.txt"))
    assert (given.labels, given.labels_source) == (("red", "green", "blue"), str(data / "colours.txt"))
    shutil.copy(data / "labelled.tflite", path)
    inside = open_model(ModelConfig(path=path))
    assert (inside.labels, inside.labels_source) == (("red", "green", "blue"), f"the metadata of {path}")


def test_bare_file_that_is_gone(tmp_path: Path) -> None:
    """A file that cannot be read is named, with the system's reason."""
    assert str(refusal(tmp_path / "gone.tflite")) == f"{tmp_path / 'gone.tflite'}: no such file or directory"


def test_dump(bundle: Path) -> None:
    """A manifest read and written again is the same to the byte."""
    assert read_manifest(bundle).dump() == (bundle / MANIFEST).read_bytes()
