"""The aggregator: outcomes joined to decisions, folded into statistics; at least once read, exact in effect.

A faust app whose one agent takes batches of both topics. Each partition is folded in memory and written every
few seconds: folds and dead letters in one transaction, each fold with the offsets that it contains, and only
then the positions are committed. Whatever is read again after a kill is known to be in the folds or not.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiokafka.errors import KafkaError
from faust.types import TP, EventT
from msgspec import Struct

from topics.errors import BrokerError, NamefreeError, WorkerError
from topics.registry import topic_name
from topics.settings import Settings
from workers.failpoints import reach
from workers.faust_client import BatchSchema, make_app
from workers.fold_store import FoldWriter, encode_fold, encode_letter, key_of
from workers.folding import PartitionFold
from workers.memory import give_back
from workers.metrics import AggregatorMetrics, bounded_reason
from workers.records import Record
from workers.restoring import SOURCES, Abandoned, Restoration

log = logging.getLogger("namefree.aggregator")

TICK_S = 0.2  # how often signals, deaths and due writes are looked at
QUIET_TICKS = 150
"""A topic that gave nothing for so many ticks (30 s) has been read to its end. Ticks and not seconds: a process
that was paused must not take the pause for silence."""
TRIM_TICKS = 150  # how often freed memory goes back: every 30 s
START_TIMEOUT_S = 60.0  # to reach the cluster
STOP_TIMEOUT_S = 20.0  # to leave the group; then the process ends anyway, the group notices by itself


@dataclass(frozen=True)
class AggregatorOptions:
    """How an aggregator works; the command's options."""

    group: str = "namefree-aggregator"
    instance: str = ""  # "": another member at each start
    bucket_minutes: int = 60
    join_window_minutes: float = 60.0
    write_every_s: float = 5.0
    write_every_events: int = 20_000
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9109
    until_idle_s: float = 0.0
    stalled_after_s: float = 300.0

    @property
    def window_ms(self) -> int:
        return int(self.join_window_minutes * 60_000)


class Write(Struct, frozen=True):
    """One partition's write: what is on the cluster now. `folded` counts events by kind since the last one."""

    partition: int
    folds: int
    dead_letters: int
    positions: dict[str, int]
    folded: dict[str, int]
    waiting: int
    seconds: float


@dataclass
class _Owned:
    """A partition of ours."""

    fold: PartitionFold
    writer: FoldWriter
    committed: dict[str, int]
    written_at: float
    taken: int = 0  # since the last write
    quiet: dict[str, int] = field(default_factory=lambda: {topic.name: 0 for topic in SOURCES})

    def unwritten(self) -> bool:
        return bool(self.fold.dirty or self.fold.refused or self.fold.positions != self.committed)


