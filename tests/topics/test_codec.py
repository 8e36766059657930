"""The codec: what is written is read, and whatever is wrong is refused with what and where."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import any_event
from topics import events
from topics.codec import Source, check_key, decode, encode
from topics.errors import BadEvent
from topics.events import Action, Candidate, Decision, Links, Outcome, Utterance

SOURCE = Source("utterances", 3, 41)
GOOD: dict[str, Any] = {
    "schema": 1,
    "event_time_ms": 1_795_369_000_000,
    "utterance_id": "u-1",
    "customer_id": "c-1",
    "text": "get me a car",
    "locale": "en-US",
    "linked": ["rides:acorn"],
}
CANDIDATE = {"skill_id": "rides:acorn", "score": 3.1, "probability": 0.91}
DECIDED = {**GOOD, "action": "launch", "skill_id": "rides:acorn", "candidates": [CANDIDATE]}


def wire(base: dict[str, Any] = GOOD, **changes: Any) -> bytes:
    """The event with fields changed, or left out where the change is `...`."""
    fields = {name: value for name, value in (base | changes).items() if value is not ...}
    return json.dumps(fields).encode()


def nested(levels: int) -> bytes:
    return wire()[:-1] + b', "more": ' + b"[" * levels + b"]" * levels + b"}"


MALFORMED = {
    "null value": (None, Utterance, "null_value", "the value is null"),
    "empty value": (b"", Utterance, "empty_value", "the value is empty"),
    "a megabyte of text": (wire(text="x" * 1_000_000), Utterance, "too_large", "limit of 262,144"),
    "text over its limit": (wire(text="x" * 4_001), Utterance, "invalid", "<= 4000 - at `$.text`"),
    "empty text": (wire(text=""), Utterance, "invalid", ">= 1 - at `$.text`"),
    "blank text": (wire(text=" \t\n"), Utterance, "invalid", "at `$.text`"),
    "missing text": (wire(text=...), Utterance, "invalid", "missing required field `text`"),
    "text is a number": (wire(text=7), Utterance, "invalid", "Expected `str`, got `int` - at `$.text`"),
    "text is null": (wire(text=None), Utterance, "invalid", "got `null` - at `$.text`"),
    "ten thousand links": (wire(linked=["x:y"] * 10_000), Utterance, "invalid", "<= 500 - at `$.linked`"),
    "an empty link": (wire(linked=["a", ""]), Utterance, "invalid", "at `$.linked[1]`"),
    "links are one string": (wire(linked="rides:acorn"), Utterance, "invalid", "got `str` - at `$.linked`"),
    "negative time": (wire(event_time_ms=-1), Utterance, "invalid", ">= 0 - at `$.event_time_ms`"),
    "time after the year 9999": (wire(event_time_ms=10**15), Utterance, "invalid", "at `$.event_time_ms`"),
    "time is true": (wire(event_time_ms=True), Utterance, "invalid", "got `bool` - at `$.event_time_ms`"),
    "time is a string": (wire(event_time_ms="now"), Utterance, "invalid", "at `$.event_time_ms`"),
    "time is a fraction": (wire(event_time_ms=1.5), Utterance, "invalid", "at `$.event_time_ms`"),
    "missing schema": (wire(schema=...), Utterance, "invalid", "missing required field `schema`"),
    "unknown schema": (wire(schema=2), Utterance, "unknown_schema", "schema 2 is not known here (known: 1)"),
    "schema is a string": (wire(schema="1"), Utterance, "invalid", "at `$.schema`"),
    "schema is true": (wire(schema=True), Utterance, "invalid", "at `$.schema`"),
    "id too long": (wire(utterance_id="u" * 201), Utterance, "invalid", "<= 200 - at `$.utterance_id`"),
    "blank customer": (wire(customer_id=" "), Utterance, "invalid", "at `$.customer_id`"),
    "array for an object": (b"[" + wire() + b"]", Utterance, "not_an_object", "expected a JSON object, got list"),
    "string for an object": (b'"get me a car"', Utterance, "not_an_object", "got str"),
    "invalid UTF-8": (wire(text="X").replace(b"X", b"\xff"), Utterance, "not_json", "no valid UTF-8 JSON"),
    "UTF-16": (wire().decode().encode("utf-16"), Utterance, "not_json", "no valid UTF-8 JSON"),
    "cut JSON": (wire()[:-5], Utterance, "not_json", "no valid UTF-8 JSON"),
    "two events in one": (wire() + wire(), Utterance, "not_json", "no valid UTF-8 JSON"),
    "not JSON at all": (b"get me a car", Utterance, "not_json", "no valid UTF-8 JSON"),
    "lone surrogate": (wire(text="car \ud800"), Utterance, "not_json", "surrogate"),
    "NaN": (wire(event_time_ms=float("nan")), Utterance, "not_json", "no valid UTF-8 JSON"),
    "a key twice": (b'{"schema": 1, "schema": 1}', Utterance, "duplicate_key", "the key 'schema' occurs twice"),
    "a key twice, deep": (
        wire()[:-1] + b', "more": {"a": {"b": 1, "b": 2}}}',
        Utterance,
        "duplicate_key",
        "the key 'b' occurs twice",
    ),
    "nested 20 deep": (nested(20), Utterance, "too_deep", "nested deeper than 12 levels"),
    "nested 5,000 deep": (nested(5_000), Utterance, "too_deep", "nested deeper than 12 levels"),
    "unknown action": (wire(DECIDED, action="open"), Decision, "invalid", "'open' - at `$.action`"),
    "NaN score": (wire(DECIDED, candidates=[CANDIDATE | {"score": float("nan")}]), Decision, "not_json", "JSON"),
    "null score": (
        wire(DECIDED, candidates=[CANDIDATE | {"score": None}]),
        Decision,
        "invalid",
        "at `$.candidates[0].score`",
    ),
    "probability above 1": (
        wire(DECIDED, candidates=[CANDIDATE | {"probability": 1.1}]),
        Decision,
        "invalid",
        "at `$.candidates[0].probability`",
    ),
    "too many candidates": (wire(DECIDED, candidates=[CANDIDATE] * 101), Decision, "invalid", "<= 100"),
    "propensity of 0": (wire(DECIDED, propensity=0.0), Decision, "invalid", "at `$.propensity`"),
    "unknown outcome": (wire(outcome="liked"), Outcome, "invalid", "'liked' - at `$.outcome`"),
    "corrected to nothing": (wire(outcome="corrected"), Outcome, "invalid", "names the skill that was taken"),
    "a link without skill": (
        wire(linked=[{"since_ms": 1}]),
        Links,
        "invalid",
        "missing required field `skill_id`",
    ),
}


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
    with pytest.raises(ValueError, match=r"score .* is not a finite number"):
        Candidate(skill_id="a", score=score, probability=0.5)


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
