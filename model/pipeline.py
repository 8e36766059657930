"""From a corpus to a bundle: one function, its steps numbered, and each step as a function of its own."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from msgspec import Struct

from model.bundle import Bundle, Manifest
from model.catalogue import Catalogue
from model.data import Row
from model.encoder import WordBatches
from model.evidence import Evidence, Learned
from model.examples import Examples, batches, card_rows, encode_rows
from model.exemplars import Exemplars
from model.fitting import FittingSettings, Taught, fit_reranker, taught
from model.linking import LinkSettings, fit_links, seen_by
from model.pretrained import common_words, is_installed, spell, word_vectors
from model.reranker import Reranker, RerankerSettings
from model.rivals import families
from model.shortlist import Shortlists
from model.shortlister import Shortlister, ShortlisterSettings
from model.statistics import Statistics
from model.teaching import taught_by
from model.text import TextSettings, Vocabulary
from model.training import (
    Progress,
    Trained,
    TrainingSettings,
    batch_size,
    feed,
    read_cards,
    start_from_prototypes,
    texts_of,
    train_shortlister,
)
from model.wording import Wording, WordingSettings, teach, worded
from topics.errors import BadData
from topics.events import SkillCard

LIKELY = 0.5
"""A belief from which a row that is not sure counts, beside new requests, as one that means that skill: it is of
a kind that the release before got wrong, and of these there are few. Chosen on dev; 0.3 was as good."""


class Recipe(Struct, frozen=True, kw_only=True):
    """Everything that a training is made of, but for its rows."""

    text: TextSettings = TextSettings()
    shortlister: ShortlisterSettings = ShortlisterSettings()
    reranker: RerankerSettings = RerankerSettings()
    training: TrainingSettings = TrainingSettings()
    links: LinkSettings = LinkSettings()
    wording: WordingSettings = WordingSettings()
    fitting: FittingSettings = FittingSettings()
    pretrained: bool = True  # words start from static vectors, where their package is installed
    own_words: bool = True  # what cards say of themselves is learned from too
    held_out: float = 0.1  # share of texts kept from the text model, for the links' worth and the reranker
    teacher: float = 0.2  # of what is learned, the share that the parent says, where there is one


def train(
    cards: Sequence[SkillCard],
    rows: Sequence[Row],
    recipe: Recipe,
    progress: Progress,
    parent: Bundle | None = None,
    statistics: Statistics | None = None,
) -> Bundle:
    """A bundle for `cards`, taught by `rows`.

    `parent`: start from its weights wherever word and skill are the same. `statistics`: what customers did,
    merged with the training's own. `progress(step, note)` is called after each step of `steps(...)`.
    Raises BadData where there is nothing to learn from.
    """
    # 1. read: the catalogue, the words, the rows as arrays
    corpus = prepare(cards, rows, recipe)
    outcomes = statistics or Statistics()
    # 2. the shortlister's text, on rows and on what cards say of themselves
    model, done = train_text(corpus, recipe, progress, outcomes, parent)
    # 3. what links are worth, on texts that the shortlister never met
    known = done.statistics
    if not recipe.training.jointly:
        known = train_links(corpus, model, recipe, outcomes)
    # 4. the reranker, on the same
    evidence, reranker = train_reranker(corpus, model, known, recipe)
    # 5. the bundle
    return Bundle(
        manifest=_manifest(rows, recipe, done, parent, outcomes),
        catalogue=corpus.catalogue,
        vocabulary=corpus.vocabulary,
        shortlister=model,
        evidence=evidence,
        reranker=reranker,
        statistics=known,
    )


@dataclass(frozen=True)
class Corpus:
    """Cards and rows as arrays; equal ones and equal recipes give equal arrays."""

    catalogue: Catalogue
    vocabulary: Vocabulary
    words: WordBatches
    kept: Examples  # rows to learn from, each taken for what it most likely means
    aside: Examples  # rows whose texts are held out from the shortlister
    own: Examples  # sure rows to learn from, all others by their beliefs, and what the cards say
    kept_texts: tuple[str, ...]
    aside_texts: tuple[str, ...]
    own_texts: tuple[str, ...]
    pretrained: bool  # words start from static vectors


def prepare(cards: Sequence[SkillCard], rows: Sequence[Row], recipe: Recipe) -> Corpus:
    """Reads cards and rows. Raises BadData where there is nothing to learn from."""
    if not cards or all(row.beliefs for row in rows):
        raise BadData(f"nothing to train on: {len(rows)} rows and {len(cards)} skills")
    catalogue = Catalogue(cards)
    pretrained = recipe.pretrained and is_installed()
    texts = texts_of([row.text for row in rows], catalogue)
    vocabulary = Vocabulary.of(texts, recipe.text, common_words() if pretrained else ())
    return _divided(rows, cards, catalogue, vocabulary, recipe, pretrained)


def train_text(
    corpus: Corpus, recipe: Recipe, progress: Progress, outcomes: Statistics, parent: Bundle | None = None
) -> tuple[Shortlister, Trained]:
    """A shortlister that reads; where the recipe trains jointly, one that weighs links too."""
    catalogue, vocabulary, words = corpus.catalogue, corpus.vocabulary, corpus.words
    model = fresh(corpus, recipe)
    if corpus.pretrained:
        start_from_vectors(model, vocabulary, spelled=parent is None or parent.manifest.text != recipe.text)
    if parent is not None:
        inherit(model, vocabulary, catalogue, parent)
    read_cards(model, catalogue, vocabulary, words)
    if recipe.training.prototypes:
        start_from_prototypes(model, corpus.own, words)
    own = corpus.own
    if parent is not None:
        inherit(model, vocabulary, catalogue, parent)  # once more: prototypes are for skills that are new
        if recipe.teacher:
            own = taught_by(parent, catalogue, corpus.own_texts, own, outcomes, recipe.teacher)
    if recipe.shortlister.shares:
        feed(model, catalogue, outcomes)
    rate = recipe.training.word_rate if corpus.pretrained else recipe.training.fresh_word_rate
    done = train_shortlister(
        model, catalogue, vocabulary, words, own, corpus.aside, recipe.training, rate, progress, outcomes
    )
    return model, done


def train_links(corpus: Corpus, model: Shortlister, recipe: Recipe, outcomes: Statistics) -> Statistics:
    """Fits in place what links are worth; returns the statistics that the model is left with."""
    seen = seen_by(model, corpus.words, corpus.kept, corpus.aside, recipe.links)
    return fit_links(model, corpus.catalogue, seen, recipe.links, outcomes)[-1]


def train_reranker(
    corpus: Corpus, model: Shortlister, statistics: Statistics, recipe: Recipe
) -> tuple[Evidence, Reranker]:
    """What the second network is told, and the network, fitted on the shortlists of the held-out rows."""
    making = Shortlists(model, kind="float32")  # equal trainings give equal bundles on every machine
    evidence, every = gathered(corpus, making, statistics, recipe)
    found = held_out_lists(corpus, making, evidence, recipe)
    return every, fit_reranker(found, recipe.reranker, recipe.fitting, len(corpus.aside))


def gathered(
    corpus: Corpus, making: Shortlists, statistics: Statistics, recipe: Recipe
) -> tuple[Evidence, Evidence]:
    """What the second network is told: in fitting it knows no held-out row; in serving a request is laid beside
    these too."""
    kept, aside, model = corpus.kept, corpus.aside, making.model
    wording = _wording(corpus, making, recipe)

    def evidence(*parts: Examples) -> Evidence:
        targets = torch.from_numpy(np.concatenate([part.targets for part in parts]))
        vectors = torch.cat([_read(model, corpus.words, part) for part in parts])
        exemplars = Exemplars.of(vectors, targets, len(corpus.catalogue), recipe.fitting.seed)
        return Evidence(model, corpus.catalogue, corpus.vocabulary, statistics, Learned(wording, exemplars))

    return evidence(kept), evidence(kept, aside)


def held_out_lists(corpus: Corpus, making: Shortlists, evidence: Evidence, recipe: Recipe) -> Taught:
    """The shortlists of the held-out rows, for fitting."""
    settings, count, catalogue = recipe.fitting, recipe.reranker.candidates, corpus.catalogue
    known = np.bincount(corpus.kept.targets, minlength=len(catalogue) + 1)[: len(catalogue)]
    members = families(catalogue.cards()).values()
    rivals = {catalogue.row(skill): tuple(map(catalogue.row, family)) for family in members for skill in family}
    return taught(making, evidence, corpus.words, corpus.aside_texts, corpus.aside, known, rivals, count, settings)


def _wording(corpus: Corpus, making: Shortlists, recipe: Recipe) -> Wording:
    """Taught on the shortlists, by text alone, of the rows that the shortlister learned from."""
    kept, count = corpus.kept, recipe.reranker.candidates
    rows = torch.full((len(kept), min(count, len(corpus.catalogue))), -1)  # (N, C)
    nobody = np.full((len(kept), 1), -1, dtype=np.int64)
    for batch in batches(kept, corpus.words, 512, nobody):
        rows[batch.rows] = making.make(batch.words, batch.linked, count).rows
    hits = rows == torch.from_numpy(kept.targets)[:, None]  # (N, C)
    right = torch.where(hits.any(1), hits.int().argmax(1), -1)
    return teach(worded(corpus.kept_texts), rows, right, recipe.wording)


@torch.no_grad()
def _read(model: Shortlister, words: WordBatches, examples: Examples) -> torch.Tensor:
    """Unit vectors of the rows' texts, (N, D)."""
    found = torch.empty(len(examples), model.settings.width)
    for batch in batches(examples, words, 512):
        found[batch.rows] = model.read(batch.words).text
    return found


