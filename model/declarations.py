"""What each skill says that it can do, by its row of the catalogue.

Axes: B batch, C candidates, M intents of a skill (padded), E word width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.catalogue import Catalogue, spoken
from model.encoder import WordBatches
from model.index_kinds import products
from topics.events import SkillCard

ANSWERS = ("YES", "MAYBE", "NO")


class Declarations(nn.Module):
    """What each skill says that it can do: vectors of its intents and the answers for them, by row."""

    def __init__(self, skills: int, intents: int, most: int, word_width: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(intents, word_width))  # unit bags of the intents' words
        self.register_buffer("answers", torch.zeros(intents, len(ANSWERS)))  # one-hot; zeros where unknown
        self.register_buffer("index", torch.full((skills, most), -1, dtype=torch.long))  # (skills, M)
        self.register_buffer("reviews", torch.zeros(skills))  # log(1 + reviews)

    vectors: Tensor
    answers: Tensor
    index: Tensor
    reviews: Tensor

    @classmethod
    def sized(cls, catalogue: Catalogue, word_width: int) -> "Declarations":
        """Room for what the catalogue declares, and for one unknown intent."""
        counts = [len(card.intents) for card in catalogue.cards()]
        return cls(len(catalogue), sum(counts) + 1, max([1, *counts]), word_width)

    def read(self, catalogue: Catalogue, encoder: nn.Module, words: WordBatches) -> None:
        """Fills in the cards' intents, in the encoder's word vectors as they are now."""
        texts: list[str] = []
        for card in catalogue.cards():
            row = catalogue.row(card.skill_id)
            self.reviews[row] = _log_reviews(card)
            for place, intent in enumerate(card.intents):
                self.index[row, place] = len(texts) + place
                self.answers[len(texts) + place] = _answer(card, intent.name)
            texts += intent_texts(card)
        if texts:
            with torch.no_grad():
                batch = words.batch(words.vocabulary.encode(texts))
                self.vectors[: len(texts)] = encoder.bags(batch, encoder.word_vectors(batch))  # type: ignore[operator]

    def put(self, row: int, card: SkillCard | None, vectors: Tensor) -> None:
        """What the skill at `row` declares from now on, None: nothing; no other skill's changes.

        `row` may be one that is not there yet. `vectors` (intents, E): unit bags of `intent_texts(card)`.
        """
        missing = row + 1 - len(self.index)
        if missing > 0:
            self.index = F.pad(self.index, (0, 0, 0, missing), value=-1)
            self.reviews = F.pad(self.reviews, (0, missing))
        self.index[row] = -1
        self.reviews[row] = _log_reviews(card) if card else 0.0
        if card is None or not card.intents:
            return
        places = self._unused(len(card.intents))
        self.index = F.pad(self.index, (0, max(0, len(places) - self.index.shape[1])), value=-1)
        self.index[row, : len(places)] = places
        self.vectors[places] = vectors
        self.answers[places] = torch.stack([_answer(card, intent.name) for intent in card.intents])

    def _unused(self, count: int) -> Tensor:
        """Places of `count` intents that no skill declares, (count,); makes room where there are too few."""
        unused = torch.ones(len(self.vectors), dtype=torch.bool)
        unused[self.index[self.index >= 0]] = False
        missing = max(0, count - int(unused.sum()))
        self.vectors = F.pad(self.vectors, (0, 0, 0, missing))
        self.answers = F.pad(self.answers, (0, 0, 0, missing))
        return F.pad(unused, (0, missing), value=True).nonzero().flatten()[:count]

    def best(self, rows: Tensor, bag: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For candidates (B, C) and requests' bags (B, E): whether it declares intents, the similarity of the
        nearest one, both (B, C), and the answers declared for that one (B, C, 3)."""
        index = self.index[rows]  # (B, C, M)
        there = index >= 0
        # no product with all intents at once: it would be rounded otherwise once some have joined
        each = products(bag, self.vectors, index.clamp(min=0).flatten(1)).view(index.shape)  # (B, C, M)
        each = each.masked_fill(~there, -1.0)
        similarity, place = each.max(dim=-1)  # (B, C)
        declares = there[..., 0].float()
        nearest = index.gather(-1, place[..., None]).squeeze(-1).clamp(min=0)  # (B, C)
        return declares, similarity * declares, self.answers[nearest] * declares[..., None]


def intent_texts(card: SkillCard) -> list[str]:
    """What the card says of each intent, in words."""
    slots = [" ".join(spoken(slot.name) for slot in intent.slots) for intent in card.intents]
    return [f"{spoken(i.name)} {i.description} {said}" for i, said in zip(card.intents, slots, strict=True)]


def _log_reviews(card: SkillCard) -> float:
    return float(torch.log1p(torch.tensor(float(card.reviews))))


def _answer(card: SkillCard, intent: str) -> Tensor:
    ability = card.can_fulfill.get(intent)
    return torch.tensor([float(ability is not None and ability.answer == answer) for answer in ANSWERS])
