"""`namefree experiment learning`: what outcomes alone teach."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import msgspec

from model.cells import write_whole
from model.gate_lines import Bounds
from model.pipeline import Recipe
from model.sample import SAMPLE_DIR
from topics.errors import UsageError
from topics.folders import home_dir
from topics.settings import Settings
from workers import console
from workers.commands.demo import cluster
from workers.learning import run_learning
from workers.learning_plan import ABLATIONS, ASKED, LearningOptions
from workers.learning_report import render
from workers.learning_summary import summary
from workers.pages import make_room, write_page

QUICK_ROWS, QUICK_PARTS, QUICK_WORLDS, QUICK_CHANGE_S, QUICK_CYCLE_EPOCHS = 2_000, 2, ("steady",), 10.0, 2

QUICK_BOUNDS = Bounds(max_loss=0.02)  # few rows judge


@click.command("learning", context_settings={"show_default": True})
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Data folder.  [default: the sample marketplace that ships]",
)
@click.option(
    "--worlds",
    metavar="NAMES",
    help=f"Of {', '.join(ASKED)}, with commas.  [default: all, or {','.join(QUICK_WORLDS)} with --quick]",
)
@click.option(
    "--ablations",
    metavar="NAMES",
    default="none",
    help=f"Runs of the first world with one thing off: none, all, or of {', '.join(ABLATIONS)}, with commas.",
)
@click.option("--parts", type=click.IntRange(2), help=f"Parts asked.  [default: 4, or {QUICK_PARTS} with --quick]")
@click.option(
    "--first",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.2,
    help="Share of the training rows that the first release learns from.",
)
@click.option("--seeds", type=click.IntRange(1), default=1, help="How many.")
@click.option(
    "--max-rows",
    type=click.IntRange(1),
    help=f"At most so many training rows.  [default: all, or {QUICK_ROWS:,} with --quick]",
)
@click.option(
    "--full",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A bundle of full supervision, to measure against.  [default: trained here, once]",
)
@click.option(
    "--quick", is_flag=True, help="A third of the epochs, fewer rows, two parts, the steady world alone."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Runs, results.json and report.html.  [default: experiments/learning in namefree's state folder]",
)
@console.json_option
@click.pass_obj
def command(
    settings: Settings,
    data: Path | None,
    worlds: str | None,
    ablations: str,
    parts: int | None,
    first: float,
    seeds: int,
    max_rows: int | None,
    full: Path | None,
    quick: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """The closed loop: a first release from a fifth of the labels, the other requests asked by simulated customers
    through the real topics, a distillation cycle after each part, and what the releases are worth on dev rows that
    are never asked, beside full supervision.

    Starts an embedded broker for each run, or uses the cluster that NAMEFREE_BOOTSTRAP names. A finished run is
    kept: the same command goes on where it was.

    \b
    Example:
      namefree experiment learning --quick
      namefree experiment learning --data my-data --ablations all
    """
    out = (out or home_dir() / "experiments" / "learning").absolute()
    report = out / "report.html"
    options = LearningOptions(
        data=data or SAMPLE_DIR,
        out=out,
        worlds=_names("world", worlds or ",".join(QUICK_WORLDS if quick else ASKED), ASKED),
        ablations=_ablations(ablations),
        parts=parts or (QUICK_PARTS if quick else 4),
        first=first,
        seeds=seeds,
        recipe=quick_recipe() if quick else Recipe(),
        max_rows=max_rows or (QUICK_ROWS if quick else None),
        full=full,
    )
    if quick:
        options = replace(options, change_s=QUICK_CHANGE_S, cycle_epochs=QUICK_CYCLE_EPOCHS, bounds=QUICK_BOUNDS)
    make_room(report)
    found = summary(run_learning(options, lambda: cluster(settings, "learning"))) | {"quick": quick}
    write_whole(out / "results.json", msgspec.json.format(msgspec.json.encode(found), indent=1))
    write_page(render(found), report)
    if as_json:
        console.print_json(found | {"report": str(report)})
    else:
        _show(found)
        console.out.print(str(report))


def quick_recipe() -> Recipe:
    """A third of the epochs."""
    recipe = Recipe()
    training = msgspec.structs.replace(recipe.training, epochs=-(-recipe.training.epochs // 3))
    return msgspec.structs.replace(recipe, training=training)


def _ablations(asked: str) -> tuple[str, ...]:
    if asked == "none":
        return ()
    return _names("ablation", asked, ABLATIONS) if asked != "all" else ABLATIONS


def _names(what: str, asked: str, known: tuple[str, ...]) -> tuple[str, ...]:
    names = [name.strip() for name in asked.split(",")]
    for name in names:
        if name not in known:
            raise UsageError(f"{name!r} is no {what}; there are: {', '.join(known)}")
    return tuple(dict.fromkeys(names))


def _show(found: dict[str, Any]) -> None:
    checks = [
        (one["name"], one["aim"], one["value"], "kept" if one["kept"] else "not kept") for one in found["checks"]
    ]
    console.print_table("What was aimed at", ("what", "aim", "found", ""), checks)
    conditions = list(found["full"]["top1"])
    heads = ("after", *("mean" if one == "all" else f"{one} % linked" for one in conditions))
    for name, world in found["worlds"].items():
        rows = [
            (f"cycle {at}" if at else "the first release", *(_share(point[one]) for one in conditions))
            for at, point in enumerate(world["top1"])
        ]
        rows += [
            (f"cycle {at}: gap closed", *(_share(point[one]) for one in conditions))
            for at, point in enumerate(world.get("closed", ()), 1)
        ]
        console.print_table(f"{name}: top-1 of the decision on dev rows, in %", heads, rows)
        _show_parts(name, world)
    full = [("full supervision", *(_share(found["full"]["top1"][one]) for one in conditions))]
    console.print_table("top-1 with all labels, in %", heads, full)
    for name, one in found["ablations"].items():
        rows = [
            (f"cycle {at}", *(_points(point[condition]) for condition in conditions))
            for at, point in enumerate(one["against_whole"], 1)
        ]
        console.print_table(f"{name}: points of top-1 more or less than with nothing off", heads, rows)
    if "drift" in found:
        rows = [(when, *map(_percent, less.values())) for when, less in found["drift"]["failing_less"].items()]
        console.print_table(
            "skills that fail: opened less than by the first release, in %", ("when", "live", "serving"), rows
        )
    if "adversarial" in found:
        pairs = zip(found["adversarial"]["cheater_opened"], found["adversarial"]["cheater_honest"], strict=True)
        rows = [(f"part {at}", *pair) for at, pair in enumerate(pairs, 1)]
        console.print_table("the cheater opened", ("when", "with fakers", "honest"), rows)
    console.out.print(f"customers and worlds are simulated; links: {found['data']['links']}")


def _show_parts(name: str, world: dict[str, Any]) -> None:
    who = list(world["parts"][0]["friction"])
    rows = [
        (
            at,
            part["asked"],
            part["decisions_per_s"],
            *(part["friction"][one]["not_accepted"] for one in who),
            *(part["friction"][one]["not_taken"] for one in who),
            ", ".join("published" if cycle["published"] else "refused" for cycle in part["cycles"]),
            part["cycle_s"],
        )
        for at, part in enumerate(world["parts"], 1)
    ]
    heads = ("part", "asked", "decided/s", *who, *(f"{one}, but enabled" for one in who), "cycle", "s")
    console.print_table(f"{name}: friction (simulated customers)", heads, rows)


def _share(one: dict[str, float] | None) -> str:
    if one is None:
        return "–"
    told = f"{100 * one['mean']:.1f}"
    return f"{told} ({100 * one['low']:.1f} to {100 * one['high']:.1f})" if "low" in one else told


def _points(one: dict[str, float]) -> str:
    mean, low, high = (f"{100 * one[field]:+.1f}" for field in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
