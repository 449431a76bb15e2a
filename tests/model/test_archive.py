"""A bundle's files come out of folders and archives, and nothing else does, wherever those come from."""

from __future__ import annotations

import gzip
import io
import random
import shutil
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from bundles import make_bundle

from edge_runner.builder.stage import packed_bundle
from edge_runner.errors import EXIT_CONFIG, EXIT_FAILED, ModelError, StoreError
from edge_runner.model import archive
from edge_runner.model.archive import FILES, Source, copy, unpack
from edge_runner.model.bundle import sha256_of

MUTATIONS = 150


def any_room(size_bytes: int) -> None:
    """There is always room."""
    assert size_bytes >= 0


@pytest.fixture
def bundle(tmp_path: Path, data: Path) -> Path:
    """A bundle, with the report beside it that a builder leaves there."""
    made = make_bundle(tmp_path / "colour", data / "colour.tflite")
    (made / "report.md").write_text("# colour\n")
    return made


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "jail/into"
    folder.mkdir(parents=True)
    return folder


def unpacked(content: bytes, into: Path, **options: object) -> None:
    unpack(Source(io.BytesIO(content), "x.tar.gz"), into, options.pop("room", any_room), **options)


def refused(content: bytes, into: Path) -> str:
    """What is said of an archive that is none of a bundle; nothing was written beside where it belongs."""
    with pytest.raises(ModelError) as caught:
        unpacked(content, into)
    assert caught.value.exit_code == EXIT_CONFIG
    assert list(into.parent.iterdir()) == [into]
    assert {path.name for path in into.iterdir()} <= set(FILES)
    assert all(path.is_file() and not path.is_symlink() for path in into.iterdir())
    return str(caught.value)


def made(*entries: tuple[str, bytes | Callable[[tarfile.TarInfo], object]], form: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of entries: a name with its content, or with what is to be said of it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", format=form) as packed:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                entry.size = len(content)
            else:
                content(entry)
            packed.addfile(entry, io.BytesIO(content) if isinstance(content, bytes) else None)
    return file.getvalue()


def same(into: Path, bundle: Path) -> bool:
    names = sorted(path.name for path in into.iterdir())
    return names == sorted(FILES) and all((into / name).read_bytes() == (bundle / name).read_bytes() for name in names)


# --- what does get through ----------------------------------------------------------------------------------------------


def test_folder(bundle: Path, into: Path) -> None:
    """A folder's bundle is copied, without its report; that there is room for it is asked first."""
    asked: list[int] = []
    copy(bundle, into, asked.append)
    assert same(into, bundle)
    assert asked == [sum((bundle / name).stat().st_size for name in FILES)]


def test_archive(bundle: Path, into: Path) -> None:
    """So is what the builder packs; that there is room is asked for each file."""
    asked: list[int] = []
    unpacked(packed_bundle(bundle, "colour-1"), into, room=asked.append)
    assert same(into, bundle)
    assert sorted(asked) == sorted((bundle / name).stat().st_size for name in FILES)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("prefix", ["", "./", "a/models/colour/", f"{'long/' * 40}"])
def test_archives_by_hand(bundle: Path, into: Path, prefix: str, form: int) -> None:
    """An archive that somebody packed by hand does as well: from above, from inside, and with a Mac's files among its own."""
    own = [(f"{prefix}{name}", (bundle / name).read_bytes()) for name in FILES]
    unpacked(made((f"{prefix}._manifest.json", b"\0\5\x16\7"), *own, form=form), into)
    assert same(into, bundle)


def test_sha256(bundle: Path, into: Path) -> None:
    """An archive whose sum was said has to have it, to its last byte."""
    content = packed_bundle(bundle, "colour-1")
    unpacked(content, into, sha256=sha256_of(content).upper())
    shutil.rmtree(into)
    into.mkdir()
    with pytest.raises(ModelError, match=f"has the SHA-256 {sha256_of(content)}, not {'f' * 64}; get it again"):
        unpacked(content, into, sha256="f" * 64)


def test_no_room(bundle: Path, into: Path) -> None:
    """Where there is no room for a file, nothing of it is written."""

    def room(size_bytes: int) -> None:
        if size_bytes > 1000:
            raise StoreError("no room")

    with pytest.raises(StoreError, match="no room"):
        unpacked(packed_bundle(bundle, "colour-1"), into, room=room)
    assert all(path.stat().st_size <= 1000 for path in into.iterdir())
    shutil.rmtree(into)
    into.mkdir()
    with pytest.raises(StoreError, match="no room"):
        copy(bundle, into, room)
    assert not list(into.iterdir())


# --- what does not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "x.tar.gz is empty"),
        (b"x\0\0\0TFL3" + bytes(100), "x.tar.gz is a bare .tflite file, for whose answers nothing vouches"),
        (b"PK\3\4" + bytes(100), "x.tar.gz is no archive of a bundle; a NAME-VERSION.tar.gz that"),
        (bytes(1024), "x.tar.gz is no archive of a bundle"),
        (b"\x1f\x8b", "x.tar.gz is cut off or damaged"),
        (gzip.compress(b""), "x.tar.gz is cut off or damaged"),
        (gzip.compress(b"no archive" * 100), "x.tar.gz is cut off or damaged"),
        (made(), "x.tar.gz holds no bundle: manifest.json is missing"),
        (made(("model.tflite", b"x")), "x.tar.gz holds no bundle: manifest.json is missing"),
    ],
    ids=[
        "nothing",
        "tflite",
        "zip",
        "zeros",
        "two bytes",
        "gzip of nothing",
        "gzip of words",
        "no member",
        "no manifest",
    ],
)
def test_no_archive(content: bytes, says: str, into: Path) -> None:
    """What is no archive, or one of something else, is told as what it is."""
    assert refused(content, into).startswith(says)


