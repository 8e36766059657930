"""What a finished system does with the dev rows in every condition.

Axes: N dev rows, B batch, L linked (padded), S skills.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from msgspec import Struct
from numpy.typing import NDArray
from torch import Tensor

from model.conditions import ALONE, Conditions
from model.examples import batches, encode_rows
from model.pipeline import Corpus
from model.shortlist import Shortlist, Shortlists
from model.shortlister import Requests, Shortlister
from model.statistics import Statistics

LISTED = 30  # skills of a shortlist, as the router asks for
BINS = 20  # of an attention weight, between 0 and 1
EXAMPLES = 12  # rows whose weights are kept for the report
EXAMPLES_AT = "70"  # the condition that they are in: that of the training rows
TIMED, CHUNK, RUNS = 2_048, 256, 3  # rows of a timing, requests at once, and runs of which the best counts


class Weights(Struct, frozen=True):
    """Attention weights of all linked skills, by bin of their weight."""

    links: list[int]  # (BINS,)
    intended: list[int]  # of these, how many were the intended skill
    mass: list[float]  # the sum of their weights


class Epoch(Struct, frozen=True):
    """The statistics after an epoch of the links' fitting: what the model's own classifications look like."""

    linked: float  # share of classifications that went to a linked skill
    effective: float  # exp of the entropy of the shares: as if so many skills were chosen equally often
    top10: float  # share of the ten skills chosen most
    moved: float  # half of the sum of |share now − share before|: what changed since the last epoch


class Result(Struct, frozen=True, kw_only=True):
    """A finished cell. `ranks`: the intended skill's place on the shortlist by condition and row, from 1; 0 where
    it is not on it. A row that no skill should answer has the place of `none` among the skills."""

    ranks: dict[str, list[int]]
    weights: dict[str, Weights]
    examples: list[dict[str, float]]  # of the rows of `example_rows`: weights by skill
    epochs: list[Epoch]
    text_seconds: float
    link_seconds: float
    requests_per_s: float
    held_out_top3: float


@dataclass(frozen=True)
class Asked:
    """The dev rows as a text model reads them: the systems over it share this."""

    parts: list[tuple[NDArray[np.int64], Requests]]  # rows, and their vectors
    linked: dict[str, NDArray[np.int64]]  # by condition, (N, L)
    targets: NDArray[np.int64]  # (N,) catalogue rows, S where no skill should answer
    examples: list[int]


def ask(model: Shortlister, corpus: Corpus, conditions: Conditions) -> Asked:
    """Reads the dev rows once."""
    examples = encode_rows(conditions.texts, corpus.catalogue, corpus.vocabulary)
    with torch.inference_mode():
        parts = [(batch.rows, model.read(batch.words)) for batch in batches(examples, corpus.words, 512)]
    linked = {
        str(share): corpus.catalogue.linked_rows([row.linked or () for row in rows])
        for share, rows in conditions.rows.items()
    }
    linked[ALONE] = np.full((len(examples), 1), -1, dtype=np.int64)
    return Asked(parts, linked, examples.targets, example_rows(conditions))


def example_rows(conditions: Conditions) -> list[int]:
    """Rows for the report, evenly spread: half of them with the intended skill among at least three linked ones,
    half with three that are not intended."""
    rows = conditions.rows[int(EXAMPLES_AT)]
    many = [at for at, row in enumerate(rows) if row.skill_id is not None and len(row.linked or ()) >= 3]
    has = [at for at in many if rows[at].skill_id in (rows[at].linked or ())]
    lacks = sorted(set(many) - set(has))
    return [*_spread(has, EXAMPLES // 2), *_spread(lacks, EXAMPLES // 2)]


def _spread(rows: Sequence[int], most: int) -> list[int]:
    count = min(most, len(rows))
    return [rows[(2 * at + 1) * len(rows) // (2 * count)] for at in range(count)]


@dataclass(frozen=True)
class Measured:
    """Places, weights and the examples' weights: see `Result`."""

    ranks: dict[str, list[int]]
    weights: dict[str, Weights]
    examples: list[dict[str, float]]


