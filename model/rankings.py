"""What a decision says of a batch's lists: candidates in the order of their scores, and why the first is first.

Axes: B batch, C candidates, S skills, G groups of features and live statistics.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from msgspec.structs import replace
from numpy.typing import NDArray

from model.declared import ANSWERS
from model.evidence import without_links
from model.questions import Lists
from model.readings import Readings
from model.reranker import GROUPS, LIKELY, NONE, Reranker
from topics.events import Candidate

DECIMALS = 5  # scores are compared at this precision: what is below depends on the batch's company
FULFILL = np.array([*ANSWERS, None], dtype=object)  # by code; the last is that of -1, unknown
LIVE = "live"  # the group of what live statistics add (see `model.live`)
TOLD = (*GROUPS, LIVE)
SOURCES = np.array(["", "declared", "asked"], dtype=object)
NO_SLOTS: dict[str, str] = {}  # shared by most candidates, and never written to


@dataclass(frozen=True)
class Scored:
    """Lists after the second network. `order` (B, C): places of the candidates, best first.

    `scores` have live statistics in them, and so has `satisfying`, the probability that each will do; the
    `probabilities` that it is meant do not. Where no skill is held back both are one.
    """

    lists: Lists
    scores: NDArray[np.float64]  # (B, C + 2) logits
    probabilities: NDArray[np.float64]  # (B, C + 2)
    satisfying: NDArray[np.float64]  # (B, C + 2)
    parts: NDArray[np.float32]  # (B, C, G) of the candidates' scores
    order: NDArray[np.int64]


def score(reranker: Reranker, lists: Lists, live: torch.Tensor | None = None) -> Scored:
    """Scores the lists; equal scores stay in the shortlist's order. `live` (S,): factors of live statistics, which
    are added to the skills' scores."""
    added = reranker.contributions(lists.found)  # (B, C, G - 1)
    logits = reranker.logits(lists.found, added).double()  # (B, C + 2)
    probabilities = satisfying = torch.softmax(logits, dim=-1).numpy().round(DECIMALS)
    factors = _of_candidates(lists.found.rows, live)  # (B, C)
    if live is not None:
        logits[:, :NONE] += factors
        satisfying = torch.softmax(logits, dim=-1).numpy().round(DECIMALS)
    scores = logits.numpy().round(DECIMALS)
    order = np.argsort(-scores[:, :NONE], axis=1, kind="stable")
    parts = torch.cat([added / reranker.temperature, factors[..., None]], dim=-1)  # (B, C, G)
    return Scored(lists, scores, probabilities, satisfying, parts.numpy(), order)


def _of_candidates(rows: torch.Tensor, live: torch.Tensor | None) -> torch.Tensor:
    """Each candidate's factor, (B, C); 0 without one, and where no skill is."""
    if live is None:
        return torch.zeros(rows.shape)
    return live[rows.clamp(min=0)].masked_fill(rows < 0, 0.0)


def candidates(scored: Scored, ids: Sequence[str], readings: Readings, filled: int = 1) -> list[list[Candidate]]:
    """Each list's candidates, best first. `filled`: of how many of them slots are told, which takes 30 µs each."""
    found, order = scored.lists.found, scored.order
    B, C = order.shape
    understood = found.understood
    tables = (
        found.rows.numpy(),
        scored.scores[:, :NONE],
        scored.probabilities[:, :NONE],
        found.linked.numpy(),
        found.attention.double().numpy().round(DECIMALS),
        readings.intent_names(understood.intents),
        FULFILL[understood.answers],
        _sources(scored.lists),
    )
    columns = [np.take_along_axis(table, order, axis=1).ravel().tolist() for table in tables]
    slots = [NO_SLOTS] * (B * C)
    for b, c in zip(*(understood.intents[np.arange(B)[:, None], order[:, :filled]] >= 0).nonzero(), strict=True):
        reading = readings.reading(found.tagged, understood, int(b), int(order[b, c]))
        slots[b * C + c] = reading.slots if reading else NO_SLOTS
    every = [
        Candidate(
            skill_id=ids[row],
            score=score,
            probability=probability,
            linked=linked,
            attention=attention if linked else None,
            shortlist_rank=rank,
            intent=intent,
            fulfill=fulfill,
            fulfill_source=source,
            slots=fills,
        )
        if row >= 0
        else None
        for row, score, probability, linked, attention, intent, fulfill, source, rank, fills in zip(
            *columns, order.ravel().tolist(), slots, strict=True
        )
    ]
    return [[one for one in every[at : at + C] if one is not None] for at in range(0, B * C, C)]


def weighed(scored: Scored, b: int, listed: list[Candidate]) -> tuple[list[Candidate], float]:
    """The candidates of list `b` and `none` with the probabilities that each will do, for who chooses by them."""
    if not scored.parts[b, :, -1].any():
        return listed, float(scored.probabilities[b, NONE])
    found = scored.satisfying[b, scored.order[b]].tolist()
    seen = [replace(one, probability=share) for one, share in zip(listed, found, strict=False)]
    return seen, float(scored.satisfying[b, NONE])


def _sources(lists: Lists) -> NDArray[np.object_]:
    """Who says whether a candidate can, (B, C)."""
    codes = (lists.found.understood.answers >= 0).astype(np.int64)
    for place in lists.heard:
        codes[place] = 2
    sources: NDArray[np.object_] = SOURCES[codes]
    return sources


def reasons(scored: Scored) -> list[dict[str, float]]:
    """What each group of features adds to the first's score beyond the second's; empty without a second."""
    if scored.order.shape[1] < 2:
        return [{} for _ in scored.order]
    pair = np.take_along_axis(scored.parts, scored.order[:, :2, None], axis=1).astype(np.float64)  # (B, 2, G)
    seconds = np.take_along_axis(scored.lists.found.rows.numpy(), scored.order[:, 1:2], axis=1)[:, 0] >= 0  # (B,)
    table = (pair[:, 0] - pair[:, 1]).round(DECIMALS).tolist()
    return [_told(parts) if second else {} for parts, second in zip(table, seconds.tolist(), strict=True)]


def parts_of(scored: Scored, b: int) -> list[dict[str, float]]:
    """What each group of features adds to the score of each candidate of list `b`, best first."""
    return [_told(scored.parts[b, c].astype(np.float64).round(DECIMALS).tolist()) for c in scored.order[b]]


def _told(parts: Sequence[float]) -> dict[str, float]:
    return {group: part for group, part in zip(TOLD, parts, strict=True) if part}


def firsts_without_links(reranker: Reranker, scored: Scored, linked: Sequence[bool]) -> list[int]:
    """For each list the row that would come first had the customer linked nothing; the first as it is where
    nothing is `linked`."""
    rows = scored.lists.found.rows.numpy()  # (B, C)
    firsts = rows[np.arange(len(rows)), scored.order[:, 0]]  # (B,)
    which = np.flatnonzero(linked)
    if len(which):
        bare = without_links(scored.lists.found).take(torch.from_numpy(which))
        logits = reranker(bare)[:, :NONE].double().numpy() + scored.parts[which, :, -1]  # (B, C)
        best = logits.round(DECIMALS).argmax(1)  # the first of equals
        firsts[which] = rows[which, best]
    found: list[int] = firsts.tolist()
    return found


def none_ranks(scored: Scored) -> list[int]:
    """How many skills the shortlister put before `none`."""
    found = scored.lists.found
    ranks: list[int] = (found.own[..., LIKELY] > found.lists[:, :1]).sum(1).tolist()
    return ranks