def typed(kind: bytes, **says: object) -> Callable[[tarfile.TarInfo], None]:
    def change(entry: tarfile.TarInfo) -> None:
        entry.type = kind
        for name, value in says.items():
            setattr(entry, name, value)

    return change


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("/etc/model.tflite", b"x", "leads out of its folder with '/etc/model.tflite'"),
        ("../model.tflite", b"x", "leads out of its folder with '../model.tflite'"),
        ("x/../../model.tflite", b"x", "leads out of its folder"),
        ("../x", typed(tarfile.DIRTYPE), "leads out of its folder"),
        ("model.tflite", typed(tarfile.SYMTYPE, linkname="/etc/passwd"), "neither a file nor a folder"),
        ("model.tflite", typed(tarfile.LNKTYPE, linkname="manifest.json"), "neither a file nor a folder"),
        ("notes", typed(tarfile.SYMTYPE, linkname=".."), "holds 'notes', which is neither a file nor a folder"),
        ("model.tflite", typed(tarfile.CHRTYPE, devmajor=1, devminor=5), "neither a file nor a folder"),
        ("model.tflite", typed(tarfile.FIFOTYPE), "neither a file nor a folder"),
        ("model.tflite", typed(tarfile.GNUTYPE_SPARSE), "neither a file nor a folder"),
        ("other/model.tflite", b"x", "holds more than one bundle ('other/model.tflite')"),
        ("manifest.json", b"x", "holds more than one bundle ('manifest.json')"),
        ("\x1b[2J", typed(tarfile.FIFOTYPE), r"holds '\x1b[2J', which is neither"),
    ],
)
def test_what_no_bundle_holds(name: str, content: bytes, says: str, into: Path) -> None:
    """An entry that leads elsewhere, is no plain file, or comes twice is refused with its name, and written nowhere."""
    assert says in refused(made(("manifest.json", b"{}"), (name, content), form=tarfile.GNU_FORMAT), into)


def test_bomb(monkeypatch: pytest.MonkeyPatch, into: Path) -> None:
    """What unpacks to more than any bundle is refused: announced by a file, by one that is left out, or by all together."""
    monkeypatch.setattr(archive, "MOST_BYTES", 2_000_000)
    big = bytes(3_000_000)
    assert "announces 0.0 GB for 'model.tflite'" in refused(made(("manifest.json", b"{}"), ("model.tflite", big)), into)
    shutil.rmtree(into)
    into.mkdir()
    assert "announces" in refused(made(("junk", big), ("manifest.json", b"{}")), into)
    parts = [(f"junk{number}", big[:900_000]) for number in range(3)]
    assert "unpacks to more than 0.0 GB" in refused(made(*parts, ("manifest.json", b"{}")), into)
    many = made(*((f"d{number}", typed(tarfile.DIRTYPE)) for number in range(archive.MOST_ENTRIES + 1)))
    assert "holds more than 1000 entries" in refused(many, into)


