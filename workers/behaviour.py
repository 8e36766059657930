"""How a simulated customer acts on a decision, what the device makes of it, and who lies: tables of rates and
pure functions.

The rates are made up, and say so: they are plausible, not measured. Whatever is learnt from simulated outcomes
is learnt about these tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

from topics.events import Action, OutcomeKind

LOOKS_AT = 3  # of a list that is offered, a customer reads this many


@dataclass(frozen=True)
class Behaviour:
    """Shares of the cases that they name; what is left over to 1 is let go without a word (abandoned)."""

    right_launch_accepted: float = 0.97
    """The meant skill is opened: it is used."""

    wrong_launch_rejected: float = 0.60
    """Another skill is opened: it is sent away."""

    wrong_launch_corrected: float = 0.25
    """Another skill is opened: the customer names the meant one."""

    right_enable_enabled: float = 0.70
    """The meant skill, not linked yet, is suggested: the customer links it."""

    right_enable_rejected: float = 0.10
    """The meant skill, not linked yet, is suggested: the customer wants no new skill."""

    wrong_enable_rejected: float = 0.55
    """Another skill is suggested: no."""

    wrong_enable_corrected: float = 0.20
    """Another skill is suggested: the customer names the meant one."""

    found_accepted: float = 0.90
    """The meant skill is among the first three of a list: it is picked."""

    not_found_rejected: float = 0.30
    """The meant skill is not among the first three of a list: none of these."""

    not_found_corrected: float = 0.30
    """The meant skill is not among the first three of a list: the customer names it."""

    wrong_silence_corrected: float = 0.40
    """Nothing answers though a skill was meant: the customer names it."""


Acted = tuple[OutcomeKind, str | None]
ABANDONED: Acted = (OutcomeKind.ABANDONED, None)
NAMING = (OutcomeKind.ACCEPTED, OutcomeKind.ENABLED, OutcomeKind.CORRECTED)  # outcomes that name a skill


def react(
    action: Action,
    skill_id: str | None,
    offered: Sequence[str],
    intended: str | None,
    draw: float,
    rates: Behaviour,
) -> Acted:
    """The outcome and the skill taken in the end, if any.

    Args:
        action, skill_id: the decision's.
        offered: the skills of the decision's list, best first; read where the action is `discover`.
        intended: the skill that the customer has in mind; None: nobody should answer.
        draw: from [0, 1), the customer's mood.

    Who wants nobody accepts silence and rejects everything else, always.

    >>> react(Action.LAUNCH, "rides:acorn", [], "rides:acorn", 0.5, Behaviour())
    (<OutcomeKind.ACCEPTED: 'accepted'>, 'rides:acorn')
    """
    if intended is None:
        return (OutcomeKind.ACCEPTED, None) if action is Action.NONE else (OutcomeKind.REJECTED, None)
    if action is Action.DISCOVER:
        return _from_list(intended in offered[:LOOKS_AT], intended, draw, rates)
    return _to_one(action, skill_id == intended, intended, draw, rates)


def _from_list(found: bool, intended: str, draw: float, rates: Behaviour) -> Acted:
    if found:
        return (OutcomeKind.ACCEPTED, intended) if draw < rates.found_accepted else ABANDONED
    return _refused(intended, draw, rates.not_found_rejected, rates.not_found_corrected)


def _to_one(action: Action, right: bool, intended: str, draw: float, rates: Behaviour) -> Acted:
    if action is Action.NONE:
        return _refused(intended, draw, 0.0, rates.wrong_silence_corrected)
    if action is Action.LAUNCH:
        if right:
            return (OutcomeKind.ACCEPTED, intended) if draw < rates.right_launch_accepted else ABANDONED
        return _refused(intended, draw, rates.wrong_launch_rejected, rates.wrong_launch_corrected)
    if right and draw < rates.right_enable_enabled:
        return OutcomeKind.ENABLED, intended
    if right:
        return _refused(intended, draw - rates.right_enable_enabled, rates.right_enable_rejected, 0.0)
    return _refused(intended, draw, rates.wrong_enable_rejected, rates.wrong_enable_corrected)


def _refused(intended: str, draw: float, rejected: float, corrected: float) -> Acted:
    if draw < rejected:
        return OutcomeKind.REJECTED, None
    return (OutcomeKind.CORRECTED, intended) if draw < rejected + corrected else ABANDONED


class Habit(StrEnum):
    """What a device makes of an outcome, other than to tell it once and at once."""

    TWICE = "twice"
    """The outcome is told two times."""

    LATE = "late"
    """The outcome is told `late_s` after the decision was seen."""

    EARLY = "early"
    """The customer hangs up before any answer: abandoned, told before the decision is seen."""

    UNKNOWN = "unknown"
    """The outcome is told, and one more of an utterance that was never asked."""


@dataclass(frozen=True)
class Devices:
    """Shares of the utterances whose device has the habit of that name; others, by default all, are sound."""

    twice: float = 0.0
    late: float = 0.0
    early: float = 0.0
    unknown: float = 0.0
    late_s: float = 2.0
    """How late is late; to be within the aggregator's join window."""

    def habit(self, seed: int, number: int) -> Habit | None:
        """Of the device by which utterance `number` is asked."""
        rates = (self.twice, self.late, self.early, self.unknown)
        if not any(rates):
            return None
        at = mood(seed, number, "device")
        for habit, share in zip(Habit, rates, strict=True):
            if at < share:
                return habit
            at -= share
        return None


FLAWED = Devices(twice=0.01, late=0.01, early=0.01, unknown=0.01)
"""Devices as the experiment has them."""


@dataclass(frozen=True)
class Lies:
    """Who tells something else than what happened; by default nobody."""

    noise: float = 0.0
    """Share of the outcomes that are another kind, at random; where that kind names a skill, a random one of
    those offered."""

    fakers: float = 0.0
    """Share of the customers who work for `cheater`: whatever they asked and got, half of their outcomes are
    `corrected` to it, the others `accepted` with it."""

    cheater: str | None = None
    """The skill whose owner pays the fakers."""

    def told(self, seed: int, number: int, customer: int, offered: Sequence[str], happened: Acted) -> Acted:
        """What is told of utterance `number` of `customer`, to whom `offered` were shown."""
        if self.cheater is not None and self.is_faker(seed, customer):
            corrects = mood(seed, number, "fake") < 0.5
            return (OutcomeKind.CORRECTED if corrects else OutcomeKind.ACCEPTED), self.cheater
        if self.noise and mood(seed, number, "noise") < self.noise:
            return _another(seed, number, offered, happened[0])
        return happened

    def is_faker(self, seed: int, customer: int) -> bool:
        """Whether the customer works for the cheater."""
        return mood(seed, customer, "faker") < self.fakers


def _another(seed: int, number: int, offered: Sequence[str], kind: OutcomeKind) -> Acted:
    others = [other for other in OutcomeKind if other is not kind and (offered or other not in NAMING)]
    told = others[int(mood(seed, number, "kind") * len(others))]
    if told not in NAMING:
        return told, None
    return told, offered[int(mood(seed, number, "which") * len(offered))]


def mood(seed: int, number: int, what: str = "") -> float:
    """The draw of utterance `number`: the same whenever its decision arrives, and whatever arrived before.
    `what` names another draw of the same utterance.

    >>> mood(0, 7) == mood(0, 7) != mood(1, 7)
    True
    """
    name = f"{seed}-{number}-{what}" if what else f"{seed}-{number}"
    digest = blake2b(name.encode(), digest_size=7).digest()
    return (int.from_bytes(digest) >> 3) / 2**53
