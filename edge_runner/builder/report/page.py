"""What a page can hold: sections of words, facts, tables, plots and pictures. How it is written down is the renderers' matter.

Words are plain text; whatever they hold, it is the renderers that escape it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Tone = Literal["good", "caveat", "bad", ""]


class Mono(str):
    """A name, a sum, a shape: shown in a monospaced face, every character as it is."""

    __slots__ = ()


@dataclass(frozen=True)
class Verdict:
    """What the page comes to, in two or three words, and why."""

    tone: Tone
    title: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Tile:
    """One figure to be seen at a glance."""

    name: str
    value: str
    note: str
    tone: Tone = ""


@dataclass(frozen=True)
class Tiles:
    """A few figures side by side."""

    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Text:
    """A paragraph; a `quiet` one explains what stands beside it."""

    text: str
    quiet: bool = False


@dataclass(frozen=True)
class Facts:
    """Names and what they are; those without a value are left out."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Row:
    """A table's row; `tag` says in a word why it is `tone`d, `chosen` that it is the one that counts."""

    cells: tuple[str, ...]
    tag: str = ""
    tone: Tone = ""
    chosen: bool = False


@dataclass(frozen=True)
class Table:
    """`align` has a letter a column: l left, r right (figures), w words, which may be broken into lines."""

    head: tuple[str, ...]
    align: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Code:
    """A command, as it is typed."""

    text: str


@dataclass(frozen=True)
class Image:
    """A PNG, made when it is asked for. `width` and `height` are its size in CSS pixels; `coarse` shows its pixels as squares."""

    png: Callable[[], bytes]
    width: int
    height: int
    words: str
    caption: str = ""
    coarse: bool = False


@dataclass(frozen=True)
class Plots:
    """Images side by side where there is room. Words cannot stand for them: a page of text leaves them out."""

    images: tuple[Image, ...]


@dataclass(frozen=True)
class Card:
    """Pictures of one thing, and lists about it: a heading, and (words, figure) a line."""

    title: str
    images: tuple[Image, ...]
    lists: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    tag: str = ""
    tone: Tone = ""


@dataclass(frozen=True)
class Cards:
    """Cards side by side where there is room, with lists of the same headings; a page of text has a table of these."""

    cards: tuple[Card, ...]


Block = Tiles | Text | Facts | Table | Code | Plots | Cards


@dataclass(frozen=True)
class Section:
    """A heading and what belongs to it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """All of it, in the order of reading. `over` and `under` stand at the title, `end` at the foot."""

    over: str
    title: str
    under: str
    verdict: Verdict
    tiles: Tiles
    sections: tuple[Section, ...]
    end: str
