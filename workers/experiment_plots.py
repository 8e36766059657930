"""The plots of the experiment's report, each a string of inline SVG, drawn from the values of `results.json`.

What is None or absent is left out of a plot.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from workers.drawing import BAD, FAINT, FIRST, INK, MEANT, SECOND, STYLE, WIDTH, diagonal, percent, svg

Values = Mapping[str, Any]
COLOURS = (FIRST, BAD, MEANT, SECOND)
TITLES = {
    "90": "90 % linked",
    "70": "70 % linked",
    "0": "0 % linked",
    "alone": "no links at all",
}
EPOCHS = {
    "linked": "share of linked skills",
    "effective": "as if so many skills",
    "top10": "share of the ten most chosen",
    "moved": "moved since the epoch before",
}


def measures(systems: Mapping[str, Values], conditions: Sequence[str]) -> str:
    """Dots with intervals: top-3 of every system in every condition."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 0.3 * len(systems) + 0.9), layout="constrained")
        axes = figure.subplots(1, len(conditions), sharex=True, sharey=True, squeeze=False)[0]
        for ax, condition in zip(axes, conditions, strict=True):
            ax.set_title(TITLES[condition])
            for at, system in enumerate(systems.values()):
                colour = SECOND if at == len(systems) - 1 else INK
                _dot(ax, system["measures"][condition]["top3"], at, colour, level=True)
            ax.set_yticks(range(len(systems)), list(systems))
            ax.set_ylim(len(systems) - 0.5, -0.5)
            ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
            percent(ax, "x")
        return svg(figure, "measures", "Top-3 of every system in every condition, with intervals")


def _dot(ax: Axes, figure: Values, at: float, colour: str, level: bool) -> None:
    """A mean with its interval, at a height (`level`) or at a place."""
    ends, own = (figure["low"], figure["high"]), (at, at)
    ax.plot(*((ends, own) if level else (own, ends)), color=colour, linewidth=2, solid_capstyle="round")
    x, y = (figure["mean"], at) if level else (at, figure["mean"])
    ax.plot(x, y, "o", color=colour, markersize=5)


def bonus_curve(curve: Sequence[Values], best: Values, measure: str) -> str:
    """A measure against the constant, one panel a condition; the dashed line is the best system's."""
    conditions = [condition for condition in TITLES if condition != "alone"]
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 2.7), layout="constrained")
        axes = figure.subplots(1, len(conditions), squeeze=False)[0]
        for ax, condition in zip(axes, conditions, strict=True):
            found = [point["measures"][condition][measure] for point in curve]
            x = [point["bonus"] for point in curve]
            low, high = ([one[side] for one in found] for side in ("low", "high"))
            ax.fill_between(x, low, high, color=FIRST, alpha=0.35, linewidth=0)
            ax.plot(x, [one["mean"] for one in found], "o-", color=FIRST, markersize=4, label="constant bonus")
            mine = best["measures"][condition][measure]
            ax.axhspan(mine["low"], mine["high"], color=SECOND, alpha=0.15, linewidth=0)
            ax.axhline(mine["mean"], color=SECOND, linestyle="--", label="best")
            ax.set_title(TITLES[condition])
            ax.set_xlabel("bonus")
            ax.set_xticks(x[::2])
            percent(ax, "y")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
        return svg(figure, f"bonus-{measure}", "A constant bonus against the best system")


def weights(systems: Mapping[str, Values]) -> str:
    """Histograms of the weights of the intended skill and of all others, a panel a system."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 2.9), layout="constrained")
        axes = figure.subplots(1, len(systems), sharey=True, squeeze=False)[0]
        for ax, (name, found) in zip(axes, systems.items(), strict=True):
            links, intended = (np.asarray(found[field], dtype=np.float64) for field in ("links", "intended"))
            edges = np.linspace(0, 1, len(links) + 1)
            width = 0.42 / len(links)
            groups = (("the intended skill", intended, MEANT, 0.06), ("any other", links - intended, FIRST, 0.52))
            for label, counts, colour, shift in groups:
                shares = counts / max(1.0, counts.sum())
                ax.bar(edges[:-1] + shift / len(links), shares, width, align="edge", color=colour, label=label)
            ax.set_title(name)
            ax.set_xticks(np.linspace(0, 1, 6))
            ax.set_xlabel("attention weight")
            percent(ax, "y")
        axes[0].set_ylabel("share of the linked skills")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
        return svg(figure, "weights", "Attention weights of intended and of other linked skills")


def reliability(systems: Mapping[str, Values]) -> str:
    """How often a linked skill was meant against the weight that it got; the diagonal is a perfect match."""
    with matplotlib.rc_context(STYLE):
        figure, ax = diagonal("attention weight", "share that was meant")
        for colour, (name, found) in zip(reversed(COLOURS), systems.items(), strict=False):
            links, intended, mass = (np.asarray(found[field]) for field in ("links", "intended", "mass"))
            there = links > 0
            x, y = mass[there] / links[there], intended[there] / links[there]
            size = 14 + 200 * links[there] / links.sum()
            ax.plot(x, y, color=colour, linewidth=1.5)
            ax.scatter(x, y, size, color=colour, alpha=0.75)
            ax.plot([], [], "o-", color=colour, label=name)
        figure.legend(loc="outside upper right", ncols=3)
        return svg(figure, "reliability", "Attention weights against how often the linked skill was meant")


def errors(systems: Mapping[str, Values]) -> str:
    """Dots with intervals: the share not among the first three, by number of linked skills."""
    labels = list(next(iter(systems.values()))["errors_by_links"])
    shifts = (np.arange(len(systems)) - (len(systems) - 1) / 2) * 0.16
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 3.1), layout="constrained")
        ax = figure.subplots()
        for colour, shift, (name, system) in zip(COLOURS, shifts, systems.items(), strict=False):
            for at, label in enumerate(labels):
                _dot(ax, system["errors_by_links"][label]["error"], at + shift, colour, level=False)
            ax.plot([], [], "o-", color=colour, label=name)
        rows = next(iter(systems.values()))["errors_by_links"]
        ax.set_xticks(range(len(labels)), [f"{label}\nn = {rows[label]['rows']:,}" for label in labels])
        ax.set_ylim(0, None)
        ax.set_xlabel("linked skills of the customer")
        ax.set_ylabel("not among the first three")
        percent(ax, "y")
        figure.legend(loc="outside upper right", ncols=len(systems))
        return svg(figure, "errors", "Errors at shortlists of three by number of linked skills")


def epochs(systems: Mapping[str, Sequence[Values]]) -> str:
    """Small multiples: what the statistics look like after each epoch of the links' fitting."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 2.5), layout="constrained")
        axes = figure.subplots(1, len(EPOCHS))
        for ax, (field, title) in zip(axes, EPOCHS.items(), strict=True):
            for colour, (name, found) in zip(reversed(COLOURS), systems.items(), strict=False):
                ax.plot([epoch[field] for epoch in found], "o-", color=colour, markersize=3, label=name)
            ax.set_title(title, fontsize=8.5)
            ax.set_xlabel("epoch")
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            ax.grid(True, color=FAINT)
            if field != "effective":
                percent(ax, "y")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=len(systems))
        return svg(figure, "epochs", "Statistics of the model's own classifications over epochs")
