"""Worlds of simulated customers: what is taught, what is asked when, who satisfies whom; and devices and liars."""

import math
from collections import Counter
from dataclasses import replace

import pytest

from model.data import Row, read_rows, read_skills, split_path
from model.sample import SAMPLE_DIR
from topics.errors import BadData
from topics.events import Action, OutcomeKind, SkillCard
from workers.behaviour import FLAWED, Devices, Habit, Lies
from workers.crowd import Plan, reaction
from workers.worlds import CHECKED, FAILING, JOINING_SHARE, WORLDS, World, draw

PARTS, FIRST = 4, 0.2
OFFERED = ("rides:acorn", "rides:quince", "rides:poolio")


@pytest.fixture(scope="module")
def sample() -> tuple[list[SkillCard], list[Row]]:
    return read_skills(SAMPLE_DIR), read_rows(split_path(SAMPLE_DIR, "train"))


def world(sample: tuple[list[SkillCard], list[Row]], name: str, seed: int = 0) -> World:
    return draw(name, *sample, PARTS, FIRST, seed)


def texts(rows: list[Row]) -> set[str]:
    return {row.text for row in rows}


@pytest.mark.parametrize("name", WORLDS)
def test_a_seed_draws_one_world(sample: tuple[list[SkillCard], list[Row]], name: str) -> None:
    assert world(sample, name) == world(sample, name)
    assert world(sample, name).rows != world(sample, name, 1).rows


@pytest.mark.parametrize("name", WORLDS)
def test_no_text_is_taught_and_asked(sample: tuple[list[SkillCard], list[Row]], name: str) -> None:
    found = world(sample, name)
    assert not texts(found.taught) & texts(found.checked)
    assert not (texts(found.taught) | texts(found.checked)) & texts(found.rows)
    assert found.bounds[0] == 0
    assert found.bounds[-1] == len(found.rows)
    assert found.bounds == sorted(found.bounds)
    assert found.parts == PARTS


def test_in_a_steady_world_every_row_has_one_place_and_stays_what_it_is(
    sample: tuple[list[SkillCard], list[Row]],
) -> None:
    found = world(sample, "steady")
    _, rows = sample
    key = repr
    assert sorted([*found.taught, *found.checked, *found.rows], key=key) == sorted(rows, key=key)
    assert math.isclose((len(found.taught) + len(found.checked)) / len(rows), FIRST, abs_tol=0.03)
    assert math.isclose(len(found.checked), CHECKED * FIRST * len(rows), rel_tol=0.5)
    assert found.meant(rows[0], PARTS - 1) == rows[0]


