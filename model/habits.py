"""Habits: what a link, and the lack of one, says of each skill, by the distribution statistics.

Whether customers ask for a skill through a link depends on what it is for: a ride nearly always, a fact about cats
rarely. With s = P(linked | meant) and b = P(linked | not meant) Bayes' rule adds log(s / b) to a linked skill, and
log((1 - s) / (1 - b)) to one that is not: where people link what they use, a missing link tells against a skill.
Both come from the statistics' counts: put first, first with a link, and passed by. A skill that was rarely first
borrows the habit of its neighbours.

Axes: S skills, A anchors, D width, B batch, C candidates.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.statistics import Statistics

ANCHORS = 1_024  # skills that others borrow from: those chosen most; bounds the work at 50,000 skills
NARROW = 15.0  # how fast a neighbour's say falls with its cosine; 8 to 40 were tried, on dev
BORROWED = 4.0  # choices that the neighbours' habit counts for
PRIOR = 0.7  # share of requests that come through a link where nothing is known
LEAST, MOST = 0.02, 0.98  # a habit is never certain


class Habits(nn.Module):
    """The two log-odds of each skill, (S, 2): what a link adds, and what its absence adds."""

    def __init__(self, skills: int, anchors: int, width: int) -> None:
        super().__init__()
        self.register_buffer("odds", torch.zeros(skills, 2))
        self.register_buffer("anchors", torch.zeros(anchors, width))  # (A, D)
        self.register_buffer("counts", torch.zeros(anchors, 2))  # (A, 2) chosen, and with a link
        self.register_buffer("decisions", torch.zeros((), dtype=torch.float64))

    odds: Tensor
    anchors: Tensor
    counts: Tensor
    decisions: Tensor

    @classmethod
    def of(cls, statistics: Statistics, ids: list[str], vectors: Tensor) -> "Habits":
        """`ids` of the skills by row; `vectors` (S, D) unit."""
        counts = torch.from_numpy(statistics.link_counts(ids))  # (S, 3)
        chosen = counts[:, 0]
        anchors = chosen.topk(min(ANCHORS, len(chosen))).indices  # (A,)
        made = cls(len(ids), len(anchors), vectors.shape[1])
        made.decisions.fill_(statistics.decisions)
        made.anchors.copy_(vectors[anchors])
        made.counts.copy_(counts[anchors, :2])
        own = torch.zeros(len(vectors), len(anchors), dtype=torch.bool)  # (S, A)
        own[anchors, torch.arange(len(anchors))] = True
        made.odds.copy_(made._odds(vectors, counts, own))
        return made

    def put(self, row: int, vector: Tensor, source: int = -1) -> None:
        """A skill that joins at `row` with vector (D,) borrows all; one that comes back has what `source` has."""
        self.odds = F.pad(self.odds, (0, 0, 0, max(0, row + 1 - len(self.odds))))
        if source >= 0:
            self.odds[row] = self.odds[source]
            return
        own = torch.zeros(1, len(self.anchors), dtype=torch.bool)
        self.odds[row] = self._odds(vector[None], torch.zeros(1, 3, dtype=torch.float64), own)[0]

    def say(self, rows: Tensor, linked: Tensor, any_link: Tensor) -> Tensor:
        """What links say of candidates (B, C), of which `linked` (B, C) are; 0 where a customer, of `any_link`
        (B,), has linked nothing at all: who has no links says nothing by lacking one."""
        both = self.odds[rows]  # (B, C, 2)
        return torch.where(linked, both[..., 0], both[..., 1]) * any_link[:, None]

    def _odds(self, vectors: Tensor, counts: Tensor, own: Tensor) -> Tensor:
        """Of skills with vectors (S, D) and counts (S, 3) that do not borrow from anchors `own` (S, A), (S, 2)."""
        chosen, linked, passed = counts.T  # (S,) each
        near = torch.exp(NARROW * (vectors @ self.anchors.T - 1)).masked_fill(own, 0.0)  # (S, A)
        theirs, through = (near @ self.counts).T  # (S,) each
        borrowed = (through + PRIOR * 1e-3) / (theirs + 1e-3)
        share = ((linked + BORROWED * borrowed) / (chosen + BORROWED)).clamp(LEAST, MOST)  # (S,)
        common = ((passed + 0.5) / (self.decisions - chosen + 1).clamp(min=1)).clamp(max=MOST)  # (S,)
        return torch.stack([(share / common).log(), ((1 - share) / (1 - common)).log()], dim=-1).float()
