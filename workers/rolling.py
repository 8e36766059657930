"""A partition's counts by bucket of event time: old buckets go into their days, old days into their months.

The clock is the newest event time of the decisions, none counted as later than its record, so that no far-off one
can spoil it. So where an event counts is a function of its own time and of the decisions up to the offset reached,
however they were read. Only what would be too large together stays apart; how large it is by then, outcomes
say too.
"""

from collections.abc import Sequence

import msgspec

from model.statistics import Statistics, merge_all
from topics.events import MAX_FOLD_BYTES, StatisticsFold
from workers.buckets import DAY, DAY_MS, MONTH, minutes_of, taken_up_by

NOTHING = Statistics()
LARGEST_TAKEN_UP_BYTES = MAX_FOLD_BYTES // 2
"""What would be larger together stays apart: late events may still make it grow, and it must fit a message."""


class RollingCounts:
    """`folds` are those that were written before, of `partition`; new buckets are `minutes` long."""

    def __init__(self, partition: int, minutes: int, folds: Sequence[StatisticsFold]) -> None:
        self.by_bucket = {fold.bucket: Statistics.from_fold(fold) for fold in folds}
        self.dirty: set[str] = set()  # buckets that changed since `written`
        self.gone: set[str] = set()  # buckets on the cluster that others took up since `written`
        self._partition = partition
        self._minutes = minutes
        self._newest_ms = max((fold.newest_ms for fold in folds), default=0)
        self._on_cluster = set(self.by_bucket)
        self._apart: set[str] = set()  # days and months that would be too large
        self._hollow = next((name for name, counts in self.by_bucket.items() if counts == NOTHING), None)

    def tell_time(self, time_ms: int) -> None:
        """Takes in the event time of a decision, or its record's where that is earlier."""
        before_ms, self._newest_ms = self._newest_ms, max(self._newest_ms, time_ms)
        if self._newest_ms // DAY_MS > before_ms // DAY_MS:  # nothing is due but at midnight
            self._roll_up()

    def changing(self, bucket: str) -> Statistics:
        """The counts to fold into: the bucket's own while it stands or is young, else of what takes it up."""
        while bucket not in self.by_bucket and (coarser := self._taken_up_by(bucket)) != bucket:
            bucket = coarser
        if self._hollow is not None:
            self._fill_or_drop(bucket)
        self.dirty.add(bucket)
        return self.by_bucket.setdefault(bucket, Statistics())

    def touch(self, bucket: str) -> None:
        """If no bucket changed, the newest counts as changed; where there is none, `bucket` with nothing in it,
        until there is one with something."""
        if not self.by_bucket:
            self.by_bucket[bucket], self._hollow = Statistics(), bucket
        if not self.dirty:
            self.dirty.add(max(self.by_bucket))

    def changed(self, offsets: dict[str, int], event_time_ms: int) -> list[StatisticsFold]:
        """The folds of the changed buckets; they share the counts."""
        return [
            self._fold_of(bucket, self.by_bucket[bucket], offsets, event_time_ms) for bucket in sorted(self.dirty)
        ]

    def written(self) -> None:
        """Tells that all of `changed` and `gone` is on the cluster for good."""
        self._on_cluster = (self._on_cluster | self.dirty) - self.gone
        self.dirty.clear()
        self.gone.clear()

    def _fill_or_drop(self, bucket: str) -> None:
        """`bucket` gets something: the one with nothing in it is that, or it goes."""
        hollow, self._hollow = self._hollow, None
        if hollow is not None and hollow != bucket:
            del self.by_bucket[hollow]
            self.dirty.discard(hollow)
            self.gone |= self._on_cluster & {hollow}

    def _taken_up_by(self, bucket: str) -> str:
        return taken_up_by(bucket, self._minutes, self._newest_ms)

    def _roll_up(self) -> None:
        for level in (DAY, MONTH):
            parts: dict[str, list[str]] = {}
            for bucket in self.by_bucket:
                coarser = self._taken_up_by(bucket)
                if len(coarser) == level and coarser not in self._apart and bucket not in (coarser, self._hollow):
                    parts.setdefault(coarser, []).append(bucket)
            for coarser, taken in parts.items():
                self._take_up(coarser, taken)

    def _take_up(self, coarser: str, taken: list[str]) -> None:
        """All of `taken` or, where that would be too large, none."""
        own = [coarser] if coarser in self.by_bucket else []
        together = merge_all(self.by_bucket[bucket] for bucket in own + taken)
        if len(msgspec.json.encode(self._fold_of(coarser, together, {}, 0))) > LARGEST_TAKEN_UP_BYTES:
            self._apart.add(coarser)  # for good: counts only grow
            return
        self.by_bucket[coarser] = together
        for bucket in taken:
            del self.by_bucket[bucket]
        self.dirty = (self.dirty - set(taken)) | {coarser}
        self.gone |= self._on_cluster & set(taken)

    def _fold_of(
        self, bucket: str, counts: Statistics, offsets: dict[str, int], event_time_ms: int
    ) -> StatisticsFold:
        minutes = minutes_of(bucket, self._minutes)
        fold = counts.to_fold(bucket, self._partition, offsets, event_time_ms, minutes)
        fold.newest_ms = self._newest_ms
        return fold
