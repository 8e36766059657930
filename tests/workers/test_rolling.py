"""Old buckets are rolled up: no count changes, whoever is killed when, and time alone says where each stands."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.statistics import Statistics, merge_all
from tests.workers.test_folding import HOUR_MS, T0_MS, decision, interleaved, outcome, plainly, total
from topics import codec
from topics.events import OutcomeKind, StatisticsFold
from workers.folding import PartitionFold
from workers.records import Record, read_decision

DAY_MS = 24 * HOUR_MS
GAPS_MS = [HOUR_MS // 2, 3 * HOUR_MS, 20 * HOUR_MS, 2 * DAY_MS, 11 * DAY_MS, 45 * DAY_MS]
LATE_MS = [0, 0, 0, HOUR_MS, 2 * DAY_MS, 5 * DAY_MS, 80 * DAY_MS, -100 * DAY_MS]  # the last has a clock gone mad


@st.composite
def months(draw: st.DrawFn) -> tuple[list[Record], list[Record]]:
    """Both topics of a partition over weeks and months of record time, some events late, most answered."""
    at_ms = 0
    decided: list[Record] = []
    answered: list[Record] = []
    for i, (gap_ms, late_ms, kind) in enumerate(
        draw(
            st.lists(
                st.tuples(*map(st.sampled_from, (GAPS_MS, LATE_MS, [*OutcomeKind, None]))), min_size=1, max_size=14
            )
        )
    ):
        at_ms += gap_ms
        decided.append(decision(i, f"u-{i}", at_ms, event_ms=at_ms - late_ms))
        if kind is not None:
            answered.append(outcome(len(answered), f"u-{i}", at_ms + 1, kind=kind, skill_id="rides:bolt"))
    return decided, answered


def by_the_calendar(hours: dict[str, Statistics], decided: list[Record]) -> dict[str, Statistics]:
    """Where the counts of each hour have to stand, worked out apart from the product's way."""
    clock_ms = max(min(read_decision(record).event_time_ms, record.timestamp_ms) for record in decided)
    clock = datetime.fromtimestamp(clock_ms / 1000, UTC)
    parts: dict[str, list[Statistics]] = {}
    for hour, counts in hours.items():
        day = datetime.fromisoformat(hour).replace(tzinfo=UTC, hour=0)
        next_month = (day.replace(day=1) + timedelta(days=31)).replace(day=1)
        if clock >= next_month + timedelta(days=60):
            name = day.strftime("%Y-%m")
        elif clock >= day + timedelta(days=1 + 2):
            name = day.strftime("%Y-%m-%d")
        else:
            name = hour
        parts.setdefault(name, []).append(counts)
    return {name: merge_all(same) for name, same in parts.items()}


@contextmanager
def hours_for_ever() -> Iterator[None]:
    with patch("workers.rolling.taken_up_by", lambda bucket, *_: bucket):
        yield


@settings(deadline=None)
@given(months(), st.data())
def test_a_roll_up_moves_counts_and_changes_none(
    both: tuple[list[Record], list[Record]], data: st.DataObject
) -> None:
    decided, answered = both
    with hours_for_ever():
        hours = plainly(decided + answered)
    assert plainly(interleaved(data.draw, decided, answered)) == by_the_calendar(hours, decided)


class Cluster:
    """What a killed worker leaves behind: folds by key as a fresh reader finds them, and the group's offsets."""

    def __init__(self, both: tuple[list[Record], list[Record]]) -> None:
        self.both = both
        self.folds: dict[str, bytes] = {}
        self.committed = {"decisions": 0, "outcomes": 0}

    def write(self, found: PartitionFold) -> None:
        """All of it in one transaction."""
        self.folds.update({one.bucket: codec.encode(one) for one in found.changed(0)})
        assert found.gone <= self.folds.keys() - found.statistics().keys()
        for bucket in found.gone:
            del self.folds[bucket]
        found.written()
        assert self.cells() == found.statistics()

    def cells(self) -> dict[str, Statistics]:
        return {bucket: Statistics.from_fold(fold) for bucket, fold in self._read().items()}

    def restored(self) -> PartitionFold:
        """Only the last two join windows are read again, as `restoring` does."""
        found = PartitionFold(0, folds=list(self._read().values()), committed=self.committed)
        complete = [r for topic in self.both for r in topic if r.offset < found.complete[r.topic]]
        left = [r.timestamp_ms for topic in self.both for r in topic if r.offset >= found.complete[r.topic]]
        for record in complete:
            if record.timestamp_ms >= min(left, default=0) - 2 * HOUR_MS:
                found.take(record)
        found.resume()
        assert not found.dirty
        assert not found.gone
        return found

    def _read(self) -> dict[str, StatisticsFold]:
        return {bucket: codec.decode(value, StatisticsFold) for bucket, value in self.folds.items()}


@settings(max_examples=200, deadline=None)
@given(months(), st.data())
def test_killed_at_any_moment_over_months_it_stands_as_if_nothing_had_happened(
    both: tuple[list[Record], list[Record]], data: st.DataObject
) -> None:
    """Killed before a write, after it or after the commit, and restored from what a reader finds then."""
    cluster = Cluster(both)
    for _ in range(data.draw(st.integers(1, 5), "lives")):
        found = cluster.restored()
        again = [r for topic in both for r in topic if r.offset >= cluster.committed[r.topic]]
        todo = interleaved(data.draw, *([r for r in again if r.topic == t] for t in cluster.committed))
        for record in todo[: data.draw(st.integers(0, len(todo)), "taken")]:
            found.take(record)
            if data.draw(st.booleans(), "written"):
                cluster.write(found)
                if data.draw(st.booleans(), "committed"):
                    cluster.committed = dict(found.positions)
    last = cluster.restored()
    for record in both[0] + both[1]:
        last.take(record)
    cluster.write(last)
    assert cluster.cells() == plainly(both[0] + both[1])


