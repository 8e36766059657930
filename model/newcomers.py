"""A world in which skills have joined after the training, to fit the second network on: what a newcomer's scores
mean differs from what those of a skill that has learned from requests mean.

A half of the skills that held-out rows mean leave, and come back as strangers: by their cards, with up to three
of their requests as phrases. The encoder has met their other requests all the same, so that such a newcomer is
found a little better than a true one.

Axes: N rows, S skills, L linked (padded).
"""

import copy
from dataclasses import replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.bundle import Bundle, Manifest
from model.catalogue import Catalogue
from model.evidence import Evidence, Learned
from model.examples import Examples
from model.onboarding import Onboarding
from model.reranker import Reranker, RerankerSettings
from model.shortlister import Shortlister
from model.statistics import Statistics
from model.text import Vocabulary
from topics.events import SkillCard

MOST = 600  # skills that come back as strangers; each takes some 10 ms
PHRASES = 3  # at most, of each
STRANGER = " (joined)"  # behind the id of a skill that comes back


def with_newcomers(
    catalogue: Catalogue,
    vocabulary: Vocabulary,
    model: Shortlister,
    evidence: Evidence,
    phrases: dict[int, list[str]],
    examples: Examples,
    seed: int,
) -> tuple[Shortlister, Evidence, Examples, NDArray[np.bool_]]:
    """Copies of model and evidence in which strangers have joined, the rows `examples` as they mean these, and
    which rows mean a stranger, (N,). `phrases`: requests of skills by their rows."""
    generator = np.random.default_rng(seed)
    skills = len(catalogue)
    meant = np.unique(examples.targets[examples.targets < skills])
    chosen = np.sort(generator.permutation(meant)[: min(MOST, len(meant) // 2)]).tolist()
    bundle = _copied(catalogue, vocabulary, model, evidence)
    cards = [_stranger(catalogue.card(row), phrases.get(row, []), generator) for row in chosen]
    Onboarding(bundle).take(cards, [catalogue.card(row).skill_id for row in chosen])
    now = np.arange(skills + 1)  # where each skill stands now, and at last `none`
    now[chosen] = [bundle.catalogue.row(card.skill_id) for card in cards]
    now[skills] = len(bundle.catalogue)
    linked = np.where(examples.linked >= 0, now[examples.linked], -1)
    moved = replace(examples, linked=linked, targets=now[examples.targets])
    return bundle.shortlister, bundle.evidence, moved, np.isin(examples.targets, chosen)


def _stranger(card: SkillCard, phrases: list[str], generator: np.random.Generator) -> SkillCard:
    count = min(int(generator.integers(0, PHRASES + 1)), len(phrases))
    own = tuple(str(phrase) for phrase in generator.permutation(phrases)[:count]) if count else card.phrases
    return msgspec.structs.replace(card, skill_id=card.skill_id + STRANGER, phrases=own)


def _copied(catalogue: Catalogue, vocabulary: Vocabulary, model: Shortlister, evidence: Evidence) -> Bundle:
    model = copy.deepcopy(model)
    own = Catalogue(catalogue.rows())
    learned = Learned(evidence.learned.wording, copy.deepcopy(evidence.learned.exemplars))
    manifest = Manifest(text=vocabulary.settings, shortlister=model.settings)
    habits = copy.deepcopy(evidence.habits)
    return Bundle(
        manifest=manifest,
        catalogue=own,
        vocabulary=vocabulary,
        shortlister=model,
        evidence=Evidence(model, own, vocabulary, Statistics(), learned, evidence.sources.clone(), habits),
        reranker=Reranker(RerankerSettings()),  # nothing is asked of it
        statistics=Statistics(),
    )
