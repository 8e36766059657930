"""The plots of the demo's report, each a string of inline SVG."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workers import drawing
from workers.drawing import FIRST, MEANT, SECOND, STYLE, WIDTH, percent, svg
from workers.judged import BINS, Bin, Weights
from workers.tally import Share

RELEASES = (("first release", FIRST), ("second release", SECOND))
STRETCHES = (("first stretch", FIRST), ("second stretch", SECOND))
Measures = Mapping[str, Any]
Interval = tuple[float, float] | None


def measures(panels: Mapping[str, Sequence[tuple[str, Sequence[tuple[float, Interval]]]]]) -> str:
    """Dots with intervals: panel -> rows of (label, (value, interval) of each release), shares of 1."""
    rows = max(len(part) for part in panels.values())
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 0.36 * rows + 1.2), layout="constrained")
        axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        for ax, (title, part) in zip(axes, panels.items(), strict=True):
            ax.set_title(title)
            for place, (name, colour) in enumerate(RELEASES):
                _dots(ax, [values[place] for _, values in part], (place - 0.5) * 0.26, name, colour)
            ax.set_yticks(range(len(part)), [label for label, _ in part])
            ax.set_ylim(rows - 0.5, -0.5)
            percent(ax, "x")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
        return svg(figure, "measures", "Measures of the first and the second release, with intervals")


def _dots(ax: Axes, points: Sequence[tuple[float, Interval]], shift: float, name: str, colour: str) -> None:
    at = [place + shift for place in range(len(points))]
    for y, (_, interval) in zip(at, points, strict=True):
        if interval:
            ax.plot(interval, (y, y), color=colour, linewidth=2, solid_capstyle="round")
    ax.plot([value for value, _ in points], at, "o", color=colour, markersize=6, label=name)


def met(labels: Sequence[str], first: Sequence[float | None], second: Sequence[float | None]) -> str:
    """Paired bars of shares, first stretch beside second."""
    return _paired(labels, first, second, "met", "What the customers met in each stretch", 100, "{:.1f} %")


def latency(labels: Sequence[str], first: Sequence[float | None], second: Sequence[float | None]) -> str:
    """Paired bars of milliseconds."""
    return _paired(labels, first, second, "latency", "Latency percentiles of each stretch", 1, "{:,.0f} ms")


def _paired(
    labels: Sequence[str],
    first: Sequence[float | None],
    second: Sequence[float | None],
    name: str,
    title: str,
    factor: float,
    form: str,
) -> str:
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 0.46 * len(labels) + 0.7), layout="constrained")
        ax = figure.subplots()
        for shift, values, (series, colour) in zip((-0.19, 0.19), (first, second), STRETCHES, strict=True):
            lengths = [(value or 0.0) * factor for value in values]
            at = [place + shift for place in range(len(labels))]
            bars = ax.barh(at, lengths, height=0.34, color=colour, label=series)
            told = ["–" if value is None else form.format(value * factor) for value in values]
            ax.bar_label(bars, told, padding=4, fontsize=8.5)
        _bars_only(ax, labels)
        figure.legend(loc="outside upper right", ncols=2)
        return svg(figure, name, title)


def stages(seconds: Mapping[str, float]) -> str:
    """One bar a stage of the demo."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 0.3 * len(seconds) + 0.3), layout="constrained")
        ax = figure.subplots()
        bars = ax.barh(range(len(seconds)), list(seconds.values()), height=0.6, color=SECOND)
        ax.bar_label(bars, [f"{value:.1f} s" for value in seconds.values()], padding=4, fontsize=8.5)
        _bars_only(ax, list(seconds))
        return svg(figure, "stages", "Seconds by stage of the demo")


def _bars_only(ax: Axes, labels: Sequence[str]) -> None:
    """Every bar carries its number, so that no axis is needed; the first row is on top."""
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.set_xlim(0, max(ax.get_xlim()[1], 1e-6) * 1.1)
    ax.xaxis.set_visible(False)
    ax.spines.bottom.set_visible(False)


def weights(found: Weights) -> str:
    """Two histograms, each of its own total: weights of the intended skill, and of all others."""
    groups = (("the intended skill", found.intended, MEANT), ("any other", found.beside + found.alone, FIRST))
    edges = np.linspace(0, 1, BINS + 1)
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 2.9), layout="constrained")
        ax = figure.subplots()
        for shift, (name, values, colour) in zip((0.021, 0.051), groups, strict=True):
            shares = np.histogram(values, edges)[0] / max(len(values), 1)  # (BINS,)
            ax.bar(edges[:-1] + shift, shares, width=0.028, align="edge", color=colour, label=name)
        ax.set_xticks(edges, [f"{edge:.1f}" for edge in edges])
        ax.set_xlabel("attention weight")
        ax.set_ylabel("share of the linked skills")
        percent(ax, "y")
        figure.legend(loc="outside upper right", ncols=2)
        return svg(figure, "weights", "Attention weights of intended and of other linked skills")


def reliability(releases: Sequence[Sequence[Bin]]) -> str:
    """Of both releases: see `drawing.reliability`."""
    series = [(name, colour, bins) for (name, colour), bins in zip(RELEASES, releases, strict=True)]
    return drawing.reliability(series, "Reliability of the first probability, both releases")


def errors(releases: Sequence[Mapping[str, Share]]) -> str:
    """Dots with intervals: the share that is wrong, by number of linked skills. Both have the same ranges."""
    labels = list(releases[0])
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 2.9), layout="constrained")
        ax = figure.subplots()
        for shift, found, (name, colour) in zip((-0.09, 0.09), releases, RELEASES, strict=True):
            at = [place + shift for place in range(len(found))]
            for x, share in zip(at, found.values(), strict=True):
                ax.plot((x, x), (share.low or 0.0, share.high or 0.0), color=colour, linewidth=2)
            ax.plot(at, [share.share or 0.0 for share in found.values()], "o", color=colour, label=name)
        ax.set_xticks(range(len(labels)), [f"{label}\nn = {releases[0][label].of:,}" for label in labels])
        ax.set_xlim(-0.5, len(labels) - 0.5)
        ax.set_ylim(0, None)
        ax.set_xlabel("linked skills of the customer")
        ax.set_ylabel("first answer wrong")
        percent(ax, "y")
        figure.legend(loc="outside upper right", ncols=2)
        return svg(figure, "errors", "Share of wrong first answers by number of linked skills")
