"""Routers on a real broker: killed, stopped, fenced, fed with rubbish, given a new release."""

import signal
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import TopicPartition
from prometheus_client import CollectorRegistry

from model.bundle import read_manifest
from model.fulfilment import Asks
from model.selector import Ranking, Request
from tests.workers.doubles import SLOW, FlatSelector
from tests.workers.marketplace import START_S, Marketplace, Pair, ask, link
from topics.codec import encode
from topics.kafka import consumer, producer, read_all
from topics.registry import LINKS, RELEASES, UTTERANCES, topic_name
from workers import source
from workers.metrics import RouterMetrics
from workers.router_process import RouterOptions, group_id, transactional_id
from workers.source import UtteranceSource
from workers.transactions import TransactionLost, open_sink


def test_each_utterance_has_one_decision_though_a_router_is_killed(market: Marketplace) -> None:
    market.publish("one")
    market.ask(0, 200, SLOW)  # slow: a batch takes four tenths of a second, so the kill falls into one
    market.ask(200, 2_000)
    first = market.process(instance="a", batch=20)
    market.until_decided(first, 40)
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    second = market.thread(instance="a")
    market.until_decided(second, 2_200 - first.decided() - 20)  # a last batch may be committed and not yet told
    market.decisions(2_200)
    second.stop()  # so that a second decision, if there were one, is there too
    assert Counter(decision.utterance_id for decision in market.decisions(2_200)) == {
        f"u-{n}": 1 for n in range(2_200)
    }


def test_sigterm_finishes_the_batch_and_leaves_the_rest_to_the_next(market: Marketplace) -> None:
    market.publish("one")
    market.ask(0, 100, SLOW)
    first = market.process(batch=5)
    market.until_decided(first, 5)
    assert first.end(signal.SIGTERM) == 0
    done = first.decided()
    assert len(market.decisions(done)) == done < 100
    second = market.thread(batch=5)
    market.until_decided(second, 100 - done)
    assert Counter(decision.utterance_id for decision in market.decisions(100)) == {
        f"u-{n}": 1 for n in range(100)
    }


def test_malformed_events_become_dead_letters_with_their_position_and_no_restart(market: Marketplace) -> None:
    market.publish("one")
    bad: list[Pair] = [
        (b"c-1", b"{"), (b"c-1", None), (b"c-1", b"[1]"), (None, b"\xff\xfe"), (b"other", ask(1)[1]),
    ]  # fmt: skip
    market.send(UTTERANCES, [*bad, *(ask(number) for number in range(50)), *bad])
    router = market.thread()
    market.until(lambda: router.decided() + router.dead() >= 60 or router.is_over(), "all is decided or dead")
    messages = list(read_all(market.settings, topic_name(market.settings, UTTERANCES)))
    values = {(message.partition(), message.offset()): message.value() for message in messages}
    letters = market.letters(10)
    assert Counter(letter.reason for letter in letters) == {
        "not_json": 4, "null_value": 2, "not_an_object": 2, "wrong_key": 2,
    }  # fmt: skip
    assert all(values[letter.partition, letter.offset] == letter.source_value for letter in letters)
    assert len(market.decisions(50)) == 50
    assert not router.is_over()


class Noting(FlatSelector):
    """Keeps what was called, with how many requests and by which thread."""

    def __init__(self, release: str) -> None:
        super().__init__(release)
        self.called: list[tuple[str, int, int]] = []

    def warm_up(self, count: int) -> None:
        self.called.append(("warm_up", count, threading.get_ident()))

    def decide(self, requests: list[Request]) -> list[Ranking]:
        self.called.append(("decide", len(requests), threading.get_ident()))
        return super().decide(requests)


def test_a_router_warms_up_by_its_batch_in_the_thread_that_decides_and_before_it_does(market: Marketplace) -> None:
    loaded: list[Noting] = []

    def load(bundle: Path, asks: Asks | None = None) -> Noting:
        loaded.append(Noting(read_manifest(bundle).release))
        return loaded[-1]

    market.publish("one")
    market.ask(0, 10)
    router = market.thread(load, batch=64)
    market.until_decided(router, 10)
    [first, *others] = loaded[0].called
    assert others
    assert first == ("warm_up", 64, others[0][2])
    assert {name for name, _, _ in others} == {"decide"}


def test_links_written_before_the_start_are_known_at_the_first_decision(market: Marketplace) -> None:
    market.publish("one")
    market.send(LINKS, [link(f"c-{number}", "old") for number in range(50)])
    market.send(LINKS, [*(link(f"c-{number}", f"skill:{number}") for number in range(49)), (b"c-49", None)])
    market.ask(0, 50)
    market.until_decided(market.thread(), 50)
    used = {decision.customer_id: decision.linked for decision in market.decisions(50)}
    assert used == {**{f"c-{number}": (f"skill:{number}",) for number in range(49)}, "c-49": ()}


