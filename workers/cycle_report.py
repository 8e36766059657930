"""A cycle's report: one HTML file that needs nothing else, neither network nor script.

Findings become plain values here, plots in `cycle_plots`, and the page in `cycle.html.j2`. Texts of customers and
skills' names are strangers' words: the template escapes whatever it is handed, but for our own plots, and no plot
has such a word in it.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.data import Row
from model.gate import GateResult
from model.gate_lines import ECE, FRICTION, NONE, TOP1, TOP3, Line
from model.judging import MISLEADING, TAKEN_AWAY
from model.selector import Selector
from model.statistics import Statistics
from topics.events import Release
from workers import cycle_plots, descent, favourites, judged
from workers.judged import Judged
from workers.pages import make_room, page, write_page

TEMPLATE = "cycle.html.j2"
SOURCE = "source "  # what the slices of single sources begin with
MOST_MOVED = 8  # skills, either way
MOST_FLIPS = 8  # requests, either way
MOST_BARS = 12
LEAST_SHOWN = 30  # rows of a dot in the plot: of fewer, its interval squeezes all others
NOBODY = "nobody"
MEASURES = {
    TOP1: "decision top-1",
    TOP3: "shortlist top-3",
    ECE: "ECE",
    NONE: "AUROC of none",
    FRICTION: "friction",
}
Names = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class CycleFindings:
    """One cycle. `before` is the release that serves, None where nothing does; `rows` are those that judged both,
    `gate` what came of it. `learned`: part of what was learned from -> rows. `line`: descent of the serving
    release, the first at first. `buckets`: the statistics by event time; without them no plot of their age is
    drawn. `when_ms`: the page's date, 0 for none. `release`: the candidate's id, where its bundle in memory has
    none yet."""

    published: bool
    reason: str
    before: Selector | None
    after: Selector
    rows: Sequence[Row]
    gate: GateResult
    statistics: Statistics
    learned: Mapping[str, int]
    provenance: Mapping[str, str]
    line: Sequence[Release] = ()
    when_ms: int = 0
    release: str = ""
    buckets: Mapping[str, Statistics] = field(default_factory=dict)
    half_life_hours: float = 0.0


def write_cycle_report(path: Path, findings: CycleFindings) -> None:
    """Writes the page to `path`, which appears whole or not at all. Raises UsageError where it cannot be."""
    make_room(path)
    write_page(render(findings), path)


def render(findings: CycleFindings) -> str:
    """The page's HTML."""
    rows = judged.spread(findings.rows)
    after = judged.judge(findings.after, rows)
    before = judged.judge(findings.before, rows) if findings.before else []
    names = {card.skill_id: card.name for card in findings.after.bundle.catalogue.cards()}
    return page(
        TEMPLATE,
        f=findings,
        release=findings.release or findings.after.release,
        parent=findings.before.release if findings.before else "",
        when=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(findings.when_ms / 1000)) if findings.when_ms else "",
        looked_at=len(rows),
        measures=MEASURES,
        **_table(findings.gate.lines),
        **_moved(before, after, names),
        **_trust(before, after),
        **_statistics(findings, names),
        descent=descent.draw(findings.line, findings.line[-1]) if findings.line else [],
    )


def _table(lines: Sequence[Line]) -> dict[str, Any]:
    """The gate's lines by slice, and by source, the worst and the largest first; a plot of all but the sources."""
    slices: dict[str, list[Line]] = defaultdict(list)
    sources: dict[str, list[Line]] = defaultdict(list)
    for one in lines:
        (sources if one.slice.startswith(SOURCE) else slices)[one.slice.removeprefix(SOURCE)].append(one)
    shown = [one for part in slices.values() for one in part if one.difference and one.rows >= LEAST_SHOWN]
    worse = {name: any(one.worse for one in part) for name, part in sources.items()}
    return {
        "slices": slices,
        "sources": dict(sorted(sources.items(), key=lambda pair: (not worse[pair[0]], -pair[1][0].rows, pair[0]))),
        "sources_worse": sum(worse.values()),
        "differences_plot": cycle_plots.differences(shown, MEASURES) if shown else "",
        "least_shown": LEAST_SHOWN,
        "worlds": (TAKEN_AWAY, MISLEADING),
    }


