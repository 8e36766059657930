"""How long a cycle takes on many outcomes: `python -m benchmarks.cycle --data CORPUS [--outcomes 100000]`.

Runs its own broker, router and aggregator. The first release is taught a fifth of the training rows, as in
`namefree experiment learning`; simulated customers ask the others, again from the top after the last, and what
they did is one cycle's to learn from, beside that fifth. Timed is the cycle: reading the topics, training from the
first release's weights, judging, publishing. `--first BUNDLE` is a first release that is there already.
"""

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click

from model.bundle import write_bundle
from model.data import read_rows, read_skills, split_path
from model.pipeline import Recipe, steps, train
from topics.broker import embedded_broker
from topics.registry import create_topics
from topics.settings import Settings
from workers import console
from workers.behaviour import FLAWED
from workers.catalogue import load_catalogue
from workers.children import Child, wait_for
from workers.crowd import Crowd, Plan
from workers.customers import simulate_crowd
from workers.cycle_options import CycleOptions
from workers.learning_plan import COSTS
from workers.learning_run import JUDGED, PATIENCE_S, until_folded
from workers.portions import write_folder
from workers.releases import publish
from workers.trainer import run_cycle
from workers.worlds import World, draw

FIRST = 0.2  # of the training rows
COST = [word for name, cost in COSTS.items() for word in (f"--cost-{name}", f"{cost:g}")]


def first_release(world: World, folder: Path) -> Path:
    total = steps(len(world.taught), world.cards, Recipe())
    with console.progress("train the first release", total) as advance:
        write_bundle(train(world.cards, world.taught, Recipe(), advance), folder)
        advance(total, "done")
    return folder


def ask(settings: Settings, world: World, outcomes: int, workers: tuple[Child, Child]) -> None:
    """Asks so much, and waits until the statistics hold it."""
    crowd = Crowd(world.rows, Plan("cycle", count=outcomes, devices=FLAWED, patience_s=PATIENCE_S))
    with console.progress("customers", outcomes) as advance:
        summary = simulate_crowd(settings, crowd, advance)
    until_folded(settings, summary.decided, summary.acted, workers)


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--outcomes", default=100_000, show_default=True, type=click.IntRange(1))
@click.option("--first", type=click.Path(path_type=Path, exists=True, file_okay=False))
def main(data: Path, outcomes: int, first: Path | None) -> None:
    console.start_logging("warning")
    world = draw("steady", read_skills(data), read_rows(split_path(data, "train")), 1, FIRST, 0)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_folder(folder / "corpus", world.cards, world.taught, world.checked)
        share = min(CycleOptions.judge_share, JUDGED / outcomes)
        options = CycleOptions(store=folder / "store", data=folder / "corpus", judge_share=share)
        first = first or first_release(world, folder / "first")
        settings = Settings(bootstrap=stack.enter_context(embedded_broker()).bootstrap)
        create_topics(settings)
        load_catalogue(settings, world.cards)
        publish(settings, first, options.store, "", {}, "the first")
        workers = (
            stack.enter_context(Child.start(settings, folder, "route", *COST)),
            stack.enter_context(Child.start(settings, folder, "aggregate")),
        )
        wait_for(lambda: all(one.is_ready() for one in workers), "the workers to be ready", workers, PATIENCE_S)
        ask(settings, world, outcomes, workers)
        began_s = time.monotonic()
        result = run_cycle(settings, options)
        seconds = time.monotonic() - began_s
    rows = (result.corpus_rows, result.outcome_rows, result.believed_rows, result.judged_rows)
    columns = ["outcomes", "corpus rows", "labelled", "believed", "judged by", "seconds", "top-1 before", "after"]
    top1 = (result.before["decision_top1"], result.after["decision_top1"])
    verdict = "published" if result.published else "refused"  # it was trained and judged either way
    console.print_table(
        f"one cycle, {verdict}: {result.reason}", columns, [[f"{outcomes:,}", *rows, round(seconds), *top1]]
    )


if __name__ == "__main__":
    main()
