"""The line-up that a router asks for once a batch, as the releases topic changes."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from tests.workers.doubles import FlatSelector, load_flat
from tests.workers.marketplace import Marketplace
from topics.errors import BadBundle
from topics.registry import RELEASES
from workers.canary import Lineup, Trial
from workers.metrics import RouterMetrics
from workers.releases import CANARY, CURRENT, SHADOW, serve, withdraw
from workers.serving import ReleaseFollower


class Following:
    """A follower, and how often each bundle was loaded. A bundle whose name is `broken` cannot be."""

    def __init__(self, market: Marketplace) -> None:
        self.market = market
        self.loaded: list[str] = []
        self.registry = CollectorRegistry()
        self.follower = ReleaseFollower(market.settings, self._load, RouterMetrics(self.registry))

    def _load(self, bundle: Path) -> FlatSelector:
        if (bundle / "flat.txt").read_text() == "broken":
            raise BadBundle("it is broken")
        selector = load_flat(bundle)
        self.loaded.append(selector.release)
        return selector

    def until(self, current: str, canary: str | None = None, shadow: str | None = None) -> Lineup:
        """The line-up, once it is this one."""
        wanted = (current, canary, shadow)
        self.market.until(lambda: self._names() == wanted, f"{current}, {canary} and {shadow} decide")
        lineup = self.follower.lineup()
        assert lineup is not None
        return lineup

    def _names(self) -> tuple[str | None, ...]:
        lineup = self.follower.lineup()
        return (lineup.current.release, _name(lineup.canary), _name(lineup.shadow)) if lineup else ()

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    def close(self) -> None:
        self.follower.close()


def _name(trial: Trial | None) -> str | None:
    return trial.selector.release if trial else None


@pytest.fixture
def following(market: Marketplace) -> Iterator[Following]:
    with closing(Following(market)) as found:
        yield found


def later_ms() -> int:
    return int(time.time() * 1000) + 3_600_000


def test_a_release_is_loaded_once_on_its_way_from_shadow_to_current(
    market: Marketplace, following: Following
) -> None:
    assert following.follower.lineup() is None
    old, new = market.publish("old").release, market.record("new")
    following.until(old)
    serve(market.settings, new, SHADOW, 0.2, later_ms())
    shadow = following.until(old, shadow=new.release).shadow
    assert shadow is not None
    assert (shadow.share, following.metric("namefree_trial_info", role="shadow", release=new.release)) == (
        0.2,
        1.0,
    )
    serve(market.settings, new, CANARY, 0.1, later_ms())
    withdraw(market.settings, SHADOW)
    canary = following.until(old, canary=new.release).canary
    assert canary is not None
    assert (canary.share, canary.selector) == (0.1, shadow.selector)
    serve(market.settings, new, CANARY, 1.0, later_ms())
    serve(market.settings, new, CURRENT)
    withdraw(market.settings, CANARY)
    assert following.until(new.release).current is shadow.selector
    assert following.loaded == [old, new.release]
    market.until(lambda: not following.metric("namefree_trial_info", role="canary", release=new.release), "over")
    assert following.metric("namefree_release_info", release=new.release) == 1


def test_a_trial_that_cannot_be_loaded_leaves_everybody_with_what_serves(
    market: Marketplace, following: Following
) -> None:
    old, broken, new = market.publish("old").release, market.record("broken"), market.record("new")
    serve(market.settings, new, CANARY, 0.1, later_ms())
    following.until(old, canary=new.release)
    serve(market.settings, broken, CANARY, 0.1, later_ms())
    following.until(old)  # not even with the canary before, whose place it has taken
    market.until(lambda: following.metric("namefree_release_failures_total") >= 1, "it is told")


def test_a_trial_ends_by_the_clock_of_the_router(market: Marketplace, following: Following) -> None:
    old, new = market.publish("old").release, market.record("new")
    serve(market.settings, new, CANARY, 0.1, later_ms())
    following.until(old, canary=new.release)
    serve(market.settings, new, CANARY, 0.1, int(time.time() * 1000) + 300)
    following.until(old)
    serve(market.settings, new, CANARY, 0.1, 0)  # without an end
    following.until(old, canary=new.release)


def test_nothing_takes_away_what_serves(market: Marketplace, following: Following) -> None:
    old, new = market.publish("old").release, market.record("new")
    following.until(old)
    market.send(RELEASES, [(b"current", None)])
    serve(market.settings, new, SHADOW, 1.0, later_ms())  # so that the null value has been read
    following.until(old, shadow=new.release)


def test_a_router_that_starts_beside_a_release_that_cannot_be_loaded_serves_the_one_before(
    market: Marketplace,
) -> None:
    old, refused, broken = market.publish("old"), market.record("refused"), market.record("broken")
    serve(market.settings, broken, CURRENT)
    with closing(Following(market)) as following:
        following.until(old.release)
        assert following.metric("namefree_release_failures_total") >= 1
        new = market.publish("new").release
        following.until(new)
        assert following.loaded == [old.release, new]
        assert refused.release not in following.loaded


def test_where_the_topic_keeps_only_the_newest_the_parent_serves_in_its_place(market: Marketplace) -> None:
    old = market.record("old")
    broken = replace(market.record("broken"), parent=old.release)
    market.record("refused")
    serve(market.settings, broken, CURRENT)
    with closing(Following(market)) as following:
        following.until(old.release)
        assert following.loaded == [old.release]


def test_where_nothing_can_be_loaded_nothing_serves(market: Marketplace) -> None:
    market.record("refused")
    market.publish("broken")
    with closing(Following(market)) as following:
        market.until(lambda: following.metric("namefree_release_failures_total") >= 1, "it is told")
        assert following.follower.lineup() is None
