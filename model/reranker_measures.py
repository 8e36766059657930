"""What rerankers decide of the same rows' shortlists, and how good that is.

Axes: N rows, B batch, C candidates, S skills, L linked (padded), P popular skills.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from msgspec import Struct
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.data import Row
from model.evidence import Evidence
from model.examples import Batch, batches, encode_rows
from model.pipeline import Corpus
from model.rankings import DECIMALS
from model.reranker import LIKELY, NONE, Listed, Reranker, pack
from model.shortlist import Shortlist, Shortlists

BINS = 15  # of a probability, between 0 and 1
FALSE_NONE = 0.02  # share of the rows that mean a skill, of which `none` may be said
SHORTLIST = "shortlist"  # the system that is the first network alone
NOBODY = -1  # the row of no skill
CHUNK = 4096  # rows that a network sees at once

Change = Callable[[Shortlist, Batch], Shortlist]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Asked:
    """The lists of N rows, and what each row means: `targets` (N,), NOBODY where no skill should answer."""

    listed: Listed
    targets: NDArray[np.int64]


@torch.inference_mode()
def ask_all(
    making: Shortlists,
    evidence: Evidence,
    corpus: Corpus,
    rows: Sequence[Row],
    count: int,
    change: Change = lambda made, batch: made,
) -> Asked:
    """The lists of `count` candidates of all rows, in their order; `change` is made to them before anything else
    is found out about the candidates."""
    examples = encode_rows(rows, corpus.catalogue, corpus.vocabulary)
    parts, order = [], []
    for batch in batches(examples, corpus.words, 512):
        made = change(making.make(batch.words, batch.linked, count), batch)
        found = evidence.hypotheses(made, batch.words, [rows[at].text for at in batch.rows], batch.linked)
        parts.append(Listed(found.rows, found.own, found.lists))
        order.append(torch.from_numpy(batch.rows))
    targets = np.where(examples.targets == len(corpus.catalogue), NOBODY, examples.targets)
    return Asked(pack(parts).take(torch.cat(order).argsort()), targets)


def shuffling(seed: int) -> Change:
    """Lists in a seeded random order."""
    generator = torch.Generator().manual_seed(seed)

    def shuffled(made: Shortlist, _: Batch) -> Shortlist:
        order = torch.rand(made.rows.shape, generator=generator).argsort(1)  # (B, C)
        names = ("rows", "scores", "text", "linked", "attention")
        return replace(made, **{name: getattr(made, name).gather(1, order) for name in names})

    return shuffled


def intruding(making: Shortlists, popularity: Tensor) -> Change:
    """One candidate more, the last: of the skills that are not on the list (so that its text does not fit), not
    linked and not meant, the one of most `popularity` (S,). Its scores are those that the shortlister gives it.
    """
    order = popularity.argsort(descending=True, stable=True)  # (S,)
    model = making.model

    def intruded(made: Shortlist, batch: Batch) -> Shortlist:
        taken = torch.cat([made.rows, batch.linked, batch.targets[:, None]], dim=1)  # (B, C + L + 1)
        popular = order[: taken.shape[1] + 1]  # (P,): one of them is free, if any skill is
        free = ~(popular[None, :, None] == taken[:, None, :]).any(-1)  # (B, P)
        row = torch.where(free.any(1), popular[free.int().argmax(1)], -1)  # (B,)
        keys = model.keys(making.vectors)[row]  # (B, D + 1)
        score = (model.queries(made.request) * keys).sum(-1)  # (B,)
        return replace(
            made,
            rows=torch.cat([made.rows, row[:, None]], dim=1),
            scores=torch.cat([made.scores, score[:, None]], dim=1),
            text=torch.cat([made.text, score[:, None]], dim=1),
            linked=F.pad(made.linked, (0, 1)),
            attention=F.pad(made.attention, (0, 1)),
        )

    return intruded


@dataclass(frozen=True)
class Decided:
    """What is decided of N rows."""

    chosen: NDArray[np.int64]  # (N,) the skill's row, NOBODY: none
    places: NDArray[np.int64]  # (N,) of what is meant, from 1; 0: not on the list
    probability: Values  # (N,) of what is chosen
    none: Values  # (N,) probability of none


@torch.inference_mode()
def decide(network: Reranker, asked: Asked) -> Decided:
    """As `model.selector` does: see `model.evaluation.places` for what a place is."""
    N = len(asked.targets)
    chunks = [torch.arange(at, min(at + CHUNK, N)) for at in range(0, N, CHUNK)]
    logits = torch.cat([network(asked.listed.take(at)) for at in chunks]).double()  # (N, C + 2)
    scores = logits.numpy().round(DECIMALS)[:, :NONE]
    probabilities = torch.softmax(logits, dim=-1).numpy().round(DECIMALS)
    return decided(scores, probabilities[:, :NONE], probabilities[:, NONE], asked)


def decided(scores: Values, probabilities: Values, none: Values, asked: Asked) -> Decided:
    """By the candidates' scores and probabilities (N, C), and the probability of none (N,)."""
    rows = asked.listed.rows.numpy()  # (N, C)
    each = np.arange(len(rows))
    first = scores.argmax(1)  # of equals the first: the shortlist's order
    silent = none > probabilities.max(1)
    chosen = np.where(silent, NOBODY, rows[each, first])
    order = np.argsort(-scores, axis=1, kind="stable")
    hits = np.take_along_axis(rows, order, 1) == asked.targets[:, None]  # (N, C)
    mine = np.where(rows == asked.targets[:, None], probabilities, 0.0).max(1)
    place = np.where(hits.any(1), hits.argmax(1) + 1 + (none > mine), 0)
    of_none = (probabilities > none[:, None]).sum(1) + 1
    places = np.where(asked.targets == NOBODY, of_none, place)
    return Decided(chosen, places, np.where(silent, none, probabilities[each, first]), none)


