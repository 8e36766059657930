"""What is done about a request: the least expected cost, near ties shown to few, and each with its probability."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.policy import (
    ASKED_OF,
    MAX_EXPLORE,
    Choice,
    Costs,
    choices,
    choose,
    drawn,
    near_ties,
    options,
    set_costs,
)
from topics.events import Action, Candidate

KEYS = [f"u-{n}" for n in range(40_000)]
TIES: list[tuple[float, ...]] = [
    (0.46, 0.43, 0.01),
    (0.45, 0.41, 0.05),
    (0.27, 0.25, 0.23),
]  # 1, 2 and 3 near ties


def candidates(*probabilities: float, linked: bool = False) -> list[Candidate]:
    return [
        Candidate(skill_id=f"s{at}", score=0.0, probability=p, linked=linked and at == 0)
        for at, p in enumerate(probabilities)
    ]


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[Candidate], float]:
    """Candidates, best first, and `none`; what is left of 1 is elsewhere."""
    weights = draw(st.lists(st.floats(0.001, 1.0), min_size=2, max_size=7))
    none, *listed = [weight / (sum(weights) + 1e-9) for weight in weights]
    links = draw(st.lists(st.booleans(), min_size=len(listed), max_size=len(listed)))
    found = [
        Candidate(skill_id=f"s{at}", score=0.0, probability=p, linked=linked)
        for at, (p, linked) in enumerate(zip(sorted(listed, reverse=True), links, strict=True))
    ]
    return found, none


costs_of = st.builds(
    Costs,
    wrong=st.floats(0.0, 3.0),
    wrong_enable=st.floats(0.0, 3.0),
    enable=st.floats(0.0, 3.0),
    question=st.floats(0.0, 3.0),
    missed=st.floats(0.0, 3.0),
    explore=st.floats(0.0, MAX_EXPLORE),
    near=st.floats(0.0, 1.0),
)


@pytest.mark.parametrize(
    ("listed", "none", "expected"),
    [
        (candidates(0.9, 0.05, linked=True), 0.0, Choice(Action.LAUNCH, "s0", "best", 1.0)),
        (candidates(0.9, 0.05), 0.0, Choice(Action.ENABLE, "s0", "best", 1.0)),
        (candidates(0.34, 0.33, 0.32), 0.0, Choice(Action.DISCOVER, None, "near-tie", 1.0)),
        (candidates(0.1, 0.05), 0.85, Choice(Action.NONE, None, "none", 1.0)),
        (candidates(0.01), 0.9, Choice(Action.NONE, None, "none", 1.0)),
        ([], 0.0, Choice(Action.NONE, None, "no-candidates", 1.0)),
    ],
)
def test_the_action_is_the_one_of_least_expected_cost(
    listed: list[Candidate], none: float, expected: Choice
) -> None:
    assert choose(listed, none, Costs()) == choose(listed, none, Costs(), "u-1", "r") == expected


def test_expected_costs_are_those_of_the_formula() -> None:
    costs = Costs(wrong=2.0, wrong_enable=1.5, enable=0.2, question=0.3, missed=0.7)
    linked, not_linked = candidates(0.5, 0.2, 0.1, 0.1, linked=True), candidates(0.5, 0.2, 0.1, 0.1)
    assert [option.cost for option in options(linked, 0.05, costs)] == pytest.approx([1.0, 0.7, 0.665])
    assert [option.cost for option in options(not_linked, 0.05, costs)] == pytest.approx([0.85, 0.7, 0.665])


def test_nobody_is_asked_to_choose_among_one() -> None:
    only = candidates(0.3)
    assert choose(only, 0.0, Costs(question=0.0, wrong=1.0, wrong_enable=3.0, missed=3.0)).action is Action.ENABLE


@given(requests(), costs_of)
def test_the_best_costs_no_more_than_any_other(request: tuple[list[Candidate], float], costs: Costs) -> None:
    found = options(*request, costs)
    best = choose(*request, costs)
    [cost] = [one.cost for one in found if (one.action, one.skill_id) == (best.action, best.skill_id)]
    assert cost == min(one.cost for one in found)
    assert best.propensity == 1.0


@given(requests(), costs_of, st.floats(0.0, 3.0))
def test_dearer_questions_are_asked_less(
    request: tuple[list[Candidate], float], costs: Costs, more: float
) -> None:
    dearer = msgspec.structs.replace(costs, question=costs.question + more)
    if choose(*request, costs).action is not Action.DISCOVER:
        assert choose(*request, dearer).action is not Action.DISCOVER


@given(requests(), costs_of, st.floats(0.0, 3.0))
def test_the_dearer_silence_the_less_of_it(
    request: tuple[list[Candidate], float], costs: Costs, more: float
) -> None:
    dearer = msgspec.structs.replace(costs, missed=costs.missed + more)
    if choose(*request, costs).action is not Action.NONE:
        assert choose(*request, dearer).action is not Action.NONE


@given(requests(), costs_of, st.floats(0.0, 3.0), st.sampled_from(["wrong_enable", "enable"]))
def test_the_dearer_a_suggestion_the_fewer_and_launches_stay(
    request: tuple[list[Candidate], float], costs: Costs, more: float, name: str
) -> None:
    dearer = msgspec.structs.replace(costs, **{name: getattr(costs, name) + more})
    before, after = choose(*request, costs), choose(*request, dearer)
    assert before == after or before.action is Action.ENABLE


@given(requests(), costs_of)
def test_propensities_of_all_that_can_come_of_a_request_sum_to_1(
    request: tuple[list[Candidate], float], costs: Costs
) -> None:
    every = choices(*request, costs)
    assert sum(choice.propensity for choice in every) == pytest.approx(1.0, abs=1e-12)
    assert all(0 < choice.propensity <= 1 for choice in every)
    assert len({(choice.action, choice.skill_id) for choice in every}) == len(every) <= ASKED_OF + 1
    assert sum(choice.propensity for choice in every[1:]) <= MAX_EXPLORE + 1e-12


@given(requests(), costs_of, st.text(max_size=5), st.text(max_size=5))
def test_what_is_chosen_can_come_of_the_request_and_is_chosen_again(
    request: tuple[list[Candidate], float], costs: Costs, key: str, release: str
) -> None:
    chosen = choose(*request, costs, key, release)
    assert chosen in (choices(*request, costs) if key else [choose(*request, costs)])
    assert choose(*request, costs, key, release) == chosen


@given(requests(), costs_of)
def test_what_is_tried_costs_at_most_near_more_than_opening_the_first(
    request: tuple[list[Candidate], float], costs: Costs
) -> None:
    found = options(*request, costs)
    ties = near_ties(request[0], found, costs)
    assert all(tie.cost <= found[0].cost + costs.near for tie in ties)
    assert {tie.skill_id for tie in ties} <= {None, "s1", "s2"}
    tried = [choice for choice in choices(*request, costs) if choice.rule == "explore"]
    assert not tried or choose(*request, costs).skill_id == "s0"


@pytest.mark.parametrize("probabilities", TIES)
@pytest.mark.parametrize("explore", [0.02, MAX_EXPLORE])
def test_over_many_requests_each_choice_comes_as_often_as_its_propensity_says(
    probabilities: tuple[float, ...], explore: float
) -> None:
    listed, costs = candidates(*probabilities), Costs(explore=explore, question=0.5)
    every = choices(listed, 0.01, costs)
    assert len(every) == 2 + TIES.index(probabilities)
    counted = Counter(choose(listed, 0.01, costs, key, "3f9c01aa72b4") for key in KEYS)
    assert set(counted) == set(every)
    for choice in every:
        spread = (choice.propensity * (1 - choice.propensity) / len(KEYS)) ** 0.5
        assert abs(counted[choice] / len(KEYS) - choice.propensity) < 4 * spread


def test_each_release_explores_on_other_requests() -> None:
    first, second = ({key for key in KEYS if drawn(key, release) < 0.1} for release in ("a", "b"))
    assert len(first & second) / len(first) == pytest.approx(0.1, abs=0.02)


def test_the_draw_is_the_same_on_every_machine() -> None:
    """A replay elsewhere, or years later, must repeat what was explored."""
    assert [round(drawn(f"u-{n}", "3f9c01aa72b4"), 6) for n in range(3)] == [0.350923, 0.418503, 0.188287]


def test_without_a_key_or_a_share_nothing_is_explored() -> None:
    listed, costs = candidates(*TIES[0]), Costs(question=0.5)
    assert {choose(listed, 0.01, costs, key).rule for key in KEYS[:2_000]} == {"best", "explore"}
    assert {choose(listed, 0.01, costs, "", release).rule for release in KEYS[:2_000]} == {"best"}
    unexplored = Costs(question=0.5, explore=0.0)
    assert {choose(listed, 0.01, unexplored, key).propensity for key in KEYS[:2_000]} == {1.0}


@pytest.mark.parametrize(
    ("name", "value"), [("wrong", -0.1), ("question", float("nan")), ("missed", float("inf")), ("explore", 0.11)]
)
def test_a_cost_that_is_none_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        set_costs(Costs(), {name: value})


def test_changed_costs_are_told_and_the_others_stay() -> None:
    usual = Costs(missed=0.5)
    assert set_costs(usual, None) is usual
    changed = set_costs(usual, {"question": 0.5, "explore": 0.0})
    assert changed == Costs(missed=0.5, question=0.5, explore=0.0)
    assert (changed.told(usual), usual.told(usual)) == ("question=0.5,explore=0.0", "")
