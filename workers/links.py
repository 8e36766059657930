"""Who has linked what: the compacted `links` topic, held in memory for the partitions that are ours.

A partition's links are read to their end before its first request is decided, and followed from then on. A client
of its own reads them, a slice between two batches of the other partitions, so that these go on. Before a batch is
decided, the table has what the topic had when the batch was in hand: a link that was acknowledged before a request
was sent is known to its decision.
"""

import logging
import sys
import threading
import time
from collections.abc import Iterable

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import OffsetSpec

from topics.codec import Source, check_key, decode
from topics.errors import BadEvent, WorkerError
from topics.events import Links
from topics.kafka import admin_client, ends_reading, reader, said
from topics.registry import LINKS, topic_name
from topics.settings import Settings
from workers.failpoints import reach
from workers.metrics import RouterMetrics
from workers.source import place_of

log = logging.getLogger("namefree.links")

RESTORE_BUDGET_S = 60.0  # without a word of the broker: longer than its restart
SLICE_S = 0.1  # of a turn of the loop: about as long as a full batch takes, so that both get on
CATCH_UP_BUDGET_S = 60.0  # longer than a broker's restart, shorter than the poll interval
ASK_S = 5.0  # one try to learn where the topic ends
READ = 5_000  # messages a read: more does not read faster
SLICE = 500  # messages a read of what is restored: with the most links these take a tenth of a second


class LinksTable:
    """Linked skills by partition and customer."""

    def __init__(self, settings: Settings, metrics: RouterMetrics) -> None:
        self._topic = topic_name(settings, LINKS)
        self._metrics = metrics
        self._linked: dict[int, dict[str, tuple[str, ...]]] = {}
        self._read: dict[int, int] = {}  # partition -> the offset up to which it was read
        self._settings = settings
        self._reader = reader(settings, **{"enable.partition.eof": True})
        self._restoring: dict[int, float] = {}  # partition -> since when, monotonic
        self._restorer: Consumer | None = None  # reads these; there is none while there are none
        self._heard_s = 0.0  # when that one last read something
        self._admin = admin_client(settings)

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions whose links are held, all of them."""
        return frozenset(self._linked.keys() - self._restoring.keys())

    def linked(self, partition: int, customer_id: str) -> tuple[str, ...]:
        """What the customer has linked; empty for one that is not known."""
        return self._linked.get(partition, {}).get(customer_id, ())

    def update(self, owned: frozenset[int], stop: threading.Event, asked: bool = False) -> None:
        """Drops what is no longer owned, reads on in what is new, follows the rest.

        Where requests are in hand (`asked`), all that the topic holds now is applied, but for partitions that are
        being restored. Waiting ends early where `stop` is set. Raises WorkerError where it outlasts its budget.
        """
        if owned != self._linked.keys():
            self._drop(self._linked.keys() - owned)
            self._begin(owned - self._linked.keys())
        if self._restoring:
            with self._metrics.stage("restore"):
                self._restore()
        if self.partitions:
            self._follow()
            if asked:
                self._catch_up(stop)
        self._metrics.links_customers.set(sum(map(len, self._linked.values())))

    def close(self) -> None:
        self._reader.close()
        if self._restorer:
            self._restorer.close()

    def _drop(self, partitions: Iterable[int]) -> None:
        for partition in list(partitions):
            place = [TopicPartition(self._topic, partition)]
            if self._restorer and self._restoring.pop(partition, None):
                self._restorer.incremental_unassign(place)
            else:
                self._reader.incremental_unassign(place)
            del self._linked[partition]
            self._read.pop(partition, None)

    def _begin(self, partitions: Iterable[int]) -> None:
        if not self._restorer:
            self._restorer = reader(self._settings, **{"enable.partition.eof": True})
        self._heard_s = time.monotonic()
        for partition in partitions:
            self._linked[partition] = {}
            self._restoring[partition] = self._heard_s
            self._restorer.incremental_assign([TopicPartition(self._topic, partition, OFFSET_BEGINNING)])

    def _restore(self) -> None:
        """Reads a slice; whoever has reached its end is followed from there."""
        ends_s = time.monotonic() + SLICE_S
        while self._restorer and self._restoring and (wait_s := ends_s - time.monotonic()) > 0:
            reach("router.restoring")
            messages = self._restorer.consume(SLICE, wait_s)
            ended = self._take(messages)
            if ended or any(message.error() is None for message in messages):
                self._heard_s = time.monotonic()
            for partition in ended & self._restoring.keys():
                self._hand_over(self._restorer, partition)
        if not self._restoring and self._restorer:
            self._restorer.close()
            self._restorer = None
        elif time.monotonic() - self._heard_s > RESTORE_BUDGET_S:
            raise WorkerError(
                f"links of {self._topic}{sorted(self._restoring)} cannot be restored: nothing came within "
                f"{RESTORE_BUDGET_S:.0f} s"
            )

    def _hand_over(self, restorer: Consumer, partition: int) -> None:
        took_s = time.monotonic() - self._restoring.pop(partition)
        restorer.incremental_unassign([TopicPartition(self._topic, partition)])
        self._reader.incremental_assign([TopicPartition(self._topic, partition, self._read[partition])])
        log.info("restored %d, %d customers, in %.1f s", partition, len(self._linked[partition]), took_s)

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
        wanted = {TopicPartition(self._topic, partition): latest for partition in self.partitions}
        level = IsolationLevel.READ_COMMITTED
        found = self._admin.list_offsets(wanted, isolation_level=level, request_timeout=ASK_S)
        try:
            return {place.partition: future.result(2 * ASK_S).offset for place, future in found.items()}
        except (KafkaException, TimeoutError) as error:  # the latter: no answer at all, which has been seen
            why = error.args[0].str() if isinstance(error, KafkaException) else "no answer"
            log.warning("where %s ends is asked again: %s", self._topic, why)
            # a client that has known the leader from before its restart asks for that one for ever
            self._admin = admin_client(self._settings)
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
            elif ends_reading(error):
                raise WorkerError(f"topic {self._topic} cannot be read: {said(error)}")
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
