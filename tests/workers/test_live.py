"""Live statistics from the topic into the router: what has broken is held back, durably named, and replayed."""

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from model.live import live_statistics, live_version
from tests.workers.doubles import FlatSelector
from tests.workers.marketplace import Marketplace, link
from topics.codec import decode, encode
from topics.errors import BadEvent, BrokerError
from topics.events import LiveStatistics, SkillCounts, SkillStatistics, StatisticsFold
from topics.kafka import read_all
from topics.registry import LINKS, LIVE_STATISTICS, STATISTICS, topic_name
from topics.settings import Settings
from workers.deciding import Selecting
from workers.fold_store import encode_fold
from workers.live import LiveFollower, LiveOptions, live_versions
from workers.live_folds import Gains
from workers.metrics import RouterMetrics
from workers.replay import replay
from workers.stretch import stretch_between

HOUR_MS = 3_600_000
QUICK = LiveOptions(refresh_s=0.05)
BROKEN, WORKING = "rides:broken", "rides:working"


def bucket(hours_ago: float = 0) -> str:
    return datetime.fromtimestamp(time.time() - hours_ago * 3600, UTC).strftime("%Y-%m-%dT%H")


def fold(refused: int, kept: int = 500, **fields: Any) -> StatisticsFold:
    """What an aggregator writes: one skill is always refused, the other is always kept."""
    sides = {
        BROKEN: SkillCounts(answered=refused, expected_millionths=refused * 900_000),
        WORKING: SkillCounts(answered=kept, kept=kept, expected_millionths=kept * 900_000),
    }
    given = {"bucket": bucket(), "partition": 0, "event_time_ms": int(time.time() * 1000), **fields}
    return StatisticsFold(
        offsets={"decisions": refused + kept, "outcomes": refused + kept},
        skills={skill: SkillStatistics(linked=counts) for skill, counts in sides.items()},
        **given,
    )


def write(market: Marketplace, *folds: StatisticsFold) -> None:
    market.send(STATISTICS, [(key.encode(), value) for key, value in map(encode_fold, folds)])


def taken(gains: Gains, one: StatisticsFold) -> dict[str, tuple[float, float]] | None:
    key, value = encode_fold(one)
    found = gains.take(key.encode(), value, int(time.time() * 1000))
    return found and {skill: one.launched[:2] for skill, one in found[1].items()}


def test_a_fold_tells_what_it_gained_on_the_one_before() -> None:
    gains = Gains(8 * HOUR_MS)
    assert taken(gains, fold(3, 5)) == {BROKEN: (3, 0), WORKING: (5, 5)}
    assert taken(gains, fold(3, 7)) == {WORKING: (2, 2)}
    assert taken(gains, fold(2, 7, partition=1)) == {BROKEN: (2, 0), WORKING: (7, 7)}
    assert taken(gains, fold(1, 1)) == {BROKEN: (1, 0), WORKING: (1, 1)}  # topics made anew


def test_what_is_too_old_to_matter_is_not_looked_at() -> None:
    gains = Gains(8 * HOUR_MS)
    assert taken(gains, fold(3, bucket=bucket(hours_ago=10))) is None
    assert gains.take(f"{bucket(hours_ago=60)}/0".encode(), b"not even read", int(time.time() * 1000)) is None
    assert taken(gains, fold(3, bucket=bucket(hours_ago=7))) is not None
    gains.forget(int(time.time() * 1000) + 4 * HOUR_MS)
    assert gains._known == {}


