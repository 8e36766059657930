"""A router's double: reads utterances, answers by a function, writes transactions as the real one does."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from topics.codec import decode, encode
from topics.events import Action, Candidate, Decision, Utterance
from topics.kafka import consumer, partitions_of, producer
from topics.registry import DECISIONS, UTTERANCES, topic_name
from topics.settings import Settings

Choose = Callable[[Utterance], tuple[Action, Sequence[str]]]


@contextmanager
def answering(settings: Settings, choose: Choose, copies: int = 1, release: str = "double") -> Iterator[None]:
    """Decides every utterance of the topic, `copies` times over, for as long as the block lasts."""
    stop, errors = threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            _answer(settings, choose, copies, release, stop)
        except BaseException as error:  # noqa: BLE001 raised again in the test's own thread
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
        for error in errors:
            raise error


def decision(utterance: Utterance, action: Action, skills: Sequence[str], release: str = "double") -> Decision:
    """The decision of an utterance: the first of `skills` is launched or suggested, all are candidates."""
    return Decision(
        event_time_ms=time.time_ns() // 1_000_000,
        utterance_id=utterance.utterance_id,
        customer_id=utterance.customer_id,
        action=action,
        skill_id=skills[0] if skills and action in (Action.LAUNCH, Action.ENABLE) else None,
        candidates=tuple(Candidate(skill_id=skill, score=1.0, probability=0.5) for skill in skills),
        linked=utterance.linked or (),
        release=release,
    )


def _answer(settings: Settings, choose: Choose, copies: int, release: str, stop: threading.Event) -> None:
    topic = topic_name(settings, UTTERANCES)
    reader = consumer(settings, f"{settings.prefix}answering")
    reader.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions_of(settings, topic)])
    writer = producer(settings, f"{settings.prefix}answering")
    writer.init_transactions()
    try:
        while not stop.is_set():
            if messages := reader.consume(1_000, timeout=0.05):
                writer.begin_transaction()
                for message in messages:
                    utterance = decode(message.value(), Utterance)
                    value = encode(decision(utterance, *choose(utterance), release))
                    for _ in range(copies):
                        writer.produce(topic_name(settings, DECISIONS), value, message.key())
                writer.commit_transaction()
    finally:
        reader.close()
