"""The first network: reads the request, then what the customer's links say, and scores every skill.

Axes: B batch, L linked (padded), S skills (rows of the catalogue), P pool, E word width, D width, F statistics.
"""

from dataclasses import dataclass

import torch
from msgspec import Struct
from torch import Tensor, nn
from torch.nn import functional as F

from model.attention import Kind, Links, Use, log_odds, summary
from model.encoder import Encoder, Reading, Words
from model.statistics import FEATURES, OF_LINKS, OF_SKILLS

NEVER = -1e4  # a score that no skill comes back from, finite so that softmax and logs stay finite
POOL = 64  # skills that the text alone puts first, among which a link's worth is weighed


class ShortlisterSettings(Struct, frozen=True, kw_only=True):
    """Sizes and mechanisms.

    `supervised` teaches the weights (L_a); self-distillation has two forms: `shares` feeds in the statistics of
    the classifications of the epoch before, `soft_targets` its weights (L_d). `reads_text`, `reads_request`
    and `use`: see `model.attention.Links`. `summary`: s = Σ a_i v_i joins the request, as published.
    """

    reading: Reading = "convolution"
    attention: Kind = "sigmoid"
    supervised: bool = True
    shares: bool = True
    soft_targets: bool = True
    use: Use = "log-odds"
    reads_text: bool = True
    reads_request: bool = True
    summary: bool = False
    word_width: int = 256
    state_width: int = 256
    width: int = 256
    dropout: float = 0.3


@dataclass(frozen=True)
class Requests:
    """A batch of requests as the encoder reads them, before any links."""

    text: Tensor  # (B, D) unit vectors
    bag: Tensor  # (B, E) unit bags of words


@dataclass(frozen=True)
class Linked:
    """What the links of a batch say."""

    energies: Tensor  # (B, L)
    weights: Tensor  # (B, L)
    added: Tensor  # (B, L) to the linked skills' scores
    text: Tensor  # (B, L) the linked skills' scores without it
    request: Tensor  # (B, D) unit vectors that score all skills: those of the text, but for `summary`


