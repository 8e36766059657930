"""Events that could not be taken: made into dead letters, and counted, so that not everything becomes one."""

import time
from collections import deque

from confluent_kafka import Message

from topics.codec import encode
from topics.errors import BadEvent, WorkerError
from topics.events import DeadLetter
from workers.source import place_of

MAX_VALUE_BYTES = 1024 * 1024  # a broker's own default limit for a message; base64 makes 1.4 MB of it
MAX_KEY_BYTES = 64 * 1024  # no honest key comes near; bounds the letter together with the value

MAX_MESSAGE_CHARS = 2_000  # an error may quote the value that it is about


def dead_letter(message: Message, error: BadEvent, event_time_ms: int | None = None) -> bytes:
    """The dead letter for `message`, encoded: why, where it stood, and its bytes, cut where they are too many."""
    partition, offset = place_of(message)
    key, key_note = _cut(message.key(), MAX_KEY_BYTES, "key")
    value, value_note = _cut(message.value(), MAX_VALUE_BYTES, "value")
    return encode(
        DeadLetter(
            event_time_ms=int(time.time() * 1000) if event_time_ms is None else event_time_ms,
            reason=error.reason,
            message=f"{str(error)[:MAX_MESSAGE_CHARS]}{key_note}{value_note}",
            topic=message.topic() or "",
            partition=partition,
            offset=offset,
            source_key=key,
            source_value=value,
        )
    )


def _cut(data: bytes | None, limit_bytes: int, what: str) -> tuple[bytes | None, str]:
    if data is None or len(data) <= limit_bytes:
        return data, ""
    return data[:limit_bytes], f" ({what} cut from {len(data):,} to {limit_bytes:,} bytes)"


class Ceiling:
    """Stops a worker to which most events look dead: then the worker, or one producer, is what is wrong.

    Looks at the last `window` events, once half a window has been seen. A `max_share` of 0 never stops.
    """

    def __init__(self, max_share: float, window: int = 10_000) -> None:
        self._max_share = max_share
        self._window = window
        self._batches: deque[tuple[int, int]] = deque()
        self._seen = 0
        self._dead = 0

    def count(self, seen: int, dead: int) -> None:
        """Takes a batch in. Raises WorkerError where the share of dead events is reached."""
        self._batches.append((seen, dead))
        self._seen += seen
        self._dead += dead
        while self._seen - self._batches[0][0] >= self._window:
            old_seen, old_dead = self._batches.popleft()
            self._seen -= old_seen
            self._dead -= old_dead
        if self._max_share and self._seen * 2 >= self._window and self._dead >= self._max_share * self._seen:
            raise WorkerError(
                f"{self._dead:,} of the last {self._seen:,} events could not be taken, the ceiling is a share of "
                f"{self._max_share:g} (--max-dead-share): look at the dead letters, then start again"
            )
