"""A second reader: how the requests of a skill are worded, judged among the candidates of one shortlist.

The shortlister sees requests and skills as points and ranks all of them; which of two near-equal skills has its
requests worded so is lost there. Here each pair of a skill and a word, or two words that follow each other, has a
weight; a candidate's score is the mean over the request's. The weights are taught on shortlists, list-wise, by the
requests that the shortlister learned from. A skill that joined later has no weights: its score is 0, and nobody
else's changes.

On the requests of the schema-guided services, with none of a family linked, the shortlist's own error falls by a
tenth with this alone, by a tenth with the readings of `model.readings` alone, and by 18 % with both.

Axes: B batch, C candidates, G words and pairs of a request (padded), H weights.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import numpy as np
import torch
from msgspec import Struct
from torch import Tensor

from model.text import tokens

MOST_WORDS = 32
TOGETHER = 64  # requests that are worked on at once
_MIX = 0x9E3779B97F4A7C15 - (1 << 64)  # 2⁶⁴ over the golden ratio: multiplicative hashing
_APART = 4_294_967_311  # a prime above every CRC-32, so that no two pairs of n-gram and row are one before hashing


class WordingSettings(Struct, frozen=True, kw_only=True):
    """`bits`: 2^bits weights, shared by chance where there are more pairs. The others are of the teaching."""

    bits: int = 22
    epochs: int = 4
    batch: int = 256
    rate: float = 0.5
    decay: float = 1e-6
    seed: int = 0


@dataclass(frozen=True)
class Worded:
    """A batch of requests as hashed words and pairs of words."""

    grams: Tensor  # (B, G)
    shares: Tensor  # (B, G) 1 / √count, 0 at padding

    def take(self, rows: Tensor) -> "Worded":
        """The requests at `rows`, cut to the longest of them."""
        shares = self.shares[rows]
        longest = int((shares > 0).sum(1).max())
        return Worded(self.grams[rows, :longest], shares[:, :longest])


def worded(texts: Sequence[str]) -> Worded:
    """Texts as words and pairs; beginning and end are words too."""
    found = [_grams(text) for text in texts]
    counts = np.fromiter(map(len, found), np.int64, len(found))  # (B,)
    there = np.arange(max(1, counts.max(initial=1))) < counts[:, None]  # (B, G)
    grams = np.zeros(there.shape, np.int64)
    grams[there] = np.fromiter(chain.from_iterable(found), np.int64, counts.sum())
    shares = (there * np.maximum(1, counts)[:, None] ** -0.5).astype(np.float32)
    return Worded(torch.from_numpy(grams), torch.from_numpy(shares))


def _grams(text: str) -> list[int]:
    words = tokens(text)[:MOST_WORDS]
    if not words:
        return []
    pairs = zip(["<", *words], [*words, ">"], strict=True)
    return [*map(_hash, words), *(_hash(f"{first} {second}") for first, second in pairs)]


@lru_cache(maxsize=262_144)
def _hash(gram: str) -> int:
    """CRC-32: equal on every machine and in every process."""
    return zlib.crc32(gram.encode())


class Wording:
    """The weights, (H,), by the rows that the skills had when it was taught."""

    def __init__(self, weights: Tensor) -> None:
        """Raises ValueError where the number of weights is no power of two."""
        bits = len(weights).bit_length() - 1
        if len(weights) != 1 << bits or bits < 1:
            raise ValueError(f"{len(weights)} weights are no power of two")
        self.weights = weights
        self._bits = bits

    def scores(self, requests: Worded, rows: Tensor) -> Tensor:
        """Of candidates by their rows (B, C), (B, C); 0 at -1, a skill that it was not taught."""
        found = torch.empty(rows.shape)
        for at in by_length((requests.shares > 0).sum(1)):
            part = requests.take(at)
            found[at] = self._weigh(self._places(part, rows[at]), part)
        return found.masked_fill(rows < 0, 0.0)

    def _places(self, requests: Worded, rows: Tensor) -> Tensor:
        """Which weight each pair of a gram and a candidate has, (B, G, C)."""
        keys = (requests.grams[:, :, None] + (rows[:, None, :] + 1) * _APART) * _MIX  # (B, G, C), wraps around
        return (keys >> (64 - self._bits)) & ((1 << self._bits) - 1)

    def _weigh(self, places: Tensor, requests: Worded) -> Tensor:
        # a sum over the middle axis adds one gram after the other, so padding changes no bit
        return (self.weights.take(places) * requests.shares[:, :, None]).sum(1)  # (B, C)


def by_length(lengths: Tensor) -> tuple[Tensor, ...]:
    """Places of requests of near-equal length together, some at a time: most of a mixed batch is padding."""
    return lengths.argsort(stable=True).split(TOGETHER)  # type: ignore[no-any-return, no-untyped-call]


def teach(requests: Worded, rows: Tensor, right: Tensor, settings: WordingSettings) -> Wording:
    """Weights by which shortlists `rows` (N, C) put the candidate at place `right` (N,) first; -1: not there.

    List-wise cross entropy, AdaGrad (Duchi et al. 2011) on the weights that a batch touches.
    """
    wording = Wording(torch.zeros(1 << settings.bits))
    squares = torch.full_like(wording.weights, 1e-2)
    generator = torch.Generator().manual_seed(settings.seed)
    there = (right >= 0).nonzero().flatten()
    for _ in range(settings.epochs):
        order = there[torch.randperm(len(there), generator=generator)]
        for at in range(0, len(order), settings.batch):
            batch = order[at : at + settings.batch]
            _step(wording, squares, requests.take(batch), rows[batch], right[batch], settings)
    return wording


def _step(
    wording: Wording, squares: Tensor, requests: Worded, rows: Tensor, right: Tensor, settings: WordingSettings
) -> None:
    """One step of AdaGrad, in place."""
    places = wording._places(requests, rows)  # (B, G, C)
    scores = wording._weigh(places, requests).masked_fill(rows < 0, -torch.inf)  # (B, C)
    slope = torch.softmax(scores, dim=1)
    slope[torch.arange(len(right)), right] -= 1  # (B, C) of the loss
    each = slope[:, None, :] * requests.shares[:, :, None]  # (B, G, C)
    touched, back = torch.unique(places, return_inverse=True)
    gradient = torch.zeros(len(touched)).index_add_(0, back.flatten(), each.flatten())
    gradient += settings.decay * wording.weights[touched]
    squares[touched] += gradient**2
    wording.weights[touched] -= settings.rate * gradient / squares[touched].sqrt()
