"""What the reranker's experiment measures of decisions, by hand and beside those that are served."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from model.data import Row
from model.evaluation import MISSING, places
from model.pipeline import Corpus
from model.reranker import LIKELY, Listed
from model.reranker_measures import (
    NOBODY,
    Asked,
    ask_all,
    auroc,
    calibration_error,
    caught,
    decide,
    decided,
    figures,
    shortlists_own,
)
from model.selector import Request, Selector
from model.shortlist import Shortlists


def test_a_decision_has_the_place_that_a_served_one_has(small_selector: Selector, small_dev: list[Row]) -> None:
    bundle = small_selector.bundle
    rankings = small_selector.decide([Request(row.text, row.linked or ()) for row in small_dev])
    expected = [places(row.skill_id, ranking) for row, ranking in zip(small_dev, rankings, strict=True)]
    making = Shortlists(bundle.shortlister)
    corpus = cast(Corpus, SimpleNamespace(
        catalogue=bundle.catalogue, vocabulary=bundle.vocabulary, words=small_selector._words
    ))  # fmt: skip
    asked = ask_all(making, bundle.evidence, corpus, small_dev, bundle.manifest.reranker.candidates)
    found, own = decide(bundle.reranker, asked), shortlists_own(asked)
    assert [place or MISSING for place in found.places] == [decision for _, decision in expected]
    assert [place or MISSING for place in own.places] == [shortlist for shortlist, _ in expected]
    assert found.none.tolist() == pytest.approx([ranking.none_probability for ranking in rankings], abs=2e-5)
    assert MISSING in {place for pair in expected for place in pair}


def by_hand(targets: list[int]) -> Asked:
    """Lists of skills 4, 5, 6 for each target."""
    N = len(targets)
    rows = torch.tensor([[4, 5, 6]] * N)
    return Asked(Listed(rows, torch.zeros(N, 3, LIKELY + 1), torch.zeros(N, 1)), np.array(targets))


def test_places_count_none_where_it_stands_before_the_skill() -> None:
    asked = by_hand([5, 4, 9, NOBODY, NOBODY])
    probabilities = np.array([[0.2, 0.5, 0.1]] * 5)
    none = np.array([0.1, 0.3, 0.1, 0.6, 0.3])
    found = decided(np.log(probabilities), probabilities, none, asked)
    assert found.places.tolist() == [1, 3, 0, 1, 2]
    assert found.chosen.tolist() == [5, 5, 5, NOBODY, 5]
    assert found.probability.tolist() == [0.5, 0.5, 0.5, 0.6, 0.5]


def test_of_equal_scores_the_shortlists_first_is_first() -> None:
    asked = by_hand([4, 6])
    probabilities = np.full((2, 3), 0.3)
    found = decided(np.zeros((2, 3)), probabilities, np.array([0.1, 0.1]), asked)
    assert found.chosen.tolist() == [4, 4]
    assert found.places.tolist() == [1, 3]


def test_the_shortlist_is_right_by_place_and_calibrated_by_what_it_would_do() -> None:
    asked = by_hand([4, NOBODY])
    asked.listed.own[..., LIKELY] = torch.tensor([0.25, 0.15, 0.1]).log()
    asked.listed.lists[:, 0] = torch.tensor([0.6, 0.2]).log()
    found = shortlists_own(asked)
    assert found.places.tolist() == [1, 2], "none does not stand before a skill that is meant"
    assert found.chosen.tolist() == [NOBODY, 4]
    assert figures(found, asked).calibration_error == pytest.approx((0.6 + 0.25) / 2, abs=1e-4)


def test_none_is_measured_over_the_rows_that_mean_no_skill() -> None:
    asked = by_hand([4, 5, NOBODY, NOBODY])
    probabilities = np.array([[0.6, 0.3, 0.0], [0.6, 0.3, 0.0], [0.1, 0.1, 0.1], [0.5, 0.1, 0.1]])
    none = np.array([0.05, 0.1, 0.7, 0.08])
    of = figures(decided(np.log(probabilities + 1e-9), probabilities, none, asked), asked)
    assert (of.auroc, of.caught) == (0.75, 0.5)
    # chosen with 0.6 twice, right once; with 0.7 right; with 0.5 wrong
    assert of.calibration_error == pytest.approx((abs(1.2 - 1) + abs(0.7 - 1) + 0.5) / 4, abs=1e-4)
    nothing = figures(decided(probabilities, probabilities, none, by_hand([4] * 4)), by_hand([4] * 4))
    assert (nothing.auroc, nothing.caught) == (None, None)


def test_auroc_by_pairs() -> None:
    generator = np.random.default_rng(0)
    positive, negative = generator.integers(0, 9, 40) / 9.0, generator.integers(0, 7, 60) / 9.0
    pairs = np.sign(positive[:, None] - negative[None, :])
    assert auroc(positive, negative) == pytest.approx(float((pairs + 1).mean() / 2), abs=1e-4)
    assert auroc(np.array([1.0]), np.array([0.0])) == 1.0
    assert auroc(np.array([0.5, 0.5]), np.array([0.5])) == 0.5


def test_as_many_are_caught_as_the_share_of_false_ones_allows() -> None:
    negative = np.arange(100) / 100
    positive = np.array([0.995, 0.985, 0.975, 0.965])
    assert caught(positive, negative, 0.0) == 0.25  # above 0.99
    assert caught(positive, negative, 0.02) == 0.75  # 0.99 and 0.98 are false, 0.97 is not
    assert caught(np.array([0.5]), np.full(100, 0.5), 0.02) == 0.0, "a bound that all are above is none"


def test_calibration_errors_in_one_bin_cancel_and_in_two_do_not() -> None:
    assert calibration_error(np.array([0.5, 0.5]), np.array([True, False])) == 0.0
    assert calibration_error(np.array([1.0, 1.0]), np.array([True, True])) == 0.0
    assert calibration_error(np.array([0.1, 0.9]), np.array([True, False])) == 0.9
