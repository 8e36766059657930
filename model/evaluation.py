"""How good a selector is on rows that carry the intended skill: shortlist and decision, each with its interval."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.data import Row
from model.selector import Ranking, Request, Selector

MISSING = 10**6  # the place of a skill that is not on the list; its reciprocal counts as 0
RESAMPLES = 1_000
BATCH = 512
TOPS = (1, 3, 5)


def evaluate(
    selector: Selector, rows: Sequence[Row], progress: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """Measures of `rows`, with their own links and without any, and by source.

    Returns rows, shortlist and decision (top1, top3, top5, mrr, each with a 95 % bootstrap interval under
    `intervals`), without_links, by_source, and throughput (decisions a second). Places beyond the list of
    candidates count 0 in mrr. A row that no skill should answer is right where `none` has the place.
    """
    rankings, seconds = _decide(selector, rows, True, progress)
    places = _places(rows, rankings)
    without, _ = _decide(selector, rows, False, None)
    found: dict[str, Any] = {"rows": len(rows), "rows_none": sum(row.skill_id is None for row in rows)}
    found |= {name: _measures(place, intervals=True) for name, place in places.items()}
    found["without_links"] = {
        name: _measures(place, intervals=True) for name, place in _places(rows, without).items()
    }
    found["by_source"] = _by_source(rows, places)
    found["throughput"] = round(len(rows) / max(seconds, 1e-9), 1)
    return found


def _decide(
    selector: Selector, rows: Sequence[Row], links: bool, progress: Callable[[int], None] | None
) -> tuple[list[Ranking], float]:
    rankings: list[Ranking] = []
    started = time.perf_counter()
    for at in range(0, len(rows), BATCH):
        part = rows[at : at + BATCH]
        rankings += selector.decide([Request(row.text, (row.linked or ()) if links else ()) for row in part])
        if progress:
            progress(len(rankings))
    return rankings, time.perf_counter() - started


def _places(rows: Sequence[Row], rankings: Sequence[Ranking]) -> dict[str, NDArray[np.int64]]:
    """The intended skill's place in the shortlist and in the decision's list, first is 1, (rows,) each."""
    pairs = [places(row.skill_id, ranking) for row, ranking in zip(rows, rankings, strict=True)]
    table = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    return {"shortlist": table[:, 0], "decision": table[:, 1]}


def places(skill_id: str | None, ranking: Ranking) -> tuple[int, int]:
    """The skill's place on the shortlist and in the decision's list; MISSING where it is on neither."""
    if skill_id is None:
        better = sum(c.probability > ranking.none_probability for c in ranking.candidates)
        return ranking.shortlist_none_rank + 1, better + 1
    for place, candidate in enumerate(ranking.candidates, 1):
        if candidate.skill_id == skill_id:
            ahead = ranking.none_probability > candidate.probability  # `none` stands before it
            return candidate.shortlist_rank + 1, place + ahead
    return MISSING, MISSING


def _measures(place: NDArray[np.int64], intervals: bool = False) -> dict[str, Any]:
    columns = {f"top{k}": (place <= k).astype(np.float64) for k in TOPS}
    columns["mrr"] = np.where(place < MISSING, 1 / place, 0.0)
    found: dict[str, Any] = {
        name: round(float(column.mean()), 4) for name, column in columns.items() if len(column)
    }
    if intervals and len(place):
        found["intervals"] = {name: bootstrap_interval(column) for name, column in columns.items()}
    return found


def bootstrap_interval(values: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean of `values` (rows,)."""
    generator = np.random.default_rng(seed)
    means = np.concatenate(
        [
            values[generator.integers(0, len(values), (50, len(values)))].mean(axis=1)
            for _ in range(RESAMPLES // 50)
        ]
    )
    low, high = np.quantile(means, (0.025, 0.975))
    return round(float(low), 4), round(float(high), 4)


def _by_source(rows: Sequence[Row], places: dict[str, NDArray[np.int64]]) -> dict[str, Any]:
    members = defaultdict(list)
    for at, row in enumerate(rows):
        members[row.source].append(at)
    return {
        source: {"rows": len(at)} | {name: _measures(place[at]) for name, place in places.items()}
        for source, at in sorted(members.items())
    }
