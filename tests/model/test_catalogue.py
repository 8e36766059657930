"""Skills as rows."""

import pytest

from model.catalogue import Catalogue, card_text, spoken
from topics.errors import BadData
from topics.events import Intent, SkillCard


def cards(*names: str) -> list[SkillCard]:
    return [SkillCard(skill_id=name, name=name) for name in names]


def test_a_skill_that_joins_or_leaves_moves_nobody() -> None:
    catalogue = Catalogue(cards("a", "b", "c"))
    assert catalogue.remove("b") == 1
    assert catalogue.add(cards("d")[0]) == 3
    assert [catalogue.row(name) for name in "acd"] == [0, 2, 3]
    assert catalogue.ids() == ["a", "", "c", "d"]
    assert catalogue.present().tolist() == [True, False, True, True]
    assert [card.skill_id for card in catalogue.cards()] == ["a", "c", "d"]


def test_a_skill_twice_and_an_unknown_one_are_named() -> None:
    catalogue = Catalogue(cards("a"))
    with pytest.raises(BadData, match="'a' is in the catalogue twice"):
        catalogue.add(cards("a")[0])
    for call in (catalogue.row, catalogue.remove):
        with pytest.raises(BadData, match="'z' is not in the catalogue"):
            call("z")
    catalogue.remove("a")
    with pytest.raises(BadData, match=r"row 0 .* was removed"):
        catalogue.card(0)


def test_links_to_skills_that_are_gone_are_left_out_and_twins_count_once() -> None:
    catalogue = Catalogue(cards("a", "b", "c"))
    assert catalogue.linked_rows([("c", "gone", "a", "c"), ()]).tolist() == [[0, 2], [-1, -1]]
    assert catalogue.linked_rows([]).shape == (0, 1)


def test_a_card_says_its_intents_in_words() -> None:
    card = SkillCard(skill_id="r", name="FindRide_2", intents=(Intent(name="GetRide", description="a car"),))
    assert spoken(card.name) == "Find Ride 2"
    assert "Get Ride a car" in card_text(card)
