"""Months of events through an aggregator on a real broker: few folds are left, whatever happens to the process."""

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka.admin import NewTopic
from msgspec.structs import replace

from tests.conftest import Broker
from tests.workers.aggregating import Running, decision, outcome, settled
from tests.workers.test_aggregator import cells, folded_plainly
from topics import codec
from topics.kafka import admin_client, producer, read_all
from topics.registry import DECISIONS, OUTCOMES, STATISTICS, create_topics, topic_name
from topics.settings import Settings
from workers.aggregator import AggregatorOptions
from workers.aggregator_process import run_aggregator
from workers.buckets import is_rolled_up
from workers.failpoints import VARIABLE
from workers.fold_store import known_from, newest_of
from workers.source import place_of

DAY_MS = 86_400_000
STEP_MS = DAY_MS // 4
NAMED = "one"


@pytest.fixture
def settings(broker: Broker, topic_prefix: str) -> Settings:
    found = Settings(bootstrap=broker.bootstrap, prefix=topic_prefix)
    kept = [
        NewTopic(topic_name(found, topic), 1, 1, config={"retention.ms": "-1"}) for topic in (DECISIONS, OUTCOMES)
    ]
    admin = admin_client(found)
    for made in admin.create_topics(kept).values():
        made.result()
    create_topics(found, partitions=1, replication=1)
    return found


@pytest.fixture
def feed(settings: Settings) -> Callable[[int, int], None]:
    """Sends what was decided and answered on some days of the last hundred, each with the record time of then."""
    client, begin_ms = producer(settings), int(time.time() * 1000) - 100 * DAY_MS

    def send(first_day: int, last_day: int) -> None:
        for i in range(first_day * 4, last_day * 4):
            at_ms = begin_ms + i * STEP_MS
            late_ms = 5 * DAY_MS if i % 10 == 9 else 0
            for topic, event in ((DECISIONS, decision(i)), (OUTCOMES, outcome(i))):
                value = codec.encode(replace(event, event_time_ms=at_ms - late_ms))
                client.produce(topic_name(settings, topic), value, event.customer_id, timestamp=at_ms)
        client.flush()

    return send


def aggregate(settings: Settings) -> None:
    """To the end of what is there, in the place of whoever was killed."""
    options = AggregatorOptions(instance=NAMED, metrics_port=0, until_idle_s=3.0, write_every_s=0.2)
    run_aggregator(settings, options, threading.Event(), lambda _: None)


def test_months_end_as_few_folds_that_equal_a_plain_fold_though_it_was_killed(
    settings: Settings, feed: Callable[[int, int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(0, 20)
    aggregate(settings)
    hours = {bucket for bucket, _ in cells(settings) if not is_rolled_up(bucket)}
    assert hours  # of the last days: these have to go
    kills = ((20, 45, "before_write"), (45, 70, "after_write"), (70, 98, "after_commit"))
    for first_day, last_day, point in kills:
        feed(first_day, last_day)
        monkeypatch.setenv(VARIABLE, f"aggregator.{point}=kill")
        assert Running(settings, tmp_path / "log", "--instance", NAMED).wait() == -signal.SIGKILL
    monkeypatch.delenv(VARIABLE)
    feed(98, 100)
    aggregate(settings)
    stood = cells(settled(settings, STATISTICS))
    assert stood == folded_plainly(settings)
    assert sum(counts.outcomes for counts in stood.values()) == 400
    names = {bucket for bucket, _ in stood}
    assert not names & hours
    assert len(names) < 110  # of 400, one for each decision's hour
    assert {len(name) for name in names} == {7, 10, 13}
    check_each_write(settings)


def check_each_write(settings: Settings) -> None:
    """After each write a reader finds what its offsets say: nothing rolled up is there twice or missing."""
    messages = list(read_all(settings, topic_name(settings, STATISTICS)))
    ended = [message for message in messages if message.value() is None]
    assert ended
    last_of_write = [
        at
        for at, (one, after) in enumerate(zip(messages, [*messages[1:], None], strict=True))
        if after is None or place_of(one)[1] + 1 < place_of(after)[1]  # a marker stands between transactions
    ]
    assert len(last_of_write) >= 3
    for at in last_of_write:
        known = known_from(newest_of(messages[: at + 1]), 0, None)
        assert known.statistics.decisions == known.offsets[DECISIONS.name, 0]
        assert known.statistics.outcomes <= known.offsets[OUTCOMES.name, 0]
