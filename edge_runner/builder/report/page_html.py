"""A page as one HTML file: its style and its pictures are in it, and it loads and runs nothing."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from functools import singledispatch
from html import escape

from edge_runner.builder.report.page import (
    Block,
    Card,
    Cards,
    Code,
    Facts,
    Image,
    Mono,
    Page,
    Plots,
    Row,
    Section,
    Table,
    Text,
    Tile,
    Tiles,
    Verdict,
)
from edge_runner.builder.report.style import style_sheet

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
SIGNS = {"good": "M13 23l7 7 12-15", "caveat": "M22 12v13m0 7v.01", "bad": "M15 15l14 14m0-14L15 29"}  # in 44 by 44
WHOLE = re.compile(r"--[a-z][\w-]*( [A-Z]+\b)?|\d{4}-\d\d-\d\dT[\d:.]+Z|[\d.]+ [kM]B\b")
"""Options, times and sizes: no line ends in the middle of one."""
CLASSES = {"l": "", "r": ' class="n"', "w": ' class="wide"'}


def render(page: Page) -> str:
    """The whole page; it ends with a new line."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(page.title)} · {escape(page.over)}</title>
<style>{style_sheet()}</style>
</head>
<body>
<main>
<header>
<p class="over">{shown(page.over)}</p>
<h1>{shown(page.title)}</h1>
<p class="under">{shown(page.under)}</p>
</header>
{_verdict(page.verdict)}
{block(page.tiles)}
{_joined(map(_section, page.sections))}
<footer class="quiet"><p>{shown(page.end)}</p></footer>
</main>
</body>
</html>
"""


def shown(text: str) -> str:
    """Text as it is read: nothing in it is markup."""
    inner = WHOLE.sub(r'<span class="whole">\g<0></span>', escape(text))
    return f"<code>{inner}</code>" if isinstance(text, Mono) and text else inner


@singledispatch
def block(given: Block) -> str:
    """One block."""
    raise TypeError(f"a page has no {type(given).__name__}; its blocks are those of page.Block")


@block.register
def _(tiles: Tiles) -> str:
    return f'<dl class="tiles">{_joined(map(_tile, tiles.tiles))}</dl>'


@block.register
def _(text: Text) -> str:
    quiet = ' class="quiet"' if text.quiet else ""
    return f"<p{quiet}>{shown(text.text)}</p>"


@block.register
def _(facts: Facts) -> str:
    rows = (f"<dt>{shown(name)}</dt><dd>{shown(value)}</dd>" for name, value in facts.rows if value)
    return f'<dl class="facts">{_joined(rows)}</dl>'


@block.register
def _(table: Table) -> str:
    heads = zip(table.head, table.align, strict=True)
    head = "".join(f'<th scope="col"{CLASSES[side] if side == "r" else ""}>{shown(name)}</th>' for name, side in heads)
    rows = _joined(_row(row, table.align) for row in table.rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


@block.register
def _(code: Code) -> str:
    return f"<pre>{escape(code.text)}</pre>"


@block.register
def _(plots: Plots) -> str:
    return f'<div class="plots">{_joined(map(_image, plots.images))}</div>'


@block.register
def _(cards: Cards) -> str:
    return f'<div class="cards">{_joined(map(_card, cards.cards))}</div>'


def _verdict(verdict: Verdict) -> str:
    sign = f'<svg viewBox="0 0 44 44"><path d="{SIGNS.get(verdict.tone, "")}"/></svg>'
    reasons = _joined(f"<p>{shown(reason)}</p>" for reason in verdict.reasons)
    return (
        f'<section class="verdict {verdict.tone}"><div class="sign" aria-hidden="true">{sign}</div>'
        f'<strong>{shown(verdict.title)}</strong><div></div><div class="words">{reasons}</div></section>'
    )


def _section(section: Section) -> str:
    return f"<section>\n<h2>{shown(section.title)}</h2>\n{_joined(map(block, section.blocks))}\n</section>"


def _tile(tile: Tile) -> str:
    value = f'<dd class="value {tile.tone}">{shown(tile.value)}</dd>'
    return f'<div><dt>{shown(tile.name)}</dt>{value}<dd class="note">{shown(tile.note)}</dd></div>'


def _row(row: Row, align: str) -> str:
    cells = [shown(cell) for cell in row.cells]
    if row.tag:
        cells[0] += f'<span class="tag">{shown(row.tag)}</span>'
    classes = " ".join(filter(None, (row.tone, "on" if row.chosen else "")))
    inner = "".join(f"<td{CLASSES[side]}>{cell}</td>" for cell, side in zip(cells, align, strict=True))
    return f'<tr class="{classes}">{inner}</tr>' if classes else f"<tr>{inner}</tr>"


def _card(card: Card) -> str:
    tag = f'<span class="tag">{shown(card.tag)}</span>' if card.tag else ""
    lists = "".join(_list(heading, items) for heading, items in card.lists if items)
    images = "".join(map(_image, card.images))
    return (
        f'<article class="card {card.tone}"><h3>{shown(card.title)}{tag}</h3>'
        f'<div class="pair">{images}</div><div class="answers">{lists}</div></article>'
    )


def _list(heading: str, items: Iterable[tuple[str, str]]) -> str:
    lines = "".join(f"<li><span>{shown(words)}</span><span>{shown(figure)}</span></li>" for words, figure in items)
    return f"<div><h4>{shown(heading)}</h4><ol>{lines}</ol></div>"


def _image(image: Image) -> str:
    """A picture's share of a row's width is as its form is, so that pictures side by side are equally high."""
    data = base64.b64encode(image.png()).decode("ascii")
    coarse = ' class="pixelated"' if image.coarse else ""
    caption = f"<figcaption>{shown(image.caption)}</figcaption>" if image.caption else ""
    return (
        f'<figure style="--form: {image.width / image.height:.4g}"><img src="data:image/png;base64,{data}"'
        f' width="{image.width}" height="{image.height}" alt="{escape(image.words)}"{coarse}>{caption}</figure>'
    )


def _joined(parts: Iterable[str]) -> str:
    return "\n".join(parts)
