"""Buckets of event time: their names, when they end, and what takes an old one up.

    2026-11-22T19, 2026-11-22T19:15   as long as `--bucket-minutes` says, named by the start in UTC
    2026-11-22                        a day
    2026-11                           a month

A bucket is old by the partition's own clock of event time, never by the machine's: what is read again next year
falls into the same buckets.
"""

from calendar import monthrange
from datetime import UTC, datetime
from functools import lru_cache

from topics.errors import BadEvent
from topics.events import MAX_TIME_MS

DAY_MINUTES = 24 * 60
DAY_MS = DAY_MINUTES * 60_000
SHORT_KEPT_MS = 2 * DAY_MS
"""So long after the end of its day, what is shorter than a day goes into the day."""
DAYS_KEPT_MS = 60 * DAY_MS
"""So long after the end of its month, a day goes into the month."""
DAY, MONTH = len("2026-11-22"), len("2026-11")  # what tells their names apart


def bucket_of(event_time_ms: int, minutes: int = 60) -> str:
    """The start of the bucket in UTC: `2026-11-22T19`, or with minutes where a bucket is no whole hour.

    >>> bucket_of(1795369000000), bucket_of(1795369000000, 15)
    ('2026-11-22T17', '2026-11-22T17:30')
    """
    return _name(event_time_ms // (minutes * 60_000), minutes)


@lru_cache(maxsize=256)  # events come in few buckets at a time, and a name takes 10 µs to write
def _name(number: int, minutes: int) -> str:
    start = datetime.fromtimestamp(number * minutes * 60, UTC)
    return start.strftime("%Y-%m-%dT%H" if minutes % 60 == 0 else "%Y-%m-%dT%H:%M")


def is_rolled_up(bucket: str) -> bool:
    """Whether that is the name of a day or a month, which take up what was folded before."""
    return len(bucket) in (DAY, MONTH)


def minutes_of(bucket: str, minutes: int) -> int:
    """How long a bucket is: a day and a month as their names say, any other `minutes`. Raises BadEvent.

    >>> minutes_of("2026-11-22T19", 60), minutes_of("2026-11-22", 60), minutes_of("2026-11", 60)
    (60, 1440, 43200)
    """
    if len(bucket) == DAY:
        return DAY_MINUTES
    if len(bucket) == MONTH:
        start = _start(bucket)
        return monthrange(start.year, start.month)[1] * DAY_MINUTES
    return minutes


def end_of(bucket: str, minutes: int) -> int:
    """When a bucket ends, in epoch milliseconds; `minutes` counts where it is neither a day nor a month. Raises
    BadEvent where that is no bucket's name."""
    return int(_start(bucket).timestamp() * 1000) + minutes_of(bucket, minutes) * 60_000


def _start(bucket: str) -> datetime:
    try:
        return datetime.fromisoformat(f"{bucket}-01" if len(bucket) == MONTH else bucket).replace(tzinfo=UTC)
    except ValueError as error:
        raise BadEvent(f"{bucket[:60]!r} is no bucket's name, as 2026-11-22T19 is", "invalid") from error


def taken_up_by(bucket: str, minutes: int, clock_ms: int) -> str:
    """What takes a bucket up by that time: its day, the month of a day, or none but itself. Raises BadEvent.

    `minutes` is the length of the partition's shortest buckets: where they are days, they go into months at once.
    """
    due_ms, coarser = _taker(bucket, minutes)
    return coarser if clock_ms >= due_ms else bucket


@lru_cache(maxsize=4_096)  # asked for each late event
def _taker(bucket: str, minutes: int) -> tuple[int, str]:
    """When a bucket is taken up, always at a midnight in UTC, and by what."""
    if len(bucket) == MONTH:
        return MAX_TIME_MS, bucket
    day = _start(bucket).date().isoformat()
    if len(bucket) == DAY or minutes >= DAY_MINUTES:
        month = day[:MONTH]
        return end_of(month, 0) + DAYS_KEPT_MS, month
    return end_of(day, 0) + SHORT_KEPT_MS, day
