"""The reranker's experiment: what each group of its features is worth, and which network looks at them best.

With every seed one shortlister is trained, and its lists and all that is known of their candidates are made once;
over these only the small network is fitted anew, with some of the features or in another form. What a seed gave is
kept on disk under what made it.
"""

import hashlib
import inspect
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from msgspec import Struct
from msgspec.structs import replace
from torch import Tensor

from model.catalogue import Catalogue
from model.cells import Store, TextDone, code_digest, text_key, without_remarks, write_whole
from model.conditions import ALONE
from model.data import Row, read_skills
from model.evidence import Evidence
from model.experiment import Market
from model.fitting import fit_reranker
from model.pipeline import (
    Corpus,
    Recipe,
    fresh,
    gathered,
    held_out_lists,
    prepare,
    rows_digest,
    steps,
    train_links,
    train_text,
)
from model.pretrained import is_installed
from model.reading_quality import measure, truths
from model.readings import Readings
from model.reranker import Group, Reranker, RerankerSettings, Together
from model.reranker_measures import Deciding, Figures, intruding, shuffling
from model.rivals import rival_rows
from model.sample import SAMPLE_DIR
from model.shortlist import Shortlists
from model.shortlister import Shortlister
from model.simulated_answers import AskingEvidence, Honest, SimulatedAnswers
from model.statistics import Statistics
from model.systems import seeded, shortened

Report = Callable[[float, str], None]  # how many of `Plan.work` are done, and what it is at
TRAINING = 100.0  # of the work of a seed, and so much a network and a condition:
FITTING, MEASURING = 3.0, 2.0
CHANGED_AT = 70  # percent linked, of the rows whose lists are shuffled and intruded upon
ALL, BARE, ASKED = "all", "all but CanFulfill", "all, asked (simulated)"


class Variant(Struct, frozen=True, kw_only=True):
    """A network. `asked`: candidates are asked, and their cards' declarations hold for who is silent alone."""

    told: str
    groups: tuple[Group, ...] = RerankerSettings().groups
    together: Together = RerankerSettings().together
    asked: bool = False

    @property
    def content(self) -> tuple[object, ...]:
        """Equal ones are fitted once."""
        return self.groups, self.together, self.asked


VARIANTS = {
    "CanFulfill": Variant(
        told="beside the shortlister's score CanFulfill by the cards alone", groups=("fulfilment",)
    ),
    "intents, CanFulfill": Variant(told="and the request read", groups=("intents", "fulfilment")),
    "text": Variant(told="the shortlister's text score, wording, phrases, cards", groups=("text",)),
    "+ links": Variant(told="and links, with their habits", groups=("text", "links")),
    "+ intents, slots": Variant(told="and the request read", groups=("text", "links", "intents")),
    "+ declared": Variant(told="and CanFulfill by the cards", groups=("text", "links", "intents", "fulfilment")),
    "+ asked (simulated)": Variant(
        told="the same, by answers that are simulated",
        groups=("text", "links", "intents", "fulfilment"),
        asked=True,
    ),
    ALL: Variant(told="and statistics, answers by the cards: as shipped"),
    ASKED: Variant(told="the same, by answers that are simulated", asked=True),
    BARE: Variant(told="what CanFulfill says is not seen", groups=("text", "links", "intents", "statistics")),
    "transformer": Variant(told="all; candidates see each other by a transformer", together="transformer"),
    "bilstm": Variant(told="all; by a BiLSTM over the list", together="bilstm"),
    "pointwise": Variant(told="all; by features of the list alone", together="pointwise"),
}


