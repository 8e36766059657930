"""Malformed events of every kind, and what has to become of them.

Utterances and outcomes that cannot be read end up among the dead letters, each place once. Links, folds, cards and
releases are passed over. Sent back as they were, rubbish is rubbish again, at another place.
"""

import random
import threading
from collections import Counter

from confluent_kafka import Message

from tests.workers.aggregating import settled
from topics.codec import decode
from topics.events import DeadLetter
from topics.kafka import read_all
from topics.registry import DEAD_LETTERS, LINKS, OUTCOMES, RELEASES, SKILLS, STATISTICS, UTTERANCES, topic_name
from topics.settings import Settings
from workers.redrive import markers
from workers.sender import Sender
from workers.source import place_of

TOLD = (UTTERANCES, OUTCOMES)
PASSED_OVER = (LINKS, STATISTICS, SKILLS, RELEASES)
EACH = 20  # of each topic, a time
MARK = b"rubbish-"  # in every such value

Place = tuple[str, int, int]


class Rubbish:
    """Sends it, and knows what it sent."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self._settings = settings
        self._draw = random.Random(f"rubbish {seed}")
        self._sender: Sender | None = None
        self._lock = threading.Lock()
        self.sent: Counter[bytes] = Counter()  # values of TOLD

    def send(self) -> None:
        """Some for each topic. Raises BrokerError."""
        with self._lock:
            sender = self._sender = self._sender or Sender(self._settings)
            for topic in (*TOLD, *PASSED_OVER):
                for _ in range(EACH):
                    value = self._value()
                    sender.send(topic_name(self._settings, topic), f"c-{self._draw.randrange(997)}", value)
                    if topic in TOLD:
                        self.sent[value] += 1
            sender.flush()

    def _value(self) -> bytes:
        """Bytes that are no event of any topic, and no two alike."""
        mark = MARK + b"%016x" % self._draw.getrandbits(64)
        return self._draw.choice(
            (
                self._draw.randbytes(self._draw.randint(1, 300)) + mark,
                b'{"' + mark,
                b'{"schema": 9, "event_time_ms": 1, "utterance_id": "' + mark + b'"}',
                b'{"schema": 1, "event_time_ms": 1, "utterance_id": "' + mark + b'"}',
                b'{"schema": 1, "event_time_ms": -1, "utterance_id": "u-1", "customer_id": "' + mark + b'"}',
                b"[" * 2_000 + mark,
                mark * 200,
            )
        )

    def letters(self) -> list[DeadLetter]:
        """All dead letters that a read-committed reader sees. Raises BrokerError."""
        name = topic_name(self._settings, DEAD_LETTERS)
        return [decode(message.value(), DeadLetter) for message in read_all(self._settings, name)]

    def due(self) -> int:
        """How many dead letters all makes that was sent, or sent back, until now. Raises BrokerError."""
        return self.sent.total() + len(markers(self._settings))

    def wrong(self) -> dict[str, int]:
        """What is wrong with the letters and with what was sent back, by name."""
        settled(self._settings, DEAD_LETTERS, UTTERANCES, OUTCOMES)
        letters = Counter((one.topic, one.partition, one.offset) for one in self.letters())
        found = [place for topic in TOLD for place in self._places(topic_name(self._settings, topic))]
        copies = Counter(value for _place, value in found)
        places = {place for place, _value in found}
        return {
            "rubbish without a dead letter": len(places - letters.keys()),
            "dead letters for what was no rubbish": len(letters.keys() - places),
            "dead letters told twice": (letters - Counter(letters.keys())).total(),
            "rubbish that is not on its topic": (self.sent - copies).total(),
            "dead letters sent back more or less than once": abs(
                (copies - self.sent).total() - len(markers(self._settings))
            ),
        }

    def _places(self, name: str) -> list[tuple[Place, bytes]]:
        return [
            ((name, *place_of(message)), message.value() or b"")
            for message in read_all(self._settings, name)
            if is_rubbish(message)
        ]


def is_rubbish(message: Message) -> bool:
    return MARK in (message.value() or b"")
