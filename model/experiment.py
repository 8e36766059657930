"""The shortlister's experiment: every system with every seed, each pair a cell that is computed once.

Systems over one text model make a job: the text is trained once, read by all of them, and jobs run side by side
in processes. What a process finishes is on disk at once, so a run that breaks off goes on where it was.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from msgspec import Struct
from msgspec.structs import replace

from model.cells import Digests, Store, TextDone, cell_key, text_key
from model.conditions import Conditions, read_conditions
from model.data import Row, read_rows, read_skills, split_path
from model.linking import Seen, fit_links, seen_by
from model.measuring import Asked, Result, ask, epochs_of, measure, rate
from model.pipeline import Corpus, Recipe, fresh, prepare, steps, train_text
from model.pretrained import is_installed
from model.shortlist import Shortlists
from model.shortlister import Shortlister
from model.statistics import Statistics
from model.systems import System, seeded, shortened, text_recipe
from topics.errors import BadData
from topics.events import SkillCard

Report = Callable[[float, str], None]  # how much of a job is done, 0 to 1, and what it is at
TEXT_SHARE = 20.0  # a text model takes as long as so many systems over it; measured, and so are the next
READING = {"bag": 0.7, "convolution": 1.0, "bilstm": 1.6}  # of it, by what reads
JOINTLY = 1.25  # of it, where links are trained with it
QUICK_SEEDS, SEEDS = 2, 3


@dataclass(frozen=True)
class Market:
    """What a data folder has for an experiment."""

    cards: list[SkillCard]
    rows: list[Row]
    conditions: Conditions
    digests: Digests


def read_market(folder: Path) -> Market:
    """Raises BadData and UsageError as `model.data` does, and BadData where no training row says who is linked."""
    cards, rows = read_skills(folder), read_rows(split_path(folder, "train"))
    if all(row.linked is None for row in rows):
        raise BadData(
            f"no training row of {folder} says who is linked (`linked`): there is nothing to learn what links are "
            "worth from"
        )
    conditions = read_conditions(folder)
    return Market(cards, rows, conditions, Digests.of(cards, rows, conditions))


class Cell(Struct, frozen=True, kw_only=True):
    """A system with a seed. `key`: the name of its result on disk."""

    system: str
    seed: int
    recipe: Recipe
    constant: float | None
    key: str
    text: str  # the name of its text model


class Job(Struct, frozen=True, kw_only=True):
    """Cells over one text model."""

    recipe: Recipe  # the text model's
    text: str
    cells: tuple[Cell, ...]

    @property
    def text_size(self) -> float:
        """How long the text model takes, in systems over it."""
        joint = JOINTLY if self.recipe.training.jointly else 1.0
        return TEXT_SHARE * READING[self.recipe.shortlister.reading] * joint

    @property
    def size(self) -> float:
        return self.text_size + len(self.cells)


def cells_of(market: Market, systems: Sequence[System], seeds: Sequence[int], quick: bool) -> list[Cell]:
    """Every system with every seed."""
    found = []
    for system in systems:
        for seed in seeds:
            recipe = seeded(shortened(system.recipe) if quick else system.recipe, seed)
            recipe = replace(recipe, pretrained=recipe.pretrained and is_installed())
            key = cell_key(market.digests, recipe, system.constant)
            found.append(
                Cell(
                    system=system.name,
                    seed=seed,
                    recipe=recipe,
                    constant=system.constant,
                    key=key,
                    text=text_key(market.digests, recipe),
                )
            )
    return found


def jobs_of(cells: Sequence[Cell], store: Store) -> list[Job]:
    """What is still to do: the text models with most systems first, then what takes longest."""
    missing = {cell.key: cell for cell in cells if store.result(cell.key) is None}
    texts: dict[str, list[Cell]] = {}
    for cell in missing.values():
        texts.setdefault(cell.text, []).append(cell)
    jobs = [Job(recipe=text_recipe(part[0].recipe), text=text, cells=tuple(part)) for text, part in texts.items()]
    return sorted(jobs, key=lambda job: (-len(job.cells), -job.size))


@dataclass(frozen=True)
class _Shared:
    """What the cells of a job have in common."""

    text: Shortlister
    done: TextDone
    corpus: Corpus
    asked: Asked
    seen: Seen | None  # None where no cell fits links over a text that stands still
    seen_seconds: float


def do_job(job: Job, market: Market, store: Store, report: Report) -> None:
    """Computes and keeps a job's cells."""
    corpus = prepare(market.cards, market.rows, job.recipe)
    text, done = _text(job, market, corpus, store, lambda share, note: report(share * job.text_size, note))
    asked = ask(text, corpus, market.conditions)
    started = time.perf_counter()
    seen = None
    if (
        not job.recipe.training.jointly
    ):  # all cells of a job have one seed, and nothing else of the settings counts
        seen = seen_by(text, corpus.words, corpus.kept, corpus.aside, job.cells[0].recipe.links)
    shared = _Shared(text, done, corpus, asked, seen, time.perf_counter() - started)
    for at, cell in enumerate(job.cells):
        report(job.text_size + at, f"{cell.system}, seed {cell.seed}")
        store.keep_result(cell.key, _result(cell, shared, market.conditions))
    report(job.size, f"{job.cells[-1].system}, seed {job.cells[-1].seed}")


