"""The events: golden bytes of each schema are read for ever, and what would break a reader cannot be made."""

import json
from pathlib import Path

import msgspec
import pytest

from topics import events
from topics.codec import decode, encode

GOLDEN = Path(__file__).parent / "golden"
KINDS: dict[str, type[events.Event]] = {
    "utterance": events.Utterance,
    "links": events.Links,
    "skill_card": events.SkillCard,
    "decision": events.Decision,
    "outcome": events.Outcome,
    "statistics_fold": events.StatisticsFold,
    "live_statistics": events.LiveStatistics,
    "release": events.Release,
    "dead_letter": events.DeadLetter,
    "redriven": events.Redriven,
}
ACORN = events.SkillCounts(chosen=3, offered=[2, 1], accepted=2, rejected=1, mass_millionths=2_410_000)
EXPECTED = {
    "utterance": events.Utterance(
        event_time_ms=1_795_369_000_000,
        utterance_id="u-1",
        customer_id="c-1",
        text="get me a car",
        linked=("rides:acorn",),
    ),
    "links": events.Links(
        event_time_ms=1_795_369_000_000,
        customer_id="c-1",
        linked=(events.Link("rides:acorn", 1_795_000_000_000),),
    ),
    "outcome": events.Outcome(
        event_time_ms=1_795_369_004_000,
        utterance_id="u-1",
        customer_id="c-1",
        outcome=events.OutcomeKind.CORRECTED,
        skill_id="rides:birch",
    ),
    "statistics_fold": events.StatisticsFold(
        event_time_ms=1_795_369_005_000,
        bucket="2026-11-22T17",
        partition=3,
        offsets={"decisions": 120, "outcomes": 98},
        decisions=3,
        outcomes=3,
        none_chosen=1,
        skills={"rides:acorn": events.SkillStatistics(linked=ACORN)},
        taken_instead={"rides:acorn": {"rides:birch": 1}},
    ),
    "live_statistics": events.LiveStatistics(
        event_time_ms=1_795_369_006_000,
        version="live-0f1e2d3c4b5a",
        factors={"rides:acorn": -2.5},
        offsets={"decisions/3": 120, "outcomes/3": 98},
    ),
    "dead_letter": events.DeadLetter(
        event_time_ms=1_795_369_007_000,
        reason="not_json",
        message="Utterance at utterances[3]@41: no valid UTF-8 JSON",
        topic="utterances",
        partition=3,
        offset=41,
        source_key=b"c-1",
        source_value=b"\xff{",
    ),
    "redriven": events.Redriven(
        event_time_ms=1_795_369_008_000, letter_time_ms=1_795_369_007_000, topic="utterances", mended=True
    ),
}


class CandidateBefore(msgspec.Struct, frozen=True):
    """A candidate as a reader knew it before decisions said why."""

    skill_id: str
    score: float
    probability: float
    linked: bool = False
    attention: float | None = None
    shortlist_rank: int = 0


class DecisionBefore(msgspec.Struct, frozen=True):
    """So much of a decision as such a reader needs."""

    schema: int
    action: events.Action
    skill_id: str | None
    candidates: tuple[CandidateBefore, ...]


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_a_golden_event_is_read_for_ever(path: Path) -> None:
    name = path.name.split(".")[0]
    written = path.read_bytes()
    event = decode(written, KINDS[name])
    assert event == EXPECTED.get(name, event)
    fields = json.loads(encode(event))
    assert {name: fields[name] for name in json.loads(written)} == json.loads(written)


def test_each_event_has_a_golden_one() -> None:
    assert {path.name for path in GOLDEN.glob("*.1.json")} == {f"{name}.1.json" for name in KINDS}
    assert set(KINDS.values()) == set(events.Event.__args__)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_newer_producers_fields_do_not_stop_an_older_reader(kind: type[events.Event]) -> None:
    name = next(name for name, known in KINDS.items() if known is kind)
    fields = json.loads((GOLDEN / f"{name}.1.json").read_bytes())
    newer = json.dumps(fields | {"invented_later": {"a": [1, None]}}).encode()
    assert encode(decode(newer, kind)) == encode(decode(json.dumps(fields).encode(), kind))


def test_a_count_that_is_kept_since_later_is_0_in_an_older_fold_and_skipped_by_an_older_reader() -> None:
    fields = json.loads((GOLDEN / "statistics_fold.1.json").read_bytes())
    counts = fields["skills"]["rides:acorn"]["linked"]
    assert decode(json.dumps(fields).encode(), events.StatisticsFold).skills["rides:acorn"].linked.passed == 0
    counts |= {"passed": 4, "invented_later": [1]}
    newer = decode(json.dumps(fields).encode(), events.StatisticsFold)
    assert newer.skills["rides:acorn"].linked == msgspec.structs.replace(ACORN, passed=4)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_event_carries_schema_and_time(kind: type[events.Event]) -> None:
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    assert fields["schema"].default == events.SCHEMA == 1
    assert "event_time_ms" in fields


def test_an_old_decision_without_the_later_fields_is_read_with_their_defaults() -> None:
    least = {"schema": 1, "event_time_ms": 0, "utterance_id": "u", "customer_id": "c", "action": "none"}
    decision = decode(json.dumps(least).encode(), events.Decision)
    assert (decision.candidates, decision.propensity, decision.rule) == ((), 1.0, "best")


def test_a_decision_that_says_why_is_read_whole_and_by_an_older_reader() -> None:
    written = (GOLDEN / "decision.1.explained.json").read_bytes()
    decision = decode(written, events.Decision)
    first, second = decision.candidates
    assert (first.intent, first.fulfill, first.fulfill_source) == ("BookRide", "YES", "asked")
    assert (first.slots, second.slots) == ({"destination": "airport"}, {})
    assert (second.intent, second.fulfill, second.fulfill_source) == ("", None, "")
    assert sum(decision.reasons.values()) == pytest.approx(first.score - second.score)
    assert (decision.without_links, decision.policy) == ("rides:birch", "question=0.5")
    older = msgspec.json.decode(written, type=DecisionBefore)
    assert [candidate.linked for candidate in older.candidates] == [True, False]


def test_what_a_candidate_has_by_default_is_not_sent() -> None:
    """A router sends thousands of candidates a second, and most say little."""
    bare = events.Candidate(skill_id="s", score=0.5, probability=0.25)
    assert msgspec.to_builtins(bare) == {"skill_id": "s", "score": 0.5, "probability": 0.25}


def test_a_reason_that_is_no_number_is_not_made() -> None:
    with pytest.raises(ValueError, match="reason text nan is not a finite number"):
        events.Decision(
            event_time_ms=0,
            utterance_id="u",
            customer_id="c",
            action=events.Action.NONE,
            reasons={"links": 1.0, "text": float("nan")},
        )


def test_the_largest_honest_utterance_travels() -> None:
    largest = events.Utterance(
        event_time_ms=events.MAX_TIME_MS,
        utterance_id="u" * 200,
        customer_id="c" * 200,
        text="ж" * events.MAX_TEXT_CHARS,
        linked=tuple(f"{n:0200d}" for n in range(events.MAX_LINKS)),
    )
    assert decode(encode(largest), events.Utterance) == largest
