"""Where a bundle comes to be: beside its place, renamed into it when it is whole. An interrupted build leaves the old one."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_runner.errors import EdgeRunnerError, OutputError

FOLDER_MODE, FILE_MODE = 0o755, 0o644


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder beside `target` to write a bundle into; it goes again unless `commit` has moved it."""
    made = [folder for folder in target.parents if not folder.exists()]
    folder = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        yield folder
    except EdgeRunnerError:
        raise
    except OSError as error:
        raise OutputError(f"{_place(error, target)}: {(error.strerror or str(error)).lower()}") from error
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        for parent in made:
            with suppress(OSError):  # unless there is something in it now
                parent.rmdir()


def _place(error: OSError, target: Path) -> Path | str:
    """What the error is about; of our own folder, nobody knows the name."""
    named = str(error.filename or "")
    return named if named and f"/.{target.name}." not in named else target


def commit(folder: Path, target: Path, name: str) -> Path:
    """Put a whole bundle in its place in one step, and `name`.tar.gz beside it; return that archive's path."""
    archive = target.parent / f"{name}.tar.gz"
    packed = folder.parent / f"{folder.name}.tar.gz"
    old = folder.parent / f"{folder.name}.old"
    try:
        packed.write_bytes(packed_bundle(folder, name))
        folder.chmod(FOLDER_MODE)
        if target.exists():
            target.rename(old)
        folder.rename(target)
        packed.replace(archive)
    finally:
        packed.unlink(missing_ok=True)
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    return archive


def packed_bundle(folder: Path, name: str) -> bytes:
    """A folder's files as a .tar.gz with one folder, `name`, in it: the same bytes for the same files."""
    file = io.BytesIO()
    with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as archive:
        top = tarfile.TarInfo(name)
        top.type, top.mode = tarfile.DIRTYPE, FOLDER_MODE
        archive.addfile(top)
        for path in sorted(folder.iterdir()):
            entry = tarfile.TarInfo(f"{name}/{path.name}")
            entry.mode, entry.size = FILE_MODE, path.stat().st_size
            with path.open("rb") as content:
                archive.addfile(entry, content)
    return file.getvalue()