@torch.inference_mode()
def measure(making: Shortlists, asked: Asked, ids: Sequence[str]) -> Measured:
    """The shortlists of all rows in all conditions; `ids` of the skills by row."""
    ranks = {condition: np.zeros(len(asked.targets), dtype=np.int64) for condition in asked.linked}
    weights = {condition: np.zeros(linked.shape) for condition, linked in asked.linked.items()}
    for rows, requests in asked.parts:
        targets = torch.from_numpy(asked.targets[rows])
        pool, pool_rows = making.pool(requests.text, LISTED)
        for condition, linked in asked.linked.items():
            links = torch.from_numpy(linked[rows])
            made = making.ranked(requests, links, pool, pool_rows, LISTED)
            ranks[condition][rows] = _places(made, targets, len(ids)).numpy()
            weights[condition][rows] = made.weights.numpy()
    return Measured(
        {condition: places.tolist() for condition, places in ranks.items()},
        {
            condition: _binned(weights[condition], linked, asked.targets)
            for condition, linked in asked.linked.items()
            if condition != ALONE
        },
        [_named(asked.linked[EXAMPLES_AT][at], weights[EXAMPLES_AT][at], ids) for at in asked.examples],
    )


def _places(made: Shortlist, targets: Tensor, skills: int) -> Tensor:
    """The place of each row's skill (B,), from 1; 0 where it is not listed."""
    hits = made.rows == targets[:, None]  # (B, C)
    place = torch.where(hits.any(1), hits.int().argmax(1) + 1, 0)
    better = (made.scores > made.none[:, None]).sum(1)
    silence = torch.where(better < LISTED, better + 1, 0)
    return torch.where(targets == skills, silence, place)


def _binned(weights: NDArray[np.float64], linked: NDArray[np.int64], targets: NDArray[np.int64]) -> Weights:
    there = linked >= 0
    found, intended = weights[there], (linked == targets[:, None])[there]
    bins = np.minimum((found * BINS).astype(np.int64), BINS - 1)
    return Weights(
        np.bincount(bins, minlength=BINS).tolist(),
        np.bincount(bins[intended], minlength=BINS).tolist(),
        np.bincount(bins, weights=found, minlength=BINS).tolist(),
    )


def _named(linked: NDArray[np.int64], weights: NDArray[np.float64], ids: Sequence[str]) -> dict[str, float]:
    return {ids[row]: round(float(weight), 4) for row, weight in zip(linked, weights, strict=True) if row >= 0}


def rate(making: Shortlists, corpus: Corpus, conditions: Conditions) -> float:
    """Requests a second, text in and shortlist out, of the dev rows at 70 % linked."""
    rows = sorted(conditions.rows[int(EXAMPLES_AT)][:TIMED], key=lambda row: len(row.text))
    parts = [rows[at : at + CHUNK] for at in range(0, len(rows), CHUNK)]

    def seconds() -> float:
        started = time.perf_counter()
        for part in parts:
            words = corpus.words.batch(corpus.vocabulary.encode([row.text for row in part]))
            linked = corpus.catalogue.linked_rows([row.linked or () for row in part])
            making.make(words, torch.from_numpy(linked), LISTED)
        return time.perf_counter() - started

    return len(rows) / min(seconds() for _ in range(RUNS))


def epochs_of(history: Sequence[Statistics], ids: Sequence[str]) -> list[Epoch]:
    """What the statistics of each epoch look like."""
    shares = [statistics.share_chosen(ids).astype(np.float64) for statistics in history]  # (S,) each
    moved = [0.0, *(float(np.abs(now - before).sum() / 2) for before, now in pairwise(shares))]
    return [_epoch(*each) for each in zip(history, shares, moved, strict=True)]


def _epoch(statistics: Statistics, shares: NDArray[np.float64], moved: float) -> Epoch:
    every = statistics.skills.values()
    linked, unlinked = (
        sum(both.linked.chosen for both in every),
        sum(both.unlinked.chosen for both in every),
    )
    some = shares[shares > 0]
    return Epoch(
        linked=linked / max(1, linked + unlinked),
        effective=float(np.exp(-(some * np.log(some)).sum())) if len(some) else 0.0,
        top10=float(np.sort(shares)[-10:].sum()),
        moved=moved,
    )
