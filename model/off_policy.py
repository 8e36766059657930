"""What customers would accept of a release that they have not met, from what they did with another's decisions.

A decision is logged with its propensity p, the probability with which just this was to be chosen, and with what
became of it, a reward r in [0, 1]. With π the release's probability of doing the same to the same request,
w = π / p, and q(a) what is expected of doing a before anybody has looked at the outcome:

    IPS     mean of w r                                          Horvitz and Thompson 1952
    SNIPS   Σ w r / Σ w                                          Swaminathan and Joachims 2015
    DR      mean of Σ_a π(a) q(a) + w (r − q(logged a))          Dudík, Langford and Li 2011

p is known and not estimated, so IPS and DR are right on average whatever q is, **on what the log can tell**: the
part of the release's choices that could have been logged at all, `support`. Of the rest IPS says that nobody
accepts it, SNIPS that it is as good as the part, and DR what q says. Read the support first.

q is the probability that the skill opened (one of those asked about, nobody) is what was meant, as the compared
releases say it on average: either one's own would flatter its own choices. Nothing is trained for it.

Intervals are 95 % percentile bootstrap intervals in which customers are drawn, not decisions.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from model.comparison import Interval
from model.policy import ASKED_OF, choices
from model.resampling import Clusters, interval, ratio
from model.selector import Ranking, Request, Selector
from topics.events import Action, OutcomeKind

CHUNK = 2_048  # decisions made again at once: bounds memory at so many lists of candidates
Values = NDArray[np.float64]
Arm = tuple[Action, str | None, frozenset[str]]
Shares = Mapping[Arm, float]


def reward(kind: OutcomeKind) -> float:
    """1 where the decision was accepted at first, else 0. Friction is 1 − reward.

    >>> reward(OutcomeKind.ACCEPTED), reward(OutcomeKind.ENABLED)
    (1.0, 0.0)
    """
    return float(kind is OutcomeKind.ACCEPTED)


class Logged(Struct, frozen=True, kw_only=True):
    """A decision that was made, and what became of it.

    `key` is the utterance's id. `shown`: the first three candidates, of which a question asks; two questions are
    the same choice where they name the same skills. `propensity` is the decision's, `reward` that of its outcome.
    """

    text: str
    linked: tuple[str, ...] = ()
    key: str
    customer_id: str = ""
    locale: str = "en-US"
    action: Action
    skill_id: str | None = None
    shown: tuple[str, ...] = ()
    propensity: float
    reward: float

    def __post_init__(self) -> None:
        if not 0 < self.propensity <= 1:
            raise ValueError(f"decision {self.key!r} has propensity {self.propensity}: it must be in (0, 1]")
        if not 0 <= self.reward <= 1:
            raise ValueError(f"decision {self.key!r} has reward {self.reward}: it must be in [0, 1]")


class Estimates(Struct, frozen=True):
    """The share that would be accepted, of one release.

    `support`: the share of its choices that could have been logged, as the mean of w says, at most 1. `matched`:
    the share of logged decisions that it could have made too. `effective`: (Σ w)² / Σ w² of Kish 1965, as if so
    many decisions had been logged from the release itself. `snips` is None where it could have made none of them.
    """

    support: float
    matched: float
    effective: float
    ips: Interval
    snips: Interval | None
    dr: Interval


class OffPolicy(Struct, frozen=True):
    """Two releases on the same logged decisions. `logged`: the share that was accepted. `gain`: how much more
    would be accepted of the second by DR, paired; None without a first. `gain_error`: its standard error."""

    rows: int
    customers: int
    logged: Interval
    before: Estimates | None
    after: Estimates
    gain: Interval | None
    gain_error: float | None


def estimate(before: Selector | None, after: Selector, logged: Sequence[Logged]) -> OffPolicy | None:
    """What would be accepted of both; None where nothing is logged."""
    if not logged:
        return None
    selectors = [after] if before is None else [before, after]
    chosen: list[list[Shares]] = [[] for _ in selectors]
    expected: list[Shares] = []
    for start in range(0, len(logged), CHUNK):
        part = logged[start : start + CHUNK]
        requests = [Request(row.text, row.linked, row.key, row.locale) for row in part]
        decided = [selector.decide(requests) for selector in selectors]
        for selector, mine, rankings in zip(selectors, chosen, decided, strict=True):
            mine += [_chosen(selector, ranking) for ranking in rankings]
        for at, row in enumerate(part):
            arms = {
                arm_of(row.action, row.skill_id, row.shown),
                *(arm for mine in chosen for arm in mine[start + at]),
            }
            expected.append(_expected([rankings[at] for rankings in decided], arms))
    return compared(logged, chosen, expected)


def compared(
    logged: Sequence[Logged], chosen: Sequence[Sequence[Shares]], expected: Sequence[Shares]
) -> OffPolicy:
    """The estimates by what one release would do, or two.

    `chosen`: for each release and logged row, the probability of each choice. `expected`: for each row q of each
    of these choices and of the logged one.
    """
    rewards = np.asarray([row.reward for row in logged])  # (N,)
    terms = [_terms(logged, rewards, mine, expected) for mine in chosen]  # (N, 4) each: w, w r, w², DR
    clusters = Clusters([row.customer_id or ("", row.key) for row in logged])
    N = len(logged)
    columns = np.concatenate([np.stack([np.ones(N), rewards], axis=1), *terms], axis=1)  # (N, K)
    sums, samples = columns.sum(axis=0), clusters.resampled(columns)  # (K,), (R, K)
    sides = [_estimates(sums, samples, 2 + 4 * at, terms[at]) for at in range(len(terms))]
    gain, error = _gain(sums, samples) if len(sides) == 2 else (None, None)
    return OffPolicy(
        rows=N,
        customers=clusters.count,
        logged=interval(float(sums[1] / N), samples[:, 1] / samples[:, 0]),
        before=sides[0] if len(sides) == 2 else None,
        after=sides[-1],
        gain=gain,
        gain_error=error,
    )


def arm_of(action: Action, skill_id: str | None, listed: Sequence[str]) -> Arm:
    """What a customer is shown: which skill is opened, or which are asked about."""
    asked = frozenset(listed[:ASKED_OF]) if action is Action.DISCOVER else frozenset[str]()
    return action, skill_id, asked


def _terms(
    logged: Sequence[Logged], rewards: Values, chosen: Sequence[Shares], expected: Sequence[Shares]
) -> Values:
    """w, w r, w² and the term of DR of each row, (N, 4)."""
    arms = [arm_of(row.action, row.skill_id, row.shown) for row in logged]
    propensity = np.asarray([row.propensity for row in logged])
    w = np.asarray([mine.get(arm, 0.0) for mine, arm in zip(chosen, arms, strict=True)]) / propensity  # (N,)
    q = np.asarray([known[arm] for known, arm in zip(expected, arms, strict=True)])  # (N,)
    direct = [
        sum(share * known[arm] for arm, share in mine.items())
        for mine, known in zip(chosen, expected, strict=True)
    ]
    return np.stack([w, w * rewards, w * w, np.asarray(direct) + w * (rewards - q)], axis=1)


def _estimates(sums: Values, samples: Values, at: int, terms: Values) -> Estimates:
    """By the sums (K,) of all rows and of each resample (R, K); the release's four columns begin at `at`."""
    w, wr, ww, dr = range(at, at + 4)
    N = sums[0]
    weighed = sums[w] > 0
    snips = interval(float(sums[wr] / sums[w]), ratio(samples[:, wr], samples[:, w])) if weighed else None
    return Estimates(
        support=round(min(1.0, float(sums[w] / N)), 4),
        matched=round(float((terms[:, 0] > 0).mean()), 4),
        effective=round(float(sums[w] ** 2 / sums[ww]), 1) if weighed else 0.0,
        ips=interval(float(sums[wr] / N), samples[:, wr] / samples[:, 0]),
        snips=snips,
        dr=interval(float(sums[dr] / N), samples[:, dr] / samples[:, 0]),
    )


