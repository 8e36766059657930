"""What each error of Kafka's client does to a router: brought about on the real broker, or at its client."""

import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from prometheus_client import CollectorRegistry

from tests.conftest import WaitUntil
from tests.workers.marketplace import Marketplace, RouterThread
from topics.broker import embedded_broker
from topics.errors import WorkerError
from topics.kafka import admin_client
from topics.registry import DECISIONS, UTTERANCES, create_topics, topic_name
from topics.settings import Settings
from workers import source as sources
from workers import transactions
from workers.canary import Lineup, decide_lineup
from workers.deciding import Batch
from workers.failpoints import arm
from workers.metrics import RouterMetrics
from workers.source import UtteranceSource
from workers.transactions import TransactionalSink, TransactionLost, open_sink

LARGE = 2_000_000


@pytest.fixture(autouse=True)
def _failpoints_off_again() -> Iterator[None]:
    yield
    arm("")


def assert_decided_once(market: Marketplace, router: RouterThread, count: int) -> None:
    market.until_decided(router, count)
    router.stop()
    assert router.error is None
    found = Counter(decision.utterance_id for decision in market.decisions(count))
    assert found == {f"u-{number}": 1 for number in range(count)}


@pytest.mark.parametrize("error", ["retry", "abort"])
def test_a_passing_error_of_any_call_costs_no_decision_and_makes_none_twice(
    market: Marketplace, error: str
) -> None:
    """Retriable before every call of the loop; abortable where a transaction can be lost."""
    calls = ("begin", "send_offsets_to", "commit") if error == "retry" else ("send_offsets_to", "commit")
    points = [f"router.before_{call}_transaction={error}@{at}" for at, call in enumerate(calls, 2)]
    points += ["router.before_init_transactions=retry", "router.after_begin_transaction=abort@4"]
    points += ["router.after_send_offsets_to_transaction=abort@5", "router.before_abort_transaction=" + error]
    arm(",".join(points))
    market.publish("one")
    market.ask(0, 200)
    router = market.thread(batch=10)
    assert_decided_once(market, router, 200)


def test_a_commit_whose_outcome_is_unknown_is_settled_by_the_same_call(
    market: Marketplace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gives up waiting for the broker's answer long before there is one, time and again."""
    caplog.set_level("INFO", logger="namefree")
    monkeypatch.setattr(transactions, "CALL_TIMEOUT_S", 0.001)
    monkeypatch.setattr(transactions, "PAUSE_S", 0.005)
    market.publish("one")
    market.ask(0, 200)
    router = market.thread(batch=20)
    assert_decided_once(market, router, 200)
    assert "commit_transaction again" in caplog.text


def test_an_abort_right_after_a_commit_does_not_end_the_router(market: Marketplace) -> None:
    """The coordinator still writes the commit out, and has not heard of the transaction that is dropped."""
    sink = open_sink(market.settings, "hasty")
    for number in range(20):
        committed(market, sink, f"kept-{number}")
        sink.begin()
        send(market, sink, f"dropped-{number}")
        sink.abort()


@pytest.mark.parametrize("topic", ["too-large", "unknown"])
def test_a_message_that_is_not_delivered_loses_its_transaction_and_no_other(
    market: Marketplace, topic: str
) -> None:
    quick = {"message.max.bytes": str(2 * LARGE), "topic.metadata.propagation.max.ms": "100"}
    settings = Settings(bootstrap=market.settings.bootstrap, prefix=market.settings.prefix, kafka=quick)
    sink = open_sink(settings, "undelivered")
    sink.begin()
    if topic == "unknown":
        sink.produce(f"{settings.prefix}nowhere", b"k", b"v")
    else:
        sink.produce(topic_name(settings, DECISIONS), b"k", random_bytes())
    with pytest.raises(TransactionLost):
        commit(sink)
    sink.abort()
    committed(market, sink, "after")


def committed(market: Marketplace, sink: TransactionalSink, value: str) -> None:
    """After an abort the client may have skipped a number, and loses one transaction more."""
    for _ in range(5):
        sink.begin()
        send(market, sink, value)
        try:
            commit(sink)
            return
        except TransactionLost:
            sink.abort()
    pytest.fail("no transaction passes any more")


def random_bytes() -> bytes:
    """As many as no compression makes few of."""
    return random.Random(7).randbytes(LARGE)


def send(market: Marketplace, sink: TransactionalSink, value: str) -> None:
    for number in range(50):
        sink.produce(topic_name(market.settings, DECISIONS), f"c-{number}".encode(), value.encode())


def commit(sink: TransactionalSink) -> None:
    """Of no offsets, as nobody has read any."""
    sink._call("commit_transaction", transactions.CALL_TIMEOUT_S)
    sink._aborts_in_a_row = 0


class Failing:
    """A consumer that gives what it is told to: an error as a message, or raised."""

    def __init__(self, error: KafkaError, raised: bool) -> None:
        self.error, self.raised = error, raised

    def subscribe(self, *_args: Any, **_named: Any) -> None:
        """Nothing is read."""

    def consume(self, *_args: Any) -> list[Message]:
        if self.raised:
            raise KafkaException(self.error)
        return [Message(topic="utterances", partition=0, error=self.error)]

    def close(self) -> None:
        """Nothing is held."""


PASSING = (
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._RESOLVE,
    KafkaError._MAX_POLL_EXCEEDED,
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.UNKNOWN_MEMBER_ID,
)
LASTING = (
    KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "no"),
    KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED, "no"),
    KafkaError(KafkaError._FATAL, "no", True),
    KafkaError(KafkaError.FENCED_INSTANCE_ID, "no", True),
)


