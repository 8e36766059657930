"""How the pages' plots are drawn: one style, and SVG whose colours are those of the page.

matplotlib draws with stand-in colours; `svg` puts the page's CSS variables in their place, so that a plot reads
in light and dark. No text of a plot is markup, and none comes from a customer.
"""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workers.judged import Bin

FIRST, SECOND, MEANT, INK, FAINT, BAD = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_IN_PAGE = {
    FIRST: "var(--first)",
    SECOND: "var(--second)",
    MEANT: "var(--meant)",
    INK: "currentColor",
    FAINT: "var(--line)",
    BAD: "var(--bad)",
}
STYLE: Any = {  # matplotlib types its keys one by one
    "svg.fonttype": "none",  # text stays text: it can be found, copied and read aloud
    "svg.hashsalt": "namefree",  # equal findings, equal page
    "text.parse_math": False,
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.labelcolor": INK,
}
WIDTH = 9.5  # inches; the page scales it


def percent(ax: Axes, axis: str) -> None:
    """Shares of 1 as percentages along `axis`, x or y, with a grid."""
    line = ax.xaxis if axis == "x" else ax.yaxis
    line.set_major_formatter(lambda value, _: f"{round(100 * value, 2):g} %")
    line.grid(True)


def svg(figure: Figure, name: str, title: str) -> str:
    """The figure as an `svg` element: no prolog, no metadata, ids that no other plot has, the page's colours."""
    written = io.StringIO()
    figure.savefig(written, format="svg", transparent=True)
    text = written.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s+xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for stand_in, colour in _IN_PAGE.items():
        text = text.replace(stand_in, colour)
    text = re.sub(r" font-family: [^;\"]*;", "", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1).strip()


def diagonal(x: str, y: str) -> tuple[Figure, Axes]:
    """A square for shares against probabilities, with the line on which both are the same."""
    figure = Figure((5.2, 4.4), layout="constrained")
    ax = figure.subplots()
    ax.plot((0, 1), (0, 1), "--", color=INK, alpha=0.45, linewidth=1)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.set_aspect("equal")
    ax.set_xlim(-0.02, 1.04)
    ax.set_ylim(-0.02, 1.04)
    percent(ax, "x")
    percent(ax, "y")
    return figure, ax


def reliability(series: Sequence[tuple[str, str, Sequence[Bin]]], title: str) -> str:
    """The share that was right against the probability that was told, for each of (name, colour, bins); the larger
    the dot, the more answers, and the diagonal is a perfect match."""
    with matplotlib.rc_context(STYLE):
        figure, ax = diagonal("first probability of the decision", "share that was right")
        for name, colour, bins in series:
            x, y = [part.probability for part in bins], [part.right for part in bins]
            total = max(1, sum(part.count for part in bins))
            ax.plot(x, y, color=colour, linewidth=1.5)
            ax.scatter(x, y, [18 + 240 * part.count / total for part in bins], color=colour, alpha=0.75)
            ax.plot([], [], "o-", color=colour, label=name)
        figure.legend(loc="outside upper right", ncols=2)
        return svg(figure, "reliability", title)
