"""The store is changed by one at a time, in steps of which each may be the last: it stays whole at every one of them."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_runner.errors import EXIT_FAILED, ModelError, StoreError
from edge_runner.model import keeper as module
from edge_runner.model.archive import copy, is_folder, opened
from edge_runner.model.bundle import MANIFEST
from edge_runner.model.keeper import Keeper, keeping
from edge_runner.model.rights import as_owner
from edge_runner.model.store import Store

STEPS = ("mkdir", "rename", "replace", "symlink", "unlink", "rmdir", "remove", "fsync", "fchmod", "chown", "open")
"""The system's calls that a change of the store consists of; it may be the last before any of them."""

Deed = Callable[[Keeper], object]


class Death(BaseException):
    """The process ends here: nothing that comes afterwards, no `finally` either, does anything any more."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Version a is the active one, b the previous one, c was never active."""
    store = Store(tmp_path / "state/models")
    with keeping(store) as keeper:
        for version in "cba":
            add(keeper, version)
        keeper.switch("m", "b")
        keeper.switch("m", "a")
    return store


def add(keeper: Keeper, version: str, content: str = "") -> None:
    with keeper.stage() as staged:
        for name in ("manifest.json", "model.tflite"):
            (staged / name).write_text(content or f"{name} of {version}")
        keeper.put(staged, "m", version)


def pair(store: Store) -> tuple[str | None, str | None]:
    """The active and the previous version."""
    return tuple(path and path.name for path in (store.active("m"), store.previous("m")))


def whole(path: Path | None) -> bool:
    return path is not None and whole_of(path, path.name)


def whole_of(path: Path, version: str) -> bool:
    names = ("manifest.json", "model.tflite")
    return all((path / name).read_text() == f"{name} of {version}" for name in names)


def tree(store: Store) -> set[str]:
    """Everything in the store, hidden things too."""
    return {str(path.relative_to(store.folder)) for path in store.folder.rglob("*")}


def test_switch(store: Store) -> None:
    """What was active becomes the previous version: going back and forth is the same deed."""
    assert pair(store) == ("a", "b")
    with keeping(store) as keeper:
        keeper.switch("m", "c")
        assert pair(store) == ("c", "a")
        keeper.switch("m", "a")
        assert pair(store) == ("a", "c")
        keeper.switch("m", "a")
        assert pair(store) == ("a", "c")


def test_first_version(tmp_path: Path) -> None:
    """The first version has none before it, and where it lives is made for it."""
    store = Store(tmp_path / "deep/down/models")
    with keeping(store) as keeper:
        add(keeper, "a")
        keeper.switch("m", "a")
    assert pair(store) == ("a", None)
    assert tree(store) == {".lock", "m", "m/current", "m/a", "m/a/manifest.json", "m/a/model.tflite"}


def test_after_the_active_version_was_lost(store: Store) -> None:
    """A link that leads nowhere is no version to go back to: the one before it stays that."""
    shutil.rmtree(store.folder / "m/a")
    with keeping(store) as keeper:
        keeper.switch("m", "c")
    assert pair(store) == ("c", "b")


def test_nothing_staged_stays(store: Store) -> None:
    """What was staged and not put in place goes again, whatever happened."""
    before = tree(store)
    with keeping(store) as keeper:
        with suppress(ZeroDivisionError), keeper.stage() as staged:
            (staged / "model.tflite").write_text("half")
            raise ZeroDivisionError
        assert not staged.exists()
    assert tree(store) == before


def test_others_go_on_meanwhile(store: Store) -> None:
    """While a stage is filled, which may take for ever, another one may have the store, and leaves the stage alone."""
    with keeping(store) as keeper, keeper.stage() as staged:
        with keeper.meanwhile():
            (staged / "model.tflite").write_text("half")
            with keeping(store, timeout_s=0) as other:
                (store.folder / ".new-left").mkdir()
                other.switch("m", "c")
        with pytest.raises(StoreError, match="another `edge-runner model` has"), keeping(store, timeout_s=0):
            pass
        assert {path.name for path in store.folder.iterdir()} == {"m", ".lock", staged.name}
        for name in ("manifest.json", "model.tflite"):
            (staged / name).write_text(f"{name} of d")
        keeper.put(staged, "m", "d")
    assert pair(store) == ("c", "a")
    assert whole(store.folder / "m/d")


