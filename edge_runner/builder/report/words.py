"""Figures as the report writes them."""

from __future__ import annotations

from collections.abc import Iterable

MISSING = "–"


def size(count: int) -> str:
    """Bytes as `16.12 MB`, or `70.2 kB` below one of them: decimal units, as file managers have them."""
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB" if count else "0 kB"


def percent(fraction: float) -> str:
    """A fraction as `0.40%`; what is not quite none or all of it is never rounded to that."""
    if fraction in (0, 1):
        return f"{fraction:.0%}"
    shown = f"{fraction:.2%}"
    return {"0.00%": "<0.01%", "100.00%": ">99.99%"}.get(shown, shown)


def limit(fraction: float) -> str:
    """A fraction that somebody set, `1%`: with the digits that it was set with."""
    return f"{100 * fraction:g}%"


def cosine(value: float) -> str:
    """A cosine as `0.999987`."""
    return f"{value:.6f}"


def real(value: float) -> str:
    """A value or an error of a model's output, with four significant digits."""
    return f"{value:.4g}"


def listed(values: Iterable[float]) -> str:
    """Numbers as the command line takes them, `123.675, 116.28, 103.53`."""
    return ", ".join(f"{value:g}" for value in values)
