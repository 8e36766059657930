"""Attention over the customer's linked skills. Axes: B batch, L linked (padded), D width.

From "Supervised Domain Enablement Attention for Personalized Domain Classification" (EMNLP 2018): the weight
a_i says how much the linked skill i matters to the request u, and s = Σ a_i v_i joins u in front of the scores.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Kind = Literal["none", "softmax", "sigmoid"]
KINDS: tuple[Kind, ...] = ("none", "softmax", "sigmoid")


def weights(kind: Kind, energies: Tensor, mask: Tensor) -> Tensor:
    """Attention weights (B, L) from energies (B, L); 0 where `mask` (B, L) is false.

    softmax: Σ a_i = 1 over the linked skills, whether any of them matters or not. sigmoid: each on its own,
    so that all can be near 0 (section 3.2 of the paper). none: all 0.
    """
    if kind == "none":
        return torch.zeros_like(energies)
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