def _manifest(
    rows: Sequence[Row], recipe: Recipe, done: Trained, parent: Bundle | None, outcomes: Statistics
) -> Manifest:
    """What made the bundle; no times and no places, so that equal trainings have equal digests."""
    return Manifest(
        text=recipe.text,
        shortlister=recipe.shortlister,
        reranker=recipe.reranker,
        provenance={
            "seed": recipe.training.seed,
            "rows": len(rows),
            "rows_digest": rows_digest(rows),
            "epochs": done.epochs,
            "parent": parent.manifest.release if parent else "",
            "statistics": outcomes.version(),
        },
        measures={"held_out_top3": round(done.top3, 4)},
    )


def steps(rows: int, cards: Sequence[SkillCard], recipe: Recipe) -> int:
    """How many steps a training of `rows` rows takes at most."""
    said = len(card_rows(cards)) if recipe.own_words else 0
    examples = round(rows * (1 - recipe.held_out)) + said
    return recipe.training.epochs * -(-examples // batch_size(examples, recipe.training.batch))


def _divided(
    rows: Sequence[Row],
    cards: Sequence[SkillCard],
    catalogue: Catalogue,
    vocabulary: Vocabulary,
    recipe: Recipe,
    pretrained: bool,
) -> Corpus:
    """Rows to learn from, sure rows held out, and the first as the text learns from them."""
    sure = [row for row in rows if not row.beliefs]
    unsure = [row for row in rows if row.beliefs and not is_held_out(row.text, recipe.held_out)]
    said = [*sure, *unsure, *(card_rows(cards) if recipe.own_words else [])]
    every = encode_rows(said, catalogue, vocabulary)
    is_aside = np.asarray([is_held_out(row.text, recipe.held_out) for row in sure], dtype=np.bool_)
    if is_aside.all() or not is_aside.any():  # a handful of rows: learn from all, check on all
        aside = kept = np.arange(len(sure))
    else:
        aside, kept = np.flatnonzero(is_aside), np.flatnonzero(~is_aside)
    own = np.concatenate([kept, np.arange(len(sure), len(every))])
    likely = [at for at, row in enumerate(unsure, len(sure)) if max(row.beliefs.values()) >= LIKELY]
    kept = np.concatenate([kept, np.asarray(likely, dtype=np.int64)])
    kept_texts, aside_texts, own_texts = (
        tuple(said[at].text for at in part.tolist()) for part in (kept, aside, own)
    )
    parts = (every.take(kept), every.take(aside), every.take(own))
    texts = (kept_texts, aside_texts, own_texts)
    return Corpus(catalogue, vocabulary, WordBatches(vocabulary), *parts, *texts, pretrained)


def is_held_out(text: str, share: float) -> bool:
    """Whether a text belongs to the held-out share: by its hash, so that a text is always on one side."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") < share * 2**32


def fresh(corpus: Corpus, recipe: Recipe) -> Shortlister:
    """A shortlister that has learned nothing yet; equal seeds give equal weights."""
    torch.manual_seed(recipe.training.seed)
    return Shortlister(recipe.shortlister, len(corpus.vocabulary), recipe.text.ngram_rows, len(corpus.catalogue))


def start_from_vectors(model: Shortlister, vocabulary: Vocabulary, spelled: bool = True) -> None:
    """Words start from pretrained vectors, and n-grams so that they spell these, if they are not inherited, in
    place."""
    with torch.no_grad():
        vectors = torch.from_numpy(word_vectors(vocabulary.words[1:], model.settings.word_width))
        model.encoder.word.weight[1:] = vectors
    if spelled:
        spell(model.encoder.ngram, vocabulary.words[1:], vectors, vocabulary.settings)


def inherit(model: Shortlister, vocabulary: Vocabulary, catalogue: Catalogue, parent: Bundle) -> None:
    """Copies the parent's weights: those of words and skills by name, all others where shapes are equal."""
    theirs = parent.shortlister.state_dict()
    word_rows = {word: row for row, word in enumerate(parent.vocabulary.words)}
    skill_rows = {skill: row for row, skill in enumerate(parent.catalogue.ids()) if skill}
    by_name = {
        "encoder.word.weight": (vocabulary.words, word_rows),
        "rows": (catalogue.ids(), skill_rows),
    }
    skipped = {"cards", "statistics", "present"}  # made from the catalogue and the statistics of now
    with torch.no_grad():
        for name, mine in model.state_dict().items():
            if name in by_name:
                _copy_rows(mine, theirs[name], *by_name[name])
            elif name not in skipped and mine.shape == theirs[name].shape:
                mine.copy_(theirs[name])


def _copy_rows(mine: torch.Tensor, theirs: torch.Tensor, names: Sequence[str], rows: dict[str, int]) -> None:
    pairs = [(at, rows[name]) for at, name in enumerate(names) if name in rows]
    if pairs and mine.shape[1:] == theirs.shape[1:]:
        to, source = (torch.tensor(column) for column in zip(*pairs, strict=True))
        mine[to] = theirs[source]


def rows_digest(rows: Sequence[Row]) -> str:
    """The first 12 hex digits of a hash over all rows, in their order."""
    digest = hashlib.sha256()
    for row in rows:
        said = f"{row.text}\0{row.skill_id}\0{','.join(row.linked or ())}\0{row.weight:.6g}\0{row.beliefs}\n"
        digest.update(said.encode())
    return digest.hexdigest()[:12]
