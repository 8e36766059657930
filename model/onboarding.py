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
from model.onboarding_tuning import Said, tuned
from model.reranker import intent_texts
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


class Onboarding:
    """Brings the catalogue of one bundle up to date, in place."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._words = WordBatches(bundle.vocabulary)
        lengths = bundle.shortlister.rows.detach().norm(dim=-1)  # (S,)
        self._length = float(lengths[lengths > 0].mean()) if lengths.any() else 1.0
        self._cards = {card.skill_id: card for card in bundle.catalogue.cards()}  # as shipped
        self._shipped: dict[str, _Shipped] = {}  # of these, those that have changed or left at some time
        self._differs: dict[str, SkillCard | None] = {}  # skills that are not as shipped; None: has left

    def take(self, cards: Iterable[SkillCard], gone: Iterable[str] = (), fine_tune: bool = False) -> list[int]:
        """Skills of `gone` leave, those of `cards` join or change; returns the rows that did.

        A card equal to the one that is there is no work, and so is a skill that is not there to leave. A skill
        that joins takes a new row; one that changes keeps its row, and what it has learned from requests.
        `fine_tune`: new rows are then taught to leave alone what cards of their rivals say.
        """
        catalogue = self._bundle.catalogue
        leaving = [skill for skill in dict.fromkeys(gone) if skill in catalogue]
        rows = [self._leave(skill) for skill in leaving]
        wanted = {card.skill_id: card for card in cards}
        changed = [card for card in wanted.values() if not self._is_there(card)]
        self._make_room(sum(card.skill_id not in catalogue for card in changed))
        return rows + [self._put(card, fine_tune) for card in changed]

    @property
    def version(self) -> str:
        """Names the catalogue: "" as it was shipped, else the first 12 hex digits of a hash of all that differs.

        Equal cards over equal bundles have equal names.
        """
        if not self._differs:
            return ""
        digest = hashlib.sha256()
        for skill, card in sorted(self._differs.items(), key=lambda pair: pair[0]):
            told = msgspec.json.encode(_undated(card), order="deterministic") if card else b""
            digest.update(msgspec.json.encode((skill, hashlib.sha256(told).hexdigest())))
        return digest.hexdigest()[:12]

    def _is_there(self, card: SkillCard) -> bool:
        catalogue = self._bundle.catalogue
        return card.skill_id in catalogue and _undated(card) == _undated(
            catalogue.card(catalogue.row(card.skill_id))
        )

    def _leave(self, skill_id: str) -> int:
        self._remember(skill_id)
        row = self._bundle.catalogue.remove(skill_id)
        model = self._bundle.shortlister
        with torch.no_grad():
            for table in (model.rows, model.cards, model.statistics):
                table[row] = 0.0
            model.present[row] = False
            self._bundle.declarations.put(row, None, torch.empty(0))
        self._note(skill_id, None)
        return row

    @torch.no_grad()
    def _put(self, card: SkillCard, fine_tune: bool) -> int:
        """Writes the row of a card that joins or changes. There is room for it."""
        bundle, model, shipped = self._bundle, self._bundle.shortlister, self._remember(card.skill_id)
        joins = card.skill_id not in bundle.catalogue
        row = bundle.catalogue.add(card) if joins else bundle.catalogue.replace(card)
        model.present[row] = True
        if shipped and _undated(card) == _undated(shipped.card):
            model.rows[row], model.cards[row] = shipped.row, shipped.bag
        else:
            model.cards[row] = card_bags(model, bundle.vocabulary, self._words, [card])[0]
            model.rows[row] = shipped.row if shipped and shipped.learned else self._row(card, row, fine_tune)
        if joins and shipped:
            model.statistics[row] = shipped.statistics
        bundle.declarations.put(row, card, self._bags(intent_texts(card)))
        self._note(card.skill_id, card)
        return row

    def _row(self, card: SkillCard, row: int, fine_tune: bool) -> Tensor:
        """The row of a card that has not learned from requests, (D,)."""
        said = self._said(card)
        start = self._length * F.normalize(said.weights @ said.vectors, dim=-1)
        if not fine_tune:
            return start
        return tuned(self._bundle.shortlister, start, row, said, self._rivals_say)

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

    def _bags(self, texts: Sequence[str]) -> Tensor:
        """Unit bags of texts, (texts, E)."""
        if not texts:
            return torch.empty(0, self._bundle.manifest.shortlister.word_width)
        words, encoder = self._words.batch(self._bundle.vocabulary.encode(texts)), self._bundle.shortlister.encoder
        return encoder.bags(words, encoder.word_vectors(words))

    def _make_room(self, count: int) -> None:
        """Empty rows for `count` skills that join; the other rows are copied as they are."""
        model = self._bundle.shortlister
        if not count:
            return
        with torch.no_grad():
            model.rows = nn.Parameter(F.pad(model.rows, (0, 0, 0, count)), model.rows.requires_grad)
            model.cards = F.pad(model.cards, (0, 0, 0, count))
            model.statistics = F.pad(model.statistics, (0, 0, 0, count))  # zeros: nothing is known
            model.present = F.pad(model.present, (0, count))

    def _remember(self, skill_id: str) -> _Shipped | None:
        """The skill as it was shipped, looked at before it changes for the first time; None for a later one."""
        if skill_id in self._cards and skill_id not in self._shipped:
            card, model = self._cards[skill_id], self._bundle.shortlister
            row = self._bundle.catalogue.row(skill_id)
            with torch.no_grad():
                own, bag, known = (t[row].clone() for t in (model.rows, model.cards, model.statistics))
                given = self._row(card, row, fine_tune=False)
                learned = float(F.cosine_similarity(own, given, dim=0)) < SAME
            self._shipped[skill_id] = _Shipped(card, own, bag, known, learned)
        return self._shipped.get(skill_id)

    def _note(self, skill_id: str, card: SkillCard | None) -> None:
        """Keeps the books of what is not as shipped."""
        shipped = self._cards.get(skill_id)
        as_shipped = (
            shipped is None if card is None else shipped is not None and _undated(card) == _undated(shipped)
        )
        if as_shipped:
            self._differs.pop(skill_id, None)
        else:
            self._differs[skill_id] = card


def _undated(card: SkillCard) -> SkillCard:
    """The card without the time at which it was sent: the same card again says nothing new."""
    return msgspec.structs.replace(card, event_time_ms=0)
