"""`namefree route` as it is run: processes with a real model, one of them killed, one of them fed with rubbish."""

import random
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from model.data import Row
from tests.malformed import MALFORMED
from tests.workers.marketplace import NOW_MS, START_S, Marketplace, Pair, ask
from topics.codec import encode
from topics.events import Utterance
from topics.kafka import read_all
from topics.registry import UTTERANCES, topic_name
from workers.crowd import Plan
from workers.customers import simulate

GOOD, BAD = 10_000, 1_000
RUBBISH = {value: reason for value, kind, reason, _ in MALFORMED.values() if kind is Utterance}


def test_each_utterance_has_one_decision_though_one_of_two_routers_is_killed(
    market: Marketplace, small_folder: Path, small_dev: list[Row]
) -> None:
    """Customers ask all along while one router of two dies of SIGKILL in the middle of its work and comes back."""
    market.publish_bundle(small_folder)
    doomed, other = (market.route("--instance", name, "--batch", "20") for name in "ab")
    enough = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        plan = Plan(run="kill", rate=300, duration_s=300)
        asking = pool.submit(simulate, market.settings, small_dev, plan, stopped=enough.is_set)
        try:
            for router in (doomed, other):
                market.until_decided(router, 300)
            assert doomed.end(signal.SIGKILL) == -signal.SIGKILL
            market.until_decided(market.route("--instance", "a", "--batch", "20"), 300)
        finally:
            enough.set()
        summary = asking.result(START_S)
    market.drain()  # so that a second decision, if there were one, is there too
    assert (summary.decided, summary.duplicates) == (summary.asked, 0)
    found = Counter(decision.utterance_id for decision in market.decisions(summary.asked))
    assert found == {f"kill-{n}": 1 for n in range(summary.asked)}


def test_rubbish_among_good_requests_stops_nobody(
    market: Marketplace, small_folder: Path, small_dev: list[Row]
) -> None:
    """10,000 decisions, 1,000 dead letters that say why and from where, and the process that began it ends it."""
    assert len(RUBBISH) > 20
    good = [_asked(number, small_dev[number % len(small_dev)]) for number in range(GOOD)]
    bad = _rubbish()
    sent = [*good, *(pair for pair, _ in bad)]
    random.Random(5).shuffle(sent)
    market.publish_bundle(small_folder)
    router = market.route()
    market.send(UTTERANCES, sent)
    market.until_decided(router, GOOD)
    market.until(lambda: router.dead() >= BAD or router.is_over(), "every malformed event is a dead letter")
    assert Counter(one.utterance_id for one in market.decisions(GOOD)) == {f"u-{n}": 1 for n in range(GOOD)}
    letters = market.letters(BAD)
    assert Counter((letter.source_key, letter.source_value, letter.reason) for letter in letters) == Counter(
        (*pair, reason) for pair, reason in bad
    )
    stood = {
        (message.topic(), message.partition(), message.offset()): (message.key(), message.value())
        for message in read_all(market.settings, topic_name(market.settings, UTTERANCES))
    }
    places = {(letter.topic, letter.partition, letter.offset): letter for letter in letters}
    assert len(places) == BAD
    assert all(stood[place] == (letter.source_key, letter.source_value) for place, letter in places.items())
    assert router.end(signal.SIGTERM) == 0
    assert (router.decided(), router.dead()) == (GOOD, BAD)


def _asked(number: int, row: Row) -> tuple[bytes, bytes]:
    customer = f"c-{number % 500}"
    utterance = Utterance(
        event_time_ms=NOW_MS, utterance_id=f"u-{number}", customer_id=customer, text=row.text, linked=row.linked
    )
    return customer.encode(), encode(utterance)


def _rubbish() -> list[tuple[Pair, str]]:
    """Every kind in turn, and good requests under another customer's key; each with the reason of its refusal."""
    kinds = [*RUBBISH.items(), (ask(0)[1], "wrong_key")]
    chosen = (kinds[number % len(kinds)] for number in range(BAD))
    return [((f"c-other-{number % 50}".encode(), value), reason) for number, (value, reason) in enumerate(chosen)]
