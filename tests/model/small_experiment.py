"""A market small enough for an experiment of seconds: four families of the sample, and small networks."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import msgspec
from msgspec.structs import replace

from model.cells import Store
from model.data import Row, read_rows, read_skills, split_path
from model.experiment import Cell, Job, Market, cells_of, do_job, jobs_of, read_market
from model.measuring import Result
from model.sample import SAMPLE_DIR
from model.systems import System, selected

FAMILIES = ("rides:", "weather:", "pizza:", "timers:")


def write_folder(folder: Path) -> Path:
    """A data folder with the four families' cards and rows."""
    folder.mkdir(parents=True, exist_ok=True)
    cards = [card for card in read_skills(SAMPLE_DIR) if card.skill_id.startswith(FAMILIES)]
    known = {card.skill_id for card in cards}
    _write(folder / "skills.jsonl", cards)
    for split in ("train", "dev"):
        rows = read_rows(split_path(SAMPLE_DIR, split))
        kept = [row for row in rows if row.skill_id is None or row.skill_id in known]
        _write(folder / f"utterances.{split}.jsonl", [_among(row, known) for row in kept])
    return folder


def _among(row: Row, known: set[str]) -> Row:
    return replace(row, linked=tuple(skill for skill in row.linked or () if skill in known))


def _write(path: Path, values: Sequence[msgspec.Struct]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(value) + b"\n" for value in values))


def small(names: str) -> list[System]:
    """The named systems (with commas, or groups) with small networks and few epochs."""
    return [shrunk(system) for system in selected(names.split(","))]


def shrunk(system: System) -> System:
    recipe = system.recipe
    small = replace(
        recipe,
        shortlister=replace(recipe.shortlister, word_width=24, state_width=12, width=24),
        training=replace(recipe.training, epochs=1, batch=64),
        links=replace(recipe.links, epochs=2),
        text=replace(recipe.text, ngram_rows=1024),
        pretrained=False,
    )
    return replace(system, recipe=small)


@cache
def market_of(folder: Path) -> Market:
    return read_market(folder)


def run(cells: Sequence[Cell], market: Market, store: Store) -> list[Job]:
    """Computes what is missing, in this process; returns the jobs that this took."""
    jobs = jobs_of(cells, store)
    for job in jobs:
        do_job(job, market, store, lambda done, note: None)
    return jobs


def results_of(cells: Sequence[Cell], store: Store) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for cell in cells:
        result = store.result(cell.key)
        assert result is not None, f"{cell.system} is not there"
        found.setdefault(cell.system, []).append(result)
    return found


def small_results(
    folder: Path, names: str, seeds: Sequence[int] = (0,)
) -> tuple[Market, list[Cell], dict[str, list[Result]]]:
    """A finished small experiment in a folder."""
    market, store = market_of(write_folder(folder / "data")), Store(folder / "out")
    cells = cells_of(market, small(names), seeds, quick=False)
    run(cells, market, store)
    return market, cells, results_of(cells, store)