@dataclass(frozen=True)
class Moved:
    """A skill whose judged rows are decided otherwise: how many of them right before and after."""

    skill_id: str
    name: str
    rows: int
    before: int
    after: int
    example: str

    @property
    def gain(self) -> int:
        return self.after - self.before


@dataclass(frozen=True)
class Flip:
    """A request of which one release is right and the other is not."""

    text: str
    linked: int
    meant: str
    before: str
    after: str


def _moved(before: Sequence[Judged], after: Sequence[Judged], names: Names) -> dict[str, Any]:
    """Skills that gained and lost most, and requests that flipped, either way."""
    pairs = list(zip(before, after, strict=True)) if before else []
    won = [(was, now) for was, now in pairs if now.right and not was.right]
    lost = [(was, now) for was, now in pairs if was.right and not now.right]
    skills = sorted(_by_skill(pairs, names), key=lambda one: (-one.gain, one.skill_id))
    return {
        "gained": [one for one in skills if one.gain > 0][:MOST_MOVED],
        "fell": [one for one in reversed(skills) if one.gain < 0][:MOST_MOVED],
        "same": sum(one.gain == 0 for one in skills),
        "flips": {"right now": _flips(won, names), "wrong now": _flips(lost, names)},
        "flipped": {"right now": len(won), "wrong now": len(lost)},
    }


def _by_skill(pairs: Sequence[tuple[Judged, Judged]], names: Names) -> Iterator[Moved]:
    members: dict[str | None, list[tuple[Judged, Judged]]] = defaultdict(list)
    for pair in pairs:
        members[pair[0].row.skill_id].append(pair)
    for skill, part in members.items():
        was, now = (sum(pair[side].right for pair in part) for side in (0, 1))
        flipped = [pair for pair in part if pair[0].right != pair[1].right and pair[1].right == (now > was)]
        example = flipped[0][0].row.text if flipped else ""
        yield Moved(skill or "", _name(skill, names), len(part), was, now, example)


def _flips(pairs: Sequence[tuple[Judged, Judged]], names: Names) -> list[Flip]:
    """The first of each skill, in the rows' order: nothing else chooses them."""
    found: dict[str | None, Flip] = {}
    for was, now in pairs:
        row = was.row
        if row.skill_id not in found:
            meant = _name(row.skill_id, names)
            found[row.skill_id] = Flip(
                row.text, len(row.linked or ()), meant, _first(was, names), _first(now, names)
            )
    return list(found.values())[:MOST_FLIPS]


def _first(one: Judged, names: Names) -> str:
    """What stands first in the decision's list, none among it, with its probability."""
    listed = one.ranking.candidates[0] if one.ranking.candidates else None
    if listed is None or one.ranking.none_probability > listed.probability:
        return f"{NOBODY} ({one.ranking.none_probability:.2f})"
    return f"{_name(listed.skill_id, names)} ({listed.probability:.2f})"


def _name(skill_id: str | None, names: Names) -> str:
    return NOBODY if skill_id is None else names.get(skill_id, skill_id)


def _trust(before: Sequence[Judged], after: Sequence[Judged]) -> dict[str, Any]:
    bins = {"serving": judged.reliability(before), "candidate": judged.reliability(after)}
    bins = {name: part for name, part in bins.items() if part}
    return {
        "calibration": {name: judged.calibration_error(part) for name, part in bins.items()},
        "reliability_plot": cycle_plots.reliability(bins) if bins else "",
    }


def _statistics(findings: CycleFindings, names: Names) -> dict[str, Any]:
    statistics = findings.statistics
    chosen = favourites.most_chosen(statistics, names, MOST_BARS)
    pairs = favourites.taken_instead(statistics, names, MOST_BARS)
    return {
        "statistics_version": statistics.version(),
        "chosen": chosen,
        "most": max((one.chosen for one in chosen), default=1),
        "pairs": pairs,
        "most_taken": max((pair[0] for pair in pairs), default=1),
        "ages_plot": cycle_plots.ages(findings.buckets) if len(findings.buckets) > 1 else "",
    }
