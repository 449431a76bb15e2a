"""`edge-runner model`: installs bundles, chooses which version of each is active, and shows what there is.

What becomes active was proven before, in a child process: it loads on this board, and its goldens hold.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge_runner.engine import replay_goldens
from edge_runner.errors import EdgeRunnerError, ModelError, StoreError
from edge_runner.model import archive
from edge_runner.model.archive import FILES, Source
from edge_runner.model.bundle import MANIFEST, Manifest, ModelConfig, damages, open_model, read_manifest
from edge_runner.model.fetch import fetched, is_address
from edge_runner.model.interpreter import find_runtime
from edge_runner.model.keeper import Keeper, keeping
from edge_runner.model.probe import ask, first_to_go
from edge_runner.model.store import CURRENT, NAME, NAME_ALLOWED, PREVIOUS, Store
from edge_runner.process import child_code
from edge_runner.service import instances
from edge_runner.service.systemd import STAGE_S

STANDARD_INPUT = "-"
ACTIVE = "active"
PROOF_TIMEOUT_S = STAGE_S  # what is proven in that time comes up at a start as well
CHILD = child_code(__name__, "print(models.proof())")
COLUMNS = ("NAME", "VERSION", "STATE", "TASK", "SIZE", "BUILT", "INSTALLED", "RUNS IN")


def install(source: str, sha256: str | None = None, *, activate: bool = True) -> Iterator[str]:
    """Put a bundle into the store and make it the active version; lines on what is done.

    `source` is a bundle's folder, its archive (of this `sha256`), the archive's address, or - for an archive on standard input.
    Raise ModelError where it is no bundle, damaged, or does not do on this board; StoreError where it cannot be had or stored.
    """
    store = Store()
    with keeping(store) as keeper, keeper.stage() as staged:
        with _called(source, staged):
            with keeper.meanwhile():
                manifest = _fill(keeper, staged, source, sha256)
            place = store.folder / manifest.name / manifest.version
            there = _is_there(place, manifest)
            fresh = there and (not activate or store.active(manifest.name) == place)
            said = [] if fresh else _prove(place if there else staged, manifest)
        yield from said
        if there:
            yield f"{_title(manifest)}: is installed already, in {place}"
        else:
            keeper.put(staged, manifest.name, manifest.version)
            yield f"{_title(manifest)}: installed in {place}"
        if activate:
            yield _switch(keeper, manifest)


def activate(name: str, version: str) -> Iterator[str]:
    """Make an installed version the active one, once it is proven again."""
    store = Store()
    place = _found(store, name, version)
    with keeping(store) as keeper:
        manifest = _whole(place)
        if store.active(name) != place:
            yield from _prove(place, manifest)
        yield _switch(keeper, manifest)


def rollback(name: str) -> Iterator[str]:
    """Make the version active that was so before; the one that is active now becomes the previous one."""
    store = Store()
    previous = store.previous(name)
    if not previous:
        raise StoreError(f"there is no version of '{name}' to go back to; {_there(store, name)}")
    yield from activate(name, previous.name)


def remove(name: str, version: str) -> Iterator[str]:
    """Delete a version that nobody needs: it is not active, and runs in no place of that one either."""
    store = Store()
    place = _found(store, name, version)
    with keeping(store) as keeper:
        _found(store, name, version)  # still, after whoever had the store before
        if needed := _needed(store, place):
            raise StoreError(f"{name} {version} {needed}")
        keeper.remove(name, version)
        yield f"{name} {version}: removed from {store.folder}"


@dataclass(frozen=True)
class Installed:
    """A version in the store. `state` is active, previous or None; `damages` has a line for each file that is not as it was.

    `runs_in` are the instances of the service that run it just now, by their own account. Of one that cannot be read, `size_bytes`
    is 0, and what is not known is None.
    """

    name: str
    version: str
    state: str | None
    task: str | None
    size_bytes: int
    built: str | None
    installed: str | None
    path: str
    runs_in: tuple[str, ...] = ()
    damages: tuple[str, ...] = ()

    def cells(self) -> tuple[str, ...]:
        state = ", ".join(filter(None, [self.state, "DAMAGED" if self.damages else None])) or "-"
        size = f"{self.size_bytes / 1e6:.2f} MB"
        days = _day(self.built or "?"), _day(self.installed or "?")
        return self.name, self.version, state, self.task or "?", size, *days, ", ".join(self.runs_in) or "-"


def survey(store: Store | None = None) -> list[Installed]:
    """Every installed version, its files compared with their hashes."""
    store, running = store or Store(), _running()
    found = []
    for place in store.versions():
        with suppress(FileNotFoundError):  # it was removed meanwhile
            found.append(_installed(store, place, running))
    return found


def listing(found: list[Installed]) -> Iterator[str]:
    """A table, and below it what is damaged."""
    if not found:
        yield f"no model is installed in {Store().folder}; `edge-runner model install FOLDER` installs a bundle"
        return
    rows = [COLUMNS, *(each.cells() for each in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    for each in found:
        yield from each.damages


def listing_json(found: list[Installed]) -> str:
    """An object for each version, with the names of `Installed`."""
    return json.dumps([asdict(each) for each in found], indent=1, ensure_ascii=False)


def ask_for_proof(folder: Path) -> dict[str, Any]:
    """What a child process says of a bundle: `proof`'s object. Raise ModelError where it dies of it."""
    return ask(CHILD, [str(folder)], timeout_s=PROOF_TIMEOUT_S)


