"""The registry against a real cluster: what it makes it finds in order, and what differs it names."""

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from tests.conftest import Broker, WaitUntil
from topics.errors import BrokerError
from topics.kafka import admin_client, cluster_topics
from topics.registry import CO_PARTITIONED, TOPICS, check_topics, create_topics, topic_name
from topics.settings import Settings


@pytest.fixture
def settings(broker: Broker, topic_prefix: str) -> Settings:
    return Settings(bootstrap=broker.bootstrap, prefix=topic_prefix)


def make(settings: Settings, name: str, partitions: int, **config: str) -> None:
    topic = NewTopic(f"{settings.prefix}{name}", num_partitions=partitions, replication_factor=-1, config=config)
    admin = admin_client(settings)
    for future in admin.create_topics([topic]).values():
        future.result()


def test_what_was_created_is_in_order(settings: Settings) -> None:
    created = create_topics(settings, partitions=4)
    assert sorted(created) == sorted(topic_name(settings, topic) for topic in TOPICS)
    assert check_topics(settings) == []
    there = cluster_topics(admin_client(settings), settings)
    assert {there[topic_name(settings, topic)] for topic in CO_PARTITIONED} == {4}


def test_creating_again_creates_nothing(settings: Settings) -> None:
    create_topics(settings, partitions=1)
    assert create_topics(settings, partitions=1) == []


def test_each_missing_topic_is_named(settings: Settings) -> None:
    missing = check_topics(settings)
    assert len(missing) == len(TOPICS)
    assert f"topic {settings.prefix}utterances is missing: run `namefree topics create`" in "\n".join(missing)


def test_other_partitions_and_cleanup_are_named(settings: Settings) -> None:
    make(settings, "links", 3, **{"cleanup.policy": "delete"})
    make(settings, "skills", 2, **{"cleanup.policy": "compact"})
    create_topics(settings, partitions=2)
    found = check_topics(settings)
    assert f"topic {settings.prefix}links has cleanup.policy=delete, expected compact" in found
    assert f"topic {settings.prefix}skills has 2 partitions, expected 1" in found
    [uneven] = [line for line in found if "equally many partitions" in line]
    assert f"{settings.prefix}links 3" in uneven
    assert f"{settings.prefix}decisions 2" in uneven
    [kept] = [line for line in found if "delete.retention.ms=86400000" in line]
    assert kept.startswith(f"topic {settings.prefix}skills ")
    assert len(found) == 4


def test_a_setting_changed_later_is_named(settings: Settings, wait_until: WaitUntil) -> None:
    create_topics(settings, partitions=1)
    name = f"{settings.prefix}utterances"
    entry = ConfigEntry("retention.ms", "1000", incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
    admin = admin_client(settings)
    admin.incremental_alter_configs([change])[change].result()
    # the controller answers before the broker that is asked has heard of it
    found = wait_until(lambda: check_topics(settings), 10, "the changed setting is found")
    assert found == [f"topic {name} has retention.ms=1000, expected 604800000"]


def test_a_replication_that_the_cluster_cannot_give_is_refused(settings: Settings) -> None:
    with pytest.raises(BrokerError, match="could not be created"):
        create_topics(settings, partitions=1, replication=99)