def _gain(sums: Values, samples: Values) -> tuple[Interval, float]:
    before, after = 2 + 3, 2 + 4 + 3  # the columns of DR
    drawn = (samples[:, after] - samples[:, before]) / samples[:, 0]
    return interval(float((sums[after] - sums[before]) / sums[0]), drawn), float(drawn.std())


def _chosen(selector: Selector, ranking: Ranking) -> dict[Arm, float]:
    listed = [candidate.skill_id for candidate in ranking.candidates[:ASKED_OF]]
    every = choices(ranking.candidates, ranking.none_probability, selector.costs)
    return {arm_of(one.action, one.skill_id, listed): one.propensity for one in every}


def _expected(rankings: Sequence[Ranking], arms: Iterable[Arm]) -> dict[Arm, float]:
    """What the releases expect of each choice, on average."""
    every = [({one.skill_id: one.probability for one in r.candidates}, r.none_probability) for r in rankings]
    return {arm: sum(_reward_of(arm, mine, none) for mine, none in every) / len(every) for arm in arms}


def _reward_of(arm: Arm, probability: Mapping[str, float], none: float) -> float:
    action, skill_id, asked = arm
    if action is Action.NONE:
        return reward(OutcomeKind.ACCEPTED) * none
    if action is Action.DISCOVER:
        return reward(OutcomeKind.ACCEPTED) * sum(probability.get(skill, 0.0) for skill in asked)
    taken = OutcomeKind.ACCEPTED if action is Action.LAUNCH else OutcomeKind.ENABLED
    return reward(taken) * probability.get(skill_id or "", 0.0)
