"""Exemplars: vectors of a few requests that each skill was asked with, beside which a new request is laid.

A skill's one vector is the mean of all that it answers; the nearest of its own requests can be much nearer. For a
skill with one phrase it is all there is. Only vectors are kept, no text.

Axes: S skills, K exemplars of a skill, P exemplars in all, D width, B batch, C candidates.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.index_kinds import products

MOST = 8  # of a skill: bounds memory and time; other bounds were not compared
ABSENT = -1.0  # similarity where a skill has none


class Exemplars(nn.Module):
    """Up to K vectors of each skill, by its row."""

    def __init__(self, count: int, skills: int, width: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(count, width))  # (P, D) unit
        self.register_buffer("index", torch.full((skills, MOST), -1, dtype=torch.long))  # (S, K)
        self._free: list[int] = []  # places in `vectors` that nobody has any more

    vectors: Tensor
    index: Tensor

    @classmethod
    def of(cls, vectors: Tensor, targets: Tensor, skills: int, seed: int) -> "Exemplars":
        """Of requests' unit vectors (N, D) that mean the skills at `targets` (N,); others than 0 to S are none.

        Of a skill with more than K requests these are a seeded choice.
        """
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
        order = order[(targets[order] >= 0) & (targets[order] < skills)]
        order = order[targets[order].argsort(stable=True)]
        rows = targets[order]
        first = torch.searchsorted(rows, rows)  # where each request's skill begins
        place = torch.arange(len(rows)) - first
        kept = place < MOST
        made = cls(int(kept.sum()), skills, vectors.shape[1])
        made.vectors.copy_(vectors[order[kept]])
        made.index[rows[kept], place[kept]] = torch.arange(len(made.vectors))
        return made

    def put(self, row: int, vectors: Tensor, source: int = -1) -> None:
        """The skill at `row` has these from now on, (phrases, D); one that comes back has what `source` has."""
        self.index = F.pad(self.index, (0, 0, 0, max(0, row + 1 - len(self.index))), value=-1)
        if source >= 0:
            self.index[row] = self.index[source]
            return
        vectors = vectors[:MOST]
        self._free += self.index[row][self.index[row] >= 0].tolist()  # who joined shares places with nobody
        more = max(0, len(vectors) - len(self._free))
        places = [self._free.pop() for _ in range(len(vectors) - more)]
        places += range(len(self.vectors), len(self.vectors) + more)
        self.vectors = F.pad(self.vectors, (0, 0, 0, more)) if more else self.vectors
        self.vectors[places] = vectors
        self.index[row] = torch.tensor(places + [-1] * (MOST - len(places)))

    def nearest(self, request: Tensor, rows: Tensor) -> Tensor:
        """Cosine of unit requests (B, D) and the nearest exemplar of each candidate (B, C), (B, C)."""
        index = self.index[rows]  # (B, C, K)
        each = products(request, self.vectors, index.clamp(min=0).flatten(1)).view(index.shape)  # (B, C, K)
        found: Tensor = each.masked_fill(index < 0, ABSENT).amax(-1)
        return found