class SeedDone(Struct, frozen=True, kw_only=True):
    """What a seed gave, by system. `ranks`: of each row what is meant, by condition, from 1; 0 where it is not on
    the list. `shuffled`, `intruded`: share of decisions that change. `reading`: see `model.reading_quality`."""

    ranks: dict[str, dict[str, list[int]]]
    figures: dict[str, dict[str, Figures]]
    shuffled: dict[str, float]
    intruded: dict[str, float]
    reading: dict[str, float]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Plan:
    """What is done. `honest`: what a card says when asked."""

    market: Market
    recipe: Recipe
    seeds: int
    quick: bool
    honest: Honest

    @property
    def conditions(self) -> dict[str, list[Row]]:
        """The rows that are measured, by condition."""
        market = self.market
        found = {str(share): rows for share, rows in market.conditions.rows.items()}
        found[ALONE] = [replace(row, linked=()) for row in market.conditions.texts]
        return found | rival_rows(market.conditions.rows[CHANGED_AT], market.cards)

    @property
    def work(self) -> float:
        """Of all seeds."""
        return self.seeds * (TRAINING + FITTING * len(VARIANTS) + MEASURING * (len(self.conditions) + 2))


def planned(market: Market, quick: bool, seeds: int, honest: Honest, recipe: Recipe | None = None) -> Plan:
    """The standard recipe, with half of the epochs where `quick`; another where it is given."""
    standard = recipe or (shortened(Recipe()) if quick else Recipe())
    standard = replace(standard, pretrained=standard.pretrained and is_installed())
    return Plan(market, standard, seeds, quick, honest)


def run(plan: Plan, folder: Path, report: Report) -> list[SeedDone]:
    """What every seed gave, from disk where it is there."""
    found = []
    each = plan.work / plan.seeds
    for seed in range(plan.seeds):
        done = each * seed
        place = folder / "seeds" / f"{_key(plan, seed)}.json"
        given = _kept(place)
        if given is None:
            given = _Seed(plan, seed, folder, _from(done, report)).given()
            write_whole(place, msgspec.json.encode(given))
        found.append(given)
    report(plan.work, "done")
    return found


def _from(done: float, report: Report) -> Report:
    return lambda at, note: report(done + at, note)


def _kept(place: Path) -> SeedDone | None:
    try:
        return msgspec.json.decode(place.read_bytes(), type=SeedDone)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _key(plan: Plan, seed: int) -> str:
    """A hash of all that a seed's figures depend on."""
    digests = plan.market.digests
    asks = without_remarks(Path(inspect.getfile(plan.honest)))
    conditions = [f"{name} {rows_digest(rows)}" for name, rows in plan.conditions.items()]
    parts = (digests.taught, *conditions, code_digest(modules_of("reranker_experiment")), asks)
    recipe = msgspec.json.encode(seeded(plan.recipe, seed))
    return hashlib.sha256(b"\0".join((recipe, *(part.encode() for part in parts)))).hexdigest()[:16]


def modules_of(name: str) -> tuple[str, ...]:
    """A module of this package and all that it imports of it."""
    folder = Path(__file__).parent
    found: set[str] = set()
    waiting = [name]
    while waiting:
        path = folder / f"{waiting.pop()}.py"
        if path.is_file() and path.stem not in found:
            found.add(path.stem)
            waiting += re.findall(r"(?m)^from model\.(\w+) import", path.read_text())
    return tuple(sorted(found))


