"""The learning experiment's page: one HTML file that needs nothing else, drawn from the values of its results."""

from collections.abc import Mapping
from typing import Any

from workers import learning_plots as plots
from workers.pages import page

TEMPLATE = "learning.html.j2"
MEANING = {
    "steady": "What is asked stays what it was.",
    "drift": "Half-way, popularity is reshuffled, skills join, and a twentieth of the skills begins to fail.",
    "honest": "As steady, and a fifth of the outcomes is noise.",
    "adversarial": "As steady, a fifth of the outcomes is noise, and one skill's owner pays 1 % of the customers.",
}
Values = Mapping[str, Any]


def render(results: Values) -> str:
    """The page's HTML."""
    worlds: Mapping[str, Values] = results["worlds"]
    compared = {name: world for name, world in worlds.items() if world["changes"] is None}
    ablated = dict(results["ablations"])
    if ablated:
        base = next(iter(ablated.values()))["world"]
        ablated = {"nothing off": worlds[base], **ablated} if base in compared else {}
    return page(
        TEMPLATE,
        r=results,
        meaning=MEANING,
        conditions=list(results["full"]["top1"]),
        compared=compared,
        climb_plot=plots.climb(compared, results["full"], "climb") if compared else "",
        ablation_plot=plots.climb(ablated, results["full"], "ablations") if ablated else "",
        friction_plots={
            name: plots.course(
                world["parts"], "not_accepted", "not accepted at first", f"friction-{name}", world["changes"]
            )
            for name, world in worlds.items()
        },
        failing_plot=plots.course(
            worlds["drift"]["parts"], "failing", "a failing skill opened", "failing", worlds["drift"]["changes"]
        )
        if "drift" in worlds
        else "",
    )
