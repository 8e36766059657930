"""Live statistics: what is broken is held back soon and comes back, and what works is left alone."""

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data import Row
from model.live import DEEPEST, STEP, Answers, Gained, Watch, joined_version, live_statistics, version_of
from model.selector import Ranking, Request, Selector
from topics.events import Action

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
NOBODY = Answers()


def launched(answered: int, kept: int, probability: float = 0.9) -> Gained:
    return Gained(Answers(answered, kept, answered * probability), NOBODY)


def suggested(answered: int, kept: int, probability: float = 0.9) -> Gained:
    return Gained(NOBODY, Answers(answered, kept, answered * probability))


def amid_others() -> Watch:
    """What nothing is known of but that launches and suggestions are taken as they are expected to be."""
    found = Watch(HOUR_MS)
    found.take({"others": Gained(Answers(1_000, 900, 900.0), Answers(1_000, 900, 900.0))}, 0)
    return found


def watch(*gained: dict[str, Gained], every_ms: int = 1_000) -> Watch:
    found = amid_others()
    for number, one in enumerate(gained):
        found.take(one, number * every_ms)
    return found


def refusals_until_held(probability: float, sort: str = "launch") -> int:
    found, make = amid_others(), launched if sort == "launch" else suggested
    for number in range(1, 100):
        found.take({"rides": make(1, 0, probability)}, number)
        if found.factors(number):
            return number
    return 100


def test_nothing_known_holds_nobody_back() -> None:
    assert Watch(HOUR_MS).factors(0) == {}


def test_the_surer_customers_were_the_fewer_refusals_hold_a_skill_back() -> None:
    needed = [refusals_until_held(probability) for probability in (0.99, 0.9, 0.7, 0.5, 0.3)]
    assert needed == sorted(needed)
    assert (needed[0], needed[1]) == (3, 4)
    assert 10 < needed[3] < needed[4] < 40


def test_suggestions_that_nobody_takes_count_too_until_a_launch_is_kept() -> None:
    assert refusals_until_held(0.9, "suggestion") == refusals_until_held(0.9)
    found = watch({"rides": suggested(8, 0)})
    assert found.factors(0)["rides"] < -3
    found.take({"rides": launched(8, 8)}, 0)
    assert found.factors(0) == {}


def test_links_that_customers_make_do_not_speak_for_launches_that_fail() -> None:
    assert watch({"rides": Gained(Answers(8, 0, 7.2), Answers(40, 36, 36.0))}).factors(0)["rides"] < -3


def test_more_refusals_hold_a_skill_back_further_down_to_a_bound_and_in_steps() -> None:
    found = [watch({"rides": launched(n, 0)}).factors(0).get("rides", 0.0) for n in range(400)]
    assert found == sorted(found, reverse=True)
    assert -DEEPEST <= found[-1] < -5
    assert all(factor % STEP == 0 for factor in found)


def test_a_skill_that_is_refused_half_the_time_is_left_to_training_or_held_back_by_less() -> None:
    fails = watch(*[{"rides": launched(1, 0)}] * 40).factors(0)["rides"]
    doubtful = watch(*[{"rides": launched(4, 1)}] * 10).factors(0)["rides"]
    assert fails < doubtful - 2
    assert watch(*[{"rides": launched(3, 2)}] * 20).factors(0) == {}


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.floats(0, 1)), max_size=12), st.floats(0, 9))
def test_no_outcomes_ever_raise_a_skill(outcomes: list[tuple[int, int, float]], later_h: float) -> None:
    """Whoever fakes acceptances gains nothing."""
    found = watch(*[{"rides": launched(kept + refused, kept, p)} for kept, refused, p in outcomes])
    assert all(-DEEPEST <= factor < 0 for factor in found.factors(int(later_h * HOUR_MS)).values())


def test_skills_that_work_are_left_alone_though_chance_refuses_them() -> None:
    draws, found, held = random.Random(7), Watch(HOUR_MS), 0
    skills = [f"s-{n}" for n in range(200)]
    for turn in range(400):
        gained = {}
        for skill in draws.sample(skills, 50):
            gained[skill] = launched(1, int(draws.random() < 0.85), 0.9)
        found.take(gained, turn * 5_000)
        held += len(found.factors(turn * 5_000))
    assert held < 0.002 * 400 * len(skills)


def test_what_happens_to_everybody_is_held_against_nobody() -> None:
    skills = [f"s-{n}" for n in range(50)]
    found = Watch(HOUR_MS)
    for turn in range(40):
        found.take({skill: launched(2, 0) for skill in skills}, turn * 5_000)
    assert found.factors(200_000) == {}


def test_of_ten_skills_the_two_that_break_are_held_back() -> None:
    found = Watch(HOUR_MS)
    for turn in range(10):
        found.take({f"s-{n}": launched(1, int(n > 1)) for n in range(10)}, turn)
    assert set(found.factors(10)) == {"s-0", "s-1"}


def test_time_brings_a_skill_back_within_about_a_half_life() -> None:
    found = watch({"rides": launched(500, 0)})
    after = [found.factors(minutes * MINUTE_MS).get("rides", 0.0) for minutes in range(0, 90, 10)]
    assert after == sorted(after)
    assert after[0] < -5
    assert after[3] > after[0] / 2
    assert after[7:] == [0.0, 0.0]


def test_launches_that_are_kept_bring_it_back_at_once() -> None:
    found = watch({"rides": launched(8, 0)}, {"rides": launched(5, 5)})
    assert found.factors(1_000) == {}


