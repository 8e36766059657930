"""How the pages' plots are drawn: one style, and SVG whose colours are those of the page.

matplotlib draws with stand-in colours; `svg` puts the page's CSS variables in their place, so that a plot reads
in light and dark. No text of a plot is markup, and none comes from a customer.
"""

import io
import re
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
