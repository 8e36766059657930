"""The router: utterances in, one decision each out, exactly once for a read-committed reader.

A batch is one Kafka transaction: decisions, dead letters and the consumed offsets commit together. Killed after
any line, the next router starts at the last commit, and what this one had not committed was never visible.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from confluent_kafka import Message, TopicPartition

from topics.registry import UTTERANCES
from topics.settings import MAX_POLL_INTERVAL_MS
from workers.canary import Lineup, decide_lineup
from workers.dead_letters import Ceiling, dead_letter
from workers.deciding import Answer, Batch, Selecting, decode_batch, trace_of
from workers.failpoints import reach
from workers.metrics import RouterMetrics, bounded_reason
from workers.serving import Serving
from workers.transactions import Headers, TransactionLost

log = logging.getLogger("namefree.router")


class Source(Protocol):
    """Utterances of the partitions that are ours; the methods say more in `workers.source`."""

    @property
    def owned(self) -> frozenset[int]: ...
    @property
    def joined(self) -> bool: ...
    def resume(self, restored: frozenset[int]) -> None: ...
    def poll(self) -> list[Message]: ...
    def positions(self) -> list[TopicPartition]: ...
    def membership(self) -> object: ...
    def rewind(self) -> None: ...
    def show_lag(self) -> None: ...


class Sink(Protocol):
    """Transactions; the methods say more in `workers.transactions`."""

    def begin(self) -> None: ...
    def produce(self, topic: str, key: bytes | None, value: bytes, headers: Headers = None) -> None: ...
    def commit(self, positions: list[TopicPartition], membership: Any) -> None: ...
    def abort(self) -> None: ...


class Links(Protocol):
    """Linked skills; the methods say more in `workers.links`."""

    @property
    def partitions(self) -> frozenset[int]: ...
    def linked(self, partition: int, customer_id: str) -> tuple[str, ...]: ...
    def update(self, owned: frozenset[int], stop: threading.Event, asked: bool = False) -> None: ...


class Skills(Protocol):
    """The catalogue's changes; the methods say more in `workers.skills`."""

    def update(self, selectors: Sequence[Selecting]) -> None: ...


class Live(Protocol):
    """Live statistics; the methods say more in `workers.live`."""

    def update(self, selectors: Sequence[Selecting]) -> None: ...


@dataclass(frozen=True)
class Commit:
    """What one committed batch was, for tests and for whoever watches: `namefree route --json`."""

    decided: int
    dead: int
    offsets: dict[str, int]  # partition -> the next offset
    release: str
    elapsed_s: float


def _silent(_commit: Commit) -> None:
    """Nobody watches."""


@dataclass
class Router:
    """The loop and what it works with. `decisions`, `shadow_decisions` and `dead_letters` are names of topics."""

    source: Source
    sink: Sink
    links: Links
    skills: Skills
    serving: Serving
    metrics: RouterMetrics
    ceiling: Ceiling
    decisions: str
    shadow_decisions: str
    dead_letters: str
    report: Callable[[Commit], None] = _silent
    live: Live | None = None  # None: none are followed
    stalled_after_s: float = MAX_POLL_INTERVAL_MS / 1000  # as long as the group's patience lasts
    turned_s: float = field(default_factory=time.monotonic)

    def run(self, stop: threading.Event, until_idle_s: float = 0.0) -> None:
        """Turns until `stop` is set, or until nothing came for `until_idle_s` (0: for ever)."""
        busy_s = time.monotonic()
        while not stop.is_set() and not 0 < until_idle_s < time.monotonic() - busy_s:
            self.turned_s = time.monotonic()
            messages = self.source.poll()  # 1. poll
            reach("router.after_poll")
            settled = self.is_ready()
            self.links.update(self.source.owned, stop, asked=bool(messages))
            self.source.resume(self.links.partitions)
            lineup = self.serving.lineup()
            self.skills.update(lineup.selectors if lineup else ())
            if self.live and lineup:
                self.live.update(lineup.selectors)
            self.source.show_lag()
            if messages and not stop.is_set():  # stopped while links were restored: decide nothing without them
                self._turn(messages, lineup)
            if messages or not settled:  # joining and restoring are no idleness
                busy_s = time.monotonic()

    def _turn(self, messages: list[Message], lineup: Lineup | None) -> None:
        if lineup is None:
            raise RuntimeError("the loop was started before a release served")
        start_s = time.monotonic()
        with self.metrics.stage("decode"):  # 2. decode
            batch = decode_batch(messages, self.links)
            reach("router.after_decode")
        with self.metrics.stage("decide"):  # 3. decide
            decide_lineup(batch, lineup, self.metrics)
            reach("router.after_decide")
        try:
            self.sink.begin()
            with self.metrics.stage("produce"):  # 4. produce
                self._produce(batch)
                reach("router.after_produce")
            positions = self.source.positions()
            with self.metrics.stage("commit"):  # 5. commit
                self.sink.commit(positions, self.source.membership())
        except TransactionLost as lost:
            self._start_over(lost)
            return
        offsets = {str(place.partition): place.offset for place in positions}
        elapsed_s = time.monotonic() - start_s
        self._count(batch, lineup)
        self.report(Commit(len(batch.answers), len(batch.refused), offsets, lineup.current.release, elapsed_s))
        self.ceiling.count(len(messages), len(batch.refused))

    def _produce(self, batch: Batch) -> None:
        for answer in batch.answers:
            self._answer(self.decisions, answer)
        for answer in batch.shadowed:
            self._answer(self.shadow_decisions, answer)
        for message, error in batch.refused:
            self.sink.produce(self.dead_letters, message.key(), dead_letter(message, error), trace_of(message))

    def _answer(self, topic: str, answer: Answer) -> None:
        key = answer.asked.utterance.customer_id.encode()
        self.sink.produce(topic, key, answer.value, trace_of(answer.asked.message))

    def _start_over(self, lost: TransactionLost) -> None:
        log.warning("the batch is done again: %s", lost)
        self.sink.abort()
        self.source.rewind()
        self.metrics.transactions.labels("aborted").inc()

    def _count(self, batch: Batch, lineup: Lineup) -> None:
        """Counts what was committed, and nothing before."""
        metrics = self.metrics
        metrics.transactions.labels("committed").inc()
        metrics.batch_size.observe(len(batch.answers) + len(batch.refused))
        metrics.consumed.labels(UTTERANCES.name).inc(len(batch.answers) + len(batch.refused))
        for action, count in Counter(answer.action for answer in batch.answers).items():
            metrics.decisions.labels(action).inc(count)
        if lineup.canary:
            of_canary = sum(answer.release == lineup.canary.selector.release for answer in batch.answers)
            metrics.trial_decisions.labels("canary").inc(of_canary)
        metrics.trial_decisions.labels("shadow").inc(len(batch.shadowed))
        for _message, error in batch.refused:
            metrics.dead_letters.labels(UTTERANCES.name, bounded_reason(error.reason)).inc()
        now_ms = time.time() * 1000
        for answer in batch.answers:
            metrics.end_to_end_s.observe(max(0.0, now_ms - answer.asked.utterance.event_time_ms) / 1000)

    def is_live(self) -> bool:
        """False where the loop has not turned for `stalled_after_s`."""
        return time.monotonic() - self.turned_s < self.stalled_after_s

    def is_ready(self) -> bool:
        """True once the group has given out its partitions and the links of ours are restored."""
        return self.source.joined and self.source.owned <= self.links.partitions