def test_a_roll_up_gains_nothing_and_loses_nothing() -> None:
    """Hours that were told of go into their day, and the day into its month; what comes late is told once."""
    gains, now_ms = Gains(1_000 * 24 * HOUR_MS), int(time.time() * 1000)
    assert taken(gains, fold(3, 5, bucket="2026-09-22T17")) == {BROKEN: (3, 0), WORKING: (5, 5)}
    assert taken(gains, fold(2, 1, bucket="2026-09-22T18")) == {BROKEN: (2, 0), WORKING: (1, 1)}
    for day, gone in (("2026-09-22", ["2026-09-22T17", "2026-09-22T18"]), ("2026-09", ["2026-09-22"])):
        assert taken(gains, fold(5, 6, bucket=day)) == {}
        assert [gains.take(f"{bucket}/0".encode(), None, now_ms) for bucket in gone] == [None] * len(gone)
        assert taken(gains, fold(6, 6, bucket=day)) == {BROKEN: (1, 0)}
    assert list(gains._known) == [b"2026-09/0"]


def test_months_that_ended_long_ago_are_not_looked_at_and_one_that_did_not_is() -> None:
    gains = Gains(20 * 24 * HOUR_MS)
    ends_ms = 1_790_812_800_000  # of September 2026
    september = fold(1, bucket="2026-09")
    key, value = encode_fold(september)
    assert gains.take(key.encode(), b"not even read", ends_ms + 21 * 24 * HOUR_MS) is None
    assert gains.take(key.encode(), value, ends_ms + 19 * 24 * HOUR_MS) is not None


def test_a_malformed_fold_is_an_error_that_says_what() -> None:
    gains, now_ms = Gains(8 * HOUR_MS), int(time.time() * 1000)
    with pytest.raises(BadEvent, match="'yesterday' is no bucket's name"):
        gains.take(b"yesterday/0", b"{}", now_ms)
    with pytest.raises(BadEvent, match="missing required field `event_time_ms`"):
        gains.take(f"{bucket()}/0".encode(), b"{}", now_ms)


