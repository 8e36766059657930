"""Simulated customers at work: they ask rows of a data folder, look at the decisions, and act on them.

Nobody is real here: who the customers are stands in `workers.crowd`, how they act in `workers.behaviour`.
"""

import logging
import time
from collections.abc import Callable, Sequence

from confluent_kafka import Message, TopicPartition

from model.data import Row
from topics.codec import encode
from topics.errors import BrokerError, WorkerError
from topics.events import Link, Links, Outcome
from topics.kafka import ends_reading, partitions_of, reader, said, watermarks
from topics.registry import DECISIONS, LINKS, OUTCOMES, UTTERANCES, topic_name
from topics.settings import Settings
from workers.console import Advance
from workers.crowd import CHUNK, Crowd, Plan, Summary
from workers.joins import DecisionHead, read_head
from workers.sender import Sender

log = logging.getLogger("namefree.customers")
LOOK_S = 0.02  # how long to wait for decisions where there is nothing to ask
PROGRESS_S = 0.2


def simulate(
    settings: Settings,
    rows: Sequence[Row],
    plan: Plan,
    advance: Advance = lambda done, note="": None,
    stopped: Callable[[], bool] = lambda: False,
) -> Summary:
    """Asks, looks and acts until every asked utterance has its decision; `advance` is told of `steps(...)`.

    Where `stopped()` turns true no more is asked, and what was asked is seen through.
    Raises WorkerError where decisions stay away for `patience_s`, BrokerError where the broker does.
    """
    return simulate_crowd(settings, Crowd(rows, plan), advance, stopped)


def simulate_crowd(
    settings: Settings,
    crowd: Crowd,
    advance: Advance = lambda done, note="": None,
    stopped: Callable[[], bool] = lambda: False,
) -> Summary:
    """As `simulate`, with a crowd of which what it met can be looked at afterwards."""
    plan = crowd.plan
    for topic in (UTTERANCES, LINKS, OUTCOMES, DECISIONS):
        partitions_of(settings, topic_name(settings, topic))
    sender = Sender(settings)
    if not plan.inline_links:
        _introduce(settings, crowd, sender)
    if not plan.wait:
        _ask_all(settings, crowd, sender, advance, stopped)
        return crowd.summary()
    ears = Ears(settings)
    try:
        _ask_and_act(settings, crowd, sender, ears, advance, stopped)
    finally:
        ears.close()
    return crowd.summary()


def _introduce(settings: Settings, crowd: Crowd, sender: Sender) -> None:
    """Publishes every customer's links and waits until they are there: only then the first one asks."""
    now_ms = time.time_ns() // 1_000_000
    topic = topic_name(settings, LINKS)
    for index in sorted({crowd.customer_of[row] for row in crowd.asked_rows()}):
        linked = tuple(Link(skill_id) for skill_id in crowd.rows[index].linked or ())
        customer_id = crowd.customer_id(index)
        if linked:
            links = Links(event_time_ms=now_ms, customer_id=customer_id, linked=linked)
            sender.send(topic, customer_id, encode(links))
    sender.flush()


class Ears:
    """Reads the decisions that come after its making; in no group, and it commits nothing."""

    def __init__(self, settings: Settings) -> None:
        self._topic = topic_name(settings, DECISIONS)
        self._reader = reader(settings)
        self._read_to = self._ends(partitions_of(settings, self._topic))
        self._reader.assign([TopicPartition(self._topic, *place) for place in self._read_to.items()])

    def hear(self, wait_s: float) -> list[DecisionHead]:
        """What was decided, waiting up to `wait_s`. Raises BrokerError where the topic may not be read."""
        messages = [message for message in self._reader.consume(2 * CHUNK, timeout=wait_s) if _sound(message)]
        return [head for message in messages if (head := read_head(message)) is not None]

    def hear_out(self) -> list[DecisionHead]:
        """All up to where the topic ends now."""
        ends = self._ends(list(self._read_to))
        heads: list[DecisionHead] = []
        while any(self._position(partition) < end for partition, end in ends.items()):
            heads += self.hear(LOOK_S)
        return heads

    def close(self) -> None:
        self._reader.close()

    def _ends(self, partitions: list[int]) -> dict[int, int]:
        return {p: watermarks(self._reader, self._topic, p)[1] for p in partitions}

    def _position(self, partition: int) -> int:
        """The next offset to read; before the first message the client knows none, but we do."""
        found = self._reader.position([TopicPartition(self._topic, partition)])[0].offset
        return max(found or 0, self._read_to[partition])


def _sound(message: Message) -> bool:
    """Whether it is a message; a passing error (a broker restarts) is logged, a lasting one raised."""
    error = message.error()
    if error is None:
        return True
    if ends_reading(error):
        raise BrokerError(f"the decisions cannot be read: {said(error)}")
    log.warning("reading the decisions: %s", error.str())
    return False


def _ask(settings: Settings, crowd: Crowd, sender: Sender, count: int) -> None:
    topic = topic_name(settings, UTTERANCES)
    for _ in range(count):
        utterance = crowd.next_utterance()
        sender.send(topic, utterance.customer_id, encode(utterance))
        if early := crowd.told_early(utterance):
            _tell(settings, sender, [early])


def _ask_all(
    settings: Settings, crowd: Crowd, sender: Sender, advance: Advance, stopped: Callable[[], bool]
) -> None:
    """Asks without looking at what is decided."""
    crowd.began_s = time.monotonic()
    while not (stopped() or crowd.finished_asking()):
        due = crowd.due()
        _ask(settings, crowd, sender, due)
        if not due:
            sender.poll(LOOK_S)
        crowd.last_s = time.monotonic()
        crowd.progress(advance)
    sender.flush()


def _ask_and_act(
    settings: Settings,
    crowd: Crowd,
    sender: Sender,
    ears: Ears,
    advance: Advance,
    stopped: Callable[[], bool],
) -> None:
    """Asks what is due, looks, acts; until all is asked and decided."""
    told_s = crowd.began_s = crowd.last_s = time.monotonic()
    while True:
        over = stopped() or crowd.finished_asking()
        due = 0 if over else crowd.due()
        _ask(settings, crowd, sender, due)
        _act(settings, crowd, sender, ears.hear(0.0 if due else LOOK_S))
        if crowd.decided < crowd.asked and time.monotonic() - told_s > PROGRESS_S:
            told_s = time.monotonic()
            crowd.progress(advance)
        if over and crowd.decided == crowd.asked and not crowd.is_telling():
            break
        _lose_patience(crowd)
    _act(settings, crowd, sender, ears.hear_out())  # a second decision of an utterance would stand there
    sender.flush()
    crowd.progress(advance)


def _act(settings: Settings, crowd: Crowd, sender: Sender, heads: list[DecisionHead]) -> None:
    for head in heads:
        _tell(settings, sender, crowd.hear(head))
    _tell(settings, sender, crowd.told_late())
    sender.poll()


def _tell(settings: Settings, sender: Sender, outcomes: Sequence[Outcome]) -> None:
    topic = topic_name(settings, OUTCOMES)
    for outcome in outcomes:
        sender.send(topic, outcome.customer_id, encode(outcome))


def _lose_patience(crowd: Crowd) -> None:
    waiting = crowd.asked - crowd.decided
    if waiting and time.monotonic() - crowd.quiet_since_s > crowd.plan.patience_s:
        raise WorkerError(
            f"{waiting:,} of {crowd.asked:,} utterances have no decision, and none came for "
            f"{crowd.plan.patience_s:.0f} s: is a router running (namefree route)?"
        )
