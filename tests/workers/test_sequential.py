"""The test that a promotion asks after every look: false alarms are bounded however often, and harm is found."""

from itertools import product
from math import comb, exp

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.sequential import Baseline, Tally, WorseTest

shares = st.floats(0.0, 1.0)


def evidence(new: Tally, old: Tally, before: Tally) -> float:
    test = WorseTest(before)
    test.take(new, old)
    return test.evidence


def chance(tally: Tally, share: float) -> float:
    return (
        comb(tally.outcomes, tally.frictions)
        * share**tally.frictions
        * (1 - share) ** (tally.outcomes - tally.frictions)
    )


@given(shares, shares, st.integers(1, 4), st.integers(1, 6), st.integers(0, 40), st.integers(0, 40))
def test_a_block_is_worth_at_most_one_where_the_new_side_is_no_worse(
    one: float, other: float, n: int, m: int, frictions: int, calm: int
) -> None:
    """Summed over all that may happen: this is what bounds the false alarms, for any share and any guess."""
    new_share, old_share = sorted((one, other))
    before = Tally(frictions, frictions + calm)
    expected = sum(
        chance(Tally(a, n), new_share)
        * chance(Tally(b, m), old_share)
        * evidence(Tally(a, n), Tally(b, m), before)
        for a, b in product(range(n + 1), range(m + 1))
    )
    assert expected <= 1 + 1e-9


def alarms(rng: np.random.Generator, new: float, old: float, looks: int, each: int, beside: int) -> list[int]:
    """Outcomes of the new side at the first alarm, of each of 200 runs that has one."""
    found = []
    for _ in range(200):
        test = WorseTest(before=Tally(20, 100))
        for _ in range(looks):
            test.take(Tally(rng.binomial(each, new), each), Tally(rng.binomial(beside, old), beside))
            if test.is_worse(alpha=0.05):
                found.append(test.new.outcomes)
                break
    return found


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_looking_after_each_outcome_raises_no_more_false_alarms_than_promised(share: float) -> None:
    count = len(alarms(np.random.default_rng(5), share, share, looks=200, each=1, beside=30))
    assert count / 200 <= 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


def test_friction_that_moves_with_the_hour_is_no_alarm() -> None:
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(100):
        test = WorseTest()
        for share in np.linspace(0.1, 0.6, 100):
            test.take(Tally(rng.binomial(2, share), 2), Tally(rng.binomial(20, share), 20))
        found += test.is_worse(alpha=0.05)
    assert found <= 5


@pytest.mark.parametrize(("worse", "within"), [(0.3, 150), (0.7, 15)])
def test_harm_is_found_and_the_worse_the_sooner(worse: float, within: int) -> None:
    found = alarms(np.random.default_rng(1), 0.2 + worse, 0.2, looks=200, each=1, beside=30)
    assert len(found) >= 196
    assert np.quantile(found, 0.9) <= within


def test_better_is_no_alarm_and_one_outcome_is_no_proof() -> None:
    assert not alarms(np.random.default_rng(1), 0.1, 0.3, looks=100, each=1, beside=10)
    assert evidence(Tally(1, 1), Tally(0, 1_000), Tally()) < 50


def test_a_side_without_outcomes_waits_for_company() -> None:
    test = WorseTest()
    test.take(Tally(5, 5), Tally())
    assert (test.new, test.outcomes, test.evidence) == (Tally(), 5, 1.0)
    test.take(Tally(), Tally(1, 10))
    assert (test.new, test.old, test.outcomes) == (Tally(5, 5), Tally(1, 10), 5)
    assert test.evidence > 1


def test_nothing_at_all_is_an_answer() -> None:
    test = WorseTest()
    test.take(Tally(), Tally())
    assert (test.evidence, test.difference, test.is_worse(0.05)) == (1.0, 0.0, False)
    assert Baseline(Tally(), 10).draw(5) == Tally()


def test_a_thousand_outcomes_beyond_doubt_are_a_number_still() -> None:
    found = evidence(Tally(100_000, 100_000), Tally(0, 100_000), Tally(0, 1_000))
    assert found > exp(600)


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 100), st.lists(st.integers(0, 40), max_size=20))
def test_a_baseline_deals_each_outcome_once(frictions: int, calm: int, wanted: int, asked: list[int]) -> None:
    past = Tally(frictions, frictions + calm)
    baseline = Baseline(past, wanted)
    dealt = sum((baseline.draw(count) for count in asked), baseline.first)
    assert 0 <= dealt.frictions <= min(past.frictions, dealt.outcomes)
    assert dealt.outcomes <= past.outcomes
    assert dealt.outcomes - dealt.frictions <= calm
