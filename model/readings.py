"""Requests read under skills: the one face of what skills declare, kept by the catalogue's row.

Nothing here is learned, so nothing is stored in a bundle: it is made from the cards and the encoder.

Axes: B batch, C candidates, M intents of a skill (padded), E word width, K features of a reading.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.catalogue import Catalogue, spoken
from model.declared import ANSWERS, OPEN, declared
from model.declared_tables import Skills
from model.encoder import Encoder, WordBatches
from model.filling import fill
from model.index_kinds import products
from model.neighbours import Neighbours
from model.tagger import Requests, Tagged
from model.text import Vocabulary
from model.understanding import Understood, understand
from topics.events import Ability, SkillCard, SlotAbility


@dataclass(frozen=True)
class Reading:
    """A request under one skill. `slots`: name to value as said; `ability`: what its declaration answers."""

    intent: str
    slots: dict[str, str]
    ability: Ability


class Readings:
    """What every skill declares, ready for requests.

    What a request is under a skill depends on that skill's card alone, but for the features that compare the
    candidates of one list (`..._lead`, `uncovered`).
    """

    def __init__(self, encoder: Encoder, vocabulary: Vocabulary) -> None:
        self._encoder = encoder
        self._words = WordBatches(vocabulary)
        self._near = Neighbours(encoder, vocabulary).near
        self._skills = Skills.empty()
        self._requests = Requests(self._skills.lexicon, vocabulary)
        self._cards: dict[int, SkillCard] = {}
        self._names = np.array([""], dtype=object)  # (I + 1,) of the intents; the last is that of -1, none
        self.vectors = torch.zeros(0, encoder.word.weight.shape[1])  # (I, E) unit bags of the intents' words
        self.reviews = torch.zeros(0)  # (S,) log(1 + reviews)

    @classmethod
    def of(cls, catalogue: Catalogue, encoder: Encoder, vocabulary: Vocabulary) -> "Readings":
        """Of all cards that are there."""
        made = cls(encoder, vocabulary)
        for row, card in enumerate(catalogue.rows()):
            made.put(row, card)
        return made

    def put(self, row: int, card: SkillCard | None) -> None:
        """What the skill at `row` declares from now on, None: it left. `row` may be one that is not there yet."""
        places = self._skills.put(row, declared(card, self._near) if card else None)
        if (missing := len(self._skills.index) - len(self.reviews)) > 0:
            self.reviews = F.pad(self.reviews, (0, missing))
        if (missing := len(self._skills.intents.slots) - len(self.vectors)) > 0:
            self.vectors = F.pad(self.vectors, (0, 0, 0, missing))
            self._names = np.concatenate([self._names, np.full(missing, "", dtype=object)])
        self.reviews[row] = float(np.log1p(card.reviews)) if card else 0.0
        self._cards.pop(row, None)
        if card is not None and places:
            self._cards[row] = card
            self._names[places] = [intent.name for intent in card.intents]
            self.vectors[places] = self.bags(intent_texts(card))

    @torch.no_grad()
    def bags(self, texts: Sequence[str]) -> Tensor:
        """Unit bags of texts, (texts, E). One card is read by itself, so that company changes nothing."""
        words = self._words.batch(self._words.vocabulary.encode(texts))
        return self._encoder.bags(words, self._encoder.word_vectors(words))

    def tag(self, texts: Sequence[str]) -> Tagged:
        """What the requests say; good until the next `put`."""
        return self._requests.tag(texts)

    def understand(self, tagged: Tagged, rows: Tensor, bag: Tensor, beliefs: Tensor | None = None) -> Understood:
        """The candidates `rows` (B, C), -1: none, of requests with unit bags `bag` (B, E). `beliefs` (B, C): the
        probability of each before, by which rivals' words weigh.

        `features` (B, C, K) in the order of `READING_FEATURES`, `answers` (B, C) in -1 unknown, 0 NO, 1 MAYBE,
        2 YES. A skill that declares no intents has zeros throughout and is unknown.
        """
        at = rows.numpy()
        index = self._skills.index[np.maximum(at, 0)]  # (B, C, M)
        index[at < 0] = -1
        index = index[..., : max(1, int((index >= 0).any((0, 1)).sum()))]
        flat = torch.from_numpy(index.reshape(len(at), -1))
        similarities = products(bag, self.vectors, flat).numpy().reshape(index.shape)
        return understand(self._skills, tagged, at, similarities, None if beliefs is None else beliefs.numpy())

    def intent_names(self, places: NDArray[np.int64]) -> NDArray[np.object_]:
        """Names of intents by their places, as `understand` finds them; "" at -1."""
        names: NDArray[np.object_] = self._names[places]
        return names

    def reading(self, tagged: Tagged, understood: Understood, b: int, c: int) -> Reading | None:
        """The request `b` under the candidate at place `c` of its list; None where it declares no intents.

        What the card says of a slot holds; else a slot that is filled is understood and can be acted on, but for
        one whose kind the card does not tell: MAYBE.
        """
        place = int(understood.intents[b, c])
        if place < 0:
            return None
        row = int(understood.rows[b, c])
        skill, card = self._skills.declared[row], self._cards[row]
        intent = skill.intents[self._skills.index[row].tolist().index(place)]
        slots = fill(skill, intent, tagged.read[b])
        own = card.can_fulfill[intent.name].slots if intent.name in card.can_fulfill else {}
        kinds = dict(zip(skill.slots, skill.kinds, strict=True))
        abilities = {name: own.get(name) or _ability(kinds[name]) for name in slots}
        return Reading(intent.name, slots, Ability(ANSWERS[understood.answers[b, c]], abilities))


def _ability(kind: int) -> SlotAbility:
    return SlotAbility() if kind == OPEN else SlotAbility("YES", "YES")


def intent_texts(card: SkillCard) -> list[str]:
    """What the card says of each intent, in words."""
    slots = [" ".join(spoken(slot.name) for slot in intent.slots) for intent in card.intents]
    return [f"{spoken(i.name)} {i.description} {said}" for i, said in zip(card.intents, slots, strict=True)]
