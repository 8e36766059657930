"""The `skills` topic, as routers follow it on a real broker."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Message
from prometheus_client import CollectorRegistry

from model.bundle import read_catalogue
from model.data import Row
from model.selector import Request, Selector
from tests.workers.doubles import FlatSelector
from tests.workers.marketplace import NOW_MS, Marketplace, Pair, RouterProcess
from topics.codec import encode
from topics.errors import BadData, BadEvent
from topics.events import Decision, SkillCard, Utterance
from topics.registry import SKILLS, UTTERANCES
from workers.catalogue import remove_skills
from workers.metrics import RouterMetrics
from workers.skills import AT_ONCE, SkillsFollower, cards_on_topic, read_card

HARP = SkillCard(skill_id="harps:elm", name="Elm Harps", phrases=("tune the harp", "is my harp out of tune"))
ASKED = Request("my harp is out of tune")


def pair(card: SkillCard) -> Pair:
    return card.skill_id.encode(), encode(card)


class Following:
    """A follower, its metrics, and the selector that serves."""

    def __init__(self, market: Marketplace, selector: Selector | FlatSelector) -> None:
        self.registry = CollectorRegistry()
        self.skills = SkillsFollower(market.settings, RouterMetrics(self.registry), threading.Event())
        self.selector = selector

    def metric(self, name: str) -> float:
        return self.registry.get_sample_value(name) or 0.0

    def turn(self) -> bool:
        self.skills.update((self.selector,))
        return True

    def has(self, skill: str) -> bool:
        assert isinstance(self.selector, Selector)
        return self.turn() and skill in self.selector.bundle.catalogue

    def close(self) -> None:
        self.skills.close()


@pytest.fixture
def following(market: Marketplace, small_folder: Path) -> Iterator[Following]:
    with closing(Following(market, Selector.load(small_folder))) as found:
        yield found


def test_a_topic_without_any_card_changes_nothing(following: Following, small_folder: Path) -> None:
    following.turn()
    assert isinstance(following.selector, Selector)
    assert following.selector.catalogue == ""
    assert following.metric("namefree_skills") == len(following.selector.bundle.catalogue) > 20


def test_a_card_joins_and_changes_and_leaves(
    market: Marketplace, following: Following, small_dev: list[Row]
) -> None:
    selector = following.selector
    assert isinstance(selector, Selector)
    requests = [Request(row.text, row.linked or ()) for row in small_dev]
    before = selector.decide(requests)
    skills = selector.skills
    market.send(SKILLS, [pair(HARP)])
    market.until(lambda: following.has(HARP.skill_id), "the card is there")
    assert selector.shortlist([ASKED], 1) == [[HARP.skill_id]]
    assert following.metric("namefree_skills") == skills + 1
    assert following.metric("namefree_onboarding_seconds_count") == 1
    market.send(SKILLS, [pair(msgspec.structs.replace(HARP, name="Goldfish", phrases=("feed my goldfish",)))])
    market.until(
        lambda: following.turn() and selector.shortlist([Request("feed my goldfish")], 1) == [[HARP.skill_id]],
        "the card has changed",
    )
    market.send(SKILLS, [(HARP.skill_id.encode(), None)])
    market.until(lambda: not following.has(HARP.skill_id), "the skill has left")
    assert selector.catalogue == ""
    assert selector.decide(requests) == before


def test_what_is_on_the_topic_is_known_before_a_release_serves(market: Marketplace, small_folder: Path) -> None:
    first, second = Selector.load(small_folder).bundle.catalogue.cards()[:2]
    market.send(SKILLS, [pair(HARP), pair(first), (second.skill_id.encode(), None)])
    with closing(Following(market, FlatSelector())) as follower:
        selector = follower.skills.loading(Selector.load)(small_folder)
    assert isinstance(selector, Selector)
    assert selector.shortlist([ASKED], 1) == [[HARP.skill_id]]
    assert second.skill_id not in selector.bundle.catalogue
    assert selector.skills == len(Selector.load(small_folder).bundle.catalogue)


def test_another_release_takes_what_the_one_before_had(
    market: Marketplace, following: Following, small_folder: Path
) -> None:
    market.send(SKILLS, [pair(HARP)])
    market.until(lambda: following.has(HARP.skill_id), "the card is there")
    assert isinstance(following.selector, Selector)
    name = following.selector.catalogue
    following.selector = Selector.load(small_folder)
    market.until(lambda: following.has(HARP.skill_id), "the new release has it too")
    assert following.selector.catalogue == name != ""


def test_bad_cards_are_passed_over_with_their_place_and_the_others_are_taken(
    market: Marketplace, following: Following, caplog: pytest.LogCaptureFixture
) -> None:
    bad: list[Pair] = [
        (b"x", b"{"), (b"other", encode(HARP)), (b"\xff", None),
        (HARP.skill_id.encode(), b'{"schema": 1, "skill_id": "harps:elm", "name": ""}'),
    ]  # fmt: skip
    market.send(SKILLS, [pair(HARP), *bad, pair(SkillCard(skill_id="last", name="Last"))])
    market.until(lambda: following.has("last"), "the last card is there")
    assert following.has(HARP.skill_id)
    assert following.metric("namefree_bad_cards_total") == len(bad)
    for offset in range(1, 1 + len(bad)):
        assert f"{market.settings.prefix}skills[0]@{offset}" in caplog.text


def test_a_removal_without_a_key_removes_nobody() -> None:
    with pytest.raises(BadEvent, match=r"skills\[0\]@3 is null, and no key says which"):
        read_card(Message(topic="skills", partition=0, offset=3, key=None, value=None, headers=[]))


class Fragile(FlatSelector):
    """Takes any cards but those of `broken`."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.names: set[str] = set()

    def take(self, cards: Sequence[SkillCard], gone: Sequence[str]) -> int:
        self.sizes.append(len(cards))
        if any(card.name == "broken" for card in cards):
            raise RuntimeError("no such thing")
        self.names |= {card.skill_id for card in cards}
        time.sleep(0.05)
        return len(cards)


