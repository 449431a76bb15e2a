"""Results as people and other programs want to see them: a table, CSV, and how many there are in each hour."""

from __future__ import annotations

import csv as comma
import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

from edge_runner.tools.lines import Answer, Line

CSV_COLUMNS = (
    "time", "clock", "device", "camera", "source", "run", "seq", "frame",
    "kind", "rank", "label", "index", "score", "area", "x0", "y0", "x1", "y1", "x", "y", "person",
)  # fmt: skip
OF_RESULT = CSV_COLUMNS[1:8]
PERIODS = {"minute": (16, "", ":00Z"), "hour": (13, ":00", ":00:00Z"), "day": (10, "", "T00:00:00Z")}
"""How much of a time tells in which period it is, and what that lacks for people, and of RFC 3339."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a text may begin with that a spreadsheet computes, or runs (OWASP, CSV injection)."""

ROW_END = "\r\n"  # what is in it is quoted where it stands in a text

TIME_COLUMNS = 24
CAMERA_COLUMNS = 12, 30  # at least, at most
SEQ_COLUMNS = 7
PERIOD_COLUMNS = 16
COUNT_COLUMNS = 7
LABEL_COLUMNS = 20  # at most
GAP = "  "

Period = Literal["minute", "hour", "day"]
Shown = Callable[[Line], Sequence[Answer]]


def table(lines: Iterable[Line], shown: Shown, width: int) -> Iterator[str]:
    """A line each, cut to the width: the time, with a `?` where no time service set the clock, camera or file, and the answers."""
    camera_columns, most = CAMERA_COLUMNS
    yield f"{'TIME (UTC)':<{TIME_COLUMNS}}{GAP}{'CAMERA':<{camera_columns}}{GAP}{'SEQ':>{SEQ_COLUMNS}}{GAP}ANSWERS"
    for line in lines:
        plain = line.plain
        time = line.time[:-3].decode().replace("T", " ") + ("" if plain.get("clock") == "synced" else "?")
        camera = cut(printable(plain.get("source") or plain.get("camera", "")), most)
        camera_columns = max(camera_columns, columns(camera))
        seq = printable(plain.get("seq", ""))
        start = f"{time:<{TIME_COLUMNS}}{GAP}{padded(camera, camera_columns)}{GAP}{seq:>{SEQ_COLUMNS}}{GAP}"
        yield start + fitted(words(shown(line)), width - columns(start))


def csv(lines: Iterable[Line], shown: Shown) -> Iterator[str]:
    """One row an answer, after one with the columns' names. A result without answers has none."""
    yield row(CSV_COLUMNS)
    for line in lines:
        result = [f"{line.time.decode()}Z", *map(line.plain.get, OF_RESULT)]
        for answer in shown(line):
            yield row([*result, answer.kind, answer.rank, answer.name, *_figures(answer.fields)])


