"""`namefree experiment reranker`: what the second network's parts are worth."""

from pathlib import Path
from typing import Any

import click
import msgspec

from model.cells import write_whole
from model.conditions import ALONE, SHARES
from model.experiment import QUICK_SEEDS, SEEDS, read_market
from model.reranker_experiment import planned, run
from model.reranker_measures import SHORTLIST
from model.reranker_summary import RIVALS, summary
from model.sample import SAMPLE_DIR
from topics.folders import home_dir
from workers import console
from workers.sandbox import declared

HEADS = {
    **{str(share): f"{share} % linked" for share in SHARES},
    **dict(zip((ALONE, *RIVALS), ("no links", "rivals: none", "rivals: all"), strict=True)),
}


@click.command("reranker", context_settings={"show_default": True})
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Data folder.  [default: the sample marketplace that ships]",
)
@click.option("--quick", is_flag=True, help="Half of the epochs, and two seeds.")
@click.option(
    "--seeds", type=click.IntRange(1), help=f"How many.  [default: {SEEDS}, or {QUICK_SEEDS} with --quick]"
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Seeds and results.json.  [default: experiments/reranker in namefree's state folder]",
)
@console.json_option
def command(data: Path | None, quick: bool, seeds: int | None, out: Path | None, as_json: bool) -> None:
    """Compare rerankers that see more and more: text, links, intents and slots, what cards declare, what skills
    answer (simulated), statistics; and a transformer, a BiLSTM and none of both over the list.

    All dev rows are decided with the intended skill linked in 90, 70 and 0 % of them and without links; rows of
    rivals (skills that share requests) with none of the family linked and with all of it. A finished seed is kept:
    the same command goes on where it was.

    \b
    Example:
      namefree experiment reranker --quick
      namefree experiment reranker --data my-data --seeds 3
    """
    out = (out or home_dir() / "experiments" / "reranker").absolute()
    market = read_market(data or SAMPLE_DIR)
    plan = planned(market, quick, seeds or (QUICK_SEEDS if quick else SEEDS), declared)
    with console.progress("experiment", round(plan.work)) as advance:
        found = summary(plan, run(plan, out, lambda done, note: advance(int(done), note)))
    write_whole(out / "results.json", msgspec.json.format(msgspec.json.encode(found), indent=1))
    if as_json:
        console.print_json(found)
    else:
        _show(found)
        console.out.print(str(out / "results.json"))


def _show(found: dict[str, Any]) -> None:
    systems: dict[str, Any] = found["systems"]
    conditions = list(found["rows"])
    heads = ("system", *(HEADS[one] for one in conditions))
    first = [(name, *(_measure(one, c, "top1") for c in conditions)) for name, one in systems.items()]
    console.print_table("top-1 in % (95 % interval)", heads, first)
    fewer = [
        (name, *_fewer(one["against_shortlist"], conditions)) for name, one in systems.items() if name != SHORTLIST
    ]
    title = "errors of the first choice, in % fewer than the shortlist's (paired 95 % interval)"
    console.print_table(title, heads, fewer)
    for measure, told in (("top3", "top-3"), ("mrr", "mean reciprocal rank")):
        rows = [(name, *(_mean(one, c, measure) for c in conditions)) for name, one in systems.items()]
        console.print_table(told, heads, rows)
    title = f"none, over {found['rows_none']} rows that no skill should answer; share caught at 2 % false ones"
    columns = ("system", "AUROC at 70", "no links", "caught at 70", "no links", "shuffled", "one more")
    console.print_table(title, columns, [(name, *_none(one)) for name, one in systems.items()])
    errors = [
        (name, *(one["figures"][c]["calibration_error"] for c in conditions)) for name, one in systems.items()
    ]
    console.print_table("calibration error of the decision's probability (ECE, 15 bins)", heads, errors)
    _show_alone(found, conditions)


def _show_alone(found: dict[str, Any], conditions: list[str]) -> None:
    rows = [
        ("CanFulfill by cards", *_fewer(found["can_fulfill_alone"], conditions)),
        ("asked: simulated", *_fewer(found["asked_alone"], conditions)),
    ]
    title = "that part alone: errors of the first choice, in % fewer with it than without (paired 95 % interval)"
    console.print_table(title, ("part", *(HEADS[one] for one in conditions)), rows)
    reading = {name: value for name, value in found["reading"].items() if not name.endswith("_count")}
    console.out.print(
        "shuffled, one more: the share of decisions at 70 % linked that change in another order, or with one more "
        "candidate, which is popular and does not fit"
    )
    console.out.print(f"reading on the sample's templates: {console.figures(reading, 2)}")
    rows_told = ", ".join(f"{HEADS[name]} {count:,}" for name, count in found["rows"].items())
    console.out.print(f"rows: {rows_told}; {found['seeds']} seeds; links: {found['links']}")
    console.out.print(f"answers of skills that are asked are {found['answers']}")


def _measure(one: dict[str, Any], condition: str, measure: str) -> str:
    mean, low, high = (100 * one["measures"][condition][measure][field] for field in ("mean", "low", "high"))
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"


def _mean(one: dict[str, Any], condition: str, measure: str) -> float:
    mean: float = one["measures"][condition][measure]["mean"]
    return mean


def _fewer(against: dict[str, Any], conditions: list[str]) -> list[str]:
    return [_percentages(against[condition]["top1"]["fewer_errors"]) for condition in conditions]


def _percentages(one: dict[str, float] | None) -> str:
    if one is None:
        return "–"
    mean, low, high = (f"{100 * one[field]:+.1f}" for field in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def _none(one: dict[str, Any]) -> list[float | str | None]:
    of = one["figures"]
    return [
        *(of[condition][name] for name in ("auroc", "caught") for condition in ("70", ALONE)),
        *(f"{100 * one[name]:.2f} %" for name in ("shuffled", "intruded")),
    ]
