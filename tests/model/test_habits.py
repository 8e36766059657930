"""What a link, and the lack of one, says of a skill: Bayes' rule over counted decisions."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model.habits import ANCHORS, BORROWED, LEAST, MOST, NARROW, PRIOR, Habits
from model.statistics import Statistics
from topics.events import Action, Decision

IDS = ["rides", "cats", "pizza", "news"]
# who was meant, and who was linked then
LOG = (
    [("rides", ("rides", "pizza"))] * 90
    + [("rides", ("pizza",))] * 10
    + [("cats", ("rides", "news"))] * 20
    + [("cats", ("news",))] * 75
    + [("cats", ("rides", "cats"))] * 5
    + [("pizza", ("pizza",))] * 3
    + [(None, ("cats", "rides"))] * 7
)


def statistics() -> Statistics:
    """The log's, folded decision by decision."""
    found = Statistics()
    for number, (meant, linked) in enumerate(LOG):
        found.fold(
            Decision(
                event_time_ms=0,
                utterance_id=f"u{number}",
                customer_id="c",
                action=Action.LAUNCH if meant else Action.NONE,
                skill_id=meant,
                linked=linked,
            )
        )
    return found


def vectors(count: int = len(IDS), width: int = 6) -> torch.Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(4)), dim=-1)


@pytest.fixture
def habits() -> Habits:
    return Habits.of(statistics(), IDS, vectors())


def counted(skill: str) -> tuple[float, float]:
    """Both log-odds, by going through the log with the rule at hand."""
    spoken = vectors().double()
    chosen = {one: sum(meant == one for meant, _ in LOG) for one in IDS}
    through = {one: sum(meant == one and one in linked for meant, linked in LOG) for one in IDS}
    others = with_link = 0.0
    for at, other in enumerate(IDS):
        if other != skill:
            near = math.exp(NARROW * (float(spoken[IDS.index(skill)] @ spoken[at]) - 1))
            others += near * chosen[other]
            with_link += near * through[other]
    borrowed = (with_link + PRIOR * 1e-3) / (others + 1e-3)
    meant_linked = (through[skill] + BORROWED * borrowed) / (chosen[skill] + BORROWED)
    passed = sum(meant != skill and skill in linked for meant, linked in LOG)
    s = min(max(meant_linked, LEAST), MOST)
    b = min((passed + 0.5) / (len(LOG) - chosen[skill] + 1), MOST)
    return math.log(s / b), math.log((1 - s) / (1 - b))


def test_odds_are_those_of_bayes_rule_over_the_log(habits: Habits) -> None:
    expected = np.array([counted(skill) for skill in IDS])
    assert np.allclose(habits.odds.numpy(), expected, atol=1e-5)


def test_where_people_link_what_they_use_a_missing_link_tells_against_a_skill(habits: Habits) -> None:
    (rides_linked, rides_missing), (cats_linked, cats_missing) = habits.odds[:2].tolist()
    assert rides_missing < -1.5 < 1.0 < rides_linked
    assert abs(cats_missing) < 0.1
    assert cats_linked < rides_linked + 1.0


def test_a_customer_without_links_says_nothing_by_lacking_one(habits: Habits) -> None:
    rows = torch.tensor([[0, 1, 2], [2, 1, 0]])
    linked = torch.tensor([[False, True, False], [False, False, False]])
    said = habits.say(rows, linked, torch.tensor([1.0, 0.0]))
    assert said[0].tolist() == [habits.odds[0, 1], habits.odds[1, 0], habits.odds[2, 1]]
    assert said[1].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("like", [0, 1])
def test_a_skill_that_joins_has_its_neighbours_habit(habits: Habits, like: int) -> None:
    habits.put(4, vectors()[like])
    common = 0.5 / (len(LOG) + 1)  # never meant and never passed by
    share = (0.9, 0.05)[like]
    assert habits.odds[4].tolist() == pytest.approx(
        [math.log(share / common), math.log((1 - share) / (1 - common))], abs=0.15
    )


def test_nobody_elses_odds_change_when_skills_join_and_come_back(habits: Habits) -> None:
    before = habits.odds.clone()
    for row, vector in enumerate(vectors(5), start=4):
        habits.put(row, vector)
    habits.put(9, vectors()[1], source=0)
    assert torch.equal(habits.odds[:4], before)


def test_a_skill_that_comes_back_has_the_habit_that_it_had(habits: Habits) -> None:
    habits.put(7, vectors()[1], source=2)
    assert torch.equal(habits.odds[7], habits.odds[2])


def test_the_way_there_makes_no_difference_to_who_joins(habits: Habits) -> None:
    other = Habits.of(statistics(), IDS, vectors())
    one, two = vectors(2)
    habits.put(4, one)
    habits.put(5, two)
    other.put(4, two)
    other.put(5, two)
    other.put(4, one)
    assert torch.equal(habits.odds, other.odds)


def test_where_nothing_is_known_a_link_speaks_for_a_skill_and_certainty_is_never_reached() -> None:
    fresh = Habits.of(Statistics(), IDS, vectors())
    assert fresh.odds.isfinite().all()
    assert (fresh.odds[:, 0] > 0).all()
    always = Statistics().fold_classifications(IDS, np.array([10**6] * 4), np.array([10**6] * 4))
    sure = Habits.of(always, IDS, vectors())
    assert sure.odds.isfinite().all()
    assert float(sure.odds[:, 1].min()) >= math.log((1 - MOST) / 1) - 1e-3


def test_only_the_skills_chosen_most_are_borrowed_from() -> None:
    count = ANCHORS + 40
    ids, chosen = [f"s{at}" for at in range(count)], np.arange(count)
    found = Statistics().fold_classifications(ids, chosen, chosen)
    made = Habits.of(found, ids, vectors(count))
    assert len(made.anchors) == ANCHORS
    assert float(made.counts[:, 0].min()) == 40
