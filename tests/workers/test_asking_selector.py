"""The selector and skills that answer over HTTP: what a real answer, a lie and a silence do to decisions."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from model.data import Row
from model.selector import Ranking, Request, Selector
from tests.workers.asking import fresh_metrics, local
from topics.events import SkillCard
from workers.asking import SkillAsks
from workers.sandbox import Fault, Sandbox, with_endpoints

REQUEST = Request("get me a car to the airport tomorrow", ("rides:acorn",))


def decided(
    folder: Path,
    cards: Sequence[SkillCard],
    requests: list[Request],
    fault: str,
    deadline_ms: float = 5_000.0,
) -> tuple[list[Ranking], dict[str, int], float]:
    """The decisions where every ride is asked and has that fault, what came of the questions, and the seconds."""
    rides = {card.skill_id: card for card in cards if card.skill_id.startswith("rides:")}
    metrics = fresh_metrics()
    with (
        Sandbox(rides, {skill: Fault(fault) for skill in rides}) as skills,
        SkillAsks(local(deadline_ms), metrics) as asks,
    ):
        selector = Selector.load(folder, asks=asks)
        selector.take(with_endpoints(rides.values(), skills))
        selector.decide([Request("will it rain")])  # all is loaded
        began_s = time.monotonic()
        rankings = selector.decide(requests)
        return rankings, metrics.told(), time.monotonic() - began_s


def said(ranking: Ranking) -> dict[str, str | None]:
    return {one.skill_id: one.fulfill for one in ranking.candidates if one.fulfill_source == "asked"}


def test_answers_over_the_wire_reach_the_decision(small_folder: Path, small_cards: list[SkillCard]) -> None:
    [ranking], told, _ = decided(small_folder, small_cards, [REQUEST], "honest")
    assert said(ranking)
    assert all(skill.startswith("rides:") for skill in said(ranking))
    assert set(told) <= {"answered", "cached"}


def test_a_liar_is_believed_to_say_yes_and_only_that(small_folder: Path, small_cards: list[SkillCard]) -> None:
    [ranking], _, _ = decided(small_folder, small_cards, [REQUEST], "lying")
    assert set(said(ranking).values()) == {"YES"}


@pytest.mark.parametrize("fault", ["silent", "malformed"])
def test_whoever_does_not_answer_is_decided_on_by_the_card_within_the_deadline(
    small_folder: Path, small_cards: list[SkillCard], small_dev: list[Row], fault: str
) -> None:
    requests = [Request(row.text, row.linked or ()) for row in small_dev]
    rankings, told, seconds = decided(small_folder, small_cards, requests, fault, deadline_ms=300.0)
    assert not any(said(ranking) for ranking in rankings)
    assert "answered" not in {result for result, count in told.items() if count}
    began_s = time.monotonic()
    Selector.load(small_folder).decide(requests)
    alone_s = time.monotonic() - began_s
    assert seconds < 0.3 + alone_s + 2.0  # one deadline, not one a request; 2 s are for a busy machine
    assert len(rankings) == len(requests)
