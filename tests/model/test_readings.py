"""Requests read under skills: a skill is known by what its card declares, whatever the way to the catalogue."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.catalogue import Catalogue
from model.encoder import Encoder
from model.readings import Reading, Readings
from model.text import TextSettings, Vocabulary
from model.understanding import PLACE, READING_FEATURES, Understood
from topics.events import Ability, Intent, SkillCard, Slot, SlotAbility

TEXTS = [
    "find me a hotel in san jose that takes dogs",
    "two rooms in a three star hotel from march 7th to march 9th",
    "a flexible bus ticket from fresno to san diego for four people",
    "i need a bus for nine people",
    "a hotel",
    "",
]
SETTINGS = TextSettings(ngram_rows=64)
VOCABULARY = Vocabulary.of([*TEXTS, "pets", "a a a the the i i need"], SETTINGS)


def _slot(name: str, *values: str, required: bool = False, description: str = "") -> Slot:
    return Slot(name=name, values=values, required=required, description=description)


def _card(skill_id: str, *slots: Slot, intent: str = "FindHotel", **ability: Ability) -> SkillCard:
    found = (Intent(name=intent, slots=slots), Intent(name="CancelIt"))
    return SkillCard(skill_id=skill_id, name=skill_id, intents=found, can_fulfill=ability)


CITY = _slot("city", required=True)
PETS = _slot("pets_allowed", "True", "False")
ROOMS = _slot("number_of_rooms", "1", "2", "3")
STARS = _slot("star_rating", "1", "2", "3", "4", "5")
FROM, TO = _slot("from_city", required=True), _slot("to_city", required=True)
GROUP = _slot("group_size", "1", "2", "3", "4", "5", description="Number of people")
FARE = _slot("fare_type", "Economy", "Economy extra", "Flexible")

CARDS = [
    _card("hotels:pets", CITY, PETS),
    _card("hotels:plain", CITY, ROOMS, STARS, _slot("check_in_date"), _slot("check_out_date")),
    _card("buses:fares", FROM, TO, GROUP, FARE, intent="FindBus"),
    _card("buses:plain", FROM, TO, GROUP, intent="FindBus"),
    SkillCard(skill_id="facts:cat", name="Cat facts"),
]


@dataclass
class Shelf:
    """Readings beside the catalogue that they follow."""

    readings: Readings
    catalogue: Catalogue

    def read(self, texts: list[str], rows: list[int]) -> Understood:
        at = torch.tensor([rows] * len(texts))
        return self.readings.understand(self.readings.tag(texts), at, self.readings.bags(texts))

    def one(self, text: str, skill_id: str) -> Reading | None:
        tagged, rows = self.readings.tag([text]), torch.tensor([[self.catalogue.row(skill_id)]])
        understood = self.readings.understand(tagged, rows, self.readings.bags([text]))
        return self.readings.reading(tagged, understood, 0, 0)


def _encoder() -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(
        "bag", len(VOCABULARY), SETTINGS.ngram_rows, 64, 6, 10, 0.0
    ).eval()  # wide: no two words meet by chance
    with torch.no_grad():  # `dogs` and `pets` mean nearly the same
        at = {word: row for row, word in enumerate(VOCABULARY.words)}
        encoder.word.weight[at["dogs"]] = encoder.word.weight[at["pets"]] * 1.1
    return encoder


def _shelf(cards: list[SkillCard | None]) -> Shelf:
    catalogue = Catalogue(cards)
    return Shelf(Readings.of(catalogue, _encoder(), VOCABULARY), catalogue)


@pytest.fixture(scope="module")
def shelf() -> Shelf:
    return _shelf([*CARDS])


def _feature(understood: Understood, name: str) -> list[list[float]]:
    found: list[list[float]] = understood.features[..., PLACE[name]].tolist()
    return found


def test_a_skill_without_intents_and_an_empty_place_are_unknown_not_no(shelf: Shelf) -> None:
    understood = shelf.read(TEXTS, [4, -1, 0])
    assert not understood.features[:, :2].any()
    assert (understood.answers[:, :2] == -1).all()
    assert (understood.answers[:, 2] >= 0).all()
    assert np.isfinite(understood.features).all()


def test_only_the_skill_that_declares_an_aspect_covers_it(shelf: Shelf) -> None:
    understood = shelf.read([TEXTS[0]], [0, 1])
    (covering, lacking) = _feature(understood, "lacks")[0]
    assert covering == 0 < lacking
    assert understood.answers.tolist() == [[2, 1]]


def test_a_listed_value_is_lacked_by_the_rival_that_does_not_list_it(shelf: Shelf) -> None:
    understood = shelf.read([TEXTS[2]], [2, 3])
    assert _feature(understood, "values")[0] == [1.0, 0.0]
    assert _feature(understood, "lacks")[0][1] > 0


def test_a_number_beyond_the_accepted_ones_is_refused(shelf: Shelf) -> None:
    understood = shelf.read([TEXTS[3]], [2])
    assert _feature(understood, "values_refused") == [[1.0]]
    assert understood.answers.tolist() == [[0]]


def test_slots_are_filled_with_the_words_as_said(shelf: Shelf) -> None:
    rooms = shelf.one(TEXTS[1], "hotels:plain")
    bus = shelf.one(TEXTS[2], "buses:fares")
    pets = shelf.one(TEXTS[0], "hotels:pets")
    assert rooms
    assert bus
    assert pets
    assert rooms.slots == {
        "number_of_rooms": "two",
        "star_rating": "three",
        "check_in_date": "march 7th",
        "check_out_date": "march 9th",
    }
    assert bus.slots == {
        "fare_type": "flexible",
        "from_city": "fresno",
        "to_city": "san diego",
        "group_size": "four",
    }
    assert pets.slots == {"city": "san jose", "pets_allowed": "dogs"}


def test_the_cards_own_answer_wins_and_a_refused_slot_makes_it_no() -> None:
    maybe = _card("a:maybe", CITY, PETS, FindHotel=Ability("MAYBE"))
    never = _card("a:never", CITY, PETS, FindHotel=Ability("YES", {"pets_allowed": SlotAbility("YES", "NO")}))
    shelf = _shelf([maybe, never])
    assert shelf.read([TEXTS[0]], [0, 1]).answers.tolist() == [[1, 0]]
    assert shelf.read(["find a hotel in san jose"], [0, 1]).answers.tolist() == [[1, 2]]
    reading = shelf.one(TEXTS[0], "a:never")
    assert reading
    assert reading.ability.slots["pets_allowed"] == SlotAbility("YES", "NO")


def test_a_request_reads_the_same_alone_and_in_company(shelf: Shelf) -> None:
    rows = [0, 1, 2, 3, 4]
    together = shelf.read(TEXTS, rows)
    alone = [shelf.read([text], rows) for text in TEXTS]
    assert np.array_equal(together.features, np.concatenate([one.features for one in alone]))
    assert np.array_equal(together.answers, np.concatenate([one.answers for one in alone]))


def test_nobody_elses_features_change_by_a_bit_when_a_skill_joins_or_leaves() -> None:
    shelf = _shelf([*CARDS])
    rows = [0, 1, 2, 3]
    before = shelf.read(TEXTS, rows)
    joining = _card(
        "hotels:new", CITY, PETS, _slot("room", "flexible bus", "takes dogs"), intent="FindHotelInSanJose"
    )
    shelf.readings.put(5, joining)
    assert np.array_equal(before.features, shelf.read(TEXTS, rows).features)
    shelf.readings.put(5, None)
    shelf.readings.put(4, None)
    assert np.array_equal(before.features, shelf.read(TEXTS, rows).features)


STEPS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([*CARDS, None])), max_size=8)


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_any_way_to_a_catalogue_ends_in_the_same_readings(steps: list[tuple[int, SkillCard | None]]) -> None:
    """`put` in any order is the same as having been there from the start."""
    walked = Readings(_encoder(), VOCABULARY)
    last: dict[int, SkillCard | None] = dict.fromkeys(range(6))
    for row in range(6):
        walked.put(row, None)
    for row, card in steps:
        walked.put(row, card)
        last[row] = card
    built = Readings(_encoder(), VOCABULARY)
    for row, card in last.items():
        built.put(row, card)
    rows = torch.arange(6).expand(len(TEXTS), -1)
    found = [one.understand(one.tag(TEXTS), rows, one.bags(TEXTS)) for one in (walked, built)]
    assert np.array_equal(found[0].features, found[1].features)
    assert np.array_equal(found[0].answers, found[1].answers)


def test_every_feature_has_one_place() -> None:
    assert len(set(READING_FEATURES)) == len(READING_FEATURES) == len(PLACE)