class Following:
    """A follower on the broker, and a selector that it brings up to date."""

    def __init__(self, market: Marketplace, options: LiveOptions = QUICK) -> None:
        self.metrics = RouterMetrics(CollectorRegistry())
        self.follower = LiveFollower(market.settings, options, self.metrics)
        self.selector = FlatSelector()

    def factors(self) -> dict[str, float]:
        selectors: Sequence[Selecting] = [self.selector]
        self.follower.update(selectors)
        return dict(self.selector._factors)

    def sample(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(name) or 0.0


@pytest.fixture
def following(market: Marketplace) -> Any:
    made: list[Following] = []

    def make(options: LiveOptions = QUICK) -> Following:
        made.append(Following(market, options))
        return made[-1]

    yield make
    for one in made:
        one.follower.close()


def test_a_version_is_on_its_topic_before_it_is_used_and_a_malformed_fold_is_passed_over(
    market: Marketplace, following: Any, caplog: pytest.LogCaptureFixture
) -> None:
    write(market, fold(0), fold(9))
    with caplog.at_level(logging.WARNING):
        market.send(STATISTICS, [(f"{bucket()}/1".encode(), b'{"partition": -1}'), (b"nonsense/0", b"{}")])
        one = following()
        market.until(lambda: one.factors(), "the broken skill is held back")
    assert set(one.factors()) == {BROKEN}
    used = live_version(one.selector.statistics)
    written = live_versions(market.settings)[used]
    assert written.factors == one.factors()
    assert written.offsets == {"decisions/0": 509, "outcomes/0": 509}
    assert one.sample("namefree_bad_folds_total") == 2
    assert "nonsense" in caplog.text
    assert one.sample("namefree_live_held_back") == 1
    assert one.metrics.registry.get_sample_value("namefree_live_statistics_info", {"version": used}) == 1
    assert 0 <= one.sample("namefree_live_fold_age_seconds") < 600


def test_a_router_that_starts_goes_on_from_the_last_version_and_brings_a_mended_skill_back(
    market: Marketplace, following: Any
) -> None:
    write(market, fold(0), fold(9))
    first = following()
    market.until(lambda: first.factors(), "the broken skill is held back")
    second = following()
    assert second.factors() == first.factors()  # at once, and what it reads then is not counted again
    market.until(lambda: not second.follower._unread, "the second has read all")
    assert second.factors() == first.factors()
    mended = fold(9)
    mended.skills[BROKEN].linked = SkillCounts(answered=19, kept=10, expected_millionths=17_100_000)
    write(market, mended)
    market.until(lambda: not first.factors() and not second.factors(), "the mended skill is back")


def test_time_alone_brings_a_skill_back(market: Marketplace, following: Any) -> None:
    one = following(LiveOptions(half_life_minutes=2 / 60, refresh_s=0.05))
    write(market, fold(0), fold(9))
    market.until(lambda: one.factors(), "the broken skill is held back")
    market.until(lambda: not one.factors(), "it is tried again")
    assert len(live_versions(market.settings)) > 2


def test_a_version_is_written_once_and_again_before_the_topic_forgets_it(
    market: Marketplace, following: Any
) -> None:
    nothing = live_statistics({}, {}, int(time.time() * 1000) - 25 * HOUR_MS)
    market.send(LIVE_STATISTICS, [(nothing.version.encode(), encode(nothing))])
    one = following()
    market.until(lambda: len(versions(market.settings)) == 2, "it is written again")
    market.until(lambda: live_version(one.selector.statistics) or one.factors(), "it is used")
    following().factors()
    one.follower._renew(int(time.time() * 1000))
    assert len(versions(market.settings)) == 2


def versions(settings: Settings) -> list[str]:
    found = read_all(settings, topic_name(settings, LIVE_STATISTICS))
    return [decode(message.value(), LiveStatistics).version for message in found]


def test_what_cannot_be_written_is_not_used(market: Marketplace, following: Any) -> None:
    one = following()
    market.until(lambda: one.follower._live, "the first version is used")

    class Refusing:
        def send(self, *_: object) -> None:
            raise BrokerError("no")

    one.follower._sender = Refusing()
    write(market, fold(9))
    market.until(lambda: one.sample("namefree_live_failures_total"), "the write is refused")
    market.until(lambda: one.factors(), "the next attempt is good")


def test_factors_that_another_name_stands_over_are_passed_over(market: Marketplace) -> None:
    good = live_statistics({BROKEN: -2.0}, {}, 1)
    forged = LiveStatistics(event_time_ms=2, version=good.version, factors={WORKING: -2.0})
    market.send(LIVE_STATISTICS, [(b"k", encode(good)), (b"k", encode(forged)), (b"k", b"{")])
    assert live_versions(market.settings) == {good.version: good}


def test_a_router_opens_the_rival_within_seconds_and_a_replay_repeats_each_decision(market: Marketplace) -> None:
    """With what was in force at the time, though more than one version was."""
    market.publish("first")
    market.send(LINKS, [link(f"c-{n}", BROKEN, WORKING) for n in range(50)])
    router = market.thread(live={"refresh_s": 0.05}, batch=20)
    market.ask(0, 20)
    market.until_decided(router, 20)
    write(market, fold(0), fold(9))
    asked = 20
    while not (decisions := market.decisions(asked)) or all(one.skill_id == BROKEN for one in decisions):
        market.ask(asked, 20)
        asked += 20
        market.until_decided(router, asked)
    write(market, fold(30))
    market.until(lambda: len(live_versions(market.settings)) > 2, "it is held back further")
    market.ask(asked, 20)
    decisions = market.decisions(asked + 20)
    used = {live_version(decision.statistics) for decision in decisions}
    assert len(used) > 1
    assert used - {""} <= set(live_versions(market.settings))
    assert {decision.skill_id for decision in decisions} == {BROKEN, WORKING}
    report = replay(market.settings, [FlatSelector(decisions[0].release)], stretch_between(market.settings))
    own = report.releases[0].equal_own
    assert (own.hits, own.of, report.live_missing) == (len(decisions), len(decisions), 0)
