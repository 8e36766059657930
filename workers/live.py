"""Live statistics in a router: the statistics topic followed beside the loop, between two cycles of training.

A thread reads the folds as the aggregator writes them and takes what each has gained on the one before;
`model.live` makes factors of it. A version is on its topic for good before a decision names it, so that a replay
can repeat what was decided. A router that starts goes on from the last version there.
"""

import logging
import threading
import time
from collections.abc import Sequence

from confluent_kafka import OFFSET_BEGINNING, KafkaError, Message, TopicPartition
from msgspec import Struct

from model.live import Watch, live_statistics, version_of
from topics.codec import decode, encode
from topics.errors import BadEvent, BrokerError, WorkerError
from topics.events import LiveStatistics
from topics.kafka import ends_reading, partitions_of, read_all, reader, said
from topics.registry import LIVE_STATISTICS, STATISTICS, topic_name
from topics.settings import Settings
from workers.deciding import Selecting
from workers.live_folds import Gains
from workers.metrics import RouterMetrics
from workers.sender import Sender
from workers.source import place_of

log = logging.getLogger("namefree.live")

LOOK_S = 0.2  # how long the thread waits on the topic: bounds how long `close` takes
READ = 100  # folds a read: some megabytes
AGAIN_MS = 20 * 3_600_000
"""A version in force is written again after this: the topic keeps it a day longer than decisions that name it."""
KEPT_HALF_LIVES = 8  # what is older counts for less than a 200th


class LiveOptions(Struct, frozen=True, kw_only=True):
    """How live statistics are made. `refresh_s`: how often factors are made anew."""

    half_life_minutes: float = 60.0
    refresh_s: float = 5.0

    @property
    def half_life_ms(self) -> float:
        return self.half_life_minutes * 60_000


