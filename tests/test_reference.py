"""configs/: the manual says what the code does, and every example can be loaded."""

import dataclasses
import re
import typing
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import pytest

from edge_runner.camera import CAMERAS
from edge_runner.camera.base import CameraConfig, LiveConfig, Retry
from edge_runner.fields import InputPath, Variants
from edge_runner.model.bundle import ModelConfig
from edge_runner.model.preprocess import Recipe
from edge_runner.output import OUTPUTS
from edge_runner.output.base import OutputConfig
from edge_runner.output.mqtt import Tls
from edge_runner.output.when import When
from edge_runner.settings import Settings, load_settings
from edge_runner.task import TASKS

CONFIGS = Path(__file__).parent.parent / "configs"
REFERENCE = CONFIGS / "reference.yaml"
ACTIVE = {"pattern", "console"}  # the types that the reference runs with
FROM_BUNDLE = {"preprocess", "task"}  # sections that are off, since the reference runs a bundle
INSTEAD = {("", "cameras"), ("model", "name")}  # keys that stand in the place of another one
LIVE = sorted(name for name in CAMERAS if issubclass(Variants(CAMERAS).config(name), LiveConfig))

MARK = re.compile(r" *# type: (\w+)")
PROSE = re.compile(r" *#( .*)?|")
KEY = re.compile(r"(?P<indent> *)(?P<off>#?)(?P<item>- )?(?P<name>[a-z0-9_]+):(?P<value>.*)")


@dataclass(frozen=True)
class Line:
    """One key of the reference: its section, the type it belongs to, whether it is off, and the line with it on."""

    section: str
    type: str
    name: str
    off: bool
    text: str
    prose: str


def lines():
    """Every key of the reference; anything that is neither key, prose nor blank fails."""
    section, kind, prose, found = "", "", "", []
    for number, text in enumerate(REFERENCE.read_text("utf-8").splitlines(), 1):
        if mark := MARK.fullmatch(text):
            kind, prose = mark[1], ""
        elif PROSE.fullmatch(text):
            prose += text + "\n"
        else:
            key = KEY.fullmatch(text)
            assert key, f"line {number} is neither a key, nor prose, nor blank: {text}"
            if not key["indent"]:
                section, kind, prose = "", "", prose.rpartition("\n\n")[2]
            on = key["indent"] + (key["item"] or "") + key["name"] + ":" + key["value"]
            found.append(Line(section, kind, key["name"], bool(key["off"]), on, prose))
            if not key["indent"] and not key["value"]:
                section = key["name"]
    return found


def declared():
    """Every field there is, by section and type, as the reference has them."""
    shared = {f.name for f in fields(LiveConfig)}
    every = {f.name for f in fields(CameraConfig)}
    found = {
        ("", ""): fields(Settings),
        ("camera", ""): [f for f in fields(CameraConfig) if f.name == "type"],
        ("camera", "every"): [f for f in fields(CameraConfig) if f.name != "type"],
        ("camera", "live"): [f for f in fields(LiveConfig) if f.name not in every],
        ("model", ""): fields(ModelConfig),
        ("preprocess", ""): fields(Recipe),
    }
    for name in CAMERAS:
        found["camera", name] = [f for f in fields(Variants(CAMERAS).config(name)) if f.name not in shared]
    for name in TASKS:
        found["task", name] = fields(Variants(TASKS).config(name))
    common = {f.name for f in fields(OutputConfig)}
    found["outputs", "every"] = fields(OutputConfig)
    for name in OUTPUTS:
        found["outputs", name] = [f for f in fields(Variants(OUTPUTS).config(name)) if f.name not in common]
    return {place: {f.name: f for f in these} for place, these in found.items()}


def owners():
    """The dataclass of each section and type."""
    found: dict[tuple[str, str], Any] = {
        ("", ""): Settings,
        ("camera", ""): CameraConfig,
        ("camera", "every"): CameraConfig,
        ("camera", "live"): LiveConfig,
        ("model", ""): ModelConfig,
        ("preprocess", ""): Recipe,
        ("outputs", "every"): OutputConfig,
    }
    for section, table in (("camera", CAMERAS), ("task", TASKS), ("outputs", OUTPUTS)):
        found |= {(section, name): Variants(table).config(name) for name in table}
    return found


def default(item):
    """A field's default; MISSING where it has none."""
    return item.default if item.default_factory is MISSING else item.default_factory()


def switched_on(camera="pattern", task="classify", output="jsonl"):
    """The reference as one configuration of these types with every key on, but for what stands in the place of another."""
    wanted = {
        "camera": {"", "every", camera, *(["live"] if camera in LIVE else [])},
        "task": {task},
        "outputs": {"every", output},
    }
    kept = [
        line
        for line in lines()
        if line.type in wanted.get(line.section, {""}) and (line.section, line.name) not in INSTEAD
    ]
    text = "\n".join(line.text for line in kept) + "\n"
    return re.sub(r"(?m)^(camera:\n  type:).*", rf"\1 {camera}", text)


@pytest.fixture
def all_there(monkeypatch):
    """Every file that a configuration names is there, and every password set."""
    monkeypatch.setattr(InputPath, "missing", lambda self, path: None)
    for name in ("CAM_PASSWORD", "MQTT_PASSWORD"):
        monkeypatch.setenv(name, "secret")


@pytest.fixture
def load(all_there, tmp_path):
    """Load a text as the settings of `reference.yaml`."""

    def load_text(text):
        path = tmp_path / "reference.yaml"
        path.write_text(text, "utf-8")
        return load_settings(path).value

    return load_text


def test_the_reference_has_every_key_and_no_other():
    """Each field of each Config stands in its section, under its type, once."""
    found = {}
    for line in lines():
        found.setdefault((line.section, line.type), []).append(line.name)
    expected = {place: sorted(these) for place, these in declared().items() if these}
    assert {place: sorted(names) for place, names in found.items()} == expected


