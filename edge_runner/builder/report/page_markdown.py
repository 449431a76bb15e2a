"""A page as Markdown: words and tables, aligned so that they can be read as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import singledispatch

from edge_runner.builder.report.page import Block, Card, Cards, Code, Facts, Mono, Page, Plots, Row, Table, Text, Tiles

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
def block(given: Block) -> str:
    """One block; plots, which words cannot stand for, are none."""
    raise TypeError(f"a page has no {type(given).__name__}; its blocks are those of page.Block")


@block.register
def _(tiles: Tiles) -> str:
    return _table(["", "", ""], "lll", (_cells(tile.name, tile.value, tile.note) for tile in tiles.tiles))


@block.register
def _(text: Text) -> str:
    return escaped(text.text)


@block.register
def _(facts: Facts) -> str:
    return _table(["", ""], "ll", (_cells(*row) for row in facts.rows if row[1]))


@block.register
def _(table: Table) -> str:
    return _table(_cells(*table.head), table.align, map(_row, table.rows))


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
    head = ["", *(heading for heading, _ in cards.cards[0].lists)]
    return _table(_cells(*head), "l" * len(head), map(_card, cards.cards))


def _card(card: Card) -> list[str]:
    lists = (", ".join(" ".join(filter(None, item)) for item in items) for _, items in card.lists)
    return _tagged(_cells(card.title, *lists), card.tag)


def _row(row: Row) -> list[str]:
    return _tagged(_cells(*row.cells), row.tag)


def _tagged(cells: list[str], tag: str) -> list[str]:
    """The cells, with the tag beside the first."""
    return [f"{cells[0]} **({escaped(tag)})**", *cells[1:]] if tag else cells


def _cells(*texts: str) -> list[str]:
    """Texts as a table's cells: columns are told apart before anything else is, even within code."""
    return [escaped(text).replace("|", r"\|") if isinstance(text, Mono) else escaped(text) for text in texts]


def _table(head: Sequence[str], align: str, rows: Iterable[Sequence[str]]) -> str:
    """A table of GitHub's kind, its columns as wide as their widest cell."""
    lines = [head, *rows]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * (width - 1) + ":" if side == "r" else "-" * width for side, width in zip(align, widths, strict=True)]
    return "\n".join(_line(cells, align, widths) for cells in (head, rule, *lines[1:]))


def _line(cells: Sequence[str], align: str, widths: Sequence[int]) -> str:
    padded: Iterator[str] = (
        cell.rjust(width) if side == "r" else cell.ljust(width)
        for cell, side, width in zip(cells, align, widths, strict=True)
    )
    return f"| {' | '.join(padded)} |"


def _code(line: str) -> str:
    """A span of code, its fence longer than any in it."""
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"
