"""What a link is worth, fitted on rows whose texts the shortlister never met.

On rows that the text model has seen, the text alone knows the answer, and a link seems to be worth half of what
it is. The text model stands still here, so each example is its pool of skills, and an epoch takes a second.

Axes: N examples, B batch, L linked, P pool, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from msgspec import Struct
from torch import Tensor
from torch.nn import functional as F

from model.catalogue import Catalogue
from model.distillation import Memory, classifications, loss
from model.encoder import WordBatches
from model.examples import Examples, batches, random_links
from model.shortlister import NEVER, POOL, Shortlister, linked_cosines
from model.statistics import Statistics
from model.training import feed

MOST_CLASSIFIED = 100_000  # examples whose classifications make the statistics; more would tell nothing new
STEPS = 16  # an epoch, at least: fewer would leave the links' worth where it started


class LinkSettings(Struct, frozen=True, kw_only=True):
    """How links are fitted. `random_links`: the share of rows that get another row's linked set, so that a link is
    evidence and never a command; the EMNLP paper has half (section 4.1), which costs half a point of top-3 where
    most customers mean a linked skill and gains half a point where none does. `alpha` and `temperature` are the
    paper's α and T: there α = 0.01 stands beside a sum over all skills' logistic losses, ours beside one softmax,
    which is smaller, hence a larger α."""

    seed: int = 0
    epochs: int = 15
    batch: int = 256  # at most; a small corpus gets smaller ones, 16 an epoch
    rate: float = 0.02
    request_rate: float = 0.002
    request_decay: float = 0.1
    random_links: float = 0.25
    alpha: float = 0.1
    temperature: float = 16.0


@dataclass(frozen=True)
class _Pools:
    """Examples as the text model sees them; nothing here changes while the links are fitted."""

    text: Tensor  # (N, D) unit vectors
    rows: Tensor  # (N, P) the skills that the text alone puts first
    cosines: Tensor  # (N, P)
    none: Tensor  # (N, 1) cosine with `none`

    def take(self, rows: Tensor | slice) -> "_Pools":
        return _Pools(self.text[rows], self.rows[rows], self.cosines[rows], self.none[rows])


@dataclass(frozen=True)
class Seen:
    """The rows of a corpus as the text model reads them. T taught rows, in which it classifies."""

    linked: Tensor  # (T, L)
    pools: _Pools  # of the taught rows
    cosines: Tensor  # (T, L) of the taught rows and their linked skills
    held_out: Examples
    held_out_pools: _Pools


@dataclass(frozen=True)
class _Scored:
    """A batch's candidates: pool, linked skills and `none`; a score of NEVER where a column is no skill."""

    scores: Tensor  # (B, P + L + 1)
    rows: Tensor  # (B, P + L + 1)
    energies: Tensor  # (B, L)


def seen_by(
    model: Shortlister, words: WordBatches, taught: Examples, held_out: Examples, settings: LinkSettings
) -> Seen:
    """The rows as `model` reads them; its links have no part in it, so that systems over one text share it."""
    vectors = _vectors(model)
    chosen = np.sort(np.random.default_rng(settings.seed).permutation(len(taught))[:MOST_CLASSIFIED])
    taught = taught.take(chosen)
    pools = _pools(model, vectors, words, taught)
    linked = torch.from_numpy(taught.linked)
    cosines = _in_parts(lambda part: linked_cosines(pools.text[part], linked[part], vectors), len(linked))
    return Seen(linked, pools, cosines, held_out, _pools(model, vectors, words, held_out))


def fit_links(
    model: Shortlister, catalogue: Catalogue, seen: Seen, settings: LinkSettings, outcomes: Statistics
) -> list[Statistics]:
    """Fits, in place, what a link is worth, the statistics' weights and the scores' scale on held-out rows.

    With `shares`, each epoch is fed the shares of the model's own classifications of the taught rows in the
    epoch before, merged with what `outcomes` says of customers; at last come those of the finished model.
    Returns the statistics in their order, of which the last are those that the model is left with.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    classifier = _Classifier(model, catalogue, seen, outcomes)
    history = [classifier.feed()]
    if seen.held_out.has_links.any() and model.settings.attention != "none":
        history += _fit(model, seen, settings, classifier)
        history.append(classifier.feed())
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return history


class _Classifier:
    """The model's own classifications of the rows that it was taught."""

    def __init__(self, model: Shortlister, catalogue: Catalogue, seen: Seen, outcomes: Statistics) -> None:
        self._model, self._catalogue, self._seen, self._outcomes = model, catalogue, seen, outcomes
        self._vectors = _vectors(model)

    @torch.no_grad()
    def feed(self) -> Statistics:
        """Statistics of what the model says now and of what customers did; the model sees them from now on."""
        chosen = _in_parts(self._first, len(self._seen.linked))
        own = classifications(self._catalogue, chosen.numpy(), self._seen.linked.numpy())
        statistics = self._outcomes.merge(own)
        if self._model.settings.shares:
            feed(self._model, self._catalogue, statistics)
        return statistics

    def _first(self, part: slice) -> Tensor:
        seen = self._seen
        pools = seen.pools.take(part)
        found = _scored(self._model, self._vectors, pools, seen.linked[part], seen.cosines[part])
        return found.rows.gather(1, found.scores.argmax(1, keepdim=True)).squeeze(1)


