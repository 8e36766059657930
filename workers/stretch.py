"""A stretch of the `utterances` topic, by offsets, by times, or all of it."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from confluent_kafka import Consumer, KafkaException, TopicPartition

from topics.errors import BrokerError, UsageError
from topics.kafka import REACH_TIMEOUT_S, partitions_of, reader, said, watermarks
from topics.registry import UTTERANCES, topic_name
from topics.settings import Settings

OFFSETS = re.compile(r"\d+:\d+(,\d+:\d+)*")
Edge = dict[int, int] | int  # partition -> offset, or epoch milliseconds


@dataclass(frozen=True)
class Stretch:
    """From `start` up to `end` (exclusive), partition -> offset. Partitions that are not in both are left out."""

    start: dict[int, int]
    end: dict[int, int]

    @property
    def offsets(self) -> int:
        """How many offsets it spans: at least as many as messages, since transactions' markers occupy some."""
        return sum(self.end[partition] - self.start[partition] for partition in self.end)


def parse_edge(text: str) -> Edge:
    """`0:120,1:98` (partition:offset), an ISO time (UTC unless it says otherwise) or epoch milliseconds.

    >>> parse_edge("0:120,1:98"), parse_edge("1970-01-01T00:00:01"), parse_edge("1000")
    ({0: 120, 1: 98}, 1000, 1000)

    Raises UsageError where it is none of them.
    """
    if OFFSETS.fullmatch(text):
        pairs = [pair.split(":") for pair in text.split(",")]
        return {int(partition): int(offset) for partition, offset in pairs}
    if text.isdigit():
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is no place in the topic: give offsets (0:120,1:98), an ISO time or epoch milliseconds"
        ) from None
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def stretch_between(settings: Settings, start: Edge | None = None, end: Edge | None = None) -> Stretch:
    """The stretch from `start` (default: the beginning) to `end` (default: what is there now), both exclusive of
    what does not exist. Times are those that the broker keeps of each message. Raises UsageError for a partition
    that the topic does not have, BrokerError where the broker does not answer.
    """
    topic = topic_name(settings, UTTERANCES)
    partitions = partitions_of(settings, topic)
    client = reader(settings)
    try:
        marks = {p: watermarks(client, topic, p) for p in partitions}
        low = {p: mark[0] for p, mark in marks.items()}
        high = {p: mark[1] for p, mark in marks.items()}
        first = _offsets(client, topic, start, low, high)
        last = _offsets(client, topic, end, high, high)
    except KafkaException as error:
        raise BrokerError(f"the offsets of topic {topic} cannot be read: {said(error.args[0])}") from error
    finally:
        client.close()
    return _clamped(first, last, low, high)


def _offsets(
    reader: Consumer, topic: str, edge: Edge | None, default: dict[int, int], high: dict[int, int]
) -> dict[int, int]:
    if edge is None:
        return default
    if isinstance(edge, dict):
        if strangers := edge.keys() - high.keys():
            raise UsageError(f"topic {topic} has no partition {min(strangers)}: it has {len(high)}")
        return edge
    asked = [TopicPartition(topic, partition, edge) for partition in high]
    found = reader.offsets_for_times(asked, timeout=REACH_TIMEOUT_S)
    # a negative offset: nothing that young is there, so the place is the end
    return {p.partition: p.offset if p.offset >= 0 else high[p.partition] for p in found}


def _clamped(first: dict[int, int], last: dict[int, int], low: dict[int, int], high: dict[int, int]) -> Stretch:
    both = sorted(first.keys() & last.keys())
    start = {p: min(max(first[p], low[p]), high[p]) for p in both}
    return Stretch(start, {p: min(max(last[p], start[p]), high[p]) for p in both})
