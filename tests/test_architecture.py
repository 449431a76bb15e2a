"""Who may import whom: the house's floors, kept by reading every module's imports, those within functions too."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

import edge_runner

PACKAGE = "edge_runner"
ROOT = Path(edge_runner.__file__).parent
HEAVY = (
    "cv2", "numpy", "yaml", "tflite_runtime", "ai_edge_litert", "paho",
    "tensorflow", "keras", "flatbuffers", "matplotlib", "tqdm",
)  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """Modules that match `who` may import of ours only what matches `only` (None: anything), and never what matches `never`.

    A name is a module or a package with everything in it; our own stand without `edge_runner.`, others under their own name.
    """

    who: str
    only: tuple[str, ...] | None = None
    never: tuple[str, ...] = ()


IO_AND_THREADS = (
    "os",
    "io",
    "pathlib",
    "socket",
    "subprocess",
    "threading",
    "multiprocessing",
    "logging",
    "shutil",
    "tempfile",
)
SIDE_BY_SIDE = ("camera", "task", "output", "model")
NOUNS = ("frame", "result", "errors", "fields", "process")
CHILDREN = ("subprocess", "multiprocessing", "threading", "socket")

RULES = [
    # who, what of ours it may import only, and what it may never import
    Rule("errors",           ()),
    Rule("fields",           NOUNS),
    Rule("process",          ()),
    Rule("frame",            NOUNS),
    Rule("result",           NOUNS),
    Rule("tree",             ("errors",)),
    Rule("config",           ("errors", "fields", "tree")),
    Rule("camera",           (*NOUNS, "camera")),
    Rule("task",             (*NOUNS, "task"), IO_AND_THREADS),
    Rule("output",           (*NOUNS, "output")),
    Rule("model",            (*NOUNS, "model", "config")),
    Rule("model.preprocess", NOUNS, IO_AND_THREADS),
    Rule("settings",         ("config", *NOUNS, *SIDE_BY_SIDE)),
    Rule("service.health",   (*NOUNS, "service.device"), CHILDREN),
    Rule("engine",           ("config", "settings", *NOUNS, "model", "task"), CHILDREN),
    Rule("pipeline",         ("engine", "config", "settings", *NOUNS, *SIDE_BY_SIDE), CHILDREN),
    Rule("service",          None, ("tools", "cli", "builder")),
    Rule("service.turns",    (*NOUNS, "camera.feed"), CHILDREN),
    Rule("camera.feed",      (*NOUNS, "camera"), ("camera.live", "camera.child", "camera.worker", "camera.shared", "subprocess")),
    Rule("camera.develop",   (*NOUNS, "camera.base"), CHILDREN),
    Rule("camera.pixels",    (*NOUNS, "camera.base", "camera.jpeg"), CHILDREN),
    Rule("camera.shared",    NOUNS, CHILDREN),
    Rule("tools",            None, ("cli", "builder")),
    Rule("cli",              None, ("builder",)),
    Rule("builder",          None, ("service", "tools", "output", "pipeline", "engine", "settings")),
]  # fmt: skip

# Foreign packages, and the only places of ours that may name them.
ONLY_IN = {
    "tensorflow": ("builder.savedmodel", "builder.metadata"),
    "keras": ("builder.savedmodel",),
    "flatbuffers": ("builder.metadata",),
    "google": ("builder.savedmodel",),
    "matplotlib": ("builder.report.plots",),
    "tqdm": ("builder.progress",),
    "multiprocessing": ("builder.worker",),
    "yaml": ("tree",),
    "tflite_runtime": ("model.interpreter",),
    "ai_edge_litert": ("model.interpreter",),
    "paho": ("output.link",),
    "sqlite3": ("output.spool",),
    "argparse": ("cli", "arguments", "builder"),
    "signal": ("service", "model.probe", "builder", "camera.worker", "camera.child", "camera.program", "process"),
    "threading": ("service.watchdog", "service.reload", "camera", "output", "builder", "tools.doctor_outputs"),
    "subprocess": (
        "service.rehearsal", "model.probe", "builder", "camera.child", "camera.program", "camera.devices", "tools.doctor",
    ),
    "pickle": ("builder", "camera.worker", "camera.child"),
    "socket": (
        "settings", "service.systemd", "camera.worker", "camera.child", "camera.http", "output.link", "tools.doctor_outputs",
    ),
    "http": ("camera.http", "model.fetch"),
    "fcntl": ("camera.shared", "camera.child", "camera.program", "camera.videodev", "output.logfile", "model.keeper"),
    "mmap": ("camera.shared", "camera.v4l2", "camera.jpeg"),
    "ctypes": (
        "service.device", "process", "camera.devices", "camera.v4l2", "camera.videodev",
    ),
}  # fmt: skip

# What is done in these places only, whatever it is called by.
ONLY_THERE = {
    r"\.ioctl\(": ("camera.videodev",),
    r"memfd_create\(": ("camera.shared", "camera.child", "model.interpreter"),
    r"VideoCapture\(": ("camera.video", "camera.rtsp"),
    r"killpg\(": ("camera.child", "builder"),
    r"os\.fork\(|set_start_method": (),
    r"\"health\.json|/health\.json|/run/edge-runner": ("service.instances",),
    r"\nHOT_C\b": ("service.health",),
    r"\bsete[ug]id\(": ("model.rights",),
}

ANY_CAMERA = ("camera", "camera.base", "camera.feed")  # all that is known of cameras outside of them
LIVE = (
    "live", "child", "worker", "shared", "v4l2", "videodev", "access", "devices", "program", "rpicam", "command", "mjpeg",
    "stream", "http", "rtsp", "pattern",
)  # fmt: skip

PRINTING = ("cli", "model.probe", "builder.__main__")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(tree: ast.AST, name: str) -> Iterator[str]:
    """Every module that a module names in an import, wherever that stands; ours without the package's name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield shortened(alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative imports hide where they lead"
            for alias in node.names:
                whole = shortened(f"{node.module}.{alias.name}")
                yield whole if whole in FILES else shortened(str(node.module))


