"""The shortlist's search: which rows of the catalogue have the highest product with a request.

Axes: B batch, S skills (rows of the index), K width of a key, C rows wanted.
"""

import logging
import time
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from model.index_kinds import Compressed, Dense, Rows
from model.shortlister import NEVER
from topics.errors import UsageError

Kind = Literal["float32", "bfloat16", "pq"]

EXACT_BELOW = 8192  # skills; a small catalogue's choices are then the same on every machine
KEPT = 0.995  # the share of the exact best three that a kind has to keep
CHUNK = 256  # requests searched at once: bounds memory at chunk × skills
FEWEST = 1024  # skills that a codebook of the compressed kind can be learned from

# requests to measure with
WANTED = 64  # rows of each: a long shortlist
FEW = 16  # requests that tell a kind slower than half of float32; others search CHUNK
RUNS, ENOUGH_S = 5, 0.15  # the fastest of so many runs counts, of fewer once they have taken so long
NOISE = 0.4, 1.8  # least and most, beside a key of length 1: cosines from 0.93, a clear request, to 0.49
SHARPNESS = 25.0  # the scale of cosines of a trained model

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """What one kind did with requests made up for measuring."""

    finder: Dense | Compressed
    per_s: float  # requests a second
    rows: Tensor  # (B, C) that it found


class Index:
    """Keys to search, with rows that join and leave.

    `keys` (S, K) float32: the last number of a key is its prior, added to its score as it is; that of a request
    is 1. A row whose prior is NEVER or less is absent: it has a number, but is never found. All sizes are
    assumed to be far below NEVER.

    Kinds: `float32` and `bfloat16` give the exact answer, one fast everywhere, one on processors that have
    instructions for it; `pq` compresses the keys and may miss a row. Without `kind` the fastest on this machine
    is taken, below EXACT_BELOW rows of the exact ones only.
    """

    def __init__(self, keys: Tensor, kind: Kind | None = None) -> None:
        self._rows = Rows(keys.detach())
        self.kind: Kind
        if kind is None:
            self.kind, self._finder = _fastest(self._rows)
        elif kind == "pq" and self._rows.living < FEWEST:
            raise UsageError(f"an index of kind pq needs {FEWEST} skills and got {self._rows.living}: use float32")
        else:
            self.kind, self._finder = kind, _finder(kind, self._rows)

    def search(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The best rows of each request (B, K): scores (B, C) float32 and rows (B, C) int64, best first.

        C is `count`, or the number of rows that are there where these are fewer. Equal scores stand by the
        lower row. A score depends on its request and its key alone, to the bit.
        """
        count = min(count, self._rows.living)
        if not count or not len(queries):
            return torch.empty(len(queries), count), torch.empty(len(queries), count, dtype=torch.long)
        found = [self._finder.search(part, count) for part in torch.split(queries.detach(), CHUNK)]
        scores, rows = zip(*found, strict=True)
        return torch.cat(scores), torch.cat(rows)

    def put(self, row: int, key: Tensor) -> None:
        """A new or changed skill: `row` is one of the index, or S to append; `key` is (K,)."""
        if not 0 <= row <= self._rows.height:
            raise UsageError(f"row {row} is not in the index of {self._rows.height} rows, nor the next one")
        self._rows.put(row, key.detach())
        self._finder.put(row)

    def remove(self, row: int) -> None:
        """The row is absent from now on; `put` gives it to another skill."""
        if not 0 <= row < self._rows.height:
            raise UsageError(f"row {row} is not in the index of {self._rows.height} rows")
        self.put(row, torch.full((self._rows.keys.shape[1],), NEVER))


def _finder(kind: Kind, rows: Rows) -> Dense | Compressed:
    return Compressed(rows) if kind == "pq" else Dense(rows, getattr(torch, kind))


def _fastest(rows: Rows) -> tuple[Kind, Dense | Compressed]:
    """Lets each kind that is allowed search the same requests, and logs what was found."""
    if not rows.living:
        return "float32", Dense(rows, torch.float32)
    queries = _requests(rows)
    measured: dict[Kind, Measured] = {"float32": _measure(Dense(rows, torch.float32), queries)}
    reference = measured["float32"]
    recall: dict[Kind, float] = {"float32": 1.0}
    for kind in get_args(Kind)[1:]:
        if kind != "pq" or (rows.height >= EXACT_BELOW and rows.living >= FEWEST):
            measured[kind] = _measure(_finder(kind, rows), queries, reference.per_s / 2)
            recall[kind] = _recall(measured[kind].rows, reference.rows)
    best = max((kind for kind in recall if recall[kind] >= KEPT), key=lambda kind: measured[kind].per_s)
    told = (f"{kind} {measured[kind].per_s:,.0f} requests/s, recall {recall[kind]:.4f}" for kind in recall)
    log.info("index of %d skills: %s (%s)", rows.living, best, "; ".join(told))
    return best, measured[best].finder


def _requests(rows: Rows) -> Tensor:
    """Made-up requests to measure with, (CHUNK, K): some rows' keys with noise, from little to much, seeded."""
    random = torch.Generator().manual_seed(7)
    there = rows.there().nonzero().flatten()
    keys = rows.keys[there[torch.randint(len(there), (CHUNK,), generator=random)], :-1]  # (B, K - 1)
    noise = F.normalize(torch.randn(keys.shape, generator=random), dim=1)
    directions = F.normalize(keys, dim=1) + torch.linspace(*NOISE, CHUNK)[:, None] * noise
    return F.pad(SHARPNESS * F.normalize(directions, dim=1), (0, 1), value=1.0)


def _measure(finder: Dense | Compressed, queries: Tensor, least_per_s: float = 0.0) -> Measured:
    """Searches for the requests; for a few of them only where these show less than `least_per_s`."""
    _search(finder, queries[:FEW])  # what is made at first use is made here
    glance = _best_run(finder, queries[:FEW])
    return glance if glance.per_s < least_per_s else _best_run(finder, queries)


def _best_run(finder: Dense | Compressed, queries: Tensor) -> Measured:
    """The fastest of some: others may use the machine just now."""
    found: list[Measured] = []
    spent_s = 0.0
    while len(found) < RUNS and spent_s < ENOUGH_S:
        start = time.perf_counter()
        rows = _search(finder, queries)
        taken_s = time.perf_counter() - start
        found.append(Measured(finder, len(queries) / taken_s, rows))
        spent_s += taken_s
    return max(found, key=lambda run: run.per_s)


def _search(finder: Dense | Compressed, queries: Tensor) -> Tensor:
    return finder.search(queries, min(WANTED, finder.rows.living))[1]


def _recall(rows: Tensor, exact: Tensor) -> float:
    """The share of the first three of `exact` that are in `rows`."""
    return float((exact[: len(rows), :3, None] == rows[:, None]).any(2).double().mean())
