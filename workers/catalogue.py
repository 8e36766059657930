"""Puts a catalogue's cards on the `skills` topic."""

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from topics.codec import encode
from topics.errors import BadData, BadEvent
from topics.events import SkillCard
from topics.kafka import partitions_of, read_all
from topics.registry import SKILLS, topic_name
from topics.settings import Settings
from workers.console import Advance
from workers.releases import current_release
from workers.sender import Sender


def load_catalogue(
    settings: Settings, cards: Sequence[SkillCard], advance: Advance = lambda done, note="": None
) -> int:
    """Sends every card, keyed by its skill_id, and waits for the acknowledgements; returns how many.

    A card that was there is replaced; skills that are not among `cards` stay as they are.
    Raises BadData where a card is larger than an event may be, BrokerError where the topic is missing.
    """
    topic = topic_name(settings, SKILLS)
    partitions_of(settings, topic)
    now_ms = time.time_ns() // 1_000_000
    values = [_encoded(msgspec.structs.replace(card, event_time_ms=now_ms)) for card in cards]
    sender = Sender(settings)
    for done, (card, value) in enumerate(zip(cards, values, strict=True), 1):
        sender.send(topic, card.skill_id, value)
        advance(done)
    sender.flush()
    return len(cards)


def remove_skills(settings: Settings, skills: Sequence[str]) -> None:
    """Writes for each skill that it is removed, and waits for the acknowledgements.

    Raises BadData, and removes none, where one is neither on the topic nor in the release that serves; BrokerError
    where the topic is missing.
    """
    topic = topic_name(settings, SKILLS)
    partitions_of(settings, topic)
    there: dict[bytes, bool] = {}
    for message in read_all(settings, topic):
        there[message.key() or b""] = message.value() is not None
    others = [skill for skill in skills if not there.get(skill.encode())]
    served = _served(settings) if others else frozenset()
    for skill in others:
        if skill.encode() in there:
            raise BadData(f"skill {skill!r} has been removed already: see its key on topic {topic}")
        if skill not in served:
            raise BadData(f"skill {skill!r} is neither on topic {topic} nor in the release that serves")
    sender = Sender(settings)
    for skill in skills:
        sender.send(topic, skill, None)
    sender.flush()


def _served(settings: Settings) -> frozenset[str]:
    """The skills of the release that serves. Raises BadBundle where its bundle cannot be read from here."""
    from model.bundle import read_catalogue  # here, as it brings the networks

    release = current_release(settings)
    return frozenset(read_catalogue(Path(release.bundle)).ids()) - {""} if release else frozenset()


def _encoded(card: SkillCard) -> bytes:
    try:
        return encode(card)
    except BadEvent as error:
        raise BadData(f"the card of {card.skill_id!r} cannot be sent: {error}") from error
