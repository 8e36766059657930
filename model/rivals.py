"""Rivals: skills that share requests and differ in what they declare that they can do.

A family is what has one name: of a skill that declares intents, its id up to the last "_" (`sgd:Hotels_1` and
`sgd:Hotels_4` are `sgd:Hotels`); of an id without one, what stands before ":" and the card's category. A family
has two members at least.
"""

from collections import defaultdict
from collections.abc import Sequence

from msgspec.structs import replace

from model.data import Row
from topics.events import SkillCard

NONE_LINKED, ALL_LINKED = "rivals_none", "rivals_all"  # the two conditions


def families(cards: Sequence[SkillCard]) -> dict[str, tuple[str, ...]]:
    """Members' ids by the family's name."""
    found = defaultdict(list)
    for card in cards:
        if card.intents:
            found[_family(card)].append(card.skill_id)
    return {name: tuple(members) for name, members in found.items() if len(members) > 1}


def _family(card: SkillCard) -> str:
    """
    >>> _family(SkillCard(skill_id="sgd:Hotels_1", name="Hotels", category="Travel"))
    'sgd:Hotels'
    >>> _family(SkillCard(skill_id="rides:acorn", name="Acorn", category="Travel"))
    'rides, Travel'
    """
    stem, joint, _ = card.skill_id.rpartition("_")
    return stem if joint else f"{card.skill_id.partition(':')[0]}, {card.category}"


def rival_rows(rows: Sequence[Row], cards: Sequence[SkillCard]) -> dict[str, list[Row]]:
    """Of `rows` those that mean a member of a family, by condition: none of the family linked, all of it linked.

    Whatever else a row links stays. Without such rows there are no conditions.
    """
    of = {skill: members for members in families(cards).values() for skill in members}
    found: dict[str, list[Row]] = {NONE_LINKED: [], ALL_LINKED: []}
    for row in rows:
        if row.skill_id is None or row.skill_id not in of:
            continue
        members = of[row.skill_id]
        others = tuple(skill for skill in row.linked or () if skill not in members)
        found[NONE_LINKED].append(replace(row, linked=others))
        found[ALL_LINKED].append(replace(row, linked=(*others, *members)))
    return found if found[NONE_LINKED] else {}
