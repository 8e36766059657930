"""What outcomes leave to believe: for each request, how likely each skill is what its customer had in mind.

Few outcomes name the skill that was meant, these are no fair sample (customers answer to what they were shown),
and some of what is said is noise. So an outcome is evidence about a hidden fact. The decision's own calibrated
probabilities P are the prior; how customers react is estimated from all outcomes at once, by expectation-
maximisation (Dawid and Skene 1979); the rest is Bayes' rule:

    a reaction r to what was opened, o    Q(o) ∝ P(o) · right(r),   Q(i) ∝ P(i) · wrong(r)            for all i ≠ o
    a skill X that the customer named     Q(X) ∝ P(X) · named,      Q(i) ∝ P(i) · noise · share(X)    for all i ≠ X

So a refusal moves belief to the other skills, and a claim that the prior finds absurd and that is made far more
often than such things happen (an owner who fakes acceptances) is believed little.

Axes: N requests, A actions, K outcome kinds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from topics.events import Action, OutcomeKind

NOBODY = ""
"""Stands for `no skill should answer` where beliefs are told by skill id."""

SURE = 0.9
"""A belief from which a request counts as labelled."""

MOST_WEIGHT = 10.0
"""How many requests one may stand for: more would trade the bias for scatter."""

ROUNDS = 30  # of expectation-maximisation: rates move by less than a thousandth after 20
IMAGINED = 0.02  # the first guess counts as so many outcomes, as a share of the action's, and 20 more
LEAST = 1e-9
MOST_WRONG = 0.1
"""What was not meant is taken at most so much as often as what was: outcomes alone cannot tell customers who take
anything from a release that is always right."""
ACTIONS, KINDS = tuple(Action), tuple(OutcomeKind)
TAKING = [KINDS.index(kind) for kind in (OutcomeKind.ACCEPTED, OutcomeKind.ENABLED)]
# Accepted, rejected, abandoned, enabled, corrected (without a name): where what was opened was meant, and where
# not.
RIGHT_AT_FIRST = (0.80, 0.05, 0.05, 0.70, 0.01)
WRONG_AT_FIRST = (0.02, 0.50, 0.20, 0.02, 0.01)
NAMED_AT_FIRST, PICKED_AT_FIRST, NOISE_AT_FIRST = 0.25, 0.90, 0.01


class Feedback(Struct, frozen=True, kw_only=True):
    """A request, what was done about it, and what its customer then did.

    `beliefs`: the decision's probabilities by skill, best first, `NOBODY` among them; what is missing to 1 is for
    skills that are not told. `offered`: what the customer met: the skill launched or suggested, `NOBODY` for
    silence, the skills of a question. `named`: the skill that the customer picked from a question or named in its
    place, and `named_prior` how likely that one was. `propensity`: with which what was done was chosen.
    """

    text: str
    linked: tuple[str, ...]
    action: Action
    offered: tuple[str, ...]
    beliefs: dict[str, float]
    outcome: OutcomeKind
    named: str | None = None
    named_prior: float = 0.0
    propensity: float = 1.0


@dataclass(frozen=True)
class Reactions:
    """How customers react, as estimated, (A, K) each: `right` where what was offered holds what was meant, `wrong`
    where not, `named` how often the meant skill is named, `noise` how often another one, which is then drawn from
    `shares` (by skill; `rest` for all others)."""

    right: NDArray[np.float64]
    wrong: NDArray[np.float64]
    named: NDArray[np.float64]
    noise: NDArray[np.float64]
    shares: dict[str, float]
    rest: float

    def of(self, one: Feedback) -> tuple[float, float]:
        """The likelihood of the outcome under a hypothesis that it speaks for, and under all others."""
        at = ACTIONS.index(one.action), KINDS.index(one.outcome)
        if one.named is None:
            return float(self.right[at]), float(self.wrong[at])
        return float(self.named[at]), float(self.noise[at]) * self.shares.get(one.named, self.rest)

    def told(self) -> dict[str, dict[str, float]]:
        """The rates by action, rounded, for whoever reads a cycle's result."""
        tables = {"right": self.right, "wrong": self.wrong, "named": self.named, "noise": self.noise}
        return {
            action: {
                f"{name} {kind}": round(float(t[a, k]), 3)
                for name, t in tables.items()
                for k, kind in enumerate(KINDS)
            }
            for a, action in enumerate(ACTIONS)
        }


@dataclass(frozen=True)
class Believed:
    """`skill_id`: what was most likely meant, None for nobody. `beliefs` by skill; they sum to at most 1, and what
    is missing is for skills that are not told. `weight`: how many requests a sure one stands for."""

    skill_id: str | None
    beliefs: dict[str, float]
    weight: float

    @property
    def sure(self) -> bool:
        return self.beliefs[self.skill_id or NOBODY] >= SURE


