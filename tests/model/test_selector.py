"""The model's one face."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from model.data import Row
from model.fulfilment import Question
from model.reranker import GROUPS
from model.selector import CHUNK, Ranking, Request, Selector
from model.text import Encoded, Vocabulary, tokens
from topics.events import Ability, Action, SkillCard


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


class Refusing:
    """Asks nobody, and is angry to be asked to."""

    def ask(self, questions: Sequence[Question]) -> list[Ability | None]:
        raise AssertionError(f"{len(questions)} questions were asked")


def test_warming_up_reads_requests_as_long_as_any_and_asks_no_skill(
    small_folder: Path, small_cards: list[SkillCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    selector = Selector.load(small_folder, asks=Refusing())
    selector.take([msgspec.structs.replace(card, endpoint="https://example.com") for card in small_cards])
    with pytest.raises(AssertionError, match="questions were asked"):
        selector.decide([Request("get me a car")])
    vocabulary = selector.bundle.vocabulary
    read: list[str] = []

    def encode(texts: Sequence[str]) -> Encoded:
        read.extend(texts)
        return Vocabulary.encode(vocabulary, texts)

    monkeypatch.setattr(vocabulary, "encode", encode)
    selector.warm_up(CHUNK + 3)
    assert len(set(read)) == CHUNK + 3
    assert {len(tokens(text)) for text in read} == {vocabulary.settings.max_words}


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


def test_reasons_sum_to_what_the_first_has_before_the_second(
    small_selector: Selector, small_dev: list[Row]
) -> None:
    for ranking in small_selector.decide([Request(row.text, row.linked or ()) for row in small_dev[:60]]):
        first, second = ranking.candidates[:2]
        assert sum(ranking.reasons.values()) == pytest.approx(first.score - second.score, abs=1e-3)
        assert set(ranking.reasons) <= set(GROUPS)


def test_what_would_have_come_first_without_links_is_told_where_it_differs(
    small_selector: Selector, small_dev: list[Row]
) -> None:
    linked = [Request(row.text, row.linked or ()) for row in small_dev]
    rankings = small_selector.decide(linked)
    others = [ranking for ranking in rankings if ranking.without_links is not None]
    assert 0 < len(others) < len(rankings)
    for ranking in others:
        assert ranking.without_links in [candidate.skill_id for candidate in ranking.candidates[1:]]
    bare = small_selector.decide([Request(request.text) for request in linked])
    assert all(ranking.without_links is None for ranking in bare)
    pairs = [
        (r.without_links, b.candidates[0].skill_id) for r, b in zip(rankings, bare, strict=True) if r in others
    ]
    # the shortlist is the one that was made with links, so not every one is the same
    assert sum(told == first for told, first in pairs) > 0.8 * len(pairs)


def test_the_first_candidate_says_what_the_request_fills_and_the_others_only_whether_they_can(
    small_selector: Selector,
) -> None:
    [ranking] = small_selector.decide([Request("get me a car to the airport tomorrow")])
    first, *others = ranking.candidates
    assert (first.intent, first.fulfill_source) == ("book_ride", "declared")
    assert first.slots
    assert all(not other.slots for other in others)
    assert all((other.fulfill is None) == (other.intent == "") for other in others)


def test_an_explanation_is_of_the_decision_and_its_parts_sum_to_the_scores(
    small_selector: Selector, small_dev: list[Row]
) -> None:
    for row in small_dev[:20]:
        request = Request(row.text, row.linked or ())
        why, ranking = small_selector.explain(request), small_selector.decide([request])[0]
        assert (why.ranking.action, why.ranking.skill_id) == (ranking.action, ranking.skill_id)
        for one, parts in zip(why.ranking.candidates, why.parts, strict=True):
            assert sum(parts.values()) == pytest.approx(one.score, abs=1e-3)
        least = min(why.options, key=lambda option: option.cost)
        assert (least.action, least.skill_id) == (ranking.action, ranking.skill_id)
        assert sum(choice.propensity for choice in why.choices) == pytest.approx(1.0)


def test_an_explanation_tells_the_slots_of_every_candidate(small_selector: Selector) -> None:
    why = small_selector.explain(Request("get me a car to the airport tomorrow"))
    rides = [one for one in why.ranking.candidates if one.intent == "book_ride"]
    assert len(rides) > 1
    assert all(one.slots for one in rides)


def test_costs_that_are_set_stand_in_place_of_the_bundles_and_are_named(
    small_folder: Path, small_selector: Selector, small_dev: list[Row]
) -> None:
    requests = [Request(row.text) for row in small_dev]
    free = Selector.load(small_folder, costs={"question": 0.0})
    asked, before = (
        sum(ranking.action is Action.DISCOVER for ranking in selector.decide(requests))
        for selector in (free, small_selector)
    )
    assert asked > before
    assert (free.policy, small_selector.policy) == ("question=0.0", "")
    assert free.release == small_selector.release


def test_near_ties_are_explored_by_key_and_a_replay_repeats_it(small_folder: Path, small_dev: list[Row]) -> None:
    costs = {"explore": 0.1, "near": 1.0}
    requests = [Request(row.text, row.linked or (), f"u-{at}") for at, row in enumerate(small_dev * 3)]
    first, again = (Selector.load(small_folder, costs=costs).decide(requests) for _ in range(2))
    assert first == again
    explored = [ranking for ranking in first if ranking.rule == "explore"]
    assert 0 < len(explored) < 0.2 * len(first)
    assert {round(ranking.propensity, 6) for ranking in explored} <= {0.1, 0.05, round(0.1 / 3, 6)}
    assert {ranking.propensity for ranking in first if ranking.rule == "best"} <= {0.9, 1.0}
    later = Selector.load(small_folder, costs=costs)
    later.release = "later"
    assert [ranking.rule for ranking in later.decide(requests)] != [ranking.rule for ranking in first]
