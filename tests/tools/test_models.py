"""`edge-runner model`: a bundle becomes the active version by one command, once it is proven; wherever it comes from."""

from __future__ import annotations

import errno
import fcntl
import functools
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace

import numpy as np
import pytest
from bundles import make_bundle

from edge_runner.builder.stage import packed_bundle
from edge_runner.errors import EXIT_CONFIG, EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EdgeRunnerError, ModelError, StoreError
from edge_runner.model.bundle import GOLDENS, LABELS, MANIFEST, MODEL, sha256_of
from edge_runner.model.goldens import Goldens
from edge_runner.model.interpreter import find_runtime
from edge_runner.model.keeper import keeping
from edge_runner.model.store import Store
from edge_runner.service import instances
from edge_runner.service.instances import HEALTH_FILE
from edge_runner.tools import models

Cli = Callable[..., CompletedProcess[str]]
ERROR = "edge-runner: error: "


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store, which commands use as well."""
    monkeypatch.setenv("EDGE_RUNNER_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(instances, "RUN", tmp_path / "run")
    return Store()


@pytest.fixture
def bundle(tmp_path: Path, data: Path) -> Callable[..., Path]:
    """Make a version of the colour model, which differs from others in its labels."""

    def make(version: str = "v1", folder: str = "", **says: object) -> Path:
        labels = f"red\ngreen\n{version}\n"
        options = {"name": "colour", "version": version, "labels": labels, **says}
        return make_bundle(tmp_path / "built" / (folder or version), data / "colour.tflite", **options)

    return make


def install(source: object, **options: object) -> list[str]:
    return list(models.install(str(source), **options))


def refusal(deed: Callable[[], object], kind: type[EdgeRunnerError] = ModelError) -> str:
    """The one line with which it is refused."""
    with pytest.raises(kind) as caught:
        deed()
    assert caught.value.exit_code == (EXIT_CONFIG if kind is ModelError else EXIT_FAILED)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def state(store: Store) -> dict[str, str | None]:
    """Every version there is, and what it is."""
    return {f"{each.name}@{each.version}": each.state for each in models.survey(store)}


def says(tmp_path: Path, **accounts: object) -> None:
    """What instances of the service say of themselves."""
    for instance, account in accounts.items():
        (tmp_path / "run" / instance).mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / instance / HEALTH_FILE).write_text(json.dumps(account))


def tree(store: Store) -> set[str]:
    return {str(path.relative_to(store.folder)) for path in store.folder.rglob("*")}


def failed(done: CompletedProcess[str], code: int) -> str:
    """The last line of a command that failed as it should, without its beginning."""
    assert done.returncode == code, done
    *_, last = done.stderr.splitlines()
    assert last.startswith(ERROR)
    assert "Traceback" not in done.stderr
    return last.removeprefix(ERROR)


# --- where bundles come from ------------------------------------------------------------------------------------------


def test_a_folder(store: Store, bundle: Callable[..., Path]) -> None:
    """A bundle's folder becomes the active version; what is said is what was done; the store has only what the board reads."""
    made = bundle()
    (made / "report.md").write_text("# for people\n")
    place = store.folder / "colour/v1"
    proven, installed, active = install(made)
    assert proven.startswith(
        f"colour v1: loads under {find_runtime()}; the goldens hold: prepared within 0 grey levels"
    )
    assert [installed, active] == [f"colour v1: installed in {place}", "colour v1: active now"]
    assert store.active("colour") == place
    assert {path.name for path in place.iterdir()} == {MANIFEST, MODEL, LABELS, GOLDENS}
    assert all((place / name).read_bytes() == (made / name).read_bytes() for name in (MANIFEST, MODEL, LABELS, GOLDENS))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a server that has the test's files."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,)).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("way", ["file", "standard input", "address", "sum in the address", "sum beside"])
