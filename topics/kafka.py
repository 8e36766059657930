"""Clients of the cluster, made in one place, with errors that an operator can read."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from topics.errors import BrokerError, UsageError
from topics.settings import Settings, client_config, consumer_config, producer_config, without_secrets

C = TypeVar("C")
READERS = "namefree-readers"  # the group of whoever reads without being a member of one
REACH_TIMEOUT_S = 10.0
RIGHTS_REMEDY = ": give the user the right, see `namefree topics acls`"
# what a producer says of a message once another could not be written
HIDDEN_REMEDY = ": a broker was away, or give the user the right, see `namefree topics acls`"
HIDE_THE_CAUSE = (KafkaError._PURGE_QUEUE, KafkaError._INCONSISTENT, KafkaError._GAPLESS_GUARANTEE)
UNSEEN_REMEDY = ", or give the user the right to see it: `namefree topics acls`"
WHY_TIMEOUT_S = 2.0  # what is wrong with a password or a certificate is said within one

# what a cluster answers in the moments after a topic's making or a leader's fall
LEADERLESS = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._TRANSPORT,
}

# why no broker answers, the most telling first, and what to do about it
REMEDIES = {
    KafkaError._AUTHENTICATION: "check sasl.mechanism, sasl.username and sasl.password",
    KafkaError._SSL: "check security.protocol, ssl.ca.location and the other ssl properties",
    KafkaError._RESOLVE: "check NAMEFREE_BOOTSTRAP",
    KafkaError._TRANSPORT: "start one with `namefree broker up`, or set NAMEFREE_BOOTSTRAP",
}


def _ignored(_error: object) -> None:
    """librdkafka reports a broker that is away here as well as at the call, which is where it is handled."""


def admin_client(settings: Settings) -> AdminClient:
    """An admin client; nothing is sent before its first call. Raises UsageError, as `made` does."""
    return made(AdminClient, settings, client_config(settings))


def producer(settings: Settings, transactional_id: str | None = None) -> Producer:
    """An idempotent producer, transactional if given an id. Raises UsageError, as `made` does."""
    return made(Producer, settings, producer_config(settings, transactional_id))


def consumer(settings: Settings, group: str, **overrides: Any) -> Consumer:
    """A read-committed consumer that commits nothing by itself. Raises UsageError, as `made` does."""
    return made(Consumer, settings, consumer_config(settings, group, **overrides))


def reader(settings: Settings, **overrides: Any) -> Consumer:
    """A consumer that is given its partitions and commits nothing: it needs a group's name, and no place in it."""
    return consumer(settings, f"{settings.prefix}{READERS}", **overrides)


def made(
    kind: Callable[..., C],
    settings: Settings,
    config: dict[str, Any],
    told: Callable[[KafkaError], None] = _ignored,
) -> C:
    """A client, whose errors beside its calls are `told`. Raises UsageError where its properties make none."""
    try:
        return kind(config, error_cb=told)
    except KafkaException as error:
        why = re.sub(r"^Failed to create [\w ]+: ", "", error.args[0].str())
        raise UsageError(
            f"the Kafka properties cannot be used: {without_secrets(settings, why)}: see -X, NAMEFREE_KAFKA_… and "
            "[kafka] in the settings file"
        ) from None  # the cause's text is what was just cleaned


def cluster_topics(admin: AdminClient, settings: Settings, timeout_s: float = REACH_TIMEOUT_S) -> dict[str, int]:
    """Partitions of each topic on the cluster. Raises BrokerError where it does not answer."""
    try:
        found = admin.list_topics(timeout=timeout_s).topics
    except KafkaException as error:
        raise BrokerError(_why_unreached(settings, error.args[0])) from error
    return {name: len(topic.partitions) for name, topic in found.items()}


def _why_unreached(settings: Settings, error: KafkaError) -> str:
    """One line: what is wrong, and what to do. Asks once more: a call says only that nobody has answered it, and
    the cause is told aside."""
    told: list[KafkaError] = []
    client = made(AdminClient, settings, client_config(settings), told.append)
    with suppress(KafkaException):
        client.list_topics(timeout=WHY_TIMEOUT_S)
    client.poll(0)  # hands out what was told aside
    words, code = error.str(), KafkaError._TRANSPORT
    if causes := [one for code in REMEDIES for one in told if one.code() == code]:
        words = re.sub(r"^\w+://\S+: |^[\w.:-]+/bootstrap: | \(after \d+ms in state \w+\)", "", causes[0].str())
        code = KafkaError._SSL if "SSL" in words else causes[0].code()
    elif told:  # all brokers are down, and no connection has failed
        words, code = "what listens there hangs up without a word", KafkaError._SSL
    where = f"no Kafka broker answers at {settings.bootstrap}"
    return f"{where} ({without_secrets(settings, words)}): {REMEDIES[code]}"