class LiveFollower:
    """Follows the statistics topic with a thread of its own; `update` brings what it finds into the selectors."""

    def __init__(self, settings: Settings, options: LiveOptions, metrics: RouterMetrics) -> None:
        """Raises BrokerError where a topic is missing or the last version cannot be read."""
        self._settings, self._options, self._metrics = settings, options, metrics
        self._topic = topic_name(settings, STATISTICS)
        self._kept_ms = KEPT_HALF_LIVES * options.half_life_ms
        self._watch = Watch(options.half_life_ms)
        self._gains = Gains(self._kept_ms)
        self._offsets: dict[str, int] = {}
        self._newest_ms = self._since_ms = 0
        self._live: LiveStatistics | None = None  # swapped whole, so the loop sees the old or the new
        self._written_ms: dict[str, int] = {}  # version -> when it was written last
        self._due_s = 0.0
        self._failure: BaseException | None = None
        self._closing = threading.Event()
        self._sender = Sender(settings)
        self._resume()
        partitions = partitions_of(settings, self._topic)
        self._unread = set(partitions)
        self._reader = reader(settings, **{"enable.partition.eof": True})
        self._reader.assign([TopicPartition(self._topic, p, OFFSET_BEGINNING) for p in partitions])
        self._thread = threading.Thread(target=self._run, name="live-statistics", daemon=True)
        self._thread.start()

    def update(self, selectors: Sequence[Selecting]) -> None:
        """Has the selectors follow what is in force now. Raises WorkerError where the thread has died."""
        if self._failure is not None:
            raise WorkerError(f"the thread that follows {self._topic} died: {self._failure!r}") from self._failure
        for selector in selectors:
            selector.follow(self._live)

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._reader.close()

    def _resume(self) -> None:
        """Goes on from the last version, whichever router wrote it, unless it is too old to matter."""
        versions = live_versions(self._settings)
        self._written_ms = {version: live.event_time_ms for version, live in versions.items()}
        last = max(versions.values(), key=lambda live: live.event_time_ms, default=None)
        if last is not None and last.event_time_ms > time.time() * 1000 - self._kept_ms:
            self._since_ms = last.event_time_ms
            self._watch.resume(last.factors, last.event_time_ms)
            self._use(last)

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                for message in self._reader.consume(READ, LOOK_S):
                    self._look_at(message)
                if not self._unread and time.monotonic() >= self._due_s:
                    self._due_s = time.monotonic() + self._options.refresh_s
                    self._renew(int(time.time() * 1000))
        except BaseException as error:  # noqa: BLE001 the loop must not go on without its follower
            self._failure = error

    def _look_at(self, message: Message) -> None:
        error = message.error()
        if error is None:
            self._take(message)
        elif error.code() == KafkaError._PARTITION_EOF:
            self._unread.discard(place_of(message)[0])
        elif ends_reading(error):
            raise WorkerError(f"topic {self._topic} cannot be read: {said(error)}")
        else:
            log.warning("reading %s: %s", self._topic, error.str())

    def _take(self, message: Message) -> None:
        """A malformed fold is passed over; the one before it stays what the next is compared with."""
        self._metrics.consumed.labels(STATISTICS.name).inc()
        now_ms = int(time.time() * 1000)
        try:
            found = self._gains.take(message.key() or b"", message.value(), now_ms)
        except BadEvent as error:
            self._metrics.bad_folds.inc()
            log.warning("passed over: the fold at %s[%d]@%d: %s", self._topic, *place_of(message), error)
            return
        if found is None:
            return
        fold, gained = found
        for topic, offset in fold.offsets.items():
            place = f"{topic}/{fold.partition}"
            self._offsets[place] = max(offset, self._offsets.get(place, 0))
        self._newest_ms = max(self._newest_ms, fold.event_time_ms)
        if fold.event_time_ms > self._since_ms:  # what came before is in the version that we go on from
            self._watch.take(gained, min(fold.event_time_ms, now_ms))

    def _renew(self, now_ms: int) -> None:
        """Makes the factors of now, and where they changed, publishes and then uses them."""
        self._gains.forget(now_ms)
        if self._newest_ms:
            self._metrics.newest_fold(self._newest_ms / 1000)
        live = live_statistics(self._watch.factors(now_ms), self._offsets, now_ms)
        is_written = now_ms - self._written_ms.get(live.version, 0) < AGAIN_MS
        if self._live is not None and self._live.version == live.version and is_written:
            return
        if is_written or self._write(live):
            self._use(live)

    def _write(self, live: LiveStatistics) -> bool:
        """Whether the version is on its topic for good."""
        try:
            self._sender.send(topic_name(self._settings, LIVE_STATISTICS), live.version, encode(live))
            self._sender.flush()
        except BrokerError as error:
            self._metrics.live_failures.inc()
            log.error("live statistics %s are not used: %s", live.version, error)
            self._sender = Sender(self._settings)
            return False
        self._written_ms = {
            version: at for version, at in self._written_ms.items() if live.event_time_ms - at < AGAIN_MS
        }
        self._written_ms[live.version] = live.event_time_ms
        return True

    def _use(self, live: LiveStatistics) -> None:
        if self._live is None or self._live.version != live.version:
            held = ", ".join(f"{skill} {factor:+g}" for skill, factor in list(live.factors.items())[:5])
            log.info(
                "live statistics %s: %d skills held back: %s", live.version, len(live.factors), held or "none"
            )
        self._live = live
        self._metrics.following(live.version, len(live.factors))


def live_versions(settings: Settings) -> dict[str, LiveStatistics]:
    """Every version on the topic, as it was written last; one that is malformed, or that its factors do not make,
    is passed over. Raises BrokerError."""
    found: dict[str, LiveStatistics] = {}
    for message in read_all(settings, topic_name(settings, LIVE_STATISTICS)):
        try:
            live = decode(message.value(), LiveStatistics)
        except BadEvent as error:
            log.warning("passed over: %s", error)
            continue
        if live.version == version_of(live.factors):
            found[live.version] = live
        else:
            log.warning("passed over: live statistics %s have other factors than their name says", live.version)
    return found
