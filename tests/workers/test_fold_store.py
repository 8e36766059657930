"""What is read from the statistics topic: sums that may decay with age, and the cut that they were made from."""

import json
import logging
from typing import Any

import pytest

from model.statistics import Statistics
from topics import codec
from topics.events import SkillCounts, SkillStatistics, StatisticsFold
from workers.fold_store import fold_in, known_from

HOUR_MS = 3_600_000
T0_MS = 1_795_366_800_000  # 2026-11-22T17:00 UTC


def fold(bucket: str, partition: int = 0, chosen: int = 8, **fields: Any) -> StatisticsFold:
    given = {"event_time_ms": T0_MS, "offsets": {"decisions": chosen, "outcomes": 1}, **fields}
    skills = {"rides:acme": SkillStatistics(linked=SkillCounts(chosen=chosen, offered=[chosen]))}
    return StatisticsFold(bucket=bucket, partition=partition, decisions=chosen, skills=skills, **given)


def chosen(known: Statistics) -> float:
    return known.skills["rides:acme"].linked.chosen


def test_a_bucket_counts_less_by_the_age_of_its_end() -> None:
    folds = [fold("2026-11-22T15"), fold("2026-11-22T16:30", minutes=30), fold("2026-11-22T18")]
    now_ms = T0_MS + HOUR_MS // 2
    one = known_from(folds, half_life_hours=0.5, now_ms=now_ms).statistics
    assert chosen(one) == 8 / 2**3 + 8 / 2 + 8  # ended at 16:00, at 17:00, and not yet
    assert (one.decisions, one.skills["rides:acme"].linked.offered) == (13, [13])


def test_days_and_months_age_from_their_ends_too() -> None:
    day_ms = 24 * HOUR_MS
    folds = [fold("2026-09", minutes=30 * 1440), fold("2026-10-31", minutes=1440), fold("2026-11-01T00")]
    now_ms = T0_MS - 17 * HOUR_MS - 21 * day_ms  # 2026-11-01T00:00 UTC
    one = known_from(folds, half_life_hours=31 * 24, now_ms=now_ms).statistics
    assert chosen(one) == 8 / 2 + 8 + 8
    misnamed = [fold("2026-09", minutes=1), fold("2026-10-31", minutes=1), fold("2026-11-01T00")]
    assert known_from(misnamed, half_life_hours=31 * 24, now_ms=now_ms).statistics == one


def test_without_a_half_life_counts_are_whole_whatever_their_age() -> None:
    known = known_from([fold("2026-01-01T00"), fold("2026-11-22T18")], half_life_hours=0, now_ms=None)
    assert known.statistics.to_json() == Statistics.from_fold(fold("2026-11-22T18", chosen=16)).to_json()


def test_by_default_it_is_as_of_the_last_write_so_that_equal_folds_read_alike() -> None:
    folds = [fold("2026-11-22T10"), fold("2026-11-22T12", event_time_ms=T0_MS + 5)]
    known = known_from(folds, half_life_hours=3, now_ms=None)
    assert known.now_ms == T0_MS + 5
    assert known.statistics == known_from(folds, half_life_hours=3, now_ms=T0_MS + 5).statistics


def test_a_cut_names_the_highest_offsets_of_each_partition_and_the_buckets_apart() -> None:
    folds = [fold("2026-11-22T15", chosen=3), fold("2026-11-22T16", chosen=9), fold("2026-11-22T16", 1, chosen=4)]
    known = known_from(folds, half_life_hours=1, now_ms=T0_MS)
    assert known.offsets == {("decisions", 0): 9, ("decisions", 1): 4, ("outcomes", 0): 1, ("outcomes", 1): 1}
    assert {name: chosen(counts) for name, counts in known.buckets.items()} == {
        "2026-11-22T15": 3,
        "2026-11-22T16": 13,
    }


def test_nothing_is_known_of_no_folds() -> None:
    known = known_from([], half_life_hours=1, now_ms=None)
    assert (known.statistics, known.offsets, known.buckets) == (Statistics(), {}, {})


def test_a_fold_that_is_no_sum_of_whole_counts_is_passed_over_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    good = json.loads(codec.encode(fold("2026-11-22T17")))
    side = {"linked": {"chosen": 1.5}}
    bad = [
        good | {"bucket": "yesterday"},
        good | {"bucket": "2026-13"},
        good | {"decisions": 0.5},
        good | {"skills": {"rides:acme": side}},
        {},
    ]
    bad += [good | {"taken_instead": {"a": {"b": 0.1}}}, good | {"skills": {"a": {"linked": {"offered": [0.5]}}}}]
    for name in ("2026-11-22T17", "2026-11-22", "2026-11"):
        assert fold_in(b"key", json.dumps(good | {"bucket": name}).encode()) == fold(name)
    with caplog.at_level(logging.WARNING):
        assert [fold_in(b"key", json.dumps(one).encode()) for one in bad] == [None] * len(bad)
    assert len(caplog.records) == len(bad)
    assert "'yesterday' is no bucket's name" in caplog.text
