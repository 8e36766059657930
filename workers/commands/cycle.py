"""`namefree cycle`: from what customers did to a new release, or to a refusal with its reason."""

import logging
import threading
from pathlib import Path

import click
import msgspec
import torch

from model.gate_lines import Bounds
from topics.errors import WorkerError
from topics.settings import Settings
from workers import console
from workers.cycle_options import CycleOptions, Learning
from workers.lifecycle import stop_on_signals
from workers.promotion import PromotionOptions
from workers.promotion_options import promotion_options
from workers.release_store import default_store
from workers.trainer import CycleResult, run_cycle

log = logging.getLogger("namefree.cycle")
DEFAULTS = CycleOptions(store=Path())
PARTS = Learning.__struct_fields__


@click.command(context_settings={"show_default": True})
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A corpus beside the outcomes: its train split is learned from, its dev split judges.",
)
@click.option(
    "--every",
    type=click.FloatRange(0, min_open=True),
    metavar="MINUTES",
    help="Go on, a cycle every so many minutes.  [default: once]",
)
@click.option(
    "--epochs",
    type=click.IntRange(1),
    default=DEFAULTS.cycle_epochs,
    help="At most, from the serving release's weights.",
)
@click.option(
    "--max-loss",
    type=click.FloatRange(0, 1),
    default=DEFAULTS.bounds.max_loss,
    help="A candidate whose top-1 or top-3 over all judged rows falls by more is refused.",
)
@click.option(
    "--min-outcomes",
    type=click.IntRange(0),
    default=DEFAULTS.min_outcomes,
    help="Fewer telling outcomes are not worth a cycle.",
)
@click.option(
    "--judge-share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=DEFAULTS.judge_share,
    help="Of the outcomes' texts, what judges and is never learned from: some 2,000 labelled ones judge well.",
)
@click.option(
    "--half-life",
    type=click.FloatRange(0),
    default=DEFAULTS.half_life_hours,
    metavar="HOURS",
    help="In which statistics lose half of their weight; 0: they never do.",
)
@click.option(
    "--without",
    type=click.Choice(PARTS),
    multiple=True,
    help="Leave this part of the learning out, to see what it is worth. May be given more than once.",
)
@click.option(
    "--promote", is_flag=True, help="Try the candidate on a few customers first; the flags below say how."
)
@promotion_options
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write a page about it here.")
@click.option(
    "--store", type=click.Path(path_type=Path), help="The release store.  [default: the user's data folder]"
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all]")
@console.json_option
@click.pass_obj
def command(
    settings: Settings,
    data: Path | None,
    every: float | None,
    epochs: int,
    max_loss: float,
    min_outcomes: int,
    judge_share: float,
    half_life: float,
    without: tuple[str, ...],
    promote: bool,
    promotion: PromotionOptions,
    report: Path | None,
    store: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """One distillation cycle: train on the corpus, the statistics and what customers did; judge the candidate
    beside the serving release, in slices and skill by skill, on rows that neither was trained on and by what
    customers accepted; publish it, or refuse it and say why. A refusal is an answer, and exits with 0.

    \b
    Example:
      namefree cycle
      namefree cycle --data my-data --every 60 --promote --report cycle.html
    """
    if threads:
        torch.set_num_threads(threads)
    options = CycleOptions(
        store=store or default_store(),
        data=data,
        judge_share=judge_share,
        min_outcomes=min_outcomes,
        half_life_hours=half_life,
        bounds=Bounds(max_loss=max_loss),
        cycle_epochs=epochs,
        learning=Learning(**dict.fromkeys(without, False)),
        promotion=promotion if promote else None,
        report=report,
    )
    with stop_on_signals() as stop:
        if every is None:
            _show(run_cycle(settings, options, stop), as_json)
        else:
            _go_on(settings, options, every * 60, stop, as_json)


def _go_on(
    settings: Settings, options: CycleOptions, pause_s: float, stop: threading.Event, as_json: bool
) -> None:
    """A cycle, a pause, and again. Too little to learn from is no reason to end; a dead broker is."""
    while not stop.is_set():
        try:
            _show(run_cycle(settings, options, stop), as_json)
        except WorkerError as error:
            log.warning("no cycle this time: %s", error)
        stop.wait(pause_s)


def _show(result: CycleResult, as_json: bool) -> None:
    if as_json:
        console.print_json(msgspec.to_builtins(result))
        return
    verdict = f"published {result.release}" if result.published else f"refused {result.release}"
    console.out.print(f"{verdict}: {result.reason}")
    rows = [(name, result.before.get(name), value) for name, value in result.after.items()]
    learned = (
        f"{result.corpus_rows:,} corpus rows, {result.outcome_rows:,} labelled outcomes, "
        f"{result.believed_rows:,} believed ones, judged on {result.judged_rows:,}"
    )
    console.print_table(learned, ("measure", "serving", "candidate"), rows)
    if gain := result.gain:
        console.out.print(f"gain of decision top-1: {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]")
