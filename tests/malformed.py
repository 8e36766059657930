"""Events that no worker takes, of more than forty kinds, each with the reason and the words of its refusal."""

import json
from typing import Any

from topics import events
from topics.events import Decision, Links, Outcome, Utterance

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


# name: (value, kind of event, reason, words)
MALFORMED: dict[str, tuple[bytes | None, type[events.Event], str, str]] = {
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
