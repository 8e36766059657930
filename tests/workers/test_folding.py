"""One partition's joins and folds: what is counted depends on what was sent, not on how it was read."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.statistics import Statistics, merge_all
from topics import codec
from topics.errors import BadEvent
from topics.events import Action, Candidate, Decision, Outcome, OutcomeKind, StatisticsFold
from workers.folding import GRACE_MS, MAX_AHEAD, MAX_EARLY, PartitionFold, fold_records
from workers.records import Record, read_decision

HOUR_MS = 3_600_000
T0_MS = 1_795_366_800_000  # 2026-11-22T17:00 UTC


def decision(offset: int, utterance: str = "u-1", at_ms: int = 0, customer: str = "c", **fields: Any) -> Record:
    event = Decision(
        event_time_ms=T0_MS + fields.pop("event_ms", at_ms),
        utterance_id=utterance,
        customer_id=customer,
        action=Action.LAUNCH,
        skill_id="rides:acme",
        candidates=(Candidate(skill_id="rides:acme", score=1.0, probability=0.5, linked=True),),
        **fields,
    )
    return Record("decisions", 0, offset, T0_MS + at_ms, customer.encode(), codec.encode(event))


def outcome(
    offset: int,
    utterance: str = "u-1",
    at_ms: int = 0,
    customer: str = "c",
    kind: OutcomeKind = OutcomeKind.ACCEPTED,
    skill_id: str | None = None,
) -> Record:
    event = Outcome(
        event_time_ms=T0_MS + at_ms, utterance_id=utterance, customer_id=customer, outcome=kind, skill_id=skill_id
    )
    return Record("outcomes", 0, offset, T0_MS + at_ms, customer.encode(), codec.encode(event))


def fold(*records: Record) -> PartitionFold:
    found = PartitionFold(0)
    for record in records:
        found.take(record)
    return found


def total(found: PartitionFold) -> Statistics:
    return merge_all(found.statistics().values())


def reasons(found: PartitionFold) -> list[str]:
    return [refused.error.reason for refused in found.refused]


def test_nothing_folds_to_nothing() -> None:
    assert fold_records([]) == {}
    assert total(fold()) == Statistics()


def test_an_outcome_is_folded_with_its_decision() -> None:
    found = fold(decision(0), outcome(0, kind=OutcomeKind.CORRECTED, skill_id="rides:bolt"))
    counts = total(found)
    assert (counts.decisions, counts.outcomes) == (1, 1)
    assert counts.skills["rides:acme"].linked.corrected == 1
    assert counts.taken_instead == {"rides:acme": {"rides:bolt": 1}}
    assert found.waiting == 0


def test_an_outcome_that_comes_before_its_decision_waits_for_it() -> None:
    found = fold(outcome(0))
    assert (total(found).outcomes, found.early) == (0, 1)
    found.take(decision(0))
    assert (total(found).outcomes, found.early, found.waiting) == (1, 0, 0)


def test_an_outcome_reported_twice_is_folded_once() -> None:
    for records in ([decision(0), outcome(0), outcome(1)], [outcome(0), outcome(1), decision(0)]):
        found = fold(*records)
        assert (total(found).outcomes, found.folded["duplicate"], found.refused) == (1, 1, [])


def test_of_two_decisions_for_one_utterance_the_first_gets_the_outcome() -> None:
    found = fold(decision(0), decision(1, event_ms=HOUR_MS), outcome(0))
    per_bucket = {bucket: counts.outcomes for bucket, counts in found.statistics().items()}
    assert total(found).decisions == 2
    assert per_bucket == {"2026-11-22T17": 1, "2026-11-22T18": 0}


def test_a_decision_made_again_after_the_window_is_a_new_one() -> None:
    found = fold(decision(0), decision(1, at_ms=HOUR_MS + 1))
    assert found.waiting == 1
    found.take(outcome(0, at_ms=HOUR_MS + 2))
    assert {bucket: counts.outcomes for bucket, counts in found.statistics().items()} == {
        "2026-11-22T17": 0,
        "2026-11-22T18": 1,
    }
    found.expire(now_ms=T0_MS + 10 * HOUR_MS, idle=["outcomes"])
    assert found.waiting == 0


def test_another_customers_outcome_never_joins() -> None:
    found = fold(decision(0), outcome(0, customer="someone else"))
    assert total(found).outcomes == 0


def test_an_outcome_counts_in_the_bucket_of_its_decision() -> None:
    found = fold(decision(0, at_ms=HOUR_MS - 1), outcome(0, at_ms=HOUR_MS + 1))
    assert found.statistics()["2026-11-22T17"].outcomes == 1


def test_an_outcome_without_a_decision_is_refused_after_the_window_and_not_before() -> None:
    found = fold(outcome(0), decision(0, "u-2", at_ms=HOUR_MS + GRACE_MS))
    found.expire(now_ms=T0_MS)
    assert reasons(found) == []
    found.take(decision(1, "u-3", at_ms=HOUR_MS + GRACE_MS + 1))
    found.expire(now_ms=T0_MS)
    assert reasons(found) == ["unknown_utterance"]
    assert str(found.refused[0].error).startswith("Outcome at outcomes[0]@0: no decision")


def test_an_outcome_beyond_the_window_is_refused() -> None:
    found = fold(decision(0), outcome(0, at_ms=HOUR_MS + 1))
    assert (reasons(found), total(found).outcomes) == (["unknown_utterance"], 0)


def test_decisions_that_nobody_answers_are_forgotten_once_outcomes_were_read_past_the_window() -> None:
    found = fold(decision(0), decision(1, "u-2", at_ms=10 * HOUR_MS))
    found.expire(now_ms=T0_MS + 10 * HOUR_MS)
    assert found.waiting == 2  # the outcomes have not been read yet: this worker is catching up
    found.expire(now_ms=T0_MS + 10 * HOUR_MS, idle=["outcomes"])
    assert found.waiting == 1


def test_answered_decisions_are_forgotten_after_the_window_too() -> None:
    """Else memory would grow by every decision there ever was."""
    late = 10 * HOUR_MS
    found = fold(decision(0), outcome(0), decision(1, "u-2", at_ms=late), outcome(1, "u-2", at_ms=late))
    found.take(outcome(2))
    assert found.folded["duplicate"] == 1  # it is still known
    found.expire(now_ms=T0_MS + late)
    found.take(outcome(3))
    assert (found.folded["duplicate"], found.early) == (1, 1)


def test_the_topic_that_is_far_ahead_has_to_wait() -> None:
    assert fold(decision(0), outcome(0)).ahead() is None
    later = [decision(i, f"u-{i}", at_ms=HOUR_MS + 1) for i in range(1, MAX_AHEAD + 3)]
    assert fold(decision(0), outcome(0), *later).ahead() == "decisions"
    assert fold(*(outcome(i, f"u-{i}") for i in range(MAX_EARLY + 1))).ahead() == "outcomes"


def test_a_marketplace_without_outcomes_does_not_wait_for_them() -> None:
    assert fold(*(decision(i, f"u-{i}", at_ms=3 * HOUR_MS) for i in range(50))).ahead() is None


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (Record("decisions", 0, 7, T0_MS, b"c", None), "null_value"),
        (Record("decisions", 0, 7, T0_MS, b"c", b"{"), "not_json"),
        (Record("decisions", 0, 7, T0_MS, b"c", b"[1]"), "not_an_object"),
        (Record("decisions", 0, 7, T0_MS, b"c", b'{"schema": 2}'), "unknown_schema"),
        (Record("decisions", 0, 7, T0_MS, b"c", b'{"schema": 1}'), "invalid"),
        (Record("outcomes", 0, 7, T0_MS, b"c", b""), "empty_value"),
        (Record("outcomes", 0, 7, T0_MS, b"someone else", outcome(0).value), "wrong_key"),
        (Record("decisions", 0, 7, T0_MS, b"someone else", decision(0).value), "wrong_key"),
    ],
)
def test_a_malformed_event_is_refused_with_reason_and_place(record: Record, reason: str) -> None:
    found = fold(record)
    assert reasons(found) == [reason]
    assert found.refused[0].record.source == codec.Source(record.topic, 0, 7)
    assert found.positions[record.topic] == 8


def test_a_decision_is_read_as_the_codec_reads_it() -> None:
    record = decision(0, linked=("rides:acme",), latency_ms=1.5)
    assert codec.encode(read_decision(record)) == codec.encode(codec.decode(record.value, Decision))
    assert record.value is not None
    for bad in (b'"score":1e999', b'"score":null', b'"score":"1"'):
        damaged = Record("decisions", 0, 0, T0_MS, b"c", record.value.replace(b'"score":1.0', bad))
        with pytest.raises(BadEvent, match=r"decisions\[0\]@0"):
            read_decision(damaged)


UTTERANCES = st.sampled_from([f"u-{i}" for i in range(4)])
TIMES = st.integers(0, 3).map(lambda quarter: quarter * HOUR_MS // 4)


@st.composite
def topics(draw: st.DrawFn) -> tuple[list[Record], list[Record]]:
    """Both topics of a partition; utterances repeat and are missing; event times fall in four buckets."""
    decided = draw(st.lists(st.tuples(UTTERANCES, st.integers(0, 3)), max_size=8))
    answered = draw(st.lists(st.tuples(UTTERANCES, st.sampled_from(OutcomeKind)), max_size=8))
    return (
        [decision(i, u, event_ms=hour * HOUR_MS) for i, (u, hour) in enumerate(decided)],
        [outcome(i, u, kind=kind, skill_id="rides:bolt") for i, (u, kind) in enumerate(answered)],
    )


def interleaved(draw: Any, decided: list[Record], answered: list[Record]) -> list[Record]:
    """One order in which a consumer may see both topics, each in order of its offsets."""
    turns = draw(st.permutations([0] * len(decided) + [1] * len(answered)))
    sources = iter(decided), iter(answered)
    return [next(sources[turn]) for turn in turns]


def plainly(records: Iterable[Record]) -> dict[str, Statistics]:
    return {bucket: counts for (bucket, _), counts in fold_records(records).items()}


@settings(deadline=None)
@given(topics(), st.data())
def test_how_two_topics_are_read_beside_each_other_changes_nothing(
    both: tuple[list[Record], list[Record]], data: st.DataObject
) -> None:
    decided, answered = both
    assert plainly(interleaved(data.draw, decided, answered)) == plainly(decided + answered)


@settings(max_examples=300, deadline=None)
@given(topics(), st.data())
def test_killed_at_any_moment_each_event_is_folded_once(
    both: tuple[list[Record], list[Record]], data: st.DataObject
) -> None:
    """A worker writes, commits or not, goes on without writing, and dies; the next reads from the commit on."""
    decided, answered = both
    store: dict[str, bytes] = {}
    committed = {"decisions": 0, "outcomes": 0}
    for _ in range(data.draw(st.integers(1, 4), "lives")):
        found = restored(store, committed, both)
        again = [r for r in decided + answered if r.offset >= committed[r.topic]]
        todo = interleaved(data.draw, *([r for r in again if r.topic == t] for t in committed))
        for record in todo[: data.draw(st.integers(0, len(todo)), "taken")]:
            found.take(record)
        if data.draw(st.booleans(), "written"):
            store.update({one.bucket: codec.encode(one) for one in found.changed(0)})
            if data.draw(st.booleans(), "committed"):
                committed = dict(found.positions)
    last = restored(store, committed, both)
    for record in decided + answered:
        last.take(record)
    assert last.statistics() == plainly(decided + answered)


def restored(
    store: dict[str, bytes], committed: dict[str, int], both: tuple[list[Record], list[Record]]
) -> PartitionFold:
    folds = [codec.decode(value, StatisticsFold) for value in store.values()]
    found = PartitionFold(0, folds=folds, committed=committed)
    for record in (*both[0], *both[1]):
        if record.offset < found.complete[record.topic]:
            found.take(record)
    found.resume()
    assert not found.dirty
    return found


def test_what_was_refused_before_a_restart_is_not_refused_again() -> None:
    found = PartitionFold(0, committed={"decisions": 1, "outcomes": 1})
    found.take(outcome(0, "nobody asked"))
    found.take(decision(0, at_ms=HOUR_MS + GRACE_MS + 1))
    found.resume()
    assert found.refused == []
    assert not found.take(outcome(0, "nobody asked"))
    found.expire(now_ms=T0_MS + 10 * HOUR_MS, idle=["decisions", "outcomes"])
    assert found.refused == []


def test_what_was_refused_and_how_far_was_read_are_written_together() -> None:
    """Else a kill between the letters and the group's offsets would have them told twice."""
    rubbish = Record("outcomes", 0, 0, T0_MS, b"c", b"rubbish")
    found = fold(decision(0), decision(1, "u-2", at_ms=HOUR_MS))
    found.changed(0)
    found.written()
    found.take(rubbish)
    (newest,) = found.changed(0)
    assert newest.bucket == "2026-11-22T18"
    assert newest.offsets == {"decisions": 2, "outcomes": 1}
    again = PartitionFold(0, folds=[newest])
    again.take(rubbish)
    again.resume()
    assert not again.take(rubbish)
    assert not again.refused


