"""The model's one face."""

import pytest

from model.data import Row
from model.selector import Ranking, Request, Selector


def test_a_request_gets_the_same_answer_alone_and_in_company(
    small_selector: Selector, small_dev: list[Row]
) -> None:
    requests = [Request(row.text, row.linked or ()) for row in small_dev[:60]]
    together = small_selector.decide(requests)
    for request, ranking in zip(requests[:12], together[:12], strict=True):
        alone = small_selector.decide([request])[0]
        assert (alone.action, alone.skill_id) == (ranking.action, ranking.skill_id)
        assert [c.skill_id for c in alone.candidates] == [c.skill_id for c in ranking.candidates]
        assert alone.none_probability == pytest.approx(ranking.none_probability, abs=1e-4)


def test_nothing_asked_nothing_answered(small_selector: Selector) -> None:
    assert small_selector.decide([]) == []


def test_any_text_is_answered_and_unknown_links_are_left_out(small_selector: Selector) -> None:
    texts = ["", "?!", "🚕🚕", "qzxv " * 400, "get me a car"]
    rankings = small_selector.decide([Request(text, ("gone:skill",)) for text in texts])
    assert all(len(ranking.candidates) == 6 for ranking in rankings)
    assert not any(candidate.linked for ranking in rankings for candidate in ranking.candidates)


def test_candidates_come_best_first_with_probabilities_that_leave_room(small_selector: Selector) -> None:
    ranking = small_selector.decide([Request("get me a car", ("rides:acorn",))])[0]
    scores = [candidate.score for candidate in ranking.candidates]
    assert scores == sorted(scores, reverse=True)
    assert sum(c.probability for c in ranking.candidates) + ranking.none_probability <= 1.001
    assert sorted(c.shortlist_rank for c in ranking.candidates) == list(range(6))
    assert {c.skill_id for c in ranking.candidates if c.attention is not None} <= {"rides:acorn"}


def test_a_link_draws_the_decision_to_the_linked_rival(small_selector: Selector) -> None:
    def place(ranking: Ranking) -> int:
        return [candidate.skill_id for candidate in ranking.candidates].index("rides:acorn")

    without, with_link = small_selector.decide(
        [Request("get me a car"), Request("get me a car", ("rides:acorn", "timers:eggo"))]
    )
    assert place(with_link) <= place(without)
    assert with_link.candidates[place(with_link)].probability > without.candidates[place(without)].probability
