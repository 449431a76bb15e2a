"""Labels as people write them, and as models carry them."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from edge_runner.errors import ModelError
from edge_runner.model.labels import EMBEDDED_MOST_BYTES, embedded_labels, parse_labels, read_labels

pytestmark = pytest.mark.arm


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"cat\ndog\n", ("cat", "dog")),
        (b"cat\ndog", ("cat", "dog")),
        (b"cat\r\ndog\r\n", ("cat", "dog")),
        (b"\xef\xbb\xbfcat\ndog\n", ("cat", "dog")),
        (b"cat\ndog\n\n\n", ("cat", "dog")),
        (b"  cat \n\tdog", ("cat", "dog")),
        ("Kätzchen\nGoldfisch, gemein\n".encode(), ("Kätzchen", "Goldfisch, gemein")),
        (b"background\ncat\n", ("background", "cat")),
        (b"0 cat\n1 dog\n", ("cat", "dog")),
        (b"0: cat\n1: dog\n", ("cat", "dog")),
        (b"0:cat\n1:dog\n", ("cat", "dog")),
        (b"0  person\n2  car\n5  big dog\n", ("person", "???", "car", "???", "???", "big dog")),
        (b"1 cat\n2 dog\n", ("???", "cat", "dog")),
        (b"person\n???\ncar\n", ("person", "???", "car")),
        (b"0\n1\n2\n", ("0", "1", "2")),
        (b"7 up\ncola\n", ("7 up", "cola")),
        (b"2 euro\n1 euro\n", ("2 euro", "1 euro")),
        (b"5 cent\n5 euro\n", ("5 cent", "5 euro")),
        (b"5000 metres\n10000 metres\n", ("5000 metres", "10000 metres")),
    ],
)
def test_parse(content: bytes, expected: tuple[str, ...]) -> None:
    """One label a line, or numbered lines, with gaps; anything else about the bytes does not matter."""
    assert parse_labels(content) == expected


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no labels in it"),
        (b" \n\n", "no labels in it"),
        (b"cat\n\ndog\n", "line 2 is blank; each line is the label of one class (write ??? for an unused one)"),
        (b"\ncat\n", "line 1 is blank"),
        (b"0 cat\n\n1 dog\n", "line 2 is blank"),
        (b"cat\nK\xe4tzchen\n", "not UTF-8 text (byte 5)"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "not UTF-8 text (byte 0)"),
    ],
)
def test_refused(tmp_path: Path, content: bytes, says: str) -> None:
    """A file that is no list of labels is refused, with its name and what is wrong."""
    path = tmp_path / "labels.txt"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_labels(path)
    assert caught.value.key == "model.labels"
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    """A file that cannot be read is named."""
    with pytest.raises(ModelError, match=r"labels\.txt: no such file"):
        read_labels(tmp_path / "labels.txt")
    with pytest.raises(ModelError, match="is a directory"):
        read_labels(tmp_path)


def appended(model: bytes, *files: tuple[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    """A model with associated files, as TFLite's metadata writer puts them: a zip after the model."""
    archive = io.BytesIO(model)
    with zipfile.ZipFile(archive, "a", how) as file:
        for name, content in files:
            file.writestr(name, content)
    return archive.getvalue()


def test_embedded(data: Path) -> None:
    """Labels are found in a model's metadata, by their name where there are several texts; most models have none."""
    model = (data / "colour.tflite").read_bytes()
    assert embedded_labels((data / "labelled.tflite").read_bytes()) == ("red", "green", "blue")
    assert embedded_labels(model) is None
    assert embedded_labels(appended(model, ("README.md", b"cat"))) is None
    assert embedded_labels(appended(model, ("classes.txt", b"cat\ndog"))) == ("cat", "dog")
    both = appended(model, ("vocabulary.txt", b"a"), ("Labels_en.txt", b"cat\ndog"))
    assert embedded_labels(both) == ("cat", "dog")
    assert embedded_labels(appended(model, ("labels.txt", b"cat\ndog"), how=zipfile.ZIP_DEFLATED)) == ("cat", "dog")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("temp_meta.txt", b"{'task': 'detect', 'names': {0: 'ant', 1: \"bee's\", 2: 'a: b'}, 'size': [8, 8]}", "ant|bee's|a: b"),
        ("metadata.json", b'{"imgsz": [8, 8], "names": {"0": "ant", "1": "bee", "3": "dog"}}', "ant|bee|???|dog"),
        ("temp_meta.txt", b"{'task': 'detect'}", None),
        ("temp_meta.txt", b"{'names': {}}", None),
        ("temp_meta.txt", b"{'names': {99999: 'far'}}", None),
        ("temp_meta.txt", b"{'names': {0: 'ant', 1: 'be", None),
        ("temp_meta.txt", b"{\xff", None),
    ],
)  # fmt: skip
def test_embedded_in_a_description(data: Path, name: str, content: bytes, expected: str | None) -> None:
    """Ultralytics puts the classes' names into a description of the model, as Python or JSON: that is no list of labels."""
    found = embedded_labels(appended((data / "colour.tflite").read_bytes(), (name, content)))
    assert found == (tuple(expected.split("|")) if expected else None)


def test_embedded_bomb(data: Path) -> None:
    """What unpacks to more than any list of labels is left alone, and not unpacked either."""
    model = (data / "colour.tflite").read_bytes()
    bomb = appended(model, ("labels.txt", b"cat\n" * 25_000_000), how=zipfile.ZIP_DEFLATED)
    assert len(bomb) < EMBEDDED_MOST_BYTES
    tracemalloc.start()
    try:
        assert embedded_labels(bomb) is None
        assert tracemalloc.get_traced_memory()[1] < 4 * EMBEDDED_MOST_BYTES
    finally:
        tracemalloc.stop()


def test_embedded_damage(data: Path) -> None:
    """A damaged zip is no reason to refuse a model that runs: it has no labels then, or other ones."""
    good = appended((data / "colour.tflite").read_bytes(), ("labels.txt", b"cat\ndog\n" * 9), how=zipfile.ZIP_DEFLATED)
    start = (data / "colour.tflite").stat().st_size
    refused = 0
    for position in range(start, len(good)):
        for value in (0, 1, 0x7F, 0xFF):
            found = embedded_labels(good[:position] + bytes([value]) + good[position + 1 :])
            refused += found is None
        assert embedded_labels(good[:position]) is None
    assert refused > len(good) - start  # most of it matters
