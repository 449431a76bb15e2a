"""The daemon as systemd runs it, for tests of the service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from bundles import make_bundle
from lab.watched import Watched

from edge_runner.model.keeper import keeping
from edge_runner.model.store import Store


@pytest.fixture
def watched(start_cli: Any, tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    """Start a daemon that is watched. At the end it is no more."""
    with ExitStack() as stack:
        yield lambda config, *rest, **options: stack.enter_context(
            Watched(start_cli, tmp_path, config, *rest, **options)
        )


@pytest.fixture
def store(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Store]:
    """Put versions of the model `colour` into a store of the test's own; each becomes the active one after the other."""
    monkeypatch.setenv("EDGE_RUNNER_STATE", str(tmp_path / "state"))

    def put(*versions: str, **says: Any) -> Store:
        with keeping(Store()) as keeper:
            for version in versions:
                with keeper.stage() as staged:
                    staged.rmdir()
                    make_bundle(staged, data / "colour.tflite", name="colour", version=version, **says)
                    keeper.put(staged, "colour", version)
                keeper.switch("colour", version)
        return Store()

    return put
