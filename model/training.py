"""Training the shortlister's text, and with it, where asked, the links; stops when held-out rows no longer gain.

Axes: N examples, B batch, L linked, S skills.
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

from model.catalogue import Catalogue, card_text
from model.distillation import Memory, loss
from model.distributed import average_gradients, place
from model.encoder import WordBatches
from model.examples import Batch, Examples, batches, random_links
from model.shortlister import Shortlister
from model.statistics import Statistics
from model.text import Vocabulary
from topics.errors import UsageError
from topics.events import SkillCard

Progress = Callable[[int, str], None]
CARD_WORDS = 128  # of a card's text; what stands later is rarely about what the skill does


class TrainingSettings(Struct, frozen=True, kw_only=True):
    """How long and how hard.

    `batch` is the most examples a step; a small corpus gets smaller steps, see `batch_size`. `word_rate` is for
    words that start from pretrained vectors, `fresh_word_rate` for those that start from nothing. `prototypes`:
    a skill's row starts as the mean of its phrases. `jointly`: the links are trained with the text, as published,
    and not afterwards on texts held out from it; then `random_links`, `alpha` and `temperature` are used here,
    else those of `model.linking.LinkSettings` there.
    """

    seed: int = 0
    epochs: int = 8
    batch: int = 256
    rate: float = 2e-3
    word_rate: float = 5e-4
    fresh_word_rate: float = 2e-3
    weight_decay: float = 0.01
    patience: int = 2
    label_smoothing: float = 0.05
    spell: float = 0.05
    prototypes: bool = True
    jointly: bool = False
    random_links: float = 0.5
    alpha: float = 0.1
    temperature: float = 16.0


@dataclass(frozen=True)
class Trained:
    """The best epoch's weights are in the model; `statistics` are what that epoch was fed, `history` what all
    were."""

    statistics: Statistics
    history: tuple[Statistics, ...]
    epochs: int
    top3: float


def read_cards(model: Shortlister, catalogue: Catalogue, vocabulary: Vocabulary, words: WordBatches) -> None:
    """Puts the unit bag of each card's words into the model, in the words' vectors as they are now."""
    cards = catalogue.cards()
    rows = [catalogue.row(card.skill_id) for card in cards]
    training = model.training
    model.eval()
    with torch.no_grad():
        for at in range(0, len(cards), 512):
            model.cards[rows[at : at + 512]] = card_bags(model, vocabulary, words, cards[at : at + 512])
    model.train(training)


def card_bags(
    model: Shortlister, vocabulary: Vocabulary, words: WordBatches, cards: Sequence[SkillCard]
) -> Tensor:
    """Unit bags of what cards say, (cards, E)."""
    batch = words.batch(vocabulary.encode([card_text(card) for card in cards], CARD_WORDS))
    return model.encoder.bags(batch, model.encoder.word_vectors(batch))


def start_from_prototypes(model: Shortlister, examples: Examples, words: WordBatches) -> None:
    """A skill's learned row starts as the mean of its phrases' vectors: the nearest prototype wins at first."""
    sums = torch.zeros(len(model.rows) + 1, model.rows.shape[1])
    counts = torch.zeros(len(model.rows) + 1)
    model.eval()
    with torch.no_grad():
        for batch in batches(examples, words, 1024):
            bag = model.encoder.bags(batch.words, model.encoder.word_vectors(batch.words))
            each = model.encoder.bag(bag)[:, None, :] * batch.beliefs[:, :, None]  # (B, K, D)
            sums.index_add_(0, batch.believed.flatten(), each.flatten(0, 1))
            counts.index_add_(0, batch.believed.flatten(), batch.beliefs.flatten())
        means = F.normalize(sums, dim=-1) * (counts > 0)[:, None]
        model.rows.copy_(means[:-1])
        if counts[-1]:
            model.none_row.copy_(means[-1:])


class _Optimisers:
    """Two: words' rows are touched by few examples each, so their gradients and moments stay sparse."""

    def __init__(self, model: Shortlister, settings: TrainingSettings, word_rate: float, steps: int) -> None:
        sparse = [model.encoder.word.weight, model.encoder.ngram.weight]
        known = {id(parameter) for parameter in sparse}
        dense = [parameter for parameter in model.parameters() if id(parameter) not in known]
        self.dense, self.sparse = dense, sparse
        self.all: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(dense, lr=settings.rate, weight_decay=settings.weight_decay),
            torch.optim.SparseAdam(sparse, lr=word_rate),
        ]
        schedule = _warm_then_cosine(steps)
        self.schedules = [torch.optim.lr_scheduler.LambdaLR(optimiser, schedule) for optimiser in self.all]

    def step(self, loss: Tensor) -> None:
        for optimiser in self.all:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        average_gradients(self.dense, self.sparse)
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
    word_rate: float,
    progress: Progress,
    outcomes: Statistics,
) -> Trained:
    """Trains in place and ends with the epoch that was best on `held_out` (top-3).

    Where `torchrun` started several processes, each learns from its share of every batch, and all end with the
    same weights. Jointly with the links, which one process does alone, each epoch sees the shares of the
    classifications of the epoch before, merged with what `outcomes` says of customers; the first one sees what the
    model holds already.
    """
    rank, processes = place()
    if settings.jointly and processes > 1:
        raise UsageError("the links can be trained with the text in one process only: start one, without torchrun")
    generator = np.random.default_rng(settings.seed)
    if processes > 1:
        torch.manual_seed(settings.seed * processes + rank)  # each drops other words
    size = batch_size(len(examples), settings.batch)
    steps_an_epoch = math.ceil(len(examples) / size)
    optimisers = _Optimisers(model, settings, word_rate, settings.epochs * steps_an_epoch)
    memory = Memory(examples.linked.shape)
    best, best_top3, since = _copy(model), -1.0, 0
    best_statistics = statistics = outcomes
    history = [outcomes]
    epoch = 0
    for epoch in range(settings.epochs):
        read_cards(model, catalogue, vocabulary, words)
        model.train()
        linked = random_links(examples, settings.random_links, generator)
        memory.start(linked)
        for step, batch in enumerate(
            batches(examples, words, size, linked, generator, settings.spell, (rank, processes))
        ):
            found = (
                _joint_loss(model, batch, memory, settings, epoch)
                if settings.jointly
                else _loss(model, batch, settings)
            )
            optimisers.step(found)
            progress(
                epoch * steps_an_epoch + step + 1, f"epoch {epoch + 1}, held-out top-3 {max(0.0, best_top3):.3f}"
            )
        top3 = float(top_k(model, words, held_out, 3, settings.jointly).mean())
        if top3 > best_top3:
            best, best_top3, since, best_statistics = _copy(model), top3, 0, statistics
        else:
            since += 1
            if since > settings.patience:
                break
        if settings.jointly and model.settings.shares:
            statistics = outcomes.merge(memory.statistics(catalogue))
            feed(model, catalogue, statistics)
            history.append(statistics)
    model.load_state_dict(best)
    model.eval()
    return Trained(best_statistics, tuple(history), epoch + 1, best_top3)


