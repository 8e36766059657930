"""The catalogue: skills as rows. A new skill takes a new row, a removed one leaves its row empty.

Nobody else's row ever moves, so that scores of other skills cannot change when a skill joins or leaves.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from topics.errors import BadData
from topics.events import SkillCard


class Catalogue:
    """Cards by row and by id.

    >>> catalogue = Catalogue([SkillCard(skill_id="rides:acorn", name="Acorn Rides")])
    >>> catalogue.row("rides:acorn"), "rides:oak" in catalogue
    (0, False)
    """

    def __init__(self, cards: Iterable[SkillCard | None] = ()) -> None:
        """`cards` by row; None is a row that a removed skill has left empty."""
        self._cards: list[SkillCard | None] = []
        self._rows: dict[str, int] = {}
        for card in cards:
            if card is None:
                self._cards.append(None)
            else:
                self.add(card)

    def __len__(self) -> int:
        """Rows, removed ones among them: the height of every table that is kept by skill."""
        return len(self._cards)

    def __contains__(self, skill_id: str) -> bool:
        return skill_id in self._rows

    def add(self, card: SkillCard) -> int:
        """The row of a new skill. Raises BadData where its id is there already."""
        if card.skill_id in self._rows:
            raise BadData(f"skill {card.skill_id!r} is in the catalogue twice")
        self._rows[card.skill_id] = len(self._cards)
        self._cards.append(card)
        return len(self._cards) - 1

    def replace(self, card: SkillCard) -> int:
        """The row of a skill that says something else of itself now. Raises BadData where it is not there."""
        row = self.row(card.skill_id)
        self._cards[row] = card
        return row

    def remove(self, skill_id: str) -> int:
        """The row that the skill leaves empty. Raises BadData where it is not there."""
        if skill_id not in self._rows:
            raise BadData(f"skill {skill_id!r} is not in the catalogue")
        row = self._rows.pop(skill_id)
        self._cards[row] = None
        return row

    def row(self, skill_id: str) -> int:
        """The skill's row. Raises BadData where it is not there."""
        try:
            return self._rows[skill_id]
        except KeyError:
            raise BadData(f"skill {skill_id!r} is not in the catalogue") from None

    def card(self, row: int) -> SkillCard:
        """The card at `row`. Raises BadData where the skill has left."""
        card = self._cards[row]
        if card is None:
            raise BadData(f"row {row} of the catalogue is empty: its skill was removed")
        return card

    def cards(self) -> list[SkillCard]:
        """All cards that are there, in the order of their rows."""
        return [card for card in self._cards if card is not None]

    def rows(self) -> list[SkillCard | None]:
        """Cards by row; None where a skill has left."""
        return list(self._cards)

    def ids(self) -> list[str]:
        """Skill ids by row; an empty text where a skill has left."""
        return [card.skill_id if card else "" for card in self._cards]

    def present(self) -> NDArray[np.bool_]:
        """Which rows hold a skill, (skills,)."""
        return np.fromiter((card is not None for card in self._cards), dtype=np.bool_, count=len(self))

    def linked_rows(self, linked: Sequence[Sequence[str]]) -> NDArray[np.int64]:
        """Rows of each customer's linked skills, (customers, most), -1 at padding.

        Links to skills that are not in the catalogue are left out: a skill may have gone since.
        """
        found = [sorted({self._rows[s] for s in skills if s in self._rows}) for skills in linked]
        table = np.full((len(found), max(1, max(map(len, found), default=1))), -1, dtype=np.int64)
        for at, rows in enumerate(found):
            table[at, : len(rows)] = rows
        return table


def card_text(card: SkillCard) -> str:
    """What the card says in words: name, invocation, category, description, intents, phrases."""
    intents = " ".join(f"{spoken(i.name)} {i.description}" for i in card.intents)
    return " . ".join(
        (spoken(card.name), card.invocation, card.category, card.description, intents, *card.phrases)
    )


def spoken(name: str) -> str:
    """An identifier as words: `FindRestaurant_2` becomes `Find Restaurant 2`."""
    split = "".join(
        f" {c}" if c.isupper() and (i and not name[i - 1].isupper()) else c for i, c in enumerate(name)
    )
    return split.replace("_", " ").replace(".", " ")
