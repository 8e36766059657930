"""How a simulated customer acts on a decision: one table of rates and one pure function.

The rates are made up, and say so: they are plausible, not measured. Whatever is learnt from simulated outcomes
is learnt about this table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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


def mood(seed: int, number: int) -> float:
    """The draw of utterance `number`: the same whenever its decision arrives, and whatever arrived before.

    >>> mood(0, 7) == mood(0, 7) != mood(1, 7)
    True
    """
    digest = blake2b(f"{seed}-{number}".encode(), digest_size=7).digest()
    return (int.from_bytes(digest) >> 3) / 2**53