def failing_source(monkeypatch: pytest.MonkeyPatch, error: KafkaError, raised: bool) -> UtteranceSource:
    monkeypatch.setattr(sources, "made", lambda *_: Failing(error, raised))
    return UtteranceSource(Settings(), "g", "classic", 10, RouterMetrics(CollectorRegistry()))


@pytest.mark.parametrize("raised", [True, False])
def test_what_the_reading_client_heals_by_itself_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, raised: bool
) -> None:
    for code in PASSING:
        caplog.clear()
        source = failing_source(monkeypatch, KafkaError(code, "passes"), raised)
        assert [source.poll(), source.poll()] == [[], []]
        assert caplog.text.count("reading utterances: passes") == 1  # a warning, and not many a second


def test_a_router_that_waits_for_its_group_says_so_and_is_not_ready(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sources, "UNTOLD_S", -1.0)
    source = failing_source(monkeypatch, KafkaError(KafkaError._TRANSPORT, "passes"), raised=False)
    source._assigned(Mock(), [])
    caplog.clear()  # that it was assigned is said, where the level lets it
    source.show_lag()
    assert source.joined
    assert not [record for record in caplog.records if record.name == "namefree.source"]
    source._lost(Mock(), [])
    assert not source.joined
    source._warn_of_what_is_late(time.monotonic())
    assert "the group has not said for" in caplog.text


@pytest.mark.parametrize("raised", [True, False])
def test_what_the_reading_client_cannot_heal_ends_the_router(
    monkeypatch: pytest.MonkeyPatch, raised: bool
) -> None:
    for error in LASTING:
        source = failing_source(monkeypatch, error, raised)
        with pytest.raises(WorkerError, match=f"topic utterances cannot be read: {error.name()}"):
            source.poll()


def test_utterances_that_the_broker_has_deleted_are_passed_over(market: Marketplace) -> None:
    """They are gone, whoever reads; the router decides what is left."""
    market.publish("one")
    market.ask(0, 50)
    router = market.thread()
    market.until_decided(router, 50)
    router.stop()
    market.ask(50, 100)
    name = topic_name(market.settings, UTTERANCES)
    admin = admin_client(market.settings)
    with closing(UtteranceSource(market.settings, "any", "classic", 10, RouterMetrics(CollectorRegistry()))):
        places = [TopicPartition(name, partition, -1) for partition in range(2)]  # -1: up to the end
        for future in admin.delete_records(places).values():
            future.result()
    market.ask(150, 50)
    market.until_decided(market.thread(), 50)
    found = {decision.utterance_id for decision in market.decisions(100)}
    assert found == {f"u-{number}" for number in (*range(50), *range(150, 200))}


def test_a_router_that_loses_its_broker_with_work_in_hand_gives_up_and_the_next_does_the_work(
    tmp_path: Path, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    with embedded_broker() as broker:
        market = Marketplace(Settings(bootstrap=broker.bootstrap), tmp_path, wait_until)
        create_topics(market.settings, partitions=2)
        market.publish("one")
        market.ask(0, 10)
        router = market.thread(batch=20)
        market.until_decided(router, 10)
        monkeypatch.setattr(transactions, "BUDGET_S", 2.0)
        monkeypatch.setattr(transactions, "CALL_TIMEOUT_S", 0.5)
        monkeypatch.setattr(transactions, "HUNG_S", 2.0)
        told = threading.Event()
        monkeypatch.setattr("workers.router.decide_lineup", _once(told, broker.kill))
        market.ask(10, 1)
        market.until(router.is_over, "the router ends")
        assert told.is_set()
        assert re.search("did not pass within 2 s|hangs", str(router.error)), router.error
        monkeypatch.undo()
        broker.restart()
        last = market.thread()
        market.until_decided(last, 1)
        last.stop()
        assert Counter(one.utterance_id for one in market.decisions(11)) == {f"u-{n}": 1 for n in range(11)}


def _once(told: threading.Event, act: Callable[[], None]) -> Callable[..., None]:
    """Decides, and then does `act`: in the middle of a batch."""

    def decide(batch: Batch, lineup: Lineup, metrics: RouterMetrics) -> None:
        decide_lineup(batch, lineup, metrics)
        act()
        told.set()

    return decide
