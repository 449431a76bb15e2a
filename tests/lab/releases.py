"""Packs a bundle as two releases of one model, archives that `model install` takes: python releases.py BUNDLE FOLDER."""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from edge_runner.builder.stage import packed_bundle
from edge_runner.model.bundle import MANIFEST, read_manifest

SECOND = "second"


def pack(bundle: Path, folder: Path) -> None:
    """NAME-VERSION.tar.gz as it is, and as the version `second`; the model is the same."""
    with tempfile.TemporaryDirectory() as scratch:
        for release in (bundle, second(bundle, Path(scratch, "bundle"))):
            manifest = read_manifest(release)
            name = f"{manifest.name}-{manifest.version}"
            (folder / f"{name}.tar.gz").write_bytes(packed_bundle(release, name))


def second(bundle: Path, folder: Path) -> Path:
    """A copy of the bundle that calls itself another version."""
    shutil.copytree(bundle, folder)
    (folder / MANIFEST).write_bytes(replace(read_manifest(bundle), version=SECOND).dump())
    return folder


if __name__ == "__main__":
    pack(*map(Path, sys.argv[1:3]))
