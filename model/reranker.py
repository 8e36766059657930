"""The second network: looks at the shortlist's hypotheses side by side and gives probabilities.

Axes: B batch, C candidates, X features of a candidate, Y features of a list, G groups of features, H width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from msgspec import Struct
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from model.statistics import FEATURES
from model.tagger import Tagged
from model.understanding import FULFIL_FEATURES, INTENT_FEATURES, SLOT_FEATURES, Understood

TEXT_FEATURES = (
    "text_log_probability",  # the shortlister's, without what links add
    "card_similarity",  # cosine of the request's words and the card's
    "wording",  # how the skill's requests are worded: `model.wording`
    "nearest_phrase",  # cosine of the nearest of the skill's own requests: `model.exemplars`
    "word_match",  # of the request's words to the card's, one by one: `model.card_words`
    "word_exact",
)
LINK_FEATURES = (
    "log_probability",  # of the shortlister, with links
    "posterior",  # of the text and of what links say by the statistics: `model.habits`
    "links_say",
    "is_linked",  # `linked` is a statistic
    "attention",
)
LIST_FEATURES = (
    "none_log_probability",
    "text_none_log_probability",
    "missed_log_probability",  # what the shortlister leaves to skills that are not on the list
    "best_posterior",
    "best_text",
    "best_wording",
    "best_phrase",
    "best_match",
    "log_words",
    "links",
    "linked_candidates",
)
Group = Literal["text", "links", "intents", "fulfilment", "statistics", "together"]
FEATURES_OF: dict[Group, tuple[str, ...]] = {
    "text": TEXT_FEATURES,
    "links": LINK_FEATURES,
    "intents": (*INTENT_FEATURES, *SLOT_FEATURES),
    "fulfilment": FULFIL_FEATURES,
    "statistics": (*FEATURES, "log_reviews"),
}
"""Groups of features; each adds its own part to a candidate's logit. `together` is the last part: what a
candidate's features mean beside each other and beside the other candidates'."""
LIST_FEATURES_OF: dict[Group, tuple[str, ...]] = {
    "text": ("best_wording", "best_phrase", "best_match"),
    "links": ("best_posterior", "links", "linked_candidates"),
}
"""Features of a list that are made of a group's; the others are the shortlister's own."""
GROUPS: tuple[Group, ...] = (*FEATURES_OF, "together")
OWN_FEATURES = tuple(name for names in FEATURES_OF.values() for name in names)
WIDTH = len(OWN_FEATURES)
LIKELY = OWN_FEATURES.index("log_probability")
POSTERIOR = OWN_FEATURES.index("posterior")
DECLARES = OWN_FEATURES.index("declares_intents")
NONE_AT_FIRST = {
    "none_log_probability": (0.3, 0.0),
    "text_none_log_probability": (0.7, 0.0),
    "best_wording": (-0.5, 3.0),
    "best_phrase": (-12.0, 0.8),
    "best_match": (-2.0, 0.6),
}
"""Weights that `none` starts from, and what is usual: rows that no skill should answer are too few to learn five
weights from. What is asked for in words that no phrase is near to is for nobody. Chosen on dev."""
NONE, ELSEWHERE = -2, -1  # the two last outcomes: no skill should answer; the right one is not on the list
LITTLE = 1e-3  # a feature that varies less is not spread: what it once is in serving would be far outside
ABSENT = -1e4  # logit of a place without a skill


def _columns() -> dict[str, slice]:
    at, found = 0, {}
    for group, names in FEATURES_OF.items():
        found[str(group)] = slice(at, at + len(names))
        at += len(names)
    return found


COLUMNS = _columns()
COLUMNS["reading"] = slice(
    COLUMNS["intents"].start, COLUMNS["fulfilment"].stop
)  # as `model.understanding` has them

Together = Literal["transformer", "bilstm", "pointwise"]


class RerankerSettings(Struct, frozen=True, kw_only=True):
    """Sizes; `candidates` is the length of the shortlist that it looks at. `groups`: of features, that it sees.

    `together`: candidates see each other by a transformer encoder, by a BiLSTM over the list (HypRank, NAACL
    2018), or, pointwise, only by what is said of the whole list and by features that compare them. The last is as
    good here and costs a third: docs/concepts/networks.md has the figures.
    """

    candidates: int = 20
    width: int = 8
    heads: int = 2
    layers: int = 1
    dropout: float = 0.1
    together: Together = "pointwise"
    groups: tuple[Group, ...] = ("text", "links", "intents", "fulfilment", "statistics")


@dataclass(frozen=True)
class Listed:
    """A batch of shortlists as the network sees them."""

    rows: Tensor  # (B, C) catalogue rows, -1 where the list is longer than the catalogue
    own: Tensor  # (B, C, X) features of each candidate
    lists: Tensor  # (B, Y) features of the whole list

    def take(self, at: Tensor) -> "Listed":
        """The lists at these places."""
        return Listed(self.rows[at], self.own[at], self.lists[at])


@dataclass(frozen=True)
class Hypotheses(Listed):
    """A batch of shortlists, best first, with what a decision tells of them."""

    linked: Tensor  # (B, C)
    attention: Tensor  # (B, C)
    tagged: Tagged  # what the requests say
    understood: Understood  # and what that is to each candidate


class Reranker(nn.Module):
    """List-wise: each group of features adds its part to a candidate's logit, and candidates see each other.

        logit = trust · (log p, posterior) + Σ_g f_g(group g) + t(all, beside the others)

    Every feature counts once for all skills and once more, apart, for those that declare intents: among these,
    which share requests, it is worth something else. A sum of parts, so that a decision can say what each part
    was. It starts as the mean of the shortlister's own answer and the posterior, and has no positions: every order
    of the list has the same answer. `none` and `elsewhere` are weighed by features of the whole list.
    """

    def __init__(self, settings: RerankerSettings) -> None:
        super().__init__()
        H = settings.width
        self.settings = settings
        self.parts = nn.ModuleDict({group: _part(2 * len(FEATURES_OF[group]), H) for group in settings.groups})
        self.own = nn.Linear(2 * WIDTH, H)
        self.lists = nn.Linear(len(LIST_FEATURES), H)
        self.together = _together(settings)
        self.out = nn.Linear(H, 1, bias=False)
        self.trust = nn.Parameter(torch.tensor([0.5, 0.5] if "links" in settings.groups else [1.0, 0.0]))
        self.trust_apart = nn.Parameter(torch.zeros(2))
        self.trusted = torch.tensor([1.0, float("links" in settings.groups)])  # log p, posterior
        self.outside = nn.Linear(len(LIST_FEATURES), 2)  # none, elsewhere
        self.seen, self.lists_seen = _masks(settings)
        for name, size in (("own", WIDTH), ("lists", len(LIST_FEATURES))):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_spread", torch.ones(size))
        self.register_buffer("temperature", torch.tensor(1.0))
        nn.init.zeros_(self.out.weight)
        self._start_as_the_shortlister()

    own_mean: Tensor
    own_spread: Tensor
    lists_mean: Tensor
    lists_spread: Tensor
    temperature: Tensor

    def _start_as_the_shortlister(self) -> None:
        with torch.no_grad():
            self.outside.weight.zero_()
            self.outside.bias.zero_()
            for name, (weight, usual) in NONE_AT_FIRST.items():
                seen = float(self.lists_seen[LIST_FEATURES.index(name)])
                self.outside.weight[0, LIST_FEATURES.index(name)] = weight * seen
                self.outside.bias[0] -= weight * usual * seen
            self.outside.weight[1, LIST_FEATURES.index("missed_log_probability")] = 1.0

    def standardise(self, found: Listed) -> None:
        """Takes mean and spread of each feature from these lists."""
        there = found.own[found.rows >= 0]  # (candidates, X)
        for name, values in (("own", there), ("lists", found.lists)):
            getattr(self, f"{name}_mean").copy_(values.mean(0))
            spread = values.std(0, correction=0)
            getattr(self, f"{name}_spread").copy_(torch.where(spread > LITTLE, spread, 1.0))

    def contributions(self, found: Listed) -> Tensor:
        """What each of `GROUPS` adds to each candidate's logit, (B, C, G), before the temperature."""
        own = (found.own - self.own_mean) / self.own_spread * self.seen  # (B, C, X)
        lists = (found.lists - self.lists_mean) / self.lists_spread * self.lists_seen  # (B, Y)
        declares = (found.own[..., DECLARES] * self.seen[DECLARES])[..., None]  # (B, C, 1)
        apart = own * declares  # (B, C, X)
        added = torch.zeros(*found.rows.shape, len(GROUPS))  # (B, C, G)
        for group, part in self.parts.items():
            both = torch.cat([own[..., COLUMNS[group]], apart[..., COLUMNS[group]]], dim=-1)
            added[..., GROUPS.index(group)] = part(both).squeeze(-1)
        x = self.own(torch.cat([own, apart], dim=-1)) + self.lists(lists)[:, None, :]  # (B, C, H)
        added[..., -1] = self.out(self._beside(x, found)).squeeze(-1)
        trust = (self.trust + declares * self.trust_apart) * self.trusted  # (B, C, 2)
        added[..., GROUPS.index("text")] += trust.sum(-1) * found.own[..., 0]
        gained = found.own[..., [LIKELY, POSTERIOR]] - found.own[..., :1]  # (B, C, 2) what links add to the text
        added[..., GROUPS.index("links")] += (gained * trust).sum(-1)
        return added

    def _beside(self, x: Tensor, found: Listed) -> Tensor:
        """Each candidate beside the others, (B, C, H)."""
        if self.settings.together == "pointwise":
            return F.gelu(x)
        if self.settings.together == "transformer":
            absent = found.rows < 0  # (B, C); of a list without a skill all are looked at, and none counts
            seen: Tensor = self.together(x, src_key_padding_mask=absent & ~absent.all(1, keepdim=True))
            return seen
        # a BiLSTM reads in an order: that of the shortlister, whatever the list's
        order = _by_shortlister(found)[..., None].expand_as(x)
        read = self._read_in_order(x.gather(1, order), found)
        return torch.zeros_like(x).scatter(1, order, read)

    def _read_in_order(self, x: Tensor, found: Listed) -> Tensor:
        """What a BiLSTM makes of x (B, C, H), in which empty places come last and are not read."""
        sizes = (found.rows >= 0).sum(1).clamp(min=1)  # (B,)
        packed = pack_padded_sequence(x, sizes, batch_first=True, enforce_sorted=False)
        read: Tensor = pad_packed_sequence(self.together(packed)[0], batch_first=True, total_length=x.shape[1])[0]
        return read

    def forward(self, found: Listed) -> Tensor:
        """Logits of the candidates, of `none` and of `elsewhere`, (B, C + 2); softmax gives probabilities."""
        return self.logits(found, self.contributions(found))

    def logits(self, found: Listed, contributions: Tensor) -> Tensor:
        """`forward`, for who needs the contributions (B, C, G) too."""
        own = contributions.sum(-1).masked_fill(found.rows < 0, ABSENT)  # (B, C)
        logits: Tensor = torch.cat([own, self.outside(found.lists * self.lists_seen)], dim=1) / self.temperature
        return logits


