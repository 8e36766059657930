"""Where a router begins: with the first utterance once, and never again by itself."""

from contextlib import closing

import pytest
from confluent_kafka import KafkaException, TopicPartition

from tests.workers.marketplace import Marketplace
from topics.kafka import admin_client, consumer
from topics.registry import UTTERANCES, topic_name
from workers.router_process import RouterOptions, group_id

PARTITIONS = range(2)  # of the marketplace's topics


def offsets(market: Marketplace) -> list[int]:
    """What the routers' group has committed, below zero where nothing is, or a broker has yet to find out."""
    places = [TopicPartition(topic_name(market.settings, UTTERANCES), p) for p in PARTITIONS]
    with closing(consumer(market.settings, group_id(market.settings, RouterOptions()))) as member:
        try:
            return [place.offset for place in member.committed(places, timeout=30)]
        except KafkaException:
            return [-1]


def forget(market: Marketplace) -> None:
    """The group's offsets are gone, as though they had expired."""
    group, admin = group_id(market.settings, RouterOptions()), admin_client(market.settings)
    admin.delete_consumer_groups([group])[group].result()


def decided_and_left(market: Marketplace, count: int) -> None:
    market.publish("one")
    market.ask(0, count)
    router = market.thread(batch=10)
    market.until_decided(router, count)
    router.stop()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_new_group_says_where_it_begins_before_anything_is_decided(market: Marketplace, protocol: str) -> None:
    """So that a group without an offset, where a first transaction was dropped, is known for a new one."""
    market.publish("one")
    router = market.thread(group_protocol=protocol)
    market.until(lambda: offsets(market) == [0, 0], "it has begun")
    assert market.decisions(0) == []
    market.ask(0, 10)
    market.until_decided(router, 10)


def test_a_group_whose_offsets_are_gone_does_not_decide_everything_again(market: Marketplace) -> None:
    decided_and_left(market, 30)
    forget(market)
    router = market.thread()
    market.until(router.is_over, "the router refuses to guess")
    assert "its offsets have expired or are lost" in str(router.error)
    assert len(market.decisions(30)) == 30


@pytest.mark.parametrize(("begin", "decided"), [("earliest", 35), ("latest", 5)])
def test_an_operator_says_where_it_begins_instead(market: Marketplace, begin: str, decided: int) -> None:
    decided_and_left(market, 30)
    forget(market)
    router = market.thread(begin=begin)
    market.until(lambda: min(offsets(market)) >= 0, "it has begun")
    market.ask(30, 5)
    market.until_decided(router, decided)
    router.stop()
    assert len(market.decisions(30 + decided)) == 30 + decided


def test_what_was_removed_before_it_was_decided_is_passed_over_and_told(
    market: Marketplace, caplog: pytest.LogCaptureFixture
) -> None:
    decided_and_left(market, 30)
    market.ask(30, 100)
    name, admin = topic_name(market.settings, UTTERANCES), admin_client(market.settings)
    gone = [at + 10 for at in offsets(market)]
    places = [TopicPartition(name, p, at) for p, at in zip(PARTITIONS, gone, strict=True)]
    for removed in admin.delete_records(places).values():
        removed.result()
    router = market.thread()
    market.until_decided(router, 80)
    router.stop()
    assert caplog.text.count("10 utterances were removed before they were decided") == 2
    assert len(market.decisions(110)) == 110


def test_a_topic_that_was_made_anew_is_not_taken_for_the_one_before(market: Marketplace) -> None:
    decided_and_left(market, 30)
    name = topic_name(market.settings, UTTERANCES)
    with closing(consumer(market.settings, group_id(market.settings, RouterOptions()))) as member:
        member.commit(offsets=[TopicPartition(name, p, 1_000) for p in PARTITIONS], asynchronous=False)
    router = market.thread()
    market.until(router.is_over, "the router sees it")
    assert "the topic was made anew" in str(router.error)
