"""Attention over the customer's linked skills. Axes: B batch, L linked (padded), D width, F statistics, P pool.

From "Supervised Domain Enablement Attention for Personalized Domain Classification" (EMNLP 2018): a weight a_i
says how much the linked skill i matters to the request. docs/concepts/networks.md has the paper's equations
beside ours.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.statistics import FEATURES, OF_LINKS

Kind = Literal["none", "bonus", "softmax", "sigmoid"]
KINDS: tuple[Kind, ...] = ("none", "bonus", "softmax", "sigmoid")
Use = Literal["log-odds", "gate"]
SURE = 1e-4  # a softmax weight of 1, as that of an only link, counts as this far from certain
LEAST_OTHERS = 1e-5  # of the best one's probability; bounds log-odds to about 11.5


class Links(nn.Module):
    """What the customer's links say of each linked skill.

    e_i = log-odds of i by the text + w · statistics_i + r(u) + c where `reads_text`; else, as published,
    e_i = κ cos(u, v_i) + w · statistics_i + r(u) + c. a_i = σ(e_i), or softmax over the linked ones.
    What a_i adds to the skill's own score:

    - `log-odds`: what the links add to the text's log-odds, logit(a_i) − log-odds_i. With the sigmoid that is
      w · statistics_i + r(u) + c, Bayes' rule with learned terms, and a_i is the probability that i is meant;
    - `gate`: softplus(5 + g) · a_i.

    A softmax weight of 1, an only link's, says nothing of how sure it is, so its log-odds are shifted by g.

    The kind `bonus` adds one constant to every linked skill: what an engineer would do in an afternoon.
    """

    def __init__(self, kind: Kind, use: Use, reads_text: bool, reads_request: bool, D: int) -> None:
        super().__init__()
        self.kind, self.use, self.reads_text, self.reads_request = kind, use, reads_text, reads_request
        self.bias = nn.Parameter(torch.tensor(4.0 if reads_text else -3.0))
        self.sharpness = nn.Parameter(torch.tensor(2.5))  # log κ
        self.statistics = nn.Linear(len(FEATURES[OF_LINKS]), 1, bias=False)
        self.request = nn.Linear(D, 1, bias=False)
        self.gate = nn.Parameter(torch.tensor(0.0))
        nn.init.zeros_(self.statistics.weight)
        nn.init.zeros_(self.request.weight)

    def forward(
        self, u: Tensor, odds: Tensor, cosines: Tensor, statistics: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Energies, weights and what is added to the linked skills' scores, each (B, L).

        u (B, D) unit; odds, the text's log-odds of each linked skill; cosines of u and v_i; both (B, L);
        statistics (B, L, columns OF_LINKS); mask (B, L), false at padding, where weights and what is added are 0.
        """
        if self.kind in ("none", "bonus"):
            added = torch.zeros_like(odds) if self.kind == "none" else self.bias.expand_as(odds) * mask
            return torch.zeros_like(odds), torch.zeros_like(odds), added
        told = self.statistics(statistics).squeeze(-1) + self.bias  # (B, L)
        if self.reads_request:
            told = told + self.request(u)  # (B, L)
        text = odds if self.reads_text else self.sharpness.exp() * cosines  # (B, L)
        energies = text + told
        a = weights(self.kind, energies, mask)
        if self.use == "gate":
            return energies, a, F.softplus(5 + self.gate) * a
        if self.kind == "softmax":
            certain = torch.logit(a.clamp(SURE, 1 - SURE))
            return energies, a, (certain - odds + self.gate) * mask
        # where the text is in the energy, taking it out again would leave its rounding, and with it every rival's
        return energies, a, (told if self.reads_text else energies - odds) * mask


def log_odds(own: Tensor, linked: Tensor, pool_rows: Tensor, pool: Tensor, none: Tensor) -> Tensor:
    """The text's log-odds of each linked skill against the others of the pool and `none`, (B, L).

    own, linked (B, L): scores and rows of the linked skills; pool, pool_rows (B, P): the best skills by the text;
    none (B, 1).
    """
    every = torch.cat([pool, none], dim=1)  # (B, P + 1)
    highest = every.amax(1, keepdim=True)  # (B, 1)
    other = F.pad(linked[:, :, None] != pool_rows[:, None, :], (0, 1), value=True)  # (B, L, P + 1)
    # summed without i, not i taken from the sum: where i is far ahead, little but rounding would be left
    others = torch.einsum("bp,blp->bl", (every - highest).exp(), other.to(own.dtype))  # (B, L)
    return own - highest - others.clamp(min=LEAST_OTHERS).log()


def weights(kind: Kind, energies: Tensor, mask: Tensor) -> Tensor:
    """Attention weights (B, L) from energies (B, L); 0 where `mask` (B, L) is false.

    softmax: Σ a_i = 1 over the linked skills, whether any of them matters or not. sigmoid: each on its own,
    so that all can be near 0 (section 3.2 of the paper).
    """
    if kind == "softmax":
        shifted = energies.masked_fill(~mask, torch.finfo(energies.dtype).min)
        return torch.softmax(shifted, dim=-1) * mask  # a row without links has no weight at all
    return torch.sigmoid(energies) * mask


def summary(a: Tensor, v: Tensor) -> Tensor:
    """s = Σ a_i v_i: weights (B, L) and vectors (B, L, D) give (B, D)."""
    return torch.einsum("bl,bld->bd", a, v)


def supervised_loss(energies: Tensor, mask: Tensor, intended: Tensor) -> Tensor:
    """L_a = BCE(σ(e_i), 1[i is the intended skill]) over linked skills; all zeros where it is not linked.

    energies, mask, intended: (B, L). The mean over the requests of the sum over their links; 0 without links.
    """
    each = F.binary_cross_entropy_with_logits(energies.float(), intended.float(), reduction="none")
    return (each * mask).sum() / max(1, len(energies))


def distilled_loss(energies: Tensor, before: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """L_d = BCE(σ(e_i / T), σ(e_i' / T)), e' being the energies of the epoch before. All (B, L)."""
    target = torch.sigmoid(before.float() / temperature)
    each = F.binary_cross_entropy_with_logits(energies.float() / temperature, target, reduction="none")
    return (each * mask).sum() / max(1, len(energies))


def attention_loss(supervised: Tensor, distilled: Tensor, alpha: float, epoch: int) -> Tensor:
    """α [(1 − β_t) L_a + β_t L_d] with β_t = 1 − 0.95^t, t the number of epochs done before."""
    beta = 1 - 0.95**epoch
    return alpha * ((1 - beta) * supervised + beta * distilled)
