"""A page as Markdown: words and tables, aligned so that they can be read as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import singledispatch

from edge_runner.builder.page import Block, Cards, Code, Facts, Mono, Page, Plots, Row, Table, Text, Tiles

# What Markdown, with GitHub's tables, would take for markup in the middle of a line.
MARKUP = re.compile(r"[\\`*|]|(?<!\w)_|_(?!\w)|~(?=~)|<(?=[A-Za-z/!?])|&(?=#?\w+;)|\](?=[(\[])")
SIGNS = {"good": "✔", "caveat": "⚠", "bad": "✘"}


def render(page: Page, note: str) -> str:
    """The whole page, with a note on what is not in it; it ends with a new line."""
    parts = [f"# {escaped(page.title)}", f"{escaped(page.over)}. {escaped(page.under)}. {escaped(note)}"]
    parts.append(f"## {SIGNS.get(page.verdict.tone, '')} {escaped(page.verdict.title)}")
    parts += map(escaped, page.verdict.reasons)
    parts.append(block(page.tiles))
    for section in page.sections:
        parts += [f"## {escaped(section.title)}", *map(block, section.blocks)]
    parts += ["---", escaped(page.end)]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: str) -> str:
    """Text as it is read, on one line: nothing in it is markup."""
    line = " ".join(text.splitlines())
    if isinstance(text, Mono) and line:
        return _code(line)
    return MARKUP.sub(r"\\\g<0>", line)


@singledispatch
def block(_: Block) -> str:
    """One block; plots, which words cannot stand for, are none."""
    raise NotImplementedError


@block.register
def _(tiles: Tiles) -> str:
    return _table(["", "", ""], "lll", ([tile.name, tile.value, tile.note] for tile in tiles.tiles))


@block.register
def _(text: Text) -> str:
    return escaped(text.text)


@block.register
def _(facts: Facts) -> str:
    return _table(["", ""], "ll", (row for row in facts.rows if row[1]))


@block.register
def _(table: Table) -> str:
    return _table(table.head, table.align, map(_row, table.rows))


@block.register
def _(code: Code) -> str:
    longest = max(map(len, re.findall("`+", code.text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{code.text}\n{fence}"


@block.register
def _(_: Plots) -> str:
    return ""


@block.register
def _(cards: Cards) -> str:
    if not cards.cards:
        return ""
    head = ["", *(heading for heading, _ in cards.cards[0].lists)]
    rows = [
        [
            " ".join(filter(None, (card.title, card.tag and f"({card.tag})"))),
            *(_listed(items) for _, items in card.lists),
        ]
        for card in cards.cards
    ]
    return _table(head, "l" * len(head), rows)


def _row(row: Row) -> list[str]:
    """The cells; the tag is put beside the first."""
    cells = [_cell(cell) for cell in row.cells]
    if row.tag:
        cells[0] += f" **({escaped(row.tag)})**"
    return [_Done(cell) for cell in cells]


def _listed(items: Iterable[tuple[str, str]]) -> str:
    return ", ".join(" ".join(filter(None, item)) for item in items)


class _Done(str):
    """A cell that is escaped already."""

    __slots__ = ()


def _table(head: Sequence[str], align: str, rows: Iterable[Sequence[str]]) -> str:
    """A table of GitHub's kind, its columns as wide as their widest cell."""
    lines = [[_cell(cell) for cell in cells] for cells in (head, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * (width - 1) + ":" if side == "r" else "-" * width for side, width in zip(align, widths, strict=True)]
    return "\n".join(_line(cells, align, widths) for cells in (lines[0], rule, *lines[1:]))


def _line(cells: Sequence[str], align: str, widths: Sequence[int]) -> str:
    padded: Iterator[str] = (
        cell.rjust(width) if side == "r" else cell.ljust(width)
        for cell, side, width in zip(cells, align, widths, strict=True)
    )
    return f"| {' | '.join(padded)} |"


def _cell(text: str) -> str:
    """A table's cell: its columns are told apart before anything else is, even within code."""
    if isinstance(text, _Done):
        return text
    return escaped(text).replace("|", r"\|") if isinstance(text, Mono) else escaped(text)


def _code(line: str) -> str:
    """A span of code, its fence longer than any in it."""
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"
