"""Who has linked what: the compacted `links` topic, held in memory for the partitions that are ours.

A partition's links are read to their end before its first request is decided, and followed from then on. Before a
batch is decided, the table has what the topic had when the batch was in hand: a link that was acknowledged before
a request was sent is known to its decision.
"""

import logging
import sys
import threading
import time
from collections.abc import Iterable

from confluent_kafka import OFFSET_BEGINNING, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import OffsetSpec

from topics.codec import Source, check_key, decode
from topics.errors import BadEvent, WorkerError
from topics.events import Links
from topics.kafka import admin_client, consumer
from topics.registry import LINKS, topic_name
from topics.settings import Settings
from workers.failpoints import reach
from workers.metrics import RouterMetrics
from workers.source import place_of

log = logging.getLogger("namefree.links")

RESTORE_BUDGET_S = 240.0  # shorter than the poll interval (300 s), or the group goes on without this router
CATCH_UP_BUDGET_S = 60.0  # longer than a broker's restart, shorter than the poll interval
ASK_S = 5.0  # one try to learn where the topic ends
READ = 5_000  # messages a read: more does not read faster


class LinksTable:
    """Linked skills by partition and customer."""

    def __init__(self, settings: Settings, metrics: RouterMetrics) -> None:
        self._topic = topic_name(settings, LINKS)
        self._metrics = metrics
        self._linked: dict[int, dict[str, tuple[str, ...]]] = {}
        self._read: dict[int, int] = {}  # partition -> the offset up to which it was read
        self._reader = consumer(settings, "namefree-links", **{"enable.partition.eof": True})
        self._admin = admin_client(settings)

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions whose links are held."""
        return frozenset(self._linked)

    def linked(self, partition: int, customer_id: str) -> tuple[str, ...]:
        """What the customer has linked; empty for one that is not known."""
        return self._linked.get(partition, {}).get(customer_id, ())

    def update(self, owned: frozenset[int], stop: threading.Event, asked: bool = False) -> None:
        """Drops what is no longer owned, restores what is new, follows the rest.

        Where requests are in hand (`asked`), all that the topic holds now is applied. Waiting ends early where
        `stop` is set. Raises WorkerError where it outlasts its budget.
        """
        if owned != self._linked.keys():
            self._drop(self._linked.keys() - owned)
            with self._metrics.stage("restore"):
                self._restore(owned - self._linked.keys(), stop)
        if owned:
            self._follow()
        if owned and asked:
            self._catch_up(stop)
        self._metrics.links_customers.set(sum(map(len, self._linked.values())))

    def close(self) -> None:
        self._reader.close()

    def _drop(self, partitions: Iterable[int]) -> None:
        gone = list(partitions)
        if gone:
            self._reader.incremental_unassign([TopicPartition(self._topic, p) for p in gone])
        for partition in gone:
            del self._linked[partition]
            self._read.pop(partition, None)

    def _restore(self, partitions: frozenset[int], stop: threading.Event) -> None:
        if not partitions:
            return
        start_s = time.monotonic()
        self._linked.update((partition, {}) for partition in partitions)
        self._reader.incremental_assign([TopicPartition(self._topic, p, OFFSET_BEGINNING) for p in partitions])
        left = set(partitions)
        while left and not stop.is_set():
            reach("router.restoring")
            left -= self._take(self._reader.consume(READ, 0.05))
            if time.monotonic() - start_s > RESTORE_BUDGET_S:
                raise WorkerError(
                    f"links of {self._topic}{sorted(left)} were not read within {RESTORE_BUDGET_S:.0f} s: "
                    "give the topic more partitions and run more routers"
                )
        customers = sum(len(self._linked[partition]) for partition in partitions)
        log.info("restored %s, %d customers", sorted(partitions), customers)

    def _follow(self) -> None:
        while messages := self._reader.consume(READ, 0):
            self._take(messages)

    def _catch_up(self, stop: threading.Event) -> None:
        """Reads on to where the topic ends now."""
        deadline_s = time.monotonic() + CATCH_UP_BUDGET_S
        ends: dict[int, int] | None = None
        while not stop.is_set() and (ends is None or self._is_behind(ends)):
            if ends is None:
                ends = self._ends()
            else:
                self._take(self._reader.consume(READ, 0.05))
            if time.monotonic() > deadline_s:
                raise WorkerError(f"topic {self._topic} was not read to its end within {CATCH_UP_BUDGET_S:.0f} s")

    def _is_behind(self, ends: dict[int, int]) -> bool:
        return any(self._read.get(partition, 0) < end for partition, end in ends.items())

    def _ends(self) -> dict[int, int] | None:
        """partition -> where it ends for a read-committed reader; None where the broker does not say."""
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        wanted = {TopicPartition(self._topic, partition): latest for partition in self._linked}
        level = IsolationLevel.READ_COMMITTED
        found = self._admin.list_offsets(wanted, isolation_level=level, request_timeout=ASK_S)
        try:
            return {place.partition: future.result().offset for place, future in found.items()}
        except KafkaException as error:
            log.warning("where %s ends is asked again: %s", self._topic, error.args[0].str())
            time.sleep(0.1)
            return None

    def _take(self, messages: list[Message]) -> set[int]:
        """Applies the events and returns the partitions whose end was reached."""
        ended = set()
        for message in messages:
            error = message.error()
            partition, offset = place_of(message)
            if error is None:
                self._apply(message)
                self._read[partition] = offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(partition)
                self._read[partition] = offset  # beyond the markers of transactions
            elif error.fatal() or "AUTHORIZATION" in error.name():
                raise WorkerError(f"topic {self._topic} cannot be read: {error.name()}, {error.str()}")
            else:
                log.warning("reading %s: %s", self._topic, error.str())
        return ended

    def _apply(self, message: Message) -> None:
        """Keeps the newest value; a malformed one is passed over, so that the one before stays in force."""
        partition, offset = place_of(message)
        table = self._linked.get(partition)
        if table is None:  # read just before the partition was dropped
            return
        self._metrics.consumed.labels(LINKS.name).inc()
        source = Source(self._topic, partition, offset)
        key = message.key()
        if message.value() is None and key:
            table.pop(key.decode("utf-8", "replace"), None)
            return
        try:
            links = decode(message.value(), Links, source)
            check_key(key, links.customer_id, source)
        except BadEvent as error:
            self._metrics.bad_links.inc()
            log.warning("passed over: %s", error)
            return
        # one string a skill, not one a customer: millions of customers link the same few thousand
        table[links.customer_id] = tuple(sys.intern(link.skill_id) for link in links.linked)