def listen(call: Callable[[float], int], seconds: float) -> int:
    """A producer's `poll` or `flush`. Raises KafkaException where the client says there that it is past help.
    Where a next callback finds that exception under way, Python makes a SystemError of it."""
    try:
        return call(seconds)
    except SystemError as error:
        if isinstance(error.__cause__, KafkaException):
            raise error.__cause__ from error
        raise


def is_forbidden(error: KafkaError) -> bool:
    """Whether it is for want of a right."""
    return "AUTHORIZATION" in error.name()


def ends_reading(error: KafkaError) -> bool:
    """Whether a reader that goes on would read nothing any more; the client heals all others by itself."""
    return error.fatal() or is_forbidden(error)


def said(error: KafkaError) -> str:
    """An error's name and words on one line, and what to do where it is for want of a right."""
    remedy = RIGHTS_REMEDY if is_forbidden(error) else HIDDEN_REMEDY if error.code() in HIDE_THE_CAUSE else ""
    return f"{error.name()}, {' '.join(error.str().split())}{remedy}"


def missing(settings: Settings, name: str) -> str:
    """The sentence for a topic that is not there, or that this user may not see: a broker tells no difference."""
    return f"topic {name} is missing at {settings.bootstrap}: run `namefree topics create`{UNSEEN_REMEDY}"


def partitions_of(settings: Settings, name: str) -> list[int]:
    """The partitions of topic `name`. Raises BrokerError where it is missing."""
    count = cluster_topics(admin_client(settings), settings).get(name)
    if count is None:
        raise BrokerError(missing(settings, name))
    return list(range(count))


def read_all(
    settings: Settings,
    name: str,
    start: dict[int, int] | None = None,
    end: dict[int, int] | None = None,
    batch: int = 5_000,
) -> Iterator[Message]:
    """Every committed message of topic `name`, partition by partition in order, without a group's offsets.

    From `start` (partition -> offset, default the beginning) up to `end` (exclusive; default what is there
    now). Stops on positions, not counts: transaction markers occupy offsets too.
    """
    client = reader(settings)
    try:
        partitions = partitions_of(settings, name)
        marks = {p: watermarks(client, name, p) for p in partitions}
        ends = {p: marks[p][1] if end is None else end.get(p, 0) for p in partitions}
        starts = {p: (start or {}).get(p, OFFSET_BEGINNING) for p in partitions}
        wanted = [p for p in partitions if ends[p] > max(starts[p], marks[p][0])]
        yield from read_between(client, name, {p: starts[p] for p in wanted}, ends, batch)
    finally:
        client.close()


def watermarks(reader: Consumer, name: str, partition: int) -> tuple[int, int]:
    """A partition's first offset and its last stable one: beyond it stand open transactions, which a
    read-committed reader may not see. Waits while a leader is being found. Raises BrokerError."""
    ends_s = time.monotonic() + REACH_TIMEOUT_S
    while True:
        try:
            low, high = reader.get_watermark_offsets(TopicPartition(name, partition), timeout=REACH_TIMEOUT_S)
            return int(low), int(high)
        except KafkaException as error:
            if error.args[0].code() not in LEADERLESS or time.monotonic() > ends_s:
                raise BrokerError(
                    f"the ends of {name}[{partition}] cannot be read: {said(error.args[0])}"
                ) from error
        time.sleep(0.05)


def read_between(
    reader: Consumer, name: str, starts: Mapping[int, int], ends: Mapping[int, int], batch: int = 5_000
) -> Iterator[Message]:
    """The committed messages from `starts` (partition -> offset) up to `ends` (exclusive, and beyond the start),
    all partitions beside each other, by a client that has nothing else assigned. Raises BrokerError."""
    reader.assign([TopicPartition(name, p, start) for p, start in starts.items()])
    left = set(starts)
    while left:
        for message in reader.consume(batch, timeout=0.2):
            if (error := message.error()) is not None:
                raise BrokerError(f"topic {name} cannot be read: {said(error)}")
            if (message.offset() or 0) < ends[message.partition() or 0]:
                yield message
        positions = {p: reader.position([TopicPartition(name, p)])[0].offset or 0 for p in left}
        left = {p for p in left if positions[p] < ends[p]}
