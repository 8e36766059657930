"""The reranker, fitted on rows whose texts the shortlister never met: on shortlists as it really makes them."""

import numpy as np
import torch
from msgspec import Struct
from numpy.typing import NDArray
from torch import Tensor

from model.declarations import Declarations
from model.encoder import WordBatches
from model.examples import Examples, batches, random_links
from model.reranker import (
    Hypotheses,
    Reranker,
    RerankerSettings,
    hypotheses,
    intended,
    pack,
    rerank_loss,
    take,
)
from model.shortlist import Shortlists


class FittingSettings(Struct, frozen=True, kw_only=True):
    """How the reranker is fitted. `rerank_links`: random linked sets among its rows."""

    seed: int = 0
    rerank_links: float = 0.25
    rerank_epochs: int = 40
    rerank_batch: int = 256
    rerank_rate: float = 2e-3
    check_share: float = 0.25  # of the held-out rows: stops the reranker and sets its temperature
    patience: int = 6


@torch.no_grad()
def shortlists(
    making: Shortlists,
    declarations: Declarations,
    words: WordBatches,
    examples: Examples,
    linked: NDArray[np.int64],
    count: int,
) -> tuple[Hypotheses, Tensor]:
    """The shortlists of `examples` and which outcome is right for each, (N,)."""
    parts, right = [], []
    none = len(making.model.rows)
    for batch in batches(examples, words, 512, linked):
        made = making.make(batch.words, batch.linked, count)
        part = hypotheses(making.model, declarations, made, batch.words, batch.linked)
        parts.append(part)
        right.append(intended(part, batch.targets, none))
    return pack(parts), torch.cat(right)


def fit_reranker(lists: Hypotheses, right: Tensor, shape: RerankerSettings, settings: FittingSettings) -> Reranker:
    """A reranker trained on part of the lists; the others stop it and set its temperature."""
    generator = torch.Generator().manual_seed(settings.seed)
    torch.manual_seed(settings.seed)
    order = torch.randperm(len(right), generator=generator)
    cut = max(1, round(len(order) * settings.check_share))
    check, train = order[:cut], order[cut:]
    network = Reranker(shape)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.rerank_rate, weight_decay=0.01)
    best, best_loss, since = _copy(network), _loss(network, lists, right, check), 0
    for _ in range(settings.rerank_epochs):
        network.train()
        for rows in train[torch.randperm(len(train), generator=generator)].split(settings.rerank_batch):  # type: ignore[no-untyped-call]
            optimiser.zero_grad()
            rerank_loss(network(take(lists, rows)), right[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        now = _loss(network, lists, right, check)
        if now < best_loss:
            best, best_loss, since = _copy(network), now, 0
        else:
            since += 1
            if since >= settings.patience:
                break
    network.load_state_dict(best)
    _set_temperature(network, take(lists, check), right[check])
    return network.eval()


@torch.no_grad()
def _loss(network: Reranker, lists: Hypotheses, right: Tensor, rows: Tensor) -> float:
    network.eval()
    return float(rerank_loss(network(take(lists, rows)), right[rows]))


@torch.no_grad()
def _set_temperature(network: Reranker, lists: Hypotheses, right: Tensor) -> None:
    """The temperature of least loss on a grid (Guo et al. 2017, temperature scaling)."""
    network.eval()
    logits = network(lists)
    grid = torch.linspace(0.5, 3.0, 101)
    losses = torch.stack([rerank_loss(logits / t, right) for t in grid])
    network.temperature.copy_(grid[losses.argmin()])


def _copy(network: Reranker) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def given_and_random(examples: Examples, settings: FittingSettings) -> NDArray[np.int64]:
    """The examples' linked sets, a share of them random, (N, L)."""
    return random_links(examples, settings.rerank_links, np.random.default_rng(settings.seed))