def test_a_new_release_serves_without_a_restart_and_a_forged_one_does_not(
    market: Marketplace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="namefree")
    market.ask(0, 5)
    router = market.thread()
    market.until(lambda: "waiting for a release" in caplog.text, "the router says what it waits for")
    one = market.publish("one")
    market.until_decided(router, 5)
    two = market.publish("two")
    market.until(lambda: f"release {two.release} serves" in caplog.text, "the second release serves")
    forged = msgspec.structs.replace(one, digest="f" * 64)
    market.send(RELEASES, [(b"current", encode(forged))])
    market.until(lambda: "its event says ffffffffffff" in caplog.text, "the forged release is refused")
    market.ask(5, 5)
    market.until_decided(router, 10)
    assert Counter(decision.release for decision in market.decisions(10)) == {one.release: 5, two.release: 5}


def test_a_fenced_router_ends_with_an_error_and_without_a_trace(market: Marketplace) -> None:
    market.publish("one")
    market.ask(0, 5)
    router = market.thread(instance="twin")
    market.until_decided(router, 5)
    open_sink(market.settings, transactional_id(market.settings, RouterOptions(instance="twin")))
    market.ask(5, 5)
    market.until(router.is_over, "the elder router ends")
    assert router.error is not None
    assert router.error.exit_code == 1
    assert "another router runs under the same --instance" in str(router.error)
    assert len(market.decisions(5)) == 5


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_two_routers_share_the_work_and_decide_once(market: Marketplace, protocol: str) -> None:
    market.publish("one")
    market.ask(0, 500)
    first = market.thread(group_protocol=protocol)
    market.until_decided(first, 500)
    second = market.thread(group_protocol=protocol)
    asked = 500

    def both_work() -> bool:
        nonlocal asked
        market.ask(asked, 100)
        asked += 100
        return second.decided() > 0

    market.until(both_work, "the second router has work")
    market.until(lambda: first.decided() + second.decided() >= asked, "all is decided")
    assert Counter(decision.utterance_id for decision in market.decisions(asked)) == {
        f"u-{n}": 1 for n in range(asked)
    }


def test_who_is_no_member_of_the_group_has_nothing_to_commit_with(market: Marketplace) -> None:
    """The broker takes offsets of a transaction that carry no member id, so none may be sent."""
    source = UtteranceSource(market.settings, "lonely", "classic", 10, RouterMetrics(CollectorRegistry()))
    with closing(source):
        with pytest.raises(TransactionLost, match="gone on without"):
            source.membership()
        market.until(lambda: source.poll() or source.owned, "it has joined")
        source.membership()


def test_offsets_are_committed_with_the_decisions(market: Marketplace) -> None:
    market.publish("one")
    market.ask(0, 100)
    router = market.thread(until_idle_s=2.0)
    market.until(router.is_over, "an idle router ends")
    name = topic_name(market.settings, UTTERANCES)
    reader = consumer(market.settings, group_id(market.settings, RouterOptions()))
    places = reader.committed([TopicPartition(name, partition) for partition in range(2)], START_S)
    assert sum(place.offset for place in places) == 100 == len(market.decisions(100))
    reader.close()


def test_a_topic_full_of_another_kind_of_events_is_not_drained_into_the_dead_letters(market: Marketplace) -> None:
    """Somebody's producer writes links where utterances belong: half a window of them is enough."""
    market.publish("one")
    wrong = [link(f"c-{number % 50}", "a") for number in range(12_000)]
    market.send(UTTERANCES, wrong)
    router = market.thread(batch=1_000)
    market.until(router.is_over, "the router ends")
    assert "events could not be taken, the ceiling is a share of 0.5 (--max-dead-share)" in str(router.error)
    assert 5_000 <= router.dead() < 7_000
    assert len(market.letters(router.dead())) == router.dead()  # nothing is lost: the rest is still on its topic


def test_partitions_that_an_unfinished_transaction_holds_are_named(
    market: Marketplace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker gives no position out while offsets of it are pending: a router waits, and must not do so in
    silence."""
    monkeypatch.setattr(source, "UNREAD_S", 0.5)
    market.publish("one")
    market.ask(0, 20)
    name, group = topic_name(market.settings, UTTERANCES), group_id(market.settings, RouterOptions())
    holds = producer(market.settings, "unfinished")
    holds.init_transactions(START_S)
    holds.begin_transaction()
    with closing(consumer(market.settings, group)) as nobody:
        metadata = nobody.consumer_group_metadata()
        holds.send_offsets_to_transaction([TopicPartition(name, 1, 0)], metadata, START_S)
    router = market.thread()
    # the client asks for both positions in one, and has neither
    market.until(lambda: f"{name}[0, 1] are ours for" in caplog.text, "the partitions are named")
    holds.abort_transaction(START_S)
    market.until_decided(router, 20)