class Aggregator:
    """The agent and what it owns. Everything happens under one lock: take, write, give up."""

    def __init__(
        self,
        settings: Settings,
        options: AggregatorOptions,
        metrics: AggregatorMetrics,
        report: Callable[[Write], None],
    ) -> None:
        self.app = make_app(settings, f"{settings.prefix}{options.group}", options.instance)
        self._settings, self._options, self._metrics, self._report = settings, options, metrics, report
        self._names = {topic_name(settings, topic): topic.name for topic in SOURCES}
        self._lock = asyncio.Lock()
        self._owned: dict[int, _Owned] = {}
        self._assigned: set[TP] = set()
        self._failure: NamefreeError | None = None
        self._stop = threading.Event()
        self._revoking = False
        self._joined = False
        self._restoring = False
        self._ticks = 0
        self._turned_at = self._written_at = self._busy_at = time.monotonic()
        source = self.app.topic(*self._names, schema=BatchSchema())
        self.app.agent(source, name="aggregate")(self._aggregate)
        self.app.on_partitions_revoked.connect(self._revoked)
        self.app.on_partitions_assigned.connect(self._got)

    async def run(self, stop: threading.Event) -> None:
        """Aggregates until `stop` is set or, where asked for, nothing comes any more. Raises NamefreeError."""
        self._stop = stop
        try:
            await asyncio.wait_for(self.app.start(), START_TIMEOUT_S)
            while not (stop.is_set() or self._idle()):
                await asyncio.sleep(TICK_S)
                self._turned_at = time.monotonic()
                self._check_alive()
                await self._tick()
            async with self._lock:
                await self._give_up()
        except TimeoutError as error:
            raise BrokerError(
                f"{self._settings.bootstrap} does not answer within {START_TIMEOUT_S:g} s"
            ) from error
        except KafkaError as error:
            raise BrokerError(
                f"faust's client gave up on {self._settings.bootstrap}: {error}: start the aggregator again"
            ) from error
        finally:
            await self._leave()

    async def _aggregate(self, stream: Any) -> None:
        """The agent. A dead agent would leave faust running in silence, so its error is kept and ends `run`."""
        events: AsyncIterable[EventT[Any]] = stream.noack().events()
        try:
            async for event in events:
                async with self._lock:
                    await self._take(event)
        except NamefreeError as error:
            self._failure = error
        except Exception as error:
            self._failure = WorkerError(f"the aggregating agent died of {type(error).__name__}: {error}")
            log.exception("the aggregating agent died")
            raise

    async def _take(self, event: EventT[Any]) -> None:
        """Takes a fetched batch in, unless a rebalance came between."""
        message: Any = event.message
        if message.generation_id != self.app.consumer_generation_id or message.tp not in self._assigned:
            return
        if message.partition not in self._owned and not await self._restore():
            return
        owned = self._owned[message.partition]
        topic = self._names[message.topic]
        new = sum(owned.fold.take(_record(topic, found)) for found in message.value)
        owned.quiet[topic] = 0
        owned.taken += new
        if new:
            self._busy_at = time.monotonic()
        self._metrics.consumed.labels(topic).inc(new)
        self._align(owned)
        if owned.taken >= self._options.write_every_events:
            await self._write(owned)

    async def _restore(self) -> bool:
        """Restores all that is assigned at its first batch: fences the owners before, then reads what they left.

        False where it was given up on the way, for a rebalance or the end: the batch in hand will be read again.
        """
        options, start = self._options, time.monotonic()
        missing = sorted({tp.partition for tp in self._assigned} - self._owned.keys())
        self._restoring = True
        try:
            opened = [asyncio.to_thread(FoldWriter, self._settings, options.group, p) for p in missing]
            writers = dict(zip(missing, await asyncio.gather(*opened), strict=True))
            group = f"{self._settings.prefix}{options.group}"
            restoration = Restoration(self._settings, group, lambda: not (self._stop.is_set() or self._revoking))
            folds = await asyncio.to_thread(
                restoration.restore, missing, options.bucket_minutes, options.window_ms
            )
        except Abandoned:
            return False
        finally:
            self._restoring = False
        for p, fold in folds.items():
            self._owned[p] = _Owned(fold, writers[p], dict(fold.positions), time.monotonic())
        waiting = sum(fold.waiting for fold in folds.values())
        took_s = time.monotonic() - start
        log.info("partitions %s restored in %.1f s: %d decisions wait for an outcome", missing, took_s, waiting)
        self._busy_at = time.monotonic()  # restoring is no idleness, though it may bring nothing new
        return True

    async def _tick(self) -> None:
        self._ticks += 1
        if self._ticks % TRIM_TICKS == 0:
            give_back()
        async with self._lock:
            now = time.monotonic()
            for owned in list(self._owned.values()):
                self._rest(owned)
                if owned.unwritten() and now - owned.written_at >= self._options.write_every_s:
                    await self._write(owned)
            self._metrics.pending_decisions.set(sum(owned.fold.waiting for owned in self._owned.values()))
            self._metrics.statistics_age_s.set(time.monotonic() - self._written_at)

    def _rest(self, owned: _Owned) -> None:
        """Time goes by for a partition: what can no longer be joined leaves."""
        for topic in owned.quiet:
            if self._tp(topic, owned.fold.partition) not in self._held:
                owned.quiet[topic] += 1
        idle = [topic for topic, ticks in owned.quiet.items() if ticks >= QUIET_TICKS]
        owned.fold.expire(int(time.time() * 1000), idle)
        self._align(owned)

    def _align(self, owned: _Owned) -> None:
        """Lets the topic that is far ahead wait for the other, unless that one has been read to its end."""
        ahead = owned.fold.ahead()
        for topic in owned.quiet:
            other_ended = any(t != topic and n >= QUIET_TICKS for t, n in owned.quiet.items())
            tp = self._tp(topic, owned.fold.partition)
            if topic == ahead and not other_ended:
                self._held.add(tp)
            else:
                self._held.discard(tp)

    async def _write(self, owned: _Owned) -> None:
        """1. Folds, the end of those they took up, dead letters: all or none. 2. Then the positions."""
        start, fold = time.monotonic(), owned.fold
        folds, refused = fold.changed(int(time.time() * 1000)), list(fold.refused)
        gone = [(key_of(bucket, fold.partition), None) for bucket in sorted(fold.gone)]
        if folds or refused:
            encoded = [encode_fold(changed) for changed in folds]
            letters = [encode_letter(self._settings, dead) for dead in refused]
            reach("aggregator.before_write")
            await asyncio.to_thread(owned.writer.write, [*encoded, *gone], letters)
            reach("aggregator.after_write")
            if gone:
                log.info("partition %d: %d old folds went into days and months", fold.partition, len(gone))
        fold.written()
        owned.committed = dict(fold.positions)
        await self._consumer.commit_positions(
            {self._tp(topic, fold.partition): offset for topic, offset in owned.committed.items() if offset}
        )
        reach("aggregator.after_commit")
        owned.taken, owned.written_at, self._written_at = 0, time.monotonic(), time.monotonic()
        self._tell(owned, len(folds), refused, time.monotonic() - start)

    def _tell(self, owned: _Owned, folds: int, refused: list[Any], seconds: float) -> None:
        fold, folded = owned.fold, dict(owned.fold.folded)
        for kind in fold.folded:
            self._metrics.folds.labels(kind).inc(fold.folded[kind])
            fold.folded[kind] = 0
        for dead in refused:
            self._metrics.dead_letters.labels(dead.record.topic, bounded_reason(dead.error.reason)).inc()
        self._metrics.fold_writes.inc(folds)
        self._metrics.fold_write_s.observe(seconds)
        self._report(
            Write(fold.partition, folds, len(refused), owned.committed, folded, fold.waiting, round(seconds, 6))
        )

    async def _got(self, _app: Any, /, *args: Any, **_: Any) -> None:
        async with self._lock:
            self._assigned = set(args[0])
            self._joined = True
            self._busy_at = time.monotonic()

    async def _revoked(self, _app: Any, /, *_args: Any, **_: Any) -> None:
        """faust goes back to the committed offsets after each rebalance, so nothing is kept over one."""
        self._revoking = True  # whoever restores, and so has the lock, lets go
        try:
            async with self._lock:
                await self._give_up()
        except NamefreeError as error:
            self._failure = error
        finally:
            self._revoking = False

    async def _give_up(self) -> None:
        owned, self._owned, self._assigned = self._owned, {}, set()
        self._held.clear()
        for one in owned.values():
            if one.unwritten() and self._failure is None:
                await self._write(one)

    def is_live(self) -> bool:
        """False where the loop has not turned for `stalled_after_s`, unless it restores."""
        return self._restoring or time.monotonic() - self._turned_at < self._options.stalled_after_s

    def is_ready(self) -> bool:
        """True once the group has given out its partitions, while none of ours is being restored."""
        return self._joined and not self._restoring

    def _idle(self) -> bool:
        limit_s = self._options.until_idle_s
        return bool(limit_s and self._assigned) and time.monotonic() - self._busy_at >= limit_s

    def _check_alive(self) -> None:
        if self._failure:
            raise self._failure
        thread = self._consumer._thread
        if self.app.crashed or thread.crashed or self.app._fetcher.crashed:
            reason = self.app.crash_reason or thread.crash_reason or self.app._fetcher.crash_reason
            raise WorkerError(f"faust stopped consuming: {reason!r}: start the aggregator again")
        if thread._thread is None or not thread._thread.is_alive():
            raise WorkerError("faust's consumer thread is dead: start the aggregator again")

    async def _leave(self) -> None:
        for library in ("faust", "mode", "aiokafka"):  # whose tasks cry out as they are cancelled
            logging.getLogger(library).setLevel(logging.CRITICAL)
        try:
            await asyncio.wait_for(self.app.stop(), STOP_TIMEOUT_S)
        except TimeoutError:
            log.warning("the group could not be left within %g s", STOP_TIMEOUT_S)

    @property
    def _consumer(self) -> Any:
        return self.app.consumer

    @property
    def _held(self) -> set[TP]:
        held: set[TP] = self._consumer.held
        return held

    def _tp(self, topic: str, partition: int) -> TP:
        return TP(f"{self._settings.prefix}{topic}", partition)


def _record(topic: str, found: Any) -> Record:
    return Record(topic, found.partition, found.offset, found.timestamp, found.key, found.value)
