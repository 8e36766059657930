"""The aggregator on a real broker: what it writes equals a plain fold, whatever happens to the process."""

import asyncio
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import NewTopic
from prometheus_client import CollectorRegistry

from model.statistics import Statistics, merge_all
from tests.conftest import Broker, WaitUntil
from tests.workers.aggregating import PATIENCE_S, Feeder, Running, decision, outcome, settled, traffic_on
from topics import codec
from topics.errors import BrokerError, WorkerError
from topics.events import DeadLetter, Decision, Outcome, StatisticsFold
from topics.kafka import admin_client, producer, read_all
from topics.registry import DEAD_LETTERS, DECISIONS, OUTCOMES, STATISTICS, Topic, create_topics, topic_name
from topics.settings import Settings
from workers import aggregator, aggregator_process
from workers.aggregator import Aggregator, AggregatorOptions, Write
from workers.aggregator_process import run_aggregator
from workers.fold_store import FoldWriter, latest_folds, read_statistics
from workers.folding import fold_records
from workers.metrics import AggregatorMetrics
from workers.restoring import read_records


@pytest.fixture
def settings(broker: Broker, topic_prefix: str) -> Settings:
    found = Settings(bootstrap=broker.bootstrap, prefix=topic_prefix)
    create_topics(found, partitions=3, replication=1)
    return found


Start = Callable[..., Running]


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Iterator[Start]:
    """Starts aggregators, and ends them with the test."""
    running: list[Running] = []

    def begin(*options: str) -> Running:
        running.append(Running(settings, tmp_path / "aggregator.log", *options))
        return running[-1]

    yield begin
    for one in running:
        one.end(signal.SIGKILL)


def plain_fold(settings: Settings) -> Statistics:
    """The obvious way, apart from the product's: two dictionaries and one pass; the first of each counts."""
    decisions: dict[tuple[str, str], Decision] = {}
    whole = Statistics()
    for message in read_all(settled(settings, DECISIONS), topic_name(settings, DECISIONS)):
        event = codec.decode(message.value(), Decision)
        whole.fold(event)
        decisions.setdefault((event.customer_id, event.utterance_id), event)
    seen = set()
    for message in read_all(settings, topic_name(settings, OUTCOMES)):
        answer = codec.decode(message.value(), Outcome)
        key = answer.customer_id, answer.utterance_id
        if key in decisions and key not in seen:
            whole.fold(decisions[key], answer)
        seen.add(key)
    return whole


def cells(settings: Settings) -> dict[tuple[str, int], Statistics]:
    """What stands on the statistics topic, by bucket and partition."""
    return {(fold.bucket, fold.partition): Statistics.from_fold(fold) for fold in latest_folds(settings)}


def folded_plainly(settings: Settings) -> dict[tuple[str, int], Statistics]:
    """Both topics from their beginning, by nobody's leave, in one process without a past."""
    sources = (settled(settings, DECISIONS), DECISIONS), (settings, OUTCOMES)
    return fold_records(record for where, topic in sources for record in read_records(where, topic))


def letters(settings: Settings) -> list[DeadLetter]:
    name = topic_name(settings, DEAD_LETTERS)
    return [codec.decode(found.value(), DeadLetter) for found in read_all(settled(settings, DEAD_LETTERS), name)]


def test_killed_in_the_middle_it_counts_as_if_nothing_had_happened(
    settings: Settings, start: Start, wait_until: WaitUntil
) -> None:
    """While traffic runs, a second one joins, the first is killed, the second asked to end; a third catches up."""
    first = start()
    with traffic_on(settings) as sent:
        wait_until(lambda: first.folded() >= 200, PATIENCE_S, "the first one folds")
        second = start()
        wait_until(lambda: second.folded() >= 100, PATIENCE_S, "the second one has taken a share")
        first.end(signal.SIGKILL)
        wait_until(lambda: len({one.partition for one in second.lines}) == 3, PATIENCE_S, "the second one has all")
        assert second.end(signal.SIGTERM) == 0
    assert start("--until-idle", "3").wait() == 0
    known = read_statistics(settled(settings, STATISTICS))
    assert (known.statistics.decisions, known.statistics.outcomes) == (sent[0], sent[0])
    assert known.statistics == plain_fold(settings)
    assert cells(settings) == folded_plainly(settings)
    ends = Counter(m.partition() for m in read_all(settings, topic_name(settings, OUTCOMES)))
    assert {p: n for (topic, p), n in known.offsets.items() if topic == "outcomes"} == ends
    assert letters(settings) == []


