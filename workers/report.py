"""The demo's report: one HTML file that needs nothing else, neither network nor script.

Findings become plain values here, plots in `plots`, and the page in `report.html.j2`. Texts of customers and
skills' names are strangers' words: the template escapes whatever it is handed, but for our own plots.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.selector import Selector
from model.statistics import Statistics
from topics.events import Action, OutcomeKind
from workers import favourites, judged, plots
from workers.crowd import Summary
from workers.findings import Findings
from workers.judged import Judged
from workers.pages import make_room, page, write_page

TEMPLATE = "report.html.j2"
MEASURES = {"top1": "top-1", "top3": "top-3", "top5": "top-5", "mrr": "MRR"}
STAGES = ("shortlist", "decision")
MOST_LINKS = 8  # bars of one attention example
NOBODY = "nobody"
Names = Mapping[str, str]


def write_report(findings: Findings, path: Path) -> None:
    """Writes the page to `path`, which appears whole or not at all. Raises UsageError where it cannot be."""
    make_room(path)
    write_page(render(findings), path)


def render(findings: Findings) -> str:
    """The page's HTML."""
    return page(TEMPLATE, f=findings, **_page(findings))


def _page(findings: Findings) -> dict[str, Any]:
    """What the template shows beside the findings themselves."""
    rows = judged.spread(findings.judged)
    first, second = (judged.judge(selector, rows) for selector in findings.selectors)
    return (
        {"releases": [selector.release for selector in findings.selectors], "looked_at": len(rows)}
        | _measures(findings.before, findings.after)
        | _met(findings.first, findings.second)
        | _times(findings)
        | _attention(findings.selectors[1], second)
        | _trust(first, second)
        | _statistics(findings.statistics, names_of(findings.selectors[1]))
    )


def _statistics(statistics: Statistics, names: Names) -> dict[str, Any]:
    return {
        "statistics_version": statistics.version(),
        "chosen": favourites.most_chosen(statistics, names),
        "pairs": favourites.taken_instead(statistics, names),
    }


def names_of(selector: Selector) -> dict[str, str]:
    """The skills' names by their ids."""
    return {card.skill_id: card.name for card in selector.bundle.catalogue.cards()}


@dataclass(frozen=True)
class Measure:
    """One measure of both releases; intervals where the evaluation gives them."""

    name: str
    before: tuple[float, plots.Interval]
    after: tuple[float, plots.Interval]

    @property
    def gain(self) -> float:
        return self.after[0] - self.before[0]


