"""Self-distillation: what one epoch leaves for the next, and the loss that it enters.

Axes: N examples, B batch, L linked.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import attention
from model.catalogue import Catalogue
from model.shortlister import ShortlisterSettings
from model.statistics import Statistics


class Memory:
    """Attention energies by linked skill, and what was classified as what."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """`shape`: that of the examples' linked sets, (N, L)."""
        self._links = np.full(shape, -1, dtype=np.int64)
        self._energies = np.zeros(shape, dtype=np.float32)
        self._links_before, self._energies_before = self._links.copy(), self._energies.copy()
        self._chosen = np.zeros(shape[0], dtype=np.int64)

    def start(self, linked: NDArray[np.int64]) -> None:
        """Begins an epoch in which the examples have these linked sets, (N, L)."""
        self._links_before, self._energies_before = self._links, self._energies
        self._links, self._energies = linked, np.zeros(linked.shape, dtype=np.float32)

    def keep(self, rows: NDArray[np.int64], energies: Tensor, chosen: Tensor) -> None:
        """Takes in a batch: energies (B, L) and the rows that came first (B,), the examples' own at `rows`."""
        self._energies[rows] = energies.detach().numpy()
        self._chosen[rows] = chosen.numpy()

    def before(self, rows: NDArray[np.int64]) -> Tensor:
        """The epoch before's energies (B, L). A link that this row did not have then teaches nothing: its own
        energy of now would be the target, so 0 stands for σ = ½, the least that can be said."""
        same = self._links_before[rows] == self._links[rows]
        return torch.from_numpy(np.where(same, self._energies_before[rows], 0.0))

    def statistics(self, catalogue: Catalogue) -> Statistics:
        """The shares of the epoch's classifications, linked or not."""
        return classifications(catalogue, self._chosen, self._links)


def classifications(catalogue: Catalogue, chosen: NDArray[np.int64], linked: NDArray[np.int64]) -> Statistics:
    """Statistics of N classifications: the row that came first (N,), S or above for `none`; links (N, L)."""
    size = len(catalogue)
    is_chosen = linked == chosen[:, None]  # (N, L)
    with_link = is_chosen.any(axis=1)  # (N,)
    passed = linked[(linked >= 0) & ~is_chosen]
    return Statistics().fold_classifications(
        catalogue.ids(),
        np.bincount(chosen, minlength=size + 1)[:size],
        np.bincount(chosen[with_link], minlength=size)[:size],
        np.bincount(passed, minlength=size)[:size],
        int(np.count_nonzero(chosen >= size)),
    )


def loss(
    settings: ShortlisterSettings,
    alpha: float,
    temperature: float,
    linked: Tensor,
    targets: Tensor,
    energies: Tensor,
    before: Tensor,
    epoch: int,
) -> Tensor:
    """α [(1 − β_t) L_a + β_t L_d] of links (B, L), whose energies and those of the epoch before are (B, L)."""
    zero = energies.new_zeros(())
    if settings.attention in ("none", "bonus"):
        return zero
    mask = linked >= 0
    supervised = distilled = zero
    if settings.supervised:
        supervised = attention.supervised_loss(energies, mask, linked == targets[:, None])
    if settings.soft_targets and epoch:
        distilled = attention.distilled_loss(energies, before, mask, temperature)
    return attention.attention_loss(supervised, distilled, alpha, epoch)
