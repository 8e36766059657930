"""The links table on a real broker: restored, followed, dropped; what cannot be read changes nothing."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import CollectorRegistry

from tests.workers.aggregating import settled
from tests.workers.marketplace import START_S, Marketplace, link
from topics.errors import WorkerError
from topics.kafka import producer, read_all
from topics.registry import LINKS, topic_name
from workers.links import LinksTable
from workers.metrics import RouterMetrics

BOTH = frozenset({0, 1})


@pytest.fixture
def metrics() -> RouterMetrics:
    return RouterMetrics(CollectorRegistry())


def restored(table: LinksTable, owned: frozenset[int]) -> None:
    """Turns as the loop does, until all links of `owned` are there."""
    ends_s = time.monotonic() + START_S
    table.update(owned, threading.Event())
    while table.partitions != owned:
        table.update(owned, threading.Event())
        assert time.monotonic() < ends_s, f"restored {table.partitions} of {owned}"


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


def test_all_is_restored_that_was_written_before(
    market: Marketplace, table: LinksTable, metrics: RouterMetrics
) -> None:
    market.send(LINKS, [link(f"c-{n}", "a") for n in range(200)] + [link(f"c-{n}", "b", "c") for n in range(100)])
    restored(table, BOTH)
    found = [table.linked(0, f"c-{n}") or table.linked(1, f"c-{n}") for n in range(200)]
    assert found == [("b", "c")] * 100 + [("a",)] * 100
    assert metrics.registry.get_sample_value("namefree_links_customers") == 200


def test_an_empty_topic_is_restored(table: LinksTable) -> None:
    restored(table, BOTH)
    assert table.linked(0, "c-1") == ()


def test_later_events_are_followed_and_null_forgets(market: Marketplace, table: LinksTable) -> None:
    market.send(LINKS, [link("c-1", "a")])
    home = partition_of(market, "c-1")
    restored(table, BOTH)
    market.send(LINKS, [link("c-1", "a", "b")])
    market.until(followed(table, BOTH, lambda: table.linked(home, "c-1") == ("a", "b")), "the new link is known")
    market.send(LINKS, [(b"c-1", None)])
    market.until(followed(table, BOTH, lambda: table.linked(home, "c-1") == ()), "the customer is forgotten")


def test_a_malformed_event_keeps_the_links_of_before_and_is_counted(
    market: Marketplace, table: LinksTable, metrics: RouterMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [(b"c-1", b"{"), (b"c-1", link("c-2", "x")[1])]
    market.send(LINKS, [link("c-1", "a"), *bad])
    restored(table, BOTH)
    home = partition_of(market, "c-1")
    assert table.linked(home, "c-1") == ("a",)
    assert metrics.registry.get_sample_value("namefree_bad_links_total") == len(bad)
    assert f"Links at {topic_name(market.settings, LINKS)}[{home}]@1" in caplog.text


def test_links_of_a_partition_that_is_gone_are_dropped_and_come_back_with_it(
    market: Marketplace, table: LinksTable
) -> None:
    market.send(LINKS, [link(f"c-{n}", "a") for n in range(20)])
    restored(table, BOTH)
    table.update(frozenset({0}), threading.Event())
    assert table.partitions == {0}
    assert not any(table.linked(1, f"c-{n}") for n in range(20))
    restored(table, BOTH)
    assert sum(bool(table.linked(0, f"c-{n}") or table.linked(1, f"c-{n}")) for n in range(20)) == 20


def test_a_partition_that_is_gone_before_it_is_restored_is_begun_anew(
    market: Marketplace, table: LinksTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    market.send(LINKS, [link(f"c-{n}", "a") for n in range(20)])
    monkeypatch.setattr("workers.links.SLICE_S", 0.0)  # nothing is read in a turn
    table.update(BOTH, threading.Event())
    table.update(frozenset(), threading.Event())
    assert table.partitions == frozenset()
    monkeypatch.setattr("workers.links.SLICE_S", 0.1)
    restored(table, BOTH)
    assert sum(bool(table.linked(0, f"c-{n}") or table.linked(1, f"c-{n}")) for n in range(20)) == 20


def test_while_one_partition_is_restored_the_other_is_followed(
    market: Marketplace, table: LinksTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes of a partition that is there are known at once; the new one is not called restored before it is."""
    market.send(LINKS, [link(f"c-{n}", "a") for n in range(20)])
    here = partition_of(market, "c-1")
    restored(table, frozenset({here}))
    monkeypatch.setattr("workers.links.SLICE_S", 0.0)  # nothing is read in a turn
    for number in range(5):
        market.send(LINKS, [link("c-1", f"skill:{number}")])
        table.update(BOTH, threading.Event(), asked=True)
        assert table.linked(here, "c-1") == (f"skill:{number}",)
        assert table.partitions == {here}
    monkeypatch.setattr("workers.links.SLICE_S", 0.1)
    restored(table, BOTH)
    assert sum(bool(table.linked(1 - here, f"c-{n}")) for n in range(20)) > 0


def test_links_that_do_not_come_end_the_router(
    market: Marketplace, table: LinksTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.links.SLICE_S", 0.0)
    table.update(BOTH, threading.Event())
    monkeypatch.setattr("workers.links.RESTORE_BUDGET_S", -1.0)
    with pytest.raises(WorkerError, match=r"links\[0, 1\] cannot be restored: nothing came"):
        table.update(BOTH, threading.Event())


def test_with_requests_in_hand_the_table_holds_what_the_topic_holds(
    market: Marketplace, table: LinksTable
) -> None:
    """Each change, written and acknowledged before the update, is there after one update."""
    market.send(LINKS, [link("c-1", "none")])
    home = partition_of(market, "c-1")
    restored(table, BOTH)
    for number in range(20):
        market.send(LINKS, [link("c-1", f"skill:{number}")])
        table.update(BOTH, threading.Event(), asked=True)
        assert table.linked(home, "c-1") == (f"skill:{number}",)


def test_links_of_a_transaction_are_waited_for_beyond_its_marker(market: Marketplace, table: LinksTable) -> None:
    restored(table, BOTH)
    client = producer(market.settings, f"{market.settings.prefix}links")
    client.init_transactions(30)
    client.begin_transaction()
    client.produce(topic_name(market.settings, LINKS), link("c-1", "a")[1], b"c-1")
    client.commit_transaction(30)
    settled(market.settings, LINKS)  # a commit returns before its marker is written
    table.update(BOTH, threading.Event(), asked=True)
    assert table.linked(partition_of(market, "c-1"), "c-1") == ("a",)
