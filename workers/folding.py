"""Joins outcomes to decisions and folds both, for one partition; no Kafka in here.

What is folded is a function of the two topics' prefixes alone, however the topics were read beside each other:

- An outcome joins the first decision of its customer and utterance; a second outcome of one is a duplicate.
- Both must stand within the join window of each other by the records' own times: one clock with Kafka's search
  by time, and one that the broker bounds, which event times are not.
- A decision, and the outcome joined to it, count in the bucket of the decision's event time.
  Old buckets go into their days, old days into their months, by a clock that the decisions tell: see
  `workers.rolling`.
- All changed folds are written together, each with the positions reached. So with D and O the highest offsets
  recorded in any fold, the folds hold the decisions before D and the pairs of a decision before D and an outcome
  before O: whatever is read again is known to be in or not.
"""

import hashlib
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from sys import intern

from model.statistics import Statistics, expected_millionths, linked_skills
from topics.errors import BadEvent
from topics.events import Decision, Outcome, StatisticsFold
from topics.registry import DECISIONS, OUTCOMES
from workers.buckets import bucket_of
from workers.records import Record, Refused, read_decision, read_outcome
from workers.rolling import RollingCounts

GRACE_MS = 60_000
"""What is beyond the window is forgotten this much later: longer than records may be out of order."""

MAX_EARLY = 10_000
"""Outcomes that may wait for decisions not read yet before their topic has to wait: some megabytes."""

MAX_AHEAD = 10_000
"""Decisions that may wait for outcomes from beyond the join window before their topic has to wait. A marketplace
without any outcome is such a case: its first statistics must not wait for outcomes that do not come."""

SLICES = 8
"""Decisions are kept, and forgotten, by slices of one to two eighths of the time that they are kept. Not of one
length, since a dict's table doubles at some size: all would double at once where the rate rises a little."""

NOTHING = {DECISIONS.name: 0, OUTCOMES.name: 0}


@dataclass(slots=True)
class _Chosen:
    """What is kept of a decision until its outcome comes: a few hundred bytes."""

    timestamp_ms: int
    offset: int
    bucket: str
    skill_id: str | None
    linked: tuple[str, ...]
    expected: int  # the probability of the choice, in millionths


_Early = tuple[Record, Outcome]
_Known = _Chosen | int
"""What is known of a decision: all that its outcome needs while it waits for that, afterwards only when it was
recorded, so that what comes again is known until the window is over."""


