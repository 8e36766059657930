"""Names of buckets: when they end, and what takes them up."""

from datetime import UTC, datetime

import pytest

from topics.errors import BadEvent
from workers.buckets import bucket_of, end_of, is_rolled_up, minutes_of, taken_up_by

T0_MS = 1_795_366_800_000  # 2026-11-22T17:00 UTC
HOUR_MS = 3_600_000


def ms(time: str) -> int:
    return int(datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp() * 1000)


def test_a_bucket_is_named_by_its_start_in_utc() -> None:
    assert bucket_of(0) == "1970-01-01T00"
    assert bucket_of(T0_MS + HOUR_MS - 1) == "2026-11-22T17"
    assert bucket_of(T0_MS + 16 * 60_000, minutes=15) == "2026-11-22T17:15"
    assert bucket_of(253_402_300_799_999) == "9999-12-31T23"


@pytest.mark.parametrize(
    ("bucket", "minutes", "ends"),
    [
        ("2026-11-22T19", 60, "2026-11-22T20:00"),
        ("2026-11-22T19:15", 15, "2026-11-22T19:30"),
        ("2026-11-22T00", 1440, "2026-11-23"),
        ("2026-11-30", 60, "2026-12-01"),
        ("2026-12", 60, "2027-01-01"),
        ("2028-02", 60, "2028-03-01"),
        ("2027-02", 60, "2027-03-01"),
    ],
)
def test_it_ends_where_the_next_one_begins(bucket: str, minutes: int, ends: str) -> None:
    assert end_of(bucket, minutes) == ms(ends)


@pytest.mark.parametrize(
    ("bucket", "days"), [("2026-11-22", 1), ("2026-11", 30), ("2026-12", 31), ("2028-02", 29), ("2027-02", 28)]
)
def test_days_and_months_are_as_long_as_their_names_say(bucket: str, days: int) -> None:
    assert minutes_of(bucket, 60) == days * 1440


def test_even_the_last_month_has_an_end() -> None:
    assert end_of("9999-12", 60) == end_of("9999-12-31", 60) == end_of("9999-12-31T23", 60) == 253_402_300_800_000


@pytest.mark.parametrize("name", ["", "2026", "2026-13", "2026-1x", "2026-11-31", "2026-11-22T25", "yesterday"])
def test_what_is_no_name_is_an_error(name: str) -> None:
    with pytest.raises(BadEvent, match="is no bucket's name"):
        end_of(name, 60)


@pytest.mark.parametrize(
    ("bucket", "minutes", "clock", "taken_up"),
    [
        ("2026-11-22T00", 60, "2026-11-24T23:59", "2026-11-22T00"),
        ("2026-11-22T00", 60, "2026-11-25", "2026-11-22"),
        ("2026-11-22T23:45", 15, "2026-11-25", "2026-11-22"),
        ("2026-11-22T23", 60, "2030-01-01", "2026-11-22"),  # a step at a time
        ("2026-11-01", 60, "2027-01-29T23:59", "2026-11-01"),
        ("2026-11-01", 60, "2027-01-30", "2026-11"),
        ("2026-11", 60, "9999-01-01", "2026-11"),
        ("2026-11-22T00", 1440, "2027-01-29T23:59", "2026-11-22T00"),
        ("2026-11-22T00", 1440, "2027-01-30", "2026-11"),
    ],
)
def test_a_day_takes_up_what_is_two_days_old_and_a_month_what_is_sixty(
    bucket: str, minutes: int, clock: str, taken_up: str
) -> None:
    assert taken_up_by(bucket, minutes, ms(clock)) == taken_up


def test_days_and_months_are_told_from_hours_by_their_names() -> None:
    names = ("2026-11", "2026-11-22", "2026-11-22T00", "2026-11-22T00:15")
    assert [is_rolled_up(name) for name in names] == [True, True, False, False]