class _Seed:
    """One seed: trains, fits, measures."""

    def __init__(self, plan: Plan, seed: int, folder: Path, report: Report) -> None:
        self._plan, self._number, self._report = plan, seed, report
        self._recipe = seeded(plan.recipe, seed)
        self._store = Store(folder)
        self._done = TRAINING
        self._started = time.perf_counter()
        self._seconds: dict[str, float] = {}

    def given(self) -> SeedDone:
        # 1. the shortlister, with what links are worth
        corpus = prepare(self._plan.market.cards, self._plan.market.rows, self._recipe)
        model = self._text(corpus)
        statistics = train_links(corpus, model, self._recipe, Statistics())
        self._lap("training")
        # 2. its lists, with all that is known of the candidates; the same with answers
        making = Shortlists(model, kind="float32")
        fitting, serving = gathered(corpus, making, statistics, self._recipe)
        tells = {False: (fitting, serving), True: (self._asking(fitting, corpus), self._asking(serving, corpus))}
        self._lap("evidence")
        # 3. the networks
        networks = self._networks(corpus, making, {asked: pair[0] for asked, pair in tells.items()})
        self._lap("fitting")
        # 4. what they decide
        measured = Deciding(corpus, making, {asked: pair[1] for asked, pair in tells.items()}, networks)
        for name, rows in self._plan.conditions.items():
            self._step(MEASURING, f"deciding {name}")
            measured.take(name, rows)
        rows = self._plan.conditions[str(CHANGED_AT)]
        popularity = _popularity(self._plan.market, corpus, statistics)
        self._step(MEASURING, "lists in another order")
        shuffled = measured.shares_changed(str(CHANGED_AT), rows, lambda: shuffling(self._number))
        self._step(MEASURING, "lists with one candidate more")
        intruded = measured.shares_changed(str(CHANGED_AT), rows, lambda: intruding(making, popularity))
        self._lap("measuring")
        return SeedDone(
            ranks=measured.ranks,
            figures=measured.figures,
            shuffled=shuffled,
            intruded=intruded,
            reading=_reading(model, corpus),
            seconds=self._seconds,
        )

    def _text(self, corpus: Corpus) -> Shortlister:
        """The text model, from disk where it is there."""
        key, market, label = text_key(self._plan.market.digests, self._recipe), self._plan.market, "training"
        kept = self._store.text(key)
        if kept is not None:
            model = fresh(corpus, self._recipe)
            model.load_state_dict(kept[0])
            return model.eval()
        total = steps(len(market.rows), market.cards, self._recipe)
        model, done = train_text(
            corpus,
            self._recipe,
            lambda step, note: self._report(TRAINING * min(1.0, step / total), f"{label}, {note}"),
            Statistics(),
        )
        seconds = time.perf_counter() - self._started
        self._store.keep_text(key, model.state_dict(), TextDone(seconds, done.top3, []))
        return model.eval()

    def _asking(self, evidence: Evidence, corpus: Corpus) -> Evidence:
        answers = SimulatedAnswers(self._plan.market.cards, self._plan.honest, self._number)
        return AskingEvidence(evidence, answers, corpus.catalogue.ids())

    def _networks(
        self, corpus: Corpus, making: Shortlists, tells: dict[bool, Evidence]
    ) -> dict[str, tuple[Reranker, bool]]:
        """A fitted network for each of `VARIANTS`, and whether it is told answers."""
        lists = {asked: held_out_lists(corpus, making, told, self._recipe) for asked, told in tells.items()}
        fitted: dict[tuple[object, ...], Reranker] = {}
        for name, variant in VARIANTS.items():
            self._step(FITTING, f"fitting {name}")
            if variant.content not in fitted:
                shape = replace(self._recipe.reranker, groups=variant.groups, together=variant.together)
                rows = len(corpus.aside)
                fitted[variant.content] = fit_reranker(lists[variant.asked], shape, self._recipe.fitting, rows)
        return {name: (fitted[variant.content], variant.asked) for name, variant in VARIANTS.items()}

    def _step(self, size: float, note: str) -> None:
        self._report(self._done, f"seed {self._number}, {note}")
        self._done += size

    def _lap(self, name: str) -> None:
        now = time.perf_counter()
        self._seconds[name], self._started = round(now - self._started, 1), now


def _popularity(market: Market, corpus: Corpus, statistics: Statistics) -> Tensor:
    """How popular each skill is, (S,): reviews (their logarithm) and share of all choices, both standardised."""
    reviews = np.log1p([card.reviews for card in market.cards])
    shares = statistics.share_chosen(corpus.catalogue.ids())
    both = np.stack([reviews, shares])
    spread = np.maximum(both.std(1, keepdims=True), 1e-9)
    return torch.from_numpy(((both - both.mean(1, keepdims=True)) / spread).sum(0))


def _reading(model: Shortlister, corpus: Corpus) -> dict[str, float]:
    """How well requests of the sample's own templates are read, with the words that were learned here."""
    catalogue = Catalogue(read_skills(SAMPLE_DIR))
    found = measure(Readings.of(catalogue, model.encoder, corpus.vocabulary), catalogue, truths())
    return {name: round(value, 4) for name, value in found.items()}
