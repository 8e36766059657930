"""Beliefs after outcomes: reactions are found from the outcomes alone, and Bayes' rule does the rest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.feedback import ACTIONS, KINDS, MOST_WEIGHT, NOBODY, Feedback, Reactions, believe, estimate
from topics.events import Action, OutcomeKind

SKILLS = [f"rides:{n}" for n in range(6)]
ACCEPTS, REJECTS, CORRECTS = 0.95, 0.6, 0.25
LAUNCH, ACCEPTED = ACTIONS.index(Action.LAUNCH), KINDS.index(OutcomeKind.ACCEPTED)
REJECTED, CORRECTED = KINDS.index(OutcomeKind.REJECTED), KINDS.index(OutcomeKind.CORRECTED)


def launched(beliefs: dict[str, float], outcome: OutcomeKind, **changes: object) -> Feedback:
    fields: dict[str, object] = {"text": "a car", "linked": (), "action": Action.LAUNCH, **changes}
    first = max(beliefs, key=lambda skill: beliefs[skill])
    fields.setdefault("offered", (first,))
    return Feedback(beliefs=beliefs, outcome=outcome, **fields)  # type: ignore[arg-type]


def crowd(count: int, seed: int = 0) -> tuple[list[Feedback], list[str]]:
    """Customers of a calibrated release, who react by the rates above; and what they meant."""
    random = np.random.default_rng(seed)
    told, meant = [], []
    for _ in range(count):
        shares = random.dirichlet(np.full(len(SKILLS), 0.25))
        own = SKILLS[random.choice(len(SKILLS), p=shares)]
        beliefs = dict(zip(SKILLS, shares.tolist(), strict=True))
        right = max(beliefs, key=lambda skill: beliefs[skill]) == own
        draw = random.random()
        kind, named = OutcomeKind.ABANDONED, None
        if right and draw < ACCEPTS:
            kind = OutcomeKind.ACCEPTED
        elif not right and draw < REJECTS:
            kind = OutcomeKind.REJECTED
        elif not right and draw < REJECTS + CORRECTS:
            kind, named = OutcomeKind.CORRECTED, own
        told.append(launched(beliefs, kind, named=named, named_prior=beliefs[own] if named else 0.0))
        meant.append(own)
    return told, meant


@pytest.fixture(scope="module")
def found() -> tuple[list[Feedback], list[str], Reactions]:
    told, meant = crowd(6_000)
    return told, meant, estimate(told, len(SKILLS))


def test_the_rates_are_found_from_outcomes_alone(found: tuple[list[Feedback], list[str], Reactions]) -> None:
    _, _, reactions = found
    assert reactions.right[LAUNCH, ACCEPTED] == pytest.approx(ACCEPTS, abs=0.05)
    assert reactions.wrong[LAUNCH, REJECTED] == pytest.approx(REJECTS, abs=0.05)
    assert reactions.named[LAUNCH, CORRECTED] == pytest.approx(CORRECTS, abs=0.04)
    assert reactions.wrong[LAUNCH, ACCEPTED] < 0.06
    assert reactions.noise[LAUNCH, CORRECTED] < 0.02


def test_beliefs_are_calibrated_and_sure_ones_are_right(
    found: tuple[list[Feedback], list[str], Reactions],
) -> None:
    told, meant, reactions = found
    beliefs = [believe(one, reactions) for one in told]
    sure = [one.skill_id == own for one, own in zip(beliefs, meant, strict=True) if one.sure]
    assert len(sure) > 3_000
    assert np.mean(sure) > 0.98
    unsure = [(one, own) for one, own in zip(beliefs, meant, strict=True) if not one.sure]
    said = np.mean([max(one.beliefs.values()) for one, _ in unsure])
    assert np.mean([one.skill_id == own for one, own in unsure]) == pytest.approx(said, abs=0.06)


def test_the_sure_ones_stand_for_all(found: tuple[list[Feedback], list[str], Reactions]) -> None:
    """Horvitz and Thompson: the weights of those that told sum to how many there were."""
    told, _, reactions = found
    beliefs = [believe(one, reactions) for one in told]
    assert sum(one.weight for one in beliefs if one.sure) == pytest.approx(len(told), rel=0.12)


def test_a_refusal_moves_belief_to_the_others(found: tuple[list[Feedback], list[str], Reactions]) -> None:
    reactions = found[2]
    before = {"rides:0": 0.6, "rides:1": 0.3, NOBODY: 0.1}
    after = believe(launched(before, OutcomeKind.REJECTED), reactions).beliefs
    assert after["rides:0"] < 0.15
    assert after["rides:1"] / after[NOBODY] == pytest.approx(3)


def test_accepted_silence_means_nobody(found: tuple[list[Feedback], list[str], Reactions]) -> None:
    told = [*found[0], *[silence(OutcomeKind.ACCEPTED, 0.9)] * 50, *[silence(OutcomeKind.ABANDONED, 0.3)] * 50]
    believed = believe(told[-100], estimate(told, len(SKILLS)))
    assert (believed.skill_id, believed.sure) == (None, True)


def silence(outcome: OutcomeKind, none: float) -> Feedback:
    beliefs = {NOBODY: none, "rides:0": 1 - none}
    return launched(beliefs, outcome, action=Action.NONE, offered=(NOBODY,))


def test_claims_for_one_skill_out_of_the_blue_are_not_believed_and_honest_ones_are() -> None:
    told, _ = crowd(4_000)
    prior = {"rides:0": 0.7, "rides:1": 0.29}
    fakes = [launched(prior, OutcomeKind.CORRECTED, named="cheat", named_prior=1e-5) for _ in range(40)]
    honest = [launched(prior, OutcomeKind.CORRECTED, named=f"new:{n}", named_prior=1e-5) for n in range(40)]
    reactions = estimate([*told, *fakes, *honest], 1_000)
    assert believe(fakes[0], reactions).beliefs["cheat"] < 0.2
    assert believe(honest[0], reactions).beliefs["new:0"] > 2 * believe(fakes[0], reactions).beliefs["cheat"]


def test_what_was_rarely_shown_stands_for_more(found: tuple[list[Feedback], list[str], Reactions]) -> None:
    reactions, beliefs = found[2], {"rides:0": 0.5, "rides:1": 0.5}
    usual, explored = (
        believe(launched(beliefs, OutcomeKind.ACCEPTED, propensity=share), reactions) for share in (0.98, 0.01)
    )
    assert usual.weight == pytest.approx(1 / ACCEPTS, rel=0.1)
    assert usual.weight < explored.weight <= MOST_WEIGHT
    assert explored.weight == pytest.approx(1 / (0.01 * ACCEPTS + 0.99 * CORRECTS), rel=0.2)


shares = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=6).map(lambda them: [x / sum(them) for x in them])


@given(shares, st.sampled_from(OutcomeKind), st.sampled_from(Action), st.floats(0.01, 1.0), st.integers(0, 5))
def test_beliefs_are_shares_whatever_happened(
    prior: list[float], kind: OutcomeKind, action: Action, propensity: float, named: int
) -> None:
    beliefs = dict(zip(SKILLS, prior, strict=False))
    name = SKILLS[named] if kind is OutcomeKind.CORRECTED else None
    offered = (
        (NOBODY,) if action is Action.NONE else tuple(SKILLS[:3] if action is Action.DISCOVER else SKILLS[:1])
    )
    one = launched(
        beliefs, kind, action=action, offered=offered, named=name, named_prior=0.1, propensity=propensity
    )
    believed = believe(one, estimate([one], len(SKILLS)))
    assert all(0 <= share <= 1 for share in believed.beliefs.values())
    assert sum(believed.beliefs.values()) <= 1 + 1e-9
    assert 0 < believed.weight <= MOST_WEIGHT