def test_where_nothing_but_rubbish_was_read_an_empty_fold_says_how_far() -> None:
    found = fold(Record("outcomes", 0, 0, T0_MS, b"c", b"rubbish"))
    (only,) = found.changed(0)
    assert only.offsets == {"decisions": 0, "outcomes": 1}
    assert Statistics.from_fold(only) == Statistics()


@pytest.mark.parametrize("at_ms", [0, HOUR_MS, 100 * HOUR_MS], ids=["its hour", "the next", "days later"])
@pytest.mark.parametrize("restarts", [False, True])
def test_an_empty_fold_goes_when_there_is_something_to_count(at_ms: int, restarts: bool) -> None:
    """Else the cells on the cluster would be other ones than those of a plain fold."""
    rubbish = Record("outcomes", 0, 0, T0_MS, b"c", b"rubbish")
    found = fold(rubbish)
    folds = found.changed(0)
    found.written()
    if restarts:
        found = PartitionFold(0, folds=folds)
    found.take(decision(0, at_ms=at_ms))
    plain = fold_records([decision(0, at_ms=at_ms), rubbish])
    assert {(bucket, 0): counts for bucket, counts in found.statistics().items()} == plain
    assert found.gone == {folds[0].bucket} - found.dirty


def test_what_waited_at_a_restart_is_refused_after_it() -> None:
    found = PartitionFold(0, committed={"decisions": 0, "outcomes": 1})
    found.take(outcome(0, "nobody asked"))
    found.resume()
    found.expire(now_ms=T0_MS + 10 * HOUR_MS, idle=["decisions", "outcomes"])
    assert reasons(found) == ["unknown_utterance"]


def test_an_outcome_that_waited_at_a_restart_is_joined_after_it() -> None:
    found = PartitionFold(0, committed={"decisions": 0, "outcomes": 1})
    found.take(outcome(0))
    found.resume()
    found.take(decision(0))
    assert total(found).outcomes == 1
