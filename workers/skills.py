"""The compacted `skills` topic, held in memory, and brought into whatever selectors decide.

The topic is read to its end before a first release is loaded, and followed from then on: between two batches the
cards that have arrived join the catalogue, change it, or leave it. A skill of a release that the topic does not
name stays as it was shipped, so a topic without any card changes nothing.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from confluent_kafka import OFFSET_BEGINNING, KafkaError, Message, TopicPartition

from topics.codec import Source, check_key, decode
from topics.errors import BadEvent, WorkerError
from topics.events import SkillCard
from topics.kafka import ends_reading, partitions_of, read_all, reader, said
from topics.registry import SKILLS, topic_name
from topics.settings import Settings
from workers.deciding import Selecting
from workers.metrics import RouterMetrics
from workers.serving import Loader
from workers.source import place_of

log = logging.getLogger("namefree.skills")

RESTORE_BUDGET_S = 60.0  # 50,000 cards take some seconds; nothing is decided meanwhile
READ = 1_000  # messages a read
AT_ONCE = 16  # cards joined together: the tables grow once for all of them
TURN_S = 0.2  # of a turn of the loop for cards: thousands that arrive at once must not hold requests back

Cards = Mapping[str, SkillCard | None]  # by skill_id, the newest; None: the skill has been removed


@dataclass(frozen=True)
class _Behind:
    """A selector, and what of the topic it has not taken yet."""

    selector: Selecting
    waiting: dict[str, SkillCard | None]


class SkillsFollower:
    """What the topic says now, and what of it the selectors that decide have not taken yet."""

    def __init__(self, settings: Settings, metrics: RouterMetrics, stop: threading.Event) -> None:
        """Reads the topic to its end, or until `stop`. Raises WorkerError where that outlasts its budget."""
        self._topic = topic_name(settings, SKILLS)
        self._metrics = metrics
        self._cards: dict[str, SkillCard | None] = {}
        self._behind: list[_Behind] = []
        self._reader = reader(settings, **{"enable.partition.eof": True})
        partitions = partitions_of(settings, self._topic)
        self._reader.assign([TopicPartition(self._topic, p, OFFSET_BEGINNING) for p in partitions])
        self._restore(set(partitions), stop)

    def loading(self, load: Loader) -> Loader:
        """`load`, and then the selector takes all that the topic says, before it serves."""

        def load_and_take(bundle: Path) -> Selecting:
            selector = load(bundle)
            self._take(selector, dict(self._cards))  # a copy: this may be another thread than the reader's
            return selector

        return load_and_take

    def update(self, selectors: Sequence[Selecting]) -> None:
        """Reads on, and brings the selectors up to date, for about TURN_S, the first one first; what is left comes
        with the next turn."""
        while messages := self._reader.consume(READ, 0):
            self._apply(messages)
        self._behind = [self._behind_of(selector) for selector in selectors]
        ends_s = time.monotonic() + TURN_S
        for behind in self._behind:
            while behind.waiting and time.monotonic() < ends_s:
                some = list(islice(behind.waiting, AT_ONCE))
                self._take(behind.selector, {skill: behind.waiting.pop(skill) for skill in some})
        if selectors:
            self._metrics.skills.set(selectors[0].skills)

    def _behind_of(self, selector: Selecting) -> _Behind:
        known = next((behind for behind in self._behind if behind.selector is selector), None)
        return known or _Behind(selector, dict(self._cards))

    def close(self) -> None:
        self._reader.close()

    def _restore(self, left: set[int], stop: threading.Event) -> None:
        start_s = time.monotonic()
        while left and not stop.is_set():
            left -= self._apply(self._reader.consume(READ, 0.05))
            if time.monotonic() - start_s > RESTORE_BUDGET_S:
                raise WorkerError(f"cards of {self._topic} were not read within {RESTORE_BUDGET_S:.0f} s")
        log.info("%d skills on %s", sum(card is not None for card in self._cards.values()), self._topic)

    def _apply(self, messages: list[Message]) -> set[int]:
        """Keeps the newest of each skill and returns the partitions whose end was reached."""
        ended = set()
        for message in messages:
            error = message.error()
            if error is None:
                self._keep(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(place_of(message)[0])
            elif ends_reading(error):
                raise WorkerError(f"topic {self._topic} cannot be read: {said(error)}")
            else:
                log.warning("reading %s: %s", self._topic, error.str())
        return ended

    def _keep(self, message: Message) -> None:
        """A malformed card is passed over, so that the one before stays in force."""
        self._metrics.consumed.labels(SKILLS.name).inc()
        try:
            skill, card = read_card(message)
        except BadEvent as error:
            self._metrics.bad_cards.inc()
            log.warning("passed over: %s", error)
            return
        self._cards[skill] = card
        for behind in self._behind:
            behind.waiting[skill] = card

    def _take(self, selector: Selecting, cards: Cards) -> None:
        """Brings the cards into the selector; one that it cannot take is passed over, and the others are taken."""
        start_s = time.perf_counter()
        try:
            changed = bring_up_to_date(selector, cards)
        except Exception:  # whatever a model raises, one card must not end the worker
            log.exception("%d cards could not be taken together: taking one by one", len(cards))
            changed = sum(self._take_alone(selector, skill, card) for skill, card in cards.items())
        if changed:
            elapsed_s = time.perf_counter() - start_s
            self._metrics.onboarding_s.observe(elapsed_s)
            log.info("%d skills joined, changed or left in %.3f s, now %d", changed, elapsed_s, selector.skills)

    def _take_alone(self, selector: Selecting, skill: str, card: SkillCard | None) -> int:
        try:
            return bring_up_to_date(selector, {skill: card})
        except Exception:
            self._metrics.bad_cards.inc()
            log.exception("passed over: the card of %r on %s cannot be taken", skill, self._topic)
            return 0


def read_card(message: Message) -> tuple[str, SkillCard | None]:
    """The skill of a message of the topic, and its card; None where it is removed. Raises BadEvent."""
    source = Source(message.topic() or "", *place_of(message))
    key, value = message.key(), message.value()
    if value is None:
        return _removed(key, source), None
    card = decode(value, SkillCard, source)
    check_key(key, card.skill_id, source)
    return card.skill_id, card


def _removed(key: bytes | None, source: Source) -> str:
    try:
        skill = (key or b"").decode()
    except UnicodeDecodeError as error:
        raise BadEvent(f"the key of {source} is no UTF-8, and its value is null", "wrong_key") from error
    if not skill:
        raise BadEvent(f"the value of {source} is null, and no key says which skill is removed", "null_value")
    return skill


def cards_on_topic(settings: Settings) -> Cards:
    """What the topic says of each skill now; malformed cards are passed over. Raises BrokerError."""
    found: dict[str, SkillCard | None] = {}
    for message in read_all(settings, topic_name(settings, SKILLS)):
        try:
            skill, card = read_card(message)
        except BadEvent as error:
            log.warning("passed over: %s", error)
        else:
            found[skill] = card
    return found


def bring_up_to_date(selector: Selecting, cards: Cards) -> int:
    """Has the selector choose among what the topic says; returns how many skills joined, changed or left."""
    return selector.take(
        [card for card in cards.values() if card is not None],
        [skill for skill, card in cards.items() if card is None],
    )
