"""The codec: what is written is read, and whatever is wrong is refused with what and where."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.malformed import MALFORMED, wire
from tests.strategies import any_event
from topics import events
from topics.codec import Source, check_key, decode, encode
from topics.errors import BadEvent
from topics.events import Action, Candidate, Decision, Utterance

SOURCE = Source("utterances", 3, 41)


@pytest.mark.parametrize(("value", "kind", "reason", "says"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_event_is_refused_with_what_and_where(
    value: bytes | None, kind: type[events.Event], reason: str, says: str
) -> None:
    with pytest.raises(BadEvent) as caught:
        decode(value, kind, SOURCE)
    message = str(caught.value)
    assert caught.value.reason == reason
    assert message.startswith(f"{kind.__name__} at utterances[3]@41: ")
    assert says in message
    assert len(message) < 500
    assert "\n" not in message


@given(any_event)
@settings(max_examples=300, deadline=None)
def test_what_is_written_is_read(event: events.Event) -> None:
    assert decode(encode(event), type(event)) == event


@given(any_event)
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_json_that_any_language_reads(event: events.Event) -> None:
    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    assert json.loads(encode(event).decode("utf-8"), parse_constant=refuse)["schema"] == 1


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_refused_and_nothing_else_is_raised(value: bytes) -> None:
    with pytest.raises(BadEvent):
        decode(value, Utterance)


@given(any_event, st.integers(0, 10_000), st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_one_damaged_byte_never_raises_anything_but_a_bad_event(
    event: events.Event, place: int, byte: int
) -> None:
    data = bytearray(encode(event))
    data[place % len(data)] = byte
    with contextlib.suppress(BadEvent):
        decode(bytes(data), type(event))


def test_unknown_fields_are_skipped() -> None:
    assert decode(wire(colour="red", more={"of": ["the", "same"]}), Utterance) == decode(wire(), Utterance)


def test_an_event_without_source_is_refused_without_one() -> None:
    with pytest.raises(BadEvent, match=r"^Utterance: the value is null$"):
        decode(None, Utterance)


def test_an_event_over_the_limit_is_not_written() -> None:
    card = events.SkillCard(skill_id="a", name="a", phrases=("x" * 4_000,) * 100)
    with pytest.raises(BadEvent, match="more than the limit of 262,144") as caught:
        encode(card)
    assert caught.value.reason == "too_large"


def test_a_lone_surrogate_is_not_written() -> None:
    with pytest.raises(BadEvent, match="cannot be written as JSON") as caught:
        encode(Utterance(event_time_ms=0, utterance_id="u", customer_id="c", text="\ud800"))
    assert caught.value.reason == "unencodable"


@pytest.mark.parametrize("score", [float("nan"), float("inf"), float("-inf")])
def test_a_score_that_is_no_number_is_not_made(score: float) -> None:
    candidates = (
        Candidate(skill_id="a", score=1.0, probability=0.5),
        Candidate(skill_id="b", score=score, probability=0.1),
    )
    with pytest.raises(ValueError, match=r"score .* is not a finite number"):
        Decision(event_time_ms=0, utterance_id="u", customer_id="c", action=Action.NONE, candidates=candidates)


@pytest.mark.parametrize("propensity", [float("nan"), float("inf")])
def test_a_propensity_that_is_no_number_is_not_made(propensity: float) -> None:
    with pytest.raises(ValueError, match="propensity"):
        Decision(event_time_ms=0, utterance_id="u", customer_id="c", action=Action.NONE, propensity=propensity)


def test_a_key_that_contradicts_its_value_is_refused() -> None:
    check_key(b"c-1", "c-1", SOURCE)
    check_key(None, "c-1", SOURCE)
    with pytest.raises(BadEvent, match=r"the key of utterances\[3\]@41 is 'c-2', but its value names 'c-1'"):
        check_key(b"c-2", "c-1", SOURCE)
    with pytest.raises(BadEvent):
        check_key(b"\xff" * 1_000, "c-1", SOURCE)
