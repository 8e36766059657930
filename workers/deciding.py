"""From messages to answers: decode, look the links up, ask the selector, encode. No Kafka call in here."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from confluent_kafka import Message

from model.selector import Ranking, Request
from topics.codec import Source, check_key, decode, encode
from topics.errors import BadEvent
from topics.events import Action, Decision, LiveStatistics, SkillCard, Utterance
from workers.source import place_of
from workers.transactions import Headers

log = logging.getLogger("namefree.deciding")


class Selecting(Protocol):
    """What the router needs of a selector; `model.selector.Selector` is one."""

    release: str
    statistics: str
    policy: str

    @property
    def catalogue(self) -> str: ...
    @property
    def skills(self) -> int: ...
    def decide(self, requests: list[Request]) -> list[Ranking]: ...
    def take(self, cards: Sequence[SkillCard], gone: Sequence[str]) -> int: ...
    def follow(self, live: LiveStatistics | None) -> None: ...
    def warm_up(self, count: int) -> None: ...


class KnowsLinks(Protocol):
    """What deciding needs of the links table."""

    def linked(self, partition: int, customer_id: str) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """One utterance to decide, with the message that it came in."""

    message: Message
    utterance: Utterance
    linked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """One decision, ready to be produced."""

    asked: Asked
    action: Action
    release: str
    value: bytes


@dataclass(slots=True)
class Batch:
    """What becomes of one poll. Each message ends up in `answers` or in `refused`; `shadowed` are the answers of a
    release that customers do not meet (see `workers.canary`)."""

    polled_s: float
    asked: list[Asked] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    refused: list[tuple[Message, BadEvent]] = field(default_factory=list)
    shadowed: list[Answer] = field(default_factory=list)


def decode_batch(messages: Sequence[Message], links: KnowsLinks) -> Batch:
    """Reads the utterances; what cannot be read is refused, with the reason."""
    batch = Batch(time.time())
    for message in messages:
        try:
            batch.asked.append(_asked(message, links))
        except BadEvent as error:
            batch.refused.append((message, error))
    return batch


def _asked(message: Message, links: KnowsLinks) -> Asked:
    partition, offset = place_of(message)
    source = Source(message.topic() or "", partition, offset)
    utterance = decode(message.value(), Utterance, source)
    check_key(message.key(), utterance.customer_id, source)
    linked = utterance.linked
    if linked is None:
        linked = links.linked(partition, utterance.customer_id)
    return Asked(message, utterance, linked)


def decide_batch(batch: Batch, selector: Selecting) -> None:
    """Fills `batch.answers`. Where the selector raises, each is asked alone and the culprits are refused."""
    if not batch.asked:
        return
    try:
        batch.answers = answers(batch.asked, selector, batch.polled_s)
    except Exception:  # whatever a model raises, one bad request must not end the worker
        log.exception("a batch of %d could not be decided: asking one by one", len(batch.asked))
        for asked in batch.asked:
            _answer_alone(batch, asked, selector)


def _answer_alone(batch: Batch, asked: Asked, selector: Selecting) -> None:
    try:
        batch.answers += answers([asked], selector, batch.polled_s)
    except Exception as error:  # noqa: BLE001 kept, with its words, in the dead letter
        reason = BadEvent(f"the selector could not decide: {type(error).__name__}: {error}", "undecidable")
        batch.refused.append((asked.message, reason))


def answers(asked: list[Asked], selector: Selecting, polled_s: float) -> list[Answer]:
    """One answer each, in order; raises whatever the selector raises. `polled_s`: epoch seconds of the poll."""
    rankings = selector.decide([_request(one.utterance, one.linked) for one in asked])
    now_s = time.time()
    latency_ms = max(0.0, (now_s - polled_s) * 1000)
    return [
        Answer(
            one,
            ranking.action,
            selector.release,
            encode(_decision(one, ranking, selector, int(now_s * 1000), latency_ms)),
        )
        for one, ranking in zip(asked, rankings, strict=True)
    ]


def _request(utterance: Utterance, linked: tuple[str, ...]) -> Request:
    return Request(utterance.text, linked, utterance.utterance_id, utterance.locale)


def _decision(
    asked: Asked, ranking: Ranking, selector: Selecting, event_time_ms: int, latency_ms: float
) -> Decision:
    """`latency_ms` is the router's own, from poll to decision; the wait before it is the difference of the
    event times of utterance and decision, less this."""
    return Decision(
        event_time_ms=event_time_ms,
        utterance_id=asked.utterance.utterance_id,
        customer_id=asked.utterance.customer_id,
        action=ranking.action,
        skill_id=ranking.skill_id,
        candidates=ranking.candidates,
        none_probability=ranking.none_probability,
        linked=asked.linked,
        propensity=ranking.propensity,
        rule=ranking.rule,
        release=selector.release,
        statistics=selector.statistics,
        catalogue=selector.catalogue,
        latency_ms=round(latency_ms, 3),
        policy=selector.policy,
        reasons=ranking.reasons,
        without_links=ranking.without_links,
    )


def trace_of(message: Message) -> Headers:
    """The W3C `traceparent` header alone, to travel on; None where there is none, or none that can be read."""
    try:
        headers = message.headers()
    except UnicodeDecodeError:  # a header's name that is no UTF-8
        return None
    if not headers:
        return None
    pairs = headers.items() if isinstance(headers, dict) else headers
    return [(name, value) for name, value in pairs if name == "traceparent"] or None
