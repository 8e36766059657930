"""Bytes to events and back: orjson on the wire, msgspec for the types, one error that says what and where.

What is refused, each with a sentence of its own: null and empty values, values over the size limit, text that
is no JSON (NaN and lone surrogates among it), keys that occur twice, nesting that no event has, unknown
schemas, missing fields and wrong types, values out of bounds.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import orjson

from topics.errors import BadEvent
from topics.events import (
    MAX_DEAD_LETTER_BYTES,
    MAX_EVENT_BYTES,
    MAX_FOLD_BYTES,
    SCHEMA,
    DeadLetter,
    Event,
    LiveStatistics,
    StatisticsFold,
)

MAX_DEPTH = 12  # the deepest event (a card's slot values) has 6 levels
LIMITS_BYTES: dict[object, int] = {
    StatisticsFold: MAX_FOLD_BYTES,
    LiveStatistics: MAX_FOLD_BYTES,
    DeadLetter: MAX_DEAD_LETTER_BYTES,
}
E = TypeVar("E", bound=Event)


@dataclass(frozen=True)
class Source:
    """Where a message stood; prints as `topic[partition]@offset`."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


def encode(event: Event) -> bytes:
    """The event as UTF-8 JSON. Raises BadEvent where it is over the size limit or holds what JSON cannot."""
    try:
        data = orjson.dumps(msgspec.to_builtins(event))
    except (TypeError, ValueError) as error:
        raise BadEvent(f"{type(event).__name__} cannot be written as JSON: {error}", "unencodable") from error
    if len(data) > _limit_bytes(type(event)):
        raise BadEvent(_too_large(type(event).__name__, len(data), _limit_bytes(type(event))), "too_large")
    return data


def decode(data: bytes | None, kind: type[E], source: Source | None = None) -> E:
    """The event of type `kind` in `data`; raises BadEvent, which names `source` if given.

    >>> from topics.events import Outcome
    >>> decode(b'{"schema": 1}', Outcome)
    Traceback (most recent call last):
    topics.errors.BadEvent: Outcome: Object missing required field `event_time_ms`
    """
    where = f" at {source}" if source else ""
    try:
        return _convert(_parse(data, _limit_bytes(kind)), kind)
    except BadEvent as error:
        raise BadEvent(f"{kind.__name__}{where}: {error}", error.reason) from error.__cause__


def check_key(key: bytes | None, expected: str, source: Source) -> None:
    """Raises BadEvent where a message's key contradicts its value. A missing key is taken: the value tells."""
    if key is not None and key != expected.encode():
        shown = key[:60].decode("utf-8", "replace")
        raise BadEvent(f"the key of {source} is {shown!r}, but its value names {expected!r}", "wrong_key")


def _limit_bytes(kind: object) -> int:
    return LIMITS_BYTES.get(kind, MAX_EVENT_BYTES)


def _too_large(what: str, size_bytes: int, limit_bytes: int) -> str:
    return f"{what} has {size_bytes:,} bytes, more than the limit of {limit_bytes:,}"


def _parse(data: bytes | None, limit_bytes: int) -> dict[str, Any]:
    if data is None:
        raise BadEvent("the value is null", "null_value")
    if not data:
        raise BadEvent("the value is empty", "empty_value")
    if len(data) > limit_bytes:
        raise BadEvent(_too_large("the value", len(data), limit_bytes), "too_large")
    found = _loads(data)
    if not isinstance(found, dict):
        raise BadEvent(f"expected a JSON object, got {type(found).__name__}", "not_an_object")
    if _too_deep(found):
        raise BadEvent(f"nested deeper than {MAX_DEPTH} levels", "too_deep")
    # orjson keeps the last of two equal keys in silence; the standard library shows them all
    _SHOWS_TWINS.decode(data.decode())
    return found


def _loads(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if "depth limit" in str(error):
            raise BadEvent(f"nested deeper than {MAX_DEPTH} levels", "too_deep") from error
        raise BadEvent(f"no valid UTF-8 JSON: {error}", "not_json") from error


def _too_deep(found: object) -> bool:
    level: list[Any] = [found]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node) if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _children(node: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return node.values() if isinstance(node, dict) else node


def _refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twin = next(name for name, count in counts.items() if count > 1)
        raise BadEvent(f"the key {twin!r} occurs twice", "duplicate_key")
    return found


_SHOWS_TWINS = json.JSONDecoder(object_pairs_hook=_refuse_twins)  # made once: json.loads makes one a call


def _convert(found: dict[str, Any], kind: type[E]) -> E:
    schema = found.get("schema")
    if isinstance(schema, int) and not isinstance(schema, bool) and schema != SCHEMA:
        raise BadEvent(f"schema {schema} is not known here (known: {SCHEMA}): upgrade", "unknown_schema")
    if "schema" not in found:
        raise BadEvent("Object missing required field `schema`", "invalid")
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as error:
        raise BadEvent(str(error), "invalid") from error
