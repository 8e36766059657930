"""The links table on a real broker: restored, followed, dropped; what cannot be read changes nothing."""

import threading
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import CollectorRegistry

from tests.workers.aggregating import settled
from tests.workers.marketplace import Marketplace, link
from topics.kafka import producer, read_all
from topics.registry import LINKS, topic_name
from workers.links import LinksTable
from workers.metrics import RouterMetrics

BOTH = frozenset({0, 1})


@pytest.fixture
def metrics() -> RouterMetrics:
    return RouterMetrics(CollectorRegistry())


@pytest.fixture
def table(market: Marketplace, metrics: RouterMetrics) -> Iterator[LinksTable]:
    table = LinksTable(market.settings, metrics)
    yield table
    table.close()


def partition_of(market: Marketplace, customer: str) -> int:
    for message in read_all(market.settings, topic_name(market.settings, LINKS)):
        if message.key() == customer.encode():
            return message.partition() or 0
    raise AssertionError(f"no event of {customer}")


def followed(table: LinksTable, owned: frozenset[int], condition: Callable[[], bool]) -> Callable[[], bool]:
    def look() -> bool:
        table.update(owned, threading.Event())
        return condition()

    return look


def test_one_update_restores_all_that_was_written_before(
    market: Marketplace, table: LinksTable, metrics: RouterMetrics
) -> None:
    market.send(LINKS, [link(f"c-{n}", "a") for n in range(200)] + [link(f"c-{n}", "b", "c") for n in range(100)])
    table.update(BOTH, threading.Event())
    found = [table.linked(0, f"c-{n}") or table.linked(1, f"c-{n}") for n in range(200)]
    assert found == [("b", "c")] * 100 + [("a",)] * 100
    assert metrics.registry.get_sample_value("namefree_links_customers") == 200


def test_an_empty_topic_is_restored_at_once(table: LinksTable) -> None:
    table.update(BOTH, threading.Event())
    assert table.partitions == BOTH
    assert table.linked(0, "c-1") == ()


def test_later_events_are_followed_and_null_forgets(market: Marketplace, table: LinksTable) -> None:
    market.send(LINKS, [link("c-1", "a")])
    home = partition_of(market, "c-1")
    table.update(BOTH, threading.Event())
    market.send(LINKS, [link("c-1", "a", "b")])
    market.until(followed(table, BOTH, lambda: table.linked(home, "c-1") == ("a", "b")), "the new link is known")
    market.send(LINKS, [(b"c-1", None)])
    market.until(followed(table, BOTH, lambda: table.linked(home, "c-1") == ()), "the customer is forgotten")


def test_a_malformed_event_keeps_the_links_of_before_and_is_counted(
    market: Marketplace, table: LinksTable, metrics: RouterMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [(b"c-1", b"{"), (b"c-1", link("c-2", "x")[1])]
    market.send(LINKS, [link("c-1", "a"), *bad])
    table.update(BOTH, threading.Event())
    home = partition_of(market, "c-1")
    assert table.linked(home, "c-1") == ("a",)
    assert metrics.registry.get_sample_value("namefree_bad_links_total") == len(bad)
    assert f"Links at {topic_name(market.settings, LINKS)}[{home}]@1" in caplog.text


def test_links_of_a_partition_that_is_gone_are_dropped_and_come_back_with_it(
    market: Marketplace, table: LinksTable
) -> None:
    market.send(LINKS, [link(f"c-{n}", "a") for n in range(20)])
    table.update(BOTH, threading.Event())
    table.update(frozenset({0}), threading.Event())
    assert table.partitions == {0}
    assert not any(table.linked(1, f"c-{n}") for n in range(20))
    table.update(BOTH, threading.Event())
    assert sum(bool(table.linked(0, f"c-{n}") or table.linked(1, f"c-{n}")) for n in range(20)) == 20


def test_restoring_ends_when_the_router_is_stopped(market: Marketplace, table: LinksTable) -> None:
    stop = threading.Event()
    stop.set()
    table.update(BOTH, stop)  # returns


def test_with_requests_in_hand_the_table_holds_what_the_topic_holds(
    market: Marketplace, table: LinksTable
) -> None:
    """Each change, written and acknowledged before the update, is there after one update."""
    market.send(LINKS, [link("c-1", "none")])
    home = partition_of(market, "c-1")
    table.update(BOTH, threading.Event())
    for number in range(20):
        market.send(LINKS, [link("c-1", f"skill:{number}")])
        table.update(BOTH, threading.Event(), asked=True)
        assert table.linked(home, "c-1") == (f"skill:{number}",)


def test_links_of_a_transaction_are_waited_for_beyond_its_marker(market: Marketplace, table: LinksTable) -> None:
    table.update(BOTH, threading.Event())
    client = producer(market.settings, f"{market.settings.prefix}links")
    client.init_transactions(30)
    client.begin_transaction()
    client.produce(topic_name(market.settings, LINKS), link("c-1", "a")[1], b"c-1")
    client.commit_transaction(30)
    settled(market.settings, LINKS)  # a commit returns before its marker is written
    table.update(BOTH, threading.Event(), asked=True)
    assert table.linked(partition_of(market, "c-1"), "c-1") == ("a",)
