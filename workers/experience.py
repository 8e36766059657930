"""What customers did, as a cycle learns from it: utterance, decision and outcome joined, up to a named cut.

Everything is read from the topics as they stand, without a group's offsets. An outcome without a decision, and a
second one of the same utterance, say nothing here; the first one that names what was meant goes before all others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from sys import intern

from msgspec import Struct
from msgspec.structs import replace

from model.feedback import NOBODY, Feedback
from model.off_policy import Logged, reward
from model.policy import ASKED_OF
from model.selector import Request, Selector
from topics.codec import decode
from topics.errors import BadEvent
from topics.events import Action, Candidate, Outcome, OutcomeKind, Utterance
from topics.kafka import partitions_of, read_all, reader, watermarks
from topics.registry import DECISIONS, OUTCOMES, UTTERANCES, Topic, topic_name
from topics.settings import Settings
from workers.joins import TELLING, DecisionHead, Offered, read_head, read_utterances

LIKELY = 0.002  # candidates below are not told one by one: most of a decision's list
OTHERS = 1_000  # skills that share what is left of a decision's probability: as good as any of them is one named
UNKNOWN = 0.7  # the prior of a choice of which no probability was recorded
SOURCES = (OUTCOMES, DECISIONS, UTTERANCES)  # in the order of their reading: what is found in one is in the next


class Experienced(Struct, frozen=True):
    """One request with its outcome."""

    utterance: Utterance
    skill_id: str | None  # the decision's
    feedback: Feedback

    def logged(self) -> Logged:
        """The same as off-policy measures take it."""
        return Logged(
            text=self.utterance.text,
            linked=self.feedback.linked,
            key=self.utterance.utterance_id,
            customer_id=self.utterance.customer_id,
            locale=self.utterance.locale,
            action=self.feedback.action,
            skill_id=self.skill_id,
            shown=self.feedback.offered,
            propensity=self.feedback.propensity,
            reward=reward(self.feedback.outcome),
        )


@dataclass(frozen=True)
class Experience:
    """All of it by partition and offset of the utterances, and how far each topic was read."""

    requests: list[Experienced]
    offsets: dict[str, dict[int, int]]  # topic -> partition -> the offset after the last one read


def read_experience(settings: Settings) -> Experience:
    """Every utterance with a decision and an outcome. Raises BrokerError."""
    offsets = {topic.name: _ends(settings, topic) for topic in SOURCES}
    outcomes = _outcomes(settings, offsets[OUTCOMES.name])
    heads = _heads(settings, offsets[DECISIONS.name], outcomes)
    found: dict[str, tuple[tuple[int, int], Experienced]] = {}
    for source, utterance in read_utterances(settings, end=offsets[UTTERANCES.name]):
        if isinstance(utterance, BadEvent) or utterance.utterance_id in found:
            continue
        key = utterance.utterance_id
        if key in heads and (one := _experienced(utterance, heads[key], outcomes[key])):
            found[key] = ((source.partition, source.offset), one)
    # partitions arrive interleaved, each time otherwise; a training is repeated only from rows in one order
    ordered = sorted(found.values(), key=lambda pair: pair[0])
    return Experience([one for _, one in ordered], offsets)


def reconsidered(requests: Sequence[Experienced], selector: Selector) -> list[Experienced]:
    """The same, with the beliefs of `selector` before the outcome in place of those of the decision."""
    asked = [Request(one.utterance.text, one.feedback.linked) for one in requests]
    return [
        replace(one, feedback=_with_beliefs(one.feedback, _told(ranking.candidates, ranking.none_probability)))
        for one, ranking in zip(requests, selector.decide(asked), strict=True)
    ]


def _with_beliefs(feedback: Feedback, beliefs: dict[str, float]) -> Feedback:
    prior = _prior(feedback.named, beliefs) if feedback.named else 0.0
    return replace(feedback, beliefs=beliefs, named_prior=prior)


def _prior(named: str, beliefs: dict[str, float]) -> float:
    return beliefs.get(named, max(0.0, 1 - sum(beliefs.values())) / OTHERS)


def _ends(settings: Settings, topic: Topic) -> dict[int, int]:
    name = topic_name(settings, topic)
    client = reader(settings)
    try:
        return {p: watermarks(client, name, p)[1] for p in partitions_of(settings, name)}
    finally:
        client.close()


def _outcomes(settings: Settings, end: dict[int, int]) -> dict[str, Outcome]:
    """utterance id -> its outcome; malformed ones are the aggregator's to complain of."""
    found: dict[str, Outcome] = {}
    for message in read_all(settings, topic_name(settings, OUTCOMES), end=end):
        try:
            outcome = decode(message.value(), Outcome)
        except BadEvent:
            continue
        before = found.get(outcome.utterance_id)
        if before is None or (before.outcome not in TELLING and outcome.outcome in TELLING):
            found[outcome.utterance_id] = outcome
    return found


def _heads(settings: Settings, end: dict[int, int], wanted: Mapping[str, Outcome]) -> dict[str, DecisionHead]:
    found: dict[str, DecisionHead] = {}
    for message in read_all(settings, topic_name(settings, DECISIONS), end=end):
        head = read_head(message)
        if head is not None and head.utterance_id in wanted:
            found.setdefault(head.utterance_id, head)
    return found


def _experienced(utterance: Utterance, head: DecisionHead, outcome: Outcome) -> Experienced | None:
    """None where the outcome contradicts the decision: a skill accepted that was not offered."""
    offered = _offered(head)
    named = None
    if outcome.outcome is OutcomeKind.CORRECTED or head.action is Action.DISCOVER:
        named = outcome.skill_id
    elif outcome.skill_id is not None and outcome.skill_id not in offered:
        return None
    if outcome.outcome in TELLING and head.action is Action.DISCOVER and named is None:
        return None  # which of the offered ones was taken is not told
    beliefs = _beliefs(head, offered)
    return Experienced(
        utterance,
        head.skill_id,
        Feedback(
            text=utterance.text,
            linked=tuple(intern(skill_id) for skill_id in head.linked),
            action=head.action,
            offered=offered,
            beliefs=beliefs,
            outcome=outcome.outcome,
            named=named and intern(named),
            named_prior=_prior(named, beliefs) if named else 0.0,
            propensity=head.propensity,
        ),
    )


def _offered(head: DecisionHead) -> tuple[str, ...]:
    if head.action is Action.NONE:
        return (NOBODY,)
    if head.action is Action.DISCOVER:
        return tuple(intern(one.skill_id) for one in head.candidates[:ASKED_OF])
    return (intern(head.skill_id),) if head.skill_id else ()


def _beliefs(head: DecisionHead, offered: tuple[str, ...]) -> dict[str, float]:
    found = _told(head.candidates, head.none_probability)
    if not any(found.values()):  # a decision of somebody else's, who tells no probabilities
        return dict.fromkeys(offered, UNKNOWN / max(1, len(offered)))
    return found


def _told(candidates: Sequence[Candidate | Offered], none: float) -> dict[str, float]:
    """The likelier candidates and `NOBODY`, by id."""
    found = {intern(one.skill_id): one.probability for one in candidates if one.probability >= LIKELY}
    return {**found, NOBODY: none}