def test_what_is_not_proven_is_nobodys_to_read(store: Store) -> None:
    """What is staged others may neither read nor reach; once it is in its place they may."""
    with keeping(store) as keeper, keeper.stage() as staged:
        assert staged.stat().st_mode & 0o7777 == 0o2770
        keeper.put(staged, "m", "d")
    assert (store.folder / "m/d").stat().st_mode & 0o7777 == 0o2775


def test_a_damaged_version_is_replaced(store: Store) -> None:
    """A version put once more takes the place of what is there, and nothing of that is left."""
    (store.folder / "m/a/model.tflite").write_text("damaged")
    (store.folder / "m/a/extra").write_text("extra")
    with keeping(store) as keeper:
        add(keeper, "a")
    assert pair(store) == ("a", "b")
    assert whole(store.active("m"))
    assert not (store.active("m") / "extra").exists()
    assert {path.name for path in store.folder.iterdir()} == {"m", ".lock"}


def test_remove(store: Store) -> None:
    """A version that goes is no longer the one to go back to; with the last one, the name goes."""
    with keeping(store) as keeper:
        keeper.remove("m", "b")
        assert pair(store) == ("a", None)
        assert not os.path.lexists(store.folder / "m/previous")
        keeper.remove("m", "c")
        (store.folder / "m/current").unlink()
        keeper.remove("m", "a")
    assert tree(store) == {".lock"}


# --- killed at every step ---------------------------------------------------------------------------------------------


@pytest.fixture
def die_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], list[str]]:
    """Let the process die before its `at`-th step; return the steps that were taken, filled as they are."""

    def arm(at: int | None) -> list[str]:
        taken: list[str] = []
        for name in STEPS:
            monkeypatch.setattr(os, name, mortal(name, getattr(os, name), at, taken))
        return taken

    return arm


def mortal(name: str, real: Callable[..., object], at: int | None, taken: list[str]) -> Callable[..., object]:
    def step(*given: object, **named: object) -> object:
        if at is not None and len(taken) >= at:
            raise Death
        taken.append(name)
        return real(*given, **named)

    return step


DEEDS: dict[str, tuple[Deed, tuple[str, str | None]]] = {
    "install": (lambda keeper: (add(keeper, "d"), keeper.switch("m", "d")), ("d", "a")),
    "activate": (lambda keeper: keeper.switch("m", "c"), ("c", "a")),
    "rollback": (lambda keeper: keeper.switch("m", "b"), ("b", "a")),
    "remove": (lambda keeper: keeper.remove("m", "c"), ("a", "b")),
    "remove the previous": (lambda keeper: keeper.remove("m", "b"), ("a", None)),
    "repair": (lambda keeper: add(keeper, "c"), ("a", "b")),
}


def steps_of(
    deed: Deed, store: Store, die_at: Callable[[int | None], list[str]], monkeypatch: pytest.MonkeyPatch
) -> int:
    """How many steps a deed has that nobody kills; the store is as before then."""
    copy = store.folder.parent / "copy"
    shutil.copytree(store.folder, copy, symlinks=True)
    with monkeypatch.context():
        taken = die_at(None)
        with keeping(Store(copy)) as keeper:
            deed(keeper)
        monkeypatch.undo()
    shutil.rmtree(copy)
    return len(taken)