def test_many_cards_are_taken_in_portions_and_one_that_cannot_be_does_not_keep_others_away(
    market: Marketplace,
) -> None:
    cards = [SkillCard(skill_id=f"s:{n}", name="broken" if n == 7 else "fine") for n in range(200)]
    market.send(SKILLS, [pair(card) for card in cards])
    selector = Fragile()
    with closing(Following(market, selector)) as follower:
        follower.turn()
        assert 0 < len(selector.names) < 200  # requests are not held back until all are there
        market.until(lambda: follower.turn() and len(selector.names) == 199, "all but one are there")
        follower.turn()
        assert follower.metric("namefree_bad_cards_total") == 1
    assert max(selector.sizes) == AT_ONCE


def test_the_topic_says_the_newest_of_each_skill(market: Marketplace) -> None:
    changed = msgspec.structs.replace(HARP, name="Elm Strings")
    market.send(SKILLS, [pair(HARP), (b"x", b"{"), (b"gone", None), pair(changed)])
    assert cards_on_topic(market.settings) == {HARP.skill_id: changed, "gone": None}


def test_a_skill_of_the_release_can_be_removed_though_the_topic_has_no_card_of_it(
    market: Marketplace, small_folder: Path
) -> None:
    skill = read_catalogue(small_folder).ids()[0]
    with pytest.raises(BadData, match=f"'{skill}' is neither on topic"):
        remove_skills(market.settings, [skill])
    market.publish_bundle(small_folder)
    with pytest.raises(BadData, match="'nobody' is neither on topic"):
        remove_skills(market.settings, [skill, "nobody"])
    assert cards_on_topic(market.settings) == {}
    remove_skills(market.settings, [skill])
    assert cards_on_topic(market.settings) == {skill: None}


def test_a_router_decides_for_a_new_skill_within_seconds_and_no_more_once_it_is_removed(
    market: Marketplace, small_folder: Path
) -> None:
    """`namefree route` itself. A decision names the catalogue that it was made with."""
    market.publish_bundle(small_folder)
    router = market.route()
    numbers = iter(range(10_000))
    first = ask_alone(market, router, next(numbers))
    market.send(SKILLS, [(b"broken", b"{"), pair(HARP)])

    def decides_for_harps() -> Decision | None:
        found = ask_alone(market, router, next(numbers))
        return found if found.candidates[0].skill_id == HARP.skill_id else None

    seen = market.wait_until(decides_for_harps, 20.0, "the new skill is decided for")
    assert seen is not None
    assert (first.catalogue, len(seen.catalogue)) == ("", 12)
    market.send(SKILLS, [(HARP.skill_id.encode(), None)])

    def decides_as_before() -> bool:
        found = ask_alone(market, router, next(numbers))
        return (found.candidates, found.catalogue) == (first.candidates, "")

    market.wait_until(decides_as_before, 20.0, "the removed skill is gone, and all else is as it was")


def ask_alone(market: Marketplace, router: RouterProcess, number: int) -> Decision:
    """The decision of one request, asked by a customer without links."""
    utterance = Utterance(
        event_time_ms=NOW_MS, utterance_id=f"u-{number}", customer_id="c", text=ASKED.text, linked=()
    )
    market.send(UTTERANCES, [(b"c", encode(utterance))])
    market.until_decided(router, number + 1)
    return next(one for one in market.decisions(number + 1) if one.utterance_id == utterance.utterance_id)
