"""What customers make of releases, as it happens: decisions, a shadow's decisions and outcomes, joined, counted.

Friction is an outcome that shows that the customer was not served at first: rejected, abandoned, corrected.
Accepted is none, and neither is enabled: linking the skill is what the suggestion asked for. The first outcome of
a decision counts and later ones do not; one that comes before its decision is seen waits for it. Decisions without
any outcome are no friction and no success: they are left out.
"""

import logging
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice

import msgspec
from confluent_kafka import Message, TopicPartition

from topics.errors import BrokerError
from topics.events import Action, OutcomeKind
from topics.kafka import ends_reading, partitions_of, reader, said, watermarks
from topics.registry import DECISIONS, OUTCOMES, SHADOW_DECISIONS, topic_name
from topics.settings import Settings
from workers.joins import DecisionHead, read_head
from workers.sequential import Tally

log = logging.getLogger("namefree.friction")
SERVED = (OutcomeKind.ACCEPTED, OutcomeKind.ENABLED)
MAX_OPEN = 100_000  # utterances remembered, some 500 bytes each: half a minute at the router's highest rate
READ = 2_000  # messages a read


class OutcomeHead(msgspec.Struct, frozen=True):
    """As much of an outcome as is counted."""

    utterance_id: str
    outcome: OutcomeKind


@dataclass(slots=True)
class Meeting:
    """What is known of one utterance so far."""

    decision: DecisionHead | None = None
    shadow: DecisionHead | None = None
    outcome: OutcomeKind | None = None


@dataclass
class Comparison:
    """A shadow beside what customers met.

    `agreed`: the same skill first, or both silent. `silent`, `shadow_silent`: answered by no skill. `accepted`:
    decisions that customers took and that the shadow has an opinion on, by the skill put first; `kept`: those of
    them that the shadow would have made too.
    """

    compared: int = 0
    agreed: int = 0
    same_action: int = 0
    silent: int = 0
    shadow_silent: int = 0
    accepted: Counter[str | None] = field(default_factory=Counter)
    kept: Counter[str | None] = field(default_factory=Counter)

    def compare(self, decision: DecisionHead, shadow: DecisionHead) -> None:
        self.compared += 1
        self.agreed += decision.first() == shadow.first()
        self.same_action += decision.action == shadow.action
        self.silent += decision.action is Action.NONE
        self.shadow_silent += shadow.action is Action.NONE

    def judge(self, decision: DecisionHead, shadow: DecisionHead) -> None:
        self.accepted[decision.first()] += 1
        self.kept[decision.first()] += decision.first() == shadow.first()


class Feedback:
    """Follows the three topics from where they end now. In no group, and it commits nothing.

    `decisions`: how many customers met, by release. `frictions`: what they made of them, by release.
    `comparison`: of the release `shadow` with the release `current`.
    """

    def __init__(self, settings: Settings, current: str, shadow: str) -> None:
        """Raises BrokerError where a topic is missing or no broker answers."""
        self.decisions: Counter[str] = Counter()
        self.frictions: dict[str, Tally] = {current: Tally(), shadow: Tally()}
        self.comparison = Comparison()
        self._pair = (current, shadow)
        self._meetings: dict[str, Meeting] = {}
        self._readers = {
            topic_name(settings, DECISIONS): self._decided,
            topic_name(settings, SHADOW_DECISIONS): self._shadowed,
            topic_name(settings, OUTCOMES): self._came_out,
        }
        self._reader = reader(settings)
        self._reader.assign(
            [
                TopicPartition(name, partition, watermarks(self._reader, name, partition)[1])
                for name in self._readers
                for partition in partitions_of(settings, name)
            ]
        )

    def look(self, wait_s: float) -> None:
        """Counts what has come, waiting up to `wait_s`. Raises BrokerError where a topic may not be read."""
        for message in self._reader.consume(READ, wait_s):
            error = message.error()
            if error is None:
                self._readers[message.topic() or ""](message)
            elif ends_reading(error):
                raise BrokerError(f"what customers do cannot be read: {said(error)}")
            else:
                log.warning("reading what customers do: %s", error.str())
        for utterance_id in list(islice(self._meetings, max(0, len(self._meetings) - MAX_OPEN))):
            del self._meetings[utterance_id]

    def close(self) -> None:
        self._reader.close()

    def _meeting(self, utterance_id: str) -> Meeting:
        return self._meetings.setdefault(utterance_id, Meeting())

    def _decided(self, message: Message) -> None:
        head = read_head(message)
        if head and (meeting := self._meeting(head.utterance_id)).decision is None:
            meeting.decision = head
            self.decisions[head.release] += 1
            self._count_friction(meeting)
            self._count_shadow(meeting)
            self._count_judged(meeting)

    def _shadowed(self, message: Message) -> None:
        head = read_head(message)
        if head and (meeting := self._meeting(head.utterance_id)).shadow is None:
            meeting.shadow = head
            self._count_shadow(meeting)
            self._count_judged(meeting)

    def _came_out(self, message: Message) -> None:
        try:
            head = msgspec.json.decode(message.value() or b"", type=OutcomeHead)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return  # the aggregator complains of malformed ones
        if (meeting := self._meeting(head.utterance_id)).outcome is None:
            meeting.outcome = head.outcome
            self._count_friction(meeting)
            self._count_judged(meeting)

    def _count_friction(self, meeting: Meeting) -> None:
        if meeting.decision and meeting.outcome and meeting.decision.release in self.frictions:
            friction = int(meeting.outcome not in SERVED)
            self.frictions[meeting.decision.release] += Tally(friction, 1)

    def _count_shadow(self, meeting: Meeting) -> None:
        if meeting.decision and meeting.shadow and self._is_pair(meeting.decision, meeting.shadow):
            self.comparison.compare(meeting.decision, meeting.shadow)

    def _count_judged(self, meeting: Meeting) -> None:
        decision, shadow = meeting.decision, meeting.shadow
        if decision and shadow and meeting.outcome in SERVED and self._is_pair(decision, shadow):
            self.comparison.judge(decision, shadow)

    def _is_pair(self, decision: DecisionHead, shadow: DecisionHead) -> bool:
        return (decision.release, shadow.release) == self._pair
