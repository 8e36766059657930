"""What namefree asks of any Kafka, run against whichever broker the session was given."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

Topic = Callable[..., str]
TIMEOUT_S = 30.0


@pytest.fixture
def client(broker: Any) -> dict[str, Any]:
    return {"bootstrap.servers": broker.bootstrap, "error_cb": lambda _: None, "log_level": 3}


@pytest.fixture
def topic(client: dict[str, Any], topic_prefix: str) -> Iterator[Topic]:
    """Makes topics of one partition, and removes them: the cluster may be somebody's."""
    admin = AdminClient(client)
    made: list[str] = []

    def make(name: str = "events", **config: str) -> str:
        settings = {key.replace("_", "."): value for key, value in config.items()}
        made.append(topic_prefix + name)
        admin.create_topics([NewTopic(made[-1], 1, 1, config=settings)])[made[-1]].result(TIMEOUT_S)
        return made[-1]

    yield make
    for deleted in admin.delete_topics(made).values() if made else ():
        deleted.result(TIMEOUT_S)


def transactional(client: dict[str, Any], name: str) -> Producer:
    producer = Producer({**client, "transactional.id": name})
    producer.init_transactions(TIMEOUT_S)
    return producer


def visible(client: dict[str, Any], topic: str, isolation: str = "read_committed") -> list[tuple[Any, Any]]:
    """Key and value of every message that such a reader may see now, read to the end and no further."""
    config = {
        **client,
        "group.id": f"reader-{uuid.uuid4()}",
        "isolation.level": isolation,
        "enable.auto.commit": False,
    }
    seen: list[tuple[Any, Any]] = []
    with closing(Consumer(config)) as reader:
        place = TopicPartition(topic, 0, 0)
        _, end = reader.get_watermark_offsets(place, TIMEOUT_S)
        reader.assign([place])
        # By position, not by count: the markers of transactions occupy offsets too. It is negative before
        # the first message, and stays so where an open transaction hides everything (end is 0 then).
        while max(reader.position([place])[0].offset, 0) < end:
            seen += [(message.key(), message.value()) for message in reader.consume(1000, 0.1)]
    return seen


def test_what_is_produced_is_consumed_whole_and_in_order(client: dict[str, Any], topic: Topic) -> None:
    name = topic()
    producer = Producer({**client, "enable.idempotence": True})
    sent = [(f"k{i}".encode(), f"v{i}".encode()) for i in range(1000)]
    for key, value in sent:
        producer.produce(name, value, key)
    assert producer.flush(TIMEOUT_S) == 0
    assert visible(client, name) == sent


def test_a_transaction_is_invisible_until_it_commits(
    client: dict[str, Any], topic: Topic, wait_until: Any
) -> None:
    name = topic()
    producer = transactional(client, name)
    producer.begin_transaction()
    producer.produce(name, b"decision", b"c-1")
    assert producer.flush(TIMEOUT_S) == 0
    assert visible(client, name, "read_uncommitted") == [(b"c-1", b"decision")]
    assert visible(client, name) == []
    producer.commit_transaction(TIMEOUT_S)
    wait_until(lambda: visible(client, name) == [(b"c-1", b"decision")], TIMEOUT_S, "the committed is visible")


def test_an_aborted_transaction_is_never_visible(client: dict[str, Any], topic: Topic, wait_until: Any) -> None:
    name = topic()
    producer = transactional(client, name)
    producer.begin_transaction()
    producer.produce(name, b"aborted")
    producer.flush(TIMEOUT_S)
    producer.abort_transaction(TIMEOUT_S)
    producer.begin_transaction()
    producer.produce(name, b"after")
    producer.commit_transaction(TIMEOUT_S)
    wait_until(lambda: visible(client, name), TIMEOUT_S, "the transaction after it is visible")
    assert visible(client, name) == [(None, b"after")]


def test_offsets_in_a_transaction_are_committed_with_it_and_only_with_it(
    client: dict[str, Any], topic: Topic, topic_prefix: str
) -> None:
    name = topic()
    producer = transactional(client, name)
    with closing(Consumer({**client, "group.id": f"{topic_prefix}group"})) as consumer:

        def send(offset: int) -> None:
            producer.begin_transaction()
            places = [TopicPartition(name, 0, offset)]
            producer.send_offsets_to_transaction(places, consumer.consumer_group_metadata(), TIMEOUT_S)

        def committed() -> int:
            return int(consumer.committed([TopicPartition(name, 0)], TIMEOUT_S)[0].offset)

        send(7)
        producer.abort_transaction(TIMEOUT_S)
        assert committed() == OFFSET_INVALID
        send(8)
        producer.commit_transaction(TIMEOUT_S)
        assert committed() == 8


def test_compaction_keeps_the_last_value_of_every_key(
    client: dict[str, Any], topic: Topic, wait_until: Any
) -> None:
    # Segments of 100 ms: the cleaner takes only those that are closed, and a later write closes the one before.
    name = topic(cleanup_policy="compact", segment_ms="100", min_cleanable_dirty_ratio="0.01")
    producer = Producer(client)
    for i in range(20):
        for key in (b"a", b"b"):
            producer.produce(name, str(i), key)
    assert producer.flush(TIMEOUT_S) == 0

    def compacted() -> bool:
        producer.produce(name, b"closes the segment", b"tick")
        producer.flush(TIMEOUT_S)
        return len([key for key, _ in visible(client, name) if key != b"tick"]) == 2

    wait_until(compacted, 60.0, "earlier values are gone")
    assert [pair for pair in visible(client, name) if pair[0] != b"tick"] == [(b"a", b"19"), (b"b", b"19")]


def test_a_kip_848_group_consumes_and_commits(
    client: dict[str, Any], topic: Topic, topic_prefix: str, broker: Any, wait_until: Any
) -> None:
    name = topic()
    producer = Producer(client)
    producer.produce(name, b"one")
    producer.flush(TIMEOUT_S)
    config = {"group.id": f"{topic_prefix}group", "group.protocol": "consumer", "auto.offset.reset": "earliest"}
    with closing(Consumer({**client, **config, "enable.auto.commit": False})) as consumer:
        consumer.subscribe([name])
        message = wait_until(lambda: consumer.poll(0.1), TIMEOUT_S, "a message came")
        error = message.error()
        if broker.kind != "embedded" and error and error.code() == KafkaError._UNSUPPORTED_FEATURE:
            pytest.skip("this cluster's Kafka is older than KIP-848 groups (4.0)")
        assert error is None
        assert message.value() == b"one"
        consumer.commit(message=message, asynchronous=False)
        assert consumer.committed([TopicPartition(name, 0)], TIMEOUT_S)[0].offset == 1


def test_the_younger_of_two_producers_with_one_identity_fences_the_elder(
    client: dict[str, Any], topic: Topic, wait_until: Any
) -> None:
    name = topic()
    elder = transactional(client, name)
    elder.begin_transaction()
    elder.produce(name, b"of the elder")
    elder.flush(TIMEOUT_S)
    younger = transactional(client, name)
    with pytest.raises(KafkaException) as refused:
        elder.commit_transaction(TIMEOUT_S)
    assert refused.value.args[0].fatal()
    younger.begin_transaction()
    younger.produce(name, b"of the younger")
    younger.commit_transaction(TIMEOUT_S)
    wait_until(lambda: visible(client, name), TIMEOUT_S, "the younger's message is visible")
    assert visible(client, name) == [(None, b"of the younger")]
