"""What a read-committed reader of the decisions finds, held against what was asked."""

import threading
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime

import msgspec
import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Message, TopicPartition

from tests.faults.traffic import CUSTOMERS, Traffic
from topics.kafka import consumer, partitions_of
from topics.registry import DECISIONS, topic_name
from topics.settings import Settings

TOLD = 40  # of what was decided twice
NONE = -1_000_000  # links that were not known at all


class Seen(msgspec.Struct):
    """Of a decision, what is checked."""

    event_time_ms: int
    utterance_id: str
    customer_id: str
    linked: tuple[str, ...] = ()
    skill_id: str | None = None
    release: str = ""


class Book:
    """Takes decisions in, each partition's in order, and keeps the books of them."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._decoder = msgspec.json.Decoder(Seen)
        self.counts = np.zeros(traffic.total, np.int32)
        self.first_at = np.full(traffic.total, -1, np.int64)  # utterance -> offset of its first decision
        self.used = np.full(traffic.total, NONE, np.int64)  # utterance -> version of the links that decided it
        self.time_ms = np.zeros(traffic.total, np.int64)
        self.release = np.zeros(traffic.total, np.int32)  # utterance -> number of the release that decided it
        self.releases: dict[str, int] = {}  # release -> its number
        self.again: list[str] = []  # what is known of the first that were decided twice
        self._last = np.full(CUSTOMERS, -1, np.int64)
        self.distinct = 0
        self.foreign = 0  # decided for the wrong customer, by the wrong customer's links, or never asked
        self.disordered = 0

    def take(self, messages: Iterable[Message]) -> None:
        for message in messages:
            if message.error() is None:
                place = (message.partition() or 0, message.offset() or 0)
                self._take(self._decoder.decode(message.value() or b""), *place)

    def _take(self, seen: Seen, partition: int, offset: int) -> None:
        number, customer = int(seen.utterance_id[2:]), int(seen.customer_id[2:])
        if not 0 <= number < self._traffic.total or number % CUSTOMERS != customer:
            self.foreign += 1
            return
        self.counts[number] += 1
        if self.counts[number] > 1:
            self._note_again(number, partition, offset, seen.event_time_ms)
            return
        self.distinct += 1
        self.disordered += bool(number < self._last[customer])
        self._last[customer] = max(number, self._last[customer])
        self.first_at[number], self.time_ms[number] = offset, seen.event_time_ms
        self.release[number] = self.releases.setdefault(seen.release, len(self.releases))
        if seen.linked:
            linked, version = (int(part) for part in seen.linked[0].split(":"))
            self.foreign += linked != customer or seen.skill_id != seen.linked[0]
            self.used[number] = version

    def _note_again(self, number: int, partition: int, offset: int, time_ms: int) -> None:
        if len(self.again) < TOLD:
            first, then = (datetime.fromtimestamp(at / 1000) for at in (self.time_ms[number], time_ms))
            self.again.append(
                f"utterance {number:,}: decisions[{partition}]@{self.first_at[number]} at {first:%H:%M:%S.%f}, "
                f"and @{offset} at {then:%H:%M:%S.%f}"
            )

    def lost(self) -> int:
        return int((self.counts[: self._traffic.sent] == 0).sum())

    def duplicated(self) -> int:
        return int((self.counts - 1).clip(0).sum())

    def by_others(self, releases: set[str], first: int = 0) -> int:
        """How many utterances from `first` on were decided by none of `releases`."""
        known = [number for release, number in self.releases.items() if release in releases]
        return int((~np.isin(self.release[first:], known) & (self.counts[first:] > 0)).sum())

    def stale_ms(self) -> np.ndarray:
        """Of each utterance decided by links older than those acknowledged before it was sent: how long before
        the decision the newer ones had been there, in milliseconds."""
        old = np.flatnonzero((self.counts > 0) & (self.used < self._traffic.wanted))
        ages: np.ndarray = self.time_ms[old] - self._traffic.acked_ms[self._traffic.wanted[old]]
        return ages


class Reader:
    """Reads all the while, in a thread. `error` is what it died of."""

    def __init__(self, settings: Settings, book: Book) -> None:
        self.book = book
        self.error: BaseException | None = None
        self._settings = settings
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        name = topic_name(self._settings, DECISIONS)
        try:
            with closing(consumer(self._settings, "fault-reader")) as reader:
                places = partitions_of(self._settings, name)
                reader.assign([TopicPartition(name, partition, OFFSET_BEGINNING) for partition in places])
                while not self._done.is_set():
                    self.book.take(reader.consume(2_000, 0.1))
        except BaseException as error:  # noqa: BLE001 the run must not wait for a reader that is dead
            self.error = error

    def close(self) -> None:
        self._done.set()
        self._thread.join(30)
