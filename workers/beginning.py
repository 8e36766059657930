"""Where a router begins in a partition of which its group has no offset, or one that is not there any more.

A group without any offset is a new one and begins with the first utterance, and says so to the cluster before it
decides anything. But a group's offsets may also have expired (seven days after its last member left, by Kafka's
standard) or been lost with the cluster's own, and to begin with the first utterance would then decide everything
once more. So where anything was decided before, and the group has no offset at all, nothing is guessed.
"""

import logging

from confluent_kafka import Consumer, TopicPartition

from topics.errors import WorkerError
from topics.kafka import REACH_TIMEOUT_S

log = logging.getLogger("namefree.source")

NEW = "new"
BEGINNINGS = (NEW, "earliest", "latest")
"""`new`: with the first utterance where nothing was ever decided, else not at all. The others: there, anyway."""


def beginning(client: Consumer, place: TopicPartition, decisions: str, begin: str) -> int:
    """The offset from which `client`, a member of the group, reads `place`; committed where there was none.

    `decisions` is the topic that tells whether anything was decided. Raises WorkerError where to begin would be a
    guess, or the topic is another one than the group has read; KafkaException where the cluster does not say.
    """
    low, high = client.get_watermark_offsets(place, timeout=REACH_TIMEOUT_S)
    committed = [one.offset for one in client.committed(_places(client, place.topic), timeout=REACH_TIMEOUT_S)]
    at, where = committed[place.partition], f"{place.topic}[{place.partition}]"
    if at > high:
        raise WorkerError(
            f"{where} ends at {high}, but the group has read it up to {at}: the topic was made anew, so take "
            "another --group"
        )
    if at >= 0:
        if at < low:
            log.error("%s: %d utterances were removed before they were decided", where, low - at)
        return max(at, int(low))
    if begin == NEW and all(one < 0 for one in committed) and _was_written(client, decisions):
        raise WorkerError(
            f"the group has no offset for {place.topic}, though there were decisions: its offsets have expired or "
            "are lost, or it is another group than before: say with --begin earliest or latest where it begins"
        )
    found = int(high if begin == "latest" else low)
    client.commit(offsets=[TopicPartition(place.topic, place.partition, found)], asynchronous=False)
    log.info("%s: the group begins at %d", where, found)
    return found


def _places(client: Consumer, topic: str) -> list[TopicPartition]:
    partitions = client.list_topics(topic, timeout=REACH_TIMEOUT_S).topics[topic].partitions
    return [TopicPartition(topic, partition) for partition in sorted(partitions)]


def _was_written(client: Consumer, topic: str) -> bool:
    places = _places(client, topic)
    return any(client.get_watermark_offsets(place, timeout=REACH_TIMEOUT_S)[1] > 0 for place in places)
