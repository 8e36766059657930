"""The experiment's report: one HTML file that needs nothing else, drawn from the values of `results.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.groups import MEANING
from model.systems import GROUPS
from workers import experiment_plots as plots
from workers.pages import page

TEMPLATE = "experiment.html.j2"
MOST_LINKS = 8  # bars of one attention example
SHOWN_WEIGHTS = ("best", "sigmoid", "softmax")
SHOWN_ERRORS = ("none", "bonus", "softmax", "best")
SHOWN_EPOCHS = ("best", "sigmoid+shares")
Values = Mapping[str, Any]


def render(results: Values, names: Mapping[str, str]) -> str:
    """The page's HTML; `names` of skills by their ids."""
    systems: dict[str, Values] = results["systems"]
    groups: dict[str, dict[str, Values]] = {
        group: {name: system for name, system in systems.items() if system["group"] == group} for group in GROUPS
    }
    return page(
        TEMPLATE,
        r=results,
        groups=groups,
        told=GROUPS,
        titles=plots.TITLES,
        meaning=MEANING,
        verdicts=_verdicts(results),
        examples=[_example(one, systems, names) for one in results["examples"]],
        shown_groups=[name for name in ("bonus", "softmax", "best") if name in systems],
        calibration={name: systems[name]["weights"] for name in SHOWN_WEIGHTS if name in systems},
        **_plots(results, groups),
    )


def _plots(results: Values, groups: Mapping[str, Mapping[str, Values]]) -> dict[str, Any]:
    systems: dict[str, Values] = results["systems"]
    ladder, curve = groups["ladder"], results["bonus_curve"]
    shown = {name: systems[name] for name in SHOWN_ERRORS if name in systems}
    weights = {name: systems[name]["weights"]["70"] for name in SHOWN_WEIGHTS if name in systems}
    epochs = {name: systems[name]["epochs"] for name in SHOWN_EPOCHS if name in systems}
    best = systems.get("best")
    return {
        "measures_plot": plots.measures(ladder, results["conditions"]) if ladder else "",
        "bonus_plots": [plots.bonus_curve(curve, best, measure) for measure in ("top3", "top1")]
        if curve and best
        else [],
        "weights_plot": plots.weights(weights) if weights else "",
        "reliability_plot": plots.reliability(weights) if weights else "",
        "errors_plot": plots.errors(shown) if shown else "",
        "epochs_plot": plots.epochs(epochs) if epochs else "",
    }


@dataclass(frozen=True)
class Bar:
    """A linked skill of an example with its weights, by system in the order shown."""

    skill_id: str
    name: str
    meant: bool
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Example:
    """A dev row with its linked skills, the largest weight first; `left_out` of them are not shown."""

    text: str
    meant: str
    linked: bool
    systems: tuple[str, ...]
    places: tuple[int, ...]  # of the skill that was meant, by system; 0: not on the shortlist
    bars: tuple[Bar, ...]
    left_out: int


def _example(one: Values, systems: Mapping[str, Values], names: Mapping[str, str]) -> Example:
    shown = tuple(name for name in ("best", "softmax") if name in systems)
    meant = one["skill_id"]
    bars = [
        Bar(
            skill,
            names.get(skill, skill),
            skill == meant,
            tuple(one["weights"][name].get(skill, 0.0) for name in shown),
        )
        for skill in one["linked"]
    ]
    bars.sort(key=lambda bar: (not bar.meant, -max(bar.weights, default=0.0)))  # what was meant is never left out
    kept = sorted(bars[:MOST_LINKS], key=lambda bar: -bar.weights[0] if bar.weights else 0.0)
    return Example(
        text=one["text"],
        meant=names.get(meant, meant),
        linked=meant in one["linked"],
        systems=shown,
        places=tuple(one["places"][name] for name in shown),
        bars=tuple(kept),
        left_out=len(bars) - len(kept),
    )


def _verdicts(results: Values) -> dict[str, Any]:
    """The questions that the experiment was made to answer, as far as its systems can."""
    best = results["systems"].get("best")
    if best is None:
        return {}
    linked = [condition for condition in results["conditions"] if condition != "alone"]
    taught = results["systems"].get("supervised+both", best)
    own = {"best": best} if taught["recipe"] == best["recipe"] else {"supervised+both": taught, "best": best}
    return {
        "fewer": [
            (name, base, [(at, system["against"][base][at]["top3"]["fewer_errors"]) for at in linked])
            for name, system in own.items()
            for base in ("softmax", "bonus")
            if base in system["against"]
        ],
        "figures": [(condition, best["measures"][condition]) for condition in linked],
        "beaten_by": [point["bonus"] for point in results["bonus_curve"] if _beats(point)],
        "constants": len(results["bonus_curve"]),
        "misled": best["misled"],
    }


def _beats(point: Values) -> bool:
    """Whether a constant is better than the best system at two conditions or more, in top-3 or in top-1."""
    better: Mapping[str, Sequence[str]] = point.get("better_than_best_at", {})
    return any(len(conditions) >= 2 for conditions in better.values())
