"""The second network: looks at the shortlist's hypotheses side by side and gives probabilities.

Axes: B batch, C candidates, M intents of a skill (padded), E word width, X features, G width of the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from msgspec import Struct
from torch import Tensor, nn
from torch.nn import functional as F

from model.catalogue import Catalogue, spoken
from model.encoder import WordBatches, Words
from model.index_kinds import products
from model.shortlist import Shortlist
from model.shortlister import Shortlister
from model.statistics import FEATURES
from topics.events import SkillCard

ANSWERS = ("YES", "MAYBE", "NO")
OWN_FEATURES = (
    "log_probability",  # of the shortlister, among its pool, the linked skills and `none`
    "text_log_probability",  # the same without what links add
    "linked",
    "attention",
    "card_similarity",  # cosine of the request's words and the card's
    "declares_intents",
    "intent_similarity",  # of the best of its declared intents; 0 where it declares none
    "intent_yes",  # what it declares for that intent; all three 0 where it declares nothing
    "intent_maybe",
    "intent_no",
    "log_reviews",
)
LIST_FEATURES = ("words", "links", "linked_candidates", "none_log_probability", "text_none_log_probability")
WIDTH = len(OWN_FEATURES) + len(FEATURES)
NONE, ELSEWHERE = -2, -1  # the two last outcomes: no skill should answer; the right one is not on the list


class RerankerSettings(Struct, frozen=True, kw_only=True):
    """Sizes; `candidates` is the length of the shortlist that it looks at."""

    candidates: int = 10
    width: int = 32
    heads: int = 4
    layers: int = 1
    dropout: float = 0.1


@dataclass(frozen=True)
class Hypotheses:
    """A batch of shortlists, best first."""

    rows: Tensor  # (B, C) catalogue rows, -1 where the list is longer than the catalogue
    own: Tensor  # (B, C, X) features of each candidate
    lists: Tensor  # (B, len(LIST_FEATURES)) features of the whole list
    linked: Tensor  # (B, C)
    attention: Tensor  # (B, C)
    none: Tensor  # (B,) the shortlister's log probability of `none`


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


def hypotheses(
    shortlister: Shortlister, declarations: Declarations, made: Shortlist, words: Words, linked: Tensor
) -> Hypotheses:
    """The skills of each shortlist with all that is known of them; `linked` (B, L), by which it was made."""
    rows = made.rows.clamp(min=0)  # (B, C)
    logs = torch.cat([made.scores, made.none[:, None]], dim=1) - made.total[:, None]  # (B, C + 1)
    text_logs = torch.cat([made.text, made.none[:, None]], dim=1) - made.text_total[:, None]  # (B, C + 1)
    similarity = torch.einsum("be,bce->bc", made.bag, shortlister.cards[rows])
    declares, intent, answers = declarations.best(rows, made.bag)
    own = torch.cat(
        [
            torch.stack(
                [
                    logs[:, :-1],
                    text_logs[:, :-1],
                    made.linked.float(),
                    made.attention,
                    similarity,
                    declares,
                    intent,
                ],
                dim=-1,
            ),
            answers,
            declarations.reviews[rows][..., None],
            shortlister.statistics[rows],
        ],
        dim=-1,
    )  # (B, C, X)
    sizes = [words.lengths.float() / 10, (linked >= 0).sum(1).float() / 10, made.linked.float().sum(1)]
    lists = torch.stack([*sizes, logs[:, -1], text_logs[:, -1]], dim=-1)
    return Hypotheses(made.rows, _bounded(own), _bounded(lists), made.linked, made.attention, logs[:, -1])


def _bounded(features: Tensor) -> Tensor:
    """Log probabilities of skills that have left are far below; no feature needs to be told apart below -30."""
    return features.clamp(min=-30.0, max=30.0)


class Reranker(nn.Module):
    """List-wise: candidates, `none` and `elsewhere` attend to each other, then each gets a logit.

    After HypRank (NAACL 2018), which runs a BiLSTM over the k-best list; a transformer encoder without
    positions gives the same answer for every order of the list. The logit starts as the shortlister's.
    """

    def __init__(self, settings: RerankerSettings) -> None:
        super().__init__()
        G = settings.width
        self.settings = settings
        self.own = nn.Linear(WIDTH, G)
        self.lists = nn.Linear(len(LIST_FEATURES), G)
        self.special = nn.Parameter(torch.randn(2, G) * 0.1)  # none, elsewhere
        layer = nn.TransformerEncoderLayer(
            G, settings.heads, 2 * G, settings.dropout, batch_first=True, norm_first=True, activation="gelu"
        )
        self.together = nn.TransformerEncoder(layer, settings.layers, enable_nested_tensor=False)
        self.out = nn.Linear(G, 1)
        self.trust = nn.Parameter(torch.tensor(1.0))  # of the shortlister's own log probability
        self.register_buffer("temperature", torch.tensor(1.0))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    temperature: Tensor

    def forward(self, found: Hypotheses) -> Tensor:
        """Logits of the candidates, of `none` and of `elsewhere`, (B, C + 2); softmax gives probabilities."""
        B = len(found.rows)
        lists = self.lists(found.lists)[:, None, :]  # (B, 1, G)
        x = torch.cat([self.own(found.own), self.special.expand(B, -1, -1)], dim=1) + lists  # (B, C + 2, G)
        learned = self.out(self.together(x)).squeeze(-1)  # (B, C + 2)
        logs = torch.cat([found.own[..., 0], found.none.clamp(min=-30)[:, None], _missed(found)], dim=1)
        logits: Tensor = (self.trust * logs + learned) / self.temperature
        return logits


def _missed(found: Hypotheses) -> Tensor:
    """The log of what the shortlister leaves to skills that are not on the list, (B, 1)."""
    listed = found.own[..., 0].exp().sum(1) + found.none.exp()
    return torch.log((1 - listed).clamp(min=1e-6))[:, None]


def intended(found: Hypotheses, targets: Tensor, none_target: int) -> Tensor:
    """Which of the C + 2 outcomes is right, (B,): the candidate, `none`, or `elsewhere`."""
    C = found.rows.shape[1]
    matches = found.rows == targets[:, None]  # (B, C)
    place = torch.where(matches.any(1), matches.float().argmax(1), C + 1)
    return torch.where(targets == none_target, C, place)


def pack(parts: Sequence[Hypotheses]) -> Hypotheses:
    """Several batches as one."""
    names = Hypotheses.__dataclass_fields__
    return Hypotheses(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def take(found: Hypotheses, rows: Tensor) -> Hypotheses:
    """The lists at `rows`."""
    return Hypotheses(**{name: getattr(found, name)[rows] for name in Hypotheses.__dataclass_fields__})


def rerank_loss(logits: Tensor, right: Tensor) -> Tensor:
    """List-wise cross entropy: logits (B, C + 2), the right outcome (B,)."""
    return F.cross_entropy(logits.float(), right)
