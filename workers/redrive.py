"""Dead letters read, and sent back to the topics that they came from, exactly once.

A letter's id is where it stands: `partition:offset` of the dead-letters topic. Sending one back is a transaction
of two messages: the event on its source topic, and a marker under the letter's id on the topic `redriven`. All of
it goes under one transactional id, and the markers are read after that was opened: opening ends what another
process left open and fences it, so nobody can add a marker between our reading them and our commit.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Message
from msgspec.structs import replace

from topics.codec import Source, check_key, decode, encode
from topics.errors import BadEvent, UsageError
from topics.events import DeadLetter, Redriven
from topics.kafka import partitions_of, producer, read_all
from topics.registry import DEAD_LETTERS, REDRIVEN, TOPICS, Topic, topic_name
from topics.settings import Settings
from workers.dead_letters import MAX_KEY_BYTES, MAX_VALUE_BYTES
from workers.failpoints import reach
from workers.source import place_of
from workers.transactions import CALL_TIMEOUT_S, Headers, patiently

IDENTITY = "namefree-redrive"
MESSAGE_MAX_BYTES = 4 * 1024 * 1024  # a value and a key as long as letters hold them
NOWHERE = 2**62  # beyond any offset
BATCH = 500  # letters a transaction; far below what the transaction's 15 s allow
BATCH_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Letter:
    """A dead letter and where it stands; `headers` are its own."""

    partition: int
    offset: int
    event: DeadLetter
    headers: Headers = None

    @property
    def id(self) -> str:
        return f"{self.partition}:{self.offset}"

    @property
    def source(self) -> Source:
        return Source(self.event.topic, self.event.partition, self.event.offset)


@dataclass(frozen=True)
class Sent:
    """What was sent back, and what was left out: why -> how many."""

    ids: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)


def all_letters(settings: Settings) -> Iterator[Letter]:
    """Every letter, each partition in order. What cannot be read as one is passed over. Raises BrokerError."""
    for message in read_all(settings, topic_name(settings, DEAD_LETTERS)):
        if (letter := _letter(message)) is not None:
            yield letter


def letters_at(settings: Settings, ids: Iterable[str]) -> list[Letter]:
    """The letters with these ids, in their order. Raises UsageError where one is not there."""
    places, name = {place_in(one): one for one in ids}, topic_name(settings, DEAD_LETTERS)
    starts = {p: min((at for q, at in places if q == p), default=NOWHERE) for p in partitions_of(settings, name)}
    found: dict[tuple[int, int], Letter] = {}
    for message in read_all(settings, name, starts):
        if place_of(message) in places and (letter := _letter(message)):
            found[letter.partition, letter.offset] = letter
        if len(found) == len(places):
            break
    for place, one in places.items():
        if place not in found:
            raise UsageError(f"no dead letter has the id {one}: see `namefree dead-letters list`")
    return [found[place] for place in places]


def place_in(letter_id: str) -> tuple[int, int]:
    """Partition and offset in an id. Raises UsageError."""
    if not re.fullmatch(r"[0-9]{1,9}:[0-9]{1,18}", letter_id, re.ASCII):
        raise UsageError(f"{letter_id!r} is no dead letter's id, as 0:12 is: see `namefree dead-letters list`")
    partition, _, offset = letter_id.partition(":")
    return int(partition), int(offset)


def _letter(message: Message) -> Letter | None:
    try:
        event = decode(message.value(), DeadLetter)
        headers = message.headers()
    except (BadEvent, UnicodeDecodeError):  # the latter: a header's name that is no UTF-8
        return None
    pairs = list(headers.items() if isinstance(headers, dict) else headers or ())
    return Letter(*place_of(message), event, pairs)


def markers(settings: Settings) -> dict[str, Redriven]:
    """The newest marker of each letter that was ever sent back, by the letter's id. Raises BrokerError."""
    found: dict[str, Redriven] = {}
    for message in read_all(settings, topic_name(settings, REDRIVEN)):
        found[(message.key() or b"").decode("ascii", "replace")] = decode(message.value(), Redriven)
    return found


def marker_of(letter: Letter, known: Mapping[str, Redriven]) -> Redriven | None:
    """When and how the letter was sent back, if it was. A marker of another letter under its id, from before the
    topic was made anew, says nothing."""
    marker = known.get(letter.id)
    return marker if marker and marker.letter_time_ms == letter.event.event_time_ms else None


def source_topic(settings: Settings, letter: Letter) -> Topic | None:
    """The topic that the letter came from; None where it is none of ours."""
    ours = {topic_name(settings, topic): topic for topic in TOPICS if topic not in (DEAD_LETTERS, REDRIVEN)}
    return ours.get(letter.event.topic)


