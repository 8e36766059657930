"""`namefree experiment`: what the model's parts are worth, measured."""

import logging
import time
from pathlib import Path
from typing import Any

import click
import msgspec
import torch

from model.cells import Store, write_whole
from model.conditions import SHARES
from model.experiment import QUICK_SEEDS, SEEDS, Cell, Market, cells_of, jobs_of, read_market
from model.measuring import Result
from model.processes import run_jobs
from model.sample import SAMPLE_DIR
from model.summaries import summary
from model.systems import GROUPS, selected
from topics.folders import home_dir
from workers import console
from workers.commands import experiment_learning, experiment_onboarding, experiment_reranker
from workers.experiment_report import render
from workers.pages import make_room, write_page

log = logging.getLogger("namefree.experiment")
COLUMNS = (
    *("system", "top3 at 90", "70", "0", "no links"),
    *("top1 at 90", "70", "0", "mrr at 70", "training s"),
)


@click.group("experiment")
def command() -> None:
    """What the model's parts are worth, measured.

    \b
    Example:
      namefree experiment shortlister --quick
      namefree experiment onboarding --quick
      namefree experiment reranker --quick
      namefree experiment learning --quick
    """


command.add_command(experiment_onboarding.command)
command.add_command(experiment_reranker.command)
command.add_command(experiment_learning.command)


@command.command("shortlister", context_settings={"show_default": True})
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Data folder.  [default: the sample marketplace that ships]",
)
@click.option("--quick", is_flag=True, help="Half of the epochs, two seeds, and the ladder alone.")
@click.option(
    "--seeds", type=click.IntRange(1), help=f"How many.  [default: {SEEDS}, or {QUICK_SEEDS} with --quick]"
)
@click.option(
    "--systems",
    "names",
    metavar="NAMES",
    help=f"Systems or groups ({', '.join(GROUPS)}), with commas.  [default: all, or the ladder with --quick]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Cells, results.json and report.html.  [default: experiments/shortlister in namefree's state folder]",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    help="How many side by side, each on its share of the threads.  [default: one thread each]",
)
@console.json_option
def shortlister(
    data: Path | None,
    quick: bool,
    seeds: int | None,
    names: str | None,
    out: Path | None,
    processes: int | None,
    as_json: bool,
) -> None:
    """Compare ways to weigh links: none, a bonus, softmax, sigmoid, supervised, self-distilled, and all that
    departs from the published recipe.

    What is finished is kept: the same command goes on where it was, and computes nothing twice. Ends with a table
    and the path of a report.

    \b
    Example:
      namefree experiment shortlister --quick
      namefree experiment shortlister --data my-data --systems softmax,best
    """
    folder = data or SAMPLE_DIR
    out = (out or home_dir() / "experiments" / "shortlister").absolute()
    asked = names.split(",") if names else ["ladder"] if quick else list(GROUPS)
    systems = selected([name.strip() for name in asked])
    make_room(out / "report.html")
    market, store = read_market(folder), Store(out)
    cells = cells_of(market, systems, range(seeds or (QUICK_SEEDS if quick else SEEDS)), quick)
    _compute(cells, folder, market, store, processes or torch.get_num_threads())
    results = _results(cells, store)
    found = summary(market, cells, results, quick)
    write_whole(out / "results.json", msgspec.json.format(msgspec.json.encode(found), indent=1))
    report = out / "report.html"
    write_page(render(found, {card.skill_id: card.name for card in market.cards}), report)
    if as_json:
        console.print_json(found | {"report": str(report)})
    else:
        _show(found, report)


def _compute(cells: list[Cell], data: Path, market: Market, store: Store, processes: int) -> None:
    jobs = jobs_of(cells, store)
    missing = sum(len(job.cells) for job in jobs)
    log.info("%d cells, %d of them still to compute over %d text models", len(cells), missing, len(jobs))
    if not jobs:
        return
    started, total = time.monotonic(), sum(job.size for job in jobs)
    with console.progress("experiment", round(total)) as advance:
        run_jobs(jobs, data, market, store, processes, lambda done, note: advance(int(done), note))
        advance(round(total), "")
    log.info("%d cells in %.0f s", missing, time.monotonic() - started)


def _results(cells: list[Cell], store: Store) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for cell in cells:
        result = store.result(cell.key)
        if result is None:
            raise RuntimeError(f"cell {cell.key} is not there though its job has ended")
        found.setdefault(cell.system, []).append(result)
    return found


def _show(found: dict[str, Any], report: Path) -> None:
    systems: dict[str, Any] = found["systems"]
    for group, told in GROUPS.items():
        rows = [_row(name, one) for name, one in systems.items() if one["group"] == group]
        if rows:
            console.print_table(f"{group}: {told}", COLUMNS, rows)
    for base in ("softmax", "bonus"):
        rows = [_fewer(name, one["against"][base]) for name, one in systems.items() if base in one["against"]]
        if rows:
            title = f"errors at shortlists of three, in % fewer than {base} (paired 95 % interval)"
            console.print_table(title, ("system", *(f"at {share} % linked" for share in SHARES)), rows)
    dev_rows, seeds = found["data"]["dev_rows"], len(found["seeds"])
    console.out.print(f"{dev_rows:,} dev rows, {seeds} seeds; links: {found['links']}")
    console.out.print(str(report))


def _row(name: str, one: dict[str, Any]) -> list[object]:
    measures = one["measures"]
    top3 = [measures[condition]["top3"]["mean"] for condition in ("90", "70", "0", "alone")]
    top1 = [measures[condition]["top1"]["mean"] for condition in ("90", "70", "0")]
    return [name, *top3, *top1, measures["70"]["mrr"]["mean"], round(one["text_seconds"] + one["link_seconds"])]


def _fewer(name: str, against: dict[str, Any]) -> list[object]:
    told = [against[str(share)]["top3"]["fewer_errors"] for share in SHARES]
    return [name, *(_percentages(one) if one else "–" for one in told)]


def _percentages(one: dict[str, float]) -> str:
    mean, low, high = (f"{100 * one[field]:+.1f}" for field in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"
