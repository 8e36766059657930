"""Which dev rows are told apart."""

from model.data import Row
from model.groups import FEW, groups_of, with_rivals
from topics.events import SkillCard

ODD = ("anchor", "bramble", "copper", "dawdle", "ember", "fathom")
CARDS = [
    SkillCard(skill_id="cats:one", name="Cats", phrases=("a cat fact", "tell me of cats")),
    SkillCard(skill_id="cats:two", name="Cats", phrases=("a cat fact", "tell me of cats please")),
    *(SkillCard(skill_id=f"odd:{word}", name=word, phrases=(f"{word}y {word}",)) for word in ODD),
]
ROWS = [
    *(Row(f"cat {n}", "cats:one") for n in range(12)),
    *(Row(f"anchor {n}", "odd:anchor") for n in range(FEW + 1)),
    *(Row(f"bramble {n}", "odd:bramble") for n in range(FEW)),
    Row("hm", None),
]
ASKED = [
    Row("a cat", "cats:one", "store"),
    Row("another cat", "cats:two", "store"),
    Row("lower it", "odd:anchor", "sea"),
    Row("pick some", "odd:bramble", "sea"),
    Row("well", None),
]


def test_rows_are_grouped_by_what_training_said_of_their_skill() -> None:
    found = {name: rows.tolist() for name, rows in groups_of(ASKED, ROWS, CARDS).items()}
    assert found["few phrases"] == [False, True, False, True, False]
    assert found["head"] == [True, False, False, False, False], "half of the rows are one skill's"
    assert found["tail"] == [False, True, True, True, False]
    assert found["no skill"] == [False, False, False, False, True]
    assert found["source store"] == [True, True, False, False, False]
    assert found["source unknown"] == [False, False, False, False, True]


def test_rivals_are_skills_that_say_the_same() -> None:
    assert with_rivals(ROWS, CARDS) == {"cats:one", "cats:two"}
    assert groups_of(ASKED, ROWS, CARDS)["rivals"].tolist() == [True, True, False, False, False]


def test_one_skill_has_no_rival() -> None:
    assert not with_rivals(ROWS[:3], CARDS[:1])