def buckets(*records: Record, **given: Any) -> list[str]:
    found = PartitionFold(0, **given)
    for record in records:
        found.take(record)
    return sorted(found.statistics())


def test_events_days_old_that_come_now_stand_by_the_hour() -> None:
    old = [decision(i, f"u-{i}", at_ms=9 * DAY_MS, event_ms=i * HOUR_MS) for i in range(3)]
    assert buckets(*old) == ["2026-11-22T17", "2026-11-22T18", "2026-11-22T19"]


def test_an_event_from_far_ahead_tells_no_time_beyond_its_record() -> None:
    ahead = decision(0, event_ms=300 * DAY_MS)
    assert buckets(ahead, decision(1, "u-1")) == ["2026-11-22T17", "2027-09-18T17"]


def test_an_event_that_comes_days_late_goes_straight_into_its_day_and_weeks_late_into_its_month() -> None:
    late = [decision(i, f"u-{i}", event_ms=-days * DAY_MS) for i, days in enumerate((0, 2, 3, 120))]
    assert buckets(*late) == ["2026-07", "2026-11-19", "2026-11-20T17", "2026-11-22T17"]


@pytest.mark.parametrize(("minutes", "old"), [(15, "2026-11-22"), (60, "2026-11-22"), (1440, "2026-11-22T00")])
def test_what_is_shorter_than_a_day_goes_into_days(minutes: int, old: str) -> None:
    found = buckets(decision(0), decision(1, "u-1", at_ms=4 * DAY_MS), bucket_minutes=minutes)
    assert found[0] == old
    months = buckets(decision(0), decision(1, "u-1", at_ms=80 * DAY_MS), bucket_minutes=minutes)
    assert months[0] == "2026-11"


def test_a_day_and_a_month_say_how_long_they_are_and_up_to_where_time_had_come() -> None:
    found = PartitionFold(0)
    for i, days in enumerate((-120, -4, 0)):
        found.take(decision(i, f"u-{i}", event_ms=days * DAY_MS))
    told = {one.bucket: (one.minutes, one.newest_ms - T0_MS) for one in found.changed(0)}
    assert told == {"2026-07": (31 * 1440, 0), "2026-11-18": (1440, 0), "2026-11-22T17": (60, 0)}


def test_folds_of_before_there_was_a_clock_are_rolled_up_once_they_are_restored() -> None:
    with hours_for_ever():
        old = PartitionFold(0)
        for day in range(100):
            old.take(decision(day, f"u-{day}", at_ms=day * DAY_MS))
        folds = old.changed(0)
    for fold in folds:
        fold.newest_ms = 0
    found = PartitionFold(0, folds=folds)
    found.take(decision(99, "u-99", at_ms=99 * DAY_MS))  # read again
    assert (len(folds), total(found)) == (100, total(old))
    assert set(found.statistics()) == {"2026-11"} | {one for one in found.statistics() if one >= "2026-12-01"}
    assert found.gone == {fold.bucket for fold in folds} - found.statistics().keys()
    assert len(found.gone) == 97
    assert found.folded["decision"] == 0


def test_with_shorter_buckets_than_before_old_ones_join_what_came_late_meanwhile() -> None:
    by_day = PartitionFold(0, bucket_minutes=1440)
    by_day.take(decision(0))
    by_day.take(decision(1, "u-1", at_ms=5 * DAY_MS))
    found = PartitionFold(0, folds=by_day.changed(0))
    found.take(decision(2, "u-2", at_ms=5 * DAY_MS, event_ms=HOUR_MS))
    assert set(found.statistics()) == {"2026-11-22", "2026-11-22T00", "2026-11-27T00"}
    found.take(decision(3, "u-3", at_ms=6 * DAY_MS))
    told = {name: counts.decisions for name, counts in found.statistics().items()}
    assert told == {"2026-11-22": 2, "2026-11-27T00": 1, "2026-11-28T17": 1}


def test_what_would_be_too_large_together_stays_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fold must fit a message: its hours stay, what comes later counts in them, and nothing is lost."""
    monkeypatch.setattr("workers.rolling.LARGEST_TAKEN_UP_BYTES", 100)
    found = PartitionFold(0)
    days = (0, 3, 4, 100)
    for i, day in enumerate(days):
        found.take(decision(i, f"u-{i}", at_ms=day * DAY_MS))
    found.take(decision(4, "u-4", at_ms=100 * DAY_MS, event_ms=0))
    found.take(decision(5, "u-5", at_ms=100 * DAY_MS, event_ms=HOUR_MS))  # no fold of that hour stands
    assert {name: counts.decisions for name, counts in found.statistics().items()} == {
        "2026-11-22T17": 2,
        "2026-11-25T17": 1,
        "2026-11-26T17": 1,
        "2027-03-02T17": 1,
        "2026-11": 1,
    }
    assert found.gone == set()
