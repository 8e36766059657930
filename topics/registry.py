"""Every topic, in one table: its key, its event, its partitions and cleanup. Created and checked from here."""

import time
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from topics import events
from topics.errors import BrokerError
from topics.kafka import REACH_TIMEOUT_S, UNSEEN_REMEDY, admin_client, cluster_topics, said
from topics.settings import Settings

HOUR_MS = 3600 * 1000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True)
class Topic:
    """What a topic carries. `partitions` of None: as many as all topics that are keyed by customer."""

    name: str
    key: str
    event: type[events.Event]
    cleanup: str
    partitions: int | None = None
    config: dict[str, str] = field(default_factory=dict)
    note: str = ""


def _kept(days: int) -> dict[str, str]:
    return {"retention.ms": str(days * DAY_MS)}


UTTERANCES = Topic("utterances", "customer_id", events.Utterance, "delete", config=_kept(7), note="requests")
LINKS = Topic("links", "customer_id", events.Links, "compact", note="linked skills of each customer")
SKILLS = Topic(
    "skills",
    "skill_id",
    events.SkillCard,
    "compact",
    1,
    config={
        "delete.retention.ms": str(3_650 * DAY_MS)
    },  # else a removed skill of a release comes back after a day
    note="the skills' cards",
)
DECISIONS = Topic("decisions", "customer_id", events.Decision, "delete", config=_kept(7), note="answers")
OUTCOMES = Topic("outcomes", "customer_id", events.Outcome, "delete", config=_kept(7), note="what became of them")
STATISTICS = Topic(
    "statistics",
    "bucket/partition",
    events.StatisticsFold,
    "compact",
    config={
        "max.message.bytes": str(events.MAX_FOLD_BYTES + 64 * 1024),
        # only what is in older segments is compacted, and an aggregator that starts reads what is not: without
        # bounds up to 1 GB of each partition, or a week
        "segment.bytes": str(64 * 1024 * 1024),
        "segment.ms": str(HOUR_MS),
    },
    note="folds of outcomes",
)
LIVE_STATISTICS = Topic(
    "live-statistics",
    "version",
    events.LiveStatistics,
    "delete",
    1,
    # a day longer than the decisions that name it, as one in force is written again once a day
    config={**_kept(8), "max.message.bytes": str(events.MAX_FOLD_BYTES + 64 * 1024)},
    note="what routers make of the folds between two cycles",
)
RELEASES = Topic(
    "releases",
    "release id, and current, canary, shadow",
    events.Release,
    "compact",
    1,
    note="bundles that serve",
)
SHADOW_DECISIONS = Topic(
    "shadow-decisions",
    "customer_id",
    events.Decision,
    "delete",
    config=_kept(7),
    note="answers of a release that no customer meets",
)
DEAD_LETTERS = Topic(
    "dead-letters",
    "the source's key",
    events.DeadLetter,
    "delete",
    config={**_kept(30), "max.message.bytes": str(4 * 1024 * 1024)},  # a bad value of 1 MB grows by base64
    note="events that could not be taken",
)
REDRIVEN = Topic(
    "redriven",
    "the dead letter's partition:offset",
    events.Redriven,
    "compact",  # kept for good, a hundred bytes each: a letter must not be sent back again because it is forgotten
    1,
    note="dead letters that were sent back",
)
TOPICS = (
    UTTERANCES,
    LINKS,
    SKILLS,
    DECISIONS,
    SHADOW_DECISIONS,
    OUTCOMES,
    STATISTICS,
    LIVE_STATISTICS,
    RELEASES,
    DEAD_LETTERS,
    REDRIVEN,
)
CO_PARTITIONED = (UTTERANCES, LINKS, DECISIONS, SHADOW_DECISIONS, OUTCOMES, STATISTICS)


def topic_name(settings: Settings, topic: Topic) -> str:
    """The topic's name on the cluster: prefix and name."""
    return f"{settings.prefix}{topic.name}"


def create_topics(settings: Settings, partitions: int = 6, replication: int = -1) -> list[str]:
    """Creates what is missing and returns the created names. A replication of -1 is the broker's default."""
    admin = admin_client(settings)
    there = cluster_topics(admin, settings)
    missing = [topic for topic in TOPICS if topic_name(settings, topic) not in there]
    if not missing:
        return []
    new = [_new_topic(settings, topic, partitions, replication) for topic in missing]
    created = []
    for name, future in admin.create_topics(new).items():
        try:
            future.result()
            created.append(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # another process was faster
                raise BrokerError(f"topic {name} could not be created: {said(error.args[0])}") from error
    _wait_until_listed(admin, settings, created)
    return created


def _wait_until_listed(admin: AdminClient, settings: Settings, names: list[str]) -> None:
    """A broker learns of a new topic some milliseconds after the controller has made it: wait until it says so."""
    ends_s = time.monotonic() + REACH_TIMEOUT_S
    while left := set(names) - cluster_topics(admin, settings).keys():
        if time.monotonic() > ends_s:
            late = f"topic {min(left)} was created, but is not listed after {REACH_TIMEOUT_S:.0f} s"
            raise BrokerError(f"{late}: try again{UNSEEN_REMEDY}")
        time.sleep(0.02)


def _new_topic(settings: Settings, topic: Topic, partitions: int, replication: int) -> NewTopic:
    return NewTopic(
        topic_name(settings, topic),
        num_partitions=topic.partitions or partitions,
        replication_factor=replication,
        config={"cleanup.policy": topic.cleanup, **topic.config},
    )


def check_topics(settings: Settings) -> list[str]:
    """What differs on the cluster from the table above, one sentence each; empty where all is well."""
    admin = admin_client(settings)
    there = cluster_topics(admin, settings)
    names = {topic.name: topic_name(settings, topic) for topic in TOPICS}
    missing = [name for name in names.values() if name not in there]
    found = [f"topic {name} is missing: run `namefree topics create`{UNSEEN_REMEDY}" for name in missing]
    present = [topic for topic in TOPICS if names[topic.name] in there]
    configs = _cluster_configs(admin, [names[topic.name] for topic in present])
    for topic in present:
        found += _differences(topic, names[topic.name], there[names[topic.name]], configs[names[topic.name]])
    return found + _partition_differences(settings, there)


def _cluster_configs(admin: AdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    answers = admin.describe_configs(resources)
    found = {}
    for resource in resources:
        try:
            answer = answers[resource].result()
        except KafkaException as error:
            raise BrokerError(
                f"what topic {resource.name} is set to cannot be read: {said(error.args[0])}"
            ) from error
        found[resource.name] = {key: entry.value for key, entry in answer.items()}
    return found


def _differences(topic: Topic, name: str, partitions: int, config: dict[str, str]) -> list[str]:
    found = []
    if topic.partitions is not None and partitions != topic.partitions:
        found.append(f"topic {name} has {partitions} partitions, expected {topic.partitions}")
    for key, value in {"cleanup.policy": topic.cleanup, **topic.config}.items():
        if config.get(key) != value:
            found.append(f"topic {name} has {key}={config.get(key)}, expected {value}")
    return found


def _partition_differences(settings: Settings, there: dict[str, int]) -> list[str]:
    counts = {name: there[name] for topic in CO_PARTITIONED if (name := topic_name(settings, topic)) in there}
    if len(set(counts.values())) <= 1:
        return []
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    return [f"topics keyed by customer must have equally many partitions, but have: {listed}"]