def test_under_the_same_name_it_goes_on_where_it_was_killed(
    settings: Settings, start: Start, wait_until: WaitUntil
) -> None:
    feeder, named = Feeder(settings), ("--instance", "one")
    feeder.decide([decision(i) for i in range(60)])
    feeder.answer([outcome(i) for i in range(50)])
    first = start(*named)
    wait_until(lambda: first.folded() == 110, PATIENCE_S, "the first one has folded all")
    first.end(signal.SIGKILL)
    feeder.answer([outcome(i) for i in range(40, 60)])
    second = start(*named)
    wait_until(lambda: second.folded() == 20, PATIENCE_S, "the second one has gone on")
    assert second.end() == 0
    assert cells(settings) == folded_plainly(settings)


def test_what_it_writes_stands_in_the_partition_and_under_the_key_of_its_source(
    settings: Settings, start: Start
) -> None:
    feeder = Feeder(settings)
    feeder.decide([decision(i) for i in range(0, 1500, 10)])
    feeder.decide([decision(i) for i in range(2000, 2100)], commit=False)
    assert start("--until-idle", "2", "--bucket-minutes", "15").wait() == 0
    found = Statistics()
    for message in read_all(settled(settings, STATISTICS), topic_name(settings, STATISTICS)):
        fold = codec.decode(message.value(), StatisticsFold)
        assert message.key() == f"{fold.bucket}/{fold.partition}".encode()
        assert message.partition() == fold.partition
        assert fold.bucket[-2:] in ("00", "15", "30", "45")
        found = merge_all([found, Statistics.from_fold(fold)])
    assert found == plain_fold(settings)
    assert found.decisions == 150  # the aborted hundred are nobody's decisions


def test_malformed_events_become_dead_letters_with_reason_and_place(settings: Settings, start: Start) -> None:
    feeder = Feeder(settings)
    bad = [b"{", b"[]", b'{"schema":9}', b'{"schema":1}', b"", None, b'{"schema":1,"schema":1}']
    for topic in (DECISIONS, OUTCOMES):
        for value in bad:
            feeder.send(topic_name(settings, topic), "c-1", value)
    feeder.decide([decision(1)])
    feeder.answer([outcome(1)])
    one = start("--until-idle", "2")
    assert one.wait() == 0
    assert sum(line.dead_letters for line in one.lines) == 2 * len(bad)
    found = letters(settings)
    for topic in (DECISIONS, OUTCOMES):
        mine = [letter for letter in found if letter.topic == topic_name(settings, topic)]
        assert [letter.source_value for letter in mine] == bad
        assert [letter.offset for letter in mine] == list(range(len(bad)))
        reasons = ["not_json", "not_an_object", "unknown_schema", "invalid", "empty_value", "null_value"]
        assert [letter.reason for letter in mine] == [*reasons, "duplicate_key"]
    assert read_statistics(settled(settings, STATISTICS)).statistics.outcomes == 1


def test_an_outcome_nobody_asked_for_becomes_a_dead_letter_once_decisions_are_past_its_window(
    settings: Settings, start: Start, wait_until: WaitUntil
) -> None:
    name, now_ms = topic_name(settings, OUTCOMES), int(time.time() * 1000)
    client = producer(settings)
    client.produce(name, codec.encode(outcome(1)), "c-1", timestamp=now_ms - 7_200_000)
    client.flush()
    Feeder(settings).decide([decision(51)])  # the same customer, two hours later by the records' time
    one = start()
    wait_until(lambda: any(line.dead_letters for line in one.lines), PATIENCE_S, "the dead letter is written")
    assert one.end() == 0
    assert [letter.reason for letter in letters(settings)] == ["unknown_utterance"]


