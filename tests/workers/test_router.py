"""The loop on a source and a sink in memory: what goes where, in which order, and what each failure does."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import Message, TopicPartition
from prometheus_client import CollectorRegistry

from tests.workers.doubles import POISON, FlatSelector
from topics.codec import decode, encode
from topics.errors import WorkerError
from topics.events import Action, DeadLetter, Decision, Utterance
from workers.canary import Lineup
from workers.dead_letters import MAX_VALUE_BYTES, Ceiling
from workers.deciding import Selecting
from workers.metrics import RouterMetrics
from workers.router import Commit, Router
from workers.transactions import Headers, TransactionLost

Produced = tuple[str, bytes | None, bytes, Headers]


@dataclass
class MemorySource:
    """Hands out one list of messages a poll; `rewind` puts the last one back. Sets `stop` when it runs dry."""

    batches: list[list[Message]]
    stop: threading.Event
    owned: frozenset[int] = frozenset({0})
    joined: bool = True
    last: list[Message] = field(default_factory=list)

    def poll(self) -> list[Message]:
        if not self.batches:
            self.stop.set()
            return []
        self.last = self.batches.pop(0)
        return self.last

    def resume(self, restored: frozenset[int]) -> None:
        """Nothing is paused in memory."""

    def positions(self) -> list[TopicPartition]:
        return [TopicPartition("utterances", 0, (self.last[-1].offset() or 0) + 1)]

    def membership(self) -> object:
        return "member"

    def rewind(self) -> None:
        self.batches.insert(0, self.last)

    def show_lag(self) -> None:
        """No lag in memory."""


@dataclass
class MemorySink:
    """Keeps what was committed; loses the first `losses` commits."""

    losses: int = 0
    open: list[Produced] = field(default_factory=list)
    committed: list[Produced] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def begin(self) -> None:
        self.calls.append("begin")

    def produce(self, topic: str, key: bytes | None, value: bytes, headers: Headers = None) -> None:
        self.calls.append("produce")
        self.open.append((topic, key, value, headers))

    def commit(self, positions: list[TopicPartition], membership: Any) -> None:
        self.calls.append("commit")
        if self.losses:
            self.losses -= 1
            raise TransactionLost("the group went on")
        self.committed += self.open
        self.open = []

    def abort(self) -> None:
        self.calls.append("abort")
        self.open = []


class MemoryLinks:
    """A links table that holds what it is given."""

    partitions = frozenset({0})

    def __init__(self, table: dict[str, tuple[str, ...]], on_update: Callable[[], None] = lambda: None) -> None:
        self.table = table
        self.on_update = on_update

    def linked(self, partition: int, customer_id: str) -> tuple[str, ...]:
        return self.table.get(customer_id, ())

    def update(self, owned: frozenset[int], stop: threading.Event, asked: bool = False) -> None:
        self.on_update()


class NoCards:
    """A topic of skills without any."""

    def update(self, selectors: Sequence[Selecting]) -> None:
        pass


class FlatServing:
    def __init__(self, lineup: Lineup) -> None:
        self._lineup = lineup

    def lineup(self) -> Lineup:
        return self._lineup

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class Run:
    """A router on memory, and what came of it."""

    batches: list[list[Message]]
    sink: MemorySink = field(default_factory=MemorySink)
    links: dict[str, tuple[str, ...]] = field(default_factory=dict)
    share: float = 0.5
    on_update: Callable[[threading.Event], None] = lambda _stop: None
    commits: list[Commit] = field(default_factory=list)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    lineup: Lineup = field(default_factory=lambda: Lineup(FlatSelector()))

    def go(self) -> "Run":
        stop = threading.Event()
        Router(
            source=MemorySource(self.batches, stop),
            sink=self.sink,
            links=MemoryLinks(self.links, lambda: self.on_update(stop)),
            skills=NoCards(),
            serving=FlatServing(self.lineup),
            metrics=RouterMetrics(self.registry),
            ceiling=Ceiling(self.share),
            decisions="decisions",
            shadow_decisions="shadow-decisions",
            dead_letters="dead-letters",
            report=self.commits.append,
        ).run(stop)
        return self

    @property
    def decisions(self) -> list[Decision]:
        return [decode(value, Decision) for topic, _, value, _ in self.sink.committed if topic == "decisions"]

    @property
    def letters(self) -> list[DeadLetter]:
        return [decode(value, DeadLetter) for topic, _, value, _ in self.sink.committed if topic == "dead-letters"]

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


def message(offset: int, value: bytes | None, key: bytes | None = b"c-1", headers: Headers = None) -> Message:
    return Message(topic="utterances", partition=0, offset=offset, key=key, value=value, headers=headers or [])


def asked(offset: int, text: str = "get me a car", **fields: Any) -> Message:
    utterance = Utterance(event_time_ms=1, utterance_id=f"u-{offset}", customer_id="c-1", text=text, **fields)
    return message(offset, encode(utterance))


def test_a_batch_is_one_transaction() -> None:
    run = Run([[asked(0), message(1, b"{")]]).go()
    assert run.sink.calls == ["begin", "produce", "produce", "commit"]
    assert [(c.decided, c.dead, c.offsets, c.release) for c in run.commits] == [(1, 1, {"0": 2}, "flat")]
    assert run.metric("namefree_transactions_total", outcome="committed") == 1


def test_a_decision_says_which_links_were_used_and_which_release_decided() -> None:
    [decision] = Run([[asked(0)]], links={"c-1": ("rides:a", "rides:b")}).go().decisions
    assert (decision.utterance_id, decision.linked, decision.skill_id) == (
        "u-0",
        ("rides:a", "rides:b"),
        "rides:a",
    )
    assert (decision.action, decision.release) == (Action.LAUNCH, "flat")


@pytest.mark.parametrize("linked", [("taxi:x",), ()])
def test_links_in_the_utterance_override_the_table(linked: tuple[str, ...]) -> None:
    [decision] = Run([[asked(0, linked=linked)]], links={"c-1": ("rides:a",)}).go().decisions
    assert decision.linked == linked


def test_a_lost_transaction_is_done_again_and_its_work_is_seen_once() -> None:
    run = Run([[asked(0), asked(1)], [asked(2)]], sink=MemorySink(losses=2)).go()
    assert [decision.utterance_id for decision in run.decisions] == ["u-0", "u-1", "u-2"]
    assert run.sink.calls.count("abort") == 2
    assert run.metric("namefree_transactions_total", outcome="aborted") == 2
    assert run.metric("namefree_decisions_total", action="none") == 3


def test_an_event_that_the_selector_cannot_take_dies_alone() -> None:
    run = Run([[asked(0), asked(1, f"some {POISON}"), asked(2)]]).go()
    assert [decision.utterance_id for decision in run.decisions] == ["u-0", "u-2"]
    [letter] = run.letters
    assert (letter.reason, letter.offset) == ("undecidable", 1)
    assert "ValueError: cannot rank 'some poison'" in letter.message
    assert run.metric("namefree_dead_letters_total", topic="utterances", reason="undecidable") == 1


def test_the_same_utterance_twice_is_decided_twice() -> None:
    first = asked(0)
    again = message(1, first.value())
    assert [decision.utterance_id for decision in Run([[first, again]]).go().decisions] == ["u-0", "u-0"]


def test_the_trace_travels_on_and_no_other_header() -> None:
    headers: Headers = [("x", b"1"), ("traceparent", b"00-4bf9-00f0-01")]
    good, bad = message(0, asked(0).value(), headers=headers), message(1, b"{", headers=headers)
    run = Run([[good, bad, asked(2)]]).go()
    sent = {value: headers for _, _, value, headers in run.sink.committed}
    assert list(sent.values()) == [
        [("traceparent", b"00-4bf9-00f0-01")],
        None,
        [("traceparent", b"00-4bf9-00f0-01")],
    ]


@pytest.mark.parametrize(
    ("value", "key", "reason"),
    [
        (None, b"c-1", "null_value"),
        (b"", b"c-1", "empty_value"),
        (b"\xff", b"c-1", "not_json"),
        (b"[]", b"c-1", "not_an_object"),
        (b'{"schema": 99}', b"c-1", "unknown_schema"),
        (b'{"schema": 1}', b"c-1", "invalid"),
        (asked(0).value(), b"c-2", "wrong_key"),
    ],
)
def test_a_dead_letter_says_why_and_where_and_keeps_the_bytes(value: bytes, key: bytes, reason: str) -> None:
    run = Run([[message(7, value, key)]]).go()
    [letter] = run.letters
    assert (letter.reason, letter.topic, letter.partition, letter.offset) == (reason, "utterances", 0, 7)
    assert (letter.source_key, letter.source_value) == (key, value)
    assert run.sink.committed[0][1] == key


def test_a_huge_value_is_cut_and_the_letter_says_so() -> None:
    [letter] = Run([[message(0, b"x" * (MAX_VALUE_BYTES + 1))]]).go().letters
    assert letter.source_value == b"x" * MAX_VALUE_BYTES
    assert "(value cut from 1,048,577 to 1,048,576 bytes)" in letter.message


def test_a_thousand_bad_events_in_a_row_do_not_stop_the_router() -> None:
    bad = [message(offset, b"{") for offset in range(1_000)]
    good = [asked(offset) for offset in range(1_000, 11_000)]
    run = Run([bad, *(good[at : at + 500] for at in range(0, 10_000, 500))]).go()
    assert (len(run.decisions), len(run.letters)) == (10_000, 1_000)


def bad_batches() -> list[list[Message]]:
    return [[message(at * 500 + offset, b"{") for offset in range(500)] for at in range(20)]


def test_a_topic_full_of_bad_events_stops_the_router_with_the_counts() -> None:
    with pytest.raises(WorkerError, match=r"5,000 of the last 5,000 events could not be taken"):
        Run(bad_batches()).go()


def test_a_ceiling_of_zero_never_stops() -> None:
    assert len(Run(bad_batches(), share=0).go().letters) == 10_000


def test_the_ceiling_forgets_what_is_long_ago() -> None:
    ceiling = Ceiling(0.5, window=100)
    ceiling.count(49, 49)
    for _ in range(10):
        ceiling.count(50, 0)
    ceiling.count(49, 49)  # 49 of 99
    with pytest.raises(WorkerError, match="99 of the last 149 events"):
        ceiling.count(50, 50)


def test_a_router_that_is_stopped_while_links_are_restored_decides_nothing() -> None:
    run = Run([[asked(0)]], on_update=lambda stop: stop.set()).go()
    assert run.sink.calls == []
