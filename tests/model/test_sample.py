"""The sample marketplace keeps what its README promises."""

import re
from collections import Counter
from functools import cache
from random import Random
from typing import Any

import msgspec
import orjson
import pytest

from model.sample import SAMPLE_DIR
from model.sample.family import Family
from model.sample.generate import encode, generate
from model.sample.links import MAX_LINKS, Market, draw_links, family_of
from model.sample.phrases import draw_phrases
from model.sample.template import choose_words, fill_slots
from topics.errors import BadData
from topics.events import SkillCard, Utterance

NORMAL = re.compile(r"[a-z0-9]+( [a-z0-9]+){0,19}")


@cache
def rows(name: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (SAMPLE_DIR / name).read_bytes().splitlines()]


def utterances() -> list[dict[str, Any]]:
    return rows("utterances.train.jsonl") + rows("utterances.dev.jsonl")


def skill_ids() -> set[str]:
    return {card["skill_id"] for card in rows("skills.jsonl")}


def test_generating_again_gives_the_shipped_bytes() -> None:
    for name, made in generate().items():
        assert encode(made) == (SAMPLE_DIR / name).read_bytes(), name


def test_the_marketplace_is_as_large_as_promised() -> None:
    cards, phrases = rows("skills.jsonl"), Counter(row["skill_id"] for row in utterances())
    families = {family_of(card["skill_id"]) for card in cards}
    assert len(skill_ids()) == len(cards) >= 150
    assert len({row["text"] for row in utterances()}) >= 3_000
    assert sum(phrases[card["skill_id"]] <= 3 for card in cards) >= len(cards) / 5
    assert sum(phrases[card["skill_id"]] >= 60 for card in cards) >= 20
    assert 0.012 <= phrases[None] / phrases.total() <= 0.018
    readme = (SAMPLE_DIR / "README.md").read_text("utf-8")
    assert f"{len(cards)} invented skills in {len(families)} families" in readme
    assert f"{phrases.total():,} requests" in readme


def test_a_text_stands_in_one_split_only() -> None:
    train, dev = ({row["text"] for row in rows(f"utterances.{split}.jsonl")} for split in ("train", "dev"))
    assert not train & dev
    assert 0.12 <= len(dev) / len(train | dev) <= 0.18


def test_no_row_stands_twice() -> None:
    pairs = Counter((row["text"], row["skill_id"]) for row in utterances())
    assert [pair for pair, count in pairs.items() if count > 1] == []


def test_rivals_share_requests() -> None:
    owners = Counter(row["text"] for row in utterances())
    assert sum(count > 1 for count in owners.values()) >= 300


def test_texts_are_lower_case_words_without_punctuation() -> None:
    assert [row["text"] for row in utterances() if not NORMAL.fullmatch(row["text"])] == []


def test_no_text_names_a_skill() -> None:
    names = {card["name"].lower() for card in rows("skills.jsonl")}
    names |= {skill_id.partition(":")[2] for skill_id in skill_ids()}
    named = re.compile(rf"\b({'|'.join(map(re.escape, sorted(names)))})\b")
    assert [row["text"] for row in utterances() if named.search(row["text"])] == []


def test_every_skill_of_a_row_has_a_card() -> None:
    known = skill_ids()
    for row in utterances():
        assert {*row["linked"], row["skill_id"]} - {None} <= known


def test_cards_and_texts_are_valid_events() -> None:
    for card in rows("skills.jsonl"):
        msgspec.convert(card, SkillCard)
    for row in utterances():
        msgspec.convert(
            {
                "event_time_ms": 0,
                "utterance_id": "u",
                "customer_id": "c",
                "text": row["text"],
                "linked": row["linked"],
            },
            Utterance,
        )


def test_an_ability_is_told_for_every_declared_intent_and_slot_and_no_other() -> None:
    for card in rows("skills.jsonl"):
        declared = {intent["name"]: {slot["name"] for slot in intent["slots"]} for intent in card["intents"]}
        told = {name: set(ability["slots"]) for name, ability in card["can_fulfill"].items()}
        assert told == declared, card["skill_id"]


