"""The containers of the tests with a real systemd (tests/lab/container.py), and the board with edge-runner in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.container import Container, container_missing, tree
from lab.wheelhouses import wheelhouse as make_wheelhouse


@pytest.fixture(scope="session")
def debian() -> Path:
    """The tree of a Debian, for Containers; without one, the test is skipped."""
    if missing := container_missing():
        pytest.skip(missing)
    return tree()


@pytest.fixture(scope="session")
def wheelhouse(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What installs this checkout on that Debian."""
    return make_wheelhouse(tmp_path_factory.mktemp("wheelhouse") / "house")


@pytest.fixture(scope="session")
def container(debian: Path) -> Iterator[Container]:
    """A booted Debian without edge-runner, for a whole session: leave nothing behind that others stumble over."""
    with Container(debian) as booted:
        yield booted


@pytest.fixture(scope="session")
def board(debian: Path, wheelhouse: Path) -> Iterator[Container]:
    """A board that edge-runner was installed on, without a network, for a whole session; the digits bundle is /root/digits."""
    bundle = Path(__file__).parents[2] / "examples/digits/models/digits"
    if not (bundle / "manifest.json").is_file():
        pytest.skip("the digits bundle is not there")
    with Container(debian) as booted:
        booted.copy_in(wheelhouse, "/root/wheelhouse")
        booted.copy_in(bundle, "/root/digits")
        booted.run("/root/wheelhouse/install_device.sh")
        yield booted
