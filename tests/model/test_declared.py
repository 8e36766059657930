"""Cards made ready: slots have kinds, and words speak of slots."""

import pytest

from model.declared import BOOLEAN, COUNTED, LISTED, OPEN, declared, kind_of
from model.lexicon import Lexicon, term
from model.spans import DATE, DURATION, MONEY, NUMBER, PERSON, PLACE, TIME, TITLE
from topics.events import Intent, SkillCard, Slot

SLOTS = [
    (Slot(name="check_in_date"), DATE),
    (Slot(name="slot_1", description="Start time of event"), TIME),
    (Slot(name="when", type="AMAZON.Date"), DATE),
    (Slot(name="label", type="duration", values=("five minutes", "an hour")), DURATION),
    (Slot(name="amount", description="The amount of money to send"), MONEY),
    (Slot(name="party_size", values=("1", "2", "3")), NUMBER),
    (Slot(name="count", values=("two", "three")), NUMBER),
    (Slot(name="origin_airport"), PLACE),
    (Slot(name="starring", description="Name of actor starring in movie"), PERSON),
    (Slot(name="track", description="Name of the song"), TITLE),
    (Slot(name="has_wifi", values=("True", "False")), BOOLEAN),
    (Slot(name="show_type", values=("regular", "3d", "imax")), LISTED),
    (Slot(name="cuisine", description="Cuisine of food served"), OPEN),
]


@pytest.mark.parametrize(("slot", "kind"), SLOTS, ids=lambda value: getattr(value, "name", ""))
def test_a_slot_has_the_kind_that_its_type_values_or_words_tell(slot: Slot, kind: int) -> None:
    assert kind_of(slot) == kind


def test_a_skill_without_intents_declares_nothing() -> None:
    assert declared(SkillCard(skill_id="a", name="A")) is None


def test_what_the_skill_is_about_speaks_of_no_slot_of_it() -> None:
    pets = Slot(name="pets_welcome", description="Whether pets are allowed in the hotel", values=("True", "False"))
    skill = declared(SkillCard(skill_id="a", name="A", intents=(Intent(name="FindHotel", slots=(pets,)),)))
    assert skill is not None
    assert skill.entries[term("pets")].names
    assert not skill.entries[term("hotel")].names


def test_near_words_speak_of_yes_or_no_slots_alone() -> None:
    slots = (Slot(name="pets", values=("True", "False")), Slot(name="city"))
    card = SkillCard(skill_id="a", name="A", intents=(Intent(name="Find", slots=slots),))
    skill = declared(card, near=lambda word: (f"{word}like",))
    assert skill is not None
    assert [one for one, entry in skill.entries.items() if entry.near] == [term("petslike")]


def test_a_number_of_people_is_counted_in_any_of_their_names() -> None:
    size = Slot(name="group_size", description="Size of group", values=("1", "2"))
    skill = declared(SkillCard(skill_id="a", name="A", intents=(Intent(name="Find", slots=(size,)),)))
    assert skill is not None
    assert all(skill.entries[one].names for one in COUNTED)


def test_a_slot_of_two_intents_is_one_and_keeps_the_longer_list() -> None:
    few, many = Slot(name="fare", values=("a",)), Slot(name="fare", values=("a", "b"))
    intents = (Intent(name="Find", slots=(few,)), Intent(name="Buy", slots=(many,)))
    skill = declared(SkillCard(skill_id="a", name="A", intents=intents))
    assert skill is not None
    assert skill.slots == ("fare",)
    assert skill.entries[term("b")].values


def test_more_slots_than_a_set_has_bits_share_the_last() -> None:
    slots = tuple(Slot(name=f"x{at}") for at in range(70))
    skill = declared(SkillCard(skill_id="a", name="A", intents=(Intent(name="Find", slots=slots),)))
    assert skill is not None
    assert max(skill.bits) == 1 << 62


def test_a_term_is_forgotten_when_the_last_skill_drops_it() -> None:
    lexicon = Lexicon()
    lexicon.add(["a", "b"], ["ab"])
    lexicon.add(["b"])
    lexicon.drop(["a", "b"], ["ab"])
    assert "a" not in lexicon
    assert lexicon.said(["b", "a"]) == [(lexicon.number("b"), 0, 1)]


def test_terms_within_terms_are_all_heard() -> None:
    lexicon = Lexicon()
    economy, premium = lexicon.add(["economi", "premiumeconomi"])
    assert lexicon.said(["premium", "economi"]) == [(premium, 0, 2), (economy, 1, 2)]
