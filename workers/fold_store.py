"""What the aggregator keeps on the cluster: folds on the statistics topic, written by one owner a partition.

A partition's folds and dead letters are written in one transaction of the partition's own transactional id, so
all or none of them are there, and an owner that was paused and replaced is fenced instead of writing old counts
over new ones.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from confluent_kafka import KafkaException, Message, TopicPartition
from msgspec.structs import astuple, replace

from model.statistics import Statistics, merge_all, merge_weighed, weight_after
from topics.codec import decode, encode
from topics.errors import BadEvent, BrokerError, WorkerError
from topics.events import MAX_FOLD_BYTES, DeadLetter, StatisticsFold
from topics.kafka import REACH_TIMEOUT_S, consumer, partitions_of, producer, read_all
from topics.registry import DEAD_LETTERS, DECISIONS, OUTCOMES, STATISTICS, Topic, topic_name
from topics.settings import Settings
from workers.dead_letters import MAX_KEY_BYTES, MAX_MESSAGE_CHARS, MAX_VALUE_BYTES
from workers.folding import PartitionFold, end_of
from workers.records import Record, Refused
from workers.transactions import BUDGET_S, CALL_TIMEOUT_S, PAUSE_S, Verdict, verdict

log = logging.getLogger("namefree.aggregator")
SOURCES = (DECISIONS, OUTCOMES)


@dataclass(frozen=True)
class KnownStatistics:
    """All folds together, and how far they reach.

    `offsets`: (topic, partition) -> the offset after the last event that is in. The folds of a partition are
    written together, so what is named is what is there, and nothing else: a consistent cut. `now_ms`: as of when;
    `buckets`: the whole counts of each bucket of event time, by its name.
    """

    statistics: Statistics
    offsets: dict[tuple[str, int], int]
    now_ms: int = 0
    buckets: dict[str, Statistics] = field(default_factory=dict)


def read_statistics(
    settings: Settings, half_life_hours: float = 0.0, now_ms: int | None = None
) -> KnownStatistics:
    """Merges the newest folds of the statistics topic; a malformed one is left out. Raises BrokerError.

    With a half-life (0: none, and counts stay whole) a bucket counts less with the age of its end, as of `now_ms`;
    by default as of the last write, so that equal folds give equal statistics whenever they are read.
    """
    found = latest_folds(settings, partitions_of(settings, topic_name(settings, STATISTICS)))
    return known_from(sorted(found, key=lambda fold: (fold.bucket, fold.partition)), half_life_hours, now_ms)


def known_from(folds: Sequence[StatisticsFold], half_life_hours: float, now_ms: int | None) -> KnownStatistics:
    """What the folds say together; fractions come out alike only for folds in one order."""
    as_of_ms = max((fold.event_time_ms for fold in folds), default=0) if now_ms is None else now_ms
    offsets: dict[tuple[str, int], int] = {}
    parts: dict[str, list[StatisticsFold]] = {}
    for fold in folds:
        parts.setdefault(fold.bucket, []).append(fold)
        for topic, offset in fold.offsets.items():
            offsets[topic, fold.partition] = max(offset, offsets.get((topic, fold.partition), 0))
    buckets = {name: merge_all(Statistics.from_fold(fold) for fold in same) for name, same in parts.items()}
    if half_life_hours <= 0:
        return KnownStatistics(merge_all(buckets.values()), offsets, as_of_ms, buckets)
    half_life_ms = half_life_hours * 3_600_000
    ages_ms = {
        name: max(as_of_ms - max(end_of(name, fold.minutes) for fold in same), 0) for name, same in parts.items()
    }
    weighed = [(counts, weight_after(ages_ms[name] / half_life_ms)) for name, counts in buckets.items()]
    return KnownStatistics(merge_weighed(weighed), offsets, as_of_ms, buckets)


def latest_folds(settings: Settings, partitions: Iterable[int]) -> Iterable[StatisticsFold]:
    """The newest fold of each key, of the partitions named."""
    name = topic_name(settings, STATISTICS)
    ends = _ends(settings, STATISTICS, partitions)
    newest: dict[bytes, bytes] = {}
    for message in read_all(settings, name, end=ends):
        key, value = message.key() or b"", message.value()
        if value is None:
            newest.pop(key, None)
        else:
            newest[key] = value
    return [fold for key, value in newest.items() if (fold := fold_in(key, value))]


def fold_in(key: bytes, value: bytes) -> StatisticsFold | None:
    """The fold that a message of the topic carries; None, with a warning in the log, where it is malformed."""
    try:
        fold = decode(value, StatisticsFold)
        end_of(fold.bucket, fold.minutes)
        if not _is_whole(fold):
            raise BadEvent("it has fractions where counts are whole", "invalid")
    except BadEvent as error:
        log.warning("passed over the fold %r of the statistics topic: %s", key[:60], error)
        return None
    return fold


def _is_whole(fold: StatisticsFold) -> bool:
    sides = [side for both in fold.skills.values() for side in (both.linked, both.unlinked)]
    counts = (count for side in sides for count in astuple(side) if count is not side.offered)
    places = (count for side in sides for count in side.offered)
    pairs = (count for taken in fold.taken_instead.values() for count in taken.values())
    totals = (fold.decisions, fold.outcomes, fold.none_chosen)
    return all(isinstance(count, int) for count in chain(totals, pairs, places, counts))


def restore(settings: Settings, group: str, partition: int, bucket_minutes: int, window_ms: int) -> PartitionFold:
    """A partition's state as it was at the last write: folds read, joins rebuilt.

    Both sources are read again from two join windows before the offsets that are complete: one for decisions
    whose outcome is still to come, one for what repeats those. Raises WorkerError where a source topic ends before
    what was read of it, for then it was made anew.
    """
    committed = _committed(settings, group, partition)
    ends = {topic.name: _ends(settings, topic, [partition])[partition] for topic in SOURCES}
    folds = [fold for fold in latest_folds(settings, [partition]) if fold.partition == partition]
    _check_ends(ends, [committed, *(fold.offsets for fold in folds)], partition, group)
    fold = PartitionFold(partition, bucket_minutes, window_ms, folds, committed)
    complete = fold.complete
    if any(complete.values()):
        now_ms = min(_time_at(settings, topic, partition, complete[topic.name]) for topic in SOURCES)
        for topic in SOURCES:
            start = _offset_at(settings, topic, partition, now_ms - 2 * window_ms)
            for record in read_records(settings, topic, {partition: start}, {partition: complete[topic.name]}):
                fold.take(record)
        fold.resume()
    return fold


def read_records(
    settings: Settings, topic: Topic, start: dict[int, int] | None = None, end: dict[int, int] | None = None
) -> Iterator[Record]:
    """The committed messages of a source topic, as the folds take them."""
    for message in read_all(settings, topic_name(settings, topic), start, end):
        yield _record(topic, message)


def _record(topic: Topic, message: Message) -> Record:
    return Record(
        topic=topic.name,
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        timestamp_ms=message.timestamp()[1],
        key=message.key(),
        value=message.value(),
    )


def _check_ends(ends: dict[str, int], known: Iterable[dict[str, int]], partition: int, group: str) -> None:
    for offsets in known:
        for topic, end in ends.items():
            if offsets.get(topic, 0) > end:
                raise WorkerError(
                    f"{topic}[{partition}] ends at {end}, but group {group} has folded it up to {offsets[topic]}: "
                    "the topic was made anew, so make the statistics topic anew as well and take another --group"
                )


def _committed(settings: Settings, group: str, partition: int) -> dict[str, int]:
    wanted = [TopicPartition(topic_name(settings, topic), partition) for topic in SOURCES]
    found = _ask(settings, lambda client: client.committed(wanted, timeout=REACH_TIMEOUT_S), group)
    return {topic.name: max(place.offset, 0) for topic, place in zip(SOURCES, found, strict=True)}


def _ends(settings: Settings, topic: Topic, partitions: Iterable[int]) -> dict[int, int]:
    def ask(client: Any) -> dict[int, int]:
        name = topic_name(settings, topic)
        return {
            p: client.get_watermark_offsets(TopicPartition(name, p), timeout=REACH_TIMEOUT_S)[1]
            for p in partitions
        }

    found: dict[int, int] = _ask(settings, ask)
    return found


def _offset_at(settings: Settings, topic: Topic, partition: int, time_ms: int) -> int:
    """The first offset at or after a record time; a negative one (the end) where there is none."""
    place = TopicPartition(topic_name(settings, topic), partition, max(time_ms, 0))
    return int(_ask(settings, lambda client: client.offsets_for_times([place], timeout=REACH_TIMEOUT_S))[0].offset)


def _time_at(settings: Settings, topic: Topic, partition: int, offset: int) -> int:
    """The record time of the first message from `offset` on; the present where there is none yet."""
    ends = _ends(settings, topic, [partition])
    first = next(read_records(settings, topic, {partition: offset}, ends), None)
    return first.timestamp_ms if first else int(time.time() * 1000)


def _ask(settings: Settings, question: Callable[[Any], Any], group: str = "namefree-readers") -> Any:
    client = consumer(settings, group)
    try:
        return question(client)
    except KafkaException as error:
        raise BrokerError(f"{settings.bootstrap} does not answer: {error.args[0].str()}") from error
    finally:
        client.close()


class FoldWriter:
    """The one writer of a partition's folds. Making it fences the one before. Methods block: use a thread.

    Raises WorkerError where only a new process can go on: fenced, forbidden, or no answer for a minute.
    """

    def __init__(self, settings: Settings, group: str, partition: int) -> None:
        limits = {"message.max.bytes": str(MAX_FOLD_BYTES + 64 * 1024), **settings.kafka}
        self._settings = replace(settings, kafka=limits)
        self._partition = partition
        self._client = producer(self._settings, f"{settings.prefix}{group}-{partition}")
        self._call("init_transactions", CALL_TIMEOUT_S)

    def write(self, folds: list[tuple[str, bytes]], letters: list[tuple[bytes | None, bytes]]) -> None:
        """Writes folds (key, value) and dead letters (key, value); returns when the cluster has them for good."""
        self._call("begin_transaction")
        for key, value in folds:
            name = topic_name(self._settings, STATISTICS)
            self._call("produce", name, value=value, key=key, partition=self._partition)
        for source_key, value in letters:
            self._call("produce", topic_name(self._settings, DEAD_LETTERS), value=value, key=source_key)
        self._call("commit_transaction", CALL_TIMEOUT_S)

    def _call(self, method: str, *args: Any, **kwargs: Any) -> None:
        ends = time.monotonic() + BUDGET_S
        while True:
            try:
                getattr(self._client, method)(*args, **kwargs)
                return
            except BufferError:
                self._client.poll(PAUSE_S)
            except KafkaException as error:
                cause = error.args[0]
                if verdict(cause) is not Verdict.RETRY or time.monotonic() > ends:
                    raise WorkerError(
                        f"folds of partition {self._partition} cannot be written ({method}: {cause.str()}): "
                        "start the aggregator again, it goes on from the last fold"
                    ) from error
                time.sleep(PAUSE_S)


def encode_fold(fold: StatisticsFold) -> tuple[str, bytes]:
    """A fold's key and value. Raises WorkerError where it is over the size limit."""
    try:
        return f"{fold.bucket}/{fold.partition}", encode(fold)
    except BadEvent as error:
        raise WorkerError(
            f"the fold of {fold.bucket} in partition {fold.partition} is too large: {error}: "
            "take shorter buckets with --bucket-minutes, or more partitions"
        ) from error


def encode_letter(settings: Settings, refused: Refused) -> tuple[bytes | None, bytes]:
    """The dead letter's key and value for a refused record; over-long keys and values are cut."""
    record, error = refused.record, refused.error
    letter = DeadLetter(
        event_time_ms=int(time.time() * 1000),
        reason=error.reason,
        message=str(error)[:MAX_MESSAGE_CHARS],
        topic=f"{settings.prefix}{record.topic}",
        partition=record.partition,
        offset=record.offset,
        source_key=record.key and record.key[:MAX_KEY_BYTES],
        source_value=record.value and record.value[:MAX_VALUE_BYTES],
    )
    return record.key, encode(letter)