def test_rivals_differ_in_what_they_declare() -> None:
    abilities = {(family_of(card["skill_id"]), orjson.dumps(card["can_fulfill"])) for card in rows("skills.jsonl")}
    assert len(abilities) >= 0.9 * len(skill_ids())


def test_example_phrases_of_cards_are_no_dev_texts() -> None:
    dev = {row["text"] for row in rows("utterances.dev.jsonl")}
    for card in rows("skills.jsonl"):
        assert len(card["phrases"]) <= 5
        assert not dev & {*card["phrases"]}


def test_links_follow_the_family_and_a_rival_is_linked_in_three_rows_of_ten() -> None:
    meant = [row for row in utterances() if row["skill_id"]]
    assert sum(map(_links_a_rival, meant)) / len(meant) == pytest.approx(0.3, abs=0.03)
    assert _linked_share(meant, "horoscopes") < 0.25
    assert _linked_share(meant, "banks") > 0.85


def _links_a_rival(row: dict[str, Any]) -> bool:
    rivals = {*row["linked"]} - {row["skill_id"]}
    return family_of(row["skill_id"]) in map(family_of, rivals)


def _linked_share(meant: list[dict[str, Any]], family: str) -> float:
    own = [row for row in meant if family_of(row["skill_id"]) == family]
    return sum(row["skill_id"] in row["linked"] for row in own) / len(own)


def test_links_are_one_to_twelve_and_never_twice() -> None:
    for row in utterances():
        assert 1 <= len(row["linked"]) == len({*row["linked"]}) <= MAX_LINKS


def test_links_of_a_tiny_market_end_when_no_skill_is_left() -> None:
    market = Market({"rides:a": 1.0, "rides:b": 2.0, "tides:c": 1.0}, {"rides": 1.0, "tides": 1.0})
    for seed in range(50):
        linked = draw_links(market, "rides:a", Random(seed))
        assert "rides:a" in linked
        assert len(linked) == len({*linked}) <= 3


def test_templates_nest_and_leave_optional_parts_out() -> None:
    first = choose_words("[please] (get (me|us)|call) a car [to {place}]", lambda options: options[0])
    last = choose_words("[please] (get (me|us)|call) a car [to {place}]", lambda options: options[-1])
    assert (first, last) == ("please get me a car to {place}", "call a car")


def test_a_slot_that_comes_twice_gets_two_values() -> None:
    filled = fill_slots("a {city} to {city}", {"city": ["oslo", "lima"]}, lambda options: options[0])
    assert filled == "an oslo to lima"


def tiny_family(phrases: int) -> Family:
    intents = [
        {"name": "fly", "description": "", "slots": ["pet"], "asks": ["(book|get) a seat", "a seat for {pet}"]},
        {"name": "eat", "description": "", "asks": ["bring me soup"]},
    ]
    skill = {"brand": "b", "name": "B", "description": "", "reviews": 0, "phrases": phrases, "yes": ["fly"]}
    skill["no"] = ["fly.pet", "eat"]
    shape = {"family": "f", "category": "", "link_share": 0.5, "values": {"pet": ["a cat", "a dog"]}}
    return msgspec.convert({**shape, "intents": intents, "skills": [skill]}, Family)


def test_a_skill_gets_no_phrase_of_an_intent_or_slot_that_it_answers_with_no() -> None:
    family = tiny_family(phrases=2)
    assert {*draw_phrases(family, family.skills[0], Random(1))} == {"book a seat", "get a seat"}


def test_templates_that_cannot_give_enough_phrases_are_refused() -> None:
    family = tiny_family(phrases=3)
    with pytest.raises(BadData, match="f:b gets 2 of 3 phrases; write more asks"):
        draw_phrases(family, family.skills[0], Random(1))


def test_a_family_that_names_an_unknown_intent_is_refused() -> None:
    skill = {"brand": "b", "name": "B", "description": "", "reviews": 0, "phrases": 1, "yes": ["fly"]}
    family = {"family": "f", "category": "", "link_share": 0.5, "intents": [], "skills": [skill]}
    with pytest.raises(msgspec.ValidationError, match=r"f:b names unknown abilities \['fly'\]"):
        msgspec.convert(family, Family)
