"""A model's labels: from a file, or from the metadata that a .tflite file carries as a zip at its end."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from pathlib import Path

from edge_runner.errors import ModelError

NUMBERED = re.compile(r"\s*(\d+)\s*[:\s]\s*(\S.*?)\s*")
NAMES = re.compile(r"""["']names["']\s*:\s*\{([^}]*)\}""")
NAMED = re.compile(r"""["']?(\d{1,6})["']?\s*:\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")
EMBEDDED_MOST_BYTES = 4_000_000  # of the labels inside a model, unpacked: more is no label file
# What Python raises of a damaged zip; OverflowError on 32 bit, where it leads far outside.
UNZIPPING = (
    zipfile.BadZipFile,
    zlib.error,
    ValueError,
    OSError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OverflowError,
)
UNUSED = "???"  # a slot of the model that stands for nothing, as in COCO's 90


def read_labels(path: Path) -> tuple[str, ...]:
    """The labels of a text file, one a line, or numbered (`0 cat`); raise ModelError where it is no such file."""
    try:
        return parse_labels(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: {(error.strerror or str(error)).lower()}", key="model.labels") from error
    except ValueError as error:
        raise ModelError(f"{path}: {error}", key="model.labels") from error


def parse_labels(content: bytes) -> tuple[str, ...]:
    """The labels in a file's bytes; raise ValueError where they are none."""
    try:
        lines = content.decode("utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text (byte {error.start}); one label a line is wanted") from error
    if not lines:
        raise ValueError("no labels in it; one label a line is wanted")
    matches = [NUMBERED.fullmatch(line) for line in lines]
    numbered = [(int(match[1]), match[2]) for match in matches if match]
    numbers = [number for number, _ in numbered]
    if len(numbered) == len(lines) and numbers == sorted(set(numbers)) and numbers[-1] < 10 * len(lines) + 100:
        names = dict(numbered)
        return tuple(names.get(index, UNUSED) for index in range(numbers[-1] + 1))
    blank = next((i for i, line in enumerate(lines, 1) if not line.strip()), None)
    if blank:
        raise ValueError(
            f"line {blank} is blank; each line is the label of one class (write {UNUSED} for an unused one)"
        )
    return tuple(line.strip() for line in lines)


def embedded_labels(content: bytes) -> tuple[str, ...] | None:
    """The labels inside a .tflite file's bytes, None where it has none.

    TFLite metadata (tensorflow.org/lite/models/metadata) appends associated files to the model as an uncompressed zip; so does
    Ultralytics, with a description of the model that has the classes' names among much else.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            texts = [name for name in archive.namelist() if name.endswith((".txt", "metadata.json"))]
            chosen = [name for name in texts if "label" in name.lower()] or texts
            if not chosen:
                return None
            with archive.open(chosen[0]) as file:
                found = file.read(EMBEDDED_MOST_BYTES + 1)
            if len(found) > EMBEDDED_MOST_BYTES:
                return None
            return _described_labels(found) if found.lstrip().startswith(b"{") else parse_labels(found)
    except UNZIPPING:
        return None


def _described_labels(content: bytes) -> tuple[str, ...] | None:
    """The `names` of a description, {…, 'names': {0: 'person', 1: 'bicycle', …}}, as Python or JSON writes it; None without."""
    found = NAMES.search(content.decode("utf-8"))
    names = {int(number): text[1:-1].replace("\\'", "'") for number, text in NAMED.findall(found[1])} if found else {}
    if not names or max(names) >= 10 * len(names) + 100:
        return None
    return tuple(names.get(index, UNUSED) for index in range(max(names) + 1))