def test_an_archive(
    way: str, store: Store, bundle: Callable[..., Path], run_cli: Cli, served: str, tmp_path: Path
) -> None:
    """What the builder packs is installed from a file, from standard input, and from an address, with and without its sum."""
    content = packed_bundle(bundle(), "colour-v1")
    (tmp_path / "colour-v1.tar.gz").write_bytes(content)
    total = sha256_of(content)
    address = f"{served}/colour-v1.tar.gz"
    given = {
        "file": ["colour-v1.tar.gz"], "standard input": ["-"], "address": [address],
        "sum in the address": [f"{address}#sha256={total}"], "sum beside": [address, "--sha256", total],
    }[way]  # fmt: skip
    with (tmp_path / "colour-v1.tar.gz").open("rb") as file:
        done = run_cli("model", "install", *given, stdin=file)
    assert (done.returncode, done.stderr) == (EXIT_DONE, "")
    assert done.stdout.splitlines()[-1] == "colour v1: active now"
    assert state(store) == {"colour@v1": "active"}


def test_another_archive_than_was_said(store: Store, bundle: Callable[..., Path], run_cli: Cli, tmp_path: Path) -> None:
    """An archive with another sum is not installed; no sum at all is a usage error."""
    (tmp_path / "x.tar.gz").write_bytes(packed_bundle(bundle(), "colour-v1"))
    done = run_cli("model", "install", "x.tar.gz", "--sha256", "0" * 64)
    assert failed(done, EXIT_CONFIG).startswith("x.tar.gz has the SHA-256 ")
    for given in (["x.tar.gz", "--sha256", "0"], ["http://localhost/x.tar.gz#sha256=0"]):
        assert "'0' is no SHA-256: 64 hexadecimal digits" in failed(run_cli("model", "install", *given), EXIT_USAGE)
    assert "is a folder; a SHA-256 is an archive's" in refusal(lambda: install(bundle("v2"), sha256="0" * 64))
    assert state(store) == {}


def test_what_cannot_be_had(run_cli: Cli, served: str, store: Store) -> None:
    """What is not there is told with its name: a wrong path is 78, a server that does not give it is 1."""
    assert failed(run_cli("model", "install", "gone.tar.gz"), EXIT_CONFIG) == "gone.tar.gz: no such file or directory"
    told = failed(run_cli("model", "install", f"{served}/gone.tar.gz"), EXIT_FAILED)
    assert told == f"{served}/gone.tar.gz: the server says 404 File not found"
    assert tree(store) == {".lock"}


def test_bare_files(data: Path, tmp_path: Path) -> None:
    """A bare .tflite file is refused, with both ways that there are; a SavedModel with what makes a bundle of it."""
    told = refusal(lambda: install(data / "colour.tflite"))
    assert told.startswith(f"{data / 'colour.tflite'} is a bare .tflite file, for whose answers nothing vouches")
    assert "install the bundle that scripts/build_model.sh makes" in told
    assert "model: {path: …}" in told
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/saved_model.pb").touch()
    assert "it is a SavedModel: scripts/build_model.sh makes a bundle of it" in refusal(
        lambda: install(tmp_path / "saved")
    )


