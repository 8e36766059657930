"""Groups of dev rows that are told apart: by source, by how much training said of their skill, by rivals.

Axes: S skills, W width.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.catalogue import Catalogue
from model.data import Row
from model.examples import card_rows
from model.text import TextSettings, Vocabulary
from topics.events import SkillCard

FEW = 3  # training phrases of a skill, at most
RIVALS = 0.75  # quantile of the cosines to the nearest other skill, above which a skill has rivals
WIDTH = 512  # of a skill's words, projected at random: cosines are right to 1 / √512
CHUNK = 1024

MEANING = {
    "few phrases": f"their skill has {FEW} training phrases or fewer",
    "rivals": "their skill's words are near another skill's: the nearest quarter of all skills",
    "head": "their skill is one of those with most training rows, which together have half of them",
    "tail": "their skill is any other",
    "no skill": "no skill should answer",
}


def groups_of(
    asked: Sequence[Row], rows: Sequence[Row], cards: Sequence[SkillCard]
) -> dict[str, NDArray[np.bool_]]:
    """Which of the rows `asked` are in each group, (N,) each; `rows` are the training rows."""
    counts = Counter(row.skill_id for row in rows if row.skill_id is not None)
    head, rivals = head_skills(counts), with_rivals(rows, cards)
    mine = [row.skill_id for row in asked]
    members = {
        "few phrases": [skill is not None and counts[skill] <= FEW for skill in mine],
        "rivals": [skill in rivals for skill in mine],
        "head": [skill in head for skill in mine],
        "tail": [skill is not None and skill not in head for skill in mine],
        "no skill": [skill is None for skill in mine],
    }
    for source in sorted({row.source for row in asked}):
        members[f"source {source or 'unknown'}"] = [row.source == source for row in asked]
    return {name: np.asarray(rows, dtype=np.bool_) for name, rows in members.items()}


def head_skills(counts: Counter[str]) -> set[str]:
    """The skills with most rows, which together have half of all."""
    found, total = set(), 0
    for skill, count in counts.most_common():
        if total * 2 >= counts.total():
            break
        found.add(skill)
        total += count
    return found


def with_rivals(rows: Sequence[Row], cards: Sequence[SkillCard]) -> set[str]:
    """Skills whose words are near another's: the cosine to the nearest is among the highest quarter of all.

    A skill's words are those of its training phrases and of what its card says, weighted as in a bag (SIF). No
    model has a part in it, so the group is the same for all systems and seeds.
    """
    vectors = vectors_of(rows, cards)  # (S, W)
    nearest = np.concatenate([_nearest(vectors, at) for at in range(0, len(vectors), CHUNK)])  # (S,)
    line = np.quantile(nearest, RIVALS)
    return {card.skill_id for card, cosine in zip(cards, nearest, strict=True) if cosine > max(line, 0.0)}


def _nearest(vectors: NDArray[np.float32], at: int) -> NDArray[np.float32]:
    part = vectors[at : at + CHUNK] @ vectors.T
    part[np.arange(len(part)), at + np.arange(len(part))] = -1.0
    found: NDArray[np.float32] = part.max(axis=1)
    return found


def vectors_of(rows: Sequence[Row], cards: Sequence[SkillCard]) -> NDArray[np.float32]:
    """Unit vectors of the skills' words, (S, W); zeros where nothing is said."""
    catalogue = Catalogue(cards)
    said = [row for row in (*rows, *card_rows(cards)) if row.skill_id is not None]
    vocabulary = Vocabulary.of([row.text for row in said], TextSettings())
    encoded = vocabulary.encode([row.text for row in said])
    weights = vocabulary.weights_of(encoded)  # (rows, T)
    words = np.random.default_rng(0).standard_normal((len(vocabulary), WIDTH), dtype=np.float32)
    found = np.zeros((len(cards), WIDTH), dtype=np.float32)
    skills = np.asarray([catalogue.row(row.skill_id or "") for row in said], dtype=np.int64)
    for at in range(0, len(said), CHUNK):
        part = slice(at, at + CHUNK)
        bags = np.einsum("bt,bte->be", weights[part], words[encoded.words[part]], optimize=True)
        np.add.at(found, skills[part], bags)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    unit: NDArray[np.float32] = found / np.maximum(lengths, 1e-9)
    return unit
