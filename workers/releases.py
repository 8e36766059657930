"""Releases: a bundle copied into the release store, and its event on the `releases` topic.

The event stands under the release's id, for the record, and once more under `current`, which is what routers
serve. The store is a folder that publisher and routers share; an event names the bundle by its path there.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path

from confluent_kafka import KafkaException, Message

from model.bundle import Manifest, read_manifest
from topics.codec import Source, check_key, decode, encode
from topics.errors import BadBundle, BadEvent, BrokerError, UsageError
from topics.events import Release
from topics.kafka import partitions_of, producer, read_all
from topics.registry import RELEASES, topic_name
from topics.settings import Settings
from workers.source import place_of

CURRENT = "current"
DELIVERY_TIMEOUT_S = 30.0  # longer than a broker's restart takes; a person waits for it


def default_store() -> Path:
    """`NAMEFREE_STORE`, else `XDG_DATA_HOME/namefree/releases`, else `~/.local/share/namefree/releases`."""
    if chosen := os.environ.get("NAMEFREE_STORE"):
        return Path(chosen).expanduser().absolute()
    base = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".local/share") / "namefree" / "releases"


def publish(
    settings: Settings, bundle: Path, store: Path, parent: str, measures: dict[str, float], note: str
) -> Release:
    """Copies `bundle` into `store` and makes it the release that routers serve; returns its event.

    `parent` is the release that it was trained from, or "". Raises BadBundle for a damaged bundle and
    BrokerError where the event could not be written; the copy in the store does no harm then.
    """
    partitions_of(settings, topic_name(settings, RELEASES))  # says in one line if broker or topic are missing
    manifest = read_manifest(bundle)
    release = Release(
        event_time_ms=int(time.time() * 1000),
        release=manifest.release,
        bundle=str(_stored(bundle, store.expanduser().absolute(), manifest)),
        digest=manifest.digest,
        parent=parent,
        measures=measures,
        note=note,
    )
    _announce(settings, release)
    return release


def _stored(bundle: Path, store: Path, manifest: Manifest) -> Path:
    """The bundle's copy in the store, which appears there whole or not at all."""
    target = store / manifest.release
    if _is_whole(target, manifest.digest):
        return target
    try:
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=store, prefix=".incoming-") as folder:
            copy = Path(folder) / manifest.release
            shutil.copytree(bundle, copy)
            if not _is_whole(copy, manifest.digest):
                raise BadBundle(f"bundle {bundle} changed while it was copied to {store}: publish it again")
            if target.exists():  # a damaged one of that name
                target.rename(Path(folder) / "damaged")
            copy.rename(target)
    except OSError as error:
        raise UsageError(f"release store {store} cannot be written ({error.strerror}): use --store") from error
    return target


def _is_whole(folder: Path, digest: str) -> bool:
    try:
        return read_manifest(folder).digest == digest
    except BadBundle:
        return False


def _announce(settings: Settings, release: Release) -> None:
    """Writes the event under its id, and, once that is safe, under `current`."""
    client = producer(settings)
    value = encode(release)
    for key in (release.release, CURRENT):
        errors: list[object] = []
        try:
            client.produce(
                topic_name(settings, RELEASES),
                key=key.encode(),
                value=value,
                on_delivery=lambda error, _message, found=errors: found.append(error),
            )
        except KafkaException as error:
            raise BrokerError(f"release {release.release} was not written: {error.args[0].str()}") from error
        if client.flush(DELIVERY_TIMEOUT_S) or errors != [None]:
            why = errors[0] if errors else f"no answer within {DELIVERY_TIMEOUT_S:.0f} s"
            raise BrokerError(f"release {release.release} was not written under {key!r}: {why}")


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
