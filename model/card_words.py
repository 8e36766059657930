"""Words of cards, word by word beside those of a request: `energy` beside a card that says `nutrient`.

A card's bag is one vector, in which the one word that matters is a sixteenth. Here each word of a request looks
for the nearest among the card's rarest, and the request's weighted mean of these similarities is the card's (late
interaction, as ColBERT of Khattab and Zaharia, SIGIR 2020, but over static vectors).

Axes: S skills, M words of a card, V vocabulary, E word width, N narrow width, B batch, T words, C candidates.
"""

from collections.abc import Iterable

import torch
from msgspec.structs import replace
from torch import Tensor
from torch.nn import functional as F

from model.catalogue import Catalogue, card_text
from model.encoder import Words
from model.text import Vocabulary, tokens
from model.wording import by_length
from topics.events import SkillCard

MOST = 16  # of a card: with 48 the gain was the same
NARROW = 48  # of the words' principal components, which come first; with all 256 the gain was the same
READ = 160  # words of a card that are looked at


class CardWords:
    """The rarest words of each card, by its row."""

    def __init__(self, vectors: Tensor, vocabulary: Vocabulary) -> None:
        """`vectors` (V, E) of the vocabulary's words."""
        self._vectors = F.normalize(vectors.detach()[:, :NARROW], dim=-1)  # (V, N); row 0 stays 0
        self._rows = {word: row for row, word in enumerate(vocabulary.words) if row}
        self._weights = vocabulary.weights
        self._words = torch.zeros(0, MOST, dtype=torch.long)  # (S, M) rows of the vocabulary, 0 at padding

    @classmethod
    def of(cls, catalogue: Catalogue, vectors: Tensor, vocabulary: Vocabulary) -> "CardWords":
        """Of all cards that are there."""
        made = cls(vectors, vocabulary)
        made._words = torch.zeros(len(catalogue), MOST, dtype=torch.long)
        for row, card in enumerate(catalogue.rows()):
            made.put(row, card)
        return made

    def put(self, row: int, card: SkillCard | None) -> None:
        """What the card at `row` says from now on, None: nothing."""
        self._words = F.pad(self._words, (0, 0, 0, max(0, row + 1 - len(self._words))))
        self._words[row] = torch.tensor(self._rarest(_said(card)) if card else [0] * MOST)

    def _rarest(self, said: Iterable[str]) -> list[int]:
        known = [self._rows[word] for word in dict.fromkeys(said) if word in self._rows]
        rarest = sorted(known, key=lambda row: -self._weights[row])[:MOST]
        return [*rarest, *[0] * (MOST - len(rarest))]

    def match(self, words: Words, rows: Tensor) -> Tensor:
        """For candidates (B, C): the request's similarity to the card, and the share of its weight in words that
        the card has too, (B, C, 2)."""
        asked = words.distinct[words.words]  # (B, T) 0 where a word is spelled
        weights = words.weights / words.weights.sum(1, keepdim=True).clamp(min=1e-6)  # (B, T)
        found = torch.empty(*rows.shape, 2)  # (B, C, 2)
        for at in by_length(words.lengths):
            T = int(words.lengths[at[-1]])
            found[at] = self._match(asked[at, :T], weights[at, :T], rows[at])
        return found

    def _match(self, asked: Tensor, weights: Tensor, rows: Tensor) -> Tensor:
        B, C = rows.shape
        there = self._words[rows].transpose(1, 2).reshape(B, -1)  # (B, M C)
        # F.embedding gathers rows three times as fast as indexing does
        cards = F.embedding(there, self._vectors)  # (B, M C, N)
        each = torch.bmm(F.embedding(asked, self._vectors), cards.transpose(1, 2))  # (B, T, M C)
        nearest = each.view(B, -1, MOST, C).amax(2)  # (B, T, C)
        both = torch.cat([nearest, (nearest > 1 - 1e-4).float()], dim=-1)  # (B, T, 2 C)
        return torch.bmm(weights[:, None], both).view(B, 2, C).transpose(1, 2)


def _said(card: SkillCard) -> list[str]:
    """The card's words but for its phrases, which are requests and looked at as such."""
    return tokens(card_text(replace(card, phrases=())))[:READ]