def _fit(model: Shortlister, seen: Seen, settings: LinkSettings, classifier: _Classifier) -> list[Statistics]:
    """Fits in place; returns what the classifier said after each epoch."""
    examples, pools, vectors = seen.held_out, seen.held_out_pools, _vectors(model)
    history = []
    torch.manual_seed(settings.seed)
    generator = np.random.default_rng(settings.seed)
    targets = torch.from_numpy(examples.targets)
    steps_an_epoch = -(-len(examples) // max(1, min(settings.batch, len(examples) // STEPS)))
    optimiser, schedule = _optimiser(model, settings, steps_an_epoch)
    memory = Memory(examples.linked.shape)
    for epoch in range(settings.epochs):
        linked = random_links(examples, settings.random_links, generator)
        memory.start(linked)
        for rows in np.array_split(generator.permutation(len(examples)), steps_an_epoch):
            links = torch.from_numpy(linked[rows])
            found = _scored(model, vectors, pools.take(torch.from_numpy(rows)), links)
            before = memory.before(rows)
            first = found.rows.gather(1, found.scores.argmax(1, keepdim=True)).squeeze(1)
            memory.keep(rows, found.energies, first)
            right = targets[torch.from_numpy(rows)]
            step = _main_loss(found, right, torch.from_numpy(examples.weights[rows])) + loss(
                model.settings, settings.alpha, settings.temperature, links, right, found.energies, before, epoch
            )
            optimiser.zero_grad()
            step.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
        if model.settings.shares:
            history.append(classifier.feed())
    return history


def _optimiser(
    model: Shortlister, settings: LinkSettings, steps_an_epoch: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    few = [model.scale, model.prior.weight, *model.links.parameters()]
    many = [model.links.request.weight, *(model.mix.parameters() if model.settings.summary else ())]
    few = [parameter for parameter in few if all(parameter is not other for other in many)]
    for parameter in (*few, *many):
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(
        [
            {"params": few, "lr": settings.rate, "weight_decay": 0.0},
            {"params": many, "lr": settings.request_rate, "weight_decay": settings.request_decay},
        ]
    )
    steps = settings.epochs * steps_an_epoch
    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: max(0.0, 1 - step / steps))


def _main_loss(found: _Scored, targets: Tensor, weights: Tensor) -> Tensor:
    """L_m over the candidates, rows counted by `weights` (B,); a row whose skill is not among them has nothing to
    teach about links."""
    right = (found.rows == targets[:, None]) & (found.scores > NEVER / 2)  # (B, P + L + 1)
    there = right.any(1)
    losses = F.cross_entropy(found.scores[there], right[there].float().argmax(1), reduction="none")
    return (losses * weights[there]).sum() / weights[there].sum()


def _scored(
    model: Shortlister, vectors: Tensor, pools: _Pools, linked: Tensor, cosines: Tensor | None = None
) -> _Scored:
    scale, priors = model.scale.exp(), model.priors()
    pool = scale * pools.cosines + priors[pools.rows]  # (B, P)
    none = scale * pools.none  # (B, 1)
    found = model.link(pools.text, linked, vectors, pools.rows, pool, none, cosines)
    rows = pools.rows
    if model.settings.summary:  # the request has moved, and with it every skill's score
        moved = model.text_scores(found.request, vectors)  # (B, S + 1)
        pool, rows = moved[:, :-1].topk(rows.shape[1], dim=-1)
        none = moved[:, -1:]
    among = (rows[:, :, None] == linked[:, None, :]).any(-1)  # (B, P)
    own = (found.text + found.added).masked_fill(linked < 0, NEVER)  # (B, L)
    scores = torch.cat([pool.masked_fill(among, NEVER), own, none], dim=1)
    last = torch.full_like(none, len(vectors) - 1, dtype=torch.long)
    return _Scored(scores, torch.cat([rows, linked, last], dim=1), found.energies)


@torch.no_grad()
def _vectors(model: Shortlister) -> Tensor:
    return model.skill_vectors()


@torch.no_grad()
def _pools(model: Shortlister, vectors: Tensor, words: WordBatches, examples: Examples) -> _Pools:
    model.eval()
    size, width = min(POOL, len(vectors) - 1), vectors.shape[1]
    N = len(examples)
    text, cosines, none = torch.empty(N, width), torch.empty(N, size), torch.empty(N, 1)
    rows = torch.empty(N, size, dtype=torch.long)
    for batch in batches(examples, words, 512):
        request = model.read(batch.words).text  # (B, D)
        all_cosines = request @ vectors.T  # (B, S + 1)
        text[batch.rows], none[batch.rows] = request, all_cosines[:, -1:]
        cosines[batch.rows], rows[batch.rows] = all_cosines[:, :-1].topk(size, dim=-1)
    return _Pools(text, rows, cosines, none)


def _in_parts(compute: Callable[[slice], Tensor], size: int) -> Tensor:
    """`compute` over slices of `size` rows, so that memory stays bounded."""
    return torch.cat([compute(slice(at, min(size, at + 4096))) for at in range(0, size, 4096)])
