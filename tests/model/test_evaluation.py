"""Measures, beside sums done by hand."""

import numpy as np
import pytest

from model.data import Row
from model.evaluation import MISSING, bootstrap_interval, evaluate, places
from model.selector import Ranking, Selector
from topics.events import Action, Candidate


def ranking(*skills: tuple[str, float, int], none: float = 0.0, none_rank: int = 9) -> Ranking:
    listed = tuple(
        Candidate(skill_id=skill, score=0.0, probability=p, shortlist_rank=rank) for skill, p, rank in skills
    )
    return Ranking(Action.NONE, None, listed, none, 1.0, "best", none_rank)


def test_places_count_from_one_on_both_lists() -> None:
    found = ranking(("a", 0.5, 2), ("b", 0.3, 0))
    assert places("a", found) == (3, 1)
    assert places("b", found) == (1, 2)
    assert places("c", found) == (MISSING, MISSING)


def test_none_takes_its_place_among_the_candidates() -> None:
    found = ranking(("a", 0.3, 0), ("b", 0.1, 1), none=0.6, none_rank=4)
    assert places(None, found) == (5, 1)
    assert places("a", found) == (1, 2)


def test_measures_are_shares_with_intervals_around_them(small_selector: Selector, small_dev: list[Row]) -> None:
    found = evaluate(small_selector, small_dev)
    for stage in ("shortlist", "decision"):
        measures = found[stage]
        assert measures["top1"] <= measures["top3"] <= measures["top5"]
        assert measures["top1"] <= measures["mrr"]
        for name, (low, high) in measures["intervals"].items():
            assert low <= measures[name] <= high
    assert sum(part["rows"] for part in found["by_source"].values()) == found["rows"]
    assert found["throughput"] > 0


def test_the_bootstrap_interval_is_that_of_the_binomial() -> None:
    values = (np.arange(1_000) < 300).astype(np.float64)
    low, high = bootstrap_interval(values)
    half = 1.96 * (0.3 * 0.7 / 1_000) ** 0.5
    assert low == pytest.approx(0.3 - half, abs=0.006)
    assert high == pytest.approx(0.3 + half, abs=0.006)
