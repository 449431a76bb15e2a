"""The report's plots, as PNG: one output's values, SavedModel against .tflite, and how far apart they are.

Nothing of pyplot: no window, no state, and the same bytes for the same values. A style of the user's own is not asked for.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_runner.builder.report.style import COLORS, FONTS
from edge_runner.frame import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_PX, HEIGHT_PX = 440, 340
"""On the page, in CSS pixels; a plot has twice as many each way."""
CSS_DPI, DENSITY = 96, 2
BINS = 41  # an odd number: one is centred on no error
MARGIN = 0.04  # of the values' range, around a scatter


def scatter(reference: Tensor, got: Tensor) -> bytes:
    """The SavedModel's values to the right, the .tflite's upwards, and the diagonal that they should lie on; float64 [n] each."""
    reference, got = _finite(reference, got)
    both = np.concatenate([reference, got]) if len(got) else np.zeros(1)
    margin = MARGIN * (float(np.ptp(both)) or 1.0)
    limits = float(both.min()) - margin, float(both.max()) + margin
    with _axes() as (axes, file):
        axes.axline((limits[0], limits[0]), slope=1, color=COLORS["faint"], linewidth=0.8, zorder=1)
        axes.scatter(reference, got, s=9, color=COLORS["accent"], alpha=0.45, linewidths=0, zorder=2)
        axes.set(xlim=limits, ylim=limits, xlabel="SavedModel", ylabel=".tflite", aspect="equal")
    return file.getvalue()


def histogram(reference: Tensor, got: Tensor) -> bytes:
    """How many values are how far off, .tflite minus SavedModel; float64 [n] each."""
    reference, got = _finite(reference, got)
    errors = got - reference
    worst = float(np.max(np.abs(errors), initial=0.0))
    with _axes() as (axes, file):
        axes.axvline(0, color=COLORS["faint"], linewidth=0.8, zorder=1)
        limits = (-worst, worst) if worst else (-1.0, 1.0)
        axes.hist(errors, bins=BINS, range=limits, log=bool(len(errors)), color=COLORS["accent"], zorder=2)
        axes.set(xlabel=".tflite minus SavedModel", ylabel="values (logarithmic)")
        axes.set_ylim(bottom=0.7)
    return file.getvalue()


@contextmanager
def _axes() -> Iterator[tuple[Axes, io.BytesIO]]:
    """Axes to draw on in the page's style, and the file that holds the PNG afterwards."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    file = io.BytesIO()
    with mpl.rc_context(_style()):
        size = (WIDTH_PX / CSS_DPI, HEIGHT_PX / CSS_DPI)
        figure = Figure(figsize=size, dpi=CSS_DPI * DENSITY, layout="constrained")
        axes = figure.add_subplot()
        axes.locator_params(nbins=5)
        axes.ticklabel_format(scilimits=(-3, 4))
        yield axes, file
        figure.savefig(file, format="png", metadata={"Software": None})


def _style() -> Any:
    """The settings; matplotlib's type for them is a list of their names."""
    from matplotlib.font_manager import fontManager

    known = {font.name for font in fontManager.ttflist}  # naming one that is not there makes matplotlib complain
    lines = dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), COLORS["hairline"])
    words = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), COLORS["quiet"])
    return {
        **lines,
        **words,
        "font.family": [name for name in FONTS if name in known],
        "font.size": 9,
        "figure.facecolor": COLORS["paper"],
        "axes.facecolor": COLORS["paper"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.unicode_minus": True,
    }


def _finite(reference: Tensor, got: Tensor) -> tuple[Tensor, Tensor]:
    """The pairs of numbers among them: matplotlib draws no NaN, and takes no limit from one."""
    kept = np.isfinite(reference) & np.isfinite(got)
    return reference[kept], got[kept]
