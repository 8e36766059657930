"""Partitions that come and go, under both group protocols: nothing is decided without its links, or twice."""

from collections import Counter

import pytest

from tests.workers.doubles import SLOW
from tests.workers.marketplace import Marketplace, RouterThread, link
from topics.registry import LINKS
from workers import links

CUSTOMERS = 50


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_others_go_on_while_the_links_of_a_new_partition_are_restored(
    market: Marketplace, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    market.publish("one")
    market.send(LINKS, [link(f"c-{number}", f"skill:{number}") for number in range(CUSTOMERS)])
    stays = market.thread(group_protocol=protocol)
    market.ask(0, CUSTOMERS)
    market.until_decided(stays, CUSTOMERS)
    leaves = market.thread(group_protocol=protocol)
    asked = until_it_works(market, leaves)
    market.until(lambda: stays.decided() + leaves.decided() >= asked, "all is decided")
    monkeypatch.setattr(links, "SLICE_S", 0.0)  # from now on nothing is restored
    leaves.stop()
    market.ask(asked, CUSTOMERS)
    before = leaves.decided()
    market.until(lambda: stays.decided() + before > asked, "its own partition is decided")
    assert stays.decided() + before < asked + CUSTOMERS
    monkeypatch.undo()
    market.until(lambda: stays.decided() + before >= asked + CUSTOMERS, "the other one is decided as well")
    decisions = market.decisions(asked + CUSTOMERS)
    assert Counter(one.utterance_id for one in decisions) == {f"u-{n}": 1 for n in range(asked + CUSTOMERS)}
    assert all(one.linked == (one.customer_id.replace("c-", "skill:"),) for one in decisions)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_batch_in_hand_while_partitions_go_is_finished_once(market: Marketplace, protocol: str) -> None:
    """Batches of half a second, so that the group asks in the middle of one."""
    market.publish("one")
    market.ask(0, 150, SLOW)
    first = market.thread(group_protocol=protocol, batch=25)
    market.until_decided(first, 25)
    second = market.thread(group_protocol=protocol, batch=25)
    asked = until_it_works(market, second, 150)
    market.until(lambda: first.decided() + second.decided() >= asked, "all is decided")
    assert Counter(one.utterance_id for one in market.decisions(asked)) == {f"u-{n}": 1 for n in range(asked)}


def until_it_works(market: Marketplace, router: RouterThread, asked: int = CUSTOMERS) -> int:
    """Asks until the router decides; how many utterances there are then."""

    def works() -> bool:
        nonlocal asked
        market.ask(asked, CUSTOMERS)
        asked += CUSTOMERS
        return router.decided() > 0

    market.until(works, "the second router has work")
    return asked
