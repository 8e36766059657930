"""The first network: attention over linked skills, then a score for every skill of the catalogue.

Axes: B batch, L linked (padded), S skills (rows of the catalogue), E word width, D width, K statistics.
"""

from dataclasses import dataclass

import torch
from msgspec import Struct
from torch import Tensor, nn
from torch.nn import functional as F

from model import attention
from model.attention import Kind
from model.encoder import Encoder, Words
from model.statistics import FEATURES

NEVER = -1e4  # a score that no skill comes back from, finite so that softmax and logs stay finite


class ShortlisterSettings(Struct, frozen=True, kw_only=True):
    """Sizes and mechanisms. `supervised` teaches the weights, `distilled` feeds what the epoch before knew."""

    attention: Kind = "sigmoid"
    supervised: bool = True
    distilled: bool = True
    word_width: int = 128
    state_width: int = 64
    width: int = 256
    dropout: float = 0.3


@dataclass(frozen=True)
class Scores:
    """What the shortlister says of a batch."""

    logits: Tensor  # (B, S + 1), the last column is `none`: no skill should answer
    text: Tensor  # (B, D) unit vector of the request without its links
    energies: Tensor  # (B, L) attention energies of the linked skills
    weights: Tensor  # (B, L) attention weights
    bag: Tensor  # (B, E) unit bag of the request's words


class Shortlister(nn.Module):
    """[u; s; statistics] -> scores over all skills.

    As published: u from the encoder, a_i from u and v_i, s = Σ a_i v_i, one SELU layer over [u; s].
    Departures, each because a skill has to be a row that can join and leave:
    - scores are scaled cosines between the request and the skills' vectors, with one softmax over all skills,
      where the paper has one logistic output a skill;
    - v_i is a learned row plus a projection of the card's words, so that a skill without phrases has a vector;
    - statistics enter as features of each skill (its share of classifications, its acceptance), weighed by one
      small layer, and not as one input for each skill;
    - a linked skill's own score gets gate(u) · a_i beside what s tells: the weight is about that very skill.
    """

    def __init__(self, settings: ShortlisterSettings, vocabulary: int, ngram_rows: int, skills: int) -> None:
        super().__init__()
        E, D = settings.word_width, settings.width
        self.settings = settings
        self.encoder = Encoder(vocabulary, ngram_rows, E, settings.state_width, D, settings.dropout)
        self.rows = nn.Parameter(torch.zeros(skills, D))
        self.none_row = nn.Parameter(torch.randn(1, D) * D**-0.5)
        self.read_card = nn.Linear(E, D, bias=False)
        self.mix = nn.Sequential(nn.Linear(2 * D, D), nn.SELU(), nn.Linear(D, D))
        self.scale = nn.Parameter(torch.tensor(3.0))  # log: cosines are multiplied by e^3 = 20 at first
        self.attention_scale = nn.Parameter(torch.tensor(2.5))
        self.attention_bias = nn.Parameter(torch.tensor(-3.0))
        self.gate = nn.Linear(D, 1)
        self.statistics_weight = nn.Linear(len(FEATURES), 1, bias=False)
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
            for parameter in self.mix[-1].parameters():
                parameter.zero_()
            self.gate.weight.zero_()
            self.gate.bias.fill_(4.0)
            self.statistics_weight.weight.zero_()

    def skill_vectors(self) -> Tensor:
        """Unit vectors of all skills and of `none`, (S + 1, D)."""
        return F.normalize(torch.cat([self.rows + self.read_card(self.cards), self.none_row]), dim=-1)

    def forward(self, words: Words, linked: Tensor, vectors: Tensor | None = None) -> Scores:
        """Scores of a batch; `linked` (B, L) rows of linked skills, -1 at padding.

        `vectors` (S + 1, D): `skill_vectors()`, handed in where they are kept between batches.
        """
        v = self.skill_vectors() if vectors is None else vectors
        u, bag = self.encoder(words)  # (B, D), (B, E)
        mask = linked >= 0  # (B, L)
        v_linked = v[linked.clamp(min=0)]  # (B, L, D)
        text = F.normalize(u, dim=-1)  # (B, D)
        cosines = torch.einsum("bd,bld->bl", text, v_linked)
        energies = self.attention_scale.exp() * cosines + self.attention_bias  # (B, L)
        a = attention.weights(self.settings.attention, energies, mask)
        prior = self._prior()
        if self.settings.attention == "none":
            return Scores(self._score(text, v, prior), text, energies, a, bag)
        s = attention.summary(a, v_linked)  # (B, D)
        joined = F.normalize(u + self.mix(torch.cat([u, s], dim=-1)), dim=-1)  # (B, D)
        logits = self._score(joined, v, prior)
        bonus = F.softplus(self.gate(u)) * a * mask  # (B, L)
        logits.scatter_add_(1, linked.clamp(min=0), bonus.to(logits.dtype))  # padding adds 0
        return Scores(logits, text, energies, a, bag)

    def _score(self, request: Tensor, v: Tensor, prior: Tensor) -> Tensor:
        """Scaled cosines of unit requests (B, D) with unit skills (S + 1, D), and the prior, in one pass."""
        scores: Tensor = torch.addmm(prior, self.scale.exp() * request, v.T)  # (B, S + 1)
        return scores

    def _prior(self) -> Tensor:
        """What the statistics add to each skill, and what takes removed skills out, (S + 1,)."""
        found = self.statistics_weight(self.statistics).squeeze(-1)  # (S,)
        return F.pad(found.masked_fill(~self.present, NEVER), (0, 1))
