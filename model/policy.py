"""What is done about a request: the action of least expected cost, and which near-equal one is tried now and then.

With p_i the probability of candidate i, best first, and p_none that no skill should answer:

    open the first    (1 − p_1) · wrong                            launch, where it is linked
                      p_1 · enable + (1 − p_1) · wrong_enable      enable, where it is not
    ask               question + (1 − p_1 − p_2 − p_3) · wrong     discover
    say nothing       (1 − p_none) · missed                        none

The least is done, of equal ones the earlier in this list. Only the first candidate is opened, whatever opening
another would cost, so that what is done and what is best are one.

**Exploration.** A replay can only judge what customers were shown, so where opening the first is the least, its
near ties are shown to a few: opening the second, opening the third, and asking, each if it costs at most `near`
more. With n ≥ 1 of these, the first has propensity 1 − explore, each near tie explore / n; without, 1. Which it is
comes from a hash of the request's key and the release: even over requests, the same whenever it is asked again. A
request without a key is never explored on.
"""

import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from operator import attrgetter
from typing import NamedTuple

import msgspec
from msgspec import Struct

from topics.events import Action, Candidate

ASKED_OF = 3  # a question names at most so many skills: more are not remembered by who only hears them
MAX_EXPLORE = 0.1  # what a customer is shown must be the best nine times in ten
RULES = {Action.LAUNCH: "best", Action.ENABLE: "best", Action.DISCOVER: "near-tie", Action.NONE: "none"}


class Costs(Struct, frozen=True, kw_only=True):
    """What a customer pays, in units of a wrong launch, and how much is explored. See `model.policy`.

    `wrong`: a skill opens, or a question is asked, and what was meant is not there. `wrong_enable`: a skill is
    suggested that was not meant; equal until an operator knows better. `enable`: a skill is suggested that was
    meant, and still has to be linked; nothing until an operator knows how many will not. `question`: being asked
    which of three. `missed`: silence where a skill should have answered. `explore`: the share of requests
    with near ties that get one of them, at most 0.1. `near`: how much more a near tie may cost.
    """

    wrong: float = 1.0
    wrong_enable: float = 1.0
    enable: float = 0.0
    question: float = 0.35
    missed: float = 0.8
    explore: float = 0.02
    near: float = 0.05

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not (math.isfinite(value := getattr(self, name)) and value >= 0):
                raise ValueError(f"cost {name} is {value}: it must be a number from 0")
        if self.explore > MAX_EXPLORE:
            raise ValueError(f"explore is {self.explore}: it is at most {MAX_EXPLORE}")

    def told(self, usual: "Costs") -> str:
        """What differs from the usual ones: `question=0.5,explore=0`; "" where nothing does.

        >>> Costs(question=0.5).told(Costs())
        'question=0.5'
        """
        own = msgspec.structs.asdict(self)
        return ",".join(f"{name}={cost!r}" for name, cost in own.items() if cost != getattr(usual, name))


class Option(NamedTuple):
    """Something that could be done, at what expected cost. `skill_id`: what is opened."""

    action: Action
    skill_id: str | None
    cost: float


class Choice(NamedTuple):
    """What is done, by which rule, and with what probability just this was to be chosen."""

    action: Action
    skill_id: str | None
    rule: str
    propensity: float


_cost = attrgetter("cost")
NOBODY = Choice(Action.NONE, None, "no-candidates", 1.0)


def set_costs(usual: Costs, changes: Mapping[str, float] | None) -> Costs:
    """`usual` but for what is changed. Raises ValueError where a cost is none."""
    return msgspec.structs.replace(usual, **changes) if changes else usual


def options(candidates: Sequence[Candidate], none: float, costs: Costs) -> list[Option]:
    """What may be done as the best, in the order of the rule: opening the first, asking, silence."""
    silence = Option(Action.NONE, None, (1 - none) * costs.missed)
    if not candidates:
        return [silence]
    if len(candidates) == 1:  # there is nothing to ask between
        return [_opening(candidates[0], costs), silence]
    listed = sum([candidate.probability for candidate in candidates[:ASKED_OF]])
    asking = Option(Action.DISCOVER, None, costs.question + (1 - listed) * costs.wrong)
    return [_opening(candidates[0], costs), asking, silence]


def _opening(candidate: Candidate, costs: Costs) -> Option:
    action = Action.LAUNCH if candidate.linked else Action.ENABLE
    return Option(action, candidate.skill_id, _cost_of_opening(candidate, costs))


def _cost_of_opening(candidate: Candidate, costs: Costs) -> float:
    wrong = 1 - candidate.probability
    if candidate.linked:
        return wrong * costs.wrong
    return candidate.probability * costs.enable + wrong * costs.wrong_enable


def near_ties(candidates: Sequence[Candidate], found: Sequence[Option], costs: Costs) -> list[Option]:
    """What may be tried in place of opening the first: see the module. `found`: its `options`."""
    most = found[0].cost + costs.near
    others = [_opening(other, costs) for other in candidates[1:ASKED_OF] if _cost_of_opening(other, costs) <= most]
    return others + [option for option in found if option.action is Action.DISCOVER and option.cost <= most]


def choices(candidates: Sequence[Candidate], none: float, costs: Costs, explored: bool = True) -> list[Choice]:
    """All that a request can come to, the best first; their propensities sum to 1."""
    if not candidates:
        return [NOBODY]
    found = options(candidates, none, costs)
    best = min(found, key=_cost)  # the first of equals
    explored = explored and costs.explore > 0 and best is found[0]
    ties = near_ties(candidates, found, costs) if explored else []
    if not ties:
        return [Choice(best.action, best.skill_id, RULES[best.action], 1.0)]
    share = costs.explore / len(ties)
    least = Choice(best.action, best.skill_id, RULES[best.action], 1 - costs.explore)
    return [least, *[Choice(tie.action, tie.skill_id, "explore", share) for tie in ties]]


def choose(candidates: Sequence[Candidate], none: float, costs: Costs, key: str = "", release: str = "") -> Choice:
    """What is done about a request. Without a `key` it is the best, with propensity 1."""
    least, *ties = choices(candidates, none, costs, bool(key))
    if not ties:
        return least
    at = drawn(key, release)  # below `explore` the near ties share the line evenly, above it is the best's
    return ties[min(int(at / costs.explore * len(ties)), len(ties) - 1)] if at < costs.explore else least


def drawn(key: str, release: str) -> float:
    """A number from [0, 1): the same for a request and a release on every machine, even over many requests."""
    name = f"{release}\0{key}".encode("utf-8", "surrogatepass")
    return (int.from_bytes(blake2b(name, digest_size=8, person=b"namefree").digest(), "big") >> 11) / 2**53