def test_bomb_of_a_gigabyte(into: Path) -> None:
    """Gigabytes that were zipped into a few kilobytes are refused by their header, without being unpacked."""
    entry = tarfile.TarInfo("model.tflite")
    entry.size = 50 * 10**9
    content = gzip.compress(entry.tobuf(tarfile.GNU_FORMAT) + bytes(10**6))
    started = time.monotonic()
    assert "announces 50.0 GB for 'model.tflite', which no bundle has" in refused(content, into)
    assert time.monotonic() - started < 20
    assert not list(into.iterdir())


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_header_bomb(kind: bytes, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header of gigabytes, which would be read into memory at once, is refused before it is."""
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = kind, 3 * 10**9
    content = gzip.compress(entry.tobuf(tarfile.GNU_FORMAT) + bytes(10**5))
    assert "a header of 3000000000 bytes" in refused(content, into)


def test_headers_without_end(into: Path) -> None:
    """Headers that follow each other for ever end as damage does."""
    entry = tarfile.TarInfo("x")
    entry.type = tarfile.XGLTYPE
    assert "cut off or damaged" in refused(gzip.compress(entry.tobuf(tarfile.USTAR_FORMAT) * 20_000), into)


def test_an_entry_before_its_beginning(into: Path) -> None:
    """A size below nothing, which leads backwards, is damage and no loop."""
    entry = tarfile.TarInfo("x")
    header = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = tarfile.itn(-1024, 12, tarfile.GNU_FORMAT)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert "damaged" in refused(gzip.compress(bytes(header) + bytes(2048)), into)


def test_cut_off(bundle: Path, into: Path) -> None:
    """An archive that ends anywhere before its end is not taken for a whole one."""
    content = packed_bundle(bundle, "colour-1")
    for length in [
        *range(2, 40),
        *range(40, len(content), len(content) // 60),
        *range(len(content) - 30, len(content)),
    ]:
        shutil.rmtree(into)
        into.mkdir()
        assert "x.tar.gz is cut off or damaged" in refused(content[:length], into), length


def test_damaged_anywhere(bundle: Path, into: Path) -> None:
    """Whatever a few altered bytes make of an archive, it is refused as any other, and nothing strange is written."""
    plain = gzip.decompress(packed_bundle(bundle, "colour-1"))
    for number in range(MUTATIONS):
        chance = random.Random(number)
        content = bytearray(plain if number % 2 else gzip.compress(plain, 1))
        for _ in range(chance.randrange(1, 6)):
            header = chance.randrange(len(plain) // 512) * 512 if number % 2 else 0
            at = header + chance.randrange(512) if chance.random() < 0.7 else chance.randrange(len(content))
            content[at % len(content)] = chance.randrange(256)
        shutil.rmtree(into)
        into.mkdir()
        with suppress(ModelError):
            unpacked(gzip.compress(bytes(content), 1) if number % 2 else bytes(content), into)
        assert list(into.parent.iterdir()) == [into]
        assert {path.name for path in into.iterdir()} <= set(FILES)


def test_a_source_that_fails(into: Path) -> None:
    """That reading fails is the disk's or the network's fault, and not the archive's."""

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            found = super().read(size)
            if not found:
                raise OSError(5, "Input/output error")
            return found

    whole = made(("manifest.json", random.Random(0).randbytes(200_000)))
    with pytest.raises(StoreError) as caught:
        unpack(Source(Failing(whole[:100_000]), "x"), into, any_room)
    assert (str(caught.value), caught.value.exit_code) == ("x: input/output error", EXIT_FAILED)


# --- folders ------------------------------------------------------------------------------------------------------------


def test_no_folder_of_a_bundle(tmp_path: Path, into: Path) -> None:
    """A folder without a manifest is no bundle; of a SavedModel, what makes one of it is said."""
    with pytest.raises(
        ModelError, match=r"is no bundle: manifest.json is missing; name a bundle's folder, or its archive"
    ):
        copy(tmp_path, into, any_room)
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ModelError, match=r"it is a SavedModel: scripts/build_model.sh makes a bundle of it"):
        copy(tmp_path, into, any_room)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    """An archive that cannot be opened is named, with the system's reason."""
    with pytest.raises(ModelError) as caught, archive.opened(tmp_path / "gone.tar.gz"):
        pass
    assert str(caught.value) == f"{tmp_path / 'gone.tar.gz'}: no such file or directory"