@pytest.mark.parametrize("name", DEEDS)
def test_killed_at_every_step(
    name: str, store: Store, die_at: Callable[[int | None], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each step of a deed the process may end: the active version is whole, and it and the previous one are those
    from before or from after it. Then the same deed can be done, and nothing of the first attempt is left.
    """
    deed, after = DEEDS[name]
    count = steps_of(deed, store, die_at, monkeypatch)
    clean = None
    for at in [*range(count), None]:
        one = Store(store.folder.parent / "one")
        shutil.copytree(store.folder, one.folder, symlinks=True)
        die_at(at)
        try:
            with keeping(one) as keeper:
                deed(keeper)
        except Death:
            assert at is not None
        monkeypatch.undo()
        assert whole(one.active("m")), at
        previous = one.previous("m")
        assert previous is None or whole(previous), at
        assert pair(one) in (("a", "b"), after), at
        with keeping(one) as keeper:
            if "remove" not in name or left(one, name):
                deed(keeper)
        assert pair(one) == after, at
        clean = clean or tree(one)
        assert tree(one) == clean, at
        shutil.rmtree(one.folder)
    assert count > 8


def test_killed_while_clearing_up(
    store: Store, die_at: Callable[[int | None], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes back a switch that was not made may be killed as well, before each of its steps."""
    for first, second in (("c", "a"), ("c", None), (None, "a")):
        for at in range(20):
            one = Store(store.folder.parent / "one")
            shutil.copytree(store.folder, one.folder, symlinks=True)
            for name, version in ((".current", first), (".previous", second)):
                if version:
                    (one.folder / "m" / name).symlink_to(version)
            (one.folder / ".new-1").mkdir()
            before = pair(one)
            taken = die_at(at)
            with suppress(Death), keeping(one):
                pass
            monkeypatch.undo()
            assert pair(one) == before, (first, second, at)
            with keeping(one):
                assert pair(one) == before, (first, second, at)
                assert not list(one.folder.glob(".new-*")) + list((one.folder / "m").glob(".*"))
            shutil.rmtree(one.folder)
        assert len(taken) < at, "not every step was reached"


def test_on_disk_before_the_next_step(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version is on disk, whole, before it gets its name; its name, before a link leads to it; each link, before the next."""
    happened: list[str] = []

    def path_of(descriptor: int) -> str:
        return os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(str(store.folder))

    def spied(name: str, told: Callable[..., str]) -> None:
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, **named: (happened.append(told(*given)), real(*given, **named))[1])

    spied("fsync", lambda descriptor: f"sync {path_of(descriptor)}")
    for name in ("rename", "replace"):
        spied(name, lambda old, new: f"{old.name} -> {new.name}")
    spied("symlink", lambda target, path: f"{path.name} = {target}")
    with keeping(store) as keeper:
        add(keeper, "d")
        keeper.switch("m", "d")
    staged = next(each.partition(" -> ")[0] for each in happened if each.endswith("-> d"))
    assert sorted(happened[:3]) == [f"sync /{staged}", f"sync /{staged}/manifest.json", f"sync /{staged}/model.tflite"]
    assert happened[3:] == [
        f"{staged} -> d", "sync /m", "sync ",
        ".current = d", "sync /m", ".previous = a", "sync /m",
        ".current -> current", "sync /m", ".previous -> previous", "sync /m",
    ]  # fmt: skip


def left(store: Store, name: str) -> bool:
    """Whether the version that is to be removed is still there."""
    return (store.folder / "m" / ("b" if "previous" in name else "c")).is_dir()


# --- who may, and where there is no room --------------------------------------------------------------------------------


@pytest.fixture
def careful() -> Iterator[None]:
    """A umask that lets nobody else read anything."""
    before = os.umask(0o077)
    yield
    assert os.umask(before) == 0o077


def test_modes(careful: None, tmp_path: Path) -> None:
    """Whatever the umask, the store's group may write, what is new gets that group, and all may read."""
    store = Store(tmp_path / "state/models")
    with keeping(store) as keeper:
        add(keeper, "a")
        keeper.switch("m", "a")
    home = store.folder / "m"
    assert [oct(path.stat().st_mode & 0o7777) for path in (store.folder, home, home / "a")] == ["0o2775"] * 3
    assert [oct(path.stat().st_mode & 0o777) for path in (store.folder / ".lock", *(home / "a").iterdir())] == [
        "0o664"
    ] * 3


@pytest.fixture
def given_away() -> Iterator[Store]:
    """A store that is not root's, as that of a board; where its owner can get at it."""
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name) / "models")
        store.folder.parent.chmod(0o755)
        store.folder.mkdir()
        os.chown(store.folder, 12345, 23456)
        store.folder.chmod(0o2775)
        yield store


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@needs_root
def test_root_is_the_owner_meanwhile(given_away: Store) -> None:
    """Links that a member of the group lays lead root nowhere: it may do no more than the owner, and is root again afterwards."""
    store, target = given_away, given_away.folder.parent / "of-root"
    target.mkdir()
    (store.folder / "m").symlink_to(target)
    groups = os.getgroups()
    with pytest.raises(StoreError, match=r"m is a link to .*of-root, and has to be a folder"), keeping(store) as keeper:
        add(keeper, "a")
    with pytest.raises(PermissionError), as_owner(store.folder):
        (target / "x").touch()
    (store.folder / ".lock").unlink()
    (store.folder / ".lock").symlink_to(target / "lock")
    with (
        pytest.raises(StoreError, match=r"models/\.lock: it is a link, which may lead out of the store"),
        keeping(store),
    ):
        pass
    assert not list(target.iterdir())
    assert target.stat().st_mode & 0o7777 == 0o755
    assert (os.geteuid(), os.getegid(), os.getgroups()) == (0, 0, groups)


def test_links_of_a_model(store: Store, tmp_path: Path) -> None:
    """A link in the place of a model is not followed, whatever is to be done, and not tidied up in there."""
    shutil.copytree(store.folder / "m", tmp_path / "away", symlinks=True)
    (tmp_path / "away/.previous").symlink_to("c")
    shutil.rmtree(store.folder / "m")
    (store.folder / "m").symlink_to(tmp_path / "away")
    before = {path: os.lstat(path).st_mtime_ns for path in (tmp_path / "away").rglob("*")}
    deeds: list[Deed] = [lambda keeper: add(keeper, "d"), lambda keeper: keeper.switch("m", "b")]
    for deed in [*deeds, lambda keeper: keeper.remove("m", "c")]:
        with pytest.raises(StoreError, match="and has to be a folder; remove it"), keeping(store) as keeper:
            deed(keeper)
    assert {path: os.lstat(path).st_mtime_ns for path in (tmp_path / "away").rglob("*")} == before


@needs_root
def test_what_only_root_may_read(given_away: Store, tmp_path: Path) -> None:
    """A bundle in somebody's closed home is root's to install, as a folder and as a file, into a store of another one."""
    home = tmp_path / "home"
    home.mkdir(0o700)
    (home / MANIFEST).write_text("{}")
    (home / MANIFEST).chmod(0o600)
    with keeping(given_away) as keeper, keeper.stage() as staged:
        assert is_folder(home)
        copy(home, staged, keeper.room)
        with opened(home / MANIFEST) as source:
            assert source.read() == b"{}"
        assert (staged / MANIFEST).stat().st_uid == 12345
        with pytest.raises(PermissionError):
            (home / MANIFEST).read_text()


@needs_root
def test_root_follows_no_link(store: Store, tmp_path: Path) -> None:
    """A link among a bundle's files may lead to what only root may read; one to the bundle itself is as good as that."""
    shutil.copytree(store.folder / "m/a", tmp_path / "bundle")
    (tmp_path / "link").symlink_to("bundle")
    with keeping(store) as keeper, keeper.stage() as staged:
        copy(tmp_path / "link", staged, keeper.room)
        assert whole_of(staged, "a")
    (tmp_path / "bundle/model.tflite").rename(tmp_path / "secret")
    (tmp_path / "bundle/model.tflite").symlink_to(tmp_path / "secret")
    told = r"model\.tflite: a link, which root does not follow; install a copy without links"
    with keeping(store) as keeper, keeper.stage() as staged:
        with pytest.raises(ModelError, match=told):
            copy(tmp_path / "bundle", staged, keeper.room)
        assert [path.name for path in staged.iterdir()] == ["manifest.json"]


@needs_root
def test_owner(given_away: Store) -> None:
    """What root installs belongs to whom the store belongs."""
    store = given_away
    with keeping(store) as keeper:
        add(keeper, "a")
        keeper.switch("m", "a")
    found = {path: path.lstat() for path in [store.folder, *store.folder.rglob("*")]}
    assert {(each.st_uid, each.st_gid) for each in found.values()} == {(12345, 23456)}
    assert len(found) == 7


def test_no_permission(store: Store, lock: Callable[..., tuple[str, ...]]) -> None:
    """A store that one may not write says so, and how one may; it stays what it was."""
    prefix = lock(store.folder, 0o555)
    done = subprocess.run([*prefix, sys.executable, "-c", CHANGE, str(store.folder)], capture_output=True, text=True)
    assert done.returncode == EXIT_FAILED
    assert f"{store.folder}" in done.stdout
    assert "permission denied; do it with sudo" in done.stdout
    assert pair(store) == ("a", "b")


CHANGE = """
import sys
from pathlib import Path
from edge_runner.errors import StoreError
from edge_runner.model.keeper import keeping
from edge_runner.model.store import Store
try:
    with keeping(Store(Path(sys.argv[1]))) as keeper, keeper.stage():
        pass
except StoreError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_who_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the store belongs to a group, joining that is the other remedy."""
    monkeypatch.setattr(module.grp, "getgrgid", lambda gid: SimpleNamespace(gr_name=f"group{gid}"))
    tmp_path.chmod(0o2775)
    if os.geteuid() == 0:
        os.chown(tmp_path, -1, 4711)
    group = f"group{tmp_path.stat().st_gid}"
    told = module._why(PermissionError(errno.EACCES, "Permission denied"), tmp_path)
    if group != "group0":
        assert told == (
            f"permission denied; do it with sudo, or join the group {group} (sudo usermod -aG {group} $USER) and log in again"
        )
    tmp_path.chmod(0o755)
    assert (
        module._why(PermissionError(errno.EACCES, "Permission denied"), tmp_path)
        == "permission denied; do it with sudo"
    )


def test_read_only(tmp_path: Path, mount_tmpfs: Callable[[str], Path]) -> None:
    """A file system that is mounted for reading only is told as such."""
    disk = mount_tmpfs("1m")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with (
        pytest.raises(StoreError, match="read-only file system: mount it for writing first"),
        keeping(Store(disk / "models")),
    ):
        pass


def test_room(tmp_path: Path, mount_tmpfs: Callable[[str], Path]) -> None:
    """What does not fit, with some room left for all else that the board does, is refused before it is begun."""
    with keeping(Store(mount_tmpfs("20m") / "models")) as keeper:
        keeper.room(1_000_000)
        with pytest.raises(
            StoreError, match=r"has room for [45]\.\d MB more, and 6\.0 MB are needed; .* remove NAME@VERSION"
        ):
            keeper.room(6_000_000)


def test_full_disk(mount_tmpfs: Callable[[str], Path]) -> None:
    """A disk that fills up meanwhile ends it with what helps; what was staged is gone, what is active stays."""
    store = Store(mount_tmpfs("1m") / "models")
    with keeping(store) as keeper:
        add(keeper, "a")
        keeper.switch("m", "a")
    with pytest.raises(StoreError) as caught, keeping(store) as keeper:
        add(keeper, "b", content="x" * 2_000_000)
    assert str(caught.value).startswith(f"{store.folder}: no space left on device; `edge-runner model remove")
    assert pair(store) == ("a", None)
    assert not list(store.folder.glob(".new-*"))


# --- one at a time ------------------------------------------------------------------------------------------------------


def test_one_at_a_time(store: Store) -> None:
    """While one changes the store, another waits, and gives up in words when that takes too long."""
    with (
        keeping(store),
        pytest.raises(StoreError, match="another `edge-runner model` has been changing"),
        keeping(store, timeout_s=0),
    ):
        pass
    with keeping(store, timeout_s=0):
        pass


def test_the_second_waits(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """It says that it waits, and goes on when the first one is done."""
    caplog.set_level("INFO")
    descriptor = os.open(store.folder / ".lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)

    def leave() -> None:
        """Once the other one has said that it waits."""
        until = time.monotonic() + 60
        while not caplog.records and time.monotonic() < until:
            time.sleep(0.01)
        os.close(descriptor)

    first = threading.Thread(target=leave)
    first.start()
    with keeping(store) as keeper:
        keeper.switch("m", "c")
    first.join()
    assert pair(store) == ("c", "a")
    assert [record.getMessage() for record in caplog.records] == [
        f"another `edge-runner model` is changing {store.folder}; waiting for it"
    ]