def test_the_store_is_free_while_an_archive_is_awaited(
    store: Store, bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe in which nothing comes holds up nobody: one may go back meanwhile, and what then comes is installed."""
    install(bundle("v1"))
    install(bundle("v2"))
    archive = io.BytesIO(packed_bundle(bundle("v3"), "colour-v3"))

    class Pipe:
        def read(self, size: int) -> bytes:
            with keeping(store, timeout_s=0) as keeper:
                keeper.switch("colour", "v1")
            return archive.read(size)

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Pipe()))
    assert "active now, before it v1" in install("-")[-1]
    assert state(store) == {"colour@v1": "previous", "colour@v2": None, "colour@v3": "active"}


# What an owner sees of an environment in which only root may read: what was loaded until then, and no module more.
AS_OWNER = """
import os, sys
from edge_runner.cli import main
from edge_runner.tools import models
class Closed:
    def find_spec(self, name, path=None, target=None):
        if os.geteuid():
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Closed())
models.ask_for_proof = lambda folder: {"error": None, "runtime": "none", "goldens": "so they say"}
sys.exit(main(["model", "install", sys.argv[1]]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_from_where_only_root_may_read(
    bundle: Callable[..., Path], served: str, open_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the rights of the store's owner, root installs also by a Python that this owner could not load anything of."""
    (tmp_path / "colour-v1.tar.gz").write_bytes(packed_bundle(bundle(), "colour-v1"))
    (open_folder / "models").mkdir()
    os.chown(open_folder / "models", 12345, 23456)
    monkeypatch.setenv("EDGE_RUNNER_STATE", str(open_folder))
    address = f"{served.replace('127.0.0.1', 'localhost')}/colour-v1.tar.gz"
    done = subprocess.run([sys.executable, "-c", AS_OWNER, address], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (EXIT_DONE, "")
    assert state(Store()) == {"colour@v1": "active"}


# --- what is not installed --------------------------------------------------------------------------------------------


@pytest.fixture
def running(store: Store, bundle: Callable[..., Path]) -> Iterator[Store]:
    """A store with an active version, which nothing that the test does changes."""
    install(bundle("v0"))
    before = tree(store)
    yield store
    assert tree(store) == before
    assert state(store) == {"colour@v0": "active"}


@pytest.mark.parametrize("name", [MANIFEST, MODEL, LABELS, GOLDENS])
def test_damage(running: Store, bundle: Callable[..., Path], name: str, tmp_path: Path) -> None:
    """A damaged file is named, as a file of what was given, and nothing is installed."""
    made = bundle()
    content = bytearray((made / name).read_bytes())
    content[len(content) // 2] ^= 1
    (made / name).write_bytes(content)
    assert f"{made / name}" in refusal(lambda: install(made))
    (tmp_path / "x.tar.gz").write_bytes(packed_bundle(made, "colour"))
    assert f"x.tar.gz/{name}" in refusal(lambda: install(tmp_path / "x.tar.gz"))


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ({"name": "../../up"}, "its name is '../../up'; allowed: letters, digits"),
        ({"name": "a b"}, "its name is 'a b'"),
        ({"version": "current"}, "its version is 'current'"),
        ({"version": "previous"}, "its version is 'previous'"),
        ({"version": ".x"}, "its version is '.x'"),
        ({"version": ""}, "its version is ''"),
        ({"files": {"/etc/passwd": "0" * 64}}, "lists '/etc/passwd'; a bundle has manifest.json, model.tflite"),
        ({"files": {"../x": "0" * 64}}, "lists '../x'"),
        ({"format": 99}, "has format 99; this edge-runner reads up to 1: upgrade it"),
        ({"task": {"type": "dream"}}, "is for the task 'dream'; this edge-runner knows"),
    ],
)
def test_manifests(running: Store, bundle: Callable[..., Path], says: dict, told: str) -> None:
    """A manifest with a name that is no part of a path, or of something that this board does not know, is refused."""
    made = bundle(folder="made", **says)
    found = refusal(lambda: install(made))
    assert told in found
    assert ".new-" not in found


def lying(goldens: Goldens) -> Goldens:
    """Goldens of another model."""
    goldens.items[0].outputs[0][:] = np.roll(goldens.items[0].outputs[0], 1)
    return goldens


def test_goldens_that_do_not_hold(running: Store, bundle: Callable[..., Path]) -> None:
    """A bundle that answers otherwise on this board is not installed, and it is said by how much."""
    made = bundle(goldens=lying)
    told = refusal(lambda: install(made))
    assert told.startswith(f"{made}: golden picture 1 of 3: output ")
    assert "off the host's; allowed 0.001" in told


def test_unlisted(store: Store, bundle: Callable[..., Path]) -> None:
    """A file that the manifest does not vouch for stays outside."""
    made = bundle(labels=None)
    (made / LABELS).write_text("a\nb\nc\n")
    install(made)
    assert {path.name for path in store.active("colour").iterdir()} == {MANIFEST, MODEL, GOLDENS}


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "is damaged: the interpreter dies of it (SIGSEGV)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "(SIGKILL): this board's memory is too small"),
        ("import time; time.sleep(60)", "did not load and run once within 0.5 s"),
        ("raise ValueError('odd')", "could not be tried out: ValueError: odd"),
    ],
)
def test_a_trial_that_dies(
    running: Store, bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, code: str, says: str
) -> None:
    """A crash, a hang or too little memory in the trial ends the trial only, and is told as what it is."""
    made = bundle()
    monkeypatch.setattr(models, "CHILD", code)
    if "sleep" in code:
        monkeypatch.setattr(models, "PROOF_TIMEOUT_S", 0.5)
    told = refusal(lambda: install(made))
    assert told.startswith("colour v1 ")
    assert says in told


def test_memory(running: Store, bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial for which there is no memory says so."""
    code = models.CHILD.replace("print(", "models.open_model = lambda _: bytearray(2**62); print(")
    monkeypatch.setattr(models, "CHILD", code)
    made = bundle()
    assert refusal(lambda: install(made)) == f"{made} wants more memory than this board has"


def test_the_trial_goes_first() -> None:
    """Where memory runs out, the system is told to end the trial and not the daemon."""
    code = (
        "from edge_runner.model.probe import first_to_go; first_to_go(); print(open('/proc/self/oom_score_adj').read())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1000"


def test_another_bundle_of_the_same_version(running: Store, bundle: Callable[..., Path]) -> None:
    """The same version with other content is refused: what to do is said."""
    made = bundle("v0", folder="other", labels="x\ny\nz\n")
    assert refusal(lambda: install(made)) == (
        "colour v0 is installed with other content (another recipe, labels or goldens); build it with a version of its own"
        " (--model-version), or remove that one first: edge-runner model remove colour@v0"
    )


def test_a_full_disk(
    bundle: Callable[..., Path], mount_tmpfs: Callable[[str], Path], run_cli: Cli, tmp_path: Path
) -> None:
    """A disk without room is found before anything is written: 1, and what makes room."""
    made, disk = bundle(), mount_tmpfs("8m")
    done = run_cli("model", "install", made, env={**os.environ, "EDGE_RUNNER_STATE": str(disk)})
    assert "has room for 0.0 MB more, and 0.0 MB are needed; `edge-runner model list` shows" in failed(
        done, EXIT_FAILED
    )
    assert {path.name for path in (disk / "models").iterdir()} == {".lock"}


# --- versions ---------------------------------------------------------------------------------------------------------


def test_there_and_back(store: Store, bundle: Callable[..., Path], run_cli: Cli) -> None:
    """A second version follows the first, which stays; rollback goes back, and once more forth; activate goes to any."""
    for version in ("v1", "v2", "v3"):
        assert run_cli("model", "install", bundle(version)).returncode == EXIT_DONE
    assert state(store) == {"colour@v1": None, "colour@v2": "previous", "colour@v3": "active"}
    done = run_cli("model", "rollback", "colour")
    assert done.returncode == EXIT_DONE, done.stderr
    proven, switched = done.stdout.splitlines()
    assert "the goldens hold" in proven
    assert switched == ("colour v2: active now, before it v3 (edge-runner model rollback colour goes back to it)")
    assert state(store) == {"colour@v1": None, "colour@v2": "active", "colour@v3": "previous"}
    assert run_cli("model", "rollback", "colour").returncode == EXIT_DONE
    assert state(store) == {"colour@v1": None, "colour@v2": "previous", "colour@v3": "active"}
    assert run_cli("model", "activate", "colour@v1").returncode == EXIT_DONE
    assert state(store) == {"colour@v1": "active", "colour@v2": None, "colour@v3": "previous"}


def test_once_more(store: Store, bundle: Callable[..., Path]) -> None:
    """What is installed and active already stays as it is, also when it was built again; one that is not active becomes it."""
    made = bundle("v1")
    install(made)
    again = bundle("v1", folder="again", created="2027-01-01T00:00:00Z")
    before = {path: path.stat().st_ino for path in store.folder.rglob("*")}
    place = store.folder / "colour/v1"
    assert install(again) == [f"colour v1: is installed already, in {place}", "colour v1: is active already"]
    assert {path: path.stat().st_ino for path in store.folder.rglob("*")} == before
    install(bundle("v2"))
    proven, there, active = install(made)
    assert "the goldens hold" in proven
    assert there == f"colour v1: is installed already, in {place}"
    assert active.startswith("colour v1: active now, before it v2")


def test_not_activated(store: Store, bundle: Callable[..., Path], run_cli: Cli) -> None:
    """With --no-activate a version is proven and installed, and the active one stays."""
    install(bundle("v1"))
    done = run_cli("model", "install", "--no-activate", bundle("v2"))
    assert (done.returncode, "active" in done.stdout) == (EXIT_DONE, False)
    assert state(store) == {"colour@v1": "active", "colour@v2": None}


def test_repair(store: Store, bundle: Callable[..., Path]) -> None:
    """A version that was damaged where it is installed is told by activate, shown by list, and mended by installing it again."""
    install(bundle("v1"))
    install(bundle("v2"))
    (store.folder / "colour/v1" / LABELS).write_text("a\nb\nc\n")
    told = refusal(lambda: list(models.activate("colour", "v1")))
    assert told.startswith(f"{store.folder / 'colour/v1' / LABELS} was changed or damaged after it was built")
    assert refusal(lambda: list(models.rollback("colour"))) == told
    assert state(store) == {"colour@v1": "previous", "colour@v2": "active"}
    install(store.folder.parents[1] / "built/v1")
    assert state(store) == {"colour@v1": "active", "colour@v2": "previous"}
    assert not any(each.damages for each in models.survey())


def test_proven_again(store: Store, bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not come up on this board any more is not activated, neither by name nor by going back."""
    install(bundle("v1"))
    install(bundle("v2"))
    monkeypatch.setattr(models, "CHILD", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    for deed in (lambda: list(models.activate("colour", "v1")), lambda: list(models.rollback("colour"))):
        assert "the interpreter dies of it (SIGSEGV)" in refusal(deed)
    assert state(store) == {"colour@v1": "previous", "colour@v2": "active"}


def test_a_proof_that_failed(bundle: Callable[..., Path]) -> None:
    """A bundle that its builder was made to build against what was found says so when it is installed."""
    lines = install(bundle(proof={"verdict": "failed", "objections": ["too much changed"]}))
    assert lines[1] == "colour v1: warning: its proof failed when it was built; its report says why"


def test_nothing_to_go_back_to(store: Store, bundle: Callable[..., Path]) -> None:
    """Rollback without a version before this one, or of nothing, says what there is."""
    assert refusal(lambda: list(models.rollback("colour")), StoreError) == (
        f"there is no version of 'colour' to go back to; installed in {store.folder}: nothing"
    )
    install(bundle("v1"))
    assert refusal(lambda: list(models.rollback("colour")), StoreError) == (
        "there is no version of 'colour' to go back to; installed of it: v1"
    )
    assert refusal(lambda: list(models.rollback("color")), StoreError).endswith(f"installed in {store.folder}: colour")


def test_remove(store: Store, bundle: Callable[..., Path], run_cli: Cli) -> None:
    """A version that is not active can go; the active one not, and how it could is said."""
    for version in ("v1", "v2", "v3"):
        install(bundle(version))
    done = run_cli("model", "remove", "colour@v2")
    assert (done.returncode, done.stdout) == (EXIT_DONE, f"colour v2: removed from {store.folder}\n")
    assert state(store) == {"colour@v1": None, "colour@v3": "active"}
    told = failed(run_cli("model", "remove", "colour@v3"), EXIT_FAILED)
    assert told == "colour v3 is the active version; activate another one first: edge-runner model activate colour@v1"
    list(models.remove("colour", "v1"))
    told = refusal(lambda: list(models.remove("colour", "v3")), StoreError)
    assert told.endswith(f"or, where no configuration names it any more, delete {store.folder / 'colour'}")
    assert state(store) == {"colour@v3": "active"}


def test_remove_what_runs(store: Store, bundle: Callable[..., Path], run_cli: Cli, tmp_path: Path) -> None:
    """A version that a daemon runs, in place of the active one, stays until another runs there."""
    for version in ("v1", "v2", "v3"):
        install(bundle(version))
    says(
        tmp_path,
        door={"model": {"name": "colour", "version": "v1"}},
        yard={"model": {"name": "colour", "version": "v3"}},
    )
    assert refusal(lambda: list(models.remove("colour", "v1")), StoreError) == (
        "colour v1 runs in door just now; it can go once another version runs there: edge-runner doctor says what keeps"
        " the active one from it"
    )
    list(models.remove("colour", "v2"))
    says(tmp_path, door={"model": {"name": "colour", "version": "v3"}})
    list(models.remove("colour", "v1"))
    assert state(store) == {"colour@v3": "active"}


def test_remove_the_way_back(store: Store, bundle: Callable[..., Path], run_cli: Cli) -> None:
    """The previous version stays where the active one is damaged: the next start takes it. Any other may go."""
    for version in ("v1", "v2", "v3"):
        install(bundle(version))
    labels = store.folder / "colour/v3" / LABELS
    labels.write_text("a\nb\nc\n")
    told = failed(run_cli("model", "remove", "colour@v2"), EXIT_FAILED)
    assert told.startswith(
        f"colour v2 is what the next start takes, for the active version is damaged: {labels} was changed"
    )
    assert told.endswith("; install that one again first, or: edge-runner model rollback colour")
    list(models.remove("colour", "v1"))
    list(models.rollback("colour"))
    list(models.remove("colour", "v3"))
    assert state(store) == {"colour@v2": "active"}


@pytest.mark.parametrize("verb", ["activate", "remove"])
def test_what_is_not_installed(verb: str, store: Store, bundle: Callable[..., Path], run_cli: Cli) -> None:
    """A version that is not there is 78, with those that are; what is no version at all is a usage error. Nothing is made."""
    told = failed(run_cli("model", verb, "colour@v9"), EXIT_CONFIG)
    assert told == f"colour v9 is not installed; installed in {store.folder}: nothing"
    assert not store.folder.parent.exists()
    install(bundle("v1"))
    told = failed(run_cli("model", verb, "colour@v9"), EXIT_CONFIG)
    assert told == "colour v9 is not installed; installed of it: v1"
    assert failed(run_cli("model", verb, "colour@../colour/v1"), EXIT_CONFIG).startswith(
        "colour ../colour/v1 is not installed"
    )
    assert "'colour' is no NAME@VERSION, such as digits@3f2a9c1d" in failed(
        run_cli("model", verb, "colour"), EXIT_USAGE
    )


# --- what there is ----------------------------------------------------------------------------------------------------


def test_list(store: Store, bundle: Callable[..., Path], run_cli: Cli) -> None:
    """The table has a line a version: which is active, which is damaged, its task, size and days; below it, the damage."""
    for version in ("v1", "v2"):
        install(bundle(version))
    install(bundle("3f2a9c1d", name="other-colours"))
    labels = store.folder / "colour/v1" / LABELS
    labels.write_text("a\nb\nc\n")
    done = run_cli("model", "list")
    header, first, second, third, damage = done.stdout.splitlines()
    assert header.split() == ["NAME", "VERSION", "STATE", "TASK", "SIZE", "BUILT", "INSTALLED", "RUNS", "IN"]
    day = time.strftime("%Y-%m-%d", time.gmtime((store.folder / "colour/v2").stat().st_mtime))
    assert first.split() == ["colour", "v1", "previous,", "DAMAGED", "classify", "0.01", "MB", "2026-11-22", day, "-"]
    assert second.split() == ["colour", "v2", "active", "classify", "0.01", "MB", "2026-11-22", day, "-"]
    assert third.split()[:3] == ["other-colours", "3f2a9c1d", "active"]
    assert damage.startswith(f"{labels} was changed or damaged")
    assert (done.returncode, done.stderr) == (EXIT_DONE, "")


def test_list_json(store: Store, bundle: Callable[..., Path], run_cli: Cli) -> None:
    """As JSON, each version is an object."""
    install(bundle("v1"))
    (found,) = json.loads(run_cli("model", "list", "--json").stdout)
    place = store.folder / "colour/v1"
    size = sum(path.stat().st_size for path in place.iterdir())
    assert time.strptime(found.pop("installed"), "%Y-%m-%dT%H:%M:%SZ")
    assert found == {
        "name": "colour", "version": "v1", "state": "active", "task": "classify", "size_bytes": size,
        "built": "2026-11-22T13:28:00Z", "path": str(place), "runs_in": [], "damages": [],
    }  # fmt: skip


def test_list_of_nothing(store: Store, run_cli: Cli) -> None:
    """An empty store, or none, says what fills it."""
    done = run_cli("model", "list")
    assert (
        done.stdout
        == f"no model is installed in {store.folder}; `edge-runner model install FOLDER` installs a bundle\n"
    )
    assert run_cli("model", "list", "--json").stdout == "[]\n"


def test_who_runs_it(store: Store, bundle: Callable[..., Path], tmp_path: Path) -> None:
    """Which instances of the service run a version is what they say of themselves; one that says nothing sensible runs none."""
    install(bundle("v1"))
    install(bundle("v2"))
    runs = {"model": {"name": "colour", "version": "v1"}}
    says(
        tmp_path,
        yard=runs,
        door=runs,
        hall={"model": {"name": "other", "version": "v2"}},
        bath={"model": None},
        roof=[],
    )
    first, second = models.survey(store)
    assert (first.runs_in, second.runs_in) == (("door", "yard"), ())
    assert list(models.listing([first]))[1].endswith("  door, yard")


@pytest.mark.parametrize("place", ["", MANIFEST, MODEL])
def test_list_of_what_cannot_be_read(
    place: str, store: Store, bundle: Callable[..., Path], lock: Callable[..., tuple[str, ...]], run_cli: Cli
) -> None:
    """A version that may not be read is damaged in so many words, and hides no other."""
    for version in ("v1", "v2"):
        install(bundle(version))
    prefix = lock(store.folder / "colour/v2" / place, 0o000)
    done = run_cli("model", "list", prefix=prefix)
    assert (done.returncode, done.stderr) == (EXIT_DONE, "")
    _, first, second, damage = done.stdout.splitlines()
    assert first.split()[:4] == ["colour", "v1", "previous", "classify"]
    assert second.split()[:4] == ["colour", "v2", "active,", "DAMAGED"]
    assert damage == f"{store.folder / 'colour/v2' / (place or MANIFEST)}: permission denied"
    told = failed(run_cli("model", "activate", "colour@v2", prefix=prefix), EXIT_CONFIG)
    assert told == damage


def test_list_of_what_goes(store: Store, bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that is removed while the list is made is left out, and the others are there."""
    install(bundle("v1"))
    install(bundle("v2"))
    real = models.read_manifest

    def gone(place: Path) -> object:
        if place.name == "v1" and place.exists():
            list(models.remove("colour", "v1"))
        return real(place)

    monkeypatch.setattr(models, "read_manifest", gone)
    assert state(store) == {"colour@v2": "active"}


def test_list_without_a_date(store: Store, bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a card that fails, what is not known is not said, and the list is made all the same."""
    install(bundle("v1"))
    place, real = store.folder / "colour/v1", Path.stat

    def fails(path: Path, **options: bool) -> os.stat_result:
        if path == place:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path, **options)

    monkeypatch.setattr(Path, "stat", fails)
    (found,) = models.survey()
    assert found.installed is None
    assert list(models.listing([found]))[1].split()[-2:] == ["?", "-"]


def test_list_of_a_lost_manifest(store: Store, bundle: Callable[..., Path]) -> None:
    """A version without its manifest is shown as damaged all the same."""
    install(bundle("v1"))
    (store.folder / "colour/v1" / MANIFEST).unlink()
    (found,) = models.survey()
    assert (found.task, found.built) == (None, None)
    assert found.damages[0].startswith(f"{store.folder / 'colour/v1' / MANIFEST}: no such file")
    assert list(models.listing([found]))[1].split()[:5] == ["colour", "v1", "active,", "DAMAGED", "?"]


# --- as a command -----------------------------------------------------------------------------------------------------


def test_a_configuration_by_name(
    store: Store, bundle: Callable[..., Path], configure: Callable[..., Path], colours: Path, run_cli: Cli
) -> None:
    """A configuration runs the active version by the model's name; after a switch, the next start runs the other one."""
    config = configure(camera={"type": "images", "path": str(colours)}, model={"name": "colour"}, preprocess=None)
    told = failed(run_cli("--config", config, "--once"), EXIT_CONFIG)
    assert f"model.name: no model 'colour' is installed in {store.folder}; there is none: install a bundle" in told
    for version in ("v1", "v2"):
        install(bundle(version))
        done = run_cli("--config", config)
        assert done.returncode == EXIT_DONE, done.stderr
        assert {json.loads(line)["model"]["version"] for line in done.stdout.splitlines()} == {version}


def test_one_at_a_time(
    store: Store, bundle: Callable[..., Path], start_cli: Callable[..., subprocess.Popen[str]]
) -> None:
    """A second command waits for the first, says so, and then does what it is to do."""
    made = bundle()
    store.folder.mkdir(parents=True)
    with (store.folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        child = start_cli("model", "install", made)
        assert "another `edge-runner model` is changing" in child.stderr.readline()
        assert state(store) == {}
    assert child.wait(60) == EXIT_DONE
    assert state(store) == {"colour@v1": "active"}


def test_nobody_reads(store: Store, bundle: Callable[..., Path]) -> None:
    """An installation does not end half way because nobody reads what it says."""
    command = f"{sys.executable} -m edge_runner model install {bundle()} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (EXIT_DONE, "")
    assert state(store) == {"colour@v1": "active"}


def test_no_rights(
    store: Store, bundle: Callable[..., Path], lock: Callable[..., tuple[str, ...]], run_cli: Cli
) -> None:
    """Whoever may not write the store is told how they may: 1."""
    install(bundle("v1"))
    made = bundle("v2")
    prefix = lock(store.folder, 0o555)
    told = failed(run_cli("model", "install", made, prefix=prefix), EXIT_FAILED)
    assert told.startswith(f"{store.folder}: permission denied; do it with sudo")


MEMBER = ("setpriv", "--reuid=11111", "--regid=11111", "--groups=23456")
STRANGER = ("setpriv", "--reuid=11112", "--regid=11112", "--clear-groups")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can get to."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def as_somebody(open_folder: Path) -> Callable[..., CompletedProcess[str]]:
    """Run `edge-runner model` as whom setpriv makes, with a umask that hides everything."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("only root can be somebody else")
    paths = [path for path in sys.path if path.endswith("site-packages")] + [str(Path(models.__file__).parents[2])]
    environment = {**os.environ, "EDGE_RUNNER_STATE": str(open_folder), "PYTHONPATH": os.pathsep.join(paths)}
    options = {"env": environment, "cwd": open_folder, "capture_output": True, "text": True, "timeout": 60}
    pythons = (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
    for python in filter(os.path.exists, pythons):  # the first one that others than root may run
        if not subprocess.run([*MEMBER, "sh", "-c", f"{python} -m edge_runner inspect --help"], **options).returncode:
            command = [python, "-m", "edge_runner", "model"]
            return lambda who, *given: subprocess.run([*who, *command, *map(str, given)], **options, umask=0o077)
    pytest.skip("nobody but root can run this Python")


def test_without_root(
    bundle: Callable[..., Path], open_folder: Path, as_somebody: Callable[..., CompletedProcess[str]]
) -> None:
    """A member of the store's group installs, goes back and removes without root, beside what root does; others only read."""
    folder = open_folder / "models"
    folder.mkdir()
    os.chown(folder, 12345, 23456)
    folder.chmod(0o2775)
    for version in ("v1", "v2", "v3"):
        shutil.copytree(bundle(version), open_folder / version)
    for who, *given in [
        ((), "install", "v1"), (MEMBER, "install", "v2"), (MEMBER, "rollback", "colour"),
        ((), "install", "v3"), (MEMBER, "remove", "colour@v2"), (MEMBER, "rollback", "colour"),
    ]:  # fmt: skip
        done = as_somebody(who, *given)
        assert done.returncode == EXIT_DONE, (given, done.stderr)
    assert state(Store(folder)) == {"colour@v1": "active", "colour@v3": "previous"}
    shown = as_somebody(STRANGER, "list", "--json")
    assert [each["damages"] for each in json.loads(shown.stdout)] == [[], []]
    told = failed(as_somebody(STRANGER, "install", "v2"), EXIT_FAILED)
    assert told.startswith(f"{folder}: permission denied; do it with sudo")


def test_help(run_cli: Cli) -> None:
    """The help names every command, and where models are."""
    told = run_cli("model", "--help").stdout
    assert all(f"    {verb}" in told for verb in ("install", "list", "activate", "rollback", "remove"))
    assert "/var/lib/edge-runner/models" in told
    assert failed(run_cli("model"), EXIT_USAGE).startswith("the following arguments are required: COMMAND")
