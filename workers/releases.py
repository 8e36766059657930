"""Releases: a bundle copied into the release store, and its event on the `releases` topic.

The event stands under the release's id, for the record. Routers serve what stands under three more keys: `current`
for all customers, `canary` for a share of them, `shadow` for nobody, its decisions on a topic of their own. The
latter two carry a time at which they end by themselves. The store is a folder that publisher and routers share; an
event names the bundle by its path there.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from topics.codec import Source, check_key, decode, encode
from topics.errors import BadEvent, BrokerError, UsageError
from topics.events import Release
from topics.kafka import partitions_of, producer, read_all, said
from topics.registry import RELEASES, topic_name
from topics.settings import Settings
from workers.failpoints import reach
from workers.source import place_of

CURRENT, CANARY, SHADOW = SERVING_KEYS = ("current", "canary", "shadow")
MAX_NOTE_CHARS = 1_000  # of a release's event
DELIVERY_TIMEOUT_S = 30.0  # longer than a broker's restart takes; a person waits for it


def publish(
    settings: Settings,
    bundle: Path,
    store: Path,
    parent: str,
    measures: dict[str, float],
    note: str,
    provenance: Mapping[str, str] | None = None,
) -> Release:
    """`record`, and then all customers are served by it, without a trial; returns its event."""
    release = record(settings, bundle, store, parent, measures, note, provenance)
    return serve(settings, release)


def record(
    settings: Settings,
    bundle: Path,
    store: Path,
    parent: str,
    measures: dict[str, float],
    note: str,
    provenance: Mapping[str, str] | None = None,
) -> Release:
    """Copies `bundle` into `store` and writes its event under its id alone: no router serves it yet.

    `parent` is the release that it was trained from, or "". Raises BadBundle for a damaged bundle and
    BrokerError where the event could not be written; the copy in the store does no harm then.
    """
    from workers.release_store import store_bundle  # here, as it brings the networks, which a list needs not

    partitions_of(settings, topic_name(settings, RELEASES))  # says in one line if broker or topic are missing
    manifest, place = store_bundle(bundle, store)
    reach("releases.after_store")
    release = Release(
        event_time_ms=int(time.time() * 1000),
        release=manifest.release,
        bundle=str(place),
        digest=manifest.digest,
        parent=parent,
        measures=measures,
        note=note,
        provenance=dict(provenance or {}),
    )
    _write(settings, release.release, release)
    return release


def serve(
    settings: Settings, release: Release, key: str = CURRENT, share: float = 1.0, until_ms: int = 0
) -> Release:
    """Has the routers serve `release` under `key`, and returns the event written there. Raises BrokerError.

    `share`: of the customers, under `canary` and `shadow`. `until_ms`: when it ends by itself, epoch
    milliseconds by each router's own clock; 0 for never.
    """
    served = msgspec.structs.replace(release, share=share, until_ms=until_ms)
    _write(settings, key, served)
    return served


def withdraw(settings: Settings, key: str) -> None:
    """Ends the trial under `key`, `canary` or `shadow`. Raises BrokerError."""
    if key not in (CANARY, SHADOW):
        raise ValueError(f"{key!r} is no trial: only {CANARY!r} and {SHADOW!r} can be withdrawn")
    _write(settings, key, None)


def annotate(settings: Settings, release: Release, note: str) -> Release:
    """Adds `note` to the release's record, behind what it says already; returns the record. Raises BrokerError."""
    notes = "; ".join(one for one in (release.note, note) if one)[-MAX_NOTE_CHARS:]
    noted = msgspec.structs.replace(release, note=notes, share=1.0, until_ms=0)
    _write(settings, release.release, noted)
    return noted


def roll_back(settings: Settings, to: Release | None = None) -> Release:
    """Ends canary and shadow and has all customers served by `to`, which is returned; None: by the parent of what
    serves now. Raises UsageError where nothing serves, or the parent is not known; nothing is changed then."""
    serving = serving_now(settings)
    current = serving.get(CURRENT)
    if current is None:
        raise UsageError("nothing serves, so there is nothing to go back from: see `namefree releases list`")
    target = to or _parent(settings, current)
    for key in (CANARY, SHADOW):
        if key in serving:
            withdraw(settings, key)
    if target.digest != current.digest:
        serve(settings, target)
        annotate(settings, current, f"rolled back to {target.release} at {utc(time.time())}")
    return target


def utc(time_s: float) -> str:
    """Epoch seconds as a person reads them.

    >>> utc(0)
    '1970-01-01 00:00:00Z'
    """
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(time_s))


def _parent(settings: Settings, release: Release) -> Release:
    found = [one for one in all_releases(settings) if one.release == release.parent]
    if not found:
        why = f"its parent {release.parent} is not on the topic" if release.parent else "it has no parent"
        raise UsageError(
            f"{release.release} serves and {why}: name a release with --to, see `namefree releases list`"
        )
    return found[0]


def in_force(release: Release) -> bool:
    """Whether the time of a release under one of the keys is not over, by this machine's clock."""
    return not release.until_ms or time.time() * 1000 < release.until_ms


def _write(settings: Settings, key: str, release: Release | None) -> None:
    """Writes one event and waits until it is safe."""
    reach("releases.before_event")
    name = topic_name(settings, RELEASES)
    answers = _deliver(producer(settings), name, key, encode(release) if release else None)
    if answers != [None]:
        why = said(answers[0]) if answers and answers[0] else f"no answer within {DELIVERY_TIMEOUT_S:.0f} s"
        what = f"release {release.release}" if release else "the end of a trial"
        raise BrokerError(f"{what} was not written under {key!r} of {name}: {why}")
    reach("releases.after_event")


def _deliver(client: Producer, name: str, key: str, value: bytes | None) -> list[KafkaError | None]:
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
    if (message.key() or b"") not in [key.encode() for key in SERVING_KEYS]:
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


def serving_now(settings: Settings) -> dict[str, Release]:
    """What routers serve by key, `current`, `canary`, `shadow`; without those whose time is over."""
    found = _newest(settings)
    served = {key: found[key.encode()] for key in SERVING_KEYS if key.encode() in found}
    return {key: release for key, release in served.items() if in_force(release)}


def current_release(settings: Settings) -> Release | None:
    """The release that routers serve; None where none was published."""
    return serving_now(settings).get(CURRENT)


def all_releases(settings: Settings) -> list[Release]:
    """Every release, the oldest first."""
    keys = {key.encode() for key in SERVING_KEYS}
    found = [release for key, release in _newest(settings).items() if key not in keys]
    return sorted(found, key=lambda release: (release.event_time_ms, release.release))
