"""Partitions of the aggregator as they were at the last write: folds read, joins rebuilt.

All partitions of an assignment are restored together, by one client: what one partition has to ask and to wait
for, by itself about three seconds beside a busy broker, is asked and waited for once.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from topics.errors import BrokerError, WorkerError
from topics.kafka import REACH_TIMEOUT_S, consumer, read_all, read_between, said, watermarks
from topics.registry import DECISIONS, OUTCOMES, STATISTICS, Topic, topic_name
from topics.settings import Settings
from workers.fold_store import newest_of
from workers.folding import PartitionFold
from workers.records import Record

SOURCES = (DECISIONS, OUTCOMES)
LOOK_AHEAD = 100  # offsets in which a partition's next record is looked for at first

Offsets = dict[int, int]  # partition -> offset


class Abandoned(Exception):  # no error: somebody asked for it
    """The partitions are not wanted any more."""


class Restoration:
    """Restores partitions of `group`. `wanted` is asked for each message; once it says no, Abandoned is raised,
    so that a rebalance or a stop need not wait for millions of events."""

    def __init__(self, settings: Settings, group: str, wanted: Callable[[], bool] = lambda: True) -> None:
        self._settings, self._group, self._wanted = settings, group, wanted

    def restore(self, partitions: Iterable[int], bucket_minutes: int, window_ms: int) -> dict[int, PartitionFold]:
        """partition -> its state.

        Both sources are read again from two join windows before the offsets that are complete: one for decisions
        whose outcome is still to come, one for what repeats those. Raises WorkerError where a source topic ends
        before what was read of it, for then it was made anew; and BrokerError.
        """
        with closing(consumer(self._settings, self._group)) as client:
            try:
                folds = self._written(client, sorted(partitions), bucket_minutes, window_ms)
                begun = {p: fold for p, fold in folds.items() if any(fold.complete.values())}
                if begun:
                    self._read_again(client, begun, window_ms)
            except KafkaException as error:
                raise BrokerError(
                    f"partitions cannot be restored from {self._settings.bootstrap}: {said(error.args[0])}"
                ) from error
        return folds

    def _written(
        self, client: Consumer, partitions: list[int], bucket_minutes: int, window_ms: int
    ) -> dict[int, PartitionFold]:
        """What the folds and the group's offsets say."""
        committed = self._committed(client, partitions)
        marks = {p: watermarks(client, topic_name(self._settings, STATISTICS), p) for p in partitions}
        filled = {p: (low, high) for p, (low, high) in marks.items() if high > low}
        starts, ends = {p: low for p, (low, _) in filled.items()}, {p: high for p, (_, high) in filled.items()}
        found = newest_of(self._messages(client, STATISTICS, starts, ends))
        folds = {}
        for p in partitions:
            own = [fold for fold in found if fold.partition == p]
            folds[p] = PartitionFold(p, bucket_minutes, window_ms, own, committed[p])
        return folds

    def _committed(self, client: Consumer, partitions: list[int]) -> dict[int, dict[str, int]]:
        places = [TopicPartition(topic_name(self._settings, topic), p) for p in partitions for topic in SOURCES]
        found = iter(client.committed(places, timeout=REACH_TIMEOUT_S))
        return {p: {topic.name: max(next(found).offset, 0) for topic in SOURCES} for p in partitions}

    def _read_again(self, client: Consumer, folds: dict[int, PartitionFold], window_ms: int) -> None:
        """What is complete, for the joins that it left open."""
        marks = {topic.name: self._marks(client, topic, folds) for topic in SOURCES}
        now_ms = {p: int(time.time() * 1000) for p in folds}
        for topic in SOURCES:
            complete = {p: fold.complete[topic.name] for p, fold in folds.items()}
            for p, time_ms in self._next_times(client, topic, complete, marks[topic.name]).items():
                now_ms[p] = min(now_ms[p], time_ms)
        since_ms = {p: max(time_ms - 2 * window_ms, 0) for p, time_ms in now_ms.items()}
        for topic in SOURCES:
            complete = {p: fold.complete[topic.name] for p, fold in folds.items()}
            starts = {p: at for p, at in self._at_times(client, topic, since_ms).items() if at < complete[p]}
            for message in self._messages(client, topic, starts, complete):
                folds[message.partition() or 0].take(record_of(topic, message))
        for fold in folds.values():
            fold.resume()

    def _marks(
        self, client: Consumer, topic: Topic, folds: dict[int, PartitionFold]
    ) -> dict[int, tuple[int, int]]:
        """The first offset and the end of each partition, which cannot be before what was read of it."""
        marks = {p: watermarks(client, topic_name(self._settings, topic), p) for p in folds}
        for p, fold in folds.items():
            end, read = marks[p][1], fold.complete[topic.name]
            if read > end:
                raise WorkerError(
                    f"{topic.name}[{p}] ends at {end}, but group {self._group} has folded it up to {read}: "
                    "the topic was made anew, so make the statistics topic anew as well and take another --group"
                )
        return marks

    def _next_times(
        self, client: Consumer, topic: Topic, complete: Offsets, marks: dict[int, tuple[int, int]]
    ) -> Offsets:
        """The record time of the first message that is not complete, where there is one."""
        found: dict[int, int] = {}
        ahead, left = LOOK_AHEAD, {p: max(at, marks[p][0]) for p, at in complete.items()}
        while left := {p: at for p, at in left.items() if p not in found and at < marks[p][1]}:
            near = {p: min(at + ahead, marks[p][1]) for p, at in left.items()}
            for message in self._messages(client, topic, left, near):
                found.setdefault(message.partition() or 0, message.timestamp()[1])
            ahead, left = ahead * 8, near  # a long stretch may have been aborted
        return found

    def _at_times(self, client: Consumer, topic: Topic, times_ms: Offsets) -> Offsets:
        """The first offset at or after a record time, where there is one."""
        places = [TopicPartition(topic_name(self._settings, topic), p, at) for p, at in times_ms.items()]
        found = client.offsets_for_times(places, timeout=REACH_TIMEOUT_S)
        return {place.partition: place.offset for place in found if place.offset >= 0}

    def _messages(self, client: Consumer, topic: Topic, starts: Offsets, ends: Offsets) -> Iterator[Message]:
        for message in read_between(client, topic_name(self._settings, topic), starts, ends):
            if not self._wanted():
                raise Abandoned
            yield message


def read_records(settings: Settings, topic: Topic) -> Iterator[Record]:
    """The committed messages of a source topic, as the folds take them."""
    for message in read_all(settings, topic_name(settings, topic)):
        yield record_of(topic, message)


def record_of(topic: Topic, message: Message) -> Record:
    """A message that was read, as the folds take it."""
    return Record(
        topic=topic.name,
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        timestamp_ms=message.timestamp()[1],
        key=message.key(),
        value=message.value(),
    )
