"""The plots of the learning experiment's page, each a string of inline SVG, drawn from its results."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from workers.drawing import BAD, FIRST, INK, MEANT, SECOND, STYLE, WIDTH, percent, svg

Values = Mapping[str, Any]
COLOURS = (SECOND, MEANT, BAD, FIRST)
STYLES = ("-", "--", ":")
WHO = {
    "live": ("what happened", SECOND, "-"),
    "serving": ("the serving release, no live statistics", MEANT, "--"),
    "static": ("the first release alone", FIRST, "-"),
}


def climb(curves: Mapping[str, Values], full: Values, name: str) -> str:
    """Top-1 after each cycle, one panel a condition: a line each, with its interval; dashed: full supervision."""
    conditions = list(full["top1"])
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 3.1), layout="constrained")
        axes = figure.subplots(1, len(conditions), squeeze=False)[0]
        for ax, condition in zip(axes, conditions, strict=True):
            for at, (label, curve) in enumerate(curves.items()):
                _line(ax, [point[condition] for point in curve["top1"]], at, label)
            ax.axhline(full["top1"][condition]["mean"], color=INK, linestyle="--", linewidth=1)
            ax.plot([], [], "--", color=INK, linewidth=1, label="full supervision")
            ax.set_title("mean of the three" if condition == "all" else f"{condition} % linked")
            ax.set_xlabel("cycles")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            percent(ax, "y")
        axes[0].set_ylabel("top-1 on dev rows")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return svg(figure, name, "Top-1 of the decision after each cycle")


def _line(ax: Axes, points: Sequence[Values], at: int, label: str) -> None:
    x, colour = range(len(points)), COLOURS[at % len(COLOURS)]
    style = STYLES[at // len(COLOURS) % len(STYLES)]
    ax.plot(x, [point["mean"] for point in points], style, marker="o", color=colour, markersize=4, label=label)
    if "low" in points[0] and at < 1:
        low, high = ([point[side] for point in points] for side in ("low", "high"))
        ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def course(parts: Sequence[Values], measure: str, label: str, name: str, changes: int | None = None) -> str:
    """A measure over all that was asked, a tenth of a part a point; a line where the world changes."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 2.9), layout="constrained")
        ax = figure.subplots()
        for who, (told, colour, style) in WHO.items():
            if who in parts[0]["slices"]:
                slices = [one for part in parts for one in part["slices"][who]]
                ends = np.cumsum([one["requests"] for one in slices])
                middles = ends - np.asarray([one["requests"] for one in slices]) / 2
                ax.plot(middles, [_share(one, measure) for one in slices], style, color=colour, label=told)
        bounds = np.cumsum([part["asked"] for part in parts])
        for bound in bounds[:-1]:
            ax.axvline(bound, color=INK, alpha=0.3, linewidth=1, linestyle=":")
        if changes is not None:
            ax.axvline(bounds[changes - 1], color=BAD, linewidth=1.5, label="the world changes")
        ax.set_ylim(0, None)
        ax.set_xlabel("requests; dotted: a cycle")
        ax.set_ylabel(label)
        percent(ax, "y")
        figure.legend(loc="outside lower center", ncols=4)
        return svg(figure, name, label)


def _share(one: Values, measure: str) -> float:
    """Counts as shares of the requests."""
    value = float(one[measure])
    return value if measure.startswith("not_") else value / max(one["requests"], 1)