def obstacle(settings: Settings, letter: Letter, known: Mapping[str, Redriven], mended: bool, again: bool) -> str:
    """Why the letter is not sent back; "" where it may be."""
    key, value = letter.event.source_key or b"", letter.event.source_value or b""
    if marker_of(letter, known) and not again:
        return "redriven before (--again sends it once more)"
    if source_topic(settings, letter) is None:
        return f"its source topic is none under the prefix {settings.prefix!r}"
    if len(key) >= MAX_KEY_BYTES or (len(value) >= MAX_VALUE_BYTES and not mended):
        return "its key or value was cut when it was put aside, so the event is no longer whole"
    return ""


def check_mended(settings: Settings, letter: Letter, value: bytes) -> None:
    """Raises UsageError where a mended value would be refused by its source topic's readers."""
    topic = source_topic(settings, letter)
    if topic is None:
        return
    try:
        event = decode(value, topic.event)
        if topic.key in event.__struct_fields__:
            check_key(letter.event.source_key, getattr(event, topic.key), letter.source)
    except BadEvent as error:
        raise UsageError(f"the mended value would be a dead letter again: {error}") from error


def redrive(settings: Settings, ids: Iterable[str], value: bytes | None = None, again: bool = False) -> Sent:
    """Sends these letters back, all or none; with a `value`, that instead of the one letter's own.

    Raises UsageError where one may not be sent, WorkerError and BrokerError.
    """
    redriver = Redriver(settings)
    known, letters = markers(settings), letters_at(settings, ids)
    for letter in letters:
        if why := obstacle(settings, letter, known, value is not None, again):
            raise UsageError(f"dead letter {letter.id} ({letter.source}) is not redriven: {why}")
        if value is not None:
            check_mended(settings, letter, value)
    redriver.send(letters, value)
    return Sent([letter.id for letter in letters])


def redrive_where(settings: Settings, wanted: Callable[[Letter], bool], again: bool = False) -> Sent:
    """Sends all `wanted` letters back that may be, some hundreds a transaction: what was committed stays so if a
    later one fails, and is left out the next time. Raises WorkerError and BrokerError."""
    redriver = Redriver(settings)
    known, sent, batch, size = markers(settings), Sent(), list[Letter](), 0
    for letter in filter(wanted, all_letters(settings)):
        if why := obstacle(settings, letter, known, mended=False, again=again):
            sent.left_out[why] = sent.left_out.get(why, 0) + 1
            continue
        batch.append(letter)
        size += len(letter.event.source_value or b"")
        if len(batch) >= BATCH or size >= BATCH_BYTES:
            redriver.send(batch)
            sent.ids.extend(done.id for done in batch)
            batch, size = [], 0
    if batch:
        redriver.send(batch)
        sent.ids.extend(done.id for done in batch)
    return sent


class Redriver:
    """The one process that sends letters back. Making it fences the one before, and drops what that left open.

    Raises WorkerError where it cannot go on: fenced, forbidden, or no answer for a minute.
    """

    def __init__(self, settings: Settings) -> None:
        limits = {"message.max.bytes": str(MESSAGE_MAX_BYTES), **settings.kafka}
        self._settings = replace(settings, kafka=limits)
        self._client = producer(self._settings, f"{settings.prefix}{IDENTITY}")
        self._call("init_transactions", CALL_TIMEOUT_S)
        self._seen: set[str] = set()

    def send(self, letters: Sequence[Letter], value: bytes | None = None) -> None:
        """One transaction: each letter's event, under its own key, and its marker. Raises BrokerError where a
        source topic is missing, or this user may not see it."""
        for name in {letter.event.topic for letter in letters} - self._seen:
            partitions_of(self._settings, name)
            self._seen.add(name)
        self._call("begin_transaction")
        for letter in letters:
            event = letter.event
            sent = event.source_value if value is None else value
            trace = [pair for pair in letter.headers or () if pair[0] == "traceparent"]
            self._call("produce", event.topic, value=sent, key=event.source_key, headers=trace)
            marker = Redriven(
                event_time_ms=int(time.time() * 1000),
                letter_time_ms=event.event_time_ms,
                topic=event.topic,
                mended=value is not None,
            )
            self._call("produce", topic_name(self._settings, REDRIVEN), value=encode(marker), key=letter.id)
        reach("redrive.before_commit")
        self._call("commit_transaction", CALL_TIMEOUT_S)
        reach("redrive.after_commit")

    def _call(self, method: str, *args: Any, **kwargs: Any) -> None:
        patiently(self._client, method, _failed, *args, **kwargs)


def _failed(cause: str) -> str:
    return (
        f"dead letters cannot be sent back ({cause}): run it again, once nobody else redrives; what was committed "
        "is known then, and not sent twice"
    )
