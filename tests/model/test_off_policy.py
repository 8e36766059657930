"""Off-policy estimates: laws, logs whose truth is known, and a real release with other costs."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from model.bundle import Bundle
from model.data import Row
from model.off_policy import Arm, Logged, OffPolicy, arm_of, compared, estimate, reward
from model.policy import ASKED_OF
from model.selector import Request, Selector
from topics.events import Action, OutcomeKind
from workers.behaviour import Behaviour, react

ARMS = [arm_of(Action.LAUNCH, skill, ()) for skill in ("rides:acorn", "rides:oak", "rides:elm")]
Shares = Sequence[float]


def log_of(
    generator: np.random.Generator,
    rows: int,
    logging: Shares,
    accepted: Shares,
    customers: int,
    alike: float = 0.0,
) -> list[Logged]:
    """A log of one request, drawn by `logging`. Rewards are accepted with these chances; a customer keeps one mood
    for all requests in a share `alike` of them."""
    arms, owners = generator.choice(3, rows, p=logging), generator.integers(0, customers, rows)
    moods = np.where(generator.random(rows) < alike, generator.random(customers)[owners], generator.random(rows))
    return [
        Logged(
            text="get me a car",
            key=f"u-{number}",
            customer_id=f"c-{customer}",
            action=Action.LAUNCH,
            skill_id=ARMS[arm][1],
            propensity=logging[arm],
            reward=float(mood < accepted[arm]),
        )
        for number, (arm, customer, mood) in enumerate(zip(arms, owners, moods, strict=True))
    ]


def of(logged: Sequence[Logged], target: Shares, expected: Shares = (0.0, 0.0, 0.0)) -> OffPolicy:
    """What would be accepted of a release that chooses by `target` whatever is asked."""
    chosen = [dict(zip(ARMS, target, strict=True))] * len(logged)
    return compared(logged, [chosen], [dict(zip(ARMS, expected, strict=True))] * len(logged))


LOGGING, ACCEPTED, TARGET = (0.6, 0.3, 0.1), (0.5, 0.8, 0.3), (0.2, 0.5, 0.3)
TRUTH = float(np.dot(ACCEPTED, TARGET))


@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_intervals_hold_the_truth_about_nineteen_times_in_twenty(alike: float) -> None:
    """Also where a customer is of one mind all along: customers are drawn, not decisions."""
    hits: dict[str, list[bool]] = {"ips": [], "snips": [], "dr": []}
    errors: dict[str, list[float]] = {"ips": [], "snips": [], "dr": []}
    for seed in range(120):
        logged = log_of(np.random.default_rng(seed), 500, LOGGING, ACCEPTED, 100, alike)
        after = of(logged, TARGET, (0.4, 0.9, 0.2)).after
        for name in hits:
            found = getattr(after, name)
            hits[name].append(found.low <= TRUTH <= found.high)
            errors[name].append(found.mean - TRUTH)
    for name, inside in hits.items():
        assert 0.88 <= np.mean(inside) <= 0.995, name
        assert abs(np.mean(errors[name])) < 3 * np.std(errors[name]) / np.sqrt(120), f"{name} is biased"
    assert np.std(errors["dr"]) < np.std(errors["ips"])


def test_intervals_by_decisions_would_be_too_narrow() -> None:
    """What the test above would find, were customers no clusters."""
    logged = log_of(np.random.default_rng(5), 600, (1.0, 0.0, 0.0), (0.5, 0.0, 0.0), 30, alike=1.0)
    alone = [replace(row, customer_id="") for row in logged]
    by_customer, by_row = (of(rows, (1.0, 0.0, 0.0)).after.ips for rows in (logged, alone))
    assert by_customer.mean == by_row.mean
    assert by_customer.high - by_customer.low > 2 * (by_row.high - by_row.low)


shares = st.tuples(*[st.floats(0.05, 1.0)] * 3).map(lambda three: tuple(one / sum(three) for one in three))


@given(logging=shares, target=shares, seed=st.integers(0, 99))
def test_laws(logging: Shares, target: Shares, seed: int) -> None:
    logged = log_of(np.random.default_rng(seed), 40, logging, ACCEPTED, 7)
    mean = np.mean([row.reward for row in logged])
    own, found = of(logged, logging).after, of(logged, target).after
    # what is logged judges itself by what it was
    assert own.ips.mean == own.dr.mean == pytest.approx(mean, abs=1e-5)
    assert (own.support, own.matched, own.effective) == (1.0, 1.0, len(logged))
    # q of nothing leaves IPS
    assert found.dr.mean == pytest.approx(found.ips.mean, abs=1e-5)
    assert 1.0 <= found.effective <= len(logged)
    # a share stays a share, and who turns accepted into not accepted turns the estimate round
    assert found.snips is not None
    assert 0.0 <= found.snips.low <= found.snips.mean <= found.snips.high <= 1.0
    turned = of([replace(row, reward=1 - row.reward) for row in logged], target).after
    assert turned.snips is not None
    assert turned.snips.mean == pytest.approx(1 - found.snips.mean, abs=1e-5)


def test_what_the_log_cannot_tell_is_named_and_only_q_speaks_of_it() -> None:
    logged = log_of(np.random.default_rng(0), 2_000, (0.5, 0.5, 0.0), ACCEPTED, 100)
    found = of(logged, (0.25, 0.0, 0.75), (0.5, 0.5, 0.4)).after
    assert found.support == pytest.approx(0.25, abs=0.02)
    assert found.ips.mean == pytest.approx(0.25 * 0.5, abs=0.03)
    assert found.snips is not None
    assert found.snips.mean == pytest.approx(0.5, abs=0.05)
    assert found.dr.mean == pytest.approx(0.25 * 0.5 + 0.75 * 0.4, abs=0.03)
    nothing = of(logged, (0.0, 0.0, 1.0)).after
    assert (nothing.support, nothing.matched, nothing.effective, nothing.snips) == (0.0, 0.0, 0.0, None)


def test_two_questions_are_one_choice_where_they_name_the_same_skills() -> None:
    asked = [arm_of(Action.DISCOVER, None, skills) for skills in ("abcd", "cabx", "abdc")]
    assert asked[0] == asked[1] != asked[2]
    assert arm_of(Action.LAUNCH, "a", "abc") == arm_of(Action.LAUNCH, "a", "xyz")


@pytest.mark.parametrize("kind", OutcomeKind)
def test_only_what_is_accepted_at_first_is_without_friction(kind: OutcomeKind) -> None:
    assert reward(kind) == (kind is OutcomeKind.ACCEPTED)


@pytest.mark.parametrize("wrong", [{"propensity": 0.0}, {"propensity": 1.5}, {"reward": -1.0}, {"reward": 2.0}])
def test_a_log_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="it must be in"):
        Logged(**{"text": "a", "key": "u", "action": Action.NONE, "propensity": 1.0, "reward": 1.0, **wrong})  # type: ignore[arg-type]


def test_nothing_logged_is_nothing_estimated(small_selector: Selector) -> None:
    assert estimate(small_selector, small_selector, []) is None


ABLE = {"explore": 0.1, "near": 10.0}  # a release that tries whatever it can


def asked(rows: Sequence[Row], times: int) -> list[tuple[Request, str | None]]:
    return [
        (Request(row.text, row.linked or (), f"{at}-{time}"), row.skill_id)
        for time in range(times)
        for at, row in enumerate(rows)
    ]


def met(
    selector: Selector, every: Sequence[tuple[Request, str | None]], draw: Callable[[], float]
) -> list[Logged]:
    """What customers make of each decision."""
    rankings = selector.decide([request for request, _ in every])
    found = []
    for (request, meant), ranking in zip(every, rankings, strict=True):
        shown = tuple(candidate.skill_id for candidate in ranking.candidates[:ASKED_OF])
        kind, _ = react(ranking.action, ranking.skill_id, shown, meant, draw(), Behaviour())
        found.append(
            Logged(
                text=request.text,
                linked=request.linked,
                key=request.key,
                action=ranking.action,
                skill_id=ranking.skill_id,
                shown=shown,
                propensity=ranking.propensity,
                reward=reward(kind),
            )
        )
    return found


def test_a_release_that_asks_more_is_foreseen_from_the_log_of_one_that_opens(
    small_bundle: Bundle, small_dev: list[Row]
) -> None:
    """Same networks, other costs: what the second would meet is drawn as well; the first one's log tells it."""
    loud = {"missed": 10.0}  # nobody is silent, so that whatever the second does the first one tries
    before = Selector(small_bundle, costs={**ABLE, **loud, "question": 2.0})
    after = Selector(small_bundle, costs={**loud, "question": 0.0, "explore": 0.0})
    every = asked(small_dev[:150], 40)
    draw = np.random.default_rng(0).random
    found = estimate(before, after, met(before, every, draw))
    assert found is not None
    assert found.before is not None
    assert found.gain is not None
    truth = float(np.mean([row.reward for row in met(after, every, draw)]))
    assert found.before.support == pytest.approx(1.0, abs=1e-6)
    assert found.after.effective < found.before.effective == found.rows
    assert found.after.support > 0.8
    for told, real in ((found.after.dr, truth), (found.gain, truth - found.logged.mean)):
        assert abs(told.mean - real) < 3 * (told.high - told.low) / 3.92
    assert found.gain.low > 0


def test_a_release_is_its_own_log(small_bundle: Bundle, small_dev: list[Row]) -> None:
    same = Selector(small_bundle, costs=ABLE)
    found = estimate(same, same, met(same, asked(small_dev[:80], 1), np.random.default_rng(1).random))
    assert found is not None
    assert found.gain is not None
    assert (found.gain.mean, found.gain_error) == (0.0, 0.0)
    assert found.after.ips.mean == pytest.approx(found.logged.mean, abs=1e-5)
    assert found.before == found.after


def test_without_a_first_release_there_is_no_gain(small_bundle: Bundle, small_dev: list[Row]) -> None:
    only = Selector(small_bundle)
    found = estimate(None, only, met(only, asked(small_dev[:40], 1), np.random.default_rng(1).random))
    assert found is not None
    assert (found.before, found.gain, found.gain_error) == (None, None, None)


def test_arms_have_one_spelling() -> None:
    arm: Arm = arm_of(Action.ENABLE, "rides:oak", ["rides:oak", "rides:elm"])
    assert arm == (Action.ENABLE, "rides:oak", frozenset())
