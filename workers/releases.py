"""Releases: a bundle copied into the release store, and its event on the `releases` topic.

The event stands under the release's id, for the record, and once more under `current`, which is what routers
serve. The store is a folder that publisher and routers share; an event names the bundle by its path there.
"""

import time
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from topics.codec import Source, check_key, decode, encode
from topics.errors import BadEvent, BrokerError
from topics.events import Release
from topics.kafka import partitions_of, producer, read_all
from topics.registry import RELEASES, topic_name
from topics.settings import Settings
from workers.source import place_of

CURRENT = "current"
DELIVERY_TIMEOUT_S = 30.0  # longer than a broker's restart takes; a person waits for it


def publish(
    settings: Settings, bundle: Path, store: Path, parent: str, measures: dict[str, float], note: str
) -> Release:
    """Copies `bundle` into `store` and makes it the release that routers serve; returns its event.

    `parent` is the release that it was trained from, or "". Raises BadBundle for a damaged bundle and
    BrokerError where the event could not be written; the copy in the store does no harm then.
    """
    from workers.release_store import store_bundle  # here, as it brings the networks, which a list needs not

    partitions_of(settings, topic_name(settings, RELEASES))  # says in one line if broker or topic are missing
    manifest, place = store_bundle(bundle, store)
    release = Release(
        event_time_ms=int(time.time() * 1000),
        release=manifest.release,
        bundle=str(place),
        digest=manifest.digest,
        parent=parent,
        measures=measures,
        note=note,
    )
    _announce(settings, release)
    return release


def _announce(settings: Settings, release: Release) -> None:
    """Writes the event under its id, and, once that is safe, under `current`."""
    client = producer(settings)
    name = topic_name(settings, RELEASES)
    for key in (release.release, CURRENT):
        answers = _deliver(client, name, key, encode(release))
        if answers != [None]:
            why = answers[0] if answers else f"no answer within {DELIVERY_TIMEOUT_S:.0f} s"
            raise BrokerError(f"release {release.release} was not written under {key!r} of {name}: {why}")


def _deliver(client: Producer, name: str, key: str, value: bytes) -> list[KafkaError | None]:
    """The broker's answer: [None] where all is well, the error where not, empty where none came in time."""
    answers: list[KafkaError | None] = []
    try:
        client.produce(name, value, key.encode(), on_delivery=lambda error, _message: answers.append(error))
        client.flush(DELIVERY_TIMEOUT_S)
    except KafkaException as error:
        answers.append(error.args[0])
    return answers


def read_release(message: Message) -> Release:
    """The event in a message of the topic. Raises BadEvent, also where its key is another release's."""
    partition, offset = place_of(message)
    source = Source(message.topic() or "", partition, offset)
    release = decode(message.value(), Release, source)
    if message.key() != CURRENT.encode():
        check_key(message.key(), release.release, source)
    return release


def _newest(settings: Settings) -> dict[bytes, Release]:
    """The newest value under each key; malformed events are passed over, null ones remove."""
    found: dict[bytes, Release] = {}
    for message in read_all(settings, topic_name(settings, RELEASES)):
        key = message.key() or b""
        try:
            found[key] = read_release(message)
        except BadEvent:
            if message.value() is None:
                found.pop(key, None)
    return found


def current_release(settings: Settings) -> Release | None:
    """The release that routers serve; None where none was published."""
    return _newest(settings).get(CURRENT.encode())


def all_releases(settings: Settings) -> list[Release]:
    """Every release, the oldest first."""
    found = _newest(settings)
    found.pop(CURRENT.encode(), None)
    return sorted(found.values(), key=lambda release: (release.event_time_ms, release.release))
