"""Live statistics: which skills have stopped working, seen from outcomes as they come, between two cycles.

For each skill evidence is summed that it is broken, in nats, over the outcomes of the decisions that chose it
(Page's CUSUM; Biometrika 1954):

    e ← max(0, e + Σ ln P(outcome | broken) / P(outcome | works))

A choice of a skill that works is kept with the probability q = r·p: p is what the decision gave the skill, r the
share of what was expected of all skills together that customers keep just now. So what happens to everybody is
held against nobody. A broken skill keeps a tenth of it. A skill that works reaches e at most once in exp(e)
outcomes on average (Lorden, 1971): odds of a thousand to one that it works are used up first, and what is left of
e lowers its log-odds, down to what its outcomes say since the doubts began:

    factor = −min(e − ln 1000, logit(q) − logit((kept + ½) / (answered + 1)))        in steps of a quarter

It counts outcomes and not minutes, so that a skill of which a customer was sure loses its place after some six
refusals in a row, whether they come in a minute or in an hour. The clock is for the way back: all that is known
halves with every half-life, so that after about one a skill is tried again, and one launch that is kept undoes
what a refusal did. There is no factor above 0: acceptances, which an owner can fake, gain a skill nothing.

The factor is added to the skill's score, and what is done follows from the scores, so that its place goes to its
rivals and, without any, to silence or a question. A decision's probabilities stay what they are without it: that
a skill is meant. Were a rival's to grow, it would be blamed for the customers who want nothing but the broken one,
and an outage would go from rival to rival.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from topics.events import MAX_TIME_MS, LiveStatistics

STILL_KEPT = 0.1  # what a broken skill keeps of what it would keep
FREE = math.log(1000)  # nats that cost a skill nothing
DEEPEST = 8.0  # of a factor: e⁻⁸ is a three-thousandth
STEP = 0.25  # of a factor: versions change rarely
SUREST = 0.95  # of q as evidence: a skill that works is refused now and then, whatever a network says
KNOWN_AT_MOST = 1_000  # outcomes that r looks back on
NOT_THEIRS = 0.5  # below this r it is no skill's fault: nobody is held back
LITTLE = 0.01  # nats that are forgotten


class Answers(NamedTuple):
    """Of decisions that chose a skill: how many had an outcome, how many were kept, how many were to be."""

    answered: float = 0
    kept: float = 0
    expected: float = 0.0


class Gained(NamedTuple):
    """New answers of one skill: `launched` with a link, and `suggested` without one."""

    launched: Answers
    suggested: Answers


@dataclass(slots=True)
class _Doubt:
    """What speaks against a skill, as of `at_ms`: nats of either side, and its answers since doubts began."""

    at_ms: int
    launched: float = 0.0
    suggested: float = 0.0
    answered: float = 0.0
    kept: float = 0.0
    expected: float = 0.0

    @property
    def nats(self) -> float:
        return self.launched + self.suggested

    def age(self, at_ms: int, half_life_ms: float) -> None:
        left = 0.5 ** (max(at_ms - self.at_ms, 0) / half_life_ms)
        for name in ("launched", "suggested", "answered", "kept", "expected"):
            setattr(self, name, getattr(self, name) * left)
        self.at_ms = max(at_ms, self.at_ms)

    def factor(self) -> float:
        """0 or less, in steps towards 0."""
        if self.nats - FREE < STEP:
            return 0.0
        observed, q = (self.kept + 0.5) / (self.answered + 1), self.expected / self.answered
        found = min(self.nats - FREE, _logit(q) - _logit(observed), DEEPEST)
        return -math.floor(found / STEP) * STEP if found >= STEP else 0.0


class _Kept:
    """How much of what was expected customers keep, over the last outcomes; 1 of nothing."""

    def __init__(self) -> None:
        self._kept = self._expected = 20.0  # as if so many had been as expected

    def take(self, answers: Iterable[Answers]) -> float:
        for one in answers:
            self._kept += one.kept
            self._expected += one.expected
        over = max(self._expected / KNOWN_AT_MOST, 1.0)
        self._kept, self._expected = self._kept / over, self._expected / over
        return self.share

    @property
    def share(self) -> float:
        return min(self._kept / self._expected, 1.0)


class Watch:
    """The doubts about all skills. Feed it the answers as they come, each with its time."""

    def __init__(self, half_life_ms: float) -> None:
        self._half_life_ms = half_life_ms
        self._launches, self._suggestions = _Kept(), _Kept()
        self._doubts: dict[str, _Doubt] = {}

    def take(self, gained: Mapping[str, Gained], at_ms: int) -> None:
        """Takes in the new answers of some skills."""
        r_launched = self._launches.take(one.launched for one in gained.values())
        r_suggested = self._suggestions.take(one.suggested for one in gained.values())
        for skill_id, (launched, suggested) in gained.items():
            doubt = self._doubts.setdefault(skill_id, _Doubt(at_ms))
            doubt.age(at_ms, self._half_life_ms)
            _add(doubt, "launched", launched, r_launched)
            _add(doubt, "suggested", suggested, r_suggested)
            if launched.kept:  # it works, so suggestions were refused for other reasons
                doubt.suggested = max(0.0, doubt.suggested + launched.kept * math.log(STILL_KEPT))
            if doubt.nats < LITTLE:
                del self._doubts[skill_id]

    def resume(self, factors: Mapping[str, float], at_ms: int) -> None:
        """Begins from factors that were in force at `at_ms`: with the doubts that they stand for.

        A step stands for all the doubts that round to it, so the middle of them is taken: with the least, a moment
        later would be a step less.
        """
        for skill_id, factor in factors.items():
            if factor < 0:
                answered = 0.5 * math.exp(-factor)
                nats = FREE + STEP / 2 - factor
                doubt = _Doubt(at_ms, launched=nats, answered=answered, expected=answered * SUREST)
                self._doubts[skill_id] = doubt

    def factors(self, now_ms: int) -> dict[str, float]:
        """What is to be added to the score of each skill that is held back, by its id, in their order."""
        for skill_id, doubt in list(self._doubts.items()):
            doubt.age(now_ms, self._half_life_ms)
            if doubt.nats < LITTLE:
                del self._doubts[skill_id]
        if self._launches.share < NOT_THEIRS:
            return {}
        found = {skill_id: doubt.factor() for skill_id, doubt in sorted(self._doubts.items())}
        return {skill_id: factor for skill_id, factor in found.items() if factor}


def _add(doubt: _Doubt, side: str, answers: Answers, r: float) -> None:
    """What the answers of one side say against the skill, and no side can say more than all may."""
    if not answers.answered:
        return
    q = r * answers.expected / answers.answered
    evidence = min(q, SUREST)
    refused = math.log((1 - STILL_KEPT * evidence) / (1 - evidence))
    nats = (answers.answered - answers.kept) * refused + answers.kept * math.log(STILL_KEPT)
    rest = FREE + DEEPEST - (doubt.nats - getattr(doubt, side))
    setattr(doubt, side, min(max(0.0, getattr(doubt, side) + nats), rest))
    if not doubt.nats:  # all doubts are gone: what comes next is looked at afresh
        doubt.answered = doubt.kept = doubt.expected = 0.0
    elif getattr(doubt, side):  # what raises no doubt says nothing of what does
        doubt.answered += answers.answered
        doubt.kept += answers.kept
        doubt.expected += answers.answered * q


def _logit(share: float) -> float:
    bounded = min(max(share, 0.001), 0.999)
    return math.log(bounded / (1 - bounded))


def version_of(factors: Mapping[str, float]) -> str:
    """Names factors, the same for the same: `live-` and 12 hex digits.

    >>> version_of({"a": -1.0, "b": -2.0}) == version_of({"b": -2.0, "a": -1.0})
    True
    """
    told = msgspec.json.encode(dict(factors), order="deterministic")
    return f"live-{hashlib.sha256(told).hexdigest()[:12]}"


def live_statistics(factors: Mapping[str, float], offsets: Mapping[str, int], now_ms: int) -> LiveStatistics:
    """The event that carries the factors, made from folds up to these offsets."""
    return LiveStatistics(
        event_time_ms=min(now_ms, MAX_TIME_MS),
        version=version_of(factors),
        factors=dict(factors),
        offsets=dict(offsets),
    )


def joined_version(statistics: str, live: LiveStatistics | None) -> str:
    """What a decision names: the bundle's statistics, and behind a plus the live ones, if any are followed.

    >>> joined_version("5a0c", None)
    '5a0c'
    """
    return statistics if live is None else f"{statistics}+{live.version}"


def live_version(statistics: str) -> str:
    """The live version that a decision's `statistics` names; "" where it followed none.

    >>> live_version("5a0c+live-0f1e2d3c4b5a"), live_version("5a0c")
    ('live-0f1e2d3c4b5a', '')
    """
    return statistics.partition("+")[2]