def _text(job: Job, market: Market, corpus: Corpus, store: Store, report: Report) -> tuple[Shortlister, TextDone]:
    """The job's text model, from disk where it is there."""
    found = store.text(job.text)
    if found is not None:
        model, (weights, done) = fresh(corpus, job.recipe), found
        model.load_state_dict(weights)
        return model.eval(), done
    started = time.perf_counter()
    total = steps(len(market.rows), market.cards, job.recipe)
    label = f"text of {job.cells[0].system}, seed {job.cells[0].seed}"
    report(0.0, label)
    model, trained = train_text(
        corpus, job.recipe, lambda step, note: report(min(1.0, step / total), f"{label}, {note}"), Statistics()
    )
    epochs = epochs_of(trained.history, corpus.catalogue.ids())
    done = TextDone(time.perf_counter() - started, trained.top3, epochs)
    if len(job.cells) > 1:  # a text model of a single system is of no use once that is measured
        store.keep_text(job.text, model.state_dict(), done)
    return model.eval(), done


def _result(cell: Cell, shared: _Shared, conditions: Conditions) -> Result:
    corpus, done, ids = shared.corpus, shared.done, shared.corpus.catalogue.ids()
    model, epochs, seconds = over(shared.text, corpus, cell.recipe), done.epochs, 0.0
    if cell.constant is not None:
        with torch.no_grad():
            model.links.bias.fill_(cell.constant)
    elif shared.seen is not None:
        started = time.perf_counter()
        history = fit_links(model, corpus.catalogue, shared.seen, cell.recipe.links, Statistics())
        seconds = time.perf_counter() - started + shared.seen_seconds
        epochs = epochs_of(history, ids)
    exact = Shortlists(model.eval(), kind="float32")  # figures are the same on every machine
    found = measure(exact, shared.asked, ids)
    return Result(
        ranks=found.ranks,
        weights=found.weights,
        examples=found.examples,
        epochs=epochs,
        text_seconds=round(done.seconds, 2),
        link_seconds=round(seconds, 2),
        requests_per_s=round(rate(Shortlists(model), corpus, conditions), 1),
        held_out_top3=round(done.top3, 4),
    )


def over(text: Shortlister, corpus: Corpus, recipe: Recipe) -> Shortlister:
    """A system's shortlister that reads as `text` does; its links have learned nothing yet, unless jointly."""
    model = fresh(corpus, recipe)
    mine = model.state_dict()
    known = text.state_dict()
    if not recipe.training.jointly:
        known = {name: tensor for name, tensor in known.items() if not name.startswith(("links.", "mix."))}
    model.load_state_dict({**mine, **known})
    return model