def proof() -> str:
    """The child: what the goldens of the bundle's folder, its argument, say on this board, as JSON."""
    first_to_go()
    answer: dict[str, Any] = {"error": None}
    try:
        model = open_model(ModelConfig(path=Path(sys.argv[1])))
        interpreter = model.load(find_runtime())
        answer |= {"runtime": str(interpreter.runtime), "goldens": replay_goldens(model, interpreter)}
    except EdgeRunnerError as error:
        answer["error"] = str(error)
    except MemoryError:
        answer["error"] = f"{sys.argv[1]} wants more memory than this board has"
    return json.dumps(answer)


def _fill(keeper: Keeper, staged: Path, source: str, sha256: str | None) -> Manifest:
    """Bring the bundle's files into the stage; they are whole, and no more than its manifest lists."""
    if source != STANDARD_INPUT and not is_address(source) and archive.is_folder(Path(source)):
        if sha256:
            raise ModelError(f"{source} is a folder; a SHA-256 is an archive's: leave it out")
        archive.copy(Path(source), staged, keeper.room)
    else:
        with _opened(keeper, source) as opened:
            archive.unpack(opened, staged, keeper.room, sha256)
    manifest = _whole(staged)
    for path in staged.iterdir():
        if path.name not in (*manifest.files, MANIFEST):
            path.unlink()
    return manifest


def _opened(keeper: Keeper, source: str) -> AbstractContextManager[Source]:
    if source == STANDARD_INPUT:
        return nullcontext(Source(sys.stdin.buffer, "standard input"))
    if is_address(source):
        return fetched(source, keeper.room)
    return archive.opened(Path(source))


def _whole(folder: Path) -> Manifest:
    """The manifest of a bundle that is as it was built; raise ModelError otherwise."""
    manifest = read_manifest(folder)
    strange = sorted(set(manifest.files) - set(FILES))
    if strange:
        raise ModelError(f"{folder / MANIFEST} lists {strange[0]!r}; a bundle has {', '.join(FILES)}")
    for what, text in (("name", manifest.name), ("version", manifest.version)):
        if not NAME.fullmatch(text) or text in (CURRENT, PREVIOUS):
            raise ModelError(f"{folder / MANIFEST}: its {what} is {text!r}; allowed: {NAME_ALLOWED}")
    found = damages(folder, manifest)
    if found:
        raise ModelError("; ".join(found))
    return manifest


def _is_there(place: Path, manifest: Manifest) -> bool:
    """Whether this very bundle is installed, and whole; raise ModelError where it is another one of the same version."""
    try:
        installed = _whole(place)
    except ModelError:  # it is not there, or has to be put in its place anew
        return False
    if installed.digest != manifest.digest:
        raise ModelError(
            f"{_title(manifest)} is installed with other content (another recipe, labels or goldens); build it with a version"
            f" of its own (--model-version), or remove that one first: edge-runner model remove {_spelled(place)}"
        )
    return True


def _prove(folder: Path, manifest: Manifest) -> list[str]:
    """Try a bundle out in a child process; raise ModelError where it does not do on this board."""
    try:
        answer = ask_for_proof(folder)
    except ModelError as error:
        raise ModelError(f"{_title(manifest)} {error}") from error
    if answer["error"]:
        raise ModelError(answer["error"])
    said = [f"{_title(manifest)}: loads under {answer['runtime']}; the goldens hold: {answer['goldens']}"]
    if manifest.proof.get("verdict") != "passed":
        said.append(f"{_title(manifest)}: warning: its proof failed when it was built; its report says why")
    return said