def _measures(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    panels = {
        "with the customer's links": _panel(before, after),
        "without any links": _panel(before["without_links"], after["without_links"]),
    }
    plotted = {title: [(one.name, (one.before, one.after)) for one in panel] for title, panel in panels.items()}
    plot = plots.measures(plotted) if any(panels.values()) else ""
    return {"measure_panels": panels, "measures_plot": plot}


def _panel(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Measure]:
    return [
        Measure(f"{stage} {told}", *(_with_interval(found[stage], name) for found in (before, after)))
        for stage in STAGES
        for name, told in MEASURES.items()
        if name in before[stage] and name in after[stage]
    ]


def _with_interval(measures: Mapping[str, Any], name: str) -> tuple[float, plots.Interval]:
    return measures[name], measures.get("intervals", {}).get(name)


def _met(first: Summary, second: Summary) -> dict[str, Any]:
    """Shares of what the customers met, as rows of (label, first, second)."""
    rows = [
        ("right first", first.right_first, second.right_first),
        ("friction", first.friction, second.friction),
        *_shares("action", Action, [(s.actions, s.decided) for s in (first, second)]),
        *_shares("outcome", OutcomeKind, [(s.outcomes, s.acted) for s in (first, second)]),
    ]
    return {"met_plot": plots.met(*(list(column) for column in zip(*rows, strict=True)))}


def _shares(
    label: str, kinds: Iterable[str], counted: Sequence[tuple[Mapping[str, int], int]]
) -> list[tuple[str, float | None, float | None]]:
    def share(kind: str, counts: Mapping[str, int], of: int) -> float | None:
        return counts.get(kind, 0) / of if of else None

    return [(f"{label}: {kind}", share(kind, *counted[0]), share(kind, *counted[1])) for kind in kinds]


def _times(findings: Findings) -> dict[str, Any]:
    labels = list(findings.first.latency_ms | findings.second.latency_ms)
    first, second = ([s.latency_ms.get(label) for label in labels] for s in (findings.first, findings.second))
    return {
        "latency_plot": plots.latency(labels, first, second) if labels else "",
        "stages_plot": plots.stages(findings.seconds) if findings.seconds else "",
    }


def _attention(selector: Selector, found: Sequence[Judged]) -> dict[str, Any]:
    names = names_of(selector)
    weights = judged.weights_by_meaning(found)
    counts = judged.kinds(found)
    groups = {
        "the intended skill": weights.intended,
        "another one, the intended one linked too": weights.beside,
        "another one, the intended one not linked": weights.alone,
    }
    return {
        "attention_kind": selector.bundle.manifest.shortlister.attention,
        "kinds": [(kind, counts[kind], counts[kind] / counts.total()) for kind in judged.EXAMPLES if counts],
        "examples": [_example(one, names) for one in judged.examples(found)],
        "weight_groups": [(name, len(values), *_quartiles(values)) for name, values in groups.items() if values],
        "weights_plot": plots.weights(weights) if any(groups.values()) else "",
    }


def _quartiles(values: Sequence[float]) -> tuple[float, float, float, float]:
    """Mean, and the quarter, the half and three quarters of the way up."""
    quarter, half, three_quarters = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return sum(values) / len(values), quarter, half, three_quarters


@dataclass(frozen=True)
class Bar:
    """A linked skill of an attention example."""

    skill_id: str
    name: str
    weight: float
    meant: bool
    decided: bool


@dataclass(frozen=True)
class Example:
    """A judged request with its linked skills, the largest weight first; `left_out` of them are not shown."""

    text: str
    kind: str
    right: bool
    bars: list[Bar]
    left_out: int
    decided: str
    probability: float
    meant: str


def _example(one: Judged, names: Names) -> Example:
    meant = one.row.skill_id
    ordered = sorted(one.weights.items(), key=lambda pair: (pair[0] not in (meant, one.answer), -pair[1]))
    kept = sorted(ordered[:MOST_LINKS], key=lambda pair: -pair[1])  # what matters is never left out
    return Example(
        text=one.row.text,
        kind=one.kind or "",
        right=one.answer == meant,
        bars=[Bar(s, names.get(s, s), weight, s == meant, s == one.answer) for s, weight in kept],
        left_out=len(ordered) - len(kept),
        decided=_told(one, names),
        probability=one.first_probability,
        meant=_name(meant, names),
    )


def _told(one: Judged, names: Names) -> str:
    action, answer = one.ranking.action, _name(one.answer, names)
    if action is Action.DISCOVER:
        return f"ask, with {answer} first"
    told = {Action.LAUNCH: f"launch {answer}", Action.ENABLE: f"suggest {answer}", Action.NONE: "say nothing"}
    return told[action]


def _name(skill_id: str | None, names: Names) -> str:
    return NOBODY if skill_id is None else names.get(skill_id, skill_id)


def _trust(first: Sequence[Judged], second: Sequence[Judged]) -> dict[str, Any]:
    """How far the first probabilities can be believed, and errors by number of links."""
    bins = [judged.reliability(found) for found in (first, second)]
    errors = [judged.errors_by_links(found) for found in (first, second)]
    return {
        "fewest": judged.FEWEST,
        "calibration": [judged.calibration_error(part) for part in bins],
        "reliability_plot": plots.reliability(bins) if first else "",
        "errors_plot": plots.errors(errors) if errors[0] else "",
    }
