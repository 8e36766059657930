"""Routers that ask skills, on a real broker: an endpoint that hangs costs a deadline a batch, and then nothing."""

import urllib.request
from collections import Counter

import numpy as np

from tests.workers.asking import sandbox
from tests.workers.marketplace import Marketplace, RouterThread, link
from topics.codec import encode
from topics.events import SkillCard
from topics.kafka_node import free_port
from topics.registry import LINKS, SKILLS
from workers.sandbox import Sandbox, with_endpoints

DEADLINE_MS = 100.0
COUNT = 300
BATCH = 2


def put(market: Marketplace, skills: Sandbox) -> None:
    """The sandbox's cards onto the topic, and every customer linked with all of them."""
    cards: list[SkillCard] = with_endpoints(skills.cards.values(), skills)
    market.send(SKILLS, [(card.skill_id.encode(), encode(card)) for card in cards])
    market.send(LINKS, [link(f"c-{number}", *skills.cards) for number in range(50)])


def decide(market: Marketplace, first: int, **options: object) -> RouterThread:
    """A router that has decided COUNT utterances, and runs on."""
    market.ask(first, COUNT)
    router = market.thread(batch=BATCH, **options)
    market.until_decided(router, COUNT)
    return router


def metric(port: int, line: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        rows = (row.rpartition(" ") for row in page.read().decode().splitlines())
        return next(float(value) for name, _, value in rows if name == line)


def test_a_hanging_endpoint_costs_no_decision_and_each_no_more_than_the_deadline(market: Marketplace) -> None:
    market.publish("one")
    port = free_port("127.0.0.1")
    asking = {"deadline_ms": DEADLINE_MS, "allow_http": True, "allow_private": True, "cache_s": 0.0}
    with sandbox(good="honest", hanging="silent") as skills:
        put(market, skills)
        decide(market, 0).stop()
        alone = [decision.latency_ms for decision in market.decisions(COUNT)]
        router = decide(market, COUNT, asking=asking, metrics_port=port)
        decisions = market.decisions(2 * COUNT)
        latest = [one.latency_ms for one in decisions if int(one.utterance_id.removeprefix("u-")) >= COUNT]
        market.until(lambda: metric(port, "namefree_ask_breakers_open") == 1, "the breaker is open")
        results = {
            result: metric(port, f'namefree_asked_total{{result="{result}"}}')
            for result in ("answered", "late", "open", "failed", "refused")
        }
    assert not router.is_over()
    assert Counter(one.utterance_id for one in decisions) == {f"u-{n}": 1 for n in range(2 * COUNT)}
    assert np.percentile(latest, 99) <= 1.1 * DEADLINE_MS + max(alone)
    # The first batches wait for the hanging skill in vain, and from then on it is left alone.
    assert results["late"] >= 5
    assert results["open"] > COUNT / 2
    assert results["answered"] >= 5
    assert results["failed"] == results["refused"] == 0
