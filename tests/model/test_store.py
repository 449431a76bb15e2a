"""What is read of the store of models: which versions there are, and which two links choose."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runner.model.store import NAME, Store, models_folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with two versions of one model, the second one active, and one of another."""
    store = Store(tmp_path / "models")
    for place in ("digits/v1", "digits/v2", "birds/3f2a9c1d"):
        (store.folder / place).mkdir(parents=True)
    link(store, "digits", current="v2", previous="v1")
    return store


def link(store: Store, name: str, **links: str) -> None:
    for which, version in links.items():
        path = store.folder / name / which.replace("pending_", ".")
        path.unlink(missing_ok=True)
        path.symlink_to(version)


def test_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The store is in /var/lib/edge-runner, or in the folder that EDGE_RUNNER_STATE names, looked up whenever it is asked for."""
    monkeypatch.delenv("EDGE_RUNNER_STATE", raising=False)
    assert models_folder() == Store().folder == Path("/var/lib/edge-runner/models")
    monkeypatch.setenv("EDGE_RUNNER_STATE", "state")
    monkeypatch.chdir(tmp_path)
    assert Store().folder == tmp_path / "state/models"


def test_links(store: Store) -> None:
    """The active and the previous version are real folders, with the links resolved."""
    assert store.active("digits") == store.folder / "digits/v2"
    assert store.previous("digits") == store.folder / "digits/v1"


def test_nothing(store: Store, tmp_path: Path) -> None:
    """Where nothing is active, installed or there at all, that is None and no error."""
    assert store.active("birds") is store.previous("birds") is None
    assert store.active("cats") is None
    assert Store(tmp_path / "gone").names() == Store(tmp_path / "gone").versions() == []


def test_previous_that_is_none(store: Store) -> None:
    """A version to go back to is another one than the active one, and it is there."""
    link(store, "digits", previous="v2")
    assert store.previous("digits") is None
    link(store, "digits", previous="v7")
    assert store.previous("digits") is None


@pytest.mark.parametrize("target", ["..", ".", "/etc", "../birds/3f2a9c1d", "v7", ".hidden", "file"])
def test_links_that_lead_elsewhere(store: Store, target: str) -> None:
    """A link counts only where it leads to a version beside it."""
    (store.folder / "digits/.hidden").mkdir()
    (store.folder / "digits/file").touch()
    link(store, "digits", current=target)
    assert store.active("digits") is None
    assert store.names() == []


def test_links_in_the_place_of_a_version(store: Store, tmp_path: Path) -> None:
    """What is active is a folder of the store's own, and no link to another place."""
    (store.folder / "digits/v3").symlink_to(tmp_path)
    assert store.folder / "digits/v3" not in store.versions()


def test_a_switch_under_way(store: Store) -> None:
    """While the links of a switch wait, the old pair counts; once `current` is the new one, the new pair does."""
    (store.folder / "digits/v3").mkdir()
    link(store, "digits", pending_current="v3")
    assert (store.active("digits").name, store.previous("digits").name) == ("v2", "v1")
    link(store, "digits", pending_previous="v2")
    assert (store.active("digits").name, store.previous("digits").name) == ("v2", "v1")
    (store.folder / "digits/.current").rename(store.folder / "digits/current")
    assert (store.active("digits").name, store.previous("digits").name) == ("v3", "v2")


def test_listing(store: Store) -> None:
    """Versions are folders with a version's name; models, for whoever looks for one to run, have an active version."""
    (store.folder / ".new-1").mkdir()
    (store.folder / "digits/notes.txt").touch()
    assert store.names() == ["digits"]
    assert [f"{path.parent.name}@{path.name}" for path in store.versions()] == [
        "birds@3f2a9c1d",
        "digits@v1",
        "digits@v2",
    ]


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("digits", True), ("3f2a9c1d", True), ("v1.2+rc-3_b", True), ("x" * 100, True),
        ("", False), (".", False), ("..", False), (".x", False), ("-x", False), ("a/b", False), ("a\0", False), ("a b", False),
        ("a@b", False), ("x" * 101, False), ("ä", False), ("a\n", False),
    ],
)  # fmt: skip
def test_names(name: str, good: bool) -> None:
    """A name is one part of a path, is not hidden, and cannot be taken for an option."""
    assert bool(NAME.fullmatch(name)) == good
