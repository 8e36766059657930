"""`namefree experiment onboarding`: how well skills are found that joined after the training."""

from pathlib import Path
from typing import Any

import click
import msgspec

from model.cells import write_whole
from model.experiment import read_market
from model.onboarding_experiment import LEFT_OUT, planned, run
from model.sample import SAMPLE_DIR
from topics.folders import home_dir
from workers import console

CELLS = (
    *(("left_out", "linked"), ("left_out", "text"), ("left_out", "decision")),
    *(("rivals", "linked"), ("rivals", "text"), ("others", "linked"), ("others", "text")),
)
COLUMNS = (
    *("", "left out: linked", "text", "decision", "rivals: linked", "text", "others: linked", "text"),
    *("of full", "ms each, most"),
)


@click.command("onboarding", context_settings={"show_default": True})
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Data folder.  [default: the sample marketplace that ships]",
)
@click.option("--quick", is_flag=True, help="Half of the epochs, and 0 and 3 phrases alone.")
@click.option("--skills", type=click.IntRange(1), default=LEFT_OUT, help="How many join, at most a tenth of all.")
@click.option("--seed", type=int, default=0, help="Of the choice of skills and phrases, and of the trainings.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Bundles and results.json.  [default: experiments/onboarding in namefree's state folder]",
)
@console.json_option
def command(data: Path | None, quick: bool, skills: int, seed: int, out: Path | None, as_json: bool) -> None:
    """Leave skills out of a training, let them join by their cards with 0, 1, 3 and 10 phrases, and compare with a
    training that had them all along.

    The trained bundles are kept: the same command trains once.

    \b
    Example:
      namefree experiment onboarding --quick
      namefree experiment onboarding --data my-data
    """
    out = (out or home_dir() / "experiments" / "onboarding").absolute()
    plan = planned(read_market(data or SAMPLE_DIR), quick, skills, seed)
    with console.progress("experiment", plan.work) as advance:
        found = run(plan, out, lambda done, note: advance(int(done), note))
    write_whole(out / "results.json", msgspec.json.format(msgspec.json.encode(found), indent=1))
    if as_json:
        console.print_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    rows = [("training with all", *_figures(found["full"]), None, None)]
    rows += [(_told(one), *_figures(one), one["share_of_full"]["linked"], _ms(one)) for one in found["joined"]]
    rows += [("training without them", None, None, None, *_figures(found["without"])[3:], None, None)]
    title = (
        f"top-3 of {found['left_out']} skills left out of {found['skills']:,} "
        f"({found['rows']['left_out']:,} dev rows), linked in {found['condition']} %"
    )
    console.print_table(title, COLUMNS, rows)
    bits = found["bits"]
    told = ", ".join(f"{kind} {count:,}" for kind, count in bits["changed_scores"].items())
    console.out.print(
        f"scores that changed, of {bits['skills']:,} other skills for {bits['requests']} requests: {told}"
    )


def _told(one: dict[str, Any]) -> str:
    return f"{one['phrases']} phrases{', fine-tuned' if one['fine_tuned'] else ''}"


def _figures(measures: dict[str, Any]) -> list[float | None]:
    return [measures[group][name]["top3"] for group, name in CELLS]


def _ms(one: dict[str, Any]) -> str:
    return f"{1000 * one['seconds']['median']:.0f}, {1000 * one['seconds']['most']:.0f}"
