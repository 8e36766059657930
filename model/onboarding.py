"""Skills join, change and leave a bundle that is in memory, in milliseconds, and no other skill's row is touched.

A new skill's row has the direction of the trained encoder's mean over what its card says of itself, phrases
counted more, and the length of learned rows; beside it stands, as for every skill, the projection of its card:

    v = normalize(row + W card),  row = length · normalize(Σ weight · u(saying))

What the bundle holds then depends on the bundle as it was shipped and on the cards that are there, not on the way
there, but for the order of rows: so two routers that have seen different histories of one catalogue agree.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.bundle import Bundle
from model.encoder import WordBatches
from model.examples import card_rows
from model.exemplars import MOST
from model.onboarding_tuning import Said, tuned
from model.text import tokens
from model.training import card_bags
from topics.events import SkillCard

PHRASE_WEIGHT = 2.0  # of a phrase; names, intents and first sentences have 1
SAME = 0.9999  # cosine above which a row is the one that its card would be given


@dataclass(frozen=True)
class _Shipped:
    """A skill as the bundle came with it."""

    card: SkillCard
    row: Tensor  # (D,)
    bag: Tensor  # (E,)
    statistics: Tensor  # (F,)
    learned: bool  # from requests; else its row is what its card was given
    source: int  # the row of what else was learned of it


@dataclass(frozen=True)
class _Made:
    """What a card becomes."""

    card: SkillCard
    row: Tensor  # (D,)
    bag: Tensor  # (E,)
    phrases: Tensor  # (phrases, D) its card's, as the encoder reads them
    shipped: _Shipped | None  # None: nothing is known of it but its card


class Onboarding:
    """Brings the catalogue of one bundle up to date, in place."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._words = WordBatches(bundle.vocabulary)
        lengths = bundle.shortlister.rows.detach().norm(dim=-1)  # (S,)
        self._length = float(lengths[lengths > 0].mean()) if lengths.any() else 1.0
        self._cards = {card.skill_id: card for card in bundle.catalogue.cards()}  # as shipped
        self._shipped: dict[str, _Shipped] = {}  # of these, those that have changed or left at some time
        self._differs: dict[str, str] = {}  # skills that are not as shipped, and a digest of their cards
        self.version = ""

    @torch.no_grad()
    def take(self, cards: Iterable[SkillCard], gone: Iterable[str] = (), fine_tune: bool = False) -> list[int]:
        """Skills of `gone` leave, then those of `cards` join or change; returns the rows that did.

        A card equal to the one that is there is no work, and so is a skill that is not there to leave. A skill
        that joins takes a new row; one that changes keeps its row, and what it has learned from requests.
        `fine_tune`: new rows are then taught to leave alone what cards of their rivals say. Where a card raises,
        nothing has changed.

        `version` names the catalogue from then on: "" as it was shipped, else the first 12 hex digits of a hash of
        all that differs. Equal cards over equal bundles have equal names.
        """
        catalogue = self._bundle.catalogue
        leaving = {skill for skill in gone if skill in catalogue}
        wanted = {card.skill_id: card for card in cards}
        changed = [card for card in wanted.values() if card.skill_id in leaving or not self._is_there(card)]
        made = [self._made(card, fine_tune) for card in changed]
        rows = [self._leave(skill) for skill in sorted(leaving)]
        self._make_room(sum(card.skill_id not in catalogue for card in changed))
        rows += [self._put(one) for one in made]
        self.version = _digest(repr(sorted(self._differs.items())).encode()) if self._differs else ""
        return rows

    def _is_there(self, card: SkillCard) -> bool:
        catalogue = self._bundle.catalogue
        return card.skill_id in catalogue and _same(card, catalogue.card(catalogue.row(card.skill_id)))

    def _made(self, card: SkillCard, fine_tune: bool) -> _Made:
        shipped, phrases = self._remember(card.skill_id), self._read(card.phrases[:MOST])
        if shipped and _same(card, shipped.card):
            return _Made(card, shipped.row, shipped.bag, phrases, shipped)
        bag = card_bags(self._bundle.shortlister, self._bundle.vocabulary, self._words, [card])[0]
        row = shipped.row if shipped and shipped.learned else self._row(card, bag, fine_tune)
        return _Made(card, row, bag, phrases, shipped)

    def _row(self, card: SkillCard, bag: Tensor, fine_tune: bool) -> Tensor:
        """The row of a card that has not learned from requests, (D,)."""
        said = self._said(card)
        start = self._length * F.normalize(said.weights @ said.vectors, dim=-1)
        if not fine_tune:
            return start
        catalogue = self._bundle.catalogue
        own = catalogue.row(card.skill_id) if card.skill_id in catalogue else None
        return tuned(self._bundle.shortlister, start, bag, said, own, self._rivals_say)

    def _said(self, card: SkillCard) -> Said:
        """What the card says of itself, as the encoder reads it; weights sum to 1, if it has a word at all."""
        texts = [saying.text for saying in card_rows([card]) if tokens(saying.text)]
        phrases = set(card.phrases)
        weights = torch.tensor([PHRASE_WEIGHT if text in phrases else 1.0 for text in texts])
        return Said(self._read(texts), weights / weights.sum())

    def _rivals_say(self, rows: Sequence[int]) -> Tensor:
        """What the cards at these rows say, (N, D)."""
        cards = [self._bundle.catalogue.card(row) for row in rows]
        return self._read([saying.text for saying in card_rows(cards)])

    def _read(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors of texts, (texts, D)."""
        if not texts:
            return torch.empty(0, self._bundle.manifest.shortlister.width)
        words = self._words.batch(self._bundle.vocabulary.encode(texts))
        return self._bundle.shortlister.read(words).text

    def _make_room(self, count: int) -> None:
        """Empty rows for `count` skills that join; the other rows are copied as they are."""
        if not count:
            return
        model = self._bundle.shortlister
        model.rows = nn.Parameter(F.pad(model.rows, (0, 0, 0, count)), model.rows.requires_grad)
        model.cards = F.pad(model.cards, (0, 0, 0, count))
        model.statistics = F.pad(model.statistics, (0, 0, 0, count))
        model.present = F.pad(model.present, (0, count))

    def _put(self, made: _Made) -> int:
        """Writes the row of a card that joins or changes; there is room for it."""
        bundle, model, card = self._bundle, self._bundle.shortlister, made.card
        joins = card.skill_id not in bundle.catalogue
        row = bundle.catalogue.add(card) if joins else bundle.catalogue.replace(card)
        model.rows[row], model.cards[row], model.present[row] = made.row, made.bag, True
        if made.shipped is not None:
            model.statistics[row] = made.shipped.statistics
        elif joins:
            model.statistics[row] = 0.0
        bundle.evidence.put(row, card, made.phrases, made.shipped.source if made.shipped else -1)
        self._note(card.skill_id, card)
        return row

    def _leave(self, skill_id: str) -> int:
        self._remember(skill_id)
        row = self._bundle.catalogue.remove(skill_id)
        model = self._bundle.shortlister
        for table in (model.rows, model.cards, model.statistics):
            table[row] = 0.0
        model.present[row] = False
        self._bundle.evidence.put(row, None, torch.empty(0), -1)
        self._note(skill_id, None)
        return row

    def _remember(self, skill_id: str) -> _Shipped | None:
        """The skill as it was shipped, looked at before it changes for the first time; None for one of later."""
        if skill_id in self._cards and skill_id not in self._shipped:
            card, model = self._cards[skill_id], self._bundle.shortlister
            row = self._bundle.catalogue.row(skill_id)
            own, bag, known = (table[row].clone() for table in (model.rows, model.cards, model.statistics))
            learned = float(F.cosine_similarity(own, self._row(card, bag, fine_tune=False), dim=0)) < SAME
            source = int(self._bundle.evidence.sources[row])
            self._shipped[skill_id] = _Shipped(card, own, bag, known, learned, source)
        return self._shipped.get(skill_id)

    def _note(self, skill_id: str, card: SkillCard | None) -> None:
        """Keeps the books of what is not as shipped."""
        shipped = self._cards.get(skill_id)
        if card is shipped or (card and shipped and _same(card, shipped)):
            self._differs.pop(skill_id, None)
        else:
            told = msgspec.json.encode(_undated(card), order="deterministic") if card else b""
            self._differs[skill_id] = _digest(told)


def _same(card: SkillCard, other: SkillCard) -> bool:
    return _undated(card) == _undated(other)


def _undated(card: SkillCard) -> SkillCard:
    """The card without the time at which it was sent: the same card again says nothing new."""
    return msgspec.structs.replace(card, event_time_ms=0)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
