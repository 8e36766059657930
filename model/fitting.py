"""The reranker, fitted on rows whose texts the shortlister never met: on shortlists as it really makes them.

Axes: N rows, B batch, C candidates, L linked (padded).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from msgspec import Struct
from numpy.typing import NDArray
from torch import Tensor

from model.encoder import WordBatches
from model.evidence import Evidence
from model.examples import Examples, batches, random_links
from model.reranker import Listed, Reranker, RerankerSettings, intended, pack, rerank_loss
from model.shortlist import Shortlists


class FittingSettings(Struct, frozen=True, kw_only=True):
    """How the reranker is fitted.

    Each held-out row is a list in several worlds: with its own linked skills, with those of some other row in
    `random_links` of the rows, and with none at all (weighed by `alone`): a link is evidence and never a command.
    Where a row means a skill of a family of rivals (`model.rivals`), also with none and with all of the family
    linked (by `rivals`): then nothing but the request tells which is meant.

    `rare`: a row of a skill that the shortlister was taught k rows of counts 1 + rare / k times. Phrases of a rare
    skill are few because somebody wrote few, not because few ask for it. A skill of which no row was taught counts
    nothing: what is asked for in serving has a phrase at least. `none`: how much a row counts that no skill should
    answer.
    """

    seed: int = 0
    random_links: float = 0.25
    alone: float = 0.25
    rivals: float = 4.0
    rare: float = 14.0
    none: float = 8.0
    epochs: int = 6
    batch: int = 256
    rate: float = 3e-3
    weight_decay: float = 0.5
    folds: int = 3  # of the held-out rows, each judged by the others to find the temperature


@dataclass(frozen=True)
class Taught:
    """Lists with their right outcomes, and how much each counts."""

    listed: Listed
    right: Tensor  # (N,)
    weights: Tensor  # (N,)
    rows: Tensor  # (N,) which held-out row each is a list of


def joined(parts: Sequence[Taught]) -> Taught:
    """All of them, one after the other."""
    tensors = (torch.cat([getattr(part, name) for part in parts]) for name in ("right", "weights", "rows"))
    return Taught(pack([part.listed for part in parts]), *tensors)


def taught(
    making: Shortlists,
    evidence: Evidence,
    words: WordBatches,
    texts: Sequence[str],
    examples: Examples,
    known: NDArray[np.int64],
    rivals: Mapping[int, tuple[int, ...]],
    count: int,
    settings: FittingSettings,
) -> Taught:
    """The held-out rows in each world, one world after the other.

    `known` (S,): how many rows of each skill the shortlister was taught. `rivals`: of a skill that belongs to a
    family, the family.
    """
    base = _weights(examples, known, settings)  # (N,)
    parts = []
    for rows, linked, share in _worlds(examples, rivals, settings):
        found, right = listed(
            making, evidence, words, [texts[row] for row in rows], examples.take(rows), linked, count
        )
        at = torch.from_numpy(rows)
        parts.append(Taught(found, right, base[at] * share, at))
    return joined(parts)


World = tuple[NDArray[np.int64], NDArray[np.int64], float]  # rows (W,), their linked sets (W, L), what they count


def _worlds(examples: Examples, rivals: Mapping[int, tuple[int, ...]], settings: FittingSettings) -> list[World]:
    every = np.arange(len(examples))
    found: list[World] = [
        (every, random_links(examples, 0.0, np.random.default_rng(settings.seed)), 1.0),
        (every, random_links(examples, settings.random_links, np.random.default_rng(settings.seed)), 1.0),
        (every, np.full_like(examples.linked, -1), settings.alone),
    ]
    of_families = np.asarray([at for at in every if int(examples.targets[at]) in rivals], dtype=np.int64)
    if len(of_families):
        links = (_family_links(examples, of_families, rivals, all_linked) for all_linked in (False, True))
        found += [(of_families, linked, settings.rivals) for linked in links]
    return [world for world in found if world[2] > 0]


def _family_links(
    examples: Examples, rows: NDArray[np.int64], rivals: Mapping[int, tuple[int, ...]], all_linked: bool
) -> NDArray[np.int64]:
    """The linked sets of `rows` (W,) with none or all of the meant skill's family, (W, L)."""
    sets = []
    for row in rows:
        family = rivals[int(examples.targets[row])]
        others = [skill for skill in examples.linked[row].tolist() if skill >= 0 and skill not in family]
        sets.append(sorted([*others, *(family if all_linked else ())]))
    found = np.full((len(sets), max(1, max(map(len, sets)))), -1, dtype=np.int64)
    for at, one in enumerate(sets):
        found[at, : len(one)] = one
    return found