class Count:
    """How many results there are in each minute, hour or day, and in how many of them each label stands."""

    def __init__(self, period: Period) -> None:
        self.period = period
        self._results: Counter[bytes] = Counter()
        self._labels: defaultdict[bytes, Counter[bytes]] = defaultdict(Counter)

    def add(self, lines: Iterable[Line], labels: Callable[[Line], list[bytes]]) -> None:
        """Results, and which labels count in each: once a result, however often one stands there."""
        end, start, counts = PERIODS[self.period][0], b"", Counter[bytes]()
        for line in lines:
            if line.time[:end] != start:
                start = line.time[:end]
                counts = self._labels[start]
            self._results[start] += 1
            found = labels(line)
            for label in found if len(found) < 2 else set(found):
                counts[label] += 1

    def json(self) -> Iterator[str]:
        """An object a period, with those labels that were there."""
        for start in sorted(self._results):
            labels = {_text(label): count for label, count in _commonest(self._labels[start])}
            found = {self.period: self._begin(start), "results": self._results[start], "labels": labels}
            yield json.dumps(found, ensure_ascii=False)

    def csv(self) -> Iterator[str]:
        """A row a period, a column a label, the commonest first."""
        labels = self._all()
        yield row([self.period, "results", *map(_text, labels)])
        for start in sorted(self._results):
            counts = self._labels[start]
            yield row([self._begin(start), self._results[start], *(counts[label] for label in labels)])

    def table(self, width: int) -> Iterator[str]:
        """The same for people: as many labels as there is room for, and all periods together in the last line."""
        total = self._all()
        names = {label: cut(printable(_text(label)) or '""', LABEL_COLUMNS) for label in total}
        shown: dict[bytes, int] = {}
        room = width - PERIOD_COLUMNS - len(GAP) - COUNT_COLUMNS
        for label, name in names.items():
            needed = max(columns(name), len(str(total[label])))
            room -= len(GAP) + needed
            if room < 0 and shown:
                break
            shown[label] = needed
        yield self._row(
            f"{self.period.upper()} (UTC)", "RESULTS", [" " * (shown[x] - columns(names[x])) + names[x] for x in shown]
        )
        for start in sorted(self._results):
            counts = [f"{self._labels[start][label] or '-':>{columns}}" for label, columns in shown.items()]
            name = _text(start).replace("T", " ") + PERIODS[self.period][1]
            yield self._row(name, self._results[start], counts)
        yield self._row(
            "all", self._results.total(), [f"{total[label]:>{columns}}" for label, columns in shown.items()]
        )
        if len(shown) < len(total):
            yield f"and {len(total) - len(shown)} labels more, which are rarer; --format csv has them all"

    def _row(self, start: str, results: object, counts: Iterable[str]) -> str:
        return GAP.join([f"{start:<{PERIOD_COLUMNS}}", f"{results:>{COUNT_COLUMNS}}", *counts])

    def _all(self) -> dict[bytes, int]:
        """Every label with its count, the commonest first."""
        total: Counter[bytes] = Counter()
        for counts in self._labels.values():
            total.update(counts)
        return dict(_commonest(total))

    def _begin(self, start: bytes) -> str:
        return _text(start) + PERIODS[self.period][2]


def row(values: Iterable[Any]) -> str:
    """A row of CSV; None is an empty field. A label or a file's name is text for a spreadsheet too, whatever it begins with."""
    rows: list[str] = []
    comma.writer(_Rows(rows), lineterminator=ROW_END).writerow(map(_inert, values))
    return rows[0].removesuffix(ROW_END)


def words(answers: Sequence[Answer]) -> list[str]:
    """Each answer in a word or two; the points of people who were detected are left out."""
    people = any(answer.kind == "detection" for answer in answers)
    return [_word(answer) for answer in answers if not (people and answer.kind == "keypoint")]


def fitted(parts: Sequence[str], room: int) -> str:
    """As many as there is room for, and how many more there are; of the first a part at least."""
    shown = GAP.join(parts) or "-"
    left = len(parts)
    while columns(shown) > room and left > 1:
        left -= 1
        shown = GAP.join([*parts[:left], f"+{len(parts) - left}"])
    return cut(shown, room)


def printable(value: Any) -> str:
    """Text that does nothing to a terminal but stand there."""
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def cut(text: str, most: int) -> str:
    """Text that fills no more columns than `most`, and shows where it was cut."""
    if columns(text) <= most:
        return text
    while text and columns(text) >= most:
        text = text[:-1]
    return text + "…"


def columns(text: str) -> int:
    """How many columns of a terminal it fills: two each for the characters of East Asia, none for what stands on others."""
    if text.isascii():
        return len(text)
    return sum((not unicodedata.combining(c)) * (2 if unicodedata.east_asian_width(c) in "WF" else 1) for c in text)


def padded(text: str, most: int) -> str:
    """Text that fills so many columns, if it does not fill more."""
    return text + " " * (most - columns(text))


class _Rows:
    """What csv.writer takes for a file."""

    def __init__(self, rows: list[str]) -> None:
        self.write = rows.append


def _commonest(counts: Counter[bytes]) -> list[tuple[bytes, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _word(answer: Answer) -> str:
    name = printable(answer.name)
    if answer.kind == "segment":
        return f"{name} {answer.score:.1%}"
    if answer.kind == "tensor":
        return f"{name} {printable(answer.fields.get('shape', ''))}"
    return f"{name} {answer.score:.{2 if answer.kind == 'keypoint' else 3}f}"


def _figures(fields: dict[str, Any]) -> list[Any]:
    """What CSV_COLUMNS has from `index` on."""
    box = fields.get("box")
    corners = box if isinstance(box, list) and len(box) == 4 else [None] * 4
    return [*map(fields.get, ("index", "score", "area")), *corners, *map(fields.get, ("x", "y", "person"))]


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _text(label: bytes) -> str:
    return label.decode("utf-8", "surrogatepass")
