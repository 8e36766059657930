"""Who meets a canary, what it may take from others (nothing), and what a shadow leaves behind (no trace)."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.selector import Ranking, Request
from tests.workers.doubles import POISON, FlatSelector
from tests.workers.test_router import Run, message
from topics.codec import decode, encode
from topics.events import Decision, Utterance
from workers.budget import Budget
from workers.canary import Lineup, Trial, draw


class Failing(FlatSelector):
    """A release that cannot decide anything."""

    def decide(self, requests: list[Request]) -> list[Ranking]:
        raise ValueError("a damaged release")


class Tolerant(FlatSelector):
    """A release that can decide what the flat one cannot."""

    def decide(self, requests: list[Request]) -> list[Ranking]:
        return super().decide([replace(one, text=one.text.replace(POISON, "")) for one in requests])


def requests(count: int, text: str = "get me a car") -> list[object]:
    return [
        message(
            number,
            encode(
                Utterance(event_time_ms=1, utterance_id=f"u-{number}", customer_id=f"c-{number % 400}", text=text)
            ),
            f"c-{number % 400}".encode(),
        )
        for number in range(count)
    ]


def run(lineup: Lineup, *texts: str) -> Run:
    batches = [requests(1_200, text) for text in texts or ("get me a car",)]
    return Run(batches, lineup=lineup).go()  # type: ignore[arg-type]  # messages, as `requests` makes them


def test_a_canary_meets_its_share_of_the_customers_and_the_same_ones_each_time() -> None:
    found = run(Lineup(FlatSelector("old"), canary=Trial("canary", FlatSelector("new"), 0.25)))
    met: dict[str, set[str]] = {}
    for decision in found.decisions:
        met.setdefault(decision.customer_id, set()).add(decision.release)
    assert all(len(releases) == 1 for releases in met.values())
    assert 0.15 < sum(releases == {"new"} for releases in met.values()) / len(met) < 0.35
    assert [decision.utterance_id for decision in found.decisions] == [f"u-{number}" for number in range(1_200)]
    assert found.metric("namefree_trial_decisions_total", role="canary") == sum(
        decision.release == "new" for decision in found.decisions
    )


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_who_is_in_a_small_share_is_in_a_larger_one(customer: str, one: float, other: float) -> None:
    small, large = (Trial("canary", FlatSelector("new"), share) for share in sorted((one, other)))
    assert large.takes(customer) or not small.takes(customer)


def test_draws_are_even_and_differ_by_release() -> None:
    draws = np.array([[draw(salt, f"c-{number}") for number in range(2_000)] for salt in ("a", "b")])
    assert np.abs(np.quantile(draws, [0.1, 0.5, 0.9], axis=1) - [[0.1], [0.5], [0.9]]).max() < 0.05
    assert abs(np.corrcoef(draws)[0, 1]) < 0.1


def without_times(decision: Decision) -> Decision:
    return Decision(**{**{name: getattr(decision, name) for name in Decision.__struct_fields__}, **TIMELESS})


TIMELESS = {"event_time_ms": 0, "latency_ms": 0.0}


def test_the_serving_release_decides_the_same_with_trials_beside_it_and_without() -> None:
    alone = {one.utterance_id: without_times(one) for one in run(Lineup(FlatSelector("old"))).decisions}
    lineup = Lineup(
        FlatSelector("old"), Trial("canary", FlatSelector("new"), 0.3), Trial("shadow", FlatSelector("newer"), 0.5)
    )
    beside = [without_times(one) for one in run(lineup).decisions if one.release == "old"]
    assert 600 < len(beside) < 1_200
    assert all(alone[one.utterance_id] == one for one in beside)


def test_the_serving_release_is_asked_about_whole_batches_while_a_canary_is_small() -> None:
    """Numbers of a network depend on the size of its batch, to the last bits: so the size must not change."""
    sizes: list[int] = []

    class Counting(FlatSelector):
        def decide(self, requests: list[Request]) -> list[Ranking]:
            sizes.append(len(requests))
            return super().decide(requests)

    run(Lineup(Counting("old"), Trial("canary", FlatSelector("new"), 0.01)))
    run(Lineup(Counting("old"), Trial("canary", FlatSelector("new"), 1.0)))
    assert sizes == [1_200]


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_what_a_canary_cannot_decide_the_serving_release_decides(share: float) -> None:
    found = run(Lineup(FlatSelector("old"), canary=Trial("canary", Failing("new"), share)))
    assert [decision.release for decision in found.decisions] == ["old"] * 1_200
    assert found.letters == []
    assert found.metric("namefree_trial_failures_total", role="canary") == 1


def test_what_only_a_canary_can_decide_is_no_dead_letter() -> None:
    found = run(Lineup(FlatSelector("old"), canary=Trial("canary", Tolerant("new"), 0.3)), f"a {POISON} car")
    assert {decision.release for decision in found.decisions} == {"new"}
    assert len(found.decisions) + len(found.letters) == 1_200
    decided = {decision.utterance_id for decision in found.decisions}
    assert not decided & {f"u-{letter.offset}" for letter in found.letters}


def test_a_shadow_decides_its_share_on_a_topic_of_its_own() -> None:
    found = run(Lineup(FlatSelector("old"), shadow=Trial("shadow", FlatSelector("new"), 0.2)))
    assert [decision.release for decision in found.decisions] == ["old"] * 1_200
    unseen = [
        decode(value, Decision) for topic, _, value, _ in found.sink.committed if topic == "shadow-decisions"
    ]
    assert 120 < len(unseen) < 360
    assert {decision.release for decision in unseen} == {"new"}
    assert found.metric("namefree_trial_decisions_total", role="shadow") == len(unseen)
    assert sum(found.metric("namefree_decisions_total", action=action) for action in ("none", "launch")) == 1_200


def test_a_shadow_that_fails_holds_nothing_back() -> None:
    found = run(Lineup(FlatSelector("old"), shadow=Trial("shadow", Failing("new"), 1.0)))
    assert len(found.decisions) == 1_200
    assert {topic for topic, *_ in found.sink.committed} == {"decisions"}
    assert found.metric("namefree_trial_failures_total", role="shadow") == 1


def test_a_canary_pauses_before_it_has_decided_too_much() -> None:
    """One customer of fifty is a fiftieth of the requests: in steps of a look, never more than the bound."""
    budget, seen, share = Budget(0.005, 0.01, 0, 5_000, loaded=True), 0, 0.005
    for decided in range(5_000, 60_000, 10):
        seen += int(share > 0) * (decided % 50 == 0)
        share = budget.share(seen, decided)
        assert seen <= 0.01 * decided
    assert seen > 0.004 * 60_000


def test_a_canary_that_nobody_of_a_few_customers_meets_is_widened() -> None:
    budget, seen, share = Budget(0.005, 0.01, 0, 0, loaded=True), 0, 0.005
    for decided in range(0, 60_000, 100):
        seen += 1 if share > 0.02 else 0  # of a hundred customers the first has a draw of 0.02
        share = budget.share(seen, decided)
    assert 100 < seen <= 600


def test_a_canary_is_not_widened_while_routers_load_it_nor_for_its_pauses() -> None:
    budget = Budget(0.005, 0.01, 0, 0, loaded=False)
    assert {budget.share(0, decided) for decided in range(0, 100_000, 100)} == {0.005}
    assert budget.share(1_000, 100_000) == 0.0
    assert {budget.share(1_000, decided) for decided in range(100_000, 300_000, 100)} == {0.0, 0.005}