@dataclass(frozen=True)
class _Columns:
    """All feedback as arrays, (N,) each."""

    action: NDArray[np.int64]
    kind: NDArray[np.int64]
    held: NDArray[np.float64]  # prior that what was offered holds what was meant
    is_named: NDArray[np.bool_]
    named: NDArray[np.int64]  # number of the skill named; those of rows without a name mean nothing
    prior: NDArray[np.float64]  # of the skill named

    @property
    def at(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self.action, self.kind

    @property
    def is_picked(self) -> NDArray[np.bool_]:
        """Whether it was named from a question, which then held it."""
        picked: NDArray[np.bool_] = self.is_named & (self.kind == KINDS.index(OutcomeKind.ACCEPTED))
        return picked


def estimate(feedback: Sequence[Feedback], skills: int) -> Reactions:
    """The reactions that make the outcomes likeliest, in a catalogue of so many skills."""
    numbers: dict[str, int] = {}
    table = _columns(feedback, numbers)
    shape = (len(ACTIONS), len(KINDS))
    right, wrong = np.tile(RIGHT_AT_FIRST, (shape[0], 1)), np.tile(WRONG_AT_FIRST, (shape[0], 1))
    named, noise = np.full(shape, NAMED_AT_FIRST), np.full(shape, NOISE_AT_FIRST)
    named[:, KINDS.index(OutcomeKind.ACCEPTED)] = PICKED_AT_FIRST
    first = (right, wrong, named, noise)
    shares = np.full(len(numbers) + 1, 1 / skills)  # the last is that of all others
    decided = np.bincount(table.action, minlength=shape[0]).astype(np.float64)[:, None]  # (A, 1)
    behind = 20 + IMAGINED * decided
    for _ in range(ROUNDS):
        hits = _odds(table.held, right[table.at], wrong[table.at])  # (N,)
        true = _odds(table.prior, named[table.at], noise[table.at] * shares[table.named])
        holds = np.where(table.is_named, np.where(table.is_picked, true, 0.0), hits)
        held = np.bincount(table.action, holds, shape[0])[:, None]  # (A, 1)
        sums = [
            _sums(table, ~table.is_named, hits),
            _sums(table, ~table.is_named, 1 - hits),
            _sums(table, table.is_named, true),
            _sums(table, table.is_named, 1 - true),
        ]
        meant = np.tile(decided - held, (1, shape[1]))  # who could name: those who did not get what they meant
        meant[:, KINDS.index(OutcomeKind.ACCEPTED)] = held[:, 0]
        of = (held, decided - held, meant, decided)
        right, wrong, named, noise = (
            (counts + behind * guess) / (total + behind)
            for counts, guess, total in zip(sums, first, of, strict=True)
        )
        wrong[:, TAKING] = np.minimum(wrong[:, TAKING], MOST_WRONG * right[:, TAKING])
        false = np.bincount(table.named[table.is_named], (1 - true)[table.is_named], len(shares))
        shares = (false + 1.0) / (false.sum() + skills)
    by_skill = {skill: float(shares[number]) for skill, number in numbers.items()}
    return Reactions(right, wrong, named, noise, by_skill, float(shares[-1]))


def believe(one: Feedback, reactions: Reactions) -> Believed:
    """What is believed of a request after its outcome.

    The weight of a sure one is 1 / (the probability that its outcome would have told): with propensity p of what
    was done, a of accepting what was meant and c of naming it in place of another, 1 / (p·a + (1 − p)·c) where it
    was offered, and 1 / c where it was not (Horvitz and Thompson 1952).
    """
    speaks, others = reactions.of(one)
    favoured = {one.named} if one.named is not None else set(one.offered)
    prior = one.beliefs if one.named is None else {**one.beliefs, one.named: one.named_prior}
    likely = {skill: share * (speaks if skill in favoured else others) for skill, share in prior.items()}
    untold = max(0.0, 1 - sum(prior.values())) * others
    total = sum(likely.values()) + untold + LEAST
    beliefs = {skill: share / total for skill, share in likely.items()}
    best = max(beliefs, key=lambda skill: beliefs[skill], default=NOBODY)
    return Believed(best or None, beliefs or {NOBODY: 0.0}, _weight(one, best, reactions))


def _weight(one: Feedback, meant: str, reactions: Reactions) -> float:
    action = ACTIONS.index(one.action)
    corrects = float(reactions.named[action, KINDS.index(OutcomeKind.CORRECTED)])
    if meant not in one.offered:
        return min(MOST_WEIGHT, 1 / max(corrects, LEAST))
    takes = float(reactions.right[action, TAKING].sum())
    picks = float(reactions.named[action, KINDS.index(OutcomeKind.ACCEPTED)])
    accepts = picks if one.action is Action.DISCOVER else min(1.0, takes)
    return min(MOST_WEIGHT, 1 / max(one.propensity * accepts + (1 - one.propensity) * corrects, LEAST))


def _columns(feedback: Sequence[Feedback], numbers: dict[str, int]) -> _Columns:
    named = [numbers.setdefault(one.named, len(numbers)) if one.named is not None else -1 for one in feedback]
    held = [sum(one.beliefs.get(skill, 0.0) for skill in one.offered) for one in feedback]
    return _Columns(
        action=np.array([ACTIONS.index(one.action) for one in feedback], dtype=np.int64),
        kind=np.array([KINDS.index(one.outcome) for one in feedback], dtype=np.int64),
        held=np.clip(held, 1e-6, 1 - 1e-6),
        is_named=np.array([one.named is not None for one in feedback], dtype=np.bool_),
        named=np.array(named, dtype=np.int64),
        prior=np.clip([one.named_prior for one in feedback], LEAST, 1 - 1e-6),
    )


def _odds(
    prior: NDArray[np.float64], speaks: NDArray[np.float64], others: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Bayes' rule for two hypotheses, (N,)."""
    own = prior * speaks
    found: NDArray[np.float64] = own / (own + (1 - prior) * others + LEAST * LEAST)
    return found


def _sums(table: _Columns, rows: NDArray[np.bool_], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of `values` by action and kind over `rows`, (A, K)."""
    found = np.zeros((len(ACTIONS), len(KINDS)))
    np.add.at(found, (table.action[rows], table.kind[rows]), values[rows])
    return found