def test_devices_that_tell_twice_late_early_or_of_nothing_are_folded_once_or_told_why_not(
    settings: Settings, start: Start
) -> None:
    now_ms, hour_ms = int(time.time() * 1000), 3_600_000
    twice, early, late, unknown, last = (n * 50 + 1 for n in range(5))  # of one customer
    told: list[tuple[Topic, Decision | Outcome, int]] = [
        (OUTCOMES, outcome(unknown), now_ms - 3 * hour_ms),
        (DECISIONS, decision(late), now_ms - 3 * hour_ms),
        (OUTCOMES, outcome(early), now_ms - 1_000),  # and its decision only comes after it
        (OUTCOMES, outcome(twice), now_ms),
        (DECISIONS, decision(twice), now_ms),
        (OUTCOMES, outcome(twice), now_ms),
        (OUTCOMES, outcome(late), now_ms),
        (DECISIONS, decision(early), now_ms),
        (DECISIONS, decision(last), now_ms),
    ]
    client = producer(settings)
    for topic, event, at_ms in told:
        client.produce(topic_name(settings, topic), codec.encode(event), "c-1", timestamp=at_ms)
        client.flush()
    one = start("--until-idle", "2")
    assert one.wait() == 0
    found = Statistics().fold(decision(early), outcome(early)).fold(decision(twice), outcome(twice))
    for each in (twice, early, late, last):
        found.fold(decision(each))
    assert read_statistics(settled(settings, STATISTICS)).statistics == found
    assert sum(line.folded["duplicate"] for line in one.lines) == 1
    dead = {codec.decode(letter.source_value, Outcome).utterance_id: letter.reason for letter in letters(settings)}
    assert dead == {f"u-{late}": "unknown_utterance", f"u-{unknown}": "unknown_utterance"}


def test_an_owner_that_was_replaced_is_fenced_and_ends_with_an_error(
    settings: Settings, start: Start, wait_until: WaitUntil
) -> None:
    feeder = Feeder(settings)
    feeder.decide([decision(1)])
    feeder.answer([outcome(1)])  # else decisions soon wait half a minute for outcomes to come
    one = start()
    wait_until(lambda: one.folded() == 2, PATIENCE_S, "the first decision and its outcome are folded")
    FoldWriter(settings, AggregatorOptions().group, one.lines[0].partition)
    feeder.decide([decision(1)])
    assert one.wait() == 1
    last = one.log.read_text().strip().splitlines()[-1]
    assert last.startswith(f"Error: folds of partition {one.lines[0].partition} cannot be written")
    assert read_statistics(settled(settings, STATISTICS)).statistics.decisions == 1


def test_an_agent_that_dies_ends_the_run_with_an_error(settings: Settings) -> None:
    def fail(_write: Write) -> None:
        raise RuntimeError("on purpose")

    Feeder(settings).decide([decision(1)])
    options = AggregatorOptions(metrics_port=0, write_every_events=1)
    with pytest.raises(WorkerError, match="the aggregating agent died of RuntimeError: on purpose"):
        run_aggregator(settings, options, threading.Event(), fail)


def test_a_dead_consumer_thread_ends_the_run_with_an_error(settings: Settings) -> None:
    async def run() -> None:
        metrics = AggregatorMetrics(CollectorRegistry())
        written: list[Write] = []
        worker = Aggregator(settings, AggregatorOptions(write_every_s=0), metrics, written.append)
        going = asyncio.create_task(worker.run(threading.Event()))
        while not written:
            await asyncio.sleep(0.05)
        consumer: Any = worker.app.consumer
        await consumer._thread.stop()
        await asyncio.wait_for(going, 30)

    Feeder(settings).decide([decision(1)])
    with pytest.raises(WorkerError, match="consumer"):
        asyncio.run(run())


def test_freed_memory_goes_back_again_and_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, given_back = threading.Event(), []

    def give_back() -> None:
        given_back.append(True)
        if len(given_back) == 3:
            stop.set()

    monkeypatch.setattr(aggregator, "give_back", give_back)
    monkeypatch.setattr(aggregator, "TRIM_TICKS", 2)
    run_aggregator(settings, AggregatorOptions(metrics_port=0), stop, lambda _write: None)
    assert len(given_back) == 3


def test_topics_that_do_not_match_are_refused_at_the_start(broker: Broker, topic_prefix: str) -> None:
    settings = Settings(bootstrap=broker.bootstrap, prefix=topic_prefix)

    admin = admin_client(settings)
    for future in admin.create_topics([NewTopic(topic_name(settings, OUTCOMES), 2, 1)]).values():
        future.result()
    create_topics(settings, partitions=3, replication=1)
    with pytest.raises(WorkerError, match=r"must have equally many partitions, but have: .*outcomes 2"):
        run_aggregator(settings, AggregatorOptions(metrics_port=0), threading.Event(), lambda _: None)


def test_a_broker_that_goes_away_between_the_checks_and_the_start_is_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for check in ("check_partitions", "check_group"):
        monkeypatch.setattr(aggregator_process, check, lambda *_: None)
    with pytest.raises(BrokerError, match=r"gave up on 127\.0\.0\.1:1: .*start the aggregator again"):
        run_aggregator(
            Settings(bootstrap="127.0.0.1:1"), AggregatorOptions(metrics_port=0), threading.Event(), lambda _: None
        )
    assert "Traceback" not in caplog.text
