"""The shortlist: the best skills of each request, by an index over the skills and exactly for the linked ones.

Axes: B batch, L linked (padded), C candidates, P pool, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model.encoder import Words
from model.index import Index, Kind
from model.shortlister import NEVER, POOL, Linked, Requests, Shortlister

BLOCK = 1024  # skills whose vectors are made in one product: 2 ms when one of them changes


@dataclass(frozen=True)
class Shortlist:
    """A batch of shortlists, best first. A row of -1 is no skill: the list is longer than the catalogue."""

    rows: Tensor  # (B, C) catalogue rows
    scores: Tensor  # (B, C) with what links add
    text: Tensor  # (B, C) without
    none: Tensor  # (B,) the score of `none`
    total: Tensor  # (B,) log of the sum of exponentials over the pool, the linked skills and `none`
    text_total: Tensor  # (B,) the same without what links add
    linked: Tensor  # (B, C)
    attention: Tensor  # (B, C) weights; 0 where not linked
    weights: Tensor  # (B, L) weights of all linked skills, on the list or not
    request: Tensor  # (B, D) unit vectors of the requests' texts
    bag: Tensor  # (B, E) unit bags of the requests' words


class Shortlists:
    """Makes shortlists with a shortlister that no longer changes.

    The text finds a pool of skills through the index; each linked skill is scored exactly and joins it.
    """

    def __init__(self, model: Shortlister, index: Index | None = None, kind: Kind | None = None) -> None:
        """`index` of the model's keys where there is one, else of `kind`; None: the fastest on this machine."""
        self.model = model
        with torch.no_grad():  # not inference mode, whose tensors could not change when a skill joins or leaves
            blocks = [self._block(at) for at in range(0, len(model.rows), BLOCK)]
            self.vectors = torch.cat([*blocks, F.normalize(model.none_row, dim=-1)])  # (S + 1, D)
            self.index = index or Index(model.keys(self.vectors), kind)

    @torch.no_grad()
    def put(self, rows: Sequence[int]) -> None:
        """Takes over the model's rows that joined, changed or left; nobody else's score changes by a bit."""
        if joined := len(self.model.rows) + 1 - len(self.vectors):
            self.vectors = torch.cat(
                [F.pad(self.vectors[:-1], (0, 0, 0, joined)), self.vectors[-1:]]
            )  # (S + 1, D)
        priors = self.model.priors()  # (S + 1,)
        for start in sorted({row // BLOCK * BLOCK for row in rows}):
            block = self._block(start)
            for row in sorted(row for row in set(rows) if start <= row < start + BLOCK):
                self.vectors[row] = block[row - start]
                self.index.put(row, torch.cat([block[row - start], priors[row : row + 1]]))

    def _block(self, start: int) -> Tensor:
        """Unit vectors of the skills from row `start` on, (up to BLOCK, D).

        The product is as high whatever S is: what a BLAS makes of a row may change with the height of its matrix.
        """
        rows, cards = (part[start : start + BLOCK] for part in (self.model.rows, self.model.cards))
        read = self.model.read_card(F.pad(cards, (0, 0, 0, BLOCK - len(cards))))  # (BLOCK, D)
        return F.normalize(rows + read[: len(rows)], dim=-1)

    @torch.inference_mode()
    def make(self, words: Words, linked: Tensor, count: int) -> Shortlist:
        """The first `count` skills of each request; `linked` (B, L) rows of linked skills, -1 at padding."""
        requests = self.model.read(words)
        pool, rows = self.pool(requests.text, count)
        return self.ranked(requests, linked, pool, rows, count)

    def pool(self, request: Tensor, count: int = POOL) -> tuple[Tensor, Tensor]:
        """Scores and rows of the skills that the text alone puts first, (B, P) each, for unit requests (B, D)."""
        found: tuple[Tensor, Tensor] = self.index.search(self.model.queries(request), max(count, POOL))
        return found

    def ranked(self, requests: Requests, linked: Tensor, pool: Tensor, rows: Tensor, count: int) -> Shortlist:
        """Pool (B, P) and linked skills (B, L) as one list of `count`."""
        model = self.model
        none = self._none(requests.text)  # (B, 1)
        found = model.link(requests.text, linked, self.vectors, rows[:, :POOL], pool[:, :POOL], none)
        if model.settings.summary:
            pool, rows = self.pool(found.request, count)
            none = self._none(found.request)
        return _merged(requests, found, linked, pool, rows, none, count)

    def _none(self, request: Tensor) -> Tensor:
        return self.model.scale.exp() * (request @ self.vectors[-1:].T)  # (B, 1)


def _merged(
    requests: Requests, found: Linked, linked: Tensor, pool: Tensor, rows: Tensor, none: Tensor, count: int
) -> Shortlist:
    among = (rows[:, :, None] == linked[:, None, :]).any(-1)  # (B, P): the linked ones come by themselves
    absent = linked < 0  # (B, L)
    text = torch.cat([pool.masked_fill(among, 2 * NEVER), found.text.masked_fill(absent, 2 * NEVER)], dim=1)
    scores = text + F.pad(found.added, (pool.shape[1], 0))  # (B, P + L)
    every = torch.cat([rows, linked], dim=1)  # (B, P + L)
    weights = F.pad(found.weights, (pool.shape[1], 0))
    best, places = scores.topk(min(count, scores.shape[1]), dim=1)  # (B, C)
    there = best > NEVER / 2  # no padding, no removed skill, no second mention of a linked one
    return Shortlist(
        rows=every.gather(1, places).masked_fill(~there, -1),
        scores=best,
        text=text.gather(1, places),
        none=none.squeeze(1),
        total=torch.logsumexp(torch.cat([scores, none], dim=1), dim=1),
        text_total=torch.logsumexp(torch.cat([text, none], dim=1), dim=1),
        linked=(places >= pool.shape[1]) & there,
        attention=weights.gather(1, places),
        weights=found.weights,
        request=requests.text,
        bag=requests.bag,
    )
