"""What the builder's tests share: SavedModels, pictures and bundles, each made once for all of them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import commands
import cv2
import numpy as np
import pytest

from edge_runner.errors import EXIT_CONFIG

LEVELS = {"red": (150, 50, 50), "green": (50, 150, 50), "blue": (50, 50, 150), "dark": (30, 30, 30)}
"""Red, green, blue: as make_saved_models.py wants them."""
PICTURES_EACH = 8
MAKE = Path(__file__).parent / "make_saved_models.py"

Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Fill a folder once, whichever of pytest-xdist's workers comes first."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def get(name: str, fill: Callable[[Path], object]) -> Path:
        folder, full = root / f"once-{name}", root / f"once-{name}.full"
        with (root / f"once-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not full.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of one that failed
                folder.mkdir()
                fill(folder)
                full.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def saved_models(once: Once) -> Path:
    """The folder of make_saved_models.py's models."""

    def fill(folder: Path) -> None:
        done = commands.run(sys.executable, MAKE, folder, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
        assert done.returncode == 0, done.stderr

    return once("saved_models", fill)


@pytest.fixture(scope="session")
def pictures(once: Once) -> Path:
    """Labelled pictures: a sub-folder a label, with noise on them, none of the model's size or form."""

    def fill(folder: Path) -> None:
        chance = np.random.default_rng(5)
        for label, levels in LEVELS.items():
            (folder / label).mkdir()
            for number in range(PICTURES_EACH):
                noise = chance.integers(-20, 21, (30, 40, 3))
                picture = np.clip(np.array(levels[::-1]) + noise, 0, 255).astype(np.uint8)
                assert cv2.imwrite(str(folder / label / f"{number}.png"), picture)

    return once("pictures", fill)


@pytest.fixture(scope="session")
def bright(once: Once, pictures: Path) -> Path:
    """Those of the pictures that are not dark, for models of three classes; folders are called 0, 1, 2."""

    def fill(folder: Path) -> None:
        for number, label in enumerate(commands.LABELS[:3]):
            shutil.copytree(pictures / label, folder / str(number))

    return once("bright", fill)


@pytest.fixture(scope="session")
def labels(once: Once) -> Path:
    """The labels of the models of four classes."""
    lines = "".join(f"{label}\n" for label in commands.LABELS)
    return once("labels", lambda folder: (folder / "colours.txt").write_text(lines)) / "colours.txt"


@pytest.fixture(scope="session")
def arrays(once: Once) -> Path:
    """24 samples for the model `two`, and for `lstm`, as .npz."""

    def fill(folder: Path) -> None:
        chance = np.random.default_rng(6)
        a, b = chance.standard_normal((2, 24, 8)).astype(np.float32)
        np.savez(folder / "two.npz", a=a, b=b)
        np.savez(folder / "lstm.npz", whatever=chance.standard_normal((24, 20, 8)).astype(np.float32))

    return once("arrays", fill)


@pytest.fixture(scope="session")
def made(once: Once, saved_models: Path) -> Callable[..., Path]:
    """A bundle, built once of this model with these options for all tests, which must not change it.

    said.txt beside it is what was printed.
    """

    def get(model: str, *options: object) -> Path:
        def fill(folder: Path) -> None:
            done = commands.build(saved_models / model, *options, output=folder / "bundle")
            assert (done.returncode, done.stderr) == (0, "")
            (folder / "said.txt").write_text(done.stdout)

        asked = hashlib.sha256(" ".join(map(str, options)).encode()).hexdigest()[:8]
        return once(f"bundle-{model}-{asked}", fill) / "bundle"

    return get


@pytest.fixture(scope="session")
def colour(made: Callable[..., Path], pictures: Path, labels: Path) -> Path:
    """The bundle of `colour` with everything: --quantize auto, labels, calibrated, evaluated."""
    calibrated = ("--calibration", pictures, "--evaluate", pictures)
    return made("colour", "--normalize", "0..1", "--quantize", "auto", "--labels", labels, *calibrated)


@pytest.fixture
def refuse(tmp_path: Path) -> Callable[..., str]:
    """Let a build fail. It says why in one line, which is returned, and leaves nothing behind."""

    def run(model: Path, *options: object, code: int | None = EXIT_CONFIG) -> str:
        place, temporary = tmp_path / "place", tmp_path / "temporary"
        place.mkdir()
        temporary.mkdir()
        done = commands.build(model, *options, output=place / "bundle", env={**os.environ, "TMPDIR": str(temporary)})
        line = commands.refusal(done, code)
        assert os.listdir(place) == []
        assert os.listdir(temporary) == []
        return line

    return run
