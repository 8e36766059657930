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

CONDITIONS = (*(str(share) for share in SHARES), ALONE)
HEADS = {
    **{str(share): f"{share} % linked" for share in SHARES},
    **dict(zip((ALONE, *RIVALS), ("no links", "rivals: none", "rivals: all linked"), strict=True)),
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
    rivals = [one for one in RIVALS if one in conditions]
    heads = [HEADS[one] for one in conditions]
    first = [(name, *(_measure(one, c, "top1") for c in conditions)) for name, one in systems.items()]
    console.print_table("top-1 (95 % interval)", ("system", *heads), first)
    fewer = [(name, *_fewer(one["against_shortlist"], conditions)) for name, one in _beside(systems)]
    console.print_table(
        "errors of the first choice, in % fewer than the shortlist's (paired 95 % interval)",
        ("system", *heads),
        fewer,
    )
    deeper = [
        (name, *(_mean(one, c, m) for m in ("top3", "mrr") for c in (*CONDITIONS, *rivals)))
        for name, one in systems.items()
    ]
    short = [HEADS[c] for c in (*CONDITIONS, *rivals)]
    console.print_table("top-3, then mrr", ("system", *short, *short), deeper)
    console.print_table(
        f"none, over {found['rows_none']} rows that no skill should answer; calibration; changed decisions",
        (
            *("system", "AUROC at 70", "no links", "caught at 70", "no links", "ECE at 90", "70", "0", "no links"),
            *(f"ECE {HEADS[c]}" for c in rivals),
            *("shuffled", "one more"),
        ),
        [(name, *_figures(one, rivals)) for name, one in systems.items()],
    )
    _show_alone(found, conditions)


def _show_alone(found: dict[str, Any], conditions: list[str]) -> None:
    rows = [
        ("CanFulfill by the cards", *_fewer(found["can_fulfill_alone"], conditions)),
        ("asked (simulated) instead", *_fewer(found["asked_alone"], conditions)),
    ]
    title = "that part alone: errors of the first choice, in % fewer with it than without (paired 95 % interval)"
    console.print_table(title, ("part", *(HEADS[one] for one in conditions)), rows)
    reading = {name: value for name, value in found["reading"].items() if not name.endswith("_count")}
    console.out.print(f"reading on the sample's templates: {console.figures(reading, 2)}")
    rows_told = ", ".join(f"{HEADS[name]} {count:,}" for name, count in found["rows"].items())
    console.out.print(f"rows: {rows_told}; {found['seeds']} seeds; links: {found['links']}")
    console.out.print(f"answers of skills that are asked are {found['answers']}")


def _beside(systems: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, one) for name, one in systems.items() if name != SHORTLIST]


def _measure(one: dict[str, Any], condition: str, measure: str) -> str:
    mean, low, high = (one["measures"][condition][measure][field] for field in ("mean", "low", "high"))
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


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


def _figures(one: dict[str, Any], rivals: list[str]) -> list[float | str | None]:
    of = one["figures"]
    return [
        *(of[condition][name] for name in ("auroc", "caught") for condition in ("70", ALONE)),
        *(of[condition]["calibration_error"] for condition in (*CONDITIONS, *rivals)),
        *(f"{100 * one[name]:.2f} %" for name in ("shuffled", "intruded")),
    ]
