"""The plots of a cycle's report, each a string of inline SVG."""

from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure

from model.gate_lines import LOWER_IS_BETTER, Line
from model.statistics import Statistics, merge_all
from workers import drawing
from workers.buckets import DAY, DAY_MINUTES, MONTH, is_rolled_up, minutes_of
from workers.drawing import BAD, FIRST, INK, MEANT, SECOND, STYLE, WIDTH, percent, svg
from workers.judged import Bin

SERIES = {"serving": FIRST, "candidate": SECOND}
MOST_TICKS = 12


def differences(lines: Sequence[Line], names: Mapping[str, str]) -> str:
    """A panel for each measure: how much better the candidate is in each slice, or worse, with intervals."""
    kept = [name for name in names if any(line.measure == name for line in lines)]
    slices = list(dict.fromkeys(line.slice for line in lines))
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 0.3 * len(slices) + 1.1), layout="constrained")
        axes = figure.subplots(1, len(kept), sharey=True, squeeze=False)[0]
        for ax, measure in zip(axes, kept, strict=True):
            ax.set_title(names[measure])
            ax.axvline(0, color=INK, alpha=0.45, linewidth=1)
            for line in lines:
                if line.measure == measure and line.difference:
                    sign, y = (-1 if measure in LOWER_IS_BETTER else 1), slices.index(line.slice)
                    low, mean, high = (
                        100 * sign * getattr(line.difference, name) for name in ("low", "mean", "high")
                    )
                    colour = BAD if line.worse else SECOND
                    ax.plot((low, high), (y, y), color=colour, linewidth=2, solid_capstyle="round")
                    ax.plot([mean], [y], "x" if line.worse else "o", color=colour, markersize=6)
            ax.set_yticks(range(len(slices)), slices)
            ax.set_ylim(len(slices) - 0.5, -0.5)
            ax.xaxis.grid(True)
            ax.locator_params(axis="x", nbins=4)
        figure.supxlabel("points better (right of the line) or worse", fontsize=9)
        return svg(figure, "differences", "How much better the candidate is, by measure and slice")


def reliability(releases: Mapping[str, Sequence[Bin]]) -> str:
    """Of one release or two: see `drawing.reliability`."""
    series = [(name, SERIES[name], bins) for name, bins in releases.items()]
    return drawing.reliability(series, "Reliability of the first probability")


def ages(buckets: Mapping[str, Statistics]) -> str:
    """Decisions of each bucket of event time, and the share of its outcomes that accepted, in order of time. Where
    old buckets are days and months, all are, with their decisions a day: else a month would tower over hours."""
    mixed = any(is_rolled_up(name) for name in buckets)
    if mixed:
        buckets = _by_day(buckets)
    names = sorted(buckets)
    days = {name: minutes_of(name, DAY_MINUTES) / DAY_MINUTES if mixed else 1 for name in names}
    counts = [buckets[name].decisions / days[name] for name in names]
    accepted = [_accepted(buckets[name]) for name in names]
    step = -(-len(names) // MOST_TICKS)
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, 3.4), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        above.bar(range(len(names)), counts, width=0.7, color=SECOND)
        above.set_ylabel("decisions a day" if mixed else "decisions")
        above.yaxis.grid(True)
        known = [(at, share) for at, share in enumerate(accepted) if share is not None]
        below.plot([at for at, _ in known], [share for _, share in known], "o-", color=MEANT, markersize=5)
        below.set_ylim(-0.02, 1.04)
        below.set_ylabel("accepted")
        percent(below, "y")
        below.set_xticks(range(0, len(names), step), names[::step])
        for label in below.get_xticklabels():
            label.set_rotation(25)
            label.set_horizontalalignment("right")
        return svg(figure, "ages", "Decisions and accepted share by bucket of event time")


def _by_day(buckets: Mapping[str, Statistics]) -> dict[str, Statistics]:
    """Days and months that do not overlap. Partitions age by clocks of their own: where one has a month already
    and another still its days, it is a month."""
    parts: dict[str, list[Statistics]] = {}
    for name, counts in buckets.items():
        parts.setdefault(name[:MONTH] if name[:MONTH] in buckets else name[:DAY], []).append(counts)
    return {name: merge_all(same) for name, same in parts.items()}


def _accepted(statistics: Statistics) -> float | None:
    sides = [side for both in statistics.skills.values() for side in (both.linked, both.unlinked)]
    accepted = sum(side.accepted for side in sides)
    return accepted / statistics.outcomes if statistics.outcomes else None