def _switch(keeper: Keeper, manifest: Manifest) -> str:
    name, version = manifest.name, manifest.version
    before = keeper.store.active(name)
    keeper.switch(name, version)
    if before and before.name == version:
        return f"{_title(manifest)}: is active already"
    if before:
        return f"{_title(manifest)}: active now, before it {before.name} (edge-runner model rollback {name} goes back to it)"
    return f"{_title(manifest)}: active now"


def _installed(store: Store, place: Path, running: dict[tuple[str, str], list[str]]) -> Installed:
    name, version = place.parent.name, place.name
    states = {store.active(name): ACTIVE, store.previous(name): PREVIOUS}
    manifest, found = None, []
    try:
        manifest = read_manifest(place)
        found = damages(place, manifest)
    except ModelError as error:
        found = [str(error)]
    return Installed(
        name=name,
        version=version,
        state=states.get(place),
        task=str(manifest.task.get("type")) if manifest else None,
        size_bytes=_size(place),
        built=manifest.created if manifest else None,
        installed=_since(place),
        path=str(place),
        runs_in=tuple(running.get((name, version), ())),
        damages=tuple(found),
    )


def _size(place: Path) -> int:
    """In bytes; 0 where it is not known."""
    with suppress(OSError):
        return sum(path.stat().st_size for path in place.iterdir() if path.is_file())
    return 0


def _since(place: Path) -> str | None:
    """When a version was installed; None where that is not known. Raise FileNotFoundError where it is not there any more."""
    try:
        modified = place.stat().st_mtime
    except FileNotFoundError:
        raise
    except OSError:
        return None
    return datetime.fromtimestamp(modified, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _running() -> dict[tuple[str, str], list[str]]:
    """The instances of the service by the model that each runs, name and version."""
    found: dict[tuple[str, str], list[str]] = {}
    for instance, account in instances.accounts(instances.RUN).items():
        if account.model:
            found.setdefault(account.model, []).append(instance)
    return found


def _found(store: Store, name: str, version: str) -> Path:
    place = store.folder / name / version
    if place not in store.versions():
        raise ModelError(f"{name} {version} is not installed; {_there(store, name)}")
    return place


def _there(store: Store, name: str) -> str:
    """What is installed, of this model or at all."""
    places = store.versions()
    own = [place.name for place in places if place.parent.name == name]
    if own:
        return f"installed of it: {', '.join(own)}"
    others = sorted({place.parent.name for place in places})
    return f"installed in {store.folder}: {', '.join(others) or 'nothing'}"


def _needed(store: Store, place: Path) -> str:
    """Why a version is to stay, and what to do about that; empty where it may go."""
    name = place.parent.name
    active = store.active(name)
    if active == place:
        return f"is the active version; {_instead(store, place)}"
    if runs_in := _running().get((name, place.name)):
        return (
            f"runs in {', '.join(runs_in)} just now; it can go once another version runs there: edge-runner doctor says"
            " what keeps the active one from it"
        )
    if active and store.previous(name) == place:
        try:
            _whole(active)
        except ModelError as error:
            return (
                f"is what the next start takes, for the active version is damaged: {error}; install that one again first, or:"
                f" edge-runner model rollback {name}"
            )
    return ""


def _instead(store: Store, place: Path) -> str:
    """How an active version can go."""
    others = [other for other in store.versions() if other.parent == place.parent and other != place]
    if others:
        return f"activate another one first: edge-runner model activate {_spelled(others[-1])}"
    return f"install another one first, or, where no configuration names it any more, delete {place.parent}"


@contextmanager
def _called(source: str, staged: Path) -> Iterator[None]:
    """Name in errors where a bundle comes from, instead of the hidden folder that it has got to."""
    try:
        yield
    except ModelError as error:
        told = "standard input" if source == STANDARD_INPUT else source
        raise ModelError(str(error).replace(str(staged), told)) from error


def _title(manifest: Manifest) -> str:
    return f"{manifest.name} {manifest.version}"


def _spelled(place: Path) -> str:
    return f"{place.parent.name}@{place.name}"


def _day(text: str) -> str:
    return text[:10]
