"""The second network: looks at the shortlist's hypotheses side by side and gives probabilities.

Axes: B batch, C candidates, X features, G width of the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from msgspec import Struct
from torch import Tensor, nn
from torch.nn import functional as F

from model.declarations import Declarations
from model.encoder import Words
from model.shortlist import Shortlist
from model.shortlister import Shortlister
from model.statistics import FEATURES

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
