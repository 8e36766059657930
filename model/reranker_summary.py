"""All that the reranker's experiment found, as plain values: what `results.json` holds, and the tables show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from model.comparison import Table
from model.reranker_experiment import ALL, ASKED, BARE, CHANGED_AT, VARIANTS, Plan, SeedDone
from model.reranker_measures import SHORTLIST, Figures
from model.rivals import ALL_LINKED, NONE_LINKED
from model.simulated_answers import LYING, SILENT

RIVALS = (NONE_LINKED, ALL_LINKED)
TOLD = {SHORTLIST: "the first network alone", **{name: variant.told for name, variant in VARIANTS.items()}}


@dataclass(frozen=True)
class _Ranks:
    ranks: dict[str, list[int]]


def summary(plan: Plan, seeds: Sequence[SeedDone]) -> dict[str, Any]:
    """Everything; shares are of 1, intervals are 95 % paired bootstrap over rows, of means over the seeds."""
    conditions = plan.conditions
    tables = [_table(seeds, part) for part in _alike(conditions)]
    found = {
        "experiment": "reranker",
        "links": "simulated, as the data folder has them" if plan.market.conditions.given else "simulated here",
        "answers": f"simulated: {LYING:.0%} of those who are asked say YES to all, {SILENT:.0%} nothing",
        "quick": plan.quick,
        "seeds": len(seeds),
        "rows": {name: len(rows) for name, rows in conditions.items()},
        "rows_none": sum(row.skill_id is None for row in plan.market.conditions.texts),
        "skills": len(plan.market.cards),
        "digests": plan.market.digests,
        "changed_at": CHANGED_AT,
        "systems": {name: _system(name, told, tables, seeds) for name, told in TOLD.items()},
        "can_fulfill_alone": _merged([table.against(ALL, BARE) for table in tables]),
        "asked_alone": _merged([table.against(ASKED, ALL) for table in tables]),
        "reading": {name: _mean([seed.reading[name] for seed in seeds]) for name in seeds[0].reading},
        "seconds": [seed.seconds for seed in seeds],
    }
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
    return plain


def _alike(conditions: dict[str, list[Any]]) -> list[list[str]]:
    """Conditions over the same rows side by side: those of all rows, and those of the rivals if there are any."""
    rivals = [name for name in RIVALS if name in conditions]
    others = [name for name in conditions if name not in RIVALS]
    return [part for part in (others, rivals) if part]


def _table(seeds: Sequence[SeedDone], conditions: Sequence[str]) -> Table:
    return Table(
        {name: [_Ranks({one: seed.ranks[name][one] for one in conditions}) for seed in seeds] for name in TOLD}
    )


def _system(name: str, told: str, tables: Sequence[Table], seeds: Sequence[SeedDone]) -> dict[str, Any]:
    return {
        "told": told,
        "measures": _merged([table.measures(name) for table in tables]),
        "against_shortlist": {} if name == SHORTLIST else _merged([t.against(name, SHORTLIST) for t in tables]),
        "figures": {
            condition: _figures([seed.figures[name][condition] for seed in seeds])
            for condition in seeds[0].figures[name]
        },
        "shuffled": _mean([seed.shuffled[name] for seed in seeds]),
        "intruded": _mean([seed.intruded[name] for seed in seeds]),
    }


def _merged(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.items()}


def _figures(seeds: Sequence[Figures]) -> dict[str, float | None]:
    """Means over the seeds."""
    return {name: _mean([getattr(one, name) for one in seeds]) for name in Figures.__struct_fields__}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), 5) if known else None
