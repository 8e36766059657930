"""Rows of a corpus as arrays: encoded once, batched many times.

Axes: N examples, B batch, L linked (padded), S skills, K beliefs (padded).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.catalogue import Catalogue, spoken
from model.data import Row
from model.encoder import WordBatches, Words
from model.text import Encoded, Vocabulary
from topics.events import SkillCard

SENTENCE = re.compile(r"[.!?\n]+")
CARD_SENTENCES = 4  # a description's first sentences say what a skill does, the rest how to reach its maker


@dataclass(frozen=True)
class Beliefs:
    """How likely each skill is what a request meant: catalogue rows (N, K), S for none, and their shares (N, K), 0
    at padding. A request of which all is known has one, of 1."""

    rows: NDArray[np.int64]
    shares: NDArray[np.float32]

    def take(self, rows: NDArray[np.int64]) -> "Beliefs":
        """Those of the examples at `rows`."""
        return Beliefs(self.rows[rows], self.shares[rows])


@dataclass(frozen=True)
class Examples:
    """Encoded rows. `targets` are catalogue rows; S (one past the last) where no skill should answer."""

    encoded: Encoded
    linked: NDArray[np.int64]  # (N, L), -1 at padding
    targets: NDArray[np.int64]  # (N,)
    has_links: NDArray[np.bool_]  # (N,) whether the row says who is linked, be it nobody
    weights: NDArray[np.float32]  # (N,) how many requests each stands for
    beliefs: Beliefs

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: NDArray[np.int64]) -> "Examples":
        """The examples at `rows`."""
        encoded = replace(self.encoded, words=self.encoded.words[rows], lengths=self.encoded.lengths[rows])
        return Examples(
            encoded,
            self.linked[rows],
            self.targets[rows],
            self.has_links[rows],
            self.weights[rows],
            self.beliefs.take(rows),
        )


@dataclass(frozen=True)
class Batch:
    """What the shortlister takes, and what it should say."""

    rows: NDArray[np.int64]  # (B,) where the examples stand
    words: Words
    linked: Tensor  # (B, L)
    targets: Tensor  # (B,)
    believed: Tensor  # (B, K) rows
    beliefs: Tensor  # (B, K) their shares


def encode_rows(rows: Sequence[Row], catalogue: Catalogue, vocabulary: Vocabulary) -> Examples:
    """Rows as examples. Raises BadData where a row's skill is not in the catalogue."""
    encoded = vocabulary.encode([row.text for row in rows])
    none = len(catalogue)
    targets = [none if row.skill_id is None else catalogue.row(row.skill_id) for row in rows]
    return Examples(
        encoded,
        catalogue.linked_rows([row.linked or () for row in rows]),
        np.asarray(targets, dtype=np.int64),
        np.asarray([row.linked is not None for row in rows], dtype=np.bool_),
        np.asarray([row.weight for row in rows], dtype=np.float32),
        beliefs_of([row.beliefs or {row.skill_id or "": 1.0} for row in rows], catalogue),
    )


def beliefs_of(told: Sequence[Mapping[str, float]], catalogue: Catalogue) -> Beliefs:
    """Beliefs by skill id, "" for none, as arrays; what is not in the catalogue is left out."""
    known = [{skill: share for skill, share in one.items() if not skill or skill in catalogue} for one in told]
    width = max([1, *map(len, known)])
    rows = np.zeros((len(known), width), dtype=np.int64)
    shares = np.zeros((len(known), width), dtype=np.float32)
    for at, one in enumerate(known):
        rows[at, : len(one)] = [catalogue.row(skill) if skill else len(catalogue) for skill in one]
        shares[at, : len(one)] = list(one.values())
    return Beliefs(rows, shares)


def card_rows(cards: Sequence[SkillCard]) -> list[Row]:
    """What cards say of themselves, as training rows: name, invocation, intents, phrases, first sentences."""
    return [Row(text, card.skill_id, "card") for card in cards for text in _sayings(card) if text.strip()]


def _sayings(card: SkillCard) -> list[str]:
    sentences = [s for s in SENTENCE.split(card.description) if s.strip()][:CARD_SENTENCES]
    intents = [f"{spoken(i.name)} {i.description}" for i in card.intents]
    return list(dict.fromkeys([spoken(card.name), card.invocation, *intents, *card.phrases, *sentences]))


def random_links(examples: Examples, share: float, generator: np.random.Generator) -> NDArray[np.int64]:
    """Linked sets in which a link is evidence and never a command, (N, L).

    Rows that do not say who is linked, and a `share` of the others, get the set of some other row that does
    (section 4.1 of the EMNLP paper: half of the examples get a random set).
    """
    givers = np.flatnonzero(examples.has_links)
    if not len(givers):
        return examples.linked
    changed = ~examples.has_links | (generator.random(len(examples)) < share)
    found = examples.linked.copy()
    found[changed] = examples.linked[generator.choice(givers, size=int(changed.sum()))]
    return found


def batches(
    examples: Examples,
    words: WordBatches,
    size: int,
    linked: NDArray[np.int64] | None = None,
    generator: np.random.Generator | None = None,
    spell: float = 0.0,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Batches of similar length: in order of length, or shuffled among and within near-equals by `generator`,
    with a share `spell` of their words spelled as if they were unseen.

    `share`: of each batch the part of one of several processes, its rank and their number.
    """
    rank, processes = share
    lengths = examples.encoded.lengths.astype(np.float64)
    if generator is not None:
        lengths = lengths + generator.uniform(0, 1.5, len(lengths))
    order = np.argsort(lengths, kind="stable")
    starts = np.arange(0, len(order), size)
    if generator is not None:
        generator.shuffle(starts)
    links = examples.linked if linked is None else linked
    for start in starts:
        rows = order[start : start + size]
        if len(rows) >= processes:
            rows = rows[rank::processes]
        yield Batch(
            rows,
            words.batch(examples.encoded, rows, spell, generator),
            torch.from_numpy(links[rows]),
            torch.from_numpy(examples.targets[rows]),
            torch.from_numpy(examples.beliefs.rows[rows]),
            torch.from_numpy(examples.beliefs.shares[rows]),
        )
