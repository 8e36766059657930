"""Folds as live statistics follow them: so much of each as says how skills did, and what it has gained since."""

from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

from model.live import Answers, Gained
from topics.errors import BadEvent
from topics.events import Count, TimeMs
from workers.buckets import DAY_MINUTES, end_of, is_rolled_up

LONGEST_BUCKET_MINUTES = DAY_MINUTES  # as `namefree aggregate` has it; of months the name says it
MILLION = 1_000_000


class _Counts(Struct, frozen=True):
    answered: Count = 0
    kept: Count = 0
    expected_millionths: Count = 0

    def since(self, before: "_Counts") -> Answers:
        return Answers(
            self.answered - before.answered,
            self.kept - before.kept,
            (self.expected_millionths - before.expected_millionths) / MILLION,
        )


class _Sides(Struct, frozen=True):
    linked: _Counts = _Counts()
    unlinked: _Counts = _Counts()


class FoldHead(Struct, frozen=True):
    """So much of a fold as is followed."""

    event_time_ms: TimeMs
    bucket: str
    partition: Count
    offsets: dict[str, Count]
    minutes: Annotated[int, Meta(ge=1)] = 60
    skills: dict[str, _Sides] = {}


_head = msgspec.json.Decoder(FoldHead).decode
NOTHING = _Sides()


class _Known(NamedTuple):
    """The last fold of a key: when its bucket ends, and the skills that had an answer."""

    ends_ms: int
    skills: dict[str, _Sides]


class Gains:
    """What each fold has gained on the last one of its bucket and partition. Buckets that ended longer ago than
    `kept_ms` are forgotten, and not looked at. A day or a month that appears has taken up what was told of before,
    as hours: only what it gains from then on is new."""

    def __init__(self, kept_ms: float) -> None:
        self._kept_ms = kept_ms
        self._known: dict[bytes, _Known] = {}

    def take(self, key: bytes, value: bytes | None, now_ms: int) -> tuple[FoldHead, dict[str, Gained]] | None:
        """The fold in a message and its gains by skill; None where it is too old to matter. Raises BadEvent."""
        bucket = key.decode("utf-8", "replace").rpartition("/")[0]
        if value is None or end_of(bucket, LONGEST_BUCKET_MINUTES) < now_ms - self._kept_ms:
            self._known.pop(key, None)
            return None
        try:
            fold = _head(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadEvent(f"{error}", "invalid") from error
        if end_of(fold.bucket, fold.minutes) < now_ms - self._kept_ms:
            self._known.pop(key, None)
            return None
        told = {skill_id: both for skill_id, both in fold.skills.items() if both != NOTHING}
        known = self._known.get(key)
        before = known.skills if known else (told if is_rolled_up(bucket) else {})
        self._known[key] = _Known(end_of(fold.bucket, fold.minutes), told)
        return fold, _gained(told, before)

    def forget(self, now_ms: int) -> None:
        """Lets go of the buckets that are too old to matter."""
        for key in [key for key, known in self._known.items() if known.ends_ms < now_ms - self._kept_ms]:
            del self._known[key]


def _gained(now: dict[str, _Sides], before: dict[str, _Sides]) -> dict[str, Gained]:
    found = {}
    for skill_id, both in now.items():
        were = before.get(skill_id, NOTHING)
        if both == were:
            continue
        if both.linked.answered < were.linked.answered or both.unlinked.answered < were.unlinked.answered:
            were = NOTHING  # the topics were made anew
        found[skill_id] = Gained(both.linked.since(were.linked), both.unlinked.since(were.unlinked))
    return found