def test_the_reference_runs_with_the_defaults(load):
    """As it stands, it is the least configuration there can be: every key that is on has its default."""
    least = load("camera: {type: pattern}\nmodel: {path: ../examples/digits/models/digits}\n")
    assert load(REFERENCE.read_text("utf-8")) == least


def test_only_what_has_a_default_and_is_in_use_is_on():
    """A key is off where it belongs to another type, has no default, or would go over the bundle; all others are on."""
    needed = {("camera", "type"), ("model", "path"), *(("", name) for name in ("camera", "model", *FROM_BUNDLE))}
    for line in lines():
        other = line.type not in ACTIVE | {"", "every", "live"}
        plain = default(declared()[line.section, line.type][line.name])
        off = other or line.section in FROM_BUNDLE or plain in (None, MISSING)
        assert line.off is (off and (line.section, line.name) not in needed), line


@pytest.mark.parametrize("camera", CAMERAS)
def test_cameras_stand_with_their_defaults(load, camera):
    """With every # taken away, each key of a camera has the default that the code gives it."""
    config = load(switched_on(camera=camera)).camera
    assert config.type == camera
    check_defaults(config, {"type", "name"})


@pytest.mark.parametrize("output", OUTPUTS)
def test_outputs_stand_with_their_defaults(load, output):
    """With every # taken away, each key of an output has the default that the code gives it."""
    (config,) = load(switched_on(output=output)).outputs
    assert config.type == output
    check_defaults(config)


def test_the_model_stands_with_its_defaults(load):
    """With every # taken away, each key of the model has the default that the code gives it."""
    check_defaults(load(switched_on()).model, {"name"})


def test_the_recipe_stands_with_its_defaults(load):
    """With every # taken away, each key of the recipe has the default that the code gives it."""
    check_defaults(Recipe(**load(switched_on()).preprocess))


@pytest.mark.parametrize("task", TASKS)
def test_tasks_stand_with_their_defaults(load, task):
    """With every # taken away, each key of a task has the default that the code gives it."""
    check_defaults(Variants(TASKS).config(task)(**load(switched_on(task=task)).task))


def check_defaults(config, apart=()):
    """A key without a default shows some example; all others show just their default, a path relative to the file."""
    for item in fields(config):
        shown = getattr(config, item.name)
        if isinstance(default(item), Path):
            shown = Path(shown.name)
        if item.name in apart:
            continue
        if default(item) in (None, MISSING):
            assert shown, f"{item.name} shows no example"
        else:
            assert shown == default(item), item.name


@pytest.mark.parametrize("line", lines(), ids=lambda line: f"{line.section}.{line.type}.{line.name}")
def test_the_reference_explains_every_choice(line):
    """Of a key with words to choose from, the words above it name each; a truth value says true | false."""
    hint = typing.get_type_hints(owners()[line.section, line.type])[line.name]
    choices = set(words_of(hint))
    if line.name == "type":  # a type is explained by its section
        choices = set(CAMERAS) if line.section == "camera" else set()
    missing = {word for word in choices if not re.search(rf"\b{re.escape(word)}\b", line.prose)}
    assert not missing


def words_of(hint):
    """The words that a type allows, through all its unions."""
    if hint is bool:
        return ["true | false"]
    if typing.get_origin(hint) is Literal:
        return list(map(str, typing.get_args(hint)))
    return [word for member in typing.get_args(hint) for word in words_of(member)]


def test_nothing_is_left_of_a_type_when_it_goes():
    """The marks name every type there is, and no other."""
    marked = set(MARK.findall(REFERENCE.read_text("utf-8")))
    assert marked == {"every", "live", *CAMERAS, *TASKS, *OUTPUTS}


def test_live_cameras_are_told():
    """The words above the keys of every live camera name each type that has them, and no other."""
    told = REFERENCE.read_text("utf-8").partition("# type: live")[0].rstrip().rpartition("\n\n")[2]
    assert {name for name in CAMERAS if re.search(rf"\b{name}\b", told)} == set(LIVE)


def test_cameras_shows_an_example(load):
    """With its # taken away and `camera` left out, `cameras` is an example of several."""
    [line] = [line for line in lines() if line.name == "cameras"]
    cameras = load(f"{line.text}\nmodel: {{path: m.tflite}}\n").cameras
    assert len(cameras) > 1
    assert len({camera.type for camera in cameras.values()}) > 1


@pytest.mark.parametrize(("name", "cls"), [("retry", Retry), ("when", When), ("tls", Tls)])
def test_mappings_show_all_their_keys(name, cls):
    """A mapping within a line shows each of its keys."""
    [line] = [line for line in lines() if line.name == name]
    assert {f.name for f in fields(cls)} == set(re.findall(r"(\w+): ", line.text.partition("{")[2]))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_can_be_loaded(all_there, path):
    """Each configuration that comes with edge-runner is right, once the files that it names are there."""
    assert dataclasses.is_dataclass(load_settings(path).value)


@pytest.mark.parametrize("camera", CAMERAS)
def test_every_camera_has_an_example(all_there, camera):
    """There is a short example of each camera, named after its type."""
    assert load_settings(CONFIGS / f"{camera}.yaml").value.camera.type == camera


def test_several_cameras_have_an_example(all_there):
    """There is a short example of several cameras."""
    assert len(load_settings(CONFIGS / "cameras.yaml").value.sources) > 1


def test_what_the_reference_names_comes_with_it():
    """The reference runs from a clone as it is: what it names is there."""
    bundle = load_settings(REFERENCE).value.model.path
    assert (bundle / "manifest.json").is_file()
