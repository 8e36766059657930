"""Training the shortlister: statistics and attention of each epoch teach the next; stops when held-out rows
no longer gain. Axes: N examples, B batch, L linked, S skills.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from msgspec import Struct
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model import attention
from model.catalogue import Catalogue, card_text
from model.encoder import WordBatches
from model.examples import Batch, Examples, batches, random_links
from model.shortlister import Scores, Shortlister, ShortlisterSettings
from model.statistics import Statistics
from model.text import Vocabulary

Progress = Callable[[int, str], None]


class TrainingSettings(Struct, frozen=True, kw_only=True):
    """How long and how hard.

    `batch` is the most examples a step; a small corpus gets smaller steps, see `batch_size`. `alpha` and
    `temperature` are α and T of the EMNLP paper: there α = 0.01 stands beside a sum over all skills' logistic
    losses, ours beside one softmax, which is smaller, hence a larger α.
    """

    seed: int = 0
    epochs: int = 8
    batch: int = 256
    rate: float = 3e-3
    word_rate: float = 2e-3
    weight_decay: float = 0.01
    patience: int = 2
    random_links: float = 0.25
    alpha: float = 0.1
    temperature: float = 16.0
    label_smoothing: float = 0.05


@dataclass(frozen=True)
class Trained:
    """The best epoch's weights are in the model; `statistics` are of its classifications."""

    statistics: Statistics
    epochs: int
    top3: float


def read_cards(model: Shortlister, catalogue: Catalogue, vocabulary: Vocabulary, words: WordBatches) -> None:
    """Puts the unit bag of each card's words into the model, in the words' vectors as they are now."""
    texts = [card_text(card) for card in catalogue.cards()]
    rows = [catalogue.row(card.skill_id) for card in catalogue.cards()]
    training = model.training
    model.eval()
    with torch.no_grad():
        for at in range(0, len(texts), 512):
            batch = words.batch(vocabulary.encode(texts[at : at + 512]))
            model.cards[rows[at : at + 512]] = model.encoder.bags(batch, model.encoder.word_vectors(batch))
    model.train(training)


def start_from_prototypes(model: Shortlister, examples: Examples, words: WordBatches) -> None:
    """A skill's learned row starts as the mean of its phrases' vectors: the nearest prototype wins at first."""
    sums = torch.zeros(len(model.rows) + 1, model.rows.shape[1])
    counts = torch.zeros(len(model.rows) + 1)
    model.eval()
    with torch.no_grad():
        for batch in batches(examples, words, 1024):
            bag = model.encoder.bags(batch.words, model.encoder.word_vectors(batch.words))
            sums.index_add_(0, batch.targets, model.encoder.bag(bag))
            counts.index_add_(0, batch.targets, torch.ones(len(batch.targets)))
        means = F.normalize(sums, dim=-1) * (counts > 0)[:, None]
        model.rows.copy_(means[:-1])
        if counts[-1]:
            model.none_row.copy_(means[-1:])


class _Optimisers:
    """Two: words' rows are touched by few examples each, so their gradients and moments stay sparse."""

    def __init__(self, model: Shortlister, settings: TrainingSettings, steps: int) -> None:
        sparse = [model.encoder.word.weight, model.encoder.ngram.weight]
        known = {id(parameter) for parameter in sparse}
        dense = [parameter for parameter in model.parameters() if id(parameter) not in known]
        self.dense = dense
        self.all: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(dense, lr=settings.rate, weight_decay=settings.weight_decay),
            torch.optim.SparseAdam(sparse, lr=settings.word_rate),
        ]
        schedule = _warm_then_cosine(steps)
        self.schedules = [torch.optim.lr_scheduler.LambdaLR(optimiser, schedule) for optimiser in self.all]

    def step(self, loss: Tensor) -> None:
        for optimiser in self.all:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(self.dense, 5.0)
        for optimiser in self.all:
            optimiser.step()
        for schedule in self.schedules:
            schedule.step()