class PartitionFold:
    """The state of one partition: feed it the records of both topics, each topic in order of its offsets.

    `folds` are what was written before, `committed` the group's offsets. What stands before those, or before an
    offset that a fold recorded, is complete: it is read again only to know what waits, joined and not folded.
    """

    def __init__(
        self,
        partition: int,
        bucket_minutes: int = 60,
        window_ms: int = 3_600_000,
        folds: Sequence[StatisticsFold] = (),
        committed: dict[str, int] = NOTHING,
    ) -> None:
        self.partition = partition
        self.positions = dict(NOTHING)  # the next offset of each topic
        self.refused: list[Refused] = []
        self.folded = {"decision": 0, "outcome": 0, "duplicate": 0}
        self.waiting = 0  # decisions without an outcome
        self._minutes = bucket_minutes
        self._window_ms = window_ms
        recorded = [committed, *(fold.offsets for fold in folds)]
        self.complete = {topic: max(offsets.get(topic, 0) for offsets in recorded) for topic in NOTHING}
        self._clock_ms = dict(NOTHING)
        self._decided: deque[tuple[int, dict[int, _Known]]] = deque()  # by slices, each until some time
        self._slices = 0  # that there ever were
        self._early: dict[int, _Early] = {}  # outcomes that wait for their decisions, the oldest first
        self._counts = RollingCounts(partition, bucket_minutes, folds)

    @property
    def early(self) -> int:
        """Outcomes without a decision."""
        return len(self._early)

    @property
    def dirty(self) -> set[str]:
        """The buckets that changed since `written`."""
        return self._counts.dirty

    @property
    def gone(self) -> set[str]:
        """The buckets whose folds on the cluster were taken up since `written`: they end with the next write."""
        return self._counts.gone

    def take(self, record: Record) -> bool:
        """Takes a record in; False where it was taken before. A malformed one goes to `refused`."""
        if record.offset < self.positions[record.topic]:
            return False
        self.positions[record.topic] = record.offset + 1
        self._clock_ms[record.topic] = max(self._clock_ms[record.topic], record.timestamp_ms)
        try:
            if record.topic == DECISIONS.name:
                self._take_decision(record, read_decision(record))
            else:
                self._take_outcome(record, read_outcome(record))
        except BadEvent as error:
            self.refused.append(Refused(record, error))
        return True

    def expire(self, now_ms: int, idle: Iterable[str] = ()) -> None:
        """Forgets decisions, and refuses outcomes, whose other half can no longer come.

        How far each topic has been read decides, not how late it is: a worker that catches up forgets nothing
        too soon. A topic in `idle` has been read to its end, so for it the time is `now_ms`.
        """
        clock_ms = self._clock_ms | dict.fromkeys(idle, now_ms)
        kept_ms = self._window_ms + GRACE_MS
        while self._decided and self._decided[0][0] + kept_ms < clock_ms[OUTCOMES.name]:
            self.waiting -= sum(isinstance(one, _Chosen) for one in self._decided.popleft()[1].values())
        late = [
            key
            for key, (record, _) in self._early.items()
            if record.timestamp_ms + kept_ms < clock_ms[DECISIONS.name]
        ]
        for key in late:
            self._refuse_unknown(self._early.pop(key)[0])

    def resume(self) -> None:
        """Ends the reading again of what was complete: what was refused then was told then.

        Only what was read again tells the time here, so that an outcome that still waited is told later, at the
        price that one refused because its topic was idle may be told twice.
        """
        self.expire(now_ms=0)
        self.refused.clear()
        self.folded = dict.fromkeys(self.folded, 0)
        self.positions = {topic: max(at, self.complete[topic]) for topic, at in self.positions.items()}

    def ahead(self) -> str | None:
        """The topic that should wait for the other, so that memory stays bounded in a long catch-up."""
        if self.early > MAX_EARLY:
            return OUTCOMES.name
        behind_ms = self._clock_ms[DECISIONS.name] - self._clock_ms[OUTCOMES.name]
        far = behind_ms > self._window_ms and self.waiting > MAX_AHEAD
        return DECISIONS.name if far else None

    def changed(self, event_time_ms: int) -> list[StatisticsFold]:
        """The folds of the changed buckets, at the present positions; encode them before the next `take`.

        Where something was refused there is one at least: what was told, and how far was read, stand or fall
        together.
        """
        if self.refused:
            self._counts.touch(bucket_of(self.refused[0].record.timestamp_ms, self._minutes))
        return self._counts.changed(dict(self.positions), event_time_ms)

    def written(self) -> None:
        """Tells that all of `changed`, `gone` and `refused` is on the cluster for good."""
        self._counts.written()
        self.refused.clear()

    def statistics(self) -> dict[str, Statistics]:
        """bucket -> its counts."""
        return dict(self._counts.by_bucket)

    def _take_decision(self, record: Record, decision: Decision) -> None:
        self._counts.tell_time(min(decision.event_time_ms, record.timestamp_ms))
        bucket = intern(bucket_of(decision.event_time_ms, self._minutes))
        if record.offset >= self.complete[DECISIONS.name]:
            self._changing("decision", bucket).fold(decision)
        linked = tuple(intern(skill_id) for skill_id in linked_skills(decision))
        skill_id = decision.skill_id and intern(decision.skill_id)
        expected = expected_millionths(decision)
        clock_ms = self._clock_ms[DECISIONS.name]
        # one number for all of a millisecond, as decisions come in bursts
        timestamp_ms = clock_ms if clock_ms == record.timestamp_ms else record.timestamp_ms
        chosen = _Chosen(timestamp_ms, record.offset, bucket, skill_id, linked, expected)
        self._meet(_key(decision), chosen)

    def _meet(self, key: int, chosen: _Chosen) -> None:
        """A decision joins the outcome that came before it, or waits for one, or is a repetition."""
        known, first = self._find(key)
        if first is not None and self._near(_decided_ms(first), chosen.timestamp_ms):
            return  # the first decision keeps the outcome
        if isinstance(first, _Chosen):
            known[key] = first.timestamp_ms  # from now on outcomes are this one's
            self.waiting -= 1
        early = self._early.pop(key, None)
        if early and not self._near(early[0].timestamp_ms, chosen.timestamp_ms):
            self._refuse_unknown(early[0])
            early = None
        self._slice(chosen.timestamp_ms)[key] = chosen.timestamp_ms if early else chosen
        if early:
            self._fold_pair(chosen, *early)
        else:
            self.waiting += 1

    def _take_outcome(self, record: Record, outcome: Outcome) -> None:
        key = _key(outcome)
        known, decision = self._find(key)
        if isinstance(decision, int) or key in self._early:
            self.folded["duplicate"] += 1
        elif decision is None:
            self._early[key] = (record, outcome)
        elif self._near(decision.timestamp_ms, record.timestamp_ms):
            self._fold_pair(decision, record, outcome)
            known[key] = decision.timestamp_ms
            self.waiting -= 1
        else:
            self._refuse_unknown(record)

    def _find(self, key: int) -> tuple[dict[int, _Known], _Known | None]:
        """The newest decision of an utterance, and the slice that it is kept in."""
        for _, known in reversed(self._decided):
            if key in known:
                return known, known[key]
        return {}, None

    def _slice(self, timestamp_ms: int) -> dict[int, _Known]:
        """Where a decision of that time is kept."""
        if not self._decided or timestamp_ms > self._decided[-1][0]:
            length_ms = (self._window_ms + GRACE_MS) / SLICES * 2 ** (self._slices % SLICES / SLICES)
            self._decided.append((timestamp_ms + int(length_ms), {}))
            self._slices += 1
        return self._decided[-1][1]

    def _fold_pair(self, chosen: _Chosen, record: Record, outcome: Outcome) -> None:
        if chosen.offset >= self.complete[DECISIONS.name] or record.offset >= self.complete[OUTCOMES.name]:
            statistics = self._changing("outcome", chosen.bucket)
            statistics.fold_outcome(
                chosen.skill_id, chosen.linked, outcome.outcome, outcome.skill_id, chosen.expected
            )

    def _changing(self, kind: str, bucket: str) -> Statistics:
        self.folded[kind] += 1
        return self._counts.changing(bucket)

    def _near(self, one_ms: int, other_ms: int) -> bool:
        return abs(one_ms - other_ms) <= self._window_ms

    def _refuse_unknown(self, record: Record) -> None:
        minutes = self._window_ms / 60_000
        why = f"Outcome at {record.source}: no decision of its customer and utterance within {minutes:g} minutes"
        self.refused.append(Refused(record, BadEvent(why, "unknown_utterance")))


def _decided_ms(known: _Known) -> int:
    return known if isinstance(known, int) else known.timestamp_ms


def _key(event: Decision | Outcome) -> int:
    """A digest of whose utterance it is, 128 bits, which do not meet by chance: 48 bytes however long ids are."""
    name = f"{event.customer_id}\0{event.utterance_id}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=16).digest())


def fold_records(
    records: Iterable[Record], bucket_minutes: int = 60, window_ms: int = 3_600_000
) -> dict[tuple[str, int], Statistics]:
    """(bucket, partition) -> counts of a stretch of both topics, folded plainly from nothing; old buckets are
    rolled up by the stretch's own clock, so that the cells are those on the cluster."""
    partitions: dict[int, PartitionFold] = {}
    for record in records:
        if record.partition not in partitions:
            partitions[record.partition] = PartitionFold(record.partition, bucket_minutes, window_ms)
        partitions[record.partition].take(record)
    for fold in partitions.values():
        fold.changed(0)  # who refused everything has a cell with nothing in it
    return {
        (bucket, number): counts
        for number, fold in partitions.items()
        for bucket, counts in fold.statistics().items()
    }