def shortened(module: str) -> str:
    return module if module == PACKAGE else module.removeprefix(f"{PACKAGE}.")


TREES = {name: ast.parse(path.read_text("utf-8"), str(path)) for name, path in FILES.items()}
IMPORTS = {name: set(imports(tree, name)) for name, tree in TREES.items()}


def within(module: str, *names: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def ours(module: str) -> bool:
    return module in FILES and module != ""


def breaches(rule: Rule, found: dict[str, set[str]]) -> list[str]:
    """A line for each import that the rule forbids."""
    lines = []
    for name, imported in found.items():
        if within(name, rule.who):
            for other in sorted(imported):
                stranger = rule.only is not None and ours(other) and not within(other, *rule.only)
                if stranger or within(other, *rule.never):
                    lines.append(f"{name} imports {other}")
    return lines


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.who)
def test_floors(rule: Rule) -> None:
    """Arrows point down only."""
    assert rule.who == "builder" or any(within(name, rule.who) for name in FILES)
    assert breaches(rule, IMPORTS) == []


@pytest.mark.parametrize("package", ONLY_IN)
def test_foreign_packages(package: str) -> None:
    """Each foreign package is known to one place only, and nothing but the builder knows TensorFlow."""
    assert [
        n for n, found in IMPORTS.items() if any(within(f, package) for f in found) and not within(n, *ONLY_IN[package])
    ] == []


@pytest.mark.parametrize("runtime", ["tflite_runtime", "ai_edge_litert"])
def test_runtimes_are_named_once(runtime: str) -> None:
    """Not even as text does another module of the device name a TensorFlow Lite runtime."""
    naming = [
        name for name, path in FILES.items() if runtime in path.read_text("utf-8") and not within(name, "builder")
    ]
    assert naming == ["model.interpreter"]


@pytest.mark.parametrize("deed", ONLY_THERE)
def test_deeds(deed: str) -> None:
    """What touches the kernel or the file's pixels in a way of its own is done in one place."""
    doing = [name for name, path in FILES.items() if re.search(deed, path.read_text("utf-8"))]
    assert [name for name in doing if not within(name, *ONLY_THERE[deed])] == []


def test_no_camera_in_particular() -> None:
    """Whatever runs the daemon knows no camera in particular: the table leads there."""
    assert [
        f"{name} imports {other}"
        for name, found in IMPORTS.items()
        for other in sorted(found)
        if within(other, "camera") and other not in ANY_CAMERA and not within(name, "camera", "tools", "builder")
    ] == []


def test_files_know_no_worker() -> None:
    """Among the cameras, only what is live leads to the worker process; the feed comes to it by its name, when it is asked for."""
    live = {f"camera.{name}" for name in LIVE}
    leading = [f"{n} imports {o}" for n, found in IMPORTS.items() if n not in live for o in sorted(found) if o in live]
    assert [line for line in leading if within(line.split()[0], "camera")] == []


def test_nothing_knows_the_builder() -> None:
    """The builder is a wing of its own: nothing on the device leads there."""
    assert [
        n for n, found in IMPORTS.items() if any(within(f, "builder") for f in found) and not within(n, "builder")
    ] == []


