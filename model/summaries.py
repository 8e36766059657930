"""All that an experiment found, as plain values: what `results.json` holds, and the report is drawn from."""

import platform
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import torch

from model.comparison import Resampled, Table, by_row
from model.conditions import ALONE, SHARES
from model.experiment import Cell, Market
from model.groups import groups_of
from model.measuring import EXAMPLES_AT, LISTED, Result, Weights, example_rows
from model.pretrained import is_installed
from model.systems import SYSTEMS

BASES = ("softmax", "bonus", "best")  # what every system is set against, where they are there
LINK_EDGES = (0, 1, 2, 3, 4, 5, 6, 8, 11, 16, 501)  # 501: one more than a customer can have
FEWEST = 20  # rows of a group: of fewer, an interval says nothing
NOBODY = "0"  # the condition in which nobody has linked what is meant
Results = Mapping[str, Sequence[Result]]


def summary(market: Market, cells: Sequence[Cell], results: Results, quick: bool) -> dict[str, Any]:
    """Everything; shares are of 1, intervals are 95 % paired bootstrap over the dev rows."""
    table = Table(results)
    groups = _groups(market, table)
    seeds = sorted({cell.seed for cell in cells})
    recipes = {cell.system: cell for cell in reversed(cells)}
    found: dict[str, Any] = {
        "experiment": "shortlister",
        "links": "simulated, as the data folder has them" if market.conditions.given else "simulated here",
        "quick": quick,
        "seeds": seeds,
        "listed": LISTED,
        "conditions": list(table.conditions),
        "data": {
            "skills": len(market.cards),
            "train_rows": len(market.rows),
            "dev_rows": len(market.conditions.texts),
            "digests": market.digests,
        },
        "machine": {
            "processor": platform.machine(),
            "torch": str(torch.__version__),
            "threads": torch.get_num_threads(),
            "pretrained": is_installed(),
        },
        "groups": {name: int(rows) for name, (rows, _) in groups.items()},
        "systems": {
            name: _system(name, parts, table, groups, market) | {"recipe": recipes[name].recipe}
            for name, parts in results.items()
        },
        "bonus_curve": _bonus_curve(table),
        "examples": _examples(market, results),
    }
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
    return plain


def _groups(market: Market, table: Table) -> dict[str, tuple[int, Resampled]]:
    """Rows of each group that is large enough, and its resamples."""
    members = groups_of(market.conditions.texts, market.rows, market.cards)
    return {name: (rows.sum(), table.within(rows)) for name, rows in members.items() if rows.sum() >= FEWEST}


def _system(
    name: str, cells: Sequence[Result], table: Table, groups: Mapping[str, tuple[int, Resampled]], market: Market
) -> dict[str, Any]:
    system = SYSTEMS[name]
    bases = [base for base in BASES if base != name and (base, ALONE, "top3") in table.columns]
    looks = system.recipe.shortlister.attention in ("softmax", "sigmoid")
    return {
        "group": system.group,
        "told": system.told,
        "constant": system.constant,
        "measures": table.measures(name),
        "by_seed": [_top3(cell) for cell in cells],
        "against": {base: table.against(name, base) for base in bases},
        "misled": table.between(name, NOBODY, ALONE, "top3"),
        "groups": {group: table.measures(name, within) for group, (_, within) in groups.items()},
        "weights": {at: weights(cells, at) for at in cells[0].weights} if looks else {},
        "errors_by_links": _errors_by_links(cells, market),
        "epochs": cells[0].epochs,
        "text_seconds": _median([cell.text_seconds for cell in cells]),
        "link_seconds": _median([cell.link_seconds for cell in cells]),
        "requests_per_s": _median([cell.requests_per_s for cell in cells]),
    }


def _top3(cell: Result) -> dict[str, float]:
    return {condition: round(float(by_row([ranks])[:, 1].mean()), 4) for condition, ranks in cell.ranks.items()}


def _median(values: Sequence[float]) -> float:
    return round(float(np.median(values)), 1)


def weights(cells: Sequence[Result], condition: str) -> dict[str, Any]:
    """Attention weights by bin over all seeds, and how far they are from the truth (ECE).

    The expected calibration error is the mean over links of |mean weight − share intended| of their bin.
    """
    parts = [cell.weights[condition] for cell in cells]
    links, intended, mass = (
        np.asarray([getattr(part, field) for part in parts], dtype=np.float64).sum(axis=0)
        for field in Weights.__struct_fields__
    )
    return {
        "links": links.astype(int).tolist(),
        "intended": intended.astype(int).tolist(),
        "mass": mass.round(3).tolist(),
        "calibration_error": round(float(np.abs(mass - intended).sum() / max(1.0, links.sum())), 4),
    }


def _errors_by_links(cells: Sequence[Result], market: Market) -> dict[str, Any]:
    """The share of rows whose skill is not among the first three, by how many skills are linked."""
    rows = market.conditions.rows[int(EXAMPLES_AT)]
    links = np.asarray([len(row.linked or ()) for row in rows])
    errors = 1 - by_row([cell.ranks[EXAMPLES_AT] for cell in cells])[:, 1:2]  # (N, 1)
    found = {}
    for low, high in pairwise(LINK_EDGES):
        inside = (links >= low) & (links < high)
        if inside.sum() >= FEWEST:
            label = (
                f"{low}"
                if high == low + 1
                else f"{low} or more"
                if high == LINK_EDGES[-1]
                else f"{low}–{high - 1}"
            )
            found[label] = {"rows": int(inside.sum()), "error": Resampled(errors[inside]).mean(0)}
    return found


def _bonus_curve(table: Table) -> list[dict[str, Any]]:
    """Each constant's top-3 and top-1, and in which of the conditions with links it is better than `best`."""
    conditions = [str(share) for share in SHARES]
    found = []
    for name, system in SYSTEMS.items():
        if system.constant is None or (name, ALONE, "top3") not in table.columns:
            continue
        entry: dict[str, Any] = {"bonus": system.constant, "measures": table.measures(name)}
        if ("best", ALONE, "top3") in table.columns:
            entry["better_than_best_at"] = {
                measure: table.better_at(name, "best", measure, conditions) for measure in ("top1", "top3")
            }
        found.append(entry)
    return found


def _examples(market: Market, results: Results) -> list[dict[str, Any]]:
    """Dev rows with the weights of their links by system, of the first seed, and the skill's place by each."""
    rows = market.conditions.rows[int(EXAMPLES_AT)]
    shown = [name for name in results if SYSTEMS[name].recipe.shortlister.attention in ("softmax", "sigmoid")]
    return [
        {
            "text": rows[at].text,
            "skill_id": rows[at].skill_id,
            "linked": rows[at].linked,
            "weights": {name: results[name][0].examples[place] for name in shown},
            "places": {name: results[name][0].ranks[EXAMPLES_AT][at] for name in shown},
        }
        for place, at in enumerate(example_rows(market.conditions))
    ]
