"""The router's source: utterances of the partitions that the group gave us, and where we stand in each.

Each batch is committed before the next poll, so nothing is in flight when partitions come or go: the callbacks
only keep the books, and what has to be done is done by the loop.
"""

import logging
import time
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from topics.errors import WorkerError
from topics.kafka import ends_reading, made, said
from topics.registry import DECISIONS, UTTERANCES, topic_name
from topics.settings import Settings, consumer_config
from workers.beginning import NEW, beginning
from workers.failpoints import reach
from workers.metrics import RouterMetrics
from workers.transactions import TransactionLost

log = logging.getLogger("namefree.source")

POLL_S = 0.02
"""The client waits this long for a batch to fill: the most that it adds to a lone request, and 50 idle turns a
second. Longer makes larger transactions at low rates, shorter burns the processor when idle."""

BEGIN_AGAIN_S = 0.5
LAG_EVERY_S = 1.0  # a gauge is scraped every few seconds
WARN_EVERY_S = 10.0  # a broker that is away says so many times a second
UNREAD_S = 45.0  # longer than a killed router's transaction stays open, and than a broker's restart
UNTOLD_S = 60.0  # longer than a rebalance takes in which a member has died: its session, and then the others

# the new protocol leaves these to the broker, and its client refuses them
CLASSIC_ONLY = ("partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms")


def group_config(settings: Settings, group: str, protocol: str) -> dict[str, Any]:
    """Consumer properties for `protocol`, `classic` (cooperative-sticky) or `consumer` (KIP-848)."""
    config = consumer_config(settings, group)
    config["auto.offset.reset"] = "error"  # see workers.beginning
    if protocol == "consumer":
        config = {name: value for name, value in config.items() if name not in CLASSIC_ONLY}
        config["group.protocol"] = "consumer"
    return config