def shortlists_own(asked: Asked) -> Decided:
    """What the first network alone would do; a skill's place is that on its list, as in `model.evaluation`."""
    logs = asked.listed.own[..., LIKELY].double().masked_fill(asked.listed.rows < 0, -torch.inf).numpy()  # (N, C)
    none = asked.listed.lists[:, 0].double().numpy()  # (N,)
    found = decided(logs, np.exp(logs), np.exp(none), asked)
    hits = asked.listed.rows.numpy() == asked.targets[:, None]
    place = np.where(hits.any(1), hits.argmax(1) + 1, 0)
    return replace(found, places=np.where(asked.targets == NOBODY, found.places, place))


class Figures(Struct, frozen=True):
    """What is measured over all rows at once; None where there is nothing to measure it on."""

    auroc: float | None  # of the probability of none
    caught: float | None  # share of the rows that no skill should answer, at FALSE_NONE of the others
    calibration_error: float


def figures(found: Decided, asked: Asked) -> Figures:
    """Of what is decided of these rows."""
    nobody = asked.targets == NOBODY
    none, others = found.none[nobody], found.none[~nobody]
    both = len(none) > 0 and len(others) > 0
    return Figures(
        auroc(none, others) if both else None,
        caught(none, others, FALSE_NONE) if both else None,
        calibration_error(found.probability, found.chosen == asked.targets),
    )


def auroc(positive: Values, negative: Values) -> float:
    """The share of pairs in which the positive one is higher, a tie being half.

    >>> auroc(np.array([0.9, 0.5]), np.array([0.5, 0.1]))
    0.875
    """
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left")
    not_above = np.searchsorted(ordered, positive, "right")
    return round(float((below + not_above).mean() / 2 / len(negative)), 4)


def caught(positive: Values, negative: Values, false: float) -> float:
    """The share of the positive ones above the lowest bound that at most a share `false` of the negative ones is
    above.

    >>> caught(np.array([0.9, 0.8, 0.3]), np.array([0.85, 0.4, 0.2, 0.1]), 0.25)
    0.6667
    """
    bound = np.sort(negative)[::-1][min(int(false * len(negative)), len(negative) - 1)]
    return round(float((positive > bound).mean()), 4)


def calibration_error(probability: Values, right: NDArray[np.bool_]) -> float:
    """The mean over rows of |mean probability − share right| of their bin (ECE, Guo et al. 2017).

    >>> calibration_error(np.array([0.91, 0.93, 0.11]), np.array([True, False, False]))
    0.3167
    """
    bins = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, probability - right, minlength=BINS)
    return round(float(np.abs(gaps).sum() / len(right)), 4)


def changed(before: Decided, after: Decided) -> float:
    """The share of rows of which something else is chosen."""
    return float((before.chosen != after.chosen).mean())


class Deciding:
    """What the networks decide, condition by condition, with the shortlist's own beside them."""

    def __init__(
        self,
        corpus: Corpus,
        making: Shortlists,
        tells: dict[bool, Evidence],
        networks: dict[str, tuple[Reranker, bool]],
    ) -> None:
        self._corpus, self._making, self._tells, self._networks = corpus, making, tells, networks
        self._decided: dict[tuple[str, str], Decided] = {}  # by condition and system
        names = (SHORTLIST, *networks)
        self.ranks: dict[str, dict[str, list[int]]] = {name: {} for name in names}
        self.figures: dict[str, dict[str, Figures]] = {name: {} for name in names}

    def take(self, condition: str, rows: Sequence[Row]) -> None:
        """Measures the rows."""
        asked = self._asked(rows)
        for name, found in self._decide(asked):
            self.ranks[name][condition] = found.places.tolist()
            self.figures[name][condition] = figures(found, asked[False])
            self._decided[condition, name] = found

    def shares_changed(
        self, condition: str, rows: Sequence[Row], change: Callable[[], Change]
    ) -> dict[str, float]:
        """The share of a condition's rows, taken before, that are decided otherwise after a change of their lists,
        by system."""
        asked = self._asked(rows, change)
        return {name: changed(self._decided[condition, name], found) for name, found in self._decide(asked)}

    def _asked(
        self, rows: Sequence[Row], change: Callable[[], Change] = lambda: lambda made, _: made
    ) -> dict[bool, Asked]:
        count = next(iter(self._networks.values()))[0].settings.candidates
        return {
            asked: ask_all(self._making, evidence, self._corpus, rows, count, change())
            for asked, evidence in self._tells.items()
        }

    def _decide(self, asked: dict[bool, Asked]) -> Iterator[tuple[str, Decided]]:
        yield SHORTLIST, shortlists_own(asked[False])
        for name, (network, with_answers) in self._networks.items():
            yield name, decide(network, asked[with_answers])
