"""CanFulfillIntentRequest: what a skill is asked about a request, and the one interface behind which answers come.

The question names an intent and the slots that the request would fill there; the answer says YES, MAYBE or NO for
the intent, and for each slot whether its value is understood and whether it can be acted on
(developer.amazon.com, "Implement CanFulfillIntentRequest for Name-free Interaction").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from topics.events import Ability


@dataclass(frozen=True, slots=True)
class Question:
    """Whether the skill can fulfil this intent with these slots: pairs of name and value as said, by name."""

    skill_id: str
    endpoint: str
    intent: str
    slots: tuple[tuple[str, str], ...]
    locale: str = "en-US"


class Asks(Protocol):
    """Where answers come from that are not on the card."""

    def ask(self, questions: Sequence[Question]) -> list[Ability | None]:
        """An answer each, in order, within one deadline for all; None where it is unknown. Never raises."""
        ...
