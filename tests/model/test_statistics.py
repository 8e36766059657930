"""The monoid's laws, and what the readers make of the counts."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.statistics import FEATURES, Statistics, decay, linked_skills, merge_all, weight_after
from topics import codec
from topics.errors import BadBundle
from topics.events import Action, Candidate, Decision, Outcome, OutcomeKind, SkillStatistics, StatisticsFold

SKILLS = ("rides:acme", "rides:bolt", "cats:facts")
_skill = st.sampled_from(SKILLS)


def decision(skill_id: str | None = "rides:acme", **given_fields: Any) -> Decision:
    fields: dict[str, Any] = {"action": Action.NONE if skill_id is None else Action.LAUNCH, **given_fields}
    return Decision(event_time_ms=0, utterance_id="u", customer_id="c", skill_id=skill_id, **fields)


def outcome(kind: OutcomeKind, skill_id: str | None = None) -> Outcome:
    return Outcome(event_time_ms=1, utterance_id="u", customer_id="c", outcome=kind, skill_id=skill_id)


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    listed = draw(st.lists(_skill, unique=True, max_size=3))
    shares = st.floats(min_value=0, max_value=1)
    chosen = draw(st.sampled_from([None, *SKILLS]))
    return decision(
        chosen,
        action=draw(st.sampled_from([Action.NONE if chosen is None else Action.LAUNCH, Action.DISCOVER])),
        linked=tuple(draw(st.lists(_skill, unique=True, max_size=2))),
        candidates=tuple(Candidate(skill_id=s, score=1.0, probability=draw(shares)) for s in listed),
    )


@st.composite
def joined(draw: st.DrawFn) -> tuple[Decision, Outcome | None]:
    kind = draw(st.sampled_from(OutcomeKind))
    taken = draw(_skill if kind is OutcomeKind.CORRECTED else st.one_of(st.none(), _skill))
    return draw(decisions()), draw(st.one_of(st.none(), st.just(outcome(kind, taken))))


def folded(events: list[tuple[Decision, Outcome | None]]) -> Statistics:
    whole = Statistics()
    for event in events:
        whole.fold(*event)
    return whole


@st.composite
def statistics(draw: st.DrawFn) -> Statistics:
    counts = st.lists(st.integers(0, 5), min_size=3, max_size=3).map(np.array)
    chosen, passed, none = draw(counts), draw(counts), draw(st.integers(0, 3))
    whole = folded(draw(st.lists(joined(), max_size=4)))
    return whole.fold_classifications(SKILLS, chosen, chosen // 2, passed, none)


def test_nothing_is_the_identity_of_nothing() -> None:
    assert Statistics().merge(Statistics()) == Statistics()
    assert merge_all([]) == Statistics()
    assert Statistics().version() == ""


@given(statistics())
def test_merging_nothing_changes_nothing(a: Statistics) -> None:
    assert a.merge(Statistics()) == a == Statistics().merge(a)


@given(statistics(), statistics())
def test_the_order_of_a_merge_never_matters(a: Statistics, b: Statistics) -> None:
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).version() == b.merge(a).version()


@given(statistics(), statistics(), statistics())
def test_the_grouping_of_merges_never_matters(a: Statistics, b: Statistics, c: Statistics) -> None:
    assert a.merge(b).merge(c) == a.merge(b.merge(c))


@given(st.lists(joined(), max_size=6), st.integers(0, 6))
def test_folding_then_merging_is_merging_then_folding(
    events: list[tuple[Decision, Outcome | None]], cut: int
) -> None:
    assert folded(events[:cut]).merge(folded(events[cut:])) == folded(events)


@given(statistics(), statistics())
def test_a_merge_leaves_its_parts_alone(a: Statistics, b: Statistics) -> None:
    before = a.to_json(), b.to_json()
    a.merge(b).fold(decision("rides:bolt"))
    assert (a.to_json(), b.to_json()) == before


half_lives = st.floats(min_value=0, max_value=20)


def near(a: Statistics, b: Statistics) -> None:
    """Equal but for the last digits of fractions: cell by cell, and no cell more on either side."""
    assert _cells(msgspec.to_builtins(a)) == pytest.approx(_cells(msgspec.to_builtins(b)), rel=1e-9)


def _cells(found: Any, at: str = "") -> dict[str, float]:
    if isinstance(found, int | float):
        return {at: found}
    inside = found.items() if isinstance(found, dict) else enumerate(found)
    return {key: value for name, one in inside for key, value in _cells(one, f"{at}/{name}").items()}


@given(statistics())
def test_what_has_not_aged_is_whole_and_the_same(a: Statistics) -> None:
    assert decay(a, 0) == a
    assert decay(a, 0).to_json() == a.to_json()


@given(statistics(), statistics(), half_lives)
def test_to_decay_and_to_merge_may_be_done_in_either_order(a: Statistics, b: Statistics, age: float) -> None:
    near(decay(a.merge(b), age), decay(a, age).merge(decay(b, age)))


@given(statistics(), half_lives, half_lives)
def test_to_decay_twice_is_to_decay_by_both(a: Statistics, first: float, second: float) -> None:
    near(decay(decay(a, first), second), decay(a, first + second))


@given(statistics(), statistics(), statistics(), half_lives)
def test_decayed_counts_merge_by_the_same_laws(a: Statistics, b: Statistics, c: Statistics, age: float) -> None:
    old = decay(a, age)
    near(old.merge(b).merge(c), old.merge(b.merge(c)))
    assert old.merge(b) == b.merge(old)
    assert old.merge(Statistics()) == old


@given(statistics(), half_lives)
def test_decayed_counts_survive_the_bundle_under_one_version(a: Statistics, age: float) -> None:
    old = decay(a, age)
    assert Statistics.from_json(old.to_json()) == old
    assert Statistics.from_json(old.to_json()).version() == old.version() == decay(a, age).version()


def test_a_half_life_leaves_half() -> None:
    told = Statistics().fold(decision()).fold(decision(), outcome(OutcomeKind.REJECTED, "rides:bolt"))
    old = decay(told.merge(told), 1)
    assert (old.decisions, old.outcomes) == (1, 1)
    assert old.skills["rides:acme"].unlinked.rejected == 1
    assert weight_after(3) == 0.125


@given(st.lists(joined(), max_size=6))
def test_answers_to_a_choice_were_kept_or_not_and_count_where_it_was_chosen(
    events: list[tuple[Decision, Outcome | None]],
) -> None:
    found = folded([event for event in events if event[1]])
    sides = [side for both in found.skills.values() for side in (both.linked, both.unlinked)]
    assert all(side.kept <= side.answered for side in sides)
    assert sum(side.answered for side in sides) == sum(bool(made.skill_id and then) for made, then in events)


def test_what_was_to_be_expected_is_summed_where_an_outcome_came() -> None:
    listed = (Candidate(skill_id="rides:acme", score=1.0, probability=0.75),)
    made = decision(candidates=listed)
    found = Statistics().fold(made).fold(made)
    for kind, taken in (
        ("accepted", None),
        ("enabled", "rides:acme"),
        ("accepted", "rides:bolt"),
        ("rejected", None),
    ):
        found.fold(made, outcome(OutcomeKind(kind), taken))
    counts = found.skills["rides:acme"].unlinked
    assert (counts.answered, counts.kept, counts.expected_millionths) == (4, 2, 3_000_000)
    assert counts.mass_millionths == 1_500_000


@given(st.lists(decisions(), max_size=6))
def test_each_link_that_a_decision_knows_was_first_or_passed(made: list[Decision]) -> None:
    found = folded([(one, None) for one in made])
    sides = [both.linked for both in found.skills.values()]
    told = sum(side.chosen + side.asked + side.passed for side in sides)
    assert told == sum(len(linked_skills(one)) for one in made)
    assert not any(both.unlinked.passed for both in found.skills.values())


@given(st.lists(decisions(), max_size=6))
def test_classifications_are_folded_as_the_decisions_that_they_stand_for(made: list[Decision]) -> None:
    """Whoever chose what, with whatever linked: one by one or as three columns of counts."""
    bare = [decision(one.skill_id, linked=one.linked) for one in made]
    chosen, linked, passed = (np.zeros(3, dtype=np.int64) for _ in range(3))
    for one in bare:
        for row, skill_id in enumerate(SKILLS):
            chosen[row] += one.skill_id == skill_id
            linked[row] += one.skill_id == skill_id and skill_id in one.linked
            passed[row] += one.skill_id != skill_id and skill_id in one.linked
    none = sum(one.skill_id is None for one in bare)
    together = Statistics().fold_classifications(SKILLS, chosen, linked, passed, none)
    assert together == folded([(one, None) for one in bare])


@given(statistics())
def test_counts_survive_the_bundle_and_the_topic(a: Statistics) -> None:
    assert Statistics.from_json(a.to_json()) == a
    wire = codec.encode(a.to_fold("2026-11-22T19", 3, {"decisions": 5, "outcomes": 7}, 1))
    assert Statistics.from_fold(codec.decode(wire, StatisticsFold)) == a


def test_empty_cells_of_another_producer_say_nothing() -> None:
    padded = Statistics(skills={"rides:acme": SkillStatistics()}, taken_instead={"rides:acme": {"cats:facts": 0}})
    assert padded.version() == ""
    assert Statistics.from_fold(padded.to_fold("b", 0, {}, 0)) == Statistics()


def test_damaged_statistics_are_refused_in_one_sentence() -> None:
    with pytest.raises(BadBundle, match=r"the statistics cannot be read: Expected `int \| float`"):
        Statistics.from_json(b'{"decisions": "many"}')


def test_a_decision_counts_its_choice_and_each_place_on_its_side_of_the_link() -> None:
    listed = (
        Candidate(skill_id="rides:acme", score=2.0, probability=0.75, linked=True),
        Candidate(skill_id="rides:bolt", score=1.0, probability=0.25),
    )
    found = Statistics().fold(decision("rides:acme", candidates=listed))
    acme, bolt = found.skills["rides:acme"], found.skills["rides:bolt"]
    assert (acme.linked.chosen, acme.linked.offered, acme.linked.mass_millionths) == (1, [1], 750_000)
    assert (bolt.unlinked.chosen, bolt.unlinked.offered, bolt.unlinked.mass_millionths) == (0, [0, 1], 250_000)
    assert acme.unlinked.chosen == 0


def test_a_link_is_passed_by_the_choice_of_another_skill_or_of_none() -> None:
    links = ("rides:acme", "rides:bolt")
    found = Statistics().fold(decision("rides:acme", linked=links)).fold(decision(None, linked=links))
    found.fold(decision("cats:facts", linked=("rides:bolt",)))
    told = {skill_id: (both.linked.chosen, both.linked.passed) for skill_id, both in found.skills.items()}
    assert told == {"rides:acme": (1, 1), "rides:bolt": (0, 3), "cats:facts": (0, 0)}
    assert found.none_chosen == 1


def test_a_question_counts_for_the_skill_that_it_puts_first_and_passes_the_other_links() -> None:
    """Where few are suggested and many asked about, a skill would else seem never meant without a link."""
    listed = [
        Candidate(skill_id=skill_id, score=1.0, probability=0.4) for skill_id in ("rides:acme", "rides:bolt")
    ]
    question: dict[str, Any] = {"action": Action.DISCOVER, "candidates": tuple(listed)}
    found = Statistics().fold(decision(None, linked=("rides:acme", "cats:facts"), **question))
    found.fold(decision(None, **question))
    told = {
        skill_id: (both.linked.asked, both.linked.passed, both.unlinked.asked, both.linked.chosen)
        for skill_id, both in found.skills.items()
    }
    assert told == {"rides:acme": (1, 0, 1, 0), "rides:bolt": (0, 0, 0, 0), "cats:facts": (0, 1, 0, 0)}
    assert found.link_counts(SKILLS).tolist() == [[2, 1, 0], [0, 0, 0], [0, 0, 1]]
    launched = Statistics().fold(decision(linked=("rides:acme", "cats:facts"))).fold(decision())
    alike = ("log_lift_chosen", "log_lift_passed", "linked")
    columns = [FEATURES.index(name) for name in alike]
    assert (found.features(SKILLS)[:, columns] == launched.features(SKILLS)[:, columns]).all()


def test_a_question_without_a_list_counts_for_nobody() -> None:
    found = Statistics().fold(decision(None, action=Action.DISCOVER, linked=("rides:acme",)))
    assert found.link_counts(SKILLS).tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert found.none_chosen == 0


def test_an_outcome_passes_nobody_a_second_time() -> None:
    made = decision("rides:acme", linked=("rides:bolt",))
    found = Statistics().fold(made).fold(made, outcome(OutcomeKind.REJECTED))
    assert found.skills["rides:bolt"].linked.passed == 1


@pytest.mark.parametrize("kind", ["rejected", "abandoned", "corrected"])
def test_what_the_customer_refused_counts_for_the_chosen_skill(kind: str) -> None:
    found = Statistics().fold(decision(), outcome(OutcomeKind(kind), "rides:bolt"))
    assert getattr(found.skills["rides:acme"].unlinked, kind) == 1
    assert "rides:bolt" not in found.skills


def test_what_the_customer_took_counts_for_the_taken_skill_and_as_a_pair() -> None:
    found = Statistics().fold(decision(), outcome(OutcomeKind.ACCEPTED, "rides:bolt"))
    assert found.skills["rides:bolt"].unlinked.accepted == 1
    assert found.taken_instead == {"rides:acme": {"rides:bolt": 1}}


def test_an_outcome_after_no_choice_shows_in_the_totals_only() -> None:
    found = Statistics().fold(decision(None), outcome(OutcomeKind.CORRECTED, "rides:bolt"))
    assert (found.outcomes, found.skills, found.taken_instead) == (1, {}, {})


def test_a_link_is_known_from_the_list_or_from_the_candidate() -> None:
    listed = (Candidate(skill_id="rides:bolt", score=1.0, probability=0.5, linked=True),)
    made = decision(candidates=listed, linked=("rides:acme",))
    assert linked_skills(made) == {"rides:acme", "rides:bolt"}


def test_a_training_epoch_is_folded_as_one_by_one() -> None:
    single = Statistics()
    for skill_id in ("rides:acme", "rides:acme", "cats:facts"):
        single.fold(decision(skill_id))
    assert Statistics().fold_classifications(SKILLS, np.array([2, 0, 1])) == single


def test_more_linked_than_chosen_is_refused() -> None:
    with pytest.raises(ValueError, match="linked counts are a part of the chosen ones"):
        Statistics().fold_classifications(SKILLS, np.array([1, 0, 0]), np.array([2, 0, 0]))


def test_nothing_known_reads_as_zeros() -> None:
    assert Statistics().share_chosen(SKILLS).tolist() == [0, 0, 0]
    assert not Statistics().features(SKILLS).any()
    assert Statistics().features([]).shape == (0, len(FEATURES))


def test_features_follow_their_formulas() -> None:
    found = Statistics().fold_classifications(
        SKILLS, np.array([5, 1, 0]), np.array([4, 0, 0]), np.array([0, 2, 4]), none=3
    )
    found.fold(decision(), outcome(OutcomeKind.ACCEPTED))
    found.fold(decision(), outcome(OutcomeKind.CORRECTED, "rides:bolt"))
    told = dict(zip(FEATURES, found.features(SKILLS).T, strict=True))  # each (skills,)
    third = np.log(4 / 3)  # the mean of one event over three skills, plus one
    assert told["log_lift_chosen"] == pytest.approx(np.log([6 / 3, 2 / 3, 1 / 3]), abs=1e-6)
    assert told["log_lift_passed"] == pytest.approx(np.log([1 / 3, 3 / 3, 5 / 3]), abs=1e-6)
    assert told["log_lift_accepted"] == pytest.approx([np.log(2) - third, -third, -third], abs=1e-6)
    assert told["log_lift_instead"] == pytest.approx([-third, np.log(2) - third, -third], abs=1e-6)
    assert told["acceptance"] == pytest.approx([0, 0, 0], abs=1e-6)
    assert told["linked"] == pytest.approx([2 * 5 / 7 - 1, 2 / 3 - 1, 0], abs=1e-6)
    assert found.features(SKILLS).dtype == np.float32
    assert found.share_chosen(SKILLS) == pytest.approx([5 / 6, 1 / 6, 0])


def test_a_skill_that_is_linked_often_is_told_from_one_that_is_chosen_often() -> None:
    """What a link is worth depends on it: who is linked by everybody is rarely meant for that."""
    found = Statistics().fold_classifications(
        SKILLS, np.array([5, 5, 0]), np.array([5, 5, 0]), np.array([0, 95, 0])
    )
    acme, bolt, _ = found.features(SKILLS)
    assert acme[FEATURES.index("log_lift_chosen")] == bolt[FEATURES.index("log_lift_chosen")]
    assert acme[FEATURES.index("log_lift_passed")] < 0 < bolt[FEATURES.index("log_lift_passed")]