def _warm_then_cosine(steps: int) -> Callable[[int], float]:
    warm = max(1, steps // 20)

    def rate(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

    return rate


def batch_size(examples: int, most: int) -> int:
    """Examples a step: `most`, or so few that an epoch has about 64 steps, but no fewer than 32.

    >>> batch_size(100_000, 256), batch_size(5_000, 256), batch_size(3, 256)
    (256, 78, 32)
    """
    return min(most, max(32, examples // 64))


def train_shortlister(
    model: Shortlister,
    catalogue: Catalogue,
    vocabulary: Vocabulary,
    words: WordBatches,
    examples: Examples,
    held_out: Examples,
    settings: TrainingSettings,
    progress: Progress,
    outcomes: Statistics,
) -> Trained:
    """Trains in place and ends with the epoch that was best on `held_out` (top-3 with its links).

    Each epoch sees the shares of the classifications of the epoch before, merged with what `outcomes` says
    of customers; the first one sees what the model holds already.
    """
    generator = np.random.default_rng(settings.seed)
    size = batch_size(len(examples), settings.batch)
    steps_an_epoch = math.ceil(len(examples) / size)
    optimisers = _Optimisers(model, settings, settings.epochs * steps_an_epoch)
    memory = _Memory(examples)
    best, best_top3, since = _copy(model), -1.0, 0
    best_statistics = statistics = outcomes
    epoch = 0
    for epoch in range(settings.epochs):
        read_cards(model, catalogue, vocabulary, words)
        model.train()
        linked = random_links(examples, settings.random_links, generator)
        memory.start(linked)
        for step, batch in enumerate(batches(examples, words, size, linked, generator)):
            scores = model(batch.words, batch.linked)
            optimisers.step(loss(scores, batch, model.settings, settings, memory.before(batch), epoch))
            memory.keep(batch, scores)
            progress(
                epoch * steps_an_epoch + step + 1, f"epoch {epoch + 1}, held-out top-3 {max(0.0, best_top3):.3f}"
            )
        top3 = float(top_k(model, words, held_out, 3).mean())
        if top3 > best_top3:
            best, best_top3, since, best_statistics = _copy(model), top3, 0, statistics
        else:
            since += 1
            if since > settings.patience:
                break
        statistics = outcomes.merge(memory.statistics(catalogue))
        if model.settings.distilled:
            feed(model, catalogue, statistics)
    model.load_state_dict(best)
    model.eval()
    return Trained(best_statistics, epoch + 1, best_top3)


def feed(model: Shortlister, catalogue: Catalogue, statistics: Statistics) -> None:
    """Gives the model the statistics that it sees with every example from now on."""
    features = torch.from_numpy(statistics.features(catalogue.ids()))
    model.statistics.copy_(features)


def loss(
    scores: Scores,
    batch: Batch,
    model: ShortlisterSettings,
    settings: TrainingSettings,
    before: Tensor,
    epoch: int,
) -> Tensor:
    """L = L_m + α [(1 − β_t) L_a + β_t L_d]; L_m is the cross entropy over all skills and `none`."""
    found = F.cross_entropy(scores.logits.float(), batch.targets, label_smoothing=settings.label_smoothing)
    if model.attention == "none" or not (model.supervised or model.distilled):
        return found
    mask = batch.linked >= 0
    zero = scores.energies.new_zeros(())
    supervised = distilled = zero
    if model.supervised:
        intended = batch.linked == batch.targets[:, None]  # (B, L)
        supervised = attention.supervised_loss(scores.energies, mask, intended)
    if model.distilled and epoch:
        distilled = attention.distilled_loss(scores.energies, before, mask, settings.temperature)
    return found + attention.attention_loss(supervised, distilled, settings.alpha, epoch)


class _Memory:
    """What one epoch leaves for the next: attention energies by linked skill, and counts of classifications."""

    def __init__(self, examples: Examples) -> None:
        shape = examples.linked.shape
        self._links = np.full(shape, -1, dtype=np.int64)
        self._energies = np.zeros(shape, dtype=np.float32)
        self._links_before, self._energies_before = self._links.copy(), self._energies.copy()
        self._chosen = np.zeros(len(examples), dtype=np.int64)

    def start(self, linked: NDArray[np.int64]) -> None:
        self._links_before, self._energies_before = self._links, self._energies
        self._links, self._energies = linked, np.zeros(linked.shape, dtype=np.float32)

    def keep(self, batch: Batch, scores: Scores) -> None:
        self._energies[batch.rows] = scores.energies.detach().numpy()
        self._chosen[batch.rows] = scores.logits.detach().argmax(dim=-1).numpy()

    def before(self, batch: Batch) -> Tensor:
        """The epoch before's energies (B, L). A link that this row did not have then teaches nothing: its own
        energy of now would be the target, so 0 stands for σ = ½, the least that can be said."""
        same = self._links_before[batch.rows] == batch.linked.numpy()
        return torch.from_numpy(np.where(same, self._energies_before[batch.rows], 0.0))

    def statistics(self, catalogue: Catalogue) -> Statistics:
        """The shares of the epoch's classifications, linked or not."""
        linked = (self._links == self._chosen[:, None]).any(axis=1)  # (N,)
        rows = len(catalogue)
        chosen = np.bincount(self._chosen, minlength=rows + 1)[:rows]  # the last is `none`, no skill
        with_link = np.bincount(self._chosen[linked], minlength=rows + 1)[:rows]
        return Statistics().fold_classifications(catalogue.ids(), chosen, with_link)


def _copy(model: Shortlister) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@torch.inference_mode()
def top_k(
    model: Shortlister, words: WordBatches, examples: Examples, k: int, linked: NDArray[np.int64] | None = None
) -> NDArray[np.bool_]:
    """Whether the intended skill is among the first k, (N,). `none` counts as a choice of its own."""
    model.eval()
    found = np.zeros(len(examples), dtype=np.bool_)
    vectors = model.skill_vectors()
    for batch in batches(examples, words, 512, linked):
        scores = model(batch.words, batch.linked, vectors).logits
        own = scores.gather(1, batch.targets[:, None])
        found[batch.rows] = ((scores > own).sum(dim=1) < k).numpy()
    return found


def texts_of(rows: Sequence[str], catalogue: Catalogue) -> list[str]:
    """All texts from which a vocabulary is made: the rows' and the cards'."""
    return [*rows, *(card_text(card) for card in catalogue.cards())]