def _weights(examples: Examples, known: NDArray[np.int64], settings: FittingSettings) -> Tensor:
    """How much each row counts, (N,)."""
    none = len(known)
    counts = np.append(known, 1)[np.minimum(examples.targets, none)]  # (N,)
    found = np.where(counts > 0, 1 + settings.rare / np.maximum(counts, 1), 0.0)
    found = np.where(examples.targets == none, settings.none, found) * examples.weights
    if not found.any():
        found = np.ones_like(found)
    return torch.from_numpy(found).float()


@torch.no_grad()
def listed(
    making: Shortlists,
    evidence: Evidence,
    words: WordBatches,
    texts: Sequence[str],
    examples: Examples,
    linked: NDArray[np.int64],
    count: int,
) -> tuple[Listed, Tensor]:
    """The shortlists of `examples` in their order, and which outcome is right for each, (N,)."""
    parts, right, order = [], [], []
    none = len(making.model.rows)
    for batch in batches(examples, words, 512, linked):
        made = making.make(batch.words, batch.linked, count)
        part = evidence.hypotheses(made, batch.words, [texts[row] for row in batch.rows], batch.linked)
        parts.append(Listed(part.rows, part.own, part.lists))
        right.append(intended(part, batch.targets, none))
        order.append(torch.from_numpy(batch.rows))
    back = torch.cat(order).argsort()
    return pack(parts).take(back), torch.cat(right)[back]


def fit_reranker(found: Taught, shape: RerankerSettings, settings: FittingSettings, rows: int) -> Reranker:
    """A reranker for the lists of `rows` rows in all their worlds.

    Its temperature is the best for what networks fitted on the other folds say of each fold's rows (temperature
    scaling, Guo et al. 2017).
    """
    every = torch.arange(len(found.right))
    network = _fitted(found, every, shape, settings)
    folds = min(settings.folds, rows)
    if folds < 2:  # nobody is left to judge by
        return network
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(settings.seed))
    fold_of = torch.empty(rows, dtype=torch.long)
    fold_of[order] = torch.arange(rows) % folds
    fold = fold_of[found.rows]  # (N,): a row is in one fold in all of its worlds
    logits = torch.zeros(len(found.right), found.listed.rows.shape[1] + 2)
    for k in range(folds):
        logits[fold == k] = _logits(_fitted(found, every[fold != k], shape, settings), found, every[fold == k])
    network.temperature.copy_(_temperature(logits, found))
    return network


def _fitted(found: Taught, rows: Tensor, shape: RerankerSettings, settings: FittingSettings) -> Reranker:
    """A network trained on the lists at `rows`; equal seeds give equal weights."""
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    network = Reranker(shape)
    network.standardise(found.listed.take(rows))
    rows = rows[found.weights[rows] > 0]
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=settings.weight_decay)
    steps = settings.epochs * max(1, -(-len(rows) // settings.batch))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.rate, total_steps=steps + 1)
    for _ in range(settings.epochs):
        for at in rows[torch.randperm(len(rows), generator=generator)].split(settings.batch):  # type: ignore[no-untyped-call]
            optimiser.zero_grad()
            rerank_loss(network(found.listed.take(at)), found.right[at], found.weights[at]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def _logits(network: Reranker, found: Taught, rows: Tensor) -> Tensor:
    """What it says of the lists at `rows`, (rows, C + 2)."""
    return torch.cat([network(found.listed.take(part)) for part in rows.split(4096)])  # type: ignore[no-untyped-call]


def _temperature(logits: Tensor, found: Taught) -> Tensor:
    """The one of least loss on a grid, for logits (N, C + 2)."""
    grid = torch.linspace(0.5, 3.0, 101)
    losses = torch.stack([rerank_loss(logits / t, found.right, found.weights) for t in grid])
    return grid[losses.argmin()]