def test_one_that_is_tried_again_and_still_fails_is_held_back_again_sooner() -> None:
    found = watch({"rides": launched(20, 0)})
    back_ms = next(at for at in range(0, 2 * HOUR_MS, MINUTE_MS) if not found.factors(at))
    found.take({"rides": launched(2, 0)}, back_ms)
    assert found.factors(back_ms)["rides"] < -2


def test_factors_that_were_in_force_are_taken_over() -> None:
    before = watch({"rides": launched(12, 0)})
    factors = before.factors(0)
    after = Watch(HOUR_MS)
    after.resume(factors, 0)
    assert after.factors(0) == factors
    assert after.factors(20_000) == factors  # a router that starts does not at once make another version
    assert after.factors(2 * HOUR_MS) == {}


def test_a_version_is_made_from_the_factors_alone() -> None:
    one = live_statistics({"a": -1.0, "b": -2.0}, {"decisions/0": 5}, 1)
    other = live_statistics({"b": -2.0, "a": -1.0}, {"decisions/0": 9}, 2)
    assert one.version == other.version == version_of(one.factors) != version_of({})
    assert joined_version("5a0c", one) == f"5a0c+{one.version}"


def test_a_selector_adds_the_factor_to_the_score_and_says_so(small_folder: Path) -> None:
    selector, request = Selector.load(small_folder), Request("get me a car", ("rides:acorn",))
    [before] = selector.decide([request])
    first, own = before.candidates[0].skill_id, selector.statistics
    live = live_statistics({first: -7.5, "gone:skill": -2.0}, {}, 0)
    selector.follow(live)
    assert selector.statistics == f"{own}+{live.version}"
    [after] = selector.decide([request])
    scores, were = ({one.skill_id: one.score for one in ranking.candidates} for ranking in (after, before))
    assert scores == pytest.approx({skill: score - 7.5 * (skill == first) for skill, score in were.items()})
    assert after.candidates[0].skill_id == before.candidates[1].skill_id
    told, was = (
        {one.skill_id: one.probability for one in ranking.candidates} | {"": ranking.none_probability}
        for ranking in (after, before)
    )
    assert told == was  # what is meant is what it was, whatever is done about it
    difference = after.candidates[0].score - after.candidates[1].score
    assert sum(after.reasons.values()) == pytest.approx(difference, abs=1e-3)
    why = selector.explain(request)
    assert min(why.options, key=lambda option: option.cost)[:2] == (after.action, after.skill_id)
    parts = dict(zip((one.skill_id for one in why.ranking.candidates), why.parts, strict=True))
    assert {skill: told["live"] for skill, told in parts.items() if "live" in told} == {first: -7.5}
    selector.follow(None)
    assert selector.decide([request]) == [before]
    assert selector.statistics == own


def test_a_factor_stays_with_its_skill_when_others_join_and_leave(small_folder: Path) -> None:
    selector = Selector.load(small_folder)
    selector.follow(live_statistics({"rides:acorn": -7.5}, {}, 0))
    selector.take([], ["rides:birch"])
    why = selector.explain(Request("get me a car", ("rides:acorn",)))
    told = {one.skill_id for one, parts in zip(why.ranking.candidates, why.parts, strict=True) if "live" in parts}
    assert told == {"rides:acorn"}


def asked(selector: Selector, rows: list[Row], broken: str) -> tuple[Counter[str], dict[str, list[float]]]:
    """One round of customers: how often each skill was opened; of each the answers as they are folded."""
    rankings = selector.decide([Request(row.text, row.linked or ()) for row in rows])
    opened: Counter[str] = Counter()
    answers: dict[str, list[float]] = {}
    for row, ranking in zip(rows, rankings, strict=True):
        if ranking.skill_id is not None:
            opened[ranking.skill_id] += 1
            kept = ranking.skill_id == row.skill_id != broken
            sums = answers.setdefault(ranking.skill_id, [0, 0, 0.0] * 2)
            at = 0 if ranking.action is Action.LAUNCH else 3
            for place, value in enumerate((1, kept, _probability(ranking))):
                sums[at + place] += value
    return opened, answers


def _probability(ranking: Ranking) -> float:
    return next(one.probability for one in ranking.candidates if one.skill_id == ranking.skill_id)


@pytest.mark.parametrize("alone", [False, True])
def test_a_skill_that_breaks_loses_its_launches_within_minutes_and_has_them_again_once_mended(
    small_folder: Path, small_dev: list[Row], alone: bool
) -> None:
    """With rivals and as the only one of its kind; some requests a minute."""
    selector, found, minute, broken = Selector.load(small_folder), Watch(HOUR_MS), 0, "rides:acorn"
    others = [skill for skill in selector.bundle.catalogue.ids() if skill.startswith("rides:") and skill != broken]
    selector.take([], others if alone else [])
    rows = [row for row in small_dev if row.skill_id and not (alone and row.skill_id in others)]
    draws = random.Random(3)

    def minutes(count: int, fails: bool) -> int:
        nonlocal minute
        times = 0
        for _ in range(count):
            minute += 1
            opened, answers = asked(selector, draws.sample(rows, 40), broken if fails else "")
            times += opened[broken]
            gained = {skill: Gained(Answers(*sums[:3]), Answers(*sums[3:])) for skill, sums in answers.items()}
            found.take(gained, minute * MINUTE_MS)
            selector.follow(live_statistics(found.factors(minute * MINUTE_MS), {}, 0))
        return times

    usual = minutes(10, fails=False)
    assert usual > 10
    minutes(10, fails=True)
    assert minutes(10, fails=True) <= 0.2 * usual
    minutes(75, fails=False)
    assert minutes(10, fails=False) > 0.7 * usual