def feed(model: Shortlister, catalogue: Catalogue, statistics: Statistics) -> None:
    """Gives the model the statistics that it sees with every example from now on."""
    features = torch.from_numpy(statistics.features(catalogue.ids()))
    model.statistics.copy_(features)


def _loss(model: Shortlister, batch: Batch, settings: TrainingSettings) -> Tensor:
    """L_m of the text alone."""
    scores = model.text_scores(model.read(batch.words).text, model.skill_vectors())  # (B, S + 1)
    return main_loss(scores, batch, settings.label_smoothing)


def main_loss(scores: Tensor, batch: Batch, smoothing: float) -> Tensor:
    """L_m: cross entropy of scores (B, S + 1) over all skills and `none` with what is believed of each request.

    Where beliefs sum to less than 1, the request counts for so much less. `smoothing` (Szegedy et al. 2016) of the
    rest is spread over all.
    """
    logs = F.log_softmax(scores.float(), dim=-1)  # (B, S + 1)
    believed = (batch.beliefs * logs.gather(1, batch.believed)).sum(1)  # (B,)
    even = batch.beliefs.sum(1) * logs.mean(1)
    return -((1 - smoothing) * believed + smoothing * even).mean()


def _joint_loss(
    model: Shortlister, batch: Batch, memory: Memory, settings: TrainingSettings, epoch: int
) -> Tensor:
    """L = L_m + α [(1 − β_t) L_a + β_t L_d], as published."""
    scores, found = model(batch.words, batch.linked)  # (B, S + 1)
    before = memory.before(batch.rows)
    memory.keep(batch.rows, found.energies, scores.detach().argmax(dim=-1))
    return main_loss(scores, batch, settings.label_smoothing) + loss(
        model.settings,
        settings.alpha,
        settings.temperature,
        batch.linked,
        batch.targets,
        found.energies,
        before,
        epoch,
    )


def _copy(model: Shortlister) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@torch.inference_mode()
def top_k(model: Shortlister, words: WordBatches, examples: Examples, k: int, links: bool) -> NDArray[np.bool_]:
    """Whether the intended skill is among the first k, with its links or by the text alone, (N,). `none` counts
    as a choice of its own."""
    model.eval()
    found = np.zeros(len(examples), dtype=np.bool_)
    vectors = model.skill_vectors()
    for batch in batches(examples, words, 512):
        if links:
            scores, _ = model(batch.words, batch.linked)
        else:
            scores = model.text_scores(model.read(batch.words).text, vectors)
        own = scores.gather(1, batch.targets[:, None])
        found[batch.rows] = ((scores > own).sum(dim=1) < k).numpy()
    return found


def texts_of(rows: Sequence[str], catalogue: Catalogue) -> list[str]:
    """All texts from which a vocabulary is made: the rows' and the cards'."""
    return [*rows, *(card_text(card) for card in catalogue.cards())]