def _part(features: int, H: int) -> nn.Module:
    """One group's part; it starts by adding nothing."""
    part = nn.Sequential(nn.Linear(features, H), nn.GELU(), nn.Linear(H, 1, bias=False))
    nn.init.zeros_(part[-1].weight)  # type: ignore[arg-type]
    return part


def _together(settings: RerankerSettings) -> nn.Module:
    H = settings.width
    if settings.together == "bilstm":
        return nn.LSTM(H, H // 2, batch_first=True, bidirectional=True)
    if settings.together == "pointwise":
        return nn.Identity()
    layer = nn.TransformerEncoderLayer(
        H, settings.heads, 2 * H, settings.dropout, batch_first=True, norm_first=True, activation="gelu"
    )
    return nn.TransformerEncoder(layer, settings.layers, enable_nested_tensor=False)


def _masks(settings: RerankerSettings) -> tuple[Tensor, Tensor]:
    """1 for the features that it sees: of a candidate (X,), of a list (Y,)."""
    own = torch.zeros(WIDTH)
    for group in settings.groups:
        own[COLUMNS[group]] = 1.0
    lists = torch.ones(len(LIST_FEATURES))
    for group, names in LIST_FEATURES_OF.items():
        lists[[LIST_FEATURES.index(name) for name in names]] = float(group in settings.groups)
    return own, lists


def _by_shortlister(found: Listed) -> Tensor:
    """Places (B, C) in the order of the shortlister's probabilities, equals by their rows, empty places last."""
    by_row = found.rows.argsort(dim=1)  # (B, C)
    likely = found.own[..., LIKELY].masked_fill(found.rows < 0, -torch.inf).gather(1, by_row)
    return by_row.gather(1, likely.argsort(dim=1, descending=True, stable=True))


def intended(found: Listed, targets: Tensor, none_target: int) -> Tensor:
    """Which of the C + 2 outcomes is right, (B,): the candidate, `none`, or `elsewhere`."""
    C = found.rows.shape[1]
    matches = found.rows == targets[:, None]  # (B, C)
    place = torch.where(matches.any(1), matches.float().argmax(1), C + 1)
    return torch.where(targets == none_target, C, place)


def pack(parts: Sequence[Listed]) -> Listed:
    """Several batches as one."""
    return Listed(*(torch.cat([getattr(part, name) for part in parts]) for name in ("rows", "own", "lists")))


def rerank_loss(logits: Tensor, right: Tensor, weights: Tensor) -> Tensor:
    """List-wise cross entropy: logits (B, C + 2), the right outcome (B,), how much each list counts (B,)."""
    each = F.cross_entropy(logits.float(), right, reduction="none")  # (B,)
    return (each * weights).sum() / weights.sum().clamp(min=1e-9)
