"""Replay: what was decided is repeated, what would change is told, and no group is touched."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions

from model.live import live_statistics
from model.selector import Ranking, Request
from tests.conftest import Broker
from tests.workers.answering import decision
from topics.codec import encode
from topics.errors import UsageError
from topics.events import (
    Action,
    Candidate,
    Decision,
    Link,
    Links,
    LiveStatistics,
    Outcome,
    OutcomeKind,
    SkillCard,
    Utterance,
)
from topics.kafka import admin_client, producer
from topics.registry import (
    DECISIONS,
    LINKS,
    LIVE_STATISTICS,
    OUTCOMES,
    SKILLS,
    UTTERANCES,
    Topic,
    create_topics,
    topic_name,
)
from topics.settings import Settings
from workers.commands.replay import print_report
from workers.deciding import Selecting
from workers.replay import bundle_of, replay
from workers.sender import Sender
from workers.stretch import parse_edge, stretch_between
from workers.tally import Report, Share, share_of

NOW_MS = 1_795_369_000_000


class Choosing:
    """A selector that launches what `choose` says, and keeps the requests that it got."""

    statistics = ""
    policy = ""
    skills = 0

    def __init__(self, release: str, choose: Callable[[Request], str | None], catalogue: str = "") -> None:
        self.release = release
        self.catalogue = catalogue
        self.taken: list[tuple[Sequence[SkillCard], Sequence[str]]] = []
        self.asked: list[Request] = []
        self.followed: LiveStatistics | None = None
        self.followed_for: dict[str, LiveStatistics | None] = {}  # by text
        self._choose = choose

    def take(self, cards: Sequence[SkillCard], gone: Sequence[str]) -> int:
        self.taken.append((cards, gone))
        return len(cards) + len(gone)

    def follow(self, live: LiveStatistics | None) -> None:
        self.followed = live

    def warm_up(self, _count: int) -> None:
        """Nothing is made at first use."""

    def decide(self, requests: list[Request]) -> list[Ranking]:
        self.asked += requests
        self.followed_for |= dict.fromkeys((request.text for request in requests), self.followed)
        return [_ranking(self._choose(request)) for request in requests]


def _ranking(skill: str | None) -> Ranking:
    listed = () if skill is None else (Candidate(skill_id=skill, score=1.0, probability=0.9),)
    return Ranking(Action.LAUNCH if skill else Action.NONE, skill, listed, 0.1, 1.0, "best", 0)


def first_link(request: Request) -> str | None:
    return request.linked[0] if request.linked else None


def always_cats(_: Request) -> str | None:
    return "cats"


@pytest.fixture
def settings(broker: Broker, topic_prefix: str) -> Settings:
    settings = Settings(bootstrap=broker.bootstrap, prefix=topic_prefix)
    create_topics(settings, partitions=2)
    return settings


def utterance(number: int, linked: Sequence[str] | None = ("rides",)) -> Utterance:
    return Utterance(
        event_time_ms=NOW_MS + number,
        utterance_id=f"u-{number}",
        customer_id=f"c-{number % 5}",
        text=f"request {number}",
        linked=None if linked is None else tuple(linked),
    )


def send(settings: Settings, topic: Topic, events: Sequence[Utterance | Links | Decision | Outcome]) -> None:
    sender = Sender(settings)
    for event in events:
        sender.send(topic_name(settings, topic), event.customer_id, encode(event))
    sender.flush()


def decided(settings: Settings, utterances: Sequence[Utterance], release: str = "old", **names: str) -> None:
    """Records for each that its first link was launched; in transactions, so that markers stand between."""
    writer = producer(settings, f"{settings.prefix}recorder")
    writer.init_transactions()
    for one in utterances:
        writer.begin_transaction()
        value = encode(msgspec.structs.replace(decision(one, Action.LAUNCH, one.linked or (), release), **names))
        writer.produce(topic_name(settings, DECISIONS), value, one.customer_id)
        writer.commit_transaction()


def told(number: int, kind: OutcomeKind, skill: str | None = None) -> Outcome:
    return Outcome(
        event_time_ms=NOW_MS,
        utterance_id=f"u-{number}",
        customer_id=f"c-{number % 5}",
        outcome=kind,
        skill_id=skill,
    )


def everything(settings: Settings, *selectors: Selecting, **options: Any) -> Report:
    return replay(settings, selectors, stretch_between(settings), **options)


def test_the_release_that_decided_repeats_its_decisions(settings: Settings) -> None:
    utterances = [utterance(n, ["rides" if n % 2 else "cats"]) for n in range(20)]
    send(settings, UTTERANCES, utterances)
    decided(settings, utterances)
    report = everything(settings, Choosing("old", first_link))
    own = report.releases[0].equal_own
    assert (report.utterances, own.hits, own.of, own.low, own.high) == (20, 20, 20, 1.0, 1.0)
    assert (report.decided_by, report.changed, report.changes) == ({"old": 20}, 0, [])


def test_decisions_among_other_skills_are_told_and_are_no_fault(settings: Settings) -> None:
    utterances = [utterance(n, ["rides"]) for n in range(9)]
    send(settings, UTTERANCES, utterances)
    decided(settings, utterances[:3])
    decided(settings, utterances[3:8], catalogue="9e0c")
    decided(settings, utterances[8:], release="older", catalogue="9e0c")
    [found] = everything(settings, Choosing("old", always_cats, catalogue="9e0c")).releases
    assert (found.catalogue, found.elsewhere, found.equal_own.of, found.equal_own.hits) == ("9e0c", 3, 5, 0)


def test_decisions_by_other_costs_are_told_and_are_no_fault(settings: Settings) -> None:
    utterances = [utterance(n, ["rides"]) for n in range(9)]
    send(settings, UTTERANCES, utterances)
    decided(settings, utterances[:3])
    decided(settings, utterances[3:], policy="question=0.5")
    selector = Choosing("old", first_link)
    selector.policy = "question=0.5"
    [found] = everything(settings, selector).releases
    assert (found.policy, found.elsewhere, found.equal_own.of, found.equal_own.hits) == ("question=0.5", 3, 6, 6)


def test_each_is_decided_with_the_live_statistics_of_its_time_and_versions_that_are_gone_are_told(
    settings: Settings,
) -> None:
    utterances = [utterance(n, ["rides"]) for n in range(9)]
    send(settings, UTTERANCES, utterances)
    live = live_statistics({"rides": -3.0}, {}, NOW_MS)
    sender = Sender(settings)
    sender.send(topic_name(settings, LIVE_STATISTICS), live.version, encode(live))
    sender.flush()
    decided(settings, utterances[:3])
    decided(settings, utterances[3:7], statistics=f"5a0c+{live.version}")
    decided(settings, utterances[7:], statistics="5a0c+live-000000000000")
    selector = Choosing("old", first_link)
    report = everything(settings, selector)
    [found] = report.releases
    versions = {int(text.split()[1]): one and one.version for text, one in selector.followed_for.items()}
    assert versions == {n: live.version if 3 <= n < 7 else None for n in range(9)}
    assert (report.live_missing, found.elsewhere, found.equal_own.hits, found.equal_own.of) == (2, 2, 7, 7)
    assert selector.followed is None


def test_what_was_explored_is_explored_again_by_the_utterances_own_id(settings: Settings) -> None:
    send(settings, UTTERANCES, [utterance(n) for n in range(3)])
    everything(settings, selector := Choosing("old", first_link))
    assert {request.key for request in selector.asked} == {"u-0", "u-1", "u-2"}


def test_releases_are_replayed_among_the_skills_of_now(settings: Settings) -> None:
    sender = Sender(settings)
    topic = topic_name(settings, SKILLS)
    cats, rides = (SkillCard(skill_id=name, name=name) for name in ("cats", "rides"))
    for key, value in (("cats", encode(rides)), ("cats", encode(cats)), ("rides", encode(rides)), ("rides", None)):
        sender.send(topic, key, value)
    sender.flush()
    selectors = Choosing("new", always_cats), Choosing("old", first_link)
    everything(settings, *selectors)
    assert [selector.taken for selector in selectors] == [[([cats], ["rides"])]] * 2


def test_changes_are_told_from_the_other_release_to_the_one_in_question(settings: Settings) -> None:
    utterances = [utterance(n, ["rides" if n % 2 else "cats"]) for n in range(20)]
    send(settings, UTTERANCES, utterances)
    decided(settings, utterances)
    report = everything(settings, Choosing("new", always_cats), Choosing("old", first_link), show=3)
    assert [one.release for one in report.releases] == ["new", "old"]
    assert report.between is not None
    assert (report.changed, len(report.changes), report.between.share) == (10, 3, 0.5)
    assert {(change.before, change.after) for change in report.changes} == {("launch rides", "launch cats")}
    assert (report.releases[0].equal.share, report.releases[0].equal_own.of) == (0.5, 0)


def test_known_outcomes_judge_both_releases(settings: Settings) -> None:
    utterances = [utterance(n, ["rides"]) for n in range(10)]
    send(settings, UTTERANCES, utterances)
    decided(settings, utterances)
    outcomes = [told(n, OutcomeKind.ACCEPTED) for n in range(4)]
    outcomes += [told(n, OutcomeKind.CORRECTED, "cats") for n in (4, 5)]
    outcomes += [told(6, OutcomeKind.REJECTED), told(7, OutcomeKind.ABANDONED)]
    send(settings, OUTCOMES, outcomes)
    report = everything(settings, Choosing("new", always_cats), Choosing("old", first_link))
    assert (report.judged.hits, report.judged.of) == (6, 10)
    assert [one.top1.hits for one in report.releases] == [2, 4]
    assert report.gain is not None
    assert report.gain.gain == pytest.approx(-2 / 6)
    assert report.gain.low <= report.gain.gain <= report.gain.high
    assert {change.meant for change in report.changes} == {"rides", "cats", ""}


def test_links_are_the_recorded_ones_then_the_carried_then_the_current(settings: Settings) -> None:
    recorded, carried, current = utterance(0, ["rides"]), utterance(1, ["cats"]), utterance(2, None)
    send(settings, UTTERANCES, [recorded, carried, current])
    decided(settings, [recorded])
    links = [Links(event_time_ms=0, customer_id=f"c-{n}", linked=(Link("weather"),)) for n in range(3)]
    send(settings, LINKS, links)
    selector = Choosing("old", first_link)
    everything(settings, selector)
    assert {request.text: request.linked for request in selector.asked} == {
        "request 0": ("rides",),
        "request 1": ("cats",),
        "request 2": ("weather",),
    }


def test_a_stretch_by_offsets_reads_the_partitions_named(settings: Settings) -> None:
    send(settings, UTTERANCES, [utterance(n) for n in range(40)])
    ends = stretch_between(settings).end
    stretch = stretch_between(settings, parse_edge("0:2"), parse_edge("0:5"))
    assert (stretch.start, stretch.end, stretch.offsets) == ({0: 2}, {0: 5}, 3)
    assert replay(settings, [Choosing("r", first_link)], stretch).utterances == 3
    beyond = stretch_between(settings, None, parse_edge("1:999999"))
    assert beyond.end == {1: ends[1]}


def test_a_stretch_by_times_begins_and_ends_where_they_say(settings: Settings) -> None:
    send(settings, UTTERANCES, [utterance(n) for n in range(10)])
    between_ms = time.time_ns() // 1_000_000 + 1
    while time.time_ns() // 1_000_000 <= between_ms:
        time.sleep(0.001)
    send(settings, UTTERANCES, [utterance(n) for n in range(10, 16)])
    count = {}
    for name, edges in {"before": (None, between_ms), "after": (between_ms, None)}.items():
        selector = Choosing("r", first_link)
        replay(settings, [selector], stretch_between(settings, *edges))
        count[name] = sorted(int(request.text.split()[1]) for request in selector.asked)
    assert count == {"before": list(range(10)), "after": list(range(10, 16))}
    later = stretch_between(settings, parse_edge("2999-01-01"))
    assert later.offsets == 0
    assert replay(settings, [Choosing("r", first_link)], later).utterances == 0


def test_malformed_utterances_are_counted_and_skipped(settings: Settings) -> None:
    send(settings, UTTERANCES, [utterance(n) for n in range(5)])
    sender = Sender(settings)
    for value in (b"", b"{", b'{"schema": 1}'):
        sender.send(topic_name(settings, UTTERANCES), "c-1", value)
    sender.send(topic_name(settings, UTTERANCES), "somebody else", encode(utterance(9)))
    sender.flush()
    report = everything(settings, Choosing("r", first_link))
    assert (report.utterances, report.malformed) == (5, 4)


def test_a_replay_touches_no_groups_offsets(settings: Settings) -> None:
    send(settings, UTTERANCES, [utterance(n) for n in range(5)])
    everything(settings, Choosing("r", first_link))
    admin = admin_client(settings)
    for group in ("namefree-readers", "namefree-customers"):
        asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
        assert asked[group].result().topic_partitions == []


def test_a_replay_of_nothing_is_an_answer(settings: Settings) -> None:
    report = everything(settings, Choosing("new", always_cats), Choosing("old", first_link))
    assert report.between is not None
    assert (report.utterances, report.judged.share, report.between.share, report.gain) == (0, None, None, None)
    json.dumps(report.changes)


def test_the_printed_report_names_shares_intervals_and_changes(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    utterances = [utterance(n, ["rides"]) for n in range(10)]
    send(settings, UTTERANCES, utterances)
    decided(settings, utterances)
    send(settings, OUTCOMES, [told(n, OutcomeKind.CORRECTED, "cats") for n in range(10)])
    print_report(everything(settings, Choosing("new", always_cats), Choosing("old", first_link), show=1))
    printed = capsys.readouterr().out
    for says in ("old 10", "0.0000 [0.0000, 0.0000] of 10", "1.0000 [1.0000, 1.0000] of 10", "+1.0000 [+1.0000"):
        assert says in printed
    assert "Changed decisions, 1 of 10" in printed
    assert "launch rides" in printed
    print_report(everything(settings, Choosing("old", first_link)))
    assert "gain" not in capsys.readouterr().out


def test_a_release_that_is_not_there_is_named(settings: Settings, tmp_path: Path) -> None:
    assert bundle_of(settings, str(tmp_path)) == tmp_path
    with pytest.raises(UsageError, match="'feedbeef' is no release and no bundle's folder; there are: none"):
        bundle_of(settings, "feedbeef")


@pytest.mark.parametrize(
    ("text", "edge"),
    [
        ("0:120,1:98", {0: 120, 1: 98}),
        ("1795369000000", 1_795_369_000_000),
        ("1970-01-01T00:00:01", 1_000),
        ("1970-01-01T01:00:01+01:00", 1_000),
        ("1970-01-02", 86_400_000),
    ],
)
def test_a_place_is_offsets_or_a_time(text: str, edge: object) -> None:
    assert parse_edge(text) == edge


@pytest.mark.parametrize("text", ["", "yesterday", "0:", "0:1,", ":5", "-5", "0:1;1:2"])
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="no place in the topic"):
        parse_edge(text)


def test_an_interval_holds_its_share_and_narrows_with_more() -> None:
    few_low, few_high = _interval(share_of(3, 10))
    low, high = _interval(share_of(3_000, 10_000))
    assert few_low < 0.3 < few_high
    assert low < 0.3 < high
    assert high - low < (few_high - few_low) / 10
    assert (share_of(0, 5).high, share_of(5, 5).low) == (0.0, 1.0)


def _interval(share: Share) -> tuple[float, float]:
    assert share.low is not None
    assert share.high is not None
    return share.low, share.high