class UtteranceSource:
    """A member of the routers' group. `poll` hands out each message of an owned partition once, in order."""

    def __init__(
        self,
        settings: Settings,
        group: str,
        protocol: str,
        batch: int,
        metrics: RouterMetrics,
        begin: str = NEW,
    ) -> None:
        self._topic, self._decisions = topic_name(settings, UTTERANCES), topic_name(settings, DECISIONS)
        self._begins = begin
        self._batch = batch
        self._metrics = metrics
        self._owned: set[int] = set()
        self._paused: set[int] = set()  # owned, and not to be read yet
        self._unbegun: set[int] = set()  # owned, and nobody knows where to begin
        self._begin_due_s = 0.0
        self._unread: dict[int, float] = {}  # partition -> since when it may be read, until the broker lets us
        self._untold_s: float | None = time.monotonic()  # since when the group owes us its word on what is ours
        self._first: dict[int, int] = {}  # partition -> first offset of the batch in hand
        self._last: dict[int, int] = {}  # partition -> last offset handed out
        self._lag_due_s = 0.0
        self._warn_due_s = 0.0
        self._consumer = made(Consumer, settings, group_config(settings, group, protocol), self._warn)
        self._consumer.subscribe(
            [self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )

    @property
    def owned(self) -> frozenset[int]:
        """The partitions that are ours now."""
        return frozenset(self._owned)

    @property
    def joined(self) -> bool:
        """Whether the group has said which partitions are ours, be it none."""
        return self._untold_s is None

    def resume(self, restored: frozenset[int]) -> None:
        """Lets partitions that are new be read, as far as their links are in."""
        ready = self._paused & restored
        if ready:
            self._consumer.resume([TopicPartition(self._topic, partition) for partition in ready])
            self._paused -= ready
            self._unread.update(dict.fromkeys(ready, time.monotonic()))

    def poll(self) -> list[Message]:
        """The next batch of what is not paused, perhaps empty, after at most POLL_S. Raises WorkerError where
        reading cannot go on."""
        self._begin()
        try:
            messages = self._consumer.consume(self._batch, POLL_S)
        except KafkaException as error:
            self._judge(error.args[0])
            messages = []
        self._first = {}
        return [message for message in messages if self._is_ours(message)]

    def positions(self) -> list[TopicPartition]:
        """What to commit for the batch in hand: after the last message of each partition in it."""
        return [TopicPartition(self._topic, p, self._last[p] + 1) for p in sorted(self._first)]

    def membership(self) -> object:
        """Who we are in the group; a transaction sent with it fails once the group has gone on without us.

        Raises TransactionLost where the client knows that already: it has forgotten its member id then, and a
        broker takes offsets that carry none from anybody. Asked in this order: between two polls no new id comes.
        """
        metadata = self._consumer.consumer_group_metadata()
        if not self._consumer.memberid():
            raise TransactionLost("the group has gone on without this router")
        return metadata

    def rewind(self) -> None:
        """Back to the start of the batch in hand, which is where the last commit left each partition."""
        for partition, offset in self._first.items():
            self._last.pop(partition, None)
            try:
                self._consumer.seek(TopicPartition(self._topic, partition, offset))
            except KafkaException as error:  # no longer ours: its next owner starts at the commit
                log.info("partition %d is not rewound: %s", partition, error.args[0].str())
        self._first = {}

    def show_lag(self) -> None:
        """Brings the lag gauges up to date, at most once a second, from what the client knows already."""
        now_s = time.monotonic()
        if now_s < self._lag_due_s:
            return
        self._lag_due_s = now_s + LAG_EVERY_S
        places = [TopicPartition(self._topic, partition) for partition in self._owned]
        for place in self._consumer.position(places) if places else []:
            _low, high = self._consumer.get_watermark_offsets(place, cached=True)
            if high >= 0:  # the broker has answered a fetch
                self._unread.pop(place.partition, None)
            if place.offset >= 0 and high >= 0:
                gauge = self._metrics.lag.labels(UTTERANCES.name, place.partition)
                gauge.set(max(0, high - place.offset))
        self._warn_of_what_is_late(now_s)

    def _warn_of_what_is_late(self, now_s: float) -> None:
        """What only a broker can mend, and an operator would wait for in vain."""
        if now_s < self._warn_due_s:
            return
        late = sorted(partition for partition, since_s in self._unread.items() if now_s - since_s > UNREAD_S)
        if late:
            self._warn_due_s = now_s + WARN_EVERY_S
            log.error(
                "%s%s are ours for %.0f s and the broker does not let us begin: most likely a transaction that "
                "never ended holds the group's offsets: look with `kafka-transactions.sh find-hanging`",
                self._topic, late, now_s - min(self._unread[partition] for partition in late),
            )  # fmt: skip
        elif self._untold_s is not None and now_s - self._untold_s > UNTOLD_S:
            self._warn_due_s = now_s + WARN_EVERY_S
            log.error(
                "the group has not said for %.0f s which partitions of %s are ours: it waits for a member that "
                "does not come, or is away: look with `kafka-consumer-groups.sh --describe --members`",
                now_s - self._untold_s, self._topic,
            )  # fmt: skip

    def close(self) -> None:
        """Leaves the group, so that the others take over at once."""
        self._consumer.close()

    def _is_ours(self, message: Message) -> bool:
        """Keeps the books of a message; False for errors and for what a rebalance has made somebody else's.

        One `consume` may cross a rebalance. The client drops what is outdated then; this is the second lock:
        a message that was handed out already, or of a partition that is gone, must not be decided here.
        """
        error = message.error()
        partition, offset = place_of(message)
        if error is not None and error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._unbegun |= {partition} & self._owned  # a rebalance may have taken it away meanwhile
            return False
        if error is not None:
            self._judge(error)
            return False
        if partition not in self._owned or offset <= self._last.get(partition, -1):
            return False
        self._first.setdefault(partition, offset)
        self._last[partition] = offset
        return True

    def _begin(self) -> None:
        """Goes to the beginning of partitions of which the group has no offset, or one that is gone; again where
        the cluster does not say. Raises WorkerError where it would be a guess."""
        if not self._unbegun or time.monotonic() < self._begin_due_s:
            return
        try:
            for partition in sorted(self._unbegun):
                place = TopicPartition(self._topic, partition)
                place.offset = beginning(self._consumer, place, self._decisions, self._begins)
                # A client that was told nothing to fall back on takes no seek. Whether it is paused stays.
                self._consumer.incremental_unassign([place])
                self._consumer.incremental_assign([place])
                self._unbegun.discard(partition)
        except KafkaException as error:
            self._begin_due_s = time.monotonic() + BEGIN_AGAIN_S
            log.warning("where to begin in %s is not known yet: %s", self._topic, said(error.args[0]))

    def _judge(self, error: KafkaError) -> None:
        """The client heals most reading errors by itself; what it cannot heal ends the process."""
        if ends_reading(error):
            raise WorkerError(f"topic {self._topic} cannot be read: {said(error)}")
        self._warn(error)

    def _warn(self, error: KafkaError) -> None:
        if time.monotonic() >= self._warn_due_s:
            self._warn_due_s = time.monotonic() + WARN_EVERY_S
            log.warning("reading %s: %s", self._topic, error.str())

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Takes partitions in, paused: the others go on while the links of these are being read."""
        reach("router.assigned")
        consumer.incremental_assign(partitions)
        consumer.pause(partitions)
        self._paused |= {place.partition for place in partitions}
        self._metrics.rebalances.labels("assigned").inc()
        self._untold_s = None
        self._owned |= {place.partition for place in partitions}
        log.info("assigned %s, now %s", _listed(partitions), sorted(self._owned))

    def _revoked(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        reach("router.revoked")
        self._metrics.rebalances.labels("revoked").inc()
        self._forget(partitions)
        log.info("revoked %s, now %s", _listed(partitions), sorted(self._owned))

    def _lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        reach("router.lost")
        self._metrics.rebalances.labels("lost").inc()
        self._forget(partitions)
        self._untold_s = time.monotonic()
        log.warning("lost %s: the group went on without this router", _listed(partitions))

    def _forget(self, partitions: list[TopicPartition]) -> None:
        for place in partitions:
            self._owned.discard(place.partition)
            self._paused.discard(place.partition)
            self._unbegun.discard(place.partition)
            self._unread.pop(place.partition, None)
            self._last.pop(place.partition, None)
            self._metrics.lag.remove(UTTERANCES.name, str(place.partition))


def place_of(message: Message) -> tuple[int, int]:
    """Partition and offset of a message that was read; the client's types leave room for one that was not."""
    return message.partition() or 0, message.offset() or 0


def _listed(partitions: list[TopicPartition]) -> list[int]:
    return sorted(place.partition for place in partitions)
