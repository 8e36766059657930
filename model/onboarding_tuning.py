"""A short fine-tuning of one new row against negative exemplars, after CoNDA (NAACL 2019).

That paper adds domains to a trained classifier with cosine scores: only what is new has gradients, and samples of
the old domains stand against it. Here the new row alone has gradients; the samples are what the cards of its
nearest rivals say, since a bundle carries no requests; and it stays near where it started.

Axes: N texts, S skills, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model.shortlister import NEVER, Shortlister

RIVALS = 50  # skills nearest to the new one, whose cards speak against it; 200 did no better
STEPS, RATE = 30, 0.03
AGAINST = 0.03  # weight of one text that a rival's card says; the skill's own texts weigh 1 together
STAY = 1.0  # weight of the squared distance from the start


@dataclass(frozen=True)
class Said:
    """What a card says of its skill."""

    vectors: Tensor  # (N, D) unit
    weights: Tensor  # (N,) sum 1, or none


def tuned(
    model: Shortlister,
    start: Tensor,
    bag: Tensor,
    said: Said,
    own: int | None,
    rivals_say: Callable[[Sequence[int]], Tensor],
) -> Tensor:
    """A new skill's row (D,), tuned from `start`; `bag` (E,) of its card; `own` is the row that it has already.

    Each text is a choice between the new skill and all others, whose scores stand still: for what its own card
    says the new one is right, for what `rivals_say` of the skills at some rows one of the others.
    """
    scale = float(model.scale.exp())
    with torch.no_grad():
        vectors, priors = model.skill_vectors(), model.priors()  # (S + 1, D), (S + 1,)
        prior = 0.0 if own is None else float(priors[own])
        if own is not None:
            priors[own] = -torch.inf  # from here on the others only
        card = model.read_card(bag)  # (D,)
        near = vectors[:-1] @ F.normalize(start + card, dim=-1)  # (S,)
        near[priors[:-1] < NEVER / 2] = NEVER
        rivals = near.topk(min(RIVALS, len(near))).indices
        against = rivals_say([row for row in rivals.tolist() if near[row] > NEVER])  # (N', D)
        own_others, rival_others = (
            torch.logsumexp(scale * texts @ vectors.T + priors, dim=-1) - prior
            for texts in (said.vectors, against)
        )  # (N,), (N',)
    row = start.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([row], lr=RATE)
    with torch.enable_grad():
        for _ in range(STEPS):
            v = F.normalize(row + card, dim=-1)
            right = said.weights @ F.softplus(own_others - scale * said.vectors @ v)
            wrong = F.softplus(scale * against @ v - rival_others).sum()
            loss = right + AGAINST * wrong + STAY * (row - start).square().sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimiser.step()
    return row.detach()
