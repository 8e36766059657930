"""What is fitted on held-out rows, once the shortlister is trained: the strength of a link, then the reranker.

On rows that the text model has seen, the text alone knows the answer, and a link seems to be worth half of
what it is; so both are learned from rows whose texts the shortlister never met.
"""

import numpy as np
import torch
from msgspec import Struct
from numpy.typing import NDArray
from torch import Tensor

from model.encoder import WordBatches
from model.examples import Examples, batches, random_links
from model.reranker import (
    Declarations,
    Hypotheses,
    Reranker,
    RerankerSettings,
    hypotheses,
    intended,
    pack,
    rerank_loss,
    take,
)
from model.shortlister import Shortlister


class FittingSettings(Struct, frozen=True, kw_only=True):
    """How the two are fitted. `link_share`: random linked sets among the rows, as in training."""

    seed: int = 0
    link_epochs: int = 8
    link_rate: float = 0.03
    link_share: float = 0.25
    rerank_epochs: int = 40
    rerank_batch: int = 256
    rerank_rate: float = 2e-3
    check_share: float = 0.25  # of the held-out rows: stops the reranker and sets its temperature
    patience: int = 6


def fit_links(model: Shortlister, words: WordBatches, held_out: Examples, settings: FittingSettings) -> None:
    """Fits, in place, what a link is worth: the gate, the attention's scale and bias, the scores' scale."""
    if model.settings.attention == "none" or not held_out.has_links.any():
        return
    generator = np.random.default_rng(settings.seed)
    fitted = [*model.gate.parameters(), model.attention_scale, model.attention_bias, model.scale]
    optimiser = torch.optim.Adam(fitted, lr=settings.link_rate)
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in fitted:
        parameter.requires_grad_(True)
    for _ in range(settings.link_epochs):
        linked = random_links(held_out, settings.link_share, generator)
        for batch in batches(held_out, words, 512, linked, generator):
            optimiser.zero_grad()
            logits = model(batch.words, batch.linked).logits
            torch.nn.functional.cross_entropy(logits.float(), batch.targets).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    for parameter in model.parameters():
        parameter.requires_grad_(True)


@torch.no_grad()
def shortlists(
    model: Shortlister,
    declarations: Declarations,
    words: WordBatches,
    examples: Examples,
    linked: NDArray[np.int64],
    count: int,
) -> tuple[Hypotheses, Tensor]:
    """The shortlists of `examples` and which outcome is right for each, (N,)."""
    model.eval()
    vectors = model.skill_vectors()
    parts, right = [], []
    none = len(model.rows)
    for batch in batches(examples, words, 512, linked):
        scores = model(batch.words, batch.linked, vectors)
        part = hypotheses(model, declarations, scores, batch.words, batch.linked, vectors, count)
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
    return random_links(examples, settings.link_share, np.random.default_rng(settings.seed))