def test_skills_that_join_are_nowhere_before_the_change(sample: tuple[list[SkillCard], list[Row]]) -> None:
    found = world(sample, "drift")
    strangers = {card.skill_id for card in found.joining}
    assert len(strangers) == round(JOINING_SHARE * len(sample[0]))
    assert not strangers & {card.skill_id for card in found.cards}
    assert found.changes == PARTS // 2
    change = found.bounds[PARTS // 2]
    for row in [*found.taught, *found.checked, *found.rows[:change]]:
        assert row.skill_id not in strangers
        assert not strangers & set(row.linked or ())
    assert strangers & {row.skill_id for row in found.rows[change:]}
    [one] = [row for row in sample[1] if row.skill_id in strangers][:1]
    assert found.meant(one, 0) is None
    assert found.meant(one, PARTS // 2) == one


def test_after_the_change_skills_that_fail_are_meant_no_more(sample: tuple[list[SkillCard], list[Row]]) -> None:
    found = world(sample, "drift")
    change = found.bounds[PARTS // 2]
    asked = {row.skill_id for row in found.rows[change:]}
    assert found.failing
    assert not asked & set(found.failing)
    assert not set(found.failing) & set(found.failing.values())
    assert not set(found.failing) & {card.skill_id for card in found.joining}
    assert 1 <= len(found.failing) <= math.ceil(FAILING * len(sample[0]))
    assert {row.skill_id for row in found.rows[:change]} & set(found.failing), "they were meant before"
    moved = [row for row in sample[1] if row.skill_id in found.failing]
    after = found.meant(moved[0], PARTS - 1)
    assert after is not None
    assert after.skill_id == found.failing[moved[0].skill_id or ""]
    assert after.linked == moved[0].linked


def test_a_substitute_is_of_the_same_family(sample: tuple[list[SkillCard], list[Row]]) -> None:
    """On the sample ids say the family: words lead to it."""
    pairs = [pair for seed in range(3) for pair in world(sample, "drift", seed).failing.items()]
    alike = sum(skill.partition(":")[0] == other.partition(":")[0] for skill, other in pairs)
    assert alike >= 0.8 * len(pairs)


def test_popularity_is_dealt_anew(sample: tuple[list[SkillCard], list[Row]]) -> None:
    found = world(sample, "drift")
    change = found.bounds[PARTS // 2]
    before, after = (Counter(row.skill_id for row in rows) for rows in (found.rows[:change], found.rows[change:]))
    often = [skill for skill, _ in before.most_common(20)]
    assert len({skill for skill, _ in after.most_common(20)} & set(often)) < 12
    assert math.isclose(after[None] / after.total(), before[None] / before.total(), abs_tol=0.03)


def test_only_in_the_last_world_somebody_is_paid(sample: tuple[list[SkillCard], list[Row]]) -> None:
    honest, adversarial = world(sample, "honest"), world(sample, "adversarial")
    assert honest.rows == adversarial.rows == world(sample, "steady").rows
    assert honest.lies.noise == adversarial.lies.noise == 0.2
    assert (honest.lies.fakers, adversarial.lies.fakers) == (0.0, 0.01)
    assert honest.lies.cheater == adversarial.lies.cheater is not None
    assert world(sample, "steady").lies == world(sample, "drift").lies == Lies()


def test_too_few_rows_make_no_world(sample: tuple[list[SkillCard], list[Row]]) -> None:
    with pytest.raises(BadData, match="too few for a world"):
        draw("steady", sample[0], sample[1][:5], PARTS, FIRST, 0)


def test_devices_have_habits_at_their_rates() -> None:
    rates = Devices(twice=0.1, late=0.2, early=0.05, unknown=0.15)
    counted = Counter(rates.habit(0, number) for number in range(20_000))
    for habit, share in {Habit.TWICE: 0.1, Habit.LATE: 0.2, Habit.EARLY: 0.05, Habit.UNKNOWN: 0.15}.items():
        assert math.isclose(counted[habit] / 20_000, share, abs_tol=0.01)
    assert [FLAWED.habit(3, n) for n in range(200)] == [FLAWED.habit(3, n) for n in range(200)]
    assert not any(Devices().habit(0, number) for number in range(1_000))


def test_a_fifth_of_the_outcomes_is_another_kind() -> None:
    lies, happened = Lies(noise=0.2), (OutcomeKind.ACCEPTED, "rides:acorn")
    told = [lies.told(0, number, number, OFFERED, happened) for number in range(10_000)]
    changed = [one for one in told if one != happened]
    assert math.isclose(len(changed) / len(told), 0.2, abs_tol=0.015)
    assert {kind for kind, _ in changed} == set(OutcomeKind) - {OutcomeKind.ACCEPTED}
    for kind, skill in changed:
        assert (skill in OFFERED) == (kind in (OutcomeKind.ENABLED, OutcomeKind.CORRECTED))
    nothing_offered = {lies.told(0, number, number, (), (OutcomeKind.REJECTED, None)) for number in range(1_000)}
    assert nothing_offered == {(OutcomeKind.REJECTED, None), (OutcomeKind.ABANDONED, None)}


def test_fakers_tell_of_the_cheater_whatever_they_got() -> None:
    lies = Lies(fakers=0.01, cheater="cats:paw")
    customers = [customer for customer in range(20_000) if lies.is_faker(0, customer)]
    assert math.isclose(len(customers) / 20_000, 0.01, abs_tol=0.003)
    told = Counter(lies.told(0, n, customers[0], OFFERED, (OutcomeKind.REJECTED, None)) for n in range(1_000))
    assert set(told) == {(OutcomeKind.ACCEPTED, "cats:paw"), (OutcomeKind.CORRECTED, "cats:paw")}
    assert min(told.values()) > 400
    honest = next(customer for customer in range(100) if not lies.is_faker(0, customer))
    assert lies.told(0, 0, honest, OFFERED, (OutcomeKind.REJECTED, None)) == (OutcomeKind.REJECTED, None)


def test_what_happened_is_not_what_liars_tell() -> None:
    plan = Plan("r", lies=Lies(noise=1.0))
    decided = (Action.LAUNCH, "rides:acorn", OFFERED)
    pairs = [reaction(plan, number, number, "rides:acorn", decided) for number in range(500)]
    assert all(happened[0] is not told[0] for happened, told in pairs)
    sound = replace(plan, lies=Lies())
    assert [happened for happened, _ in pairs] == [
        reaction(sound, number, number, "rides:acorn", decided)[1] for number in range(500)
    ]