class Shortlister(nn.Module):
    """Scores of all skills: γ cos(u, v_j) + w · statistics_j, and for linked ones what their links add.

    Departures from the paper, each because a skill has to be a row that can join and leave:
    - scores are scaled cosines between the request and the skills' vectors, with one softmax over all skills,
      where the paper has one logistic output a skill;
    - v_i is a learned row plus a projection of the card's words, so that a skill without phrases has a vector;
    - statistics enter as features of each skill, weighed by one small layer, and not as one input for each skill;
    - a link speaks of its own skill's score; s = Σ a_i v_i, the published way, is the setting `summary`.
    """

    def __init__(self, settings: ShortlisterSettings, vocabulary: int, ngram_rows: int, skills: int) -> None:
        super().__init__()
        E, D = settings.word_width, settings.width
        self.settings = settings
        self.encoder = Encoder(
            settings.reading, vocabulary, ngram_rows, E, settings.state_width, D, settings.dropout
        )
        self.rows = nn.Parameter(torch.zeros(skills, D))
        self.none_row = nn.Parameter(torch.randn(1, D) * D**-0.5)
        self.read_card = nn.Linear(E, D, bias=False)
        self.scale = nn.Parameter(torch.tensor(3.0))  # log γ: cosines are multiplied by e^3 = 20 at first
        self.prior = nn.Linear(len(FEATURES[OF_SKILLS]), 1, bias=False)
        self.links = Links(
            settings.attention, settings.use, settings.reads_text, settings.reads_request, settings.width
        )
        if settings.summary:
            self.mix = nn.Sequential(nn.Linear(2 * D, D), nn.SELU(), nn.Linear(D, D))
        self.register_buffer("cards", torch.zeros(skills, E))  # unit bags of the cards' words
        self.register_buffer("statistics", torch.zeros(skills, len(FEATURES)))
        self.register_buffer("present", torch.ones(skills, dtype=torch.bool))
        self._start_as_nearest_card()

    cards: Tensor
    statistics: Tensor
    present: Tensor

    def _start_as_nearest_card(self) -> None:
        """Before any training the score is the cosine between the request's bag and the skill's."""
        with torch.no_grad():
            self.read_card.weight.copy_(self.encoder.bag.weight)
            self.prior.weight.zero_()
            if self.settings.summary:
                for parameter in self.mix[-1].parameters():
                    parameter.zero_()

    def skill_vectors(self) -> Tensor:
        """Unit vectors of all skills and of `none`, (S + 1, D)."""
        return F.normalize(torch.cat([self.rows + self.read_card(self.cards), self.none_row]), dim=-1)

    def keys(self, vectors: Tensor) -> Tensor:
        """What an index over the skills holds, (S, D + 1): vectors, and what the statistics add to each score."""
        return torch.cat([vectors[:-1], self.priors()[:-1, None]], dim=-1)

    def queries(self, request: Tensor) -> Tensor:
        """What the index is asked for unit requests (B, D), (B, D + 1); the dot product is the score."""
        return F.pad(self.scale.exp() * request, (0, 1), value=1.0)

    def read(self, words: Words) -> Requests:
        """The requests' vectors."""
        u, bag = self.encoder(words)
        return Requests(F.normalize(u, dim=-1), bag)

    def text_scores(self, request: Tensor, vectors: Tensor) -> Tensor:
        """Scores of all skills and `none` for unit requests (B, D) by unit vectors (S + 1, D), (B, S + 1)."""
        found: Tensor = torch.addmm(self.priors(), self.scale.exp() * request, vectors.T)
        return found

    def priors(self) -> Tensor:
        """What the statistics add to each skill, and what takes removed skills out, (S + 1,)."""
        # no matrix product, whose rounding of a row may change with the number of rows
        found = (self.statistics[:, OF_SKILLS] * self.prior.weight).sum(-1)  # (S,)
        return F.pad(found.masked_fill(~self.present, NEVER), (0, 1))

    def link(
        self,
        text: Tensor,
        linked: Tensor,
        vectors: Tensor,
        pool_rows: Tensor,
        pool: Tensor,
        none: Tensor,
        cosines: Tensor | None = None,
    ) -> Linked:
        """What links (B, L), -1 at padding, say beside the text's pool: its rows and scores (B, P), none (B, 1).

        `cosines` (B, L) of the requests and the linked skills, handed in where they are known.
        """
        rows = linked.clamp(min=0)  # (B, L)
        mask = (linked >= 0) & self.present[rows]  # a link to a removed skill says nothing
        if cosines is None:
            cosines = linked_cosines(text, linked, vectors)
        scores = self.scale.exp() * cosines + self.priors()[rows]  # (B, L)
        odds = log_odds(scores, linked, pool_rows, pool, none)
        energies, a, added = self.links(text, odds, cosines, self.statistics[rows][..., OF_LINKS], mask)
        if not self.settings.summary:
            return Linked(energies, a, added, scores, text)
        v = vectors[rows]  # (B, L, D)
        s = summary(a, v)  # (B, D)
        request = F.normalize(text + self.mix(torch.cat([text, s], dim=-1)), dim=-1)
        moved = self.scale.exp() * torch.einsum("bd,bld->bl", request, v) + self.priors()[rows]
        return Linked(energies, a, added, moved, request)

    def forward(self, words: Words, linked: Tensor) -> tuple[Tensor, Linked]:
        """Exact scores of all skills and `none` (B, S + 1), and what the links (B, L) said: for training."""
        vectors = self.skill_vectors()
        text = self.read(words).text
        scores = self.text_scores(text, vectors)  # (B, S + 1)
        pool, rows = scores[:, :-1].topk(min(POOL, len(self.rows)), dim=-1)  # (B, P)
        found = self.link(text, linked, vectors, rows, pool, scores[:, -1:])
        if self.settings.summary:
            scores = self.text_scores(found.request, vectors)
        return scores.scatter_add(1, linked.clamp(min=0), found.added), found  # padding adds 0


def linked_cosines(text: Tensor, linked: Tensor, vectors: Tensor) -> Tensor:
    """Cosines of unit requests (B, D) and their linked skills' unit vectors, (B, L); of row 0 at padding."""
    return torch.einsum("bd,bld->bl", text, vectors[linked.clamp(min=0)])