def test_no_cycles() -> None:
    """Modules can be put in an order in which each imports only those before it."""
    graph = {name: {other for other in found if ours(other) and other != name} for name, found in IMPORTS.items()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_who_prints() -> None:
    """Only the command line prints; results and logging have their own ways."""
    printing = [
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert set(printing) <= set(PRINTING)
    assert "cli" in printing


def test_who_exits() -> None:
    """Nothing ends the process by itself."""
    exits = [
        name
        for name, path in FILES.items()
        if any(word in path.read_text("utf-8") for word in ("sys.exit(", "os._exit(", "raise SystemExit"))
    ]
    assert [name for name in exits if not within(name, "__main__", "cli", "builder", "camera.worker")] == []


def test_every_module_says_what_it_is_for() -> None:
    """A module opens with a docstring of one to five lines."""
    for name, tree in TREES.items():
        text = ast.get_docstring(tree) if isinstance(tree, ast.Module) else None
        assert text, name
        assert len(text.splitlines()) <= 5, name


@pytest.mark.parametrize(
    ("found", "rule", "lines"),
    [
        ({"camera.video": {"errors", "cv2"}}, "camera", []),
        ({"camera.video": {"model.bundle"}}, "camera", ["camera.video imports model.bundle"]),
        ({"camera.video": {"pipeline"}}, "camera", ["camera.video imports pipeline"]),
        ({"task.classify": {"os.path"}}, "task", ["task.classify imports os.path"]),
        ({"frame": {"camera.base"}}, "frame", ["frame imports camera.base"]),
        ({"service.daemon": {"cli", "pipeline"}}, "service", ["service.daemon imports cli"]),
        ({"service.turns": {"threading"}}, "service.turns", ["service.turns imports threading"]),
        ({"camera.feed": {"camera.live"}}, "camera.feed", ["camera.feed imports camera.live"]),
    ],
)
def test_rules_bite(found: dict[str, set[str]], rule: str, lines: list[str]) -> None:
    """The rules see what they are there to see."""
    assert breaches(next(r for r in RULES if r.who == rule), found) == lines


def test_imports_within_functions_count() -> None:
    """An import that is hidden in a function is an import."""
    tree = ast.parse("def f():\n    from edge_runner.camera import base\n    import edge_runner.cli, os.path\n")
    assert set(imports(tree, "test")) == {"camera.base", "cli", "os.path"}


def loaded(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import edge_runner", ()),
        ("import edge_runner.cli", ()),
        ("import edge_runner.errors, edge_runner.fields, edge_runner.result", ()),
        ("import edge_runner.camera, edge_runner.task, edge_runner.output", ()),
        ("import edge_runner.config", ("yaml",)),
        ("import edge_runner.frame", ("numpy",)),
        ("import edge_runner.pipeline", ("numpy", "yaml", "cv2")),
    ],
)
def test_start_is_light(statement: str, allowed: tuple[str, ...]) -> None:
    """Importing loads no more than it must: a heavy package comes in where it is used, and no sooner."""
    found = loaded(statement)
    assert [package for package in HEAVY if package in found and package not in allowed] == []


def ours_in(modules: set[str]) -> set[str]:
    return {shortened(module) for module in modules if module.startswith(f"{PACKAGE}.")}


def test_a_file_needs_no_live_camera(configure: Any, colours: Path) -> None:
    """A run on files loads nothing of the live cameras: neither their processes nor their devices, nor the network."""
    path = configure(camera={"type": "images", "path": "colours"})
    found = loaded(f"from edge_runner.cli import main\nassert main(['--config', {str(path)!r}]) == 0")
    assert ours_in(found) & {f"camera.{name}" for name in LIVE} == set()
    assert "camera.images" in ours_in(found)
    assert {"http.client", "urllib.request"} & found == set()


def test_a_live_camera_needs_no_other(configure: Any) -> None:
    """A run on one live camera loads that one only, and nothing that reads another."""
    path = configure(camera={"type": "pattern"})
    found = ours_in(
        loaded(f"from edge_runner.cli import main\nassert main(['--config', {str(path)!r}, '--once']) == 0")
    )
    needed = {f"camera.{name}" for name in ("live", "child", "worker", "shared", "pattern")}
    assert found & {f"camera.{name}" for name in LIVE} == needed


def test_worker_is_light() -> None:
    """A camera's own process loads what reads and prepares frames, and neither the model's runtime nor the configuration."""
    found = loaded("import edge_runner.camera.worker, edge_runner.model.preprocess")
    assert {package for package in HEAVY if package in found} == {"cv2", "numpy"}
    allowed = (*NOUNS, "camera", "model.preprocess")
    assert {name for name in ours_in(found) if not within(name, *allowed)} == {"model"}
    assert not {f"camera.{name}" for name in ("v4l2", "stream", "program", "pattern", "live")} & ours_in(found)


def test_help_is_light() -> None:
    """`--help` and a usage error wait for no heavy package."""
    for arguments in (["--help"], []):
        statement = f"""
from edge_runner.cli import main
sys.stdout = sys.stderr
try:
    main({arguments})
except SystemExit:
    pass
sys.stdout = sys.__stdout__
"""
        assert not set(HEAVY) & loaded(statement)


def test_tables_lead_somewhere() -> None:
    """Every row of the tables of cameras, tasks and outputs names a class that has a Config of that type."""
    for package, table in (("camera", "CAMERAS"), ("task", "TASKS"), ("output", "OUTPUTS")):
        rows = getattr(importlib.import_module(f"{PACKAGE}.{package}"), table)
        for name, place in rows.items():
            module, _, cls = place.partition(":")
            config = getattr(importlib.import_module(module), cls).Config
            assert config.__dataclass_fields__["type"].default == name
